"""A switching cell given by a table: monotone interpolation between measured pulses, and nothing outside them.

The table is a full grid over voltages and widths. Between its points the probability (or, at scale "hazard", the
logarithm of the hazard) is bilinear in V and ln t, which is monotone in both wherever the table is. A pulse outside
the grid, or a probability that the grid does not reach, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.devices.switching import RESET, SET, FloatArray, checked, checked_direction, lognormal_factors, positive
from bnnverify.errors import QueryError

Grid = tuple[tuple[float, ...], ...]

SCALES = ("probability", "hazard")


@dataclass(frozen=True, slots=True)
class InterpolatedSwitching:
    """P(V, t) from a table; all answers lie within the measured range.

    The variation between cells and pulses is part of what was measured, so both sigmas are 0.

    Attributes:
        voltages: Amplitudes of the grid, rising, V, shape `(m,)`.
        widths: Widths of the grid, rising, s, shape `(n,)`.
        set_grid: Probability of a SET pulse at each voltage (rows) and width (columns), shape `(m, n)`; rising along
            both. None if no SET was measured.
        reset_grid: The same for RESET pulses.
        resistance: R in the energy of a SET pulse, ohm; None if not known.
        reset_resistance: R in the energy of a RESET pulse, ohm; None for `resistance`.
        scale: What is linear between points: "probability", or "hazard" for ln(-ln(1 - P)), which suits small
            probabilities and needs all of them within (0, 1).

    >>> cell = InterpolatedSwitching((1.0, 2.0), (1e-9, 1e-7), ((0.0, 0.2), (0.4, 0.8)))
    >>> float(cell.probability(1.5, 1e-8).round(12)), float(cell.width_for(0.6, 2.0).round(12))
    (0.35, 1e-08)
    """

    kind: ClassVar[str] = "interpolated"

    voltages: tuple[float, ...]
    widths: tuple[float, ...]
    set_grid: Grid | None
    reset_grid: Grid | None = None
    resistance: float | None = None
    reset_resistance: float | None = None
    scale: str = "probability"

    def __post_init__(self) -> None:
        for name, unit, lowest in (("voltages", "V", 0.0), ("widths", "s", math.ulp(0.0))):
            axis = checked(list(getattr(self, name)), name, f" {unit}")
            if axis.ndim != 1 or not axis.size or axis[0] < lowest or (np.diff(axis) <= 0).any():
                raise QueryError(f"{name} is {getattr(self, name)!r:.80}, expected rising numbers [{unit}].")
            object.__setattr__(self, name, tuple(axis.tolist()))
        if self.scale not in SCALES:
            raise QueryError(f"scale is {self.scale!r}, expected one of: {', '.join(SCALES)}.")
        if self.set_grid is None and self.reset_grid is None:
            raise QueryError("the cell has neither a SET nor a RESET grid, expected at least one of them.")
        for name in ("set_grid", "reset_grid"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._checked_grid(name))
        for name in ("resistance", "reset_resistance"):
            if getattr(self, name) is not None:
                positive(self, name)

    def _checked_grid(self, name: str) -> Grid:
        grid = checked([list(row) for row in getattr(self, name)], name, "", below=math.nextafter(1, 2))
        shape = (len(self.voltages), len(self.widths))
        if grid.shape != shape:
            raise QueryError(f"{name} has shape {grid.shape}, expected {shape}: a row for each voltage.")
        if (np.diff(grid, axis=0) < 0).any() or (np.diff(grid, axis=1) < 0).any():
            raise QueryError(
                f"{name} falls somewhere, expected it to rise with voltage and width. Fit it monotonically."
            )
        if self.scale == "hazard" and ((grid == 0) | (grid == 1)).any():
            raise QueryError(f"{name} has a probability 0 or 1, expected (0, 1) at scale 'hazard'. Use 'probability'.")
        return tuple(map(tuple, grid.tolist()))

    def _table(self, direction: int) -> FloatArray:
        """What is interpolated, shape `(m, n)`."""
        grid = self.set_grid if checked_direction(direction) == SET else self.reset_grid
        if grid is None:
            raise QueryError(f"no {'SET' if direction == SET else 'RESET'} pulses were measured; nothing is assumed.")
        return self._scaled(np.array(grid))

    def _scaled(self, p: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore"):
            return np.log(-np.log1p(-p)) if self.scale == "hazard" else p

    @property
    def _range(self) -> str:
        return f"{self.voltages[0]:g} to {self.voltages[-1]:g} V, {self.widths[0]:g} to {self.widths[-1]:g} s"

    def _inside(self, values: ArrayLike, axis: tuple[float, ...], what: str, unit: str) -> FloatArray:
        array = checked(values, what, f" {unit}")
        outside = (array < axis[0]) | (array > axis[-1])
        if outside.any():
            raise QueryError(
                f"{what} is {array[outside].flat[0]:g} {unit}, but measured are {self._range}. Measure there: "
                "nothing is extrapolated."
            )
        return array

    def _values(self, voltage: ArrayLike, width: ArrayLike, direction: int) -> FloatArray:
        """The bilinear interpolant on its scale."""
        table = self._table(direction)
        i, v = _place(self._inside(voltage, self.voltages, "voltage", "V"), np.array(self.voltages))
        j, t = _place(np.log(self._inside(width, self.widths, "width", "s")), np.log(self.widths))
        k, m = np.minimum(i + 1, table.shape[0] - 1), np.minimum(j + 1, table.shape[1] - 1)
        low = _between(table[i, j], table[i, m], t)
        high = _between(table[k, j], table[k, m], t)
        values: FloatArray = _between(low, high, v)
        return values

    def probability(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Interpolated probability that a pulse of `voltage` [V] and `width` [s] switches the cell.

        Raises:
            QueryError: Outside the measured range, or a direction that was not measured.
        """
        values = self._values(voltage, width, direction)
        return values[()] if self.scale == "probability" else -np.expm1(-np.exp(values))

    def hazard(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """``-ln(1 - P)``, without unit; infinite where every measured pulse switched."""
        values = self._values(voltage, width, direction)
        with np.errstate(divide="ignore"):
            return np.exp(values) if self.scale == "hazard" else -np.log1p(-values)

    def width_for(self, probability: ArrayLike, voltage: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Least width [s] of the measured range that reaches `probability` at `voltage` [V].

        Raises:
            QueryError: The measured range does not reach it, or a number that does not fit.
        """
        self._inside(voltage, self.voltages, "voltage", "V")

        def along(volts: float) -> FloatArray:
            return self._values(np.full(len(self.widths), volts), self.widths, direction)

        found = np.exp(self._inverse(probability, voltage, along, np.log(self.widths), "V"))
        return np.clip(found, self.widths[0], self.widths[-1])

    def voltage_for(self, probability: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Least amplitude [V] of the measured range that reaches `probability` in `width` [s].

        Raises:
            QueryError: The measured range does not reach it, or a number that does not fit.
        """
        self._inside(width, self.widths, "width", "s")

        def along(seconds: float) -> FloatArray:
            return self._values(self.voltages, np.full(len(self.voltages), seconds), direction)

        return self._inverse(probability, width, along, np.array(self.voltages), "s")

    def _inverse(
        self,
        probability: ArrayLike,
        fixed: ArrayLike,
        along: Callable[[float], FloatArray],
        axis: FloatArray,
        unit: str,
    ) -> FloatArray:
        """Least point of `axis` where the interpolant at each `fixed` value reaches the probability."""
        p, held = np.broadcast_arrays(checked(probability, "probability", "", below=math.nextafter(1, 2)), fixed)
        targets = self._scaled(p)
        found = np.empty(p.shape)
        for where in np.ndindex(p.shape):
            values, target = along(float(held[where])), targets[where]
            right = int(np.searchsorted(values, target, side="left"))
            if right == len(values) or (right == 0 and target < values[0]):
                raise QueryError(
                    f"probability {p[where]:g} at {held[where]:g} {unit} is not reached within what was measured "
                    f"({self._range}). Measure more: nothing is extrapolated."
                )
            if right == 0:
                found[where] = axis[0]
            else:
                share = (target - values[right - 1]) / (values[right] - values[right - 1])
                found[where] = _between(axis[right - 1], axis[right], share)
        return found[()]

    def energy(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Energy of one pulse, ``V**2 * t / R``, J, within the measured range.

        Raises:
            QueryError: No resistance was given.
        """
        ohm = self.resistance
        if checked_direction(direction) == RESET and self.reset_resistance is not None:
            ohm = self.reset_resistance
        if ohm is None:
            raise QueryError(
                "the cell has no resistance to compute the energy from. Give resistance [ohm], such as "
                "MeasuredSwitching.load(path, resistance=1e4)."
            )
        volts = self._inside(voltage, self.voltages, "voltage", "V")
        return (volts**2 * self._inside(width, self.widths, "width", "s") / ohm)[()]

    @property
    def device_sigma(self) -> float:
        """0: the variation from cell to cell is in the table."""
        return 0.0

    @property
    def cycle_sigma(self) -> float:
        """0: the variation from pulse to pulse is in the table."""
        return 0.0

    def hazard_factors(self, n: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
        """Ones, shape `(n,)`."""
        return lognormal_factors(n, 0.0, generator)

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the units of the attributes."""

        def lists(grid: Grid | None) -> list[list[float]] | None:
            return None if grid is None else [list(row) for row in grid]

        return {
            "kind": self.kind,
            "voltages": list(self.voltages),
            "widths": list(self.widths),
            "set_grid": lists(self.set_grid),
            "reset_grid": lists(self.reset_grid),
            "resistance": self.resistance,
            "reset_resistance": self.reset_resistance,
            "scale": self.scale,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The cell whose `to_json` gave `values`; QueryError if they are none."""
        if not isinstance(values, Mapping) or values.get("kind") != cls.kind:
            raise QueryError(f"the cell is {values!r:.80}, expected an object of kind {cls.kind!r}.")
        try:
            return cls(**{name: value for name, value in values.items() if name != "kind"})
        except TypeError as error:
            raise QueryError(f"an interpolated cell cannot be made: {str(error).split('() ')[-1]}.") from None


def _place(values: FloatArray, axis: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Left neighbour of each value on the axis, and the share of the way to the right one."""
    left = np.clip(np.searchsorted(axis, values, side="right") - 1, 0, max(0, len(axis) - 2))
    span = np.diff(axis, append=axis[-1] + 1)[left]
    return left, np.clip((values - axis[left]) / span, 0.0, 1.0)


def _between(a: Any, b: Any, share: Any) -> Any:
    """``a`` at share 0, ``b`` at share 1; exact at both ends and never outside them."""
    return np.clip(a + share * (b - a), a, b) * (share < 1) + b * (share >= 1)
