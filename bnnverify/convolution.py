"""ConvBlock: filters of signs that slide over an image, and max-pooling of the signs.

The positions of a convolution share the cells of their filter; everything else is a `DenseBlock` in another shape,
and `ConvBlock.unrolled` says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from bnnverify.blocks import (
    KERNELS,
    DenseBlock,
    SignArray,
    require_signs,
    row_flags,
    row_thresholds,
    sign_array,
)
from bnnverify.domain import INT_LIMIT, IntArray, frozen
from bnnverify.errors import ModelError, ResourceLimitError
from bnnverify.scalars import plain

UNROLLED_LIMIT = 2**31  # bytes of the matrices of one unrolled block
_PATCH_LIMIT = 2**23  # entries of the patches evaluated at once


@dataclass(frozen=True, slots=True, eq=False)
class ConvBlock:
    """A convolutional block: position (f, i, j) fires iff ``weights[f] . patch(i, j) >= thresholds[f]``; then pooling.

    The input is the flat vector of an image in channel-major order (channel, row, column), and so is the output. A
    padded entry counts as `pad_value`: 0 is an absent input. After the sign, max-pooling is OR: a window gives +1 if
    any of its positions fires. Rows and columns of positions that do not fill a window are left out.

    Attributes:
        weights: Shape `(filters, channels, kernel rows, kernel columns)`, int8, -1/+1, and 0 exactly where a cell is
            masked out.
        thresholds: Shape `(filters,)`, int64.
        negated: Shape `(filters,)`, bool. True where folding negated the filter, as in `DenseBlock`.
        input_shape: `(channels, height, width)` of the input.
        stride: Steps down and across between positions.
        padding: Rows added above and below, columns added left and right.
        pad_value: What the padding holds: 0 (nothing, exactly) or the constant sign -1 or +1.
        pool: Rows and columns of a pooling window, which is also its step; `(1, 1)` for none.
        conjunction: Shape `(filters,)`, bool. True where a window gives +1 only if all its positions fire: what max
            before a batch norm with negative scale becomes once the filter is negated.
    """

    weights: SignArray
    thresholds: IntArray
    negated: NDArray[np.bool_]
    input_shape: tuple[int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    pad_value: int
    pool: tuple[int, int]
    conjunction: NDArray[np.bool_]

    def __post_init__(self) -> None:
        require_signs(self.weights, "ConvBlock", 4)
        rows = self.weights.shape[:1]
        limits = np.asarray(self.thresholds)
        fits = limits.shape == rows and limits.dtype == np.int64 and bool((np.abs(limits) <= INT_LIMIT).all())
        flags = (np.asarray(self.negated), np.asarray(self.conjunction))
        if not fits or any(f.shape != rows or f.dtype != bool for f in flags):
            raise ModelError("ConvBlock needs int64 thresholds and bool flags, one per filter. Use ConvBlock.create.")
        sizes = {"input_shape": (3, 1), "stride": (2, 1), "padding": (2, 0), "pool": (2, 1)}
        for name, (length, least) in sizes.items():
            value = getattr(self, name)
            right = isinstance(value, tuple) and len(value) == length
            if not right or any(type(v) is not int or v < least for v in value):
                raise ModelError(f"ConvBlock needs {length} integers as {name}. Use ConvBlock.create.")
        _check_geometry(self, "ConvBlock")
        for name in ("weights", "thresholds", "negated", "conjunction"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return ConvBlock, tuple(getattr(self, name) for name in ConvBlock.__dataclass_fields__)

    @classmethod
    def create(
        cls,
        weights: ArrayLike,
        thresholds: ArrayLike,
        *,
        input_shape: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        pad_value: int = 0,
        pool: int | Sequence[int] = 1,
        mask: ArrayLike | None = None,
        negated: ArrayLike | None = None,
        conjunction: ArrayLike | None = None,
        name: str = "block",
    ) -> ConvBlock:
        """A checked block.

        Args:
            weights: Shape `(filters, channels, rows, columns)`, entries -1 or +1 wherever `mask` is True.
            thresholds: Shape `(filters,)`, integers, in units of the pre-activation.
            input_shape: `(channels, height, width)`.
            stride: Steps down and across; one number for both.
            padding: Rows above and below, columns left and right; one number for both.
            pad_value: 0 for absent inputs, -1 or +1 for a constant sign.
            pool: Rows and columns of the pooling windows; one number for both.
            mask: Shape of `weights`, bool, True where the cell is present. Default: everywhere.
            negated: Shape `(filters,)`, bool. Default: nowhere.
            conjunction: Shape `(filters,)`, bool: AND instead of OR over a window. Default: nowhere.
            name: What error messages call the block.

        Raises:
            ModelError: A weight is not -1/+1, a shape or type does not fit, or the kernel or the window is larger
                than what it slides over.

        >>> block = ConvBlock.create([[[[1, 1]]]], [2], input_shape=(1, 2, 3), pool=(1, 2))
        >>> block.output_shape, block.outputs([1, 1, -1, -1, 1, -1]).tolist()
        ((1, 2, 1), [1, -1])
        """
        signs, _ = sign_array(weights, mask, f"{name}.weights", KERNELS)
        filters = signs.shape[0]
        shape = _sizes(input_shape, f"{name}.input_shape", 3, 1)
        pad_value = plain(pad_value)
        if type(pad_value) is not int or pad_value not in (-1, 0, 1):
            raise ModelError(f"{name}.pad_value is {pad_value!r}, expected 0 (absent), -1 or +1.")
        limits = row_thresholds(thresholds, filters, name, "filter")
        flags = row_flags(negated, filters, f"{name}.negated")
        steps = _pair(stride, f"{name}.stride", 1)
        border = _pair(padding, f"{name}.padding", 0)
        window = _pair(pool, f"{name}.pool", 1)
        every = row_flags(conjunction, filters, f"{name}.conjunction")
        image = (shape[0], shape[1], shape[2])
        try:
            return cls(signs, limits, flags, image, steps, border, pad_value, window, every)
        except ModelError as error:
            raise ModelError(str(error).replace("ConvBlock", name, 1)) from None

    @property
    def n_filters(self) -> int:
        """Filters, which are the channels of the output."""
        return int(self.weights.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of a filter."""
        return int(self.weights.shape[2]), int(self.weights.shape[3])

    @property
    def positions(self) -> tuple[int, int]:
        """Rows and columns of positions, before pooling."""
        (_, height, width), (down, across) = self.input_shape, self.stride
        rows = (height + 2 * self.padding[0] - self.kernel[0]) // down + 1
        return rows, (width + 2 * self.padding[1] - self.kernel[1]) // across + 1

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """`(filters, height, width)` of the output, after pooling."""
        rows, columns = self.positions
        return self.n_filters, rows // self.pool[0], columns // self.pool[1]

    @property
    def n_inputs(self) -> int:
        """Entries of the flat input."""
        return math.prod(self.input_shape)

    @property
    def n_outputs(self) -> int:
        """Entries of the flat output."""
        return math.prod(self.output_shape)

    @property
    def n_cells(self) -> int:
        """Stored weights: one cell per unmasked weight, which all positions share."""
        return int(np.count_nonzero(self.weights))

    @property
    def stored(self) -> SignArray:
        """Signs as the cells hold them: the filter times -1 where folding negated it."""
        return np.where(self.negated[:, None, None, None], -self.weights, self.weights).astype(np.int8)

    def padded_sums(self) -> IntArray:
        """Sum of the weights that lie over padding, by filter and position: shape `(filters, rows, columns)`."""
        (_, height, width), (top, left) = self.input_shape, self.padding
        outside = np.ones((height + 2 * top, width + 2 * left), dtype=np.int64)
        outside[top : top + height, left : left + width] = 0
        windows = sliding_window_view(outside, self.kernel)[:: self.stride[0], :: self.stride[1]]
        sums = np.einsum("ijrc,frc->fij", windows, self.weights.sum(axis=1, dtype=np.int64))
        return np.asarray(sums, dtype=np.int64)

    def preactivations(self, x: ArrayLike) -> IntArray:
        """Sums at all positions, before pooling: exact, int64.

        Args:
            x: A vector `(n,)` or a batch `(N, n)`.

        Returns:
            Shape `(filters, rows, columns)`, or that of each input of the batch.
        """
        points = np.asarray(x, dtype=np.int64)
        parts = [sums.astype(np.int64) for sums in self._sums(points.reshape(-1, self.n_inputs))]
        shape = (self.n_filters, *self.positions)
        whole = np.concatenate(parts) if parts else np.zeros((0, *shape), dtype=np.int64)
        return whole.reshape(*points.shape[:-1], *shape)

    def outputs(self, x: ArrayLike) -> IntArray:
        """Signs -1/+1 after pooling, int64: `(n,)` -> `(outputs,)`, or a batch."""
        points = np.asarray(x, dtype=np.int64)
        parts = [np.zeros((0, self.n_outputs), dtype=bool)]
        parts += [self.pooled(sums) for sums in self._sums(points.reshape(-1, self.n_inputs))]
        signs = np.where(np.concatenate(parts), 1, -1).astype(np.int64)
        return signs.reshape(*points.shape[:-1], self.n_outputs)

    def _sums(self, points: IntArray) -> Iterator[NDArray[Any]]:
        """Sums of some inputs at a time, `(N, filters, rows, columns)`: integers, whatever the type.

        A product of matrices in floating point is exact while every partial sum is an integer below 2^24 (float32)
        or 2^53 (float64).
        """
        largest = max(int(points.max(initial=0)), -int(points.min(initial=0)), 1)
        reach = largest * math.prod(self.weights.shape[1:])
        kind = np.float32 if reach < 2**24 else np.float64 if reach < 2**53 else np.int64
        matrix = self.weights.reshape(self.n_filters, -1).T.astype(kind)
        rows, columns = self.positions
        step = max(1, _PATCH_LIMIT // (rows * columns * matrix.shape[0]))
        (top, left), spots = self.padding, ((0, 0), (0, 0))
        for start in range(0, len(points), step):
            images = points[start : start + step].reshape(-1, *self.input_shape).astype(kind)
            padded = np.pad(images, (*spots, (top, top), (left, left)), constant_values=self.pad_value)
            windows = sliding_window_view(padded, self.kernel, axis=(2, 3))[:, :, :: self.stride[0], :: self.stride[1]]
            patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, matrix.shape[0])
            yield (patches @ matrix).reshape(-1, rows, columns, self.n_filters).transpose(0, 3, 1, 2)

    def pooled(self, sums: NDArray[Any]) -> NDArray[np.bool_]:
        """What fires after pooling, flat, given sums before it: `(N, filters, rows, columns)` -> `(N, outputs)`."""
        fires = sums >= self.thresholds[:, None, None]
        if self.pool != (1, 1):
            _, height, width = self.output_shape
            down, across = self.pool
            cropped = fires[:, :, : height * down, : width * across]
            windows = cropped.reshape(-1, self.n_filters, height, down, width, across)
            every, some = windows.all(axis=(3, 5)), windows.any(axis=(3, 5))
            fires = np.where(self.conjunction[:, None, None], every, some)
        return fires.reshape(-1, self.n_outputs)

    def unrolled(self) -> tuple[DenseBlock, ...]:
        """Dense blocks that compute the same function: one row per position, and one per window if there is pooling.

        Positions that no window covers are left out. Rows of one filter repeat its cells, so this is for questions
        about inputs, never about cells.

        Raises:
            ResourceLimitError: The matrices would take more than `UNROLLED_LIMIT` bytes.
        """
        (filters, height, width), (down, across) = self.output_shape, self.pool
        rows, columns = height * down, width * across
        pooled = self.pool != (1, 1)
        size = filters * rows * columns * (self.n_inputs + pooled * self.n_outputs)
        if size > UNROLLED_LIMIT:
            raise ResourceLimitError(
                f"a convolution of {filters} filters at {rows}x{columns} positions over {self.n_inputs} inputs unrolls "
                f"to {size / 2**30:.1f} GiB of weights, expected at most {UNROLLED_LIMIT / 2**30:.0f} GiB. "
                "Ask about a smaller network."
            )
        matrix = np.zeros((filters, rows, columns, *self.input_shape), dtype=np.int8)
        for r in range(self.kernel[0]):
            i, y = _inside(rows, self.stride[0], r - self.padding[0], self.input_shape[1])
            for c in range(self.kernel[1]):
                j, x = _inside(columns, self.stride[1], c - self.padding[1], self.input_shape[2])
                matrix[:, i[:, None], j, :, y[:, None], x] = self.weights[:, :, r, c]
        constant = self.pad_value * self.padded_sums()[:, :rows, :columns]
        limits = np.clip(self.thresholds[:, None, None] - constant, -INT_LIMIT, INT_LIMIT).reshape(-1)
        first = DenseBlock(matrix.reshape(-1, self.n_inputs), limits, np.zeros(limits.size, dtype=bool))
        if not pooled:
            return (first,)
        windows = np.zeros((filters, height, width, filters, rows, columns), dtype=np.int8)
        f, i, j = np.ogrid[:filters, :height, :width]
        for r in range(down):
            for c in range(across):
                windows[f, i, j, f, i * down + r, j * across + c] = 1
        # of k signs, some is +1 iff their sum is at least 2 - k, and all are iff it is k
        k = down * across
        bounds = np.repeat(np.where(self.conjunction, k, 2 - k).astype(np.int64), height * width)
        second = DenseBlock(windows.reshape(self.n_outputs, -1), bounds, np.zeros(bounds.size, dtype=bool))
        return first, second


