"""Is it robust here, and how far is the nearest adversarial input?

Small regions of -1/+1 inputs go to the engine that should be quickest (`engines/portfolio.py`), all others through the
stages of `deciding/`. Every counterexample has been replayed on the exact network by whoever found it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.costs import seconds_to_decide
from bnnverify.engines.portfolio import engine_for
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, PixelBox, RealBox, sign_vector
from bnnverify.results import Decision, Distance, Run, Verdict
from bnnverify.scalars import integer

STAGES = "stages"
_SOON = 0.1  # s: what an engine should settle within that needs no stages


def decide(
    query: Query,
    *,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    jobs: int = 1,
) -> Decision:
    """Whether the region holds an adversarial input, proved.

    Args:
        query: The question.
        engine: ``auto``, ``stages`` (bounds, attack, complete engines: `deciding.stages`), or the name of an engine,
            such as ``enumeration``, ``bdd``, ``sat`` or ``minicard``. Auto predicts what each would cost, takes the
            cheapest, and changes when the guess was wrong; where none should be done at once, it takes the stages.
        limits: Time, nodes, memory and threads.
        monitor: Who may stop the stages.
        jobs: Processes that the stages may use.

    Returns:
        ROBUST or NOT_ROBUST with a replayed counterexample, both exact; UNKNOWN with the reason if a limit was
        reached.

    Raises:
        QueryError: No engine has this name.
    """
    jobs = integer(jobs, "jobs", least=1)
    if engine == STAGES or (engine == "auto" and _needs_stages(query, limits)):
        from bnnverify.deciding import stages

        return stages.decide(query, limits=limits, monitor=monitor, jobs=jobs)
    return engine_for(engine).decide(query, limits=limits)


def _needs_stages(query: Query, limits: Limits) -> bool:
    """True for boxes, and where no engine promises to be done soon."""
    if isinstance(query.region, PixelBox | RealBox):
        return True
    return bool(query.network.blocks) and min(seconds_to_decide(query, limits=limits).values()) > _SOON


def minimum_adversarial_distance(
    network: BinaryNetwork,
    x: Sequence[int],
    *,
    label: int | None = None,
    ties: Ties = Ties.LOWEST_INDEX,
    max_radius: int | None = None,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    jobs: int = 1,
) -> Distance:
    """Hamming distance from `x` to the nearest input whose class is not `label`.

    Args:
        network: A network with binary inputs.
        x: Shape `(n,)`, -1/+1.
        label: The class to keep; default the network's own class of x. If x itself has another class, the
            distance is 0.
        ties: What equal scores mean.
        max_radius: Largest distance to look at; default n (the whole cube).
        engine: As in `decide`. Stages bracket the distance (`deciding.distance`); auto does so, too, unless the whole
            search should be done at once by enumeration, and in networks without hidden blocks.
        limits: Time for the whole search; nodes, memory and threads for each step.
        monitor: Who may stop the search, between two radii or by a `KeyboardInterrupt` once `stop` is set. It is
            shown `(lower, last, last + 1)`: distances below `lower` are excluded, of those up to the last one.
        jobs: Processes that the stages may use.

    Returns:
        Exact if a nearest input was found (`lower == upper`, with the replayed witness). Otherwise `lower` is
        proved, `upper` is that of the nearest adversarial input that was met, or None, and `run.reason` says why the
        search ended.

    Raises:
        QueryError: x, label, max_radius or engine is not valid.
    """
    center = sign_vector(x, "input")
    furthest = network.n_inputs if max_radius is None else integer(max_radius, "max_radius")
    jobs = integer(jobs, "jobs", least=1)
    if label is None:
        Query(network, HammingBall(center, furthest), Untargeted(0), ties)  # refuses wrong arguments before any work
    kept = Untargeted(network.evaluate(center) if label is None else label)
    query = Query(network, HammingBall(center, furthest), kept, ties)
    if engine == STAGES or (engine == "auto" and _needs_stages(query, limits)):
        from bnnverify.deciding.distance import hamming_distance

        return hamming_distance(
            network,
            center,
            label=kept.label,
            ties=ties,
            max_radius=furthest,
            limits=limits,
            monitor=monitor,
            jobs=jobs,
        )
    search = _Outward(query, engine, limits, monitor)
    try:
        return search.answer()
    except KeyboardInterrupt:
        if monitor is None or not monitor.stop:
            raise
        return Distance(search.lower, None, search.run(monitor.reason))


class _Outward:
    """Balls of growing radius around a centre."""

    def __init__(self, query: Query, engine: str, limits: Limits, monitor: Monitor | None) -> None:
        assert isinstance(query.region, HammingBall)
        self.query, self.center, self.furthest = query, query.region.center, query.region.radius
        self.engine, self.limits, self.monitor = engine, limits, monitor
        self.clock = Clock(limits.seconds, monitor)
        self.lower = 0
        self.last = Run(engine)
        self.used: dict[str, None] = {}

    def answer(self) -> Distance:
        """The distance, or how far it is at least."""
        for radius in self._radii():
            if self.monitor is not None:
                self.monitor.report(self.lower, self.furthest, self.furthest + 1)
                if self.monitor.stop:
                    return Distance(self.lower, None, self.run(self.monitor.reason))
            engine = "enumeration" if self.engine == "auto" and self._is_enumerated(radius) else self.engine
            answer = engine_for(engine).decide(self._ball(radius), limits=self._rest())
            self.last = answer.run
            self.used |= dict.fromkeys(answer.run.engine.split("+"))
            if answer.counterexample is not None:  # one of the nearest: nothing below `radius`, or found by enumeration
                found = sum(a != b for a, b in zip(self.center, answer.counterexample, strict=True))
                return Distance(found, found, self.run(), answer.counterexample, answer.predicted)
            if answer.verdict is Verdict.UNKNOWN:
                self.lower = max(self.lower, int(answer.run.statistics.get("radius_proved", -1)) + 1)
                return Distance(self.lower, None, self.run(self.clock.words(answer.run.reason)))
            self.lower = radius + 1
        everywhere = self.furthest == self.query.network.n_inputs
        where = "in the whole cube" if everywhere else f"within distance {self.furthest}"
        return Distance(self.lower, None, self.run(f"no adversarial input {where}"))

    def run(self, reason: str = "") -> Run:
        """How it was obtained so far."""
        return Run("+".join(self.used) or self.engine, self.clock.elapsed, reason, self.last.statistics)

    def _radii(self) -> range:
        """Radii to ask for. Enumeration finds a nearest input in one go; the other engines need every radius."""
        if self.engine == "enumeration":
            return range(self.furthest, self.furthest + 1)
        if self.engine != "auto":
            return range(self.furthest + 1)
        first = bisect_left(range(self.furthest + 1), True, key=lambda radius: not self._is_enumerated(radius))
        return range(max(first - 1, 0), self.furthest + 1)

    def _is_enumerated(self, radius: int) -> bool:
        """True if enumeration should be the quickest way to a verdict on this ball."""
        return next(iter(seconds_to_decide(self._ball(radius), limits=self.limits))) == "enumeration"

    def _ball(self, radius: int) -> Query:
        return replace(self.query, region=HammingBall(self.center, radius))

    def _rest(self) -> Limits:
        """The limits with the time that is left; time that is used up ends the next step at once."""
        left = self.clock.remaining
        return self.limits if left is None else replace(self.limits, seconds=max(left, 1e-9))
