"""Critical cells: those whose single flip changes the class of an image, counted over a data set, exact.

In a dense block a flip matters only at a neuron that one flip can switch, and then every cell that pulls the right
way does the same. So there is one evaluation of the following blocks for each such neuron, and the counts over many
images are a product of matrices. In a convolution a filter's map is recomputed for each of its cells, and the
following blocks are evaluated where the pooled map differs.

The counts are also the first order of the reliability: with B cells that break a right image, P(error) has the
derivative B at bit error rate 0, and for a wrong image minus the number of cells that repair it.

References:
    Ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain
from bnnverify.reliability.margins import Cell, exact_product, flips_needed
from bnnverify.results import Kind, Run

_CHUNK = 2048  # images at once; float32 counts them exactly
CHANGES, BREAKS, REPAIRS = range(3)
EVENTS = ("changes", "breaks", "repairs")


@dataclass(frozen=True, slots=True)
class CriticalCells:
    """Images that the flip of a single cell changes, by cell: all exact.

    Attributes:
        network: The network.
        changes: For each block, output block last, the number of images whose class the flip of a cell changes,
            int64 of shape `(rows, cells of a row)`; masked cells have 0.
        breaks: Likewise, images that were right and become wrong.
        repairs: Likewise, images that were wrong and become right.
        per_image: For each image the number of cells that change, break and repair it, int64 of shape `(N, 3)`.
        clean_correct: Images that are right without faults.
        run: How it was obtained; with a reason where a limit cut it short, and then `per_image` holds fewer images.
    """

    network: BinaryNetwork
    changes: tuple[IntArray, ...]
    breaks: tuple[IntArray, ...]
    repairs: tuple[IntArray, ...]
    per_image: IntArray
    clean_correct: int
    run: Run

    @property
    def n_images(self) -> int:
        """Images that were looked at."""
        return len(self.per_image)

    @property
    def kind(self) -> Kind:
        """EXACT, for the images that were looked at."""
        return Kind.EXACT

    def ranking(self, count: int, event: str = "breaks") -> list[tuple[Cell, int]]:
        """The cells with the most images, at most `count` of them, first those of the first block among equals.

        Raises:
            QueryError: The event is none of changes, breaks and repairs.
        """
        found: list[tuple[Cell, int]] = []
        for b, matrix in enumerate(self.of(event)):
            flat = matrix.ravel()
            for place in np.argsort(-flat, kind="stable")[:count].tolist():
                if flat[place]:
                    found.append(((b, place // matrix.shape[1], place % matrix.shape[1]), int(flat[place])))
        return sorted(found, key=lambda pair: -pair[1])[:count]

    def of(self, event: str) -> tuple[IntArray, ...]:
        """The counts of one event, by name."""
        if event not in EVENTS:
            raise QueryError(f"event is {event!r}, expected one of {', '.join(EVENTS)}.")
        counts: tuple[IntArray, ...] = getattr(self, event)
        return counts

    def block_totals(self, event: str = "breaks") -> tuple[int, ...]:
        """For each block the number of pairs of an image and a cell with the event."""
        return tuple(int(matrix.sum()) for matrix in self.of(event))

    def block_shares(self, event: str = "breaks") -> tuple[Fraction, ...]:
        """For each block the mean over its cells of the share of images with the event."""
        cells = [max(block.n_cells, 1) for block in self.network.all_blocks]
        pairs = zip(self.block_totals(event), cells, strict=True)
        return tuple(Fraction(total, n * max(self.n_images, 1)) for total, n in pairs)

    def critical(self, event: str = "breaks") -> tuple[int, ...]:
        """For each block the number of cells that have the event on some image."""
        return tuple(int(np.count_nonzero(matrix)) for matrix in self.of(event))

    @property
    def accuracy_slopes(self) -> tuple[tuple[Fraction, Fraction], ...]:
        """Derivative of the expected accuracy at zero faults, exact: for each block by the rate of stored +1 and -1.

        Their sum is the derivative by one bit error rate for all cells.
        """
        slopes = []
        for block, lost, won in zip(self.network.all_blocks, self.breaks, self.repairs, strict=True):
            gain, stored = won - lost, block.stored.reshape(lost.shape)
            slopes.append(tuple(Fraction(int(gain[stored == s].sum()), max(self.n_images, 1)) for s in (1, -1)))
        return tuple((plus, minus) for plus, minus in slopes)

    @property
    def accuracy_slope(self) -> Fraction:
        """Derivative of the expected accuracy by the bit error rate at 0, exact."""
        return sum((value for pair in self.accuracy_slopes for value in pair), Fraction(0))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line: totals, not the cells."""
        blocks = [
            {
                "cells": block.n_cells,
                **{event: totals[b] for event, totals in ((e, self.block_totals(e)) for e in EVENTS)},
                **{f"cells_with_{event}": self.critical(event)[b] for event in EVENTS},
                "accuracy_slope": [str(value) for value in self.accuracy_slopes[b]],
            }
            for b, block in enumerate(self.network.all_blocks)
        ]
        return {
            "type": "critical-cells",
            "kind": self.kind.value,
            "images": self.n_images,
            "clean_correct": self.clean_correct,
            "accuracy_slope": str(self.accuracy_slope),
            "blocks": blocks,
            "run": self.run.to_json(),
        }


