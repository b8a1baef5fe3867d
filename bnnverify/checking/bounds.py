"""Interval bounds by themselves: what each neuron and each comparison of scores ranges over, filter by filter.

Slower and shorter than what engines use, and independent of it: this file imports the definition of networks and
questions only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import DenseBlock
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.query import Query
from bnnverify.regions import HammingBall, PixelBox, RealBox

Objects = NDArray[Any]
"""An array of integers (int64 where no sum can overflow) or of Fractions: nothing overflows, nothing is rounded."""


@dataclass(frozen=True, slots=True)
class BlockBounds:
    """What is sure of one hidden block throughout the region.

    Attributes:
        low: Least pre-activation of each neuron before pooling, flat.
        high: Greatest pre-activation.
        before: Sign of each neuron before pooling where it is sure, else 0.
        after: Sign of each output of the block where it is sure, else 0.
    """

    low: Objects
    high: Objects
    before: NDArray[np.int8]
    after: NDArray[np.int8]


def input_bounds(query: Query) -> tuple[Objects, Objects]:
    """Least and greatest value of each input over the region."""
    region = query.region
    if isinstance(region, (PixelBox, RealBox)):
        return np.array(region.lower, dtype=object), np.array(region.upper, dtype=object)
    low, high = np.array(region.center, dtype=object), np.array(region.center, dtype=object)
    for i in region.free:
        low[i], high[i] = -1, 1
    return low, high


def block_bounds(query: Query) -> tuple[BlockBounds, ...]:
    """What is sure of each hidden block, by intervals, block after block.

    A ball bounds the first block further: a flip moves a sum of signs by 2. Over a real box a neuron with integer
    threshold T is sure to fire if its sum is at least T, and sure not to if it is at most T - 1.
    """
    low, high = input_bounds(query)
    unit = math.lcm(*(Fraction(v).denominator for v in (*low, *high)))  # 1 unless the box is real
    low, high = _compact(low * unit, unit), _compact(high * unit, unit)
    found = []
    for b, block in enumerate(query.network.blocks):
        least, most = sums(block, low, high, unit)
        region = query.region
        if b == 0 and isinstance(region, HammingBall):
            center = _compact(np.array(region.center, dtype=object), unit)
            middle, _ = sums(block, center, center)
            least, most = np.maximum(least, middle - 2 * region.radius), np.minimum(most, middle + 2 * region.radius)
        limits = np.repeat(block.thresholds.astype(object), least.size // block.thresholds.size)
        if unit > 1:
            least, most, unit = least * Fraction(1, unit), most * Fraction(1, unit), 1
        silent = (most <= limits - 1) if b == 0 and isinstance(region, RealBox) else (most < limits)
        before = np.where(least >= limits, 1, np.where(silent, -1, 0)).astype(np.int8)
        after = _pooled(block, before)
        found.append(BlockBounds(least, most, before, after))
        signs = after.astype(np.int64)
        low, high = np.where(signs == 0, -1, signs), np.where(signs == 0, 1, signs)
    return tuple(found)


def _compact(values: Objects, unit: int) -> Objects:
    """Integers as int64 where twice the sum of their magnitudes, and any padding of `unit`, fits; else as they are."""
    whole = [int(v) for v in values]
    fits = sum(abs(v) for v in whole) < 2**61 and unit < 2**30
    return np.array(whole, dtype=np.int64 if fits else object)


def sums(block: HiddenBlock, low: Objects, high: Objects, unit: int = 1) -> tuple[Objects, Objects]:
    """Least and greatest pre-activation of each neuron before pooling when inputs vary independently.

    Inputs and sums count ``1/unit``.
    """
    if isinstance(block, DenseBlock):
        positive, negative = block.weights == 1, block.weights == -1
        least = np.where(positive, low, 0).sum(axis=1) - np.where(negative, high, 0).sum(axis=1)
        most = np.where(positive, high, 0).sum(axis=1) - np.where(negative, low, 0).sum(axis=1)
        return least, most
    bottom, top = (_padded(block, values, unit) for values in (low, high))
    rows, columns = block.positions
    ends = np.zeros((2, block.n_filters, rows, columns), dtype=low.dtype)
    for f, channel, r, c in np.argwhere(block.weights).tolist():
        (down, across), weight = block.stride, int(block.weights[f, channel, r, c])
        seen = slice(r, r + (rows - 1) * down + 1, down), slice(c, c + (columns - 1) * across + 1, across)
        small, large = bottom[channel][seen], top[channel][seen]
        ends[0, f] += small if weight == 1 else -large
        ends[1, f] += large if weight == 1 else -small
    return ends[0].ravel(), ends[1].ravel()


def _padded(block: ConvBlock, values: Objects, unit: int) -> Objects:
    (up, left), (channels, height, width) = block.padding, block.input_shape
    image = np.full((channels, height + 2 * up, width + 2 * left), block.pad_value * unit, dtype=values.dtype)
    image[:, up : up + height, left : left + width] = values.reshape(block.input_shape)
    return image


def windows(block: HiddenBlock) -> list[list[int]]:
    """The neurons before pooling that each output of the block reads."""
    if isinstance(block, DenseBlock):
        return [[j] for j in range(block.n_outputs)]
    (filters, height, width), (down, across), (rows, columns) = block.output_shape, block.pool, block.positions
    return [
        [(f * rows + i * down + r) * columns + j * across + c for r in range(down) for c in range(across)]
        for f in range(filters)
        for i in range(height)
        for j in range(width)
    ]


def is_conjunction(block: HiddenBlock, output: int) -> bool:
    """True if the output is +1 only where all its neurons are; False if one suffices."""
    if isinstance(block, DenseBlock):
        return False
    return bool(block.conjunction[output // math.prod(block.output_shape[1:])])


def _pooled(block: HiddenBlock, before: NDArray[np.int8]) -> NDArray[np.int8]:
    after = [
        int((min if is_conjunction(block, output) else max)(before[members]))
        for output, members in enumerate(windows(block))
    ]
    return np.array(after, dtype=np.int8)


def comparison_terms(query: Query, i: int, j: int, strict: bool) -> tuple[list[int], int]:
    """Integers `(weights, bound)`: score i beats score j iff ``weights . h >= bound``, h the last block's signs.

    Scores are exact rationals; both sides are multiplied by a common denominator. Where h may be real (a real box and
    no hidden block), a strict comparison becomes one that is not, which admits more.
    """
    output = query.network.output
    numbers = [output.scale[i], output.scale[j], output.bias[i] - output.bias[j]]
    common = math.lcm(*(Fraction(v).denominator for v in numbers))
    a, b, offset = (int(v * common) for v in numbers)
    weights = [a * int(p) - b * int(q) for p, q in zip(output.weights[i], output.weights[j], strict=True)]
    if isinstance(query.region, RealBox) and not query.network.blocks:
        return weights, -offset
    divisor = math.gcd(*weights) or 1
    bound = int(strict) - offset  # of integers: more than 0 is at least 1
    return [w // divisor for w in weights], -(-bound // divisor)


@dataclass(frozen=True, slots=True)
class Reach:
    """The most that a comparison's weighted sum can be, and what it needs.

    Attributes:
        winner: Score i.
        loser: Score j.
        most: Upper bound of ``weights . h`` over the region.
        needed: What it must reach for score i to beat score j.
    """

    winner: int
    loser: int
    most: int | Fraction
    needed: int

    @property
    def is_excluded(self) -> bool:
        """True if score i beats score j nowhere in the region."""
        return self.most < self.needed


def reaches(query: Query, bounds: tuple[BlockBounds, ...]) -> list[Reach]:
    """How far each comparison of the property can come, by the bounds of the last block."""
    if bounds:
        signs = bounds[-1].after.astype(object)
        low, high = np.where(signs == 0, -1, signs), np.where(signs == 0, 1, signs)
    else:
        low, high = input_bounds(query)
    found = []
    for i, j, strict in query.score_conditions()[0]:
        weights, bound = comparison_terms(query, i, j, strict)
        most = sum(w * (h if w > 0 else v) for w, v, h in zip(weights, low, high, strict=True))
        found.append(Reach(i, j, most, bound))
    return found


def is_proved(query: Query, found: list[Reach]) -> bool:
    """True if these bounds alone prove that no input of the region is adversarial."""
    _, conjunctive = query.score_conditions()
    excluded = [reach.is_excluded for reach in found]
    return any(excluded) if conjunctive else all(excluded)
