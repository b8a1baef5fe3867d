"""``bnnverify distance``: how near is the nearest adversarial input?"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import (
    deciding_engine_options,
    image_options,
    keep_option,
    model_argument,
    one_rate,
    output_options,
    ties_option,
)
from bnnverify.cli.verb import IMAGES, Excludes, Verb

if TYPE_CHECKING:
    from bnnverify.cli.images import Image
    from bnnverify.cli.questions import Asked, Question
    from bnnverify.network import BinaryNetwork
    from bnnverify.regions import PixelBox
    from bnnverify.results import Distance

EXAMPLES = """\b
Examples:
  bnnverify distance net.npz --data digits --index 0:20
  bnnverify distance net.npz --data digits --index 0 --max-radius 4 --timeout 30 --json
  bnnverify distance net.npz --data digits --index 0:5 --tolerance 0.01 --max-radius 5
  bnnverify distance pixels.npz --data mnist --index 0:5 --linf --timeout 60 --jobs 2
"""

RULES = (*IMAGES, Excludes("tolerance", ("linf",), "a safe distance is about Hamming balls"))


@click.command(cls=Verb, epilog=EXAMPLES, rules=RULES)
@model_argument
@image_options
@click.option("--max-radius", type=int, metavar="R", help="Look no further than this. Default: everywhere.")
@click.option("--linf", is_flag=True, help="Of pixels: the least change of all of them at once, in their own units.")
@click.option(
    "--tolerance",
    metavar="SHARE",
    help="Ask for the maximal safe distance instead: the largest r such that in every ball of radius up to r at most "
    "this share of the inputs is adversarial, such as 0.01.",
)
@keep_option
@ties_option
@deciding_engine_options
@output_options
def command(model: Path, max_radius: int | None, linf: bool, tolerance: str | None, **options: Any) -> int:
    """How many inputs must flip to change the class? With --linf: by how much must pixels change?

    The distance is exact: a replayed witness lies at it, and nothing nearer is adversarial. If a limit is reached, or
    after Ctrl-C, the proved lower bound is printed (exit codes 3 and 130). With --tolerance 0.01 the question is up to
    which radius at most 1 % of every ball is adversarial.
    """
    from bnnverify.cli import questions as q
    from bnnverify.regions import HammingBall

    def ball(x: Any) -> HammingBall:
        return HammingBall(tuple(x), len(x) if max_radius is None else max_radius)

    if linf:
        options |= {"region": None, "box": partial(_box, max_radius=max_radius)}
        table = _linf_table(q, max_radius, options["keep"])
        return q.limit_code(q.ask("distance", model, table=table, target=None, analysis="linf-distance", **options))
    if tolerance is not None:
        detail = {"tolerance": one_rate(tolerance, "--tolerance")}
        asked = q.ask(
            "distance",
            model,
            region=ball,
            table=_safe_table(q, detail["tolerance"], options["keep"]),
            target=None,
            analysis="safe-distance",
            detail=detail,
            **options,
        )
        return q.limit_code(asked)
    table = q.Table(
        header=f"{q.FIRST_HEADERS}  {'distance':>8}  {'kind':<8}  {'witness':<34}  {'engine':<15}     time",
        question=lambda one: f"How near is an input {q.goal(one, options['keep'])}? Within each {q.in_region(one)}.",
        row=_row,
        summary=_summary,
    )

    return q.limit_code(q.ask("distance", model, ball, table=table, target=None, **options))


def _row(asked: Asked) -> str:
    from bnnverify.cli.questions import engine_columns, first_columns, flipped, short_list
    from bnnverify.results import Distance

    answer = asked.answer
    assert isinstance(answer, Distance)
    number = _number(answer)
    found = answer.run.reason
    if answer.witness is not None:
        found = f"class {answer.predicted}: flip {short_list(flipped(asked.image.x, answer.witness)) or 'nothing'}"
    return f"{first_columns(asked)}  {number:>8}  {answer.kind.value:<8}  {found:<34}  {engine_columns(asked)}"


def _number(answer: Distance) -> str:
    """The distance, or its bracket."""
    from bnnverify.results import Kind

    number = str(answer.lower) if answer.kind is Kind.EXACT else f">= {answer.lower}"
    if answer.upper is not None and answer.upper > answer.lower:
        number = f"{answer.lower}..{answer.upper}"
    return number


def _box(network: BinaryNetwork, image: Image, *, max_radius: int | None) -> PixelBox:
    """All images that differ by at most `max_radius` in every pixel.

    Raises:
        QueryError: The network takes signs.
    """
    from bnnverify.errors import QueryError
    from bnnverify.regions import PixelBox

    if network.domain.is_binary:
        raise QueryError("--linf is about pixels, but the network takes -1/+1 inputs: leave it out to count flips.")
    everywhere = int((network.domain.upper - network.domain.lower).max())
    return PixelBox.linf(image.x, everywhere if max_radius is None else max_radius, network.domain)


def _linf_table(q: Any, max_radius: int | None, keep: str) -> Any:
    """The table of distances in pixel values."""
    from bnnverify.results import Distance

    up_to = "" if max_radius is None else f" Up to {max_radius};"

    def question(one: Question) -> str:
        text = f"By how much must inputs change, each at most by that in its own units, for one {q.goal(one, keep)}?"
        return f"{text}{up_to} {q.tie_rule(one)}." if up_to else f"{text} {q.tie_rule(one).capitalize()}."

    def row(asked: Asked) -> str:
        answer = asked.answer
        assert isinstance(answer, Distance)
        found = answer.run.reason
        if answer.witness is not None:
            changed = len(q.flipped(asked.image.x, answer.witness))
            found = f"class {answer.predicted}: {changed} of {len(answer.witness)} inputs change"
        number = _number(answer)
        return f"{q.first_columns(asked)}  {number:>8}  {answer.kind.value:<8}  {found:<34}  {q.engine_columns(asked)}"

    header = f"{q.FIRST_HEADERS}  {'distance':>8}  {'kind':<8}  {'witness':<34}  {'engine':<15}     time"
    return q.Table(header=header, question=question, row=row, summary=_summary)


def _summary(asked: list[Asked]) -> str:
    from bnnverify.results import Distance, Kind

    exact = [one.answer.lower for one in asked if isinstance(one.answer, Distance) and one.answer.kind is Kind.EXACT]
    spread = "; ".join(f"{exact.count(d)} at {d}" for d in sorted(set(exact)))
    return f"{len(exact)} of {len(asked)} distances are exact" + (f": {spread}." if spread else ".")


def _safe_table(q: Any, tolerance: Fraction, keep: str) -> Any:
    """The table of maximal safe distances."""
    return q.Table(
        header=f"{q.FIRST_HEADERS}  {'safe up to':>10}  {'kind':<8}  {'then':<34}  {'engine':<15}     time",
        question=lambda one: (
            f"Up to which radius is at most {tolerance} of every ball made of inputs "
            f"{q.goal(one, keep)}? Within each {q.in_region(one)}."
        ),
        row=_safe_row,
        summary=_safe_summary,
    )


def _safe_row(asked: Asked) -> str:
    from bnnverify.cli.questions import engine_columns, first_columns
    from bnnverify.quantities import SafeDistance
    from bnnverify.results import Kind

    answer = asked.answer
    assert isinstance(answer, SafeDistance)
    number = str(answer.lower) if answer.kind is Kind.EXACT else f">= {answer.lower}"
    found = answer.run.reason or "every input is in"
    if answer.violation is not None:
        found = f"at least {float(answer.violation):.4%} at radius {answer.lower + 1}"
    return f"{first_columns(asked)}  {number:>10}  {answer.kind.value:<8}  {found:<34}  {engine_columns(asked)}"


def _safe_summary(asked: list[Asked]) -> str:
    from bnnverify.quantities import SafeDistance
    from bnnverify.results import Kind

    exact = sum(isinstance(one.answer, SafeDistance) and one.answer.kind is Kind.EXACT for one in asked)
    return f"{exact} of {len(asked)} safe distances are exact" + (
        "." if exact == len(asked) else ", the others bounds."
    )
