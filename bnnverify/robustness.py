"""Is it robust here, and how far is the nearest adversarial input?

A portfolio over the engines: enumeration where the region is small enough, SAT elsewhere. Every counterexample
has been replayed on the exact network by the engine that found it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bnnverify.engines import engine_named
from bnnverify.engines.base import UNLIMITED, Clock, Limits
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, sign_vector
from bnnverify.results import Decision, Distance, Run, Verdict

ENUMERATE_UP_TO = 2_000_000  # inputs: about a second of enumeration


def decide(query: Query, *, engine: str = "auto", limits: Limits = UNLIMITED) -> Decision:
    """Whether the region holds an adversarial input, proved.

    Args:
        query: The question.
        engine: One of "auto", "enumeration", "bdd", "sat". Auto enumerates regions of up to 2 million inputs
            and takes SAT for larger ones.
        limits: Time, nodes and memory.

    Returns:
        ROBUST or NOT_ROBUST with a replayed counterexample, both exact; UNKNOWN with the reason if a limit was
        reached.

    Raises:
        QueryError: No engine has this name.
    """
    if engine == "auto":
        engine = "enumeration" if query.region.size() <= ENUMERATE_UP_TO else "sat"
    return engine_named(engine).decide(query, limits=limits)


def minimum_adversarial_distance(
    network: BinaryNetwork,
    x: Sequence[int],
    *,
    label: int | None = None,
    ties: Ties = Ties.LOWEST_INDEX,
    max_radius: int | None = None,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
) -> Distance:
    """Hamming distance from `x` to the nearest input whose class is not `label`.

    Args:
        network: A network with binary inputs.
        x: Shape `(n,)`, -1/+1.
        label: The class to keep; default the network's own class of x. If x itself has another class, the
            distance is 0.
        ties: What equal scores mean.
        max_radius: Largest distance to look at; default n (the whole cube).
        engine: As in `decide`; auto changes from enumeration to SAT when the balls outgrow it.
        limits: Time for the whole search; nodes and memory for each step.

    Returns:
        Exact if a nearest input was found (`lower == upper`, with the replayed witness). Otherwise `lower` is
        proved, `upper` is None, and `run.reason` says why the search ended.

    Raises:
        QueryError: x, label, max_radius or engine is not valid.
    """
    center = sign_vector(x, "input")
    kept = Untargeted(network.evaluate(center) if label is None else label)
    furthest = network.n_inputs if max_radius is None else max_radius
    clock, used = Clock(limits.seconds), list[str]()
    Query(network, HammingBall(center, furthest), kept, ties)  # refuses wrong arguments before any work
    lower = 0
    for radius in _radii(center, furthest, engine):
        ball = HammingBall(center, radius)
        name = engine if engine != "auto" else ("enumeration" if ball.size() <= ENUMERATE_UP_TO else "sat")
        used += [name] if name not in used else []
        remaining = Limits(_positive(clock.remaining), limits.nodes, limits.memory_bytes)
        answer = engine_named(name).decide(Query(network, ball, kept, ties), limits=remaining)
        run = Run("+".join(used), clock.elapsed, answer.run.reason, answer.run.statistics)
        if answer.counterexample is not None:
            found = sum(a != b for a, b in zip(center, answer.counterexample, strict=True))
            return Distance(found, found, run, answer.counterexample, answer.predicted)
        if answer.verdict is Verdict.UNKNOWN:
            lower = max(lower, int(answer.run.statistics.get("radius_proved", -1)) + 1)
            return Distance(lower, None, run)
        lower = radius + 1
    where = "in the whole cube" if furthest == network.n_inputs else f"within distance {furthest}"
    return Distance(lower, None, Run("+".join(used), clock.elapsed, f"no adversarial input {where}"))


def _radii(center: tuple[int, ...], furthest: int, engine: str) -> list[int]:
    """Radii to ask for. Enumeration finds a nearest input in one go; the other engines need every radius."""
    if engine == "enumeration":
        return [furthest]
    if engine != "auto":
        return list(range(furthest + 1))
    first = max(r for r in range(furthest + 1) if r == 0 or HammingBall(center, r).size() <= ENUMERATE_UP_TO)
    return list(range(first, furthest + 1))


def _positive(seconds: float | None) -> float | None:
    """A time limit that is used up becomes one that is reached at once."""
    return None if seconds is None else max(seconds, 1e-9)
