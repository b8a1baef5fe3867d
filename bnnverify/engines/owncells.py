"""Faulty chips of networks of dense blocks, one image at a time: every neuron has cells of its own.

Flips are drawn cell by cell (see `flips`) and correct the sums of the fault-free chip.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.engines.flips import cells_of, gap
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork
from bnnverify.packing import argmax_first, pack_signs, score_ranks
from bnnverify.vectors import popcount


@njit(nogil=True)
def _sample(  # type: ignore[no-untyped-def]
    x,
    base,
    neurons,
    words,
    weights,
    mask,
    cells,
    cell_start,
    signs_of,
    log_keeps,
    thresholds,
    ranks,
    seed,
    samples,
    label,
):
    """Errors in `samples` chips for one image whose first-block sums are `base`."""
    state = np.zeros(1, dtype=np.uint64)
    state[0] = seed
    blocks = neurons.shape[0]
    width = neurons.max()
    h = np.zeros(max(width, x.shape[0]), dtype=np.int64)
    sums = np.zeros(width, dtype=np.int64)
    bits = np.zeros(max((width + 63) // 64, 1), dtype=np.uint64)
    out = np.zeros(neurons[blocks - 1], dtype=np.int32)
    errors = 0
    for _ in range(samples):
        for i in range(x.shape[0]):
            h[i] = x[i]
        offset, threshold_start = 0, 0
        for b in range(blocks):
            count = neurons[b]
            if b == 0:
                for j in range(count):
                    sums[j] = base[j]
            else:
                for j in range(count):
                    differ = np.int64(0)
                    present = np.int64(0)
                    for w in range(words[b]):
                        at = offset + j * words[b] + w
                        present += np.int64(popcount(mask[at]))
                        differ += np.int64(popcount((bits[w] ^ weights[at]) & mask[at]))
                    sums[j] = present - 2 * differ
                offset += count * words[b]
            for group in range(log_keeps.shape[1]):
                start, end = cell_start[b, group], cell_start[b, group + 1]
                cell = start + gap(state, log_keeps[b, group])
                while cell < end:
                    j, i = cells[cell, 0], cells[cell, 1]
                    sums[j] -= 2 * signs_of[cell] * h[i]
                    cell += 1 + gap(state, log_keeps[b, group])
            if b + 1 < blocks:
                for w in range((count + 63) // 64):
                    bits[w] = np.uint64(0)
                for j in range(count):
                    fires = sums[j] >= thresholds[threshold_start + j]
                    h[j] = 1 if fires else -1
                    bits[j // 64] |= np.uint64(fires) << np.uint64(j % 64)
                threshold_start += count
            else:
                for k in range(count):
                    out[k] = ranks[k, sums[k] + ranks.shape[1] // 2]
        if argmax_first(out) != label:
            errors += 1
    return errors


def _sum_ranks(network: BinaryNetwork) -> NDArray[np.int32]:
    """`score_ranks` by the sum itself: ``ranks[k, sum + n]``; sums of the wrong parity are never asked for."""
    output = network.output
    n = output.n_inputs
    by_disagreement = score_ranks(output)
    present = np.count_nonzero(output.weights, axis=1)
    table = np.zeros((output.n_classes, 2 * n + 1), dtype=np.int32)
    for k in range(output.n_classes):
        for d in range(int(present[k]) + 1):
            table[k, int(present[k]) - 2 * d + n] = by_disagreement[k, d]
    return table


class OwnCells:
    """Chips of a network of dense blocks, where every neuron has cells of its own.

    Args:
        network: Dense blocks only; one with integer inputs has a hidden block.
        faults: Rates of the cells; of `PerRead` those of one read.
        points: Shape `(N, n)`, inputs of the domain.
    """

    def __init__(self, network: BinaryNetwork, faults: FaultModel, points: NDArray[np.int64]) -> None:
        blocks = network.all_blocks
        first, later = blocks[0], blocks[1:]
        neurons = np.array([b.weights.shape[0] for b in blocks], dtype=np.int64)
        words = np.array([-(-b.n_inputs // 64) for b in blocks], dtype=np.int64)
        empty = [np.zeros(0, dtype=np.uint64)]
        weights = np.concatenate([pack_signs(b.weights).ravel() for b in later] or empty)
        mask = np.concatenate([pack_signs(np.abs(b.weights)).ravel() for b in later] or empty)
        cells = cells_of(network, faults)
        thresholds = np.concatenate([b.thresholds for b in network.blocks] or [np.zeros(0, dtype=np.int64)])
        self._loops = (
            neurons,
            words,
            weights,
            mask,
            cells.places,
            cells.starts,
            cells.signs,
            cells.logs,
            thresholds,
            _sum_ranks(network),
        )
        self._points = points
        self._bases = points @ first.weights.T.astype(np.int64)

    def errors(self, index: int, label: int, seed: np.uint64, chips: int) -> int:
        """Chips that do not give image `index` the class `label`."""
        return int(_sample(self._points[index], self._bases[index], *self._loops, seed, chips, label))
