"""Test accuracy of every update rule with its defaults, by the number of epochs.

The defaults of a rule must suit the steps that it gets: nothing is set here but the epochs, the hidden neurons and the
seed. Every number is the mean over the seeds of the test accuracy, in percent, of the network that `train` keeps; a
run that stops because its network is dead counts as guessing, 10 %.

    python case_studies/benchmarks/rule_defaults.py [--rules ss-ema,ss-mem] [--epochs 5,10,40,100] [--hidden 32,100]
        [--seeds 3] [--data digits] [--set NAME=VALUE] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from typing import Any

from bnnverify.datasets import Dataset, load
from bnnverify.errors import BnnVerifyWarning, QueryError
from bnnverify.training import TrainingConfig, export, train
from bnnverify.training.rules import RULES

LARGE = {"batch_size": 100, "noise": 0.0}  # what `bnnverify train` takes for mnist and its like


def accuracy(rule: str, dataset: Dataset, options: dict[str, Any], **changes: Any) -> float:
    """Test accuracy of one run; that of guessing where the network died."""
    config = TrainingConfig.for_rule(rule, options=options, **changes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BnnVerifyWarning)
            trained = train(config, dataset, threads=1, progress=False)
    except QueryError:
        return 1 / len(dataset.classes)
    return float(export(trained).provenance.data["accuracy"]["test"])


def main() -> None:
    """Prints a table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", default=",".join(RULES), help="which rules")
    parser.add_argument("--epochs", default="5,10,40,100", help="numbers of epochs")
    parser.add_argument("--hidden", default="32,100", help="neurons of the one hidden block")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of every number")
    parser.add_argument("--data", default="digits", help="data set")
    parser.add_argument("--data-dir", help="where its files are")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the rules; JSON")
    parser.add_argument("--json", action="store_true", help="one JSON object per number")
    args = parser.parse_args()
    dataset = load(args.data, directory=args.data_dir)
    settings = {} if args.data == "digits" else LARGE
    epochs = [int(e) for e in args.epochs.split(",")]
    options = {name: _value(text) for name, _, text in (pair.partition("=") for pair in args.set)}
    for hidden in (int(m) for m in args.hidden.split(",")):
        if not args.json:
            print(f"hidden {hidden}, epochs" + "".join(f"{e:>8}" for e in epochs))
        for rule in args.rules.split(","):
            numbers = []
            for e in epochs:
                found = [
                    accuracy(rule, dataset, options, epochs=e, hidden=(hidden,), seed=seed, **settings)
                    for seed in range(args.seeds)
                ]
                numbers.append(100 * statistics.mean(found))
                if args.json:
                    print(json.dumps({"rule": rule, "hidden": hidden, "epochs": e, "accuracies": found}), flush=True)
            if not args.json:
                print(f"{rule:<17}" + "".join(f"{number:8.1f}" for number in numbers), flush=True)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
