"""The sign with sgn(0) = +1 and its straight-through gradient; torch.sign(0) is 0 and makes a third value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sgn(x: Tensor) -> Tensor:
    """-1 where x < 0 and +1 elsewhere, in the type of `x`.

    >>> sgn(torch.tensor([-0.5, -0.0, 0.0, 2.0])).tolist()
    [-1.0, 1.0, 1.0, 1.0]
    """
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class _SteSign(torch.autograd.Function):
    """Forward sgn(x); backward the gradient of hardtanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sgn(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        inside: Tensor = x.abs() <= 1
        return gradient * inside


def ste_sign(x: Tensor) -> Tensor:
    r"""Sign with the straight-through estimator.

    Forward :math:`y = \mathrm{sgn}(x)`, sgn(0) = +1; pseudo-gradient :math:`dy/dx = 1` where :math:`|x| \le 1`,
    else 0.

    References:
        Hubara et al., "Binarized neural networks", NeurIPS 2016, Sec. 1.3, Eq. 4.
    """
    result: Tensor = _SteSign.apply(x)  # type: ignore[no-untyped-call]
    return result
