"""Walks over the inputs of a region, from a head of flips down to its tails; whole subtrees are settled by bounds."""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit
from bnnverify.engines.bitslice import leaf, settled_place
from bnnverify.vectors import address, badd, bload, bstore


@njit(inline="always")
def move(margins, source, target, deltas, input_row, words):  # type: ignore[no-untyped-def]
    """Margins after one more flip; both are addresses."""
    for w in range(words):
        at = 64 * w
        bstore(margins, target + at, badd(bload(margins, source + at), bload(deltas, input_row + at)))


@njit(nogil=True)
def walk_shell(
    margins, deltas, head, low, high, flips, tail, tail_flips, binomials, uppers, prune, net, scratch, tallies
):  # type: ignore[no-untyped-def]
    """Count all inputs with exactly `flips` flips that begin with `head` and go on with an input in [low, high).

    Args:
        margins: Stack of margins, `(flips + 1, 64 * words)` flat; row ``len(head)`` holds those after the head.
        deltas: Flat `(free, 64 * words)`.
        head: Flips made, ascending.
        low: First choice of the next flip; all of them where only the tail is left.
        high: Its end.
        flips: Flips in all.
        tail: A tail of `tail_flips` subsets.
        tail_flips: Flips of the tail.
        binomials: Table of C(i, j).
        uppers: Row q has q everywhere: bounds with q flips left; `(flips + 1, 64 * words)` flat, and its negative.
        prune: Whether bounds may settle anything.
        net: Later blocks.
        scratch: Work space.
        tallies: Eight partial counts per place.

    Returns:
        Tails evaluated, subtrees closed.
    """
    words = net[0][0, 0]
    size = 64 * words
    margins_at, deltas_at = address(margins), address(deltas)
    free = deltas.shape[0] // size
    leaves, closed = 0, 0
    depth = bottom = head.shape[0]
    is_tail = flips - depth == tail_flips  # nothing is walked
    choice = np.empty(flips + 1, dtype=np.int64)
    choice[depth] = low - 1
    while depth >= bottom:
        row, rest = depth * size, free if depth == 0 else free - 1 - head[depth - 1]
        if not is_tail:
            choice[depth] += 1
            i = choice[depth]
            end = free - (flips - depth) + 1
            if depth == bottom:
                end = min(end, high)
            if i >= end:
                depth -= 1
                continue
            row += size
            move(margins_at, depth * size, row, deltas_at, i * size, words)
            left, rest = flips - depth - 1, free - 1 - i
            if left > tail_flips:
                if prune:
                    place = settled_place(margins, row, uppers, left * size, left * size, net, scratch)
                    if place >= 0:
                        tallies[8 * place] += np.uint64(binomials[rest, left])
                        closed += 1
                        continue
                depth += 1
                choice[depth] = i
                continue
        leaf(margins, row, tail, binomials[rest, tail_flips], 0, prune, net, scratch, tallies, 0)
        leaves += 1
        if is_tail:
            break
    return leaves, closed


@njit(nogil=True)
def walk_settings(margins, deltas, first, last, tail, tail_bits, bounds, prune, net, scratch, tallies):  # type: ignore[no-untyped-def]
    """Count all settings of free inputs `first` and later; the margins with those before set are in row `first`.

    Args:
        margins: Stack of margins, `(last + 1, 64 * words)` flat.
        deltas: Flat `(free, 64 * words)`.
        first: First input to set.
        last: Inputs from here on belong to the tail.
        tail: A tail of settings.
        tail_bits: Its inputs, 2^s.
        bounds: Row i are bounds on the margins while inputs i and later are open; two arrays, flat.
        prune: Whether bounds may settle anything.
        net: Later blocks.
        scratch: Work space.
        tallies: Eight partial counts per place.

    Returns:
        Tails evaluated, subtrees closed.
    """
    words = net[0][0, 0]
    size = 64 * words
    margins_at, deltas_at = address(margins), address(deltas)
    leaves, closed = 0, 0
    value = np.zeros(last + 1, dtype=np.int64)  # settings of this input that were visited
    depth = first
    value[depth] = -1
    entered = True
    while depth >= first:
        if entered:  # a node whose margins are in row `depth`
            entered = False
            if depth == last:
                leaf(margins, depth * size, tail, tail_bits, 0, prune, net, scratch, tallies, 0)
                leaves += 1
                depth -= 1
                continue
            if prune:
                place = settled_place(margins, depth * size, bounds, depth * size, depth * size, net, scratch)
                if place >= 0:
                    tallies[8 * place] += np.uint64(tail_bits) << np.uint64(last - depth)
                    closed += 1
                    depth -= 1
                    continue
            value[depth] = 0
        if value[depth] == 2:
            depth -= 1
            continue
        if value[depth] == 0:
            for w in range(words):
                bstore(margins_at, (depth + 1) * size + 64 * w, bload(margins_at, depth * size + 64 * w))
        else:
            move(margins_at, depth * size, (depth + 1) * size, deltas_at, depth * size, words)
        value[depth] += 1
        depth += 1
        entered = True
    return leaves, closed
