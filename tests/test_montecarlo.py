"""Sampling: calibrated against exact probabilities, seeded, and honestly labelled."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability
from bnnverify.results import Kind
from tests import oracle, strategies


def network(negated=False, seed=0):
    rng = np.random.default_rng(seed)
    first = DenseBlock.create(
        rng.choice([-1, 1], (5, 8)),
        rng.integers(-2, 3, 5),
        mask=rng.random((5, 8)) < 0.8,
        negated=np.array([negated] * 5),
    )
    second = DenseBlock.create(rng.choice([-1, 1], (4, 5)), rng.integers(-2, 3, 4))
    output = OutputBlock.create(rng.choice([-1, 1], (3, 4)), scale=[1, 2, -1], bias=[0, 1, 0])
    return BinaryNetwork(InputDomain.binary(8), (first, second), output)


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize(
    "faults",
    [
        BitFlip("0.05"),
        AsymmetricFlip("0.2", "0.01"),
        StuckAt("0.01", "0.1"),
        PerBlock((BitFlip("0.3"), BitFlip("0"), AsymmetricFlip("1", "0"))),
    ],
)
def test_sampled_intervals_cover_the_exact_probability(faults, negated):
    net = network(negated)
    images = np.random.default_rng(3).choice([-1, 1], (4, 8))
    sampled = sample_errors(net, images, [0, 1, 2, 0], faults, samples=20_000, seed=5, confidence=0.9999)
    for i, (x, label) in enumerate(zip(images, [0, 1, 2, 0], strict=True)):
        answer = sampled.image(i)
        assert answer.kind is Kind.SAMPLED
        assert answer.lower <= exact_error_probability(net, x, label, faults) <= answer.upper


def test_integer_inputs_are_sampled_too():
    block = DenseBlock.create([[1, -1, 1], [1, 1, -1]], [3, -2])
    net = BinaryNetwork(InputDomain.integers([0] * 3, [16] * 3), (block,), OutputBlock.create([[1, 1], [-1, 1]]))
    answer = sample_errors(net, [[3, 0, 16]], [1], BitFlip("0.2"), samples=20_000, confidence=0.9999).image(0)
    assert answer.lower <= exact_error_probability(net, [3, 0, 16], 1, BitFlip("0.2")) <= answer.upper


def test_hits_scatter_as_the_binomial_law_says():
    net = network()
    x = np.ones((2000, 8), dtype=int)
    hits = np.array(sample_errors(net, x, [0] * 2000, BitFlip("0.1"), samples=500, seed=1).hits)
    p = float(exact_error_probability(net, x[0], 0, BitFlip("0.1")))
    z = (hits - 500 * p) / np.sqrt(500 * p * (1 - p))
    assert abs(z.mean()) < 4 / np.sqrt(2000)
    assert 0.85 < z.var() < 1.15


def test_rates_0_and_1_are_the_deterministic_networks():
    net = network()
    x = np.random.default_rng(0).choice([-1, 1], (50, 8))
    clean = net.evaluate_batch(x)
    assert sum(sample_errors(net, x, clean, BitFlip(0), samples=3).hits) == 0
    exact = [exact_error_probability(net, v, int(c), BitFlip(1)) for v, c in zip(x, clean, strict=True)]
    assert [Fraction(h, 3) for h in sample_errors(net, x, clean, BitFlip(1), samples=3).hits] == exact


def test_equal_seeds_give_equal_samples_and_others_do_not():
    net, x = network(), np.ones((20, 8), dtype=int)
    first, again, other = (sample_errors(net, x, [0] * 20, BitFlip("0.2"), samples=100, seed=s) for s in (1, 1, 2))
    assert first.hits == again.hits != other.hits


def test_bad_arguments_and_time_limits_are_named():
    net, x = network(), np.ones((2, 8), dtype=int)
    with pytest.raises(QueryError, match="samples is 0, expected at least 1"):
        sample_errors(net, x, [0, 0], BitFlip("0.1"), samples=0)
    with pytest.raises(QueryError, match="2 images came with 1 labels"):
        sample_errors(net, x, [0], BitFlip("0.1"))
    with pytest.raises(QueryError, match="class 9 does not exist, expected 0 to 2"):
        sample_errors(net, x, [0, 9], BitFlip("0.1"))
    with pytest.raises(QueryError, match="seed is -1, expected at least 0"):
        sample_errors(net, x, [0, 0], BitFlip("0.1"), seed=-1)
    with pytest.raises(ResourceLimitError, match="before every image had its first chips"):
        sample_errors(net, x, [0, 0], BitFlip("0.1"), seconds=1e-9)


def test_a_time_limit_keeps_whole_rounds_over_all_images():
    net, x = network(), np.ones((3, 8), dtype=int)
    rounds = []
    partial = sample_errors(net, x, [0] * 3, BitFlip("0.1"), samples=10**9, seconds=0.2, progress=rounds.append)
    assert partial.samples == sum(rounds) < 10**9
    assert f"{partial.samples} of 1000000000 chips for each image" in partial.run.reason
    assert partial.hits == sample_errors(net, x, [0] * 3, BitFlip("0.1"), samples=partial.samples).hits


def test_integer_inputs_without_a_hidden_block_are_refused_not_misread():
    net = BinaryNetwork(InputDomain.integers([-100] * 3, [100] * 3), (), OutputBlock.create([[1, 1, 1], [-1, -1, 1]]))
    with pytest.raises(UnsupportedError, match="integer inputs and no hidden block"):
        sample_errors(net, [[90, 80, 70]], [0], BitFlip("0.1"))


def test_rates_that_float64_cannot_hold_never_hit():
    net, x = network(), np.ones((1, 8), dtype=int)
    tiny = BitFlip(Fraction(1, 10**500))
    assert sample_errors(net, x, [net.evaluate(x[0])], tiny, samples=50).hits == (0,)


def test_clopper_pearson_refuses_impossible_numbers():
    with pytest.raises(QueryError, match="5 hits in 4 samples"):
        clopper_pearson(5, 4)
    with pytest.raises(QueryError, match="confidence is 1, expected a level within"):
        clopper_pearson(1, 4, confidence=1)


@settings(max_examples=200)
@given(strategies.conv_networks(), st.data())
def test_certain_flips_of_shared_cells_are_wrong_at_every_position(network, data):
    sure = st.sampled_from([0, 1])
    faults = PerBlock(tuple(AsymmetricFlip(data.draw(sure), data.draw(sure)) for _ in network.all_blocks))
    x = data.draw(strategies.inputs(network.n_inputs))
    flips = [c for c in oracle.cells(network) if (faults.rates(c[0]).plus if c[3] == 1 else faults.rates(c[0]).minus)]
    predicted = oracle.predicted(network, x, oracle.flipped_weights(network, flips))
    for label in range(network.n_classes):
        assert sample_errors(network, [x], [label], faults, samples=3).hits == ((label != predicted) * 3,)


@settings(max_examples=100)
@given(st.data())
def test_certain_flips_in_a_first_block_on_integers_are_wrong_at_every_position(data):
    shape = data.draw(strategies.image_shapes(8))
    n = int(np.prod(shape))
    dense = data.draw(st.booleans())
    first = data.draw(strategies.dense_blocks(n, n, masked=True) if dense else strategies.conv_blocks(shape))
    blocks = (first,)
    if dense or data.draw(st.booleans()):
        blocks += (data.draw(strategies.conv_blocks(shape if dense else first.output_shape)),)
    output = data.draw(strategies.output_blocks(blocks[-1].n_outputs, 3))
    network = BinaryNetwork(InputDomain.integers([-3] * n, [5] * n), blocks, output)
    sure = st.sampled_from([0, 1])
    faults = PerBlock(tuple(AsymmetricFlip(data.draw(sure), data.draw(sure)) for _ in network.all_blocks))
    x = data.draw(st.lists(st.integers(-3, 5), min_size=n, max_size=n))
    flips = [c for c in oracle.cells(network) if (faults.rates(c[0]).plus if c[3] == 1 else faults.rates(c[0]).minus)]
    predicted = oracle.predicted(network, x, oracle.flipped_weights(network, flips))
    assert sample_errors(network, [x], [predicted], faults, samples=3).hits == (0,)


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_sampled_intervals_of_a_convolution_cover_the_exact_probability(pad_value):
    first = ConvBlock.create(
        [[[[1, -1]], [[-1, 1]]], [[[1, 1]], [[-1, -1]]]],
        [1, -1],
        input_shape=(2, 1, 3),
        padding=(0, 1),
        pad_value=pad_value,
        pool=(1, 2),
        negated=np.array([False, True]),
        conjunction=np.array([True, False]),
    )
    net = BinaryNetwork(InputDomain.binary(6), (first,), OutputBlock.create([[1, 1, -1, 1], [-1, 1, 1, -1]]))
    faults, x = AsymmetricFlip("0.1", "0.3"), [1, -1, -1, 1, 1, -1]
    assert len(oracle.cells(net)) == 16 == net.n_cells
    answer = sample_errors(net, [x], [0], faults, samples=40_000, seed=2, confidence=0.9999).image(0)
    assert answer.lower <= exact_by_patterns(net, x, 0, faults) <= answer.upper
    assert 0.05 < float(answer.lower) < 0.95


def exact_by_patterns(net, x, label, faults):
    """P(error) over the patterns of the first block's cells, times those of the scores given its signs."""
    found = Fraction(0)
    hidden = [c for c in oracle.cells(net) if c[0] == 0]
    by_signs = {}
    for pattern in range(2 ** len(hidden)):
        weight, flips = Fraction(1), []
        for i, cell in enumerate(hidden):
            p = faults.rates(0).plus if cell[3] == 1 else faults.rates(0).minus
            weight *= p if pattern >> i & 1 else 1 - p
            flips += [cell] if pattern >> i & 1 else []
        signs = tuple(oracle.hidden_layers(net, x, oracle.flipped_weights(net, flips))[-1])
        by_signs[signs] = by_signs.get(signs, 0) + weight
    tail = BinaryNetwork(InputDomain.binary(net.output.n_inputs), (), net.output)
    for signs, weight in by_signs.items():
        found += weight * exact_error_probability(tail, signs, label, faults)
    return found


def test_equal_seeds_give_equal_samples_of_a_convolution():
    rng = np.random.default_rng(0)
    block = ConvBlock.create(rng.choice([-1, 1], (3, 1, 3, 3)), [0, 1, -1], input_shape=(1, 4, 4), padding=1, pool=2)
    net = BinaryNetwork(InputDomain.binary(16), (block,), OutputBlock.create(rng.choice([-1, 1], (3, 12))))
    x = rng.choice([-1, 1], (20, 16))
    first, again, other = (sample_errors(net, x, [0] * 20, BitFlip("0.2"), samples=100, seed=s) for s in (1, 1, 2))
    assert first.hits == again.hits != other.hits
