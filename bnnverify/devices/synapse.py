"""The soft-bound synapse: an analog cell whose state is the latent of a binary weight.

One pulse moves the state v by a step that shrinks towards the bound it approaches::

    up:   v <- v + a_up   * (1 - v / b_max) * (1 + s * xi)        (multiplicative noise, xi standard normal)
    down: v <- v - a_down * (1 - v / b_min) * (1 + s * xi)

with additive noise ``+ s * xi`` joins the bracket instead; then v is clipped to [b_min, b_max]. Up and down steps are
equal at the symmetry point, towards which random pulses drift. The weight is ``sgn(v - reference)``, sgn(0) = +1; zero
shifting programs the reference to the symmetry point. States and steps have no unit: a conductance over a reference
conductance.

References:
    Kim, Rasch, Gokmen et al., arXiv:1907.10228, 2019, for zero shifting. Rasch et al., AICAS 2021 (aihwkit), for the
    soft-bound device. The lognormal spread of the parameters is ours: it keeps steps and bounds on their side of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.devices.switching import FloatArray, lognormal_factors, not_negative, positive
from bnnverify.errors import QueryError

NOISES = ("multiplicative", "additive")


@dataclass(frozen=True, slots=True, eq=False)
class SynapseCells:
    """The parameters of each cell, float64 arrays of one shape.

    Attributes:
        a_up: Step of an up pulse at state 0, above 0, state units.
        a_down: Step of a down pulse at state 0, above 0, state units.
        b_min: Lower bound, below 0, state units.
        b_max: Upper bound, above 0, state units.
    """

    a_up: FloatArray
    a_down: FloatArray
    b_min: FloatArray
    b_max: FloatArray

    def __post_init__(self) -> None:
        shapes = set()
        for name in ("a_up", "a_down", "b_min", "b_max"):
            array = np.array(getattr(self, name), dtype=np.float64)
            sign = -1 if name == "b_min" else 1
            if not (np.isfinite(array) & (sign * array > 0)).all():
                raise QueryError(f"{name} has an entry that is not {'below' if sign < 0 else 'above'} 0.")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
            shapes.add(array.shape)
        if len(shapes) > 1:
            raise QueryError(f"the cells have parameters of shapes {sorted(shapes)}, expected one shape.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of cells."""
        return self.a_up.shape

    @property
    def symmetry_point(self) -> FloatArray:
        """State at which an up and a down pulse are equally large, of each cell, state units.

        >>> cells = SynapseCells(np.array([0.02]), np.array([0.01]), np.array([-1.0]), np.array([1.0]))
        >>> cells.symmetry_point.round(4).tolist()
        [0.3333]
        """
        return (self.a_up - self.a_down) / (self.a_up / self.b_max - self.a_down / self.b_min)


