"""The shipped networks are what their cards say."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnnverify.datasets import inputs_for, load
from bnnverify.errors import UnsupportedError
from bnnverify.formats import native
from bnnverify.kernels import PackedNetwork
from bnnverify.training import TrainingConfig

MODELS = Path(__file__).resolve().parent.parent / "models"
FLOORS = {
    "digits-64-32-10": 0.89,
    "digits-64-20-16-10": 0.82,
    "digits-64-100-10": 0.91,
    "digits-64-32-10-ss": 0.85,
    "digits-64-20-16-10-ss": 0.78,
    "digits-64-100-10-ss": 0.89,
    "digits-64-32-10-ss-count": 0.85,
    "digits-64-32-10-ss-mem": 0.8,
    "digits-64-32-10-bop": 0.85,
    "digits-64-32-10-bop2nd": 0.85,
    "digits-64-32-10-pbop": 0.8,
}
MNIST_FLOORS = {
    "mnist-784-100-10": 0.93,
    "mnist-784-100-10-plain": 0.945,
    "mnist-784-100-10-ber": 0.94,
    "mnist-784-100-10-margin": 0.94,
    "mnist-784-100-10-ss-count": 0.935,
    "mnist-784-64-64-64-10": 0.932,
    "mnist-784-256-256-10": 0.953,
    "mnist-784-256-256-10-bop2nd": 0.94,
    "mnist-784-256-256-10-ss-ema": 0.94,
    "mnist-784-256-256-10-ss-count": 0.95,
    "mnist-784-256-256-10-ss-mem": 0.87,
    "mnist-conv-ss-count": 0.98,
    "mnist-pixels-conv-plain": 0.95,
    "mnist-pixels-conv-adversarial": 0.93,
}


def card_of(name):
    return json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))


def test_every_network_has_a_card_and_the_reverse():
    names = {path.stem for path in MODELS.glob("*.npz")}
    assert names == {path.stem for path in MODELS.glob("*.json")} == {*FLOORS, *MNIST_FLOORS}


@pytest.mark.parametrize("name", [*FLOORS, *MNIST_FLOORS])
def test_a_network_is_the_one_of_its_card(name):
    card = card_of(name)
    network = native.load(MODELS / card["file"])
    assert card["name"] == name
    assert (card["sha256"], card["cells_sha256"]) == (network.identity, network.cells_identity)
    assert (card["cells"], card["architecture"]) == (network.n_cells, network.architecture)
    assert network.provenance.data["accuracy"] == card["accuracy"]
    assert network.provenance.data["config"] == card["config"]


def test_the_script_sets_what_the_cards_say_whatever_the_defaults_of_the_rules(monkeypatch):
    monkeypatch.syspath_prepend(str(MODELS))
    script = importlib.import_module("make_models")
    configs = {name: config for name, (config, _) in script.MODELS.items()} | script.ONCE
    for name, config in configs.items():
        recorded = TrainingConfig.from_json(card_of(name)["config"])
        assert replace(config, seed=recorded.seed) == recorded == recorded.for_steps(7), name


@pytest.mark.parametrize("name", FLOORS)
def test_a_network_is_as_accurate_as_its_card_says(name):
    card = card_of(name)
    network, digits = native.load(MODELS / card["file"]), load("digits")
    assert card["data"]["split_sha256"] == digits.provenance["split_sha256"]
    assert network.domain.shape == digits.shape
    right = {key: np.mean(network.evaluate_batch(s.images) == s.labels) for key, s in digits.splits.items()}
    assert card["accuracy"] == pytest.approx(right, abs=1e-12)
    assert right["test"] >= FLOORS[name]


@pytest.mark.parametrize("name", MNIST_FLOORS)
def test_a_network_for_mnist_is_as_accurate_as_its_card_says(name):
    card = card_of(name)
    assert card["accuracy"]["test"] >= MNIST_FLOORS[name]
    try:
        mnist = load("mnist", directory=MODELS.parent / "data")
    except UnsupportedError:
        pytest.skip("MNIST is not there: make data")
    assert card["data"]["split_sha256"] == mnist.provenance["split_sha256"]
    network, test = native.load(MODELS / card["file"]), mnist.test
    classes = PackedNetwork(network).classes(inputs_for(network, test))
    assert np.mean(classes == test.labels) == card["accuracy"]["test"]


@pytest.mark.parametrize("name", FLOORS)
def test_the_seed_was_chosen_by_validation(name):
    card = card_of(name)
    by_seed = card["selection"]["validation_accuracy_by_seed"]
    assert by_seed[str(card["selection"]["chosen_seed"])] == max(by_seed.values())
    assert card["config"]["seed"] == card["selection"]["chosen_seed"]
