"""Writes the tables of README.md from the results: numbers, the cells that were written, and the runs of the claims.

python case_studies/training/table.py [--print] [--readme FILE]
python case_studies/training/table.py --data digits --epochs 2 --results trial.jsonl --print    (of a trial)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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

        found_totals = [{**r["totals"], "cells": r["cells"]} for r in runs]
        lines.append(f"| `{name}` | {' | '.join(_writing(found_totals))} |")
    return "\n".join(lines)


def _writing(totals: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells of a line, empty where the rule has no such total."""

    def shown(key: str, form: Callable[[float], str], *, by_cells: bool = False) -> str:
        values = [t[key] / (t["cells"] if by_cells else 1) for t in totals if t.get(key) is not None]
        return form(float(np.mean(values))) if values else ""

    return [
        shown("pulses", "{:.3g}".format, by_cells=True),
        shown("switches", "{:.3g}".format, by_cells=True),
        shown("switches_per_cell_max", "{:.0f}".format),
        shown("energy_joule", _joule),
        shown("auxiliary_pulses", "{:.3g}".format, by_cells=True),
        shown("undone_fraction", lambda share: f"{share:.0%}" if share else ""),
    ]


def _joule(energy: float) -> str:
    """With a prefix.

    >>> _joule(3.2e-5)
    '32 µJ'
    """
    for factor, unit in ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")):
        if energy >= factor:
            return f"{energy / factor:.3g} {unit}"
    return f"{energy / 1e-12:.3g} pJ"


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
