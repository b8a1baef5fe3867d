"""Bit-sliced evaluation: 512 images per register, one plane of bits for each input and each neuron (numba).

Bit i of a plane is the sign of one input or neuron for image i. The disagreements of a neuron over all images are then
sums of planes, kept as digits in two's complement: with the limit subtracted beforehand the sign digit says who fires.
A flipped cell adds or removes one plane, so of a first block only the neurons with flips are evaluated again.

Layout: images come in chunks of 512, eight words a plane; the planes of a chunk lie one after the other, so that all
chips of a batch pass over a chunk while it is in the cache. An *entry* is twice the number of a plane, plus 1 where it
is inverted.

References:
    Bit-sliced counting with carry-save adders: Warren, "Hacker's Delight", 2nd ed., Sec. 5-1. Flips as planes: ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.packing import Words
from bnnverify.vectors import address, load, vand, vany, vload, vor, vsplat, vstore, vxor

CHUNK = 512  # images of a chunk
LEAST_DIGITS = 4  # of a counter
_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


def planes_of(signs: NDArray[Any]) -> Words:
    """Signs `(N, n)` as planes, shape `(chunks, n, 8)`; images beyond the last one read -1."""
    count, n = signs.shape
    chunks = -(-count // CHUNK)
    bits = np.zeros((chunks * CHUNK, n), dtype=bool)
    bits[:count] = signs > 0
    packed = np.packbits(bits.reshape(chunks, CHUNK, n), axis=1, bitorder="little")
    return np.ascontiguousarray(packed.transpose(0, 2, 1)).view("<u8").astype(np.uint64)


def digits_for(largest: int) -> int:
    """Digits of a two's-complement counter that holds -largest to largest."""
    return max(LEAST_DIGITS, int(largest).bit_length() + 1)


@njit(inline="always")
def _majority(a, b, c):  # type: ignore[no-untyped-def]
    return vor(vand(a, b), vand(c, vor(a, b)))


@njit(inline="always")
def _plane(source, entries, i):  # type: ignore[no-untyped-def]
    entry = load(entries, i)
    return vxor(vload(source, (entry >> 1) * 8), vsplat(_ZERO - np.uint64(entry & 1)))


@njit(inline="always")
def _carry_on(carry, digits, d, top):  # type: ignore[no-untyped-def]
    """Add `carry` at digit `d`."""
    while d < top and vany(carry):
        digit = vload(digits, 8 * d)
        vstore(digits, 8 * d, vxor(digit, carry))
        carry = vand(carry, digit)
        d += 1


@njit(inline="always")
def _add_four(source, entries, i, c0, c1):  # type: ignore[no-untyped-def]
    a, b = _plane(source, entries, i), _plane(source, entries, i + 1)
    c, d = _plane(source, entries, i + 2), _plane(source, entries, i + 3)
    k = _majority(a, b, c0)
    c0 = vxor(vxor(a, b), c0)
    m = _majority(c, d, c0)
    c0 = vxor(vxor(c, d), c0)
    carry = _majority(k, m, c1)
    return c0, vxor(vxor(k, m), c1), carry


@njit(inline="always")
def add_planes(source, entries, begin, end, digits, top):  # type: ignore[no-untyped-def]
    """Add the planes of some entries to the counter at `digits`, modulo 2^top."""
    i = begin
    if i + 4 <= end:
        c0, c1, c2 = vload(digits, 0), vload(digits, 8), vload(digits, 16)
        while i + 8 <= end:
            c0, c1, a = _add_four(source, entries, i, c0, c1)
            c0, c1, b = _add_four(source, entries, i + 4, c0, c1)
            carry = _majority(a, b, c2)
            c2 = vxor(vxor(a, b), c2)
            _carry_on(carry, digits, 3, top)
            i += 8
        if i + 4 <= end:
            c0, c1, a = _add_four(source, entries, i, c0, c1)
            carry = vand(a, c2)
            c2 = vxor(a, c2)
            _carry_on(carry, digits, 3, top)
            i += 4
        vstore(digits, 0, c0)
        vstore(digits, 8, c1)
        vstore(digits, 16, c2)
    while i < end:
        _carry_on(_plane(source, entries, i), digits, 0, top)
        i += 1


@njit(inline="always")
def set_constant(value, digits, top):  # type: ignore[no-untyped-def]
    """The same number in every image, in two's complement."""
    for d in range(top):
        vstore(digits, 8 * d, vsplat(_ZERO - np.uint64((value >> d) & 1)))


