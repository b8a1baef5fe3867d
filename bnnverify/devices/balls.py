"""Probabilities of physics enclosed in ball arithmetic (arb): every rounding is inside the bounds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

Bounds = tuple[Fraction, Fraction]


def bounds_of(ball: Any) -> Bounds:
    """The ends of a ball around a probability, as exact Fractions within [0, 1]."""
    return max(Fraction(0), _fraction(ball.lower())), min(Fraction(1), _fraction(ball.upper()))


def normal_tail(ratio: Any, sigmas: tuple[float, ...]) -> Any:
    """Ball of P(X > ratio) for a normal X of mean 0 and variance sum of sigma**2."""
    from flint import arb

    spread = sum((arb(sigma) ** 2 for sigma in sigmas), arb(0)).sqrt()
    return (ratio / spread / arb(2).sqrt()).erfc() / 2


def tail(low: float, high: float, sigmas: tuple[float, ...]) -> Bounds:
    """Enclosure of P(X > ln(high / low)) for a normal X of mean 0 and variance sum of sigma**2."""
    from flint import arb, ctx

    with ctx.workprec(64):
        return bounds_of(normal_tail((arb(high) / arb(low)).log(), sigmas))


def _fraction(exact: Any) -> Fraction:
    mantissa, exponent = exact.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
