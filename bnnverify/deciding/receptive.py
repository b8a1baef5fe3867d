"""Which unstable bits the outputs of a block see, and how: the outputs in patches that see few of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.convolution import ConvBlock
from bnnverify.deciding.intervals import BlockBounds, Signs
from bnnverify.deciding.patchtables import fill_table
from bnnverify.domain import IntArray
from bnnverify.network import HiddenBlock


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Some unstable outputs of a block and some of the unstable bits that they see.

    Attributes:
        outputs: Flat indices of the outputs.
        bits: Flat indices of what the block takes, ascending.
        weights: Shape `(bits, rows)`: a row is one position of one output.
        low: Least sum of each row over everything but these bits.
        high: The greatest.
        limits: Threshold of each row.
        first: First row of each output, and at the end the number of rows.
        every: By output, True if all its rows must fire for +1, False if one suffices.
    """

    outputs: IntArray
    bits: IntArray
    weights: IntArray
    low: IntArray
    high: IntArray
    limits: IntArray
    first: IntArray
    every: NDArray[np.bool_]

    def table(self, costs: IntArray) -> IntArray:
        """Greatest sums of the outputs by assignment of the bits, shape `(2^bits, sums)`.

        Args:
            costs: Shape `(sums, n)` over all outputs of the block.
        """
        table = np.empty((1 << len(self.bits), len(costs)), dtype=np.int64)
        here = np.ascontiguousarray(costs[:, self.outputs].T)
        fill_table(self.weights, self.low, self.high, self.limits, self.first, self.every, here, table)
        return table


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Unstable outputs at one place: rows `(outputs, positions, bits)` over all bits that any of them sees."""

    outputs: IntArray
    bits: IntArray
    rows: IntArray
    middle: IntArray  # (outputs, positions): sums with the bits at 0
    limits: IntArray
    every: NDArray[np.bool_]

    def patch(self, which: IntArray, bits: IntArray) -> Patch:
        """The patch of some outputs over some bits; the other bits are left free."""
        rows = self.rows[which]
        inside = rows[:, :, bits]
        reach = np.abs(rows).sum(axis=2) - np.abs(inside).sum(axis=2)
        middle, positions = self.middle[which], rows.shape[1]
        return Patch(
            outputs=self.outputs[which],
            bits=self.bits[bits],
            weights=np.ascontiguousarray(inside.reshape(-1, len(bits)).T),
            low=(middle - reach).reshape(-1),
            high=(middle + reach).reshape(-1),
            limits=np.repeat(self.limits[which], positions),
            first=np.arange(len(which) + 1, dtype=np.int64) * positions,
            every=self.every[which],
        )

    def patches(self, most: int) -> Iterator[Patch]:
        """All outputs in patches of at most `most` bits; one that sees more has the others left free."""
        if len(self.bits) <= most:
            yield self.patch(np.arange(len(self.outputs)), np.arange(len(self.bits)))
            return
        seen = (self.rows != 0).any(axis=1)
        wide = np.flatnonzero(seen.sum(axis=1) > most)
        if wide.size:
            often = np.argsort(-np.abs(self.rows[wide]).sum(axis=(0, 1)), kind="stable")[:most]
            yield self.patch(wide, np.sort(often))
        rest = [int(o) for o in np.flatnonzero(seen.sum(axis=1) <= most)]
        while rest:
            group, union = [rest[0]], seen[rest[0]].copy()
            for o in rest[1:]:
                if (union | seen[o]).sum() <= most:
                    group.append(o)
                    union |= seen[o]
            yield self.patch(np.array(group), np.flatnonzero(union))
            taken = set(group)
            rest = [o for o in rest if o not in taken]


def patches_of(block: HiddenBlock, bounds: BlockBounds, inputs: Signs, most: int) -> list[Patch]:
    """The unstable outputs of a block in patches.

    Args:
        block: Takes signs: not the first block over integers.
        bounds: Its interval bounds, given `inputs`.
        inputs: What it takes, flat; 0 for the bits.
        most: Greatest number of bits in a patch.

    Returns:
        Patches that hold every unstable output once.
    """
    places = _conv_places(block, bounds, inputs) if isinstance(block, ConvBlock) else _dense(block, bounds, inputs)
    return [patch for place in places for patch in place.patches(most)]


def _dense(block: Any, bounds: BlockBounds, inputs: Signs) -> Iterator[_Seen]:
    bits, outputs = np.flatnonzero(inputs == 0), np.flatnonzero(bounds.signs == 0)
    if outputs.size:
        yield _Seen(
            outputs=outputs,
            bits=bits,
            rows=block.weights[outputs][:, None, bits].astype(np.int64),
            middle=((bounds.low + bounds.high) // 2)[outputs, None],
            limits=block.thresholds[outputs],
            every=np.zeros(len(outputs), dtype=bool),
        )


def _conv_places(block: ConvBlock, bounds: BlockBounds, inputs: Signs) -> Iterator[_Seen]:
    unstable = (bounds.signs == 0).reshape(block.output_shape)
    free = (inputs == 0).reshape(block.input_shape)
    middle = (bounds.low + bounds.high) // 2
    (down, across), (rows, columns) = block.stride, block.kernel
    steps = [(a, b) for a in range(block.pool[0]) for b in range(block.pool[1])]
    flat = np.arange(block.n_outputs).reshape(block.output_shape)
    for i, j in np.argwhere(unstable.any(axis=0)).tolist():
        filters = np.flatnonzero(unstable[:, i, j])
        places = [(i * block.pool[0] + a, j * block.pool[1] + b) for a, b in steps]
        corners = [(y * down - block.padding[0], x * across - block.padding[1]) for y, x in places]
        top, left = max(corners[0][0], 0), max(corners[0][1], 0)
        found = free[:, top : corners[-1][0] + rows, left : corners[-1][1] + columns]
        channel, y, x = np.nonzero(found)
        y, x = y + top, x + left
        seen = np.zeros((len(filters), len(steps), len(y)), dtype=np.int64)
        for at, (y0, x0) in enumerate(corners):
            inside = (y >= y0) & (y < y0 + rows) & (x >= x0) & (x < x0 + columns)
            weights = block.weights[filters][:, channel[inside], y[inside] - y0, x[inside] - x0]
            seen[:, at, inside] = weights
        used = (seen != 0).any(axis=(0, 1))
        _, height, width = block.input_shape
        yield _Seen(
            outputs=flat[filters, i, j],
            bits=((channel * height + y) * width + x)[used],
            rows=seen[:, :, used],
            middle=np.stack([middle[filters, y, x] for y, x in places], axis=1),
            limits=block.thresholds[filters],
            every=block.conjunction[filters],
        )
