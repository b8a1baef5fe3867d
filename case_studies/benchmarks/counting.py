"""Exact counts of adversarial inputs, timed case by case, beside the published times of BNNQuanalyst.

    python case_studies/benchmarks/counting.py [--peer DIR [--goals]] [--rows REGEX] [--engine NAME] [--threads N]
        [--runs 5] [--timeout 120] [--cross-check SECONDS] [--json FILE]

DIR is a folder of models, inputs and results of BNNQuanalyst (see counting_cases.py); without it the networks of
models/ are counted. `--goals` adds what the peer never finished, and its fixed-set files.

How it is measured. Every case has a process of its own. There the network and the input are read, the kernels are
compiled by a small question of the same kind and by the question itself (cut off after 5 s), and then the question is
asked `--runs` times with the network read anew each time; a question of 5 s or more is asked once. Seconds are the
median, wall time, from the question to the answer: what an engine compiles or tabulates for the instance is included;
process start, reading files and JIT compilation are not (`first_seconds` in the JSON lines is the first small
question, compilation included). Memory is the peak of that process: with Python, libraries and the JIT compiler,
which take what `base_mib` in the JSON lines says.

Answers are checked against every published number. Where the counts by class are not published, `--cross-check` asks
a second engine. The run fails (exit code 1) if an answer is wrong or a process breaks down.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counting_cases import Case, goal_cases, own_cases, peer_cases, tiny

SHORT = 5.0  # seconds: what is answered faster is asked several times
COMPILED = ("enumeration", "propagation")  # engines with kernels to compile
HEADER = (
    f"{'network':<24} {'instance':<15} {'region':<19} {'inputs':>15}  {'engine':<13} {'seconds':>10} {'peer s':>8} "
    f"{'ratio':>9} {'MiB':>6}  check"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A case and what came of it.

    Attributes:
        case: What was asked.
        found: What the process of the case wrote, or `failed` with a sentence.
    """

    case: Case
    found: dict[str, Any]

    @property
    def seconds(self) -> float | None:
        """Median of the exact answers, s; None if there is none."""
        return self.found["seconds"] if self.found.get("kind") == "exact" else None

    @property
    def ratio(self) -> float | None:
        """Peer seconds over ours, where both finished."""
        if self.seconds is None or self.case.peer_seconds is None:
            return None
        return self.case.peer_seconds / self.seconds

    @property
    def mistakes(self) -> list[str]:
        """Published numbers that the answer contradicts, and a second engine that does."""
        found, case = self.found, self.case
        if "kind" not in found:
            return []
        wrong = []
        if case.region_size not in (None, found["region_size"]):
            wrong.append(f"{found['region_size']} inputs, published {case.region_size}")
        if case.adversarial is not None and not found["lower"] <= case.adversarial <= found["upper"]:
            wrong.append(f"{found['lower']} adversarial, published {case.adversarial}")
        if case.per_class is not None and found["per_class"] not in (None, list(case.per_class)):
            wrong.append(f"by class {found['per_class']}, published {list(case.per_class)}")
        if found["per_class"] is not None and sum(found["per_class"]) != found["region_size"]:
            wrong.append(f"counts by class add up to {sum(found['per_class'])} of {found['region_size']}")
        if found.get("second") and not found["second"]["agrees"]:
            wrong.append(f"engine {found['second']['engine']} gives another count")
        return wrong

    @property
    def check(self) -> str:
        """How the answer was checked, in a word or two."""
        if "kind" not in self.found:
            return "skipped" if "skipped" in self.found else "NO ANSWER"
        if self.mistakes:
            return "WRONG"
        ways = [] if self.seconds is not None else ["LIMIT"]
        if self.case.per_class is not None and self.seconds is not None:
            ways.append("published")
        elif self.case.adversarial is not None and self.seconds is not None:
            ways.append("published total")
        if self.found.get("second"):
            ways.append(self.found["second"]["engine"])
        elif "second" in self.found:
            ways.append("second engine reached its limit")
        return ", ".join(ways) or "-"

    def __str__(self) -> str:
        found = self.found
        instance = Path(self.case.instance)
        text = f"{instance.stem if instance.suffix else instance}"
        start = f"{found.get('network', Path(self.case.model).stem)[:24]:<24} {text:<15} {self.case.region:<19}"
        if "kind" not in found:
            return f"{start} {found.get('skipped') or found['failed']}"
        seconds, ratio = self.seconds, self.ratio
        peer = "-" if self.case.peer_finished is None else "limit"
        cells = [
            f"{found['region_size']:>15,}" if found["region_size"] < 10**14 else f"{found['region_size']:>15.4e}",
            f" {found['engine'][:13]:<13}",
            f"{'limit' if seconds is None else time_text(seconds):>10}",
            f"{peer if self.case.peer_seconds is None else f'{self.case.peer_seconds:.3f}':>8}",
            f"{'-' if ratio is None else f'{ratio:,.0f}' if ratio >= 10 else f'{ratio:.2f}':>9}",
            f"{found['peak_mib']:>6.0f}",
            f" {self.check}{' SLOWER' if ratio is not None and ratio < 1 else ''}",
        ]
        return " ".join([start, *cells])


