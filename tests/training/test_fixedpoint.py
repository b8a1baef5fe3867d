import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from bnnverify.training.fixedpoint import ExactBatchNorm, binary_conv2d, binary_linear, fixed_point, scaled, scores


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def signs(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=generator(seed)).float() * 2 - 1


def inputs(*shape, reach=1, seed=0):
    """Signs, or integers from -reach to +reach; convolutions also meet absent inputs, 0."""
    if reach == 1:
        return signs(*shape, seed=seed)
    return torch.randint(-reach, reach + 1, shape, generator=generator(seed)).float()


def normal(*shape, seed=0, spread=1.0):
    """Gradients whose sizes differ by orders of magnitude if `spread` is large."""
    g = torch.randn(shape, generator=generator(seed))
    return g * torch.exp(spread * torch.randn(shape, generator=generator(seed + 1))) * 1e-3


def passes(layer, x, weight, g, dtype):
    """Output and the two gradients."""
    x, weight = x.detach().to(dtype).requires_grad_(), weight.detach().to(dtype).requires_grad_()
    y = layer(x, weight)
    y.backward(g.to(dtype))
    return y.detach(), x.grad, weight.grad


def error_bound(g, summands, factors):
    """How far a sum of `summands` products of gradients and factors up to `factors` may be off.

    Rounding to fixed point is off by half of a unit per gradient; the unit is at most 2 * top * 2^-bits.
    """
    bits = 24 - math.ceil(math.log2(max(summands * factors, 2)))
    kept = bits if bits >= 15 else 2 * bits + 1 if bits >= 7 else min(20, bits + 29)
    return summands * factors * float(g.abs().max()) * 2.0**-kept


def close(ours, exact, bound):
    """Within the bound, but for the rounding of the result to float32."""
    allowed = bound + exact.abs() * 2.0**-23
    assert ours.dtype == torch.float32
    assert bool(((ours.double() - exact).abs() <= allowed).all()), float(
        ((ours.double() - exact).abs() / allowed).max()
    )


LINEAR = [(2, 1, 1, 1), (7, 5, 3, 1), (100, 784, 256, 1), (64, 64, 10, 16), (100, 784, 32, 255), (1000, 20, 8, 255)]


@pytest.mark.parametrize(("images", "n", "m", "reach"), LINEAR)
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_linear_sums_are_exact_and_gradients_within_the_bound(images, n, m, reach, spread):
    x, weight, g = inputs(images, n, reach=reach), signs(m, n, seed=1), normal(images, m, seed=2, spread=spread)
    y, to_x, to_weight = passes(lambda a, w: binary_linear(a, w, reach=reach), x, weight, g, torch.float32)
    exact_y, exact_x, exact_weight = passes(functional.linear, x, weight, g, torch.float64)
    assert torch.equal(y.double(), exact_y)
    shared = max(images * reach, m)  # one fixed point serves both gradients
    close(to_x, exact_x, error_bound(g, shared, 1) * m / shared)
    close(to_weight, exact_weight, error_bound(g, shared, 1) * images * reach / shared)


CONV = [(3, 1, 4, 8, 3, 1, 0, 1), (5, 3, 6, 7, 3, 2, 1, 1), (16, 16, 16, 12, 3, 1, 1, 1), (8, 1, 8, 14, 5, 1, 0, 255)]


@pytest.mark.parametrize(("images", "channels", "filters", "side", "kernel", "stride", "padding", "reach"), CONV)
def test_convolutions_are_exact_and_gradients_within_the_bound(
    images, channels, filters, side, kernel, stride, padding, reach
):
    args = {"stride": stride, "padding": padding}
    x, weight = inputs(images, channels, side, side, reach=reach), signs(filters, channels, kernel, kernel, seed=1)
    positions = (side + 2 * padding - kernel) // stride + 1
    g = normal(images, filters, positions, positions, seed=2)
    y, to_x, to_weight = passes(lambda a, w: binary_conv2d(a, w, reach=reach, **args), x, weight, g, torch.float32)
    exact_y, exact_x, exact_weight = passes(lambda a, w: functional.conv2d(a, w, **args), x, weight, g, torch.float64)
    assert torch.equal(y.double(), exact_y)
    close(to_x, exact_x, error_bound(g, filters * kernel * kernel, 1))
    close(to_weight, exact_weight, error_bound(g, images * positions**2, reach))


@pytest.mark.parametrize("images", [16, 64, 128])
def test_a_convolution_over_pixels_of_many_images_has_precise_gradients_in_any_order(images):
    # sums over 128 * 24 * 24 products up to 255 leave float32 no bit for the gradient itself
    def layer(a, w):
        return binary_conv2d(a, w, reach=255)

    x, weight, g = inputs(images, 1, 28, 28, reach=255), signs(2, 1, 5, 5, seed=1), normal(images, 2, 24, 24, seed=2)
    ours = passes(layer, x, weight, g, torch.float32)[2]
    exact = passes(functional.conv2d, x, weight, g, torch.float64)[2]
    assert float((ours.double() - exact).norm()) < 1e-4 * float(exact.norm())
    one, two = shuffled(layer, x, weight, g)
    assert one == two


