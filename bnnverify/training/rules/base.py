"""The Protocol of update rules: who turns gradients into changed binary weights, and by what state.

A rule is a frozen dataclass of hyper-parameters; `start` gives its state for one training run. The state owns the
binary weights: it alone writes them. Real-valued parameters (batch norm, biases, the output scale) are no concern
of a rule; the loop gives them to Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor


class RuleState(Protocol):
    """A rule at work on one network."""

    def prepare(self, *, training: bool) -> None:
        """Write the weights that the next pass reads.

        The loop calls it before every training pass and before every evaluation. Rules whose weights are the same
        in both do nothing; a rule that samples weights in training writes the deployed ones for an evaluation.
        """

    def step(self, progress: float, loss: Callable[[], float]) -> None:
        """Update the weights from their gradients, which the backward pass has left in ``.grad``.

        Args:
            progress: Fraction of the training that is over, from 0 to below 1, for schedules.
            loss: Evaluates the mini-batch again with the weights as they are when it is called, in evaluation mode
                and without touching gradients or running statistics. For rules that look before they keep a move.
        """

    def statistics(self) -> dict[str, int]:
        """Running totals that only the rule knows, such as pulses and switches; empty if there are none."""


class UpdateRule(Protocol):
    """Hyper-parameters of a rule, as a frozen dataclass.

    Attributes:
        name: Short name in the registry and on the command line.
        recipe: Values of `TrainingConfig` that suit this rule, where they differ from that class's own defaults.
    """

    name: ClassVar[str]
    recipe: ClassVar[Mapping[str, Any]]

    def start(self, weights: Sequence[Tensor], *, generator: torch.Generator) -> RuleState:
        """A state that owns `weights`, matrices of -1/+1, and draws all its randomness from `generator`."""
