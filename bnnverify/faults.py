"""Fault models: how stored weights go wrong, as exact rates per cell.

Each unmasked weight is one cell. A model gives each cell, by its *stored* sign and its block, the probability
that it reads as the opposite sign; cells are independent. Faults are permanent: drawn once when a chip is
programmed, one draw is one chip. Rates are Fractions: decimal text is parsed exactly, a Python float through
its shortest repr, so 0.1 means 1/10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from bnnverify.errors import QueryError

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
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, (int, Fraction)):
            number = Fraction(value)
        else:
            text = repr(float(value)) if not isinstance(value, str) else value.strip()
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
    if points < 1:
        raise QueryError(f"the grid has {points} points, expected at least 1.")
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


@dataclass(frozen=True, slots=True)
class BitFlip:
    """Every cell flips independently with probability `p`."""

    p: Fraction

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", rate(self.p))

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block; `block` counts hidden blocks from 0, the output block comes last."""
        return CellRates(self.p, self.p)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "bit-flip", "p": str(self.p)}


@dataclass(frozen=True, slots=True)
class AsymmetricFlip:
    """A stored -1 reads +1 with probability `p01`, a stored +1 reads -1 with probability `p10`."""

    p01: Fraction
    p10: Fraction

    def __post_init__(self) -> None:
        object.__setattr__(self, "p01", rate(self.p01, "p01"))
        object.__setattr__(self, "p10", rate(self.p10, "p10"))

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block."""
        return CellRates(plus=self.p10, minus=self.p01)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "asymmetric-flip", "p01": str(self.p01), "p10": str(self.p10)}


@dataclass(frozen=True, slots=True)
class StuckAt:
    """A cell is stuck at +1 with probability `p_plus`, at -1 with probability `p_minus`, else as programmed."""

    p_plus: Fraction
    p_minus: Fraction

    def __post_init__(self) -> None:
        object.__setattr__(self, "p_plus", rate(self.p_plus, "p_plus"))
        object.__setattr__(self, "p_minus", rate(self.p_minus, "p_minus"))
        if self.p_plus + self.p_minus > 1:
            raise QueryError(f"p_plus + p_minus is {self.p_plus + self.p_minus}, expected at most 1.")

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block: only a cell stuck at the other sign reads wrong."""
        return CellRates(plus=self.p_minus, minus=self.p_plus)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "stuck-at", "p_plus": str(self.p_plus), "p_minus": str(self.p_minus)}


@dataclass(frozen=True, slots=True)
class PerBlock:
    """A fault model of its own for each block: hidden blocks in order, then the output block."""

    models: tuple[BitFlip | AsymmetricFlip | StuckAt, ...]

    def rates(self, block: int) -> CellRates:
        """Rates of the cells of a block."""
        if not 0 <= block < len(self.models):
            raise QueryError(f"the fault model has {len(self.models)} blocks, but block {block} was asked for.")
        return self.models[block].rates(block)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "per-block", "models": [m.to_json() for m in self.models]}


FaultModel = BitFlip | AsymmetricFlip | StuckAt | PerBlock


def after_write_verify(p: Any, retries: int) -> Fraction:
    """Rate left after up to `retries` rewrites with perfect, independent verification: ``p^(retries+1)``."""
    if retries < 0:
        raise QueryError(f"retries is {retries}, expected 0 or more.")
    return rate(p) ** (retries + 1)


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
