"""The report: one file, nothing to fetch, every number with its kind, and the data inside."""

import base64
import contextlib
import json
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bnnverify.cli import main
from bnnverify.errors import FormatError
from bnnverify.faults import AsymmetricFlip, BitFlip
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.quantities import NoiseError, RadiusCounts, SafeDistance, Samples
from bnnverify.report import figures, html
from bnnverify.report.lines import check, outward, read_lines
from bnnverify.results import (
    Count,
    Decision,
    Distance,
    EssentialFeatures,
    Explanation,
    Kind,
    Probability,
    Run,
    Verdict,
)

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
        about_image(Count(Kind.EXACT, 12345, 12345, 2**70, run, (1, 0, 2**70 - 1), (0, 12345))),
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


def asked(answer, index=0, **detail):
    one = about_image(answer, index)
    one["question"] |= detail
    return one


def counting_lines():
    run = Run("propagation", 2.5)
    short = replace(run, reason="time limit of 2 s reached")
    checked = Run("sat", 0.5, "", {"check": {"prime": True, "sufficient": "robust", "redundant": []}})
    return [
        asked(RadiusCounts(6, 2, (0, 1, 12), run)),
        asked(RadiusCounts(6, 2, (0, 1), short, None, (3, 9)), 1),
        asked(SafeDistance(Fraction(1, 10), 0, 0, run, Fraction(1, 7)), tolerance="1/10"),
        asked(SafeDistance(Fraction(0), 3, None, short), 1, tolerance="0"),
        asked(NoiseError(Probability.exact(Fraction(1, 3)), 2, None, Fraction(0), run), rate="1/1000"),
        asked(NoiseError(interval("1/300", "1/200"), 2, 2, Fraction(1, 600), short), 1, rate="1/10"),
        asked(Samples((Y, Y), (1, 1), 13, 22, 5, True, run), n=2, seed=5),
        asked(Samples((), (), None, 22, 5, True, short), 1, n=2, seed=5),
        asked(Explanation((1, 4), (-1, -1), (), 6, "influence", checked)),
        asked(Explanation((0, 1, 4), (1, -1, -1), (4,), 6, "influence", short), 1),
        asked(EssentialFeatures((4,), (-1,), (), 6, X, run)),
        asked(EssentialFeatures((), (), (0, 2), 6, None, short), 1),
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


def rows_below(page, heading):
    """Texts of the cells in the table rows between a heading and the next one of its rank."""
    section = page.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", section)]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in rows if row]


@pytest.fixture(scope="module")
def counting_page():
    return html.page(counting_lines(), title="Counting")


def test_all_radii_stand_in_tables_with_their_densities(counting_page):
    rows = rows_below(counting_page, "Adversarial inputs by radius")
    assert rows == [
        ["0", "0", "1", "0%", "0", "0%"],
        ["1", "1", "7", "14.29%", "1", "16.67%"],
        ["2", "13", "22", "59.09%", "12", "80%"],
        ["0", "0", "1", "0%", "0", "0%"],
        ["1", "1", "7", "14.29%", "1", "16.67%"],
    ]
    assert "time limit of 2 s reached; radius 2: between 3 and 9 adversarial inputs, proved." in counting_page


def test_safe_distances_and_noise_say_how_far_they_are_known(counting_page):
    safe = rows_below(counting_page, "Maximal safe distances")
    assert safe[0][5:9] == ["0.1", "0", "exact", "at least 14.29% at radius 1"]
    assert safe[1][5:9] == ["0", "at least 3", "interval", "time limit of 2 s reached"]
    noise = rows_below(counting_page, "Noise on the inputs")
    assert noise[0][4:10] == ["2", "radius 2", "0.001", "1/3 (exact)", "exact", "all"]
    assert noise[1][7:10] == ["[0.003333333, 0.005] (interval) time limit of 2 s reached", "interval", "up to 2"]


def test_samples_list_what_was_flipped_and_how_many_there_are(counting_page):
    assert rows_below(counting_page, "Adversarial inputs, drawn uniformly") == [["1", "1", "1"], ["2", "1", "1"]]
    assert "13 adversarial of 22 inputs; seed 5" in counting_page
    assert "not known adversarial of 22 inputs" in counting_page


def test_explanations_say_whether_they_are_prime_and_checked(counting_page):
    rows = rows_below(counting_page, "Inputs that force the class")
    assert rows[0][6:12] == ["2", "2", "6", "exact", "1, 4", "yes"]
    assert rows[1][6:12] == ["3", "2", "6", "interval", "0, 1, 4 time limit of 2 s reached", ""]
    rows = rows_below(counting_page, "Inputs that the class never goes without")
    assert rows[0][6:11] == ["1", "6", "0", "exact", "4 (-1)"]
    assert rows[1][6:11] == ["0", "6", "2", "interval", "time limit of 2 s reached"]


def test_samples_and_explanations_are_drawn_where_inputs_are_pictures(counting_page):
    assert len(parsed(counting_page).links) == 2  # the samples, and the explanations of the one network
    flat = [one | {"model": MODEL | {"shape": [6]}} for one in counting_lines()]
    assert parsed(html.page(flat, title="Flat")).links == []


@pytest.mark.parametrize(
    ("sufficient", "redundant", "word"),
    [("robust", [], "not settled"), ("not-robust", [], "FAILED"), ("robust", [1], "FAILED")],
)
def test_an_explanation_whose_check_failed_says_so(sufficient, redundant, word):
    check = {"prime": False, "sufficient": sufficient, "redundant": redundant}
    answer = Explanation((1,), (-1,), (), 6, "index", Run("sat", 0.5, "", {"check": check}))
    rows = rows_below(html.page([asked(answer)], title="x"), "Inputs that force the class")
    assert rows[0][11] == word


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
    for one in [*sample_lines(), *counting_lines()]:
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
    lines = [*sample_lines(), *counting_lines()]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_lines(str(path)) == lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no result line"),
        ("{", r"r\.jsonl:1: is not valid JSON"),
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
    with pytest.raises(FormatError, match="is no text in UTF-8"):
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


@pytest.mark.parametrize(
    ("number", "damage"),
    [
        (0, lambda one: one["answer"].update(shells=[0, 1, 2, 3])),
        (0, lambda one: one["answer"].pop("beyond")),
        (2, lambda one: one["answer"].update(tolerance="a tenth")),
        (4, lambda one: one["question"].pop("rate")),
        (6, lambda one: one["answer"]["inputs"].append([1, 1])),
        (8, lambda one: one["answer"].update(kept=[1, 6])),
        (8, lambda one: one["answer"]["run"]["statistics"]["check"].pop("prime")),
        (10, lambda one: one["answer"].update(essential=[-1])),
        (10, lambda one: one["answer"].update(witness=[1])),
    ],
)
def test_a_damaged_line_about_counting_is_refused(number, damage):
    one = json.loads(json.dumps(counting_lines()[number]))
    check(one, "r.jsonl:3")
    damage(one)
    with pytest.raises(FormatError, match=r"r\.jsonl:3: is damaged"):
        check(one, "r.jsonl:3")


def test_an_unwritable_path_leaves_nothing(tmp_path):
    with pytest.raises(FormatError, match="cannot be written"):
        html.write_report(sample_lines()[:1], tmp_path / "no" / "r.html", title="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("image", "input", 0), "x"), (("image", "input", 0), None), (("image", "input", 0), [1]),
        (("image", "input", 0), 2**64),
        (("model", "path"), True), (("model", "architecture"), 3), (("model", "identity"), {}),
        (("model", "cells"), "9"), (("model", "shape", 0), 1.5), (("image", "index"), []),
        (("answer", "run", "seconds"), "x"),
    ],
)  # fmt: skip
def test_values_of_other_types_are_refused_with_the_line(tmp_path, path, value):
    from bnnverify.cli import main

    net, out = Path(__file__).parents[1] / "models" / "digits-64-20-16-10.npz", tmp_path / "r.jsonl"
    with out.open("w") as file, contextlib.redirect_stdout(file):
        assert main(["verify", str(net), "--data", "digits", "--index", "0", "--radius", "1", "--json"]) == 0
    line = place = json.loads(out.read_text())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    out.write_text(json.dumps(line))
    with pytest.raises(FormatError, match=r"r\.jsonl:1: is damaged"):
        read_lines(str(out))


