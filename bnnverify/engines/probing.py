"""Probe: looks for adversarial inputs by local search, many at a time. What it finds is exact; it proves nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bnnverify.convolution import ConvBlock
from bnnverify.query import Query
from bnnverify.regions import HammingBall
from bnnverify.summary import summarize

_POOL = 24  # inputs that are improved side by side
_BATCH_OPERATIONS = 4e8  # multiplications of one batch; larger networks get a smaller pool, or none


class Probe:
    """A pool of inputs that come as near to being adversarial as a local search gets.

    The margin of an input is the attacker's least (or best) score difference, in float64, which only guides; every
    input that is handed out was evaluated exactly and is adversarial. The same seed gives the same inputs.

    Args:
        query: The question.
        seed: Of the random generator.
    """

    def __init__(self, query: Query, seed: int = 0) -> None:
        network, region = query.network, query.sign_region
        self._query = query
        self._center = np.array(region.center, dtype=np.float32)
        self._radius = region.radius if isinstance(region, HammingBall) else region.n
        self._comparisons, self._conjunctive = query.score_conditions()
        self._generator = np.random.default_rng(seed)
        self._blocks = [
            block
            if isinstance(block, ConvBlock)
            else (block.weights.T.astype(np.float32), block.thresholds.astype(np.float32))
            for block in network.blocks
        ]
        self._output = network.output.weights.T.astype(np.float32)
        unit = max((abs(v) for v in network.output.scale), default=0) or 1
        self._scale = np.array([float(v / unit) for v in network.output.scale])
        self._bias = np.array([float(v / unit) for v in network.output.bias])
        room = int(_BATCH_OPERATIONS // max(summarize(network).macs * max(len(region.free), 1), 1))
        self._pool = np.zeros((min(_POOL, room), region.n), dtype=bool)  # where each input differs from the centre

    def margins(self, flips: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Margin of the inputs that differ from the centre at `flips`, shape `(N, n)`; about 0 or more: adversarial."""
        return self._margins_of(np.where(flips, -self._center, self._center))

    def _margins_of(self, h: NDArray[np.float32]) -> NDArray[np.float64]:
        for block in self._blocks:
            if isinstance(block, ConvBlock):
                h = block.outputs(h.astype(np.int64)).astype(np.float32)
            else:
                weights, thresholds = block
                h = np.where(h @ weights >= thresholds, np.float32(1), np.float32(-1))
        scores = (h @ self._output).astype(np.float64) * self._scale + self._bias
        i, j = (list(side) for side in zip(*((i, j) for i, j, _ in self._comparisons), strict=True))
        differences = scores[:, i] - scores[:, j]
        margins: NDArray[np.float64] = differences.min(axis=1) if self._conjunctive else differences.max(axis=1)
        return margins

    def influence(self, samples: int = 8192) -> NDArray[np.float64]:
        """How much flipping each input raises the margin, on average over random inputs of the region.

        The estimate of the input's Banzhaf value in the game "margin"; 0 for inputs that do not vary. In a ball,
        samples lie on its rim, elsewhere a quarter of the free inputs differ from the centre.
        """
        free = np.array(self._query.sign_region.free, dtype=np.int64)
        result = np.zeros(self._center.size)
        if not free.size:
            return result
        samples = max(64, min(samples, int(_BATCH_OPERATIONS // max(summarize(self._query.network).macs, 1))))
        flips = np.zeros((samples, self._center.size), dtype=bool)
        count = min(self._radius, max(1, free.size // 4))
        order = self._generator.random((samples, free.size)).argpartition(count - 1, axis=1)[:, :count]
        np.put_along_axis(flips, free[order], True, axis=1)
        margins = self.margins(flips)
        with_it, hits = margins @ flips, flips.sum(axis=0)
        without, misses = margins.sum() - with_it, samples - hits
        known = (hits > 0) & (misses > 0)
        result[known] = with_it[known] / hits[known] - without[known] / misses[known]
        return result

    def breakers(self, free: Sequence[int], more: Sequence[int], rounds: int = 6) -> dict[int, tuple[int, ...]]:
        """For some indices of `more` an adversarial input that differs from the centre only there and within `free`.

        Args:
            free: Indices that may vary. They only ever grow from call to call.
            more: Further indices; each is tried on its own.
            rounds: Steps of the local search.
        """
        if not len(self._pool) or not len(more):
            return {}
        self._pool = self._improved(self._pool, np.array(free, dtype=np.int64), rounds)
        candidates = np.array(more, dtype=np.int64)
        margins = self._neighbours(self._pool, candidates)
        found: dict[int, tuple[int, ...]] = {}
        for column, index in enumerate(candidates.tolist()):
            best = int(margins[:, column].argmax())
            if margins[best, column] < -1e-6:
                continue
            flips = self._pool[best].copy()
            flips[index] ^= True
            if (x := self.adversarial(flips)) is not None:
                found[index] = x
        return found

    def search(self, free: Sequence[int], rounds: int = 24) -> tuple[int, ...] | None:
        """An adversarial input that differs from the centre only within `free`, or None: none was met."""
        if not len(self._pool) or not len(free):
            return None
        candidates = np.array(free, dtype=np.int64)
        pool = self._improved(np.zeros_like(self._pool), candidates, rounds)
        margins = self._neighbours(pool, candidates)
        row, column = np.unravel_index(margins.argmax(), margins.shape)
        if margins[row, column] < -1e-6:
            return None
        pool[row, candidates[column]] ^= True
        return self.adversarial(pool[row])

    def adversarial(self, flips: NDArray[np.bool_]) -> tuple[int, ...] | None:
        """The input that differs from the centre at `flips` if, by exact evaluation, it is adversarial."""
        x = tuple(np.where(flips, -self._center, self._center).astype(int).tolist())
        return x if self._query.is_adversarial(x) else None

    def shrunk(self, x: Sequence[int], last_first: Sequence[int]) -> tuple[int, ...]:
        """An adversarial input that differs from the centre at a subset of where `x` does.

        Args:
            x: Adversarial.
            last_first: Indices in the order in which to try to give them back their central value.
        """
        center = self._query.sign_region.center
        point = list(x)
        differing = [i for i in last_first if point[i] != center[i]]
        while differing:
            flips = np.array(point) != self._center
            trial = np.repeat(flips[None], len(differing), axis=0)
            trial[np.arange(len(differing)), differing] = False
            likely = self.margins(trial) >= -1e-6
            kept = [i for i, good in zip(differing, likely, strict=True) if good]
            for place, i in enumerate(kept):
                point[i] = center[i]
                if self._query.is_adversarial(tuple(point)):
                    differing = kept[place + 1 :]
                    break
                point[i] = -center[i]
            else:
                break
        return tuple(point)

    def _neighbours(self, pool: NDArray[np.bool_], indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Margin of every input of the pool with one more index changed; -inf outside the ball."""
        m = len(indices)
        trial = np.repeat(pool[:, None], m, axis=1)
        trial[:, np.arange(m), indices] ^= True
        flat = trial.reshape(-1, pool.shape[1])
        margins = self.margins(flat)
        margins[flat.sum(axis=1) > self._radius] = -np.inf
        return margins.reshape(len(pool), m)

    def _improved(self, pool: NDArray[np.bool_], free: NDArray[np.int64], rounds: int) -> NDArray[np.bool_]:
        """The pool after a local search within `free`, leaving room in the ball for one more change."""
        if not free.size:
            return pool
        pool, rows = pool.copy(), np.arange(len(pool))
        present = self.margins(pool)
        for _ in range(rounds):
            trial = self._neighbours(pool, free)
            crowded = pool.sum(axis=1) + 1 >= self._radius
            trial[crowded[:, None] & ~pool[:, free]] = -np.inf
            trial += self._generator.random(trial.shape) * 1e-3  # ties at random
            step = trial.argmax(axis=1)
            stuck = trial[rows, step] < present
            # whoever is stuck takes a random step, except the first of the pool
            step[stuck] = self._generator.integers(free.size, size=int(stuck.sum()))
            allowed = ~crowded | pool[rows, free[step]]
            allowed[0] &= not stuck[0]
            pool[rows[allowed], free[step[allowed]]] ^= True
            present = self.margins(pool)
        return pool
