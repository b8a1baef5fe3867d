"""Float arithmetic with a proved bound: outward intervals from counted roundings.

Everything the certified engine computes in float64 is a sum of products of nonnegative numbers (both a tail and
its complement are summed directly; nothing is ever formed as 1 - x). If no product or sum along the way sees
more than K roundings, the computed value lies within a factor ``(1 +- u)^K`` of the true one, u = 2^-53.
Underflow adds at most 2^-1074 per operation, 2^-1022 where the processor flushes subnormals to zero.

References:
    Higham, "Accuracy and stability of numerical algorithms", 2nd ed., 2002, Lemma 3.1, for the factor.
"""

from __future__ import annotations

import math
from fractions import Fraction

from bnnverify.errors import UnsupportedError

UNIT = Fraction(1, 2**53)
UNDERFLOW = Fraction(1, 2**960)  # far above 2^-1022 (flushed subnormals) times all operations that can be run
SMALLEST_RATE = Fraction(1, 2**900)


def outward(lower: float, upper: float, roundings: int) -> tuple[Fraction, Fraction]:
    """Bounds on the true values of which `lower` and `upper` are computed with at most `roundings` roundings.

    Returns:
        Float64 numbers around the truth, as exact Fractions, not clipped to [0, 1].
    """
    slack = roundings * UNIT
    if slack >= Fraction(1, 4):
        raise UnsupportedError(f"{roundings} roundings in one value: no useful float64 bound. Use a smaller network.")
    gamma = slack / (1 - slack)  # (1+u)^K <= 1 + gamma and (1-u)^K >= 1 - slack
    low = max(Fraction(lower) / (1 + gamma) - UNDERFLOW, Fraction(0))
    high = Fraction(upper) / (1 - slack) + UNDERFLOW
    return Fraction(float_below(low)), Fraction(-float_below(-high))


def float_below(value: Fraction) -> float:
    """The greatest float64 that is at most `value`."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def rounded_rate(rate: Fraction) -> tuple[float, float]:
    """(rate, 1 - rate), each correctly rounded to float64: one rounding, also for tiny rates."""
    for value in (rate, 1 - rate):
        if 0 < value < SMALLEST_RATE:
            raise UnsupportedError(
                "a rate, or 1 minus a rate, is above 0 but below 2^-900: too small for certified float64. Use 0."
            )
    return float(rate), float(1 - rate)
