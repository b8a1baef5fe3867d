"""Networks of eevbnn (``.npz``): activations in {0, 1}, weights -1, 0 and +1, one member per array.

Members: ``meta``, JSON with ``quant_step``, ``input_shape``, ``layers``, ``final_scale`` and ``final_sign``; for each
hidden block I ``LI_w`` (kernels or a matrix, int8), ``LI_b`` (int32) and ``LI_s`` (int8, -1 or +1); for the output
``LI_w`` and ``LI_b`` (float64). Its meaning, exactly:

- the input is the vector of integers ``q = round(pixel / 255 / quant_step)``;
- a hidden unit outputs 1 iff ``s * (w . x + b) >= 0``, else 0; padding feeds 0;
- class k has the score ``final_scale * final_sign * (w[k] . x + b[k])``; the greatest wins.

An output x in {0, 1} is ``(h + 1) / 2`` of a sign h, so sums are ``(w . h + sum of w) / 2``: the sum of the weights
goes into the thresholds, and padding with 0 is the constant sign -1. Nothing is rounded.

References:
    Jia and Rinard, "Efficient exact verification of binarized neural networks", NeurIPS 2020.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import assembly, elementwise, layers, tensors
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.reading import Archive, number, parsed, read_unpacked

_WHAT = "a network of eevbnn (.npz with meta and L0_w, L0_b, L0_s, ...)"
_EXPECTED = f"expected {_WHAT}"
_MOST_INPUTS = 2**24


def load(path: str | os.PathLike[str], *, top: int | None = None) -> Imported:
    """The network in the file at `path`, over quantized pixels.

    Args:
        path: The file.
        top: Greatest quantized value of an input. Default: that of a pixel of 255.

    Returns:
        A network over quantized pixels, integers 0 to `top`; `quant_step` is in its provenance.

    Raises:
        FormatError: The file cannot be read, or is no such network.
        UnsupportedError: It has a layer of an unknown type.
    """
    where = os.fspath(path)
    arrays = _arrays(where, read_unpacked(path, _WHAT))
    try:
        meta = parsed(str(arrays["meta"]))
        specs, shape = meta["layers"], _whole(meta["input_shape"])
        step = number(str(meta["quant_step"]))
        sign = meta.get("final_sign", 1)
        if sign not in (1, -1) or isinstance(sign, bool):
            raise ValueError(f"final_sign is {sign!r:.40}, expected -1 or 1")
        scale = Fraction(float(meta["final_scale"])) * int(sign)
        if step <= 0 or scale == 0 or len(shape) not in (1, 3) or not 0 < math.prod(shape) <= _MOST_INPUTS:
            raise ValueError("quant_step or final_scale is 0, or input_shape is no image")
        if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
            raise ValueError("layers is no list of objects")
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise FormatError(f"{where}: meta is not understood ({error!r:.80}), {_EXPECTED}.") from None
    most = quantized_value(Fraction(1), step) if top is None else top
    try:
        return _build(where, arrays, specs, shape, step, scale, InputCoding.integers(0, most), "final_sign" in meta)
    except ModelError as error:
        raise FormatError(f"{where}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None


def quantized_value(value: Fraction, step: Fraction) -> int:
    """``round(value / step)``, a tie to the even integer, without rounding anything else.

    >>> quantized_value(Fraction(1), Fraction("0.61"))
    2
    """
    return round(value / step)


def _build(
    where: str,
    arrays: Mapping[str, NDArray[Any]],
    specs: Sequence[Mapping[str, Any]],
    shape: Sequence[int],
    step: Fraction,
    scale: Fraction,
    coding: InputCoding,
    has_sign: bool,
) -> Imported:
    tensor = tensors.start((1, *shape), coding)
    notes, assumed = ["activations in {0, 1} were written as -1/+1, exactly"], _unsaid(specs, has_sign)
    for i, layer in enumerate(specs):
        kind, name = layer.get("type"), f"layer {i}"
        if kind == "flatten":
            tensor = tensors.moved(tensor, tensor.index.reshape(1, -1))
            continue
        if kind not in ("conv", "linear", "linear_out"):
            raise UnsupportedError(f"{name} is of type {kind!r:.40}, expected conv, flatten, linear or linear_out.")
        weights, bias = _member(arrays, f"L{i}_w", where), _member(arrays, f"L{i}_b", where)
        _require_signs(weights, f"L{i}_w", where, zero=True)
        values = np.asarray(weights, dtype=np.int64)
        if kind == "conv":
            down, across = _pair(layer, "stride", 1, name)
            top, left = _pair(layer, "padding", 0, name)
            tensor = layers.convolved(tensor, values, bias, name, stride=(down, across), pads=(top, left, top, left))
        else:
            tensor = layers.dense(tensor, values, bias, name)
        if kind == "linear_out":
            tensor = elementwise.times(tensor, float(scale), name) if len(specs) == i + 1 else tensor
            continue
        signs = _member(arrays, f"L{i}_s", where)
        _require_signs(signs, f"L{i}_s", where, zero=False)
        if signs.shape != weights.shape[:1]:
            raise ModelError(f"L{i}_s has shape {signs.shape}, expected one sign per unit of L{i}_w.")
        turned = np.asarray(signs, dtype=np.int64).reshape((-1, 1, 1) if kind == "conv" else -1)
        tensor = elementwise.compared(elementwise.times(tensor, turned, name), 0, ">=", name)
    provenance = {
        "format": "eevbnn npz",
        **({"assumed": assumed} if assumed else {}),
        "quant_step": str(step),
        "read as": {
            "inputs": f"integers round(pixel / 255 / {step}), ties to even, 0 to {coding.upper}",
            "unit": "1 iff s * (w.x + b) >= 0, else 0; padding feeds 0; written as -1/+1",
            "score": "final_scale * (w.x + b)",
        },
    }
    done = assembly.finished(tensor, provenance)
    return Imported(done.network, coding, done.order, "pixels", (1, *shape), done.layers, (*assumed, *notes))


def _unsaid(specs: Sequence[Mapping[str, Any]], has_sign: bool) -> list[str]:
    """What the file leaves out and is assumed."""
    found = [] if has_sign else ["final_sign was taken as +1"]
    for name, value in (("stride", 1), ("padding", 0)):
        silent = [str(i) for i, layer in enumerate(specs) if layer.get("type") == "conv" and name not in layer]
        if silent:
            found.append(f"the {name} of layer {', '.join(silent[:4])} was taken as {value}")
    return found


def _arrays(where: str, data: bytes) -> dict[str, NDArray[Any]]:
    """All arrays of the archive, without pickles."""
    with Archive(data, where, _WHAT) as archive:
        found = {
            name.removesuffix(".npy"): archive.array(name, "U" if name == "meta.npy" else "biuf")
            for name in archive.names
        }
    if "meta" not in found:
        raise FormatError(f"{where}: has no member meta (it holds {', '.join(sorted(found))[:60]}), {_EXPECTED}.")
    return found


def _pair(layer: Mapping[str, Any], option: str, default: int, where: str) -> list[int]:
    try:
        values = _whole(layer.get(option, [default, default]))
    except ValueError as error:
        raise ModelError(f"{option} of {where}: {error}.") from None
    if len(values) != 2:
        raise ModelError(f"{option} of {where} is {values!r:.60}, expected two numbers.")
    return values


def _whole(values: Any) -> list[int]:
    """Numbers of a list; ValueError if it holds anything else."""
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= _MOST_INPUTS for v in values):
        raise ValueError(f"{values!r:.60} is no list of whole numbers")
    return values


def _member(arrays: Mapping[str, NDArray[Any]], name: str, where: str) -> NDArray[Any]:
    if name not in arrays:
        raise FormatError(f"{where}: has no member {name}, {_EXPECTED}.")
    return arrays[name]


def _require_signs(array: NDArray[Any], name: str, where: str, *, zero: bool) -> None:
    kept = (array == 1) | (array == -1) | (zero & (array == 0))
    if not kept.all():
        at = tuple(int(i) for i in np.argwhere(~kept)[0])
        expected = "-1, 0 or +1" if zero else "-1 or +1"
        raise FormatError(f"{where}: {name}[{', '.join(map(str, at))}] is {array[at]}, expected {expected}.")
