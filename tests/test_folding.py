"""Folding: the integer threshold fires exactly where the real batch norm does."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.convolution import ConvBlock
from bnnverify.errors import ModelError
from bnnverify.folding import FoldedNeuron, RealThreshold, fold_block, fold_conv_block, fold_neuron
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock

REACH = 12
numbers = st.one_of(
    st.integers(-20, 20).map(lambda v: v / 4),  # quarters, where ties are common
    st.floats(-100, 100, allow_nan=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308]),
)
variances = st.one_of(st.sampled_from([0.25, 1.0, 2.25, 4.0, 2.0]), st.floats(0, 1e6), st.just(0.0))
epsilons = st.sampled_from([1e-5, 1e-3, 2**-20])


def fires(s, gamma, beta, mean, variance, epsilon, bias):
    """gamma * (s + bias - mean) / sqrt(variance + epsilon) + beta >= 0, by squares, written anew."""
    g, b = Fraction(gamma), Fraction(beta)
    centred = g * (s + Fraction(bias) - Fraction(mean))  # asks: centred >= -b * sqrt(v)
    v = Fraction(variance) + Fraction(epsilon)
    left, right = centred, -b  # left >= right * sqrt(v)
    if left >= 0 and right <= 0:
        return True
    if left < 0 and right >= 0:
        return False
    if left >= 0:
        return left**2 >= right**2 * v
    return left**2 <= right**2 * v


def folded_fires(neuron, s):
    return s >= neuron.threshold if neuron.rising else s <= neuron.threshold


@given(gamma=numbers, beta=numbers, mean=numbers, variance=variances, epsilon=epsilons, bias=numbers)
@settings(max_examples=1500, deadline=None)
def test_the_folded_neuron_fires_exactly_where_batch_norm_is_not_negative(**parameters):
    neuron = fold_neuron(**parameters, reach=REACH)
    for s in range(-REACH, REACH + 1):
        assert folded_fires(neuron, s) == fires(s, **parameters)
    assert -REACH - 1 <= neuron.threshold <= REACH + 1


def test_a_pre_activation_on_the_threshold_fires_for_either_sign_of_gamma():
    common = {"beta": 0.0, "mean": 3.0, "variance": 1.0, "epsilon": 0, "reach": REACH}
    assert fold_neuron(gamma=2.0, **common) == FoldedNeuron(3, rising=True)
    assert fold_neuron(gamma=-2.0, **common) == FoldedNeuron(3, rising=False)


@pytest.mark.parametrize(("beta", "expected"), [(0.5, -REACH), (0.0, -REACH), (-0.0, -REACH), (-1e-300, REACH + 1)])
def test_gamma_zero_makes_a_constant_by_the_sign_of_beta(beta, expected):
    neuron = fold_neuron(gamma=0.0, beta=beta, mean=7.0, variance=1.0, epsilon=1e-5, reach=REACH)
    assert neuron == FoldedNeuron(expected, rising=True)


def test_epsilon_moves_a_tie():
    # threshold = sqrt(4 + eps): exactly 2 without epsilon, just above 2 with any
    common = {"gamma": 1.0, "beta": -1.0, "mean": 0.0, "variance": 4.0, "reach": REACH}
    assert fold_neuron(epsilon=0, **common).threshold == 2
    assert fold_neuron(epsilon=1e-300, **common).threshold == 3


def test_an_irrational_threshold_is_rounded_the_right_way_where_floats_cannot_see_it():
    # offset + sqrt(2) with the offset chosen so that the sum is 3 - 2**-90 or 3 + 2**-90
    root = Fraction(math.isqrt(2 << 200), 1 << 100)  # below sqrt(2) by less than 2**-100
    below, above = 3 - root - Fraction(1, 2**90), 3 - root + Fraction(1, 2**90)
    assert RealThreshold(below, Fraction(1), Fraction(2)).ceil() == 3
    assert RealThreshold(above, Fraction(1), Fraction(2)).ceil() == 4
    assert RealThreshold(below, Fraction(1), Fraction(2)).floor() == 2
    assert RealThreshold(above, Fraction(1), Fraction(2)).floor() == 3


rationals = st.fractions(-50, 50, max_denominator=40)


@given(offset=rationals, factor=rationals, radicand=st.fractions(0, 50, max_denominator=40))
@settings(max_examples=500)
def test_ceil_and_floor_enclose_the_real_number_tightly(offset, factor, radicand):
    real = RealThreshold(offset, factor, radicand)
    up, down = real.ceil(), real.floor()
    assert real.is_at_most(up) and not real.is_at_most(up - 1)
    assert up - down in (0, 1)
    value = float(offset) + float(factor) * math.sqrt(radicand)
    assert down - 1e-9 <= value <= up + 1e-9


@given(value=rationals, factor=st.fractions(-9, 9, max_denominator=9), root=st.fractions(0, 9, max_denominator=9))
def test_perfect_squares_are_decided_exactly(value, factor, root):
    real = RealThreshold(value, factor, root * root)
    assert real.is_at_most(value + factor * root)
    assert real.ceil() == math.ceil(value + factor * root)
    assert real.floor() == math.floor(value + factor * root)


@pytest.mark.parametrize("which", ["gamma", "beta", "mean", "variance", "epsilon", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_parameters_that_are_not_finite_are_refused_by_name(which, value):
    parameters = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0, "epsilon": 1e-5} | {which: value}
    with pytest.raises(ModelError, match=f"hidden 3: batch-norm {which} is -?(nan|inf), expected a finite number"):
        fold_neuron(**parameters, reach=REACH, name="hidden 3")


def test_variances_that_cannot_be_are_refused():
    common = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "reach": REACH}
    with pytest.raises(ModelError, match="expected both at least 0"):
        fold_neuron(variance=-1.0, epsilon=1e-5, **common)
    with pytest.raises(ModelError, match="expected both at least 0"):
        fold_neuron(variance=1.0, epsilon=-1e-5, **common)
    with pytest.raises(ModelError, match=r"variance \+ epsilon is 0, expected above 0"):
        fold_neuron(variance=0.0, epsilon=0, **common)


@st.composite
def normalized_blocks(draw):
    m, n = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    signs = draw(st.lists(st.lists(st.sampled_from([-1, 1]), min_size=n, max_size=n), min_size=m, max_size=m))
    mask = np.array(draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=m, max_size=m)))
    small = st.integers(-12, 12).map(lambda v: v / 4)
    column = st.lists(small, min_size=m, max_size=m)
    parameters = {name: draw(column) for name in ("gamma", "beta", "mean", "bias")}
    parameters["variance"] = draw(st.lists(st.sampled_from([0.25, 1.0, 2.0, 4.0]), min_size=m, max_size=m))
    return np.array(signs), mask, parameters


@given(normalized_blocks(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_folded_block_equals_linear_then_batch_norm_then_sign(made, data):
    signs, mask, parameters = made
    block = fold_block(signs, mask=mask, epsilon=2**-20, **parameters)
    x = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=signs.shape[1], max_size=signs.shape[1]))
    for j, output in enumerate(block.outputs(np.array(x))):
        s = sum(int(w) * v for w, v, present in zip(signs[j], x, mask[j], strict=True) if present)
        at = {name: values[j] for name, values in parameters.items()}
        assert output == (1 if fires(s, **at, epsilon=2**-20) else -1)


@given(normalized_blocks())
def test_negative_scales_negate_the_row_and_are_remembered(made):
    signs, mask, parameters = made
    block = fold_block(signs, mask=mask, epsilon=1e-3, **parameters)
    assert block.negated.tolist() == [g < 0 for g in parameters["gamma"]]
    assert np.array_equal(block.stored, np.where(mask, signs, 0))


def test_the_reach_only_keeps_thresholds_of_constant_neurons_small():
    common = {"gamma": [1.0], "beta": [0.0], "mean": [300.0], "variance": [1.0], "epsilon": 0}
    assert fold_block([[1, 1]], **common).thresholds.tolist() == [300]
    assert fold_block([[1, 1]], input_reach=[1, 1], **common).thresholds.tolist() == [3]
    assert fold_block([[1, 1]], input_reach=[255, 255], **common).thresholds.tolist() == [300]
    with pytest.raises(ModelError, match="input_reach is \\[1\\], expected 2 numbers of at least 0"):
        fold_block([[1, 1]], input_reach=[1], **common)


def test_without_a_reach_a_block_on_pixels_folds_to_the_true_function():
    block = fold_block([[1, 1]], gamma=[1.0], beta=[-10.0], mean=[0.0], variance=[1.0], epsilon=0)
    network = BinaryNetwork(InputDomain.integers([0, 0], [16, 16]), (block,), OutputBlock.create([[-1], [1]]))
    assert [network.evaluate([a, b]) for a, b in ((2, 2), (5, 4), (5, 5), (16, 16))] == [0, 0, 1, 1]


@pytest.mark.parametrize(("gamma", "fires"), [(0.0, True), (1e-300, True), (-1e-300, True)])
def test_constant_neurons_fire_always_with_and_without_a_reach(gamma, fires):
    for reach in (None, [1, 1]):
        block = fold_block(
            [[1, -1]], gamma=[gamma], beta=[1.0], mean=[0.0], variance=[1.0], epsilon=0, input_reach=reach
        )
        network = BinaryNetwork(InputDomain.binary(2), (block,), OutputBlock.create([[-1], [1]]))
        for x in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            assert network.evaluate(x) == int(fires)
            assert PackedNetwork(network).classes([x]).tolist() == [int(fires)]


def test_columns_of_the_wrong_length_are_refused():
    with pytest.raises(ModelError, match="batch-norm mean has shape \\(2,\\), expected \\(1,\\), one per neuron"):
        fold_block([[1]], gamma=[1], beta=[0], mean=[0, 0], variance=[1], epsilon=1e-5)
    with pytest.raises(ModelError, match="expected a matrix"):
        fold_block([1], gamma=[1], beta=[0], mean=[0], variance=[1], epsilon=1e-5)
    with pytest.raises(ModelError, match=r"weights\[0, 0\] is 0\.5, expected -1 or \+1"):
        fold_block([[0.5]], gamma=[1], beta=[0], mean=[0], variance=[1], epsilon=1e-5)


@st.composite
def normalized_filters(draw):
    signs, mask, parameters = draw(normalized_blocks())
    height, width = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    cells = signs.shape[1]
    rows = draw(st.sampled_from([r for r in (1, 2) if cells % r == 0 and cells // r <= 2] or [cells]))
    columns = cells // rows if cells // rows <= 2 else 1
    shape = (len(signs), cells // rows // columns, rows, columns)
    padding = (max(0, rows - height), 0) if rows > height else draw(st.sampled_from([(0, 0), (1, 0), (1, 2)]))
    geometry = {
        "input_shape": (shape[1], height, width),
        "stride": draw(st.sampled_from([1, (1, 2)])),
        "padding": padding,
        "pad_value": draw(st.sampled_from([-1, 0, 1])),
    }
    places = ConvBlock.create(np.ones(shape), [0] * shape[0], **geometry).positions
    geometry["pool"] = tuple(draw(st.integers(1, min(2, count))) for count in places)
    return signs.reshape(shape), mask.reshape(shape), parameters, geometry


@given(normalized_filters(), st.booleans(), st.sampled_from([None, 1]), st.data())
@settings(max_examples=300, deadline=None)
def test_a_folded_convolution_equals_its_layers_in_either_order_of_pooling(made, pool_before_norm, reach, data):
    signs, mask, parameters, geometry = made
    block = fold_conv_block(
        signs,
        mask=mask,
        epsilon=2**-20,
        pool_before_norm=pool_before_norm,
        input_reach=reach,
        **geometry,
        **parameters,
    )
    x = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=block.n_inputs, max_size=block.n_inputs))
    plain = ConvBlock.create(signs, [0] * len(signs), mask=mask, **geometry | {"pool": 1}).preactivations(x)
    expected = []
    filters, height, width = block.output_shape
    for f in range(filters):
        at = {name: values[f] for name, values in parameters.items()} | {"epsilon": 2**-20}
        for i in range(height):
            for j in range(width):
                down, across = block.pool
                sums = plain[f, i * down : (i + 1) * down, j * across : (j + 1) * across].ravel().tolist()
                if pool_before_norm:
                    expected.append(fires(max(sums), **at))
                else:
                    expected.append(any(fires(s, **at) for s in sums))
    assert (block.outputs(x) == 1).tolist() == expected
    assert np.array_equal(block.stored, np.where(mask, signs, 0))


def test_pooling_before_the_norm_is_a_conjunction_only_where_the_scale_is_negative():
    common = {"beta": [0.0] * 3, "mean": [0.5] * 3, "variance": [1.0] * 3, "epsilon": 0, "input_shape": (1, 2, 2)}
    scales = [1.0, -1.0, 0.0]
    before = fold_conv_block(np.ones((3, 1, 1, 1)), gamma=scales, pool=2, pool_before_norm=True, **common)
    after = fold_conv_block(np.ones((3, 1, 1, 1)), gamma=scales, pool=2, **common)
    assert before.negated.tolist() == after.negated.tolist() == [False, True, False]
    assert before.conjunction.tolist() == [False, True, False]
    assert not after.conjunction.any()
    x = [1, -1, -1, -1]  # greatest sum 1, above the mean: the second filter fires only where signs are pooled
    assert before.outputs(x).tolist() == [1, -1, 1]
    assert after.outputs(x).tolist() == [1, 1, 1]


def test_the_reach_of_a_convolution_counts_its_cells_and_the_padding():
    common = {"gamma": [1.0], "beta": [0.0], "mean": [300.0], "variance": [1.0], "epsilon": 0, "input_shape": (1, 3, 3)}
    mask = np.array([[[[True, False], [True, True]]]])
    signs = np.ones((1, 1, 2, 2))
    assert fold_conv_block(signs, mask=mask, **common).thresholds.tolist() == [300]
    assert fold_conv_block(signs, mask=mask, input_reach=1, **common).thresholds.tolist() == [4]
    padded = fold_conv_block(signs, input_reach=0, padding=1, pad_value=-1, **common)
    assert padded.thresholds.tolist() == [5]
    with pytest.raises(ModelError, match=r"input_reach is \[1\], expected an integer of at least 0"):
        fold_conv_block(signs, input_reach=[1], **common)
    with pytest.raises(ModelError, match=r"batch-norm gamma has shape \(2,\), expected \(1,\), one per filter"):
        fold_conv_block(signs, **common | {"gamma": [1.0, 1.0]})
    with pytest.raises(ModelError, match="c1, filter 0: batch-norm variance is -1"):
        fold_conv_block(signs, name="c1", **common | {"variance": [-1.0]})


@pytest.mark.parametrize("pool_before_norm", [False, True])
@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "pool"), [(7, 3, 1, 1, 2), (8, 5, 2, 2, 2), (6, 2, 1, 0, 1)]
)
def test_a_folded_convolution_is_the_torch_model(size, kernel, stride, padding, pool, pad_value, pool_before_norm):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    rng = np.random.default_rng(size + pad_value)
    channels, filters = 3, 8
    weights = rng.choice([-1.0, 1.0], (filters, channels, kernel, kernel))
    norm = torch.nn.BatchNorm2d(filters).double().eval()
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(rng.normal(size=filters)))
        norm.weight[0] = 0.0
        norm.bias.copy_(torch.from_numpy(rng.normal(size=filters)))
        norm.running_mean.copy_(torch.from_numpy(rng.normal(size=filters) * 3))
        norm.running_var.copy_(torch.from_numpy(rng.random(filters) * 9))
        x = torch.from_numpy(rng.choice([-1.0, 1.0], (50, channels, size, size)))
        padded = functional.pad(x, [padding] * 4, value=pad_value)
        sums = functional.conv2d(padded, torch.from_numpy(weights), stride=stride)
        if pool_before_norm:
            signs = torch.where(norm(functional.max_pool2d(sums, pool)) >= 0, 1.0, -1.0)
        else:
            signs = functional.max_pool2d(torch.where(norm(sums) >= 0, 1.0, -1.0), pool)
    block = fold_conv_block(
        weights,
        gamma=norm.weight.tolist(),
        beta=norm.bias.tolist(),
        mean=norm.running_mean.tolist(),
        variance=norm.running_var.tolist(),
        epsilon=norm.eps,
        input_shape=(channels, size, size),
        stride=stride,
        padding=padding,
        pad_value=pad_value,
        pool=pool,
        pool_before_norm=pool_before_norm,
    )
    assert np.array_equal(block.outputs(x.numpy().reshape(50, -1)), signs.numpy().reshape(50, -1))
