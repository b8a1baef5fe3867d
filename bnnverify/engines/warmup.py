"""Compiling the loops of an engine before its time is taken.

numba compiles a loop when it is first called and keeps the machine code on disk, so this takes a quarter of a minute
once per installation and a moment in every later process.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnverify.compilation import has_code
from bnnverify.engines import batches
from bnnverify.engines.base import Limits
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, Region

COMPILING = {"enumeration": 24.0, "propagation": 26.0, "bdd": 15.0}
"""Seconds of one core for the loops of an engine where none is kept."""

_ready: set[tuple[str, bool]] = set()


def prepare(engine: str, query: Query, limits: Limits) -> None:
    """Has the loops compiled that this engine needs for this question: runs it on one that is small, but open.

    Args:
        engine: Name; those that compile nothing are ready at once.
        query: The question.
        limits: Its limits, with which it may be so small that no loop is needed.
    """
    if not _is_needed(engine, query, limits):
        return
    is_ball = isinstance(query.region, HammingBall)
    _ready.add((engine, is_ball))
    _run(engine, is_ball)


def seconds_to_start(engine: str, query: Query, limits: Limits) -> float:
    """What an engine takes for this question beside its work in compiled loops, s: to compile them, or to do without.

    Args:
        engine: Name.
        query: The question.
        limits: Its limits.
    """
    if engine not in COMPILING or not query.network.domain.is_binary or query.network.has_convolutions:
        return 0.0
    if engine == "enumeration" and batches.is_small([query], limits):
        return batches.seconds(query)
    return 0.0 if has_code(_main_loop(engine, isinstance(query.region, HammingBall))) else COMPILING[engine]


def _main_loop(engine: str, is_ball: bool) -> Any:
    if engine == "bdd":
        from bnnverify.encodings import layerkernel

        return layerkernel.expand
    from bnnverify.engines import merging, walks

    if engine == "propagation":
        return merging.spread
    return walks.walk_shell if is_ball else walks.walk_settings


def _is_needed(engine: str, query: Query, limits: Limits) -> bool:
    """Whether the engine needs loops for this question that it has not asked for yet."""
    if engine not in ("enumeration", "propagation") or (engine, isinstance(query.region, HammingBall)) in _ready:
        return False
    if not query.network.domain.is_binary or query.network.has_convolutions:
        return False
    return engine == "propagation" or not batches.is_small([query], limits)


def _run(engine: str, is_ball: bool) -> None:
    center, limits = (1,) * 24, Limits(threads=1)
    region: Region
    if engine == "enumeration":
        from bnnverify.engines.enumeration import EnumerationEngine

        batches.use_loops()
        region = HammingBall(center, 3) if is_ball else FixedIndexRegion(center, tuple(range(12)))
        EnumerationEngine().count(_question(region), limits=limits)
    else:
        from bnnverify.engines.propagation import PropagationEngine

        region = HammingBall(center, 12) if is_ball else FixedIndexRegion(center, tuple(range(24)))
        PropagationEngine().count(_question(region), limits=limits)


def _question(region: Region) -> Query:
    rng = np.random.default_rng(0)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (rows, columns)), np.zeros(rows)) for rows, columns in ((9, 24), (7, 9))
    )
    network = BinaryNetwork(InputDomain.binary(24), blocks, OutputBlock.create(rng.choice([-1, 1], (4, 7))))
    return Query(network, region, Untargeted(0))
