"""Certified P(error) through several hidden blocks: condition on the earlier blocks, most likely signs first.

With a block's signs fixed, the outputs of the next block are independent again. So the signs of every hidden
block but the last are enumerated in order of probability; each vector leads to the one-hidden-block problem, and
the probability that was not explored goes into the upper bound. (Averaging marginals instead would be unsound.)

References:
    Ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnverify.reliability.laws import FloatArray


@dataclass(frozen=True, slots=True)
class SignPatterns:
    """The most likely outputs of a block with independent outputs.

    Attributes:
        signs: Shape `(patterns, m)`, int64, -1/+1, most likely first.
        masses: Their probabilities.
        missing: Probability of all other patterns, summed from what was left out.
        roundings: At most so many in any mass and in `missing`.
    """

    signs: NDArray[np.int64]
    masses: FloatArray
    missing: float
    roundings: int


def likely_patterns(
    fires: FloatArray, silent: FloatArray, *, sign_roundings: int, tolerance: float, max_patterns: int
) -> SignPatterns:
    """Sign vectors in order of probability, until at most `tolerance` is missing or `max_patterns` are kept.

    Args:
        fires: P(h_j = +1), shape `(m,)`.
        silent: P(h_j = -1), summed on its own.
        sign_roundings: Roundings in these.
        tolerance: Probability that may be left out.
        max_patterns: Patterns kept at most.
    """
    m = fires.size
    signs, masses = np.zeros((1, m), dtype=np.int64), np.ones(1)
    missing, merged = 0.0, 0
    for step, j in enumerate(np.argsort(-np.minimum(fires, silent), kind="stable")):
        signs, masses = np.concatenate([signs, signs]), np.concatenate([masses * fires[j], masses * silent[j]])
        half = masses.size // 2
        signs[:half, j], signs[half:, j] = 1, -1
        order = np.argsort(-masses, kind="stable")
        tail = np.cumsum(masses[order][::-1])[::-1]  # tail[i]: mass of what remains if the first i are kept
        allowed = tolerance * (step + 1) / m - missing
        kept = max(min(int(np.searchsorted(-tail, -allowed)), max_patterns), 1)
        if kept < masses.size:
            missing += float(tail[kept])
            merged += masses.size
        signs, masses = signs[order[:kept]], masses[order[:kept]]
    return SignPatterns(signs, masses, missing, m * (sign_roundings + 1) + merged + m)
