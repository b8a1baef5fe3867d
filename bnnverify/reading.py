"""The one gate through which files come in: what may be read, and how much of it.

Every reader of this package takes its bytes, archives, arrays, JSON values and text from here. Nothing is believed
that a file says about itself: only regular files are read; a size is bounded before memory is taken; packed data may
not grow beyond what honest files do; an array has the bytes that its header names; JSON has bounded depth, finite
numbers and text that can be printed. Whatever is wrong becomes a `FormatError` that starts with the path.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import os
import re
import stat
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from bnnverify.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE_LIMIT = 2**31
"""Bytes of one file, and of what is packed in it."""

SMALL, RATIO = 2**26, 300
"""Packed data may always become `SMALL` bytes, and more only up to `RATIO` times their own size.

Weights of a sparse network, which pack best, stay below 100.
"""

MOST_MEMBERS = 2**16
TEXT_LIMIT = 2**28
"""Bytes of a text, of which Python makes many times more."""

DEPTH = 100

_CHUNK = 2**20
_LONGEST = 2**40  # entries of an array, also where others are 0
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_NUMBER = re.compile(r"([+-]?)(?:([0-9]+)/([0-9]+)|(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,6}))?)")


def require_regular(path: str | os.PathLike[str], mode: int, expected: str) -> None:
    """FormatError unless the mode (of `os.stat`) is that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in _KINDS if test(mode)), "no regular file")
        raise FormatError(f"{shown(path)}: is {kind}, expected a regular file ({expected}). Check the path.")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], expected: str, *, limit: int = SIZE_LIMIT) -> Iterator[BinaryIO]:
    """A regular file of bounded size, open for reading.

    Args:
        path: The file.
        expected: What it should hold, for messages: "an ONNX model".
        limit: Bytes.

    Raises:
        FormatError: It is not there, cannot be read, is no regular file or too large. Whatever the caller's reading
            raises as an OSError becomes one, too.
    """
    try:
        with _open(path, expected, limit) as file:
            yield file
    except OSError as error:
        raise FormatError(
            f"{shown(path)}: cannot be read ({reason(error)}), expected {expected}. Check the path."
        ) from None


def _open(path: str | os.PathLike[str], expected: str, limit: int) -> BinaryIO:
    try:
        status = Path(path).stat()
    except ValueError:
        raise FormatError(f"{shown(path)}: is no name of a file, expected {expected}. Check the path.") from None
    require_regular(path, status.st_mode, expected)  # before opening: to open a device may do something
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    try:
        status = os.fstat(file.fileno())
        require_regular(path, status.st_mode, expected)  # it may be another one by now
        if status.st_size > limit:
            raise FormatError(f"{shown(path)}: has {status.st_size} bytes, expected {expected} of at most {limit}.")
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: str | os.PathLike[str], expected: str, *, limit: int = SIZE_LIMIT) -> bytes:
    """The bytes of a regular file, as they are.

    Raises:
        FormatError: As `opened`.
    """
    with opened(path, expected, limit=limit) as file:
        return bounded(file, limit, shown(path), expected)


def read_unpacked(path: str | os.PathLike[str], expected: str, *, limit: int = SIZE_LIMIT) -> bytes:
    """The bytes of a regular file, unpacked if it is gzipped.

    Raises:
        FormatError: As `opened`; or it cannot be unpacked, or grows too much.
    """
    data = read_bytes(path, expected, limit=limit)
    return gunzipped(data, shown(path), expected, limit=limit) if data[:2] == b"\x1f\x8b" else data


def read_text(path: str | os.PathLike[str], expected: str, *, limit: int = TEXT_LIMIT) -> str:
    """The text of a regular file: see `text_of`.

    Raises:
        FormatError: As `opened` and `text_of`.
    """
    return text_of(read_bytes(path, expected, limit=limit), shown(path), expected)


def read_stdin(expected: str, *, limit: int = TEXT_LIMIT) -> str:
    """The text on stdin, which may be a pipe: see `text_of`.

    Raises:
        FormatError: stdin is closed, has more than `limit` bytes, or is no text.
    """
    if sys.stdin is None:
        raise FormatError(f"-: stdin is closed, expected {expected}.")
    try:
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:  # a stand-in without bytes
            return text_of(sys.stdin.read(limit).encode(), "-", expected)
        return text_of(bounded(stream, limit, "-", expected), "-", expected)
    except OSError as error:
        raise FormatError(f"-: cannot be read ({reason(error)}), expected {expected}.") from None


