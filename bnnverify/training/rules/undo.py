"""Undo: take switches back that made the loss worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from bnnverify.errors import QueryError
from bnnverify.training.rules.base import is_number, plain_fields

DATA = ("batch", "holdout")
SCOPES = ("network", "block")
WRITES = ("ideal", "stochastic")


@dataclass(frozen=True, slots=True)
class Undo:
    r"""The loss is looked at before and after every switching event; if it rose, the event is taken back.

    Let :math:`L_0` and :math:`L_1` be the losses of the same images in evaluation mode before and after. If
    :math:`L_1 > L_0 (1 + tolerance)`, the cells that switched are switched back, and the rate of the rule is
    multiplied by `down`; else it is multiplied by `up`. Steps in which nothing switched are no events. Cells alone are
    taken back: accumulators stay as the event left them, a counter or an average with `reset` at 0. The two factors
    hold the fraction of undone events near ``ln(up) / (ln(up) - ln(down))``, 16 % with the defaults.

    Attributes:
        data: ``batch``: the images of this step. ``holdout``: training images drawn afresh for every event.
        size: Number of those images.
        tolerance: Rise of the loss that is accepted, as a fraction of it, at least 0.
        scope: ``network``: all blocks switch, then one look. ``block``: a look after every block, in order; back-off
            happens after each of them.
        down: Factor on the rate after an undo, above 0 and at most 1.
        up: Factor on the rate after an event that is kept, at least 1.
        lowest: The product of these factors never falls below it.
        highest: The product of these factors never rises above it.
        writes: ``ideal``: cells are restored at no cost. ``stochastic``: the cells that switched get pulses of the
            opposite polarity, the strongest of the menu, each followed by a read, until they are back; those that
            are not after `tries` pulses stay switched. Needs hardware.
        tries: Pulses that a cell gets at most.

    References:
        An undo function that stabilizes the training is due to Akesson, "Use of stochastic switching in the training
        of binarized neural networks", Lund University, 2022. The criterion and all details: ours.
    """

    data: str = "holdout"
    size: int = 500
    tolerance: float = 0.02
    scope: str = "network"
    down: float = 0.9
    up: float = 1.02
    lowest: float = 0.001
    highest: float = 1.0
    writes: str = "ideal"
    tries: int = 10

    def __post_init__(self) -> None:
        plain_fields(self)

        def check(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise QueryError(f"{name} of the undo is {getattr(self, name)!r}, expected {expected}.")

        def whole(name: str) -> bool:
            value = getattr(self, name)
            return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31

        for name in ("tolerance", "down", "up", "lowest", "highest"):
            check(name, is_number(getattr(self, name)), "a number")
        check("data", self.data in DATA, " or ".join(DATA))
        check("size", whole("size"), "a positive integer")
        check("tolerance", 0 <= self.tolerance < math.inf, "at least 0")
        check("scope", self.scope in SCOPES, " or ".join(SCOPES))
        check("down", 0 < self.down <= 1, "above 0 and at most 1")
        check("up", 1 <= self.up < math.inf, "at least 1")
        check("lowest", 0 < self.lowest <= 1, "above 0 and at most 1")
        check("highest", 1 <= self.highest < math.inf, "at least 1")
        check("writes", self.writes in WRITES, " or ".join(WRITES))
        check("tries", whole("tries"), "a positive integer")

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """An undo from one, from its options, from True for the defaults; None from None or False.

        Raises:
            QueryError: None of these.

        >>> Undo.of({"data": "batch"}).tolerance
        0.02
        """
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        if isinstance(value, Undo):
            return value  # type: ignore[return-value]
        if isinstance(value, Mapping):
            known = cls.__slots__
            unknown = [name for name in value if name not in known]
            if unknown:
                raise QueryError(f"an undo has no option {unknown[0]!r}, expected one of: {', '.join(known)}.")
            return cls(**value)
        raise QueryError(
            f"undo is {value!r}, expected true, false, or its options as an object such as {{'tolerance': 0.02}}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values that `of` reads back."""
        return asdict(self)
