"""``bnnverify count``: how many adversarial inputs does the region hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnnverify.cli.options import (
    engine_options,
    image_options,
    keep_option,
    model_argument,
    one_rate,
    output_options,
    region_options,
    ties_option,
)
from bnnverify.cli.verb import IMAGES, KEEP_OR_TARGET, Excludes, Needs, Verb
from bnnverify.errors import QueryError

EXAMPLES = """\b
Examples:
  bnnverify count net.npz --data digits --index 0:5 --radius 3
  bnnverify count net.npz --data digits --index 0 --free 0:24 --engine bdd --json
  bnnverify count net.npz --data digits --index 0 --whole-cube --timeout 60
  bnnverify count net.npz --data digits --index 0:5 --radius 4 --by-radius
  bnnverify count net.npz --data digits --index 0 --radius 3 --samples 10 --seed 1 --json
  bnnverify count net.npz --data digits --index 0 --whole-cube --noise 0.001
  bnnverify count DIR --input instance.txt --hamming 3        # a model folder and an input of BNNQuanalyst
  bnnverify count DIR --input instance.txt --fixed set.txt    # its fixed-set file lists the inputs that vary
"""

RULES = (
    *IMAGES,
    KEEP_OR_TARGET,
    Excludes("by_radius", ("samples", "noise"), "each is a question of its own"),
    Excludes("samples", ("noise",), "each is a question of its own"),
    Excludes("noise", ("target", "ties"), "noise asks whether the class, ties to the lowest index, changes"),
    Needs("seed", ("samples",), "it is the seed of the draws"),
)


@click.command(cls=Verb, epilog=EXAMPLES, rules=RULES)
@model_argument
@image_options
@region_options
@click.option("--target", type=int, metavar="CLASS", help="Count inputs of this class only, not of every other one.")
@keep_option
@ties_option
@click.option(
    "--by-radius",
    is_flag=True,
    help="A row for each radius up to that of --radius: count and share in the ball, and share at just that distance.",
)
@click.option("--samples", type=int, metavar="N", help="Draw N adversarial inputs, each exactly equally likely.")
@click.option("--seed", type=int, metavar="SEED", help="Of the draws. Default: 0.")
@click.option(
    "--noise",
    metavar="P",
    help="Probability that the class changes when every input that varies in the region flips with probability P; "
    "with --radius R from the inputs with at most R flips: then two bounds.",
)
@engine_options
@output_options
def command(
    model: Path, by_radius: bool, samples: int | None, seed: int | None, noise: str | None, **options: Any
) -> int:
    """How many inputs of the region change the class, and to which?

    Name a region: --radius, --free, --hold, --fixed or --whole-cube. Counts are exact integers of any size. If a limit
    is reached, or after Ctrl-C, two proved bounds are printed (exit codes 3 and 130).
    """
    from bnnverify.cli import questions as q
    from bnnverify.cli import tables

    what: dict[str, Any] = {"table": tables.counts(options["keep"])}
    if by_radius:
        what = {"table": tables.by_radius(options["keep"]), "analysis": "by-radius"}
    if samples is not None:
        if samples < 1:
            raise QueryError(f"--samples is {samples}, expected at least 1.")
        detail: dict[str, Any] = {"n": samples, "seed": seed or 0}
        what = {"table": tables.samples(options["keep"]), "analysis": "samples", "detail": detail}
    if noise is not None:
        detail = {"rate": one_rate(noise, "--noise")}
        what = {"table": tables.noise(options["keep"]), "analysis": "noise", "detail": detail}
    return q.limit_code(q.ask("count", model, **what, **options))
