"""``bnnverify info``: what is in a network file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnnverify.cli.options import model_argument, output_options

EXAMPLES = """\b
Examples:
  bnnverify info net.npz
  bnnverify info net.npz --json
"""


@click.command(epilog=EXAMPLES)
@model_argument
@output_options
def command(model: Path, as_json: bool, quiet: bool) -> int:
    """What is in a network file: blocks, cells, identity, provenance.

    Reading checks the file: every shape and type, and the function against the sha256 in the header.
    """
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.formats import load_network

    network = load_network(model)
    blocks: list[dict[str, Any]] = [
        {
            "kind": "dense",
            "inputs": block.n_inputs,
            "outputs": block.n_outputs,
            "cells": block.n_cells,
            "thresholds": [int(block.thresholds.min()), int(block.thresholds.max())],
            "negated": int(block.negated.sum()),
        }
        for block in network.blocks
    ]
    output = network.output
    last = {"kind": "output", "inputs": output.n_inputs, "outputs": output.n_classes, "cells": output.n_cells}
    if as_json:
        answer = {"type": "info", "blocks": [*blocks, last], "provenance": dict(network.provenance.data)}
        emit({**envelope("info", model, network), "answer": answer})
        return 0
    domain = "signs -1/+1" if network.domain.is_binary else "bounded integers"
    shape = "x".join(map(str, network.domain.shape))
    click.echo(f"{model}  {network.architecture}  {domain} ({shape})  {network.n_cells:,} cells")
    click.echo(f"sha256 {network.identity}\n")
    click.echo(f"{'block':<8} {'inputs':>7} {'outputs':>8} {'cells':>9}  thresholds   negated rows")
    for block in blocks:
        low, high = block["thresholds"]
        sizes = f"{block['inputs']:>7} {block['outputs']:>8} {block['cells']:>9,}"
        click.echo(f"{block['kind']:<8} {sizes}  {f'{low}..{high}':<12} {block['negated']}")
    scales = "one scale" if output.has_common_scale else "a scale per class"
    bias = "bias per class" if any(output.bias) else "no bias"
    click.echo(f"{'output':<8} {output.n_inputs:>7} {output.n_classes:>8} {output.n_cells:>9,}  {scales}, {bias}")
    if network.provenance.data:
        click.echo("\nprovenance")
        for line in _shown(network.provenance.data, 1):
            click.echo(line)
    return 0


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
