"""BinaryNetwork: the finite, exact object that every question is about.

Semantics (one place, everywhere the same):

- a hidden neuron outputs +1 iff ``weights . x >= threshold``, otherwise -1 (so sign(0) = +1 before folding); a
  convolution does so at every position, over the inputs that are present, and then pools the signs;
- the score of class k is ``scale[k] * (weights[k] . h) + bias[k]``, an exact rational;
- the predicted class is the argmax of the scores; ties go to the lowest index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.blocks import DenseBlock, OutputBlock
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import INT_LIMIT, InputDomain, IntArray
from bnnverify.errors import ModelError, QueryError, UnsupportedError
from bnnverify.scalars import integer

__all__ = ["BinaryNetwork", "ConvBlock", "DenseBlock", "HiddenBlock", "InputDomain", "OutputBlock", "Provenance"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a network comes from: plain JSON values, kept with the file, never part of the identity."""

    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader had to assume about the file that the network comes from, and what can change answers.

        Sentences; whoever answers about the network says them again.
        """
        found = self.data.get("assumed", ())
        return tuple(text[:500] for text in found if isinstance(text, str)) if isinstance(found, (list, tuple)) else ()


@dataclass(frozen=True, slots=True, eq=False)
class BinaryNetwork:
    """A binarized network with exact semantics. Immutable; equal iff the identities are equal.

    Attributes:
        domain: What an input may be.
        blocks: Hidden blocks in order, possibly none. The first takes the input, the others take signs. Between
            blocks there is one flat vector; an image is flat in channel-major order.
        output: The scores.
        provenance: How the network was made.
        input_coding: True if `blocks[0]` is a fixed binarization of the inputs in front of the network, one sign for
            each input. It has no cells. Not part of the identity, for the function is the same, but of
            `cells_identity`.
    """

    domain: InputDomain
    blocks: tuple[HiddenBlock, ...]
    output: OutputBlock
    provenance: Provenance = field(default_factory=Provenance)
    input_coding: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, tuple):
            object.__setattr__(self, "blocks", tuple(self.blocks))
        width, source = self.domain.n, "the input"
        for i, block in enumerate(self.blocks):
            if not isinstance(block, (DenseBlock, ConvBlock)):
                raise ModelError(f"blocks[{i}] is a {type(block).__name__}, expected a DenseBlock or ConvBlock.")
            if block.n_inputs != width:
                raise ModelError(f"blocks[{i}] takes {block.n_inputs} inputs, but {source} gives {width}.")
            width, source = block.n_outputs, f"blocks[{i}]"
        if not isinstance(self.output, OutputBlock):
            raise ModelError(f"output is a {type(self.output).__name__}, expected an OutputBlock.")
        if self.output.n_inputs != width:
            raise ModelError(f"the output block takes {self.output.n_inputs} inputs, but {source} gives {width}.")
        if self.input_coding is not False and not (self.input_coding is True and _codes_inputs(self.blocks)):
            raise ModelError("input_coding is set, expected a first block that makes one sign of each input.")

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
        """Stored weights of all blocks that have cells."""
        return sum(b.n_cells for b in self.all_blocks[self.input_coding :])

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, neurons of each hidden block, classes: `(64, 32, 10)`."""
        return (self.n_inputs, *(b.n_outputs for b in self.blocks), self.n_classes)

    @property
    def all_blocks(self) -> tuple[HiddenBlock | OutputBlock, ...]:
        """Hidden blocks in order, then the output block."""
        return (*self.blocks, self.output)

    @property
    def has_convolutions(self) -> bool:
        """True if some hidden block is a `ConvBlock`."""
        return any(isinstance(block, ConvBlock) for block in self.blocks)

    @property
    def architecture(self) -> str:
        """The widths as the field writes them: `64-32-10`, and with convolutions `1x28x28-16c5p2-mp2-64-10`.

        A convolution is written as filters, `c` and the size of the kernel, `s` and the stride unless it is 1, `p` and
        the padding unless it is 0; `mp` and the size of the windows follow where it pools. The input of a network that
        starts with one is written as channels, height and width.
        """
        first = self.blocks[0] if self.blocks else None
        parts = ["x".join(map(str, first.input_shape)) if isinstance(first, ConvBlock) else str(self.n_inputs)]
        for block in self.blocks:
            parts += _conv_text(block) if isinstance(block, ConvBlock) else [str(block.n_outputs)]
        return "-".join([*parts, str(self.n_classes)])

    def dense_blocks(self, purpose: str) -> tuple[DenseBlock, ...]:
        """The hidden blocks if all are dense.

        Args:
            purpose: What asks, for the message.

        Raises:
            UnsupportedError: One is a convolution.
        """
        dense = tuple(block for block in self.blocks if isinstance(block, DenseBlock))
        if len(dense) != len(self.blocks):
            at = next(i for i, block in enumerate(self.blocks) if not isinstance(block, DenseBlock))
            raise UnsupportedError(f"blocks[{at}] is a convolution, expected dense blocks only: {purpose}")
        return dense

    def unrolled(self) -> BinaryNetwork:
        """The network of dense blocks with the same inputs, classes and scores: see `ConvBlock.unrolled`.

        The cells of a convolution are repeated at every position, so only questions about inputs may use it.

        Raises:
            ResourceLimitError: A block would take more than 2 GiB.
        """
        if not self.has_convolutions:
            return self
        blocks: list[HiddenBlock] = []
        for block in self.blocks:
            blocks += block.unrolled() if isinstance(block, ConvBlock) else (block,)
        return BinaryNetwork(self.domain, tuple(blocks), self.output, self.provenance, self.input_coding)

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

        Plain numpy, integers or floats that hold them exactly; `bnnverify.kernels.PackedNetwork` gives the same
        answers faster.
        """
        return np.asarray(self.scores_of_batch(batch).argmax(axis=1), dtype=np.int64)

    def scores_of_batch(self, batch: ArrayLike) -> NDArray[Any]:
        """Scores of many inputs, times one positive integer: shape `(N, n)` -> `(N, classes)`, exact.

        int64, or Python integers where they could be larger.
        """
        h = self.domain.require_batch(batch)
        for block in self.blocks:
            h = block.outputs(h)
        return self._scores_of_sums(self.output.popcounts(h))

    def classes_of_sums(self, sums: IntArray) -> IntArray:
        """Argmax classes of output sums ``weights . h`` of shape `(N, classes)`, exact."""
        return np.asarray(self._scores_of_sums(sums).argmax(axis=1), dtype=np.int64)

    def _scores_of_sums(self, sums: IntArray) -> NDArray[Any]:
        a, b = self.output.integer_form()
        reach = max(int(np.abs(sums).max(initial=0)), 1)
        if max(abs(v) for v in a) * reach + max(abs(v) for v in b) < INT_LIMIT:
            return np.asarray(sums * np.array(a, dtype=np.int64) + np.array(b, dtype=np.int64))
        return np.asarray(sums.astype(object) * np.array(a, dtype=object) + np.array(b, dtype=object))

    def require_class(self, label: int) -> int:
        """`label` if it is a class; QueryError otherwise."""
        number = integer(label, "class")
        if not 0 <= number < self.n_classes:
            raise QueryError(f"class {number} does not exist, expected 0 to {self.n_classes - 1}.")
        return number

    def require_images(self, images: ArrayLike, labels: Sized | None) -> IntArray:
        """`images` as int64 of shape `(N, n)`, at least one, and as many labels where some are given.

        Raises:
            ModelError: An image does not lie in the domain.
            QueryError: No images, or a different number of labels.
        """
        points = self.domain.require_batch(images)
        if not len(points) or (labels is not None and len(labels) != len(points)):
            got = "no" if labels is None else len(labels)
            raise QueryError(f"{len(points)} images came with {got} labels, expected equally many, at least one.")
        return points

    def behind_coding(self, images: ArrayLike) -> tuple[BinaryNetwork, IntArray]:
        """The blocks that have cells as a network, and what these images are to it: what questions about cells ask.

        Without input coding both stay as they are. Blocks are numbered anew.

        Args:
            images: Inputs of the domain, shape `(N, n)`.
        """
        points = self.domain.require_batch(images)
        if not self.input_coding:
            return self, points
        domain = InputDomain.binary(self.blocks[0].n_outputs, self.domain.shape)
        rest = BinaryNetwork(domain, self.blocks[1:], self.output, self.provenance)
        return rest, self.blocks[0].outputs(points)

    def canonical_bytes(self) -> Iterable[bytes]:
        """The byte encoding that the identity hashes; see docs/identity.md."""
        yield b"bnnverify network 1\n"
        kind = b"binary" if self.domain.is_binary else b"integers"
        yield b"domain %b %d\n" % (kind, self.n_inputs)
        if not self.domain.is_binary:
            yield self.domain.lower.astype("<i8").tobytes()
            yield self.domain.upper.astype("<i8").tobytes()
        for block in self.blocks:
            if isinstance(block, ConvBlock):
                yield b"conv %d %d %d %d\n" % block.weights.shape
                yield b"input %d %d %d stride %d %d padding %d %d value %d pool %d %d\n" % (
                    *block.input_shape,
                    *block.stride,
                    *block.padding,
                    block.pad_value,
                    *block.pool,
                )
            else:
                yield b"dense %d %d\n" % block.weights.shape
            yield block.weights.tobytes()
            yield block.thresholds.astype("<i8").tobytes()
            if isinstance(block, ConvBlock):
                yield block.conjunction.astype(np.int8).tobytes()
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
        if self.input_coding:
            digest.update(b"input coding")
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


def _codes_inputs(blocks: tuple[HiddenBlock, ...]) -> bool:
    """True if the first block makes one sign of each input, of nothing else, and in order."""
    if not blocks or blocks[0].n_outputs != blocks[0].n_inputs:
        return False
    first = blocks[0]
    if isinstance(first, ConvBlock):
        shifts = first.kernel != (1, 1) or first.stride != (1, 1) or first.padding != (0, 0) or first.pool != (1, 1)
        if shifts:
            return False
    matrix = first.weights.reshape(len(first.weights), -1)
    return bool(np.array_equal(matrix != 0, np.eye(len(matrix), dtype=bool)))


def _conv_text(block: ConvBlock) -> list[str]:
    """`16c5s2p1` and, where it pools, `mp2`."""

    def size(pair: tuple[int, int]) -> str:
        return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"

    text = f"{block.n_filters}c{size(block.kernel)}"
    if block.stride != (1, 1):
        text += f"s{size(block.stride)}"
    if block.padding != (0, 0):
        text += f"p{size(block.padding)}"
    return [text] if block.pool == (1, 1) else [text, f"mp{size(block.pool)}"]
