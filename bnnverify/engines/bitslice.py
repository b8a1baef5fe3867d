"""512 inputs at a time: the later blocks of a network on inputs whose first hidden signs are rows of bits.

A *tail* is a list of inputs that share everything but their last few free places. For a first-block neuron with margin
m before the tail, its sign over all inputs of the tail is a row of bits that depends on m only: a row of a table, all
ones, or all zeros. `leaf` settles what is constant over the tail (three-valued popcounts), finds which classes can
still win, and adds the remaining rows up in bit-sliced counters, comparing pairs of classes by the neurons in which
they differ.

References:
    Bit-sliced counting with carry-save adders: Warren, "Hacker's Delight", 2nd ed., Sec. 5-1. Tails: ours.
"""

from __future__ import annotations

import numpy as np

from bnnverify.compilation import njit
from bnnverify.vectors import (
    address,
    bgreater_equal,
    bless,
    bload,
    load,
    popcount,
    prefetch,
    trailing_zeros,
    vadd,
    vand,
    vany,
    vload,
    vor,
    vpopcount,
    vsplat,
    vstore,
    vxor,
)

TILES = 8  # vectors of a row that are worked on together
_TILES = TILES
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@njit(inline="always")
def _majority(a, b, c):  # type: ignore[no-untyped-def]
    return vor(vand(a, b), vand(c, vor(a, b)))


@njit(inline="always")
def _bit(number, place):  # type: ignore[no-untyped-def]
    return vsplat(_ZERO - np.uint64((number >> place) & 1))


@njit(inline="always")
def _row(source, rows, i, shift, flip):  # type: ignore[no-untyped-def]
    """512 bits of a row, inverted where `flip` is set."""
    return vxor(vload(source, load(rows, i) + shift), flip)


@njit(inline="always")
def _add_four(source, rows, i, shift, flip, c0, c1):  # type: ignore[no-untyped-def]
    """Add four rows to the two lowest digits of a counter; returns these and what carries to the next."""
    a, b = _row(source, rows, i, shift, flip), _row(source, rows, i + 1, shift, flip)
    c, d = _row(source, rows, i + 2, shift, flip), _row(source, rows, i + 3, shift, flip)
    k = _majority(a, b, c0)
    c0 = vxor(vxor(a, b), c0)
    m = _majority(c, d, c0)
    c0 = vxor(vxor(c, d), c0)
    carry = _majority(k, m, c1)
    return c0, vxor(vxor(k, m), c1), carry


@njit(inline="always")
def _add_3(source, rows, i, end, shift, flip, c0, c1, c2, over):  # type: ignore[no-untyped-def]
    """Add rows to a counter of three digits; `over` collects what leaves it."""
    while i + 4 <= end:
        c0, c1, carry = _add_four(source, rows, i, shift, flip, c0, c1)
        over = vor(over, vand(carry, c2))
        c2 = vxor(c2, carry)
        i += 4
    while i < end:
        a = _row(source, rows, i, shift, flip)
        carry = vand(a, c0)
        c0 = vxor(a, c0)
        k = vand(carry, c1)
        c1 = vxor(c1, carry)
        over = vor(over, vand(k, c2))
        c2 = vxor(c2, k)
        i += 1
    return c0, c1, c2, over


@njit(inline="always")
def _add_6(source, rows, i, end, shift, flip, c0, c1, c2, c3, c4, c5, over):  # type: ignore[no-untyped-def]
    """Add rows to a counter of six digits; `over` collects what leaves it."""
    while i + 4 <= end:
        c0, c1, carry = _add_four(source, rows, i, shift, flip, c0, c1)
        k = vand(carry, c2)
        c2 = vxor(c2, carry)
        carry = vand(k, c3)
        c3 = vxor(c3, k)
        k = vand(carry, c4)
        c4 = vxor(c4, carry)
        over = vor(over, vand(k, c5))
        c5 = vxor(c5, k)
        i += 4
    while i < end:
        a = _row(source, rows, i, shift, flip)
        carry = vand(a, c0)
        c0 = vxor(a, c0)
        k = vand(carry, c1)
        c1 = vxor(c1, carry)
        carry = vand(k, c2)
        c2 = vxor(c2, k)
        k = vand(carry, c3)
        c3 = vxor(c3, carry)
        carry = vand(k, c4)
        c4 = vxor(c4, k)
        over = vor(over, vand(carry, c5))
        c5 = vxor(c5, carry)
        i += 1
    return c0, c1, c2, c3, c4, c5, over


