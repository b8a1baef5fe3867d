"""Confidence intervals for what was sampled: frequencies of an event, and means of bounded numbers.

Both hold for any number of samples, without appeal to a normal law. The arithmetic of Clopper-Pearson is rigorous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from bnnverify.errors import QueryError
from bnnverify.results import Kind, Probability
from bnnverify.scalars import real

_CLOSE = Fraction(1, 2**40)  # relative distance to the exact ends, and of one minus them, at which bisection stops
_MOST_STEPS = 400
_TERMS = 2**14  # of a binomial tail, summed at a time
_BITS = 256  # precision of the first term, whose logarithm is a difference of numbers near samples * log(samples)
_CAP = 0.9  # greatest share of its capital that a bet puts at stake
_BETS = 100  # bisection steps for the mean
_SLACK = 1e-9  # more than the rounding of a sum of 10^5 logarithms


def clopper_pearson(hits: int, samples: int, *, confidence: float = 0.99) -> Probability:
    """The Clopper-Pearson interval for a frequency: it covers the truth with at least the given confidence.

    For trials with different success probabilities (the images of a data set, each on chips of its own) it covers
    their mean; the binomial is then the worst case.

    Args:
        hits: Trials with the event.
        samples: Independent trials, at least 1.
        confidence: Two-sided level within (0, 1).

    Returns:
        Kind SAMPLED; the ends are rounded outward, by about 1e-12 of themselves and of their distance to 1.

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
    tail = (1 - _level(confidence)) / 2
    lower = Fraction(0) if hits == 0 else 1 - _upper_end(samples - hits, samples, tail)
    upper = Fraction(1) if hits == samples else _upper_end(hits, samples, tail)
    return Probability(Kind.SAMPLED, lower, upper, confidence, samples, hits)


def _level(confidence: float) -> Fraction:
    level = real(confidence, "confidence")
    if not 0 < level < 1:
        raise QueryError(f"confidence is {confidence}, expected a level within (0, 1).")
    return Fraction(str(level))


def _upper_end(hits: int, samples: int, tail: Fraction) -> Fraction:
    """A rate at which at most `hits` are proved to have probability `tail` or less, close above the least such rate."""
    share = Fraction(hits, samples)
    high = 1 - share  # of the distance from the share
    while _is_rarer(hits, samples, share + high / 2, tail):
        high /= 2
    low = high / 2
    for _ in range(_MOST_STEPS):
        if high - low <= _CLOSE * min(share + low, 1 - share - high):
            break
        middle = (low + high) / 2
        if _is_rarer(hits, samples, share + middle, tail):
            high = middle
        else:
            low = middle
    return share + high


def _is_rarer(hits: int, samples: int, p: Fraction, tail: Fraction) -> bool:
    """Whether a binomial variable is proved to be at most `hits` with probability `tail` or less; p above the share.

    The probability of `hits` itself comes from rigorous arithmetic. The sum of all terms over it is a sum of products
    of positive float64 numbers: five roundings a term, and a geometric series for what is cut off.
    """
    if p == 1:
        return True
    total, term, step, k = 1.0, 1.0, float((1 - p) / p), hits
    while k > 0:
        below = np.arange(k, max(k - _TERMS, 0), -1, dtype=np.float64)
        ratios = below / (samples - below + 1) * step
        terms = term * np.cumprod(ratios)
        total, term, k = total + float(terms.sum()), float(terms[-1]), k - len(below)
        if term <= total * 1e-18 * (1 - float(ratios[-1])):
            break
    total += 1e-18 * total * bool(k)
    from flint import arb, ctx, fmpq

    before = ctx.prec
    try:
        ctx.prec = _BITS
        n, h = arb(samples), arb(hits)
        yes, no = (arb(fmpq(v.numerator, v.denominator)).log() for v in (p, 1 - p))
        log_first = (n + 1).lgamma() - (h + 1).lgamma() - (n - h + 1).lgamma() + h * yes + (n - h) * no
        bound = arb(total) * (1 + arb(6 * (hits - k + 2)) * arb(2) ** -53)
        return bool(log_first.exp() * bound <= arb(fmpq(tail.numerator, tail.denominator)))
    finally:
        ctx.prec = before


def mean_interval(values: Sequence[float] | Any, *, confidence: float = 0.99) -> tuple[float, float]:
    """An interval for the mean of independent, equally distributed numbers within [0, 1].

    It covers the mean with at least the given confidence at every number of samples *at once*: one may look, go on
    sampling, and stop when it is narrow enough. Few samples give a wide interval, as they must: in n samples nobody has
    seen what happens once in n.

    Args:
        values: The numbers in the order in which they came.
        confidence: Two-sided level within (0, 1).

    Returns:
        Lower and upper bound.

    Raises:
        QueryError: A number outside [0, 1], or a level that is none.

    References:
        Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024: a mean is
        left out once a gambler who bets against it has multiplied the capital by 2 / (1 - confidence).

    >>> low, high = mean_interval([0.9, 0.92] * 500)
    >>> low < 0.91 < high < low + 0.02
    True
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not bool(((numbers >= 0) & (numbers <= 1)).all()):
        raise QueryError("the values are not a list of numbers within [0, 1].")
    goal = math.log(2 / float(1 - _level(confidence))) + _SLACK
    bets = _bets(numbers, goal)

    def lower(x: Any) -> float:
        """Greatest mean that bets on higher numbers refute; they win less, the higher the mean."""
        low, high = 0.0, 1.0
        for _ in range(_BETS):
            m = (low + high) / 2
            if m <= 0 or float(np.log1p(np.minimum(bets, _CAP / m) * (x - m)).sum()) >= goal:
                low = m
            else:
                high = m
        return low

    return lower(numbers), 1 - lower(1 - numbers)


def _bets(numbers: Any, goal: float) -> Any:
    """Size of each bet, from the numbers before it: larger where they vary little."""
    count = np.arange(1, len(numbers) + 1)
    means = (0.5 + np.cumsum(numbers)) / (count + 1)
    variances = (0.25 + np.cumsum((numbers - means) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    return np.sqrt(2 * goal / (before * count * np.log1p(count)))
