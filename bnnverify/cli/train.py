"""``bnnverify train``: a network from images."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from bnnverify.cli.options import data_options, output_options, together
from bnnverify.cli.outputs import require_outputs
from bnnverify.cli.verb import Verb
from bnnverify.errors import BnnVerifyWarning, FormatError, QueryError
from bnnverify.files import Lines
from bnnverify.reading import json_of, parsed, read_text, reason

EXAMPLES = """\b
Examples:
  bnnverify train --data digits --hidden 32 -o digits.npz
  bnnverify train --data digits --hidden 32 --rule ss-ema --epochs 60 --seed 3 -o switched.npz
  bnnverify train --data mnist --hidden mlp-256-256 --rule ss-count --epochs 15 --set bits=4 \\
      --checkpoint run.pt --metrics run.jsonl -o mnist.npz
  bnnverify train --data mnist --hidden 16c5p2,32c5p2,128 --rule ss-ema --input pixels --noise 0 -o conv.npz
  bnnverify train --data digits --rule bop2nd --show-config

\b
Settings that are not given follow the number of steps; those that were used are printed.
Schedules: a rate may be a number or START:END[:KIND], such as 1e-3:1e-5:exponential (the default kind),
polynomial:POWER, cosine or step:STEPS.
"""

# What suits tens of thousands of images, in place of the recipe of a rule, which is for the digits.
LARGE = {"epochs": 15, "batch_size": 100, "noise": 0.0}

# The keys of bnnverify.training.rules.RULES, which a test compares; importing it would import torch.
RULES = ("ste", "bop", "bop2nd", "pbop", "ss-none", "ss-batch", "ss-ema", "ss-count", "ss-mem", "soft-bound")

model_options = together(
    click.option(
        "--hidden",
        metavar="LIST",
        help="Hidden blocks: neurons such as 20,16; convolutions such as 16c5p2 (16 filters of 5x5, pooled 2x2; s: "
        "stride, v: padding); or a preset: mlp-256-256, tfc, sfc, lfc, lenet. Default: 32.",
    ),
    click.option("--batch-norm/--no-batch-norm", default=None, help="Default: what suits the rule or the preset."),
    click.option("--bias/--no-bias", default=None, help="Learn biases of hidden blocks without batch norm."),
    click.option("--output-bias/--no-output-bias", default=None, help="Learn a bias of each class."),
    click.option("--input", type=click.Choice(["binary", "pixels"]), help="What the first block reads."),
    click.option("--x-shift", type=float, metavar="X", help="Shift hidden signs and their gradient windows."),
    click.option("--y-shift", type=float, metavar="Y", help="Shift hidden signs within their windows."),
)

fault_options = together(
    click.option("--ber", metavar="P", help="Train with bit errors: every cell reads wrong with this probability."),
    click.option("--p01", metavar="P", help="As --ber, for a stored -1 that reads +1."),
    click.option("--p10", metavar="P", help="As --ber, for a stored +1 that reads -1."),
    click.option("--fault-draw", type=click.Choice(["chip", "step"]), help="Once for the run, or for every step."),
)

run_options = together(
    click.option("--epochs", type=int, help="Default: what suits the rule; 15 for mnist and its like."),
    click.option("--batch-size", type=int, metavar="N", help="Images per step. Default: 64; 100 for mnist."),
    click.option("--learning-rate", type=float, metavar="X", help="Of Adam, for the real-valued parameters."),
    click.option("--loss", type=click.Choice(["cross-entropy", "squared-hinge", "margin-hinge"])),
    click.option("--margin", type=float, metavar="B", help="Of margin-hinge, in units of the output sums."),
    click.option(
        "--noise",
        type=float,
        metavar="P",
        help="Flip each binary input with this probability. Default: 0.02 for binary digits, else 0.",
    ),
    click.option(
        "--adversarial",
        type=int,
        metavar="N",
        help="Change training images against the network: flip N binary inputs, or move every pixel by N.",
    ),
    click.option(
        "--select", type=click.Choice(["best", "final"]), help="Keep the epoch best on validation, or the last."
    ),
    click.option(
        "--train-on-validation", is_flag=True, default=None, help="Train on these images too; --select final."
    ),
    click.option("--seed", type=int, help="Of all randomness. Default: 0."),
)


@click.command(cls=Verb, epilog=EXAMPLES)
@data_options
@click.option("--rule", type=click.Choice(RULES), default="ste", show_default=True, help="Update rule.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Hyper-parameter of the rule; repeatable.")
@model_options
@run_options
@fault_options
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="JSON config or card to start from.")
@click.option("--show-config", is_flag=True, help="Print the whole config as JSON and stop; null follows the steps.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where torch computes: cpu or cuda.")
@click.option("--threads", type=int, metavar="N", help="Of torch; the result does not depend on it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="The network, .npz.")
@click.option("--metrics", type=click.Path(path_type=Path), metavar="FILE", help="One JSON line per epoch.")
@click.option("--metrics-every", type=int, metavar="N", help="Also one line every N steps.")
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Also write TensorBoard events.")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Keep the state of the run here.")
@click.option("--resume", is_flag=True, help="Go on from --checkpoint if it exists: the same bits as without a break.")
@output_options
def command(
    data: str,
    data_dir: Path | None,
    rule: str,
    settings: tuple[str, ...],
    config: Path | None,
    show_config: bool,
    device: str,
    threads: int | None,
    output: Path | None,
    metrics: Path | None,
    metrics_every: int | None,
    tensorboard: Path | None,
    checkpoint: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    **changes: Any,
) -> int:
    """Train a binarized network and save it.

    The best epoch is chosen on the validation images; the test images are used once, at the end. The saved network is
    compared with the trained model on every image. Ctrl-C keeps the best so far (exit code 130), and with --checkpoint
    everything that is needed to go on.
    """
    from bnnverify.cli.images import dataset_of
    from bnnverify.cli.lines import emit, envelope
    from bnnverify.formats.native import save

    if output is None and not show_config:
        raise QueryError("there is no --output, expected the file to save the network to, such as -o network.npz.")
    files = {"--output": output, "--metrics": metrics, "--checkpoint": checkpoint}
    require_outputs(files, folders={"--tensorboard": tensorboard}, inputs=[config])
    if data_dir is not None and data == "digits":
        raise QueryError("--data-dir is given, but the digits are in no files, expected it with --data mnist.")
    if resume and checkpoint is None:
        raise QueryError("--resume is given without --checkpoint, expected the file to go on from.")
    if metrics_every is not None and metrics is None and tensorboard is None:
        raise QueryError("--metrics-every is given without --metrics or --tensorboard, expected where the lines go.")
    if checkpoint is not None and checkpoint.exists() and not resume:
        raise QueryError(
            f"--checkpoint {checkpoint} exists, expected --resume to go on from it, or the name of a new file."
        )
    from bnnverify.training import export, train
    from bnnverify.training.rules import rule_options

    given = click.get_current_context().get_parameter_source("rule") is not click.core.ParameterSource.DEFAULT
    defaults = LARGE if data != "digits" and config is None else {}
    asked = _config(config, rule if given or config is None else None, settings, {**defaults, **_given(changes)})
    _require_effect(asked, changes, settings)
    if show_config or output is None:
        click.echo(json.dumps(asked.as_json(), indent=2))
        return 0
    dataset = dataset_of(data, data_dir)
    with ExitStack() as stack:
        sink = _sink(stack, metrics, tensorboard, append=resume)
        stack.enter_context(_warnings_as_sentences())
        try:
            trained = train(
                asked,
                dataset,
                device=device,
                threads=threads,
                progress=not quiet and sys.stderr.isatty(),
                metrics=sink,
                metrics_every=metrics_every,
                checkpoint=checkpoint,
                resume=resume,
            )
        except KeyboardInterrupt:
            more = f" Go on with --checkpoint {checkpoint} --resume." if checkpoint and checkpoint.exists() else ""
            click.echo(f"bnnverify train: interrupted; no network was saved.{more}", err=True)
            return 130
    network = export(trained)
    try:
        save(network, output)
    except FormatError as error:
        raise FormatError(f"{error} {_rescued(network, None if trained.problems else checkpoint)}") from None
    found = network.provenance.data["accuracy"]
    if as_json:
        answer = {
            "type": "training",
            "rule": asked.rule.name,
            "options": rule_options(trained.config.rule),
            "best_epoch": trained.best_epoch,
            "accuracy": found,
            "statistics": trained.statistics,
            "seconds": round(trained.seconds, 3),
            "interrupted": trained.interrupted,
        }
        data_line = {"name": dataset.name, "split": "train", "provenance": dict(dataset.provenance)}
        emit({**envelope("train", output, network), "data": data_line, "answer": answer})
    else:
        click.echo(f"{output}  {network.architecture}  {network.n_cells:,} cells  sha256 {network.identity[:16]}")
        chosen = "best epoch" if asked.select == "best" else "last epoch"
        how = " by validation accuracy" if asked.select == "best" else ""
        click.echo(f"rule {asked.rule.name}, {chosen} {trained.best_epoch} of {len(trained.history)}{how}")
        followed = _followed(asked.rule, trained.config.rule)
        if followed:
            click.echo(f"settings  {followed}, which follow the number of steps")
        click.echo("accuracy  " + "  ".join(f"{split} {value:.2%}" for split, value in found.items()))
        if trained.statistics.get("pulses"):
            click.echo(_writes(trained.statistics))
    if trained.interrupted:
        more = f" Go on with --checkpoint {checkpoint} --resume." if checkpoint and not trained.problems else ""
        click.echo(f"bnnverify train: interrupted; the best network so far is in {output}.{more}", err=True)
        return 130
    if trained.problems:
        raise FormatError(f"{'; '.join(trained.problems)}. The training is complete, the network is in {output}.")
    return 0


def _rescued(network: Any, checkpoint: Path | None) -> str:
    """Where a network is that cannot be saved where it should be."""
    from bnnverify.formats.native import save

    other = Path(tempfile.gettempdir()) / f"bnnverify-{network.identity[:16]}.npz"
    try:
        save(network, other)
    except FormatError:
        said = "It could not be saved anywhere."
    else:
        said = f"The network is in {other} instead."
    return said if checkpoint is None else f"{said} The training is in {checkpoint}: --resume it with another --output."


def _writes(totals: Mapping[str, Any]) -> str:
    """What writing the cells took, on one line."""
    parts = [f"{totals['pulses']:,} pulses"]
    if "switches" in totals:
        parts.append(f"{totals['switches']:,} switches")
    if totals.get("switches_per_cell_max") is not None:
        parts.append(f"at most {totals['switches_per_cell_max']:,} of one cell")
    if totals.get("energy_joule") is not None:
        parts.append(f"{totals['energy_joule']:.3g} J")
    if totals.get("undo_events"):
        parts.append(f"{totals['undone_fraction']:.1%} of {totals['events']:,} events undone")
    return "writes    " + ", ".join(parts)


def _followed(asked: Any, used: Any) -> str:
    """The hyper-parameters that followed the number of steps, as ``--set`` takes them."""
    from bnnverify.training.rules import rule_options

    before = rule_options(asked)
    return ", ".join(
        f"{name}={value}" for name, value in rule_options(used).items() if before[name] is None and value is not None
    )


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Warnings of this package on stderr, without the place in the code."""
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, BnnVerifyWarning):
            click.echo(f"bnnverify train: {message}", err=True)
        else:
            shown(message, category, *rest)

    with warnings.catch_warnings():
        warnings.simplefilter("always", BnnVerifyWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _require_effect(asked: Any, changes: dict[str, Any], settings: tuple[str, ...]) -> None:
    """No option of the command line is without effect in this config."""
    hidden = bool(asked.hidden)
    learned = (hidden and (asked.batch_norm or asked.bias)) or asked.output_bias
    learned = learned or (asked.output_scale and asked.loss != "margin-hinge")
    for option, has_effect, where in (
        ("margin", asked.loss == "margin-hinge", "--loss margin-hinge"),
        ("fault_draw", asked.faults is not None, "--ber, --p01 or --p10"),
        ("bias", hidden and not asked.batch_norm, "hidden blocks without batch norm"),
        ("batch_norm", hidden, "hidden blocks"),
        ("x_shift", hidden, "hidden blocks"),
        ("y_shift", hidden, "hidden blocks"),
        ("learning_rate", learned, "biases, batch norm or an output scale that are learned"),
    ):
        if changes[option] is not None and not has_effect:
            name = option.replace("_", "-")
            raise QueryError(f"--{name} is given, but has no effect here, expected it with {where}.")
    names = [_setting(text)[0] for text in settings]
    for name in names:
        if names.count(name) > 1:
            raise QueryError(f"--set {name} is given twice, expected one value.")
    rule = asked.rule
    undo = getattr(rule, "undo", None)
    for name, needed, where in (
        ("momentum", getattr(rule, "optimizer", "sgd") == "sgd", "optimizer=sgd"),
        ("noise", getattr(rule, "c2c_sigma", 1) > 0, "c2c_sigma above 0"),
        ("undo_size", undo is None or undo.data == "holdout", "undo_data=holdout"),
        ("undo_tries", undo is None or undo.writes == "stochastic", "undo_writes=stochastic"),
    ):
        if name in names and not needed:
            raise QueryError(f"--set {name} is given, but has no effect here, expected it with --set {where}.")


def _config(base: Path | None, rule: str | None, settings: tuple[str, ...], changes: dict[str, Any]) -> Any:
    """The config of a file, or the rule's recipe, with what the command line changes."""
    from bnnverify.training import TrainingConfig

    values = {} if base is None else _read_config(base)
    if rule is not None and values.get("rule") not in (None, rule):
        values = {name: value for name, value in values.items() if name not in ("rule", "options")}
    options = values.pop("options", None) or {}
    if not isinstance(options, dict):
        raise FormatError(f"{base}: options is {options!r:.60}, expected an object of hyper-parameters.")
    options = {**options, **dict(_setting(text) for text in settings)}
    name = rule or values.pop("rule", "ste")
    values.pop("rule", None)
    faults = _faults(changes.pop("ber", None), changes.pop("p01", None), changes.pop("p10", None))
    values.update(changes)
    if faults is not None:
        values["faults"] = faults
    return TrainingConfig.for_rule(name, options=options, **values)


def _read_config(path: Path) -> dict[str, Any]:
    what = "a config, which `bnnverify train --show-config` makes"
    values = json_of(read_text(path, what), str(path), what)
    if isinstance(values, dict) and isinstance(values.get("config"), dict):
        values = values["config"]  # a card
    if not isinstance(values, dict):
        raise FormatError(f"{path}: holds a {type(values).__name__}, expected a config or a card as a JSON object.")
    return values


_WORDS = {"True": True, "False": False, "None": None}


def _setting(text: str) -> tuple[str, Any]:
    """``name=value``; the value is JSON or a word of Python where it can be read so, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise QueryError(f"--set is {text!r}, expected NAME=VALUE such as rate=1e-3.")
    name, value = name.strip().replace("-", "_"), value.strip()
    if value in _WORDS:
        return name, _WORDS[value]
    try:
        return name, parsed(value)
    except ValueError:
        return name, value


def _faults(ber: str | None, p01: str | None, p10: str | None) -> Any:
    from bnnverify.faults import AsymmetricFlip, BitFlip, rate

    if ber is not None and (p01 is not None or p10 is not None):
        raise QueryError("--ber is given with --p01 or --p10, expected one or the other.")
    if ber is not None:
        return BitFlip(rate(ber, "--ber"))
    if p01 is not None or p10 is not None:
        return AsymmetricFlip(rate(p01 or 0, "--p01"), rate(p10 or 0, "--p10"))
    return None


def _sink(stack: ExitStack, metrics: Path | None, tensorboard: Path | None, *, append: bool) -> Any:
    """Where records go: the file, TensorBoard, both or nowhere."""
    from bnnverify.training.metrics import tensorboard_sink

    try:
        file = None if metrics is None else stack.enter_context(Lines(metrics, append=append))
        events = None if tensorboard is None else stack.enter_context(tensorboard_sink(tensorboard))
    except OSError as error:
        where = error.filename or tensorboard
        raise QueryError(f"{where} cannot be written ({reason(error)}), expected a place that is writable.") from None
    if file is None and events is None:
        return None

    def write(record: dict[str, Any]) -> None:
        if file is not None:
            file.append(record)
        if events is not None:
            events(record)

    return write
