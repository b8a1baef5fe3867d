"""Certified probabilities against everything else that knows the truth, at full size, with fixed seeds.

1. Monte Carlo: the certified interval must meet the 99.9 % interval of sampled chips in at least 99 of 100 random cases
   (network, image, label, rate, kind of faults).
2. One: the probabilities of the ten classes of an image sum to 1, so the intervals' lower ends must not exceed it in
   sum, nor the upper ends fall short of it.
3. Flip sets: the exact first coefficients of the fault enumerator prove an interval, too; both must meet.
4. Polynomial: a few hundred cells, counted by convolution and by a decision diagram over the cells: equal, and inside
   the interval at every rate, including probabilities below 1e-12.
5. No flip and all flips: at p = 0 and p = 1 the answer is that of a deterministic network, for every test image.

Exit code 1 if anything contradicts. Small cases of all of it run in tests/test_rigour.py and tests/test_reliability.py.

    python case_studies/benchmarks/cross_checks.py [--cases 100] [--jobs 2]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

import bnnverify
from bnnverify.encodings.cells import fault_enumerator_bdd
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.faults import AsymmetricFlip, BitFlip, FaultModel, PerBlock, StuckAt, log_grid
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.reliability import error_probability, expected_accuracy, fault_enumerator
from bnnverify.reliability.coefficients import fault_coefficients
from bnnverify.reliability.probability import FaultyNetwork

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = ("mnist-784-100-10", "mnist-784-64-64-64-10")
SEED = 1


def main() -> None:
    """Run, print, and say by the exit code whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    test = bnnverify.load_dataset("mnist").test
    networks = [bnnverify.load(MODELS / f"{name}.npz") for name in NAMES]
    checks = {
        "sampling": sampling(networks, test.images, test.labels, arguments.cases),
        "classes": classes(networks, test.images),
        "flip sets": flip_sets(networks[0], test.images),
        "polynomial": polynomial(),
        "all or none": all_or_none(networks, test.images, test.labels, arguments.jobs),
    }
    agree = True
    for name, check in checks.items():
        start = time.perf_counter()
        right, of, words = next(check)
        needed = of - of // 100 if name == "sampling" else of
        agree &= right >= needed
        print(f"{name:<12} {right:>6}/{of:<6} {time.perf_counter() - start:7.1f} s  {words}", flush=True)
    sys.exit(0 if agree else 1)


Check = Iterator[tuple[int, int, str]]


def faults_of(rng: np.random.Generator, blocks: int) -> FaultModel:
    """Faults of a random kind, at rates from 1e-4 to 1e-2."""
    a, b = (Fraction(f"{10 ** rng.uniform(-4, -2):.3g}") for _ in range(2))
    kinds: list[FaultModel] = [BitFlip(a), AsymmetricFlip(a, b), StuckAt(a, b)]
    kinds.append(PerBlock(tuple(BitFlip(rng.choice([a, b])) for _ in range(blocks))))
    return kinds[int(rng.integers(len(kinds)))]


def sampling(networks: list[BinaryNetwork], images: np.ndarray, labels: np.ndarray, cases: int) -> Check:
    """Certified intervals against chips."""
    rng, meets, widths = np.random.default_rng(SEED), 0, []
    for case in range(cases):
        network, i = networks[case % len(networks)], int(rng.integers(len(images)))
        faults, label = faults_of(rng, len(network.blocks) + 1), int(labels[i])
        proved = error_probability(network, images[i], label, faults, tolerance=1e-4, seconds=5)
        chips = sample_errors(network, [images[i]], [label], faults, samples=20_000, seed=case, confidence=0.999)
        sampled = chips.image(0)
        meets += proved.lower <= sampled.upper and sampled.lower <= proved.upper
        widths.append(float(proved.width))
    yield meets, cases, f"meet the 99.9 % interval of 20,000 chips; median certified width {np.median(widths):.1e}"


def classes(networks: list[BinaryNetwork], images: np.ndarray) -> Check:
    """Do the classes of an image share a probability of one?"""
    right, of, slack = 0, 0, []
    for network in networks:
        for p in ("1e-4", "1e-3"):
            faulty = FaultyNetwork(network, BitFlip(p))
            for x in images[:5]:
                found = [faulty.error_probability(x, k, tolerance=1e-5, seconds=2) for k in range(network.n_classes)]
                low, high = sum(1 - q.upper for q in found), sum(1 - q.lower for q in found)
                right, of = right + (low <= 1 <= high), of + 1
                slack.append(float(high - low))
    yield right, of, f"images whose classes share a probability of 1; median width of the sum {np.median(slack):.1e}"


def flip_sets(network: BinaryNetwork, images: np.ndarray) -> Check:
    """Do exact counts of single, double and triple flips prove the same?"""
    right, of, least = 0, 0, Fraction(1)
    for x in images[:100]:
        label = network.evaluate(x)
        counted = fault_coefficients(network, x, label, order=3)
        for p in ("1e-8", "1e-6", "1e-5"):
            a, b = counted.probability(p), error_probability(network, x, label, BitFlip(p), tolerance=1e-12)
            right, of = right + (a.lower <= b.upper and b.lower <= a.upper), of + 1
            least = min(least, b.upper)
    yield (
        right,
        of,
        f"intervals that meet those of the first four coefficients; smallest upper bound {float(least):.1e}",
    )


def polynomial() -> Check:
    """Counted twice, and inside the interval."""
    right, of, least = 0, 0, Fraction(1)
    for widths, seed in (((16, 10, 2), 1), ((20, 12, 2), 2), ((14, 5, 5, 3), 3)):
        rng = np.random.default_rng(seed)
        blocks = [DenseBlock.create(rng.choice([-1, 1], (m, n)), [0] * m) for n, m in pairwise(widths[:-1])]
        output = OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])), bias=[8] + [0] * (widths[-1] - 1))
        network = BinaryNetwork(InputDomain.binary(widths[0]), tuple(blocks), output)
        x = rng.choice([-1, 1], widths[0])
        label = network.evaluate(x)
        counts = fault_enumerator(network, x, label)
        right, of = right + (list(counts.counts) == fault_enumerator_bdd(network, x, label)), of + 1
        for p in (*log_grid("1e-9", "1e-1", 9), Fraction(1, 2), Fraction(9, 10)):
            answer, exact = error_probability(network, x, label, BitFlip(p), tolerance=1e-30), counts.probability(p)
            right, of = right + (answer.lower <= exact <= answer.upper), of + 1
            least = min(least, exact)
    yield right, of, f"equal polynomials, and values inside the interval; smallest value {float(least):.1e}"


def all_or_none(networks: list[BinaryNetwork], images: np.ndarray, labels: np.ndarray, jobs: int) -> Check:
    """At p = 0 and p = 1 nothing is random."""
    right, of = 0, 0
    truth = [int(v) for v in labels]
    for network in networks:
        flipped = BinaryNetwork(
            network.domain,
            tuple(replace(block, weights=-block.weights) for block in network.blocks),  # type: ignore[type-var]
            replace(network.output, weights=-network.output.weights),
        )
        for p, twin in (("0", network), ("1", flipped)):
            wrong = twin.evaluate_batch(images) != labels
            found = expected_accuracy(network, images, truth, BitFlip(p), jobs=jobs, tolerance=1e-6).per_image
            right += sum(q.lower <= int(w) <= q.upper for q, w in zip(found, wrong, strict=True))
            of += len(found)
    yield right, of, "images at p = 0 and p = 1"


if __name__ == "__main__":
    main()
