"""Certified P(class is not c) for an output block over independent random signs.

The signs h_1..h_m are independent (the outputs of one block with its input fixed), the cells of the output block
are faulty. Three stages, one algorithm:

1. *Bonferroni*: P(rival k beats c) for every rival, exactly; their maximum and sum bound the answer.
2. *Joint law of the relevant rivals*: signs are drawn one after the other; the state is the vector of
   disagreements of c and of the rivals that matter, and equal states merge. For every state, stage 1 gives
   bounds from one look-up per rival (suffix tables computed backwards), so states whose bounds are close
   enough for their mass are closed at once.
3. *Exact leaves*: a state that survives all signs is evaluated exactly: given h the scores are independent.

So the width converges to 0 as the tolerance does and the number of states is not limited; stopping early
(`max_states`) closes states by their bounds: wider, still proved.

References:
    Ours. Bonferroni's inequalities: Galambos & Simonelli, 1996.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.network import OutputBlock
from bnnverify.reliability.drawing import (
    disagreements,
    draw_signs,
    packed_fields,
    packed_steps,
    root_chances,
    state_chances,
    suffix_tables,
)
from bnnverify.reliability.expansion import MAX_RIVALS, expand, slack_weight
from bnnverify.reliability.jointlaws import pair_law_size, windows
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.tables import OutputTables


@dataclass(frozen=True, slots=True)
class Bounds:
    """Computed bounds with the number of roundings they may carry, and the work done.

    Attributes:
        lower: Computed lower bound of P(class is not c).
        upper: Computed upper bound.
        roundings: At most so many in either.
        leaves: States evaluated exactly.
        peak_states: Most states open at once.
    """

    lower: float
    upper: float
    roundings: int
    leaves: int
    peak_states: int


@dataclass(frozen=True, slots=True)
class Effort:
    """How far to go for one image.

    Attributes:
        states: States to split into, by the values of the most uncertain signs.
        triples: float32 numbers for the laws of triples of rivals; 0: expansions of second order only.
        forced: Close the states beyond `states` by their Bonferroni bounds, instead of expanding what is open.
    """

    states: int
    triples: int = 0
    forced: bool = False


class OutputProblem:
    """P(class is not c) for one law of the hidden signs: tables and order of the signs, shared by all efforts."""

    def __init__(
        self,
        output: OutputBlock,
        fires: FloatArray,
        silent: FloatArray,
        tables: OutputTables,
        *,
        sign_roundings: int,
        tolerance: float,
    ) -> None:
        self.tables, self.tolerance, self.sign_roundings = tables, tolerance, sign_roundings
        order = np.argsort(-np.minimum(fires, silent), kind="stable")  # uncertain signs first: sharp suffix tables
        self.fires, self.silent = np.ascontiguousarray(fires[order]), np.ascontiguousarray(silent[order])
        self.deviates = np.minimum(self.fires, self.silent)
        self.m = m = output.n_inputs
        signs = output.weights[:, order].astype(np.int64)
        rivals = np.array(tables.rivals)
        factor_own, factor_rival, offset = tables.pair_index
        self.pair_steps = []
        for h in (1, -1):
            adds = (signs == -h).astype(np.int64)  # disagreements that a sign h adds to each class
            steps = factor_own * adds[tables.label][None] + factor_rival * adds[rivals]
            self.pair_steps.append(np.ascontiguousarray(steps.T))
        keep, dropped, single = np.arange(rivals.size), 0.0, np.zeros(0)
        self._suffix: FloatArray | None = None
        self.bounds = Bounds(0.0, 1.0, 0, 0, 1)
        if tables.pair.size:
            if factor_own == -1:
                self._suffix = self._suffix_tables(keep)
                single = self._suffix[0, :, offset]
            else:  # large tables, made only if states are drawn
                single = np.zeros(rivals.size)
                root_chances(tables.pair, self.fires, self.silent, self.pair_steps[0], self.pair_steps[1], single)
            ranking = np.argsort(single, kind="stable")
            faint = ranking[np.cumsum(single[ranking]) <= tolerance / 8]  # together they cannot matter
            keep = np.setdiff1d(keep, faint)
            dropped = float(single[faint].sum())
            if self._suffix is not None:
                self._suffix = np.ascontiguousarray(self._suffix[:, keep])
            self.bounds = Bounds(
                float(single.max(initial=0.0)),
                min(float(single.sum()), 1.0),
                _suffix_roundings(tables, m, sign_roundings) + rivals.size,
                0,
                1,
            )
        self.root, self.dropped, self.kept = single[keep] if single.size else single, dropped, keep
        self.classes = [tables.label, *(int(k) for k in rivals[keep])]
        self.signs = signs
        self.output = output
        self._arrays: tuple[Any, ...] | None = None

    @property
    def width(self) -> float:
        """Width of the bounds so far."""
        return self.bounds.upper - self.bounds.lower

    @property
    def can_expand(self) -> bool:
        """True if the expansion serves this problem; else its states are closed by Bonferroni's bounds."""
        few = self.kept.size <= MAX_RIVALS and self.tolerance >= _LEAST_WIDTH
        served = self.tables.components == 1 or bool((self.output.weights != 0).all())
        return few and served and self.tables.pair.size > 0

    @property
    def entropy(self) -> float:
        """Entropy of the hidden signs, bits."""
        both = np.array([self.fires, self.silent])
        return float(-(both * np.log2(np.maximum(both, 1e-300))).sum())

    def _suffix_tables(self, rivals: NDArray[np.int64]) -> FloatArray:
        """P(rival beats c | pair index after the first j signs), `(m + 1, rivals, pair indices)`."""
        tables = self.tables
        terminal = tables.pair[rivals] if tables.pair.size else np.zeros((rivals.size, 0))
        result = np.zeros((self.m + 1, *terminal.shape))
        if terminal.size:
            up, down = (np.ascontiguousarray(steps[:, rivals]) for steps in self.pair_steps)
            suffix_tables(terminal, self.fires, self.silent, up, down, tables.pair_index[0] == -1, result)
        return result

    @property
    def suffix(self) -> FloatArray:
        """The tables of the rivals that matter."""
        if self._suffix is None:
            self._suffix = self._suffix_tables(self.kept)
        return self._suffix

    def _prepared(self) -> tuple[Any, ...]:
        if self._arrays is None:
            tables = self.tables
            words, shifts, masks = packed_fields(self.output, self.classes, tables.components)
            add = [packed_steps(self.signs, h, self.classes, tables.components, words, shifts) for h in (1, -1)]
            strides = np.array([tables.strides[k] for k in self.classes], dtype=np.int64)
            self._arrays = add, (words, shifts, masks, strides)
        return self._arrays

    def refine(self, effort: Effort) -> Bounds:
        """Intersect the bounds with those that this effort proves."""
        if self.kept.size == 0:
            return self.bounds
        add, fields = self._prepared()
        tables, m = self.tables, self.m
        share = 3 / 4 if effort.forced else 3 / 8
        if effort.states == 0 and not effort.forced:
            lower, upper, left, closed, leaves, peak, first = 0.0, 0.0, self.tolerance * share, 0, 0, 1, 0
            keys, masses = np.zeros((1, add[0].shape[1]), dtype=np.uint64), np.ones(1)
        else:
            lower, upper, left, closed, leaves, peak, first, keys, masses = draw_signs(
                self.fires,
                self.silent,
                add[0],
                add[1],
                self.suffix,
                fields,
                np.array(tables.pair_index),
                (tables.own, tables.beats, tables.loses, self.kept),
                self.tolerance * share,
                effort.states if effort.forced else 1 << 60,
                1 << 60 if effort.forced else effort.states,
            )
        if masses.size:
            below, above = self._expanded(first, keys, masses, effort.triples, left + self.tolerance / 2)
            lower, upper, closed = lower + below, upper + above, closed + masses.size
        # a mass sees 2 roundings a sign beside those of the signs; a leaf multiplies by rivals + 2 table entries
        mass = m * (self.sign_roundings + 2)
        leaf = (self.kept.size + 2) * (tables.roundings + 2) + m + 1
        inner = max(leaf, _suffix_roundings(tables, m, self.sign_roundings))
        roundings = mass + inner + closed + leaves + len(tables.rivals) + 4
        self.bounds = Bounds(
            max(lower, self.bounds.lower),
            min(upper + self.dropped, self.bounds.upper),
            max(roundings, self.bounds.roundings),
            self.bounds.leaves + leaves,
            max(peak, self.bounds.peak_states),
        )
        return self.bounds

    def _expanded(
        self, first: int, keys: NDArray[Any], masses: FloatArray, triples: int, allowed: float
    ) -> tuple[float, float]:
        """Bounds on the error mass of open states by expansions over the signs from `first` on."""
        tables = self.tables
        _, fields = self._prepared()
        counts, chances = disagreements(keys, fields), self.root[None]
        if first > 0:
            chances = state_chances(keys, fields, np.array(tables.pair_index), self.suffix[first])
        deviates = self.deviates[first:]
        likely = np.where(self.fires >= self.silent, 1, -1)[first:]
        rows = self.signs[self.classes, first:]
        disagrees = (rows == -likely).astype(np.int64)
        tail = np.cumsum(deviates[::-1])[::-1]
        some = int(np.count_nonzero(tail > allowed / 100))  # the others keep their likelier value
        slack = float(tail[some]) * 1.0001 if some < tail.size else 0.0
        slack += 1.01 * UNIT_ROUNDING * self.sign_roundings * float(deviates.sum())
        moves = (rows == likely).astype(np.int64) - disagrees
        bases = counts.sum(axis=2) + disagrees.sum(axis=1)
        common, positive = np.zeros_like(likely), np.zeros(len(counts), dtype=np.int64)
        plus, strides = np.zeros((2, len(self.classes)), dtype=np.int64)
        if tables.components == 2:  # disagreements on cells stored -1, and positive signs
            plus = np.count_nonzero(self.signs[self.classes] == 1, axis=1)
            strides = np.array([tables.strides[k] for k in self.classes], dtype=np.int64)
            drawn = np.count_nonzero(self.signs[tables.label, :first] == 1)
            positive = drawn - counts[:, 0, 0] + counts[:, 0, 1] + np.count_nonzero(likely == 1)
            bases = counts[:, :, 1] + np.count_nonzero((rows == -1) & (likely == 1), axis=1)
            common, moves = -likely, np.where(rows == -1, -likely, 0)
        bases = np.column_stack([bases, positive])
        steps = np.ascontiguousarray(np.vstack([moves, common])[:, :some].T)
        deviates = np.ascontiguousarray(deviates[:some])
        low, high = np.zeros((2, steps.shape[1]), dtype=np.int64)
        exits, exit_mass = np.zeros(steps.shape[1]), allowed / (8 * slack_weight(self.kept.size, triples > 0))
        windows(deviates, steps, exit_mass, low, high, exits)
        if pair_law_size(low, high) > _LARGEST_LAWS:
            return float(masses @ chances.max(axis=1)), float(masses @ np.minimum(chances.sum(axis=1), 1.0))
        lower, upper, _ = expand(
            deviates,
            steps,
            low,
            high,
            exits,
            bases,
            masses,
            chances,
            plus,
            strides,
            tables.own,
            tables.beats,
            self.kept,
            allowed,
            exit_mass,
            slack,
            float(tables.roundings),
            triples,
        )
        return lower, upper


