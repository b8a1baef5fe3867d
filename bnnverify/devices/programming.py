"""From pulses to fault models: write errors, write-verify, retention, energy.

Probabilities come from float64 formulas of physics; a fault model holds the Fraction that equals the float64 (a dyadic
fraction, no second rounding), and from there on everything is exact. Powers, shares and compositions are taken in
Fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.devices.balls import Bounds, bounds_of
from bnnverify.devices.pulses import PulseMenu
from bnnverify.devices.switching import RESET, SET, FloatArray, SwitchingCell, checked, checked_direction
from bnnverify.devices.variation import mean_pulses, mean_survival
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, CellRates, CellTable, after_write_verify, rate
from bnnverify.scalars import integer, plain

Shares = tuple[Fraction, Fraction]

# Share of the cells that must switch, among those that shall hold +1 and among those that shall hold -1.
_BEFORE: dict[str, Shares] = {
    "reset": (Fraction(1), Fraction(0)),
    "set": (Fraction(0), Fraction(1)),
    "random": (Fraction(1, 2), Fraction(1, 2)),
    "opposite": (Fraction(1), Fraction(1)),
}


def write_error(
    cell: SwitchingCell, voltage: float, width: float, *, direction: int = SET, retries: int = 0
) -> Fraction:
    """Probability that a cell which must switch has not after ``1 + retries`` pulses, each verified perfectly.

    Cells that are equal give the exact power ``p**(retries + 1)`` of the float64 p; with variation the mean over cells
    and pulses, by quadrature (`bnnverify.devices.variation`), where the retries of one cell are not independent.

    Args:
        cell: The cell.
        voltage: Amplitude, V.
        width: s.
        direction: +1 for SET, -1 for RESET.
        retries: Further pulses while the cell has not switched.

    >>> from bnnverify.devices.switching import ThermallyActivated
    >>> cell = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5)
    >>> round(float(write_error(cell, 0.5, 5e-9)), 6), round(float(write_error(cell, 0.5, 5e-9, retries=1)), 9)
    (0.006738, 4.54e-05)
    """
    retries = integer(retries, "retries", least=0)
    hazard = float(cell.hazard(voltage, width, direction=direction))
    if cell.device_sigma == 0 == cell.cycle_sigma:
        return after_write_verify(Fraction(math.exp(-hazard)), retries)
    mean = mean_survival(hazard, retries + 1, device_sigma=cell.device_sigma, cycle_sigma=cell.cycle_sigma)
    return Fraction(float(mean))


def switching_shares(previous: ArrayLike, weights: ArrayLike) -> Shares:
    """Which cells must switch when `weights` replace `previous`, as exact shares.

    Returns:
        Among the cells that shall hold +1 the share that holds -1, and among those that shall hold -1 the share that
        holds +1; 0 where there are none. For a fault model of a whole block this is an average: exactly those cells
        can fail (`Write.cell_rates`).

    >>> switching_shares([1, 1, -1, -1], [1, 1, 1, -1])
    (Fraction(1, 3), Fraction(0, 1))
    """
    old, new = _signs(previous, "previous"), _signs(weights, "weights")
    if old.shape != new.shape:
        raise QueryError(f"previous has shape {old.shape} and weights {new.shape}, expected equal shapes.")
    plus, minus = new > 0, new < 0
    return (
        Fraction(int((old[plus] < 0).sum()), max(1, int(plus.sum()))),
        Fraction(int((old[minus] > 0).sum()), max(1, int(minus.sum()))),
    )


def _signs(values: ArrayLike, what: str) -> Any:
    array = np.asarray(values)
    if not np.isin(array, (-1, 1)).all():
        raise QueryError(f"{what} has an entry that is neither -1 nor +1. Export the binarized weights.")
    return array


def _one_number(value: Any, what: str, unit: str) -> float:
    if value is None or np.ndim(value):
        raise QueryError(f"{what} is {value!r:.80}, expected one number [{unit.strip()}].")
    return float(checked(value, what, unit))


@dataclass(frozen=True, slots=True)
class Write:
    """How weights are written: one kind of pulse for each direction, on the cells that must switch.

    A write can only fail by leaving a cell as it was, so a cell that already holds its sign is safe: the rates depend
    on what the cells held before. The erasure before "reset" and "set" counts as perfect and as free.

    Attributes:
        cell: The cells.
        voltage: Amplitude of a SET pulse, V.
        width: Width of a SET pulse, s.
        reset_voltage: Amplitude of a RESET pulse, V; None for `voltage`.
        reset_width: Width of a RESET pulse, s; None for `width`.
        retries: Further pulses for a cell that a perfect read finds unswitched.
        before: What the cells hold: "reset" (all -1: only +1 is written), "set" (all +1), "random" (either sign with
            probability 1/2, independent of the weights), "opposite" (the worst case), or the two shares of
            `switching_shares`.
        read_energy: Energy of one read, J.

    >>> from bnnverify.devices.switching import ThermallyActivated
    >>> cell = ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5, resistance=5e3)
    >>> write = Write(cell, 0.5, 5e-9, before="reset")
    >>> write.faults().p01, round(float(write.faults().p10), 6)
    (Fraction(0, 1), 0.006738)
    >>> round(write.energy() * 1e15, 6)  # fJ for each weight, half of which are +1
    125.0
    """

    cell: SwitchingCell
    voltage: float
    width: float
    reset_voltage: float | None = None
    reset_width: float | None = None
    retries: int = 0
    before: str | Shares = "reset"
    read_energy: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.cell, SwitchingCell):
            raise QueryError(f"the cell of a write is {self.cell!r:.80}, expected one such as PRESETS['mtj'].")
        pair = isinstance(self.before, (tuple, list)) and len(self.before) == 2
        if not pair and not (isinstance(self.before, str) and self.before in _BEFORE):
            raise QueryError(f"before is {self.before!r:.80}, expected {', '.join(_BEFORE)} or two shares.")
        if not isinstance(self.before, str):
            plus, minus = self.before
            object.__setattr__(self, "before", (rate(plus, "share of +1"), rate(minus, "share of -1")))
        for name, unit in (("voltage", " V"), ("width", " s"), ("read_energy", " J")):
            object.__setattr__(self, name, _one_number(getattr(self, name), name, unit))
        for name, unit in (("reset_voltage", " V"), ("reset_width", " s")):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _one_number(getattr(self, name), name, unit))
        object.__setattr__(self, "retries", integer(self.retries, "retries", least=0))

    @property
    def shares(self) -> Shares:
        """Share of the cells that must switch, among those that shall hold +1 and among those that shall hold -1."""
        return _BEFORE[self.before] if isinstance(self.before, str) else self.before

    def _pulse(self, direction: int) -> tuple[float, float]:
        if checked_direction(direction) == SET:
            return self.voltage, self.width
        return (
            self.voltage if self.reset_voltage is None else self.reset_voltage,
            self.width if self.reset_width is None else self.reset_width,
        )

    def error(self, direction: int) -> Fraction:
        """Probability that a cell which must switch in this direction does not, after all retries."""
        return write_error(self.cell, *self._pulse(direction), direction=direction, retries=self.retries)

    def faults(self) -> AsymmetricFlip:
        """Fault model of the written weights: p10 from failed SETs, p01 from failed RESETs, times the shares.

        The rates belong to the weights as the cells store them.
        """
        plus, minus = self.shares
        return AsymmetricFlip(
            p01=minus * self.error(RESET) if minus else Fraction(0),
            p10=plus * self.error(SET) if plus else Fraction(0),
        )

    def cell_rates(self, previous: ArrayLike, weights: ArrayLike) -> FloatArray:
        """Probability that each cell reads wrong when `weights` replace `previous`; whatever `before` says.

        Returns:
            float64, shape of the weights: the write error where the sign changes, 0 elsewhere.
        """
        switching_shares(previous, weights)  # checks both
        old, new = np.asarray(previous), np.asarray(weights)
        return np.where(old == new, 0.0, np.where(new > 0, float(self.error(SET)), float(self.error(RESET))))

    def cell_table(self, previous: ArrayLike, weights: ArrayLike) -> CellTable:
        """`cell_rates` as exact rates, for one block of `faults.PerCell`; matrices.

        The rate of a cell is for the sign in `weights`, the one it shall store.

        >>> from bnnverify.devices.switching import ThermallyActivated
        >>> write = Write(ThermallyActivated(tau0=1e-9, delta=40.0, critical_voltage=0.5), 0.5, 5e-9)
        >>> write.cell_table([[1, -1]], [[1, 1]]).index.tolist()
        [[0, 1]]
        """
        switching_shares(previous, weights)  # checks both
        old, new = np.asarray(previous), np.asarray(weights)
        up, down = np.any((old < 0) & (new > 0)), np.any((old > 0) & (new < 0))
        errors = (Fraction(0), self.error(SET) if up else Fraction(0), self.error(RESET) if down else Fraction(0))
        return CellTable(tuple(CellRates(p, p) for p in errors), np.where(old == new, 0, np.where(new > 0, 1, 2)))

    def pulses(self, direction: int) -> float:
        """Expected pulses for a cell that must switch in this direction, between 1 and ``1 + retries``."""
        return self._needed(direction, self.retries + 1)

    def _needed(self, direction: int, most: int) -> float:
        hazard = self.cell.hazard(*self._pulse(direction), direction=direction)
        sigmas = {"device_sigma": self.cell.device_sigma, "cycle_sigma": self.cell.cycle_sigma}
        return float(mean_pulses(hazard, most, **sigmas))

    def energy(self, *, plus_share: float = 0.5) -> float:
        """Expected energy of writing one weight, J.

        Pulses of the cells that must switch, plus reads: one after every pulse but the last that is allowed, and, where
        `before` is "random", one of every cell to find out what it holds.

        Args:
            plus_share: Share of the weights that are +1, within [0, 1].
        """
        if not 0 <= plus_share <= 1:
            raise QueryError(f"plus_share is {plus_share!r}, expected a share within [0, 1].")
        total = self.read_energy if self.before == "random" else 0.0
        for direction, weight, share in zip((SET, RESET), (plus_share, 1 - plus_share), self.shares, strict=True):
            if weight * share > 0:
                pulse = float(self.cell.energy(*self._pulse(direction), direction=direction))
                reads = self._needed(direction, self.retries) * self.read_energy
                total += weight * float(share) * (self.pulses(direction) * pulse + reads)
        return total


def cheapest_write(
    cell: SwitchingCell,
    menu: PulseMenu,
    *,
    target: Any,
    most_retries: int = 0,
    before: str | Shares = "reset",
    read_energy: float = 0.0,
    plus_share: float = 0.5,
) -> Write:
    """The write of least expected energy among the menu's pulses and the retries whose rates are at most `target`.

    Every pulse of the menu is tried for SET and for RESET, with 0 to `most_retries` retries for both.

    Args:
        cell: The cells.
        menu: Pulses to choose from.
        target: Largest rate p01 and p10 allowed (a probability, exact).
        most_retries: Retries allowed.
        before: As in `Write`.
        read_energy: Energy of one read, J.
        plus_share: Share of the weights that are +1.

    Raises:
        QueryError: No pulse reaches the target.
    """
    limit = rate(target, "target")
    best: tuple[float, Write] | None = None
    for retries in range(most_retries + 1):
        chosen: list[tuple[float, float]] = []
        for direction in (SET, RESET):
            fitting = []
            for voltage, width in zip(menu.voltages, menu.widths, strict=True):
                write = Write(cell, voltage, width, retries=retries, before=before, read_energy=read_energy)
                faults = write.faults()
                if (faults.p10 if direction == SET else faults.p01) <= limit:
                    fitting.append((write.energy(plus_share=float(direction == SET)), voltage, width))
            if fitting:
                chosen.append(min(fitting)[1:])
        if len(chosen) == 2:
            (voltage, width), (down_voltage, down_width) = chosen
            write = Write(cell, voltage, width, down_voltage, down_width, retries, before, read_energy)
            energy = write.energy(plus_share=plus_share)
            if best is None or energy < best[0]:
                best = energy, write
    if best is None:
        raise QueryError(
            f"no pulse of the menu reaches a rate of {float(limit):g} with up to {most_retries} retries. "
            "Add stronger pulses, or allow more retries."
        )
    return best[1]


@dataclass(frozen=True, slots=True)
class Retention:
    """Cells that lose their sign with time: a two-state Markov chain.

    With equal lifetimes ``p(t) = (1 - exp(-2t/t_r)) / 2``; one-sided, where -1 is stable, ``p10(t) = 1 - exp(-t/t_r)``.

    Attributes:
        plus_lifetime: Mean time that a +1 lasts, s; infinite if it never falls.
        minus_lifetime: Mean time that a -1 lasts, s; infinite if it never rises.

    >>> Retention(1e8, 1e8).faults(1e8 * math.log(2) / 2)
    AsymmetricFlip(p01=Fraction(1, 4), p10=Fraction(1, 4))
    """

    plus_lifetime: float
    minus_lifetime: float = math.inf

    def __post_init__(self) -> None:
        for name in ("plus_lifetime", "minus_lifetime"):
            value = plain(getattr(self, name))
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise QueryError(f"{name} is {value!r} s, expected a time above 0, or infinity.")
            object.__setattr__(self, name, value)

    @classmethod
    def of_cell(cls, cell: SwitchingCell) -> Self:
        """Lifetimes of the median cell at 0 V, where switching is a Poisson process (laws with beta = 1)."""
        if getattr(cell, "beta", 0.0) != 1.0:
            raise QueryError(
                "the law of this cell is not a Poisson process at 0 V; give the measured lifetimes instead."
            )

        def lifetime(direction: int) -> float:
            per_second = float(cell.hazard(0.0, 1.0, direction=direction))
            return math.inf if per_second == 0 else 1 / per_second

        return cls(plus_lifetime=lifetime(RESET), minus_lifetime=lifetime(SET))

    def bounds(self, time: float) -> tuple[Bounds, Bounds]:
        """Rigorous bounds on p01 and p10 after `time` [s], for the float64 lifetimes and time as given."""
        from flint import arb, ctx

        seconds = float(checked(time, "time", " s"))
        with ctx.workprec(192):
            fall, rise = (
                arb(0) if lifetime == math.inf else 1 / arb(float(lifetime))
                for lifetime in (self.plus_lifetime, self.minus_lifetime)
            )
            if fall + rise == 0 or seconds == 0:
                return (Fraction(0), Fraction(0)), (Fraction(0), Fraction(0))
            settled = -(-(fall + rise) * arb(seconds)).expm1()
            p01, p10 = (bounds_of(settled * part / (fall + rise)) for part in (rise, fall))
            return p01, p10

    def errors(self, time: float) -> tuple[float, float]:
        """p01 and p10 after `time` [s], correctly rounded to float64: the same on every machine."""
        p01, p10 = self.bounds(time)
        return float((p01[0] + p01[1]) / 2), float((p10[0] + p10[1]) / 2)

    def faults(self, time: float) -> AsymmetricFlip:
        """Fault model after `time` [s]; the Fractions equal the float64 values of `errors`, the nearest ones."""
        p01, p10 = self.errors(time)
        return AsymmetricFlip(p01=Fraction(p01), p10=Fraction(p10))
