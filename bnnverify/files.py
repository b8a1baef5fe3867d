"""Files appear whole or not at all; those that grow line by line may lose the end of the last one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnverify.errors import FormatError, QueryError
from bnnverify.reading import SIZE_LIMIT, bounded, parsed, reason, require_regular, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")


def require_writable(path: str | os.PathLike[str], what: str) -> None:
    """QueryError now rather than after the work, if `write_whole` could not write to `path`.

    Args:
        path: The file.
        what: What error messages call it, such as an option.
    """
    try:
        target = Path(os.path.realpath(path))
        special = target.exists() and not target.is_file()
        able = not target.is_dir() and target.parent.is_dir()
        able = able and os.access(target if special else target.parent, os.W_OK)
        able = able and (special or not target.exists() or os.access(target, os.W_OK))
    except (OSError, ValueError):
        able = False
    if not able:
        raise QueryError(
            f"{what} {shown(path)} cannot be written, expected a file in a directory that exists and is writable."
        )


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """The file at `path` holds exactly `data` afterwards; on an error it is as it was before.

    A temporary file in the same directory takes the data and then the place of `path`. What is no regular file,
    such as ``/dev/stdout``, is written to directly. Temporary files of processes that were killed are removed.

    Raises:
        FormatError: The path cannot be written.
    """
    with _complaint(path, "a file in a directory that exists and is writable"):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(None, "is a directory")
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        with _in_place_of(target, _new_file) as (_, number):
            _write_all(number, data)
            os.fsync(number)


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """The folder at `path` holds these files afterwards; on an error it has none of them that is new.

    A folder that is not there appears with all of its files at once. In one that is there, each file appears whole, in
    the given order: so the last one should be the one without which the others mean nothing.

    Raises:
        FormatError: The folder or a file cannot be written.
    """
    target = Path(os.path.realpath(path))
    if not target.exists():
        with _complaint(path, "a folder where one can be made"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _in_place_of(target, _new_folder) as (folder, _):
                for name, data in files.items():
                    with (folder / name).open("xb", buffering=0) as stream:
                        _write_all(stream.fileno(), data)
                        os.fsync(stream.fileno())
        return
    new = [target / name for name in files if not (target / name).exists()]
    try:
        for name, data in files.items():
            write_whole(target / name, data)
    except BaseException:
        for file in new:
            _remove(file)
        raise


@contextlib.contextmanager
def _complaint(path: str | os.PathLike[str], expected: str) -> Iterator[None]:
    try:
        yield
    except (FormatError, QueryError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FormatError(
            f"{shown(path)}: cannot be written ({reason(error)}), expected {expected}. Choose another path."
        ) from None


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(os.devnull if fcntl is None else path, os.O_RDONLY)


@contextlib.contextmanager
def _in_place_of(target: Path, make: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """A new temporary path with an open descriptor, which takes the place of `target` at the end; on an error it goes.

    The descriptor holds a lock, which ends with the process: so the next writer knows which ones are left over.
    """
    _remove_stale(target)
    number, temporary = -1, target
    try:
        while number < 0:
            temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
            number = make(temporary)
            lock(number, wait=False)
            if not temporary.exists():  # another writer took it for left over before it was locked
                os.close(number)
                number = -1
        yield temporary, number
        if fcntl is None:  # Windows moves no open files
            os.close(number)
            number = -1
        temporary.replace(target)
    finally:
        if number >= 0:
            os.close(number)
        if temporary != target:
            _remove(temporary)


def _remove_stale(target: Path) -> None:
    """Removes temporary files and folders of `target` that no process holds."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for name in [entry.name for entry in entries if entry.name.endswith(".part")]:
            match = _PART.fullmatch(name)
            if match is None or match[1] != target.name[:200]:
                continue
            path, number = target.with_name(name), -1
            with contextlib.suppress(OSError):  # a folder on Windows
                number = os.open(path, flags)
            if number < 0 or lock(number, wait=False):
                _remove(path)
            if number >= 0:
                os.close(number)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def lock(number: int, *, wait: bool = True) -> bool:
    """Takes the lock of an open file, which closing it or the end of the process gives back.

    Args:
        number: The file descriptor.
        wait: Wait for whoever has it.

    Returns:
        True if it is ours now. Where there are no such locks (Windows, some network disks) there is nobody to wait
        for: True.
    """
    if fcntl is None or number < 0:
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


class Lines:
    """A file that grows by lines of JSON, such as a log of a long run.

    Args:
        path: The file; ``/dev/stdout`` and the like serve, too.
        append: Go on at its end; else it is emptied.

    Raises:
        FormatError: It cannot be opened; or, in `append`, written.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool) -> None:
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if append else os.O_TRUNC) | getattr(os, "O_BINARY", 0)
        with _complaint(path, "a file in a directory that exists and is writable"):
            self._number = os.open(path, flags, 0o666)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._number)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line, at once: all of it or, in a regular file, nothing."""
        with _complaint(self._path, "room for another line"):
            _append(self._number, (json.dumps(record) + "\n").encode())


