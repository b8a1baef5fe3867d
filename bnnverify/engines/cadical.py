"""CadicalEngine: exact verdicts from CaDiCaL (python-sat) in a process of its own, with a proof where one is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnnverify.cardinality import compile_query
from bnnverify.cardinality.compile import Settled
from bnnverify.encodings.cnf import ENCODINGS, Clause, to_cnf
from bnnverify.engines.base import Clock, Limits
from bnnverify.engines.deciders import Decider
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.processes import LOOK, Apart
from bnnverify.query import Query


@dataclass(frozen=True, slots=True)
class Outcome:
    """What CaDiCaL found.

    Attributes:
        model: True literals of a solution; None if there is none.
        proof: Lemmas and deletions as text (DRUP), where there is no solution and a proof was asked for; else empty.
    """

    model: frozenset[int] | None
    proof: bytes


@dataclass(frozen=True, slots=True)
class CadicalEngine(Decider):
    """Looks for an adversarial input with CaDiCaL 1.9.5, which cannot be interrupted: its process is ended instead.

    Attributes:
        encoding: A name in `bnnverify.encodings.cnf.ENCODINGS`.

    References:
        Biere et al., "CaDiCaL", SAT Competition 2020. python-sat: Ignatiev, Morgado & Marques-Silva, SAT 2018.
    """

    encoding: str = "totalizer"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise QueryError(f"encoding is {self.encoding!r}, expected one of {', '.join(ENCODINGS)}.")

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "cadical"

    def _search(
        self, query: Query, settled: Settled | None, clock: Clock, limits: Limits, statistics: dict[str, Any]
    ) -> list[bool] | None:
        statistics["encoding"] = self.encoding

        cnf = to_cnf(compile_query(query, settled, check=clock.check), self.encoding, check=clock.check)
        statistics |= {"variables": cnf.n_variables, "clauses": len(cnf.clauses)}
        model = refute(cnf.clauses, clock, with_proof=False).model
        return None if model is None else [v in model for v in cnf.instance.inputs]


def refute(clauses: Sequence[Clause], clock: Clock, *, with_proof: bool) -> Outcome:
    """A solution of the clauses, or a proof that there is none.

    Args:
        clauses: What to refute.
        clock: Ends the process.
        with_proof: Whether to keep the proof.

    Raises:
        ResourceLimitError: The clock ran out, or the process ended by itself.
    """
    if () in clauses:
        return Outcome(None, b"0\n")
    with Apart(_solve, clauses, with_proof) as call:
        while not clock.is_over:
            if call.connection.poll(LOOK):
                model, proof = call.received()
                return Outcome(None if model is None else frozenset(model), proof)
    raise ResourceLimitError(clock.reason)


def _solve(clauses: Sequence[Clause], with_proof: bool) -> tuple[list[int] | None, bytes]:
    """In the process: a solution, or None and the proof."""
    from pysat.solvers import Cadical195

    with Cadical195(with_proof=with_proof) as solver:
        for clause in clauses:
            solver.add_clause(list(clause))
        if solver.solve():
            return [v for v in solver.get_model() if v > 0], b""
        lines = (solver.get_proof() or []) if with_proof else []
        return None, "".join(f"{line}\n" for line in lines).encode()
