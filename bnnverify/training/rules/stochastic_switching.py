"""StochasticSwitching: binary cells that each pulse switches with a probability, driven by accumulated gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import QueryError
from bnnverify.training.rules.accumulators import ACCUMULATORS, LAWS, Accumulator, Average, Indices
from bnnverify.training.rules.base import Cells, Gradient, Probe, Randomness, require
from bnnverify.training.rules.hardware import Hardware, HardwareCells, IdealCells
from bnnverify.training.rules.schedules import Schedule
from bnnverify.training.rules.undo import Undo

_OWN = ("law", "undo", "hardware")


@dataclass(frozen=True, slots=True)
class StochasticSwitching:
    r"""Stochastic switching: no latent weight exists, and only a pulse writes a cell.

    A weight is eligible where :math:`w a > 0`, a what is accumulated of its gradients: there a flip lowers the loss to
    first order. Eligible cells get a pulse and switch with a probability given by the law, with
    :math:`x = |a|^k` and the accumulator's rate r:

    - ``relative``: :math:`\min(1, r x / \mathrm{mean}(x))`, the mean over all weights of the block; the default, in
      which the scale of the loss does not matter;
    - ``linear``: :math:`\min(1, r x)`;
    - ``tanh``: :math:`\tanh(r x)`;
    - ``poisson``: :math:`1 - \exp(-r x)`.

    The accumulators `Counter` and `Memristors` use the law, with a = g and k = 1, for what they count, and pulse with
    a probability of their own.

    Attributes:
        accumulator: What is remembered of the gradients: `Memoryless`, `BatchSum`, `Average`, `Counter` or
            `Memristors`.
        law: Of the probability.
        undo: Whether and how switches are taken back that made the loss worse. Also its options as a mapping.
        hardware: Cells and pulses; None for ideal cells. Also its options as a mapping, or the name of a preset.

    References:
        Idea, the need to accumulate, and the undo: Akesson, "Use of stochastic switching in the training of binarized
        neural networks", Lund University, 2022. The accumulators, the law and all details: ours. Close relatives:
        Deng et al., "GXNOR-Net", Neural Networks 2018; Greenberg-Toledo et al., arXiv:1912.12636, on magnetic tunnel
        junctions; Bop, Helwegen et al., NeurIPS 2019.
    """

    accumulator: Accumulator = field(default_factory=Average)
    law: str = "relative"
    undo: Undo | None = None
    hardware: Hardware | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.accumulator, tuple(ACCUMULATORS.values())):
            raise QueryError(f"the accumulator is {self.accumulator!r}, expected one such as Average(gamma=0.01).")
        require(self.name, "law", repr(self.law), self.law in LAWS, f"one of: {', '.join(LAWS)}")
        object.__setattr__(self, "undo", Undo.of(self.undo))
        object.__setattr__(self, "hardware", Hardware.of(self.hardware))
        if self.undo is not None and self.undo.writes == "stochastic" and self.hardware is None:
            raise QueryError(
                "writes of the undo is 'stochastic' with ideal cells, expected 'ideal', or hardware whose pulses "
                "take the switches back."
            )

    @property
    def name(self) -> str:
        """Short name in the registry, that of the accumulator."""
        return self.accumulator.name

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Values of `TrainingConfig` that suit this rule."""
        return RECIPES[self.name]

    @property
    def options(self) -> dict[str, Any]:
        """All hyper-parameters as flat plain JSON values; `Variant` takes them back."""
        flat = {f.name: getattr(self.accumulator, f.name) for f in fields(self.accumulator)}  # type: ignore[arg-type]
        flat = {name: str(value) if isinstance(value, Schedule) else value for name, value in flat.items()}
        undo = None if self.undo is None else self.undo.to_json()
        hardware = None if self.hardware is None else self.hardware.to_json()
        return {**flat, "law": self.law, "undo": undo, "hardware": hardware}

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """See `UpdateRule`: the accumulator's."""
        return replace(self, accumulator=self.accumulator.for_steps(steps))

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> SwitchingState:
        """Empty memories and fresh cells that hold these signs, stuck ones excepted."""
        return SwitchingState(self, cells, random)


# Measured on MNIST, 784-256-256-10, 15 epochs: a fixed scale of the scores gives about one point more than a learned
# one, and batch norm is not needed.
RECIPES: dict[str, Mapping[str, Any]] = {name: {"epochs": 600, "output_scale": False} for name in ACCUMULATORS}


