"""Call: one node of an ONNX graph about to act on the tensor that depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats import onnxschema
from bnnverify.formats.onnxgraph import Node

Arrays = Sequence[NDArray[Any] | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One node about to act on the tensor; `onnxschema.check` has passed it.

    Attributes:
        node: The node.
        arrays: Its inputs; None where the tensor is, or where one is left out.
        at: Place of the tensor among the inputs.
        opset: Version of ONNX's own operators.
        where: What messages call the node.
    """

    node: Node
    arrays: Arrays
    at: int
    opset: int
    where: str

    def constant(self, place: int, what: str) -> NDArray[Any]:
        """The input at `place`, which must be there."""
        if place >= len(self.arrays) or (array := self.arrays[place]) is None:
            raise ModelError(f"{self.where} has no {what}, expected it as input {place}.")
        return array

    def optional(self, place: int) -> NDArray[Any] | None:
        """The input at `place`, or None."""
        return self.arrays[place] if place < len(self.arrays) else None

    def integers(self, place: int, what: str) -> list[int] | None:
        """The integers at `place`, or None."""
        array = self.optional(place)
        if array is None:
            return None
        if array.dtype.kind not in "iu":
            raise ModelError(f"{self.where} has a {what} of type {array.dtype}, expected integers.")
        return [int(v) for v in array.ravel()]

    def number(self, place: int) -> Any:
        """The single number at `place`, or None."""
        array = self.optional(place)
        if array is None:
            return None
        if array.size != 1:
            raise ModelError(f"{self.where} has an input {place} of shape {array.shape}, expected one number.")
        return array.ravel()[0]

    def get(self, name: str) -> Any:
        """An attribute, or what the opset takes for it."""
        return onnxschema.attribute(self.node, name, self.opset)

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the start."""
        if not -rank <= value < rank:
            raise ModelError(f"{self.where} names axis {value} of a tensor of {rank} axes, expected one that is there.")
        return value % rank

    def refuse(self, reason: str) -> UnsupportedError:
        """The error that this node is not understood."""
        return UnsupportedError(f"{self.where} {reason}")
