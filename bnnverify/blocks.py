"""The blocks of a network: `DenseBlock` for hidden blocks, `OutputBlock` at the end.

The types are few and closed (`convolution.ConvBlock` is the third): code that handles blocks dispatches on exactly
these and refuses others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.domain import INT_LIMIT, IntArray, frozen, integer_array
from bnnverify.errors import ModelError
from bnnverify.scalars import plain

SignArray = NDArray[np.int8]


MATRIX = "a matrix (neurons, inputs)"
KERNELS = "an array (filters, channels, rows, columns)"


def sign_array(
    weights: ArrayLike, mask: ArrayLike | None, what: str, shape: str = MATRIX
) -> tuple[SignArray, NDArray[np.bool_]]:
    """Weights as int8 in {-1, 0, +1}, 0 exactly where masked, and where they are present.

    Args:
        weights: A matrix, or four-dimensional kernels.
        mask: True where a weight is present; same shape. Default: everywhere.
        what: What error messages call the array.
        shape: `MATRIX` or `KERNELS`.

    Raises:
        ModelError: A present weight is not -1 or +1, or a shape or type does not fit.
    """
    try:
        array = np.asarray(weights)
    except ValueError:
        raise ModelError(f"{what} has rows of different lengths, expected {shape}.") from None
    if array.ndim != (2 if shape == MATRIX else 4):
        raise ModelError(f"{what} has shape {array.shape}, expected {shape}.")
    if 0 in array.shape:
        least = "one neuron and one input" if shape == MATRIX else "one filter, channel, row and column"
        raise ModelError(f"{what} has shape {array.shape}, expected at least {least}.")
    present = np.ones(array.shape, dtype=bool)
    if mask is not None:
        present = np.asarray(mask)
        if present.dtype != bool:
            raise ModelError(f"mask of {what} has dtype {present.dtype}, expected bool (True: input present).")
        if present.shape != array.shape:
            raise ModelError(f"mask of {what} has shape {present.shape}, expected {array.shape}.")
    bad = np.argwhere(present & (array != 1) & (array != -1))
    if bad.size:
        place = tuple(int(i) for i in bad[0])
        hint = " Pass a mask to leave inputs out." if array[place] == 0 else " Export the binarized weights."
        raise ModelError(f"{what}[{', '.join(map(str, place))}] is {array[place]}, expected -1 or +1.{hint}")
    signs = np.zeros(array.shape, dtype=np.int8)
    signs[present] = array[present].astype(np.int8)
    return signs, present


def require_signs(weights: Any, what: str, ndim: int = 2) -> None:
    """ModelError unless `weights` is an int8 array of -1, 0 and +1: what `create` makes."""
    array = np.asarray(weights)
    if array.dtype != np.int8 or array.ndim != ndim or 0 in array.shape or bool((np.abs(array) > 1).any()):
        kind = "matrix" if ndim == 2 else f"array of {ndim} dimensions"
        raise ModelError(f"{what} needs an int8 {kind} of -1, 0 (masked) and +1. Use {what}.create.")


def row_thresholds(thresholds: ArrayLike, rows: int, name: str, kind: str = "neuron") -> IntArray:
    """`thresholds` as int64, one per neuron or filter."""
    limits = integer_array(thresholds, f"{name}.thresholds", 1)
    if limits.size != rows:
        raise ModelError(f"{name}.thresholds has {limits.size} entries, expected {rows}, one per {kind}.")
    return limits


def row_flags(flags: ArrayLike | None, rows: int, what: str) -> NDArray[np.bool_]:
    """`flags` as bool, one per neuron or filter; default: all False."""
    array = np.zeros(rows, dtype=bool) if flags is None else np.asarray(flags)
    if array.dtype != bool or array.shape != (rows,):
        raise ModelError(f"{what} has dtype {array.dtype} and shape {array.shape}, expected bool and ({rows},).")
    return array


def as_fraction(value: Any, what: str) -> Fraction:
    """`value` as the exact Fraction it stands for; floats are the dyadic numbers that they are."""
    if isinstance(value, Fraction):
        return value
    value = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(value, (bool, np.bool_)):
        raise ModelError(f"{what} is {value}, expected a number.")
    if isinstance(value, (int, np.integer)):
        return Fraction(int(value))
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise ModelError(f"{what} is {value}, expected a finite number.")
        return Fraction(float(value))
    raise ModelError(f"{what} is {value!r}, expected an integer, a Fraction or a finite float.")


@dataclass(frozen=True, slots=True, eq=False)
class DenseBlock:
    """A fully connected block: neuron j outputs +1 iff ``weights[j] . x >= thresholds[j]``, else -1.

    Attributes:
        weights: Shape `(m, n)`, int8, -1/+1, and 0 exactly where an input is masked out.
        thresholds: Shape `(m,)`, int64.
        negated: Shape `(m,)`, bool. True where folding negated the row, that is, where the chip stores
            ``-weights[j]`` (batch-norm scale below 0). It changes which stored sign a cell holds, and so
            asymmetric faults, but never the function; it is not part of the identity.
    """

    weights: SignArray
    thresholds: IntArray
    negated: NDArray[np.bool_]

    def __post_init__(self) -> None:
        require_signs(self.weights, "DenseBlock")
        rows = self.weights.shape[:1]
        limits = np.asarray(self.thresholds)
        fits = limits.shape == rows and limits.dtype == np.int64 and bool((np.abs(limits) <= INT_LIMIT).all())
        flags = np.asarray(self.negated)
        if not fits or flags.shape != rows or flags.dtype != bool:
            raise ModelError("DenseBlock needs int64 thresholds and bool flags, one per neuron. Use DenseBlock.create.")
        for name in ("weights", "thresholds", "negated"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return DenseBlock, (self.weights, self.thresholds, self.negated)  # so that a copy is checked and frozen too

    @classmethod
    def create(
        cls,
        weights: ArrayLike,
        thresholds: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        negated: ArrayLike | None = None,
        name: str = "block",
    ) -> DenseBlock:
        """A checked block.

        Args:
            weights: Shape `(m, n)`, entries -1 or +1 wherever `mask` is True.
            thresholds: Shape `(m,)`, integers, in units of the pre-activation.
            mask: Shape `(m, n)`, bool, True where the input is present. Default: everywhere.
            negated: Shape `(m,)`, bool. Default: nowhere.
            name: What error messages call the block.

        Raises:
            ModelError: A weight is not -1/+1, or a shape or type does not fit.

        >>> DenseBlock.create([[1, 0.3]], [0])
        Traceback (most recent call last):
        bnnverify.errors.ModelError: block.weights[0, 1] is 0.3, expected -1 or +1. Export the binarized weights.
        """
        signs, _ = sign_array(weights, mask, f"{name}.weights")
        limits = row_thresholds(thresholds, signs.shape[0], name)
        flags = row_flags(negated, signs.shape[0], f"{name}.negated")
        return cls(signs, limits, flags)

    @property
    def n_inputs(self) -> int:
        """Inputs of each neuron, masked ones included."""
        return int(self.weights.shape[1])

    @property
    def n_outputs(self) -> int:
        """Neurons."""
        return int(self.weights.shape[0])

    @property
    def n_cells(self) -> int:
        """Stored weights: one cell per unmasked weight."""
        return int(np.count_nonzero(self.weights))

    @property
    def stored(self) -> SignArray:
        """Signs as the cells hold them: the row times -1 where folding negated it."""
        return np.where(self.negated[:, None], -self.weights, self.weights).astype(np.int8)

    def preactivations(self, x: IntArray) -> IntArray:
        """``weights . x`` for a vector `(n,)` or a batch `(N, n)`: exact, int64."""
        return np.asarray(x, dtype=np.int64) @ self.weights.T.astype(np.int64)

    def outputs(self, x: IntArray) -> IntArray:
        """Signs -1/+1 of all neurons, int64."""
        return np.where(self.preactivations(x) >= self.thresholds, 1, -1).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class OutputBlock:
    """The last block: the score of class k is ``scale[k] * (weights[k] . h) + bias[k]``, exactly.

    Attributes:
        weights: Shape `(classes, n)`, int8, -1/+1, and 0 exactly where an input is masked out.
        scale: One rational per class. May be negative or zero.
        bias: One rational per class.
    """

    weights: SignArray
    scale: tuple[Fraction, ...]
    bias: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        require_signs(self.weights, "OutputBlock")
        numbers = (*self.scale, *self.bias)
        classes = self.weights.shape[0]
        right = len(self.scale) == classes == len(self.bias) and all(isinstance(q, Fraction) for q in numbers)
        if not right or classes < 2:
            raise ModelError("OutputBlock needs Fractions, one scale and bias per class. Use OutputBlock.create.")
        object.__setattr__(self, "weights", frozen(self.weights))

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputBlock, (self.weights, self.scale, self.bias)

    @classmethod
    def create(
        cls,
        weights: ArrayLike,
        *,
        scale: Any = 1,
        bias: Any = 0,
        mask: ArrayLike | None = None,
    ) -> OutputBlock:
        """A checked output block.

        Args:
            weights: Shape `(classes, n)`, entries -1 or +1 wherever `mask` is True.
            scale: A number, or one per class. Floats are taken as the dyadic rationals that they are.
            bias: A number, or one per class.
            mask: Shape `(classes, n)`, bool, True where the input is present.

        Raises:
            ModelError: Fewer than two classes, a weight that is not -1/+1, or a number that is not finite.
        """
        signs, _ = sign_array(weights, mask, "output.weights")
        classes = signs.shape[0]
        if classes < 2:
            raise ModelError(f"output.weights has {classes} row(s), expected one per class, at least 2.")
        return cls(signs, _per_class(scale, classes, "scale"), _per_class(bias, classes, "bias"))

    @property
    def n_inputs(self) -> int:
        """Inputs of each score, masked ones included."""
        return int(self.weights.shape[1])

    @property
    def n_classes(self) -> int:
        """Classes."""
        return int(self.weights.shape[0])

    @property
    def n_cells(self) -> int:
        """Stored weights: one cell per unmasked weight."""
        return int(np.count_nonzero(self.weights))

    @property
    def stored(self) -> SignArray:
        """Signs as the cells hold them: the weights (folding negates no row of scores)."""
        return self.weights

    @property
    def has_common_scale(self) -> bool:
        """True if all classes share one scale."""
        return len(set(self.scale)) == 1

    def integer_form(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Integers (a, b) with the same order of classes: ``a[k] * (weights[k] . h) + b[k]``.

        Both are the scales and biases times one positive common denominator, divided by their greatest
        common divisor, so that equal orders of magnitude stay small.
        """
        denominator = math.lcm(*(q.denominator for q in (*self.scale, *self.bias)))
        a = [q.numerator * (denominator // q.denominator) for q in self.scale]
        b = [q.numerator * (denominator // q.denominator) for q in self.bias]
        divisor = math.gcd(*a, *b) or 1
        return tuple(v // divisor for v in a), tuple(v // divisor for v in b)

    def popcounts(self, h: IntArray) -> IntArray:
        """``weights . h`` for a vector `(n,)` or a batch `(N, n)`: exact, int64."""
        return np.asarray(h, dtype=np.int64) @ self.weights.T.astype(np.int64)


def _per_class(values: Any, classes: int, what: str) -> tuple[Fraction, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(plain(values), Iterable):
        values = [values] * classes
    numbers = tuple(as_fraction(v, f"output.{what}[{i}]") for i, v in enumerate(values))
    if len(numbers) != classes:
        raise ModelError(f"output.{what} has {len(numbers)} entries, expected {classes}, one per class.")
    return numbers
