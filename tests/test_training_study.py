"""The training study from its settings to its page, on the digits with tiny networks."""

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnnverify.datasets import load
from bnnverify.errors import FormatError
from bnnverify.formats import native
from bnnverify.training import TrainingConfig

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "case_studies" / "training"
RESULTS = FOLDER / "results.jsonl"
MODULES = ("settings", "records", "runs", "table", "figures", "claims")


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in MODULES:
            del sys.modules[name]


@pytest.fixture
def tiny(study, monkeypatch):
    """The study with networks of eight hidden neurons."""
    for name, row in study.settings.ROWS.items():
        changes = {**row.changes, "hidden": (8,), "input": "binary"}
        monkeypatch.setitem(study.settings.ROWS, name, replace(row, changes=changes))
    return study


def options(folder, epochs=2):
    return ["--data", "digits", "--epochs", str(epochs), "--results", str(folder / "results.jsonl")]


def perform(study, folder, *words, epochs=2):
    return study.runs.main([*options(folder, epochs), "--out", str(folder / "out"), "--jobs", "0", *words])


def lines(folder):
    return [json.loads(text) for text in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["records", "table"])
def test_the_examples_of_the_scripts_run(study, name):
    tried = doctest.testmod(getattr(study, name))
    assert tried.failed == 0 < tried.attempted


# settings


def test_every_row_has_a_config_that_looks_at_the_last_epoch(study):
    for row in study.settings.ROWS.values():
        config = row.config(3)
        assert (config.select, config.seed) == ("final", 3)
        assert row.config(0, epochs=7).epochs == 7


def test_the_settings_are_those_of_the_recorded_runs_whatever_the_defaults_of_the_rules(study):
    records = study.records
    recorded = {(r["name"], r["seed"]): TrainingConfig.from_json(r["config"]) for r in records.read(RESULTS).values()}
    settings = {(name, seed): row.config(seed) for name, row in study.settings.ROWS.items() for seed in row.seeds}
    assert settings == recorded
    assert all(config.for_steps(7) == config for config in settings.values())


def test_rows_of_the_claims_keep_the_validation_images_aside(study):
    rows = study.settings.ROWS
    drawn = {name for claim in study.claims.CLAIMS for name in claim.rows}
    assert drawn <= set(rows)
    assert not any(rows[name].config(0).train_on_validation for name in drawn)
    assert {name for name, row in rows.items() if row.section == "claims"} <= drawn


def test_every_target_names_its_source(study):
    assert all(row.source for row in study.settings.ROWS.values() if row.target is not None or row.expected)


# runs


def test_a_trial_leaves_records_and_networks_that_agree(tiny, tmp_path):
    rows = ["ste", "ss-ema-ftj", "undo"]
    assert perform(tiny, tmp_path, "--only", *rows, "--seeds", "1") == 0
    digits, found = load("digits"), lines(tmp_path)
    assert [line["name"] for line in found] == rows
    for line in found:
        network = native.load(tmp_path / "out" / line["network"])
        assert network.identity == line["sha256"]
        right = np.mean(network.evaluate_batch(digits.test.images) == digits.test.labels)
        assert line["accuracy"]["test"] == pytest.approx(right, abs=1e-12)
        assert len(line["history"]["validation_accuracy"]) == line["epochs"] == 2
        stored = [np.where(b.negated[:, None], -b.weights, b.weights) for b in network.blocks]
        signs = np.concatenate([w.ravel() for w in (*stored, network.output.weights)])
        assert line["plus_all"] == pytest.approx(np.mean(signs > 0), rel=1e-4)
        assert line["cells"] == signs.size
    assert "pulses" not in found[0]["totals"] and found[1]["totals"]["energy_joule"] > 0
    assert "undone_fraction" in found[2]["totals"]
    assert not list((tmp_path / "out").glob("*.checkpoint"))


