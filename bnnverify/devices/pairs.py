"""2T2R pairs: one weight in two cells that are programmed oppositely and read against each other.

A +1 is low resistance (SET) in the first cell and high resistance (RESET) in the second, a -1 the other way round. The
read compares the two; no reference is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from bnnverify.devices.balls import Bounds, tail
from bnnverify.devices.switching import positive
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, CellRates, FaultModel, mapped

# What a tie reads: the probability that it is wrong for a stored +1, and for a stored -1.
TIES = {
    "half": (Fraction(1, 2), Fraction(1, 2)),
    "plus": (Fraction(0), Fraction(1)),
    "minus": (Fraction(1), Fraction(0)),
}


def pair_faults(model: FaultModel, *, ties: str = "half") -> FaultModel:
    """Fault model of the weights when each is stored in two cells that fail by `model`, independently; exact.

    Two wrong cells read the opposite weight; one wrong cell makes a tie. With equal symmetric rates and ties "half" a
    pair fails exactly as often as one cell: cells that fail all or nothing gain nothing from pairing. What a pair does
    gain comes from comparing resistances (`LognormalResistance.pair_faults`) or from rates that are asymmetric.

    Args:
        model: Rates of a single cell.
        ties: What two cells in the same state read: "half", either sign with probability 1/2 (an offset of the sense
            amplifier, drawn once for a chip like every fault); "plus", always +1; "minus", always -1.

    >>> from bnnverify.faults import BitFlip
    >>> pair_faults(BitFlip("1/10"))
    AsymmetricFlip(p01=Fraction(1, 10), p10=Fraction(1, 10))
    >>> pair_faults(BitFlip("1/10"), ties="plus")
    AsymmetricFlip(p01=Fraction(19, 100), p10=Fraction(1, 100))
    """
    if ties not in TIES:
        raise QueryError(f"ties is {ties!r}, expected one of: {', '.join(TIES)}.")
    return mapped(model, lambda cell: _pair(cell, ties))


def _pair(cell: CellRates, ties: str) -> CellRates:
    both = cell.plus * cell.minus  # whatever the weight, one cell holds +1 and the other -1
    one = cell.plus + cell.minus - 2 * both
    tie_plus, tie_minus = TIES[ties]
    return CellRates(plus=both + tie_plus * one, minus=both + tie_minus * one)


@dataclass(frozen=True, slots=True)
class LognormalResistance:
    """Resistances of the two states, lognormal and independent from cell to cell. +1 is the low one.

    Error rates are enclosed rigorously in ball arithmetic (arb), for the float64 parameters as given; a fault model
    takes the upper ends, so it is never better than the law.

    Attributes:
        low_median: Median resistance of the low state, ohm.
        low_sigma: Standard deviation of ln(resistance) in the low state, without unit.
        high_median: Median resistance of the high state, ohm.
        high_sigma: Standard deviation of ln(resistance) in the high state, without unit.

    References:
        Hirtzlin et al., Frontiers in Neuroscience 13, 1383, 2020, for 2T2R; the closed form is that of the difference
        of two normal variables.

    >>> cells = LognormalResistance(5e3, 0.3, 5e4, 0.6)
    >>> f"{float(cells.pair_faults().p10):.3g}"
    '0.000299'
    >>> f"{float(cells.faults(cells.balanced_reference).p10):.3g}"
    '0.00526'
    """

    low_median: float
    low_sigma: float
    high_median: float
    high_sigma: float

    def __post_init__(self) -> None:
        positive(self, "low_median", "low_sigma", "high_median", "high_sigma")
        if self.low_median >= self.high_median:
            raise QueryError(
                f"the low state has median {self.low_median:g} ohm and the high one {self.high_median:g} ohm, "
                "expected low below high."
            )

    @property
    def balanced_reference(self) -> float:
        """Reference at which both states are misread equally often, up to rounding, ohm."""
        low, high = math.log(self.low_median), math.log(self.high_median)
        return math.exp((low * self.high_sigma + high * self.low_sigma) / (self.low_sigma + self.high_sigma))

    def bounds(self, reference: float) -> tuple[Bounds, Bounds]:
        """Rigorous bounds on p01 and p10 of a single cell read against a reference.

        Args:
            reference: Resistance below which a cell reads +1, ohm.
        """
        if not 0 < reference < math.inf:
            raise QueryError(f"reference is {reference!r} ohm, expected a number above 0.")
        p01 = tail(reference, self.high_median, (self.high_sigma,))
        p10 = tail(self.low_median, reference, (self.low_sigma,))
        return p01, p10

    def pair_bounds(self, *, offset_sigma: float = 0.0) -> Bounds:
        """Rigorous bounds on the probability that the low cell of a pair has the higher resistance.

        Args:
            offset_sigma: Standard deviation of the comparator's offset in ln(resistance), without unit.
        """
        if not 0 <= offset_sigma < math.inf:
            raise QueryError(f"offset_sigma is {offset_sigma!r}, expected a number at least 0.")
        return tail(self.low_median, self.high_median, (self.low_sigma, self.high_sigma, offset_sigma))

    def faults(self, reference: float) -> AsymmetricFlip:
        """Fault model of single cells read against `reference` [ohm]: the upper bounds."""
        p01, p10 = self.bounds(reference)
        return AsymmetricFlip(p01=p01[1], p10=p10[1])

    def pair_faults(self, *, offset_sigma: float = 0.0) -> AsymmetricFlip:
        """Fault model of pairs, equal for both signs: the upper bound."""
        p = self.pair_bounds(offset_sigma=offset_sigma)[1]
        return AsymmetricFlip(p01=p, p10=p)