def bounded(stream: Any, limit: int, where: str, expected: str) -> bytes:
    """All bytes of a stream, in pieces, so that no memory is taken for what is not there.

    Raises:
        FormatError: There are more than `limit`.
    """
    parts, size = [], 0
    while part := stream.read(_CHUNK):
        size += len(part)
        if size > limit:
            raise FormatError(f"{where}: has more than {limit} bytes, expected {expected} of at most that size.")
        parts.append(part)
    return b"".join(parts)


def require_growth(packed: int, unpacked: int, where: str, expected: str) -> None:
    """FormatError if so few bytes became so many: a bomb, and no honest file."""
    if unpacked > max(SMALL, RATIO * packed):
        raise FormatError(
            f"{where}: {packed} bytes become {unpacked} or more, expected {expected} that grows at most {RATIO} times."
        )


def gunzipped(data: bytes, where: str, expected: str, *, limit: int = SIZE_LIMIT) -> bytes:
    """Gzipped data, unpacked.

    Raises:
        FormatError: They are damaged, grow too much, or to more than `limit` bytes.
    """
    raw = io.BytesIO(data)
    parts, size = [], 0
    try:
        with gzip.GzipFile(fileobj=raw) as stream:
            while part := stream.read(_CHUNK):
                size += len(part)
                require_growth(raw.tell(), size, where, expected)
                if size > limit:
                    raise FormatError(f"{where}: unpacks to more than {limit} bytes, expected {expected}.")
                parts.append(part)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(
            f"{where}: cannot be unpacked ({reason(error)}), expected {expected}. The file is damaged."
        ) from None
    return b"".join(parts)


class Archive:
    """The members of a zip file, none of which is unpacked before it is asked for.

    Args:
        file: The archive, open; or its bytes.
        where: What error messages call it.
        expected: What it should be.

    Raises:
        FormatError: It is no zip file, or its members are too many, too large, or grow too much; likewise in `read`.
    """

    def __init__(self, file: BinaryIO | bytes, where: str, expected: str) -> None:
        self._where, self._expected = where, expected
        stream = io.BytesIO(file) if isinstance(file, bytes) else file
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        with self._complaints():
            self._zip = zipfile.ZipFile(stream)
        members = self._zip.infolist()
        self.names = tuple(member.filename for member in members)
        if len(members) > MOST_MEMBERS or sum(member.compress_size for member in members) > size:
            raise FormatError(f"{where}: has members that overlap or are too many, expected {expected}.")
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
                raise FormatError(f"{where}: member {member.filename!r:.60} is encrypted or packed in an unknown way.")
        total = sum(member.file_size for member in members)
        require_growth(size, total, where, expected)
        if total > SIZE_LIMIT:
            raise FormatError(f"{where}: unpacks to {total} bytes, expected {expected} of at most {SIZE_LIMIT}.")

    @contextlib.contextmanager
    def _complaints(self) -> Iterator[None]:
        try:
            yield
        except (FormatError, MemoryError, KeyError):
            raise
        except Exception as error:  # damaged archives break zipfile in many ways
            raise FormatError(
                f"{self._where}: is not a readable archive ({reason(error)}), expected {self._expected}. "
                "The file is damaged or of another kind."
            ) from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._zip.close()

    def size(self, name: str) -> int:
        """Bytes of a member once unpacked, as the archive declares it; KeyError if there is none."""
        return self._zip.getinfo(name).file_size

    def read(self, name: str) -> bytes:
        """A member, unpacked: at most as long as declared, and with the right checksum."""
        with self._complaints():
            return self._zip.read(name)

    def array(self, name: str, kinds: str = "biuf") -> NDArray[Any]:
        """The array in the member `name`: see `array_of`."""
        return array_of(self.read(name), f"{self._where}: array {name.removesuffix('.npy')!r:.60}", kinds)


