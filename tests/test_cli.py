"""The command line: answers on stdout, one sentence per mistake on stderr, and the documented exit codes."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bnnverify.cli import COMPILING, complaint, main
from bnnverify.cli.images import read_signs
from bnnverify.cli.options import index_list, rates
from bnnverify.cli.reliability import fault_models
from bnnverify.errors import EngineError, FormatError, QueryError, ResourceLimitError
from bnnverify.faults import AsymmetricFlip, BitFlip
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock, Provenance
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall
from bnnverify.results import answer_from_json
from tests import oracle


def network(n=6, seed=0, classes=3, shape=None):
    random = np.random.default_rng(seed)
    hidden = DenseBlock.create(random.choice([-1, 1], (4, n)), random.integers(-2, 3, 4))
    output = OutputBlock.create(random.choice([-1, 1], (classes, 4)), bias=random.integers(-1, 2, classes).tolist())
    return BinaryNetwork(InputDomain.binary(n, shape), (hidden,), output, Provenance({"made": "for tests"}))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with a small network, inputs for it, and a network for the digits."""
    monkeypatch.chdir(tmp_path)
    save(network(shape=(2, 3)), "net.npz")
    save(network(64, classes=10, shape=(8, 8)), "digits.npz")
    (tmp_path / "rows.txt").write_text("# two inputs\n1 0 1 1 0 0\n0,0,0,1,1,1\n")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def call(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def json_lines(text):
    return [json.loads(row) for row in text.splitlines()]


def test_verify_answers_as_the_definition_does(workplace, run):
    code, out, err = run("verify", "net.npz", "--input", "rows.txt", "--radius", 2, "--json", "-q")
    assert (code, err) == (0, "")
    lines = json_lines(out)
    assert len(lines) == 2
    for line, x in zip(lines, [(1, -1, 1, 1, -1, -1), (-1, -1, -1, 1, 1, 1)], strict=True):
        query = Query(network(), HammingBall(x, 2), Untargeted(network().evaluate(x)))
        robust = not oracle.adversarial_points(query)
        assert line["answer"]["verdict"] == ("robust" if robust else "not-robust")
        assert line["question"] == query.to_json()
        assert tuple(line["image"]["input"]) == x
        answer = answer_from_json(line["answer"])
        assert robust or query.is_adversarial(answer.counterexample)


def test_every_line_stands_alone(workplace, run):
    _, out, _ = run("count", "net.npz", "--input", "rows.txt", "--index", 1, "--free", "0:3", "--json")
    (line,) = json_lines(out)
    assert line["model"]["identity"] == network().identity and line["model"]["path"] == "net.npz"
    assert line["model"]["shape"] == [2, 3]
    assert line["data"]["file"] == "rows.txt" and len(line["data"]["sha256"]) == 64
    assert line["command"] == "bnnverify count net.npz --input rows.txt --index 1 --free 0:3 --json"
    assert line["answer"]["region_size"] == 8 and sum(line["answer"]["per_class"]) == 8
    assert set(line["versions"]) == {"bnnverify", "python", "numpy"}


@pytest.mark.parametrize(
    ("region", "size"),
    [(["--radius", "1"], 7), (["--hold", "0:4"], 4), (["--free", "5,0"], 4), (["--whole-cube"], 64)],
)
def test_counts_of_every_region_are_those_of_the_definition(workplace, run, region, size):
    code, out, _ = run("count", "net.npz", "--input", "rows.txt", "--index", 0, *region, "--json")
    (line,) = json_lines(out)
    assert code == 0 and line["answer"]["region_size"] == size
    from bnnverify.regions import region_from_json

    query = Query(network(), region_from_json(line["question"]["region"]), Untargeted(line["image"]["predicted"]))
    assert line["answer"]["lower"] == line["answer"]["upper"] == len(oracle.adversarial_points(query))
    assert line["answer"]["per_class"] == oracle.per_class(query)


def test_distance_is_that_of_the_definition(workplace, run):
    _, out, _ = run("distance", "net.npz", "--input", "rows.txt", "--json")
    for line in json_lines(out):
        x = tuple(line["image"]["input"])
        kept = Untargeted(network().evaluate(x))
        assert line["answer"]["lower"] == oracle.distance(
            lambda r, x=x, k=kept: Query(network(), HammingBall(x, r), k), 6
        )


def test_a_target_and_a_class_to_keep_change_the_question(workplace, run):
    common = ("verify", "net.npz", "--input", "rows.txt", "--index", 0, "--radius", 6, "--json")
    _, out, _ = run(*common, "--target", 2, "--ties", "robust")
    (line,) = json_lines(out)
    assert line["question"]["property"] == {"kind": "targeted", "target": 2} and line["question"]["ties"] == "robust"
    _, out, _ = run(*common, "--keep", 1)
    assert json_lines(out)[0]["question"]["property"] == {"kind": "untargeted", "label": 1}


def test_tables_say_how_exact_they_are(workplace, run):
    code, out, err = run("verify", "net.npz", "--input", "rows.txt", "--radius", 6, "--show")
    assert code == 0 and without_notice(err) == ""
    assert "Verdicts are exact: proved, or replayed on the exact network." in out
    assert re.search(r"^ +#[#.]{2} {3}[#.ox]{3}$", out, re.M)  # the drawing, two rows of three
    _, out, _ = run("count", "net.npz", "--input", "rows.txt", "--radius", 1)
    assert "exact" in out and "by class" in out and "2 of 2 counts are exact." in out
    _, out, _ = run("distance", "net.npz", "--input", "rows.txt", "--max-radius", 6)
    assert "of 2 distances are exact" in out


def test_info_shows_blocks_identity_and_provenance(workplace, run):
    code, out, _ = run("info", "net.npz")
    assert code == 0
    assert "6-4-3" in out and network().identity in out and "for tests" in out
    _, out, _ = run("info", "net.npz", "--json")
    (line,) = json_lines(out)
    assert [block["cells"] for block in line["answer"]["blocks"]] == [24, 12]


def test_several_processes_give_the_same_lines_in_the_same_order(workplace, run):
    (workplace / "many.txt").write_text("\n".join(" ".join(format(i, "06b")) for i in range(12)))
    words = ("count", "net.npz", "--input", "many.txt", "--radius", 2, "--json", "-q")
    _, alone, _ = run(*words)
    code, together, _ = run(*words, "--jobs", 2)
    assert code == 0

    def essence(text):
        return [(line["image"], line["answer"]["lower"]) for line in json_lines(text)]

    assert essence(alone) == essence(together) and len(essence(alone)) == 12


# Exit codes.


def test_fail_on_not_robust_exits_1(workplace, run):
    words = ("verify", "net.npz", "--input", "rows.txt", "--radius", 6)
    assert run(*words)[0] == 0
    assert run(*words, "--fail-on", "not-robust")[0] == 1
    assert run("verify", "net.npz", "--input", "rows.txt", "--radius", 0, "--fail-on", "not-robust")[0] == 0


def test_a_limit_exits_3_and_prints_what_is_known(workplace, run):
    words = ("--data", "digits", "--radius", 12, "--timeout", 0.000001, "--json")
    code, out, _ = run("verify", "digits.npz", *words)
    assert code in (0, 3)
    verdict = json_lines(out)[0]["answer"]
    assert (code == 3) == (verdict["verdict"] == "unknown")
    assert code == 0 or "time limit" in verdict["run"]["reason"]
    code, out, _ = run("count", "digits.npz", *words)
    answer = json_lines(out)[0]["answer"]
    assert code == 3 and answer["kind"] == "interval" and "time limit" in answer["run"]["reason"]
    assert 0 <= answer["lower"] <= answer["upper"] <= answer["region_size"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ResourceLimitError("out of nodes."), 3, "bnnverify count: out of nodes."),
        (EngineError("a bug."), 70, "bnnverify count: a bug."),
        (MemoryError(), 3, "bnnverify count: out of memory"),
        (KeyboardInterrupt(), 130, "bnnverify count: interrupted; the answers printed so far are complete."),
        (ModuleNotFoundError("no", name="torch"), 2, "needs torch, not installed. Run: pip install 'bnnverify[train]'"),
        (QueryError("two\nlines"), 2, "bnnverify count: two lines"),
    ],
)
def test_errors_become_one_line_and_a_code(error, code, message):
    found = complaint(error, "bnnverify count")
    assert found[0] == code and message in found[1] and "\n" not in found[1]


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), ModuleNotFoundError("no", name="unheard_of")])
def test_a_bug_is_one_line_with_a_code_of_its_own(error):
    code, message = complaint(error, "bnnverify")
    assert code == 70
    assert type(error).__name__ in message and "This is a bug in bnnverify; --debug shows where" in message


