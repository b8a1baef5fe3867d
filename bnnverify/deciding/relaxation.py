"""Batches of inputs through a network: exact sums forward, guesses of the slopes backward.

Forward, every sum is an exact integer (`BatchForward.run`). Backward, the sign of a neuron with margin m (its sum
minus its threshold) gets the slope of a soft step, ``1 / (1 + |m| / width)^2``, so that a direction can be followed
down to the input. Slopes decide nothing: they say where to look.

References:
    Straight-through estimators: Bengio, Leonard & Courville, arXiv:1308.3432, 2013; a window around the threshold:
    Hubara et al., "Binarized neural networks", 2016, Sec. 2.3. The soft window: ours.
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
from bnnverify.domain import INT_LIMIT, IntArray
from bnnverify.network import BinaryNetwork

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pass:
    """What a batch left behind on its way forward.

    Attributes:
        margins: For each hidden block the margins of the positions that decided, with 1/2 added (so that ties lie
            above 0): shape `(N, outputs)`, float32.
        chosen: For each hidden block, which position of its window that was; None without pooling.
        sums: ``weights . h`` of the output block, shape `(N, classes)`, exact, int64.
    """

    margins: tuple[Floats, ...]
    chosen: tuple[IntArray | None, ...]
    sums: IntArray


class BatchForward:
    """A network laid out for batches.

    Args:
        network: Any network; inputs are integers.
    """

    def __init__(self, network: BinaryNetwork) -> None:
        self.network = network
        low, high = network.domain.lower, network.domain.upper
        largest = max(int(np.abs(low).max()), int(np.abs(high).max()), 1)
        self._layers = [_Layer(block, largest if b == 0 else 1) for b, block in enumerate(network.blocks)]
        self._output = network.output.weights.astype(np.float32)
        self._wide = bool(network.output.n_inputs * (largest if not network.blocks else 1) >= 2**24)
        scales, biases = network.output.integer_form()
        reach = max(abs(a) for a in scales) * network.output.n_inputs * (largest if not network.blocks else 1)
        greatest = 2 * (reach + max(abs(b) for b in biases))
        self._kind: Any = np.int64 if greatest < INT_LIMIT else object
        self._shift = max(0, greatest.bit_length() - 1000)
        most = max(1, *(abs(a) for a in scales))
        # int / int is rounded correctly at any size, where float(int) overflows
        self.relative_scales = np.array([a / most for a in scales], dtype=np.float32)
        self._scales, self._biases = np.array(scales, dtype=self._kind), np.array(biases, dtype=self._kind)

    @property
    def fan_in(self) -> list[int]:
        """Inputs of a neuron of each hidden block."""
        return [layer.fan_in for layer in self._layers]

    @property
    def cost(self) -> int:
        """Products of one input on its way forward."""
        return sum(layer.cost for layer in self._layers) + self.network.output.weights.size

    def run(self, points: NDArray[Any]) -> Pass:
        """All sums of a batch of inputs `(N, n)`, integers of any type."""
        h: NDArray[Any] = points
        margins, chosen = [], []
        for layer in self._layers:
            margin, where = layer.forward(h)
            margins.append(margin)
            chosen.append(where)
            h = np.where(margin > 0, np.float32(1), np.float32(-1))
        if self._wide:
            sums = h.astype(np.int64) @ self.network.output.weights.T.astype(np.int64)
        else:
            sums = np.rint(h.astype(np.float32) @ self._output.T).astype(np.int64)
        return Pass(tuple(margins), tuple(chosen), sums)

    def scores(self, sums: IntArray) -> NDArray[Any]:
        """Integer scores in the order of the exact ones (`OutputBlock.integer_form`); Python integers where needed."""
        return np.asarray(sums.astype(self._kind) * self._scales + self._biases)

    def guess(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Scores or their differences as floats that never overflow: all are in units of one power of two."""
        return (values >> self._shift if self._shift else values).astype(np.float64)

    def slopes(self, done: Pass, direction: Floats, widths: Floats) -> Floats:
        """How a weighted sum of scores seems to grow with each input, shape `(N, n)`.

        Args:
            done: The way forward.
            direction: Weight of each score, shape `(N, classes)`.
            widths: Width of the soft step for each hidden block and input of the batch, shape `(blocks, N)`.
        """
        slope = direction @ self._output
        for b in range(len(self._layers) - 1, -1, -1):
            margin = done.margins[b]
            width = widths[b][:, None]
            slope = slope * (width / (width + np.abs(margin))) ** 2
            slope = self._layers[b].backward(slope, done.chosen[b])
        return slope