def test_a_finished_run_is_not_run_again_unless_forced(tiny, tmp_path, capsys):
    words = ("--only", "ste", "--seeds", "2")
    perform(tiny, tmp_path, *words)
    before = lines(tmp_path)
    assert perform(tiny, tmp_path, *words) == 0
    assert lines(tmp_path) == before
    assert "0 runs to do, 2 finished" in capsys.readouterr().err
    perform(tiny, tmp_path, *words, "--force")
    again = lines(tmp_path)
    assert [line["id"] for line in again] == [line["id"] for line in before] * 2
    assert [line["sha256"] for line in again] == [line["sha256"] for line in before] * 2


def test_what_determines_a_run_changes_its_id(tiny):
    row, digits = tiny.settings.ROWS["ste"], load("digits")
    ids = {
        tiny.records.identity(row.config(0), digits.provenance),
        tiny.records.identity(row.config(1), digits.provenance),
        tiny.records.identity(row.config(0, epochs=9), digits.provenance),
        tiny.records.identity(row.config(0), {**digits.provenance, "split_sha256": "0"}),
        tiny.records.identity(row.config(0), digits.provenance, "9.9.9"),
    }
    assert len(ids) == 5


def test_an_interrupted_run_goes_on_to_the_same_network(tiny, tmp_path, monkeypatch):
    words, original = ("--only", "ss-ema", "--seeds", "1"), tiny.runs.train

    def interrupted_after_two_epochs(*arguments, metrics, **more):
        def sink(line):
            metrics(line)
            if line["epoch"] == 2:
                raise KeyboardInterrupt

        return original(*arguments, metrics=sink, **more)

    monkeypatch.setattr(tiny.runs, "train", interrupted_after_two_epochs)
    assert perform(tiny, tmp_path / "broken", *words, epochs=5) == 130
    assert not (tmp_path / "broken" / "results.jsonl").exists()
    assert len(list((tmp_path / "broken" / "out").glob("*.checkpoint"))) == 1
    monkeypatch.setattr(tiny.runs, "train", original)
    epochs = []
    monkeypatch.setattr(
        tiny.runs,
        "train",
        lambda *a, metrics, **more: original(*a, metrics=lambda m: epochs.append(m["epoch"]), **more),
    )
    assert perform(tiny, tmp_path / "broken", *words, epochs=5) == 0
    assert epochs == [3, 4, 5]
    perform(tiny, tmp_path / "whole", *words, epochs=5)
    (one,), (other,) = lines(tmp_path / "broken"), lines(tmp_path / "whole")
    assert (one["sha256"], one["history"]) == (other["sha256"], other["history"])


def test_a_network_that_died_is_recorded_with_the_reason_and_not_run_again(tiny, tmp_path, monkeypatch, capsys):
    row = tiny.settings.ROWS["ss-none"]
    changes = {**row.changes, "hidden": (64, 64), "batch_size": 4}
    dead = replace(row, options={"rate": 1.0}, changes=changes)
    monkeypatch.setitem(tiny.settings.ROWS, "ss-none", dead)
    original = tiny.runs.train

    def refused(*arguments, **more):
        raise tiny.runs.QueryError("the network is dead: no gradients.")

    monkeypatch.setattr(tiny.runs, "train", refused)
    assert perform(tiny, tmp_path, "--only", "ss-none", "--seeds", "1") == 0
    monkeypatch.setattr(tiny.runs, "train", original)
    assert perform(tiny, tmp_path, "--only", "ss-none", "--seeds", "1") == 0
    (line,) = lines(tmp_path)
    assert line["failed"] == "the network is dead: no gradients." and "history" not in line
    assert tiny.table.main([*options(tmp_path), "--print"]) == 0
    assert "none: 1 of 1 runs ended early" in capsys.readouterr().out


def test_a_trial_needs_a_results_file_of_its_own(study, capsys):
    for command in (study.runs, study.table, study.claims):
        assert command.main(["--epochs", "1"]) == 2
        assert "without --results, expected a file for the trial's results" in capsys.readouterr().err


