"""Every pair of options of ``bnnverify reliability`` is honoured, with the values of brute force, or refused."""

import json
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from bnnverify.datasets import Dataset, Split
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from tests import faultoracle
from tests.faultoracle import Causes
from tests.optionpairs import Pairs, use

BLOCK = DenseBlock.create([[1, -1, 1, 1], [1, 1, -1, 1]], [0, 1])
NET = BinaryNetwork(InputDomain.binary(4, (2, 2)), (BLOCK,), OutputBlock.create([[1, 1], [-1, 1]], bias=[0, 1]))
ROWS = [[1, -1, 1, 1], [-1, -1, 1, -1], [1, 1, -1, 1]]
RATES = "--ber 0.1"


def images():
    """A data set of 2x2 pixels: three images for the test, of which the first is misclassified."""
    pixels = np.random.default_rng(3).integers(0, 256, (7, 4)).astype(np.uint8)
    signs = np.where(pixels >= 128, 1, -1).astype(np.int8)
    labels = NET.evaluate_batch(signs)
    labels[[0, 3]] = 1 - labels[[0, 3]]
    parts = [Split(signs[p], pixels[p], labels[p], np.arange(7)[p]) for p in (slice(3, 6), slice(6, 7), slice(0, 3))]
    return Dataset("digits", (2, 2), ("0", "1"), *parts, {"source": "a test"})


