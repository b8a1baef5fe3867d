"""The claims on one page: for which networks each is proved to hold, and for which it is refuted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from energy import PROGRAMMINGS
from questions import Asker
from settings import DROPS, INJECTED, MARGIN, MRAM_RATE, REFERENCES, RRAM_PLAIN_RATE, RRAM_RATE
from words import holds, points, power, table

from bnnverify.faults import BitFlip

MARGIN_RATES = (Fraction(1, 100), RRAM_RATE, Fraction(1, 10))


def verdicts(askers: Mapping[str, Asker]) -> str:
    """Every claim with the networks that keep and that break it, and what they lose."""
    every = list(askers.values())
    usual = [asker for role, asker in askers.items() if role != INJECTED]
    injected = [askers[role] for role in (INJECTED,) if role in askers]
    rows: list[list[str]] = []
    for claim, p, some, drops in (
        ("ST-MRAM: 0.001 does little harm", MRAM_RATE, every, DROPS[:2]),
        ("RRAM: 0.0001 does little harm without errors in training", RRAM_PLAIN_RATE, usual, DROPS[:2]),
        ("RRAM: 0.04 is tolerable after training with errors", RRAM_RATE, injected, DROPS[1:]),
        ("the same without such training", RRAM_RATE, usual, DROPS[1:]),
    ):
        rows += [[claim, *_row(some, p, drop)] for drop in drops if some]
    if {INJECTED, MARGIN} <= askers.keys():
        rows.append(
            ["the margin loss tolerates more than errors in training", *_duel(askers[MARGIN], askers[INJECTED])]
        )
    head = ["claim", "measure", "proved to hold for (points lost)", "proved not to hold for", "open"]
    return f"{table(head, rows)}\n\n{_energy()}"


def _row(askers: Sequence[Asker], p: Fraction, drop: Fraction) -> list[str]:
    """At most so many points lost: who keeps that, who does not, where the proof is too coarse."""
    found: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for asker in (one.many(p) for one in askers):
        clean, accuracy = asker.subject.clean, asker.proved(BitFlip(p))
        found[holds(clean, accuracy, drop)].append(f"{asker.subject.trained.title} ({points(clean, accuracy)})")
    images = f"{len(askers[0].many(p).subject.x):,} images"
    measure = f"{images}: at most {float(100 * drop):g} point{'s' * (drop != Fraction(1, 100))} lost"
    return [measure, *("; ".join(found[answer]) for answer in (True, False, None))]


def _duel(one: Asker, other: Asker) -> list[str]:
    """Which of two networks is the more accurate one, by rate."""
    found: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for p in MARGIN_RATES:
        mine, theirs = one.proved(BitFlip(p)), other.proved(BitFlip(p))
        better = True if mine.lower > theirs.upper else False if mine.upper < theirs.lower else None
        found[better].append(power(p))
    return ["more accurate at", *(", ".join(found[answer]) for answer in (True, False, None))]


def _times(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _energy() -> str:
    """What the two claims about energy come to with the illustrative cells."""
    sentences = []
    for memory, cell, rate, claim in (("ST-MRAM", "mtj", MRAM_RATE, "two"), ("RRAM", "rram", RRAM_RATE, "30")):
        saved: dict[str, list[float]] = {}
        for programming in PROGRAMMINGS:
            if programming.cell == cell:
                times = programming.savings([rate], REFERENCES[0])[rate]
                saved.setdefault(programming.tuned, []).append(times)
        texts = [f"{_times(times)} by less {tuned}" for tuned, times in saved.items()]
        sentences.append(
            f"On {memory}, a factor of {claim} in energy was claimed; here, from writes that fail at "
            f"{power(REFERENCES[0])} to writes that fail at {power(rate)}, it is {' and '.join(texts)} of the pulses."
        )
    return " ".join(sentences) + " These cells are illustrative; see [below](#what-a-wrong-bit-saves)."
