"""The shipped networks are what their cards say."""

import json
from pathlib import Path

import numpy as np
import pytest

from bnnverify.datasets import load
from bnnverify.formats import native

MODELS = Path(__file__).resolve().parent.parent / "models"
FLOORS = {
    "digits-64-32-10": 0.89,
    "digits-64-20-16-10": 0.82,
    "digits-64-100-10": 0.91,
    "digits-64-32-10-ss": 0.85,
    "digits-64-20-16-10-ss": 0.78,
    "digits-64-100-10-ss": 0.89,
}


def test_every_network_has_a_card_and_the_reverse():
    assert {path.stem for path in MODELS.glob("*.npz")} == {path.stem for path in MODELS.glob("*.json")} == set(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_a_network_is_what_its_card_says(name):
    card = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    network, digits = native.load(MODELS / card["file"]), load("digits")
    assert card["name"] == name
    assert name.removesuffix("-ss") == f"digits-{network.architecture}"
    assert (card["sha256"], card["cells_sha256"]) == (network.identity, network.cells_identity)
    assert card["cells"] == network.n_cells
    assert card["data"]["split_sha256"] == digits.provenance["split_sha256"]
    assert network.domain.shape == digits.shape
    right = {key: np.mean(network.evaluate_batch(s.images) == s.labels) for key, s in digits.splits.items()}
    assert card["accuracy"] == pytest.approx(right, abs=1e-12)
    assert right["test"] >= FLOORS[name]


@pytest.mark.parametrize("name", FLOORS)
def test_the_seed_was_chosen_by_validation(name):
    card = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    by_seed = card["selection"]["validation_accuracy_by_seed"]
    assert by_seed[str(card["selection"]["chosen_seed"])] == max(by_seed.values())
    assert card["config"]["seed"] == card["selection"]["chosen_seed"]
