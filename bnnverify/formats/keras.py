"""Keras models (``.h5`` and ``.keras``), as larq writes binarized networks.

The file holds the layers with their options, so everything but the range of the inputs is in it. Latent weights of a
layer with a quantizer are binarized by it, and the notes say so; those of a layer without one must have one magnitude
per row already. Images are (height, width, channels) in Keras: the inputs of the exact network are in the order
channel, row, column, and `Imported.order` says which entry of the file's input each one is.

References:
    Geiger and the Plumerai team, "Larq: an open-source library for training binarized neural networks", JOSS 2020.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import assembly, elementwise, layers, pooling, tensors
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.kerasfile import LayerEntry, chain, read
from bnnverify.formats.larqquantizers import PLAIN, Quantizer, quantized_input, quantized_kernel
from bnnverify.formats.tensors import Tensor
from bnnverify.reading import shown


def load(
    path: str | os.PathLike[str],
    *,
    coding: InputCoding | None = None,
    zero_sign: int | None = None,
    input_shape: Sequence[int] | None = None,
) -> Imported:
    """The exact network of the Keras model at `path`.

    Args:
        path: The file.
        coding: What the inputs are: signs, bits, or integers in a range.
        zero_sign: What a plain sign of TensorFlow makes of 0, which is 0 in the file: +1, -1, or None to refuse models
            where that can occur. larq's signs say it themselves.
        input_shape: Shape of one input without the batch, where the file does not say it.

    Raises:
        FormatError: The file cannot be read, or shapes do not fit.
        UnsupportedError: A layer has no place in a binarized network; the message names it and the reason.
        ImportError: h5py is not installed.
    """
    where = shown(path)
    if coding is None:
        raise UnsupportedError(
            f"{where}: a Keras file does not say which numbers are inputs, expected a range of integers, or signs. "
            "Give InputCoding.integers(0, 255) or .signs() (--input-range 0 255 or --input signs)."
        )
    config, arrays = read(path)
    try:
        found = chain(config, arrays)
        shape = (1, *_input_shape(found, input_shape))
        notes: list[str] = []
        if zero_sign is not None:
            _require_plain_sign(found)
            notes.append(f"a plain sign of 0 was taken as {zero_sign:+d}; TensorFlow gives 0")
        tensor = tensors.start(shape, coding, zero_sign=zero_sign)
        for k, layer in enumerate(found):
            tensor = _apply(layer, tensor, notes, last=k == len(found) - 1)
        provenance = {"format": "Keras HDF5", "input": {"shape": list(shape), **coding.to_json()}}
        done = assembly.finished(tensor, provenance, str(found[-1]), allow_single=True)
    except ModelError as error:
        raise FormatError(f"{where}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None
    notes += done.notes
    assumed = done.network.provenance.assumptions
    return Imported(done.network, coding, done.order, "input", shape, done.layers, (*assumed, *notes), gives=done.gives)


def _require_plain_sign(found: Sequence[LayerEntry]) -> None:
    for layer in found:
        for name in ("activation", "input_quantizer"):
            quantizer = Quantizer.parse(layer.options.get(name))
            if quantizer is not None and quantizer.name == PLAIN:
                return
    raise UnsupportedError(
        "the sign of 0 is given (--zero-sign), but no layer has a plain sign: larq's signs say themselves that 0 "
        "becomes +1. Leave it out."
    )


def _input_shape(found: Sequence[LayerEntry], given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(v) for v in given)
    for layer in found[:1]:
        for name in ("batch_input_shape", "batch_shape"):
            shape = layer.options.get(name)
            if isinstance(shape, list) and all(isinstance(v, int) and v > 0 for v in shape[1:]) and len(shape) > 1:
                return tuple(shape[1:])
    raise UnsupportedError("the file does not say the shape of an input. Give input_shape (--input-shape 28,28,1).")


def _apply(layer: LayerEntry, tensor: Tensor, notes: list[str], *, last: bool) -> Tensor:
    handler = HANDLERS.get(layer.kind)
    if handler is None:
        known = ", ".join(sorted(HANDLERS))
        raise layer.refuse(f"is no layer of a binarized network that is understood, expected one of {known}.")
    if layer.options.get("data_format", "channels_last") not in (None, "channels_last"):
        raise layer.refuse("has channels first, expected channels last.")
    unknown = sorted(set(layer.arrays) - KNOWN_ARRAYS.get(layer.kind, set(layer.arrays)))
    if unknown:
        raise layer.refuse(f"holds an array {unknown[0]!r:.40} whose meaning is not known, expected none.")
    activation = "softmax" if layer.kind == "Softmax" else layer.options.get("activation")
    return _activated(layer, handler(layer, tensor, notes), activation, notes, last=last)


def _activated(layer: LayerEntry, tensor: Tensor, activation: Any, notes: list[str], *, last: bool) -> Tensor:
    quantizer = Quantizer.parse(activation)
    name = None if quantizer is None else quantizer.name
    if name in ("softmax", "sigmoid"):
        if not last:
            raise layer.refuse(f"has the activation {name} before the last layer, expected a sign.")
        notes.append(f"{name} of {layer} at the end was dropped: it keeps the order of the scores")
        return tensor
    if name in ("hard_tanh", "tanh"):
        return elementwise.clip(tensor, Fraction(-1), Fraction(1), str(layer))
    return quantized_input(quantizer, tensor, str(layer))


def _input(layer: LayerEntry, tensor: Tensor) -> Tensor:
    return quantized_input(Quantizer.parse(layer.options.get("input_quantizer")), tensor, str(layer))


def _kernel(layer: LayerEntry, rank: int, notes: list[str]) -> tuple[NDArray[Any], Any, Any]:
    """Weights after the kernel quantizer, a scale per filter or None, and the bias or None."""
    latent = layer.array("kernel")
    if latent.ndim != rank:
        raise layer.refuse(f"has a kernel of shape {latent.shape}, expected {rank} axes.")
    kernel, scale, note = quantized_kernel(Quantizer.parse(layer.options.get("kernel_quantizer")), latent, str(layer))
    notes += [] if note is None else [note]
    return kernel, scale, layer.array("bias") if layer.options.get("use_bias", True) else None


def _finished(layer: LayerEntry, tensor: Tensor, scale: Any, bias: Any) -> Tensor:
    """The sums of a linear layer after the scale of its quantizer and its bias; channels lie along axis 1."""
    shape = (1, -1, *[1] * (tensor.index.ndim - 2))
    if scale is not None:
        tensor = elementwise.times(tensor, np.reshape(scale, shape), str(layer))
    return tensor if bias is None else elementwise.plus(tensor, np.reshape(bias, shape), f"{layer}: the bias")


def _conv(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
    kernels, scale, bias = _kernel(layer, 4, notes)
    if tensor.index.ndim != 4:
        raise layer.refuse(f"takes a tensor of shape {tensor.index.shape}, expected images, channels last.")
    tensor = _channels_first(_input(layer, tensor))
    stride, dilation = (_pair(layer, name, (1, 1)) for name in ("strides", "dilation_rate"))
    rows, columns = ((k - 1) * d + 1 for k, d in zip(kernels.shape[:2], dilation, strict=True))
    pads = _pads(layer, tensor, (rows, columns), stride)
    value = float(layer.options.get("pad_values", 0) or 0)
    if any(pads) and value != 0:
        tensor, pads = elementwise.bordered(tensor, pads, value, str(layer)), (0, 0, 0, 0)
    result = layers.convolved(
        tensor,
        kernels.transpose(3, 2, 0, 1),
        None,
        str(layer),
        stride=stride,
        pads=pads,
        dilation=dilation,
        groups=int(layer.options.get("groups", 1) or 1),
    )
    return _channels_last(_finished(layer, result, scale, bias))


def _dense(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
    weights, scale, bias = _kernel(layer, 2, notes)
    if tensor.index.ndim != 2:
        raise layer.refuse(f"takes a tensor of shape {tensor.index.shape}, expected one row: flatten it first.")
    result = layers.dense(_input(layer, tensor), weights.T, None, str(layer))
    return _finished(layer, result, scale, bias)


def _norm(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
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


def _max_pool(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
    window = _pair(layer, "pool_size", (2, 2))
    stride = window if layer.options.get("strides") is None else _pair(layer, "strides", window)
    inside = _channels_first(tensor)
    pads = _pads(layer, inside, window, stride)
    return _channels_last(pooling.pooled(inside, window, stride, pads, str(layer)))


def _flatten(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
    return tensors.moved(tensor, tensor.index.reshape(1, -1))


def _reshape(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
    shape = layer.options.get("target_shape")
    try:
        return tensors.moved(tensor, tensor.index.reshape(1, *shape))  # type: ignore[misc]
    except (TypeError, ValueError):
        raise ModelError(f"{layer} makes {shape!r:.40} of a tensor of shape {tensor.index.shape}.") from None


def _same(layer: LayerEntry, tensor: Tensor, notes: list[str]) -> Tensor:
    return tensor


def _channels_first(tensor: Tensor) -> Tensor:
    return tensors.moved(tensor, tensor.index.transpose(0, 3, 1, 2)) if tensor.index.ndim == 4 else tensor


def _channels_last(tensor: Tensor) -> Tensor:
    return tensors.moved(tensor, tensor.index.transpose(0, 2, 3, 1))


def _pair(layer: LayerEntry, name: str, default: tuple[int, int]) -> tuple[int, int]:
    value = layer.options.get(name, default)
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise layer.refuse(f"has {name} {value!r:.40}, expected two numbers above 0.")
    return pair[0], pair[1]


def _pads(
    layer: LayerEntry, tensor: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int, int, int]:
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


HANDLERS: dict[str, Callable[[LayerEntry, Tensor, list[str]], Tensor]] = {
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

_LINEAR, _NORM = {"kernel", "bias"}, {"gamma", "beta", "moving_mean", "moving_variance"}
KNOWN_ARRAYS: dict[str, set[str]] = {
    "BatchNormalization": _NORM,
    **dict.fromkeys(("Conv2D", "Dense", "QuantConv2D", "QuantDense"), _LINEAR),
}
