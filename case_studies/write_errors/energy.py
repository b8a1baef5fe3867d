"""What a wrong bit saves: energy of the write whose error is a given rate, for illustrative cells.

A pulse is solved for the rate, so that rates and energies belong together without a menu of pulses in between. Cells,
variation and energies are those of `bnnverify.devices`; float64 physics, not proved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

from bnnverify.devices import PRESETS, RESET, FieldAccelerated, PulseMenu, ThermallyActivated, Write, mean_survival

Cell = ThermallyActivated | FieldAccelerated  # laws whose hazard is proportional to the width


@dataclass(frozen=True, slots=True)
class Programming:
    """How cells are written; the pulse of each direction has the hazard that gives the rate.

    Attributes:
        cell: Key of `bnnverify.devices.PRESETS`.
        tuned: ``width`` at one amplitude, or ``amplitude`` at one width: what a weaker pulse has less of.
        spread: Whether cells and pulses vary as the preset says, or not at all.
        retries: Further pulses for a cell that a perfect, free read finds unswitched.
    """

    cell: str
    tuned: str
    spread: bool = False
    retries: int = 0

    @property
    def title(self) -> str:
        """For tables and legends."""
        varied = "cells vary" if self.spread else "equal cells"
        retries = f", {self.retries} verified retr{'y' if self.retries == 1 else 'ies'}" if self.retries else ""
        return f"{self.tuned}, {varied}{retries}"

    @property
    def physics(self) -> Cell:
        """The cell."""
        preset = PRESETS[self.cell]
        assert isinstance(preset, Cell)
        return preset if self.spread else replace(preset, d2d_sigma=0.0, c2c_sigma=0.0)

    def write(self, error: Fraction) -> Write:
        """The write of cells that all must switch, which fails with this probability in either direction."""
        cell, most = self.physics, self.retries + 1
        hazard = _hazard(float(error), most, cell.device_sigma, cell.cycle_sigma)
        voltage, width = _NOMINAL[self.cell]
        if self.tuned == "width":
            down = hazard * float(cell.width_for(_ONE, voltage, direction=RESET))
            return self._of(voltage, hazard * float(cell.width_for(_ONE, voltage)), voltage, down)
        # the hazard is proportional to the width: what hazard h needs in this width, hazard 1 needs in width / h
        down = float(cell.voltage_for(_ONE, width / hazard, direction=RESET))
        return self._of(float(cell.voltage_for(_ONE, width / hazard)), width, down, width)

    def menu(self, errors: Iterable[Fraction]) -> PulseMenu:
        """A pulse for each error and direction, where cells that all must switch fail with it at the last retry."""
        pulses = set[tuple[float, float]]()
        for error in errors:
            write = self.write(error)
            assert write.reset_voltage is not None and write.reset_width is not None
            pulses |= {(write.voltage, write.width), (write.reset_voltage, write.reset_width)}
        return PulseMenu(*zip(*sorted(pulses), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"cell": self.physics.to_json(), "tuned": self.tuned, "retries": self.retries}

    def _of(self, voltage: float, width: float, reset_voltage: float, reset_width: float) -> Write:
        return Write(self.physics, voltage, width, reset_voltage, reset_width, retries=self.retries, before="opposite")

    def energy(self, error: Fraction) -> float:
        """Expected energy of writing one cell that must switch, J: mean of both directions."""
        return _energy(self, error)

    def savings(self, rates: Iterable[Fraction], reference: Fraction) -> dict[Fraction, float]:
        """How many times less energy each rate takes than the reference rate."""
        dear = self.energy(reference)
        return {rate: dear / self.energy(rate) for rate in rates}


_ONE = -math.expm1(-1.0)  # switching probability of hazard 1
_NOMINAL = {"mtj": (0.5, 1e-8), "rram": (1.1, 1e-7)}  # V, s

PROGRAMMINGS = tuple(
    Programming(cell, tuned, spread, retries)
    for cell in _NOMINAL
    for tuned, spread, retries in (
        ("width", False, 0),
        ("width", True, 0),
        ("amplitude", True, 0),
        ("width", True, 1),
    )
)


@cache
def _energy(programming: Programming, error: Fraction) -> float:
    return programming.write(error).energy()


@cache
def _hazard(error: float, pulses: int, device_sigma: float, cycle_sigma: float) -> float:
    """Hazard of the median cell at which a cell drawn at random survives all pulses with probability `error`."""
    low, high = math.log(1e-6), math.log(1e6)
    while high - low > 1e-10:
        middle = (low + high) / 2
        survives = float(mean_survival(math.exp(middle), pulses, device_sigma=device_sigma, cycle_sigma=cycle_sigma))
        low, high = (middle, high) if survives > error else (low, middle)
    return math.exp((low + high) / 2)
