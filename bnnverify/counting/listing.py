"""Small sets of inputs written down as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, islice

import numpy as np
from numpy.typing import NDArray

from bnnverify.regions import FixedIndexRegion, Region

Signs = NDArray[np.int8]

_CHUNK = 1 << 14  # rows at a time


def choices(n: int, r: int) -> Iterator[NDArray[np.int64]]:
    """All choices of r of n places in lexicographic order, in pieces of shape `(some, r)`.

    >>> [piece.tolist() for piece in choices(3, 2)]
    [[[0, 1], [0, 2], [1, 2]]]
    """
    rows = combinations(range(n), r)
    while piece := list(islice(rows, _CHUNK)):
        yield np.fromiter(chain.from_iterable(piece), dtype=np.int64, count=len(piece) * r).reshape(len(piece), r)


def with_flips(center: Sequence[int], free: Sequence[int], flips: NDArray[np.int64]) -> Signs:
    """The inputs that differ from `center` in these places of `free`, shape `(rows, n)`; `flips` is `(rows, r)`."""
    inputs: Signs = np.repeat(np.array([center], dtype=np.int8), len(flips), axis=0)
    places = np.array(free, dtype=np.int64)[flips]
    np.put_along_axis(inputs, places, -np.take_along_axis(inputs, places, axis=1), axis=1)
    return inputs


def points(region: Region) -> Signs:
    """All inputs of a small region, shape `(size, n)`, in an order that depends on the region only."""
    if isinstance(region, FixedIndexRegion):
        width = len(region.free)
        bits = (np.arange(1 << width)[:, None] >> np.arange(width)) & 1
        inputs: Signs = np.repeat(np.array([region.center], dtype=np.int8), 1 << width, axis=0)
        inputs[:, np.array(region.free, dtype=np.int64)] = 2 * bits - 1
        return inputs
    free = region.free
    pieces = (piece for r in range(region.radius + 1) for piece in choices(len(free), r))
    return np.concatenate([with_flips(region.center, free, piece) for piece in pieces])
