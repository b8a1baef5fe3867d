"""The verb train: configs, hyper-parameters, checkpoints, metrics."""

import json
import os
import re
import signal
import tempfile
from itertools import combinations
from pathlib import Path

import pytest

from bnnverify.cli import main
from bnnverify.cli.train import RULES, command
from bnnverify.errors import FormatError
from bnnverify.formats import native
from bnnverify.formats.native import load
from bnnverify.training import TrainingConfig, checkpoint, loop
from bnnverify.training import rules as training_rules

QUICK = ("--epochs", "2", "--hidden", "6", "-q", "--batch-size", "100")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def shown(run, *words):
    code, out, _ = run("train", "--show-config", *words)
    assert code == 0
    return json.loads(out)


def test_the_rules_of_the_command_line_are_those_of_the_registry():
    assert tuple(training_rules.RULES) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_shows_its_config_and_takes_it_back(run, tmp_path, rule):
    config = shown(run, "--rule", rule)
    assert TrainingConfig.from_json(config) == TrainingConfig.for_rule(rule)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shown(run, "--config", "config.json") == config


def test_options_of_the_command_line_reach_the_config(run):
    config = shown(
        run,
        *("--rule", "ss-ema", "--set", "rate=1e-3:1e-5", "--set", "undo_tolerance=0.1", "--hidden", "4c3p2,16"),
        *("--x-shift", "0.5", "--p10", "1e-2", "--fault-draw", "chip", "--select", "final", "--no-batch-norm"),
    )
    assert config["options"]["rate"] == "0.001:1e-05:exponential"
    assert config["options"]["undo"]["tolerance"] == 0.1
    assert config["hidden"] == ["4c3p2", 16]
    assert config["x_shift"] == 0.5
    assert config["faults"] == {"kind": "asymmetric-flip", "p01": "0", "p10": "1/100"}
    assert (config["fault_draw"], config["select"], config["batch_norm"]) == ("chip", "final", False)


def test_a_card_is_a_config_and_the_command_line_overrides_it(run, tmp_path):
    card = {"name": "x", "config": TrainingConfig.for_rule("bop", hidden=(9,), seed=4).as_json()}
    (tmp_path / "card.json").write_text(json.dumps(card))
    config = shown(run, "--config", "card.json", "--epochs", "7", "--set", "gamma=0.5")
    assert (config["rule"], config["seed"], config["epochs"], config["hidden"]) == ("bop", 4, 7, [9])
    assert config["options"]["gamma"] == "0.5"
    other = shown(run, "--config", "card.json", "--rule", "pbop")
    assert other["rule"] == "pbop"
    assert "gamma" not in other["options"]


def test_a_config_file_that_is_no_object_is_refused(run, tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    code, _, err = run("train", "--config", "list.json", "--show-config")
    assert code == 2
    assert "list.json: holds a list, expected a config or a card" in err


def test_a_config_file_of_wrong_types_is_refused(run, tmp_path):
    for values, message in (
        ({"options": [1]}, "bad.json: options is [1], expected an object"),
        ({"rule": ["ste"]}, "there is no update rule ['ste']"),
        ({"batch_norm": "false"}, "batch_norm is 'false', expected True or False"),
        ({"learning_rate": "0.1"}, "learning_rate is '0.1', expected a number"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(values))
        code, _, err = run("train", "--config", "bad.json", "--show-config")
        assert code == 2
        assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metrics-every", "5", "-o", "a.npz"), "--metrics-every is given without --metrics or --tensorboard"),
        (("--margin", "5"), "--margin is given, but has no effect here, expected it with --loss margin-hinge"),
        (("--fault-draw", "chip"), "--fault-draw is given, but has no effect here, expected it with --ber"),
        (("--batch-norm", "--no-bias"), "--bias is given, but has no effect here, expected it with hidden blocks"),
        (("--ber", "2"), "--ber is 2, expected a probability within [0, 1]"),
        (("--p10", "nan"), "--p10 is 'nan', expected a probability such as 0.001"),
        (("--rule", "ss-ema", "--set", "undo=yes"), "undo is 'yes', expected true, false, or its options"),
        (
            ("--rule", "ss-ema", "--set", "undo=false", "--set", "undo_down=0.5"),
            "undo is false, but undo_down is given, expected one of the two",
        ),
        (
            ("--rule", "ss-ema", "--set", "rate=nan"),
            "rate of the rule ss-ema is 'nan': a schedule runs from",
        ),
        (("--set", "momentum=much"), "momentum of the rule ste is 'much', expected a number"),
    ],
)
def test_an_option_without_effect_or_of_a_wrong_type_is_refused(run, words, message):
    code, _, err = run("train", *words, *(() if "-o" in words else ("--show-config",)))
    assert code == 2
    assert message in err


