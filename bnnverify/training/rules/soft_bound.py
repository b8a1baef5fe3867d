"""SoftBound: the state of an analog soft-bound synapse as the latent of a binary weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.devices.synapse import NOISES, SoftBoundSynapse
from bnnverify.training.randomness import uniform, uniforms
from bnnverify.training.rules.accumulators import mean_scale
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
from bnnverify.training.rules.schedules import Schedule, read_schedules

_CHUNK = 64
_TRAVEL, _MOST = 3.0, 0.05  # move of the mean cell in a run and in a step, in units of the state

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SoftBound:
    r"""An analog cell for each weight, moved by whole pulses whose steps shrink towards its bounds.

    :math:`w = \mathrm{sgn}(v - ref)`, sgn(0) = +1. In every step a cell gets n pulses against the sign of its
    gradient, down where g > 0, with n the stochastic rounding of :math:`\eta |g| / \mathrm{mean}|g| / dw`, the mean
    over the block. Up and down steps are equal at the symmetry point only, towards which all states drift under
    random pulses. Where it is not the reference, all weights of a block drift to one sign; zero shifting makes it the
    reference, cell by cell.

    Attributes:
        learning_rate: eta, the mean move that is asked for in a step, in units of the state, a schedule. None: 3
            divided by the steps, at most 0.05, falling tenfold.
        dw_min: Mean of the steps up and down at state 0, in units of the state.
        up_down: Imbalance: steps at state 0 are ``dw_min * (1 +- up_down)``; within (-1, 1).
        step_sigma: Standard deviation of the logarithm of a cell's steps from cell to cell.
        bound_sigma: Standard deviation of the logarithm of a cell's bounds from cell to cell.
        c2c_sigma: Standard deviation of the noise of each pulse, in units of its step.
        noise: ``multiplicative`` or ``additive``, see `bnnverify.devices.synapse`.
        b_min: Lower bound, below 0.
        b_max: Upper bound, above 0.
        zero_shift: Whether the reference of each cell is its symmetry point; if not, it is 0.
        init: States start between the reference and `init` times the way to the bound on their weight's side,
            uniform; above 0 and at most 1.
        most_pulses: Pulses that a cell gets in a step at most.

    References:
        Kim, Rasch, Gokmen et al., "Zero-shifting technique for deep neural network training on resistive cross-point
        arrays", arXiv:1907.10228, 2019. Its use behind the sign of a binary weight: ours; a precedent is Hirtzlin et
        al., "Hybrid analog-digital learning with differential RRAM synapses", IEDM 2019.
    """

    learning_rate: Schedule | None = None
    dw_min: float = 0.02
    up_down: float = 0.0
    step_sigma: float = 0.0
    bound_sigma: float = 0.0
    c2c_sigma: float = 0.0
    noise: str = "multiplicative"
    b_min: float = -1.0
    b_max: float = 1.0
    zero_shift: bool = True
    init: float = 0.5
    most_pulses: int = 31

    name: ClassVar[str] = "soft-bound"
    recipe: ClassVar[Mapping[str, Any]] = {"output_scale": False}

    def __post_init__(self) -> None:
        plain_fields(self)
        read_schedules(self, "learning_rate")
        sigmas = ("step_sigma", "bound_sigma", "c2c_sigma")
        require_numbers("soft-bound", self, "dw_min", "up_down", *sigmas, "b_min", "b_max", "init")
        require("soft-bound", "dw_min", self.dw_min, 0 < self.dw_min < math.inf, "above 0")
        require("soft-bound", "up_down", self.up_down, -1 < self.up_down < 1, "above -1 and below 1")
        for name in sigmas:
            value = getattr(self, name)
            require("soft-bound", name, value, 0 <= value < math.inf, "at least 0")
        require("soft-bound", "noise", repr(self.noise), self.noise in NOISES, " or ".join(NOISES))
        require("soft-bound", "b_min", self.b_min, -math.inf < self.b_min < 0, "below 0")
        require("soft-bound", "b_max", self.b_max, 0 < self.b_max < math.inf, "above 0")
        require("soft-bound", "zero_shift", repr(self.zero_shift), isinstance(self.zero_shift, bool), "True or False")
        require("soft-bound", "init", self.init, 0 < self.init <= 1, "above 0 and at most 1")
        most = self.most_pulses
        whole = isinstance(most, int) and not isinstance(most, bool) and 1 <= most < 2**31
        require("soft-bound", "most_pulses", self.most_pulses, whole, "a positive integer")

    @property
    def synapse(self) -> SoftBoundSynapse:
        """The law of the cells."""
        return SoftBoundSynapse.from_step(
            self.dw_min,
            up_down=self.up_down,
            b_min=self.b_min,
            b_max=self.b_max,
            step_sigma=self.step_sigma,
            bound_sigma=self.bound_sigma,
            c2c_sigma=self.c2c_sigma,
            noise=self.noise,
        )

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """See `UpdateRule`: all steps together ask for a fixed move of the mean cell."""
        return replace(self, learning_rate=self.learning_rate or Schedule.shared(_TRAVEL, steps, 10, _MOST))

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> SoftBoundState:
        """Synapses drawn by the seed, their states on the side of the given signs."""
        return SoftBoundState(self, cells, random)


class SoftBoundState:
    """Synapses at work; see `bnnverify.training.rules.base.RuleState`."""

    def __init__(self, rule: SoftBound, cells: Sequence[Cells], random: Randomness) -> None:
        self._rule, self._random = rule, random
        self._rate = known(rule.learning_rate, "learning_rate", rule.name)
        self.cells = [np.ascontiguousarray(c) for c in cells]
        self._blocks = [_start(rule, c.reshape(-1), random) for c in self.cells]
        self._up = self._down = 0

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        """See `RuleState`."""
        rule = self._rule
        rate = self._rate.at(progress)
        for cells, gradient, block in zip(self.cells, gradients, self._blocks, strict=True):
            flat = gradient.reshape(-1)
            scale = mean_scale(flat, rate) / rule.dw_min
            if scale == 0:
                continue
            up, down = _move(
                flat,
                cells.reshape(-1),
                block["latent"],
                block["reference"],
                block["a_up"],
                block["a_down"],
                block["b_min"],
                block["b_max"],
                scale,
                rule.most_pulses,
                rule.c2c_sigma,
                rule.noise == "additive",
                self._random.key(),
                self._random.key(),
            )
            self._up, self._down = self._up + up, self._down + down

    def deployed(self) -> list[Cells]:
        """The signs."""
        return self.cells

    def statistics(self) -> dict[str, Any]:
        """`pulses` so far, of them `pulses_up` and `pulses_down`, and `fraction_plus`, that of the weights at +1."""
        plus = sum(int(np.count_nonzero(c > 0)) for c in self.cells)
        return {
            "pulses": self._up + self._down,
            "pulses_up": self._up,
            "pulses_down": self._down,
            "fraction_plus": plus / sum(c.size for c in self.cells),
        }

    def state(self) -> dict[str, Any]:
        """See `RuleState`; the devices are part of it."""
        return {"cells": self.cells, "blocks": self._blocks, "up": self._up, "down": self._down}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `RuleState`."""
        self.cells = [np.ascontiguousarray(c) for c in state["cells"]]
        self._blocks = [dict(block) for block in state["blocks"]]
        self._up, self._down = int(state["up"]), int(state["down"])


