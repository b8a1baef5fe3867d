"""From images to chips: certified expected accuracy over a data set, its curve, and the tolerable bit error rate.

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
from bnnverify.faults import BitFlip, FaultModel, rate
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


_COARSE_STATES = (32, 512)


@dataclass(frozen=True, slots=True)
class ToleranceBracket:
    """Two certified points around a bit error rate at which the expected accuracy crosses a target.

    Attributes:
        target: The accuracy asked for.
        p_ok: A rate at which the accuracy is proved to be at least the target; None if not even at 0.
        p_fail: A rate above p_ok at which it is proved to be below; None if not found up to the last rate.
        accuracy_ok: Accuracy at p_ok.
        accuracy_fail: Accuracy at p_fail.
        run: Time; the reason where a side is missing or the interval at a rate straddled the target.

    Note:
        The accuracy is not monotone in p. The bracket proves two points, not "every p up to p_ok".
    """

    target: Fraction
    p_ok: Fraction | None
    p_fail: Fraction | None
    accuracy_ok: Probability | None
    accuracy_fail: Probability | None
    run: Run

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "tolerance",
            "target": str(self.target),
            "p_ok": None if self.p_ok is None else str(self.p_ok),
            "p_fail": None if self.p_fail is None else str(self.p_fail),
            "accuracy_ok": None if self.accuracy_ok is None else self.accuracy_ok.to_json(),
            "accuracy_fail": None if self.accuracy_fail is None else self.accuracy_fail.to_json(),
            "run": self.run.to_json(),
        }


def tolerance_bracket(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    target: Any,
    *,
    lowest: Any = "1e-6",
    highest: Any = "1/2",
    ratio: float = 1.05,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    jobs: int = 1,
    seconds: float | None = None,
) -> ToleranceBracket:
    """Bit error rates p_ok < p_fail between which the expected accuracy falls below `target`, both certified.

    Bisection on a logarithmic scale. Where the interval at a rate straddles the target, the two sides are
    searched separately, so the bracket is as tight as the intervals allow.

    Args:
        network: As in `expected_accuracy`.
        images: As in `expected_accuracy`.
        labels: As in `expected_accuracy`.
        target: Accuracy within [0, 1].
        lowest: Least rate above 0 to look at.
        highest: Greatest rate to look at, at most 1/2 makes sense.
        ratio: Stop when p_fail / p_ok is at most this, above 1.
        tolerance: Finest width to aim at for each image. Every rate is tried coarsely first, and finer only while
            the interval straddles the target.
        max_states: Most work for each image.
        jobs: Threads.
        seconds: Time limit for the whole search, s.

    Raises:
        QueryError: A rate or the target is not within [0, 1], or lowest >= highest.
    """
    goal, low, high = rate(target, "target accuracy"), rate(lowest, "lowest"), rate(highest, "highest")
    if not 0 < low < high or not ratio > 1:
        raise QueryError(
            f"the search runs from {low} to {high} with ratio {ratio}, expected 0 < lowest < highest, 1 < ratio."
        )
    clock, seen = Clock(seconds), dict[Fraction, Probability]()

    def accuracy(p: Fraction) -> Probability:
        if p not in seen:
            for states in [s for s in _COARSE_STATES if s < max_states] + [max_states]:
                width = max(tolerance, 1 / states) if states < max_states else tolerance
                seen[p] = expected_accuracy(
                    network,
                    images,
                    labels,
                    BitFlip(p),
                    tolerance=width,
                    max_states=states,
                    jobs=jobs,
                    seconds=clock.remaining,
                ).accuracy
                if seen[p].lower >= goal or seen[p].upper < goal or clock.is_over:
                    break
        return seen[p]

    for p in (Fraction(0), low, high):
        if accuracy(p).upper < goal:
            break
    ok = max((p for p, a in seen.items() if a.lower >= goal), default=None)
    fail = min((p for p, a in seen.items() if a.upper < goal and (ok is None or p > ok)), default=None)
    if ok is not None and fail is not None and ok > 0:
        ok = _narrow(ok, fail, ratio, clock, lambda p: accuracy(p).lower >= goal)[0]
    if ok is not None and fail is not None and fail > low:
        fail = _narrow(max(ok, low), fail, ratio, clock, lambda p: accuracy(p).upper >= goal)[1]
    reason = ""
    if clock.is_over:
        reason = clock.reason
    elif ok is None:
        reason = (
            "the target is not reached even without faults" if fail == 0 else "no rate is proved to reach the target"
        )
    elif fail is None:
        reason = f"no rate up to {float(high):g} is proved to miss the target"
    elif fail == low:
        reason = f"the target is missed at {float(fail):g}, the lowest rate looked at"
    elif ok == 0 or fail / ok > Fraction(ratio):
        reason = "between the two rates the intervals straddle the target; allow more states or a finer tolerance"
        if ok > 0 and _middle(ok, fail) is None:
            reason = "no rate of 3 significant digits lies between the two"
    found = Run("convolution", clock.elapsed, reason, {"rates_evaluated": len(seen), "timed_out": clock.is_over})
    return ToleranceBracket(
        goal, ok, fail, None if ok is None else seen[ok], None if fail is None else seen[fail], found
    )


def _middle(ok: Fraction, fail: Fraction) -> Fraction | None:
    """A rate of 3 significant digits near the geometric middle, or None if none lies between."""
    middle = Fraction(f"{math.sqrt(ok * fail):.2e}")
    return middle if ok < middle < fail else None


def _narrow(
    ok: Fraction, fail: Fraction, ratio: float, clock: Clock, holds: Callable[[Fraction], bool]
) -> tuple[Fraction, Fraction]:
    """Bisect (ok, fail) by `holds`, keeping it True at `ok` and False at `fail`; rates of 3 significant digits."""
    while fail / ok > ratio and not clock.is_over:
        middle = _middle(ok, fail)
        if middle is None:
            break
        if holds(middle):
            ok = middle
        else:
            fail = middle
    return ok, fail


def yield_bounds(accuracy: Probability, threshold: Any) -> Probability:
    """Proved bounds on the share of chips whose accuracy is at least `threshold`, from the expected accuracy alone.

    Markov's inequality on both sides: ``1 - (1 - mu) / (1 - T) <= yield <= mu / T``.

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
