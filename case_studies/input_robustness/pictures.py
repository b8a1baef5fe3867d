"""Figures of the study: robust accuracy with bands for what is open, and counterexamples beside the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from questions import CONVOLVED, DENSE, PIXELS, Asker

from bnnverify.report.figures import COLOURS, MARKERS, STYLE

TITLES = {
    DENSE: "784-100-10, black and white",
    PIXELS: "small convolutional, 256 grey values",
    CONVOLVED: "large convolutional, black and white",
}
SHOWN = 4  # images of a network


def write(figure: Figure, path: Path) -> None:
    """The figure as PNG; the same bytes for the same answers."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=110, metadata={"Software": None}, bbox_inches="tight")


def curves(askers: Sequence[Asker]) -> Figure:
    """Robust accuracy against the size of the region, a panel for each group; bands reach over what is open."""
    groups = [group for group in TITLES if any(a.subject.group == group for a in askers)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(groups), 4.1))
        for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
            members = [a for a in askers if a.subject.group == group]
            for i, asker in enumerate(members):
                table = asker.table()
                low = [robust / asker.images for robust, _, _ in table.values()]
                high = [(robust + unknown) / asker.images for robust, _, unknown in table.values()]
                style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
                axes.fill_between(list(table), low, high, color=style["color"], alpha=0.2, linewidth=0)
                axes.plot(list(table), low, markersize=4, linewidth=1.2, label=asker.subject.title, **style)
                axes.plot(list(table), high, linewidth=0.9, linestyle=(0, (4, 3)), color=style["color"])
            of = "flipped inputs" if members[0].is_binary else "distance of every pixel (of 255)"
            axes.set_xlabel(f"{of}, at most")
            axes.set_title(f"{TITLES[group]}\nfirst {members[0].images} test images", loc="left")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(-0.02, 1.02)
            axes.legend(loc="upper right")
        figure.axes[0].set_ylabel("robust accuracy, proved")
        figure.tight_layout()
        return figure


def examples(askers: Sequence[Asker]) -> Figure:
    """For some networks the first images that have a kept counterexample: the image, the input, what changed."""
    rows = [(a, found) for a in askers if (found := _found(a))]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.35 * 2 * SHOWN, 1.75 * max(len(rows), 1)))
        grid = figure.subplots(max(len(rows), 1), 2 * SHOWN, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for row, (asker, found) in zip(grid, rows, strict=False):
            row[0].set_title(f"{asker.subject.title} ({TITLES[asker.subject.group].split(',')[0]})", loc="left", pad=7)
            for j, (image, size, x) in enumerate(found):
                center = np.asarray(asker.inputs()[image], dtype=np.int64)
                changed = np.asarray(x, dtype=np.int64)
                label = int(asker.dataset.test.labels[image])
                told = f"at most {size}" if asker.is_binary else f"within {size}"
                captions = (f"{label}", f"{asker.network.evaluate(x)}, {told}")
                for axes, values, caption in zip(row[2 * j : 2 * j + 2], (center, changed), captions, strict=True):
                    axes.imshow(_shaded(asker, center, values), interpolation="nearest", aspect="equal")
                    axes.text(0.5, -0.14, caption, transform=axes.transAxes, ha="center", fontsize=7.5)
        figure.subplots_adjust(hspace=0.75, wspace=0.06)
        return figure


def _found(asker: Asker) -> list[tuple[int, int, tuple[int, ...]]]:
    """Image, size and counterexample, where the image itself is classified rightly."""
    found = []
    for image in range(asker.images):
        kept = asker.counterexample(image)
        if kept is not None and kept[0] > 0:
            found.append((image, *kept))
    return found[:SHOWN]


def _shaded(asker: Asker, center: Any, values: Any) -> Any:
    """Grey image, shape `(height, width, 3)`; flipped inputs in colour (grey values show their changes themselves)."""
    low, high = (-1, 1) if asker.is_binary else (0, int(asker.network.domain.upper.max()))
    grey = 1 - (values - low) / (high - low)
    rgb = np.stack([grey] * 3, axis=-1)
    if asker.is_binary:
        rgb[(values != center) & (values > center)] = mpl.colors.to_rgb(COLOURS[1])
        rgb[(values != center) & (values < center)] = mpl.colors.to_rgb(COLOURS[5])
    return rgb.reshape(*asker.dataset.shape, 3)
