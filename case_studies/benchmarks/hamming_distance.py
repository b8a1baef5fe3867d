"""Minimum adversarial Hamming distance of BNNQuanalyst's 784-100-10 network: ten instances, exactly, with the time.

The folder holds ``models/mnist_bnn_1_blk_784_100_10`` and ``inputs/instance_I_784.txt``. With --check the distance is
found again by enumeration as far as a radius of 2, and by another engine one below the distance.

    python case_studies/benchmarks/hamming_distance.py FOLDER [--timeout 60] [--check] [--model FILE --images 10]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import bnnverify
from bnnverify.deciding.distance import hamming_distance
from bnnverify.engines.base import Limits
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall
from bnnverify.results import Kind, Verdict
from bnnverify.robustness import decide

MODEL = "mnist_bnn_1_blk_784_100_10"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--model", type=Path, help="another network, on MNIST test images")
    parser.add_argument("--images", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.model is None and not (arguments.folder / "models" / MODEL).is_dir():
        print(f"{arguments.folder / 'models' / MODEL} is not here: the benchmark is skipped.")
        return
    network, points = instances(arguments)
    print(f"{network}")
    print(f"{'instance':>8} {'class':>5} {'distance':>9} {'then':>5} {'seconds':>8}  radii that were decided")
    for i, x in enumerate(points):
        start = time.perf_counter()
        found = hamming_distance(network, x, limits=Limits(seconds=arguments.timeout))
        seconds = time.perf_counter() - start
        text = str(found.lower) if found.kind is Kind.EXACT else f"{found.lower}..{found.upper}"
        radii = ", ".join(f"{r} {verdict} ({engine})" for r, engine, verdict, _ in found.run.statistics["radii"])
        print(f"{i:>8} {network.evaluate(x):>5} {text:>9} {found.predicted!s:>5} {seconds:8.2f}  {radii}", flush=True)
        if arguments.check and found.upper is not None:
            check(network, x, found)


def instances(arguments):
    """Network and inputs."""
    if arguments.model is not None:
        network = bnnverify.load(arguments.model)
        images = bnnverify.load_dataset("mnist").test.images[: arguments.images]
        return network, [tuple(row) for row in images.tolist()]
    network = bnnverify.load(arguments.folder / "models" / MODEL)
    texts = [(arguments.folder / "inputs" / f"instance_{i}_784.txt").read_text() for i in range(10)]
    return network, [tuple(np.where(np.array(text.split()) == "1", 1, -1).tolist()) for text in texts]


def check(network, x, found) -> None:
    """The same verdicts from other engines."""
    kept = Untargeted(network.evaluate(x))
    for radius in range(min(found.upper, 3)):
        answer = decide(Query(network, HammingBall(x, radius), kept), engine="enumeration")
        assert answer.verdict is Verdict.ROBUST, (radius, answer)
    if found.upper > 0:
        limits = Limits(seconds=60)
        answer = decide(Query(network, HammingBall(x, found.upper - 1), kept), engine="minicard", limits=limits)
        assert answer.verdict is not Verdict.NOT_ROBUST, answer
        print(f"{'':>8} radius {found.upper - 1} by minicard: {answer.verdict.value}", flush=True)


if __name__ == "__main__":
    main()
