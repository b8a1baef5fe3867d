"""CpsatEngine: exact verdicts from OR-Tools' CP-SAT, which cuts as well as learns clauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnnverify.cardinality import compile_query
from bnnverify.cardinality.compile import Settled
from bnnverify.encodings.linear import LinearForm, require_moderate, to_linear, values_of
from bnnverify.engines.base import Clock, Limits
from bnnverify.engines.deciders import Decider
from bnnverify.errors import EngineError, QueryError, ResourceLimitError
from bnnverify.query import Query

_LOOK = 0.1  # s between two looks at the clock
_GRACE = 0.3  # s that a search may take to stop


@dataclass(frozen=True, slots=True)
class CpsatEngine(Decider):
    """Looks for an adversarial input with CP-SAT: pixels are integer variables, neurons inequalities under a literal.

    Slower than `minicard` where few conflicts are enough, often much faster where many are needed. Needs the package
    ortools (``pip install 'bnnverify[cp]'``). Limits and the interrupt key are honoured ten times a second.

    Linear relaxations cost more than they cut on the networks that were tried: without them (`linearization` 0) the
    questions of a sparse convolutional network (1x28x28-16c4s2p1-32c4s2p1-100-10, pixels of 3 values, up to 200 of
    them free) took 0.7 to 6 s where they took 2 to 5 s with those of level 1, and 13 to 19 s with level 2.

    Attributes:
        seed: Of its random decisions. With several threads runs differ all the same; verdicts do not.
        linearization: 0 to 2: how much of the model goes into linear relaxations.

    References:
        Perron & Didier, CP-SAT (OR-Tools). Reified linear constraints for binarized neurons: Khalil, Gupta &
        Dilkina, ICLR 2019 (as a mixed-integer program).
    """

    seed: int = 1
    linearization: int = 0

    def __post_init__(self) -> None:
        if self.linearization not in (0, 1, 2):
            raise QueryError(f"linearization is {self.linearization!r}, expected 0, 1 or 2.")

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "cpsat"

    def _search(
        self, query: Query, settled: Settled | None, clock: Clock, limits: Limits, statistics: dict[str, Any]
    ) -> Sequence[bool] | None:
        instance = compile_query(query, settled, check=clock.check)
        statistics["threads"] = limits.threads or 1
        if not instance.formula.constraints and not instance.formula.conjunctive:
            return None
        form = to_linear(instance, check=clock.check)
        values = _solve(form, clock, self, statistics)
        return None if values is None else values_of(form, values)


def cp_model_of(form: LinearForm, *, check: Callable[[], None] = lambda: None) -> Any:
    """The form as a `CpModel` of OR-Tools; variable i is variable i.

    Args:
        form: Variables and inequalities.
        check: Called between inequalities; raises to stop.

    Raises:
        UnsupportedError: A sum does not fit.
    """
    from ortools.sat.python import cp_model

    require_moderate(form)
    model = cp_model.CpModel()
    variables = [model.new_int_var(v.lower, v.upper, v.name) for v in form.variables]
    for row in form.inequalities:
        check()
        total = cp_model.LinearExpr.weighted_sum([variables[v] for v in row.variables], list(row.coefficients))
        constraint = model.add(total >= row.bound)
        if row.guard is not None:
            literal = variables[abs(row.guard) - 1]
            constraint.only_enforce_if(literal if row.guard > 0 else literal.negated())
    return model


def _solve(form: LinearForm, clock: Clock, engine: CpsatEngine, statistics: dict[str, Any]) -> list[int] | None:
    """Values of the inputs in some solution; None if there is none."""
    from ortools.sat.python import cp_model

    model = cp_model_of(form, check=clock.check)
    statistics |= {"variables": len(form.variables), "inequalities": len(form.inequalities)}
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = statistics["threads"]
    solver.parameters.random_seed = engine.seed
    solver.parameters.linearization_level = engine.linearization
    solver.parameters.catch_sigint_signal = False  # the caller listens for the interrupt key
    clock.check()
    if clock.remaining is not None:
        solver.parameters.max_time_in_seconds = clock.remaining
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(solver.solve(model)), daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not clock.is_over:
            thread.join(_LOOK)
    finally:  # also where the interrupt key raises here
        left = time.perf_counter() + _GRACE
        while thread.is_alive() and time.perf_counter() < left:
            solver.stop_search()
            thread.join(_LOOK)
    if thread.is_alive():  # in the midst of simplifying; it looks at its own limit later, and nobody waits for it
        raise ResourceLimitError(clock.reason)
    if not done:
        raise EngineError("cpsat ended without an answer. This is a bug in bnnverify or OR-Tools; please report it.")
    statistics |= {"conflicts": solver.num_conflicts, "branches": solver.num_branches}
    status = done[0]
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return [solver.value(model.get_int_var_from_proto_index(i)) for i in range(form.n_inputs)]
    if status == cp_model.INFEASIBLE:
        return None
    if status == cp_model.MODEL_INVALID:
        raise EngineError(f"CP-SAT refuses the model: {model.validate()} This is a bug in bnnverify; please report it.")
    if clock.limit is not None and not clock.is_over:  # its watch ran ahead of ours
        raise ResourceLimitError(f"time limit of {clock.limit:g} s reached")
    raise ResourceLimitError(clock.reason or "cpsat stopped without an answer")
