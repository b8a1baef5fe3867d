"""Random flips of cells: a small generator, the gaps from flip to flip, and whole chips from their seeds.

Cells of one block and one rate are a *group*; within a group the generator skips geometrically from flip to flip, so a
chip costs what its flips cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.faults import FaultModel, PerRead, cell_rates, require_blocks
from bnnverify.network import BinaryNetwork, InputDomain

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SEEDS = 256  # chips whose seeds are made together; part of how seeds map to chips


@njit
def _next(state):  # type: ignore[no-untyped-def]
    """SplitMix64: the next 64 random bits; `state` is an array of one word."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit
def gap(state, log_keep):  # type: ignore[no-untyped-def]
    """Cells skipped before the next flip: geometric. `log_keep` = log(1 - rate), 1 for rate 0 (never)."""
    if log_keep == 1.0:
        return np.int64(2**62)
    if log_keep == -np.inf:
        return np.int64(0)
    uniform = (np.float64(_next(state) >> np.uint64(11)) + 0.5) * 2.0**-53
    skipped = np.log(uniform) / log_keep
    return np.int64(min(skipped, 2.0**61))


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells that may fail, in groups of equal rate: block by block, stored +1 before stored -1.

    Attributes:
        places: Row and column of each cell, shape `(cells, 2)`, int64. The row of a cell of a convolution is its
            filter, the column its place there in channel-major order.
        signs: Its weight in the network, -1/+1, int64.
        starts: First cell of each group and the end of the last one, shape `(blocks, groups + 1)`; blocks with fewer
            groups end with empty ones.
        logs: log(1 - rate) of each group, shape `(blocks, groups)`; 1 for rate 0.
    """

    places: NDArray[np.int64]
    signs: NDArray[np.int64]
    starts: NDArray[np.int64]
    logs: NDArray[np.float64]


def cells_of(network: BinaryNetwork, faults: FaultModel) -> Cells:
    """The cells of a network by block and rate; of `PerRead` the rates of one read."""
    require_blocks(faults, len(network.all_blocks))
    places, signs, starts, logs = [], [], [], []
    total = 0
    for b, block in enumerate(network.all_blocks):
        rates, index = cell_rates(faults, b, block.stored)
        weights = block.weights.reshape(len(block.weights), -1)
        kinds = np.where(weights != 0, index, 0).ravel()
        order = np.argsort(kinds, kind="stable")[np.count_nonzero(kinds == 0) :]
        found = np.stack(np.divmod(order, weights.shape[1]), axis=1)
        present, sizes = np.unique(kinds[order], return_counts=True)
        places.append(found)
        signs.append(weights[found[:, 0], found[:, 1]].astype(np.int64))
        with np.errstate(divide="ignore"):
            logs.append([1.0 if float(r) == 0 else float(np.log1p(-float(r))) for r in (rates[k] for k in present)])
        row_starts = [total, *(total + np.cumsum(sizes)).tolist()]
        total = row_starts[-1]
        starts.append(row_starts)
    width = max(map(len, logs))
    return Cells(
        np.ascontiguousarray(np.concatenate([np.zeros((0, 2)), *places]), dtype=np.int64),
        np.concatenate([np.zeros(0, dtype=np.int64), *signs]),
        np.array([row + [row[-1]] * (width + 1 - len(row)) for row in starts], dtype=np.int64),
        np.array([row + [1.0] * (width - len(row)) for row in logs]).reshape(len(logs), width),
    )


@njit(nogil=True)
def draw(state, starts, logs, flips):  # type: ignore[no-untyped-def]
    """Cells that flip on one chip, in order, into `flips`; returns how many. The chip's seed is the `state` before."""
    count = 0
    for b in range(starts.shape[0]):
        for group in range(logs.shape[1]):
            end = starts[b, group + 1]
            cell = starts[b, group] + gap(state, logs[b, group])
            while cell < end:
                flips[count] = cell
                count += 1
                cell += 1 + gap(state, logs[b, group])
    return count


def drawn(cells: Cells, seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The flips of some chips one after the other, in the order of the cells, and where each chip's begin."""
    buffer = np.empty(len(cells.signs), dtype=np.int64)
    states = np.array(seeds, dtype=np.uint64)[:, None]
    parts = [buffer[: draw(state, cells.starts, cells.logs, buffer)].copy() for state in states]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]), starts


def chip_seeds(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Seeds of the chips `first` to ``first + count - 1`` of the sequence that `seed` begins.

    >>> chip_seeds(7, 300, 2).tolist() == chip_seeds(7, 255, 47).tolist()[-2:]
    True
    """
    if seed < 0 or first < 0:
        raise QueryError(f"seed and chip are {seed} and {first}, expected 0 or more.")
    blocks = range(first // _SEEDS, -(-(first + count) // _SEEDS))
    made = [np.random.SeedSequence([seed, b]).generate_state(_SEEDS, dtype=np.uint64) for b in blocks]
    skipped = first % _SEEDS
    return np.concatenate([np.zeros(0, dtype=np.uint64), *made])[skipped : skipped + count]


def faulty_network(network: BinaryNetwork, faults: FaultModel, chip_seed: Any) -> BinaryNetwork:
    """The network that the chip of this seed computes: some cells hold the opposite sign.

    Args:
        network: What was to be stored.
        faults: Permanent faults; of `PerRead` its permanent part.
        chip_seed: As `SampledChips.chip_seed` and `chip_seeds` give it.

    Returns:
        A network of the same shape. `negated` is kept, so `stored` says what its cells hold.

    Raises:
        UnsupportedError: Faults of reading only, which leave the cells as they are.

    >>> from bnnverify.faults import BitFlip
    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, 1]]))
    >>> faulty_network(net, BitFlip(1), 5).output.weights.tolist()
    [[-1, -1], [1, -1]]
    """
    if isinstance(faults, PerRead):
        if faults.permanent is None:
            raise UnsupportedError("the faults are fresh at every read, expected permanent ones: no chip to rebuild.")
        faults = faults.permanent
    if network.input_coding:
        coder, domain = network.blocks[0], InputDomain.binary(network.blocks[0].n_outputs)
        rest = faulty_network(BinaryNetwork(domain, network.blocks[1:], network.output), faults, chip_seed)
        return BinaryNetwork(network.domain, (coder, *rest.blocks), rest.output, input_coding=True)
    cells = cells_of(network, faults)
    flips, _ = drawn(cells, np.array([chip_seed], dtype=np.uint64))
    blocks = []
    for b, block in enumerate(network.all_blocks):
        chosen = cells.places[flips[(flips >= cells.starts[b, 0]) & (flips < cells.starts[b, -1])]]
        weights = block.weights.reshape(len(block.weights), -1).copy()
        weights[chosen[:, 0], chosen[:, 1]] *= -1
        blocks.append(replace(block, weights=weights.reshape(block.weights.shape)))
    *hidden, output = blocks
    return BinaryNetwork(network.domain, tuple(hidden), output)  # type: ignore[arg-type]
