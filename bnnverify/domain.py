"""The domain of a network's inputs, and the checks that turn what came into arrays of exact integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.errors import ModelError
from bnnverify.scalars import integer, integers

IntArray = NDArray[np.int64]

INT_LIMIT = 2**62  # thresholds and scores up to here fit int64 with room for one more term
SUM_LIMIT = 2**60  # pre-activations


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only C-contiguous copy."""
    copy = np.array(array, order="C", copy=True)
    copy.setflags(write=False)
    return copy


def integer_array(values: ArrayLike, what: str, ndim: int) -> IntArray:
    """`values` as int64, refusing anything that is not a finite integer."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise ModelError(f"{what} has rows of different lengths, expected {ndim} dimension(s).") from None
    if array.ndim != ndim:
        raise ModelError(f"{what} has shape {array.shape}, expected {ndim} dimension(s).")
    if array.dtype == bool:
        raise ModelError(f"{what} is boolean, expected integers. Convert True/False to +1/-1 first.")
    if array.dtype.kind in "iu":
        if array.size and (int(array.max()) > INT_LIMIT or int(array.min()) < -INT_LIMIT):
            raise ModelError(f"{what} exceeds +-2^62, expected integers in that range.")
        return array.astype(np.int64)
    try:
        if array.dtype.kind not in "fO":
            raise TypeError
        as_float = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} has dtype {array.dtype}, expected integers.") from error
    bad = np.argwhere(~(np.isfinite(as_float) & (np.floor(as_float) == as_float)))
    if bad.size:
        index = tuple(int(i) for i in bad[0])
        raise ModelError(f"{what}[{', '.join(map(str, index))}] is {array[index]}, expected an integer.")
    if as_float.size and float(np.abs(as_float).max()) > 2**53:
        raise ModelError(f"{what} exceeds 2^53 as floating point. Pass integers to keep it exact.")
    return as_float.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class InputDomain:
    """What an input may be: a vector of signs, or of integers between bounds.

    Attributes:
        lower: Least value of each input, shape `(n,)`, int64.
        upper: Greatest value of each input, shape `(n,)`, int64.
        is_binary: True if the inputs are -1/+1 (then the bounds are -1 and +1 and nothing lies between).
        shape: Shape of the image that the flat vector shows, for drawing. Not part of the identity.
    """

    lower: IntArray
    upper: IntArray
    is_binary: bool
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        low, high = np.asarray(self.lower), np.asarray(self.upper)
        fits = low.dtype == high.dtype == np.int64 and low.shape == high.shape and low.ndim == 1 and low.size > 0
        if not fits or (self.is_binary and not ((low == -1) & (high == 1)).all()):
            raise ModelError("InputDomain needs int64 bounds, -1/+1 if binary. Use InputDomain.binary or .integers.")
        object.__setattr__(self, "lower", frozen(low))
        object.__setattr__(self, "upper", frozen(high))

    def __reduce__(self) -> tuple[Any, ...]:
        return InputDomain, (self.lower, self.upper, self.is_binary, self.shape)  # so that a copy is frozen too

    @classmethod
    def binary(cls, n: int, shape: Sequence[int] | None = None) -> InputDomain:
        """All of {-1, +1}^n."""
        n = integer(n, "the number of inputs", least=1, error=ModelError)
        ones = np.ones(n, dtype=np.int64)
        return cls(-ones, ones, True, _image_shape(n, shape))

    @classmethod
    def integers(cls, lower: ArrayLike, upper: ArrayLike, shape: Sequence[int] | None = None) -> InputDomain:
        """All integer vectors x with lower <= x <= upper."""
        low = integer_array(lower, "lower", 1)
        high = integer_array(upper, "upper", 1)
        if low.shape != high.shape or low.size == 0:
            raise ModelError(f"lower has shape {low.shape} and upper {high.shape}, expected the same, not empty.")
        if (low > high).any():
            i = int(np.argmax(low > high))
            raise ModelError(f"lower[{i}] = {low[i]} exceeds upper[{i}] = {high[i]}.")
        if int(sum(max(abs(int(a)), abs(int(b))) for a, b in zip(low, high, strict=True))) > SUM_LIMIT:
            raise ModelError("the input bounds add up to more than 2^60; pre-activations would not fit.")
        return cls(low, high, False, _image_shape(low.size, shape))

    @property
    def n(self) -> int:
        """Number of inputs."""
        return int(self.lower.size)

    def require(self, x: ArrayLike) -> IntArray:
        """`x` as int64 of shape `(n,)`; ModelError if it does not lie in the domain."""
        point = integer_array(x, "input", 1)
        if point.size != self.n:
            raise ModelError(f"input has {point.size} entries, expected {self.n}.")
        if self.is_binary:
            bad = np.flatnonzero(np.abs(point) != 1)
            if bad.size:
                raise ModelError(f"input[{bad[0]}] is {point[bad[0]]}, expected -1 or +1. Binarize the image first.")
        else:
            bad = np.flatnonzero((point < self.lower) | (point > self.upper))
            if bad.size:
                i = int(bad[0])
                raise ModelError(f"input[{i}] is {point[i]}, expected {self.lower[i]} to {self.upper[i]}.")
        return point

    def require_batch(self, batch: ArrayLike) -> IntArray:
        """`batch` as int64 of shape `(N, n)`; ModelError if a row does not lie in the domain."""
        points = integer_array(batch, "inputs", 2)
        if points.shape[1] != self.n:
            raise ModelError(f"inputs have {points.shape[1]} entries each, expected {self.n}.")
        outside = (points < self.lower) | (points > self.upper)
        if self.is_binary:
            outside |= points == 0
        if outside.any():
            row = int(np.argmax(outside.any(axis=1)))
            try:
                self.require(points[row])
            except ModelError as error:
                raise ModelError(f"row {row}: {error}") from None
        return points


def _image_shape(n: int, shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is None:
        return (n,)
    dims = integers(shape, "shape", error=ModelError)
    if math.prod(dims) != n:
        raise ModelError(f"shape {dims} has {math.prod(dims)} entries, but the input has {n}.")
    return dims
