"""What is asked about one network: proved and sampled accuracies of its chips, each question once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from answers import Answers, Line
from energy import Programming
from numpy.typing import NDArray
from settings import (
    CONFIDENCE,
    EFFORTS,
    FEW,
    GOOD_CHIP,
    MENU_RATES,
    MODELS,
    QUICK_RATE,
    REFERENCES,
    SEARCH,
    SEED,
    Trained,
)
from words import above, below

from bnnverify.datasets import Dataset, inputs_for
from bnnverify.engines.chipsampling import sample_chips
from bnnverify.faults import AsymmetricFlip, BitFlip, FaultModel, PerBlock
from bnnverify.formats import native
from bnnverify.network import BinaryNetwork
from bnnverify.reliability import expected_accuracy
from bnnverify.reliability.energy import lowest_write_energy
from bnnverify.reliability.tolerance import tolerance_bracket
from bnnverify.reliability.worstcase import flip_distances
from bnnverify.reliability.yields import chip_yield
from bnnverify.results import Probability


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a proof is tried.

    Attributes:
        tolerance: Width to aim at for each image; None for what suits the rate (`settings.EFFORTS`).
        max_states: Most work for each image; None likewise.
        seconds: Limit for one proved accuracy, s; what is not reached by then counts as unknown.
        chips: Sampled chips.
        jobs: Threads.
    """

    tolerance: float | None
    max_states: int | None
    seconds: float | None
    chips: int
    jobs: int

    def at(self, faults: FaultModel) -> tuple[float, int]:
        """Tolerance and most work for each image under these faults: rarer errors are bounded more narrowly."""
        highest = highest_rate(faults)
        return self._or(*next((width, states) for most, width, states in EFFORTS if highest <= most))

    @property
    def search(self) -> tuple[float, int]:
        """Tolerance and most work for each image at each step of a search."""
        return self._or(*SEARCH)

    def _or(self, tolerance: float, max_states: int) -> tuple[float, int]:
        return self.tolerance or tolerance, self.max_states or max_states


def highest_rate(faults: FaultModel) -> Fraction:
    """The rate of the cells that fail most often."""
    if isinstance(faults, PerBlock):
        return max(map(highest_rate, faults.models))
    if isinstance(faults, AsymmetricFlip):
        return max(faults.p01, faults.p10)
    assert isinstance(faults, BitFlip)
    return faults.p


