"""PBop: every weight is a loaded coin, and training changes the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.training.randomness import uniform
from bnnverify.training.rules.base import (
    Cells,
    Gradient,
    Probe,
    Randomness,
    known,
    plain_fields,
    require,
    require_numbers,
)
from bnnverify.training.rules.schedules import Schedule, neat, read_schedules

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_TRAVEL, _MOST = 40.0, 0.05  # move of a probability in a run and in a step, at most


@dataclass(frozen=True, slots=True)
class PBop:
    r"""Probabilistic binary optimizer: a Bernoulli variable per weight.

    w = +1 with probability theta, drawn afresh for every training pass;
    :math:`\theta \leftarrow \mathrm{clip}(\theta - s\,\hat m/(\sqrt{\hat u} + 10^{-8}), 0, 1)` with Adam's
    bias-corrected moments of :math:`\partial L/\partial w` (betas 0.9 and 0.999). An evaluation and the export read
    the likelier sign, sgn(theta - 1/2).

    Attributes:
        scaler: Step size s, a schedule, in units of probability. None: 40 divided by the steps, at most 0.05.
        init: Distance of theta from 1/2 at the start, towards the weight's initial sign; above 0, at most 1/2, where
            every coin starts certain. Nearly fair coins trained worse on the digits.

    References:
        The idea: Suarez-Ramirez, master's thesis on binary optimizers, 2020, which treats weights as loaded coins and
        leaves the effect of the scaler open; it states no update. The update: ours. It is that of stochastic
        binarization with the latent weight 2 theta - 1: Courbariaux et al., "BinaryConnect", NeurIPS 2015, Sec. 2.3.
    """

    scaler: Schedule | None = None
    init: float = 0.5

    name: ClassVar[str] = "pbop"
    recipe: ClassVar[Mapping[str, Any]] = {"epochs": 300}

    def __post_init__(self) -> None:
        plain_fields(self)
        read_schedules(self, "scaler")
        require_numbers("pbop", self, "init")
        require("pbop", "init", self.init, 0 < self.init <= 0.5, "above 0 and at most 1/2")

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """See `UpdateRule`: all steps together move a probability by `_TRAVEL` at most."""
        value = neat(min(_MOST, _TRAVEL / steps))
        return replace(self, scaler=self.scaler or Schedule(value, value))

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> _PBopState:
        """Coins loaded towards the given signs, and thrown once."""
        return _PBopState(self, cells, random)


class _PBopState:
    def __init__(self, rule: PBop, cells: Sequence[Cells], random: Randomness) -> None:
        self._scaler, self._random = known(rule.scaler, "scaler", rule.name), random
        self.cells = [np.ascontiguousarray(c) for c in cells]
        self._theta = [np.float32(0.5) + np.float32(rule.init) * c for c in self.cells]
        self._first = [np.zeros(c.shape, dtype=np.float32) for c in self.cells]
        self._second = [np.zeros(c.shape, dtype=np.float32) for c in self.cells]
        self._steps = 0
        for theta, c in zip(self._theta, self.cells, strict=True):
            _throw(theta.ravel(), c.ravel(), random.key())

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        self._steps += 1
        rate = np.float32(self._scaler.at(progress) / (1 - _BETA_1**self._steps))
        inverse_bias = np.float32(1 / (1 - _BETA_2**self._steps))
        for i, cells in enumerate(self.cells):
            moments = (self._first[i].ravel(), self._second[i].ravel())
            _load(gradients[i].ravel(), self._theta[i].ravel(), *moments, rate, inverse_bias)
            _throw(self._theta[i].ravel(), cells.ravel(), self._random.key())

    def deployed(self) -> list[Cells]:
        """The likelier sign of each weight, +1 at 1/2."""
        return [np.where(theta >= 0.5, 1, -1).astype(np.int8) for theta in self._theta]

    def statistics(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {
            "cells": self.cells,
            "theta": self._theta,
            "first": self._first,
            "second": self._second,
            "steps": self._steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.cells, self._theta = list(state["cells"]), list(state["theta"])
        self._first, self._second = list(state["first"]), list(state["second"])
        self._steps = int(state["steps"])


@njit(nogil=True, error_model="numpy")
def _load(
    gradient: NDArray[np.float32],
    theta: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    rate: np.float32,
    inverse_bias: np.float32,
) -> None:
    """One step of Adam on the probabilities, clipped. `rate` has the first bias in it."""
    b1, b2, eps = np.float32(_BETA_1), np.float32(_BETA_2), np.float32(_EPSILON)
    c1, c2 = np.float32(1 - _BETA_1), np.float32(1 - _BETA_2)  # rounded once, so that the biases are as corrected
    zero, one = np.float32(0), np.float32(1)
    for i in range(gradient.size):
        g = gradient[i]
        m = b1 * first[i] + c1 * g
        u = b2 * second[i] + c2 * g * g
        first[i], second[i] = m, u
        theta[i] = min(max(theta[i] - rate * m / (np.sqrt(u * inverse_bias) + eps), zero), one)


@njit(nogil=True)
def _throw(theta: NDArray[np.float32], cells: NDArray[np.int8], key: np.uint64) -> None:
    """+1 with probability theta, else -1."""
    for i in range(theta.size):
        cells[i] = np.int8(1) if uniform(key, i) < theta[i] else np.int8(-1)
