"""Bit-flip distance: the least number of wrong cells that changes the class of an image, and who withstands how many.

Exact at any depth for dense blocks: a formula with at most one hidden block, a search over switched neurons with more
(`flipsearch.py`). A bracket where a search was cut short, or where the first blocks are convolutions: there the dense
blocks at the end give the upper bound, single cells the lower one.

Two events, never mixed: without a label the class must differ from the fault-free one (change); with a label, from the
label (error), and the distance is 0 where the fault-free class is wrong already.

References:
    Ours. The question without bounds or proof, for real-valued networks: Rakin, He & Fan, ICCV 2019 (bit-flip attack).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.domain import IntArray
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.errors import EngineError
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.flipplan import FlipPlan, Layout
from bnnverify.reliability.margins import Cell, class_with_flips
from bnnverify.results import Kind, Probability, Run, Verdict
from bnnverify.scalars import integer

_CHUNK = 512  # images laid out at once


@dataclass(frozen=True, slots=True)
class FlipDistance:
    """The least number of flipped cells after which the class of one image is not the reference class.

    Attributes:
        reference: The class to leave: the fault-free one, or the label.
        lower: No set of fewer flips does it (proved). One more than there are cells if no set does.
        upper: Size of `witness`, or None if none is known.
        witness: Cells (block, row, column) whose flips change the class; replayed on the exact network.
        predicted: Class with these flips, or None.
        run: How it was obtained.
    """

    reference: int
    lower: int
    upper: int | None
    run: Run
    witness: tuple[Cell, ...] | None = None
    predicted: int | None = None

    @property
    def kind(self) -> Kind:
        """EXACT if the bounds meet or nothing changes the class, else INTERVAL."""
        return Kind.EXACT if self.lower == self.upper or (self.upper is None and not self.run.reason) else Kind.INTERVAL

    def withstands(self, k: int) -> Verdict:
        """Whether no set of at most k flips changes the class."""
        if self.lower > k:
            return Verdict.ROBUST
        return Verdict.NOT_ROBUST if self.upper is not None and self.upper <= k else Verdict.UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "flip-distance",
            "kind": self.kind.value,
            "reference": self.reference,
            "lower": self.lower,
            "upper": self.upper,
            "witness": None if self.witness is None else [list(cell) for cell in self.witness],
            "predicted": self.predicted,
            "run": self.run.to_json(),
        }


@dataclass(frozen=True, slots=True)
class FlipRobustness:
    """Whether an image keeps its class whatever k cells flip.

    Attributes:
        verdict: ROBUST and NOT_ROBUST are proved; UNKNOWN comes with `evidence.run.reason`.
        flips: k.
        evidence: The lower bound above k, or a witness of at most k cells.
    """

    verdict: Verdict
    flips: int
    evidence: FlipDistance

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "flip-robustness",
            "verdict": self.verdict.value,
            "flips": self.flips,
            "evidence": self.evidence.to_json(),
        }


@dataclass(frozen=True, slots=True)
class FlipDistances:
    """Bit-flip distances over a data set.

    Attributes:
        per_image: In the order of the images.
        run: How they were obtained, all together.
    """

    per_image: tuple[FlipDistance, ...]
    run: Run

    @property
    def minimum(self) -> tuple[int, int | None]:
        """Bounds on the least distance of all images; equal if it is known."""
        known = [d.upper for d in self.per_image if d.upper is not None]
        return min(d.lower for d in self.per_image), min(known, default=None)

    @property
    def histogram(self) -> dict[int, int]:
        """Images at each exact distance; those with a bracket only, or that nothing changes, are left out."""
        counts = Counter(d.upper for d in self.per_image if d.upper is not None and d.upper == d.lower)
        return dict(sorted(counts.items()))

    def withstand(self, k: int) -> Probability:
        """Share of the images that keep the reference class whatever k cells flip, for each image its own k.

        Kind EXACT if every image is settled, else INTERVAL: a share of a finite set, nothing is sampled.
        """
        total = len(self.per_image)
        verdicts = Counter(d.withstands(k) for d in self.per_image)
        sure, open_ = verdicts[Verdict.ROBUST], verdicts[Verdict.UNKNOWN]
        if not open_:
            return Probability.exact(Fraction(sure, total))
        return Probability.interval(Fraction(sure, total), Fraction(sure + open_, total))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        lower, upper = self.minimum
        known = sum(d.kind is Kind.EXACT for d in self.per_image)
        return {
            "type": "flip-distances",
            "kind": (Kind.EXACT if known == len(self.per_image) else Kind.INTERVAL).value,
            "minimum": [lower, upper],
            "histogram": {str(distance): count for distance, count in self.histogram.items()},
            "lower": [d.lower for d in self.per_image],
            "upper": [d.upper for d in self.per_image],
            "run": self.run.to_json(),
        }


@about_cells
def bit_flip_distance(
    network: BinaryNetwork,
    x: ArrayLike,
    label: int | None = None,
    *,
    max_flips: int | None = None,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> FlipDistance:
    """The least number of flipped cells that changes the class of x, with the cells.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        x: An input of the domain.
        label: The class to leave; default the fault-free class. The distance is 0 where x has another class already.
        max_flips: Stop once it is proved that more flips are needed.
        limits: Wall time; reached, the answer is a bracket.
        monitor: Who may stop the search.

    Returns:
        EXACT with a replayed witness, for dense blocks without a limit; otherwise INTERVAL with the reason. EXACT
        without a witness if no set of flips changes the class.

    Raises:
        QueryError: The label does not exist, or `max_flips` is negative.
        UnsupportedError: Integer inputs without a hidden block.

    >>> from bnnverify.network import BinaryNetwork, InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create([[1, 1, 1], [1, -1, 1]]))
    >>> answer = bit_flip_distance(net, [1, 1, 1])
    >>> answer.lower, answer.upper, answer.witness  # a tie goes to class 0, so one flip is not enough
    (2, 2, ((0, 0, 0), (0, 0, 1)))
    """
    labels = None if label is None else [label]
    point = network.domain.require(x)[None]
    answers = flip_distances(network, point, labels, max_flips=max_flips, limits=limits, monitor=monitor)
    return answers.per_image[0]


@about_cells
def robust_to_flips(
    network: BinaryNetwork,
    x: ArrayLike,
    k: int,
    label: int | None = None,
    *,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> FlipRobustness:
    """Whether x keeps its class (or the label) whatever k cells flip, with evidence.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        x: An input of the domain.
        k: Flips to withstand.
        label: As in `bit_flip_distance`.
        limits: Wall time.
        monitor: Who may stop the search.

    Returns:
        ROBUST with a proved lower bound, NOT_ROBUST with a replayed witness, or UNKNOWN with the reason.

    Raises:
        QueryError: The label does not exist, or k is negative.
    """
    k = integer(k, "the number of flips", least=0)
    evidence = bit_flip_distance(network, x, label, max_flips=k, limits=limits, monitor=monitor)
    return FlipRobustness(evidence.withstands(k), k, evidence)


@about_cells
def worst_case_accuracy(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    k: int,
    *,
    limits: Limits = UNLIMITED,
    jobs: int = 1,
) -> Probability:
    """Share of the images that are right whatever k cells flip: the certified accuracy against k flips an image.

    For every image its own worst k cells, so no chip with at most k wrong cells has a lower accuracy.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Their true classes.
        k: Flips to withstand.
        limits: Wall time for all images.
        jobs: Threads.

    Returns:
        EXACT if every image is settled, else INTERVAL.
    """
    return flip_distances(network, images, labels, max_flips=k, limits=limits, jobs=jobs).withstand(k)


@about_cells
def flip_distances(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int] | None = None,
    *,
    max_flips: int | None = None,
    limits: Limits = UNLIMITED,
    image_seconds: float | None = None,
    jobs: int = 1,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> FlipDistances:
    """`bit_flip_distance` of many images.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: The classes to leave; default the fault-free ones.
        max_flips: Stop with an image once it is proved to need more flips.
        limits: Wall time for all images; the images that it does not reach get the bounds of the last blocks.
        image_seconds: Wall time for each image, s.
        jobs: Threads.
        monitor: Who may stop the search.
        progress: Called with the number of images after each step.

    Raises:
        QueryError: No images, different numbers of images and labels, a label that does not exist, or a limit that
            makes no sense.
        UnsupportedError: Integer inputs without a hidden block.
    """
    points = network.require_images(images, labels)
    if max_flips is not None:
        max_flips = integer(max_flips, "the number of flips", least=0)
    wanted = None if labels is None else np.array([network.require_class(c) for c in labels], dtype=np.int64)
    clock = Clock(limits.seconds, monitor)
    plan = FlipPlan(network)
    answers: list[FlipDistance] = []
    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(points), _CHUNK):
            part = plan.lay_out(points[start : start + _CHUNK])
            references = part.clean if wanted is None else wanted[start : start + _CHUNK]

            def answer(i: int, part: Layout = part, references: IntArray = references) -> FlipDistance:
                return _distance(plan, part, i, int(references[i]), max_flips, clock, image_seconds)

            for found in pool.map(answer, range(len(part.clean))):
                answers.append(found)
                if progress is not None:
                    progress(1)
    settled = sum(d.kind is Kind.EXACT for d in answers)
    reason = clock.reason if clock.is_over and settled < len(answers) else ""
    return FlipDistances(tuple(answers), Run(plan.method, clock.elapsed, reason, {"exact": settled}))


def _distance(
    plan: FlipPlan,
    part: Layout,
    i: int,
    reference: int,
    max_flips: int | None,
    whole: Clock,
    image_seconds: float | None,
) -> FlipDistance:
    """The distance of image `i` of a layout, its witness replayed."""
    own = Clock(image_seconds)
    if part.clean[i] != reference:
        return FlipDistance(reference, 0, 0, Run(plan.method, own.elapsed), (), int(part.clean[i]))
    found = plan.search(part, i, reference, max_flips, lambda: whole.is_over or own.is_over)
    reason = found.reason or (whole.reason if whole.is_over else own.reason if own.is_over else "")
    if found.lower == found.upper or (found.upper is None and found.lower > plan.network.n_cells):
        reason = ""
    elif max_flips is not None and found.lower > max_flips:
        reason = f"proved for {max_flips} flips, as asked"
    predicted = None
    if found.cells is not None:
        predicted = class_with_flips(plan.network, part.points[i], found.cells)
        if predicted == reference or len(found.cells) != found.upper:
            raise EngineError(
                f"{len(found.cells)} cells do not move the class off {reference}, expected {found.upper} that do. "
                "This is a bug in bnnverify; please report it with the network and the input."
            )
    run = Run(plan.method, own.elapsed, reason, found.statistics)
    return FlipDistance(reference, found.lower, found.upper, run, found.cells, predicted)
