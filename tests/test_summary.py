"""What a network costs, against numbers counted by hand."""

from fractions import Fraction

import numpy as np
import pytest

from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.summary import summarize


def conv(filters, shape, kernel=3, **options):
    weights = np.ones((filters, shape[0], kernel, kernel))
    return ConvBlock.create(weights, [0] * filters, input_shape=shape, **options)


def dense(neurons, inputs):
    return DenseBlock.create(np.ones((neurons, inputs)), [0] * neurons)


def tutorial(domain):
    """The convolutional network of larq's tutorial on MNIST: 32C3-MP2-64C3-MP2-64C3-64-10."""
    first = conv(32, (1, 28, 28), pool=2)
    second = conv(64, first.output_shape, pool=2)
    third = conv(64, second.output_shape)
    blocks = (first, second, third, dense(64, third.n_outputs))
    return BinaryNetwork(domain, blocks, OutputBlock.create(np.ones((10, 64))))


def test_a_network_from_the_literature_has_the_published_operations():
    # larq.models.summary prints 2.79 M MACs, 93.03 % of them binarized
    network = tutorial(InputDomain.integers([0] * 784, [255] * 784))
    cost = summarize(network)
    assert cost.macs == 26 * 26 * 288 + 11 * 11 * 18_432 + 3 * 3 * 36_864 + 36_864 + 640 == 2_794_240
    assert f"{float(cost.binary_share):.2%}" == "93.03%"
    assert cost.binary_weights == 288 + 18_432 + 36_864 + 36_864 + 640
    assert [block.input_bits for block in cost.blocks] == [8, 1, 1, 1, 1]
    assert [block.other_macs for block in cost.blocks] == [194_688, 0, 0, 0, 0]
    assert summarize(tutorial(InputDomain.binary(784))).binary_share == 1


def test_memory_counts_one_bit_per_cell_and_32_per_number():
    mask = np.array([[True, True, False]] * 5)
    hidden = DenseBlock.create(np.ones((5, 3)), [0] * 5, mask=mask)
    cost = summarize(BinaryNetwork(InputDomain.binary(3), (hidden,), OutputBlock.create(np.ones((2, 5)))))
    assert [block.kind for block in cost.blocks] == ["dense", "output"]
    assert [block.output_shape for block in cost.blocks] == [(5,), (2,)]
    assert [block.memory_bits for block in cost.blocks] == [10 + 5 * 32, 10 + 4 * 32]
    assert cost.numbers == 9
    assert cost.memory_bytes == 308 / 8
    assert cost.float32_bytes == 29 * 4
    assert cost.compression == 29 * 4 / (308 / 8)
    assert cost.macs == 20


def test_a_convolution_multiplies_its_cells_by_its_positions():
    weights, mask = np.ones((4, 2, 3, 3)), np.ones((4, 2, 3, 3), dtype=bool)
    mask[0] = False
    block = ConvBlock.create(weights, [0] * 4, input_shape=(2, 7, 9), stride=(2, 1), padding=1, pool=2, mask=mask)
    network = BinaryNetwork(InputDomain.binary(126), (block,), OutputBlock.create(np.ones((3, block.n_outputs))))
    first = summarize(network).blocks[0]
    assert block.positions == (4, 9)
    assert first.output_shape == (4, 2, 4)
    assert first.binary_weights == 54
    assert first.macs == first.binary_macs == 54 * 36


@pytest.mark.parametrize(("low", "high", "bits"), [(0, 255, 8), (-128, 127, 8), (0, 16, 5), (0, 1, 1), (3, 3, 1)])
def test_inputs_take_the_bits_of_their_range(low, high, bits):
    network = BinaryNetwork(
        InputDomain.integers([low] * 2, [high] * 2), (dense(3, 2),), OutputBlock.create(np.ones((2, 3)))
    )
    assert summarize(network).blocks[0].input_bits == bits


def test_a_network_that_masks_everything_costs_no_operations():
    output = OutputBlock.create(np.ones((2, 2)), mask=np.zeros((2, 2), dtype=bool))
    cost = summarize(BinaryNetwork(InputDomain.binary(2), (), output))
    assert cost.macs == 0
    assert cost.binary_share == Fraction(1)


def test_the_text_is_the_table():
    text = str(summarize(tutorial(InputDomain.integers([0] * 784, [255] * 784))))
    lines = text.splitlines()
    assert lines[0].split() == [
        "block",
        "input",
        "outputs",
        "1-bit",
        "weights",
        "32-bit",
        "KiB",
        "1-bit",
        "MACs",
        "other",
        "MACs",
    ]
    assert lines[1].split() == ["conv", "8", "bit", "32x13x13", "288", "32", "0.16", "-", "194,688"]
    assert lines[4].split() == ["dense", "1", "bit", "64", "36,864", "64", "4.75", "36,864", "-"]
    assert len({len(line) for line in lines[:6]}) == 1
    assert "memory              12.32 KiB packed, 364.58 KiB as float32: 29.6 times smaller" in text
    assert "2,794,240, 93.03% of them binarized" in text
