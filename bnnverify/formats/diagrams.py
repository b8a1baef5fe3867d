"""Files of class diagrams: ``.json`` for us and anyone with a JSON parser, ``.dddmp`` for CUDD and its friends.

JSON: one object with

- ``format`` ("bnnverify class diagram") and ``version`` (1);
- ``network`` (identity), ``inputs``, ``classes``, ``region`` (as in result files);
- ``order``: index of the input that each level tests, from the top;
- ``levels``, ``low``, ``high``: one entry per node, children before parents. Child numbers below ``classes`` are
  classes, ``classes`` itself is "outside the region", and node i has the number ``classes + 1 + i``. ``low`` is taken
  if the input is -1, ``high`` if it is +1;
- ``root``: a number; ``identity``: sha256 of all of it.

DDDMP 2.0, text: one Boolean diagram per class, which holds for the inputs of the region with that class. They share
nodes, and their roots are in the order of the classes. Variables are called x and the index of the input; names stand
in the nodes; "else" edges may be complemented. What the format has no place for stands in comment lines
``# bnnverify ...`` of the header, which other readers skip.

Both are read back with every check that the file allows: the same diagram comes out, or a FormatError.

References:
    Cabodi & Quer, "DDDMP: Decision Diagram DuMP package", release 2.0, 2004.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnnverify.encodings.classdiagram import ClassDiagram
from bnnverify.encodings.diagram import Array, Diagram
from bnnverify.errors import FormatError, QueryError
from bnnverify.files import write_whole
from bnnverify.formats.dddmp import Boolean, booleans_of, diagram_of, read_dddmp, text_of
from bnnverify.reading import json_of, read_text
from bnnverify.regions import region_from_json

FORMAT, VERSION = "bnnverify class diagram", 1
SUFFIXES = (".json", ".dddmp")

_SIZE_LIMIT = 2**32  # bytes
_NUMBER_LIMIT = 2**31 - 1
_CLASS_LIMIT = 2**20
_MARK = "# bnnverify "
_LINE = 400  # characters of a comment line; readers in C have buffers of 500
_REMEDY = "Write it again with 'bnnverify diagram build'."


def save_diagram(diagram: ClassDiagram, path: str | os.PathLike[str]) -> None:
    """Write a class diagram to `path`; its suffix, ``.json`` or ``.dddmp``, says how.

    Raises:
        FormatError: The suffix is another one, or the path cannot be written.
    """
    suffix = require_diagram_name(path)
    head = _head(diagram)
    if suffix == ".dddmp":
        comment = json.dumps(head, sort_keys=True, separators=(",", ":"))
        lines = [_MARK + comment[i : i + _LINE] for i in range(0, len(comment), _LINE)]
        text = text_of(booleans_of(diagram), lines)
    else:
        arrays = {name: getattr(diagram.diagram, name).tolist() for name in ("levels", "low", "high")}
        text = json.dumps(head | {"root": diagram.diagram.root} | arrays, separators=(",", ":")) + "\n"
    write_whole(path, text.encode())


def load_diagram(path: str | os.PathLike[str]) -> ClassDiagram:
    """The class diagram in a file that `save_diagram` wrote, checked against its sha256.

    Raises:
        FormatError: The file cannot be read, is none of ours, or was damaged or changed.
    """
    where, suffix = os.fspath(path), require_diagram_name(path)
    text = read_text(path, "a diagram file", limit=_SIZE_LIMIT)
    return _from_dddmp(text, where) if suffix == ".dddmp" else _from_json(text, where)


def require_diagram_name(path: str | os.PathLike[str]) -> str:
    """The suffix of the name; FormatError if it is none of a diagram file."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(f"{os.fspath(path)}: has the suffix {suffix!r}, expected {' or '.join(SUFFIXES)}.")
    return suffix


def _head(diagram: ClassDiagram) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "identity": diagram.identity,
        "network": diagram.network,
        "inputs": diagram.region.n,
        "classes": diagram.n_classes,
        "region": diagram.region.to_json(),
        "order": list(diagram.order),
    }


