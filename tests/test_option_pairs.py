"""Every pair of options of every verb is honoured, with the values of brute force, or refused before any work."""

import json
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest

from bnnverify.datasets import Dataset, Split
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion
from tests import oracle
from tests.optionpairs import Pairs, use

N = 8
CUBE = list(product((-1, 1), repeat=N))


def network():
    """Eight inputs, three classes, many ties."""
    random = np.random.default_rng(5)
    block = DenseBlock.create(random.choice([-1, 1], (5, N)), random.integers(-2, 3, 5))
    return BinaryNetwork(InputDomain.binary(N, (2, 4)), (block,), OutputBlock.create(random.choice([-1, 1], (3, 5))))


def images():
    """A data set of 2x4 pixels: six images for the test, of which the first two are misclassified."""
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (12, N)).astype(np.uint8)
    signs = np.where(pixels >= 128, 1, -1).astype(np.int8)
    labels = network().evaluate_batch(signs)
    labels[[0, 1, 6]] = (labels[[0, 1, 6]] + 1) % 3
    parts = [
        Split(signs[part], pixels[part], labels[part], np.arange(12)[part])
        for part in (slice(6, 10), slice(10, 12), slice(0, 6))
    ]
    return Dataset("digits", (2, 4), ("0", "1", "2"), *parts, {"source": "a test"})


OTHER = (int(network().evaluate(images().test.images[0])) + 2) % 3  # neither predicted nor the label
ROWS = [[1, -1, 1, 1, -1, -1, 1, -1], [-1] * 3 + [1] * 5, [1, -1] * 4]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the network and inputs for it; the data set is the one above."""
    monkeypatch.setattr("bnnverify.datasets.load", lambda name, directory=None: images())
    save(network(), tmp_path / "net.npz")
    (tmp_path / "rows.txt").write_text("\n".join(" ".join(map(str, row)) for row in ROWS))
    (tmp_path / "set.txt").write_text("1 2 5")
    return tmp_path


SOURCE = {
    "data": [use("--data digits", effect=None)],
    "data_dir": [use("--data-dir .", "--data mnist", effect=None)],
    "split": [use("--split train", "--data digits"), use("--split test", "--data digits", effect=None)],
    "index": [use("--index 1"), use("--index 0:2")],
    "input_file": [use("--input rows.txt")],
}
REGION = {
    "radius": [use("--radius 2")],
    "free": [use("--free 0:4")],
    "hold": [use("--hold 0,3,6")],
    "fixed": [use("--fixed set.txt")],
    "whole_cube": [use("--whole-cube")],
}
PROPERTY = {
    "target": [use(f"--target {OTHER}")],
    "keep": [
        use("--keep true", "--data digits --index 0"),
        use(f"--keep {OTHER}"),
        use("--keep predicted", effect=None),
    ],
    "ties": [use("--ties counterexample"), use("--ties robust"), use("--ties lowest-index", effect=None)],
}
BUDGET = {
    "timeout": [use("--timeout 60", effect=False)],
    "threads": [use("--threads 1", effect=False)],
    "jobs": [use("--jobs 1", effect=False)],
}
SHOWN = {
    "model": [use("net.npz", effect=None)],
    "as_json": [use("--json", effect=None)],
    "quiet": [use("--quiet", effect=False)],
    "debug": [use("--debug", effect=False)],
}
ENGINES = [use(f"--engine {name}", effect=None) for name in ("auto", "enumeration", "propagation", "bdd", "sat")]
DECIDERS = [use(f"--engine {name}", effect=None) for name in ("stages", "minicard", "cpsat", "cadical")]


def base(names, region="--radius 1"):
    """Model, image, region and JSON, as far as they are not named."""
    words = [] if "model" in names else ["net.npz"]
    if not names & {"input_file", "data"}:
        words += ["--data", "digits"]
    if region and not names & set(REGION):
        words += region.split()
    return [*words, *([] if names & {"as_json", "show"} else ["--json"])]


def asked(options):
    """What the options say, in plain words: inputs with their labels, places that vary, and the most flips."""
    if "input_file" in options:
        rows, labels = ROWS, [None] * len(ROWS)
    else:
        split = images().splits[options.get("split", "test")]
        rows, labels = split.images.tolist(), split.labels.tolist()
    index = options.get("index", "0" if "input_file" not in options else "0:3")
    start, _, stop = index.partition(":")
    vary = list(range(N))
    for name, places in (("free", [0, 1, 2, 3]), ("hold", [1, 2, 4, 5, 7]), ("fixed", [1, 2, 5])):
        vary = places if name in options else vary
    radius = min(int(options.get("radius", N)), len(vary))
    return [(rows[i], labels[i]) for i in range(int(start), int(stop or int(start) + 1))], vary, radius


NET = network()


@cache
def adversarial(prop, ties):
    """Every adversarial input of the cube, by the definition."""
    query = Query(NET, FixedIndexRegion((1,) * N, range(N)), prop, ties)
    return [x for x in CUBE if oracle.is_adversarial(query, x)]


def adversarial_by_distance(options, row, label, vary, radius):
    """Adversarial inputs around a row at each distance, by brute force over the cube."""
    keep = options.get("keep", "predicted")
    kept = {"predicted": NET.evaluate(row), "true": label}.get(keep, keep)
    prop = Targeted(int(options["target"])) if "target" in options else Untargeted(int(kept))
    shells = [[] for _ in range(radius + 1)]
    for x in adversarial(prop, Ties(options.get("ties", "lowest-index"))):
        changed = [i for i in range(N) if x[i] != row[i]]
        if set(changed) <= set(vary) and len(changed) <= radius:
            shells[len(changed)].append(x)
    return shells


def answers_of(outcome):
    return [json.loads(line)["answer"] for line in outcome.out.splitlines()]


def judged_count(options, outcome):
    """Counts, tables, probabilities and draws are those of brute force."""
    cases, vary, radius = asked(options)
    answers = answers_of(outcome)
    assert len(answers) == len(cases), "another number of images"
    for answer, (row, label) in zip(answers, cases, strict=True):
        shells = adversarial_by_distance(options, row, label, vary, radius)
        total = sum(map(len, shells))
        if "noise" in options:
            p = Fraction(options["noise"])
            truth = sum(len(s) * p**r * (1 - p) ** (len(vary) - r) for r, s in enumerate(shells))
            low, high = Fraction(answer["lower"]), Fraction(answer["upper"])
            assert low <= truth <= high, f"noise {float(low)}..{float(high)}, expected {float(truth)}"
            assert answer["kind"] == "exact" or radius < len(vary)
        elif "samples" in options:
            assert answer["adversarial"] == total
            assert all(tuple(x) in {y for s in shells for y in s} for x in answer["inputs"])
            assert len(answer["inputs"]) == (int(options["samples"]) if total else 0)
        elif "by_radius" in options:
            assert answer["shells"] == [len(s) for s in shells]
        else:
            assert answer["lower"] == answer["upper"] == total, f"{answer['lower']}, expected {total}"


def test_every_pair_of_count_is_honoured_or_refused(folder, monkeypatch):
    uses = {
        **SOURCE,
        **REGION,
        **PROPERTY,
        **BUDGET,
        **SHOWN,
        "engine": ENGINES,
        "by_radius": [use("--by-radius", "--radius 2")],
        "samples": [use("--samples 3")],
        "seed": [use("--seed 7", "--samples 3")],
        "noise": [use("--noise 1/5", "--whole-cube")],
    }
    Pairs(("count",), uses, base, folder, monkeypatch, ("bnnverify.cli.questions.answers",), judged_count).check()