@dataclass(frozen=True, slots=True)
class Subject:
    """A network with the images it is asked about.

    Attributes:
        trained: Which network.
        network: The network.
        x: Images, shape `(N, n)`.
        labels: Their classes, shape `(N,)`.
        predicted: Classes of the fault-free network, shape `(N,)`.
        test_accuracy: On the whole test split, fault-free.
        dataset: Name of the data set.
        split: Identity of its split.
    """

    trained: Trained
    network: BinaryNetwork
    x: NDArray[Any]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    test_accuracy: Fraction
    dataset: str
    split: str

    @classmethod
    def load(cls, trained: Trained, dataset: Dataset, images: int) -> Subject:
        """The network from models/ with the first `images` test images."""
        network = native.load(MODELS / f"{trained.file}.npz")
        test = dataset.test
        every = inputs_for(network, test)
        classes = np.asarray(network.evaluate_batch(every), dtype=np.int64)
        truth = np.asarray(test.labels, dtype=np.int64)
        right = Fraction(int(np.count_nonzero(classes == truth)), len(truth))
        made = dataset.provenance
        mine = every[:images], truth[:images], classes[:images]
        return cls(trained, network, *mine, right, str(made["dataset"]), str(made["split_sha256"]))

    def first(self, images: int) -> Subject:
        """The same network with the first images alone."""
        return replace(self, x=self.x[:images], labels=self.labels[:images], predicted=self.predicted[:images])

    @property
    def clean(self) -> Fraction:
        """Accuracy on the images without errors: exact."""
        return Fraction(int(np.count_nonzero(self.labels == self.predicted)), len(self.labels))

    def truth(self, event: str) -> list[int]:
        """The right class of each image: its label for ``error``, the fault-free class for ``change``."""
        return [int(c) for c in (self.labels if event == "error" else self.predicted)]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the expected accuracy falls below a target, between two certified rates.

    Attributes:
        target: The accuracy.
        holds: The greatest rate asked at which the accuracy is proved to reach it.
        fails: The least rate above that at which it is proved to miss it.
    """

    target: Fraction
    holds: Fraction | None
    fails: Fraction | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """Chips drawn at random.

    Attributes:
        accuracy: Its mean over all chips, with a confidence interval.
        good: Share of good chips, with a confidence interval.
        worst: Accuracy of the worst chip drawn.
        low: Accuracy that 5 % of the chips drawn do not exceed.
        high: Accuracy that 95 % of them do not exceed.
        best: Accuracy of the best one.
    """

    accuracy: Probability
    good: Probability
    worst: Fraction
    low: Fraction
    high: Fraction
    best: Fraction


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks about one network and remembers.

    Attributes:
        subject: The network.
        answers: Where answers are kept.
        effort: How hard to try.
        told: Called with a sentence after something was computed.
        whole: The network with more images, where proofs are quick; None for the same.
    """

    subject: Subject
    answers: Answers
    effort: Effort
    told: Callable[[str], None]
    whole: Subject | None = None

    def _question(self, method: str, event: str, faults: FaultModel | None, **more: Any) -> Line:
        subject = self.subject
        asked = {"network": subject.network.identity, "file": subject.trained.file, "split": subject.split}
        images = {"images": len(subject.x), "event": event}
        return {**asked, **images, "method": method, "faults": None if faults is None else faults.to_json(), **more}

    def _proof(self, faults: FaultModel, event: str) -> Line:
        tolerance, max_states = self.effort.at(faults)
        work = {"tolerance": tolerance, "max_states": max_states, "seconds": self.effort.seconds}
        return self._question("proved", event, faults, **work)

    def _kept(self, question: Line, answer: Callable[[], Line]) -> Line:
        """The answer that is there, or a new one, which is kept."""
        kept = self.answers.get(question)
        if kept is None:
            start = time.perf_counter()
            kept = answer()
            kept["seconds"] = round(time.perf_counter() - start, 2)
            self.answers.put(question, kept)
            self.told(f"{self.subject.trained.role:10} {_short(question):54} {_gist(kept)} {kept['seconds']:7.2f} s")
        return kept

    def proved(self, faults: FaultModel, *, event: str = "error") -> Probability:
        """Proved bounds on the mean over the images of P(no error), or of P(no change)."""
        return Probability.from_json(self.details(faults, event=event))

    def details(self, faults: FaultModel, *, event: str = "error") -> Line:
        """A proved accuracy with quantiles of the images' widths, proved bounds on the yield, and seconds."""

        def answer() -> Line:
            subject, (tolerance, max_states) = self.subject, self.effort.at(faults)
            point = expected_accuracy(
                subject.network,
                subject.x,
                subject.truth(event),
                faults,
                tolerance=tolerance,
                max_states=max_states,
                jobs=self.effort.jobs,
                seconds=self.effort.seconds,
            )
            widths = sorted(float(p.width) for p in point.per_image)
            good = chip_yield(point.per_image, self.good)
            return {
                **point.accuracy.to_json(),
                "widths": {f"{q:g}": widths[min(len(widths) - 1, int(q * len(widths)))] for q in (0.5, 0.9, 0.99)},
                "yield": [below(good.lower, 6), above(good.upper, 6)],
                "reason": point.run.reason,
            }

        return self._kept(self._proof(faults, event), answer)

    @property
    def good(self) -> Fraction:
        """Least accuracy of a good chip."""
        return max(Fraction(0), self.subject.clean - GOOD_CHIP)

    def warm_up(self) -> None:
        """Compiles what is compiled at the first call, so that no time limit pays for it."""
        subject = self.subject
        for faults in (BitFlip(Fraction(1, 1000)), BitFlip(Fraction(1, 20))):
            expected_accuracy(subject.network, subject.x[:2], subject.truth("error")[:2], faults, tolerance=1e-3)

    def sampled(self, faults: FaultModel) -> Sampled:
        """What whole chips drawn at random get right, each over all images."""

        def answer() -> Line:
            drawn = sample_chips(
                self.subject.network,
                self.subject.x,
                self.subject.truth("error"),
                faults,
                chips=self.effort.chips,
                seed=SEED,
                confidence=CONFIDENCE,
                jobs=self.effort.jobs,
            )
            right = sorted(drawn.correct)
            spread = [right[round(q * (len(right) - 1))] for q in (0, 0.05, 0.95, 1)]
            return {**drawn.accuracy.to_json(), "yield": drawn.yield_at(self.good).to_json(), "right": spread}

        kept = self._kept(self._question("chips", "error", faults, chips=self.effort.chips, seed=SEED), answer)
        spread = [Fraction(right, len(self.subject.x)) for right in kept["right"]]
        return Sampled(Probability.from_json(kept), Probability.from_json(kept["yield"]), *spread)

    def distances(self) -> list[tuple[int, int | None]]:
        """Bounds on the least number of flips that change the class of each image, upper None where none is known."""

        def answer() -> Line:
            found = flip_distances(self.subject.network, self.subject.x, jobs=self.effort.jobs)
            return {"distances": [[d.lower, d.upper] for d in found.per_image]}

        return [(low, up) for low, up in self._kept(self._question("flips", "change", None), answer)["distances"]]

    def cheapest(self, programming: Programming, drop: Fraction) -> Line:
        """The cheapest write of a menu of widths whose certified accuracy is within `drop`; `LowestEnergy` as JSON."""
        target = self.subject.clean - drop
        more = {"drop": str(drop), "programming": programming.to_json()}
        question = self._question("energy", "error", None, **more, effort=list(self.effort.search))

        def answer() -> Line:
            subject, effort = self.subject, self.effort
            tolerance, max_states = effort.search
            found = lowest_write_energy(
                programming.physics,
                subject.network,
                subject.x,
                subject.truth("error"),
                target,
                menu=programming.menu(MENU_RATES),
                most_retries=programming.retries,
                before="opposite",
                reference_rate=REFERENCES[0],
                tolerance=tolerance,
                max_states=max_states,
                jobs=effort.jobs,
                seconds=None if effort.seconds is None else 3 * effort.seconds,
            ).to_json()
            return {name: found[name] for name in ("best", "relative", "reference", "target")} | {
                "reason": found["run"]["reason"]
            }

        return self._kept(question, answer)

    def only(self, block: int, p: Fraction) -> Probability:
        """Proved accuracy with errors in one block alone, hidden blocks from 0."""
        return self.proved(PerBlock.only(BitFlip(p), block, of=len(self.subject.network.all_blocks)))

    def many(self, p: Fraction) -> Asker:
        """The same questions about more images, if errors are so rare that proofs are quick."""
        return self if self.whole is None or p > QUICK_RATE else replace(self, subject=self.whole)

    def few(self) -> Asker:
        """The same questions about fewer images, where proofs take long."""
        return replace(self, subject=self.subject.first(FEW))

    def crossing(self, drop: Fraction) -> Crossing:
        """Two certified rates of symmetric errors around a loss of `drop` in accuracy, as close as proofs allow."""
        target = self.subject.clean - drop
        tolerance, max_states = self.effort.search

        def answer() -> Line:
            found = tolerance_bracket(
                self.subject.network,
                self.subject.x,
                self.subject.truth("error"),
                target,
                tolerance=tolerance,
                max_states=max_states,
                jobs=self.effort.jobs,
                seconds=None if self.effort.seconds is None else 3 * self.effort.seconds,
            ).to_json()
            return {name: found[name] for name in ("p_ok", "p_fail")} | {"reason": found["run"]["reason"]}

        more = {"drop": str(drop), "effort": list(self.effort.search)}
        kept = self._kept(self._question("crossing", "error", None, **more), answer)
        holds, fails = (None if kept[name] is None else Fraction(kept[name]) for name in ("p_ok", "p_fail"))
        return Crossing(target, holds, fails)

    def band(self) -> list[tuple[Fraction, Probability]]:
        """Every proved accuracy under symmetric errors that is known, by rising rate."""
        points = {}
        for question, answer in self.answers.questions():
            faults = question["faults"]
            if question["method"] == "proved" and faults["kind"] == "bit-flip":
                p = Fraction(faults["p"])
                if question == self._proof(BitFlip(p), "error"):
                    points[p] = Probability.from_json(answer)
        return sorted(points.items())


def _short(question: Line) -> str:
    """A question in a few words."""
    values = question["faults"] or {}
    models = " | ".join(
        " ".join(f"{name}={float(Fraction(value)):.3g}" for name, value in model.items() if name != "kind")
        for model in values.get("models", [values])
    )
    return f"{question['method']:7} {question['event']:6} {models}"


def _gist(answer: Line) -> str:
    """The bounds of an answer, for the progress."""
    return "{:.5f}..{:.5f}".format(*answer["approximately"]) if "approximately" in answer else " " * 16