def test_words_of_python_are_values_too(run):
    for word, undone in (("True", True), ("true", True), ("False", False), ("None", False)):
        options = shown(run, "--rule", "ss-ema", "--set", f"reset={word == 'True'}", "--set", f"undo={word}")["options"]
        assert (options["undo"] is not None) is undone
        assert options["reset"] is (word == "True")


def test_pixels_bring_no_noise_unless_it_is_asked_for(run, tmp_path):
    assert shown(run, "--input", "pixels")["noise"] == 0
    (tmp_path / "binary.json").write_text(json.dumps({"rule": "ste", "noise": 0.02}))
    for words in (("--noise", "0.02"), ("--config", "binary.json")):
        code, _, err = run("train", "--show-config", "--input", "pixels", *words)
        assert code == 2
        assert "noise is 0.02, expected 0 where the input is pixels" in err


def test_ctrl_c_before_the_first_epoch_says_how_to_go_on(run, tmp_path, monkeypatch):
    real = signal.getsignal(signal.SIGINT)
    advance = loop._Run.advance

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    monkeypatch.setattr(loop._Run, "advance", interrupted)
    code, out, err = run("train", *QUICK, "-o", "a.npz", "--checkpoint", "run.pt")
    assert (code, out) == (130, "")
    assert "interrupted; no network was saved. Go on with --checkpoint run.pt --resume." in err
    assert not (tmp_path / "a.npz").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run("train", *QUICK, "-o", "a.npz", "--checkpoint", "run.pt", "--resume")[0] == 0
    assert run("train", *QUICK, "-o", "b.npz")[0] == 0
    assert load("a.npz") == load("b.npz")
    assert signal.getsignal(signal.SIGINT) is real


def test_a_run_can_be_resumed_from_the_command_line_and_its_metrics_go_on(run, tmp_path):
    words = ("train", *QUICK, "--metrics", "m.jsonl", "--metrics-every", "6", "--checkpoint", "run.pt")
    assert run(*words, "-o", "a.npz")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line.get("step", line.get("epoch")) for line in lines] == [6, 12, 1, 18, 24, 2]
    assert run(*words, "-o", "b.npz", "--resume")[0] == 0
    assert load("a.npz") == load("b.npz")
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 6


def test_what_writing_the_cells_took_is_told(run):
    words = (*QUICK, "--rule", "ss-ema", "--set", "hardware=ftj", "--set", "undo_tolerance=0", "-o", "a.npz")
    code, out, _ = run("train", *words)
    assert code == 0
    assert re.search(r"^writes    [\d,]+ pulses, [\d,]+ switches, at most \d+ of one cell, \S+ J", out, re.MULTILINE)
    line = json.loads(run("train", *words, "--json")[1])
    assert line["answer"]["statistics"]["pulses"] > line["answer"]["statistics"]["switches"] > 0
    assert "writes" not in run("train", *QUICK, "-o", "a.npz")[1]


def test_a_checkpoint_is_not_overwritten_by_accident(run, tmp_path):
    (tmp_path / "run.pt").write_text("precious")
    code, _, err = run("train", *QUICK, "--checkpoint", "run.pt", "-o", "a.npz")
    assert code == 2
    assert "--checkpoint run.pt exists, expected --resume to go on from it" in err
    assert (tmp_path / "run.pt").read_text() == "precious"


