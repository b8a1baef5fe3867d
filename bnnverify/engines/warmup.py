"""Compiling the loops of an engine before its time is taken.

numba compiles a loop when it is first called and keeps the machine code on disk, so this takes a quarter of a minute
once per installation and a moment in every later process.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Timer

import numpy as np

from bnnverify.engines import batches
from bnnverify.engines.base import Limits
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, Region

notice: Callable[[], None] | None = None
"""Called where compiling takes more than two seconds."""

_ready: set[tuple[str, bool]] = set()


def prepare(engine: str, query: Query, limits: Limits) -> None:
    """Has the loops compiled that this engine needs for this question: runs it on one that is small, but open.

    Args:
        engine: Name; those that compile nothing are ready at once.
        query: The question.
        limits: Its limits, with which it may be so small that no loop is needed.
    """
    is_ball = isinstance(query.region, HammingBall)
    if (
        engine not in ("enumeration", "propagation")
        or (engine, is_ball) in _ready
        or not query.network.domain.is_binary
    ):
        return
    if query.network.has_convolutions or (engine == "enumeration" and batches.is_small([query], limits)):
        return
    _ready.add((engine, is_ball))
    timer = Timer(2.0, notice or (lambda: None))
    timer.daemon = True
    timer.start()
    try:
        _run(engine, is_ball)
    finally:
        timer.cancel()


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
