"""The fault models that the options of ``bnnverify reliability`` name, in the order in which a cell meets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import click

from bnnverify.cli.options import index_list, one_rate, rates, together
from bnnverify.errors import QueryError
from bnnverify.faults import (
    AsymmetricFlip,
    BitFlip,
    FaultModel,
    PerBlock,
    PerRead,
    StuckAt,
    in_series,
    write_verified,
)

Model = TypeVar("Model")

fault_options = together(
    click.option("--ber", metavar="RATES", help="Probability that a cell flips: 1e-3, a comma list, 1e-5:1e-1:log:13."),
    click.option("--p01", metavar="RATES", help="Probability that a stored -1 reads +1; together with --p10."),
    click.option("--p10", metavar="RATES", help="Probability that a stored +1 reads -1; together with --p01."),
    click.option(
        "--stuck-at",
        multiple=True,
        metavar="P+,P-",
        help="Probabilities that a cell is stuck at +1 and at -1 for good. May be given several times, as more points.",
    ),
    click.option(
        "--retries", type=int, default=0, metavar="N", help="Rewrites after a failed write: p becomes p^(N+1)."
    ),
    click.option(
        "--retention",
        metavar="T/TR",
        help="Then wait: time over the mean time that a sign lasts, such as 3600/1e8 or 1e-3; adds (1-exp(-2T/TR))/2.",
    ),
    click.option(
        "--only-block", metavar="LIST", help="Errors in these blocks only: 0 is the first, the last is the output."
    ),
    click.option("--per-read", is_flag=True, help="Errors are fresh at every read, not permanent."),
    click.option("--read-error", metavar="P", help="Also fresh errors at every read, on top of the permanent ones."),
)


# What these questions are about, in their words for people and as the `faults` of a JSON line; no option changes it.
FLIPS_AT_A_RATE = {"kind": "bit-flip"}
FLIPPED_CELLS = {"kind": "flipped-cells"}
_OF_ITS_OWN = {
    "target_accuracy": "permanent flips at one rate in all cells",
    "every_rate": "permanent flips at one rate in all cells",
    "worst_case": "any set of permanently flipped cells",
    "critical": "single permanently flipped cells",
    "coefficients": "sets of permanently flipped cells",
}


def require_applicable(questions: Mapping[str, Any], faults: Mapping[str, Any]) -> None:
    """Refuses fault options that a question would ignore.

    Args:
        questions: Options of the command line by name; those of `_OF_ITS_OWN` count, and `energy`, which has retries.
        faults: The fault options by name.

    Raises:
        QueryError: One of them does not apply to one of the questions.
    """
    for name, about in _OF_ITS_OWN.items():
        if questions[name] is None or questions[name] is False:
            continue
        for option, value in faults.items():
            is_default = value is None or value is False or value == () or value == 0
            is_of_the_write = option == "retries" and questions["energy"] is not None
            if option != "ber" and not is_default and not is_of_the_write:
                raise QueryError(
                    f"{_shown(option)} does not apply to {_shown(name)}, which asks about {about}. "
                    "Ask the two in separate commands."
                )


def _shown(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Point:
    """A fault model with its place in tables and figures.

    Attributes:
        faults: The model.
        rate: Its rate for the axis of a figure: of two rates the larger.
        text: The rates in words.
    """

    faults: FaultModel
    rate: Fraction
    text: str


def fault_models(
    ber: str | None, p01: str | None, p10: str | None, stuck_at: Sequence[str] = ()
) -> list[BitFlip] | list[AsymmetricFlip] | list[StuckAt]:
    """The models by stored sign that the options mean.

    Raises:
        QueryError: Two kinds are named, one of a pair is missing, or the pairs have different lengths.
    """
    if (ber is not None) + (p01 is not None or p10 is not None) + bool(stuck_at) > 1:
        raise QueryError("rates are named twice, expected --ber, or --p01 with --p10, or --stuck-at.")
    if ber is not None:
        return _once(BitFlip(p) for p in rates(ber))
    if stuck_at:
        pairs = [[one_rate(part, "--stuck-at") for part in text.split(",")] for text in stuck_at]
        for text, pair in zip(stuck_at, pairs, strict=True):
            if len(pair) != 2:
                raise QueryError(f"--stuck-at is {text!r:.60}, expected two probabilities such as 1e-3,1e-4.")
        return _once(StuckAt(*pair) for pair in pairs)
    if p01 is None and p10 is None:
        return []
    if p01 is None or p10 is None:
        raise QueryError("only one of --p01 and --p10 is given, expected both. Give 0 for a sign that never fails.")
    groups = rates(p01, "--p01"), rates(p10, "--p10")
    longest = max(map(len, groups))
    filled = [group * longest if len(group) == 1 else group for group in groups]
    if len(filled[0]) != len(filled[1]):
        raise QueryError(f"--p01 has {len(groups[0])} rates and --p10 has {len(groups[1])}, expected as many, or one.")
    return _once(AsymmetricFlip(a, b) for a, b in zip(*filled, strict=True))


def _once(models: Iterable[Model]) -> list[Model]:
    """Each model once: a point is asked once, however often it is named."""
    return list(dict.fromkeys(models))


def fault_points(
    n_blocks: int,
    *,
    ber: str | None,
    p01: str | None,
    p10: str | None,
    stuck_at: Sequence[str],
    retries: int,
    retention: str | None,
    only_block: str | None,
    per_read: bool,
    read_error: str | None,
) -> list[Point]:
    """Everything that the options mean: write errors, rewrites, waiting, blocks, reading.

    Args:
        n_blocks: Blocks of the network, the output block included.
        ber: As on the command line, like the others.
        p01: Likewise.
        p10: Likewise.
        stuck_at: Likewise.
        retries: Likewise.
        retention: Likewise.
        only_block: Likewise.
        per_read: Likewise.
        read_error: Likewise.

    Raises:
        QueryError: They make no sense, alone or together.
    """
    models: list[Any] = fault_models(ber, p01, p10, stuck_at)
    if retries < 0:
        raise QueryError(f"--retries is {retries}, expected 0 or more.")
    others = {"--only-block": only_block, "--per-read": per_read or None, "--retries": retries or None}
    if not models and (retention is not None or read_error is not None):
        models = [BitFlip(Fraction(0))]
    for name, value in others.items():
        if value is not None and not models:
            raise QueryError(f"{name} is given without an error rate, expected --ber RATES or another one.")
    if per_read and read_error is not None:
        raise QueryError("--per-read and --read-error are both given, expected one of the two.")
    if stuck_at and retries:
        raise QueryError(
            "--retries is given with --stuck-at, but a stuck cell stays stuck however often it is written."
        )
    for name, value in (("--per-read", per_read or None), ("--read-error", read_error)):
        if stuck_at and value is not None:
            raise QueryError(
                f"{name} is given with --stuck-at, but a stuck cell reads the same every time. Ask --stuck-at alone, "
                "or take --ber, or --p01 with --p10."
            )
    blocks = None if only_block is None else index_list(only_block, n_blocks, "block")
    fresh = None if read_error is None else one_rate(read_error, "--read-error")
    points = []
    for base in models:
        model, words = base, _words(base)
        if retries:
            model, words = (
                write_verified(model, retries),
                f"{words}, {retries} {'retry' if retries == 1 else 'retries'}",
            )
        if retention is not None:
            model, words = in_series(model, _aged(retention)), f"{words}, aged {retention}"
        rate = max(model.rates(0).plus, model.rates(0).minus)
        if blocks is not None:
            model, words = PerBlock.only(model, blocks, of=n_blocks), f"{words}, block {','.join(map(str, blocks))}"
        if per_read:
            model, words = PerRead(model), f"{words}, per read"
        if fresh is not None:
            reading = BitFlip(fresh) if blocks is None else PerBlock.only(BitFlip(fresh), blocks, of=n_blocks)
            model, words = PerRead(reading, permanent=model), f"{words}, read {float(fresh):.4g}"
            rate = max(rate, fresh)
        points.append(Point(model, rate, words))
    return points


def _words(model: BitFlip | AsymmetricFlip | StuckAt) -> str:
    return "  ".join(f"{name} {float(Fraction(v)):.4g}" for name, v in model.to_json().items() if name != "kind")


def _aged(text: str) -> AsymmetricFlip:
    """Symmetric errors after a share of the mean lifetime."""
    from bnnverify.devices.programming import Retention

    try:
        time, lifetime = map(float, text.split("/")) if "/" in text else (float(text), 1.0)
        return Retention(lifetime, lifetime).faults(time)
    except ValueError:
        raise QueryError(
            f"--retention is {text!r:.60}, expected a time over a lifetime, such as 3600/1e8 or 1e-3."
        ) from None