@njit(inline="always")
def _add_any(source, rows, i, end, shift, flip, digits, at, width, over):  # type: ignore[no-untyped-def]
    """Add rows to a counter of `width` digits in memory."""
    while i < end:
        carry = _row(source, rows, i, shift, flip)
        for place in range(width):
            digit = vload(digits, at + 8 * place)
            vstore(digits, at + 8 * place, vxor(digit, carry))
            carry = vand(digit, carry)
            if not vany(carry):
                break
        over = vor(over, carry)
        i += 1
    return over


@njit
def at_least(source, rows, start, plus, minus, need, shift, tiles, out, at, digits):  # type: ignore[no-untyped-def]
    """Where at least `need` of these rows are set, for `tiles` times 512 bits, into ``out[at:]``.

    Args:
        source: Address of the words of the rows.
        rows: Address of where each begins, from entry `start` on: first `plus` that count where set, then `minus`
            that count where not set.
        start: First entry of `rows`.
        plus: Rows that count where set.
        minus: Rows that count where not set.
        need: 1 to ``plus + minus``.
        shift: Added to the beginning of every row.
        tiles: Vectors of each row.
        out: Address of the result.
        at: Its place.
        digits: Address of work space, 24 vectors.
    """
    none, ones = vsplat(_ZERO), vsplat(_ONES)
    n, middle, end = plus + minus, start + plus, start + plus + minus
    if need <= 8 and n - need < 8:
        initial = 8 - need
        z0, z1, z2 = _bit(initial, 0), _bit(initial, 1), _bit(initial, 2)
        for t in range(tiles):
            c0, c1, c2, over = _add_3(source, rows, start, middle, shift + 8 * t, none, z0, z1, z2, none)
            c0, c1, c2, over = _add_3(source, rows, middle, end, shift + 8 * t, ones, c0, c1, c2, over)
            vstore(out, at + 8 * t, over)
        return
    if need <= 64 and n - need < 64:
        initial = 64 - need
        for t in range(tiles):
            c0, c1, c2 = _bit(initial, 0), _bit(initial, 1), _bit(initial, 2)
            c3, c4, c5 = _bit(initial, 3), _bit(initial, 4), _bit(initial, 5)
            c0, c1, c2, c3, c4, c5, over = _add_6(
                source, rows, start, middle, shift + 8 * t, none, c0, c1, c2, c3, c4, c5, none
            )
            c0, c1, c2, c3, c4, c5, over = _add_6(
                source, rows, middle, end, shift + 8 * t, ones, c0, c1, c2, c3, c4, c5, over
            )
            vstore(out, at + 8 * t, over)
        return
    width = 7
    while (1 << width) < max(need, n - need + 1):
        width += 1
    initial = (1 << width) - need
    for t in range(tiles):
        for place in range(width):
            vstore(digits, 8 * place, _bit(initial, place))
        over = _add_any(source, rows, start, middle, shift + 8 * t, none, digits, 0, width, none)
        over = _add_any(source, rows, middle, end, shift + 8 * t, ones, digits, 0, width, over)
        vstore(out, at + 8 * t, over)


