"""First coefficients of fault enumerators against all flip sets and the whole enumerator, and what they prove."""

from fractions import Fraction
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cli.cells import coefficients_report
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.faults import BitFlip
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import error_probability, fault_enumerator
from bnnverify.reliability.coefficients import fault_coefficients
from bnnverify.reliability.critical import critical_cells
from bnnverify.reliability.enumerators import PartialEnumerator
from bnnverify.reliability.exact import FaultEnumerator
from bnnverify.reliability.means import mean_coefficients
from bnnverify.reliability.worstcase import bit_flip_distance
from bnnverify.results import Kind, Probability
from tests import oracle, strategies
from tests.test_critical import integer_networks


def flip_sets(network, x, label, order):
    """A_0..A_order by enumeration."""
    cells, counts = oracle.cells(network), []
    for size in range(order + 1):
        found = 0
        for flips in combinations(cells, size):
            found += oracle.predicted(network, x, oracle.flipped_weights(network, flips)) != label
        counts.append(found)
    return tuple(counts)


def random_network(widths, seed):
    rng = np.random.default_rng(seed)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-3, 4, m)) for n, m in pairwise(widths[:-1])
    )
    output = OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])), bias=rng.integers(-3, 4, widths[-1]))
    return BinaryNetwork(InputDomain.binary(widths[0]), blocks, output)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_all_coefficients_are_the_fault_enumerator(data):
    network = data.draw(strategies.networks(max_inputs=4, max_width=4, max_blocks=3, max_classes=4))
    x = data.draw(strategies.inputs(network.n_inputs))
    label = data.draw(st.integers(0, network.n_classes - 1))
    whole = fault_enumerator(network, x, label)
    order = data.draw(st.integers(0, min(network.n_cells + 1, 9)))
    found = fault_coefficients(network, x, label, order=order)
    assert found.counts == whole.counts[: order + 1] and found.n_cells == whole.n_cells
    p = data.draw(st.sampled_from(["0", "1e-9", "1e-3", "1/3", "1"]))
    answer, truth = found.probability(p), whole.probability(p)
    assert answer.lower <= truth <= answer.upper
    assert (answer.kind is Kind.EXACT) == (found.is_complete or p == "0")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_first_coefficients_count_flip_sets(data):
    network = data.draw(strategies.networks(max_inputs=5, max_width=4, max_blocks=2).filter(lambda n: n.n_cells < 25))
    x = data.draw(strategies.inputs(network.n_inputs))
    clean = oracle.predicted(network, x)
    assert fault_coefficients(network, x, order=2).counts == flip_sets(network, x, clean, min(2, network.n_cells))


@settings(max_examples=40, deadline=None)
@given(integer_networks(), st.data())
def test_integer_inputs_are_counted_by_their_size(network, data):
    x = data.draw(st.lists(st.integers(-3, 6), min_size=network.n_inputs, max_size=network.n_inputs))
    label = data.draw(st.integers(0, network.n_classes - 1))
    whole = fault_enumerator(network, x, label)
    order = min(6, network.n_cells)
    assert fault_coefficients(network, x, label, order=order).counts == whole.counts[: order + 1]


def test_many_flips_of_a_long_row_of_integers_do_not_overflow():
    n = 70  # sets of 33 of them are more than 2^63
    block, output = DenseBlock.create([[1] * n], [0]), OutputBlock.create([[1], [-1]])
    network = BinaryNetwork(InputDomain.integers([0] * n, [3] * n), (block,), output)
    x = [i % 3 + 1 for i in range(n)]
    assert fault_coefficients(network, x, 0, order=network.n_cells).counts == fault_enumerator(network, x, 0).counts


def test_sums_of_very_large_integers_are_refused_with_what_to_do():
    block, output = DenseBlock.create([[1, 1]], [0]), OutputBlock.create([[1], [-1]])
    network = BinaryNetwork(InputDomain.integers([0, 0], [2**40] * 2), (block,), output)
    said = (
        r"up to 2 of the integer inputs, .* GiB, expected at most 1 GiB. Take inputs of fewer levels, or a lower order"
    )
    with pytest.raises(ResourceLimitError, match=said):
        fault_coefficients(network, [2**40, 2**39], order=2)
    assert fault_coefficients(network, [2**20, 2**19], order=2).counts == (0, 1, 2)


@pytest.mark.parametrize("widths", [(12, 8, 4), (8, 5, 5, 3), (6, 4, 4, 4, 3)])
def test_pairs_and_triples_of_larger_networks(widths):
    network = random_network(widths, seed=1)
    for x in np.random.default_rng(2).choice([-1, 1], (3, widths[0])):
        whole = fault_enumerator(network, x, 1).counts
        found = fault_coefficients(network, x, 1, order=7)
        assert found.counts == whole[:8]


