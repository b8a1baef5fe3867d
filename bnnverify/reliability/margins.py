"""How many flipped cells each neuron needs to change its sign, which ones, and the class with given cells flipped.

A flip of the cell (j, i) moves the pre-activation of neuron j by ``2 |x_i|``, down if the cell agrees with its input
(``w_ji x_i > 0``), up if it disagrees. So the least number of flips takes the helpful cells with the largest inputs
first. Cells are named (block, row, column); the row of a cell of a convolution is its filter, the column its place
there in channel-major order.

References:
    Ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork, DenseBlock

Cell = tuple[int, int, int]

NEVER = 2**62  # more flips than there are cells: no set of flips changes this sign


def flips_needed(block: DenseBlock, x: IntArray, *, is_signs: bool) -> tuple[IntArray, IntArray]:
    """Signs of all neurons of a block, and the least number of flips of own cells that changes each, exact.

    Args:
        block: A dense block.
        x: Its inputs, shape `(N, n)`, int64.
        is_signs: True if all inputs are -1/+1, which is much faster.

    Returns:
        Signs -1/+1 and numbers of flips (`NEVER` where none suffice), both int64 of shape `(N, m)`.
    """
    if is_signs:
        sums = exact_product(x, block.weights)
        return needs_of_sums(sums, block.thresholds, np.count_nonzero(block.weights, axis=1))
    signs, needed = np.empty((2, len(x), block.n_outputs), dtype=np.int64)
    for i, point in enumerate(x):
        signs[i], needed[i] = _needed_on_integers(block, point)
    return signs, needed


def needs_of_sums(sums: IntArray, thresholds: IntArray, present: IntArray) -> tuple[IntArray, IntArray]:
    """As `flips_needed`, from pre-activations on signs: one flip moves a sum by 2, as long as there are cells."""
    fires = sums >= thresholds
    needed = np.where(fires, (sums - thresholds) // 2 + 1, (thresholds - sums + 1) // 2)
    helpful = np.where(fires, present + sums, present - sums) // 2
    return np.where(fires, 1, -1).astype(np.int64), np.where(needed <= helpful, needed, NEVER)


def _needed_on_integers(block: DenseBlock, x: IntArray) -> tuple[IntArray, IntArray]:
    """As `flips_needed`, for one input of integers."""
    products = block.weights * x
    sums = products.sum(axis=1)
    fires = sums >= block.thresholds
    order = np.argsort(-np.abs(x), kind="stable")
    toward = np.where(fires[:, None], products, -products)[:, order]  # what a flip takes off the margin, halved
    helpful = toward > 0
    gained = 2 * np.cumsum(np.where(helpful, toward, 0), axis=1)
    missing = np.where(fires, sums - block.thresholds + 1, block.thresholds - sums)
    enough = gained >= missing[:, None]
    at = np.argmax(enough, axis=1)
    flips = np.cumsum(helpful, axis=1)[np.arange(at.size), at]
    return np.where(fires, 1, -1).astype(np.int64), np.where(enough.any(axis=1), flips, NEVER)


def switching_cells(block: DenseBlock, x: IntArray, row: int) -> list[int]:
    """Columns of one least set of cells of a row whose flips change the sign of the neuron.

    The neuron must be one that `flips_needed` gives a number to.
    """
    products = block.weights[row] * np.asarray(x, dtype=np.int64)
    total, threshold = int(products.sum()), int(block.thresholds[row])
    fires = total >= threshold
    toward = products if fires else -products
    chosen: list[int] = []
    for i in np.argsort(-toward, kind="stable").tolist():
        if (total >= threshold) != fires:
            return chosen
        total -= 2 * int(products[i])
        chosen.append(i)
    return chosen  # all of them


def exact_product(x: IntArray, weights: ArrayLike) -> IntArray:
    """``x @ weights.T`` in int64; through float64 while every partial sum is exact there."""
    matrix = np.asarray(weights)
    reach = max(int(np.abs(x).max(initial=0)), 1) * matrix.shape[-1]
    if reach < 2**24:
        return np.asarray(x.astype(np.float32) @ matrix.T.astype(np.float32)).astype(np.int64)
    if reach < 2**53:
        return np.asarray(x.astype(np.float64) @ matrix.T.astype(np.float64)).astype(np.int64)
    return np.asarray(x @ matrix.T.astype(np.int64))


def class_with_flips(network: BinaryNetwork, x: ArrayLike, cells: Iterable[Cell]) -> int:
    """Class of x on the chip whose given cells are flipped, exact.

    Args:
        network: Any network.
        x: An input of the domain.
        cells: Different cells (block, row, column).

    Raises:
        QueryError: A cell does not exist, is masked out, or is named twice.
        ModelError: The input does not lie in the domain.

    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]]))
    >>> class_with_flips(net, [1], []), class_with_flips(net, [1], [(0, 0, 0), (0, 1, 0)])
    (0, 1)
    """
    matrices = [block.weights.reshape(len(block.weights), -1).copy() for block in network.all_blocks]
    seen: set[Cell] = set()
    for cell in cells:
        b, row, column = (int(v) for v in cell)
        inside = 0 <= b < len(matrices) and 0 <= row < matrices[b].shape[0] and 0 <= column < matrices[b].shape[1]
        if not inside or matrices[b][row, column] == 0 or (b, row, column) in seen:
            raise QueryError(f"cell {(b, row, column)} is masked out, does not exist or is named twice.")
        seen.add((b, row, column))
        matrices[b][row, column] *= -1
    h = network.domain.require(x)
    for matrix, block in zip(matrices, network.blocks, strict=False):
        if isinstance(block, ConvBlock):
            h = _flipped_convolution(block, matrix).outputs(h)
        else:
            h = np.where(matrix.astype(np.int64) @ h >= block.thresholds, 1, -1).astype(np.int64)
    return int(network.classes_of_sums((matrices[-1].astype(np.int64) @ h)[None])[0])


def _flipped_convolution(block: ConvBlock, matrix: ArrayLike) -> ConvBlock:
    return ConvBlock(
        np.asarray(matrix, dtype=np.int8).reshape(block.weights.shape),
        block.thresholds,
        block.negated,
        block.input_shape,
        block.stride,
        block.padding,
        block.pad_value,
        block.pool,
        block.conjunction,
    )
