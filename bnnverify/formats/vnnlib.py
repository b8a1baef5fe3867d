"""VNN-LIB 1.0 properties (``.vnnlib`` or ``.vnnlib.gz``): a box over the inputs X and comparisons of the outputs Y.

A property describes counterexamples. Understood are declarations of real X_i and Y_j and assertions made of ``and``,
``or`` and comparisons: of an X_i with a number, and of two Y_j. Altogether they must amount to cases, each a box and
comparisons that hold together; each case, or several over one box, becomes a `Query`, and the property is
satisfiable iff one of these is not robust. Numbers are read as the decimal fractions that they are.

References:
    Guidotti, Demarchi, Tacchella, Pulina, "The verification of neural networks library (VNN-LIB)", 2019;
    Brix et al., "First three years of the international verification of neural networks competition (VNN-COMP)",
    STTT 2023, for the form of the files.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.onnxgraph import read_bytes
from bnnverify.network import BinaryNetwork, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import RealBox

CASES_LIMIT = 100_000  # cases of one property, once `and` over `or` is multiplied out

_TOKEN = re.compile(r"[()]|\|[^|]*\||[^\s();|]+|;[^\n]*")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_NAME = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})", re.ASCII)
_EXPECTED = "expected a VNN-LIB 1.0 property"
_TURNED = {"<=": ">=", "<": ">"}


@dataclass(frozen=True, slots=True, order=True)
class Comparison:
    """The output `winner` is at least the output `loser`, or above it if strict."""

    winner: int
    loser: int
    strict: bool


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs of a box whose outputs fulfil all comparisons.

    Attributes:
        lower: Least value of each X, exact.
        upper: Greatest value of each X, exact.
        comparisons: All must hold.
        line: Where the file says so.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    comparisons: frozenset[Comparison]
    line: int


@dataclass(frozen=True, slots=True)
class Specification:
    """What a VNN-LIB file says: a counterexample is an input for which one of the cases holds.

    Attributes:
        where: The path, for messages.
        n_inputs: Declared X.
        n_outputs: Declared Y.
        cases: At least one, unless the assertions contradict each other.
    """

    where: str
    n_inputs: int
    n_outputs: int
    cases: tuple[Case, ...]

    def coding(self) -> InputCoding:
        """Integers in the range of pixels, 0 to 255, or in a wider one if a box needs it.

        Raises:
            UnsupportedError: The boxes are so narrow that the inputs are no pixels 0 to 255.
        """
        low = min((math.floor(min(case.lower)) for case in self.cases), default=0)
        high = max((math.ceil(max(case.upper)) for case in self.cases), default=255)
        if self.cases and high - low <= 4 and any(v.denominator > 1 for case in self.cases for v in case.lower):
            raise UnsupportedError(
                f"{self.where}: the inputs lie between {low} and {high}, expected pixels 0 to 255. Say what an integer "
                "step of an input is worth: InputCoding.integers(0, 255, scale=Fraction(1, 255)) "
                "(--input-range 0 255 --input-scale 1/255)."
            )
        return InputCoding.integers(min(low, 0), max(high, 255))

    def queries(self, imported: Imported) -> tuple[Query, ...]:
        """Questions of which one is not robust iff the property is satisfiable; none if no input can fulfil it.

        Where a case compares some outputs only, the network of its question has these classes only.

        Raises:
            UnsupportedError: A case compares outputs in a way that is no question about a class.
            FormatError: The property is about another number of inputs or outputs.
            QueryError: A box lies outside the input range.
        """
        network = imported.network
        for what, declared, expected in (
            ("inputs", self.n_inputs, network.n_inputs),
            ("outputs", self.n_outputs, network.n_classes),
        ):
            if declared != expected:
                raise FormatError(f"{self.where}: declares {declared} {what}, but the network has {expected}.")
        if network.domain.is_binary:
            raise UnsupportedError(f"{self.where}: is about real inputs, but the network was read with -1/+1 inputs.")
        found: list[Query] = []
        for (lower, upper), cases in _by_box(self.cases).items():
            box = _box(lower, upper, imported)
            rest = [case for case in cases if not _is_single(case)]
            for (loser, strict), group in _by_loser(case for case in cases if _is_single(case)).items():
                found.append(_untargeted(network, box, loser, strict, group))
            found += [_targeted(network, box, case, self.where) for case in rest]
        return tuple(found)


def load(path: str | os.PathLike[str]) -> Specification:
    """The property in the file at `path`.

    Raises:
        FormatError: It cannot be read, or is malformed; the message has the line and the column.
        UnsupportedError: It says something that is not understood; likewise.
    """
    where = os.fspath(path)
    data = read_bytes(path, _EXPECTED)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{where}: is no text, {_EXPECTED}.") from None
    return _Reader(where, text).specification()


@dataclass(frozen=True, slots=True)
class _Partial:
    """A conjunction: bounds of some X, comparisons of Y, and where it stands."""

    lower: dict[int, Fraction]
    upper: dict[int, Fraction]
    comparisons: frozenset[Comparison]
    at: int

    def merged(self, other: _Partial) -> _Partial:
        """Both."""
        lower, upper = dict(self.lower), dict(self.upper)
        for i, value in other.lower.items():
            lower[i] = max(lower.get(i, value), value)
        for i, value in other.upper.items():
            upper[i] = min(upper.get(i, value), value)
        at = other.at if other.comparisons else self.at
        return _Partial(lower, upper, self.comparisons | other.comparisons, at)


Term = str | Fraction | list[Any]


@dataclass(slots=True)
class _Reader:
    """Recursive descent over the tokens of one file."""

    where: str
    text: str
    tokens: list[tuple[str, int]] = field(default_factory=list)
    declared: dict[str, set[int]] = field(default_factory=lambda: {"X": set(), "Y": set()})

    def specification(self) -> Specification:
        """The whole file."""
        self.tokens = [(m.group(), m.start()) for m in _TOKEN.finditer(self.text) if m.group()[0] != ";"]
        self._check_characters()
        lower: dict[int, Fraction] = {}
        upper: dict[int, Fraction] = {}
        plain: list[_Partial] = []
        choices: list[list[_Partial]] = []
        for form, at in self._forms():
            head = form[0][0] if form and isinstance(form[0][0], str) else None
            if head in ("declare-const", "declare-fun"):
                self._declare(form, at)
            elif head == "assert" and len(form) == 2:
                options = self._cases(form[1])
                if len(options) == 1:
                    plain.append(options[0])
                else:
                    choices.append(options)
            elif head in ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"):
                continue
            else:
                raise self._unsupported(at, f"the command {head!r:.40}", "declare-const and assert")
        comparisons: set[Comparison] = set()
        for part in plain:
            for i, value in part.lower.items():
                lower[i] = max(lower.get(i, value), value)
            for i, value in part.upper.items():
                upper[i] = min(upper.get(i, value), value)
            comparisons |= part.comparisons
        base = _Partial(lower, upper, frozenset(comparisons), plain[-1].at if plain else 0)
        cases = [base]
        for options in choices:
            if len(cases) * len(options) > CASES_LIMIT:
                raise self._unsupported(
                    options[0].at, "more cases than can be multiplied out", f"{CASES_LIMIT} at most"
                )
            cases = [case.merged(option) for case in cases for option in options]
        return self._finished(cases)

    def _finished(self, cases: list[_Partial]) -> Specification:
        sizes = {}
        for kind in "XY":
            found = self.declared[kind]
            if found != set(range(len(found))) or not found:
                missing = next(i for i in range(len(found) + 1) if i not in found)
                raise FormatError(
                    f"{self.where}: declares no {kind}_{missing}, {_EXPECTED} with all inputs and outputs."
                )
            sizes[kind] = len(found)
        done = []
        boxes: dict[tuple[int, int], tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None] = {}
        for case in cases:
            key = id(case.lower), id(case.upper)
            if key not in boxes:
                boxes[key] = self._bounds(case, sizes["X"])
            box = boxes[key]
            if box is not None:
                done.append(Case(*box, case.comparisons, self._place(case.at)[0]))
        return Specification(self.where, sizes["X"], sizes["Y"], tuple(done))

    def _bounds(self, case: _Partial, n: int) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None:
        """Both ends of all inputs; None if the box is empty."""
        for what, ends in (("lower", case.lower), ("upper", case.upper)):
            if len(ends) < n:
                i = next(i for i in range(n) if i not in ends)
                raise FormatError(f"{self.where}: gives no {what} bound for X_{i}, {_EXPECTED} with a bounded box.")
        lower, upper = tuple(case.lower[i] for i in range(n)), tuple(case.upper[i] for i in range(n))
        return (lower, upper) if all(a <= b for a, b in zip(lower, upper, strict=True)) else None

    def _forms(self) -> Iterator[tuple[list[Any], int]]:
        """Each top-level list as (value, offset) pairs, nested."""
        stack: list[tuple[list[Any], int]] = []
        for token, at in self.tokens:
            if token == "(":
                stack.append(([], at))
            elif token == ")":
                if not stack:
                    raise self._malformed(at, "')' closes nothing")
                done, start = stack.pop()
                if stack:
                    stack[-1][0].append((done, start))
                else:
                    yield done, start
            elif not stack:
                raise self._malformed(at, f"{token!r:.40} stands outside of parentheses")
            else:
                stack[-1][0].append((token, at))
        if stack:
            raise self._malformed(stack[-1][1], "'(' is never closed")

    def _check_characters(self) -> None:
        if (at := self.text.find("|")) >= 0:
            line_start = self.text.rfind("\n", 0, at) + 1
            if ";" not in self.text[line_start:at]:
                raise self._unsupported(at, "a quoted name", "names such as X_0")

    def _declare(self, form: list[Any], at: int) -> None:
        words = [value for value, _ in form]
        types = words[2:] if words[0] == "declare-const" else words[3:]
        match = _NAME.fullmatch(words[1]) if len(words) > 1 and isinstance(words[1], str) else None
        if match is None or types != ["Real"] or (words[0] == "declare-fun" and words[2] != []):
            raise self._unsupported(at, "a declaration", "(declare-const X_0 Real) or (declare-const Y_0 Real)")
        kind, index = match[1], int(match[2])
        if index in self.declared[kind]:
            raise self._malformed(at, f"{match[0]} is declared twice")
        self.declared[kind].add(index)

    def _cases(self, entry: tuple[Any, int]) -> list[_Partial]:
        """A formula as the list of its cases."""
        form, at = entry
        if not isinstance(form, list) or not form or not isinstance(form[0][0], str):
            raise self._malformed(at, "a formula is expected here")
        head = form[0][0]
        if head == "and":
            cases = [_Partial({}, {}, frozenset(), at)]
            for part in form[1:]:
                options = self._cases(part)
                if len(cases) * len(options) > CASES_LIMIT:
                    raise self._unsupported(at, "more cases than can be multiplied out", f"{CASES_LIMIT} at most")
                cases = [case.merged(option) for case in cases for option in options]
            return cases
        if head == "or":
            if len(form) == 1:
                raise self._malformed(at, "'or' of nothing")
            return [case for part in form[1:] for case in self._cases(part)]
        if head in ("<=", ">=", "<", ">"):
            return [self._comparison(head, form, at)]
        raise self._unsupported(at, f"{head!r:.40}", "and, or, <=, >=, < and >")

    def _comparison(self, head: str, form: list[Any], at: int) -> _Partial:
        if len(form) != 3:
            raise self._malformed(at, f"{head!r} has {len(form) - 1} sides, expected 2")
        left, right = self._side(form[1]), self._side(form[2])
        if head in _TURNED:
            head, left, right = _TURNED[head], right, left  # left >= right, or left > right
        kinds = tuple(side[0] if isinstance(side, tuple) else "number" for side in (left, right))
        if kinds == ("Y", "Y") and isinstance(left, tuple) and isinstance(right, tuple):
            if left[1] == right[1]:
                raise self._unsupported(at, "a comparison of an output with itself", "two outputs")
            return _Partial({}, {}, frozenset([Comparison(left[1], right[1], head == ">")]), at)
        if head == ">" and "X" in kinds:
            raise self._unsupported(at, "a strict bound of an input", "<= or >=")
        if kinds == ("X", "number") and isinstance(left, tuple) and isinstance(right, Fraction):
            return _Partial({left[1]: right}, {}, frozenset(), at)
        if kinds == ("number", "X") and isinstance(right, tuple) and isinstance(left, Fraction):
            return _Partial({}, {right[1]: left}, frozenset(), at)
        raise self._unsupported(at, f"a comparison of {kinds[0]} and {kinds[1]}", "an X with a number, or two Y")

    def _side(self, entry: tuple[Any, int]) -> tuple[str, int] | Fraction:
        value, at = entry
        if isinstance(value, list):
            if len(value) == 2 and value[0][0] == "-":
                inner = self._side(value[1])
                if isinstance(inner, Fraction):
                    return -inner
            raise self._unsupported(at, "arithmetic", "a number, an X or a Y")
        if match := _NAME.fullmatch(value):
            kind, index = match[1], int(match[2])
            if index not in self.declared[kind]:
                raise self._malformed(at, f"{value} is not declared")
            return kind, index
        if _NUMBER.fullmatch(value):
            return Fraction(value)
        raise self._malformed(at, f"{value!r:.40} is no number, X or Y")

    def _place(self, at: int) -> tuple[int, int]:
        """Line and column, from 1."""
        return self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)

    def _malformed(self, at: int, what: str) -> FormatError:
        line, column = self._place(at)
        return FormatError(f"{self.where}:{line}:{column}: {what}, {_EXPECTED}.")

    def _unsupported(self, at: int, what: str, expected: str) -> UnsupportedError:
        line, column = self._place(at)
        return UnsupportedError(f"{self.where}:{line}:{column}: {what} is not understood, expected {expected}.")


def _is_single(case: Case) -> bool:
    return len(case.comparisons) == 1


def _by_box(cases: Sequence[Case]) -> dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[Case]]:
    found: dict[Any, list[Case]] = {}
    known: dict[tuple[int, int], Any] = {}  # equal boxes of one file are mostly the same objects
    for case in cases:
        key = known.setdefault((id(case.lower), id(case.upper)), (case.lower, case.upper))
        found.setdefault(key, []).append(case)
    return found


def _by_loser(cases: Iterator[Case]) -> dict[tuple[int, bool], set[int]]:
    """(output that loses, strictness) -> outputs that may win."""
    found: dict[tuple[int, bool], set[int]] = {}
    for case in cases:
        (comparison,) = case.comparisons
        found.setdefault((comparison.loser, comparison.strict), set()).add(comparison.winner)
    return found


def _box(lower: Sequence[Fraction], upper: Sequence[Fraction], imported: Imported) -> RealBox:
    """A box over X as one over the inputs of the network."""
    coding, order = imported.coding, imported.order.tolist()
    ends = []
    for values in (lower, upper):
        moved = values if coding.offset == 0 else [v - coding.offset for v in values]
        scaled = moved if coding.scale == 1 else [v / coding.scale for v in moved]
        ends.append([scaled[i] for i in order])
    if coding.scale < 0:
        ends.reverse()
    return RealBox(tuple(ends[0]), tuple(ends[1]))


def _restricted(network: BinaryNetwork, classes: Sequence[int]) -> BinaryNetwork:
    """The network with some of its classes only."""
    if len(classes) == network.n_classes:
        return network
    rows, output = list(classes), network.output
    weights = output.weights[rows]
    scale, bias = [output.scale[k] for k in rows], [output.bias[k] for k in rows]
    kept = OutputBlock.create(weights, scale=scale, bias=bias, mask=weights != 0)
    return BinaryNetwork(network.domain, network.blocks, kept, network.provenance)


def _untargeted(network: BinaryNetwork, box: RealBox, loser: int, strict: bool, winners: set[int]) -> Query:
    classes = sorted({loser, *winners})
    ties = Ties.ROBUST if strict else Ties.COUNTEREXAMPLE
    return Query(_restricted(network, classes), box, Untargeted(classes.index(loser)), ties)


def _targeted(network: BinaryNetwork, box: RealBox, case: Case, where: str) -> Query:
    winners, strict = {c.winner for c in case.comparisons}, {c.strict for c in case.comparisons}
    if len(winners) != 1 or len(strict) != 1:
        raise UnsupportedError(
            f"{where}:{case.line}: a counterexample must fulfil {len(case.comparisons)} comparisons of outputs "
            "together that are not one output against others, expected such."
        )
    (winner,) = winners
    classes = sorted({winner, *(c.loser for c in case.comparisons)})
    ties = Ties.ROBUST if strict.pop() else Ties.COUNTEREXAMPLE
    return Query(_restricted(network, classes), box, Targeted(classes.index(winner)), ties)
