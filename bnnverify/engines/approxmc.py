"""ApproxMcEngine: approximate counts with a guarantee, as a cross-check by a tool that shares no code with ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from bnnverify.cardinality import compile_query
from bnnverify.encodings.cnf import Clause, to_cnf
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.processes import LOOK, Apart
from bnnverify.query import Query
from bnnverify.results import Count, Decision, Kind, Run


@dataclass(frozen=True, slots=True)
class ApproxMcEngine:
    """Counts adversarial inputs within a factor ``1 + epsilon`` with probability at least ``1 - delta``: kind PAC.

    Needs the package pyapproxmc (``pip install 'bnnverify[count]'``). It runs in a process of its own, which a limit
    ends. Far slower than the exact engines wherever these finish; its worth is that it is another tool.

    Attributes:
        epsilon: Tolerance, above 0; taken as its decimal text.
        delta: Probability that the count lies outside, above 0 and below 1.
        seed: Of its random hashes.

    Raises:
        QueryError: A number is out of range.

    References:
        Chakraborty, Meel & Vardi, IJCAI 2016; Soos & Meel, AAAI 2019 (ApproxMC).
    """

    epsilon: float = 0.8
    delta: float = 0.2
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.epsilon > 0 or not 0 < self.delta < 1:
            raise QueryError(
                f"epsilon is {self.epsilon} and delta {self.delta}, expected above 0, and above 0 and below 1."
            )

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "approxmc"

    def decide(self, query: Query, *, limits: Limits = UNLIMITED) -> Decision:
        """Refused: a guarantee with a probability proves no verdict.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("approxmc counts within a tolerance and proves no verdict. Decide with engine sat.")

    def count(self, query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Count:
        """About how many inputs of the region are adversarial?

        Args:
            query: Any query.
            limits: Time; memory and nodes are not watched.
            monitor: Who may stop the work.

        Returns:
            Kind PAC; `lower` and `upper` are the estimate divided by and times ``1 + epsilon``, rounded inward and
            cut to the region. Epsilon, delta and the estimate are among the statistics. Kind INTERVAL, with the
            whole region, if a limit was reached.
        """
        clock, size = Clock(limits.seconds, monitor), query.sign_region.size()
        instance = compile_query(query, check=clock.check)
        cnf = to_cnf(instance, check=clock.check)
        statistics = {"epsilon": self.epsilon, "delta": self.delta, "seed": self.seed, "clauses": len(cnf.clauses)}
        estimate = self._estimate(cnf.clauses, instance.n_inputs, clock)
        if estimate is None:
            return Count(Kind.INTERVAL, 0, size, size, Run(self.name, clock.elapsed, clock.reason, statistics))
        factor = 1 + Fraction(str(self.epsilon))
        lower, upper = math.ceil(estimate / factor), math.floor(estimate * factor)
        run = Run(self.name, clock.elapsed, "", statistics | {"estimate": estimate})
        return Count(Kind.PAC, min(lower, size), min(upper, size), size, run)

    def _estimate(self, clauses: list[Clause], n_inputs: int, clock: Clock) -> int | None:
        """Models over the inputs, or None if time was up."""
        if n_inputs == 0 or () in clauses:
            # no variable to count over, or a clause that nothing satisfies: ApproxMC takes neither
            return int(() not in clauses and _holds(clauses))
        with Apart(_count, clauses, n_inputs, self.epsilon, self.delta, self.seed) as call:
            while not clock.is_over:
                if call.connection.poll(LOOK):
                    cells, hashes = call.received()
                    return int(cells) << int(hashes)
        return None


def _count(clauses: list[Clause], n_inputs: int, epsilon: float, delta: float, seed: int) -> tuple[int, int]:
    """In the process: cells and hashes, whose count is cells * 2^hashes."""
    import pyapproxmc

    counter = pyapproxmc.Counter(seed=seed, epsilon=epsilon, delta=delta)
    for clause in clauses:
        counter.add_clause(list(clause))
    cells, hashes = counter.count(list(range(1, n_inputs + 1)))
    return cells, hashes


def _holds(clauses: list[Clause]) -> bool:
    """Whether clauses without inputs can be met; the encoding's own variables are determined by constants."""
    from pysat.solvers import Solver

    with Solver(name="glucose4", bootstrap_with=[list(c) for c in clauses]) as solver:
        return bool(solver.solve())
