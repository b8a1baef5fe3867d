"""Keras files: the layers of a model as a chain, with their options and arrays.

``.h5``: the configuration is JSON in an attribute, the arrays lie in groups by the name of the layer, which may hold
slashes (groups within groups); an inner model has the group of its outermost layer. ``.keras``: a zip archive, whose
arrays are counted instead of named (`kerasarchive`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import kerasarchive
from bnnverify.formats.units import require_finite
from bnnverify.reading import Archive, json_of, opened, reason, require_growth, shown

EXPECTED = "a Keras model that model.save wrote (.h5 or .keras)"


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
    """The configuration, and the arrays of each outermost layer by their full names.

    Raises:
        FormatError: The file cannot be read, or holds no model.
        ImportError: h5py is not installed.
    """
    where = shown(path)
    with opened(path, EXPECTED) as stream:
        start = stream.read(4)
        stream.seek(0)
        if start == b"\x89HDF":
            return _from_hdf5(stream, where, None)
        if start != b"PK\x03\x04":
            raise FormatError(
                f"{where}: is neither HDF5 nor a .keras archive (it starts with {start!r}), expected {EXPECTED}."
            )
        with Archive(stream, where, EXPECTED) as archive:
            if missing := {"config.json", "model.weights.h5"} - set(archive.names):
                raise FormatError(f"{where}: is an archive without {min(missing)}, expected {EXPECTED}.")
            config = json_of(archive.read("config.json"), where, EXPECTED)
            return _from_hdf5(io.BytesIO(archive.read("model.weights.h5")), where, config)


def _from_hdf5(stream: BinaryIO, where: str, config: Any) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]:
    """All from a ``.h5``, or with a configuration only the arrays: those of a ``.keras`` archive."""
    import h5py

    try:
        with h5py.File(stream, "r") as file:
            file.visititems_links(lambda name, link: _require_inside(name, link, where))
            archived = config is not None
            if not archived:
                text = file.attrs.get("model_config")
                if text is None or "model_weights" not in file:
                    raise FormatError(f"{where}: holds no model, only weights or other data, expected {EXPECTED}.")
                config = json_of(text if isinstance(text, str) else bytes(text), where, EXPECTED)
            if not isinstance(config, dict):
                raise FormatError(f"{where}: its configuration is no object, expected {EXPECTED}.")
            if archived:
                arrays = kerasarchive.arrays(config, file)
            else:
                groups = {name: file["model_weights"].get(name) for name in _layer_names(config)}
                arrays = {name: _arrays(group) for name, group in groups.items() if group is not None}
            require_growth(stream.seek(0, os.SEEK_END), _size(arrays), where, EXPECTED)
            return config, arrays
    except FormatError:
        raise
    except ModelError as error:
        raise FormatError(f"{where}: {error}") from None
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
        raise FormatError(f"{where}: is damaged ({reason(error):.80}), expected {EXPECTED}.") from None


def _layer_names(config: Any) -> list[str]:
    """Names of the outermost layers; those with slashes are groups within groups."""
    entries = kerasarchive.entries(config) if isinstance(config, dict) else None
    options = [entry.get("config") for entry in entries or () if isinstance(entry, dict)]
    names = [str(inner["name"]) for inner in options if isinstance(inner, dict) and inner.get("name")]
    return [name for name in names if not name.startswith("/") and "." not in name.split("/")]


def _arrays(group: Any) -> dict[str, NDArray[Any]]:
    """The arrays of one layer, or inner model, by their full names."""
    names = [raw if isinstance(raw, str) else bytes(raw).decode("utf-8") for raw in group.attrs.get("weight_names", ())]
    return {name: kerasarchive.array_in(group[name], name) for name in names}


def _require_inside(name: str, link: Any, where: str) -> None:
    """FormatError if a link leads to another file."""
    if type(link).__name__ == "ExternalLink":
        raise FormatError(f"{where}: {name!r:.60} leads to another file, expected {EXPECTED} with all of it.")


def _size(arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> int:
    return sum(array.nbytes for inner in arrays.values() for array in inner.values())


def chain(config: Mapping[str, Any], arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> list[LayerEntry]:
    """The layers in order, those of inner models among them; UnsupportedError unless they are a chain."""
    kind, entries = config.get("class_name"), kerasarchive.entries(config)
    if kind not in kerasarchive.MODELS or not isinstance(entries, list) or not entries:
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
        if short in kerasarchive.MODELS:
            parts = chain(entry, _inner_arrays(entry, layer))
            found += [part for part in parts if part.kind != "InputLayer" or not found]
        else:
            found.append(replace(layer, arrays=_by_last_part(layer)))
    return found


def _inner_arrays(entry: Mapping[str, Any], model: LayerEntry) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays of an inner model, by its layers: their names end in ``layer/array``."""
    entries = kerasarchive.entries(entry)
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for inner in entries if isinstance(entries, list) else ():
        options = inner.get("config") if isinstance(inner, dict) else None
        name = str(options.get("name", "?")) if isinstance(options, dict) else "?"
        deep = isinstance(inner, dict) and inner.get("class_name") in kerasarchive.MODELS
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
