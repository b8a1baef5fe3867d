"""Writing a BinaryNetwork as ONNX in standard operators, such that float32 evaluates it without any rounding.

A block is Conv or MatMul with the stored signs, a Mul by -1 where folding negated a row, an Add of ``1/2 - threshold``
and a Sign, whose argument is then never 0. The first block over integers is Sign -> Add -> Sign at the threshold
itself, which is +1 at 0 and so means the same for inputs between the integers. Sums are integers below 2^22, so every
number on the way is exact in float32. Padding with a constant sign is a Pad, max-pooling a MaxPool of signs,
conjunctions a Mul by -1 on both sides of it.

Scores are written as integers that order the classes as the exact scores do (`formats.scores`), in float32 if that
holds them exactly, otherwise in float64, otherwise in int64; so equal scores are equal and ArgMax decides as the exact
network does. What the file cannot say otherwise stands in its metadata: the range of the inputs, and the exact scales
and biases, which the reader takes only if they fit the graph.
"""

from __future__ import annotations

import math
import os
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import UnsupportedError
from bnnverify.files import write_whole
from bnnverify.formats import onnxmetadata
from bnnverify.formats.scores import small_integers
from bnnverify.network import BinaryNetwork, ConvBlock, HiddenBlock

OPSET, IR_VERSION = 13, 8  # old enough for the tools of the field
SUM_LIMIT = 2**22  # sums and thresholds below it, and halves between them, are exact in float32


def save(network: BinaryNetwork, path: str | os.PathLike[str]) -> None:
    """Write `network` as an ONNX file: whole or not at all.

    Args:
        network: What to write.
        path: Customarily ends in ``.onnx``; nothing is appended.

    Raises:
        FormatError: The path cannot be written.
        UnsupportedError: Sums exceed what float32 holds exactly, or scores what int64 holds.
    """
    write_whole(path, to_bytes(network))


