"""Pixels within eps on a convolutional network of eevbnn: verdicts and seconds beside those of its own solver.

The folder holds the network (``mnist-s-adv0.3.npz``) and the peer's results (``eev_*_epsE.csv``: verdict, and CPU
seconds to build and to solve; its limit was 60 s). Ours are CPU seconds of all processes, and wall seconds, of
everything between the image and the verdict. PAR-2 counts a question that stays open with twice the limit.

    python case_studies/benchmarks/eevbnn.py FOLDER [--eps 0.1,0.2,0.3] [--images 40] [--timeout 60] [--jobs 1]
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import bnnverify
from bnnverify.datasets.quantized import box_around
from bnnverify.engines.base import Limits
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.results import Verdict
from bnnverify.robustness import decide

WORDS = {Verdict.ROBUST: "robust", Verdict.NOT_ROBUST: "counterexample", Verdict.UNKNOWN: "unknown"}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="mnist-s-adv0.3")
    parser.add_argument("--eps", default="0.1,0.2,0.3")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    path = arguments.folder / f"{arguments.network}.npz"
    if not path.is_file():
        print(f"{path} is not here: the benchmark needs the peer's network and is skipped.")
        return
    network, test = bnnverify.load(path), bnnverify.load_dataset("mnist").test
    print(f"{path.name}: {network}")
    ask(network, test, 0, "0.1", arguments)  # compiles and loads what the first question needs
    for eps in arguments.eps.split(","):
        known = peer(arguments.folder / f"eev_{arguments.network}_eps{eps}.csv")
        answers = {}
        for i in range(arguments.images):
            answers[i] = answer, cpu, wall = ask(network, test, i, eps, arguments)
            stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in answer.run.statistics["stages"])
            beside = f"{known[i][0]:<14} {known[i][1]:8.3f}" if i in known else " " * 23
            word = WORDS[answer.verdict]
            print(
                f"{eps:>5} {i:>4} {word:<14} {cpu:8.3f} {wall:8.3f}   {beside}  {answer.run.engine}: {stages}",
                flush=True,
            )
        summary(eps, answers, known, arguments.timeout)


def ask(network, test, i: int, eps: str, arguments):
    """The answer with its CPU and wall seconds."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    query = Query(
        network, box_around(network, test.pixels[i], Fraction(eps)), Untargeted(int(test.labels[i])), Ties.ROBUST
    )
    answer = decide(query, limits=Limits(seconds=arguments.timeout), jobs=arguments.jobs)
    return answer, cpu_seconds() - cpu, time.perf_counter() - wall


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def peer(path: Path) -> dict[int, tuple[str, float]]:
    """The peer's verdict and its CPU seconds to build and solve, by image."""
    if not path.is_file():
        return {}
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {int(row["idx"]): (row["verdict"], float(row["build_cpu_s"]) + float(row["solve_cpu_s"])) for row in rows}


def summary(eps: str, answers, known, limit: float) -> None:
    """Counts, means and PAR-2, ours and the peer's."""
    counts = Counter(WORDS[answer.verdict] for answer, _, _ in answers.values())
    cpu = sum(c for _, c, _ in answers.values())
    wall = sum(w for _, _, w in answers.values())
    par = sum(2 * limit if answer.verdict is Verdict.UNKNOWN else c for answer, c, _ in answers.values())
    means = f"mean {cpu / len(answers):.4f} s of CPU, {wall / len(answers):.4f} s of wall"
    print(f"eps {eps}: {dict(counts)}; {means}; PAR-2 {par:.1f} s")
    asked = {i: known[i] for i in answers if i in known}
    if asked:
        decided = {i: word for i, (word, _) in asked.items() if word in ("robust", "counterexample")}
        differ = [i for i, word in decided.items() if WORDS[answers[i][0].verdict] not in (word, "unknown")]
        total = sum(seconds for _, seconds in asked.values())
        par = sum(seconds if i in decided else 2 * limit for i, (_, seconds) in asked.items())
        print(
            f"   the peer: mean {total / len(asked):.4f} s of CPU to build and solve; PAR-2 {par:.1f} s; "
            f"open {sorted(set(asked) - set(decided))}; verdicts that differ: {differ or 'none'}"
        )


if __name__ == "__main__":
    main()