@njit
def count_rows(source, rows, start, plus, minus, initial, width, shift, tiles, out, at):  # type: ignore[no-untyped-def]
    """As `at_least`, but the sum of `initial` and the rows, as `width` digits per tile from the lowest on.

    ``out[at + 8 * (t * (width + 1) + 1 + place)]`` is the digit at `place` of tile t; the first vector of each tile is
    left alone.
    """
    none, ones = vsplat(_ZERO), vsplat(_ONES)
    middle, end = start + plus, start + plus + minus
    if width <= 3:
        z0, z1, z2 = _bit(initial, 0), _bit(initial, 1), _bit(initial, 2)
        for t in range(tiles):
            c0, c1, c2, over = _add_3(source, rows, start, middle, shift + 8 * t, none, z0, z1, z2, none)
            c0, c1, c2, over = _add_3(source, rows, middle, end, shift + 8 * t, ones, c0, c1, c2, over)
            first = at + 8 * (t * (width + 1) + 1)
            vstore(out, first, c0)
            if width > 1:
                vstore(out, first + 8, c1)
            if width > 2:
                vstore(out, first + 16, c2)
        return
    if width <= 6:
        for t in range(tiles):
            c0, c1, c2 = _bit(initial, 0), _bit(initial, 1), _bit(initial, 2)
            c3, c4, c5 = _bit(initial, 3), _bit(initial, 4), _bit(initial, 5)
            c0, c1, c2, c3, c4, c5, over = _add_6(
                source, rows, start, middle, shift + 8 * t, none, c0, c1, c2, c3, c4, c5, none
            )
            c0, c1, c2, c3, c4, c5, over = _add_6(
                source, rows, middle, end, shift + 8 * t, ones, c0, c1, c2, c3, c4, c5, over
            )
            first = at + 8 * (t * (width + 1) + 1)
            vstore(out, first, c0)
            vstore(out, first + 8, c1)
            vstore(out, first + 16, c2)
            vstore(out, first + 24, c3)
            if width > 4:
                vstore(out, first + 32, c4)
            if width > 5:
                vstore(out, first + 40, c5)
        return
    for t in range(tiles):
        first = at + 8 * (t * (width + 1) + 1)
        for place in range(width):
            vstore(out, first + 8 * place, _bit(initial, place))
        _add_any(source, rows, start, middle, shift + 8 * t, none, out, first, width, none)
        _add_any(source, rows, middle, end, shift + 8 * t, ones, out, first, width, none)


@njit(inline="always")
def margin_masks(margins, row, upper, upper_row, lower, lower_row, width, known, active):  # type: ignore[no-untyped-def]
    """Which neurons surely fire (margin >= upper) into `known`, which are open (lower <= margin < upper)."""
    for w in range(width):
        m = bload(address(margins), row + 64 * w)
        sure = bgreater_equal(m, bload(address(upper), upper_row + 64 * w))
        known[w] = sure
        active[w] = ~(sure | bless(m, bload(address(lower), lower_row + 64 * w)))


