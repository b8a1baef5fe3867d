"""``bnnverify import``: the exact network of another tool's file, and what was understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import data_dir_option, index_option, output_options, together
from bnnverify.cli.outputs import require_outputs
from bnnverify.cli.verb import Excludes, Needs, Verb

if TYPE_CHECKING:
    from bnnverify.domain import IntArray
    from bnnverify.formats.agreement import Agreement
    from bnnverify.formats.coding import InputCoding
    from bnnverify.formats.imported import Imported
    from bnnverify.formats.torchstate import Between

EXAMPLES = """\b
Examples:
  bnnverify import traffic.onnx --input-range 0 255 -o traffic.npz
  bnnverify import mnist.onnx --input-range 0 255 --input-scale 1/255 --data mnist --index 0:500
  bnnverify import larq.h5 --input signs --json
  bnnverify import net.pt --input-range 0 255 --input-shape 1,28,28 --layer conv1:padding=1,pool=2
"""

model_options = together(
    click.option(
        "--input-range",
        type=int,
        nargs=2,
        metavar="LO HI",
        help="Inputs of the exact network are the integers LO to HI, such as pixels 0 255.",
    ),
    click.option(
        "--input-scale", metavar="Q", help="What a step of 1 is worth to the model, such as 1/255. Default: 1."
    ),
    click.option("--input-offset", metavar="Q", help="What the model takes for an input of 0. Default: 0."),
    click.option("--input-shape", metavar="SIZES", help="Shape of one input, such as 1,3,32,32, if the file has none."),
    click.option(
        "--zero-sign",
        type=click.Choice(["plus", "minus"]),
        help="What the model means by a plain sign of 0. Default: refuse models where that can occur.",
    ),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME:KEY=N,...",
        help="What a torch state dict does not say of a layer: stride, padding, pool, pool_after_sign, sign=0 or 1 "
        "(whether a sign stands in front of it), scale=0.1 (by which the signs of its weights are multiplied). "
        "Repeatable.",
    ),
    click.option(
        "--latent-weights",
        type=click.Choice(["sign", "xnor", "dorefa"]),
        help="Real weights of a torch state dict are latent: the model takes their signs (xnor: times the mean "
        "magnitude of each row; dorefa: of each layer). Default: refuse real weights where nothing says so.",
    ),
    click.option(
        "--zero-weights",
        type=click.Choice(["absent", "plus", "minus"]),
        help="What a weight of exactly 0 in a torch state dict becomes. Default: absent (masked) among -1/+1; refuse "
        "it among latent weights.",
    ),
    click.option(
        "--activation",
        type=click.Choice(["sign", "step"]),
        help="What stands between the layers of a torch state dict: -1/+1, or 0/1. Default: sign is assumed, and said "
        "with every answer.",
    ),
    click.option(
        "--epsilon",
        metavar="E",
        help="Of the batch norms of a torch state dict. Default: 1e-5 is assumed, and said with every answer.",
    ),
)

RULES = (
    Excludes("inputs", ("input_range",), "the model takes signs, bits or integers"),
    *(Needs(name, ("input_range",), "only integers are scaled") for name in ("input_scale", "input_offset")),
    *(Needs(name, ("data",), "the images are those of a data set") for name in ("data_dir", "split", "index")),
    Excludes("data", ("samples",), "networks are compared on the images or on random inputs"),
)

TORCH_ONLY = ("layers", "latent_weights", "zero_weights", "activation", "epsilon")


def coding_of(
    inputs: str | None, input_range: tuple[int, int] | None, input_scale: str | None, input_offset: str | None
) -> InputCoding | None:
    """What the options say about the inputs; None if nothing.

    Raises:
        QueryError: They contradict each other, or a number is none.
    """
    from bnnverify.errors import QueryError
    from bnnverify.formats.coding import InputCoding

    scale, offset = (
        _rational(input_scale or "1", "--input-scale", "1/255"),
        _rational(input_offset or "0", "--input-offset", "-1 or 0.5"),
    )
    if input_range is not None:
        return InputCoding.integers(*input_range, scale=scale, offset=offset)
    if scale != 1 or offset != 0:
        raise QueryError("--input-scale and --input-offset are for integers, expected --input-range LO HI with them.")
    return None if inputs is None else InputCoding.signs() if inputs == "signs" else InputCoding.bits()


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """The sizes in ``1,3,32,32``."""
    from bnnverify.errors import QueryError

    if text is None:
        return None
    words = text.replace("x", ",").split(",")
    if not all(word.strip().isdecimal() and 0 < int(word) < 2**20 for word in words if len(word) < 9) or not words:
        raise QueryError(f"--input-shape is {text!r:.60}, expected sizes such as 1,3,32,32.")
    return tuple(int(word) for word in words)


def correspondence_of(model: Path) -> Imported | None:
    """How a network that `load_network` reads corresponds to its file; None if the file is not of another tool."""
    from bnnverify.formats import import_model, kind_of

    return None if kind_of(model) in ("native", "bnnquanalyst") else import_model(model)


def zero_sign_of(text: str | None) -> int | None:
    """+1, -1 or None."""
    return {None: None, "plus": 1, "minus": -1}[text]


def torch_options(given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Options of `formats.torchstate` by the names of their parameters there.

    Args:
        given: Values of the options above by parameter, those of `TORCH_ONLY` among them.
        kind: Of the file.

    Raises:
        QueryError: The file is of another kind than ``torch``, or the text of an option means nothing.
    """
    from bnnverify.errors import QueryError

    named = [name for name in TORCH_ONLY if given.get(name) not in (None, ())]
    if not named:
        return {}
    if kind != "torch":
        shown = ", ".join("--layer" if name == "layers" else "--" + name.replace("_", "-") for name in named)
        raise QueryError(f"{shown}: for torch state dicts only; this file says it itself. Leave it out.")
    from bnnverify.formats.latentweights import Latent

    options: dict[str, Any] = {"latent": Latent(given.get("latent_weights"), given.get("zero_weights"))}
    options["activation"] = given.get("activation")
    if "epsilon" in named:
        options["epsilon"] = float(_rational(given["epsilon"], "--epsilon", "2e-5"))
    if "layers" in named:
        options["between"] = _between(given["layers"])
    return options


