"""Reliability: exact answers against all flip patterns, certified intervals against exact answers and sampling."""

import math
from fractions import Fraction
from itertools import pairwise, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.encodings.cells import error_probability_bdd, fault_enumerator_bdd
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt, rate
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import (
    accuracy,
    error_probability,
    exact_error_probability,
    expected_accuracy,
    fault_enumerator,
    tolerance_bracket,
    yield_bounds,
)
from bnnverify.reliability.accuracy import image_errors, mean_accuracy
from bnnverify.reliability.laws import RowLaws
from bnnverify.reliability.rounding import UNIT, float_below, outward, rounded_rate
from bnnverify.reliability.tables import output_tables
from bnnverify.results import Kind, Probability
from tests import oracle, strategies

rates = st.sampled_from(["0", "1e-18", str(1 - Fraction(1, 10**18)), "1e-9", "1e-3", "0.1", "1/3", "1/2", "0.9", "1"])


@st.composite
def single_models(draw):
    a, b = draw(rates), draw(rates)
    return draw(st.sampled_from([BitFlip(a), AsymmetricFlip(a, b), StuckAt(str(rate(a) / 2), str(rate(b) / 2))]))


@st.composite
def fault_models(draw, blocks):
    if draw(st.booleans()):
        return draw(single_models())
    return PerBlock(tuple(draw(single_models()) for _ in range(blocks)))


@st.composite
def cases(draw, max_cells=None, **features):
    def small(net):
        return max_cells is None or net.n_cells <= max_cells

    network = draw(strategies.networks(**features).filter(small))
    x = draw(strategies.inputs(network.n_inputs))
    label = draw(st.integers(0, network.n_classes - 1))
    return network, x, label, draw(fault_models(len(network.blocks) + 1))


def random_network(widths, seed, scale=Fraction(1, 7)):
    rng = np.random.default_rng(seed)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-3, 4, m)) for n, m in pairwise(widths[:-1])
    )
    output = OutputBlock.create(
        rng.choice([-1, 1], (widths[-1], widths[-2])), scale=scale, bias=rng.normal(size=widths[-1])
    )
    return BinaryNetwork(InputDomain.binary(widths[0]), blocks, output)


@settings(max_examples=400)
@given(cases(max_cells=10, max_inputs=3, max_width=2, max_blocks=2, max_classes=3))
def test_exact_probability_is_the_sum_over_all_flip_patterns(case):
    network, x, label, faults = case
    assert exact_error_probability(network, x, label, faults) == oracle.error_probability(network, x, label, faults)


@settings(max_examples=100)
@given(cases(max_cells=12, max_inputs=3, max_width=2, max_blocks=3, max_classes=3))
def test_fault_enumerator_counts_the_flip_patterns_by_size(case):
    network, x, label, _ = case
    assert list(fault_enumerator(network, x, label).counts) == oracle.fault_enumerator(network, x, label)


def test_all_patterns_of_sixteen_cells_agree_with_the_exact_probability():
    network = random_network((3, 2, 5), seed=4)
    x, faults = (1, -1, 1), AsymmetricFlip("1/7", "2/9")
    all_cells = oracle.cells(network)
    assert len(all_cells) == 16
    by_class = [Fraction(0)] * network.n_classes
    for pattern in product((False, True), repeat=16):
        weight = Fraction(1)
        for flipped, (_, _, _, stored) in zip(pattern, all_cells, strict=True):
            p = faults.p10 if stored == 1 else faults.p01
            weight *= p if flipped else 1 - p
        flips = [cell for cell, flipped in zip(all_cells, pattern, strict=True) if flipped]
        by_class[oracle.predicted(network, x, oracle.flipped_weights(network, flips))] += weight
    assert sum(by_class) == 1
    for label, share in enumerate(by_class):
        assert exact_error_probability(network, x, label, faults) == 1 - share


