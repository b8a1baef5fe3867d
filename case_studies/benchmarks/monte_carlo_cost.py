"""What Monte Carlo would cost for the certainty of the certified intervals: chips and time, from measured speeds.

First table: the certified mean width over the images and the time it took; beside it the chips that an image needs for
a Clopper-Pearson interval of that width (99.9 % for one image), the measured speed of our own sampling (the faster of
chips for each image alone and whole chips), and the time that follows: for every image, and for the mean alone.
Where it is doubtful the count favours sampling: normal law, variance at the better end of the certified interval, every
image sampled no longer than it needs. A certified interval holds always, a sampled one with its confidence.

Second table: images whose P(error) is proved to be positive and below 1e-12, and the time until the first error is
expected there. Compilation is excluded.

    python case_studies/benchmarks/monte_carlo_cost.py [--jobs 2] [--images 1000] [--rates 1e-3,1e-2]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist, fmean

import bnnverify
from bnnverify.engines.chipsampling import sample_chips
from bnnverify.engines.montecarlo import sample_errors
from bnnverify.faults import BitFlip
from bnnverify.reliability.accuracy import expected_accuracy
from bnnverify.reliability.rounding import float_below

MODEL = Path(__file__).resolve().parents[2] / "models" / "mnist-784-100-10.npz"
CONFIDENCE = 0.999
RARE = 1e-12
SETTINGS = {  # rate: (tolerance for each image, most states)
    "1e-5": (1e-7, 1024),
    "1e-4": (1e-6, 1024),
    "1e-3": (1e-5, 1024),
    "1e-2": (5e-4, 1024),
    "5e-2": (2e-3, 1024),
}
YEAR = 365.25 * 86400


def main(words: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000, help="the first so many test images")
    parser.add_argument("--rates", default=",".join(SETTINGS), help="default: all of them")
    parser.add_argument("--seconds", type=float, default=60, help="limit for the certified intervals of a rate")
    parser.add_argument("--sampling", type=float, default=2, metavar="S", help="seconds to measure each way to sample")
    arguments = parser.parse_args(words)
    test = bnnverify.load_dataset(arguments.dataset).test
    images, labels = test.images[: arguments.images], [int(v) for v in test.labels[: arguments.images]]
    network = bnnverify.load(arguments.model)
    print(f"{arguments.model.name}, {len(images)} images, {arguments.jobs} threads\n")
    head = [
        "p",
        "certified, s",
        "mean width",
        "chips an image",
        "chips x images a second",
        "sampling would take",
        "times longer",
    ]
    head += ["the mean alone"]
    print(_row(head), _row(["---"] * len(head)), sep="\n")
    rare_rows = []
    for p in arguments.rates.split(","):
        bounds, seconds = certified(network, images, labels, p, arguments)
        speed = fastest_sampling(network, images, labels, p, arguments)
        width = fmean(high - low for low, high in bounds)
        chips = fmean(chips_needed(low, high, width) for low, high in bounds)
        sampling = chips * len(bounds) / speed
        mean = [fmean(ends) for ends in zip(*bounds, strict=True)]
        cells = [p, f"{seconds:.1f}", f"{width:.1e}", f"{chips:.1e}", f"{speed:.1e}", in_words(sampling)]
        cells += [f"{sampling / seconds:.2g}", in_words(chips_needed(*mean, width) / speed)]
        print(_row(cells), flush=True)
        rare_rows.append(rare(p, bounds, speed))
    head = ["p", f"images with 0 < P(error) < {RARE:g}", "median P(error), certified", "its width"]
    head += ["first error expected after so many chips", "that is"]
    print("", _row(head), _row(["---"] * len(head)), *rare_rows, sep="\n")


def certified(network, images, labels, p: str, arguments) -> tuple[list[tuple[float, float]], float]:
    """Bounds on P(error) of each image, as floats rounded outward, and the seconds they took."""
    tolerance, states = SETTINGS[p]
    options = {"tolerance": tolerance, "max_states": states, "jobs": arguments.jobs}
    expected_accuracy(network, images[:4], labels[:4], BitFlip(p), **options)  # compiles
    start = time.perf_counter()
    point = expected_accuracy(network, images, labels, BitFlip(p), seconds=arguments.seconds, **options)
    seconds = time.perf_counter() - start
    return [(float_below(e.lower), -float_below(-e.upper)) for e in point.per_image], seconds


def fastest_sampling(network, images, labels, p: str, arguments) -> float:
    """Chips x images in a second: of the faster way to sample, after a first call that compiles."""
    speeds = []
    for sample, number in ((sample_errors, {"samples": 250}), (sample_chips, {"chips": 256})):
        for _ in range(2):
            start = time.perf_counter()
            sample(network, images, labels, BitFlip(p), jobs=arguments.jobs, **number)
            spent = time.perf_counter() - start
        (name, few) = next(iter(number.items()))
        many = min(10**9, max(few, int(few * arguments.sampling / spent)))
        start = time.perf_counter()
        sample(network, images, labels, BitFlip(p), jobs=arguments.jobs, **{name: many})
        speeds.append(many * len(images) / (time.perf_counter() - start))
    return max(speeds)


def chips_needed(low: float, high: float, width: float) -> float:
    """Chips for a Clopper-Pearson interval of this width, or a little fewer, where P(error) is within [low, high].

    The greater of what the normal law asks for and of what an interval without any hit does.

    >>> from bnnverify.confidence import clopper_pearson
    >>> needed = [chips_needed(p, p, 1e-3) for p in (0.0, 0.5)]
    >>> [round(n, -2) for n in needed]
    [7600.0, 10827600.0]
    >>> hits = [0, round(0.5 * needed[1])]
    >>> [round(float(clopper_pearson(k, round(n), confidence=CONFIDENCE).width), 5) for k, n in zip(hits, needed)]
    [0.001, 0.001]
    """
    tail = (1 - CONFIDENCE) / 2
    z = NormalDist().inv_cdf(1 - tail)
    variance = min(low * (1 - low), high * (1 - high))
    return max((2 * z / width) ** 2 * variance, math.log(tail) / math.log1p(-min(width, 1 - 1e-9)))


def rare(p: str, bounds: list[tuple[float, float]], speed: float) -> str:
    """The row of the images whose errors no sampling sees."""
    some = sorted(pair for pair in bounds if pair[0] > 0 and pair[1] < RARE)
    if not some:
        return _row([p, "0", "", "", "", ""])
    low, high = some[len(some) // 2]
    cells = [p, str(len(some)), f"{low:.2e}", f"{high - low:.1e}", f"{1 / high:.1e}", in_words(1 / high / speed)]
    return _row(cells)


def in_words(seconds: float) -> str:
    """A time.

    >>> in_words(0.02), in_words(90), in_words(7200), in_words(1e12)
    ('0.02 s', '90 s', '2 h', '3.2e+04 years')
    """
    for most, unit, name in ((600, 1, "s"), (2 * 86400, 3600, "h"), (2 * YEAR, 86400, "days")):
        if seconds < most:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds / YEAR:.2g} years"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