@given(
    numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    summands=st.integers(1, 2**30),
)
@settings(max_examples=200, deadline=None)
def test_a_fixed_point_is_of_integers_whose_sums_stay_exact_in_their_type(numbers, summands):
    g = torch.tensor(numbers, dtype=torch.float32)
    top = float(g.abs().max())
    total = torch.zeros_like(g, dtype=torch.float64)
    for q, unit in fixed_point(g, summands):
        if top > 1e-29:
            assert torch.equal(q, q.round())
            assert float(q.abs().max()) * summands <= (2**24 if q.dtype == torch.float32 else 2**53)
        assert math.frexp(unit)[0] == 0.5  # a power of two
        total += q.double() * unit
    if 1e-29 < top < 1e30:
        assert bool(((total - g.double()).abs() <= error_bound(g, summands, 1) / summands).all())


def bits(tensors):
    return [t.detach().numpy().tobytes() for t in tensors]


def test_linear_gradients_have_the_same_bits_at_any_number_of_threads_and_in_any_order(threads):
    x, weight, g = signs(600, 300), signs(200, 300, seed=1), normal(600, 200, seed=2, spread=2.0)
    order = torch.randperm(600, generator=generator(3))
    results = []
    for n_threads in (1, 2):
        threads(n_threads)
        results.append(bits(passes(binary_linear, x, weight, g, torch.float32)))
    y, to_x, to_weight = passes(binary_linear, x[order], weight, g[order], torch.float32)
    back = torch.argsort(order)
    results.append(bits((y[back], to_x[back], to_weight)))
    columns = torch.randperm(200, generator=generator(4))
    _, to_x, _ = passes(binary_linear, x, weight[columns], g[:, columns], torch.float32)
    assert results[0] == results[1] == results[2]
    assert bits([to_x])[0] == results[0][1]


def test_without_fixed_point_the_order_matters():
    x, weight, g = signs(600, 300), signs(200, 300, seed=1), normal(600, 200, seed=2, spread=2.0)
    order = torch.randperm(600, generator=generator(3))
    one = passes(functional.linear, x, weight, g, torch.float32)[2]
    two = passes(functional.linear, x[order], weight, g[order], torch.float32)[2]
    assert not torch.equal(one, two)


def shuffled(layer, x, weight, g):
    """Bits of the gradient of the weights, in order and in another order of the images."""
    order = torch.randperm(len(x), generator=generator(7))
    one = passes(layer, x, weight, g, torch.float32)[2]
    two = passes(layer, x[order], weight, g[order], torch.float32)[2]
    return bits([one, two])


def test_the_largest_sums_are_still_exact():
    # all terms of one sign and nearly as large as the largest: any bit too many would be rounded
    x = torch.full((500, 3), 255.0) - torch.randint(0, 2, (500, 3), generator=generator(0))
    g = 1 - torch.rand(500, 2, generator=generator(1)) / 16
    one, two = shuffled(lambda a, w: binary_linear(a, w, reach=255), x, signs(2, 3), g)
    assert one == two
    images = torch.full((60, 1, 9, 9), 255.0) - torch.randint(0, 2, (60, 1, 9, 9), generator=generator(2))
    g = 1 - torch.rand(60, 2, 7, 7, generator=generator(3)) / 16
    one, two = shuffled(lambda a, w: binary_conv2d(a, w, reach=255), images, signs(2, 1, 3, 3), g)
    assert one == two


def test_sums_that_cancel_have_the_same_bits_in_any_order():
    half = torch.randn(300, 4, generator=generator(0))
    g = torch.cat([half, -half.flip(0), torch.randn(20, 4, generator=generator(1)) * 1e-11])
    order = torch.randperm(len(g), generator=generator(2))
    sums = torch.randint(-5, 6, g.shape, generator=generator(3)).float()

    def bias_gradient(gradient):
        bias = torch.zeros(4, requires_grad=True)
        scaled(sums, bias, scale=1.0).backward(gradient)
        return bias.grad

    one, two = bias_gradient(g), bias_gradient(g[order])
    assert bool(one.any())
    assert torch.equal(one, two)