@pytest.mark.parametrize(
    "changes",
    [
        {"lower": 10**9, "upper": None, "witness": None, "predicted": None},
        {"lower": 1, "upper": 3, "witness": [1, -1], "predicted": 0},
    ],
)
def test_a_distance_that_no_input_has_is_refused(changes):
    line = about_image(Distance(1, 1, Run("x"), (-1, -1), 0))
    line["image"]["input"] = [1, -1]
    line["model"]["shape"] = [2]
    check(line, "r.jsonl:1")
    line["answer"] |= changes
    with pytest.raises(FormatError, match=r"r\.jsonl:1: is damaged .*distance"):
        check(line, "r.jsonl:1")


def test_answers_about_pixels_are_reported_and_regions_without_a_kind_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hidden = DenseBlock.create([[1, 1, 1, 1], [1, -1, 1, -1]], [500, 3])
    output = OutputBlock.create([[1, 1], [-1, 1]])
    save(BinaryNetwork(InputDomain.integers([0] * 4, [255] * 4), (hidden,), output), "pixels.npz")
    Path("x.txt").write_text("9 200 31 255")
    lines = []
    for words in (("verify", "--linf", "2"), ("distance", "--linf")):
        assert main([words[0], "pixels.npz", "--input", "x.txt", *words[1:], "--json", "-q"]) == 0
        lines.append(capsys.readouterr().out)
    Path("a.jsonl").write_text("".join(lines))
    assert main(["report", "a.jsonl", "-o", "a.html"]) == 0
    assert "box of pixels" in Path("a.html").read_text()
    for place, key in (("region", "kind"), ("property", "label"), ("property", "kind")):
        damaged = json.loads(lines[0])
        del damaged["question"][place][key]
        Path("b.jsonl").write_text(json.dumps(damaged))
        assert main(["report", "b.jsonl", "-o", "b.html"]) == 2
