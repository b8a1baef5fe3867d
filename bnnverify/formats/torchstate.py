"""State dicts of torch networks made of the common binarized layers.

A state dict holds parameters by name in the order of definition, and nothing of what happens between them. It is read
as the networks are that most code builds: linear or convolutional layers with binarized weights (`latentweights`),
each followed by its batch norm if there is one, and by a sign before the next layer. What the file cannot say is given
as an option, for a layer by its name (`Between`). What is not given is assumed, and every assumption that can change
an answer is kept in the provenance of the network and said again with every answer.

References:
    The layers: Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, "Binarized neural networks", NIPS 2016.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import assembly, elementwise, layers, pooling, tensors
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.latentweights import MEMBERS, Latent, Reading, read_weights
from bnnverify.formats.statedict import read_state, without_prefixes
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import require_finite
from bnnverify.network import Provenance
from bnnverify.reading import shown

NORM = ("weight", "bias", "running_mean", "running_var")
ACTIVATIONS = ("sign", "step")
EPSILON = 1e-5  # of torch
_COPIES = re.compile(r"(.*?)\.?(weight|bias)[._]org")

Members = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Between:
    """What a state dict does not say about a layer.

    Attributes:
        stride: Of a convolution.
        padding: Of a convolution, with zeros.
        pool: Windows of max-pooling after the layer; 1 for none.
        pool_after_sign: True if the signs are pooled, False if the sums are, before batch norm.
        sign: Whether a sign stands in front of the layer; None for all layers but the first, and for the first if a
            batch norm stands before it.
        scale: A constant above 0 by which the signs of the weights are multiplied; None if nothing is said.
    """

    stride: int = 1
    padding: int = 0
    pool: int = 1
    pool_after_sign: bool = False
    sign: bool | None = None
    scale: Fraction | None = None

    @classmethod
    def parse(cls, text: str) -> Between:
        """What ``stride=1,padding=1,pool=2`` or ``pool=2,pool_after_sign=1`` means.

        Raises:
            ModelError: The text means nothing.
        """
        values: dict[str, int] = {}
        scale: Fraction | None = None
        for part in filter(None, text.split(",")):
            name, _, number = part.strip().partition("=")
            if name == "scale":
                scale = _scale(number)
                continue
            if name not in cls.__dataclass_fields__ or not number.isdecimal() or len(number) > 4:
                known = ", ".join(cls.__dataclass_fields__)
                raise ModelError(f"a layer has {part!r:.40}, expected numbers for {known}.")
            values[name] = int(number)
        after, sign = bool(values.pop("pool_after_sign", 0)), values.pop("sign", None)
        if values.get("stride", 1) < 1 or values.get("pool", 1) < 1 or (after and values.get("pool", 1) == 1):
            raise ModelError(
                f"a layer has {text!r:.60}, expected stride and pool of at least 1, 2 if signs are pooled."
            )
        return cls(**values, pool_after_sign=after, sign=None if sign is None else bool(sign), scale=scale)


def _scale(text: str) -> Fraction:
    if not re.fullmatch(r"[0-9.]{1,40}(/[0-9]{1,20}|[eE]-?[0-9]{1,2})?", text, re.ASCII):
        raise ModelError(f"a layer has scale={text!r:.40}, expected a number above 0 such as 0.1 or 1/8.")
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise ModelError(f"a layer has scale={text!r:.40}, expected a number above 0 such as 0.1 or 1/8.")
    return value


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What a state dict does not say about the network; None where the user does not say it, either.

    Attributes:
        coding: What the inputs are. Assumed: -1/+1.
        zero_sign: What the activation makes of 0, +1 or -1. Assumed: +1, where a sum can be 0.
        epsilon: Of all batch norms. Assumed: 1e-5.
        activation: Between the layers: `sign`, -1/+1, or `step`, 0/1. Assumed: `sign`.
        latent: What real weights mean.
        between: By the name of a layer.
    """

    coding: InputCoding | None = None
    zero_sign: int | None = None
    epsilon: float | None = None
    activation: str | None = None
    latent: Latent = field(default_factory=Latent)
    between: Mapping[str, Between] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.activation not in (None, *ACTIVATIONS):
            raise ModelError(f"the activation is {self.activation!r:.40}, expected one of {', '.join(ACTIVATIONS)}.")
        if self.epsilon is not None and not 0 <= self.epsilon < 2**63:
            raise ModelError(f"the epsilon of batch norms is {self.epsilon}, expected a number of at least 0.")


