"""Patch bounds: the most that a difference of scores can be, by exact maxima over small patches of the last block.

The scores add up what the outputs of the last hidden block contribute. Outputs that see the same few unstable bits of
the block before are put into one patch, whose greatest contribution is found by enumerating these bits. The patches'
maxima add up to a bound; multipliers that split the value of a bit between the patches that see it (dual
decomposition) and joining patches lower it further. Everything is integers, and what proves the bound is a short list
of numbers: see `bnnverify.checking.patches`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.deciding.intervals import Bounds, difference_rows, excesses, interval_bounds, refutes
from bnnverify.deciding.jointly import ORDER, JointSigns, exclude
from bnnverify.deciding.receptive import Patch, patches_of
from bnnverify.deciding.splitting import NEVER, UNIT, Cluster, Splitting
from bnnverify.domain import IntArray
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.errors import QueryError
from bnnverify.query import Query
from bnnverify.results import Run

MOST_BITS = 14
"""Greatest number of bits of a patch."""

_FEW_ENTRIES = 2**20  # of the tables of all comparisons that are looked at for what is left to prove only
_MOST_ENTRIES = 2**20  # of the tables of one comparison at first
_MOST_JOINED = 2**23  # and after joining
_PACE = 200  # sweeps that would bring the bound to 0: slower is given up
_PATIENCE = 8  # sweeps that must at this pace suffice, else patches are joined


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What bounds one comparison.

    Attributes:
        patches: Outputs and bits of each patch. Comparisons that use the same patches share one list.
        multipliers: By patch and bit, in 1/UNIT; None for zeros.
        maxima: By patch, in 1/UNIT.
    """

    patches: list[tuple[IntArray, IntArray]]
    multipliers: list[IntArray] | None
    maxima: IntArray


@dataclass(frozen=True, slots=True)
class PatchBounds:
    """What the patches prove.

    Attributes:
        query: The question.
        excess: For each comparison of the property (`Query.score_conditions`) an upper bound on the difference of
            scores that it compares, in units of `OutputBlock.integer_form`.
        is_robust: True if these bounds prove that no input of the region is adversarial.
        proofs: By index of the comparison, where patches gave the bound.
        order: Of how many bits together it was asked whether their signs can occur: see `jointly`.
        run: Time; the reason if a limit was reached.
    """

    query: Query
    excess: tuple[int, ...]
    is_robust: bool
    proofs: dict[int, Proof]
    order: int
    run: Run

    @property
    def best_bound(self) -> int:
        """How far the bounds are from a proof: the greatest excess of those that must all be below 0, or the least."""
        return min(self.excess) if self.query.score_conditions()[1] else max(self.excess)

    def evidence(self) -> dict[str, Any]:
        """Plain values for a JSON file from which `bnnverify.checking.patches` proves it again.

        Raises:
            QueryError: Nothing is proved, or not by patches: the network has fewer than two hidden blocks.
        """
        if not self.is_robust:
            raise QueryError("the patch bounds do not prove the query robust, so there is no evidence.")
        if len(self.query.network.blocks) < 2:
            raise QueryError(
                "the network has fewer than two hidden blocks, so interval bounds prove this and no patches. Write a "
                "certificate of the bounds: bnnverify.write_certificate(query, folder)."
            )
        comparisons, conjunctive = self.query.score_conditions()
        excluded = [c for c, (_, _, strict) in enumerate(comparisons) if self.excess[c] < strict]
        partitions: dict[int, Any] = {}
        claims = []
        for c in excluded[:1] if conjunctive else excluded:
            claim: dict[str, Any] = {"higher": comparisons[c][0], "lower": comparisons[c][1], "bound": self.excess[c]}
            claim |= {"partition": None, "multipliers": None, "maxima": None}
            if c in self.proofs:
                proof = self.proofs[c]
                at = partitions.setdefault(id(proof.patches), (len(partitions), proof.patches))[0]
                claim |= {"partition": at, "maxima": proof.maxima.tolist()}
                if proof.multipliers is not None:
                    claim["multipliers"] = [m.tolist() for m in proof.multipliers]
            claims.append(claim)
        patches = [
            [{"outputs": outputs.tolist(), "bits": bits.tolist()} for outputs, bits in listed]
            for _, listed in partitions.values()
        ]
        return {
            "kind": "patches",
            "query": self.query.to_json(),
            "unit": UNIT,
            "order": self.order,
            "partitions": patches,
            "comparisons": claims,
        }


