"""Adversarial inputs by rank: a list nobody has to write down, and uniform draws from it.

The adversarial inputs of a region have an order (the order of the splits below), hence a rank each, from 0. To find
the input of a rank, the region is split into parts with fewer free inputs, whose exact counts tell in which part the
rank falls, and so on until a part is small enough to be listed. A ball is split by the first input that flips, a
fixed-index region by the value of its first free input. Drawing ranks uniformly is drawing inputs uniformly.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bnnverify.counting.counts import count_adversarial
from bnnverify.counting.listing import Signs, points
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.errors import EngineError, QueryError, ResourceLimitError
from bnnverify.kernels import PackedNetwork
from bnnverify.quantities import Samples
from bnnverify.query import Query, Ties
from bnnverify.regions import FixedIndexRegion, HammingBall, Region, SignVector
from bnnverify.results import Kind, Run
from bnnverify.scalars import flag, integer, integers, seeded

_LISTED = 2048  # inputs: a part of this size is listed rather than counted


def sample_adversarial(
    query: Query,
    n: int = 1,
    *,
    seed: int | random.Random = 0,
    replacement: bool = True,
    allow_none: bool = False,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> Samples:
    """Adversarial inputs of the region, each exactly equally likely.

    The region is counted once, and then each part that holds a drawn input once, for all draws together.

    Args:
        query: The question.
        n: How many to draw, at least 1.
        seed: Of Python's generator, or a generator. Uniform as far as the generator is: ranks are drawn as integers
            of any size, and no float is involved.
        replacement: False to draw without replacement.
        allow_none: Draw nothing, rather than raise an error, if no input is adversarial.
        engine: As in `count_adversarial`.
        limits: Time for everything together; nodes, memory and threads for each count.
        monitor: Whom to tell what is proved so far, and who may stop the work.

    Returns:
        The inputs in the order of the draws, each replayed through the network. If a limit was reached nothing is
        drawn, and `run.reason` says why.

    Raises:
        QueryError: The region has no adversarial input, or fewer than `n` without replacement; n or engine is not
            valid.
    """
    n = integer(n, "the number of samples", least=1)
    replacement, allow_none = flag(replacement, "replacement"), flag(allow_none, "allow_none")
    generator, own_seed = seeded(seed)
    tree, size = _Tree(query, engine, limits, monitor), query.sign_region.size()
    try:
        total = tree.count(query.sign_region)
        if total == 0 and allow_none:
            return Samples((), (), 0, size, own_seed, replacement, tree.run())
        ranks = _draw(generator, total, n, replacement, query)
        found = tree.find(query.sign_region, total, ranks)
    except ResourceLimitError as limit:
        return Samples((), (), None, size, own_seed, replacement, tree.run(str(limit)))
    checked = {rank: replayed(query, x, "sampling") for rank, x in found.items()}
    inputs = tuple(checked[rank][0] for rank in ranks)
    predicted = tuple(checked[rank][1] for rank in ranks)
    return Samples(inputs, predicted, total, size, own_seed, replacement, tree.run())


def adversarial_inputs(
    query: Query,
    ranks: Sequence[int],
    *,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> tuple[SignVector, ...]:
    """The adversarial inputs of the region with these ranks: a bijection from 0 .. count - 1, the same at every call.

    Args:
        query: The question.
        ranks: Each from 0 to the number of adversarial inputs less one.
        engine: As in `count_adversarial`; the order does not depend on it.
        limits: Time for everything together; nodes, memory and threads for each count.
        monitor: Who may stop the work.

    Raises:
        QueryError: A rank is out of range.
        ResourceLimitError: A limit was reached.
    """
    ranks = integers(ranks, "ranks")
    tree = _Tree(query, engine, limits, monitor)
    total = tree.count(query.sign_region)
    bad = next((rank for rank in ranks if not 0 <= rank < total), None)
    if bad is not None:
        raise QueryError(f"rank {bad} does not exist: the region has {total} adversarial inputs, with ranks from 0.")
    found = tree.find(query.sign_region, total, ranks)
    return tuple(replayed(query, found[rank], "sampling")[0] for rank in ranks)


def _draw(generator: random.Random, total: int, n: int, replacement: bool, query: Query) -> list[int]:
    if total == 0:
        raise QueryError(
            f"no input of the {query.sign_region} is adversarial ({query.property}): there is nothing to draw."
        )
    if replacement:
        return [generator.randrange(total) for _ in range(n)]
    if n > total:
        raise QueryError(f"{n} samples without replacement are asked for, but only {total} inputs are adversarial.")
    if 2 * n > total:
        return generator.sample(range(total), n)
    ranks: dict[int, None] = {}  # rejection: random.sample refuses ranges beyond 2^63
    while len(ranks) < n:
        ranks[generator.randrange(total)] = None
    return list(ranks)


@dataclass(slots=True)
class _Tree:
    """The splits of one region, counted as far as ranks ask for it."""

    query: Query
    engine: str
    limits: Limits
    monitor: Monitor | None
    clock: Clock = field(init=False)
    packed: PackedNetwork = field(init=False)
    engines: dict[str, None] = field(default_factory=dict)
    counted: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock(self.limits.seconds, self.monitor)
        self.packed = PackedNetwork(self.query.network)

    def count(self, region: Region) -> int:
        """Exact number of adversarial inputs in a part; ResourceLimitError at a limit."""
        if self.clock.is_over:
            raise ResourceLimitError(self.clock.reason)
        if self._is_listed(region):
            return len(self._list(region))
        left = self.clock.remaining
        limits = self.limits if left is None else replace(self.limits, seconds=max(left, 1e-9))
        query = replace(self.query, region=region)
        answer = count_adversarial(query, engine=self.engine, limits=limits, monitor=self.monitor)
        self.counted += 1
        self.engines |= dict.fromkeys(answer.run.engine.split("+"))
        if answer.kind is not Kind.EXACT:
            raise ResourceLimitError(answer.run.reason)
        return answer.adversarial

    def find(self, region: Region, total: int, ranks: Sequence[int]) -> dict[int, SignVector]:
        """The adversarial input of each rank; `total` is the count of the region."""
        found: dict[int, SignVector] = {}
        # parts that hold wanted ranks: (part, its count, rank of its first input, wanted ranks in order)
        todo = [(region, total, 0, sorted(set(ranks)))] if ranks else []
        while todo:
            part, count, first, wanted = todo.pop()
            if self._is_listed(part):
                inputs = self._list(part)
                found |= {rank: tuple(inputs[rank - first].tolist()) for rank in wanted}
                continue
            left = count
            for piece, is_last in _pieces(part):
                here = left if is_last else self.count(piece)
                start, left = first + count - left, left - here
                if left < 0:
                    raise EngineError(f"the parts of the {part} hold more than its {count} adversarial inputs: a bug.")
                inside = wanted[bisect_left(wanted, start) : bisect_left(wanted, start + here)]
                if inside:
                    todo.append((piece, here, start, inside))
                if wanted[-1] < start + here:
                    break
        return found

    def run(self, reason: str = "") -> Run:
        """How it was done."""
        names = "+".join(self.engines) or "listing"
        return Run(names, self.clock.elapsed, reason, {"regions_counted": self.counted})

    def _is_listed(self, region: Region) -> bool:
        return region.size() <= (_LISTED if self.query.ties is Ties.LOWEST_INDEX else _LISTED // 8)

    def _list(self, region: Region) -> Signs:
        """All adversarial inputs of a small part, in a fixed order."""
        inputs, query = points(region), self.query
        if query.ties is not Ties.LOWEST_INDEX:
            chosen = np.array([query.scores_adversarial(query.network.scores(x)) for x in inputs], dtype=bool)
        else:
            chosen = np.isin(self.packed.classes(inputs), query.adversarial_classes)
        adversarial: Signs = inputs[chosen]
        return adversarial


def _pieces(region: Region) -> Iterator[tuple[Region, bool]]:
    """Disjoint parts that make up the region, each with whether it is the last."""
    center, free = region.center, region.free
    if isinstance(region, FixedIndexRegion):
        yield FixedIndexRegion(center, free[1:]), False
        yield FixedIndexRegion(_flipped(center, free[0]), free[1:]), True
        return
    yield HammingBall(center, 0), False
    for j, i in enumerate(free):
        rest = free[j + 1 :]
        yield HammingBall(_flipped(center, i), min(region.radius - 1, len(rest)), rest), j == len(free) - 1


def _flipped(center: SignVector, i: int) -> SignVector:
    return (*center[:i], -center[i], *center[i + 1 :])
