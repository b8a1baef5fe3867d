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
from numba import njit
from numpy.typing import NDArray

from bnnverify.network import OutputBlock
from bnnverify.reliability.expansion import MAX_RIVALS, expand, pair_law_size, slack_weight, windows
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


@njit(cache=True, nogil=True)
def _suffix_tables(terminal, fires, silent, step_fires, step_silent, by_difference, tables):  # type: ignore[no-untyped-def]
    """``tables[j, r, i]`` = P(rival r beats c | pair index i after the first j signs), backwards from `terminal`."""
    m = fires.shape[0]
    tables[m] = terminal
    for j in range(m - 1, -1, -1):
        q, p = fires[j], silent[j]
        for r in range(terminal.shape[0]):
            up, down = step_fires[j, r], step_silent[j, r]
            rows, columns, start = (1, 2 * j + 1, m - j) if by_difference else (j + 1, j + 1, 0)
            for a in range(rows):
                for b in range(columns):
                    i = start + a * (m + 1) + b
                    tables[j, r, i] = q * tables[j + 1, r, i + up] + p * tables[j + 1, r, i + down]


@njit(cache=True, nogil=True)
def _root_chances(terminal, fires, silent, step_fires, step_silent, chances):  # type: ignore[no-untyped-def]
    """``chances[r]`` = P(rival r beats c): the law of the pair index forwards, without the tables on the way."""
    size = terminal.shape[1]
    law, following = np.zeros(size), np.zeros(size)
    for r in range(terminal.shape[0]):
        law[:] = 0.0
        law[0], base, top = 1.0, 0, 1
        for j in range(fires.shape[0]):
            up, down = step_fires[j, r], step_silent[j, r]
            base += min(up, down)
            stays, moves = (fires[j], silent[j]) if up < down else (silent[j], fires[j])
            shift = abs(up - down)
            if shift == 0:
                continue
            for i in range(top, top + shift):
                law[i] = 0.0
            top += shift
            for i in range(shift):
                following[i] = law[i] * stays
            for i in range(shift, top):
                following[i] = law[i] * stays + law[i - shift] * moves
            law, following = following, law
        total = 0.0
        for i in range(top):
            total += law[i] * terminal[r, base + i]
        chances[r] = total


@njit(cache=True)
def _pair_indices(key, words, shifts, masks, pair_index, out):  # type: ignore[no-untyped-def]
    """Pair index of every rival from a packed state; class c is row 0 of the field tables."""
    own = np.int64(0)
    for f in range(words.shape[1]):
        own += np.int64((key[words[0, f]] >> shifts[0, f]) & masks[0, f])
    for r in range(out.shape[0]):
        theirs = np.int64(0)
        for f in range(words.shape[1]):
            theirs += np.int64((key[words[r + 1, f]] >> shifts[r + 1, f]) & masks[r + 1, f])
        out[r] = pair_index[0] * own + pair_index[1] * theirs + pair_index[2]


@njit(cache=True)
def _leaf(key, words, shifts, masks, strides, own, beats, loses, alive, total):  # type: ignore[no-untyped-def]
    """P(some rival beats c | all signs): sum over the score of c; the union is built from beats and loses."""
    index = 0
    for f in range(words.shape[1]):
        index = index * strides[0] + np.int64((key[words[0, f]] >> shifts[0, f]) & masks[0, f])
    n = own.shape[1]
    for s in range(n):
        alive[s] = own[index, s]
        total[s] = 0.0
    for r in range(beats.shape[0]):
        i = 0
        for f in range(words.shape[1]):
            i = i * strides[r + 1] + np.int64((key[words[r + 1, f]] >> shifts[r + 1, f]) & masks[r + 1, f])
        win, lose = beats[r, i], loses[r, i]
        for s in range(n):
            total[s] += alive[s] * win[s]
            alive[s] *= lose[s]
    error = 0.0
    for s in range(n):
        error += total[s]
    return error


