"""Faulty chips of networks with convolutions: a flipped cell is wrong at every position of its filter.

Flips are drawn as in `montecarlo`; then the packed weights are toggled, the network is evaluated, and the toggles are
undone. In a first block on integers the sums of the fault-free chip are kept and corrected instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.engines.flips import cells_of, draw
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork
from bnnverify.packing import argmax_first
from bnnverify.stages import (
    ACROSS,
    CHANNELS,
    DOWN,
    FILTERS,
    HEIGHT,
    KERNEL_COLUMNS,
    LEFT,
    LIMITS_AT,
    LIMITS_STEP,
    OUT_HEIGHT,
    OUT_WIDTH,
    PAD_IS_ABSENT,
    PLACES,
    POOL_COLUMNS,
    POOL_ROWS,
    TOP,
    WEIGHTS_AT,
    WIDTH,
    forward_stages,
    pack_stages,
)

_ONE = np.uint64(1)


@njit
def _toggle(row, filter_, bit, weights, limits):  # type: ignore[no-untyped-def]
    """Flip one cell of the stage that `row` describes; done twice, everything is as before."""
    at = row[WEIGHTS_AT] + (bit >> 6) * row[FILTERS] + filter_
    weights[at] ^= _ONE << np.uint64(bit & 63)
    if row[PAD_IS_ABSENT] == 0:
        return
    # absent inputs hold -1, which each limit makes up for by half the sum of the weights over them
    change = 1 if (weights[at] >> np.uint64(bit & 63)) & _ONE else -1
    pixel = bit // row[CHANNELS]
    r, c = pixel // row[KERNEL_COLUMNS] - row[TOP], pixel % row[KERNEL_COLUMNS] - row[LEFT]
    for i in range(row[OUT_HEIGHT] * row[POOL_ROWS]):
        y = i * row[DOWN] + r
        row_is_absent = y < 0 or y >= row[HEIGHT]
        for j in range(row[OUT_WIDTH] * row[POOL_COLUMNS]):
            x = j * row[ACROSS] + c
            if row_is_absent or x < 0 or x >= row[WIDTH]:
                limits[row[LIMITS_AT] + (i * row[PLACES] + j) * row[LIMITS_STEP] + filter_] += change


@njit
def _correct(sums, padded, weights, stride, filter_, cell):  # type: ignore[no-untyped-def]
    """Flip one cell of the first block: its products change sign in the sums at all positions."""
    kernel_rows, kernel_columns = weights.shape[2], weights.shape[3]
    channel = cell // (kernel_rows * kernel_columns)
    r, c = cell // kernel_columns % kernel_rows, cell % kernel_columns
    twice = 2 * np.int64(weights[filter_, channel, r, c])
    for i in range(sums.shape[1]):
        for j in range(sums.shape[2]):
            sums[filter_, i, j] -= twice * padded[channel, i * stride[0] + r, j * stride[1] + c]


@njit
def _fire(sums, thresholds, pool, conjunction, places, bits):  # type: ignore[no-untyped-def]
    """Signs of the first block after pooling, each at its place in the string of bits."""
    for w in range(bits.shape[0]):
        bits[w] = 0
    output = 0
    for f in range(sums.shape[0]):
        for i in range(sums.shape[1] // pool[0]):
            for j in range(sums.shape[2] // pool[1]):
                firing = 0
                for a in range(pool[0]):
                    for b in range(pool[1]):
                        firing += sums[f, i * pool[0] + a, j * pool[1] + b] >= thresholds[f]
                fires = firing == pool[0] * pool[1] if conjunction[f] else firing > 0
                place = places[output]
                bits[place >> 6] |= np.uint64(fires) << np.uint64(place & 63)
                output += 1


@njit
def _is_wrong(  # type: ignore[no-untyped-def]
    bits, padded, base, sums, front, is_front, packed, weights, limits, cells, of_first, stages, scratch, flips, label
):
    """Whether the chip with these flips gives one image another class; `weights` and `limits` are left as they were."""
    table, mask, conjunction, ranks = packed[0], packed[2], packed[4], packed[5]
    kernels, thresholds, stride, pool, conjunctions, places = front
    work, counts, out = scratch
    if is_front:
        sums[:] = base
    for f in range(flips.shape[0]):
        cell = flips[f]
        if is_front and cell < of_first:
            _correct(sums, padded, kernels, stride, cells[cell, 0], cells[cell, 1])
        else:
            _toggle(table[stages[cell]], cells[cell, 0], cells[cell, 1], weights, limits)
    if is_front:
        _fire(sums, thresholds, pool, conjunctions, places, bits)
    forward_stages(bits, 0, table, weights, mask, limits, conjunction, ranks, work, counts, out)
    for f in range(flips.shape[0]):
        cell = flips[f]
        if not (is_front and cell < of_first):
            _toggle(table[stages[cell]], cells[cell, 0], cells[cell, 1], weights, limits)
    return argmax_first(out) != label


@njit(nogil=True)
def _sample(  # type: ignore[no-untyped-def]
    bits,
    padded,
    base,
    front,
    is_front,
    packed,
    cells,
    of_first,
    stages,
    cell_start,
    log_keeps,
    scratch,
    seed,
    samples,
    label,
):
    """Errors in `samples` chips for one image: packed `bits`, or `padded` integers with the sums `base`."""
    weights, limits, sums = packed[1].copy(), packed[3].copy(), base.copy()
    state = np.zeros(1, dtype=np.uint64)
    state[0] = seed
    flips = np.empty(cells.shape[0], dtype=np.int64)
    errors = 0
    for _ in range(samples):
        count = draw(state, cell_start, log_keeps, flips)
        errors += _is_wrong(
            bits,
            padded,
            base,
            sums,
            front,
            is_front,
            packed,
            weights,
            limits,
            cells,
            of_first,
            stages,
            scratch,
            flips[:count],
            label,
        )
    return errors


@njit(nogil=True)
def _judge(  # type: ignore[no-untyped-def]
    bits, padded, base, front, is_front, packed, cells, of_first, stages, scratch, flips, flip_starts, label, wrong
):
    """Adds 1 to `wrong` of each chip that gives one image another class; returns how many do."""
    weights, limits, sums = packed[1].copy(), packed[3].copy(), base.copy()
    errors = 0
    for chip in range(flip_starts.shape[0] - 1):
        missed = _is_wrong(
            bits,
            padded,
            base,
            sums,
            front,
            is_front,
            packed,
            weights,
            limits,
            cells,
            of_first,
            stages,
            scratch,
            flips[flip_starts[chip] : flip_starts[chip + 1]],
            label,
        )
        wrong[chip] += missed
        errors += missed
    return errors


class SharedCells:
    """Chips of a network with convolutions, for some images.

    Args:
        network: Any network; one with integer inputs has a hidden block.
        points: Shape `(N, n)`, inputs of the domain.
        faults: Rates of the cells.
    """

    def __init__(self, network: BinaryNetwork, points: NDArray[np.int64], faults: FaultModel) -> None:
        self._is_front = not network.domain.is_binary
        self._first, self._points = network.blocks[0], points
        self._packing = stages = pack_stages(network.blocks[self._is_front :], network.output)
        found = cells_of(network, faults)
        cells, self._starts, self._logs = found.places, found.starts, found.logs
        self._of_first = int(self._starts[0, -1])
        numbers = [-1] * self._is_front + list(stages.stages)
        self._stages = np.repeat(np.array(numbers, dtype=np.int64), self._starts[:, -1] - self._starts[:, 0])
        for b in range(self._is_front, len(numbers)):
            of_block = slice(self._starts[b, 0], self._starts[b, -1])
            cells[of_block, 0] = stages.rows[b - self._is_front][cells[of_block, 0]]
            cells[of_block, 1] = stages.columns[b - self._is_front][cells[of_block, 1]]
        self._cells = cells
        self._front = _front(network.blocks[0] if self._is_front else None, stages.order)

    def errors(self, index: int, label: int, seed: np.uint64, chips: int) -> int:
        """Chips that do not give image `index` the class `label`."""
        drawing = (self._starts, self._logs, self._packing.workspace(), seed, chips, label)
        return int(_sample(*self._image(index), *self._setting(), *drawing))

    def wrong(
        self, index: int, label: int, flips: NDArray[np.int64], starts: NDArray[np.int64], wrong: NDArray[np.int64]
    ) -> int:
        """How many of the chips with these flips miss `label` for image `index`; `wrong` grows by 1 for each of them.

        Args:
            index: Of the image.
            label: Its class.
            flips: Cells, chip after chip.
            starts: Where those of each chip begin, and the end.
            wrong: One number for each chip.
        """
        return int(
            _judge(*self._image(index), *self._setting(), self._packing.workspace(), flips, starts, label, wrong)
        )

    def _setting(self) -> tuple[Any, ...]:
        cells = (self._cells, self._of_first, self._stages)
        return (self._front, self._is_front, self._packing.loops, *cells)

    def _image(self, index: int) -> tuple[Any, ...]:
        """Bits of an image, or its padded integers and sums."""
        if self._is_front:
            bits = np.zeros(-(-self._first.n_outputs // 64), dtype=np.uint64)
            return (bits, *_integer_input(self._first, self._points[index]))
        none = np.zeros((0, 0, 0), dtype=np.int64)
        return self._packing.packed(self._points[index : index + 1])[0], none, none


def _as_convolution(block: HiddenBlock) -> ConvBlock:
    """A dense block as filters over an image of one pixel."""
    if isinstance(block, ConvBlock):
        return block
    kernels = block.weights[:, :, None, None]
    shape = (block.n_inputs, 1, 1)
    return ConvBlock.create(kernels, block.thresholds, input_shape=shape, mask=kernels != 0, negated=block.negated)


def _front(block: HiddenBlock | None, order: NDArray[np.int64] | None) -> tuple[Any, ...]:
    """Kernels, thresholds, stride, pool, conjunctions of the first block, and the place of each of its outputs."""
    if block is None:
        none = np.zeros(0, dtype=np.int64)
        return np.zeros((0, 0, 0, 0), dtype=np.int8), none, (1, 1), (1, 1), none.astype(bool), none
    conv = _as_convolution(block)
    places = np.arange(conv.n_outputs, dtype=np.int64) if order is None else np.argsort(order)
    kernels, thresholds, every = conv.weights.copy(), conv.thresholds.copy(), conv.conjunction.copy()
    return kernels, thresholds, conv.stride, conv.pool, every, places


def _integer_input(block: HiddenBlock, x: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The padded image, and the sums of the fault-free first block."""
    conv = _as_convolution(block)
    (top, left), image = conv.padding, x.reshape(conv.input_shape)
    padded = np.pad(image, ((0, 0), (top, top), (left, left)), constant_values=conv.pad_value)
    return padded, np.ascontiguousarray(conv.preactivations(x))
