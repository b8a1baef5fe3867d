"""The last layer of a model file as scores, and with it the whole network."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from bnnverify.blocks import SignArray
from bnnverify.convolution import ConvBlock
from bnnverify.domain import IntArray
from bnnverify.errors import UnsupportedError
from bnnverify.formats.elementwise import require_exact
from bnnverify.formats.firing import Layer
from bnnverify.formats.signs import magnitudes
from bnnverify.formats.tensors import Tensor
from bnnverify.formats.units import Affine, Column, column
from bnnverify.network import BinaryNetwork, OutputBlock, Provenance

SINGLE_LOGIT = (
    "the model has a single score: it was read as two classes, class 1 where the score is at least 0 (a score of "
    "exactly 0 is class 1), class 0 elsewhere"
)


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A finished network and how it relates to the file.

    Attributes:
        network: The exact network.
        order: Entry of the file's flat input that each input of the network is.
        layers: What was understood, block by block; the output last.
        rounded: Classes whose scale or bias had to be rounded to float64.
        is_single_logit: True if the file has one score only: see `two_classes`.
    """

    network: BinaryNetwork
    order: IntArray
    layers: tuple[Layer, ...]
    rounded: int
    is_single_logit: bool

    @property
    def gives(self) -> str:
        """What the output of the file holds, as in `Imported`."""
        return "logit" if self.is_single_logit else "scores"

    @property
    def notes(self) -> list[str]:
        """What was rounded, in sentences."""
        if not self.rounded:
            return []
        return [f"the scales of {self.rounded} classes hold a square root and were rounded to float64"]


def finished(
    tensor: Tensor, provenance: dict[str, Any], where: str = "the output", *, allow_single: bool = False
) -> Assembled:
    """The network whose scores the tensor holds.

    Args:
        tensor: The scores.
        provenance: Of the network.
        where: What messages call the scores.
        allow_single: True if a model with a single score is read as two classes (`two_classes`).

    Raises:
        UnsupportedError: The tensor holds signs, images or the input instead of the sums of a last layer.
    """
    source = tensor.source
    require_exact(tensor, where)
    if source.weights is None or tensor.steps is not None or tensor.pool is not None:
        raise UnsupportedError(
            f"{where} is not the output of a linear layer (with constants), expected scores of classes."
        )
    matrix, exact = source.weights, tensor.affine
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
        moved = column(constant.tolist())
        exact = Affine(exact.slope, exact.offset + exact.slope * moved, exact.root, exact.shift)
    slope, offset, rounded = exact.as_scores()
    order = tensor.index.ravel()
    weights, scale, bias = matrix[order], slope[order], offset[order]
    single = allow_single and len(weights) == 1
    if single:
        weights, scale, bias = two_classes(weights, scale, bias, exact, int(order[0]))
        provenance = {**provenance, "assumed": [*provenance.get("assumed", ()), SINGLE_LOGIT]}
    output = OutputBlock.create(weights, scale=list(scale), bias=list(bias), mask=weights != 0)
    domain = source.coding.domain(source.order.size, source.shape)
    coding = bool(source.layers) and source.layers[0].kind == "input"
    network = BinaryNetwork(domain, source.blocks, output, Provenance(provenance), coding)
    text = f"scores of {output.n_classes} classes from {output.n_inputs} inputs"
    layers = (*source.layers, Layer("output", source.name, text, magnitudes(scale), 0, 0, 0, None))
    return Assembled(network, source.order, layers, rounded, single)


def two_classes(
    weights: SignArray, scale: Column, bias: Column, exact: Affine, unit: int
) -> tuple[SignArray, Column, Column]:
    """Scores of two classes for a single score: class 1 iff it is at least 0.

    Class 1 keeps the score, ``scale * s + bias`` of the integer sum s. The row of class 0 has no weights, hence no
    cells, and its constant score lies halfway between the last sum of class 0 and the first of class 1: so no sum
    ties, and the classes are those of the exact score even where scale and bias had to be rounded.

    Args:
        weights: The one row, shape `(1, n)`.
        scale: Its scale.
        bias: Its bias.
        exact: The scores before rounding.
        unit: Which of them is the one.

    Returns:
        Weights `(2, n)`, two scales, two biases.
    """
    at, slope, offset = exact.zero(unit), scale[0], bias[0]
    if at is None:
        bound = offset + (-1 if exact.sign_of_constant(unit) >= 0 else 1)
    else:
        rising = exact.slope[unit] > 0
        slope = slope or Fraction(1 if rising else -1)  # rounded to 0
        bound = slope * (at.ceil() - Fraction(1, 2) if rising else at.floor() + Fraction(1, 2)) + offset
    rows = np.concatenate([np.zeros_like(weights), weights])
    return rows, column([slope, slope]), column([bound, offset])
