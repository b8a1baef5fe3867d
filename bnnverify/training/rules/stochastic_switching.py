"""StochasticSwitching: binary cells that each pulse switches with a probability, driven by an averaged gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bnnverify.errors import QueryError


@dataclass(frozen=True, slots=True)
class StochasticSwitching:
    r"""Stochastic switching with an exponential moving average (SS-EMA).

    :math:`m \leftarrow (1-\gamma)m + \gamma\,\partial L/\partial w`. A weight is eligible where :math:`w m > 0`,
    that is, where a flip lowers the averaged loss to first order. Every eligible cell gets one pulse and switches
    with probability :math:`p = \min(1, r |m|^k / \mathrm{mean}(|m|^k))`, the mean over all weights of the block. No
    latent weight exists: the only memory of a weight is its cell and, in the periphery, its average m.

    Attributes:
        rate: r at the start: about twice the expected fraction of cells that switch in a step, at most 1.
        decay: The rate falls geometrically to `decay` times its start.
        gamma: Adaptivity of the average; 1 uses the gradient of the mini-batch alone.
        power: Exponent k; above 1 it favours cells with a strong and steady gradient.

    References:
        Idea: Akesson, "Use of stochastic switching in the training of binarized neural networks", Lund University,
        2022. The averaged form, its probability law and all details: ours. Close relatives: Bop (Helwegen et al.,
        NeurIPS 2019) and discrete state transition (Deng et al., "GXNOR-Net", Neural Networks 2018).
    """

    rate: float = 0.01
    decay: float = 0.003
    gamma: float = 0.02
    power: float = 2.0

    name: ClassVar[str] = "ss-ema"
    recipe: ClassVar[Mapping[str, Any]] = {"epochs": 600, "batch_norm": True}

    def __post_init__(self) -> None:
        for what in ("rate", "decay", "gamma"):
            value = getattr(self, what)
            if not 0 < value <= 1:
                raise QueryError(f"{what} of the rule ss-ema is {value}, expected above 0 and at most 1.")
        if not self.power > 0:
            raise QueryError(f"power of the rule ss-ema is {self.power}, expected above 0.")

    def start(self, weights: Sequence[Tensor], *, generator: torch.Generator) -> _SwitchingState:
        """Averages at zero; the generator draws the outcome of every pulse."""
        return _SwitchingState(self, weights, generator)


def switching_probability(weight: Tensor, average: Tensor, *, rate: float, power: float) -> Tensor:
    """Probability that each cell of a block switches in one step: 0 exactly where it gets no pulse.

    Args:
        weight: Stored signs -1/+1, any shape.
        average: Averaged gradients m, same shape.
        rate: r, above 0.
        power: k, above 0.

    Returns:
        Probabilities in [0, 1], same shape; all 0 if all averages are.
    """
    # relative to the largest average: |m|^k of tiny gradients must not underflow
    relative = average.abs() / average.abs().max().clamp_min(torch.finfo(average.dtype).tiny)
    strength = relative.pow(power)
    mean = strength.mean()
    if mean == 0:
        return torch.zeros_like(strength)
    eligible = weight * average > 0
    return torch.where(eligible, (rate / mean * strength).clamp(max=1), 0)


class _SwitchingState:
    def __init__(self, rule: StochasticSwitching, weights: Sequence[Tensor], generator: torch.Generator) -> None:
        self._rule = rule
        self._weights = weights
        self._averages = [torch.zeros_like(w) for w in weights]
        self._generator = generator
        self._pulses = self._switches = 0

    def prepare(self, *, training: bool) -> None:
        """Nothing to do: training and evaluation read the same cells."""

    @torch.no_grad()
    def step(self, progress: float, loss: Callable[[], float]) -> None:
        rule = self._rule
        rate = rule.rate * rule.decay**progress
        for weight, average in zip(self._weights, self._averages, strict=True):
            if weight.grad is None:
                raise RuntimeError("step() before backward()")
            average.lerp_(weight.grad, rule.gamma)
            p = switching_probability(weight, average, rate=rate, power=rule.power)
            switched = torch.rand(p.shape, generator=self._generator, dtype=p.dtype).to(p.device) < p
            weight.copy_(torch.where(switched, -weight, weight))
            self._pulses += int(torch.count_nonzero(p))
            self._switches += int(torch.count_nonzero(switched))

    def statistics(self) -> dict[str, int]:
        return {"pulses": self._pulses, "switches": self._switches}
