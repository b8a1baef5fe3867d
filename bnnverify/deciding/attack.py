"""Looks for a counterexample where one is likely: many searches in one batch on the exact integer network.

Each search follows guessed slopes (`relaxation`) through the region (`moves`), with momentum; others change the best
inputs found so far a little. What decides is exact: the margin of an input is the integer by which its scores meet the
property, at least 0 iff the input is adversarial, and what is returned has been replayed.

References:
    Projected gradients with momentum: Madry et al., ICLR 2018; Dong et al., CVPR 2018. On binarized networks:
    Galloway, Taylor & Moussa, ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.deciding.moves import Moves, Points, moves_of
from bnnverify.deciding.relaxation import BatchForward, Floats, Pass
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.query import Query
from bnnverify.results import Run

ROUNDS = 200
"""Rounds of a search without a time limit."""

_BATCH_COST = 1e9  # products of one round, about 0.1 s
_PATIENCE = 12  # rounds without a better margin before a search starts again elsewhere


@dataclass(frozen=True, slots=True)
class Attack:
    """What an attack found.

    Attributes:
        counterexample: An adversarial input of the region, replayed; None if none was found, which proves nothing.
        predicted: Its class.
        margin: The greatest margin that was met: by how much, in integer scores (`OutputBlock.integer_form`), the best
            input meets the property; below 0 iff it does not. None if the region holds no input.
        nearest: The input with that margin.
        run: Time; `rounds` and `inputs` that were evaluated.
    """

    counterexample: tuple[int, ...] | None
    predicted: int | None
    margin: int | None
    nearest: tuple[int, ...] | None
    run: Run


def attack(
    query: Query,
    *,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    seed: int = 0,
    rounds: int | None = None,
) -> Attack:
    """Searches for an adversarial input; the same one every time for a seed unless time runs out.

    Args:
        query: Any query over a box or a Hamming ball.
        limits: Time.
        monitor: Who may stop the search.
        seed: Of all that is random.
        rounds: Most rounds; default `ROUNDS`, or no limit where there is one on time.

    Returns:
        A replayed counterexample, or how near to one the search came.
    """
    clock = Clock(limits.seconds, monitor)
    moves = moves_of(query)
    if moves is None:
        return Attack(None, None, None, None, Run("attack", clock.elapsed, "the region holds no integer input"))
    most = rounds if rounds is not None else ROUNDS if limits.seconds is None else None
    search = _Search(query, moves, np.random.default_rng(seed))
    while not search.is_found and not clock.is_over and (most is None or search.rounds < most):
        search.round()
    return search.answer(clock)


class _Search:
    """Searches side by side: row i of every array is search i."""

    def __init__(self, query: Query, moves: Moves, rng: np.random.Generator) -> None:
        self.query, self.moves, self.rng = query, moves, rng
        self.forward = BatchForward(query.network)
        self.size = int(np.clip(_BATCH_COST / max(1, 3 * self.forward.cost), 4, 64))
        comparisons, self.conjunctive = query.score_conditions()
        self.first, self.second, strict = (np.array(column) for column in zip(*comparisons, strict=True))
        self.strict = strict.astype(np.int64)
        self.rounds = self.inputs = 0
        self.best: tuple[Any, Points] | None = None
        self.elite: list[tuple[float, Points, Floats]] = []
        self.points = self._starts()
        self.live = self.size
        self.momentum = np.zeros(self.points.shape, dtype=np.float32)
        self.age = np.zeros(self.size, dtype=np.int64)
        self.record = np.full(self.size, -np.inf)
        self.length = np.ones(self.size, dtype=np.float32)
        self.widths = np.ones((len(self.forward.fan_in), self.size), dtype=np.float32)
        self.rival = np.zeros(self.size, dtype=np.int64)
        self._draw(np.arange(self.size))

    @property
    def is_found(self) -> bool:
        """True once an adversarial input is known."""
        return self.best is not None and self.best[0] >= 0

    def _starts(self) -> Points:
        first = self.moves.first()[: self.size]
        more = self.moves.random(self.size - len(first), self.rng)
        return np.concatenate([first, more])

    def _draw(self, rows: NDArray[np.int64]) -> None:
        """New ways of searching for some rows."""
        count = rows.size
        self.length[rows] = self.rng.choice(np.array([1, 0.5, 0.25], dtype=np.float32), count)
        for b, fan_in in enumerate(self.forward.fan_in):
            spread = max(1.0, self.moves.reach * fan_in) if b == 0 else 2 * fan_in**0.5
            self.widths[b, rows] = spread * np.exp(self.rng.uniform(np.log(0.08), np.log(0.8), count))
        # which comparison a search works on: the nearest to being met at each moment, or one after it
        self.rival[rows] = 0 if self.conjunctive else self.rng.integers(-1, 3, count)

    def round(self) -> None:
        """Evaluates the points, keeps the best, and moves."""
        self.live = min(self.size, 4 << (self.rounds // 2 * 2))  # few at first: many questions are easy
        done = self.forward.run(self.points[: self.live])
        margins, values = self._margins(done)
        self.inputs += self.live
        top = int(np.argmax(margins))
        if self.best is None or margins[top] > self.best[0]:
            self.best = (margins[top], self.points[top].copy())
        if not self.is_found:
            self._move(done, margins, values)
        self.rounds += 1

    def _margins(self, done: Pass) -> tuple[NDArray[Any], NDArray[Any]]:
        """By how much each point meets the property, and each comparison: exact integers."""
        scores = self.forward.scores(done.sums)
        values = scores[:, self.first] - scores[:, self.second] - self.strict
        return (values.min(axis=1) if self.conjunctive else values.max(axis=1)), values

    def _move(self, done: Pass, margins: NDArray[Any], values: NDArray[Any]) -> None:
        live, points = self.live, self.points[: self.live]
        numbers, real = self.forward.guess(margins), self.forward.guess(values)
        slopes = self.forward.slopes(done, self._directions(real), self.widths[:, :live])
        scale = np.abs(slopes).max(axis=1, keepdims=True) + np.float32(1e-12)
        self.momentum[:live] = np.float32(0.8) * self.momentum[:live] + slopes / scale
        for row in np.argsort(-numbers)[:4]:
            self._keep(float(numbers[row]), points[row], slopes[row])
        self.age[:live] = np.where(numbers > self.record[:live], 0, self.age[:live] + 1)
        self.record[:live] = np.maximum(self.record[:live], numbers)
        walking = np.arange(live) < (live + 1) // 2
        moved = self.moves.step(points, self.momentum[:live], self.length[:live])
        lost = walking & ((moved == points).all(axis=1) | (self.age[:live] > _PATIENCE))
        self.points[:live] = np.where(walking[:, None], moved, points)
        self._restart(np.flatnonzero(lost))
        self._change(np.flatnonzero(~walking))

    def _directions(self, values: NDArray[np.float64]) -> Floats:
        """Weights of the scores whose sum each search wants to grow."""
        order = np.argsort(values if self.conjunctive else -values, axis=1)
        rank = np.minimum(np.maximum(self.rival[: self.live], 0), values.shape[1] - 1)
        which = order[np.arange(len(values)), rank]
        scales = self.forward.relative_scales
        direction = np.zeros((len(values), self.query.network.n_classes), dtype=np.float32)
        rows = np.arange(len(values))
        direction[rows, self.first[which]] = scales[self.first[which]]
        direction[rows, self.second[which]] -= scales[self.second[which]]
        return direction

    def _keep(self, margin: float, point: Points, slope: Floats) -> None:
        """Remember one of the best points, with its slope."""
        if any(margin == known and bool((point == other).all()) for known, other, _ in self.elite):
            return
        self.elite.append((margin, point.copy(), slope.copy()))
        self.elite.sort(key=lambda entry: -entry[0])
        del self.elite[8:]

    def _restart(self, rows: NDArray[np.int64]) -> None:
        """Some searches begin again elsewhere."""
        if rows.size:
            self.points[rows] = self.moves.random(rows.size, self.rng)
            self.momentum[rows] = 0
            self.record[rows], self.age[rows] = -np.inf, 0
            self._draw(rows)

    def _change(self, rows: NDArray[np.int64]) -> None:
        """Best points with some inputs changed."""
        if not rows.size:
            return
        parents = np.minimum(self.rng.geometric(0.4, rows.size) - 1, len(self.elite) - 1)
        points = np.stack([self.elite[p][1] for p in parents])
        slopes = np.stack([self.elite[p][2] for p in parents])
        n = points.shape[1]
        count = np.exp(self.rng.uniform(0, np.log(max(2, n // 8)), rows.size))
        self.points[rows] = self.moves.mutate(points, slopes, count, self.rng)
        self.momentum[rows] = 0
        self._draw(rows)

    def answer(self, clock: Clock) -> Attack:
        statistics = {"rounds": self.rounds, "inputs": self.inputs}
        if self.best is None:
            return Attack(None, None, None, None, Run("attack", clock.elapsed, clock.reason, statistics))
        margin, nearest = int(self.best[0]), tuple(int(v) for v in self.best[1])
        if margin >= 0:
            x, predicted = replayed(self.query, nearest, "attack")
            return Attack(x, predicted, margin, nearest, Run("attack", clock.elapsed, "", statistics))
        reason = clock.reason if clock.is_over else f"no counterexample met in {self.inputs} inputs"
        return Attack(None, None, margin, nearest, Run("attack", clock.elapsed, reason, statistics))
