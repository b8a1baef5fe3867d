"""IntervalBounds: a proof of robustness from one pass of intervals, in microseconds, where it goes through."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.query import Query
from bnnverify.regions import HammingBall

Array = NDArray[Any]  # int64, or Python integers


class IntervalBounds:
    """Exact integer intervals of all signals and scores, for any choice of the inputs that may vary.

    The first block is bounded exactly within a Hamming ball; later blocks forget which signals belong together, so
    the bounds prove robustness but can never refute it. Monotone: what is proved for some inputs is proved for fewer.

    Args:
        query: Centre, radius and property; its region must contain every set asked about.
    """

    __slots__ = ("_base", "_blocks", "_center", "_comparisons", "_conjunctive", "_differences", "_offsets", "_radius")

    def __init__(self, query: Query) -> None:
        network, region = query.network.unrolled(), query.sign_region
        blocks = network.dense_blocks("the unrolled network has others.")
        self._blocks: list[tuple[Array, Array]] = [
            (block.weights.astype(np.int32), block.thresholds.astype(np.int64)) for block in blocks
        ]
        self._center = np.array(region.center, dtype=np.int32)
        self._radius = region.radius if isinstance(region, HammingBall) else region.n
        self._comparisons, self._conjunctive = query.score_conditions()
        scales, biases = network.output.integer_form()
        rows = network.output.weights.tolist()
        pairs = [(i, j) for i, j, _ in self._comparisons]
        exact = [[scales[i] * a - scales[j] * b for a, b in zip(rows[i], rows[j], strict=True)] for i, j in pairs]
        largest = max((abs(v) for row in exact for v in row), default=0)
        # Python integers where scores are finer than 63 bits tell apart
        kind = np.int64 if largest * len(rows[0]) < 2**62 else object
        self._differences = np.array(exact, dtype=kind).reshape(len(pairs), len(rows[0]))
        self._offsets = [biases[i] - biases[j] for i, j in pairs]
        first = self._blocks[0][0] if self._blocks else self._differences
        self._base = first * self._center  # what each input adds at the centre

    def prove(self, free: Array) -> bool:
        """True only if no input is adversarial that differs from the centre within `free` and the radius.

        Args:
            free: Indices that may vary, distinct.
        """
        low, high = _ball_sums(self._base, free, min(self._radius, free.size))
        if self._blocks:
            low, high = self._scores(low, high)
        held = (
            int(top) + offset >= (1 if strict else 0)
            for top, offset, (_, _, strict) in zip(high, self._offsets, self._comparisons, strict=True)
        )
        # each comparison that must hold for an adversarial input is one way to exclude it
        return not all(held) if self._conjunctive else not any(held)

    def unsettled(self, free: Array) -> int:
        """How many neurons of the first block (or scores, where there is none) can come out either way."""
        low, high = _ball_sums(self._base, free, min(self._radius, free.size))
        if not self._blocks:
            return len(self._offsets)
        thresholds = self._blocks[0][1]
        return int(np.count_nonzero((low < thresholds) & (high >= thresholds)))

    def _scores(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Intervals of the score differences from those of the first block's sums."""
        for k, (_, thresholds) in enumerate(self._blocks):
            always, never = low >= thresholds, high < thresholds
            middle = always.astype(np.int64) - never
            spread = (~(always | never)).astype(np.int64)
            following = self._blocks[k + 1][0] if k + 1 < len(self._blocks) else self._differences
            center, width = following @ middle, abs(following) @ spread
            low, high = center - width, center + width
        return low, high


def _ball_sums(base: Array, free: Array, radius: int) -> tuple[Array, Array]:
    """Least and greatest sum of each row when up to `radius` of the columns `free` change their sign."""
    sums = base.sum(axis=1)
    if not free.size:
        return sums, sums
    chosen = base[:, free]
    if radius < free.size:
        chosen = np.sort(chosen, axis=1)  # the most positive columns lower the sum most, the most negative raise it
        down, up = chosen[:, -radius:] if radius else chosen[:, :0], chosen[:, :radius]
    else:
        down = up = chosen
    return sums - 2 * np.maximum(down, 0).sum(axis=1), sums - 2 * np.minimum(up, 0).sum(axis=1)
