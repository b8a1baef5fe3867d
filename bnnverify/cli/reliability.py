"""``bnnverify reliability``: what accuracy chips with wrong bits have, what the worst faults do, and where it hurts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from bnnverify.cli.chipquestions import answer_all
from bnnverify.cli.faultmodels import fault_models as fault_models
from bnnverify.cli.faultmodels import fault_options, require_applicable
from bnnverify.cli.options import all_image_options, model_argument, one_rate, output_options, together
from bnnverify.cli.session import Options
from bnnverify.cli.verb import IMAGES, Excludes, Needs, Verb
from bnnverify.files import require_writable

EXAMPLES = """\b
Examples:
  bnnverify reliability net.npz --data mnist --ber 1e-5:1e-1:log:13 --tolerance 1e-4 --jobs 2 --figure accuracy.svg
  bnnverify reliability net.npz --data mnist --ber 1e-3 --timeout 60 --resume mnist.jsonl    # again: goes on
  bnnverify reliability net.npz --data digits --ber 1e-3,1e-2 --chips 10000 --yield 0.9 --jobs 2
  bnnverify reliability net.npz --data digits --ber 1e-3,1e-2 --samples 1000 --seed 1 --json > accuracy.jsonl
  bnnverify reliability net.npz --data digits --p01 1e-3 --p10 0 --index 0:50 --csv accuracy.csv
  bnnverify reliability net.npz --data digits --ber 0.05 --retries 1 --retention 3600/1e8 --read-error 1e-4
  bnnverify reliability net.npz --data digits --ber 1e-2 --sensitivity --event change
  bnnverify reliability net.npz --data digits --target-accuracy 0.85 --every-rate
  bnnverify reliability net.npz --data digits --target-accuracy 0.85 --energy mtj --retries 2
  bnnverify reliability net.npz --data digits --worst-case --critical 10 --cell-map cells.png