def _start(rule: SoftBound, cells: NDArray[np.int8], random: Randomness) -> dict[str, FloatArray]:
    """Parameters, references and states of the synapses of one block, flat."""
    drawn = rule.synapse.sample_cells(cells.size, generator=np.random.default_rng(int(random.key())))
    reference = drawn.symmetry_point if rule.zero_shift else np.zeros(cells.size)
    bound = np.where(cells > 0, drawn.b_max, drawn.b_min)
    latent = reference + (bound - reference) * rule.init * (1 - uniforms(random.key(), cells.size))
    names = ("a_up", "a_down", "b_min", "b_max")
    return {"latent": latent, "reference": reference, **{n: np.array(getattr(drawn, n)) for n in names}}


@njit(nogil=True, error_model="numpy")
def _move(
    gradient: NDArray[np.float32],
    cells: NDArray[np.int8],
    latent: FloatArray,
    reference: FloatArray,
    a_up: FloatArray,
    a_down: FloatArray,
    b_min: FloatArray,
    b_max: FloatArray,
    scale: float,
    most: int,
    sigma: float,
    additive: bool,
    key: np.uint64,
    noise_key: np.uint64,
) -> tuple[int, int]:
    """Pulses the synapses and reads their signs; gives the numbers of pulses up and down.

    The noise of pulse t of cell i comes from the uniform numbers 2 * (i * most + t) and the next one.
    """
    up = down = 0
    for start in range(0, gradient.size, _CHUNK):
        end = min(start + _CHUNK, gradient.size)
        pulsed = 0
        for i in range(start, end):
            pulsed += uniform(key, i) < scale * abs(np.float64(gradient[i]))
        if pulsed == 0:
            continue
        for i in range(start, end):
            wanted = min(scale * abs(np.float64(gradient[i])), float(most))
            pulses = int(wanted)
            pulses += int(uniform(key, i) < wanted - pulses)
            if pulses == 0:
                continue
            v, falls = latent[i], gradient[i] > 0
            step = -a_down[i] if falls else a_up[i]
            bound = b_min[i] if falls else b_max[i]
            for t in range(pulses):
                room = 1.0 - v / bound
                if sigma > 0.0:
                    at = 2 * (i * most + t)
                    radius = math.sqrt(-2.0 * math.log1p(-uniform(noise_key, at)))
                    noise = sigma * radius * math.cos(2.0 * math.pi * uniform(noise_key, at + 1))
                    room = room + noise if additive else room * (1.0 + noise)
                v = min(max(v + step * room, b_min[i]), b_max[i])
            latent[i] = v
            cells[i] = np.int8(1) if v >= reference[i] else np.int8(-1)
            if falls:
                down += pulses
            else:
                up += pulses
    return up, down