USES = {
    "model": [use("net.npz", effect=None)],
    "data": [use("--data digits", effect=None)],
    "data_dir": [use("--data-dir .", "--data mnist", effect=None)],
    "split": [use("--split train", "--data digits", effect=None), use("--split test", "--data digits", effect=None)],
    "index": [use("--index 1"), use("--index 0:2")],
    "input_file": [use("--input rows.txt")],
    "ber": [use("--ber 0.1,0.2")],
    "p01": [use("--p01 0.1,0.2,0.1", "--p10 0.3,0.3,0.4")],
    "p10": [use("--p10 0.3", "--p01 0.1")],
    "stuck_at": [use("--stuck-at 0.1,0.3")],
    "retries": [use("--retries 1", RATES)],
    "retention": [use("--retention 1/10")],
    "only_block": [use("--only-block 1", RATES)],
    "per_read": [use("--per-read", RATES)],
    "read_error": [use("--read-error 0.1", RATES)],
    "event": [use("--event change", "--data digits"), use("--event error", "--data digits", effect=None)],
    "keep": [use("--keep 1", effect=None), use("--keep true", "--data digits", effect=None)],
    "tolerance": [use("--tolerance 0.5", RATES, effect=None)],
    "max_states": [use("--max-states 5", RATES, effect=None)],
    "sensitivity": [use("--sensitivity", RATES)],
    "target_accuracy": [use("--target-accuracy 0.6")],
    "every_rate": [use("--every-rate", "--target-accuracy 0.6")],
    "energy": [use("--energy mtj", "--target-accuracy 0.6")],
    "worst_case": [use("--worst-case")],
    "flips": [use("--flips 1", "--worst-case")],
    "critical": [use("--critical 3")],
    "cell_map": [use("--cell-map map.svg", "--critical 3")],
    "map_block": [use("--map-block 1", "--critical 3 --cell-map map.svg", effect=None)],
    "coefficients": [use("--coefficients 2"), use("--coefficients all")],
    "samples": [use("--samples 20", RATES)],
    "chips": [use("--chips 20", RATES)],
    "least": [use("--yield 0.5", RATES)],
    "only_samples": [use("--only-samples", f"{RATES} --chips 20")],
    "device": [use("--device cpu", f"{RATES} --chips 20", effect=None)],
    "confidence": [use("--confidence 0.5", f"{RATES} --chips 20")],
    "seed": [use("--seed 3", f"{RATES} --chips 20")],
    "per_image": [use("--per-image", f"{RATES} --json")],
    "csv_file": [use("--csv table.csv", RATES)],
    "figure": [use("--figure curve.svg", RATES)],
    "resume": [use("--resume kept.jsonl", RATES)],
    "timeout": [use("--timeout 60", effect=False)],
    "jobs": [use("--jobs 2", effect=False)],
    "as_json": [use("--json", effect=None)],
    "quiet": [use("--quiet", effect=False)],
    "debug": [use("--debug", effect=False)],
}
UNSEEN = {
    ("retries", "energy"): "there they are the most retries tried, of which none may be the cheapest",
    ("retries", "target_accuracy"): "likewise",
    ("retries", "every_rate"): "likewise",
    ("event", "input_file"): "inputs of a file have no labels, so a change is what is asked there anyway",
    ("jobs", "resume"): "images are kept in the order in which they are final",
    ("timeout", "resume"): "with a limit, coarse answers come first and are kept, too",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the network and inputs for it; the data set is the one above."""
    monkeypatch.setattr("bnnverify.datasets.load", lambda name, directory=None: images())
    save(NET, tmp_path / "net.npz")
    (tmp_path / "rows.txt").write_text("\n".join(" ".join(map(str, row)) for row in ROWS))
    return tmp_path


def base(names):
    """Model, image, question and JSON, as far as they are not named."""
    words = [] if "model" in names else ["net.npz"]
    if not names & {"input_file", "data"}:
        words += ["--data", "digits"]
    asks = {"ber", "p01", "p10", "stuck_at", "retention", "target_accuracy", "worst_case", "critical", "coefficients"}
    if not names & asks:
        words += RATES.split()
    return [*words, *([] if "as_json" in names else ["--json"])]


def causes_of(options):
    """The fault models that the options name, in words of their own."""

    def listed(name):
        return [Fraction(v) for v in options[name].split(",")]

    if "stuck_at" in options:
        models = [[StuckAt(*map(Fraction, text.split(",")))] for text in options["stuck_at"]]
    elif "p01" in options:
        low, high = listed("p01"), listed("p10")
        size = max(len(low), len(high))
        pairs = zip(low * (size // len(low)), high * (size // len(high)), strict=True)
        models = [[AsymmetricFlip(a, b)] for a, b in dict.fromkeys(pairs)]
    else:
        models = [[BitFlip(p)] for p in listed("ber")] if "ber" in options else [[]]
    if "retries" in options:
        models = [[_squared(model) for model in series] for series in models]
    if "retention" in options:
        models = [[*series, BitFlip(Fraction((1 - np.exp(-0.2)) / 2))] for series in models]
    read = [BitFlip(Fraction(options["read_error"]))] if "read_error" in options else []
    if "only_block" in options:
        models = [[_second(model) for model in series] for series in models]
        read = [_second(model) for model in read]
    if "per_read" in options:
        return [Causes((), series) for series in models]
    return [Causes(series, read) for series in models]


def _squared(model):
    return BitFlip(model.p**2) if isinstance(model, BitFlip) else AsymmetricFlip(model.p01**2, model.p10**2)


def _second(model):
    return PerBlock((BitFlip(0), model))


@cache
def error(row, label, text):
    causes = causes_of(json.loads(text))
    return [faultoracle.error_probability(NET, row, label, cause) for cause in causes]


def cases(options):
    """Inputs with their right classes."""
    if "input_file" in options:
        chosen = [(row, None) for row in ROWS]
    else:
        split = images().splits[options.get("split", "test")]
        chosen = list(zip(split.images.tolist(), split.labels.tolist(), strict=True))
    start, _, stop = options.get("index", f"0:{len(chosen)}").partition(":")
    chosen = chosen[int(start) : int(stop or int(start) + 1)]
    default = "true" if "input_file" not in options else "predicted"
    keep = {"change": "predicted", "error": "true"}.get(options.get("event"), options.get("keep", default))
    return [(row, {"true": label, "predicted": NET.evaluate(row)}.get(keep, keep)) for row, label in chosen]


def judge(options, outcome):
    """Accuracies are those of brute force, for every point that was named."""
    if "as_json" not in options:
        return
    faults = {k: options[k] for k in (*USES,) if k in options and k in _FAULTS}
    answers = [json.loads(line)["answer"] for line in outcome.out.splitlines()]
    found = [a for a in answers if a["type"] == "accuracy" and a["kind"] != "sampled"]
    if "only_samples" in options or not set(options) & (_FAULTS - {"retries", "only_block", "per_read"}):
        assert not found
        return
    per_image = [error(tuple(row), int(label), json.dumps(faults)) for row, label in cases(options)]
    truth = [1 - sum(column) / len(column) for column in zip(*per_image, strict=True)]
    assert len(found) == len(truth), f"{len(found)} points, expected {len(truth)}"
    for answer, accuracy in zip(found, truth, strict=True):
        low, high = float(Fraction(answer["lower"])), float(Fraction(answer["upper"]))
        assert low - 1e-12 <= accuracy <= high + 1e-12, f"{low}..{high}, expected {float(accuracy)}"


_FAULTS = {"ber", "p01", "p10", "stuck_at", "retries", "retention", "only_block", "per_read", "read_error"}


@pytest.mark.slow
def test_every_pair_of_reliability_is_honoured_or_refused(folder, monkeypatch):
    work = ("bnnverify.cli.chipquestions.print_heading",)
    Pairs(("reliability",), USES, base, folder, monkeypatch, work, judge, UNSEEN).check()
