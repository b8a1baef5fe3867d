"""How people see the answers of count: the table of each analysis."""

from __future__ import annotations

from bnnverify.cli.questions import (
    FIRST_HEADERS,
    Asked,
    Question,
    Table,
    engine_columns,
    first_columns,
    flipped,
    goal,
    in_region,
    short_list,
)
from bnnverify.quantities import NoiseError, RadiusCounts, Samples
from bnnverify.query import Targeted
from bnnverify.regions import RealBox
from bnnverify.results import Count, Kind

_INDENT = " " * 21


def counts(keep: str) -> Table:
    """The table of plain counts; `keep` is the text of ``--keep``."""
    return Table(
        header=f"{FIRST_HEADERS}  {'adversarial':>14}  {'of':>14}  {'share':>9}  {'kind':<8}  {'engine':<15}     time",
        question=lambda one: f"How many inputs are there {goal(one, keep)}? In each {in_region(one)}.",
        row=_count_row,
        summary=lambda asked: _share_exact(asked, "counts"),
    )


def by_radius(keep: str) -> Table:
    """The table of all radii."""
    return Table(
        header=f"{FIRST_HEADERS}  {'radius':>6}  {'adversarial':>14}  {'of':>14}  {'density':>10}  {'at distance':>11}",
        question=lambda one: f"How many inputs are there {goal(one, keep)}? Radius by radius in each {in_region(one)}.",
        row=_radii_rows,
        summary=lambda asked: _share_exact(asked, "tables") + " Every line of a table is exact.",
    )


def samples(keep: str) -> Table:
    """The table of drawn inputs."""
    return Table(
        header=f"{FIRST_HEADERS}  {'drawn':>5}  {'class':>5}  flipped",
        question=lambda one: f"Inputs {goal(one, keep)}, drawn uniformly from each {in_region(one)}.",
        row=_samples_rows,
        summary=lambda asked: (
            f"{sum(len(_drawn(one).inputs) for one in asked)} inputs drawn and replayed; "
            "each was exactly as likely as every other."
        ),
    )


def noise(keep: str) -> Table:
    """The table of probabilities under noise."""
    return Table(
        header=f"{FIRST_HEADERS}  {'probability':<42}  {'flips':>7}  {'engine':<15}     time",
        question=lambda one: _noise_question(one, keep),
        row=_noise_row,
        summary=lambda asked: _share_exact(asked, "probabilities"),
    )


def _share_exact(asked: list[Asked], what: str) -> str:
    exact = sum(getattr(one.answer, "kind", None) is Kind.EXACT for one in asked)
    return f"{exact} of {len(asked)} {what} are exact" + ("." if exact == len(asked) else ", the others proved bounds.")


def _count_row(asked: Asked) -> str:
    answer = asked.answer
    assert isinstance(answer, Count)
    exact = answer.kind is Kind.EXACT
    number = f"{answer.lower:,}" if exact else f"{answer.lower:,}..{answer.upper:,}"
    share = f"{float(answer.density):9.3%}" if exact else f"{'':9}"
    row = f"{first_columns(asked)}  {number:>14}  {answer.region_size:>14,}  {share}  {answer.kind.value:<8}"
    row += f"  {engine_columns(asked)}"
    if answer.per_class is not None:
        parts = [f"{k}: {count:,}" for k, count in enumerate(answer.per_class) if count]
        row += f"\n{_INDENT}by class   {'  '.join(parts)}"
    if answer.per_radius is not None:
        row += f"\n{_INDENT}by distance  {'  '.join(f'{r}: {count:,}' for r, count in enumerate(answer.per_radius))}"
    return row + (f"\n{_INDENT}{answer.run.reason}" if answer.run.reason else "")


def _radii_rows(asked: Asked) -> str:
    answer = asked.answer
    assert isinstance(answer, RadiusCounts)
    rows = []
    for radius, count in enumerate(answer.balls):
        begin = first_columns(asked) if radius == 0 else " " * len(first_columns(asked))
        of, density = answer.ball_size(radius), float(answer.density(radius))
        shell = float(answer.shell_density(radius))
        rows.append(f"{begin}  {radius:>6}  {count:>14,}  {of:>14,}  {density:10.4%}  {shell:11.4%}")
    if answer.beyond is not None:
        lower, upper = answer.beyond
        rows.append(f"{_INDENT}radius {len(answer.shells)}: between {lower:,} and {upper:,}; {answer.run.reason}")
    return "\n".join([*rows, f"{_INDENT}{engine_columns(asked).strip()}"])


def _drawn(asked: Asked) -> Samples:
    assert isinstance(asked.answer, Samples)
    return asked.answer


def _samples_rows(asked: Asked) -> str:
    answer = _drawn(asked)
    if answer.adversarial is None:
        return f"{first_columns(asked)}  {answer.run.reason}"
    if answer.adversarial == 0:
        return f"{first_columns(asked)}  none: no input of the region is adversarial"
    rows = []
    for number, (x, predicted) in enumerate(zip(answer.inputs, answer.predicted, strict=True), start=1):
        begin = first_columns(asked) if number == 1 else " " * len(first_columns(asked))
        rows.append(f"{begin}  {number:>5}  {predicted:>5}  {short_list(flipped(asked.image.x, x), 12) or 'nothing'}")
    return "\n".join([*rows, f"{_INDENT}of {answer.adversarial:,}  {engine_columns(asked)}"])


def _noise_question(one: Question, keep: str) -> str:
    assert not isinstance(one.property, Targeted) and not isinstance(one.region, RealBox)
    words = {"predicted": "the network's own class of the image", "true": "the true class"}
    rate = one.detail["rate"]
    return (
        f"How likely is the class not {words.get(keep, keep)}, when each of {len(one.region.free)} inputs flips "
        f"with probability {rate}? From each {in_region(one)}."
    )


def _noise_row(asked: Asked) -> str:
    answer = asked.answer
    assert isinstance(answer, NoiseError)
    flips = "" if answer.radius is None else f"<= {answer.radius}"
    row = f"{first_columns(asked)}  {answer.probability!s:<42}  {flips:>7}  {engine_columns(asked)}"
    return row + (f"\n{_INDENT}{answer.run.reason}" if answer.run.reason else "")
