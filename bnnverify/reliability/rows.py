"""P(a row fires) given only how many of its cells agree with the signs before it: for the loops (numba).

The cells of a row that agree with their input disagree after the faults with their flip rate; those that disagree
do so with 1 minus it. So the disagreements after the faults are ``X + (d - Y)`` for each group of equal rates, where
X of the a agreeing and Y of the d disagreeing cells flip: two binomial laws, kept in `flip_laws` for all sizes. What
has been computed for one tuple of counts is remembered in a cache that belongs to one image, so threads share none.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.faults import CellRates
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.memory import require_memory
from bnnverify.reliability.rounding import rounded_rate

Laws = tuple[FloatArray, NDArray[np.int64]]


@njit(nogil=True)
def _flip_laws(flip, keep, laws, tops):  # type: ignore[no-untyped-def]
    """``laws[k % rows, i]`` = P(i of k cells flip), 3 roundings a cell; ``tops[k]`` is the last i that is not 0."""
    rows, law = laws.shape[0], np.zeros(tops.shape[0])
    law[0], tops[0], laws[0, 0] = 1.0, 0, 1.0
    for k in range(1, tops.shape[0]):
        top = tops[k - 1] + 1
        for i in range(top, 0, -1):
            law[i] = law[i] * keep + law[i - 1] * flip
        law[0] *= keep
        while top > 0 and law[top] == 0.0:
            top -= 1
        tops[k] = top
        if rows == tops.shape[0]:
            laws[k, : top + 1] = law[: top + 1]


def flip_laws(rate: Fraction, cells: int) -> Laws:
    """P(i of k cells flip) for all k up to `cells`, one row for each k, and the last i above 0 for each k.

    At most ``3 * k`` roundings in each entry. Columns that would hold zeros only (underflow) are left out.

    Raises:
        ResourceLimitError: More than 1 GiB.
    """
    flip, keep = rounded_rate(rate)
    tops = np.zeros(cells + 1, dtype=np.int64)
    _flip_laws(flip, keep, np.zeros((1, 1)), tops)
    width = int(tops.max()) + 1
    what = f"the flip laws of a row of {cells} cells at the rate {float(rate):.3g}"
    require_memory(width * (cells + 1), what, "Lower the rate, or sample chips with sample_errors.")
    laws = np.zeros((cells + 1, width))
    _flip_laws(flip, keep, laws, tops)
    return laws, tops


def firing_roundings(cells: int) -> int:
    """Roundings in an answer of `fires_given` for a row of so many cells.

    3 a cell from the flip laws; then every entry sees at most one sum over each group, twice, and 4 products.
    """
    return 8 * (cells + 2)


def new_cache(size: int) -> tuple[NDArray[np.int64], FloatArray]:
    """An empty cache for `fires_given` of at least `size` slots (see `cache_slot`): tags, and (fires, silent)."""
    slots = 1 << max(size - 1, 1).bit_length()
    return np.full((slots, 2), -1, dtype=np.int64), np.zeros((slots, 2))


@njit(nogil=True)
def _group_law(agreeing, disagreeing, laws, tops, law):  # type: ignore[no-untyped-def]
    """Law of the disagreements after the faults of one group of cells into ``law[: agreeing + disagreeing + 1]``."""
    law[: agreeing + disagreeing + 1] = 0.0
    for x in range(tops[agreeing] + 1):
        for y in range(tops[disagreeing] + 1):
            law[x + disagreeing - y] += laws[agreeing, x] * laws[disagreeing, y]


@njit(nogil=True)
def fires_given(limit, counts, plus, minus, out):  # type: ignore[no-untyped-def]
    """(P(fires), P(does not)) of a row into `out`, both summed on their own.

    Args:
        limit: Most disagreements with which the row fires; at least -1, at most the cells of the row.
        counts: Cells of the row: group 0 agreeing, disagreeing; group 1 agreeing, disagreeing.
        plus: `flip_laws` of group 0.
        minus: `flip_laws` of group 1.
        out: Two floats.
    """
    first, second = counts[0] + counts[1], counts[2] + counts[3]
    one, two = np.empty(first + 1), np.empty(second + 1)
    _group_law(counts[0], counts[1], plus[0], plus[1], one)
    _group_law(counts[2], counts[3], minus[0], minus[1], two)
    below, above = np.zeros(second + 2), np.zeros(second + 2)  # P(second group < t), P(second group >= t)
    for t in range(second + 1):
        below[t + 1] = below[t] + two[t]
    for t in range(second, -1, -1):
        above[t] = above[t + 1] + two[t]
    out[0] = out[1] = 0.0
    for v in range(first + 1):
        t = min(max(limit - v + 1, 0), second + 1)
        out[0] += one[v] * below[t]
        out[1] += one[v] * above[t]


@njit(nogil=True)
def cache_slot(limit, a, b, c, d, slots):  # type: ignore[no-untyped-def]
    """Tag of a limit and four counts, and their place in a cache of so many slots."""
    one = (np.int64(limit + 1) << 40) | (np.int64(a) << 20) | np.int64(b)
    two = (np.int64(c) << 20) | np.int64(d)
    h = (np.uint64(one) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(two)) * np.uint64(0xBF58476D1CE4E5B9)
    return one, two, np.int64(h >> np.uint64(36)) & np.int64(slots - 1)


def as_groups(symmetric: bool, present: NDArray[Any], stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cells of group 0 and of group 1 as bools: stored +1 and stored -1, or all and none if their rates are equal."""
    if symmetric:
        return present, np.zeros_like(present)
    return present & (stored > 0), present & (stored < 0)


