"""Parts of a region and of a question, and who answers about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bnnverify.engines.base import Clock
from bnnverify.engines.costs import seconds_to_decide
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, Region

ENUMERATE_UP_TO = 1 << 22  # inputs: next to nothing
_ENUMERATE_SECONDS = 30.0  # as guessed: beyond, the solver may be quicker, and can be stopped and asked again


def within(region: Region, free: Sequence[int]) -> Region:
    """The inputs of the region that agree with its centre outside `free`, a part of its free inputs."""
    if isinstance(region, HammingBall):
        return HammingBall(region.center, min(region.radius, len(free)), tuple(free))
    return FixedIndexRegion(region.center, tuple(free))


def fixing(region: Region, index: int, value: int) -> Region | None:
    """The inputs of the region that have `value` at the free input `index`, or None if there are none."""
    center = tuple(value if i == index else v for i, v in enumerate(region.center))
    free = tuple(i for i in region.free if i != index)
    if isinstance(region, FixedIndexRegion):
        return FixedIndexRegion(center, free)
    radius = region.radius - (region.center[index] != value)
    return None if radius < 0 else HammingBall(center, min(radius, len(free)), free)


def enumeration_seconds(query: Query) -> float:
    """What enumeration should take, s: a guess, 0 where it is next to nothing."""
    return 0.0 if query.sign_region.size() <= ENUMERATE_UP_TO else seconds_to_decide(query)["enumeration"]


def is_enumerable(query: Query, seconds: float | None) -> bool:
    """True if enumeration should settle the query in reasonable time, and in these seconds."""
    most = _ENUMERATE_SECONDS if seconds is None else min(_ENUMERATE_SECONDS, seconds)
    return enumeration_seconds(query) <= most


def negated(query: Query) -> Query:
    """The query whose adversarial inputs are those inputs of the region that are not adversarial in this one."""
    ties = {Ties.COUNTEREXAMPLE: Ties.ROBUST, Ties.ROBUST: Ties.COUNTEREXAMPLE}.get(query.ties, query.ties)
    if isinstance(query.property, Untargeted):
        return replace(query, property=Targeted(query.property.label), ties=ties)
    return replace(query, property=Untargeted(query.property.target), ties=ties)


def wish(clock: Clock) -> str | None:
    """Why to end with what is proved so far; None if nobody wished that."""
    return clock.monitor.reason if clock.monitor is not None and clock.monitor.stop else None
