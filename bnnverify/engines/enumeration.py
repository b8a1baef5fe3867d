"""Enumeration: every input of the region, 512 at a time, from the margins of the first block; pruned and parallel.

A Hamming ball is counted shell by shell, a fixed-index region setting by setting. The first flips (values) are walked
one by one with packed margins (`walks.py`); the last few are a *tail* whose inputs are evaluated together, bit-sliced
(`tails.py`, `bitslice.py`). Subtrees in which bounds settle the class are counted in closed form. Pieces of the walk
run on all cores; the count can stop after any piece and then says what is proved.

References:
    Ours. The peers build BDDs (Zhang et al., TOSEM 2023) or enumerate one input at a time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, cores, replayed
from bnnverify.engines.batches import is_small, look
from bnnverify.engines.bitslice import settled_place
from bnnverify.engines.plan import MOST_FLIPS, Plan, is_plannable, make_plan, make_scratch, tie_order
from bnnverify.engines.tails import Tail, binomial_table, setting_tail, subset_tail
from bnnverify.engines.visits import Visits, visit
from bnnverify.engines.walks import walk_settings, walk_shell
from bnnverify.engines.warmup import prepare
from bnnverify.errors import EngineError
from bnnverify.query import Query
from bnnverify.regions import HammingBall
from bnnverify.results import Count, Decision, Kind, Run, Verdict

_PIECE = 0.05  # seconds of a piece of work, by a rough guess
_LEAF, _TILE = 0.6e-6, 0.05e-6  # the guess: seconds for a tail, and for 512 inputs of it and one class
_TABLE_BYTES = 1 << 25  # largest table of a tail


@dataclass(slots=True)
class _Tally:
    """What is known of the region so far, in Python integers."""

    classes: int
    wanted: tuple[int, ...]  # classes whose inputs are adversarial
    shells: list[list[int]] = field(default_factory=list)
    settled: int = 0
    adversarial: int = 0
    leaves: int = 0
    closed: int = 0

    def add(self, shell: int, klass: int, count: int) -> None:
        while len(self.shells) <= shell:
            self.shells.append([0] * self.classes)
        self.shells[shell][klass] += count
        self.settled += count
        self.adversarial += count if klass in self.wanted else 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the walk: after `head`, go on with inputs in [low, high).

    For shells `head` lists the flips and `flips` is how many there are in all; for settings `head` holds the values of
    the first inputs (1 where flipped), and `low` and `high` are not used.
    """

    head: tuple[int, ...]
    low: int
    high: int
    flips: int
    size: int


