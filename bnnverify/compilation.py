"""Loops that numba compiles when they are first called, and the files that keep their machine code.

Every loop of the package is decorated here and not by numba, for three reasons. numba is imported when a loop is
called, so a question that needs no loop does not wait for it. Machine code is kept where this process can write: in the
package, else in the user's cache folder, else in a private temporary folder. And a file is used only if its checksum is
right and if it was made from the same source, callees and constants included, by the same numba for the same
processor; any other one counts as absent and is made again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, update_wrapper
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock, Timer
from types import CodeType, FunctionType, ModuleType
from typing import Any, overload

from bnnverify.errors import BnnVerifyError, BnnVerifyWarning, UnsupportedError
from bnnverify.files import write_whole

PACKAGE = Path(__file__).parent
_lock = RLock()

notice: Callable[[], None] | None = None
"""Called once, where compiling takes more than two seconds."""


def seconds_compiling() -> float:
    """Seconds that this process has spent compiling loops so far; no time limit counts them."""
    return _compiling.seconds


class _Compiling:
    """Hears from numba when it compiles: a loop, and within it the loops that it calls."""

    def __init__(self) -> None:
        self._finished, self._since, self._depth = 0.0, 0.0, 0
        self._timer: Timer | None = None

    @property
    def seconds(self) -> float:
        """Spent so far, also on what is being compiled."""
        return self._finished + (time.perf_counter() - self._since if self._depth else 0.0)

    def notify(self, event: Any) -> None:
        """Called by numba, under its lock."""
        if event.is_start:
            if self._depth == 0:
                self._since = time.perf_counter()
                self._announce_later()
            self._depth += 1
        elif event.is_end:
            finished = self.seconds
            self._depth -= 1
            if self._depth == 0:
                self._finished = finished

    def _announce_later(self) -> None:
        """Questions need several loops, each of which may be quick: two seconds from the first."""
        if self._timer is None and notice is not None:
            self._timer = Timer(2.0, lambda: notice() if notice is not None and self._depth else self._forget())
            self._timer.daemon = True
            self._timer.start()

    def _forget(self) -> None:
        self._timer = None


_compiling = _Compiling()


@overload
def njit(function: Callable[..., Any], /) -> _Loop: ...
@overload
def njit(**options: Any) -> Callable[[Callable[..., Any]], _Loop]: ...
def njit(function: Any = None, /, **options: Any) -> Any:
    """`numba.njit`, but lazy and with the cache of this module.

    Args:
        function: The loop, where the decorator has no options.
        **options: Of numba; without `cache`, because every loop is kept.
    """
    return _Loop(function, options) if function is not None else lambda loop: _Loop(loop, options)


def intrinsic(module: str, name: str) -> Any:
    """What is so called in a module that imports numba, but imported when a loop that uses it is compiled."""
    return _Intrinsic(module, name)


def is_kept(loop: Any) -> bool:
    """Whether there is machine code of the loop, so that it should not have to be compiled."""
    kept = _Kept(loop.py_func, {})
    start = f"{kept.stem}-{_digest(loop.py_func)}-"
    return any(path.name.startswith(start) for folder in _folders() for path in folder.glob("*.nbc"))


def seconds_to_start(loop: Any) -> float:
    """What the first call of a loop of usual length costs beside its work, in seconds: a guess."""
    if loop._made is not None:
        return 0.0
    if not has_code(loop):
        return 4.0
    return 0.02 if "numba" in sys.modules else 0.5


def has_code(loop: Any) -> bool:
    """Whether this process has called the loop, or found its machine code when it was first asked."""
    return loop._made is not None or _was_kept(loop)


@cache
def _was_kept(loop: Any) -> bool:
    return is_kept(loop)


class _Lazy:
    """What numba sees in its place is made when numba first looks at it, or somebody calls it."""

    _made: Any = None

    def _make(self) -> Any:
        raise NotImplementedError

    @property
    def _real(self) -> Any:
        with _lock:
            if self._made is None:
                self._made = self._make()
        return self._made


class _Loop(_Lazy):
    """A compiled function."""

    def __init__(self, function: FunctionType, options: dict[str, Any]) -> None:
        self.py_func, self._options = function, options
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return (self._made or self._real)(*arguments)

    def __getattr__(self, name: str) -> Any:  # what numba asks of a dispatcher that is called in another loop
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real, name)

    @property
    def _numba_type_(self) -> Any:
        return self._real._numba_type_

    def _make(self) -> Any:
        numba = _numba()
        dispatcher = numba.njit(**self._options)(self.py_func)
        dispatcher._cache = _Kept(self.py_func, self._options)
        return dispatcher


class _Intrinsic(_Lazy):
    """A function that is written in instructions of LLVM; all that numba asks of it is its type."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name

    def _make(self) -> Any:
        _numba()
        from numba.core.registry import cpu_target

        real, context = getattr(import_module(self.__module__), self.__qualname__), cpu_target.typing_context
        context.refresh()
        return context.resolve_value_type(real)

    @property
    def _numba_type_(self) -> Any:
        return self._real


