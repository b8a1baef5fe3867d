"""Rates: exact probabilities that a cell reads wrong, of one cell, of a kind of cells, of every cell of a block.

Decimal text is parsed exactly, a Python float through its shortest repr, so 0.1 means 1/10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.errors import QueryError
from bnnverify.scalars import integer, plain

_MOST_EXPONENT = 400  # rates below 1e-400 are no rates of this world


def rate(value: Any, what: str = "p") -> Fraction:
    """`value` as an exact probability.

    Args:
        value: A Fraction, an int, a float (its shortest repr counts) or text like ``1e-3`` or ``1/1000``.
        what: What error messages call it.

    Raises:
        QueryError: Not a number, or not within [0, 1].

    >>> rate(0.1), rate("1e-3"), rate("1/3")
    (Fraction(1, 10), Fraction(1, 1000), Fraction(1, 3))
    """
    try:
        given = plain(value)
        if isinstance(given, bool):
            raise ValueError
        if isinstance(given, (int, Fraction)):
            number = Fraction(given)
        else:
            text = repr(float(given)) if not isinstance(given, str) else given.strip()
            decimal = None if "/" in text else Decimal(text)
            if decimal is not None and abs(decimal.adjusted()) > _MOST_EXPONENT:
                raise ValueError  # also keeps 1e-999999999 from becoming a billion digits
            number = Fraction(text) if decimal is None else Fraction(decimal)
    except (ValueError, TypeError, InvalidOperation, OverflowError, ZeroDivisionError):
        raise QueryError(f"{what} is {value!r}, expected a probability such as 0.001, 1e-3 or 1/1000.") from None
    if not 0 <= number <= 1:
        raise QueryError(f"{what} is {value}, expected a probability within [0, 1].")
    return number


def log_grid(start: Any, stop: Any, points: int) -> tuple[Fraction, ...]:
    """Rates at equal ratios from `start` to `stop`, each rounded to 3 significant digits before use.

    The end points are kept exactly as given.

    >>> [str(p) for p in log_grid("1e-3", "1e-1", 3)]
    ['1/1000', '1/100', '1/10']
    """
    first, last = rate(start, "start of the grid"), rate(stop, "end of the grid")
    points = integer(points, "the number of points of the grid", least=1)
    if first == 0 or last == 0:
        raise QueryError("a logarithmic grid cannot start or end at 0; expected rates above 0.")
    if points == 1:
        return (first,)
    a, b = math.log(first), math.log(last)
    inner = [Fraction(f"{math.exp(a + (b - a) * i / (points - 1)):.2e}") for i in range(1, points - 1)]
    return (first, *inner, last)


@dataclass(frozen=True, slots=True)
class CellRates:
    """Probability that a cell reads wrong, by the sign it should hold.

    Attributes:
        plus: For a stored +1, the probability of reading -1 (p10).
        minus: For a stored -1, the probability of reading +1 (p01).
    """

    plus: Fraction
    minus: Fraction

    @property
    def is_symmetric(self) -> bool:
        """True if both signs fail equally often."""
        return self.plus == self.minus


def after_write_verify(p: Any, retries: int) -> Fraction:
    """Rate left after up to `retries` rewrites with perfect, independent verification: ``p^(retries+1)``."""
    return rate(p) ** (integer(retries, "retries", least=0) + 1)


def compose(rates: Iterable[Any]) -> Fraction:
    """Rate of independent symmetric errors one after the other: two flips cancel, ``p + r - 2pr``.

    >>> compose(["0.1", "0.1"])
    Fraction(9, 50)
    """
    total = Fraction(0)
    for value in rates:
        p = rate(value)
        total = total + p - 2 * total * p
    return total


def one_channel(causes: Iterable[CellRates]) -> CellRates:
    """Rates of independent causes one after the other, each a channel on the sign that those before it left."""
    p01, p10 = Fraction(0), Fraction(0)
    for cause in causes:
        p01, p10 = (
            p01 * (1 - cause.plus) + (1 - p01) * cause.minus,
            p10 * (1 - cause.minus) + (1 - p10) * cause.plus,
        )
    return CellRates(plus=p10, minus=p01)


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """Rates of every cell of one block.

    Attributes:
        rates: Rates that occur.
        index: Shape `(rows, columns)`: which of them each cell has. A row is a neuron, a filter or a class; the columns
            of a filter are its cells in channel-major order. Places where the network has no cell do not matter.
    """

    rates: tuple[CellRates, ...]
    index: NDArray[np.intp]

    def __post_init__(self) -> None:
        index = np.asarray(self.index)
        whole = index.ndim == 2 and index.size > 0 and np.issubdtype(index.dtype, np.integer)
        if not whole or index.min() < 0 or index.max() >= len(self.rates):
            raise QueryError("a cell table needs a matrix of indices into its rates. Use CellTable.create.")
        copy = index.astype(np.intp)
        copy.flags.writeable = False
        object.__setattr__(self, "index", copy)
        object.__setattr__(self, "rates", tuple(self.rates))

    @classmethod
    def create(cls, p01: ArrayLike, p10: ArrayLike | None = None) -> CellTable:
        """A table from the rate of every cell.

        Args:
            p01: Probability that a cell reads +1 where it stores -1; a matrix of what `rate` takes.
            p10: Probability that it reads -1 where it stores +1. Default: `p01`, for symmetric flips, or where the
                sign that a cell stores is known.

        >>> CellTable.create([[0, "1e-3", 0.5]]).rates[1]
        CellRates(plus=Fraction(1, 1000), minus=Fraction(1, 1000))
        """
        low = _rate_matrix(p01, "p01")
        high = low if p10 is None else _rate_matrix(p10, "p10")
        if low[1].shape != high[1].shape:
            raise QueryError(f"p01 has shape {low[1].shape} and p10 {high[1].shape}, expected equal shapes.")
        pairs, index = np.unique(low[1] * len(high[0]) + high[1], return_inverse=True)
        both = (divmod(int(pair), len(high[0])) for pair in pairs)
        rates = tuple(CellRates(plus=high[0][b], minus=low[0][a]) for a, b in both)
        return cls(rates, index.reshape(low[1].shape))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CellTable):
            return NotImplemented
        return self.rates == other.rates and np.array_equal(self.index, other.index)

    def __hash__(self) -> int:
        return hash((self.rates, self.index.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return CellTable, (self.rates, self.index)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the index as runs ``[which, how many]``, row after row."""
        runs = [[which, len(list(run))] for which, run in groupby(self.index.ravel().tolist())]
        rates = [{"p01": str(r.minus), "p10": str(r.plus)} for r in self.rates]
        return {"kind": "cells", "rates": rates, "shape": list(self.index.shape), "runs": runs}


def _rate_matrix(values: ArrayLike, what: str) -> tuple[list[Fraction], NDArray[np.intp]]:
    """The distinct rates of a matrix, and which of them each entry is."""
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        array = np.asarray(values, dtype=object)
    if array.ndim != 2 or array.size == 0:
        raise QueryError(f"{what} has shape {array.shape}, expected a matrix: a row for each neuron, filter or class.")
    if array.dtype != object:
        distinct, index = np.unique(array, return_inverse=True)
        return [rate(value, what) for value in distinct], index.reshape(array.shape)
    known: dict[Fraction, int] = {}
    exact = [known.setdefault(rate(value, what), len(known)) for value in array.ravel().tolist()]
    return list(known), np.array(exact, dtype=np.intp).reshape(array.shape)
