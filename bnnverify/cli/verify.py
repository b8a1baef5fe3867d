"""``bnnverify verify``: is there an adversarial input in the region?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.dumping import dump_options, dump_query
from bnnverify.cli.importing import TORCH_ONLY, model_options
from bnnverify.cli.options import (
    deciding_engine_options,
    image_options,
    keep_option,
    model_argument,
    output_options,
    region_options,
    ties_option,
)
from bnnverify.cli.verb import IMAGES, KEEP_OR_TARGET, Excludes, Needs, Verb

if TYPE_CHECKING:
    from bnnverify.cli.questions import Asked

EXAMPLES = """\b
Examples:
  bnnverify verify net.npz --data digits --index 0:20 --radius 2
  bnnverify verify net.npz --data digits --index 3 --radius 4 --target 8 --show
  bnnverify verify net.npz --input rows.txt --free 0:16 --json > verdicts.jsonl
  bnnverify verify pixels.npz --data mnist --index 0:40 --linf 3 --timeout 60
  bnnverify verify eevbnn.npz --data mnist --index 0:40 --eps 0.3 --keep true --ties robust
  bnnverify verify model.onnx property.vnnlib --timeout 480 --jobs 2
  bnnverify verify model.onnx unit.vnnlib --input-range 0 255 --input-scale 1/255 --certificate proof/
