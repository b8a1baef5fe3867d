"""Keras models in HDF5 (``.h5``), as larq writes binarized networks.

The file holds the layers with their options, so everything but the range of the inputs is in it. Latent weights of a
layer with a quantizer are binarized by it, and the notes say so; those of a layer without one must have one magnitude
per row already. Images are (height, width, channels) in Keras: the inputs of the exact network are in the order
channel, row, column, and `Imported.order` says which entry of the file's input each one is.

References:
    Geiger and the Plumerai team, "Larq: an open-source library for training binarized neural networks", JOSS 2020.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import assembly, elementwise, layers, pooling, tensors
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.tensors import Tensor

SIGNS = ("ste_sign", "approx_sign", "swish_sign", "SteSign", "ApproxSign", "SwishSign")  # -1 below 0, else +1
HEAVISIDE = ("ste_heaviside", "SteHeaviside")  # 0 up to 0, else 1
_EXPECTED = "expected a Keras model in HDF5 that model.save wrote (.h5)"
_WEIGHTS_LIMIT = 2**31  # bytes of one array


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer: its class, its options, its arrays."""

    kind: str
    name: str
    options: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"

    def refuse(self, reason: str) -> UnsupportedError:
        """The error that this layer is not understood."""
        return UnsupportedError(f"{self} {reason}")

    def array(self, name: str) -> NDArray[Any]:
        """One of its arrays."""
        if name not in self.arrays:
            raise ModelError(f"{self} has no array {name!r} (it has {', '.join(sorted(self.arrays)) or 'none'}).")
        return self.arrays[name]


def load(
    path: str | os.PathLike[str],
    *,
    coding: InputCoding | None = None,
    input_shape: Sequence[int] | None = None,
) -> Imported:
    """The exact network of the Keras model at `path`.

    Args:
        path: The file.
        coding: What the inputs are: signs, bits, or integers in a range.
        input_shape: Shape of one input without the batch, where the file does not say it.

    Raises:
        FormatError: The file cannot be read, or shapes do not fit.
        UnsupportedError: A layer has no place in a binarized network; the message names it and the reason.
        ImportError: h5py is not installed.
    """
    where = os.fspath(path)
    if coding is None:
        raise UnsupportedError(
            f"{where}: a Keras file does not say which numbers are inputs, expected a range of integers, or signs. "
            "Give InputCoding.integers(0, 255) or .signs() (--input-range 0 255 or --input signs)."
        )
    config, arrays = _read(path)
    try:
        found = _layers(config, arrays)
        shape = (1, *_input_shape(found, input_shape))
        notes: list[str] = []
        tensor = tensors.start(shape, coding)
        for k, layer in enumerate(found):
            tensor = _apply(layer, tensor, notes, last=k == len(found) - 1)
        provenance = {"format": "Keras HDF5", "input": {"shape": list(shape), **coding.to_json()}}
        done = assembly.finished(tensor, provenance, str(found[-1]), allow_single=True)
    except ModelError as error:
        raise FormatError(f"{where}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None
    notes += done.notes
    return Imported(
        done.network, coding, done.order, "input", shape, done.layers, tuple(notes), is_single_logit=done.is_single_logit
    )


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]:
    """The configuration, and the arrays of each layer."""
    import h5py

    where = os.fspath(path)
    try:
        with Path(path).open("rb") as stream, h5py.File(stream, "r") as file:
            text = file.attrs.get("model_config")
            if text is None or "model_weights" not in file:
                raise FormatError(f"{where}: holds no model, only weights or other data, {_EXPECTED}.")
            config = json.loads(text if isinstance(text, str) else bytes(text).decode("utf-8"))
            arrays = {name: _arrays(group, where) for name, group in file["model_weights"].items()}
    except FormatError:
        raise
    except OSError as error:
        reason = (error.strerror or " ".join(str(error).split())).lower()
        raise FormatError(f"{where}: cannot be read ({reason}), {_EXPECTED}.") from None
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise FormatError(f"{where}: is damaged ({' '.join(str(error).split())[:80]}), {_EXPECTED}.") from None
    if not isinstance(config, dict):
        raise FormatError(f"{where}: its model_config is no object, {_EXPECTED}.")
    return config, arrays


def _arrays(group: Any, where: str) -> dict[str, NDArray[Any]]:
    """`kernel`, `bias`, `gamma`, ...: by the last part of their names."""
    found: dict[str, NDArray[Any]] = {}
    for raw in group.attrs.get("weight_names", ()):
        name = raw if isinstance(raw, str) else bytes(raw).decode("utf-8")
        data = group[name]
        if data.dtype.kind not in "fiu" or data.size * data.dtype.itemsize > _WEIGHTS_LIMIT:
            raise FormatError(f"{where}: the array {name!r:.60} is of type {data.dtype} or too large, {_EXPECTED}.")
        found[name.rsplit("/", 1)[-1].split(":")[0]] = np.asarray(data)
    return found


