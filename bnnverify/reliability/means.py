"""Fault enumerators of data sets: numbers of flip sets with an event, as means over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike

from bnnverify.domain import IntArray
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.coefficients import CoefficientCounter
from bnnverify.reliability.enumerators import PartialEnumerator
from bnnverify.reliability.exact import fault_enumerator
from bnnverify.results import Run

Progress = Callable[[int], Any]
Counter = Callable[[IntArray, int], tuple[int, ...]]  # of (x, label): A_0, A_1, ...


@about_cells
def mean_coefficients(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int] | None = None,
    *,
    order: int | None = 3,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    progress: Progress | None = None,
) -> PartialEnumerator:
    """The mean of `fault_coefficients` over images: what they prove about the expected accuracy at every rate.

    ``1 - probability(p)`` is the expected accuracy over the images, and ``1 - at_most(p)`` a bound for all rates up
    to p.

    Args:
        network: Any network; one with integer inputs needs a hidden block.
        images: Shape `(N, n)`, inputs of the domain.
        labels: True classes (error); default the fault-free ones (change).
        order: Greatest number of flips; None for all of them, for networks that `fault_enumerator` serves.
        limits: Wall time; reached, the sizes stay that are counted for all images, with the reason.
        monitor: Who may stop it.
        progress: Called with 1 whenever all that was asked of an image is there.

    Raises:
        QueryError: No images, different numbers of images and labels, or the order is negative.
        UnsupportedError: Integer inputs without a hidden block; or all sizes of a network with convolutions or with a
            hidden block of more than 16 neurons.
    """
    points = network.require_images(images, labels)
    classes = network.evaluate_batch(points).tolist()
    truth = classes if labels is None else [network.require_class(label) for label in labels]
    clock, reason, most = Clock(limits.seconds, monitor), "", network.n_cells
    counters: list[Counter] = [lambda x, label: fault_enumerator(network, x, label).counts]
    if order is not None:
        counter = CoefficientCounter(network, order)
        most, reason = counter.order, counter.reason
        is_limited = clock.limit is not None or monitor is not None
        orders = range(1, most + 1) if is_limited else [most]  # with a limit, what was finished stays
        counters = [_counts(CoefficientCounter(network, k), clock if is_limited else None) for k in orders]
    means: tuple[Fraction, ...] = (Fraction(sum(a != b for a, b in zip(classes, truth, strict=True)), len(points)),)
    for counts in counters:
        found = _means(counts, points, truth, clock, progress if counts is counters[-1] else None)
        if found is None:
            reason = f"{clock.reason}; {len(means) - 1} of {most} orders"
            break
        means = found
    return PartialEnumerator(means, network.n_cells, Run("fault-coefficients", clock.elapsed, reason))


def _counts(counter: CoefficientCounter, clock: Clock | None) -> Counter:
    return lambda x, label: tuple(int(a) for a in counter.count(x, label, clock).counts)


def _means(
    counts: Counter, points: IntArray, truth: Sequence[int], clock: Clock, progress: Progress | None
) -> tuple[Fraction, ...] | None:
    """The means over all images, or None if the clock was over before the last one."""
    totals: list[int] = []
    for x, label in zip(points, truth, strict=True):
        found = () if clock.is_over else counts(x, label)
        if clock.is_over:  # perhaps within this image
            return None
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else list(found)
        if progress is not None:
            progress(1)
    return tuple(Fraction(total, len(points)) for total in totals)
