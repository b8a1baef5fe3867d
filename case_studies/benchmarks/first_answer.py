"""How long the first answer takes: after installation (no compiled loop is kept anywhere) and in every later process.

Each command runs in fresh processes with a cache folder of its own: once while it is empty (cold), then again (warm,
the best of several). CPU seconds, of user and system together, are what a busy machine distorts least.

    python case_studies/benchmarks/first_answer.py [--only WORD ...] [--runs 3]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

MODEL = "models/digits-64-32-10.npz"
FEW = ["--data", "digits", "--index", "0:5"]

COMMANDS = {
    "info": ["info", MODEL],
    "verify": ["verify", MODEL, *FEW, "--radius", "2"],
    "count": ["count", MODEL, *FEW, "--radius", "2"],
    "distance": ["distance", MODEL, *FEW],
    "explain": ["explain", MODEL, *FEW, "--radius", "2"],
    "certify": ["certify", MODEL, *FEW, "--radius", "1,2"],
    "reliability": ["reliability", MODEL, *FEW, "--ber", "1e-3"],
    "count, larger": ["count", MODEL, *FEW, "--radius", "4"],
}


def timed(words: Sequence[str], cache: str) -> tuple[float, float]:
    """Wall and CPU seconds of a command that keeps its compiled loops in `cache`."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "bnnverify", *words]
    subprocess.run(command, env={**os.environ, "NUMBA_CACHE_DIR": cache}, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(words: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, metavar="NAME", help="of " + ", ".join(COMMANDS))
    parser.add_argument("--runs", type=int, default=3, help="warm runs; the best counts; default: 3")
    arguments = parser.parse_args(words)
    print(f"{'command':14} {'cold s':>8} {'CPU s':>8} {'warm s':>8} {'CPU s':>8}")
    for name in arguments.only or COMMANDS:
        with tempfile.TemporaryDirectory() as cache:
            cold = timed(COMMANDS[name], cache)
            warm = [timed(COMMANDS[name], cache) for _ in range(arguments.runs)]
        best = [min(values) for values in zip(*warm, strict=True)]
        print(f"{name:14} {cold[0]:8.2f} {cold[1]:8.2f} {best[0]:8.2f} {best[1]:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
