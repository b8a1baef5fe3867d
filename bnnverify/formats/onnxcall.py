"""Call: one node of an ONNX graph about to act on the tensor that depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from bnnverify.errors import ModelError, UnsupportedError
from bnnverify.formats.onnxgraph import Node

Arrays = Sequence[NDArray[Any] | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One node about to act on the tensor.

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

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.node.attributes.get(name, default)

    def refuse(self, reason: str) -> UnsupportedError:
        """The error that this node is not understood."""
        return UnsupportedError(f"{self.where} {reason}")
