"""A solver of python-sat that stops when a clock says so, also while it is filled or in the middle of a search."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from threading import Event, Lock, Thread
from typing import Any

from bnnverify.engines.base import Clock

_SLICE = 0.2  # s of search between two looks at the clock
_LOOK = 0.1  # s between two looks of the thread that interrupts
_CLAUSES = 500  # clauses between two looks at the clock


class StoppableSolver:
    """One solver; a context manager.

    It runs in slices of conflicts, so that the interrupt key is heard. A slice may be long where single conflicts are
    expensive, so a thread interrupts it once the clock is over.

    Args:
        name: Of a solver of python-sat that can be interrupted.
        clock: Stops it; may be replaced between two calls.
        budget: Conflicts of the first slice.
    """

    def __init__(self, name: str, clock: Clock, *, budget: int) -> None:
        self.name, self.clock = name, clock
        self._budget = budget
        self._handle: Any = None
        self._lock, self._done = Lock(), Event()

    def __enter__(self) -> StoppableSolver:
        from pysat.solvers import Solver

        self._handle = Solver(name=self.name)
        Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:  # the thread must not touch a solver that is gone
            self._done.set()
            self._handle.delete()

    def _watch(self) -> None:
        """Interrupts whatever runs once the clock is over."""
        while not self._done.wait(_LOOK):
            if self.clock.is_over:
                with self._lock:
                    if not self._done.is_set():
                        self._handle.interrupt()

    @property
    def conflicts(self) -> int:
        """Conflicts so far."""
        return int(self._handle.accum_stats()["conflicts"])

    def add(self, clauses: Iterable[Sequence[int]], at_most: Iterable[tuple[Sequence[int], int]] = ()) -> None:
        """Clauses, and constraints that at most so many of some literals are true.

        Raises:
            ResourceLimitError: The clock ran out.
        """
        for number, clause in enumerate(clauses):
            if number % _CLAUSES == 0:
                self.clock.check()
            self._handle.add_clause(list(clause))
        for literals, bound in at_most:
            self.clock.check()
            self._handle.add_atmost(list(literals), bound)

    def solve(self, assumptions: Sequence[int] = ()) -> list[int] | None:
        """A model that satisfies the assumed literals; None if there is none.

        Raises:
            ResourceLimitError: The clock ran out.
        """
        self._handle.clear_interrupt()
        while True:
            self.clock.check()
            start = time.perf_counter()
            self._handle.conf_budget(self._budget)
            # python-sat's own handler of the interrupt key would leave the solver broken
            answer = self._handle.solve_limited(assumptions=list(assumptions), expect_interrupt=True)
            if answer is not None:
                return list(self._handle.get_model()) if answer else None
            seconds = time.perf_counter() - start
            self._budget = max(100, min(2 * self._budget, int(self._budget * _SLICE / max(seconds, 1e-6))))

    def core(self) -> list[int]:
        """Assumed literals that the last answer None rests on."""
        return list(self._handle.get_core() or [])


def values_in(model: Sequence[int], variables: Iterable[int]) -> tuple[bool, ...]:
    """Values of variables in a model; a variable in no clause has none there, and is False."""
    return tuple(v <= len(model) and model[v - 1] > 0 for v in variables)
