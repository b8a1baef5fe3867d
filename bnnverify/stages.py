"""Packed evaluation of networks with convolutions (numba).

Between blocks there is one string of bits, row by row, column by column, channel by channel (channels last). Then a
row of a patch is one run of bits, a patch is a few runs, and what a filter does at a position is what a neuron of a
dense block does: XNOR, popcount, compare. So every block is a `stage` of one kind: filters of bits at positions
of an image, with pooling word by word; a dense block has a single position. All integer, bit-identical to
`BinaryNetwork.evaluate`.

Padding holds bits too. A constant sign is that sign. Absent inputs hold -1, and the limit of each filter at each
position makes up for the weights that lie over them, exactly.

References:
    Bit-packed patches: Hubara et al., "Binarized neural networks", 2016, Sec. 4. Channels last, and limits per
    position for absent inputs: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.blocks import DenseBlock, OutputBlock
from bnnverify.compilation import njit
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import IntArray
from bnnverify.packing import Words, argmax_first, disagreements, pack_fired, pack_signs, score_ranks

# columns of the table of stages
HEIGHT, WIDTH, CHANNELS, TOP, LEFT, KERNEL_ROWS, KERNEL_COLUMNS, DOWN, ACROSS = range(9)
POOL_ROWS, POOL_COLUMNS, OUT_HEIGHT, OUT_WIDTH, PLACES, FILTERS, WORDS = range(9, 16)
WEIGHTS_AT, LIMITS_AT, LIMITS_STEP, CONJUNCTION_AT, PAD_IS_PLUS, IS_MASKED, PAD_IS_ABSENT = range(16, 23)
_COLUMNS = 23

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True)
class PackedStages:
    """Blocks that take signs, packed for the loops: hidden blocks in order, the output block last.

    Attributes:
        table: One row per stage; the constants of this module name the columns.
        weights: All words; the word w of filter f of a stage is at ``WEIGHTS_AT + w * FILTERS + f``.
        mask: Likewise, 1 where a cell is present.
        limits: Most disagreements with which a filter fires, at ``LIMITS_AT + position * LIMITS_STEP + f``, int64;
            the step is 0 where all positions share them. Not clipped.
        conjunction: For each stage a string of bits, one per filter: AND-pooling.
        ranks: `score_ranks` of the output block.
        order: Input entry of each bit; None if they are the same.
        stages: Stage of each block.
        rows: For each block the filter of each row as `rows` of the block count them.
        columns: For each block the bit, within a filter, of each of its cells in channel-major order.
    """

    table: IntArray
    weights: Words
    mask: Words
    limits: IntArray
    conjunction: Words
    ranks: NDArray[np.int32]
    order: IntArray | None
    stages: tuple[int, ...]
    rows: tuple[IntArray, ...]
    columns: tuple[IntArray, ...]

    @property
    def loops(self) -> tuple[Any, ...]:
        """What the loops take."""
        return self.table, self.weights, self.mask, self.limits, self.conjunction, self.ranks

    def packed(self, signs: ArrayLike) -> Words:
        """Inputs `(N, n)` of -1/+1 as the strings of bits that the first stage takes."""
        points = np.asarray(signs)
        return pack_signs(points if self.order is None else points[:, self.order])

    def workspace(self) -> tuple[Words, IntArray, NDArray[np.int32]]:
        """Scratch of `forward_stages`."""
        t = self.table
        inputs = (t[:, HEIGHT] + 2 * t[:, TOP]) * (t[:, WIDTH] + 2 * t[:, LEFT]) * t[:, CHANNELS]
        outputs = t[:, OUT_HEIGHT] * t[:, OUT_WIDTH] * t[:, FILTERS]
        words = max(int(inputs.max()), int(outputs.max())) // 64 + 2
        return (
            np.zeros((6, max(words, int(t[:, WORDS].max()))), dtype=np.uint64),
            np.zeros(int(t[:, FILTERS].max()), dtype=np.int64),
            np.zeros(self.ranks.shape[0], dtype=np.int32),
        )


def channels_last(shape: tuple[int, int, int]) -> IntArray:
    """Place of each entry of a channel-major image when channels come last.

    >>> channels_last((2, 1, 3)).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    channels, height, width = shape
    places = np.arange(channels * height * width, dtype=np.int64)
    return places.reshape(height, width, channels).transpose(2, 0, 1).ravel()


