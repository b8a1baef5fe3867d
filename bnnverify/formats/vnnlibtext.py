"""The text of a VNN-LIB property as cases: boxes over X with comparisons of Y."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any

from bnnverify.errors import FormatError, UnsupportedError

CASES_LIMIT = 100_000  # cases of one property, once `and` over `or` is multiplied out
EXPECTED = "expected a VNN-LIB 1.0 property"

_TOKEN = re.compile(r";[^\n]*|[()]|\|[^|]*\|?|[^\s();|]+")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_NAME = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})", re.ASCII)
_TURNED = {"<=": ">=", "<": ">"}

Ends = tuple[Fraction, ...]
Side = Fraction | tuple[str, int]  # a number, or a variable


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
        lower: Least value of each X, exact. Equal boxes of one file are the same objects.
        upper: Greatest value of each X, exact.
        comparisons: All must hold.
        line: Where the file says so; None for a case of a single comparison, about which there is nothing to say.
    """

    lower: Ends
    upper: Ends
    comparisons: frozenset[Comparison]
    line: int | None


@dataclass(frozen=True, slots=True)
class _Partial:
    """A conjunction: bounds of some X, comparisons of Y, and the token where it starts."""

    lower: dict[int, Fraction]
    upper: dict[int, Fraction]
    comparisons: frozenset[Comparison]
    at: int

    def merged(self, other: _Partial) -> _Partial:
        """Both; without new bounds the dictionaries stay the same objects."""
        lower, upper = self.lower, self.upper
        if other.lower:
            lower = lower | {i: max(lower.get(i, v), v) for i, v in other.lower.items()}
        if other.upper:
            upper = upper | {i: min(upper.get(i, v), v) for i, v in other.upper.items()}
        at = other.at if other.comparisons else self.at
        return _Partial(lower, upper, self.comparisons | other.comparisons, at)


