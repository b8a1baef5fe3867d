"""A network over a region as a machine that reads one input after another, and the order in which it does.

The machine's state is what the inputs read so far leave open: the margins of the first block's neurons that are not
settled yet, and the sums to which the settled ones have added. `layerkernel` walks over its states, `layered` makes
a decision diagram of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import OutputBlock
from bnnverify.errors import UnsupportedError
from bnnverify.network import BinaryNetwork
from bnnverify.regions import HammingBall, Region

Array = NDArray[Any]

_LARGEST = 2**40  # sums of products up to here are far from the end of int64


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """Integers that define the walk. Levels are free inputs in the order they are read; a flip is away from the centre.

    Attributes:
        order: Index of the input read at each level.
        radius: Most flips; None where every input is free to flip.
        margins: Of each first-block neuron at the centre: it fires iff this is at least 0. Shape `(neurons,)`.
        deltas: What a flip at each level adds to the margins, shape `(levels, neurons)`.
        consumers: What a firing neuron adds to each sum, and what a silent one subtracts, shape `(neurons, sums)`.
            The sums are the class scores, or the pre-activations of the second block.
        thresholds: Of the second block, shape `(sums,)`; unused if the sums are the class scores.
        is_deep: True if the sums are pre-activations.
        shapes: `(neurons, inputs)` of the hidden blocks after the second.
        weights: Their weights, one after the other, flat.
        limits: Their thresholds, likewise.
        scores: Weights of the class scores, shape `(classes, last hidden neurons)`.
        bounds: Class c beats class k iff the difference of their scores is at least ``bounds[c, k]``.
    """

    order: tuple[int, ...]
    radius: int | None
    margins: Array
    deltas: Array
    consumers: Array
    thresholds: Array
    is_deep: bool
    shapes: Array
    weights: Array
    limits: Array
    scores: Array
    bounds: Array

    @property
    def n_levels(self) -> int:
        """Inputs to read."""
        return len(self.order)

    @property
    def n_classes(self) -> int:
        """Classes."""
        return len(self.bounds)


def machine(network: BinaryNetwork, region: Region, *, order: Sequence[int] | None = None) -> Machine:
    """The machine of a network over a region.

    Args:
        network: Any network with -1/+1 inputs; convolutions are unrolled.
        region: Where the inputs lie.
        order: The region's free inputs in the order to read them. Default: `influence_order`.

    Raises:
        UnsupportedError: The scales of the scores are so far apart that their ratios as integers exceed 40 bits.
    """
    blocks = network.unrolled().dense_blocks("the unrolled network has others.")
    scores, margin = _tournament(network.output)
    if blocks:
        first, limits = blocks[0].weights.astype(np.int64), blocks[0].thresholds
    else:
        first, limits, scores, margin = _duels(scores, margin)
    later = blocks[1:]
    consumers = later[0].weights.astype(np.int64).T if later else scores.T
    thresholds = later[0].thresholds if later else np.zeros(len(scores), dtype=np.int64)
    center = np.array(region.center, dtype=np.int64)
    margins = first @ center - limits
    levels = tuple(influence_order(first, margins, region) if order is None else order)
    deltas = -2 * (first * center).T[list(levels), :] if levels else np.zeros((0, len(limits)), dtype=np.int64)
    return Machine(
        order=levels,
        radius=_radius(region, len(levels)),
        margins=margins,
        deltas=np.ascontiguousarray(deltas),
        consumers=np.ascontiguousarray(consumers),
        thresholds=np.ascontiguousarray(thresholds),
        is_deep=bool(later),
        shapes=np.array([b.weights.shape for b in later[1:]], dtype=np.int64).reshape(-1, 2),
        weights=_flat([b.weights.astype(np.int64) for b in later[1:]]),
        limits=_flat([b.thresholds for b in later[1:]]),
        scores=np.ascontiguousarray(scores),
        bounds=margin,
    )


def _radius(region: Region, levels: int) -> int | None:
    """Most flips, or None where the region allows all of them."""
    return region.radius if isinstance(region, HammingBall) and region.radius < levels else None


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([a.ravel() for a in arrays]) if arrays else np.zeros(0, dtype=np.int64)


def _tournament(output: OutputBlock) -> tuple[Array, Array]:
    """Small integer weights A and bounds T: class c beats class k iff ``(A[c] - A[k]) . h >= T[c, k]``."""
    scales, biases = output.integer_form()
    divisor = math.gcd(*scales) or 1
    reach = 2 * output.n_inputs * max(1, *(abs(s) // divisor for s in scales))
    if reach > _LARGEST:
        raise UnsupportedError(
            f"the scores reach {reach} as integers, expected at most {_LARGEST} for diagrams layer by layer. "
            "Round the scales of the network, or take another engine."
        )
    factors = np.array([s // divisor for s in scales], dtype=np.int64)
    bounds = np.array(
        [
            [max(-reach - 1, min(reach + 1, -((a - b - (c > k)) // divisor))) for k, b in enumerate(biases)]
            for c, a in enumerate(biases)
        ],
        dtype=np.int64,
    )
    return output.weights.astype(np.int64) * factors[:, None], bounds


def _duels(scores: Array, bounds: Array) -> tuple[Array, Array, Array, Array]:
    """Scores of the inputs themselves as a hidden block: one neuron per pair of classes, the winner wins all of its."""
    n = len(bounds)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    rows = np.array([scores[i] - scores[j] for i, j in pairs])
    wins = np.zeros((n, len(pairs)), dtype=np.int64)
    for column, (i, j) in enumerate(pairs):
        wins[i, column], wins[j, column] = 1, -1
    ties = np.array([[int(i > j) for j in range(n)] for i in range(n)])
    return rows, np.array([bounds[i, j] for i, j in pairs]), wins, ties


def influence_order(first: Array, margins: Array, region: Region) -> list[int]:
    """The region's free inputs, those that push open neurons towards their thresholds last.

    What comes first then leaves margins that soon cannot be brought back: few states at the start of the walk, where
    many flips are left, and settled neurons soon after. On the networks measured this makes diagrams up to two times
    smaller than the order by number, and several times smaller than the opposite one.

    Args:
        first: Weights of the first block, shape `(neurons, inputs)`.
        margins: Of its neurons at the region's centre, shape `(neurons,)`.
        region: Where the inputs lie.
    """
    free = list(region.free)
    center = np.array(region.center, dtype=np.int64)
    moves = -2 * (first * center)[:, free]
    towards = np.where(margins >= 0, -1, 1)[:, None] * moves > 0
    widest = int(np.abs(moves).max(initial=0))
    openness = np.maximum(0, region.most_flips * widest + 1 - np.abs(margins))  # 0: settled in all of the region
    influence = openness @ towards
    return [free[i] for i in np.argsort(influence, kind="stable")]