def pack_stages(blocks: tuple[HiddenBlock, ...], output: OutputBlock) -> PackedStages:
    """Pack blocks that take signs, convolutions among them."""
    builder = _Builder()
    first = blocks[0] if blocks else output
    layout = first.input_shape if isinstance(first, ConvBlock) else None  # of the bits that arrive; None: flat
    order = None
    if layout is not None and layout[0] > 1:
        order = np.argsort(channels_last(layout))
    following: tuple[HiddenBlock | OutputBlock, ...] = (*blocks, output)[1:]
    for block, after in zip(blocks, following, strict=True):
        if isinstance(block, ConvBlock):
            if layout != block.input_shape:
                builder.rearrange(layout, block.input_shape)
            builder.convolution(block)
            layout = block.output_shape
        else:
            wanted = after.input_shape if isinstance(after, ConvBlock) else None
            builder.dense(block, layout, wanted)
            layout = wanted
    builder.dense(output, layout, None)
    return builder.stages(score_ranks(output), order)


class _Builder:
    """Stages so far."""

    def __init__(self) -> None:
        self.table: list[list[int]] = []
        self.words: list[Words] = []
        self.masks: list[Words] = []
        self.limits: list[IntArray] = []
        self.conjunctions: list[Words] = []
        self.at = [0, 0, 0]
        self.numbers: list[int] = []
        self.rows: list[IntArray] = []
        self.columns: list[IntArray] = []

    def convolution(self, block: ConvBlock) -> None:
        (channels, height, width), (rows, columns) = block.input_shape, block.kernel
        matrix = block.weights.transpose(0, 2, 3, 1).reshape(block.n_filters, -1)
        room = np.count_nonzero(matrix, axis=1) - block.thresholds
        absent = block.pad_value == 0 and block.padding != (0, 0)
        limits = (room + block.padded_sums().reshape(block.n_filters, -1).T if absent else room[None]) // 2
        geometry = [height, width, channels, *block.padding, rows, columns, *block.stride, *block.pool]
        geometry += [*block.output_shape[1:], block.positions[1]]
        self.numbers.append(len(self.table))
        self.rows.append(np.arange(block.n_filters, dtype=np.int64))
        self.columns.append(channels_last((channels, rows, columns)))
        self.add(geometry, matrix, limits, block.conjunction, block.pad_value)

    def dense(
        self,
        block: DenseBlock | OutputBlock,
        layout: tuple[int, int, int] | None,
        wanted: tuple[int, int, int] | None,
    ) -> None:
        n, m = block.n_inputs, block.weights.shape[0]
        columns = np.arange(n, dtype=np.int64) if layout is None else channels_last(layout)
        rows = np.arange(m, dtype=np.int64) if wanted is None else channels_last(wanted)
        matrix = np.zeros_like(block.weights)
        matrix[rows[:, None], columns] = block.weights
        room = np.count_nonzero(matrix, axis=1)
        if isinstance(block, DenseBlock):
            room[rows] -= block.thresholds
        self.numbers.append(len(self.table))
        self.rows.append(rows)
        self.columns.append(columns)
        self.add_matrix(matrix, room // 2)

    def rearrange(self, layout: tuple[int, int, int] | None, wanted: tuple[int, int, int]) -> None:
        """A stage that reads the same flat vector as an image of another shape: one input per neuron."""
        assert layout is not None  # a dense block before a convolution arranges its own rows
        matrix = np.zeros((channels_last(wanted).size, channels_last(layout).size), dtype=np.int8)
        matrix[channels_last(wanted), channels_last(layout)] = 1
        self.add_matrix(matrix, np.zeros(len(matrix), dtype=np.int64))

    def add_matrix(self, matrix: NDArray[np.int8], limits: IntArray) -> None:
        geometry = [1, 1, matrix.shape[1], 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
        self.add(geometry, matrix, limits[None], np.zeros(len(matrix), dtype=bool), 0)

    def add(
        self,
        geometry: list[int],
        matrix: NDArray[np.int8],
        limits: IntArray,
        conjunction: NDArray[np.bool_],
        pad_value: int,
    ) -> None:
        words, filters = pack_signs(matrix).T.copy(), len(matrix)
        flags = pack_signs(conjunction.astype(np.int8))
        step = filters if len(limits) > 1 else 0
        masked = bool((matrix == 0).any())
        absent = pad_value == 0 and (geometry[TOP] > 0 or geometry[LEFT] > 0)
        self.table.append([*geometry, filters, len(words), self.at[0], self.at[1], step, self.at[2]])
        self.table[-1] += [int(pad_value == 1), int(masked), int(absent)]
        self.words.append(words.ravel())
        self.masks.append(pack_signs(np.abs(matrix)).T.copy().ravel())
        self.limits.append(np.ascontiguousarray(limits, dtype=np.int64).ravel())
        self.conjunctions.append(flags)
        self.at = [self.at[0] + words.size, self.at[1] + limits.size, self.at[2] + flags.size]

    def stages(self, ranks: NDArray[np.int32], order: IntArray | None) -> PackedStages:
        return PackedStages(
            table=np.array(self.table, dtype=np.int64).reshape(-1, _COLUMNS),
            weights=np.concatenate(self.words),
            mask=np.concatenate(self.masks),
            limits=np.concatenate(self.limits),
            conjunction=np.concatenate(self.conjunctions),
            ranks=ranks,
            order=order,
            stages=tuple(self.numbers),
            rows=tuple(self.rows),
            columns=tuple(self.columns),
        )


@njit
def copy_bits(source, start, target, at, count):  # type: ignore[no-untyped-def]
    """Bits `start` to ``start + count`` of `source` over those of `target` from `at` on."""
    while count > 0:
        low, bit = start & 63, at & 63
        take = min(64 - bit, count)
        value = source[start >> 6] >> np.uint64(low)
        if low + take > 64:
            value |= source[(start >> 6) + 1] << np.uint64(64 - low)
        if take == 64:
            target[at >> 6] = value
        else:
            window = ((_ONE << np.uint64(take)) - _ONE) << np.uint64(bit)
            target[at >> 6] = (target[at >> 6] & ~window) | ((value << np.uint64(bit)) & window)
        start += take
        at += take
        count -= take


@njit
def _pad(source, row, padded):  # type: ignore[no-untyped-def]
    """The image `source` within its padding."""
    height, width, channels, top, left = row[HEIGHT], row[WIDTH], row[CHANNELS], row[TOP], row[LEFT]
    across = width + 2 * left
    bits = (height + 2 * top) * across * channels
    fill = _ALL if row[PAD_IS_PLUS] else np.uint64(0)
    for w in range((bits + 63) >> 6):
        padded[w] = fill
    if bits & 63:
        padded[bits >> 6] &= (_ONE << np.uint64(bits & 63)) - _ONE
    for y in range(height):
        copy_bits(source, y * width * channels, padded, ((y + top) * across + left) * channels, width * channels)


@njit
def forward_stages(  # type: ignore[no-untyped-def]
    image, begin, table, weights, mask, limits, conjunction, ranks, work, counts, out
):
    """Score ranks into `out` of the string of bits `image` that stage `begin` takes."""
    here = image
    patch, fired, pooled = work[3], work[4], work[5]
    for s in range(begin, table.shape[0]):
        row = table[s]
        filters, words, channels = row[FILTERS], row[WORDS], row[CHANNELS]
        kernel_rows, run = row[KERNEL_ROWS], row[KERNEL_COLUMNS] * channels
        if row[TOP] + row[LEFT] > 0:
            _pad(here, row, work[2])
            here = work[2]
        across = row[WIDTH] + 2 * row[LEFT]
        is_whole = kernel_rows == row[HEIGHT] + 2 * row[TOP] and row[KERNEL_COLUMNS] == across
        there = work[s & 1]
        for w in range((row[OUT_HEIGHT] * row[OUT_WIDTH] * filters + 63) >> 6):
            there[w] = 0
        patch[words - 1] = 0  # patches fill the same bits of it every time
        for i in range(row[OUT_HEIGHT]):
            for j in range(row[OUT_WIDTH]):
                for a in range(row[POOL_ROWS]):
                    for b in range(row[POOL_COLUMNS]):
                        y, x = i * row[POOL_ROWS] + a, j * row[POOL_COLUMNS] + b
                        if is_whole:
                            disagreements(here, weights, mask, row[WEIGHTS_AT], words, filters, row[IS_MASKED], counts)
                        else:
                            corner = (y * row[DOWN] * across + x * row[ACROSS]) * channels
                            for r in range(kernel_rows):
                                copy_bits(here, corner + r * across * channels, patch, r * run, run)
                            disagreements(patch, weights, mask, row[WEIGHTS_AT], words, filters, row[IS_MASKED], counts)
                        if s + 1 < table.shape[0]:
                            start = row[LIMITS_AT] + (y * row[PLACES] + x) * row[LIMITS_STEP]
                            pack_fired(counts, limits, start, filters, fired)
                            for w in range((filters + 63) >> 6):
                                if a + b == 0:
                                    pooled[w] = fired[w]
                                else:
                                    every = conjunction[row[CONJUNCTION_AT] + w]
                                    some = (pooled[w] | fired[w]) & ~every
                                    pooled[w] = some | (pooled[w] & fired[w] & every)
                copy_bits(pooled, 0, there, (i * row[OUT_WIDTH] + j) * filters, filters)
        here = there
    for k in range(out.shape[0]):
        out[k] = ranks[k, counts[k]]


@njit
def classes_of_stages(  # type: ignore[no-untyped-def]
    images, table, weights, mask, limits, conjunction, ranks, work, counts, out
):
    """Classes of packed inputs `(N, words)`."""
    classes = np.empty(images.shape[0], dtype=np.int64)
    for i in range(images.shape[0]):
        forward_stages(images[i], 0, table, weights, mask, limits, conjunction, ranks, work, counts, out)
        classes[i] = argmax_first(out)
    return classes
