"""Laws that look at every cell: rates that differ from cell to cell, inputs of any size (numba).

Slower than counting agreeing cells, and independent of it. A flip of a cell with input v moves the pre-activation by
``2 |v|``, so P(fires) is a sum of independent shifts, whatever the rates.

References:
    Ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.domain import IntArray
from bnnverify.network import OutputBlock
from bnnverify.packing import Words, score_ranks
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.memory import require_law
from bnnverify.reliability.rounding import rounded_rate


@dataclass(frozen=True, slots=True)
class CellRows:
    """Rows of cells, each cell with its rate.

    Attributes:
        weights: `(rows, cells)`, -1/+1, 0 where there is no cell.
        flip: P(a cell reads wrong), `(rows, cells)`.
        keep: P(it does not).
        thresholds: With which each row fires.
    """

    weights: IntArray
    flip: FloatArray
    keep: FloatArray
    thresholds: IntArray

    @classmethod
    def of(
        cls, weights: NDArray[np.int8], thresholds: IntArray, rates: tuple[Fraction, ...], index: NDArray[np.intp]
    ) -> CellRows:
        """Rows with the rate of every cell, as `faults.cell_rates` gives them."""
        rounded = np.array([rounded_rate(r) for r in rates])
        matrix = weights.reshape(len(weights), -1).astype(np.int64)
        return cls(matrix, rounded[index, 0], rounded[index, 1], np.asarray(thresholds, dtype=np.int64))

    def firing(self, inputs: IntArray) -> tuple[FloatArray, FloatArray]:
        """(P(fires), P(does not)) of every row at every input: `(points, cells)` -> `(points, rows)` each.

        Raises:
            ResourceLimitError: Inputs so large that the law of their sum does not fit into memory.
        """
        points = np.ascontiguousarray(np.atleast_2d(inputs), dtype=np.int64)
        require_law(int(np.abs(points).sum(axis=1).max(initial=0)))
        fires, silent = np.zeros((len(points), len(self.weights))), np.zeros((len(points), len(self.weights)))
        _firing(points, self.weights, self.flip, self.keep, self.thresholds, fires, silent)
        return fires, silent

    def roundings(self, largest: int) -> int:
        """Roundings in an answer of `firing` for inputs of at most this absolute value."""
        cells = int(self.weights.shape[1])
        return 3 * cells + cells * largest + 2


@njit(nogil=True)
def _row_law(x, weights, flip, keep, law):  # type: ignore[no-untyped-def]
    """Law of the total size of the inputs that agree after the faults, 3 roundings a cell; returns the total size."""
    law[:] = 0.0
    law[0] = 1.0
    top = 0
    for i in range(x.shape[0]):
        size = abs(x[i]) if weights[i] != 0 else 0
        if size == 0:
            continue
        agrees = x[i] * weights[i] > 0
        hit, miss = (keep[i], flip[i]) if agrees else (flip[i], keep[i])
        for k in range(top, -1, -1):
            law[k + size] += law[k] * hit
            law[k] *= miss
        top += size
    return top


@njit(nogil=True)
def _firing(points, weights, flip, keep, thresholds, fires, silent):  # type: ignore[no-untyped-def]
    """Fill `fires` and `silent`, both summed on their own."""
    most = 0
    for s in range(points.shape[0]):
        size = 0
        for i in range(points.shape[1]):
            size += abs(points[s, i])
        most = max(most, size)
    law = np.zeros(most + 1)
    for s in range(points.shape[0]):
        for j in range(weights.shape[0]):
            total = _row_law(points[s], weights[j], flip[j], keep[j], law)
            for k in range(total + 1):
                if 2 * k - total >= thresholds[j]:
                    fires[s, j] += law[k]
                else:
                    silent[s, j] += law[k]


@njit(nogil=True)
def _errors(points, weights, flip, keep, ranks, label, masses, charges):  # type: ignore[no-untyped-def]
    """Add P(class is not `label`) at every point, times its mass, to both charges."""
    classes, n = weights.shape
    law, own = np.zeros(n + 1), np.zeros(n + 1)
    alive, total = np.zeros(n + 1), np.zeros(n + 1)
    for s in range(points.shape[0]):
        present = _row_law(points[s], weights[label], flip[label], keep[label], own)
        for d in range(present + 1):  # by the agreeing cells; ranks go by the disagreeing ones
            alive[d], total[d] = own[d], 0.0
        for k in range(classes):
            if k == label:
                continue
            size = _row_law(points[s], weights[k], flip[k], keep[k], law)
            for d in range(present + 1):
                mine, win, lose = ranks[label, present - d], 0.0, 0.0
                for e in range(size + 1):
                    theirs = ranks[k, size - e]
                    if theirs > mine or (theirs == mine and k < label):
                        win += law[e]
                    else:
                        lose += law[e]
                total[d] += alive[d] * win
                alive[d] *= lose
        error = 0.0
        for d in range(present + 1):
            error += total[d]
        charges[0] += masses[s] * error
        charges[1] += masses[s] * error


@dataclass(frozen=True, slots=True)
class CellOutput:
    """The output block, each cell with its rate."""

    rows: CellRows
    ranks: NDArray[np.int32]

    @classmethod
    def of(cls, output: OutputBlock, rates: tuple[Fraction, ...], index: NDArray[np.intp]) -> CellOutput:
        """The block with the rate of every cell."""
        nothing = np.zeros(output.n_classes, dtype=np.int64)
        return cls(CellRows.of(output.weights, nothing, rates, index), score_ranks(output))

    def add_errors(self, signs: IntArray, masses: FloatArray, label: int, charges: FloatArray) -> None:
        """Add P(class is not `label` | signs), times the masses, to both entries of `charges`."""
        rows = self.rows
        _errors(signs, rows.weights, rows.flip, rows.keep, self.ranks, label, masses, charges)

    @property
    def roundings(self) -> int:
        """Roundings in P(class is not the label | signs)."""
        classes, n = (int(v) for v in self.rows.weights.shape)
        return (classes + 1) * (4 * n + 4) + n + 2


def unpacked(keys: Words, n: int) -> IntArray:
    """Packed signs as -1/+1, int64: `(states, words)` -> `(states, n)`."""
    shape = (*keys.shape[:-1], -1)
    bits = np.unpackbits(keys.astype("<u8").view(np.uint8), axis=-1, bitorder="little").reshape(shape)
    return np.where(bits[..., :n] > 0, 1, -1).astype(np.int64)
