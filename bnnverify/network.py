"""BinaryNetwork: the finite, exact object that every question is about.

Semantics (one place, everywhere the same):

- a hidden neuron outputs +1 iff ``weights . x >= threshold``, otherwise -1 (so sign(0) = +1 before folding);
- the score of class k is ``scale[k] * (weights[k] . h) + bias[k]``, an exact rational;
- the predicted class is the argmax of the scores; ties go to the lowest index.

The block types are few and closed: `DenseBlock` for hidden blocks and `OutputBlock` at the end. Code that
handles blocks dispatches on exactly these types and refuses others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.errors import ModelError

SignArray = NDArray[np.int8]
IntArray = NDArray[np.int64]

_INT_LIMIT = 2**62


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only C-contiguous copy."""
    copy = np.array(array, order="C", copy=True)
    copy.setflags(write=False)
    return copy


def _integer_array(values: ArrayLike, what: str, ndim: int) -> IntArray:
    """`values` as int64, refusing anything that is not a finite integer."""
    array = np.asarray(values)
    if array.ndim != ndim:
        raise ModelError(f"{what} has shape {array.shape}, expected {ndim} dimension(s).")
    if array.dtype == bool:
        raise ModelError(f"{what} is boolean, expected integers. Convert True/False to +1/-1 first.")
    if array.dtype.kind in "iu":
        if array.size and (int(array.max()) > _INT_LIMIT or int(array.min()) < -_INT_LIMIT):
            raise ModelError(f"{what} exceeds +-2^62, expected integers in that range.")
        return array.astype(np.int64)
    try:
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


def _sign_matrix(weights: ArrayLike, mask: ArrayLike | None, what: str) -> SignArray:
    """Weights as int8 in {-1, 0, +1}, 0 exactly where masked."""
    array = np.asarray(weights)
    if array.ndim != 2:
        raise ModelError(f"{what} has shape {array.shape}, expected a matrix (neurons, inputs).")
    if 0 in array.shape:
        raise ModelError(f"{what} has shape {array.shape}, expected at least one neuron and one input.")
    present = np.ones(array.shape, dtype=bool)
    if mask is not None:
        present = np.asarray(mask)
        if present.dtype != bool:
            raise ModelError(f"mask of {what} has dtype {present.dtype}, expected bool (True: input present).")
        if present.shape != array.shape:
            raise ModelError(f"mask of {what} has shape {present.shape}, expected {array.shape}.")
    bad = np.argwhere(present & (array != 1) & (array != -1))
    if bad.size:
        row, column = (int(i) for i in bad[0])
        hint = " Pass a mask to leave inputs out." if array[row, column] == 0 else " Export the binarized weights."
        raise ModelError(f"{what}[{row}, {column}] is {array[row, column]}, expected -1 or +1.{hint}")
    signs = np.zeros(array.shape, dtype=np.int8)
    signs[present] = array[present].astype(np.int8)
    return signs


