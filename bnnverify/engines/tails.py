"""Tables of tails: the sign of a first-block neuron over many inputs at once, one row of bits per margin.

Two kinds of tail. *Subsets*: exactly t of the last L free inputs are flipped, for any L, because the subsets are in
colexicographic order of the distance from the end: those within the last L inputs are the first C(L, t) bits.
*Settings*: all 2^s values of the last s free inputs, in binary order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.engines.plan import Plan
from bnnverify.packing import Words
from bnnverify.vectors import address, bgreater_equal, bload

_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO = np.uint64(0)


@dataclass(frozen=True, slots=True)
class Tail:
    """One table.

    Attributes:
        table: Rows of `row_words` words; row r of neuron j begins at ``base[j] + r * row_words``.
        base: First row of each neuron; ``base[neurons]`` is a row of zeros, the next one is of ones.
        row_words: Words of a row, a multiple of 8.
        divisor: Levels (upper bound minus margin, from 1) that share a row: 2 where flips keep the parity, else 1.
        upper: Margin from which a neuron fires on the whole tail, int8, as long as the margins of the plan.
        lower: Margin below which it never does.
        inputs: Free inputs that belong to the tail; for subsets the most that may.
        firsts: Word at which each segment of a row begins, a multiple of 8.
        sizes: Inputs of each segment.
    """

    table: Words
    base: NDArray[np.int64]
    row_words: int
    divisor: int
    upper: NDArray[np.int8]
    lower: NDArray[np.int8]
    inputs: int
    firsts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def loops(self) -> tuple[Any, ...]:
        """What `bitslice.leaf` takes; its bounds are in row 0."""
        return (
            self.table,
            self.base,
            self.row_words,
            self.divisor,
            (self.upper, self.lower),
            0,
            ends(),
            self.firsts,
            self.sizes,
        )


@cache
def ends() -> Words:
    """Row b of eight words has its first b bits set; 513 rows, flat."""
    bits = np.arange(512)[None, :] < np.arange(513)[:, None]
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64).ravel()


@njit
def _append(target, place, source, first, length):  # type: ignore[no-untyped-def]
    """Copy `length` bits from bit 0 of ``source[first:]`` to bit `place` of the zeroed bits of `target`."""
    word, shift = place >> 6, np.uint64(place & 63)
    whole, rest = length >> 6, length & 63
    for i in range(whole + (1 if rest else 0)):
        bits = source[first + i]
        if i == whole:
            bits &= (np.uint64(1) << np.uint64(rest)) - np.uint64(1)
        target[word + i] |= bits << shift
        if shift:
            target[word + i + 1] |= bits >> (np.uint64(64) - shift)


@njit
def _fill(target, place, length):  # type: ignore[no-untyped-def]
    """Set `length` bits from bit `place` on."""
    end = place + length
    first, last = place >> 6, end >> 6
    head = _ONES << np.uint64(place & 63)
    tail = (np.uint64(1) << np.uint64(end & 63)) - np.uint64(1)
    if first == last:
        target[first] |= head & tail
        return
    target[first] |= head
    for i in range(first + 1, last):
        target[i] = _ONES
    if tail:
        target[last] |= tail


@njit(nogil=True)
def _subset_rows(deltas, divisor, flips, binomials, table, base, row_words, low_words, work):  # type: ignore[no-untyped-def]
    """Fill the rows of all neurons; `deltas` is `(inputs, neurons)` in order of the distance from the end.

    `work` holds the rows for fewer flips: `(flips, levels, low_words)`.
    """
    inputs, neurons = deltas.shape
    for j in range(neurons):
        for t in range(1, flips + 1):
            levels = 2 * t // divisor
            for r in range(levels):
                level = divisor * (r + 1)  # the greatest level of this row; all of them give the same bits
                if t == flips:
                    start = base[j] + r * row_words
                    target = table[start : start + row_words]
                else:
                    target = work[t, r]
                    target[:] = _ZERO
                for q in range(t - 1, inputs):
                    before = level - 1 - np.int64(deltas[q, j])
                    place, length = binomials[q, t], binomials[q, t - 1]
                    if before <= 0:
                        _fill(target, place, length)
                    elif before <= 2 * (t - 1):
                        row = (before + divisor - 1) // divisor - 1
                        _append(target, place, work[t - 1, row], 0, length)


@cache
def binomial_table(n: int, k: int) -> NDArray[np.int64]:
    """C(i, j) for i up to n and j up to k; those beyond int64 are cut, nobody may use them."""
    most = 2**63 - 1
    return np.array([[min(math.comb(i, j), most) for j in range(k + 1)] for i in range(n + 1)], dtype=np.int64)


def subset_tail(plan: Plan, flips: int, inputs: int) -> Tail:
    """All ways to flip exactly `flips` of the last `inputs` free inputs."""
    divisor = 1 if plan.is_masked else 2
    levels = 2 * flips // divisor
    bits = math.comb(inputs, flips)
    row_words = 8 * -(-(bits + 64) // 512)
    n = plan.neurons
    table = np.zeros((n * levels + 2) * row_words + 8, dtype=np.uint64)
    base = np.arange(n + 1, dtype=np.int64) * (levels * row_words)
    table[int(base[n]) + row_words :] = _ONES
    if flips and n:
        deltas = np.ascontiguousarray(plan.deltas[::-1][:inputs, :n])
        low_words = -(-math.comb(inputs, flips - 1) // 64) + 1
        work = np.zeros((flips, max(1, 2 * (flips - 1) // divisor), low_words), dtype=np.uint64)
        _subset_rows(deltas, divisor, flips, binomial_table(inputs, flips), table, base, row_words, low_words, work)
    upper = np.full(len(plan.margins), flips, dtype=np.int8)
    sizes = np.array([bits], dtype=np.int64)
    return Tail(table, base, row_words, divisor, upper, -upper, inputs, np.zeros(1, dtype=np.int64), sizes)


@njit(nogil=True)
def _setting_rows(deltas, downs, places, levels, table, base, row_words):  # type: ignore[no-untyped-def]
    """Fill the rows of all neurons for all settings of the inputs of `deltas` `(inputs, neurons)`."""
    inputs, neurons = deltas.shape
    nets = np.zeros(1 << inputs, dtype=np.int8)
    placed = np.full(64 * row_words, -128, dtype=np.int8)
    placed_at, levels_at = address(placed), address(levels)
    for j in range(neurons):
        nets[0] = downs[j]
        for q in range(inputs):
            half = 1 << q
            for i in range(half):
                nets[half + i] = nets[i] + deltas[q, j]
        for i in range(nets.shape[0]):
            placed[places[i]] = nets[i]
        for level in range(1, inputs + 1):
            start = base[j] + (level - 1) * row_words
            for w in range(row_words):
                table[start + w] = bgreater_equal(bload(placed_at, 64 * w), bload(levels_at, 64 * level))


def setting_tail(plan: Plan, free: NDArray[np.int64], *, by_flips: bool = False) -> Tail:
    """All values of some free inputs: bit q of an input's number is set where the q-th of them flips.

    Args:
        plan: Margins and deltas.
        free: Which of the plan's free inputs, at most 24.
        by_flips: One segment for each number of flips, instead of one for all.
    """
    n, inputs = plan.neurons, len(free)
    numbers = np.arange(1 << inputs)
    if by_flips:
        flips = np.zeros(1 << inputs, dtype=np.int64)
        for q in range(inputs):
            flips[1 << q : 2 << q] = flips[: 1 << q] + 1
        sizes = np.bincount(flips, minlength=inputs + 1)
        vectors = -(-sizes // 512)
        firsts = 8 * (np.cumsum(vectors) - vectors)
        order = np.argsort(flips, kind="stable")
        places = np.empty(1 << inputs, dtype=np.int64)
        places[order] = numbers - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(64 * firsts, sizes)
        row_words = 8 * int(vectors.sum())
    else:
        sizes, firsts, places = np.array([1 << inputs]), np.zeros(1, dtype=np.int64), numbers
        row_words = 8 * -(-(1 << inputs) // 512)
    table = np.zeros((n * inputs + 2) * row_words, dtype=np.uint64)
    base = np.arange(n + 1, dtype=np.int64) * (inputs * row_words)
    table[int(base[n]) + row_words :] = _ONES
    deltas = plan.deltas[free]
    downs = np.count_nonzero(deltas < 0, axis=0).astype(np.int8)
    ups = np.count_nonzero(deltas > 0, axis=0).astype(np.int8)
    levels = np.repeat(np.arange(inputs + 1, dtype=np.int8), 64)
    _setting_rows(np.ascontiguousarray(deltas[:, :n]), downs, places, levels, table, base, row_words)
    return Tail(table, base, row_words, 1, downs, -ups, inputs, firsts.astype(np.int64), sizes.astype(np.int64))
