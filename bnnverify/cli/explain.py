"""``bnnverify explain``: which inputs force the class, and which does it never go without?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from bnnverify.cli.outputs import require_outputs
from bnnverify.cli.verb import IMAGES, Excludes, Verb
from bnnverify.errors import QueryError

if TYPE_CHECKING:
    from bnnverify.cli.questions import Asked, Question
    from bnnverify.regions import Region

EXAMPLES = """\b
Examples:
  bnnverify explain net.npz --data digits --index 3 --radius 4 --show
  bnnverify explain net.npz --data digits --index 3 --whole-cube --timeout 60
  bnnverify explain net.npz --data digits --index 0:8 --radius 3 --check --figure why.svg
  bnnverify explain net.npz --data digits --index 3 --free 0:20 --essential --json
"""

RULES = (*IMAGES, Excludes("show", ("as_json",), "a drawing is for people; --json has every input in full"))

_INDENT = " " * 21


@click.command(cls=Verb, epilog=EXAMPLES, rules=RULES)
@model_argument
@image_options
@region_options
@keep_option
@ties_option
@click.option(
    "--order",
    type=click.Choice(["influence", "index", "random"]),
    default="influence",
    show_default=True,
    help="Which inputs to give up first: the least influential, which makes small sets; the first; or by --seed.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="SEED", help="Of --order random.")
@click.option(
    "--essential", is_flag=True, help="Also the inputs that have one value wherever the region has the class."
)
@click.option("--check", is_flag=True, help="Prove each explanation again from scratch: it suffices, none is spare.")
@click.option(
    "--show", is_flag=True, help="Draw what is kept beside the image: # is +1, . is -1, ? is not proved needed."
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw all explanations over the images, into a .png or .svg file.",
)
@engine_options
@output_options
def command(
    model: Path,
    region: Callable[[Sequence[int]], Region],
    order: str,
    seed: int,
    essential: bool,
    check: bool,
    show: bool,
    figure: Path | None,
    **options: Any,
) -> int:
    """Which inputs force the class within the region?

    Name a region: --radius, --free, --hold, --fixed or --whole-cube. What is kept is a prime implicant: whatever the
    other inputs of the region do, the class stays, and none of those kept can be dropped; both are proved. If a limit
    is reached, or after Ctrl-C, what is kept still forces the class, but may be more than it takes (exit codes 3 and
    130).
    """
    from bnnverify.cli import questions as q

    if figure is not None:
        if figure.suffix not in (".png", ".svg"):
            raise QueryError(f"--figure is {figure}, expected a name that ends in .png or .svg.")
        require_outputs({"--figure": figure}, inputs=[model])
    ask = partial(q.ask, "explain", model, region, target=None, **options)
    keep = options["keep"]
    implicants = q.Table(
        header=f"{q.FIRST_HEADERS}  {'kept':>5}  {'of':>5}  {'prime':<14}  {'engine':<22}     time",
        question=lambda one: f"Which inputs exclude an input {q.goal(one, keep)}? In each {q.in_region(one)}.",
        row=partial(_row, show=show),
        summary=_summary,
    )
    detail = {"order": order, "seed": seed, "check": check}
    asked = ask(table=implicants, analysis="prime-implicant", detail=detail)
    features: list[Asked] = []
    if essential:
        table = q.Table(
            header=f"{q.FIRST_HEADERS}  {'essential':>9}  {'of':>5}  {'undecided':>9}  {'engine':<22}     time",
            question=partial(_essential_question, keep=keep),
            row=partial(_essential_row, show=show),
            summary=_essential_summary,
        )
        if not options["as_json"]:
            click.echo()
        features = ask(table=table, analysis="essential-features", detail={"seed": seed})
    if figure is not None:
        _draw(figure, asked, features)
    return q.limit_code(asked + features)


def _row(asked: Asked, *, show: bool) -> str:
    from bnnverify.cli.questions import first_columns, short_list
    from bnnverify.results import Explanation

    answer = asked.answer
    assert isinstance(answer, Explanation)
    prime = "yes, proved" if answer.is_prime else f"{len(answer.needed)} are needed"
    row = f"{first_columns(asked)}  {len(answer.kept):>5}  {answer.n_free:>5}  {prime:<14}  {_engine_columns(asked)}"
    row += f"\n{_INDENT}{short_list(answer.kept, 16) or 'no input needs to be kept: the region is robust'}"
    if "check" in answer.run.statistics:
        found = answer.run.statistics["check"]
        words = "sufficient and minimal" if found["prime"] else f"{found['sufficient']}; {found['reason']}"
        row += f"\n{_INDENT}checked from scratch in {found['seconds']:.2f} s: {words}"
    if answer.run.reason:
        row += f"\n{_INDENT}{answer.run.reason}: what is kept forces the class, but may be more than it takes"
    if show:
        row += "\n" + drawing(asked.image.x, answer.kept, answer.undecided, asked.line["model"]["shape"])
    return row


def _engine_columns(asked: Asked) -> str:
    return f"{asked.answer.run.engine:<22} {asked.answer.run.seconds:8.2f} s"


def _summary(asked: list[Asked]) -> str:
    from bnnverify.results import Explanation

    prime = sum(isinstance(one.answer, Explanation) and one.answer.is_prime for one in asked)
    rest = "" if prime == len(asked) else ", the others force the class but may not be minimal"
    return f"{prime} of {len(asked)} explanations are prime, proved{rest}."


def _essential_question(one: Question, *, keep: str) -> str:
    from bnnverify.cli.questions import in_region

    words = {"predicted": "the network's own class of the image", "true": "the true class"}
    return f"Which inputs have one value wherever the class is {words.get(keep, keep)}? In each {in_region(one)}."


def _essential_row(asked: Asked, *, show: bool) -> str:
    from bnnverify.cli.questions import first_columns, short_list
    from bnnverify.results import EssentialFeatures

    answer = asked.answer
    assert isinstance(answer, EssentialFeatures)
    numbers = f"{len(answer.essential):>9}  {answer.n_free:>5}  {len(answer.undecided):>9}"
    row = f"{first_columns(asked)}  {numbers}  {_engine_columns(asked)}"
    if answer.witness is None and not answer.run.reason:
        return f"{row}\n{_INDENT}no input of the region has the class"
    if answer.essential:
        row += f"\n{_INDENT}{short_list(answer.essential, 16)}"
    if answer.run.reason:
        row += f"\n{_INDENT}{answer.run.reason}"
    if show and answer.witness is not None:
        row += "\n" + drawing(answer.witness, answer.essential, (), asked.line["model"]["shape"])
    return row


def _essential_summary(asked: list[Asked]) -> str:
    from bnnverify.results import EssentialFeatures, Kind

    complete = sum(isinstance(one.answer, EssentialFeatures) and one.answer.kind is Kind.EXACT for one in asked)
    return f"{complete} of {len(asked)} lists of essential features are complete; each feature listed is proved."


def drawing(x: Sequence[int], kept: Sequence[int], undecided: Sequence[int], shape: Sequence[int]) -> str:
    """The input, and beside it what is kept of it, in letters."""
    width = shape[-1] if len(shape) > 1 else min(len(x), 32)
    letters = ["#" if v == 1 else "." for v in x]
    beside = [" "] * len(x)
    for i in kept:
        beside[i] = letters[i]
    for i in undecided:
        beside[i] = "?"
    rows = (slice(start, start + width) for start in range(0, len(x), width))
    return "\n".join(f"{_INDENT}{''.join(letters[row])}   {''.join(beside[row])}".rstrip() for row in rows)


def _draw(path: Path, asked: list[Asked], features: list[Asked]) -> None:
    from bnnverify.report.figures import ReasonPanel, reasons_figure, save
    from bnnverify.results import EssentialFeatures, Explanation

    panels = []
    for number, one in enumerate(asked):
        answer, shape = one.answer, one.line["model"]["shape"]
        assert isinstance(answer, Explanation)
        other = features[number].answer if features else None
        essential = other.essential if isinstance(other, EssentialFeatures) else ()
        width = shape[-1] if len(shape) > 1 else min(len(one.image.x), 32)
        words = f"{len(answer.kept)} of {answer.n_free} kept" + ("" if answer.is_prime else ", maybe not minimal")
        title = f"image {one.image.index}, class {one.predicted}\n{words}"
        panels.append(ReasonPanel(one.image.x, width, answer.kept, answer.undecided, essential, title))
    save(reasons_figure(panels), path)
