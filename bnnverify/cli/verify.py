"""``bnnverify verify``: is there an adversarial input in the region?"""

from __future__ import annotations

from functools import partial
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
  bnnverify verify net.npz --data digits --index 0:20 --radius 2
  bnnverify verify net.npz --data digits --index 3 --radius 4 --target 8 --show
  bnnverify verify net.npz --input rows.txt --free 0:16 --json > verdicts.jsonl
"""


@click.command(epilog=EXAMPLES)
@model_argument
@image_options
@region_options
@click.option("--target", type=int, metavar="CLASS", help="Adversarial is this class only, not every other one.")
@keep_option
@ties_option
@engine_options
@click.option("--show", is_flag=True, help="Draw each counterexample: # is +1, . is -1, o and x mark changes.")
@click.option("--fail-on", type=click.Choice(["not-robust"]), help="Exit with code 1 if a verdict is not-robust.")
@output_options
def command(model: Path, show: bool, fail_on: str | None, **options: Any) -> int:
    """Is there an input in the region that changes the class?

    Every verdict is exact: robust is proved, and not-robust comes with an input that was replayed on the exact
    network. Unknown means that a limit was reached, and the exit code is 3.
    """
    from bnnverify.cli import questions as q
    from bnnverify.results import Decision, Verdict

    table = q.Table(
        header=f"{q.FIRST_HEADERS}  {'verdict':<10}  {'counterexample':<34}  {'engine':<15}     time",
        question=lambda one: f"Is there an input {q.goal(one, options['keep'])}? In each {q.in_region(one)}.",
        row=partial(_row, show=show),
        summary=_summary,
    )
    asked = q.ask("verify", model, table=table, **options)
    verdicts = [one.answer.verdict for one in asked if isinstance(one.answer, Decision)]
    if fail_on and Verdict.NOT_ROBUST in verdicts:
        return 1
    return q.limit_code(asked)


def _row(asked: Asked, *, show: bool) -> str:
    from bnnverify.cli.questions import engine_columns, first_columns, flipped, short_list
    from bnnverify.results import Decision

    answer = asked.answer
    assert isinstance(answer, Decision)
    found = answer.run.reason or "none, proved"
    if answer.counterexample is not None:
        found = (
            f"class {answer.predicted}: flip {short_list(flipped(asked.image.x, answer.counterexample)) or 'nothing'}"
        )
    row = f"{first_columns(asked)}  {answer.verdict.value:<10}  {found:<34}  {engine_columns(asked)}"
    if show and answer.counterexample is not None:
        row += "\n" + drawing(asked.image.x, answer.counterexample, asked.line["model"]["shape"])
    return row


def drawing(center: tuple[int, ...], x: tuple[int, ...], shape: list[int]) -> str:
    """The input and the counterexample side by side, in letters."""
    width = shape[-1] if len(shape) > 1 else min(len(center), 32)
    rows = []
    for start in range(0, len(center), width):
        before, after = center[start : start + width], x[start : start + width]
        left = "".join("#" if v == 1 else "." for v in before)
        right = "".join("#."[v != 1] if u == v else "ox"[v != 1] for u, v in zip(before, after, strict=True))
        rows.append(f"{'':21}{left}   {right}")
    return "\n".join(rows)


def _summary(asked: list[Asked]) -> str:
    from bnnverify.results import Decision, Verdict

    verdicts = [one.answer.verdict for one in asked if isinstance(one.answer, Decision)]
    parts = [f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict]
    return f"{', '.join(parts)} of {len(verdicts)}. Verdicts are exact: proved, or replayed on the exact network."
