"""Monte Carlo over faulty chips: the independent check of the certified intervals, always labelled as sampled.

Each sample of an image is a chip of its own: flips are drawn cell by cell (by skipping geometrically from flip to
flip, so the cost is that of the flips, not of the cells) and the network is evaluated with them. Shares no code
with the certified engine beyond the packed evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from bnnverify.confidence import clopper_pearson
from bnnverify.engines.base import Clock
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork
from bnnverify.packing import argmax_first, pack_signs, popcount, score_ranks
from bnnverify.results import Probability, Run

_ROUND = 250  # chips for each image between two looks at the clock; part of how seeds map to chips
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class SampledErrors:
    """Sampled error frequencies.

    Attributes:
        faults: The fault model.
        samples: Chips drawn for each image.
        hits: Errors of each image, shape `(N,)`.
        accuracy: Mean of 1 - P(error) over the images, kind SAMPLED.
        confidence: Level of all intervals.
        run: Time.
    """

    faults: FaultModel
    samples: int
    hits: tuple[int, ...]
    accuracy: Probability
    confidence: float
    run: Run

    def image(self, index: int) -> Probability:
        """P(error) of one image, with its own Clopper-Pearson interval."""
        return clopper_pearson(self.hits[index], self.samples, confidence=self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "sampled-accuracy",
            "faults": self.faults.to_json(),
            "accuracy": self.accuracy.to_json(),
            "samples_per_image": self.samples,
            "hits": list(self.hits),
            "run": self.run.to_json(),
        }


@njit(cache=True)
def _next(state):  # type: ignore[no-untyped-def]
    """SplitMix64: the next 64 random bits; `state` is an array of one word."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _gap(state, log_keep):  # type: ignore[no-untyped-def]
    """Cells skipped before the next flip: geometric. `log_keep` = log(1 - rate), 1 for rate 0 (never)."""
    if log_keep == 1.0:
        return np.int64(2**62)
    if log_keep == -np.inf:
        return np.int64(0)
    uniform = (np.float64(_next(state) >> np.uint64(11)) + 0.5) * 2.0**-53
    skipped = np.log(uniform) / log_keep
    return np.int64(min(skipped, 2.0**61))


