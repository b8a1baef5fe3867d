"""Interval bounds: what every neuron and every difference of scores can be over a region, one neuron at a time.

Each bound is exact for its neuron as long as its inputs vary independently: sharp in the first block, and sound in all
later ones, where an unstable input counts as free. Pooling, masks and padding are included; convolutions are not
unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import OutputBlock
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import INT_LIMIT, IntArray
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query
from bnnverify.regions import AnyRegion, HammingBall, PixelBox, RealBox

Signs = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class BlockBounds:
    """What the neurons of one hidden block can do.

    Attributes:
        low: Least pre-activation, int64: shape `(neurons,)`, or `(filters, rows, columns)` of the positions before
            pooling. Over a `RealBox` rounded down in the first block.
        high: Greatest pre-activation, likewise; rounded up.
        signs: What the block puts out, after pooling, flat, int8: -1 or +1 where that is settled, 0 where not.
    """

    low: IntArray
    high: IntArray
    signs: Signs

    @property
    def n_unstable(self) -> int:
        """Outputs that are not settled."""
        return int(np.count_nonzero(self.signs == 0))


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Interval bounds of all blocks.

    Attributes:
        network: The network.
        region: Where the inputs lie.
        blocks: One entry per hidden block.
    """

    network: BinaryNetwork
    region: AnyRegion
    blocks: tuple[BlockBounds, ...]

    def differences(self, label: int) -> tuple[tuple[Fraction, Fraction], ...]:
        """Least and greatest ``score k - score label`` for every class k, in units of `OutputBlock.integer_form`."""
        output = self.network.output
        if self.blocks and output.has_common_scale and 2 * output.n_inputs < 2**24:
            return self._plain_differences(label)
        coefficients, offsets = difference_rows(output, label)
        if self.blocks:
            signs = self.blocks[-1].signs.astype(coefficients.dtype)
            middle, reach = coefficients @ signs, np.abs(coefficients) @ (signs == 0).astype(coefficients.dtype)
            ends = zip((middle - reach).tolist(), (middle + reach).tolist(), strict=True)
            return tuple((Fraction(a + c), Fraction(b + c)) for (a, b), c in zip(ends, offsets, strict=True))
        return tuple(
            (low + c, high + c)
            for (low, high), c in zip(_linear_ranges(coefficients, self.region), offsets, strict=True)
        )

    def _plain_differences(self, label: int) -> tuple[tuple[Fraction, Fraction], ...]:
        """`differences` where classes share one scale: sums of small integers, exact in float32."""
        (scale, *_), biases = self.network.output.integer_form()
        rows, signs = self.network.output.weights - self.network.output.weights[label], self.blocks[-1].signs
        middle = (rows.astype(np.float32) @ signs.astype(np.float32)).astype(np.int64)
        reach = np.abs(rows[:, signs == 0]).sum(axis=1, dtype=np.int64)
        ends = zip((middle - reach).tolist(), (middle + reach).tolist(), biases, strict=True)
        return tuple(
            (
                Fraction(min(scale * a, scale * b) + c - biases[label]),
                Fraction(max(scale * a, scale * b) + c - biases[label]),
            )
            for a, b, c in ends
        )

    @property
    def n_unstable(self) -> tuple[int, ...]:
        """Outputs that are not settled, by hidden block."""
        return tuple(block.n_unstable for block in self.blocks)


def interval_bounds(network: BinaryNetwork, region: AnyRegion) -> Bounds:
    """Interval bounds over a region.

    Args:
        network: Dense and convolutional blocks, any inputs.
        region: Over the network's inputs, of any kind. In a `HammingBall` the bounds of the first block take the
            radius into account; beyond it they do not.

    Returns:
        Bounds of every pre-activation; the first block's are attained, later ones are sound.

    >>> from bnnverify.network import *
    >>> block = DenseBlock.create([[1, 1], [1, -1]], [2, 5])
    >>> net = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (block,), OutputBlock.create([[1, 1], [1, -1]]))
    >>> bounds = interval_bounds(net, PixelBox((1, 1), (3, 2)))
    >>> bounds.blocks[0].low, bounds.blocks[0].high, bounds.blocks[0].signs
    (array([ 2, -1]), array([5, 2]), array([ 1, -1], dtype=int8))
    """
    return Propagation(network).over(region)


