"""Model folders of BNNQuanalyst, written here: what is read is the formula of the format, exactly."""

import contextlib
import io
import json
import tempfile
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnnverify
from bnnverify.cli import main
from bnnverify.errors import FormatError
from bnnverify.formats import bnnquanalyst, load_network
from tests.strategies import signs

VECTORS = ("lin_bias", "bn_weight", "bn_bias", "bn_mean", "bn_var")


def write(folder, blocks, output):
    """The folder in the way its own tool writes it: shortest decimal text of float64 values."""
    for i, block in enumerate([*blocks, output], start=1):
        inner = folder / (f"blk{i}" if i <= len(blocks) else "out_blk")
        inner.mkdir(parents=True)
        for name, values in block.items():
            rows = values if name == "lin_weight" else [values]
            text = "\n".join(",".join(repr(float(v)) for v in row) for row in rows)
            (inner / f"{name}.csv").write_text(text + "\n")


def block(weights, **vectors):
    zeros = [0.0] * len(weights)
    defaults = {"lin_bias": zeros, "bn_weight": [1.0] * len(weights), "bn_bias": zeros, "bn_mean": zeros}
    return {"lin_weight": weights, **defaults, "bn_var": [1.0] * len(weights), **vectors}


def fires(total, bias, weight, shift, mean, variance):
    """``(total + bias - mean) / sqrt(variance) * weight + shift >= 0`` by cases of the signs, without a root."""
    centred = (total + Fraction(bias) - Fraction(mean)) * Fraction(weight)
    shift, variance = Fraction(shift), Fraction(variance)
    if (centred >= 0) == (shift >= 0):
        return centred >= 0
    larger = centred * centred - shift * shift * variance
    return larger >= 0 if centred >= 0 else larger <= 0


def formula(blocks, output, x):
    """Class of x as the format defines it, in plain loops over Fractions."""
    for one in blocks:
        totals = [sum(int(w) * v for w, v in zip(row, x, strict=True)) for row in one["lin_weight"]]
        x = [1 if fires(total, *(one[name][j] for name in VECTORS)) else -1 for j, total in enumerate(totals)]
    scores = [
        sum(int(w) * v for w, v in zip(row, x, strict=True)) + Fraction(bias)
        for row, bias in zip(output["lin_weight"], output["lin_bias"], strict=True)
    ]
    return scores.index(max(scores))


# Values at which pre-activations tie with the threshold, and the neighbours of one in float32.
single = [float(np.float32(v)) for v in (0.1, -0.7, 3.3, 1 + 2**-23, 1 - 2**-24)]
numbers = st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -3.0, *single])
variances = st.sampled_from([1.0, 4.0, 0.25, 2.0, 9.0, float(np.float32(3.3))])


@st.composite
def models(draw):
    width, blocks = draw(st.integers(1, 6)), []

    def rows(m, n):
        return draw(st.lists(st.lists(signs, min_size=n, max_size=n), min_size=m, max_size=m))

    for _ in range(draw(st.integers(0, 3))):
        m = draw(st.integers(1, 4))
        vectors = {
            name: draw(st.lists(variances if name == "bn_var" else numbers, min_size=m, max_size=m)) for name in VECTORS
        }
        blocks.append({"lin_weight": rows(m, width), **vectors})
        width = m
    classes = draw(st.integers(2, 4))
    bias = draw(st.lists(numbers, min_size=classes, max_size=classes))
    return blocks, {"lin_weight": rows(classes, width), "lin_bias": bias}


@given(models())
def test_every_input_has_the_class_of_the_formula(model):
    blocks, output = model
    with tempfile.TemporaryDirectory() as where:
        write(Path(where) / "net", blocks, output)
        network = load_network(Path(where) / "net")
    n = len((blocks[0] if blocks else output)["lin_weight"][0])
    for x in product((-1, 1), repeat=n):
        assert network.evaluate(x) == formula(blocks, output, x)


