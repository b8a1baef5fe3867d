"""From real images to exact answers: the whole way, on scikit-learn's handwritten digits.

Trains two binarized networks 64-32-10, one with latent weights (straight-through estimator), one as an array of
binary memristors would be trained (stochastic switching), and proves things about both on real test images: the
class, robustness in Hamming balls with counterexamples, exact adversarial counts, distances, and the accuracy of
chips whose cells hold wrong bits, with Monte Carlo beside it. Every step is a `bnnverify` command, printed as it runs;
the answers are kept as JSON lines, and a report is drawn from them.

    python case_studies/digits/run.py [--jobs 2] [--out out/demo] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from bnnverify.cli import main as bnnverify
from bnnverify.report.lines import outward

NETWORKS = {"ste": "latent weights (straight-through estimator)", "ss-ema": "stochastic switching of binary cells"}

Line = dict[str, Any]


def run(words: Sequence[str], output: Path | None = None) -> list[Line]:
    """Run one command; the result lines it prints, also kept in `output`."""
    print(f"  $ {shlex.join(['bnnverify', *words])}{f' > {output}' if output else ''}", flush=True)
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = bnnverify(words)
    if output is not None:
        output.write_text(stdout.getvalue(), encoding="utf-8")
    if code not in (0, 3):  # 3: a limit was reached; the partial answers are there, labelled
        raise SystemExit(code)
    return [json.loads(line) for line in stdout.getvalue().splitlines()] if "--json" in words else []


def say(text: str = "") -> None:
    """One line for the reader."""
    print(text, flush=True)


def picture(x: Sequence[int], shape: Sequence[int], marked: Iterable[int] = ()) -> list[str]:
    """A sign image as text: # is +1, . is -1; marked pixels as O (+1) and o (-1)."""
    marks = set(marked)
    symbols = [("O" if v > 0 else "o") if i in marks else ("#" if v > 0 else ".") for i, v in enumerate(x)]
    return ["".join(symbols[row * shape[1] : (row + 1) * shape[1]]) for row in range(shape[0])]


def summarize_decisions(lines: list[Line]) -> None:
    """Verdicts, and the first counterexample as a picture."""
    verdicts = Counter(line["answer"]["verdict"] for line in lines)
    radius = lines[0]["question"]["region"]["radius"]
    say(f"    within {radius} flipped pixels: {', '.join(f'{n} {v}' for v, n in sorted(verdicts.items()))}")
    for line in lines:
        found, image = line["answer"]["counterexample"], line["image"]
        changed = [i for i, (a, b) in enumerate(zip(found or [], image["input"], strict=bool(found))) if a != b]
        if changed and image["label"] == image["predicted"]:
            say(
                f"    test image {image['index']}: a {image['predicted']}, and a {line['answer']['predicted']} after "
                f"{len(changed)} flipped pixel{'s' * (len(changed) > 1)} (O, o):"
            )
            shape = line["model"]["shape"]
            for left, right in zip(picture(image["input"], shape), picture(found, shape, changed), strict=True):
                say(f"        {left}    {right}")
            return


def summarize_counts(lines: list[Line]) -> None:
    """Exact numbers of adversarial inputs for the first images."""
    for line in lines[:4]:
        answer, image = line["answer"], line["image"]
        to = {k: n for k, n in enumerate(answer["per_class"] or []) if n and k != image["predicted"]}
        classes = ", ".join(f"{n:,} to class {k}" for k, n in sorted(to.items(), key=lambda item: -item[1])[:3])
        say(
            f"    test image {image['index']} (class {image['predicted']}): {answer['lower']:,} of "
            f"{answer['region_size']:,} inputs adversarial ({answer['kind']}){'; ' if classes else ''}{classes}"
        )


