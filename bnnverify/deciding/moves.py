"""How a search moves within a region: boxes of integers or signs, and Hamming balls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnnverify.deciding.relaxation import Floats
from bnnverify.errors import UnsupportedError
from bnnverify.query import Query
from bnnverify.regions import FixedIndexRegion, HammingBall, PixelBox, RealBox

Points = NDArray[np.int64]


class Moves(Protocol):
    """A region as a search sees it. All points that come out lie in the region."""

    @property
    def reach(self) -> float:
        """How far the sum of a first-block neuron may move per input that it has, roughly."""

    def first(self) -> Points:
        """Where a search starts, shape `(k, n)`: the middle first."""

    def random(self, count: int, rng: np.random.Generator) -> Points:
        """Points anywhere, shape `(count, n)`."""

    def step(self, points: Points, slopes: Floats, length: Floats) -> Points:
        """Points further up the slopes: `length` per point is 1 for as far as the region goes."""

    def mutate(self, points: Points, slopes: Floats, count: NDArray[Any], rng: np.random.Generator) -> Points:
        """Points with about `count` inputs changed, more often up the slopes than not."""


def moves_of(query: Query) -> Moves | None:
    """How to move within the region of a query; None if the region holds no input.

    Raises:
        UnsupportedError: It is a region of another kind.
    """
    region = query.region
    if isinstance(region, RealBox):
        grid = region.grid()
        return None if grid is None else _box(grid)
    if isinstance(region, PixelBox):
        return _box(region)
    if isinstance(region, FixedIndexRegion):
        center = np.array(region.center, dtype=np.int64)
        free = np.array(region.free, dtype=np.int64)
        low, high = center.copy(), center.copy()
        low[free], high[free] = -1, 1
        return BoxMoves(low, high, free, center, is_binary=True)
    if isinstance(region, HammingBall):
        return BallMoves(np.array(region.center, dtype=np.int64), np.array(region.free, dtype=np.int64), region.radius)
    raise UnsupportedError(f"the attack does not serve a {region}, expected a box or a Hamming ball.")


def _box(region: PixelBox) -> BoxMoves:
    low, high = np.array(region.lower, dtype=np.int64), np.array(region.upper, dtype=np.int64)
    return BoxMoves(low, high, np.flatnonzero(low < high), (low + high) // 2, is_binary=False)


@dataclass(frozen=True, slots=True)
class BoxMoves:
    """Each input on its own between two integers."""

    lower: Points
    upper: Points
    free: NDArray[np.int64]
    middle: Points
    is_binary: bool

    @property
    def reach(self) -> float:
        """As in `Moves`."""
        return float((self.upper - self.lower).mean()) / 2

    def first(self) -> Points:
        """The middle, and without signs the two far corners."""
        return self.middle[None] if self.is_binary else np.stack([self.middle, self.lower, self.upper])

    def random(self, count: int, rng: np.random.Generator) -> Points:
        """Corners, or points inside."""
        n = self.lower.size
        corners = np.where(rng.random((count, n)) < 0.5, self.lower, self.upper)
        if self.is_binary:
            return corners.astype(np.int64)
        # sums move by the root of the number of inputs at random, but by all of it along a direction
        inside = rng.integers(self.lower, self.upper, size=(count, n), endpoint=True)
        return np.where(rng.random((count, 1)) < 0.5, corners, inside).astype(np.int64)

    def step(self, points: Points, slopes: Floats, length: Floats) -> Points:
        """Along the signs of the slopes."""
        if self.is_binary:
            return np.where(slopes > 0, self.upper, np.where(slopes < 0, self.lower, points)).astype(np.int64)
        size = np.ceil(length[:, None] * (self.upper - self.lower)).astype(np.int64)
        moved = points + np.sign(slopes).astype(np.int64) * size
        return np.clip(moved, self.lower, self.upper).astype(np.int64)

    def mutate(self, points: Points, slopes: Floats, count: NDArray[Any], rng: np.random.Generator) -> Points:
        """Each change goes to an end of its range."""
        touched = np.zeros(points.shape, dtype=bool)
        share = count[:, None] / max(1, self.free.size)
        touched[:, self.free] = rng.random((len(points), self.free.size)) < share
        up = np.where(rng.random(points.shape) < 0.8, slopes > 0, rng.random(points.shape) < 0.5)
        if self.is_binary:
            up = np.where(rng.random((len(points), 1)) < 0.5, up, points < 0)
        return np.where(touched, np.where(up, self.upper, self.lower), points).astype(np.int64)


@dataclass(frozen=True, slots=True)
class BallMoves:
    """At most `radius` flips of the inputs `free`."""

    center: Points
    free: NDArray[np.int64]
    radius: int

    @property
    def reach(self) -> float:
        """As in `Moves`."""
        return 2.0 * self.radius / max(1, self.center.size)

    def first(self) -> Points:
        """The centre."""
        return self.center[None]

    def random(self, count: int, rng: np.random.Generator) -> Points:
        """Flips drawn at random."""
        return self._flipped(rng.random((count, self.free.size)).astype(np.float32))

    def _flipped(self, gains: Floats) -> Points:
        """The centre with the flips of greatest positive gain, as many as there may be."""
        points = np.repeat(self.center[None], len(gains), axis=0)
        if not self.radius:
            return points
        kept = (
            np.argpartition(-gains, self.radius - 1, axis=1)[:, : self.radius]
            if self.radius < self.free.size
            else (np.repeat(np.arange(self.free.size)[None], len(gains), axis=0))
        )
        rows = np.arange(len(gains))[:, None]
        chosen = self.free[kept]
        signs = np.where(gains[rows, kept] > 0, -1, 1).astype(np.int64)
        points[rows, chosen] = self.center[chosen] * signs
        return points

    def step(self, points: Points, slopes: Floats, length: Floats) -> Points:
        """The flips that promise most."""
        return self._flipped(-slopes[:, self.free] * self.center[self.free])

    def mutate(self, points: Points, slopes: Floats, count: NDArray[Any], rng: np.random.Generator) -> Points:
        """Some flips are dropped for others."""
        gains = -slopes[:, self.free] * self.center[self.free]
        spread = np.abs(gains).max(axis=1, keepdims=True, initial=0) + 1e-9
        is_flipped = points[:, self.free] != self.center[self.free]
        # keep most flips, drop `count` of them, and draw new ones by gain and chance
        value = gains / spread + rng.gumbel(scale=0.15, size=gains.shape)
        kept = is_flipped & (rng.random(gains.shape) >= count[:, None] / max(1, self.radius))
        value = np.where(kept, 10 + value, np.where(is_flipped, -10 + value, value + 2))
        return self._flipped(value.astype(np.float32))
