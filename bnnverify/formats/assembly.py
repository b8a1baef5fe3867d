"""Assembling a BinaryNetwork from the operations of a model file, one after the other, exactly.

A `Tensor` stands for what a file computes at one place: which entries of which source it holds in which order
(`index`), and what each unit of the source makes of its integer sum (`units`). Transposing and reshaping move the
index, constants and batch norms go into the units, a sign makes steps of them. The next linear layer then turns steps
of two values, ``m + d * h`` with h in -1/+1, into a block: m goes into its constants, d into its scale, so that
activations in {0, 1} or of any two values are folded as exactly as -1/+1.

Tensors are immutable, operations are functions from a tensor to the next. What no block can express raises
UnsupportedError with the operation's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import SignArray
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.domain import IntArray
from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.firing import Firing, Layer, Sums, fire
from bnnverify.formats.units import Affine, Column, Steps, clipped, column, constant_column, signs_of
from bnnverify.network import BinaryNetwork, DenseBlock, OutputBlock, Provenance


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
    n = math.prod(shape)
    drawn = tuple(size for size in shape if size != 1) or (1,)
    source = Source(name, coding, np.arange(n, dtype=np.int64), drawn, (), (), None, None, zero_sign)
    affine = Affine.create(constant_column(coding.scale, n), constant_column(coding.offset, n))
    return Tensor(source, affine, None, None, np.arange(n, dtype=np.int64).reshape(tuple(shape)))


def moved(tensor: Tensor, index: IntArray) -> Tensor:
    """The tensor with its entries at other places: transposed or reshaped."""
    return replace(tensor, index=index)


def per_unit(tensor: Tensor, values: Any, where: str) -> Column:
    """A constant, broadcast against the tensor, as one Fraction per unit.

    Raises:
        UnsupportedError: The constant differs within the positions of one unit, or makes the tensor larger.
    """
    array = np.asarray(values)
    if array.size == 1 and array.ndim <= tensor.index.ndim:
        return column(array, where)[[0] * tensor.affine.size]
    try:
        spread = np.broadcast_to(array, np.broadcast_shapes(array.shape, tensor.index.shape))
    except ValueError:
        raise ModelError(f"{where}: a constant of shape {array.shape} does not fit {tensor.index.shape}.") from None
    if spread.shape != tensor.index.shape:
        raise UnsupportedError(
            f"{where} makes {spread.shape} of {tensor.index.shape} by broadcasting, expected a constant per channel."
        )
    flat = np.empty(spread.size, dtype=array.dtype)
    flat[tensor.index.ravel()] = spread.ravel()
    rows = flat.reshape(tensor.affine.size, -1)
    if (rows != rows[:, :1]).any():
        raise UnsupportedError(
            f"{where} has a constant that differs between the positions of one channel, expected one per channel."
        )
    return column(rows[:, 0], where)


def require_plain(tensor: Tensor, where: str) -> None:
    """UnsupportedError if the tensor has a border, which only a convolution takes."""
    if tensor.border is not None:
        raise UnsupportedError(f"{where} follows a padding, expected a convolution there.")


def is_integral(tensor: Tensor) -> bool:
    """True if the values are integers whatever the sums are."""
    affine = tensor.affine
    whole = all(v.denominator == 1 for values in (affine.slope, affine.offset) for v in values)
    return whole and all(affine.root == 1) and not tensor.squashed


def plus(tensor: Tensor, values: Any, where: str) -> Tensor:
    """The tensor plus a constant."""
    _exact(tensor, where)
    summand = per_unit(tensor, values, where)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(lambda v: v + summand))
    return replace(tensor, affine=tensor.affine.plus(summand))


def times(tensor: Tensor, values: Any, where: str, *, inverse: bool = False) -> Tensor:
    """The tensor times a constant, or divided by it."""
    _exact(tensor, where)
    factor = per_unit(tensor, values, where)
    if inverse:
        if any(v == 0 for v in factor):
            raise ModelError(f"{where} divides by 0, expected another number.")
        factor = np.array([1 / v for v in factor], dtype=object)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(lambda v: v * factor))
    return replace(tensor, affine=tensor.affine.times(factor))


def normed(
    tensor: Tensor, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any, *, axis: int, where: str
) -> Tensor:
    """Batch norm over the channels, which lie along `axis`."""
    _exact(tensor, where)
    if not 0 <= axis < tensor.index.ndim:
        raise ModelError(
            f"{where} norms axis {axis} of a tensor of shape {tensor.index.shape}, expected one that is there."
        )
    shape = [1] * tensor.index.ndim
    shape[axis] = tensor.index.shape[axis]
    columns = []
    for what, values in (("scale", gamma), ("shift", beta), ("mean", mean), ("variance", variance)):
        array = np.asarray(values)
        if array.shape != (shape[axis],):
            raise ModelError(f"{where}: {what} has shape {array.shape}, expected ({shape[axis]},), one per channel.")
        columns.append(per_unit(tensor, array.reshape(shape), f"{where}: {what}"))
    g, b, mu, var = columns
    var = var + constant_column(epsilon, var.size)
    if tensor.steps is None:
        return replace(tensor, affine=tensor.affine.normed(gamma=g, beta=b, mean=mu, variance=var, where=where))
    plain = Affine.create(constant_column(1, g.size), constant_column(0, g.size))
    if any(v <= 0 for v in var):
        raise ModelError(f"{where}: a variance + epsilon is not above 0.")
    scale, shift, _ = plain.normed(gamma=g, beta=b, mean=mu, variance=var, where=where).as_scores()
    return replace(tensor, steps=tensor.steps.mapped(lambda v: v * scale + shift))


def sign(tensor: Tensor, where: str) -> Tensor:
    """The sign in its mathematical sense, of three values."""
    require_plain(tensor, where)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(signs_of))
    return replace(tensor, steps=Steps.create(-1, 0, 1, tensor.affine.size))


def compared(tensor: Tensor, values: Any, kind: str, where: str) -> Tensor:
    """1 where the tensor is `kind` (``>``, ``>=``, ``<`` or ``<=``) than a constant, 0 elsewhere."""
    require_plain(tensor, where)
    outcome = {">": (0, 0, 1), ">=": (0, 1, 1), "<": (1, 0, 0), "<=": (1, 1, 0)}[kind]
    bound = np.asarray(values, dtype=np.float64)
    below = tensor if not bound.any() else plus(tensor, -bound, where)
    if below.steps is None:
        return replace(below, steps=Steps.create(*outcome, tensor.affine.size))
    table = dict(zip((-1, 0, 1), map(Fraction, outcome), strict=True))

    def compare(values: Column) -> Column:
        return column([table[int(s)] for s in signs_of(values)])

    return replace(below, steps=below.steps.mapped(compare))


def chosen(tensor: Tensor, yes: Any, no: Any, where: str) -> Tensor:
    """`yes` where the tensor is not 0, `no` where it is; the tensor is the outcome of a comparison."""
    if tensor.steps is None:
        raise UnsupportedError(f"{where} chooses by numbers, expected the outcome of a comparison.")
    a, b = per_unit(tensor, yes, where), per_unit(tensor, no, where)
    return replace(tensor, steps=tensor.steps.mapped(lambda v: np.where(v != 0, a, b)))


def clip(tensor: Tensor, low: Fraction | None, high: Fraction | None, where: str) -> Tensor:
    """The tensor clipped.

    Before a sign this is understood where 0 lies strictly between the bounds: the sign stays what it was, and anything
    else than a sign is refused afterwards.
    """
    require_plain(tensor, where)
    if tensor.steps is not None:
        return replace(tensor, steps=tensor.steps.mapped(lambda v: clipped(v, low, high)))
    if (low is not None and low >= 0) or (high is not None and high <= 0):
        raise UnsupportedError(f"{where} clips sums to {low}..{high}, expected bounds around 0 before a sign.")
    return replace(tensor, squashed=True)


def pooled(
    tensor: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    where: str,
    *,
    ceil: bool = False,
) -> Tensor:
    """Max-pooling of images `(1, channels, height, width)`."""
    require_plain(tensor, where)
    if tensor.index.ndim != 4 or tensor.index.shape[0] != 1:
        raise UnsupportedError(
            f"{where} pools a tensor of shape {tensor.index.shape}, expected (1, channels, height, width)."
        )
    if tensor.source.weights is None:
        raise UnsupportedError(f"{where} pools the input, expected max-pooling after a convolution.")
    height, width = tensor.index.shape[2:]
    exact = all(size % step == 0 for size, step in zip((height, width), stride, strict=True))
    if window == stride and pads == (0, 0, 0, 0) and tensor.pool is None and (exact or not ceil):
        if window == (1, 1):
            return tensor
        return _pooled_by_windows(_arranged(tensor, where), window, where)
    if ceil and not exact:
        raise UnsupportedError(f"{where} rounds the number of windows up (ceil_mode), expected windows that fit.")
    return _pooled_by_block(tensor, window, stride, pads, where)


def _pooled_by_windows(tensor: Tensor, window: tuple[int, int], where: str) -> Tensor:
    """Pooling as part of the convolution's own block."""
    units, height, width = tensor.source.output_shape
    if height < window[0] or width < window[1]:
        raise ModelError(
            f"{where} has windows of {window[0]}x{window[1]} over {height}x{width}, expected ones that fit."
        )
    pool = Pool(window, np.array([_direction(tensor, j, where) >= 0 for j in range(units)]))
    shape = (1, units, height // window[0], width // window[1])
    return replace(tensor, pool=pool, index=np.arange(math.prod(shape), dtype=np.int64).reshape(shape))


def _direction(tensor: Tensor, j: int, where: str) -> int:
    """Whether the value of unit j rises or falls with its sum; 0 if it is constant."""
    slope = tensor.affine.slope[j]
    rising = int(slope > 0) - int(slope < 0)
    if tensor.steps is None:
        return rising
    kind = tensor.steps.direction(j)
    if kind == 2:
        raise UnsupportedError(f"{where} pools values that neither rise nor fall with the sum, expected signs.")
    return rising * kind


def _pooled_by_block(
    tensor: Tensor, window: tuple[int, int], stride: tuple[int, int], pads: tuple[int, int, int, int], where: str
) -> Tensor:
    """Overlapping or padded pooling of signs: a convolution of its own, whose units are OR or AND."""
    if tensor.steps is None:
        raise UnsupportedError(
            f"{where} pools sums with windows that overlap or are padded, expected pooling after the sign, or windows "
            "side by side."
        )
    image = _image_shape(tensor, where)
    signs = _resolved(tensor, image, where)
    low, high = signs.mean - signs.step, signs.mean + signs.step
    rows = low.reshape(image[0], -1), high.reshape(image[0], -1)
    for values in rows:
        if any((row != row[0]).any() for row in values):
            raise UnsupportedError(f"{where} pools values that differ within a channel, expected signs.")
    up = np.array([b >= a for a, b in zip(rows[0][:, 0], rows[1][:, 0], strict=True)])
    padded = any(pads)
    if padded and up.any() and not up.all():
        raise UnsupportedError(f"{where} pads while some channels are negated, expected pooling without padding.")
    k = window[0] * window[1]
    kernels = np.zeros((image[0], image[0], *window), dtype=np.int8)
    kernels[np.arange(image[0]), np.arange(image[0])] = 1
    kernels, padding = _symmetric(kernels, pads)
    geometry = Geometry(image, stride, padding, (-1 if up.all() else 1) if padded else 0)
    source = replace(signs.source, name=where, weights=kernels, geometry=geometry)
    bound = column([2 - k if rises else k for rises in up])
    _check_places(source, where)
    affine = Affine.create(constant_column(1, image[0]), -bound)
    first, last = rows[0][:, 0], rows[1][:, 0]
    shape = (1, *source.output_shape)
    return Tensor(source, affine, Steps(first, last, last), None, np.arange(math.prod(shape)).reshape(shape))


def bordered(tensor: Tensor, pads: tuple[int, int, int, int], value: Any, where: str) -> Tensor:
    """Images `(1, channels, height, width)` with rows and columns of a constant around them."""
    require_plain(tensor, where)
    if not any(pads):
        return tensor
    return replace(tensor, border=(pads, column([value], where)[0]))


def dense(tensor: Tensor, weights: NDArray[Any], bias: Any, where: str) -> Tensor:
    """A dense layer: `weights` of shape (neurons, inputs), over the tensor's entries in their order.

    Raises:
        UnsupportedError: The weights of a row are not one magnitude times signs.
    """
    require_plain(tensor, where)
    if weights.ndim != 2 or weights.shape[1] != tensor.index.size:
        raise ModelError(
            f"{where} has weights of shape {weights.shape} for {tensor.index.size} inputs, expected (neurons, inputs)."
        )
    signs = _resolved(tensor, None, where)
    spread = np.zeros_like(weights)
    spread[:, tensor.index.ravel()] = weights
    units, scale = _split(spread, where)
    slope, offset = _through(units, scale, signs.mean, signs.step, where)
    source = replace(signs.source, name=where, weights=units * _directions(signs.step)[None, :], geometry=None)
    affine = Affine.create(slope, offset + _bias(bias, units.shape[0], where))
    return Tensor(source, affine, None, None, np.arange(units.shape[0], dtype=np.int64).reshape(1, -1))


def convolved(
    tensor: Tensor,
    kernels: NDArray[Any],
    bias: Any,
    where: str,
    *,
    stride: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """A convolution of images `(1, channels, height, width)`.

    Args:
        tensor: The images.
        kernels: Shape `(filters, channels / groups, rows, columns)`.
        bias: One number per filter, or None.
        where: What messages call it.
        stride: Steps down and across.
        pads: Rows and columns of zeros: top, left, bottom, right. Uneven padding becomes even by absent cells.
        dilation: Steps between the cells of a filter.
        groups: Groups of channels that only see themselves.

    Raises:
        UnsupportedError: Weights of a filter that are not one magnitude times signs, or padding that is neither nothing
            nor one of the two values of the inputs.
    """
    padding_value: Fraction = Fraction(0)
    if tensor.border is not None:
        around, padding_value = tensor.border
        if any(pads) and padding_value != 0:
            raise UnsupportedError(f"{where} pads with 0 what was padded with {padding_value}, expected one padding.")
        pads = tuple(a + b for a, b in zip(pads, around, strict=True))  # type: ignore[assignment]
        tensor = replace(tensor, border=None)
    image = _image_shape(tensor, where)
    full = _spread_kernels(kernels, image[0], dilation, groups, where)
    signs = _resolved(tensor, image, where)
    mean, step = (_per_channel(values, image[0], where) for values in (signs.mean, signs.step))
    units, scale = _split(full, where)
    pad_value = _pad_value(mean, step, padding_value, where) if any(pads) else 0
    cells = units.shape[2] * units.shape[3]
    flat = units.reshape(units.shape[0], -1)
    slope, offset = _through(flat, scale, np.repeat(mean, cells), np.repeat(step, cells), where)
    turned = (units * _directions(step)[None, :, None, None]).astype(np.int8)
    even, padding = _symmetric(turned, pads)
    source = replace(signs.source, name=where, weights=even, geometry=Geometry(image, stride, padding, pad_value))
    _check_places(source, where)
    affine = Affine.create(slope, offset + _bias(bias, units.shape[0], where))
    shape = (1, *source.output_shape)
    return Tensor(source, affine, None, None, np.arange(math.prod(shape), dtype=np.int64).reshape(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A finished network and how it relates to the file.

    Attributes:
        network: The exact network.
        order: Entry of the file's flat input that each input of the network is.
        layers: What was understood, block by block; the output last.
        rounded: Classes whose scale or bias had to be rounded to float64.
    """

    network: BinaryNetwork
    order: IntArray
    layers: tuple[Layer, ...]
    rounded: int


def finished(tensor: Tensor, provenance: dict[str, Any], where: str = "the output") -> Assembled:
    """The network whose scores the tensor holds.

    Raises:
        UnsupportedError: The tensor holds signs, images or the input instead of the sums of a last layer.
    """
    source = tensor.source
    _exact(tensor, where)
    if source.weights is None or tensor.steps is not None or tensor.pool is not None:
        raise UnsupportedError(
            f"{where} is not the output of a linear layer (with constants), expected scores of classes."
        )
    matrix = source.weights
    if source.geometry is not None:
        if source.output_shape[1:] != (1, 1):
            raise UnsupportedError(
                f"{where} holds images of shape {source.output_shape}, expected one score per class."
            )
        shape = source.geometry
        block = ConvBlock.create(
            matrix, [0] * len(matrix), input_shape=shape.input_shape, stride=shape.stride, padding=shape.padding,
            pad_value=shape.pad_value, mask=matrix != 0,
        )  # fmt: skip
        (rows,) = block.unrolled()
        constant = block.pad_value * block.padded_sums().reshape(-1)
        matrix = rows.weights
        slope, offset, rounded = tensor.affine.as_scores()
        offset = offset + slope * column(constant.tolist())
    else:
        slope, offset, rounded = tensor.affine.as_scores()
    order = tensor.index.ravel()
    weights, scale, bias = matrix[order], slope[order], offset[order]
    output = OutputBlock.create(weights, scale=list(scale), bias=list(bias), mask=weights != 0)
    domain = source.coding.domain(source.order.size, source.shape)
    network = BinaryNetwork(domain, source.blocks, output, Provenance(provenance))
    text = f"scores of {output.n_classes} classes from {output.n_inputs} inputs"
    layers = (*source.layers, Layer("output", source.name, text, _magnitudes(scale), 0, 0, 0, None))
    return Assembled(network, source.order, layers, rounded)


def _magnitudes(scale: Column) -> str:
    low, high = min(abs(v) for v in scale), max(abs(v) for v in scale)
    return f"{float(low):.6g}" if low == high else f"{float(low):.6g}..{float(high):.6g}"


def _exact(tensor: Tensor, where: str) -> None:
    require_plain(tensor, where)
    if tensor.squashed and tensor.steps is None:
        raise UnsupportedError(f"{where} follows a clip of sums, expected a sign there.")


def _image_shape(tensor: Tensor, where: str) -> tuple[int, int, int]:
    shape = tensor.index.shape
    if len(shape) != 4 or shape[0] != 1:
        raise UnsupportedError(f"{where} takes a tensor of shape {shape}, expected (1, channels, height, width).")
    return int(shape[1]), int(shape[2]), int(shape[3])


def _arranged(tensor: Tensor, where: str) -> Tensor:
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
    return Tensor(moved_source, affine, steps, pool, index)


@dataclass(frozen=True, slots=True, eq=False)
class _Signs:
    """A source that ended in signs h (or the input x): its entries have the values ``mean + step * h``."""

    source: Source  # without the layer that became a block
    mean: Column
    step: Column


def _resolved(tensor: Tensor, image: tuple[int, int, int] | None, where: str) -> _Signs:
    """The blocks up to here; with `image`, in the tensor's own order."""
    if image is not None:
        tensor = _arranged(tensor, where)
        if tensor.source.weights is None:
            tensor = replace(tensor, source=replace(tensor.source, shape=image))
    source = tensor.source
    if tensor.steps is None:
        _exact(tensor, where)
        if source.weights is not None:
            raise UnsupportedError(
                f"{where} takes the sums of {source.name} without a sign in between, expected signs: this is no "
                "binarized network."
            )
        return _Signs(source, tensor.affine.offset, tensor.affine.slope)
    firing = fire(tensor.affine, tensor.steps, source.sums(), zero_sign=source.zero_sign, where=source.name)
    places = tensor.image[1] * tensor.image[2]
    mean, step = np.repeat(firing.mean, places), np.repeat(firing.step, places)
    if source.weights is None:
        return _input_signs(source, firing, mean, step, image, where)
    block = _block(tensor, firing)
    layer = _described(block, tensor, firing)
    rest = replace(source, blocks=(*source.blocks, block), layers=(*source.layers, layer), weights=None, geometry=None)
    return _Signs(rest, mean, step)


def _block(tensor: Tensor, firing: Firing) -> HiddenBlock:
    source = tensor.source
    assert source.weights is not None
    falling = ~firing.rising
    turned = np.where(falling.reshape(-1, *[1] * (source.weights.ndim - 1)), -source.weights, source.weights)
    limits = [t if up else -t for t, up in zip(firing.thresholds, firing.rising, strict=True)]
    if source.geometry is None:
        return DenseBlock.create(turned, limits, mask=turned != 0, negated=falling, name=source.name)
    shape, pool = source.geometry, tensor.pool
    return ConvBlock.create(
        turned,
        limits,
        input_shape=shape.input_shape,
        stride=shape.stride,
        padding=shape.padding,
        pad_value=shape.pad_value,
        pool=(1, 1) if pool is None else pool.window,
        mask=turned != 0,
        negated=falling,
        conjunction=None if pool is None else firing.rising != pool.greatest,
        name=source.name,
    )


def _described(block: HiddenBlock, tensor: Tensor, firing: Firing) -> Layer:
    if isinstance(block, ConvBlock):
        (c, h, w), (f, rows, columns) = block.input_shape, block.output_shape
        text = f"{f} filters {block.kernel[0]}x{block.kernel[1]} over {c}x{h}x{w}"
        if block.stride != (1, 1):
            text += f", stride {block.stride[0]}x{block.stride[1]}"
        if block.padding != (0, 0):
            text += f", padding {block.padding[0]}x{block.padding[1]} of {block.pad_value or 'nothing'}"
        if block.pool != (1, 1):
            text += f", max over {block.pool[0]}x{block.pool[1]}"
        text += f" -> {f}x{rows}x{columns}"
    else:
        text = f"{block.n_outputs} neurons of {block.n_inputs} inputs"
    kind = "conv" if isinstance(block, ConvBlock) else "dense"
    magnitudes = _magnitudes(tensor.affine.slope)
    return Layer(
        kind,
        tensor.source.name,
        text,
        magnitudes,
        int(block.negated.sum()),
        firing.constant,
        firing.ties,
        firing.closest,
    )


def _input_signs(
    source: Source, firing: Firing, mean: Column, step: Column, image: tuple[int, int, int] | None, where: str
) -> _Signs:
    """The input after a sign of its own: the input itself if it is binary, otherwise one threshold per entry."""
    n = source.order.size
    if source.coding.is_binary:  # h = +1 iff x >= T (or <= T) with x = -1/+1
        always = [_outcomes(t, up) for t, up in zip(firing.thresholds, firing.rising, strict=True)]
        low, high = (mean + step * column([pair[k] for pair in always]) for k in range(2))
        return _Signs(source, (low + high) / 2, (high - low) / 2)
    falling = ~firing.rising
    limits = np.array([t if up else -t for t, up in zip(firing.thresholds, firing.rising, strict=True)], dtype=object)
    units = np.where(falling, -1, 1).astype(np.int8)
    if len(set(zip(limits, units.tolist(), strict=True))) == 1:
        block: HiddenBlock = ConvBlock.create(
            units[:1].reshape(1, 1, 1, 1), limits[:1], input_shape=(1, 1, n), negated=falling[:1], name=where
        )
    elif image is not None and _uniform(limits, image[0]) and _uniform(units, image[0]):
        c, first = image[0], np.arange(image[0]) * (n // image[0])
        kernels = np.diag(units[first]).reshape(c, c, 1, 1)
        block = ConvBlock.create(
            kernels, limits[first], input_shape=image, mask=kernels != 0, negated=falling[first], name=where
        )
    elif n <= 2**13:
        block = DenseBlock.create(np.diag(units), limits, mask=np.eye(n, dtype=bool), negated=falling, name=where)
    else:
        raise UnsupportedError(
            f"{where}: {n} inputs have different thresholds each, expected one for all or per channel."
        )
    layer = Layer(
        "input", source.name, f"a sign of each of {n} inputs", "1", int(falling.sum()), firing.constant, firing.ties,
        firing.closest,
    )  # fmt: skip
    return _Signs(replace(source, blocks=(block,), layers=(layer,)), mean, step)


def _uniform(values: NDArray[Any], groups: int) -> bool:
    rows = values.reshape(groups, -1)
    return bool((rows == rows[:, :1]).all())


def _outcomes(threshold: int, rising: bool) -> tuple[int, int]:
    """Signs for x = -1 and x = +1."""
    low, high = ((x >= threshold) if rising else (x <= threshold) for x in (-1, 1))
    return (1 if low else -1), (1 if high else -1)


def _split(weights: NDArray[Any], where: str) -> tuple[SignArray, Column]:
    """Signs (0 where absent) and the magnitude of each row."""
    rows = weights.reshape(weights.shape[0], -1)
    if not np.isfinite(rows).all():
        raise ModelError(f"{where} has weights that are not finite, expected numbers. Export the model again.")
    sizes = np.abs(rows)
    most = sizes.max(axis=1)
    bad = np.argwhere((sizes != 0) & (sizes != most[:, None]))
    if bad.size:
        j, i = (int(v) for v in bad[0])
        raise UnsupportedError(
            f"{where} has weights of different magnitude in row {j}: {rows[j, i]:.6g} and {most[j]:.6g}, expected one "
            "magnitude times -1/+1 (0 where absent). Export binarized weights, not the latent ones."
        )
    scale = column([v if v else 1 for v in most.tolist()])
    return np.sign(weights).astype(np.int8), scale


def _directions(step: Column) -> SignArray:
    return np.array([(v > 0) - (v < 0) for v in step], dtype=np.int8)


def _through(units: SignArray, scale: Column, mean: Column, step: Column, where: str) -> tuple[Column, Column]:
    """Slope and offset of each row: ``scale * sum(w * (mean + step * h))`` in terms of the sum of signs."""
    sizes = {abs(v) for v in step if v != 0}
    if len(sizes) > 1:
        low, high = min(sizes), max(sizes)
        raise UnsupportedError(
            f"{where} takes inputs of different magnitude ({float(low):.6g} and {float(high):.6g}), expected one. "
            "Scales per input channel do not fit into binary weights."
        )
    size = sizes.pop() if sizes else Fraction(1)
    constant = constant_column(0, units.shape[0])
    numbers = {value: k for k, value in enumerate(dict.fromkeys(mean.tolist()))}
    kinds = np.array([numbers[value] for value in mean.tolist()])
    for value, k in numbers.items():
        if value != 0:
            constant = constant + value * column(units[:, kinds == k].sum(axis=1, dtype=np.int64).tolist())
    return scale * size, scale * constant


def _bias(bias: Any, units: int, where: str) -> Column:
    if bias is None:
        return constant_column(0, units)
    array = np.asarray(bias)
    if array.size == 1:
        return constant_column(array.ravel()[0], units)
    if array.size != units:
        raise ModelError(f"{where} has a bias of shape {array.shape}, expected {units} numbers.")
    return column(array, f"{where}: the bias")


def _per_channel(values: Column, channels: int, where: str) -> Column:
    rows = values.reshape(channels, -1)
    if any((row != row[0]).any() for row in rows):
        raise UnsupportedError(f"{where} takes images whose values differ in kind within a channel, expected one kind.")
    return rows[:, 0]


def _pad_value(mean: Column, step: Column, value: Fraction, where: str) -> int:
    """The sign (or nothing) that stands for the padding."""
    for pad in (0, -1, 1):
        if all(m + d * pad == value for m, d in zip(mean, step, strict=True)):
            return pad
    m, d = mean[0], step[0]
    raise UnsupportedError(
        f"{where} pads with {value}, but its inputs are {m} + {d} * x: no -1, 0 or +1 gives that. Expected padding "
        "with one of the values of the inputs, or nothing where they are -1/+1."
    )


def _spread_kernels(
    kernels: NDArray[Any], channels: int, dilation: tuple[int, int], groups: int, where: str
) -> NDArray[Any]:
    """Kernels over all channels, with zeros between the cells where they are dilated."""
    if kernels.ndim != 4:
        raise UnsupportedError(
            f"{where} has kernels of shape {kernels.shape}, expected (filters, channels, rows, columns)."
        )
    filters, inner, rows, columns = kernels.shape
    if inner * groups != channels or filters % groups:
        raise ModelError(
            f"{where} has kernels of shape {kernels.shape} in {groups} group(s) over {channels} channels, expected "
            "these to fit."
        )
    down, across = dilation
    full = np.zeros((filters, channels, (rows - 1) * down + 1, (columns - 1) * across + 1), dtype=kernels.dtype)
    for f in range(filters):
        first = f // (filters // groups) * inner
        full[f, first : first + inner, ::down, ::across] = kernels[f]
    return full


def _symmetric(kernels: SignArray, pads: tuple[int, int, int, int]) -> tuple[SignArray, tuple[int, int]]:
    """Kernels with absent rows and columns, such that even padding has the effect of `pads`."""
    top, left, bottom, right = pads
    high, wide = max(top, bottom), max(left, right)
    grown = np.pad(kernels, ((0, 0), (0, 0), (high - top, high - bottom), (wide - left, wide - right)))
    return grown, (high, wide)


def _check_places(source: Source, where: str) -> None:
    assert source.weights is not None and source.geometry is not None
    _, height, width = source.geometry.input_shape
    if min(source.output_shape[1:]) < 1:
        rows, columns = source.weights.shape[2:]
        raise ModelError(f"{where} has filters of {rows}x{columns} over {height}x{width}, expected filters that fit.")
