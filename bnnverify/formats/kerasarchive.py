"""The arrays of a ``.keras`` archive: groups by the class of the layer, and arrays by their number.

Keras names the group of a layer by its class and how many of that class came before it in the model (``quant_dense``,
``quant_dense_1``, ...), not by the name of the layer, and its arrays ``vars/0``, ``vars/1``, ... in the order in which
the layer makes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import ModelError
from bnnverify.reading import require_growth

MODELS = ("Sequential", "Functional", "Model")
_LINEAR = ("Conv2D", "Dense", "QuantConv2D", "QuantDense")


def entries(config: Mapping[str, Any]) -> Any:
    """The configurations of the layers of a model; None where there are none."""
    inner = config.get("config")
    return inner.get("layers") if isinstance(inner, dict) else inner


def arrays(config: Mapping[str, Any], group: Any) -> dict[str, dict[str, NDArray[Any]]]:
    """Arrays by layer, and there by ``layer/array``, as a ``.h5`` has them.

    Raises:
        ModelError: A layer has another number of arrays than it makes.
    """
    found: dict[str, dict[str, NDArray[Any]]] = {}
    counts: dict[str, int] = {}
    listed = entries(config)
    for entry in listed if isinstance(listed, list) else ():
        options = entry.get("config") if isinstance(entry, dict) else None
        if not isinstance(options, dict):
            raise ModelError("the configuration of a layer is not understood, expected class_name and config.")
        kind, name = str(entry.get("class_name")).rsplit(">", 1)[-1], str(options.get("name", "?"))
        place = _snake_case(kind)
        number = counts[place] = counts.get(place, -1) + 1
        inner = group.get(f"layers/{place}_{number}" if number else f"layers/{place}")
        if kind in MODELS:
            parts = arrays(entry, inner) if inner is not None else {}
            found[name] = {path: array for part in parts.values() for path, array in part.items()}
            continue
        data = inner.get("vars") if inner is not None else None
        wanted = _variables(kind, options)
        if wanted is None:
            continue
        if data is None or len(data) != len(wanted):
            there = 0 if data is None else len(data)
            raise ModelError(
                f"layer {name!r} ({kind}) has {there} arrays, expected {len(wanted)}: {', '.join(wanted)}."
            )
        found[name] = {f"{name}/{what}": array_in(data[str(k)], f"{name}/{what}") for k, what in enumerate(wanted)}
    return found


def array_in(data: Any, name: str) -> NDArray[Any]:
    """An array of numbers that the file itself holds.

    Raises:
        ModelError: It is anything else.
        FormatError: It is much larger than what is stored of it.
    """
    if data.dtype.kind not in "fiu" or data.is_virtual or data.external:
        raise ModelError(f"the array {name!r:.60} is of type {data.dtype} or elsewhere, expected plain numbers.")
    require_growth(data.id.get_storage_size(), data.nbytes, f"the array {name!r:.60}", "an array")
    return np.asarray(data)


def _variables(kind: str, options: Mapping[str, Any]) -> list[str] | None:
    """Names of the arrays of a layer in the order in which it makes them; None where none is read."""
    if kind in _LINEAR:
        return ["kernel", *(["bias"] if options.get("use_bias", True) else [])]
    if kind == "BatchNormalization":
        own = [name for name, option in (("gamma", "scale"), ("beta", "center")) if options.get(option, True)]
        return [*own, "moving_mean", "moving_variance"]
    return None


def _snake_case(name: str) -> str:
    """``quant_conv2d`` of ``QuantConv2D``."""
    split = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", split).lower()
