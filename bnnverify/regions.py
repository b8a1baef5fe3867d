"""Regions: the sets of inputs that a question ranges over.

Over -1/+1 inputs: `HammingBall` and `FixedIndexRegion`. Over integer inputs (pixels): `PixelBox`, finite too, and
`RealBox`, whose points need not be integers. Sizes are Python integers; nothing is ever enumerated to count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.boxes import Box, PixelBox, RealBox, quantized_box, whole_number
from bnnverify.errors import QueryError
from bnnverify.scalars import integer

__all__ = [
    "AnyRegion",
    "Box",
    "FixedIndexRegion",
    "HammingBall",
    "PixelBox",
    "RealBox",
    "Region",
    "SignVector",
    "any_region_from_json",
    "as_array",
    "quantized_box",
    "region_from_json",
    "sign_vector",
    "whole_cube",
]

SignVector = tuple[int, ...]


def sign_vector(values: ArrayLike, what: str = "center") -> SignVector:
    """`values` as a tuple of -1/+1; QueryError otherwise."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise QueryError(f"{what} has shape {array.shape}, expected a vector of -1/+1.")
    if array.dtype.kind not in "iufO":
        raise QueryError(f"{what} has dtype {array.dtype}, expected a vector of -1/+1.")
    bad = np.flatnonzero((array != 1) & (array != -1))
    if bad.size:
        raise QueryError(f"{what}[{bad[0]}] is {array[bad[0]]}, expected -1 or +1. Binarize the image first.")
    return tuple(int(v) for v in array)


def _index_set(free: Iterable[int], n: int) -> tuple[int, ...]:
    """Distinct indices below n, in order; QueryError otherwise."""
    indices = tuple(sorted(whole_number(i, "an index of free") for i in free))
    if len(set(indices)) != len(indices):
        raise QueryError("free lists an index twice, expected distinct indices.")
    bad = [i for i in indices if not 0 <= i < n]
    if bad:
        raise QueryError(f"free contains {bad[0]}, expected indices 0 to {n - 1}.")
    return indices


@dataclass(frozen=True, slots=True, init=False)
class HammingBall:
    """All inputs that differ from `center` in at most `radius` places, all of them among the indices `free`.

    Equal sets are equal objects: `free` is sorted, and empty where the radius is 0.

    Attributes:
        center: The input in the middle.
        radius: Most places that differ, 0 to the number of free indices.
        free: Indices that vary within the region. Given as None (the default): all of them.
    """

    center: SignVector
    radius: int
    free: tuple[int, ...]

    def __init__(self, center: ArrayLike, radius: int, free: Iterable[int] | None = None) -> None:
        object.__setattr__(self, "center", sign_vector(center))
        object.__setattr__(self, "radius", integer(radius, "radius"))
        indices = tuple(range(self.n)) if free is None else _index_set(free, self.n)
        if not 0 <= self.radius <= len(indices):
            what = "inputs" if len(indices) == self.n else "free inputs"
            raise QueryError(f"radius is {self.radius}, expected 0 to {len(indices)}, the number of {what}.")
        object.__setattr__(self, "free", indices if self.radius else ())

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.center)

    @property
    def _spares_inputs(self) -> bool:
        """True iff some inputs keep their value although the radius is not 0."""
        return 0 < len(self.free) < self.n

    @property
    def most_flips(self) -> int:
        """How far an input of the region can be from the centre."""
        return self.radius

    def size(self) -> int:
        """Number of inputs, exact.

        >>> HammingBall((1,) * 100, 3).size()
        166751
        """
        return sum(math.comb(len(self.free), r) for r in range(self.radius + 1))

    def contains(self, x: Sequence[int]) -> bool:
        """True iff x lies in the region."""
        if len(x) != self.n:
            return False
        flips = [i for i, (a, b) in enumerate(zip(x, self.center, strict=True)) if a != b]
        return len(flips) <= self.radius and (not self._spares_inputs or set(flips) <= set(self.free))

    def points(self) -> Iterator[SignVector]:
        """All inputs, nearest first."""
        for r in range(self.radius + 1):
            for flips in combinations(self.free, r):
                x = list(self.center)
                for i in flips:
                    x[i] = -x[i]
                yield tuple(x)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line; `free` only where some inputs keep their value."""
        ball: dict[str, Any] = {"kind": "hamming", "radius": self.radius, "center": list(self.center)}
        return ball | ({"free": list(self.free)} if self._spares_inputs else {})

    def __str__(self) -> str:
        inputs = f"{len(self.free)} of {self.n}" if self._spares_inputs else str(self.n)
        return f"Hamming ball of radius {self.radius} in {inputs} inputs"


@dataclass(frozen=True, slots=True)
class FixedIndexRegion:
    """All inputs that equal `center` outside the indices `free`."""

    center: SignVector
    free: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", sign_vector(self.center))
        object.__setattr__(self, "free", _index_set(self.free, len(self.center)))

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.center)

    @property
    def most_flips(self) -> int:
        """How far an input of the region can be from the centre."""
        return len(self.free)

    def size(self) -> int:
        """Number of inputs, exact: 2 to the number of free indices."""
        return 1 << len(self.free)

    def contains(self, x: Sequence[int]) -> bool:
        """True iff x lies in the region."""
        if len(x) != self.n:
            return False
        free = set(self.free)
        return all(a == b or i in free for i, (a, b) in enumerate(zip(x, self.center, strict=True)))

    def points(self) -> Iterator[SignVector]:
        """All inputs."""
        x = list(self.center)
        for values in product((-1, 1), repeat=len(self.free)):
            for i, v in zip(self.free, values, strict=True):
                x[i] = v
            yield tuple(x)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {"kind": "fixed-index", "free": list(self.free), "center": list(self.center)}

    def __str__(self) -> str:
        return f"fixed-index region with {len(self.free)} of {self.n} inputs free"


def whole_cube(n: int, center: ArrayLike | None = None) -> FixedIndexRegion:
    """Every input of {-1, +1}^n, as the fixed-index region with nothing fixed.

    Args:
        n: Number of inputs.
        center: The image that the question is about, shape `(n,)`, -1/+1: distances, noise and explanations start from
            it. Default: all +1.
    """
    size = integer(n, "the number of inputs of the cube")
    if size < 1:
        raise QueryError(f"the cube has {size} inputs, expected at least 1.")
    return FixedIndexRegion((1,) * size if center is None else sign_vector(center), tuple(range(size)))


Region = HammingBall | FixedIndexRegion
AnyRegion = Region | Box


def any_region_from_json(data: dict[str, Any]) -> AnyRegion:
    """The region of any kind that `to_json` wrote."""
    kind = data.get("kind")
    if kind == "pixel-box":
        return PixelBox(tuple(data["lower"]), tuple(data["upper"]))
    if kind == "real-box":
        return RealBox(tuple(data["lower"]), tuple(data["upper"]))
    return region_from_json(data)


def region_from_json(data: dict[str, Any]) -> Region:
    """The region over -1/+1 inputs that `to_json` wrote."""
    kind = data.get("kind")
    if kind == "hamming":
        return HammingBall(data["center"], data["radius"], data.get("free"))
    if kind == "fixed-index":
        return FixedIndexRegion(tuple(data["center"]), tuple(data["free"]))
    raise QueryError(f"region kind is {kind!r}, expected 'hamming' or 'fixed-index'.")


def as_array(x: Sequence[int]) -> NDArray[np.int64]:
    """A sign vector as int64."""
    return np.array(x, dtype=np.int64)