@njit(cache=True, nogil=True)
def _sample(  # type: ignore[no-untyped-def]
    x,
    base,
    neurons,
    words,
    weights,
    mask,
    cells,
    cell_start,
    signs_of,
    log_keeps,
    thresholds,
    ranks,
    seed,
    samples,
    label,
):
    """Errors in `samples` chips for one image whose first-block sums are `base`."""
    state = np.zeros(1, dtype=np.uint64)
    state[0] = seed
    blocks = neurons.shape[0]
    width = neurons.max()
    h = np.zeros(max(width, x.shape[0]), dtype=np.int64)
    sums = np.zeros(width, dtype=np.int64)
    bits = np.zeros(max((width + 63) // 64, 1), dtype=np.uint64)
    out = np.zeros(neurons[blocks - 1], dtype=np.int32)
    errors = 0
    for _ in range(samples):
        for i in range(x.shape[0]):
            h[i] = x[i]
        offset, threshold_start = 0, 0
        for b in range(blocks):
            count = neurons[b]
            if b == 0:
                for j in range(count):
                    sums[j] = base[j]
            else:
                for j in range(count):
                    differ = np.int64(0)
                    present = np.int64(0)
                    for w in range(words[b]):
                        at = offset + j * words[b] + w
                        present += np.int64(popcount(mask[at]))  # type: ignore[call-arg]
                        differ += np.int64(popcount((bits[w] ^ weights[at]) & mask[at]))
                    sums[j] = present - 2 * differ
                offset += count * words[b]
            for group in range(2):  # cells stored +1, then cells stored -1
                start, end = cell_start[b, group], cell_start[b, group + 1]
                cell = start + _gap(state, log_keeps[b, group])
                while cell < end:
                    j, i = cells[cell, 0], cells[cell, 1]
                    sums[j] -= 2 * signs_of[cell] * h[i]
                    cell += 1 + _gap(state, log_keeps[b, group])
            if b + 1 < blocks:
                for w in range((count + 63) // 64):
                    bits[w] = np.uint64(0)
                for j in range(count):
                    fires = sums[j] >= thresholds[threshold_start + j]
                    h[j] = 1 if fires else -1
                    bits[j // 64] |= np.uint64(fires) << np.uint64(j % 64)
                threshold_start += count
            else:
                for k in range(count):
                    out[k] = ranks[k, sums[k] + ranks.shape[1] // 2]
        if argmax_first(out) != label:
            errors += 1
    return errors


def _sum_ranks(network: BinaryNetwork) -> NDArray[np.int32]:
    """`score_ranks` by the sum itself: ``ranks[k, sum + n]``; sums of the wrong parity are never asked for."""
    output = network.output
    n = output.n_inputs
    by_disagreement = score_ranks(output)
    present = np.count_nonzero(output.weights, axis=1)
    table = np.zeros((output.n_classes, 2 * n + 1), dtype=np.int32)
    for k in range(output.n_classes):
        for d in range(int(present[k]) + 1):
            table[k, int(present[k]) - 2 * d + n] = by_disagreement[k, d]
    return table


def _cells(network: BinaryNetwork, faults: FaultModel) -> tuple[NDArray[Any], ...]:
    """All cells, grouped by block and stored sign: (row, column), signs, group starts, and log(1 - rate)."""
    places, signs, starts, logs = [], [], [], []
    total = 0
    for b, block in enumerate(network.all_blocks):
        rates = faults.rates(b)
        row_starts = [total]
        for sign in (1, -1):
            found = np.argwhere(block.stored == sign)
            places.append(found)
            signs.append(block.weights[found[:, 0], found[:, 1]].astype(np.int64))
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


def sample_errors(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.99,
    seconds: float | None = None,
    progress: Callable[[int], Any] | None = None,
) -> SampledErrors:
    """Error frequencies over independent faulty chips, `samples` for each image.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: an error is a chip that gives another class.
        faults: Rates of the cells; permanent faults.
        samples: Chips for each image.
        seed: Equal seeds, equal samples; every image has its own stream.
        confidence: Level of the intervals.
        seconds: Time limit, s. Chips are drawn in rounds over all images; reached, the rounds drawn so far count,
            with the reason.
        progress: Called with the number of chips per image after every round.

    Returns:
        Hits per image and the sampled accuracy.

    Raises:
        QueryError: No images, different numbers of images and labels, a label that does not exist, no samples or a
            negative seed.
        ResourceLimitError: The time limit was reached within the first round.
    """
    points = network.domain.require_batch(images)
    if len(points) != len(labels) or not len(points):
        raise QueryError(f"{len(points)} images came with {len(labels)} labels, expected equally many, at least one.")
    if samples < 1:
        raise QueryError(f"samples is {samples}, expected at least 1.")
    if seed < 0:
        raise QueryError(f"seed is {seed}, expected 0 or more.")
    for label in labels:
        network.require_class(label)
    if not network.blocks and not network.domain.is_binary:
        raise UnsupportedError("the network has integer inputs and no hidden block; expected at least one.")
    clock = Clock(seconds)
    blocks = network.all_blocks
    first, later = blocks[0], blocks[1:]
    neurons = np.array([b.weights.shape[0] for b in blocks], dtype=np.int64)
    words = np.array([-(-b.n_inputs // 64) for b in blocks], dtype=np.int64)
    empty = [np.zeros(0, dtype=np.uint64)]
    weights = np.concatenate([pack_signs(b.weights).ravel() for b in later] or empty)
    mask = np.concatenate([pack_signs(np.abs(b.weights)).ravel() for b in later] or empty)
    places, signs, starts, logs = _cells(network, faults)
    thresholds = np.concatenate([b.thresholds for b in network.blocks] or [np.zeros(0, dtype=np.int64)])
    ranks = _sum_ranks(network)
    bases = points @ first.weights.T.astype(np.int64)
    hits, drawn = np.zeros(len(points), dtype=np.int64), 0
    while drawn < samples:
        chips = min(_ROUND, samples - drawn)
        streams = np.random.SeedSequence([seed, drawn]).generate_state(len(points), dtype=np.uint64)
        found = np.zeros_like(hits)
        for i, label in enumerate(labels):
            if clock.is_over:
                break
            found[i] = _sample(
                points[i],
                bases[i],
                neurons,
                words,
                weights,
                mask,
                places,
                starts,
                signs,
                logs,
                thresholds,
                ranks,
                streams[i],
                chips,
                int(label),
            )
        else:  # a round that the clock cut off does not count
            hits += found
            drawn += chips
            if progress is not None:
                progress(chips)
            continue
        break
    if not drawn:
        raise ResourceLimitError(f"{clock.reason} before every image had its first chips. Allow more time.")
    reason = "" if drawn == samples else f"{clock.reason}; {drawn} of {samples} chips for each image"
    errors = clopper_pearson(int(hits.sum()), drawn * len(points), confidence=confidence)
    run = Run("montecarlo", clock.elapsed, reason, {"seed": seed})
    return SampledErrors(faults, drawn, tuple(int(h) for h in hits), errors.complement(), confidence, run)