def load(
    path: str | os.PathLike[str],
    *,
    coding: InputCoding | None = None,
    zero_sign: int | None = None,
    input_shape: Sequence[int] | None = None,
    between: Mapping[str, Between] | None = None,
    epsilon: float | None = None,
    activation: str | None = None,
    latent: Latent | None = None,
) -> Imported:
    """The exact network of the state dict at `path`.

    Args:
        path: A file of torch.save: a state dict, or a checkpoint with one; tensors only are unpickled.
        coding: As in `Unsaid`.
        zero_sign: As in `Unsaid`.
        input_shape: `(channels, height, width)` for a network that begins with a convolution.
        between: As in `Unsaid`; the names may have the prefixes of wrappers.
        epsilon: As in `Unsaid`.
        activation: As in `Unsaid`.
        latent: As in `Unsaid`.

    Raises:
        FormatError: The file cannot be read, or shapes do not fit.
        UnsupportedError: A parameter is of no layer that is understood, or weights are real and nothing says that they
            are latent.
        ImportError: torch is not installed.
    """
    where = shown(path)
    state = read_state(path)
    try:
        modules = _modules(state)
        named = {name if name in dict(modules) else without_prefixes(name): v for name, v in (between or {}).items()}
        return _build(modules, Unsaid(coding, zero_sign, epsilon, activation, latent or Latent(), named), input_shape)
    except ModelError as error:
        raise FormatError(f"{where}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None


def _modules(state: Members) -> list[tuple[str, dict[str, NDArray[Any]]]]:
    """Parameters by module, in order."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in state.items():
        module, leaf = _place(name)
        found.setdefault(module, {})[leaf] = array
    for module, members in found.items():
        if not _is_norm(members) and not _is_linear(members):
            raise UnsupportedError(
                f"module {module or '(top)'!r:.60} holds {', '.join(sorted(members))[:80]}, expected a linear or 2-d "
                "convolutional layer (weight, bias, a latent copy or scale) or a batch norm with its running "
                "statistics. Export the whole model to ONNX instead: torch.onnx.export(model.eval(), ...)."
            )
    return list(found.items())


def _place(name: str) -> tuple[str, str]:
    """Module and parameter: ``fc1``, ``weight_org`` of ``fc1.weight.org``."""
    if match := _COPIES.fullmatch(name):
        return match[1], f"{match[2]}_org"
    module, dot, leaf = name.partition(".weight_quant.")
    if dot:
        return module, f"weight_quant.{leaf}"
    module, _, leaf = name.rpartition(".")
    return module, leaf


def _is_norm(members: Members) -> bool:
    return {"running_mean", "running_var"} <= set(members) <= {*NORM}


def _is_linear(members: Members) -> bool:
    return "weight" in members and members["weight"].ndim in (2, 4) and set(members) <= {*MEMBERS}


def _build(
    modules: list[tuple[str, dict[str, NDArray[Any]]]], unsaid: Unsaid, input_shape: Sequence[int] | None
) -> Imported:
    linear = [name for name, members in modules if _is_linear(members)]
    unknown = sorted(set(unsaid.between) - set(linear))
    if unknown or not linear:
        raise ModelError(
            f"there is no layer {(unknown or ['?'])[0]!r:.60}, expected one of {', '.join(linear) or 'none'}."
        )
    coding, epsilon = unsaid.coding or InputCoding.signs(), EPSILON if unsaid.epsilon is None else unsaid.epsilon
    _require_geometry(unsaid.between, dict(modules), linear[-1])
    shape = _input_shape(dict(modules)[linear[0]]["weight"], input_shape)
    tensor = tensors.start(shape, coding, zero_sign=unsaid.zero_sign or 1)
    last, readings, norms, signed = Between(), {}, 0, []
    for name, members in modules:
        if _is_norm(members):
            tensor, norms = _normed(tensor, members, epsilon, name), norms + 1
            continue
        here = unsaid.between.get(name, Between())
        if (name != linear[0] or norms > 0) if here.sign is None else here.sign:
            tensor = _activated(tensor, last, unsaid, f"the sign before {name!r}")
            signed.append(name)
        last, readings[name] = here, read_weights(members, name, unsaid.latent, here.scale)
        tensor = _summed(tensor, readings[name], members.get("bias"), last, name)
    done = assembly.finished(tensor, {}, f"layer {linear[-1]!r}", allow_single=True)
    ties = sum(layer.ties for layer in done.layers)
    assumed = [*_assumptions(unsaid, readings, signed, norms, ties), *done.network.provenance.assumptions]
    notes = [f"layer {name!r}: weights read as {reading.text}" for name, reading in readings.items()]
    notes += done.notes
    provenance = {"format": "torch state dict", "input": coding.to_json(), "read as": notes, "assumed": assumed}
    network = replace(done.network, provenance=Provenance(provenance))
    found = (*assumed, *notes)
    return Imported(network, coding, done.order, "input", shape, done.layers, found, gives=done.gives)


def _require_geometry(between: Mapping[str, Between], modules: Mapping[str, Members], last: str) -> None:
    """ModelError if something is said of a layer that it cannot have."""
    for name, here in between.items():
        if modules[name]["weight"].ndim == 2 and replace(here, sign=None, scale=None) != Between():
            raise ModelError(f"layer {name!r} is linear, expected no stride, padding or pooling of it. Leave them out.")
        if name == last and here.pool_after_sign:
            raise ModelError(f"layer {name!r} is the last one, and no sign follows it, expected no pool_after_sign.")


def _summed(tensor: Tensor, reading: Reading, bias: Any, between: Between, name: str) -> Tensor:
    """A linear layer with its scale and bias, and the pooling of its sums."""
    where = f"layer {name!r}"
    if reading.signs.ndim == 2:
        if reading.signs.shape[1] != tensor.index.size:
            raise ModelError(
                f"{where} has weights of shape {reading.signs.shape}, but {tensor.index.size} values come before it, "
                "expected as many. Say the stride, padding and pooling of convolutions: --layer NAME:padding=1,pool=2."
            )
        tensor = layers.dense(_flat(tensor), reading.signs, None, where)
    else:
        step, pad = (between.stride, between.stride), (between.padding,) * 4
        tensor = layers.convolved(tensor, reading.signs, None, where, stride=step, pads=pad)
    channels = (1, -1, *[1] * (tensor.index.ndim - 2))
    if reading.scale is not None:
        tensor = elementwise.times(tensor, reading.scale.reshape(channels), where)
    if bias is not None:
        if bias.size != reading.signs.shape[0]:
            raise ModelError(f"{where} has a bias of shape {bias.shape}, expected {reading.signs.shape[0]} numbers.")
        tensor = elementwise.plus(tensor, bias.reshape(channels), f"{where}: the bias")
    if between.pool > 1 and not between.pool_after_sign:
        window = between.pool, between.pool
        tensor = pooling.pooled(tensor, window, window, (0, 0, 0, 0), f"the pooling after {name!r}")
    return tensor


def _assumptions(
    unsaid: Unsaid,
    readings: Mapping[str, Reading],
    signed: Sequence[str],
    norms: int,
    ties: int,
) -> list[str]:
    """What neither the file nor the user says, and can change answers."""
    found = [guess for reading in readings.values() for guess in reading.guesses]
    if unsaid.coding is None:
        found.append("the inputs were taken as -1/+1 (--input, --input-range)")
    if unsaid.activation is None and signed:
        found.append(
            f"the layers were taken in the order of the file, with a sign in front of {_listed(signed)} (--activation)"
        )
    if unsaid.zero_sign is None and ties:
        found.append(
            f"the sign of exactly 0 was taken as +1, torch.sign gives 0; {ties} units can meet it (--zero-sign)"
        )
    if unsaid.epsilon is None and norms:
        found.append(f"the epsilon of {norms} batch norms was taken as {EPSILON:g} (--epsilon)")
    convolutions = [n for n, reading in readings.items() if reading.signs.ndim == 4 and n not in unsaid.between]
    if convolutions:
        found.append(f"{_listed(convolutions)} was taken with stride 1, without padding and without pooling (--layer)")
    return found


def _listed(names: Sequence[str]) -> str:
    shown_names = ", ".join(map(repr, names[:4]))
    return f"layer {shown_names}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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


def _normed(tensor: Tensor, members: Members, epsilon: float, name: str) -> Tensor:
    where = f"batch norm {name!r}"
    for what, array in members.items():
        require_finite(array, where, f"the numbers of {what}")
    mean = members["running_mean"]
    gamma, beta = members.get("weight", np.ones_like(mean)), members.get("bias", np.zeros_like(mean))
    if tensor.index.ndim > 1 and mean.size != tensor.index.shape[1] and mean.size == tensor.index.size:
        tensor = _flat(tensor)  # flattened before it
    return elementwise.normed(tensor, gamma, beta, mean, members["running_var"], epsilon, axis=1, where=where)


def _activated(tensor: Tensor, last: Between, unsaid: Unsaid, where: str) -> Tensor:
    if unsaid.activation == "step":
        tensor = elementwise.compared(tensor, 0, ">" if unsaid.zero_sign == -1 else ">=", where)
    else:
        tensor = elementwise.sign(tensor, where)
    if last.pool > 1 and last.pool_after_sign:
        window = last.pool, last.pool
        tensor = pooling.pooled(tensor, window, window, (0, 0, 0, 0), where)
    return tensor


def _flat(tensor: Tensor) -> Tensor:
    return tensors.moved(tensor, tensor.index.reshape(1, -1))
