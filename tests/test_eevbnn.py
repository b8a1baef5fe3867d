"""Networks of eevbnn: the exact -1/+1 network equals the format's {0, 1} definition in plain loops."""

import io
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cli import main
from bnnverify.errors import FormatError, UnsupportedError
from bnnverify.formats import import_model, kind_of, load_network
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.eevbnn import load, quantized_value

STEP = "0.4"


def build(rng, shape=(1, 4, 4), filters=2, hidden=3, classes=3, pad=1, signs=(1, -1)):
    """Members of a file: a convolution, a dense layer and an output, with zeros among the weights."""
    channels, height, width = shape
    rows, columns = (height + 2 * pad - 3) // 2 + 1, (width + 2 * pad - 3) // 2 + 1
    flat = filters * rows * columns
    layers = [
        {"type": "conv", "stride": [2, 2], "padding": [pad, pad]},
        {"type": "conv", "stride": [1, 1], "padding": [1, 1]},
        {"type": "flatten"},
        {"type": "linear"},
        {"type": "linear_out"},
    ]
    meta = {
        "quant_step": float(STEP),
        "input_shape": list(shape),
        "layers": layers,
        "final_scale": 0.7,
        "final_sign": 1,
    }
    ternary = [-1, 0, 1]
    return {
        "meta": np.array(json.dumps(meta)),
        "L0_w": rng.choice(ternary, (filters, channels, 3, 3)).astype(np.int8),
        "L0_b": rng.integers(-3, 4, filters).astype(np.int32),
        "L0_s": rng.choice(signs, filters).astype(np.int8),
        "L1_w": rng.choice(ternary, (filters, filters, 3, 3)).astype(np.int8),
        "L1_b": rng.integers(-3, 4, filters).astype(np.int32),
        "L1_s": rng.choice(signs, filters).astype(np.int8),
        "L3_w": rng.choice(ternary, (hidden, flat)).astype(np.int8),
        "L3_b": rng.integers(-3, 4, hidden).astype(np.int32),
        "L3_s": rng.choice(signs, hidden).astype(np.int8),
        "L4_w": rng.choice(ternary, (classes, hidden)).astype(np.int8),
        "L4_b": rng.normal(size=classes),
    }


def defined(members, x, shape=(1, 4, 4)):
    """The scores as the format defines them, in loops over {0, 1}."""
    image = np.array(x).reshape(shape).tolist()
    for i, (step, pad) in ((0, (2, int(json.loads(str(members["meta"]))["layers"][0]["padding"][0]))), (1, (1, 1))):
        weights, bias, sign = (members[f"L{i}_{k}"].tolist() for k in "wbs")
        height, width = len(image[0]), len(image[0][0])
        outputs = []
        for f, kernel in enumerate(weights):
            plane = []
            for top in range(-pad, height + pad - 2, step):
                line = []
                for left in range(-pad, width + pad - 2, step):
                    total = bias[f]
                    for c, cells in enumerate(kernel):
                        for r in range(3):
                            for k in range(3):
                                if 0 <= top + r < height and 0 <= left + k < width:
                                    total += cells[r][k] * image[c][top + r][left + k]
                    line.append(int(sign[f] * total >= 0))
                plane.append(line)
            outputs.append(plane)
        image = outputs
    h = [v for plane in image for line in plane for v in line]
    sums = (sum(w * v for w, v in zip(row, h, strict=True)) for row in members["L3_w"].tolist())
    h = [
        int(s * (t + b) >= 0) for t, b, s in zip(sums, members["L3_b"].tolist(), members["L3_s"].tolist(), strict=True)
    ]
    return [
        Fraction(0.7) * (sum(w * v for w, v in zip(row, h, strict=True)) + Fraction(b))
        for row, b in zip(members["L4_w"].tolist(), members["L4_b"].tolist(), strict=True)
    ]


@given(st.integers(0, 10**6), st.integers(0, 1))
@settings(max_examples=40, deadline=None)
def test_every_score_is_the_one_that_the_format_defines(seed, pad):
    import tempfile
    from pathlib import Path

    rng = np.random.default_rng(seed)
    members = build(rng, pad=pad)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.npz"
        np.savez(path, **members)
        imported = load(path)
    top = imported.coding.upper
    assert top == round(Fraction(1) / Fraction(STEP)) == 2
    for x in rng.integers(0, top + 1, (6, 16)):
        assert list(imported.network.scores(x)) == defined(members, x)


