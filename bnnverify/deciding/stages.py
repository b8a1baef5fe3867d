"""Decisions in stages, the cheap ones first: bounds, attack, tightened bounds, complete engines.

Each stage is exact or silent: bounds and complete engines prove, attacks find inputs that are replayed. Whatever
settles the question ends it. If nothing does in time, the answer is UNKNOWN with the best bound and the best margin, so
that one sees how near it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from bnnverify.blas import one_blas_thread
from bnnverify.deciding.attack import Attack, attack
from bnnverify.deciding.flips import search_flips
from bnnverify.deciding.intervals import Bounds, excesses, interval_bounds, refutes
from bnnverify.deciding.patches import patch_bounds
from bnnverify.deciding.race import race
from bnnverify.deciding.turns import in_turns, one_turn
from bnnverify.domain import InputDomain
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.costs import seconds_to_decide
from bnnverify.errors import ResourceLimitError, UnsupportedError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query
from bnnverify.regions import FixedIndexRegion, PixelBox, RealBox
from bnnverify.results import Decision, Run, Verdict

_FIRST_ROUNDS = 2  # of an attack before anything expensive
_MORE_ROUNDS = 8  # of it where everything else is expensive
_SMALL = 200_000  # cells of open neurons up to which an engine is tried in this process
_HOPELESS = 100_000_000  # cells beyond which no complete engine is started
_MOMENT = 0.25  # s of an engine for questions that may be easy
_TURN = 15.0  # s of an engine before other stages get theirs
_PATIENCE = 4.0  # an engine that goes through the region may take this many times its guess
_DAY = 86_400.0  # s: guesses beyond are no promise
_OVER = 2.0  # and is tried where the guess is at most this many times the time that is left

Stage = Callable[[], Decision | None]


def decide(
    query: Query,
    *,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    jobs: int = 1,
    seed: int = 0,
) -> Decision:
    """Whether the region holds an adversarial input, by the first stage that knows.

    Args:
        query: Any query over a box or over -1/+1 inputs.
        limits: Time for all stages together, and what the complete engines may use.
        monitor: Who may stop the work.
        jobs: Processes for the complete engines; with 1 they take turns in this one.
        seed: Of the attacks.

    Returns:
        ROBUST, or NOT_ROBUST with a replayed counterexample, or UNKNOWN with the reason. `run.engine` names the stage
        that settled it. In `run.statistics`: `stages` (name and seconds of each), `best_bound` (in integer scores, no
        input meets the property by more; below 0 is a proof) and `best_margin` (some input meets it by that).

    Raises:
        UnsupportedError: No stage serves the region.
    """
    with one_blas_thread():
        return _Course(query, limits, Clock(limits.seconds, monitor), jobs, seed).run()


@dataclass(slots=True)
class _Course:
    """One question on its way through the stages."""

    query: Query
    limits: Limits
    clock: Clock
    jobs: int
    seed: int
    stages: list[tuple[str, float]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    best_bound: int | None = None
    best_margin: int | None = None
    found: Bounds | None = None
    cells: int = 0
    is_exhausted: bool = False
    counters: dict[str, float] = field(default_factory=dict)

    def run(self) -> Decision:
        """Stage after stage."""
        for name, stage in self.plan():
            if self.clock.is_over and self.stages:
                break
            started = self.clock.elapsed
            try:
                answer = stage()
            except (UnsupportedError, ResourceLimitError) as error:
                answer = Decision(Verdict.UNKNOWN, Run(name, 0.0, str(error)))
            self.stages.append((name, round(self.clock.elapsed - started, 6)))
            if answer is not None and answer.verdict is not Verdict.UNKNOWN:
                engine = answer.run.engine if name in ("engine", "engines") else name
                return replace(answer, run=self.summary(engine, "", answer.run.statistics))
            if answer is not None and answer.run.reason:
                self.reasons[name] = answer.run.reason
            if self.is_exhausted:
                self.reasons = {name: self.reasons[name]}
                break
        reason = self.clock.reason if self.clock.is_over else "; ".join(f"{k}: {v}" for k, v in self.reasons.items())
        return Decision(Verdict.UNKNOWN, self.summary("stages", reason or "no stage settled it", {}))

    def summary(self, engine: str, reason: str, more: Any) -> Run:
        """How it was obtained."""
        statistics = {**more, "stages": [list(stage) for stage in self.stages]}
        statistics |= {"best_bound": self.best_bound, "best_margin": self.best_margin}
        return Run(engine, self.clock.elapsed, reason, statistics)

    def plan(self) -> Iterator[tuple[str, Stage]]:
        """The stages in order; which ones depends on what the bounds leave open."""
        region, depth = self.query.region, len(self.query.network.blocks)
        yield "bounds", self.bounds
        is_small, is_box = self.cells <= _SMALL, isinstance(region, PixelBox | RealBox)
        if is_small and isinstance(region, PixelBox):
            yield "engine", partial(self.turn, "minicard", _MOMENT)  # writing a small question takes milliseconds
            yield "attack", self.quick
            yield "attack", self.moment  # an input that an attack finds in a second is not worth a turn of an engine
            if _has_cpsat():
                yield "engine", partial(self.turn, "cpsat", _TURN)
        else:
            yield "attack", self.quick
        if not is_box:
            guesses = seconds_to_decide(self.query, limits=self.limits)
            self.counters = {name: seconds for name, seconds in guesses.items() if name != "sat" and seconds < _DAY}
        yield from self.due()
        if depth and not is_box:
            yield "flips", self.flips
            yield from self.due()
        if depth > 1:
            yield "patches", self.patches
            yield from self.due()
        yield "attack", self.long
        yield from self.due()
        if depth > 1 and isinstance(region, RealBox):
            yield "lifted", self.lifted
        while self.counters:  # complete engines have as much time as what is promised elsewhere leaves them
            yield "engines", self.engines
            yield from self.due(now=True)
        yield "engines", self.engines

    def due(self, *, now: bool = False) -> Iterator[tuple[str, Stage]]:
        """Engines that go through the whole region, each as soon as half of what it should take has been spent.

        So a question costs at most half as much again as its best such engine, if the guess is right. One whose guess
        is beyond the time that is left has no turn. `now`: the best one is due at once.
        """
        for name, seconds in sorted(self.counters.items(), key=lambda pair: pair[1]):
            left = self.clock.remaining
            if left is not None and seconds > _OVER * left:
                del self.counters[name]
            elif now or self.clock.elapsed >= seconds / 2:
                now = False
                del self.counters[name]
                yield "engine", partial(self.turn, name, max(_PATIENCE * seconds, _MOMENT))

    @property
    def until_due(self) -> float | None:
        """Seconds until `due` has something, at least a little; None if nothing will be."""
        if not self.counters:
            return None
        return max(min(self.counters.values()) / 2 - self.clock.elapsed, _MOMENT)

    def rest(self, share: float = 1.0, least: float = 0.0) -> Limits:
        """The limits with a share of the time that is left, but at least some seconds of it."""
        left, due = self.clock.remaining, self.until_due
        if left is not None:
            seconds: float | None = max(min(left, max(share * left, least)), 1e-3)
        else:
            seconds = None if share == 1 else max(least, 1.0)
        if due is not None:
            seconds = due if seconds is None else min(seconds, due)
        return replace(self.limits, seconds=seconds)

    def bounds(self) -> Decision | None:
        """Interval bounds of every neuron and score difference."""
        self.found = interval_bounds(self.query.network, self.query.region)
        excess = excesses(self.query, self.found)
        self.best_bound = _most(self.query, excess)
        if refutes(self.query, excess):
            return Decision(Verdict.ROBUST, Run("bounds"))
        self.cells = _open_cells(self.found)
        return None

    def quick(self) -> Decision | None:
        """A few rounds of the attack."""
        limits, stop = self.rest(), self._stop
        rounds = _FIRST_ROUNDS if self.cells <= _SMALL else _MORE_ROUNDS
        return self._attacked(attack(self.query, limits=limits, monitor=stop, seed=self.seed, rounds=rounds))

    def long(self) -> Decision | None:
        """The attack for longer: for all the time that is left if no engine would come to an end."""
        if self.cells > _HOPELESS and self.clock.remaining is not None:
            limits = self.rest()
        else:
            limits = self.rest(0.02, 1.0) if self.cells <= _SMALL else self.rest(0.3, 10.0)
        return self._attacked(attack(self.query, limits=limits, monitor=self._stop, seed=self.seed + 1))

    def moment(self) -> Decision | None:
        """The attack for less than a second."""
        limits = self.rest(0.02, 0.75)
        return self._attacked(attack(self.query, limits=limits, monitor=self._stop, seed=self.seed + 2))

    def patches(self) -> Decision | None:
        """Bounds over patches of the last block."""
        assert self.found is not None
        share = self.rest(0.02, 0.5) if self.cells <= _SMALL else self.rest(0.3, 10.0)
        tightened = patch_bounds(self.query, self.found, limits=share, monitor=self._stop)
        bound = _most(self.query, tightened.excess)
        self.best_bound = bound if self.best_bound is None else min(bound, self.best_bound)
        if tightened.is_robust:
            return Decision(Verdict.ROBUST, replace(tightened.run, statistics={}))
        return None

    def lifted(self) -> Decision | None:
        """The rest of the network with every open neuron of the first block set free: sound over reals."""
        assert self.found is not None
        network, signs = self.query.network, self.found.blocks[0].signs
        rest = BinaryNetwork(InputDomain.binary(signs.size), network.blocks[1:], network.output)
        center = np.where(signs == 0, 1, signs).tolist()
        region = FixedIndexRegion(tuple(center), tuple(np.flatnonzero(signs == 0).tolist()))
        query = replace(self.query, network=rest, region=region)
        if self.cells > _HOPELESS:
            return None
        limits = self.rest(0.2, 5.0)
        if self.cells <= _SMALL:
            answer = one_turn(query, "minicard", limits.seconds or _TURN, limits=self.limits, clock=self.clock)
        else:
            answer = race(query, ["minicard"], limits=limits, clock=Clock(limits.seconds, self._stop), jobs=1)
        return Decision(Verdict.ROBUST, answer.run) if answer.verdict is Verdict.ROBUST else None

    @property
    def _stop(self) -> Monitor | None:
        return self.clock.monitor

    def _attacked(self, found: Attack) -> Decision | None:
        if found.margin is not None:
            self.best_margin = max(found.margin, found.margin if self.best_margin is None else self.best_margin)
        if found.counterexample is None:
            return Decision(Verdict.UNKNOWN, found.run)
        return Decision(Verdict.NOT_ROBUST, found.run, found.counterexample, found.predicted)

    def flips(self) -> Decision | None:
        """The search over first-block neurons."""
        return search_flips(self.query, limits=self.rest(0.3, 2.0), monitor=self._stop)

    def turn(self, engine: str, seconds: float) -> Decision | None:
        """An engine for some seconds."""
        answer = one_turn(self._on_grid(), engine, seconds, limits=self.limits, clock=self.clock)
        return self._judged(answer) if answer.verdict is not Verdict.UNKNOWN else None

    def turns(self) -> dict[str, float]:
        """Complete engines and their first turns. Many easy questions are for minicard, many hard ones for CP-SAT."""
        long = max(2 * _TURN, 0.9 * (self.clock.remaining or 0.0))  # a turn starts from the beginning: one is enough
        turns = {"minicard": _TURN / 6, "cpsat": long, "sat": _TURN / 3}
        return {name: seconds for name, seconds in turns.items() if name != "cpsat" or _has_cpsat()}

    def engines(self) -> Decision | None:
        """All engines: side by side, or in longer and longer turns."""
        if self.cells > _HOPELESS:
            return Decision(Verdict.UNKNOWN, Run("engines", 0.0, "too many open neurons for a complete engine"))
        query, turns = self._on_grid(), self.turns()
        clock = self.clock if self.until_due is None else Clock(self.rest().seconds, self._stop)
        if self.jobs > 1 or self.cells > _SMALL:
            names = sorted(turns, key=lambda name: -turns[name])
            return self._judged(race(query, names, limits=self.limits, clock=clock, jobs=self.jobs))
        return self._judged(in_turns(query, turns, limits=self.limits, clock=clock))

    def _on_grid(self) -> Query:
        """The question that complete engines take: over the integers of a real box."""
        if not isinstance(self.query.region, RealBox):
            return self.query
        grid = self.query.region.grid()
        if grid is None:
            raise UnsupportedError("the real box holds no integer input, which is where complete engines look")
        return replace(self.query, region=grid)

    def _judged(self, answer: Decision) -> Decision:
        """The answer, unless it is a proof for the integers of a box of reals only."""
        if answer.verdict is Verdict.ROBUST and isinstance(self.query.region, RealBox):
            self.is_exhausted = True  # counterexamples are integers, and there are none
            reason = f"{answer.run.engine} proved all integer inputs of the real box robust, which says nothing between"
            return Decision(Verdict.UNKNOWN, replace(answer.run, reason=reason))
        return answer


def _has_cpsat() -> bool:
    return find_spec("ortools") is not None


def _most(query: Query, excess: Sequence[Fraction | int]) -> int:
    """An upper bound on the margin of all inputs."""
    comparisons, conjunctive = query.score_conditions()
    pairs = zip(excess, comparisons, strict=True)
    margins = [math.ceil(most) - 1 if strict else math.floor(most) for most, (_, _, strict) in pairs]
    return min(margins) if conjunctive else max(margins)


def _open_cells(bounds: Bounds) -> int:
    """Cells that the neurons which are not settled read: about how long a question to an engine gets."""
    total = 0
    for block, found in zip(bounds.network.blocks, bounds.blocks, strict=True):
        low, high = (sums.reshape(len(block.weights), -1) for sums in (found.low, found.high))
        limits = block.thresholds[:, None]
        is_open = (low < limits) & (limits <= high)
        present = np.count_nonzero(block.weights.reshape(len(block.weights), -1), axis=1)
        total += int(is_open.sum(axis=1) @ present)
    return total
