"""What the rows about images have in common: the question in words, what changed, and the picture."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from bnnverify.report import figures
from bnnverify.report.lines import Line, question_text, region_text

MOST_RADII = 10_000  # in the figure of distances, which has a point for each
MOST_PAIRS = 8  # of each network, or of each answer that holds several inputs


def image_source(svg: str) -> str:
    """A data URI of an SVG."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def common(line: Line, names: dict[str, str]) -> dict[str, Any]:
    """The columns of every row about an image.

    Args:
        line: A result line.
        names: Identity of a network -> its name on the page.
    """
    image, run = line["image"], line["answer"]["run"]
    return {
        "network": names[line["model"]["identity"]],
        "index": image["index"],
        "label": "unknown" if image["label"] is None else image["label"],
        "predicted": image["predicted"],
        "wrong": image["label"] is not None and image["label"] != image["predicted"],
        "region": region_text(line["question"]["region"]),
        "question": question_text(line),
        "engine": run["engine"],
        "seconds": f"{run['seconds']:.2f}",
        "reason": run["reason"],
    }


def changed(line: Line, point: Sequence[int] | None) -> str:
    """Where an input differs from the image; nothing if there is none."""
    if point is None:
        return ""
    return ", ".join(str(i) for i, (a, b) in enumerate(zip(line["image"]["input"], point, strict=True)) if a != b)


def is_picture(line: Line) -> bool:
    """True if the network's input has rows and columns."""
    return len(line["model"]["shape"]) == 2


def pair(line: Line, point: Sequence[int], predicted: int) -> figures.Pair:
    """The image beside another input, of class `predicted`."""
    image, (height, width) = line["image"], line["model"]["shape"]
    before, after = ([v[r * width : (r + 1) * width] for r in range(height)] for v in (image["input"], point))
    differing = sum(a != b for a, b in zip(image["input"], point, strict=True))
    flips = f"{differing} flip{'s' if differing != 1 else ''}"
    return figures.Pair(before, after, f"#{image['index']}: {image['predicted']}", f"{predicted}, {flips}")
