import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, PerBlock, StuckAt
from bnnverify.training import TrainingConfig, train
from bnnverify.training.architecture import Conv
from bnnverify.training.rules import RULES, Schedule, SteSign, option_names, rule_options


def test_a_config_prints_only_what_differs_from_the_default():
    assert repr(TrainingConfig()) == "TrainingConfig(rule=SteSign())"
    config = TrainingConfig(hidden=(20, 16), rule=SteSign(init=0.5), epochs=3)
    assert repr(config) == "TrainingConfig(hidden=(20, 16), rule=SteSign(init=0.5), epochs=3)"


def test_a_rule_brings_its_recipe_and_the_caller_overrides_it():
    assert TrainingConfig.for_rule("ste") == TrainingConfig()
    assert not TrainingConfig.for_rule("ss-ema").output_scale
    config = TrainingConfig.for_rule("ss-ema", options={"rate": 0.5}, batch_norm=False, hidden=[7])
    assert config.rule.accumulator.rate.start == 0.5
    assert not config.batch_norm
    assert config.hidden == (7,)


@pytest.mark.parametrize("name", RULES)
def test_a_config_survives_json(name):
    config = TrainingConfig.for_rule(name, hidden=(5, 4), seed=9, learning_rate=0.1)
    assert TrainingConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (3, 0)}, r"a hidden block is 0, expected a number of neurons such as 32, or a convolution"),
        ({"hidden": (2.5,)}, r"a hidden block is 2.5, expected a number of neurons"),
        ({"hidden": "8c3x"}, r"a hidden block is '8c3x', expected .* Presets: mlp-256-256, tfc"),
        ({"hidden": "20,8c3"}, r"the convolution 8c3 follows a dense block, expected convolutions first"),
        ({"hidden": "8c3", "faults": PerBlock((BitFlip("0.1"),))}, "one model for each of the 2 blocks"),
        ({"faults": "0.1"}, r"faults is '0.1', expected a fault model such as BitFlip"),
        ({"fault_draw": "image"}, "fault_draw is 'image', expected one of: chip, step"),
        ({"input": "pixels", "noise": 0.02}, "noise is 0.02, expected 0 where the input is pixels"),
        ({"input": "pixels", "noise": 0, "hidden": "8c3v1"}, "padding of 8c3v1 is 1, expected 0 where it reads pixels"),
        ({"input": "grey"}, "input is 'grey', expected one of: binary, pixels"),
        ({"x_shift": float("inf")}, "x_shift is inf, expected a finite number"),
        ({"y_shift": 1.0}, "y_shift is 1.0, expected above -1 and below 1"),
        ({"margin": 0}, "margin is 0, expected above 0"),
        ({"select": "first"}, "select is 'first', expected one of: best, final"),
        ({"train_on_validation": True}, "select is 'best', expected 'final' where the validation images"),
        ({"epochs": 0}, "epochs is 0, expected a positive integer"),
        ({"batch_size": 1}, "batch_size is 1, expected at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, expected above 0"),
        ({"loss": "mse"}, "loss is 'mse', expected one of: cross-entropy, squared-hinge, margin-hinge"),
        ({"noise": 0.5}, "noise is 0.5, expected a probability of at least 0 and below 1/2"),
        ({"seed": -1}, "seed is -1, expected an integer from 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', expected a number"),
        ({"noise": None}, "noise is None, expected a number"),
        ({"margin": 10**400}, r"margin is 10+, expected a number"),
        ({"batch_norm": "false"}, "batch_norm is 'false', expected True or False"),
        ({"train_on_validation": 1}, "train_on_validation is 1, expected True or False"),
        ({"options": [1]}, r"options is \[1\], expected an object"),
        ({"options": {"momentum": "much"}}, "momentum of the rule ste is 'much', expected a number"),
        ({"options": {"glorot": "no"}}, "glorot of the rule ste is 'no', expected True or False"),
        ({"epoch": 3}, "asked for 'epoch', expected hidden, rule, epochs"),
    ],
)
def test_a_bad_config_gives_one_clear_sentence(changes, message):
    with pytest.raises(QueryError, match=message):
        TrainingConfig.for_rule("ste", **changes)


@pytest.mark.parametrize(
    "faults",
    [BitFlip("1/7"), AsymmetricFlip("0.1", "0"), StuckAt("0.1", "0.2"), PerBlock((BitFlip(0), StuckAt(0, "0.1")))],
)
def test_a_config_with_faults_and_convolutions_survives_json(faults):
    config = TrainingConfig.for_rule("ste", hidden="4c3v1p2", faults=faults, fault_draw="chip", y_shift=0.25)
    again = TrainingConfig.from_json(json.loads(json.dumps(config.as_json())))
    assert again == config
    assert again.hidden == (Conv(4, 3, padding=1, pool=2),)


