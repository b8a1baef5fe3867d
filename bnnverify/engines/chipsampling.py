"""Monte Carlo over whole chips: one draw of all faults, accuracy over all images; always labelled as sampled.

Chips are independent, images on one chip are not. So intervals count chips: for the mean accuracy, for the share of
chips that reach an accuracy (yield), and for each image the share of chips that get it wrong. Where only the mean
matters, `montecarlo.sample_errors` narrows it faster: there every image has chips of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.confidence import clopper_pearson, mean_interval
from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.engines.flips import chip_seeds
from bnnverify.engines.montecarlo import require_samplable
from bnnverify.engines.wholechips import BATCH, Chips, whole_chips
from bnnverify.errors import QueryError, ResourceLimitError
from bnnverify.faults import FaultModel, rate
from bnnverify.network import BinaryNetwork
from bnnverify.results import Kind, Probability, Run
from bnnverify.scalars import integer, real

_GRID = 2**60  # ends of the mean are rounded outward to multiples of 1 / this


@dataclass(frozen=True, slots=True)
class SampledChips:
    """Chips 0, 1, ... of a seed, and what they get right.

    Attributes:
        faults: The fault model.
        seed: Of the sequence of chips.
        correct: Images that each chip gets right.
        errors: Chips that get each image wrong, shape `(N,)`.
        accuracy: Mean accuracy over all chips, kind SAMPLED; valid at every number of chips at once, so that one may
            stop when it is narrow enough. `samples` counts answers (chips times images), the interval counts chips.
        confidence: Level of all intervals.
        run: Time.
    """

    faults: FaultModel
    seed: int
    correct: tuple[int, ...]
    errors: tuple[int, ...]
    accuracy: Probability
    confidence: float
    run: Run

    @classmethod
    def of_counts(
        cls,
        faults: FaultModel,
        seed: int,
        correct: Sequence[int],
        errors: Sequence[int],
        *,
        confidence: float,
        run: Run,
    ) -> SampledChips:
        """From the counts of at least one chip; see the attributes."""
        low, high = mean_interval(np.array(correct) / len(errors), confidence=confidence)
        lower, upper = Fraction(int(low * _GRID) - 1, _GRID), Fraction(int(high * _GRID) + 2, _GRID)
        bounds = max(lower, Fraction(0)), min(upper, Fraction(1))
        accuracy = Probability(Kind.SAMPLED, *bounds, confidence, len(correct) * len(errors), sum(correct))
        return cls(faults, seed, tuple(correct), tuple(errors), accuracy, confidence, run)

    @property
    def chips(self) -> int:
        """Chips drawn."""
        return len(self.correct)

    @property
    def images(self) -> int:
        """Images that each chip saw."""
        return len(self.errors)

    def chip_seed(self, chip: int) -> int:
        """The seed from which `engines.flips.faulty_network` builds this chip again."""
        if not 0 <= chip < self.chips:
            raise QueryError(f"chip {chip} was not drawn, expected 0 to {self.chips - 1}.")
        return int(chip_seeds(self.seed, chip, 1)[0])

    def image(self, index: int) -> Probability:
        """P(error) of one image, with its Clopper-Pearson interval."""
        return clopper_pearson(self.errors[index], self.chips, confidence=self.confidence)

    def yield_at(self, threshold: Any) -> Probability:
        """Share of chips whose accuracy on these images is at least `threshold`, with its Clopper-Pearson interval.

        Raises:
            QueryError: The threshold is not within [0, 1].
        """
        least = rate(threshold, "threshold") * self.images
        good = sum(correct >= least for correct in self.correct)
        return clopper_pearson(good, self.chips, confidence=self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "sampled-chips",
            "faults": self.faults.to_json(),
            "seed": self.seed,
            "accuracy": self.accuracy.to_json(),
            "correct": list(self.correct),
            "errors": list(self.errors),
            "run": self.run.to_json(),
        }


@about_cells
def sample_chips(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    chips: int = 1000,
    seed: int = 0,
    confidence: float = 0.99,
    before: SampledChips | None = None,
    jobs: int = 1,
    device: str | None = None,
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> SampledChips:
    """Accuracies of whole chips: every chip is one draw of all faults and sees all images.

    Under `PerRead` a chip is one pass over the images: permanent faults are drawn once, those of reading anew for every
    image.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the true labels (event *error*) or the fault-free classes (event *change*).
        faults: Rates of the cells.
        chips: How many chips there are to be in the end.
        seed: Equal seeds, equal chips, whatever `jobs` and `device` are, and however often one stops and goes on.
        confidence: Level of the intervals.
        before: Chips drawn earlier, with the same question and seed: the first ones of these.
        jobs: Threads; the loops run without the interpreter lock.
        device: None for the loops of this package, or a device of torch such as ``cuda`` or ``cpu``. Same answers.
        seconds: Time limit, s. Reached, the chips drawn so far count, with the reason.
        monitor: Its `stop` ends the sampling likewise.
        progress: Called with the number of further chips after every batch.

    Returns:
        Images right per chip, chips wrong per image, and the mean accuracy.

    Raises:
        QueryError: As `montecarlo.sample_errors`; `before` belongs to other chips; or jobs is not positive.
        ResourceLimitError: The time limit was reached before the first chips.
        UnsupportedError: No such device, or torch is not installed.
    """
    points = require_samplable(network, images, labels, samples=chips, seed=seed)
    chips, seed, jobs = int(chips), int(seed), integer(jobs, "jobs", least=1)
    confidence = real(confidence, "confidence")
    clock, truth = Clock(seconds, monitor), np.asarray(labels, dtype=np.int64)
    correct, errors = _begun(before, len(points), faults, seed)
    wafer = _prepared(network, points, truth, faults, device)
    for wrong, missed in _batches(wafer, seed, len(correct), chips, jobs, clock):
        correct += (len(points) - wrong).tolist()
        errors += missed
        if progress is not None:
            progress(len(wrong))
    if not correct:
        raise ResourceLimitError(f"{clock.reason} before the first chips. Allow more time.")
    reason = "" if len(correct) >= chips else f"{clock.reason}; {len(correct)} of {chips} chips"
    run = Run("montecarlo", clock.elapsed, reason, {"seed": seed, "chips": len(correct), "device": device or "loops"})
    return SampledChips.of_counts(faults, seed, correct, errors.tolist(), confidence=confidence, run=run)


def _begun(
    before: SampledChips | None, images: int, faults: FaultModel, seed: int
) -> tuple[list[int], NDArray[np.int64]]:
    """What is known of the chips drawn earlier."""
    if before is None:
        return [], np.zeros(images, dtype=np.int64)
    if (before.images, before.seed, before.faults) != (images, seed, faults):
        raise QueryError(
            f"the chips drawn before have {before.images} images and seed {before.seed}, expected {images}, {seed} and "
            "the same fault model. Draw them anew."
        )
    return list(before.correct), np.array(before.errors, dtype=np.int64)


def _prepared(
    network: BinaryNetwork, points: NDArray[np.int64], labels: NDArray[np.int64], faults: FaultModel, device: str | None
) -> Chips:
    if device is None:
        return whole_chips(network, points, labels, faults)
    from bnnverify.engines.gpu import TorchChips

    return TorchChips(network, points, labels, faults, device=device)


def _batches(
    wafer: Chips, seed: int, first: int, chips: int, jobs: int, clock: Clock
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What `Chips.wrong` says of the chips from `first` on, batch by batch, until the time is over."""
    starts = range(first, chips, BATCH)

    def batch(start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        if clock.is_over:
            return None
        return wafer.wrong(chip_seeds(seed, start, min(BATCH, chips - start)))

    if jobs == 1:
        for start in starts:
            if (found := batch(start)) is None:
                return
            yield found
        return
    with ThreadPoolExecutor(jobs) as pool:
        window = 4 * jobs  # batches under way
        waiting = [pool.submit(batch, start) for start in starts[:window]]
        try:
            for i in range(len(starts)):
                found = waiting.pop(0).result()
                if found is None:
                    return
                if i + window < len(starts):
                    waiting.append(pool.submit(batch, starts[i + window]))
                yield found
        finally:
            for future in waiting:
                future.cancel()
