"""Processes that this one starts: each can be ended, none outlives its parent, and only the parent hears signals.

They are spawned, not forked: numba's and torch's threads do not survive a fork.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pickle import UnpicklingError
from threading import Thread
from typing import Any

from bnnverify.errors import ResourceLimitError

LOOK = 0.1  # s between two looks at a clock
_PR_SET_PDEATHSIG = 1


class Apart:
    """A call in a process of its own.

    Use it in a ``with`` statement: its end kills the process, whatever it does then.

    Attributes:
        connection: Gets the answer; a `multiprocessing.connection.wait` on it ends when the call does.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Starts the process.

        Args:
            function: At file level of a module, so that it can be named to the process.
            *arguments: What can be pickled.
        """
        context = get_context("spawn")
        self.connection, there = context.Pipe(duplex=False)
        self._process = context.Process(target=_answer, args=(there, function, arguments), daemon=True)
        # one that died while it read the arguments is met again, without an answer, in `received`
        with _without_main(), suppress(BrokenPipeError):
            self._process.start()
        there.close()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def received(self) -> Any:
        """What the call returned; waits for it.

        Raises:
            ResourceLimitError: The process ended without an answer.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError, UnpicklingError):  # killed before or while it sent
            raise ResourceLimitError("its process ended by itself, probably for lack of memory") from None
        finally:
            self.end()

    def end(self) -> None:
        """Kills the process, if it still runs."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self.connection.close()


def ends_with_parent() -> None:
    """Ends this process when the one that started it with `multiprocessing` is gone, however that died.

    A thread waits for it on every platform. Loops that never let a thread run (a solver in C) would keep it waiting, so
    on Linux the kernel is asked for a signal, too.
    """
    parent = parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def hears_no_signal() -> None:
    """Leaves Ctrl-C and SIGTERM, which a terminal, ``timeout`` or a batch system send to all, to the parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _answer(there: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the process."""
    hears_no_signal()
    ends_with_parent()
    there.send(function(*arguments))
    there.close()


@contextmanager
def _without_main() -> Iterator[None]:
    """Let processes that are started meanwhile not run the caller's script again.

    They need nothing of it, and not every script guards against that.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({"__spec__": None} | hidden)
