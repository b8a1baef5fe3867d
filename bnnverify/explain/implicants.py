"""Prime implicants: a smallest part of the inputs that forces the class, where smallest means that none is spare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.bounds import IntervalBounds
from bnnverify.engines.probing import Probe
from bnnverify.engines.sat import FixingSearch, Refutation
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.explain import parts
from bnnverify.explain.parts import fixing, is_enumerable, wish, within
from bnnverify.query import Query
from bnnverify.regions import HammingBall
from bnnverify.results import Explanation, Run, Verdict
from bnnverify.robustness import decide
from bnnverify.scalars import integer, integers

ORDERS = ("influence", "index", "random")

_ENCODE_UP_TO = 150_000  # estimated diagram nodes of one CNF: some seconds of encoding
_PROBE_SECONDS = 2.0  # of enumeration: what a local search takes on networks of a hundred thousand cells
_CHUNK_SECONDS = 1.0  # for several inputs at once: they can still be tried one by one


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
        monitor: Whom to tell `(needed, kept, free)` as both approach each other, and who may stop the work, between
            two steps or by a `KeyboardInterrupt` once `stop` is set.

    Returns:
        EXACT if prime. If a limit was reached, INTERVAL: the inputs kept are still proved to suffice.

    Raises:
        QueryError: The centre itself is adversarial, so that nothing can force the class; or there is no such order.
    """
    if query.is_adversarial(query.sign_region.center):
        own = query.network.evaluate(query.sign_region.center)
        raise QueryError(
            f"the centre of the region is adversarial itself ({query.property}; its class is {own}), "
            "so no set of its inputs can exclude that. Ask about the class that it has."
        )
    seed = integer(seed, "seed", least=0)
    work = _Reduction(query, Clock(limits.seconds, monitor), engine, limits, seed)
    name = order if isinstance(order, str) else "given"
    work.open = _ordered(query, order, work.probe, seed)
    reason = work.run()
    undecided = sorted({*work.open, *work.deferred, *work.stuck} - {*work.needed, *work.freed})
    kept = sorted({*work.needed, *undecided})
    run = Run("+".join(work.used), work.clock.elapsed, reason if undecided else "", work.statistics)
    values = tuple(query.sign_region.center[i] for i in kept)
    return Explanation(tuple(kept), values, tuple(undecided), len(query.sign_region.free), name, run)


def _ordered(query: Query, order: str | Sequence[int], probe: Probe, seed: int) -> list[int]:
    free = list(query.sign_region.free)
    if not isinstance(order, str):
        indices = integers(order, "order")
        if sorted(indices) != free:
            raise QueryError(f"order lists {len(order)} indices, expected each of the {len(free)} free inputs once.")
        return list(indices)
    if order == "index":
        return free
    if order == "random":
        return [free[i] for i in np.random.default_rng(seed).permutation(len(free))]
    if order == "influence":
        influence = probe.influence()
        return sorted(free, key=lambda i: (influence[i], i))
    raise QueryError(f"order is {order!r}, expected {', '.join(ORDERS)} or a list of indices.")


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
        except KeyboardInterrupt:
            if (reason := wish(self.clock)) is None:
                raise
            return reason
        finally:
            self._close()

    def _sweep(self) -> None:
        """Settle, defer or give up on every open input, in order."""
        size = len(self.open)
        together: set[int] = set()  # open inputs of a known adversarial one: not all of them can be freed
        probed = -1
        while self.open and not self.clock.is_over:
            self._report()
            if probed != len(self.freed) and self._is_large(self.open[:1]):
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
                center = self.query.sign_region.center
                together = {i for i in self.open if answer[i] != center[i]}
            elif len(chunk) > 1:
                size = len(chunk) // 2
            else:
                (self.stuck if self.gave_up else self.deferred).append(chunk[0])
                self.open.remove(chunk[0])

    def _kept(self) -> list[int]:
        return self.open + self.deferred + self.stuck

    def _need(self, index: int) -> None:
        self.needed.append(index)  # first, so that an interrupt cannot lose it
        self.open.remove(index)

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
            n = len(self.query.sign_region.free)
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
        if len(chunk) > 1 and self._is_large(chunk) and (x := self.probe.search(self.freed + chunk)) is not None:
            return x
        region = within(self.query.sign_region, self.freed + chunk)
        if len(chunk) == 1:
            # without a flip of it, nothing is adversarial: that is what `freed` means
            flipped = fixing(within(self.query.sign_region, chunk + self.freed), chunk[0], -region.center[chunk[0]])
            assert flipped is not None
            region = flipped
        question, share = replace(self.query, region=region), self._share(chunk)
        if self.engine == "auto" and not is_enumerable(question, share):
            return self._refute(chunk)
        engine = "enumeration" if self.engine == "auto" else self.engine
        decision = decide(question, engine=engine, limits=replace(self.limits, seconds=share))
        self._use(decision.run.engine)
        self._count(decision.run.engine)
        if decision.verdict is Verdict.ROBUST:
            varying = {*self.freed, *chunk}
            return Refutation(tuple(i for i in self.query.sign_region.free if i not in varying))
        if decision.counterexample is None and "time limit" not in decision.run.reason:
            self.reason, self.gave_up = decision.run.reason, True
        return decision.counterexample

    def _is_large(self, chunk: Sequence[int]) -> bool:
        """True if enumeration would take longer than a local search."""
        region = within(self.query.sign_region, [*self.freed, *chunk])
        return parts.enumeration_seconds(replace(self.query, region=region)) > _PROBE_SECONDS

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
            center, loose = self.query.sign_region.center, {*self.freed, *chunk}
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
        candidates = [*self.freed, *self.open, *self.deferred, *self.stuck, *self.needed]
        affordable = self._affordable(candidates)
        if len(chunk) > 1 and affordable < len(wanted):
            raise ResourceLimitError("the formula would be too large")  # fewer inputs at once may do
        self._close()
        n = max(len(wanted), affordable)
        region = within(self.query.sign_region, candidates[:n])
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
            radius = within(self.query.sign_region, candidates[:middle])
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
