"""Which first-block neurons flip within a Hamming ball: branch and bound on neurons, joint bounds on inputs.

In a ball of radius r a sum moves by at most 2r, so only neurons near their threshold are undecided, and a neuron whose
sign changes needs a certain number of flipped inputs in its favour. A node of the search tree assumes of some neurons
that they change and of some that they do not. It is cut off

- if the neurons that are left cannot bring the scores far enough, or
- if no set of r inputs makes all the assumed changes at once (`columns`: multipliers, then an exact search).

A set of inputs that does is tried on the network. Where it fails, an undecided neuron that it flips is decided next, so
the search is complete.

References:
    Branch and bound on neurons: Bunel et al., JMLR 21, 2020. The joint bound for +-1 columns: ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import DenseBlock
from bnnverify.deciding.columns import FOUND, NONE, bound_jointly, search_columns
from bnnverify.deciding.goals import Goal, Rows, goals_of, rows_within
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.errors import ResourceLimitError, UnsupportedError
from bnnverify.query import Query
from bnnverify.regions import FixedIndexRegion, HammingBall
from bnnverify.results import Decision, Run, Verdict

_STEPS = 40  # of a joint bound
_LOOKS = 20_000  # columns of a first exact search; more only where nothing is left to branch on


def search_flips(query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Decision:
    """Whether a Hamming ball or a fixed-index region holds an adversarial input.

    Args:
        query: Over -1/+1 inputs; the network has a hidden block.
        limits: Time.
        monitor: Who may stop the search.

    Raises:
        UnsupportedError: The network or the region is of another kind.
    """
    clock = Clock(limits.seconds, monitor)
    region = query.region
    if isinstance(region, FixedIndexRegion):
        region = HammingBall(region.center, len(region.free), region.free)
    if not isinstance(region, HammingBall) or not query.network.blocks:
        raise UnsupportedError(
            f"the search over neurons does not serve a {query.region} of a network {query.network.architecture}, "
            "expected -1/+1 inputs and a hidden block. Use another engine."
        )
    network = query.network if isinstance(query.network.blocks[0], DenseBlock) else query.network.unrolled()
    tree = _Tree(replace(query, network=network, region=region), clock)
    found: tuple[int, ...] | None = None
    is_complete = True
    try:
        for goal in goals_of(tree.query, tree.block, tree.rows):
            found = tree.search(goal)
            if found is not None:
                break
    except ResourceLimitError:
        is_complete = False
    if found is not None:
        x, predicted = replayed(query, found, "flips")
        return Decision(Verdict.NOT_ROBUST, tree.run(), x, predicted)
    if is_complete:
        return Decision(Verdict.ROBUST, tree.run())
    return Decision(Verdict.UNKNOWN, tree.run(clock.reason))


@dataclass(slots=True)
class _Tree:
    """One search; counts what it does."""

    query: Query
    clock: Clock
    block: DenseBlock = field(init=False)
    center: NDArray[np.int64] = field(init=False)
    free: NDArray[np.int64] = field(init=False)
    radius: int = field(init=False)
    rows: Rows = field(init=False)
    nodes: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        region = self.query.region
        block = self.query.network.blocks[0]
        assert isinstance(region, HammingBall) and isinstance(block, DenseBlock)
        self.block = block
        self.center = np.array(region.center, dtype=np.int64)
        self.free = np.array(region.free, dtype=np.int64)
        self.radius = region.radius
        self.rows = rows_within(self.block, self.center, self.free, self.radius)

    def run(self, reason: str = "") -> Run:
        """How it went."""
        statistics = {"nodes": self.nodes, "columns": self.looks, "neurons": len(self.rows.neurons)}
        return Run("flips", self.clock.elapsed, reason, statistics)

    def search(self, goal: Goal) -> tuple[int, ...] | None:
        """An adversarial input that meets the goal, or None if there is none."""
        k = len(self.rows.neurons)
        order = goal.order()
        stack = [(np.zeros(k, dtype=np.int8), np.zeros(0))]
        while stack:
            state, multipliers = stack.pop()
            self.nodes += 1
            if self.clock.is_over:
                raise ResourceLimitError(self.clock.reason)
            changed, undecided = state == 1, state == 0
            if goal.is_out_of_reach(changed, undecided):
                continue
            decided = np.flatnonzero(state)
            is_met = goal.is_met(changed)
            status, flipped, multipliers = self._joint(state, decided, multipliers, exact=is_met or not undecided.any())
            if status == NONE:
                continue
            branch = -1
            if status == FOUND:
                moved = self.rows.moves[:, flipped].sum(axis=1) >= self.rows.demand
                if goal.is_met(moved):
                    x = self.center.copy()
                    x[self.free[flipped]] *= -1
                    return tuple(int(v) for v in x)
                if not undecided.any():
                    continue  # the flips do what is assumed of every neuron, and that is not enough
                if is_met:  # then the flips change an undecided neuron, too
                    branch = int(np.flatnonzero(moved & undecided)[0])
            if branch < 0:
                branch = int(order[undecided[order]][0])
            for value in (-1, 1):
                child = state.copy()
                child[branch] = value
                more = np.zeros(len(decided) + 1)
                at = int(np.searchsorted(decided, branch))
                more[:at], more[at + 1 :] = multipliers[:at], multipliers[at:]
                stack.append((child, more))
        return None

    def _joint(
        self, state: NDArray[np.int8], decided: NDArray[np.int64], multipliers: NDArray[np.float64], *, exact: bool
    ) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
        """Whether some set of inputs makes all that is decided true, by multipliers, and exactly if need be."""
        chosen = np.zeros(max(1, self.radius), dtype=np.int64)
        if not len(decided) or not self.radius:
            is_met = not (state == 1).any()
            return (FOUND if is_met else NONE), chosen[:0], np.zeros(len(decided))
        signs = state[decided]
        rows = np.ascontiguousarray(self.rows.moves[decided] * signs[:, None])
        # stays: at most demand - 1 steps, that is, at least 1 - demand in the other direction
        demand = np.where(signs > 0, self.rows.demand[decided], 1 - self.rows.demand[decided])
        multipliers = multipliers + 0.2 / len(decided)
        status, size = bound_jointly(rows, demand, self.radius, multipliers, chosen, _STEPS)
        if status == 0 and exact:
            budget = _LOOKS
            while True:
                status, size, looked = search_columns(rows, demand, self.radius, multipliers, chosen, budget)
                self.looks += looked
                if status != 0:
                    break
                if self.clock.is_over:
                    raise ResourceLimitError(self.clock.reason)
                budget *= 4
        return status, chosen[:size].copy(), multipliers
