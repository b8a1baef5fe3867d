"""Drawing hidden signs one after the other: packed states, equal ones merged, closed as soon as their bounds allow.

A state holds the disagreements of class c and of the rivals that matter, each counter in a field of a few 64-bit words,
so that drawing a sign is one addition.

References:
    Ours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.network import OutputBlock
from bnnverify.reliability import arrays
from bnnverify.reliability.arrays import FloatArray


def suffix_tables(
    terminal: FloatArray,
    fires: FloatArray,
    silent: FloatArray,
    step_fires: NDArray[np.int64],
    step_silent: NDArray[np.int64],
    by_difference: bool,
    tables: FloatArray,
) -> None:
    """``tables[j, r, i]`` = P(rival r beats c | pair index i after the first j signs), backwards from `terminal`.

    Args:
        terminal: The entries after the last sign, `(rivals, pair indices)`.
        fires: P(sign j = +1).
        silent: P(sign j = -1).
        step_fires: What a sign +1 adds to the pair index, `(signs, rivals)`.
        step_silent: What a sign -1 adds.
        by_difference: True if the pair index is a difference, offset by the number of signs; else two counters.
        tables: Filled, `(signs + 1, rivals, pair indices)`.
    """
    is_small = arrays.are_enough(_suffix_tables, 15 * fires.size, 8 * tables.size)
    make = arrays.suffix_tables if is_small else _suffix_tables
    make(terminal, fires, silent, step_fires, step_silent, by_difference, tables)


@njit(nogil=True)
def _suffix_tables(terminal, fires, silent, step_fires, step_silent, by_difference, tables):  # type: ignore[no-untyped-def]
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


@njit(nogil=True)
def root_chances(terminal, fires, silent, step_fires, step_silent, chances):  # type: ignore[no-untyped-def]
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


@njit
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


@njit
def _leaf(key, words, shifts, masks, strides, leaf_tables, alive, total):  # type: ignore[no-untyped-def]
    """P(some rival beats c | all signs): sum over the score of c; the union is built from beats and loses."""
    own, beats, loses, rivals = leaf_tables
    index = 0
    for f in range(words.shape[1]):
        index = index * strides[0] + np.int64((key[words[0, f]] >> shifts[0, f]) & masks[0, f])
    n = own.shape[1]
    for s in range(n):
        alive[s] = own[index, s]
        total[s] = 0.0
    for r in range(rivals.shape[0]):
        i = 0
        for f in range(words.shape[1]):
            i = i * strides[r + 1] + np.int64((key[words[r + 1, f]] >> shifts[r + 1, f]) & masks[r + 1, f])
        win, lose = beats[rivals[r], i], loses[rivals[r], i]
        for s in range(n):
            total[s] += alive[s] * win[s]
            alive[s] *= lose[s]
    error = 0.0
    for s in range(n):
        error += total[s]
    return error


@njit
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


@njit
def _exponent(contribution):  # type: ignore[no-untyped-def]
    """The exponent of a contribution, 1 to 1099; 0 for none."""
    return min(max(math.frexp(contribution)[1] + 1089, 1), 1099) if contribution > 0.0 else 0


@njit
def _closing_bucket(contribution, count, allowance, max_open):  # type: ignore[no-untyped-def]
    """The exponent e such that states with contribution < 2^e are closed: within the allowance, or by force."""
    sums = np.zeros(1100)
    sizes = np.zeros(1100, dtype=np.int64)
    for i in range(count):
        e = _exponent(contribution[i])
        sums[e] += contribution[i]
        sizes[e] += 1
    closed_sum, open_states, bucket = 0.0, count, 0
    while bucket < 1100 and (closed_sum + sums[bucket] <= allowance or open_states > max_open):
        closed_sum += sums[bucket]
        open_states -= sizes[bucket]
        bucket += 1
    return bucket


def draw_signs(
    fires: FloatArray,
    silent: FloatArray,
    add_fires: NDArray[np.uint64],
    add_silent: NDArray[np.uint64],
    tables: FloatArray,
    fields: tuple[NDArray[Any], ...],
    pair_index: NDArray[np.int64],
    leaf_tables: tuple[Any, ...],
    tolerance: float,
    max_states: int,
    hold: int,
) -> tuple[Any, ...]:
    """(lower, upper, allowance left, closed states, leaves, peak, sign, keys, masses) of a run over the signs.

    Ends before the first sign at which more than `hold` states are open: these are then returned, undecided.

    Args:
        fires: P(sign j = +1).
        silent: P(sign j = -1).
        add_fires: What a sign +1 adds to a packed state, `(signs, words)`.
        add_silent: What a sign -1 adds.
        tables: Of `suffix_tables`; no pair indices: states have no bounds but 0 and 1.
        fields: Words, shifts and masks of the counters in a state, and strides of leaf indices; class c first.
        pair_index: Factor of c, factor of the rival, offset.
        leaf_tables: `OutputTables.own`, `beats` and `loses`, and the rivals that are looked at.
        tolerance: What states may contribute to the width and be closed.
        max_states: Open states beyond so many are closed in any case.
        hold: See above.
    """
    problem = fires, silent, add_fires, add_silent, tables, fields, pair_index, leaf_tables, tolerance, max_states, hold
    if arrays.are_enough(_draw_signs, 80 * fires.size, 0):
        drawn = arrays.draw_signs(*problem)
        if drawn is not None:
            return drawn
    return tuple(_draw_signs(*problem))


@njit(nogil=True)
def _draw_signs(  # type: ignore[no-untyped-def]
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
    words, shifts, masks, strides = fields
    own, rivals = leaf_tables[0], leaf_tables[3].shape[0]  # the other two: `OutputTables.beats` and `.loses`
    m, width = fires.shape[0], add_fires.shape[1]
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
            if _exponent(contribution[i]) < bucket:
                lower += masses[i] * low[i]
                upper += masses[i] * high[i]
                spent += contribution[i]
                closed += 1
            elif j == m:
                error = masses[i] * _leaf(keys[i], words, shifts, masks, strides, leaf_tables, alive, total)
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


@njit(nogil=True)
def disagreements(keys, fields):  # type: ignore[no-untyped-def]
    """Disagreements of packed states, `(states, classes, counters)`."""
    words, shifts, masks, _ = fields
    counts = np.zeros((keys.shape[0], *words.shape), dtype=np.int64)
    for i in range(keys.shape[0]):
        for k in range(words.shape[0]):
            for f in range(words.shape[1]):
                counts[i, k, f] = np.int64((keys[i, words[k, f]] >> shifts[k, f]) & masks[k, f])
    return counts


@njit(nogil=True)
def state_chances(keys, fields, pair_index, table):  # type: ignore[no-untyped-def]
    """P(rival beats c | state), `(states, rivals)`."""
    words, shifts, masks, _ = fields
    chances = np.zeros((keys.shape[0], table.shape[0]))
    indices = np.zeros(table.shape[0], dtype=np.int64)
    for i in range(keys.shape[0]):
        _pair_indices(keys[i], words, shifts, masks, pair_index, indices)
        for r in range(table.shape[0]):
            chances[i, r] = table[r, indices[r]]
    return chances


def packed_fields(
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


def packed_steps(
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