class _Walker:
    """One plan, its tails, and work space for every thread."""

    def __init__(self, query: Query, order: tuple[int, ...], *, prune: bool) -> None:
        self.prune = prune
        self.plan: Plan = make_plan(query, order)
        self.is_ball = isinstance(query.sign_region, HammingBall)
        self.size = len(self.plan.margins)
        self._deltas = self.plan.deltas.ravel()
        self._tails: dict[int, Tail] = {}
        self._scratch: deque[tuple[Any, ...]] = deque()
        budget = self.plan.budget if self.is_ball else 0
        self._binomials = binomial_table(self.plan.free, max(budget, 1))
        uppers = np.repeat(np.arange(budget + 1, dtype=np.int8), self.size)
        self._ball_bounds = (uppers, -uppers)
        if not self.is_ball:
            suffix = self.plan.deltas[::-1].astype(np.int16)
            downs = np.zeros((self.plan.free + 1, self.size), dtype=np.int16)
            ups = downs.copy()
            downs[1:], ups[1:] = np.cumsum(suffix < 0, axis=0), np.cumsum(suffix > 0, axis=0)
            self._cube_bounds = (
                downs[::-1].astype(np.int8).ravel(),
                (-ups[::-1]).astype(np.int8).ravel(),
            )
        self.work = 0.3 + 0.1 * len(self.plan.classes) + sum(
            a * b for a, b in zip(self.plan.widths, self.plan.widths[1:], strict=False)
        ) / 100  # fmt: skip

    def tail(self, number: int) -> Tail:
        """The tail of `number` flips, or of `number` settings."""
        if number not in self._tails:
            free = self.plan.free
            last = np.arange(free - number, free)
            self._tails[number] = (
                subset_tail(self.plan, number, free) if self.is_ball else setting_tail(self.plan, last)
            )
        return self._tails[number]

    def seconds(self, flips: int, tail: int) -> float:
        """A rough guess for a shell, or for `flips` free inputs."""
        n = self.plan.free
        if not self.is_ball:
            leaves = 2.0 ** (flips - tail)
            return float(leaves * (_LEAF + _TILE * self.work * max(1, 2**tail / 512)))
        leaves = float(math.comb(n, flips - tail))
        return leaves * _LEAF + _TILE * self.work * (leaves / 2 + math.comb(n, flips) / 512)

    def best_tail(self, flips: int) -> int:
        """How many flips (inputs) to leave to the tail."""
        plan = self.plan
        if not self.is_ball:
            return min(flips, 12 if flips > 20 else 9)

        def cost(tail: int) -> float:
            levels = max(tail, 1) if not plan.is_masked else 2 * tail
            table = plan.neurons * levels * math.comb(plan.free, tail) / 8
            if table > _TABLE_BYTES and tail > 1:
                return math.inf
            return self.seconds(flips, tail) + table / 1.5e9

        return min(range(1, min(flips, 5) + 1), key=cost) if flips else 0

    def margins_after(self, head: tuple[int, ...]) -> NDArray[np.int8]:
        """Margins after the flips (values) of a head."""
        rows = list(head) if self.is_ball else [i for i, value in enumerate(head) if value]
        total = self.plan.margins.astype(np.int16) + self.plan.deltas[rows].sum(axis=0, dtype=np.int16)
        total[self.plan.neurons :] = -128
        margins: NDArray[np.int8] = total.astype(np.int8)
        return margins

    def settled(self, head: tuple[int, ...], left: int) -> int:
        """The class of everything below a head, or -1; `left` flips or values remain."""
        if not self.prune:
            return -1
        scratch = self._take()
        row = (left if self.is_ball else self.plan.free - left) * self.size
        bounds = self._ball_bounds if self.is_ball else self._cube_bounds
        place = settled_place(self.margins_after(head), 0, bounds, row, row, self.plan.net, scratch)
        self._scratch.append(scratch)
        return -1 if place < 0 else self.plan.classes[place]

    def run(self, piece: _Piece, tail: int) -> tuple[list[int], int, int]:
        """Inputs of a piece by place, tails evaluated, subtrees closed. Runs in any thread, without the GIL."""
        scratch = self._take()
        plan, depth = self.plan, len(piece.head)
        tallies = np.zeros(8 * len(plan.classes), dtype=np.uint64)
        if self.is_ball:
            margins = np.zeros((piece.flips + 1) * self.size, dtype=np.int8)
            margins[depth * self.size : (depth + 1) * self.size] = self.margins_after(piece.head)
            leaves, closed = walk_shell(
                margins, self._deltas, np.array(piece.head, dtype=np.int64), piece.low, piece.high, piece.flips,
                self.tail(tail).loops, tail, self._binomials, self._ball_bounds, self.prune, plan.net, scratch,
                tallies,
            )  # fmt: skip
        else:
            last = plan.free - tail
            margins = np.zeros((last + 1) * self.size, dtype=np.int8)
            margins[depth * self.size : (depth + 1) * self.size] = self.margins_after(piece.head)
            leaves, closed = walk_settings(
                margins, self._deltas, depth, last, self.tail(tail).loops, 1 << tail, self._cube_bounds, self.prune,
                plan.net, scratch, tallies,
            )  # fmt: skip
        self._scratch.append(scratch)
        return [int(v) for v in tallies.reshape(-1, 8).sum(axis=1, dtype=np.uint64)], leaves, closed

    def _take(self) -> tuple[Any, ...]:
        try:
            return self._scratch.popleft()
        except IndexError:
            return make_scratch(self.plan)


