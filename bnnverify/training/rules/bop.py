"""Bop: flip a binary weight when the moving average of its gradient asks for it strongly enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.training.rules.base import Cells, Gradient, Probe, Randomness, known, require
from bnnverify.training.rules.schedules import Schedule, neat, read_schedules

MEMORIES = 3.0  # of moving averages in a run, the length of each being one by its weight
_TAU = 0.02  # the gradient of a weight is about the root of its block's inputs smaller than that of a sum


@dataclass(frozen=True, slots=True)
class Bop:
    r"""Binary optimizer: no latent weights, one moving average per weight.

    :math:`m \leftarrow (1 - \gamma)\,m + \gamma\,\partial L/\partial w`, from m = 0; w flips iff :math:`w m > \tau`.
    A tie never flips. The average is not reset: after a flip w m is negative, so the weight rests until m has
    changed its sign.

    The threshold has the unit of a gradient: it must follow the scale of the loss, the batch size and the widths,
    so no value and no rule for one suits all networks. With gradients of size g per weight, noise alone moves m by
    about ``sqrt(gamma / 2) * g``, and the first step by ``gamma * g``; tau belongs some times above the larger.
    `Bop2ndOrder` measures g itself.

    Attributes:
        tau: Threshold, a schedule, at least 0, in units of the gradient. None: 0.02 sqrt(gamma / inputs of a
            neuron), as the noise of m, rising tenfold, so that few weights flip at the end; measured on the digits
            and MNIST. Published, for deep networks with batch norm: 1e-8 (CIFAR-10 and ImageNet), 1e-6
            (hyper-parameter study).
        gamma: Weight of a new gradient in the moving average, a schedule. None: 3 divided by the steps. Published:
            1e-4, divided by 10 every 100 of 500 epochs (CIFAR-10), or linear to 1e-6 (ImageNet); 1e-3
            (hyper-parameter study).

    References:
        Helwegen et al., "Latent weights do not exist: rethinking binarized neural network optimization",
        NeurIPS 2019, Algorithm 1, and its released code for the values. The code lets a tie set the weight to +1;
        here it changes nothing.
    """

    tau: Schedule | None = None
    gamma: Schedule | None = None

    name: ClassVar[str] = "bop"
    recipe: ClassVar[Mapping[str, Any]] = {"epochs": 300}

    def __post_init__(self) -> None:
        read_schedules(self, "tau", "gamma", zero=True)
        require_weight("bop", "gamma", self.gamma)

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """See `UpdateRule`: gamma is `MEMORIES` divided by the steps, tau rises tenfold in proportion to the noise."""
        gamma = self.gamma or average_weight(steps)
        tau = self.tau or Schedule.falling(_TAU * math.sqrt(gamma.start / inputs), 0.1)
        return replace(self, tau=tau, gamma=gamma)

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> _BopState:
        """Averages of zero."""
        return _BopState(self, cells)


def average_weight(steps: int) -> Schedule:
    """The weight of new values with which a moving average has `MEMORIES` lengths in the run, of 20 steps at least."""
    value = neat(min(0.05, MEMORIES / steps))
    return Schedule(value, value)


def require_weight(rule: str, name: str, schedule: Schedule | None) -> None:
    """QueryError unless the schedule is open or can be the weight of new values in a moving average."""
    holds = schedule is None or (schedule.start > 0 and schedule.largest <= 1)
    require(rule, name, schedule, holds, "above 0 at the start and at most 1")


class _BopState:
    def __init__(self, rule: Bop, cells: Sequence[Cells]) -> None:
        self._gamma, self._tau = known(rule.gamma, "gamma", rule.name), known(rule.tau, "tau", rule.name)
        self.cells = [np.ascontiguousarray(c) for c in cells]
        self._average = [np.zeros(c.shape, dtype=np.float32) for c in self.cells]

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        gamma, tau = np.float32(self._gamma.at(progress)), np.float32(self._tau.at(progress))
        for cells, average, gradient in zip(self.cells, self._average, gradients, strict=True):
            _bop(gradient.ravel(), average.ravel(), cells.ravel(), gamma, tau)

    def deployed(self) -> list[Cells]:
        return self.cells

    def statistics(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"cells": self.cells, "average": self._average}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.cells, self._average = list(state["cells"]), list(state["average"])


@njit(nogil=True)
def _bop(
    gradient: NDArray[np.float32],
    average: NDArray[np.float32],
    cells: NDArray[np.int8],
    gamma: np.float32,
    tau: np.float32,
) -> None:
    """One step on flat arrays."""
    for i in range(gradient.size):
        m = average[i] + gamma * (gradient[i] - average[i])
        average[i] = m
        w = cells[i]
        cells[i] = -w if np.float32(w) * m > tau else w