_LARGEST_LAWS = 1 << 25  # float64 numbers
_LEAST_WIDTH = 1e-9  # below it the absolute slack of an expansion is in the way
UNIT_ROUNDING = 2.0**-53


def error_bounds(
    output: OutputBlock,
    fires: FloatArray,
    silent: FloatArray,
    tables: OutputTables,
    *,
    sign_roundings: int,
    tolerance: float,
    max_states: int,
) -> Bounds:
    """Bounds on P(class is not ``tables.label``), h with independent signs.

    Args:
        output: The output block.
        fires: P(h_j = +1), shape `(m,)`.
        silent: P(h_j = -1), summed on its own, not 1 - fires.
        tables: Tables of the output block for the class and the rates.
        sign_roundings: Roundings in `fires` and `silent`.
        tolerance: Width to aim at.
        max_states: States kept open at once.

    Returns:
        Computed bounds and the roundings they carry; pass them through `rounding.outward`.
    """
    problem = OutputProblem(output, fires, silent, tables, sign_roundings=sign_roundings, tolerance=tolerance)
    for effort in efforts(problem, max_states):
        if problem.width <= tolerance:
            break
        problem.refine(effort)
    return problem.bounds


def efforts(problem: OutputProblem, max_states: int) -> Iterator[Effort]:
    """Rising efforts up to `max_states` states; an expansion of third order costs as much as 1,024 of them."""
    if not problem.can_expand:
        yield Effort(max_states, forced=True)
        return
    if problem.entropy <= _LOW_ENTROPY:
        yield Effort(min(4096, max_states), forced=True)
    yield Effort(0)
    for states in (0, 16, 128, 1024):
        if _PER_EXPANSION * max(states, 1) > max_states:
            break
        yield Effort(states, TRIPLES)


_LOW_ENTROPY = 8  # bits, below which states soon merge and few are open
_PER_EXPANSION = 1024
TRIPLES = 1 << 24


def _suffix_roundings(tables: OutputTables, m: int, sign_roundings: int) -> int:
    return tables.roundings + m * (sign_roundings + 2)