"""

_answer_options = together(
    click.option(
        "--event",
        type=click.Choice(["error", "change"]),
        help="error: another class than the label (--keep true); change: than the fault-free class (--keep predicted).",
    ),
    click.option(
        "--keep",
        metavar="true|predicted|CLASS",
        help="The right class: the label (default with --data), the fault-free class (default with --input), a number.",
    ),
    click.option("--tolerance", default="1e-6", show_default=True, help="Width to reach for each image's probability."),
    click.option(
        "--max-states", type=int, default=4096, show_default=True, help="Most work for each image; more is narrower."
    ),
    click.option(
        "--sensitivity", is_flag=True, help="Also the accuracy with errors in one block only, for every block."
    ),
    click.option(
        "--target-accuracy",
        metavar="A",
        help="Two rates of flips, the same for all cells: at one the accuracy is proved to be at least A, at a greater "
        "one to be below. It crosses A between them, not for the first time perhaps: see --every-rate.",
    ),
    click.option(
        "--every-rate", is_flag=True, help="With --target-accuracy: prove A for all rates up to one, without gap."
    ),
)
_energy_option = click.option(
    "--energy",
    metavar="CELL",
    help="With --target-accuracy: the cheapest write of a menu of pulses that keeps A, for a preset (mtj, rram, ftj) "
    "cell of illustrative numbers; --retries is then the most retries tried.",
)
_cell_options = together(
    click.option("--worst-case", is_flag=True, help="The fewest flipped cells that make each image wrong."),
    click.option("--flips", type=int, metavar="K", help="With --worst-case: only which images withstand any K flips."),
    click.option("--critical", type=int, metavar="N", help="The N cells whose single flip breaks the most images."),
    click.option(
        "--cell-map",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="With --critical: draw them over a block, as .png or .svg.",
    ),
    click.option(
        "--map-block",
        type=int,
        default=0,
        show_default=True,
        help="With --cell-map: the block to draw; -1 is the output.",
    ),
    click.option(
        "--coefficients",
        metavar="K|all",
        help="Exact numbers of sets of up to K flips that make an image wrong, and what they prove at every --ber; "
        "all: the whole polynomial, for hidden blocks of up to 16 neurons.",
    ),
)
_sampling_options = together(
    click.option("--samples", type=int, metavar="N", help="Also sample N chips for each image (Monte Carlo)."),
    click.option(
        "--chips", type=int, metavar="N", help="Also sample N whole chips, each over all images (Monte Carlo)."
    ),
    click.option(
        "--yield",
        "least",
        metavar="T",
        help="Share of chips whose accuracy is at least T: proved, with --chips sampled.",
    ),
    click.option(
        "--only-samples", is_flag=True, help="Sample and prove nothing; for networks that the proof does not serve."
    ),
    click.option("--device", metavar="NAME", help="Sample whole chips on a device of torch, such as cuda."),
    click.option("--confidence", type=float, default=0.99, show_default=True, help="Of the sampled intervals."),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Of the sampled chips; nothing else is random."
    ),
)
_file_options = together(
    click.option("--per-image", is_flag=True, help="With --json: also the bounds of each image's P(error)."),
    click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Also write a table."),
    click.option(
        "--figure",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Also draw the accuracies, as .png or .svg: proved band, sampled points, accuracy without errors.",
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Keep every finished image and chip in FILE (JSON lines), and ask only what is not there yet.",
    ),
    click.option(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="For each answer; then wider bounds, or fewer chips, and exit code 3.",
    ),
    click.option("--jobs", type=int, default=1, show_default=True, help="Threads."),
)


_RATES = ("ber", "p01", "p10", "stuck_at", "retention", "read_error")
_CELLS = ("worst_case", "critical", "coefficients")
_RULES = (
    *IMAGES,
    *(
        Needs(name, _RATES, "accuracies are those of chips with errors")
        for name in ("samples", "chips", "least", "sensitivity", "per_image", "csv_file", "figure", "resume")
    ),
    *(
        Needs(name, (*_RATES, "target_accuracy"), "it is of the proof of an accuracy")
        for name in ("tolerance", "max_states")
    ),
    *(Needs(name, ("target_accuracy",), "it is about a target") for name in ("every_rate", "energy")),
    Needs("only_samples", ("samples", "chips"), "something has to be sampled"),
    *(Needs(name, ("samples", "chips"), "it is of what is sampled") for name in ("seed", "confidence")),
    Needs("device", ("chips",), "whole chips are sampled there"),
    Needs("flips", ("worst_case",), "it limits the worst case"),
    Needs("cell_map", ("critical",), "the critical cells are drawn"),
    Needs("map_block", ("cell_map",), "it names the block to draw"),
    Needs("per_image", ("as_json",), "the table for people has no room for it"),
    Excludes(
        "only_samples",
        ("tolerance", "max_states", "sensitivity", "target_accuracy", *_CELLS),
        "nothing is proved there",
    ),
    Excludes("sensitivity", ("only_block", "per_read", "read_error"), "it has permanent errors in every block in turn"),
    Excludes("event", ("keep",), "each names the right class"),
)


@click.command(cls=Verb, epilog=EXAMPLES, rules=_RULES)
@model_argument
@all_image_options
@fault_options
@_answer_options
@_energy_option
@_cell_options
@_sampling_options
@_file_options
@output_options
def command(model: Path, csv_file: Path | None, figure: Path | None, as_json: bool, **options: Any) -> int:
    """Expected accuracy over all chips whose cells fail independently.

    The images are all of the test split unless --index names some. Each accuracy is exact or a proved interval,
    rounding included, and says which; sampled ones (--samples, --chips) come with their confidence interval. Ctrl-C
    prints what is proved so far; with --resume the next run goes on from there.
    """
    source = {name: options.pop(name) for name in ("data", "data_dir", "split", "index", "input_file")}
    quiet, faults = options.pop("quiet"), {name: options.pop(name) for name in _FAULTS}
    more = {"as_json": as_json, "is_quiet": quiet, "draws": figure is not None}
    asked = Options(model=model, source=source, faults=faults, **more, **_checked(options))
    require_applicable(options, faults)
    if options["keep"] == "true" and source["input_file"] is not None:
        from bnnverify.errors import QueryError

        raise QueryError("--event error and --keep true need labels, but inputs of --input have none: --keep CLASS.")
    _check_files(csv_file, figure, asked)
    lines: list[dict[str, Any]] = []
    places: list[Fraction] = []
    try:
        return answer_all(asked, lines, places)
    finally:  # also what was finished before an interrupt
        if csv_file is not None and places:
            from bnnverify.cli.accuracies import table
            from bnnverify.files import write_whole

            write_whole(csv_file, table(lines).encode())
        if figure is not None and any(places):
            _draw(figure, lines, places)


_FAULTS = (*("ber", "p01", "p10", "stuck_at", "retries", "retention", "only_block", "per_read", "read_error"),)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options as numbers; refuses what makes no sense before any work."""
    from bnnverify.cli.questions import limits_of
    from bnnverify.errors import QueryError

    for name in ("tolerance", "target_accuracy", "least"):
        if options[name] is not None:
            shown = {"least": "--yield"}.get(name, f"--{name.replace('_', '-')}")
            options[name] = one_rate(options[name], shown)
    if not options["tolerance"] > 0:
        raise QueryError("--tolerance is 0, expected a width above 0, such as 1e-6.")
    options["coefficients"] = _order(options["coefficients"])
    for name in ("max_states", "samples", "chips", "jobs", "flips", "critical"):
        least = 0 if name == "flips" else 1
        if options[name] is not None and options[name] < least:
            raise QueryError(f"--{name.replace('_', '-')} is {options[name]}, expected at least {least}.")
    if options["seed"] < 0:
        raise QueryError(f"--seed is {options['seed']}, expected 0 or more.")
    if not 0 < options["confidence"] < 1:
        raise QueryError(f"--confidence is {options['confidence']:g}, expected above 0 and below 1, such as 0.99.")
    if options["only_samples"] and options["chips"] is None:
        for name, shown in (("least", "--yield"), ("resume", "--resume")):
            if options[name] is not None:
                raise QueryError(f"{shown} is given with --only-samples, expected --chips N for it, or a proof.")
    _require_cell(options["energy"])
    limits_of(options["timeout"])
    if options["event"] is not None:
        options["keep"] = {"error": "true", "change": "predicted"}[options["event"]]
    del options["event"]
    return options


