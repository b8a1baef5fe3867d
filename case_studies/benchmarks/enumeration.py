"""How fast the bit-sliced enumeration is without pruning, and how near that is to what the machine can do.

Counts the ball of radius 5 around one input of a 100-50-10 network (79,375,496 inputs) with bounds switched off: every
input is evaluated, and no class is ruled out beforehand. The limit is the number of vector instructions that the loops
need for 512 inputs, counted in the source (loads and logic; a three-operand instruction counts once), over the rate at
which this machine runs independent vector instructions, measured in the same run. Compilation is excluded.

    python case_studies/benchmarks/enumeration.py [MODEL_FOLDER --input FILE] [--radius 5] [--runs 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import bnnverify
from bnnverify.engines.base import Limits, cores
from bnnverify.engines.enumeration import EnumerationEngine
from bnnverify.engines.plan import make_plan, tie_order
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall
from bnnverify.vectors import address, vadd, vand, vload, vor, vsplat, vstore, vxor


@njit(cache=True)
def independent_logic(rounds, out):
    """Eight chains of vector logic that do not wait for each other: 16 instructions a round."""
    at = address(out)
    a, b, c, d = vload(at, 0), vload(at, 8), vload(at, 16), vload(at, 24)
    e, f, g, h = vload(at, 32), vload(at, 40), vload(at, 48), vload(at, 56)
    x = vsplat(np.uint64(0x9E3779B97F4A7C15))
    for _ in range(rounds):
        a, b, c, d = vadd(a, x), vadd(b, x), vadd(c, x), vadd(d, x)
        e, f, g, h = vadd(e, x), vadd(f, x), vadd(g, x), vadd(h, x)
        a, b, c, d = vxor(a, x), vxor(b, x), vxor(c, x), vxor(d, x)
        e, f, g, h = vxor(e, x), vxor(f, x), vxor(g, x), vxor(h, x)
    vstore(at, 0, vor(vor(vand(a, b), vand(c, d)), vor(vand(e, f), vand(g, h))))


def instructions_a_second(rounds: int = 20_000_000) -> float:
    """Vector instructions that one core runs in a second."""
    out = np.arange(64, dtype=np.uint64)
    independent_logic(1, out)
    best = min(_timed(lambda: independent_logic(rounds, out)) for _ in range(3))
    return 16 * rounds / best


def instructions_of_a_tile(query: Query, flips: int) -> float:
    """Vector instructions for 512 inputs of one tail, on average over pairs of classes.

    Each of the other classes adds up the rows in which it differs from the leader: a load and a row's share of full
    adders (two instructions each, three for four rows) and of the carries above; then the sums are compared digit by
    digit (two) and selected (one), and masked, counted and added (five).
    """
    plan = make_plan(query, tie_order(query))
    shape, *_, out_weights, _, _ = plan.net
    bits = np.unpackbits(out_weights.view(np.uint8), bitorder="little").reshape(len(plan.classes), -1)
    differ = [(bits[p] ^ bits[0])[: int(shape[-1, 1])].sum() for p in range(1, len(plan.classes))]
    digits = max(3, int(math.log2(2 * max(differ) + 1)) + 1)
    rows = sum(1 + (3 * 2 + 2 * (digits - 2)) / 4 + digits / max(int(d), 1) for d in differ for _ in range(int(d)))
    return float(rows + len(plan.classes) * (4 * (digits + 1) + 5))


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_query(radius: int) -> Query:
    """A random 100-50-10 network around a random input."""
    rng = np.random.default_rng(1)
    block = DenseBlock.create(rng.choice([-1, 1], (50, 100)), rng.integers(-9, 10, 50))
    network = BinaryNetwork(InputDomain.binary(100), (block,), OutputBlock.create(rng.choice([-1, 1], (10, 50))))
    x = tuple(rng.choice([-1, 1], 100).tolist())
    return Query(network, HammingBall(x, radius), Untargeted(network.evaluate(x)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="network file or folder; default: a random 100-50-10")
    parser.add_argument("--input", help="its input: 0/1 text")
    parser.add_argument("--radius", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    query = random_query(options.radius)
    if options.model:
        network = bnnverify.load(options.model)
        x = tuple(1 if word == "1" else -1 for word in Path(options.input).read_text(encoding="utf-8").split())
        query = Query(network, HammingBall(x, options.radius), Untargeted(network.evaluate(x)))
    size = query.region.size()
    peak = instructions_a_second()
    needed = instructions_of_a_tile(query, options.radius)
    lines = []
    for prune in (False, True):
        engine = EnumerationEngine(prune=prune)
        answers = set()
        for threads in sorted({1, cores()}):
            limits = Limits(threads=threads)
            engine.count(query, limits=limits)
            times = []
            for _ in range(options.runs):
                start = time.perf_counter()
                answers.add(engine.count(query, limits=limits).per_class)
                times.append(time.perf_counter() - start)
            seconds = sorted(times)[len(times) // 2]
            lines.append({"prune": prune, "threads": threads, "seconds": seconds, "inputs_a_second": size / seconds})
        assert len(answers) == 1
    unpruned = next(line for line in lines if not line["prune"] and line["threads"] == 1)
    share = unpruned["inputs_a_second"] / (512 * peak / needed)
    if options.json:
        print(json.dumps({"inputs": size, "instructions_a_second": peak, "instructions_a_tile": needed, "runs": lines}))
        return
    print(f"{query.network.architecture}, {query.region}: {size:,} inputs; median of {options.runs}, warm\n")
    print("pruning  threads   seconds     inputs/s")
    for line in lines:
        print(
            f"{'on' if line['prune'] else 'off':<7}  {line['threads']:>7}  {line['seconds']:8.4f}  "
            f"{line['inputs_a_second']:11.4g}"
        )
    print(f"\none core runs {peak:.3g} vector instructions a second (512 bits each, measured)")
    print(f"the loops need about {needed:.0f} for 512 inputs, {needed / 512:.2f} an input (counted in the source)")
    print(f"so the limit of this method is {512 * peak / needed:.3g} inputs/s a core; unpruned it reaches {share:.0%}")


if __name__ == "__main__":
    main()
