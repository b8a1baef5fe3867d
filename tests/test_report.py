"""The report: one file, nothing to fetch, every number with its kind, and the data inside."""

import base64
import json
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser

import pytest

from bnnverify.errors import FormatError
from bnnverify.faults import AsymmetricFlip, BitFlip
from bnnverify.report import figures, html
from bnnverify.report.lines import check, outward, read_lines
from bnnverify.results import Count, Decision, Distance, Kind, Probability, Run, Verdict

X = (1, -1, 1, 1, -1, -1)
Y = (1, 1, 1, 1, -1, -1)
MODEL = {
    "path": "nets/a.npz",
    "identity": "ab" * 32,
    "cells_identity": "cd" * 32,
    "architecture": "6-4-3",
    "cells": 36,
    "classes": 3,
    "shape": [2, 3],
}
DATA = {"name": "digits", "split": "test", "provenance": {"source": "by hand", "split": "stratified"}}


def line(answer, model=None, **parts):
    return {
        "format": "bnnverify result",
        "version": 1,
        "verb": "x",
        "command": "bnnverify verify a.npz",
        "versions": {"bnnverify": "0.1.0", "python": "3.11"},
        "model": MODEL | (model or {}),
        "data": DATA,
        **parts,
        "answer": answer,
    }


def about_image(answer, index=0, model=None, label=2):
    region = {"kind": "hamming", "radius": 2, "center": list(X)}
    question = {
        "network": "ab",
        "region": region,
        "property": {"kind": "untargeted", "label": 2},
        "ties": "lowest-index",
    }
    image = {"index": index, "original": 5, "label": label, "predicted": 2, "input": list(X)}
    return line(answer.to_json(), model, image=image, question=question)


def accuracy(probability, faults, model=None, **more):
    answer = {"type": "accuracy", **probability.to_json(), "run": Run("convolution", 0.5).to_json(), **more}
    images = {"indices": [0, 1, 2, 3], "clean_correct": 3}
    return line(answer, model, images=images, question={"faults": faults.to_json(), "tolerance": 1e-6})


def interval(lower, upper):
    return Probability.interval(Fraction(lower), Fraction(upper))


SAMPLED = Probability(Kind.SAMPLED, Fraction(1, 2), Fraction(3, 4), 0.99, 100, 60)


def sample_lines():
    run = Run("enumeration", 1.25)
    bracket = {
        "type": "tolerance",
        "p_ok": "1/100",
        "p_fail": None,
        "accuracy_ok": interval("0.7", "0.8").to_json(),
        "accuracy_fail": None,
        "run": Run("convolution", 1.0, "no rate is proved to miss the target").to_json(),
    }
    return [
        about_image(Decision(Verdict.NOT_ROBUST, run, Y, 1)),
        about_image(Decision(Verdict.ROBUST, run), 1),
        about_image(Decision(Verdict.UNKNOWN, replace(run, reason="time limit of 1 s reached")), 2, label=0),
        about_image(Count(Kind.EXACT, 12345, 12345, 2**70, run, (1, 0, 2), (0, 3))),
        about_image(Count(Kind.INTERVAL, 1, 9, 22, run), 1),
        about_image(Distance(1, 1, run, Y, 1)),
        about_image(Distance(3, None, replace(run, reason="time limit of 1 s reached")), 1),
        accuracy(interval("0.7001", "0.7002"), BitFlip("0.001"), images_within_tolerance=3),
        accuracy(SAMPLED, BitFlip("0.001"), chips=10),
        accuracy(Probability.exact(Fraction(1, 3)), BitFlip("0.01")),
        accuracy(interval("0.75", "0.75"), BitFlip(0)),
        accuracy(interval("0.6", "0.7"), AsymmetricFlip("0.01", 0)),
        line(bracket, question={"target_accuracy": "7/10"}),
        line({"type": "info", "blocks": [], "provenance": {}}),
    ]


@pytest.fixture(scope="module")
def page():
    return html.page(sample_lines(), title="A title")


