"""``bnnverify distance``: how near is the nearest adversarial input?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import (
    engine_options,
    image_options,
    keep_option,
    model_argument,
    output_options,
    ties_option,
)

if TYPE_CHECKING:
    from bnnverify.cli.questions import Asked

EXAMPLES = """\b
Examples:
  bnnverify distance net.npz --data digits --index 0:20
  bnnverify distance net.npz --data digits --index 0 --max-radius 4 --timeout 30 --json
"""


@click.command(epilog=EXAMPLES)
@model_argument
@image_options
@click.option("--max-radius", type=int, metavar="R", help="Look no further than this. Default: everywhere.")
@keep_option
@ties_option
@engine_options
@output_options
def command(model: Path, max_radius: int | None, **options: Any) -> int:
    """How many inputs must flip to change the class?

    The distance is exact: a replayed witness lies at it, and nothing nearer is adversarial. If a limit is reached, the
    proved lower bound is printed and the exit code is 3.
    """
    from bnnverify.cli import questions as q
    from bnnverify.regions import HammingBall

    table = q.Table(
        header=f"{q.FIRST_HEADERS}  {'distance':>8}  {'kind':<8}  {'witness':<34}  {'engine':<15}     time",
        question=lambda one: f"How near is an input {q.goal(one, options['keep'])}? Within each {q.in_region(one)}.",
        row=_row,
        summary=_summary,
    )

    def ball(x: Any) -> HammingBall:
        return HammingBall(tuple(x), len(x) if max_radius is None else max_radius)

    return q.limit_code(q.ask("distance", model, ball, table=table, target=None, **options))


def _row(asked: Asked) -> str:
    from bnnverify.cli.questions import engine_columns, first_columns, flipped, short_list
    from bnnverify.results import Distance, Kind

    answer = asked.answer
    assert isinstance(answer, Distance)
    number = str(answer.lower) if answer.kind is Kind.EXACT else f">= {answer.lower}"
    found = answer.run.reason
    if answer.witness is not None:
        found = f"class {answer.predicted}: flip {short_list(flipped(asked.image.x, answer.witness)) or 'nothing'}"
    return f"{first_columns(asked)}  {number:>8}  {answer.kind.value:<8}  {found:<34}  {engine_columns(asked)}"


def _summary(asked: list[Asked]) -> str:
    from bnnverify.results import Distance, Kind

    exact = [one.answer.lower for one in asked if isinstance(one.answer, Distance) and one.answer.kind is Kind.EXACT]
    spread = "; ".join(f"{exact.count(d)} at {d}" for d in sorted(set(exact)))
    return f"{len(exact)} of {len(asked)} distances are exact" + (f": {spread}." if spread else ".")
