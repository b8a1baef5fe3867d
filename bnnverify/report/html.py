"""The one-file HTML page: figures inline, tables, and the data themselves, with nothing to fetch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bnnverify.files import write_whole
from bnnverify.report import counting, figures
from bnnverify.report.lines import Line, of_type, outward
from bnnverify.report.rows import MOST_PAIRS, MOST_RADII, changed, common, image_source, is_picture, pair

TEMPLATE = "template.html.j2"


def write_report(lines: Sequence[Line], path: str | os.PathLike[str], *, title: str) -> None:
    """The page about these results, at `path`, whole or not at all.

    Args:
        lines: Result lines, checked by `bnnverify.report.lines.check`.
        path: Customarily ends in ``.html``.
        title: Heading.

    Raises:
        FormatError: The path cannot be written.
    """
    write_whole(path, page(lines, title=title).encode())


def page(lines: Sequence[Line], *, title: str) -> str:
    """The page as text; the same for the same results."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = network_names(lines)
    return environment.get_template(TEMPLATE).render(
        title=title,
        n_results=len(lines),
        networks=_networks(lines, names),
        data_sets=_data_sets(lines),
        accuracy=_accuracy(lines, names),
        brackets=[_bracket(line, names) for line in of_type(lines, "tolerance")],
        decisions=_decisions(lines, names),
        distances=_distances(lines, names),
        counts=[_count(line, names) for line in of_type(lines, "count")],
        radii=[counting.radii(line, names) for line in of_type(lines, "radius-counts")],
        safe=[counting.safe_distance(line, names) for line in of_type(lines, "safe-distance")],
        noise=[counting.noise(line, names) for line in of_type(lines, "noise")],
        samples=[counting.samples(line, names) for line in of_type(lines, "samples")],
        explanations=counting.explanations(lines, names),
        essential=[counting.essential(line, names) for line in of_type(lines, "essential")],
        pairs=_pairs(lines, names),
        commands=list(dict.fromkeys(line["command"] for line in lines)),
        versions=list(dict.fromkeys(", ".join(f"{k} {v}" for k, v in line["versions"].items()) for line in lines)),
        embedded=embedded(lines),
    )


