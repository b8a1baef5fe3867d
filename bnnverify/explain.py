"""Why this class? Inputs that force it (prime implicants), and inputs that it always has (essential features).

Both are statements about the whole region, not about samples of it. A prime implicant is also called an abductive or
PI explanation.

References:
    Shih, Choi & Darwiche, IJCAI 2018 (PI explanations). Ignatiev, Narodytska & Marques-Silva, AAAI 2019 (abductive
    explanations by deletion). The search for a minimal set is that for a minimal unsatisfiable subset: Marques-Silva,
    Janota & Belov, CAV 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.engines.bounds import IntervalBounds
from bnnverify.engines.probing import Probe
from bnnverify.engines.sat import FixingSearch, Refutation
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, Region
from bnnverify.results import EssentialFeatures, Explanation, Run, Verdict
from bnnverify.robustness import decide

ORDERS = ("influence", "index", "random")

ENUMERATE_UP_TO = 1 << 22  # inputs: a fraction of a second
_ENCODE_UP_TO = 150_000  # estimated diagram nodes of one CNF: some seconds of encoding
_CHUNK_SECONDS = 1.0  # for several inputs at once: they can still be tried one by one
_SAMPLES = 2048


def prime_implicant(
    query: Query,
    *,
    order: str | Sequence[int] = "influence",
    seed: int = 0,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> Explanation:
    """A subset-minimal set of the region's free inputs whose central values force the class within the region.

    Every input of the region that agrees with the centre there is proved not to be adversarial, and for every one of
    them there is an adversarial input that agrees on all the others.

    Inputs are given up in the given order, in runs as long as can be proved at once: by intervals, else by
    enumeration, else by one incremental SAT solver, whose refutations name further inputs that nobody needs. A local
    search finds most of the inputs that cannot be given up. Another order may give another minimal set, of
    another size.

    Args:
        query: Network, region, property and ties. For the whole cube around an image use
            ``FixedIndexRegion(image, range(n))`` or a ball of radius n.
        order: Which inputs to give up first. "influence": those whose flips raise the attacker's score difference
            least, on average over random inputs of the region (`Probe.influence`), which makes small sets;
            "index": the first ones; "random": by `seed`; or the free indices themselves in some order.
        seed: For "random", and of the local search.
        engine: "auto", or the engine that `decide` takes for every step.
        limits: Time for the whole search; nodes and memory for each step of a named engine.
        monitor: Whom to tell `(needed, kept, free)` as both approach each other, and who may stop the work.

    Returns:
        EXACT if prime. If a limit was reached, INTERVAL: the inputs kept are still proved to suffice.

    Raises:
        QueryError: The centre itself is adversarial, so that nothing can force the class; or there is no such order.
    """
    if query.is_adversarial(query.region.center):
        own = query.network.evaluate(query.region.center)
        raise QueryError(
            f"the centre of the region is adversarial itself ({query.property}; its class is {own}), "
            "so no set of its inputs can exclude that. Ask about the class that it has."
        )
    work = _Reduction(query, Clock(limits.seconds, monitor), engine, limits, seed)
    name = order if isinstance(order, str) else "given"
    work.open = _ordered(query, order, work.probe, seed)
    reason = work.run()
    kept = sorted(work.needed + work.open + work.deferred + work.stuck)
    undecided = sorted(work.open + work.deferred + work.stuck)
    run = Run("+".join(work.used), work.clock.elapsed, reason if undecided else "", work.statistics)
    values = tuple(query.region.center[i] for i in kept)
    return Explanation(tuple(kept), values, tuple(undecided), len(query.region.free), name, run)


def _ordered(query: Query, order: str | Sequence[int], probe: Probe, seed: int) -> list[int]:
    free = list(query.region.free)
    if not isinstance(order, str):
        if sorted(order) != free:
            raise QueryError(f"order lists {len(order)} indices, expected each of the {len(free)} free inputs once.")
        return [int(i) for i in order]
    if order == "index":
        return free
    if order == "random":
        return [free[i] for i in np.random.default_rng(seed).permutation(len(free))]
    if order == "influence":
        influence = probe.influence()
        return sorted(free, key=lambda i: (influence[i], i))
    raise QueryError(f"order is {order!r}, expected {', '.join(ORDERS)} or a list of indices.")


def within(region: Region, free: Sequence[int]) -> Region:
    """The inputs of the region that agree with its centre outside `free`, a part of its free inputs."""
    if isinstance(region, HammingBall):
        return HammingBall(region.center, min(region.radius, len(free)), tuple(free))
    return FixedIndexRegion(region.center, tuple(free))


@dataclass(slots=True)
class _Reduction:
    """A search for a prime implicant.

    Invariant: `freed` is proved: no adversarial input differs from the centre only there. Every index of `needed` has
    an adversarial input that differs only there and within `freed`; as `freed` grows, that stays true.

    Attributes:
        open: Not tried yet, in the order of the deletion.
        deferred: Not settled within its share of the time; tried again with what is left.
        stuck: Not settled for another reason than time (`reason`, `gave_up`); not tried again.
    """

    query: Query
    clock: Clock
    engine: str
    limits: Limits
    seed: int
    open: list[int] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)
    needed: list[int] = field(default_factory=list)
    deferred: list[int] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    statistics: dict[str, int] = field(default_factory=dict)
    probe: Probe = field(init=False)
    bounds: IntervalBounds = field(init=False)
    session: tuple[frozenset[int], FixingSearch] | None = None
    reason: str = ""
    gave_up: bool = False

    def __post_init__(self) -> None:
        self.probe, self.bounds = Probe(self.query, self.seed), IntervalBounds(self.query)

    def run(self) -> str:
        """Work until all is settled or a limit is reached; why it ended early, or nothing."""
        try:
            while self.open and not self.clock.is_over:
                self._sweep()
                self.open, self.deferred = self.open + self.deferred, []
            return self.clock.reason if self.open else self.reason
        finally:
            self._close()

    def _sweep(self) -> None:
        """Settle, defer or give up on every open input, in order."""
        size = len(self.open)
        together: set[int] = set()  # open inputs of a known adversarial one: not all of them can be freed
        probed = -1
        while self.open and not self.clock.is_over:
            self._report()
            if probed != len(self.freed):
                probed = len(self.freed)
                for index in self._note("probe", self.probe.breakers(self.freed, self.open)):
                    self._need(index)
                continue
            if self._free_by_bounds():
                continue
            if not together <= set(self.open):
                together = set()
            if len(together) == 1:
                self._need(together.pop())
                continue
            if together:
                # the last of them cannot be freed with all before it: look among those first
                size = min(size, max(1, max(map(self.open.index, together)) // 2))
            chunk = self.open[:size]
            answer = self._prove(chunk)
            if isinstance(answer, Refutation):
                spare = set(self.open + self.deferred + self.stuck) - set(answer.core)
                self._free([i for i in chunk if i not in spare] + [i for i in self._kept() if i in spare])
                size *= 2
            elif answer is not None:
                last_first = [*reversed(self.open), *self.freed]
                answer = self.probe.shrunk(answer, last_first)
                center = self.query.region.center
                together = {i for i in self.open if answer[i] != center[i]}
            elif len(chunk) > 1:
                size = len(chunk) // 2
            else:
                self.open.remove(chunk[0])
                (self.stuck if self.gave_up else self.deferred).append(chunk[0])

    def _kept(self) -> list[int]:
        return self.open + self.deferred + self.stuck

    def _need(self, index: int) -> None:
        self.open.remove(index)
        self.needed.append(index)

    def _free(self, indices: Sequence[int]) -> None:
        self.freed += indices
        gone = set(indices)
        self.open, self.deferred, self.stuck = (
            [i for i in part if i not in gone] for part in (self.open, self.deferred, self.stuck)
        )

    def _note(self, what: str, found: dict[int, tuple[int, ...]]) -> list[int]:
        self.statistics[what] = self.statistics.get(what, 0) + len(found)
        return list(found)

    def _count(self, what: str) -> None:
        self.statistics[what] = self.statistics.get(what, 0) + 1

    def _report(self) -> None:
        if self.clock.monitor is not None:
            n = len(self.query.region.free)
            self.clock.monitor.report(len(self.needed), n - len(self.freed), n)

    def _free_by_bounds(self) -> bool:
        """Free as many of the next inputs as intervals can prove at once."""
        low, high = 0, len(self.open)
        while low < high:  # proved for `low` of them, not for more than `high`
            middle = (low + high + 1) // 2
            if self.bounds.prove(np.array(self.freed + self.open[:middle], dtype=np.int64)):
                low = middle
            else:
                high = middle - 1
        if low:
            self._use("bounds")
            self.statistics["bounds"] = self.statistics.get("bounds", 0) + low
            self._free(self.open[:low])
        return low > 0

    def _use(self, engine: str) -> None:
        if engine not in self.used:
            self.used.append(engine)

    def _prove(self, chunk: list[int]) -> Refutation | tuple[int, ...] | None:
        """Can `chunk` be freed as well? A proof, with what it needs fixed; an adversarial input; or None: unsettled."""
        self.gave_up = False
        if len(chunk) > 1 and (x := self.probe.search(self.freed + chunk)) is not None:
            return x
        region = within(self.query.region, self.freed + chunk)
        if self.engine == "auto" and region.size() > ENUMERATE_UP_TO:
            return self._refute(chunk)
        engine = "enumeration" if self.engine == "auto" else self.engine
        limits = replace(self.limits, seconds=self._share(chunk))
        decision = decide(replace(self.query, region=region), engine=engine, limits=limits)
        self._use(decision.run.engine)
        self._count(decision.run.engine)
        if decision.verdict is Verdict.ROBUST:
            varying = {*self.freed, *chunk}
            return Refutation(tuple(i for i in self.query.region.free if i not in varying))
        if decision.counterexample is None and "time limit" not in decision.run.reason:
            self.reason, self.gave_up = decision.run.reason, True
        return decision.counterexample

    def _share(self, chunk: Sequence[int]) -> float | None:
        """Seconds that a step may take: the more the fewer inputs it is about."""
        remaining = self.clock.remaining
        if len(chunk) > 1:
            return _CHUNK_SECONDS if remaining is None else max(1e-3, min(_CHUNK_SECONDS, remaining / 8))
        return None if remaining is None else max(1e-3, min(remaining, max(0.5, remaining / 4)))

    def _refute(self, chunk: list[int]) -> Refutation | tuple[int, ...] | None:
        """`_prove` by SAT, with all kept inputs fixed by assumption."""
        self._use("sat")
        self._count("sat")
        step = Clock(self._share(chunk), self.clock.monitor)
        try:
            search, varying = self._search_for(chunk, step)
            center, loose = self.query.region.center, {*self.freed, *chunk}
            # the first are preferred for the core: what is needed anyhow, then the most influential
            kept = [*self.needed, *self.stuck, *self.deferred, *reversed(self.open)]
            answer = search.search({i: center[i] for i in kept if i in varying and i not in loose}, step)
        except ResourceLimitError:
            return None
        if isinstance(answer, Refutation):
            # inputs that the formula does not vary count as fixed
            return Refutation((*answer.core, *(i for i in kept if i not in varying)))
        return answer

    def _search_for(self, chunk: list[int], clock: Clock) -> tuple[FixingSearch, frozenset[int]]:
        """The solver, and the inputs that its formula varies: all, or as many as a formula of fair size allows."""
        wanted = {*self.freed, *chunk}
        if self.session is not None and wanted <= self.session[0]:
            return self.session[1], self.session[0]
        self._close()
        candidates = [*self.freed, *self.open, *self.deferred, *self.stuck, *self.needed]
        n = max(len(wanted), self._affordable(candidates))
        region = within(self.query.region, candidates[:n])
        search = FixingSearch(replace(self.query, region=region), clock)
        search.__enter__()
        self.session = frozenset(candidates[:n]), search
        return search, self.session[0]

    def _affordable(self, candidates: Sequence[int]) -> int:
        """How many of the inputs a formula can vary before its first block grows too large."""
        low, high = 0, len(candidates)
        while low < high:
            middle = (low + high + 1) // 2
            open_neurons = self.bounds.unsettled(np.array(candidates[:middle], dtype=np.int64))
            radius = within(self.query.region, candidates[:middle])
            depth = min(middle // 2, 2 * radius.radius) if isinstance(radius, HammingBall) else middle // 2
            if open_neurons * middle * depth // 2 <= _ENCODE_UP_TO:
                low = middle
            else:
                high = middle - 1
        return low

    def _close(self) -> None:
        if self.session is not None:
            self.session[1].__exit__(None, None, None)
            conflicts = int(self.session[1].statistics["conflicts"])
            self.statistics["conflicts"] = self.statistics.get("conflicts", 0) + conflicts
            self.session = None


@dataclass(frozen=True, slots=True)
class ExplanationCheck:
    """Whether a set of inputs is a prime implicant, each part proved by an engine from scratch.

    Attributes:
        sufficient: ROBUST iff every input of the region that agrees with the centre there keeps the class.
        counterexample: An adversarial input that agrees there, or None.
        redundant: Inputs of the set without any one of which it would still suffice (proved).
        undecided: Inputs for which a limit left that open.
        seconds: Wall time, s.
        reason: The limit that was reached, or nothing.
    """

    sufficient: Verdict
    counterexample: tuple[int, ...] | None
    redundant: tuple[int, ...]
    undecided: tuple[int, ...]
    seconds: float
    reason: str

    @property
    def is_prime(self) -> bool:
        """True iff it is proved that the set suffices and that no input can be dropped."""
        return self.sufficient is Verdict.ROBUST and not self.redundant and not self.undecided

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "sufficient": self.sufficient.value,
            "prime": self.is_prime,
            "redundant": list(self.redundant),
            "undecided": list(self.undecided),
            "seconds": round(self.seconds, 6),
            "reason": self.reason,
        }


def check_explanation(
    query: Query,
    kept: Sequence[int],
    *,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> ExplanationCheck:
    """Is this set of inputs a prime implicant? Nothing of the search for one is used, only engines.

    Args:
        query: What the explanation is about.
        kept: Indices; those that do not vary in the region are ignored, and called redundant.
        engine: As in `decide`.
        limits: Time for the whole check; nodes and memory for each step.
        monitor: Who may stop the work between steps.
    """
    clock, region = Clock(limits.seconds, monitor), query.region
    chosen = set(kept)
    varying = [i for i in region.free if i not in chosen]

    def asked(free: Sequence[int]) -> tuple[Verdict, tuple[int, ...] | None, str]:
        if clock.is_over:
            return Verdict.UNKNOWN, None, clock.reason
        remaining = None if clock.remaining is None else max(clock.remaining, 1e-9)
        question = replace(query, region=within(region, free))
        answer = decide(question, engine=engine, limits=replace(limits, seconds=remaining))
        return answer.verdict, answer.counterexample, answer.run.reason

    sufficient, counterexample, reason = asked(varying)
    redundant, undecided = [], []
    for index in sorted(chosen):
        verdict, _, why = asked([*varying, index]) if index in region.free else (Verdict.ROBUST, None, "")
        if verdict is Verdict.ROBUST:
            redundant.append(index)
        elif verdict is Verdict.UNKNOWN:
            undecided.append(index)
            reason = reason or why
    return ExplanationCheck(sufficient, counterexample, tuple(redundant), tuple(undecided), clock.elapsed, reason)


def negated(query: Query) -> Query:
    """The query whose adversarial inputs are those inputs of the region that are not adversarial in this one."""
    ties = {Ties.COUNTEREXAMPLE: Ties.ROBUST, Ties.ROBUST: Ties.COUNTEREXAMPLE}.get(query.ties, query.ties)
    if isinstance(query.property, Untargeted):
        return replace(query, property=Targeted(query.property.label), ties=ties)
    return replace(query, property=Untargeted(query.property.target), ties=ties)


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
        monitor: Whom to tell `(essential, essential or undecided, free)`, and who may stop the work.

    Returns:
        EXACT, or INTERVAL with the inputs that a limit left undecided. If no input of the region has the class,
        nothing is called essential, and `witness` is None.
    """
    wanted = negated(query)
    clock = Clock(limits.seconds, monitor)
    work = _Essence(wanted, clock, engine, limits)
    try:
        work.run(seed)
    finally:
        work.close()
    essential = sorted(work.essential)
    center = work.witness or query.region.center
    reason = work.reason if work.undecided or (work.witness is None and not work.is_empty) else ""
    run = Run("+".join(work.used), clock.elapsed, reason, work.statistics)
    values = tuple(center[i] for i in essential)
    undecided = tuple(sorted(work.undecided))
    return EssentialFeatures(tuple(essential), values, undecided, len(query.region.free), work.witness, run)


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
        region = self.wanted.region
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
        region = self.wanted.region
        free = np.array(region.free, dtype=np.int64)
        if not free.size:
            return
        probe = Probe(self.wanted)
        radius = region.radius if isinstance(region, HammingBall) else free.size
        flips = np.zeros((free.size + _SAMPLES, region.n), dtype=bool)
        flips[np.arange(free.size), free] = True
        for row, count in zip(flips[free.size :], generator.integers(1, radius + 1, _SAMPLES), strict=True):
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
        region = self.wanted.region
        if not fixed and self.wanted.is_adversarial(region.center):
            return replayed(self.wanted, region.center, "evaluation")[0]
        part = _fixing(region, fixed)
        if part is None:
            return Refutation(tuple(fixed))
        remaining = self.clock.remaining
        share = None if remaining is None else max(1e-3, min(remaining, max(0.5, remaining / 4)))
        if self.engine == "auto" and part.size() > ENUMERATE_UP_TO:
            return self._solve(fixed, share)
        engine = "enumeration" if self.engine == "auto" else self.engine
        question = replace(self.wanted, region=part)
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


def _fixing(region: Region, fixed: dict[int, int]) -> Region | None:
    """The inputs of the region with these values at free indices, or None if there are none."""
    flips = [i for i, v in fixed.items() if region.center[i] != v]
    center = tuple(fixed.get(i, v) for i, v in enumerate(region.center))
    free = tuple(i for i in region.free if i not in fixed)
    if isinstance(region, FixedIndexRegion):
        return FixedIndexRegion(center, free)
    radius = region.radius - len(flips)
    return None if radius < 0 else HammingBall(center, min(radius, len(free)), free)