@settings(max_examples=150)
@given(cases(max_inputs=6, max_width=4, max_blocks=2, max_classes=4))
def test_fault_enumerator_gives_the_probability_at_every_rate(case):
    network, x, label, _ = case
    enumerator = fault_enumerator(network, x, label)
    assert all(0 <= a <= comb(network.n_cells, k) for k, a in enumerate(enumerator.counts))
    for p in ("0", "1/5", "1"):
        assert enumerator.probability(p) == exact_error_probability(network, x, label, BitFlip(p))


@settings(max_examples=100)
@given(cases(max_inputs=6, max_width=4, max_blocks=2, max_classes=3))
def test_the_weighted_diagram_over_the_cells_gives_the_same_polynomial_and_probability(case):
    network, x, label, faults = case
    assert fault_enumerator_bdd(network, x, label) == list(fault_enumerator(network, x, label).counts)
    assert error_probability_bdd(network, x, label, faults) == exact_error_probability(network, x, label, faults)


def test_two_hundred_cells_have_the_same_polynomial_by_convolution_and_by_diagram():
    network = random_network((16, 10, 2), seed=8)
    assert network.n_cells == 180
    x = np.random.default_rng(0).choice([-1, 1], 16)
    label = network.evaluate(x)
    counts = list(fault_enumerator(network, x, label).counts)
    assert counts == fault_enumerator_bdd(network, x, label)
    assert counts[0] == 0 and sum(counts) > 2**100


@settings(max_examples=1500)
@given(
    cases(max_inputs=7, max_width=5, max_blocks=3, max_classes=4),
    st.sampled_from([1e-12, 1e-6, 1e-2]),
    st.sampled_from([1, 3, 50, 4096]),
)
def test_certified_interval_contains_the_exact_probability(case, tolerance, max_states):
    network, x, label, faults = case
    answer = error_probability(network, x, label, faults, tolerance=tolerance, max_states=max_states)
    rates_of_blocks = [faults.rates(b) for b in range(len(network.blocks) + 1)]
    fault_free = all(r.plus == r.minus == 0 for r in rates_of_blocks)
    assert answer.kind is (Kind.EXACT if fault_free else Kind.INTERVAL)
    assert answer.lower <= exact_error_probability(network, x, label, faults) <= answer.upper
    if max_states == 4096:
        assert float(answer.width) <= tolerance * 1.01 + 1e-11


@settings(max_examples=300)
@given(cases(max_inputs=7, max_width=5, max_blocks=1, max_classes=4))
def test_at_rate_0_and_1_the_interval_meets_the_deterministic_network(case):
    network, x, label, _ = case
    flipped = oracle.flipped_weights(network, oracle.cells(network))
    for p, predicted in (("0", oracle.predicted(network, x)), ("1", oracle.predicted(network, x, flipped))):
        answer = error_probability(network, x, label, BitFlip(p))
        assert answer.lower <= int(predicted != label) <= answer.upper
        assert answer.width < 1e-5


@settings(max_examples=200)
@given(st.data())
def test_integer_inputs_have_a_certified_interval_around_the_exact_probability(data):
    n, m = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    block = data.draw(strategies.dense_blocks(n, m, masked=True))
    output = data.draw(strategies.output_blocks(m, 3))
    network = BinaryNetwork(InputDomain.integers([-3] * n, [16] * n), (block,), output)
    x = data.draw(st.lists(st.integers(-3, 16), min_size=n, max_size=n))
    faults = data.draw(single_models())
    answer = error_probability(network, x, 1, faults)
    assert answer.lower <= exact_error_probability(network, x, 1, faults) <= answer.upper
    assert answer.width < 1e-5


