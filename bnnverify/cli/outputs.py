"""The files and folders that a command writes: looked at before the work, so that no work is done for nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bnnverify.errors import QueryError
from bnnverify.files import require_writable
from bnnverify.reading import shown


def require_outputs(
    files: Mapping[str, Path | None],
    *,
    folders: Mapping[str, Path | None] | None = None,
    inputs: Iterable[Path | None] = (),
) -> None:
    """Refuses what cannot be written, what two options would write, and what the command reads itself.

    Args:
        files: Option, as the command line has it, to the file it names; None where it is not given.
        folders: The same for folders, which are made if need be.
        inputs: Files that the command reads.

    Raises:
        QueryError: One of these.
    """
    read = {path.resolve() for path in inputs if path is not None}
    seen: dict[Path, str] = {}
    for name, path in files.items():
        if path is not None:
            require_writable(path, name)
    for name, path in (folders or {}).items():
        if path is not None:
            _require_folder(path, name)
    for name, path in (*files.items(), *(folders or {}).items()):
        if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
            continue  # a device takes everything
        if path.resolve() in read:
            raise QueryError(f"{name} is {shown(path)}, which the command reads, expected another name.")
        other = seen.setdefault(path.resolve(), name)
        if other != name:
            raise QueryError(f"{name} and {other} are both {shown(path)}, expected two files.")


def _require_folder(path: Path, name: str) -> None:
    """QueryError unless files can be written into the folder, which need not be there yet."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise QueryError(f"{name} {shown(path)} cannot be written, expected a folder in a place that is writable.")
