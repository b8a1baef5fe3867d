"""What a reader had to assume is said again by every verb that answers about the network, and travels with it."""

import json
import zipfile

import numpy as np
import pytest

from bnnverify.cli import main
from bnnverify.errors import FormatError
from bnnverify.formats import bnnquanalyst as quanalyst
from bnnverify.formats import load_network, native, onnx, onnxwriter
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock, Provenance

TEXT = "the epsilon of 1 batch norms was taken as 1e-05 (--epsilon)"


@pytest.fixture
def net(tmp_path):
    block = DenseBlock.create([[1, -1, 1, 1], [1, 1, 1, -1], [-1, 1, -1, 1]], [0, 1, -1])
    output = OutputBlock.create([[1, 1, -1], [1, -1, 1]], bias=[0.5, 0])
    network = BinaryNetwork(InputDomain.binary(4), (block,), output, Provenance({"assumed": [TEXT]}))
    native.save(network, tmp_path / "net.npz")
    (tmp_path / "row.txt").write_text("1 -1 1 1\n")
    return tmp_path


VERBS = {
    "verify": ["--input", "row.txt", "--radius", "1"],
    "count": ["--input", "row.txt", "--radius", "1"],
    "distance": ["--input", "row.txt"],
    "explain": ["--input", "row.txt", "--keep", "predicted", "--whole-cube"],
    "certify": ["--input", "row.txt", "--radius", "1", "--keep", "predicted"],
    "reliability": ["--input", "row.txt", "--ber", "0.01", "--keep", "predicted"],
    "info": [],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_was_assumed_about_the_network(net, capsys, verb, monkeypatch):
    monkeypatch.chdir(net)
    assert main([verb, "net.npz", *VERBS[verb]]) in (0, 1)
    found = capsys.readouterr()
    assert found.err.count(f"assumed: net.npz: {TEXT}\n") == 1
    assert main([verb, "net.npz", *VERBS[verb], "--json", "-q"]) in (0, 1)
    found = capsys.readouterr()
    assert found.err.count(TEXT) == 1
    lines = [json.loads(text) for text in found.out.splitlines()]
    assert lines and all(line["model"]["assumed"] == [TEXT] for line in lines)


def test_diagrams_properties_exports_and_reports_say_it_too(net, capsys, monkeypatch):
    monkeypatch.chdir(net)
    assert main(["diagram", "build", "net.npz", "--input", "row.txt", "--whole-cube", "-o", "net.json"]) == 0
    assert TEXT in capsys.readouterr().err
    assert main(["export", "net.npz", "-o", "net.onnx"]) == 0
    assert TEXT in capsys.readouterr().err
    assert main(["info", "net.onnx"]) == 0
    assert TEXT in capsys.readouterr().err
    bounds = "".join(f"(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(4))
    names = "".join(f"(declare-const {n} Real)" for n in ("X_0", "X_1", "X_2", "X_3", "Y_0", "Y_1"))
    (net / "p.vnnlib").write_text(f"{names}{bounds}(assert (>= Y_1 Y_0))")
    main(["verify", "net.npz", "p.vnnlib", "--json"])
    found = capsys.readouterr()
    assert TEXT in found.err
    assert main(["count", "net.npz", "--input", "row.txt", "--radius", "1", "--json"]) == 0
    (net / "lines.jsonl").write_text(capsys.readouterr().out)
    assert main(["report", "lines.jsonl", "-o", "page.html"]) == 0
    assert f"assumed: {TEXT}" in (net / "page.html").read_text()


def test_the_words_of_a_changed_file_are_checked(net):
    network = load_network(net / "net.npz")
    for value in ("text", 3, {"a": 1}, None):
        assert Provenance({"assumed": value}).assumptions == ()
    assert Provenance({"assumed": [1, "a", None]}).assumptions == ("a",)
    path = net / "net.onnx"
    onnxwriter.save(network, path)
    assert onnx.load(path).network.provenance.assumptions == (TEXT,)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'["the epsilon', b'"[the epsilon'))
    with pytest.raises(FormatError, match=r"metadata bnnverify\.assumed is .*, expected sentences"):
        onnx.load(path)


