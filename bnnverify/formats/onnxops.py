"""What each ONNX operator does to the one tensor that depends on the input.

A handler takes the node, the tensor, its place among the node's inputs, and the other inputs as arrays. An operator
without a handler raises UnsupportedError that names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats import elementwise, layers, pooling, tensors
from bnnverify.formats.onnxgraph import Node
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import Steps

Arrays = Sequence[NDArray[Any] | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One node about to act on the tensor.

    Attributes:
        node: The node.
        arrays: Its inputs; None where the tensor is, or where one is left out.
        at: Place of the tensor among the inputs.
        opset: Version of ONNX's own operators.
        where: What messages call the node.
    """

    node: Node
    arrays: Arrays
    at: int
    opset: int
    where: str

    def constant(self, place: int, what: str) -> NDArray[Any]:
        """The input at `place`, which must be there."""
        if place >= len(self.arrays) or (array := self.arrays[place]) is None:
            raise ModelError(f"{self.where} has no {what}, expected it as input {place}.")
        return array

    def optional(self, place: int) -> NDArray[Any] | None:
        """The input at `place`, or None."""
        return self.arrays[place] if place < len(self.arrays) else None

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.node.attributes.get(name, default)

    def refuse(self, reason: str) -> UnsupportedError:
        """The error that this node is not understood."""
        return UnsupportedError(f"{self.where} {reason}")


Handler = Callable[[Call, Tensor], Tensor]


def apply(call: Call, tensor: Tensor) -> Tensor:
    """The tensor after the node.

    Raises:
        UnsupportedError: The operator, or what it does here, has no place in a binarized network.
    """
    handler = HANDLERS.get(call.node.kind)
    if handler is None:
        known = ", ".join(sorted(HANDLERS))
        raise call.refuse(f"is no operation of a binarized network that is understood, expected one of {known}.")
    return handler(call, tensor)


def _same(call: Call, tensor: Tensor) -> Tensor:
    return tensor


def _dropout(call: Call, tensor: Tensor) -> Tensor:
    training = call.optional(2)
    if training is not None and training.any():
        raise call.refuse("is in training mode, expected a model for inference.")
    return tensor


def _cast(call: Call, tensor: Tensor) -> Tensor:
    if int(call.get("to", 1)) in (1, 10, 11, 16):  # float, float16, double, bfloat16
        return tensor
    if tensor.steps is None and int(call.get("to", 1)) in (6, 7) and elementwise.is_integral(tensor):  # int32, int64
        return tensor
    if tensor.steps is not None:
        values = [v for a in (tensor.steps.low, tensor.steps.zero, tensor.steps.high) for v in a]
        if all(v.denominator == 1 for v in values) and (int(call.get("to", 1)) != 9 or set(values) <= {0, 1}):
            return tensor
    raise call.refuse("rounds numbers to another type, expected a floating-point type.")


def _transpose(call: Call, tensor: Tensor) -> Tensor:
    elementwise.require_plain(tensor, call.where)
    axes = call.get("perm", None) or list(range(tensor.index.ndim))[::-1]
    if sorted(axes) != list(range(tensor.index.ndim)):
        raise ModelError(f"{call.where} permutes axes {list(axes)} of a tensor of shape {tensor.index.shape}.")
    return tensors.moved(tensor, tensor.index.transpose(axes))


def _reshaped(call: Call, tensor: Tensor, shape: Sequence[int]) -> Tensor:
    elementwise.require_plain(tensor, call.where)
    try:
        return tensors.moved(tensor, tensor.index.reshape(tuple(int(v) for v in shape)))
    except ValueError:
        raise ModelError(f"{call.where} makes {list(shape)} of a tensor of shape {tensor.index.shape}.") from None


def _reshape(call: Call, tensor: Tensor) -> Tensor:
    wanted = [int(v) for v in call.constant(1, "shape").ravel()]
    if not call.get("allowzero", 0):
        wanted = [tensor.index.shape[i] if v == 0 and i < tensor.index.ndim else v for i, v in enumerate(wanted)]
    return _reshaped(call, tensor, wanted)


def _flatten(call: Call, tensor: Tensor) -> Tensor:
    axis = int(call.get("axis", 1))
    axis += tensor.index.ndim if axis < 0 else 0
    lead = int(np.prod(tensor.index.shape[:axis], dtype=np.int64))
    return _reshaped(call, tensor, (lead, -1))


def _axes(call: Call) -> list[int] | None:
    given = call.get("axes", None)
    if given is None and (array := call.optional(1)) is not None:
        given = array.ravel().tolist()
    return None if given is None else [int(v) for v in given]


def _squeeze(call: Call, tensor: Tensor) -> Tensor:
    shape, axes = tensor.index.shape, _axes(call)
    gone = {i for i, v in enumerate(shape) if v == 1} if axes is None else {a % len(shape) for a in axes}
    if any(shape[i] != 1 for i in gone):
        raise ModelError(f"{call.where} drops axes {sorted(gone)} of a tensor of shape {shape}, expected sizes of 1.")
    return _reshaped(call, tensor, [v for i, v in enumerate(shape) if i not in gone])


