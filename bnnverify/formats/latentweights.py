"""What the weights of a linear layer in a state dict mean: signs, signs with a scale per row, or nothing binarized.

Weights that are already binarized are read as they are: -1, 0 and +1, or one magnitude per row times these; a 0 is an
absent weight. Real-valued weights are *latent* (the model takes their signs in its forward pass) only where the user
says so, or the layer: by a copy of its latent weights (``weight.org``, ``weight_org``), by a scale of its own
(``alpha``, Brevitas' ``weight_quant``), or by its name (``bin...``). Anything else is a network of real numbers.

References:
    Hubara et al., "Binarized neural networks", NIPS 2016 (``weight.org``); Rastegari et al., "XNOR-Net", ECCV 2016
    (the mean magnitude of each filter as scale); Zhou et al., "DoReFa-Net", 2016 (that of the whole layer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import SignArray
from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.units import Column, column, constant_column, mean_magnitudes, require_finite

METHODS = ("sign", "xnor", "dorefa")
ZEROS = ("absent", "plus", "minus")
COPY = "weight_org"
SCALES = ("alpha", "scale", "scaling_factor", "weight_scale")
BREVITAS = "weight_quant.tensor_quant.scaling_impl.value"
MEMBERS = ("weight", "bias", COPY, "bias_org", BREVITAS, *SCALES)
_BINARY_NAME = re.compile(
    r"(^|[._])(bin|binary|binari[sz]ed?|bnn)([._0-9]|$)|binari[sz]e|(^|[._])bin_?(conv|lin|fc)", re.I
)


@dataclass(frozen=True, slots=True)
class Latent:
    """What the user says of latent weights.

    Attributes:
        method: `sign`, `xnor` (signs times the mean magnitude of the row), `dorefa` (times that of the layer), or None
            if nothing is said.
        zero: What a weight of exactly 0 becomes: `absent` as by torch.sign, `plus` or `minus`; None if nothing is said.
    """

    method: str | None = None
    zero: str | None = None

    def __post_init__(self) -> None:
        if self.method not in (None, *METHODS):
            raise ModelError(f"latent weights are read by {self.method!r:.40}, expected one of {', '.join(METHODS)}.")
        if self.zero not in (None, *ZEROS):
            raise ModelError(f"a weight of 0 becomes {self.zero!r:.40}, expected one of {', '.join(ZEROS)}.")


@dataclass(frozen=True, slots=True)
class Reading:
    """The weights of one layer as they are understood.

    Attributes:
        signs: int8, -1/+1, and 0 where absent.
        scale: A positive rational per row by which sums are multiplied; None for 1.
        text: How they were read.
        guesses: What of it the file does not say, in sentences.
    """

    signs: SignArray
    scale: Column | None
    text: str
    guesses: tuple[str, ...] = ()


def read_weights(
    members: Mapping[str, NDArray[Any]], name: str, latent: Latent, scale: Fraction | None = None
) -> Reading:
    """The weights of the layer `name`; rows (units, filters) lie along the first axis.

    Args:
        members: The parameters of the layer.
        name: For messages.
        latent: What the user says of latent weights.
        scale: What the user says that the signs of the weights are multiplied by; None if nothing.

    Raises:
        ModelError: A number is not finite, or shapes do not fit.
        UnsupportedError: The weights are real-valued, and nothing says that they are latent; or a latent weight is
            exactly 0, and nothing says what becomes of it.
    """
    where = f"layer {name!r}"
    for what, array in members.items():
        require_finite(array, where, "weights" if what == "weight" else f"the numbers of {what}")
    if members["weight"].dtype == np.bool_:
        raise UnsupportedError(
            f"{where} stores its weights as bits (bool), and the file does not say whether False is -1 or no weight. "
            "Save them as -1/+1 (0 where absent)."
        )
    weights = np.asarray(members["weight"], dtype=np.float64)
    if weights.size == 0:
        raise ModelError(f"{where} has weights of shape {weights.shape}, expected some.")
    explicit = _explicit_scale(members, weights.shape[0], where)
    if scale is not None:
        return _by_scale(members, weights, name, latent, scale, explicit)
    if latent.method is not None and not (latent.method == "sign" and explicit is not None):
        return _by_method(members, weights, name, latent, explicit)
    if COPY in members:
        return _with_copy(members, weights, name, latent, explicit)
    if BREVITAS in members:  # its sign is +1 from 0 on
        return _scaled(_signs(weights, latent.zero or "plus", where), None, explicit, "signs", name)
    if (stored := _stored(weights)) is not None:
        signs, size = _with_zeros(stored[0], latent.zero), stored[1]
        reading = _scaled(signs, size, explicit, _words(stored[0], size, latent.zero), name)
        if latent.zero is None and signs.min() == 0:  # bits, perhaps
            guess = f"no weight of layer {name!r} is negative, and 0 was read as absent, not as -1 (--zero-weights)"
            return replace(reading, guesses=(*reading.guesses, guess))
        return reading
    if explicit is not None:
        return _scaled(_signs(weights, latent.zero, where), None, explicit, "signs", name)
    if _BINARY_NAME.search(name):
        guess = f"the real weights of layer {name!r} were taken as latent, because of its name, and read as their signs"
        return Reading(_signs(weights, latent.zero, where), None, "signs", (guess,))
    raise UnsupportedError(_refusal(weights, where))


def _refusal(weights: NDArray[Any], where: str) -> str:
    row = np.abs(weights.reshape(weights.shape[0], -1))
    j = int(np.argmax(row.max(axis=1) != row.min(axis=1)))
    low, high = float(row[j].min()), float(row[j].max())
    return (
        f"{where} has real-valued weights (in row {j} of magnitude {low:.4g} to {high:.4g}), and nothing in the file "
        "says that the model binarizes them, expected -1/+1 (0 where absent) times one magnitude per row. If its "
        "forward pass takes their signs, say so: --latent-weights sign (xnor: times the mean magnitude of each row; "
        "dorefa: of each layer), or --layer NAME:scale=0.1 (times a constant). A network that computes with real "
        "weights, or with ReLU, is no binarized network."
    )


def _stored(weights: NDArray[Any]) -> tuple[SignArray, NDArray[Any]] | None:
    """Signs and the magnitude of each row, if that is what the weights are."""
    rows = np.abs(weights).reshape(weights.shape[0], -1)
    most = rows.max(axis=1)
    if ((rows != 0) & (rows != most[:, None])).any():
        return None
    return np.sign(weights).astype(np.int8), np.where(most == 0, 1, most)


def _with_copy(
    members: Mapping[str, NDArray[Any]], weights: NDArray[Any], name: str, latent: Latent, explicit: Column | None
) -> Reading:
    """A layer that keeps its latent weights beside those of the last forward pass; the next one starts from them."""
    where = f"layer {name!r}"
    copy = np.asarray(members[COPY], dtype=np.float64)
    if copy.shape != weights.shape:
        raise ModelError(f"{where} has weights of shape {weights.shape}, and latent ones of {copy.shape}.")
    stored = _stored(weights)
    if stored is None or ((weights == copy).all() and (stored[1] != 1).any()):  # saved between a step and a pass
        return _scaled(_signs(copy, latent.zero, where), None, explicit, f"signs of {COPY}", name)
    signs, size = stored
    settled = np.where(copy == 0, signs, np.sign(copy)).astype(np.int8)
    stale = int((settled != signs).sum())
    if stale and (size != 1).any():
        raise UnsupportedError(
            f"{where}: {stale} of its weights contradict the signs of its latent copy ({COPY}), and a scale is in the "
            "former only. Run the model once on any input in evaluation mode and save it again."
        )
    text = _words(settled, size, latent.zero)
    reading = _scaled(_with_zeros(settled, latent.zero), size, explicit, text, name)
    if not stale:
        return reading
    guess = (
        f"{stale} weights of {where} differ from the signs of its latent copy ({COPY}), from which the next forward "
        "pass takes them: the latent copy was read"
    )
    return replace(reading, guesses=(*reading.guesses, guess))


def _by_method(
    members: Mapping[str, NDArray[Any]], weights: NDArray[Any], name: str, latent: Latent, explicit: Column | None
) -> Reading:
    """Latent weights as the user says."""
    where = f"layer {name!r}"
    if explicit is not None:
        raise UnsupportedError(
            f"{where} has a scale of its own, so --latent-weights {latent.method} is not what it computes. Leave the "
            "option out."
        )
    if COPY not in members and (stored := _stored(weights)) is not None and _has_pattern(stored[0]):
        return _as_stored(*stored, name, latent)
    real = np.asarray(members.get(COPY, weights), dtype=np.float64)
    signs, rows = _signs(real, latent.zero, where), real.shape[0]
    if latent.method == "sign":
        return Reading(signs, None, "signs")
    if latent.method == "xnor":
        return Reading(signs, _positive(mean_magnitudes(real)), "signs times the mean magnitude of each row")
    mean = sum(mean_magnitudes(real), Fraction(0)) / rows
    return Reading(signs, _positive(constant_column(mean, rows)), "signs times the mean magnitude of the layer")


def _by_scale(
    members: Mapping[str, NDArray[Any]],
    weights: NDArray[Any],
    name: str,
    latent: Latent,
    scale: Fraction,
    explicit: Column | None,
) -> Reading:
    """Signs times a constant, as the user says."""
    where = f"layer {name!r}"
    if explicit is not None or latent.method not in (None, "sign"):
        other = "the file has a scale of this layer" if explicit is not None else f"--latent-weights is {latent.method}"
        raise UnsupportedError(f"{where}: its scale is given as {scale}, but {other}, expected one of the two.")
    real = np.asarray(members.get(COPY, weights), dtype=np.float64)
    stored = _stored(real)
    binarized = stored is not None and _has_pattern(stored[0])
    signs = _with_zeros(stored[0], latent.zero) if binarized and stored else _signs(real, latent.zero, where)
    return Reading(signs, constant_column(scale, real.shape[0]), f"signs times {scale}")


def _has_pattern(signs: SignArray) -> bool:
    """True if some row has two weights or more, so that one magnitude per row is no accident."""
    return bool((np.count_nonzero(signs.reshape(signs.shape[0], -1), axis=1) > 1).any())


def _as_stored(signs: SignArray, size: NDArray[Any], name: str, latent: Latent) -> Reading:
    """Weights that are binarized already among layers whose weights are latent."""
    filled = _with_zeros(signs, latent.zero)
    reading = _scaled(filled, size, None, _words(signs, size, latent.zero), name)
    if (size == 1).all() and (latent.method == "sign" or filled.all()):
        return reading  # as the method has it
    guess = (
        f"the weights of layer {name!r} are one magnitude per row times -1, 0 and +1 already, and were read as they "
        f"are instead of by --latent-weights {latent.method}"
    )
    return replace(reading, guesses=(guess,))


def _positive(scale: Column) -> Column:
    """Rows of zeros have no weights, hence any scale."""
    return column([v if v else Fraction(1) for v in scale])


def _signs(latent: NDArray[Any], zero: str | None, where: str) -> SignArray:
    """Signs of latent weights, none of which may be 0 unless it is said what that means."""
    zeros = int((latent == 0).sum())
    if zeros and zero is None:
        raise UnsupportedError(
            f"{where} has {zeros} latent weights of exactly 0, of which torch.sign makes 0 (no weight), and other code "
            "makes +1; the file does not say which. Say it: --zero-weights absent, plus or minus."
        )
    return _with_zeros(np.sign(latent).astype(np.int8), zero)


def _with_zeros(signs: SignArray, zero: str | None) -> SignArray:
    value = {None: 0, "absent": 0, "plus": 1, "minus": -1}[zero]
    return np.where(signs == 0, value, signs).astype(np.int8)


def _words(signs: SignArray, size: NDArray[Any], zero: str | None) -> str:
    zeros = int((signs == 0).sum())
    text = "-1/+1" if (size == 1).all() else "one magnitude per row times -1/+1"
    meaning = {None: "absent", "absent": "absent", "plus": "+1", "minus": "-1"}[zero]
    return text + (f", {zeros} weights of 0 {meaning}" if zeros else "")


def _scaled(signs: SignArray, size: NDArray[Any] | None, explicit: Column | None, text: str, name: str) -> Reading:
    """With the magnitudes that the weights have, or the scale that the layer has beside them."""
    own = None if size is None or (size == 1).all() else column(size)
    if explicit is None:
        return Reading(signs, own, text)
    if own is not None:
        raise UnsupportedError(
            f"layer {name!r} has weights of one magnitude per row and a scale beside them, and the file does not say "
            "whether both count. Save the weights as the forward pass uses them, without the scale."
        )
    guess = f"the scale beside the weights of layer {name!r} was taken as the magnitude of each row's binarized weights"
    return Reading(signs, explicit, f"{text} times the scale beside them", (guess,))


def _explicit_scale(members: Mapping[str, NDArray[Any]], rows: int, where: str) -> Column | None:
    names = [name for name in (BREVITAS, *SCALES) if name in members]
    if not names:
        return None
    values = np.asarray(members[names[0]], dtype=np.float64).ravel()
    if len(names) > 1 or values.size not in (1, rows) or not (values > 0).all():
        raise UnsupportedError(
            f"{where} has the scale {' and '.join(names)} of shape {members[names[0]].shape}, expected one positive "
            f"number, or {rows}, one per row. Save the weights as the forward pass uses them."
        )
    return column(values) if values.size == rows else constant_column(values[0], rows)
