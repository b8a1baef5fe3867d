"""Boxes: regions over integers and over reals, where each input varies between two bounds of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.errors import QueryError
from bnnverify.scalars import integer, plain

if TYPE_CHECKING:
    from bnnverify.domain import InputDomain


def whole_number(value: Any, what: str) -> int:
    """`value` as the integer it equals; QueryError if there is none."""
    try:
        if not isinstance(value, (bool, np.bool_)) and int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise QueryError(f"{what} is {value!r}, expected an integer.")


@dataclass(frozen=True, slots=True)
class PixelBox:
    """All integer vectors x with ``lower <= x <= upper``: pixels, or quantized pixels, that vary independently.

    Attributes:
        lower: Least value of each input.
        upper: Greatest value of each input.
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]

    def __post_init__(self) -> None:
        low = tuple(whole_number(v, f"lower[{i}]") for i, v in enumerate(_vector(self.lower, "lower")))
        high = tuple(whole_number(v, f"upper[{i}]") for i, v in enumerate(_vector(self.upper, "upper")))
        _require_order(low, high)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    @classmethod
    def linf(cls, center: ArrayLike, radius: int, domain: InputDomain | None = None) -> PixelBox:
        """The inputs that differ from `center` by at most `radius` in every place, clipped to the domain.

        Args:
            center: Shape `(n,)`, integers. It need not lie in the domain, but the clipped box must not be empty.
            radius: At least 0, in units of the inputs (grey values for pixels 0 to 255).
            domain: Bounds of the inputs. Default: none.

        >>> PixelBox.linf([0, 7], 2)
        PixelBox(lower=(-2, 5), upper=(2, 9))
        """
        values = [whole_number(v, f"center[{i}]") for i, v in enumerate(_vector(center, "center"))]
        reach = integer(radius, "radius", least=0)
        low, high = [v - reach for v in values], [v + reach for v in values]
        if domain is not None:
            if domain.n != len(values):
                raise QueryError(f"center has {len(values)} entries, but the domain has {domain.n} inputs.")
            low = [max(a, b) for a, b in zip(low, domain.lower.tolist(), strict=True)]
            high = [min(a, b) for a, b in zip(high, domain.upper.tolist(), strict=True)]
        return cls(tuple(low), tuple(high))

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.lower)

    @property
    def free(self) -> tuple[int, ...]:
        """Indices of the inputs that take more than one value."""
        return tuple(i for i, (a, b) in enumerate(zip(self.lower, self.upper, strict=True)) if a < b)

    def size(self) -> int:
        """Number of inputs, exact.

        >>> PixelBox((0,) * 100, (1,) * 100).size() == 2**100
        True
        """
        return math.prod(b - a + 1 for a, b in zip(self.lower, self.upper, strict=True))

    def contains(self, x: Sequence[int]) -> bool:
        """True iff x lies in the region: in particular, its entries are integers."""
        if len(x) != self.n:
            return False
        places = zip(self.lower, x, self.upper, strict=True)
        return all(low <= value <= high and int(value) == value for low, value, high in places)

    def points(self) -> Iterator[tuple[int, ...]]:
        """All inputs, in lexicographic order."""
        return product(*(range(a, b + 1) for a, b in zip(self.lower, self.upper, strict=True)))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "pixel-box", "lower": list(self.lower), "upper": list(self.upper)}

    def __str__(self) -> str:
        widest = max(b - a for a, b in zip(self.lower, self.upper, strict=True))
        return f"box of integers with {len(self.free)} of {self.n} inputs free, at most {widest + 1} values each"


