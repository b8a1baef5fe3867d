"""Records of finished runs: JSON lines that are only ever appended, and found again by what determines a run."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from settings import ROWS, Row

import bnnverify
from bnnverify import datasets
from bnnverify.errors import BnnVerifyError, FormatError, QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.training import TrainedModel, TrainingConfig

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
README = HERE / "README.md"

Record = dict[str, Any]

_FORMAT = "bnnverify training study"
_OF_EVERY_EPOCH = (
    "loss",
    "train_accuracy",
    "validation_accuracy",
    "validation_loss",
    "flip_ratio",
    "pulses",
    "switches",
    "events",
    "undo_events",
    "rate_factor",
)
_OF_THE_LOOP = {*_OF_EVERY_EPOCH[:5], "epoch", "activation_balance", "inside_window", "weight_balance"}


def identity(config: TrainingConfig, data: Mapping[str, Any], version: str = bnnverify.__version__) -> str:
    """sha256 of what determines a run: config, provenance of the data, version of this package."""
    text = json.dumps({"config": config.as_json(), "data": dict(data), "version": version}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def record(name: str, trained: TrainedModel, network: BinaryNetwork, *, file: str) -> Record:
    """What is kept of a finished run.

    Args:
        name: Of the row.
        trained: The run.
        network: Its exact export, whose provenance has the accuracies.
        file: Name of the file that holds it.

    Returns:
        `history` with a list per metric, one entry per epoch; `totals` of the rule after the last epoch;
        `plus` the fraction of stored +1 weights of each block; `accuracy` of train, validation and test images.
    """
    history, data = trained.history, dict(trained.dataset.provenance)
    signs = [weight.detach().numpy() > 0 for weight in trained.model.binary_weights()]
    return {
        "format": _FORMAT,
        "id": identity(trained.config, data),
        "name": name,
        "seed": trained.config.seed,
        "config": trained.config.as_json(),
        "data": data,
        "epochs": len(history),
        "accuracy": dict(network.provenance.data["accuracy"]),
        "seconds": round(trained.seconds, 1),
        "cells": network.n_cells,
        "architecture": network.architecture,
        "network": file,
        "sha256": network.identity,
        "plus": [_short(float(s.mean())) for s in signs],
        "plus_all": _short(sum(int(s.sum()) for s in signs) / sum(s.size for s in signs)),
        "totals": {key: _short(value) for key, value in history[-1].items() if key not in _OF_THE_LOOP},
        "history": {key: [_short(e[key]) for e in history] for key in _OF_EVERY_EPOCH if key in history[0]},
        "versions": versions(),
    }


def failure(name: str, config: TrainingConfig, data: Mapping[str, Any], reason: str) -> Record:
    """What is kept of a run that could not be finished and never will be: the same run fails the same way."""
    return {
        "format": _FORMAT,
        "id": identity(config, data),
        "name": name,
        "seed": config.seed,
        "config": config.as_json(),
        "data": dict(data),
        "failed": reason,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    return {
        "bnnverify": bnnverify.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def append(path: Path, line: Record) -> None:
    """One more line, written at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> dict[str, Record]:
    """The records of a file by their id, the last one of each id; empty if there is no file.

    The ids are computed anew, so that a record survives a config that has gained an attribute since.

    Raises:
        FormatError: A line is no record.
    """
    found: dict[str, Record] = {}
    if not path.exists():
        return found
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            config, data, version = line["config"], line["data"], line["versions"]["bnnverify"]
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}:{number}: no record of a run ({error}). Delete the line.") from None
        try:
            line["id"] = identity(TrainingConfig.from_json(config), data, version)
        except BnnVerifyError:
            continue  # made with options that no longer exist
        found[line["id"]] = line
    return found


@dataclass(frozen=True, slots=True)
class Results:
    """The finished runs of a row, of the newest version that each seed was run with.

    Attributes:
        row: The row.
        records: One per seed, in the order of the seeds; runs that failed included.
    """

    row: Row
    records: tuple[Record, ...]

    @property
    def finished(self) -> tuple[Record, ...]:
        """Those that did not fail."""
        return tuple(r for r in self.records if "failed" not in r)

    @property
    def test(self) -> list[float]:
        """Test accuracy of each finished run."""
        return [float(r["accuracy"]["test"]) for r in self.finished]

    def mean(self) -> float:
        """Mean test accuracy."""
        return float(np.mean(self.test))

    def curves(self, metric: str) -> np.ndarray:
        """A metric over the epochs; shape `(runs, epochs)`."""
        return np.array([r["history"][metric] for r in self.finished], dtype=np.float64)


def results(found: Mapping[str, Record], *, data: str | None = None, epochs: int | None = None) -> dict[str, Results]:
    """The results of every row that has any, by the row's name.

    A record belongs to a row if its config is the one that the row's settings give now, whatever its name.

    Args:
        found: What `read` gives.
        data: Data set in place of the rows' own.
        epochs: As for `Row.config`.
    """
    by_seed: dict[tuple[str, str], list[Record]] = {}
    for line in found.values():
        by_seed.setdefault((line["data"]["dataset"], _without_seed(line["config"])), []).append(line)
    collected = {}
    for name, row in ROWS.items():
        key = data or row.data, _without_seed(row.config(0, epochs=epochs).as_json())
        newest = {line["seed"]: line for line in by_seed.get(key, [])}
        if newest:
            collected[name] = Results(row, tuple(newest[seed] for seed in sorted(newest)))
    return collected


def _without_seed(config: Mapping[str, Any]) -> str:
    values = TrainingConfig.from_json(config).as_json()
    return json.dumps({**values, "seed": None}, sort_keys=True)


def _short(value: Any) -> Any:
    """Five significant digits of a float: enough for a curve."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


# what the commands of the study have in common


def study_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which results are meant."""
    parser.add_argument("--data", choices=datasets.NAMES, help="train every row on this data set, for a trial")
    parser.add_argument("--epochs", type=int, metavar="N", help="train every row for N epochs, for a trial")
    parser.add_argument("--results", type=Path, metavar="FILE", help=f"default: {RESULTS.name} beside this script")


def results_file(arguments: argparse.Namespace) -> Path:
    """The file of the results; a trial needs one of its own.

    Raises:
        QueryError: A trial without one.
    """
    if arguments.results is not None:
        return Path(arguments.results)
    if arguments.data is not None or arguments.epochs is not None:
        raise QueryError("--data or --epochs is given without --results, expected a file for the trial's results.")
    return RESULTS


def between_markers(text: str, marker: str, inner: str) -> str:
    r"""The text with `inner` between ``<!-- marker -->`` and ``<!-- end of marker -->``.

    Raises:
        FormatError: The markers are missing.

    >>> between_markers("a <!-- t -->old<!-- end of t --> b", "t", "new")
    'a <!-- t -->\nnew\n<!-- end of t --> b'
    """
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise FormatError(f"the page has no {begin} ... {end}, expected both markers.")
    return f"{before}{begin}\n{inner.strip()}\n{end}{after}"


def percent(values: Iterable[float], digits: int = 1) -> str:
    """One accuracy, or the least and the greatest.

    >>> percent([0.941, 0.9389]), percent([0.9])
    ('93.9–94.1 %', '90.0 %')
    """
    texts = [f"{100 * v:.{digits}f}" for v in sorted(values)]
    return f"{texts[0]} %" if texts[0] == texts[-1] else f"{texts[0]}–{texts[-1]} %"
