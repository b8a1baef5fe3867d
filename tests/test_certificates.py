"""Certificates: what is written is accepted, and what was tampered with is not."""

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from pysat.solvers import Solver

from bnnverify.certificates import certify, save_counterexample
from bnnverify.checking import certificate as form
from bnnverify.checking.bounds import block_bounds, is_proved, reaches, sums
from bnnverify.checking.certificate import check_certificate, read_dimacs, read_manifest
from bnnverify.checking.clauses import clauses_of
from bnnverify.checking.prooftext import parse_proof
from bnnverify.checking.rup import refutes
from bnnverify.cli import main
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import EngineError, FormatError, QueryError
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, PixelBox, RealBox
from bnnverify.results import Decision, Run, Verdict
from tests import oracle
from tests.strategies import conv_networks, queries
from tests.test_boxes import adversarial, box_queries


def has_solution(clauses):
    if () in clauses:
        return False
    with Solver(name="glucose4", bootstrap_with=[list(clause) for clause in clauses]) as solver:
        return solver.solve()


@settings(max_examples=80)
@given(box_queries())
def test_the_clauses_of_a_box_have_a_solution_iff_a_point_is_adversarial(query):
    assert has_solution(clauses_of(query).clauses) == bool(adversarial(query))


@settings(max_examples=80)
@given(queries(max_inputs=6))
def test_the_clauses_over_signs_have_a_solution_iff_an_input_is_adversarial(query):
    assert has_solution(clauses_of(query).clauses) == bool(oracle.adversarial_points(query))


@settings(max_examples=30)
@given(queries(conv_networks, max_inputs=8, max_outputs=24))
def test_the_clauses_of_convolutions_have_a_solution_iff_an_input_is_adversarial(query):
    assert has_solution(clauses_of(query).clauses) == bool(oracle.adversarial_points(query))


@settings(max_examples=80)
@given(box_queries())
def test_a_real_box_is_refuted_only_where_no_integer_point_is_adversarial(query):
    real = replace(query, region=RealBox(query.region.lower, query.region.upper))
    refuted = not has_solution(clauses_of(real).clauses)
    assert not refuted or not adversarial(query)
    if is_proved(real, reaches(real, block_bounds(real))):
        assert refuted


@settings(max_examples=80)
@given(box_queries())
def test_bounds_hold_at_every_point(query):
    bounds = block_bounds(query)
    found = reaches(query, bounds)
    for x in query.region.points():
        values = np.array(x)
        for block, bound, layer in zip(
            query.network.blocks, bounds, oracle.hidden_layers(query.network, x), strict=True
        ):
            exact, _ = sums(block, values.astype(object), values.astype(object))
            assert (exact == np.asarray(block.preactivations(values)).ravel()).all()
            assert (bound.low <= exact).all() and (exact <= bound.high).all()
            values = np.array(layer)
            assert ((bound.after == 0) | (bound.after == values)).all()
        scores = oracle.scores(query.network, x)
        for reach, (i, j, strict) in zip(found, query.score_conditions()[0], strict=True):
            beats = scores[i] > scores[j] if strict else scores[i] >= scores[j]
            assert not (beats and reach.is_excluded)


def network(threshold=2):
    """Two convolutions' worth of neurons: class 0 iff enough of them fire."""
    conv = ConvBlock.create(
        [[[[1, 1], [-1, 1]]], [[[1, -1], [1, 1]]]], [threshold, 1], input_shape=(1, 3, 3), pool=(1, 2)
    )
    dense = DenseBlock.create(np.resize([1, -1, 1], (5, conv.n_outputs)), [1, 0, -1, 1, 2])
    output = OutputBlock.create([[1, -1, 1, 1, -1], [-1, 1, 1, -1, 1], [1, 1, -1, 1, 1]])
    return BinaryNetwork(InputDomain.integers([0] * 9, [6] * 9, (3, 3)), (conv, dense), output)