@njit(cache=True)
def _insert(key, mass, keys, masses, count, slots):  # type: ignore[no-untyped-def]
    """Add `mass` to the state `key`, opening it if it is new; returns the number of states."""
    h = np.uint64(1469598103934665603)
    for w in range(key.shape[0]):
        h = (h ^ key[w]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    wrap = np.uint64(slots.shape[0] - 1)
    slot = np.int64((h ^ (h >> np.uint64(32))) & wrap)
    while True:
        i = slots[slot]
        if i < 0:
            slots[slot] = count
            for w in range(key.shape[0]):
                keys[count, w] = key[w]
            masses[count] = mass
            return count + 1
        same = True
        for w in range(key.shape[0]):
            if keys[i, w] != key[w]:
                same = False
        if same:
            masses[i] += mass
            return count
        slot = (slot + 1) & np.int64(wrap)


@njit(cache=True)
def _closing_bucket(contribution, count, allowance, max_open):  # type: ignore[no-untyped-def]
    """The exponent e such that states with contribution < 2^e are closed: within the allowance, or by force."""
    sums = np.zeros(1100)
    sizes = np.zeros(1100, dtype=np.int64)
    for i in range(count):
        e = 0
        if contribution[i] > 0.0:
            e = min(max(int(np.floor(np.log2(contribution[i]))) + 1090, 1), 1099)
        sums[e] += contribution[i]
        sizes[e] += 1
    closed_sum, open_states, bucket = 0.0, count, 0
    while bucket < 1100 and (closed_sum + sums[bucket] <= allowance or open_states > max_open):
        closed_sum += sums[bucket]
        open_states -= sizes[bucket]
        bucket += 1
    return bucket


@njit(cache=True, nogil=True)
def _propagate(  # type: ignore[no-untyped-def]
    fires,
    silent,
    add_fires,
    add_silent,
    tables,
    fields,
    pair_index,
    leaf_tables,
    tolerance,
    max_states,
    hold,
):
    """(lower, upper, allowance left, closed states, leaves, peak, sign, keys, masses) of a run over the signs.

    Ends before the first sign at which more than `hold` states are open: these are then returned, undecided.
    """
    words, shifts, masks, strides = fields
    own, beats, loses = leaf_tables
    m, width, rivals = fires.shape[0], add_fires.shape[1], beats.shape[0]
    keys, masses = np.zeros((1, width), dtype=np.uint64), np.ones(1)
    indices = np.zeros(rivals, dtype=np.int64)
    alive, total, child = np.zeros(own.shape[1]), np.zeros(own.shape[1]), np.zeros(width, dtype=np.uint64)
    count, closed, leaves, peak = 1, 0, 0, 1
    lower, upper, spent = 0.0, 0.0, 0.0
    for j in range(m + 1):
        low, high, contribution = np.empty(count), np.empty(count), np.empty(count)
        for i in range(count):
            if tables.shape[2] == 0:
                low[i], high[i] = 0.0, 1.0
            else:
                _pair_indices(keys[i], words, shifts, masks, pair_index, indices)
                most, added = 0.0, 0.0
                for r in range(rivals):
                    value = tables[j, r, indices[r]]
                    added += value
                    most = max(most, value)
                low[i], high[i] = most, min(added, 1.0)
            contribution[i] = masses[i] * max(high[i] - low[i], 0.0)
        allowance = max(tolerance * (j + 1) / (m + 1) - spent, 0.0)
        bucket = _closing_bucket(contribution, count, allowance, max_states)
        kept = 0
        for i in range(count):
            e = 0
            if contribution[i] > 0.0:
                e = min(max(int(np.floor(np.log2(contribution[i]))) + 1090, 1), 1099)
            if e < bucket:
                lower += masses[i] * low[i]
                upper += masses[i] * high[i]
                spent += contribution[i]
                closed += 1
            elif j == m:
                error = masses[i] * _leaf(keys[i], words, shifts, masks, strides, own, beats, loses, alive, total)
                lower += error
                upper += error
                leaves += 1
            else:
                keys[kept] = keys[i]
                masses[kept] = masses[i]
                kept += 1
        if j == m or kept == 0:
            kept = 0 if j == m else kept
            break
        if kept > hold:
            break
        count, slots = 0, 4
        while slots < 4 * kept:  # at most 2 * kept states: the hash table stays half empty
            slots *= 2
        table = np.full(slots, -1, dtype=np.int64)
        next_keys, next_masses = np.empty((2 * kept, width), dtype=np.uint64), np.empty(2 * kept)
        for i in range(kept):
            if fires[j] > 0.0:
                for w in range(width):
                    child[w] = keys[i, w] + add_fires[j, w]
                count = _insert(child, masses[i] * fires[j], next_keys, next_masses, count, table)
            if silent[j] > 0.0:
                for w in range(width):
                    child[w] = keys[i, w] + add_silent[j, w]
                count = _insert(child, masses[i] * silent[j], next_keys, next_masses, count, table)
        keys, masses = next_keys, next_masses
        peak = max(peak, count)
    return lower, upper, max(tolerance - spent, 0.0), closed, leaves, peak, j, keys[:kept], masses[:kept]


@njit(cache=True, nogil=True)
def _disagreements(keys, fields):  # type: ignore[no-untyped-def]
    """Disagreements of packed states, `(states, classes, counters)`."""
    words, shifts, masks, _ = fields
    counts = np.zeros((keys.shape[0], *words.shape), dtype=np.int64)
    for i in range(keys.shape[0]):
        for k in range(words.shape[0]):
            for f in range(words.shape[1]):
                counts[i, k, f] = np.int64((keys[i, words[k, f]] >> shifts[k, f]) & masks[k, f])
    return counts


@njit(cache=True, nogil=True)
def _chances(keys, fields, pair_index, table):  # type: ignore[no-untyped-def]
    """P(rival beats c | state), `(states, rivals)`."""
    words, shifts, masks, _ = fields
    chances = np.zeros((keys.shape[0], table.shape[0]))
    indices = np.zeros(table.shape[0], dtype=np.int64)
    for i in range(keys.shape[0]):
        _pair_indices(keys[i], words, shifts, masks, pair_index, indices)
        for r in range(table.shape[0]):
            chances[i, r] = table[r, indices[r]]
    return chances


def _fields(
    output: OutputBlock, classes: list[int], components: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where each counter of each class lies in the packed state: words, shifts and masks, `(classes, components)`."""
    words = np.zeros((len(classes), components), dtype=np.int64)
    shifts = np.zeros((len(classes), components), dtype=np.uint64)
    masks = np.zeros((len(classes), components), dtype=np.uint64)
    word, bit = 0, 0
    for i, k in enumerate(classes):
        row = output.weights[k]
        tops = [np.count_nonzero(row)] if components == 1 else [np.count_nonzero(row == s) for s in (1, -1)]
        for f, top in enumerate(tops):
            need = max(int(top).bit_length(), 1)
            if bit + need > 64:
                word, bit = word + 1, 0
            words[i, f], shifts[i, f], masks[i, f] = word, bit, (1 << need) - 1
            bit += need
    return words, shifts, masks


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
                _root_chances(tables.pair, self.fires, self.silent, self.pair_steps[0], self.pair_steps[1], single)
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
            _suffix_tables(terminal, self.fires, self.silent, up, down, tables.pair_index[0] == -1, result)
        return result

    @property
    def suffix(self) -> FloatArray:
        """The tables of the rivals that matter."""
        if self._suffix is None:
            self._suffix = self._suffix_tables(self.kept)
        return self._suffix

    def _prepared(self) -> tuple[Any, ...]:
        if self._arrays is None:
            tables, m = self.tables, self.m
            words, shifts, masks = _fields(self.output, self.classes, tables.components)
            add = [_packed_steps(self.signs, h, self.classes, tables.components, words, shifts) for h in (1, -1)]
            depth = max([self.tables.own.shape[0], *(b.shape[0] for b in tables.beats)])
            beats, loses = np.zeros((self.kept.size, depth, m + 1)), np.zeros((self.kept.size, depth, m + 1))
            for i, r in enumerate(self.kept):
                beats[i, : tables.beats[r].shape[0]] = tables.beats[r]
                loses[i, : tables.loses[r].shape[0]] = tables.loses[r]
            strides = np.array([tables.strides[k] for k in self.classes], dtype=np.int64)
            self._arrays = add, (words, shifts, masks, strides), (tables.own, beats, loses)
        return self._arrays

    def refine(self, effort: Effort) -> Bounds:
        """Intersect the bounds with those that this effort proves."""
        if self.kept.size == 0:
            return self.bounds
        add, fields, leaf_tables = self._prepared()
        tables, m = self.tables, self.m
        share = 3 / 4 if effort.forced else 3 / 8
        if effort.states == 0 and not effort.forced:
            lower, upper, left, closed, leaves, peak, first = 0.0, 0.0, self.tolerance * share, 0, 0, 1, 0
            keys, masses = np.zeros((1, add[0].shape[1]), dtype=np.uint64), np.ones(1)
        else:
            lower, upper, left, closed, leaves, peak, first, keys, masses = _propagate(
                self.fires,
                self.silent,
                add[0],
                add[1],
                self.suffix,
                fields,
                np.array(tables.pair_index),
                leaf_tables,
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
        _, fields, (own, beats, _) = self._prepared()
        counts, chances = _disagreements(keys, fields), self.root[None]
        if first > 0:
            chances = _chances(keys, fields, np.array(tables.pair_index), self.suffix[first])
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
            own,
            beats,
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


def _packed_steps(
    signs: NDArray[np.int64], h: int, classes: list[int], components: int, words: NDArray[Any], shifts: NDArray[Any]
) -> NDArray[np.uint64]:
    """What the sign h of every position adds to a packed state, `(m, words)`."""
    m = signs.shape[1]
    add = np.zeros((m, int(words.max()) + 1), dtype=np.uint64)
    for i, k in enumerate(classes):
        for f in range(components):
            touched = signs[k] == -h
            if components == 2:  # counter 0: stored +1, counter 1: stored -1
                touched = touched & (signs[k] == (1 if f == 0 else -1))
            add[touched, words[i, f]] += np.uint64(1) << shifts[i, f]
    return add