def patch_bounds(
    query: Query,
    bounds: Bounds | None = None,
    *,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    most_bits: int = MOST_BITS,
    order: int = ORDER,
    every: bool = False,
) -> PatchBounds:
    """Upper bounds on the differences of scores that the property compares.

    Networks with fewer than two hidden blocks, and sums that do not fit 64 bits, get interval bounds.

    Args:
        query: Any query.
        bounds: Interval bounds of its network over its region, where they are at hand.
        limits: Time. At the limit the bounds are what was proved until then. Compiling the loops, some seconds at the
            first call after installation and a moment in each process, does not count.
        monitor: Who may stop the work.
        most_bits: Greatest number of bits of a patch, 1 to 20.
        order: Of how many bits together it is asked whether their signs can occur, 1 (none) to 5.
        every: Tighten every comparison, even where one that must be refuted could not be.

    Raises:
        QueryError: `most_bits` or `order` is out of range.
    """
    for name, value, most in (("most_bits", most_bits, 20), ("order", order, 5)):
        if type(value) is not int or not 1 <= value <= most:
            raise QueryError(f"{name} is {value!r}, expected an integer from 1 to {most}.")
    _compile()
    clock = Clock(limits.seconds, monitor)
    bounds = interval_bounds(query.network, query.region) if bounds is None else bounds
    work = _Work(query, bounds, clock, most_bits, order, every)
    work.run()
    reason = clock.reason if clock.is_over and not work.is_robust else ""
    run = Run("patches", clock.elapsed, reason, work.statistics)
    return PatchBounds(query, tuple(work.excess), work.is_robust, work.proofs, work.order, run)


@cache
def _compile() -> None:
    """The loops on patches of two bits that share one."""
    zeros, patches = np.zeros(1, dtype=np.int64), []
    for bits in ([0, 1], [1, 2]):
        rows, first = np.ones((2, 1), dtype=np.int64), np.array([0, 1], dtype=np.int64)
        patches.append(Patch(zeros, np.array(bits), rows, zeros, zeros, zeros, first, np.zeros(1, dtype=bool)))
    found = np.zeros(4, dtype=bool)
    exclude(np.ones((2, 1), dtype=np.int64), zeros.repeat(2), zeros, np.zeros((2, 2), dtype=np.int64), 2, 0, found)
    splitting = Splitting([_cluster(patch, zeros[None], found) for patch in patches])
    splitting.sweep()
    splitting.join(3)


