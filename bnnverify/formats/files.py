"""Files appear whole or not at all; those that grow line by line may lose the end of the last one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bnnverify.errors import FormatError, QueryError


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """The file at `path` holds exactly `data` afterwards; on an error it is as it was before.

    A temporary file in the same directory takes the data and then the place of `path`. What is no regular file,
    such as ``/dev/stdout``, is written to directly.

    Raises:
        FormatError: The path cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)
            return
        if target.is_dir():
            raise IsADirectoryError(None, "is a directory")
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FormatError(
            f"{path}: cannot be written ({reason}), expected a file in a directory that exists and is writable. "
            "Choose another path."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class LineFile:
    """An append-only file of JSON lines of one format, which several processes may grow.

    Args:
        path: The file; it is made if it does not exist. None keeps nothing.
        form: The `format` with which every line begins.
        version: The `version` of every line.
        what: What error messages call a line.
        take: Called with each line that is there. By a QueryError it says what is wrong with a line, by a ValueError,
            LookupError or TypeError that it is none of ours.

    Raises:
        FormatError: The file cannot be read or written, or holds something else; it is not changed then. A last line
            that was cut off by a power failure is dropped.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        form: str,
        version: int,
        what: str,
        take: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._form, self._version = form, version
        self._file: int | None = None
        if path is not None:
            self._read(Path(path), what, take)

    def _read(self, path: Path, what: str, take: Callable[[Mapping[str, Any]], None]) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            raw = path.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise FormatError(f"{path}: cannot be read and written ({reason}). Choose another file.") from None
        whole, cut = _whole_lines(raw, self._form)
        for number, text in enumerate(whole, start=1):
            try:
                line = json.loads(text)
                if line["format"] != self._form or line["version"] != self._version:
                    raise ValueError
                take(line)
            except QueryError as error:
                self.close()
                raise FormatError(f"{path}:{number}: {error}") from None
            except (ValueError, LookupError, TypeError):
                self.close()
                raise FormatError(
                    f"{path}:{number}: is no {what} of version {self._version}. Give a file that bnnverify made, or a "
                    "new one."
                ) from None
        if cut:  # only now, when all else in the file is known to be ours
            os.ftruncate(self._file, len(raw) - cut)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line at the end, at once."""
        if self._file is not None:
            text = json.dumps({"format": self._form, "version": self._version, **line}, allow_nan=False)
            os.write(self._file, (text + "\n").encode())  # one call for a whole line: several processes may append

    def close(self) -> None:
        """Nothing is written any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _whole_lines(data: bytes, form: str) -> tuple[list[bytes], int]:
    """The lines of a file of JSON lines, each of which begins with its `format`, and how many bytes are left over.

    Left over is the beginning of a line of that format, as a power failure leaves it at the end. Anything else there
    counts as a line, so that whoever reads it refuses the file before changing it.
    """
    end = data.rfind(b"\n") + 1
    rest, beginning = data[end:], f'{{"format": "{form}"'.encode()
    if rest.startswith(beginning) or beginning.startswith(rest):
        return data[:end].splitlines(), len(rest)
    return data.splitlines(), 0