@dataclass(slots=True)
class VnnlibText:
    """Recursive descent over the tokens of one file. A form is a list of (token or form, number of its first token)."""

    where: str
    text: str
    tokens: list[str] = field(default_factory=list)
    sides: dict[str, Side] = field(default_factory=dict)  # declared variables, and numbers met so far
    declared: dict[str, set[int]] = field(default_factory=lambda: {"X": set(), "Y": set()})

    def cases(self) -> tuple[int, int, list[Case]]:
        """Inputs, outputs, and the cases.

        Raises:
            FormatError: The text is malformed; the message has the line and the column.
            UnsupportedError: It says something that is not understood; likewise.
        """
        self.tokens = _TOKEN.findall(self.text)
        lower: dict[int, Fraction] = {}
        upper: dict[int, Fraction] = {}
        comparisons: set[Comparison] = set()
        last, choices = 0, []
        for form, at in self._forms():
            head = form[0][0] if form else None
            if head == "assert" and len(form) == 2:
                options = self._formula(*form[1])
                if len(options) > 1:
                    choices.append(options)
                    continue
                (part,) = options
                for i, value in part.lower.items():
                    lower[i] = max(lower[i], value) if i in lower else value
                for i, value in part.upper.items():
                    upper[i] = min(upper[i], value) if i in upper else value
                if part.comparisons:
                    comparisons |= part.comparisons
                    last = part.at
            elif head in ("declare-const", "declare-fun"):
                self._declare(form, at)
            elif head not in ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"):
                raise self._unsupported(at, f"the command {head!r:.40}", "declare-const and assert")
        cases = [_Partial(lower, upper, frozenset(comparisons), last)]
        for options in choices:
            cases = self._product(cases, options)
        return self._finished(cases)

    def _finished(self, cases: list[_Partial]) -> tuple[int, int, list[Case]]:
        sizes = {}
        for kind in "XY":
            found = self.declared[kind]
            if found != set(range(len(found))) or not found:
                missing = next(i for i in range(len(found) + 1) if i not in found)
                raise FormatError(
                    f"{self.where}: declares no {kind}_{missing}, {EXPECTED} with all inputs and outputs."
                )
            sizes[kind] = len(found)
        boxes: dict[tuple[int, int], tuple[Ends, Ends] | None] = {}
        known: dict[tuple[Ends, Ends] | None, tuple[Ends, Ends] | None] = {}
        done = []
        for case in cases:
            key = id(case.lower), id(case.upper)
            if key not in boxes:
                box = self._bounds(case, sizes["X"])
                boxes[key] = known.setdefault(box, box)
            found_box = boxes[key]
            if found_box is not None:
                line = None if len(case.comparisons) == 1 else self._place(case.at)[0]
                done.append(Case(*found_box, case.comparisons, line))
        return sizes["X"], sizes["Y"], done

    def _bounds(self, case: _Partial, n: int) -> tuple[Ends, Ends] | None:
        """Both ends of all inputs; None if the box is empty."""
        for what, ends in (("lower", case.lower), ("upper", case.upper)):
            if len(ends) < n:
                i = next(i for i in range(n) if i not in ends)
                raise FormatError(f"{self.where}: gives no {what} bound for X_{i}, {EXPECTED} with a bounded box.")
        lower, upper = tuple(case.lower[i] for i in range(n)), tuple(case.upper[i] for i in range(n))
        return (lower, upper) if all(a <= b for a, b in zip(lower, upper, strict=True)) else None

    def _product(self, cases: list[_Partial], options: list[_Partial]) -> list[_Partial]:
        if len(cases) * len(options) > CASES_LIMIT:
            raise self._unsupported(options[0].at, "a product of so many cases", f"{CASES_LIMIT} cases at most")
        return [case.merged(option) for case in cases for option in options]

    def _forms(self) -> Iterator[tuple[list[Any], int]]:
        """Each top-level list."""
        stack: list[tuple[list[Any], int]] = []
        for at, token in enumerate(self.tokens):
            if token == "(":
                stack.append(([], at))
            elif token == ")":
                if not stack:
                    raise self._malformed(at, "')' closes nothing")
                done = stack.pop()
                if stack:
                    stack[-1][0].append(done)
                else:
                    yield done
            elif token[0] == "|":
                raise self._unsupported(at, "a quoted name", "names such as X_0")
            elif token[0] != ";":
                if not stack:
                    raise self._malformed(at, f"{token!r:.40} stands outside of parentheses")
                stack[-1][0].append((token, at))
        if stack:
            raise self._malformed(stack[-1][1], "'(' is never closed")

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
        self.sides[match[0]] = kind, index

    def _formula(self, form: Any, at: int) -> list[_Partial]:
        """A formula as the list of its cases."""
        head = form[0][0] if isinstance(form, list) and form else None
        if not isinstance(head, str):
            raise self._malformed(at, "a formula is expected here")
        if head in ("<=", ">=", "<", ">"):
            return [self._comparison(head, form, at)]
        if head == "and":
            cases = [_Partial({}, {}, frozenset(), at)]
            for part in form[1:]:
                cases = self._product(cases, self._formula(*part))
            return cases
        if head == "or":
            if len(form) == 1:
                raise self._malformed(at, "'or' of nothing")
            return [case for part in form[1:] for case in self._formula(*part)]
        raise self._unsupported(at, f"{head!r:.40}", "and, or, <=, >=, < and >")

    def _comparison(self, head: str, form: list[Any], at: int) -> _Partial:
        if len(form) != 3:
            raise self._malformed(at, f"{head!r} has {len(form) - 1} sides, expected 2")
        left, right = self._side(*form[1]), self._side(*form[2])
        if head in _TURNED:
            head, left, right = _TURNED[head], right, left  # left >= right, or left > right
        strict = head == ">"
        if isinstance(left, tuple) and isinstance(right, tuple) and left[0] == right[0] == "Y":
            if left == right:
                raise self._unsupported(at, "a comparison of an output with itself", "two outputs")
            return _Partial({}, {}, frozenset([Comparison(left[1], right[1], strict)]), at)
        kinds = tuple(side[0] if isinstance(side, tuple) else "number" for side in (left, right))
        if strict and "X" in kinds:
            raise self._unsupported(at, "a strict bound of an input", "<= or >=")
        if isinstance(left, tuple) and left[0] == "X" and isinstance(right, Fraction):
            return _Partial({left[1]: right}, {}, frozenset(), at)
        if isinstance(right, tuple) and right[0] == "X" and isinstance(left, Fraction):
            return _Partial({}, {right[1]: left}, frozenset(), at)
        raise self._unsupported(at, f"a comparison of {kinds[0]} and {kinds[1]}", "an X with a number, or two Y")

    def _side(self, value: Any, at: int) -> Side:
        if isinstance(value, list):
            if len(value) == 2 and value[0][0] == "-":
                inner = self._side(*value[1])
                if isinstance(inner, Fraction):
                    return -inner
            raise self._unsupported(at, "arithmetic", "a number, an X or a Y")
        known = self.sides.get(value)
        if known is None:
            if _NAME.fullmatch(value):
                raise self._malformed(at, f"{value} is not declared")
            if not _NUMBER.fullmatch(value):
                raise self._malformed(at, f"{value!r:.40} is no number, X or Y")
            known = self.sides[value] = Fraction(value)
        return known

    def _place(self, at: int) -> tuple[int, int]:
        """Line and column of a token, from 1."""
        start = next(islice(_TOKEN.finditer(self.text), at, None)).start()
        return self.text.count("\n", 0, start) + 1, start - self.text.rfind("\n", 0, start)

    def _malformed(self, at: int, what: str) -> FormatError:
        line, column = self._place(at)
        return FormatError(f"{self.where}:{line}:{column}: {what}, {EXPECTED}.")

    def _unsupported(self, at: int, what: str, expected: str) -> UnsupportedError:
        line, column = self._place(at)
        return UnsupportedError(f"{self.where}:{line}:{column}: {what} is not understood, expected {expected}.")