@dataclass(frozen=True, slots=True)
class CountedRows:
    """Rows whose cells have two rates at most, at many sign inputs; 0 is an absent input.

    Attributes:
        weights: `(rows, cells)`, int8, 0 where there is no cell.
        second: True where a cell belongs to the second group of rates.
        thresholds: With which each row fires.
        laws: Flip laws of both groups.
    """

    weights: NDArray[np.int8]
    second: NDArray[np.bool_]
    thresholds: NDArray[np.int64]
    laws: tuple[Laws, Laws]

    @classmethod
    def of(
        cls, weights: NDArray[np.int8], stored: NDArray[np.int8], thresholds: NDArray[np.int64], rates: CellRates
    ) -> CountedRows:
        """Rows under the rates of their stored signs; arrays of any shape, the first axis is the row."""
        matrix = weights.reshape(len(weights), -1)
        _, second = as_groups(rates.is_symmetric, matrix != 0, stored.reshape(matrix.shape))
        cells = matrix.shape[1]
        return cls(matrix, second, thresholds, (flip_laws(rates.plus, cells), flip_laws(rates.minus, cells)))

    def firing(self, inputs: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """(P(fires), P(does not)) of every row at every input: `(points, cells)` -> `(points, rows)` each."""
        shape = len(inputs), len(self.weights)
        fires, silent = np.zeros(shape), np.zeros(shape)
        cache = new_cache(64 * len(self.weights))
        _firing_at(inputs, self.weights, self.second, self.thresholds, *self.laws, *cache, fires, silent)
        return fires, silent

    @property
    def roundings(self) -> int:
        """Roundings in an answer of `firing`."""
        return firing_roundings(self.weights.shape[1])


@njit(nogil=True)
def _firing_at(points, weights, second, thresholds, plus, minus, tags, values, fires, silent):  # type: ignore[no-untyped-def]
    """Fill `fires` and `silent` from the counts of every row at every point."""
    counts = np.zeros(4, dtype=np.int64)
    for s in range(points.shape[0]):
        for j in range(weights.shape[0]):
            counts[:] = 0
            for i in range(points.shape[1]):
                product = points[s, i] * weights[j, i]
                if product != 0:
                    counts[2 * second[j, i] + (product < 0)] += 1
            present = counts.sum()
            limit = min(max((present - thresholds[j]) // 2, -1), present)
            one, two, slot = cache_slot(limit, counts[0], counts[1], counts[2], counts[3], tags.shape[0])
            if tags[slot, 0] != one or tags[slot, 1] != two:
                fires_given(limit, counts, plus, minus, values[slot])
                tags[slot, 0], tags[slot, 1] = one, two
            fires[s, j], silent[s, j] = values[slot, 0], values[slot, 1]
