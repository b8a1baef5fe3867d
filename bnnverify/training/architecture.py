"""Architectures as data: dense and convolution blocks, their text form, and the sizes that the field uses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnverify.errors import QueryError

_CONV = re.compile(r"(\d{1,5})c(\d{1,3})((?:[svp]\d{1,3}){0,3})")
_LETTERS = {"s": "stride", "v": "padding", "p": "pool"}


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution block: binary filters, max pooling, batch norm or scale and bias, sign.

    Attributes:
        filters: Number of filters.
        kernel: Height and width of a filter.
        stride: Step of the filter.
        padding: Rows and columns of absent inputs on each side: they add nothing, neither -1 nor +1.
        pool: Height and width of the pooling window, which is also its step; 1 for none.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        for name, least in (("filters", 1), ("kernel", 1), ("stride", 1), ("padding", 0), ("pool", 1)):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                value = int(value)
                object.__setattr__(self, name, value)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise QueryError(
                    f"{name} of a convolution block is {value!r}, expected an integer of at least {least}."
                )

    def __str__(self) -> str:
        """Text form, such as ``32c5p2``.

        >>> str(Conv(32, 5, padding=2, pool=2))
        '32c5v2p2'
        """
        parts = [f"{self.filters}c{self.kernel}"]
        parts += [f"s{self.stride}"] * (self.stride != 1)
        parts += [f"v{self.padding}"] * (self.padding != 0)
        parts += [f"p{self.pool}"] * (self.pool != 1)
        return "".join(parts)

    def sums_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape (filters, height, width) of the pre-activations on an input of shape (channels, height, width)."""
        if self.padding >= self.kernel:
            raise QueryError(
                f"the block {self} has {self.padding} rows of padding, expected fewer than the {self.kernel} of its "
                "kernel: at some positions it would see nothing of its input."
            )
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in shape[1:])
        if height < self.pool or width < self.pool:
            raise QueryError(
                f"the block {self} does not fit its input of {shape[1]}x{shape[2]}: "
                f"{max(height, 0)}x{max(width, 0)} positions are left, expected at least {self.pool}x{self.pool}."
            )
        return self.filters, height, width

    def output_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape after pooling; positions that fill no whole window are left out."""
        filters, height, width = self.sums_shape(shape)
        return filters, height // self.pool, width // self.pool


Layer = int | Conv

PRESETS: dict[str, tuple[tuple[Layer, ...], bool, str]] = {
    # name: (hidden blocks, batch norm, where the size comes from)
    "mlp-256-256": ((256, 256), False, "a usual size for in-memory computing on MNIST; fully binary, no batch norm"),
    "tfc": ((64, 64, 64), True, "TFC of the Brevitas/FINN examples: 64-64-64"),
    "sfc": ((256, 256, 256), True, "SFC of the Brevitas/FINN examples: 256-256-256"),
    "lfc": ((1024, 1024, 1024), True, "LFC of the Brevitas/FINN examples: 1024-1024-1024"),
    "lenet": ((Conv(16, 5, pool=2), Conv(32, 5, pool=2), 128), True, "a small LeNet-5-like network"),
}


def hidden_layers(value: Any) -> tuple[Layer, ...]:
    """Hidden blocks from text, a preset's name, or a sequence of integers, `Conv` and text.

    A convolution is written ``FILTERScKERNEL``, then ``sSTRIDE``, ``vPADDING`` and ``pPOOL`` where they are not the
    default.

    Raises:
        QueryError: Not an architecture.

    >>> hidden_layers("16c5p2,128")
    (Conv(filters=16, kernel=5, stride=1, padding=0, pool=2), 128)
    >>> hidden_layers("tfc")
    (64, 64, 64)
    """
    if isinstance(value, str):
        if value.strip() in PRESETS:
            return PRESETS[value.strip()][0]
        value = [word for word in re.split(r"[\s,]+", value) if word]
    if isinstance(value, (int, np.integer, Conv)) or not isinstance(value, Iterable):
        value = (value,)
    layers = tuple(_layer(item) for item in value)
    seen_dense = False
    for layer in layers:
        if isinstance(layer, Conv) and seen_dense:
            raise QueryError(f"the convolution {layer} follows a dense block, expected convolutions first.")
        seen_dense = seen_dense or not isinstance(layer, Conv)
    return layers


def _layer(item: Any) -> Layer:
    if isinstance(item, Conv):
        return item
    if isinstance(item, np.integer):
        item = int(item)
    if isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= 100_000:
        return item
    if isinstance(item, str):
        if item.isdecimal() and 1 <= int(item[:9]) <= 100_000:
            return int(item)
        match = _CONV.fullmatch(item.strip().lower())
        if match:
            given = re.findall(r"([svp])(\d+)", match[3])
            more = {_LETTERS[letter]: int(number) for letter, number in given}
            if len(more) == len(given):  # no letter twice
                return Conv(int(match[1]), int(match[2]), **more)
    raise QueryError(
        f"a hidden block is {item!r:.60}, expected a number of neurons such as 32, or a convolution such as 16c5p2 "
        f"(16 filters of 5x5, pooled 2x2). Presets: {', '.join(PRESETS)}."
    )


def shapes(layers: Iterable[Layer], image: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of the input and of every hidden block's output: (channels, height, width) or (neurons,).

    >>> shapes(hidden_layers("16c5p2,128"), (28, 28))
    [(1, 28, 28), (16, 12, 12), (128,)]
    """
    found: list[tuple[int, ...]] = [(1, *image)]
    for layer in layers:
        before = found[-1]
        found.append(layer.output_shape((before[0], before[1], before[2])) if isinstance(layer, Conv) else (layer,))
    return found


def flat(shape: tuple[int, ...]) -> int:
    """Number of values of a shape."""
    return math.prod(shape)
