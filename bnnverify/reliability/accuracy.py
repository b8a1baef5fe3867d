"""From images to chips: certified expected accuracy over a data set, and its curve.

The expected accuracy at a fault model is the mean over images of P(correct): exact because expectation is
linear, although the images of one chip share its faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any

from numpy.typing import ArrayLike

from bnnverify.engines.base import Clock
from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.probability import DEFAULT_MAX_STATES, DEFAULT_TOLERANCE, FaultyNetwork, require_positive
from bnnverify.reliability.rounding import float_below
from bnnverify.reliability.unfinished import unfinished
from bnnverify.results import Kind, Probability, Run
from bnnverify.scalars import integer, integers

Progress = Callable[[int], Any]
_PASSES = (1, 1024, 16384, 131072)  # efforts of the passes under a time limit
_GRID = 2**100  # keeps the mean of many images short enough to print
UNDECIDED = Probability.interval(Fraction(0), Fraction(1))


@dataclass(frozen=True, slots=True)
class AccuracyPoint:
    """Expected accuracy of the chips under one fault model.

    Attributes:
        faults: The fault model.
        accuracy: Proved bounds on the mean over images of P(correct).
        per_image: P(error) of every image; [0, 1] for images that a time limit left out.
        run: Time, and the reason if images were left out or stayed wider than the tolerance.
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


@about_cells
def image_errors(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    indices: Sequence[int] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    jobs: int = 1,
    seconds: float | None = None,
) -> Iterator[tuple[int, Probability]]:
    """P(error) of image after image, each as soon as it is final.

    With a time limit, all images get a first, coarse answer; the widest ones are then refined, effort by effort, as
    long as time remains. Without one, each image is brought to `tolerance` or `max_states` at once.

    Args:
        network: As in `error_probability`.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`, the true labels (event *error*), or the fault-free classes (event *change*).
        faults: Rates of the cells.
        indices: The images to answer, in this order of preference; all by default.
        tolerance: Width to aim at for each image.
        max_states: Work limit for each image.
        jobs: Threads; the heavy loops run without the interpreter lock.
        seconds: Time limit, s; looked at between images (within one, where there are several hidden blocks). Images
            that were not reached are not yielded.

    Yields:
        (index, proved bounds), in the order in which they become final.

    Raises:
        QueryError: No images, different numbers of images and labels, an index that does not exist, or a bad argument.
    """
    points = network.require_images(images, labels)
    tolerance, max_states = require_positive(tolerance, max_states)
    jobs = integer(jobs, "jobs", least=1)
    wanted = list(range(len(points)) if indices is None else integers(indices, "indices"))
    for i in wanted:
        if not 0 <= i < len(points):
            raise QueryError(f"index {i} was asked for, expected 0 to {len(points) - 1}.")
    clock, faulty = Clock(seconds), FaultyNetwork(network, faults)
    for label in {network.require_class(v) for v in labels}:
        faulty.tables(label)  # before the threads share them
    found: dict[int, Probability] = {}
    passes = [max_states] if seconds is None else [s for s in _PASSES if s < max_states] + [max_states]

    def answer(i: int, states: int) -> int | None:
        if clock.is_over:
            return None
        new = faulty.error_probability(points[i], int(labels[i]), tolerance=tolerance, max_states=states, clock=clock)
        found[i] = _tighter(found.get(i), new)
        return i

    for states in passes:
        done: list[int] = []
        for i in _finished([partial(answer, i, states) for i in wanted], jobs):
            if found[i].width <= tolerance or states == max_states:
                done.append(i)
                yield i, found[i]
        final = set(done)
        wanted = sorted((i for i in wanted if i not in final), key=lambda i: -found[i].width if i in found else -2)
        if clock.is_over or not wanted:
            break
    for i in wanted:
        if i in found:
            yield i, found[i]


def _tighter(old: Probability | None, new: Probability) -> Probability:
    """What both prove together."""
    if old is None or new.kind is Kind.EXACT:
        return new
    return Probability.interval(max(old.lower, new.lower), min(old.upper, new.upper))


def _finished(tasks: Sequence[Callable[[], int | None]], jobs: int) -> Iterator[int]:
    """Results of the tasks as they come, without None; what has not begun is dropped if nobody asks on."""
    if jobs == 1:
        yield from (i for i in (task() for task in tasks) if i is not None)
        return
    with ThreadPoolExecutor(jobs) as pool:
        waiting, queue = set[Future[int | None]](), iter(tasks)
        try:
            while True:
                waiting.update(pool.submit(task) for task in islice(queue, 4 * jobs - len(waiting)))
                if not waiting:
                    return
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (i for i in (future.result() for future in ready) if i is not None)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@about_cells
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
        seconds: Time limit, s; see `image_errors`. Images not reached in time count as [0, 1]: wider, still proved.
        progress: Called with 1 whenever an image is final.

    Returns:
        The accuracy, and P(error) of every image.

    Raises:
        QueryError: No images, different numbers of images and labels, or a bad argument.
    """
    clock = Clock(seconds)
    options = {"tolerance": tolerance, "max_states": max_states, "jobs": jobs, "seconds": seconds}
    per_image = [UNDECIDED] * len(labels)
    left_out = len(labels)
    for i, answer in image_errors(network, images, labels, faults, **options):  # type: ignore[arg-type]
        per_image[i] = answer
        left_out -= 1
        if progress is not None:
            progress(1)
    reason = unfinished(clock.reason, per_image, tolerance, left_out) if clock.is_over else ""
    return AccuracyPoint(faults, mean_accuracy(per_image), tuple(per_image), Run("convolution", clock.elapsed, reason))


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
