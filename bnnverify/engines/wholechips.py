"""Whole chips: how many of all images each faulty chip gets right, as fast as bit-slicing makes it.

`SlicedChips` serves dense blocks. Everything that no fault changes is computed once; a chip then costs its flips in the
first block, and sums over the later ones. `StagedChips` serves convolutions, one image at a time with toggled cells.
Chips are named by seeds: what a chip gets wrong depends on its seed alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import OutputBlock
from bnnverify.compilation import njit
from bnnverify.engines.chips import SharedCells
from bnnverify.engines.flips import Cells, cells_of, drawn
from bnnverify.engines.reads import ReadChips
from bnnverify.engines.slices import (
    CHUNK,
    digits_for,
    fire,
    margins_of_rows,
    planes_of,
    refire,
    right_by_counts,
    right_by_ranks,
)
from bnnverify.faults import FaultModel, PerRead
from bnnverify.kernels import disagreement_limits
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.packing import score_ranks
from bnnverify.vectors import address

BATCH = 32  # chips that pass over a chunk of images together
_MOST_OFFSET = 2**16  # of a class, in agreements; beyond it scores are compared by rank
_ONE = np.uint64(1)


class Chips(Protocol):
    """Chips of one network over some images; calls from several threads are fine."""

    def wrong(self, seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Wrong images of each chip, and chips that get each image wrong."""


def whole_chips(
    network: BinaryNetwork, points: NDArray[np.int64], labels: NDArray[np.int64], faults: FaultModel
) -> Chips:
    """The fastest way to evaluate whole chips of this network."""
    if isinstance(faults, PerRead):
        return ReadChips(network, points, labels, faults)
    return (StagedChips if network.has_convolutions else SlicedChips)(network, points, labels, faults)


@njit(nogil=True)
def _group(flips, flip_starts, places, signs, of_first, rows):  # type: ignore[no-untyped-def]
    """Flips of the first block by neuron: entries where the flipped cells agree, and the neurons that have any."""
    chips = flip_starts.shape[0] - 1
    entries = np.empty(flips.shape[0], dtype=np.int64)
    touched = np.empty(min(flips.shape[0], chips * rows), dtype=np.int64)
    starts = np.empty(touched.shape[0] + chips, dtype=np.int64)
    touched_at = np.zeros(chips + 1, dtype=np.int64)
    later_at = np.empty(chips, dtype=np.int64)
    counts = np.empty(rows + 1, dtype=np.int64)
    at = 0
    for chip in range(chips):
        begin, end = flip_starts[chip], flip_starts[chip + 1]
        stop = begin
        while stop < end and flips[stop] < of_first:
            stop += 1
        later_at[chip] = stop
        counts[:] = 0
        for f in range(begin, stop):
            counts[places[flips[f], 0] + 1] += 1
        number = 0
        for j in range(rows):
            if counts[j + 1]:
                touched[at + number] = j
                starts[at + chip + number] = begin + counts[j]
                number += 1
            counts[j + 1] += counts[j]
        starts[at + chip + number] = stop
        for f in range(begin, stop):
            cell = flips[f]
            j = places[cell, 0]
            entries[begin + counts[j]] = 2 * places[cell, 1] + (signs[cell] < 0)
            counts[j] += 1
        at += number
        touched_at[chip + 1] = at
    return entries, touched, starts, touched_at, later_at


@njit(nogil=True)
def _refire_integers(sums, inputs, thresholds, flips, flip_starts, touched, count, work, hidden):  # type: ignore[no-untyped-def]
    """As `slices.refire` where the inputs are integers: `sums[neuron, 512]`, `inputs[input, 512]`."""
    for t in range(count):
        j = touched[t]
        work[:] = sums[j]
        for f in range(flip_starts[t], flip_starts[t + 1]):
            column = inputs[flips[f] >> 1]
            if flips[f] & 1:
                work += 2 * column
            else:
                work -= 2 * column
        for w in range(8):
            word = np.uint64(0)
            for i in range(64):
                word |= np.uint64(work[64 * w + i] >= thresholds[j]) << np.uint64(i)
            hidden[j, w] = word


