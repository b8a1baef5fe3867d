"""Bop2ndOrder: Bop with the moving average measured in units of the gradient's own size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.errors import BnnVerifyWarning
from bnnverify.training.rules.base import Cells, Gradient, Probe, Randomness, known, plain_fields, require
from bnnverify.training.rules.bop import average_weight, require_weight
from bnnverify.training.rules.schedules import Schedule, neat, read_schedules

_EPSILON = 1e-10
_MOST_SIGMA = 0.1
_ABOVE_NOISE = 3.0  # tau, in units of what the ratio of noise is


@dataclass(frozen=True, slots=True)
class Bop2ndOrder:
    r"""Binary optimizer with two moments; the scale of the loss does not matter.

    With :math:`g = \partial L/\partial w`: :math:`m \leftarrow (1 - \gamma)\,m + \gamma\,g`,
    :math:`u \leftarrow (1 - \sigma)\,u + \sigma\,g^2`, both from 0; w flips iff
    :math:`w\,m / (\sqrt{u} + 10^{-10}) > \tau`. A tie never flips.

    Of gradients that are noise, the ratio :math:`m/\sqrt{u}` is about :math:`\gamma/\sqrt{\sigma}` at first and
    :math:`\sqrt{\gamma/2}` in the long run. So tau should be some times the larger of the two; three times, where it
    is left open. With a tau that is not above the former, the first step flips every weight with w g > 0: half of
    the network, which one without batch norm does not survive. `start` warns of it.

    Attributes:
        tau: Threshold, a schedule, at least 0, without unit. None: three times that of noise. Published: 1e-6, and
            1e-7 for ImageNet.
        gamma: Weight of a new gradient in m, a schedule. None: 3 divided by the steps. Published: 1e-7, and 1e-4 to
            1e-6 for ImageNet.
        sigma: Weight of a new squared gradient in u, a schedule. None: ten times gamma, at most 0.1. Published: 1e-3,
            and 1e-3 to 1e-5 for ImageNet.
        unbiased: Whether the ratio is that of the bias-corrected moments, each divided by the total weight that
            gradients have in it so far. The first ratio is then 1, so tau should start above it and fall.

    References:
        Suarez-Ramirez et al., "A Bop and beyond: a second order optimizer for binarized neural networks", CVPR
        Workshops 2021; its released code for the values and the epsilon, which has the biased form only. The bounds
        on tau: ours.
    """

    tau: Schedule | None = None
    gamma: Schedule | None = None
    sigma: Schedule | None = None
    unbiased: bool = False

    name: ClassVar[str] = "bop2nd"
    recipe: ClassVar[Mapping[str, Any]] = {"epochs": 300}

    def __post_init__(self) -> None:
        plain_fields(self)
        read_schedules(self, "tau", "gamma", "sigma", zero=True)
        require_weight("bop2nd", "gamma", self.gamma)
        require_weight("bop2nd", "sigma", self.sigma)
        require("bop2nd", "unbiased", repr(self.unbiased), isinstance(self.unbiased, bool), "True or False")

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """See `UpdateRule`: gamma is `MEMORIES` divided by the steps, sigma follows it, and tau both."""
        gamma = self.gamma or average_weight(steps)
        second = neat(min(_MOST_SIGMA, 10 * gamma.start))
        sigma = self.sigma or Schedule(second, second)
        noise = max(math.sqrt(gamma.start / 2), gamma.start / math.sqrt(sigma.start))
        value = neat(_ABOVE_NOISE * noise)
        tau = Schedule.falling(2.0, 2 / value) if self.unbiased else Schedule(value, value)
        return replace(self, tau=self.tau or tau, gamma=gamma, sigma=sigma)

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> _Bop2ndState:
        """Moments of zero; a BnnVerifyWarning if the first step will flip half of the network."""
        state = _Bop2ndState(self, cells)
        message = self._first_step(state.tau.at(0), state.gamma.at(0), state.sigma.at(0))
        if message:
            warnings.warn(message, BnnVerifyWarning, stacklevel=2)
        return state

    def _first_step(self, tau: float, gamma: float, sigma: float) -> str:
        """What is wrong with tau in the first step, or nothing."""
        ratio = gamma / math.sqrt(sigma)
        if self.unbiased and tau <= 1:
            return (
                f"tau of the rule bop2nd is {tau:g} at the start, not above 1: the unbiased moments of the first step "
                "are g and g^2, their ratio g/|g| is 1, and every weight with w*g > 0 flips, half of the network. Let "
                f"tau fall from above 1, such as tau=2:{4 * math.sqrt(gamma / 2):.2g}."
            )
        if not self.unbiased and tau <= ratio:
            enough = 4 * max(math.sqrt(gamma / 2), ratio)
            return (
                f"tau of the rule bop2nd is {tau:g} at the start, not above gamma/sqrt(sigma) = {ratio:.3g}: in the "
                "first step m/sqrt(u) is gamma*g/sqrt(sigma*g^2), so every weight with w*g > 0 flips, half of the "
                f"network. Use a tau of at least 4*max(sqrt(gamma/2), gamma/sqrt(sigma)) = {enough:.2g}."
            )
        return ""


class _Bop2ndState:
    def __init__(self, rule: Bop2ndOrder, cells: Sequence[Cells]) -> None:
        self.tau, self.gamma, self.sigma = (known(getattr(rule, n), n, rule.name) for n in ("tau", "gamma", "sigma"))
        self._unbiased = rule.unbiased
        self.cells = [np.ascontiguousarray(c) for c in cells]
        self._first = [np.zeros(c.shape, dtype=np.float32) for c in self.cells]
        self._second = [np.zeros(c.shape, dtype=np.float32) for c in self.cells]
        self._unseen = [1.0, 1.0]  # what is left in the moments of the zeros that they started with

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        gamma, sigma = self.gamma.at(progress), self.sigma.at(progress)
        self._unseen = [self._unseen[0] * (1 - gamma), self._unseen[1] * (1 - sigma)]
        inverse = [1 / (1 - rest) if self._unbiased else 1.0 for rest in self._unseen]
        numbers = [np.float32(x) for x in (gamma, sigma, self.tau.at(progress), *inverse)]
        for i, cells in enumerate(self.cells):
            arrays = (gradients[i].ravel(), self._first[i].ravel(), self._second[i].ravel(), cells.ravel())
            _bop2nd(*arrays, *numbers)

    def deployed(self) -> list[Cells]:
        return self.cells

    def statistics(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"cells": self.cells, "first": self._first, "second": self._second, "unseen": self._unseen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.cells = list(state["cells"])
        self._first, self._second = list(state["first"]), list(state["second"])
        self._unseen = [float(x) for x in state["unseen"]]


@njit(nogil=True, error_model="numpy")
def _bop2nd(
    gradient: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    cells: NDArray[np.int8],
    gamma: np.float32,
    sigma: np.float32,
    tau: np.float32,
    inverse_bias_1: np.float32,
    inverse_bias_2: np.float32,
) -> None:
    """One step on flat arrays."""
    eps = np.float32(_EPSILON)
    for i in range(gradient.size):
        g = gradient[i]
        m = first[i] + gamma * (g - first[i])
        u = second[i] + sigma * (g * g - second[i])
        first[i], second[i] = m, u
        w = cells[i]
        ratio = np.float32(w) * (m * inverse_bias_1) / (np.sqrt(u * inverse_bias_2) + eps)
        cells[i] = -w if ratio > tau else w
