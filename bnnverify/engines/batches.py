"""Small regions, input by input in batches of numpy: exact, and done long before a loop would be compiled.

Compiling the loops of `enumeration` takes half a minute, once, and loading them half a second in every process. A few
thousand inputs take milliseconds without them. A process spends no more on batches than the loops would cost it first;
after that all questions go through the loops, which are a hundred times faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, combinations, islice

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import is_kept
from bnnverify.engines.base import Clock, Limits
from bnnverify.engines.visits import Visits
from bnnverify.query import Query
from bnnverify.regions import HammingBall
from bnnverify.summary import summarize

IF_KEPT, IF_NOT = 3e8, 6e9
"""What a process spends, in multiply-accumulates, if the loops are compiled and if not: 0.4 and 8 s."""

_PER_SECOND = 7e8
_OF_INPUT = 500  # multiply-accumulates that take as long as the rest of the work for an input
_BATCH = 1 << 27  # multiply-accumulates of a batch
_spent = 0.0


def is_small(queries: Iterable[Query], limits: Limits) -> bool:
    """Whether batches are the way for these questions together."""
    if limits.nodes is not None or limits.memory_bytes is not None:
        return False
    return _spent + sum(map(_cost, queries)) <= _budget()


@cache
def _budget() -> float:
    from bnnverify.engines.walks import walk_shell

    return IF_KEPT if is_kept(walk_shell) else IF_NOT


def _cost(query: Query) -> float:
    size = query.sign_region.size()
    return math.inf if size > IF_NOT else float(size * (summarize(query.network).macs + _OF_INPUT))


def seconds(query: Query) -> float:
    """What a question takes here, s: a guess."""
    return _cost(query) / _PER_SECOND


def use_loops() -> None:
    """From now on no question is small: the loops are there."""
    global _spent
    _spent = math.inf


def look(query: Query, clock: Clock, *, stop_at_first: bool, in_gray_order: bool) -> Visits:
    """Visit every input of the region, or up to the first adversarial one, or up to a limit.

    Args:
        query: The question.
        clock: Ends the work.
        stop_at_first: Stop at the first adversarial input: in a ball one of the nearest, with the least flips in
            lexicographic order.
        in_gray_order: Take the settings of a fixed-index region in the order of a Gray code, as `visits` does, and not
            in lexicographic order.
    """
    global _spent
    _spent += _cost(query)
    network, region = query.network, query.sign_region
    visits = Visits(query, clock, None, stop_at_first)
    is_ball = isinstance(region, HammingBall)
    center, free = np.array(region.center, dtype=np.int8), np.array(region.free, dtype=np.int64)
    comparisons, conjunctive = query.score_conditions()
    most = int(max(_BATCH * size / _cost(query), 1)) if (size := region.size()) else 1
    for radius, flipped in _flips(query, most, in_gray_order):
        if is_ball and radius == len(visits.per_radius):
            visits.per_radius.append(0)
        if visits.steps() == 0:
            break
        batch = np.tile(center, (len(flipped), 1))
        batch[:, free] = np.where(flipped, -batch[:, free], batch[:, free])
        scores = network.scores_of_batch(batch)
        holds = [
            scores[:, i] > scores[:, j] if strict else scores[:, i] >= scores[:, j] for i, j, strict in comparisons
        ]
        adversarial = np.all(holds, axis=0) if conjunctive else np.any(holds, axis=0)
        if not holds:  # all of no comparisons hold, none of them does
            adversarial = np.full(len(batch), conjunctive)
        classes = np.bincount(scores.argmax(axis=1).astype(np.int64), minlength=network.n_classes)
        visits.per_class += classes
        visits.record(len(batch), int(np.count_nonzero(adversarial)))
        if is_ball:
            visits.per_radius[radius] += int(np.count_nonzero(adversarial))
        visits.tell()
        if stop_at_first and adversarial.any():
            visits.witness = tuple(int(v) for v in batch[int(adversarial.argmax())])
            break
    return visits


def _flips(query: Query, most: int, in_gray_order: bool) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Radius and the free inputs that are flipped, shape `(N, free)`, at most `most` at a time."""
    region = query.sign_region
    free = len(region.free)
    if not isinstance(region, HammingBall):
        shifts = np.arange(free, dtype=np.int64) if in_gray_order else np.arange(free, dtype=np.int64)[::-1]
        for start in range(0, region.size(), most):
            index = np.arange(start, min(start + most, region.size()), dtype=np.int64)
            values = index ^ (index >> 1) if in_gray_order else index
            yield 0, (values[:, None] >> shifts & 1).astype(bool)
        return
    for radius in range(min(region.radius, free) + 1):
        subsets = combinations(range(free), radius)
        while subset := list(islice(subsets, most)):
            flipped = np.zeros((len(subset), free), dtype=bool)
            places = np.fromiter(chain.from_iterable(subset), dtype=np.int64, count=radius * len(subset))
            flipped[np.repeat(np.arange(len(subset)), radius), places] = True
            yield radius, flipped
