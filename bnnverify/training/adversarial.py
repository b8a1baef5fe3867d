"""Training images changed against the network, by one step along the gradient of the loss.

References:
    The step over pixels: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor


def worsened(images: Tensor, gradient: Tensor, amount: int, *, binary: bool, top: int = 1) -> Tensor:
    """Images that a network does worse on, if its loss were linear.

    Args:
        images: Shape `(N, n)`: signs, or centred pixels ``2p - top`` with p of 0 to top.
        gradient: Of the loss with respect to them.
        amount: Number of signs that flip, those which raise the loss most (of equals, the first ones); or how far
            every pixel moves, within its range. What would not raise the loss stays.
        binary: Whether the images are signs.
        top: The greatest pixel.

    >>> worsened(torch.tensor([[1.0, -1, 1]]), torch.tensor([[-1.0, 3, 2]]), 2, binary=True)
    tensor([[-1.,  1.,  1.]])
    >>> worsened(torch.tensor([[16.0, -16, 0]]), torch.tensor([[-1.0, -3, 2]]), 3, binary=False, top=16)
    tensor([[ 10., -16.,   6.]])
    """
    if not binary:
        return (images + 2 * amount * gradient.sign()).clamp(-top, top)
    gain = -images * gradient  # of a flip
    chosen = gain.argsort(dim=1, descending=True, stable=True)[:, :amount]
    flips = torch.zeros_like(images, dtype=torch.bool).scatter_(1, chosen, True) & (gain > 0)
    return torch.where(flips, -images, images)
