"""DDDMP 2.0 text files of shared Boolean diagrams with complement edges, and class diagrams as such."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnnverify.encodings.classdiagram import ClassDiagram
from bnnverify.encodings.diagram import Array, Diagram
from bnnverify.errors import FormatError

_NODE = re.compile(r"([0-9]{1,10}) (x[0-9]{1,9}) ([0-9]{1,9}) ([0-9]{1,10}) (-?[0-9]{1,10})", re.ASCII)
_REMEDY = "Write it again with 'bnnverify diagram build'."


@dataclass(frozen=True, slots=True, eq=False)
class Boolean:
    """Shared diagrams of Boolean functions, as CUDD keeps them: one leaf, and a sign on "else" edges and roots.

    A reference is the number of a node, negative for the complement: 1 is true, -1 false, row i has the number i + 2.

    Attributes:
        names: Of the variables by level.
        levels: Level of each node; children come before parents.
        then: Where to go if the variable is true; positive.
        other: Where to go if it is false ("else"); may be negative.
        roots: A reference for each function.
    """

    names: tuple[str, ...]
    levels: Array
    then: Array
    other: Array
    roots: tuple[int, ...]


def booleans_of(diagram: ClassDiagram) -> Boolean:
    """One Boolean diagram per class: the inputs of the region that get it."""
    inner, classes = diagram.diagram, diagram.n_classes
    references = np.empty((inner.n_leaves + len(inner), classes), dtype=np.int64)
    references[: inner.n_leaves] = -1
    references[np.arange(classes), np.arange(classes)] = 1
    levels, then, other, count = [], [], [], 2
    for rows in inner.by_level():
        high, low = references[inner.high[rows]], references[inner.low[rows]]
        sign = np.where(high < 0, -1, 1)  # CUDD complements no "then" edge
        pairs = np.stack([(high * sign).ravel(), (low * sign).ravel()], axis=1)
        tested = pairs[:, 0] != pairs[:, 1]
        unique, place = np.unique(pairs[tested], axis=0, return_inverse=True)
        found = pairs[:, 0].copy()
        found[tested] = count + place.ravel()
        references[inner.n_leaves + rows.start : inner.n_leaves + rows.stop] = found.reshape(high.shape) * sign
        levels.append(np.full(len(unique), inner.levels[rows.start], dtype=np.int64))
        then.append(unique[:, 0])
        other.append(unique[:, 1])
        count += len(unique)
    roots = tuple(references[inner.root].tolist())
    return Boolean(diagram.names, _joined(levels), _joined(then), _joined(other), roots)


def _joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def text_of(booleans: Boolean, comments: Sequence[str] = ()) -> str:
    """The diagrams as a DDDMP file, with comment lines in its header."""
    support = np.unique(booleans.levels)
    place = {int(level): i for i, level in enumerate(support)}
    listed = " ".join(map(str, support.tolist()))
    lines = [
        ".ver DDDMP-2.0",
        *comments,
        ".mode A",
        ".varinfo 3",
        ".dd classes",
        f".nnodes {len(booleans.levels) + 1}",
        f".nvars {len(booleans.names)}",
        f".nsuppvars {len(support)}",
        *([f".suppvarnames {' '.join(booleans.names[i] for i in support)}"] if len(support) else []),
        *([f".orderedvarnames {' '.join(booleans.names)}"] if booleans.names else []),
        f".ids {listed}",
        f".permids {listed}",
        f".nroots {len(booleans.roots)}",
        f".rootids {' '.join(map(str, booleans.roots))}",
        ".nodes",
        "1 T 1 0 0",
    ]
    columns = zip(booleans.levels.tolist(), booleans.then.tolist(), booleans.other.tolist(), strict=True)
    names = booleans.names
    lines += [f"{i} {names[level]} {place[level]} {t} {e}" for i, (level, t, e) in enumerate(columns, start=2)]
    return "\n".join([*lines, ".end", ""])


def read_dddmp(text: str, where: str) -> Boolean:
    """The diagrams of a file as `text_of` writes it.

    Raises:
        FormatError: It is no such file; other flavours of the format (binary, ids in the nodes, algebraic) included.
    """
    lines = text.split("\n")
    fields: dict[str, list[str]] = {}
    start = 0
    for number, line in enumerate(lines, start=1):
        if line == ".nodes":
            start = number
            break
        if line.startswith("."):
            key, *words = line.split()
            fields[key] = words
        elif line and not line.startswith("#"):
            raise FormatError(f"{where}:{number}: is {line!r:.60}, expected a header line that starts with a dot.")
    if not start:
        raise FormatError(f"{where}: has no line .nodes, expected a DDDMP file. {_REMEDY}")
    for key, expected in ((".ver", "DDDMP-2.0"), (".mode", "A"), (".varinfo", "3")):
        if fields.get(key) != [expected]:
            found = " ".join(fields.get(key, ["nothing"]))
            raise FormatError(f"{where}: {key} is {found:.60}, expected {expected}: text, with names in the nodes.")
    names = tuple(fields.get(".orderedvarnames", []))
    size = _size(fields, where) - 1
    if lines[start : start + 1] != ["1 T 1 0 0"] or lines[start + size + 1 : start + size + 2] != [".end"]:
        raise FormatError(
            f"{where}:{start + 1}: there are not {size + 1} nodes with the leaf 1 first and .end after them. {_REMEDY}"
        )
    level_of = {name: level for level, name in enumerate(names)}
    rows = np.empty((size, 3), dtype=np.int64)
    for i in range(size):
        match = _NODE.fullmatch(lines[start + 1 + i])
        if match is None or int(match[1]) != i + 2 or match[2] not in level_of:
            raise FormatError(
                f"{where}:{start + 2 + i}: is {lines[start + 1 + i]!r:.60}, expected node {i + 2}: "
                "number, variable, its place, then, else."
            )
        rows[i] = level_of[match[2]], int(match[4]), int(match[5])
    levels, then, other = rows.T
    numbers = np.arange(2, size + 2)
    bad = np.flatnonzero((then < 1) | (then >= numbers) | (other == 0) | (np.abs(other) >= numbers) | (then == other))
    if bad.size:
        raise FormatError(f"{where}:{start + 2 + bad[0]}: a child is not one of the earlier nodes, or both are equal.")
    depths = np.concatenate([[len(names)] * 2, levels])
    if (np.minimum(depths[then], depths[np.abs(other)]) <= levels).any():
        raise FormatError(f"{where}: the diagram is not ordered as .orderedvarnames says. {_REMEDY}")
    roots = _roots(fields, size + 1, where)
    return Boolean(names, levels, then, other, roots)


def _size(fields: dict[str, list[str]], where: str) -> int:
    words = fields.get(".nnodes", [])
    if len(words) != 1 or not re.fullmatch(r"[1-9][0-9]{0,9}", words[0], re.ASCII):
        raise FormatError(f"{where}: .nnodes is {' '.join(words) or 'missing':.60}, expected a number. {_REMEDY}")
    return int(words[0])


def _roots(fields: dict[str, list[str]], size: int, where: str) -> tuple[int, ...]:
    words = fields.get(".rootids", [])
    fine = [w for w in words if re.fullmatch(r"-?[1-9][0-9]{0,9}", w, re.ASCII) and abs(int(w)) <= size]
    if len(fine) != len(words) or not words:
        raise FormatError(f"{where}: .rootids are not nodes of the file. {_REMEDY}")
    return tuple(map(int, words))


def diagram_of(booleans: Boolean, where: str) -> Diagram:
    """The canonical diagram whose leaf at every input is the one function that holds there, or the last leaf.

    Raises:
        FormatError: Two functions hold for the same input.
    """
    n, classes = len(booleans.names), len(booleans.roots)
    depths = np.concatenate([[n] * 2, booleans.levels])
    then = np.concatenate([[0, 1], booleans.then])
    other = np.concatenate([[0, 1], booleans.other])
    walked: list[tuple[Array, Array]] = []
    rows = np.array([booleans.roots], dtype=np.int64)
    for level in range(n):
        here = depths[np.abs(rows)] == level
        sign = np.sign(rows)
        children = [np.where(here, table[np.abs(rows)] * sign, rows) for table in (other, then)]
        below, place = np.unique(np.concatenate(children), axis=0, return_inverse=True)
        low, high = place.ravel().reshape(2, -1)
        walked.append((low, high))
        rows = below
    if ((rows == 1).sum(axis=1) > 1).any():
        raise FormatError(f"{where}: two classes hold for the same input. {_REMEDY}")
    numbers = np.where((rows == 1).any(axis=1), (rows == 1).argmax(axis=1), classes)
    columns: list[tuple[Array, Array, Array]] = []
    count = classes + 1
    for level in reversed(range(n)):
        low, high = walked[level]
        pairs = np.stack([numbers[low], numbers[high]], axis=1)
        tested = pairs[:, 0] != pairs[:, 1]
        unique, place = np.unique(pairs[tested], axis=0, return_inverse=True)
        numbers = pairs[:, 0].copy()
        numbers[tested] = count + place.ravel()
        columns.append((np.full(len(unique), level), unique[:, 0], unique[:, 1]))
        count += len(unique)
    levels, lows, highs = (_joined([part[i] for part in columns]).astype(np.int32) for i in range(3))
    return Diagram(n, classes + 1, levels, lows, highs, int(numbers[0]))
