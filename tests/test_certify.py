"""Robust accuracy: counts by size, verdicts that are kept and never asked twice, and files that were tampered with."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bnnverify import certification
from bnnverify.certification import CARRIED, VerdictStore, certify, robust_accuracies
from bnnverify.cli import main
from bnnverify.datasets import Dataset, Split, inputs_for
from bnnverify.datasets.quantized import box_around, quantization_step, quantized
from bnnverify.engines.base import Limits, Monitor
from bnnverify.errors import FormatError, QueryError
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock, Provenance
from bnnverify.query import Query, Untargeted
from bnnverify.regions import PixelBox, quantized_box
from bnnverify.results import Decision, Run, Verdict

SIZES = (0, 1, 2, 5)


def network():
    """Class 1 from a sum of 10 on."""
    block = DenseBlock.create([[1, 1, 1]], [10])
    return BinaryNetwork(InputDomain.integers([0] * 3, [9] * 3), (block,), OutputBlock.create([[-1], [1]]))


def images():
    """A robust one, one 3 from the border, one at the border, one of the wrong class."""
    points = [(9, 9, 9), (5, 4, 4), (4, 3, 3), (0, 0, 0)]
    return [
        (i, 1, [(str(size), PixelBox.linf(x, size, network().domain)) for size in SIZES]) for i, x in enumerate(points)
    ]


def verdicts(asked):
    return [(one.image, one.size, one.decision.verdict.value) for one in asked]


def test_counts_by_size_are_those_of_the_definition():
    asked = list(certify(network(), images()))
    for one in asked:
        region = dict(images()[one.image][2])[one.size]
        adversarial = any(sum(x) < 10 for x in region.points())
        assert one.decision.verdict is (Verdict.NOT_ROBUST if adversarial else Verdict.ROBUST)
    accuracies = robust_accuracies(asked)
    assert [(a.size, a.robust, a.not_robust, a.unknown) for a in accuracies] == [
        ("0", 3, 1, 0),
        ("1", 2, 2, 0),
        ("2", 1, 3, 0),
        ("5", 1, 3, 0),
    ]
    assert accuracies[0].bounds == (Fraction(3, 4), Fraction(3, 4)) and accuracies[0].to_json()["images"] == 4


def test_a_counterexample_of_a_small_region_serves_the_larger_ones():
    asked = list(certify(network(), images()[3:]))
    assert [one.decision.run.engine == CARRIED for one in asked] == [False, True, True, True]
    assert len({one.decision.counterexample for one in asked}) == 1


def test_what_is_known_is_not_asked_again(tmp_path, monkeypatch):
    path = tmp_path / "verdicts.jsonl"
    with VerdictStore(path) as store:
        first = list(certify(network(), images()[:2], store=store))
    monkeypatch.setattr(certification, "decide", lambda query, **options: pytest.fail("asked again"))
    with VerdictStore(path) as store:
        assert len(store) == len(first) == 8
        again = list(certify(network(), images()[:2], store=store))
    assert verdicts(again) == verdicts(first) and not any(one.is_new for one in again)
    assert len(path.read_text().splitlines()) == 8


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    with VerdictStore(path) as store:
        list(certify(network(), images()[:3], store=store))
    text = path.read_text()
    path.write_text(text[: len(text) - 20])  # power failure within the last line
    with VerdictStore(path) as store:
        asked = list(certify(network(), images(), store=store))
    assert [one.is_new for one in asked] == [False] * 11 + [True] * 5
    assert verdicts(asked) == verdicts(certify(network(), images()))


def test_open_verdicts_are_asked_again_only_with_more_time(tmp_path, monkeypatch):
    open_ = Decision(Verdict.UNKNOWN, Run("fake", 1.0, "too hard"))
    monkeypatch.setattr(certification, "decide", lambda query, **options: open_)
    path = tmp_path / "verdicts.jsonl"
    image = images()[1:2]
    with VerdictStore(path) as store:
        assert [a.unknown for a in robust_accuracies(certify(network(), image, limits=Limits(seconds=5), store=store))]
        bounds = robust_accuracies(certify(network(), image, limits=Limits(seconds=5), store=store))[0].bounds
        assert bounds == (0, 1)
        again = list(certify(network(), image, limits=Limits(seconds=4), store=store))
        assert not any(one.is_new for one in again)
    monkeypatch.undo()
    with VerdictStore(path) as store:
        more = list(certify(network(), image, limits=Limits(seconds=6), store=store))
        assert all(one.is_new and one.decision.verdict is not Verdict.UNKNOWN for one in more)
    with VerdictStore(path) as store:
        assert not any(one.is_new for one in certify(network(), image, store=store))


def test_a_monitor_ends_it_between_questions():
    monitor = Monitor()
    found = []
    for one in certify(network(), images(), monitor=monitor):
        found.append(one)
        monitor.stop = len(found) == 4
    assert len(found) == 4


def line_of(**changes):
    query = Query(network(), PixelBox((9, 9, 9), (9, 9, 9)), Untargeted(1))
    answer = Decision(Verdict.ROBUST, Run("bounds")).to_json()
    line = {"format": certification.FORMAT, "version": certification.VERSION, "id": query.identity, "limit": None}
    return line | {"image": 0, "label": 1, "size": "0", "answer": answer} | changes


def test_files_that_hold_something_else_are_refused_with_the_line(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps(line_of()) + "\n" + json.dumps(line_of(version=99)) + "\n")
    with pytest.raises(FormatError, match=r"verdicts.jsonl:2: is no verdict of version 1"):
        VerdictStore(path)
    opposite = Decision(Verdict.NOT_ROBUST, Run("x"), (0, 0, 0), 0).to_json()
    path.write_text(json.dumps(line_of()) + "\n" + json.dumps(line_of(answer=opposite)) + "\n")
    with pytest.raises(FormatError, match="two verdicts contradict each other"):
        VerdictStore(path)
    path.write_text(json.dumps(line_of(answer=opposite)) + "\n")
    with VerdictStore(path) as store, pytest.raises(FormatError, match=r"holds a counterexample for query .* is none"):
        list(certify(network(), [(0, 1, [("0", PixelBox((9, 9, 9), (9, 9, 9)))])], store=store))
    with pytest.raises(FormatError, match="is a directory, expected a regular file"):
        VerdictStore(tmp_path)


def test_boxes_of_quantized_pixels_are_the_exact_ones():
    step = Fraction("0.61")
    base = network()
    net = replace(base, domain=InputDomain.integers([0] * 3, [2] * 3), provenance=Provenance({"quant_step": "0.61"}))
    pixels = np.array([0, 77, 255], dtype=np.uint8)
    assert quantization_step(net) == step and quantization_step(base) is None
    assert quantized(pixels, step).tolist() == [round(Fraction(int(v), 255) / step) for v in pixels]
    exact = quantized_box([Fraction(int(v), 255) for v in pixels], Fraction("0.1"), step)
    assert box_around(net, pixels, Fraction("0.1")) == exact
    wide = replace(base, domain=InputDomain.integers([0] * 3, [255] * 3))
    assert box_around(wide, pixels, Fraction("0.1")) == PixelBox((0, 52, 230), (25, 102, 255))
    with pytest.raises(QueryError, match="eps is about grey values"):
        box_around(replace(base, domain=InputDomain.binary(3)), pixels, Fraction(0))


@pytest.mark.parametrize("text", ["notes without an end", "notes\nand more", '{"format": "bnnverify result"', "{"])
def test_a_file_that_is_not_ours_is_not_changed(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    if text == "{":  # a line of ours may begin so
        VerdictStore(path).close()
        assert path.read_text() == ""
        return
    with pytest.raises(FormatError, match=r"notes.txt:1: is no verdict of version 1"):
        VerdictStore(path)
    assert path.read_text() == text


def test_boxes_of_grey_values_end_at_the_white_of_the_data_set():
    net = replace(network(), domain=InputDomain.integers([0] * 3, [16] * 3))
    pixels = np.array([0, 8, 16], dtype=np.uint8)
    assert box_around(net, pixels, Fraction("0.1"), white=16) == PixelBox((0, 7, 15), (1, 9, 16))
    quantizing = replace(net, provenance=Provenance({"quant_step": "0.61"}))
    with pytest.raises(QueryError, match="quantizes grey values 0 to 255, but those of the images end at 16"):
        box_around(quantizing, pixels, Fraction("0.1"), white=16)


@pytest.mark.parametrize("step", ["abc", "1/0", "1e99999999", "-0.61", "0", "nan", 7, "1e-30", "0.5", [1], {}, True])
@pytest.mark.parametrize("top", [2, 16])
def test_a_quantization_step_that_does_not_fit_the_inputs_is_refused(step, top):
    domain = InputDomain.integers([0] * 3, [top] * 3)
    net = replace(network(), domain=domain, provenance=Provenance({"quant_step": step}))
    pixels = np.array([[0, 1, 2]], dtype=np.uint8)
    split = Split(np.ones((1, 3), dtype=np.int8), pixels, np.zeros(1, dtype=np.int64), np.arange(1))
    if (step, top) == ("0.5", 2):
        assert inputs_for(net, split).tolist() == [[0, 0, 0]] and quantization_step(net) == Fraction(1, 2)
    else:
        with pytest.raises(QueryError, match=r"quant_step in the network's provenance is .*Import the network's own"):
            inputs_for(net, split)
        with pytest.raises(QueryError, match="quant_step"):
            box_around(net, pixels[0], Fraction("0.1"))
    for ask in (lambda: inputs_for(net, replace(split, white=16)), lambda: box_around(net, pixels[0], 0, white=16)):
        with pytest.raises(QueryError, match=r"quantizes grey values 0 to 255, but those of the images end at 16"):
            ask()


def test_the_command_line_says_how_pixels_are_quantized(tmp_path, monkeypatch, capsys):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    splits = [Split(np.ones((2, 3), dtype=np.int8), pixels, np.zeros(2, dtype=np.int64), np.arange(2))] * 3
    monkeypatch.setattr("bnnverify.datasets.load", lambda *_, **__: Dataset("mnist", (1, 3), ("0", "1"), *splits, {}))
    domain = InputDomain.integers([0] * 3, [2] * 3)
    save(replace(network(), domain=domain, provenance=Provenance({"quant_step": "0.61"})), tmp_path / "net.npz")
    words = ["verify", str(tmp_path / "net.npz"), "--data", "mnist", "--eps", "0.1"]
    assert main(words) == 0 and "inputs round(pixel / 255 / 61/100)" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["inputs"] == "round(pixel / 255 / 61/100)"
