"""Which networks are asked, and what: verdicts around images, and accuracy under random noise.

An answer is a line of answers.jsonl, found again by what was asked. Questions about one image are asked with growing
sizes: a counterexample stays one in a larger region, and after a size that stayed open the larger ones get less time,
because their proofs would be harder still.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify import load as load_network
from bnnverify.datasets import Dataset
from bnnverify.deciding.attack import attack
from bnnverify.engines.base import Clock, Limits
from bnnverify.errors import FormatError
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Untargeted
from bnnverify.regions import AnyRegion, HammingBall, PixelBox
from bnnverify.results import Verdict
from bnnverify.robustness import decide

MODELS = Path(__file__).resolve().parents[2] / "models"
ROBUST, NOT_ROBUST, UNKNOWN = "R", "N", "?"
LETTERS = {Verdict.ROBUST: ROBUST, Verdict.NOT_ROBUST: NOT_ROBUST, Verdict.UNKNOWN: UNKNOWN}
ATTACKED = 2.0  # s of another attack on what stayed open
LATER = 5  # after an open size, larger ones get this part of the limit
PICTURED = 8  # images whose counterexamples are kept
WALKED = 2  # largest Hamming radius at which every input is simply tried where inputs are convolved
NOISY_IMAGES, DRAWS = 1000, 10


@dataclass(frozen=True, slots=True)
class Subject:
    """A trained network and what it is asked.

    Attributes:
        title: For tables and legends.
        file: Name in the folder of models, without its ending.
        group: Networks of one group share a table and a panel.
        images: The first so many test images.
        sizes: Hamming radii, or distances of every pixel; the first is 0, the image itself.
        noise: Probabilities of a flip, or distances of every pixel, of random noise.
    """

    title: str
    file: str
    group: str
    images: int
    sizes: tuple[int, ...]
    noise: tuple[float, ...]


DENSE, CONVOLVED, PIXELS = "dense", "convolutions", "pixels"
_RADII = tuple(range(13))
_FLIPS = (0.01, 0.05, 0.1)
SUBJECTS = (
    Subject("plain", "mnist-784-100-10-plain", DENSE, 200, _RADII, _FLIPS),
    Subject("batch norm", "mnist-784-100-10", DENSE, 200, _RADII, _FLIPS),
    Subject("stochastic switching", "mnist-784-100-10-ss-count", DENSE, 200, _RADII, _FLIPS),
    Subject("injected bit errors", "mnist-784-100-10-ber", DENSE, 200, _RADII, _FLIPS),
    Subject("margin loss", "mnist-784-100-10-margin", DENSE, 200, _RADII, _FLIPS),
    Subject("plain", "mnist-pixels-conv-plain", PIXELS, 100, (0, 1, 2, 4, 8, 16), (8, 16, 32)),
    Subject("adversarial examples", "mnist-pixels-conv-adversarial", PIXELS, 100, (0, 1, 2, 4, 8, 16), (8, 16, 32)),
    Subject("stochastic switching", "mnist-conv-ss-count", CONVOLVED, 10, (0, 1, 2, 4, 8, 16), _FLIPS),
)

Line = dict[str, Any]


class Answers:
    """Lines by what they answer; new ones are appended at once, so several runs may share the file.

    Raises:
        FormatError: A line that is no answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, Line] = {}
        for number, text in enumerate(path.read_text("utf-8").splitlines() if path.exists() else (), start=1):
            try:
                line = json.loads(text)
                self.lines[json.dumps(line["question"])] = line["answer"]
            except (ValueError, LookupError, TypeError):
                raise FormatError(f"{path}:{number}: no answer of this study. Delete the line.") from None

    def get(self, question: Line) -> Line | None:
        """The answer, or None."""
        return self.lines.get(json.dumps(question))

    def put(self, question: Line, answer: Line) -> Line:
        """The answer, kept."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"question": question, "answer": answer}, allow_nan=False) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
        self.lines[json.dumps(question)] = answer
        return answer


class Asker:
    """One network and its answers.

    Args:
        subject: Which.
        dataset: Its images.
        answers: What is known.
        seconds: Limit for each question.
        images: Instead of the subject's number.
    """

    def __init__(
        self, subject: Subject, dataset: Dataset, answers: Answers, seconds: float, images: int | None = None
    ) -> None:
        self.subject, self.dataset, self.answers, self.seconds = subject, dataset, answers, seconds
        self.images = min(images or subject.images, subject.images, len(dataset.test))
        self.network: BinaryNetwork = load_network(MODELS / f"{subject.file}.npz")

    @property
    def is_binary(self) -> bool:
        """Whether sizes are Hamming radii."""
        return self.network.domain.is_binary

    def inputs(self) -> NDArray[Any]:
        """Test images as the network takes them, shape `(N, n)`."""
        test = self.dataset.test
        return test.images if self.is_binary else test.pixels

    def region(self, image: int, size: int) -> AnyRegion:
        """All inputs within `size` of an image."""
        x = self.inputs()[image].tolist()
        return HammingBall(x, size) if self.is_binary else PixelBox.linf(x, size, self.network.domain)

    def query(self, image: int, size: int) -> Query:
        """Whether the true class wins everywhere there."""
        return Query(self.network, self.region(image, size), Untargeted(int(self.dataset.test.labels[image])))

    def verdicts(self, image: int) -> Line:
        """A letter for each size, and how they were found."""
        question = {
            "network": self.network.identity,
            "image": image,
            "label": int(self.dataset.test.labels[image]),
            "sizes": list(self.subject.sizes),
            "seconds": self.seconds,
        }
        return self.answers.get(question) or self.answers.put(question, self._ask(image))

    def _ask(self, image: int) -> Line:
        letters, stages, spent, found = "", {}, 0.0, None
        smallest = None
        for size in self.subject.sizes:
            query = self.query(image, size)
            if found is not None:
                letters += NOT_ROBUST  # it lies in this region, too
                continue
            seconds = self.seconds / LATER if UNKNOWN in letters else self.seconds
            convolved = self.is_binary and self.network.has_convolutions
            if convolved and size <= WALKED:
                decision = decide(query, engine="enumeration", limits=Limits(seconds=20 * self.seconds, threads=1))
            else:
                decision = decide(query, limits=Limits(seconds=seconds, threads=1))
            letters += LETTERS[decision.verdict]
            spent += decision.run.seconds
            if decision.verdict is not Verdict.UNKNOWN:
                stages[decision.run.engine] = stages.get(decision.run.engine, 0) + 1
            if decision.counterexample is not None:
                found, smallest = decision.counterexample, size
        answer = {
            "verdicts": letters,
            "stages": stages,
            "spent": round(spent, 3),
            "smallest": smallest,
            "changes": self._changes(image, found),
        }
        return self.attacked(image, answer)

    def attacked(self, image: int, answer: Line) -> Line:
        """The answer after an attack of its own on every open size, the smallest first."""
        letters, clock = answer["verdicts"], Clock(None)
        for i, size in enumerate(self.subject.sizes):
            if letters[i] != UNKNOWN:
                continue
            x = attack(self.query(image, size), limits=Limits(seconds=ATTACKED, threads=1)).counterexample
            if x is not None:
                assert ROBUST not in letters[i:], "a size is proved robust, and a smaller one has a counterexample"
                letters = letters[:i] + NOT_ROBUST * (len(letters) - i)
                stages = {**answer["stages"], "attack": answer["stages"].get("attack", 0) + 1}
                answer = {**answer, "stages": stages, "smallest": size, "changes": self._changes(image, x)}
        return {**answer, "verdicts": letters, "spent": round(answer["spent"] + clock.elapsed, 3)}

    def _changes(self, image: int, found: Sequence[int] | None) -> list[list[int]]:
        """Index and value of what differs from the image, for the images whose counterexamples are kept."""
        if found is None or image >= PICTURED:
            return []
        center = self.inputs()[image].tolist()
        return [[i, int(b)] for i, (a, b) in enumerate(zip(center, found, strict=True)) if a != b]

    def counterexample(self, image: int) -> tuple[int, tuple[int, ...]] | None:
        """The size and the kept counterexample of an image that is classified rightly, replayed on the network.

        Raises:
            FormatError: The one in the file is none.
        """
        answer = self.verdicts(image)
        if not answer["changes"] or answer["smallest"] is None:
            return None
        x = [int(v) for v in self.inputs()[image]]
        for i, value in answer["changes"]:
            x[i] = value
        if not self.query(image, answer["smallest"]).is_adversarial(tuple(x)):
            raise FormatError(f"{self.answers.path}: the counterexample of image {image} is none. Delete the line.")
        return answer["smallest"], tuple(x)

    def table(self) -> Mapping[int, tuple[int, int, int]]:
        """Numbers of images robust, not robust and open, by size."""
        every = [self.verdicts(image)["verdicts"] for image in range(self.images)]
        columns = zip(*every, strict=True)
        return {
            size: (column.count(ROBUST), column.count(NOT_ROBUST), column.count(UNKNOWN))
            for size, column in zip(self.subject.sizes, columns, strict=True)
        }

    def noisy(self) -> Mapping[float, float]:
        """Sampled accuracy under random noise, by its amount, the same draws for all networks; 0 is without."""
        question = {"network": self.network.identity, "noise": list(self.subject.noise), "images": NOISY_IMAGES}
        answer = self.answers.get(question) or self.answers.put(question, {"right": self._draw()})
        total = min(NOISY_IMAGES, len(self.dataset.test)) * DRAWS
        return {
            amount: right / total for amount, right in zip((0.0, *self.subject.noise), answer["right"], strict=True)
        }

    def _draw(self) -> list[int]:
        packed, x = PackedNetwork(self.network), self.inputs()[:NOISY_IMAGES]
        labels, right = self.dataset.test.labels[:NOISY_IMAGES], []
        for amount in (0.0, *self.subject.noise):
            random = np.random.default_rng(0)
            total = 0
            for _ in range(DRAWS):
                if self.is_binary:
                    noisy = np.where(random.random(x.shape) < amount, -x, x)
                else:
                    low, high = self.network.domain.lower, self.network.domain.upper
                    moves = random.choice([-1, 1], size=x.shape) * int(amount)
                    noisy = np.clip(x.astype(np.int64) + moves, low, high)
                total += int(np.count_nonzero(packed.classes(noisy) == labels))
            right.append(total)
        return right


def ask(askers: Sequence[Asker]) -> None:
    """All questions, network by network; what is known is not asked."""
    for asker in askers:
        asker.noisy()
        for image in range(asker.images):
            asker.verdicts(image)
            if (image + 1) % 10 == 0 or image + 1 == asker.images:
                print(f"{asker.subject.file}: {image + 1} of {asker.images} images", file=sys.stderr, flush=True)
