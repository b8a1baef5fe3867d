"""A solver of python-sat that stops when a clock says so, also while it is filled or in the middle of a search."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from threading import Event, Lock, Thread
from typing import Any

from bnnverify.engines.base import Clock
from bnnverify.errors import EngineError, ResourceLimitError

_SLICE = 0.2  # s of search between two looks at the clock
_LOOK = 0.1  # s between two looks of the thread that interrupts
_GRACE = 0.3  # s that an interrupted search has to end
_CLAUSES = 500  # clauses between two looks at the clock


class StoppableSolver:
    """One solver; a context manager.

    It searches in a thread, in slices of conflicts. Once the clock is over the search is interrupted. In large
    constraints a solver may not hear that for half a minute: then it is left behind, and its thread deletes it.

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
        self._is_left = False

    def __enter__(self) -> StoppableSolver:
        from pysat.solvers import Solver

        self._handle = Solver(name=self.name)
        Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:  # the thread must not touch a solver that is gone
            self._done.set()
            if not self._is_left:
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
        """Conflicts so far; 0 of a solver that was left behind."""
        return 0 if self._is_left else int(self._handle.accum_stats()["conflicts"])

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
            answer = self._searched(list(assumptions))
            if answer is not None:
                return list(self._handle.get_model()) if answer else None
            seconds = time.perf_counter() - start
            self._budget = max(100, min(2 * self._budget, int(self._budget * _SLICE / max(seconds, 1e-6))))

    def _searched(self, assumptions: list[int]) -> bool | None:
        """One slice; None if it ended without an answer.

        Raises:
            ResourceLimitError: It did not end when it was interrupted.
        """
        found: list[bool | None] = []
        thread = Thread(target=self._search, args=(assumptions, found), daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not self.clock.is_over:
                thread.join(_LOOK)
            thread.join(_GRACE)
        finally:  # also where the interrupt key raises here
            with self._lock:  # the thread looks whether it is left behind
                self._is_left = not found and thread.is_alive()
                if self._is_left:
                    self._handle.interrupt()
        if self._is_left:
            raise ResourceLimitError(self.clock.reason)
        if not found:
            raise EngineError(f"{self.name} ended without an answer. This is a bug; please report it.")
        return found[0]

    def _search(self, assumptions: list[int], found: list[bool | None]) -> None:
        # python-sat's own handler of the interrupt key would leave the solver broken
        answer = self._handle.solve_limited(assumptions=assumptions, expect_interrupt=True)
        with self._lock:
            found.append(answer)
            if self._is_left:
                self._handle.delete()

    def core(self) -> list[int]:
        """Assumed literals that the last answer None rests on."""
        return list(self._handle.get_core() or [])


def values_in(model: Sequence[int], variables: Iterable[int]) -> tuple[bool, ...]:
    """Values of variables in a model; a variable in no clause has none there, and is False."""
    return tuple(v <= len(model) and model[v - 1] > 0 for v in variables)
