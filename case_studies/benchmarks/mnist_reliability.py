"""Certified P(error) of the 10,000 MNIST test images on a 784-100-10 network: time, and how wide the intervals are.

Three rates with the goals that were set for them (2 cores): p = 1e-3 in under 60 s with a mean width of at most 1e-5
and 99 % of the images within 1e-4; p = 1e-2 in under 5 minutes with a mean width of at most 1e-3; p = 5e-2 as narrow as
10 minutes allow. With --curve: how the widths of some images fall with the time spent on each. Compilation of the loops
(cached after the first run) is excluded; tables of the network at a rate are included.

    python case_studies/benchmarks/mnist_reliability.py [--jobs 2] [--images N] [--rates 1e-3] [--curve N]
    python case_studies/benchmarks/mnist_reliability.py --own-scales     what a scale for each class costs
    python case_studies/benchmarks/mnist_reliability.py --asymmetry 2    p01 = p, p10 = 2 p
"""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

import bnnverify
from bnnverify.faults import AsymmetricFlip, BitFlip, FaultModel
from bnnverify.network import BinaryNetwork, OutputBlock
from bnnverify.reliability.accuracy import expected_accuracy, image_errors

MODEL = Path(__file__).resolve().parents[2] / "models" / "mnist-784-100-10.npz"
# rate: (tolerance for each image, most states, seconds, goal in words)
SETTINGS = {
    "1e-5": (1e-5, 4096, 60, ""),
    "1e-4": (1e-5, 4096, 60, ""),
    "1e-3": (2e-5, 16384, 60, "60 s, mean 1e-5, 99 % within 1e-4"),
    "1e-2": (5e-4, 4096, 300, "300 s, mean 1e-3"),
    "5e-2": (2e-3, 4096, 600, "as narrow as 600 s allow"),
}
EFFORTS = (1, 1024, 16384, 131072)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--images", type=int, default=None, help="only the first so many test images")
    parser.add_argument("--rates", default="1e-3,1e-2,5e-2", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--curve", type=int, default=0, metavar="N", help="also width against time, for N images")
    parser.add_argument("--own-scales", action="store_true", help="multiply the scale of class k by 1 + k/32")
    parser.add_argument("--asymmetry", default=None, metavar="A", help="p01 = p and p10 = A p instead of p for both")
    arguments = parser.parse_args()
    test = bnnverify.load_dataset(arguments.dataset).test
    images, labels = test.images[: arguments.images], [int(v) for v in test.labels[: arguments.images]]
    network = bnnverify.load(arguments.model)
    if arguments.own_scales:
        network = with_own_scales(network)

    def faults(p: str) -> FaultModel:
        if arguments.asymmetry is None:
            return BitFlip(p)
        return AsymmetricFlip(p, Fraction(p) * Fraction(arguments.asymmetry))

    print(f"{arguments.model.name}: {network}, {len(images)} images, {arguments.jobs} threads")
    for warm_up in ("1e-3", "5e-2"):
        expected_accuracy(network, images[:8], labels[:8], faults(warm_up), tolerance=1e-3, jobs=arguments.jobs)
    print(
        f"{'p':>6} {'seconds':>8} {'accuracy':>21} {'mean width':>10} {'median':>8} {'90 %':>8} {'99 %':>8} {'max':>8} "
        f"{'<=1e-5':>7} {'<=1e-4':>7} {'<=1e-3':>7}  goal"
    )
    for p in arguments.rates.split(","):
        tolerance, states, limit, goal = SETTINGS[p]
        options = {"tolerance": tolerance, "max_states": states, "jobs": arguments.jobs, "seconds": float(limit)}
        point = expected_accuracy(network, images, labels, faults(p), **options)
        widths = np.array([float(answer.width) for answer in point.per_image])
        bounds = f"[{float(point.accuracy.lower):.6f}, {float(point.accuracy.upper):.6f}]"
        quantiles = " ".join(f"{v:8.1e}" for v in np.quantile(widths, [0.5, 0.9, 0.99, 1]))
        shares = " ".join(f"{(widths <= w).mean():7.2%}" for w in (1e-5, 1e-4, 1e-3))
        print(
            f"{p:>6} {point.run.seconds:8.1f} {bounds:>21} {widths.mean():10.2e} {quantiles} {shares}  {goal}"
            f"  {point.run.reason}",
            flush=True,
        )
        if arguments.curve:
            curve(network, images, labels, faults(p), arguments.curve)


def with_own_scales(network: BinaryNetwork) -> BinaryNetwork:
    """The network with another scale for each class."""
    output, one = network.output, network.output.scale[0]
    scales = [one * (1 + Fraction(k, 32)) for k in range(network.n_classes)]
    classes = OutputBlock.create(output.weights, scale=scales, bias=output.bias)
    return BinaryNetwork(network.domain, network.blocks, classes)


def curve(network, images, labels, faults: FaultModel, count: int) -> None:
    """Print mean width against the time spent on each image."""
    chosen = np.random.default_rng(0).choice(len(images), min(count, len(images)), replace=False)
    some, theirs = images[chosen], [labels[i] for i in chosen]
    print(f"       {'states':>8} {'s/image':>9} {'mean width':>10} {'90 %':>8} {'max':>8}   {len(chosen)} images")
    for states in EFFORTS:
        start = time.perf_counter()
        answers = dict(image_errors(network, some, theirs, faults, tolerance=1e-6, max_states=states))
        seconds = (time.perf_counter() - start) / len(chosen)
        widths = np.array([float(answer.width) for answer in answers.values()])
        quantiles = " ".join(f"{v:8.1e}" for v in np.quantile(widths, [0.9, 1]))
        print(f"       {states:8d} {seconds:9.4f} {widths.mean():10.2e} {quantiles}", flush=True)


if __name__ == "__main__":
    main()
