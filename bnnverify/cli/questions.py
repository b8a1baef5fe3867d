"""The questions of verify, count and distance: checked before any work, answered in order, in several processes."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from bnnverify.cli.images import Image, choose
from bnnverify.cli.lines import about_image, emit, envelope
from bnnverify.cli.options import index_file, index_list_or_file
from bnnverify.engines.base import Limits
from bnnverify.errors import QueryError, ResourceLimitError, UnsupportedError
from bnnverify.formats import load_network
from bnnverify.network import BinaryNetwork
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, Region, whole_cube
from bnnverify.results import Answer, Decision, Distance, Kind, Verdict


@dataclass(frozen=True, slots=True)
class Question:
    """One question; the network stays outside, so that it travels to a process once.

    Attributes:
        verb: ``verify``, ``count`` or ``distance``.
        region: Where to look; for distance the ball of the largest radius.
        property: What is adversarial there.
        ties: What equal scores mean.
        engine: Name of the engine.
        limits: For this question.
    """

    verb: str
    region: Region
    property: Untargeted | Targeted
    ties: Ties
    engine: str
    limits: Limits

    def about(self, network: BinaryNetwork) -> Query:
        """The query; raises what a wrong one raises."""
        return Query(network, self.region, self.property, self.ties)

    def answer(self, network: BinaryNetwork) -> Answer:
        """The answer, computed here and now."""
        if self.verb == "verify":
            from bnnverify.robustness import decide

            return decide(self.about(network), engine=self.engine, limits=self.limits)
        if self.verb == "count":
            from bnnverify.counting import count_adversarial

            return count_adversarial(self.about(network), engine=self.engine, limits=self.limits)
        from bnnverify.robustness import minimum_adversarial_distance

        assert isinstance(self.region, HammingBall) and isinstance(self.property, Untargeted)
        return minimum_adversarial_distance(
            network,
            self.region.center,
            label=self.property.label,
            ties=self.ties,
            max_radius=self.region.radius,
            engine=self.engine,
            limits=self.limits,
        )


def region_of(
    center: Sequence[int],
    *,
    radius: int | None,
    free: str | None,
    hold: str | None,
    fixed: str | None,
    whole: bool,
) -> Region:
    """The region around an input that the options name.

    Args:
        center: The input.
        radius: Of a Hamming ball.
        free: List or file of the inputs that vary.
        hold: List or file of the inputs that stay.
        fixed: File of the inputs that vary, as BNNQuanalyst's fixed-set files list them.
        whole: All inputs of the cube.

    Raises:
        QueryError: No region or two are named, or the region does not fit the input.
    """
    n, x = len(center), tuple(center)
    limited = [name for name, text in (("--free", free), ("--hold", hold), ("--fixed", fixed)) if text is not None]
    if len(limited) + whole > 1 or (whole and radius is not None) or not (limited or whole or radius is not None):
        raise QueryError(
            "expected exactly one region: --radius R, --free LIST, --hold LIST, --fixed FILE or --whole-cube "
            "(--radius also together with --free, --hold or --fixed)."
        )
    if whole:
        return whole_cube(n)
    vary = _varying(n, free, hold, fixed)
    if radius is not None:
        return HammingBall(x, radius, vary)
    assert vary is not None
    return FixedIndexRegion(x, vary)


def _varying(n: int, free: str | None, hold: str | None, fixed: str | None) -> tuple[int, ...] | None:
    """The inputs that vary; None if the options leave that open."""
    if free is not None:
        return tuple(index_list_or_file(free, n, "input"))
    if hold is not None:
        kept = set(index_list_or_file(hold, n, "input"))
        return tuple(i for i in range(n) if i not in kept)
    if fixed is not None:
        if not Path(fixed).is_file():
            raise QueryError(
                f"--fixed is {fixed!r:.60}, expected the path of a fixed-set file, which lists the inputs that vary. "
                "To name inputs here, give --hold LIST (they stay) or --free LIST (they vary)."
            )
        return tuple(index_file(fixed, n, "input"))
    return None


def class_to_keep(keep: str, image: Image, predicted: int) -> int:
    """The class that ``--keep`` means for an image.

    Raises:
        QueryError: The label is asked for but unknown, or the text is no class.
    """
    if keep == "predicted":
        return predicted
    if keep == "true":
        if image.label is None:
            raise QueryError("--keep true needs labels, but inputs of a file have none. Give the class as a number.")
        return image.label
    if not keep.isdecimal() or len(keep) > 6:
        raise QueryError(f"--keep is {keep!r}, expected predicted, true or the number of a class.")
    return int(keep)


def limits_of(timeout: float | None) -> Limits:
    """Limits of one question."""
    if timeout is not None and not timeout > 0:
        raise QueryError(f"--timeout is {timeout:g}, expected a number of seconds above 0.")
    return Limits(seconds=timeout)


def answers(
    network: BinaryNetwork, questions: Sequence[Question], *, jobs: int, bar: bool, verb: str
) -> Iterator[Answer]:
    """The answers in the order of the questions, as they come.

    Args:
        network: What all questions are about.
        questions: Already checked.
        jobs: Processes. They are spawned, not forked: numba's and torch's threads do not survive a fork.
        bar: Whether a progress bar may show on stderr.
        verb: Its title.
    """
    from tqdm import tqdm

    progress = tqdm(total=len(questions), desc=verb, unit="question", delay=2, disable=None if bar else True)
    with progress:
        for answer in _computed(network, questions, min(jobs, len(questions))):
            progress.update()
            yield answer


def _computed(network: BinaryNetwork, questions: Sequence[Question], jobs: int) -> Iterator[Answer]:
    if jobs <= 1:
        yield from (question.answer(network) for question in questions)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(network,))
    waiting = deque[Future[Answer]]()
    try:
        # Few are under way at a time: cancelling many while the processes end upsets the pool's own thread.
        for question in questions:
            waiting.append(pool.submit(_answer, question))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ResourceLimitError("a process ended by itself, probably for lack of memory. Take fewer --jobs.") from None
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()  # a question may run for hours; nobody waits for its answer any more
        raise
    finally:
        pool.shutdown()


_network: BinaryNetwork | None = None


def _start(network: BinaryNetwork) -> None:
    """Runs once in each process; the interrupt of the terminal is for the parent."""
    global _network
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _network = network


def _answer(question: Question) -> Answer:
    assert _network is not None
    return question.answer(_network)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about an image, with its answer and its line."""

    image: Image
    predicted: int
    question: Question
    answer: Answer
    line: dict[str, Any]


