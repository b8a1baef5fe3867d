"""Visits: every input of a region, one flip at a time, on the exact integer network; for any network.

The general way, for networks that `bitslice.py` does not serve: convolutions, classes with scales of their own, no
hidden block. The number of disagreeing inputs of each neuron of the first block is kept up to date: a flip adds +1 or
-1 to each. Balls are walked shell by shell (nearest first) in lexicographic order of the flipped indices, so that the
innermost step is one vector addition; fixed-index regions in Gray-code order. A network with convolutions is
evaluated anew for every input, packed (`stages.py`). The walk can stop after any input, and says exactly how far it
came.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.engines.base import Clock, Limits
from bnnverify.kernels import disagreement_limits, forward_ranks, pack_layers
from bnnverify.packing import argmax_first, pack_fired, score_ranks
from bnnverify.query import Query, Targeted, Ties
from bnnverify.regions import FixedIndexRegion, HammingBall
from bnnverify.stages import forward_stages, pack_stages
from bnnverify.summary import summarize

_CHUNK = 1 << 20  # most inputs between two looks at the clock
_CHUNK_OPERATIONS = 1 << 31  # about as many products of signs: well under a second

_TIES = {Ties.LOWEST_INDEX: 0, Ties.COUNTEREXAMPLE: 1, Ties.ROBUST: 2}


@njit(inline="always")
def _adversarial(ranks, klass, targeted, ties, best):  # type: ignore[no-untyped-def]
    """`Query.scores_adversarial` on score ranks; `best` is their argmax."""
    if ties == 0:
        return (best == klass) == targeted
    mine = ranks[klass]
    if targeted:
        for k in range(ranks.shape[0]):
            if k != klass and (ranks[k] > mine or (ties == 2 and ranks[k] == mine)):
                return False
        return True
    for k in range(ranks.shape[0]):  # noqa: SIM110 (numba compiles no generators)
        if k != klass and (ranks[k] > mine or (ties == 1 and ranks[k] == mine)):
            return True
    return False


@njit(inline="always")
def _ranks_of(counts, front_limits, front_ranks, shape, weights, mask, limits, ranks, masked, bits, scratch, out):  # type: ignore[no-untyped-def]
    """Score ranks of the input whose front block has these disagreement counts."""
    if front_ranks.shape[0] > 0:  # no hidden block: the front is the output block
        for k in range(out.shape[0]):
            out[k] = front_ranks[k, counts[k]]
    else:
        pack_fired(counts, front_limits, 0, counts.shape[0], bits)
        forward_ranks(bits, shape, weights, mask, limits, ranks, masked, scratch, out)


@njit
def _walk_shell(base, deltas, flips, steps, stop, question, front, per_class):  # type: ignore[no-untyped-def]
    """Visit up to `steps` inputs with exactly `len(flips)` flips, from `flips` on (lexicographic).

    Returns (visited, adversarial, exhausted, found); `flips` is left at the next input to visit, or at the
    adversarial one if `found` (only when `stop` is set).
    """
    klass, targeted, ties = question
    front_limits, front_ranks, shape, weights, mask, limits, ranks, masked, bits, scratch, out = front
    d, n, m = flips.shape[0], deltas.shape[0], base.shape[0]
    stack = np.empty((d + 1, m), dtype=np.int32)
    stack[0] = base
    for i in range(d):
        stack[i + 1] = stack[i] + deltas[flips[i]]
    visited, adversarial = 0, 0
    while visited < steps:
        _ranks_of(stack[d], front_limits, front_ranks, shape, weights, mask, limits, ranks, masked, bits, scratch, out)
        best = argmax_first(out)
        per_class[best] += 1
        visited += 1
        if _adversarial(out, klass, targeted, ties, best):
            adversarial += 1
            if stop:
                return visited, adversarial, False, True
        level = d - 1  # next combination: raise the last index that can be raised
        while level >= 0 and flips[level] == n - d + level:
            level -= 1
        if level < 0:
            return visited, adversarial, True, False
        flips[level] += 1
        for i in range(level + 1, d):
            flips[i] = flips[i - 1] + 1
        for i in range(level, d):
            for j in range(m):
                stack[i + 1, j] = stack[i, j] + deltas[flips[i], j]
    return visited, adversarial, False, False


@njit
def _walk_gray(counts, deltas, signs, start, total, steps, stop, question, front, per_class):  # type: ignore[no-untyped-def]
    """Visit up to `steps` of the 2^f inputs, from Gray-code index `start` on; `counts` and `signs` follow.

    ``signs[i]`` is +1 while free input i has its central value. Returns (visited, adversarial, found).
    """
    klass, targeted, ties = question
    front_limits, front_ranks, shape, weights, mask, limits, ranks, masked, bits, scratch, out = front
    m = counts.shape[0]
    visited, adversarial = 0, 0
    index = start
    while visited < steps:
        _ranks_of(counts, front_limits, front_ranks, shape, weights, mask, limits, ranks, masked, bits, scratch, out)
        best = argmax_first(out)
        per_class[best] += 1
        visited += 1
        if _adversarial(out, klass, targeted, ties, best):
            adversarial += 1
            if stop:
                return visited, adversarial, True
        index += 1
        if index >= total:
            break
        bit, rest = 0, index  # the Gray code flips the lowest set bit of the index
        while rest & 1 == 0:
            rest >>= 1
            bit += 1
        for j in range(m):
            counts[j] += signs[bit] * deltas[bit, j]
        signs[bit] = -signs[bit]
    return visited, adversarial, False


@njit(inline="always")
def _toggle(bits, place):  # type: ignore[no-untyped-def]
    bits[place >> 6] ^= np.uint64(1) << np.uint64(place & 63)


@njit
def _walk_shell_stages(bits, places, flips, steps, stop, question, loops, scratch, per_class):  # type: ignore[no-untyped-def]
    """`_walk_shell` by evaluating each input: `bits` are those of the centre, input i is at ``places[i]``."""
    klass, targeted, ties = question
    table, weights, mask, limits, conjunction, ranks = loops
    work, counts, out = scratch
    d, n = flips.shape[0], places.shape[0]
    for i in range(d):
        _toggle(bits, places[flips[i]])
    visited, adversarial, exhausted, found = 0, 0, False, False
    while visited < steps and not exhausted:
        forward_stages(bits, 0, table, weights, mask, limits, conjunction, ranks, work, counts, out)
        best = argmax_first(out)
        per_class[best] += 1
        visited += 1
        if _adversarial(out, klass, targeted, ties, best):
            adversarial += 1
            if stop:
                found = True
                break
        level = d - 1
        while level >= 0 and flips[level] == n - d + level:
            level -= 1
        exhausted = level < 0
        if not exhausted:
            for i in range(level, d):
                _toggle(bits, places[flips[i]])
            flips[level] += 1
            for i in range(level + 1, d):
                flips[i] = flips[i - 1] + 1
            for i in range(level, d):
                _toggle(bits, places[flips[i]])
    for i in range(d):
        _toggle(bits, places[flips[i]])  # back to the centre
    return visited, adversarial, exhausted, found


@njit
def _walk_gray_stages(bits, places, signs, start, total, steps, stop, question, loops, scratch, per_class):  # type: ignore[no-untyped-def]
    """`_walk_gray` by evaluating each input; `bits` and `signs` follow, free input i is at ``places[i]``."""
    klass, targeted, ties = question
    table, weights, mask, limits, conjunction, ranks = loops
    work, counts, out = scratch
    visited, adversarial = 0, 0
    index = start
    while visited < steps:
        forward_stages(bits, 0, table, weights, mask, limits, conjunction, ranks, work, counts, out)
        best = argmax_first(out)
        per_class[best] += 1
        visited += 1
        if _adversarial(out, klass, targeted, ties, best):
            adversarial += 1
            if stop:
                return visited, adversarial, True
        index += 1
        if index >= total:
            break
        bit, rest = 0, index
        while rest & 1 == 0:
            rest >>= 1
            bit += 1
        _toggle(bits, places[bit])
        signs[bit] = -signs[bit]
    return visited, adversarial, False


@dataclass(slots=True)
class Visits:
    """State of one enumeration: what was seen so far."""

    query: Query
    clock: Clock
    node_limit: int | None
    stop_at_first: bool
    visited: int = 0
    adversarial: int = 0
    per_radius: list[int] = field(default_factory=list)
    witness: tuple[int, ...] | None = None
    reason: str = ""
    per_class: NDArray[np.int64] = field(init=False)
    chunk: int = field(init=False)

    def __post_init__(self) -> None:
        self.per_class = np.zeros(self.query.network.n_classes, dtype=np.int64)
        self.chunk = min(max(_CHUNK_OPERATIONS // max(summarize(self.query.network).macs, 1), 1), _CHUNK)

    def steps(self) -> int:
        """Inputs that may be visited before the next look at the limits; 0 when one is reached."""
        if self.clock.is_over:
            self.reason = self.clock.reason
            return 0
        if self.node_limit is not None and self.visited >= self.node_limit:
            self.reason = f"limit of {self.node_limit} inputs reached"
            return 0
        return self.chunk if self.node_limit is None else min(self.chunk, self.node_limit - self.visited)

    def record(self, visited: int, adversarial: int) -> None:
        """Add what a stretch of the walk met."""
        self.visited += visited
        self.adversarial += adversarial

    def tell(self) -> None:
        """Report the bounds proved so far."""
        if self.clock.monitor is not None:
            size = self.query.sign_region.size()
            self.clock.monitor.report(self.adversarial, size - self.visited + self.adversarial, size)


def _question(query: Query) -> tuple[int, bool, int]:
    if isinstance(query.property, Targeted):
        return query.property.target, True, _TIES[query.ties]
    return query.property.label, False, _TIES[query.ties]


class _Flips:
    """A network of dense blocks at a centre: disagreements of the first block, and their change per flipped input."""

    def __init__(self, walk: Visits, center: NDArray[np.int64], free: NDArray[np.int64]) -> None:
        network = walk.query.network
        blocks = network.dense_blocks("convolutions are evaluated anew for every input.")
        block = blocks[0] if blocks else network.output
        products = block.weights.astype(np.int32) * center.astype(np.int32)
        self._counts = np.count_nonzero(products < 0, axis=1).astype(np.int32)
        self._deltas = np.ascontiguousarray(products.T[free])  # agreeing (+1): the flip adds a disagreement
        packed = pack_layers(blocks[1:], network.output)
        layers = (packed.shape, packed.weights, packed.mask, packed.limits, packed.ranks, packed.is_masked)
        limits = disagreement_limits(blocks[0]) if blocks else np.zeros(0, dtype=np.int32)
        ranks = np.zeros((0, 1), dtype=np.int32) if blocks else score_ranks(network.output)
        width = max(network.widths)
        bits = np.zeros((width + 63) // 64 + 1, dtype=np.uint64)
        scratch = np.zeros(width, dtype=np.int64)
        out = np.zeros(network.n_classes, dtype=np.int32)
        front = (limits, ranks, *layers, bits, scratch, out)
        self._rest = (walk.stop_at_first, _question(walk.query), front, walk.per_class)

    def shell(self, flips: NDArray[np.int64], steps: int) -> tuple[int, int, bool, bool]:
        """Some inputs of a shell over the free inputs: see `_walk_shell`."""
        result: tuple[int, int, bool, bool] = _walk_shell(self._counts, self._deltas, flips, steps, *self._rest)
        return result

    def gray(self, signs: NDArray[np.int32], start: int, total: int, steps: int) -> tuple[int, int, bool]:
        """Some settings of the free inputs: see `_walk_gray`."""
        result: tuple[int, int, bool] = _walk_gray(self._counts, self._deltas, signs, start, total, steps, *self._rest)
        return result


class _Evaluations:
    """A network with convolutions at a centre, as packed stages."""

    def __init__(self, walk: Visits, center: NDArray[np.int64], free: NDArray[np.int64]) -> None:
        network = walk.query.network
        stages = pack_stages(network.blocks, network.output)
        self._bits = stages.packed(center[None])[0]
        places = np.arange(center.size) if stages.order is None else np.argsort(stages.order)
        self._places = places[free]
        rest = (stages.loops, stages.workspace(), walk.per_class)
        self._rest = (walk.stop_at_first, _question(walk.query), *rest)

    def shell(self, flips: NDArray[np.int64], steps: int) -> tuple[int, int, bool, bool]:
        """Some inputs of a shell over the free inputs: see `_walk_shell`."""
        result: tuple[int, int, bool, bool] = _walk_shell_stages(self._bits, self._places, flips, steps, *self._rest)
        return result

    def gray(self, signs: NDArray[np.int32], start: int, total: int, steps: int) -> tuple[int, int, bool]:
        """Some settings of the free inputs: see `_walk_gray`."""
        rest = self._rest
        result: tuple[int, int, bool] = _walk_gray_stages(self._bits, self._places, signs, start, total, steps, *rest)
        return result


def _at(walk: Visits, center: NDArray[np.int64], free: NDArray[np.int64]) -> _Flips | _Evaluations:
    return _Evaluations(walk, center, free) if walk.query.network.has_convolutions else _Flips(walk, center, free)


def _walk_ball(walk: Visits, region: HammingBall) -> None:
    center = np.array(region.center, dtype=np.int64)
    free = np.array(region.free, dtype=np.int64)
    network = _at(walk, center, free)
    for radius in range(region.radius + 1):
        walk.per_radius.append(0)
        flips = np.arange(radius, dtype=np.int64)
        exhausted = False
        while not exhausted:
            if (steps := walk.steps()) == 0:
                return
            visited, adversarial, exhausted, found = network.shell(flips, steps)
            walk.record(visited, adversarial)
            walk.tell()
            walk.per_radius[radius] += adversarial
            if found:
                center[free[flips]] *= -1
                walk.witness = tuple(int(v) for v in center)
                return


def _walk_free(walk: Visits, region: FixedIndexRegion) -> None:
    center = np.array(region.center, dtype=np.int64)
    free = np.array(region.free, dtype=np.int64)
    network = _at(walk, center, free)
    signs = np.ones(free.size, dtype=np.int32)
    total = region.size()
    while walk.visited < total:
        if (steps := walk.steps()) == 0:
            return
        end = min(total, 2**63 - 1)  # no walk gets that far
        visited, adversarial, found = network.gray(signs, walk.visited, end, steps)
        walk.record(visited, adversarial)
        walk.tell()
        if found:
            center[free] *= signs
            walk.witness = tuple(int(v) for v in center)
            return


def visit(query: Query, limits: Limits, clock: Clock, *, stop_at_first: bool) -> Visits:
    """Visit every input of the region, or up to the first adversarial one, or up to a limit."""
    visits = Visits(query, clock, limits.nodes, stop_at_first)
    if isinstance(query.sign_region, HammingBall):
        _walk_ball(visits, query.sign_region)
    else:
        _walk_free(visits, query.sign_region)
    return visits
