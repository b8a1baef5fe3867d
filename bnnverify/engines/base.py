"""What an engine is, the limits it honours, and the check that every counterexample passes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bnnverify.errors import EngineError, QueryError
from bnnverify.query import Query
from bnnverify.results import Count, Decision


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may use. A limit that is reached yields UNKNOWN or an interval, with the reason.

    Attributes:
        seconds: Wall time from the call, s; None for no limit.
        nodes: Diagram nodes (BDD) or inputs visited (enumeration); None for no limit.
        memory_bytes: Memory of the engine's own tables, bytes; None for no limit.
    """

    seconds: float | None = None
    nodes: int | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "nodes", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise QueryError(f"the limit on {name} is {value}, expected a number above 0.")


UNLIMITED = Limits()


@dataclass(slots=True)
class Clock:
    """Stop watch of one call."""

    limit: float | None
    start: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def is_over(self) -> bool:
        """True once the limit has passed."""
        return self.limit is not None and self.elapsed > self.limit

    @property
    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self.limit is None else max(0.0, self.limit - self.elapsed)

    @property
    def reason(self) -> str:
        """The sentence for a result that was cut short."""
        return f"time limit of {self.limit:g} s reached"


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

    def count(self, query: Query, *, limits: Limits = ...) -> Count:
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