def time_text(seconds: float) -> str:
    """Seconds with about four digits: 0.000123, 0.0123, 12.3."""
    return f"{seconds:.6f}" if seconds < 0.01 else f"{seconds:.4f}" if seconds < 1 else f"{seconds:.2f}"


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product of n positive numbers.

    >>> round(geometric_mean([1.0, 100.0]), 9)
    10.0
    """
    return math.exp(statistics.fmean(math.log(value) for value in values))


def summary(rows: Sequence[Row]) -> list[str]:
    """The lines below the table."""
    lines = []
    for title, least in (("rows with more than 0.1 peer seconds", 0.1), ("all rows that the peer finished", 0.0)):
        asked = [row for row in rows if row.case.peer_seconds is not None and row.case.peer_seconds > least]
        ratios = [row.ratio for row in asked if row.ratio is not None]
        if ratios:
            text = f"{title}: geometric mean of the ratio {geometric_mean(ratios):,.0f}"
            text += f" ({min(ratios):,.1f} to {max(ratios):,.0f}; {len(ratios)} rows"
            missing = len(asked) - len(ratios)
            lines.append(text + (f", {missing} more NOT ANSWERED)" if missing else ")"))
    slower = [row.case.name for row in rows if row.ratio is not None and row.ratio < 1]
    if any(row.ratio is not None for row in rows):
        lines.append(f"slower than the peer: {'; '.join(slower) or 'none'}")
    if unfinished := [row for row in rows if row.case.peer_finished is False]:
        times = [row.seconds for row in unfinished if row.seconds is not None]
        slowest = f", the slowest in {time_text(max(times))} s" if times else ""
        lines.append(f"not finished by the peer: {len(times)} of {len(unfinished)} answered{slowest}")
    answered = [row for row in rows if row.seconds is not None]
    lines.append(f"exact answers: {len(answered)} of {len(rows)} cases")
    if skipped := [row for row in rows if "skipped" in row.found]:
        lines.append(f"skipped: {len(skipped)} cases; the reason stands in the row")
    if answered:
        lines.append(f"largest peak memory: {max(row.found['peak_mib'] for row in answered):,.0f} MiB")
    wrong = [f"{row.case.name}: {mistake}" for row in rows for mistake in row.mistakes]
    lines += [f"WRONG: {text}" for text in wrong] or ["no answer contradicts a published number or another engine"]
    return lines


# What runs in the process of a case.


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Asks, times and checks one case: plain values for JSON."""
    import bnnverify
    from bnnverify.errors import BnnVerifyError

    try:
        query = case.query()
    except (BnnVerifyError, OSError) as error:
        return {"skipped": f"skipped: {error}"}

    def ask(query: bnnverify.Query, engine: str, seconds: float) -> tuple[float, bnnverify.Count]:
        limits = bnnverify.Limits(seconds=seconds, threads=options.threads)
        start = time.perf_counter()
        asked = bnnverify.Query(query.network, query.region, query.property, query.ties)
        count = bnnverify.count_adversarial(asked, engine=engine, limits=limits)
        return time.perf_counter() - start, count

    first, _ = ask(tiny(query), options.engine, SHORT)
    for engine in COMPILED if options.engine == "auto" else ():
        try:
            ask(tiny(query), engine, SHORT)
        except BnnVerifyError:
            continue  # an engine that does not serve this question
    base = peak_mib()
    ask(query, options.engine, min(SHORT, options.timeout))
    times: list[float] = []
    while not times or (len(times) < options.runs and times[0] < SHORT):
        query = case.query()
        seconds, count = ask(query, options.engine, options.timeout)
        times.append(seconds)
    found = {
        "network": query.network.architecture,
        "identity": query.identity,
        "region_size": count.region_size,
        "kind": count.kind.value,
        "lower": count.lower,
        "upper": count.upper,
        "per_class": None if count.per_class is None else list(count.per_class),
        "engine": count.run.engine,
        "reason": count.run.reason,
        "statistics": dict(count.run.statistics),
        "seconds": statistics.median(times),
        "runs": [round(seconds, 6) for seconds in times],
        "first_seconds": round(first, 6),
        "base_mib": round(base, 1),
        "peak_mib": round(peak_mib(), 1),
    }
    if options.cross_check is not None and case.per_class is None and count.kind is bnnverify.Kind.EXACT:
        found["second"] = second_opinion(count, lambda engine: ask(query, engine, options.cross_check)[1])
    return found