@pytest.mark.parametrize("widths", [(30, 20, 10), (64, 32, 10), (40, 12, 9, 10)])
@pytest.mark.parametrize("faults", [BitFlip("0.01"), AsymmetricFlip("0.03", "0.002")])
def test_certified_intervals_meet_monte_carlo(widths, faults):
    network = random_network(widths, seed=sum(widths))
    images = np.random.default_rng(1).choice([-1, 1], (25, widths[0]))
    labels = network.evaluate_batch(images)
    certified = expected_accuracy(network, images, labels, faults, tolerance=1e-4, max_states=300)
    sampled = sample_errors(network, images, labels, faults, samples=4000, seed=2, confidence=0.999)
    meets = [
        p.lower <= sampled.image(i).upper and sampled.image(i).lower <= p.upper
        for i, p in enumerate(certified.per_image)
    ]
    assert sum(meets) >= 24
    assert certified.accuracy.lower <= sampled.accuracy.upper
    assert sampled.accuracy.lower <= certified.accuracy.upper


@pytest.mark.slow
def test_ninety_nine_of_a_hundred_random_cases_meet_monte_carlo():
    meets = 0
    for seed in range(1000, 1100):
        rng = np.random.default_rng(seed)
        widths = (int(rng.integers(8, 60)), int(rng.integers(4, 40)), 10)
        network = random_network(widths, seed)
        x = rng.choice([-1, 1], (1, widths[0]))
        label = [int(rng.integers(10))]
        faults = BitFlip(Fraction(int(rng.integers(1, 200)), 1000))
        certified = error_probability(network, x[0], label[0], faults, tolerance=1e-3)
        sampled = sample_errors(network, x, label, faults, samples=2000, seed=seed, confidence=0.999).image(0)
        meets += certified.lower <= sampled.upper and sampled.lower <= certified.upper
    assert meets >= 99


def test_more_states_narrow_the_interval_to_the_tolerance_and_fewer_stay_valid():
    network, tolerance = random_network((20, 10, 5), seed=3), 1e-6
    x = np.ones(20, dtype=int)
    exact = exact_error_probability(network, x, 2, BitFlip("0.2"))
    widths = []
    for states in (1, 1024, 16384, 65536):
        answer = error_probability(network, x, 2, BitFlip("0.2"), tolerance=tolerance, max_states=states)
        assert answer.lower <= exact <= answer.upper
        widths.append(max(float(answer.width), tolerance))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == tolerance < widths[0] / 5


def test_small_probabilities_keep_their_relative_precision():
    network = BinaryNetwork(InputDomain.binary(40), (), OutputBlock.create([[1] * 40, [-1] * 40]))
    exact = exact_error_probability(network, [1] * 40, 0, BitFlip("1e-3"))
    answer = error_probability(network, [1] * 40, 0, BitFlip("1e-3"), tolerance=1e-300)
    assert exact < 1e-60
    assert answer.lower <= exact <= answer.upper
    assert answer.width < exact * Fraction(1, 10**9)


@pytest.mark.parametrize("faults", [BitFlip("0.07"), AsymmetricFlip("0.3", "0.01")])
@pytest.mark.parametrize("scale", [Fraction(1), [Fraction(1), Fraction(1, 3)]])
def test_table_entries_err_by_no_more_than_their_counted_roundings(faults, scale):
    rng = np.random.default_rng(3)
    n, worst = 24, Fraction(0)
    output = OutputBlock.create(rng.choice([-1, 1], (2, n)), scale=scale, bias=[0, Fraction(5, 3)])
    network = BinaryNetwork(InputDomain.binary(n), (), output)
    tables = output_tables(output, faults.rates(0), RowLaws(faults.rates(0)), 0)
    for _ in range(25):
        h = rng.choice([-1, 1], n)
        mine, theirs = (int(np.count_nonzero(row != h)) for row in output.weights)
        exact = exact_error_probability(network, h, 0, faults)
        if tables.pair.size:
            own, rival, offset = tables.pair_index
            entry = tables.pair[0, own * mine + rival * theirs + offset]
        else:
            split = [[int(np.count_nonzero((row != h) & (row == s))) for s in (1, -1)] for row in output.weights]
            (a, b), (c, d) = split
            row = tables.own[a * tables.strides[0] + b], tables.beats[0][c * tables.strides[1] + d]
            entry = math.fsum(row[0] * row[1])
        worst = max(worst, abs(Fraction(float(entry)) / exact - 1))
    assert 0 < worst <= tables.roundings * UNIT