@njit(inline="always")
def _settle_block(weights, present, first, needs, at, neurons, width, known, active, known_out, active_out, needed):  # type: ignore[no-untyped-def]
    """Three-valued signs of one hidden block from three-valued inputs; `needed` for the open ones."""
    for w in range((neurons + 63) // 64):
        known_out[w] = _ZERO
        active_out[w] = _ZERO
    for j in range(neurons):
        agreeing, free = 0, 0
        for w in range(width):
            here = present[first + j * width + w]
            agreeing += np.int64(popcount(~(known[w] ^ weights[first + j * width + w]) & here & ~active[w]))
            free += np.int64(popcount(active[w] & here))
        need = needs[at + j] - agreeing
        if need <= 0:
            known_out[j >> 6] |= _ONE << np.uint64(j & 63)
        elif need <= free:
            active_out[j >> 6] |= _ONE << np.uint64(j & 63)
            needed[j] = need


@njit(inline="always")
def _standings(out_weights, out_present, offsets, classes, width, known, active, base):  # type: ignore[no-untyped-def]
    """Scores from what is settled, into `base`; returns the place that leads (ties to the lowest place)."""
    leader = 0
    for p in range(classes):
        score = offsets[p]
        for w in range(width):
            here = out_present[p * width + w]
            score += np.int64(popcount(~(known[w] ^ out_weights[p * width + w]) & here & ~active[w]))
        base[p] = score
        if score > base[leader]:
            leader = p
    return leader


@njit(inline="always")
def _reach(out_weights, out_present, p, q, width, active):  # type: ignore[no-untyped-def]
    """How far the open neurons can move the score of place p against that of place q."""
    far = 0
    for w in range(width):
        equal = out_present[q * width + w] & ~(out_weights[p * width + w] ^ out_weights[q * width + w])
        only_q = out_present[q * width + w] & ~out_present[p * width + w]
        far += np.int64(popcount(active[w] & ((out_present[p * width + w] & ~equal) | only_q)))
    return far


@njit
def settled_place(margins, row, bounds, upper_row, lower_row, net, scratch):  # type: ignore[no-untyped-def]
    """The place of the class that all inputs below a node of the walk get, or -1 if bounds do not tell."""
    upper, lower = bounds
    shape, weights, present, needs, out_weights, out_present, offsets = net
    known, active, base, needed = scratch[0], scratch[1], scratch[2], scratch[3]
    classes = offsets.shape[0]
    width = shape[0, 0]
    margin_masks(margins, row, upper, upper_row, lower, lower_row, width, known[0], active[0])
    for block in range(1, shape.shape[0]):
        _settle_block(
            weights, present, shape[block, 2], needs, shape[block, 3], shape[block, 1], width,
            known[block - 1], active[block - 1], known[block], active[block], needed[block],
        )  # fmt: skip
        width = (shape[block, 1] + 63) // 64
    last = shape.shape[0] - 1
    leader = _standings(out_weights, out_present, offsets, classes, width, known[last], active[last], base)
    for p in range(classes):
        if p != leader:
            gap = base[leader] - base[p] - _reach(out_weights, out_present, p, leader, width, active[last])
            if gap < 0 or (gap == 0 and p < leader):
                return -1
    return leader


@njit(inline="always")
def _list_rows(weights, wanted_first, active, present, width, offsets, twice, rows, at):  # type: ignore[no-untyped-def]
    """Offsets of the open rows into `rows` from `at` on: those that count as they are, then those inverted.

    `wanted_first` is where the signs begin that a row should agree with; `present` is a list of words, and rows that
    lie in `twice` as well are listed twice. Returns how many count as they are, and how many are inverted.
    """
    n = at
    for inverted in range(2):
        middle = n
        for w in range(width):
            signs = weights[wanted_first + w]
            bits = active[w] & present[w] & (signs if inverted == 0 else ~signs)
            while bits:
                j = trailing_zeros(bits)
                rows[n] = offsets[64 * w + j]
                n += 1
                if twice[w] >> np.uint64(j) & _ONE:
                    rows[n] = offsets[64 * w + j]
                    n += 1
                bits &= bits - _ONE
        if inverted == 0:
            plus = n - at
    return plus, n - middle


@njit(inline="always")
def _duel(p, q, net, width, active, offsets, slot, flat, duels, present, twice):  # type: ignore[no-untyped-def]
    """List the rows by which place p gains on place q: into ``duels[slot] = (start, plus, minus, constant, factor)``.

    The open neurons move the difference of their scores by ``factor * (rows that count) - constant``.
    """
    shape, _, _, _, out_weights, out_present, _ = net
    for w in range(width):
        differ = out_weights[p * width + w] ^ out_weights[q * width + w]
        present[w] = out_present[p * width + w] & out_present[q * width + w] & differ
        twice[w] = _ZERO
    start = duels[slot, 0]
    if shape[0, 4] == 0:  # all classes see the same neurons
        plus, minus = _list_rows(out_weights, p * width, active, present, width, offsets, twice, flat, start)
        duels[slot, 1], duels[slot, 2], duels[slot, 3], duels[slot, 4] = plus, minus, plus + minus, 2
        return
    # a row that only one of them sees moves the difference by one, one that both see differently by two
    end, plus, constant, middle = start, 0, 0, start
    for w in range(width):
        twice[w] = present[w]
        present[w] |= out_present[p * width + w] & ~out_present[q * width + w]
    for inverted in range(2):
        middle = end
        for w in range(width):
            only_q = out_present[q * width + w] & ~out_present[p * width + w] & active[w]
            mine = active[w] & present[w]
            signs_p, signs_q = out_weights[p * width + w], out_weights[q * width + w]
            bits = (mine & signs_p) | (only_q & ~signs_q)
            if inverted == 1:
                bits = (mine & ~signs_p) | (only_q & signs_q)
            constant += np.int64(popcount(bits & (twice[w] | only_q)))
            while bits:
                j = trailing_zeros(bits)
                flat[end] = offsets[64 * w + j]
                end += 1
                if twice[w] >> np.uint64(j) & _ONE:
                    flat[end] = offsets[64 * w + j]
                    end += 1
                bits &= bits - _ONE
        if inverted == 0:
            plus = end - start
    duels[slot, 1], duels[slot, 2], duels[slot, 3], duels[slot, 4] = plus, end - middle, constant, 1


@njit(inline="always")
def _contender(c, rivals, leader, place_of):  # type: ignore[no-untyped-def]
    """Place of contender c: rivals and leader in ascending order of place."""
    if c < rivals and load(place_of, c) < leader:
        return load(place_of, c)
    if c > 0 and load(place_of, c - 1) > leader:
        return load(place_of, c - 1)
    return leader


@njit(inline="always")
def _score_at(c, t, stride, rivals, leader, place_of):  # type: ignore[no-untyped-def]
    """Where the score of contender c begins in tile t; the leader's is the same in all tiles, behind the others."""
    place = _contender(c, rivals, leader, place_of)
    if place == leader:
        return rivals * _TILES * stride
    if place < leader:
        return c * _TILES * stride + t * stride
    return (c - 1) * _TILES * stride + t * stride


@njit(inline="always")
def _digit(counts, first, place, vectors):  # type: ignore[no-untyped-def]
    """A digit of a score, zeros above the highest."""
    if place < vectors:
        return vload(counts, first + 8 * place)
    return vsplat(_ZERO)


@njit(inline="always")
def _greater(ours, theirs, below):  # type: ignore[no-untyped-def]
    """Where a number is greater, from one digit of both and where it is greater by the digits below."""
    differ = vxor(ours, theirs)
    return vor(vand(ours, differ), vand(below, vxor(differ, vsplat(_ONES))))


@njit(inline="always")
def _either(where, ours, theirs):  # type: ignore[no-untyped-def]
    return vxor(theirs, vand(where, vxor(ours, theirs)))


@njit
def _winners(counts, t, stride, vectors, rivals, leader, place_of, wins, best):  # type: ignore[no-untyped-def]
    """Where each contender beats all before it, into `wins`, from the scores of tile t."""
    if vectors <= 6:
        b0, b1, b2 = vsplat(_ZERO), vsplat(_ZERO), vsplat(_ZERO)
        b3, b4, b5 = vsplat(_ZERO), vsplat(_ZERO), vsplat(_ZERO)
        for c in range(rivals + 1):
            first = _score_at(c, t, stride, rivals, leader, place_of)
            o0, o1 = vload(counts, first), vload(counts, first + 8)
            o2, o3 = _digit(counts, first, 2, vectors), _digit(counts, first, 3, vectors)
            o4, o5 = _digit(counts, first, 4, vectors), _digit(counts, first, 5, vectors)
            greater = _greater(o2, b2, _greater(o1, b1, vand(o0, vxor(b0, vsplat(_ONES)))))
            greater = _greater(o5, b5, _greater(o4, b4, _greater(o3, b3, greater)))
            if c == 0:
                greater = vsplat(_ONES)
            b0, b1, b2 = _either(greater, o0, b0), _either(greater, o1, b1), _either(greater, o2, b2)
            b3, b4, b5 = _either(greater, o3, b3), _either(greater, o4, b4), _either(greater, o5, b5)
            vstore(wins, 8 * c, greater)
        return
    for c in range(rivals + 1):
        first = _score_at(c, t, stride, rivals, leader, place_of)
        if c == 0:
            for v in range(vectors):
                vstore(best, 8 * v, vload(counts, first + 8 * v))
            continue
        greater = vsplat(_ZERO)
        for v in range(vectors):
            greater = _greater(vload(counts, first + 8 * v), vload(best, 8 * v), greater)
        vstore(wins, 8 * c, greater)
        if c < rivals:
            for v in range(vectors):
                vstore(best, 8 * v, _either(greater, vload(counts, first + 8 * v), vload(best, 8 * v)))


@njit(forceinline=True)
def leaf(margins, row, tail, bits, segments, prune, net, scratch, tallies, at):  # type: ignore[no-untyped-def]
    """Classes of the inputs of a tail, from the margins before it.

    With ``segments == 0`` these are the first `bits` inputs, and ``tallies[at + 8 * place:]`` are eight partial counts
    for each place. Otherwise they are the first `segments` segments of the tail, each with tallies of its own, one
    after the other. Every tally grows, in all by the number of inputs. Returns the place that takes all, or -1.
    """
    table, table_base, row_words, divisor, bounds, bound_row, ends, firsts, sizes = tail
    shape, weights, present, needs, out_weights, out_present, offsets = net
    (
        known,
        active,
        base,
        needed,
        row_of,
        wired,
        spans,
        signs,
        rows,
        duels,
        place_of,
        wins,
        digits,
        here,
        twice,
        counts,
    ) = scratch
    table_at, ends_at, tallies_at, wins_at = address(table), address(ends), address(tallies), address(wins)
    digits_at, signs_at, counts_at = address(digits), address(signs), address(counts)
    rows_at, wired_at, place_at = address(rows), address(wired), address(place_of)
    upper, lower = bounds
    classes = offsets.shape[0]
    width = shape[0, 0]
    margin_masks(margins, row, upper, bound_row, lower, bound_row, width, known[0], active[0])
    if not prune:
        for w in range(width):
            active[0][w] = _ZERO
        for j in range(shape[0, 1]):
            active[0][j >> 6] |= _ONE << np.uint64(j & 63)
            known[0][j >> 6] &= ~(_ONE << np.uint64(j & 63))
    for block in range(1, shape.shape[0]):
        _settle_block(
            weights, present, shape[block, 2], needs, shape[block, 3], shape[block, 1], width,
            known[block - 1], active[block - 1], known[block], active[block], needed[block],
        )  # fmt: skip
        width = (shape[block, 1] + 63) // 64
    last = shape.shape[0] - 1
    leader = _standings(out_weights, out_present, offsets, classes, width, known[last], active[last], base)
    rivals = 0
    for p in range(classes):
        if p != leader:
            gap = base[leader] - base[p] - _reach(out_weights, out_present, p, leader, width, active[last])
            if gap < 0 or (gap == 0 and p < leader) or not prune:
                place_of[rivals] = p
                rivals += 1
    if rivals == 0:
        if segments == 0:
            tallies[at + 8 * leader] += np.uint64(bits)
        for g in range(segments):
            tallies[at + 8 * (g * classes + leader)] += np.uint64(sizes[g])
        return leader
    # rows of the first block
    for w in range(shape[0, 0]):
        open_bits = active[0][w]
        while open_bits:
            j = 64 * w + trailing_zeros(open_bits)
            open_bits &= open_bits - _ONE
            level = np.int64(upper[bound_row + j]) - np.int64(margins[row + j])  # 1 to the span where really open
            if level <= 0:
                row_of[0, j] = table_base[shape[0, 1]] + row_words
            elif np.int64(margins[row + j]) < np.int64(lower[bound_row + j]):
                row_of[0, j] = table_base[shape[0, 1]]
            else:
                row_of[0, j] = table_base[j] + ((level + divisor - 1) // divisor - 1) * row_words
    source = table_at if last == 0 else signs_at  # of the rows that the classes add up
    flat_wired = wired.reshape(-1)
    end = 0
    in_width = shape[0, 0]
    for block in range(1, shape.shape[0]):  # rows that each open neuron of a later block adds up
        for w in range((shape[block, 1] + 63) // 64):
            open_bits = active[block][w]
            while open_bits:
                j = 64 * w + trailing_zeros(open_bits)
                open_bits &= open_bits - _ONE
                first = shape[block, 2] + j * in_width
                for v in range(in_width):
                    here[v] = present[first + v]
                    twice[v] = _ZERO
                plus, minus = _list_rows(
                    weights, first, active[block - 1], here, in_width, row_of[block - 1], twice, flat_wired, end
                )
                spans[block, j, 0], spans[block, j, 1], spans[block, j, 2] = end, plus, minus
                end += plus + minus
                row_of[block, j] = 8 * _TILES * (shape[block, 4] + j)
        in_width = (shape[block, 1] + 63) // 64
    # the leader's duel with every rival
    flat = rows.reshape(-1)
    least, most = 0, 0
    for r in range(rivals):
        duels[r, 0] = r * rows.shape[1]
        _duel(place_of[r], leader, net, width, active[last], row_of[last], r, flat, duels, here, twice)
        low = base[place_of[r]] - base[leader] - duels[r, 3]
        least = min(least, low)
        most = max(most, low + duels[r, 4] * (duels[r, 1] + duels[r, 2]))
    if rivals == 1:
        ties = 0 if place_of[0] < leader else 1
        need = ties - (base[place_of[0]] - base[leader]) + duels[0, 3]
        if duels[0, 4] == 2:
            need = (need + 1) >> 1
        always = need <= 0
        never = need > duels[0, 1] + duels[0, 2]
    factor = duels[0, 4]
    width_of_count = 1
    while (1 << width_of_count) <= (most - least) // factor:
        width_of_count += 1
    stride = 8 * (width_of_count + 1)
    if rivals > 1:  # the leader's own score, the same in all tiles; in order of place with the others
        own = rivals * _TILES * stride
        vstore(counts_at, own, _bit(-least, 0) if factor == 2 else vsplat(_ZERO))
        for place in range(width_of_count):
            vstore(counts_at, own + 8 + 8 * place, _bit(-least // factor, place))
    for g in range(max(segments, 1)):
        shift, remaining = 0, bits
        if segments:
            shift, remaining = firsts[g], sizes[g]
        while remaining > 0:
            tiles = min(_TILES, (remaining + 511) >> 9)
            if remaining > 512 * _TILES:  # the rows lie far apart: no hardware guesses what comes next
                for w in range(shape[0, 0]):
                    open_bits = active[0][w]
                    while open_bits:
                        ahead = row_of[0, 64 * w + trailing_zeros(open_bits)] + shift + 8 * _TILES
                        open_bits &= open_bits - _ONE
                        for t in range(_TILES):
                            prefetch(table_at, ahead + 8 * t)
            for block in range(1, shape.shape[0]):
                for w in range((shape[block, 1] + 63) // 64):
                    open_bits = active[block][w]
                    while open_bits:
                        j = 64 * w + trailing_zeros(open_bits)
                        open_bits &= open_bits - _ONE
                        start, plus, minus = spans[block, j, 0], spans[block, j, 1], spans[block, j, 2]
                        at_least(
                            table_at if block == 1 else signs_at, wired_at, start, plus, minus, needed[block][j],
                            shift if block == 1 else 0, tiles, signs_at, row_of[block, j], digits_at,
                        )  # fmt: skip
            here_on = shift if last == 0 else 0
            if rivals == 1:
                if always or never:
                    for t in range(tiles):
                        vstore(wins_at, 8 * t, vsplat(_ONES if always else _ZERO))
                else:
                    at_least(source, rows_at, 0, duels[0, 1], duels[0, 2], need, here_on, tiles, wins_at, 0, digits_at)
                rival, other = at + 8 * place_of[0], at + 8 * leader
                for t in range(tiles):
                    valid = vload(ends_at, 8 * min(max(remaining - 512 * t, 0), 512))
                    won = vand(vload(wins_at, 8 * t), valid)
                    vstore(tallies_at, rival, vadd(vload(tallies_at, rival), vpopcount(won)))
                    vstore(tallies_at, other, vadd(vload(tallies_at, other), vpopcount(vxor(won, valid))))
            else:
                for r in range(rivals):
                    low = base[place_of[r]] - base[leader] - duels[r, 3] - least
                    plane = r * _TILES * stride
                    for t in range(tiles):
                        vstore(counts_at, plane + t * stride, _bit(low, 0) if factor == 2 else vsplat(_ZERO))
                    count_rows(
                        source, rows_at, duels[r, 0], duels[r, 1], duels[r, 2], low // factor, width_of_count, here_on,
                        tiles, counts_at, plane,
                    )  # fmt: skip
                for t in range(tiles):
                    valid = vload(ends_at, 8 * min(max(remaining - 512 * t, 0), 512))
                    _winners(counts_at, t, stride, width_of_count + 1, rivals, leader, place_at, wins_at, digits_at)
                    for c in range(rivals, 0, -1):
                        won = vand(vload(wins_at, 8 * c), valid)
                        valid = vxor(valid, won)
                        place = at + 8 * _contender(c, rivals, leader, place_at)
                        vstore(tallies_at, place, vadd(vload(tallies_at, place), vpopcount(won)))
                    place = at + 8 * _contender(0, rivals, leader, place_at)
                    vstore(tallies_at, place, vadd(vload(tallies_at, place), vpopcount(valid)))
            shift += 8 * tiles
            remaining -= 512 * tiles
        at += 8 * classes
    return -1