def second_opinion(count: Any, ask: Any) -> dict[str, Any] | None:
    """What the first other engine says that finishes; None if none does."""
    from bnnverify.engines import NAMES
    from bnnverify.errors import BnnVerifyError
    from bnnverify.results import Kind

    for engine in (name for name in NAMES if name != "sat" and name not in count.run.engine):
        try:
            other = ask(engine)
        except BnnVerifyError:
            continue
        same_classes = None in (other.per_class, count.per_class) or other.per_class == count.per_class
        agrees = other.lower <= count.adversarial <= other.upper and same_classes
        if other.kind is Kind.EXACT or not agrees:
            return {"engine": engine, "agrees": agrees, "seconds": round(other.run.seconds, 6)}
    return None


def peak_mib() -> float:
    """Largest resident memory of this process and of those it waited for so far, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + children) / unit


# What runs in the process that prints.


def run(case: Case, words: Sequence[str], limit: float) -> Row:
    """The row of a case, measured in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), *words, "--case"]
    try:
        done = subprocess.run(command, input=case.to_json(), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Row(case, {"failed": f"no answer: stopped after {limit:.0f} s"})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row(case, {"failed": f"no answer: the process ended with code {done.returncode} ({last})"})
    return Row(case, json.loads(done.stdout.splitlines()[-1]))


def cases_of(options: argparse.Namespace) -> list[Case]:
    """The cases that the options choose, each once."""
    cases = list(own_cases())
    if options.peer is not None and (options.peer / "results.jsonl").is_file():
        cases = [*peer_cases(options.peer), *(goal_cases(options.peer) if options.goals else ())]
    elif options.peer is not None:
        print(f"skipped the peer's rows: {options.peer} has no results.jsonl. Networks of models/ instead.\n")
    return [case for case in dict.fromkeys(cases) if re.search(options.rows, case.name)]


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="DIR", help="folder of BNNQuanalyst's models and results")
    parser.add_argument("--goals", action="store_true", help="also rows that the peer never finished")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only cases whose name it finds")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, help="cores to use; default all")
    parser.add_argument("--runs", type=int, default=5, help="of each question below 5 s")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a question")
    parser.add_argument("--cross-check", type=float, metavar="SECONDS", help="a second engine, and its limit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append one line per case")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)  # one case, as JSON on stdin
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run and print; 1 if an answer is wrong or missing, 130 if interrupted."""
    options = parsed(words)
    if options.case:
        print(json.dumps(measure(Case.from_json(sys.stdin.read()), options)))
        return 0
    cases = cases_of(options)
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    cores = options.threads or os.cpu_count()
    print(f"{platform.platform()}, {cores} core(s); engine {options.engine}; warm, median of {options.runs} runs below")
    print(f"{SHORT:g} s, set-up of the instance included; process start, reading files and JIT compilation excluded.")
    print("MiB: peak of the whole process, Python and libraries and compiler included. Peer: one core, as published.\n")
    print(HEADER, flush=True)
    passed = sys.argv[1:] if words is None else list(words)
    limit = 60 + SHORT * (options.runs + 4) + options.timeout + 3 * (options.cross_check or 0)
    rows: list[Row] = []
    interrupted = False
    try:
        for case in cases:
            rows.append(run(case, passed, limit))
            print(rows[-1], flush=True)
            if options.json is not None:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"case": json.loads(case.to_json()), "found": rows[-1].found}) + "\n")
    except KeyboardInterrupt:
        interrupted = True
    print("\n" + "\n".join(summary(rows)))
    if any(row.mistakes or "failed" in row.found for row in rows):
        return 1
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