@njit(nogil=True)
def _wrong(  # type: ignore[no-untyped-def]
    flips, flip_starts, grouped, first, later, output, labels, valid, wrong, errors
):
    """Wrong images of each chip into `wrong`, wrong chips of each image into `errors`."""
    entries, touched, starts, touched_at, later_at = grouped
    has_first, is_integer, planes, margins, clean, sums, inputs, limits, first_top = first
    rows, row_starts, constants, shapes, entry_at, of_first = later
    by_rank, offsets, order, ranks, output_top = output
    rows = rows.copy()
    widest = max(clean.shape[1], 1)
    for s in range(shapes.shape[0]):
        widest = max(widest, shapes[s, 1])
    hidden = np.zeros((2, widest, 8), dtype=np.uint64)
    digits = np.zeros((64, 8), dtype=np.uint64)
    counts = np.zeros((shapes[shapes.shape[0] - 1, 1], CHUNK), dtype=np.int64)
    right = np.zeros(8, dtype=np.uint64)
    work = np.zeros(CHUNK, dtype=sums.dtype)
    last = shapes.shape[0] - 1
    for c in range(planes.shape[0] if has_first == 0 else clean.shape[0]):
        for chip in range(flip_starts.shape[0] - 1):
            here = 0
            source = address(planes[c])
            if has_first:
                hidden[0, : clean.shape[1]] = clean[c]
                a, b = touched_at[chip], touched_at[chip + 1]
                mine = starts[a + chip : b + chip + 1]
                if is_integer:
                    _refire_integers(sums[c], inputs[c], limits, entries, mine, touched[a:b], b - a, work, hidden[0])
                else:
                    refire(planes[c], margins[c], entries, mine, touched[a:b], b - a, first_top, digits, hidden[0])
                source = address(hidden[0])
            for f in range(later_at[chip], flip_starts[chip + 1]):
                rows[entry_at[flips[f] - of_first]] ^= 1
            for s in range(last):
                begin, count, top = shapes[s, 0], shapes[s, 1], shapes[s, 2]
                span = row_starts[begin : begin + count + 1]
                fire(source, rows, span, constants[begin : begin + count], top, digits, hidden[1 - here])
                here = 1 - here
                source = address(hidden[here])
            begin, count = shapes[last, 0], shapes[last, 1]
            span = row_starts[begin : begin + count + 1]
            if by_rank:
                right_by_ranks(source, rows, span, ranks, labels[c], output_top, digits, counts, right)
            else:
                right_by_counts(source, rows, span, offsets, order, labels[c], output_top, digits, right)
            for f in range(later_at[chip], flip_starts[chip + 1]):
                rows[entry_at[flips[f] - of_first]] ^= 1
            for w in range(8):
                word = valid[c, w] & ~right[w]
                while word:
                    low = word & (~word + _ONE)
                    place = 0  # of the one bit of `low`
                    for shift in (32, 16, 8, 4, 2, 1):
                        if low >> np.uint64(place + shift):
                            place += shift
                    errors[CHUNK * c + 64 * w + place] += 1
                    wrong[chip] += 1
                    word ^= low


class SlicedChips:
    """Chips of a network of dense blocks.

    Args:
        network: Dense blocks only; one with integer inputs has a hidden block.
        points: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the class that is right.
        faults: Rates of the cells, permanent.
    """

    def __init__(
        self, network: BinaryNetwork, points: NDArray[np.int64], labels: NDArray[np.int64], faults: FaultModel
    ) -> None:
        self.cells = cells = cells_of(network, faults)
        self._count = len(points)
        self._of_first = int(cells.starts[0, -1]) if network.blocks else 0
        self._rows = network.widths[1]
        is_integer = not network.domain.is_binary
        planes = planes_of(np.zeros((len(points), 0))) if is_integer else planes_of(points)
        self._first = _first_block(network, points, planes, is_integer)
        self._later, self._output = _later_blocks(network, cells, self._of_first)
        marks = labels[:, None] == np.arange(network.n_classes)
        self._labels = planes_of(np.where(marks, 1, -1))
        self._valid = planes_of(np.ones((len(points), 1)))[:, 0]

    def wrong(self, seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `Chips`."""
        flips, starts = drawn(self.cells, seeds)
        wrong = np.zeros(len(seeds), dtype=np.int64)
        errors = np.zeros(len(self._labels) * CHUNK, dtype=np.int64)
        grouped = _group(flips, starts, self.cells.places, self.cells.signs, self._of_first, self._rows)
        _wrong(flips, starts, grouped, self._first, self._later, self._output, self._labels, self._valid, wrong, errors)
        return wrong, errors[: self._count]


def _first_block(network: BinaryNetwork, points: Any, planes: Any, is_integer: bool) -> tuple[Any, ...]:
    """What `_wrong` needs of the first hidden block."""
    none, nothing = np.zeros((1, 0, 1, 8), dtype=np.uint64), np.zeros((1, 0, CHUNK), dtype=np.int32)
    no_limits = np.zeros(0, dtype=np.int64)
    if not network.blocks:
        clean = np.zeros((len(planes), 0, 8), dtype=np.uint64)
        return 0, 0, planes, none, clean, nothing, nothing, no_limits, 0
    block = network.blocks[0]
    assert isinstance(block, DenseBlock)
    if is_integer:
        reach = 3 * int(np.maximum(np.abs(network.domain.lower), np.abs(network.domain.upper)).sum())
        kind = np.int32 if reach < 2**31 else np.int64
        chunks = -(-len(points) // CHUNK)
        padded = np.zeros((chunks * CHUNK, block.n_inputs), dtype=np.int64)
        padded[: len(points)] = points
        inputs = np.ascontiguousarray(padded.reshape(chunks, CHUNK, -1).transpose(0, 2, 1).astype(kind))
        exact = block.preactivations(padded)
        sums = np.ascontiguousarray(exact.reshape(chunks, CHUNK, -1).transpose(0, 2, 1).astype(kind))
        clean = planes_of(np.where(exact >= block.thresholds, 1, -1))
        return 1, 1, planes, none, clean, sums, inputs, block.thresholds.copy(), 0
    top = digits_for(2 * block.n_inputs + 2)
    entries, starts = _entries(block.weights, 1)
    margins = np.zeros((len(planes), block.n_outputs, top, 8), dtype=np.uint64)
    margins_of_rows(planes, entries, starts, -disagreement_limits(block).astype(np.int64) - 1, top, margins)
    clean = np.ascontiguousarray(margins[:, :, top - 1])
    return 1, 0, planes, margins, clean, nothing, nothing, no_limits, top


def _entries(weights: NDArray[np.int8], inverted: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries of all present cells row by row, inverted where the weight has the sign `inverted`."""
    places = np.argwhere(weights != 0)
    signs = weights[places[:, 0], places[:, 1]]
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(weights, axis=1))]).astype(np.int64)
    return np.ascontiguousarray(2 * places[:, 1] + (signs == inverted)), starts


