"""Accuracies of faulty chips as people and programs read them: the table, and the file of comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from bnnverify.report.lines import outward

HEADER = f"{'bit error rate':<24}  {'accuracy':<25}  {'width':>8}  {'kind':<18}  {'in tolerance':>12}  time"
COLUMNS = ("faults", "p", "p01", "p10", "kind", "lower", "upper", "confidence", "seconds", "event", "rates", "chips")


def row(line: dict[str, Any]) -> str:
    """One accuracy as a row of the table; what else was asked as lines below it."""
    answer = line["answer"]
    if answer["type"] == "tolerance":
        return _bracket(line)
    if answer["type"] == "yield":
        return _yield(answer)
    low, high = outward(answer, 8)
    width = float(Fraction(answer["upper"]) - Fraction(answer["lower"]))
    kind = answer["kind"]
    if kind == "sampled":
        name = "whole chips" if answer.get("method") == "whole chips" else "sampled"
        kind = f"{name}, {answer['confidence']:.4g}"
    rest = ""
    if "images_within_tolerance" in answer:
        share = f"{answer['images_within_tolerance']}/{len(line['images']['indices'])}"
        rest = f"  {share:>9} {answer['run']['seconds']:8.2f} s  {answer['run']['reason']}".rstrip()
    elif answer["run"]["reason"]:
        rest = f"  {answer['run']['reason']}"
    bounds = f"{f'{low}..{high}':<25}  {width:8.1e}"
    return f"{line['question']['rates']:<24}  {bounds}  {kind:<18}{rest}".rstrip()


def _yield(answer: dict[str, Any]) -> str:
    words = [f"  chips that reach {_target(answer['threshold'])}:"]
    if answer["proved"] is not None:
        words.append("{}..{} (proved)".format(*outward(answer["proved"], 6)))
    if answer["sampled"] is not None:
        sampled = answer["sampled"]
        low, high = outward(sampled, 6)
        words.append(f"{low}..{high} (sampled, {sampled['hits']} of {sampled['samples']} chips)")
    return " ".join([words[0], "; ".join(words[1:])])


def _bracket(line: dict[str, Any]) -> str:
    answer = line["answer"]
    words = [f"\naccuracy {_target(line['question']['target_accuracy'])}:"]
    if answer["p_ok"] is not None:
        kept = outward(answer["accuracy_ok"], 6)[0]
        words.append(f"kept at p = {decimal(answer['p_ok'])} (at least {kept}, proved)")
    if answer["p_fail"] is not None:
        lost = outward(answer["accuracy_fail"], 6)[1]
        words.append(f"lost at p = {decimal(answer['p_fail'])} (at most {lost}, proved)")
    return words[0] + " " + "; ".join(filter(None, [*words[1:], answer["run"]["reason"]]))


def _target(text: str) -> str:
    """A target's text in full, for 0.99999 is not 1."""
    return f"{float(Fraction(text)):.15g}"


def decimal(text: str) -> str:
    """A Fraction's text in four digits, for people."""
    return f"{float(Fraction(text)):.4g}"


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The accuracies as comma-separated values; bounds rounded outward to 12 decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        answer = line["answer"]
        if answer["type"] != "accuracy":
            continue
        question = line["question"]
        faults = question["faults"]
        numbers = [decimal(faults[name]) if name in faults else "" for name in ("p", "p01", "p10")]
        rest = (answer.get("confidence") or "", answer["run"]["seconds"], question["event"], question["rates"])
        numbers = [faults["kind"], *numbers, answer["kind"], *outward(answer, 12), *rest, answer.get("chips", "")]
        writer.writerow(numbers)
    return text.getvalue()
