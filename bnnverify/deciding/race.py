"""Complete engines side by side, each in a process of its own that can be ended; the first verdict counts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pickle import UnpicklingError
from typing import Any

from bnnverify.engines import engine_named
from bnnverify.engines.base import Clock, Limits, replayed
from bnnverify.errors import BnnVerifyError
from bnnverify.query import Query
from bnnverify.results import Decision, Run, Verdict

_LOOK = 0.1  # s between two looks at the clock


def race(query: Query, engines: Sequence[str], *, limits: Limits, clock: Clock, jobs: int) -> Decision:
    """The first verdict of any engine.

    Args:
        query: The question.
        engines: Their names, the most promising first.
        limits: For each; its time is that of the clock.
        clock: Ends the race.
        jobs: Processes at a time; the next engine starts when one gives up. They are spawned, not forked: numba's
            threads do not survive a fork.

    Returns:
        A verdict, with the engine's name in its run; UNKNOWN with every engine's reason if none has one.
    """
    context = get_context("spawn")
    todo, running, reasons = list(engines), dict[Connection, tuple[str, Any]](), list[str]()
    try:
        while (todo or running) and not clock.is_over:
            while todo and len(running) < max(1, jobs):
                name = todo.pop(0)
                here, there = context.Pipe(duplex=False)
                seconds = clock.remaining
                rest = limits if seconds is None else replace(limits, seconds=max(seconds, 1e-3))
                process = context.Process(target=_run, args=(there, query, name, rest), daemon=True)
                with _without_main():
                    process.start()
                there.close()
                running[here] = name, process
            for ready in wait(list(running), timeout=_LOOK):
                assert isinstance(ready, Connection)
                name, process = running.pop(ready)
                answer = _received(ready)
                process.join()
                if isinstance(answer, Decision) and answer.verdict is not Verdict.UNKNOWN:
                    if answer.counterexample is not None:
                        replayed(query, answer.counterexample, name)
                    return answer
                reason = answer.run.reason if isinstance(answer, Decision) else answer
                reasons.append(f"{name}: {clock.words(reason)}")
    finally:
        for connection, (_, process) in running.items():
            process.terminate()
            process.join()
            connection.close()
    reason = clock.reason if clock.is_over else "; ".join(reasons)
    return Decision(Verdict.UNKNOWN, Run("+".join(engines), clock.elapsed, reason))


@contextmanager
def _without_main() -> Iterator[None]:
    """Let processes that are started meanwhile not run the caller's script again.

    They need nothing of it, and not every script guards against that.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({"__spec__": None} | hidden)


def _received(connection: Connection) -> Decision | str:
    """What a process sent, or that it did not."""
    try:
        answer: Decision | str = connection.recv()
    except (EOFError, OSError, UnpicklingError):  # killed before or while it sent
        return "its process ended by itself, probably for lack of memory"
    finally:
        connection.close()
    return answer


def _run(connection: Connection, query: Query, name: str, limits: Limits) -> None:
    """One engine, in its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interrupt of the terminal is for the parent
    try:
        answer: Decision | str = engine_named(name).decide(query, limits=limits)
    except (BnnVerifyError, MemoryError) as error:
        answer = str(error) or type(error).__name__
    connection.send(answer)
    connection.close()
