"""Errors of reading: noise of the sense amplifier, fresh at every read, and reads that disturb what they read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from bnnverify.devices.balls import Bounds, bounds_of, normal_tail
from bnnverify.devices.switching import RESET, SET, SwitchingCell, checked_direction, positive
from bnnverify.devices.variation import mean_survival
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, PerRead
from bnnverify.scalars import integer


@dataclass(frozen=True, slots=True)
class ReadNoise:
    """A cell read as +1 where its current is above a reference; Gaussian noise is fresh at every read.

    Error rates are enclosed rigorously in ball arithmetic, for the float64 parameters as given; a fault model takes the
    upper ends, so it is never better than the law.

    Attributes:
        high_current: Mean current of a cell that holds +1 (low resistance), A.
        low_current: Mean current of a cell that holds -1, A.
        sigma: Standard deviation of current and comparator together at one read, A.
        reference: Current that the read compares with, A; None for the middle.

    >>> noise = ReadNoise(high_current=10e-6, low_current=2e-6, sigma=1e-6)
    >>> f"{float(noise.faults().model.p10):.3g}"
    '3.17e-05'
    """

    high_current: float
    low_current: float
    sigma: float
    reference: float | None = None

    def __post_init__(self) -> None:
        positive(self, "high_current", "low_current", "sigma")
        if self.low_current >= self.high_current:
            raise QueryError(
                f"the currents are {self.low_current:g} A for -1 and {self.high_current:g} A for +1, expected the "
                "first to be below the second."
            )
        if self.reference is not None:
            positive(self, "reference")

    def bounds(self) -> tuple[Bounds, Bounds]:
        """Rigorous bounds on p01 and p10 of one read."""
        from flint import arb, ctx

        with ctx.workprec(128):
            high, low = arb(self.high_current), arb(self.low_current)
            reference = (high + low) / 2 if self.reference is None else arb(self.reference)
            p01 = bounds_of(normal_tail(reference - low, (self.sigma,)))
            return p01, bounds_of(normal_tail(high - reference, (self.sigma,)))

    def faults(self) -> PerRead:
        """Fault model of the reads: the upper bounds, fresh at every read."""
        p01, p10 = self.bounds()
        return PerRead(AsymmetricFlip(p01=p01[1], p10=p10[1]))


def read_disturb(
    cell: SwitchingCell, voltage: float, width: float, *, reads: int, direction: int = SET
) -> AsymmetricFlip:
    """Fault model of cells that were read `reads` times with a pulse that may switch them; permanent.

    Only cells that the polarity of the reads can switch fail: -1 for SET, +1 for RESET. The rate is one minus the
    probability that a cell survives all reads, a float64 for equal cells and by quadrature where cells differ.

    Args:
        cell: The cells.
        voltage: Amplitude of a read, V.
        width: Duration of a read, s.
        reads: How many.
        direction: Polarity of the reads: SET or RESET.

    >>> from bnnverify.devices.switching import ThermallyActivated
    >>> cell = ThermallyActivated(tau0=1e-9, delta=60.0, critical_voltage=0.5)
    >>> f"{float(read_disturb(cell, 0.15, 1e-8, reads=10**9).p01):.3g}"
    '5.75e-09'
    """
    reads = integer(reads, "reads", least=0)
    hazard = float(cell.hazard(voltage, width, direction=checked_direction(direction)))
    if cell.device_sigma == 0 == cell.cycle_sigma:
        rate = -math.expm1(-hazard * reads)
    elif reads == 0:
        rate = 0.0
    else:
        sigmas = {"device_sigma": cell.device_sigma, "cycle_sigma": cell.cycle_sigma}
        rate = 1 - float(mean_survival(hazard, reads, **sigmas))
    wrong, never = Fraction(max(0.0, min(1.0, rate))), Fraction(0)
    return AsymmetricFlip(wrong, never) if direction != RESET else AsymmetricFlip(never, wrong)
