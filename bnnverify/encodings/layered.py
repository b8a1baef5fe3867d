"""Decision diagrams of all classes at once, layer by layer: walk, merge, reduce.

One reduced ordered diagram maps every input of a region to its class, and every other input to a leaf for "outside".
No diagram of a neuron is ever built: the machine of `layers` reads the inputs in order, states that leave the same
question open are one node, and nodes with the same children are then united from the last level up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.encodings.diagram import Diagram
from bnnverify.encodings.layerkernel import expand, settle, unite
from bnnverify.encodings.layers import Machine
from bnnverify.errors import ResourceLimitError, UnsupportedError

Array = NDArray[Any]
Check = Callable[[int, int], None]
"""Called between pieces of work with the nodes so far and the bytes in use; raises ResourceLimitError to stop."""

_CHUNK = 1 << 14  # states between two looks at the clock


@dataclass(slots=True)
class Walk:
    """The walk so far: per finished level where each state goes, and the states of the level in work.

    Attributes:
        machine: What walks.
        levels: Of each finished level the children `(low, high)` of its states: the number of a state of the next
            level, or ``-1 - (class * stride + flips left)``.
        states: Rows of the level that comes next; empty at the end.
        reason: Why it stopped before the end; empty if it did not.
    """

    machine: Machine
    levels: list[tuple[Array, Array]] = field(default_factory=list)
    states: Array = field(default_factory=lambda: np.zeros((0, 4), dtype=np.int16))
    root: int = 0
    reason: str = ""

    @property
    def stride(self) -> int:
        """What separates the classes in a settled child's number."""
        return self.machine.n_levels + 1

    @property
    def n_nodes(self) -> int:
        """States of the finished levels."""
        return sum(len(low) for low, _ in self.levels)