def _parsed(text: str, where: str) -> dict[str, Any]:
    data = json_of(text, where, "a diagram file")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise FormatError(f"{where}: names the format {found!r:.60}, expected {FORMAT!r}. {_REMEDY}")
    if data.get("version") != VERSION:
        raise FormatError(
            f"{where}: has version {data.get('version')!r:.60}, expected {VERSION}. "
            "Read it with the bnnverify release that wrote it, or update bnnverify."
        )
    return data


def _from_json(text: str, where: str) -> ClassDiagram:
    data = _parsed(text, where)
    arrays = {name: _numbers(data, name, where) for name in ("levels", "low", "high")}
    root = data.get("root")
    if type(root) is not int:
        raise FormatError(f"{where}: root is {root!r:.60}, expected a number. {_REMEDY}")

    def build(levels: int, classes: int) -> Diagram:
        return Diagram(levels, classes + 1, arrays["levels"], arrays["low"], arrays["high"], root)

    return _checked(data, build, where)


def _from_dddmp(text: str, where: str) -> ClassDiagram:
    header, _, _ = text.partition("\n.nodes")
    comment = "".join(line.removeprefix(_MARK) for line in header.split("\n") if line.startswith(_MARK))
    if not comment:
        raise FormatError(f"{where}: has no comment lines {_MARK.strip()!r}, expected a file of bnnverify. {_REMEDY}")
    data = _parsed(comment, where)
    booleans = read_dddmp(text, where)

    def build(levels: int, classes: int) -> Diagram:
        return diagram_of(_named(booleans, data["order"], classes, where), where)

    return _checked(data, build, where)


def _named(booleans: Boolean, order: list[int], classes: int, where: str) -> Boolean:
    """The diagrams after a look at the names of their variables and the number of roots."""
    expected = tuple(f"x{i}" for i in order)
    if booleans.names != expected or len(booleans.roots) != classes:
        raise FormatError(
            f"{where}: has {len(booleans.roots)} roots over {' '.join(booleans.names):.60}, expected {classes} over "
            f"{' '.join(expected):.60}, as the comment states. {_REMEDY}"
        )
    return booleans


def _numbers(data: Mapping[str, Any], name: str, where: str) -> Array:
    values = data.get(name)
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= _NUMBER_LIMIT for v in values):
        raise FormatError(f"{where}: {name} is not a list of numbers from 0 to {_NUMBER_LIMIT}. {_REMEDY}")
    return np.array(values, dtype=np.int32)


def _checked(data: Mapping[str, Any], build: Callable[[int, int], Diagram], where: str) -> ClassDiagram:
    """The diagram of a header and a builder of its nodes, with everything checked."""
    classes, order, network = data.get("classes"), data.get("order"), data.get("network")
    if type(classes) is not int or not 2 <= classes <= _CLASS_LIMIT:
        raise FormatError(f"{where}: classes is {classes!r:.60}, expected 2 to {_CLASS_LIMIT}. {_REMEDY}")
    if not isinstance(network, str) or not isinstance(data.get("region"), dict):
        raise FormatError(f"{where}: has no network identity or no region. {_REMEDY}")
    try:
        region = region_from_json(data["region"])
    except (QueryError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: the region is not valid ({error}). {_REMEDY}") from None
    numbers = isinstance(order, list) and all(type(i) is int for i in order)
    if (
        not isinstance(order, list)
        or not numbers
        or sorted(order) != sorted(region.free)
        or data.get("inputs") != region.n
    ):
        raise FormatError(f"{where}: order and inputs do not fit the region, a {region}. {_REMEDY}")
    diagram = build(len(order), classes)
    if (fault := diagram.fault()) is not None:
        raise FormatError(f"{where}: {fault}. The file was changed after it was written. {_REMEDY}")
    found = ClassDiagram(network, classes, region, tuple(order), diagram)
    if found.identity != data.get("identity"):
        raise FormatError(
            f"{where}: identity is sha256 {found.identity[:16]}, expected {data.get('identity')!s:.16} as the file "
            f"states. The file was changed after it was written. {_REMEDY}"
        )
    if sum(found.count()) != region.size():
        raise FormatError(f"{where}: the classes do not add up to the {region.size()} inputs of the region. {_REMEDY}")
    return found
