"""BddEngine: exact verdicts and counts from binary decision diagrams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bnnverify.cardinality import (
    Formula,
    Instance,
    compile_network,
    compile_query,
    grid_region,
    region_input,
    score_formula,
)
from bnnverify.encodings.bdd import BddEncoding, Node
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.errors import EngineError, ResourceLimitError, UnsupportedError
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import HammingBall
from bnnverify.results import Count, Decision, Kind, Run, Verdict


@dataclass(frozen=True, slots=True)
class BddEngine:
    """Builds the diagram of the classes over the region; all its answers are exact.

    By default the diagram is built layer by layer of the *diagram*: inputs are read one after another, and what
    leaves the same question open is one node (`bnnverify.encodings.layered`). With a `package` it is conjoined neuron
    by neuron by that package's diagrams; scores that the first way has no integers for go this way too.

    Good at larger radii, at fixed-index regions, and whenever the diagram itself is wanted. When a limit is reached,
    what the finished part of the diagram settles is counted, and the answer is an interval.

    Attributes:
        package: `dd.cudd` or `dd.autoref` (pure Python, about a hundred times slower): conjoin neurons with it.

    References:
        Zhang et al., TOSEM 2023 (BNNQuanalyst), for diagrams neuron by neuron, see `bnnverify.encodings.bdd`. States
        that merge: Behle, "On threshold BDDs and the optimal variable ordering problem", J. Comb. Optim. 2008, for
        one threshold function; all neurons and the classes at once: ours.
    """

    package: str | None = None

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "bdd"

    def decide(self, query: Query, *, limits: Limits = UNLIMITED) -> Decision:
        """Is there an adversarial input in the region?

        Args:
            query: Any query.
            limits: Time, nodes and memory; one that is reached gives UNKNOWN with the reason.
        """
        clock = Clock(limits.seconds)
        if self.package is None:
            from bnnverify.engines.layered import decide_by_layers

            try:
                return decide_by_layers(query, limits, clock, self.name)
            except UnsupportedError:
                pass
        return self._decide_by_neurons(query, limits, clock)

    def count(self, query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Count:
        """How many inputs of the region are adversarial, by class and (Hamming balls) by distance?

        Args:
            query: Any query.
            limits: Time, nodes and memory; one that is reached gives the interval proved so far, with the reason.
            monitor: Whom to report to, and who may stop the work.
        """
        clock = Clock(limits.seconds, monitor)
        if self.package is None:
            from bnnverify.engines.layered import count_by_layers

            try:
                return count_by_layers(query, limits, clock, self.name)
            except UnsupportedError:
                pass
        return self._count_by_neurons(query, limits, clock)

    def _decide_by_neurons(self, query: Query, limits: Limits, clock: Clock) -> Decision:
        statistics: dict[str, Any] = {}
        try:
            encoding = self._encoding(compile_query(query, check=clock.check), limits, clock, statistics)
            formula = encoding.instance.formula
            # a disjunction is searched one rival at a time, so the first rival that wins ends it
            parts = [formula] if formula.conjunctive or not formula.constraints else _singles(formula)
            for part in parts:
                found = encoding.pick(encoding.formula(part))
                if found is not None:
                    x, predicted = replayed(query, region_input(grid_region(query), found), self.name)
                    return Decision(Verdict.NOT_ROBUST, self._run(clock, encoding, statistics), x, predicted)
        except ResourceLimitError as limit:
            return Decision(Verdict.UNKNOWN, Run(self.name, clock.elapsed, str(limit), statistics))
        return Decision(Verdict.ROBUST, self._run(clock, encoding, statistics))

    def _count_by_neurons(self, query: Query, limits: Limits, clock: Clock) -> Count:
        size = query.sign_region.size()
        statistics: dict[str, Any] = {}
        settled: dict[int, int] = {}
        try:
            instance = compile_network(query.network, query.sign_region, check=clock.check)
            encoding = self._encoding(instance, limits, clock, statistics)
            classes = self._class_diagrams(query, encoding, settled, clock)
            per_class = tuple(settled[k] for k in range(len(classes)))
            if sum(per_class) != size:
                raise EngineError(f"the classes add up to {sum(per_class)} of {size} inputs: a bug in engine bdd.")
            adversarial = self._adversarial(query, encoding, classes)
            per_radius: tuple[int, ...] | None = None
            if isinstance(query.sign_region, HammingBall):
                per_radius = _by_distance(encoding, adversarial, query.sign_region.radius)
                total = sum(per_radius)
            else:
                total = encoding.count(adversarial)
        except ResourceLimitError as limit:
            run = Run(self.name, clock.elapsed, str(limit), statistics)
            return Count(Kind.INTERVAL, *_bounds(query, settled), size, run)
        run = self._run(clock, encoding, statistics)
        return Count(Kind.EXACT, total, total, size, run, per_class, per_radius)

    def _encoding(self, instance: Instance, limits: Limits, clock: Clock, statistics: dict[str, Any]) -> BddEncoding:
        check = _checker(limits, clock, statistics)
        encoding = BddEncoding(instance, check=check, memory_bytes=limits.memory_bytes, package=self.package)
        statistics |= {"package": encoding.package, "variables": instance.n_inputs, "gates": len(instance.gates)}
        check(encoding.n_nodes)
        return encoding

    def _run(self, clock: Clock, encoding: BddEncoding, statistics: dict[str, Any]) -> Run:
        return Run(
            self.name, clock.elapsed, "", statistics | {"nodes": max(encoding.n_nodes, statistics.get("nodes", 0))}
        )

    def _class_diagrams(self, query: Query, encoding: BddEncoding, settled: dict[int, int], clock: Clock) -> list[Node]:
        """For each class the inputs of the region that get it (argmax, lowest index); fills `settled` with counts."""
        # the centre's class first: it usually takes most of the region, and the others are built within the rest
        first = query.network.evaluate(query.sign_region.center)
        others = (k for k in range(query.network.n_classes) if k != first)
        rest, found = encoding.region, {}
        for k in (first, *others):
            targeted = replace(query, property=Targeted(k), ties=Ties.LOWEST_INDEX)
            found[k] = encoding.formula(_formula(targeted, encoding), within=rest)
            settled[k] = encoding.count(found[k])
            if clock.monitor is not None:
                clock.monitor.report(*_bounds(query, settled), query.sign_region.size())
            rest = rest & ~found[k]
        return [found[k] for k in range(query.network.n_classes)]

    def _adversarial(self, query: Query, encoding: BddEncoding, classes: list[Node]) -> Node:
        if query.ties is Ties.LOWEST_INDEX:
            if isinstance(query.property, Untargeted):
                return encoding.region & ~classes[query.property.label]
            return classes[query.property.target]
        return encoding.formula(_formula(query, encoding))


def _formula(query: Query, encoding: BddEncoding) -> Formula:
    comparisons, conjunctive = query.score_conditions()
    return score_formula(query.network, encoding.instance, comparisons, conjunctive)


def _bounds(query: Query, settled: dict[int, int]) -> tuple[int, int]:
    """Bounds on the adversarial inputs when these classes have been counted (argmax, lowest index)."""
    size = query.sign_region.size()
    if query.ties is not Ties.LOWEST_INDEX:
        return 0, size
    if isinstance(query.property, Untargeted):
        others = sum(count for k, count in settled.items() if k != query.property.label)
        return others, size - settled.get(query.property.label, 0)
    target = query.property.target
    if target in settled:
        return settled[target], settled[target]
    return 0, size - sum(settled.values())


def _singles(formula: Formula) -> list[Formula]:
    return [Formula((c,), True) for c in formula.constraints]


def _by_distance(encoding: BddEncoding, node: Node, radius: int) -> tuple[int, ...]:
    found = encoding.count_by_distance(node, most=radius)
    return tuple(found + [0] * (radius + 1 - len(found)))


def _checker(limits: Limits, clock: Clock, statistics: dict[str, Any]) -> Callable[[int], None]:
    """What the encoding calls between operations."""

    def check(nodes: int) -> None:
        statistics["nodes"] = max(nodes, statistics.get("nodes", 0))
        clock.check()
        if limits.nodes is not None and nodes > limits.nodes:
            raise ResourceLimitError(f"node limit of {limits.nodes} reached")

    return check
