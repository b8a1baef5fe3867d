"""Confidence intervals: sharp, outward, and covering as often as they say."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson, mean_interval
from bnnverify.errors import QueryError


def at_most(hits, samples, p):
    return sum(comb(samples, k) * p**k * (1 - p) ** (samples - k) for k in range(hits + 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.95, 0.999, 1 - 1e-9]))
def test_each_end_leaves_half_the_risk_and_hardly_less(samples, data, confidence):
    hits = data.draw(st.integers(0, samples))
    answer, tail = clopper_pearson(hits, samples, confidence=confidence), (1 - Fraction(str(confidence))) / 2
    nearly = tail * (1 - Fraction(1, 10**8))
    if hits < samples:
        assert nearly < at_most(hits, samples, answer.upper) <= tail
    if hits:
        assert nearly < 1 - at_most(hits - 1, samples, answer.lower) <= tail


def test_a_handful_of_hits_in_a_million_million_has_sharp_ends():
    few, many = clopper_pearson(5, 10**12, confidence=0.999), clopper_pearson(10**12 - 5, 10**12, confidence=0.999)
    # the limit is a Poisson law, whose mean has this bound for 5 events
    poisson = sum(float(few.upper * 10**12) ** k / np.prod(range(1, k + 1), initial=1.0) for k in range(6))
    assert poisson * np.exp(-float(few.upper * 10**12)) == pytest.approx(0.0005, rel=1e-6)
    assert (many.lower, many.upper) == (1 - few.upper, 1 - few.lower)


def test_large_counts_on_both_sides_are_near_the_normal_law():
    answer = clopper_pearson(3 * 10**8, 10**9, confidence=0.99)
    assert float(answer.width) == pytest.approx(2 * 2.5758 * np.sqrt(0.21 / 1e9), rel=1e-3)
    assert answer.lower < Fraction(3, 10) < answer.upper


def test_means_of_all_kinds_of_numbers_are_covered():
    rng = np.random.default_rng(0)
    laws = {
        0.25: lambda n: rng.random(n) ** 3,
        0.05: lambda n: (rng.random(n) < 0.05) * 1.0,
        0.95: lambda n: (rng.random(n) < 0.95) * 1.0,
        0.5: lambda n: np.full(n, 0.5),
        0.9: lambda n: np.where(rng.random(n) < 0.1, 0.0, 1.0),
    }
    for mean, law in laws.items():
        missed = 0
        for _ in range(200):
            low, high = mean_interval(law(150), confidence=0.9)
            missed += not low <= mean <= high
        assert missed <= 20


def test_intervals_hold_at_every_number_of_samples_at_once():
    rng, missed = np.random.default_rng(1), 0
    for _ in range(60):
        values = rng.random(120)
        ends = [mean_interval(values[:n], confidence=0.9) for n in range(1, 121, 4)]
        missed += any(not low <= 0.5 <= high for low, high in ends)
    assert missed <= 6


def test_chips_that_hardly_differ_give_narrow_means_and_no_chips_none():
    values = 0.95 + 0.002 * np.random.default_rng(2).random(4000)
    low, high = mean_interval(values, confidence=0.99)
    assert low < values.mean() < high < low + 0.003
    assert mean_interval([]) == (0.0, 1.0)
    assert mean_interval([1.0] * 100)[1] == 1.0 and mean_interval([0.0] * 100)[0] == 0.0
    with pytest.raises(QueryError, match=r"list of numbers within \[0, 1\]"):
        mean_interval([0.5, 1.5])
    with pytest.raises(QueryError, match="confidence is 0, expected a level within"):
        mean_interval([0.5], confidence=0)