"""

DUMPS = ("dump_cnf", "dump_opb", "dump_cp")
READING = ("input_range", "input_scale", "input_offset", "input_shape", "zero_sign", *TORCH_ONLY)
RULES = (
    Excludes("property_file", ("data", "data_dir", "split", "index", "input_file"), "PROPERTY says which inputs"),
    Excludes(
        "property_file",
        ("radius", "free", "hold", "fixed", "whole_cube", "linf", "eps", "target", "keep", "ties"),
        "PROPERTY says the region, and what is adversarial there",
    ),
    Excludes("property_file", ("show", "save", *DUMPS), "those are for images; it has --result and --certificate"),
    Needs("result", ("property_file",), "for images take --json or --save"),
    *(Needs(name, ("property_file",), "for images run `bnnverify import` once, with -o FILE") for name in READING),
    *IMAGES,
    KEEP_OR_TARGET,
    Excludes("show", ("as_json",), "a drawing is for people; --json has every input in full"),
    Excludes("show", ("linf", "eps"), "only signs are drawn; --save writes pixels as images"),
)


@click.command(cls=Verb, epilog=EXAMPLES, rules=RULES)
@model_argument
@click.argument("property_file", metavar="[PROPERTY]", required=False, type=click.Path(path_type=Path))
@image_options
@region_options
@click.option("--linf", type=int, metavar="R", help="All inputs within R of every pixel, in units of the inputs.")
@click.option("--eps", metavar="E", help="All images within E of every pixel where white is 1, such as 0.1 or 8/255.")
@click.option("--target", type=int, metavar="CLASS", help="Adversarial is this class only, not every other one.")
@keep_option
@ties_option
@deciding_engine_options
@click.option("--show", is_flag=True, help="Draw each counterexample: # is +1, . is -1, o and x mark changes.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save each counterexample there as .npy, .png and VNN-COMP text, in a folder per image. X of the text are in "
    "the order and units of MODEL if that is ONNX or eevbnn, else in the network's own.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write evidence for `bnnverify check`. One image only.",
)
@click.option(
    "--result",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With PROPERTY: write sat, unsat, unknown or timeout, and the counterexample, as VNN-COMP has it.",
)
@model_options
@dump_options
@click.option("--fail-on", type=click.Choice(["not-robust"]), help="Exit with code 1 if a verdict is not-robust.")
@output_options
def command(
    model: Path,
    property_file: Path | None,
    show: bool,
    fail_on: str | None,
    linf: int | None,
    eps: str | None,
    save: Path | None,
    certificate: Path | None,
    result: Path | None,
    **options: Any,
) -> int:
    """Is there an input in the region that changes the class?

    Every verdict is exact: robust is proved, and not-robust comes with an input that was replayed on the exact
    network. Unknown means that a limit was reached, and the exit code is 3. PROPERTY is a VNN-LIB file, which says the
    region and what is adversarial in it; the --input options, --zero-sign, and those for torch state dicts say of
    MODEL what its file leaves open there, as in `bnnverify import`.
    """
    from bnnverify.cli import questions as q
    from bnnverify.cli.outputs import require_outputs
    from bnnverify.results import Decision, Verdict

    reading = {name: options.pop(name) for name in READING}
    dumps = {name: options.pop(name) for name in DUMPS}
    dumped = {"--" + name.replace("_", "-"): path for name, path in dumps.items()}
    read = [model, property_file, options["input_file"] and Path(options["input_file"])]
    require_outputs(
        {"--result": result, **dumped},
        folders={"--save": save, "--certificate": certificate},
        inputs=read,
    )
    if result is not None and result.is_file():
        result.unlink()  # whatever happens now, the answer of another run does not pass for this one's
    if certificate is not None:
        from bnnverify.certificates import require_empty

        require_empty(certificate)
    if property_file is not None:
        options |= {"certificate": certificate, "reading": reading}
        return _of_property(model, property_file, result, fail_on, **options)
    of_one = {"--certificate": certificate, **dumped}
    if named := [name for name, path in of_one.items() if path is not None]:
        _require_one(model, options, named[0])
    if linf is not None or eps is not None:
        options |= {"region": None, "box": box_of(linf, eps, options["region"])}
    table = q.Table(
        header=f"{q.FIRST_HEADERS}  {'verdict':<10}  {'counterexample':<34}  {'engine':<15}     time",
        question=lambda one: f"Is there an input {q.goal(one, options['keep'])}? In each {q.in_region(one)}.",
        row=partial(_row, show=show),
        summary=_summary,
    )
    asked = q.ask("verify", model, table=table, **options)
    _write_files(model, asked, save, certificate, dumps)
    verdicts = [one.answer.verdict for one in asked if isinstance(one.answer, Decision)]
    if fail_on and Verdict.NOT_ROBUST in verdicts:
        return 1
    return q.limit_code(asked)


def _require_one(model: Path, options: Mapping[str, Any], name: str) -> None:
    """QueryError unless the options name a single image."""
    from bnnverify.cli.images import choose
    from bnnverify.cli.models import load
    from bnnverify.errors import QueryError

    source = {name: options[name] for name in ("data", "data_dir", "split", "index", "input_file")}
    count = len(choose(load(model), **source).images)
    if count != 1:
        raise QueryError(f"{count} images are named, expected one with {name}. Give --index I.")


def box_of(linf: int | None, eps: str | None, region: Any) -> Any:
    """The function from a network and an image to the box around it that ``--linf`` or ``--eps`` names.

    Raises:
        QueryError: Another region is named, too.
    """
    from bnnverify.cli.options import one_number
    from bnnverify.errors import QueryError

    named = [name for name, value in region.keywords.items() if value is not None and value is not False]
    if named or (linf is not None and eps is not None):
        raise QueryError("expected exactly one region: --linf R, --eps E, or one of those over -1/+1 inputs.")
    number = None if eps is None else one_number(eps, "--eps")

    def box(network: Any, image: Any) -> Any:
        from bnnverify.datasets.quantized import box_around
        from bnnverify.regions import PixelBox

        if network.domain.is_binary:
            raise QueryError("--linf and --eps are about pixels, but the network takes -1/+1 inputs. Give --radius R.")
        if linf is not None:
            return PixelBox.linf(image.x, linf, network.domain)
        if image.pixels is None or number is None:
            raise QueryError("--eps is about grey values of a data set, expected --data NAME; or --linf R for --input.")
        return box_around(network, image.pixels, number, white=image.white)

    return box


def _of_property(model: Path, path: Path, result: Path | None, fail_on: str | None, **options: Any) -> int:
    from bnnverify.cli import questions as q
    from bnnverify.cli.property import verify_property
    from bnnverify.results import Verdict

    q.require_jobs(options["jobs"])
    limits = q.limits_of(options["timeout"], options["threads"])
    budget = {"engine": options["engine"], "limits": limits, "jobs": options["jobs"]}
    written = {name: options[name] for name in ("certificate", "reading")} | {"result": result}
    answer = verify_property(model, path, **budget, as_json=options["as_json"], **written)
    if fail_on and answer.verdict is Verdict.NOT_ROBUST:
        return 1
    return 3 if answer.verdict is Verdict.UNKNOWN else 0


def _write_files(
    model: Path, asked: list[Asked], save: Path | None, certificate: Path | None, dumps: dict[str, Path | None]
) -> None:
    """Counterexamples, evidence, and the question for other solvers."""
    from bnnverify.cli.models import load
    from bnnverify.results import Decision

    if save is None and certificate is None and not any(dumps.values()):
        return
    from bnnverify import certificates
    from bnnverify.cli.importing import correspondence_of

    imported = correspondence_of(model)
    network = load(model) if imported is None else imported.network
    for one in asked:
        assert isinstance(one.answer, Decision)
        query = one.question.about(network)
        if save is not None and one.answer.counterexample is not None:
            certificates.save_counterexample(query, one.answer.counterexample, save / str(one.image.index), imported)
        if certificate is not None:
            evidence = certificates.certify(
                query, certificate, decision=one.answer, limits=one.question.limits, imported=imported
            )
            written = evidence.run.reason or f"{evidence.verdict.value}, {evidence.run.statistics['certificate']}"
            click.echo(f"certificate {certificate}: {written}", err=True)
        for path in dump_query(query, dumps):
            click.echo(f"question written to {path}", err=True)


def _row(asked: Asked, *, show: bool) -> str:
    from bnnverify.cli.questions import engine_columns, first_columns
    from bnnverify.results import Decision

    answer = asked.answer
    assert isinstance(answer, Decision)
    found = answer.run.reason or "none, proved"
    if answer.counterexample is not None:
        found = f"class {answer.predicted}: {_changes(asked, answer.counterexample)}"
    row = f"{first_columns(asked)}  {answer.verdict.value:<10}  {found:<34}  {engine_columns(asked)}"
    if show and answer.counterexample is not None:
        row += "\n" + drawing(asked.image.x, answer.counterexample, asked.line["model"]["shape"])
    return row


def _changes(asked: Asked, x: tuple[int, ...]) -> str:
    """What is done to the image: which signs flip, or how many pixels change."""
    from bnnverify.cli.questions import flipped, short_list
    from bnnverify.regions import PixelBox

    places = flipped(asked.image.x, x)
    if isinstance(asked.question.region, PixelBox):
        return f"{len(places)} of {len(x)} inputs change"
    return f"flip {short_list(places) or 'nothing'}"


def drawing(center: tuple[int, ...], x: tuple[int, ...], shape: list[int]) -> str:
    """The input and the counterexample side by side, in letters."""
    width = shape[-1] if len(shape) > 1 else min(len(center), 32)
    rows = []
    for start in range(0, len(center), width):
        before, after = center[start : start + width], x[start : start + width]
        left = "".join("#" if v == 1 else "." for v in before)
        right = "".join("#."[v != 1] if u == v else "ox"[v != 1] for u, v in zip(before, after, strict=True))
        rows.append(f"{'':21}{left}   {right}")
    return "\n".join(rows)


def _summary(asked: list[Asked]) -> str:
    from bnnverify.results import Decision, Verdict

    verdicts = [one.answer.verdict for one in asked if isinstance(one.answer, Decision)]
    parts = [f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict]
    return f"{', '.join(parts)} of {len(verdicts)}. Verdicts are exact: proved, or replayed on the exact network."
