"""The command line of the counting analyses, and what Ctrl-C keeps."""

import json
import re
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from bnnverify.cli import main, workers
from bnnverify.engines.base import Monitor
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall
from bnnverify.results import answer_from_json
from tests import oracle
from tests.test_cli import without_notice

X = (1, -1, 1, 1, -1, -1)


def network(n=6, hidden=4, seed=0):
    random = np.random.default_rng(seed)
    block = DenseBlock.create(random.choice([-1, 1], (hidden, n)), random.integers(-2, 3, hidden))
    output = OutputBlock.create(random.choice([-1, 1], (3, hidden)), bias=random.integers(-1, 2, 3).tolist())
    return BinaryNetwork(InputDomain.binary(n), (block,), output)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with a small network and two inputs for it."""
    monkeypatch.chdir(tmp_path)
    save(network(), "net.npz")
    (tmp_path / "rows.txt").write_text("1 0 1 1 0 0\n0 0 0 1 1 1\n")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def call(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def one_line(out):
    (line,) = map(json.loads, out.splitlines())
    return line


ONE = ("net.npz", "--input", "rows.txt", "--index", 0)


def adversarial(region):
    return oracle.adversarial_points(Query(network(), region, Untargeted(network().evaluate(X))))


def test_all_radii_are_those_of_the_definition(workplace, run):
    code, out, _ = run("count", *ONE, "--radius", 4, "--by-radius", "--json")
    line = one_line(out)
    assert code == 0 and line["question"]["analysis"] == "by-radius"
    assert line["answer"]["balls"] == [len(adversarial(HammingBall(X, r))) for r in range(5)]
    assert Fraction(line["answer"]["densities"][1]) == Fraction(line["answer"]["balls"][1], 7)
    _, out, _ = run("count", *ONE, "--radius", 2, "--free", "0:3", "--by-radius", "--target", 1)
    assert "whose class is 1" in out and "1 of 1 tables are exact. Every line of a table is exact." in out


def test_samples_are_adversarial_inputs_and_repeat_with_the_seed(workplace, run):
    words = ("count", *ONE, "--radius", 3, "--samples", 5, "--seed", 3, "--json")
    code, out, _ = run(*words)
    line, expected = one_line(out), adversarial(HammingBall(X, 3))
    assert code == 0 and line["answer"]["adversarial"] == len(expected) and len(line["answer"]["inputs"]) == 5
    assert {tuple(x) for x in line["answer"]["inputs"]} <= set(expected)
    assert one_line(run(*words)[1])["answer"]["inputs"] == line["answer"]["inputs"]
    assert (line["question"]["n"], line["question"]["seed"]) == (5, 3)
    code, out, _ = run("count", "net.npz", "--input", "rows.txt", "--radius", 0, "--samples", 1)
    assert code == 0 and out.count("none: no input of the region is adversarial") == 2
    assert "0 inputs drawn" in out


def test_noise_hits_what_varies_in_the_region(workplace, run):
    code, out, _ = run("count", *ONE, "--free", "0:3", "--noise", "1/10", "--json")
    line, p = one_line(out), Fraction(1, 10)
    flips = [sum(a != b for a, b in zip(x, X, strict=True)) for x in adversarial(FixedIndexRegion(X, (0, 1, 2)))]
    assert code == 0 and line["answer"]["kind"] == "exact" and line["question"]["rate"] == "1/10"
    assert Fraction(line["answer"]["lower"]) == sum(p**r * (1 - p) ** (3 - r) for r in flips)
    code, out, _ = run("count", *ONE, "--radius", 2, "--noise", "0.1")
    assert code == 0 and "(interval)" in out and "inputs with more than 2 flips were not asked for" in out
    assert "each of 6 inputs flips with probability 1/10" in out


def test_the_safe_distance_is_the_last_radius_within_the_tolerance(workplace, run):
    shares = [Fraction(len(adversarial(HammingBall(X, r))), HammingBall(X, r).size()) for r in range(7)]
    tolerance = max(shares[:4])
    expected = next((r - 1 for r in range(7) if shares[r] > tolerance), 6)
    code, out, _ = run("distance", *ONE, "--tolerance", str(tolerance), "--json")
    line = one_line(out)
    assert code == 0 and line["question"]["analysis"] == "safe-distance"
    assert (line["answer"]["lower"], line["answer"]["upper"]) == (expected, expected)
    code, out, _ = run("distance", *ONE, "--tolerance", "1", "--max-radius", 2)
    assert code == 0 and ">= 2" in out and "0 of 1 safe distances are exact" in out
    assert "1 of 1 safe distances are exact." in run("distance", *ONE, "--tolerance", "0")[1]


@pytest.mark.parametrize("mode", [["--by-radius"], ["--samples", "2"], ["--noise", "0.01"], []])
def test_a_limit_exits_3_with_what_is_proved(workplace, run, mode):
    save(network(40, 20), "wide.npz")
    (workplace / "wide.txt").write_text("1" * 40)
    region = ("--radius", 20) if mode == ["--by-radius"] else ("--whole-cube",)
    words = ("count", "wide.npz", "--input", "wide.txt", *region, *mode, "--timeout", 0.000001)
    code, out, _ = run(*words, "--json")
    answer = answer_from_json(one_line(out)["answer"])
    assert code == 3 and answer.kind.value == "interval" and "time limit" in answer.run.reason
    code, out, _ = run(*words, "--threads", 1)
    assert code == 3 and "time limit" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("count", *ONE, "--radius", 1, "--by-radius", "--samples", 1),
            "are both given, expected only one",
        ),
        (("count", *ONE, "--whole-cube", "--by-radius"), "--by-radius is about balls, but the region is a fixed-index"),
        (("count", *ONE, "--radius", 1, "--seed", 1), "--seed is given without --samples"),
        (("count", *ONE, "--radius", 1, "--samples", 0), "--samples is 0, expected at least 1"),
        (("count", *ONE, "--radius", 1, "--noise", "2"), "--noise is 2, expected a probability within"),
        (("count", *ONE, "--radius", 1, "--noise", "0.1,0.2"), "--noise is '0.1,0.2', expected one number"),
        (("count", *ONE, "--radius", 1, "--noise", "0.1", "--target", 1), "--noise and --target are both given"),
        (("count", *ONE, "--radius", 1, "--threads", 0), "--threads is 0, expected at least 1"),
        (("distance", *ONE, "--tolerance", "-1"), "--tolerance is -1, expected a probability within"),
    ],
)
def test_a_mistake_is_one_line(workplace, run, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


# Ctrl-C.


class Endless:
    """A question that ends only when it is asked to."""

    def __init__(self, breaks=False, presses=1):
        self.breaks, self.presses = breaks, presses

    def answer(self, network, monitor):
        for _ in range(self.presses):
            signal.raise_signal(signal.SIGINT)
        return "partial" if monitor.stop else "complete"


class Prompt(Endless):
    def answer(self, network, monitor):
        return "complete"


def collected(questions, jobs=1):
    found = []
    with pytest.raises(KeyboardInterrupt) as caught:
        found.extend([])
        for answer in workers.answers(None, questions, jobs=jobs, bar=False, verb="count"):
            found.append(answer)
    return found, str(caught.value)


def test_the_first_press_keeps_the_partial_answer_and_asks_nothing_more():
    before = signal.getsignal(signal.SIGINT)
    found, message = collected([Prompt(), Endless(), Prompt()])
    assert found == ["complete", "partial"] and "say how far they came" in message
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_press_ends_everything():
    found, message = collected([Prompt(), Endless(presses=2), Prompt()])
    assert found == ["complete"] and message == ""


def test_a_question_that_asks_for_verdicts_is_broken_off_at_once():
    found, message = collected([Prompt(), Endless(breaks=True), Prompt()])
    assert found == ["complete"] and message == ""


def test_a_press_between_two_questions_asks_nothing_more():
    stream = workers.answers(None, [Prompt(), Prompt()], jobs=1, bar=False, verb="count")
    assert next(stream) == "complete"
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        next(stream)


def test_the_bar_shows_the_settled_share_and_the_bounds(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with workers._Bar("count", 4, True) as bar:
        bar.answered()
        bar.within(10, 30, 40)
        assert bar._tqdm.n == 1.5 and "adversarial 10..30 of 40" in str(bar._tqdm)
        bar.within(0, 40, 40)
        assert bar._tqdm.n == 1.5  # never backwards
        bar.answered()
        assert bar._tqdm.n == 2


def test_the_bar_of_explain_shows_what_is_needed_and_what_is_kept(workplace, monkeypatch):
    seen = []

    class Bar(workers._Bar):
        def within(self, *bounds):
            super().within(*bounds)
            seen.append(str(self._tqdm))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(workers, "_Bar", Bar)
    assert main(["explain", *map(str, ONE), "--whole-cube"]) == 0
    assert any(re.search(r"needed\.\.kept \d+\.\.\d+ of 6", text) for text in seen)


# Presses Ctrl-C as soon as the count tells of its progress; a process of --jobs presses it for its parent.
PRESSING = """
import os, signal, sys
from bnnverify.engines.base import Monitor
signal.signal(signal.SIGINT, signal.default_int_handler)
parent = os.getppid() if __name__ == "__mp_main__" else os.getpid()
pressed = []
def report(self, *bounds):
    if not pressed:
        pressed.append(True)
        try:
            os.close(os.open("pressed", os.O_CREAT | os.O_EXCL))  # one press, whoever is first
        except FileExistsError:
            return
        os.kill(parent, signal.SIGINT)
