"""Yield: the share of chips whose accuracy over a data set reaches a threshold."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from bnnverify.errors import QueryError
from bnnverify.faults import rate
from bnnverify.results import Probability


def yield_bounds(accuracy: Probability, threshold: Any) -> Probability:
    """Proved bounds on the share of chips whose accuracy is at least `threshold`, from the expected accuracy alone.

    Markov's inequality on both sides: ``1 - (1 - mu) / (1 - T) <= yield <= mu / T``.

    Args:
        accuracy: Expected accuracy, exact or an interval.
        threshold: T within [0, 1].

    >>> str(yield_bounds(Probability.exact(Fraction(99, 100)), "0.9"))
    '[0.9, 1] (interval)'
    """
    bound = rate(threshold, "threshold")
    if accuracy.confidence is not None:
        raise QueryError("the accuracy is sampled, expected proved bounds.")
    lower = Fraction(0) if bound == 1 else 1 - (1 - accuracy.lower) / (1 - bound)
    upper = Fraction(1) if bound == 0 else accuracy.upper / bound
    return Probability.interval(lower, upper)
