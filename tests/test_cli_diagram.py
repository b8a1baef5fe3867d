"""``bnnverify diagram``: built once, asked without the network, and every mistake one sentence."""

import json

import numpy as np
import pytest

from bnnverify.cli.diagram import command
from bnnverify.formats.native import save
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall
from tests import oracle


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(4)
    hidden = DenseBlock.create(generator.choice([-1, 1], (5, 6)), generator.integers(-2, 3, 5))
    network = BinaryNetwork(InputDomain.binary(6), (hidden,), OutputBlock.create(generator.choice([-1, 1], (3, 5))))
    save(network, "net.npz")
    (tmp_path / "rows.txt").write_text("1 0 1 1 0 0\n0 0 0 1 1 1\n")
    return network


@pytest.fixture
def run(capsys):
    """Runs the verb; gives what it returns and prints."""

    def call(*words):
        code = command.main(args=[str(word) for word in words], standalone_mode=False)
        return code, capsys.readouterr().out

    return call


ONE = ("--input", "rows.txt", "--index", "0")
CENTER = (1, -1, 1, 1, -1, -1)


@pytest.mark.parametrize("name", ["d.json", "d.dddmp"])
def test_a_built_diagram_counts_as_the_oracle_does(net, run, name):
    code, out = run("build", "net.npz", *ONE, "--radius", 3, "-o", name)
    assert code == 0 and "class diagram of" in out and net.identity in out
    query = Query(net, HammingBall(CENTER, 3), Untargeted(0))
    code, out = run("count", name, "--json")
    line = json.loads(out)
    assert code == 0 and line["answer"]["per_class"] == oracle.per_class(query) and line["network"] == net.identity
    assert [sum(column) for column in zip(*line["answer"]["per_class_and_radius"], strict=True)] == [1, 6, 15, 20]
    assert json.loads(run("show", name, "--json")[1])["answer"]["region_size"] == 42
    assert "42  exact" in run("count", name)[1]


def test_set_keeps_inputs_with_these_values(net, run):
    run("build", "net.npz", *ONE, "--free", "0:5", "-o", "d.json")
    line = json.loads(run("count", "d.json", "--set", "0=0,1=+1,2=-1", "--json")[1])
    points = [x for x in FixedIndexRegion(CENTER, tuple(range(5))).points() if x[:3] == (-1, 1, -1)]
    expected = [sum(oracle.predicted(net, x) == k for x in points) for k in range(3)]
    assert line["answer"]["per_class"] == expected and line["answer"]["fixed"] == {"0": -1, "1": 1, "2": -1}
    assert f"{len(points)}  exact" in run("count", "d.json", "--set", "0=0,1=1,2=0")[1]


def test_picked_inputs_change_the_class(net, run):
    run("build", "net.npz", *ONE, "--radius", 4, "-o", "d.json")
    own = oracle.predicted(net, CENTER)
    line = json.loads(run("pick", "d.json", "--json")[1])
    (nearest,) = line["answer"]["inputs"]
    assert oracle.predicted(net, nearest["input"]) == nearest["predicted"] != own
    _, out = run("pick", "d.json", "-n", 20, "--seed", 3)
    rows = [tuple(1 if c == "1" else -1 for c in row.split()[0]) for row in out.splitlines()]
    assert len(rows) == 20 and all(oracle.predicted(net, x) != own for x in rows)
    assert out == run("pick", "d.json", "-n", 20, "--seed", 3)[1]
    assert "no input of the region has such a class" in run_nothing(run)


def run_nothing(run):
    run("build", "net.npz", *ONE, "--radius", 0, "-o", "point.json")
    return run("pick", "point.json")[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("build", "net.npz", "--input", "rows.txt", "--index", "0:2", "--radius", 1, "-o", "d.json"), "2 images"),
        (("build", "net.npz", *ONE, "--radius", 1, "-o", "d.bdd"), "suffix '.bdd', expected .json or .dddmp"),
        (("build", "net.npz", *ONE, "-o", "d.json"), "expected exactly one region"),
        (("build", "net.npz", *ONE, "--radius", 6, "-o", "d.json", "--timeout", 1e-9), "time limit of 1e-09 s"),
        (("count", "none.json"), "cannot be read"),
        (("count", "good.json", "--set", "3=2"), "--set contains '3=2'"),
        (("count", "good.json", "--set", "3=1,3=0"), "--set gives input 3 two values"),
        (("count", "good.json", "--set", "9=1"), "input 9 does not exist"),
        (("pick", "good.json", "--target", 7), "class 7 does not exist"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(net, run, words, text):
    run("build", "net.npz", *ONE, "--radius", 1, "-o", "good.json")
    with pytest.raises(Exception, match=text):
        run(*words)
