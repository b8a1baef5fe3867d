"""Yield: the share of chips whose accuracy over a data set reaches a threshold, bounded and sampled.

The images of one chip share its faults, so the law of a chip's accuracy is not that of independent images. What holds
whatever the dependence is Markov's inequality, and it becomes sharp where it is asked about the uncertain images only:
of the images that are wrong on nearly every chip, count all as wrong, and ask how often the others add enough errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from bnnverify.errors import QueryError
from bnnverify.faults import FaultModel, rate
from bnnverify.network import BinaryNetwork
from bnnverify.results import Kind, Probability

if TYPE_CHECKING:
    from bnnverify.engines.chipsampling import SampledChips

_GRID = 2**100  # bounds of images are rounded outward to multiples of 2^-100


def yield_bounds(accuracy: Probability, threshold: Any) -> Probability:
    """Proved bounds on the share of chips whose accuracy is at least `threshold`, from the expected accuracy alone.

    Markov's inequality on both sides: ``1 - (1 - mu) / (1 - T) <= yield <= mu / T``. With the bounds of every image
    `chip_yield` says more.

    Args:
        accuracy: Expected accuracy, exact or an interval.
        threshold: T within [0, 1].

    >>> str(yield_bounds(Probability.exact(Fraction(99, 100)), "0.9"))
    '[0.9, 1] (interval)'
    """
    bound = rate(threshold, "threshold")
    if accuracy.confidence is not None:
        raise QueryError("the accuracy is sampled, expected proved bounds.")
    lower = Fraction(0) if bound == 1 else 1 - (1 - accuracy.lower) / (1 - bound)
    upper = Fraction(1) if bound == 0 else accuracy.upper / bound
    return Probability.interval(lower, upper)


def chip_yield(errors: Sequence[Probability], threshold: Any) -> Probability:
    """Proved bounds on the share of chips whose accuracy is at least `threshold`, from P(error) of every image.

    A chip misses the threshold T if it gets k = floor((1 - T) N) + 1 of the N images wrong. Counting w of them, those
    most often wrong, as wrong anyway, the others must add k - w errors: by Markov's inequality at most with probability
    ``sum of their P(error) / (k - w)``, for every w < k. The upper bound is the same with right for wrong. The best w
    is taken; w = 0 is `yield_bounds`, rounded to whole images.

    Args:
        errors: P(error) of every image, such as `AccuracyPoint.per_image`; proved bounds.
        threshold: T within [0, 1].

    Raises:
        QueryError: No images, a sampled probability, or a threshold outside [0, 1].

    >>> wrong, sure = Probability.exact(Fraction(1)), Probability.exact(Fraction(1, 1000))
    >>> str(chip_yield([wrong] * 5 + [sure] * 95, "0.9"))  # 6 more errors, where 0.095 are expected
    '[0.9841666, 1] (interval)'
    """
    bound = rate(threshold, "threshold")
    if not errors:
        raise QueryError("no images are given, expected the P(error) of at least one.")
    if any(p.kind in (Kind.SAMPLED, Kind.PAC) for p in errors):
        raise QueryError("a probability is sampled or approximate, expected proved bounds.")
    needed = math.ceil(bound * len(errors))  # right images of a good chip
    wrong = [-(-p.upper.numerator * _GRID // p.upper.denominator) for p in errors]
    right = [_GRID - p.lower.numerator * _GRID // p.lower.denominator for p in errors]
    return Probability.interval(1 - _at_least(wrong, len(errors) - needed + 1), _at_least(right, needed))


def _at_least(chances: list[int], k: int) -> Fraction:
    """Upper bound on P(at least k events) of events with these probabilities, in units of 2^-100, however dependent."""
    if k <= 0:
        return Fraction(1)
    if k > len(chances):
        return Fraction(0)
    rest, best = sum(chances), Fraction(1)
    for w, chance in enumerate(sorted(chances, reverse=True)[:k]):
        best = min(best, Fraction(rest, (k - w) * _GRID))
        rest -= chance
    return best


@dataclass(frozen=True, slots=True)
class Yield:
    """The share of chips that reach an accuracy: what is proved, and what was sampled.

    Attributes:
        threshold: Least accuracy of a good chip.
        proved: Bounds from the certified P(error) of every image, kind INTERVAL.
        sampled: Share among sampled chips with its Clopper-Pearson interval, kind SAMPLED.
        chips: The sample.
    """

    threshold: Fraction
    proved: Probability
    sampled: Probability
    chips: SampledChips

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "yield",
            "threshold": str(self.threshold),
            "faults": self.chips.faults.to_json(),
            "proved": self.proved.to_json(),
            "sampled": self.sampled.to_json(),
            "run": self.chips.run.to_json(),
        }

    def __str__(self) -> str:
        return f"chips of accuracy at least {float(self.threshold):.15g}: {self.proved}; {self.sampled}"


def yield_estimate(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    threshold: Any,
    *,
    errors: Sequence[Probability] | None = None,
    chips: int = 1000,
    seed: int = 0,
    confidence: float = 0.99,
    jobs: int = 1,
    seconds: float | None = None,
    progress: Callable[[int], Any] | None = None,
    **options: Any,
) -> Yield:
    """The share of chips whose accuracy on these images is at least `threshold`, proved and sampled.

    Args:
        network: As in `expected_accuracy`; for a network that it does not serve pass `errors` of your own, such as
            `[Probability.interval(Fraction(0), Fraction(1))] * N`.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the true labels, or the fault-free classes.
        faults: Rates of the cells.
        threshold: Least accuracy of a good chip, within [0, 1].
        errors: P(error) of every image where it is known already (`AccuracyPoint.per_image`); else it is computed.
        chips: Chips to sample.
        seed: Of the sample.
        confidence: Of the sampled interval.
        jobs: Threads.
        seconds: Time limit, s, for the bounds, and again for the sample.
        progress: Called with the number of further chips.
        **options: Of `expected_accuracy`.
    """
    from bnnverify.engines.chipsampling import sample_chips
    from bnnverify.reliability.accuracy import expected_accuracy

    bound = rate(threshold, "threshold")
    if errors is None:
        point = expected_accuracy(network, images, labels, faults, jobs=jobs, seconds=seconds, **options)
        errors = point.per_image
    sampled = sample_chips(
        network,
        images,
        labels,
        faults,
        chips=chips,
        seed=seed,
        confidence=confidence,
        jobs=jobs,
        seconds=seconds,
        progress=progress,
    )
    return Yield(bound, chip_yield(errors, bound), sampled.yield_at(bound), sampled)