class _Layer:
    """One hidden block, as matrices in floating point that are exact for its sums."""

    def __init__(self, block: HiddenBlock, largest: int) -> None:
        self.block = block
        self.fan_in = math.prod(block.weights.shape[1:])
        reach = largest * self.fan_in
        self.kind: Any = np.float32 if reach < 2**22 else np.float64 if reach < 2**51 else np.int64
        self.limits = np.clip(block.thresholds, -reach - 1, reach + 1)
        rows = len(block.weights)
        if isinstance(block, ConvBlock):
            self.matrix = np.ascontiguousarray(block.weights.transpose(0, 2, 3, 1).reshape(rows, -1).T)
            self.cost = self.matrix.size * math.prod(block.positions)
        else:
            self.matrix = np.ascontiguousarray(block.weights.T)
            self.cost = self.matrix.size
        self.matrix = self.matrix.astype(self.kind)
        self.back = np.ascontiguousarray(self.matrix.T.astype(np.float32))

    def forward(self, h: NDArray[Any]) -> tuple[Floats, IntArray | None]:
        if isinstance(self.block, DenseBlock):
            sums = h.astype(self.kind, copy=False) @ self.matrix
            return (sums - self.limits.astype(self.kind)).astype(np.float32) + np.float32(0.5), None
        block = self.block
        (channels, height, width), (top, left) = block.input_shape, block.padding
        images = h.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).astype(self.kind, copy=False)
        if top or left:
            images = np.pad(images, ((0, 0), (top, top), (left, left), (0, 0)), constant_values=block.pad_value)
        windows = sliding_window_view(images, block.kernel, axis=(1, 2))
        windows = windows[:, :: block.stride[0], :: block.stride[1]].transpose(0, 1, 2, 4, 5, 3)
        rows, columns = block.positions
        sums = windows.reshape(-1, self.fan_in) @ self.matrix - self.limits.astype(self.kind)
        margins = sums.astype(np.float32).reshape(-1, rows, columns, block.n_filters) + np.float32(0.5)
        return self._pooled(margins)

    def _pooled(self, margins: Floats) -> tuple[Floats, IntArray | None]:
        """The margin that decides each window: the largest, or the smallest where all must fire."""
        block = self.block
        assert isinstance(block, ConvBlock)
        filters, rows, columns = block.output_shape
        down, across = block.pool
        if block.pool == (1, 1):
            return np.ascontiguousarray(margins.transpose(0, 3, 1, 2)).reshape(len(margins), -1), None
        cropped = margins[:, : rows * down, : columns * across].reshape(-1, rows, down, columns, across, filters)
        windows = cropped.transpose(0, 5, 1, 3, 2, 4).reshape(-1, filters, rows, columns, down * across)
        signs = np.where(block.conjunction, np.float32(-1), np.float32(1))[:, None, None]
        where = (windows * signs[..., None]).argmax(axis=-1)
        picked = np.take_along_axis(windows, where[..., None], axis=-1)[..., 0]
        return picked.reshape(len(margins), -1), where

    def backward(self, slope: Floats, chosen: IntArray | None) -> Floats:
        if isinstance(self.block, DenseBlock):
            return slope @ self.back
        block = self.block
        (channels, height, width), (top, left) = block.input_shape, block.padding
        (rows, columns), (kernel_rows, kernel_columns) = block.positions, block.kernel
        count = len(slope)
        filters, high, wide = block.output_shape
        if chosen is None:
            at_positions = slope.reshape(count, filters, rows, columns).transpose(0, 2, 3, 1)
        else:
            down, across = block.pool
            spread = np.zeros((count, filters, high, wide, down * across), dtype=np.float32)
            np.put_along_axis(spread, chosen[..., None], slope.reshape(count, filters, high, wide, 1), axis=-1)
            spread = spread.reshape(count, filters, high, wide, down, across).transpose(0, 2, 4, 3, 5, 1)
            at_positions = np.zeros((count, rows, columns, filters), dtype=np.float32)
            at_positions[:, : high * down, : wide * across] = spread.reshape(count, high * down, wide * across, filters)
        patches = (at_positions.reshape(-1, filters) @ self.back).reshape(
            count, rows, columns, kernel_rows, kernel_columns, channels
        )
        image = np.zeros((count, height + 2 * top, width + 2 * left, channels), dtype=np.float32)
        for r in range(kernel_rows):
            for c in range(kernel_columns):
                spots = np.s_[
                    :,
                    r : r + rows * block.stride[0] : block.stride[0],
                    c : c + columns * block.stride[1] : block.stride[1],
                ]
                image[spots] += patches[:, :, :, r, c]
        image = image[:, top : top + height, left : left + width]
        return np.ascontiguousarray(image.transpose(0, 3, 1, 2)).reshape(count, -1)
