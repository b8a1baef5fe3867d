"""Writes the tables of README.md from the results: numbers, the cells that were written, and the runs of the claims.

python case_studies/training/table.py [--print] [--readme FILE]
python case_studies/training/table.py --data digits --epochs 2 --results trial.jsonl --print    (of a trial)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from records import README, Results, between_markers, percent, read, results, results_file, study_options
from settings import ROWS

from bnnverify.errors import BnnVerifyError


def numbers(found: Mapping[str, Results], section: str) -> str:
    """Accuracy of every row of a section against its target, as a markdown table.

    The mean over the seeds decides whether a target is met; the accuracy of every seed lies in the range.
    """
    lines = [
        "| run | rule and network | images | epochs | target | test accuracy, mean | range (seeds) | met | s per run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        if row.section != section:
            continue
        config = row.config(0)
        images = "train + validation" if config.train_on_validation else "train"
        target = f"{percent([row.target])}" if row.target else row.expected
        source = f" ({row.source})" if row.source else ""
        measured = _measured(found.get(name), row.target)
        epochs = _epochs(found.get(name), config.epochs)
        lines.append(f"| `{name}` | {row.title} | {images} | {epochs} | {target}{source} | {measured} |")
    return "\n".join(lines)


def _measured(result: Results | None, target: float | None) -> str:
    """The last four cells of a line."""
    if result is None:
        return "not run | | | "
    dead = len(result.records) - len(result.finished)
    if not result.finished:
        return f"none: {dead} of {dead} runs ended early | | {'no' if target else ''} | "
    mean = result.mean()
    met = "" if target is None else "yes" if mean >= target else f"no, {100 * (mean - target):+.2f}"
    many = f"{len(result.finished)}{f', {dead} ended early' if dead else ''}"
    seconds = np.mean([r["seconds"] for r in result.finished])
    return f"**{percent([mean], 2)}** | {percent(result.test, 2)} ({many}) | {met} | {seconds:.0f}"


def _epochs(result: Results | None, asked: int) -> int:
    return asked if result is None or not result.finished else int(result.finished[0]["epochs"])


def cells(found: Mapping[str, Results]) -> str:
    """What writing the cells took in the rows whose rule pulses cells, as a markdown table; means over the seeds."""
    lines = [
        "| run | pulses per cell | switches per cell | most switches of one cell | energy of all pulses "
        "| auxiliary pulses per weight | events undone |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in found.items():
        runs = [r for r in result.finished if "pulses" in r["totals"]]
        if not runs or result.row.section != "numbers":
            continue

        def mean(key: str, runs: Sequence[dict] = runs, *, each: bool = False) -> float | None:
            values = [r["totals"].get(key) for r in runs]
            if any(v is None for v in values):
                return None
            return float(np.mean([v / (r["cells"] if each else 1) for v, r in zip(values, runs, strict=True)]))

        energy, undone = mean("energy_joule"), mean("undone_fraction")
        auxiliary = mean("auxiliary_pulses", each=True)
        lines.append(
            f"| `{name}` | {mean('pulses', each=True):.3g} | {mean('switches', each=True):.3g} "
            f"| {mean('switches_per_cell_max'):.0f} | {'' if energy is None else _joule(energy)} "
            f"| {'' if auxiliary is None else f'{auxiliary:.3g}'} | {f'{undone:.0%}' if undone else ''} |"
        )
    return "\n".join(lines)


def _joule(energy: float) -> str:
    """With a prefix.

    >>> _joule(3.2e-5)
    '32 µJ'
    """
    for factor, unit in ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")):
        if energy >= factor:
            return f"{energy / factor:.3g} {unit}"
    return f"{energy / 1e-9:.3g} nJ"


def main(words: Sequence[str] | None = None) -> int:
    """Writes or prints the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the tables and leave the page alone")
    parser.add_argument("--readme", type=Path, default=README, metavar="FILE", help="page with the markers")
    study_options(parser)
    arguments = parser.parse_args(words)
    try:
        found = results(read(results_file(arguments)), data=arguments.data, epochs=arguments.epochs)
        tables = {"numbers": numbers(found, "numbers"), "cells": cells(found), "claims runs": numbers(found, "claims")}
        if arguments.print:
            print("\n\n".join(tables.values()))
            return 0
        page = arguments.readme.read_text(encoding="utf-8")
        for marker, text in tables.items():
            page = between_markers(page, marker, text)
        arguments.readme.write_text(page, encoding="utf-8")
    except BnnVerifyError as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
