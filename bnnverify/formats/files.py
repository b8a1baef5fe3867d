"""Files appear whole or not at all; those that grow line by line may lose the end of the last one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from bnnverify.errors import FormatError


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


def whole_lines(data: bytes, form: str) -> tuple[list[bytes], int]:
    """The lines of a file of JSON lines, each of which begins with its `format`, and how many bytes are left over.

    Left over is the beginning of a line of that format, as a power failure leaves it at the end. Anything else there
    counts as a line, so that whoever reads it refuses the file before changing it.
    """
    end = data.rfind(b"\n") + 1
    rest, beginning = data[end:], f'{{"format": "{form}"'.encode()
    if rest.startswith(beginning) or beginning.startswith(rest):
        return data[:end].splitlines(), len(rest)
    return data.splitlines(), 0
