"""Laws of one neuron or one score under bit errors, in float64 with counted roundings.

With the input of a block fixed, the number D' of disagreeing cells of a row after the faults is a sum of
independent Bernoulli variables: an agreeing cell disagrees afterwards with its flip rate r, a disagreeing one
with 1 - r. Cells fall into two groups, stored +1 and stored -1, so a law depends only on four numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.domain import IntArray
from bnnverify.faults import CellRates
from bnnverify.network import DenseBlock
from bnnverify.reliability import arrays
from bnnverify.reliability.arrays import FloatArray as FloatArray
from bnnverify.reliability.memory import require_law
from bnnverify.reliability.rounding import rounded_rate


def bernoulli_sum(hits: FloatArray, misses: FloatArray, repeats: NDArray[np.int64], law: FloatArray) -> None:
    """Law of a sum of independent Bernoulli variables into `law`: 3 roundings a variable, rates included.

    Args:
        hits: P(1) of the variables of each group.
        misses: P(0).
        repeats: Variables in each group.
        law: Filled, one entry more than variables.
    """
    is_small = arrays.are_enough(_bernoulli_sum, 3 * law.size, law.size**2)
    (arrays.bernoulli_sum if is_small else _bernoulli_sum)(hits, misses, repeats, law)


@njit
def _bernoulli_sum(hits, misses, repeats, law):  # type: ignore[no-untyped-def]
    law[:] = 0.0
    law[0] = 1.0
    size = 0
    for group in range(hits.shape[0]):
        hit, miss = hits[group], misses[group]
        for _ in range(repeats[group]):
            size += 1
            law[size] = law[size - 1] * hit
            for k in range(size - 1, 0, -1):
                law[k] = law[k] * miss + law[k - 1] * hit
            law[0] *= miss


@njit
def _weighted_sum(shift, hits, misses, law):  # type: ignore[no-untyped-def]
    """Law of the sum of ``shift[i]`` where variable i hits: 3 roundings a variable, rates included."""
    law[:] = 0.0
    law[0] = 1.0
    top = 0
    for i in range(shift.shape[0]):
        s = shift[i]
        if s == 0:
            continue
        for k in range(top, -1, -1):
            law[k + s] += law[k] * hits[i]
            law[k] *= misses[i]
        top += s


@dataclass(frozen=True, slots=True)
class RowLaw:
    """Law of the disagreements D' of a row: `at_most[d]` = P(D' <= d), `above[d]` = P(D' > d), both summed."""

    mass: FloatArray
    at_most: FloatArray
    above: FloatArray


@dataclass(slots=True)
class RowLaws:
    """Laws of rows whose cells have the given rates, kept once computed.

    Attributes:
        rates: Rates of the block's cells by stored sign.
        roundings_per_cell: Roundings in any entry of `RowLaw`, per cell of the row.
    """

    rates: CellRates
    roundings_per_cell: int = 4
    _kept: dict[tuple[int, int, int, int], RowLaw] = field(default_factory=dict)
    _firing: dict[int, FiringTable] = field(default_factory=dict)

    def law(self, plus_agree: int, minus_agree: int, plus_disagree: int, minus_disagree: int) -> RowLaw:
        """Law of a row by its numbers of cells: stored sign, and agreeing or not before the faults."""
        key = (plus_agree, minus_agree, plus_disagree, minus_disagree)
        if key not in self._kept:
            plus, not_plus = rounded_rate(self.rates.plus)
            minus, not_minus = rounded_rate(self.rates.minus)
            hits = np.array([plus, minus, not_plus, not_minus])
            misses = np.array([not_plus, not_minus, plus, minus])
            mass = np.zeros(sum(key) + 1)
            bernoulli_sum(hits, misses, np.array(key, dtype=np.int64), mass)
            above = np.zeros_like(mass)
            above[:-1] = np.cumsum(mass[:0:-1])[::-1]
            self._kept[key] = RowLaw(mass, np.cumsum(mass), above)
        return self._kept[key]

    def firing_table(self, block: DenseBlock) -> FiringTable:
        """Firing probabilities of a block by disagreements, for symmetric rates; one table for each block."""
        if id(block) not in self._firing:
            self._firing[id(block)] = FiringTable(block, self)
        return self._firing[id(block)]


class FiringTable:
    """(P(fires), P(does not fire)) of every neuron by its number of disagreements; symmetric rates.

    Filled column by column as images ask for them.
    """

    def __init__(self, block: DenseBlock, laws: RowLaws) -> None:
        self._block, self._laws = block, laws
        self._present = np.count_nonzero(block.weights, axis=1)
        self._limits = np.clip((self._present - block.thresholds) // 2, -1, self._present)
        shape = block.n_outputs, int(self._present.max(initial=0)) + 1
        self._fires, self._silent = np.full(shape, np.nan), np.full(shape, np.nan)
        self._weights = block.weights.astype(np.float32 if shape[1] < 1 << 23 else np.float64)  # sums stay exact
        self._rows = np.arange(block.n_outputs)

    def of(self, x: IntArray) -> tuple[FloatArray, FloatArray]:
        """For the input x, signs."""
        disagree = (self._present - (self._weights @ x.astype(self._weights.dtype)).astype(np.int64)) // 2
        fires = self._fires[self._rows, disagree]
        if np.isnan(fires).any():
            for d in np.unique(disagree[np.isnan(fires)]).tolist():
                self._fill(d)
            fires = self._fires[self._rows, disagree]
        return fires, self._silent[self._rows, disagree]

    def _fill(self, disagree: int) -> None:
        """The column of all neurons that can have so many disagreements."""
        for present in np.unique(self._present[self._present >= disagree]).tolist():
            law = self._laws.law(present - disagree, 0, disagree, 0)
            rows = np.flatnonzero(self._present == present)
            limits = self._limits[rows]
            self._silent[rows, disagree] = np.where(limits >= 0, law.above[limits], law.at_most[-1])
            self._fires[rows, disagree] = np.where(limits >= 0, law.at_most[limits], 0.0)


def firing(block: DenseBlock, x: IntArray, laws: RowLaws) -> tuple[FloatArray, FloatArray]:
    """(P(fires), P(does not fire)) of every neuron of a block whose input x, signs, is fixed.

    Neurons use different cells, so they are independent. At most ``4 * inputs`` roundings in each entry.
    """
    if laws.rates.is_symmetric:
        return laws.firing_table(block).of(x)
    products = block.weights * x
    stored = block.stored
    present = np.count_nonzero(block.weights, axis=1)
    limits = np.clip((present - block.thresholds) // 2, -1, present)
    groups = [np.count_nonzero((stored == s) & (products == t), axis=1) for t in (1, -1) for s in (1, -1)]
    fires, silent = np.empty(present.size), np.empty(present.size)
    for j in range(present.size):
        limit = int(limits[j])
        law = laws.law(*(int(g[j]) for g in groups))
        fires[j] = law.at_most[limit] if limit >= 0 else 0.0
        silent[j] = law.above[limit] if limit >= 0 else law.at_most[-1]
    return fires, silent


def firing_on_integers(block: DenseBlock, x: IntArray, rates: CellRates) -> tuple[FloatArray, FloatArray]:
    """As `firing`, for integer inputs: a flip of a cell moves the sum by ``2 |x_i|``.

    The pre-activation after the faults is ``-sum|x_i| + 2 * (sum of |x_i| over agreeing cells)``.

    Raises:
        ResourceLimitError: Inputs so large that the law of this sum does not fit into memory.
    """
    sizes = np.abs(x) * (block.weights != 0)
    require_law(int(sizes.sum(axis=1).max()))
    agree = block.weights * np.sign(x) > 0
    stored = block.stored
    (plus, not_plus), (minus, not_minus) = rounded_rate(rates.plus), rounded_rate(rates.minus)
    fires, silent = np.empty(block.n_outputs), np.empty(block.n_outputs)
    for j in range(block.n_outputs):
        flip = np.where(stored[j] == 1, plus, minus)
        keep = np.where(stored[j] == 1, not_plus, not_minus)
        hits, misses = np.where(agree[j], keep, flip), np.where(agree[j], flip, keep)
        total = int(sizes[j].sum())
        law = np.zeros(total + 1)
        _weighted_sum(sizes[j].astype(np.int64), hits, misses, law)
        needed = min(max(-((-(int(block.thresholds[j]) + total)) // 2), 0), total + 1)  # fires iff sum >= needed
        fires[j] = law[needed:].sum() if needed <= total else 0.0
        silent[j] = law[:needed].sum() if needed > 0 else 0.0
    return fires, silent