NET, ROWS = ("net.npz",), ("--input", "rows.txt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("verify", *NET, *ROWS, "--radius", "99"), "bnnverify verify: radius is 99, expected 0 to 6"),
        (("verify", *NET, *ROWS, "--radius", "-1"), "bnnverify verify: radius is -1, expected 0 to 6"),
        (("verify", *NET, *ROWS, "--radius", "x"), "bnnverify verify: Invalid value for '--radius' / '--hamming': 'x'"),
        (("verify", *NET, *ROWS), "expected exactly one region: --radius R"),
        (("verify", *NET, *ROWS, "--radius", "1", "--whole-cube"), "expected exactly one region"),
        (("verify", *NET, "--radius", "1"), "no images are named, expected --data NAME or --input FILE."),
        (
            ("verify", *NET, *ROWS, "--data", "digits", "--radius", "1"),
            "--input and --data are both given",
        ),
        (("verify", *NET, "--data", "digits", "--radius", "1"), "have 64 pixels, but the network takes 6 inputs"),
        (("verify", *NET, "--data", "cats", "--radius", "1"), "no dataset 'cats', expected one of: digits"),
        (("verify", *NET, *ROWS, "--index", "2", "--radius", "1"), "row of rows.txt 2 does not exist, expected 0 to 1"),
        (("verify", *NET, *ROWS, "--index", "a", "--radius", "1"), "list contains 'a', expected numbers and ranges"),
        (("verify", "digits.npz", "--data", "digits", "--index", "0:999", "--radius", "1"), "998 does not exist"),
        (("verify", *NET, *ROWS, "--radius", "1", "--target", "3"), "class 3 does not exist, expected 0 to 2"),
        (("verify", *NET, *ROWS, "--radius", "1", "--keep", "true"), "inputs of a file have none"),
        (("verify", *NET, *ROWS, "--radius", "1", "--keep", "cat"), "--keep is 'cat', expected predicted, true or"),
        (("verify", *NET, *ROWS, "--radius", "1", "--timeout", "0"), "--timeout is 0, expected a number of seconds"),
        (("verify", *NET, *ROWS, "--radius", "1", "--jobs", "0"), "--jobs is 0, expected at least 1"),
        (("verify", *NET, *ROWS, "--radius", "1", "--engine", "magic"), "'magic' is not one of 'auto'"),
        (("verify", *NET, *ROWS, "--hold", "9"), "input 9 does not exist, expected 0 to 5"),
        (("verify", "none.npz", *ROWS, "--radius", "1"), "none.npz: cannot be read (no such file or directory)"),
        (("verify", "rows.txt", *ROWS, "--radius", "1"), "rows.txt: is of an unknown kind"),
        (("verify", *NET, "--input", "none.txt", "--radius", "1"), "none.txt: cannot be read"),
        (("info", "rows.txt"), "bnnverify info: rows.txt: is of an unknown kind"),
        (("info",), "bnnverify info: Missing argument 'MODEL'."),
        (("count", *NET, *ROWS, "--radius", "1", "--nonsense"), "bnnverify count: No such option"),
        (("frobnicate",), "bnnverify: No such command 'frobnicate'."),
        (("distance", *NET, *ROWS, "--max-radius", "7"), "radius is 7, expected 0 to 6"),
        (("reliability", "digits.npz", "--data", "digits"), "no error rate is named, expected --ber RATES"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "2"), "--ber is 2, expected a probability within"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "-0.1"), "--ber is -0.1, expected a probability"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "nan"), "--ber is 'nan', expected a probability"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "1e-999999999"), "expected a probability such as"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "1:2"), "expected a rate such as 1e-3 or a grid"),
        (("reliability", "digits.npz", "--data", "digits", "--p01", "0.1"), "only one of --p01 and --p10 is given"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "0.1", "--p01", "0"), "rates are named twice"),
        (("train", "-o", "a.npz", "--metrics", "a.npz"), "--metrics and --output are both a.npz, expected two files"),
        (
            ("verify", *NET, *ROWS, "--radius", "1", "--keep", "1", "--target", "0"),
            "--keep and --target are both given",
        ),
        (("reliability", *NET, "--data", "digits", "--ber", "0.1", "--tolerance", "0"), "--tolerance is 0, expected a"),
        (("reliability", *NET, "--data", "digits", "--ber", "0.1", "--max-states", "0"), "--max-states is 0"),
        (("reliability", *NET, *ROWS, "--ber", "0.1", "--samples", "1", "--seed", "-1"), "seed is -1, expected"),
        (("reliability", *NET, *ROWS, "--ber", "0.1", "--keep", "true"), "--keep true need labels, but inputs"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "0.1", "--samples", "0"), "--samples is 0"),
        (("reliability", "digits.npz", "--data", "digits", "--ber", "0.1", "--only-samples"), "samples is given"),
        (
            ("reliability", "digits.npz", "--data", "digits", "--ber", "0.1", "--csv", "no/a.csv"),
            "--csv no/a.csv cannot be",
        ),
        (
            ("reliability", "digits.npz", "--data", "digits", "--target-accuracy", "3"),
            "expected a probability within [0, 1]",
        ),
        (("train", "-o", "no/a.npz"), "--output no/a.npz cannot be written"),
        (("train", "-o", "a.npz", "--hidden", "many"), "a hidden block is 'many', expected a number of neurons"),
        (("train", "-o", "a.npz", "--epochs", "0"), "epochs is 0, expected a positive integer"),
        (("train", "-o", "a.npz", "--data", "cats"), "no dataset 'cats'"),
        (("train",), "there is no --output, expected the file to save the network to"),
        (("train", "-o", "a.npz", "--resume"), "--resume is given without --checkpoint"),
        (("train", "-o", "a.npz", "--checkpoint", "a.npz"), "--checkpoint and --output are both a.npz"),
        (("train", "-o", "a.npz", "--set", "rate"), "--set is 'rate', expected NAME=VALUE such as rate=1e-3"),
        (
            ("train", "-o", "a.npz", "--set", "rats=1"),
            "the rule ste has no option 'rats', expected one of: learning_rate",
        ),
        (("train", "-o", "a.npz", "--ber", "0.1", "--p01", "0.1"), "--ber is given with --p01 or --p10"),
        (("train", "-o", "a.npz", "--ber", "2"), "--ber is 2, expected a probability within"),
        (("train", "-o", "a.npz", "--config", "none.json"), "none.json: cannot be read"),
        (("train", "-o", "a.npz", "--config", "rows.txt"), "rows.txt: is not valid JSON"),
        (("train", "-o", "a.npz", "--device", "abacus"), "device is 'abacus', which torch does not see here"),
        (("report", "none.jsonl"), "none.jsonl: cannot be read"),
        (("report", "rows.txt"), "rows.txt:1: is not valid JSON"),
        (("report", "rows.txt", "-o", "no/r.html"), "--output no/r.html cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(workplace, run, words, message):
    before = sorted(workplace.rglob("*"))
    code, out, err = run(*words)
    assert code == 2
    assert message in err and err.startswith("bnnverify") and err.count("\n") == 1
    assert out == "" and sorted(workplace.rglob("*")) == before


def test_debug_shows_the_traceback_as_well(workplace, run):
    _, _, err = run("verify", *NET, *ROWS, "--radius", 99, "--debug")
    assert "Traceback" in err and err.splitlines()[-1].startswith("bnnverify verify: radius is 99")


@pytest.mark.parametrize("verb", ["train", "data", "info", "verify", "count", "distance", "reliability", "report"])
def test_every_verb_has_help_with_examples(run, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0 and f"  bnnverify {verb} " in out and "Examples:" in out


def test_the_top_level_help_lists_the_verbs_and_the_exit_codes(run):
    code, out, _ = run("--help")
    assert code == 0 and "reliability" in out and "Exit codes:" in out
    assert run("--version")[1].startswith("bnnverify, version ")


# Reliability.


def test_reliability_proves_an_interval_and_writes_the_table(workplace, run):
    words = ("--data", "digits", "--index", "0:6", "--ber", "0,1e-3", "--csv", "a.csv", "--json")
    code, out, _ = run("reliability", "digits.npz", *words, "--per-image", "--samples", 20)
    assert code == 0
    lines = json_lines(out)
    proved = [line for line in lines if line["answer"]["kind"] != "sampled"]
    assert [line["question"]["faults"]["p"] for line in proved] == ["0", "1/1000"]
    clean = Fraction(proved[0]["images"]["clean_correct"], 6)
    assert Fraction(proved[0]["answer"]["lower"]) <= clean <= Fraction(proved[0]["answer"]["upper"])
    assert len(proved[1]["answer"]["per_image"]) == 6
    sampled = [line["answer"] for line in lines if line["answer"]["kind"] == "sampled"]
    assert len(sampled) == 2 and sampled[0]["confidence"] == 0.99 and sampled[0]["chips"] == 20
    with Path("a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows].count("sampled") == 2 and rows[0]["p"] == "0"
    assert Fraction(rows[0]["lower"]) <= clean <= Fraction(rows[0]["upper"])


def test_reliability_prints_a_table_for_people(workplace, run):
    words = ("--data", "digits", "--index", "0:4", "--p01", "1e-3", "--p10", "0")
    code, out, err = run("reliability", "digits.npz", *words)
    assert code == 0 and err == ""
    assert "p01 0.001  p10 0" in out and "interval" in out and "accuracy without errors" in out


def test_only_samples_proves_nothing(workplace, run):
    words = ("--data", "digits", "--index", "0:4", "--ber", "0.1", "--samples", 10, "--only-samples", "--json")
    _, out, _ = run("reliability", "digits.npz", *words)
    (line,) = json_lines(out)
    assert line["answer"]["kind"] == "sampled"


def test_fault_models_are_what_the_options_say():
    assert fault_models("1e-3,1/4", None, None) == [BitFlip("1e-3"), BitFlip("1/4")]
    assert fault_models(None, "0.1,0.2", "0") == [AsymmetricFlip("0.1", 0), AsymmetricFlip("0.2", 0)]
    assert fault_models(None, None, None) == []
    with pytest.raises(QueryError, match="--p01 has 2 rates and --p10 has 3, expected as many, or one"):
        fault_models(None, "0.1,0.2", "0.1,0.2,0.3")


# Reading what users write.


@pytest.mark.parametrize(
    ("text", "expected"), [("3", [3]), ("0:3", [0, 1, 2]), ("8:2:0", None), ("1:9:4,0", [1, 5, 0]), ("1,1", [1])]
)
def test_index_lists(text, expected):
    if expected is None:
        with pytest.raises(QueryError, match="range 8:2:0 is empty"):
            index_list(text, 10, "image")
    else:
        assert index_list(text, 10, "image") == expected


def test_rate_lists_are_exact_and_keep_every_entry():
    assert rates("0.1, 1e-1,1/3") == (Fraction(1, 10), Fraction(1, 10), Fraction(1, 3))
    assert len(rates("1e-4:1e-1:log:8")) == 8
    with pytest.raises(QueryError, match="--ber is empty"):
        rates(" , ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "holds 2.0, expected only 0 and 1, or only -1 and 1"),
        ("1 0 -1", "holds 0, expected only 0 and 1, or only -1 and 1"),
        ("1 0\n1", r"rows:2: has 1 entries, expected 2 as in row 1"),
        ("1 0\n1 b", r"rows:2: is '1 b', expected numbers"),
        ("1 nan", "holds nan, expected only 0 and 1"),
        ("", "has shape .*, expected"),
    ],
)
def test_files_of_other_things_than_signs_are_refused(tmp_path, text, message):
    path = tmp_path / "rows"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_signs(str(path))


def test_signs_are_read_from_npy_and_text_alike(tmp_path):
    rows = np.array([[1, -1], [-1, -1]])
    for name, array in (("a.npy", rows), ("b.npy", rows > 0), ("c.npy", rows.astype(float))):
        np.save(tmp_path / name, array)
        assert read_signs(str(tmp_path / name))[1].tolist() == rows.tolist()
    np.save(tmp_path / "d.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(FormatError, match=r"d\.npy: has dtype object"):
        read_signs(str(tmp_path / "d.npy"))


# As a process.


def without_notice(err):
    """What a process wrote to stderr, but for the line that a slow machine adds: at most once, and first."""
    return err.removeprefix(COMPILING + "\n")


def started(*words):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "bnnverify", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(("number", "to_all", "code"), [(2, False, 130), (15, False, 143), (15, True, 143)])
def test_an_interrupt_keeps_what_was_printed(workplace, jobs, number, to_all, code):
    save(network(20, seed=3), "wide.npz")
    (workplace / "wide.txt").write_text("\n".join(" ".join(format(i, "020b")) for i in range(4000)))
    with started("count", "wide.npz", "--input", "wide.txt", "--radius", "9", "--json", "--jobs", jobs) as process:
        first = process.stdout.readline()
        (os.killpg if to_all else os.kill)(process.pid, number)
        # not communicate(): it does not see what readline() has read ahead
        rest, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == code
    answers = [line["answer"] for line in json_lines(first + rest)]
    assert all(a["kind"] == "exact" or a["run"]["reason"] == "interrupted" for a in answers)
    said = "bnnverify count: interrupted; the answers printed are complete or say how far they came.\n"
    assert without_notice(err) == said


@pytest.mark.parametrize("number", [15, 9])
@pytest.mark.parametrize("engine", ["enumeration", "cadical"])
def test_the_processes_of_a_killed_command_end(workplace, engine, number):
    save(network(20, seed=3), "wide.npz")
    (workplace / "wide.txt").write_text("\n".join(" ".join(format(i, "020b")) for i in range(4000)))
    words = ("verify", "wide.npz", "--input", "wide.txt", "--radius", "9", "--json", "--jobs", "2", "--engine", engine)
    with started(*words) as process:
        process.stdout.readline()
        process.send_signal(number)
        try:
            process.communicate(timeout=60)  # all descendants hold these pipes
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise AssertionError("a process outlived the command") from None


def test_a_reader_that_goes_away_is_no_error(workplace):
    (workplace / "many.txt").write_text("\n".join(" ".join(format(i % 64, "06b")) for i in range(1000)))
    with started("verify", "net.npz", "--input", "many.txt", "--radius", "1", "--json") as process:
        process.stdout.readline()
        process.stdout.close()
        assert without_notice(process.stderr.read()) == ""
    assert process.returncode == 141


def test_help_is_quick_and_needs_nothing_heavy():
    code = "import sys; from bnnverify.cli import main; main(['verify', '--help']); print({'numpy'} & set(sys.modules))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip().endswith("set()") and time.perf_counter() - start < 5


@pytest.mark.slow
def test_train_saves_a_network_that_info_and_verify_take(workplace, run):
    code, out, err = run("train", "--epochs", 2, "--hidden", 8, "-o", "t.npz", "--metrics", "m.jsonl", "--json", "-q")
    assert (code, err) == (0, "")
    (line,) = json_lines(out)
    assert line["answer"]["type"] == "training" and set(line["answer"]["accuracy"]) == {"train", "validation", "test"}
    assert len((workplace / "m.jsonl").read_text().splitlines()) == 2
    assert run("info", "t.npz")[0] == 0
    assert run("verify", "t.npz", "--data", "digits", "--radius", 1, "--keep", "true")[0] == 0


def test_reliability_of_an_own_input_is_about_the_class_one_names(workplace, run):
    (workplace / "one.txt").write_text("1 0 1 1 0 0\n")
    clean = network().evaluate((1, -1, 1, 1, -1, -1))
    for keep in ("predicted", "0", "1", "2"):
        code, out, _ = run("reliability", "net.npz", "--input", "one.txt", "--ber", 0, "--keep", keep, "--json")
        (line,) = json_lines(out)
        assert code == 0
        assert line["question"]["keep"] == keep
        assert (line["answer"]["kind"], line["answer"]["lower"]) == (
            "exact",
            str(int(keep in ("predicted", str(clean)))),
        )


@pytest.mark.parametrize("text", ["1 0 1\n1 0 0\n", "101\n100\n", "101100\n", "1,0,1,1,0,0\n"])
def test_one_image_may_be_written_as_a_picture_or_without_spaces(workplace, run, text):
    (workplace / "one.txt").write_text(text)
    code, out, _ = run("verify", "net.npz", "--input", "one.txt", "--radius", 0, "--json")
    assert code == 0
    assert json_lines(out)[0]["image"]["input"] == [1, -1, 1, 1, -1, -1]


def test_a_bracket_that_the_clock_cut_off_is_partial(workplace, run):
    words = ["--data", "digits", "--target-accuracy", "0", "--timeout", "0.0001", "--json"]
    code, out, _ = run("reliability", "digits.npz", *words)
    assert code == 3
    assert "time limit" in json_lines(out)[0]["answer"]["run"]["reason"]


def test_an_interrupt_keeps_the_finished_rows_of_the_table(workplace, run, monkeypatch):
    from bnnverify import campaign

    honest, calls = campaign.certified_accuracy, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    monkeypatch.setattr(campaign, "certified_accuracy", interrupted)
    words = ["--data", "digits", "--index", "0:3", "--ber", "0,0.1", "--csv", "table.csv"]
    assert run("reliability", "digits.npz", *words)[0] == 130
    assert len((workplace / "table.csv").read_text().splitlines()) == 2
