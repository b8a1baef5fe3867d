"""SteSign: real latent weights behind the sign, trained by Adam and clipped to [-1, +1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bnnverify.errors import QueryError
from bnnverify.training.sign import sgn


@dataclass(frozen=True, slots=True)
class SteSign:
    r"""Latent weights with the straight-through estimator.

    :math:`w = \mathrm{sgn}(v)`, :math:`v \leftarrow \mathrm{clip}(v - \eta\,\mathrm{Adam}(\partial L/\partial w),
    -1, 1)`: the gradient is taken at the binary weights and applied to the latent ones.

    Latent weights that are drawn to zero change sign for ever, a few in every step, so the weights of any one moment
    are partly chance. An evaluation and the export therefore read the majority: the sign of an exponential moving
    average of w.

    Attributes:
        learning_rate: Step size eta at the start, in units of the latent weights.
        decay: The step size falls along half a cosine to `decay` times its start.
        init: Latent weights start uniform in (0, `init`) times the weight's sign, at most 1.
        average: Weight of the past in the moving average of w, per step; 0 deploys the weights as they are.

    References:
        Hubara et al., "Binarized neural networks", NeurIPS 2016, Sec. 1 and Algorithm 1.
        Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
        The oscillation: Nagel et al., "Overcoming oscillations in quantization-aware training", ICML 2022. The
        majority against it: ours.
    """

    learning_rate: float = 0.01
    decay: float = 0.01
    init: float = 1.0
    average: float = 0.99

    name: ClassVar[str] = "ste"
    recipe: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise QueryError(f"learning_rate of the rule ste is {self.learning_rate}, expected above 0.")
        if not 0 < self.decay <= 1:
            raise QueryError(f"decay of the rule ste is {self.decay}, expected above 0 and at most 1.")
        if not 0 < self.init <= 1:
            raise QueryError(f"init of the rule ste is {self.init}, expected above 0 and at most 1.")
        if not 0 <= self.average < 1:
            raise QueryError(f"average of the rule ste is {self.average}, expected at least 0 and below 1.")

    def start(self, weights: Sequence[Tensor], *, generator: torch.Generator) -> _LatentState:
        """Latent weights of random size behind the given signs."""
        return _LatentState(self, weights, generator)


class _LatentState:
    def __init__(self, rule: SteSign, weights: Sequence[Tensor], generator: torch.Generator) -> None:
        self._rule = rule
        self._weights = weights
        self._latent = [
            w.detach() * rule.init * torch.rand(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            for w in weights
        ]
        self._average = [w.detach().clone() for w in weights]
        self._adam = torch.optim.Adam(self._latent, lr=rule.learning_rate)

    def prepare(self, *, training: bool) -> None:
        """Training reads the signs of the latent weights, an evaluation the majority."""
        with torch.no_grad():
            for source, weight in zip(self._latent if training else self._average, self._weights, strict=True):
                weight.copy_(sgn(source))

    @torch.no_grad()
    def step(self, progress: float, loss: Callable[[], float]) -> None:
        rule = self._rule
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        self._adam.param_groups[0]["lr"] = rule.learning_rate * (rule.decay + (1 - rule.decay) * cosine)
        for latent, weight in zip(self._latent, self._weights, strict=True):
            latent.grad = weight.grad
        self._adam.step()
        for latent, weight, average in zip(self._latent, self._weights, self._average, strict=True):
            latent.clamp_(-1, 1)
            weight.copy_(sgn(latent))
            average.lerp_(weight, 1 - rule.average)

    def statistics(self) -> dict[str, int]:
        return {}
