"""Figures of the report, as SVG text: colour-blind safe, and legible in black and white.

Colours are those of Okabe and Ito; what colour says, a marker or a line style says too.

References:
    M. Okabe and K. Ito, "Color universal design", 2008. https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from bnnverify.files import write_whole

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, PAPER, CHANGED = "#22313f", "#eef1f4", "#D55E00"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.labelsize": 10.5,
    "axes.titlesize": 10,
    "axes.edgecolor": "#5c6773",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dde2e7",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "bnnverify",
    "text.parse_math": False,  # a name of a file may hold dollars
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy of one network against the bit error rate.

    Attributes:
        name: For the legend.
        clean: Accuracy without errors.
        proved: `(rate, lower, upper)` of each proved point.
        sampled: `(rate, estimate, lower, upper)` of each sampled point.
    """

    name: str
    clean: float
    proved: tuple[tuple[float, float, float], ...]
    sampled: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and a counterexample.

    Attributes:
        before: Rows of -1/+1.
        after: Rows of -1/+1, of the same shape.
        above_before: Title of the image.
        above_after: Title of the counterexample.
    """

    before: Sequence[Sequence[int]]
    after: Sequence[Sequence[int]]
    above_before: str
    above_after: str


@dataclass(frozen=True, slots=True)
class ReasonPanel:
    """An image and the part of it that forces the class.

    Attributes:
        x: The input, -1/+1.
        width: Inputs per row of the image; channels are drawn one above the other.
        kept: Indices of the inputs that force the class.
        undecided: Those of `kept` that may not be needed.
        essential: Indices of inputs that the class never goes without.
        title: Above the image.
    """

    x: Sequence[int]
    width: int
    kept: Sequence[int]
    undecided: Sequence[int]
    essential: Sequence[int]
    title: str


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.06)
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as SVG or PNG, by the suffix of the path; the same bytes for the same figure."""
    if path.suffix == ".svg":
        write_whole(path, svg(figure).encode())
        return
    buffer = io.BytesIO()
    style: dict[str, Any] = {"metadata": {"Software": None}, "bbox_inches": "tight", "pad_inches": 0.06}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=160, **style)
    write_whole(path, buffer.getvalue())


def accuracy_figure(curves: Sequence[Curve], *, x_label: str, confidence: float | None) -> Figure:
    """Proved accuracy as a band, sampled accuracy as points with their confidence intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 4.5))
        axes = figure.add_subplot()
        for i, curve in enumerate(curves):
            colour = COLOURS[i % len(COLOURS)]
            axes.axhline(curve.clean, color=colour, linestyle=(0, (5, 4)), linewidth=0.9, alpha=0.75, zorder=1)
            if curve.proved:
                rates, lower, upper = (list(column) for column in zip(*sorted(curve.proved), strict=True))
                axes.fill_between(rates, lower, upper, color=colour, alpha=0.22, linewidth=0, zorder=2)
                line: dict[str, Any] = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
                axes.plot(rates, lower, linewidth=1.1, zorder=3, label=curve.name, **line)
                axes.plot(rates, upper, linewidth=1.1, zorder=3, **line)
            if curve.sampled:
                rates, middle, lower, upper = (list(column) for column in zip(*sorted(curve.sampled), strict=True))
                beside = [rate * 1.06 for rate in rates]  # next to the proved point, not over it
                errors = [
                    [max(0.0, m - a) for m, a in zip(middle, lower, strict=True)],
                    [max(0.0, b - m) for m, b in zip(middle, upper, strict=True)],
                ]
                label = None if curve.proved else curve.name
                points: dict[str, Any] = {
                    "markerfacecolor": "white",
                    "markersize": 4,
                    "capsize": 2.6,
                    "elinewidth": 1.0,
                }
                axes.errorbar(beside, middle, errors, fmt="o", color=colour, zorder=5, label=label, **points)
        _accuracy_axes(axes, curves, x_label)
        _accuracy_legend(axes, curves, confidence)
        return figure


def _accuracy_axes(axes: Any, curves: Sequence[Curve], x_label: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 1e-4 else f"{value:.0e}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    values = [v for c in curves for _, *bounds in (*c.proved, *c.sampled) for v in bounds] + [c.clean for c in curves]
    low, high = min(values), max(values)
    margin = max(0.02, 0.06 * (high - low))
    axes.set_ylim(max(0.0, low - margin), min(1.0, high + margin) + 0.002)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.05 else 1))
    axes.set_xlabel(x_label)
    axes.set_ylabel("accuracy, mean over all chips")


def _accuracy_legend(axes: Any, curves: Sequence[Curve], confidence: float | None) -> None:
    if any(curve.proved for curve in curves):
        axes.fill_between([], [], [], color="#8a949e", alpha=0.35, label="proved band (lower to upper bound)")
    if confidence is not None:
        points: dict[str, Any] = {"markerfacecolor": "white", "markersize": 4, "capsize": 2.6}
        label = f"sampled chips, {100 * confidence:g}% confidence"
        axes.errorbar([], [], [], fmt="o", color="#5c6773", label=label, **points)
    axes.plot([], [], color="#5c6773", linestyle=(0, (5, 4)), linewidth=0.9, label="without bit errors")
    axes.legend(loc="lower left", handlelength=2.2)


def distance_figure(names: Sequence[str], shares: Sequence[Sequence[float]]) -> Figure:
    """Share of images that no change of up to r inputs can move to another class, for r = 0, 1, ...

    Args:
        names: One per network.
        shares: For each network the share at every radius from 0.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.5))
        axes = figure.add_subplot()
        for i, (name, share) in enumerate(zip(names, shares, strict=True)):
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            axes.plot(range(len(share)), share, linewidth=1.5, markersize=5, label=name, **style)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("radius r (inputs that may flip)")
        axes.set_ylabel("images proved robust")
        axes.legend(loc="upper right")
        return figure


