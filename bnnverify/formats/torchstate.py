"""State dicts of torch networks made of the common binarized layers.

A state dict holds parameters by name in the order of definition, and nothing of what happens between them. It is read
as the networks are that most code builds: linear or convolutional layers whose latent weights are binarized by their
sign, each followed by its batch norm if there is one, and by a sign before the next layer. What the file cannot say is
given for a layer by name (`Between`): stride, padding, pooling. All of it is stated in the notes: check the network
on data.

References:
    The layers: Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, "Binarized neural networks", NIPS 2016.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import assembly, elementwise, layers, pooling, tensors, torchfiles
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.tensors import Tensor

NORM = ("weight", "bias", "running_mean", "running_var")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_WHAT = "a state dict that torch.save wrote (a dictionary of tensors)"
_EXPECTED = f"expected {_WHAT}"


@dataclass(frozen=True, slots=True)
class Between:
    """What a state dict does not say about a layer.

    Attributes:
        stride: Of a convolution.
        padding: Of a convolution, with zeros.
        pool: Windows of max-pooling after the layer; 1 for none.
        pool_after_sign: True if the signs are pooled, False if the sums are, before batch norm.
    """

    stride: int = 1
    padding: int = 0
    pool: int = 1
    pool_after_sign: bool = False

    @classmethod
    def parse(cls, text: str) -> Between:
        """What ``stride=1,padding=1,pool=2`` or ``pool=2,pool_after_sign=1`` means.

        Raises:
            ModelError: The text means nothing.
        """
        values: dict[str, int] = {}
        for part in filter(None, text.split(",")):
            name, _, number = part.strip().partition("=")
            if name not in cls.__dataclass_fields__ or not number.isdecimal() or len(number) > 4:
                known = ", ".join(cls.__dataclass_fields__)
                raise ModelError(f"a layer has {part!r:.40}, expected numbers for {known}.")
            values[name] = int(number)
        after = bool(values.pop("pool_after_sign", 0))
        return cls(**values, pool_after_sign=after)


def load(
    path: str | os.PathLike[str],
    *,
    coding: InputCoding | None = None,
    zero_sign: int | None = 1,
    input_shape: Sequence[int] | None = None,
    between: Mapping[str, Between] | None = None,
    epsilon: float = 1e-5,
) -> Imported:
    """The exact network of the state dict at `path`.

    Args:
        path: A file of torch.save; tensors only are unpickled.
        coding: What the inputs are. Default: -1/+1.
        zero_sign: What the model's sign makes of 0.
        input_shape: `(channels, height, width)` for a network that begins with a convolution.
        between: What the file does not say about a layer, by the name of the layer.
        epsilon: Of all batch norms.

    Raises:
        FormatError: The file cannot be read, or shapes do not fit.
        UnsupportedError: A parameter is of no layer that is understood.
        ImportError: torch is not installed.
    """
    where = os.fspath(path)
    modules = _modules(where, _state(path))
    inputs = coding or InputCoding.signs()
    try:
        return _build(modules, inputs, zero_sign, input_shape, dict(between or {}), epsilon)
    except ModelError as error:
        raise FormatError(f"{where}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None


def _state(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Arrays by name, in the order of the file."""
    import torch

    where = os.fspath(path)
    data = torchfiles.load(path, _WHAT, "Save model.state_dict().")
    for name in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(name), dict):
            data = data[name]
    if not isinstance(data, dict) or not data:
        raise FormatError(f"{where}: holds a {type(data).__name__}, {_EXPECTED}. Save model.state_dict().")
    bad = [name for name, value in data.items() if not isinstance(value, torch.Tensor)]
    if bad:
        raise FormatError(f"{where}: {bad[0]!r:.60} is no tensor, {_EXPECTED}.")
    return {
        str(name).removeprefix("module."): torchfiles.array_of(value, f"{where}: {name!r:.60}")
        for name, value in data.items()
    }


