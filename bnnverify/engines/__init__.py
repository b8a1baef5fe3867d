"""Engines: each answers queries exactly, behind the small Protocol of `base.py`."""

from __future__ import annotations

from bnnverify.engines.base import Engine
from bnnverify.errors import QueryError

NAMES = ("enumeration", "propagation", "bdd", "sat")
SIGNS_ONLY = ("enumeration", "propagation")
"""Engines that serve -1/+1 inputs only, no boxes."""

DECIDING = ("minicard", "cpsat", "cadical")
"""Engines that decide and do not count."""


def engine_named(name: str) -> Engine:
    """The engine with this name; its libraries are imported only now.

    Raises:
        QueryError: There is none.
    """
    if name == "enumeration":
        from bnnverify.engines.enumeration import EnumerationEngine

        return EnumerationEngine()
    if name == "propagation":
        from bnnverify.engines.propagation import PropagationEngine

        return PropagationEngine()
    if name == "bdd":
        from bnnverify.engines.bdd import BddEngine

        return BddEngine()
    if name == "sat":
        from bnnverify.engines.sat import SatEngine

        return SatEngine()
    if name == "minicard":
        from bnnverify.engines.minicard import MinicardEngine

        return MinicardEngine()
    if name == "cpsat":
        from bnnverify.engines.cpsat import CpsatEngine

        return CpsatEngine()
    if name == "cadical":
        from bnnverify.engines.cadical import CadicalEngine

        return CadicalEngine()
    if name == "approxmc":
        from bnnverify.engines.approxmc import ApproxMcEngine

        return ApproxMcEngine()
    raise QueryError(f"engine is {name!r}, expected auto, {', '.join((*NAMES, *DECIDING))}.")
