"""Sections about counting and explanations: all radii, safe distances, noise, samples, reasons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from bnnverify.quantities import NoiseError, RadiusCounts, SafeDistance, Samples
from bnnverify.report import figures
from bnnverify.report.lines import Line, of_type
from bnnverify.report.rows import MOST_PAIRS, changed, common, image_source, is_picture, pair
from bnnverify.results import EssentialFeatures, Explanation, Kind, answer_from_json

Row = dict[str, Any]


def radii(line: Line, names: dict[str, str]) -> Row:
    """Counts and densities at every radius around one image."""
    answer = answer_from_json(line["answer"])
    assert isinstance(answer, RadiusCounts)
    rows = [
        {
            "radius": radius,
            "adversarial": f"{ball:,}",
            "of": f"{answer.ball_size(radius):,}",
            "density": _percent(answer.density(radius)),
            "at": f"{answer.shells[radius]:,}",
            "shell": _percent(answer.shell_density(radius)),
        }
        for radius, ball in enumerate(answer.balls)
    ]
    beyond = ""
    if answer.beyond is not None:
        beyond = f"radius {len(rows)}: between {answer.beyond[0]:,} and {answer.beyond[1]:,} adversarial inputs, proved"
    return common(line, names) | {"kind": answer.kind.value, "radii": rows, "beyond": beyond}


def safe_distance(line: Line, names: dict[str, str]) -> Row:
    """How far around one image the density stays within a tolerance."""
    answer = answer_from_json(line["answer"])
    assert isinstance(answer, SafeDistance)
    exact = answer.kind is Kind.EXACT
    then = ""
    if answer.violation is not None and answer.upper is not None:
        then = f"at least {_percent(answer.violation)} at radius {answer.upper + 1}"
    return common(line, names) | {
        "kind": answer.kind.value,
        "tolerance": f"{float(answer.tolerance):g}",
        "distance": str(answer.lower) if exact else f"at least {answer.lower}",
        "then": then,
    }


def noise(line: Line, names: dict[str, str]) -> Row:
    """How likely noise on the inputs changes the class of one image."""
    answer = answer_from_json(line["answer"])
    assert isinstance(answer, NoiseError)
    return common(line, names) | {
        "kind": answer.kind.value,
        "rate": f"{float(Fraction(line['question']['rate'])):g}",
        "probability": str(answer.probability),
        "keep": answer.label,
        "flips": "all" if answer.radius is None else f"up to {answer.radius}",
    }


def samples(line: Line, names: dict[str, str]) -> Row:
    """Adversarial inputs of one region, drawn uniformly."""
    answer = answer_from_json(line["answer"])
    assert isinstance(answer, Samples)
    drawn = list(zip(answer.inputs, answer.predicted, strict=True))
    figure = None
    if drawn and is_picture(line):
        pairs = [pair(line, x, predicted) for x, predicted in drawn[:MOST_PAIRS]]
        figure = image_source(figures.svg(figures.pairs_figure(pairs)))
    return common(line, names) | {
        "kind": answer.kind.value,
        "adversarial": "not known" if answer.adversarial is None else f"{answer.adversarial:,}",
        "size": f"{answer.region_size:,}",
        "seed": "" if answer.seed is None else answer.seed,
        "drawn": [{"to": predicted, "changes": changed(line, x) or "nothing"} for x, predicted in drawn],
        "shown": min(len(drawn), MOST_PAIRS),
        "figure": figure,
    }


def explanations(lines: Sequence[Line], names: dict[str, str]) -> Row:
    """Inputs that force the class: a row for each answer, and for each network a figure of the first few."""
    found = of_type(lines, "explanation")
    essentials = {_about(line): line["answer"]["essential"] for line in of_type(lines, "essential")}
    panels: dict[str, list[figures.ReasonPanel]] = {}
    for line in found:
        group = panels.setdefault(line["model"]["identity"], [])
        if len(line["model"]["shape"]) > 1 and len(group) < MOST_PAIRS:
            group.append(_panel(line, essentials.get(_about(line), ())))
    return {
        "rows": [_explanation(line, names) for line in found],
        "figures": [
            {"network": names[identity], "figure": image_source(figures.svg(figures.reasons_figure(group)))}
            for identity, group in panels.items()
            if group
        ],
    }


def _explanation(line: Line, names: dict[str, str]) -> Row:
    answer = answer_from_json(line["answer"])
    assert isinstance(answer, Explanation)
    check = answer.run.statistics.get("check")
    return common(line, names) | {
        "kind": answer.kind.value,
        "kept": len(answer.kept),
        "needed": len(answer.needed),
        "of": answer.n_free,
        "indices": ", ".join(map(str, answer.kept)) or "none: the region is robust",
        "checked": ""
        if check is None
        else "yes"
        if check["prime"]
        else "not settled"
        if not _failed(check)
        else "FAILED",
    }


def _failed(check: Row) -> bool:
    return check["sufficient"] == "not-robust" or bool(check["redundant"])


def _panel(line: Line, essential_inputs: Sequence[int]) -> figures.ReasonPanel:
    answer, image = line["answer"], line["image"]
    words = f"{len(answer['kept'])} of {answer['n_free']} kept" + (", maybe not minimal" if answer["undecided"] else "")
    title = f"#{image['index']}: {image['predicted']}\n{words}"
    width = line["model"]["shape"][-1]
    return figures.ReasonPanel(image["input"], width, answer["kept"], answer["undecided"], essential_inputs, title)


def essential(line: Line, names: dict[str, str]) -> Row:
    """Inputs that the class of one image never goes without."""
    answer = answer_from_json(line["answer"])
    assert isinstance(answer, EssentialFeatures)
    values = zip(answer.essential, answer.values, strict=True)
    listed = ", ".join(f"{i} ({'+1' if v == 1 else '-1'})" for i, v in values)
    if answer.witness is None and not answer.run.reason:
        listed = "no input of the region has the class"
    return common(line, names) | {
        "kind": answer.kind.value,
        "essential": len(answer.essential),
        "of": answer.n_free,
        "undecided": len(answer.undecided),
        "indices": listed,
    }


def _about(line: Line) -> str:
    """Network, image, region and property: two answers with the same belong together."""
    question = line["question"]
    about = [line["model"]["identity"], line["image"]["input"]]
    return json.dumps([*about, question["region"], question["property"], question["ties"]], sort_keys=True)


def _percent(share: Fraction) -> str:
    """A share in percent, to four digits; what is neither nothing nor all never looks so.

    >>> _percent(Fraction(735, 679121)), _percent(Fraction(0)), _percent(Fraction(10**9 - 1, 10**9))
    ('0.1082%', '0%', 'almost 100%')
    """
    text = f"{100 * float(share):.4g}%"
    return "almost 100%" if text == "100%" and share != 1 else text
