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
from bnnverify.engines.chips import SharedCells
from bnnverify.engines.flips import cells_by_sign, gap
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.faults import FaultModel
from bnnverify.network import BinaryNetwork
from bnnverify.packing import argmax_first, pack_signs, popcount, score_ranks
from bnnverify.results import Probability, Run

_ROUND = 250  # chips for each image between two looks at the clock; part of how seeds map to chips


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
                cell = start + gap(state, log_keeps[b, group])
                while cell < end:
                    j, i = cells[cell, 0], cells[cell, 1]
                    sums[j] -= 2 * signs_of[cell] * h[i]
                    cell += 1 + gap(state, log_keeps[b, group])
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


class _OwnCells:
    """Chips of a network of dense blocks, where every neuron has cells of its own."""

    def __init__(self, network: BinaryNetwork, points: NDArray[np.int64], faults: FaultModel) -> None:
        blocks = network.all_blocks
        first, later = blocks[0], blocks[1:]
        neurons = np.array([b.weights.shape[0] for b in blocks], dtype=np.int64)
        words = np.array([-(-b.n_inputs // 64) for b in blocks], dtype=np.int64)
        empty = [np.zeros(0, dtype=np.uint64)]
        weights = np.concatenate([pack_signs(b.weights).ravel() for b in later] or empty)
        mask = np.concatenate([pack_signs(np.abs(b.weights)).ravel() for b in later] or empty)
        places, signs, starts, logs = cells_by_sign(network, faults)
        thresholds = np.concatenate([b.thresholds for b in network.blocks] or [np.zeros(0, dtype=np.int64)])
        self._loops = (neurons, words, weights, mask, places, starts, signs, logs, thresholds, _sum_ranks(network))
        self._points = points
        self._bases = points @ first.weights.T.astype(np.int64)

    def errors(self, index: int, label: int, seed: np.uint64, chips: int) -> int:
        """Chips that do not give image `index` the class `label`."""
        return int(_sample(self._points[index], self._bases[index], *self._loops, seed, chips, label))


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
    chips_of: _OwnCells | SharedCells
    chips_of = SharedCells(network, points, faults) if network.has_convolutions else _OwnCells(network, points, faults)
    hits, drawn = np.zeros(len(points), dtype=np.int64), 0
    while drawn < samples:
        chips = min(_ROUND, samples - drawn)
        streams = np.random.SeedSequence([seed, drawn]).generate_state(len(points), dtype=np.uint64)
        found = np.zeros_like(hits)
        for i, label in enumerate(labels):
            if clock.is_over:
                break
            found[i] = chips_of.errors(i, int(label), streams[i], chips)
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
