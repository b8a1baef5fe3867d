"""Schedules: how a hyper-parameter changes while the training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnverify.errors import QueryError
from bnnverify.training.rules.base import plain_fields, require

KINDS = ("constant", "exponential", "polynomial", "cosine", "step")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A value between `start` and `end`, by the fraction q of the training that is over.

    Attributes:
        start: Value at q = 0.
        end: Value at q = 1; that of `start` if constant.
        kind: ``exponential``: ``start * (end/start)^q``. ``polynomial``: ``end + (start - end) * (1 - q)^power``.
            ``cosine``: half a cosine from start to end. ``step``: `steps` equal stretches with equal ratios between
            them, the first at start, the last at end. ``constant``: start.
        power: Of the polynomial.
        steps: Number of stretches, at least 2.

    >>> Schedule.of("1e-3:1e-5").at(0.5)
    0.0001
    >>> [Schedule.of("1:0.01:step:3").at(q) for q in (0, 0.5, 0.9)]
    [1.0, 0.1, 0.01]
    """

    start: float
    end: float
    kind: str = "constant"
    power: float = 1.0
    steps: int = 2

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.kind not in KINDS:
            raise QueryError(f"the kind of a schedule is {self.kind!r}, expected one of: {', '.join(KINDS)}.")
        if not (math.isfinite(self.start) and math.isfinite(self.end) and self.start >= 0 and self.end >= 0):
            raise QueryError(f"a schedule runs from {self.start} to {self.end}, expected finite numbers of at least 0.")
        if self.kind in ("exponential", "step") and not (self.start > 0 and self.end > 0):
            raise QueryError(
                f"a schedule of equal ratios runs from {self.start} to {self.end}, expected both above 0. "
                "Use polynomial or cosine to reach 0."
            )
        if not 0 < self.power < math.inf or self.steps < 2:
            raise QueryError(
                f"a schedule has power {self.power} and {self.steps} steps, expected above 0 and 2 or more."
            )

    @classmethod
    def of(cls, value: Any, what: str = "a schedule") -> Schedule:
        """A schedule from a number, a schedule, or text ``START:END[:KIND[:POWER or STEPS]]``; default exponential.

        Raises:
            QueryError: Neither.
        """
        if isinstance(value, Schedule):
            return value
        try:
            if isinstance(value, bool | np.bool_):
                raise ValueError
            words = str(value).split(":") if isinstance(value, str) else [value]
            start = float(words[0])
            if len(words) == 1:
                return cls(start, start)
            kind = words[2].strip() if len(words) > 2 else "exponential"
            extra: dict[str, Any] = {}
            if len(words) == 4 and kind == "polynomial":
                extra["power"] = float(words[3])
            elif len(words) == 4 and kind == "step":
                extra["steps"] = int(words[3])
            elif len(words) > 3:
                raise ValueError
            return cls(start, float(words[1]), kind, **extra)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, QueryError):
                raise error if what == "a schedule" else QueryError(f"{what} is {value!r}: {error}") from None
            raise QueryError(
                f"{what} is {value!r}, expected a number, or START:END[:KIND] such as 1e-3:1e-5:cosine. "
                f"Kinds: {', '.join(KINDS)}."
            ) from None

    @classmethod
    def falling(cls, start: float, ratio: float) -> Schedule:
        """From `start` to `start / ratio` in equal ratios, three digits of each.

        >>> str(Schedule.falling(0.012345, 10))
        '0.0123:0.00123:exponential'
        """
        return cls(neat(start), neat(start / ratio), "exponential")

    @classmethod
    def shared(cls, total: float, steps: int, ratio: float, most: float) -> Schedule:
        """Falling by `ratio`, from the share of a step in `total`; however few the steps, from `most` at most."""
        return cls.falling(min(most, total / steps), ratio)

    def at(self, progress: float) -> float:
        """The value after the fraction `progress` of the training."""
        q = min(max(progress, 0.0), 1.0)
        if self.kind == "constant":
            return self.start
        if self.kind == "exponential":
            return _plain(self.start ** (1 - q) * self.end**q)
        if self.kind == "polynomial":
            rest = float((1 - q) ** self.power)
            return self.start * rest + self.end * (1 - rest)
        if self.kind == "cosine":
            rest = 0.5 * (1 + math.cos(math.pi * q))
            return self.start * rest + self.end * (1 - rest)
        done = min(int(q * self.steps), self.steps - 1) / (self.steps - 1)
        return _plain(self.start ** (1 - done) * self.end**done)

    @property
    def largest(self) -> float:
        """The largest value it takes."""
        return max(self.start, self.end)

    @property
    def smallest(self) -> float:
        """The smallest value it takes."""
        return min(self.start, self.end)

    def __str__(self) -> str:
        """The text that `of` reads."""
        if self.kind == "constant":
            return repr(self.start)
        extra = f":{self.power!r}" if self.kind == "polynomial" else f":{self.steps}" if self.kind == "step" else ""
        return f"{self.start!r}:{self.end!r}:{self.kind}{extra}"


def read_schedules(of: Any, *names: str, zero: bool = False) -> None:
    """Turns these hyper-parameters of a rule into schedules; None, one that follows the steps, stays None.

    Args:
        of: The frozen dataclass, with the `name` of its rule.
        names: Of the hyper-parameters.
        zero: Whether they may start at 0.

    Raises:
        QueryError: A value that is no schedule, or 0.
    """
    for name in names:
        value = getattr(of, name)
        if value is not None:
            schedule = Schedule.of(value, f"{name} of the rule {of.name}")
            require(of.name, name, schedule, zero or schedule.start > 0, "above 0 at the start")
            object.__setattr__(of, name, schedule)


def neat(value: float) -> float:
    """Three significant digits: a value that is chosen is one that can be written down."""
    return float(f"{value:.3g}")


def _plain(value: float) -> float:
    """Without the last digit's noise: 1e-4, not 1.0000000000000002e-4."""
    return float(f"{value:.15g}")