def walk(
    machine: Machine, check: Check = lambda nodes, size: None, *, after: Callable[[Walk], bool] = lambda walk: False
) -> Walk:
    """Walk to the end, or as far as `check` and `after` let it.

    Args:
        machine: What walks.
        check: Called every few thousand states; raises ResourceLimitError to stop.
        after: Called with the walk after each level; True ends it.
    """
    result = Walk(machine)
    tables, dtype, settled, low_mark, high_mark = _tables(machine)
    final = (machine.shapes, machine.weights, machine.limits, machine.scores, machine.bounds)
    h, c = machine.consumers.shape
    widest = max(c, machine.scores.shape[1], *machine.shapes.ravel().tolist(), 1)
    scratch = (
        np.zeros(h, dtype=np.int64),
        np.zeros(c, dtype=np.int64),
        np.zeros(c, dtype=np.int64),
        np.zeros((2, widest), dtype=np.int64),
        settled,
        high_mark,
        low_mark,
    )
    bounded = machine.radius is not None
    down, up, reach, consumers, thresholds, deep = tables
    width = -(-(h + c + 1) * dtype.itemsize // 8) * (8 // dtype.itemsize)
    root = np.zeros((1, width), dtype=dtype)
    extent = np.minimum(np.abs(machine.margins), np.abs(machine.deltas).sum(axis=0) + 1)
    root[0, :h] = np.sign(machine.margins) * extent
    root[0, h + c] = machine.radius or 0
    klass = settle(
        root[0], 0, True, (bounded, machine.n_levels), down, up, reach, consumers, thresholds, deep, final, scratch
    )
    if klass >= 0:
        result.root = -1 - (klass * result.stride + int(root[0, h + c]))
        return result
    result.states = root
    deltas = machine.deltas.astype(dtype)
    try:
        for level in range(machine.n_levels):
            states = result.states
            size = len(states)
            found = np.empty((2 * size, width), dtype=dtype)  # pages are taken as they are filled
            hashes = np.empty(2 * size, dtype=np.uint64)
            low, high = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
            table, count = np.full(1024, -1, dtype=np.int32), 0
            left = machine.n_levels - level - 1
            for start in range(0, size, _CHUNK):
                used = states.nbytes + count * (width * dtype.itemsize + 8) + table.nbytes + 8 * result.n_nodes
                check(result.n_nodes + size + count, used)
                stop = min(start + _CHUNK, size)
                count, table = expand(
                    states, start, stop, level, bounded, left, deltas, tables, final, scratch,
                    low, high, found, count, hashes, table,
                )  # fmt: skip
            if count >= 2**30:
                raise ResourceLimitError(f"a level of the diagram has {count} states, at most {2**30} can be numbered")
            result.levels.append((low, high))
            result.states = found[:count].copy()
            if after(result) or not count:
                break
    except (ResourceLimitError, MemoryError) as error:
        result.reason = str(error) or "memory limit reached by the decision diagrams"
    return result


def _tables(machine: Machine) -> tuple[tuple[Any, ...], np.dtype[Any], int, int, int]:
    """What the kernels look up, and the type of a state's numbers with the values that stand for "settled"."""
    n = machine.n_levels
    h = len(machine.margins)
    down, up = np.zeros((n + 1, h), dtype=np.int64), np.zeros((n + 1, h), dtype=np.int64)
    widest = np.zeros(n + 1, dtype=np.int64)
    for level in reversed(range(n)):
        delta = machine.deltas[level]
        down[level] = down[level + 1] + np.maximum(-delta, 0)
        up[level] = up[level + 1] + np.maximum(delta, 0)
        widest[level] = max(widest[level + 1], int(np.abs(delta).max(initial=0)))
    margins = int((down[0] + up[0]).max(initial=0))
    sums = 2 * int(np.abs(machine.consumers).sum(axis=0).max(initial=0))
    largest = 2 * max(margins, sums, n) + 2
    for dtype in (np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
        top = int(np.iinfo(dtype).max)
        if largest < top:
            tables = (down, up, widest, machine.consumers, machine.thresholds, machine.is_deep)
            return tables, dtype, -top, -top, top
    raise UnsupportedError(f"the sums reach {largest}, expected less than 2^63. Take another engine.")


def reduced(finished: Walk) -> Diagram:
    """The diagram of a walk. Leaves: the classes, then "outside the region", then "not known" for a walk cut short."""
    machine = finished.machine
    n, classes = machine.n_levels, machine.n_classes
    outside, unknown = classes, classes + 1
    leaves = classes + 2
    depth = len(finished.levels)
    chains = _Chains(machine, outside)
    rows: list[tuple[Array, Array, int]] = []
    count = leaves
    for level in reversed(range(depth, n)):
        count = chains.step(level, rows, count, None, None)[0]
    h, c = machine.consumers.shape
    flips_left = finished.states[:, h + c] if len(finished.states) else np.zeros(0, dtype=np.int64)
    below = chains.now[unknown, flips_left.astype(np.int64)].astype(np.int32)
    stride = finished.stride
    for level in reversed(range(depth)):
        pairs = []
        for raw in finished.levels[level]:
            code = -1 - np.minimum(raw, -1).astype(np.int64)
            ends = chains.now[code // stride, code % stride]
            ids = below[np.maximum(raw, 0)] if len(below) else ends
            pairs.append(np.where(raw >= 0, ids, ends).astype(np.int32))
        count, below = chains.step(level, rows, count, pairs[0], pairs[1])
    klass, flips = divmod(-1 - finished.root, stride)
    root = int(chains.now[klass, flips]) if finished.root < 0 else int(below[0])
    rows.reverse()  # the last level comes first
    return _swept(rows, root, n, leaves)


class _Chains:
    """The nodes "class c if at most b more inputs are flipped, else outside", at one level after another."""

    def __init__(self, machine: Machine, outside: int) -> None:
        self.radius, self.n, self.outside = machine.radius, machine.n_levels, outside
        leaves = np.arange(outside + 2, dtype=np.int64)
        self.now = np.repeat(leaves[:, None], (machine.radius or 0) + 1, axis=1)  # by leaf and flips left

    def step(
        self, level: int, rows: list[tuple[Array, Array, int]], count: int, low: Array | None, high: Array | None
    ) -> tuple[int, Array]:
        """Go up to `level`, where the pairs `low`, `high` live too; returns the nodes so far and the pairs' numbers."""
        none = np.zeros(0, dtype=np.int32)
        low, high = none if low is None else low, none if high is None else high
        open_ = 0 if self.radius is None else min(self.radius, self.n - level - 1) + 1
        lows, highs = self.now[:, :open_], np.full((len(self.now), open_), self.outside, dtype=np.int64)
        highs[:, 1:] = self.now[:, : open_ - 1] if open_ else 0
        all_low = np.concatenate([low, lows.ravel().astype(np.int32)])
        all_high = np.concatenate([high, highs.ravel().astype(np.int32)])
        ids, keep_low, keep_high = (np.empty(len(all_low), dtype=np.int32) for _ in range(3))
        found = unite(all_low, all_high, count, ids, keep_low, keep_high)
        if count + found >= 2**31 - 1:
            raise ResourceLimitError(f"the diagram has over {2**31} nodes, more than can be numbered")
        rows.append((keep_low[:found].copy(), keep_high[:found].copy(), level))
        self.now[:, :open_] = ids[len(low) :].reshape(lows.shape)
        return count + found, ids[: len(low)]


def _swept(rows: list[tuple[Array, Array, int]], root: int, n: int, leaves: int) -> Diagram:
    """The diagram without the nodes that the root does not reach."""
    rows = rows[::-1]
    low = np.concatenate([r[0] for r in rows]) if rows else np.zeros(0, dtype=np.int32)
    high = np.concatenate([r[1] for r in rows]) if rows else np.zeros(0, dtype=np.int32)
    levels = np.concatenate([np.full(len(r[0]), r[2], dtype=np.int32) for r in rows]) if rows else low
    seen = np.zeros(leaves + len(low), dtype=bool)
    seen[root] = True
    end = len(low)
    for below, _, _ in reversed(rows):  # parents before children, one level at a time
        start = end - len(below)
        here = np.flatnonzero(seen[leaves + start : leaves + end]) + start
        seen[low[here]] = True
        seen[high[here]] = True
        end = start
    seen[:leaves] = True
    numbers = (np.cumsum(seen) - 1).astype(np.int32)
    kept = seen[leaves:]
    return Diagram(n, leaves, levels[kept], numbers[low[kept]], numbers[high[kept]], int(numbers[root]))
