"""What each ONNX operator does to the one tensor that depends on the input.

A handler takes the node, the tensor, its place among the node's inputs, and the other inputs as arrays. An operator
without a handler raises UnsupportedError that names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import ModelError
from bnnverify.formats import elementwise, onnxlayers, qonnx, tensors
from bnnverify.formats.onnxcall import Call
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import column

FLOAT, INT32, INT64, DOUBLE = 1, 6, 7, 11  # numbers of types in ONNX
_WHOLE = {  # type -> the least and the greatest of the integers that it holds without gaps, as far as signs need them
    **dict.fromkeys((3, 5, INT32, INT64, 10, 16), (-100, 100)),
    **dict.fromkeys((2, 4, 12, 13), (0, 100)),
    9: (0, 1),
    21: (0, 15),
    22: (-8, 7),
    25: (0, 3),
    26: (-2, 1),
}

Handler = Callable[[Call, Tensor], Tensor]


def apply(call: Call, tensor: Tensor) -> Tensor:
    """The tensor after the node.

    Raises:
        UnsupportedError: The operator, or what it does here, has no place in a binarized network.
    """
    handler = HANDLERS.get(call.node.kind)
    if handler is None:
        known = ", ".join(sorted(name for name in HANDLERS if "." not in name))
        raise call.refuse(f"is no operation of a binarized network that is understood, expected one of {known}.")
    if call.at != 0 and call.node.kind not in ANY_PLACE:
        raise call.refuse(f"takes what depends on the input as input {call.at}, expected it as input 0.")
    return handler(call, tensor)


def _same(call: Call, tensor: Tensor) -> Tensor:
    return tensor


def _dropout(call: Call, tensor: Tensor) -> Tensor:
    if call.number(2):
        raise call.refuse("is in training mode, expected a model for inference.")
    return tensor


def _cast(call: Call, tensor: Tensor) -> Tensor:
    to = int(call.get("to"))
    if to in (FLOAT, DOUBLE):
        return tensor
    # sums of signs; of inputs, which may be real, a cast would cut off the fraction
    is_whole = tensor.source.takes_signs and elementwise.is_integral(tensor)
    if tensor.steps is None and to in (INT32, INT64) and is_whole:
        return tensor
    if tensor.steps is not None and to in _WHOLE:
        values = {v for array in (tensor.steps.low, tensor.steps.zero, tensor.steps.high) for v in array}
        least, most = _WHOLE[to]
        if all(v.denominator == 1 and least <= v <= most for v in values):
            return tensor
    raise call.refuse("rounds numbers to another type, expected float, double, or integers that the type holds.")


def _transpose(call: Call, tensor: Tensor) -> Tensor:
    elementwise.require_plain(tensor, call.where)
    axes = call.get("perm")
    axes = list(range(tensor.index.ndim))[::-1] if axes is None else axes
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
    wanted = call.integers(1, "shape")
    if wanted is None or min(wanted, default=0) < -1:
        raise ModelError(f"{call.where} makes the shape {wanted} of a tensor, expected sizes, of which one may be -1.")
    if not call.get("allowzero"):
        wanted = [tensor.index.shape[i] if v == 0 and i < tensor.index.ndim else v for i, v in enumerate(wanted)]
    return _reshaped(call, tensor, wanted)


def _flatten(call: Call, tensor: Tensor) -> Tensor:
    axis, rank = int(call.get("axis")), tensor.index.ndim
    lead = int(np.prod(tensor.index.shape[: rank if axis == rank else call.axis(axis, rank)], dtype=np.int64))
    return _reshaped(call, tensor, (lead, -1))


def _axes(call: Call, rank: int) -> list[int] | None:
    """Axes, given as an attribute or an input, counted from the start."""
    given = call.get("axes") or call.integers(1, "list of axes")
    if given is None:
        return None
    axes = [call.axis(v, rank) for v in given]
    if len(set(axes)) != len(axes):
        raise ModelError(f"{call.where} names the axes {given}, expected each once.")
    return axes


def _squeeze(call: Call, tensor: Tensor) -> Tensor:
    shape = tensor.index.shape
    axes = _axes(call, len(shape))
    gone = {i for i, v in enumerate(shape) if v == 1} if axes is None else set(axes)
    if any(shape[i] != 1 for i in gone):
        raise ModelError(f"{call.where} drops axes {sorted(gone)} of a tensor of shape {shape}, expected sizes of 1.")
    return _reshaped(call, tensor, [v for i, v in enumerate(shape) if i not in gone])


def _unsqueeze(call: Call, tensor: Tensor) -> Tensor:
    rank = tensor.index.ndim + len(call.get("axes") or call.integers(1, "list of axes") or ())
    places = _axes(call, rank) or []
    sizes = iter(tensor.index.shape)
    return _reshaped(call, tensor, [1 if i in places else next(sizes) for i in range(rank)])


def _other(call: Call, what: str) -> NDArray[Any]:
    """The constant side of an operation of two numbers; its type is that of the operation."""
    array = call.constant(1 - call.at, what)
    if array.dtype.kind not in "if" or (array.dtype.kind == "i" and array.dtype.itemsize < 4):
        raise call.refuse(f"calculates in {array.dtype}, which wraps around, expected float, int32 or int64.")
    return array.astype(object) if array.dtype.kind == "i" else array


def _add(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.plus(tensor, _other(call, "summand"), call.where)


def _sub(call: Call, tensor: Tensor) -> Tensor:
    other = _other(call, "subtrahend")
    if call.at == 0:
        return elementwise.plus(tensor, -other, call.where)
    return elementwise.plus(elementwise.times(tensor, -1, call.where), other, call.where)


def _mul(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.times(tensor, _other(call, "factor"), call.where)


def _div(call: Call, tensor: Tensor) -> Tensor:
    if call.at == 1:
        raise call.refuse("divides by what depends on the input, expected a constant divisor.")
    divisor = call.constant(1, "divisor")
    if divisor.dtype.kind in "iu":
        raise call.refuse("divides integers, which cuts off the fraction, expected a division of floats.")
    return elementwise.times(tensor, divisor, call.where, inverse=True)


def _neg(call: Call, tensor: Tensor) -> Tensor:
    return elementwise.times(tensor, -1, call.where)


def _batch_norm(call: Call, tensor: Tensor) -> Tensor:
    if call.get("training_mode") or any(call.node.outputs[1:]):
        raise call.refuse("is in training mode, expected a model for inference.")
    if call.get("spatial") == 0:
        raise call.refuse("has statistics for each position (spatial=0), expected them for each channel.")
    gamma, beta, mean, variance = (
        call.constant(i, what) for i, what in enumerate(("scale", "shift", "mean", "variance"), start=1)
    )
    epsilon = np.float32(call.get("epsilon"))
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
    if tensor.steps is None or not elementwise.is_truth(tensor.steps):
        raise call.refuse("negates numbers, expected the outcome of a comparison.")
    return replace(tensor, steps=tensor.steps.mapped(lambda v: 1 - v))


def _where(call: Call, tensor: Tensor) -> Tensor:
    if call.at != 0:
        raise call.refuse("chooses between values that depend on the input, expected two constants.")
    return elementwise.chosen(tensor, call.constant(1, "value"), call.constant(2, "value"), call.where)


def _clip(call: Call, tensor: Tensor) -> Tensor:
    bounds = []
    for place, name, nothing in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = call.number(place) if call.opset >= 11 else call.get(name)
        if value is not None and not np.isfinite(value) and value != nothing:
            raise ModelError(f"{call.where} clips with {name} = {value}, expected a finite number.")
        is_open = value is None or (value if place == 2 else -value) >= np.finfo(np.float32).max
        bounds.append(None if is_open else column([value], call.where)[0])
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


HANDLERS: dict[str, Handler] = {
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": onnxlayers.conv,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": onnxlayers.gemm,
    "Greater": _comparison(">"),
    "GreaterOrEqual": _comparison(">="),
    "Identity": _same,
    "Less": _comparison("<"),
    "LessOrEqual": _comparison("<="),
    "MatMul": onnxlayers.matmul,
    "MaxPool": onnxlayers.max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "Not": _not,
    "Pad": onnxlayers.pad,
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
HANDLERS |= qonnx.HANDLERS
ANY_PLACE = ("Add", "Div", "Gemm", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "MatMul", "Mul", "Sub", "Where")
