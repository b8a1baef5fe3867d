import json

import pytest

from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig
from bnnverify.training.rules import StochasticSwitching


def test_a_config_prints_only_what_differs_from_the_default():
    assert repr(TrainingConfig()) == "TrainingConfig(rule=SteSign())"
    config = TrainingConfig(hidden=(20, 16), rule=StochasticSwitching(gamma=0.5), epochs=3)
    assert repr(config) == "TrainingConfig(hidden=(20, 16), rule=StochasticSwitching(gamma=0.5), epochs=3)"


def test_a_rule_brings_its_recipe_and_the_caller_overrides_it():
    assert TrainingConfig.for_rule("ste") == TrainingConfig()
    assert TrainingConfig.for_rule("ss-ema").batch_norm
    config = TrainingConfig.for_rule("ss-ema", options={"rate": 0.5}, batch_norm=False, hidden=[7])
    assert config.rule == StochasticSwitching(rate=0.5)
    assert not config.batch_norm
    assert config.hidden == (7,)


@pytest.mark.parametrize("name", ["ste", "ss-ema"])
def test_a_config_survives_json(name):
    config = TrainingConfig.for_rule(name, hidden=(5, 4), seed=9, learning_rate=0.1)
    assert TrainingConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (3, 0)}, r"hidden is \[3, 0\], expected positive integers"),
        ({"hidden": (2.5,)}, r"hidden is \[2.5\], expected positive integers"),
        ({"epochs": 0}, "epochs is 0, expected a positive integer"),
        ({"batch_size": 1}, "batch_size is 1, expected at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, expected above 0"),
        ({"loss": "mse"}, "loss is 'mse', expected one of: cross-entropy, squared-hinge"),
        ({"noise": 0.5}, "noise is 0.5, expected a probability of at least 0 and below 1/2"),
        ({"seed": -1}, "seed is -1, expected an integer from 0"),
        ({"epoch": 3}, "asked for 'epoch', expected hidden, rule, epochs"),
    ],
)
def test_a_bad_config_gives_one_clear_sentence(changes, message):
    with pytest.raises(QueryError, match=message):
        TrainingConfig.for_rule("ste", **changes)


def test_a_rule_given_by_name_is_pointed_to_for_rule():
    with pytest.raises(QueryError, match=r"rule is the text 'ste', expected a rule. Use TrainingConfig.for_rule"):
        TrainingConfig(rule="ste")