class _Enumeration:
    """One question in progress."""

    def __init__(self, query: Query, limits: Limits, clock: Clock, *, prune: bool, stop_at_first: bool) -> None:
        self.query, self.limits, self.clock, self.stop = query, limits, clock, stop_at_first
        self.threads = limits.threads or cores()
        self.prune = prune
        self.tally = _Tally(query.network.n_classes, query.adversarial_classes)
        self.found: _Piece | None = None
        self.reason = ""
        self.shells_done = 0

    def go(self, order: tuple[int, ...]) -> None:
        """Count everything, or stop at a limit or at the first piece with an adversarial input."""
        self.walker = _Walker(self.query, order, prune=self.prune)
        self.tells = order == tie_order(self.query)  # other winners say nothing about what is adversarial
        region = self.query.sign_region
        if isinstance(region, HammingBall):
            for flips in range(min(region.radius, self.walker.plan.free) + 1):
                self._part(flips, math.comb(self.walker.plan.free, flips))
                if self.reason or self.found:
                    return
                self.shells_done += 1
        else:
            self._part(self.walker.plan.free, region.size())
        if not (self.reason or self.found) and self.tally.settled != region.size():
            raise EngineError(
                f"enumeration settled {self.tally.settled} of {region.size()} inputs. This is a bug in bnnverify; "
                "please report it with the network and the question."
            )

    def _part(self, flips: int, size: int) -> None:
        """A shell of a ball, or the whole of a fixed-index region."""
        walker, shell = self.walker, flips if self.walker.is_ball else 0
        klass = walker.settled((), flips)
        if klass >= 0:
            self._close(shell, klass, _Piece((), 0, walker.plan.free, flips, size))
            return
        tail = walker.best_tail(flips)
        walker.tail(tail)
        pieces = self._pieces(flips, tail)
        if self.threads == 1 or walker.seconds(flips, tail) < 0.002:
            for piece in pieces:
                if not self._may_go_on():
                    return
                self._record(piece, tail, shell, walker.run(piece, tail))
                if self.found:
                    return
            return
        with ThreadPoolExecutor(self.threads) as pool:
            waiting = deque[tuple[_Piece, Future[tuple[list[int], int, int]]]]()
            try:
                for piece in pieces:
                    if not self._may_go_on() or self.found:
                        break
                    waiting.append((piece, pool.submit(walker.run, piece, tail)))
                    if len(waiting) > 2 * self.threads:
                        first, future = waiting.popleft()
                        self._record(first, tail, shell, future.result())
                else:  # nobody stopped it: all pieces count
                    while waiting:
                        first, future = waiting.popleft()
                        self._record(first, tail, shell, future.result())
            finally:
                for first, future in waiting:
                    if not future.cancel():
                        self._record(first, tail, shell, future.result())

    def _record(self, piece: _Piece, tail: int, shell: int, result: tuple[list[int], int, int]) -> None:
        counts, leaves, closed = result
        tally = self.tally
        tally.leaves, tally.closed = tally.leaves + leaves, tally.closed + closed
        before = tally.adversarial
        for place, count in enumerate(counts):
            if count:
                tally.add(shell, self.walker.plan.classes[place], count)
        if self.stop and self.found is None and tally.adversarial > before:
            self.found = piece
        if self.clock.monitor is not None and self.tells:
            size = self.query.sign_region.size()
            self.clock.monitor.report(tally.adversarial, size - tally.settled + tally.adversarial, size)

    def _close(self, shell: int, klass: int, piece: _Piece) -> None:
        """Record a piece whose class bounds settle."""
        self.tally.closed += 1
        self.tally.add(shell, klass, piece.size)
        if self.stop and self.found is None and klass in self.tally.wanted:
            self.found = piece

    def _may_go_on(self) -> bool:
        if self.clock.is_over:
            self.reason = self.clock.reason
        elif self.limits.nodes is not None and self.tally.settled >= self.limits.nodes:
            self.reason = f"limit of {self.limits.nodes} inputs reached"
        return not self.reason

    def _largest(self, flips: int, tail: int) -> float:
        """Inputs of a piece that takes about as long as a piece should."""
        whole = self.query.sign_region.size() if not self.walker.is_ball else math.comb(self.walker.plan.free, flips)
        share = _PIECE / self.walker.seconds(flips, tail)
        largest = max(min(whole * share, whole / (8 * self.threads)), 512.0)  # several pieces for every thread
        if self.limits.nodes is not None:
            largest = min(largest, max(self.limits.nodes / 4, 1))
        return min(largest, 2.0**62)

    def _pieces(self, flips: int, tail: int) -> Iterator[_Piece]:
        largest = self._largest(flips, tail)
        if self.walker.is_ball:
            yield from self._shell_pieces((), 0, flips, tail, largest)
        else:
            yield from self._setting_pieces((), tail, largest)

    def _shell_pieces(self, head: tuple[int, ...], low: int, flips: int, tail: int, largest: float) -> Iterator[_Piece]:
        """Pieces of what begins with `head`; what bounds settle at once is recorded here, in exact integers."""
        free, left = self.walker.plan.free, flips - len(head)
        size = math.comb(free - low, left)
        if left == tail or size <= largest:
            yield _Piece(head, low, free, flips, size)
            return
        start, together = low, 0
        for i in range(low, free - left + 1):
            below = math.comb(free - 1 - i, left - 1)
            if together + below <= largest:
                together += below
                continue
            if together:
                yield _Piece(head, start, i, flips, together)
            together, start = 0, i + 1
            if below <= largest:
                together, start = below, i
                continue
            longer = (*head, i)
            klass = self.walker.settled(longer, left - 1)
            if klass >= 0:
                self._close(flips, klass, _Piece(longer, i + 1, free, flips, below))
                continue
            yield from self._shell_pieces(longer, i + 1, flips, tail, largest)
        if together:
            yield _Piece(head, start, free, flips, together)

    def _setting_pieces(self, head: tuple[int, ...], tail: int, largest: float) -> Iterator[_Piece]:
        if self.found or not self._may_go_on():  # bounds may settle millions of heads between two pieces
            return
        free = self.walker.plan.free
        left = free - len(head)
        if left == tail or 1 << left <= largest:
            yield _Piece(head, 0, 0, free, 1 << left)
            return
        klass = self.walker.settled(head, left) if head else -1
        if klass >= 0:
            self._close(0, klass, _Piece(head, 0, 0, free, 1 << left))
            return
        for value in (0, 1):
            yield from self._setting_pieces((*head, value), tail, largest)

    def witness(self) -> tuple[int, ...]:
        """An adversarial input of the piece that was found to hold one, by counting ever smaller parts of it."""
        assert self.found is not None
        piece, walker = self.found, self.walker
        if walker.is_ball:
            flips = self._first_flips(piece)
        else:
            flips = [i for i, value in enumerate(self._first_setting(piece.head)) if value]
        x = list(self.query.sign_region.center)
        for i in flips:
            x[self.query.sign_region.free[i]] *= -1
        return tuple(x)

    def _has(self, piece: _Piece, tail: int) -> bool:
        counts, _, _ = self.walker.run(piece, tail)
        return any(count and self.walker.plan.classes[p] in self.tally.wanted for p, count in enumerate(counts))

    def _first_flips(self, piece: _Piece) -> list[int]:
        head, low, high = list(piece.head), piece.low, piece.high
        while len(head) < piece.flips:
            left = piece.flips - len(head)
            high = min(high, self.walker.plan.free - left + 1)
            while high - low > 1:
                middle = (low + high) // 2
                # a tail takes no range, so at least one flip is walked
                part = _Piece(tuple(head), low, middle, piece.flips, 0)
                if self._has(part, min(self._short_tail(left), left - 1)):
                    high = middle
                else:
                    low = middle
            head.append(low)
            low, high = low + 1, self.walker.plan.free
        return head

    def _short_tail(self, left: int) -> int:
        ready = [t for t in self.walker._tails if t <= left - 1]
        return max(ready, default=left - 1 if left <= 2 else 2)

    def _first_setting(self, head: tuple[int, ...]) -> tuple[int, ...]:
        while len(head) < self.walker.plan.free:
            left = self.walker.plan.free - len(head) - 1
            part = _Piece((*head, 0), 0, 0, 0, 0)
            head = (*head, 0 if self._has(part, min(left, 9)) else 1)
        return head