def folder(path, variance):
    """A model folder of BNNQuanalyst with one hidden neuron, whose threshold is 1 - 100 * sqrt(variance)."""
    texts = {
        "blk1": {"lin_weight": "1,1", "lin_bias": "0", "bn_weight": "0.01", "bn_bias": "1", "bn_mean": "1"},
        "out_blk": {"lin_weight": "1\n-1", "lin_bias": "0,0"},
    }
    texts["blk1"]["bn_var"] = variance
    for part, files in texts.items():
        (path / part).mkdir(parents=True)
        for name, text in files.items():
            (path / part / f"{name}.csv").write_text(text + "\n")
    return path


def test_a_missing_epsilon_is_said_where_it_would_change_a_threshold(tmp_path):
    assert quanalyst.load(folder(tmp_path / "a", "4")).provenance.assumptions == ()
    (text,) = quanalyst.load(folder(tmp_path / "b", "0.0000999")).provenance.assumptions
    assert text.startswith("no epsilon was added") and "1 neurons would have another threshold" in text


def test_what_an_eevbnn_file_leaves_out_is_said(tmp_path):
    meta = {"quant_step": 0.5, "input_shape": [1, 2, 2], "final_scale": 1.0}
    meta["layers"] = [{"type": "conv"}, {"type": "flatten"}, {"type": "linear_out"}]
    arrays = {"L0_w": np.ones((2, 1, 2, 2), np.int8), "L0_b": np.zeros(2, np.int32), "L0_s": np.ones(2, np.int8)}
    arrays |= {"L2_w": np.ones((2, 2), np.int8), "L2_b": np.zeros(2)}
    np.savez(tmp_path / "e.npz", meta=json.dumps(meta), **arrays)
    found = load_network(tmp_path / "e.npz").provenance.assumptions
    assert found == (
        "final_sign was taken as +1",
        "the stride of layer 0 was taken as 1",
        "the padding of layer 0 was taken as 0",
    )
    meta |= {"final_sign": 1}
    meta["layers"][0] |= {"stride": [1, 1], "padding": [0, 0]}
    np.savez(tmp_path / "f.npz", meta=json.dumps(meta), **arrays)
    assert load_network(tmp_path / "f.npz").provenance.assumptions == ()
    assert zipfile.is_zipfile(tmp_path / "f.npz")


def test_options_for_state_dicts_reach_the_reader_and_are_refused_elsewhere(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    state = {"a.weight": torch.tensor([[0.5, 0.0], [-1.0, 0.25]]), "n.running_mean": torch.tensor([0.0, 0.5])}
    state |= {"n.running_var": torch.ones(2), "b.weight": torch.tensor([[1.0, -0.5], [0.25, 1.0]])}
    torch.save(state, "m.pt")
    said = ["--latent-weights", "xnor", "--zero-weights", "plus", "--epsilon", "2e-5", "--activation", "sign"]
    assert main(["import", "m.pt", "--input", "signs", "--zero-sign", "plus", *said, "-o", "net.npz"]) == 0
    out = capsys.readouterr().out
    assert "layer 'a': weights read as signs times the mean magnitude of each row" in out
    assert "assumed" not in out
    assert load_network("net.npz").provenance.assumptions == ()
    assert main(["import", "m.pt", *said[:4]]) == 0
    out = capsys.readouterr().out
    for part in ("inputs were taken as -1/+1", "sign in front of layer 'b'", "epsilon of 1 batch norms"):
        assert any(part in line and line.startswith("assumed   ") for line in out.splitlines())
    assert main(["import", "m.pt"]) == 2
    assert "layer 'a' has real-valued weights" in capsys.readouterr().err
    assert main(["import", "m.pt", *said[:2], "--epsilon", "-1"]) == 2
    assert "the epsilon of batch norms is -1.0, expected" in capsys.readouterr().err
    assert main(["import", "net.npz", "--epsilon", "1e-3"]) == 2
    assert "--epsilon: for torch state dicts only" in capsys.readouterr().err
    assert main(["import", "m.pt", *said[:4], "--epsilon", "1e999999999"]) == 2
    assert "--epsilon is '1e999999999', expected a number such as 2e-5" in capsys.readouterr().err
