"""Packed XNOR-popcount inference: the loops over dense blocks that the engines share, and `PackedNetwork`.

How signs are packed and compared is in `packing.py`, convolutions are in `stages.py`. Everything is integer
arithmetic and bit-identical to `BinaryNetwork.evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.compilation import njit
from bnnverify.convolution import ConvBlock
from bnnverify.network import BinaryNetwork, DenseBlock, OutputBlock
from bnnverify.packing import Words, argmax_first, disagreements, pack_fired, pack_signs, score_ranks
from bnnverify.stages import PackedStages, classes_of_stages, pack_stages

_EXACT_FLOAT = 2**53  # integers up to here are exact in float64


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


@njit
def forward_ranks(bits, shape, weights, mask, limits, ranks, masked, counts, out):  # type: ignore[no-untyped-def]
    """Score ranks of one packed input (`bits`, overwritten) into `out`."""
    start = 0
    last = shape.shape[0] - 1
    for layer in range(shape.shape[0]):
        n, neurons, offset = shape[layer, 0], shape[layer, 1], shape[layer, 2]
        disagreements(bits, weights, mask, offset, (n + 63) // 64, neurons, masked, counts)
        if layer < last:
            pack_fired(counts, limits, start, neurons, bits)
            start += neurons
        else:
            for k in range(neurons):
                out[k] = ranks[k, counts[k]]


@njit
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

    An integer first block is evaluated as a matrix product in floating point while all sums stay below what is exact
    (then every partial sum is an exact integer), in int64 otherwise; all later blocks are packed.
    """

    __slots__ = ("_layers", "_stages", "_width", "network")

    def __init__(self, network: BinaryNetwork) -> None:
        self.network = network
        blocks = network.blocks if network.domain.is_binary else network.blocks[1:]
        dense = tuple(block for block in blocks if isinstance(block, DenseBlock))
        self._layers: PackedLayers | None = None
        self._stages: PackedStages | None = None
        if len(dense) == len(blocks):
            self._layers = pack_layers(dense, network.output)
        else:
            self._stages = pack_stages(blocks, network.output)
        self._width = max(network.widths)

    def classes(self, batch: ArrayLike) -> NDArray[np.int64]:
        """Predicted classes, shape `(N, n)` -> `(N,)`, int64.

        Raises:
            ModelError: An input does not lie in the domain.
        """
        images = np.asarray(batch)
        if self.network.domain.is_binary and images.dtype == np.int8 and images.shape[1:] == (self.network.n_inputs,):
            return self._classes_of_signs(self._signs(images))
        points = self.network.domain.require_batch(batch)  # the general way, and the one that says what is wrong
        if not self.network.domain.is_binary:
            if not self.network.blocks:
                return self.network.evaluate_batch(points)
            points = self._integer_front(points)
        return self._classes_of_signs(points)

    def classes_of_packed(self, packed: Words) -> NDArray[np.int64]:
        """Predicted classes of inputs already packed by `pack_signs` (binary domains), shape `(N, words)`."""
        if self._layers is None:
            bits = np.unpackbits(packed.astype("<u8").view(np.uint8), axis=1, bitorder="little")
            return self._classes_of_signs(bits[:, : self.network.n_inputs].astype(np.int8) * 2 - 1)
        p = self._layers
        result: NDArray[np.int64] = _classes(
            packed, p.shape, p.weights, p.mask, p.limits, p.ranks, p.is_masked, self._width
        )
        return result

    def _classes_of_signs(self, signs: NDArray[Any]) -> NDArray[np.int64]:
        """Classes of what the first packed block takes."""
        if self._stages is None:
            return self.classes_of_packed(pack_signs(signs))
        bits, loops, work = self._stages.packed(signs), self._stages.loops, self._stages.workspace()
        result: NDArray[np.int64] = classes_of_stages(bits, *loops, *work)
        return result

    def _signs(self, images: NDArray[np.int8]) -> NDArray[Any]:
        """`images` if all entries are -1 or +1; else the error that says which is not."""
        return images if bool((np.abs(images) == 1).all()) else self.network.domain.require_batch(images)

    def _integer_front(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Signs of the first block on integer inputs."""
        block, domain = self.network.blocks[0], self.network.domain
        reach = int(np.maximum(np.abs(domain.lower), np.abs(domain.upper)).sum())
        if isinstance(block, ConvBlock) or reach >= _EXACT_FLOAT:
            return block.outputs(points)
        sums = points.astype(np.float64) @ block.weights.T.astype(np.float64)
        return np.where(sums >= block.thresholds, 1, -1).astype(np.int64)