def test_negated_rows_swap_the_asymmetric_rates():
    def network(negated):
        block = DenseBlock.create([[1]], [0], negated=np.array([negated]))
        return BinaryNetwork(InputDomain.binary(1), (block,), OutputBlock.create([[1], [-1]]))

    only_plus_fails = PerBlock((AsymmetricFlip("0", "0.25"), BitFlip("0")))
    assert exact_error_probability(network(False), [1], 0, only_plus_fails) == Fraction(1, 4)
    assert exact_error_probability(network(True), [1], 0, only_plus_fails) == 0
    assert error_probability(network(True), [1], 0, only_plus_fails).upper < 1e-100


def test_expected_accuracy_is_the_mean_and_the_same_with_threads():
    network = random_network((12, 6, 3), seed=9)
    images = np.random.default_rng(0).choice([-1, 1], (20, 12))
    labels = np.random.default_rng(1).integers(0, 3, 20)
    faults = BitFlip("0.02")
    one = expected_accuracy(network, images, labels, faults)
    two = expected_accuracy(network, images, labels, faults, jobs=2)
    assert one.per_image == two.per_image
    assert one.accuracy == two.accuracy
    exact = 1 - sum(
        exact_error_probability(network, x, int(y), faults) for x, y in zip(images, labels, strict=True)
    ) / len(images)
    assert one.accuracy.lower <= exact <= one.accuracy.upper


def test_images_beyond_the_time_limit_count_as_undecided_with_the_reason():
    network = random_network((12, 6, 3), seed=9)
    images = np.ones((5, 12), dtype=int)
    point = expected_accuracy(network, images, [0] * 5, BitFlip("0.02"), seconds=1e-9)
    assert (point.accuracy.lower, point.accuracy.upper) == (0, 1)
    assert point.run.reason == "time limit of 1e-09 s reached; 5 of 5 images left out"


def test_a_time_limit_counts_the_images_that_stayed_wide_and_is_silent_where_none_did(monkeypatch):
    network = random_network((12, 6, 3), seed=9)
    asked = network, np.ones((3, 12), dtype=int), [0] * 3, BitFlip("0.02")
    monkeypatch.setattr(accuracy, "image_errors", lambda *a, **o: image_errors(*a, **{**o, "seconds": None}))
    assert expected_accuracy(*asked, seconds=1e-9).run.reason == ""
    wide = expected_accuracy(*asked, seconds=1e-9, tolerance=1e-30).run.reason
    assert wide == "time limit of 1e-09 s reached; 3 of 3 images wider than the tolerance"


def test_tolerance_bracket_holds_two_certified_points():
    network = random_network((24, 12, 4), seed=12)
    images = np.random.default_rng(0).choice([-1, 1], (30, 24))
    labels = network.evaluate_batch(images)
    bracket = tolerance_bracket(network, images, labels, "0.9", tolerance=1e-4)
    assert bracket.p_ok is not None and bracket.p_fail is not None
    assert bracket.p_ok < bracket.p_fail <= bracket.p_ok * Fraction("1.06")
    assert expected_accuracy(network, images, labels, BitFlip(bracket.p_ok)).accuracy.lower >= Fraction("0.9")
    assert expected_accuracy(network, images, labels, BitFlip(bracket.p_fail)).accuracy.upper < Fraction("0.9")


def test_tolerance_of_a_target_that_the_clean_network_misses_has_no_ok_side():
    network = random_network((10, 5, 3), seed=1)
    images = np.ones((2, 10), dtype=int)
    wrong = [(network.evaluate(images[0]) + 1) % 3] * 2
    bracket = tolerance_bracket(network, images, wrong, "0.5")
    assert (bracket.p_ok, bracket.p_fail) == (None, 0)
    assert "even without faults" in bracket.run.reason


