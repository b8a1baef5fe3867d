"""``bnnverify count``: how many adversarial inputs does the region hold?"""

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
    region_options,
    ties_option,
)

if TYPE_CHECKING:
    from bnnverify.cli.questions import Asked

EXAMPLES = """\b
Examples:
  bnnverify count net.npz --data digits --index 0:5 --radius 3
  bnnverify count net.npz --data digits --index 0 --free 0:24 --engine bdd --json
  bnnverify count net.npz --data digits --index 0 --whole-cube --timeout 60
  bnnverify count models/NAME --input instance.txt --hamming 3
"""


@click.command(epilog=EXAMPLES)
@model_argument
@image_options
@region_options
@click.option("--target", type=int, metavar="CLASS", help="Count inputs of this class only, not of every other one.")
@keep_option
@ties_option
@engine_options
@output_options
def command(model: Path, **options: Any) -> int:
    """How many inputs of the region change the class, and to which?

    Counts are exact integers of any size. If a limit is reached, two proved bounds are printed and the exit code is 3.
    """
    from bnnverify.cli import questions as q

    table = q.Table(
        header=f"{q.FIRST_HEADERS}  {'adversarial':>14}  {'of':>14}  {'share':>9}  {'kind':<8}  {'engine':<15}"
        "     time",
        question=lambda one: f"How many inputs are there {q.goal(one, options['keep'])}? In each {q.in_region(one)}.",
        row=_row,
        summary=_summary,
    )
    return q.limit_code(q.ask("count", model, table=table, **options))


def _row(asked: Asked) -> str:
    from bnnverify.cli.questions import engine_columns, first_columns
    from bnnverify.results import Count, Kind

    answer = asked.answer
    assert isinstance(answer, Count)
    exact = answer.kind is Kind.EXACT
    number = f"{answer.lower:,}" if exact else f"{answer.lower:,}..{answer.upper:,}"
    share = f"{float(answer.density):9.3%}" if exact else f"{'':9}"
    row = f"{first_columns(asked)}  {number:>14}  {answer.region_size:>14,}  {share}  {answer.kind.value:<8}"
    row += f"  {engine_columns(asked)}"
    if answer.per_class is not None:
        parts = [f"{k}: {count:,}" for k, count in enumerate(answer.per_class) if count]
        row += f"\n{'':21}by class   {'  '.join(parts)}"
    if answer.per_radius is not None:
        row += f"\n{'':21}by distance  {'  '.join(f'{r}: {count:,}' for r, count in enumerate(answer.per_radius))}"
    return row + (f"\n{'':21}{answer.run.reason}" if answer.run.reason else "")


def _summary(asked: list[Asked]) -> str:
    from bnnverify.results import Count, Kind

    exact = sum(isinstance(one.answer, Count) and one.answer.kind is Kind.EXACT for one in asked)
    return f"{exact} of {len(asked)} counts are exact" + ("." if exact == len(asked) else ", the others proved bounds.")
