"""The check of an explanation: sufficient and minimal, by engines alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.errors import EngineError
from bnnverify.explain.implicants import prime_implicant
from bnnverify.explain.parts import wish, within
from bnnverify.query import Query
from bnnverify.results import Explanation, Verdict
from bnnverify.robustness import decide
from bnnverify.scalars import integers


@dataclass(frozen=True, slots=True)
class ExplanationCheck:
    """Whether a set of inputs is a prime implicant, each part proved by an engine from scratch.

    Attributes:
        sufficient: ROBUST iff every input of the region that agrees with the centre there keeps the class.
        counterexample: An adversarial input that agrees there, or None.
        redundant: Inputs of the set without any one of which it would still suffice (proved).
        undecided: Inputs for which a limit left that open.
        seconds: Wall time, s.
        reason: The limit that was reached, or nothing.
    """

    sufficient: Verdict
    counterexample: tuple[int, ...] | None
    redundant: tuple[int, ...]
    undecided: tuple[int, ...]
    seconds: float
    reason: str

    @property
    def is_prime(self) -> bool:
        """True iff it is proved that the set suffices and that no input can be dropped."""
        return self.sufficient is Verdict.ROBUST and not self.redundant and not self.undecided

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "sufficient": self.sufficient.value,
            "prime": self.is_prime,
            "redundant": list(self.redundant),
            "undecided": list(self.undecided),
            "seconds": round(self.seconds, 6),
            "reason": self.reason,
        }


def check_explanation(
    query: Query,
    kept: Sequence[int],
    *,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> ExplanationCheck:
    """Is this set of inputs a prime implicant? Nothing of the search for one is used, only engines.

    Args:
        query: What the explanation is about.
        kept: Indices; those that do not vary in the region are ignored, and called redundant.
        engine: As in `decide`.
        limits: Time for the whole check; nodes and memory for each step.
        monitor: Who may stop the work, as in `prime_implicant`.
    """
    clock, region = Clock(limits.seconds, monitor), query.sign_region
    chosen = set(integers(kept, "kept"))
    varying = [i for i in region.free if i not in chosen]

    def asked(free: Sequence[int]) -> tuple[Verdict, tuple[int, ...] | None, str]:
        if clock.is_over:
            return Verdict.UNKNOWN, None, clock.reason
        remaining = None if clock.remaining is None else max(clock.remaining, 1e-9)
        question = replace(query, region=within(region, free))
        try:
            answer = decide(question, engine=engine, limits=replace(limits, seconds=remaining))
        except KeyboardInterrupt:
            if (reason := wish(clock)) is None:
                raise
            return Verdict.UNKNOWN, None, reason
        return answer.verdict, answer.counterexample, answer.run.reason

    sufficient, counterexample, reason = asked(varying)
    redundant, undecided = [], []
    for index in sorted(chosen):
        verdict, _, why = asked([*varying, index]) if index in region.free else (Verdict.ROBUST, None, "")
        if verdict is Verdict.ROBUST:
            redundant.append(index)
        elif verdict is Verdict.UNKNOWN:
            undecided.append(index)
            reason = reason or why
    return ExplanationCheck(sufficient, counterexample, tuple(redundant), tuple(undecided), clock.elapsed, reason)


def explanation(
    query: Query,
    *,
    order: str = "influence",
    seed: int = 0,
    check: bool = False,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> Explanation:
    """`prime_implicant`, on request with the result of `check_explanation` in its statistics.

    Args:
        query: What to explain.
        order: As in `prime_implicant`.
        seed: As in `prime_implicant`.
        check: Whether to check. The limits hold for the search and for the check, each.
        engine: As in `decide`.
        limits: Time for each; nodes and memory for each step.
        monitor: Whom to tell, and who may stop the work.

    Raises:
        EngineError: The check contradicts the explanation: a bug.
    """
    found = prime_implicant(query, order=order, seed=seed, engine=engine, limits=limits, monitor=monitor)
    if not check:
        return found
    report = check_explanation(query, found.kept, engine=engine, limits=limits, monitor=monitor)
    if report.sufficient is Verdict.NOT_ROBUST or set(report.redundant) & set(found.needed):
        raise EngineError(
            f"the check found an explanation wrong ({query.property}, {query.sign_region}, inputs {found.kept}). "
            "This is a bug in bnnverify; please report it with the network and the input."
        )
    run = replace(found.run, statistics={**found.run.statistics, "check": report.to_json()})
    return replace(found, run=run)
