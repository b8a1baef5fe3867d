"""Blocks as sparse rows over a box: what each pre-activation ranges over, and which inputs it reads.

Nothing is unrolled: a row is gathered only for the neurons that somebody asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bnnverify.blocks import DenseBlock
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import IntArray

FIXED_FALSE, OPEN, FIXED_TRUE = -1, 0, 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a block, entry after entry.

    Attributes:
        row: Place of the row in the list that was asked for, ascending; one number per entry.
        entry: Flat input that is read; ascending within a row of a dense block.
        weight: -1 or +1.
    """

    row: IntArray
    entry: IntArray
    weight: IntArray


def thresholds_of(block: HiddenBlock) -> IntArray:
    """The threshold of each neuron before pooling, flat."""
    if isinstance(block, DenseBlock):
        return block.thresholds
    return np.repeat(block.thresholds, math.prod(block.positions))


def ranges(block: HiddenBlock, low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
    """Least and greatest pre-activation of each neuron before pooling, flat, when inputs vary independently.

    Exact integers: products of matrices in floating point only where every partial sum is an integer below 2^24
    (float32) or 2^53 (float64).

    Args:
        block: A dense block or a convolution.
        low: Least value of each input, shape `(n,)`, int64.
        high: Greatest value of each input, likewise.
    """
    # twice the middle and the width of each input: both ends are (middle -+ |w| . width) / 2
    middle, width = low + high, high - low
    if isinstance(block, DenseBlock):
        matrix = block.weights
        columns = np.stack([middle, width])
    else:
        matrix = block.weights.reshape(block.n_filters, -1)
        columns = np.stack(
            [_patches(block, middle, 2 * block.pad_value).ravel(), _patches(block, width, 0).ravel()]
        ).reshape(2, -1, matrix.shape[1])
    reach = int(np.abs(columns).max(initial=1)) * matrix.shape[1]
    kind: Any = np.float32 if reach < 2**24 else np.float64 if reach < 2**53 else np.int64
    centre = np.asarray(matrix.astype(kind) @ columns[0].T.astype(kind)).astype(np.int64).ravel()
    radius = np.asarray(np.abs(matrix).astype(kind) @ columns[1].T.astype(kind)).astype(np.int64).ravel()
    return (centre - radius) // 2, (centre + radius) // 2


def _patches(block: ConvBlock, x: IntArray, pad_value: int) -> NDArray[Any]:
    """What each position sees: shape `(positions, cells)`."""
    (top, left), (down, across) = block.padding, block.stride
    padded = np.pad(x.reshape(block.input_shape), ((0, 0), (top, top), (left, left)), constant_values=pad_value)
    windows = sliding_window_view(padded, block.kernel, axis=(1, 2))[:, ::down, ::across]
    return windows.transpose(1, 2, 0, 3, 4).reshape(math.prod(block.positions), -1)


def gathered(block: HiddenBlock, which: IntArray) -> Rows:
    """The entries of the rows `which`: flat neurons before pooling, ascending. Padding reads no entry."""
    if isinstance(block, DenseBlock):
        row, entry = np.nonzero(block.weights[which])
        return Rows(row, entry, block.weights[which][row, entry].astype(np.int64))
    places = math.prod(block.positions)
    matrix = block.weights.reshape(block.n_filters, -1)
    entries = np.arange(block.n_inputs, dtype=np.int64) + 1
    seen = _patches(block, entries, 0)[which % places] - 1
    signs = np.where(seen >= 0, matrix[which // places], 0)
    row, cell = np.nonzero(signs)
    return Rows(row, np.asarray(seen[row, cell], dtype=np.int64), signs[row, cell].astype(np.int64))


def windows_of(block: HiddenBlock) -> tuple[IntArray, NDArray[np.bool_]] | None:
    """The neurons of each pooling window, shape `(outputs, size)`, and where a window is AND; None without pooling."""
    if isinstance(block, DenseBlock) or block.pool == (1, 1):
        return None
    rows, columns = block.positions
    (filters, height, width), (down, across) = block.output_shape, block.pool
    flat = np.arange(filters * rows * columns, dtype=np.int64).reshape(filters, rows, columns)
    cropped = flat[:, : height * down, : width * across].reshape(filters, height, down, width, across)
    members = cropped.transpose(0, 1, 3, 2, 4).reshape(-1, down * across)
    return members, np.repeat(block.conjunction, height * width)


def settled_by(thresholds: IntArray, low: IntArray, high: IntArray) -> NDArray[np.int8]:
    """`FIXED_TRUE` where the neuron fires throughout, `FIXED_FALSE` where it never does, else `OPEN`."""
    return np.where(low >= thresholds, FIXED_TRUE, np.where(high < thresholds, FIXED_FALSE, OPEN)).astype(np.int8)


def pooled(signs: NDArray[np.int8], members: IntArray, conjunction: NDArray[np.bool_]) -> NDArray[np.int8]:
    """What is settled of each window, given what is settled of its neurons."""
    inside = signs[members]
    return np.asarray(np.where(conjunction, inside.min(axis=1), inside.max(axis=1)), dtype=np.int8)