def ask(
    verb: str,
    model: Path,
    region: Callable[[Sequence[int]], Region],
    *,
    keep: str,
    target: int | None,
    ties: str,
    engine: str,
    timeout: float | None,
    jobs: int,
    quiet: bool,
    as_json: bool,
    table: Table,
    **source: Any,
) -> list[Asked]:
    """Everything that verify, count and distance do between their options and their exit code.

    Args:
        verb: ``verify``, ``count`` or ``distance``.
        model: File of the network.
        region: Region around an input.
        keep: Text of ``--keep``.
        target: Class that the attacker wants, or None for any other than the one to keep.
        ties: Text of ``--ties``.
        engine: Name of the engine.
        timeout: Seconds for each question.
        jobs: Processes.
        quiet: No progress bar.
        as_json: Print JSON lines instead of the table.
        table: How people see the answers.
        **source: The options that name images.
    """
    if jobs < 1:
        raise QueryError(f"--jobs is {jobs}, expected at least 1.")
    if target is not None and keep != "predicted":
        raise QueryError("--keep and --target are both given, expected one: the class to keep or the class to reach.")
    network = load_network(model)
    if not network.domain.is_binary:
        raise UnsupportedError(
            f"{model} takes integer inputs, but verify, count and distance ask about regions of -1/+1 inputs. "
            "Use a network with a binary input domain."
        )
    images = choose(network, **source)
    predicted = [network.evaluate(image.x) for image in images.images]
    questions = []
    for image, own in zip(images.images, predicted, strict=True):
        kept = Untargeted(class_to_keep(keep, image, own))
        prop = kept if target is None else Targeted(target)
        question = Question(verb, region(image.x), prop, Ties(ties), engine, limits_of(timeout))
        question.about(network)  # refuses what makes no sense before any work
        questions.append(question)
    shared = envelope(verb, model, network)
    if not as_json:
        click.echo(f"{model}  {network.architecture}  sha256 {network.identity[:16]}  |  {images.description}")
        click.echo(table.question(questions[0]) + "\n")
        click.echo(table.header)
    asked = []
    # On a terminal the rows themselves show the progress.
    stream = answers(network, questions, jobs=jobs, bar=not quiet and not sys.stdout.isatty(), verb=verb)
    for image, own, question, answer in zip(images.images, predicted, questions, stream, strict=True):
        line = {
            **shared,
            **about_image(images, image, own),
            "question": question.about(network).to_json(),
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


def is_partial(question: Question, answer: Answer) -> bool:
    """True for UNKNOWN, and for bounds that a limit left open."""
    if isinstance(answer, Decision):
        return answer.verdict is Verdict.UNKNOWN
    if isinstance(answer, Distance):
        assert isinstance(question.region, HammingBall)
        return answer.upper is None and answer.lower <= question.region.radius  # else the whole ball was searched
    return answer.kind is not Kind.EXACT


def flipped(center: Sequence[int], x: Sequence[int]) -> list[int]:
    """Where two inputs differ."""
    return [i for i, (a, b) in enumerate(zip(center, x, strict=True)) if a != b]


def short_list(values: Sequence[int], most: int = 8) -> str:
    """The first few numbers of a list."""
    return ", ".join(map(str, values[:most])) + (f", ... ({len(values)})" if len(values) > most else "")


def in_region(question: Question) -> str:
    """The region and the tie rule in words; the image is another in each row."""
    ties = {
        Ties.LOWEST_INDEX: "ties go to the lowest class",
        Ties.COUNTEREXAMPLE: "a tie is adversarial",
        Ties.ROBUST: "a tie is not adversarial",
    }
    return f"{question.region}; {ties[question.ties]}".replace(f"radius {question.region.n} in", "any radius in")


def goal(question: Question, keep: str) -> str:
    """What the attacker wants, in words."""
    if isinstance(question.property, Targeted):
        return f"whose class is {question.property.target}"
    words = {"predicted": "the network's own class of the image", "true": "the true class"}
    return f"whose class is not {words.get(keep, keep)}"
