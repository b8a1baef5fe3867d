"""``bnnverify export``: a network as ONNX."""

from __future__ import annotations

from pathlib import Path

import click

from bnnverify.cli.options import model_argument, output_options
from bnnverify.cli.outputs import require_outputs
from bnnverify.cli.verb import Verb

EXAMPLES = """\b
Examples:
  bnnverify export net.npz -o net.onnx
"""


@click.command(cls=Verb, name="export", epilog=EXAMPLES)
@model_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The ONNX file.")
@output_options
def command(model: Path, output: Path, as_json: bool, quiet: bool) -> int:
    """Write a network as ONNX, in standard operators that float32 evaluates without rounding.

    The file is read back and must give the same network, and onnxruntime, if it is installed, must give the same
    classes on random inputs.
    """
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.cli.models import load
    from bnnverify.errors import EngineError
    from bnnverify.formats import onnx, onnxwriter
    from bnnverify.formats.agreement import compare, random_inputs

    require_outputs({"--output": output}, inputs=[model])
    network = load(model)
    onnxwriter.save(network, output)
    again = onnx.load(output)
    points = random_inputs(again, 100)
    agreement = compare(again, points, str(output))
    same = bool((network.evaluate_batch(points) == again.network.evaluate_batch(points)).all())
    if not same or agreement.equal not in (None, agreement.inputs):
        raise EngineError(f"{output}: does not give the classes of the network. Do not use it.")
    if as_json:
        answer = {"type": "export", "output": str(output), "agreement": agreement.to_json()}
        emit({**envelope("export", model, network), "answer": {**answer, "same_identity": again.network == network}})
        return 0
    click.echo(f"{output}  {again.network.architecture}  {output.stat().st_size:,} bytes")
    equal = "the same network" if again.network == network else "a network of the same classes with another identity"
    click.echo(f"read back as {equal}")
    if agreement.equal is None:
        click.echo(f"not compared with onnxruntime: {agreement.reason}")
    else:
        click.echo(f"{agreement.runtime} gives the same class on {agreement.equal} of {agreement.inputs} random inputs")
    return 0
