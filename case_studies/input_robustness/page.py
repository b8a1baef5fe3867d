"""Sections of the page, from the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from questions import CONVOLVED, DENSE, PIXELS, ROBUST, UNKNOWN, Asker

from bnnverify.errors import FormatError

Section = Callable[[Sequence[Asker]], str]


def between_markers(text: str, marker: str, section: str) -> str:
    """The page with one section replaced.

    >>> print(between_markers("a <!-- x --> old <!-- end of x --> b", "x", "new"))
    a <!-- x -->
    new
    <!-- end of x --> b
    """
    start, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise FormatError(f"the page lacks the place {start} ... {end}, expected it once.")
    return f"{text.partition(start)[0]}{start}\n{section}\n{end}{text.partition(end)[2]}"


def members(askers: Sequence[Asker], group: str) -> list[Asker]:
    """Those of a group."""
    return [asker for asker in askers if asker.subject.group == group]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def counts(group: str) -> Section:
    """Robust / not robust / open for each size."""

    def section(askers: Sequence[Asker]) -> str:
        chosen = members(askers, group)
        if not chosen:
            return "(not asked)"
        sizes = chosen[0].subject.sizes
        rows = []
        for asker in chosen:
            cells = [f"{r} / {n} / {u}" if u else f"{r} / {n}" for r, n, u in asker.table().values()]
            rows.append([asker.subject.title, *cells])
        return table([f"first {chosen[0].images} images", *(str(size) for size in sizes)], rows)

    return section


def networks(askers: Sequence[Asker]) -> str:
    """What is asked."""
    rows = []
    for asker in askers:
        accuracy = asker.network.provenance.data["accuracy"]["test"] if asker.network.provenance.data else None
        rows.append(
            [
                asker.subject.title,
                f"`models/{asker.subject.file}.npz`",
                asker.network.architecture,
                "signs" if asker.is_binary else "grey values 0 to 255",
                "-" if accuracy is None else f"{100 * accuracy:.2f} %",
            ]
        )
    return table(["network", "file", "architecture", "inputs", "test accuracy"], rows)


def distances(askers: Sequence[Asker]) -> str:
    """Mean distance to the nearest adversarial input, and the differences from the plain network."""
    chosen = members(askers, DENSE)
    if not chosen:
        return "(not asked)"
    reference = next((a for a in chosen if a.subject.title == "plain"), chosen[0])
    rows = []
    for asker in chosen:
        low, high = (_distances(asker, mark) for mark in (ROBUST, ROBUST + UNKNOWN))
        mean = f"{sum(low) / len(low):.2f}"
        if low != high:
            mean += f" to {sum(high) / len(high):.2f}"
        if asker is reference:
            rows.append([asker.subject.title, mean, "", "", ""])
            continue
        gaps = [a - b for a, b in zip(low, _distances(reference, ROBUST), strict=True)]
        average, error = paired(gaps)
        farther, nearer = sum(g > 0 for g in gaps), sum(g < 0 for g in gaps)
        rows.append([asker.subject.title, mean, f"{average:+.2f} ± {2 * error:.2f}", str(farther), str(nearer)])
    last = reference.subject.sizes[-1] + 1
    head = ["network", f"mean distance (at most {last})", f"minus {reference.subject.title}", "farther", "nearer"]
    return table(head, rows)


def _distances(asker: Asker, marks: str) -> list[int]:
    """For each image at how many of the radii 0, 1, ... its verdict is one of `marks`: the least distance."""
    return [sum(v in marks for v in asker.verdicts(image)["verdicts"]) for image in range(asker.images)]


def paired(gaps: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error.

    >>> paired([1, 3])
    (2.0, 1.0)
    """
    n = len(gaps)
    mean = sum(gaps) / n
    spread = sum((g - mean) ** 2 for g in gaps) / (n - 1) if n > 1 else math.nan
    return mean, math.sqrt(spread / n)


def noise(askers: Sequence[Asker]) -> str:
    """Sampled accuracies under random noise."""
    parts = []
    for group in (DENSE, PIXELS, CONVOLVED):
        chosen = members(askers, group)
        if chosen:
            unit = "each input flips with probability" if chosen[0].is_binary else "each pixel moves up or down by"
            head = [unit, *(f"{amount:g}" for amount in (0.0, *chosen[0].subject.noise))]
            rows = [[a.subject.title, *(f"{100 * v:.1f} %" for v in a.noisy().values())] for a in chosen]
            parts.append(table(head, rows))
    return "\n\n".join(parts)


def stages(askers: Sequence[Asker]) -> str:
    """Who settled how many questions, and the time."""
    rows = []
    for asker in askers:
        total: dict[str, int] = {}
        answers = [asker.verdicts(image) for image in range(asker.images)]
        for answer in answers:
            for stage, count in answer["stages"].items():
                total[stage] = total.get(stage, 0) + count
        unknown = sum(answer["verdicts"].count(UNKNOWN) for answer in answers)
        settled = ", ".join(f"{stage} {count}" for stage, count in sorted(total.items(), key=lambda pair: -pair[1]))
        seconds = sum(answer["spent"] for answer in answers)
        rows.append([f"`{asker.subject.file}`", settled, str(unknown), f"{seconds:.0f} s"])
    return table(["network", "settled by", "open", "time"], rows)


SECTIONS: dict[str, Section] = {
    "networks": networks,
    "dense": counts(DENSE),
    "distances": distances,
    "pixels": counts(PIXELS),
    "convolutions": counts(CONVOLVED),
    "noise": noise,
    "stages": stages,
}
