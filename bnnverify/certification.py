"""Robust accuracy: every image of a data set at several sizes of perturbation, kept in a file and never asked twice.

An image is robust at a size if its true class (or the network's own) wins in the whole region around it. Sizes are
asked in order, smallest first: a counterexample of one region is tried in the next before anything else, so that
larger sizes cost little. A `VerdictStore` is an append-only file of JSON lines, one per verdict, whose id is the
identity of the query: files of several machines may be put together with ``cat``.

References:
    Robust accuracy as certified accuracy: Wong & Kolter, ICML 2018; Jia & Rinard, NeurIPS 2020, Table 2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from typing import Any

from bnnverify.engines.base import UNLIMITED, Limits, Monitor, replayed
from bnnverify.errors import FormatError, QueryError
from bnnverify.fields import Fields
from bnnverify.files import LineFile
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import AnyRegion
from bnnverify.results import Decision, Run, Verdict, answer_from_json
from bnnverify.robustness import decide

FORMAT, VERSION = "bnnverify verdicts", 1
CARRIED = "carried over"  # engine of a counterexample that a smaller region gave


@dataclass(frozen=True, slots=True)
class Asked:
    """One verdict about one image.

    Attributes:
        image: Its number, as the caller counts.
        label: The class to keep.
        size: The size of the region, as text.
        identity: Of the query.
        decision: The verdict.
        is_new: False if it was known before.
    """

    image: int
    label: int
    size: str
    identity: str
    decision: Decision
    is_new: bool


@dataclass(frozen=True, slots=True)
class RobustAccuracy:
    """How many images are robust at one size.

    Attributes:
        size: As text.
        robust: Proved.
        not_robust: With a replayed counterexample; the image itself where it is misclassified.
        unknown: Neither, within the limits.
    """

    size: str
    robust: int
    not_robust: int
    unknown: int

    @property
    def images(self) -> int:
        """All of them."""
        return self.robust + self.not_robust + self.unknown

    @property
    def bounds(self) -> tuple[Fraction, Fraction]:
        """Robust accuracy lies between these, proved: unknown images count as not robust, and as robust."""
        if not self.images:
            return Fraction(0), Fraction(1)
        return Fraction(self.robust, self.images), Fraction(self.robust + self.unknown, self.images)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        low, high = self.bounds
        return {
            "type": "robust-accuracy",
            "size": self.size,
            "images": self.images,
            "robust": self.robust,
            "not_robust": self.not_robust,
            "unknown": self.unknown,
            "lower": str(low),
            "upper": str(high),
            "approximately": [float(low), float(high)],
        }


class VerdictStore:
    """Verdicts by the identity of their query, in memory and, where a path is given, in a file.

    Args:
        path: The file; it is made if it does not exist. None keeps everything in memory only.

    Raises:
        FormatError: The file cannot be read or written, or holds something else. A last line that was cut off by a
            power failure is dropped.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._known: dict[str, tuple[Decision, float]] = {}
        self._file = LineFile(path, FORMAT, VERSION, "verdict", self._take)

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Verdicts, open ones included."""
        return len(self._known)

    def close(self) -> None:
        """Closes the file; what is in memory stays."""
        self._file.close()

    def known(self, query: Query, seconds: float | None) -> Decision | None:
        """The verdict, if asking again would bring nothing: decided, or open after at least as much time.

        Args:
            query: The question. A counterexample is replayed on it.
            seconds: Time limit with which it would be asked again; None for none.

        Raises:
            FormatError: The file holds a counterexample that is none.
        """
        if query.identity not in self._known:
            return None
        decision, spent = self._known[query.identity]
        x = decision.counterexample
        if x is not None and (not query.is_adversarial(x) or query.network.evaluate(x) != decision.predicted):
            raise FormatError(
                f"the file of verdicts holds a counterexample for query {query.identity[:16]} that is none: it was "
                "changed, or is of another version. Start a new file."
            )
        if decision.verdict is Verdict.UNKNOWN and (seconds is None or seconds > spent):
            return None
        return decision

    def add(self, asked: Asked, seconds: float | None, about: Mapping[str, Any]) -> None:
        """Keep a verdict.

        Args:
            asked: The verdict.
            seconds: The time limit; None for none.
            about: For whoever reads the file.
        """
        line = {
            "bnnverify": metadata.version("bnnverify"),
            "id": asked.identity,
            "image": asked.image,
            "label": asked.label,
            "size": asked.size,
            "limit": seconds,
            **about,
            "answer": asked.decision.to_json(),
        }
        self._take(line)
        self._file.append(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        fields = Fields(line)
        decision = answer_from_json(fields.inner("answer").data)
        if not isinstance(decision, Decision):
            raise QueryError(f"the answer is a {type(decision).__name__}, expected a decision.")
        identity = fields.text("id")
        seconds = math.inf if fields.value("limit") is None else float(fields.real("limit"))
        before = self._known.get(identity)
        if before is not None and before[0].verdict is not Verdict.UNKNOWN:
            if decision.verdict not in (Verdict.UNKNOWN, before[0].verdict):
                raise QueryError("two verdicts contradict each other: one of them was changed, or is wrong.")
            return
        if before is None or decision.verdict is not Verdict.UNKNOWN or seconds > before[1]:
            self._known[identity] = decision, seconds


def certify_image(
    network: BinaryNetwork,
    label: int,
    regions: Sequence[tuple[str, AnyRegion]],
    *,
    ties: Ties = Ties.LOWEST_INDEX,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    known: Mapping[str, Decision] | None = None,
) -> list[tuple[str, Decision, bool]]:
    """Verdicts for the regions around one image.

    Args:
        network: The network.
        label: The class to keep.
        regions: Size as text, and region, the smallest first.
        ties: What equal scores mean.
        engine: As in `robustness.decide`.
        limits: For each region.
        monitor: Who may stop; what has not been asked then is left out.
        known: Verdicts by the identity of the query, which are not asked again.

    Returns:
        For each region the identity of its query, the verdict, and whether it was asked now.
    """
    found: list[tuple[str, Decision, bool]] = []
    counterexample: tuple[int, ...] | None = None
    for _, region in regions:
        query = Query(network, region, Untargeted(label), ties)
        identity, is_new = query.identity, True
        if known is not None and identity in known:
            decision, is_new = known[identity], False
        elif counterexample is not None and query.is_adversarial(counterexample):
            x, predicted = replayed(query, counterexample, CARRIED)
            decision = Decision(Verdict.NOT_ROBUST, Run(CARRIED), x, predicted)
        else:
            decision = decide(query, engine=engine, limits=limits, monitor=monitor)
            if monitor is not None and monitor.stop and decision.verdict is Verdict.UNKNOWN:
                break
        counterexample = decision.counterexample or counterexample
        found.append((identity, decision, is_new))
    return found


def certify(
    network: BinaryNetwork,
    images: Iterable[tuple[int, int, Sequence[tuple[str, AnyRegion]]]],
    *,
    ties: Ties = Ties.LOWEST_INDEX,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    store: VerdictStore | None = None,
) -> Iterator[Asked]:
    """Verdicts image by image, each kept as soon as it is there.

    Args:
        network: The network.
        images: For each its number, the class to keep, and its regions as in `certify_image`.
        ties: What equal scores mean.
        engine: As in `robustness.decide`.
        limits: For each question.
        monitor: Who may stop.
        store: What is known, and where new verdicts go. Default: nothing, nowhere.

    Raises:
        FormatError: The store holds a counterexample that is none.
    """
    kept = VerdictStore() if store is None else store
    for image, label, regions in images:
        if monitor is not None and monitor.stop:
            return
        known = known_verdicts(kept, network, label, regions, ties, limits)
        answers = certify_image(
            network, label, regions, ties=ties, engine=engine, limits=limits, monitor=monitor, known=known
        )
        for (size, _), (identity, decision, is_new) in zip(regions, answers, strict=False):
            asked = Asked(image, label, size, identity, decision, is_new)
            if is_new:
                kept.add(asked, limits.seconds, {"network": network.identity})
            yield asked


def known_verdicts(
    store: VerdictStore,
    network: BinaryNetwork,
    label: int,
    regions: Sequence[tuple[str, AnyRegion]],
    ties: Ties,
    limits: Limits,
) -> dict[str, Decision]:
    """What the store knows of an image, by the identity of the query."""
    found = {}
    for _, region in regions:
        query = Query(network, region, Untargeted(label), ties)
        decision = store.known(query, limits.seconds)
        if decision is not None:
            found[query.identity] = decision
    return found


def robust_accuracies(asked: Iterable[Asked]) -> tuple[RobustAccuracy, ...]:
    """Counts by size, in the order in which sizes come."""
    counts: dict[str, dict[Verdict, int]] = {}
    for one in asked:
        by_verdict = counts.setdefault(one.size, dict.fromkeys(Verdict, 0))
        by_verdict[one.decision.verdict] += 1
    return tuple(
        RobustAccuracy(size, by[Verdict.ROBUST], by[Verdict.NOT_ROBUST], by[Verdict.UNKNOWN])
        for size, by in counts.items()
    )