def as_fraction(value: Any, what: str) -> Fraction:
    """`value` as the exact Fraction it stands for; floats are the dyadic numbers that they are."""
    if isinstance(value, Fraction):
        return value
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

    @classmethod
    def binary(cls, n: int, shape: Sequence[int] | None = None) -> InputDomain:
        """All of {-1, +1}^n."""
        if n < 1:
            raise ModelError(f"the input has {n} entries, expected at least 1.")
        ones = np.ones(n, dtype=np.int64)
        return cls(_frozen(-ones), _frozen(ones), True, _image_shape(n, shape))

    @classmethod
    def integers(cls, lower: ArrayLike, upper: ArrayLike, shape: Sequence[int] | None = None) -> InputDomain:
        """All integer vectors x with lower <= x <= upper."""
        low = _integer_array(lower, "lower", 1)
        high = _integer_array(upper, "upper", 1)
        if low.shape != high.shape or low.size == 0:
            raise ModelError(f"lower has shape {low.shape} and upper {high.shape}, expected the same, not empty.")
        if (low > high).any():
            i = int(np.argmax(low > high))
            raise ModelError(f"lower[{i}] = {low[i]} exceeds upper[{i}] = {high[i]}.")
        if int(sum(max(abs(int(a)), abs(int(b))) for a, b in zip(low, high, strict=True))) > _INT_LIMIT:
            raise ModelError("the input bounds add up to more than 2^62; pre-activations would not fit.")
        return cls(_frozen(low), _frozen(high), False, _image_shape(low.size, shape))

    @property
    def n(self) -> int:
        """Number of inputs."""
        return int(self.lower.size)

    def require(self, x: ArrayLike) -> IntArray:
        """`x` as int64 of shape `(n,)`; ModelError if it does not lie in the domain."""
        point = _integer_array(x, "input", 1)
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
        points = _integer_array(batch, "inputs", 2)
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
    dims = tuple(int(d) for d in shape)
    if math.prod(dims) != n:
        raise ModelError(f"shape {dims} has {math.prod(dims)} entries, but the input has {n}.")
    return dims


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
        signs = _sign_matrix(weights, mask, f"{name}.weights")
        limits = _integer_array(thresholds, f"{name}.thresholds", 1)
        if limits.size != signs.shape[0]:
            raise ModelError(f"{name}.thresholds has {limits.size} entries, expected {signs.shape[0]}, one per neuron.")
        flags = np.zeros(signs.shape[0], dtype=bool) if negated is None else np.asarray(negated)
        if flags.dtype != bool or flags.shape != (signs.shape[0],):
            raise ModelError(
                f"{name}.negated has dtype {flags.dtype} and shape {flags.shape}, "
                f"expected bool and ({signs.shape[0]},)."
            )
        return cls(_frozen(signs), _frozen(limits), _frozen(flags))

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
        signs = _sign_matrix(weights, mask, "output.weights")
        classes = signs.shape[0]
        if classes < 2:
            raise ModelError(f"output.weights has {classes} row(s), expected one per class, at least 2.")
        return cls(_frozen(signs), _per_class(scale, classes, "scale"), _per_class(bias, classes, "bias"))

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
        a = [int(q * denominator) for q in self.scale]
        b = [int(q * denominator) for q in self.bias]
        divisor = math.gcd(*a, *b) or 1
        return tuple(v // divisor for v in a), tuple(v // divisor for v in b)

    def popcounts(self, h: IntArray) -> IntArray:
        """``weights . h`` for a vector `(n,)` or a batch `(N, n)`: exact, int64."""
        return np.asarray(h, dtype=np.int64) @ self.weights.T.astype(np.int64)


def _per_class(values: Any, classes: int, what: str) -> tuple[Fraction, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        values = [values] * classes
    numbers = tuple(as_fraction(v, f"output.{what}[{i}]") for i, v in enumerate(values))
    if len(numbers) != classes:
        raise ModelError(f"output.{what} has {len(numbers)} entries, expected {classes}, one per class.")
    return numbers


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a network comes from: plain JSON values, kept with the file, never part of the identity."""

    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class BinaryNetwork:
    """A binarized network with exact semantics. Immutable; equal iff the identities are equal.

    Attributes:
        domain: What an input may be.
        blocks: Hidden blocks in order, possibly none. The first takes the input, the others take signs.
        output: The scores.
        provenance: How the network was made.
    """

    domain: InputDomain
    blocks: tuple[DenseBlock, ...]
    output: OutputBlock
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, tuple):
            object.__setattr__(self, "blocks", tuple(self.blocks))
        width, source = self.domain.n, "the input"
        for i, block in enumerate(self.blocks):
            if not isinstance(block, DenseBlock):
                raise ModelError(f"blocks[{i}] is a {type(block).__name__}, expected a DenseBlock.")
            if block.n_inputs != width:
                raise ModelError(f"blocks[{i}] takes {block.n_inputs} inputs, but {source} gives {width}.")
            width, source = block.n_outputs, f"blocks[{i}]"
        if not isinstance(self.output, OutputBlock):
            raise ModelError(f"output is a {type(self.output).__name__}, expected an OutputBlock.")
        if self.output.n_inputs != width:
            raise ModelError(f"the output block takes {self.output.n_inputs} inputs, but {source} gives {width}.")

    @property
    def n_inputs(self) -> int:
        """Inputs."""
        return self.domain.n

    @property
    def n_classes(self) -> int:
        """Classes."""
        return self.output.n_classes

    @property
    def n_cells(self) -> int:
        """Stored weights of all blocks."""
        return sum(b.n_cells for b in self.blocks) + self.output.n_cells

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, neurons of each hidden block, classes: `(64, 32, 10)`."""
        return (self.n_inputs, *(b.n_outputs for b in self.blocks), self.n_classes)

    @property
    def all_blocks(self) -> tuple[DenseBlock | OutputBlock, ...]:
        """Hidden blocks in order, then the output block."""
        return (*self.blocks, self.output)

    @property
    def architecture(self) -> str:
        """The widths as the field writes them: `64-32-10`."""
        return "-".join(str(w) for w in self.widths)

    def scores(self, x: ArrayLike) -> tuple[Fraction, ...]:
        """Exact scores of one input.

        Args:
            x: Shape `(n,)`, integers of the domain.

        Returns:
            One Fraction per class.

        Raises:
            ModelError: The input does not lie in the domain.
        """
        h = self.domain.require(x)
        for block in self.blocks:
            h = block.outputs(h)
        sums = self.output.popcounts(h)
        return tuple(a * int(s) + b for a, s, b in zip(self.output.scale, sums, self.output.bias, strict=True))

    def evaluate(self, x: ArrayLike) -> int:
        """Predicted class of one input: exact argmax of the scores, ties to the lowest index.

        >>> from bnnverify.network import *
        >>> net = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, -1]]))
        >>> net.evaluate([1, 1]), net.evaluate([-1, -1]), net.evaluate([1, -1])
        (0, 1, 0)
        """
        scores = self.scores(x)
        return scores.index(max(scores))

    def evaluate_batch(self, batch: ArrayLike) -> IntArray:
        """Predicted classes of many inputs, shape `(N, n)` -> `(N,)`; same exact rule as `evaluate`.

        Plain numpy integer arithmetic; `bnnverify.kernels.PackedNetwork` gives the same answers faster.
        """
        h = self.domain.require_batch(batch)
        for block in self.blocks:
            h = block.outputs(h)
        return self.classes_of_sums(self.output.popcounts(h))

    def classes_of_sums(self, sums: IntArray) -> IntArray:
        """Argmax classes of output sums ``weights . h`` of shape `(N, classes)`, exact."""
        a, b = self.output.integer_form()
        reach = max(int(np.abs(sums).max(initial=0)), 1)
        if max(abs(v) for v in a) * reach + max(abs(v) for v in b) < _INT_LIMIT:
            scores = sums * np.array(a, dtype=np.int64) + np.array(b, dtype=np.int64)
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        exact = sums.astype(object) * np.array(a, dtype=object) + np.array(b, dtype=object)
        return np.array([list(row).index(max(row)) for row in exact], dtype=np.int64)

    def canonical_bytes(self) -> Iterable[bytes]:
        """The byte encoding that the identity hashes; see docs/identity.md."""
        yield b"bnnverify network 1\n"
        kind = b"binary" if self.domain.is_binary else b"integers"
        yield b"domain %b %d\n" % (kind, self.n_inputs)
        if not self.domain.is_binary:
            yield self.domain.lower.astype("<i8").tobytes()
            yield self.domain.upper.astype("<i8").tobytes()
        for block in self.blocks:
            yield b"dense %d %d\n" % block.weights.shape
            yield block.weights.tobytes()
            yield block.thresholds.astype("<i8").tobytes()
        yield b"output %d %d\n" % self.output.weights.shape
        yield self.output.weights.tobytes()
        for number in (*self.output.scale, *self.output.bias):
            yield b"%d/%d\n" % (number.numerator, number.denominator)

    @property
    def identity(self) -> str:
        """sha256 of what determines the function, as hex. Equal arrays, equal identity, in any process."""
        digest = hashlib.sha256()
        for piece in self.canonical_bytes():
            digest.update(piece)
        return digest.hexdigest()

    @property
    def cells_identity(self) -> str:
        """sha256 of the function and of the stored sign of every cell: what fault analyses depend on."""
        digest = hashlib.sha256(bytes.fromhex(self.identity))
        for block in self.blocks:
            digest.update(np.packbits(block.negated).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BinaryNetwork):
            return NotImplemented
        return self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        kind = "binary" if self.domain.is_binary else "integer"
        return f"BinaryNetwork({self.architecture}, {kind} inputs, {self.n_cells} cells, sha256 {self.identity[:12]})"