def questions():
    """One question for each kind of certificate, by search over boxes."""
    found = {}
    net = network()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        low = rng.integers(0, 5, 9)
        x = tuple(low.tolist())
        query = Query(net, PixelBox(x, tuple((low + rng.integers(0, 3, 9)).tolist())), Untargeted(net.evaluate(x)))
        if is_proved(query, reaches(query, block_bounds(query))):
            found.setdefault("bounds", query)
        elif has_solution(clauses_of(query).clauses):
            found.setdefault("counterexample", query)
        elif not refutes(clauses_of(query).clauses, parse_proof(b"")).holds:  # it takes a lemma
            found.setdefault("clauses", query)
        if len(found) == 3:
            return found
    raise AssertionError(f"found only {sorted(found)}")


QUESTIONS = questions()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate of each kind."""
    folders = {}
    for kind, query in QUESTIONS.items():
        folders[kind] = tmp_path_factory.mktemp("certificates") / kind
        answer = certify(query, folders[kind])
        assert answer.run.statistics["certificate"] == kind
        assert answer.verdict is (Verdict.NOT_ROBUST if kind == "counterexample" else Verdict.ROBUST)
    return folders


@pytest.fixture
def copy(certificates, tmp_path):
    """A copy to tamper with."""

    def copied(kind):
        folder = tmp_path / kind
        folder.mkdir()
        for path in certificates[kind].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copied


def tamper(folder, name, change):
    """Changes a file and makes its sum right again."""
    path = folder / name
    data = path.read_bytes()
    data = gzip.compress(change(gzip.decompress(data))) if name.endswith(".gz") else change(data)
    path.write_bytes(data)
    alter(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(data).hexdigest()}))


def alter(folder, change):
    """Changes the claim."""
    path = folder / form.MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_certificate_is_accepted(certificates, kind):
    checked = check_certificate(certificates[kind], network())
    assert checked and checked.holds and checked.reason == "" and len(checked.steps) > 2
    assert checked.query == QUESTIONS[kind].to_json()


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_certificate_about_another_network_is_rejected(certificates, kind):
    checked = check_certificate(certificates[kind], network(threshold=3))
    assert not checked and checked.reason.startswith("the certificate is about the network")


@pytest.mark.parametrize("name", [form.CLAUSES, form.PROOF])
def test_a_file_that_was_replaced_is_rejected(copy, name):
    folder = copy("clauses")
    (folder / name).write_bytes(gzip.compress(b"0\n"))
    checked = check_certificate(folder, network())
    assert not checked and checked.reason == f"{name} is not the file that the certificate was written with"


def flipped(data):
    """One literal of one clause in the middle negated."""
    lines = data.decode().splitlines()
    place = len(lines) * 2 // 3
    words = lines[place].split()
    words[0] = str(-int(words[0]))
    lines[place] = " ".join(words)
    return ("\n".join(lines) + "\n").encode()


def test_a_clause_that_was_flipped_is_rejected_although_the_sums_are_right(copy):
    folder = copy("clauses")
    tamper(folder, form.CLAUSES, flipped)
    checked = check_certificate(folder, network())
    assert not checked and "of the file is" in checked.reason


def test_a_clause_that_was_added_or_dropped_is_rejected(copy):
    def renumbered(lines):
        header = next(i for i, line in enumerate(lines) if line.startswith(b"p cnf"))
        words = lines[header].split()
        lines[header] = b" ".join([*words[:3], str(len(lines) - header - 1).encode()])
        return b"\n".join(lines) + b"\n"

    for change in (lambda data: [*data.splitlines(), b"1 0"], lambda data: data.splitlines()[:-1]):
        folder = copy("clauses")
        tamper(folder, form.CLAUSES, lambda data, change=change: renumbered(change(data)))
        checked = check_certificate(folder, network())
        assert not checked and "but the question has" in checked.reason
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_a_proof_that_lost_its_lemmas_is_rejected(copy):
    folder = copy("clauses")
    tamper(folder, form.PROOF, lambda data: b"")
    checked = check_certificate(folder, network())
    assert not checked and "the proof ends without a contradiction" in checked.reason


def test_a_proof_of_another_question_is_rejected(copy):
    folder = copy("clauses")
    wider = QUESTIONS["counterexample"].region.to_json()
    alter(folder, lambda manifest: manifest["query"].update(region=wider))
    checked = check_certificate(folder, network())
    assert not checked and "the question has" in checked.reason


def test_a_threshold_that_changed_is_seen_even_if_the_identity_is_claimed(copy):
    folder = copy("clauses")
    other = network(threshold=3)
    alter(folder, lambda manifest: manifest["query"].update(network=other.identity))
    assert not check_certificate(folder, other)


def test_a_counterexample_that_was_moved_is_rejected(copy):
    query = QUESTIONS["counterexample"]
    for point, reason in (
        ([6] * 9, "the input does not lie in the region"),
        (list(query.region.lower), "the input is not adversarial"),
        ([0.5] * 9, "holds no input of integers"),
    ):
        folder = copy("counterexample")
        tamper(folder, form.POINT, lambda data, point=point: json.dumps({"input": point}).encode())
        checked = check_certificate(folder, network())
        assert not checked and reason in checked.reason
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_claims_that_the_evidence_does_not_support_are_rejected(copy):
    folder = copy("counterexample")
    alter(folder, lambda manifest: manifest.update(kind="bounds", verdict="robust", bounds=[]))
    assert "interval bounds do not exclude" in check_certificate(folder, network()).reason
    alter(folder, lambda manifest: manifest.update(kind="clauses", files={}))
    assert "clauses.cnf.gz is missing" in check_certificate(folder, network()).reason
    alter(folder, lambda manifest: manifest.update(kind="patches"))
    assert "patches.json.gz is missing" in check_certificate(folder, network()).reason
    alter(folder, lambda manifest: manifest.update(kind="counterexample"))
    assert "proves not-robust, not the claim" in check_certificate(folder, network()).reason
    bounds = copy("bounds")
    alter(bounds, lambda manifest: manifest["bounds"][0].__setitem__(2, "-1000"))
    assert "not those that follow" in check_certificate(bounds, network()).reason
    alter(bounds, lambda manifest: manifest["query"].update(property={"kind": "untargeted", "label": 99}))
    assert "class 99 does not exist" in check_certificate(bounds, network()).reason


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.update(format="poem"), "is not a certificate of bnnverify"),
        (lambda m: m.update(version=9), "has version 9, expected 1"),
        (lambda m: m.update(kind="poem"), "is of kind 'poem', expected one of counterexample, bounds"),
        (lambda m: m.update(verdict="unknown"), "claims 'unknown'"),
        (lambda m: m.pop("query"), "has no query"),
        (lambda m: m["files"].update({"../../etc/passwd": "0"}), "leads out of the certificate"),
        (lambda m: m["files"].update({"gone.gz": "0"}), r"gone.gz: cannot be read"),
    ],
)
def test_a_folder_that_is_no_certificate_is_a_format_error(copy, change, message):
    folder = copy("bounds")
    alter(folder, change)
    with pytest.raises(FormatError, match=message):
        check_certificate(folder, network())


def test_a_missing_manifest_is_a_format_error(tmp_path):
    with pytest.raises(FormatError, match=r"certificate.json: cannot be read .*expected a certificate"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", [b"p cnf 1 2\n1 0\n", b"p cnf 1 1\n1 0 1 0\n", b"p cnf 1 1\nx 0\n", b"p\n1 0\n"])
def test_clauses_that_cannot_be_read_are_a_format_error(text):
    with pytest.raises(FormatError, match="here"):
        read_dimacs(text, "here")


def test_the_folder_must_be_empty_and_stays_so_without_an_answer(certificates, tmp_path):
    query = QUESTIONS["clauses"]
    with pytest.raises(QueryError, match="holds files already"):
        certify(query, certificates["bounds"])
    stopped = certify(query, tmp_path / "new", monitor=Monitor(stop=True))
    assert stopped.verdict is Verdict.UNKNOWN and stopped.run.reason == "interrupted"
    late = certify(query, tmp_path / "new", limits=Limits(seconds=1e-9))
    assert late.verdict is Verdict.UNKNOWN and "time limit" in late.run.reason
    assert not (tmp_path / "new").exists()


def test_a_wrong_verdict_or_evidence_that_proves_nothing_is_a_bug_and_not_written(tmp_path):
    query = QUESTIONS["counterexample"]
    wrong = Decision(Verdict.ROBUST, Run("guess"))
    with pytest.raises(EngineError, match="engine guess says robust, but an input of the region is adversarial"):
        certify(query, tmp_path / "c", decision=wrong)
    evidence = {"query": query.to_json(), "unit": 1, "partitions": [], "comparisons": []}
    with pytest.raises(EngineError, match="the bounds over patches do not hold: "):
        certify(query, tmp_path / "c", patches=evidence)
    with pytest.raises(EngineError, match="not a counterexample"):
        certify(query, tmp_path / "c", decision=replace(wrong, counterexample=query.region.lower))
    assert not (tmp_path / "c").exists()


def test_a_real_box_that_the_free_first_block_does_not_settle_stays_open(tmp_path):
    query = QUESTIONS["counterexample"]
    real = replace(query, region=RealBox(query.region.lower, query.region.upper))
    answer = certify(real, tmp_path / "real")
    assert answer.verdict is Verdict.UNKNOWN and "open neurons set free" in answer.run.reason


def test_a_known_counterexample_is_written_with_its_image_and_text(tmp_path):
    query = QUESTIONS["counterexample"]
    x = adversarial(query)[0]
    known = Decision(Verdict.NOT_ROBUST, Run("attack"), x, network().evaluate(x))
    assert certify(query, tmp_path / "c", decision=known).counterexample == x
    assert np.load(tmp_path / "c" / "counterexample.npy").tolist() == list(x)
    lines = (tmp_path / "c" / "counterexample.txt").read_text().splitlines()
    assert lines[0] == "sat" and lines[1] == f"((X_0 {x[0]})" and lines[9] == f"(X_8 {x[8]})"
    assert lines[10].startswith("(Y_0 ") and lines[12].endswith("))")
    image = pytest.importorskip("matplotlib.image").imread(tmp_path / "c" / "counterexample.png")
    assert (np.rint(image * 255) == np.array(x).reshape(3, 3) * 255 // 6).all()


def test_the_text_has_the_order_units_and_outputs_of_the_file_where_these_are_known(tmp_path):
    net = BinaryNetwork(InputDomain.integers([0] * 3, [9] * 3), (), OutputBlock.create([[1, 1, 1], [-1, 1, 1]]))
    coding = InputCoding.integers(0, 9, scale=Fraction(1, 8), offset=Fraction(-1, 2))
    imported = Imported(net, coding, np.array([2, 0, 1]), "X", (3,), (), ())
    query, x = Query(net, PixelBox((0, 1, 8), (0, 1, 8)), Untargeted(0), Ties.COUNTEREXAMPLE), (0, 1, 8)
    certify(query, tmp_path / "c", imported=imported)
    text = "sat\n((X_0 -0.375)\n(X_1 0.5)\n(X_2 -0.5)\n(Y_0 9)\n(Y_1 9))\n"
    assert (tmp_path / "c" / "counterexample.txt").read_text() == text
    assert imported.fed(x).tolist() == [-0.375, 0.5, -0.5]
    assert np.load(tmp_path / "c" / "counterexample.npy").tolist() == [0, 1, 8]
    save_counterexample(query, x, tmp_path)
    assert (tmp_path / "counterexample.txt").read_text().startswith("sat\n((X_0 0)\n(X_1 1)\n(X_2 8)\n")


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    lines = ["from bnnverify.engines.base import Clock", "from bnnverify.engines.cadical import refute"]
    lines.append("print(refute([(1,), (-1,)], Clock(60), with_proof=True).model)")
    script.write_text("\n".join(lines))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_an_input_that_is_no_image_has_no_picture(tmp_path):
    net = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, 1]]))
    save_counterexample(Query(net, HammingBall((1, 1), 1), Untargeted(0)), (-1, 1), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counterexample.npy", "counterexample.txt"]


@pytest.mark.parametrize("ties", list(Ties))
def test_a_ball_is_certified_too(tmp_path, ties):
    rng = np.random.default_rng(3)
    blocks = (DenseBlock.create(rng.choice([-1, 1], (6, 8)), [0, 1, -1, 2, 0, 1]),)
    net = BinaryNetwork(InputDomain.binary(8), blocks, OutputBlock.create(rng.choice([-1, 1], (3, 6))))
    x = tuple(rng.choice([-1, 1], 8).tolist())
    query = Query(net, HammingBall(x, 2), Untargeted(net.evaluate(x)), ties)
    answer = certify(query, tmp_path / "c")
    assert (answer.verdict is Verdict.NOT_ROBUST) == bool(oracle.adversarial_points(query))
    assert check_certificate(tmp_path / "c", net)


@pytest.mark.parametrize("region", [HammingBall((1, 1), 1), FixedIndexRegion((1, 1), (0, 1))])
@pytest.mark.parametrize("value", [-7, 0, 2**70])
def test_a_counterexample_of_other_numbers_than_signs_is_rejected(tmp_path, region, value):
    net = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, 1]]))
    certify(Query(net, region, Untargeted(0)), tmp_path / "c")
    assert main(["check", str(tmp_path / "c")]) == 0
    tamper(tmp_path / "c", form.POINT, lambda _: json.dumps({"input": [value, 1]}).encode())
    assert "the input is none of the network" in check_certificate(tmp_path / "c", net).reason
    assert main(["check", str(tmp_path / "c")]) == 1


def test_the_command_says_what_was_checked_and_exits_by_the_outcome(copy, capsys, tmp_path):
    folder = copy("clauses")
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "follow by unit propagation and end in a contradiction." in out
    assert "The certificate holds: robust, for" in out
    save(network(threshold=3), tmp_path / "other.npz")
    assert main(["check", str(folder), str(tmp_path / "other.npz"), "--json"]) == 1
    line = json.loads(capsys.readouterr().out)
    assert line["holds"] is False and line["reason"].startswith("the certificate is about the network")
    tamper(folder, form.CLAUSES, flipped)
    assert main(["check", str(folder)]) == 1
    assert "The certificate does not hold: clause" in capsys.readouterr().out
    (folder / form.MANIFEST).unlink()
    assert main(["check", str(folder)]) == 2
    assert "expected a certificate of bnnverify" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [1, 2**70])
def test_bounds_over_real_ends_and_huge_thresholds_are_exact(scale):
    block = DenseBlock.create([[1, 1], [1, -1]], [3, 0])
    net = BinaryNetwork(InputDomain.integers([0, 0], [9, 9]), (block,), OutputBlock.create([[1, 1], [-1, 1]]))
    half = Fraction(1, 2) + Fraction(1, 3 * scale)
    query = Query(net, RealBox((1, half), (2, 2 - half)), Untargeted(0))
    (found,) = block_bounds(query)
    assert found.low.tolist() == [1 + half, half - 1] and found.high.tolist() == [4 - half, 2 - half]
    assert found.after.tolist() == [0, 0]
    higher = replace(query, region=RealBox((2, 1 + half - Fraction(1, 2)), (2, 1 + half)))
    assert block_bounds(higher)[0].after.tolist() == [1, 1]
    lower = replace(query, region=RealBox((1, half), (1, 1)))
    assert block_bounds(lower)[0].after.tolist() == [-1, 1]  # at most 2 = threshold - 1: sure not to fire


def test_a_comparison_that_is_the_first_variable_itself_is_no_constant():
    # score 0 beats score 1 iff x0 = +1, which is variable 1: python counts 1 == True
    net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1], [-1]], bias=[0, 0, -9]))
    query = Query(net, HammingBall((-1,), 1), Untargeted(1), Ties.ROBUST)
    assert clauses_of(query).clauses == [(1,)]
    decision = certify_in_memory(query)
    assert decision.verdict is Verdict.NOT_ROBUST and decision.counterexample == (1,)


def certify_in_memory(query):
    with tempfile.TemporaryDirectory() as folder:
        return certify(query, Path(folder) / "proof")


@pytest.mark.parametrize(
    "change",
    [
        lambda query: query["property"].update(kind="whatever", target=0),
        lambda query: query["property"].update(strength="all classes"),
        lambda query: query.update(images=100),
        lambda query: query["region"].update(radius=True),
    ],
)
def test_a_question_that_says_more_than_is_checked_is_rejected(tmp_path, change):
    net = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, -1]], bias=[9, 0]))
    certify(Query(net, HammingBall((1, 1), 1), Untargeted(0)), tmp_path / "proof")
    assert check_certificate(tmp_path / "proof", net)
    manifest = json.loads((tmp_path / "proof" / form.MANIFEST).read_text())
    change(manifest["query"])
    (tmp_path / "proof" / form.MANIFEST).write_text(json.dumps(manifest))
    assert not check_certificate(tmp_path / "proof", net)
