"""Instances to binary decision diagrams, and exact numbers from diagrams.

The region's diagram is built first and everything is built within it, block by block: a gate's diagram is the set
of inputs *of the region* for which it is true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from math import prod
from types import ModuleType
from typing import Any

from bnnverify.cardinality import Constraint, Formula, Instance, Xnor, negation
from bnnverify.encodings.threshold import FALSE, TRUE, threshold_diagram
from bnnverify.errors import ResourceLimitError

Node = Any
"""A diagram: `dd`'s Function, which has no types."""

PACKAGES = ("dd.cudd", "dd.autoref")


def import_package(name: str | None = None) -> ModuleType:
    """The package `name`, or the first of `PACKAGES` that is installed."""
    import importlib

    if name is None:
        try:
            return importlib.import_module("dd.cudd")
        except ImportError:
            return importlib.import_module("dd.autoref")
    return importlib.import_module(name)


@contextmanager
def memory_as_limit() -> Iterator[None]:
    """Turns CUDD's way to say that memory is short into a ResourceLimitError."""
    try:
        yield
    except MemoryError as error:
        raise ResourceLimitError("memory limit reached by the decision diagrams") from error
    except ValueError as error:
        # CUDD returns NULL when it runs out of memory, and dd reports the NULL
        if "NULL" not in str(error):
            raise
        raise ResourceLimitError("memory limit reached by the decision diagrams") from error


