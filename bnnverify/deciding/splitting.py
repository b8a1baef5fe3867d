"""An upper bound on a sum of tables over shared bits, by splitting the value of each bit between its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnverify.deciding.patchtables import join, maxima, sweep
from bnnverify.domain import IntArray

UNIT = 64
"""Multipliers count 1/64 of the tables' units: shares of a gain are rounded to that."""

NEVER = -(2**46)
"""Entry of an assignment that cannot occur: below all sums, and far enough from the ends of 64 bits."""


@dataclass(slots=True, eq=False)
class Cluster:
    """One table of a sum.

    Attributes:
        outputs: What it is the table of: flat indices of outputs.
        bits: Flat indices of its bits, ascending.
        table: Entry u holds where bit b is +1 iff ``u >> b & 1``: the sum in 1/UNIT, with the multipliers added.
        multipliers: What was added where bit b is +1.
    """

    outputs: IntArray
    bits: IntArray
    table: IntArray
    multipliers: IntArray


class Splitting:
    """A sum of tables and its bound, the sum of their maxima, which every step lowers or leaves.

    A bit that several tables share gets a multiplier in each; for every bit they add up to 0, so that the sum of the
    tables stays what it was, whatever the multipliers.

    Args:
        clusters: Tables; they are changed.
        excluded: Says which assignments of some bits cannot occur; asked about those of joint tables.

    References:
        Globerson & Jaakkola, NIPS 2007 (descent on max-marginals). Sontag et al., UAI 2008 (joining clusters).
        Sontag, Globerson & Jaakkola, Introduction to dual decomposition for inference, 2011.
    """

    def __init__(
        self, clusters: list[Cluster], excluded: Callable[[IntArray], NDArray[np.bool_]] | None = None
    ) -> None:
        self.clusters = clusters
        self._excluded = excluded
        self._flatten()

    def _flatten(self) -> None:
        """All tables in one array, of which the clusters hold views."""
        sizes = [len(c.table) for c in self.clusters]
        self._start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._tables = np.concatenate([c.table for c in self.clusters]) if sizes else np.zeros(0, dtype=np.int64)
        counts = [len(c.bits) for c in self.clusters]
        self._bits = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._multipliers = np.zeros(int(self._bits[-1]), dtype=np.int64)
        for f, cluster in enumerate(self.clusters):
            cluster.table = self._tables[self._start[f] : self._start[f + 1]]
            view = self._multipliers[self._bits[f] : self._bits[f + 1]]
            view[:] = cluster.multipliers
            cluster.multipliers = view
        owner = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(owner)) - self._bits[owner]
        names = np.concatenate([c.bits for c in self.clusters]) if counts else np.zeros(0, dtype=np.int64)
        by_bit = np.argsort(names, kind="stable")
        shared, first = np.unique(names[by_bit], return_index=True)
        self._owners, self._places = owner[by_bit].astype(np.int64), place[by_bit].astype(np.int64)
        self._first = np.append(first, len(names)).astype(np.int64)
        self._order = np.arange(len(shared), dtype=np.int64)

    @property
    def maxima(self) -> IntArray:
        """Greatest entry of each table, in 1/UNIT."""
        found = np.zeros(len(self.clusters), dtype=np.int64)
        maxima(self._tables, self._start, found)
        return found

    @property
    def bound(self) -> int:
        """The most that the sum can be, in 1/UNIT."""
        return int(self.maxima.sum())

    def sweep(self) -> None:
        """One round of descent over all bits; the next one goes the other way."""
        sweep(
            self._tables,
            self._start,
            self._bits,
            self._owners,
            self._places,
            self._first,
            self._order,
            self._multipliers,
        )
        self._order = self._order[::-1].copy()

    def join(self, most: int) -> int:
        """Join pairs of tables that share a bit wherever that lowers the bound; each table once.

        Args:
            most: Greatest number of bits of a joint table.

        Returns:
            By how much the bound is lower at least, in 1/UNIT; 0 if no pair gains.
        """
        found, best = [], self.maxima
        for f, g in sorted(self._neighbours()):
            union = np.union1d(self.clusters[f].bits, self.clusters[g].bits)
            if len(union) <= most:
                joint, greatest = self._joined(f, g, union)
                gain = int(best[f] + best[g]) - greatest
                if gain > 0:
                    found.append((gain / len(joint), gain, f, g))
        taken: set[int] = set()
        joined, total = [], 0
        for _, gain, f, g in sorted(found, reverse=True):
            if f in taken or g in taken:
                continue
            taken |= {f, g}
            total += gain
            joined.append(self._cluster(f, g))
        if joined:
            self.clusters = [c for f, c in enumerate(self.clusters) if f not in taken] + joined
            self._flatten()
        return total

    def _neighbours(self) -> set[tuple[int, int]]:
        """Pairs of tables that share a bit."""
        pairs: set[tuple[int, int]] = set()
        for v in range(len(self._first) - 1):
            owners = sorted(self._owners[self._first[v] : self._first[v + 1]].tolist())
            pairs.update((f, g) for i, f in enumerate(owners) for g in owners[i + 1 :])
        return pairs

    def _joined(self, f: int, g: int, union: IntArray) -> tuple[IntArray, int]:
        """The joint table over the bits `union`, and its greatest entry."""
        left, right = self.clusters[f], self.clusters[g]
        out = np.empty(1 << len(union), dtype=np.int64)
        places = [np.searchsorted(union, c.bits).astype(np.int64) for c in (left, right)]
        return out, int(join(left.table, places[0], right.table, places[1], out))

    def _cluster(self, f: int, g: int) -> Cluster:
        left, right = self.clusters[f], self.clusters[g]
        union = np.union1d(left.bits, right.bits)
        multipliers = np.zeros(len(union), dtype=np.int64)
        for c in (left, right):
            multipliers[np.searchsorted(union, c.bits)] += c.multipliers
        outputs, table = np.concatenate([left.outputs, right.outputs]), self._joined(f, g, union)[0]
        if self._excluded is not None:
            table[self._excluded(union)] = NEVER
        return Cluster(outputs, union, table, multipliers)
