"""What a VNN-LIB property says: boxes over X with comparisons of Y, as choices that are never multiplied out.

A property is a conjunction: what holds in every case, and choices, of each of which one option holds. k choices of two
options are 2^k cases, so cases are made one after the other, and only while somebody wants them.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

Ends = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True, order=True)
class Comparison:
    """The output `winner` is at least the output `loser`, or above it if strict."""

    winner: int
    loser: int
    strict: bool

    def holds(self, outputs: Sequence[Any]) -> bool:
        """True iff the outputs fulfil it."""
        a, b = outputs[self.winner], outputs[self.loser]
        return bool(a > b if self.strict else a >= b)


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs of a box whose outputs fulfil all comparisons.

    Attributes:
        lower: Least value of each X, exact. Equal boxes of cases that follow each other are the same objects.
        upper: Greatest value of each X, exact.
        comparisons: All must hold.
        line: Where the file says so; None for a single comparison, about which there is nothing to say.
    """

    lower: Ends
    upper: Ends
    comparisons: frozenset[Comparison]
    line: int | None


@dataclass(slots=True)
class Part:
    """A conjunction: bounds of some X, comparisons of Y, and the character of the text where it starts."""

    lower: dict[int, Fraction]
    upper: dict[int, Fraction]
    comparisons: frozenset[Comparison]
    at: int

    @classmethod
    def true(cls, at: int) -> Part:
        """What always holds."""
        return cls({}, {}, frozenset(), at)

    def add(self, other: Part) -> None:
        """Both must hold now."""
        for i, v in other.lower.items():
            self.lower[i] = max(self.lower.get(i, v), v)
        for i, v in other.upper.items():
            self.upper[i] = min(self.upper.get(i, v), v)
        if other.comparisons:
            self.comparisons |= other.comparisons
            self.at = other.at

    def merged(self, other: Part) -> Part:
        """Both; without new bounds the dictionaries stay the same objects."""
        lower, upper = self.lower, self.upper
        if other.lower:
            lower = lower | {i: max(lower.get(i, v), v) for i, v in other.lower.items()}
        if other.upper:
            upper = upper | {i: min(upper.get(i, v), v) for i, v in other.upper.items()}
        at = other.at if other.comparisons else self.at
        return Part(lower, upper, self.comparisons | other.comparisons, at)

    def is_within(self, base: Part) -> bool:
        """False only if no X fulfils both."""
        lows, highs = base.lower, base.upper
        pairs = [(v, min(self.upper.get(i, v), highs.get(i, v))) for i, v in self.lower.items()]
        pairs += [(max(self.lower.get(i, v), lows.get(i, v)), v) for i, v in self.upper.items()]
        return all(low <= high for low, high in pairs)

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Any]) -> bool:
        """True iff these inputs and outputs fulfil it."""
        return (
            all(v <= inputs[i] for i, v in self.lower.items())
            and all(inputs[i] <= v for i, v in self.upper.items())
            and all(comparison.holds(outputs) for comparison in self.comparisons)
        )


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of a property.

    Attributes:
        n: Inputs.
        base: What holds in every case.
        choices: Of each, one option holds; none of them contradicts the base.
        ends: The characters of the text where its lines end.
    """

    n: int
    base: Part
    choices: tuple[tuple[Part, ...], ...]
    ends: Sequence[int] = field(repr=False)

    @classmethod
    def create(cls, n: int, base: Part, choices: Sequence[Sequence[Part]], ends: Sequence[int]) -> Cases:
        """The cases; options that contradict the base are dropped, and intervals of one input that meet are joined."""
        kept = []
        for options in choices:
            joined = _joined([option for option in options if option.is_within(base)])
            if len(joined) == 1:
                base = base.merged(joined[0])
            else:
                kept.append(tuple(joined))
        kept.sort(key=lambda options: not any(part.lower or part.upper for part in options))  # boxes change slowly
        return cls(n, base, tuple(kept), ends)

    @property
    def count(self) -> int:
        """Cases, of which some may contradict themselves."""
        return math.prod(len(options) for options in self.choices) if self._is_possible else 0

    @property
    def boxes(self) -> int:
        """Boxes of these cases, some of which may be equal."""
        return math.prod(len(options) for options in self.choices if any(part.lower or part.upper for part in options))

    @property
    def _is_possible(self) -> bool:
        return all(v <= self.base.upper.get(i, v) for i, v in self.base.lower.items())

    def __iter__(self) -> Iterator[Case]:
        boxes = [options for options in self.choices if any(part.lower or part.upper for part in options)]
        rest = self.choices[len(boxes) :]
        if not self.count:
            return
        for chosen in itertools.product(*boxes):
            case = self.base
            for option in chosen:
                case = case.merged(option)
            lower, upper = (tuple(ends[i] for i in range(self.n)) for ends in (case.lower, case.upper))
            if not all(a <= b for a, b in zip(lower, upper, strict=True)):
                continue
            for also in itertools.product(*rest):
                whole = case
                for option in also:
                    whole = whole.merged(option)
                line = None if len(whole.comparisons) == 1 else bisect_left(self.ends, whole.at) + 1
                yield Case(lower, upper, whole.comparisons, line)

    def unbounded(self) -> tuple[str, int] | None:
        """Which end of which input some case leaves open; None if there is none."""
        for what in ("lower", "upper"):
            ends = set(getattr(self.base, what))
            for options in self.choices:
                ends |= set.intersection(*(set(getattr(part, what)) for part in options)) if options else set()
            if (missing := next((i for i in range(self.n) if i not in ends), None)) is not None:
                return what, missing
        return None

    def hull(self) -> tuple[list[Fraction], list[Fraction]]:
        """Both ends of a box that holds the boxes of all cases; exact for a single choice."""
        lower, upper = dict(self.base.lower), dict(self.base.upper)
        for options in self.choices:
            merged = [self.base.merged(part) for part in options]
            for i in set().union(*(part.lower.keys() | part.upper.keys() for part in options)):
                lows, highs = [p.lower.get(i) for p in merged], [p.upper.get(i) for p in merged]
                if (low := _least(lows)) is not None:
                    lower[i] = max(lower.get(i, low), low)
                if (high := _least([None if v is None else -v for v in highs])) is not None:
                    upper[i] = min(upper.get(i, -high), -high)
        return [lower[i] for i in range(self.n)], [upper[i] for i in range(self.n)]

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Any]) -> bool:
        """True iff these inputs and outputs are a counterexample."""
        return self.base.holds(inputs, outputs) and all(
            any(part.holds(inputs, outputs) for part in options) for options in self.choices
        )


def _least(values: Sequence[Fraction | None]) -> Fraction | None:
    """The least value; None if one is open."""
    found = [v for v in values if v is not None]
    return min(found) if len(found) == len(values) else None


def _joined(options: list[Part]) -> list[Part]:
    """Options that are intervals of one and the same input, joined where they meet; others as they are."""
    inputs = {i for part in options for i in (*part.lower, *part.upper)}
    if len(inputs) != 1 or len(options) < 2 or any(part.comparisons for part in options):
        return options
    (i,) = inputs
    order = sorted(options, key=lambda part: (i in part.lower, part.lower.get(i, 0)))
    found = [order[0]]
    for part in order[1:]:
        last = found[-1]
        high, low = last.upper.get(i), part.lower.get(i)
        if high is not None and low is not None and low > high:
            found.append(part)
            continue
        top = part.upper.get(i)
        upper = {} if high is None or top is None else {i: max(high, top)}
        found[-1] = Part(last.lower, upper, frozenset(), last.at)
    return found
