"""Propagation: inputs are set one after the other, and states with the same future are one state.

A state is the vector of first-block margins, clamped to what the inputs still to come can change, with the exact
number of ways to reach it (`merging.py`). The next input is the one that makes the fewest new states. Where bounds
settle the class of a state, all its completions are counted at once; when few inputs are left, the states are evaluated
with all settings of the rest at a time (`tails.py`, `bitslice.py`). In a ball the flips made are part of the state, so
one pass counts every radius. Memory is bounded: a layer that outgrows it is continued in parts.

References:
    Ours. Counting paths through merged states is how Shih, Darwiche and Choi (2019) and Zhang et al. (TOSEM 2023) count
    on decision diagrams; here the diagram is never kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, cores, replayed
from bnnverify.engines.bitslice import settled_place
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.engines.merging import close, finish, growth, merge, spread
from bnnverify.engines.plan import Plan, is_plannable, make_plan, make_scratch, tie_order
from bnnverify.engines.residues import Residues
from bnnverify.engines.tails import setting_tail
from bnnverify.engines.warmup import prepare
from bnnverify.errors import EngineError, UnsupportedError
from bnnverify.query import Query
from bnnverify.regions import FixedIndexRegion, HammingBall
from bnnverify.results import Count, Decision, Kind, Run, Verdict

MOST_INPUTS = 120  # margins are int8
_LONGEST_TAIL = 16
_PROBED = 100_000  # states up to which the next input is chosen by looking at their successors
_STEP, _LEAF = 60e-9, 0.4e-6  # guesses, s: a successor, a tail
_PAIR, _TILE = 12e-9, 0.15e-6  # a weight of its later blocks, 512 inputs of it
_FEWEST = 1 << 12  # states that any limit on memory leaves room for
_GROWTH = 1.6  # a layer may double now and then, several in a row grow less
_DEFAULT_MEMORY = 8 << 30  # bytes
_SMALL = 1 << 20  # inputs that enumeration searches at once


class _OutOfTimeError(Exception):
    """A limit was reached within a layer; the answer says so."""


@dataclass(slots=True)
class _Layer:
    """States in partitions: partition p holds `counts[p]` of them from place `starts[p]` on."""

    rows: NDArray[np.int8]
    factors: NDArray[np.uint64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def states(self) -> int:
        return int(self.counts.sum())

    def spans(self) -> Iterator[tuple[int, int]]:
        """First state and number of states of each partition."""
        return zip(self.starts.tolist(), self.counts.tolist(), strict=True)

    def parts(self, pieces: int) -> list[tuple[int, int]]:
        """Ranges of partitions with about equally many states."""
        ends = np.cumsum(self.counts)
        cuts = np.searchsorted(ends, np.linspace(0, ends[-1], pieces + 1)[1:-1])
        places = [0, *sorted({int(c) + 1 for c in cuts if c + 1 < len(ends)}), len(ends)]
        return list(pairwise(places))


@dataclass(slots=True)
class _Found:
    """Inputs (or their weight) by flips and class, in Python integers."""

    per_flips: list[list[int]]
    settled: int = 0
    layers: int = 0
    peak: int = 0
    closed: int = 0
    tails: int = 0
    split: bool = False
    reason: str = ""

    def adversarial(self, query: Query) -> tuple[int, ...]:
        """Adversarial inputs by flips, if ties were broken by the query's rule."""
        return tuple(sum(shell[klass] for klass in query.adversarial_classes) for shell in self.per_flips)


