"""What a unit (a neuron, or a filter at all its positions) computes from its integer sum, exactly.

Between a linear layer and the next one, the files of frameworks hold a chain of elementwise operations with constants.
On the integer sum s of a unit such a chain is first an `Affine` function, with at most one square root, and from the
first sign or comparison on a `Steps` function: three values, for below, at and above zero. Constants are the dyadic
rationals that their floats are, so nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import as_fraction
from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.folding import RealThreshold

Column = NDArray[np.object_]  # one Fraction per unit


def column(values: Iterable[Any], what: str = "a constant") -> Column:
    """`values` as exact Fractions, one per unit; ModelError if one is not finite."""
    numbers = values.ravel().tolist() if isinstance(values, np.ndarray) else list(values)
    known: dict[Any, Fraction] = {}
    for value in numbers:
        if value not in known:
            known[value] = as_fraction(value, what)
    array = np.empty(len(numbers), dtype=object)
    array[:] = [known[value] for value in numbers]
    return array


def constant_column(value: Any, size: int) -> Column:
    """The same Fraction for every unit."""
    array = np.empty(size, dtype=object)
    array[:] = as_fraction(value, "a constant")
    return array


def require_finite(values: NDArray[Any], where: str, what: str = "weights") -> None:
    """ModelError if a number is NaN or infinite, as after an overflow of float16."""
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ModelError(
            f"{where}: {what} are not finite ({values[at]} at {list(at)}), expected numbers. The training diverged, or "
            "a number overflowed (float16 ends at 65504): repair the model and export it again."
        )


def mean_magnitudes(latent: NDArray[Any]) -> Column:
    """The mean of ``|w|`` over each row of `latent`, whose first axis counts rows: exact, as one Fraction each."""
    mantissas, exponents = np.frexp(np.abs(np.asarray(latent, dtype=np.float64)).reshape(latent.shape[0], -1))
    whole = (mantissas * 2.0**53).astype(np.int64)
    means = []
    for row, powers in zip(whole, exponents, strict=True):
        total = Fraction(0)
        for power in np.unique(powers).tolist():
            part = row[powers == power]  # two sums, neither of which overflows
            total += Fraction(2) ** (power - 53) * ((int((part >> 27).sum()) << 27) + int((part & (2**27 - 1)).sum()))
        means.append(total / row.size)
    return column(means)


def rational_root(value: Fraction) -> Fraction | None:
    """The square root if it is rational; None otherwise."""
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    exact = above * above == value.numerator and below * below == value.denominator
    return Fraction(above, below) if exact else None


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Unit j has the value ``(slope[j] * s + offset[j]) / sqrt(root[j]) + shift[j]`` of its sum s; all exact.

    Attributes:
        slope: One Fraction per unit.
        offset: One Fraction per unit.
        root: One Fraction above 0 per unit; 1 where its root is rational.
        shift: One Fraction per unit; 0 where root is 1.
    """

    slope: Column
    offset: Column
    root: Column
    shift: Column

    @classmethod
    def create(cls, slope: Column, offset: Column) -> Affine:
        """``slope * s + offset``."""
        return cls(slope, offset, constant_column(1, slope.size), constant_column(0, slope.size))

    @property
    def size(self) -> int:
        """Units."""
        return int(self.slope.size)

    def times(self, factor: Column) -> Affine:
        """The value times a constant per unit."""
        return Affine(self.slope * factor, self.offset * factor, self.root, self.shift * factor)

    def plus(self, summand: Column) -> Affine:
        """The value plus a constant per unit."""
        plain = self.root == 1
        return Affine(
            self.slope,
            np.where(plain, self.offset + summand, self.offset),
            self.root,
            np.where(plain, self.shift, self.shift + summand),
        )

    def normed(self, *, gamma: Column, beta: Column, mean: Column, variance: Column, where: str) -> Affine:
        """Batch norm of the value: ``(value - mean) * gamma / sqrt(variance) + beta``.

        Args:
            gamma: Scales.
            beta: Shifts.
            mean: Means.
            variance: Variances, epsilon included.
            where: What error messages call the operation.

        Raises:
            ModelError: A variance is not above 0.
            UnsupportedError: A second square root that does not merge with the first.
        """
        moved = self.plus(-mean)
        for j, v in enumerate(variance):
            if v <= 0:
                raise ModelError(f"{where}: variance + epsilon of unit {j} is {float(v):g}, expected above 0.")
        cache: dict[Fraction, Fraction | None] = {v: rational_root(v) for v in set(variance.tolist())}
        slope, offset, root, shift = (array.copy() for array in (moved.slope, moved.offset, moved.root, moved.shift))
        for j, v in enumerate(variance):
            rational = cache[v]
            factor = gamma[j] / (1 if rational is None else rational)
            slope[j], offset[j], shift[j] = slope[j] * factor, offset[j] * factor, shift[j] * factor
            if rational is None:
                if shift[j] != 0:
                    raise UnsupportedError(
                        f"{where} is a second batch norm without a sign since the first, and both divide by irrational "
                        "roots, expected one. Fuse the two before exporting."
                    )
                root[j] = root[j] * v
                whole = rational_root(root[j])
                if whole is not None:
                    slope[j], offset[j], root[j] = slope[j] / whole, offset[j] / whole, Fraction(1)
        return Affine(slope, offset, root, shift).plus(beta)

    def over_one_root(self) -> Affine | None:
        """The same values with one root for all units; None if their roots differ by more than rational factors."""
        slope, offset, shift = self.slope.copy(), self.offset.copy(), self.shift.copy()
        common = next((r for p, r in zip(slope, self.root, strict=True) if p != 0), Fraction(1))
        factors = {root: rational_root(common / root) for root in set(self.root.tolist())}
        for j, root in enumerate(self.root):
            factor = factors[root]
            if slope[j] == 0 and root == 1:  # a constant, which may be of any root
                shift[j], offset[j] = shift[j] + offset[j], Fraction(0)
            elif factor is not None:
                slope[j], offset[j] = slope[j] * factor, offset[j] * factor
            elif slope[j] != 0 or offset[j] != 0:
                return None
        if common == 1:
            offset, shift = offset + shift, constant_column(0, self.size)
        return Affine(slope, offset, constant_column(common, self.size), shift)

    def zero(self, j: int) -> RealThreshold | None:
        """The real number at which unit j crosses zero; None if the unit is constant."""
        p = self.slope[j]
        return None if p == 0 else RealThreshold(-self.offset[j] / p, -self.shift[j] / p, self.root[j])

    def sign_of_constant(self, j: int) -> int:
        """-1, 0 or 1: the sign of unit j, whose slope is 0."""
        at_most = RealThreshold(self.offset[j], self.shift[j], self.root[j]).is_at_most(0)
        at_least = RealThreshold(-self.offset[j], -self.shift[j], self.root[j]).is_at_most(0)
        return 0 if at_most and at_least else -1 if at_most else 1

    def as_scores(self) -> tuple[Column, Column, int]:
        """Slopes and offsets as rationals, and how many units had to be rounded.

        Where a square root is irrational, both become the nearest float64: the one rounding that scores may take.
        """
        slope, offset, rounded = self.slope.copy(), self.offset.copy(), 0
        for j, root in enumerate(self.root):
            if root != 1:
                slope[j], offset[j] = (
                    _over_root(slope[j], root, Fraction(0)),
                    _over_root(offset[j], root, self.shift[j]),
                )
                rounded += 1
        return slope, offset, rounded


