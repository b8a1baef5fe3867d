"""The losses that networks are trained with."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

LOSSES = ("cross-entropy", "squared-hinge", "margin-hinge")


def loss_of(scores: Tensor, labels: Tensor, loss: str, *, margin: float = 128.0) -> Tensor:
    """Mean loss of scores `(N, classes)` against labels `(N,)`.

    ``cross-entropy`` is that of the softmax. ``squared-hinge`` is the mean over images and classes of
    ``max(0, 1 - t * score)^2`` with t = +1 for the true class and -1 for the others. ``margin-hinge`` is the mean of
    ``max(0, margin - t * score) / margin``: with scores that are plain sums, it asks for a distance that many bit
    flips must bridge.

    References:
        Squared hinge: Hubara et al., NeurIPS 2016. Margin: Buschjaeger et al., "Margin-maximization in binarized
        neural networks for optimizing bit error tolerance", DATE 2021, b = 128.
    """
    if loss == "cross-entropy":
        return functional.cross_entropy(scores, labels)
    target = 2.0 * functional.one_hot(labels, scores.shape[1]) - 1.0
    if loss == "squared-hinge":
        return (1 - target * scores).clamp(min=0).square().mean()
    return (margin - target * scores).clamp(min=0).mean() / margin