def _order(text: str | None) -> int | str | None:
    """The greatest number of flips to count, or ``all``."""
    if text is None or text == "all":
        return text
    if not (text.isascii() and text.isdigit()):
        from bnnverify.errors import QueryError

        raise QueryError(f"--coefficients is {text!r:.40}, expected a number of flips from 0, or all.")
    return int(text)


def _require_cell(name: str | None) -> None:
    """Refuses a cell that is none of the presets."""
    if name is not None:
        from bnnverify.devices import PRESETS
        from bnnverify.errors import QueryError

        if name not in PRESETS:
            raise QueryError(f"--energy is {name!r:.40}, expected one of {', '.join(PRESETS)}.")


def _check_files(csv_file: Path | None, figure: Path | None, asked: Options) -> None:
    """Refuses files that cannot be written, before any work."""
    for path, name in ((csv_file, "--csv"), (figure, "--figure"), (asked.cell_map, "--cell-map")):
        if path is not None:
            require_writable(path, name)
    for path, name in ((figure, "--figure"), (asked.cell_map, "--cell-map")):
        if path is not None:
            from bnnverify.report.reliability import require_figure

            require_figure(path, name)


def _draw(path: Path, lines: Sequence[dict[str, Any]], places: Sequence[Fraction]) -> None:
    """The figure of what was answered."""
    from bnnverify.report.reliability import curve_of_lines, reliability_figure, write_figure

    points = [line for line in lines if line["answer"]["type"] == "accuracy"]
    first = points[0]
    images, question = first["images"], first["question"]
    name = Path(first["model"]["path"]).stem
    curve = curve_of_lines(points, places, name, images["clean_correct"] / len(images["indices"]))
    levels = {line["answer"]["confidence"] for line in points if line["answer"]["kind"] == "sampled"}
    data = first["data"]
    source = data.get("file") or f"{data['name']}, {data['split']} split"
    words = {"error": "P(error) against the label", "change": "P(change) against the fault-free class"}
    kind = question["faults"]["kind"]
    label = "bit error rate p (probability that a cell flips)" if kind == "bit-flip" else f"larger rate, {kind} faults"
    title = f"{name}, {len(images['indices'])} images of {source}; {words[question['event']]}"
    figure = reliability_figure(
        [curve], title=title, event=question["event"], confidence=max(levels, default=None), x_label=label
    )
    write_figure(figure, path)