@dataclass(frozen=True, slots=True)
class SoftBoundSynapse:
    """The law of a soft-bound cell, with its variation.

    Attributes:
        a_up: Step of an up pulse at state 0 of the median cell, above 0, state units.
        a_down: Step of a down pulse at state 0 of the median cell, above 0, state units.
        b_min: Lower bound of the median cell, below 0, state units.
        b_max: Upper bound of the median cell, above 0, state units.
        step_sigma: Standard deviation of ln(a_up) and of ln(a_down) from cell to cell, independent, without unit.
        bound_sigma: Standard deviation of ln(b_max) and of ln(-b_min) from cell to cell, independent, without unit.
        c2c_sigma: Standard deviation s of the noise of each pulse, in units of its step, without unit.
        noise: "multiplicative" or "additive".

    >>> synapse = SoftBoundSynapse(a_up=0.02, a_down=0.01)
    >>> cells = synapse.sample_cells(3, generator=np.random.default_rng(0))
    >>> synapse.pulse(np.zeros(3), [1, -1, 0], cells=cells).tolist()
    [0.02, -0.01, 0.0]
    """

    a_up: float
    a_down: float
    b_min: float = -1.0
    b_max: float = 1.0
    step_sigma: float = 0.0
    bound_sigma: float = 0.0
    c2c_sigma: float = 0.0
    noise: str = "multiplicative"

    def __post_init__(self) -> None:
        positive(self, "a_up", "a_down", "b_max")
        not_negative(self, "step_sigma", "bound_sigma", "c2c_sigma")
        try:
            object.__setattr__(self, "b_min", float(self.b_min))
        except (TypeError, ValueError):
            raise QueryError(f"b_min is {self.b_min!r}, expected a number below 0.") from None
        if not -np.inf < self.b_min < 0:
            raise QueryError(f"b_min is {self.b_min!r}, expected a number below 0.")
        if self.noise not in NOISES:
            raise QueryError(f"noise is {self.noise!r}, expected one of: {', '.join(NOISES)}.")

    @classmethod
    def from_step(cls, dw_min: float, *, up_down: float = 0.0, **options: Any) -> Self:
        """The synapse with steps ``dw_min * (1 + up_down)`` up and ``dw_min * (1 - up_down)`` down.

        Args:
            dw_min: Mean step at state 0, state units.
            up_down: Imbalance, within (-1, 1), without unit.
            options: The other attributes.
        """
        if not -1 < up_down < 1:
            raise QueryError(f"up_down is {up_down!r}, expected an imbalance within (-1, 1).")
        return cls(a_up=dw_min * (1 + up_down), a_down=dw_min * (1 - up_down), **options)

    def sample_cells(self, n: int | tuple[int, ...], *, generator: np.random.Generator) -> SynapseCells:
        """Parameters of `n` cells (a number, or a shape), lognormal around those of the median cell."""
        shape = n if isinstance(n, tuple) else (n,)
        size = int(np.prod(shape)) if isinstance(n, tuple) else n

        def spread(median: float, sigma: float) -> FloatArray:
            return (median * lognormal_factors(size, sigma, generator).astype(np.float64)).reshape(shape)

        return SynapseCells(
            a_up=spread(self.a_up, self.step_sigma),
            a_down=spread(self.a_down, self.step_sigma),
            b_min=spread(self.b_min, self.bound_sigma),
            b_max=spread(self.b_max, self.bound_sigma),
        )

    def pulse(
        self,
        state: ArrayLike,
        directions: ArrayLike,
        *,
        cells: SynapseCells,
        generator: np.random.Generator | None = None,
    ) -> FloatArray:
        """The states after one pulse for each cell.

        Args:
            state: States, shape of `cells`, state units.
            directions: +1 up, -1 down, 0 no pulse; shape of `cells`.
            cells: From `sample_cells`.
            generator: Source of the noise; needed if `c2c_sigma` is above 0. One normal is drawn for every cell,
                pulsed or not, so that the draws do not depend on the directions.

        Returns:
            New array of float64; a cell without a pulse keeps its state, even one outside its bounds.

        Raises:
            QueryError: A shape, a direction or a missing generator.
        """
        v = np.asarray(state, dtype=np.float64)
        d = np.asarray(directions)
        if v.shape != cells.shape or d.shape != cells.shape:
            raise QueryError(
                f"state {v.shape} and directions {d.shape}, expected the shape of the cells, {cells.shape}."
            )
        if not np.isin(d, (-1, 0, 1)).all():
            raise QueryError("a direction is not one of -1, 0, +1.")
        room = np.where(d > 0, 1 - v / cells.b_max, 1 - v / cells.b_min)
        if self.c2c_sigma > 0:
            if generator is None:
                raise QueryError(f"c2c_sigma is {self.c2c_sigma:g}, but no generator was given to draw the noise from.")
            noise = self.c2c_sigma * generator.standard_normal(v.shape)
            room = room + noise if self.noise == "additive" else room * (1 + noise)
        moved = v + np.where(d > 0, cells.a_up, -cells.a_down) * room
        return np.where(d == 0, v, np.clip(moved, cells.b_min, cells.b_max))

    def zero_shift(
        self,
        cells: SynapseCells,
        *,
        pairs: int | None = None,
        start: ArrayLike = 0.0,
        generator: np.random.Generator | None = None,
    ) -> FloatArray:
        """References at which a balanced stream of pulses leaves the weight unbiased: the symmetry points.

        Args:
            cells: From `sample_cells`.
            pairs: None for the closed form. A number: apply so many pairs of an up and a down pulse and copy the
                last state, as hardware does; each pair contracts the distance by
                ``(1 - a_up / b_max) * (1 + a_down / b_min)`` towards a point within one step of the closed form.
            start: States before the pulses, state units.
            generator: Source of the noise of the pulses.

        Returns:
            Reference of each cell, shape of `cells`, state units.
        """
        if pairs is None:
            return cells.symmetry_point
        if pairs < 0:
            raise QueryError(f"pairs is {pairs}, expected 0 or more pairs of pulses.")
        v = np.broadcast_to(np.asarray(start, dtype=np.float64), cells.shape)
        up = np.ones(cells.shape, dtype=np.int8)
        for _ in range(pairs):
            v = self.pulse(v, up, cells=cells, generator=generator)
            v = self.pulse(v, -up, cells=cells, generator=generator)
        return np.array(v)

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the units of the attributes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The synapse whose `to_json` gave `values`; QueryError if they are none."""
        try:
            return cls(**values)
        except TypeError as error:
            raise QueryError(f"a soft-bound synapse cannot be made: {str(error).split('() ')[-1]}.") from None


def weights(state: ArrayLike, reference: ArrayLike = 0.0) -> NDArray[np.int8]:
    """Binary weights ``sgn(state - reference)``, sgn(0) = +1; int8 of -1 and +1.

    >>> weights([-0.1, 0.0, 0.3], 0.0).tolist()
    [-1, 1, 1]
    """
    return np.where(np.asarray(state) >= np.asarray(reference), 1, -1).astype(np.int8)
