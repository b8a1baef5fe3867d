"""Ctrl-C and requests to end (SIGTERM): both ask for what is proved so far; whoever insists ends everything.

``kill``, ``timeout`` and batch systems send SIGTERM. It does at every place what Ctrl-C does there, so partial answers
are kept; only the exit code differs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_asked: list[Callable[[int, FrameType | None], None]] = []
"""What an open `Interrupts` does; SIGINT may be ignored (a shell's background job) while SIGTERM counts."""


class Interrupts:
    """Ctrl-C while questions are answered: first a request, then an order.

    Attributes:
        monitor: Its `stop` is the request.
        breaks: True while only a KeyboardInterrupt stops the work, so that the first one raises.
    """

    def __init__(self) -> None:
        from bnnverify.engines.base import Monitor  # not at file level: even --help opens this file

        self.monitor = Monitor()
        self.breaks = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if current_thread() is main_thread():  # which alone may handle signals
            _asked.append(self._pressed)
            # a shell starts background jobs with the signal ignored
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pressed in _asked:
            _asked.remove(self._pressed)
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        again, self.monitor.stop = self.monitor.stop, True
        if again or self.breaks:
            raise KeyboardInterrupt


@contextmanager
def heeded_requests_to_end() -> Iterator[list[int]]:
    """SIGTERM does what Ctrl-C would; the list has the signals that came."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        pressed = _asked[-1] if _asked else signal.getsignal(signal.SIGINT)
        (pressed if callable(pressed) else signal.default_int_handler)(signal.SIGINT, frame)

    if current_thread() is not main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield came
        return
    signal.signal(signal.SIGTERM, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
