"""The trainable network: torch modules whose binary weights are -1/+1 at every moment.

A binary weight is a parameter that holds -1 or +1, nothing else: the forward pass reads it as it is and the
backward pass leaves the gradient with respect to the binary weight in ``.grad``. What lies behind the sign (latent
weights, moments, counters) belongs to the update rule, so latent and latent-free rules train the same modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from bnnverify.training.sign import sgn, ste_sign


class HiddenBlock(nn.Module):
    """Binary linear layer, batch norm or a fixed scale, sign.

    With batch norm ``z = batch_norm(W x)``, epsilon 1e-5. Without it ``z = W x / sqrt(n) + bias``, the bias zero
    and not trained if `bias` is False. The block outputs sgn(z), straight-through for ``|z| <= 1``.
    """

    def __init__(self, n: int, m: int, *, batch_norm: bool, bias: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(_random_signs((m, n), generator))
        self.norm = nn.BatchNorm1d(m, eps=1e-5) if batch_norm else None
        self.bias = None if batch_norm else nn.Parameter(torch.zeros(m), requires_grad=bias)

    def normalized(self, x: Tensor) -> Tensor:
        """What the sign is taken of, shape `(N, m)`."""
        s = functional.linear(x, self.weight)
        if self.bias is not None:
            return s / math.sqrt(self.weight.shape[1]) + self.bias
        assert self.norm is not None
        z: Tensor = self.norm(s)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Signs of all neurons, shape `(N, m)`."""
        return ste_sign(self.normalized(x))


class OutputScores(nn.Module):
    """Scores ``scale * (W h) + bias``: binary weights, one positive scale for all classes, a bias per class."""

    def __init__(self, n: int, classes: int, *, bias: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(_random_signs((classes, n), generator))
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(n)))
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=bias)

    @property
    def scale(self) -> Tensor:
        """The common scale, above 0 because it is an exponential."""
        return self.log_scale.exp()

    def forward(self, h: Tensor) -> Tensor:
        """Scores, shape `(N, classes)`."""
        return self.scale * functional.linear(h, self.weight) + self.bias


class BinaryMlp(nn.Module):
    """Hidden blocks and the output scores, initialized with random signs.

    Args:
        widths: Inputs, neurons of each hidden block, classes.
        batch_norm: Whether hidden blocks normalize.
        bias: Whether hidden blocks without batch norm learn a bias.
        output_bias: Whether the scores learn a bias per class.
        generator: Draws the initial signs.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        batch_norm: bool = False,
        bias: bool = True,
        output_bias: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.hidden: Sequence[HiddenBlock] = nn.ModuleList(  # type: ignore[assignment]
            HiddenBlock(n, m, batch_norm=batch_norm, bias=bias, generator=generator) for n, m in pairwise(widths[:-1])
        )
        self.output = OutputScores(widths[-2], widths[-1], bias=output_bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a batch of signs, shape `(N, n)` -> `(N, classes)`."""
        for block in self.hidden:
            x = block(x)
        scores: Tensor = self.output(x)
        return scores

    def trace(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores, and what the sign is taken of in each hidden block, shape `(N, m)` each."""
        normalized = []
        for block in self.hidden:
            normalized.append(block.normalized(x))
            x = ste_sign(normalized[-1])
        return self.output(x), normalized

    def binary_weights(self) -> list[nn.Parameter]:
        """The weight matrices that the update rule owns, first block first."""
        return [*(block.weight for block in self.hidden), self.output.weight]

    def real_parameters(self) -> list[nn.Parameter]:
        """All other parameters that are trained: batch norm, biases, the output scale."""
        binary = {id(weight) for weight in self.binary_weights()}
        return [p for p in self.parameters() if id(p) not in binary and p.requires_grad]


def _random_signs(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return sgn(torch.rand(shape, generator=generator) - 0.5)