def test_convolutions_have_the_same_bits_at_any_number_of_threads_and_in_any_order(threads):
    def layer(a, w):
        return binary_conv2d(a, w, padding=1)

    x, weight, g = signs(40, 6, 10, 10), signs(8, 6, 3, 3, seed=1), normal(40, 8, 10, 10, seed=2, spread=2.0)
    order = torch.randperm(40, generator=generator(3))
    results = []
    for n_threads in (1, 2):
        threads(n_threads)
        results.append(bits(passes(layer, x, weight, g, torch.float32)))
    y, to_x, to_weight = passes(layer, x[order], weight, g[order], torch.float32)
    back = torch.argsort(order)
    results.append(bits((y[back], to_x[back], to_weight)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_is_not_made_finite(value):
    g = torch.zeros(4, 3)
    g[1, 1] = value
    _, to_x, to_weight = passes(binary_linear, signs(4, 5), signs(3, 5, seed=1), g, torch.float32)
    assert not bool(torch.isfinite(to_x).all())
    assert not bool(torch.isfinite(to_weight).all())


def test_gradients_of_zero_stay_zero():
    _, to_x, to_weight = passes(binary_linear, signs(4, 5), signs(3, 5, seed=1), torch.zeros(4, 3), torch.float32)
    assert not to_x.any() and not to_weight.any()


SHAPES = [(16, 5), (100, 12), (7, 3, 4, 4), (32, 6, 5, 3)]


def norms(channels, seed):
    """Ours in float32 and torch's in float64, with the same parameters."""
    ours = ExactBatchNorm(channels)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(channels, generator=generator(seed)))
        ours.bias.copy_(torch.randn(channels, generator=generator(seed + 1)))
    return ours, ours.weight.detach().double(), ours.bias.detach().double()


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_is_that_of_torch_in_float64(shape):
    channels = shape[1]
    ours, gamma, beta = norms(channels, 5)
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(channels).double()
    theirs.load_state_dict({"weight": gamma, "bias": beta}, strict=False)
    for step in range(4):
        sums = torch.randint(-30, 31, shape, generator=generator(step)).float()
        g = normal(*shape, seed=step + 10)
        x, x64 = sums.clone().requires_grad_(), sums.double().requires_grad_()
        y, y64 = ours(x), theirs(x64)
        y.backward(g)
        y64.backward(g.double())
        torch.testing.assert_close(y.double(), y64, rtol=1e-6, atol=1e-6)
        top = float(x64.grad.abs().max())
        torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-6, atol=1e-7 * top)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-6, atol=1e-6 * float(g.abs().max()))
        ours.zero_grad()
        theirs.zero_grad()
    torch.testing.assert_close(ours.running_mean.double(), theirs.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, rtol=1e-6, atol=1e-6)
    ours.eval()
    theirs.eval()
    sums = torch.randint(-30, 31, shape, generator=generator(99)).float()
    torch.testing.assert_close(ours(sums).double(), theirs(sums.double()), rtol=1e-5, atol=1e-5)


def test_a_channel_that_never_changes_has_a_finite_norm():
    ours = ExactBatchNorm(2)
    sums = torch.tensor([[3.0, 1.0], [3.0, -1.0], [3.0, 1.0]], requires_grad=True)
    y = ours(sums)
    y.square().sum().backward()
    assert y[:, 0].tolist() == [0, 0, 0]
    assert bool(torch.isfinite(sums.grad).all())


def test_batch_norm_has_the_same_bits_at_any_number_of_threads_and_in_any_order(threads):
    shape = (300, 8, 6, 6)
    sums = torch.randint(-50, 51, shape, generator=generator(0)).float()
    g = normal(*shape, seed=1, spread=2.0)
    order = torch.randperm(300, generator=generator(2))
    back = torch.argsort(order)

    def run(x, gradient, unpermute):
        norm = norms(8, 5)[0]
        x = x.clone().requires_grad_()
        y = norm(x)
        y.backward(gradient)
        return bits((y[unpermute], x.grad[unpermute], norm.weight.grad, norm.bias.grad, norm.running_var))

    results = []
    for n_threads in (1, 2):
        threads(n_threads)
        results.append(run(sums, g, torch.arange(300)))
    results.append(run(sums[order], g[order], back))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("shape", SHAPES)
def test_biases_and_scales_have_the_gradients_of_float64(shape):
    sums = torch.randint(-30, 31, shape, generator=generator(0)).float()
    bias, g = torch.randn(shape[1], generator=generator(1)), normal(*shape, seed=2)
    ours, x = bias.clone().requires_grad_(), sums.clone().requires_grad_()
    y = scaled(x, ours, scale=0.25)
    y.backward(g)
    dims = [d for d in range(len(shape)) if d != 1]
    view = [1, -1] + [1] * (len(shape) - 2)
    torch.testing.assert_close(y, sums * 0.25 + bias.view(view))
    torch.testing.assert_close(ours.grad.double(), g.double().sum(dims), rtol=1e-6, atol=1e-7 * float(g.abs().max()))
    assert torch.equal(x.grad, g * 0.25)


def test_scores_have_the_gradients_of_float64_and_the_same_bits_in_any_order():
    sums = torch.randint(-30, 31, (200, 10), generator=generator(0)).float()
    g = normal(200, 10, seed=2, spread=2.0)
    order = torch.randperm(200, generator=generator(3))

    def run(x, gradient, dtype, layer):
        x = x.to(dtype, copy=True).requires_grad_()
        scale = torch.tensor(0.125, dtype=dtype, requires_grad=True)
        bias = torch.linspace(-1, 1, 10).to(dtype, copy=True).requires_grad_()
        y = layer(x, scale, bias)
        y.backward(gradient.to(dtype))
        return y.detach(), x.grad, scale.grad, bias.grad

    ours = run(sums, g, torch.float32, scores)
    exact = run(sums, g, torch.float64, lambda x, scale, bias: x * scale + bias)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))
    again = run(sums[order], g[order], torch.float32, scores)
    assert bits(ours[2:]) == bits(again[2:])
    assert np.array_equal(ours[0][order].numpy(), again[0].numpy())
