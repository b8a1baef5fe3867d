"""``bnnverify info``: what is in a network file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import model_argument, output_options
from bnnverify.cli.verb import Verb

if TYPE_CHECKING:
    from bnnverify.network import HiddenBlock, OutputBlock

EXAMPLES = """\b
Examples:
  bnnverify info net.npz
  bnnverify info net.npz --json
"""


@click.command(cls=Verb, epilog=EXAMPLES)
@model_argument
@output_options
def command(model: Path, as_json: bool, quiet: bool) -> int:
    """What is in a network file: blocks, cells, memory, operations, identity, provenance.

    Reading checks the file: every shape and type, and the function against the sha256 in the header.
    """
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.cli.models import load
    from bnnverify.summary import summarize

    network = load(model)
    costs = summarize(network)
    if as_json:
        blocks = [
            {**_block(block), "cells": cost.binary_weights, **cost.to_json()}
            for block, cost in zip(network.all_blocks, costs.blocks, strict=True)
        ]
        totals, provenance = costs.to_json(), dict(network.provenance.data)
        answer = {"type": "info", "blocks": blocks, "totals": totals, "provenance": provenance}
        emit({**envelope("info", model, network), "answer": answer})
        return 0
    domain = "signs -1/+1" if network.domain.is_binary else "bounded integers"
    shape = "x".join(map(str, network.domain.shape))
    click.echo(f"{model}  {network.architecture}  {domain} ({shape})  {network.n_cells:,} cells")
    if network.input_coding:
        click.echo("block 0 codes the inputs: a fixed threshold for each, no cells")
    click.echo(f"sha256 {network.identity}\n\n{costs}\n")
    click.echo(f"{'block':<8} {'thresholds':<14} negated rows")
    for block in network.blocks:
        facts = _block(block)
        low, high = facts["thresholds"]
        line = f"{facts['kind']:<8} {f'{low}..{high}':<14} {facts['negated']:<12}"
        click.echo(f"{line} {_geometry(block)}".rstrip())
    scales = "one scale" if network.output.has_common_scale else "a scale per class"
    click.echo(f"{'output':<8} {scales}, {'bias per class' if any(network.output.bias) else 'no bias'}")
    if network.provenance.data:
        click.echo("\nprovenance")
        for line in _shown(network.provenance.data, 1):
            click.echo(line)
    return 0


def _block(block: HiddenBlock | OutputBlock) -> dict[str, Any]:
    """What there is to say of a block, as plain values."""
    from bnnverify.network import ConvBlock, OutputBlock

    sizes: dict[str, Any] = {"inputs": block.n_inputs, "outputs": block.weights.shape[0], "cells": block.n_cells}
    if isinstance(block, OutputBlock):
        return {"kind": "output", **sizes}
    facts = {
        **sizes,
        "outputs": block.n_outputs,
        "thresholds": [int(block.thresholds.min()), int(block.thresholds.max())],
        "negated": int(block.negated.sum()),
    }
    if not isinstance(block, ConvBlock):
        return {"kind": "dense", **facts}
    geometry = ("input_shape", "kernel", "stride", "padding", "pool")
    return {
        "kind": "conv",
        **facts,
        **{name: list(getattr(block, name)) for name in geometry},
        "pad_value": block.pad_value,
        "conjunctions": int(block.conjunction.sum()),
    }


def _geometry(block: HiddenBlock) -> str:
    """The parts of a convolution in words; nothing for a dense block."""
    from bnnverify.network import ConvBlock

    if not isinstance(block, ConvBlock):
        return ""

    def size(pair: tuple[int, int]) -> str:
        return f"{pair[0]}x{pair[1]}"

    parts = [f"{block.n_filters} filters {size(block.kernel)}", f"stride {size(block.stride)}"]
    if block.padding != (0, 0):
        parts.append(f"padding {size(block.padding)} of {block.pad_value or 'nothing'}")
    if block.pool != (1, 1):
        every = int(block.conjunction.sum())
        parts.append(f"max over {size(block.pool)}" + (f", {every} of them conjunctions" if every else ""))
    return ", ".join(parts)


def _shown(values: Any, depth: int) -> list[str]:
    """Nested values as indented lines; long lists shortened."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{'  ' * depth}{key}", *_shown(value, depth + 1)]
        elif isinstance(value, list) and len(value) > 8:
            lines.append(f"{'  ' * depth}{key:<22} {len(value)} values, last {value[-1]}")
        else:
            lines.append(f"{'  ' * depth}{key:<22} {value}")
    return lines
