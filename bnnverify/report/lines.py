"""Result lines as they are read back: checked one by one, with `file:line` in every complaint."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from bnnverify.errors import FormatError
from bnnverify.quantities import TYPES
from bnnverify.reading import json_of, number, read_stdin, read_text
from bnnverify.results import Probability, answer_from_json

Line = dict[str, Any]

ABOUT_IMAGES = ("decision", "count", "distance", "explanation", "essential", *TYPES)
"""Types of answers about one image and a region around it."""

ABOUT_CHIPS = (
    *("yield", "block-sensitivity", "certified-range", "flip-distances", "flip-robustness", "critical-cells"),
    *("fault-coefficients", "lowest-write-energy"),
)
"""Types of answers about faulty chips that the page does not show."""

_BOXES = {"pixel-box": "box of pixels", "real-box": "box of real numbers"}

FORMAT = "bnnverify result"
VERSION = 1


def read_lines(name: str) -> list[Line]:
    """The result lines of a file; ``-`` is stdin.

    Raises:
        FormatError: The file cannot be read, or a line is no result of this version.
    """
    what = "result lines as --json prints them"
    text = read_stdin(what) if name in ("-", "/dev/stdin") else read_text(name, what)
    lines = []
    for place, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            lines.append(json_of(row, f"{name}:{place}", what))
            check(lines[-1], f"{name}:{place}")
    if not lines:
        raise FormatError(f"{name}: holds no result line. Write some with `bnnverify verify ... --json > {name}`.")
    return lines


def check(line: Any, where: str) -> None:
    """Refuses a line that the report could not show.

    Raises:
        FormatError: It is no result line, of another version, or lacks something.
    """
    if not isinstance(line, dict) or line.get("format") != FORMAT:
        raise FormatError(f"{where}: is no result of bnnverify, expected a line as --json prints it.")
    if line.get("version") != VERSION:
        raise FormatError(
            f"{where}: is a result of version {line.get('version')!r:.20}, expected {VERSION}. "
            "Ask the question again with this bnnverify."
        )
    try:
        _touch(line)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FormatError(f"{where}: is damaged ({type(error).__name__}: {error}). Ask the question again.") from None


def _require(place: dict[str, Any], kinds: dict[str, type]) -> None:
    """ValueError if a value that is there, and not null, is of another type; a bool is no number."""
    for key, kind in kinds.items():
        value = place.get(key)
        fits = isinstance(value, (int, float) if kind is float else kind)
        if value is not None and (not fits or (kind is not bool and isinstance(value, bool))):
            raise ValueError(f"{key} is {value!r:.40}, expected a value of type {kind.__name__}")
        if kind is list and value is not None and not all(type(v) is int for v in value):
            raise ValueError(f"{key} is no list of integers")


def _require_types(line: Line) -> None:
    """ValueError if something that the page shows or draws is of another type."""
    texts, whole = dict.fromkeys(("path", "identity", "architecture"), str), dict.fromkeys(("cells", "classes"), int)
    _require(line["model"], {**texts, **whole, "shape": list})
    if any(line["model"][key] is None for key in (*texts, *whole, "shape")):
        raise ValueError("the network lacks something")
    _require(line, {"command": str, "versions": dict, "data": dict, "image": dict, "question": dict, "answer": dict})
    image, question = line.get("image") or {}, line.get("question") or {}
    _require(image, {"index": int, "label": int, "predicted": int, "input": list})
    if image and math.prod(line["model"]["shape"]) != len(image["input"]):
        raise ValueError("the image has another size than the shape of the network")
    _require(question, {"ties": str, "property": dict, "region": dict, "faults": dict})
    _require(question.get("region") or {}, {"kind": str, "radius": int, "free": list, "center": list})
    for name, value in (question.get("faults") or {}).items():
        if name.startswith("p") and isinstance(value, str) and not 0 <= number(value) <= 1:
            raise ValueError(f"{name} is {value:.40}, expected a probability")
    answer = line["answer"]
    _require(
        answer,
        {
            "predicted": list if answer["type"] == "samples" else int,
            "counterexample": list,
            "witness": list,
            "per_class": list,
        },
    )
    for point in (image.get("input"), answer.get("counterexample"), answer.get("witness")):
        if any(abs(v) >= 2**63 for v in point or ()):
            raise ValueError("an input holds a number of more than 64 bits")
    _require(answer.get("run") or {}, {"engine": str, "reason": str, "seconds": float})


def _touch(line: Line) -> None:
    """Reads everything that the page uses."""
    _require_types(line)
    model, answer, kind = line["model"], line["answer"], line["answer"]["type"]
    _ = [model[key] for key in ("path", "identity", "architecture", "cells", "classes", "shape")]
    if not all(isinstance(text, str) for text in model.get("assumed", [])):
        raise ValueError("what was assumed about the network is no list of sentences")
    _ = line["command"], line["versions"].items()
    if kind in ABOUT_IMAGES:
        answer_from_json(answer)
        _ = [line["image"][key] for key in ("index", "label", "predicted", "input")]
        _ = region_text(line["question"]["region"]), question_text(line)
        _ = line["data"].items()
        _touch_inputs(answer, len(line["image"]["input"]))
        if kind == "distance":
            _touch_distance(answer, line["image"]["input"])
        if kind == "noise":
            number(str(line["question"]["rate"]))
    elif kind == "accuracy":
        Probability.from_json(answer)
        _ = line["question"]["faults"]["kind"], line["images"]["indices"][0], line["images"]["clean_correct"]
        _ = line["data"].items()
    elif kind == "tolerance":
        for side in ("ok", "fail"):
            if answer[f"p_{side}"] is not None:
                Probability.from_json(answer[f"accuracy_{side}"])
        _ = line["question"]["target_accuracy"], answer["run"]["reason"]
    elif kind not in ("info", "training", *ABOUT_CHIPS):
        raise ValueError(f"answers of type {kind!r:.30} are unknown")


def _touch_inputs(answer: dict[str, Any], size: int) -> None:
    """Refuses other inputs, or indices of inputs, than an image of this size has."""
    for point in (answer.get("counterexample"), answer.get("witness"), *answer.get("inputs", ())):
        if point is not None and len(point) != size:
            raise ValueError("the counterexample has another size than the image")
    for i in (*answer.get("kept", ()), *answer.get("essential", ())):
        if not 0 <= i < size:
            raise ValueError(f"input {i} does not exist")
    if (check := answer["run"]["statistics"].get("check")) is not None:
        _ = [check[key] for key in ("prime", "sufficient", "redundant")]


def _touch_distance(answer: dict[str, Any], x: list[int]) -> None:
    """Refuses a distance that is not that of its witness, or that no input of this size can have."""
    is_hamming = answer.get("norm", "hamming") == "hamming"
    if is_hamming and answer["lower"] > len(x) + 1:
        raise ValueError(f"a distance of {answer['lower']} does not fit {len(x)} inputs")
    if answer["witness"] is not None:
        changes = [abs(a - b) for a, b in zip(x, answer["witness"], strict=True)]
        found = sum(change != 0 for change in changes) if is_hamming else max(changes)
        if found != answer["upper"]:
            raise ValueError(f"the witness lies at distance {found}, not {answer['upper']}")


def region_text(region: dict[str, Any]) -> str:
    """A region in a few words."""
    if region["kind"] == "hamming":
        among = f" in {len(region['free'])} inputs" if "free" in region else ""
        return f"radius {region['radius']}{among}"
    if region["kind"] in _BOXES:
        return _BOXES[region["kind"]]
    free, n = len(region["free"]), len(region["center"])
    return "all inputs" if free == n else f"{free} of {n} inputs free"


def question_text(line: Line) -> str:
    """What is asked about the class, in a few words."""
    prop = line["question"]["property"]
    goal = f"class is not {prop['label']}" if prop["kind"] == "untargeted" else f"class is {prop['target']}"
    ties = {"lowest-index": "", "counterexample": ", ties count", "robust": ", ties do not count"}
    return goal + ties.get(line["question"]["ties"], "")


def of_type(lines: Iterable[Line], *types: str) -> list[Line]:
    """The lines whose answer is of one of these types, in order."""
    return [line for line in lines if line["answer"]["type"] in types]


def outward(bounds: dict[str, Any], digits: int) -> tuple[str, str]:
    """Decimal text of a lower and an upper bound, rounded so that both stay bounds.

    >>> outward({"lower": "1/3", "upper": "1/3"}, 3)
    ('0.333', '0.334')
    """
    unit = 10**digits
    low, high = math.floor(Fraction(bounds["lower"]) * unit), math.ceil(Fraction(bounds["upper"]) * unit)
    return f"{low // unit}.{low % unit:0{digits}}", f"{high // unit}.{high % unit:0{digits}}"
