"""The counting benchmark: its ratios, checks and table, and one tiny run of it."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.test_bnnquanalyst import block, write

FOLDER = Path(__file__).resolve().parent.parent / "case_studies" / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = ("counting_cases", "counting")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            del sys.modules[name]


def row(bench, *, seconds=0.5, peer=50.0, finished=True, published=(3, 5), answer=(3, 5), kind="exact", **found):
    case = bench.counting_cases.Case(
        model="models/net",
        instance="inputs/instance_0_3.txt",
        radius=3,
        region_size=8,
        adversarial=published and published[1],
        per_class=published,
        peer_finished=finished,
        peer_seconds=peer,
    )
    measured = {
        "network": "3-2-2",
        "region_size": 8,
        "kind": kind,
        "lower": answer[1],
        "upper": answer[1] if kind == "exact" else 8,
        "per_class": list(answer) if kind == "exact" else None,
        "engine": "enumeration",
        "seconds": seconds,
        "peak_mib": 120.0,
    }
    return bench.counting.Row(case, measured | found)


def test_the_ratio_is_peer_seconds_over_ours(bench):
    assert row(bench).ratio == 100
    assert row(bench, peer=None, finished=False).ratio is None
    assert row(bench, kind="interval").ratio is None


def test_a_row_shows_its_numbers(bench):
    text = str(row(bench))
    expected = "3-2-2 instance_0_3 radius 3 8 enumeration 0.5000 50.000 100 120 published"
    assert " ".join(text.split()) == expected
    assert "SLOWER" in str(row(bench, seconds=100.0)) and "SLOWER" not in text
    assert "limit" in str(row(bench, peer=None, finished=False))
    assert str(row(bench, kind="interval")).split()[6:] == ["limit", "50.000", "-", "120", "LIMIT"]


def test_summary_means_count_only_rows_that_both_finished(bench):
    rows = [
        row(bench, seconds=0.5, peer=50.0),
        row(bench, seconds=0.01, peer=100.0),
        row(bench, seconds=0.001, peer=0.1),
        row(bench, seconds=2.0, peer=None, finished=False),
        row(bench, kind="interval", peer=20.0),
        bench.counting.Row(row(bench).case, {"skipped": "skipped: no data"}),
    ]
    text = bench.counting.summary(rows)
    assert "rows with more than 0.1 peer seconds: geometric mean of the ratio 1,000" in text[0]
    assert "(100.0 to 10,000; 2 rows, 2 more NOT ANSWERED)" in text[0]
    assert "all rows that the peer finished: geometric mean of the ratio 464" in text[1] and "3 rows" in text[1]
    assert "slower than the peer: none" in text
    assert "not finished by the peer: 1 of 1 answered, the slowest in 2.00 s" in text
    assert "exact answers: 4 of 6 cases" in text and text[-1].startswith("no answer contradicts")


def test_slower_rows_are_named(bench):
    assert "slower than the peer: net instance_0_3 radius 3" in bench.counting.summary([row(bench, seconds=51.0)])


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"answer": (2, 6)}, "6 adversarial, published 5"),
        ({"answer": (2, 6), "published": None, "per_class": [2, 5]}, "counts by class add up to 7 of 8"),
        ({"per_class": [4, 4]}, r"by class [4, 4], published [3, 5]"),
        ({"region_size": 9}, "9 inputs, published 8"),
        ({"second": {"engine": "bdd", "agrees": False}}, "engine bdd gives another count"),
        ({"kind": "interval", "answer": (0, 6)}, "6 adversarial, published 5"),
    ],
)
def test_every_contradiction_is_a_mistake(bench, changes, mistake):
    found = row(bench, **changes)
    assert mistake in found.mistakes and found.check == "WRONG"
    assert any(line.startswith("WRONG: net instance_0_3 radius 3: ") for line in bench.counting.summary([found]))


def test_the_check_says_what_was_compared(bench):
    assert row(bench).check == "published"
    assert row(bench, published=None).check == "-"
    assert row(bench, published=None, second={"engine": "bdd", "agrees": True}).check == "bdd"
    assert row(bench, published=None, second=None).check == "second engine reached its limit"


def test_cases_survive_their_line_and_are_hashable(bench):
    case = row(bench).case
    assert bench.counting_cases.Case.from_json(case.to_json()) == case
    assert len({case, bench.counting_cases.Case.from_json(case.to_json())}) == 1


@pytest.fixture
def peer(tmp_path):
    """A folder as the tool has it: one model, one instance, one measured row, one fixed-set file."""
    folder = tmp_path / "peer"
    weights = [[1, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, -1]]
    output = {"lin_weight": [[1, -1, 1], [-1, 1, 1]], "lin_bias": [0.5, -0.5]}
    write(folder / "models" / "mnist_bnn_1_blk_4_3_2", [block(weights)], output)
    (folder / "inputs").mkdir()
    (folder / "inputs" / "instance_0_4.txt").write_text("0 1 1 0\n")
    (folder / "inputs" / "fixed_set_file_random_4_2.txt").write_text("1 3")
    (folder / "inputs" / "fixed_set_file_random_9_2.txt").write_text("1 8")
    (folder / "inputs" / "fixed-set-file-3-up.txt").write_text("0 1 2")
    result = {
        "model": "mnist_bnn_1_blk_4_3_2",
        "instance": "instance_0_4",
        "radius": 2,
        "region_size": 11,
        "peer_finished": True,
        "peer_seconds": 2.5,
        "adversarial": None,
        "per_class": None,
    }
    (folder / "results.jsonl").write_text(json.dumps(result) + "\n")
    return folder


def test_cases_of_a_peer_folder_and_the_files_that_fit(bench, peer):
    options = bench.counting.parsed(["--peer", str(peer), "--goals"])
    names = [case.name for case in bench.counting.cases_of(options)]
    start = "mnist_bnn_1_blk_4_3_2 instance_0_4"
    assert names == [f"{start} radius 2", f"{start} free 3-up", f"{start} free random_4_2"]


def test_a_run_measures_checks_and_writes_lines(bench, peer, tmp_path, capsys):
    lines = tmp_path / "lines.jsonl"
    words = ["--peer", str(peer), "--rows", "radius", "--runs", "3", "--cross-check", "9", "--json", str(lines)]
    assert bench.counting.main([*words, "--engine", "enumeration"]) == 0
    out = capsys.readouterr().out
    assert "process start, reading files and JIT compilation excluded" in out and "4-3-2 " in out
    (line,) = map(json.loads, lines.read_text().splitlines())
    found = line["found"]
    assert found["kind"] == "exact" and found["region_size"] == 11 == sum(found["per_class"])
    assert len(found["runs"]) == 3 and found["peak_mib"] >= found["base_mib"] > 0
    assert found["second"]["agrees"] and found["second"]["engine"] != "enumeration"


def test_a_wrong_published_count_fails_the_run(bench, peer, capsys, monkeypatch):
    def here(case, words, limit):  # without a process of its own
        return bench.counting.Row(case, bench.counting.measure(case, bench.counting.parsed(words)))

    monkeypatch.setattr(bench.counting, "run", here)
    file = peer / "results.jsonl"
    file.write_text(json.dumps({**json.loads(file.read_text()), "per_class": [0, 11]}))
    assert bench.counting.main(["--peer", str(peer), "--engine", "enumeration", "--runs", "1"]) == 1
    assert "WRONG: mnist_bnn_1_blk_4_3_2 instance_0_4 radius 2: by class" in capsys.readouterr().out


def test_a_missing_peer_folder_is_skipped_and_said(bench, tmp_path, capsys):
    assert bench.counting.main(["--peer", str(tmp_path / "none"), "--list"]) == 0
    out = capsys.readouterr().out
    assert f"skipped the peer's rows: {tmp_path / 'none'} has no results.jsonl" in out
    assert "digits-64-32-10.npz digits 0 radius 2" in out


def test_a_case_without_its_data_is_a_row_that_says_so(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("BNNVERIFY_DATA", str(tmp_path))
    case = next(case for case in bench.counting_cases.own_cases() if "mnist" in case.instance)
    found = bench.counting.measure(case, bench.counting.parsed([]))
    assert found["skipped"].startswith("skipped: ") and bench.counting.Row(case, found).check == "skipped"
