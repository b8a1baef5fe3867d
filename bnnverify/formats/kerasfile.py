"""Keras files: the layers of a model as a chain, with their options and arrays.

``.h5``: the configuration is JSON in an attribute, the arrays lie in groups by the name of the layer, which may hold
slashes (groups within groups); an inner model has the group of its outermost layer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats.units import require_finite
from bnnverify.reading import opened, parsed, require_growth

MODELS = ("Sequential", "Functional", "Model")
_WHAT = "a Keras model in HDF5 that model.save wrote (.h5)"
_EXPECTED = f"expected {_WHAT}"


@dataclass(frozen=True, slots=True)
class LayerEntry:
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


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]:
    """The configuration, and the arrays of each layer."""
    import h5py

    where = os.fspath(path)
    try:
        with opened(path, _WHAT) as stream, h5py.File(stream, "r") as file:
            file.visititems_links(lambda name, link: _require_inside(name, link, where))
            text = file.attrs.get("model_config")
            if text is None or "model_weights" not in file:
                raise FormatError(f"{where}: holds no model, only weights or other data, {_EXPECTED}.")
            config = parsed(text if isinstance(text, str) else bytes(text).decode("utf-8"))
            names = _layer_names(config)
            arrays = {name: _arrays(group, where) for name in names if (group := file["model_weights"].get(name))}
            packed, unpacked = os.fstat(stream.fileno()).st_size, _size(arrays)
            require_growth(packed, unpacked, where, _WHAT)
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


def _layer_names(config: Any) -> list[str]:
    """Names of the outermost layers; those with slashes are groups within groups."""
    entries = _entries(config) if isinstance(config, dict) else None
    options = [entry.get("config") for entry in entries or () if isinstance(entry, dict)]
    names = [str(inner["name"]) for inner in options if isinstance(inner, dict) and inner.get("name")]
    return [name for name in names if not name.startswith("/") and "." not in name.split("/")]


def _arrays(group: Any, where: str) -> dict[str, NDArray[Any]]:
    """The arrays of one layer, or inner model, by their full names."""
    found: dict[str, NDArray[Any]] = {}
    for raw in group.attrs.get("weight_names", ()):
        name = raw if isinstance(raw, str) else bytes(raw).decode("utf-8")
        data = group[name]
        if data.dtype.kind not in "fiu" or data.is_virtual or data.external:
            raise FormatError(f"{where}: the array {name!r:.60} is of type {data.dtype} or elsewhere, {_EXPECTED}.")
        require_growth(data.id.get_storage_size(), data.nbytes, f"{where}: the array {name!r:.60}", "an array")
        found[name] = np.asarray(data)
    return found


def _require_inside(name: str, link: Any, where: str) -> None:
    """FormatError if a link leads to another file."""
    if type(link).__name__ == "ExternalLink":
        raise FormatError(f"{where}: {name!r:.60} leads to another file, {_EXPECTED} with all of it.")


def _size(arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> int:
    return sum(array.nbytes for inner in arrays.values() for array in inner.values())


def chain(config: Mapping[str, Any], arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> list[LayerEntry]:
    """The layers in order, those of inner models among them; UnsupportedError unless they are a chain."""
    kind, entries = config.get("class_name"), _entries(config)
    if kind not in MODELS or not isinstance(entries, list) or not entries:
        raise UnsupportedError(f"the model is a {kind!r:.40}, expected a Sequential or Functional chain of layers.")
    found: list[LayerEntry] = []
    before: str | None = None
    for entry in entries:
        options = entry.get("config") if isinstance(entry, dict) else None
        if not isinstance(options, dict) or "class_name" not in entry:
            raise ModelError("the configuration of a layer is not understood, expected class_name and config.")
        name, short = str(options.get("name", "?")), str(entry["class_name"]).rsplit(">", 1)[-1]
        layer = LayerEntry(short, name, options, arrays.get(name, {}))
        if kind != "Sequential":
            sources = _sources(entry.get("inbound_nodes"))
            if sources != ([] if before is None else [before]):
                raise layer.refuse(f"follows {', '.join(sources) or 'nothing'}, expected a chain of layers.")
        before = name
        if short in MODELS:
            parts = chain(entry, _inner_arrays(entry, layer))
            found += [part for part in parts if part.kind != "InputLayer" or not found]
        else:
            found.append(replace(layer, arrays=_by_last_part(layer)))
    return found


def _entries(config: Mapping[str, Any]) -> Any:
    inner = config.get("config")
    return inner.get("layers") if isinstance(inner, dict) else inner


def _inner_arrays(entry: Mapping[str, Any], model: LayerEntry) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays of an inner model, by its layers: their names end in ``layer/array``."""
    entries = _entries(entry)
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for inner in entries if isinstance(entries, list) else ():
        options = inner.get("config") if isinstance(inner, dict) else None
        name = str(options.get("name", "?")) if isinstance(options, dict) else "?"
        deep = isinstance(inner, dict) and inner.get("class_name") in MODELS
        found[name] = {path: array for path, array in model.arrays.items() if deep or _owner(path).endswith(f"/{name}")}
    return found


def _owner(path: str) -> str:
    """``/block/dense`` of ``block/dense/kernel:0``."""
    return "/" + path.rpartition("/")[0]


def _by_last_part(layer: LayerEntry) -> dict[str, NDArray[Any]]:
    """`kernel`, `bias`, `gamma`, ...: arrays by the last part of their names."""
    found: dict[str, NDArray[Any]] = {}
    for path, array in layer.arrays.items():
        name = path.rsplit("/", 1)[-1].split(":")[0]
        if name in found:
            raise ModelError(f"{layer} has two arrays {name!r} ({path!r:.80} is one), expected one of each name.")
        require_finite(array, str(layer), f"the numbers of {name}" if name != "kernel" else "weights")
        found[name] = array
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
