"""Is the expected accuracy at least a target? Decided with as few images and as coarse bounds as the answer allows.

Every image not looked at counts as [0, 1]. Images are bounded coarsely first, in the order that a rate seen before
suggests (the surest ones to prove the target, the likely errors to refute it), and refined widest first, until the sum
of the lower or of the upper ends settles the question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.faults import FaultModel, rate
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.probability import DEFAULT_MAX_STATES, DEFAULT_TOLERANCE, FaultyNetwork, require_positive
from bnnverify.results import Probability, Run
from bnnverify.scalars import integer

T = TypeVar("T")

_GRID = 2**100  # sums of bounds are integers in units of 2^-100, each rounded outward
_COARSE_STATES = (1, 32, 512)
_CHUNK = 128  # images between two looks at the clock


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether the expected accuracy under a fault model is at least a target.

    Attributes:
        target: The accuracy asked for.
        faults: The fault model.
        reached: True and False are proved; None where the bounds straddle the target, or a limit was reached.
        accuracy: Proved bounds, as narrow as the question needed.
        images: Images that were looked at; the others count as anything.
        run: Time, and why there is no answer.
    """

    target: Fraction
    faults: FaultModel
    reached: bool | None
    accuracy: Probability
    images: int
    run: Run

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "reach",
            "target": str(self.target),
            "faults": self.faults.to_json(),
            "reached": self.reached,
            "accuracy": self.accuracy.to_json(),
            "images": self.images,
            "run": self.run.to_json(),
        }


