"""Trains the networks of this folder: `python models/make_models.py [--only NAME]`.

Every network is the best of several seeds by validation accuracy (then validation loss). The test images are
looked at once, for the card, after the choice. The settings are the defaults of each rule; they were chosen by
cross-validation on the training and validation images together.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bnnverify.datasets import Dataset, load
from bnnverify.formats import native
from bnnverify.network import BinaryNetwork, Provenance
from bnnverify.training import TrainedModel, TrainingConfig, export, train

SETTINGS_CHOSEN_BY = "cross-validation of the 64-32-10 recipes on the 1400 training and validation images"
HERE = Path(__file__).resolve().parent
RULES = {"": ("ste", 16), "-ss": ("ss-ema", 8)}  # suffix -> rule, number of seeds
HIDDEN = {"digits-64-32-10": (32,), "digits-64-20-16-10": (20, 16), "digits-64-100-10": (100,)}
MODELS = {
    name + suffix: (TrainingConfig.for_rule(rule, hidden=hidden), seeds)
    for suffix, (rule, seeds) in RULES.items()
    for name, hidden in HIDDEN.items()
}


def main() -> None:
    """Trains and writes the networks asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS, help="make this network alone")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = load("digits")
    for name in [arguments.only] if arguments.only else MODELS:
        config, seeds = MODELS[name]
        make(name, config, range(seeds), dataset, arguments.out)


def make(name: str, config: TrainingConfig, seeds: range, dataset: Dataset, out: Path) -> None:
    """Trains one network per seed, keeps the best by validation, writes network and card."""
    candidates = []
    for seed in seeds:
        candidates.append(train(replace(config, seed=seed), dataset, progress=False))
        print(f"{name}: seed {seed}, validation {candidates[-1].validation_accuracy:.1%}", file=sys.stderr)
    best = max(candidates, key=_rank)
    selection = {
        "by": "validation accuracy, then validation loss",
        "validation_accuracy_by_seed": {str(c.config.seed): round(c.validation_accuracy, 4) for c in candidates},
        "chosen_seed": best.config.seed,
    }
    exported = export(best)
    network = replace(exported, provenance=Provenance({**exported.provenance.data, "selection": selection}))
    native.save(network, out / f"{name}.npz")
    text = json.dumps(card(name, network, best), indent=2) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{name}: {network.provenance.data['accuracy']}")


def _rank(trained: TrainedModel) -> tuple[float, float]:
    record = trained.history[trained.best_epoch - 1]
    return record["validation_accuracy"], -record["validation_loss"]


def card(name: str, network: BinaryNetwork, trained: TrainedModel) -> dict[str, Any]:
    """What a reader wants to know of a network before using it; plain JSON values."""
    made = network.provenance.data
    return {
        "name": name,
        "file": f"{name}.npz",
        "sha256": network.identity,
        "cells_sha256": network.cells_identity,
        "architecture": network.architecture,
        "cells": network.n_cells,
        "accuracy": made["accuracy"],
        "command": f"python models/make_models.py --only {name}",
        "config": made["config"],
        "epochs_trained": len(trained.history),
        "best_epoch": trained.best_epoch,
        "selection": {**made["selection"], "settings_chosen_by": SETTINGS_CHOSEN_BY},
        "data": made["data"],
        "versions": made["versions"],
        "seconds_per_seed": round(trained.seconds, 1),
    }


if __name__ == "__main__":
    main()
