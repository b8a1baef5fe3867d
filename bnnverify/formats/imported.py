"""Imported: the exact network of a model file, and how the two correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.domain import IntArray
from bnnverify.errors import ModelError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.firing import Layer
from bnnverify.network import BinaryNetwork


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """The exact network of a model file.

    Attributes:
        network: The exact network; its inputs are integers or signs, images flat in the order channel, row, column.
        coding: How its inputs are fed to the model.
        order: Input i of the network is entry ``order[i]`` of the model's flat input (of VNN-LIB's X).
        input_name: The model's input.
        input_shape: Shape of one input as the file takes it, with a batch size of 1 where there is a batch.
        layers: What was understood, block by block; the output last.
        notes: What was dropped, rounded or decided on the way, in sentences.
        open_zero: True if the first block ends in a plain sign, which gives 0 where a sum of *real* inputs meets a
            threshold, and nobody said what that means: then the network stands for the model on integers only.
        gives: What the output of the file holds: "scores"; "class", the index of the greatest; or for two classes
            "logit", which is at least 0 for class 1, or "probability", which is at least 1/2 there.
    """

    network: BinaryNetwork
    coding: InputCoding
    order: IntArray
    input_name: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    open_zero: bool = False
    gives: str = "scores"

    @property
    def n_outputs(self) -> int:
        """Numbers that the file gives for one input (VNN-LIB's Y)."""
        return self.network.n_classes if self.gives == "scores" else 1

    def fed(self, x: ArrayLike) -> NDArray[np.float32]:
        """Inputs of the network, `(n,)` or `(N, n)`, as the model takes them: float32, the nearest to the exact number.

        Returns:
            Shape `input_shape`, or `(N, *input_shape)`.
        """
        points = np.asarray(x)
        rows = points.reshape(-1, self.network.n_inputs)
        table = {
            v: np.float32(float(self.coding.scale * Fraction(v) + self.coding.offset))
            for v in set(rows.ravel().tolist())
        }
        keys, places = np.unique(rows, return_inverse=True)
        values = np.array([table[v] for v in keys.tolist()], dtype=np.float32)[places.reshape(rows.shape)]
        flat = np.empty_like(values)
        flat[:, self.order] = values
        return flat.reshape(*points.shape[:-1], *self.input_shape)

    def exact(self, x: Sequence[int]) -> list[Fraction]:
        """One input of the network as the model's flat input (VNN-LIB's X), not rounded to float32."""
        values = [Fraction(0)] * len(x)
        for place, value in zip(self.order.tolist(), x, strict=True):
            values[place] = self.coding.scale * value + self.coding.offset
        return values

    def read(self, values: ArrayLike) -> IntArray:
        """The inputs of the network that the model's inputs stand for: the inverse of `fed`, exact.

        Args:
            values: Shape `input_shape` or flat, or a batch `(N, ...)` of these; numbers that the coding gives exactly.

        Raises:
            ModelError: A number is not ``scale * x + offset`` for an integer x.
        """
        array = np.asarray(values)
        n = self.network.n_inputs
        if array.size % n or array.size == 0:
            raise ModelError(f"values have shape {array.shape}, expected inputs of {n} numbers each.")
        single = array.size == n and array.shape in ((n,), self.input_shape)
        rows = array.reshape(-1, n)[:, self.order]
        keys, places = np.unique(rows, return_inverse=True)
        whole = np.array([self._integer(v) for v in keys.tolist()], dtype=np.int64)[places.reshape(rows.shape)]
        return whole[0] if single else whole

    def _integer(self, value: Any) -> int:
        exact = (Fraction(value) - self.coding.offset) / self.coding.scale
        near = round(exact)
        if exact != near and np.float32(float(self.coding.scale * near + self.coding.offset)) != np.float32(value):
            raise ModelError(
                f"{value} is not an input of the network, expected {self.coding.scale} * x + {self.coding.offset}."
            )
        return near
