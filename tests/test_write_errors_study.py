"""The study of write errors from its questions to its page, on the digits with tiny networks."""

import doctest
import importlib
import json
import re
import shlex
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnnverify.cli import main as bnnverify
from bnnverify.datasets import load
from bnnverify.errors import FormatError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock
from bnnverify.formats import native
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import expected_accuracy
from bnnverify.results import Probability

FOLDER = Path(__file__).resolve().parent.parent / "case_studies" / "write_errors"
MODULES = ("settings", "words", "answers", "energy", "questions", "pictures", "verdicts", "page", "run")


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in MODULES:
            del sys.modules[name]


def tiny_network(seed):
    random = np.random.default_rng(seed)
    signs = random.choice([-1, 1], size=(4, 64)), random.choice([-1, 1], size=(10, 4))
    return BinaryNetwork(InputDomain.binary(64), (DenseBlock.create(signs[0], [0] * 4),), OutputBlock.create(signs[1]))


@pytest.fixture
def tiny(study, tmp_path, monkeypatch):
    """The study with two random networks, in place of those trained on the digits."""
    monkeypatch.setattr(study.questions, "MODELS", tmp_path / "models")
    (tmp_path / "models").mkdir()
    for seed, trained in enumerate(study.settings.NETWORKS["digits"]):
        native.save(tiny_network(seed), tmp_path / "models" / f"{trained.file}.npz")
    return study


def perform(study, folder, *words):
    effort = [
        "--images",
        "4",
        "--whole",
        "6",
        "--chips",
        "5",
        "--tolerance",
        "1e-3",
        "--max-states",
        "64",
        "--jobs",
        "1",
    ]
    return study.run.main(["--data", "digits", *effort, "--out", str(folder / "out"), *words])