def test_the_kind_shows_in_the_members(tmp_path):
    np.savez(tmp_path / "net.npz", **build(np.random.default_rng(0)))
    assert kind_of(tmp_path / "net.npz") == "eevbnn"
    network = load_network(tmp_path / "net.npz")
    assert network.provenance.data["quant_step"] == "2/5"
    assert network.domain.shape == (1, 4, 4)


@pytest.mark.parametrize(
    "option", [{"coding": InputCoding.integers(0, 255)}, {"zero_sign": 1}, {"input_shape": (1, 4, 4)}]
)
def test_what_the_file_says_itself_is_not_taken_from_elsewhere(tmp_path, option):
    np.savez(tmp_path / "net.npz", **build(np.random.default_rng(0)))
    with pytest.raises(UnsupportedError, match=r"a file of eevbnn says its .* itself"):
        import_model(tmp_path / "net.npz", **option)


def test_a_property_over_real_inputs_is_refused_for_the_file_and_about_integers_after_import(tmp_path, capsys):
    network, path, saved = tmp_path / "net.npz", tmp_path / "p.vnnlib", tmp_path / "saved.npz"
    np.savez(network, **build(np.random.default_rng(0)))
    lines = [f"(declare-const X_{i} Real)" for i in range(16)] + [f"(declare-const Y_{k} Real)" for k in range(3)]
    lines += [f"(assert (>= X_{i} 0))\n(assert (<= X_{i} 0))" for i in range(16)] + ["(assert (>= Y_0 Y_1))"]
    path.write_text("\n".join(lines))
    for extra in ((), ("--input-range", "0", "255")):
        assert main(["verify", str(network), str(path), *extra]) == 2
        assert "nothing says what these are there. Ask about images" in capsys.readouterr().err
    assert main(["import", str(network), "-o", str(saved)]) == 0
    assert main(["verify", str(saved), str(path)]) == 0
    scores = load_network(saved).scores([0] * 16)
    assert ("not-robust" in capsys.readouterr().out) == (scores[0] >= scores[1])


def test_a_tie_of_rounding_goes_to_the_even_integer():
    assert [quantized_value(Fraction(v, 2), Fraction(1)) for v in (1, 3, 5)] == [0, 2, 2]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"L0_w": None}, FormatError, "has no member L0_w"),
        ({"meta": np.array("{}")}, FormatError, "meta is not understood"),
        ({"meta": np.array("[")}, FormatError, "meta is not understood"),
        ({"L0_s": np.array([1, 0], dtype=np.int8)}, FormatError, r"L0_s\[1\] is 0, expected -1 or \+1"),
        ({"L3_w": np.full((3, 8), 2)}, FormatError, r"L3_w\[0, 0\] is 2, expected -1, 0 or \+1"),
        ({"L3_w": np.ones((3, 5), dtype=np.int8)}, FormatError, r"layer 3 has weights of shape \(3, 5\) for 8 inputs"),
        ({"L1_s": np.ones(3, dtype=np.int8)}, FormatError, r"L1_s has shape \(3,\), expected one sign per unit"),
    ],
)
def test_what_is_no_such_network_is_refused(tmp_path, change, error, message):
    members = {k: v for k, v in (build(np.random.default_rng(0)) | change).items() if v is not None}
    np.savez(tmp_path / "net.npz", **members)
    with pytest.raises(error, match=rf"net\.npz: .*{message}"):
        load(tmp_path / "net.npz")


def test_an_unknown_layer_is_refused_by_its_type(tmp_path):
    members = build(np.random.default_rng(0))
    meta = json.loads(str(members["meta"]))
    meta["layers"][1]["type"] = "pool"
    np.savez(tmp_path / "net.npz", **(members | {"meta": np.array(json.dumps(meta))}))
    with pytest.raises(UnsupportedError, match=r"net\.npz: layer 1 is of type 'pool', expected conv, flatten"):
        load(tmp_path / "net.npz")


def test_a_damaged_archive_is_refused(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, **build(np.random.default_rng(0)))
    for end in (10, 300, len(stream.getvalue()) - 5):
        (tmp_path / "net.npz").write_bytes(stream.getvalue()[:end])
        with pytest.raises(FormatError, match=r"net\.npz: is not a readable archive"):
            load(tmp_path / "net.npz")
