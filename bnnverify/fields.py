"""Values of a JSON object, each taken as what it must be: a file may hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Fields:
    """A JSON object whose values are taken by name and type.

    Args:
        data: The object.
        what: What messages call it.

    Raises:
        ValueError: It is no object; or, from every method, a value is not what it must be. A message says which.
    """

    def __init__(self, data: Any, what: str = "the line") -> None:
        if not isinstance(data, Mapping):
            raise ValueError(f"{what} is {data!r:.40}, expected an object")
        self.data = data

    def value(self, name: str) -> Any:
        """Whatever is there."""
        if name not in self.data:
            raise ValueError(f"{name} is missing")
        return self.data[name]

    def inner(self, name: str) -> Fields:
        """An object within."""
        return Fields(self.value(name), name)

    def text(self, name: str) -> str:
        """Text."""
        value = self.value(name)
        if not isinstance(value, str):
            raise ValueError(f"{name} is {value!r:.40}, expected text")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r:.40}, expected true or false")
        return value

    def real(self, name: str, least: float = 0, most: float = math.inf) -> float:
        """A number within bounds; an integer stays one."""
        value = self.value(name)
        if type(value) not in (int, float) or not least <= value <= most or value == math.inf:
            raise ValueError(f"{name} is {value!r:.40}, expected a number of {_range(least, most)}")
        return value  # type: ignore[no-any-return]

    def whole(self, name: str, least: int | None = 0, most: int | None = None) -> int:
        """An integer within bounds."""
        return _whole(self.value(name), name, least, most)

    def maybe_whole(self, name: str, least: int | None = 0, most: int | None = None) -> int | None:
        """An integer within bounds, or nothing."""
        value = self.value(name)
        return None if value is None else _whole(value, name, least, most)

    def wholes(self, name: str, least: int | None = 0, most: int | None = None) -> tuple[int, ...]:
        """Integers within bounds."""
        return tuple(_whole(value, f"an entry of {name}", least, most) for value in self._list(name))

    def maybe_wholes(self, name: str, least: int | None = 0, most: int | None = None) -> tuple[int, ...] | None:
        """Integers within bounds, or nothing."""
        return None if self.value(name) is None else self.wholes(name, least, most)

    def rows(self, name: str, least: int | None = 0, most: int | None = None) -> tuple[tuple[int, ...], ...]:
        """Lists of integers within bounds."""
        return tuple(Fields({name: row}).wholes(name, least, most) for row in self._list(name))

    def _list(self, name: str) -> list[Any]:
        value = self.value(name)
        if not isinstance(value, list):
            raise ValueError(f"{name} is {value!r:.40}, expected a list")
        return value


def _whole(value: Any, name: str, least: int | None, most: int | None) -> int:
    if type(value) is not int or (least is not None and value < least) or (most is not None and value > most):
        bounds = "" if least is None and most is None else f" of {_range(least, most)}"
        raise ValueError(f"{name} is {value!r:.40}, expected a whole number{bounds}")
    return value


def _range(least: float | None, most: float | None) -> str:
    if most is None or most == math.inf:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"{least} to {most}"
