"""PortfolioEngine: the engine that should be quickest, and another one when the guess was wrong.

Each engine in turn runs until it answers, gives up, or has taken several times its guess while another one promises
to be done sooner. Bounds that any of them proved are kept and intersected. An engine that was stopped may come
back later, with more time than before, so the work that is thrown away stays in proportion to the work that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bnnverify.engines import DECIDING, SIGNS_ONLY, engine_named
from bnnverify.engines.base import UNLIMITED, Clock, Engine, Limits, Monitor
from bnnverify.engines.costs import seconds_to_count, seconds_to_decide
from bnnverify.engines.warmup import prepare, seconds_to_start
from bnnverify.errors import EngineError, UnsupportedError
from bnnverify.query import Query
from bnnverify.regions import PixelBox, RealBox
from bnnverify.results import Count, Decision, Kind, Run, Verdict

PATIENCE = 4.0
"""An engine may take this many times its guess before another one gets a turn."""

SHORTEST_TURN = 0.5
"""No turn is shorter, s: guesses below are dominated by what the first call of a loop costs."""


def engine_for(name: str) -> Engine:
    """The engine with this name; the portfolio for ``auto``.

    Raises:
        QueryError: There is none.
    """
    return PortfolioEngine() if name == "auto" else engine_named(name)


def require_engine(name: str, query: Query, *, counting: bool = False) -> None:
    """Refuses, before any work, an engine that does not answer such questions.

    Args:
        name: As for `engine_for`, or ``stages``.
        query: The question, of several about one input the largest.
        counting: True if counts are needed, False for a verdict.

    Raises:
        QueryError: No engine has this name.
        UnsupportedError: The engine only decides, or serves no such network or region.
    """
    if counting and name in ("stages", *DECIDING):
        raise UnsupportedError(f"{name} decides and does not count. Count with another engine, such as sat.")
    if name in ("auto", "stages"):
        return
    engine_named(name)
    if isinstance(query.region, RealBox) or (isinstance(query.region, PixelBox) and name in SIGNS_ONLY):
        kind = "-1/+1 inputs" if name in SIGNS_ONLY else "integers"
        raise UnsupportedError(
            f"engine {name} serves {kind} only, but the region is a {query.region}. Take engine stages or auto."
        )
    if name == "propagation":
        from bnnverify.engines.propagation import require_served

        require_served(query)


@dataclass(frozen=True, slots=True)
class PortfolioEngine:
    """Picks engines by predicted cost. The statistics say which and why.

    Every answer is one of an engine's, unchanged but for its statistics, which gain `choice` (a sentence),
    `predicted_seconds` (by engine, cheapest first) and `turns` (who ran, and for how long). An answer that a limit cut
    short has the best bounds that any of the engines proved.
    """

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "auto"

    def count(self, query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Count:
        """How many inputs of the region are adversarial?

        Args:
            query: Any query.
            limits: Time for all engines together; nodes, memory and threads for each.
            monitor: Whom to report to, and who may stop the work.
        """
        clock, size = Clock(limits.seconds, monitor), query.sign_region.size()
        race = _Race(clock, seconds_to_count(query, limits=limits), query, limits)
        best = Count(Kind.INTERVAL, 0, size, size, Run(self.name))
        while (engine := race.next()) is not None:
            turn = _Turn(race, best, monitor)
            try:
                answer = engine_named(engine).count(query, limits=_rest(limits, clock), monitor=turn)
            except UnsupportedError as error:
                race.end()
                race.drop(engine, str(error))
                continue
            race.end()
            best = _intersected(best, answer)
            if best.kind is Kind.EXACT:
                return replace(best, run=race.run(answer.run))
            if turn.is_too_slow:
                race.postpone(engine, turn.settled)
            elif clock.is_over:
                break
            else:
                race.drop(engine, answer.run.reason)
        return replace(best, run=race.run(best.run, race.reason))

    def decide(self, query: Query, *, limits: Limits = UNLIMITED) -> Decision:
        """Is there an adversarial input in the region?

        Args:
            query: Any query.
            limits: Time for all engines together; nodes, memory and threads for each.
        """
        clock = Clock(limits.seconds)
        race = _Race(clock, seconds_to_decide(query, limits=limits), query, limits)
        while (engine := race.next()) is not None:
            rest = _rest(limits, clock)
            has_rivals, turn = bool(race.waiting), race.patience
            if has_rivals:
                rest = replace(rest, seconds=turn if rest.seconds is None else min(turn, rest.seconds))
            answer = engine_named(engine).decide(query, limits=rest)
            race.end()
            race.learn(answer.run)
            if answer.verdict is not Verdict.UNKNOWN:
                return replace(answer, run=race.run(answer.run))
            if clock.is_over:
                break
            if has_rivals and race.elapsed >= turn:
                race.postpone(engine)
            else:
                race.drop(engine, answer.run.reason)
        return Decision(Verdict.UNKNOWN, race.run(Run(self.name), race.reason))


def _rest(limits: Limits, clock: Clock) -> Limits:
    """The same limits with the time that is left; time that is used up ends the next call at once."""
    return limits if clock.remaining is None else replace(limits, seconds=max(clock.remaining, 1e-9))


def _intersected(best: Count, answer: Count) -> Count:
    """What both prove together; exact where the bounds meet, even if no engine came to its end."""
    if answer.kind is Kind.EXACT:
        if not best.lower <= answer.lower <= best.upper:
            raise EngineError(
                f"engine {answer.run.engine} counts {answer.lower}, but {best.lower} to {best.upper} were proved "
                "before: a bug in bnnverify; please report it with the network and the question."
            )
        return answer
    lower, upper = max(best.lower, answer.lower), min(best.upper, answer.upper)
    kind = Kind.EXACT if lower == upper else Kind.INTERVAL
    # what an interval says beyond its bounds stays with the better of the two
    ahead = answer if answer.upper - answer.lower <= best.upper - best.lower else best
    return replace(ahead, kind=kind, lower=lower, upper=upper)


@dataclass(slots=True)
class _Race:
    """Who ran for how long, and who is next."""

    clock: Clock
    guesses: dict[str, float]
    query: Query
    limits: Limits
    waiting: dict[str, float] = field(init=False)
    turns: list[tuple[str, float]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0

    def __post_init__(self) -> None:
        self.waiting = dict(self.guesses)

    def next(self) -> str | None:
        """The engine that should be done first, and starts its turn now; None if none is left or time is up."""
        if not self.waiting or (self.clock.is_over and self.turns):
            return None
        name = min(self.waiting, key=self._to_answer)
        prepare(name, self.query, self.limits)
        self.turns.append((name, self.waiting.pop(name) + seconds_to_start(name, self.query, self.limits)))
        self.started = self.clock.elapsed
        return name

    def _to_answer(self, name: str) -> float:
        """Seconds until a waiting engine should have the answer, compiling included."""
        return self.waiting[name] + seconds_to_start(name, self.query, self.limits)

    @property
    def elapsed(self) -> float:
        """Seconds of this turn."""
        return self.clock.elapsed - self.started

    @property
    def patience(self) -> float:
        """Seconds that this turn may take before the others are looked at."""
        return max(SHORTEST_TURN, PATIENCE * self.turns[-1][1])

    def is_lost(self, settled: float) -> bool:
        """True if this turn has lasted long enough, and another engine promises to be done sooner.

        Args:
            settled: Share of the work that is done, 0 to 1.
        """
        if not self.waiting or self.elapsed < self.patience:
            return False
        return self.to_come(settled) > min(map(self._to_answer, self.waiting))

    def to_come(self, settled: float) -> float:
        """Seconds that this turn still needs, as far as one can tell: as much again where nothing is settled."""
        return self.elapsed * (1 - settled) / settled if settled > 0 else self.elapsed

    def end(self) -> None:
        """The turn is over: notes how long it was."""
        self.turns[-1] = (self.turns[-1][0], self.elapsed)

    def postpone(self, name: str, settled: float = 0.0) -> None:
        """The engine waits again, for at least twice the time it had."""
        self.waiting[name] = max(2 * self.elapsed, self.elapsed + self.to_come(settled))

    def drop(self, name: str, reason: str) -> None:
        """The engine gave up; it would again."""
        self.dropped.append(f"{name}: {reason}" if reason else name)

    def learn(self, run: Run) -> None:
        """Keeps the radius up to which some engine has proved that nothing is adversarial."""
        if "radius_proved" in run.statistics:
            proved = max(int(run.statistics["radius_proved"]), int(self.statistics.get("radius_proved", -1)))
            self.statistics["radius_proved"] = proved

    @property
    def reason(self) -> str:
        """Why the answer is not complete."""
        return self.clock.reason if self.clock.is_over else "; ".join(self.dropped)

    def run(self, last: Run, reason: str = "") -> Run:
        """How the answer was obtained; `last` is the run of the engine that gave it."""
        statistics = {
            **last.statistics,
            **self.statistics,
            "choice": _sentence(self.guesses, [name for name, _ in self.turns]),
            "predicted_seconds": {name: float(f"{value:.3g}") for name, value in self.guesses.items()},
            "turns": [[name, round(seconds, 6)] for name, seconds in self.turns],
        }
        engines = "+".join(dict.fromkeys(name for name, _ in self.turns)) or "auto"
        return Run(engines, self.clock.elapsed, reason, statistics)


class _Turn(Monitor):
    """The caller's monitor as one engine sees it: `stop` is also True once another engine should take over."""

    def __init__(self, race: _Race, best: Count, outer: Monitor | None) -> None:
        self._race, self._best, self._outer = race, best, outer
        self.settled, self.is_too_slow = 0.0, False
        super().__init__(reason="another engine takes over", show=self._seen)

    @property
    def stop(self) -> bool:
        """Whether the engine should return what it has."""
        if self._outer is not None and self._outer.stop:
            return True
        self.is_too_slow = self.is_too_slow or self._race.is_lost(self.settled)
        return self.is_too_slow

    @stop.setter
    def stop(self, value: bool) -> None:
        self.is_too_slow = value

    def _seen(self, lower: int, upper: int, size: int) -> None:
        if size > 0:
            self.settled = 1 - (upper - lower) / size
        if self._outer is not None:
            if size == self._best.region_size:
                lower, upper = max(lower, self._best.lower), min(upper, self._best.upper)
            self._outer.report(lower, upper, size)


def _sentence(guesses: dict[str, float], engines: Sequence[str]) -> str:
    """Which engine, and why."""
    if not engines:
        return "no engine serves this question"
    (first, seconds), *others = guesses.items()
    text = f"{first}, which should take {_in_words(seconds)}"
    if others:
        text += f" (the next best, {others[0][0]}: {_in_words(others[0][1])})"
    if len(engines) > 1:
        text += f"; it took much longer or gave up, so then {', '.join(engines[1:])}"
    return text


_UNITS = ((1.0, 1e-3, "ms"), (60.0, 1.0, "s"), (3600.0, 60.0, "minutes"), (86_400.0, 3600.0, "hours"))


def _in_words(seconds: float) -> str:
    """A guess, as precise as it deserves.

    >>> _in_words(0.0021), _in_words(70.0), _in_words(1e12)
    ('2.1 ms', '1.2 minutes', 'years')
    """
    for limit, length, unit in _UNITS:
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86_400:.2g} days" if seconds < 1e8 else "years"