def test_yield_bounds_follow_markov():
    accuracy = Probability.exact(Fraction(9, 10))
    assert yield_bounds(accuracy, "0.8").lower == Fraction(1, 2)
    assert yield_bounds(accuracy, "0.95").upper == Fraction(9, 10) / Fraction(19, 20)
    assert yield_bounds(accuracy, 0).lower > 0
    sampled = Probability(Kind.SAMPLED, Fraction(0), Fraction(1), 0.9, 1, 0)
    with pytest.raises(QueryError, match="accuracy is sampled"):
        yield_bounds(sampled, "0.5")


def test_outward_bounds_enclose_and_refuse_to_pretend():
    low, high = outward(0.25, 0.5, 1000)
    assert low < Fraction(1, 4) and high > Fraction(1, 2)
    assert high - low < Fraction(1, 4) + Fraction(1, 10**12)
    with pytest.raises(UnsupportedError, match="no useful float64 bound"):
        outward(0.25, 0.5, 2**52)


def test_bad_questions_get_one_clear_sentence():
    network = random_network((6, 3, 2), seed=0)
    x = [1] * 6
    with pytest.raises(QueryError, match="class 2 does not exist, expected 0 to 1"):
        error_probability(network, x, 2, BitFlip("0.1"))
    with pytest.raises(QueryError, match="tolerance is 0, expected a width above 0"):
        error_probability(network, x, 0, BitFlip("0.1"), tolerance=0)
    with pytest.raises(QueryError, match="max_states is 0"):
        error_probability(network, x, 0, BitFlip("0.1"), max_states=0)
    with pytest.raises(QueryError, match="1 images came with 2 labels"):
        expected_accuracy(network, [x], [0, 1], BitFlip("0.1"))
    with pytest.raises(UnsupportedError, match="below 2\\^-900"):
        error_probability(network, x, 0, BitFlip(Fraction(1, 2**950)))
    wide = random_network((3, 17, 2), seed=0)
    with pytest.raises(UnsupportedError, match="block 0 has 17 neurons"):
        exact_error_probability(wide, [1] * 3, 0, BitFlip("0.1"))


def test_tables_without_a_pair_index_still_give_valid_and_narrow_intervals():
    rng = np.random.default_rng(5)
    block = DenseBlock.create(rng.choice([-1, 1], (8, 10)), rng.integers(-2, 3, 8))
    output = OutputBlock.create(
        rng.choice([-1, 1], (4, 8)), scale=[1, Fraction(1, 2), Fraction(-1, 3), 0], bias=[0, 1, 0, 2]
    )
    network = BinaryNetwork(InputDomain.binary(10), (block,), output)
    faults = AsymmetricFlip("0.1", "0.01")
    for label in range(4):
        answer = error_probability(network, [1] * 10, label, faults)
        assert answer.lower <= exact_error_probability(network, [1] * 10, label, faults) <= answer.upper
        assert answer.width < 1.1e-6


def test_a_rate_and_its_complement_are_each_rounded_on_their_own():
    assert rounded_rate(1 - Fraction(1, 10**18)) == (1.0, 1e-18)
    assert rounded_rate(Fraction(1, 10**18)) == (1e-18, 1.0)


def test_bounds_allow_for_underflow_and_round_outward():
    low, high = outward(0.0, 0.0, 5)
    assert low == 0 < high
    third = Fraction(1, 3)
    assert Fraction(float_below(third)) < third < Fraction(-float_below(-third))
    assert float_below(Fraction(1, 4)) == 0.25
    network = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]]))
    rate_too_small_to_square = BitFlip(Fraction(1, 2**800))
    answer = error_probability(network, [1], 0, rate_too_small_to_square)  # both cells flip: 2^-1600
    assert answer.lower <= Fraction(1, 2**1600) <= answer.upper