def array_of(data: bytes, where: str, kinds: str = "biuf") -> NDArray[Any]:
    """The array in the bytes of a ``.npy`` file, which holds exactly what its header says.

    Args:
        data: All of the file.
        where: What error messages call it.
        kinds: Kinds of dtype that may come: b, i, u, f, and U for text. Objects are never read.

    Raises:
        FormatError: It is anything else.
    """
    import numpy as np

    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"its version is {version[0]}.{version[1]}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
    except Exception as error:  # the header is a Python literal, and may break anything
        raise FormatError(f"{where}: is not a plain .npy array ({reason(error)}), expected one.") from None
    if dtype.kind not in kinds or dtype.itemsize == 0:
        raise FormatError(f"{where}: has dtype {dtype!s:.60}, expected {'text' if kinds == 'U' else 'numbers'}.")
    there = len(data) - stream.tell()
    plain = len(shape) <= 32 and all(type(n) is int and 0 <= n <= _LONGEST for n in shape)
    if not plain or math.prod(shape) * dtype.itemsize != there or math.prod(n or 1 for n in shape) > _LONGEST:
        raise FormatError(f"{where}: has {there} bytes of {dtype} data, which the shape {shape!s:.60} does not fit.")
    return np.frombuffer(data[stream.tell() :], dtype=dtype).reshape(shape, order="F" if fortran else "C")


def text_of(data: bytes, where: str, expected: str) -> str:
    """Text in UTF-8, with or without a byte-order mark; lines end in a line feed, whatever they ended in.

    Raises:
        FormatError: It is not UTF-8, or holds a NUL.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{where}: is no text in UTF-8 (byte {error.start} is {data[error.start]:#04x}), expected {expected}."
        ) from None
    if "\0" in text:
        raise FormatError(f"{where}: holds a NUL character, expected {expected} as text.")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def json_of(text: str | bytes, where: str, expected: str) -> Any:
    """The value of a JSON text with bounded depth, no key twice, finite numbers, and strings that can be printed.

    Raises:
        FormatError: It is anything else.
    """
    found = text_of(text, where, expected) if isinstance(text, bytes) else text
    try:
        return parsed(found)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: is not valid JSON ({reason(error)}), expected {expected}.") from None


def parsed(text: str) -> Any:
    """As `json_of`.

    Raises:
        ValueError: The text is anything else; the message says what, without a place.
    """
    _require_depth(text)
    value = json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_object)
    if "\\u" in text or not text.isascii():
        for string in strings_of(value):
            printable(string)
    return value


def _require_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEPTH:
            raise ValueError(f"more than {DEPTH} brackets lie in each other")


def _finite(word: str) -> float:
    value = float(word) if word not in ("NaN", "Infinity", "-Infinity") else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{word:.40} is no finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.40} comes twice")
    return found


def strings_of(value: Any) -> Iterator[str]:
    """All strings in JSON values, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings_of(inner)


def printable(text: str) -> str:
    """The text, if it can be printed.

    Raises:
        ValueError: It holds half of a surrogate pair, or a NUL.
    """
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text if c > "\x7f"):
        raise ValueError(f"the text {text!a:.40} holds a NUL or half a character")
    return text


def number(word: str, *, digits: int = 4000, exponent: int = 4000) -> Fraction:
    """The number that ``-0.5``, ``1e-3`` or ``3/8`` means, exactly; its size is bounded before it is computed.

    Raises:
        ValueError: It is no such text, has too many digits or too large an exponent, or its denominator is 0.

    >>> number("-1.5e-1")
    Fraction(-3, 20)
    """
    match = _NUMBER.fullmatch(word.strip()) if len(word) <= 2 * digits + 16 else None
    if match is None:
        raise ValueError(f"{word!r:.40} is no number of at most {digits} digits")
    sign, numerator, denominator, whole, decimals, power = match.groups()
    if numerator is not None:
        if int(denominator) == 0:
            raise ValueError(f"{word!r:.40} has the denominator 0")
        value = Fraction(int(numerator), int(denominator))
    else:
        if abs(int(power or 0)) > exponent:
            raise ValueError(f"{word!r:.40} has an exponent beyond {exponent}")
        shift = int(power or 0) - len(decimals or "")
        value = Fraction(int((whole or "") + (decimals or "") or "0")) * Fraction(10) ** shift
    return -value if sign == "-" else value


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed, whatever bytes it holds."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def reason(error: BaseException) -> str:
    """What an error says, in one short line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = " ".join(text.split()).strip("'\".") or type(error).__name__
    return (words if words[1:2].isupper() else words[:1].lower() + words[1:])[:120]
