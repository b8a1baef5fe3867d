"""How the inputs of an exact network become the numbers that a model file takes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bnnverify.blocks import as_fraction
from bnnverify.domain import InputDomain
from bnnverify.errors import ModelError


def decimal_text(value: Fraction) -> str:
    """A number as VNN-COMP's files have it: an integer, or a decimal of 17 digits."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.17g}"


@dataclass(frozen=True, slots=True)
class InputCoding:
    """An input x of the exact network is fed to the model as ``scale * x + offset``.

    Attributes:
        lower: Least x; None for signs.
        upper: Greatest x; None for signs.
        scale: What one step of x is worth to the model; not 0.
        offset: What the model takes where x is 0.

    >>> InputCoding.integers(0, 255, scale=Fraction(1, 255)).scale
    Fraction(1, 255)
    """

    lower: int | None
    upper: int | None
    scale: Fraction
    offset: Fraction

    @classmethod
    def signs(cls) -> InputCoding:
        """The model takes -1/+1."""
        return cls(None, None, Fraction(1), Fraction(0))

    @classmethod
    def bits(cls) -> InputCoding:
        """The model takes 0/1; the exact network -1/+1."""
        return cls(None, None, Fraction(1, 2), Fraction(1, 2))

    @classmethod
    def integers(cls, lower: int, upper: int, *, scale: Any = 1, offset: Any = 0) -> InputCoding:
        """The exact network takes integers `lower` to `upper`, such as pixels 0 to 255.

        Raises:
            ModelError: The range is empty, or the scale is 0.
        """
        if lower > upper:
            raise ModelError(f"the input range is {lower} to {upper}, expected the lower end first.")
        factor = as_fraction(scale, "the input scale")
        if factor == 0:
            raise ModelError("the input scale is 0, expected another number.")
        return cls(int(lower), int(upper), factor, as_fraction(offset, "the input offset"))

    @property
    def is_binary(self) -> bool:
        """True if the exact network takes signs."""
        return self.lower is None

    @property
    def reach(self) -> int:
        """A bound on |x|."""
        return 1 if self.lower is None or self.upper is None else max(abs(self.lower), abs(self.upper))

    def domain(self, n: int, shape: tuple[int, ...] | None = None) -> InputDomain:
        """The domain of n inputs."""
        if self.lower is None or self.upper is None:
            return InputDomain.binary(n, shape)
        return InputDomain.integers([self.lower] * n, [self.upper] * n, shape)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a provenance."""
        kind = "signs" if self.is_binary else f"integers {self.lower} to {self.upper}"
        return {"inputs": kind, "scale": str(self.scale), "offset": str(self.offset)}

    def __str__(self) -> str:
        kind = "signs -1/+1" if self.is_binary else f"integers {self.lower}..{self.upper}"
        if self.scale == 1 and self.offset == 0:
            return kind
        moved = f" + {self.offset}" if self.offset else ""
        return f"{kind}, fed to the model as x * {self.scale}{moved}"
