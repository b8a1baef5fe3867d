"""Endurance: error rates that grow with the number of writes, and cells that fail for good."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from bnnverify.confidence import clopper_pearson
from bnnverify.devices.tables import read_table
from bnnverify.errors import FormatError, QueryError
from bnnverify.faults import AsymmetricFlip, StuckAt, rate
from bnnverify.results import Probability
from bnnverify.scalars import integers


@dataclass(frozen=True, slots=True)
class Endurance:
    """Measured error rates after numbers of write cycles, joined by straight lines, exact in Fractions.

    Attributes:
        cycles: Write cycles of each point, rising, without unit.
        p01: Probability that a stored -1 reads +1 at each point.
        p10: Probability that a stored +1 reads -1 at each point.

    >>> Endurance((0, 1000), ("0.001", "0.003"), ("0.001", "0.005")).faults(500)
    AsymmetricFlip(p01=Fraction(1, 500), p10=Fraction(3, 1000))
    """

    cycles: tuple[int, ...]
    p01: tuple[Fraction, ...]
    p10: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        _rising(self.cycles)
        for name in ("p01", "p10"):
            object.__setattr__(self, name, tuple(rate(value, name) for value in getattr(self, name)))
        if not len(self.cycles) == len(self.p01) == len(self.p10):
            raise QueryError(
                f"{len(self.cycles)} cycles with {len(self.p01)} and {len(self.p10)} rates, expected equal."
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Endurance:
        """A table from CSV with columns cycles,error_rate (both signs alike) or cycles,p01,p10, read exactly.

        Raises:
            FormatError: A value that is no number of cycles or no probability, or cycles that do not rise.
        """
        cycles: list[int] = []
        rates: list[tuple[Fraction, Fraction]] = []
        for line in read_table(path, ("cycles", "error_rate"), ("cycles", "p01", "p10")):
            now = line.read("cycles", _whole, "a whole number of cycles, at least 0")
            if cycles and now <= cycles[-1]:
                raise FormatError(f"{line.where}: cycles is {now} after {cycles[-1]}, expected rising numbers.")
            cycles.append(now)
            names = ("error_rate", "error_rate") if "error_rate" in line.values else ("p01", "p10")
            p01, p10 = (line.read(name, rate, "a probability such as 0.001") for name in names)
            rates.append((p01, p10))
        return cls(tuple(cycles), tuple(a for a, _ in rates), tuple(b for _, b in rates))

    def faults(self, cycles: int) -> AsymmetricFlip:
        """Fault model after `cycles` writes.

        Raises:
            QueryError: Outside the measured range: nothing is extrapolated.
        """
        if not self.cycles[0] <= cycles <= self.cycles[-1]:
            raise QueryError(
                f"{cycles} cycles, but measured are {self.cycles[0]} to {self.cycles[-1]}. Measure there: endurance is "
                "not extrapolated."
            )
        right = max(1, bisect_left(self.cycles, cycles)) if len(self.cycles) > 1 else 0
        left = max(0, right - 1)
        span = self.cycles[right] - self.cycles[left]
        share = Fraction(cycles - self.cycles[left]) / span if span else Fraction(0)
        return AsymmetricFlip(
            p01=self.p01[left] + share * (self.p01[right] - self.p01[left]),
            p10=self.p10[left] + share * (self.p10[right] - self.p10[left]),
        )


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """After how many write cycles each measured cell got stuck.

    Attributes:
        cycles: Cycles to failure of each cell, without unit, sorted.
    """

    cycles: tuple[int, ...]

    def __post_init__(self) -> None:
        cycles = integers(self.cycles, "lifetimes")
        if not cycles:
            raise QueryError("there are no lifetimes, expected those of at least one cell.")
        if min(cycles) < 0:
            raise QueryError(f"lifetimes are {cycles!r:.80}, expected whole numbers of cycles, at least 0.")
        object.__setattr__(self, "cycles", tuple(sorted(cycles)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lifetimes:
        """Lifetimes from CSV with columns cell,cycles; each cell once, all of them run to failure.

        Raises:
            FormatError: A cell that comes twice, or a value that is no number of cycles.
        """
        found: dict[str, int] = {}
        for line in read_table(path, ("cell", "cycles")):
            cell = line.values["cell"]
            if cell in found:
                raise FormatError(f"{line.where}: cell {cell!r} is given again, expected each cell once.")
            found[cell] = line.read("cycles", _whole, "a whole number of cycles, at least 0")
        return cls(tuple(found.values()))

    def failed(self, cycles: int, *, confidence: float = 0.99) -> Probability:
        """Probability that a cell has failed after `cycles` writes: the measured share with its exact band.

        Raises:
            QueryError: Beyond the last measured failure: nothing is extrapolated.
        """
        if not 0 <= cycles <= self.cycles[-1]:
            raise QueryError(
                f"{cycles} cycles, but measured are 0 to {self.cycles[-1]}; lifetimes are not extrapolated."
            )
        return clopper_pearson(bisect_right(self.cycles, cycles), len(self.cycles), confidence=confidence)

    def faults(self, cycles: int, *, stuck_at_plus: object = "1/2") -> StuckAt:
        """The measured share of failed cells as stuck cells; `stuck_at_plus` is the share of them stuck at +1."""
        self.failed(cycles)
        share = Fraction(bisect_right(self.cycles, cycles), len(self.cycles))
        plus = rate(stuck_at_plus, "stuck_at_plus")
        return StuckAt(p_plus=share * plus, p_minus=share * (1 - plus))


def _whole(text: str) -> int:
    value = int(text) if text.isdecimal() else float(text)
    if value < 0 or value != int(value):
        raise ValueError
    return int(value)


def _rising(cycles: Sequence[int]) -> None:
    if not cycles or any(b <= a for a, b in pairwise(cycles)):
        raise QueryError(f"cycles are {cycles!r:.80}, expected at least one, rising.")