HiddenBlock = DenseBlock | ConvBlock


def _inside(count: int, stride: int, shift: int, size: int) -> tuple[IntArray, IntArray]:
    """Positions 0..count-1 whose entry ``position * stride + shift`` lies in 0..size-1, and these entries."""
    places = np.arange(count, dtype=np.int64)
    entries = places * stride + shift
    kept = (entries >= 0) & (entries < size)
    return places[kept], entries[kept]


def _check_geometry(block: ConvBlock, name: str) -> None:
    """ModelError unless the kernel fits the padded input and the window the positions."""
    if type(block.pad_value) is not int or block.pad_value not in (-1, 0, 1):
        raise ModelError(f"{name}.pad_value is {block.pad_value!r}, expected 0 (absent), -1 or +1.")
    (channels, *image), kernel = block.input_shape, block.kernel
    if channels != block.weights.shape[1]:
        raise ModelError(
            f"{name}.input_shape has {channels} channels, but the filters take {block.weights.shape[1]}. "
            "Give (channels, height, width)."
        )
    padded = tuple(size + 2 * pad for size, pad in zip(image, block.padding, strict=True))
    if kernel[0] > padded[0] or kernel[1] > padded[1]:
        raise ModelError(
            f"{name} has filters of {kernel[0]}x{kernel[1]} over a padded input of {padded[0]}x{padded[1]}, "
            "expected filters that fit. Pad more or make them smaller."
        )
    places = block.positions
    if block.pool[0] > places[0] or block.pool[1] > places[1]:
        raise ModelError(
            f"{name} has pooling windows of {block.pool[0]}x{block.pool[1]} over {places[0]}x{places[1]} positions, "
            "expected windows that fit."
        )


def _sizes(values: Any, what: str, length: int, least: int) -> tuple[int, ...]:
    """`values` as `length` Python integers of at least `least`."""
    numbers = tuple(plain(v) for v in ((values,) if np.ndim(values) == 0 else values))
    right = all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in numbers)
    if len(numbers) != length or not right:
        raise ModelError(f"{what} is {values!r}, expected {length} integers of at least {least}.")
    return numbers


def _pair(value: Any, what: str, least: int) -> tuple[int, int]:
    """One number for both directions, or two."""
    first, second = _sizes((value, value) if np.ndim(value) == 0 else value, what, 2, least)
    return first, second