def excesses(query: Query, bounds: Bounds) -> tuple[Fraction, ...]:
    """For every comparison of the property (`Query.score_conditions`) the most by which it can hold.

    A comparison cannot hold if this is below 0, or is 0 and the comparison strict: see `refutes`.
    """
    by_label: dict[int, tuple[tuple[Fraction, Fraction], ...]] = {}
    found = []
    for i, j, _ in query.score_conditions()[0]:
        if j not in by_label:
            by_label[j] = bounds.differences(j)
        found.append(by_label[j][i][1])
    return tuple(found)


def refutes(query: Query, excess: Sequence[Fraction | int]) -> bool:
    """True iff upper bounds on the comparisons of the property prove that no input of the region is adversarial.

    Args:
        query: Its property says whether all comparisons or any of them make an input adversarial.
        excess: For each comparison ``score i >= score j`` an upper bound on ``score i - score j``.
    """
    comparisons, conjunctive = query.score_conditions()
    impossible = (most < 0 or (strict and most == 0) for most, (_, _, strict) in zip(excess, comparisons, strict=True))
    return any(impossible) if conjunctive else all(impossible)


def difference_rows(output: OutputBlock, label: int) -> tuple[NDArray[Any], tuple[int, ...]]:
    """``score k - score label`` as ``rows[k] . h + offsets[k]``, in units of `OutputBlock.integer_form`.

    Returns:
        Rows of shape `(classes, n)`, int64, or Python integers (dtype object) if sums would not fit; and offsets.
    """
    scales, biases = output.integer_form()
    fits = 2 * max(map(abs, scales)) * output.n_inputs < INT_LIMIT
    kind: type = np.int64 if fits else object
    rows: NDArray[Any] = output.weights.astype(kind) * np.array(scales, dtype=kind)[:, None]
    return rows - rows[label], tuple(b - biases[label] for b in biases)


