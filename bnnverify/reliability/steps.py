"""Blocks under bit errors as steps from sign vectors to sign vectors, one text for dense blocks and convolutions.

A step takes states, packed sign vectors with their probabilities, and adds the likely vectors after its block to
`Vectors`; what it leaves out is in their open mass, or bounded in `charges` (see `spreading`).

- `spreading.DenseStep`: a dense block that takes signs; neurons from counts of agreeing cells, in one loop.
- `SignStep`: anything whose outputs are independent signs: a first block, cells with rates of their own, a convolution
  whose faults are fresh at every read.
- `convolutions.ConvStep`: a convolution with permanent faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import IntArray
from bnnverify.faults import FaultModel, cell_rates, is_per_cell, positions_share
from bnnverify.network import BinaryNetwork, DenseBlock
from bnnverify.packing import Words
from bnnverify.reliability.cells import CellRows, unpacked
from bnnverify.reliability.convolutions import ConvStep, signs_per_read
from bnnverify.reliability.laws import FloatArray, RowLaws, firing
from bnnverify.reliability.patterns import Vectors, draw
from bnnverify.reliability.rows import CountedRows
from bnnverify.reliability.spreading import Closing, DenseStep, draw_signs, sign_workspace, spread

SignLaw = Callable[[IntArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, slots=True)
class SignStep:
    """A block with independent outputs, from P(+1) and P(-1) of each at one input.

    Attributes:
        law: From an input `(n,)` to (P(+1), P(-1)) of every output, both summed on their own.
        inputs: Entries of the input.
        outputs: Outputs.
        roundings: Roundings in these.
    """

    law: SignLaw
    inputs: int
    outputs: int
    roundings: int


Step = DenseStep | SignStep | ConvStep


def steps_of(network: BinaryNetwork, faults: FaultModel) -> tuple[Step, ...]:
    """The hidden blocks of a network under a fault model.

    Raises:
        UnsupportedError: A convolution has permanent faults and those of reading.
    """
    return tuple(_step(network, faults, b, block) for b, block in enumerate(network.blocks))


def _step(network: BinaryNetwork, faults: FaultModel, index: int, block: HiddenBlock) -> Step:
    largest = 1
    if index == 0 and not network.domain.is_binary:
        largest = int(max(np.abs(network.domain.lower).max(), np.abs(network.domain.upper).max(), 1))
    by_sign = not is_per_cell(faults)
    if isinstance(block, ConvBlock):
        if positions_share(faults, index, block.stored):
            return ConvStep.of(block, *cell_rates(faults, index, block.stored))
        rows: CountedRows | CellRows
        if by_sign and largest == 1:
            rows = CountedRows.of(block.weights, block.stored, block.thresholds, faults.rates(index))
            least = rows.roundings
        else:
            rows = CellRows.of(block.weights, block.thresholds, *cell_rates(faults, index, block.stored))
            least = rows.roundings(largest)
        roundings = block.pool[0] * block.pool[1] * (least + 2)
        return SignStep(_per_read(block, rows), block.n_inputs, block.n_outputs, roundings)
    if index > 0 and by_sign:
        return DenseStep.of(block, faults.rates(index))
    if by_sign and network.domain.is_binary:  # integers within -1 and +1 may be 0, which no flip moves
        return SignStep(_counted(block, faults, index), block.n_inputs, block.n_outputs, 4 * block.n_inputs)
    cells = CellRows.of(block.weights, block.thresholds, *cell_rates(faults, index, block.stored))
    return SignStep(_at_one_input(cells), block.n_inputs, block.n_outputs, cells.roundings(largest))


def _per_read(block: ConvBlock, rows: CountedRows | CellRows) -> SignLaw:
    return lambda x: signs_per_read(block, x, rows.firing)


def _counted(block: DenseBlock, faults: FaultModel, index: int) -> SignLaw:
    rates = faults.rates(index)
    return lambda x: firing(block, x, RowLaws(rates))


def _at_one_input(cells: CellRows) -> SignLaw:
    def law(x: IntArray) -> tuple[FloatArray, FloatArray]:
        fires, silent = cells.firing(x)
        return fires[0], silent[0]

    return law


def parts_of(step: Step) -> int:
    """Independent parts: neurons, outputs, or filters."""
    if isinstance(step, ConvStep):
        return step.block.n_filters
    return step.neurons if isinstance(step, DenseStep) else step.outputs


def outputs_of(step: Step) -> int:
    """Signs after the block."""
    if isinstance(step, ConvStep):
        return step.block.n_outputs
    return parts_of(step)


def inputs_of(step: Step) -> int:
    """Entries before the block."""
    if isinstance(step, DenseStep):
        return 64 * int(step.weights.shape[1])
    return step.block.n_inputs if isinstance(step, ConvStep) else step.inputs


def workspace_of(step: Step) -> Any:
    """Scratch of `continue_states`, for one thread."""
    if isinstance(step, ConvStep | DenseStep):
        return step.workspace()
    return sign_workspace(step.outputs)


@dataclass(slots=True)
class FirstInput:
    """What the first block makes of one input, remembered for the next rounds: signs, or parts by number of flips."""

    x: IntArray
    known: dict[int, Any]


def start(
    step: Step,
    first: FirstInput,
    threshold: float,
    effort: float,
    workspace: Any,
    vectors: Vectors,
    closing: Closing,
    charges: FloatArray,
) -> int:
    """Continue the input itself, of mass 1; returns the roundings of one part."""
    if isinstance(step, ConvStep):
        flips = step.flips(1.0, threshold, effort)
        if flips not in first.known:
            first.known[flips] = step.parts(first.x, flips)
        parts = first.known[flips]
        draw(1.0, parts.modal, parts.loops, threshold, workspace, vectors.loops)
        return int(parts.roundings)
    assert isinstance(step, SignStep)
    if 0 not in first.known:
        first.known[0] = step.law(first.x)
    fires, silent = first.known[0]
    draw_signs(fires, silent, 1.0, threshold, workspace, vectors.loops, closing.loops, charges)
    return step.roundings


def continue_states(
    step: Step,
    keys: Words,
    masses: FloatArray,
    begin: int,
    end: int,
    threshold: float,
    effort: float,
    workspace: Any,
    vectors: Vectors,
    closing: Closing,
    charges: FloatArray,
) -> int:
    """Continue the states `begin` to `end`; returns the roundings of one part."""
    if isinstance(step, DenseStep):
        spread(
            keys,
            masses,
            begin,
            end,
            step.loops,
            threshold,
            workspace,
            vectors.loops,
            closing.loops,
            charges,
        )
        return step.roundings
    most = step.roundings
    for key, mass in zip(keys[begin:end], masses[begin:end].tolist(), strict=True):
        x = unpacked(key, inputs_of(step))
        if isinstance(step, ConvStep):
            parts = step.parts(x, step.flips(mass, threshold, effort))
            draw(mass, parts.modal, parts.loops, threshold, workspace, vectors.loops)
            most = max(most, parts.roundings)
        else:
            draw_signs(*step.law(x), mass, threshold, workspace, vectors.loops, closing.loops, charges)
    return most


def chunk_of(step: Step) -> int:
    """States to continue between two looks at the clock."""
    return 1024 if isinstance(step, DenseStep) else 1


def cost_of(step: Step, mass: float, threshold: float, effort: float) -> float:
    """About how many sums it takes to continue one state of this probability."""
    if isinstance(step, ConvStep):
        return step.cost(step.flips(mass, threshold, effort))
    return float(outputs_of(step) * inputs_of(step)) * (0.01 if isinstance(step, DenseStep) else 10.0)