NONSENSE = (math.nan, math.inf, -math.inf, -1, -1.5, "abc", "nan", "1:nan", "true", [1], {"a": 1}, 10**400)
EVERYTHING = [("ste", f.name, None) for f in fields(TrainingConfig) if f.name != "rule"]
EVERYTHING += [(rule, None, option) for rule in RULES for option in option_names(rule)]


@pytest.mark.parametrize(("rule", "change", "option"), EVERYTHING)
def test_nonsense_is_a_sentence_or_a_config_that_survives_json(rule, change, option):
    for value in NONSENSE:
        changes = {change: value} if change else {"options": {option: value}}
        try:
            config = TrainingConfig.for_rule(rule, **changes)
        except QueryError as error:
            assert "expected" in str(error)
        else:
            text = json.dumps(config.as_json(), allow_nan=False)
            assert TrainingConfig.from_json(json.loads(text)) == config


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "x"},
        {"kind": "bit-flip"},
        {"kind": "stuck-at", "p_plus": "0.1"},
        {"kind": "per-block", "models": 3},
        {"kind": "per-block", "models": [{"kind": "per-block", "models": []}]},
    ],
)
def test_what_is_no_fault_model_is_refused(values):
    with pytest.raises(QueryError, match=r"the fault model is \{'kind': .*, expected what to_json"):
        TrainingConfig.for_rule("ste", faults=values)


def test_a_rule_given_by_name_is_pointed_to_for_rule():
    with pytest.raises(QueryError, match=r"rule is the text 'ste', expected a rule. Use TrainingConfig.for_rule"):
        TrainingConfig(rule="ste")


def test_a_preset_brings_its_batch_norm_unless_told_otherwise():
    assert TrainingConfig.for_rule("ste", hidden="tfc").batch_norm
    assert not TrainingConfig.for_rule("ste", hidden="mlp-256-256").batch_norm
    assert not TrainingConfig.for_rule("ste", hidden="tfc", batch_norm=False).batch_norm


def numpy_of(value):
    """The value as numpy gives it."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    return np.float64(value) if isinstance(value, float) else value


@pytest.mark.parametrize("name", RULES)
def test_numbers_of_numpy_are_taken_and_are_plain_inside(name):
    plain = TrainingConfig.for_rule(name, epochs=3, seed=5, learning_rate=0.5, batch_norm=True, hidden=(7, 8))
    changes = {f.name: numpy_of(getattr(plain, f.name)) for f in fields(TrainingConfig) if f.name != "rule"}
    options = {option: numpy_of(value) for option, value in rule_options(plain.rule.for_steps(500)).items()}
    nested = {
        "undo_size": 9,
        "undo_tolerance": 0.5,
        "undo_tries": 3,
        "hardware_stuck_plus": 0.25,
        "hardware_cell": "ftj",
    }
    if name.startswith("ss-"):
        del options["undo"], options["hardware"]
        options |= {option: numpy_of(value) for option, value in nested.items()}
    config = TrainingConfig.for_rule(name, options=options, **{**changes, "hidden": np.array([7, 8])})
    again = TrainingConfig.from_json(json.loads(json.dumps(config.as_json())))
    assert again == config
    assert repr(again) == repr(config)
    assert "np." not in repr(config)
    assert replace(config, rule=plain.rule) == plain
    assert config.rule == again.rule.for_steps(1)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint8])
def test_a_schedule_of_numbers_of_numpy_is_one_of_plain_numbers(kind):
    for schedule in (Schedule(kind(2), kind(1), "exponential"), Schedule.of(kind(2))):
        assert type(schedule.at(0.5)) is float
        assert Schedule.of(str(schedule)) == schedule
    assert Conv(np.int64(3), kind(2) if issubclass(kind, np.integer) else 2).kernel == 2
    with pytest.raises(QueryError, match="expected a number"):
        Schedule.of(np.bool_(True))


def test_counts_of_numpy_are_taken_by_the_training(toy):
    config = TrainingConfig(hidden=(np.int64(4),), epochs=np.int32(1), batch_size=np.uint8(20))
    assert train(config, toy, threads=np.int64(1), metrics_every=np.int64(2), progress=False).history
    with pytest.raises(QueryError, match=r"threads is 1\.5, expected an integer from 1 to 1024"):
        train(config, toy, threads=1.5, progress=False)
