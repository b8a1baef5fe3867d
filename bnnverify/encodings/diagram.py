"""Reduced ordered decision diagrams with integer leaves, and exact numbers from them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit

Array = NDArray[Any]

_PLAIN = 2**62  # sums up to here fit int64
_PRIMES_BELOW = 2**31  # so that products of residues do


@dataclass(frozen=True, slots=True, eq=False)
class Diagram:
    """A function of binary variables, reduced and ordered, so that equal functions have equal diagrams.

    Numbers below `n_leaves` are leaves, the node of row i has the number ``i + n_leaves``. Nodes come sorted by level,
    the deepest first, so children have smaller numbers than their parents. No two rows are equal, no row has equal
    children, and the root reaches all of them. If the rows of each level are sorted too (`canonical`), equal
    functions have equal arrays.

    Attributes:
        n_levels: Number of variables.
        n_leaves: Number of leaves.
        levels: Variable that each node tests, shape `(nodes,)`, int32.
        low: Where to go if it is false, likewise.
        high: Where to go if it is true, likewise.
        root: Number of the node where reading starts.
    """

    n_levels: int
    n_leaves: int
    levels: Array
    low: Array
    high: Array
    root: int

    def __len__(self) -> int:
        """Inner nodes."""
        return len(self.levels)

    @property
    def depths(self) -> Array:
        """Level of every number; leaves lie at `n_levels`."""
        return np.concatenate([np.full(self.n_leaves, self.n_levels, dtype=np.int32), self.levels.astype(np.int32)])

    def leaf(self, values: Sequence[bool]) -> int:
        """The leaf that these values of the variables lead to."""
        here = self.root
        while here >= self.n_leaves:
            row = here - self.n_leaves
            here = int((self.high if values[self.levels[row]] else self.low)[row])
        return here

    def fault(self) -> str | None:
        """What is wrong with the arrays, as half a sentence; None if they are what the class says."""
        size, first = len(self.levels), self.n_leaves
        numbers = np.arange(first, first + size)
        if len(self.low) != size or len(self.high) != size:
            return f"there are {size} levels, {len(self.low)} low and {len(self.high)} high children, expected as many"
        if not 0 <= self.root < first + size:
            return f"the root is {self.root}, expected a number below {first + size}"
        for name, children in (("low", self.low), ("high", self.high)):
            bad = np.flatnonzero((children < 0) | (children >= numbers))
            if bad.size:
                i = int(bad[0])
                return f"the {name} child of node {i} is {children[i]}, expected a smaller number than {first + i}"
        if ((self.levels < 0) | (self.levels >= self.n_levels)).any():
            return f"a node tests a level outside 0 to {self.n_levels - 1}"
        if (np.diff(self.levels) > 0).any():
            return "the nodes are not sorted by level, the deepest first"
        depths = self.depths
        if (depths[self.low] <= self.levels).any() or (depths[self.high] <= self.levels).any():
            return "a node tests a variable below one that a descendant tests: the diagram is not ordered"
        if (self.low == self.high).any():
            return "a node has two equal children: the diagram is not reduced"
        order = np.lexsort((self.high, self.low, -self.levels.astype(np.int64)))
        rows = np.stack([self.levels, self.low, self.high])[:, order]
        if (rows[:, 1:] == rows[:, :-1]).all(axis=0).any():
            return "two nodes are equal: the diagram is not reduced"
        reached = np.zeros(first + size, dtype=bool)
        reached[self.root] = reached[self.low] = reached[self.high] = True
        lost = np.flatnonzero(~reached[first:])
        return f"node {first + lost[0]} has no parent" if lost.size else None

    def canonical(self, *, swapped: Sequence[bool] | None = None) -> Diagram:
        """The diagram with the rows of each level in order of their children.

        Args:
            swapped: Levels whose variable changes its meaning to its negation. Default: none.
        """
        swap = np.zeros(self.n_levels, dtype=bool) if swapped is None else np.array(swapped, dtype=bool)
        turned = swap[self.levels]
        numbers = np.arange(self.n_leaves + len(self), dtype=np.int32)
        low, high = np.where(turned, self.high, self.low), np.where(turned, self.low, self.high)
        for rows in self.by_level():
            below = numbers[low[rows]], numbers[high[rows]]
            order = np.lexsort(below[::-1])
            numbers[self.n_leaves + rows.start + order] = np.arange(rows.start, rows.stop) + self.n_leaves
            low[rows], high[rows] = below[0][order], below[1][order]
        return Diagram(self.n_levels, self.n_leaves, self.levels, low, high, int(numbers[self.root]))

    def count(
        self,
        *,
        steps: int | None = None,
        origin: Sequence[bool] | None = None,
        values: Sequence[bool | None] | None = None,
    ) -> tuple[tuple[int, ...], ...]:
        """Number of assignments that lead to each leaf, exact.

        Args:
            steps: Count by the number of variables that differ from `origin`, 0 to `steps`. Default: all together.
            origin: A value of each variable. Default: all false.
            values: Fixed value of each variable, None where it is free. Default: all free.

        Returns:
            By leaf and number of differing variables; one number per leaf if `steps` is None.
        """
        n, width = self.n_levels, 1 if steps is None else steps + 1
        fixed = [None] * n if values is None else list(values)
        start = np.zeros(n, dtype=bool) if origin is None else np.array(origin, dtype=bool)
        moved = [steps is not None and v is not None and v != o for v, o in zip(fixed, start.tolist(), strict=True)]
        free_before, moved_before = np.cumsum([0] + [v is None for v in fixed]), np.cumsum([0, *moved])
        allowed = np.array([[v is not True, v is not False] for v in fixed], dtype=bool).reshape(n, 2)
        free = int(free_before[-1])
        most = 2**free if steps is None else sum(math.comb(free, d) for d in range(min(free, steps) + 1))
        args = (self.levels, self.low, self.high, self.n_leaves, self.root, n, free_before, moved_before, allowed)
        ways = _ways(free, steps)
        cost = np.stack([start, ~start], axis=1).astype(np.int64) * (steps is not None)
        if most < _PLAIN:
            table = np.array([[min(w, _PLAIN) for w in row] for row in ways], dtype=np.int64).reshape(-1, width)
            return tuple(map(tuple, _pushed(*args, table, cost, 0).tolist()))
        residues, product = None, 1
        for prime in _primes():
            table = np.array([[w % prime for w in row] for row in ways], dtype=np.int64).reshape(-1, width)
            found = _pushed(*args, table, cost, prime).astype(object)
            if residues is None:
                residues = found
            else:  # Chinese remainders: a number below `product` from its residues
                residues = residues + product * ((found - residues) * pow(product, -1, prime) % prime)
            product *= prime
            if product > most:
                break
        assert residues is not None
        return tuple(tuple(int(v) for v in row) for row in residues)

    def distances(self, leaves: Collection[int], origin: Sequence[bool]) -> Array:
        """Fewest steps away from `origin` on a way from each number to one of these leaves; `n_levels` + 1 if none."""
        far = self.n_levels + 1
        found = np.full(self.n_leaves + len(self), far, dtype=np.int64)
        found[list(leaves)] = 0
        for rows in self.by_level():
            away = bool(origin[self.levels[rows.start]])
            here = np.minimum(found[self.low[rows]] + away, found[self.high[rows]] + (not away))
            found[rows.start + self.n_leaves : rows.stop + self.n_leaves] = np.minimum(here, far)
        return found

    def by_level(self) -> list[slice]:
        """The rows of each level that has some, the deepest first."""
        cuts = np.flatnonzero(np.diff(self.levels)) + 1
        ends = [0, *cuts.tolist(), len(self)] if len(self) else [0]
        return [slice(a, b) for a, b in pairwise(ends)]

    def nearest(self, leaves: Collection[int], origin: Sequence[bool]) -> tuple[bool, ...] | None:
        """An assignment that leads to one of these leaves and differs from `origin` in fewest variables, or None."""
        distances = self.distances(leaves, origin)
        if distances[self.root] > self.n_levels:
            return None
        values, here = list(origin), self.root
        while here >= self.n_leaves:
            row = here - self.n_leaves
            level, low, high = self.levels[row], int(self.low[row]), int(self.high[row])
            away = bool(origin[level])
            values[level] = bool(distances[high] + (not away) < distances[low] + away)
            here = high if values[level] else low
        return tuple(values)

    def weights(self, leaves: Collection[int]) -> list[int]:
        """Assignments of the variables at and below each number's level that lead to one of these leaves, exact."""
        depths = self.depths.tolist()
        found = [int(i in leaves) for i in range(self.n_leaves)]
        for level, low, high in zip(self.levels.tolist(), self.low.tolist(), self.high.tolist(), strict=True):
            found.append((found[low] << depths[low] - level - 1) + (found[high] << depths[high] - level - 1))
        return found