class _Work:
    """The comparisons of one query, hardest first."""

    def __init__(self, query: Query, bounds: Bounds, clock: Clock, most_bits: int, order: int, every: bool) -> None:
        self.query, self.bounds, self.clock = query, bounds, clock
        self.most_bits, self.order, self.every = most_bits, order, every
        self.comparisons, self.conjunctive = query.score_conditions()
        whole = math.floor if query.network.blocks else math.ceil  # scores of real inputs are no integers
        self.excess = [whole(e) for e in excesses(query, bounds)]
        self.proofs: dict[int, Proof] = {}
        self.statistics: dict[str, Any] = {}

    @property
    def is_robust(self) -> bool:
        """True iff the bounds so far suffice."""
        return refutes(self.query, self.excess)

    def is_refuted(self, c: int) -> bool:
        """True iff comparison `c` cannot hold."""
        return self.excess[c] < 0 or (self.comparisons[c][2] and self.excess[c] == 0)

    def run(self) -> None:
        blocks = self.query.network.blocks
        if self.is_robust or len(blocks) < 2:
            return
        rows = {j: difference_rows(self.query.network.output, j) for j in {j for _, j, _ in self.comparisons}}
        if any(r.dtype == object for r, _ in rows.values()):
            return
        self.costs = np.array([rows[j][0][i] for i, j, _ in self.comparisons], dtype=np.int64)
        offsets = [rows[j][1][i] for i, j, _ in self.comparisons]
        reach = max(int(np.abs(self.costs).sum(axis=1).max()), 1) * UNIT
        if reach * 4 > -NEVER or max(map(abs, offsets)) > 2**62:
            return
        last = self.bounds.blocks[-1].signs.astype(np.int64)
        self.constant = [int(v) + c for v, c in zip(self.costs @ last, offsets, strict=True)]
        self.joint = JointSigns(self.bounds, self.order)
        self.order = self.joint.order
        patches = self._prepare(_MOST_ENTRIES)
        open_ones = [c for c in range(len(self.excess)) if not self.is_refuted(c)]
        if not (self.conjunctive or self.every):
            # a disjunction must fall in all its parts: where the most doubtful one does not, the others matter little
            doubtful = max(open_ones, key=lambda c: self.excess[c])
            self._split(doubtful, patches)
            open_ones.remove(doubtful)
            if not self.is_refuted(doubtful):
                self._single(open_ones, self._prepare(_FEW_ENTRIES // max(len(open_ones), 1)))
                return
        self._single(open_ones, patches)
        self._rest(patches)

    def _rest(self, patches: list[Patch]) -> None:
        """Splits one open comparison after another, until one that must fall does not."""
        open_ones = [c for c in range(len(self.excess)) if not self.is_refuted(c)]
        # a conjunction falls with its weakest part
        for c in sorted(open_ones, key=lambda c: self.excess[c], reverse=not self.conjunctive):
            if self.is_robust or self.clock.is_over:
                return
            self._split(c, patches)
            if not (self.is_refuted(c) or self.conjunctive or self.every):
                return

    def _prepare(self, entries: int) -> list[Patch]:
        """Patches with as many bits as make tables of about so many entries, and what cannot occur in each."""
        blocks, inputs = self.query.network.blocks, self.bounds.blocks[-2].signs
        patches = patches_of(blocks[-1], self.bounds.blocks[-1], inputs, self.most_bits)
        sizes = np.array([len(p.bits) for p in patches], dtype=np.int64)
        most = self.most_bits
        while most > 1 and (1 << np.minimum(sizes, most)).sum() > entries:
            most -= 1
        if most < sizes.max(initial=0):
            patches = patches_of(blocks[-1], self.bounds.blocks[-1], inputs, most)
        self.statistics |= {"patches": len(patches), "bits": int(np.count_nonzero(inputs == 0))}
        self.partition = [(p.outputs, p.bits) for p in patches]
        self.never = [self.joint.excluded(patch.bits) for patch in patches]
        return patches

    def _single(self, which: list[int], patches: list[Patch]) -> None:
        """Bounds of some comparisons by the patches as they are."""
        costs = self.costs[which]
        greatest = np.zeros((len(patches), len(which)), dtype=np.int64)
        for p, patch in enumerate(patches):
            if self.clock.is_over:
                return
            greatest[p] = patch.table(costs)[~self.never[p]].max(axis=0)
        for at, (c, total) in enumerate(zip(which, greatest.sum(axis=0).tolist(), strict=True)):
            if self.constant[c] + total < self.excess[c]:
                self.excess[c] = self.constant[c] + total
                self.proofs[c] = Proof(self.partition, None, greatest[:, at] * UNIT)

    def _split(self, c: int, patches: list[Patch]) -> None:
        """Lower the bound of one comparison by multipliers and by joining patches."""
        costs = self.costs[c : c + 1]
        clusters = [_cluster(patch, costs, never) for patch, never in zip(patches, self.never, strict=True)]
        splitting = Splitting(clusters, self.joint.excluded)
        constant = self.constant[c] * UNIT
        before = constant + splitting.bound
        while not self.clock.is_over:
            splitting.sweep()
            bound = constant + splitting.bound
            self.excess[c] = min(self.excess[c], bound // UNIT)
            if self.is_refuted(c):
                break
            if bound + _PATIENCE * (bound - before) >= 0:
                size = sum(len(cluster.table) for cluster in splitting.clusters)
                is_joined = size < _MOST_JOINED and splitting.join(self.most_bits) > 0
                if not is_joined and (before - bound) * _PACE <= bound:
                    break
            before = constant + splitting.bound
        if self.excess[c] == (constant + splitting.bound) // UNIT:
            found = splitting.clusters
            same = len(found) == len(patches)
            partition = self.partition if same else [(one.outputs, one.bits) for one in found]
            self.proofs[c] = Proof(partition, [one.multipliers for one in found], splitting.maxima)


def _cluster(patch: Patch, costs: IntArray, never: NDArray[np.bool_]) -> Cluster:
    """A patch with its table for one sum."""
    table = patch.table(costs)[:, 0] * UNIT
    table[never] = NEVER
    return Cluster(patch.outputs, patch.bits, table, np.zeros(len(patch.bits), dtype=np.int64))
