"""How many inputs of a region are adversarial: exact counts, never estimates."""

from __future__ import annotations

from bnnverify.engines import engine_named
from bnnverify.engines.base import UNLIMITED, Limits
from bnnverify.query import Query
from bnnverify.results import Count

ENUMERATE_UP_TO = 200_000_000  # inputs: about a minute or two of enumeration


def count_adversarial(query: Query, *, engine: str = "auto", limits: Limits = UNLIMITED) -> Count:
    """The number of adversarial inputs in the region, as a Python integer.

    Args:
        query: The question.
        engine: One of "auto", "enumeration", "bdd", "sat". Auto enumerates regions of up to 200 million inputs
            and builds BDDs for larger ones.
        limits: Time, nodes and memory.

    Returns:
        Kind EXACT, with counts by class and, for a Hamming ball, by distance; or, if a limit was reached, kind
        INTERVAL with two proved bounds and the reason.

    Raises:
        QueryError: No engine has this name.
    """
    if engine == "auto":
        engine = "enumeration" if query.region.size() <= ENUMERATE_UP_TO else "bdd"
    return engine_named(engine).count(query, limits=limits)
