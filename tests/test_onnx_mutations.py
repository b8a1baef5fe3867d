"""Models that were changed at random are read or refused in one sentence; nothing else happens."""

import random

import numpy as np
import onnx
import pytest

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.onnx import load
from tests.test_onnxschema import BUILDERS, OWN, Draw, versions

EXTREME = [-2, -1, 0, 1, 2, 3, 7, 10**9, 2**31 - 1, 2**31, 2**62, -(2**63)]
REAL = [0.0, -1.0, 1e30, 1e-40, float("nan"), float("inf")]
OTHER = ["Concat", "Expand", "Tile", "Range", "ConstantOfShape", "Constant", "Gather", "Slice", "If", "Loop", "Split"]


def change_attribute(rng, graph, node):
    if node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.type == onnx.AttributeProto.INT:
            attribute.i = rng.choice(EXTREME)
        elif attribute.type == onnx.AttributeProto.INTS:
            values = [*attribute.ints, rng.choice(EXTREME)]
            rng.shuffle(values)
            attribute.ints[:] = values[rng.randint(0, 1) :]
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = rng.choice(REAL)
        else:
            attribute.s = rng.choice([b"", b"VALID", b"x", b"\xff"])


def change_constant(rng, graph, node):
    tensor = rng.choice(graph.initializer)
    array = np.array(onnx.numpy_helper.to_array(tensor))
    with np.errstate(all="ignore"):
        if array.size:
            extreme = rng.choice(EXTREME if array.dtype.kind in "iu" else REAL)
            array.flat[rng.randrange(array.size)] = np.array(extreme).astype(array.dtype)
        if rng.random() < 0.2:
            array = np.nan_to_num(array).astype(rng.choice([np.int64, np.uint8, np.float64, bool, np.float16]))
    shapes = [array.shape, array.shape, (-1,), (1, *array.shape), (*array.shape, 1)]
    array = array.reshape(rng.choice(shapes))
    tensor.CopyFrom(
        onnx.numpy_helper.from_array(array[:0] if rng.random() < 0.1 and array.ndim else array, tensor.name)
    )


def change_operator(rng, graph, node):
    node.op_type = rng.choice([*OWN, *OTHER])


def change_input(rng, graph, node):
    names = [tensor.name for tensor in graph.initializer] + [name for other in graph.node for name in other.output]
    if node.input and rng.random() < 0.7:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "x", ""])
    else:
        node.input.append(rng.choice([*names, "x", ""]))


def change_shape(rng, graph, node):
    rng.choice(graph.input[0].type.tensor_type.shape.dim).dim_value = rng.choice([0, 1, 2, 2**40])


def change_type(rng, graph, node):
    graph.input[0].type.tensor_type.elem_type = rng.choice([0, 2, 7, 9, 10, 11, 16, 99])


CHANGES = [change_attribute, change_attribute, change_constant, change_constant, change_operator, change_input,
           change_shape, change_type]  # fmt: skip


@pytest.mark.parametrize("kind", OWN)
def test_a_changed_model_is_read_or_refused_in_one_sentence(tmp_path, kind):
    rng = random.Random(kind)
    path = tmp_path / "m.onnx"
    for _ in range(10):
        opset = rng.choice(versions(kind))
        proto = BUILDERS[kind](Draw(rng.randrange(10**6), opset), opset).proto()
        for _ in range(rng.randint(1, 3)):
            if proto.graph.initializer:
                rng.choice(CHANGES)(rng, proto.graph, rng.choice(proto.graph.node))
        if rng.random() < 0.1:
            proto.opset_import[0].version = rng.choice(range(5, 31))
        path.write_bytes(proto.SerializeToString())
        try:
            load(path, coding=InputCoding.integers(-1, 2))
        except (FormatError, UnsupportedError) as error:
            assert str(error).startswith(f"{path}: ") and str(error).count(str(path)) == 1
            assert "\n" not in str(error)
