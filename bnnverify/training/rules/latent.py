"""SteSign: real latent weights behind the sign, trained by Adam or SGD and clipped to [-1, +1]."""

from __future__ import annotations

import math
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
_RATE, _TRAVEL, _MOST = 0.01, 20.0, 0.3  # step: at least, times the number of steps, at most
_AVERAGE, _MEMORIES = 0.99, 12.0  # at most; lengths of the average in a run


@dataclass(frozen=True, slots=True)
class SteSign:
    r"""Latent weights with the straight-through estimator.

    :math:`w = \mathrm{sgn}(v)`, :math:`v \leftarrow \mathrm{clip}(v - \eta\,\mathrm{opt}(\partial L/\partial w),
    -1, 1)`: the gradient is taken at the binary weights and applied to the latent ones.

    Latent weights that are drawn to zero change sign for ever, a few in every step, so the weights of any one moment
    are partly chance. An evaluation and the export therefore read the majority: the sign of an exponential moving
    average of w.

    Attributes:
        learning_rate: Step size eta, a schedule, in units of the latent weights. None: 20 divided by the steps, at
            least 0.01, falling along half a cosine to a hundredth.
        optimizer: ``adam`` (betas 0.9 and 0.999, epsilon 1e-8) or ``sgd``.
        momentum: Of SGD, at least 0 and below 1.
        glorot: Whether the step of each weight array is multiplied by ``sqrt((n_in + n_out) / 1.5)``, with n_in the
            inputs of a neuron and n_out the neurons of the block; for k x k filters, k * k times the channels and k * k
            times the filters. The released code of the reference does.
        binarization: ``deterministic``: sgn(v). ``stochastic``: +1 with probability (v + 1)/2, drawn afresh for
            every training pass; an evaluation and the export read the deterministic signs.
        init: Latent weights start uniform in (0, `init`) times the weight's sign, at most 1.
        average: Weight of the past in the moving average of w, per step; 0 deploys the signs as they are. None: 12
            lengths of the average in a run, at most 0.99.

    References:
        Hubara et al., "Binarized neural networks", NeurIPS 2016, Sec. 1 and Algorithm 1; its released code for the
        scaled updates and the stochastic weights.
        Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
        The oscillation: Nagel et al., "Overcoming oscillations in quantization-aware training", ICML 2022. The
        majority against it: ours.
    """

    learning_rate: Schedule | None = None
    optimizer: str = "adam"
    momentum: float = 0.9
    glorot: bool = False
    binarization: str = "deterministic"
    init: float = 1.0
    average: float | None = None

    name: ClassVar[str] = "ste"
    recipe: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        plain_fields(self)
        read_schedules(self, "learning_rate")
        require_numbers("ste", self, "momentum", "init", *(["average"] if self.average is not None else []))
        require("ste", "optimizer", repr(self.optimizer), self.optimizer in ("adam", "sgd"), "adam or sgd")
        require("ste", "momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and below 1")
        require("ste", "glorot", repr(self.glorot), isinstance(self.glorot, bool), "True or False")
        kinds = ("deterministic", "stochastic")
        require("ste", "binarization", repr(self.binarization), self.binarization in kinds, " or ".join(kinds))
        require("ste", "init", self.init, 0 < self.init <= 1, "above 0 and at most 1")
        fits = self.average is None or 0 <= self.average < 1
        require("ste", "average", self.average, fits, "at least 0 and below 1")

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """See `UpdateRule`: many steps as published; few take longer strides, and the average is a part of them."""
        rate = neat(min(_MOST, max(_RATE, _TRAVEL / steps)))
        average = neat(max(0.0, min(_AVERAGE, 1 - _MEMORIES / steps))) if self.average is None else self.average
        return replace(self, learning_rate=self.learning_rate or Schedule(rate, rate / 100, "cosine"), average=average)

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> _LatentState:
        """Latent weights of random size behind the given signs."""
        return _LatentState(self, cells, random)