@dataclass(frozen=True, slots=True)
class Variant:
    """`StochasticSwitching` with one kind of accumulator, made from flat options: an entry of the registry.

    Attributes:
        name: Of the accumulator.

    >>> rule = Variant("ss-ema")(gamma=0.05, undo_tolerance=0.1)
    >>> rule.accumulator.gamma, rule.undo.tolerance
    (0.05, 0.1)
    """

    name: str

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Values of `TrainingConfig` that suit it."""
        return RECIPES[self.name]

    @property
    def option_names(self) -> list[str]:
        """The options it takes; those of the undo and of the hardware also with a prefix: undo_size, hardware_cell."""
        nested = [f"undo_{f.name}" for f in fields(Undo)] + [f"hardware_{f.name}" for f in fields(Hardware)]
        return [*(f.name for f in fields(ACCUMULATORS[self.name])), *_OWN, *nested]

    def __call__(self, **options: Any) -> StochasticSwitching:
        """The rule with these options in place of the defaults.

        Raises:
            QueryError: An option that does not exist, or a value out of range.
        """
        kind = ACCUMULATORS[self.name]
        own = {f.name for f in fields(kind)}
        accumulator: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {"undo": {}, "hardware": {}}
        for option, value in options.items():
            part, _, inner = option.partition("_")
            if option in own:
                accumulator[option] = value
            elif option in _OWN:
                rest[option] = value
            elif part in nested and option in self.option_names:
                nested[part][inner] = value
            else:
                raise QueryError(
                    f"the rule {self.name} has no option {option!r}, expected one of: {', '.join(self.option_names)}."
                )
        for part, single in nested.items():
            if single and rest.get(part) is False:
                raise QueryError(f"{part} is false, but {part}_{next(iter(single))} is given, expected one of the two.")
            if single:
                rest[part] = {**_as_options(rest.get(part), part), **single}
        return StochasticSwitching(kind(**accumulator), **rest)


def _as_options(value: Any, part: str) -> dict[str, Any]:
    """What `value` gives for a nested part, as a dict that single options can be added to."""
    if value is None or value is True:
        return {}
    whole = (Undo if part == "undo" else Hardware).of(value)
    return {} if whole is None else {f.name: getattr(whole, f.name) for f in fields(whole)}


class SwitchingState:
    """Cells at work; see `bnnverify.training.rules.base.RuleState`."""

    def __init__(self, rule: StochasticSwitching, cells: Sequence[Cells], random: Randomness) -> None:
        self._rule, self._random = rule, random
        self.cells = [np.ascontiguousarray(c) for c in cells]
        hardware = rule.hardware
        self._arrays: list[IdealCells] = [
            IdealCells(c.reshape(-1)) if hardware is None else HardwareCells(c.reshape(-1), hardware, i, random)
            for i, c in enumerate(self.cells)
        ]
        self._memories = [rule.accumulator.block(c.reshape(-1), rule.law, random) for c in self.cells]
        self._factor = 1.0
        self._events = self._undo_events = self._undone = self._failures = 0

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        """See `RuleState`."""
        look = _Look(self._rule.undo, probe)
        switched: list[tuple[int, Indices]] = []
        by_block = self._rule.undo is not None and self._rule.undo.scope == "block"
        for i, gradient in enumerate(gradients):
            indices = self._switch(i, gradient, progress, look)
            if indices.size:
                switched.append((i, indices))
            if by_block and switched:
                self._finish(switched, look)
                switched = []
        if switched:
            self._finish(switched, look)

    def _switch(self, i: int, gradient: Gradient, progress: float, look: _Look) -> Indices:
        """Pulses block i; gives the cells that have switched."""
        flat = self.cells[i].reshape(-1)
        request = self._memories[i].request(gradient.reshape(-1), flat, progress, self._factor)
        if request is None:
            return np.zeros(0, dtype=np.int32)
        look.before()
        indices = self._arrays[i].pulse(request, flat, self._random)
        self._memories[i].succeeded(indices)
        return indices

    def _finish(self, switched: list[tuple[int, Indices]], look: _Look) -> None:
        """Keeps the switches of an event, or takes them back."""
        self._events += 1
        undo = self._rule.undo
        if undo is None:
            return
        if not look.worse():
            self._factor = min(self._factor * undo.up, undo.highest)
            return
        self._undo_events += 1
        self._factor = max(self._factor * undo.down, undo.lowest)
        failures = 0
        for i, indices in switched:
            left = self._take_back(i, indices, undo)
            failures += left
            self._undone += indices.size - left
        self._failures += failures
        look.taken_back(wholly=failures == 0)

    def _take_back(self, i: int, indices: Indices, undo: Undo) -> int:
        """Number of cells that could not be restored."""
        flat, array = self.cells[i].reshape(-1), self._arrays[i]
        if undo.writes == "stochastic" and isinstance(array, HardwareCells):
            return array.take_back(flat, indices, undo.tries, self._random).size
        array.flip(flat, indices)
        return 0

    def deployed(self) -> list[Cells]:
        """The cells."""
        return self.cells

    def switches_per_cell(self) -> NDArray[np.int64]:
        """Histogram of the endurance: entry s is the number of cells of the network that have switched s times."""
        return np.bincount(np.concatenate([a.worn for a in self._arrays])).astype(np.int64)

    def pulses_per_level(self) -> NDArray[np.int64] | None:
        """Pulses by direction (SET, RESET) and pulse of the menu, shape `(2, pulses)`; None with ideal cells."""
        counts = [a.level_pulses for a in self._arrays if isinstance(a, HardwareCells)]
        return np.sum(counts, axis=0) if counts else None

    def switches_per_level(self) -> NDArray[np.int64] | None:
        """Switches by pulses, likewise."""
        counts = [a.level_switches for a in self._arrays if isinstance(a, HardwareCells)]
        return np.sum(counts, axis=0) if counts else None

    def statistics(self) -> dict[str, Any]:
        """Totals so far.

        `pulses` and `switches` of the cells, `switches` with those that were undone and the undoing;
        `energy_joule` of all pulses (None with ideal cells); `switches_per_cell_max` and `_mean`, the endurance;
        `events` in which cells switched, `undo_events` that were taken back, `undone_fraction` the one by the other;
        `undone` switches that were taken back, `undo_failures` that could not be; `rate_factor` of the back-off.
        """
        energies = [a.energy() for a in self._arrays]
        switches = sum(a.switches for a in self._arrays)
        result: dict[str, Any] = {
            "pulses": sum(a.pulses for a in self._arrays),
            "switches": switches,
            "energy_joule": None if self._rule.hardware is None else sum(e for e in energies if e is not None),
            "switches_per_cell_max": max(int(a.worn.max(initial=0)) for a in self._arrays),
            "switches_per_cell_mean": switches / sum(c.size for c in self.cells),
            "events": self._events,
            "undo_events": self._undo_events,
            "undone": self._undone,
            "undo_failures": self._failures,
            "undone_fraction": self._undo_events / self._events if self._events else 0.0,
            "rate_factor": self._factor,
        }
        for memory in self._memories:
            for name, value in memory.statistics().items():
                result[name] = result.get(name, 0) + value
        return result

    def state(self) -> dict[str, Any]:
        """See `RuleState`."""
        return {
            "cells": self.cells,
            "arrays": [a.state() for a in self._arrays],
            "memories": [m.state() for m in self._memories],
            "factor": self._factor,
            "counts": [self._events, self._undo_events, self._undone, self._failures],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `RuleState`."""
        self.cells = [np.ascontiguousarray(c) for c in state["cells"]]
        for array, saved in zip(self._arrays, state["arrays"], strict=True):
            array.restore(saved)
        for memory, saved in zip(self._memories, state["memories"], strict=True):
            memory.restore(saved)
        self._factor = float(state["factor"])
        self._events, self._undo_events, self._undone, self._failures = (int(c) for c in state["counts"])


class _Look:
    """The losses of one step, before and after, measured on the same images and only where they are needed."""

    def __init__(self, undo: Undo | None, probe: Probe) -> None:
        self._undo, self._probe = undo, probe
        self._measure: Callable[[], float] | None = None
        self._loss: float | None = None

    def before(self) -> None:
        """Called before cells are pulsed: measures the loss that the event is compared with, unless it is known."""
        if self._undo is None or self._loss is not None:
            return
        if self._measure is None:
            batch = self._undo.data == "batch"
            self._measure = self._probe.on_batch() if batch else self._probe.on_holdout(self._undo.size)
        self._loss = self._measure()

    def worse(self) -> bool:
        """Whether the loss has risen too far; if not, the new loss is what the next event is compared with."""
        assert self._undo is not None and self._measure is not None and self._loss is not None
        after = self._measure()
        if after > self._loss * (1 + self._undo.tolerance):
            return True
        self._loss = after
        return False

    def taken_back(self, *, wholly: bool) -> None:
        """The cells are as before, or nearly: then the loss before the next event is measured anew."""
        if not wholly:
            self._loss = None
