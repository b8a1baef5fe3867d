"""Fault models: rates are exact, and belong to stored signs."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt, after_write_verify, compose, log_grid, rate

probabilities = st.fractions(0, 1, max_denominator=50)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, Fraction(1, 10)),
        (1e-4, Fraction(1, 10_000)),
        ("1e-3", Fraction(1, 1000)),
        (" 0.25 ", Fraction(1, 4)),
        ("1/3", Fraction(1, 3)),
        (0, Fraction(0)),
        (1, Fraction(1)),
        (Fraction(2, 7), Fraction(2, 7)),
    ],
)
def test_rates_mean_what_is_written(value, expected):
    assert rate(value) == expected


@pytest.mark.parametrize("value", [1.5, -0.1, "2", "-1/2", Fraction(3, 2)])
def test_rates_outside_0_to_1_are_refused(value):
    with pytest.raises(QueryError, match=r"p10 is .*, expected a probability within \[0, 1\]"):
        rate(value, "p10")


@pytest.mark.parametrize("value", ["a lot", "", "1/0", float("nan"), float("inf"), "nan", None, True, [0.1]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(QueryError, match=r"p is .*, expected a probability such as"):
        rate(value)


def test_a_log_grid_keeps_its_ends_and_rounds_the_rest_to_3_digits():
    grid = log_grid("1e-4", "1e-1", 8)
    assert (grid[0], grid[-1], len(grid)) == (Fraction(1, 10_000), Fraction(1, 10), 8)
    assert list(grid) == sorted(set(grid))
    assert all(Fraction(f"{float(p):.2e}") == p for p in grid)
    assert log_grid("1e-2", "1e-1", 1) == (Fraction(1, 100),)
    assert log_grid("1e-1", "1e-3", 3) == (Fraction(1, 10), Fraction(1, 100), Fraction(1, 1000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "0.1", 3), "cannot start or end at 0"),
        (("0.1", "0.2", 0), "points of the grid is 0, expected at least 1"),
        (("0.1", "2", 3), r"end of the grid is 2, expected a probability within \[0, 1\]"),
    ],
)
def test_grids_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(QueryError, match=message):
        log_grid(*arguments)


def test_rates_belong_to_stored_signs():
    assert BitFlip("0.1").rates(0).is_symmetric
    flip = AsymmetricFlip(p01="0.1", p10="0.2").rates(3)
    assert (flip.plus, flip.minus) == (Fraction(1, 5), Fraction(1, 10))
    stuck = StuckAt(p_plus="0.1", p_minus="0.2").rates(0)  # a stored +1 errs only where it is stuck at -1
    assert (stuck.plus, stuck.minus) == (Fraction(1, 5), Fraction(1, 10))
    assert not stuck.is_symmetric


def test_each_block_may_have_its_own_model():
    faults = PerBlock((BitFlip(0), StuckAt("0.1", "0.2")))
    assert faults.rates(0) == BitFlip(0).rates(0)
    assert faults.rates(1) == StuckAt("0.1", "0.2").rates(1)
    with pytest.raises(QueryError, match="has 2 blocks, but block 2 was asked for"):
        faults.rates(2)


def test_stuck_rates_may_not_exceed_one_together():
    with pytest.raises(QueryError, match=r"p_plus \+ p_minus is 6/5, expected at most 1"):
        StuckAt("0.6", "0.6")


def test_models_say_their_exact_rates_in_json():
    assert BitFlip(0.1).to_json() == {"kind": "bit-flip", "p": "1/10"}
    assert AsymmetricFlip(0, "1e-3").to_json() == {"kind": "asymmetric-flip", "p01": "0", "p10": "1/1000"}
    assert StuckAt(0, "0.5").to_json() == {"kind": "stuck-at", "p_plus": "0", "p_minus": "1/2"}
    assert PerBlock((BitFlip(0),)).to_json() == {"kind": "per-block", "models": [{"kind": "bit-flip", "p": "0"}]}


@given(probabilities, probabilities)
def test_composition_is_the_chance_of_an_odd_number_of_flips(p, q):
    assert compose([p, q]) == p * (1 - q) + q * (1 - p)
    assert compose([]) == 0
    assert compose([p]) == p


def test_write_verify_leaves_a_power_of_the_rate():
    assert after_write_verify("0.1", 0) == Fraction(1, 10)
    assert after_write_verify("0.1", 2) == Fraction(1, 1000)
    with pytest.raises(QueryError, match="retries is -1, expected at least 0"):
        after_write_verify("0.1", -1)
