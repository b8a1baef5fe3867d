"""Networks to instances: inputs as variables (robustness, counting), or cells as variables (bit flips)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.cardinality.constraints import (
    Constraint,
    Signal,
    Truth,
    linear_constraint,
    negation,
    sign_constraint,
)
from bnnverify.cardinality.instance import Formula, Gate, Instance, Reified, Variable, Xnor, pruned
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Ties, needs_strict
from bnnverify.regions import HammingBall, Region

Comparison = tuple[int, int, bool]
"""``(i, j, strict)``: score i >= score j, or > if strict."""


@dataclass(slots=True)
class _Builder:
    """Variables and gates so far; equal gates share a variable, complementary ones differ by a sign."""

    variables: list[Variable] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)

    def variable(self, what: Variable) -> int:
        self.variables.append(what)
        return len(self.variables)

    def reify(self, constraint: Constraint | Truth, what: Variable) -> Signal:
        """Signal that is true iff the constraint holds."""
        if isinstance(constraint, Truth):
            return constraint
        if len(constraint.literals) == 1:
            return constraint.literals[0]
        if constraint not in self.known:
            output = self.variable(what)
            self.gates.append(Reified(output, constraint))
            self.known[constraint] = output
            self.known[negation(constraint)] = -output
        return self.known[constraint]

    def xnor(self, left: Signal, right: int, what: Variable) -> int:
        """Literal that is true iff the two are equal."""
        if isinstance(left, Truth):
            return right if left else -right
        # equality of negated literals is equality, of one negated literal its negation
        sign = 1 if (left > 0) == (right > 0) else -1
        key = (abs(left), abs(right))
        if key not in self.known:
            output = self.variable(what)
            self.gates.append(Xnor(output, *key))
            self.known[key] = output
        return sign * self.known[key]


def compile_query(query: Query) -> Instance:
    """The question with inputs as variables; its models are exactly the adversarial inputs of the region.

    Fixed inputs are substituted; a neuron whose pre-activation cannot cross its threshold within the region is
    substituted as a constant in the next block; what the property does not depend on is dropped. All exact.

    Args:
        query: Network, region, property and tie rule.

    Returns:
        An instance with one variable per input that varies within the region.
    """
    comparisons, conjunctive = query.score_conditions()
    instance = compile_network(query.network, query.sign_region)
    return pruned(replace(instance, formula=score_formula(query.network, instance, comparisons, conjunctive)))


def compile_network(network: BinaryNetwork, region: Region) -> Instance:
    """All blocks over a region without a property (the formula is true): its models are the region's inputs.

    Args:
        network: A network with binary inputs. Convolutions are unrolled; variables name the unrolled blocks.
        region: Where the inputs lie.

    Returns:
        An instance whose `outputs` are the signals of the last hidden block.
    """
    builder = _Builder()
    free = region.free
    numbers = {i: builder.variable(Variable("input", 0, i)) for i in free}
    signals: list[Signal] = [numbers.get(i, Truth(v)) for i, v in enumerate(region.center)]
    center = tuple(region.center[i] == 1 for i in free)
    radius = region.radius if isinstance(region, HammingBall) and region.radius < len(free) else None
    for b, block in enumerate(network.unrolled().dense_blocks("the unrolled network has others.")):
        outputs: list[Signal] = []
        for j, (row, threshold) in enumerate(zip(block.weights, block.thresholds.tolist(), strict=True)):
            present = np.flatnonzero(row)  # few, where a convolution was unrolled
            constraint = sign_constraint(
                zip(row[present].tolist(), (signals[i] for i in present), strict=True), threshold
            )
            if b == 0:
                constraint = within_ball(constraint, center, radius)
            outputs.append(builder.reify(constraint, Variable("neuron", b, j)))
        signals = outputs
    return Instance(
        variables=tuple(builder.variables),
        n_inputs=len(free),
        gates=tuple(builder.gates),
        region=_ball_constraint(center, radius),
        formula=Formula((), True),
        center=center,
        radius=radius,
        outputs=tuple(signals),
    )


def _ball_constraint(center: Sequence[bool], radius: int | None) -> tuple[Constraint, ...]:
    """At most `radius` inputs differ from `center`, as a list of no or one constraint."""
    if radius is None:
        return ()
    literals = [v if value else -v for v, value in enumerate(center, start=1)]
    ball = linear_constraint([(1, v) for v in literals], len(center) - radius)
    return () if isinstance(ball, Truth) else (ball,)


def within_ball(constraint: Constraint | Truth, center: Sequence[bool], radius: int | None) -> Constraint | Truth:
    """The constraint, or its value if that is the same wherever at most `radius` inputs differ from `center`.

    Args:
        constraint: Over input variables only.
        center: Value of each input variable.
        radius: Most flips; None for no limit.
    """
    if radius is None or isinstance(constraint, Truth):
        return constraint
    pairs = list(zip(constraint.coefficients, constraint.literals, strict=True))
    met = [c for c, v in pairs if center[abs(v) - 1] == (v > 0)]
    unmet = [c for c, v in pairs if center[abs(v) - 1] != (v > 0)]
    if sum(met) - sum(sorted(met, reverse=True)[:radius]) >= constraint.bound:
        return Truth.TRUE
    if sum(met) + sum(sorted(unmet, reverse=True)[:radius]) < constraint.bound:
        return Truth.FALSE
    return constraint


def region_input(region: Region, values: Sequence[bool]) -> tuple[int, ...]:
    """The input (-1/+1) that assigns `values` to the input variables of an instance over the region."""
    x = list(region.center)
    for i, value in zip(region.free, values, strict=True):
        x[i] = 1 if value else -1
    return tuple(x)


def score_formula(
    network: BinaryNetwork, instance: Instance, comparisons: Iterable[Comparison], conjunctive: bool
) -> Formula:
    """Comparisons of exact scores as constraints over the last block's literals.

    Args:
        network: The network that `instance` was compiled from.
        instance: As `compile_network` gives it, with `outputs`.
        comparisons: `(i, j, strict)`: score i >= score j, or > if strict.
        conjunctive: True if all must hold, False if one suffices.
    """
    scales, biases = network.output.integer_form()
    weights = network.output.weights.tolist()
    parts: list[tuple[Constraint | Truth, str]] = []
    for i, j, strict in comparisons:
        sums = (scales[i] * p - scales[j] * q for p, q in zip(weights[i], weights[j], strict=True))
        terms = zip(sums, instance.outputs, strict=True)
        constraint = sign_constraint(terms, biases[j] - biases[i] + strict)
        if not network.blocks:
            constraint = within_ball(constraint, instance.center, instance.radius)
        parts.append((constraint, _label(i, j, strict)))
    return Formula.of(parts, conjunctive)


def _label(i: int, j: int, strict: bool) -> str:
    return f"score {i} {'>' if strict else '>='} score {j}"


def compile_cells(
    network: BinaryNetwork,
    x: ArrayLike,
    label: int,
    *,
    ties: Ties = Ties.LOWEST_INDEX,
    max_flips: int | None = None,
) -> Instance:
    """The question with the input fixed and cells as variables: True means that the cell is flipped.

    Its models are exactly the sets of flipped cells (of at most `max_flips`) after which some class other than
    `label` wins. Every unmasked weight is one variable, in the order block, row, column, the output block last.
    A first-block cell multiplies a known input; a deeper one an uncertain neuron, hence the XNOR gates.

    Args:
        network: Any network of dense blocks, integer inputs included.
        x: The input, shape `(n,)`.
        label: Class that is right.
        ties: What equal scores mean.
        max_flips: Most cells that may flip. Default: any number.

    Raises:
        QueryError: The label does not exist, or `max_flips` is negative.
        UnsupportedError: A block is a convolution.
    """
    if not 0 <= label < network.n_classes:
        raise QueryError(f"class {label} does not exist, expected 0 to {network.n_classes - 1}.")
    if max_flips is not None and max_flips < 0:
        raise QueryError(f"max_flips is {max_flips}, expected 0 or more.")
    blocks = network.dense_blocks("its positions share cells, which cells as variables do not express. Sample chips.")
    builder = _Builder()
    cells = _declare_cells(network, builder)
    center = (False,) * len(cells)
    radius = max_flips if max_flips is not None and max_flips < len(cells) else None
    magnitudes = [abs(v) for v in network.domain.require(x).tolist()]
    signals: list[Signal] = [Truth.TRUE if v >= 0 else Truth.FALSE for v in network.domain.require(x).tolist()]
    for b, block in enumerate(blocks):
        outputs: list[Signal] = []
        for j, (row, threshold) in enumerate(zip(block.weights.tolist(), block.thresholds.tolist(), strict=True)):
            products = _products(builder, cells, (b, j), row, signals)
            terms = [(magnitudes[i], literal) for i, literal in products.items()]
            constraint = sign_constraint(terms, threshold)
            if b == 0:
                constraint = within_ball(constraint, center, radius)
            outputs.append(builder.reify(constraint, Variable("neuron", b, j)))
        signals, magnitudes = outputs, [1] * len(outputs)
    formula = _cell_formula(network, builder, cells, signals, magnitudes, label, ties)
    return pruned(
        Instance(
            variables=tuple(builder.variables),
            n_inputs=len(cells),
            gates=tuple(builder.gates),
            region=_ball_constraint(center, radius),
            formula=formula,
            center=center,
            radius=radius,
        )
    )


def _declare_cells(network: BinaryNetwork, builder: _Builder) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Variable and effective weight of each cell by (block, row, column)."""
    cells = {}
    weights = [block.weights.tolist() for block in network.blocks] + [network.output.weights.tolist()]
    stored = [block.stored.tolist() for block in network.blocks] + [network.output.weights.tolist()]
    for b, matrix in enumerate(weights):
        for j, row in enumerate(matrix):
            for i, weight in enumerate(row):
                if weight:
                    cells[b, j, i] = builder.variable(Variable("cell", b, j, i, stored[b][j][i])), weight
    return cells


