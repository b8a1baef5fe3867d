"""What an engine is, the limits it honours, and the check that every counterexample passes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from bnnverify.compilation import seconds_compiling
from bnnverify.errors import EngineError, QueryError, ResourceLimitError
from bnnverify.query import Query
from bnnverify.results import Count, Decision
from bnnverify.scalars import integer, real


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may use. A limit that is reached yields UNKNOWN or an interval, with the reason.

    Attributes:
        seconds: Wall time from the call, s; None for no limit.
        nodes: Diagram nodes (BDD) or inputs visited (enumeration); None for no limit.
        memory_bytes: Memory of the engine's own tables, bytes; None for no limit.
        threads: Cores that an engine with parallel loops may use; None for all of this machine.
    """

    seconds: float | None = None
    nodes: int | None = None
    memory_bytes: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "nodes", "memory_bytes", "threads"):
            value = getattr(self, name)
            if value is None:
                continue
            what = f"the limit on {name}"
            number = real(value, what) if name == "seconds" else integer(value, what)
            if not number > 0:
                raise QueryError(f"{what} is {value}, expected a number above 0.")
            object.__setattr__(self, name, number)


UNLIMITED = Limits()


@cache
def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(slots=True)
class Monitor:
    """The line between a running question and whoever waits for it, looked at several times a second.

    Attributes:
        stop: Set it (from a signal handler or another thread) and the engine returns what it has proved so far.
        reason: The sentence of the answer then.
        show: Called with `(lower, upper, size)`: the adversarial inputs are proved to be at least `lower` and at most
            `upper` of `size`. ``size - (upper - lower)`` inputs are settled, so this is progress as well. Also called
            from a count of other things than inputs with whatever those are.
    """

    stop: bool = False
    reason: str = "interrupted"
    show: Callable[[int, int, int], None] | None = None

    def report(self, lower: int, upper: int, size: int) -> None:
        """Pass on what is proved so far."""
        if self.show is not None:
            self.show(lower, upper, size)


@dataclass(slots=True)
class Clock:
    """Stop watch of one call, which also looks at the caller's `Monitor`; it stands while loops are compiled."""

    limit: float | None
    monitor: Monitor | None = None
    start: float = field(default_factory=lambda: time.perf_counter() - seconds_compiling())

    def __post_init__(self) -> None:
        self.limit = None if self.limit is None else real(self.limit, "seconds")

    @property
    def elapsed(self) -> float:
        """Seconds since the start, without those of compiling."""
        return time.perf_counter() - seconds_compiling() - self.start

    @property
    def is_over(self) -> bool:
        """True once the limit has passed, or the caller wants no more."""
        if self.monitor is not None and self.monitor.stop:
            return True
        return self.limit is not None and self.elapsed > self.limit

    def check(self) -> None:
        """Ends the work once the limit has passed, or the caller wants no more.

        Raises:
            ResourceLimitError: It is over.
        """
        if self.is_over:
            raise ResourceLimitError(self.reason)

    @property
    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self.limit is None else max(0.0, self.limit - self.elapsed)

    def words(self, reason: str) -> str:
        """A part's reason as the whole call gives it: the part had only the time that was left."""
        if reason.startswith("time limit of ") and self.limit is not None:
            return f"time limit of {self.limit:g} s reached"
        return reason

    @property
    def reason(self) -> str:
        """The sentence for a result that was cut short."""
        if self.limit is not None and self.elapsed > self.limit:
            return f"time limit of {self.limit:g} s reached"
        return "" if self.monitor is None else self.monitor.reason


class Engine(Protocol):
    """Answers queries exactly, or says why not.

    Engines are stateless values: the same call gives the same answer. They raise `UnsupportedError` for a
    query of a kind they do not serve, and return UNKNOWN or an interval when a limit is reached.
    """

    @property
    def name(self) -> str:
        """Name on the command line."""

    def decide(self, query: Query, *, limits: Limits = ...) -> Decision:
        """Is there an adversarial input in the region?"""

    def count(self, query: Query, *, limits: Limits = ..., monitor: Monitor | None = ...) -> Count:
        """How many inputs of the region are adversarial?"""


def replayed(query: Query, x: Sequence[int], engine: str) -> tuple[tuple[int, ...], int]:
    """`x` and its class after checking by exact evaluation that it is a counterexample.

    Raises:
        EngineError: It is not: a bug in the engine.
    """
    point = tuple(int(v) for v in x)
    if not query.is_adversarial(point):
        raise EngineError(
            f"engine {engine} returned an input that is not a counterexample ({query.property}, {query.region}). "
            "This is a bug in bnnverify; please report it with the network and the input."
        )
    return point, query.network.evaluate(point)