def _between(texts: Sequence[str]) -> dict[str, Between]:
    """Layers by name of ``conv1:padding=1,pool=2``."""
    from bnnverify.errors import QueryError
    from bnnverify.formats.torchstate import Between

    found: dict[str, Between] = {}
    for text in texts:
        name, colon, options = text.rpartition(":")
        if not colon or name in found:
            raise QueryError(f"--layer is {text!r:.60}, expected NAME:KEY=N,... such as conv1:pool=2, once each.")
        found[name] = Between.parse(options)
    return found


@click.command(cls=Verb, name="import", epilog=EXAMPLES, rules=RULES)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "inputs", type=click.Choice(["signs", "bits"]), help="The model takes -1/+1, or 0/1.")
@model_options
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Save the exact network (.npz).")
@click.option("--data", metavar="NAME", help="Compare on these images: digits, mnist or fashion-mnist.")
@data_dir_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@index_option("all")
@click.option("--samples", type=int, default=100, show_default=True, help="Random inputs to compare without --data.")
@output_options
def command(
    model: Path,
    output: Path | None,
    data: str | None,
    data_dir: Path | None,
    split: str,
    index: str | None,
    samples: int,
    inputs: str | None,
    input_range: tuple[int, int] | None,
    input_scale: str | None,
    input_offset: str | None,
    input_shape: str | None,
    zero_sign: str | None,
    as_json: bool,
    quiet: bool,
    **torch_only: Any,
) -> int:
    """Read a model of another tool (ONNX, eevbnn, Keras/larq, torch) as an exact network.

    Prints what was understood of every layer, folds it without rounding, and compares with onnxruntime on the same
    file where that is installed. A framework evaluates in float32: near ties it may decide otherwise, so the smallest
    margins and the ties that were met are printed too. The exit code is 1 if a class differs.
    """
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.formats import import_model, kind_of, native

    require_outputs({"--output": output}, inputs=[model])
    coding = coding_of(inputs, input_range, input_scale, input_offset)
    kind = kind_of(model)
    imported = import_model(
        model,
        coding=coding,
        zero_sign=zero_sign_of(zero_sign),
        input_shape=shape_of(input_shape),
        **torch_options(torch_only, kind),
    )
    points, labels, described = _inputs(imported, data, data_dir, split, index, samples)
    agreement = _compared(imported, points, model, kind)
    right = None if labels is None else int((imported.network.evaluate_batch(points) == labels).sum())
    if output is not None:
        native.save(imported.network, output)
    if as_json:
        answer = {
            "type": "import",
            "coding": imported.coding.to_json(),
            "input": {"name": imported.input_name, "shape": list(imported.input_shape)},
            "layers": [layer.to_json() for layer in imported.layers],
            "notes": list(imported.notes),
            "agreement": {"on": described, **agreement.to_json()},
            "right": right,
            "output": None if output is None else str(output),
        }
        emit({**envelope("import", model, imported.network), "answer": answer})
    else:
        _print(model, imported, agreement, described, right, output)
    return 0 if agreement.equal in (None, agreement.inputs) else 1