def _unsqueeze(call: Call, tensor: Tensor) -> Tensor:
    axes = _axes(call)
    if axes is None:
        raise ModelError(f"{call.where} names no axes, expected them.")
    rank = tensor.index.ndim + len(axes)
    places = {a % rank for a in axes}
    sizes = iter(tensor.index.shape)
    return _reshaped(call, tensor, [1 if i in places else next(sizes) for i in range(rank)])


def _add(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.plus(tensor, call.constant(1 - call.at, "summand"), call.where)


def _sub(call: Call, tensor: Tensor) -> Tensor:
    other = call.constant(1 - call.at, "subtrahend")
    if call.at == 0:
        return elementwise.plus(tensor, -other, call.where)
    return elementwise.plus(elementwise.times(tensor, -1, call.where), other, call.where)


def _mul(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.times(tensor, call.constant(1 - call.at, "factor"), call.where)


def _div(call: Call, tensor: Tensor) -> Tensor:
    if call.at == 1:
        raise call.refuse("divides by what depends on the input, expected a constant divisor.")
    return elementwise.times(tensor, call.constant(1, "divisor"), call.where, inverse=True)


def _neg(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.times(tensor, -1, call.where)


def _batch_norm(call: Call, tensor: Tensor) -> Tensor:
    if int(call.get("training_mode", 0)):
        raise call.refuse("is in training mode, expected a model for inference.")
    gamma, beta, mean, variance = (
        call.constant(i, what) for i, what in enumerate(("scale", "shift", "mean", "variance"), start=1)
    )
    epsilon = np.float32(call.get("epsilon", 1e-5))
    axis = min(1, tensor.index.ndim - 1)
    return elementwise.normed(tensor, gamma, beta, mean, variance, epsilon, axis=axis, where=call.where)


def _sign(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.sign(tensor, call.where)


def _comparison(kind: str) -> Handler:
    turned = {">": "<", ">=": "<=", "<": ">", "<=": ">="}[kind]

    def handler(call: Call, tensor: Tensor) -> Tensor:
        other = call.constant(1 - call.at, "other side")
        return elementwise.compared(tensor, other, kind if call.at == 0 else turned, call.where)

    return handler


def _not(call: Call, tensor: Tensor) -> Tensor:
    if tensor.steps is None:
        raise call.refuse("negates numbers, expected the outcome of a comparison.")
    return replace(tensor, steps=tensor.steps.mapped(lambda v: 1 - v))


def _where(call: Call, tensor: Tensor) -> Tensor:
    if call.at != 0:
        raise call.refuse("chooses between values that depend on the input, expected two constants.")
    return elementwise.chosen(tensor, call.constant(1, "value"), call.constant(2, "value"), call.where)


def _clip(call: Call, tensor: Tensor) -> Tensor:
    bounds = []
    for place, name in ((1, "min"), (2, "max")):
        array = call.optional(place)
        value = call.get(name, None) if array is None else array.ravel()[0]
        bounds.append(None if value is None or not np.isfinite(value) else Fraction(float(np.float32(value))))
    return elementwise.clip(tensor, bounds[0], bounds[1], call.where)


def _relu(call: Call, tensor: Tensor) -> Tensor:
    if tensor.steps is None:
        raise call.refuse("cuts off sums at 0, expected a sign: this is no binarized network.")
    return elementwise.clip(tensor, Fraction(0), None, call.where)


def _squash(call: Call, tensor: Tensor) -> Tensor:
    """Tanh and Softsign: odd and rising, so that a sign sees nothing of them."""
    if tensor.steps is not None:
        raise call.refuse("takes signs, expected sums and a sign after it.")
    return elementwise.clip(tensor, Fraction(-1), Fraction(1), call.where)


def _bipolar(call: Call, tensor: Tensor) -> Tensor:
    """BipolarQuant of QONNX: scale where x >= 0, minus scale elsewhere."""
    fired = elementwise.compared(tensor, 0.0, ">=", call.where)
    scale = np.asarray(call.constant(1, "scale"), dtype=np.float64)
    column = elementwise.per_unit(fired, scale, call.where)
    return replace(fired, steps=Steps(-column, column, column))


def bipolar_constant(values: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """BipolarQuant of constants."""
    return np.where(values >= 0, scale, -scale).astype(values.dtype)


def _pads(call: Call, tensor: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    mode = call.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = [int(v) for v in call.get("pads", [0, 0, 0, 0])]
        if len(pads) != 4 or min(pads) < 0:
            raise call.refuse(f"pads by {pads}, expected four numbers of at least 0.")
        return pads[0], pads[1], pads[2], pads[3]
    if mode == "VALID":
        return 0, 0, 0, 0
    before, after = [], []
    for size, kernel, step in zip(tensor.shape[2:], window, stride, strict=True):
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        small, large = total // 2, total - total // 2
        before.append(large if mode == "SAME_LOWER" else small)
        after.append(small if mode == "SAME_LOWER" else large)
    return before[0], before[1], after[0], after[1]


def _pair(call: Call, name: str, default: Sequence[int]) -> tuple[int, int]:
    values = [int(v) for v in call.get(name, default)]
    if len(values) != 2 or min(values) < 1:
        raise call.refuse(f"has {name} {values}, expected two numbers: images of rows and columns.")
    return values[0], values[1]


def _images(call: Call, tensor: Tensor) -> None:
    if tensor.index.ndim != 4:
        raise call.refuse(f"takes a tensor of shape {tensor.index.shape}, expected (1, channels, height, width).")


def _conv(call: Call, tensor: Tensor) -> Tensor:
    _images(call, tensor)
    if call.at != 0:
        raise call.refuse("has weights that depend on the input, expected constant ones.")
    kernels = call.constant(1, "weights")
    stride, dilation = _pair(call, "strides", (1, 1)), _pair(call, "dilations", (1, 1))
    if kernels.ndim != 4:
        raise call.refuse(f"has weights of shape {kernels.shape}, expected (filters, channels, rows, columns).")
    rows, columns = ((k - 1) * d + 1 for k, d in zip(kernels.shape[2:], dilation, strict=True))
    return layers.convolved(
        tensor,
        kernels,
        call.optional(2),
        call.where,
        stride=stride,
        pads=_pads(call, tensor, (rows, columns), stride),
        dilation=dilation,
        groups=int(call.get("group", 1)),
    )


def _max_pool(call: Call, tensor: Tensor) -> Tensor:
    _images(call, tensor)
    window, stride = _pair(call, "kernel_shape", ()), _pair(call, "strides", (1, 1))
    if _pair(call, "dilations", (1, 1)) != (1, 1):
        raise call.refuse("has windows with gaps (dilations), expected none.")
    pads = _pads(call, tensor, window, stride)
    return pooling.pooled(tensor, window, stride, pads, call.where, ceil=bool(call.get("ceil_mode", 0)))


def _pad(call: Call, tensor: Tensor) -> Tensor:
    if call.get("mode", "constant") != "constant":
        raise call.refuse("repeats or mirrors the border, expected a constant.")
    array = call.optional(1)
    pads = [int(v) for v in (call.get("pads", []) if array is None else array.ravel())]
    value = call.optional(2)
    constant = call.get("value", 0.0) if value is None else value.ravel()[0]
    if (axes := call.optional(3)) is not None:
        spread = [0] * (2 * tensor.index.ndim)
        for k, axis in enumerate(axes.ravel().tolist()):
            spread[axis % tensor.index.ndim] = pads[k]
            spread[axis % tensor.index.ndim + tensor.index.ndim] = pads[k + axes.size]
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


def _matmul(call: Call, tensor: Tensor) -> Tensor:
    if call.at != 0:
        raise call.refuse("multiplies a constant with the tensor, expected the tensor first: x @ W.")
    weights = _matrix(call, call.constant(1, "weights"))
    return _rowwise(call, tensor, layers.dense(_row(call, tensor), weights.T, None, call.where))


def _gemm(call: Call, tensor: Tensor) -> Tensor:
    alpha, beta = np.float32(call.get("alpha", 1.0)), np.float32(call.get("beta", 1.0))
    if call.at != 0 or int(call.get("transA", 0)) or alpha == 0:
        raise call.refuse("multiplies in another order than x @ W, or by 0, expected a dense layer.")
    weights = _matrix(call, call.constant(1, "weights"))
    bias = call.optional(2)
    result = layers.dense(_row(call, tensor), weights if int(call.get("transB", 0)) else weights.T, None, call.where)
    if alpha != 1:
        result = elementwise.times(result, alpha, call.where)
    if bias is not None and beta != 0:
        summand = np.asarray(bias, dtype=np.float64)
        result = elementwise.plus(result, summand * float(beta) if beta != 1 else summand, call.where)
    return result


def _row(call: Call, tensor: Tensor) -> Tensor:
    shape = tensor.index.shape
    if int(np.prod(shape[:-1], dtype=np.int64)) != 1:
        raise call.refuse(f"takes a tensor of shape {shape}, expected one row: flatten it first.")
    return tensor


def _rowwise(call: Call, before: Tensor, after: Tensor) -> Tensor:
    return tensors.moved(after, after.index.reshape(*before.index.shape[:-1], -1))


HANDLERS: dict[str, Handler] = {
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Greater": _comparison(">"),
    "GreaterOrEqual": _comparison(">="),
    "Identity": _same,
    "Less": _comparison("<"),
    "LessOrEqual": _comparison("<="),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "Not": _not,
    "Pad": _pad,
    "Relu": _relu,
    "Reshape": _reshape,
    "Sign": _sign,
    "Softsign": _squash,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Tanh": _squash,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
BIPOLAR = ("qonnx.custom_op.general.BipolarQuant", "onnx.brevitas.BipolarQuant", "finn.custom_op.general.BipolarQuant")
HANDLERS |= dict.fromkeys(BIPOLAR, _bipolar)
