"""The questions of verify, count, distance and explain: checked before any work, answered in order."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from bnnverify.cli.images import Image, choose
from bnnverify.cli.lines import about_image, emit, envelope
from bnnverify.cli.models import load
from bnnverify.cli.workers import answers
from bnnverify.engines.base import Limits, Monitor
from bnnverify.engines.portfolio import require_engine
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork
from bnnverify.quantities import NoiseError, Quantity, SafeDistance
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import AnyRegion, FixedIndexRegion, HammingBall, PixelBox, Region
from bnnverify.results import Answer, Decision, Distance, Kind, Verdict

_BOUNDED = {"prime-implicant": "needed..kept", "essential-features": "essential"}
"""Analysis -> what its bounds are bounds on, if not the adversarial inputs."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question; the network stays outside, so that it travels to a process once.

    Attributes:
        verb: ``verify``, ``count``, ``distance`` or ``explain``.
        region: Where to look; for distance the ball of the largest radius.
        property: What is adversarial there.
        ties: What equal scores mean.
        engine: Name of the engine.
        limits: For this question.
        analysis: The verb, or what it does instead: ``by-radius``, ``noise``, ``samples``, ``safe-distance``,
            ``linf-distance``, ``prime-implicant``, ``essential-features``.
        detail: What this analysis takes besides.
        jobs: Processes that this one question may use.
        center: The image that a box of integers is around, clipped.
    """

    verb: str
    region: AnyRegion
    property: Untargeted | Targeted
    ties: Ties
    engine: str
    limits: Limits
    analysis: str
    detail: Mapping[str, Any]
    jobs: int = 1
    center: tuple[int, ...] = ()

    def about(self, network: BinaryNetwork) -> Query:
        """The query; raises what a wrong one raises."""
        if self.analysis == "by-radius" and not isinstance(self.region, HammingBall):
            raise QueryError(f"--by-radius is about balls, but the region is a {self.region}. Give --radius R.")
        return Query(network, self.region, self.property, self.ties)

    def require(self, network: BinaryNetwork) -> None:
        """Refuses before any work what `answer` would refuse."""
        query = self.about(network)
        if self.analysis == "linf-distance":
            if self.engine not in ("auto", "stages"):
                raise QueryError(f"--engine is {self.engine}, expected auto or stages for a distance in pixel values.")
            return
        counting = self.analysis in ("count", "by-radius", "samples", "noise", "safe-distance")
        require_engine(self.engine, query, counting=counting)
        if self.analysis == "noise" and not query.sign_region.free:
            raise QueryError("--noise has no input to flip, expected --radius 1 or more, or free inputs.")

    @builtins.property
    def breaks(self) -> bool:
        """True if only a KeyboardInterrupt stops the work: the searches that ask for verdicts."""
        return self.analysis not in ("count", "by-radius", "noise", "samples")

    def to_json(self, network: BinaryNetwork) -> dict[str, Any]:
        """Plain values for a JSON line."""
        detail = {name: str(value) if isinstance(value, Fraction) else value for name, value in self.detail.items()}
        extra = {} if self.analysis == self.verb else {"analysis": self.analysis, **detail}
        return self.about(network).to_json() | extra

    def answer(self, network: BinaryNetwork, monitor: Monitor) -> Any:
        """The answer, computed here and now; what is proved so far once `monitor.stop` is set."""
        from bnnverify import robustness

        budget: dict[str, Any] = {"engine": self.engine, "limits": self.limits}
        watched = {**budget, "monitor": monitor}
        if self.analysis == "verify":
            return robustness.decide(self.about(network), **budget, jobs=self.jobs)
        if self.verb == "explain":
            from bnnverify import explain

            task = explain.essential_features if self.analysis == "essential-features" else explain.explanation
            return task(self.about(network), **self.detail, **watched)
        if self.analysis == "linf-distance":
            return self._linf(network, monitor)
        if self.analysis == "distance":
            assert isinstance(self.region, HammingBall)
            where = {"ties": self.ties, "max_radius": self.region.radius, **self._label()}
            return robustness.minimum_adversarial_distance(network, self.region.center, **where, **watched)
        from bnnverify import counting

        if self.analysis == "count":
            return counting.count_adversarial(self.about(network), **watched)
        if self.analysis == "samples":
            return counting.sample_adversarial(self.about(network), **self.detail, allow_none=True, **watched)
        if self.analysis == "noise":
            return self._noise(network, watched)
        assert isinstance(self.region, HammingBall)
        center, radius = self.region.center, self.region.radius
        if self.analysis == "by-radius":
            goal = {"target": self.property.target} if isinstance(self.property, Targeted) else self._label()
            where = {"ties": self.ties, "free": self.region.free, **goal}
            return counting.counts_by_radius(network, center, radius, **where, **watched)
        where = {"ties": self.ties, "max_radius": radius, **self._label()}
        return counting.maximal_safe_distance(network, center, **self.detail, **where, **watched)

    def _linf(self, network: BinaryNetwork, monitor: Monitor) -> Distance:
        from bnnverify.deciding.distance import linf_distance

        where = {"ties": self.ties, "max_radius": reach(self), **self._label()}
        return linf_distance(network, self.center, limits=self.limits, monitor=monitor, jobs=self.jobs, **where)

    def _label(self) -> dict[str, Any]:
        assert isinstance(self.property, Untargeted)
        return {"label": self.property.label}

    def _noise(self, network: BinaryNetwork, watched: Mapping[str, Any]) -> Any:
        """Noise on the inputs that vary in the region; the radius of a ball is the most flips to look at."""
        from bnnverify.counting import misclassification_probability

        region, rate = self.region, self.detail["rate"]
        assert isinstance(region, HammingBall | FixedIndexRegion)
        free = set(region.free)
        rates = [rate if i in free else Fraction(0) for i in range(region.n)]
        most = region.radius if isinstance(region, HammingBall) else None
        where = {**self._label(), "max_flips": most}
        return misclassification_probability(network, region.center, rates, **where, **watched)


def class_to_keep(keep: str, image: Image, predicted: int) -> int:
    """The class that ``--keep`` means for an image.

    Raises:
        QueryError: The label is asked for but unknown, or the text is no class.
    """
    if keep == "predicted":
        return predicted
    if keep == "true":
        if image.label is None:
            raise QueryError("--keep true needs labels, but inputs of a file have none. Take --keep predicted.")
        return image.label
    if not keep.isdecimal() or len(keep) > 6:
        raise QueryError(f"--keep is {keep!r}, expected predicted, true or the number of a class.")
    return int(keep)


def require_jobs(jobs: int) -> None:
    """QueryError unless there is a process."""
    if jobs < 1:
        raise QueryError(f"--jobs is {jobs}, expected at least 1.")


def limits_of(timeout: float | None, threads: int | None = None, jobs: int = 1) -> Limits:
    """Limits of one question; of several processes each takes one core, unless threads are named."""
    if timeout is not None and not timeout > 0:
        raise QueryError(f"--timeout is {timeout:g}, expected a number of seconds above 0.")
    require_jobs(jobs)
    if threads is not None and threads < 1:
        raise QueryError(f"--threads is {threads}, expected at least 1.")
    return Limits(seconds=timeout, threads=1 if threads is None and jobs > 1 else threads)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about an image, with its answer and its line."""

    image: Image
    predicted: int
    question: Question
    answer: Answer | Quantity
    line: dict[str, Any]


