"""Minimum adversarial distance: a bracket of radii, its lower end proved and its upper end replayed.

Radii are integers. An attack finds some adversarial input first; the bracket is then halved by decisions
(`stages.decide`), each of which gets a share of the time that is left. A radius that stays open is put aside: smaller
radii are easier to prove robust, larger ones easier to attack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bnnverify.blas import one_blas_thread
from bnnverify.deciding.attack import attack
from bnnverify.deciding.stages import decide
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, PixelBox, sign_vector
from bnnverify.results import Distance, Run, Verdict
from bnnverify.scalars import integer

_SHARE = 0.5  # of the time that is left, for one radius
_ROUNDS = 12  # of an attack that looks for a nearer input


def hamming_distance(
    network: BinaryNetwork,
    x: Sequence[int],
    *,
    label: int | None = None,
    ties: Ties = Ties.LOWEST_INDEX,
    max_radius: int | None = None,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    jobs: int = 1,
) -> Distance:
    """Fewest inputs that must flip to change the class.

    Args:
        network: A network over -1/+1.
        x: Shape `(n,)`, -1/+1.
        label: The class to keep; default the network's own class of x.
        ties: What equal scores mean.
        max_radius: Largest distance to look at; default n.
        limits: Time for the whole search.
        monitor: Who may stop it, also by a `KeyboardInterrupt` once `stop` is set; is shown `(lower, last, last + 1)`
            where all distances below `lower` are excluded.
        jobs: Processes for complete engines.

    Returns:
        Exact if the ends meet; else `lower` is proved, `upper` is the distance of the replayed witness, if there is
        one, and `run.reason` says what ended the search.
    """
    center = sign_vector(x, "input")
    furthest = network.n_inputs if max_radius is None else max_radius
    kept = Untargeted(network.evaluate(center) if label is None else label)

    def at(radius: int) -> Query:
        return Query(network, HammingBall(center, radius), kept, ties)

    def measure(point: Sequence[int]) -> int:
        return sum(a != b for a, b in zip(point, center, strict=True))

    return _Bracket(at, measure, furthest, limits, monitor, jobs).answer()


def linf_distance(
    network: BinaryNetwork,
    x: Sequence[int],
    *,
    label: int | None = None,
    ties: Ties = Ties.LOWEST_INDEX,
    max_radius: int | None = None,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    jobs: int = 1,
) -> Distance:
    """Least change of all inputs at once, in their own units, that changes the class: over integers.

    Args:
        network: A network over integers, such as pixels 0 to 255.
        x: Shape `(n,)`, integers of the domain.
        label: The class to keep; default the network's own class of x.
        ties: What equal scores mean.
        max_radius: Largest distance to look at; default as far as the domain reaches.
        limits: Time for the whole search.
        monitor: As in `hamming_distance`.
        jobs: Processes for complete engines.

    Returns:
        As in `hamming_distance`, with `norm` saying ``linf``.

    Raises:
        QueryError: The network takes -1/+1 inputs, or an argument is not valid.
    """
    if network.domain.is_binary:
        raise QueryError("the network takes -1/+1 inputs, expected integers. Ask for the Hamming distance.")
    center = network.domain.require(x)
    reach = int(np.maximum(network.domain.upper - center, center - network.domain.lower).max())
    furthest = reach if max_radius is None else min(integer(max_radius, "max_radius", least=0), reach)
    kept = Untargeted(network.evaluate(center) if label is None else label)

    def at(radius: int) -> Query:
        return Query(network, PixelBox.linf(center.tolist(), radius, network.domain), kept, ties)

    def measure(point: Sequence[int]) -> int:
        return int(np.abs(np.array(point, dtype=np.int64) - center).max())

    return replace(_Bracket(at, measure, furthest, limits, monitor, jobs).answer(), norm="linf")


class _Bracket:
    """All that is known of a distance: at least `lower`, and `witness` lies at `upper`."""

    def __init__(
        self,
        at: Callable[[int], Query],
        measure: Callable[[Sequence[int]], int],
        furthest: int,
        limits: Limits,
        monitor: Monitor | None,
        jobs: int,
    ) -> None:
        if furthest < 0:
            raise QueryError(f"max_radius is {furthest}, expected at least 0.")
        self.at, self.measure, self.furthest = at, measure, furthest
        self.limits, self.monitor, self.jobs = limits, monitor, integer(jobs, "jobs", least=1)
        self.clock = Clock(limits.seconds, monitor)
        self.lower = 0
        self.upper: int | None = None
        self.witness: tuple[int, ...] | None = None
        self.steps: list[list[object]] = []
        self.reason = ""

    def answer(self) -> Distance:
        """The distance, or a bracket of it."""
        self.at(self.furthest)  # refuses what makes no sense before any work
        try:
            with one_blas_thread():
                self.attacks()
                self.proofs()
        except KeyboardInterrupt:
            if self.monitor is None or not self.monitor.stop:
                raise
            self.reason = self.monitor.reason
        predicted = None
        if self.upper is not None and self.witness is not None:
            self.witness, predicted = replayed(self.at(self.upper), self.witness, "distance")
        elif self.lower > self.furthest:
            self.reason = f"no adversarial input within distance {self.furthest}"
        engines = dict.fromkeys(str(step[1]) for step in self.steps)
        run = Run("+".join(engines) or "attack", self.clock.elapsed, self.reason, {"radii": self.steps})
        return Distance(self.lower, self.upper, run, self.witness, predicted)

    def attacks(self) -> None:
        """An upper end: the first radius of 0, 1, 2, 4, ... where an attack succeeds, and then smaller ones."""
        radius = 0
        while self.upper is None and not self.clock.is_over:
            self.attacked(radius, 3)
            if radius >= self.furthest:
                break
            radius = min(max(1, 2 * radius), self.furthest)
        while self.upper and not self.clock.is_over:
            if not self.attacked(self.upper - 1, _ROUNDS):
                break

    def attacked(self, radius: int, rounds: int) -> bool:
        """Whether an attack within the radius succeeded."""
        seconds = self.clock.remaining
        limits = self.limits if seconds is None else replace(self.limits, seconds=max(0.2 * seconds, 1e-3))
        found = attack(self.at(radius), limits=limits, monitor=self.monitor, rounds=rounds, seed=radius)
        if found.counterexample is None:
            return False
        self.nearer(found.counterexample)
        return True

    def nearer(self, point: tuple[int, ...]) -> None:
        """A nearer adversarial input."""
        distance = self.measure(point)
        if self.upper is None or distance < self.upper:
            self.upper, self.witness = distance, point

    def proofs(self) -> None:
        """Halves the bracket until its ends meet, or what is between stays open."""
        open_from: int | None = None  # at this radius no stage knew, so proofs are sought below and inputs above
        while not self.clock.is_over:
            if self.monitor is not None:
                self.monitor.report(self.lower, self.furthest, self.furthest + 1)
            last = self.furthest if self.upper is None else self.upper - 1
            top = last if open_from is None else min(last, open_from - 1)
            if self.lower > last:
                break
            radius, seconds = (self.lower + top + 1) // 2, self.clock.remaining
            if self.lower > top:  # all that is left has been tried once: the least radius gets the rest of the time
                if seconds is None:
                    break
                radius = self.lower
            share = _SHARE if radius > self.lower else 1.0
            limits = self.limits if seconds is None else replace(self.limits, seconds=max(share * seconds, 1e-3))
            answer = decide(self.at(radius), limits=limits, monitor=self.monitor, jobs=self.jobs)
            self.steps.append([radius, answer.run.engine, answer.verdict.value, round(answer.run.seconds, 6)])
            if answer.counterexample is not None:
                self.nearer(answer.counterexample)
            elif answer.verdict is Verdict.ROBUST:
                self.lower = radius + 1
            else:
                open_from = radius
                self.reason = f"open at {radius}: {self.clock.words(answer.run.reason)}"
        if self.clock.is_over:
            self.reason = self.clock.reason
        if self.upper is not None and self.lower == self.upper:
            self.reason = ""