def _rational(text: str, option: str, example: str) -> Fraction:
    """The number of an option; QueryError if it is none."""
    from bnnverify.errors import QueryError
    from bnnverify.reading import number

    try:
        return number(text, digits=100, exponent=400)
    except ValueError:
        raise QueryError(f"{option} is {text!r:.60}, expected a number such as {example}.") from None


def _inputs(
    imported: Imported, data: str | None, data_dir: Path | None, split: str, index: str | None, samples: int
) -> tuple[IntArray, Any, str]:
    """Inputs, labels if there are any, and what they are."""
    import numpy as np

    from bnnverify.cli.images import dataset_of
    from bnnverify.cli.options import index_list
    from bnnverify.errors import QueryError
    from bnnverify.formats.agreement import random_inputs

    if data is None:
        if not 1 <= samples <= 10**6:
            raise QueryError(f"--samples is {samples}, expected 1 to 1000000.")
        return random_inputs(imported, samples), None, f"{samples} random inputs"
    from bnnverify import datasets

    part = dataset_of(data, data_dir).splits[split]
    chosen = index_list(index or "all", len(part), f"image of the {split} split")
    points = datasets.inputs_for(imported.network, part)[chosen]
    return np.asarray(points, dtype=np.int64), part.labels[chosen], f"{len(chosen)} images of {data}, {split} split"


def _compared(imported: Imported, points: IntArray, model: Path, kind: str) -> Agreement:
    from bnnverify.formats.agreement import compare

    return compare(imported, points, str(model) if kind == "onnx" else None)


def _print(
    model: Path,
    imported: Imported,
    agreement: Agreement,
    described: str,
    right: int | None,
    output: Path | None,
) -> None:
    network = imported.network
    click.echo(f"{model}  {network.architecture}  {imported.coding}  {network.n_cells:,} cells")
    if network.input_coding:
        click.echo("block 0 codes the inputs: a fixed threshold for each, no cells")
    click.echo(f"sha256 {network.identity}")
    shape = "x".join(map(str, imported.input_shape))
    click.echo(f"input {imported.input_name} ({shape})\n")
    for i, layer in enumerate(imported.layers):
        click.echo(f"{'output' if layer.kind == 'output' else f'block {i}':<9} {layer.text}")
        facts = [f"weights +-{layer.magnitude}"]
        if layer.negated:
            facts.append(f"{layer.negated} rows negated")
        if layer.constant:
            facts.append(f"{layer.constant} units constant")
        if layer.ties:
            facts.append(f"{layer.ties} units can meet their threshold")
        if layer.closest is not None:
            facts.append(f"other sums come within {layer.closest:.3g}")
        click.echo(f"{'':9} {layer.name}: {', '.join(facts)}")
    assumed = network.provenance.assumptions
    for note in assumed:
        click.echo(f"assumed   {note}")
    for note in imported.notes:
        if note not in assumed:
            click.echo(f"note      {note}")
    click.echo(f"\non {described}:")
    for margins in agreement.margins:
        near = "none" if margins.smallest is None else f"{margins.smallest:.3g}"
        click.echo(f"  block {margins.block}: smallest margin {near}, {margins.ties} sums on a threshold")
    click.echo(f"  scores: {agreement.tied} inputs with tied best classes")
    if right is not None:
        click.echo(f"  {right} of {agreement.inputs} classified right: {right / agreement.inputs:.2%}")
    if agreement.equal is None:
        click.echo(f"  not compared with onnxruntime: {agreement.reason}")
    else:
        first = "" if agreement.first is None else f"; the first that differs is number {agreement.first}"
        click.echo(f"  {agreement.runtime} gives the same class on {agreement.equal} of {agreement.inputs}{first}")
    if output is not None:
        click.echo(f"saved {output}")
