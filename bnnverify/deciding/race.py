"""Complete engines side by side, each in a process of its own that can be ended; the first verdict counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait

from bnnverify.engines import engine_named
from bnnverify.engines.base import Clock, Limits, replayed
from bnnverify.errors import BnnVerifyError, ResourceLimitError
from bnnverify.processes import LOOK, Apart
from bnnverify.query import Query
from bnnverify.results import Decision, Run, Verdict


def race(query: Query, engines: Sequence[str], *, limits: Limits, clock: Clock, jobs: int) -> Decision:
    """The first verdict of any engine.

    Args:
        query: The question.
        engines: Their names, the most promising first.
        limits: For each; its time is that of the clock.
        clock: Ends the race.
        jobs: Processes at a time; the next engine starts when one gives up.

    Returns:
        A verdict, with the engine's name in its run; UNKNOWN with every engine's reason if none has one.
    """
    todo, running, reasons = list(engines), dict[Connection, tuple[str, Apart]](), list[str]()
    try:
        while (todo or running) and not clock.is_over:
            while todo and len(running) < max(1, jobs):
                name = todo.pop(0)
                seconds = clock.remaining
                rest = limits if seconds is None else replace(limits, seconds=max(seconds, 1e-3))
                call = Apart(_run, query, name, rest)
                running[call.connection] = name, call
            for ready in wait(list(running), timeout=LOOK):
                assert isinstance(ready, Connection)
                name, call = running.pop(ready)
                answer = _received(call)
                if isinstance(answer, Decision) and answer.verdict is not Verdict.UNKNOWN:
                    if answer.counterexample is not None:
                        replayed(query, answer.counterexample, name)
                    return answer
                reason = answer.run.reason if isinstance(answer, Decision) else answer
                reasons.append(f"{name}: {clock.words(reason)}")
    finally:
        for _, call in running.values():
            call.end()
    reason = clock.reason if clock.is_over else "; ".join(reasons)
    return Decision(Verdict.UNKNOWN, Run("+".join(engines), clock.elapsed, reason))


def _received(call: Apart) -> Decision | str:
    """What a process sent, or why there is nothing."""
    try:
        answer: Decision | str = call.received()
    except ResourceLimitError as error:
        return str(error)
    return answer


def _run(query: Query, name: str, limits: Limits) -> Decision | str:
    """One engine, in its process."""
    try:
        return engine_named(name).decide(query, limits=limits)
    except (BnnVerifyError, MemoryError) as error:
        return str(error) or type(error).__name__
