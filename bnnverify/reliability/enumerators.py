"""The first coefficients of a fault enumerator, and what they prove at every bit error rate.

With A_k the number of sets of k flips that have the event, of N cells, ``P(p) = sum_k A_k p^k (1-p)^(N-k)``. Who
knows A_0..A_K knows P(p) up to the probability of more than K flips, for every p at once. All arithmetic on rates is
in balls (arb), rounded outward.

References:
    Balls: F. Johansson, IEEE Trans. Computers 66(8), 2017. The use: ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from flint import arb, ctx, fmpq

from bnnverify.errors import QueryError
from bnnverify.faults import rate
from bnnverify.reliability.exact import FaultEnumerator
from bnnverify.reliability.rounding import float_below
from bnnverify.results import Kind, Probability, Run, fraction_text

_BITS = 320  # of the balls; tails below 2^-300 are bounded by their first term


@dataclass(frozen=True, slots=True)
class PartialEnumerator:
    """Numbers of flip sets with an event, by size, up to some size; or their means over a data set.

    Attributes:
        counts: A_0..A_K, exact: integers, or Fractions if they are means over images.
        n_cells: N. With K = N nothing is missing.
        run: How they were obtained, with the reason if fewer were found than asked for.
    """

    counts: tuple[int | Fraction, ...]
    n_cells: int
    run: Run = field(default_factory=lambda: Run("fault-coefficients"))

    def __post_init__(self) -> None:
        right = 1 <= len(self.counts) <= self.n_cells + 1
        if not right or any(not 0 <= a <= math.comb(self.n_cells, k) for k, a in enumerate(self.counts)):
            raise QueryError(f"{len(self.counts)} counts do not fit {self.n_cells} cells, expected A_k of 0..C(N, k).")

    @property
    def order(self) -> int:
        """K, the largest number of flips that was counted."""
        return len(self.counts) - 1

    @property
    def is_complete(self) -> bool:
        """True if all sizes were counted."""
        return self.order == self.n_cells

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """Share of the sets of k flips that have the event: A_k / C(N, k)."""
        return tuple(Fraction(a) / math.comb(self.n_cells, k) for k, a in enumerate(self.counts))

    @property
    def slope(self) -> Fraction:
        """Derivative of P(p) at p = 0, exact: ``A_1 - N A_0``. Needs K of at least 1."""
        if self.order < 1:
            raise QueryError("only A_0 is known, expected A_1 for a derivative. Count single flips.")
        return Fraction(self.counts[1] - self.n_cells * self.counts[0])

    def probability(self, p: Any) -> Probability:
        """P(event) at the bit error rate p.

        Kind EXACT if all sizes were counted or p is 0, else INTERVAL: the patterns of more than K flips count as
        without the event in the lower bound and as with it in the upper one.

        >>> str(PartialEnumerator((0, 2), 100).probability("1e-6"))
        '[0.000001999802, 0.000002004752] (interval)'
        """
        flip = rate(p)
        if self.is_complete:
            total = sum(a * flip**k * (1 - flip) ** (self.n_cells - k) for k, a in enumerate(self.counts))
            return Probability.exact(Fraction(total))
        if flip == 0:
            return Probability.exact(Fraction(self.counts[0]))
        with ctx.workprec(_BITS):
            lower = sum((_ball(a) * self._term(k, flip) for k, a in enumerate(self.counts)), arb(0))
            upper = lower + self._tail(flip)
            return Probability.interval(_below(lower), _above(upper))

    def at_most(self, p: Any) -> Fraction:
        """An upper bound on P(event) at every bit error rate from 0 to p: certified for all of them at once.

        >>> float(PartialEnumerator((0, 2), 100).at_most("1e-6")) < 2.1e-6
        True
        """
        greatest, share = rate(p), Fraction(self.counts[0])
        with ctx.workprec(_BITS):
            # a share A_0 of all sets, whatever the rate, plus what each size has beyond it
            total = _ball(share)
            if not self.is_complete:
                total += _ball(1 - share) * self._tail(greatest)
            for k, a in enumerate(self.counts):
                beyond = a - share * math.comb(self.n_cells, k)
                if beyond > 0:  # p^k (1-p)^(N-k) rises up to k/N
                    total += _ball(beyond) * self._term(k, min(greatest, Fraction(k, self.n_cells)))
            return min(_above(total), Fraction(1))

    def _term(self, k: int, p: Fraction) -> arb:
        """``p^k (1-p)^(N-k)``."""
        return _ball(p) ** k * _ball(1 - p) ** (self.n_cells - k)

    def _tail(self, p: Fraction) -> arb:
        """An upper bound on P(more than K flips), or a ball around it."""
        first = math.comb(self.n_cells, self.order + 1) * _ball(p) ** (self.order + 1)
        rest = 1 - sum((math.comb(self.n_cells, k) * self._term(k, p) for k in range(self.order + 1)), arb(0))
        return rest if _above(rest) < _above(first) else first

    def complete(self) -> FaultEnumerator:
        """The fault enumerator, where all sizes were counted as integers.

        Raises:
            QueryError: Some were not.
        """
        if not self.is_complete or any(not isinstance(a, int) for a in self.counts):
            raise QueryError(f"sizes up to {self.order} of {self.n_cells} cells were counted, expected all of them.")
        return FaultEnumerator(tuple(int(a) for a in self.counts))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line; the counts as text."""
        return {
            "type": "fault-coefficients",
            "kind": Kind.EXACT.value,
            "n_cells": self.n_cells,
            "counts": [fraction_text(Fraction(a)) for a in self.counts],
            "run": self.run.to_json(),
        }


def _ball(value: int | Fraction) -> arb:
    number = Fraction(value)
    return arb(fmpq(number.numerator, number.denominator))


def _exact(ball: arb) -> Fraction:
    mantissa, exponent = ball.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _below(ball: arb) -> Fraction:
    """A float64 number that is at most everything in the ball, and not negative."""
    return max(Fraction(float_below(_exact(ball.lower()))), Fraction(0))


def _above(ball: arb) -> Fraction:
    return Fraction(-float_below(-_exact(ball.upper())))
