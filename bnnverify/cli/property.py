"""A VNN-LIB property of a model: satisfiable (a counterexample), unsatisfiable (robust), or unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Context, Decimal
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from bnnverify.cli.lines import emit, envelope
from bnnverify.cli.models import say_assumptions
from bnnverify.engines.base import Clock, Limits
from bnnverify.engines.portfolio import require_engine
from bnnverify.errors import QueryError, UnsupportedError
from bnnverify.files import write_whole
from bnnverify.formats import import_model, kind_of, load_network, vnnlib
from bnnverify.formats.coding import InputCoding, decimal_text
from bnnverify.formats.imported import Imported
from bnnverify.formats.runtime import outputs
from bnnverify.reading import shown
from bnnverify.results import Decision, Run, Verdict
from bnnverify.robustness import decide

if TYPE_CHECKING:
    from bnnverify.formats.vnnlibcases import Cases
    from bnnverify.query import Query

MOST_COUNTED = 10**15  # cases; for more the JSON line has null
WORDS = {Verdict.NOT_ROBUST: "sat", Verdict.ROBUST: "unsat", Verdict.UNKNOWN: "unknown"}


def verify_property(
    model: Path,
    path: Path,
    *,
    engine: str,
    limits: Limits,
    jobs: int,
    as_json: bool,
    result: Path | None,
    certificate: Path | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Decision:
    """Decides a property and prints the answer.

    Args:
        model: File of the network, of any kind that is read.
        path: The property, ``.vnnlib`` or ``.vnnlib.gz``.
        engine: As in `robustness.decide`.
        limits: For all of it, reading included.
        jobs: Processes.
        as_json: Print a JSON line.
        result: Also write the answer as the VNN competition has it: sat, unsat, unknown or timeout, and for sat the
            counterexample.
        certificate: Also write evidence there, in a folder per question where the property comes to several.
        reading: The options that say what the file of the network leaves open (`importing.model_options`).
    """
    clock = Clock(limits.seconds)
    specification = vnnlib.load(path)
    imported = imported_of(model, specification, reading or {})
    say_assumptions(model, imported.network)
    queries = specification.queries(imported)
    if certificate is not None and not isinstance(queries, tuple):
        raise QueryError(
            f"{path}: comes to too many boxes, expected few hundred at most with --certificate, "
            "which writes a folder for each question."
        )
    for query in queries if isinstance(queries, tuple) else islice(queries, 1):
        require_engine(engine, query)
    answer = _decided(queries, engine, limits, clock, jobs)
    if answer.counterexample is not None:  # a question may be about some of the classes only
        answer = replace(answer, predicted=imported.network.evaluate(answer.counterexample))
    if result is not None:
        write_whole(result, result_text(imported, model, answer, specification.cases).encode("ascii"))
    if certificate is not None and isinstance(queries, tuple):
        _certify(imported, queries, answer, certificate, limits)
    if as_json:
        count = specification.cases.count
        question = {"property": shown(path), "cases": count if count <= MOST_COUNTED else None}
        emit({**envelope("verify", model, imported.network), "question": question, "answer": answer.to_json()})
        return answer
    click.echo(f"{model}  {imported.network.architecture}  |  {path}")
    found = answer.run.reason or "proved"
    if answer.counterexample is not None:
        found = f"an input of class {answer.predicted}, replayed on the exact network"
    click.echo(f"{answer.verdict.value} ({WORDS[answer.verdict]}): {found}; by {answer.run.engine}.")
    click.echo(stage_line(answer))
    return answer


def stage_line(answer: Decision) -> str:
    """The stages with their seconds, and how near an open question is to an answer."""
    statistics = answer.run.statistics
    parts = [f"{name} {seconds:.2f} s" for name, seconds in statistics.get("stages", ())]
    line = f"{', '.join(parts) or answer.run.engine}; {answer.run.seconds:.2f} s in all"
    if answer.verdict is Verdict.UNKNOWN and statistics.get("best_bound") is not None:
        line += (
            f"; best bound {statistics['best_bound']}, best margin {statistics['best_margin']} (adversarial from 0 on)"
        )
    return line


def imported_of(model: Path, specification: vnnlib.Specification, reading: Mapping[str, Any]) -> Imported:
    """The network with how its inputs correspond to the file's: one to one for bnnverify's own files.

    Raises:
        QueryError: An option says what the file itself says.
        UnsupportedError: The file takes quantized pixels, so what X means there is open.
    """
    from bnnverify.cli.importing import coding_of, shape_of, torch_options, zero_sign_of

    given = {name: value for name, value in reading.items() if value not in (None, ())}
    kind = kind_of(model)
    if kind == "eevbnn":
        raise UnsupportedError(
            f"{model}: takes pixels rounded to multiples of its quant_step, but a property is about real X, and "
            "nothing says what these are there. Ask about images (--data mnist --index 0 --eps 0.1), or run "
            "`bnnverify import` with -o FILE: for that file X are the quantized integers."
        )
    if kind not in ("native", "bnnquanalyst"):
        scale, offset = given.get("input_scale"), given.get("input_offset")
        pixels = given.get("input_range") or ((0, 255) if scale or offset else None)
        coding = coding_of(None, pixels, scale, offset)
        options = torch_options(given, kind)
        if kind == "onnx":  # which says its inputs itself if `bnnverify export` wrote it
            options["otherwise"] = specification.coding if coding is None else lambda: coding
            known = coding if "input_range" in given else None
        else:
            known = coding or specification.coding()
        imported = import_model(
            model,
            coding=known,
            zero_sign=zero_sign_of(given.get("zero_sign")),
            input_shape=shape_of(given.get("input_shape")),
            **options,
        )
        if coding is not None and imported.coding != coding:
            raise QueryError(
                f"--input-scale, --input-offset: {model} says its inputs itself ({imported.coding}), expected "
                "--input-range LO HI with them, or none of the three."
            )
        return imported
    if given:
        named = ", ".join("--layer" if name == "layers" else "--" + name.replace("_", "-") for name in given)
        raise QueryError(f"{named}: {model} says this itself, expected a file of another tool with it.")
    network = load_network(model)
    lower, upper = int(network.domain.lower.min()), int(network.domain.upper.max())
    own = InputCoding.signs() if network.domain.is_binary else InputCoding.integers(lower, upper)
    return Imported(network, own, np.arange(network.n_inputs), "X", (network.n_inputs,), (), ())


def _decided(queries: Iterable[Query], engine: str, limits: Limits, clock: Clock, jobs: int) -> Decision:
    """NOT_ROBUST if one question is, ROBUST if all are."""
    robust, unknown = None, None
    for query in queries:
        if clock.is_over and (robust is not None or unknown is not None):
            return unknown or Decision(Verdict.UNKNOWN, Run("stages", clock.elapsed, clock.reason, {}))
        left = clock.remaining
        rest = limits if left is None else replace(limits, seconds=max(left, 1e-3))
        answer = decide(query, engine=engine, limits=rest, jobs=jobs)
        answer = replace(answer, run=replace(answer.run, seconds=clock.elapsed, reason=clock.words(answer.run.reason)))
        if answer.verdict is Verdict.NOT_ROBUST:
            return answer
        if answer.verdict is Verdict.ROBUST:
            robust = answer
        else:  # another question may have a counterexample all the same
            unknown = unknown or answer
    return unknown or robust or Decision(Verdict.ROBUST, Run("bounds", clock.elapsed, "", {"cases": 0}))


def _certify(imported: Imported, queries: Sequence[Query], answer: Decision, folder: Path, limits: Limits) -> None:
    """Evidence for the answer: about the question that has the counterexample, or about all."""
    from bnnverify.certificates import certify

    for number, query in enumerate(queries):
        x = answer.counterexample
        if answer.verdict is Verdict.UNKNOWN or (x is not None and not query.is_adversarial(x)):
            continue
        place = folder if len(queries) == 1 else folder / str(number)
        evidence = certify(query, place, decision=answer, limits=limits, imported=imported)
        written = evidence.run.reason or f"{evidence.verdict.value}, {evidence.run.statistics['certificate']}"
        click.echo(f"certificate {place}: {written}", err=True)


def result_text(imported: Imported, model: Path, answer: Decision, cases: Cases) -> str:
    """The answer as the VNN competition has it.

    Inputs are written in the order of the file and exactly where they are short decimals; outputs are those of
    onnxruntime where it can run the model, else the exact scores. Where its rounding undoes the counterexample the
    answer is unknown.
    """
    if answer.counterexample is None:
        word = "timeout" if answer.run.reason.startswith("time limit") else WORDS[answer.verdict]
        return word + "\n"
    inputs = imported.exact(answer.counterexample)
    found = _outputs(imported, model, answer.counterexample)
    if not cases.holds(inputs, found):
        click.echo("the counterexample is none in float32, as onnxruntime evaluates it: result unknown", err=True)
        return WORDS[Verdict.UNKNOWN] + "\n"
    parts = [f"(X_{i} {decimal_text(v)})" for i, v in enumerate(inputs)]
    parts += [f"(Y_{k} {_rounded(v)})" for k, v in enumerate(found)]
    return "sat\n(" + "\n".join(parts) + ")\n"


def _rounded(value: float | Fraction) -> str:
    """Nine digits, also of what is beyond float64."""
    try:
        return f"{float(value):.9g}"
    except OverflowError:
        exact = Fraction(value)
        return f"{Context(prec=9).divide(Decimal(exact.numerator), Decimal(exact.denominator)):g}"


def _outputs(imported: Imported, model: Path, x: Sequence[int]) -> Sequence[float | Fraction]:
    """What the model file gives for the input: by onnxruntime if it can run it, else the exact scores."""
    if kind_of(model) == "onnx":
        found = outputs(imported, np.array([x]), model)
        if found.values is not None:
            return [float(v) for v in found.values[0]]
        click.echo(
            f"the counterexample was not compared with onnxruntime: {found.reason}; the result has the exact scores",
            err=True,
        )
    return imported.network.scores(x)
