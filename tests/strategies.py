"""hypothesis strategies: small networks with every feature, regions and queries."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, PixelBox

signs = st.sampled_from([-1, 1])


@st.composite
def sign_matrices(draw, rows, columns, masked):
    weights = draw(st.lists(st.lists(signs, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    mask = np.ones((rows, columns), dtype=bool)
    if masked:
        flat = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
        mask = np.array(flat).reshape(rows, columns)
    return np.array(weights), mask


@st.composite
def dense_blocks(draw, n_inputs, n_outputs, masked=False):
    weights, mask = draw(sign_matrices(n_outputs, n_inputs, masked))
    # thresholds reach past both ends, so constant neurons and ties with the threshold occur
    thresholds = draw(st.lists(st.integers(-n_inputs - 1, n_inputs + 1), min_size=n_outputs, max_size=n_outputs))
    negated = draw(st.lists(st.booleans(), min_size=n_outputs, max_size=n_outputs))
    return DenseBlock.create(weights, thresholds, mask=mask, negated=np.array(negated))


rationals = st.builds(Fraction, st.integers(-6, 6), st.integers(1, 4))


@st.composite
def output_blocks(draw, n_inputs, n_classes, masked=False, common_scale=None):
    weights, mask = draw(sign_matrices(n_classes, n_inputs, masked))
    common = draw(st.booleans()) if common_scale is None else common_scale
    if common:
        scale = [draw(st.sampled_from([Fraction(1), Fraction(1, 3), Fraction(0.1)]))] * n_classes
    else:
        scale = draw(st.lists(rationals, min_size=n_classes, max_size=n_classes))
    biased = draw(st.booleans())
    bias = draw(st.lists(rationals, min_size=n_classes, max_size=n_classes)) if biased else 0
    return OutputBlock.create(weights, scale=scale, bias=bias, mask=mask)


@st.composite
def networks(draw, max_inputs=10, max_width=5, max_blocks=3, max_classes=4, min_inputs=1, **features):
    n = draw(st.integers(min_inputs, max_inputs))
    masked = draw(st.booleans())
    blocks, width = [], n
    for _ in range(draw(st.integers(0, max_blocks))):
        m = draw(st.integers(1, max_width))
        blocks.append(draw(dense_blocks(width, m, masked)))
        width = m
    output = draw(output_blocks(width, draw(st.integers(2, max_classes)), masked, **features))
    return BinaryNetwork(InputDomain.binary(n), tuple(blocks), output)


@st.composite
def conv_blocks(draw, input_shape, max_filters=3):
    """Odd sizes, strides, paddings of every kind, masks, pooling of both kinds."""
    channels, *image = input_shape
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    kernel = [draw(st.integers(1, min(3, size + 2 * pad))) for size, pad in zip(image, padding, strict=True)]
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    places = [
        (size + 2 * pad - k) // step + 1 for size, pad, k, step in zip(image, padding, kernel, stride, strict=True)
    ]
    pool = tuple(draw(st.integers(1, min(2, count))) for count in places)
    filters = draw(st.integers(1, max_filters))
    cells = channels * kernel[0] * kernel[1]
    weights, mask = draw(sign_matrices(filters, cells, draw(st.booleans())))
    shape = (filters, channels, *kernel)
    flags = st.lists(st.booleans(), min_size=filters, max_size=filters).map(np.array)
    return ConvBlock.create(
        weights.reshape(shape),
        draw(st.lists(st.integers(-cells - 1, cells + 1), min_size=filters, max_size=filters)),
        input_shape=input_shape,
        stride=stride,
        padding=padding,
        pad_value=draw(st.sampled_from([-1, 0, 1])),
        pool=pool,
        mask=mask.reshape(shape),
        negated=draw(flags),
        conjunction=draw(flags),
    )


@st.composite
def image_shapes(draw, max_inputs=10):
    channels = draw(st.integers(1, 2))
    height = draw(st.integers(1, min(5, max_inputs // channels)))
    width = draw(st.integers(1, min(5, max_inputs // channels // height)))
    return channels, height, width


@st.composite
def conv_networks(draw, max_inputs=10, max_outputs=40, **features):
    """One or two convolutions, dense blocks before, between and after them at times."""
    shape = draw(image_shapes(max_inputs))
    n = width = shape[0] * shape[1] * shape[2]
    blocks = []
    if draw(st.integers(0, 5)) == 0:
        blocks.append(draw(dense_blocks(n, n)))
    for _ in range(draw(st.integers(1, 2))):
        if width > max_outputs:
            break
        blocks.append(draw(conv_blocks(shape)))
        width, shape = blocks[-1].n_outputs, blocks[-1].output_shape
    if draw(st.booleans()):
        blocks.append(draw(dense_blocks(width, 4)))
        width = 4
        if draw(st.integers(0, 3)) == 0:
            blocks.append(draw(conv_blocks((1, 2, 2))))
            width = blocks[-1].n_outputs
    output = draw(output_blocks(width, draw(st.integers(2, 4)), draw(st.booleans()), **features))
    return BinaryNetwork(InputDomain.binary(n), tuple(blocks), output)


def inputs(n):
    return st.lists(signs, min_size=n, max_size=n).map(tuple)


@st.composite
def regions(draw, n):
    center = draw(inputs(n))
    if draw(st.booleans()):
        among = None if draw(st.booleans()) else tuple(draw(st.sets(st.integers(0, n - 1))))
        return HammingBall(center, draw(st.integers(0, n if among is None else len(among))), among)
    free = draw(st.sets(st.integers(0, n - 1)))  # empty: a single input; full: the whole cube
    return FixedIndexRegion(center, tuple(free))


@st.composite
def queries(draw, kind=networks, **features):
    network = draw(kind(**features))
    region = draw(regions(network.n_inputs))
    klass = draw(st.integers(0, network.n_classes - 1))
    prop = draw(st.sampled_from([Untargeted(klass), Targeted(klass)]))
    return Query(network, region, prop, draw(st.sampled_from(list(Ties))))


@st.composite
def pixel_networks(draw, kind=conv_networks, largest=3, **features):
    """A network over integers: the first block's thresholds reach past what its sums can be."""
    network = draw(kind(**features))
    lower = draw(st.lists(st.integers(-largest, largest), min_size=network.n_inputs, max_size=network.n_inputs))
    upper = [draw(st.integers(low, low + largest)) for low in lower]
    if network.blocks:
        first = network.blocks[0]
        reach = largest * first.weights[0].size + 1
        limits = st.lists(st.integers(-reach, reach), min_size=len(first.weights), max_size=len(first.weights))
        first = replace(first, thresholds=np.array(draw(limits), dtype=np.int64))
        network = replace(network, blocks=(first, *network.blocks[1:]))
    return replace(network, domain=InputDomain.integers(lower, upper))


@st.composite
def pixel_boxes(draw, domain, most=300):
    """A box within the domain of at most `most` points."""
    lower, upper, size = [], [], 1
    for least, greatest in zip(domain.lower.tolist(), domain.upper.tolist(), strict=True):
        low = draw(st.integers(least, greatest))
        high = draw(st.integers(low, greatest))
        if size * (high - low + 1) > most:
            high = low
        size *= high - low + 1
        lower.append(low)
        upper.append(high)
    return PixelBox(tuple(lower), tuple(upper))


@st.composite
def pixel_queries(draw, kind=conv_networks, most=300, **features):
    network = draw(pixel_networks(kind, **features))
    klass = draw(st.integers(0, network.n_classes - 1))
    prop = draw(st.sampled_from([Untargeted(klass), Targeted(klass)]))
    return Query(network, draw(pixel_boxes(network.domain, most)), prop, draw(st.sampled_from(list(Ties))))