class Propagation:
    """Interval propagation through one network, for many regions: what the blocks need is prepared once.

    Args:
        network: Any network.
    """

    def __init__(self, network: BinaryNetwork) -> None:
        self.network = network
        self._layers = [_ConvLayer(b) if isinstance(b, ConvBlock) else _DenseLayer(b) for b in network.blocks]

    def over(self, region: AnyRegion) -> Bounds:
        """Bounds of all blocks over a region."""
        if region.n != self.network.n_inputs:
            raise QueryError(f"the region has {region.n} inputs, but the network takes {self.network.n_inputs}.")
        if not self._layers:
            return Bounds(self.network, region, ())
        first = self._layers[0].over(region)
        return Bounds(self.network, region, (first, *self.beyond(0, first.signs)))

    def beyond(self, block: int, signs: Signs) -> tuple[BlockBounds, ...]:
        """Bounds of the blocks after `block`, given what it puts out.

        Args:
            block: Index of a hidden block.
            signs: Its outputs, flat, int8; 0 where both signs are possible.
        """
        found = []
        for layer in self._layers[block + 1 :]:
            low, high = layer.from_signs(signs)
            found.append(layer.bounds(low, high))
            signs = found[-1].signs
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Range:
    """Inputs between ``(center2 - width) / (2 scale)`` and ``(center2 + width) / (2 scale)``: integers only."""

    center2: NDArray[Any]
    width: NDArray[Any]
    scale: int

    @classmethod
    def of(cls, region: PixelBox | RealBox, cells: int) -> _Range:
        lower: Sequence[int]
        upper: Sequence[int]
        if isinstance(region, PixelBox):
            lower, upper, scale = region.lower, region.upper, 1
        else:
            scale = math.lcm(*(v.denominator for v in region.lower + region.upper))
            lower = [v.numerator * (scale // v.denominator) for v in region.lower]
            upper = [v.numerator * (scale // v.denominator) for v in region.upper]
        if 2 * max(max(upper), -min(lower), scale) * cells >= INT_LIMIT:
            raise ResourceLimitError("the bounds of the box have denominators too large for 64-bit sums. Round them.")
        low, high = np.array(lower, dtype=np.int64), np.array(upper, dtype=np.int64)
        return cls(low + high, high - low, scale)


class _Layer:
    """Sums of one block over inputs that vary."""

    def __init__(self, block: HiddenBlock) -> None:
        self.block = block

    def sums(self, x: IntArray) -> IntArray:
        """``weights . x`` where padding counts 0."""
        raise NotImplementedError

    def magnitudes(self, x: IntArray) -> IntArray:
        """``|weights| . x`` where padding counts 0."""
        raise NotImplementedError

    def constant(self) -> IntArray | int:
        """What padding adds."""
        return 0

    def bounds(self, low: IntArray, high: IntArray) -> BlockBounds:
        raise NotImplementedError

    def from_signs(self, signs: Signs) -> tuple[IntArray, IntArray]:
        middle = self.sums(signs.astype(np.int64)) + self.constant()
        reach = self.magnitudes((signs == 0).astype(np.int64))
        return middle - reach, middle + reach

    def over(self, region: AnyRegion) -> BlockBounds:
        if isinstance(region, (PixelBox, RealBox)):
            inputs = _Range.of(region, self.block.n_inputs)
            middle = self.sums(inputs.center2) + self.constant() * (2 * inputs.scale)
            reach = self.magnitudes(inputs.width)
            low, high = (middle - reach) // (2 * inputs.scale), -(-(middle + reach) // (2 * inputs.scale))
            return self.bounds(low, high)
        center = np.array(region.center, dtype=np.int64)
        free = np.zeros(region.n, dtype=np.int64)
        free[list(region.free)] = 1
        middle, present = self.sums(center) + self.constant(), self.magnitudes(free)
        towards = (present + self.sums(center * free)) // 2  # free inputs that raise the sum as they are
        return self.bounds(
            middle - 2 * np.minimum(towards, region.most_flips),
            middle + 2 * np.minimum(present - towards, region.most_flips),
        )


class _DenseLayer(_Layer):
    """A dense block; its weights as floating point, exact while sums stay below 2^53."""

    def __init__(self, block: HiddenBlock) -> None:
        super().__init__(block)
        self._weights = block.weights.astype(np.float64)
        self._magnitudes = np.abs(self._weights)

    def sums(self, x: IntArray) -> IntArray:
        return _product(self._weights, x)

    def magnitudes(self, x: IntArray) -> IntArray:
        return _product(self._magnitudes, x)

    def bounds(self, low: IntArray, high: IntArray) -> BlockBounds:
        fires, silent = low >= self.block.thresholds, high < self.block.thresholds
        return BlockBounds(low, high, fires.astype(np.int8) - silent.astype(np.int8))


class _ConvLayer(_Layer):
    """A convolution at all positions."""

    block: ConvBlock

    def __init__(self, block: ConvBlock) -> None:
        super().__init__(block)
        self._plain = replace(block, pad_value=0)
        self._absolute = replace(block, pad_value=0, weights=np.abs(block.weights))
        self._constant = block.pad_value * block.padded_sums() if block.pad_value else 0

    def sums(self, x: IntArray) -> IntArray:
        return self._plain.preactivations(x)

    def magnitudes(self, x: IntArray) -> IntArray:
        return self._absolute.preactivations(x)

    def constant(self) -> IntArray | int:
        return self._constant

    def bounds(self, low: IntArray, high: IntArray) -> BlockBounds:
        # pooling is monotone: what fires at least and at most
        least, most = (self.block.pooled(sums[None])[0] for sums in (low, high))
        return BlockBounds(low, high, least.astype(np.int8) - (~most).astype(np.int8))


def _product(matrix: NDArray[np.float64], x: IntArray) -> IntArray:
    """``matrix @ x``, exact."""
    reach = max(int(x.max(initial=0)), -int(x.min(initial=0)), 1) * matrix.shape[1]
    if reach < 2**53:
        return np.asarray(matrix @ x.astype(np.float64)).astype(np.int64)
    return np.asarray(matrix.astype(np.int64) @ x, dtype=np.int64)


def _linear_ranges(rows: NDArray[Any], region: AnyRegion) -> list[tuple[Fraction, Fraction]]:
    """Least and greatest ``row . x`` over a region for each row of integers."""
    exact = rows.astype(object)
    if isinstance(region, (PixelBox, RealBox)):
        low, high = np.array(region.lower, dtype=object), np.array(region.upper, dtype=object)
        up, down = np.maximum(exact, 0), np.minimum(exact, 0)
        ends = zip(up @ low + down @ high, up @ high + down @ low, strict=True)
        return [(Fraction(a), Fraction(b)) for a, b in ends]
    center = np.array(region.center, dtype=object)
    free, flips = list(region.free), region.radius if isinstance(region, HammingBall) else len(region.free)
    found = []
    for row in exact:
        middle = int(sum(row * center))
        changes = [-2 * int(row[i]) * region.center[i] for i in free]
        rise = sum(sorted((c for c in changes if c > 0), reverse=True)[:flips])
        fall = sum(sorted(c for c in changes if c < 0)[:flips])
        found.append((Fraction(middle + fall), Fraction(middle + rise)))
    return found