def _compile(questions: Sequence[Question], network: BinaryNetwork, jobs: int) -> None:
    """Have the loops ready before several processes would compile the same ones, if these questions need any."""
    from bnnverify.engines.batches import is_small
    from bnnverify.engines.warmup import prepare

    first, queries = questions[0], [question.about(network) for question in questions]
    if min(jobs, len(questions)) > 1 and first.verb in ("verify", "count") and not is_small(queries, first.limits):
        prepare("enumeration" if first.engine == "auto" else first.engine, queries[0], first.limits)


def ask(
    verb: str,
    model: Path,
    region: Callable[[Sequence[int]], Region] | None,
    *,
    keep: str,
    target: int | None,
    ties: str,
    engine: str,
    timeout: float | None,
    threads: int | None,
    jobs: int,
    quiet: bool,
    as_json: bool,
    table: Table,
    analysis: str | None = None,
    detail: Mapping[str, Any] | None = None,
    box: Callable[[BinaryNetwork, Image], AnyRegion] | None = None,
    **source: Any,
) -> list[Asked]:
    """Everything that verify, count and distance do between their options and their exit code.

    Args:
        verb: ``verify``, ``count``, ``distance`` or ``explain``.
        model: File of the network.
        region: Region around an input; None where `box` says it.
        keep: Text of ``--keep``.
        target: Class that the attacker wants, or None for any other than the one to keep.
        ties: Text of ``--ties``.
        engine: Name of the engine.
        timeout: Seconds for each question.
        threads: Cores for each question.
        jobs: Processes.
        quiet: No progress bar.
        as_json: Print JSON lines instead of the table.
        table: How people see the answers.
        analysis: What to ask, if not the verb itself: see `Question`.
        detail: What the analysis takes besides.
        box: Region around an image of integers.
        **source: The options that name images.
    """
    limits, what = limits_of(timeout, threads, jobs), analysis or verb
    network = load(model)
    if not network.domain.is_binary and box is None:
        others = {"verify": "Give --linf R or --eps E.", "distance": "Give --linf."}.get(
            verb, "Use a network with a binary input domain."
        )
        raise UnsupportedError(
            f"{model} takes integer inputs, but {verb} asks about regions of -1/+1 inputs here. {others}"
        )
    images = choose(network, **source)
    predicted = [network.evaluate(image.x) for image in images.images]
    questions = []
    for image, own in zip(images.images, predicted, strict=True):
        kept = Untargeted(class_to_keep(keep, image, own))
        prop = kept if target is None else Targeted(target)
        around = box(network, image) if box is not None else _given(region)(image.x)
        inner = jobs if len(images.images) == 1 else 1
        question = Question(verb, around, prop, Ties(ties), engine, limits, what, detail or {}, inner, image.x)
        question.require(network)
        questions.append(question)
    if what == "prime-implicant":
        _require_own_class(network, images.images, questions)
    shared = envelope(verb, model, network)
    if not as_json:
        click.echo(f"{model}  {network.architecture}  sha256 {network.identity[:16]}  |  {images.description}")
        click.echo(table.question(questions[0]) + "\n")
        click.echo(table.header)
    asked = []
    _compile(questions, network, jobs)
    bounded = _BOUNDED.get(questions[0].analysis, "adversarial")
    stream = answers(network, questions, jobs=jobs, bar=not quiet, verb=verb, bounded=bounded)
    for image, own, question, answer in zip(images.images, predicted, questions, stream, strict=True):
        line = {
            **shared,
            **about_image(images, image, own),
            "question": question.to_json(network),
            "answer": answer.to_json(),
        }
        asked.append(Asked(image, own, question, answer, line))
        if as_json:
            emit(line)
        else:
            click.echo(table.row(asked[-1]))
    if not as_json:
        click.echo("\n" + table.summary(asked))
    return asked