def _ways(free: int, steps: int | None) -> list[list[int]]:
    """Assignments of 0 to `free` skipped variables, by the number of true ones."""
    if steps is None:
        return [[1 << f] for f in range(free + 1)]
    return [[math.comb(f, d) for d in range(steps + 1)] for f in range(free + 1)]


def _primes() -> Any:
    """Primes from just below 2^31 down."""
    number = _PRIMES_BELOW - 1
    while True:
        if all(number % d for d in range(3, math.isqrt(number) + 1, 2)):
            yield number
        number -= 2


@njit
def _pushed(  # type: ignore[no-untyped-def]
    levels, low, high, n_leaves, root, n, free_before, moved_before, allowed, ways, cost, prime
):
    """Assignments that reach each leaf, by number of steps; residues of `prime` unless that is 0."""
    width = ways.shape[1]
    size = n_leaves + levels.shape[0]
    reached = np.zeros((size, width), dtype=np.int64)
    start = n if root < n_leaves else levels[root - n_leaves]
    f, g = free_before[start], moved_before[start]
    for d in range(width - g):
        reached[root, d + g] = ways[f, d]
    for number in range(size - 1, n_leaves - 1, -1):
        row = number - n_leaves
        level = levels[row]
        for side in range(2):
            if not allowed[level, side]:
                continue
            child = low[row] if side == 0 else high[row]
            under = n if child < n_leaves else levels[child - n_leaves]
            f = free_before[under] - free_before[level + 1]
            shift = moved_before[under] - moved_before[level + 1] + cost[level, side]
            for d in range(width):
                here = reached[number, d]
                if here == 0:
                    continue
                for e in range(min(f + 1, width - d - shift)):
                    value = reached[child, d + shift + e] + here * ways[f, e]
                    reached[child, d + shift + e] = value % prime if prime else value
    return reached[:n_leaves]
