"""ConvBlock: the function, its dense twin, and what is refused."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify import convolution
from bnnverify.cardinality import compile_cells
from bnnverify.convolution import ConvBlock
from bnnverify.errors import ModelError, ResourceLimitError, UnsupportedError
from bnnverify.faults import BitFlip
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import exact_error_probability, fault_enumerator
from tests import oracle, strategies


def ones(*shape):
    return np.ones(shape, dtype=int)


@settings(max_examples=200)
@given(strategies.conv_networks(), st.data())
def test_a_network_with_convolutions_gives_the_classes_and_signs_of_the_oracle(network, data):
    batch = data.draw(st.lists(strategies.inputs(network.n_inputs), min_size=1, max_size=4))
    assert network.evaluate_batch(batch).tolist() == [oracle.predicted(network, x) for x in batch]
    for x in batch:
        h = np.array(x)
        for block, expected in zip(network.blocks, oracle.hidden_layers(network, x), strict=True):
            h = block.outputs(h)
            assert h.tolist() == expected
        assert list(network.scores(x)) == oracle.scores(network, x)


@settings(max_examples=200)
@given(strategies.conv_networks(), st.data())
def test_the_unrolled_network_gives_the_same_scores(network, data):
    dense = network.unrolled()
    assert not dense.has_convolutions
    assert dense.domain is network.domain
    for x in data.draw(st.lists(strategies.inputs(network.n_inputs), min_size=1, max_size=4)):
        assert dense.scores(x) == network.scores(x)


@settings(max_examples=200)
@given(st.data(), st.sampled_from([7, 2**21, 2**50, 2**54]))
def test_integer_inputs_are_convolved_exactly_at_any_size(data, big):
    # the sizes lie below and beyond what float32 and float64 hold exactly
    shape = data.draw(strategies.image_shapes())
    block = data.draw(strategies.conv_blocks(shape))
    x = data.draw(st.lists(st.integers(-big, big), min_size=block.n_inputs, max_size=block.n_inputs))
    assert block.outputs(x).tolist() == oracle.convolved(block, x)
    h = np.array(x)
    for dense in block.unrolled():
        h = dense.outputs(h)
    assert h.tolist() == oracle.convolved(block, x)


def test_batches_larger_than_one_piece_give_the_same_signs(monkeypatch):
    rng = np.random.default_rng(0)
    block = ConvBlock.create(
        rng.choice([-1, 1], (5, 2, 3, 3)), [0, 1, -1, 2, 3], input_shape=(2, 7, 6), padding=1, pool=2
    )
    x = rng.choice([-1, 1], (20, 84))
    whole, sums = block.outputs(x), block.preactivations(x)
    monkeypatch.setattr(convolution, "_PATCH_LIMIT", 2000)
    assert np.array_equal(block.outputs(x), whole)
    assert np.array_equal(block.preactivations(x), sums)
    assert sums.shape == (20, 5, 7, 6)
    assert np.array_equal(block.preactivations(x[3]), sums[3])
    assert block.outputs(x[:0]).shape == (0, block.n_outputs)


def test_padding_with_nothing_differs_from_padding_with_either_sign():
    # one input of +1, a filter of 1x3 ones, so the sums are 1, 3 and -1
    def block(value):
        return ConvBlock.create(ones(1, 1, 1, 3), [1], input_shape=(1, 1, 1), padding=(0, 1), pad_value=value)

    assert [block(v).preactivations([1]).item() for v in (0, 1, -1)] == [1, 3, -1]
    assert [block(v).outputs([1]).item() for v in (0, 1, -1)] == [1, 1, -1]


def test_max_pooling_of_signs_is_or_and_a_conjunction_is_and():
    x = [1, -1, -1, -1]
    common = {"input_shape": (1, 2, 2), "pool": 2}
    either = ConvBlock.create(ones(2, 1, 1, 1), [1, 1], conjunction=np.array([False, True]), **common)
    assert either.outputs(x).tolist() == [1, -1]
    assert either.outputs([1, 1, 1, 1]).tolist() == [1, 1]
    assert either.outputs([-1, -1, -1, -1]).tolist() == [-1, -1]


def test_positions_that_fill_no_window_are_left_out():
    block = ConvBlock.create(ones(1, 1, 1, 1), [1], input_shape=(1, 3, 3), pool=2)
    assert block.positions == (3, 3)
    assert block.output_shape == (1, 1, 1)
    x = -np.ones(9, dtype=int)
    x[8] = 1
    assert block.outputs(x).tolist() == [-1]
    assert block.unrolled()[0].n_outputs == 4


def test_sizes_and_cells_of_a_block():
    mask = np.ones((16, 3, 5, 5), dtype=bool)
    mask[0, 0, 0, 0] = False
    block = ConvBlock.create(
        ones(16, 3, 5, 5), np.zeros(16, dtype=int), input_shape=(3, 28, 20), stride=2, padding=(2, 1), pool=2, mask=mask
    )
    assert block.kernel == (5, 5)
    assert block.positions == (14, 9)
    assert block.output_shape == (16, 7, 4)
    assert (block.n_inputs, block.n_outputs, block.n_cells) == (1680, 448, 1199)


def test_what_the_cells_store_is_negated_where_folding_negated_the_filter():
    block = ConvBlock.create(ones(2, 1, 1, 2), [0, 0], input_shape=(1, 1, 2), negated=np.array([False, True]))
    assert block.stored.ravel().tolist() == [1, 1, -1, -1]


def test_a_block_is_frozen_through_copies():
    block = ConvBlock.create(ones(2, 1, 1, 2), [0, 1], input_shape=(1, 1, 2), pool=1)
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert twin.outputs([1, -1]).tolist() == block.outputs([1, -1]).tolist()
        with pytest.raises(ValueError, match="read-only"):
            twin.weights[0] = -1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": ones(2, 3)},
            r"c1.weights has shape \(2, 3\), expected an array \(filters, channels, rows, columns",
        ),
        ({"weights": np.zeros((2, 1, 2, 2))}, r"c1.weights\[0, 0, 0, 0\] is 0.0, expected -1 or \+1. Pass a mask"),
        ({"weights": np.zeros((0, 1, 2, 2))}, "expected at least one filter, channel, row and column"),
        ({"thresholds": [1]}, "c1.thresholds has 1 entries, expected 2, one per filter"),
        ({"input_shape": (4, 4)}, r"c1.input_shape is \(4, 4\), expected 3 integers of at least 1"),
        ({"input_shape": (2, 4, 4)}, "c1.input_shape has 2 channels, but the filters take 1"),
        ({"stride": 0}, r"c1.stride is \(0, 0\), expected 2 integers of at least 1"),
        ({"padding": -1}, r"c1.padding is \(-1, -1\), expected 2 integers of at least 0"),
        ({"padding": (1, 1.5)}, r"c1.padding is \(1, 1.5\), expected 2 integers"),
        ({"pad_value": 2}, "c1.pad_value is 2, expected 0"),
        ({"pad_value": True}, "c1.pad_value is True, expected 0"),
        ({"input_shape": (1, 1, 9)}, "c1 has filters of 2x2 over a padded input of 1x9, expected filters that fit"),
        ({"pool": 4}, "c1 has pooling windows of 4x4 over 3x3 positions, expected windows that fit"),
        ({"negated": [1, 0]}, "c1.negated has dtype int64"),
        ({"conjunction": np.array([True])}, r"c1.conjunction has dtype bool and shape \(1,\)"),
        ({"mask": np.ones((2, 1, 2, 1), dtype=bool)}, "mask of c1.weights has shape"),
    ],
)
def test_what_is_no_convolution_is_refused_by_name(changes, message):
    fields = {"weights": ones(2, 1, 2, 2), "thresholds": [0, 0], "input_shape": (1, 4, 4), "name": "c1"} | changes
    with pytest.raises(ModelError, match=message):
        ConvBlock.create(fields.pop("weights"), fields.pop("thresholds"), **fields)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, ones(1, 1, 1, 1)),
        (1, np.zeros(2, dtype=np.int64)),
        (2, [0]),
        (3, [1, 1, 1]),
        (4, (1, 1.0)),
        (6, 0.0),
        (7, (0, 1)),
    ],
)
def test_the_bare_constructor_checks_types(index, value):
    block = ConvBlock.create(ones(1, 1, 1, 1), [0], input_shape=(1, 1, 1))
    fields = list(block.__reduce__()[1])
    fields[index] = value
    with pytest.raises(ModelError, match="ConvBlock"):
        ConvBlock(*fields)


def test_unrolling_what_would_not_fit_is_refused():
    block = ConvBlock.create(ones(64, 64, 3, 3), [0] * 64, input_shape=(64, 32, 32), padding=1)
    with pytest.raises(ResourceLimitError, match=r"64 filters at 32x32 positions over 65536 inputs unrolls to 4.0 GiB"):
        block.unrolled()


def test_blocks_of_a_network_must_fit_one_another():
    block = ConvBlock.create(ones(2, 1, 2, 2), [0, 0], input_shape=(1, 3, 3))
    output = OutputBlock.create(ones(2, 8))
    network = BinaryNetwork(InputDomain.binary(9), (block,), output)
    assert network.widths == (9, 8, 2)
    with pytest.raises(ModelError, match=r"blocks\[0\] takes 9 inputs, but the input gives 8"):
        BinaryNetwork(InputDomain.binary(8), (block,), output)
    with pytest.raises(UnsupportedError, match=r"blocks\[0\] is a convolution, expected dense blocks only: because"):
        network.dense_blocks("because")
    dense = network.unrolled()
    assert dense.dense_blocks("because") == dense.blocks
    assert dense.unrolled() is dense


def test_the_architecture_names_kernels_strides_padding_and_pooling():
    first = ConvBlock.create(ones(16, 1, 5, 5), [0] * 16, input_shape=(1, 28, 28), padding=2, pool=2)
    second = ConvBlock.create(
        ones(8, 16, 3, 1), [0] * 8, input_shape=(16, 14, 14), stride=2, padding=(1, 0), pool=(1, 2)
    )
    dense = DenseBlock.create(ones(64, second.n_outputs), [0] * 64)
    network = BinaryNetwork(InputDomain.binary(784), (first, second, dense), OutputBlock.create(ones(10, 64)))
    assert network.architecture == "1x28x28-16c5p2-mp2-8c3x1s2p1x0-mp1x2-64-10"
    assert repr(network).startswith(f"BinaryNetwork({network.architecture}, binary inputs, ")


@pytest.mark.parametrize(
    "ask",
    [
        lambda net, x: exact_error_probability(net, x, 0, BitFlip("0.1")),
        lambda net, x: fault_enumerator(net, x, 0),
        lambda net, x: compile_cells(net, x, 0),
    ],
)
def test_questions_about_cells_that_positions_share_are_refused(ask):
    block = ConvBlock.create(ones(2, 1, 2, 2), [0, 0], input_shape=(1, 3, 3))
    network = BinaryNetwork(InputDomain.binary(9), (block,), OutputBlock.create(ones(2, 8)))
    with pytest.raises(
        UnsupportedError, match=r"blocks\[0\] is a convolution, expected dense blocks only: .*Sample chips"
    ):
        ask(network, [1] * 9)
