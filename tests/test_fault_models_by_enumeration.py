"""Every fault model x every kind of block x every way to ask, against enumeration of all states in plain loops."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.engines.chipsampling import sample_chips
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.errors import UnsupportedError
from bnnverify.faults import (
    AsymmetricFlip,
    BitFlip,
    CellTable,
    PerBlock,
    PerCell,
    PerRead,
    StuckAt,
    in_series,
    write_verified,
)
from bnnverify.network import BinaryNetwork, ConvBlock, InputDomain, OutputBlock
from bnnverify.reliability import (
    error_probability,
    exact_error_probability,
    expected_accuracy,
    fault_coefficients,
    stream_errors,
)
from tests import faultoracle, strategies
from tests.faultoracle import Causes

SURE = 1 - 1e-9  # of sampled intervals: every one must contain the truth
some_rates = st.sampled_from(["0", "1e-3", "0.1", "1/3", "1/2", "0.9", "1"])


@st.composite
def sign_models(draw, stuck=True):
    a, b = draw(st.sampled_from([("0", "1/3"), ("1/10", "0"), ("0", "0"), None])) or (
        draw(some_rates),
        draw(some_rates),
    )
    kinds = [BitFlip(b), AsymmetricFlip(a, b)] + [StuckAt(Fraction(a) / 2, Fraction(b) / 2)] * stuck
    return draw(st.sampled_from(kinds))


@st.composite
def models(draw, network, stuck=True):
    """Permanent or of one read: by sign, by block, in one block only, by cell; also what rewrites leave of it."""
    shapes = [block.stored.reshape(len(block.stored), -1).shape for block in network.all_blocks]
    kind = draw(st.sampled_from(["sign", "block", "only", "cell"]))
    if kind == "sign":
        model = draw(sign_models(stuck))
    elif kind == "block":
        model = PerBlock(tuple(draw(sign_models(stuck)) for _ in shapes))
    elif kind == "only":
        model = PerBlock.only(draw(sign_models(stuck)), draw(st.integers(0, len(shapes) - 1)), of=len(shapes))
    else:
        parts = []
        for rows, columns in shapes:
            table = st.lists(st.lists(some_rates, min_size=columns, max_size=columns), min_size=rows, max_size=rows)
            tables = st.builds(CellTable.create, table, table)
            parts.append(draw(st.one_of(sign_models(stuck), tables)))
        model = PerCell(tuple(parts))
    return write_verified(model, 1) if not stuck and draw(st.integers(0, 3)) == 0 else model


@st.composite
def faults(draw, network):
    """(the package's model, the same as causes)."""
    kind = draw(st.sampled_from(["permanent", "series", "reads", "both", "both", "series of both"]))
    if kind == "permanent":
        model = draw(models(network))
        return model, Causes((model,))
    if kind == "series":
        parts = [draw(models(network)) for _ in range(draw(st.integers(1, 3)))]
        return in_series(*parts), Causes(parts)
    if kind == "reads":
        model = draw(models(network))
        return PerRead(model), Causes((), (model,))
    if kind == "both":
        permanent, model = draw(models(network)), draw(models(network))
        return PerRead(model, permanent), Causes((permanent,), (model,))
    kept = [draw(models(network, stuck=False)) for _ in range(2)]
    reads = [draw(models(network)) for _ in range(2)]
    return in_series(*kept, *map(PerRead, reads)), Causes(kept, reads)


def is_small(network):
    """Few enough states for the plain loops."""
    for block in network.all_blocks:
        conv = isinstance(block, ConvBlock)
        if block.weights[0].size > 4 or (block.n_outputs if conv else len(block.weights)) > 4:
            return False
        if conv and block.n_outputs // block.n_filters * block.pool[0] * block.pool[1] > 6:
            return False
    return len(network.blocks) < 3


@st.composite
def networks(draw):
    features = {"max_inputs": 4, "max_width": 3, "max_blocks": 2, "max_classes": 3}
    kind = draw(st.sampled_from(["dense", "conv", "conv", "conv"]))
    if kind == "dense":
        network = strategies.networks(**features)
        pixels = strategies.pixel_networks(strategies.networks, **features)
    else:
        network = strategies.conv_networks(max_inputs=4, max_outputs=4)
        pixels = strategies.pixel_networks(strategies.conv_networks, max_inputs=4, max_outputs=4)
    kinds = st.one_of(network, pixels.filter(lambda n: bool(n.blocks)))
    return draw(kinds.filter(is_small))


@st.composite
def convolutions(draw):
    """One convolution of one filter behind the input, two classes."""
    shape = draw(st.sampled_from([(1, 1, 2), (1, 1, 3), (1, 2, 2)]))
    n = shape[1] * shape[2]
    block = draw(strategies.conv_blocks(shape, max_filters=1))
    output = draw(strategies.output_blocks(block.n_outputs, 2))
    return BinaryNetwork(InputDomain.binary(n), (block,), output)


@st.composite
def one_sided(draw, network):
    """Permanent faults and those of reading that meet cells of one sign only."""
    none, p = BitFlip(0), Fraction(1, 3)
    kinds = [AsymmetricFlip(p, 0), AsymmetricFlip(0, p), StuckAt(p, 0), StuckAt(0, p), none]
    permanent, model = (PerBlock(tuple(draw(st.sampled_from(kinds)) for _ in network.all_blocks)) for _ in range(2))
    return PerRead(model, permanent), Causes((permanent,), (model,))


@st.composite
def cases(draw, networks=networks, faults=faults):
    network = draw(networks())
    lows, highs = network.domain.lower.tolist(), network.domain.upper.tolist()
    if network.domain.is_binary:
        images = [draw(strategies.inputs(network.n_inputs)) for _ in range(2)]
    else:
        images = [tuple(draw(st.integers(a, b)) for a, b in zip(lows, highs, strict=True)) for _ in range(2)]
    labels = [draw(st.integers(0, network.n_classes - 1)) for _ in range(2)]
    return network, images, labels, *draw(faults(network))


def served(ask, *arguments, **options):
    """The answer, or None where it is refused."""
    try:
        return ask(*arguments, **options)
    except UnsupportedError:
        return None


def assert_right(network, images, labels, model, causes):
    """Every way to ask gives the truth or is refused."""
    truth = [faultoracle.error_probability(network, x, c, causes) for x, c in zip(images, labels, strict=True)]
    mean = sum(truth) / len(truth)
    for x, c, p in zip(images, labels, truth, strict=True):
        for effort in (1, 4096):
            found = served(error_probability, network, x, c, model, max_states=effort)
            assert found is None or found.lower <= p <= found.upper, (found, p)
        exact = served(exact_error_probability, network, x, c, model)
        assert exact is None or exact == p, (exact, p)
        if isinstance(model, BitFlip) and model.p <= Fraction(1, 2):
            counted = served(fault_coefficients, network, x, c, order=2)
            assert counted is None or counted.probability(model.p).lower <= p <= counted.probability(model.p).upper
    point = served(expected_accuracy, network, images, labels, model, jobs=2)
    assert (point is None) == (found is None)
    assert point is None or point.accuracy.lower <= 1 - mean <= point.accuracy.upper
    if isinstance(model, PerRead) and model.permanent is None and point is not None:
        stream = stream_errors(network, images, labels, model)
        none = (1 - truth[0]) * (1 - truth[1])
        assert stream.at_most(0).lower <= none <= stream.at_most(0).upper
        assert stream.expected[0] <= 2 * mean <= stream.expected[1]
    size = 50 if isinstance(model, PerRead) and model.permanent else 300  # passes over chips that differ are slow
    own = served(sample_errors, network, images, labels, model, samples=300, confidence=SURE)
    for i, p in enumerate(truth):
        assert own is None or own.image(i).lower <= p <= own.image(i).upper, (own, p)
    chips = served(sample_chips, network, images, labels, model, chips=size, confidence=SURE)
    assert chips is None or chips.accuracy.lower <= 1 - mean <= chips.accuracy.upper, (chips, mean)
    device = served(sample_chips, network, images, labels, model, chips=size, confidence=SURE, device="cpu")
    assert device is None or (chips is not None and device.correct == chips.correct)


def test_a_read_fails_by_the_sign_that_permanent_faults_left():
    block = ConvBlock.create([[[[-1]]]], [0], input_shape=(1, 1, 2))
    network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[1, 1], [-1, -1]]))
    permanent = PerBlock((AsymmetricFlip(p01="1/3", p10=0), BitFlip(0)))
    reading = PerBlock((AsymmetricFlip(p01=0, p10="1/10"), BitFlip(0)))
    causes, x = Causes((permanent,), (reading,)), (-1, -1)
    assert faultoracle.error_probability(network, x, 0, causes) == Fraction(
        27, 100
    )  # the cell turns, both reads see it
    with pytest.raises(
        UnsupportedError, match=r"blocks\[0\] is a convolution with permanent faults and those of reading"
    ):
        error_probability(network, x, 0, PerRead(reading, permanent))
    assert_right(network, [x] * 2, [0, 0], PerRead(reading, permanent), causes)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1), (1, 1), (0, "1/3"), (1, "1/3"), ("1/3", 1)])
def test_faults_that_are_certain_leave_the_positions_as_they_are(before, after):
    block = ConvBlock.create([[[[-1]]]], [0], input_shape=(1, 1, 2))
    network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[1, 1], [-1, -1]]))
    permanent, reading = PerBlock((BitFlip(before), BitFlip(0))), PerBlock((BitFlip(after), BitFlip(0)))
    truth = faultoracle.error_probability(network, (-1, -1), 0, Causes((permanent,), (reading,)))
    found = error_probability(network, (-1, -1), 0, PerRead(reading, permanent))
    assert found.lower <= truth <= found.upper and found.width < 1e-6


@settings(max_examples=100)
@given(cases())
def test_every_way_to_ask_gives_the_truth_or_is_refused(case):
    assert_right(*case)


@settings(max_examples=60)
@given(cases(lambda: convolutions().filter(is_small), one_sided))
def test_convolutions_whose_cells_fail_one_way_when_written_and_the_other_when_read(case):
    assert_right(*case)
