"""Maps over an array of cells: which are stuck, or how often each fails; sampled with a seed, or loaded from CSV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.devices.tables import Line, read_table
from bnnverify.errors import FormatError, QueryError
from bnnverify.faults import BitFlip, CellTable, StuckAt, rate
from bnnverify.scalars import integers

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class StuckMap:
    """Which cells of an array are stuck.

    Attributes:
        cells: int8 of any shape: -1 or +1 where stuck at that sign, 0 where the cell works.

    >>> StuckMap(np.array([[0, -1], [1, 0]])).apply([[1, 1], [1, -1]]).tolist()
    [[1, -1], [1, -1]]
    """

    cells: NDArray[np.int8]

    def __post_init__(self) -> None:
        cells = np.asarray(self.cells)
        if not np.isin(cells, (-1, 0, 1)).all():
            raise QueryError("a stuck-at map has an entry that is not -1, 0 or +1.")
        copy = cells.astype(np.int8)
        copy.flags.writeable = False
        object.__setattr__(self, "cells", copy)

    @classmethod
    def sample(cls, shape: tuple[int, ...], model: StuckAt, *, generator: np.random.Generator) -> StuckMap:
        """A map drawn cell by cell from the rates of `model`; one uniform number a cell, so seeds repeat it."""
        uniform = generator.random(shape)
        plus, minus = float(model.p_plus), float(model.p_minus)
        return cls(np.where(uniform < plus, 1, np.where(uniform >= 1 - minus, -1, 0)))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, shape: tuple[int, int]) -> StuckMap:
        """A map from CSV with columns row,col,value: value -1 or +1 where stuck, 0 or no line where the cell works.

        Args:
            path: The file; rows and columns count from 0.
            shape: Rows and columns of the array.

        Raises:
            FormatError: A cell outside the array, given twice, or another value.
        """
        cells = np.zeros(_rows_and_columns(shape), dtype=np.int8)
        for row, col, value in _entries(path, shape, _stuck, "-1, 0 or +1"):
            cells[row, col] = value
        return cls(cells)

    def apply(self, weights: ArrayLike) -> NDArray[np.int8]:
        """What the array reads when `weights` (-1/+1, of its shape) are written: stuck cells keep their sign."""
        array = np.asarray(weights)
        if array.shape != self.cells.shape:
            raise QueryError(f"weights have shape {array.shape}, expected that of the map, {self.cells.shape}.")
        return np.where(self.cells == 0, array, self.cells).astype(np.int8)

    @property
    def table(self) -> CellTable:
        """Rates of cells that are known to be stuck, for one block of `faults.PerCell`: 0 or 1. Matrices only."""
        return CellTable.create((self.cells > 0).astype(int), (self.cells < 0).astype(int))

    @property
    def model(self) -> StuckAt:
        """Rates equal to the exact shares of stuck cells: the map with its places forgotten."""
        size = max(1, self.cells.size)
        return StuckAt(
            p_plus=Fraction(int((self.cells > 0).sum()), size), p_minus=Fraction(int((self.cells < 0).sum()), size)
        )


@dataclass(frozen=True, slots=True)
class RateMap:
    """How often each cell of an array reads wrong.

    Attributes:
        rates: Probability of each cell, exact, rows of equal length.
    """

    rates: tuple[tuple[Fraction, ...], ...]

    def __post_init__(self) -> None:
        rows = tuple(tuple(rate(value) for value in row) for row in self.rates)
        if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
            raise QueryError("a rate map has no cells or rows of unequal length, expected a full table.")
        object.__setattr__(self, "rates", rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, shape: tuple[int, int], default: Any = 0) -> RateMap:
        """A map from CSV with columns row,col,value: value a probability, read exactly.

        Args:
            path: The file; rows and columns count from 0.
            shape: Rows and columns of the array.
            default: Rate of the cells without a line.

        Raises:
            FormatError: A cell outside the array, given twice, or a value that is no probability.
        """
        rows, columns = _rows_and_columns(shape)
        table = [[rate(default, "default")] * columns for _ in range(rows)]
        for row, col, value in _entries(path, shape, rate, "a probability such as 0.001"):
            table[row][col] = value
        return cls(tuple(map(tuple, table)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rates), len(self.rates[0])

    def sample(self, *, generator: np.random.Generator) -> NDArray[np.bool_]:
        """Which cells read wrong on one chip, one draw for each cell."""
        return generator.random(self.shape) < np.array([[float(p) for p in row] for row in self.rates])

    @property
    def table(self) -> CellTable:
        """The rates as one block of `faults.PerCell`: flips of either sign."""
        return CellTable.create(np.array(self.rates, dtype=object))

    @property
    def mean_model(self) -> BitFlip:
        """Every cell at the exact mean rate: the map with its places forgotten.

        The number of errors has the same mean; where they fall, and so P(error) of a network, may differ.
        """
        rows, columns = self.shape
        return BitFlip(sum((sum(row, Fraction(0)) for row in self.rates), Fraction(0)) / (rows * columns))


def _rows_and_columns(shape: Any) -> tuple[int, int]:
    sizes = integers(shape, "shape")
    if len(sizes) != 2 or min(sizes) < 1:
        raise QueryError(f"shape is {shape!r:.60}, expected the rows and columns of the array such as (64, 32).")
    return sizes[0], sizes[1]


def _stuck(text: str) -> int:
    value = int(text)
    if value not in (-1, 0, 1):
        raise ValueError
    return value


def _entries(
    path: str | os.PathLike[str], shape: tuple[int, int], convert: Callable[[str], T], expected: str
) -> Iterator[tuple[int, int, T]]:
    seen: dict[tuple[int, int], Line] = {}
    for line in read_table(path, ("row", "col", "value")):
        place = line.read("row", int, "a number from 0"), line.read("col", int, "a number from 0")
        if not (0 <= place[0] < shape[0] and 0 <= place[1] < shape[1]):
            raise FormatError(f"{line.where}: cell {place} lies outside the array of {shape[0]} x {shape[1]}.")
        if place in seen:
            raise FormatError(f"{line.where}: cell {place} is given again, first at {seen[place].where}.")
        seen[place] = line
        yield *place, line.read("value", convert, expected)
