"""Certified P(error) over the whole digits test set: time and interval widths at 8 bit error rates.

The goals it measures, for a 64-32-10 network on 2 cores: width <= 1e-6 for at least 95 % of the images at p = 1e-3,
<= 1e-3 at p = 1e-2, and all 397 images x 8 rates in under a minute. Compilation (cached after the first run) is
excluded.

    python case_studies/benchmarks/reliability.py [MODEL ...] [--jobs 2] [--tolerance 1e-6] [--max-states 1000]
"""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

import bnnverify
from bnnverify.faults import BitFlip, log_grid

RATES = sorted({*log_grid("1e-4", "1e-1", 7), Fraction(1, 300)})  # eight, 1e-3 and 1e-2 among them
MODELS = Path(__file__).resolve().parents[2] / "models"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [MODELS / "digits-64-32-10.npz", MODELS / "digits-64-32-10-ss.npz"]
    parser.add_argument("models", nargs="*", type=Path, default=default)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--max-states", type=int, default=1000)
    parser.add_argument("--images", type=int, default=None, help="only the first so many test images")
    arguments = parser.parse_args()
    test = bnnverify.load_dataset("digits").test
    images, labels = test.images[: arguments.images], test.labels[: arguments.images]
    options = {"tolerance": arguments.tolerance, "max_states": arguments.max_states, "jobs": arguments.jobs}
    for path in arguments.models:
        network = bnnverify.load(path)
        print(f"{path.name}: {network}, {len(images)} images, {options}")
        bnnverify.expected_accuracy(network, images[:4], labels[:4], BitFlip("0.01"), **options)  # compile
        print(
            f"{'p':>9} {'seconds':>8} {'accuracy':>21} {'mean width':>11} {'95 % width':>11} {'max width':>10}"
            f" {'<=1e-6':>7} {'<=1e-3':>7}"
        )
        start = time.perf_counter()
        for p in RATES:
            point = bnnverify.expected_accuracy(network, images, labels, BitFlip(p), **options)
            widths = np.array([float(answer.width) for answer in point.per_image])
            bounds = f"[{float(point.accuracy.lower):.6f}, {float(point.accuracy.upper):.6f}]"
            print(
                f"{float(p):9.3g} {point.run.seconds:8.2f} {bounds:>21} {widths.mean():11.2e} "
                f"{np.quantile(widths, 0.95):11.2e} {widths.max():10.2e} "
                f"{(widths <= 1e-6).mean():7.1%} {(widths <= 1e-3).mean():7.1%}"
            )
        print(f"total {time.perf_counter() - start:.1f} s\n")


if __name__ == "__main__":
    main()
