"""`bnnverify import` and `export`, and agreement with onnxruntime."""

import json
import pickle

import numpy as np
import onnx
import pytest

from bnnverify.cli import main
from bnnverify.errors import FormatError, ModelError, UnsupportedError
from bnnverify.formats import import_model, kind_of, load_network, native
from bnnverify.formats.agreement import compare, random_inputs
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from tests.onnxmodels import Model


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    graph = Model([None, 1, 3, 3]).add("Conv", rng.choice([-1.0, 1.0], (2, 1, 2, 2))).add("Sign").add("Add", 0.1)
    graph.add("Sign").add("Flatten").add("MatMul", rng.choice([-1.0, 1.0], (8, 3))).add("Softmax")
    return graph.save(tmp_path / "m.onnx")


def test_import_prints_what_was_understood_and_saves_it(model, tmp_path, capsys):
    saved = tmp_path / "net.npz"
    assert main(["import", str(model), "--input-range", "0", "9", "-o", str(saved), "--samples", "50"]) == 0
    out = capsys.readouterr().out
    assert "2 filters 2x2 over 1x3x3 -> 2x2x2" in out and "2 units can meet their threshold" in out
    assert "(Softmax) at the end was dropped" in out
    assert "gives the same class on 50 of 50" in out
    assert load_network(saved) == import_model(model, coding=InputCoding.integers(0, 9)).network


