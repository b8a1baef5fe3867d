"""Questions answered on diagrams built layer by layer: the default way of `BddEngine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnnverify.encodings.layered import Walk, reduced, walk
from bnnverify.encodings.layers import machine
from bnnverify.engines.base import Clock, Limits, replayed
from bnnverify.errors import EngineError, ResourceLimitError
from bnnverify.network import BinaryNetwork, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall
from bnnverify.results import Count, Decision, Kind, Run, Verdict

_FIRST_REPORT = 0.5  # s
_REPORT_SHARE = 20  # reports may take a twentieth of the time


def count_by_layers(query: Query, limits: Limits, clock: Clock, engine: str) -> Count:
    """The count by class and distance; an interval if a limit is reached.

    Raises:
        UnsupportedError: As `machine`.
    """
    size, statistics = query.sign_region.size(), dict[str, Any]()
    question = machine(_with_ties(query), query.sign_region)
    finished = walk(question, _checker(limits, clock, statistics), after=_reporter(query, clock))
    lower, upper, by_distance, by_class = _adversarial(query, finished, statistics)
    if finished.reason:
        return Count(Kind.INTERVAL, lower, upper, size, Run(engine, clock.elapsed, finished.reason, statistics))
    if lower != upper:
        raise EngineError(f"{upper - lower} of {size} inputs have no class: a bug in engine {engine}.")
    per_class: tuple[int, ...] | None = by_class
    if query.ties is not Ties.LOWEST_INDEX:
        plain = walk(machine(query.network, query.sign_region), _checker(limits, clock, statistics))
        per_class = None if plain.reason else _adversarial(query, plain, statistics)[3]
    if clock.monitor is not None:
        clock.monitor.report(lower, upper, size)
    per_radius = by_distance if isinstance(query.sign_region, HammingBall) else None
    return Count(Kind.EXACT, lower, upper, size, Run(engine, clock.elapsed, "", statistics), per_class, per_radius)


def decide_by_layers(query: Query, limits: Limits, clock: Clock, engine: str) -> Decision:
    """The verdict; the walk ends at the first adversarial input that it meets.

    Raises:
        UnsupportedError: As `machine`.
    """
    statistics: dict[str, Any] = {}
    question = machine(_with_ties(query), query.sign_region)
    wanted = query.adversarial_classes
    found: list[list[int]] = []

    def look(so_far: Walk) -> bool:
        """Ends the walk at an adversarial input."""
        found.extend(_flips_to(so_far, wanted))
        return bool(found)

    finished = walk(question, _checker(limits, clock, statistics), after=look)
    if finished.root < 0 and (-1 - finished.root) // finished.stride in wanted:
        found.append([])
    run = Run(engine, clock.elapsed, "" if found else finished.reason, statistics)
    if found:
        x = list(query.sign_region.center)
        for i in found[0]:
            x[i] = -x[i]
        return Decision(Verdict.NOT_ROBUST, run, *replayed(query, x, engine))
    return Decision(Verdict.UNKNOWN if finished.reason else Verdict.ROBUST, run)


def _with_ties(query: Query) -> BinaryNetwork:
    """A network whose class is adversarial, lowest index first, exactly where the query's property holds."""
    if query.ties is Ties.LOWEST_INDEX:
        return query.network
    chosen = query.property.label if isinstance(query.property, Untargeted) else query.property.target
    attacked = isinstance(query.property, Untargeted)
    wins_ties = (query.ties is Ties.COUNTEREXAMPLE) != attacked
    # twice the integer scores differ by 2 or more, or tie: one more or less for the chosen class decides ties alone
    scales, biases = query.network.output.integer_form()
    shifted = [2 * b for b in biases]
    shifted[chosen] += 1 if wins_ties else -1
    weights = query.network.output.weights
    output = OutputBlock.create(weights, scale=[2 * a for a in scales], bias=shifted, mask=weights != 0)
    return BinaryNetwork(query.network.domain, query.network.blocks, output)


def _adversarial(
    query: Query, finished: Walk, statistics: dict[str, Any]
) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Lower and upper bound, then adversarial inputs by distance and all inputs by class."""
    diagram = reduced(finished)
    statistics["nodes"] = max(len(diagram), statistics.get("nodes", 0))
    ball = isinstance(query.sign_region, HammingBall)
    counts = diagram.count(steps=query.sign_region.radius if isinstance(query.sign_region, HammingBall) else None)
    classes, wanted, size = query.network.n_classes, query.adversarial_classes, query.sign_region.size()
    by_class = tuple(sum(row) for row in counts[:classes])
    if sum(by_class) + sum(counts[classes + 1]) != size:
        raise EngineError(f"the classes add up to {sum(by_class)} of {size} inputs: a bug in the diagrams.")
    by_distance = tuple(sum(column) for column in zip(*(counts[k] for k in wanted), strict=True)) if ball else ()
    lower = sum(by_class[k] for k in wanted)
    return lower, lower + sum(counts[classes + 1]), by_distance, by_class


def _flips_to(so_far: Walk, wanted: Sequence[int]) -> list[list[int]]:
    """One way to a settled child of these classes in the last level, as the inputs to flip; or none."""
    classes = np.array(wanted)
    for side, children in enumerate(so_far.levels[-1]):
        hits = np.flatnonzero((children < 0) & np.isin((-1 - children.astype(np.int64)) // so_far.stride, classes))
        if hits.size:
            state = int(hits[0])
            flips = [len(so_far.levels) - 1] if side else []
            for level in reversed(range(len(so_far.levels) - 1)):
                low, high = so_far.levels[level]
                parents = np.flatnonzero(low == state)
                if not parents.size:
                    parents = np.flatnonzero(high == state)
                    flips.append(level)
                state = int(parents[0])
            return [[so_far.machine.order[level] for level in flips]]
    return []


def _reporter(query: Query, clock: Clock) -> Callable[[Walk], bool]:
    """What tells the monitor what is proved, now and then."""
    due: float = _FIRST_REPORT

    def report(so_far: Walk) -> bool:
        nonlocal due
        if clock.monitor is not None and clock.monitor.show is not None and clock.elapsed > due:
            before = clock.elapsed
            lower, upper, _, _ = _adversarial(query, so_far, {})
            clock.monitor.report(lower, upper, query.sign_region.size())
            due = clock.elapsed + _REPORT_SHARE * (clock.elapsed - before)
        return False

    return report


def _checker(limits: Limits, clock: Clock, statistics: dict[str, Any]) -> Callable[[int, int], None]:
    """What the walk calls every few thousand states."""

    def check(nodes: int, size: int) -> None:
        statistics["states"] = max(nodes, statistics.get("states", 0))
        clock.check()
        if limits.nodes is not None and nodes > limits.nodes:
            raise ResourceLimitError(f"node limit of {limits.nodes} reached")
        if limits.memory_bytes is not None and size > limits.memory_bytes:
            raise ResourceLimitError(f"memory limit of {limits.memory_bytes} bytes reached by the diagram's states")

    return check
