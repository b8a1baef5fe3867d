"""Certified P(error | image) beyond one dense hidden block: interval widths, time, and how both grow.

The goal it measures: a network with three hidden blocks at p <= 1e-3, mean width <= 1e-2 over 1,000 MNIST test images
in 10 minutes on 2 cores. Compilation (cached after the first run) is excluded.

    python case_studies/benchmarks/deep_reliability.py [MODEL] [--images 1000] [--p 1e-4 3e-4 1e-3] [--max-states 256]
    python case_studies/benchmarks/deep_reliability.py --growth     how width grows with depth, width and p
    python case_studies/benchmarks/deep_reliability.py --curve      how width falls with time
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

import bnnverify
from bnnverify.faults import BitFlip
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability.probability import FaultyNetwork

MODELS = Path(__file__).resolve().parents[2] / "models"


@dataclass(frozen=True)
class Measured:
    """Widths of some images, and the time they took."""

    widths: np.ndarray
    seconds: float
    error: tuple[float, float]
    vectors: np.ndarray

    def line(self) -> str:
        """One row of a table."""
        q50, q90, q99 = np.quantile(self.widths, [0.5, 0.9, 0.99])
        kept = " ".join(f"{v:.0f}" for v in self.vectors)
        return (
            f"{self.widths.mean():9.2e} {q50:9.2e} {q90:9.2e} {q99:9.2e} {self.widths.max():9.2e} {self.seconds:8.1f}"
            f"  [{self.error[0]:.5f}, {self.error[1]:.5f}]  {kept}"
        )


HEADER = (
    f"{'mean':>9} {'median':>9} {'90 %':>9} {'99 %':>9} {'max':>9} {'seconds':>8}  P(error), mean  sign vectors kept"
)


def measure(network, images, labels, p, *, jobs, max_states, tolerance, seconds=None) -> Measured:
    """Certify all images."""
    faulty = FaultyNetwork(network, BitFlip(p))
    for label in set(labels):
        faulty.tables(int(label))
    options = {"tolerance": tolerance, "max_states": max_states, "seconds": seconds}
    faulty.answer(images[0], int(labels[0]), tolerance=tolerance, max_states=1)  # compile
    start = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda i: faulty.answer(images[i], int(labels[i]), **options), range(len(images))))
    elapsed = time.perf_counter() - start
    lower, upper = (np.array([float(getattr(a, end)) for a, _ in found]) for end in ("lower", "upper"))
    vectors = np.mean([run.statistics["vectors"] for _, run in found], axis=0)
    return Measured(upper - lower, elapsed, (lower.mean(), upper.mean()), vectors)


def random_network(widths: list[int], seed: int) -> BinaryNetwork:
    """Random signs, thresholds near 0: the smallest margins there are."""
    rng = np.random.default_rng(seed)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-1, 2, m)) for n, m in pairwise(widths[:-1])
    )
    return BinaryNetwork(
        InputDomain.binary(widths[0]), blocks, OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])))
    )


def growth(arguments: argparse.Namespace) -> None:
    """Width by depth, width and p: event *change* of random networks, on random inputs."""
    print(f"random networks of 784 inputs, event change, {arguments.images} inputs, max_states {arguments.max_states}")
    print(f"{'hidden':>16} {'p':>8} {HEADER}")
    images = np.random.default_rng(0).choice([-1, 1], (arguments.images, 784))
    for hidden in ([64, 64], [64, 64, 64], [64] * 4, [64] * 5, [32] * 3, [128] * 3, [256] * 3):
        network = random_network([784, *hidden, 10], seed=1)
        labels = network.evaluate_batch(images)
        for p in arguments.p:
            result = measure(
                network,
                images,
                labels,
                p,
                jobs=arguments.jobs,
                max_states=arguments.max_states,
                tolerance=arguments.tolerance,
            )
            print(f"{'-'.join(map(str, hidden)):>16} {p:>8} {result.line()}", flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=MODELS / "mnist-784-64-64-64-10.npz")
    parser.add_argument("--images", type=int, default=100, help="the first so many test images")
    parser.add_argument("--p", nargs="+", default=["1e-4", "3e-4", "1e-3"])
    parser.add_argument("--seconds", type=float, default=None, help="for each image")
    parser.add_argument("--max-states", type=int, default=256)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--curve", action="store_true")
    arguments = parser.parse_args()
    if arguments.growth:
        growth(arguments)
        return
    network = bnnverify.load(arguments.model)
    test = bnnverify.load_dataset("mnist").test
    images, labels = test.images[: arguments.images].astype(np.int64), test.labels[: arguments.images]
    print(f"{arguments.model.name}: {network}, {len(images)} images, event error, tolerance {arguments.tolerance:g}")
    print(f"{'p':>8} {'states':>7} {HEADER}")
    for p in arguments.p:
        for states in (4, 16, 64, 256, 1024, 4096) if arguments.curve else (arguments.max_states,):
            result = measure(
                network,
                images,
                labels,
                p,
                jobs=arguments.jobs,
                max_states=states,
                tolerance=arguments.tolerance,
                seconds=arguments.seconds,
            )
            print(f"{p:>8} {states:>7} {result.line()}", flush=True)


if __name__ == "__main__":
    main()