def test_import_as_json_is_one_line(model, capsys):
    assert main(["import", str(model), "--input-range", "0", "9", "--json", "--samples", "7"]) == 0
    line = json.loads(capsys.readouterr().out)
    answer = line["answer"]
    assert line["verb"] == "import" and answer["agreement"]["inputs"] == answer["agreement"]["equal"] == 7
    assert [layer["kind"] for layer in answer["layers"]] == ["conv", "output"]
    assert answer["input"] == {"name": "x", "shape": [1, 1, 3, 3]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "an ONNX file does not say which numbers are inputs"),
        (["--input", "signs", "--input-range", "0", "9"], "--input and --input-range are both given"),
        (["--input", "signs", "--input-scale", "1/2"], "--input-scale is given without --input-range"),
        (["--input-range", "0", "9", "--input-scale", "1/0"], "--input-scale is '1/0', expected a number"),
        (["--input-range", "9", "0"], "the input range is 9 to 0"),
        (["--input-range", "0", "9", "--input-scale", "0"], "the input scale is 0"),
        (["--input-range", "0", "9", "--input-shape", "1,a"], "--input-shape is '1,a', expected sizes"),
        (["--input-range", "0", "9", "--samples", "0"], "--samples is 0, expected 1 to 1000000"),
        (["--input-range", "0", "9", "--layer", "c:pool=2"], "--layer: for torch state dicts only"),
        (["--input-range", "0", "9", "--data", "digits"], "the images have 64 pixels, but the network takes 9"),
    ],
)
def test_mistakes_are_one_line(model, capsys, options, message):
    assert main(["import", str(model), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_images_of_a_data_set_are_compared_and_counted(tmp_path, capsys):
    rng = np.random.default_rng(1)
    graph = Model([None, 1, 8, 8]).add("Flatten").add("MatMul", rng.choice([-1.0, 1.0], (64, 10)))
    path = str(graph.save(tmp_path / "m.onnx"))
    assert main(["import", path, "--input-range", "0", "16", "--data", "digits", "--index", "0:30"]) == 0
    out = capsys.readouterr().out
    assert "on 30 images of digits, test split" in out and "of 30 classified right" in out and "on 30 of 30" in out


def test_a_difference_from_the_framework_is_found_and_exits_with_1(tmp_path, capsys):
    # float32 has no room for 2^24 + 1: the sum loses its last bit, and the sign with it
    graph = Model([None, 2]).add("Mul", np.float32(2**24)).add("Div", np.float32(2**24))
    graph.add("Add", np.float32(2**26)).add("Sub", np.float32(2**26)).add("MatMul", [[1.0], [1.0]])
    graph.add("Add", -0.5).add("Sign").add("MatMul", [[1.0, -1.0]])
    path = str(graph.save(tmp_path / "m.onnx"))
    assert main(["import", path, "--input-range", "0", "3", "--samples", "200"]) == 1
    assert "the first that differs is number" in capsys.readouterr().out


def test_export_is_read_back_and_compared(tmp_path, capsys):
    block = DenseBlock.create([[1, -1, 1], [1, 1, 1]], [0, 1])
    network = BinaryNetwork(InputDomain.binary(3), (block,), OutputBlock.create([[1, 1], [1, -1]]))
    native.save(network, tmp_path / "net.npz")
    assert main(["export", str(tmp_path / "net.npz"), "-o", str(tmp_path / "net.onnx")]) == 0
    out = capsys.readouterr().out
    assert "read back as the same network" in out and "on 100 of 100 random inputs" in out
    assert load_network(tmp_path / "net.onnx") == network
    assert main(["info", str(tmp_path / "net.onnx")]) == 0  # our own ONNX says what its inputs are
    assert main(["export", str(tmp_path / "net.npz"), "-o", str(tmp_path / "none" / "net.onnx")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_margins_and_ties_are_those_of_the_sums(tmp_path):
    graph = Model([None, 1]).add("MatMul", [[1.0]]).add("Add", -2.0).add("Sign").add("Add", 0.1).add("Sign")
    path = graph.add("MatMul", [[1.0, 1.0]]).save(tmp_path / "m.onnx")
    imported = import_model(path, coding=InputCoding.integers(0, 9))
    agreement = compare(imported, np.array([[2], [5], [9]]), str(path))
    assert (agreement.equal, agreement.tied) == (3, 3)  # both classes always have the same score
    (margins,) = agreement.margins
    assert (margins.ties, margins.smallest) == (1, 3)
    assert compare(imported, np.array([[2]])).margins[0].smallest is None
    assert compare(imported, np.array([[2]])).equal is None


def test_random_inputs_fill_the_domain():
    network = BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create([[1, 1, 1], [1, -1, 1]]))
    imported = Imported(network, InputCoding.signs(), np.arange(3), "x", (1, 3), (), ())
    assert set(np.unique(random_inputs(imported, 50))) == {-1, 1}


def test_values_that_the_coding_does_not_give_are_refused():
    network = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (), OutputBlock.create([[1, 1], [1, -1]]))
    imported = Imported(network, InputCoding.integers(0, 9, scale=0.5), np.array([1, 0]), "x", (1, 2), (), ())
    assert imported.read([0.5, 4.0]).tolist() == [8, 1]
    assert imported.fed([8, 1]).tolist() == [[0.5, 4.0]]
    assert imported.read([[0.5, 4.0], [1.0, 0.0]]).tolist() == [[8, 1], [0, 2]]
    with pytest.raises(ModelError, match=r"0\.3 is not an input of the network, expected 1/2 \* x \+ 0"):
        imported.read([0.3, 1.0])


def test_kinds_are_told_by_content_and_suffix(tmp_path):
    for name, content, kind in (
        ("a.onnx", b"", "onnx"),
        ("a.onnx.gz", b"", "onnx"),
        ("a.h5", b"", "keras"),
        ("a.bin", b"\x89HDF\r\n\x1a\n", "keras"),
        ("a.pt", b"", "torch"),
        ("a.npz", b"", "native"),
        ("a.txt", b"hello", "unknown"),
    ):
        (tmp_path / name).write_bytes(content)
        assert kind_of(tmp_path / name) == kind
    with pytest.raises(FormatError, match=r"a\.txt: is of an unknown kind"):
        import_model(tmp_path / "a.txt")
    native.save(BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]])), tmp_path / "a.npz")
    with pytest.raises(UnsupportedError, match=r"a\.npz: is a network of bnnverify.*Use it directly"):
        import_model(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", weights=np.ones(2), bias=np.ones(2))
    with pytest.raises(
        FormatError, match=r"b\.npz: is of an unknown kind \(it is an archive of bias, weights\), expected"
    ):
        import_model(tmp_path / "b.npz")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match=r"c\.pkl: is of an unknown kind \(it is a pickle of Python objects"):
        import_model(tmp_path / "c.pkl")


def test_a_missing_package_names_the_extra(model, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert main(["import", str(model), "--input-range", "0", "9"]) == 2
    assert "pip install 'bnnverify[formats]'" in capsys.readouterr().err
    assert onnx is not None
