"""Tensor: what a model file computes at one place, in terms of the integer sums of its last linear layer.

A tensor says which entries of which source it holds in which order (`index`), and what each unit of the source makes of
its integer sum (`affine`, then `steps`). Transposing and reshaping move the index; constants, batch norms and signs go
into the units (`elementwise`); pooling is remembered (`pooling`). The next linear layer (`layers`) turns all of it into
a block (`signs`), and `assembly` the last one into scores.

Tensors are immutable, operations are functions from a tensor to the next. What no block can express raises
UnsupportedError with the operation's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import SignArray
from bnnverify.convolution import HiddenBlock
from bnnverify.domain import IntArray
from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.firing import Layer, Sums
from bnnverify.formats.units import Affine, Steps, constant_column

MOST_ENTRIES, MOST_INPUTS = 2**27, 2**23  # of a tensor, and of the input


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """What a convolution is besides its weights; as in `ConvBlock`."""

    input_shape: tuple[int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    pad_value: int


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A linear layer that no sign followed yet, or the input, with all blocks before it.

    Attributes:
        name: What messages call it.
        coding: How inputs are fed to the model.
        order: Entry of the file's flat input that each input of the network is.
        shape: Shape of the network's input, for drawing.
        blocks: Complete blocks before this layer.
        layers: What was understood of them.
        weights: Signs of this layer, 0 where absent: a matrix or kernels; None for the input.
        geometry: None unless it is a convolution.
        zero_sign: What sign(0) means to a model whose files leave it open; None to refuse.
        zero_in_input: True if that was needed for a sign of binary inputs, which is no layer.
    """

    name: str
    coding: InputCoding
    order: IntArray
    shape: tuple[int, ...]
    blocks: tuple[HiddenBlock, ...]
    layers: tuple[Layer, ...]
    weights: SignArray | None
    geometry: Geometry | None
    zero_sign: int | None
    zero_in_input: bool = False

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Units, and rows and columns of their positions, before pooling."""
        if self.weights is None:
            return int(self.order.size), 1, 1
        if self.geometry is None:
            return int(self.weights.shape[0]), 1, 1
        shape = self.geometry
        sizes = (
            (size + 2 * pad - kernel) // step + 1
            for size, pad, kernel, step in zip(
                shape.input_shape[1:], shape.padding, self.weights.shape[2:], shape.stride, strict=True
            )
        )
        return (int(self.weights.shape[0]), *(int(size) for size in sizes))  # type: ignore[return-value]

    @property
    def takes_signs(self) -> bool:
        """True if what the layer sums are signs."""
        return bool(self.blocks) or self.coding.is_binary

    def sums(self) -> Sums:
        """What is known of the integer sums of each unit."""
        if self.weights is None:
            return Sums(self.coding.reach, np.ones(self.order.size, dtype=np.int64), None, self.coding.is_binary)
        cells = np.count_nonzero(self.weights.reshape(self.weights.shape[0], -1), axis=1).astype(np.int64)
        shape = self.geometry
        full = shape is None or shape.padding == (0, 0) or shape.pad_value != 0
        reach = 1 if self.takes_signs else self.coding.reach
        return Sums(max(reach, 1), cells, cells % 2 if self.takes_signs and full else None, False)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Max-pooling of a source: its windows, and for each unit whether the greatest or the least sum of one counts."""

    window: tuple[int, int]
    greatest: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """What the file computes at one place; see the module.

    Attributes:
        source: The last linear layer, or the input.
        affine: What each unit makes of its sum.
        steps: Values below, at and above zero of `affine`; None before a sign.
        pool: Max-pooling, wherever it stood in the chain.
        index: Flat entry of the (pooled) source at each place of the tensor.
        border: Rows and columns of a constant that surround the image (top, left, bottom, right), and the constant.
        squashed: True if only the signs of the values are still right: they went through a clip around 0.
    """

    source: Source
    affine: Affine
    steps: Steps | None
    pool: Pool | None
    index: IntArray
    border: tuple[tuple[int, int, int, int], Fraction] | None = None
    squashed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as the file sees it."""
        if self.border is None:
            return tuple(self.index.shape)
        (top, left, bottom, right), _ = self.border
        *rest, height, width = self.index.shape
        return (*rest, height + top + bottom, width + left + right)

    @property
    def image(self) -> tuple[int, int, int]:
        """Units, rows and columns of the source as the tensor holds it: after pooling."""
        units, height, width = self.source.output_shape
        down, across = (1, 1) if self.pool is None else self.pool.window
        return units, height // down, width // across


def require_size(shape: Iterable[int], where: str) -> None:
    """ModelError if a tensor of this shape would have no entries, or more than memory should hold."""
    sizes = [int(v) for v in shape]
    entries = math.prod(sizes)
    if not 1 <= entries <= MOST_ENTRIES:
        raise ModelError(f"{where}: the shape is {tuple(sizes)}, expected 1 to {MOST_ENTRIES} entries.")


def start(
    shape: Sequence[int], coding: InputCoding, *, name: str = "the input", zero_sign: int | None = None
) -> Tensor:
    """The input of a model.

    Args:
        shape: As the file has it, with a batch size of 1 where it has a batch.
        coding: How the integers of the exact network are fed to the model.
        name: What messages call it.
        zero_sign: What a plain sign makes of 0 where ties can occur: +1, -1, or None to refuse such a model.
    """
    require_size(shape, name)
    n = math.prod(shape)
    if n > MOST_INPUTS:
        raise ModelError(f"{name} has {n} entries, expected at most {MOST_INPUTS} inputs.")
    drawn = tuple(size for size in shape if size != 1) or (1,)
    source = Source(name, coding, np.arange(n, dtype=np.int64), drawn, (), (), None, None, zero_sign)
    affine = Affine.create(constant_column(coding.scale, n), constant_column(coding.offset, n))
    return Tensor(source, affine, None, None, np.arange(n, dtype=np.int64).reshape(tuple(shape)))


def moved(tensor: Tensor, index: IntArray) -> Tensor:
    """The tensor with its entries at other places: transposed or reshaped."""
    return replace(tensor, index=index)


def image_shape(tensor: Tensor, where: str) -> tuple[int, int, int]:
    """Channels, rows and columns of a tensor that is one image."""
    shape = tensor.index.shape
    if len(shape) != 4 or shape[0] != 1:
        raise UnsupportedError(f"{where} takes a tensor of shape {shape}, expected (1, channels, height, width).")
    return int(shape[1]), int(shape[2]), int(shape[3])


def arranged(tensor: Tensor, where: str) -> Tensor:
    """The tensor with its entries in the order of the source; units are permuted where that does it."""
    flat = tensor.index.ravel()
    if (flat == np.arange(flat.size)).all():
        return tensor
    source, (units, height, width) = tensor.source, tensor.image
    places = height * width
    rows = flat.reshape(units, places)
    lead = rows[:, 0] // places
    if (rows != lead[:, None] * places + np.arange(places)).any():
        raise UnsupportedError(
            f"{where} takes images whose rows and columns are not those of the layer before ({source.name}), expected "
            "only channels to be moved."
        )
    index = np.arange(flat.size, dtype=np.int64).reshape(tensor.index.shape)
    pool = tensor.pool and Pool(tensor.pool.window, tensor.pool.greatest[lead])
    steps = tensor.steps and Steps(*(getattr(tensor.steps, name)[lead] for name in ("low", "zero", "high")))
    affine = Affine(*(getattr(tensor.affine, name)[lead] for name in ("slope", "offset", "root", "shift")))
    if source.weights is None:
        moved_source = replace(source, order=source.order[lead])
    else:
        moved_source = replace(source, weights=source.weights[lead])
    return replace(tensor, source=moved_source, affine=affine, steps=steps, pool=pool, index=index)


def check_places(source: Source, where: str) -> None:
    """ModelError if the filters are larger than what they slide over."""
    assert source.weights is not None and source.geometry is not None
    _, height, width = source.geometry.input_shape
    if min(source.output_shape[1:]) < 1:
        rows, columns = source.weights.shape[2:]
        raise ModelError(f"{where} has filters of {rows}x{columns} over {height}x{width}, expected filters that fit.")
    require_size(source.output_shape, f"the output of {where}")
