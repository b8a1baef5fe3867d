"""``bnnverify reliability``: what accuracy chips with wrong bits have."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import all_image_options, model_argument, output_options, rates, require_writable

if TYPE_CHECKING:
    from bnnverify.faults import AsymmetricFlip, BitFlip

EXAMPLES = """\b
Examples:
  bnnverify reliability net.npz --data digits --ber 1e-4:1e-1:log:8
  bnnverify reliability net.npz --data digits --ber 1e-3,1e-2 --samples 1000 --seed 1 --json > accuracy.jsonl
  bnnverify reliability net.npz --data digits --p01 1e-3 --p10 0 --index 0:50 --csv accuracy.csv
  bnnverify reliability net.npz --data digits --target-accuracy 0.85
"""


@click.command(epilog=EXAMPLES)
@model_argument
@all_image_options
@click.option(
    "--keep",
    metavar="true|predicted|CLASS",
    help="The right class: the label (default with --data), the fault-free class (default with --input), a number.",
)
@click.option("--ber", metavar="RATES", help="Probability that a cell flips: 1e-3, a comma list, or 1e-4:1e-1:log:8.")
@click.option("--p01", metavar="RATES", help="Probability that a stored -1 reads +1; together with --p10.")
@click.option("--p10", metavar="RATES", help="Probability that a stored +1 reads -1; together with --p01.")
@click.option("--tolerance", default="1e-6", show_default=True, help="Width to reach for each image's probability.")
@click.option(
    "--max-states", type=int, default=4096, show_default=True, help="Most work for each image; more is narrower."
)
@click.option("--target-accuracy", metavar="A", help="Also bracket the error rate at which the accuracy falls below A.")
@click.option("--samples", type=int, metavar="N", help="Also sample N chips at each rate (Monte Carlo).")
@click.option(
    "--only-samples", is_flag=True, help="Sample and prove nothing; for networks that the proof does not serve."
)
@click.option("--confidence", type=float, default=0.99, show_default=True, help="Of the sampled intervals.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampled chips; nothing else is random.")
@click.option("--per-image", is_flag=True, help="With --json: also the bounds of each image's P(error).")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Also write a table.")
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="For each rate, and for the bracket; then wider bounds, and exit code 3.",
)
@click.option("--jobs", type=int, default=1, show_default=True, help="Threads.")
@output_options
def command(model: Path, csv_file: Path | None, as_json: bool, **options: Any) -> int:
    """Expected accuracy over all chips whose cells fail independently.

    The images are all of the test split unless --index names some. Each accuracy is exact or a proved interval,
    rounding included, and says which; sampled ones (--samples) come with their confidence interval.
    """
    if csv_file is not None:
        require_writable(csv_file, "--csv")
    lines: list[dict[str, Any]] = []
    try:
        return _answered(lines, model, as_json, **options)
    finally:  # also what was finished before an interrupt
        if csv_file is not None and lines:
            from bnnverify.formats.files import write_whole

            write_whole(csv_file, _table(lines).encode())


def _answered(
    printed: list[dict[str, Any]],
    model: Path,
    as_json: bool,
    *,
    keep: str | None,
    ber: str | None,
    p01: str | None,
    p10: str | None,
    tolerance: str,
    max_states: int,
    target_accuracy: str | None,
    samples: int | None,
    only_samples: bool,
    confidence: float,
    seed: int,
    per_image: bool,
    timeout: float | None,
    jobs: int,
    quiet: bool,
    **source: Any,
) -> int:
    """The exit code; the answers are printed as they come and appended to `printed`."""
    import numpy as np

    from bnnverify.cli.images import choose
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.cli.questions import class_to_keep, limits_of
    from bnnverify.formats import load_network
    from bnnverify.results import Kind

    models = fault_models(ber, p01, p10)
    exact_width, target = rates(tolerance, "--tolerance")[0], None
    if target_accuracy is not None:
        target = rates(target_accuracy, "--target-accuracy")[0]
    asked = bool(models) or target is not None
    _check(samples, only_samples, confidence, jobs, asked, tolerance=exact_width, max_states=max_states, seed=seed)
    width = float(exact_width)
    limits_of(timeout)
    network = load_network(model)
    images = choose(network, default="all", **source)
    known = all(image.label is not None for image in images.images)
    wanted = keep or ("true" if known else "predicted")
    truth = [class_to_keep(wanted, image, network.evaluate(image.x)) for image in images.images]
    for label in truth:
        network.require_class(label)
    x = np.array([image.x for image in images.images], dtype=np.int8 if network.domain.is_binary else np.int64)
    clean = int(np.count_nonzero(network.evaluate_batch(x) == np.array(truth)))
    shared = {
        **envelope("reliability", model, network),
        "data": dict(images.provenance),
        "images": {"indices": [image.index for image in images.images], "clean_correct": clean},
    }
    partial = False
    if not as_json:
        click.echo(f"{model}  {network.architecture}  sha256 {network.identity[:16]}  |  {images.description}")
        share = f"accuracy without errors {clean / len(truth):.4%}{_right(wanted)}"
        click.echo(f"{len(truth)} images, {network.n_cells:,} cells, {share}\n")
        click.echo(HEADER)

    def answered(line: dict[str, Any]) -> None:
        printed.append(line)
        if as_json:
            emit(line)
        else:
            click.echo(_row(line))

    for faults in models:
        question = {"faults": faults.to_json(), "keep": wanted}
        if not only_samples:
            from bnnverify.reliability import expected_accuracy

            with _bar(quiet, len(truth)) as bar:
                point = expected_accuracy(
                    network,
                    x,
                    truth,
                    faults,
                    tolerance=width,
                    max_states=max_states,
                    jobs=jobs,
                    seconds=timeout,
                    progress=bar.update,
                )
            partial |= bool(point.run.reason)
            answer = {
                "type": "accuracy",
                **point.accuracy.to_json(),
                "images_within_tolerance": sum(p.width <= width for p in point.per_image),
                **({"per_image": point.to_json()["per_image"]} if per_image else {}),
                "run": point.run.to_json(),
            }
            answered({**shared, "question": {**question, "tolerance": width}, "answer": answer})
        if samples:
            from bnnverify.engines.montecarlo import sample_errors

            with _bar(quiet, samples, "chip") as bar:
                sampled = sample_errors(
                    network,
                    x,
                    truth,
                    faults,
                    samples=samples,
                    seed=seed,
                    confidence=confidence,
                    seconds=timeout,
                    progress=bar.update,
                )
            partial |= bool(sampled.run.reason)
            answer = {
                "type": "accuracy",
                **sampled.accuracy.to_json(),
                "chips": sampled.samples,
                "seed": seed,
                "run": sampled.run.to_json(),
            }
            assert sampled.accuracy.kind is Kind.SAMPLED
            answered({**shared, "question": question, "answer": answer})
    if target is not None:
        from bnnverify.reliability import tolerance_bracket

        bracket = tolerance_bracket(
            network, x, truth, target, tolerance=width, max_states=max_states, seconds=timeout, jobs=jobs
        )
        partial |= bool(bracket.run.statistics["timed_out"])
        answered({**shared, "question": {"target_accuracy": str(target)}, "answer": bracket.to_json()})
    return 3 if partial else 0


def fault_models(ber: str | None, p01: str | None, p10: str | None) -> list[BitFlip | AsymmetricFlip]:
    """The fault models that the options mean.

    Raises:
        QueryError: Both kinds are named, one of a pair is missing, or the pairs have different lengths.
    """
    from bnnverify.errors import QueryError
    from bnnverify.faults import AsymmetricFlip, BitFlip

    if ber is not None and (p01 is not None or p10 is not None):
        raise QueryError("rates are named twice, expected --ber, or --p01 with --p10.")
    if ber is not None:
        return [BitFlip(p) for p in rates(ber)]
    if p01 is None and p10 is None:
        return []
    if p01 is None or p10 is None:
        raise QueryError("only one of --p01 and --p10 is given, expected both. Give 0 for a sign that never fails.")
    pairs = rates(p01, "--p01"), rates(p10, "--p10")
    longest = max(map(len, pairs))
    filled = [group * longest if len(group) == 1 else group for group in pairs]
    if len(filled[0]) != len(filled[1]):
        raise QueryError(f"--p01 has {len(pairs[0])} rates and --p10 has {len(pairs[1])}, expected as many, or one.")
    return [AsymmetricFlip(a, b) for a, b in zip(*filled, strict=True)]


def _check(
    samples: int | None,
    only_samples: bool,
    confidence: float,
    jobs: int,
    asked: bool,
    *,
    tolerance: Fraction,
    max_states: int,
    seed: int,
) -> None:
    """Refuses options that make no sense, before any work."""
    from bnnverify.errors import QueryError

    if not tolerance > 0:
        raise QueryError("--tolerance is 0, expected a width above 0, such as 1e-6.")
    if max_states < 1:
        raise QueryError(f"--max-states is {max_states}, expected at least 1.")
    if seed < 0:
        raise QueryError(f"--seed is {seed}, expected 0 or more.")

    if not asked:
        raise QueryError("no error rate is named, expected --ber RATES, --p01 with --p10, or --target-accuracy A.")
    if samples is not None and samples < 1:
        raise QueryError(f"--samples is {samples}, expected at least 1.")
    if only_samples and samples is None:
        raise QueryError("--only-samples needs --samples N.")
    if not 0 < confidence < 1:
        raise QueryError(f"--confidence is {confidence:g}, expected above 0 and below 1, such as 0.99.")
    if jobs < 1:
        raise QueryError(f"--jobs is {jobs}, expected at least 1.")


def _bar(quiet: bool, total: int, unit: str = "image") -> Any:
    """A progress bar that only a terminal sees, and only where it takes long."""
    from tqdm import tqdm

    return tqdm(total=total, desc="reliability", unit=unit, delay=2, leave=False, disable=True if quiet else None)


def _right(keep: str) -> str:
    """What counts as right, in words, where it is not the label."""
    return {"true": "", "predicted": "; right is the fault-free class"}.get(keep, f"; right is class {keep}")


HEADER = f"{'bit error rate':<24}  {'accuracy':<25}  {'width':>8}  {'kind':<18}  {'in tolerance':>12}  time"


def _row(line: dict[str, Any]) -> str:
    from bnnverify.report.lines import outward

    answer = line["answer"]
    if answer["type"] == "tolerance":
        return _bracket(line)
    low, high = outward(answer, 8)
    width = float(Fraction(answer["upper"]) - Fraction(answer["lower"]))
    kind = answer["kind"]
    if kind == "sampled":
        kind = f"sampled, {answer['confidence']:.4g}"
    rest = ""
    if "images_within_tolerance" in answer:
        share = f"{answer['images_within_tolerance']}/{len(line['images']['indices'])}"
        rest = f"  {share:>9} {answer['run']['seconds']:8.2f} s  {answer['run']['reason']}".rstrip()
    bounds = f"{f'{low}..{high}':<25}  {width:8.1e}"
    return f"{_rate_text(line['question']['faults']):<24}  {bounds}  {kind:<18}{rest}".rstrip()


def _bracket(line: dict[str, Any]) -> str:
    from bnnverify.report.lines import outward

    answer = line["answer"]
    words = [f"\naccuracy {_decimal(line['question']['target_accuracy'])}:"]
    if answer["p_ok"] is not None:
        kept = outward(answer["accuracy_ok"], 6)[0]
        words.append(f"kept at p = {_decimal(answer['p_ok'])} (at least {kept}, proved)")
    if answer["p_fail"] is not None:
        lost = outward(answer["accuracy_fail"], 6)[1]
        words.append(f"lost at p = {_decimal(answer['p_fail'])} (at most {lost}, proved)")
    return words[0] + " " + "; ".join(filter(None, [*words[1:], answer["run"]["reason"]]))


def _decimal(text: str) -> str:
    return f"{float(Fraction(text)):.4g}"


def _rate_text(faults: dict[str, Any]) -> str:
    return "  ".join(f"{name} {_decimal(value)}" for name, value in faults.items() if name != "kind")


COLUMNS = ("faults", "p", "p01", "p10", "kind", "lower", "upper", "confidence", "seconds")


def _table(lines: Sequence[dict[str, Any]]) -> str:
    """The accuracies as comma-separated values; bounds rounded outward to 12 decimals."""
    from bnnverify.report.lines import outward

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        answer = line["answer"]
        if answer["type"] != "accuracy":
            continue
        faults = line["question"]["faults"]
        numbers = [_decimal(faults[name]) if name in faults else "" for name in ("p", "p01", "p10")]
        bounds = outward(answer, 12)
        seconds = answer.get("run", {}).get("seconds", "")
        writer.writerow([faults["kind"], *numbers, answer["kind"], *bounds, answer.get("confidence") or "", seconds])
    return text.getvalue()
