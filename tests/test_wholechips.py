"""Whole chips: every chip can be rebuilt from its seed, and then errs exactly where it was counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.confidence import clopper_pearson
from bnnverify.engines.base import Monitor
from bnnverify.engines.chipsampling import sample_chips
from bnnverify.engines.flips import chip_seeds, faulty_network
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.faults import AsymmetricFlip, BitFlip, CellTable, PerBlock, PerCell, PerRead, StuckAt
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability
from bnnverify.results import Kind
from tests import oracle, strategies

rates = st.sampled_from(["0", "0.02", "0.3", "1"])
symmetric = st.builds(BitFlip, rates)
models = symmetric | st.builds(AsymmetricFlip, rates, rates) | st.builds(StuckAt, st.just("0.3"), st.just("0.1"))


@st.composite
def integer_networks(draw):
    n = draw(st.integers(1, 6))
    blocks = [draw(strategies.dense_blocks(n, 4, masked=True))]
    if draw(st.booleans()):
        blocks.append(draw(strategies.dense_blocks(4, 3)))
    output = draw(strategies.output_blocks(blocks[-1].n_outputs, 3))
    return BinaryNetwork(InputDomain.integers([-3] * n, [5] * n), tuple(blocks), output)


def points_of(network, count, seed=0):
    rng = np.random.default_rng(seed)
    if network.domain.is_binary:
        return rng.choice([-1, 1], (count, network.n_inputs))
    return rng.integers(-3, 6, (count, network.n_inputs))


def rebuilt(network, faults, sampled, images):
    """Classes on every chip, by the definition."""
    for chip in range(sampled.chips):
        held = faulty_network(network, faults, sampled.chip_seed(chip))
        yield [oracle.predicted(held, x) for x in images]


def check_every_chip(network, faults, images, labels, **options):
    sampled = sample_chips(network, images, labels, faults, **options)
    wrong = np.array([np.array(row) != labels for row in rebuilt(network, faults, sampled, images.tolist())])
    assert sampled.correct == tuple((~wrong).sum(axis=1).tolist())
    assert sampled.errors == tuple(wrong.sum(axis=0).tolist())


@settings(max_examples=150, deadline=None)
@given(strategies.networks() | strategies.networks(max_inputs=40, max_width=40) | integer_networks(), models, st.data())
def test_every_chip_errs_exactly_where_the_rebuilt_network_does(network, faults, data):
    images = points_of(network, data.draw(st.sampled_from([1, 7])))
    labels = data.draw(st.lists(st.integers(0, network.n_classes - 1), min_size=len(images), max_size=len(images)))
    check_every_chip(network, faults, images, labels, chips=4, seed=data.draw(st.integers(0, 5)))


@settings(max_examples=25, deadline=None)
@given(strategies.conv_networks(), models, st.integers(0, 5))
def test_chips_with_convolutions_err_exactly_where_the_rebuilt_network_does(network, faults, seed):
    images = points_of(network, 3)
    check_every_chip(network, faults, images, [0, 1, 0], chips=3, seed=seed)


def test_integer_images_of_a_convolution_err_where_the_rebuilt_network_does():
    rng = np.random.default_rng(3)
    block = ConvBlock.create(rng.choice([-1, 1], (3, 1, 2, 2)), [0, 2, -1], input_shape=(1, 3, 3), padding=1, pool=2)
    network = BinaryNetwork(InputDomain.integers([-3] * 9, [5] * 9), (block,), tail(12))
    check_every_chip(network, BitFlip("0.1"), points_of(network, 5), [0, 1, 2, 0, 1], chips=40)


def tail(width, seed=4, **features):
    return OutputBlock.create(np.random.default_rng(seed).choice([-1, 1], (3, width)), **features)


def wide(n=130, seed=1, **features):
    """Several words of inputs and neurons, as in a network of practice."""
    rng = np.random.default_rng(seed)
    first = DenseBlock.create(rng.choice([-1, 1], (70, n)), rng.integers(-9, 10, 70))
    second = DenseBlock.create(rng.choice([-1, 1], (65, 70)), rng.integers(-5, 6, 65))
    return BinaryNetwork(InputDomain.binary(n), (first, second), tail(65, **features))


@pytest.mark.parametrize(
    "features",
    [
        {"scale": 0.5, "bias": [0.25, -3, 1.125]},
        {"scale": -2, "bias": [1, 0, 5]},
        {"scale": [1, 2, -1], "bias": [0.5, 0, 40]},
        {"scale": 1e-9, "bias": [1, 0, 0]},
    ],
)
@pytest.mark.parametrize("p", ["0", "0.01", "0.5", "1"])
def test_many_images_and_every_kind_of_scale_agree_with_the_exact_network(features, p):
    network, faults = wide(**features), BitFlip(p)
    images = points_of(network, 1100)
    labels = network.evaluate_batch(images)
    sampled = sample_chips(network, images, labels, faults, chips=3, seed=2)
    for chip, correct in enumerate(sampled.correct):
        classes = faulty_network(network, faults, sampled.chip_seed(chip)).evaluate_batch(images)
        assert correct == np.count_nonzero(classes == labels)
    if p == "0":
        assert sampled.correct == (1100,) * 3 and sampled.errors == (0,) * 1100


def test_rates_per_cell_and_per_block_flip_only_the_cells_they_name():
    network = wide()
    table = np.zeros((70, 130))
    table[5, 9], table[69, 129] = 1, 0.5
    faults = PerCell((CellTable.create(table), BitFlip(0), AsymmetricFlip("0.2", "0")))
    seen = set()
    for seed in chip_seeds(0, 0, 30):
        held = faulty_network(network, faults, seed)
        changed = held.blocks[0].weights != network.blocks[0].weights
        assert changed[5, 9] and changed.sum() - changed[69, 129] == 1
        seen.add(bool(changed[69, 129]))
        assert (held.blocks[1].weights == network.blocks[1].weights).all()
        turned = held.output.weights != network.output.weights
        assert turned.any() and (network.output.weights[turned] == -1).all()
    assert seen == {True, False}
    check_every_chip(network, faults, points_of(network, 5), [0, 1, 2, 0, 1], chips=3)
    only = PerBlock((BitFlip(0), BitFlip("0.3"), BitFlip(0)))
    check_every_chip(network, only, points_of(network, 5), [0, 1, 2, 0, 1], chips=3)


def test_rates_belong_to_stored_signs():
    first = DenseBlock.create([[1, -1, 1]], [0], negated=np.array([True]))
    network = BinaryNetwork(InputDomain.binary(3), (first,), OutputBlock.create([[1], [-1]]))
    held = faulty_network(network, AsymmetricFlip(p01="1", p10="0"), 0)
    assert held.blocks[0].stored.tolist() == [[1, 1, 1]] and held.blocks[0].weights.tolist() == [[-1, -1, -1]]
    assert held.output.weights.tolist() == [[1], [1]]


def test_threads_and_pauses_change_nothing():
    network, images, labels = wide(), points_of(wide(), 50), [0] * 50
    whole = sample_chips(network, images, labels, BitFlip("0.05"), chips=150, seed=9)
    threads = sample_chips(network, images, labels, BitFlip("0.05"), chips=150, seed=9, jobs=3)
    begun = sample_chips(network, images, labels, BitFlip("0.05"), chips=41, seed=9)
    resumed = sample_chips(network, images, labels, BitFlip("0.05"), chips=150, seed=9, before=begun)
    for other in (threads, resumed):
        assert (other.correct, other.errors, other.accuracy) == (whole.correct, whole.errors, whole.accuracy)
    assert begun.correct == whole.correct[:41]
    assert sample_chips(network, images, labels, BitFlip("0.05"), chips=41, seed=8).correct != begun.correct
    with pytest.raises(QueryError, match="have 50 images and seed 9, expected 50, 8"):
        sample_chips(network, images, labels, BitFlip("0.05"), chips=150, seed=8, before=begun)


@pytest.mark.parametrize("network", [wide(scale=[1, 2, -1]), wide(bias=[0.5, 0, 1])])
def test_torch_gives_the_same_chips(network):
    pytest.importorskip("torch")
    images = points_of(network, 90)
    labels, faults = network.evaluate_batch(images), AsymmetricFlip("0.02", "0.05")
    ours = sample_chips(network, images, labels, faults, chips=20, seed=3)
    theirs = sample_chips(network, images, labels, faults, chips=20, seed=3, device="cpu")
    assert (ours.correct, ours.errors) == (theirs.correct, theirs.errors)


@settings(max_examples=20, deadline=None)
@given(strategies.networks() | integer_networks(), models, st.integers(0, 3))
def test_torch_gives_the_same_chips_of_small_networks(network, faults, seed):
    pytest.importorskip("torch")
    images = points_of(network, 6)
    ours = sample_chips(network, images, [0] * 6, faults, chips=3, seed=seed)
    theirs = sample_chips(network, images, [0] * 6, faults, chips=3, seed=seed, device="cpu")
    assert (ours.correct, ours.errors) == (theirs.correct, theirs.errors)


def test_a_device_that_is_not_there_is_named():
    pytest.importorskip("torch")
    network = wide()
    with pytest.raises(UnsupportedError, match="device is 'nonsense', which torch does not have here"):
        sample_chips(network, points_of(network, 2), [0, 0], BitFlip("0.1"), device="nonsense")
    with pytest.raises(UnsupportedError, match="sampled image by image"):
        sample_chips(network, points_of(network, 2), [0, 0], PerRead(BitFlip("0.1")), device="cpu")


def small():
    rng = np.random.default_rng(0)
    first = DenseBlock.create(rng.choice([-1, 1], (4, 6)), rng.integers(-2, 3, 4))
    return BinaryNetwork(InputDomain.binary(6), (first,), OutputBlock.create(rng.choice([-1, 1], (3, 4))))


def test_frequencies_of_images_cover_the_exact_probabilities():
    network, faults = small(), AsymmetricFlip("0.2", "0.03")
    images = points_of(network, 5)
    sampled = sample_chips(network, images, [0, 1, 2, 0, 1], faults, chips=20_000, confidence=0.9999)
    exact = [exact_error_probability(network, x, c, faults) for x, c in zip(images, [0, 1, 2, 0, 1], strict=True)]
    for i, p in enumerate(exact):
        assert sampled.image(i).kind is Kind.SAMPLED
        assert sampled.image(i).lower <= p <= sampled.image(i).upper
    mean = 1 - sum(exact) / 5
    assert sampled.accuracy.lower <= mean <= sampled.accuracy.upper and sampled.accuracy.width < 0.03
    assert sampled.accuracy.estimate == 1 - sum(sampled.image(i).estimate for i in range(5)) / 5


def test_reads_are_fresh_for_every_image():
    network, faults = small(), BitFlip("0.1")
    images = np.repeat(points_of(network, 1), 400, axis=0)
    label = network.evaluate(images[0])
    exact = float(exact_error_probability(network, images[0], label, faults))
    permanent = sample_chips(network, images, [label] * 400, faults, chips=60)
    assert set(permanent.correct) == {0, 400}  # equal images meet the same chip
    reads = sample_chips(network, images, [label] * 400, PerRead(faults), chips=60)
    spread = np.array(reads.correct) / 400
    assert abs(spread.mean() - (1 - exact)) < 4 * np.sqrt(exact * (1 - exact) / 24_000)
    assert np.ptp(spread) < 0.2
    both = sample_chips(network, images, [label] * 400, PerRead(BitFlip("0.01"), permanent=faults), chips=60)
    assert np.ptp(both.correct) > 200
    surely = sample_chips(network, images, [label] * 400, PerRead(BitFlip(1), permanent=BitFlip(1)), chips=2)
    assert surely.correct == (400, 400)  # flipped twice


def test_positions_of_a_convolution_read_their_cells_anew():
    block = ConvBlock.create([[[[1]]]], [1], input_shape=(1, 1, 2), negated=np.array([True]))
    network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[1, 1], [-1, -1]], bias=[-1, 0]))
    # both signs must stay +1 for class 0: (1 - p)^2 where positions are independent, 1 - p where they share the cell
    faults, x = PerBlock((AsymmetricFlip("0.3", "0"), BitFlip(0))), [[1, 1]]
    permanent = sample_errors(network, x, [0], faults, samples=20_000, confidence=0.9999).image(0)
    fresh = sample_errors(network, x, [0], PerRead(faults), samples=20_000, confidence=0.9999).image(0)
    assert permanent.lower < 0.3 < permanent.upper < 0.51 < fresh.upper and fresh.lower < 0.51
    padded = ConvBlock.create([[[[1]]]], [1], input_shape=(1, 1, 2), padding=(0, 1), pad_value=1)
    network = BinaryNetwork(InputDomain.binary(2), (padded,), OutputBlock.create([[1] * 4, [-1] * 4]))
    with pytest.raises(UnsupportedError, match=r"blocks\[0\] is padded with the sign \+1"):
        sample_errors(network, x, [0], PerRead(faults))
    with pytest.raises(UnsupportedError, match="Sample whole chips"):
        sample_errors(network, x, [0], PerRead(faults, permanent=BitFlip("0.1")))


def test_yield_counts_chips_that_reach_the_accuracy():
    network, images = wide(), points_of(wide(), 40)
    labels = network.evaluate_batch(images)
    sampled = sample_chips(network, images, labels, BitFlip("0.02"), chips=100)
    for threshold in ("0", "0.8", "1"):
        good = sum(c >= float(threshold) * 40 for c in sampled.correct)
        assert sampled.yield_at(threshold) == clopper_pearson(good, 100)


def test_limits_and_stops_keep_the_first_chips():
    network, images = wide(), points_of(wide(), 40)
    with pytest.raises(ResourceLimitError, match="before the first chips"):
        sample_chips(network, images, [0] * 40, BitFlip("0.1"), seconds=1e-9)
    monitor, drawn = Monitor(), []

    def stop(count):
        drawn.append(count)
        monitor.stop = len(drawn) == 2

    part = sample_chips(network, images, [0] * 40, BitFlip("0.1"), chips=10**6, monitor=monitor, progress=stop)
    assert part.chips == sum(drawn) == 64 and part.run.reason == "interrupted; 64 of 1000000 chips"
    assert part.correct == sample_chips(network, images, [0] * 40, BitFlip("0.1"), chips=64).correct


def test_bad_arguments_are_named():
    network, images = wide(), points_of(wide(), 2)
    with pytest.raises(QueryError, match="jobs is 0, expected at least 1"):
        sample_chips(network, images, [0, 0], BitFlip("0.1"), jobs=0)
    with pytest.raises(QueryError, match="samples is 0, expected at least 1"):
        sample_chips(network, images, [0, 0], BitFlip("0.1"), chips=0)
    with pytest.raises(QueryError, match="chip 5 was not drawn, expected 0 to 1"):
        sample_chips(network, images, [0, 0], BitFlip("0.1"), chips=2).chip_seed(5)
    with pytest.raises(UnsupportedError, match="no chip to rebuild"):
        faulty_network(network, PerRead(BitFlip("0.1")), 0)