@njit(inline="always")
def _half_of_difference(margins, value, digits, top):  # type: ignore[no-untyped-def]
    """``floor((margin - value) / 2)`` into `digits`."""
    other = -value
    carry = vsplat(_ZERO)
    for d in range(top):
        a, b = vload(margins, 8 * d), vsplat(_ZERO - np.uint64((other >> d) & 1))
        if d > 0:
            vstore(digits, 8 * (d - 1), vxor(vxor(a, b), carry))
        if d == top - 1:
            vstore(digits, 8 * d, vxor(vxor(a, b), carry))
        carry = _majority(a, b, carry)


@njit(nogil=True)
def margins_of_rows(planes, entries, starts, constants, top, margins):  # type: ignore[no-untyped-def]
    """Disagreements minus limit minus 1 of each neuron, `margins[chunk, neuron, digit, 8]`: negative iff it fires."""
    for c in range(planes.shape[0]):
        source, where = address(planes[c]), address(entries)
        for j in range(starts.shape[0] - 1):
            digits = address(margins[c, j])
            set_constant(constants[j], digits, top)
            add_planes(source, where, starts[j], starts[j + 1], digits, top)


@njit(nogil=True)
def refire(planes, margins, flips, flip_starts, touched, count, top, digits, hidden):  # type: ignore[no-untyped-def]
    """Fire the neurons of a first block that have flips, for one chunk: `hidden[neuron, 8]` is changed there.

    A flip of a cell that agrees adds a disagreement, one that disagrees takes one away: with F flips of which C agree
    the margin grows by 2 C - F. `flips` are the entries that say where the flipped cells agree.
    """
    source, where, counter, target = address(planes), address(flips), address(digits), address(hidden)
    for t in range(count):
        j = touched[t]
        begin, end = flip_starts[t], flip_starts[t + 1]
        _half_of_difference(address(margins[j]), end - begin, counter, top)
        add_planes(source, where, begin, end, counter, top)
        vstore(target, 8 * j, vload(counter, 8 * (top - 1)))


@njit(nogil=True)
def fire(source, entries, starts, constants, top, digits, hidden):  # type: ignore[no-untyped-def]
    """Fire all neurons of a later block for one chunk; `source` is the address of the planes of its inputs."""
    where, counter, target = address(entries), address(digits), address(hidden)
    for j in range(starts.shape[0] - 1):
        set_constant(constants[j], counter, top)
        add_planes(source, where, starts[j], starts[j + 1], counter, top)
        vstore(target, 8 * j, vload(counter, 8 * (top - 1)))


@njit(nogil=True)
def right_by_counts(source, entries, starts, offsets, order, labels, top, digits, right):  # type: ignore[no-untyped-def]
    """Which images of a chunk get their label, where all classes have one scale.

    Classes are compared by agreements plus offset, in the order in which ties go; `labels[class, 8]` marks the images
    of each class, and `right` takes the labels of whoever leads.
    """
    where, best, found = address(entries), address(digits), address(digits) + 64 * top
    marks, out = address(labels), address(right)
    for position in range(order.shape[0]):
        k = order[position]
        into = best if position == 0 else found
        set_constant(offsets[k], into, top)
        add_planes(source, where, starts[k], starts[k + 1], into, top)
        if position == 0:
            vstore(out, 0, vload(marks, 8 * k))
            continue
        more = vsplat(_ZERO)
        for d in range(top):  # from the lowest digit: greater here, or equal here and greater below
            a, b = vload(found, 8 * d), vxor(vload(best, 8 * d), vsplat(_ALL))
            more = _majority(a, b, more)
        for d in range(top):
            a, b = vload(found, 8 * d), vload(best, 8 * d)
            vstore(best, 8 * d, vxor(b, vand(vxor(a, b), more)))
        lead = vload(out, 0)
        vstore(out, 0, vxor(lead, vand(vxor(lead, vload(marks, 8 * k)), more)))


@njit(nogil=True)
def right_by_ranks(source, entries, starts, ranks, labels, top, digits, counts, right):  # type: ignore[no-untyped-def]
    """As `right_by_counts`, by looking up the rank of every score: for scales of any kind."""
    where, counter = address(entries), address(digits)
    classes = starts.shape[0] - 1
    counts[:] = 0
    for k in range(classes):
        set_constant(0, counter, top)
        add_planes(source, where, starts[k], starts[k + 1], counter, top)
        for d in range(top - 1):
            for w in range(8):
                word = load(counter, 8 * d + w)
                for i in range(64):
                    counts[k, 64 * w + i] |= ((np.uint64(word) >> np.uint64(i)) & _ONE) << np.uint64(d)
    right[:] = 0
    for i in range(CHUNK):
        best, leader = np.int32(-1), 0
        for k in range(classes):
            rank = ranks[k, counts[k, i]]
            if rank > best:
                best, leader = rank, k
        right[i >> 6] |= ((labels[leader, i >> 6] >> np.uint64(i & 63)) & _ONE) << np.uint64(i & 63)
