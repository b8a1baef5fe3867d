"""A check by onnxruntime that cannot run is a reason; the answer stands without it."""

import itertools
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnnverify.cli import main
from bnnverify.formats.agreement import compare, random_inputs
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.onnx import load
from tests.onnxmodels import Model

SAT = ((1, 1), (1, 2), (2, 1))


def pixels(last="scores", opset=13):
    """a0 = +1 iff x0 + x1 >= 4, a1 = +1 iff x1 >= x0; Y = (a0 + a1, a1 - a0), so Y_1 >= Y_0 iff x0 + x1 <= 3."""
    model = Model([1, 2], "X", opset).add("MatMul", [[1.0, -1.0], [1.0, 1.0]]).add("Sub", [4.0, 0.0])
    if last == "bipolar":
        model.add("BipolarQuant", model.constant(1.0), domain="qonnx.custom_op.general")
    else:
        model.add("Sign").add("Add", 0.5).add("Sign")
    model.add("MatMul", [[1.0, -1.0], [1.0, 1.0]])
    return model.add("ArgMax", axis=1) if last == "class" else model


def as_half(proto):
    """The model in float16."""
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    return proto


def later(proto):
    proto.ir_version = 99
    return proto


MODELS = {
    "plain": lambda: pixels().proto(),
    "half": lambda: as_half(pixels().proto()),
    "bipolar": lambda: pixels("bipolar").proto(),
    "ir": lambda: later(pixels().proto()),
    "opset": lambda: pixels(opset=28).proto(),
}