def _modules(where: str, state: Mapping[str, NDArray[Any]]) -> list[tuple[str, dict[str, NDArray[Any]]]]:
    """Parameters by module, in order."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in state.items():
        module, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            found.setdefault(module, {})[leaf] = array
    for module, members in found.items():
        rank = members["weight"].ndim if "weight" in members else 0
        norm = set(members) in ({*NORM}, {"running_mean", "running_var"})
        if not norm and not (set(members) <= {"weight", "bias"} and rank in (2, 4)):
            raise UnsupportedError(
                f"{where}: module {module or '(top)'!r} holds {', '.join(sorted(members))[:80]}, expected a linear or "
                "2-d convolutional layer (weight, bias) or a batch norm with its running statistics."
            )
    return list(found.items())


def _build(
    modules: list[tuple[str, dict[str, NDArray[Any]]]],
    coding: InputCoding,
    zero_sign: int | None,
    input_shape: Sequence[int] | None,
    between: dict[str, Between],
    epsilon: float,
) -> Imported:
    linear = [name for name, members in modules if "running_mean" not in members]
    unknown = sorted(set(between) - set(linear))
    if unknown or not linear:
        raise ModelError(
            f"there is no layer {(unknown or ['?'])[0]!r:.60}, expected one of {', '.join(linear) or 'none'}."
        )
    shape = _input_shape(dict(modules)[linear[0]]["weight"], input_shape)
    tensor = tensors.start(shape, coding, zero_sign=zero_sign)
    zeros, last = 0, Between()
    for name, members in modules:
        if "running_mean" in members:
            tensor = _normed(tensor, members, epsilon, name)
            continue
        if name != linear[0]:
            tensor = _signed(tensor, last, f"the sign before {name!r}")
        weights = members["weight"]
        zeros += int((weights == 0).sum())
        signs = np.where(weights >= 0, 1, -1)
        last = between.get(name, Between())
        if weights.ndim == 2:
            tensor = layers.dense(_flat(tensor), signs, members.get("bias"), f"layer {name!r}")
        else:
            step, pad = (last.stride, last.stride), (last.padding,) * 4
            tensor = layers.convolved(tensor, signs, members.get("bias"), f"layer {name!r}", stride=step, pads=pad)
        if last.pool > 1 and not last.pool_after_sign:
            window = last.pool, last.pool
            tensor = pooling.pooled(tensor, window, window, (0, 0, 0, 0), f"the pooling after {name!r}")
    notes = [f"all weights were replaced by their signs ({zeros} latent weights of 0 became +1)"]
    notes.append("a sign was put before every layer but the first; the file does not say so")
    if zero_sign is not None:
        notes.append(f"sign(0) was taken as {zero_sign:+d}; torch.sign gives 0")
    norms = sum("running_mean" in members for _, members in modules)
    if norms:
        notes.append(f"epsilon of {norms} batch norms was taken as {epsilon:g}; the file does not say it")
    provenance = {"format": "torch state dict", "input": coding.to_json(), "read as": notes}
    done = assembly.finished(tensor, provenance, f"layer {linear[-1]!r}", allow_single=True)
    notes += done.notes
    return Imported(done.network, coding, done.order, "input", shape, done.layers, tuple(notes), gives=done.gives)


def _input_shape(weights: NDArray[Any], given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        sizes = tuple(int(v) for v in given)
        return sizes if len(sizes) in (2, 4) else (1, *sizes)
    if weights.ndim == 4:
        raise UnsupportedError(
            "the first layer is a convolution, and the file does not say the size of the images, expected it as "
            "input_shape (--input-shape 1,28,28)."
        )
    return 1, int(weights.shape[1])


def _normed(tensor: Tensor, members: Mapping[str, NDArray[Any]], epsilon: float, name: str) -> Tensor:
    mean = members["running_mean"]
    gamma, beta = members.get("weight", np.ones_like(mean)), members.get("bias", np.zeros_like(mean))
    return elementwise.normed(
        tensor, gamma, beta, mean, members["running_var"], epsilon, axis=1, where=f"batch norm {name!r}"
    )


def _signed(tensor: Tensor, last: Between, where: str) -> Tensor:
    tensor = elementwise.sign(tensor, where)
    if last.pool > 1 and last.pool_after_sign:
        window = last.pool, last.pool
        tensor = pooling.pooled(tensor, window, window, (0, 0, 0, 0), where)
    return tensor


def _flat(tensor: Tensor) -> Tensor:
    return tensors.moved(tensor, tensor.index.reshape(1, -1))
