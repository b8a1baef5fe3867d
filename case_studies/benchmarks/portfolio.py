"""What the portfolio guesses and what is true: every engine on every case, and the engine that auto takes.

For every case and engine: the guess of `bnnverify/engines/costs.py`, the measured seconds, and their ratio. At the end,
per engine, the geometric mean of truth over guess and its spread, from which to correct the constants of `Rates`; and
how much longer auto took than the best engine did. Counts are compared: the run fails if two engines disagree.
Compilation is excluded.

    python case_studies/benchmarks/portfolio.py [--limit 10] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import pairwise
from typing import Any

import numpy as np

import bnnverify
from bnnverify.engines import NAMES
from bnnverify.engines.costs import MODELLED, Shape, seconds_to_count
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.results import Kind

# Widths, and the radius of the ball; None for the whole cube.
CASES: tuple[tuple[tuple[int, ...], int | None], ...] = (
    ((64, 10, 10), 4),
    ((64, 10, 10), 6),
    ((64, 10, 10), 8),
    ((64, 5, 10), None),
    ((100, 10, 10), 4),
    ((100, 20, 10), 5),
    ((100, 50, 10), 2),
    ((100, 50, 10), 3),
    ((100, 50, 10), 4),
    ((100, 50, 20, 10), 3),
    ((784, 10, 10), 2),
    ((784, 100, 10), 1),
    ((784, 100, 10), 2),
    ((16, 25, 20, 10), None),
    ((24, 10, 10), None),
    ((24, 30, 10), None),
    ((30, 10, 10), None),
    ((36, 8, 10), None),
    ((25, 25, 25, 20, 10), 6),
)


def case(widths: tuple[int, ...], radius: int | None) -> Query:
    """A random network and input: thresholds near the middle, as training leaves them."""
    rng = np.random.default_rng(1)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-3, 4, m)) for n, m in pairwise(widths[:-1])
    )
    network = BinaryNetwork(
        InputDomain.binary(widths[0]), blocks, OutputBlock.create(rng.choice([-1, 1], widths[:-3:-1]))
    )
    x = tuple(np.random.default_rng(2).choice([-1, 1], widths[0]).tolist())
    region = bnnverify.whole_cube(widths[0]) if radius is None else bnnverify.HammingBall(x, radius)
    return Query(network, region, Untargeted(network.evaluate(x)))


def measured(query: Query, engine: str, limit: float) -> tuple[float | None, int | None, str]:
    """(seconds, count, engines that ran); None if the limit was reached."""
    start = time.perf_counter()
    count = bnnverify.count_adversarial(query, engine=engine, limits=bnnverify.Limits(seconds=limit))
    seconds = time.perf_counter() - start
    if count.kind is not Kind.EXACT:
        return None, None, count.run.engine
    return seconds, count.adversarial, count.run.engine


def main() -> None:
    """Prints the table and what follows from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=10, help="seconds for each engine and case")
    parser.add_argument("--json", action="store_true", help="one JSON line per case")
    options = parser.parse_args()
    engines = [name for name in NAMES if name in MODELLED]
    for name in engines:  # compile, with hidden blocks and without a short way
        measured(case((12, 6, 5, 3), 3), name, 60)
        measured(case((12, 6, 3), None), name, 60)
    ratios: dict[str, list[float]] = {name: [] for name in engines}
    losses = []
    for widths, radius in CASES:
        query = case(widths, radius)
        line: dict[str, Any] = {"widths": widths, "radius": radius, "states": Shape.of(query).states, "engines": {}}
        guesses, counts = seconds_to_count(query), set()
        for name in (*engines, "auto"):
            if name != "auto" and name not in guesses:
                continue
            seconds, count, ran = measured(query, name, options.limit)
            line["engines"][name] = {"guess": guesses.get(name), "seconds": seconds, "ran": ran}
            if seconds is not None:
                counts.add(count)
                if name != "auto":
                    ratios[name].append(seconds / guesses[name])
        if len(counts) > 1:
            raise SystemExit(f"engines disagree on {widths}, radius {radius}: {sorted(counts)}")
        best = min((v["seconds"] for k, v in line["engines"].items() if k != "auto" and v["seconds"]), default=None)
        auto = line["engines"]["auto"]["seconds"]
        if best and auto:
            losses.append(auto / best)
        print(json.dumps(line) if options.json else _row(line), flush=True)
    for name, values in ratios.items():
        if values and not options.json:
            logs = [math.log(v) for v in values]
            mean, spread = np.exp(np.mean(logs)), np.exp(np.std(logs))
            print(f"{name:<12} truth / guess: {mean:6.2f}, times or over {spread:.1f}, {len(values)} cases")
    if losses and not options.json:
        print(
            f"auto         seconds / those of the best engine: {np.exp(np.mean(np.log(losses))):.2f} (geometric mean)"
        )


def _row(line: dict[str, Any]) -> str:
    where = "whole cube" if line["radius"] is None else f"radius {line['radius']}"
    cells = []
    for name, found in line["engines"].items():
        truth = "    limit" if found["seconds"] is None else f"{found['seconds']:9.2g}"
        guess = f"{found['guess']:8.2g}" if found["guess"] is not None else f"{found['ran'][:11]:>8}"
        cells.append(f"{name} {guess} {truth}")
    return f"{'-'.join(map(str, line['widths'])):<16} {where:<10}  " + "  ".join(cells)


if __name__ == "__main__":
    main()