def _numba() -> Any:
    numba = _imported()
    if numba.config.DISABLE_JIT:
        raise UnsupportedError(
            "NUMBA_DISABLE_JIT is set, but this question needs loops that numba compiles. Unset it, or ask about less."
        )
    return numba


@cache
def _imported() -> Any:  # whose types are as good as none
    import numba
    from numba.core import event

    event.Listener.register(_Compiling)
    event.register("numba:compile", _compiling)  # type: ignore[no-untyped-call]
    return numba


class _Kept:
    """Machine code of one loop on disk: what a numba dispatcher asks of its cache.

    A file has the sha256 of the rest, then the pickled result of the compiler.
    """

    def __init__(self, function: FunctionType, options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        name = f"{function.__module__}.{function.__qualname__}".removeprefix("bnnverify.").replace("<locals>.", "")
        self.stem = f"{name}.{sys.implementation.cache_tag}"
        self._is_enabled = True

    @property
    def cache_path(self) -> str:
        """Where numba's statistics say that the files are."""
        return str(next(iter(_folders()), ""))

    def enable(self) -> None:
        """Files are read and written."""
        self._is_enabled = True

    def disable(self) -> None:
        """They are not."""
        self._is_enabled = False

    def flush(self) -> None:
        """Removes the files of this loop."""
        for folder in _folders():
            self._remove_others(folder, "")

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled code, or None if there is none that can be used."""
        context.refresh()
        if not self._is_enabled:
            return None
        from numba.core import compiler

        name = self._name(signature, context)
        for folder in _folders():
            try:
                raw = (folder / name).read_bytes()
                if hashlib.sha256(raw[32:]).digest() == raw[:32]:
                    rebuild: Any = compiler.CompileResult._rebuild
                    return rebuild(context, *pickle.loads(raw[32:]))
            except Exception:  # absent, unreadable, or made by something else: compiled again, and written over
                continue
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keeps the compiled code in the first folder that takes it."""
        if not self._is_enabled or result.library.has_dynamic_globals or any(not x.can_cache for x in result.lifted):
            return
        from numba.core import serialize

        dumps: Any = serialize.dumps
        data, name = dumps(result._reduce()), self._name(signature, result.target_context)
        for folder in _folders():
            try:
                write_whole(folder / name, hashlib.sha256(data).digest() + data)
            except (BnnVerifyError, OSError):
                continue
            self._remove_others(folder, _digest(self._function))
            return
        _warn_once()

    def _name(self, signature: Any, context: Any) -> str:
        numba = _imported()
        options = sorted((name, str(value)) for name, value in self._options.items())
        made = (numba.__version__, numba.config.BOUNDSCHECK, options, context.codegen().magic_tuple(), str(signature))
        key = hashlib.sha256(repr(made).encode()).hexdigest()[:16]
        return f"{self.stem}-{_digest(self._function)}-{key}.nbc"

    def _remove_others(self, folder: Path, digest: str) -> None:
        """Removes what was compiled from another source of this loop."""
        with suppress(OSError):
            for path in folder.glob("*.nbc"):
                if path.name.startswith(f"{self.stem}-") and not path.name.startswith(f"{self.stem}-{digest}-"):
                    path.unlink(missing_ok=True)


@cache
def _warn_once() -> None:
    warnings.warn(
        "no folder for compiled loops can be written, so they are compiled by every process. "
        "Set NUMBA_CACHE_DIR to a folder that can be written.",
        BnnVerifyWarning,
        stacklevel=2,
    )


# Where the files are.


@cache
def _folders() -> tuple[Path, ...]:
    """Folders that may hold files, the best one first; each is there, as far as it can be made."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    own = f"bnnverify-{hashlib.sha256(os.fsencode(PACKAGE)).hexdigest()[:12]}"  # other installations: other sources
    if chosen:
        folders = [_made(Path(chosen) / own)]
    else:
        folders = [_made(PACKAGE / "__pycache__"), *(_made(path, private=True) for path in _of_user(own))]
    return tuple(folder for folder in folders if folder is not None)


def _of_user(name: str) -> Iterator[Path]:
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA", ""))
    elif sys.platform == "darwin":
        caches = Path("~/Library/Caches")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", "") or "~/.cache")
    with suppress(RuntimeError):  # no home
        if (caches := caches.expanduser()).is_absolute():
            yield caches / name
    with suppress(FileNotFoundError):  # no folder for temporary files
        yield Path(tempfile.gettempdir()) / (f"{name}-{os.getuid()}" if hasattr(os, "getuid") else name)


def _made(folder: Path, *, private: bool = False) -> Path | None:
    """The folder, or None if others could have put code into one that should be private."""
    with suppress(OSError):  # it may be readable nevertheless
        folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    return folder if not private or _is_private(folder) else None


def _is_private(folder: Path) -> bool:
    """Whether nobody else could have put code there."""
    if sys.platform == "win32":  # where both folders are the user's own
        return folder.is_dir()
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


# What compiled code depends on.


@cache
def _digest(function: FunctionType) -> str:
    """Of the loop's source, of the constants and options it sees, and of the loops it calls; not of where they stand.

    numba looks at the time and size of one file: it does not notice that a loop in another file has changed.
    """
    parts, todo, seen = list[str](), [function], set[int]()
    while todo:
        loop = todo.pop()
        if id(loop) in seen:
            continue
        seen.add(id(loop))
        parts.append(f"{loop.__module__}.{loop.__qualname__}{loop.__defaults__!r}")
        cells = dict(zip(loop.__code__.co_freevars, loop.__closure__ or (), strict=True))
        for code in _nested(loop.__code__):
            names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
            parts.append(f"{code.co_code.hex()} {names} {[_text(c) for c in code.co_consts]}")
            for name in (*code.co_names, *code.co_freevars):
                value = cells[name].cell_contents if name in cells else loop.__globals__.get(name)
                if isinstance(value, _Loop):
                    parts.append(f"{name} {sorted(value._options.items())}")
                    todo.append(value.py_func)
                else:
                    parts.append(f"{name} {_text(value)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _text(value: Any) -> str:
    """A constant of a loop, the same in every process; of what is no plain value, the file that defines it."""
    if isinstance(value, CodeType):
        return "code"
    if isinstance(value, frozenset):
        return f"frozenset {sorted(map(_text, value))}"
    if isinstance(value, tuple):
        return f"tuple {[_text(v) for v in value]}"
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return f"array {value.dtype} {value.shape} {value.tobytes().hex()}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    module = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
    return f"{module} {getattr(value, '__qualname__', '')} {_of_file(module) if module.startswith('bnnverify') else ''}"


def _module_of(value: Any) -> str:
    """Of an intrinsic of numba, the module that defines it."""
    return str(getattr(getattr(value, "_defn", value), "__module__", "") or "")


@cache
def _of_file(module: str) -> str:
    spec = find_spec(module)
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else ""
