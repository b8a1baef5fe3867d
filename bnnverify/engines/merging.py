"""Layers of merged states: margins after some inputs were set, saturated, each with the number of ways to reach it.

A state is a row of bytes: the margins of the first block, zeros, and last the flips made so far. Margins are clamped
to what the inputs still to come can tell apart, so states with equal futures are equal, and equal states merge. One
layer is made from the one before in two passes: `spread` writes both successors of every state into partitions by hash,
`merge` adds up equal rows within each partition, in cache.

Multiplicities are several words each: one word modulo 2^64 where no number can reach that, otherwise residues modulo
primes below 2^31.

References:
    Ours; the set of merged states is a reduced ordered multi-terminal decision diagram, layer by layer.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit
from bnnverify.engines.bitslice import leaf, settled_place
from bnnverify.vectors import address, hadd, hload, hmax, hmin, hstore, load

_MIX = np.uint64(0x9E3779B97F4A7C15)
_THIRTY_TWO = np.uint64(32)


@njit(inline="always")
def _hash(words, first, count):  # type: ignore[no-untyped-def]
    """Hash of `count` words from index `first` of an address on."""
    h = np.uint64(0x2545F4914F6CDD1D)
    for w in range(count):
        h = (h ^ np.uint64(load(words, first + w))) * _MIX
        h ^= h >> _THIRTY_TWO
    return h * _MIX


@njit(inline="always")
def _successor(rows, source, target_rows, target, delta, lows, highs, width, flipped, flips):  # type: ignore[no-untyped-def]
    """One clamped successor; `flips` is its number of flips. All arrays are addresses."""
    for at in range(0, width, 16):
        v = hload(rows, source + at)
        if flipped:
            v = hadd(v, hload(delta, at))
        bound = flips * width + at
        hstore(target_rows, target + at, hmax(hmin(v, hload(highs, bound)), hload(lows, bound)))


@njit(nogil=True)
def spread(
    rows,
    factors,
    starts,
    counts,
    delta,
    lows,
    highs,
    most_flips,
    width,
    shift,
    weights,
    moduli,
    out_rows,
    out_words,
    out_factors,
    cursors,
    only_count,
):  # type: ignore[no-untyped-def]
    """Both successors of all states of some partitions, into partitions by the highest bits of their hashes.

    Args:
        rows: Bytes of the states, flat.
        factors: Multiplicities, `(states, words)`.
        starts: First state of each partition.
        counts: States of each.
        delta: What a flip adds, `(width,)`, 1 in the last byte where flips count.
        lows: Clamps by number of flips, flat `(flips + 1, width)`.
        highs: Likewise.
        most_flips: States with this many are not flipped.
        width: Bytes of a state.
        shift: The partition is the hash shifted right by this; 64 means a single partition.
        weights: For each word: weight of an input kept, weight of an input flipped; empty if all are 1.
        moduli: For each word: modulus, or 0 for 2^64.
        out_rows: Bytes of the next layer.
        out_words: The same bytes as words.
        out_factors: Their multiplicities.
        cursors: Next free place of each partition; when only counting, a histogram.
        only_count: First pass.
    """
    words = width // 8
    scratch = np.zeros(width, dtype=np.int8)
    scratch_words = scratch.view(np.uint64)
    weighted = weights.shape[0] > 0
    rows_at, scratch_at = address(rows), address(scratch)
    delta_at, lows_at, highs_at = address(delta), address(lows), address(highs)
    for p in range(starts.shape[0]):
        for i in range(starts[p], starts[p] + counts[p]):
            flips = np.int64(rows[i * width + width - 1])
            for flipped in range(2):
                if flipped and flips >= most_flips:
                    break
                now = flips + (np.int64(delta[width - 1]) if flipped else 0)
                _successor(rows_at, i * width, scratch_at, 0, delta_at, lows_at, highs_at, width, flipped == 1, now)
                h = _hash(scratch_at, 0, words)
                part = np.int64(0) if shift >= 64 else np.int64(h >> np.uint64(shift))
                if only_count:
                    cursors[part] += 1
                    continue
                place = cursors[part]
                cursors[part] = place + 1
                for w in range(words):
                    out_words[place * words + w] = scratch_words[w]
                for k in range(factors.shape[1]):
                    value = factors[i, k]
                    if weighted:
                        value = value * weights[k, flipped]
                        if moduli[k]:
                            value = value % moduli[k]
                    out_factors[place, k] = value


@njit(inline="always")
def _merge(words, factors, start, count, width, moduli, table):  # type: ignore[no-untyped-def]
    """Add up equal states of one partition in place; returns how many remain, at its beginning.

    `table` is a power of two of int32, at least twice `count`.
    """
    size = width // 8
    mask = np.uint64(table.shape[0] - 1)
    table[:] = -1
    kept = 0
    words_at = address(words)
    for i in range(start, start + count):
        slot = _hash(words_at, i * size, size) & mask
        while True:
            other = table[slot]
            if other < 0:
                place = start + kept
                table[slot] = kept
                kept += 1
                if place != i:
                    for w in range(size):
                        words[place * size + w] = words[i * size + w]
                    for k in range(factors.shape[1]):
                        factors[place, k] = factors[i, k]
                break
            place = start + other
            same = True
            for w in range(size):
                if words[place * size + w] != words[i * size + w]:
                    same = False
                    break
            if same:
                for k in range(factors.shape[1]):
                    value = factors[place, k] + factors[i, k]
                    if moduli[k] and value >= moduli[k]:
                        value -= moduli[k]
                    factors[place, k] = value
                break
            slot = (slot + np.uint64(1)) & mask
    return kept


@njit(inline="always")
def _unpack(rows, first, neurons, margins):  # type: ignore[no-untyped-def]
    for j in range(neurons):
        margins[j] = rows[first + j]


@njit(nogil=True)
def close(
    rows, words, factors, starts, counts, first, last, width, neurons, bounds, moduli, net, scratch, margins, closed
):  # type: ignore[no-untyped-def]
    """Take out the states whose class bounds settle; the others stay at the beginning of their partitions.

    Args:
        rows: Bytes of the states, flat.
        words: The same as words.
        factors: Multiplicities.
        starts: First state of each partition.
        counts: States of each; follow.
        first: First partition to look at.
        last: End of these.
        width: Bytes of a state.
        neurons: Margins of a state.
        bounds: Two arrays, by number of flips: where neurons surely fire, where they may.
        moduli: As in `spread`.
        net: Later blocks.
        scratch: Work space.
        margins: One padded row of margins.
        closed: Multiplicities by flips and place, `(flips + 1, places, words)`, grows.
    """
    size = width // 8
    for partition in range(first, last):
        start, kept = starts[partition], 0
        for i in range(start, start + counts[partition]):
            _unpack(rows, i * width, neurons, margins)
            flips = np.int64(rows[i * width + width - 1])
            row = flips * margins.shape[0]
            place = settled_place(margins, 0, bounds, row, row, net, scratch)
            if place >= 0:
                for k in range(factors.shape[1]):
                    value = closed[flips, place, k] + factors[i, k]
                    closed[flips, place, k] = value % moduli[k] if moduli[k] else value
                continue
            target = start + kept
            kept += 1
            if target != i:
                for w in range(size):
                    words[target * size + w] = words[i * size + w]
                for k in range(factors.shape[1]):
                    factors[target, k] = factors[i, k]
        counts[partition] = kept


@njit(nogil=True)
def finish(
    rows,
    factors,
    starts,
    counts,
    first,
    last,
    width,
    neurons,
    most_flips,
    by_flips,
    tail,
    moduli,
    net,
    scratch,
    margins,
    tallies,
    found,
):  # type: ignore[no-untyped-def]
    """Evaluate the tails of all states of some partitions: into ``found[flips, place, word]``.

    Args:
        rows: Bytes of the states, flat.
        factors: Multiplicities.
        starts: First state of each partition.
        counts: States of each.
        first: First partition to look at.
        last: End of these.
        width: Bytes of a state.
        neurons: Margins of a state.
        most_flips: Flips of the region.
        by_flips: Whether flips count; then the tail has a segment for each number of flips.
        tail: A tail of settings of all inputs that are not set yet.
        moduli: As in `spread`.
        net: Later blocks.
        scratch: Work space.
        margins: One padded row of margins.
        tallies: Work space, eight words for each segment and place.
        found: Grows.
    """
    places = found.shape[1]
    segments = tail[8].shape[0]
    for partition in range(first, last):
        for i in range(starts[partition], starts[partition] + counts[partition]):
            _unpack(rows, i * width, neurons, margins)
            flips = np.int64(rows[i * width + width - 1])
            used = min(segments, most_flips - flips + 1) if by_flips else 1
            for v in range(8 * places * used):
                tallies[v] = 0
            leaf(margins, 0, tail, 0, used, True, net, scratch, tallies, 0)
            for g in range(used):
                for p in range(places):
                    at = 8 * (g * places + p)
                    total = np.uint64(0)
                    for v in range(8):
                        total += tallies[at + v]
                    if total:
                        for k in range(factors.shape[1]):
                            value = factors[i, k] * (total % moduli[k] if moduli[k] else total)
                            value = found[flips + g, p, k] + (value % moduli[k] if moduli[k] else value)
                            found[flips + g, p, k] = value % moduli[k] if moduli[k] else value


@njit
def growth(words, starts, counts, width, delta, lows, highs, most_flips, samples):  # type: ignore[no-untyped-def]
    """Of a sample of states, how many successors are not states themselves, for each candidate of `delta`.

    Args:
        words: States, flat.
        starts: First state of each partition.
        counts: States of each.
        width: Bytes of a state.
        delta: What each candidate adds, `(candidates, width)`.
        lows: Clamps, as in `spread`.
        highs: Likewise.
        most_flips: As in `spread`.
        samples: States to look at, at most.
    """
    size = width // 8
    rows = words.view(np.int8)
    words_at, lows_at, highs_at = address(words), address(lows), address(highs)
    total = counts.sum()
    capacity = 16
    while capacity < 2 * total:
        capacity *= 2
    mask = np.uint64(capacity - 1)
    table = np.full(capacity, -1, dtype=np.int64)
    listed = np.empty(total, dtype=np.int64)
    n = 0
    for p in range(starts.shape[0]):
        for i in range(starts[p], starts[p] + counts[p]):
            listed[n] = i
            n += 1
            slot = _hash(words_at, i * size, size) & mask
            while table[slot] >= 0:
                slot = (slot + np.uint64(1)) & mask
            table[slot] = i
    fresh = np.zeros(delta.shape[0], dtype=np.int64)
    scratch = np.zeros(width, dtype=np.int8)
    scratch_words = scratch.view(np.uint64)
    scratch_at = address(scratch)
    step = max(1, total // samples)
    for c in range(delta.shape[0]):
        change = delta[c]
        change_at = address(change)
        for at in range(0, total, step):
            i = listed[at]
            flips = np.int64(rows[i * width + width - 1])
            if flips >= most_flips:
                continue
            now = flips + np.int64(change[width - 1])
            _successor(words_at, i * width, scratch_at, 0, change_at, lows_at, highs_at, width, True, now)
            slot = _hash(scratch_at, 0, size) & mask
            new = 1
            while table[slot] >= 0:
                same = True
                for w in range(size):
                    if words[table[slot] * size + w] != scratch_words[w]:
                        same = False
                        break
                if same:
                    new = 0
                    break
                slot = (slot + np.uint64(1)) & mask
            fresh[c] += new
    return fresh


@njit(nogil=True)
def merge(words, factors, starts, counts, first, last, width, moduli):  # type: ignore[no-untyped-def]
    """Add up equal states of the partitions from `first` up to `last`; `counts` follows."""
    most = 1
    for p in range(first, last):
        most = max(most, counts[p])
    capacity = 4
    while capacity < 2 * most:
        capacity *= 2
    table = np.empty(capacity, dtype=np.int32)
    for p in range(first, last):
        if counts[p] > 1:
            size = 4
            while size < 2 * counts[p]:
                size *= 2
            counts[p] = _merge(words, factors, starts[p], counts[p], width, moduli, table[:size])