def _over_root(value: Fraction, root: Fraction, shift: Fraction) -> Fraction:
    """``value / sqrt(root) + shift`` rounded to float64."""
    if value == 0:
        return shift
    bits = 300 + max(0, root.denominator.bit_length() - root.numerator.bit_length())
    inverse = Fraction(math.isqrt((root.denominator << (2 * bits)) // root.numerator), 1 << bits)
    return Fraction(float(value * inverse + shift))


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Unit j has the value `low[j]`, `zero[j]` or `high[j]` where its affine function is below, at or above zero."""

    low: Column
    zero: Column
    high: Column

    @classmethod
    def create(cls, low: Any, zero: Any, high: Any, size: int) -> Steps:
        """The same three values for every unit."""
        return cls(*(constant_column(value, size) for value in (low, zero, high)))

    def mapped(self, function: Callable[[Column], Column]) -> Steps:
        """The same elementwise function of all three values."""
        return Steps(function(self.low), function(self.zero), function(self.high))

    def direction(self, j: int) -> int:
        """1 if the value of unit j never falls, -1 if it never rises (0 if it is constant), 2 if neither."""
        low, zero, high = self.low[j], self.zero[j], self.high[j]
        if low <= zero <= high:
            return 0 if low == high else 1
        return -1 if low >= zero >= high else 2


def signs_of(values: Column) -> Column:
    """-1, 0 or 1 of each value."""
    return column([int(v > 0) - int(v < 0) for v in values])


def clipped(values: Column, low: Fraction | None, high: Fraction | None) -> Column:
    """Each value within the bounds."""
    kept = [v if low is None else max(v, low) for v in values]
    return column([v if high is None else min(v, high) for v in kept])
