"""2T2R pairs: exact rates against the enumeration of both cells, resistances against samples."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.devices.pairs import TIES, LognormalResistance, pair_faults
from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt

rates = st.fractions(0, 1, max_denominator=30)
CELLS = LognormalResistance(5e3, 0.3, 2e4, 0.5)


def enumerated(weight, model, ties):
    """Probability that the pair reads -weight, over what both cells read."""
    wrong = Fraction(0)
    cell = model.rates(0)
    for first, second in itertools.product((-1, 1), repeat=2):
        p = Fraction(1)
        for read, holds in ((first, weight), (second, -weight)):
            flips = cell.plus if holds > 0 else cell.minus
            p *= flips if read != holds else 1 - flips
        if first != second:
            wrong += p * (first != weight)
        else:
            wrong += p * {"half": Fraction(1, 2), "plus": Fraction(weight < 0), "minus": Fraction(weight > 0)}[ties]
    return wrong


@given(rates, rates, st.sampled_from(sorted(TIES)))
def test_a_pair_is_the_enumeration_of_its_cells(p01, p10, ties):
    model = AsymmetricFlip(p01, p10)
    found = pair_faults(model, ties=ties)
    assert found == AsymmetricFlip(p01=enumerated(-1, model, ties), p10=enumerated(1, model, ties))


@given(rates, rates)
def test_with_ties_at_half_a_pair_fails_as_the_mean_of_its_cells(p01, p10):
    mean = (p01 + p10) / 2
    assert pair_faults(AsymmetricFlip(p01, p10)) == AsymmetricFlip(mean, mean)


def test_pairs_of_blocks_and_of_stuck_cells():
    found = pair_faults(PerBlock((BitFlip("1/10"), StuckAt("1/5", 0))))
    assert found == PerBlock((AsymmetricFlip("1/10", "1/10"), AsymmetricFlip("1/10", "1/10")))
    with pytest.raises(QueryError, match=r"ties is 'odd', expected one of: half, plus, minus"):
        pair_faults(BitFlip(0), ties="odd")


def test_resistances_misread_as_often_as_sampled_ones():
    n, rng, reference = 200_000, np.random.default_rng(6), 1e4
    low = CELLS.low_median * np.exp(CELLS.low_sigma * rng.standard_normal(n))
    high = CELLS.high_median * np.exp(CELLS.high_sigma * rng.standard_normal(n))
    p01, p10 = CELLS.bounds(reference)
    offset = CELLS.pair_bounds(offset_sigma=0.4)
    noisy = np.log(low) - np.log(high) + 0.4 * rng.standard_normal(n) > 0
    for sampled, (lower, upper) in (
        (high < reference, p01),
        (low > reference, p10),
        (low > high, CELLS.pair_bounds()),
        (noisy, offset),
    ):
        band = clopper_pearson(int(sampled.sum()), n, confidence=1 - 1e-9)
        assert band.lower <= lower <= upper <= band.upper
        assert upper - lower < upper / 10**15


@given(st.floats(1e2, 1e5), st.floats(1.01, 1e3), st.floats(0.05, 1.5), st.floats(0.05, 1.5))
def test_the_bounds_hold_the_float_and_a_pair_beats_the_balanced_reference(low, ratio, s, t):
    cells = LognormalResistance(low, s, low * ratio, t)
    lower, upper = cells.pair_bounds()
    assert float(lower) == pytest.approx(math.erfc(math.log(ratio) / math.hypot(s, t) / math.sqrt(2)) / 2, rel=1e-8)
    assert 0 <= lower <= upper <= Fraction(1, 2)
    alone = cells.faults(cells.balanced_reference)
    assert float(alone.p01) == pytest.approx(float(alone.p10), rel=1e-6)
    assert cells.pair_faults().p10 == upper <= alone.p10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LognormalResistance(1e4, 0.1, 1e4, 0.1), r"low state has median 10000 ohm and the high one 10000"),
        (lambda: LognormalResistance(1e4, 0.0, 2e4, 0.1), r"low_sigma is 0\.0, expected a finite number above 0"),
        (lambda: CELLS.bounds(0.0), r"reference is 0\.0 ohm, expected a number above 0"),
        (lambda: CELLS.pair_bounds(offset_sigma=-1.0), r"offset_sigma is -1\.0, expected a number at least 0"),
    ],
)
def test_what_is_no_pair_is_refused(make, message):
    with pytest.raises(QueryError, match=message):
        make()