@dataclass(frozen=True, slots=True)
class RealBox:
    """All real vectors x with ``lower <= x <= upper``.

    Blocks hold integer thresholds. Where an input is not an integer, all that is used of a first-block neuron with
    threshold T is that it fires if ``w.x >= T`` and does not if ``w.x <= T - 1``: this is true for every real
    threshold in (T - 1, T], which is what folding rounded up to T. So ROBUST is proved for the real box whatever the
    real thresholds were, and counterexamples are integer points of the box.

    Attributes:
        lower: Least value of each input, Fractions.
        upper: Greatest value of each input, Fractions.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        low = tuple(_rational(v, f"lower[{i}]") for i, v in enumerate(_vector(self.lower, "lower")))
        high = tuple(_rational(v, f"upper[{i}]") for i, v in enumerate(_vector(self.upper, "upper")))
        _require_order(low, high)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.lower)

    def contains(self, x: Sequence[int | Fraction]) -> bool:
        """True iff x lies in the region."""
        if len(x) != self.n:
            return False
        return all(low <= value <= high for low, value, high in zip(self.lower, x, self.upper, strict=True))

    def grid(self) -> PixelBox | None:
        """The integer points of the box; None if there are none.

        >>> RealBox((Fraction(1, 2), 3), (Fraction(5, 2), 4)).grid()
        PixelBox(lower=(1, 3), upper=(2, 4))
        """
        low, high = tuple(math.ceil(v) for v in self.lower), tuple(math.floor(v) for v in self.upper)
        return PixelBox(low, high) if all(a <= b for a, b in zip(low, high, strict=True)) else None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line; numbers as text, ``numerator/denominator`` where they are not integers."""
        return {"kind": "real-box", "lower": [str(v) for v in self.lower], "upper": [str(v) for v in self.upper]}

    def __str__(self) -> str:
        free = sum(a < b for a, b in zip(self.lower, self.upper, strict=True))
        return f"real box with {free} of {self.n} inputs free"


def quantized_box(pixels: ArrayLike, eps: Any, step: Any, *, low: Any = 0, high: Any = 1) -> PixelBox:
    """The quantized inputs ``round(v / step)`` of all images v within `eps` of the pixels, as the range of each.

    Rounding is monotone, so the range of a pixel p goes from ``round(max(p - eps, low) / step)`` to
    ``round(min(p + eps, high) / step)``. All of it is exact rational arithmetic; a half is rounded to the even integer,
    as numpy and torch do.

    Args:
        pixels: Shape `(n,)`. Fractions, integers or text such as ``17/255`` are exact; a float is the dyadic number
            that it is, which for 17/255 is not 17/255.
        eps: How far a pixel may move, at least 0: a Fraction, an integer or decimal text such as ``0.3`` (a float is
            taken through its shortest decimal text).
        step: Size of a quantization step, above 0, given like `eps`.
        low: Least value of a pixel, given like `eps`.
        high: Greatest value of a pixel, given like `eps`.

    References:
        Jia & Rinard, NeurIPS 2020, Sec. 4 (quantized inputs).

    >>> quantized_box([Fraction(0), Fraction(1, 2)], "0.25", "0.5")
    PixelBox(lower=(0, 0), upper=(0, 2))
    """
    reach, size = _decimal(eps, "eps"), _decimal(step, "step")
    least, most = _decimal(low, "low"), _decimal(high, "high")
    if reach < 0:
        raise QueryError(f"eps is {eps}, expected at least 0.")
    if size <= 0:
        raise QueryError(f"step is {step}, expected a number above 0.")
    values = [_rational(v, f"pixels[{i}]") for i, v in enumerate(_vector(pixels, "pixels"))]
    outside = next((i for i, v in enumerate(values) if not least <= v <= most), None)
    if outside is not None:
        raise QueryError(f"pixels[{outside}] is {values[outside]}, expected {least} to {most}. Scale the image first.")
    lower = tuple(round(max(v - reach, least) / size) for v in values)
    return PixelBox(lower, tuple(round(min(v + reach, most) / size) for v in values))


def _vector(values: Any, what: str) -> list[Any]:
    """The entries of a vector that is not empty."""
    try:
        entries = list(values)
    except TypeError:
        raise QueryError(f"{what} is {values!r}, expected a vector of numbers.") from None
    if not entries or isinstance(values, (str, bytes)):
        raise QueryError(f"{what} is {values!r}, expected a vector of at least one number.")
    return entries


def _rational(value: Any, what: str) -> Fraction:
    """`value` as the exact number it stands for; floats are dyadic."""
    try:
        if not isinstance(value, (bool, np.bool_)):
            return Fraction(value.item() if isinstance(value, (np.generic, np.ndarray)) else value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        pass
    raise QueryError(f"{what} is {value!r}, expected a finite number.")


def _decimal(value: Any, what: str) -> Fraction:
    """As `_rational`, but a float is the shortest decimal text that gives it."""
    number = plain(value)
    return _rational(repr(number) if isinstance(number, float) else number, what)


def _require_order(low: Sequence[Any], high: Sequence[Any]) -> None:
    if len(low) != len(high):
        raise QueryError(f"lower has {len(low)} entries and upper {len(high)}, expected the same number.")
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if a > b:
            raise QueryError(f"lower[{i}] = {a} exceeds upper[{i}] = {b}: the box is empty.")


Box = PixelBox | RealBox
