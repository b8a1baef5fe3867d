"""The options that name a region and the class to keep."""

import pytest

from bnnverify.cli import main
from bnnverify.cli.regions import region_of
from bnnverify.formats.native import save
from bnnverify.query import Query, Untargeted
from bnnverify.regions import FixedIndexRegion, HammingBall, region_from_json
from tests import oracle
from tests.test_cli import NET, ROWS, json_lines, network

CENTER = (1, -1, 1, 1, -1, -1)
NOTHING = {"radius": None, "free": None, "hold": None, "fixed": None, "whole": False}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with a network, an input for it, and files that list inputs."""
    monkeypatch.chdir(tmp_path)
    save(network(), "net.npz")
    (tmp_path / "rows.txt").write_text("1 0 1 1 0 0\n")
    (tmp_path / "set.txt").write_text("0 2 5")
    (tmp_path / "wrong.txt").write_text("0 2 6\n")
    (tmp_path / "words.txt").write_text("zero two")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe0")


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def call(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("options", "region"),
    [
        ({"radius": 2}, HammingBall(CENTER, 2)),
        ({"free": "0,2,5"}, FixedIndexRegion(CENTER, (0, 2, 5))),
        ({"free": "set.txt"}, FixedIndexRegion(CENTER, (0, 2, 5))),
        ({"hold": "1,3:5"}, FixedIndexRegion(CENTER, (0, 2, 5))),
        ({"hold": "set.txt"}, FixedIndexRegion(CENTER, (1, 3, 4))),
        ({"hold": "0:6"}, FixedIndexRegion(CENTER, ())),
        ({"fixed": "set.txt"}, FixedIndexRegion(CENTER, (0, 2, 5))),
        ({"radius": 2, "free": "0,2,5"}, HammingBall(CENTER, 2, (0, 2, 5))),
        ({"radius": 2, "hold": "set.txt"}, HammingBall(CENTER, 2, (1, 3, 4))),
        ({"radius": 2, "fixed": "set.txt"}, HammingBall(CENTER, 2, (0, 2, 5))),
        ({"whole": True}, FixedIndexRegion(CENTER, tuple(range(6)))),
    ],
)
def test_options_name_the_region_that_they_say(workplace, options, region):
    assert region_of(CENTER, **{**NOTHING, **options}) == region


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["--hamming", 2], 22),
        (["--fixed", "set.txt"], 8),
        (["--hamming", 1, "--fixed", "set.txt"], 4),
        (["--radius", 2, "--hold", "3:6"], 7),
    ],
)
def test_the_command_counts_in_that_region(workplace, run, words, size):
    code, out, _ = run("count", *NET, *ROWS, *words, "--label", 1, "--json")
    (line,) = json_lines(out)
    query = Query(network(), region_from_json(line["question"]["region"]), Untargeted(1))
    assert code == 0 and line["question"] == query.to_json() and line["answer"]["region_size"] == size
    assert line["answer"]["lower"] == line["answer"]["upper"] == len(oracle.adversarial_points(query))


def test_the_heading_names_the_class_of_label_and_the_inputs_that_vary(workplace, run):
    _, out, _ = run("verify", *NET, *ROWS, "--hamming", 2, "--free", "0:3", "--label", 1)
    assert "Is there an input whose class is not 1? In each Hamming ball of radius 2 in 3 of 6 inputs;" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fixed", "0:3"], "--fixed is '0:3', expected the path of a fixed-set file, which lists the inputs that v"),
        (["--fixed", "0:3"], "give --hold LIST (they stay) or --free LIST (they vary)."),
        (["--fixed", "none.txt"], "--fixed is 'none.txt', expected the path of a fixed-set file"),
        (["--fixed", "wrong.txt"], "wrong.txt: input 6 does not exist, expected 0 to 5"),
        (["--fixed", "words.txt"], "words.txt: input list contains 'zero', expected numbers"),
        (["--free", "bytes.txt"], "bytes.txt: is no text in UTF-8 (byte 0 is 0xff), expected a list of input numbers"),
        (["--free", "0:3", "--hold", "3:6"], "expected exactly one region"),
        (["--free", "0:3", "--fixed", "set.txt"], "(--radius also together with --free, --hold or --fixed)"),
        (["--radius", 1, "--whole-cube"], "expected exactly one region"),
        (["--hold", "1", "--whole-cube"], "expected exactly one region"),
        ([], "expected exactly one region: --radius R, --free LIST, --hold LIST, --fixed FILE or --whole-cube"),
        (["--radius", 4, "--fixed", "set.txt"], "radius is 4, expected 0 to 3, the number of free inputs"),
        (["--radius", 1, "--label", 3], "class 3 does not exist, expected 0 to 2"),
        (["--radius", 1, "--label", 1, "--target", 2], "--keep and --target are both given"),
    ],
)
def test_a_wrong_region_is_one_sentence(workplace, run, words, message):
    code, out, err = run("count", *NET, *ROWS, *words)
    assert code == 2 and out == "" and message in err
