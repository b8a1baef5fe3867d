"""What ONNX operators take, by opset: the table against ONNX's own, and what is read against what ONNX evaluates."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import runtime
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.onnx import load
from bnnverify.formats.onnxgraph import CONSTANT_OPERATORS
from bnnverify.formats.onnxops import HANDLERS
from bnnverify.formats.onnxschema import FIRST, GONE, LAST, OPERATORS, REQUIRED
from tests.onnxmodels import Model

OWN = sorted(kind for kind in OPERATORS if "." not in kind)
BOX = InputCoding.integers(-1, 2)


@pytest.mark.parametrize("kind", OWN)
def test_the_table_says_what_onnx_says(kind):
    operator = OPERATORS[kind]
    for opset in range(FIRST, LAST + 1):
        if not defs.has(kind, opset):
            assert opset < operator.since
            continue
        schema = defs.get_schema(kind, opset)
        known = {name: a.default(opset) for name, a in operator.attributes.items() if a.default(opset) is not GONE}
        assert set(known) == set(schema.attributes), opset
        for name, attribute in schema.attributes.items():
            assert (known[name] is REQUIRED) == attribute.required, (opset, name)
            if attribute.default_value.name:
                default = helper.get_attribute_value(attribute.default_value)
                stated = default.decode() if isinstance(default, bytes) else default
                assert (
                    np.float32(known[name]) == np.float32(stated)
                    if isinstance(stated, float)
                    else (known[name] == stated)
                ), (opset, name)
        assert operator.sides(opset) == (schema.min_input, schema.max_input), opset
    assert set(OWN) >= {name for name in HANDLERS if "." not in name}


class Draw:
    """Random attributes, present or absent."""

    def __init__(self, seed, opset):
        self.rng, self.opset = np.random.default_rng(seed), opset

    def one(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def some(self, **options):
        """Some of the attributes."""
        return {name: self.one(*values) for name, values in options.items() if self.rng.random() < 0.5}

    def signs(self, *shape):
        return self.rng.choice([-1.0, 1.0], shape)


def signed(model, bound=-0.25):
    """Activations -1/+1; opsets 7 and 8 have no Sign."""
    return model.add("Greater", [bound]).add("Cast", to=TensorProto.FLOAT).add("Mul", [2.0]).add("Sub", [1.0])


def scores(draw, model, n, classes=3):
    return model.add("MatMul", draw.signs(n, classes)).add("Add", [0.25, 0.0, 0.5])


def vector(draw, opset):
    return signed(Model([1, 4], opset=opset).add("MatMul", draw.signs(4, 4)))


def images(draw, opset):
    return Model([1, 2, 3, 4], opset=opset)


def flat(draw, model, n):
    return scores(draw, model.add("Reshape", model.constant([1, n], np.int64)), n)


def size_of(model):
    """Entries of the tensor so far, as ONNX computes them; None where it cannot."""
    try:
        zeros = np.zeros(model.shape, dtype=np.float32)
        return int(np.size(ReferenceEvaluator(model.proto()).run(None, {"x": zeros})[0]))
    except Exception:
        return None


def add_final(kind):
    def build(draw, opset):
        model = scores(draw, vector(draw, opset), 4)
        if draw.one(0, 1):
            model.add("Reshape", model.constant(draw.one([1, 3, 1, 1], [1, 1, 3], [3, 1]), np.int64))
        if kind == "ArgMax":
            last = {"select_last_index": [0, 1]} if opset >= 12 else {}
            return model.add(kind, **draw.some(axis=[0, 1, -1], keepdims=[0, 1], **last))
        if kind == "Sigmoid":
            return model.add(kind)
        if kind == "TopK":
            k, options = draw.one(1, 1, 2), draw.some(axis=[0, 1, -1])
            if opset >= 11:
                options |= draw.some(largest=[0, 1], sorted=[0, 1])
            model.add(kind, k=k, **options) if opset < 10 else model.add(kind, model.constant([k], np.int64), **options)
            model.nodes[-1].output[:] = ["greatest", model.at]
            return model
        return model.add(kind, **draw.some(axis=[0, 1, 2, -1] if opset >= 11 else [0, 1, 2]))

    return build


def add_gemm(draw, opset):
    options = draw.some(alpha=[0.5, 2.0, -1.0], beta=[0.5, 0.0, 4.0], transA=[0, 1], transB=[0, 1])
    weights = draw.signs(3, 4) if options.get("transB") else draw.signs(4, 3)
    model = vector(draw, opset)
    shapes = [[0.25, 1.0, -0.5], [[0.5, 0.0, 1.0]], 0.5]
    bias = [draw.one(*shapes)] if opset < 11 or draw.one(0, 1) else []
    return model.add("Gemm", weights, *bias, **options)


def add_norm(draw, opset):
    model = Model([1, 4], opset=opset).add("MatMul", draw.signs(4, 4))
    options = draw.some(epsilon=[0.25, 1e-3], momentum=[0.5])
    options |= draw.some(spatial=[0, 1]) if opset < 9 else draw.some(training_mode=[0, 1]) if opset >= 14 else {}
    mean, variance = draw.rng.choice([0.3, -1.2], 4), draw.rng.choice([0.5, 2.0], 4)
    model.add(
        "BatchNormalization",
        draw.rng.choice([-1.0, 0.5], 4),
        draw.rng.choice([0.1, -0.7], 4),
        mean,
        variance,
        **options,
    )
    return scores(draw, signed(model), 4)


def add_clip(draw, opset):
    model = Model([1, 4], opset=opset).add("MatMul", draw.signs(4, 4))
    if draw.one(0, 1):
        signed(model)
    low, high = draw.one(None, -1.0, 0.0, -0.5), draw.one(None, 1.0, 0.5, float("inf"))
    if opset < 11:
        model.add("Clip", **{name: value for name, value in (("min", low), ("max", high)) if value is not None})
    else:
        model.add("Clip", *("" if value is None else model.constant(value) for value in (low, high)))
    return scores(draw, signed(model), 4)


def add_pad(draw, opset):
    model = images(draw, opset).add("Conv", draw.signs(2, 2, 1, 1))
    signed(model)
    pads = [0, 0, *draw.rng.integers(0, 2, 2).tolist(), 0, 0, *draw.rng.integers(0, 2, 2).tolist()]
    value, options = draw.one(None, 0.0, 1.0, -1.0), draw.some(mode=["constant", "constant", "edge"])
    if opset < 11:
        model.add("Pad", pads=pads, **options, **({} if value is None else {"value": value}))
    else:
        axes = opset >= 18 and draw.one(0, 1)
        given = [pads[2], pads[3], pads[6], pads[7]] if axes else pads
        names = [model.constant(given, np.int64), "" if value is None else model.constant(value)]
        model.add("Pad", *names, *([model.constant(draw.one([2, 3], [-2, -1]), np.int64)] if axes else []), **options)
    model.add("Conv", draw.signs(2, 2, 2, 2))
    return flat(draw, signed(model), size_of(model) or 1)


def add_reshape(draw, opset):
    model = images(draw, opset).add("Conv", draw.signs(2, 2, 1, 1))
    signed(model)
    options = draw.some(allowzero=[0, 1]) if opset >= 14 else {}
    shape = draw.one([1, -1], [0, -1], [1, 24], [0, 24], [-1, 24], [1, 0, -1], [2, 12])
    model.add("Reshape", model.constant(shape, np.int64), **options)
    return scores(draw, model, 24)


def add_flatten(draw, opset):
    model = signed(images(draw, opset).add("Conv", draw.signs(2, 2, 1, 1)))
    return scores(draw, model.add("Flatten", **draw.some(axis=[0, 1, 2, 4, *([-3, -1] if opset >= 11 else [])])), 24)


def add_axes(kind):
    def build(draw, opset):
        model = vector(draw, opset)
        model.add("Reshape", model.constant([1, 1, 4], np.int64))
        axes = draw.one([0], [1], [0, 1], [2], *([[-2], [-1]] if opset >= 11 else []))
        if kind == "Squeeze" and draw.one(0, 0, 1):
            model.add(kind)
        elif opset < 13:
            model.add(kind, axes=axes)
        else:
            model.add(kind, model.constant(axes, np.int64))
        return scores(draw, model, 4)

    return build


def add_windows(kind):
    def build(draw, opset):
        model = images(draw, opset)
        options = draw.some(strides=[[1, 1], [1, 2]], auto_pad=["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
        if options.get("auto_pad", "NOTSET") == "NOTSET":
            options |= draw.some(pads=[[0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]])
        if kind == "Conv":
            groups = draw.one(1, 1, 2)
            options |= draw.some(kernel_shape=[[2, 2]], dilations=[[1, 1], [1, 2]]) | (
                {} if groups == 1 else {"group": 2}
            )
            if options.get("auto_pad", "NOTSET") != "NOTSET":
                options.pop("dilations", None)
            bias = [draw.one([0.5, -1.0], [0.0, 0.25])] if draw.one(0, 1) else []
            model.add("Conv", draw.signs(2, 2 // groups, 2, 2), *bias, **options)
            return flat(draw, signed(model), size_of(model) or 1)
        model.add("Conv", draw.signs(2, 2, 1, 1))
        signed(model)
        if opset >= 8:
            options |= draw.some(storage_order=[0, 1])
        if opset >= 10:
            options |= draw.some(ceil_mode=[0, 1], dilations=[[1, 1], [1, 2]])
        if any(options.get("pads", ())):
            options["pads"] = [0, 1, 0, 1]
        model.add("MaxPool", kernel_shape=draw.one([2, 2], [1, 2], [2, 1]), **options)
        return flat(draw, model, size_of(model) or 1)

    return build


def add_transpose(draw, opset):
    model = signed(images(draw, opset).add("Conv", draw.signs(2, 2, 1, 1)))
    return flat(draw, model.add("Transpose", **draw.some(perm=[[0, 2, 3, 1], [0, 1, 3, 2], [3, 2, 1, 0]])), 24)


def add_dropout(draw, opset):
    model = vector(draw, opset)
    if opset < 12:
        return scores(draw, model.add("Dropout", **draw.some(ratio=[0.3])), 4)
    names = [model.constant(0.5), model.constant(draw.one(False, True), bool)][: draw.one(0, 1, 2)]
    return scores(draw, model.add("Dropout", *names, **draw.some(seed=[3])), 4)


def add_comparison(kind):
    def build(draw, opset):
        model = Model([1, 4], opset=opset).add("MatMul", draw.signs(4, 4))
        bound = draw.rng.choice([0.0, 1.0, -1.0], draw.one((1,), (4,)))
        model.add(kind, bound) if draw.one(0, 1) else model.add(kind, before=[bound])
        if draw.one(0, 1):
            model.add("Not")
        if opset >= 9 and draw.one(0, 1):
            model.add("Where", draw.one([1.0], [2.0]), [-1.0])
        else:
            model.add("Cast", to=TensorProto.FLOAT)
        return scores(draw, model, 4)

    return build


def add_plain(kind):
    def build(draw, opset):
        model = Model([1, 4], opset=opset).add("MatMul", draw.signs(4, 4))
        if kind in ("Add", "Sub", "Mul", "Div"):
            constant = draw.rng.choice([0.5, -1.5, 2.0], draw.one((1,), (4,), (1, 4)))
            model.add(kind, constant) if draw.one(0, 1) else model.add(kind, before=[constant])
        elif kind == "Relu":
            signed(model).add(kind)
            return scores(draw, model, 4)
        elif kind == "Sign":
            model.add("Add", [0.5]).add("Sign")
            return scores(draw, model, 4)
        elif kind == "Cast":
            signed(model)
            options = draw.some(saturate=[0, 1]) if opset >= 19 else {}
            model.add("Cast", to=draw.one(TensorProto.INT8, TensorProto.INT64, TensorProto.FLOAT), **options)
            model.add("Cast", to=TensorProto.FLOAT)
            return scores(draw, model, 4)
        elif kind == "Shape":
            options = draw.some(start=[0, 1, -2], end=[2, -1]) if opset >= 15 else {}
            at = model.at
            model.add("Shape", **options)
            sizes, model.at = model.at, at
            model.add("Reshape", sizes)
        elif kind != "MatMul":
            model.add(kind)
        return scores(draw, signed(model, 0.0 if kind in ("Tanh", "Softsign") else -0.25), 4)

    return build


BUILDERS = {
    **{kind: add_final(kind) for kind in ("ArgMax", "Softmax", "LogSoftmax", "Sigmoid", "TopK")},
    **{kind: add_axes(kind) for kind in ("Squeeze", "Unsqueeze")},
    **{kind: add_windows(kind) for kind in ("Conv", "MaxPool")},
    **{kind: add_comparison(kind) for kind in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")},
    **{kind: add_plain(kind) for kind in ("Add", "Sub", "Mul", "Div", "Neg", "Identity", "Relu", "Sign", "Tanh")},
    **{kind: add_plain(kind) for kind in ("Softsign", "Cast", "Shape", "MatMul")},
    "BatchNormalization": add_norm, "Clip": add_clip, "Dropout": add_dropout, "Flatten": add_flatten,
    "Gemm": add_gemm, "Pad": add_pad, "Reshape": add_reshape, "Transpose": add_transpose,
    "Not": add_comparison("Greater"), "Where": add_comparison("Less"),
}  # fmt: skip


def versions(kind):
    """Opsets in which the operator is another one than in the opset before, and the newest."""
    known = [v for v in range(FIRST, LAST + 1) if defs.has(kind, v)]
    starts = {max(defs.get_schema(kind, v).since_version, known[0]) for v in known}
    return sorted(starts | {known[-1]})


def points_of(shape):
    n = int(np.prod(shape))
    if n <= 4:
        return np.array(list(itertools.product((-1, 0, 1, 2), repeat=n)))[::5]
    return np.random.default_rng(0).integers(-1, 3, (12, n))


def expected(proto, kind, opset, x):
    """What ONNX makes of one input.

    Its reference does not know that Softmax flattens up to opset 12, and trains batch norms up to opset 13.
    """
    if kind in ("Softmax", "LogSoftmax") and opset < 13:
        before = helper.make_model(proto.graph, opset_imports=proto.opset_import)
        node = before.graph.node.pop()
        axis = next((a.i for a in node.attribute), 1)
        before.graph.output[0].name = node.input[0]
        z = ReferenceEvaluator(before).run(None, {"x": x})[0].astype(np.float64)
        rows = np.exp(z.reshape(int(np.prod(z.shape[:axis])), -1))
        rows = rows / rows.sum(axis=1, keepdims=True)
        return (np.log(rows) if kind == "LogSoftmax" else rows).ravel()
    if kind == "BatchNormalization" and opset < 14:  # which the reference trains; without spatial it is that of 14
        (node,) = (node for node in proto.graph.node if node.op_type == kind)
        kept = [a for a in node.attribute if a.name != "spatial"]
        del node.attribute[:]
        node.attribute.extend(kept)
        proto.opset_import[0].version = 14
    return np.ravel(ReferenceEvaluator(proto).run(None, {"x": x})[0])


@pytest.mark.parametrize("kind", OWN)
def test_every_operator_means_what_onnx_evaluates_or_is_refused(tmp_path, kind):
    read = 0
    for opset in versions(kind):
        for seed in range(max(3, 24 // len(versions(kind)))):
            draw = Draw(seed, opset)
            proto = BUILDERS[kind](draw, opset).proto(
                output_type=TensorProto.INT64 if kind in ("ArgMax", "TopK") else 1
            )
            path = tmp_path / "m.onnx"
            onnx.save(proto, path)
            try:
                imported = load(path, coding=BOX)
            except (UnsupportedError, FormatError) as error:
                assert "node 'n" in str(error), error
                continue
            read += 1
            points = points_of(imported.input_shape)
            mine = runtime.outputs(imported, points[:2], path)
            for number, (point, fed) in enumerate(zip(points, imported.fed(points), strict=True)):
                wanted = expected(proto, kind, opset, fed)
                if mine.values is not None and number < 2:
                    assert np.allclose(mine.values[number], wanted, atol=1e-6), (opset, seed)
                exact = imported.network.scores(point)
                if imported.gives == "class":
                    assert imported.network.evaluate(point) == int(wanted[0]), (opset, seed)
                elif kind in ("Softmax", "LogSoftmax", "Sigmoid"):
                    assert (
                        np.argsort(wanted, kind="stable").tolist()
                        == np.argsort([float(v) for v in exact], kind="stable").tolist()
                    )
                else:
                    assert np.allclose([float(v) for v in exact], wanted, atol=1e-5), (opset, seed)
    assert read >= 2


def test_what_an_opset_does_not_know_is_refused_with_the_node(tmp_path):
    def refused(model, match):
        with pytest.raises((UnsupportedError, FormatError), match=match):
            load(model.save(tmp_path / "m.onnx"), coding=BOX)

    w = np.ones((4, 3))

    def start(opset):
        return Model([1, 4], opset=opset).add("MatMul", w)

    refused(
        start(13).add("ArgMax", axis=1, select=1), r"node 'n1' \(ArgMax\) has the attribute 'select', which opset 13"
    )
    refused(start(11).add("ArgMax", axis=1, select_last_index=0), r"'select_last_index', which opset 11 does not know")
    refused(start(8).add("Sign"), r"node 'n1' \(Sign\) is not in opset 8, expected 9 or later")
    refused(start(13).add("Squeeze", axes=[0]), r"node 'n1' \(Squeeze\) has the attribute 'axes', which opset 13")
    refused(start(10).add("Clip", -1.0), r"node 'n1' \(Clip\) has 2 inputs, expected 1 in opset 10")
    refused(
        start(13).add("Softmax", axis="1"), r"node 'n1' \(Softmax\) has the attribute axis '1', expected a value of"
    )
    refused(start(13).add("Cast"), r"node 'n1' \(Cast\) has no attribute 'to', expected it in opset 13")
    for opset in (6, 29):
        refused(start(opset), rf"node 'n0' \(MatMul\) is of opset {opset}, expected 7 to 28")


def folded(kind, opset, rng):
    """A node of the kind over constants: its inputs and attributes."""
    a = rng.choice([-2.0, -0.5, 0.5, 1.0, 3.0], (2, 3)).astype(np.float32)
    b = rng.choice([-2.0, 0.5, 1.0, 4.0], (2, 3)).astype(np.float32)
    axes = np.array([1], dtype=np.int64)
    truth = a > 0
    if kind in ("Abs", "Ceil", "Exp", "Floor", "Identity", "Neg", "Reciprocal", "Round", "Sigmoid", "Sign", "Tanh"):
        return [a], {}
    if kind in ("Log", "Sqrt"):
        return [np.abs(a)], {}
    if kind in (
        "Add",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Sub",
        "Sum",
    ):
        return [a, b], {}
    if kind in ("And", "Or", "Xor"):
        return [truth, b > 0], {}
    special = {
        "Cast": ([a], {"to": TensorProto.INT32}), "Concat": ([a, b], {"axis": 1}), "Constant": ([], None),
        "ConstantOfShape": ([np.array([2, 2])], {}), "Expand": ([a, np.array([2, 2, 3])], {}),
        "Flatten": ([a], {}), "Gather": ([a, np.array([1, 0])], {"axis": 1}), "MatMul": ([a, b.T], {}),
        "Not": ([truth], {}), "Pow": ([np.abs(a), np.full(1, 2, dtype=np.float32)], {}),
        "Range": ([np.int64(0), np.int64(5), np.int64(2)], {}), "Reshape": ([a, np.array([3, -1])], {}),
        "Shape": ([a], {}), "Size": ([a], {}), "Split": ([a], {"axis": 0}), "Tile": ([a, np.array([1, 2])], {}),
        "Transpose": ([a], {}), "Where": ([truth, a, b], {}),
        "Clip": ([a], {"min": -1.0, "max": 1.0}) if opset < 11 else ([a, np.float32(-1), np.float32(1)], {}),
        "Slice": ([a], {"starts": [0], "ends": [2], "axes": [1]}) if opset < 10 else ([a, axes - 1, axes, axes], {}),
        "Squeeze": ([a[None]], {"axes": [0]}) if opset < 13 else ([a[None], axes * 0], {}),
        "Unsqueeze": ([a], {"axes": [1]}) if opset < 13 else ([a, axes], {}),
    }  # fmt: skip
    if kind in special:
        return special[kind]
    since = 13 if kind == "ReduceSum" else 18  # Reduce...
    return ([a], {"axes": [1], "keepdims": 0}) if opset < since else ([a, axes], {"keepdims": 0})


@pytest.mark.parametrize("kind", sorted(CONSTANT_OPERATORS))
def test_constants_are_folded_as_onnxruntime_computes_them(tmp_path, kind):
    import onnxruntime

    from bnnverify.formats.onnxgraph import Node, evaluated
    from tests.onnxmodels import SESSION

    compared = 0
    for opset in versions(kind):
        arrays, attributes = folded(kind, opset, np.random.default_rng(opset))
        if attributes is None:
            attributes = {"value": onnx.numpy_helper.from_array(np.arange(3.0, dtype=np.float32))}
        names = [f"i{k}" for k in range(len(arrays))]
        outs = ["y", "z"] if kind == "Split" else ["y"]
        if kind == "Split" and opset >= 18:
            attributes = {**attributes, "num_outputs": 2}
        proto = helper.make_node(kind, names, outs, "n", **attributes)
        arrays = [np.asarray(array) for array in arrays]
        found = evaluated(Node(kind, "n", tuple(names), tuple(outs), {}, proto), arrays, {"ai.onnx": opset})
        constants = [onnx.numpy_helper.from_array(array, name) for name, array in zip(names, arrays, strict=True)]
        ends = [onnx.ValueInfoProto(name=name) for name in outs]
        graph = helper.make_graph([proto], "g", [], ends, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        try:
            wanted = onnxruntime.InferenceSession(model.SerializeToString(), SESSION).run(None, {})
        except Exception:
            continue
        compared += 1
        for one, other in zip(found, wanted, strict=True):
            assert np.asarray(one).dtype == other.dtype and np.shape(one) == other.shape, opset
            assert np.allclose(one, other, rtol=1e-6), opset
    assert compared


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"),
    [
        ("ConstantOfShape", [np.array([2**40])], {}),
        ("Expand", [np.float32(1), np.array([2**20, 2**20])], {}),
        ("Tile", [np.ones(4, dtype=np.float32), np.array([2**40])], {}),
        ("Range", [np.int64(0), np.int64(2**40), np.int64(1)], {}),
        ("Add", [np.ones((2**15, 1), dtype=np.float32), np.ones((1, 2**15), dtype=np.float32)], {}),
        ("MatMul", [np.ones((2**15, 1), dtype=np.float32), np.ones((1, 2**15), dtype=np.float32)], {}),
        ("Gather", [np.ones((1, 2**15), dtype=np.float32), np.zeros(2**15, dtype=np.int64)], {"axis": 0}),
    ],
)
def test_constants_that_would_fill_memory_are_refused(tmp_path, kind, constants, attributes):
    model = Model([1, 4])
    names = [model.constant(array, array.dtype) for array in constants]
    model.nodes.append(helper.make_node(kind, names, ["big"], "big", **attributes))
    with pytest.raises(UnsupportedError, match=r"m\.onnx: node 'big' \(\w+\) makes \d+ constants, expected at most"):
        load(model.add("Add", "big").save(tmp_path / "m.onnx"), coding=BOX)


def test_sizes_that_would_fill_memory_are_refused(tmp_path):
    def refused(model, match):
        with pytest.raises((UnsupportedError, FormatError), match=match):
            load(model.save(tmp_path / "m.onnx"), coding=BOX)

    refused(Model([1, 2**40]).add("Sign"), r"input 'x': the shape is \(1, 1099511627776\), expected 1 to")
    one = np.ones((1, 1, 2, 2))
    refused(Model([1, 1, 3, 3]).add("Conv", one, dilations=[2**20, 2**20]), r"'n0' \(Conv\): its filters: the shape is")
    refused(
        Model([1, 1, 3, 3]).add("Conv", one, pads=[0, 0, 2**30, 2**30]), r"filters that stand for an uneven padding"
    )
    refused(Model([1, 1, 3, 3]).add("Conv", one, pads=[2**20] * 4), r"the output of node 'n0' \(Conv\): the shape is")
    refused(Model([1, 4]).add("MatMul", np.ones((4, 0))), r"'n0' \(MatMul\): its weights: the shape is \(0, 4\)")


def test_constants_of_another_type_are_refused(tmp_path):
    model = Model([1, 4])
    model.add("Sub", model.constant([True], bool))
    with pytest.raises(UnsupportedError, match=r"'n0' \(Sub\) calculates in bool"):
        load(model.save(tmp_path / "m.onnx"), coding=BOX)
