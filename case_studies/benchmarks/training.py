"""A training step of every update rule against a float32 step of Adam in torch, on the same shapes.

For each rule: milliseconds of a whole training step (forward and backward pass through binary weights, the update of
the real-valued parameters, the update of the cells) and the ratio to the baseline, a plain torch network with real
weights, ReLU and Adam. Steps of rule and baseline alternate, so that a busy machine slows both; the numbers are
medians. Images are random and in memory; undo is off and cells are ideal.

    python case_studies/benchmarks/training.py [--hidden 256,256] [--batch 100] [--steps 200] [--threads 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from bnnverify.datasets import Dataset, Split
from bnnverify.training import TrainingConfig
from bnnverify.training.loop import _Run
from bnnverify.training.rules import RULES

INPUTS, CLASSES = 784, 10
WARM = 20


def random_dataset(images: int, seed: int = 0) -> Dataset:
    """Random images and labels: speed does not depend on what they are."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> Split:
        signs = rng.choice(np.array([-1, 1], dtype=np.int8), (n, INPUTS))
        return Split(signs, (signs > 0).astype(np.uint8), rng.integers(0, CLASSES, n), np.arange(n))

    names = tuple(str(c) for c in range(CLASSES))
    return Dataset("random", (28, 28), names, split(images), split(10), split(10), {"dataset": "random"})


def adam_step(widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    """A step of the baseline: real weights, ReLU, cross-entropy, Adam as torch comes."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for n, m in pairwise(widths):
        layers += [torch.nn.Linear(n, m), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters())
    images, labels = torch.randn(50, batch, widths[0]), torch.randint(0, widths[-1], (50, batch))
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        optimizer.zero_grad()
        i = number % 50
        torch.nn.functional.cross_entropy(model(images[i]), labels[i]).backward()
        optimizer.step()

    return step


def rule_step(name: str, hidden: tuple[int, ...], batch: int, dataset: Dataset, steps: int) -> Callable[[], None]:
    """A step of our training loop, bookkeeping of the loop included."""
    epochs = -(-(steps + WARM + 1) // (len(dataset.train) // batch)) + 1
    changes = {"hidden": hidden, "batch_size": batch, "noise": 0, "batch_norm": False, "epochs": epochs}
    run = _Run(TrainingConfig.for_rule(name, **changes), dataset, torch.device("cpu"))
    return run.advance


def measure(step: Callable[[], Any], baseline: Callable[[], Any], steps: int) -> tuple[float, float]:
    """Median seconds of each, alternating."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(steps + WARM):
        for action, seconds in zip((step, baseline), times, strict=True):
            start = time.perf_counter()
            action()
            if number >= WARM:
                seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Prints a table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", default="256,256", help="neurons of the hidden blocks")
    parser.add_argument("--batch", type=int, default=100, help="images of a step")
    parser.add_argument("--steps", type=int, default=200, help="steps measured for each rule")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--rules", default=",".join(RULES), help="which rules")
    parser.add_argument("--json", action="store_true", help="one JSON object per rule")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hidden = tuple(int(m) for m in args.hidden.split(","))
    widths = (INPUTS, *hidden, CLASSES)
    dataset = random_dataset((args.steps + WARM + 2) * args.batch)
    baseline = adam_step(widths, args.batch)
    weights = sum(n * m for n, m in pairwise(widths))
    if not args.json:
        print(f"{'-'.join(map(str, widths))}, {weights:,} weights, batch {args.batch}, {args.threads} threads")
        print(f"{'rule':12s} {'step':>9s} {'Adam':>9s} {'ratio':>6s}")
    for name in args.rules.split(","):
        step = rule_step(name, hidden, args.batch, dataset, args.steps)
        ours, theirs = measure(step, baseline, args.steps)
        result = {"rule": name, "step_seconds": ours, "adam_seconds": theirs, "ratio": ours / theirs}
        if args.json:
            print(json.dumps({**result, "widths": widths, "batch": args.batch, "threads": args.threads}), flush=True)
        else:
            print(f"{name:12s} {ours * 1e3:6.2f} ms {theirs * 1e3:6.2f} ms {ours / theirs:6.2f}", flush=True)


if __name__ == "__main__":
    main()
