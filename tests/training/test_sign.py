import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.training.sign import inside_window, sgn, ste_sign

# dyadic, so that sums and differences of them are exact
dyadic = st.integers(-64, 64).map(lambda i: i / 16)


def test_sign_of_zero_is_plus_one_and_nothing_is_zero():
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, -1e-30])
    assert sgn(x).tolist() == ste_sign(x).tolist() == [-1, 1, 1, 1, -1]
    assert torch.sign(torch.zeros(1)).item() == 0  # which is why


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_stays(dtype):
    assert ste_sign(torch.zeros(3, dtype=dtype), x_shift=0.5).dtype == sgn(torch.zeros(3, dtype=dtype)).dtype == dtype


def test_the_gradient_passes_exactly_where_the_input_is_within_one():
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.001], requires_grad=True)
    (ste_sign(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0]


def hardtanh(x):
    return min(max(x, -1.0), 1.0)


@given(st.lists(dyadic, min_size=1, max_size=9), dyadic, st.integers(-15, 15).map(lambda i: i / 16))
def test_shifts_are_those_of_the_formula(values, x_shift, y_shift):
    x = torch.tensor(values, requires_grad=True)
    y = ste_sign(x, x_shift=x_shift, y_shift=y_shift)
    assert y.tolist() == [1.0 if hardtanh(v - x_shift) + y_shift >= 0 else -1.0 for v in values]
    factors = torch.arange(1.0, len(values) + 1)
    (y * factors).sum().backward()
    window = [abs(v - x_shift) <= 1 for v in values]
    assert x.grad.tolist() == [f if inside else 0.0 for f, inside in zip(factors.tolist(), window, strict=True)]
    assert inside_window(x, x_shift).tolist() == window


def test_an_x_shift_moves_threshold_and_window_and_a_y_shift_the_threshold_alone():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)

    def interval(**shifts):
        x.grad = None
        y = ste_sign(x, **shifts)
        y.sum().backward()
        window = x.detach()[x.grad > 0]
        return float(x.detach()[y > 0].min()), float(window.min()), float(window.max())

    assert interval() == pytest.approx((0, -1, 1), abs=0.011)
    assert interval(x_shift=0.5) == pytest.approx((0.5, -0.5, 1.5), abs=0.011)
    assert interval(y_shift=0.5) == pytest.approx((-0.5, -1, 1), abs=0.011)


def test_the_sign_does_not_write_into_its_input():
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    ste_sign(x, x_shift=0.25, y_shift=0.5)
    sgn(x)
    np.testing.assert_array_equal(x.numpy(), before.numpy())
