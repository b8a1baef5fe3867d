"""Single numbers that callers give: what numpy calls a number is taken, and becomes Python's own.

Answers and questions are written as JSON and compared by value, so nothing of numpy stays in them. Where an integer is
meant, 1.0, True and "1" are refused rather than guessed at.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from bnnverify.errors import BnnVerifyError, QueryError


def plain(value: Any) -> Any:
    """A scalar of numpy, or an array without dimensions, as the equal value of Python; anything else as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.floating):
        return float(value)  # of every width; `item` leaves a long double as it is
    return value.item() if isinstance(value, np.generic) else value


def integer(value: Any, what: str, *, least: int | None = None, error: type[BnnVerifyError] = QueryError) -> int:
    """`value` as Python's integer.

    Args:
        value: An integer of Python or numpy.
        what: What error messages call it.
        least: Smallest value that makes sense, if there is one.
        error: What to raise.

    Raises:
        QueryError: Anything else, also 1.0 and True, or a value that is too small; or what `error` says.

    >>> integer(np.int8(3), "radius"), integer(np.array(3), "radius")
    (3, 3)
    """
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise error(f"{what} is {number!r:.80}, expected an integer.")
    if least is not None and number < least:
        raise error(f"{what} is {number}, expected at least {least}.")
    return number


def integers(values: Iterable[Any], what: str, *, error: type[BnnVerifyError] = QueryError) -> tuple[int, ...]:
    """`values`, a sequence or vector of integers, as Python's; QueryError, or what `error` says, for anything else."""
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        entries = list(values)
    except TypeError:
        raise error(f"{what} is {values!r:.80}, expected a list of integers.") from None
    return tuple(integer(value, f"{what}[{i}]", error=error) for i, value in enumerate(entries))


def real(value: Any, what: str) -> float:
    """`value` as Python's float.

    Args:
        value: A finite number of Python or numpy, or a Fraction.
        what: What error messages call it.

    Raises:
        QueryError: Anything else, also True, text, infinity and NaN.

    >>> real(np.float32(0.5), "width"), real(2, "seconds")
    (0.5, 2.0)
    """
    number = plain(value)
    if isinstance(number, (int, float, Fraction)) and not isinstance(number, bool):
        try:
            found = float(number)
        except OverflowError:
            found = math.inf
        if math.isfinite(found):
            return found
    raise QueryError(f"{what} is {number!r:.80}, expected a finite number.")


def flag(value: Any, what: str) -> bool:
    """`value`, True or False of Python or numpy, as Python's; QueryError for anything else, also 1."""
    found = plain(value)
    if not isinstance(found, bool):
        raise QueryError(f"{what} is {found!r:.80}, expected True or False.")
    return found


def seeded(seed: Any) -> tuple[random.Random, int | None]:
    """The caller's generator and None, or one of Python's with this seed and the seed."""
    if isinstance(seed, random.Random):
        return seed, None
    number = integer(seed, "seed")
    return random.Random(number), number