@dataclass(slots=True)
class TargetAccuracy:
    """A target over a data set, asked about one fault model after the other; what one question saw orders the next.

    Attributes:
        network: As in `expected_accuracy`.
        images: As in `expected_accuracy`.
        labels: As in `expected_accuracy`.
        target: The accuracy asked for, within [0, 1].
        tolerance: Finest width to aim at for each image.
        max_states: Most work for each image.
        jobs: Threads.
        progress: Called with 1 after every image that was bounded.
    """

    network: BinaryNetwork
    images: ArrayLike
    labels: Sequence[int]
    target: Any
    tolerance: float = DEFAULT_TOLERANCE
    max_states: int = DEFAULT_MAX_STATES
    jobs: int = 1
    progress: Callable[[int], Any] | None = None
    goal: Fraction = field(init=False)
    _points: NDArray[np.int64] = field(init=False)
    _labels: NDArray[np.int64] = field(init=False)
    _guess: NDArray[np.float64] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.goal = rate(self.target, "target accuracy")
        self._points = self.network.require_images(self.images, self.labels)
        self._labels = np.array([self.network.require_class(label) for label in self.labels], dtype=np.int64)
        self.tolerance, self.max_states = require_positive(self.tolerance, self.max_states)
        self.jobs = integer(self.jobs, "jobs", least=1)

    @property
    def efforts(self) -> tuple[int, ...]:
        """States for each image, coarse to fine: what `reached` goes through."""
        return (*(states for states in _COARSE_STATES if states < self.max_states), self.max_states)

    def reached(self, faults: FaultModel, *, clock: Clock | None = None, finest: int | None = None) -> Reach:
        """Is the expected accuracy under `faults` at least the target?

        Args:
            faults: Rates of the cells.
            clock: Time limit and monitor.
            finest: The last of `efforts` to go through; None for all of them.
        """
        clock = Clock(None) if clock is None else clock
        start = clock.elapsed
        count = len(self._points)
        lower, upper = [0] * count, [_GRID] * count
        least, most = 0, count * _GRID
        allowed = (1 - self.goal) * count * _GRID
        answer: bool | None = None
        seen: set[int] = set()
        for i, error in self._bounds(faults, lower, upper, clock, finest or self.max_states):
            seen.add(i)
            low = max(lower[i], error.lower.numerator * _GRID // error.lower.denominator)
            high = min(upper[i], -(-error.upper.numerator * _GRID // error.upper.denominator))
            least, most = least + low - lower[i], most + high - upper[i]
            lower[i], upper[i] = low, high
            if most <= allowed or least > allowed:
                answer = most <= allowed
                break
        self._remember(lower, upper, seen)
        size = count * _GRID
        accuracy = Probability.interval(1 - Fraction(most, size), 1 - Fraction(least, size))
        reason = ""
        if answer is None:
            reason = clock.reason if clock.is_over else "the bounds straddle the target"
        return Reach(self.goal, faults, answer, accuracy, len(seen), Run("convolution", clock.elapsed - start, reason))

    def _bounds(
        self, faults: FaultModel, lower: list[int], upper: list[int], clock: Clock, finest: int
    ) -> Iterator[tuple[int, Probability]]:
        """Bounds of image after image, coarse ones first; `lower` and `upper` are what is known meanwhile."""
        faulty, order = FaultyNetwork(self.network, faults), self._first_order()
        for label in np.unique(self._labels).tolist():
            faulty.tables(label)  # before the threads share them
        for states in (s for s in self.efforts if s <= finest):
            width = max(self.tolerance, 1 / (states + 1)) if states < self.max_states else self.tolerance
            one = partial(self._bounded, faulty, width, states, clock)
            for at in range(0, len(order), _CHUNK * self.jobs):
                for i, error in _in_threads(one, order[at : at + _CHUNK * self.jobs].tolist(), self.jobs):
                    if error is None:
                        return
                    if self.progress is not None:
                        self.progress(1)
                    yield i, error
            widths = np.array([float(b - a) for a, b in zip(lower, upper, strict=True)])
            order = np.argsort(-widths, kind="stable")
            order = order[: np.count_nonzero(widths > self.tolerance * _GRID)]

    def _bounded(
        self, faulty: FaultyNetwork, width: float, states: int, clock: Clock, i: int
    ) -> tuple[int, Probability | None]:
        if clock.is_over:
            return i, None
        label = int(self._labels[i])
        return i, faulty.error_probability(self._points[i], label, tolerance=width, max_states=states, clock=clock)

    def _first_order(self) -> NDArray[np.intp]:
        if self._guess is None:
            return np.arange(len(self._points))
        failing = self._guess.mean() > float(1 - self.goal)
        return np.argsort(-self._guess if failing else self._guess, kind="stable")

    def _remember(self, lower: list[int], upper: list[int], seen: set[int]) -> None:
        if self._guess is None:
            self._guess = np.full(len(self._points), 0.5)
        for i in seen:
            self._guess[i] = (lower[i] + upper[i]) / (2 * _GRID)


def _in_threads(one: Callable[[int], T], items: list[int], jobs: int) -> Iterator[T]:
    """The answers in order, by some threads; those not asked for any more are not computed."""
    if jobs == 1:
        yield from map(one, items)
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(one, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@about_cells
def accuracy_reaches(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    target: Any,
    faults: FaultModel,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    jobs: int = 1,
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Reach:
    """Is the expected accuracy of the chips at least `target`? Stops as soon as that is proved or refuted.

    Args:
        network: As in `expected_accuracy`.
        images: As in `expected_accuracy`.
        labels: As in `expected_accuracy`.
        target: Accuracy within [0, 1].
        faults: Rates of the cells.
        tolerance: Finest width to aim at for each image.
        max_states: Most work for each image.
        jobs: Threads.
        seconds: Time limit, s.
        monitor: Its `stop` ends the search; what is proved by then is the answer.
        progress: Called with 1 after every image that was bounded.

    Returns:
        The answer with the bounds that were enough for it.

    >>> from bnnverify.faults import BitFlip
    >>> from bnnverify.network import InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]]))
    >>> accuracy_reaches(net, [[1]], [0], "0.98", BitFlip("0.1")).reached  # 0.99: both cells must flip for an error
    True
    """
    question = TargetAccuracy(network, images, labels, target, tolerance, max_states, jobs, progress)
    return question.reached(faults, clock=Clock(seconds, monitor))
