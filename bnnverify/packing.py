"""Signs as bits: packing, XNOR-popcount of one block, ranks of scores (numba).

Signs are packed 64 to a word, bit 1 for +1. With n present inputs, ``w . x = n - 2 * popcount(w XOR x)``, so a
neuron fires iff the number of disagreeing inputs is at most ``floor((n - threshold) / 2)``. Scores are compared
through `score_ranks`, small integers in the exact order of the rational scores.

References:
    Courbariaux, Hubara et al., "Binarized neural networks", 2016, Sec. 4.1 for XNOR-popcount. Ranks: ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.blocks import OutputBlock
from bnnverify.compilation import njit
from bnnverify.vectors import popcount

Words = NDArray[np.uint64]


def pack_signs(signs: ArrayLike) -> Words:
    """Signs packed into words: `(..., n)` of -1/+1 (0 packs as 0) -> `(..., ceil(n / 64))` uint64."""
    bits = np.asarray(signs) > 0
    words = -(-bits.shape[-1] // 64)
    padded = np.zeros((*bits.shape[:-1], words * 64), dtype=bool)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def score_ranks(output: OutputBlock) -> NDArray[np.int32]:
    """Ranks in the exact order of the scores: ``ranks[k, d]`` for d disagreeing bits in class k.

    Returns:
        Shape `(classes, n + 1)`, int32. ``ranks[j, d] < ranks[k, e]`` iff the score of class j at d is below
        that of class k at e, and equal iff the scores are equal. Entries with d beyond the present inputs of
        a class repeat the last one.
    """
    a, b = output.integer_form()
    present = np.count_nonzero(output.weights, axis=1)
    n = output.n_inputs
    scores = [
        [a[k] * (int(present[k]) - 2 * min(d, int(present[k]))) + b[k] for d in range(n + 1)]
        for k in range(output.n_classes)
    ]
    rank = {score: i for i, score in enumerate(sorted({s for row in scores for s in row}))}
    return np.array([[rank[s] for s in row] for row in scores], dtype=np.int32)


@njit
def disagreements(bits, weights, mask, offset, words, neurons, masked, counts):  # type: ignore[no-untyped-def]
    """Disagreeing inputs of every neuron of one block into `counts`; the inner loop runs over neurons (SIMD)."""
    for j in range(neurons):
        counts[j] = 0
    for w in range(words):
        x = bits[w]
        row = weights[offset + w * neurons : offset + (w + 1) * neurons]  # slices let the loops vectorise
        if masked:
            present = mask[offset + w * neurons : offset + (w + 1) * neurons]
            for j in range(neurons):
                counts[j] += np.int64(popcount((x ^ row[j]) & present[j]))
        else:
            for j in range(neurons):
                counts[j] += np.int64(popcount(x ^ row[j]))


@njit
def pack_fired(counts, limits, start, neurons, bits):  # type: ignore[no-untyped-def]
    """Pack ``counts[j] <= limits[start + j]`` into `bits`."""
    for w in range((neurons + 63) // 64):
        top = min(64, neurons - 64 * w)
        found = counts[64 * w : 64 * w + top]
        bound = limits[start + 64 * w : start + 64 * w + top]
        word = np.uint64(0)
        for i in range(top):
            word |= np.uint64(found[i] <= bound[i]) << np.uint64(i)
        bits[w] = word


@njit
def argmax_first(values):  # type: ignore[no-untyped-def]
    """Index of the greatest value, the lowest index among equals."""
    best = 0
    for k in range(1, values.shape[0]):
        if values[k] > values[best]:
            best = k
    return best
