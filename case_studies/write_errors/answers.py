"""Answers of the study: JSON lines that are only ever appended, found again by the question they answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnverify.errors import FormatError

Line = dict[str, Any]


def key_of(question: Line) -> str:
    """sha256 of a question as canonical JSON, shortened."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Answers:
    """A file of answers, and what it held when it was opened.

    Attributes:
        path: The file; made when the first answer comes.
        again: Ask anew what is there. What was asked since the file was opened is not asked again.
        found: Lines by key, the last one of each.
        fresh: Keys that were answered since the file was opened.
        asked: Questions by key.
    """

    path: Path
    again: bool = False
    found: dict[str, Line] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    asked: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        for number, text in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                line = json.loads(text)
                key = key_of(line["question"])
                self.asked[key], self.found[key] = line["question"], line["answer"]
            except (ValueError, KeyError, TypeError) as error:
                where = f"{self.path}:{number}"
                raise FormatError(f"{where}: no answer of this study ({error}). Delete the line.") from None

    def get(self, question: Line) -> Line | None:
        """The answer, or None if it must be asked."""
        key = key_of(question)
        return None if self.again and key not in self.fresh else self.found.get(key)

    def put(self, question: Line, answer: Line) -> None:
        """Keep an answer, at once."""
        key = key_of(question)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")
        self.asked[key], self.found[key] = question, answer
        self.fresh.add(key)

    def questions(self) -> Iterator[tuple[Line, Line]]:
        """Every question with its answer."""
        for key, question in self.asked.items():
            if not self.again or key in self.fresh:
                yield question, self.found[key]
