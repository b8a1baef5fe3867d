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
from bnnverify.formats import elementwise, onnxlayers, tensors
from bnnverify.formats.onnxcall import Call
from bnnverify.formats.tensors import Tensor

FLOAT, INT32, INT64, BOOL, DOUBLE, UNSIGNED = 1, 6, 7, 9, 11, (2, 4, 12, 13)  # numbers of types in ONNX

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
    to = int(call.get("to", FLOAT))
    if to in (FLOAT, DOUBLE):
        return tensor
    # sums of signs; of inputs, which may be real, a cast would cut off the fraction
    is_whole = tensor.source.takes_signs and elementwise.is_integral(tensor)
    if tensor.steps is None and to in (INT32, INT64) and is_whole:
        return tensor
    if tensor.steps is not None:
        values = {v for array in (tensor.steps.low, tensor.steps.zero, tensor.steps.high) for v in array}
        least = 0 if to in (BOOL, *UNSIGNED) else -100
        most = 1 if to == BOOL else 100  # small enough for every type
        if all(v.denominator == 1 and least <= v <= most for v in values):
            return tensor
    raise call.refuse("rounds numbers to another type, expected float, double, or small integers.")


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


def _other(call: Call, what: str) -> NDArray[Any]:
    """The constant side of an operation of two numbers; its type is that of the operation."""
    array = call.constant(1 - call.at, what)
    if array.dtype.kind == "u" or (array.dtype.kind == "i" and array.dtype.itemsize < 4):
        raise call.refuse(f"calculates in {array.dtype}, which wraps around, expected float, int32 or int64.")
    return array


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
        bounds.append(None if value is None or not np.isfinite(value) else Fraction(float(value)))
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
    assert fired.steps is not None
    return replace(fired, steps=fired.steps.mapped(lambda v: np.where(v != 0, column, -column)))


def bipolar_constant(values: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """BipolarQuant of constants."""
    return np.where(values >= 0, scale, -scale).astype(values.dtype)


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
BIPOLAR = ("qonnx.custom_op.general.BipolarQuant", "onnx.brevitas.BipolarQuant", "finn.custom_op.general.BipolarQuant")
HANDLERS |= dict.fromkeys(BIPOLAR, _bipolar)
