"""By how much do commands exceed ``--timeout``? Large random networks and every verb that has a limit.

A limit is kept if the whole command, from start of the process to its end, takes at most 10 % and 1 s more. Each
question is asked once without being measured if --warm is given, so that loops are compiled.

    python case_studies/benchmarks/time_limits.py [--limits 2 5 10] [--only TEXT] [--warm]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

import bnnverify
from bnnverify.convolution import ConvBlock
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock

QUESTIONS = {
    "verify radius 3, 2.9 M cells": "verify lfc.npz --input signs.txt --radius 3",
    "verify radius 100, 2.9 M cells": "verify lfc.npz --input signs.txt --radius 100",
    "verify whole cube, 2.9 M cells": "verify lfc.npz --input signs.txt --whole-cube",
    "verify radius 20, sat": "verify lfc.npz --input signs.txt --radius 20 --engine sat",
    "verify radius 20, minicard": "verify lfc.npz --input signs.txt --radius 20 --engine minicard",
    "verify radius 20, cpsat": "verify lfc.npz --input signs.txt --radius 20 --engine cpsat",
    "verify radius 20, cadical": "verify lfc.npz --input signs.txt --radius 20 --engine cadical",
    "verify radius 20, bdd": "verify lfc.npz --input signs.txt --radius 20 --engine bdd",
    "verify radius 20, enumeration": "verify lfc.npz --input signs.txt --radius 20 --engine enumeration",
    "verify convolutions, radius 4": "verify conv.npz --input signs.txt --radius 4",
    "verify convolutions, sat": "verify conv.npz --input signs.txt --radius 4 --engine sat",
    "verify convolutions, bdd": "verify conv.npz --input signs.txt --radius 4 --engine bdd",
    "verify convolutions, enumeration": "verify conv.npz --input signs.txt --radius 4 --engine enumeration",
    "verify pixels": "verify pixels.npz --input pixels.txt --linf 40",
    "verify pixel convolutions": "verify pixelconv.npz --input pixels.txt --linf 8",
    "verify pixel convolutions, cpsat": "verify pixelconv.npz --input pixels.txt --linf 8 --engine cpsat",
    "verify pixel convolutions, minicard": "verify pixelconv.npz --input pixels.txt --linf 8 --engine minicard",
    "certify": "certify lfc.npz --input signs.txt --keep predicted --radius 3",
    "distance, 2.9 M cells": "distance lfc.npz --input signs.txt",
    "distance, convolutions": "distance conv.npz --input signs.txt",
    "distance, pixels": "distance pixelconv.npz --input pixels.txt --linf",
    "distance, tolerance": "distance lfc.npz --input signs.txt --tolerance 0.01",
    "count radius 5, 2.9 M cells": "count lfc.npz --input signs.txt --radius 5",
    "count by radius, 2.9 M cells": "count lfc.npz --input signs.txt --radius 5 --by-radius",
    "count 2^96": "count cube.npz --input cube.txt --whole-cube",
    "count 2^96, narrow": "count narrow.npz --input cube.txt --whole-cube",
    "count 2^96, propagation": "count narrow.npz --input cube.txt --whole-cube --engine propagation",
    "count 2^96, bdd": "count narrow.npz --input cube.txt --whole-cube --engine bdd",
    "count 2^96, enumeration": "count narrow.npz --input cube.txt --whole-cube --engine enumeration",
    "count 2^96, sat": "count narrow.npz --input cube.txt --whole-cube --engine sat",
    "count 2^96 under noise": "count narrow.npz --input cube.txt --whole-cube --noise 0.01",
    "count radius 5 under noise": "count lfc.npz --input signs.txt --radius 5 --noise 0.001",
    "samples": "count narrow.npz --input cube.txt --whole-cube --samples 5",
    "count convolutions": "count conv.npz --input signs.txt --radius 3",
    "explain": "explain lfc.npz --input signs.txt --radius 5",
    "explain, whole cube": "explain narrow.npz --input cube.txt --whole-cube --check",
    "explain, essential": "explain cube.npz --input cube.txt --radius 8 --essential",
    "diagram": "diagram build narrow.npz --input cube.txt --whole-cube -o d.json",
    "diagram, 2.9 M cells": "diagram build lfc.npz --input signs.txt --radius 4 -o d.json",
    "reliability": "reliability lfc.npz --input signs.txt --ber 1e-5",
    "reliability, 1e-3": "reliability lfc.npz --input signs.txt --ber 1e-3",
    "reliability, convolutions": "reliability conv.npz --input signs.txt --ber 1e-4",
    "reliability, pixel convolutions": "reliability pixelconv.npz --input pixels.txt --ber 1e-4",
    "reliability, sensitivity": "reliability lfc.npz --input signs.txt --ber 1e-5 --sensitivity",
    "reliability, samples": "reliability lfc.npz --input signs.txt --ber 1e-3 --only-samples --samples 1000000",
    "reliability, chips": "reliability lfc.npz --input signs.txt --ber 1e-3 --only-samples --chips 1000000",
    "reliability, chips of conv": "reliability conv.npz --input signs.txt --ber 1e-3 --only-samples --chips 1000000",
    "reliability, target": "reliability lfc.npz --input signs.txt --target-accuracy 0.9",
    "reliability, every rate": "reliability wide.npz --input signs.txt --target-accuracy 0.9 --every-rate",
    "reliability, energy": "reliability wide.npz --input signs.txt --target-accuracy 0.9 --energy mtj",
    "reliability, worst case": "reliability lfc.npz --input signs.txt --worst-case",
    "reliability, critical": "reliability lfc.npz --input signs.txt --critical 10",
    "reliability, coefficients": "reliability wide.npz --input signs.txt --coefficients 5",
    "reliability, all coefficients": "reliability narrow.npz --input cube.txt --coefficients all",
}
ANSWERS = {"reliability, sensitivity": 2, "reliability, every rate": 2, "reliability, energy": 2}
"""Questions with several answers, each of which has the limit."""


def dense(rng, *widths: int, domain: InputDomain | None = None) -> BinaryNetwork:
    """A random network whose neurons fire about as often as not."""
    blocks = []
    for n, m in pairwise(widths[:-1]):
        thresholds = rng.integers(-3, 4, m)
        weights = rng.choice([-1, 1], (m, n))
        if domain is not None and not blocks and not domain.is_binary:
            thresholds = thresholds * 100 + weights.sum(axis=1) * 128
        blocks.append(DenseBlock.create(weights, thresholds))
    output = OutputBlock.create(rng.choice([-1, 1], (widths[-1], widths[-2])))
    return BinaryNetwork(domain or InputDomain.binary(widths[0]), tuple(blocks), output)


def convolutional(rng, channels: int, domain: InputDomain) -> BinaryNetwork:
    """Two convolutions of 28 x 28 inputs and two dense blocks."""
    kernels = rng.choice([-1, 1], (channels, 1, 3, 3))
    middle = kernels.reshape(channels, -1).sum(axis=1) * (0 if domain.is_binary else 128)
    first = ConvBlock.create(kernels, middle, input_shape=(1, 28, 28), stride=2)
    second = ConvBlock.create(
        rng.choice([-1, 1], (channels, channels, 3, 3)), np.zeros(channels), input_shape=first.output_shape, stride=2
    )
    wide = int(np.prod(second.output_shape))
    third = DenseBlock.create(rng.choice([-1, 1], (256, wide)), np.zeros(256))
    return BinaryNetwork(domain, (first, second, third), OutputBlock.create(rng.choice([-1, 1], (10, 256))))


def write_all(folder: Path) -> None:
    """Networks and inputs."""
    rng = np.random.default_rng(0)
    grey = InputDomain.integers([0] * 784, [255] * 784)
    bnnverify.save(dense(rng, 784, 1024, 1024, 1024, 10), folder / "lfc.npz")
    bnnverify.save(dense(rng, 784, 1024, 10), folder / "wide.npz")
    bnnverify.save(dense(rng, 96, 64, 32, 10), folder / "cube.npz")
    bnnverify.save(dense(rng, 96, 16, 10), folder / "narrow.npz")
    bnnverify.save(dense(rng, 784, 512, 512, 10, domain=grey), folder / "pixels.npz")
    bnnverify.save(convolutional(rng, 64, InputDomain.binary(784)), folder / "conv.npz")
    bnnverify.save(convolutional(rng, 32, grey), folder / "pixelconv.npz")
    for name, rows in (
        ("signs.txt", rng.integers(0, 2, (1, 784))),
        ("cube.txt", rng.integers(0, 2, (1, 96))),
        ("pixels.txt", rng.integers(0, 256, (1, 784))),
    ):
        np.savetxt(folder / name, rows, fmt="%d")


def ask(command: str, limit: float, folder: Path) -> tuple[float, int, str]:
    """Wall seconds of the process, its exit code, and the last line of stderr."""
    line = [sys.executable, "-m", "bnnverify", *command.split(), "--timeout", f"{limit:g}", "-q"]
    start = time.perf_counter()
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=os.environ, check=False)
    seconds = time.perf_counter() - start
    last = done.stderr.strip().splitlines()
    return seconds, done.returncode, last[-1][:100] if last else ""


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=float, nargs="+", default=[2.0, 5.0, 10.0])
    parser.add_argument("--only", default="", help="questions whose name or command contains this text")
    parser.add_argument("--warm", action="store_true", help="ask each question once before it is measured")
    arguments = parser.parse_args()
    late = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_all(folder)
        print(f"{'question':<38} {'limit':>6} {'seconds':>8} {'over':>7}  code", flush=True)
        for question, command in QUESTIONS.items():
            if arguments.only not in question and arguments.only not in command:
                continue
            if arguments.warm:
                ask(command, 1.0, folder)
            for limit in arguments.limits:
                seconds, code, last = ask(command, limit, folder)
                allowed = ANSWERS.get(question, 1) * limit
                over = seconds - allowed
                is_late = over > 0.1 * allowed + 1
                late += is_late
                mark = "  LATE" if is_late else ""
                print(f"{question:<38} {limit:6.1f} {seconds:8.2f} {over:+7.2f}  {code}{mark}  {last}", flush=True)
    print(f"{late} limits were exceeded by more than 10 % and 1 s")


if __name__ == "__main__":
    main()
