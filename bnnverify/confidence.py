"""Clopper-Pearson intervals for sampled frequencies, with rigorous arithmetic."""

from __future__ import annotations

from fractions import Fraction

from bnnverify.errors import QueryError
from bnnverify.results import Kind, Probability

_STEPS = 50  # bisection steps: ends within 2^-50 of the exact ones, or wider where arb cannot decide; always outward


def clopper_pearson(hits: int, samples: int, *, confidence: float = 0.99) -> Probability:
    """The Clopper-Pearson interval for a frequency: it covers the truth with at least the given confidence.

    For trials with different success probabilities (the images of a data set, each on chips of its own) it covers
    their mean; the binomial is then the worst case.

    Args:
        hits: Trials with the event.
        samples: Independent trials, at least 1.
        confidence: Two-sided level within (0, 1).

    Returns:
        Kind SAMPLED; the ends are rounded outward.

    Raises:
        QueryError: Numbers that do not fit.

    References:
        Clopper & Pearson, Biometrika 26, 1934. Hoeffding, Annals of Math. Stat. 27, 1956, for unequal trials.

    >>> p = clopper_pearson(0, 100, confidence=0.95)
    >>> float(p.lower), round(float(p.upper), 4)
    (0.0, 0.0362)
    """
    if not 0 <= hits <= samples or samples < 1:
        raise QueryError(f"{hits} hits in {samples} samples, expected 0 <= hits <= samples, samples at least 1.")
    if not 0 < confidence < 1:
        raise QueryError(f"confidence is {confidence}, expected a level within (0, 1).")
    tail = (1 - Fraction(str(confidence))) / 2
    lower = Fraction(0) if hits == 0 else _quantile(tail, hits, samples - hits + 1)[0]
    upper = Fraction(1) if hits == samples else _quantile(1 - tail, hits + 1, samples - hits)[1]
    return Probability(Kind.SAMPLED, lower, upper, confidence, samples, hits)


def _quantile(level: Fraction, a: int, b: int) -> tuple[Fraction, Fraction]:
    """Rationals below and above the `level` quantile of the Beta(a, b) distribution."""
    from flint import arb, fmpq

    target = arb(fmpq(level.numerator, level.denominator))
    low, high = Fraction(0), Fraction(1)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        value = arb(fmpq(middle.numerator, middle.denominator)).beta_lower(a, b, regularized=True)
        if value < target:
            low = middle
        elif value > target:
            high = middle
        else:  # the arithmetic cannot tell: keep both sides
            break
    return low, high
