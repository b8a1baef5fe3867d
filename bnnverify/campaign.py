"""Long questions in many small answers: each is kept in a file as soon as it is there, and never asked again.

A `Store` is an append-only file of JSON lines. Every line carries the id of its question: a sha256 over everything that
determines the truth (the network with the signs of its cells, the input, the right class, the event, the fault model)
and over the versions of the format and of this package. So lines of different machines may be put into one file with
``cat``, a rerun takes from it what it knows, and two bounds on one question count together: both are proved.

References:
    Tasks with strong ids and mergeable results: C. Gidney, "Stim", Quantum 5, 2021, and its sampler sinter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.chipsampling import SampledChips, sample_chips
from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError
from bnnverify.faults import FaultModel
from bnnverify.fields import Fields
from bnnverify.files import LineFile
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.accuracy import UNDECIDED, AccuracyPoint, image_errors, mean_accuracy
from bnnverify.reliability.probability import DEFAULT_MAX_STATES, DEFAULT_TOLERANCE
from bnnverify.reliability.rounding import float_below
from bnnverify.reliability.unfinished import unfinished
from bnnverify.results import Kind, Probability, Run, fraction_of, fraction_text

FORMAT, VERSION = "bnnverify campaign", 1
EVENTS = ("error", "change")
_SHORT = 400  # characters of a fault model that a line repeats


class Store:
    """What is known so far, in memory and, where a path is given, in a file.

    Args:
        path: The file; it is made if it does not exist. None keeps everything in memory only.

    Raises:
        FormatError: The file cannot be read or written, or holds something else. A last line that was cut off by a
            power failure is dropped.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._bounds: dict[str, Probability] = {}
        self._complete: dict[str, set[tuple[float, int]]] = {}
        self._chips: dict[str, dict[int, tuple[list[int], list[int]]]] = {}
        self._file = LineFile(path, FORMAT, VERSION, "line of a campaign", self._take)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what is in memory stays."""
        self._file.close()

    def __len__(self) -> int:
        """Questions about images with an answer."""
        return len(self._bounds)

    def bounds(self, question: str) -> Probability | None:
        """The tightest bounds known."""
        return self._bounds.get(question)

    def settles(self, question: str, tolerance: float, max_states: int) -> bool:
        """True if asking again would bring nothing: narrow enough, or already worked at as hard."""
        known = self._bounds.get(question)
        if known is None:
            return False
        done = self._complete.get(question, ())
        return known.width <= Fraction(tolerance) or any(w <= tolerance and n >= max_states for w, n in done)

    def add_bounds(
        self,
        question: str,
        found: Probability,
        *,
        tolerance: float,
        max_states: int,
        is_complete: bool,
        about: Mapping[str, Any] | None = None,
    ) -> Probability:
        """Keep proved bounds; returns what all bounds on this question prove together.

        Args:
            question: Its id.
            found: Exact or an interval, which is rounded outward to float64.
            tolerance: What was asked for.
            max_states: Likewise.
            is_complete: False if a time limit may have cut the work off.
            about: For whoever reads the file.
        """
        line = {
            "type": "bounds",
            "id": question,
            **_written(found),
            "tolerance": tolerance,
            "max_states": max_states,
            "complete": is_complete,
            **(about or {}),
        }
        self._take(line)
        self._file.append(line)
        return self._bounds[question]

    def chips(self, question: str) -> tuple[list[int], list[int]] | None:
        """Images right per chip and chips wrong per image, over all chips from 0 on that are known without a gap."""
        parts = self._chips.get(question, {})
        correct: list[int] = []
        errors: Any = 0
        while len(correct) in parts:
            more, wrong = parts[len(correct)]
            correct, errors = correct + more, errors + np.array(wrong)
        return (correct, errors.tolist()) if correct else None

    def add_chips(self, question: str, first: int, correct: Sequence[int], errors: Sequence[int]) -> None:
        """Keep some chips: images right on each of them, and how many of them are wrong on each image."""
        numbers = {"first": first, "correct": list(correct), "errors": list(errors)}
        line = {"type": "chips", "id": question, **numbers}
        self._take(line)
        self._file.append(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        fields = Fields(line)
        question = fields.text("id")
        if fields.text("type") == "chips":
            self._take_chips(question, fields)
            return
        found = _read(fields)
        tolerance, max_states, is_complete = (
            fields.real("tolerance"),
            fields.whole("max_states"),
            fields.flag("complete"),
        )
        self._bounds[question] = both(self._bounds.get(question), found)
        if is_complete:
            self._complete.setdefault(question, set()).add((tolerance, max_states))

    def _take_chips(self, question: str, fields: Fields) -> None:
        """Keep the counts of some chips; QueryError if they do not add up, or contradict others."""
        parts = self._chips.setdefault(question, {})
        first, errors = fields.whole("first"), list(fields.wholes("errors"))
        correct = list(fields.wholes("correct", 0, len(errors)))
        if max(errors, default=0) > len(correct) or sum(correct) + sum(errors) != len(correct) * len(errors):
            raise QueryError(
                f"{sum(correct)} right and {sum(errors)} wrong answers of {len(correct)} chips on {len(errors)} images "
                "do not add up: the line was changed."
            )
        for other, (known, wrong) in parts.items():
            start = max(first, other)
            stop = max(start, min(first + len(correct), other + len(known)))
            mine = correct[start - first : stop - first]
            if len(wrong) != len(errors) or known[start - other : stop - other] != mine:
                raise QueryError("two counts of the same chips contradict each other: one of them was changed.")
        if first not in parts or len(parts[first][0]) < len(correct):
            parts[first] = correct, errors


def both(one: Probability | None, other: Probability) -> Probability:
    """What two proved bounds on one probability prove together.

    Raises:
        QueryError: They contradict each other.
    """
    if one is None:
        return other
    lower, upper = max(one.lower, other.lower), min(one.upper, other.upper)
    if lower > upper:
        raise QueryError("two bounds on one probability contradict each other: one of them was changed, or is wrong.")
    is_exact = Kind.EXACT in (one.kind, other.kind)
    return Probability.exact(lower) if is_exact else Probability.interval(lower, upper)


def _written(found: Probability) -> dict[str, Any]:
    if found.kind not in (Kind.EXACT, Kind.INTERVAL):
        raise QueryError(f"the probability is {found.kind.value}, expected proved bounds.")
    if found.kind is Kind.EXACT:
        return {"kind": "exact", "lower": fraction_text(found.lower), "upper": fraction_text(found.upper)}
    return {"kind": "interval", "lower": float_below(found.lower), "upper": -float_below(-found.upper)}


def _read(fields: Fields) -> Probability:
    kind = Kind(fields.text("kind"))
    if kind is Kind.EXACT:
        return Probability(kind, fraction_of(fields.text("lower")), fraction_of(fields.text("upper")))
    return Probability(kind, Fraction(fields.real("lower", 0, 1)), Fraction(fields.real("upper", 0, 1)))


@about_cells
def question_id(network: BinaryNetwork, x: ArrayLike, label: int, faults: FaultModel, *, event: str) -> str:
    """The id of "what is the probability that the class of x is not `label`?"."""
    return next(_ids(network, np.asarray(x)[None], [label], faults, event))


def _ids(network: BinaryNetwork, points: Any, labels: Sequence[int], faults: FaultModel, event: str) -> Iterator[str]:
    shared = _digest(_about(network, faults, event))
    for x, label in zip(points, labels, strict=True):
        digest = shared.copy()
        digest.update(b"image %d " % int(label) + np.ascontiguousarray(x, dtype="<i8").tobytes())
        yield digest.hexdigest()


def _about(network: BinaryNetwork, faults: FaultModel, event: str) -> dict[str, Any]:
    if event not in EVENTS:
        raise QueryError(f"event is {event!r}, expected 'error' (against the label) or 'change' (fault-free class).")
    versions = {"format": VERSION, "bnnverify": metadata.version("bnnverify")}
    return {"network": network.cells_identity, "faults": faults.to_json(), "event": event, **versions}


def _digest(about: Mapping[str, Any]) -> Any:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + b"\n")


@about_cells
def certified_accuracy(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    store: Store,
    event: str = "error",
    indices: Sequence[int] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    jobs: int = 1,
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> AccuracyPoint:
    """As `reliability.expected_accuracy`, asking only what `store` does not know, and keeping every answer there.

    Args:
        network: As there.
        images: As there.
        labels: As there: the true labels for event ``error``, the fault-free classes for ``change``.
        faults: As there.
        store: Takes every image's bounds as soon as they are final.
        event: Part of the ids, so that the two never mix.
        indices: How the file names the images; by default their places here.
        tolerance: As there. Known bounds count if they are as narrow, or were worked at as hard.
        max_states: As there.
        jobs: As there.
        seconds: As there.
        monitor: Its `stop` ends the work after the images under way; the others count as [0, 1], or what is known.
        progress: Called with 1 for every image, known ones first.

    Returns:
        The accuracy; `run.statistics["known"]` counts the images that were known before.
    """
    points, clock = network.require_images(images, labels), Clock(seconds, monitor)
    ids = list(_ids(network, points, labels, faults, event))
    missing = [i for i, question in enumerate(ids) if not store.settles(question, tolerance, max_states)]
    known = len(ids) - len(missing)
    if progress is not None and known:
        progress(known)
    names = list(range(len(points))) if indices is None else list(indices)
    model = faults.to_json()
    shown = {"faults": model} if len(json.dumps(model)) <= _SHORT else {}
    options: dict[str, Any] = {"tolerance": tolerance, "max_states": max_states}
    left = set(missing)
    if missing:
        stream = image_errors(network, points, labels, faults, indices=missing, jobs=jobs, seconds=seconds, **options)
        for i, found in stream:
            about = {"event": event, "index": names[i], "label": int(labels[i]), **shown}
            store.add_bounds(ids[i], found, **options, is_complete=seconds is None, about=about)
            left.discard(i)
            if progress is not None:
                progress(1)
            if monitor is not None and monitor.stop:
                break
    per_image = tuple(UNDECIDED if (b := store.bounds(question)) is None else b for question in ids)
    stopped = bool(missing) and clock.is_over  # where all was known, nothing was cut short
    reason = unfinished(clock.reason, per_image, tolerance, len(left)) if stopped else ""
    run = Run("convolution", clock.elapsed, reason, {"known": known})
    return AccuracyPoint(faults, mean_accuracy(per_image), per_image, run)


@about_cells
def sampled_chips(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    faults: FaultModel,
    *,
    store: Store,
    event: str = "error",
    chips: int = 1000,
    seed: int = 0,
    confidence: float = 0.99,
    **options: Any,
) -> SampledChips:
    """As `engines.chipsampling.sample_chips`, going on from the chips that `store` has, and keeping the new ones there.

    The same chips as in one run; more than `chips` if more are known.
    """
    points = network.domain.require_batch(images)
    digest = _digest(_about(network, faults, event))
    digest.update(b"chips %d " % seed + np.array(labels, dtype="<i8").tobytes() + points.astype("<i8").tobytes())
    question, before = digest.hexdigest(), None
    if (known := store.chips(question)) is not None:
        run = Run("montecarlo", 0.0, "", {"seed": seed, "chips": len(known[0])})
        before = SampledChips.of_counts(faults, seed, *known, confidence=confidence, run=run)
        if before.chips >= chips:
            return before
    done = sample_chips(
        network, points, labels, faults, chips=chips, seed=seed, confidence=confidence, before=before, **options
    )
    first = 0 if before is None else before.chips
    old = np.zeros(len(points), dtype=np.int64) if before is None else np.array(before.errors)
    if done.chips > first:
        store.add_chips(question, first, done.correct[first:], (np.array(done.errors) - old).tolist())
    return done
