"""Operators of QONNX, which Brevitas and FINN write: quantization to one bit, of constants to any, sums of bits.

References:
    Pappalardo et al., "QONNX: representing arbitrary-precision quantized neural networks", 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import ModelError
from bnnverify.formats import elementwise, layers
from bnnverify.formats.onnxcall import Call
from bnnverify.formats.onnxlayers import require_row, rowwise
from bnnverify.formats.onnxschema import DOMAINS
from bnnverify.formats.tensors import Tensor

ROUNDINGS: dict[str, Callable[[Any], Any]] = {"ROUND": np.round, "CEIL": np.ceil, "FLOOR": np.floor}


def _bipolar(call: Call, tensor: Tensor) -> Tensor:
    """BipolarQuant: scale where x >= 0, minus scale elsewhere."""
    return _two_valued(call, elementwise.compared(tensor, 0.0, ">=", call.where), call.constant(1, "scale"), -1, 1)


def _two_valued(call: Call, fired: Tensor, scale: NDArray[Any], low: int, high: int) -> Tensor:
    """`scale * low` where the comparison fails, `scale * high` where it holds."""
    column = elementwise.per_unit(fired, scale, call.where)
    assert fired.steps is not None
    return replace(fired, steps=fired.steps.mapped(lambda v: np.where(v != 0, column * high, column * low)))


def _quant(call: Call, tensor: Tensor) -> Tensor:
    """Quant to one bit; with a sign it is bipolar, without one 0 or 1."""
    scale, zero, bits = call.constant(1, "scale"), call.number(2), call.number(3)
    if bits != 1 or zero != 0 or (call.get("narrow") and not call.get("signed")):
        raise call.refuse(
            f"quantizes what depends on the input to {bits} bits around {zero}, expected one bit around 0: a sign."
        )
    if not (np.asarray(scale) > 0).all():
        raise call.refuse("has a scale that is not above 0, expected a positive one.")
    if call.get("signed"):
        return _two_valued(call, elementwise.compared(tensor, 0.0, ">=", call.where), scale, -1, 1)
    mode = call.get("rounding_mode").upper()
    if mode not in ROUNDINGS:
        raise call.refuse(f"rounds by {mode}, expected one of {', '.join(ROUNDINGS)}.")
    share, kind = {"ROUND": (0.5, ">"), "CEIL": (0.0, ">"), "FLOOR": (1.0, ">=")}[mode]  # a half goes to the even 0
    bound = np.asarray(scale, dtype=np.float64) * share
    return _two_valued(call, elementwise.compared(tensor, bound, kind, call.where), scale, 0, 1)


def _multi_threshold(call: Call, tensor: Tensor) -> Tensor:
    """MultiThreshold with one threshold per channel: ``out_scale * (x >= threshold) + out_bias``."""
    limits = call.constant(1, "thresholds")
    if limits.ndim != 2 or limits.shape[1] < 1:
        raise ModelError(f"{call.where} has thresholds of shape {limits.shape}, expected (channels, 1).")
    if (limits != limits[:, :1]).any():
        raise call.refuse(f"has {limits.shape[1]} thresholds per channel, expected one: a sign.")
    layout, rank = call.get("data_layout"), tensor.index.ndim
    if layout not in ("NCHW", "NHWC") or (layout == "NHWC" and rank not in (2, 4)):
        raise call.refuse(f"has the layout {layout!r:.20} over {rank} axes, expected NCHW, or NHWC over images.")
    axis = 1 if rank == 2 or (rank == 4 and layout == "NCHW") else rank - 1
    if limits.shape[0] not in (1, tensor.index.shape[axis]):
        raise ModelError(
            f"{call.where} has thresholds of {limits.shape[0]} channels for a tensor of shape {tensor.index.shape}, "
            f"expected {tensor.index.shape[axis]}, or one for all."
        )
    column = limits[:, 0].reshape([-1 if i == axis else 1 for i in range(rank)])
    fired = elementwise.compared(tensor, column, ">=", call.where)
    count = limits.shape[1]  # equal thresholds are passed together
    low = Fraction(call.get("out_bias"))
    high = Fraction(call.get("out_scale")) * count + low
    assert fired.steps is not None
    return replace(fired, steps=fired.steps.mapped(lambda v: v * (high - low) + low))


def _xnor_popcount(call: Call, tensor: Tensor) -> Tensor:
    """XnorPopcountMatMul of bits: the number of agreeing bits, which is half of the sum of signs plus their number."""
    bits = call.constant(1, "weights")
    if bits.ndim != 2 or not np.isin(bits, (0, 1)).all():
        raise call.refuse(f"has weights of shape {bits.shape} that are no matrix of 0 and 1, expected one.")
    if tensor.steps is None or not elementwise.is_truth(tensor.steps):
        raise call.refuse("counts agreeing bits of what are not bits, expected a threshold with outputs 0 and 1.")
    signs = 2 * bits.T.astype(np.float64) - 1
    row = require_row(call, tensor)
    missing = (signs.shape[1] - signs.sum(axis=1)) / 2  # bits count (sum of w) / 2 more than signs do
    return rowwise(tensor, layers.dense(row, signs, missing, call.where))


def _bipolar_constant(where: str, arrays: list[Any], attributes: Callable[[str], Any]) -> NDArray[Any]:
    values, scale = arrays
    return np.asarray(np.where(values >= 0, scale, -scale), dtype=values.dtype)


def _quant_constant(where: str, arrays: list[Any], attributes: Callable[[str], Any]) -> NDArray[Any]:
    """Quant of constants: ``scale * (clip(round(x / scale + zero)) - zero)``; one signed bit is bipolar."""
    values, scale, zero, width = arrays
    bits = float(np.ravel(width)[0]) if np.size(width) == 1 else 0.0
    if not bits.is_integer() or not 1 <= bits <= 32:
        raise ModelError(f"{where} quantizes to {width!s:.40} bits, expected 1 to 32.")
    signed, narrow, mode = bool(attributes("signed")), bool(attributes("narrow")), attributes("rounding_mode").upper()
    if mode not in ROUNDINGS:
        raise ModelError(f"{where} rounds by {mode!r:.40}, expected one of {', '.join(ROUNDINGS)}.")
    steps = values / scale + zero
    if signed and bits == 1:
        levels = np.where(steps >= 0, 1.0, -1.0)
    else:
        top = 2 ** (int(bits) - int(signed)) - 1 - int(narrow and not signed)
        least = -(2 ** (int(bits) - 1)) + int(narrow) if signed else 0
        levels = np.clip(ROUNDINGS[mode](steps), least, top)
    return np.asarray((levels - zero) * scale, dtype=values.dtype)


HANDLERS: dict[str, Callable[[Call, Tensor], Tensor]] = {}
CONSTANTS: dict[str, Callable[[str, list[Any], Callable[[str], Any]], NDArray[Any]]] = {}
for _domain in DOMAINS:
    HANDLERS[f"{_domain}.BipolarQuant"] = _bipolar
    HANDLERS[f"{_domain}.Quant"] = _quant
    HANDLERS[f"{_domain}.MultiThreshold"] = _multi_threshold
    HANDLERS[f"{_domain}.XnorPopcountMatMul"] = _xnor_popcount
    CONSTANTS[f"{_domain}.BipolarQuant"] = _bipolar_constant
    CONSTANTS[f"{_domain}.Quant"] = _quant_constant
