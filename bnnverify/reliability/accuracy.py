"""From images to chips: certified expected accuracy over a data set, and its curve.

The expected accuracy at a fault model is the mean over images of P(correct): exact because expectation is
linear, although the images of one chip share its faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike

from bnnverify.engines.base import Clock
from bnnverify.errors import QueryError
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.probability import DEFAULT_MAX_STATES, DEFAULT_TOLERANCE, FaultyNetwork, require_positive
from bnnverify.reliability.rounding import float_below
from bnnverify.results import Kind, Probability, Run

Progress = Callable[[int], Any]
_GRID = 2**100  # keeps the mean of many images short enough to print
UNDECIDED = Probability.interval(Fraction(0), Fraction(1))


@dataclass(frozen=True, slots=True)
class AccuracyPoint:
    """Expected accuracy of the chips under one fault model.

    Attributes:
        faults: The fault model.
        accuracy: Proved bounds on the mean over images of P(correct).
        per_image: P(error) of every image; [0, 1] for images that a time limit left out.
        run: Time, and the reason if images were left out.
    """

    faults: FaultModel
    accuracy: Probability
    per_image: tuple[Probability, ...]
    run: Run

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line; per-image bounds as floats rounded outward."""
        return {
            "type": "accuracy",
            "faults": self.faults.to_json(),
            "accuracy": self.accuracy.to_json(),
            "per_image": [[float_below(p.lower), -float_below(-p.upper)] for p in self.per_image],
            "run": self.run.to_json(),
        }


def expected_accuracy(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    jobs: int = 1,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> AccuracyPoint:
    """Proved bounds on the expected accuracy over a data set.

    Args:
        network: As in `error_probability`.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`, the true labels (event *error*), or the fault-free classes (event *change*).
        faults: Rates of the cells.
        tolerance: Width to aim at for each image.
        max_states: Work limit for each image.
        jobs: Threads; the heavy loops run without the interpreter lock.
        seconds: Time limit, s. Images not reached in time count as [0, 1]: wider, still proved. Looked at between
            images (between sign vectors, with several hidden blocks).
        progress: Called with 1 after every image.

    Returns:
        The accuracy, and P(error) of every image.

    Raises:
        QueryError: No images, different numbers of images and labels, or a bad argument.
        UnsupportedError: A block is a convolution; `engines.montecarlo.sample_errors` samples chips.
    """
    points = network.domain.require_batch(images)
    if len(points) != len(labels) or not len(points):
        raise QueryError(f"{len(points)} images came with {len(labels)} labels, expected equally many, at least one.")
    require_positive(tolerance, max_states)
    if jobs < 1:
        raise QueryError(f"jobs is {jobs}, expected at least 1.")
    clock, faulty = Clock(seconds), FaultyNetwork(network, faults)
    for label in {network.require_class(v) for v in labels}:
        faulty.tables(label)  # before the threads share them

    def one(i: int) -> Probability | None:
        if clock.is_over:
            return None
        answer = faulty.error_probability(
            points[i], int(labels[i]), tolerance=tolerance, max_states=max_states, clock=clock
        )
        if progress is not None:
            progress(1)
        return answer

    if jobs == 1:
        answers = [one(i) for i in range(len(points))]
    else:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                answers = list(pool.map(one, range(len(points))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    left_out = sum(a is None for a in answers)
    cut = left_out > 0 or (clock.is_over and len(network.blocks) > 1)
    reason = f"{clock.reason}; {left_out} of {len(answers)} images left out" if cut else ""
    per_image = tuple(UNDECIDED if a is None else a for a in answers)
    return AccuracyPoint(faults, mean_accuracy(per_image), per_image, Run("convolution", clock.elapsed, reason))


def mean_accuracy(errors: Sequence[Probability]) -> Probability:
    """Mean of 1 - P(error): exact if all are, else an interval, rounded outward to multiples of 2^-100."""
    if any(p.kind in (Kind.SAMPLED, Kind.PAC) for p in errors):
        raise QueryError("a probability is sampled or approximate, expected proved bounds.")
    count = len(errors)
    lower = 1 - sum((p.upper for p in errors), Fraction(0)) / count
    upper = 1 - sum((p.lower for p in errors), Fraction(0)) / count
    if all(p.kind is Kind.EXACT for p in errors):
        return Probability.exact(lower)
    return Probability.interval(Fraction(math.floor(lower * _GRID), _GRID), Fraction(math.ceil(upper * _GRID), _GRID))


def accuracy_curve(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    models: Sequence[FaultModel],
    **options: Any,
) -> Iterator[AccuracyPoint]:
    """`expected_accuracy` for one fault model after the other, each yielded as soon as it is there."""
    for faults in models:
        yield expected_accuracy(network, images, labels, faults, **options)