def _append(number: int, data: bytes) -> None:
    """Writes all of the data at the end, or leaves a regular file as it was."""
    is_regular = stat.S_ISREG(os.fstat(number).st_mode)
    end = os.lseek(number, 0, os.SEEK_END) if is_regular else 0
    try:
        _write_all(number, data)
    except BaseException:
        if is_regular:
            os.ftruncate(number, end)
        raise


class LineFile:
    """An append-only file of JSON lines of one format, which several processes may grow.

    Args:
        path: The file; it is made if it does not exist. None keeps nothing.
        form: The `format` with which every line begins.
        version: The `version` of every line.
        what: What error messages call a line.
        take: Called with each line that is there. By a QueryError it says what is wrong with a line, by a ValueError,
            LookupError, TypeError or ArithmeticError that it is none of ours.

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
            self._path = Path(path)
            try:
                self._read(what, take)
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The descriptor, while no other process reads or writes."""
        number = self._file
        assert number is not None
        try:
            lock(number)
            yield number
        except OSError as error:
            raise FormatError(
                f"{shown(self._path)}: cannot be read and written ({reason(error)}). Choose another file."
            ) from None
        finally:
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(number, fcntl.LOCK_UN)

    def _open(self) -> int:
        expected = "lines that bnnverify wrote"
        try:
            if self._path.exists():
                require_regular(self._path, self._path.stat().st_mode, expected)
            number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except FormatError:
            raise
        except (OSError, ValueError) as error:
            raise FormatError(
                f"{shown(self._path)}: cannot be read and written ({reason(error)}). Choose another file."
            ) from None
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            require_regular(self._path, self._path.stat().st_mode, expected)
        return number

    def _read(self, what: str, take: Callable[[Mapping[str, Any]], None]) -> None:
        self._file = self._open()
        with self._locked() as number:
            with os.fdopen(number, "rb", closefd=False) as stream:
                raw = bounded(stream, SIZE_LIMIT, shown(self._path), "a file that bnnverify made")
            whole, kept = _whole_lines(raw, self._form)
            for line_number, text in enumerate(whole, start=1):
                self._take(text, f"{shown(self._path)}:{line_number}", what, take)
            if kept < len(raw):  # only now, when all else in the file is known to be ours
                os.ftruncate(number, kept)
            elif raw and not raw.endswith(b"\n"):
                _write_all(number, b"\n")

    def _take(self, text: bytes, where: str, what: str, take: Callable[[Mapping[str, Any]], None]) -> None:
        try:
            if not text.decode("utf-8-sig").strip():
                return
            line = parsed(text.decode("utf-8-sig"))
            if line["format"] != self._form or line["version"] != self._version:
                raise ValueError
            take(line)
        except QueryError as error:
            raise FormatError(f"{where}: {error}") from None
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            why = f" ({reason(error)})" if str(error) else ""
            raise FormatError(
                f"{where}: is no {what} of version {self._version}{why}. Give a file that bnnverify made, or a new one."
            ) from None

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line at the end, at once: all of it or nothing.

        Raises:
            FormatError: It cannot be written.
        """
        if self._file is None:
            return
        text = json.dumps({"format": self._form, "version": self._version, **line}, allow_nan=False)
        with self._locked() as number:
            _drop_cut_line(number)
            _append(number, (text + "\n").encode())

    def close(self) -> None:
        """Nothing is written any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _drop_cut_line(number: int) -> None:
    """Removes what a process left after the last whole line, because it was killed while it wrote."""
    end = size = os.lseek(number, 0, os.SEEK_END)
    while end:
        start = max(0, end - io.DEFAULT_BUFFER_SIZE)
        os.lseek(number, start, os.SEEK_SET)
        line_feed = os.read(number, end - start).rfind(b"\n")
        if line_feed >= 0:
            end = start + line_feed + 1
            break
        end = start
    if end < size:
        os.ftruncate(number, end)


def _whole_lines(data: bytes, form: str) -> tuple[list[bytes], int]:
    """The lines of a file of JSON lines, each of which begins with its `format`, and how many bytes they are.

    What is left over is a last line of that format which is no JSON, as a power failure leaves it. Anything else there
    counts as a line, so that whoever reads it refuses the file before changing it.
    """
    start = data[:-1].rfind(b"\n") + 1
    last, beginning = data[start:].rstrip(b"\0"), f'{{"format": "{form}"'.encode()
    if (last or start) and (last.startswith(beginning) or beginning.startswith(last)):
        try:
            parsed(last.decode("utf-8"))
        except (ValueError, RecursionError):
            return data[:start].split(b"\n"), start
    return data.split(b"\n"), len(data)
