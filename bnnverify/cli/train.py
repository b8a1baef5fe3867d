"""``bnnverify train``: a network from images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bnnverify.cli.options import output_options, require_writable

EXAMPLES = """\b
Examples:
  bnnverify train --data digits --hidden 32 -o digits.npz
  bnnverify train --data digits --hidden 20,16 --seed 3 --metrics run.jsonl -o deep.npz
  bnnverify train --data digits --hidden 32 --rule ss-ema -o switched.npz
"""

# The keys of bnnverify.training.rules.RULES, which a test compares; importing it would import torch.
RULES = ("ste", "ss-ema")


@click.command(epilog=EXAMPLES)
@click.option("--data", default="digits", show_default=True, metavar="NAME", help="Data set: digits.")
@click.option(
    "--hidden", default="32", show_default=True, metavar="LIST", help="Neurons of each hidden block, such as 20,16."
)
@click.option(
    "--rule",
    type=click.Choice(RULES),
    default="ste",
    show_default=True,
    help="Update rule: latent weights with a straight-through estimator, or stochastically switching cells.",
)
@click.option("--epochs", type=int, help="Default: what suits the rule.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all randomness.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where torch computes: cpu or cuda.")
@click.option("--batch-norm/--no-batch-norm", default=None, help="Default: what suits the rule.")
@click.option("--loss", type=click.Choice(["cross-entropy", "squared-hinge"]), help="Default: what suits the rule.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The network, .npz."
)
@click.option("--metrics", type=click.Path(path_type=Path), metavar="FILE", help="One JSON line per epoch.")
@output_options
def command(
    data: str,
    hidden: str,
    rule: str,
    device: str,
    output: Path,
    metrics: Path | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Train a binarized network and save it.

    The best epoch is chosen on the validation images; the test images are used once, at the end. The saved network is
    compared with the trained model on every image. Ctrl-C keeps the best so far (exit code 130).
    """
    from bnnverify import datasets
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.errors import QueryError
    from bnnverify.formats.native import save

    require_writable(output, "--output")
    if metrics is not None:
        require_writable(metrics, "--metrics")
        if metrics.resolve() == output.resolve():
            raise QueryError(f"--metrics and --output are both {output}, expected two files.")
    from bnnverify.training import TrainingConfig, export, train
    from bnnverify.training.export import accuracies

    changes = {name: value for name, value in settings.items() if value is not None}
    config = TrainingConfig.for_rule(rule, hidden=_widths(hidden), **changes)
    dataset = datasets.load(data)
    bar = not quiet and sys.stderr.isatty()
    if metrics is None:
        trained = train(config, dataset, device=device, progress=bar)
    else:
        with metrics.open("w", encoding="utf-8") as file:
            trained = train(config, dataset, device=device, progress=bar, metrics=file)
    network = export(trained)
    save(network, output)
    found = accuracies(network, dataset)
    if as_json:
        answer = {
            "type": "training",
            "rule": rule,
            "best_epoch": trained.best_epoch,
            "accuracy": found,
            "seconds": round(trained.seconds, 3),
            "interrupted": trained.interrupted,
        }
        data_line = {"name": dataset.name, "split": "train", "provenance": dict(dataset.provenance)}
        emit({**envelope("train", output, network), "data": data_line, "answer": answer})
    else:
        click.echo(f"{output}  {network.architecture}  {network.n_cells:,} cells  sha256 {network.identity[:16]}")
        click.echo(f"rule {rule}, best epoch {trained.best_epoch} of {len(trained.history)} by validation accuracy")
        click.echo("accuracy  " + "  ".join(f"{split} {value:.2%}" for split, value in found.items()))
    if trained.interrupted:
        click.echo(f"bnnverify train: interrupted; the best network so far is in {output}.", err=True)
    return 130 if trained.interrupted else 0


def _widths(text: str) -> tuple[int, ...]:
    from bnnverify.errors import QueryError

    words = [word for word in text.replace(",", " ").split() if word]
    if not all(word.isdecimal() and 0 < int(word[:9]) <= 100_000 for word in words):
        raise QueryError(f"--hidden is {text!r:.60}, expected numbers of neurons such as 32 or 20,16.")
    return tuple(map(int, words))
