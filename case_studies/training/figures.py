"""Figures of the study: curves over epochs, means and ranges over the seeds, in the style of the reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from records import Results

from bnnverify.report.figures import COLOURS, MARKERS, STYLE, svg

_PERCENT = FuncFormatter(lambda value, _: f"{round(100 * value, 3):g} %")
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def write(figure: Figure, stem: Path) -> None:
    """The figure as SVG and PNG; the same bytes for the same results."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".svg").write_text(svg(figure), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure.savefig(stem.with_suffix(".png"), dpi=150, metadata={"Software": None}, bbox_inches="tight")


def learning_curves(panels: Mapping[str, Mapping[str, Results]]) -> Figure:
    """Validation accuracy over the epochs, a panel for each title; lines are means, bands the range over the seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2 if len(panels) > 1 else 6.6, 3.6))
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, series) in zip(every, panels.items(), strict=True):
            for i, (label, result) in enumerate(series.items()):
                _curve(axes, result.curves("validation_accuracy"), i, label)
            _epochs(axes)
            _legend(axes, columns=3)
            if title:
                axes.set_title(title, loc="left", pad=22)
        _accuracy(every[0], "validation accuracy")
        every[0].set_ylim(*_zoomed([r.curves("validation_accuracy") for s in panels.values() for r in s.values()]))
        figure.tight_layout()
        return figure


def undo(without: Results, with_undo: Results) -> Figure:
    """Accuracy with and without undo, the share of events of each epoch that was undone, the factor on the rate."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.3))
        accuracy, undone, factor = figure.subplots(1, 3)
        both = {"with undo": with_undo, "without": without}
        for i, (label, result) in enumerate(both.items()):
            _curve(accuracy, result.curves("validation_accuracy"), i, label)
        _accuracy(accuracy, "validation accuracy")
        accuracy.set_ylim(*_zoomed([r.curves("validation_accuracy") for r in both.values()]))
        _legend(accuracy)
        events, taken_back = (np.diff(with_undo.curves(name), axis=1, prepend=0) for name in ("events", "undo_events"))
        _curve(undone, taken_back / np.maximum(events, 1), 0, "")
        undone.yaxis.set_major_formatter(_PERCENT)
        undone.set_ylim(bottom=0)
        undone.set_ylabel("events undone")
        _curve(factor, with_undo.curves("rate_factor"), 0, "")
        factor.set_yscale("log")
        factor.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        factor.yaxis.set_major_formatter(_PLAIN)
        factor.yaxis.set_minor_formatter(NullFormatter())
        factor.set_ylabel("factor on the switching rate")
        for axes in (accuracy, undone, factor):
            _epochs(axes)
        figure.tight_layout()
        return figure


def memristors(runs: Mapping[int, Results], lines: Mapping[str, Results]) -> Figure:
    """Learning curves for each number of memristors, and test accuracies against it beside those of other memories."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 3.9))
        curves, ends = figure.subplots(1, 2)
        for i, (count, result) in enumerate(runs.items()):
            _curve(curves, result.curves("validation_accuracy"), i, f"K = {count}")
        _epochs(curves)
        _accuracy(curves, "validation accuracy")
        curves.set_ylim(*_zoomed([r.curves("validation_accuracy") for r in runs.values()]))
        _legend(curves, columns=3)
        _against(ends, dict(runs), 0, "K memristors")
        for i, (label, result) in enumerate(lines.items(), start=1):
            ends.axhline(result.mean(), color=COLOURS[i], linestyle=_DASHES[i], linewidth=1.3, label=label)
        ends.set_xscale("log")
        ends.xaxis.set_major_locator(FixedLocator(list(runs)))
        ends.xaxis.set_minor_locator(NullLocator())
        ends.xaxis.set_major_formatter(_PLAIN)
        ends.set_xlabel("memristors for each weight, K")
        _accuracy(ends, "test accuracy")
        _legend(ends)
        figure.tight_layout()
        return figure


def zero_shift(series: Mapping[str, Mapping[float, Results]]) -> Figure:
    """Test accuracy and share of +1 weights against the imbalance of up and down pulses."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 3.6))
        ends, plus = figure.subplots(1, 2)
        for i, (label, by_imbalance) in enumerate(series.items()):
            _against(ends, by_imbalance, i, label)
            x = list(by_imbalance)
            shares = [[r["plus_all"] for r in by_imbalance[value].finished] for value in x]
            _points(plus, x, shares, i, label)
        for axes in (ends, plus):
            axes.set_xlabel("imbalance of up and down pulses")
        _accuracy(ends, "test accuracy")
        plus.yaxis.set_major_formatter(_PERCENT)
        plus.set_ylabel("weights at +1")
        plus.axhline(0.5, color=STYLE["axes.edgecolor"], linewidth=0.8, zorder=1)
        _legend(ends, columns=3)
        figure.tight_layout()
        return figure


def _curve(axes: Any, curves: np.ndarray, i: int, label: str) -> None:
    """Mean over the runs as a line, least and greatest as a band."""
    epochs = np.arange(1, curves.shape[1] + 1)
    colour = COLOURS[i % len(COLOURS)]
    axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.2, linewidth=0, zorder=2)
    style: dict[str, Any] = {"linestyle": _DASHES[i % len(_DASHES)], "linewidth": 1.5}
    every = {"marker": MARKERS[i % len(MARKERS)], "markersize": 4, "markevery": max(1, len(epochs) // 8)}
    axes.plot(epochs, curves.mean(axis=0), color=colour, label=label or None, zorder=3, **style, **every)


def _against(axes: Any, by_value: Mapping[float, Results], i: int, label: str) -> None:
    _points(axes, list(by_value), [result.test for result in by_value.values()], i, label)


def _points(axes: Any, x: list[float], values: list[list[float]], i: int, label: str) -> None:
    """A point for every run, a line through the means."""
    style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)]}
    marker = MARKERS[i % len(MARKERS)]
    axes.plot(x, [np.mean(v) for v in values], linestyle=_DASHES[i % len(_DASHES)], linewidth=1.3, zorder=2, **style)
    for value, seeds in zip(x, values, strict=True):
        axes.plot([value] * len(seeds), seeds, marker, markersize=4.5, markerfacecolor="white", zorder=3, **style)
    axes.plot([], [], marker=marker, linestyle=_DASHES[i % len(_DASHES)], markerfacecolor="white", label=label, **style)


def _epochs(axes: Any) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _accuracy(axes: Any, label: str) -> None:
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.set_ylabel(label)


def _legend(axes: Any, columns: int = 2) -> None:
    """Above the axes, where no curve runs."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2}
    axes.legend(ncols=columns, columnspacing=1.2, handletextpad=0.5, **place)


def _zoomed(curves: list[np.ndarray]) -> tuple[float, float]:
    """Limits of the accuracy axis: a bad first epoch may lie below them, if what matters is far above."""
    last = [c[:, min(1, c.shape[1] - 1) :] for c in curves]
    low, high = min(float(c.min()) for c in last), max(float(c.max()) for c in last)
    margin = max(0.005, 0.06 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)