Monitor.report = report
if __name__ == "__main__":
    from bnnverify.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_count_prints_its_bounds(workplace, jobs):
    save(network(60, 30, seed=3), "wide.npz")
    rows = np.random.default_rng(0).integers(0, 2, (6, 60))
    (workplace / "wide.txt").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    (workplace / "pressing.py").write_text(PRESSING)
    words = ["count", "wide.npz", "--input", "wide.txt", "--radius", "25", "--engine", "enumeration", "--json"]
    command = [sys.executable, "pressing.py", *words, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    answers = [json.loads(row)["answer"] for row in done.stdout.splitlines()]
    assert done.returncode == 130 and 1 <= len(answers) <= jobs
    assert all(answer["kind"] == "interval" and answer["run"]["reason"] == "interrupted" for answer in answers)
    assert all(0 <= answer["lower"] <= answer["upper"] for answer in answers)
    said = "bnnverify count: interrupted; the answers printed are complete or say how far they came.\n"
    assert without_notice(done.stderr) == said


def test_a_monitor_in_another_process_hears_the_parent(monkeypatch):
    class Stop:
        is_on = False

        def is_set(self):
            return self.is_on

    monkeypatch.setattr(workers, "_stop", stop := Stop())
    monkeypatch.setattr(workers, "_network", network())
    assert isinstance(workers._Remote(), Monitor) and not workers._Remote().stop
    assert workers._answer(Prompt()) == ("complete",)
    stop.is_on = True
    assert workers._Remote().stop and workers._answer(Prompt()) is None