class _Propagation:
    """One region of one network, with a weight for both values of every free input."""

    def __init__(
        self,
        query: Query,
        order: tuple[int, ...],
        limits: Limits,
        clock: Clock,
        weights: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.query, self.clock, self.order = query, clock, order
        # winners by another order than the query's say nothing about what is adversarial
        self.tells = clock.monitor is not None and weights is None and order == tie_order(query)
        self.plan: Plan = make_plan(query, order)
        region = query.sign_region
        self.by_flips = isinstance(region, HammingBall)  # then flips count, and there are no weights
        self.most_flips = region.most_flips if self.by_flips else 0
        self.weights = weights
        self.total = region.size() if weights is None else math.prod(map(sum, weights))
        self.residues = Residues.up_to(self.total - 1)
        self.width = 16 * -(-(self.plan.neurons + 1) // 16)
        self.threads = limits.threads or cores()
        bytes_of_state = self.width + 8 * len(self.residues.moduli)
        self.most_states = max(_FEWEST, (limits.memory_bytes or _default_memory()) // (6 * bytes_of_state))
        deltas = np.zeros((self.plan.free, self.width), dtype=np.int8)
        deltas[:, : self.plan.neurons] = self.plan.deltas[:, : self.plan.neurons]
        deltas[:, -1] = 1 if self.by_flips else 0
        self.deltas = deltas
        self.found = _Found([[0] * len(order) for _ in range(self.most_flips + 1)])
        later = sum(a * b for a, b in zip(self.plan.widths, self.plan.widths[1:], strict=False))
        self.work = 0.2 + 0.08 * len(order) + later / 100
        self.lists = later + len(order) * self.plan.widths[-1] / 2
        self._pool: ThreadPoolExecutor | None = None
        self._next_close = 0

    def go(self) -> _Found:
        """Count everything, or stop at a limit."""
        free = list(range(self.plan.free))
        bounds = self._bounds(free)
        place = settled_place(self.plan.margins, 0, bounds, 0, 0, self.plan.net, make_scratch(self.plan))
        if place >= 0:
            self._add_closed(0, place, 1, free)
            return self.found
        rows = np.zeros(self.width, dtype=np.int8)
        rows[: self.plan.neurons] = self.plan.margins[: self.plan.neurons]
        factors = np.ones((1, len(self.residues.moduli)), dtype=np.uint64)
        one = np.zeros(1, dtype=np.int64)
        layer = _Layer(rows, factors, one, one + 1)
        spread_of = np.eye(self.plan.neurons) * 20.0
        try:
            if self.threads > 1:
                with ThreadPoolExecutor(self.threads) as self._pool:
                    self._run(layer, free, spread_of)
            else:
                self._run(layer, free, spread_of)
        except _OutOfTimeError:
            self.found.reason = self.clock.reason
        if not self.found.reason and self.found.settled != self.total:
            self._whole()
        return self.found

    def _whole(self) -> None:
        """All inputs were counted at once, and their number is what the words take for 0; anything else is a bug."""
        if self.found.settled or self.total != (math.prod(self.residues.moduli) or 1 << 64):
            raise EngineError(
                f"propagation settled {self.found.settled} of {self.total} inputs. This is a bug in bnnverify; please "
                "report it with the network and the question."
            )
        x = list(self.query.sign_region.center)  # they share one winner: that of any input whose weight is not 0
        for i, (keep, _) in zip(self.query.sign_region.free, self.weights or (), strict=False):
            x[i] *= 1 if keep else -1
        scores = self.query.network.scores(x)
        self.found.per_flips[0][max(self.order, key=scores.__getitem__)] = self.total
        self.found.settled = self.total

    def _run(self, layer: _Layer, free: list[int], metric: NDArray[np.float64]) -> None:
        """Go on from a layer until every state is evaluated; `free` are the inputs not set yet."""
        free, before = list(free), 1
        while layer.states:
            states = layer.states
            self.found.peak = max(self.found.peak, states)
            if not free or (self.weights is None and self._should_finish(layer, len(free), states / before)):
                self._finish(layer, free)
                return
            if states > self.most_states:
                self.found.split = True
                parts = self._split(layer, free)
                del layer  # the parts are copies
                for part in parts:
                    self._run(part, free, metric)
                return
            chosen, metric = self._choose(layer, free, metric)
            free.remove(chosen)
            self.found.layers += 1
            before = states
            layer = self._advance(layer, chosen, free)
            if layer.states > 64 and self.found.layers >= self._next_close:
                self._close(layer, free)

    # the steps

    def _bounds(self, free: list[int]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """From which margin neurons surely fire, and below which they never do, by flips made; flat rows."""
        deltas = self.plan.deltas[free]
        downs, ups = np.count_nonzero(deltas < 0, axis=0), np.count_nonzero(deltas > 0, axis=0)
        if not self.by_flips:
            return downs.astype(np.int8), (-ups).astype(np.int8)
        left = (self.most_flips - np.arange(self.most_flips + 1))[:, None]
        return np.minimum(downs, left).astype(np.int8).ravel(), (-np.minimum(ups, left)).astype(np.int8).ravel()

    def _clamps(self, free: list[int]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Lowest and highest byte of a state by flips made."""
        n, levels = self.plan.neurons, self.most_flips + 1
        upper, lower = (b.reshape(levels, -1)[:, :n] for b in self._bounds(free))
        lows = np.zeros((levels, self.width), dtype=np.int8)
        highs = lows.copy()
        lows[:, :n], highs[:, :n] = lower - 1, upper
        lows[:, -1], highs[:, -1] = 0, 127
        return lows.ravel(), highs.ravel()

    def _choose(self, layer: _Layer, free: list[int], metric: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
        """The input to set next, and the inverse scatter of the columns set so far.

        Few new states come from inputs along which the states already lie. For small layers successors of a sample are
        looked up; for large ones the states' number goes with the determinant of the scatter of their columns.
        """
        columns = self.deltas[:, : self.plan.neurons].astype(np.float64)
        pull = np.einsum("ij,jk,ik->i", columns[free], metric, columns[free])
        if 1 < layer.states <= _PROBED:
            lows, highs = self._clamps(free)
            words = layer.rows.view(np.uint64)
            limit = self.most_flips if self.by_flips else 127
            fresh = growth(
                words, layer.starts, layer.counts, self.width, self.deltas[free], lows, highs, limit, 256
            )  # fmt: skip
            best = int(np.lexsort((pull, fresh))[0])
        else:
            best = int(pull.argmin())
        chosen = free[best]
        moved = metric @ columns[chosen]
        return chosen, metric - np.outer(moved, moved) / (1 + pull[best])

    def _advance(self, layer: _Layer, chosen: int, free: list[int]) -> _Layer:
        """The next layer: both values of one input."""
        states, words = layer.states, len(self.residues.moduli)
        partitions = 1
        while partitions * 4096 < states and partitions < 1 << 20:
            partitions *= 2
        shift = 64 - partitions.bit_length() + 1
        lows, highs = self._clamps(free)
        limit = self.most_flips if self.by_flips else 127
        weights = np.zeros((0, 2), dtype=np.uint64)
        if self.weights is not None:
            weights = np.array([self.residues.of(w) for w in self.weights[chosen]], dtype=np.uint64).T.copy()
        moduli = self.residues.array
        empty_rows, empty_factors = np.zeros(16, dtype=np.int8), np.zeros((1, words), dtype=np.uint64)
        delta = self.deltas[chosen]

        def count(part: tuple[int, int]) -> NDArray[np.int64]:
            cursors = np.zeros(partitions, dtype=np.int64)
            a, b = part
            spread(
                layer.rows, layer.factors, layer.starts[a:b], layer.counts[a:b], delta, lows, highs, limit, self.width,
                shift, weights, moduli, empty_rows, empty_rows.view(np.uint64), empty_factors, cursors, True,
            )  # fmt: skip
            return cursors

        parts = layer.parts(self._pieces(states))
        histograms = self._map(count, parts)
        sums = np.cumsum(np.array(histograms), axis=0)
        counts = sums[-1]
        starts = np.cumsum(counts) - counts
        total = int(counts.sum())
        rows = np.empty(total * self.width, dtype=np.int8)
        factors = np.empty((total, words), dtype=np.uint64)
        out_words = rows.view(np.uint64)

        def write(task: tuple[tuple[int, int], NDArray[np.int64]]) -> None:
            (a, b), cursors = task
            spread(
                layer.rows, layer.factors, layer.starts[a:b], layer.counts[a:b], delta, lows, highs, limit, self.width,
                shift, weights, moduli, rows, out_words, factors, cursors, False,
            )  # fmt: skip

        cursors = [starts + (s - h) for s, h in zip(sums, histograms, strict=True)]
        self._map(write, list(zip(parts, cursors, strict=True)))
        following = _Layer(rows, factors, starts, counts)

        def unite(part: tuple[int, int]) -> None:
            merge(out_words, factors, starts, counts, part[0], part[1], self.width, moduli)

        self._map(unite, following.parts(self._pieces(total)))
        return following

    def _close(self, layer: _Layer, free: list[int]) -> None:
        """Count the states that bounds settle, and drop them."""
        bounds, words = self._bounds(free), layer.rows.view(np.uint64)
        places = len(self.plan.classes)
        before = layer.states

        def shut(part: tuple[int, int]) -> NDArray[np.uint64]:
            closed = np.zeros((self.most_flips + 1, places, len(self.residues.moduli)), dtype=np.uint64)
            margins = self.plan.margins.copy()
            close(
                layer.rows, words, layer.factors, layer.starts, layer.counts, part[0], part[1], self.width,
                self.plan.neurons, bounds, self.residues.array, self.plan.net, make_scratch(self.plan), margins, closed,
            )  # fmt: skip
            return closed

        for closed in self._map(shut, layer.parts(self._pieces(before))):
            for flips, place in zip(*np.nonzero(closed.any(axis=2)), strict=True):
                self._add_closed(int(flips), int(place), self.residues.number(closed[flips, place]), free)
        gone = before - layer.states
        self.found.closed += gone
        self._report()
        # bounds that settle next to nothing are not asked at every layer
        self._next_close = self.found.layers + (1 if gone * 50 > before else 2 if gone * 1000 > before else 4)

    def _add_closed(self, flips: int, place: int, ways: int, free: list[int]) -> None:
        klass = self.plan.classes[place]
        if self.weights is not None:
            ways *= math.prod(sum(self.weights[i]) for i in free)
            self.found.per_flips[0][klass] += ways
            self.found.settled += ways
        elif not self.by_flips:
            self.found.per_flips[0][klass] += ways << len(free)
            self.found.settled += ways << len(free)
        else:
            for more in range(min(self.most_flips - flips, len(free)) + 1):
                here = ways * math.comb(len(free), more)
                self.found.per_flips[flips + more][klass] += here
                self.found.settled += here

    def _should_finish(self, layer: _Layer, left: int, growth_rate: float) -> bool:
        if left > _LONGEST_TAIL:
            return False
        states = layer.states
        now = states * self._tail_seconds(left)
        later = states * (2 * _STEP + min(max(growth_rate, 1.0), _GROWTH) * self._tail_seconds(left - 1))
        return now <= later

    def _tail_seconds(self, inputs: int) -> float:
        tiles = 2.0**inputs / 512
        if self.by_flips:
            tiles = sum(-(-math.comb(inputs, q) // 512) for q in range(min(inputs, self.most_flips // 2 + 1) + 1))
        return _LEAF + _PAIR * self.lists + _TILE * self.work * max(tiles, 0.5)

    def _finish(self, layer: _Layer, free: list[int]) -> None:
        """Evaluate all states with all settings of the inputs that are left."""
        tail = setting_tail(self.plan, np.array(free, dtype=np.int64), by_flips=self.by_flips)
        places = len(self.plan.classes)
        states = layer.states

        def evaluate(part: tuple[int, int]) -> tuple[int, NDArray[np.uint64]]:
            shape = (max(self.most_flips, len(free) if self.by_flips else 0) + 1, places, len(self.residues.moduli))
            found = np.zeros(shape, dtype=np.uint64)
            tallies = np.zeros(8 * places * len(tail.sizes), dtype=np.uint64)
            finish(
                layer.rows, layer.factors, layer.starts, layer.counts, part[0], part[1], self.width, self.plan.neurons,
                self.most_flips, self.by_flips, tail.loops, self.residues.array, self.plan.net, make_scratch(self.plan),
                self.plan.margins.copy(), tallies, found,
            )  # fmt: skip
            return int(layer.counts[part[0] : part[1]].sum()), found

        pieces = max(self.threads if states > 1000 else 1, int(states * self._tail_seconds(len(free)) / 0.2))
        for done, found in self._each(evaluate, layer.parts(pieces)):
            self.found.tails += done
            for flips, place in zip(*np.nonzero(found.any(axis=2)), strict=True):
                ways = self.residues.number(found[flips, place])
                self.found.per_flips[flips][self.plan.classes[place]] += ways
                self.found.settled += ways
            self._report()

    def _split(self, layer: _Layer, free: list[int]) -> Iterator[_Layer]:
        """The states in parts small enough for a few more layers.

        States that lie apart can merge again only if the inputs to come bring them together. So the cut is across the
        direction in which the states spread most for how little those inputs move them.
        """
        n = self.plan.neurons
        rows = np.concatenate([layer.rows.reshape(-1, self.width)[a : a + c] for a, c in layer.spans()])
        factors = np.concatenate([layer.factors[a : a + c] for a, c in layer.spans()])
        sample = rows[:: max(1, len(rows) // 100_000), :n].astype(np.float64)
        moves = self.deltas[free][:, :n].astype(np.float64)
        inverse = np.linalg.inv(np.linalg.cholesky(moves.T @ moves + np.eye(n)))
        _, vectors = np.linalg.eigh(inverse @ np.cov(sample.T).reshape(n, n) @ inverse.T)
        direction = (inverse.T @ vectors[:, -1]).astype(np.float32)
        pieces = -(-4 * len(rows) // self.most_states)
        cuts = np.quantile(sample @ direction, np.linspace(0, 1, pieces + 1)[1:-1])
        step = 1 << 22  # a matrix of floats of all states would not fit
        part_of = np.concatenate(
            [
                np.searchsorted(cuts, rows[a : a + step, :n].astype(np.float32) @ direction).astype(np.int32)
                for a in range(0, len(rows), step)
            ]
        )
        if (part_of == part_of[0]).all():  # most states lie at one end, so no cut falls between them: any parts will do
            part_of = np.arange(len(rows), dtype=np.int32) % pieces
        for part in range(pieces):
            kept = np.flatnonzero(part_of == part)
            if kept.size:
                starts = np.arange(0, kept.size, 4096, dtype=np.int64)
                counts = np.minimum(kept.size - starts, 4096)
                yield _Layer(rows[kept].ravel(), factors[kept], starts, counts)

    # running them

    def _pieces(self, states: int) -> int:
        """Into how many tasks to cut a layer: each short enough to look at the clock between them."""
        return max(4 * self.threads if states > 4096 else 1, states >> 21)

    def _map(self, work: Callable[[Any], Any], tasks: list[Any]) -> list[Any]:
        def unless_over(task: Any) -> Any:
            if self.clock.is_over:
                raise _OutOfTimeError
            return work(task)

        if self._pool is None or len(tasks) == 1:
            return [unless_over(task) for task in tasks]
        return list(self._pool.map(unless_over, tasks))

    def _each(self, work: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
        """As `_map`, but the results come as they are there, so that a limit keeps them."""
        step = self.threads if self._pool is not None else 1
        for first in range(0, len(tasks), step):
            yield from self._map(work, tasks[first : first + step])

    def _report(self) -> None:
        if self.tells and self.clock.monitor is not None:
            lower = sum(self.found.adversarial(self.query))
            self.clock.monitor.report(lower, self.total - self.found.settled + lower, self.total)


def _default_memory() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _DEFAULT_MEMORY
    return min(_DEFAULT_MEMORY, physical // 2)


@dataclass(frozen=True, slots=True)
class PropagationEngine:
    """Counts regions of any size as long as the distinct margin vectors of the first block are few.

    Made for whole cubes, fixed-index regions and wide balls of networks with a narrow first block (some 10 to 25
    neurons); exact beyond 2^64. Serves dense networks with a hidden block whose classes share one scale (up to its
    sign) and regions of at most 120 free inputs, or balls of at most that radius.
    """

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "propagation"

    def decide(self, query: Query, *, limits: Limits = UNLIMITED) -> Decision:
        """Is there an adversarial input? By counting; the counterexample comes from counting ever smaller regions.

        Args:
            query: The question.
            limits: As in `count`.
        """
        prepare(self.name, query, limits)
        clock = Clock(limits.seconds)
        work = self._work(query, limits, clock).go()
        run = self._run(clock, work)
        if not any(work.adversarial(query)):
            return Decision(Verdict.UNKNOWN if work.reason else Verdict.ROBUST, run)
        smaller: Query | None = query
        while smaller is not None and smaller.sign_region.size() > _SMALL:
            smaller = self._adversarial_half(smaller, limits, clock)
        if smaller is None:  # there is one, but no time to find it
            return Decision(Verdict.UNKNOWN, replace(run, seconds=clock.elapsed, reason=clock.reason))
        found = EnumerationEngine().decide(smaller)
        if found.counterexample is None:
            raise EngineError(f"propagation counted adversarial inputs in a {smaller.region} that holds none: a bug.")
        x, predicted = replayed(query, found.counterexample, self.name)
        return Decision(Verdict.NOT_ROBUST, self._run(clock, work), x, predicted)

    def count(self, query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Count:
        """Exact counts by class, and by distance in a ball; bounds if a limit is reached.

        Args:
            query: The question.
            limits: Time, threads, and memory of the states (default 8 GiB or half of this machine's).
            monitor: Whom to report to, and who may stop the work.

        Raises:
            UnsupportedError: The network has convolutions, no hidden block, or classes with scales of their own, or
                the region is too wide.
        """
        prepare(self.name, query, limits)
        clock, size = Clock(limits.seconds, monitor), query.sign_region.size()
        work = self._work(query, limits, clock).go()
        per_radius = work.adversarial(query)
        lower = sum(per_radius)
        if work.reason:
            return Count(Kind.INTERVAL, lower, size - work.settled + lower, size, self._run(clock, work))
        classes: tuple[int, ...] | None = tuple(map(sum, zip(*work.per_flips, strict=True)))
        plain = tuple(range(query.network.n_classes))
        if tie_order(query) != plain:  # winners under another tie rule: the classes need a pass of their own
            again = _Propagation(query, plain, limits, clock).go()
            classes = None if again.reason else tuple(map(sum, zip(*again.per_flips, strict=True)))
        radii = per_radius if isinstance(query.sign_region, HammingBall) else None
        return Count(Kind.EXACT, lower, lower, size, self._run(clock, work), classes, radii)

    def _adversarial_half(self, query: Query, limits: Limits, clock: Clock) -> Query | None:
        """The half of a region that is known to hold an adversarial input which holds one, too; None at a limit."""
        first, second = _halves(query)
        left = None if clock.remaining is None else max(clock.remaining, 1e-9)
        count = self.count(first, limits=replace(limits, seconds=left))
        if count.lower:
            return first
        return second if count.kind is Kind.EXACT else None

    def _work(self, query: Query, limits: Limits, clock: Clock) -> _Propagation:
        require_served(query)
        return _Propagation(query, tie_order(query), limits, clock)

    def _run(self, clock: Clock, work: _Found) -> Run:
        return Run(self.name, clock.elapsed, work.reason, _statistics(work))


def weighted(
    query: Query, weights: Sequence[tuple[int, int]], *, limits: Limits = UNLIMITED, monitor: Monitor | None = None
) -> tuple[tuple[int, ...], Run]:
    """Total weight of the inputs of each class, where an input weighs the product of the weights of its bits.

    Args:
        query: A query over a fixed-index region; its tie rule says which class wins a tie.
        weights: For each free input, in ascending order, the weight of its central value and of the other one; not
            negative. With ``(q - p, p)`` for a bit that flips with probability p / q, the results over the product of
            all q are the exact probabilities of the classes.
        limits: Time, threads and memory.
        monitor: Who may stop the work.

    Returns:
        Weights by class, exact integers; with a reason in the run they are lower bounds.

    Raises:
        UnsupportedError: As `PropagationEngine.count`, or the region is a ball.
    """
    require_served(query)
    if not isinstance(query.sign_region, FixedIndexRegion):
        raise UnsupportedError(
            f"weights over a {query.sign_region} are not built, expected a fixed-index region or the whole cube."
        )
    clock = Clock(limits.seconds, monitor)
    work = _Propagation(query, tie_order(query), limits, clock, weights).go()
    return tuple(work.per_flips[0]), Run("propagation", clock.elapsed, work.reason, _statistics(work))


def is_served(query: Query) -> bool:
    """True if `PropagationEngine` serves the query."""
    return is_plannable(query.network) and query.sign_region.most_flips <= MOST_INPUTS


def require_served(query: Query) -> None:
    """UnsupportedError unless `is_served`."""
    if not is_served(query):
        raise UnsupportedError(
            "propagation serves dense networks with a hidden block whose classes share one scale, and regions that "
            f"flip at most {MOST_INPUTS} inputs; this is {query.network.architecture} in a {query.sign_region}. "
            "Take another engine."
        )


def _statistics(work: _Found) -> dict[str, Any]:
    return {
        "layers": work.layers,
        "most_states": work.peak,
        "states_closed": work.closed,
        "tails": work.tails,
        "in_parts": work.split,
    }


def _halves(query: Query) -> Iterator[Query]:
    """The two parts of a region in which its first free input has its central value, or the other one."""
    region = query.sign_region
    i, rest = region.free[0], region.free[1:]
    other = tuple(-v if k == i else v for k, v in enumerate(region.center))
    if isinstance(region, HammingBall):
        yield replace(query, region=HammingBall(region.center, min(region.radius, len(rest)), rest))
        yield replace(query, region=HammingBall(other, min(region.radius - 1, len(rest)), rest))
    else:
        yield replace(query, region=FixedIndexRegion(region.center, rest))
        yield replace(query, region=FixedIndexRegion(other, rest))
