"""Max-pooling of a `Tensor`, before or after the sign."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.elementwise import require_plain
from bnnverify.formats.layers import symmetric
from bnnverify.formats.signs import resolved
from bnnverify.formats.tensors import Geometry, Pool, Tensor, arranged, check_places, image_shape, require_size
from bnnverify.formats.units import Affine, Steps, column, constant_column


def pooled(
    tensor: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    where: str,
    *,
    ceil: bool = False,
) -> Tensor:
    """Max-pooling of images `(1, channels, height, width)`."""
    require_plain(tensor, where)
    if tensor.index.ndim != 4 or tensor.index.shape[0] != 1:
        raise UnsupportedError(
            f"{where} pools a tensor of shape {tensor.index.shape}, expected (1, channels, height, width)."
        )
    if tensor.source.weights is None:
        raise UnsupportedError(f"{where} pools the input, expected max-pooling after a convolution.")
    top, left, bottom, right = pads
    lengths = tensor.index.shape[2] + top + bottom, tensor.index.shape[3] + left + right
    exact = all((size - side) % step == 0 for size, side, step in zip(lengths, window, stride, strict=True))
    if window == stride and pads == (0, 0, 0, 0) and tensor.pool is None and (exact or not ceil):
        if window == (1, 1):
            return tensor
        return _pooled_by_windows(arranged(tensor, where), window, where)
    if ceil and not exact:
        raise UnsupportedError(f"{where} rounds the number of windows up (ceil_mode), expected windows that fit.")
    return _pooled_by_block(tensor, window, stride, pads, where)


def _pooled_by_windows(tensor: Tensor, window: tuple[int, int], where: str) -> Tensor:
    """Pooling as part of the convolution's own block."""
    units, height, width = tensor.source.output_shape
    if height < window[0] or width < window[1]:
        raise ModelError(
            f"{where} has windows of {window[0]}x{window[1]} over {height}x{width}, expected ones that fit."
        )
    pool = Pool(window, np.array([direction(tensor, j, where) >= 0 for j in range(units)]))
    shape = (1, units, height // window[0], width // window[1])
    return replace(tensor, pool=pool, index=np.arange(math.prod(shape), dtype=np.int64).reshape(shape))


def direction(tensor: Tensor, j: int, where: str) -> int:
    """Whether the value of unit j rises or falls with its sum; 0 if it is constant."""
    slope = tensor.affine.slope[j]
    rising = int(slope > 0) - int(slope < 0)
    if tensor.steps is None:
        return rising
    kind = tensor.steps.direction(j)
    if kind == 2:
        raise UnsupportedError(f"{where} pools values that neither rise nor fall with the sum, expected signs.")
    return rising * kind


def _pooled_by_block(
    tensor: Tensor, window: tuple[int, int], stride: tuple[int, int], pads: tuple[int, int, int, int], where: str
) -> Tensor:
    """Overlapping or padded pooling of signs: a convolution of its own, whose units are OR or AND."""
    if tensor.steps is None:
        raise UnsupportedError(
            f"{where} pools sums with windows that overlap or are padded, expected pooling after the sign, or windows "
            "side by side."
        )
    image = image_shape(tensor, where)
    signs = resolved(tensor, image, where)
    low, high = signs.mean - signs.step, signs.mean + signs.step
    rows = low.reshape(image[0], -1), high.reshape(image[0], -1)
    for values in rows:
        if any((row != row[0]).any() for row in values):
            raise UnsupportedError(f"{where} pools values that differ within a channel, expected signs.")
    up = np.array([b >= a for a, b in zip(rows[0][:, 0], rows[1][:, 0], strict=True)])
    padded = any(pads)
    if padded and up.any() and not up.all():
        raise UnsupportedError(f"{where} pads while some channels are negated, expected pooling without padding.")
    k = window[0] * window[1]
    require_size((image[0], image[0], *window), f"{where}: its windows")
    kernels = np.zeros((image[0], image[0], *window), dtype=np.int8)
    kernels[np.arange(image[0]), np.arange(image[0])] = 1
    kernels, padding = symmetric(kernels, pads)
    geometry = Geometry(image, stride, padding, (-1 if up.all() else 1) if padded else 0)
    source = replace(signs.source, name=where, weights=kernels, geometry=geometry)
    bound = column([2 - k if rises else k for rises in up])
    check_places(source, where)
    affine = Affine.create(constant_column(1, image[0]), -bound)
    first, last = rows[0][:, 0], rows[1][:, 0]
    shape = (1, *source.output_shape)
    return Tensor(source, affine, Steps(first, last, last), None, np.arange(math.prod(shape)).reshape(shape))