@dataclass(frozen=True, slots=True)
class EnumerationEngine:
    """Counts every input of the region, hundreds at a time, and whole subtrees where bounds settle the class.

    Exact for any network. Dense networks whose classes share one scale (up to its sign) and whose regions flip at most
    60 inputs at once go through the bit-sliced loops, at 10^8 to 10^10 inputs a second and core; all others are
    visited one by one (`visits.py`), at some 10^6 a second, convolutions more slowly. Few inputs are evaluated without
    any compiled loop (`batches.py`).

    Attributes:
        prune: False to evaluate every input: for measurements.
    """

    prune: bool = True

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "enumeration"

    def decide(self, query: Query, *, limits: Limits = UNLIMITED) -> Decision:
        """Is there an adversarial input? In a ball the counterexample is one of the nearest.

        Args:
            query: The question.
            limits: `nodes` limits the inputs visited, to within one piece of work.

        Returns:
            A proved verdict, or UNKNOWN with the limit that was reached.
        """
        prepare(self.name, query, limits)
        clock = Clock(limits.seconds)
        if (visits := self._visits(query, limits, clock, stop_at_first=True)) is not None:
            clean = visits.per_radius[:-1]
            run = self._run(query, clock, visits.reason, {"inputs_visited": visits.visited}, clean)
            witness, reason = visits.witness, visits.reason
        else:
            work = _Enumeration(query, limits, clock, prune=self.prune, stop_at_first=True)
            work.go(tie_order(query))
            clean = [0] * work.shells_done
            run = self._run(query, clock, work.reason, _statistics(work), clean)
            witness, reason = (work.witness() if work.found else None), work.reason
        if witness is not None:
            point, predicted = replayed(query, witness, self.name)
            return Decision(Verdict.NOT_ROBUST, run, point, predicted)
        return Decision(Verdict.UNKNOWN if reason else Verdict.ROBUST, run)

    def count(self, query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Count:
        """Exact counts by class, and by distance in a ball; bounds if a limit is reached.

        Args:
            query: The question.
            limits: Time, threads, and `nodes` for the inputs visited, to within one piece of work.
            monitor: Whom to report to, and who may stop the work.
        """
        prepare(self.name, query, limits)
        clock, size = Clock(limits.seconds, monitor), query.sign_region.size()
        is_ball = isinstance(query.sign_region, HammingBall)
        if (visits := self._visits(query, limits, clock, stop_at_first=False)) is not None:
            run = self._run(query, clock, visits.reason, {"inputs_visited": visits.visited}, visits.per_radius[:-1])
            if visits.reason:
                upper = size - (visits.visited - visits.adversarial)
                return Count(Kind.INTERVAL, visits.adversarial, upper, size, run)
            per_class = tuple(int(v) for v in visits.per_class)
            radii = tuple(visits.per_radius) if is_ball else None
            return Count(Kind.EXACT, visits.adversarial, visits.adversarial, size, run, per_class, radii)
        work = _Enumeration(query, limits, clock, prune=self.prune, stop_at_first=False)
        work.go(tie_order(query))
        radii = tuple(_adversarial_of(work.tally, shell) for shell in work.tally.shells) if is_ball else None
        if work.reason:
            run = self._run(query, clock, work.reason, _statistics(work), list(radii or ())[: work.shells_done])
            lower = work.tally.adversarial
            return Count(Kind.INTERVAL, lower, size - work.tally.settled + lower, size, run)
        classes: tuple[int, ...] | None = tuple(map(sum, zip(*work.tally.shells, strict=True)))
        statistics = _statistics(work)
        plain = tuple(range(query.network.n_classes))
        if tie_order(query) != plain:  # winners under another tie rule: the classes need a walk of their own
            again = _Enumeration(query, limits, clock, prune=self.prune, stop_at_first=False)
            again.go(plain)
            classes = None if again.reason else tuple(map(sum, zip(*again.tally.shells, strict=True)))
        run = self._run(query, clock, "", statistics, [])
        return Count(Kind.EXACT, work.tally.adversarial, work.tally.adversarial, size, run, classes, radii)

    def _visits(self, query: Query, limits: Limits, clock: Clock, *, stop_at_first: bool) -> Visits | None:
        """The inputs one by one, where there are few or the bit-sliced loops do not serve them; else None."""
        in_gray_order = not _is_served(query)
        if self.prune and is_small([query], limits):
            return look(query, clock, stop_at_first=stop_at_first, in_gray_order=in_gray_order)
        return visit(query, limits, clock, stop_at_first=stop_at_first) if in_gray_order else None

    def _run(self, query: Query, clock: Clock, reason: str, statistics: dict[str, Any], clean: list[int]) -> Run:
        """How it went; `clean` are the adversarial inputs of the shells that were finished."""
        if reason and isinstance(query.sign_region, HammingBall):
            broken = [radius for radius, count in enumerate(clean) if count]
            statistics = statistics | {"radius_proved": (broken[0] if broken else len(clean)) - 1}
        return Run(self.name, clock.elapsed, reason, statistics)


def _is_served(query: Query) -> bool:
    return query.sign_region.most_flips <= MOST_FLIPS and is_plannable(query.network)


def _adversarial_of(tally: _Tally, shell: list[int]) -> int:
    return sum(shell[klass] for klass in tally.wanted)


def _statistics(work: _Enumeration) -> dict[str, Any]:
    tally = work.tally
    return {
        "inputs_visited": tally.settled,
        "tails": tally.leaves,
        "subtrees_closed": tally.closed,
        "unsettled_neurons": work.walker.plan.neurons,
        "threads": work.threads,
    }
