"""What single cells can do, for ``bnnverify reliability``: worst case, critical cells, first coefficients.

Each function answers one question about the images of a command and returns a `Report`: lines for people, plain
values for a JSON line, and whether a limit left something open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from bnnverify.network import BinaryNetwork

if TYPE_CHECKING:
    from bnnverify.engines.base import Monitor
    from bnnverify.reliability.critical import CriticalCells
    from bnnverify.reliability.worstcase import FlipDistance

Progress = Callable[[int], Any]

_SHOWN = 12  # cells of a witness, and numbers of flips in a table


@dataclass(frozen=True, slots=True)
class Report:
    """One answer.

    Attributes:
        text: Lines for people.
        answer: Plain values for the `answer` of a JSON line.
        is_partial: True if a limit left something open: exit code 3.
        figure: File of the figure that was written, or None.
    """

    text: tuple[str, ...]
    answer: dict[str, Any]
    is_partial: bool
    figure: Path | None = None


def worst_case_report(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    *,
    indices: Sequence[int] | None = None,
    flips: int | None = None,
    seconds: float | None = None,
    image_seconds: float | None = None,
    jobs: int = 1,
    monitor: Monitor | None = None,
    progress: Progress | None = None,
) -> Report:
    """The least flips that make each image wrong, and the share of images that withstand any k.

    Args:
        network: Any network.
        images: Inputs, shape `(N, n)`.
        labels: The right classes.
        indices: Numbers of the images in their data set, for people; default 0, 1, ...
        flips: Ask for this many flips only: images that withstand it are not searched further.
        seconds: Time for all images, s.
        image_seconds: Time for each image, s.
        jobs: Threads.
        monitor: Who may stop it.
        progress: Called with the number of images after each.
    """
    from bnnverify.engines.base import Limits
    from bnnverify.reliability.worstcase import flip_distances
    from bnnverify.results import Kind

    names = list(range(len(labels))) if indices is None else list(indices)
    found = flip_distances(
        network,
        images,
        labels,
        max_flips=flips,
        limits=Limits(seconds=seconds),
        image_seconds=image_seconds,
        jobs=jobs,
        monitor=monitor,
        progress=progress,
    )
    most = max((d.upper if d.upper is not None else d.lower for d in found.per_image), default=0)
    asked = [flips] if flips is not None else list(range(min(most, _SHOWN)))
    shares = {k: found.withstand(k) for k in asked}
    if flips is None:  # no row says nothing
        shares = {k: share for k, share in shares.items() if share.lower > 0 or share.upper < 1}
    right = [i for i, d in enumerate(found.per_image) if d.lower > 0]
    weakest = min(right, key=lambda i: (found.per_image[i].lower, found.per_image[i].upper or 0), default=None)
    partial = any(share.kind is not Kind.EXACT for share in shares.values())
    partial |= flips is None and any(d.kind is not Kind.EXACT for d in found.per_image)
    method = {"flip-formula": "by formula", "flip-search": "by search"}.get(found.run.engine, found.run.engine)
    lines = [f"Worst case: the fewest flipped cells that make an image wrong ({method}, {found.run.seconds:.1f} s)"]
    if flips is None:
        lines += _histogram(found.histogram, len(labels))
        open_ = sum(d.kind is not Kind.EXACT for d in found.per_image)
        if open_:
            lines.append(f"  {open_} of {len(labels)} images have a bracket only")
    lines.append("  right whatever k cells flip, each image its own worst k:")
    lines += [f"    k = {k:<3} {_share(share.lower, share.upper)}" for k, share in shares.items()]
    if weakest is not None:
        lines.append(f"  weakest right image: {names[weakest]}, {_distance(found.per_image[weakest])}")
    if found.run.reason:
        lines.append(f"  {found.run.reason}")
    answer = {
        **found.to_json(),
        "withstand": {str(k): share.to_json() for k, share in shares.items()},
        "weakest": None if weakest is None else {"index": names[weakest], **found.per_image[weakest].to_json()},
    }
    return Report(tuple(lines), answer, partial)


def critical_report(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    *,
    count: int = 10,
    event: str = "breaks",
    cell_map: Path | None = None,
    map_block: int = 0,
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Progress | None = None,
) -> Report:
    """The cells whose single flip breaks (or repairs, or changes) the most images, by cell and by block.

    Args:
        network: Any network.
        images: Inputs, shape `(N, n)`.
        labels: The right classes.
        count: Cells to list.
        event: ``breaks``, ``repairs`` or ``changes``.
        cell_map: PNG or SVG file for the map of a block, or None.
        map_block: The block to draw: hidden blocks from 0, the output block last; negative numbers count from the end.
        seconds: Time, s; then the images so far count.
        monitor: Who may stop it.
        progress: Called with the number of images after each step.

    Raises:
        QueryError: The event or the block does not exist, or the file is neither .png nor .svg.
    """
    from bnnverify.engines.base import Limits
    from bnnverify.errors import QueryError
    from bnnverify.reliability.critical import EVENTS, critical_cells

    blocks = network.all_blocks
    if event not in EVENTS:
        raise QueryError(f"event is {event!r}, expected one of {', '.join(EVENTS)}.")
    if not -len(blocks) <= map_block < len(blocks):
        raise QueryError(f"block {map_block} does not exist, expected 0 to {len(blocks) - 1} (the output block).")
    if cell_map is not None and cell_map.suffix not in (".png", ".svg"):
        raise QueryError(f"the figure is {cell_map}, expected a file that ends in .png or .svg.")
    limits = Limits(seconds=seconds)
    found = critical_cells(network, images, labels, limits=limits, monitor=monitor, progress=progress)
    ranked = found.ranking(count, event)
    words = {"breaks": "make an image wrong", "repairs": "make an image right", "changes": "change a class"}[event]
    lines = [
        f"Critical cells: single flips that {words} (exact, {found.n_images} images, {found.run.seconds:.1f} s)",
        f"  {'block':<8} {'cells':>9} {'that ' + words.split()[0]:>12} {'images a cell':>14}",
    ]
    shares, marked = found.block_shares(event), found.critical(event)
    for b, block in enumerate(blocks):
        mean = float(shares[b]) * found.n_images
        lines.append(f"  {_block_name(network, b):<8} {block.n_cells:>9,} {marked[b]:>12,} {mean:>14.4f}")
    lines += [f"  cell {_cell(network, cell)}: {images_hit} images" for cell, images_hit in ranked]
    slope = float(found.accuracy_slope)
    lines.append(
        f"  accuracy near bit error rate 0: {found.clean_correct / found.n_images:.4%} {slope:+.4g} p (exact slope)"
    )
    if found.run.reason:
        lines.append(f"  {found.run.reason}")
    answer = {
        **found.to_json(),
        "event": event,
        "ranking": [{"cell": list(cell), "images": images_hit} for cell, images_hit in ranked],
    }
    if cell_map is not None:
        draw_cell_map(found, cell_map, block=map_block % len(blocks), event=event)
        lines.append(f"  map of {_block_name(network, map_block % len(blocks))}: {cell_map}")
    return Report(tuple(lines), answer, bool(found.run.reason), cell_map)


def draw_cell_map(found: CriticalCells, path: Path, *, block: int = 0, event: str = "breaks") -> None:
    """Write the map of one block as PNG or SVG, by the suffix of the path."""
    from bnnverify.network import ConvBlock
    from bnnverify.report.cellmap import cell_map_figure
    from bnnverify.report.figures import save

    network, counts = found.network, found.of(event)[block]
    drawn = network.all_blocks[block]
    shape: tuple[int, ...] | None = None
    if isinstance(drawn, ConvBlock):
        shape = drawn.weights.shape[1:]
    elif block == 0 and len(network.domain.shape) > 1:
        shape = network.domain.shape
    verb = {"breaks": "broken", "repairs": "repaired", "changes": "changed"}[event]
    figure = cell_map_figure(
        counts,
        present=drawn.weights.reshape(counts.shape) != 0,
        image_shape=shape,
        title=f"{network.architecture}, {_block_name(network, block)}: {found.n_images} images",
        unit=f"images {verb} by one flip",
    )
    save(figure, path)


def coefficients_report(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    *,
    order: int | None = 3,
    rates: Sequence[Fraction] = (),
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Progress | None = None,
) -> Report:
    """Mean numbers of flip sets that make an image wrong, by size, and what they prove at some rates.

    Args:
        network: Any network.
        images: Inputs, shape `(N, n)`.
        labels: The right classes.
        order: Greatest number of flips; None for all.
        rates: Bit error rates to give the expected accuracy at.
        seconds: Time, s; then fewer sizes.
        monitor: Who may stop it.
        progress: Called with the number of images after each.
    """
    from bnnverify.engines.base import Limits
    from bnnverify.reliability.means import mean_coefficients
    from bnnverify.report.lines import outward

    limits = Limits(seconds=seconds)
    found = mean_coefficients(network, images, labels, order=order, limits=limits, monitor=monitor, progress=progress)
    lines = [f"Fault enumerator, mean of {len(labels)} images (exact, {found.run.seconds:.1f} s)"]
    for k, (a, share) in enumerate(zip(found.counts[: _SHOWN + 1], found.shares, strict=False)):
        words = f"of the sets of {k} flip{'s' * (k > 1)} make an image wrong" if k else "are wrong without a flip"
        lines.append(f"  A_{k} = {_count(a)}: {float(share):.4%} {words}")
    if found.order > _SHOWN:
        lines.append(f"  ... up to A_{found.order}: all with --json")
    at = []
    for p in rates:
        accuracy, least = found.probability(p).complement(), 1 - found.at_most(p)
        low, high = outward(accuracy.to_json(), 8)
        up_to = outward({"lower": str(least), "upper": str(least)}, 8)[0]
        lines.append(f"  p = {float(p):.4g}: accuracy {low}..{high}; at least {up_to} at every rate up to p")
        at.append({"p": str(p), "accuracy": accuracy.to_json(), "at_least_up_to_p": str(least)})
    if found.run.reason:
        lines.append(f"  {found.run.reason}")
    return Report(tuple(lines), {**found.to_json(), "images": len(labels), "at": at}, bool(found.run.reason))


def _count(value: Fraction | int) -> str:
    """A mean of integers: every digit before the point, and up to four behind it."""
    whole, rest = divmod(Fraction(value) * 10**4, 1)
    before, behind = divmod(whole, 10**4)
    decimals = f".{behind:04d}".rstrip("0").rstrip(".") if rest == 0 else f".{behind:04d}..."
    return f"{before:,}{decimals}"


def _histogram(counts: dict[int, int], total: int) -> list[str]:
    """One line for each distance, with a bar."""
    widest = max(counts.values(), default=1)
    lines = []
    for distance, images in counts.items():
        bar = "#" * max(1, round(30 * images / widest))
        note = "  (wrong without a flip)" if distance == 0 else ""
        lines.append(f"  {distance:>4} {images:>7} {images / total:>8.2%}  {bar}{note}")
    return lines


def _share(lower: Fraction, upper: Fraction) -> str:
    from bnnverify.report.lines import outward

    if lower == upper:
        return f"{float(lower):.4%} (exact)"
    return "{}..{} (interval)".format(*outward({"lower": str(lower), "upper": str(upper)}, 6))


def _distance(distance: FlipDistance) -> str:
    """The bounds and the witness in words."""
    if distance.upper is None:
        return f"at least {distance.lower} flips"
    size = str(distance.upper) if distance.lower == distance.upper else f"{distance.lower} to {distance.upper}"
    cells = distance.witness or ()
    shown = " ".join(f"({b},{row},{column})" for b, row, column in cells[:_SHOWN])
    more = f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""
    noun = "flip" if size == "1" else "flips"
    return f"{size} {noun} to class {distance.predicted}: cells (block,row,column) {shown}{more}"


def _block_name(network: BinaryNetwork, b: int) -> str:
    return "output" if b == len(network.blocks) else f"block {b}"


def _cell(network: BinaryNetwork, cell: tuple[int, int, int]) -> str:
    b, row, column = cell
    return f"{_block_name(network, b)}, row {row}, input {column}"
