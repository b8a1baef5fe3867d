"""Packed inference is bit-identical to the exact network."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.errors import ModelError
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.packing import pack_signs, score_ranks
from tests import oracle, strategies


@settings(max_examples=500)
@given(strategies.networks(max_inputs=9), st.data())
def test_packed_classes_are_the_classes_of_the_oracle(network, data):
    batch = data.draw(st.lists(strategies.inputs(network.n_inputs), min_size=1, max_size=6))
    expected = [oracle.predicted(network, x) for x in batch]
    assert PackedNetwork(network).classes(batch).tolist() == expected
    assert PackedNetwork(network).classes(np.array(batch, dtype=np.int8)).tolist() == expected


@pytest.mark.parametrize("widths", [(63, 64, 10), (64, 65, 3), (128, 127, 129, 10), (784, 100, 10)])
@pytest.mark.parametrize("masked", [False, True])
def test_packed_classes_agree_across_word_boundaries(widths, masked):
    rng = np.random.default_rng(sum(widths))

    def mask(shape):
        return rng.random(shape) < 0.6 if masked else None

    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-5, 6, m), mask=mask((m, n)))
        for n, m in pairwise(widths[:-1])
    )
    shape = (widths[-1], widths[-2])
    output = OutputBlock.create(rng.choice([-1, 1], shape), bias=rng.normal(size=widths[-1]), mask=mask(shape))
    network = BinaryNetwork(InputDomain.binary(widths[0]), blocks, output)
    images = rng.choice([-1, 1], (200, widths[0])).astype(np.int8)
    assert np.array_equal(PackedNetwork(network).classes(images), network.evaluate_batch(images))


@settings(max_examples=200)
@given(st.data())
def test_integer_inputs_give_the_classes_of_the_oracle(data):
    n, m = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    big = data.draw(st.sampled_from([7, 255, 2**54]))  # the last one is beyond exact float64 sums
    block = data.draw(strategies.dense_blocks(n, m, masked=True))
    network = BinaryNetwork(
        InputDomain.integers([-big] * n, [big] * n), (block,), data.draw(strategies.output_blocks(m, 3))
    )
    batch = data.draw(st.lists(st.lists(st.integers(-big, big), min_size=n, max_size=n), min_size=1, max_size=5))
    assert PackedNetwork(network).classes(batch).tolist() == [oracle.predicted(network, x) for x in batch]


def test_score_ranks_keep_order_and_ties_of_rational_scores():
    output = OutputBlock.create(
        [[1, 1], [1, -1], [-1, -1]], scale=[Fraction(1, 3), Fraction(-1, 3), 0], bias=[0, 0, Fraction(2, 3)]
    )
    ranks = score_ranks(output)
    scores = [[Fraction(2 - 2 * d) / 3, -Fraction(2 - 2 * d) / 3, Fraction(2, 3)] for d in range(3)]
    for d in range(3):
        for e in range(3):
            for j in range(3):
                for k in range(3):
                    assert (ranks[j, d] < ranks[k, e]) == (scores[d][j] < scores[e][k])


def test_packing_puts_input_i_at_bit_i():
    signs = -np.ones(70, dtype=np.int8)
    signs[[0, 5, 64, 69]] = 1
    assert pack_signs(signs).tolist() == [1 | 1 << 5, 1 | 1 << 5]


def test_packed_network_refuses_what_is_no_input():
    network = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, 1]]))
    with pytest.raises(ModelError, match=r"row 1: input\[0\] is 0, expected -1 or \+1"):
        PackedNetwork(network).classes(np.array([[1, 1], [0, 1]], dtype=np.int8))
    with pytest.raises(ModelError, match="inputs have 3 entries each, expected 2"):
        PackedNetwork(network).classes(np.ones((1, 3), dtype=np.int8))


@settings(max_examples=300)
@given(strategies.conv_networks(), st.data())
def test_packed_convolutions_give_the_classes_of_the_oracle(network, data):
    batch = data.draw(st.lists(strategies.inputs(network.n_inputs), min_size=1, max_size=4))
    expected = [oracle.predicted(network, x) for x in batch]
    packed = PackedNetwork(network)
    assert packed.classes(batch).tolist() == expected
    assert packed.classes(np.array(batch, dtype=np.int8)).tolist() == expected
    assert packed.classes_of_packed(pack_signs(batch)).tolist() == expected


def random_filters(rng, shape, input_shape, masked=False, spread=5, **options):
    mask = rng.random(shape) < 0.6 if masked else None
    filters = shape[0]
    flags = rng.random((2, filters)) < 0.5
    limits = rng.integers(-spread + 1, spread, filters)
    return ConvBlock.create(
        rng.choice([-1, 1], shape), limits, input_shape=input_shape, mask=mask, conjunction=flags[0], **options
    )


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("channels", "size", "filters", "kernel", "stride", "padding", "pool"),
    [
        (1, 28, 16, 5, 1, 2, 2),
        (3, 9, 64, 3, 2, 1, 2),
        (33, 5, 65, 3, 1, 1, 1),
        (2, 66, 3, 4, 3, 2, 2),
        (64, 3, 70, 3, 1, 0, 1),
    ],
)
def test_packed_convolutions_agree_across_word_boundaries(
    channels, size, filters, kernel, stride, padding, pool, pad_value, masked
):
    rng = np.random.default_rng(size + pad_value)
    shape = (filters, channels, kernel, kernel)
    options = {"stride": stride, "padding": padding, "pad_value": pad_value, "pool": pool}
    first = random_filters(rng, shape, (channels, size, size), masked, **options)
    size = first.output_shape[1]
    second = random_filters(rng, (20, filters, size, size), first.output_shape, masked, padding=(0, 1), pool=(1, 2))
    dense = DenseBlock.create(rng.choice([-1, 1], (64, second.n_outputs)), rng.integers(-1, 2, 64))
    output = OutputBlock.create(rng.choice([-1, 1], (5, 64)), bias=rng.normal(size=5))
    network = BinaryNetwork(InputDomain.binary(first.n_inputs), (first, second, dense), output)
    images = rng.choice([-1, 1], (100, first.n_inputs)).astype(np.int8)
    classes = network.evaluate_batch(images)
    assert len(set(classes.tolist())) > 1
    assert np.array_equal(PackedNetwork(network).classes(images), classes)


def test_a_flat_vector_may_be_read_as_an_image_of_another_shape():
    rng = np.random.default_rng(3)
    first = random_filters(rng, (6, 1, 2, 2), (1, 3, 5))  # gives 6x2x4
    second = random_filters(rng, (5, 3, 2, 2), (3, 4, 4))
    third = random_filters(rng, (4, 2, 2, 2), (2, 3, 3))
    dense = DenseBlock.create(rng.choice([-1, 1], (18, second.n_outputs)), rng.integers(-3, 4, 18))
    output = OutputBlock.create(rng.choice([-1, 1], (3, 16)))
    network = BinaryNetwork(InputDomain.binary(15), (first, second, dense, third), output)
    images = rng.choice([-1, 1], (200, 15)).astype(np.int8)
    classes = network.evaluate_batch(images)
    assert len(set(classes.tolist())) == 3
    assert np.array_equal(PackedNetwork(network).classes(images), classes)


@pytest.mark.parametrize("dense_first", [False, True])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("big", [255, 2**54])
def test_pixels_may_enter_a_network_with_convolutions(dense_first, pad_value, big):
    rng = np.random.default_rng(big % 97)
    front = (
        DenseBlock.create(rng.choice([-1, 1], (48, 48)), rng.integers(-big, big, 48))
        if dense_first
        else random_filters(rng, (3, 3, 3, 3), (3, 4, 4), spread=5 * big, padding=1, pad_value=pad_value)
    )
    second = random_filters(rng, (4, 3, 3, 3), (3, 4, 4), padding=1, pad_value=pad_value, pool=2)
    output = OutputBlock.create(rng.choice([-1, 1], (4, 16)))
    network = BinaryNetwork(InputDomain.integers([0] * 48, [big] * 48), (front, second), output)
    images = rng.integers(0, big, (100, 48), endpoint=True)
    classes = network.evaluate_batch(images)
    assert len(set(classes.tolist())) > 1
    assert np.array_equal(PackedNetwork(network).classes(images), classes)
    assert classes[0] == oracle.predicted(network, images[0].tolist())