@pytest.mark.parametrize(
    ("vectors", "always"),
    [
        ({"bn_weight": [0.0], "bn_bias": [0.0]}, [1, 1, 1]),  # 0 >= 0 fires
        ({"bn_weight": [0.0], "bn_bias": [-1e-30]}, [-1, -1, -1]),
        ({"bn_weight": [-1.0]}, [1, 1, -1]),  # rising becomes falling, the tie still fires
        ({"bn_weight": [-1.0], "bn_mean": [2.0]}, [1, 1, 1]),
        ({"bn_mean": [2.0], "lin_bias": [0.5]}, [-1, -1, 1]),
        ({"bn_mean": [2.5], "lin_bias": [0.5]}, [-1, -1, 1]),
        ({"bn_mean": [2.5], "lin_bias": [0.25]}, [-1, -1, -1]),
        ({"bn_var": [4.0], "bn_bias": [1.0]}, [1, 1, 1]),  # -2 / 2 + 1 is 0
        ({"bn_var": [4.0], "bn_bias": [1.0], "bn_mean": [2.0**-40]}, [-1, 1, 1]),
    ],
)
def test_a_neuron_fires_by_the_formula_at_sums_of_minus_2_0_and_2(tmp_path, vectors, always):
    write(tmp_path / "net", [block([[1, 1]], **vectors)], {"lin_weight": [[1], [-1]], "lin_bias": [0.0, 0.0]})
    (hidden,) = load_network(tmp_path / "net").blocks
    assert [int(hidden.outputs(np.array(x))[0]) for x in ([-1, -1], [1, -1], [1, 1])] == always


def test_numbers_are_the_nearest_float64_and_scores_are_exact(tmp_path):
    value = float(np.float32(0.1))
    write(tmp_path / "net", [], {"lin_weight": [[1, -1], [1, 1]], "lin_bias": [value, 0.1]})
    assert load_network(tmp_path / "net").output.bias == (Fraction(value), Fraction(0.1))


def small(folder):
    write(
        folder,
        [block([[1, -1, 1, 1], [1, 1, -1, 1], [-1, -1, 1, -1]], bn_weight=[1.0, -2.0, 0.0])],
        {"lin_weight": [[1, -1, 1], [1, 1, -1]], "lin_bias": [0.25, -0.5]},
    )
    return folder


def test_provenance_says_what_was_understood(tmp_path):
    network = bnnverify.load(small(tmp_path / "net"))
    data = network.provenance.data
    assert network.domain.shape == (2, 2)  # 4 inputs are shown as a square
    assert data["format"] == "BNNQuanalyst model folder" and data["folder"] == "net"
    assert data["blocks"]["blk1"] == "3 neurons of 4 inputs; 1 with bn_weight below 0 (rows negated), 1 constant"
    assert json.loads(json.dumps(data)) == data


def test_a_saved_copy_is_the_same_network(tmp_path):
    network = load_network(small(tmp_path / "net"))
    bnnverify.save(network, tmp_path / "net.npz")
    assert load_network(tmp_path / "net.npz") == network


def printed(*words):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert main([str(word) for word in words]) == 0
    return stdout.getvalue()


def test_info_takes_the_folder(tmp_path):
    text = printed("info", small(tmp_path / "net"))
    assert "4-3-2  signs -1/+1 (2x2)" in text and "BNNQuanalyst model folder" in text
    assert "/ sqrt(bn_var) * bn_weight + bn_bias >= 0, no epsilon" in text


@pytest.mark.parametrize("text", ["0 1 0 0\n", "0100\n", "0 1\n0 0\n", "-1 1 -1 -1"])
def test_an_instance_file_is_an_input_of_count(tmp_path, text):
    small(tmp_path / "net")
    (tmp_path / "instance.txt").write_text(text)
    out = printed("count", tmp_path / "net", "--input", tmp_path / "instance.txt", "--radius", 2, "--json")
    line = json.loads(out)
    assert line["image"]["input"] == [-1, 1, -1, -1] and line["answer"]["region_size"] == 11


# Damaged folders.


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