def _later_blocks(network: BinaryNetwork, cells: Cells, of_first: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What `_wrong` needs of all blocks but the first hidden one, and of how classes are compared."""
    output = network.output
    common = _common_scale(output)
    rows, starts, constants, shapes, entry_at = [], [], [], [], []
    entry, row = 0, 0
    for b, block in enumerate(network.all_blocks):
        if b == 0 and network.blocks:
            continue
        inverted = 1
        if isinstance(block, OutputBlock) and common is not None and output.scale[0] > 0:
            inverted = -1  # count agreements
        entries, begins = _entries(block.weights, inverted)
        number = np.cumsum(block.weights.ravel() != 0) - 1  # of a present cell within the block
        mine = cells.places[cells.starts[b, 0] : cells.starts[b, -1]]
        entry_at.append(entry + number[mine[:, 0] * block.n_inputs + mine[:, 1]])
        rows.append(entries)
        starts.append(begins + entry)
        entry += len(entries)
        shapes.append((row, len(block.weights), digits_for(block.n_inputs + 1)))
        row += len(begins)
        limits = disagreement_limits(block) if isinstance(block, DenseBlock) else np.zeros(len(block.weights))
        constants.append(np.concatenate([-limits.astype(np.int64) - 1, [0]]))
    table = np.array(shapes, dtype=np.int64)
    later = (*map(np.concatenate, (rows, starts, constants)), table, np.concatenate(entry_at), of_first)
    ranks = score_ranks(output)
    none = np.zeros(0, dtype=np.int64)
    if common is None:
        return later, (1, none, none, ranks, digits_for(output.n_inputs + 1))
    offsets, order = common
    return later, (0, offsets, order, ranks, digits_for(output.n_inputs + int(offsets.max()) + 1))


def _common_scale(output: OutputBlock) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Offsets, in agreements, and the order in which ties go; None if scores must be compared by rank.

    With one scale a > 0 the score of class k is 2 a (agreements + q) + r with 0 <= r < 2 a: compare the integers, and
    let ties go by r, then by index. With a < 0 agreements become disagreements.
    """
    scales, biases = output.integer_form()
    if not output.has_common_scale or scales[0] == 0:
        return None
    twice = 2 * abs(scales[0])
    present = np.count_nonzero(output.weights, axis=1).tolist()
    parts = [divmod(b - abs(scales[0]) * n, twice) for b, n in zip(biases, present, strict=True)]
    least = min(q for q, _ in parts)
    offsets = [q - least for q, _ in parts]
    if max(offsets) > _MOST_OFFSET:
        return None
    order = sorted(range(output.n_classes), key=lambda k: (-parts[k][1], k))
    return np.array(offsets, dtype=np.int64), np.array(order, dtype=np.int64)


class StagedChips:
    """Chips of a network with convolutions; the arguments of `SlicedChips`."""

    def __init__(
        self, network: BinaryNetwork, points: NDArray[np.int64], labels: NDArray[np.int64], faults: FaultModel
    ) -> None:
        self.cells = cells_of(network, faults)
        self._chips, self._labels = SharedCells(network, points, faults), labels

    def wrong(self, seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `Chips`."""
        flips, starts = drawn(self.cells, seeds)
        wrong, errors = np.zeros(len(seeds), dtype=np.int64), np.zeros(len(self._labels), dtype=np.int64)
        for i, label in enumerate(self._labels.tolist()):
            errors[i] = self._chips.wrong(i, label, flips, starts, wrong)
        return wrong, errors
