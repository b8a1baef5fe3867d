"""The last layer of a model file as scores, and with it the whole network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.errors import UnsupportedError
from bnnverify.formats.elementwise import require_exact
from bnnverify.formats.firing import Layer
from bnnverify.formats.signs import magnitudes
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import column
from bnnverify.network import BinaryNetwork, OutputBlock, Provenance


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
    require_exact(tensor, where)
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
    layers = (*source.layers, Layer("output", source.name, text, magnitudes(scale), 0, 0, 0, None))
    return Assembled(network, source.order, layers, rounded)
