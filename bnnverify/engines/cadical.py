"""CadicalEngine: exact verdicts from CaDiCaL (python-sat) in a process of its own, with a proof where one is wanted."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from bnnverify.cardinality import compile_query
from bnnverify.cardinality.compile import Settled
from bnnverify.encodings.cnf import ENCODINGS, Clause, to_cnf
from bnnverify.engines.base import Clock, Limits
from bnnverify.engines.deciders import Decider
from bnnverify.errors import EngineError, QueryError, ResourceLimitError
from bnnverify.query import Query

_LOOK = 0.1  # s between two looks at the clock


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

        def check() -> None:
            if clock.is_over:
                raise ResourceLimitError(clock.reason)

        cnf = to_cnf(compile_query(query, settled), self.encoding, check=check)
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
        ResourceLimitError: The clock ran out.
        EngineError: The process died.
    """
    if () in clauses:
        return Outcome(None, b"0\n")
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        here.send((clauses, with_proof))
        while not clock.is_over:
            if here.poll(_LOOK):
                model, proof = here.recv()
                return Outcome(None if model is None else frozenset(model), proof)
        raise ResourceLimitError(clock.reason)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        process.join()
        raise EngineError(
            f"cadical ended with code {process.exitcode} and without an answer, maybe for want of memory. "
            "Take a smaller question; a script needs its calls under `if __name__ == '__main__':`."
        ) from None
    finally:
        process.terminate()
        process.join()
        here.close()


def _work(channel: Connection) -> None:
    """In the process: solve and answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears the interrupt key and ends this process
    from pysat.solvers import Cadical195

    clauses, with_proof = channel.recv()
    with Cadical195(with_proof=with_proof) as solver:
        for clause in clauses:
            solver.add_clause(list(clause))
        if solver.solve():
            channel.send(([v for v in solver.get_model() if v > 0], b""))
        else:
            lines = (solver.get_proof() or []) if with_proof else []
            channel.send((None, "".join(f"{line}\n" for line in lines).encode()))