def summarize_distances(lines: list[Line]) -> None:
    """How far the nearest adversarial inputs are."""
    found = Counter(line["answer"]["upper"] for line in lines if line["answer"]["kind"] == "exact")
    say(f"    exact distances: {', '.join(f'{n} images at {d}' for d, n in sorted(found.items()))}")
    if open_ones := len(lines) - sum(found.values()):
        say(f"    {open_ones} images: only a proved lower bound in the time allowed")


def summarize_reliability(lines: list[Line]) -> None:
    """Accuracy against bit error rate, certified and sampled."""
    images = lines[0]["images"]
    say(f"    {images['clean_correct']} of {len(images['indices'])} test images right without errors")
    say(f"    {'bit error rate':>14}  {'certified accuracy':>20}      Monte Carlo, 99 %  P(error) per image")
    rows: dict[str, dict[str, Line]] = {}
    for line in lines:
        kind = "sampled" if line["answer"]["kind"] == "sampled" else "proved"
        rows.setdefault(line["question"]["faults"]["p"], {})[kind] = line["answer"]
    for p, row in rows.items():
        proved, sampled = row["proved"], row["sampled"]
        low, high = outward(proved, 6)
        narrow = f"{proved['images_within_tolerance']} of {len(images['indices'])} within tolerance"
        say(f"    {float(Fraction(p)):14.3g}  [{low}, {high}]      [{', '.join(outward(sampled, 4))}]  {narrow}")


def study(rule: str, out: Path, jobs: int, quick: bool) -> list[Path]:
    """Train one network and ask everything about it; the files with the answers."""
    say(f"\n{NETWORKS[rule]}")
    model, data = str(out / f"{rule}.npz"), ["--data", "digits"]
    many, few, points = ("0:8", "0:2", "3") if quick else ("0:40", "0:12", "8")
    common = ["--jobs", str(jobs), "--json", "-q"]
    lines = run(
        ["train", *data, "--hidden", "32", "--rule", rule, "--seed", "0", "-o", model, "--json", "-q"],
        out / f"{rule}-train.jsonl",
    )
    accuracy = lines[0]["answer"]["accuracy"]
    say(
        f"    sha256 {lines[0]['model']['identity'][:16]}, accuracy: "
        + ", ".join(f"{split} {value:.1%}" for split, value in accuracy.items())
    )
    decided = run(["verify", model, *data, "--index", many, "--radius", "2", *common], out / f"{rule}-verify.jsonl")
    summarize_decisions(decided)
    counted = run(["count", model, *data, "--index", few, "--radius", "3", *common], out / f"{rule}-count.jsonl")
    summarize_counts(counted)
    measured = run(
        ["distance", model, *data, "--index", many, "--timeout", "20", *common], out / f"{rule}-distance.jsonl"
    )
    summarize_distances(measured)
    chips = run(
        [
            "reliability",
            model,
            *data,
            "--ber",
            f"1e-4:1e-1:log:{points}",
            "--max-states",
            "1000",
            "--samples",
            "1000",
            "--seed",
            "0",
            *common,
        ],
        out / f"{rule}-reliability.jsonl",
    )
    summarize_reliability(chips)
    return [out / f"{rule}-{verb}.jsonl" for verb in ("train", "verify", "count", "distance", "reliability")]


def main() -> None:
    """Run the study and say where the report is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--quick", action="store_true", help="few images and rates, to see that everything works")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    say("bnnverify demo: two binarized networks on scikit-learn's handwritten digits (8x8 pixels, real images).")
    say("Every statement below is exact or a proved interval, except what is called Monte Carlo.")
    if not sys.stdout.isatty():
        say("(the first run also compiles the inner loops, which takes some seconds)")
    files: list[Path] = []
    for rule in NETWORKS:
        files += study(rule, arguments.out, arguments.jobs, arguments.quick)
    report = arguments.out / "report.html"
    say("\nreport")
    run(["report", *map(str, files), "-o", str(report)])
    say(f"\n{time.perf_counter() - start:.0f} s. Open {report.resolve()}")


if __name__ == "__main__":
    main()
