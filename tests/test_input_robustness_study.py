"""The study of robustness to input noise from its questions to its page, on the digits with tiny networks."""

import doctest
import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnnverify.datasets import load
from bnnverify.errors import FormatError
from bnnverify.formats import native
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall, PixelBox

FOLDER = Path(__file__).resolve().parent.parent / "case_studies" / "input_robustness"
MODULES = ("questions", "pictures", "page", "run")


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in MODULES:
            del sys.modules[name]


def tiny_network():
    """A random network over pixels that is right about the first test image."""
    split = load("digits").test
    for seed in range(100):
        random = np.random.default_rng(seed)
        signs = random.choice([-1, 1], size=(4, 64)), random.choice([-1, 1], size=(10, 4))
        output = OutputBlock.create(signs[1])
        domain = InputDomain.integers([0] * 64, [16] * 64)
        network = BinaryNetwork(domain, (DenseBlock.create(signs[0], [0] * 4),), output)
        if network.evaluate(split.pixels[0].tolist()) == split.labels[0]:
            return network
    raise AssertionError


@pytest.fixture
def tiny(study, tmp_path, monkeypatch):
    """The study with three networks for the digits in place of its own."""
    (tmp_path / "models").mkdir()
    subjects = [
        study.questions.Subject("plain", "a", study.questions.DENSE, 4, (0, 1, 2), (0.1,)),
        study.questions.Subject("other", "b", study.questions.DENSE, 4, (0, 1, 2), (0.1,)),
        study.questions.Subject("plain", "c", study.questions.PIXELS, 3, (0, 1, 3), (2,)),
    ]
    for name, trained in (("a", "digits-64-32-10"), ("b", "digits-64-32-10-ss-count")):
        shutil.copyfile(study.questions.MODELS / f"{trained}.npz", tmp_path / "models" / f"{name}.npz")
    native.save(tiny_network(), tmp_path / "models" / "c.npz")
    monkeypatch.setattr(study.questions, "MODELS", tmp_path / "models")
    monkeypatch.setattr(study.run, "SUBJECTS", subjects)
    monkeypatch.setattr(study.questions, "SUBJECTS", subjects)
    monkeypatch.setattr(study.questions, "NOISY_IMAGES", 20)
    return study


def perform(study, folder, *words):
    return study.run.main(["--data", "digits", "--seconds", "20", "--out", str(folder / "out"), *words])


def askers(study, folder):
    answers = study.questions.Answers(folder / "out" / "answers.jsonl")
    return [study.questions.Asker(s, load("digits"), answers, 20.0) for s in study.run.SUBJECTS]


def test_the_study_answers_draws_and_writes_its_page_and_asks_nothing_twice(tiny, tmp_path, monkeypatch):
    assert perform(tiny, tmp_path) == 0
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for name in tiny.page.SECTIONS:
        inner = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
        assert len(inner.strip()) > 10, name
    for name in ("robust_accuracy", "counterexamples"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 1000
    answers = (tmp_path / "out" / "answers.jsonl").read_bytes()
    monkeypatch.setattr(tiny.questions, "decide", None)
    monkeypatch.setattr(tiny.pictures, "write", lambda *_: None)
    assert perform(tiny, tmp_path) == 0
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == answers
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == page


def test_every_kept_verdict_is_that_of_all_inputs_of_the_region_or_of_a_replayed_one(tiny, tmp_path):
    for asker in askers(tiny, tmp_path):
        for image in range(asker.images):
            letters = asker.verdicts(image)["verdicts"]
            x = [int(v) for v in asker.inputs()[image]]
            label = int(load("digits").test.labels[image])
            assert (letters[0] == "R") == (asker.network.evaluate(x) == label)
            assert re.fullmatch("R*N*", letters)
            if asker.is_binary:
                flips = np.array([x] * 65) * (1 - 2 * np.eye(65, 64, dtype=np.int64))
                assert (letters[1] == "R") == bool((asker.network.evaluate_batch(flips) == label).all())
            kept = asker.counterexample(image)
            assert (kept is None) == ("N" not in letters[1:] or letters[0] == "N")
            if kept is not None:
                size, found = kept
                around = HammingBall(x, size) if asker.is_binary else PixelBox.linf(x, size, asker.network.domain)
                assert Query(asker.network, around, Untargeted(label)).is_adversarial(found)
                assert letters[asker.subject.sizes.index(size)] == "N"


def test_counts_add_up_and_random_noise_of_nothing_is_the_accuracy(tiny, tmp_path):
    for asker in askers(tiny, tmp_path):
        assert all(sum(counts) == asker.images for counts in asker.table().values())
        test = load("digits").test
        right = asker.network.evaluate_batch(asker.inputs()[:20]) == test.labels[:20]
        assert asker.noisy()[0.0] == right.mean()


def test_a_counterexample_that_was_changed_is_not_believed(tiny, tmp_path):
    asker = next(a for a in askers(tiny, tmp_path) for i in range(a.images) if a.counterexample(i))
    image = next(i for i in range(asker.images) if asker.counterexample(i))
    answer = asker.verdicts(image)
    answer["changes"] = [[0, int(asker.inputs()[image][0])]]
    with pytest.raises(FormatError, match=f"the counterexample of image {image} is none"):
        asker.counterexample(image)


def test_a_line_that_is_no_answer_is_named(study, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"question": {}, "answer": {}}\n{"question": 1}\n', encoding="utf-8")
    with pytest.raises(FormatError, match=r"answers\.jsonl:2: no answer of this study"):
        study.questions.Answers(tmp_path / "answers.jsonl")


def test_unknown_networks_are_refused(tiny, tmp_path, capsys):
    assert perform(tiny, tmp_path, "--networks", "gold") == 2
    assert "expected some of: a, b, c" in capsys.readouterr().err


def test_the_differences_on_the_page_are_means_over_images(tiny, tmp_path):
    first, second, _ = chosen = askers(tiny, tmp_path)
    gaps = [
        second.verdicts(image)["verdicts"].count("R") - first.verdicts(image)["verdicts"].count("R")
        for image in range(4)
    ]
    row = tiny.page.distances(chosen).splitlines()[-1]
    assert row.startswith("| other |")
    assert f"| {np.mean(gaps):+.2f} ± {2 * np.std(gaps, ddof=1) / 2:.2f} |" in row
    assert row.endswith(f"| {sum(g > 0 for g in gaps)} | {sum(g < 0 for g in gaps)} |")


def test_the_examples_of_the_page_run(study):
    tried = doctest.testmod(study.page)
    assert tried.failed == 0 < tried.attempted


def test_the_published_page_has_a_place_for_every_section_and_its_figures_are_small(study):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in study.page.SECTIONS:
        study.page.between_markers(page, name, "text")
    for figure in re.findall(r"\]\((figures/[^)]*)\)", page):
        assert 1000 < (FOLDER / figure).stat().st_size < 300_000, figure
    assert all(json.loads(text) for text in (FOLDER / "answers.jsonl").read_text(encoding="utf-8").splitlines())


def test_every_network_of_the_study_is_shipped(study):
    for subject in study.questions.SUBJECTS:
        asker = study.questions.Asker(replace(subject, images=1), load("digits"), None, 1.0)
        assert asker.network.n_inputs == 784
