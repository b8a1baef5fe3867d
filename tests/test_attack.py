"""The attack: exact sums in batches, exact margins, points within the region, and answers that are replayed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.deciding.attack import attack
from bnnverify.deciding.moves import moves_of
from bnnverify.deciding.relaxation import BatchForward
from bnnverify.engines.base import Limits, Monitor
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, RealBox
from tests import oracle
from tests.strategies import conv_networks, networks, pixel_queries, queries


def margin_by_definition(query, x):
    """By how much x meets the property, in the integers that order the scores."""
    a, b = query.network.output.integer_form()
    layers = oracle.hidden_layers(query.network, x)
    h = layers[-1] if layers else list(x)
    rows = query.network.output.weights.tolist()
    scores = [p * sum(w * v for w, v in zip(row, h, strict=True)) + q for p, q, row in zip(a, b, rows, strict=True)]
    comparisons, conjunctive = query.score_conditions()
    values = [scores[i] - scores[j] - strict for i, j, strict in comparisons]
    return min(values) if conjunctive else max(values)


def check(query, found):
    if found.counterexample is not None:
        assert oracle.is_adversarial(query, found.counterexample) and query.region.contains(found.counterexample)
        assert found.predicted == oracle.predicted(query.network, found.counterexample)
    assert query.region.contains(found.nearest)
    assert found.margin == margin_by_definition(query, found.nearest)
    assert (found.margin >= 0) == (found.counterexample is not None)


@settings(max_examples=60)
@given(queries())
def test_over_signs_what_is_found_is_adversarial_and_margins_are_exact(query):
    check(query, attack(query, rounds=4))


@settings(max_examples=60)
@given(pixel_queries())
def test_over_pixels_what_is_found_is_adversarial_and_margins_are_exact(query):
    check(query, attack(query, rounds=4))


@settings(max_examples=60)
@given(st.one_of(networks(), conv_networks()), st.integers(0, 2**32 - 1))
def test_a_batch_has_the_sums_and_signs_of_the_definition(network, seed):
    points = np.random.default_rng(seed).choice([-1, 1], (3, network.n_inputs))
    done = BatchForward(network).run(points)
    for row, x in enumerate(points.tolist()):
        layers = oracle.hidden_layers(network, x)
        for margins, signs in zip(done.margins, layers, strict=True):
            assert np.where(margins[row] > 0, 1, -1).tolist() == signs
        h = layers[-1] if layers else x
        assert done.sums[row].tolist() == (network.output.weights.astype(int) @ h).tolist()


def test_slopes_of_a_network_without_hidden_blocks_are_its_weights():
    weights = np.array([[1, -1, 1], [-1, -1, 1]])
    network = BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create(weights))
    forward = BatchForward(network)
    direction = np.array([[1, 0], [0, 2]], dtype=np.float32)
    slopes = forward.slopes(forward.run(np.ones((2, 3))), direction, np.ones((0, 2), dtype=np.float32))
    assert slopes.tolist() == [[1, -1, 1], [-2, -2, 2]]


def test_slopes_through_a_convolution_reach_the_inputs_that_each_position_reads():
    kernel = np.array([[[[1, -1], [1, 1]]]])
    block = ConvBlock.create(kernel, [0], input_shape=(1, 3, 4), stride=(1, 2), padding=(1, 0))
    network = BinaryNetwork(InputDomain.binary(12), (block,), OutputBlock.create(np.ones((2, 8))))
    forward = BatchForward(network)
    x = np.ones((1, 12))
    done = forward.run(x)
    base = forward.slopes(done, np.array([[1, 0]], dtype=np.float32), np.full((1, 1), 1e9, dtype=np.float32))
    for i in range(12):  # with wide steps the slope of an input is the sum of the weights that read it
        moved = x.copy()
        moved[0, i] = 3
        assert base[0, i] == pytest.approx((block.preactivations(moved) - block.preactivations(x)).sum() / 2)


def test_the_slope_of_a_pooled_window_goes_to_the_position_that_decides():
    block = ConvBlock.create([[[[1]]]], [2], input_shape=(1, 2, 2), pool=2)
    network = BinaryNetwork(InputDomain.integers([0] * 4, [9] * 4), (block,), OutputBlock.create([[1], [-1]]))
    forward = BatchForward(network)
    done = forward.run(np.array([[0, 5, 1, 3]]))
    slopes = forward.slopes(done, np.array([[1, 0]], dtype=np.float32), np.ones((1, 1), dtype=np.float32))
    assert (slopes != 0).tolist() == [[False, True, False, False]]


@settings(max_examples=40)
@given(st.one_of(pixel_queries(), queries()), st.integers(0, 2**32 - 1))
def test_all_moves_stay_in_the_region(query, seed):
    rng = np.random.default_rng(seed)
    moves = moves_of(query)
    points = np.concatenate([moves.first(), moves.random(5, rng)])
    slopes = rng.normal(size=points.shape).astype(np.float32)
    length = rng.choice(np.array([1, 0.25], dtype=np.float32), len(points))
    for _ in range(3):
        points = moves.step(points, slopes, length)
        points = moves.mutate(points, -slopes, np.full(len(points), 2.0), rng)
        assert all(query.region.contains(x) for x in points.tolist())


def hidden_needle():
    """Robust but for few inputs: the class changes only where at least 11 of 12 signs agree with a pattern."""
    pattern = np.array([1, -1] * 6)
    block = DenseBlock.create(np.stack([pattern, pattern]), [10, 10])
    network = BinaryNetwork(InputDomain.binary(12), (block,), OutputBlock.create([[-1, -1], [1, 1]]))
    return network, pattern


def test_a_narrow_way_out_is_found_by_following_slopes():
    network, pattern = hidden_needle()
    start = pattern * np.array([-1] * 6 + [1] * 6)
    found = attack(Query(network, HammingBall(start, 6), Untargeted(0)), rounds=30)
    assert found.predicted == 1
    assert attack(Query(network, HammingBall(start, 4), Untargeted(0)), rounds=30).margin < 0
    fixed = FixedIndexRegion(tuple(start.tolist()), tuple(range(6)))
    assert attack(Query(network, fixed, Targeted(1)), rounds=30).predicted == 1


def test_the_same_seed_finds_the_same_input():
    network, pattern = hidden_needle()
    query = Query(network, HammingBall(-pattern, 12), Untargeted(0))
    one, other = (attack(query, seed=3, rounds=6) for _ in range(2))
    assert one.nearest == other.nearest and one.margin == other.margin


def test_a_real_box_is_searched_on_its_integers_and_may_have_none():
    block = DenseBlock.create([[1, 1]], [7])
    network = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (block,), OutputBlock.create([[-1], [1]]))
    found = attack(Query(network, RealBox((0.5, 0.5), (4.5, 3.5)), Untargeted(0)), rounds=20)
    assert found.counterexample == (4, 3)
    empty = attack(Query(network, RealBox((0.2, 0.2), (0.8, 5)), Untargeted(0)))
    assert empty.counterexample is None and empty.margin is None
    assert empty.run.reason == "the region holds no integer input"


def test_a_stopped_attack_says_why():
    network, pattern = hidden_needle()
    query = Query(network, HammingBall(-pattern, 2), Untargeted(0))
    assert attack(query, monitor=Monitor(stop=True)).run.reason == "interrupted"
    assert "time limit" in attack(query, limits=Limits(seconds=0.01)).run.reason
    assert "no counterexample met" in attack(query, rounds=2).run.reason


def test_scores_beyond_int64_are_compared_exactly():
    block = DenseBlock.create([[1, 1], [1, -1]], [0, 0])
    output = OutputBlock.create([[1, 1], [1, 1]], scale=[2**60, 2**60], bias=[1e-300, 0])
    network = BinaryNetwork(InputDomain.binary(2), (block,), output)
    query = Query(network, HammingBall((1, 1), 2), Untargeted(0), Ties.ROBUST)
    check(query, attack(query, rounds=2))