class _LatentState:
    def __init__(self, rule: SteSign, cells: Sequence[Cells], random: Randomness) -> None:
        self._rule, self._random = rule, random
        self._rate = known(rule.learning_rate, "learning_rate", rule.name)
        self._past = known(rule.average, "average", rule.name)
        self.cells = [np.ascontiguousarray(c) for c in cells]
        self._latent = [_magnitudes(c, rule.init, random.key()) for c in self.cells]
        self._first = [np.zeros(c.shape, dtype=np.float32) for c in self.cells]
        second = rule.optimizer == "adam"
        self._second = [np.zeros(c.shape if second else 0, dtype=np.float32) for c in self.cells]
        self._average = [c.astype(np.float32) for c in self.cells]
        self._steps = 0
        if rule.binarization == "stochastic":
            self._resample()

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        rule = self._rule
        self._steps += 1
        rate = self._rate.at(progress)
        for i, cells in enumerate(self.cells):
            scale = rate * (_glorot(cells.shape) if rule.glorot else 1.0)
            arrays = (gradients[i].ravel(), self._latent[i].ravel(), self._first[i].ravel())
            rest = (self._average[i].ravel(), cells.ravel(), np.float32(1 - self._past))
            if rule.optimizer == "adam":
                bias_1, bias_2 = 1 - _BETA_1**self._steps, 1 - _BETA_2**self._steps
                _adam(
                    *arrays,
                    self._second[i].ravel(),
                    *rest,
                    np.float32(scale / bias_1),
                    np.float32(1 / bias_2),
                )
            else:
                _sgd(*arrays, *rest, np.float32(scale), np.float32(rule.momentum))
        if rule.binarization == "stochastic":
            self._resample()

    def _resample(self) -> None:
        for latent, cells in zip(self._latent, self.cells, strict=True):
            _bernoulli(latent.ravel(), cells.ravel(), self._random.key())

    def deployed(self) -> list[Cells]:
        """The majority, or the signs of the latent weights."""
        behind = self._average if self._past else self._latent
        return [np.where(v >= 0, 1, -1).astype(np.int8) for v in behind]

    def statistics(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {
            "cells": self.cells,
            "latent": self._latent,
            "first": self._first,
            "second": self._second,
            "average": self._average,
            "steps": self._steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.cells, self._latent = list(state["cells"]), list(state["latent"])
        self._first, self._second = list(state["first"]), list(state["second"])
        self._average, self._steps = list(state["average"]), int(state["steps"])


def _glorot(shape: tuple[int, ...]) -> float:
    """``sqrt((n_in + n_out) / 1.5)``: the kernel's positions count on both sides of a convolution."""
    positions = math.prod(shape[2:])
    return math.sqrt(positions * (shape[1] + shape[0]) / 1.5)


@njit(nogil=True, error_model="numpy")
def _adam(
    gradient: NDArray[np.float32],
    latent: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    average: NDArray[np.float32],
    cells: NDArray[np.int8],
    news: np.float32,
    rate: np.float32,
    inverse_bias: np.float32,
) -> None:
    """One step of Adam on the latent weights, clipped; signs and their average. `rate` has the first bias in it."""
    b1, b2, eps = np.float32(_BETA_1), np.float32(_BETA_2), np.float32(_EPSILON)
    rest1, rest2 = np.float32(1 - _BETA_1), np.float32(1 - _BETA_2)  # not 1 - float32(beta): that is 1e-5 off
    one = np.float32(1)
    for i in range(gradient.size):
        g = gradient[i]
        m = b1 * first[i] + rest1 * g
        u = b2 * second[i] + rest2 * g * g
        first[i], second[i] = m, u
        v = min(max(latent[i] - rate * m / (np.sqrt(u * inverse_bias) + eps), -one), one)
        latent[i] = v
        w = one if v >= 0 else -one
        cells[i] = np.int8(w)
        average[i] += news * (w - average[i])


@njit(nogil=True, error_model="numpy")
def _sgd(
    gradient: NDArray[np.float32],
    latent: NDArray[np.float32],
    first: NDArray[np.float32],
    average: NDArray[np.float32],
    cells: NDArray[np.int8],
    news: np.float32,
    rate: np.float32,
    momentum: np.float32,
) -> None:
    """One step of gradient descent with momentum on the latent weights, clipped; signs and their average."""
    one = np.float32(1)
    for i in range(gradient.size):
        m = momentum * first[i] + gradient[i]
        first[i] = m
        v = min(max(latent[i] - rate * m, -one), one)
        latent[i] = v
        w = one if v >= 0 else -one
        cells[i] = np.int8(w)
        average[i] += news * (w - average[i])


@njit(nogil=True)
def _bernoulli(latent: NDArray[np.float32], cells: NDArray[np.int8], key: np.uint64) -> None:
    """+1 with probability (v + 1)/2, else -1."""
    for i in range(latent.size):
        cells[i] = np.int8(1) if 2.0 * uniform(key, i) - 1.0 < latent[i] else np.int8(-1)


@njit(nogil=True)
def _magnitudes_flat(cells: NDArray[np.int8], init: float, key: np.uint64) -> NDArray[np.float32]:
    out = np.empty(cells.size, dtype=np.float32)
    for i in range(cells.size):
        out[i] = cells[i] * init * (1.0 - uniform(key, i))
    return out


def _magnitudes(cells: Cells, init: float, key: np.uint64) -> NDArray[np.float32]:
    """Latent weights of these signs, their sizes uniform in (0, init]."""
    flat: NDArray[np.float32] = _magnitudes_flat(cells.ravel(), init, key)
    return flat.reshape(cells.shape)