@about_cells
def critical_cells(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int] | None = None,
    *,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> CriticalCells:
    """For every cell, the number of images whose class its single flip changes, breaks and repairs.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: True classes; without them the fault-free classes are right, so that breaks are changes.
        limits: Wall time; reached, the images so far count.
        monitor: Who may stop it.
        progress: Called with the number of images after each step.

    Returns:
        Exact counts over the images that were looked at.

    Raises:
        QueryError: No images, different numbers of images and labels, or a label that does not exist.
        UnsupportedError: Integer inputs without a hidden block.

    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [1]], bias=[1, 0]))
    >>> critical_cells(net, [[1]]).changes[0].tolist()  # class 0 leads by 1; flips of its own cell lose 2
    [[1], [0]]
    """
    points = network.require_images(images, labels)
    truth = None if labels is None else np.array([network.require_class(c) for c in labels], dtype=np.int64)
    clock = Clock(limits.seconds, monitor)
    counter = _Counter(network)
    done = correct = 0
    parts: list[IntArray] = []
    step = 1 if network.has_convolutions else _CHUNK
    while done < len(points) and not (clock.is_over and done):
        part = points[done : done + step]
        right = None if truth is None else truth[done : done + step]
        cells, hits = counter.add(part, right)
        parts.append(cells)
        correct += hits
        done += len(part)
        if progress is not None:
            progress(len(part))
    reason = "" if done == len(points) else f"{clock.reason}; {done} of {len(points)} images"
    run = Run("critical-cells", clock.elapsed, reason)
    changes, breaks, repairs = (tuple(matrix[event] for matrix in counter.counts) for event in range(3))
    return CriticalCells(network, changes, breaks, repairs, np.concatenate(parts), correct, run)


@about_cells
def classes_after_one_flip(network: BinaryNetwork, x: ArrayLike) -> tuple[IntArray, ...]:
    """The class of x after the flip of each single cell, exact.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        x: An input of the domain.

    Returns:
        For each block, output block last, int64 of shape `(rows, cells of a row)`; masked cells keep the class.
    """
    return _Counter(network).classes(network.domain.require(x)[None])


def first_critical_cell(network: BinaryNetwork, x: IntArray, reference: int, blocks: int) -> Cell | None:
    """A cell of the first `blocks` blocks whose flip takes the class of x off `reference`, or None if there is none."""
    counter, h = _Counter(network), x
    for b in range(blocks):
        classes = counter.block_classes(b, h, reference)
        places = np.argwhere(classes != reference)
        if len(places):
            return b, int(places[0, 0]), int(places[0, 1])
        h = network.blocks[b].outputs(h)
    return None


