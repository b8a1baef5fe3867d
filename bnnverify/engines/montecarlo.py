"""Monte Carlo over faulty chips: the independent check of the certified intervals, always labelled as sampled.

Each sample of an image is a chip of its own: flips are drawn cell by cell (by skipping geometrically from flip to
flip, so the cost is that of the flips, not of the cells) and the network is evaluated with them. Shares no code
with the certified engine beyond the packed evaluation. `chipsampling` has chips that see all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.confidence import clopper_pearson
from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.chips import SharedCells
from bnnverify.engines.coding import about_cells
from bnnverify.engines.owncells import OwnCells
from bnnverify.engines.reads import independent_reads
from bnnverify.errors import ResourceLimitError, UnsupportedError
from bnnverify.faults import FaultModel, PerRead
from bnnverify.network import BinaryNetwork
from bnnverify.results import Probability, Run
from bnnverify.scalars import integer, real

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


@about_cells
def sample_errors(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.99,
    jobs: int = 1,
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> SampledErrors:
    """Error frequencies over independent faulty chips, `samples` for each image.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: an error is a chip that gives another class.
        faults: Rates of the cells. Under `PerRead` a sample is one read of every cell (of a convolution one for each
            position).
        samples: Chips for each image.
        seed: Equal seeds, equal samples; every image has its own stream.
        confidence: Level of the intervals.
        jobs: Threads; the loops run without the interpreter lock, and the samples are the same.
        seconds: Time limit, s. Chips are drawn in rounds over all images; reached, the rounds drawn so far count,
            with the reason.
        monitor: Its `stop` ends the sampling likewise.
        progress: Called with the number of chips per image after every round.

    Returns:
        Hits per image and the sampled accuracy.

    Raises:
        QueryError: No images, different numbers of images and labels, a label that does not exist, no samples or a
            negative seed.
        ResourceLimitError: The time limit was reached within the first round.
        UnsupportedError: Integer inputs without a hidden block, or what `reads.independent_reads` refuses.
    """
    points = require_samplable(network, images, labels, samples=samples, seed=seed)
    samples, seed, jobs = int(samples), int(seed), integer(jobs, "jobs", least=1)
    confidence = real(confidence, "confidence")
    clock = Clock(seconds, monitor)
    chips_of: OwnCells | SharedCells
    if network.has_convolutions and not isinstance(faults, PerRead):
        chips_of = SharedCells(network, points, faults)
    else:
        chips_of = OwnCells(*independent_reads(network, faults), points)
    hits, drawn = np.zeros(len(points), dtype=np.int64), 0

    def misses(i: int, stream: np.uint64, chips: int) -> int | None:
        return None if clock.is_over else chips_of.errors(i, int(labels[i]), stream, chips)

    with ThreadPoolExecutor(jobs) as pool:
        run_all: Callable[..., Iterable[int | None]] = map if jobs == 1 else pool.map
        while drawn < samples:
            chips = min(_ROUND, samples - drawn)
            streams = np.random.SeedSequence([seed, drawn]).generate_state(len(points), dtype=np.uint64)
            found = list(run_all(misses, range(len(points)), streams, repeat(chips)))
            if None in found:  # a round that the clock cut off does not count
                break
            hits += np.array(found)
            drawn += chips
            if progress is not None:
                progress(chips)
    if not drawn:
        raise ResourceLimitError(f"{clock.reason} before every image had its first chips. Allow more time.")
    reason = "" if drawn == samples else f"{clock.reason}; {drawn} of {samples} chips for each image"
    errors = clopper_pearson(int(hits.sum()), drawn * len(points), confidence=confidence)
    run = Run("montecarlo", clock.elapsed, reason, {"seed": seed})
    return SampledErrors(faults, drawn, tuple(int(h) for h in hits), errors.complement(), confidence, run)


def require_readable(network: BinaryNetwork, faults: FaultModel) -> None:
    """UnsupportedError if the faults of these cells are not sampled image by image (see `reads.independent_reads`)."""
    if isinstance(faults, PerRead):
        independent_reads(network, faults)


def require_samplable(
    network: BinaryNetwork, images: ArrayLike, labels: Sequence[int], *, samples: int, seed: int
) -> NDArray[np.int64]:
    """The images as points of the domain.

    Raises:
        QueryError: No images, different numbers of images and labels, a label that does not exist, no samples or a
            negative seed.
        UnsupportedError: Integer inputs without a hidden block.
    """
    points = network.require_images(images, labels)
    integer(samples, "samples", least=1)
    integer(seed, "seed", least=0)
    for label in labels:
        network.require_class(label)
    if not network.blocks and not network.domain.is_binary:
        raise UnsupportedError("the network has integer inputs and no hidden block; expected at least one.")
    return points
