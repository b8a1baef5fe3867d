"""Figures of the study: accuracy against the error rate, what each block costs, energy against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bnnverify.report.figures import COLOURS, MARKERS, STYLE, svg

Bounds = tuple[float, float]

_POINTS = FuncFormatter(lambda value, _: f"{100 * value:g}")
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")
_LINEAR = 1e-3  # accuracy lost, where the scale turns from logarithmic to linear: errors may also gain some


def write(figure: Figure, stem: Path) -> None:
    """The figure as SVG and PNG; the same bytes for the same answers."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".svg").write_text(svg(figure), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure.savefig(stem.with_suffix(".png"), dpi=130, metadata={"Software": None}, bbox_inches="tight")


@dataclass(frozen=True, slots=True)
class Chips:
    """Accuracies of sampled chips.

    Attributes:
        mean: Of all of them.
        lower: Lower end of its confidence interval.
        upper: Upper end.
        low: What 5 % of the chips do not exceed.
        high: What 95 % of them do not exceed.
    """

    mean: float
    lower: float
    upper: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Band:
    """Accuracies of one network.

    Attributes:
        title: For the legend.
        clean: Without errors.
        proved: Rate to bounds.
        sampled: Rate to what was sampled.
    """

    title: str
    clean: float
    proved: Mapping[float, Bounds]
    sampled: Mapping[float, Chips]


def accuracy(bands: Sequence[Band], claims: Mapping[str, float]) -> Figure:
    """Left the accuracy, right what is lost of it: proved bands, sampled points, the rates of the claims."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 4.6))
        left, right = figure.subplots(1, 2)
        for i, band in enumerate(bands):
            rates = sorted(band.proved)
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            low, high = zip(*(band.proved[p] for p in rates), strict=True)
            _band(left, rates, low, high, band.title, style)
            left.axhline(band.clean, color=style["color"], linestyle=(0, (5, 4)), linewidth=0.8, alpha=0.7)
            lost = [(band.clean - b, band.clean - a) for a, b in (band.proved[p] for p in rates)]
            _band(right, rates, *zip(*lost, strict=True), "", style)
            for p, chips in band.sampled.items():
                x = p * 1.07 ** (i - (len(bands) - 1) / 2)  # beside each other
                left.plot([x, x], [chips.low, chips.high], color=style["color"], linewidth=3.5, alpha=0.35, zorder=1)
                bars = [[max(0.0, chips.mean - chips.lower)], [max(0.0, chips.upper - chips.mean)]]
                points: dict[str, Any] = {"fmt": "o", "markerfacecolor": "white", "markersize": 3.5, "capsize": 2.2}
                left.errorbar([x], [chips.mean], bars, color=style["color"], elinewidth=0.9, zorder=5, **points)
        left.errorbar([], [], [], fmt="o", color="#5c6773", markerfacecolor="white", label="sampled chips, mean")
        left.plot([], [], color="#5c6773", linewidth=3.5, alpha=0.35, label="90 % of sampled chips")
        left.plot([], [], color="#5c6773", linestyle=(0, (5, 4)), linewidth=0.8, label="without errors")
        left.legend(loc="lower left")
        left.yaxis.set_major_formatter(_PERCENT)
        left.set_ylabel("accuracy, mean over all chips")
        _losses(right)
        right.set_ylabel("accuracy lost, percentage points")
        for axes in (left, right):
            _rates(axes)
            for name, p in claims.items():
                axes.axvline(p, color="#8a949e", linewidth=0.9, linestyle=":")
                if axes is right:
                    where = {"xy": (p, 1.0), "xycoords": ("data", "axes fraction"), "fontsize": 8}
                    axes.annotate(name, xytext=(0, 4), textcoords="offset points", ha="center", **where)
        figure.tight_layout()
        return figure


def _band(axes: Any, rates: Sequence[float], low: Any, high: Any, label: str, style: dict[str, Any]) -> None:
    axes.fill_between(rates, low, high, color=style["color"], alpha=0.22, linewidth=0, zorder=2)
    axes.plot(rates, low, linewidth=1.0, markersize=3.5, zorder=3, label=label or None, **style)
    axes.plot(rates, high, linewidth=1.0, color=style["color"], zorder=3)


def _losses(axes: Any) -> None:
    axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.6)
    axes.yaxis.set_major_formatter(_POINTS)
    axes.axhline(0, color="#5c6773", linewidth=0.8)
    axes.set_ylim(top=1)


def _rates(axes: Any) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bit error rate")


def blocks(lost: Mapping[str, Mapping[str, Bounds]], p: float) -> Figure:
    """Accuracy lost by errors in one block alone and in all, for each network: proved intervals as bars.

    Args:
        lost: Network to place of the errors to bounds on the loss.
        p: The rate.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.6))
        axes = figure.add_subplot()
        places = list(next(iter(lost.values())))
        wide = 0.8 / len(places)
        for j, place in enumerate(places):
            at = [i + (j - (len(places) - 1) / 2) * wide for i in range(len(lost))]
            low, high = zip(*(found[place] for found in lost.values()), strict=True)
            heights = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
            hatch = ("", "///", "...")[j % 3]
            axes.bar(at, heights, wide * 0.92, color=COLOURS[j], alpha=0.45, hatch=hatch, label=place, zorder=2)
            for x, a, b in zip(at, low, high, strict=True):
                axes.plot([x, x], [a, b], color="#22313f", linewidth=1.6, zorder=3)
                for y in (a, b):
                    axes.plot([x - wide / 4, x + wide / 4], [y, y], color="#22313f", linewidth=1.0, zorder=3)
        axes.axhline(0, color="#5c6773", linewidth=0.8)
        axes.set_xticks(range(len(lost)), [name.replace(", ", ",\n") for name in lost], fontsize=8.5)
        axes.yaxis.set_major_formatter(_POINTS)
        axes.set_ylabel(f"accuracy lost at {p:g}, points")
        axes.legend(title="errors in", loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(places))
        return figure


@dataclass(frozen=True, slots=True)
class Cost:
    """Energy of one way of programming.

    Attributes:
        title: For the legend.
        energy: Rate to energy for each cell, J.
    """

    title: str
    energy: Mapping[float, float]


def energy(panels: Mapping[str, Sequence[Cost]], lost: Mapping[float, Bounds], network: str) -> Figure:
    """Energy of a cell's write against the accuracy that its errors cost, proved; a panel for each cell."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 4.3))
        every = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, costs) in zip(every, panels.items(), strict=True):
            for i, cost in enumerate(costs):
                style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
                rates = sorted(set(lost) & set(cost.energy))
                joules = [cost.energy[p] * 1e12 for p in rates]
                low, high = zip(*(lost[p] for p in rates), strict=True)
                axes.fill_between(joules, low, high, color=style["color"], alpha=0.22, linewidth=0, zorder=2)
                axes.plot(joules, high, markersize=3.6, linewidth=1.0, label=cost.title, zorder=4, **style)
            axes.set_xscale("log")
            _losses(axes)
            axes.set_xlabel("energy for each written cell, pJ")
            axes.set_title(name, loc="left")
            axes.legend(loc="lower left", fontsize=8)
        every[0].set_ylabel(f"accuracy lost, points\n({network})")
        figure.tight_layout()
        return figure
