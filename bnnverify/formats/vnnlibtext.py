"""The text of a VNN-LIB property, read form by form without recursion: what it declares, and its cases."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats.vnnlibcases import Cases, Comparison, Part

OPTIONS_LIMIT = 100_000  # options of one `or`, once `and` over `or` inside it is multiplied out
EXPECTED = "a VNN-LIB 1.0 property"

_TOKEN = re.compile(r";[^\n]*|[()]|\|[^|]*\|?|[^\s();|]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_SMALL_NUMBER = re.compile(r"[+-]?[0-9]{0,400}(\.[0-9]{0,400})?([eE][+-]?0*[0-9]{1,3})?", re.ASCII)
_NAME = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})", re.ASCII)
_TURNED = {"<=": ">=", "<": ">"}
_COMPARISONS = ("<=", ">=", "<", ">")
_IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")

Side = Fraction | tuple[str, int]  # a number, or a variable


@dataclass(slots=True)
class _Formula:
    """What holds, and choices, of each of which one option holds."""

    base: Part
    choices: list[list[Part]]

    @property
    def size(self) -> int:
        """How much there is to copy."""
        return len(self.base.lower) + len(self.base.upper) + len(self.base.comparisons) + len(self.choices)


@dataclass(slots=True)
class VnnlibText:
    """A reader of one file. A form is a list of pairs: a token, form or formula, and the character where it starts."""

    where: str
    text: str
    sides: dict[str, Side] = field(default_factory=dict)  # declared variables, and numbers met so far
    declared: dict[str, set[int]] = field(default_factory=lambda: {"X": set(), "Y": set()})
    all: _Formula = field(default_factory=lambda: _Formula(Part.true(0), []))

    def cases(self) -> tuple[int, int, Cases]:
        """Inputs, outputs, and the cases.

        Raises:
            FormatError: The text is malformed; the message has the line and the column.
            UnsupportedError: It says something that is not understood; likewise.
        """
        stack: list[tuple[list[Any], int]] = []
        for match in _TOKEN.finditer(self.text):
            token, at = match[0], match.start()
            if token == "(":
                stack.append(([], at))
            elif token == ")":
                if not stack:
                    raise self._malformed(at, "')' closes nothing")
                form, start = stack.pop()
                if stack:
                    stack[-1][0].append((self._value(form, start, stack), start))
                else:
                    self._command(form, start)
            elif token[0] == "|":
                raise self._unsupported(at, "a quoted name", "names such as X_0")
            elif token[0] != ";":
                if not stack:
                    raise self._malformed(at, f"{token!r:.40} stands outside of parentheses")
                stack[-1][0].append((token, at))
        if stack:
            raise self._malformed(stack[-1][1], "'(' is never closed")
        return self._finished()

    def _finished(self) -> tuple[int, int, Cases]:
        sizes = {}
        for kind in "XY":
            found = self.declared[kind]
            if found != set(range(len(found))) or not found:
                missing = next(i for i in range(len(found) + 1) if i not in found)
                raise FormatError(
                    f"{self.where}: declares no {kind}_{missing}, expected {EXPECTED} with all inputs and outputs. "
                    f"Declare {kind}_0, {kind}_1 and so on, without gaps."
                )
            sizes[kind] = len(found)
        ends = [match.start() for match in re.finditer("\n", self.text)]
        cases = Cases.create(sizes["X"], self.all.base, self.all.choices, ends)
        if cases.count and (open_end := cases.unbounded()) is not None:
            what, i = open_end
            raise FormatError(f"{self.where}: gives no {what} bound for X_{i}, expected {EXPECTED} with a bounded box.")
        return sizes["X"], sizes["Y"], cases

    def _command(self, form: list[Any], at: int) -> None:
        """A form at the top."""
        head = form[0][0] if form else None
        if head == "assert":
            if len(form) != 2:
                raise self._malformed(at, f"'assert' has {len(form) - 1} formulas, expected 1")
            self.all = self._and([(self.all, at), form[1]], at)
        elif head in ("declare-const", "declare-fun"):
            self._declare(form, at)
        elif head not in _IGNORED:
            name = repr(head)[:40] if isinstance(head, str) else "that is no name"
            raise self._unsupported(at, f"the command {name}", "declare-const and assert")

    def _value(self, form: list[Any], at: int, outer: list[tuple[list[Any], int]]) -> Any:
        """A form inside others: a formula or a number where something is asserted, else the form itself."""
        first = outer[0][0]
        if not first or first[0][0] != "assert":
            return form if len(outer) == 1 else None  # nobody looks deeper
        head = form[0][0] if form else None
        if not isinstance(head, str):
            raise self._malformed(at, "a formula is expected here")
        if head in _COMPARISONS:
            return _Formula(self._comparison(head, form, at), [])
        if head == "and":
            return self._and(form[1:], at)
        if head == "or":
            return self._or(form[1:], at)
        if head == "-" and len(form) == 2:
            inner = self._side(*form[1])
            if isinstance(inner, Fraction):
                return -inner
        if head in ("+", "-", "*", "/"):
            raise self._unsupported(at, "arithmetic", "a number, an X or a Y")
        raise self._unsupported(at, f"{head!r:.40}", "and, or, <=, >=, < and >")

    def _formulas(self, parts: list[Any]) -> list[_Formula]:
        for value, at in parts:
            if not isinstance(value, _Formula):
                raise self._malformed(at, "a formula is expected here")
        return [value for value, _ in parts]

    def _and(self, parts: list[Any], at: int) -> _Formula:
        """All hold. The largest takes in the others, so that nested ones cost no more than flat ones."""
        formulas = self._formulas(parts)
        if not formulas:
            return _Formula(Part.true(at), [])
        whole = max(formulas, key=lambda formula: formula.size)
        for formula in formulas:
            if formula is not whole:
                whole.base.add(formula.base)
                whole.choices += formula.choices
        return whole

    def _or(self, parts: list[Any], at: int) -> _Formula:
        """One holds: a choice between the options of all parts, multiplied out."""
        if not parts:
            raise self._malformed(at, "'or' of nothing")
        options: list[list[Part]] = []
        for formula in self._formulas(parts):
            count, known = 1, [formula.base]
            for choice in formula.choices:
                count *= len(choice)
                if count > OPTIONS_LIMIT:
                    raise self._unsupported(at, "an 'or' of so many cases", f"{OPTIONS_LIMIT} at most")
                is_true = known == [formula.base] and not formula.size - len(formula.choices)
                known = choice if is_true else [a.merged(b) for a in known for b in choice]
            options.append(known)
        whole = max(options, key=len)
        for others in options:
            if others is not whole:
                whole += others
        if len(whole) > OPTIONS_LIMIT:
            raise self._unsupported(at, "an 'or' of so many cases", f"{OPTIONS_LIMIT} at most")
        return _Formula(whole[0], []) if len(whole) == 1 else _Formula(Part.true(at), [whole])

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

    def _comparison(self, head: str, form: list[Any], at: int) -> Part:
        if len(form) != 3:
            raise self._malformed(at, f"{head!r} has {len(form) - 1} sides, expected 2")
        left, right = self._side(*form[1]), self._side(*form[2])
        if head in _TURNED:
            head, left, right = _TURNED[head], right, left  # left >= right, or left > right
        strict = head == ">"
        if isinstance(left, tuple) and isinstance(right, tuple) and left[0] == right[0] == "Y":
            if left == right:
                raise self._unsupported(at, "a comparison of an output with itself", "two outputs")
            return Part({}, {}, frozenset([Comparison(left[1], right[1], strict)]), at)
        kinds = tuple(side[0] if isinstance(side, tuple) else "number" for side in (left, right))
        if strict and "X" in kinds:
            raise self._unsupported(at, "a strict bound of an input", "<= or >=")
        if isinstance(left, tuple) and left[0] == "X" and isinstance(right, Fraction):
            return Part({left[1]: right}, {}, frozenset(), at)
        if isinstance(right, tuple) and right[0] == "X" and isinstance(left, Fraction):
            return Part({}, {right[1]: left}, frozenset(), at)
        raise self._unsupported(at, f"a comparison of {kinds[0]} and {kinds[1]}", "an X with a number, or two Y")

    def _side(self, value: Any, at: int) -> Side:
        """A number or a variable."""
        if isinstance(value, Fraction):
            return value
        if not isinstance(value, str):
            raise self._malformed(at, "a number, an X or a Y is expected here")
        known = self.sides.get(value)
        if known is None:
            if _NAME.fullmatch(value):
                raise self._malformed(at, f"{value} is not declared (before its use)")
            if not _NUMBER.fullmatch(value):
                raise self._malformed(at, f"{value!r:.40} is no number, X or Y")
            if not _SMALL_NUMBER.fullmatch(value):
                raise self._unsupported(at, f"the number {value[:20]}", "up to 400 digits and an exponent up to 999")
            known = self.sides[value] = Fraction(value)
        return known

    def _place(self, at: int) -> str:
        """Path, line and column of a character, from 1."""
        newline = chr(10)
        return f"{self.where}:{self.text.count(newline, 0, at) + 1}:{at - self.text.rfind(newline, 0, at)}"

    def _malformed(self, at: int, what: str) -> FormatError:
        return FormatError(f"{self._place(at)}: {what}, expected {EXPECTED}.")

    def _unsupported(self, at: int, what: str, expected: str) -> UnsupportedError:
        return UnsupportedError(f"{self._place(at)}: {what} is not understood, expected {expected}.")
