"""Trains the networks of this folder: `python models/make_models.py [--only NAME]`.

Every network of the digits is the best of several seeds by validation accuracy (then validation loss). The test images
are looked at once, for the card, after the choice. The settings in RECIPES were chosen on the training and
validation images.

Those of MNIST in ONCE are trained once, with seed 0, on training and validation images, and kept as they are after the
last epoch; their settings were chosen by validation accuracy. (`case_studies/training` makes the other ones of MNIST.)
They need the images: `bnnverify data --data-dir data`.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bnnverify.datasets import Dataset, load
from bnnverify.faults import BitFlip
from bnnverify.formats import native
from bnnverify.network import Provenance
from bnnverify.training import TrainedModel, TrainingConfig, export, train
from bnnverify.training.export import card

HERE = Path(__file__).resolve().parent
HIDDEN = {  # name -> hidden blocks, number of seeds
    "digits-64-32-10": ((32,), 8),
    "digits-64-20-16-10": ((20, 16), 16),
    "digits-64-100-10": ((100,), 4),
}
RULES = {"": "ste", "-ss": "ss-ema"}  # suffix -> rule
OTHERS = ("ss-count", "ss-mem", "bop", "bop2nd", "pbop")  # rules of further 64-32-10 networks
OTHER_SEEDS = 4
# what was set for these networks: they do not follow the number of steps
RECIPES: dict[str, dict[str, Any]] = {
    "ste": {"options": {"learning_rate": "1e-2:1e-4:cosine", "average": 0.99}},
    "ss-ema": {"options": {"rate": "0.01:3e-5", "gamma": 0.02}, "batch_norm": True, "output_scale": True},
    "ss-count": {"options": {"bits": 6, "increment": "2.0:0.05"}},
    "ss-mem": {"options": {"rate": "3e-3:3e-4"}},
    "bop": {"options": {"tau": "3e-5:3e-4", "gamma": 1e-3}},
    "bop2nd": {"options": {"tau": 0.1, "gamma": 1e-3, "sigma": 1e-2}},
    "pbop": {"options": {"scaler": 0.01}},
}
MODELS = {
    name + suffix: (TrainingConfig.for_rule(rule, hidden=hidden, **RECIPES[rule]), seeds)
    for suffix, rule in RULES.items()
    for name, (hidden, seeds) in HIDDEN.items()
} | {
    f"digits-64-32-10-{rule}": (TrainingConfig.for_rule(rule, hidden=(32,), **RECIPES[rule]), OTHER_SEEDS)
    for rule in OTHERS
}

# 784-100-10 for the study of bit errors; without batch norm, whose means and variances would belong to other cells
_BARE: dict[str, Any] = {
    "hidden": (100,),
    "batch_norm": False,
    "output_scale": True,
    "noise": 0.0,
    "batch_size": 100,
    "epochs": 60,
    "select": "final",
    "train_on_validation": True,
}
# small convolutions over pixels for the study of robustness
_PIXELS = _BARE | {"hidden": "8c5s2,16c5s2,32", "input": "pixels", "epochs": 12}
_COSINE = RECIPES["ste"]["options"]
ONCE = {
    "mnist-784-100-10-plain": TrainingConfig.for_rule("ste", options=_COSINE, **_BARE),
    "mnist-784-100-10-ber": TrainingConfig.for_rule("ste", options=_COSINE, faults=BitFlip("0.05"), **_BARE),
    "mnist-784-100-10-margin": TrainingConfig.for_rule(
        "ste", options=_COSINE, loss="margin-hinge", margin=8.0, **_BARE
    ),
    "mnist-784-100-10-ss-count": TrainingConfig.for_rule("ss-count", **RECIPES["ss-count"], **_BARE),
    "mnist-pixels-conv-plain": TrainingConfig.for_rule("ste", options=_COSINE, **_PIXELS),
    "mnist-pixels-conv-adversarial": TrainingConfig.for_rule("ste", options=_COSINE, adversarial=32, **_PIXELS),
}


def main() -> None:
    """Trains and writes the networks asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(*MODELS, *ONCE), help="make this network alone")
    parser.add_argument("--jobs", type=int, default=1, help="seeds trained at the same time")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else (*MODELS, *ONCE):
        if name in ONCE:
            make_once(name, ONCE[name], arguments.out)
        else:
            config, seeds = MODELS[name]
            make(name, config, range(seeds), load("digits"), arguments.out, jobs=arguments.jobs)


def make(name: str, config: TrainingConfig, seeds: range, dataset: Dataset, out: Path, *, jobs: int = 1) -> None:
    """Trains one network per seed, keeps the best by validation, writes network and card."""
    candidates = []
    configs = [replace(config, seed=seed) for seed in seeds]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for trained in pool.map(_trained, configs):
            candidates.append(replace(trained, dataset=dataset))
            print(f"{name}: seed {trained.config.seed}, validation {trained.validation_accuracy:.1%}", file=sys.stderr)
    best = max(candidates, key=_rank)
    selection = {
        "by": "validation accuracy, then validation loss",
        "validation_accuracy_by_seed": {str(c.config.seed): round(c.validation_accuracy, 4) for c in candidates},
        "chosen_seed": best.config.seed,
    }
    _write(name, best, selection, out)


def make_once(name: str, config: TrainingConfig, out: Path) -> None:
    """Trains one network of MNIST, writes network and card."""
    trained = train(config, load("mnist"), threads=1, progress=False)
    _write(name, trained, {"by": f"last epoch, seed {config.seed}; settings by validation accuracy"}, out)


def _write(name: str, trained: TrainedModel, selection: dict[str, Any], out: Path) -> None:
    exported = export(trained)
    network = replace(exported, provenance=Provenance({**exported.provenance.data, "selection": selection}))
    native.save(network, out / f"{name}.npz")
    about = card(
        name,
        network,
        command=f"python models/make_models.py --only {name}",
        selection=selection,
        epochs=len(trained.history),
        seconds=trained.seconds,
    )
    text = json.dumps(about, indent=2) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{name}: {network.provenance.data['accuracy']}")


def _trained(config: TrainingConfig) -> TrainedModel:
    return train(config, load("digits"), threads=1, progress=False)


def _rank(trained: TrainedModel) -> tuple[float, float]:
    record = trained.history[trained.best_epoch - 1]
    return record["validation_accuracy"], -record["validation_loss"]


if __name__ == "__main__":
    main()
