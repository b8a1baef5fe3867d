"""Which block needs error correction: the expected accuracy with errors in one block only, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError
from bnnverify.faults import PerBlock, SignModel
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.accuracy import expected_accuracy
from bnnverify.results import Probability, Run


@dataclass(frozen=True, slots=True)
class BlockEffect:
    """Errors in one block only.

    Attributes:
        block: Its number; the output block is the last.
        cells: Cells that can fail.
        accuracy: Expected accuracy, proved bounds.
    """

    block: int
    cells: int
    accuracy: Probability


@dataclass(frozen=True, slots=True)
class BlockSensitivity:
    """What errors in each block alone cost.

    Attributes:
        faults: The errors.
        clean: Accuracy without errors, exact.
        blocks: The effect of each block.
        together: Expected accuracy with errors in all blocks.
        run: Time, and the reason if a limit left images out.
    """

    faults: SignModel
    clean: Fraction
    blocks: tuple[BlockEffect, ...]
    together: Probability
    run: Run

    def _name(self, effect: BlockEffect) -> str:
        kind = "the output block" if effect.block + 1 == len(self.blocks) else f"hidden block {effect.block}"
        return f"{kind} ({effect.cells:,} cells)"

    @property
    def most_sensitive(self) -> BlockEffect | None:
        """The block whose errors are proved to cost more accuracy than those of any other; None if bounds overlap."""
        for effect in self.blocks:
            if all(effect.accuracy.upper < e.accuracy.lower for e in self.blocks if e is not effect):
                return effect
        return None

    def __str__(self) -> str:
        """What each block costs, and which one needs protection first, in words."""
        order = sorted(self.blocks, key=lambda e: e.accuracy.lower + e.accuracy.upper)
        parts = []
        for effect in order:
            least, most = self.clean - effect.accuracy.upper, self.clean - effect.accuracy.lower
            parts.append(f"errors only in {self._name(effect)} cost {_points(least, most)}")
        sentence = f"Of the accuracy {float(self.clean):.4%} without errors, {'; '.join(parts)}"
        worst = self.most_sensitive
        if worst is None:
            return f"{sentence}. The bounds do not tell which block costs most."
        return f"{sentence}. Error correction pays first in {self._name(worst)} (proved)."

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        worst = self.most_sensitive
        return {
            "type": "block-sensitivity",
            "faults": self.faults.to_json(),
            "clean": str(self.clean),
            "blocks": [{"block": e.block, "cells": e.cells, "accuracy": e.accuracy.to_json()} for e in self.blocks],
            "together": self.together.to_json(),
            "most_sensitive": None if worst is None else worst.block,
            "run": self.run.to_json(),
        }


def _points(least: Fraction, most: Fraction) -> str:
    """A loss in percentage points, between its bounds, rounded outward."""
    low, high = least * 10**6 // 1, -(-most * 10**6 // 1)
    return f"{float(low) / 1e4:.4f} to {float(high) / 1e4:.4f} points"


@about_cells
def block_sensitivity(
    network: BinaryNetwork, images: ArrayLike, labels: Sequence[int], model: SignModel, **options: Any
) -> BlockSensitivity:
    """Proved bounds on the expected accuracy with errors in one block only, for every block, and in all of them.

    Args:
        network: As in `expected_accuracy`.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the true labels, or the fault-free classes.
        model: The errors: by stored sign, the same in every block.
        **options: Of `expected_accuracy`; a time limit holds for each of the accuracies.

    Raises:
        QueryError: The model differs from block to block, or a bad argument.

    >>> from bnnverify.faults import BitFlip
    >>> from bnnverify.network import DenseBlock, InputDomain, OutputBlock
    >>> net = BinaryNetwork(
    ...     InputDomain.binary(3), (DenseBlock.create([[1, 1, 1]], [0]),), OutputBlock.create([[1], [-1]])
    ... )
    >>> print(block_sensitivity(net, [[1, 1, 1]], [0], BitFlip("0.1")))  # doctest: +NORMALIZE_WHITESPACE
    Of the accuracy 100.0000% without errors, errors only in hidden block 0 (3 cells) cost 2.7999 to 2.8001 points;
    errors only in the output block (2 cells) cost 0.9999 to 1.0001 points. Error correction pays first in hidden
    block 0 (3 cells) (proved).
    """
    if not isinstance(model, SignModel):
        raise QueryError(f"the model is {model!r:.80}, expected one for all blocks, such as BitFlip('1e-3').")
    points = network.domain.require_batch(images)
    count = len(network.all_blocks)
    each = [
        expected_accuracy(network, points, labels, PerBlock.only(model, b, of=count), **options) for b in range(count)
    ]
    together = expected_accuracy(network, points, labels, model, **options)
    clean = Fraction(int(np.count_nonzero(network.evaluate_batch(points) == np.asarray(labels))), len(points))
    effects = tuple(
        BlockEffect(b, block.n_cells, point.accuracy)
        for b, (block, point) in enumerate(zip(network.all_blocks, each, strict=True))
    )
    runs = [point.run for point in (*each, together)]
    reason = next((run.reason for run in runs if run.reason), "")
    return BlockSensitivity(
        model, clean, effects, together.accuracy, Run("convolution", sum(run.seconds for run in runs), reason)
    )
