"""What a set of changed first-block neurons does to the property: exactly, and as a bound where some are undecided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import DenseBlock
from bnnverify.deciding.intervals import BlockBounds, Bounds, Propagation, excesses, refutes
from bnnverify.deciding.relaxation import BatchForward
from bnnverify.domain import INT_LIMIT, InputDomain
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query

_NO_SUMS = np.zeros(0, dtype=np.int64)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """The first-block neurons that can change their sign within a ball.

    Attributes:
        neurons: Their numbers.
        moves: By how many steps towards its threshold each free input moves each of them: shape `(k, free)`, int8.
        demand: Steps that change the sign, shape `(k,)`, at least 1.
        signs: Signs of all first-block neurons at the centre, shape `(neurons,)`, int8.
    """

    neurons: NDArray[np.int64]
    moves: NDArray[np.int8]
    demand: NDArray[np.int64]
    signs: NDArray[np.int8]


def rows_within(block: DenseBlock, center: NDArray[np.int64], free: NDArray[np.int64], radius: int) -> Rows:
    """What at most `radius` flips among the inputs `free` may change in a block over signs, exactly."""
    margins = block.preactivations(center) - block.thresholds
    signs = np.where(margins >= 0, 1, -1).astype(np.int8)
    # each step in its favour moves a margin by 2: from m >= 0 below 0, or from m < 0 to at least 0
    demand = np.where(margins >= 0, margins // 2 + 1, (1 - margins) // 2)
    toward = (block.weights[:, free] * center[free] * signs[:, None]).astype(np.int8)
    kept = np.flatnonzero(demand <= np.minimum(np.count_nonzero(toward > 0, axis=1), radius))
    return Rows(kept, np.ascontiguousarray(toward[kept]), demand[kept], signs)


class Goal(Protocol):
    """One way to be adversarial, as a condition on which of the neurons in `Rows` change."""

    def is_out_of_reach(self, changed: Mask, undecided: Mask) -> bool:
        """True only if no choice of the undecided neurons meets the property."""

    def is_met(self, changed: Mask) -> bool:
        """True iff the property holds if exactly these neurons change."""

    def order(self) -> NDArray[np.int64]:
        """The neurons in the order in which to decide them."""


def goals_of(query: Query, block: DenseBlock, rows: Rows) -> list[Goal]:
    """Conditions one of which has to hold: one per rival behind a single hidden block, the nearest first."""
    if len(query.network.blocks) == 1 and (linear := _linear_goals(query, block, rows)) is not None:
        return linear
    return [DeepGoal(query, rows)]


@dataclass(frozen=True, slots=True)
class LinearGoal:
    """Changing the neurons of a set adds up their columns of `gains`; every sum has to reach its entry of `needs`.

    Attributes:
        gains: Shape `(comparisons, k)`, int64.
        needs: Shape `(comparisons,)`, int64.
        demand: As in `Rows`.
    """

    gains: NDArray[np.int64]
    needs: NDArray[np.int64]
    demand: NDArray[np.int64]

    def is_out_of_reach(self, changed: Mask, undecided: Mask) -> bool:
        """By the sum of all gains that are left."""
        most = self.gains[:, changed].sum(axis=1) + np.maximum(self.gains[:, undecided], 0).sum(axis=1)
        return bool((most < self.needs).any())

    def is_met(self, changed: Mask) -> bool:
        """By the sums."""
        return bool((self.gains[:, changed].sum(axis=1) >= self.needs).all())

    def order(self) -> NDArray[np.int64]:
        """Those that can help first; of these the hardest, which leave the inputs least choice."""
        helps = (self.gains > 0).any(axis=0)
        return np.lexsort((-np.abs(self.gains).max(axis=0, initial=0), -self.demand, ~helps))


def _linear_goals(query: Query, block: DenseBlock, rows: Rows) -> list[Goal] | None:
    """The goals behind a single hidden block; None if their numbers do not fit int64."""
    output = query.network.output
    comparisons, conjunctive = query.score_conditions()
    scales, biases = output.integer_form()
    sums = [int(v) for v in output.popcounts(rows.signs.astype(np.int64))]
    weights = output.weights[:, rows.neurons].astype(object) * rows.signs[rows.neurons].astype(object)
    lines: list[tuple[NDArray[np.int64], int]] = []
    for i, j, strict in comparisons:
        value = scales[i] * sums[i] + biases[i] - scales[j] * sums[j] - biases[j] - strict
        gains = [int(g) for g in -2 * (scales[i] * weights[i] - scales[j] * weights[j])]
        divisor, need = int(np.gcd.reduce(np.array([0, *gains], dtype=object))), -value
        if divisor:
            gains, need = [g // divisor for g in gains], -(-need // divisor)
        reach = sum(map(abs, gains))
        if reach >= INT_LIMIT:
            return None
        lines.append((np.array(gains, dtype=np.int64), max(min(need, reach + 1), -reach - 1)))
    if conjunctive:
        gain = np.stack([line[0] for line in lines])
        return [LinearGoal(gain, np.array([line[1] for line in lines], dtype=np.int64), rows.demand)]
    lines.sort(key=lambda line: line[1] / max(1, int(line[0].max(initial=1))))
    return [LinearGoal(gain[None], np.array([need], dtype=np.int64), rows.demand) for gain, need in lines]


class DeepGoal:
    """The property behind any later blocks, with interval bounds where neurons are undecided.

    Args:
        query: The question; its first block is dense.
        rows: First-block neurons that can change.
    """

    def __init__(self, query: Query, rows: Rows) -> None:
        self._query, self._rows = query, rows
        self._propagation = Propagation(query.network)

    def _signs(self, changed: Mask, undecided: Mask) -> NDArray[np.int8]:
        signs = self._rows.signs.copy()
        signs[self._rows.neurons[changed]] *= -1
        signs[self._rows.neurons[undecided]] = 0
        return signs

    def is_out_of_reach(self, changed: Mask, undecided: Mask) -> bool:
        """By interval bounds of the later blocks."""
        signs = self._signs(changed, undecided)
        first = BlockBounds(_NO_SUMS, _NO_SUMS, signs)
        blocks = (first, *self._propagation.beyond(0, signs))
        bounds = Bounds(self._query.network, self._query.region, blocks)
        return refutes(self._query, excesses(self._query, bounds))

    def is_met(self, changed: Mask) -> bool:
        """By evaluation."""
        network = self._query.network
        h = self._signs(changed, np.zeros_like(changed)).astype(np.int64)
        for block in network.blocks[1:]:
            h = block.outputs(h)
        sums = network.output.popcounts(h)
        scores = [a * int(s) + b for a, s, b in zip(network.output.scale, sums, network.output.bias, strict=True)]
        return self._query.scores_adversarial(scores)

    def order(self) -> NDArray[np.int64]:
        """By how much a change seems to bring the property nearer, for the steps that it takes."""
        query, rows = self._query, self._rows
        network = query.network
        rest = BinaryNetwork(InputDomain.binary(len(rows.signs)), network.blocks[1:], network.output)
        forward = BatchForward(rest)
        done = forward.run(rows.signs[None])
        scores = forward.scores(done.sums)[0]
        comparisons, conjunctive = query.score_conditions()
        pick = min if conjunctive else max
        i, j, _ = pick(comparisons, key=lambda c: scores[c[0]] - scores[c[1]])
        direction = np.zeros((1, network.n_classes), dtype=np.float32)
        direction[0, i], direction[0, j] = 1, -1
        widths = np.array([[2 * fan_in**0.5] for fan_in in forward.fan_in], dtype=np.float32).reshape(-1, 1)
        slopes = forward.slopes(done, direction, widths)[0]
        gain = -slopes[rows.neurons] * rows.signs[rows.neurons]
        return np.argsort(-np.abs(gain) / rows.demand, kind="stable")
