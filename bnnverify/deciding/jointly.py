"""Which signs of a few outputs of a block cannot occur together, because no input reaches all of them at once.

Each output is a linear inequality of the block's input. If the greatest value of the sum of some inequalities' left
sides, over the box in which the input lies, is below the sum of what they need, then they do not hold together. This
says more than intervals where outputs see the same inputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.convolution import ConvBlock
from bnnverify.deciding.intervals import Bounds
from bnnverify.domain import INT_LIMIT, IntArray
from bnnverify.regions import PixelBox, RealBox

ORDER = 3
"""Most outputs whose inequalities are added up."""


class JointSigns:
    """Signs of the outputs of the block before the last that cannot occur together.

    Args:
        bounds: Of a network with at least two hidden blocks.
        order: Most outputs whose inequalities are added up; below 2 nothing is excluded.

    Attributes:
        order: As given, or 1 where the block pools or the box has ends that are no integers: then nothing is excluded.
    """

    def __init__(self, bounds: Bounds, order: int) -> None:
        self._block = bounds.network.blocks[-2]
        self.order = order
        if isinstance(self._block, ConvBlock) and self._block.pool != (1, 1):
            self.order = 1
        ends = self._ends(bounds)
        if ends is None:
            self.order = 1
            return
        center2, width = ends[0] + ends[1], ends[1] - ends[0]
        if 2 * int(np.abs(center2).max() + width.max() + 1) * self._block.weights[0].size * ORDER >= INT_LIMIT:
            self.order = 1
        self._center2, self._width = center2, width
        if isinstance(self._block, ConvBlock):
            (top, left), shape = self._block.padding, self._block.input_shape
            border = ((0, 0), (top, top), (left, left))
            self._center2 = np.pad(center2.reshape(shape), border, constant_values=2 * self._block.pad_value)
            self._width = np.pad(width.reshape(shape), border)
        # over a real box all that is known is that +1 needs more than T - 1 and -1 less than T: each one less
        self._slack = int(len(bounds.blocks) == 2 and isinstance(bounds.region, RealBox))

    @staticmethod
    def _ends(bounds: Bounds) -> tuple[IntArray, IntArray] | None:
        """Least and greatest values of what the block takes."""
        if len(bounds.blocks) > 2:
            signs = bounds.blocks[-3].signs.astype(np.int64)
            return np.where(signs == 0, -1, signs), np.where(signs == 0, 1, signs)
        region = bounds.region
        if isinstance(region, (PixelBox, RealBox)):
            grid = region if isinstance(region, PixelBox) else region.grid()
            if grid is None or grid.lower != region.lower or grid.upper != region.upper:
                return None
            return np.array(grid.lower, dtype=np.int64), np.array(grid.upper, dtype=np.int64)
        low, high = np.array(region.center, dtype=np.int64), np.array(region.center, dtype=np.int64)
        low[list(region.free)], high[list(region.free)] = -1, 1
        return low, high

    def excluded(self, bits: IntArray) -> NDArray[np.bool_]:
        """True at the assignments of the bits that cannot occur, shape `(2^bits,)`.

        Assignment u has bit b at +1 iff ``u >> b & 1``.
        """
        found = np.zeros(1 << len(bits), dtype=bool)
        if self.order >= 2 and len(bits) >= 2:
            rows, center2, width, limits = self._rows(bits)
            varying = (width > 0) & (rows != 0).any(axis=0)
            needs = np.stack([1 - limits, limits], axis=1) - self._slack
            most = min(self.order, len(bits))
            exclude(
                np.ascontiguousarray(rows[:, varying]), rows @ center2, width[varying], needs, most, self._slack, found
            )
        return found

    def _rows(self, bits: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Weights of the bits over what they see, its centre doubled and its width, and the threshold of each bit."""
        block = self._block
        if not isinstance(block, ConvBlock):
            return block.weights[bits].astype(np.int64), self._center2, self._width, block.thresholds[bits]
        f, i, j = np.unravel_index(bits, block.output_shape)
        (down, across), (rows, columns) = block.stride, block.kernel
        y, x = i * down - i.min() * down, j * across - j.min() * across
        top, left = int(i.min()) * down, int(j.min()) * across
        seen = (slice(None), slice(top, top + int(y.max()) + rows), slice(left, left + int(x.max()) + columns))
        center2, width = self._center2[seen], self._width[seen]
        weights = np.zeros((len(bits), *width.shape), dtype=np.int64)
        for b in range(len(bits)):
            weights[b, :, y[b] : y[b] + rows, x[b] : x[b] + columns] = block.weights[f[b]]
        return weights.reshape(len(bits), -1), center2.reshape(-1), width.reshape(-1), block.thresholds[f]


@njit
def exclude(rows, center2, width, needs, order, slack, found):  # type: ignore[no-untyped-def]
    """Marks the assignments that contain signs of 2 to `order` bits whose inequalities cannot hold together.

    Args:
        rows: Weights, shape `(bits, inputs)`.
        center2: Twice each bit's sum at the centre of the box.
        width: Of the box, by input.
        needs: By bit, what minus its sum must reach for -1, and what its sum must reach for +1.
        order: At least 2, at most the number of bits.
        slack: 1 if `needs` must be surpassed, else 0.
        found: Shape `(2^bits,)`: the result.
    """
    bits, inputs = rows.shape
    chosen = np.zeros(order, dtype=np.int64)
    for size in range(2, order + 1):
        for a in range(size):
            chosen[a] = a
        while True:
            for signs in range(1 << size):
                mask, value = 0, 0
                most, needed = 0, slack
                for a in range(size):
                    b, plus = chosen[a], (signs >> a) & 1
                    mask |= 1 << b
                    value |= plus << b
                    most += center2[b] if plus else -center2[b]
                    needed += 2 * needs[b, plus]
                if most >= needed:
                    continue
                for x in range(inputs):
                    total = 0
                    for a in range(size):
                        total += rows[chosen[a], x] if (signs >> a) & 1 else -rows[chosen[a], x]
                    most += width[x] * abs(total)
                if most < needed:
                    rest = ~mask & ((1 << bits) - 1)
                    free = rest
                    while True:  # all subsets of the other bits
                        found[value | free] = True
                        if free == 0:
                            break
                        free = (free - 1) & rest
            at = size - 1
            while at >= 0 and chosen[at] == bits - size + at:
                at -= 1
            if at < 0:
                break
            chosen[at] += 1
            for a in range(at + 1, size):
                chosen[a] = chosen[a - 1] + 1
