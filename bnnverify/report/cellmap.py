"""Maps over the weight matrix of a block: for each cell a count, such as the images that its flip breaks.

Lightness alone carries the numbers, so the maps read the same in black and white; masked cells are hatched grey.
"""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bnnverify.domain import IntArray
from bnnverify.report.figures import COLOURS, INK, STYLE

FEW_TO_MANY = LinearSegmentedColormap.from_list("cells", ["#ffffff", "#9cc9e6", COLOURS[0], INK])
MASKED = "#d9d4cc"


def cell_map_figure(
    counts: IntArray,
    *,
    present: NDArray[np.bool_],
    image_shape: tuple[int, ...] | None = None,
    title: str = "",
    unit: str = "images broken by one flip",
) -> Figure:
    """The counts of one block as a map.

    Args:
        counts: Shape `(rows, cells of a row)`.
        present: True where there is a cell, same shape.
        image_shape: If the cells of a row lie over an image, its shape (channels and rows one above the other, then
            columns): then the sum over all rows is drawn as an image, beside one small image for each row. Without
            it the matrix itself is drawn.
        title: Above the figure.
        unit: What is counted.
    """
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        if image_shape is None or len(image_shape) < 2:
            return _matrix(counts, present, title, unit)
        columns = image_shape[-1]
        tiles = np.where(present, counts, np.nan).astype(np.float64).reshape(len(counts), -1, columns)
        summed = np.where(present, counts, 0).sum(axis=0).reshape(-1, columns).astype(np.float64)
        summed[~present.any(axis=0).reshape(-1, columns)] = np.nan
        figure = Figure(figsize=(10.4, 4.6))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _draw(figure, left, summed, f"{unit}, summed")
        left.set_title("by input, summed over the neurons")
        _draw(figure, right, _mosaic(tiles), unit)
        right.set_title(f"by neuron: {len(tiles)} maps, row by row")
        for axes in (left, right):
            axes.set_xticks([])
            axes.set_yticks([])
        figure.suptitle(title, fontsize=11)
        return figure


def _matrix(counts: IntArray, present: NDArray[np.bool_], title: str, unit: str) -> Figure:
    """The matrix itself, rows down, and the sums over its rows and columns beside it."""
    rows, cells = counts.shape
    figure = Figure(figsize=(8.6, min(7.0, max(2.6, 1.6 + 7.0 * rows / max(cells, 1)))))
    axes = figure.add_subplot()
    _draw(figure, axes, np.where(present, counts, np.nan), unit, aspect="auto")
    axes.set_xlabel("input of the block")
    axes.set_ylabel("row: neuron, filter or class")
    axes.set_title(title)
    return figure


def _draw(figure: Figure, axes: Any, values: NDArray[np.float64], unit: str, *, aspect: str = "equal") -> None:
    axes.set_facecolor(MASKED)
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("#b8b2a8")
    greatest = float(np.nanmax(values, initial=0.0))
    norm = PowerNorm(0.5, vmin=0, vmax=max(greatest, 1.0))  # a few cells have most of the images
    shown = np.ma.masked_invalid(values)
    drawn = axes.imshow(shown, cmap=FEW_TO_MANY, norm=norm, interpolation="nearest", aspect=aspect)
    ticks = MaxNLocator(nbins=6, integer=True)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.86, pad=0.02, ticks=ticks)
    bar.set_label(unit, fontsize=9)
    bar.outline.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#aab4be")
        spine.set_linewidth(0.6)


def _mosaic(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images side by side in a nearly square grid, with gaps of one cell."""
    count, height, width = tiles.shape
    across = math.ceil(math.sqrt(count * height / width))
    down = -(-count // across)
    whole = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for k, tile in enumerate(tiles):
        row, column = divmod(k, across)
        top, left = row * (height + 1), column * (width + 1)
        whole[top : top + height, left : left + width] = tile
    return whole