def _layers(config: Mapping[str, Any], arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> list[_Layer]:
    """The layers in order; UnsupportedError unless they are a chain."""
    kind, inner = config.get("class_name"), config.get("config")
    entries = inner if isinstance(inner, list) else inner.get("layers") if isinstance(inner, dict) else None
    if kind not in ("Sequential", "Functional", "Model") or not isinstance(entries, list) or not entries:
        raise UnsupportedError(f"the model is a {kind!r:.40}, expected a Sequential or Functional chain of layers.")
    found: list[_Layer] = []
    for entry in entries:
        try:
            options = entry["config"]
            name, short = str(options.get("name", "?")), str(entry["class_name"]).rsplit(">", 1)[-1]
        except (TypeError, KeyError, AttributeError):
            raise ModelError(
                "the configuration of a layer is not understood, expected class_name and config."
            ) from None
        layer = _Layer(short, name, options, arrays.get(name, {}))
        if kind != "Sequential":
            sources = _sources(entry.get("inbound_nodes"))
            if sources != ([found[-1].name] if found else []):
                raise layer.refuse(f"follows {', '.join(sources) or 'nothing'}, expected a chain of layers.")
        found.append(layer)
    return found


def _sources(nodes: Any) -> list[str]:
    """Names of the layers that feed one, in any of the ways that Keras versions write it."""
    names: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(history := value.get("keras_history"), list) and history:
                names.append(str(history[0]))
                return
            for part in value.values():
                visit(part)
        elif isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
                names.append(value[0])
                return
            for part in value:
                visit(part)

    visit(nodes)
    return names


def _input_shape(found: Sequence[_Layer], given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(v) for v in given)
    for layer in found[:1]:
        for name in ("batch_input_shape", "batch_shape"):
            shape = layer.options.get(name)
            if isinstance(shape, list) and all(isinstance(v, int) and v > 0 for v in shape[1:]) and len(shape) > 1:
                return tuple(shape[1:])
    raise UnsupportedError("the file does not say the shape of an input. Give input_shape (--input-shape 28,28,1).")


def _apply(layer: _Layer, tensor: Tensor, notes: list[str], *, last: bool) -> Tensor:
    handler = HANDLERS.get(layer.kind)
    if handler is None:
        known = ", ".join(sorted(HANDLERS))
        raise layer.refuse(f"is no layer of a binarized network that is understood, expected one of {known}.")
    if layer.options.get("data_format", "channels_last") not in (None, "channels_last"):
        raise layer.refuse("has channels first, expected channels last.")
    activation = "softmax" if layer.kind == "Softmax" else layer.options.get("activation")
    return _activated(layer, handler(layer, tensor, notes), activation, notes, last=last)


def _activated(layer: _Layer, tensor: Tensor, activation: Any, notes: list[str], *, last: bool) -> Tensor:
    name = _quantizer(activation)
    if name in (None, "linear"):
        return tensor
    if name in ("softmax", "sigmoid"):
        if not last:
            raise layer.refuse(f"has the activation {name} before the last layer, expected a sign.")
        notes.append(f"{name} of {layer} at the end was dropped: it keeps the order of the scores")
        return tensor
    if name in ("hard_tanh", "tanh"):
        return elementwise.clip(tensor, Fraction(-1), Fraction(1), str(layer))
    return _quantized(layer, tensor, name)


def _quantizer(value: Any) -> str | None:
    """The name of a quantizer or activation, however it is serialised."""
    if value is None:
        return None
    if isinstance(value, dict):
        is_function = value.get("class_name") == "function"
        value = value.get("config") if is_function else value.get("registered_name") or value.get("class_name")
    return str(value).rsplit(">", 1)[-1]


def _quantized(layer: _Layer, tensor: Tensor, name: str | None) -> Tensor:
    """The input of a layer after its input quantizer."""
    if name is None:
        return tensor
    if name in SIGNS:
        fired = elementwise.compared(tensor, 0.0, ">=", str(layer))
        return elementwise.chosen(fired, 1.0, -1.0, str(layer))
    if name in HEAVISIDE:
        return elementwise.compared(tensor, 0.0, ">", str(layer))
    raise layer.refuse(f"quantizes by {name!r:.40}, expected {', '.join(SIGNS[:3])} or {HEAVISIDE[0]}.")


def _binarized(layer: _Layer, latent: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    name = _quantizer(layer.options.get("kernel_quantizer"))
    if name is None:
        return latent
    if name not in SIGNS:
        raise layer.refuse(f"quantizes its kernel by {name!r:.40}, expected {', '.join(SIGNS[:3])}.")
    if (np.abs(latent) != 1).any():
        notes.append(f"the latent weights of {layer} were binarized by {name}: +1 from 0 on")
    return np.where(latent >= 0, 1, -1)


def _conv(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    kernels = _binarized(layer, layer.array("kernel"), notes)
    if kernels.ndim != 4 or tensor.index.ndim != 4:
        raise layer.refuse(f"has a kernel of shape {kernels.shape}, expected (rows, columns, channels, filters).")
    tensor = _channels_first(_quantized(layer, tensor, _quantizer(layer.options.get("input_quantizer"))))
    stride, dilation = (_pair(layer, name, (1, 1)) for name in ("strides", "dilation_rate"))
    rows, columns = ((k - 1) * d + 1 for k, d in zip(kernels.shape[:2], dilation, strict=True))
    pads = _pads(layer, tensor, (rows, columns), stride)
    value = float(layer.options.get("pad_values", 0) or 0)
    if any(pads) and value != 0:
        tensor, pads = elementwise.bordered(tensor, pads, value, str(layer)), (0, 0, 0, 0)
    result = layers.convolved(
        tensor,
        kernels.transpose(3, 2, 0, 1),
        layer.array("bias") if layer.options.get("use_bias", True) else None,
        str(layer),
        stride=stride,
        pads=pads,
        dilation=dilation,
        groups=int(layer.options.get("groups", 1) or 1),
    )
    return _channels_last(result)


def _dense(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    weights = _binarized(layer, layer.array("kernel"), notes)
    if weights.ndim != 2 or tensor.index.ndim != 2:
        raise layer.refuse(f"takes a tensor of shape {tensor.index.shape}, expected one row: flatten it first.")
    tensor = _quantized(layer, tensor, _quantizer(layer.options.get("input_quantizer")))
    bias = layer.array("bias") if layer.options.get("use_bias", True) else None
    return layers.dense(tensor, weights.T, bias, str(layer))


def _norm(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    axis = layer.options.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, tensor.index.ndim - 1):
        raise layer.refuse(f"norms axis {axis!r:.20}, expected the last one.")
    mean = layer.array("moving_mean")
    return elementwise.normed(
        tensor,
        layer.array("gamma") if layer.options.get("scale", True) else np.ones_like(mean),
        layer.array("beta") if layer.options.get("center", True) else np.zeros_like(mean),
        mean,
        layer.array("moving_variance"),
        np.float32(layer.options.get("epsilon", 1e-3)),
        axis=tensor.index.ndim - 1,
        where=str(layer),
    )


def _max_pool(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    window = _pair(layer, "pool_size", (2, 2))
    stride = window if layer.options.get("strides") is None else _pair(layer, "strides", window)
    inside = _channels_first(tensor)
    pads = _pads(layer, inside, window, stride)
    return _channels_last(pooling.pooled(inside, window, stride, pads, str(layer)))


def _flatten(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    return tensors.moved(tensor, tensor.index.reshape(1, -1))


def _reshape(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    shape = layer.options.get("target_shape")
    try:
        return tensors.moved(tensor, tensor.index.reshape(1, *shape))  # type: ignore[misc]
    except (TypeError, ValueError):
        raise ModelError(f"{layer} makes {shape!r:.40} of a tensor of shape {tensor.index.shape}.") from None


def _same(layer: _Layer, tensor: Tensor, notes: list[str]) -> Tensor:
    return tensor


def _channels_first(tensor: Tensor) -> Tensor:
    return tensors.moved(tensor, tensor.index.transpose(0, 3, 1, 2)) if tensor.index.ndim == 4 else tensor


def _channels_last(tensor: Tensor) -> Tensor:
    return tensors.moved(tensor, tensor.index.transpose(0, 2, 3, 1))


def _pair(layer: _Layer, name: str, default: tuple[int, int]) -> tuple[int, int]:
    value = layer.options.get(name, default)
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise layer.refuse(f"has {name} {value!r:.40}, expected two numbers above 0.")
    return pair[0], pair[1]


def _pads(layer: _Layer, tensor: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right; `same` puts the odd one last."""
    mode = layer.options.get("padding", "valid")
    if mode == "valid":
        return 0, 0, 0, 0
    if mode != "same" or tensor.index.ndim != 4:
        raise layer.refuse(f"has the padding {mode!r:.20}, expected valid or same, of images.")
    ends = []
    for size, kernel, step in zip(tensor.index.shape[2:], window, stride, strict=True):
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        ends.append((total // 2, total - total // 2))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


HANDLERS: dict[str, Callable[[_Layer, Tensor, list[str]], Tensor]] = {
    "Activation": _same,
    "BatchNormalization": _norm,
    "Conv2D": _conv,
    "Dense": _dense,
    "Dropout": _same,
    "Flatten": _flatten,
    "InputLayer": _same,
    "MaxPool2D": _max_pool,
    "MaxPooling2D": _max_pool,
    "QuantConv2D": _conv,
    "QuantDense": _dense,
    "Reshape": _reshape,
    "Softmax": _same,
}
