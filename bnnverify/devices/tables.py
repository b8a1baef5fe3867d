"""CSV tables of measurements: a header with units in its names, one measurement a line, lines from ``#`` on ignored."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bnnverify.errors import BnnVerifyError, FormatError
from bnnverify.reading import read_text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table.

    Attributes:
        where: ``path:line``, for messages.
        values: Text by column name.
    """

    where: str
    values: dict[str, str]

    def read(self, column: str, convert: Callable[[str], T], expected: str) -> T:
        """The converted value of a column.

        Raises:
            FormatError: It cannot be converted.
        """
        text = self.values[column]
        try:
            return convert(text)
        except (ValueError, ArithmeticError):
            raise FormatError(f"{self.where}: {column} is {text!r:.80}, expected {expected}.") from None

    def wrong(self, error: BnnVerifyError) -> FormatError:
        """The error of what this line says, with its place."""
        return FormatError(f"{self.where}: {error}")


def read_table(path: str | os.PathLike[str], *headers: Sequence[str], optional: Sequence[str] = ()) -> list[Line]:
    """The lines of a CSV file (UTF-8) whose columns are those of one of `headers`, in any order.

    Args:
        path: The file.
        headers: Sets of column names, one of which the file must have.
        optional: Columns that may come in addition.

    Raises:
        FormatError: Not readable, no such header, no data, or a line with more or fewer fields than the header.
    """
    text = read_text(path, "a CSV file")
    try:
        lines = list(_lines(os.fspath(path), csv.reader(text.split("\n"), skipinitialspace=True), headers, optional))
    except csv.Error as error:
        raise FormatError(f"{path}: is no CSV text ({error}), expected a CSV file.") from None
    if not lines:
        raise FormatError(f"{path}: has no data, expected a header and at least one line below it.")
    return lines


def _lines(
    path: str, rows: Iterator[list[str]], headers: Sequence[Sequence[str]], optional: Sequence[str]
) -> Iterator[Line]:
    names: list[str] | None = None
    for row in rows:
        number = rows.line_num  # type: ignore[attr-defined]
        fields = [field.strip() for field in row]
        if not any(fields) or fields[0].startswith("#"):
            continue
        if names is None:
            wanted = " or ".join(",".join(header) for header in headers)
            if not any(set(h) <= set(fields) <= set(h) | set(optional) for h in headers) or len(set(fields)) < len(
                fields
            ):
                extra = f" (optional: {','.join(optional)})" if optional else ""
                raise FormatError(f"{path}:{number}: the header is {','.join(fields)!r:.80}, expected {wanted}{extra}.")
            names = fields
        elif len(fields) != len(names):
            raise FormatError(f"{path}:{number}: has {len(fields)} fields, expected {len(names)}: {','.join(names)}.")
        else:
            yield Line(f"{path}:{number}", dict(zip(names, fields, strict=True)))
