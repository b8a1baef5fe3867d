"""The tolerable bit error rate for a target accuracy: two certified points around the crossing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError
from bnnverify.faults import BitFlip, rate
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.accuracy import UNDECIDED
from bnnverify.reliability.probability import DEFAULT_MAX_STATES, DEFAULT_TOLERANCE
from bnnverify.reliability.reach import TargetAccuracy
from bnnverify.results import Probability, Run
from bnnverify.scalars import integer, real


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


@about_cells
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
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
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
        tolerance: Finest width to aim at for each image. Every rate is tried coarsely first, finer only while the
            interval straddles the target, and no longer than until the rate is settled (`reach`).
        max_states: Most work for each image.
        jobs: Threads.
        seconds: Time limit for the whole search, s.
        monitor: Its `stop` ends the search; the bracket found by then is the answer.
        progress: Called with 1 after every image that was bounded.

    Raises:
        QueryError: A rate or the target is not within [0, 1], or lowest >= highest.
    """
    goal, low, high = rate(target, "target accuracy"), rate(lowest, "lowest"), rate(highest, "highest")
    ratio, max_states = real(ratio, "ratio"), integer(max_states, "max_states", least=1)
    if not 0 < low < high or not ratio > 1:
        raise QueryError(
            f"the search runs from {low} to {high} with ratio {ratio}, expected 0 < lowest < highest, 1 < ratio."
        )
    clock, seen = Clock(seconds, monitor), dict[Fraction, Probability]()
    question = TargetAccuracy(network, images, labels, goal, tolerance, max_states, jobs, progress)

    def accuracy(effort: int, p: Fraction) -> Probability:
        """What is known at p after this effort."""
        known = seen.get(p, UNDECIDED)
        if (p not in seen or known.lower < goal <= known.upper) and not clock.is_over:
            found = question.reached(BitFlip(p), clock=clock, finest=effort).accuracy
            known = Probability.interval(max(known.lower, found.lower), min(known.upper, found.upper))
            seen[p] = known
        return known

    def keeps(effort: int, p: Fraction) -> bool:
        return accuracy(effort, p).lower >= goal

    def may_keep(effort: int, p: Fraction) -> bool:
        return accuracy(effort, p).upper >= goal

    for p in (Fraction(0), low, high):
        if not may_keep(max_states, p):
            break
    for effort in question.efforts:  # coarse bounds narrow the bracket as far as they can, then finer ones
        ok, fail = _certified(seen, goal)
        if ok is not None and fail is not None and ok > 0:
            _narrow(ok, fail, ratio, clock, partial(keeps, effort))
        ok, fail = _certified(seen, goal)
        if ok is not None and fail is not None and fail > low:
            _narrow(max(ok, low), fail, ratio, clock, partial(may_keep, effort))
    ok, fail = _certified(seen, goal)
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


def _certified(seen: dict[Fraction, Probability], goal: Fraction) -> tuple[Fraction | None, Fraction | None]:
    """The greatest rate proved to reach the goal, and the least one above it proved to miss it."""
    ok = max((p for p, a in seen.items() if a.lower >= goal), default=None)
    return ok, min((p for p, a in seen.items() if a.upper < goal and (ok is None or p > ok)), default=None)


def _middle(ok: Fraction, fail: Fraction) -> Fraction | None:
    """A rate of 3 significant digits near the geometric middle, or None if none lies between."""
    middle = Fraction(f"{math.sqrt(ok * fail):.2e}")
    return middle if ok < middle < fail else None


def _narrow(ok: Fraction, fail: Fraction, ratio: float, clock: Clock, holds: Callable[[Fraction], bool]) -> None:
    """Bisect by `holds`, which remembers, True at `ok` and False at `fail`; rates of 3 significant digits."""
    while fail / ok > ratio and not clock.is_over:
        middle = _middle(ok, fail)
        if middle is None:
            break
        if holds(middle):
            ok = middle
        else:
            fail = middle