DAMAGES = [
    (lambda f: (f / "blk1").rename(f / "blk2"), r"net: holds blk2, out_blk, expected .* without a gap, .*Complete"),
    (lambda f: (f / "blk1").rename(f / "block1"), r"holds block1, out_blk, expected a model folder of BNNQuanalyst"),
    (lambda f: (f / "out_blk").rename(f / "blk2"), r"holds blk1, blk2, expected .* and out_blk\.$"),
    (lambda f: (f / "blk1" / "bn_var.csv").unlink(), r"blk1: has no bn_var.csv \(it holds bn_bias.csv, bn_mean.csv"),
    (lambda f: (f / "out_blk" / "lin_bias.csv").unlink(), r"out_blk: has no lin_bias.csv .* Copy the whole"),
    (lambda f: (f / "out_blk" / "bn_var.csv").write_text("1"), r"out_blk: holds bn_var.csv, expected only lin_bias"),
    (lambda f: (f / "blk1" / "bn_var.csv").write_text("1,0,1"), r"bn_var.csv:1: entry 2 is 0, expected a variance ab"),
    (lambda f: (f / "blk1" / "bn_var.csv").write_text("1,2,-3"), r"bn_var.csv:1: entry 3 is -3, expected a variance"),
    (lambda f: (f / "blk1" / "bn_var.csv").write_text("1,2"), r"bn_var.csv:1: has 2 entries, expected 3, one per neu"),
    (lambda f: (f / "blk1" / "bn_var.csv").write_text("1\n1\n1\n"), r"bn_var.csv:2: is a second line of numbers"),
    (lambda f: (f / "blk1" / "bn_mean.csv").write_text("1,nan,1"), r"bn_mean.csv:1: entry 2 is 'nan', expected a fin"),
    (lambda f: (f / "blk1" / "bn_mean.csv").write_text("1,1e999,1"), r"entry 2 is '1e999', expected a finite number"),
    (lambda f: (f / "blk1" / "bn_mean.csv").write_text("1,,1"), r"bn_mean.csv:1: entry 2 is '', expected a finite"),
    (lambda f: (f / "blk1" / "bn_mean.csv").write_text(" \n"), r"bn_mean.csv: is empty"),
    (lambda f: (f / "blk1" / "bn_mean.csv").write_bytes(b"\xff\xfe"), r"bn_mean.csv: is no text"),
    (lambda f: replace(f / "blk1" / "lin_weight.csv", "-1.0", "0.5"), r"lin_weight.csv:1: entry 2 is 0.5, expected -1"),
    (lambda f: replace(f / "blk1" / "lin_weight.csv", "1.0,", ""), r"lin_weight.csv:2: has 4 entries, expected 3, as "),
    (lambda f: replace(f / "blk1" / "lin_weight.csv", "\n", "\n\n"), r"lin_weight.csv:2: entry 1 is '', expected a "),
    (
        lambda f: replace(f / "out_blk" / "lin_weight.csv", "1.0,", ""),
        r"out_blk.lin_weight.csv:1: has 2 .*block before",
    ),
    (lambda f: replace(f / "out_blk" / "lin_bias.csv", "0.25", "O.25"), r"lin_bias.csv:1: entry 1 is 'O.25'"),
    (
        lambda f: [(f / "out_blk" / name).write_text(text) for name, text in ONE_CLASS.items()],
        r"out_blk: output.weights has 1 row\(s\), expected one per class, at least 2",
    ),
]
ONE_CLASS = {"lin_weight.csv": "1,1,1\n", "lin_bias.csv": "0\n"}


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message[:40] for _, message in DAMAGES])
def test_a_damaged_folder_is_refused_where_it_is_damaged(tmp_path, damage, message):
    damage(small(tmp_path / "net"))
    with pytest.raises(FormatError, match=message):
        load_network(tmp_path / "net")


def test_a_folder_of_models_names_one_of_them(tmp_path):
    small(tmp_path / "net")
    with pytest.raises(FormatError, match=r"holds net, expected a model folder .* Name one .* such as .*net\.$"):
        load_network(tmp_path)


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(FormatError, match="holds nothing, expected a model folder of BNNQuanalyst"):
        load_network(tmp_path)
    with pytest.raises(FormatError, match=r"none: cannot be read \(no such file or directory\), expected a model fold"):
        bnnquanalyst.load(tmp_path / "none")


def test_files_that_are_no_tables_are_left_alone(tmp_path):
    folder = small(tmp_path / "net")
    for place in (folder / "README.md", folder / ".DS_Store", folder / "blk1" / "notes.txt"):
        place.write_text("about this model")
    assert load_network(folder).architecture == "4-3-2"
