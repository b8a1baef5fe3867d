"""Numbers as text, always rounded outward, and the sentences that depend on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from bnnverify.results import Kind, Probability


def below(value: Fraction, digits: int) -> str:
    """Decimal text, rounded down.

    >>> below(Fraction(2, 3), 2), below(Fraction(-2, 3), 2)
    ('0.66', '-0.67')
    """
    return _text(math.floor(value * 10**digits), digits)


def above(value: Fraction, digits: int) -> str:
    """Decimal text, rounded up.

    >>> above(Fraction(2, 3), 2)
    '0.67'
    """
    return _text(math.ceil(value * 10**digits), digits)


def _text(units: int, digits: int) -> str:
    sign, whole = "-" if units < 0 else "", abs(units)
    return f"{sign}{whole // 10**digits}.{whole % 10**digits:0{digits}d}" if digits else f"{sign}{whole}"


def span(lower: Fraction, upper: Fraction, digits: int) -> str:
    """Bounds, rounded outward; one number where both give the same text.

    >>> span(Fraction(1, 2), Fraction(2, 3), 1), span(Fraction(1, 2), Fraction(1, 2), 1)
    ('0.5 to 0.7', '0.5')
    """
    low, high = below(lower, digits), above(upper, digits)
    return low if low == high else f"{low} to {high}"


def percent(value: Probability, digits: int = 2) -> str:
    """An accuracy, rounded outward; a sampled one says so.

    >>> percent(Probability.interval(Fraction(19, 20), Fraction(951, 1000)))
    '95.00 to 95.10 %'
    """
    return f"{span(100 * value.lower, 100 * value.upper, digits)} %{' *' if value.kind is Kind.SAMPLED else ''}"


def points(clean: Fraction, value: Probability, digits: int = 2) -> str:
    """What is lost of the clean accuracy, in percentage points.

    >>> points(Fraction(96, 100), Probability.interval(Fraction(19, 20), Fraction(951, 1000)))
    '0.90 to 1.00'
    """
    return span(100 * (clean - value.upper), 100 * (clean - value.lower), digits)


def power(rate: Fraction) -> str:
    """A rate, short.

    >>> power(Fraction(1, 1000)), power(Fraction(4, 100)), power(Fraction("2.15e-5")), power(Fraction(1, 10))
    ('0.001', '0.04', '2.15e-5', '0.1')
    """
    number = f"{float(rate):.3g}"
    return number.replace("e-0", "e-")


def holds(clean: Fraction, value: Probability, drop: Fraction) -> bool | None:
    """Whether at most `drop` of the accuracy is lost: proved, refuted, or None where the interval is too wide to say.

    >>> half, none = Probability.exact(Fraction(1, 2)), Probability.exact(Fraction(0))
    >>> [holds(Fraction(1, 2), value, Fraction(1, 100)) for value in (half, none)]
    [True, False]
    """
    if value.lower >= clean - drop:
        return True
    return False if value.upper < clean - drop else None


def word(answer: bool | None) -> str:
    """yes, no, or open."""
    return {True: "yes", False: "no", None: "open"}[answer]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([])
    ('a', 'a, b and c', 'none')
    """
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
