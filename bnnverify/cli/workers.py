"""Who answers the questions: this process or several, with a progress bar, and with an ear for Ctrl-C (`interrupts`).

The first Ctrl-C asks the running question for what it has proved so far; no further question is asked. The second one
ends everything.
"""

from __future__ import annotations

import signal
from _thread import interrupt_main
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from threading import Event, Thread
from types import FrameType
from typing import Any, Protocol

from bnnverify.cli.interrupts import Interrupts
from bnnverify.engines.base import Monitor
from bnnverify.errors import ResourceLimitError
from bnnverify.network import BinaryNetwork
from bnnverify.processes import ends_with_parent


class Question(Protocol):
    """Something that a network has an answer to."""

    @property
    def breaks(self) -> bool:
        """True if only a KeyboardInterrupt stops the work; `answer` then catches it where it has something to keep."""

    def answer(self, network: BinaryNetwork, monitor: Monitor) -> Any:
        """The answer; what is proved so far once `monitor.stop` is set."""


def answers(
    network: BinaryNetwork,
    questions: Sequence[Any],
    *,
    jobs: int,
    bar: bool,
    verb: str,
    bounded: str = "adversarial",
) -> Iterator[Any]:
    """The answers in the order of the questions, as they come.

    After a Ctrl-C the running questions are answered with what is proved so far, and a KeyboardInterrupt ends the
    iteration.

    Args:
        network: What all questions are about.
        questions: Each a `Question`, already checked.
        jobs: Processes (see `bnnverify.processes`).
        bar: Whether a progress bar may show on stderr.
        verb: Its title.
        bounded: What the bounds of `Monitor.show` are bounds on, in a word or two.
    """
    with _Bar(verb, len(questions), bar, bounded) as progress, Interrupts() as interrupts:
        if min(jobs, len(questions)) <= 1:
            stream = _here(network, questions, interrupts, progress)
        else:
            stream = _elsewhere(network, questions, interrupts, min(jobs, len(questions)))
        for answer in stream:
            progress.answered()
            yield answer
        if interrupts.monitor.stop:
            raise KeyboardInterrupt("the answers printed are complete or say how far they came")


class _Bar:
    """Progress over all questions, and within the one that runs: the share of its inputs that are settled."""

    def __init__(self, verb: str, questions: int, is_shown: bool, bounded: str = "adversarial") -> None:
        from tqdm import tqdm

        self._bounded = bounded

        shape = "{l_bar}{bar}| {n:.2f}/{total} [{elapsed}, ETA {remaining}{postfix}]"
        off = None if is_shown else True  # None: off where stderr is no terminal
        self._tqdm = tqdm(total=questions, desc=verb, delay=2, disable=off, bar_format=shape, mininterval=0.2)
        self._done = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._tqdm.close()

    def answered(self) -> None:
        """One more question is answered."""
        self._done += 1
        self._tqdm.set_postfix_str("", refresh=False)
        self._tqdm.update(self._done - self._tqdm.n)
        self._tqdm.clear()  # the caller is about to print

    def within(self, lower: int, upper: int, size: int) -> None:
        """What the running question has proved."""
        if size > 0 and not self._tqdm.disable:
            bounds = f"{self._bounded} {_short(lower)}..{_short(upper)} of {_short(size)}"
            self._tqdm.set_postfix_str(bounds, refresh=False)
            settled = 1 - (upper - lower) / size
            self._tqdm.update(max(self._done + settled - self._tqdm.n, 0))


def _short(count: int) -> str:
    """A count in few characters.

    >>> _short(166751), _short(2**80)
    ('166,751', '1.21e+24')
    """
    return f"{count:,}" if count < 10**7 else f"{count:.3g}" if count < 10**300 else f"2^{count.bit_length() - 1}"


def _here(
    network: BinaryNetwork, questions: Sequence[Question], interrupts: Interrupts, progress: _Bar
) -> Iterator[Any]:
    monitor = interrupts.monitor
    monitor.show = progress.within
    for question in questions:
        if monitor.stop:
            return
        interrupts.breaks = question.breaks
        answer = question.answer(network, monitor)
        interrupts.breaks = False
        yield answer


def _elsewhere(
    network: BinaryNetwork, questions: Sequence[Question], interrupts: Interrupts, jobs: int
) -> Iterator[Any]:
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(network, stop))
    waiting, todo = deque[Future[Any]](), deque(questions)
    try:
        # Few are under way at a time: cancelling many while the processes end upsets the pool's own thread.
        while waiting or (todo and not interrupts.monitor.stop):
            while todo and len(waiting) <= 2 * jobs and not interrupts.monitor.stop:
                waiting.append(pool.submit(_answer, todo.popleft()))
            if not (answer := _awaited(waiting.popleft(), interrupts, stop)):
                return
            yield answer[0]
    except BaseException as error:
        for process in list((pool._processes or {}).values()):
            process.kill()  # a question may run for hours; nobody waits for its answer any more
        if not isinstance(error, BrokenProcessPool):
            raise
        if not interrupts.monitor.stop:  # else a signal to all ended one before it could refuse
            text = "a process ended by itself, probably for lack of memory. Take fewer --jobs."
            raise ResourceLimitError(text) from None
    finally:
        pool.shutdown()


def _awaited(future: Future[Any], interrupts: Interrupts, stop: Any) -> tuple[Any] | None:
    """The answer; None if the question was not asked any more."""
    while not wait([future], timeout=0.2).done:
        if interrupts.monitor.stop:
            stop.set()
    answer: tuple[Any] | None = future.result()
    return answer


# What follows runs in the processes.

_network: BinaryNetwork | None = None
_stop: Any = None
_is_broken = False


def _start(network: BinaryNetwork, stop: Any) -> None:
    """Runs once in each process."""
    global _network, _stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _break)
    ends_with_parent()
    _network, _stop = network, stop


def _break(number: int, frame: FrameType | None) -> None:
    """Signals to all processes are for the parent; what counts here is its wish."""
    if _is_broken:
        raise KeyboardInterrupt


def _answer(question: Question) -> tuple[Any] | None:
    """The answer in a tuple; None if nobody asks any more, or nothing is known yet."""
    assert _network is not None
    if _stop.is_set():
        return None
    done = Event()
    if question.breaks:
        Thread(target=_watch, args=(done,), daemon=True).start()
    try:
        return (question.answer(_network, _Remote()),)
    except KeyboardInterrupt:
        return None
    finally:
        done.set()


def _watch(done: Event) -> None:
    """Breaks off the question once the parent wants no more."""
    global _is_broken
    while not done.wait(0.2):
        if _stop.is_set():
            _is_broken = True
            interrupt_main()
            return


class _Remote(Monitor):
    """The parent's wish to stop, as a process sees it."""

    @property
    def stop(self) -> bool:
        """Whether the parent wants no more."""
        return bool(_stop.is_set())

    @stop.setter
    def stop(self, value: bool) -> None:
        pass
