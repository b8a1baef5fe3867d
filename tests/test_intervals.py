"""Interval bounds: attained in the first block, sound beyond it, and never a wrong proof."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.convolution import ConvBlock
from bnnverify.deciding.intervals import Propagation, difference_rows, excesses, interval_bounds, refutes
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, PixelBox, RealBox
from tests import oracle
from tests.strategies import conv_networks, networks, pixel_queries, queries

questions = st.one_of(
    queries(networks, max_inputs=6),
    queries(conv_networks, max_inputs=8),
    pixel_queries(networks, max_inputs=5),
    pixel_queries(conv_networks, max_inputs=8),
)


def sums_of(block, x):
    return block.preactivations(np.array(x, dtype=np.int64))


@given(questions)
@settings(max_examples=150, deadline=None)
def test_bounds_contain_what_every_input_gives_and_the_first_block_attains_them(query):
    network = query.network
    bounds = interval_bounds(network, query.region)
    least, most = [None] * len(network.blocks), [None] * len(network.blocks)
    for x in query.region.points():
        layers = [list(x), *oracle.hidden_layers(network, x)]
        for b, (block, limits) in enumerate(zip(network.blocks, bounds.blocks, strict=True)):
            sums = sums_of(block, layers[b])
            assert (limits.low <= sums).all() and (sums <= limits.high).all()
            settled = limits.signs != 0
            assert (limits.signs[settled] == np.array(layers[b + 1])[settled]).all()
            least[b] = sums if least[b] is None else np.minimum(least[b], sums)
            most[b] = sums if most[b] is None else np.maximum(most[b], sums)
    if network.blocks:
        assert (least[0] == bounds.blocks[0].low).all() and (most[0] == bounds.blocks[0].high).all()


@given(questions)
@settings(max_examples=150, deadline=None)
def test_differences_of_scores_are_bounded_in_units_of_the_integer_form(query):
    output = query.network.output
    scales, biases = output.integer_form()
    unit = next(
        (Fraction(a) / q for a, q in zip((*scales, *biases), (*output.scale, *output.bias), strict=True) if q), 1
    )
    bounds = interval_bounds(query.network, query.region)
    seen = {k: [] for k in range(query.network.n_classes)}
    for x in query.region.points():
        scores = oracle.scores(query.network, x)
        for k, (low, high) in enumerate(bounds.differences(0)):
            seen[k].append((scores[k] - scores[0]) * unit)
            assert low <= seen[k][-1] <= high
    if not query.network.blocks:
        assert bounds.differences(0) == tuple((min(v), max(v)) for v in seen.values())


@given(questions)
@settings(max_examples=150, deadline=None)
def test_a_proof_by_intervals_is_never_wrong(query):
    excess = excesses(query, interval_bounds(query.network, query.region))
    if refutes(query, excess):
        assert not any(oracle.is_adversarial(query, x) for x in query.region.points())


@given(pixel_queries(conv_networks, max_inputs=8), st.data())
@settings(max_examples=100, deadline=None)
def test_a_real_box_fires_only_where_every_real_threshold_would(query, data):
    """The corners decide: a neuron fires if all of them reach T, and does not if none gets beyond T - 1."""
    network, grid = query.network, query.region
    if not network.blocks:
        return
    parts = st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(1, 2), Fraction(5, 6)])
    inner = [data.draw(parts) if a < b else Fraction(0) for a, b in zip(grid.lower, grid.upper, strict=True)]
    box = RealBox(tuple(a + v for a, v in zip(grid.lower, inner, strict=True)), grid.upper)
    block, limits = network.blocks[0], interval_bounds(network, box).blocks[0]
    rows = block.unrolled()[0].weights if isinstance(block, ConvBlock) else block.weights
    constant = 0
    if isinstance(block, ConvBlock):
        height, width = (p // w * w for p, w in zip(block.positions, block.pool, strict=True))
        constant = (block.pad_value * block.padded_sums())[:, :height, :width].reshape(-1)
        low, high = limits.low[:, :height, :width].reshape(-1), limits.high[:, :height, :width].reshape(-1)
    else:
        low, high = limits.low, limits.high
    for j, row in enumerate(rows.tolist()):
        extra = int(constant[j]) if isinstance(block, ConvBlock) else 0
        ends = [(w * a, w * b) for w, a, b in zip(row, box.lower, box.upper, strict=True)]
        least, most = extra + sum(min(e) for e in ends), extra + sum(max(e) for e in ends)
        assert low[j] <= least < low[j] + 1 and high[j] - 1 < most <= high[j]


def test_a_box_of_whole_numbers_is_the_same_as_its_grid():
    block = DenseBlock.create([[1, -1, 1], [1, 1, 1]], [2, 3])
    domain = InputDomain.integers([0] * 3, [9] * 3)
    network = BinaryNetwork(domain, (block,), OutputBlock.create([[1, 1], [-1, 1]]))
    grid = PixelBox((1, 2, 3), (2, 2, 5))
    real = RealBox(grid.lower, grid.upper)
    for a, b in zip(interval_bounds(network, grid).blocks, interval_bounds(network, real).blocks, strict=True):
        assert (a.low == b.low).all() and (a.high == b.high).all() and (a.signs == b.signs).all()


def test_propagation_goes_on_from_given_outputs():
    random = np.random.default_rng(0)
    first = DenseBlock.create(random.choice([-1, 1], (6, 5)), [0] * 6)
    second = DenseBlock.create(random.choice([-1, 1], (4, 6)), [0] * 4)
    network = BinaryNetwork(InputDomain.binary(5), (first, second), OutputBlock.create(random.choice([-1, 1], (3, 4))))
    signs = np.array([1, -1, 0, 0, 1, 1], dtype=np.int8)
    (bounds,) = Propagation(network).beyond(0, signs)
    ends = [second.preactivations(np.array([1, -1, a, b, 1, 1])) for a in (-1, 1) for b in (-1, 1)]
    assert (bounds.low == np.min(ends, axis=0)).all() and (bounds.high == np.max(ends, axis=0)).all()
    assert Propagation(network).beyond(1, np.ones(4, dtype=np.int8)) == ()


def test_scores_of_any_size_stay_exact():
    output = OutputBlock.create([[1, 1], [1, -1]], scale=[2**70, 1], bias=[0, Fraction(1, 3)])
    network = BinaryNetwork(InputDomain.binary(2), (), output)
    rows, offsets = difference_rows(output, 0)
    assert rows.dtype == object and rows[1].tolist() == [3 - 3 * 2**70, -3 - 3 * 2**70] and offsets == (0, 1)
    (_, (low, high)) = interval_bounds(network, HammingBall((1, 1), 1)).differences(0)
    assert (low, high) == (1 - 6 * 2**70, 7)


@pytest.mark.parametrize("scale", [2, -3, 0])
def test_a_common_scale_of_any_sign_gives_ordered_differences(scale):
    hidden = DenseBlock.create([[1, 1], [1, -1]], [1, 0])
    output = OutputBlock.create([[1, 1], [1, -1]], scale=scale, bias=[0, 1])
    network = BinaryNetwork(InputDomain.binary(2), (hidden,), output)
    (_, (low, high)) = interval_bounds(network, HammingBall((1, 1), 2)).differences(0)
    sums = [scale * ((a - b) - (a + b)) + 1 for a in (-1, 1) for b in (-1, 1)]
    assert (low, high) == (min(sums), max(sums))


def test_a_tie_at_the_bound_is_refuted_only_where_the_comparison_is_strict():
    network = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [1, 1]]))
    for ties, proved in ((Ties.LOWEST_INDEX, True), (Ties.COUNTEREXAMPLE, False), (Ties.ROBUST, True)):
        query = Query(network, HammingBall((1, 1), 1), Untargeted(0), ties)
        assert refutes(query, excesses(query, interval_bounds(network, query.region))) is proved


def test_a_region_of_another_size_is_refused():
    network = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [1, 1]]))
    with pytest.raises(QueryError, match="the region has 3 inputs, but the network takes 2"):
        interval_bounds(network, HammingBall((1, 1, 1), 1))


def test_denominators_that_do_not_fit_are_a_limit_and_not_a_wrong_sum():
    block = DenseBlock.create([[1, 1]], [0])
    network = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (block,), OutputBlock.create([[1], [-1]]))
    box = RealBox((Fraction(1, 3**30), Fraction(0)), (Fraction(1), Fraction(1, 2**30)))
    with pytest.raises(ResourceLimitError, match="denominators too large"):
        interval_bounds(network, box)
