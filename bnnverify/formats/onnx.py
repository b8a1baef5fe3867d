"""ONNX models of binarized networks, as larq with tf2onnx, torch, and Brevitas (QONNX) write them.

What is understood: Conv, MatMul and Gemm with weights of one magnitude per row; batch norm, as one node or in parts;
max-pooling before or after the sign; signs as Sign, as Sign -> Add -> Sign, as comparisons, or as QONNX's
BipolarQuant; transposing, reshaping and padding in NHWC and NCHW; a final Softmax or ArgMax, which is dropped. Every
constant is the dyadic rational that its float is, and thresholds are folded without rounding: the exact network says
what the file *means*. A framework evaluates the same file in float32, and may decide otherwise where a sum comes very
near to a threshold; `Layer.closest` says how near that can be.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import assembly, onnxmetadata, onnxops, onnxschema, qonnx, tensors
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.onnxcall import Call
from bnnverify.formats.onnxgraph import Graph, Node, evaluated, read_graph
from bnnverify.formats.tensors import Tensor

FINAL = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK")  # order the scores, or keep their order
RESHAPES = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")  # may follow them


def load(
    path: str | os.PathLike[str],
    *,
    coding: InputCoding | None = None,
    zero_sign: int | None = None,
    input_shape: Sequence[int] | None = None,
    otherwise: Callable[[], InputCoding] | None = None,
) -> Imported:
    """The exact network in the ONNX file at `path` (or `.onnx.gz`).

    Args:
        path: The file.
        coding: What the inputs are: signs, bits, or integers in a range. Default: what the file says, if
            `bnnverify export` wrote it.
        zero_sign: What the model means by a plain Sign of 0, which ONNX makes 0: +1, -1, or None to refuse models
            where that can occur.
        input_shape: Shape of one input, where the file leaves sizes other than the batch open.
        otherwise: What the inputs are where neither `coding` nor the file says it.

    Raises:
        FormatError: The file cannot be read, or its shapes do not fit.
        UnsupportedError: An operation has no place in a binarized network; the message names the node and the reason.
    """
    graph = read_graph(path)
    stated = onnxmetadata.stated(graph.metadata, graph.where)
    inputs = coding or stated.coding or (None if otherwise is None else otherwise())
    if inputs is None:
        raise UnsupportedError(
            f"{graph.where}: an ONNX file does not say which numbers are inputs, expected a range of integers, or "
            "signs. Give InputCoding.integers(0, 255) or .signs() (--input-range 0 255 or --input signs)."
        )
    _check_input_type(graph, inputs)
    shape = _input_shape(graph, input_shape)
    try:
        tensor, gives, notes = _run(
            graph, tensors.start(shape, inputs, name=f"input {graph.input_name!r}", zero_sign=zero_sign)
        )
        provenance = {
            "format": "ONNX",
            "producer": graph.producer,
            "opsets": dict(graph.opsets),
            "input": {"name": graph.input_name, "shape": list(shape), **inputs.to_json()},
            **onnxmetadata.assumptions(graph.metadata, graph.where),
        }
        done = assembly.finished(
            tensor,
            provenance,
            f"output {graph.output_name!r}",
            allow_single=gives in ("scores", "probability") and onnxmetadata.SCORES_KEY not in graph.metadata,
        )
    except ModelError as error:
        raise FormatError(f"{graph.where}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{graph.where}: {error}") from None
    notes += done.notes
    open_zero = done.layers[0].third_value and zero_sign is None and not inputs.is_binary
    if open_zero:
        notes.append("the first block ends in a plain Sign, which real inputs (not integers) can make 0")
    if zero_sign is not None:
        is_needed = tensor.source.zero_in_input or any(layer.third_value for layer in done.layers)
        meaning = f"a plain Sign of 0 was taken as {zero_sign:+d}; ONNX gives 0"
        notes.append(meaning if is_needed else "no sign of the model can be 0: what it means was not needed")
    bounds = None if coding else stated.bounds
    network = onnxmetadata.restored(
        done.network, graph.metadata, bounds, graph.where, is_stated=coding in (None, stated.coding)
    )
    return Imported(
        network,
        inputs,
        done.order,
        graph.input_name,
        shape,
        done.layers,
        (*network.provenance.assumptions, *notes),
        open_zero,
        _gives(gives, done.is_single_logit),
    )


def _check_input_type(graph: Graph, coding: InputCoding) -> None:
    """The input of the model must hold what is fed to it."""
    if graph.input_type.kind == "f":
        return
    ends = (-1, 1) if coding.lower is None or coding.upper is None else (coding.lower, coding.upper)
    values = [coding.scale * end + coding.offset for end in ends]
    step = coding.scale * 2 if coding.is_binary else coding.scale
    info = np.iinfo(graph.input_type)
    if step.denominator != 1 or any(v.denominator != 1 or not info.min <= v <= info.max for v in values):
        raise UnsupportedError(
            f"{graph.where}: the input {graph.input_name!r} takes {graph.input_type}, but is fed {coding}, expected "
            "integers of that type. Change --input-range, --input-scale or --input-offset."
        )


def _gives(gives: str, is_single: bool) -> str:
    """What the output holds, now that it is known how many scores there are."""
    if is_single:
        return "logit" if gives == "scores" else gives
    return "scores" if gives == "probability" else gives


def _input_shape(graph: Graph, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        known = graph.input_shape
        if known and (len(known) != len(given) or any(v not in (None, w) for v, w in zip(known, given, strict=True))):
            raise UnsupportedError(
                f"{graph.where}: the input {graph.input_name!r} has the shape {_shown(known)}, but {tuple(given)} is "
                "given, expected sizes that the file leaves open (?). Leave input_shape (--input-shape) out."
            )
        return tuple(int(v) for v in given)
    sizes = list(graph.input_shape)
    if sizes and sizes[0] is None:
        sizes[0] = 1
    if not sizes or any(v is None for v in sizes):
        raise UnsupportedError(
            f"{graph.where}: the input {graph.input_name!r} has the shape {_shown(graph.input_shape)}, expected sizes. "
            "Give input_shape (--input-shape 1,3,32,32)."
        )
    return tuple(int(v) for v in sizes if v is not None)


@dataclass(frozen=True, slots=True)
class _End:
    """What a final operation makes of the scores, and the node."""

    node: Node
    gives: str  # as `Imported.gives`


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if v is None else str(v) for v in shape)})"


def _run(graph: Graph, start: Tensor) -> tuple[Tensor, str, list[str]]:
    """The tensor that the output is, what the output says of it (as `Imported.gives`), and notes."""
    values: dict[str, Any] = {**graph.constants, graph.input_name: start, "": None}
    notes: list[str] = []
    ends: dict[str, _End] = {}  # tensor that follows a final operation -> that operation
    unread: dict[str, str] = {}  # further output of a node -> what it is
    opset = graph.opsets.get("ai.onnx")
    needed = _needed(graph)
    for node in graph.nodes:
        if not needed & set(node.outputs):
            continue
        onnxschema.check(node, opset)
        if wrong := [unread[name] for name in node.inputs if name in unread]:
            raise UnsupportedError(f"{node} takes {wrong[0]}, expected the first output of a node.")
        inputs = [values[name] for name in node.inputs]
        _check_finite(node, inputs)
        places = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
        unread |= {name: f"output {k} of {node}" for k, name in enumerate(node.outputs) if k and name}
        if not places:
            outputs = _constants(node, inputs, graph)
            values |= {name: array for name, array in zip(node.outputs, outputs, strict=False) if name}
            unread = {name: what for name, what in unread.items() if name not in node.outputs}
            continue
        if len(places) > 1:
            raise UnsupportedError(f"{node} joins two branches that depend on the input, expected a chain of layers.")
        tensor = inputs[places[0]]
        if node.kind == "Shape":
            values[node.outputs[0]] = _shape(node, tensor, opset)
            continue
        arrays = [None if isinstance(value, Tensor) else value for value in inputs]
        call = Call(node, arrays, places[0], opset or onnxschema.LAST, str(node))
        if (end := ends.get(node.inputs[places[0]])) is not None:
            _check_after(node, end)
            ends[node.outputs[0]] = end
            result = tensor if end.gives == "class" else onnxops.apply(call, tensor)
        elif node.kind in FINAL:
            place, gives = _final(call, tensor)
            notes.append(f"{node} at the end was dropped: it keeps the order of the scores")
            result = tensor
            if place < len(node.outputs):
                unread.pop(node.outputs[place], None)
                values[node.outputs[place]] = tensor
                ends[node.outputs[place]] = _End(node, gives)
            if place > 0:
                unread[node.outputs[0]] = f"the greatest score of {node}"
            continue
        else:
            result = onnxops.apply(call, tensor)
        values[node.outputs[0]] = result
    if graph.output_name in unread:
        raise UnsupportedError(
            f"output {graph.output_name!r} is {unread[graph.output_name]}, expected scores or a class. Export the "
            "model without that node."
        )
    output = values.get(graph.output_name)
    if not isinstance(output, Tensor):
        raise UnsupportedError(f"output {graph.output_name!r} does not depend on the input, expected scores.")
    ended = ends.get(graph.output_name)
    return output, "scores" if ended is None else ended.gives, notes


def _check_finite(node: Node, inputs: Sequence[Any]) -> None:
    """Constants of a node are numbers; infinite ones may bound a clip."""
    for place, (name, array) in enumerate(zip(node.inputs, inputs, strict=True)):
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        if node.kind == "Clip" and place > 0 and not np.isnan(array).any():
            continue
        wrong = array[~np.isfinite(array)].ravel()[0]
        raise ModelError(
            f"{node} takes the constant {name!r}, which holds {wrong}: it is not finite, expected numbers. Export the "
            "model again."
        )


def _shape(node: Node, tensor: Tensor, opset: int | None) -> NDArray[np.int64]:
    """The output of a Shape node."""
    start, end = (onnxschema.attribute(node, name, opset or onnxschema.LAST) for name in ("start", "end"))
    return np.array(tensor.shape[slice(start, end)], dtype=np.int64)


def _needed(graph: Graph) -> set[str]:
    """Names of the tensors on which the output depends."""
    needed = {graph.output_name}
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
    return needed


def _constants(node: Node, inputs: list[Any], graph: Graph) -> list[Any]:
    if node.kind in qonnx.CONSTANTS:
        outputs = [
            qonnx.CONSTANTS[node.kind](str(node), inputs, partial(onnxschema.attribute, node, opset=onnxschema.LAST))
        ]
    else:
        outputs = evaluated(node, inputs, graph.opsets)
    return outputs


def _check_after(node: Node, end: _End) -> None:
    """What follows a final operation must leave its numbers as they are."""
    kinds = (*RESHAPES, "Cast") if end.gives == "class" else RESHAPES
    if node.kind not in kinds:
        raise UnsupportedError(
            f"{node} follows {end.node}, which orders scores, expected the end of the model there, or one of "
            f"{', '.join(kinds)}."
        )


def _final(call: Call, tensor: Tensor) -> tuple[int, str]:
    """Which output of a final operation says what: the scores must lie along the axis that it orders."""
    node, shape = call.node, tensor.index.shape
    if node.kind == "Sigmoid":
        return 0, "probability"
    if tensor.index.size == 1:
        raise UnsupportedError(
            f"{node} orders a single score, expected several, or a single score without {node.kind}."
        )
    if node.kind == "TopK":
        count = call.get("k") if call.opset < 10 else call.number(1)
        if count != 1 or call.get("largest") == 0:
            raise UnsupportedError(f"{node} picks {count} scores in an order of its own, expected the greatest.")
    if node.kind == "ArgMax" and call.get("select_last_index"):
        raise UnsupportedError(f"{node} takes the last of equal scores, expected the first.")
    axis = call.axis(int(call.get("axis")), len(shape))
    is_flattened = node.kind in ("Softmax", "LogSoftmax") and call.opset < 13
    along = math.prod(shape[axis:]) if is_flattened else shape[axis]
    if along != tensor.index.size:
        raise UnsupportedError(
            f"{node} works along axis {axis} of a tensor of shape {shape}, expected the axis of classes."
            + (
                ""
                if "axis" in node.attributes
                else f" Without the attribute axis ONNX means {axis} in opset {call.opset}."
            )
        )
    return {"TopK": (1, "class"), "ArgMax": (0, "class")}.get(node.kind, (0, "scores"))
