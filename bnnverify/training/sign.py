"""The sign with sgn(0) = +1 and its straight-through gradient; torch.sign(0) is 0 and makes a third value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ABOVE_1 = 1 + 2.0**-23


def sgn(x: Tensor) -> Tensor:
    """-1 where x < 0 and +1 elsewhere, in the type of `x`.

    >>> sgn(torch.tensor([-0.5, -0.0, 0.0, 2.0])).tolist()
    [-1.0, 1.0, 1.0, 1.0]
    """
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class _SteSign(torch.autograd.Function):
    """Forward sgn(x - threshold); backward the gradient of hardtanh(x - center)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: float, center: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.center = center
        fires = torch.ge(x, threshold, out=torch.empty_like(x))  # 1 or 0; several times faster than torch.where
        return fires.mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        inside = x - ctx.center if ctx.center else x
        # it passes what lies strictly inside its bounds, so these are the next numbers beyond -1 and +1
        return torch.ops.aten.hardtanh_backward(gradients[0], inside, -_ABOVE_1, _ABOVE_1), None, None


def ste_sign(x: Tensor, *, x_shift: float = 0.0, y_shift: float = 0.0) -> Tensor:
    r"""Sign with the straight-through estimator, its threshold possibly shifted.

    Forward :math:`y = \mathrm{sgn}(\mathrm{hardtanh}(x - x_0) + y_0)`, sgn(0) = +1: +1 iff
    :math:`x \ge x_0 - y_0`. Pseudo-gradient :math:`dy/dx = 1` where :math:`|x - x_0| \le 1`, else 0. An x-shift moves
    threshold and window together; a y-shift moves the threshold inside the window. Either makes the numbers of +1
    and -1 outputs unequal.

    Args:
        x: Any shape.
        x_shift: :math:`x_0`.
        y_shift: :math:`y_0`, in (-1, 1).

    References:
        Hubara et al., "Binarized neural networks", NeurIPS 2016, Sec. 1.3, Eq. 4.
        The shifts: Kim et al., "Improving accuracy of binary neural networks using unbalanced activation
        distribution", CVPR 2021.
    """
    result: Tensor = _SteSign.apply(x, x_shift - y_shift, x_shift)  # type: ignore[no-untyped-call]
    return result


def inside_window(x: Tensor, x_shift: float = 0.0) -> Tensor:
    """Where gradients pass the sign: ``|x - x_shift| <= 1``."""
    return (x - x_shift).abs() <= 1 if x_shift else x.abs() <= 1
