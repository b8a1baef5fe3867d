"""Exact reliability of small networks: Fractions for one fault model, a fault enumerator for all p at once.

One calculation over any commutative ring: a cell contributes its *flip* weight or its *keep* weight. With rates
these are Fractions; with the polynomials z and 1 the result is the fault enumerator, whose coefficient A_k is the
number of patterns of exactly k flips with the event, so that ``P(p) = sum_k A_k p^k (1-p)^(N-k)`` for every p.

The law of a block's signs is built block by block (given one block's signs, the next block's neurons are
independent), so the cost grows with 2 to the width of the hidden blocks.

References:
    Ours. Weight enumerators of this kind: MacWilliams & Sloane, 1977, Ch. 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.domain import IntArray
from bnnverify.engines.coding import about_cells
from bnnverify.engines.reads import independent_reads
from bnnverify.errors import UnsupportedError
from bnnverify.faults import FaultModel, PerRead, cell_rates, rate, require_blocks
from bnnverify.network import BinaryNetwork, DenseBlock

MAX_HIDDEN_WIDTH = 16  # 65,536 sign vectors of a block
SAMPLE_INSTEAD = (
    "the positions of a convolution share cells, so its neurons are not independent. "
    "Sample chips with sample_errors (--samples N --only-samples)."
)

CellWeights = Callable[[int, int, int], tuple[Any, Any]]  # (block, row, column) -> (flip, keep)


@dataclass(frozen=True, slots=True)
class FaultEnumerator:
    """The number of flip patterns with an event, by number of flips; exact for every bit error rate.

    Attributes:
        counts: A_0..A_N as Python integers; A_k of the ``binomial(N, k)`` patterns of k flips have the event.
    """

    counts: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells N."""
        return len(self.counts) - 1

    def probability(self, p: Any) -> Fraction:
        """P(event) at the bit error rate p, exact.

        >>> FaultEnumerator((0, 1, 1)).probability("1/2")
        Fraction(1, 2)
        """
        flip = rate(p)
        keep = 1 - flip
        total = Fraction(0)
        for k, count in enumerate(self.counts):
            total += count * flip**k * keep ** (self.n_cells - k)
        return total


@about_cells
def fault_enumerator(network: BinaryNetwork, x: ArrayLike, label: int) -> FaultEnumerator:
    """Numbers of k-flip patterns of the stored weights after which the class of x is not `label`.

    Args:
        network: Hidden blocks of at most 16 neurons.
        x: An input of the domain.
        label: The class that is right. A_0 is 1 where the clean class is not `label`.

    Returns:
        Exact integers for all k from 0 to the number of cells.

    Raises:
        UnsupportedError: A hidden block is too wide, or a convolution.
        QueryError: The label does not exist.
    """
    from flint import fmpz_poly

    weights = fmpz_poly([0, 1]), fmpz_poly([1])
    error = _error_weight(network, x, label, lambda *cell: weights, fmpz_poly([0]), fmpz_poly([1]))
    counts = [int(c) for c in error.coeffs()]
    return FaultEnumerator(tuple(counts + [0] * (network.n_cells + 1 - len(counts))))


@about_cells
def exact_error_probability(network: BinaryNetwork, x: ArrayLike, label: int, faults: FaultModel) -> Fraction:
    """P(class of x is not `label`) under the fault model, as an exact Fraction.

    Args:
        network: Hidden blocks of at most 16 neurons.
        x: An input of the domain.
        label: The class that is right.
        faults: Rates of the cells; of `PerRead` what one read meets, each position of a convolution on its own.

    Raises:
        UnsupportedError: A hidden block is too wide, or a convolution whose faults are permanent.
        QueryError: The label does not exist.
    """
    from flint import fmpq

    require_blocks(faults, len(network.all_blocks))
    if isinstance(faults, PerRead):
        network, faults = independent_reads(network, faults)
    kinds: list[list[tuple[Any, Any]]] = []
    index: list[list[list[int]]] = []
    for b, block in enumerate(network.all_blocks):
        rates, places = cell_rates(faults, b, block.stored)
        exact = [fmpq(r.numerator, r.denominator) for r in rates]
        kinds.append([(flip, 1 - flip) for flip in exact])
        index.append(places.tolist())

    def weights(block: int, row: int, column: int) -> tuple[Any, Any]:
        return kinds[block][index[block][row][column]]

    error = _error_weight(network, x, label, weights, fmpq(0), fmpq(1))
    return Fraction(int(error.p), int(error.q))


