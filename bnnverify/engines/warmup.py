"""Compiling the loops of an engine before its time is taken.

numba compiles a loop when it is first called and keeps the machine code on disk, so this takes a quarter of a minute
once per installation and a moment in every later process.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from bnnverify.engines.base import Limits
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, Region


@cache
def prepare(engine: str) -> None:
    """Run an engine on questions that are small, but open, so that all its loops are compiled.

    Args:
        engine: Name; those that compile nothing are ready at once.
    """
    regions: tuple[Region, ...]
    center = (1,) * 24
    if engine == "enumeration":
        from bnnverify.engines.batches import use_loops
        from bnnverify.engines.enumeration import EnumerationEngine

        use_loops()
        regions = HammingBall(center, 3), FixedIndexRegion(center, tuple(range(12)))
        for region in regions:
            EnumerationEngine().count(_question(region), limits=Limits(threads=1))
    elif engine == "propagation":
        from bnnverify.engines.propagation import PropagationEngine

        regions = FixedIndexRegion(center, tuple(range(24))), HammingBall(center, 12)
        for region in regions:
            PropagationEngine().count(_question(region), limits=Limits(threads=1))


def _question(region: Region) -> Query:
    rng = np.random.default_rng(0)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (rows, columns)), np.zeros(rows)) for rows, columns in ((9, 24), (7, 9))
    )
    network = BinaryNetwork(InputDomain.binary(24), blocks, OutputBlock.create(rng.choice([-1, 1], (4, 7))))
    return Query(network, region, Untargeted(0))
