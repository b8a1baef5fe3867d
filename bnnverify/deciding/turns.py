"""Complete engines one after the other in this process, in longer and longer turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bnnverify.engines import engine_named
from bnnverify.engines.base import Clock, Limits
from bnnverify.errors import UnsupportedError
from bnnverify.query import Query
from bnnverify.results import Decision, Run, Verdict

_LONGER = 4.0  # how much longer the next turn of an engine is


def in_turns(query: Query, turns: Mapping[str, float], *, limits: Limits, clock: Clock) -> Decision:
    """The first verdict of any engine.

    Each engine starts again from the beginning at every turn, so no more than a third of the time is spent twice.

    Args:
        query: The question.
        turns: Seconds of the first turn of each engine, in their order.
        limits: For each turn; its time is that of the turn.
        clock: Ends it.

    Returns:
        A verdict, or UNKNOWN with the reasons of the engines that gave up.
    """
    waiting, reasons = dict(turns), dict[str, str]()
    while waiting and not clock.is_over:
        for name, turn in tuple(waiting.items()):
            if clock.is_over:
                break
            answer = one_turn(query, name, turn, limits=limits, clock=clock)
            if answer.verdict is not Verdict.UNKNOWN:
                return answer
            waiting[name] = turn * _LONGER
            if answer.run.seconds < 0.9 * turn and not clock.is_over:
                del waiting[name]
                reasons[name] = answer.run.reason
    reason = clock.reason if clock.is_over else "; ".join(f"{name}: {text}" for name, text in reasons.items())
    return Decision(Verdict.UNKNOWN, Run("+".join(turns), clock.elapsed, reason))


def one_turn(query: Query, engine: str, seconds: float, *, limits: Limits, clock: Clock) -> Decision:
    """The answer of an engine within some seconds; UNKNOWN if it does not serve the question."""
    started, left = clock.elapsed, clock.remaining
    turn = replace(limits, seconds=seconds if left is None else max(min(left, seconds), 1e-3))
    try:
        answer = engine_named(engine).decide(query, limits=turn)
    except UnsupportedError as error:
        answer = Decision(Verdict.UNKNOWN, Run(engine, 0.0, str(error)))
    return replace(answer, run=replace(answer.run, seconds=clock.elapsed - started))
