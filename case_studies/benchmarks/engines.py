"""The engines side by side on the shipped digit networks: exact counts and decisions in Hamming balls.

For every network, radius and engine: median seconds over the images, how many were answered within the time limit,
and whether all engines that answered agree (the run fails if not). Compilation is excluded.

    python case_studies/benchmarks/engines.py [--images 4] [--limit 10]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import bnnverify
from bnnverify.engines import NAMES
from bnnverify.results import Kind, Verdict

MODELS = Path(__file__).resolve().parents[2] / "models"
NETWORKS = ("digits-64-32-10", "digits-64-20-16-10", "digits-64-100-10")
QUESTIONS = (("count", 2), ("count", 3), ("count", 4), ("decide", 2), ("decide", 3), ("decide", 5))


def ask(verb: str, query: Any, engine: str, limits: Any) -> tuple[float, Any]:
    """(seconds, answer); the answer is None if the limit was reached."""
    if verb == "count":
        count = bnnverify.count_adversarial(query, engine=engine, limits=limits)
        return count.run.seconds, count.adversarial if count.kind is Kind.EXACT else None
    decision = bnnverify.decide(query, engine=engine, limits=limits)
    return decision.run.seconds, None if decision.verdict is Verdict.UNKNOWN else decision.verdict


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for each question")
    arguments = parser.parse_args()
    images = bnnverify.load_dataset("digits").test.images[: arguments.images]
    limits = bnnverify.Limits(seconds=arguments.limit)
    print(f"median seconds of {len(images)} images, answered within {arguments.limit:g} s")
    print(f"{'network':<20} {'question':<10} {'region':>12}  " + "".join(f"{name:>20}" for name in NAMES))
    for name in NETWORKS:
        network = bnnverify.load(MODELS / f"{name}.npz")
        for verb, radius in QUESTIONS:
            cells, answers = [], []
            regions = [bnnverify.HammingBall(tuple(x), radius) for x in images.tolist()]
            queries = [
                bnnverify.Query(network, region, bnnverify.Untargeted(network.evaluate(region.center)))
                for region in regions
            ]
            for engine in NAMES:
                ask(
                    verb,
                    bnnverify.Query(network, bnnverify.HammingBall(regions[0].center, 1), queries[0].property),
                    engine,
                    limits,
                )  # compile
                timed = [ask(verb, query, engine, limits) for query in queries]
                solved = sum(answer is not None for _, answer in timed)
                cells.append(f"{statistics.median(s for s, _ in timed):10.3f} ({solved}/{len(timed)})")
                answers.append([answer for _, answer in timed])
            for column in zip(*answers, strict=True):
                if len({answer for answer in column if answer is not None}) > 1:
                    raise SystemExit(f"engines disagree on {name}, {verb}, radius {radius}: {column}")
            size = regions[0].size()
            print(
                f"{name:<20} {verb + ' ' + str(radius):<10} {size:>12,}  " + "".join(f"{c:>20}" for c in cells),
                flush=True,
            )


if __name__ == "__main__":
    main()
