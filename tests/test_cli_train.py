"""The verb train: configs, hyper-parameters, checkpoints, metrics."""

import json
import os
import re
import signal

import pytest

from bnnverify.cli import main
from bnnverify.cli.train import RULES
from bnnverify.formats.native import load
from bnnverify.training import TrainingConfig, loop
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