def test_the_list_shows_every_row_and_trains_nothing(study, capsys):
    assert study.runs.main(["--list", "--section", "numbers"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [text.split()[0] for text in printed] == [
        name for name, row in study.settings.ROWS.items() if row.section == "numbers"
    ]


def test_a_broken_line_of_the_results_is_named(study, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"id": 1}\n', encoding="utf-8")
    with pytest.raises(FormatError, match=r"results\.jsonl:1: no record of a run .* Delete the line"):
        study.records.read(path)


@pytest.mark.slow
def test_processes_give_what_one_process_gives_and_ctrl_c_keeps_it(tmp_path):
    words = ["--data", "digits", "--only", "tfc", "ss-ema", "--seeds", "1", "--jobs", "2"]

    def command(folder, epochs):
        places = ["--results", str(folder / "results.jsonl"), "--out", str(folder / "out"), "--epochs", str(epochs)]
        script = str(FOLDER / "runs.py")
        return subprocess.Popen([sys.executable, script, *words, *places], cwd=ROOT, start_new_session=True)

    for folder in ("broken", "whole"):
        (tmp_path / folder).mkdir()
    first = command(tmp_path / "broken", 40)
    deadline = time.monotonic() + 240
    while first.poll() is None and time.monotonic() < deadline and not list((tmp_path / "broken").glob("out/*.npz")):
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGINT)  # as the terminal does
    assert first.wait(120) in (0, 130)
    for folder in ("broken", "whole"):
        assert command(tmp_path / folder, 40).wait(240) == 0
    one, other = ({line["id"]: line["sha256"] for line in lines(tmp_path / f)} for f in ("broken", "whole"))
    assert one == other and len(one) == 2


# table and claims, from made-up results


@pytest.fixture
def made_up(tiny, tmp_path):
    """Writes a results file with the given test accuracies, by row and seed."""
    assert perform(tiny, tmp_path, "--only", "undo", "--seeds", "1") == 0
    (real,) = lines(tmp_path)
    (tmp_path / "results.jsonl").unlink()

    def write(accuracies):
        for name, by_seed in accuracies.items():
            for seed, test in enumerate(by_seed):
                config = tiny.settings.ROWS[name].config(seed, epochs=2)
                curve = {**real["history"], "validation_accuracy": [test + 0.02, test]}
                made = {"name": name, "seed": seed, "config": config.as_json(), "history": curve}
                accuracy = {**real["accuracy"], "test": test}
                tiny.records.append(tmp_path / "results.jsonl", {**real, **made, "accuracy": accuracy})

    return write


def everything(study, accuracy=0.9):
    return {name: [accuracy, accuracy + 0.002] for name in study.settings.ROWS}


def test_the_table_compares_the_mean_with_the_target(tiny, made_up, tmp_path, capsys):
    made_up({"ste": [0.950, 0.957], "ss-ema": [0.90, 0.95, 0.91], "ss-none": [0.83]})
    assert tiny.table.main([*options(tmp_path), "--print"]) == 0
    numbers = capsys.readouterr().out.split("\n\n")[0].splitlines()[2:]
    rows = {text.split("`")[1]: [cell.strip() for cell in text.split("|")[6:-1]] for text in numbers}
    assert rows["ste"][:3] == ["**95.35 %**", "95.00–95.70 % (2)", "yes"]
    assert rows["ss-ema"][:3] == ["**92.00 %**", "90.00–95.00 % (3)", "no, -2.00"]
    assert rows["ss-none"][2] == ""
    assert rows["ss-count"] == ["not run", "", "", ""]


def test_results_of_other_settings_are_no_results(tiny, made_up, tmp_path):
    made_up({"ste": [0.95]})
    found = tiny.records.read(tmp_path / "results.jsonl")
    assert set(tiny.records.results(found, data="digits", epochs=2)) == {"ste"}
    assert tiny.records.results(found, data="digits", epochs=3) == {}
    assert tiny.records.results(found, epochs=2) == {}


def test_claims_are_confirmed_only_where_the_ranges_do_not_overlap(tiny, made_up, tmp_path, capsys):
    accuracies = everything(tiny)
    accuracies |= {"ste-55k": [0.80, 0.85], "ste-bn-55k": [0.86, 0.90]}
    accuracies |= {"ss-ema-55k": [0.80, 0.88], "ss-ema-bn-55k": [0.86, 0.90]}
    accuracies |= {"collapse": [0.70, 0.72], "undo": [0.60, 0.65]}
    made_up(accuracies)
    assert tiny.claims.main([*options(tmp_path), "--print"]) == 0
    text = capsys.readouterr().out
    assert "Confirmed for latent weights (STE): 82.5 % (80.0–85.0 % in 2 runs) without batch norm, 88.0 %" in text
    assert "On average only for switching by an exponential average: 84.0 %" in text
    assert "Not confirmed: at the switching rate 0.005 the network ends at 71.0 % (70.0–72.0 % in 2 runs)" in text
    assert "2.0 points below its best epoch" in text


def test_single_runs_confirm_nothing_for_good(tiny, made_up, tmp_path):
    made_up({"ss-none-55k": [0.8], "ss-ema-55k": [0.9, 0.91]})
    found = tiny.records.results(tiny.records.read(tmp_path / "results.jsonl"), data="digits", epochs=2)
    assert tiny.claims.compared(found["ss-ema-55k"], found["ss-none-55k"]) == "confirmed by single runs"
    assert tiny.claims.compared(found["ss-none-55k"], found["ss-ema-55k"]) == "not confirmed"


def test_the_page_gets_tables_sentences_and_figures(tiny, made_up, tmp_path):
    made_up(everything(tiny))
    page, figures = tmp_path / "README.md", tmp_path / "figures"
    page.write_text((FOLDER / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    assert tiny.table.main([*options(tmp_path), "--readme", str(page)]) == 0
    assert tiny.claims.main([*options(tmp_path), "--readme", str(page), "--figures", str(figures)]) == 0
    stems = [claim.name for claim in tiny.claims.CLAIMS]
    drawn = {path.name for path in figures.iterdir() if path.stat().st_size > 5000}
    assert drawn == {f"{stem}{end}" for stem in stems for end in (".svg", ".png")}
    text = page.read_text(encoding="utf-8")
    assert all(f"(figures/{stem}.svg)" in text for stem in stems)
    assert "Not yet answered" not in text and "not run" not in text


def test_a_figure_is_the_same_for_the_same_results(tiny, made_up, tmp_path):
    made_up({"ste-55k": [0.9, 0.91]})
    found = tiny.records.results(tiny.records.read(tmp_path / "results.jsonl"), data="digits", epochs=2)
    drawn = []
    for _ in range(2):
        tiny.figures.write(tiny.figures.learning_curves({"": {"STE": found["ste-55k"]}}), tmp_path / "curve")
        drawn.append([(tmp_path / f"curve{end}").read_bytes() for end in (".svg", ".png")])
    assert drawn[0] == drawn[1]


def test_a_claim_without_runs_says_what_to_run(tiny, made_up, tmp_path, capsys):
    made_up({"collapse": [0.7, 0.71], "ss-ema-55k": [0.9]})
    tiny.claims.main([*options(tmp_path), "--print"])
    text = capsys.readouterr().out
    assert "Not yet answered: `python case_studies/training/runs.py --only undo`" in text


def test_the_page_in_the_repository_is_what_the_scripts_write(study, tmp_path):
    page = tmp_path / "README.md"
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    assert study.table.main(["--readme", str(page)]) == 0
    assert study.claims.main(["--readme", str(page), "--figures", str(tmp_path / "figures")]) == 0
    assert page.read_text(encoding="utf-8") == text
    pictures = {path.name for path in (FOLDER / "figures").glob("*.svg")}
    assert {path.name for path in (tmp_path / "figures").glob("*.svg")} == pictures
