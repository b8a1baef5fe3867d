"""Convolutions under bit errors: the random object is a filter's whole output map (numba).

Permanent faults sit in a filter's cells, which all its positions share: filters are independent, positions are not. So
the flip patterns of a filter are enumerated by their number of flips, equal maps are merged, and patterns of more than
t flips are an accounted tail, an outcome without a name. Filters are the parts of `patterns.draw`.

Faults that are fresh at every read make positions independent: then every output is an independent sign, and the block
is treated like a dense one.

References:
    Ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.packing import Words
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.patterns import Vectors, add_vector, new_stack
from bnnverify.reliability.rounding import rounded_rate

_MOST_MAPS = 1 << 16  # distinct maps of one filter


@dataclass(frozen=True, slots=True)
class Parts:
    """Independent parts of a block whose input is fixed; see `patterns.draw`.

    Attributes:
        modal: The most likely outcomes of all parts as one packed vector.
        first: P(first outcome) of each part.
        starts: Where the other outcomes of each part start.
        masses: Their probabilities, falling within a part.
        rests: P(this outcome or a later one, or one without a name).
        changes: What an outcome changes in the vector, `(outcomes, words)`.
        nameless: P(an outcome without a name) of each part.
        roundings: At most so many in any of these.
    """

    modal: Words
    first: FloatArray
    starts: IntArray
    masses: FloatArray
    rests: FloatArray
    changes: Words
    nameless: FloatArray
    roundings: int

    @property
    def loops(self) -> tuple[Any, ...]:
        """What `patterns.draw` takes."""
        return self.first, self.starts, self.masses, self.rests, self.changes, self.nameless


@dataclass(frozen=True, slots=True)
class ConvStep:
    """A convolution under permanent faults.

    Attributes:
        block: The block.
        places: Entry of the padded input at each position and cell, `(cells, positions)`; the entry behind the last is
            the padding. The positions of one pooling window are neighbours; those in no window are left out.
        likely: The weights that are most likely after the faults, `(filters, cells)`: rates above 1/2 turn them.
        odds: P(other sign) / P(likely sign) of each cell.
        intact: P(all cells of a filter hold their likely sign).
        tails: P(more than t cells of a filter do not), `(filters, cells + 2)`.
    """

    block: ConvBlock
    places: IntArray
    likely: NDArray[np.int64]
    odds: FloatArray
    intact: FloatArray
    tails: FloatArray

    @classmethod
    def of(cls, block: ConvBlock, rates: tuple[Fraction, ...], index: NDArray[np.intp]) -> ConvStep:
        """The block with the rate of every cell, as `faults.cell_rates` gives them."""
        half = Fraction(1, 2)
        small = np.array([rounded_rate(min(r, 1 - r)) for r in rates])
        turned = np.array([r > half for r in rates])
        weights = block.weights.reshape(block.n_filters, -1).astype(np.int64)
        likely = np.where(turned[index], -weights, weights)
        flip, keep = small[index, 0] * (weights != 0), np.where(weights != 0, small[index, 1], 1.0)
        tails = np.zeros((block.n_filters, weights.shape[1] + 2))
        _flip_tails(flip, keep, tails)
        return cls(block, _places(block), likely, flip / keep, keep.prod(axis=1), tails)

    @property
    def roundings(self) -> int:
        """Roundings in the probability of one flip pattern, and in a tail."""
        return 4 * (int(self.likely.shape[1]) + 2)

    def flips(self, mass: float, threshold: float, effort: float) -> int:
        """How many flips of a filter to enumerate in a state of this probability.

        No more than it takes until those beyond are less likely than the threshold, or as the effort allows.
        """
        flips = 0
        while flips < self.most_cells and mass * float(self.tails[:, flips].max()) >= threshold:
            if self.cost(flips + 1) > effort:
                break
            flips += 1
        return flips

    @property
    def most_cells(self) -> int:
        """Cells of the largest filter."""
        return int(np.count_nonzero(self.likely, axis=1).max())

    def cost(self, flips: int) -> float:
        """Sums to update for all patterns of at most so many flips of a filter."""
        patterns = sum(comb(self.most_cells, k) for k in range(flips + 1))
        return float(len(self.likely) * patterns * self.places.shape[1])

    def parts(self, x: IntArray, flips: int) -> Parts:
        """Parts of the block at the input x, shape `(n,)`, with all patterns of at most `flips` flips of a filter."""
        block = self.block
        values = np.append(x, block.pad_value)
        small = int(np.abs(values).max()) < 2**31
        entries = values[self.places].astype(np.int32 if small else np.int64)
        filters, outputs = block.n_filters, block.n_outputs // block.n_filters
        words, own = -(-block.n_outputs // 64), -(-outputs // 64)
        patterns = sum(comb(self.most_cells, k) for k in range(flips + 1))
        modal, first, nameless = np.zeros(words, dtype=np.uint64), np.zeros(filters), np.zeros(filters)
        starts, masses, rests, changes = [0], [], [], []
        found = []
        for f in range(filters):
            maps = Vectors.empty(own, min(patterns, _MOST_MAPS, 2 ** min(outputs, 20)))
            _filter_maps(
                entries,
                self.likely[f],
                self.odds[f],
                self.intact[f],
                int(block.thresholds[f]),
                bool(block.conjunction[f]),
                entries.shape[1] // outputs,
                flips,
                maps.loops,
            )
            keys, shares = maps.by_mass()
            found.append((f, keys, shares, float(maps.open_mass[0] + self.tails[f, flips])))
        found.sort(key=lambda part: -(part[2][1] / part[2][0] if part[2].size > 1 and part[2][0] > 0 else 0.0))
        for i, (f, keys, shares, tail) in enumerate(found):
            apart = np.zeros((len(keys) - 1, words), dtype=np.uint64)
            _placed(keys[1:] ^ keys[:1], f * outputs, apart)
            _placed(keys[:1], f * outputs, modal[None])
            first[i], nameless[i] = shares[0], tail
            starts.append(starts[-1] + len(apart))
            masses.append(shares[1:])
            rests.append(np.cumsum(np.append(tail, shares[:0:-1]))[:0:-1])
            changes.append(apart)
        return Parts(
            modal,
            first,
            np.array(starts, dtype=np.int64),
            np.concatenate(masses),
            np.concatenate(rests),
            np.concatenate(changes),
            nameless,
            self.roundings + 2 * patterns + 4,
        )

    def workspace(self) -> tuple[Any, ...]:
        """Stack of `patterns.draw`."""
        return new_stack(self.block.n_filters, -(-self.block.n_outputs // 64))


def _places(block: ConvBlock) -> IntArray:
    """Entry of the flat input, or its size where there is padding, by cell and position; windows together."""
    channels, height, width = block.input_shape
    (rows, columns), (down, across) = block.kernel, block.pool
    _, out_rows, out_columns = block.output_shape
    channel, r, c = np.ogrid[:channels, :rows, :columns]
    i, j, k, m = np.ogrid[:out_rows, :out_columns, :down, :across]  # window, then place in the window
    top = (i * down + k) * block.stride[0] - block.padding[0]
    left = (j * across + m) * block.stride[1] - block.padding[1]
    spread = (slice(None),) * 3 + (None,) * 4
    y, x = r[spread] + top, c[spread] + left
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    entry = np.where(inside, (channel[spread] * height + y) * width + x, channels * height * width)
    return np.ascontiguousarray(entry.reshape(channels * rows * columns, -1).astype(np.int64))


@njit
def _flip_tails(flip, keep, tails):  # type: ignore[no-untyped-def]
    """``tails[f, t]`` = P(more than t cells of filter f flip), summed from its end."""
    cells = flip.shape[1]
    for f in range(flip.shape[0]):
        law = np.zeros(cells + 1)
        law[0] = 1.0
        for c in range(cells):
            for k in range(c + 1, 0, -1):
                law[k] = law[k] * keep[f, c] + law[k - 1] * flip[f, c]
            law[0] *= keep[f, c]
        tails[f, cells] = tails[f, cells + 1] = 0.0
        for t in range(cells - 1, -1, -1):
            tails[f, t] = tails[f, t + 1] + law[t + 1]


@njit(nogil=True)
def _add_map(sums, mass, threshold, conjunction, window, maps):  # type: ignore[no-untyped-def]
    """Add the pooled map of a filter with these sums, windows together."""
    key = np.zeros(maps[0].shape[1], dtype=np.uint64)
    for o in range(sums.shape[0] // window):
        fired = 0
        for i in range(o * window, (o + 1) * window):
            fired += sums[i] >= threshold
        if fired == window or (fired > 0 and not conjunction):
            key[o >> 6] |= np.uint64(1) << np.uint64(o & 63)
    add_vector(key, mass, *maps)


@njit(nogil=True)
def _filter_maps(entries, weights, odds, intact, threshold, conjunction, window, flips, maps):  # type: ignore[no-untyped-def]
    """Maps of one filter over all patterns of at most `flips` flips, with their probabilities."""
    cells, positions = entries.shape
    sums = np.zeros((flips + 1, positions), dtype=np.int64)
    for c in range(cells):
        for i in range(positions):
            sums[0, i] += weights[c] * entries[c, i]
    masses, at = np.zeros(flips + 1), np.zeros(flips + 1, dtype=np.int64)
    masses[0] = intact
    _add_map(sums[0], intact, threshold, conjunction, window, maps)
    depth = 0
    while depth >= 0:
        c = at[depth]  # cells before c are settled in this pattern
        if c == cells or depth == flips:
            depth -= 1
            continue
        at[depth] = c + 1
        if odds[c] == 0.0:
            continue
        twice = 2 * weights[c]
        for i in range(positions):
            sums[depth + 1, i] = sums[depth, i] - twice * entries[c, i]
        masses[depth + 1], at[depth + 1] = masses[depth] * odds[c], c + 1
        depth += 1
        _add_map(sums[depth], masses[depth], threshold, conjunction, window, maps)


@njit(nogil=True)
def _placed(keys, shift, vectors):  # type: ignore[no-untyped-def]
    """Set the bits of each key in the vector, `shift` places up."""
    up = np.uint64(shift & 63)
    for s in range(keys.shape[0]):
        for w in range(keys.shape[1]):
            word = (shift >> 6) + w
            vectors[s, word] ^= keys[s, w] << up
            if up > 0 and word + 1 < vectors.shape[1]:
                vectors[s, word + 1] ^= keys[s, w] >> (np.uint64(64) - up)


def signs_per_read(
    block: ConvBlock, x: IntArray, firing: Callable[[IntArray], tuple[FloatArray, FloatArray]]
) -> tuple[FloatArray, FloatArray]:
    """(P(+1), P(-1)) of every output where faults are fresh at every read: positions are independent.

    Args:
        block: The block.
        x: Its input, shape `(n,)`.
        firing: From the entries at some positions, shape `(positions, cells)` and 0 where absent, P(fires) and P(does
            not) of every filter, shape `(positions, filters)`.

    Returns:
        Shape `(n_outputs,)` each, with as many factors as a window has positions and twice as many roundings more.
    """
    places = _places(block)
    entries, which = np.unique(np.append(x, block.pad_value)[places].T, axis=0, return_inverse=True)
    shape = (block.n_filters, -1, block.pool[0] * block.pool[1])
    fires, silent = (chances[which.ravel()].T.reshape(shape) for chances in firing(entries))
    some, none = _some(fires, silent)
    not_all, all_fire = _some(silent, fires)
    every = block.conjunction[:, None]
    return np.where(every, all_fire, some).ravel(), np.where(every, not_all, none).ravel()


def _some(event: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(P(the event somewhere), P(nowhere)) over the last axis, of independent entries; no 1 - x."""
    somewhere, nowhere = np.zeros(event.shape[:-1]), np.ones(event.shape[:-1])
    for i in range(event.shape[-1]):
        somewhere = somewhere + nowhere * event[..., i]
        nowhere = nowhere * other[..., i]
    return somewhere, nowhere
