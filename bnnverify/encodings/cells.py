"""Exact fault analysis of small networks by decision diagrams over their cells: a cross-check of other ways."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from numpy.typing import ArrayLike

from bnnverify.cardinality import Instance, Variable, cells_of, compile_cells
from bnnverify.encodings.bdd import BddEncoding, Node
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork


def cell_order(instance: Instance) -> tuple[int, ...]:
    """Cells from the top of the diagrams to the bottom: a neuron's own cells, then the cells that read it.

    With one hidden block, the diagram after each neuron has to remember no more than the score differences so far.
    """
    cells = instance.variables[: instance.n_inputs]
    last = max((c.block for c in cells), default=0)

    def place(cell: Variable) -> tuple[int, int, int, int]:
        reads = cell.block % 2 == 1 or cell.block == last
        neuron, other = (cell.column, cell.index) if reads else (cell.index, cell.column)
        return cell.block // 2, neuron, cell.block % 2, other

    return tuple(sorted(instance.inputs, key=lambda v: place(cells[v - 1])))


def _error_diagram(
    network: BinaryNetwork, x: ArrayLike, label: int, check: Callable[[int], None]
) -> tuple[BddEncoding, Node]:
    instance = compile_cells(network, x, label)
    encoding = BddEncoding(instance, order=cell_order(instance), check=check)
    return encoding, encoding.formula()


def fault_enumerator_bdd(
    network: BinaryNetwork, x: ArrayLike, label: int, *, check: Callable[[int], None] = lambda nodes: None
) -> list[int]:
    """A_k: the number of sets of exactly k flipped cells after which the class is not `label`. Exact.

    Feasible for a few hundred cells and two or three classes.

    Args:
        network: Any network.
        x: The input, shape `(n,)`.
        label: Class that is right; ties go to the lowest index.
        check: Called now and then with the number of diagram nodes; raises to stop.

    Returns:
        A_0 .. A_N for N cells.
    """
    encoding, error = _error_diagram(network, x, label, check)
    return encoding.count_by_distance(error)


def error_probability_bdd(
    network: BinaryNetwork,
    x: ArrayLike,
    label: int,
    faults: FaultModel,
    *,
    check: Callable[[int], None] = lambda nodes: None,
) -> Fraction:
    """Probability that the class is not `label` when cells fail independently. Exact.

    Args:
        network: Any network of a few hundred cells.
        x: The input, shape `(n,)`.
        label: Class that is right; ties go to the lowest index.
        faults: Rates by block and by the sign that a cell stores.
        check: Called now and then with the number of diagram nodes; raises to stop.
    """
    encoding, error = _error_diagram(network, x, label, check)
    rates = []
    for block, _, _, stored in cells_of(encoding.instance):
        both = faults.rates(block)
        rates.append(both.plus if stored == 1 else both.minus)
    return encoding.probability(error, rates)