def _require_own_class(network: BinaryNetwork, images: Sequence[Image], questions: Sequence[Question]) -> None:
    """QueryError where an image is adversarial itself: no set of its inputs excludes that."""
    asked = ((image.index, one.about(network), image.x) for image, one in zip(images, questions, strict=True))
    astray = [index for index, query, x in asked if query.is_adversarial(x)]
    if astray:
        raise QueryError(
            f"{len(astray)} of {len(images)} images ({short_list(astray)}) are adversarial themselves with this "
            "--keep and --ties, so nothing explains their class. Leave them out of --index, or take --keep predicted."
        )


def _given(region: Callable[[Sequence[int]], Region] | None) -> Callable[[Sequence[int]], Region]:
    assert region is not None
    return region


@dataclass(frozen=True, slots=True)
class Table:
    """How a verb shows its answers to people."""

    header: str
    question: Callable[[Question], str]
    row: Callable[[Asked], str]
    summary: Callable[[list[Asked]], str]


def first_columns(asked: Asked) -> str:
    """Image, label and class: how every row begins."""
    label = "-" if asked.image.label is None else asked.image.label
    return f"{asked.image.index:>5}  {label:>5}  {asked.predicted:>5}"


FIRST_HEADERS = "image  label  class"


def engine_columns(asked: Asked) -> str:
    """Engine and time: how every row ends."""
    return f"{asked.answer.run.engine:<15} {asked.answer.run.seconds:8.2f} s"


def limit_code(asked: list[Asked]) -> int:
    """3 if an answer was cut short by a limit, else 0."""
    return 3 if any(is_partial(one.question, one.answer) for one in asked) else 0


def is_partial(question: Question, answer: Answer | Quantity) -> bool:
    """True for UNKNOWN, and for bounds that a limit left open; bounds as close as one asked for are not."""
    if isinstance(answer, Decision):
        return answer.verdict is Verdict.UNKNOWN
    if isinstance(answer, NoiseError):
        as_asked = isinstance(question.region, HammingBall) and answer.radius == question.region.radius
        return answer.kind is not Kind.EXACT and bool(answer.run.reason) and not as_asked
    if isinstance(answer, Distance) and answer.upper is not None:
        return answer.lower < answer.upper
    if isinstance(answer, Distance | SafeDistance):
        searched = reach(question) + (1 if isinstance(answer, Distance) else 0)
        return answer.upper is None and answer.lower < searched  # else the whole ball was searched
    return answer.kind is not Kind.EXACT


def reach(question: Question) -> int:
    """How far the region of a distance reaches: in flips, or in units of the inputs."""
    if isinstance(question.region, PixelBox):
        ends = (*question.region.lower, *question.region.upper)
        return max(abs(end - x) for end, x in zip(ends, 2 * question.center, strict=True))
    assert isinstance(question.region, HammingBall)
    return question.region.radius


def flipped(center: Sequence[int], x: Sequence[int]) -> list[int]:
    """Where two inputs differ."""
    return [i for i, (a, b) in enumerate(zip(center, x, strict=True)) if a != b]


def short_list(values: Sequence[int], most: int = 8) -> str:
    """The first few numbers of a list."""
    return ", ".join(map(str, values[:most])) + (f", ... ({len(values)})" if len(values) > most else "")


def in_region(question: Question) -> str:
    """The region and the tie rule in words; the image is another in each row."""
    where = f"{question.region}; {tie_rule(question)}"
    return where.replace(f"radius {question.region.n} in", "any radius in")


def tie_rule(question: Question) -> str:
    """What equal scores mean, in words."""
    return {
        Ties.LOWEST_INDEX: "ties go to the lowest class",
        Ties.COUNTEREXAMPLE: "a tie is adversarial",
        Ties.ROBUST: "a tie is not adversarial",
    }[question.ties]


def goal(question: Question, keep: str) -> str:
    """What the attacker wants, in words."""
    if isinstance(question.property, Targeted):
        return f"whose class is {question.property.target}"
    words = {"predicted": "the network's own class of the image", "true": "the true class"}
    return f"whose class is not {words.get(keep, keep)}"
