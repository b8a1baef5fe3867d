"""How many inputs of a region are adversarial: exact counts, never estimates."""

from __future__ import annotations

from bnnverify.engines.base import UNLIMITED, Limits, Monitor
from bnnverify.engines.portfolio import engine_for
from bnnverify.query import Query
from bnnverify.results import Count


def count_adversarial(
    query: Query, *, engine: str = "auto", limits: Limits = UNLIMITED, monitor: Monitor | None = None
) -> Count:
    """The number of adversarial inputs in the region, as a Python integer.

    Args:
        query: The question.
        engine: ``auto`` or the name of an engine, such as ``enumeration``, ``bdd`` or ``sat``. Auto predicts what each
            would cost, takes the cheapest, and changes when the guess was wrong; `run.statistics` says how it went.
        limits: Time, nodes, memory and threads.
        monitor: Whom to tell what is proved so far, and who may stop the work.

    Returns:
        Kind EXACT, with counts by class and, for a Hamming ball, by distance; or, if a limit was reached or the
        monitor said stop, kind INTERVAL with two proved bounds and the reason.

    Raises:
        QueryError: No engine has this name.
    """
    return engine_for(engine).count(query, limits=limits, monitor=monitor)