def lines(folder):
    return [json.loads(text) for text in (folder / "out" / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def asker(study, folder, **effort):
    usual = {"tolerance": 1e-6, "max_states": 4096, "seconds": None, "chips": 10, "jobs": 1}
    subject = study.questions.Subject.load(study.settings.NETWORKS["digits"][0], load("digits"), 6)
    told = []
    answers = study.answers.Answers(folder / "answers.jsonl")
    return study.questions.Asker(subject, answers, study.questions.Effort(**usual | effort), told.append), told


# the whole way


def test_the_study_answers_draws_and_writes_its_page(tiny, tmp_path, monkeypatch):
    for module in (tiny.page, tiny.verdicts, tiny.run):
        monkeypatch.setattr(module, "PROGRAMMINGS", tiny.energy.PROGRAMMINGS[:2])
    assert perform(tiny, tmp_path, "--networks", "norm") == 0
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for name in tiny.page.SECTIONS:
        inner = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
        assert len(inner.strip()) > 20, name
    for name in ("accuracy", "blocks", "energy"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / "out" / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    asked = len(lines(tmp_path))
    monkeypatch.setattr(tiny.run, "draw", lambda *_: None)
    assert perform(tiny, tmp_path, "--networks", "norm") == 0
    assert len(lines(tmp_path)) == asked, "what is answered is asked again"
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == page


def test_a_command_of_the_page_gives_the_number_of_the_page(tiny, tmp_path, capsys, monkeypatch):
    one, _ = asker(tiny, tmp_path, tolerance=1e-3, max_states=64)
    (line,) = tiny.page.commands({"norm": one}, [Fraction("0.01")]).splitlines()
    words = shlex.split(line)[1:]
    path = tmp_path / "models" / Path(words[1]).name
    assert bnnverify([words[0], str(path), *words[2:], "--json", "--quiet"]) == 0
    (line,) = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert Probability.from_json(line["answer"]) == one.proved(BitFlip("0.01"))


def test_the_published_page_has_a_place_for_every_section_and_shows_every_figure(study):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in study.page.SECTIONS:
        study.page.between_markers(page, name, "text")
    for figure in re.findall(r"\]\((figures/[^)]*)\)", page):
        assert (FOLDER / figure).exists(), figure


def test_unknown_networks_are_refused(tiny, tmp_path, capsys):
    assert perform(tiny, tmp_path, "--networks", "gold") == 2
    assert "expected some of: norm, switching" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["words", "page"])
def test_the_examples_of_the_study_run(study, name):
    tried = doctest.testmod(getattr(study, name))
    assert tried.failed == 0 < tried.attempted


# questions


def test_a_proved_accuracy_is_that_of_the_package_and_asked_once(tiny, tmp_path):
    one, told = asker(tiny, tmp_path)
    subject = one.subject
    for event, truth in (("error", subject.labels), ("change", subject.predicted)):
        direct = expected_accuracy(subject.network, subject.x, truth.tolist(), BitFlip("0.02")).accuracy
        assert one.proved(BitFlip("0.02"), event=event) == direct
        assert one.proved(BitFlip("0.02"), event=event) == direct
    assert len(told) == 2
    again, told = asker(tiny, tmp_path)
    assert again.proved(BitFlip("0.02")) == one.proved(BitFlip("0.02"))
    assert not told


def test_another_effort_is_another_question(tiny, tmp_path):
    one, _ = asker(tiny, tmp_path)
    one.proved(BitFlip("0.02"))
    _, told = asker(tiny, tmp_path)
    coarse, told = asker(tiny, tmp_path, max_states=1)
    coarse.proved(BitFlip("0.02"))
    assert len(told) == 1


def test_a_crossing_has_certified_rates_on_both_sides(tiny, tmp_path):
    one, told = asker(tiny, tmp_path)
    found = one.crossing(Fraction(1, 100))
    assert len(told) == 1 and one.crossing(Fraction(1, 100)) == found and len(told) == 1
    assert found.target == one.subject.clean - Fraction(1, 100)
    truth = one.subject.truth("error")
    for p, reaches in ((found.holds, True), (found.fails, False)):
        accuracy = expected_accuracy(one.subject.network, one.subject.x, truth, BitFlip(p)).accuracy
        assert accuracy.lower >= found.target if reaches else accuracy.upper < found.target
    assert found.holds < found.fails <= Fraction(105, 100) * found.holds


def test_rarer_errors_are_bounded_more_narrowly_unless_told_otherwise(study):
    effort = study.questions.Effort(None, None, None, 10, 1)
    rates = ("1e-6", "1e-3", "1e-2", "4e-2", "1/2")
    asked = [effort.at(BitFlip(p)) for p in rates]
    assert asked == sorted(asked, key=lambda pair: (pair[0], -pair[1]))
    assert len(set(asked)) == 4
    last = PerBlock.only(BitFlip("1/2"), 1, of=2)
    assert effort.at(last) == asked[-1] == effort.at(AsymmetricFlip(p01="1/2", p10=0))
    told = study.questions.Effort(1e-7, 9, None, 10, 1)
    assert told.at(last) == told.search == (1e-7, 9)


def test_a_band_holds_the_rates_asked_with_its_effort_alone(tiny, tmp_path):
    one, _ = asker(tiny, tmp_path)
    for p in ("0.02", "1e-3"):
        one.proved(BitFlip(p))
    one.proved(BitFlip("0.03"), event="change")
    asker(tiny, tmp_path, max_states=1)[0].proved(BitFlip("0.04"))
    again, _ = asker(tiny, tmp_path)
    assert [p for p, _ in again.band()] == [Fraction("1e-3"), Fraction("0.02")]


def test_rare_errors_are_asked_about_more_images(tiny, tmp_path):
    one, _ = asker(tiny, tmp_path)
    more = replace(one, whole=tiny.questions.Subject.load(one.subject.trained, load("digits"), 9))
    assert [len(more.many(Fraction(p)).subject.x) for p in ("1e-6", "1e-3", "2e-3")] == [9, 9, 6]
    assert one.many(Fraction("1e-6")) is one


def test_fewer_images_are_the_first_ones(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny.questions, "FEW", 2)
    one, _ = asker(tiny, tmp_path)
    few = one.few().subject
    assert np.array_equal(few.x, one.subject.x[:2])
    assert few.truth("error") == one.subject.truth("error")[:2] and few.clean in (0, Fraction(1, 2), 1)


def test_the_subject_counts_right_images_as_the_network_does(tiny, tmp_path):
    one, _ = asker(tiny, tmp_path)
    right = [
        one.subject.network.evaluate(x) == label for x, label in zip(one.subject.x, one.subject.labels, strict=True)
    ]
    assert one.subject.clean == Fraction(sum(right), len(right))


# answers


def test_a_broken_line_of_the_answers_is_named(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question": {"a": 1}, "answer": {}}\n{"question"\n', encoding="utf-8")
    with pytest.raises(FormatError, match=r"answers.jsonl:2: no answer of this study.*Delete the line"):
        study.answers.Answers(path)


def test_asking_again_forgets_old_answers_and_keeps_new_ones(study, tmp_path):
    first = study.answers.Answers(tmp_path / "answers.jsonl")
    first.put({"a": 1}, {"value": 1})
    again = study.answers.Answers(tmp_path / "answers.jsonl", again=True)
    assert first.get({"a": 1}) == {"value": 1}
    assert again.get({"a": 1}) is None and not list(again.questions())
    again.put({"a": 1}, {"value": 2})
    assert again.get({"a": 1}) == {"value": 2}
    assert study.answers.Answers(tmp_path / "answers.jsonl").get({"a": 1}) == {"value": 2}


# words


@pytest.mark.parametrize(
    ("lower", "upper", "verdict"),
    [("0.94", "0.95", True), ("0.91", "0.929", False), ("0.92", "0.94", None), ("0.93", "0.93", True)],
)
def test_a_verdict_is_proved_refuted_or_open(study, lower, upper, verdict):
    value = Probability.interval(Fraction(lower), Fraction(upper))
    assert study.words.holds(Fraction("0.95"), value, Fraction("0.02")) is verdict


def test_numbers_on_the_page_are_rounded_outward(study):
    value = Probability.interval(Fraction("0.95001"), Fraction("0.95999"))
    assert study.words.percent(value) == "95.00 to 96.00 %"
    assert study.words.points(Fraction("0.96"), value) == "0.00 to 1.00"
    assert study.words.points(Fraction("0.95"), value, 1) == "-1.0 to 0.0"


# energy


@pytest.mark.parametrize("error", ["1e-6", "1e-3", "4e-2"])
def test_the_pulse_of_a_rate_fails_at_that_rate(study, error):
    for programming in study.energy.PROGRAMMINGS[:4]:
        faults = programming.write(Fraction(error)).faults()
        assert float(faults.p01) == pytest.approx(float(error), rel=1e-6)
        assert float(faults.p10) == pytest.approx(float(error), rel=1e-6)


def test_shorter_pulses_on_equal_cells_save_what_the_logarithms_say(study):
    equal = next(p for p in study.energy.PROGRAMMINGS if p.tuned == "width" and not p.spread)
    reference = Fraction(1, 10**6)
    assert equal.savings([Fraction(1, 1000)], reference)[Fraction(1, 1000)] == pytest.approx(2, rel=1e-6)
    assert equal.savings([Fraction(1, 10**4)], reference)[Fraction(1, 10**4)] == pytest.approx(1.5, rel=1e-6)


# settings


def test_every_network_of_the_study_is_there(study):
    names = [trained.file for group in study.settings.NETWORKS.values() for trained in group]
    assert all((study.settings.MODELS / f"{name}.npz").exists() for name in names)
    assert {study.settings.MRAM_RATE, study.settings.RRAM_RATE, study.settings.RRAM_PLAIN_RATE} <= set(
        study.settings.RATES
    )
