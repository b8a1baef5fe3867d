"""``bnnverify diagram``: the classes of a region as a decision diagram in a file, and questions to such a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import image_options, model_argument, output_options, region_options
from bnnverify.cli.verb import IMAGES, Needs, Verb

if TYPE_CHECKING:
    from bnnverify.encodings.classdiagram import ClassDiagram
    from bnnverify.regions import Region

EXAMPLES = """\b
Examples:
  bnnverify diagram build net.npz --data digits --index 0 --radius 4 -o digit0.json
  bnnverify diagram count digit0.json --set 12=1,13=0
  bnnverify diagram pick digit0.json --target 8 -n 5 --seed 1
"""

file_argument = click.argument("file", type=click.Path(path_type=Path))

set_option = click.option(
    "--set", "fixed", metavar="I=V,...", help="Only inputs with these values: 1 for +1, 0 or -1 for -1."
)


DRAWS = (Needs("seed", ("number",), "it is the seed of the draws"),)


@click.group(epilog=EXAMPLES, no_args_is_help=False)
def command() -> None:
    """The class of every input of a region as one decision diagram, kept in a file.

    The file answers again and again without the network, exactly. It is JSON (.json) or the text format of CUDD
    (.dddmp). bnnverify diagram COMMAND --help explains a command.
    """


@command.command(cls=Verb, rules=IMAGES)
@model_argument
@image_options
@region_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.json or FILE.dddmp.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up after this time.")
@output_options
def build(
    model: Path,
    region: Callable[[Sequence[int]], Region],
    output: Path,
    timeout: float | None,
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> int:
    """Builds the diagram of one region and saves it.

    Name one image, and a region around it: --radius, --free, --hold, --fixed or --whole-cube.
    """
    from bnnverify.cli.images import choose
    from bnnverify.cli.models import load
    from bnnverify.cli.outputs import require_outputs
    from bnnverify.cli.questions import limits_of
    from bnnverify.encodings.classdiagram import compile_diagram
    from bnnverify.engines.base import Clock
    from bnnverify.errors import QueryError, ResourceLimitError
    from bnnverify.formats.diagrams import require_diagram_name, save_diagram

    require_diagram_name(output)
    require_outputs({"--output": output}, inputs=[model])
    clock = Clock(limits_of(timeout).seconds)

    def check(nodes: int, size: int) -> None:
        if clock.is_over:
            raise ResourceLimitError(f"{clock.reason} with {nodes:,} states")

    network = load(model)
    images = choose(network, **source).images
    if len(images) != 1:
        raise QueryError(f"{len(images)} images are named, expected one: a diagram is of one region. Give --index I.")
    start = time.perf_counter()
    diagram = compile_diagram(network, region(images[0].x), check=check)
    seconds = time.perf_counter() - start
    save_diagram(diagram, output)
    _show(diagram, output, as_json, {"seconds": round(seconds, 6)})
    return 0


@command.command(cls=Verb)
@file_argument
@output_options
def show(file: Path, as_json: bool, quiet: bool) -> int:
    """What is in a diagram file. Reading checks it."""
    from bnnverify.formats.diagrams import load_diagram

    _show(load_diagram(file), file, as_json, {})
    return 0


@command.command(cls=Verb, short_help="How many inputs have which class, at which distance?")
@file_argument
@set_option
@output_options
def count(file: Path, fixed: str | None, as_json: bool, quiet: bool) -> int:
    """How many inputs of the region have which class, at which distance from its centre?"""
    from bnnverify.formats.diagrams import load_diagram
    from bnnverify.regions import HammingBall

    diagram = load_diagram(file)
    values = _fixed(fixed)
    by_class = diagram.count(values)
    rows = diagram.count_by_distance(values) if isinstance(diagram.region, HammingBall) else None
    if as_json:
        fixed_json = {str(i): v for i, v in values.items()}
        numbers = {"per_class": by_class, "per_class_and_radius": rows, "region_size": diagram.region.size()}
        _emit(diagram, file, {"type": "diagram-count", "kind": "exact", "fixed": fixed_json, **numbers})
        return 0
    click.echo(f"{file}  {diagram}")
    for k, number in enumerate(by_class):
        if number:
            distances = "" if rows is None else "  by distance  " + _by_distance(rows[k])
            click.echo(f"class {k:>3}  {number:>16,}{distances}")
    click.echo(f"{'all':>9}  {sum(by_class):>16,}  exact")
    return 0


def _by_distance(numbers: Sequence[int]) -> str:
    return "  ".join(f"{d}: {number:,}" for d, number in enumerate(numbers))


@command.command(cls=Verb, rules=DRAWS, short_help="The nearest input of another class, or uniform draws.")
@file_argument
@click.option("--target", type=int, metavar="CLASS", help="Inputs of this class. Default: of any but the centre's.")
@click.option(
    "-n", "number", type=click.IntRange(1), help="Draw so many uniformly. Default: one nearest to the centre."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@output_options
def pick(file: Path, target: int | None, number: int | None, seed: int, as_json: bool, quiet: bool) -> int:
    """Inputs of the region that change the class: one nearest to the centre, or uniform draws. Printed as 0 and 1."""
    from bnnverify.formats.diagrams import load_diagram

    diagram = load_diagram(file)
    own = diagram.class_of(diagram.region.center)
    wanted = [target] if target is not None else [k for k in range(diagram.n_classes) if k != own]
    if number is None:
        nearest = diagram.nearest(wanted)
        found = [] if nearest is None else [nearest]
    else:
        found = diagram.sample(wanted, number, seed=seed)
    if as_json:
        inputs = [{"input": list(x), "predicted": diagram.class_of(x)} for x in found]
        _emit(diagram, file, {"type": "diagram-pick", "nearest": number is None, "seed": seed, "inputs": inputs})
        return 0
    for x in found:
        distance = sum(a != b for a, b in zip(x, diagram.region.center, strict=True))
        text = "".join("1" if v == 1 else "0" for v in x)
        click.echo(f"{text}  # class {diagram.class_of(x)}, distance {distance}")
    if not found:
        click.echo("# no input of the region has such a class")
    return 0


def _fixed(text: str | None) -> dict[int, int]:
    """The values that ``--set`` names, by input."""
    import re

    from bnnverify.errors import QueryError

    found: dict[int, int] = {}
    for part in filter(None, re.split(r"[,\s]+", text or "")):
        match = re.fullmatch(r"([0-9]{1,9})=([+-]?1|0)", part, re.ASCII)
        if match is None:
            raise QueryError(f"--set contains {part!r:.60}, expected pairs such as 12=1,13=0 (input = value).")
        value = 1 if match[2].endswith("1") and match[2][0] != "-" else -1
        if found.setdefault(int(match[1]), value) != value:
            raise QueryError(f"--set gives input {match[1]} two values, expected one.")
    return found


def _show(diagram: ClassDiagram, file: Path, as_json: bool, extra: dict[str, Any]) -> None:
    size, nodes = diagram.region.size(), len(diagram.diagram)
    if as_json:
        facts = {"type": "diagram", "nodes": nodes, "order": list(diagram.order), "region_size": size}
        _emit(diagram, file, facts | extra)
        return
    seconds = f", built in {extra['seconds']:.2f} s" if "seconds" in extra else ""
    click.echo(f"{file}  {diagram}{seconds}")
    click.echo(
        f"{file.stat().st_size:,} bytes for {size:,} inputs; centre of class {diagram.class_of(diagram.region.center)}"
    )
    click.echo(f"network sha256 {diagram.network}\ndiagram sha256 {diagram.identity}")


def _emit(diagram: ClassDiagram, file: Path, answer: dict[str, Any]) -> None:
    import json

    line = {
        "format": "bnnverify diagram answer",
        "version": 1,
        "file": str(file),
        "diagram": diagram.identity,
        "network": diagram.network,
        "region": diagram.region.to_json(),
        "answer": answer,
    }
    click.echo(json.dumps(line, allow_nan=False))
