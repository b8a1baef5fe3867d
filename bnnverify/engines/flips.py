"""Random flips of cells: a small generator, and the gaps from flip to flip."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True)
def _next(state):  # type: ignore[no-untyped-def]
    """SplitMix64: the next 64 random bits; `state` is an array of one word."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def gap(state, log_keep):  # type: ignore[no-untyped-def]
    """Cells skipped before the next flip: geometric. `log_keep` = log(1 - rate), 1 for rate 0 (never)."""
    if log_keep == 1.0:
        return np.int64(2**62)
    if log_keep == -np.inf:
        return np.int64(0)
    uniform = (np.float64(_next(state) >> np.uint64(11)) + 0.5) * 2.0**-53
    skipped = np.log(uniform) / log_keep
    return np.int64(min(skipped, 2.0**61))


def cells_by_sign(network: BinaryNetwork, faults: FaultModel) -> tuple[NDArray[Any], ...]:
    """All cells, grouped by block and stored sign: (row, column), signs, group starts, and log(1 - rate).

    The row of a cell of a convolution is its filter, the column its place there in channel-major order.
    """
    places, signs, starts, logs = [], [], [], []
    total = 0
    for b, block in enumerate(network.all_blocks):
        rates = faults.rates(b)
        row_starts = [total]
        for sign in (1, -1):
            found = np.argwhere(block.stored.reshape(len(block.weights), -1) == sign)
            places.append(found)
            signs.append(block.weights.reshape(len(block.weights), -1)[found[:, 0], found[:, 1]].astype(np.int64))
            total += len(found)
            row_starts.append(total)
        starts.append(row_starts)
        with np.errstate(divide="ignore"):
            logs.append([1.0 if float(r) == 0 else float(np.log1p(-float(r))) for r in (rates.plus, rates.minus)])
    return (
        np.ascontiguousarray(np.concatenate(places), dtype=np.int64),
        np.concatenate(signs),
        np.array(starts, dtype=np.int64),
        np.array(logs),
    )