class BddEncoding:
    """The diagrams of one instance, built when asked for, each within the region.

    Preserves counts: the variables are the instance's inputs and no others.

    Attributes:
        instance: What is encoded.
        region: Diagram of the region.
        package: Name of the package in use, `dd.cudd` or (slow, pure Python) `dd.autoref`.

    References:
        Een & Sorensson, JSAT 2006, Sec. 5, for one constraint; Zhang et al., TOSEM 2023, for diagrams block by block
        restricted to a region. Building the first block inside the ball, and deeper blocks over the restricted
        diagrams by one if-then-else per diagram node: ours.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        order: Sequence[int] | None = None,
        check: Callable[[int], None] = lambda nodes: None,
        memory_bytes: int | None = None,
        package: str | None = None,
    ) -> None:
        """Declare the variables and build the region.

        Args:
            instance: What to encode.
            order: Input variables from the top of the diagrams to the bottom. Default: by number.
            check: Called between operations with the number of nodes; raises ResourceLimitError to stop.
            memory_bytes: Most memory that CUDD may use.
            package: One of `PACKAGES`. Default: the first that is installed.
        """
        module = import_package(package)
        self.instance, self.package, self._stop = instance, module.__name__, check
        self._nodes, self._next_look = 0, 0.0
        with memory_as_limit():
            if self.package == "dd.cudd" and memory_bytes is not None:
                self.manager = module.BDD(memory_estimate=memory_bytes)
                self.manager.configure(max_memory=memory_bytes)
            else:
                self.manager = module.BDD()
            self.manager.configure(reordering=False)
            self.order = tuple(instance.inputs if order is None else order)
            self._level = {v: level for level, v in enumerate(self.order)}
            self.manager.declare(*(f"v{v}" for v in self.order))
            self._true = {v: self.manager.var(f"v{v}") for v in self.order}
            self._gates = {gate.output: gate for gate in instance.gates}
            self._known: dict[Constraint, Node] = {}
            self.region = self.manager.true
            for constraint in instance.region:
                self.region &= self._over_inputs(constraint, None)

    @property
    def n_nodes(self) -> int:
        """Nodes in the manager now."""
        return len(self.manager)

    def _check(self) -> None:
        """Give the caller a chance to stop."""
        now = time.perf_counter()
        if now >= self._next_look:
            # CUDD sweeps its tables to count nodes: spend a twentieth of the time on it, no more
            self._nodes = len(self.manager)
            after = time.perf_counter()
            self._next_look = after + 20 * (after - now)
        self._stop(self._nodes)

    def formula(self, formula: Formula | None = None, *, within: Node | None = None) -> Node:
        """Inputs with the property.

        Args:
            formula: Default: the instance's own.
            within: Only these inputs of the region matter. Default: all. The fewer they are, the faster.
        """
        wanted = self.instance.formula if formula is None else formula
        care = self.region if within is None else within
        with memory_as_limit():
            result = care if wanted.conjunctive else self.manager.false
            for constraint in wanted.constraints:
                # what is already decided need not be built again
                if wanted.conjunctive:
                    result = self._within(constraint, result)
                else:
                    result |= self._within(constraint, care & ~result)
        return result

    def constraint(self, constraint: Constraint) -> Node:
        """Inputs of the region for which the constraint holds."""
        if constraint not in self._known:
            with memory_as_limit():
                found = self._within(constraint, self.region)
                self._known[constraint] = found
                self._known[negation(constraint)] = self.region & ~found
        return self._known[constraint]

    def _within(self, constraint: Constraint, care: Node) -> Node:
        """Inputs of `care` for which the constraint holds."""
        if constraint in self._known:
            return self._known[constraint] & care
        if care == self.manager.false:
            return care
        if all(abs(v) <= self.instance.n_inputs for v in constraint.literals):
            return self._over_inputs(constraint, self.instance.radius) & care
        return self._over_gates(constraint, care)

    def _over_inputs(self, constraint: Constraint, radius: int | None) -> Node:
        pairs = zip(constraint.literals, constraint.coefficients, strict=True)
        ordered = sorted(pairs, key=lambda pair: self._level[abs(pair[0])])
        center = [self.instance.center[abs(v) - 1] == (v > 0) for v, _ in ordered]
        diagram = threshold_diagram([c for _, c in ordered], constraint.bound, center=center, radius=radius)
        return self._build(diagram.nodes, diagram.root, [v for v, _ in ordered], self.manager.true)

    def _over_gates(self, constraint: Constraint, care: Node) -> Node:
        pairs = list(zip(constraint.literals, constraint.coefficients, strict=True))
        for v, _ in pairs:
            self._variable(abs(v))
        pairs.sort(key=lambda pair: self._true[abs(pair[0])].level)
        diagram = threshold_diagram([c for _, c in pairs], constraint.bound)
        return self._build(diagram.nodes, diagram.root, [v for v, _ in pairs], care)

    def _build(self, nodes: Sequence[tuple[int, int, int]], root: int, literals: Sequence[int], top: Node) -> Node:
        """The diagram of a threshold diagram whose true leaf is `top`."""
        built = {FALSE: self.manager.false, TRUE: top}
        ite, check = self.manager.ite, self._check
        for number, (position, high, low) in enumerate(nodes, start=2):
            literal = literals[position]
            if literal < 0:
                high, low = low, high
            built[number] = ite(self._true[abs(literal)], built[high], built[low])
            check()
        return built[root]

    def _variable(self, variable: int) -> Node:
        """Inputs of the region for which a variable is true. Gates are in topological order, so this is shallow."""
        if variable not in self._true:
            gate = self._gates[variable]
            if isinstance(gate, Xnor):
                left, right = (self._variable(abs(v)) for v in gate.literals)
                equal = self.manager.apply("equiv", left, right)
                same = (gate.left > 0) == (gate.right > 0)
                self._true[variable] = self.region & (equal if same else ~equal)
            else:
                self._true[variable] = self.constraint(gate.constraint)
            self._check()
        return self._true[variable]

    def pick(self, node: Node) -> tuple[bool, ...] | None:
        """Some input of the diagram as values of the input variables, free ones as at the centre; None if empty."""
        found = self.manager.pick(node)
        if found is None:
            return None
        at_center = zip(self.instance.inputs, self.instance.center, strict=True)
        return tuple(bool(found.get(f"v{v}", value)) for v, value in at_center)

    def count(self, node: Node) -> int:
        """Number of inputs in the diagram, exact."""
        return self._weigh(node, dict.fromkeys(self.instance.inputs, (1, 1)), None)

    def count_by_distance(
        self, node: Node, *, center: Sequence[bool] | None = None, most: int | None = None
    ) -> list[int]:
        """Number of inputs in the diagram at each distance 0.. from the centre, exact.

        In cell mode the distance is the number of flipped cells, and these are the coefficients of the fault
        enumerator.

        Args:
            node: A diagram of this encoding.
            center: Value of each input variable at distance 0. Default: the instance's centre.
            most: Last distance of interest. Default: the number of input variables.
        """
        origin = self.instance.center if center is None else center
        n = self.instance.n_inputs
        last = n if most is None else min(most, n)
        # Kronecker substitution: a polynomial in one integer, n + 1 bits for coefficients of at most 2^n
        bits = n + 1
        step, keep = 1 << bits, (1 << bits * (last + 1)) - 1
        weights = {v: (step, 1) if c else (1, step) for v, c in zip(self.instance.inputs, origin, strict=True)}
        packed = self._weigh(node, weights, keep)
        return [packed >> bits * k & (step - 1) for k in range(last + 1)]

    def probability(self, node: Node, rates: Sequence[Fraction]) -> Fraction:
        """Probability that independent input variables lie in the diagram, exact.

        Args:
            node: A diagram of this encoding.
            rates: Probability that each input variable is true.
        """
        weights = {
            v: (p.denominator - p.numerator, p.numerator) for v, p in zip(self.instance.inputs, rates, strict=True)
        }
        return Fraction(self._weigh(node, weights, None), prod(p.denominator for p in rates))

    def _weigh(self, node: Node, weights: Mapping[int, tuple[int, int]], keep: int | None) -> int:
        """Sum over all inputs in the diagram of the product of their weights (if false, if true).

        Own traversal in Python integers, masked with `keep`: dd's count is a float for CUDD. A complemented edge is
        the total minus the value; a skipped level multiplies by the sum of its two weights.
        """
        by_level = [weights[v] for v in self.order]
        depth = len(by_level)
        spans: dict[tuple[int, int], int] = {}

        def span(start: int, stop: int) -> int:
            """Weight of all assignments of levels start to stop - 1."""
            if (start, stop) not in spans:
                value = prod(low + high for low, high in by_level[start:stop])
                spans[start, stop] = value if keep is None else value & keep
            return spans[start, stop]

        def level_of(u: Node) -> int:
            return depth if u.var is None else u.level

        values: dict[int, int] = {}

        def value_from(u: Node, start: int) -> int:
            """Weight of `u` over levels start and below."""
            level = level_of(u)
            regular = values[int(~u if u.negated else u)]
            if u.negated:
                regular = span(level, depth) - regular
            return regular * span(start, level)

        root = ~node if node.negated else node
        values[int(self.manager.true)] = 1
        stack = [root]
        visited = 0
        while stack:
            u = stack[-1]
            if int(u) in values:
                stack.pop()
                continue
            low, high = u.low, u.high
            plain = [~v if v.negated else v for v in (low, high)]
            waiting = [v for v in plain if int(v) not in values]
            if waiting:
                stack.extend(waiting)
                continue
            level = u.level
            if_false, if_true = by_level[level]
            value = if_false * value_from(low, level + 1) + if_true * value_from(high, level + 1)
            values[int(u)] = value if keep is None else value & keep
            stack.pop()
            visited += 1
            if visited % 1024 == 0:
                self._check()
        total = value_from(node, 0)
        return total if keep is None else total & keep