class Collector(HTMLParser):
    """Tags that are opened and closed, attributes that could fetch something, and scripts."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.scripts, self.inside = [], [], [], False

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.inside = tag == "script"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)


def parsed(text):
    collector = Collector()
    collector.feed(text)
    assert collector.open == []
    return collector


def test_the_page_fetches_nothing(page):
    links = parsed(page).links
    assert len(links) == 4 and all(link.startswith("data:image/svg+xml;base64,") for link in links)
    for pattern in (r"@import", r"url\(", r"<link", r"<iframe"):
        assert not re.search(pattern, page)
    for link in links:
        svg = base64.b64decode(link.split(",")[1]).decode()
        outside = [u for u in re.findall(r'(?:href|src)="([^"]+)"', svg) if not u.startswith(("#", "data:"))]
        assert outside == []


def test_the_data_are_inside(page):
    (script,) = parsed(page).scripts
    assert json.loads(script) == sample_lines()


def test_every_kind_and_verdict_is_named(page):
    for text in ("robust", "not-robust", "unknown", "exact", "interval", "sampled", "time limit of 1 s reached"):
        assert text in page
    assert "12,345" in page and f"{2**70:,}" in page
    assert "0.700100..0.700200" in page and "0.333333..0.333334" in page
    assert "ab" * 32 in page and "by hand" in page and "bnnverify verify a.npz" in page
    assert "at least 3" in page and "1 to 9" in page
    assert "no rate is proved to miss the target" in page and "not found" in page


def test_an_image_that_is_misclassified_is_marked(page):
    assert page.count("2 ≠</td>") == 1


def test_the_same_results_give_the_same_page(page):
    assert html.page(sample_lines(), title="A title") == page


def test_nothing_that_a_file_says_becomes_markup():
    evil = "</script><script>alert(1)</script><b>&amp;"
    lines = [about_image(Decision(Verdict.ROBUST, Run("sat")), model={"path": evil, "architecture": evil})]
    lines[0]["command"] = evil
    page = html.page(lines, title=evil)
    collector = parsed(page)
    assert len(collector.scripts) == 1 and "<b>" not in page and "alert(1)</script>" not in page
    assert json.loads(collector.scripts[0]) == lines


def test_a_page_of_one_line_is_complete():
    for one in sample_lines():
        parsed(html.page([one], title="One"))


def test_networks_with_one_file_name_are_told_apart():
    lines = [about_image(Decision(Verdict.ROBUST, Run("sat")), model={"identity": i * 64}) for i in "12"]
    assert sorted(html.network_names(lines).values()) == ["a (6-4-3)", "a (6-4-3) 222222"]


def test_an_image_without_pictures_makes_no_grid():
    flat = about_image(Decision(Verdict.NOT_ROBUST, Run("sat"), Y, 1), model={"shape": [6]})
    assert "<h2>Counterexamples</h2>" not in html.page([flat], title="Flat")


def test_bounds_are_rounded_outward():
    assert outward({"lower": "2/3", "upper": "2/3"}, 2) == ("0.66", "0.67")
    assert outward({"lower": "0", "upper": "1"}, 3) == ("0.000", "1.000")


# Figures.


def test_the_accuracy_figure_has_a_log_axis_labels_and_every_part():
    curve = figures.Curve("a", 0.9, ((1e-3, 0.8, 0.81), (1e-2, 0.6, 0.7)), ((1e-3, 0.8, 0.79, 0.82),))
    figure = figures.accuracy_figure([curve], x_label="p", confidence=0.99)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "p" and "accuracy" in axes.get_ylabel()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a", "proved band (lower to upper bound)", "without bit errors", "sampled chips, 99% confidence"]
    low, high = axes.get_ylim()
    assert low < 0.6 and high > 0.9


def test_the_grid_marks_exactly_the_changed_pixels():
    pair = figures.Pair([[1, -1], [1, 1]], [[1, 1], [1, -1]], "before", "after")
    figure = figures.pairs_figure([pair])
    before, after = figure.axes
    assert len(before.patches) == 0 and len(after.patches) == 2
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]


# Reading result lines.


def test_lines_are_read_from_files(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, sample_lines())) + "\n\n")
    assert read_lines(str(path)) == sample_lines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no result line"),
        ("{", r"r\.jsonl:1: is not JSON"),
        ("[]", r"r\.jsonl:1: is no result of bnnverify"),
        ('{"format": "other"}', r"r\.jsonl:1: is no result of bnnverify"),
        ('{"format": "bnnverify result", "version": 9}', r"r\.jsonl:1: is a result of version 9, expected 1"),
        ('{"format": "bnnverify result", "version": 1}', r"r\.jsonl:1: is damaged \(KeyError: 'model'\)"),
    ],
)
def test_files_of_other_things_are_refused(tmp_path, text, message):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_lines(str(path))


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"cannot be read \(no such file"):
        read_lines(str(tmp_path / "none"))
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="is not text"):
        read_lines(str(tmp_path / "b"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: one["answer"].pop("run"),
        lambda one: one["answer"].update(type="guess"),
        lambda one: one["answer"].update(verdict="maybe"),
        lambda one: one["answer"].update(counterexample=[1, 1]),
        lambda one: one["model"].pop("shape"),
        lambda one: one.pop("image"),
        lambda one: one.update(answer=3),
    ],
)
def test_a_damaged_line_is_refused_with_its_place(damage):
    one = json.loads(json.dumps(sample_lines()[0]))
    damage(one)
    with pytest.raises(FormatError, match=r"r\.jsonl:7: is damaged .* Ask the question again"):
        check(one, "r.jsonl:7")


def test_an_unwritable_path_leaves_nothing(tmp_path):
    with pytest.raises(FormatError, match="cannot be written"):
        html.write_report(sample_lines()[:1], tmp_path / "no" / "r.html", title="x")
    assert list(tmp_path.iterdir()) == []
