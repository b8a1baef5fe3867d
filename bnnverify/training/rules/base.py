"""The Protocol of update rules: who turns gradients into changed binary weights, and by what state.

A rule is a frozen dataclass of hyper-parameters; `start` gives its state for one training run. The state owns the
binary weights: it alone writes them. They are int8 arrays on the host; the loop copies them to the model before each
pass and brings the gradients back. Real-valued parameters (batch norm, biases, the output scale) are no concern of a
rule; the loop gives them to Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import QueryError

Cells = NDArray[np.int8]
Gradient = NDArray[np.float32]

T = TypeVar("T")


class Randomness(Protocol):
    """Where a rule takes its keys from; see `bnnverify.training.randomness.Randomness`."""

    def key(self) -> np.uint64:
        """A fresh key for counter-based random numbers."""


class Probe(Protocol):
    """Looks at the loss with the cells as they are, for rules that look before they keep a move.

    Evaluations are made in evaluation mode and touch neither gradients nor running statistics.
    """

    def on_batch(self) -> Callable[[], float]:
        """Measures the loss of the mini-batch of this step."""

    def on_holdout(self, size: int) -> Callable[[], float]:
        """Measures the loss of `size` training images drawn afresh; every call of the result uses the same ones."""


class RuleState(Protocol):
    """A rule at work on one network.

    Attributes:
        cells: What the next training pass reads: one array of -1/+1 per weight array, first block first. The rule
            writes them in place.
    """

    cells: list[Cells]

    def step(self, gradients: Sequence[Gradient], progress: float, probe: Probe) -> None:
        """Update the weights.

        Args:
            gradients: Gradient of the loss with respect to the binary weights that the last pass read; arrays of
                the shapes of `cells`, not to be kept or written.
            progress: Fraction of the training that is over, from 0 to below 1, for schedules.
            probe: The loss, on demand.
        """

    def deployed(self) -> list[Cells]:
        """What an evaluation and the export read; `cells` themselves for most rules."""

    def statistics(self) -> dict[str, Any]:
        """Running totals that only the rule knows, such as pulses and switches; empty if there are none."""

    def state(self) -> dict[str, Any]:
        """All that changes during training: arrays, numbers, and lists or dicts of them. `cells` are part of it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""


class UpdateRule(Protocol):
    """Hyper-parameters of a rule, as a frozen dataclass. One that is None is open: it follows the number of steps.

    Attributes:
        name: Short name in the registry and on the command line.
        recipe: Values of `TrainingConfig` that suit this rule, where they differ from that class's own defaults.
    """

    name: ClassVar[str]
    recipe: ClassVar[Mapping[str, Any]]

    def for_steps(self, steps: int, inputs: int = 64) -> Self:
        """The rule with all open hyper-parameters set to what suits a training.

        Args:
            steps: Of the training.
            inputs: Weights of a neuron of the first block; for what is in units of the gradient.
        """

    def start(self, cells: Sequence[Cells], *, random: Randomness) -> RuleState:
        """A state that begins with these cells, arrays of -1/+1 that it may keep, and draws its keys from `random`."""


def is_number(value: Any) -> bool:
    """Whether this is an integer or a float (also infinity or NaN) that float64 can hold; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def known(value: T | None, name: str, rule: str) -> T:
    """The hyper-parameter.

    Raises:
        QueryError: It is open.
    """
    if value is None:
        raise QueryError(f"{name} of the rule {rule} is open, expected a value, such as for_steps(1000) gives it.")
    return value


def plain_fields(of: Any) -> None:
    """Turns numpy's numbers in the fields of a frozen dataclass into Python's."""
    for f in fields(of):
        value = getattr(of, f.name)
        if isinstance(value, np.generic):
            object.__setattr__(of, f.name, value.item())


def require_numbers(rule: str, of: Any, *names: str) -> None:
    """QueryError unless these attributes of the hyper-parameters are numbers."""
    for name in names:
        value = getattr(of, name)
        require(rule, name, f"{value!r:.80}", is_number(value), "a number")


def require(rule: str, name: str, value: Any, holds: bool, expected: str) -> None:
    """QueryError unless the hyper-parameter has a sensible value.

    Raises:
        QueryError: ``name of the rule RULE is VALUE, expected EXPECTED.``
    """
    if not holds:
        raise QueryError(f"{name} of the rule {rule} is {value}, expected {expected}.")