def to_bytes(network: BinaryNetwork) -> bytes:
    """The file that `save` writes."""
    from onnx import TensorProto, helper

    writer = _Writer(network)
    output, kind = writer.scores(writer.hidden())
    shape = network.domain.shape
    types = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        writer.nodes,
        "bnnverify",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(output, types[kind], ["batch", network.n_classes])],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        producer_name="bnnverify",
        producer_version=metadata.version("bnnverify"),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, onnxmetadata.written(network))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class _Writer:
    """Nodes and constants, in order."""

    def __init__(self, network: BinaryNetwork) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.at = "input"

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A constant and its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node that takes what came last and these constants."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, [self.at, *inputs], [name], name, **attributes))
        self.at = name
        return name

    def hidden(self) -> tuple[int, ...]:
        """All hidden blocks; the shape of what comes out, without the batch."""
        domain = self.network.domain
        shape: tuple[int, ...] = domain.shape
        for i, (block, reach) in enumerate(zip(self.network.blocks, onnxmetadata.reaches(self.network), strict=True)):
            shape = self._block(block, f"block{i}", shape, reach)
        return shape

    def _block(self, block: HiddenBlock, name: str, shape: tuple[int, ...], reach: int) -> tuple[int, ...]:
        stored = block.stored.astype(np.float32)
        cells = np.count_nonzero(block.weights.reshape(block.weights.shape[0], -1), axis=1).astype(np.int64)
        most = int(cells.max()) * reach
        if most >= SUM_LIMIT:
            raise UnsupportedError(f"{name} has sums up to {most}, expected below {SUM_LIMIT}: float32 holds no more.")
        limits = onnxmetadata.attainable(block, reach)
        is_conv = isinstance(block, ConvBlock)
        spread = (1, -1, 1, 1) if is_conv else (1, -1)
        if isinstance(block, ConvBlock):
            self._reshaped(name, shape, block.input_shape)
            self._convolution(block, stored, name)
        else:
            self._reshaped(name, shape, (block.n_inputs,))
            self.add("MatMul", f"{name}.sums", self.constant(f"{name}.weights", stored.T))
        if block.negated.any():
            turned = np.where(block.negated, -1, 1).astype(np.float32).reshape(spread)
            self.add("Mul", f"{name}.turned", self.constant(f"{name}.negated", turned))
        takes_signs = self.network.domain.is_binary or name != "block0"
        shift = ((0.5 if takes_signs else 0) - limits).astype(np.float32).reshape(spread)
        self.add("Add", f"{name}.shifted", self.constant(f"{name}.shift", shift))
        if not takes_signs:  # +1 at 0, for inputs between the integers too
            self.add("Sign", f"{name}.thirds")
            self.add("Add", f"{name}.rounded", self.constant(f"{name}.half", np.array(0.5, dtype=np.float32)))
        self.add("Sign", f"{name}.signs")
        if not isinstance(block, ConvBlock):
            return (block.n_outputs,)
        self._pooling(block, name)
        return block.output_shape

    def _reshaped(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if shape != wanted:
            sizes = np.array([-1, *wanted], dtype=np.int64)
            self.add("Reshape", f"{name}.reshaped", self.constant(f"{name}.shape", sizes))

    def _convolution(self, block: ConvBlock, stored: NDArray[np.float32], name: str) -> None:
        (top, left), pads = block.padding, [0, 0, 0, 0]
        if block.pad_value == 0:
            pads = [top, left, top, left]
        elif (top, left) != (0, 0):
            around = self.constant(f"{name}.border", np.array([0, 0, top, left, 0, 0, top, left], dtype=np.int64))
            value = self.constant(f"{name}.pad_value", np.array(block.pad_value, dtype=np.float32))
            self.add("Pad", f"{name}.padded", around, value)
        self.add(
            "Conv",
            f"{name}.sums",
            self.constant(f"{name}.weights", stored),
            kernel_shape=list(block.kernel),
            strides=list(block.stride),
            pads=pads,
        )

    def _pooling(self, block: ConvBlock, name: str) -> None:
        if block.pool == (1, 1):
            return
        turned = None
        if block.conjunction.any():
            factor = np.where(block.conjunction, -1, 1).astype(np.float32).reshape(1, -1, 1, 1)
            turned = self.constant(f"{name}.conjunction", factor)
            self.add("Mul", f"{name}.inverted", turned)
        self.add("MaxPool", f"{name}.pooled", kernel_shape=list(block.pool), strides=list(block.pool))
        if turned is not None:
            self.add("Mul", f"{name}.restored", turned)

    def scores(self, shape: tuple[int, ...]) -> tuple[str, str]:
        """The output block: name and type of the scores."""
        from onnx import TensorProto

        output, domain = self.network.output, self.network.domain
        self._reshaped("output", shape, (output.n_inputs,))
        reach = 1 if self.network.blocks else int(max(np.abs(domain.lower).max(), np.abs(domain.upper).max()))
        sums = max(reach, 1) * max(int(np.abs(output.weights).sum(axis=1, dtype=np.int64).max()), 1)
        if sums >= SUM_LIMIT:
            raise UnsupportedError(
                f"the output has sums up to {sums}, expected below {SUM_LIMIT}: float32 holds no more."
            )
        self.add("MatMul", "output.sums", self.constant("output.weights", output.weights.T.astype(np.float32)))
        a, b = small_integers(output, max(reach, 1))
        most = max(abs(v) for v in a) * sums + max(abs(v) for v in b)
        # sums of inputs may be no integers
        kinds = {"float32": 24, "float64": 53} | ({"int64": 62} if self.network.blocks or domain.is_binary else {})
        kind = next((kind for kind, bits in kinds.items() if most < 2**bits), None)
        if kind is None:
            raise UnsupportedError(
                f"the scores are integers up to 2^{math.floor(math.log2(most))} over a common denominator, expected "
                f"below 2^{max(kinds.values())}. Round scales and biases to fewer digits before exporting."
            )
        if kind != "float32":
            to = {"float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}[kind]
            self.add("Cast", "output.cast", to=to)
        if set(a) != {1}:
            self.add("Mul", "output.scaled", self.constant("output.scale", np.array([list(a)], dtype=kind)))
        if any(b):
            self.add("Add", "output.shifted", self.constant("output.bias", np.array([list(b)], dtype=kind)))
        self.add("Identity", "scores")
        return "scores", kind
