"""From the signs before a dense block to the signs after it, for many sign vectors at once (numba).

Given the signs before, the neurons are independent: `rows.fires_given` says how likely each fires, and the likely
outcomes are drawn as in `patterns.draw`, with one sign per part. After the last hidden block what is left out need not
stay open: for each rival, P(rival beats c and the outcome was left out) is a sum over the undecided signs that depends
on their score difference alone, from the table `pair` of `tables.OutputTables`. So left-out outcomes are bounded by
Bonferroni's inequalities, and outcomes are drawn only where these are not sharp.

References:
    Ours. Bonferroni's inequalities: Galambos & Simonelli, 1996.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.domain import IntArray
from bnnverify.faults import CellRates
from bnnverify.network import DenseBlock, OutputBlock
from bnnverify.packing import Words, pack_signs
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.patterns import add_vector, has_room, new_stack
from bnnverify.reliability.rows import Laws, as_groups, cache_slot, fires_given, firing_roundings, flip_laws, new_cache
from bnnverify.reliability.tables import OutputTables
from bnnverify.vectors import popcount

_REACH = 1e-2  # signs less likely than this share of the threshold are not looked at beyond their probability
_ONE = np.uint64(1)


@dataclass(frozen=True, slots=True)
class DenseStep:
    """A dense block that takes signs, under its rates, packed for the loops.

    Attributes:
        weights: `(neurons, words)`.
        groups: Cells with the first and with the second of two rates, `(2, neurons, words)`.
        sizes: Their numbers, `(neurons, 2)`.
        limits: Most disagreements with which each neuron fires, at least -1.
        laws: Flip laws of both groups.
    """

    weights: Words
    groups: Words
    sizes: IntArray
    limits: IntArray
    laws: tuple[Laws, Laws]

    @classmethod
    def of(cls, block: DenseBlock, rates: CellRates) -> DenseStep:
        """The block under the rates of its stored signs."""
        present = block.weights != 0
        groups = as_groups(rates.is_symmetric, present, block.stored)
        sizes = np.stack([np.count_nonzero(g, axis=1) for g in groups], axis=1).astype(np.int64)
        cells = sizes.sum(axis=1)
        limits = np.clip((cells - block.thresholds) // 2, -1, cells)
        most = sizes.max(axis=0)
        laws = flip_laws(rates.plus, int(most[0])), flip_laws(rates.minus, int(most[1]))
        packed = np.stack([pack_signs(g.astype(np.int8)) for g in groups])
        return cls(pack_signs(block.weights), packed, sizes, limits, laws)

    @property
    def neurons(self) -> int:
        """Neurons."""
        return int(self.limits.size)

    @property
    def roundings(self) -> int:
        """Roundings in P(fires) and in P(does not fire)."""
        return firing_roundings(int(self.sizes.sum(axis=1).max()))

    @property
    def loops(self) -> tuple[Any, ...]:
        """What the loops take."""
        return self.weights, self.groups, self.sizes, self.limits, self.laws[0], self.laws[1]

    def workspace(self) -> tuple[Any, ...]:
        """Scratch of `spread`: a cache of its own, room for the signs, and that of `draw_signs`."""
        return new_cache(64 * self.neurons), np.zeros((2, self.neurons)), sign_workspace(self.neurons)


def sign_workspace(outputs: int) -> tuple[Any, ...]:
    """Scratch of `draw_signs`."""
    m = outputs + 1
    return np.zeros((2, m)), np.zeros(m, dtype=np.int64), new_stack(outputs, -(-outputs // 64))


@dataclass(frozen=True, slots=True)
class Closing:
    """What bounds left-out outcomes after the last hidden block.

    Attributes:
        rows: Signs of the class c and of its rivals, packed, `(1 + rivals, words)`.
        pair: P(rival beats c) by the difference of their disagreements plus n, `(rivals, 2 n + 1)`; without rivals
            nothing is bounded.
    """

    rows: Words
    pair: FloatArray

    @classmethod
    def of(cls, output: OutputBlock, tables: OutputTables) -> Closing:
        """From the tables against one class; bounds nothing where they are not by difference."""
        rivals = list(tables.rivals) if tables.pair.size and tables.pair_index[0] == -1 else []
        rows = pack_signs(output.weights[[tables.label, *rivals]])
        return cls(rows, np.ascontiguousarray(tables.pair if rivals else np.zeros((0, 2 * output.n_inputs + 1))))

    @classmethod
    def none(cls, words: int) -> Closing:
        """Bounds nothing."""
        return cls(np.zeros((1, words), dtype=np.uint64), np.zeros((0, 1)))

    @property
    def loops(self) -> tuple[Any, ...]:
        """What the loops take."""
        return self.rows, self.pair


@njit(nogil=True)
def _sort_signs(fires, silent, mass, least, odds, bits, modal):  # type: ignore[no-untyped-def]
    """Signs that may turn, by falling odds: their number, P(all other signs are modal), P(some other is not).

    ``odds[0]`` and ``odds[1]`` become P(modal sign) and P(other sign).
    """
    modal[:] = np.uint64(0)
    n, rest, other = 0, 1.0, 0.0
    for j in range(fires.shape[0]):
        big, small = silent[j], fires[j]
        if fires[j] >= silent[j]:
            big, small = fires[j], silent[j]
            modal[j >> 6] |= _ONE << np.uint64(j & 63)
        if small * mass < least or small == 0.0:
            other += rest * small
            rest *= big
            continue
        i = n
        while i > 0 and odds[1, i - 1] * big < small * odds[0, i - 1]:
            odds[0, i], odds[1, i], bits[i] = odds[0, i - 1], odds[1, i - 1], bits[i - 1]
            i -= 1
        odds[0, i], odds[1, i], bits[i] = big, small, j
        n += 1
    return n, rest, other


@njit(nogil=True)
def _suffixes(odds, bits, n, modal, rows, pair):  # type: ignore[no-untyped-def]
    """What the signs from i on do to every rival, by the half difference t that the signs before i made.

    Returns:
        Shifts ``(n, rivals)`` of t where a sign turns; ``beats[i, r, n + t]`` = P(rival r beats c), and
        ``turned[i, r, n + t]`` = P(r beats c and some sign from i on is turned).
    """
    rivals, inputs = pair.shape[0], (pair.shape[1] - 1) // 2
    shifts = np.zeros((n, rivals), dtype=np.int64)
    beats, turned = np.empty((n + 1, rivals, 2 * n + 1)), np.zeros((n + 1, rivals, 2 * n + 1))
    own = np.int64(0)
    for w in range(modal.shape[0]):
        own += np.int64(popcount(modal[w] ^ rows[0, w]))
    for r in range(rivals):
        start = inputs - own
        for w in range(modal.shape[0]):
            start += np.int64(popcount(modal[w] ^ rows[r + 1, w]))
        for t in range(-n, n + 1):
            index = start + 2 * t
            beats[n, r, n + t] = pair[r, index] if 0 <= index < pair.shape[1] else 0.0  # else: cannot be reached
        for i in range(n):
            word, bit = bits[i] >> 6, np.uint64(bits[i] & 63)
            mine = (modal[word] ^ rows[0, word]) >> bit & _ONE  # 1: disagrees now, agrees once turned
            theirs = (modal[word] ^ rows[r + 1, word]) >> bit & _ONE
            shifts[i, r] = np.int64(mine) - np.int64(theirs)
        for i in range(n - 1, -1, -1):
            big, small, shift = odds[0, i], odds[1, i], shifts[i, r]
            for t in range(n - i, n + i + 1):
                both = small * beats[i + 1, r, t + shift]
                beats[i, r, t] = big * beats[i + 1, r, t] + both
                turned[i, r, t] = big * turned[i + 1, r, t] + both
    return shifts, beats, turned


@njit(nogil=True)
def _draw_signs(mass, modal, odds, bits, n, threshold, stack, vectors, closing, charges):  # type: ignore[no-untyped-def]
    """As `patterns.draw` where each part is one sign; what is left out goes to `charges`, bounded."""
    rows, pair = closing
    at, _, prefix, keys, whole, other = stack
    rivals = pair.shape[0]
    whole[n], other[n] = 1.0, 0.0
    for i in range(n - 1, -1, -1):
        whole[i] = whole[i + 1] * odds[0, i]
        other[i] = odds[1, i] + odds[0, i] * other[i + 1]
    left, wins = 0.0, np.zeros(rivals)
    shifts, beats, turned = _suffixes(odds, bits, n, modal, rows, pair)
    offsets = np.zeros((n + 2, rivals), dtype=np.int64)
    at[0], prefix[0], keys[0] = 0, mass, modal
    depth = 0
    if mass * whole[0] < threshold:
        left = mass
        for r in range(rivals):
            wins[r] = mass * beats[0, r, n]
        depth = -1
    else:
        add_vector(modal, mass * whole[0], *vectors)
    while depth >= 0:
        i = at[depth]
        likely = i < n and prefix[depth] * odds[1, i] * whole[i + 1] >= threshold
        if likely and has_room(vectors[0], vectors[3]):
            for w in range(modal.shape[0]):
                keys[depth + 1, w] = keys[depth, w]
            keys[depth + 1, bits[i] >> 6] ^= _ONE << np.uint64(bits[i] & 63)
            prefix[depth + 1] = prefix[depth] * odds[1, i]
            for r in range(rivals):
                offsets[depth + 1, r] = offsets[depth, r] + shifts[i, r]
            prefix[depth] *= odds[0, i]
            at[depth], at[depth + 1] = i + 1, i + 1
            depth += 1
            add_vector(keys[depth], prefix[depth] * whole[i + 1], *vectors)
            continue
        left += prefix[depth] * other[i]
        for r in range(rivals):
            wins[r] += prefix[depth] * turned[i, r, n + offsets[depth, r]]
        depth -= 1
    if rivals == 0:
        vectors[4][0] += left
        return
    most, added = 0.0, 0.0
    for r in range(rivals):
        most = max(most, wins[r])
        added += wins[r]
    charges[0] += most
    charges[1] += min(added, left)


@njit(nogil=True)
def draw_signs(fires, silent, mass, threshold, workspace, vectors, closing, charges):  # type: ignore[no-untyped-def]
    """Add the likely sign vectors of independent neurons to `vectors`, and bounds on the others to `charges`.

    Args:
        fires: P(h_j = +1), shape `(m,)`.
        silent: P(h_j = -1), summed on its own.
        mass: Probability of the state that is continued.
        threshold: Least probability of a vector that is drawn.
        workspace: `sign_workspace`.
        vectors: `Vectors.loops`.
        closing: `Closing.loops`.
        charges: What is added to the lower and to the upper bound for vectors that are left out and bounded.
    """
    odds, bits, stack = workspace
    modal = np.empty(vectors[0].shape[1], dtype=np.uint64)
    least = threshold if closing[1].shape[0] == 0 else threshold * _REACH
    n, rest, other = _sort_signs(fires, silent, mass, least, odds, bits, modal)
    vectors[4][0] += mass * other
    _draw_signs(mass * rest, modal, odds, bits, n, threshold, stack, vectors, closing, charges)


@njit(nogil=True)
def spread(keys, masses, begin, end, step, threshold, workspace, vectors, closing, charges):  # type: ignore[no-untyped-def]
    """`draw_signs` for the states `begin` to `end`: packed signs before the block, and their probabilities."""
    weights, groups, sizes, limits, plus, minus = step
    (tags, values), signs, scratch = workspace
    counts = np.zeros(4, dtype=np.int64)
    for s in range(begin, end):
        for j in range(limits.shape[0]):
            one = two = np.int64(0)
            for w in range(keys.shape[1]):
                apart = keys[s, w] ^ weights[j, w]
                one += np.int64(popcount(apart & groups[0, j, w]))
                if sizes[j, 1] > 0:
                    two += np.int64(popcount(apart & groups[1, j, w]))
            alike, also = sizes[j, 0] - one, sizes[j, 1] - two
            tag, second, slot = cache_slot(limits[j], alike, one, also, two, tags.shape[0])
            if tags[slot, 0] != tag or tags[slot, 1] != second:
                counts[0], counts[1], counts[2], counts[3] = alike, one, also, two
                fires_given(limits[j], counts, plus, minus, values[slot])
                tags[slot, 0], tags[slot, 1] = tag, second
            signs[0, j], signs[1, j] = values[slot, 0], values[slot, 1]
        draw_signs(signs[0], signs[1], masses[s], threshold, scratch, vectors, closing, charges)


@njit(nogil=True)
def leaves(keys, masses, begin, end, closing, own, beats, loses, strides, groups, slack, charges):  # type: ignore[no-untyped-def]
    """Add P(c is beaten | all hidden signs) times their probability, for the states `begin` to `end`, to `charges`.

    Where Bonferroni's bounds differ by at most `slack` for a state, they are taken; else the union is exact: given the
    signs the scores are independent.

    Args:
        keys: Packed signs of the last hidden block.
        masses: Their probabilities.
        begin: First state.
        end: Last state, exclusive.
        closing: `Closing.loops`.
        own: `OutputTables.own`.
        beats: `OutputTables.beats`.
        loses: `OutputTables.loses`.
        strides: Of c and its rivals.
        groups: Cells stored +1 and -1 of c and its rivals, and their signs, packed: `(3, 1 + rivals, words)`.
        slack: Probability.
        charges: (lower, upper), added to.

    Returns:
        States evaluated exactly.
    """
    pair = closing[1]
    rivals, n, done = beats.shape[0], own.shape[1], 0
    alive, total = np.zeros(n), np.zeros(n)
    first, second = np.zeros(rivals + 1, dtype=np.int64), np.zeros(rivals + 1, dtype=np.int64)
    for s in range(begin, end):
        for k in range(rivals + 1):
            first[k] = second[k] = 0
            for w in range(keys.shape[1]):
                apart = keys[s, w] ^ groups[2, k, w]
                first[k] += np.int64(popcount(apart & groups[0, k, w]))
                second[k] += np.int64(popcount(apart & groups[1, k, w]))
        if pair.shape[0] > 0:
            most, added = 0.0, 0.0
            for r in range(rivals):
                value = pair[r, (pair.shape[1] - 1) // 2 + first[r + 1] + second[r + 1] - first[0] - second[0]]
                most = max(most, value)
                added += value
            if masses[s] * (added - most) <= slack:
                charges[0] += masses[s] * most
                charges[1] += masses[s] * min(added, 1.0)
                continue
        alive[:] = own[first[0] * strides[0] + second[0]]
        total[:] = 0.0
        for r in range(rivals):
            i = first[r + 1] * strides[r + 1] + second[r + 1]
            win, lose = beats[r, i], loses[r, i]
            for v in range(n):
                total[v] += alive[v] * win[v]
                alive[v] *= lose[v]
        error = 0.0
        for v in range(n):
            error += total[v]
        charges[0] += masses[s] * error
        charges[1] += masses[s] * error
        done += 1
    return done


def leaf_groups(output: OutputBlock, tables: OutputTables) -> Words:
    """`groups` of `leaves`: which cells each of the two counters of a class counts, and the signs."""
    signs = output.weights[[tables.label, *tables.rivals]]
    one, two = as_groups(tables.components == 1, signs != 0, signs)
    packed: NDArray[np.uint64] = np.stack([pack_signs(g.astype(np.int8)) for g in (one, two, signs)])
    return packed
