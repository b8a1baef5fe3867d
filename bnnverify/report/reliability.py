"""Figure of the accuracy of faulty chips: what is proved as a band, what was sampled as points beside it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bnnverify.errors import QueryError
from bnnverify.report.figures import STYLE, Curve, accuracy_figure, save

SUFFIXES = (".png", ".svg")
_WORDS = {"error": "accuracy, mean over all chips", "change": "images that keep their class, mean over all chips"}


def require_figure(path: Path, option: str = "--figure") -> None:
    """Refuses a file that is neither .png nor .svg.

    Raises:
        QueryError: It has another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise QueryError(f"{option} is {path}, expected a name that ends in .png or .svg.")


def reliability_figure(
    curves: Sequence[Curve],
    *,
    title: str,
    event: str = "error",
    confidence: float | None = None,
    x_label: str = "bit error rate p (probability that a cell flips)",
) -> Figure:
    """Proved bands, sampled points with error bars and clean accuracies over a logarithmic axis.

    Args:
        curves: One for each network; points at rate 0, which the axis does not have, are left out.
        title: Says which model, data and event.
        event: ``error`` (against the label) or ``change`` (against the fault-free class).
        confidence: Level of the error bars; None if nothing was sampled.
        x_label: Below the axis.

    Raises:
        QueryError: No curve has a point at a rate above 0.
    """
    drawn = [
        Curve(c.name, c.clean, tuple(p for p in c.proved if p[0] > 0), tuple(p for p in c.sampled if p[0] > 0))
        for c in curves
    ]
    if not any(c.proved or c.sampled for c in drawn):
        raise QueryError("there is no accuracy at a rate above 0 to draw, expected at least one, such as --ber 1e-3.")
    with mpl.rc_context(STYLE):
        figure = accuracy_figure(drawn, x_label=x_label, confidence=confidence)
        axes = figure.axes[0]
        axes.set_title(title, loc="left")
        axes.set_ylabel(_WORDS[event])
    return figure


def curve_of_lines(lines: Sequence[dict[str, Any]], rates: Sequence[Fraction], name: str, clean: float) -> Curve:
    """The curve of one network from result lines.

    Args:
        lines: Of type accuracy; others are passed over.
        rates: Place of each line on the axis.
        name: For the legend.
        clean: Accuracy without errors.
    """
    proved, sampled = [], []
    for line, rate in zip(lines, rates, strict=True):
        answer = line["answer"]
        if answer["type"] != "accuracy":
            continue
        low, high = answer["approximately"]
        if answer["kind"] == "sampled":
            sampled.append((float(rate), answer["hits"] / answer["samples"], low, high))
        else:
            proved.append((float(rate), low, high))
    return Curve(name, clean, tuple(proved), tuple(sampled))


def write_figure(figure: Figure, path: Path) -> None:
    """Write it as PNG or SVG, by the suffix.

    Raises:
        QueryError: The name has another suffix.
    """
    require_figure(path)
    save(figure, path)
