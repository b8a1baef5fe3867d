"""The command line on pixels, properties, distances and whole data sets."""

import json
from pathlib import Path

import numpy as np
import pytest

from bnnverify import cli
from bnnverify.checking.certificate import check_certificate, read_manifest
from bnnverify.cli.property import imported_of
from bnnverify.formats import import_model, vnnlib
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock

PROPERTY = """
(declare-const X_0 Real) (declare-const X_1 Real) (declare-const X_2 Real) (declare-const X_3 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 4)) (assert (<= X_0 {upper}))
(assert (>= X_1 4)) (assert (<= X_1 6))
(assert (>= X_2 0)) (assert (<= X_2 0))
(assert (>= X_3 0)) (assert (<= X_3 0.5))
(assert (>= Y_0 Y_1))
"""


def pixels():
    """Class 1 from a sum of 12 on."""
    block = DenseBlock.create([[1, 1, 1, 1]], [12])
    domain = InputDomain.integers([0] * 4, [255] * 4, (1, 2, 2))
    return BinaryNetwork(domain, (block,), OutputBlock.create([[-1], [1]]))


def digits_network(seed=0):
    rng = np.random.default_rng(seed)
    block = DenseBlock.create(rng.choice([-1, 1], (12, 64)), [0] * 12)
    return BinaryNetwork(InputDomain.binary(64, (8, 8)), (block,), OutputBlock.create(rng.choice([-1, 1], (10, 12))))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(pixels(), "pixels.npz")
    save(digits_network(), "digits.npz")
    (tmp_path / "rows.txt").write_text("9 9 9 9\n4 4 4 2\n")
    (tmp_path / "robust.vnnlib").write_text(PROPERTY.format(upper=6).replace(">= Y_0 Y_1", ">= Y_1 Y_0"))
    (tmp_path / "broken.vnnlib").write_text(PROPERTY.format(upper=6))
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*words):
        code = cli.main([str(word) for word in words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_pixels_within_a_distance_get_a_verdict_each(workplace, run):
    code, out, _ = run("verify", "pixels.npz", "--input", "rows.txt", "--linf", 2)
    assert code == 0 and "1 robust, 1 not-robust, 0 unknown of 2" in out
    assert "box of integers with 4 of 4 inputs free, at most 5 values each" in out
    code, out, _ = run("verify", "pixels.npz", "--input", "rows.txt", "--linf", 2, "--json", "--fail-on", "not-robust")
    answers = [json.loads(line) for line in out.splitlines()]
    assert "inputs change" in run("verify", "pixels.npz", "--input", "rows.txt", "--linf", 2)[1]
    assert code == 1 and [a["answer"]["verdict"] for a in answers] == ["robust", "not-robust"]
    assert sum(answers[1]["answer"]["counterexample"]) < 12
    assert answers[0]["question"]["region"]["kind"] == "pixel-box"


def test_eps_is_about_the_grey_values_of_a_data_set(workplace, run):
    code, _, err = run("verify", "pixels.npz", "--input", "rows.txt", "--eps", "0.1")
    assert code == 2 and "--eps is about grey values of a data set" in err
    code, _, err = run("verify", "pixels.npz", "--input", "rows.txt", "--eps", "x")
    assert code == 2 and "--eps is 'x', expected a number" in err


def test_regions_that_do_not_fit_are_refused(workplace, run):
    for words, message in (
        (("pixels.npz", "--input", "rows.txt", "--linf", 2, "--radius", 1), "expected exactly one region"),
        (("pixels.npz", "--input", "rows.txt", "--linf", 2, "--eps", "0.1"), "expected exactly one region"),
        (("pixels.npz", "--input", "rows.txt", "--radius", 2), "Give --linf R or --eps E."),
        (("digits.npz", "--data", "digits", "--linf", 2), "the network takes -1/+1 inputs. Give --radius R"),
        (("pixels.npz", "robust.vnnlib", "--linf", 2), "PROPERTY says the region"),
        (("pixels.npz", "robust.vnnlib", "--dump-opb", "q.opb"), "PROPERTY and --dump-opb are both given"),
        (("pixels.npz", "robust.vnnlib", "--ties", "robust"), "PROPERTY and --ties are both given"),
        (("pixels.npz", "robust.vnnlib", "--certificate", "."), ". holds files already"),
        (("pixels.npz", "--input", "rows.txt", "--linf", 2, "--result", "r.txt"), "--result is given without PROPERTY"),
        (("pixels.npz", "--input", "rows.txt", "--linf", 2, "--dump-cnf", "q.cnf"), "2 images are named"),
    ):
        code, _, err = run("verify", *words)
        assert code == 2 and message in err, (words, err)


def test_a_property_file_is_decided_and_the_result_is_written_as_the_competition_has_it(workplace, run):
    code, out, _ = run("verify", "pixels.npz", "broken.vnnlib", "--result", "result.txt")
    assert code == 0 and "not-robust (sat): an input of class 0, replayed" in out
    text = (workplace / "result.txt").read_text().split()
    values = [float(word.rstrip(")")) for word in text if word[0] != "(" and word != "sat"]
    assert text[0] == "sat" and sum(values[:4]) < 12 and values[4] > values[5]
    code, out, _ = run("verify", "pixels.npz", "broken.vnnlib", "--json", "--fail-on", "not-robust")
    assert code == 1 and json.loads(out)["answer"]["verdict"] == "not-robust"
    assert json.loads(out)["question"]["cases"] == 1


def test_a_property_that_nothing_fulfils_is_unsat(workplace, run):
    (workplace / "none.vnnlib").write_text(PROPERTY.format(upper=6).replace("X_2 0)", "X_2 9)"))
    code, out, err = run("verify", "pixels.npz", "none.vnnlib", "--result", "result.txt", "--certificate", "proof")
    assert code == 0 and "robust (unsat): proved; by bounds." in out
    assert "certificate proof: robust, bounds" in err and run("check", "proof")[0] == 0
    assert (workplace / "result.txt").read_text() == "unsat\n"


def test_counterexamples_and_certificates_are_saved(workplace, run):
    words = ("verify", "pixels.npz", "--input", "rows.txt", "--index", 1, "--linf", 2)
    code, _, err = run(*words, "--save", "found", "--certificate", "proof", "--dump-opb", "q.opb")
    assert code == 0 and "certificate proof: not-robust, counterexample" in err and "question written to q.opb" in err
    assert sorted(p.name for p in (workplace / "found" / "1").iterdir()) == [
        "counterexample.npy",
        "counterexample.png",
        "counterexample.txt",
    ]
    assert np.load("found/1/counterexample.npy").sum() < 12
    assert run("check", "proof")[0] == 0 and (workplace / "q.opb").stat().st_size > 0


def test_counterexamples_of_an_onnx_file_are_saved_as_it_takes_them(workplace, run):
    pytest.importorskip("onnx")
    assert run("export", "pixels.npz", "-o", "pixels.onnx")[0] == 0
    words = ("--input", "rows.txt", "--index", 1, "--linf", 2, "--save")
    assert run("verify", "pixels.onnx", *words, "found")[0] == 0
    assert run("certify", "pixels.onnx", *words, "counted", "--keep", "predicted")[0] == 0
    for folder in ("found/1", "counted/1-2"):
        x = np.load(f"{folder}/counterexample.npy")
        fed = import_model("pixels.onnx").fed(x).ravel()
        lines = (workplace / folder / "counterexample.txt").read_text().replace("(", "").replace(")", "").splitlines()
        assert [float(line.split()[1]) for line in lines[1 : 1 + x.size]] == fed.tolist()


def test_robust_accuracy_of_a_data_set_at_several_radii_is_counted_once(workplace, run):
    words = ("certify", "digits.npz", "--data", "digits", "--index", "0:6", "--radius", "0:3", "--out", "v.jsonl", "-q")
    code, out, _ = run(*words, "--keep", "predicted")
    assert code == 0 and "radius  images  robust  not robust  unknown  robust accuracy" in out
    rows = [line.split() for line in out.splitlines() if line.split()[:2] in ([str(r), "6"] for r in range(3))]
    assert [row[0] for row in rows] == ["0", "1", "2"] and rows[0][2] == "6"
    assert len((workplace / "v.jsonl").read_text().splitlines()) == 18
    code, out, _ = run(*words, "--keep", "predicted", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["answer"]["robust"] for line in lines] == [int(row[2]) for row in rows]
    assert len((workplace / "v.jsonl").read_text().splitlines()) == 18  # nothing was asked again


def test_robust_accuracy_of_pixels_saves_inputs_that_break_it(workplace, run):
    words = ("--input", "rows.txt", "--keep", "predicted", "--linf", "0,2,9", "--save", "found", "-q")
    code, out, _ = run("certify", "pixels.npz", *words)
    assert code == 0 and [line.split()[2:4] for line in out.splitlines() if line.split()[1:2] == ["2"]] == [
        ["2", "0"],
        ["1", "1"],
        ["0", "2"],
    ]
    assert (workplace / "found" / "1-2" / "counterexample.png").is_file()


def test_an_interrupted_run_counts_what_is_done_and_goes_on(workplace, run, monkeypatch):
    from bnnverify import certification

    honest, calls = certification.certify_image, []

    def pressed(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    words = ("certify", "pixels.npz", "--input", "rows.txt", "--keep", "predicted", "--linf", "0,2", "-q")
    monkeypatch.setattr(certification, "certify_image", pressed)
    code, out, err = run(*words, "--out", "v.jsonl")
    assert code == 130 and "         2       1       1           0        0  100.00%" in out
    assert err == (
        "bnnverify certify: interrupted; 2 of 4 verdicts are counted and kept; the same command goes on from here.\n"
    )
    code, out, _ = run(*words, "--out", "v.jsonl")
    assert code == 0 and len(calls) == 4 and "         2       2       1           1        0  50.00%" in out
    assert len((workplace / "v.jsonl").read_text().splitlines()) == 4


def test_certify_refuses_what_does_not_fit(workplace, run):
    for words, message in (
        (("pixels.npz", "--input", "rows.txt", "--linf", "1"), "--keep true needs labels"),
        (("pixels.npz", "--input", "rows.txt", "--radius", "1"), "takes pixels, expected --linf or --eps"),
        (("digits.npz", "--data", "digits", "--eps", "1"), "takes -1/+1 inputs, expected --radius"),
        (("digits.npz", "--data", "digits"), "expected exactly one of --radius LIST"),
        (("digits.npz", "--data", "digits", "--radius", "1", "--jobs", 0), "--jobs is 0"),
    ):
        code, _, err = run("certify", *words)
        assert code == 2 and message in err, (words, err)


def test_distances_in_pixel_values_are_those_of_the_definition(workplace, run):
    words = ("distance", "pixels.npz", "--input", "rows.txt", "--linf")
    code, out, _ = run(*words, "--json")
    for line, x in zip(map(json.loads, out.splitlines()), ([9, 9, 9, 9], [4, 4, 4, 2]), strict=True):
        nearest = next(r for r in range(256) if sum(max(v - r, 0) for v in x) < 12)
        answer = line["answer"]
        assert (answer["kind"], answer["lower"], answer["norm"]) == ("exact", nearest, "linf")
        assert max(abs(a - b) for a, b in zip(answer["witness"], x, strict=True)) == nearest
        assert line["question"]["analysis"] == "linf-distance"
    code, out, _ = run(*words)
    assert code == 0 and "2 of 2 distances are exact: 1 at 1; 1 at 7." in out and "inputs change" in out
    assert "each at most by that in its own units, for one whose class is not the network's own" in out


def test_a_distance_beyond_the_largest_radius_is_a_bound_and_no_limit(workplace, run):
    words = ("distance", "pixels.npz", "--input", "rows.txt", "--index", 0, "--linf")
    for radius in (0, 5):
        code, out, _ = run(*words, "--max-radius", radius)
        assert code == 0 and f">= {radius + 1}" in out and f"Up to {radius}; ties go" in out
    code, out, _ = run(*words, "--timeout", "1e-9", "--json")
    assert code == 3 and "time limit" in json.loads(out)["answer"]["run"]["reason"]


def test_distances_refuse_what_does_not_fit(workplace, run):
    for words, message in (
        (("digits.npz", "--data", "digits", "--linf"), "leave it out to count flips"),
        (("pixels.npz", "--input", "rows.txt"), "distance asks about regions of -1/+1 inputs here. Give --linf."),
        (
            ("pixels.npz", "--input", "rows.txt", "--linf", "--tolerance", "0.1"),
            "is about Hamming balls",
        ),
        (("pixels.npz", "--input", "rows.txt", "--linf", "--engine", "bdd"), "expected auto or stages"),
        (("pixels.npz", "--input", "rows.txt", "--linf", "--max-radius", "-1"), "radius is -1"),
    ):
        code, _, err = run("distance", *words)
        assert code == 2 and message in err, (words, err)


UNIT = "\n".join(
    [
        *(f"(declare-const X_{i} Real) (assert (<= X_{i} 1)) (assert (>= X_{i} LEAST))" for i in range(4)),
        "(declare-const Y_0 Real) (declare-const Y_1 Real) (assert (>= Y_0 Y_1))",
    ]
)


def test_options_of_import_say_what_a_property_leaves_open(workplace, run):
    pytest.importorskip("onnx")
    from tests.onnxmodels import Model

    model = Model((1, 4))  # class 1 from a sum of 2.5 on, with a plain Sign
    model.add("MatMul", np.ones((4, 1)))
    model.add("Add", np.array([-2.5]))
    model.add("Sign")
    model.add("MatMul", np.array([[-1.0, 1.0]]))
    model.save("unit.onnx")
    (workplace / "robust.vnnlib").write_text(UNIT.replace("LEAST", "0.63"))
    (workplace / "broken.vnnlib").write_text(UNIT.replace("LEAST", "0.62"))
    scale, zero = ("--input-scale", "1/255"), ("--zero-sign", "plus")
    code, _, err = run("verify", "unit.onnx", "robust.vnnlib", *zero)
    assert code == 2 and "--input-range 0 255 --input-scale 1/255" in err
    code, _, err = run("verify", "unit.onnx", "robust.vnnlib", *scale)
    assert code == 2 and "expected a sign that is never 0" in err and "--zero-sign plus" in err
    code, out, _ = run("verify", "unit.onnx", "robust.vnnlib", *scale, *zero)
    assert code == 0 and "robust (unsat): proved" in out
    for extra in ((), ("--input-range", 0, 255)):
        code, _, _ = run("verify", "unit.onnx", "broken.vnnlib", *scale, *zero, *extra, "--result", "result.txt")
        text = (workplace / "result.txt").read_text().replace("(", "").replace(")", "").split()
        values = [float(value) for value in text[2::2]]
        assert code == 0 and text[0] == "sat" and min(values[:4]) >= 0.62 and sum(values[:4]) < 2.5
    run("verify", "unit.onnx", "broken.vnnlib", *scale, *zero, "--certificate", "proof")
    saved = (workplace / "proof" / "counterexample.txt").read_text().splitlines()
    assert saved[:5] == (workplace / "result.txt").read_text().splitlines()[:5]  # X in the units of the file


def test_options_on_reading_are_refused_where_the_file_says_it(workplace, run):
    for words, message in (
        (("pixels.npz", "broken.vnnlib", "--input-scale", "1/255"), "--input-scale: pixels.npz says this itself"),
        (("pixels.npz", "broken.vnnlib", "--layer", "a:pool=2"), "--layer: pixels.npz says this itself"),
        (("pixels.npz", "--input", "rows.txt", "--linf", 1, "--zero-sign", "plus"), "run `bnnverify import` once"),
    ):
        code, _, err = run("verify", *words)
        assert code == 2 and message in err, (words, err)


def test_a_property_of_some_outputs_names_the_class_among_all(workplace, run):
    block = DenseBlock.create([[1, 1]], [3])
    output = OutputBlock.create([[1]] * 4, scale=[0, 0, 1, -1], bias=[9, 0, 0, 0])
    save(BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (block,), output), "four.npz")
    inputs = "".join(f"(declare-const X_{i} Real) (assert (>= X_{i} 0)) (assert (<= X_{i} 9))\n" for i in range(2))
    outputs = "".join(f"(declare-const Y_{k} Real)\n" for k in range(4))
    (workplace / "some.vnnlib").write_text(inputs + outputs + "(assert (>= Y_3 Y_2))\n")
    code, out, _ = run("verify", "four.npz", "some.vnnlib")
    assert code == 0 and "not-robust (sat): an input of class 0, replayed" in out
    _, out, _ = run("verify", "four.npz", "some.vnnlib", "--json")
    assert json.loads(out)["answer"]["predicted"] == 0
    run("verify", "four.npz", "some.vnnlib", "--certificate", "proof")
    (query,) = vnnlib.load("some.vnnlib").queries(imported_of(Path("four.npz"), vnnlib.load("some.vnnlib"), {}))
    assert read_manifest("proof")["query"] == json.loads(json.dumps(query.to_json()))
    assert query.network.n_classes == 2 and check_certificate("proof", query.network)
    code, out, _ = run("check", "proof", "four.npz")  # a certificate is about the question as it was read
    assert code == 1 and "the certificate is about the network" in out
    saved = (workplace / "proof" / "counterexample.txt").read_text()
    assert "(Y_3 " in saved and saved.count("(Y_") == 4


def test_a_counterexample_that_rounding_undoes_is_not_written_as_one(workplace, run):
    pytest.importorskip("onnxruntime")
    from tests.onnxmodels import Model

    # 3 * 0.1 - 0.3 is below 0, for what the file holds; float32 rounds the product to 0.3
    model = Model([None, 1]).add("MatMul", [[0.1]]).add("Add", -0.3).add("GreaterOrEqual", 0.0).add("Where", 1.0, -1.0)
    model.add("MatMul", [[1.0, -1.0]]).save("near.onnx")
    (workplace / "near.vnnlib").write_text(
        "(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real) "
        "(assert (>= X_0 3)) (assert (<= X_0 3)) (assert (>= Y_1 Y_0))"
    )
    code, out, err = run("verify", "near.onnx", "near.vnnlib", "--result", "result.txt")
    assert code == 0 and "not-robust (sat)" in out and "none in float32" in err
    assert (workplace / "result.txt").read_text() == "unknown\n"


def test_a_case_that_stays_open_does_not_hide_a_counterexample_of_the_next(workplace, run):
    # the first box holds an integer input that is robust, and nothing proves what lies between; the second is broken
    save(BinaryNetwork(InputDomain.integers([0], [9]), (), OutputBlock.create([[1], [1]], scale=[0, 1])), "one.npz")
    text = """
(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (or (and (>= X_0 0) (<= X_0 0.5) (> Y_1 Y_0)) (and (>= X_0 {least}) (<= X_0 {least}) (> Y_1 Y_0))))
"""
    (workplace / "two.vnnlib").write_text(text.format(least=3))
    code, out, _ = run("verify", "one.npz", "two.vnnlib", "--timeout", 20)
    assert code == 0 and "not-robust (sat)" in out
    (workplace / "two.vnnlib").write_text(text.format(least=0))
    code, out, _ = run("verify", "one.npz", "two.vnnlib", "--timeout", 20)
    assert code == 3 and "unknown (unknown)" in out


def test_eps_on_digits_is_a_share_of_their_own_white(workplace, run):
    pytest.importorskip("sklearn")
    net = digits_network()
    save(BinaryNetwork(InputDomain.integers([0] * 64, [16] * 64, (8, 8)), net.blocks, net.output), "grey.npz")
    words = ("verify", "grey.npz", "--data", "digits", "--index", 3, "--json")
    regions = []
    for region in (("--eps", "0.1"), ("--linf", 1)):
        code, out, _ = run(*words, *region)
        assert code == 0
        regions.append(json.loads(out.splitlines()[0])["question"]["region"])
    assert regions[0] == regions[1]


@pytest.mark.slow
def test_several_processes_certify_the_same(workplace, run):
    words = ("certify", "digits.npz", "--data", "digits", "--index", "0:4", "--radius", "1", "-q", "--json")
    one, two = (run(*words, "--jobs", jobs)[1] for jobs in (1, 2))
    assert json.loads(one)["answer"] == json.loads(two)["answer"]


@pytest.mark.parametrize(
    "words",
    [
        ("none.npz", "robust.vnnlib"),
        ("pixels.npz", "none.vnnlib"),
        ("pixels.npz", "robust.vnnlib", "--engine", "minicard"),
        ("pixels.npz", "robust.vnnlib", "--jobs", 0),
        ("pixels.npz", "robust.vnnlib", "--input-range", 0, 9),
    ],
)
def test_a_failed_run_leaves_no_result_of_another_one(workplace, run, words):
    (workplace / "r.txt").write_text("unsat\n")
    code, out, _ = run("verify", *words, "--result", "r.txt")
    assert (code, out) == (2, "") and not (workplace / "r.txt").exists()
    code, _, err = run("verify", "pixels.npz", "robust.vnnlib", "--result", "robust.vnnlib")
    assert code == 2 and "--result is robust.vnnlib, which the command reads" in err
    assert (workplace / "robust.vnnlib").read_text().strip().endswith("(assert (>= Y_1 Y_0))")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dump-cnf", "no/q.cnf"), "--dump-cnf no/q.cnf cannot be written"),
        (("--dump-cnf", "q", "--dump-opb", "q"), "--dump-opb and --dump-cnf are both q, expected two files"),
        (("--save", "out", "--certificate", "out"), "--certificate and --save are both out"),
        (("--save", "rows.txt/found"), "--save rows.txt/found cannot be written"),
        (("--certificate", "rows.txt/proof"), "--certificate rows.txt/proof cannot be written"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_the_work(workplace, run, monkeypatch, words, message):
    monkeypatch.setattr("bnnverify.cli.questions.answers", None)
    one = ("pixels.npz", "--input", "rows.txt", "--index", 0, "--linf", 2)
    code, out, err = run("verify", *one, *words)
    assert (code, out) == (2, "") and message in err


@pytest.mark.parametrize("engine", ["enumeration", "propagation"])
def test_an_engine_of_signs_is_refused_for_pixels_before_the_work(workplace, run, engine):
    for words in (("verify", "--linf", 1), ("certify", "--linf", "0:2", "--keep", "predicted", "--out", "v.jsonl")):
        code, out, err = run(words[0], "pixels.npz", "--input", "rows.txt", *words[1:], "--engine", engine)
        assert (code, out) == (2, "") and f"engine {engine} serves -1/+1 inputs only" in err
    assert not (workplace / "v.jsonl").exists()
    code, out, _ = run("verify", "pixels.npz", "--input", "rows.txt", "--linf", 2, "--engine", "bdd", "--json")
    assert [json.loads(line)["answer"]["verdict"] for line in out.splitlines()] == ["robust", "not-robust"]


def test_all_rows_of_a_file_can_be_named(workplace, run):
    code, out, _ = run("verify", "pixels.npz", "--input", "rows.txt", "--index", "all", "--linf", 2, "--json")
    assert code == 0 and len(out.splitlines()) == 2
