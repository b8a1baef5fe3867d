"""Essential features: inputs that a class never goes without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.engines.probing import Probe
from bnnverify.engines.sat import FixingSearch, Refutation
from bnnverify.errors import ResourceLimitError
from bnnverify.explain.parts import fixing, is_enumerable, negated, wish
from bnnverify.query import Query
from bnnverify.regions import Region
from bnnverify.results import EssentialFeatures, Run, Verdict
from bnnverify.robustness import decide
from bnnverify.scalars import integer

_SAMPLES = 2048


def essential_features(
    query: Query,
    *,
    seed: int = 0,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> EssentialFeatures:
    """The free inputs that have the same value in every input of the region that is not adversarial.

    With ``Untargeted(k)`` (and ties to the lowest index) these are the inputs of the region with class k: an
    essential feature is one that class k never goes without.

    Args:
        query: Network, region, property and ties.
        seed: Of the random inputs that rule most features out.
        engine: "auto" (enumeration for small regions, else one incremental SAT solver), or the engine that `decide`
            takes for every step.
        limits: Time for the whole search; nodes and memory for each step of a named engine.
        monitor: Whom to tell `(essential, essential or undecided, free)`, and who may stop the work, as in
            `prime_implicant`.

    Returns:
        EXACT, or INTERVAL with the inputs that a limit left undecided. If no input of the region has the class,
        nothing is called essential, and `witness` is None.
    """
    wanted = negated(query)
    clock = Clock(limits.seconds, monitor)
    work = _Essence(wanted, clock, engine, limits)
    try:
        work.run(integer(seed, "seed", least=0))
    except KeyboardInterrupt:
        if (stopped := wish(clock)) is None:
            raise
        work.reason = stopped
    finally:
        work.close()
    essential = sorted(work.essential)
    work.undecided -= set(essential)
    center = work.witness or query.sign_region.center
    reason = work.reason if work.undecided or (work.witness is None and not work.is_empty) else ""
    run = Run("+".join(work.used), clock.elapsed, reason, work.statistics)
    values = tuple(center[i] for i in essential)
    undecided = tuple(sorted(work.undecided))
    return EssentialFeatures(tuple(essential), values, undecided, len(query.sign_region.free), work.witness, run)


@dataclass(slots=True)
class _Essence:
    """A search for essential features; `wanted` is the query whose adversarial inputs have the class."""

    wanted: Query
    clock: Clock
    engine: str
    limits: Limits
    undecided: set[int] = field(default_factory=set)
    essential: list[int] = field(default_factory=list)
    witness: tuple[int, ...] | None = None
    is_empty: bool = False
    reason: str = ""
    used: list[str] = field(default_factory=list)
    statistics: dict[str, int] = field(default_factory=dict)
    session: FixingSearch | None = None

    def run(self, seed: int) -> None:
        """Rule out by samples, then settle one by one."""
        region = self.wanted.sign_region
        self.undecided = set(region.free)
        found = self._some({})
        if found is None or isinstance(found, Refutation):
            self.is_empty = found is not None
            self.undecided = set() if self.is_empty else self.undecided
            return
        self.witness = found
        self._sample(np.random.default_rng(seed))
        deferred: list[int] = []
        for index in sorted(self.undecided):
            if index not in self.undecided:
                continue
            if self.clock.monitor is not None:
                settled = len(self.essential)
                self.clock.monitor.report(settled, settled + len(self.undecided), len(region.free))
            other = self._some({index: -self.witness[index]})
            if isinstance(other, Refutation):
                self.essential.append(index)
                self.undecided.discard(index)
            elif other is None:
                deferred.append(index)
                if self.clock.is_over:
                    return
            else:
                self._rule_out(other)

    def _rule_out(self, x: Sequence[int]) -> None:
        assert self.witness is not None
        self.undecided -= {i for i in self.undecided if x[i] != self.witness[i]}

    def _sample(self, generator: np.random.Generator) -> None:
        """Rule out what random inputs of the region, and those next to the centre, show not to be essential."""
        assert self.witness is not None
        region = self.wanted.sign_region
        free = np.array(region.free, dtype=np.int64)
        if not free.size:
            return
        probe = Probe(self.wanted)
        flips = np.zeros((free.size + _SAMPLES, region.n), dtype=bool)
        flips[np.arange(free.size), free] = True
        for row, count in zip(flips[free.size :], generator.integers(1, region.most_flips + 1, _SAMPLES), strict=True):
            row[generator.choice(free, count, replace=False)] = True
        likely = np.flatnonzero(probe.margins(flips) >= -1e-6)
        differs = flips ^ (np.array(self.witness) != np.array(region.center))  # from the witness
        while likely.size and self.undecided:
            gains = differs[likely][:, sorted(self.undecided)].sum(axis=1)
            best = int(gains.argmax())
            if not gains[best]:
                return
            x = probe.adversarial(flips[likely[best]])
            if x is not None:
                self._rule_out(x)
            likely = np.delete(likely, best)

    def _some(self, fixed: dict[int, int]) -> tuple[int, ...] | Refutation | None:
        """An input of the region with the class and the fixed value; the proof that there is none; or None."""
        region = self.wanted.sign_region
        if not fixed and self.wanted.is_adversarial(region.center):
            return replayed(self.wanted, region.center, "evaluation")[0]
        part: Region | None = region
        for index, value in fixed.items():
            part = fixing(region, index, value)
        if part is None:
            return Refutation(tuple(fixed))
        remaining = self.clock.remaining
        share = None if remaining is None else max(1e-3, min(remaining, max(0.5, remaining / 4)))
        question = replace(self.wanted, region=part)
        if self.engine == "auto" and not is_enumerable(question, share):
            return self._solve(fixed, share)
        engine = "enumeration" if self.engine == "auto" else self.engine
        answer = decide(question, engine=engine, limits=replace(self.limits, seconds=share))
        self._use(answer.run.engine)
        self.reason = self.reason or answer.run.reason
        return Refutation(tuple(fixed)) if answer.verdict is Verdict.ROBUST else answer.counterexample

    def _solve(self, fixed: dict[int, int], share: float | None) -> tuple[int, ...] | Refutation | None:
        self._use("sat")
        try:
            if self.session is None:
                session = FixingSearch(self.wanted, self.clock)
                session.__enter__()
                self.session = session
            return self.session.search(fixed, Clock(share, self.clock.monitor))
        except ResourceLimitError as limit:
            self.reason = self.clock.reason or self.reason or str(limit)
            return None

    def _use(self, engine: str) -> None:
        if engine not in self.used:
            self.used.append(engine)
        self.statistics[engine] = self.statistics.get(engine, 0) + 1

    def close(self) -> None:
        """Give the solver back."""
        if self.session is not None:
            self.session.__exit__(None, None, None)
            self.statistics["conflicts"] = int(self.session.statistics["conflicts"])