def embedded(lines: Sequence[Line]) -> Markup:
    """The results as JSON that can stand inside a script element: no ``<`` is left that could end it."""
    text = json.dumps(list(lines), separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def network_names(lines: Iterable[Line]) -> dict[str, str]:
    """Identity -> a name that people can tell apart: the file's name and the architecture."""
    names: dict[str, str] = {}
    for line in lines:
        model = line["model"]
        stem = Path(model["path"]).stem
        name = stem if model["architecture"] in stem else f"{stem} ({model['architecture']})"
        if model["identity"] not in names:
            names[model["identity"]] = f"{name} {model['identity'][:6]}" if name in names.values() else name
    return names


def _networks(lines: Iterable[Line], names: dict[str, str]) -> list[dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    assumed: dict[str, dict[str, None]] = {}
    for line in lines:
        models[line["model"]["identity"]] = line["model"]
        assumed.setdefault(line["model"]["identity"], {}).update(dict.fromkeys(line["model"].get("assumed", ())))
    return [
        {
            "name": names[identity],
            "path": m["path"],
            "architecture": m["architecture"],
            "cells": f"{m['cells']:,}",
            "sha": identity,
            "assumed": list(assumed[identity]),
        }
        for identity, m in models.items()
    ]


def _data_sets(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Each data set once, its provenance as rows."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "data" in line:
            key = json.dumps(line["data"], sort_keys=True)
            data = line["data"]
            name = data.get("file") or f"{data.get('name')}, {data.get('split')} split"
            details = data.get("provenance") or {k: v for k, v in data.items() if k != "file"}
            found.setdefault(key, {"name": name, "details": list(details.items())})
    return list(found.values())


# Reliability.


def rate_of(faults: dict[str, Any]) -> float | None:
    """Where a fault model lies on the axis of bit error rates; None where no single number says it."""
    rates = [Fraction(value) for name, value in faults.items() if name.startswith("p") and isinstance(value, str)]
    return float(max(rates)) if rates else None


def _accuracy(lines: Iterable[Line], names: dict[str, str]) -> list[dict[str, Any]]:
    """One section for each kind of faults and each set of images, so that curves in a figure compare."""
    groups: dict[str, list[Line]] = {}
    for line in of_type(lines, "accuracy"):
        about = [line["question"]["faults"]["kind"], line["data"], line["images"]["indices"]]
        groups.setdefault(json.dumps(about, sort_keys=True), []).append(line)
    return [_accuracy_section(group, names) for group in groups.values()]


def _accuracy_section(group: list[Line], names: dict[str, str]) -> dict[str, Any]:
    faults, data = group[0]["question"]["faults"]["kind"], group[0]["data"]
    n = len(group[0]["images"]["indices"])
    networks = list(dict.fromkeys(line["model"]["identity"] for line in group))
    curves = [_curve([one for one in group if one["model"]["identity"] == i], names[i]) for i in networks]
    curves = [curve for curve in curves if curve.proved or curve.sampled]
    confidences = [one["answer"]["confidence"] for one in group if one["answer"]["kind"] == "sampled"]
    figure = None
    if curves:
        label = (
            "bit error rate p (probability that a cell flips)" if faults == "bit-flip" else "larger of the two rates"
        )
        drawn = figures.accuracy_figure(curves, x_label=label, confidence=max(confidences, default=None))
        figure = image_source(figures.svg(drawn))
    where = data.get("file") or f"{data.get('name')}, {data.get('split')} split"
    return {
        "title": {"bit-flip": "symmetric bit flips", "asymmetric-flip": "asymmetric bit flips"}.get(faults, faults),
        "images": f"{n} image{'s' if n != 1 else ''} of {where}",
        "figure": figure,
        "rows": _accuracy_rows(group, names),
    }


def _curve(group: list[Line], name: str) -> figures.Curve:
    proved, sampled = [], []
    for line in group:
        rate, answer = rate_of(line["question"]["faults"]), line["answer"]
        if not rate:
            continue  # p = 0 has no place on a logarithmic axis; the dashed line shows it
        low, high = (float(Fraction(answer[end])) for end in ("lower", "upper"))
        if answer["kind"] == "sampled":
            middle = answer["hits"] / answer["samples"] if answer.get("samples") else (low + high) / 2
            sampled.append((rate, middle, low, high))
        else:
            proved.append((rate, low, high))
    images = group[0]["images"]
    return figures.Curve(name, images["clean_correct"] / len(images["indices"]), tuple(proved), tuple(sampled))


def _accuracy_rows(group: list[Line], names: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each network and rate: the proved bounds, and the sampled interval beside them."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in group:
        identity, faults, answer = line["model"]["identity"], line["question"]["faults"], line["answer"]
        images = line["images"]
        row = rows.setdefault(
            (identity, json.dumps(faults)),
            {
                "network": names[identity],
                "rate": _rate_text(faults),
                "order": (names[identity], rate_of(faults) or 0.0),
                "clean": f"{images['clean_correct'] / len(images['indices']):.2%}",
                "kind": "",
                "proved": "",
                "width": "",
                "within": "",
                "sampled": "",
                "chips": "",
            },
        )
        bounds = "..".join(outward(answer, 6))
        if answer["kind"] == "sampled":
            row["sampled"] = bounds
            row["chips"] = f"{answer.get('chips') or answer.get('samples') or ''} at {100 * answer['confidence']:g}%"
        else:
            row["kind"], row["proved"] = answer["kind"], bounds
            row["width"] = f"{float(Fraction(answer['upper']) - Fraction(answer['lower'])):.1e}"
            if "images_within_tolerance" in answer:
                row["within"] = f"{answer['images_within_tolerance']}/{len(images['indices'])}"
    return sorted(rows.values(), key=lambda row: row["order"])


def _bracket(line: Line, names: dict[str, str]) -> dict[str, Any]:
    answer = line["answer"]
    row = {
        "network": names[line["model"]["identity"]],
        "target": f"{float(Fraction(line['question']['target_accuracy'])):.4g}",
        "note": answer["run"]["reason"],
    }
    for side, end in (("ok", 0), ("fail", 1)):
        known = answer[f"p_{side}"] is not None
        row[f"p_{side}"] = f"{float(Fraction(answer[f'p_{side}'])):.4g}" if known else "not found"
        row[f"accuracy_{side}"] = outward(answer[f"accuracy_{side}"], 6)[end] if known else ""
    return row


def _rate_text(faults: dict[str, Any]) -> str:
    named = {k: f"{float(Fraction(v)):.3g}" for k, v in faults.items() if k != "kind" and isinstance(v, str)}
    if not named:
        return str(faults["kind"])
    return named["p"] if list(named) == ["p"] else ", ".join(f"{k} {v}" for k, v in named.items())


# Robustness.


def _decisions(lines: Iterable[Line], names: dict[str, str]) -> dict[str, Any]:
    rows, summary = [], dict[tuple[str, str], dict[str, int]]()
    for line in of_type(lines, "decision"):
        answer, row = line["answer"], common(line, names)
        row |= {
            "verdict": answer["verdict"],
            "to": answer["predicted"],
            "changes": changed(line, answer["counterexample"]),
        }
        rows.append(row)
        tally = summary.setdefault((row["network"], row["region"]), {"robust": 0, "not-robust": 0, "unknown": 0})
        tally[answer["verdict"]] += 1
    totals = [
        {
            "network": network,
            "region": region,
            "n": sum(tally.values()),
            **{k.replace("-", "_"): v for k, v in tally.items()},
        }
        for (network, region), tally in summary.items()
    ]
    return {"rows": rows, "summary": totals}


def _distances(lines: Iterable[Line], names: dict[str, str]) -> dict[str, Any]:
    found = of_type(lines, "distance")
    rows, lower_bounds = [], dict[str, list[int]]()
    for line in found:
        answer, row = line["answer"], common(line, names)
        exact = answer["kind"] == "exact"
        row |= {
            "kind": answer["kind"],
            "distance": str(answer["lower"]) if exact else f"at least {answer['lower']}",
            "to": answer["predicted"],
            "changes": changed(line, answer["witness"]),
        }
        rows.append(row)
        lower_bounds.setdefault(row["network"], []).append(answer["lower"])
    figure = None
    furthest = max((max(bounds) for bounds in lower_bounds.values()), default=0)
    if len(found) > 1 and furthest <= MOST_RADII:
        shares = [
            [sum(bound > r for bound in bounds) / len(bounds) for r in range(furthest + 1)]
            for bounds in lower_bounds.values()
        ]
        figure = image_source(figures.svg(figures.distance_figure(list(lower_bounds), shares)))
    return {"rows": rows, "figure": figure}


def _count(line: Line, names: dict[str, str]) -> dict[str, Any]:
    answer, row = line["answer"], common(line, names)
    exact = answer["kind"] == "exact"
    per_class = answer["per_class"] or []
    return row | {
        "kind": answer["kind"],
        "number": f"{answer['lower']:,}" if exact else f"{answer['lower']:,} to {answer['upper']:,}",
        "size": f"{answer['region_size']:,}",
        "share": f"{100 * answer['lower'] / answer['region_size']:.3g}%" if exact else "",
        "per_class": [(k, f"{count:,}") for k, count in enumerate(per_class) if count],
        "per_radius": [(r, f"{count:,}") for r, count in enumerate(answer["per_radius"] or [])],
    }


def _pairs(lines: Iterable[Line], names: dict[str, str]) -> list[dict[str, str]]:
    """For each network a grid of images beside their nearest counterexamples; distances first, each image once."""
    pairs: dict[str, dict[tuple[int, str], figures.Pair]] = {}
    for line in [*of_type(lines, "distance"), *of_type(lines, "decision")]:
        point = line["answer"].get("witness") or line["answer"].get("counterexample")
        if point is None or not is_picture(line) or point == line["image"]["input"]:
            continue
        key = (line["image"]["index"], json.dumps(line["data"], sort_keys=True))
        group = pairs.setdefault(line["model"]["identity"], {})
        if key not in group and len(group) < MOST_PAIRS:
            group[key] = pair(line, point, line["answer"]["predicted"])
    return [
        {"network": names[identity], "figure": image_source(figures.svg(figures.pairs_figure(list(group.values()))))}
        for identity, group in pairs.items()
    ]
