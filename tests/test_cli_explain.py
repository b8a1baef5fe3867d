"""``bnnverify explain``: what it prints is what the definition says, and it labels what a limit leaves open."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from bnnverify.cli import main
from bnnverify.cli.explain import drawing
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, region_from_json
from bnnverify.results import EssentialFeatures, Explanation, answer_from_json
from tests import oracle
from tests.test_explain import essentials, is_prime

MODELS = Path(__file__).resolve().parent.parent / "models"


def network(n=6, seed=0, classes=3):
    random = np.random.default_rng(seed)
    hidden = DenseBlock.create(random.choice([-1, 1], (4, n)), random.integers(-2, 3, 4))
    output = OutputBlock.create(random.choice([-1, 1], (classes, 4)), bias=random.integers(-1, 2, classes).tolist())
    return BinaryNetwork(InputDomain.binary(n, (2, n // 2)), (hidden,), output)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(network(), "net.npz")
    (tmp_path / "rows.txt").write_text("1 0 1 1 0 0\n0 0 0 1 1 1\n")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def call(*words):
        code = main(["explain", *[str(word) for word in words]])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    "region", [["--radius", "2"], ["--radius", "2", "--free", "0:4"], ["--free", "1:5"], ["--whole-cube"]]
)
@pytest.mark.parametrize("order", ["influence", "index", "random"])
def test_every_line_holds_a_prime_implicant_and_the_essential_features(workplace, run, region, order):
    options = ("--order", order, "--essential", "--check", "--json", "-q")
    code, out, err = run("net.npz", "--input", "rows.txt", *region, *options)
    assert (code, err) == (0, "")
    lines = [json.loads(row) for row in out.splitlines()]
    answers = [answer_from_json(line["answer"]) for line in lines]
    assert [type(answer) for answer in answers] == [Explanation] * 2 + [EssentialFeatures] * 2
    for line, answer in zip(lines, answers, strict=True):
        found, x = region_from_json(line["question"]["region"]), tuple(line["image"]["input"])
        assert found.center == x  # the whole cube too is that around the image
        query = Query(network(), found, Untargeted(line["image"]["predicted"]))
        if isinstance(answer, Explanation):
            assert is_prime(query, answer.kept) and answer.order == order
            assert line["question"]["analysis"] == "prime-implicant" and line["question"]["order"] == order
            assert answer.run.statistics["check"]["prime"] is True
        else:
            assert dict(zip(answer.essential, answer.values, strict=True)) == essentials(query)[0]


def test_people_see_the_inputs_the_check_and_a_drawing(workplace, run):
    common = ("net.npz", "--input", "rows.txt", "--index", 0, "--whole-cube")
    code, out, _ = run(*common, "--show", "--check", "--essential")
    query = Query(network(), FixedIndexRegion((1, -1, 1, 1, -1, -1), tuple(range(6))), Untargeted(0))
    assert code == 0 and "1 of 1 explanations are prime, proved." in out and "yes, proved" in out
    assert "checked from scratch" in out and "sufficient and minimal" in out and "#.#   " in out
    assert "Which inputs have one value wherever the class is the network's own class of the image?" in out
    assert query.network.evaluate(query.region.center) == oracle.predicted(query.network, query.region.center)


def test_a_robust_region_needs_no_input(workplace, run):
    _, out, _ = run("net.npz", "--input", "rows.txt", "--index", 0, "--radius", 0)
    assert "no input needs to be kept: the region is robust" in out


def test_a_drawing_shows_what_is_kept():
    assert drawing((1, -1, 1, 1), (0, 1, 3), (3,), (2, 2)).splitlines() == [f"{'':21}#.   #.", f"{'':21}##    ?"]


def test_a_class_that_the_image_does_not_have_has_no_explanation(workplace, run):
    own = network().evaluate((1, -1, 1, 1, -1, -1))
    words = ("net.npz", "--input", "rows.txt", "--index", 0, "--radius", 1)
    code, _, err = run(*words, "--keep", (own + 1) % 3)
    assert code == 2 and "1 of 1 images (0) are adversarial themselves with this --keep" in err
    code, _, _ = run(*words, "--keep", own, "--ties", Ties.ROBUST.value)
    assert code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure", "why.pdf"], "--figure is why.pdf, expected a name that ends in .png or .svg"),
        (["--figure", "no/why.svg"], "--figure no/why.svg cannot be written"),
        (["--order", "best"], "'best' is not one of"),
    ],
)
def test_mistakes_are_one_sentence(workplace, run, words, message):
    code, out, err = run("net.npz", "--input", "rows.txt", "--radius", "1", *words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_figure_is_written_and_is_the_same_each_time(workplace, run, suffix):
    pytest.importorskip("matplotlib")
    made = []
    for _ in range(2):
        words = ("net.npz", "--input", "rows.txt", "--whole-cube", "--essential", "--figure", f"why.{suffix}", "-q")
        assert run(*words)[0] == 0
        made.append(Path(f"why.{suffix}").read_bytes())
    assert made[0] == made[1] and (b"<svg" in made[0] if suffix == "svg" else made[0].startswith(b"\x89PNG"))


HARD = (MODELS / "digits-64-100-10.npz", "--data", "digits", "--index", 3, "--whole-cube")


def test_a_limit_gives_what_is_proved_and_says_so(run):
    code, out, _ = run(*HARD, "--timeout", "0.2", "--show")
    assert code == 3 and "time limit of 0.2 s reached: what is kept forces the class" in out and "?" in out
    assert "0 of 1 explanations are prime, proved, the others force the class but may not be minimal." in out


def test_an_interrupt_gives_what_is_proved(run, monkeypatch):
    looks = []

    def press(self):
        looks.append(self)
        if len(looks) == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("bnnverify.explain.implicants._Reduction._report", press)
    code, out, err = run(*HARD, "--json", "-q")
    assert code == 130 and "interrupted" in err
    answer = answer_from_json(json.loads(out)["answer"])
    assert answer.run.reason == "interrupted" and answer.undecided and 0 < len(answer.kept) < 64


def test_no_image_is_explained_where_one_cannot_be(workplace, run, monkeypatch):
    labels = [network().evaluate(x) for x in ((1, -1, 1, 1, -1, -1), (-1, -1, -1, 1, 1, 1))]
    monkeypatch.setattr("bnnverify.cli.questions.answers", None)
    for keep in sorted({(label + 1) % 3 for label in labels}):
        code, out, err = run("net.npz", "--input", "rows.txt", "--radius", 1, "--keep", keep)
        wrong = [i for i, label in enumerate(labels) if label != keep]
        assert (code, out) == (2, "")
        assert f"{len(wrong)} of 2 images ({', '.join(map(str, wrong))}) are adversarial themselves" in err
