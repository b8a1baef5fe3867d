"""Switching cells: the probability P(V, t) that one pulse switches a binary cell, and its inverses.

A pulse of amplitude V and width t switches a cell that must switch with probability ``P = 1 - exp(-h)``, where the
hazard is ``h = (t / tau(V))**beta``. The laws differ in tau(V):

- `ThermallyActivated` (magnetic tunnel junctions): ``tau = tau0 * exp(delta * (1 - V / critical_voltage))``;
- `FieldAccelerated` (resistive and conductive-bridge memories): ``tau = tau0 * exp(-V / voltage_scale)``;
- `NucleationLimited` (ferroelectric tunnel junctions, Merz): ``tau = tau_inf * exp(activation_voltage / V)``.

Voltages are amplitudes, at least 0: the polarity follows from `direction`, +1 for SET (-1 to +1) and -1 for RESET.
A pulse never switches a cell that is already where the pulse drives it. Variation multiplies tau by a lognormal
factor f of median 1, hence the hazard by ``f**-beta``: one f for each cell (device to device) and one for each pulse
(cycle to cycle). `probability` and its inverses are those of the median cell at the median pulse; averages over the
variation are in `bnnverify.devices.programming`. Arithmetic is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.errors import QueryError
from bnnverify.scalars import integer, plain

FloatArray = NDArray[np.float64]

SET, RESET = 1, -1


@runtime_checkable
class SwitchingCell(Protocol):
    """What every binary cell answers, whether its law is given, fitted or interpolated.

    Arguments broadcast as numpy does; numbers in give a numpy number out.
    """

    def probability(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Probability within [0, 1] that one pulse of `voltage` [V] and `width` [s] switches the cell."""
        ...

    def hazard(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """``-ln(1 - P)``, without unit: what variation multiplies, and what small probabilities equal."""
        ...

    def width_for(self, probability: ArrayLike, voltage: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Width [s] at which a pulse of `voltage` [V] switches with `probability`."""
        ...

    def voltage_for(self, probability: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Amplitude [V] at which a pulse of `width` [s] switches with `probability`."""
        ...

    def energy(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Energy of one pulse, J."""
        ...

    def hazard_factors(self, n: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
        """One factor on the hazard for each of `n` cells, shape `(n,)`, without unit."""
        ...

    @property
    def device_sigma(self) -> float:
        """Standard deviation of ln(hazard factor) from cell to cell, without unit."""
        ...

    @property
    def cycle_sigma(self) -> float:
        """Standard deviation of ln(hazard factor) from pulse to pulse, without unit."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain values that `cell_from_json` reads back."""
        ...


def checked_direction(direction: int) -> int:
    """`direction` if it is SET (+1) or RESET (-1); QueryError otherwise."""
    sign = plain(direction)
    if isinstance(sign, bool) or not isinstance(sign, int) or sign not in (SET, RESET):
        raise QueryError(f"direction is {sign!r}, expected +1 (SET, -1 to +1) or -1 (RESET, +1 to -1).")
    return sign


def checked(values: ArrayLike, what: str, unit: str, *, below: float = math.inf) -> FloatArray:
    """`values` as float64 if all lie in [0, below); QueryError otherwise."""
    try:
        entries = values if isinstance(values, (list, tuple)) else ()
        if np.asarray(values).dtype.kind not in "iufO" or any(isinstance(v, (bool, np.bool_)) for v in entries):
            raise TypeError
        array = np.asarray(plain(values), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise QueryError(f"{what} is {values!r:.80}, expected a number{unit}.") from None
    wrong = ~((array >= 0) & (array < below))
    if wrong.any():
        limit = "a finite number at least 0" if below == math.inf else f"a number within [0, {below:g})"
        raise QueryError(f"{what} is {array[wrong].flat[0]:g}{unit}, expected {limit}{unit}.")
    return array


def positive(cell: object, *names: str) -> None:
    """Check that these attributes are finite numbers above 0."""
    _check(cell, names, lambda value: 0 < value < math.inf, "a finite number above 0")


def not_negative(cell: object, *names: str) -> None:
    """Check that these attributes are finite numbers at least 0."""
    _check(cell, names, lambda value: 0 <= value < math.inf, "a finite number at least 0")


def _check(cell: object, names: tuple[str, ...], fits: Callable[[Any], bool], expected: str) -> None:
    for name in names:
        value = plain(getattr(cell, name))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or (isinstance(value, int) and abs(value) >= 2**1023) or not fits(value):
            raise QueryError(f"{type(cell).__name__}: {name} is {value!r:.80}, expected {expected}.")
        object.__setattr__(cell, name, float(value))


def lognormal_factors(n: int, sigma: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """`n` lognormal factors of median 1, shape `(n,)`; none is drawn if `sigma` is 0."""
    n = integer(n, "the number of cells", least=0)
    if sigma == 0:
        return np.ones(n, dtype=np.float32)
    factors: NDArray[np.float32] = np.exp(sigma * generator.standard_normal(n)).astype(np.float32)
    return factors


class _Law:
    """What the three laws share; they bring tau(V) of a SET pulse as logarithm, and its inverse."""

    __slots__ = ()

    kind: ClassVar[str]
    reset_factor: float
    resistance: float
    reset_resistance: float | None
    d2d_sigma: float
    c2c_sigma: float

    @property
    def beta(self) -> float:
        """Exponent of the time, 1 unless the law says otherwise, without unit."""
        return 1.0

    def _ln_tau(self, voltage: FloatArray) -> FloatArray:
        raise NotImplementedError

    def _voltage_at(self, ln_tau: FloatArray) -> FloatArray:
        """Amplitude with this ln(tau) of a SET pulse; NaN or negative where there is none."""
        raise NotImplementedError

    def _check_shared(self) -> None:
        positive(self, "reset_factor", "resistance")
        if self.reset_resistance is not None:
            positive(self, "reset_resistance")
        not_negative(self, "d2d_sigma", "c2c_sigma")

    def _ln_factor(self, direction: int) -> float:
        return math.log(self.reset_factor) if checked_direction(direction) == RESET else 0.0

    def tau(self, voltage: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Characteristic time at amplitude `voltage` [V], s: a pulse this long switches with 1 - 1/e."""
        volts = checked(voltage, "voltage", " V")
        with np.errstate(over="ignore"):
            return np.exp(self._ln_tau(volts) + self._ln_factor(direction))

    def hazard(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """``(width / tau(voltage))**beta``, without unit; infinite where float64 ends.

        Args:
            voltage: Amplitude, V.
            width: s.
            direction: +1 for SET, -1 for RESET.
        """
        volts, seconds = checked(voltage, "voltage", " V"), checked(width, "width", " s")
        with np.errstate(divide="ignore", over="ignore"):
            exponent = np.log(seconds) - self._ln_tau(volts) - self._ln_factor(direction)
            return np.exp(self.beta * exponent)

    def probability(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """``1 - exp(-hazard)`` of the median cell, without cancellation where it is small.

        Args:
            voltage: Amplitude, V.
            width: s.
            direction: +1 for SET, -1 for RESET.
        """
        return -np.expm1(-self.hazard(voltage, width, direction=direction))

    def width_for(self, probability: ArrayLike, voltage: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Width at which a pulse of this amplitude switches the median cell with this probability, s.

        Args:
            probability: Within [0, 1); 0 needs no pulse, width 0.
            voltage: Amplitude, V.
            direction: +1 for SET, -1 for RESET.

        Raises:
            QueryError: No finite width gives this probability, or a number that does not fit.
        """
        p, volts = checked(probability, "probability", "", below=1), checked(voltage, "voltage", " V")
        with np.errstate(divide="ignore", over="ignore"):
            ln_hazard = np.log(-np.log1p(-p))
            ln_width = self._ln_tau(volts) + self._ln_factor(direction) + ln_hazard / self.beta
            width = np.where(p > 0, np.exp(ln_width), 0.0)
        lost = ~np.isfinite(width) | ((width == 0) & (p > 0))
        if lost.any():
            at = np.broadcast_to(volts, width.shape)[lost].flat[0]
            wanted = np.broadcast_to(p, width.shape)[lost].flat[0]
            raise QueryError(
                f"no width within float64 gives probability {wanted:g} at {at:g} V: tau is out of range there. "
                "Choose another voltage."
            )
        return width[()]

    def voltage_for(self, probability: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Amplitude at which a pulse of this width switches the median cell with this probability, V.

        Args:
            probability: Within (0, 1).
            width: Above 0, s.
            direction: +1 for SET, -1 for RESET.

        Raises:
            QueryError: No amplitude from 0 up gives this probability, or a number that does not fit.
        """
        p, seconds = checked(probability, "probability", "", below=1), checked(width, "width", " s")
        if (p == 0).any() or (seconds == 0).any():
            raise QueryError("probability or width is 0, expected both above 0: no pulse needs no voltage.")
        ln_tau = np.log(seconds) - np.log(-np.log1p(-p)) / self.beta - self._ln_factor(direction)
        volts = self._voltage_at(ln_tau)
        wrong = ~(np.isfinite(volts) & (volts >= 0))
        if wrong.any():
            wanted = np.broadcast_to(p, volts.shape)[wrong].flat[0]
            at = np.broadcast_to(seconds, volts.shape)[wrong].flat[0]
            raise QueryError(
                f"no amplitude from 0 V up gives probability {wanted:g} in {at:g} s: the law reaches tau from "
                f"{self._reach(direction)}. Choose another width."
            )
        return volts[()]

    def _reach(self, direction: int) -> str:
        return f"0 to {float(self.tau(0.0, direction=direction)):g} s"

    def energy(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Energy of one pulse, ``V**2 * t / R``, J: of the whole pulse, whether and whenever the cell switches.

        R is `resistance` for SET and, if given, `reset_resistance` for RESET.
        """
        ohm = self.resistance
        if checked_direction(direction) == RESET and self.reset_resistance is not None:
            ohm = self.reset_resistance
        return (checked(voltage, "voltage", " V") ** 2 * checked(width, "width", " s") / ohm)[()]

    @property
    def device_sigma(self) -> float:
        """Standard deviation of ln(hazard factor) from cell to cell, ``beta * d2d_sigma``, without unit."""
        return self.beta * self.d2d_sigma

    @property
    def cycle_sigma(self) -> float:
        """Standard deviation of ln(hazard factor) from pulse to pulse, ``beta * c2c_sigma``, without unit."""
        return self.beta * self.c2c_sigma

    def hazard_factors(self, n: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
        """Factors on the hazard of `n` cells, lognormal with median 1, the same for SET and RESET; shape `(n,)`."""
        return lognormal_factors(n, self.device_sigma, generator)

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the units of the attributes."""
        return {"kind": self.kind} | {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The cell whose `to_json` gave `values`; attributes with a default may be left out.

        Raises:
            QueryError: Another kind, an attribute that is missing or unknown, or a value that does not fit.
        """
        if not isinstance(values, Mapping) or values.get("kind") != cls.kind:
            raise QueryError(f"the cell is {values!r:.80}, expected an object of kind {cls.kind!r}.")
        given = {name: value for name, value in values.items() if name != "kind"}
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(given.keys() - known)
        if unknown:
            raise QueryError(f"a {cls.kind} cell has no attribute {unknown[0]!r}, expected {', '.join(sorted(known))}.")
        try:
            return cls(**given)
        except TypeError as error:
            raise QueryError(f"a {cls.kind} cell cannot be made: {str(error).split('() ')[-1]}.") from None


@dataclass(frozen=True, slots=True)
class ThermallyActivated(_Law):
    """Neel-Brown switching over a barrier that the voltage lowers: ``tau = tau0 * exp(delta * (1 - V / Vc0))``.

    The law is that of the thermal regime, V below `critical_voltage`; above, where switching is by precession, it is
    an extrapolation that nothing here refuses.

    Attributes:
        tau0: Attempt time, s.
        delta: Thermal stability, the barrier over kT at 0 V, without unit.
        critical_voltage: Vc0, where the barrier vanishes, V.
        reset_factor: tau of RESET over tau of SET at equal voltage, without unit.
        resistance: R in the energy of a SET pulse, ohm.
        reset_resistance: R in the energy of a RESET pulse, ohm; None for `resistance`.
        d2d_sigma: Standard deviation of ln(tau) from cell to cell, without unit.
        c2c_sigma: Standard deviation of ln(tau) from pulse to pulse, without unit.

    References:
        Brown, Phys. Rev. 130, 1963; Li & Zhang, Phys. Rev. B 69, 134416, 2004, for the linear barrier.

    >>> cell = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5)
    >>> float(cell.probability(0.5, 1e-9).round(4))
    0.6321
    >>> float(cell.width_for(0.5, 0.45).round(10))
    3.78e-08
    """

    kind: ClassVar[str] = "thermally-activated"
    tau0: float
    delta: float
    critical_voltage: float
    reset_factor: float = 1.0
    resistance: float = 1e4
    reset_resistance: float | None = None
    d2d_sigma: float = 0.0
    c2c_sigma: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "tau0", "delta", "critical_voltage")
        self._check_shared()

    def _ln_tau(self, voltage: FloatArray) -> FloatArray:
        return math.log(self.tau0) + self.delta * (1 - voltage / self.critical_voltage)

    def _voltage_at(self, ln_tau: FloatArray) -> FloatArray:
        return self.critical_voltage * (1 - (ln_tau - math.log(self.tau0)) / self.delta)


@dataclass(frozen=True, slots=True)
class FieldAccelerated(_Law):
    """Filament growth whose rate is exponential in the voltage: ``tau = tau0 * exp(-V / voltage_scale)``.

    The same family as `ThermallyActivated` with ``tau0 = tau0' * exp(delta)`` and
    ``voltage_scale = critical_voltage / delta``: data over V and t can tell no more than these two numbers.

    Attributes:
        tau0: Characteristic time at 0 V, s.
        voltage_scale: V0, the voltage that speeds switching up by e, V.
        reset_factor: tau of RESET over tau of SET at equal voltage, without unit.
        resistance: R in the energy of a SET pulse, ohm.
        reset_resistance: R in the energy of a RESET pulse, ohm; None for `resistance`.
        d2d_sigma: Standard deviation of ln(tau) from cell to cell, without unit.
        c2c_sigma: Standard deviation of ln(tau) from pulse to pulse, without unit.

    References:
        Jo, Kim & Lu, Nano Letters 9, 496, 2009; Gaba et al., Nanoscale 5, 5872, 2013: stochastic switching of
        filaments as a Poisson process whose time is exponential in the voltage.

    >>> cell = FieldAccelerated(tau0=1e8, voltage_scale=0.03)
    >>> float(cell.voltage_for(0.5, 1e-7).round(4))
    1.0252
    """

    kind: ClassVar[str] = "field-accelerated"
    tau0: float
    voltage_scale: float
    reset_factor: float = 1.0
    resistance: float = 1e4
    reset_resistance: float | None = None
    d2d_sigma: float = 0.0
    c2c_sigma: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "tau0", "voltage_scale")
        self._check_shared()

    def _ln_tau(self, voltage: FloatArray) -> FloatArray:
        return math.log(self.tau0) - voltage / self.voltage_scale

    def _voltage_at(self, ln_tau: FloatArray) -> FloatArray:
        return (math.log(self.tau0) - ln_tau) * self.voltage_scale


@dataclass(frozen=True, slots=True)
class NucleationLimited(_Law):
    """Ferroelectric switching by nucleation: Merz time ``tau_inf * exp(Va / V)``, ``P = 1 - exp(-(t/tau)**beta)``.

    At 0 V nothing ever switches: this law says nothing about retention.

    Attributes:
        tau_inf: Characteristic time at infinite voltage, s.
        activation_voltage: Va, activation field times thickness, V.
        beta: Exponent of the time, 1 for a single domain, smaller where nucleation times spread, without unit.
        reset_factor: tau of RESET over tau of SET at equal voltage, without unit.
        resistance: R in the energy of a SET pulse, ohm.
        reset_resistance: R in the energy of a RESET pulse, ohm; None for `resistance`.
        d2d_sigma: Standard deviation of ln(tau) from cell to cell, without unit.
        c2c_sigma: Standard deviation of ln(tau) from pulse to pulse, without unit.

    References:
        Merz, Phys. Rev. 95, 690, 1954, for tau; Tagantsev et al., Phys. Rev. B 66, 214109, 2002, for
        nucleation-limited switching.

    >>> cell = NucleationLimited(tau_inf=1e-10, activation_voltage=10.0, beta=0.6)
    >>> float(cell.tau(1.5).round(10))
    7.86e-08
    >>> float(cell.probability(0.0, 1.0))
    0.0
    """

    kind: ClassVar[str] = "nucleation-limited"

    tau_inf: float
    activation_voltage: float
    beta: float = 1.0
    reset_factor: float = 1.0
    resistance: float = 1e6
    reset_resistance: float | None = None
    d2d_sigma: float = 0.0
    c2c_sigma: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "tau_inf", "activation_voltage", "beta")
        self._check_shared()

    def _ln_tau(self, voltage: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", over="ignore"):
            return math.log(self.tau_inf) + self.activation_voltage / voltage

    def _voltage_at(self, ln_tau: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore"):
            return self.activation_voltage / np.asarray(ln_tau - math.log(self.tau_inf))

    def _reach(self, direction: int) -> str:
        factor = self.reset_factor if direction == RESET else 1.0
        return f"{self.tau_inf * factor:g} s up"


@dataclass(frozen=True, slots=True)
class SetReset:
    """A cell with a law of its own for each direction.

    A cell's own factor on the hazard is drawn once and holds for both directions, so both laws need equal variation.

    Attributes:
        set_cell: Law of SET pulses, -1 to +1; only its SET side is asked.
        reset_cell: Law of RESET pulses, +1 to -1; only its RESET side is asked.
    """

    kind: ClassVar[str] = "set-reset"

    set_cell: SwitchingCell
    reset_cell: SwitchingCell

    def __post_init__(self) -> None:
        for name in ("device_sigma", "cycle_sigma"):
            one, other = getattr(self.set_cell, name), getattr(self.reset_cell, name)
            if not math.isclose(one, other, rel_tol=1e-9):
                raise QueryError(f"{name} is {one:g} for SET and {other:g} for RESET, expected equal values.")

    def _side(self, direction: int) -> SwitchingCell:
        return self.set_cell if checked_direction(direction) == SET else self.reset_cell

    def probability(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Probability that one pulse of `voltage` [V] and `width` [s] switches the median cell."""
        return self._side(direction).probability(voltage, width, direction=direction)

    def hazard(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """``-ln(1 - P)`` of a pulse of `voltage` [V] and `width` [s], without unit."""
        return self._side(direction).hazard(voltage, width, direction=direction)

    def width_for(self, probability: ArrayLike, voltage: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Width [s] at which a pulse of `voltage` [V] switches with `probability`."""
        return self._side(direction).width_for(probability, voltage, direction=direction)

    def voltage_for(self, probability: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Amplitude [V] at which a pulse of `width` [s] switches with `probability`."""
        return self._side(direction).voltage_for(probability, width, direction=direction)

    def energy(self, voltage: ArrayLike, width: ArrayLike, *, direction: int = SET) -> FloatArray:
        """Energy of one pulse of `voltage` [V] and `width` [s], J."""
        return self._side(direction).energy(voltage, width, direction=direction)

    @property
    def device_sigma(self) -> float:
        """Standard deviation of ln(hazard factor) from cell to cell, without unit."""
        return self.set_cell.device_sigma

    @property
    def cycle_sigma(self) -> float:
        """Standard deviation of ln(hazard factor) from pulse to pulse, without unit."""
        return self.set_cell.cycle_sigma

    def hazard_factors(self, n: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
        """Factors on the hazard of `n` cells, shape `(n,)`, the same for SET and RESET."""
        return self.set_cell.hazard_factors(n, generator=generator)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "set": self.set_cell.to_json(), "reset": self.reset_cell.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The cell whose `to_json` gave `values`; QueryError if they are not of this kind."""
        if values.get("kind") != cls.kind or not {"set", "reset"} <= values.keys():
            raise QueryError(f"the cell is {values!r:.80}, expected kind {cls.kind!r} with 'set' and 'reset'.")
        return cls(cell_from_json(values["set"]), cell_from_json(values["reset"]))


_KINDS: dict[str, Callable[[Mapping[str, Any]], SwitchingCell]] = {
    ThermallyActivated.kind: ThermallyActivated.from_json,
    FieldAccelerated.kind: FieldAccelerated.from_json,
    NucleationLimited.kind: NucleationLimited.from_json,
    SetReset.kind: SetReset.from_json,
}


def cell_from_json(values: Mapping[str, Any]) -> SwitchingCell:
    """The cell of any kind whose `to_json` gave `values`.

    Raises:
        QueryError: No such kind, or values that do not fit it.

    >>> cell_from_json({"kind": "field-accelerated", "tau0": 1e8, "voltage_scale": 0.03}).voltage_scale
    0.03
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if kind == "interpolated":
        from bnnverify.devices.interpolated import InterpolatedSwitching

        return InterpolatedSwitching.from_json(values)
    if kind not in _KINDS:
        raise QueryError(f"a cell has kind {kind!r}, expected one of: {', '.join([*_KINDS, 'interpolated'])}.")
    return _KINDS[kind](values)


PRESETS: dict[str, SwitchingCell] = {
    "mtj": ThermallyActivated(
        tau0=1e-9, delta=60.0, critical_voltage=0.5, reset_factor=1.5, resistance=5e3, d2d_sigma=0.3, c2c_sigma=0.0
    ),
    "rram": FieldAccelerated(
        tau0=1e8, voltage_scale=0.03, reset_factor=3.0, resistance=1e4, d2d_sigma=0.5, c2c_sigma=0.5
    ),
    "ftj": NucleationLimited(
        tau_inf=1e-10, activation_voltage=10.0, beta=0.6, reset_factor=1.5, resistance=1e6, d2d_sigma=0.5, c2c_sigma=0.3
    ),
}
"""Cells to start with. The numbers are illustrative, of the order found in textbooks and reviews for a spin-torque
magnetic tunnel junction, an oxide resistive memory and a ferroelectric tunnel junction; no measured device has exactly
these. Results that matter need a fit to measured pulses (`bnnverify.devices.measured`)."""
