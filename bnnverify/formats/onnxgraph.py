"""The graph of an ONNX file: nodes in order, constants as arrays, one input, one output."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.reading import SIZE_LIMIT, opened, read_unpacked

WHAT = "an ONNX model (.onnx or .onnx.gz)"
_EXPECTED = f"expected {WHAT}"

MOST_ENTRIES = 2**27  # of constants that are computed

# Operators that may work on constants: the same input always gives the same output, and the reference implementation
# of ONNX gives what onnxruntime gives, in every opset (tests/test_onnxschema.py).
CONSTANT_OPERATORS = {
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log",
    "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Reshape", "Round", "Shape",
    "Sigmoid", "Sign", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose",
    "Unsqueeze", "Where", "Xor",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation.

    Attributes:
        kind: Name of the operator, with the domain before it unless that is ONNX's own.
        name: As in the file; the name of its first output where it has none.
        inputs: Names of tensors, empty for an input that is left out.
        outputs: Names of tensors.
        attributes: Values by name; tensors as arrays.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: Any

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.kind})"


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """What an ONNX file holds.

    Attributes:
        where: The path, for messages.
        input_name: The one input that is no constant.
        input_shape: Its shape; None where the file leaves a size open.
        input_type: Its type: floats or integers.
        output_name: The one output.
        nodes: In an order in which every tensor is made before it is used.
        constants: The initializers.
        opsets: Version of each operator domain.
        producer: Who wrote the file.
        metadata: Text by key.
    """

    where: str
    input_name: str
    input_shape: tuple[int | None, ...]
    input_type: np.dtype[Any]
    output_name: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    opsets: Mapping[str, int]
    producer: str
    metadata: Mapping[str, str]


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """The graph in the ONNX file at `path`.

    Raises:
        FormatError: The file cannot be read, or is no complete model.
        UnsupportedError: It has several inputs or outputs.
    """
    import onnx
    from google.protobuf.message import DecodeError

    where = os.fspath(path)
    data = read_unpacked(path, WHAT)
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise FormatError(f"{where}: is no readable ONNX model ({short(error)}), {_EXPECTED}.") from None
    graph = model.graph
    if not graph.node:
        raise FormatError(f"{where}: holds no operations ({len(data)} bytes), {_EXPECTED}.")
    if not model.opset_import:
        raise FormatError(f"{where}: does not name the version of its operators, {_EXPECTED}. The file is damaged.")
    if model.functions:
        raise UnsupportedError(f"{where}: defines functions of its own, expected plain operators. Export it inlined.")
    if graph.sparse_initializer:
        raise UnsupportedError(f"{where}: holds sparse constants, expected dense ones.")
    folder = Path(path).parent
    constants = {tensor.name: _array(tensor, where, folder) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for what, values in (("inputs", inputs), ("outputs", graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise UnsupportedError(f"{where}: has {len(values)} {what} ({names}), expected one.")
    nodes = tuple(_node(proto, where, folder) for proto in graph.node)
    _check_order(nodes, {inputs[0].name, *constants}, where)
    tensor_type = inputs[0].type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor_type.shape.dim)
    return Graph(
        where,
        inputs[0].name,
        shape,
        _type(tensor_type.elem_type, inputs[0].name, where),
        graph.output[0].name,
        nodes,
        constants,
        {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        " ".join(filter(None, (model.producer_name, model.producer_version))),
        {entry.key: entry.value for entry in model.metadata_props},
    )


def evaluated(node: Node, inputs: list[NDArray[Any] | None], opsets: Mapping[str, int]) -> list[Any]:
    """What a node makes of constants, by the reference implementation of ONNX.

    Raises:
        UnsupportedError: The operator is none that has one meaning in all opsets there.
    """
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if node.kind not in CONSTANT_OPERATORS:
        raise UnsupportedError(
            f"{node} takes constants only, expected one of {', '.join(sorted(CONSTANT_OPERATORS))}. Fold the constants "
            "before exporting."
        )
    entries = _entries(node, [np.asarray(array) for array in inputs if array is not None])
    if entries > MOST_ENTRIES:
        raise UnsupportedError(f"{node} makes {entries} constants, expected at most {MOST_ENTRIES}.")
    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True) if name and array is not None}
    ins = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), None) for name, a in feeds.items()
    ]
    outs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    imports = [helper.make_opsetid("" if d == "ai.onnx" else d, v) for d, v in opsets.items()]
    try:
        graph = helper.make_graph([node.proto], "constants", ins, outs)
        with np.errstate(all="ignore"):
            model = helper.make_model(graph, opset_imports=imports)
            return list(ReferenceEvaluator(model).run(None, feeds))
    except Exception as error:
        raise UnsupportedError(
            f"{node} with constant inputs cannot be evaluated ({short(error)}), expected a known operator."
        ) from None


def _entries(node: Node, arrays: list[NDArray[Any]]) -> int:
    """A bound on the entries of what a node makes of constants; 0 where it cannot work on them."""
    sizes = [array.size for array in arrays]
    try:
        if node.kind == "ConstantOfShape":
            return math.prod(int(v) for v in arrays[0].ravel())
        if node.kind == "Tile":
            return sizes[0] * math.prod(int(v) for v in arrays[1].ravel())
        if node.kind == "Range":
            return math.ceil((float(arrays[1]) - float(arrays[0])) / float(arrays[2]))
        if node.kind == "Expand":
            return math.prod(np.broadcast_shapes(arrays[0].shape, tuple(int(v) for v in arrays[1].ravel())))
        if node.kind == "MatMul":
            return int(sizes[0] * sizes[1] // max(1, arrays[0].shape[-1]))
        if node.kind == "Gather":
            return int(sizes[1] * sizes[0] // max(1, arrays[0].shape[int(node.attributes.get("axis", 0))]))
        if node.kind in ("Concat", "Constant", "Slice", "Split", "Reshape", "Squeeze", "Unsqueeze", "Clip"):
            return sum(sizes)
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError):
        return 0


def _type(number: int, name: str, where: str) -> np.dtype[Any]:
    """The type of the input."""
    import onnx

    try:
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError, ValueError):
        kind = np.dtype(object)
    if kind.kind not in "fiu":
        raise UnsupportedError(f"{where}: the input {name!r} is of type number {number}, expected floats or integers.")
    return kind


def _node(proto: Any, where: str, folder: Path) -> Node:
    import onnx

    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
    name = proto.name or next(iter(proto.output), "?")
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except ValueError:
            raise FormatError(f"{where}: node {name!r} has an attribute without a type, {_EXPECTED}.") from None
        if isinstance(value, onnx.TensorProto):
            value = _array(value, where, folder)
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(value))  # nothing outside of the node any more
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, (int, float, str, np.ndarray)) and hasattr(value, "__iter__"):
            value = list(value)
        attributes[attribute.name] = value
    return Node(f"{domain}{proto.op_type}", name, tuple(proto.input), tuple(proto.output), attributes, proto)


def _array(tensor: Any, where: str, folder: Path) -> NDArray[Any]:
    import onnx
    from onnx import numpy_helper

    try:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = _inlined(tensor, folder)
        array = numpy_helper.to_array(tensor)
    except Exception as error:
        raise FormatError(
            f"{where}: the constant {tensor.name!r} cannot be read ({short(error)}), {_EXPECTED}."
        ) from None
    if array.dtype.kind == "V":  # types that numpy does not have, such as bfloat16: all are exact in float32
        array = array.astype(np.float32)
    return array


def _inlined(tensor: Any, folder: Path) -> Any:
    """The constant with the bytes that its file says lie in another one, in the folder of the model or below.

    Raises:
        ValueError: They lie elsewhere, or are not as many as the constant needs.
    """
    import onnx

    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    place, root = (folder / location).resolve(), folder.resolve()
    if not location or Path(location).is_absolute() or not place.is_relative_to(root):
        raise ValueError(f"its data lie in {location!r:.80}, expected a file in the folder of the model")
    if not place.is_file():
        raise ValueError(f"its data lie in {location!r:.80}, which is no file in the folder of the model")
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    size = -(-math.prod(tensor.dims) * _bits(tensor.data_type, kind) // 8)
    start, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    if length != size or start < 0 or start + size > place.stat().st_size or size > SIZE_LIMIT:
        raise ValueError(
            f"its data are bytes {start} to {start + length} of {location!r:.80}, expected {size} bytes that are there"
        )
    with opened(place, "constants of a model") as file:
        file.seek(start)
        data = file.read(size)
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=data)


def _bits(number: int, kind: Any) -> int:
    """Bits of one entry; several of the small types share a byte."""
    import onnx

    name = onnx.TensorProto.DataType.Name(number)
    return 4 if name.endswith("INT4") or name == "FLOAT4E2M1" else 2 if name.endswith("INT2") else 8 * kind.itemsize


def _check_order(nodes: tuple[Node, ...], known: set[str], where: str) -> None:
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise FormatError(f"{where}: {node} takes {name!r}, which nothing before it makes, {_EXPECTED}.")
        for name in filter(None, node.outputs):
            if name in known:
                raise FormatError(f"{where}: {node} makes {name!r}, which is there already, {_EXPECTED}.")
            known.add(name)


def short(error: BaseException) -> str:
    """What an error of another library says, in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " ..."
