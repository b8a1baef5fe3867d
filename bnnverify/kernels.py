"""Packed XNOR-popcount inference and the loops shared by the engines (numba).

Signs are packed 64 to a word, bit 1 for +1. With n present inputs, ``w . x = n - 2 * popcount(w XOR x)``, so a
neuron fires iff the number of disagreeing inputs is at most ``floor((n - threshold) / 2)``. Scores are compared
through `score_ranks`, small integers in the exact order of the rational scores. Everything is integer
arithmetic and bit-identical to `BinaryNetwork.evaluate`.

References:
    Courbariaux, Hubara et al., "Binarized neural networks", 2016, Sec. 4.1 for XNOR-popcount. Ranks: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import ArrayLike, NDArray

from bnnverify.network import BinaryNetwork, DenseBlock, OutputBlock

Words = NDArray[np.uint64]
_ONE = np.uint64(1)
_EXACT_FLOAT = 2**53  # integers up to here are exact in float64


@intrinsic
def popcount(_context: Any, _word: Any) -> Any:
    """Number of set bits of a uint64, as one machine instruction."""

    def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


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


def disagreement_limits(block: DenseBlock) -> NDArray[np.int32]:
    """Most disagreeing inputs with which each neuron still fires; -1 if it never does. Signs as inputs only."""
    present = np.count_nonzero(block.weights, axis=1)
    limits: NDArray[np.int32] = np.clip((present - block.thresholds) // 2, -1, block.n_inputs).astype(np.int32)
    return limits


@dataclass(frozen=True, slots=True)
class PackedLayers:
    """Blocks that take signs, packed for the loops: hidden blocks in order, the output block last.

    Attributes:
        shape: Per block `(inputs, neurons, offset of its first word)`, int64, shape `(blocks, 3)`.
        weights: All words; the word w of neuron j of a block is at ``offset + w * neurons + j``.
        mask: Likewise, 1 where an input is present.
        limits: `disagreement_limits` of all hidden blocks, one after the other.
        ranks: `score_ranks` of the output block.
        is_masked: True if some input is masked out.
    """

    shape: NDArray[np.int64]
    weights: Words
    mask: Words
    limits: NDArray[np.int32]
    ranks: NDArray[np.int32]
    is_masked: bool


def pack_layers(blocks: tuple[DenseBlock, ...], output: OutputBlock) -> PackedLayers:
    """Pack blocks that take signs."""
    shapes, weights, masks, offset = [], [], [], 0
    stack: tuple[DenseBlock | OutputBlock, ...] = (*blocks, output)
    for block in stack:
        words = pack_signs(block.weights).T.copy()
        shapes.append((block.n_inputs, block.weights.shape[0], offset))
        weights.append(words.ravel())
        masks.append(pack_signs(np.abs(block.weights)).T.copy().ravel())
        offset += words.size
    limits = [disagreement_limits(b) for b in blocks]
    return PackedLayers(
        shape=np.array(shapes, dtype=np.int64),
        weights=np.concatenate(weights),
        mask=np.concatenate(masks),
        limits=np.concatenate(limits) if limits else np.zeros(0, dtype=np.int32),
        ranks=score_ranks(output),
        is_masked=any(bool((b.weights == 0).any()) for b in stack),
    )


@njit(cache=True)
def _disagreements(bits, weights, mask, offset, words, neurons, masked, counts):  # type: ignore[no-untyped-def]
    """Disagreeing inputs of every neuron of one block into `counts`; the inner loop runs over neurons (SIMD)."""
    for j in range(neurons):
        counts[j] = 0
    for w in range(words):
        x = bits[w]
        row = weights[offset + w * neurons : offset + (w + 1) * neurons]  # slices let the loops vectorise
        if masked:
            present = mask[offset + w * neurons : offset + (w + 1) * neurons]
            for j in range(neurons):
                counts[j] += np.int64(popcount((x ^ row[j]) & present[j]))  # type: ignore[call-arg]
        else:
            for j in range(neurons):
                counts[j] += np.int64(popcount(x ^ row[j]))  # type: ignore[call-arg]


@njit(cache=True)
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


@njit(cache=True)
def forward_ranks(bits, shape, weights, mask, limits, ranks, masked, counts, out):  # type: ignore[no-untyped-def]
    """Score ranks of one packed input (`bits`, overwritten) into `out`."""
    start = 0
    last = shape.shape[0] - 1
    for layer in range(shape.shape[0]):
        n, neurons, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
        _disagreements(bits, weights, mask, offset, (n + 63) // 64, neurons, masked, counts)
        if layer < last:
            pack_fired(counts, limits, start, neurons, bits)
            start += neurons
        else:
            for k in range(neurons):
                out[k] = ranks[k, counts[k]]


@njit(cache=True)
def argmax_first(values):  # type: ignore[no-untyped-def]
    """Index of the greatest value, the lowest index among equals."""
    best = 0
    for k in range(1, values.shape[0]):
        if values[k] > values[best]:
            best = k
    return best


@njit(cache=True)
def _classes(images, shape, weights, mask, limits, ranks, masked, width):  # type: ignore[no-untyped-def]
    """Classes of packed inputs `(N, words)`."""
    classes = np.empty(images.shape[0], dtype=np.int64)
    counts = np.empty(width, dtype=np.int64)
    out = np.empty(ranks.shape[0], dtype=np.int32)
    bits = np.zeros((width + 63) // 64 + images.shape[1], dtype=np.uint64)
    for i in range(images.shape[0]):
        for w in range(images.shape[1]):
            bits[w] = images[i, w]
        forward_ranks(bits, shape, weights, mask, limits, ranks, masked, counts, out)
        classes[i] = argmax_first(out)
    return classes


class PackedNetwork:
    """A network packed for fast exact evaluation: the same classes as `BinaryNetwork.evaluate`, always.

    An integer first block is evaluated as a matrix product in float64 while all sums stay below 2^53 (then
    every partial sum is an exact integer), in int64 otherwise; all later blocks are packed.
    """

    __slots__ = ("_layers", "_width", "network")

    def __init__(self, network: BinaryNetwork) -> None:
        self.network = network
        blocks = network.blocks if network.domain.is_binary else network.blocks[1:]
        self._layers = pack_layers(blocks, network.output)
        self._width = max(network.widths)

    def classes(self, batch: ArrayLike) -> NDArray[np.int64]:
        """Predicted classes, shape `(N, n)` -> `(N,)`, int64.

        Raises:
            ModelError: An input does not lie in the domain.
        """
        images = np.asarray(batch)
        if self.network.domain.is_binary and images.dtype == np.int8 and images.shape[1:] == (self.network.n_inputs,):
            return self.classes_of_packed(pack_signs(self._signs(images)))
        points = self.network.domain.require_batch(batch)  # the general way, and the one that says what is wrong
        if not self.network.domain.is_binary:
            if not self.network.blocks:
                return self.network.evaluate_batch(points)
            points = self._integer_front(points)
        return self.classes_of_packed(pack_signs(points))

    def classes_of_packed(self, packed: Words) -> NDArray[np.int64]:
        """Predicted classes of inputs already packed by `pack_signs` (binary domains), shape `(N, words)`."""
        p = self._layers
        result: NDArray[np.int64] = _classes(
            packed, p.shape, p.weights, p.mask, p.limits, p.ranks, p.is_masked, self._width
        )
        return result

    def _signs(self, images: NDArray[np.int8]) -> NDArray[Any]:
        """`images` if all entries are -1 or +1; else the error that says which is not."""
        return images if bool((np.abs(images) == 1).all()) else self.network.domain.require_batch(images)

    def _integer_front(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Signs of the first block on integer inputs."""
        block, domain = self.network.blocks[0], self.network.domain
        reach = int(np.maximum(np.abs(domain.lower), np.abs(domain.upper)).sum())
        if reach >= _EXACT_FLOAT:
            return block.outputs(points)
        sums = points.astype(np.float64) @ block.weights.T.astype(np.float64)
        return np.where(sums >= block.thresholds, 1, -1).astype(np.int64)