def test_the_first_coefficient_is_the_number_of_critical_cells_and_the_first_positive_one_the_distance():
    network = random_network((60, 30, 5), seed=4)
    images = np.random.default_rng(3).choice([-1, 1], (25, 60))
    critical = critical_cells(network, images).per_image[:, 0]
    for x, cells in zip(images, critical.tolist(), strict=True):
        found = fault_coefficients(network, x, order=6)
        assert found.counts[:2] == (0, cells) and found.slope == cells
        distance = bit_flip_distance(network, x).upper
        assert all(a == 0 for a in found.counts[:distance])
        assert distance > 6 or found.counts[distance] > 0


def test_certified_intervals_of_two_methods_meet():
    network = random_network((30, 16, 4), seed=5)
    rng = np.random.default_rng(6)
    for x, label in zip(rng.choice([-1, 1], (2, 30)), rng.integers(0, 4, 2).tolist(), strict=True):
        found = fault_coefficients(network, x, label, order=4)
        for p in ("1e-12", "1e-7", "1e-5", "1e-4"):
            here, there = found.probability(p), error_probability(network, x, label, BitFlip(p))
            assert here.lower <= there.upper and there.lower <= here.upper
            assert here.width < Fraction(1, 10**3)


def test_convolutions_have_two_coefficients():
    rng = np.random.default_rng(0)
    block = ConvBlock.create(rng.choice([-1, 1], (2, 1, 2, 2)), [1, -1], input_shape=(1, 3, 3), padding=1)
    output = OutputBlock.create(rng.choice([-1, 1], (3, 32)))
    network = BinaryNetwork(InputDomain.binary(9), (block,), output)
    for x in rng.choice([-1, 1], (5, 9)):
        for label in range(3):
            found = fault_coefficients(network, x, label)
            assert found.counts == flip_sets(network, x, label, 1) and "convolutions" in found.run.reason


def test_a_convolution_without_cells_has_one_coefficient():
    block = ConvBlock.create([[[[0]]]], [0], input_shape=(1, 1, 1), mask=np.zeros((1, 1, 1, 1), dtype=bool))
    output = OutputBlock.create([[0], [0]], mask=np.zeros((2, 1), dtype=bool))
    network = BinaryNetwork(InputDomain.binary(1), (block,), output)
    assert fault_coefficients(network, [1], 1).counts == (1,)


def test_the_mean_over_images_bounds_the_accuracy_at_every_rate_up_to_one():
    network = random_network((6, 4, 3), seed=7)
    rng = np.random.default_rng(8)
    images, labels = rng.choice([-1, 1], (5, 6)), rng.integers(0, 3, 5).tolist()
    mean = mean_coefficients(network, images, labels, order=3)
    whole = [fault_enumerator(network, x, y) for x, y in zip(images, labels, strict=True)]
    assert mean.counts == tuple(Fraction(sum(e.counts[k] for e in whole), 5) for k in range(4))
    for p in (Fraction(1, 10**6), Fraction(1, 1000), Fraction(1, 50), Fraction(1, 4)):
        errors = [sum(e.probability(p * i / 8) for e in whole) / 5 for i in range(9)]
        bounds = mean.probability(p)
        assert bounds.lower <= errors[-1] <= bounds.upper
        assert max(errors) <= mean.at_most(p)
        assert p > Fraction(1, 1000) or mean.at_most(p) - max(errors) < 10 * p
    assert mean.at_most(0) == mean.probability(0).lower == mean.counts[0]


@pytest.mark.parametrize("n, order", [(10, 0), (10, 3), (300, 2), (79400, 3), (79400, 12)])
@pytest.mark.parametrize("p", ["1e-300", "1e-12", "1e-6", "1e-3", "1/2", "0.999", "1"])
def test_intervals_contain_the_extremes_to_the_last_bit(n, order, p):
    nothing = PartialEnumerator((0,) * (order + 1), n)
    everything = PartialEnumerator(tuple(comb(n, k) for k in range(order + 1)), n)
    assert nothing.probability(p).lower == 0 and everything.probability(p).upper == 1
    if n > 300:
        return
    q = Fraction(p)
    few = sum(comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(order + 1))
    assert nothing.probability(p).upper >= 1 - few and everything.probability(p).lower <= few
    assert nothing.probability(p).upper - (1 - few) <= (1 - few) / 10**15 + Fraction(1, 10**300)
    assert few - everything.probability(p).lower <= few / 10**15 + Fraction(1, 10**300)
    assert nothing.at_most(p) >= nothing.probability(p).upper


