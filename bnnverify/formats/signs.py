"""Steps of two values as the signs of a block, exactly.

A unit with two values is ``mean + step * h`` of a sign h: its firing rule becomes a threshold of a block, and mean and
step go into the next layer. So activations in {0, 1}, or of any two values, are folded as exactly as -1/+1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.errors import UnsupportedError
from bnnverify.formats.elementwise import require_exact
from bnnverify.formats.firing import Firing, Layer, fire
from bnnverify.formats.tensors import Source, Tensor, arranged
from bnnverify.formats.units import Column, column, constant_column
from bnnverify.network import DenseBlock


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """A source that ended in signs h (or the input x): its entries are ``(mean + step * h) / sqrt(root) + shift``.

    Only the input, after a batch norm, can have a root other than 1, and a shift other than 0.
    """

    source: Source  # without the layer that became a block
    mean: Column
    step: Column
    root: Fraction
    shift: Column

    @classmethod
    def plain(cls, source: Source, mean: Column, step: Column) -> Signs:
        """Entries ``mean + step * h``."""
        return cls(source, mean, step, Fraction(1), constant_column(0, mean.size))


def resolved(tensor: Tensor, image: tuple[int, int, int] | None, where: str) -> Signs:
    """The blocks up to here; with `image`, in the tensor's own order."""
    if image is not None:
        tensor = arranged(tensor, where)
        if tensor.source.weights is None:
            tensor = replace(tensor, source=replace(tensor.source, shape=image))
    source = tensor.source
    if tensor.steps is None:
        require_exact(tensor, where)
        if source.weights is not None:
            raise UnsupportedError(
                f"{where} takes the sums of {source.name} without a sign in between, expected signs: this is no "
                "binarized network."
            )
        affine = tensor.affine.over_one_root()
        if affine is None:
            raise UnsupportedError(
                f"{where} takes the input after a batch norm that divides each channel by another irrational root, "
                "expected one magnitude for all. Is a sign missing between the two? Put it there (for a state dict: "
                "--layer NAME:sign=1)."
            )
        return Signs(source, affine.offset, affine.slope, affine.root[0], affine.shift)
    firing = fire(tensor.affine, tensor.steps, source.sums(), zero_sign=source.zero_sign, where=source.name)
    places = tensor.image[1] * tensor.image[2]
    mean, step = np.repeat(firing.mean, places), np.repeat(firing.step, places)
    if source.weights is None:
        return _input_signs(source, firing, mean, step, image, where)
    block = _block(tensor, firing)
    layer = _described(block, tensor, firing)
    rest = replace(source, blocks=(*source.blocks, block), layers=(*source.layers, layer), weights=None, geometry=None)
    return Signs.plain(rest, mean, step)


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
    return Layer(
        kind,
        tensor.source.name,
        text,
        magnitudes(tensor.affine.slope),
        int(block.negated.sum()),
        firing.constant,
        firing.ties,
        firing.closest,
        firing.crossings,
        firing.third_value,
    )


def magnitudes(scale: Column) -> str:
    """The magnitude of weights as text: one number, or the least and the greatest."""
    low, high = min(abs(v) for v in scale), max(abs(v) for v in scale)
    return f"{float(low):.6g}" if low == high else f"{float(low):.6g}..{float(high):.6g}"


def _input_signs(
    source: Source, firing: Firing, mean: Column, step: Column, image: tuple[int, int, int] | None, where: str
) -> Signs:
    """The input after a sign of its own: the input itself if it is binary, otherwise one threshold per entry."""
    n = source.order.size
    if source.coding.is_binary:  # h = +1 iff x >= T (or <= T) with x = -1/+1
        always = [_outcomes(t, up) for t, up in zip(firing.thresholds, firing.rising, strict=True)]
        low, high = (mean + step * column([pair[k] for pair in always]) for k in range(2))
        if firing.third_value and firing.ties:
            source = replace(source, zero_in_input=True)
        return Signs.plain(source, (low + high) / 2, (high - low) / 2)
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
        "input",
        source.name,
        f"a sign of each of {n} inputs",
        "1",
        int(falling.sum()),
        firing.constant,
        firing.ties,
        firing.closest,
        tuple(np.array(firing.crossings)[:: n // len(block.thresholds)].tolist()),
        firing.third_value,
    )
    return Signs.plain(replace(source, blocks=(block,), layers=(layer,)), mean, step)


def _uniform(values: NDArray[Any], groups: int) -> bool:
    rows = values.reshape(groups, -1)
    return bool((rows == rows[:, :1]).all())


def _outcomes(threshold: int, rising: bool) -> tuple[int, int]:
    """Signs for x = -1 and x = +1."""
    low, high = ((x >= threshold) if rising else (x <= threshold) for x in (-1, 1))
    return (1 if low else -1), (1 if high else -1)
