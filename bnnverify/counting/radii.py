"""All radii around an input: how many inputs at each distance are adversarial, exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bnnverify.counting.counts import count_adversarial
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.costs import NEVER, seconds_to_count
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.quantities import RadiusCounts
from bnnverify.query import Property, Query, Targeted, Ties, Untargeted
from bnnverify.regions import HammingBall, sign_vector
from bnnverify.results import Count, Kind, Run
from bnnverify.scalars import flag, integer, integers

CHEAP = 0.5
"""Seconds that are not worth a step of their own: all radii below are counted in one pass."""


def counts_by_radius(
    network: BinaryNetwork,
    x: Sequence[int],
    max_radius: int,
    *,
    label: int | None = None,
    target: int | None = None,
    ties: Ties = Ties.LOWEST_INDEX,
    free: Iterable[int] | None = None,
    by_class: bool = False,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> RadiusCounts:
    """How many inputs at each distance 0 to `max_radius` from `x` are adversarial, as Python integers.

    Radii that cost little, or hardly more than a smaller one, are counted in one pass; the others one after the
    other, so that a search that is cut short keeps every radius it finished.

    Args:
        network: A network with binary inputs.
        x: Shape `(n,)`, -1/+1.
        max_radius: The largest distance, 0 to the number of inputs that may flip.
        label: The class to keep; default the network's own class of x.
        target: Adversarial is this class only; default every class but `label`.
        ties: What equal scores mean.
        free: Indices that may flip; default all.
        by_class: Also count the inputs at each distance by class: one more pass per class.
        engine: As in `count_adversarial`.
        limits: Time for everything together; nodes, memory and threads for each pass.
        monitor: Whom to tell what is proved so far, and who may stop the work.

    Returns:
        Shells, balls and densities; EXACT if no limit was reached. The shells that are there are exact in either case.

    Raises:
        QueryError: x, max_radius, label, target, free or engine is not valid.
    """
    around = Around.of(network, x, integer(max_radius, "max_radius"), label=label, target=target, ties=ties, free=free)
    by_class = flag(by_class, "by_class")
    search = Search(around, engine, limits, monitor)
    shells = tuple(search.run_all())
    per_class = None
    if by_class and not search.reason:
        per_class = _by_class(search)
    return RadiusCounts(around.n, around.ball.radius, shells, search.run(), per_class, search.beyond)


def _by_class(search: Search) -> tuple[tuple[int, ...], ...] | None:
    """For each distance the inputs by class; None if a limit was reached, which `search` then tells."""
    columns = []
    for k in range(search.around.network.n_classes):
        around = replace(search.around, wanted=Targeted(k), ties=Ties.LOWEST_INDEX)
        one = Search(around, search.engine, search.rest(), search.monitor)
        columns.append(list(one.run_all()))
        if one.reason:
            search.reason = one.reason
            return None
    return tuple(zip(*columns, strict=True))


@dataclass(frozen=True, slots=True)
class Around:
    """A question about balls of all radii up to one.

    Attributes:
        network: The network.
        ball: The largest ball.
        wanted: What is adversarial.
        ties: What equal scores mean.
        indices: Inputs that may flip, in order.
    """

    network: BinaryNetwork
    ball: HammingBall
    wanted: Property
    ties: Ties
    indices: tuple[int, ...]

    @classmethod
    def of(
        cls,
        network: BinaryNetwork,
        x: Sequence[int],
        max_radius: int | None,
        *,
        label: int | None,
        target: int | None = None,
        ties: Ties,
        free: Iterable[int] | None = None,
    ) -> Around:
        """The question that the arguments of an analysis mean; raises what a wrong one raises, before any work."""
        if label is not None and target is not None:
            raise QueryError("label and target are both given, expected one: the class to keep or the class to reach.")
        center = sign_vector(x, "input")
        indices = tuple(range(len(center))) if free is None else tuple(sorted(integers(free, "free")))
        ball = HammingBall(center, len(indices) if max_radius is None else max_radius, indices)
        wanted: Property = Untargeted(label if label is not None else 0) if target is None else Targeted(target)
        Query(network, ball, wanted, ties)
        if label is None and target is None:
            wanted = Untargeted(network.evaluate(center))
        return cls(network, ball, wanted, ties, indices)

    @property
    def n(self) -> int:
        """How many inputs may flip."""
        return len(self.indices)

    def within(self, radius: int) -> Around:
        """The same with another largest radius."""
        return replace(self, ball=HammingBall(self.ball.center, radius, self.indices))

    def query(self, radius: int) -> Query:
        """The question about one of the balls."""
        ball = HammingBall(self.ball.center, radius, self.indices)
        return Query(self.network, ball, self.wanted, self.ties)


class Search:
    """Counts ball after ball, in as few passes as the predicted costs allow."""

    def __init__(self, around: Around, engine: str, limits: Limits, monitor: Monitor | None) -> None:
        self.around, self.engine, self.limits, self.monitor = around, engine, limits, monitor
        self.clock = Clock(limits.seconds, monitor)
        self.reason = ""
        self.beyond: tuple[int, int] | None = None
        self._runs: list[Run] = []
        self._one_by_one = False

    def rest(self) -> Limits:
        """The limits with the time that is left."""
        left = self.clock.remaining
        return self.limits if left is None else replace(self.limits, seconds=max(left, 1e-9))

    def run_all(self) -> Iterator[int]:
        """Adversarial inputs at distance 0, 1, ...; ends early, with `reason` and `beyond`, at a limit."""
        found = 0
        radius = -1
        while radius < self.around.ball.radius:
            shells = self._next(radius + 1, found)
            if shells is None:
                return
            yield from shells
            found += sum(shells)
            radius += len(shells)

    def next_radius(self, radius: int) -> int:
        """The largest radius that costs little, or hardly more than `radius`, which is at least its value."""
        last = self.around.ball.radius
        if self._one_by_one or radius == last:
            return radius
        bound = max(CHEAP, 2 * self.seconds(radius))
        return max(radius, bisect_right(range(last + 1), bound, lo=radius, key=self.seconds) - 1)

    def step_one_by_one(self) -> None:
        """From now on every radius has a pass of its own."""
        self._one_by_one = True

    def seconds(self, radius: int) -> float:
        """Guessed seconds for this ball."""
        guesses = seconds_to_count(self.around.query(radius), limits=self.limits)
        return min(guesses.values(), default=NEVER) if self.engine == "auto" else guesses.get(self.engine, NEVER)

    def count(self, radius: int, monitor: Monitor | None = None) -> Count:
        """The count of one ball, within the time that is left."""
        watched = self.monitor if monitor is None else monitor
        answer = count_adversarial(self.around.query(radius), engine=self.engine, limits=self.rest(), monitor=watched)
        self._runs.append(answer.run)
        return answer

    def run(self) -> Run:
        """How everything was obtained."""
        engines = dict.fromkeys(name for run in self._runs for name in run.engine.split("+"))
        statistics = {"passes": len(self._runs)}
        choices = [run.statistics["choice"] for run in self._runs if "choice" in run.statistics]
        last = {"choice": choices[-1]} if choices else {}
        return Run("+".join(engines) or self.engine, self.clock.elapsed, self.reason, statistics | last)

    def _next(self, radius: int, found: int) -> Sequence[int] | None:
        """The shells from `radius` on that one pass brings; None at a limit. `found` counts the shells before."""
        last = self.next_radius(radius)
        answer = self.count(last)
        if answer.kind is Kind.EXACT and answer.per_radius is not None:
            return answer.per_radius[radius:]
        if last == radius and answer.kind is Kind.EXACT:
            return [answer.adversarial - found]
        if last > radius and not self.clock.is_over:
            self.step_one_by_one()  # this pass was too much for some limit, or does not tell the shells apart
            return self._next(radius, found)
        self.reason = self.clock.words(answer.run.reason)
        upper = min(answer.upper, self.around.query(radius).sign_region.size())
        self.beyond = (max(found, answer.lower if last == radius else found), upper)
        return None