def test_a_complete_enumerator_is_exact():
    whole = FaultEnumerator((0, 1, 1))
    partial = PartialEnumerator((0, 1, 1), 2)
    assert partial.complete() == whole and partial.probability("1/3").lower == whole.probability("1/3")
    assert partial.shares == (0, Fraction(1, 2), 1) and partial.to_json()["counts"] == ["0", "1", "1"]
    with pytest.raises(QueryError, match="expected all of them"):
        PartialEnumerator((0, 1), 2).complete()
    with pytest.raises(QueryError, match="do not fit"):
        PartialEnumerator((0, 3), 2)
    with pytest.raises(QueryError, match="Count single flips"):
        _ = PartialEnumerator((0,), 2).slope


def test_a_limit_leaves_the_orders_that_were_finished():
    network = random_network((60, 40, 40, 5), seed=9)
    x = np.ones(60, dtype=int)
    y = (network.evaluate(x) + 1) % 5  # wrong from the start, so that every order has sets
    cut = fault_coefficients(network, x, y, order=5, limits=Limits(seconds=1e-9))
    assert cut.counts == (1,) and cut.run.reason == "time limit of 1e-09 s reached; 0 of 5 orders"
    assert fault_coefficients(network, x, y, order=5, monitor=Monitor(stop=True)).run.reason.startswith("interrupted")
    slow = fault_coefficients(network, x, y, order=2, limits=Limits(seconds=100))
    assert slow.counts == fault_coefficients(network, x, y, order=2).counts


def test_the_means_of_all_sizes_give_the_accuracy_at_every_rate_exactly():
    network = random_network((6, 4, 3), seed=7)
    images, labels = np.random.default_rng(8).choice([-1, 1], (4, 6)), [0, 1, 2, 0]
    done = []
    mean = mean_coefficients(network, images, labels, order=None, progress=done.append)
    whole = [fault_enumerator(network, x, y) for x, y in zip(images, labels, strict=True)]
    assert mean.is_complete and done == [1] * 4
    assert mean.probability("3/7") == Probability.exact(sum(e.probability("3/7") for e in whole) / 4)
    report = coefficients_report(network, images, labels, order=None, rates=[Fraction(1, 3)])
    assert report.answer["at"][0]["accuracy"]["kind"] == "exact"
    assert report.text[-2] == "  ... up to A_36: all with --json" and len(report.answer["counts"]) == 37
    with pytest.raises(UnsupportedError, match="17 neurons"):
        mean_coefficients(random_network((4, 17, 2), seed=0), [[1] * 4], order=None)


def test_a_limit_leaves_the_sizes_that_all_images_have():
    network = random_network((60, 40, 40, 5), seed=9)
    images = np.random.default_rng(1).choice([-1, 1], (3, 60))
    labels = ((network.evaluate_batch(images) + np.array([0, 1, 1])) % 5).tolist()
    cut = mean_coefficients(network, images, labels, order=4, limits=Limits(seconds=1e-9))
    assert cut.counts == (Fraction(2, 3),) and cut.run.reason == "time limit of 1e-09 s reached; 0 of 4 orders"
    assert mean_coefficients(network, images, order=9, monitor=Monitor(stop=True)).counts == (0,)
    slow = mean_coefficients(network, images, labels, order=2, limits=Limits(seconds=100))
    assert slow.counts == mean_coefficients(network, images, labels, order=2).counts and not slow.run.reason


def test_wrong_questions_are_refused():
    network = random_network((4, 3, 2), seed=0)
    with pytest.raises(QueryError, match="the order is -1"):
        fault_coefficients(network, [1, 1, 1, 1], order=-1)
    with pytest.raises(QueryError, match="class 7 does not exist"):
        fault_coefficients(network, [1, 1, 1, 1], 7)
    with pytest.raises(QueryError, match="expected equally many"):
        mean_coefficients(network, [[1, 1, 1, 1]], [0, 1])
    integers = BinaryNetwork(InputDomain.integers([0], [9]), (), OutputBlock.create([[1], [-1]]))
    with pytest.raises(UnsupportedError, match="no hidden block"):
        fault_coefficients(integers, [3])


def test_the_report_gives_the_accuracy_that_the_coefficients_prove():
    network = random_network((6, 4, 3), seed=7)
    images, labels = np.random.default_rng(8).choice([-1, 1], (4, 6)), [0, 1, 2, 0]
    report = coefficients_report(network, images, labels, order=2, rates=[Fraction(1, 10**6)])
    mean = mean_coefficients(network, images, labels, order=2)
    assert report.answer["counts"] == [str(a) for a in mean.counts] and not report.is_partial
    assert report.answer["at"][0]["accuracy"]["upper"] == str(1 - mean.probability("1e-6").lower)
    assert "at every rate up to p" in report.text[-1]