def written(tmp_path, proto, least=1, most=3):
    text = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    text += "".join(f"(assert (>= X_{i} {least}))(assert (<= X_{i} {most}))\n" for i in range(2))
    (tmp_path / "p.vnnlib").write_text(text + "(assert (>= Y_1 Y_0))\n")
    onnx.save(proto, tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx"), str(tmp_path / "p.vnnlib")


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_onnxruntime_cannot_run_is_imported_and_the_reason_is_said(tmp_path, capsys, kind):
    model, _ = written(tmp_path, MODELS[kind]())
    code = main(["import", model, "--input-range", "0", "255", "-o", str(tmp_path / "n.npz")])
    text = capsys.readouterr().out
    assert code == 0
    assert "sha256 7b9c5e8cfa3b4c12737a302fe99ad79bd52ea4766d34e4bf9f72d1c68e3462b6\n" in text
    assert (tmp_path / "n.npz").exists()
    if kind in ("plain", "half"):
        assert "gives the same class on 100 of 100" in text
    elif kind in ("bipolar", "ir"):
        assert "not compared with onnxruntime: it cannot run the model (" in text
        assert kind == "bipolar" or "(Unsupported model IR version: 99" in text


@pytest.mark.parametrize("kind", MODELS)
def test_verify_writes_the_result_of_a_model_that_onnxruntime_cannot_run(tmp_path, capsys, kind):
    model, question = written(tmp_path, MODELS[kind]())
    result = tmp_path / "r.txt"
    assert main(["verify", model, question, "--result", str(result)]) == 0
    rows = [f"sat\n((X_0 {a})\n(X_1 {b})\n" for a, b in SAT]
    assert any(result.read_text().startswith(row) for row in rows)
    model, question = written(tmp_path, MODELS[kind](), 2)
    assert main(["verify", model, question, "--result", str(result)]) == 0
    assert result.read_text() == "unsat\n"


def test_without_onnxruntime_nothing_is_lost(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model, question = written(tmp_path, pixels().proto())
    assert main(["import", model, "--input-range", "0", "255", "-o", str(tmp_path / "n.npz")]) == 0
    assert "not compared with onnxruntime: it is not installed" in capsys.readouterr().out
    assert main(["verify", model, question, "--result", str(tmp_path / "r.txt")]) == 0
    assert (tmp_path / "r.txt").read_text().startswith("sat\n")
    assert main(["export", str(tmp_path / "n.npz"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert "not compared with onnxruntime: it is not installed" in capsys.readouterr().out


def test_a_property_of_a_model_that_gives_a_class_is_refused_before_any_work(tmp_path, capsys):
    model, question = written(tmp_path, pixels("class").proto(output_type=TensorProto.INT64))
    assert main(["verify", model, question, "--result", str(tmp_path / "r.txt")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "declares 2 outputs, but the model has 1" in said.err
    assert not (tmp_path / "r.txt").exists()
    imported = load(model, coding=InputCoding.integers(0, 9))
    points = np.array(list(itertools.product(range(5), repeat=2)))
    assert compare(imported, points, model).equal == 25


def test_a_refused_model_leaves_no_result_of_an_earlier_run(tmp_path, capsys):
    model, question = written(tmp_path, pixels().add("Erf").proto())
    (tmp_path / "r.txt").write_text("unsat\n")
    assert main(["verify", model, question, "--result", str(tmp_path / "r.txt")]) == 2
    assert not (tmp_path / "r.txt").exists()


def test_a_model_that_mixes_the_rows_of_a_batch_is_compared_one_by_one(tmp_path):
    model = Model([None, 3])
    model.add("MatMul", [[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]).add("Reshape", model.constant([1, 2], np.int64))
    imported = load(model.save(tmp_path / "m.onnx"), coding=InputCoding.integers(0, 3))
    assert compare(imported, random_inputs(imported, 30), tmp_path / "m.onnx").equal == 30


@pytest.mark.parametrize("last", [None, "Sigmoid"])
def test_a_single_score_is_compared_by_its_sign(tmp_path, last):
    model = Model([None, 3]).add("MatMul", [[1.0], [-1.0], [1.0]]).add("Sub", 1.0)
    imported = load((model.add(last) if last else model).save(tmp_path / "m.onnx"), coding=InputCoding.integers(0, 3))
    points = np.array(list(itertools.product(range(4), repeat=3)))
    assert imported.network.evaluate_batch(points).tolist() == [int(a - b + c >= 1) for a, b, c in points.tolist()]
    assert compare(imported, points, tmp_path / "m.onnx").equal == 64


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64])
def test_inputs_of_any_type_are_fed_to_onnxruntime(tmp_path, kind):
    model = Model([None, 3]).add("Cast", to=TensorProto.FLOAT).add("MatMul", [[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    proto = model.proto()
    proto.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    onnx.save(proto, tmp_path / "m.onnx")
    imported = load(tmp_path / "m.onnx", coding=InputCoding.integers(0, 255))
    assert compare(imported, random_inputs(imported, 30), tmp_path / "m.onnx").equal == 30
    if kind == np.uint8:
        with pytest.raises(NotImplementedError, match=r"the input 'x' takes uint8, but is fed integers -1\.\.255"):
            load(tmp_path / "m.onnx", coding=InputCoding.integers(-1, 255))


def external(folder, location="side.bin", entries=None, write=True):
    """The model of pixels with its constants in another file."""
    proto = pixels().proto()
    data = b""
    for tensor in proto.graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        place = {"location": location, "offset": len(data), "length": len(raw)} | (entries or {})
        data += raw
        for field in ("float_data", "int64_data"):
            tensor.ClearField(field)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
    if write:
        (folder / location).parent.mkdir(exist_ok=True)
        (folder / location).write_bytes(data)
    return proto


@pytest.mark.parametrize("location", ["side.bin", "data/side.bin"])
def test_constants_in_another_file_are_read(tmp_path, capsys, location):
    model, question = written(tmp_path, external(tmp_path, location))
    assert main(["import", model, "--input-range", "0", "255"]) == 0
    text = capsys.readouterr().out
    assert "sha256 7b9c5e8cfa3b4c12737a302fe99ad79bd52ea4766d34e4bf9f72d1c68e3462b6\n" in text
    assert "gives the same class on 100 of 100" in text
    assert main(["verify", model, question, "--result", str(tmp_path / "r.txt")]) == 0
    assert (tmp_path / "r.txt").read_text().startswith("sat\n")


def test_nodes_of_one_name_are_read_though_onnxruntime_refuses_them(tmp_path, capsys):
    proto = pixels().proto()
    for node in proto.graph.node:
        node.name = "node"
    model, question = written(tmp_path, proto)
    assert main(["import", model, "--input-range", "0", "255", "-o", str(tmp_path / "n.npz")]) == 0
    text = capsys.readouterr().out
    assert "sha256 7b9c5e8cfa3b4c12737a302fe99ad79bd52ea4766d34e4bf9f72d1c68e3462b6\n" in text
    assert "not compared with onnxruntime: it cannot run the model (This is an invalid model. Error: two nodes" in text
    assert main(["verify", model, question, "--result", str(tmp_path / "r.txt")]) == 0
    assert (tmp_path / "r.txt").read_text().startswith("sat\n")


@pytest.mark.parametrize(
    ("location", "entries", "match"),
    [
        ("../side.bin", {}, r"its data lie in '\.\./side\.bin', expected a file in the folder of the model"),
        ("link/side.bin", {}, r"its data lie in 'link/side\.bin', expected a file in the folder"),
        ("/etc/passwd", {}, r"expected a file in the folder of the model"),
        ("", {}, r"expected a file in the folder of the model"),
        ("none.bin", {}, r"'none\.bin', which is no file in the folder"),
        (".", {}, r"'\.', which is no file"),
        ("side.bin", {"offset": 10**6}, r"bytes 1000000 to .* expected \d+ bytes that are there"),
        ("side.bin", {"length": 3}, r"expected 16 bytes that are there"),
        ("side.bin", {"offset": "x"}, r"invalid literal"),
        ("side.bin", {"offset": -8}, r"bytes -8 to"),
    ],
)
def test_constants_outside_of_the_folder_of_the_model_are_refused(tmp_path, location, entries, match):
    inside = tmp_path / "models"
    inside.mkdir()
    (tmp_path / "side.bin").write_bytes(bytes(200))
    (inside / "side.bin").write_bytes(bytes(200))
    (inside / "link").symlink_to(tmp_path)
    (inside / "m.onnx").write_bytes(external(inside, location, entries, write=False).SerializeToString())
    with pytest.raises(ValueError, match=rf"m\.onnx: the constant 'c0' cannot be read .*{match}"):
        load(inside / "m.onnx", coding=InputCoding.integers(0, 9))
