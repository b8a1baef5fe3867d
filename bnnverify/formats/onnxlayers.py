"""Linear layers, pooling and padding of ONNX as operations on a `Tensor`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.formats import elementwise, layers, pooling, tensors
from bnnverify.formats.onnxcall import Call
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import column


def _pads(call: Call, tensor: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    mode, pads = call.get("auto_pad"), [int(v) for v in call.get("pads")]
    if mode == "NOTSET":
        if len(pads) != 4 or min(pads) < 0:
            raise call.refuse(f"pads by {pads}, expected four numbers of at least 0.")
        return pads[0], pads[1], pads[2], pads[3]
    if mode not in ("VALID", "SAME_UPPER", "SAME_LOWER") or any(pads):
        raise call.refuse(f"pads by auto_pad={mode} and {pads}, expected one of the two ways in ONNX.")
    if mode == "VALID":
        return 0, 0, 0, 0
    before, after = [], []
    for size, kernel, step in zip(tensor.shape[2:], window, stride, strict=True):
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        small, large = total // 2, total - total // 2
        before.append(large if mode == "SAME_LOWER" else small)
        after.append(small if mode == "SAME_LOWER" else large)
    return before[0], before[1], after[0], after[1]


def _pair(call: Call, name: str) -> tuple[int, int]:
    values = [int(v) for v in call.get(name)]
    if len(values) != 2 or min(values) < 1:
        raise call.refuse(f"has {name} {values}, expected two numbers: images of rows and columns.")
    return values[0], values[1]


def _images(call: Call, tensor: Tensor) -> None:
    if tensor.index.ndim != 4:
        raise call.refuse(f"takes a tensor of shape {tensor.index.shape}, expected (1, channels, height, width).")


def conv(call: Call, tensor: Tensor) -> Tensor:
    """Conv: a convolution of images."""
    _images(call, tensor)
    if call.at != 0:
        raise call.refuse("has weights that depend on the input, expected constant ones.")
    kernels = call.constant(1, "weights")
    stride, dilation = _pair(call, "strides"), _pair(call, "dilations")
    if kernels.ndim != 4:
        raise call.refuse(f"has weights of shape {kernels.shape}, expected (filters, channels, rows, columns).")
    if (stated := call.get("kernel_shape")) is not None and tuple(stated) != kernels.shape[2:]:
        raise call.refuse(f"has kernel_shape {stated}, expected {list(kernels.shape[2:])}, the shape of its weights.")
    rows, columns = ((k - 1) * d + 1 for k, d in zip(kernels.shape[2:], dilation, strict=True))
    return layers.convolved(
        tensor,
        kernels,
        call.optional(2),
        call.where,
        stride=stride,
        pads=_pads(call, tensor, (rows, columns), stride),
        dilation=dilation,
        groups=_groups(call),
    )


def _groups(call: Call) -> int:
    groups = int(call.get("group"))
    if groups < 1:
        raise call.refuse(f"has {groups} groups of channels, expected at least one.")
    return groups


def max_pool(call: Call, tensor: Tensor) -> Tensor:
    """MaxPool."""
    _images(call, tensor)
    window, stride = _pair(call, "kernel_shape"), _pair(call, "strides")
    if call.opset >= 10 and _pair(call, "dilations") != (1, 1):
        raise call.refuse("has windows with gaps (dilations), expected none.")
    pads = _pads(call, tensor, window, stride)
    return pooling.pooled(tensor, window, stride, pads, call.where, ceil=bool(call.get("ceil_mode")))


def pad(call: Call, tensor: Tensor) -> Tensor:
    """Pad: rows and columns of a constant around images."""
    if call.get("mode") != "constant":
        raise call.refuse("repeats or mirrors the border, expected a constant.")
    pads = (call.get("pads") if call.opset < 11 else call.integers(1, "list of pads")) or []
    constant = call.get("value") if call.opset < 11 else call.number(2) or 0
    if (axes := call.integers(3, "list of axes")) is not None:
        rank = tensor.index.ndim
        places = [call.axis(axis, rank) for axis in axes]
        if len(pads) != 2 * len(set(places)) or len(set(places)) != len(places):
            raise call.refuse(f"pads the axes {axes} by {pads}, expected each axis once and two numbers for each.")
        spread = [0] * (2 * rank)
        for k, axis in enumerate(places):
            spread[axis], spread[axis + rank] = pads[k], pads[k + len(places)]
        pads = spread
    if len(pads) != 2 * tensor.index.ndim or min(pads) < 0:
        raise call.refuse(f"pads by {pads}, expected two numbers of at least 0 for each of {tensor.index.ndim} axes.")
    if not any(pads):
        return tensor
    half = tensor.index.ndim
    if half != 4 or any(pads[i] or pads[i + half] for i in (0, 1)):
        raise call.refuse("pads other axes than the rows and columns of (1, channels, height, width).")
    return elementwise.bordered(tensor, (pads[2], pads[3], pads[6], pads[7]), constant, call.where)


def _matrix(call: Call, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2:
        raise call.refuse(f"has weights of shape {array.shape}, expected a matrix.")
    return array


def matmul(call: Call, tensor: Tensor) -> Tensor:
    """MatMul: a dense layer without a bias."""
    if call.at != 0:
        raise call.refuse("multiplies a constant with the tensor, expected the tensor first: x @ W.")
    weights = _matrix(call, call.constant(1, "weights"))
    return rowwise(tensor, layers.dense(require_row(call, tensor), weights.T, None, call.where))


def gemm(call: Call, tensor: Tensor) -> Tensor:
    """Gemm: a dense layer with a bias."""
    alpha, beta = np.float32(call.get("alpha")), np.float32(call.get("beta"))
    if call.at != 0 or call.get("transA") or alpha == 0:
        raise call.refuse("multiplies in another order than x @ W, or by 0, expected a dense layer.")
    weights = _matrix(call, call.constant(1, "weights"))
    bias = call.optional(2)
    result = layers.dense(require_row(call, tensor), weights if call.get("transB") else weights.T, None, call.where)
    if alpha != 1:
        result = elementwise.times(result, alpha, call.where)
    if bias is not None and beta != 0:
        exact = column(np.asarray(bias), call.where) * Fraction(float(beta))
        result = elementwise.plus(result, exact.reshape(np.shape(bias)), call.where)
    return result


def require_row(call: Call, tensor: Tensor) -> Tensor:
    """The tensor, which must be a single row of numbers."""
    shape = tensor.index.shape
    if int(np.prod(shape[:-1], dtype=np.int64)) != 1:
        raise call.refuse(f"takes a tensor of shape {shape}, expected one row: flatten it first.")
    return tensor


def rowwise(before: Tensor, after: Tensor) -> Tensor:
    """The outputs of a dense layer in the shape that a product of matrices gives them."""
    return tensors.moved(after, after.index.reshape(*before.index.shape[:-1], -1))