def _products(
    builder: _Builder,
    cells: dict[tuple[int, int, int], tuple[int, int]],
    place: tuple[int, int],
    row: Sequence[int],
    signals: Sequence[Signal],
) -> dict[int, int]:
    """By column the literal of ``weight * signal``, the cell's possible flip included."""
    block, index = place
    products = {}
    for i, signal in enumerate(signals):
        if row[i]:
            variable, weight = cells[block, index, i]
            read = -variable if weight == 1 else variable  # true iff the weight is read as +1
            products[i] = builder.xnor(signal, read, Variable("product", block, index, i))
    return products


def _cell_formula(
    network: BinaryNetwork,
    builder: _Builder,
    cells: dict[tuple[int, int, int], tuple[int, int]],
    signals: Sequence[Signal],
    magnitudes: Sequence[int],
    label: int,
    ties: Ties,
) -> Formula:
    """Some class other than `label` wins, over the products of the output block."""
    output, last = network.output, len(network.blocks)
    scales, biases = output.integer_form()
    rows = output.weights.tolist()
    scores = [
        [(scales[k] * magnitudes[i], v) for i, v in _products(builder, cells, (last, k), row, signals).items()]
        for k, row in enumerate(rows)
    ]
    parts: list[tuple[Constraint | Truth, str]] = []
    for k in range(output.n_classes):
        if k != label:
            strict = needs_strict(k, label, ties, k)
            terms = scores[k] + [(-weight, v) for weight, v in scores[label]]
            parts.append((sign_constraint(terms, biases[label] - biases[k] + strict), _label(k, label, strict)))
    return Formula.of(parts, False)


def cells_of(instance: Instance) -> list[tuple[int, int, int, int]]:
    """Each cell as `(block, row, column, stored sign)`, in the order of the input variables."""
    return [(v.block, v.index, v.column, v.stored) for v in instance.variables[: instance.n_inputs]]
