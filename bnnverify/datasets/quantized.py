"""Grey values as the integers that a network takes, and the boxes around them: exact rounding, table by table."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.reading import number
from bnnverify.regions import PixelBox, quantized_box

GREATEST = 255  # grey value of white


def quantization_step(network: BinaryNetwork) -> Fraction | None:
    """What one step of an input is worth where white is 1, if the network quantizes pixels; else None.

    Networks say so in their provenance, as `formats.eevbnn` writes it. No checksum covers a provenance, so the step
    must agree with what the identity covers: the inputs go from 0 to ``round(1 / step)``.

    Raises:
        QueryError: What the provenance says is no step, or does not fit the bounds of the inputs.
    """
    text = network.provenance.data.get("quant_step")
    if text is None:
        return None
    try:
        step = number(str(text), digits=40, exponent=40)
    except ValueError:
        step = Fraction(0)
    if step <= 0:
        raise QueryError(
            f"quant_step in the network's provenance is {text!r:.60}, expected a number above 0 such as 0.61. "
            "Import the network's own file again."
        )
    low, high, most = int(network.domain.lower.min()), int(network.domain.upper.max()), round(1 / step)
    ends = (low, int(network.domain.lower.max()), int(network.domain.upper.min()), high)
    if network.domain.is_binary or ends != (0, 0, most, most):
        kind = "signs" if network.domain.is_binary else f"integers {low} to {high}"
        raise QueryError(
            f"quant_step in the network's provenance is {text!r:.60}, which makes inputs of 0 to {most}, but the "
            f"network takes {kind}. Import the network's own file again."
        )
    return step


def quantizing(network: BinaryNetwork, white: int) -> Fraction | None:
    """The step of a network for images whose greatest grey value is `white`; None if it does not quantize.

    Raises:
        QueryError: As `quantization_step`, or it quantizes grey values up to 255 and white is another one.
    """
    if network.provenance.data.get("quant_step") is not None and white != GREATEST:
        raise QueryError(
            f"the network quantizes grey values 0 to {GREATEST}, but those of the images end at {white}. "
            "Name the data set that it was trained on."
        )
    return quantization_step(network)


def quantized(pixels: NDArray[Any], step: Fraction) -> NDArray[np.int64]:
    """``round(pixel / 255 / step)``, a half to the even integer, exactly.

    >>> quantized(np.array([0, 128, 255], dtype=np.uint8), Fraction("0.61")).tolist()
    [0, 1, 2]
    """
    low, _ = _table(step, Fraction(0))
    return np.asarray(low[pixels], dtype=np.int64)


def box_around(network: BinaryNetwork, pixels: NDArray[Any], eps: Fraction, *, white: int = GREATEST) -> PixelBox:
    """The inputs that images within `eps` of an image give, where white is 1.

    A network that quantizes pixels sees ``round(v / step)`` of real images v: see `quantized_box`. Another one sees the
    integers within ``eps * white``.

    Args:
        network: A network over integers.
        pixels: Grey values 0 to `white`, shape `(n,)`, uint8.
        eps: At least 0; 1 is the distance from black to white.
        white: Greatest grey value of the data set.

    Raises:
        QueryError: The network takes -1/+1 inputs, or as `quantizing`; or eps is negative.
    """
    if network.domain.is_binary:
        raise QueryError("eps is about grey values, but the network takes -1/+1 inputs. Give a Hamming radius.")
    step = quantizing(network, white)
    if step is None:
        if eps < 0:
            raise QueryError(f"eps is {eps}, expected at least 0.")
        return PixelBox.linf(pixels.tolist(), math.floor(eps * white), network.domain)
    low, high = _table(step, eps)
    return PixelBox(tuple(low[pixels].tolist()), tuple(high[pixels].tolist()))


@lru_cache(maxsize=64)
def _table(step: Fraction, eps: Fraction) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and greatest quantized value for every grey value."""
    greys = np.array([Fraction(v, GREATEST) for v in range(GREATEST + 1)], dtype=object)
    box = quantized_box(greys, eps, step)
    return np.array(box.lower, dtype=np.int64), np.array(box.upper, dtype=np.int64)