class _Counter:
    """Counts over images, and what evaluates the blocks behind each block."""

    def __init__(self, network: BinaryNetwork) -> None:
        if not network.blocks and not network.domain.is_binary:
            raise UnsupportedError("the network has integer inputs and no hidden block; expected at least one.")
        self.network = network
        shapes = [(len(block.weights), block.weights[0].size) for block in network.all_blocks]
        self.counts = [np.zeros((3, *shape), dtype=np.int64) for shape in shapes]
        self._rests: dict[int, PackedNetwork] = {}

    def rest(self, b: int) -> PackedNetwork:
        """The network behind block b, which takes the signs that block b gives."""
        if b not in self._rests:
            domain = InputDomain.binary(self.network.blocks[b].n_outputs)
            self._rests[b] = PackedNetwork(BinaryNetwork(domain, self.network.blocks[b + 1 :], self.network.output))
        return self._rests[b]

    def add(self, points: IntArray, truth: IntArray | None) -> tuple[IntArray, int]:
        """Count some images; returns the critical cells of each, `(N, 3)`, and the number of right images."""
        clean = self.network.evaluate_batch(points)
        truth = clean if truth is None else truth
        per_image = np.zeros((len(points), 3), dtype=np.int64)
        h = points
        for b, block in enumerate(self.network.blocks):
            is_signs = b > 0 or self.network.domain.is_binary
            if isinstance(block, DenseBlock) and is_signs:
                h = self._add_dense(b, block, h, clean, truth, per_image)
            else:
                for i, point in enumerate(h):
                    classes = self.block_classes(b, point, int(clean[i]))
                    for event, hit in enumerate(_events(classes, clean[i], truth[i])):
                        self.counts[b][event] += hit
                        per_image[i, event] += np.count_nonzero(hit)
                h = block.outputs(h)
        self._add_output(h, clean, truth, per_image)
        return per_image, int(np.count_nonzero(clean == truth))

    def _add_dense(
        self, b: int, block: DenseBlock, h: IntArray, clean: IntArray, truth: IntArray, per_image: IntArray
    ) -> IntArray:
        """Count a dense block on signs; returns its outputs."""
        signs, needed = flips_needed(block, h, is_signs=True)
        images, neurons = np.nonzero(needed == 1)
        switched = signs[images].astype(np.int8)
        switched[np.arange(len(images)), neurons] *= -1
        classes = self.rest(b).classes(switched)
        for event, hit in enumerate(_events(classes, clean[images], truth[images])):
            pull = np.zeros(signs.shape, dtype=np.int64)  # +1: agreeing cells do it, -1: disagreeing ones
            pull[images[hit], neurons[hit]] = signs[images[hit], neurons[hit]]
            self._count(b, event, block.weights, h, pull > 0, pull < 0, per_image)
        return signs

    def _add_output(self, h: IntArray, clean: IntArray, truth: IntArray, per_image: IntArray) -> None:
        output, b = self.network.output, len(self.network.blocks)
        sums = exact_product(h, output.weights)
        hits = np.zeros((3, 2, *sums.shape), dtype=bool)
        for k in range(output.n_classes):
            for direction, change in enumerate((-2, 2)):  # agreeing cells lower a sum, disagreeing ones raise it
                moved = sums.copy()
                moved[:, k] += change
                events = _events(self.network.classes_of_sums(moved), clean, truth)
                hits[:, direction, :, k] = events
        for event in range(3):
            self._count(b, event, output.weights, h, hits[event, 0], hits[event, 1], per_image)

    def _count(
        self,
        b: int,
        event: int,
        weights: NDArray[np.int8],
        h: IntArray,
        agreeing: NDArray[np.bool_],
        disagreeing: NDArray[np.bool_],
        per_image: IntArray,
    ) -> None:
        """Count the agreeing cells of the rows marked in one matrix `(N, rows)`, the disagreeing ones in the other."""
        pull = agreeing.astype(np.int64) - disagreeing
        total = agreeing.sum(axis=0) + disagreeing.sum(axis=0)
        present = np.abs(weights.astype(np.int64))
        self.counts[b][event] += (total[:, None] * present + weights * exact_product(pull.T, h.T)) // 2
        sums, cells = exact_product(h, weights), present.sum(axis=1)
        per_image[:, event] += (agreeing * (cells + sums) // 2 + disagreeing * (cells - sums) // 2).sum(axis=1)

    def classes(self, h: IntArray) -> tuple[IntArray, ...]:
        """As `classes_after_one_flip`, of an input in a batch of one."""
        network = self.network
        clean = int(network.evaluate_batch(h)[0])
        found = []
        for b, block in enumerate(network.blocks):
            found.append(self.block_classes(b, h[0], clean))
            h = block.outputs(h)
        sums, weights = exact_product(h, network.output.weights), network.output.weights
        last = np.full(weights.shape, clean, dtype=np.int64)
        for k in range(network.n_classes):
            for agreement in (1, -1):
                moved = sums.copy()
                moved[0, k] -= 2 * agreement
                last[k, weights[k] * h[0] == agreement] = network.classes_of_sums(moved)[0]
        return (*found, last)

    def block_classes(self, b: int, x: IntArray, clean: int) -> IntArray:
        """The class after the flip of each cell of a hidden block whose input is x."""
        block = self.network.blocks[b]
        if isinstance(block, ConvBlock):
            return self._filter_classes(b, block, x, clean)
        products = block.weights * x
        sums = products.sum(axis=1)
        fires = sums >= block.thresholds
        after = (sums[:, None] - 2 * products) >= block.thresholds[:, None]
        matters = (after != fires[:, None]) & (block.weights != 0)
        classes = np.full(matters.shape, clean, dtype=np.int64)
        rows = np.flatnonzero(matters.any(axis=1))
        switched = np.repeat(np.where(fires, 1, -1).astype(np.int8)[None], len(rows), axis=0)
        switched[np.arange(len(rows)), rows] *= -1
        for j, found in zip(rows.tolist(), self.rest(b).classes(switched).tolist(), strict=True):
            classes[j, matters[j]] = found
        return classes

    def _filter_classes(self, b: int, block: ConvBlock, x: IntArray, clean: int) -> IntArray:
        patches, sums = _patches(block, x), block.preactivations(x).reshape(block.n_filters, -1)
        outputs = block.outputs(x).astype(np.int8)
        maps = outputs.reshape(block.n_filters, -1)
        classes = np.full((block.n_filters, block.weights[0].size), clean, dtype=np.int64)
        for f in range(block.n_filters):
            weights = block.weights[f].ravel().astype(np.int64)
            moved = sums[f] - 2 * weights[:, None] * patches.T
            pooled = _pooled(block, f, moved >= block.thresholds[f])
            cells = np.flatnonzero((pooled != maps[f]).any(axis=1))
            if not len(cells):
                continue
            different, which = np.unique(pooled[cells], axis=0, return_inverse=True)
            switched = np.repeat(outputs[None], len(different), axis=0)
            size = maps.shape[1]
            switched[:, f * size : (f + 1) * size] = different
            classes[f, cells] = self.rest(b).classes(switched)[which.ravel()]
        return classes


def _patches(block: ConvBlock, x: IntArray) -> IntArray:
    """What lies under a filter at each position: shape `(positions, cells)`."""
    (top, left), image = block.padding, x.reshape(block.input_shape)
    padded = np.pad(image, ((0, 0), (top, top), (left, left)), constant_values=block.pad_value)
    windows = sliding_window_view(padded, block.kernel, axis=(1, 2))[:, :: block.stride[0], :: block.stride[1]]
    return windows.transpose(1, 2, 0, 3, 4).reshape(-1, block.weights[0].size)


def _pooled(block: ConvBlock, f: int, fires: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Signs of filter f after pooling, from what fires: `(N, positions)` -> `(N, pooled positions)`."""
    (down, across), (_, height, width) = block.pool, block.output_shape
    maps = fires.reshape(-1, *block.positions)[:, : height * down, : width * across]
    windows = maps.reshape(-1, height, down, width, across)
    some = windows.all(axis=(2, 4)) if block.conjunction[f] else windows.any(axis=(2, 4))
    return np.where(some, 1, -1).astype(np.int8).reshape(len(fires), -1)


def _events(classes: IntArray, clean: Any, truth: Any) -> tuple[NDArray[np.bool_], ...]:
    """Where a class is a change, a break, a repair."""
    changed = classes != clean
    return changed, changed & (clean == truth), changed & (classes == truth)
