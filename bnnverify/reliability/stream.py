"""A stream of images under transient faults: the law of the number of errors.

With fresh faults at every read (`PerRead`) the images of a stream are independent, so the number of errors is a sum of
independent events, one for each image (Poisson binomial). It grows stochastically with each P(error): the upper ends of
the certified intervals bound P(many errors) from above, the lower ends from below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.compilation import njit
from bnnverify.errors import QueryError
from bnnverify.faults import PerRead, rate
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.accuracy import expected_accuracy
from bnnverify.reliability.laws import FloatArray
from bnnverify.reliability.rounding import SMALLEST_RATE, outward, rounded_rate
from bnnverify.results import Kind, Probability

_GRID = 2**100


@njit(nogil=True)
def _law(hits, misses, law):  # type: ignore[no-untyped-def]
    """Law of the number of independent events: 3 roundings an event, that of its probability included."""
    law[:] = 0.0
    law[0] = 1.0
    for i in range(hits.shape[0]):
        for k in range(i + 1, 0, -1):
            law[k] = law[k] * misses[i] + law[k - 1] * hits[i]
        law[0] *= misses[i]


@dataclass(frozen=True, slots=True)
class StreamErrors:
    """The number of errors among independent images.

    Attributes:
        images: Images of the stream.
        expected: Proved bounds on the expected number of errors.
    """

    images: int
    expected: tuple[Fraction, Fraction]
    _few: tuple[FloatArray, FloatArray]  # P(at most k), P(more than k) if every P(error) is at its lower end
    _many: tuple[FloatArray, FloatArray]  # the same at the upper ends

    def at_most(self, k: int) -> Probability:
        """P(at most k errors), proved bounds."""
        if k < 0:
            return Probability.exact(Fraction(0))
        if k >= self.images:
            return Probability.exact(Fraction(1))
        lower, upper = outward(float(self._many[0][k]), float(self._few[0][k]), self._roundings)
        return Probability.interval(lower, upper)

    def more_than(self, k: int) -> Probability:
        """P(more than k errors), proved bounds, summed directly: also tiny ones are precise."""
        if k < 0:
            return Probability.exact(Fraction(1))
        if k >= self.images:
            return Probability.exact(Fraction(0))
        lower, upper = outward(float(self._few[1][k]), float(self._many[1][k]), self._roundings)
        return Probability.interval(lower, upper)

    @property
    def _roundings(self) -> int:
        return 4 * self.images + 2

    def quantile(self, level: Any) -> int:
        """The least k of which it is proved that at most k errors happen with probability `level` or more."""
        wanted = rate(level, "level")
        low, high = 0, self.images
        while low < high:
            middle = (low + high) // 2
            if self.at_most(middle).lower >= wanted:
                high = middle
            else:
                low = middle + 1
        return low

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "stream-errors",
            "images": self.images,
            "expected": [str(bound) for bound in self.expected],
            "quantiles": {level: self.quantile(level) for level in ("0.5", "0.9", "0.99", "0.999")},
        }


def errors_in_stream(errors: Sequence[Probability]) -> StreamErrors:
    """The law of the number of errors among independent images, from the P(error) of each.

    Args:
        errors: Proved bounds, one for each image of the stream.

    Raises:
        QueryError: No images, or a sampled probability.

    >>> law = errors_in_stream([Probability.exact(Fraction(1, 10))] * 2)
    >>> str(law.at_most(0)), law.expected[0]
    ('[0.8099999, 0.8100001] (interval)', Fraction(1, 5))
    """
    if not errors:
        raise QueryError("no images are given, expected the P(error) of at least one.")
    if any(p.kind in (Kind.SAMPLED, Kind.PAC) for p in errors):
        raise QueryError("a probability is sampled or approximate, expected proved bounds.")
    sums = sum((p.lower for p in errors), Fraction(0)), sum((p.upper for p in errors), Fraction(0))
    if any(p.kind is not Kind.EXACT for p in errors):
        sums = Fraction(sums[0] * _GRID // 1, _GRID), Fraction(-(-sums[1] * _GRID // 1), _GRID)
    few = _tails([_representable(p.lower, up=False) for p in errors])
    many = _tails([_representable(p.upper, up=True) for p in errors])
    return StreamErrors(len(errors), sums, few, many)


def _representable(p: Fraction, *, up: bool) -> Fraction:
    """`p`, or where p or 1 - p is too small for certified float64, a bound of it that is not."""
    if 0 < p < SMALLEST_RATE:
        return SMALLEST_RATE if up else Fraction(0)
    if 0 < 1 - p < SMALLEST_RATE:
        return Fraction(1) if up else 1 - SMALLEST_RATE
    return p


def _tails(chances: list[Fraction]) -> tuple[FloatArray, FloatArray]:
    pairs = np.array([rounded_rate(p) for p in chances])
    law = np.zeros(len(chances) + 1)
    _law(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]), law)
    above = np.zeros_like(law)
    above[:-1] = np.cumsum(law[:0:-1])[::-1]
    return np.cumsum(law), above


def stream_errors(
    network: BinaryNetwork, images: ArrayLike, labels: Sequence[int], faults: PerRead, **options: Any
) -> StreamErrors:
    """The law of the number of errors when a chip with faults of reading sees these images one after the other.

    Args:
        network: As in `expected_accuracy`.
        images: Shape `(N, n)`, inputs of the domain; an image may come several times.
        labels: Shape `(N,)`: the true labels, or the fault-free classes.
        faults: Fresh at every read, nothing permanent.
        **options: Of `expected_accuracy`.

    Raises:
        QueryError: Faults are permanent: then the images share them, and only the expected number follows.
    """
    if not isinstance(faults, PerRead) or faults.permanent is not None:
        raise QueryError(
            f"the faults are {faults!r:.60}, expected PerRead without permanent ones: images that share permanent "
            "faults are not independent. Use chip_yield for whole chips."
        )
    return errors_in_stream(expected_accuracy(network, images, labels, faults, **options).per_image)