@pytest.mark.parametrize("bias", [[0, 2**64, 0], [0.0, -1e300, 1e300], [0, -(2**70), -(2**70)]])
@pytest.mark.parametrize("scale", [1, -1, Fraction(1, 2**80)])
def test_biases_beyond_64_bits_are_certified(bias, scale):
    output = OutputBlock.create([[1, 1, -1], [-1, 1, 1], [1, -1, 1]], scale=scale, bias=bias)
    network = BinaryNetwork(InputDomain.binary(3), (), output)
    for label in range(3):
        answer = error_probability(network, [1, -1, 1], label, BitFlip("0.1"))
        assert answer.lower <= exact_error_probability(network, [1, -1, 1], label, BitFlip("0.1")) <= answer.upper
        assert answer.width < 1e-6


def test_labels_are_checked_also_where_nothing_can_fail():
    network = random_network((6, 3, 2), seed=0)
    with pytest.raises(QueryError, match="class 99 does not exist"):
        error_probability(network, [1] * 6, 99, BitFlip(0))
    with pytest.raises(QueryError, match=r"class is 0\.5, expected an integer"):
        expected_accuracy(network, [[1] * 6], [0.5], BitFlip("0.1"))


def test_the_mean_rounds_outward_and_is_exact_only_if_all_are():
    third = Probability.interval(Fraction(1, 3), Fraction(1, 3))
    mean = mean_accuracy([third] * 7)
    assert mean.kind is Kind.INTERVAL
    assert mean.lower < Fraction(2, 3) < mean.upper
    assert mean_accuracy([third, Probability.exact(Fraction(0))]).kind is Kind.INTERVAL
    assert mean_accuracy([Probability.exact(Fraction(0)), Probability.exact(Fraction(1))]).lower == Fraction(1, 2)
    with pytest.raises(QueryError, match="expected proved bounds"):
        mean_accuracy([Probability(Kind.SAMPLED, Fraction(0), Fraction(1), 0.9, 1, 0)])


def test_yield_bounds_use_the_safe_end_of_an_interval():
    bounds = yield_bounds(Probability.interval(Fraction(8, 10), Fraction(9, 10)), "0.5")
    assert bounds.lower == Fraction(6, 10)
    low = yield_bounds(Probability.interval(Fraction(1, 10), Fraction(2, 10)), "0.5")
    assert low.upper == Fraction(4, 10)


def test_both_ends_of_a_bracket_are_certified_where_intervals_straddle_the_target():
    network = random_network((24, 20, 10), seed=12)
    images = np.random.default_rng(0).choice([-1, 1], (10, 24))
    labels = network.evaluate_batch(images)
    bracket = tolerance_bracket(network, images, labels, "0.8", tolerance=1e-2, max_states=4)
    assert bracket.accuracy_ok is not None and bracket.accuracy_fail is not None
    assert bracket.accuracy_ok.lower >= Fraction(8, 10)
    assert bracket.accuracy_fail.upper < Fraction(8, 10)
    assert "straddle" in bracket.run.reason


def test_a_bracket_of_a_perfect_target_narrows_its_failing_side():
    network = BinaryNetwork(InputDomain.binary(60), (), OutputBlock.create([[1] * 60, [-1] * 60]))
    bracket = tolerance_bracket(network, [[1] * 60], [0], "1")
    assert bracket.p_ok == 0
    assert 0 < bracket.p_fail < Fraction(1, 2)
    assert bracket.accuracy_fail.upper < 1
    assert "lowest rate" not in bracket.run.reason


def test_many_patterns_of_an_earlier_block_are_cut_off_soundly():
    network = random_network((12, 9, 5, 3), seed=21)
    x = np.random.default_rng(2).choice([-1, 1], 12)
    exact = exact_error_probability(network, x, 1, BitFlip("0.2"))
    answer = error_probability(network, x, 1, BitFlip("0.2"), tolerance=1e-9, max_states=1)  # 64 of 512 patterns
    assert answer.lower <= exact <= answer.upper
    assert answer.width > 1e-6
