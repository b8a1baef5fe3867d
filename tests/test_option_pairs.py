"""Every pair of options of every verb is honoured, with the values of brute force, or refused before any work."""

import json
from fractions import Fraction
from functools import cache
from importlib import metadata
from itertools import product

import numpy as np
import pytest

from bnnverify.datasets import Dataset, Split
from bnnverify.encodings.classdiagram import compile_diagram
from bnnverify.formats.diagrams import save_diagram
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
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


IMAGES = images()
OTHER = (int(network().evaluate(IMAGES.test.images[0])) + 2) % 3  # neither predicted nor the label
ROWS = [[1, -1, 1, 1, -1, -1, 1, -1], [-1] * 3 + [1] * 5, [1, -1] * 4]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the network and inputs for it; the data set is the one above."""
    dataset = images()
    monkeypatch.setattr("bnnverify.datasets.load", lambda name, directory=None: dataset)
    monkeypatch.setattr("importlib.metadata.version", cache(metadata.version))  # 3 ms a call, hundreds of calls
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
ENGINES = [use(f"--engine {name}", effect=None) for name in ("enumeration", "propagation", "bdd", "sat")]
DECIDERS = [use(f"--engine {name}", effect=None) for name in ("stages", "minicard", "cpsat", "cadical")]


def base(names, region="--radius 1"):
    """Model, image, region and JSON, as far as they are not named."""
    words = [] if "model" in names else ["net.npz"]
    if not names & {"input_file", "data"}:
        words += ["--data", "digits"]
    if region and not names & set(REGION):
        words += region.split()
    return [*words, *([] if names & {"as_json", "show"} else ["--json"])]


def asked(options, default="0"):
    """What the options say, in plain words: inputs with their labels, places that vary, and the most flips."""
    if "input_file" in options:
        rows, labels = ROWS, [None] * len(ROWS)
    else:
        split = IMAGES.splits[options.get("split", "test")]
        rows, labels = split.images.tolist(), split.labels.tolist()
    index = options.get("index", "all" if "input_file" in options else default)
    start, _, stop = (f"0:{len(rows)}" if index == "all" else index).partition(":")
    vary = list(range(N))
    for name, places in (("free", [0, 1, 2, 3]), ("hold", [1, 2, 4, 5, 7]), ("fixed", [1, 2, 5])):
        vary = places if name in options else vary
    radius = min(int(str(options.get("radius", N)).rpartition(":")[2]), len(vary))
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


def judged_verify(options, outcome):
    """Verdicts are those of brute force, and counterexamples are adversarial."""
    if "show" in options or "property_file" in options:
        return
    cases, vary, radius = asked(options)
    for answer, (row, label) in zip(answers_of(outcome), cases, strict=True):
        points = [x for shell in adversarial_by_distance(options, row, label, vary, radius) for x in shell]
        assert answer["verdict"] == ("not-robust" if points else "robust"), answer["verdict"]
        assert not points or tuple(answer["counterexample"]) in points


def judged_distance(options, outcome):
    """Distances and safe distances are those of brute force."""
    cases, vary, _ = asked(options)
    reach = int(options.get("max_radius", N))
    for answer, (row, label) in zip(answers_of(outcome), cases, strict=True):
        shells = adversarial_by_distance(options, row, label, vary, reach)
        if "tolerance" in options:
            total, safe = 0, -1
            for r, shell in enumerate(shells):
                total += len(shell)
                if Fraction(total, HammingBall(row, r).size()) > Fraction(options["tolerance"]):
                    break
                safe = r
            assert answer["lower"] == safe, f"{answer['lower']}, expected {safe}"
        else:
            nearest = next((r for r, shell in enumerate(shells) if shell), None)
            assert answer["upper"] == nearest, f"{answer['upper']}, expected {nearest}"


def judged_explain(options, outcome):
    """What is kept excludes every adversarial input, and nothing of it is spare."""
    if "show" in options:
        return
    cases, vary, radius = asked(options)
    answers = [answer for answer in answers_of(outcome) if answer["type"] == "explanation"]
    for answer, (row, label) in zip(answers, cases, strict=True):
        points = [x for shell in adversarial_by_distance(options, row, label, vary, radius) for x in shell]
        kept = set(answer["kept"])
        assert all(any(x[i] != row[i] for i in kept) for x in points), "it does not suffice"
        assert all(any(all(x[i] == row[i] for i in kept - {j}) for x in points) for j in kept), "it is not minimal"


def base_of_verify(names):
    """As `base`; a property says all of that, about a network of pixels."""
    if "property_file" not in names:
        return base(names)
    return [*([] if "model" in names else ["pixels.npz"]), *([] if "as_json" in names else ["--json"])]


def pixels():
    """Four pixels 0 to 3, two hidden neurons, two classes."""
    block = DenseBlock.create([[1, 1, -1, 1], [1, -1, 1, -1], [-1, 1, 1, 1]], [2, 1, 3])
    return BinaryNetwork(InputDomain.integers([0] * 4, [3] * 4), (block,), OutputBlock.create([[1, 1, -1], [-1, 1, 1]]))


def property_text():
    """Pixels 0 and 1 vary, and class 1 is reached."""
    inputs = "".join(
        f"(declare-const X_{i} Real) (assert (<= X_{i} {3 if i < 2 else 1})) (assert (>= X_{i} {0 if i < 2 else 1}))\n"
        for i in range(4)
    )
    return f"{inputs}(declare-const Y_0 Real) (declare-const Y_1 Real)\n(assert (>= Y_1 Y_0))\n"


ANSWERS = ("bnnverify.cli.questions.answers",)


def test_every_pair_of_verify_is_honoured_or_refused(folder, monkeypatch):
    reading = {
        "input_range": [use("--input-range 0 1", alone=False)],
        "input_scale": [use("--input-scale 1/2", alone=False)],
        "input_offset": [use("--input-offset 1", alone=False)],
        "input_shape": [use("--input-shape 1,8", alone=False)],
        "zero_sign": [use("--zero-sign plus", alone=False)],
        "layers": [use("--layer a:pool=2", alone=False)],
        "latent_weights": [use("--latent-weights sign", alone=False)],
        "zero_weights": [use("--zero-weights plus", alone=False)],
        "activation": [use("--activation sign", alone=False)],
        "epsilon": [use("--epsilon 2e-5", alone=False)],
    }
    uses = {
        **SOURCE,
        **REGION,
        **PROPERTY,
        **BUDGET,
        **SHOWN,
        **reading,
        "engine": [*ENGINES[:3], *DECIDERS[:2]],
        "linf": [use("--linf 1", alone=False)],
        "eps": [use("--eps 0.1", alone=False)],
        "show": [use("--show")],
        "save": [use("--save found", "--radius 3")],
        "certificate": [use("--certificate proof")],
        "result": [use("--result r.txt", alone=False)],
        "property_file": [use("free.vnnlib", effect=None)],
        "dump_cnf": [use("--dump-cnf q.cnf")],
        "dump_opb": [use("--dump-opb q.opb")],
        "dump_cp": [use("--dump-cp q.cp")],
        "fail_on": [use("--fail-on not-robust", "--radius 3")],
    }
    (folder / "free.vnnlib").write_text(property_text())
    save(pixels(), folder / "pixels.npz")
    work = (*ANSWERS, "bnnverify.cli.property.decide")
    Pairs(("verify",), uses, base_of_verify, folder, monkeypatch, work, judged_verify).check()


def test_every_pair_of_distance_is_honoured_or_refused(folder, monkeypatch):
    uses = {
        **SOURCE,
        **{name: PROPERTY[name] for name in ("keep", "ties")},
        **BUDGET,
        **SHOWN,
        "engine": [*ENGINES[:2], *DECIDERS[:2]],
        "max_radius": [use("--max-radius 1", effect=None)],
        "linf": [use("--linf", alone=False)],
        "tolerance": [use("--tolerance 1/3")],
    }
    Pairs(("distance",), uses, lambda names: base(names, ""), folder, monkeypatch, ANSWERS, judged_distance).check()


def test_every_pair_of_explain_is_honoured_or_refused(folder, monkeypatch):
    uses = {
        **SOURCE,
        **REGION,
        "keep": [use("--keep true", "--data digits --index 2", effect=None), use("--keep predicted", effect=None)],
        "ties": PROPERTY["ties"],
        **BUDGET,
        **SHOWN,
        "engine": ENGINES[:3],
        "order": [use(f"--order {order}", effect=None) for order in ("influence", "index", "random")],
        "seed": [use("--seed 3", effect=None)],
        "essential": [use("--essential")],
        "check": [use("--check")],
        "show": [use("--show")],
        "figure": [use("--figure why.svg")],
    }
    monkeypatch.setattr("bnnverify.report.figures.reasons_figure", lambda panels: panels)  # 0.3 s to draw
    monkeypatch.setattr("bnnverify.report.figures.save", lambda figure, path: path.write_text("drawn"))
    Pairs(("explain",), uses, base, folder, monkeypatch, ANSWERS, judged_explain).check()


def test_every_pair_of_certify_is_honoured_or_refused(folder, monkeypatch):
    uses = {
        **SOURCE,
        "input_file": [use("--input rows.txt", "--keep predicted")],
        **BUDGET,
        **SHOWN,
        "radius": [use("--radius 0:3"), use("--radius 2")],
        "linf": [use("--linf 1", alone=False)],
        "eps": [use("--eps 0.1", alone=False)],
        "keep": [use("--keep predicted"), use("--keep true", effect=None)],
        "ties": PROPERTY["ties"],
        "engine": [*ENGINES[:3], *DECIDERS[:2]],
        "out": [use("--out kept.jsonl")],
        "save": [use("--save found", "--radius 4")],
    }
    sizes = {"radius", "linf", "eps"}

    def words(names):
        return [*base(names, ""), *([] if names & sizes else ["--radius", "1"])]

    work = ("bnnverify.cli.workers.answers",)
    unseen = {("timeout", "out"): "the file keeps the limit of a verdict"}
    Pairs(("certify",), uses, words, folder, monkeypatch, work, judged_certify, unseen).check()


def judged_certify(options, outcome):
    """Robust images are as many as by brute force, at each size."""
    text = options.get("radius", "1")
    start, _, stop = text.partition(":")
    radii = range(int(start), int(stop or int(start) + 1))
    cases, vary, _ = asked(options, "all")
    settings = {"keep": "true", **options}
    for answer, radius in zip(answers_of(outcome), radii, strict=True):
        robust = sum(not any(adversarial_by_distance(settings, row, label, vary, radius)) for row, label in cases)
        assert (answer["images"], answer["robust"]) == (len(cases), robust), f"{answer}, expected {robust}"


def judged_build(options, outcome):
    """The diagram in the file has the classes of brute force."""
    ((row, _),), vary, radius = asked(options)
    (name,) = [name for name in outcome.files if name.startswith("d.")]
    if name == "d.json":
        data = json.loads(outcome.files[name])
        assert tuple(data["region"]["center"]) == tuple(row), "another centre"
        assert sorted(data["order"]) == sorted(vary if radius else [])


def test_every_pair_of_diagram_build_is_honoured_or_refused(folder, monkeypatch):
    one = {**SOURCE, "index": [use("--index 1")], "input_file": [use("--input rows.txt", "--index 0")]}
    uses = {
        **one,
        **REGION,
        **SHOWN,
        "timeout": BUDGET["timeout"],
        "output": [use("-o d.json", effect=None), use("-o d.dddmp", effect=None)],
    }

    def words(names):
        return [*base(names), *([] if "output" in names else ["-o", "d.json"])]

    work = ("bnnverify.encodings.classdiagram.compile_diagram",)
    Pairs(("diagram", "build"), uses, words, folder, monkeypatch, work, judged_build).check()


@pytest.mark.parametrize("verb", ["show", "count", "pick"])
def test_every_pair_about_a_diagram_is_honoured_or_refused(folder, monkeypatch, verb):
    row = IMAGES.test.images[0].tolist()
    save_diagram(compile_diagram(network(), whole_cube(N, row)), folder / "d.json")
    uses = {
        **{name: SHOWN[name] for name in ("as_json", "quiet", "debug")},
        "file": [use("d.json", effect=None)],
        **({"fixed": [use("--set 0=1,3=-1"), use("--set 7=0")]} if verb == "count" else {}),
    }
    if verb == "pick":
        uses |= {
            "target": [use(f"--target {OTHER}", effect=None), use(f"--target {network().evaluate(row)}")],
            "number": [use("-n 3")],
            "seed": [use("--seed 4", "-n 3")],
        }

    def words(names):
        return [*([] if "file" in names else ["d.json"]), *([] if "as_json" in names else ["--json"])]

    def judged_pick(options, outcome):
        found = [x for answer in answers_of(outcome) for x in answer["inputs"]]
        wanted = {int(options["target"])} if "target" in options else {0, 1, 2} - {network().evaluate(row)}
        assert found and all(network().evaluate(x["input"]) == x["predicted"] for x in found)
        assert {x["predicted"] for x in found} <= wanted
        if "number" not in options:
            nearest = min(sum(a != b for a, b in zip(x, row, strict=True)) for x in CUBE if NET.evaluate(x) in wanted)
            assert sum(a != b for a, b in zip(found[0]["input"], row, strict=True)) == nearest

    judge = judged_pick if verb == "pick" else None
    Pairs(("diagram", verb), uses, words, folder, monkeypatch, judge=judge).check()
