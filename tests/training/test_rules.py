"""One text for every update rule; what a rule computes is tested in a file of its own."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify import datasets
from bnnverify.errors import QueryError
from bnnverify.training import TrainingConfig, export, train
from bnnverify.training.checkpoint import frozen, thawed
from bnnverify.training.randomness import Randomness
from bnnverify.training.rules import RULES, PBop, SteSign, rule_named, rule_options
from tests.training.trajectories import random_signs

SHAPES = ((6, 9), (4, 2, 3, 3), (3, 6))
VARIANTS = [
    *(rule() for rule in RULES.values()),
    SteSign(optimizer="sgd", glorot=True),
    SteSign(binarization="stochastic", average=0.0),
    PBop(init=0.05, scaler="0.1:0.001"),
    replace(rule_named("bop"), tau="0.1:0.01", gamma=0.3),
    rule_named("bop2nd", unbiased=True, tau="1.5:0.1", gamma=0.1),
]
IDS = [f"{i} {rule.name}" for i, rule in enumerate(VARIANTS)]
each_rule = pytest.mark.parametrize("rule", VARIANTS, ids=IDS)


class FlatProbe:
    """A loss that no move changes."""

    def on_batch(self):
        return lambda: 1.0

    def on_holdout(self, size):
        return lambda: 1.0


def start(rule, seed=0):
    random = Randomness(seed)
    return rule.for_steps(300).start([random_signs(shape, i) for i, shape in enumerate(SHAPES)], random=random), random


def walk(state, steps, seed=0, first=0, scale=1.0):
    """Steps with gradients that depend on the step alone."""
    for step in range(first, first + steps):
        random = np.random.RandomState(1000 * seed + step)
        drift = [np.sin(np.arange(np.prod(shape))).reshape(shape) for shape in SHAPES]
        g = [(scale * (d + random.randn(*d.shape))).astype(np.float32) for d in drift]
        kept = [a.copy() for a in g]
        state.step(g, step / 500, FlatProbe())
        for ours, theirs in zip(g, kept, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg="the rule wrote into the gradients")


def bits(state):
    return [a.tobytes() for a in (*state.cells, *state.deployed())]


@each_rule
@given(seed=st.integers(0, 1000), exponent=st.integers(-100, 40))
@settings(max_examples=12, deadline=None)
def test_cells_are_always_plus_or_minus_one_in_int8(rule, seed, exponent):
    state, _ = start(rule, seed)
    for _ in range(6):
        walk(state, 1, seed, scale=2.0**exponent)
        for shape, ours, deployed in zip(SHAPES, state.cells, state.deployed(), strict=True):
            for array in (ours, deployed):
                assert array.dtype == np.int8 and array.shape == shape
                assert (np.abs(array) == 1).all()


@each_rule
def test_the_rule_changes_cells_and_the_same_seed_gives_the_same_bits(rule):
    one, two = start(rule)[0], start(rule)[0]
    walk(one, 300)
    walk(two, 300)
    assert bits(one) == bits(two)
    assert bits(one) != bits(start(rule)[0])


@each_rule
def test_a_restored_state_goes_on_with_the_same_bits(rule):
    state, random = start(rule)
    walk(state, 17)
    saved = copy.deepcopy(frozen(state.state()))
    generator = random.generator.get_state()
    other, other_random = start(rule, seed=99)
    walk(other, 3, seed=5)
    other_random.generator.set_state(generator)
    other.restore(thawed(saved))
    assert bits(other) == bits(state)
    walk(state, 20, first=17)
    walk(other, 20, first=17)
    assert bits(other) == bits(state)
    assert other.statistics() == state.statistics()


@each_rule
def test_the_options_survive_json(rule):
    options = json.loads(json.dumps(rule_options(rule)))
    assert rule_named(rule.name, **options) == rule


@pytest.mark.parametrize("name", RULES)
def test_the_registry_knows_every_rule_and_its_recipe_is_a_config(name):
    assert rule_named(name) == RULES[name]()
    assert TrainingConfig.for_rule(name).rule.name == name


def test_an_unknown_rule_or_option_is_answered_by_the_known_ones():
    with pytest.raises(QueryError, match="no update rule 'adam', expected one of: ste, bop, bop2nd"):
        rule_named("adam")
    with pytest.raises(QueryError, match="the rule bop has no option 'sigma', expected one of: tau, gamma"):
        rule_named("bop", sigma=1)


# open hyper-parameters


def open_ones(rule):
    return {name for name, value in rule_options(rule).items() if value is None} - {"undo", "hardware"}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("steps", [1, 7, 90, 720, 10_000, 10**9])
def test_an_open_hyper_parameter_follows_the_steps_and_a_given_one_stays(name, steps):
    rule = rule_named(name)
    assert open_ones(rule)
    settled = rule.for_steps(steps)
    assert not open_ones(settled)
    assert settled.for_steps(3 * steps) == settled
    assert rule_named(name, **json.loads(json.dumps(rule_options(settled)))) == settled
    given = rule_options(rule_named(name).for_steps(777))
    for option in open_ones(rule):
        assert rule_options(rule_named(name, **{option: given[option]}).for_steps(steps))[option] == given[option]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_does_not_start_with_open_hyper_parameters(name):
    with pytest.raises(QueryError, match=f"of the rule {name} is open, expected a value"):
        rule_named(name).start([random_signs((2, 3), 0)], random=Randomness(0))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", RULES)
def test_the_defaults_of_every_rule_learn_the_digits_in_five_epochs(name):
    trained = train(TrainingConfig.for_rule(name, epochs=5, select="final"), datasets.load("digits"), progress=False)
    assert trained.validation_accuracy > 0.6  # eight of ten rules were below with rates that suit 10,000 steps
    assert not open_ones(trained.config.rule)
    assert export(trained).provenance.data["config"]["options"] == rule_options(trained.config.rule)