def pairs_figure(pairs: Sequence[Pair], *, columns: int = 4) -> Figure:
    """Images beside their counterexamples; what changed is framed and dotted."""
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2.5 * columns, 1.6 * rows))
        grid = figure.add_gridspec(rows, columns, wspace=0.22, hspace=0.32)
        for k, pair in enumerate(pairs):
            cell = grid[k // columns, k % columns].subgridspec(1, 2, wspace=0.08)
            _draw(figure.add_subplot(cell[0]), pair.before, pair.before, pair.above_before)
            _draw(figure.add_subplot(cell[1]), pair.after, pair.before, pair.above_after)
        return figure


def _draw(axes: Any, rows: Sequence[Sequence[int]], before: Sequence[Sequence[int]], title: str) -> None:
    axes.imshow(rows, cmap=ListedColormap([PAPER, INK]), vmin=-1, vmax=1, interpolation="nearest")
    for i, (now, then) in enumerate(zip(rows, before, strict=True)):
        for j, (a, b) in enumerate(zip(now, then, strict=True)):
            if a != b:
                frame: dict[str, Any] = {"fill": False, "edgecolor": CHANGED, "linewidth": 1.5}
                axes.add_patch(Rectangle((j - 0.43, i - 0.43), 0.86, 0.86, **frame))
                axes.plot(j, i, marker="o", markersize=2.4, color=CHANGED)
    axes.set_title(title, fontsize=8, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#aab4be")
        spine.set_linewidth(0.6)


def reasons_figure(panels: Sequence[ReasonPanel], *, columns: int = 4) -> Figure:
    """Images of which only the inputs that force the class stand out.

    Kept inputs are dark (+1) or white with a ring (-1), the others are pale; what may not be needed is hatched;
    essential inputs are framed.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2.4 * columns, 2.7 * rows))
        for k, panel in enumerate(panels):
            _reason(figure.add_subplot(rows, columns, k + 1), panel)
        return figure


def _reason(axes: Any, panel: ReasonPanel) -> None:
    values = list(panel.x) + [-1] * (-len(panel.x) % panel.width)
    height, kept = len(values) // panel.width, set(panel.kept)
    # 0: pale -1, 1: pale +1, 2: kept -1, 3: kept +1
    shades = [(2 if i in kept else 0) + (v == 1) for i, v in enumerate(values)]
    grid = [shades[row * panel.width : (row + 1) * panel.width] for row in range(height)]
    axes.imshow(grid, cmap=ListedColormap([PAPER, "#c3ccd4", "#ffffff", INK]), vmin=0, vmax=3, interpolation="nearest")
    size = 62 / max(height, panel.width)  # of a marker in points, about a third of an input
    for i in sorted(kept):
        row, column = divmod(i, panel.width)
        edge: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 0.4}
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **edge))
        if values[i] == -1:
            axes.plot(
                column, row, "o", markersize=size, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.7
            )
    for indices, style in (
        (panel.undecided, {"hatch": "////", "edgecolor": "#8a949e", "linewidth": 0}),
        (panel.essential, {"edgecolor": CHANGED, "linewidth": 1.8}),
    ):
        for i in indices:
            row, column = divmod(i, panel.width)
            frame: dict[str, Any] = {"fill": False, **style}
            axes.add_patch(Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, **frame))
    axes.set_title(panel.title, fontsize=8, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#aab4be")
        spine.set_linewidth(0.6)