def require_small(network: BinaryNetwork) -> tuple[DenseBlock, ...]:
    """The hidden blocks of a network that this calculation serves.

    Raises:
        UnsupportedError: A hidden block is too wide, or a convolution.
    """
    blocks = network.dense_blocks(SAMPLE_INSTEAD)
    for i, block in enumerate(blocks):
        if block.n_outputs > MAX_HIDDEN_WIDTH:
            raise UnsupportedError(
                f"block {i} has {block.n_outputs} neurons; exact Fractions go up to {MAX_HIDDEN_WIDTH}. "
                "Use error_probability, which gives a certified interval."
            )
    return blocks


def _error_weight(network: BinaryNetwork, x: ArrayLike, label: int, weights: CellWeights, zero: Any, one: Any) -> Any:
    """Total weight of the flip patterns after which the class is not `label`."""
    network.require_class(label)
    blocks = require_small(network)
    law: dict[tuple[int, ...], Any] = {tuple(int(v) for v in network.domain.require(x)): one}
    for b, block in enumerate(blocks):
        following: dict[tuple[int, ...], Any] = {}
        for signs, weight in law.items():
            for outputs, share in _block_law(block, np.array(signs), b, weights, zero, one).items():
                term = weight * share
                following[outputs] = following[outputs] + term if outputs in following else term
        law = following
    error = zero
    for signs, weight in law.items():
        error = error + weight * _output_error(network, np.array(signs), label, weights, zero, one)
    return error


def _row_law(row: IntArray, x: IntArray, cell: Callable[[int], tuple[Any, Any]], zero: Any, one: Any) -> dict[int, Any]:
    """Weights of the pre-activation of one row after the faults; `cell` gives (flip, keep) by column."""
    law = {0: one}
    for i, (w, v) in enumerate(zip(row.tolist(), x.tolist(), strict=True)):
        if w == 0:
            continue
        flip, keep = cell(i)
        following: dict[int, Any] = {}
        for total, weight in law.items():
            for value, factor in ((total + w * v, keep), (total - w * v, flip)):
                following[value] = following.get(value, zero) + weight * factor
        law = following
    return law


def _block_law(
    block: DenseBlock, x: IntArray, index: int, weights: CellWeights, zero: Any, one: Any
) -> dict[tuple[int, ...], Any]:
    """Weights of the signs of a block whose input is fixed: a product, neuron by neuron."""
    law: dict[tuple[int, ...], Any] = {(): one}
    for j, (row, threshold) in enumerate(zip(block.weights, block.thresholds.tolist(), strict=True)):
        sums = _row_law(row, x, partial(weights, index, j), zero, one)
        fires = sum((weight for total, weight in sums.items() if total >= threshold), zero)
        silent = sum((weight for total, weight in sums.items() if total < threshold), zero)
        law = {
            (*signs, sign): weight * share
            for signs, weight in law.items()
            for sign, share in ((1, fires), (-1, silent))
            if share != zero
        }
    return law


def _output_error(network: BinaryNetwork, h: IntArray, label: int, weights: CellWeights, zero: Any, one: Any) -> Any:
    """Weight of the flips of the output block after which the class of h is not `label`."""
    output, index = network.output, len(network.blocks)
    laws: list[dict[Fraction, Any]] = []
    for k, (row, scale, bias) in enumerate(zip(output.weights, output.scale, output.bias, strict=True)):
        scores: dict[Fraction, Any] = {}
        for total, weight in _row_law(row, h, partial(weights, index, k), zero, one).items():
            score = scale * total + bias
            scores[score] = scores.get(score, zero) + weight
        laws.append(scores)
    error = zero
    for mine, own in laws[label].items():
        beaten, alive = zero, own  # own weight: some rival so far won; none did
        for k, law in enumerate(laws):
            if k == label:
                continue
            win = sum((w for s, w in law.items() if s > mine or (s == mine and k < label)), zero)
            lose = sum((w for s, w in law.items() if not (s > mine or (s == mine and k < label))), zero)
            beaten = beaten * (win + lose) + alive * win
            alive = alive * lose
        error = error + beaten
    return error
