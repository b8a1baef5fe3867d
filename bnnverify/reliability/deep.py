"""Certified P(error) beyond one dense hidden block: sign vectors block by block, most likely first, in rounds.

With a block's signs fixed, the outputs of the next block are independent again. So one *round* draws from the input
the sign vectors of the first block whose probability is at least a threshold, from each of them those of the second
block, and so on. Different vectors lead to the same one: equal vectors merge after each block. After the last block
P(error | signs) is exact. What a round leaves out counts as [0, mass], or, behind the last block, by Bonferroni's
bounds given the signs before it (`spreading`). (Averaging marginals instead would be unsound.)

Rounds follow each other with falling thresholds. Every round is a proof, and so is an unfinished one, whose open
states count as left out; the answer is the intersection of all rounds, so it is valid whenever it is stopped, and only
shrinks.

References:
    Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bnnverify.domain import IntArray
from bnnverify.engines.base import Clock
from bnnverify.faults import FaultModel, cell_rates
from bnnverify.network import BinaryNetwork
from bnnverify.packing import Words, pack_signs
from bnnverify.reliability.cells import CellOutput, unpacked
from bnnverify.reliability.convolutions import ConvStep
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.onehidden import Bounds
from bnnverify.reliability.patterns import Vectors
from bnnverify.reliability.spreading import Closing, leaf_groups, leaves
from bnnverify.reliability.steps import (
    FirstInput,
    Step,
    chunk_of,
    continue_states,
    cost_of,
    outputs_of,
    parts_of,
    start,
    steps_of,
    workspace_of,
)
from bnnverify.reliability.tables import OutputTables

VECTORS_PER_STATE = 16  # sign vectors of one block that may be kept for each state of `max_states`
_FIRST_THRESHOLD = 2.0**-8
_FALL = 2.0**-4  # of the threshold, from round to round
_LAST_THRESHOLD = 2.0**-900
_RETRY = 4.0  # once a round had to be abandoned
_LAST_BLOCK = 8.0  # thresholds are higher behind the last block, where what is left out is bounded
_LEAF_SLACK = 2.0**-6  # width that bounds of a leaf may leave, in thresholds
_EFFORT = 4e6  # sums updated for one state of a convolution, in the first round
_WORK_PER_STATE = 1e5  # sums updated in one round behind each block, for each state of `max_states`
_BYTES = 2**28  # of the vectors after one block
_LEAVES = 4096  # between two looks at the clock


@dataclass(frozen=True, slots=True)
class DeepBounds:
    """What is proved of one image, and the work.

    Attributes:
        bounds: Computed bounds of P(class is not c), with their roundings.
        rounds: Rounds that were begun.
        vectors: Sign vectors after each block in the last round.
        open_masses: Probability that was left out, undecided, behind each block in the last round.
        reason: Why the width is above the tolerance; empty if it is not.
    """

    bounds: Bounds
    rounds: int
    vectors: tuple[int, ...]
    open_masses: tuple[float, ...]
    reason: str


@dataclass(slots=True)
class _Round:
    """One pass through the blocks; abandoned where it hits one of its `limits`, as the last round knew better."""

    threshold: float
    capacities: list[int]
    effort: float
    work: float
    limits: list[int] = field(default_factory=list)
    charges: FloatArray = field(default_factory=lambda: np.zeros(2))
    vectors: list[int] = field(default_factory=list)
    open_masses: list[float] = field(default_factory=list)
    roundings: int = 0
    additions: int = 0
    leaves: int = 0
    full: int | None = None
    cut: str = ""
    is_abandoned: bool = False

    @property
    def bounds(self) -> Bounds:
        """What the round proves."""
        upper = float(self.charges[1]) + float(np.sum(self.open_masses))
        roundings = self.roundings + self.additions + len(self.vectors) + 4
        return Bounds(float(self.charges[0]), min(upper, 1.0), roundings, self.leaves, max(self.vectors, default=1))


class DeepNetwork:
    """A network of any blocks under a fault model, packed once for all images."""

    def __init__(self, network: BinaryNetwork, faults: FaultModel, *, output_by_cell: bool) -> None:
        """Pack the network.

        Args:
            network: Any network; with binary inputs if it has no hidden block.
            faults: Rates of the cells.
            output_by_cell: True where the cells of the output block have rates of their own (no `OutputTables`).
        """
        self.network = network
        self.steps: tuple[Step, ...] = steps_of(network, faults)
        self.by_cell: CellOutput | None = None
        if output_by_cell:
            rates, index = cell_rates(faults, len(network.blocks), network.output.stored)
            self.by_cell = CellOutput.of(network.output, rates, index)

    def error_bounds(
        self,
        x: IntArray,
        label: int,
        tables: OutputTables | None,
        *,
        tolerance: float,
        max_states: int,
        clocks: Sequence[Clock] = (),
    ) -> DeepBounds:
        """Bounds on P(class is not `label`), valid whenever they are stopped.

        Args:
            x: An input of the domain, shape `(n,)`.
            label: The class c.
            tables: Of the output block against c; None with `output_by_cell`.
            tolerance: Width at which to stop.
            max_states: At most 16 times as many sign vectors are kept behind each block.
            clocks: Stop as soon as one of them is over.
        """
        output = _OutputSide(self, label, tables)
        work = [workspace_of(step) for step in self.steps]
        first = FirstInput(x, {})
        threshold, effort = _FIRST_THRESHOLD, _EFFORT
        most_work = _WORK_PER_STATE * max_states
        limits = [
            max(1, min(max_states * VECTORS_PER_STATE, _BYTES // (8 * -(-outputs_of(s) // 64) + 24)))
            for s in self.steps
        ]
        counts = [0] * len(limits)
        proved: Bounds | None = None
        retried = False
        rounds, fall, kept = 0, _FALL, _Round(threshold, limits, effort, most_work)
        while True:
            room = [min(limit, 16 * count + 1024) for limit, count in zip(limits, counts, strict=True)]
            current = _Round(threshold, room, min(effort, most_work), most_work, limits if rounds else [])
            self._run(current, first, work, output, clocks)
            rounds += 1
            if not current.is_abandoned:
                proved = current.bounds if proved is None else _intersection(proved, current.bounds)
                kept = current
            assert proved is not None  # the first round is never abandoned
            enough = proved.upper - proved.lower <= tolerance
            reason = "" if enough else _why(current, limits, clocks)
            if current.is_abandoned and not retried:
                threshold, retried = threshold * _RETRY, True
                continue
            if enough or reason:
                return DeepBounds(proved, rounds, tuple(kept.vectors), tuple(kept.open_masses), reason)
            fall = _FALL if current.vectors != counts else fall * fall
            counts = current.vectors
            threshold, effort = max(threshold * fall, _LAST_THRESHOLD), 8 * effort

    def _run(
        self,
        current: _Round,
        first: FirstInput,
        work: list[object],
        output: _OutputSide,
        clocks: Sequence[Clock],
    ) -> None:
        """One pass through the blocks."""
        keys, masses = np.zeros((1, 1), dtype=np.uint64), np.ones(1)
        for b, step in enumerate(self.steps):
            last = b == len(self.steps) - 1
            words = -(-outputs_of(step) // 64)
            vectors = Vectors.empty(words, current.capacities[b])
            closing = output.closing if last else Closing.none(words)
            threshold = current.threshold * (_LAST_BLOCK if last and closing.pair.shape[0] else 1.0)
            rest, spent, most = 0.0, 0.0, 0
            if b == 0:
                most = start(step, first, threshold, current.effort, work[b], vectors, closing, current.charges)
            else:
                chunk = chunk_of(step)
                for begin in range(0, masses.size, chunk):
                    spent += chunk * cost_of(step, float(masses[begin]), threshold, current.effort)
                    if _over(clocks) or (begin > 0 and spent > current.work):
                        rest = float(masses[begin:].sum())
                        current.cut = current.cut or f"work limit reached in block {b}: raise max_states"
                        break
                    end = min(begin + chunk, masses.size)
                    found = continue_states(
                        step,
                        keys,
                        masses,
                        begin,
                        end,
                        threshold,
                        current.effort,
                        work[b],
                        vectors,
                        closing,
                        current.charges,
                    )
                    most = max(most, found)
            current.roundings += parts_of(step) * (most + 5) + 8
            sums = parts_of(step) if isinstance(step, ConvStep) else 1
            current.additions += (2 * int(vectors.totals[1]) + 2 * masses.size) * sums
            if vectors.is_full and current.full is None:
                current.full = b
                if current.limits and current.capacities[b] == current.limits[b] and not _over(clocks):
                    current.is_abandoned = True
                    return
            keys, masses = vectors.by_mass()
            current.vectors.append(vectors.count)
            current.open_masses.append(float(vectors.open_mass[0]) + rest)
        output.add(current, keys if self.steps else pack_signs(first.x[None]), masses, clocks)


class _OutputSide:
    """The output block against one class, as the loops take it."""

    def __init__(self, deep: DeepNetwork, label: int, tables: OutputTables | None) -> None:
        output = deep.network.output
        self.label, self.by_cell, self.n, self.tables = label, deep.by_cell, output.n_inputs, tables
        self.closing = Closing.none(-(-output.n_inputs // 64))
        self.roundings = 0 if self.by_cell is None else self.by_cell.roundings
        if tables is not None:
            self.closing = Closing.of(output, tables)
            self.groups = leaf_groups(output, tables)
            classes = [tables.label, *tables.rivals]
            self.strides = np.array([tables.strides[k] for k in classes], dtype=np.int64)
            self.roundings = (len(tables.rivals) + 2) * (tables.roundings + 2) + output.n_inputs + 1

    def add(
        self,
        current: _Round,
        keys: Words,
        masses: FloatArray,
        clocks: Sequence[Clock],
    ) -> None:
        """Add P(error | signs) of all states to the charges of the round."""
        for begin in range(0, masses.size, _LEAVES):
            if begin > 0 and _over(clocks):
                current.open_masses[-1] += float(masses[begin:].sum())
                break
            end = min(begin + _LEAVES, masses.size)
            if self.tables is None:
                signs = unpacked(keys[begin:end], self.n)
                assert self.by_cell is not None
                self.by_cell.add_errors(signs, masses[begin:end], self.label, current.charges)
                current.leaves += end - begin
                continue
            slack = current.threshold * _LEAF_SLACK
            tables = self.tables
            current.leaves += leaves(
                keys,
                masses,
                begin,
                end,
                self.closing.loops,
                tables.own,
                tables.beats,
                tables.loses,
                self.strides,
                self.groups,
                slack,
                current.charges,
            )
        current.roundings += self.roundings
        current.additions += masses.size


def _intersection(one: Bounds, two: Bounds) -> Bounds:
    """What both prove."""
    return Bounds(
        max(one.lower, two.lower),
        min(one.upper, two.upper),
        max(one.roundings, two.roundings),
        one.leaves + two.leaves,
        max(one.peak_states, two.peak_states),
    )


def _over(clocks: Sequence[Clock]) -> bool:
    return any(clock.is_over for clock in clocks)


def _why(current: _Round, limits: list[int], clocks: Sequence[Clock]) -> str:
    """Why there is no next round; empty if there is one."""
    over = next((clock for clock in clocks if clock.is_over), None)
    if over is not None:
        return over.reason
    if current.cut:
        return current.cut
    full = current.full
    if full is not None and current.capacities[full] == limits[full]:
        return f"{limits[full]} sign vectors kept behind block {full}: raise max_states"
    if current.threshold > _LAST_THRESHOLD:
        return ""
    return "nothing more to draw"
