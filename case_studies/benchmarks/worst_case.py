"""Worst case on MNIST: bit-flip distances, critical cells and first coefficients of the fault enumerator, with times.

Every number that it prints is exact, or a bracket that says so. Compilation (cached after the first run) is excluded.

    python case_studies/benchmarks/worst_case.py distance --model mnist-784-100-10 --images 10000
    python case_studies/benchmarks/worst_case.py distance --model mnist-784-64-64-64-10 --seconds 2 --jobs 2
    python case_studies/benchmarks/worst_case.py critical --model mnist-784-100-10 --images 10000
    python case_studies/benchmarks/worst_case.py coefficients --model mnist-784-100-10 --images 10000 --order 3
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import bnnverify
from bnnverify.datasets import inputs_for
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.critical import EVENTS, critical_cells
from bnnverify.reliability.means import mean_coefficients
from bnnverify.reliability.worstcase import flip_distances
from bnnverify.results import Kind

MODELS = Path(__file__).resolve().parents[2] / "models"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("distance", "critical", "coefficients"))
    parser.add_argument("--model", default="mnist-784-100-10")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, default=1000, help="the first so many test images")
    parser.add_argument("--seconds", type=float, default=None, help="for each image, of the search for the distance")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    network = bnnverify.load(MODELS / f"{options.model}.npz")
    test = bnnverify.load_dataset(options.data).test
    images, labels = inputs_for(network, test)[: options.images], test.labels[: options.images].tolist()
    print(f"{options.model}: {network}, {len(images)} images")
    {"distance": _distance, "critical": _critical, "coefficients": _coefficients}[options.what](
        network, images, labels, options
    )


def _distance(network: BinaryNetwork, images: Any, labels: list[int], options: argparse.Namespace) -> None:
    flip_distances(network, images[:2], labels[:2], max_flips=2)  # compile
    found = flip_distances(network, images, labels, image_seconds=options.seconds, jobs=options.jobs)
    exact = sum(d.kind is Kind.EXACT for d in found.per_image)
    gaps = [d.upper - d.lower for d in found.per_image if d.upper is not None]
    seconds = np.array([d.run.seconds for d in found.per_image])
    print(
        f"{found.run.engine}: {found.run.seconds:.1f} s, {exact} of {len(images)} exact, mean gap {np.mean(gaps):.3f}"
    )
    print(f"seconds an image: median {np.median(seconds):.2g}, mean {seconds.mean():.2g}, most {seconds.max():.2g}")
    print("images by exact distance:", found.histogram)
    print("images by lower bound:   ", dict(sorted(Counter(d.lower for d in found.per_image).items())))
    for k in (0, 1, 2, 3, 4, 5, 8, 10, 12):
        share = found.withstand(k)
        print(f"  right whatever {k:>2} cells flip: {float(share.lower):.4f} to {float(share.upper):.4f}")


def _critical(network: BinaryNetwork, images: Any, labels: list[int], options: argparse.Namespace) -> None:
    critical_cells(network, images[:2], labels[:2])  # compile
    found = critical_cells(network, images, labels)
    print(f"{found.run.seconds:.1f} s; accuracy {found.clean_correct / found.n_images:.4f}", end="")
    print(f" {float(found.accuracy_slope):+.4f} p near p = 0")
    for b, block in enumerate(network.all_blocks):
        hits = {event: (found.critical(event)[b], found.block_totals(event)[b]) for event in EVENTS}
        slopes = " ".join(f"{float(s):+.4f}" for s in found.accuracy_slopes[b])
        print(f"  block {b}: {block.n_cells} cells; (cells with it, pairs) {hits}; slopes of +1, -1: {slopes}")
    print("  most critical:", found.ranking(5))


def _coefficients(network: BinaryNetwork, images: Any, labels: list[int], options: argparse.Namespace) -> None:
    for order in range(1, options.order + 1):
        start = time.perf_counter()
        found = mean_coefficients(network, images, labels, order=order)
        seconds = time.perf_counter() - start
        print(f"order {order}: {seconds:.1f} s; A_{order} = {float(found.counts[-1]):.8g}")
    for p in ("1e-9", "1e-8", "1e-7", "1e-6", "1e-5", "1e-4"):
        accuracy = found.probability(p).complement()
        print(f"  p = {p}: accuracy {accuracy}, width {float(accuracy.width):.2g}", end="")
        print(f"; at least {math.floor((1 - found.at_most(p)) * 10**9) / 1e9:.9f} at every rate up to p")


if __name__ == "__main__":
    main()