def test_training_with_tensorboard_says_how_to_get_it_where_it_is_missing(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    code, _, err = run("train", *QUICK, "-o", "a.npz", "--tensorboard", "events")
    assert code == 2
    assert "TensorBoard is not installed. Run: pip install tensorboard" in err


def test_a_convolution_of_pixels_is_trained_saved_and_described(run):
    code, out, _ = run(
        "train", *QUICK[:2], *QUICK[4:], "--hidden", "3c3p2,8", "--input", "pixels", "--noise", "0", "-o", "c.npz"
    )
    assert code == 0
    assert "c.npz  1x8x8-3c3-mp2-8-10" in out
    assert not load("c.npz").domain.is_binary


def test_defaults_suit_the_size_of_the_data(run):
    small, large = shown(run), shown(run, "--data", "mnist")
    assert (small["epochs"], small["batch_size"], small["noise"]) == (200, 64, 0.02)
    assert (large["epochs"], large["batch_size"], large["noise"]) == (15, 100, 0.0)
    assert shown(run, "--data", "mnist", "--epochs", "3")["epochs"] == 3


# what a rule chose


def test_settings_that_follow_the_steps_are_told_and_kept(run):
    code, out, _ = run("train", *QUICK, "--rule", "ss-ema", "--set", "gamma=0.5", "-o", "a.npz")
    assert code == 0
    assert re.search(r"^settings  rate=\S+:\S+:exponential, which follow the number of steps$", out, re.MULTILINE)
    line = json.loads(run("train", *QUICK, "--rule", "ss-ema", "--set", "gamma=0.5", "-o", "b.npz", "--json")[1])
    options = line["answer"]["options"]
    assert options["gamma"] == 0.5
    assert options == load("a.npz").provenance.data["config"]["options"]
    assert f"rate={options['rate']}," in out
    given = ("--set", "gamma=0.5", "--set", f"rate={options['rate']}")
    code, out, _ = run("train", *QUICK, "--rule", "ss-ema", *given, "-o", "c.npz")
    assert "settings" not in out
    assert load("a.npz") == load("c.npz")


def test_an_open_setting_is_null_in_a_config_and_none_on_the_command_line(run):
    assert shown(run, "--rule", "ss-ema")["options"]["rate"] is None
    assert shown(run, "--rule", "ss-ema", "--set", "rate=0.5")["options"]["rate"] == "0.5"
    assert shown(run, "--rule", "ss-ema", "--set", "rate=None")["options"]["rate"] is None


def test_a_warning_of_a_rule_is_a_sentence(run):
    code, _, err = run("train", *QUICK, "--rule", "bop2nd", "--set", "tau=1e-6", "-o", "a.npz")
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith("bnnverify train: tau of the rule bop2nd is 1e-06 at the start, not above gamma/sqrt(sigma)")


# options without effect


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data-dir", "x"), "--data-dir is given, but the digits are in no files"),
        (("--hidden", "", "--batch-norm"), "--batch-norm is given, but has no effect here, expected it with hidden"),
        (("--hidden", "", "--x-shift", "0.5"), "--x-shift is given, but has no effect here"),
        (
            ("--rule", "ss-ema", "--no-bias", "--no-output-bias", "--learning-rate", "0.1"),
            "--learning-rate is given, but has no effect here, expected it with biases, batch norm or an output scale",
        ),
        (
            ("--set", "momentum=0.5"),
            "--set momentum is given, but has no effect here, expected it with --set optimizer",
        ),
        (("--set", "init=0.5", "--set", "init=0.6"), "--set init is given twice"),
        (
            ("--rule", "ss-ema", "--set", "undo_data=batch", "--set", "undo_size=9"),
            "--set undo_size is given, but has no effect here, expected it with --set undo_data=holdout",
        ),
        (("--rule", "ss-ema", "--set", "undo=true", "--set", "undo_tries=9"), "expected it with --set undo_writes=st"),
        (("--rule", "soft-bound", "--set", "noise=additive"), "expected it with --set c2c_sigma above 0"),
        (("--rule", "bop", "--set", "rate=0.1"), "the rule bop has no option 'rate', expected one of: tau, gamma"),
        (("--device", "cuda:99"), "device is 'cuda:99', which torch does not see here"),
        (("--threads", "1" + "0" * 30), "threads is 1000000000000000000000000000000, expected an integer from 1 to"),
        (("--epochs", "0"), "epochs is 0, expected a positive integer"),
        (("--config", "a.npz"), "--output is a.npz, which the command reads"),
        (("--metrics", "x/m.jsonl"), "--metrics x/m.jsonl cannot be written"),
        (("--checkpoint", "x/run.pt"), "--checkpoint x/run.pt cannot be written"),
        (("--metrics", "./a.npz"), "--metrics and --output are both a.npz, expected two files"),
    ],
)
def test_what_has_no_effect_or_cannot_be_done_is_refused_before_any_work(run, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr(loop._Run, "advance", None)
    code, out, err = run("train", "-q", "-o", "a.npz", *words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


# what cannot be written


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_full_metrics_do_not_end_a_training(run):
    code, out, err = run("train", *QUICK, "--metrics", "/dev/full", "-o", "a.npz")
    assert (code, len(err.splitlines())) == (2, 2)
    assert "the metrics are not complete: /dev/full: cannot be written (no space left on device)" in err
    assert "The training is complete, the network is in a.npz." in err
    assert "accuracy" in out
    assert run("train", *QUICK, "-o", "b.npz")[0] == 0
    assert load("a.npz") == load("b.npz")


def full(monkeypatch, *suffixes):
    """From now on files with these endings find no room."""
    real = native.write_whole

    def write(path, data):
        if str(path).endswith(suffixes):
            raise FormatError(f"{path}: cannot be written (no space left on device). Choose another path.")
        real(path, data)

    monkeypatch.setattr(native, "write_whole", write)
    monkeypatch.setattr(checkpoint, "write_whole", write)


def test_a_network_that_finds_no_room_is_saved_elsewhere(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    full(monkeypatch, "a.npz")
    code, out, err = run("train", *QUICK, "-o", "a.npz", "--checkpoint", "run.pt")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    (file,) = (tmp_path / "other").iterdir()
    assert f"a.npz: cannot be written (no space left on device). Choose another path. The network is in {file}" in err
    assert "The training is in run.pt: --resume it with another --output." in err
    assert run("train", *QUICK, "-o", "b.npz", "--checkpoint", "run.pt", "--resume")[0] == 0
    assert load(file) == load(tmp_path / "b.npz")


def test_where_nothing_can_be_written_it_is_said(run, monkeypatch):
    full(monkeypatch, ".npz", ".pt")
    code, out, err = run("train", *QUICK, "-o", "a.npz", "--checkpoint", "run.pt")
    assert (code, out, len(err.splitlines())) == (2, "", 2)
    assert "the checkpoint is not up to date: run.pt: cannot be written" in err
    assert err.endswith("It could not be saved anywhere.\n")


def test_a_full_checkpoint_does_not_end_a_training(run, monkeypatch):
    full(monkeypatch, ".pt")
    code, out, err = run("train", *QUICK, "-o", "a.npz", "--checkpoint", "run.pt")
    assert code == 2
    assert "accuracy" in out
    assert err.splitlines()[-1].endswith("The training is complete, the network is in a.npz.")
    assert load("a.npz").n_cells


def test_ctrl_c_after_an_epoch_keeps_the_best_network_and_a_checkpoint_to_go_on(run, monkeypatch):
    advance = loop._Run.advance

    def interrupted(self):
        if self.steps == self.steps_per_epoch + 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    monkeypatch.setattr(loop._Run, "advance", interrupted)
    code, out, err = run("train", *QUICK, "-o", "a.npz", "--checkpoint", "run.pt")
    assert code == 130
    assert "best epoch 1 of 1 by validation accuracy" in out
    assert "interrupted; the best network so far is in a.npz. Go on with --checkpoint run.pt --resume." in err
    assert load("a.npz").provenance.data["interrupted"]
    monkeypatch.setattr(loop._Run, "advance", advance)
    assert run("train", *QUICK, "-o", "b.npz", "--checkpoint", "run.pt", "--resume")[0] == 0
    assert run("train", *QUICK, "-o", "c.npz")[0] == 0
    assert load("b.npz") == load("c.npz")


BASES = ("", "--rule ss-ema", "--hidden=", "--input pixels", "--loss margin-hinge", "--batch-norm")
OPTIONS = {
    "hidden": ("7",),
    "batch_norm": ("--batch-norm", "--no-batch-norm"),
    "bias": ("--bias", "--no-bias"),
    "output_bias": ("--output-bias", "--no-output-bias"),
    "input": ("binary", "pixels"),
    "x_shift": ("0.5",),
    "y_shift": ("0.5",),
    "ber": ("0.125",),
    "p01": ("0.125",),
    "p10": ("0.125",),
    "fault_draw": ("step", "chip"),
    "epochs": ("7",),
    "batch_size": ("7",),
    "learning_rate": ("0.125",),
    "loss": ("squared-hinge", "margin-hinge"),
    "margin": ("7",),
    "noise": ("0.125",),
    "adversarial": ("7",),
    "select": ("best", "final"),
    "train_on_validation": ("--train-on-validation",),
    "seed": ("7",),
}


def words_of(option, value):
    return (value,) if value.startswith("--") else (f"--{option.replace('_', '-')}", value)


def test_the_table_of_options_is_whole():
    elsewhere = {"data", "data_dir", "rule", "settings", "config", "show_config", "device", "threads", "output", "help"}
    elsewhere |= {"metrics", "metrics_every", "tensorboard", "checkpoint", "resume", "as_json", "quiet", "debug"}
    assert {option.name for option in command.params} - elsewhere == set(OPTIONS)


@pytest.mark.parametrize("base", BASES)
def test_every_option_and_every_pair_reaches_the_config_or_is_refused(run, base):
    base = base.split()
    singles = [words_of(option, value) for option, values in OPTIONS.items() for value in values]
    taken = {}
    for words in singles:
        code, out, err = run("train", "--show-config", *base, *words)
        assert code in (0, 2), err
        assert code == 0 or len(err.splitlines()) == 1
        if code == 0:
            taken[words] = json.loads(out)
    plain = shown(run, *base)
    for (one, first), (two, second) in combinations(taken.items(), 2):
        if one[0].replace("no-", "") == two[0].replace("no-", ""):
            continue  # the same option twice: the last counts
        code, out, err = run("train", "--show-config", *base, *one, *two)
        assert code in (0, 2), err
        both = json.loads(out) if code == 0 else None
        for alone in (first, second) if both else ():
            changed = {key for key in plain if alone[key] != plain[key]} - {"faults", "batch_norm", "noise"}
            assert all(both[key] == alone[key] for key in changed), (one, two)
