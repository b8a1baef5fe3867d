"""Layers whose passes give the same bits in any order of summation, and so at any number of threads.

Everything that a forward pass of a binarized layer adds up is an integer, which float32 holds exactly up to 2^24.
The backward pass adds up real gradients, and there the order would matter. So the gradients that enter a sum are
first rounded to fixed point: integers times a power of two, as large as their sums of integers stay exact. They
keep 15 to 20 bits relative to the largest gradient of the block, in one or two float32 parts, or in float64 where sums
are so long (as in a convolution over pixels) that two parts hold fewer; batch norm's sums keep more, in float64.

References:
    The straight-through estimator: Hubara et al., NeurIPS 2016. Fixed-point gradients for reproducible sums: ours
    (the idea is that of Demmel and Nguyen, "Fast reproducible floating-point summation", ARITH 2013).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn import grad as conv_gradients

from bnnverify.compilation import njit

_FLOAT32_BITS = 24
_FLOAT64_BITS = 53
_ENOUGH = 15
_LEAST = 7  # bits of one of two float32 parts, which then carry 15
_FLOAT64_KEPT = 20


def fixed_point(gradient: Tensor, summands: int) -> list[tuple[Tensor, float]]:
    """Integers times powers of two that add up to nearly `gradient`.

    Args:
        gradient: float32, any shape, finite.
        summands: Bound on the sum of the absolute factors that the integers will be multiplied with and added:
            the length of the sum if they are signs.

    Returns:
        Pairs of integers and the power of two they count. Sums of the integers times such factors stay below 2^24 in
        float32: one pair if it carries 15 bits, two pairs if they do together; else one pair in float64, whose sums
        stay below 2^53.
    """
    top = _largest(gradient)
    if top == 0.0 or not math.isfinite(top):
        return [(gradient, 1.0)]  # zeros are exact; infinity and NaN are found by the loop
    exponent = math.frexp(top)[1]
    bits = _FLOAT32_BITS - math.ceil(math.log2(max(summands, 2)))
    if bits < _LEAST:
        bits = min(_FLOAT64_KEPT, bits + _FLOAT64_BITS - _FLOAT32_BITS)
        return [((gradient.double() * math.ldexp(1.0, bits - exponent)).round_(), math.ldexp(1.0, exponent - bits))]
    if not _fits(bits - exponent):  # gradients below 1e-30: nothing that a rule could use
        return [(torch.zeros_like(gradient), 1.0)]
    scale, unit = math.ldexp(1.0, bits - exponent), math.ldexp(1.0, exponent - bits)
    if bits >= _ENOUGH:
        return [((gradient * scale).round_(), unit)]
    first, second = _two_parts(gradient, scale, 2.0 ** (bits + 1))
    return [(first, unit), (second, math.ldexp(1.0, exponent - 2 * bits - 1))]


def _largest(gradient: Tensor) -> float:
    """The largest absolute value; NaN if there is one."""
    if not gradient.numel():
        return 0.0
    lower, upper = torch.aminmax(gradient)
    return max(-float(lower), float(upper))


def _two_parts(gradient: Tensor, scale: float, more: float) -> tuple[Tensor, Tensor]:
    """Integers next to ``gradient * scale``, and next to ``more`` times what they leave over (which is exact)."""
    if gradient.device.type == "cpu" and gradient.is_contiguous():
        first, second = torch.empty_like(gradient), torch.empty_like(gradient)
        _split(
            gradient.numpy().reshape(-1),
            np.float32(scale),
            np.float32(more),
            first.numpy().reshape(-1),
            second.numpy().reshape(-1),
        )
        return first, second
    exact = gradient * scale
    first = torch.round(exact)
    return first, ((exact - first) * more).round_()


@njit(nogil=True)
def _split(
    gradient: NDArray[np.float32],
    scale: np.float32,
    more: np.float32,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
) -> None:
    for i in range(gradient.size):
        exact = gradient[i] * scale
        first[i] = np.rint(exact)
        second[i] = np.rint((exact - first[i]) * more)


def _fits(exponent: int) -> bool:
    return -120 < exponent < 120


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, reach: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.reach = reach
        return functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        to_x: Tensor | None = None
        to_weight: Tensor | None = None
        for q, unit in fixed_point(gradient, max(x.shape[0] * ctx.reach, weight.shape[0])):
            if ctx.needs_input_grad[0]:
                to_x = _plus(to_x, q @ weight.to(q.dtype), unit)
            to_weight = _plus(to_weight, q.t() @ x.to(q.dtype), unit)
        return _as(to_x, x), _as(to_weight, weight), None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, reach: int, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.reach, ctx.stride, ctx.padding = reach, stride, padding
        sums = functional.conv2d(x, weight, stride=stride, padding=padding)
        return sums if x.device.type == "cpu" else sums.round()  # a GPU may take a transform for the convolution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        positions = gradient.shape[0] * gradient.shape[2] * gradient.shape[3]
        to_x: Tensor | None = None
        to_weight: Tensor | None = None
        args = {"stride": ctx.stride, "padding": ctx.padding}
        if ctx.needs_input_grad[0]:
            for q, unit in fixed_point(gradient, weight.shape[0] * weight.shape[2] * weight.shape[3]):
                product = conv_gradients.conv2d_input(x.shape, weight.to(q.dtype), q, **args)  # type: ignore[no-untyped-call]
                to_x = _plus(to_x, product, unit)
        for q, unit in fixed_point(gradient, positions * ctx.reach):
            wide = x.to(q.dtype)
            product = conv_gradients.conv2d_weight(wide, weight.shape, q, **args)  # type: ignore[no-untyped-call]
            to_weight = _plus(to_weight, product, unit)
        return _as(to_x, x), _as(to_weight, weight), None, None, None


def _plus(total: Tensor | None, integers: Tensor, unit: float) -> Tensor:
    return integers.mul_(unit) if total is None else total.add_(integers, alpha=unit)


def _as(total: Tensor | None, like: Tensor) -> Tensor | None:
    """Rounded to the type of what it is the gradient of."""
    return None if total is None else total.to(like.dtype)


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        shape = (1, -1) + (1,) * (sums.ndim - 2)
        return torch.add(bias.view(shape), sums, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient,) = gradients
        to_bias = None
        if ctx.needs_input_grad[1]:
            to_bias = _channel_sums(gradient, None)[0].to(gradient.dtype)
        return gradient * ctx.scale, to_bias, None


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(sums, scale)
        return sums * scale + bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        sums, scale = ctx.saved_tensors
        (gradient,) = gradients
        to_scale, to_bias = None, None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            total, times = _channel_sums(gradient, sums)
            to_scale, to_bias = times.sum().to(scale.dtype), total.to(gradient.dtype)
        return gradient * scale, to_scale, to_bias


class _BatchNorm(torch.autograd.Function):
    """Batch norm over integers: mean and variance are exact before the one division."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(sums, gamma, mean, inverse)
        shape = (1, -1) + (1,) * (sums.ndim - 2)
        slope = gamma.double() * inverse
        shift = beta.double() - mean * slope
        return torch.addcmul(shift.view(shape), sums.double(), slope.view(shape)).to(sums.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        sums, gamma, mean, inverse = ctx.saved_tensors
        (gradient,) = gradients
        count = sums.numel() // sums.shape[1]
        total, times = _channel_sums(gradient, sums)
        along = (times - mean * total) * inverse  # sum of gradient * normalized
        shape = (1, -1) + (1,) * (sums.ndim - 2)
        normalized_slope = inverse * inverse * gamma * along / count
        constant = gamma * inverse * total / count - normalized_slope * mean
        to_sums = gradient.double() * (gamma.double() * inverse).view(shape)
        to_sums -= sums.double() * normalized_slope.view(shape) + constant.view(shape)
        return to_sums.to(gradient.dtype), along.to(gamma.dtype), total.to(gamma.dtype), None, None


def _channel_sums(gradient: Tensor, integers: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums over batch and positions of the gradient, and of gradient times integers, float64, in any order the same."""
    dims = [d for d in range(gradient.ndim) if d != 1]
    top = _largest(gradient)
    count = gradient.numel() // gradient.shape[1]
    reach = 1.0 if integers is None else max(1.0, _largest(integers))
    bits = _FLOAT64_BITS - math.ceil(math.log2(max(count * reach, 2.0)))
    q = gradient.double()
    if 0.0 < top < math.inf:
        unit = math.ldexp(1.0, math.frexp(top)[1] - bits)
        q = torch.round(q / unit) * unit
    total = q.sum(dims)
    return total, total if integers is None else (q * integers.double()).sum(dims)


def binary_linear(x: Tensor, weight: Tensor, *, reach: int = 1) -> Tensor:
    """``x @ weight.T`` for integer inputs and binary weights, with reproducible gradients.

    Args:
        x: Shape `(N, n)`, integers in float32.
        weight: Shape `(m, n)`, -1/+1 in float32; N, n and m below 2^20.
        reach: Bound on ``|x|``: 1 for signs, 255 for centred pixels.

    Returns:
        Shape `(N, m)`, exact integers as long as ``n * reach`` is at most 2^24.
    """
    result: Tensor = _Linear.apply(x, weight, reach)  # type: ignore[no-untyped-call]
    return result


def binary_conv2d(x: Tensor, weight: Tensor, *, reach: int = 1, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution of integer images with binary filters, with reproducible gradients; padded inputs are absent (0).

    Args:
        x: Shape `(N, C, H, W)`, integers in float32.
        weight: Shape `(F, C, k, k)`, -1/+1.
        reach: Bound on ``|x|``.
        stride: Step of the filter.
        padding: Absent rows and columns on each side.
    """
    result: Tensor = _Conv.apply(x, weight, reach, stride, padding)  # type: ignore[no-untyped-call]
    return result


def scaled(sums: Tensor, bias: Tensor, *, scale: float) -> Tensor:
    """``sums * scale + bias``, the bias per channel (dimension 1), its gradient reproducible."""
    result: Tensor = _Affine.apply(sums, bias, scale)  # type: ignore[no-untyped-call]
    return result


def scores(sums: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """``sums * scale + bias`` of shape `(N, classes)`, one learned scale for all, its gradient reproducible."""
    result: Tensor = _Scores.apply(sums, scale, bias)  # type: ignore[no-untyped-call]
    return result


class ExactBatchNorm(torch.nn.Module):
    """Batch norm of integer sums, per channel (dimension 1): torch's definition, reproducible statistics.

    Args:
        channels: Number of channels.
        eps: Added to the variance.
        momentum: Weight of a new batch in the running mean and the running (unbiased) variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.bias = torch.nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, sums: Tensor) -> Tensor:
        """Normalized sums, by the statistics of the batch in training, else by the running ones."""
        if self.training:
            mean, variance = self._statistics(sums)
        else:
            mean, variance = self.running_mean.double(), self.running_var.double()
        inverse = torch.rsqrt(variance + self.eps)
        result: Tensor = _BatchNorm.apply(sums, self.weight, self.bias, mean, inverse)  # type: ignore[no-untyped-call]
        return result

    @torch.no_grad()
    def _statistics(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        dims = [d for d in range(sums.ndim) if d != 1]
        count = sums.numel() // sums.shape[1]
        exact = sums.double()
        mean = exact.sum(dims) / count
        variance = (exact.square().sum(dims) / count - mean.square()).clamp(min=0)
        unbiased = variance * count / max(count - 1, 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return mean, variance
