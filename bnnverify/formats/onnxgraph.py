"""The graph of an ONNX file: nodes in order, constants as arrays, one input, one output."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, UnsupportedError

SIZE_LIMIT = 2**31  # bytes of a model, unpacked
_EXPECTED = "expected an ONNX model (.onnx or .onnx.gz)"


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
    output_name: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    opsets: Mapping[str, int]
    producer: str
    metadata: Mapping[str, str]


def read_bytes(path: str | os.PathLike[str], expected: str = _EXPECTED) -> bytes:
    """The bytes of a file, unpacked if it is gzipped.

    Raises:
        FormatError: It cannot be read or unpacked, or is too large.
    """
    where = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            data = stream.read(SIZE_LIMIT + 1)
    except (EOFError, gzip.BadGzipFile) as error:
        raise FormatError(f"{where}: cannot be unpacked ({error}), {expected}. The file is damaged.") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FormatError(f"{where}: cannot be read ({reason}), {expected}. Check the path.") from None
    if len(data) > SIZE_LIMIT:
        raise FormatError(f"{where}: has more than {SIZE_LIMIT} bytes, {expected} of at most that size.")
    return data


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """The graph in the ONNX file at `path`.

    Raises:
        FormatError: The file cannot be read, or is no complete model.
        UnsupportedError: It has several inputs or outputs.
    """
    import onnx
    from google.protobuf.message import DecodeError

    where = os.fspath(path)
    data = read_bytes(path)
    try:
        model = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(model, str(Path(path).parent))
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise FormatError(f"{where}: is no readable ONNX model ({_short(error)}), {_EXPECTED}.") from None
    graph = model.graph
    if not graph.node:
        raise FormatError(f"{where}: holds no operations ({len(data)} bytes), {_EXPECTED}.")
    if not model.opset_import:
        raise FormatError(f"{where}: does not name the version of its operators, {_EXPECTED}. The file is damaged.")
    if model.functions:
        raise UnsupportedError(f"{where}: defines functions of its own, expected plain operators. Export it inlined.")
    if graph.sparse_initializer:
        raise UnsupportedError(f"{where}: holds sparse constants, expected dense ones.")
    constants = {tensor.name: _array(tensor, where) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for what, values in (("inputs", inputs), ("outputs", graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise UnsupportedError(f"{where}: has {len(values)} {what} ({names}), expected one.")
    nodes = tuple(_node(proto, where) for proto in graph.node)
    _check_order(nodes, {inputs[0].name, *constants}, where)
    shape = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in inputs[0].type.tensor_type.shape.dim
    )
    return Graph(
        where,
        inputs[0].name,
        shape,
        graph.output[0].name,
        nodes,
        constants,
        {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        " ".join(filter(None, (model.producer_name, model.producer_version))),
        {entry.key: entry.value for entry in model.metadata_props},
    )


def evaluated(node: Node, inputs: list[NDArray[Any] | None], opsets: Mapping[str, int], where: str) -> list[Any]:
    """What a node makes of constants, by the reference implementation of ONNX.

    Raises:
        UnsupportedError: The operator is not known there.
    """
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True) if name and array is not None}
    ins = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), None) for name, a in feeds.items()
    ]
    outs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    graph = helper.make_graph([node.proto], "constants", ins, outs)
    imports = [helper.make_opsetid("" if d == "ai.onnx" else d, v) for d, v in opsets.items()]
    try:
        with np.errstate(all="ignore"):
            model = helper.make_model(graph, opset_imports=imports)
            return list(ReferenceEvaluator(model).run(None, feeds))
    except Exception as error:
        raise UnsupportedError(
            f"{where}: {node} with constant inputs cannot be evaluated ({_short(error)}), expected a known operator."
        ) from None


def _node(proto: Any, where: str) -> Node:
    import onnx

    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = _array(value, where)
        attributes[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
    name = proto.name or next(iter(proto.output), "?")
    return Node(f"{domain}{proto.op_type}", name, tuple(proto.input), tuple(proto.output), attributes, proto)


def _array(tensor: Any, where: str) -> NDArray[Any]:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        raise FormatError(
            f"{where}: the constant {tensor.name!r} cannot be read ({_short(error)}), {_EXPECTED}."
        ) from None


def _check_order(nodes: tuple[Node, ...], known: set[str], where: str) -> None:
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise FormatError(f"{where}: {node} takes {name!r}, which nothing before it makes, {_EXPECTED}.")
        known |= set(node.outputs)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
