"""Draws the figures of the study and writes what they say about five published claims into README.md.

Every number and every verdict is computed from the results. "Confirmed" means that each run on the one side ends
with a higher test accuracy than each run on the other, with two seeds or more on both; "on average only" that the
means are in this order, but the ranges over the seeds overlap.

    python case_studies/training/claims.py [--readme FILE] [--figures DIR]
    python case_studies/training/claims.py --data digits --epochs 2 --results trial.jsonl --print    (of a trial)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import figures
import numpy as np
from matplotlib.figure import Figure
from records import HERE, README, Results, between_markers, percent, read, results, results_file, study_options
from settings import IMBALANCES, MEMRISTORS, memristors_row, soft_bound_row

from bnnverify.errors import BnnVerifyError

Found = Mapping[str, Results]

THESIS = "Akesson, thesis LU/LTH-EIT 2022-887, Lund University, 2022"
ZERO_SHIFTING = "Kim, Rasch, Gokmen et al., arXiv:1907.10228, 2019"


@dataclass(frozen=True, slots=True)
class Claim:
    """A published statement and what the runs say about it.

    Attributes:
        name: Of the figure's files.
        statement: In words.
        source: Who states it.
        rows: Names of the rows it needs.
        verdict: Sentences from the results of these rows.
        draw: The figure from the same.
        caption: What the figure shows.
    """

    name: str
    statement: str
    source: str
    rows: tuple[str, ...]
    verdict: Callable[[Found], str]
    draw: Callable[[Found], Figure]
    caption: str

    def missing(self, found: Found) -> list[str]:
        """The rows without a finished run."""
        return [name for name in self.rows if name not in found or not found[name].finished]


def compared(better: Results, worse: Results) -> str:
    """How clearly the one is better than the other.

    "confirmed", "confirmed by single runs", "on average only", or "not confirmed".
    """
    if min(better.test) > max(worse.test):
        return "confirmed" if min(len(better.test), len(worse.test)) > 1 else "confirmed by single runs"
    return "on average only" if better.mean() > worse.mean() else "not confirmed"


def _ends(result: Results) -> str:
    """Mean and range, in a sentence."""
    n = len(result.finished)
    runs = "1 run" if n == 1 else f"{percent(result.test)} in {n} runs"
    return f"{percent([result.mean()])} ({runs})"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# 1: batch norm

_NORM = {
    "latent weights (STE)": ("ste-55k", "ste-bn-55k"),
    "switching by an exponential average": ("ss-ema-55k", "ss-ema-bn-55k"),
}


def _batch_norm(found: Found) -> str:
    sentences = []
    for rule, (without, with_norm) in _NORM.items():
        plain, normed = found[without], found[with_norm]
        sentences.append(
            f"{_upper(compared(normed, plain))} for {rule}: {_ends(plain)} without batch norm, {_ends(normed)} with."
        )
    return " ".join(sentences)


def _draw_batch_norm(found: Found) -> Figure:
    panels = {
        _upper(rule): {"with batch norm": found[with_norm], "without": found[without]}
        for rule, (without, with_norm) in _NORM.items()
    }
    return figures.learning_curves(panels)


# 2: accumulation

_ACCUMULATORS = {
    "saturating counter, 6 bits": "ss-count-55k",
    "exponential average": "ss-ema-55k",
    f"{MEMRISTORS[-1]} memristors": memristors_row(MEMRISTORS[-1]),
    "sum of 20 mini-batches": "ss-batch-55k",
    "memoryless": "ss-none-55k",
}


def _accumulation(found: Found) -> str:
    memoryless = found["ss-none-55k"]
    others = [(name, found[row]) for name, row in _ACCUMULATORS.items() if name != "memoryless"]
    verdicts = [compared(result, memoryless) for _, result in others]
    verdict = verdicts[0] if len(set(verdicts)) == 1 else "different for different memories"
    ends = ", ".join(
        f"{name} {_ends(result)}{'' if v == verdict else f' [{v}]'}"
        for (name, result), v in zip(others, verdicts, strict=True)
    )
    return f"{_upper(verdict)}: memoryless switching ends at {_ends(memoryless)}; {ends}."


def _draw_accumulation(found: Found) -> Figure:
    return figures.learning_curves({"": {name: found[row] for name, row in _ACCUMULATORS.items()}})


# 3: undo


def _undo(found: Found) -> str:
    without, with_undo = found["collapse"], found["undo"]
    falls = {result.row.name: _fall(result) for result in (without, with_undo)}
    undone = np.mean([r["totals"]["undone_fraction"] for r in with_undo.finished])
    return (
        f"{_upper(compared(with_undo, without))}: at the switching rate {_rate(without)} the network ends at "
        f"{_ends(without)} without undo, {100 * falls['collapse']:.1f} points below its best epoch on the validation "
        f"images; with undo at {_ends(with_undo)}, {100 * falls['undo']:.1f} points below. Of the switching events, "
        f"{undone:.0%} were taken back. For comparison, the rate {_rate(found['ss-ema-55k'])} without undo: "
        f"{_ends(found['ss-ema-55k'])}."
    )


def _fall(result: Results) -> float:
    """From the best epoch to the last, validation accuracy, mean over the runs."""
    curves = result.curves("validation_accuracy")
    return float((curves.max(axis=1) - curves[:, -1]).mean())


def _rate(result: Results) -> str:
    return str(result.records[0]["config"]["options"]["rate"])


def _draw_undo(found: Found) -> Figure:
    return figures.undo(found["collapse"], found["undo"])


# 4: memristors as accumulators


def _memristors(found: Found) -> str:
    runs = {count: found[memristors_row(count)] for count in MEMRISTORS}
    memoryless, average = found["ss-none-55k"], found["ss-ema-55k"]
    best = max((count for count in MEMRISTORS if count > 1), key=lambda count: _last_validation(runs[count]))
    by_count = ", ".join(f"{_ends(runs[count])} with {count}" for count in MEMRISTORS)
    return (
        f"{_upper(compared(runs[best], memoryless))}. Memristors that switch stochastically, and no digital memory: "
        f"{by_count} for each weight; memoryless {_ends(memoryless)}, a real-valued average "
        f"{_ends(average)}. The verdict is on K = {best}, the best by validation accuracy of those above 1."
    )


def _last_validation(result: Results) -> float:
    return float(result.curves("validation_accuracy")[:, -1].mean())


def _draw_memristors(found: Found) -> Figure:
    runs = {count: found[memristors_row(count)] for count in MEMRISTORS}
    return figures.memristors(runs, {"memoryless": found["ss-none-55k"], "real-valued average": found["ss-ema-55k"]})


# 5: zero shifting


def _zero_shift(found: Found) -> str:
    greatest = IMBALANCES[-1]
    balanced = found[soft_bound_row(IMBALANCES[0], zero_shift=False)]
    hurt = found[soft_bound_row(greatest, zero_shift=False)]
    mended = found[soft_bound_row(greatest, zero_shift=True)]
    plus = {result.row.name: np.mean([r["plus_all"] for r in result.finished]) for result in (hurt, mended)}
    lost = balanced.mean() - hurt.mean()
    share = f", {(mended.mean() - hurt.mean()) / lost:.0%} of what was lost" if lost > 0 else ""
    return (
        f"{_upper(compared(balanced, hurt))} that imbalance hurts: {_ends(balanced)} with balanced pulses, "
        f"{_ends(hurt)} at an imbalance of {greatest:g}, where {plus[hurt.row.name]:.0%} of the weights end at +1. "
        f"{_upper(compared(mended, hurt))} that zero shifting mends it: {_ends(mended)} with it{share}; "
        f"{plus[mended.row.name]:.0%} of the weights end at +1."
    )


def _draw_zero_shift(found: Found) -> Figure:
    series = {
        label: {imbalance: found[soft_bound_row(imbalance, zero_shift=shifted)] for imbalance in IMBALANCES}
        for label, shifted in (("with zero shift", True), ("without", False))
    }
    return figures.zero_shift(series)


CLAIMS = (
    Claim(
        "batch-norm",
        "Without batch norm, accuracy is lost.",
        THESIS,
        tuple(row for rows in _NORM.values() for row in rows),
        _batch_norm,
        _draw_batch_norm,
        "Validation accuracy with and without batch norm",
    ),
    Claim(
        "accumulation",
        "Stochastic switching needs some accumulation of gradients.",
        THESIS,
        tuple(_ACCUMULATORS.values()),
        _accumulation,
        _draw_accumulation,
        "Validation accuracy of five memories",
    ),
    Claim(
        "undo",
        "Undoing harmful switches stabilizes the training.",
        THESIS,
        ("collapse", "undo", "ss-ema-55k"),
        _undo,
        _draw_undo,
        "At a rate that collapses: accuracy, share of events undone, factor on the rate",
    ),
    Claim(
        "memristors",
        "Gradients can be accumulated in stochastically switching memristors (an outlook of the thesis).",
        THESIS,
        (*(memristors_row(count) for count in MEMRISTORS), "ss-none-55k", "ss-ema-55k"),
        _memristors,
        _draw_memristors,
        "Memristors as accumulators: learning curves, and test accuracy against their number",
    ),
    Claim(
        "zero-shift",
        "Imbalance between up and down pulses of soft-bound devices costs accuracy; zero shifting restores it.",
        ZERO_SHIFTING,
        tuple(soft_bound_row(i, zero_shift=shifted) for shifted in (False, True) for i in IMBALANCES),
        _zero_shift,
        _draw_zero_shift,
        "Soft-bound synapses as latent weights: accuracy and share of +1 against the imbalance",
    ),
)


def section(number: int, claim: Claim, found: Found, folder: str) -> str:
    """A claim as markdown; says which runs are missing where there are any."""
    lines = [f"### {number}. {claim.statement}", "", f"*{claim.source}*", ""]
    missing = claim.missing(found)
    if missing:
        names = " ".join(missing)
        return "\n".join([*lines, f"Not yet answered: `python case_studies/training/runs.py --only {names}`"])
    return "\n".join([*lines, claim.verdict(found), "", f"![{claim.caption}]({folder}/{claim.name}.svg)"])


def main(words: Sequence[str] | None = None) -> int:
    """Draws and writes; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the sentences; write neither page nor figures")
    parser.add_argument("--readme", type=Path, default=README, metavar="FILE", help="page with the markers")
    parser.add_argument("--figures", type=Path, default=HERE / "figures", metavar="DIR", help="where the figures go")
    study_options(parser)
    arguments = parser.parse_args(words)
    try:
        found = results(read(results_file(arguments)), data=arguments.data, epochs=arguments.epochs)
        text = "\n\n".join(section(i, c, found, arguments.figures.name) for i, c in enumerate(CLAIMS, start=1))
        if arguments.print:
            print(text)
            return 0
        for claim in CLAIMS:
            if not claim.missing(found):
                figures.write(claim.draw(found), arguments.figures / claim.name)
        page = arguments.readme.read_text(encoding="utf-8")
        arguments.readme.write_text(between_markers(page, "claims", text), encoding="utf-8")
    except BnnVerifyError as error:
        print(f"claims.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
