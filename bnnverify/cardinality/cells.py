"""Networks to instances with the input fixed and cells as variables: bit flips."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from bnnverify.cardinality.builder import Builder, ball_constraint, comparison_label, within_ball
from bnnverify.cardinality.constraints import Constraint, Signal, Truth, sign_constraint
from bnnverify.cardinality.instance import Formula, Instance, Variable, pruned
from bnnverify.errors import QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Ties, needs_strict


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
    builder = Builder()
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
            region=ball_constraint(center, radius),
            formula=formula,
            center=center,
            radius=radius,
        )
    )


def _declare_cells(network: BinaryNetwork, builder: Builder) -> dict[tuple[int, int, int], tuple[int, int]]:
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
    builder: Builder,
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
    builder: Builder,
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
            parts.append(
                (sign_constraint(terms, biases[label] - biases[k] + strict), comparison_label(k, label, strict))
            )
    return Formula.of(parts, False)


def cells_of(instance: Instance) -> list[tuple[int, int, int, int]]:
    """Each cell as `(block, row, column, stored sign)`, in the order of the input variables."""
    return [(v.block, v.index, v.column, v.stored) for v in instance.variables[: instance.n_inputs]]
