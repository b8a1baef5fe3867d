"""Dense layers and convolutions of model files: weights of one magnitude per row, as signs."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import SignArray
from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.elementwise import require_plain
from bnnverify.formats.signs import resolved
from bnnverify.formats.tensors import Geometry, Tensor, check_places, image_shape, require_size
from bnnverify.formats.units import Affine, Column, column, constant_column, require_finite


def dense(tensor: Tensor, weights: NDArray[Any], bias: Any, where: str) -> Tensor:
    """A dense layer: `weights` of shape (neurons, inputs), over the tensor's entries in their order.

    Raises:
        UnsupportedError: The weights of a row are not one magnitude times signs.
    """
    require_plain(tensor, where)
    if weights.ndim != 2 or weights.shape[1] != tensor.index.size:
        raise ModelError(
            f"{where} has weights of shape {weights.shape} for {tensor.index.size} inputs, expected (neurons, inputs)."
        )
    signs = resolved(tensor, None, where)
    spread = np.zeros_like(weights)
    spread[:, tensor.index.ravel()] = weights
    units, scale = _split(spread, where)
    sums = _through(units, scale, signs.mean, signs.step, signs.root, signs.shift, where, tensor.steps is not None)
    source = replace(signs.source, name=where, weights=units * _directions(signs.step)[None, :], geometry=None)
    affine = sums.plus(_bias(bias, units.shape[0], where))
    return Tensor(source, affine, None, None, np.arange(units.shape[0], dtype=np.int64).reshape(1, -1))


def convolved(
    tensor: Tensor,
    kernels: NDArray[Any],
    bias: Any,
    where: str,
    *,
    stride: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """A convolution of images `(1, channels, height, width)`.

    Args:
        tensor: The images.
        kernels: Shape `(filters, channels / groups, rows, columns)`.
        bias: One number per filter, or None.
        where: What messages call it.
        stride: Steps down and across.
        pads: Rows and columns of zeros: top, left, bottom, right. Uneven padding becomes even by absent cells.
        dilation: Steps between the cells of a filter.
        groups: Groups of channels that only see themselves.

    Raises:
        UnsupportedError: Weights of a filter that are not one magnitude times signs, or padding that is neither nothing
            nor one of the two values of the inputs.
    """
    padding_value: Fraction = Fraction(0)
    if tensor.border is not None:
        around, padding_value = tensor.border
        if any(pads) and padding_value != 0:
            raise UnsupportedError(f"{where} pads with 0 what was padded with {padding_value}, expected one padding.")
        pads = tuple(a + b for a, b in zip(pads, around, strict=True))  # type: ignore[assignment]
        tensor = replace(tensor, border=None)
    image = image_shape(tensor, where)
    full = _spread_kernels(kernels, image[0], dilation, groups, where)
    signs = resolved(tensor, image, where)
    mean, step, shift = (_per_channel(values, image[0], where) for values in (signs.mean, signs.step, signs.shift))
    units, scale = _split(full, where)
    pad_value = _pad_value(mean, step, signs.root, padding_value - shift, where) if any(pads) else 0
    cells = units.shape[2] * units.shape[3]
    flat = units.reshape(units.shape[0], -1)
    means, sizes, shifts = (np.repeat(values, cells) for values in (mean, step, shift))
    sums = _through(flat, scale, means, sizes, signs.root, shifts, where, tensor.steps is not None)
    turned = (units * _directions(step)[None, :, None, None]).astype(np.int8)
    even, padding = symmetric(turned, pads)
    source = replace(signs.source, name=where, weights=even, geometry=Geometry(image, stride, padding, pad_value))
    check_places(source, where)
    affine = sums.plus(_bias(bias, units.shape[0], where))
    shape = (1, *source.output_shape)
    return Tensor(source, affine, None, None, np.arange(math.prod(shape), dtype=np.int64).reshape(shape))


def _split(weights: NDArray[Any], where: str) -> tuple[SignArray, Column]:
    """Signs (0 where absent) and the magnitude of each row."""
    require_size(weights.shape, f"{where}: its weights")
    rows = weights.reshape(weights.shape[0], -1)
    require_finite(weights, where)
    sizes = np.abs(rows)
    most = sizes.max(axis=1)
    bad = np.argwhere((sizes != 0) & (sizes != most[:, None]))
    if bad.size:
        j, i = (int(v) for v in bad[0])
        raise UnsupportedError(
            f"{where} has weights of different magnitude in row {j}: {rows[j, i]:.6g} and {most[j]:.6g}, expected one "
            "magnitude times -1/+1 (0 where absent). Export binarized weights, not the latent ones."
        )
    scale = column([v if v else 1 for v in most.tolist()])
    return np.sign(weights).astype(np.int8), scale


def _directions(step: Column) -> SignArray:
    return np.array([(v > 0) - (v < 0) for v in step], dtype=np.int8)


def _through(
    units: SignArray,
    scale: Column,
    mean: Column,
    step: Column,
    root: Fraction,
    shift: Column,
    where: str,
    signed: bool,
) -> Affine:
    """Each row, ``scale * sum(w * ((mean + step * h) / sqrt(root) + shift))``, in terms of the sum of signs."""
    sizes = {abs(v) for v in step if v != 0}
    if len(sizes) > 1:
        low, high = min(sizes), max(sizes)
        what, remedy = (
            "signs of different magnitude",
            "Scales per channel behind a sign do not fit into binary weights.",
        )
        if not signed:
            what = "the input after a batch norm or scale of its own for each channel"
            remedy = "Is a sign missing between the two? Put it there (for a state dict: --layer NAME:sign=1)."
        raise UnsupportedError(
            f"{where} takes {what} ({float(low):.6g} to {float(high):.6g}), expected one magnitude for all. {remedy}"
        )
    size = sizes.pop() if sizes else Fraction(1)
    rows = units.shape[0]
    offset, moved = scale * _weighted(units, mean), scale * _weighted(units, shift)
    return Affine(scale * size, offset, constant_column(root, rows), moved)


def _weighted(units: SignArray, values: Column) -> Column:
    """The sum of each row times these values."""
    total = constant_column(0, units.shape[0])
    numbers = {value: k for k, value in enumerate(dict.fromkeys(values.tolist()))}
    kinds = np.array([numbers[value] for value in values.tolist()])
    for value, k in numbers.items():
        if value != 0:
            total = total + value * column(units[:, kinds == k].sum(axis=1, dtype=np.int64).tolist())
    return total


def _bias(bias: Any, units: int, where: str) -> Column:
    if bias is None:
        return constant_column(0, units)
    array = np.asarray(bias)
    if array.size == 1:
        return constant_column(array.ravel()[0], units)
    if array.size != units:
        raise ModelError(f"{where} has a bias of shape {array.shape}, expected {units} numbers.")
    return column(array, f"{where}: the bias")


def _per_channel(values: Column, channels: int, where: str) -> Column:
    rows = values.reshape(channels, -1)
    if any(v is not row[0] and v != row[0] for row in rows for v in row):  # mostly the same objects
        raise UnsupportedError(f"{where} takes images whose values differ in kind within a channel, expected one kind.")
    return rows[:, 0]


def _pad_value(mean: Column, step: Column, root: Fraction, wanted: Column, where: str) -> int:
    """The sign (or nothing) that stands for the padding: that with which the inputs are what is wanted there."""
    for pad in (0, -1, 1):
        pairs = [(m + d * pad, w) for m, d, w in zip(mean, step, wanted, strict=True)]
        if all(v == w and (v == 0 or root == 1) for v, w in pairs):  # other roots are irrational
            return pad
    m, d = mean[0], step[0]
    raise UnsupportedError(
        f"{where} pads with {wanted[0]}, but its inputs are {m} + {d} * x"
        f"{'' if root == 1 else f', over the root of {float(root):.6g}'}: no -1, 0 or +1 gives that. Expected padding "
        "with one of the values of the inputs, or nothing where they are -1/+1."
    )


def _spread_kernels(
    kernels: NDArray[Any], channels: int, dilation: tuple[int, int], groups: int, where: str
) -> NDArray[Any]:
    """Kernels over all channels, with zeros between the cells where they are dilated."""
    if kernels.ndim != 4:
        raise UnsupportedError(
            f"{where} has kernels of shape {kernels.shape}, expected (filters, channels, rows, columns)."
        )
    filters, inner, rows, columns = kernels.shape
    if inner * groups != channels or filters % groups:
        raise ModelError(
            f"{where} has kernels of shape {kernels.shape} in {groups} group(s) over {channels} channels, expected "
            "these to fit."
        )
    down, across = dilation
    require_size((filters, channels, (rows - 1) * down + 1, (columns - 1) * across + 1), f"{where}: its filters")
    full = np.zeros((filters, channels, (rows - 1) * down + 1, (columns - 1) * across + 1), dtype=kernels.dtype)
    for f in range(filters):
        first = f // (filters // groups) * inner
        full[f, first : first + inner, ::down, ::across] = kernels[f]
    return full


def symmetric(kernels: SignArray, pads: tuple[int, int, int, int]) -> tuple[SignArray, tuple[int, int]]:
    """Kernels with absent rows and columns, such that even padding has the effect of `pads`."""
    top, left, bottom, right = pads
    high, wide = max(top, bottom), max(left, right)
    rows, columns = kernels.shape[2] + 2 * high - top - bottom, kernels.shape[3] + 2 * wide - left - right
    require_size((*kernels.shape[:2], rows, columns), "the filters that stand for an uneven padding")
    grown = np.pad(kernels, ((0, 0), (0, 0), (high - top, high - bottom), (wide - left, wide - right)))
    return grown, (high, wide)
