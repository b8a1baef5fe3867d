"""Quantizers of larq, by name and options: what they make of latent weights and of the inputs of a layer.

Each is read exactly as it computes, or refused by its name. larq's sign is ``sign(sign(x) + 0.1)``: +1 from 0 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import SignArray
from bnnverify.errors import UnsupportedError
from bnnverify.formats import elementwise
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import Column, mean_magnitudes

SIGNS = ("ste_sign", "approx_sign", "swish_sign")  # -1 below 0, else +1
SCALED = "magnitude_aware_sign"  # the same times the mean magnitude of the filter
HEAVISIDE = "ste_heaviside"  # 0 up to 0, else 1
TERNARY = "ste_tern"  # 0 where the magnitude is below a threshold
DOREFA = "dorefa_quantizer"
NONE = ("no_op", "linear")
PLAIN = "sign"  # of TensorFlow: 0 at 0
_CLASSES = {
    "SteSign": "ste_sign",
    "ApproxSign": "approx_sign",
    "SwishSign": "swish_sign",
    "MagnitudeAwareSign": SCALED,
    "SteHeaviside": HEAVISIDE,
    "SteTern": TERNARY,
    "DoReFa": DOREFA,
    "DoReFaQuantizer": DOREFA,
    "NoOp": "no_op",
    "NoOpQuantizer": "no_op",
}


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A quantizer or activation as a Keras configuration names it.

    Attributes:
        name: larq's name in lower case, such as ``ste_sign``; the file's own where it is not known.
        options: Its configuration.
    """

    name: str
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, value: Any) -> Quantizer | None:
        """The quantizer, however it is serialised; None for none, and for those that change nothing."""
        options: Mapping[str, Any] = {}
        if isinstance(value, dict):
            inner = value.get("config")
            if value.get("class_name") == "function":
                value = inner.get("name") if isinstance(inner, dict) else inner
            else:
                options = inner if isinstance(inner, dict) else {}
                value = value.get("registered_name") or value.get("class_name")
        if value is None:
            return None
        short = str(value).rsplit(">", 1)[-1]
        name = _CLASSES.get(short, short)
        return None if name in NONE else cls(name, options)


def quantized_kernel(
    quantizer: Quantizer | None, latent: NDArray[Any], where: str
) -> tuple[NDArray[Any], Column | None, str | None]:
    """Latent weights after a kernel quantizer; the last axis counts filters.

    Returns:
        The weights, a scale per filter or None, and a note or None.

    Raises:
        UnsupportedError: The quantizer is not known, or gives weights of more than three values.
    """
    if quantizer is None:
        return latent, None, None
    name = quantizer.name
    signs: SignArray = np.where(latent >= 0, 1, -1).astype(np.int8)
    if name in SIGNS:
        changed = bool((np.abs(latent) != 1).any())
        return signs, None, f"the latent weights of {where} were binarized by {name}: +1 from 0 on" if changed else None
    if name == SCALED:
        note = f"the latent weights of {where} were binarized by {name}: +1 from 0 on, times their mean magnitude"
        return signs, mean_magnitudes(np.moveaxis(latent, -1, 0)), note
    if name == HEAVISIDE:
        note = f"the latent weights of {where} were quantized by {name}: 1 above 0, absent elsewhere"
        return (latent > 0).astype(np.int8), None, note
    if name == PLAIN:
        note = f"the latent weights of {where} were binarized by {name}: absent at 0"
        return np.sign(latent).astype(np.int8), None, note
    if name == TERNARY and not quantizer.options.get("ternary_weight_networks", False):
        bound = _number(quantizer, "threshold_value", 0.05, where)
        kept = np.where(np.abs(latent) >= bound, signs, 0).astype(np.int8)
        return kept, None, f"the latent weights of {where} were quantized by {name}: absent below {bound:g}"
    known = ", ".join((*SIGNS, SCALED, HEAVISIDE, TERNARY, "no_op"))
    detail = " with ternary_weight_networks" if name == TERNARY else ""
    raise UnsupportedError(
        f"{where} quantizes its kernel by {name!r:.40}{detail}, which this version does not read, expected one of "
        f"{known}. Save the quantized weights instead: model.save(...) within larq.context.quantized_scope(True)."
    )


def quantized_input(quantizer: Quantizer | None, tensor: Tensor, where: str) -> Tensor:
    """The input of a layer after its input quantizer, or a tensor after an activation.

    Raises:
        UnsupportedError: The quantizer is not known, or gives more than two values.
    """
    if quantizer is None:
        return tensor
    name = quantizer.name
    if name in SIGNS:
        return elementwise.chosen(elementwise.compared(tensor, 0.0, ">=", where), 1.0, -1.0, where)
    if name == HEAVISIDE:
        return elementwise.compared(tensor, 0.0, ">", where)
    if name == PLAIN:
        return elementwise.sign(tensor, where)
    if name == DOREFA and quantizer.options.get("k_bit", 2) == 1 and quantizer.options.get("mode") != "weights":
        return elementwise.compared(tensor, 0.5, ">", where)  # round(clip(x, 0, 1)), a half to the even 0
    bits = f" of {quantizer.options.get('k_bit', 2)} bits" if name == DOREFA else ""
    raise UnsupportedError(
        f"{where} has the activation or input quantizer {name!r:.40}{bits}, expected a sign ({', '.join(SIGNS)}) or "
        f"{HEAVISIDE}: a binarized network has one bit between its layers."
    )


def _number(quantizer: Quantizer, name: str, default: float, where: str) -> np.float32:
    value = quantizer.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**63:
        raise UnsupportedError(f"{where}: {name} of {quantizer.name} is {value!r:.40}, expected a number above 0.")
    return np.float32(value)
