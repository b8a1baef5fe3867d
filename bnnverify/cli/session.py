"""What ``bnnverify reliability`` is asked, and what all its answers share: network, images, and where answers go."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bnnverify.campaign import Store
    from bnnverify.cli.faultmodels import Point
    from bnnverify.engines.base import Monitor
    from bnnverify.network import BinaryNetwork


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks, checked; names as there, `least` for ``--yield``, `draws` with a ``--figure``."""

    model: Path
    source: Mapping[str, Any]
    faults: Mapping[str, Any]
    as_json: bool
    is_quiet: bool
    keep: str | None
    tolerance: Fraction
    max_states: int
    sensitivity: bool
    target_accuracy: Fraction | None
    every_rate: bool
    energy: str | None
    worst_case: bool
    flips: int | None
    critical: int | None
    cell_map: Path | None
    map_block: int
    coefficients: int | str | None
    samples: int | None
    chips: int | None
    least: Fraction | None
    only_samples: bool
    device: str | None
    confidence: float
    seed: int
    per_image: bool
    resume: Path | None
    timeout: float | None
    jobs: int
    draws: bool = False

    @property
    def about_cells(self) -> bool:
        """True if something is asked that needs no error rate."""
        return self.worst_case or self.critical is not None or self.coefficients is not None


@dataclass(slots=True)
class Session:
    """Network, images and what was answered."""

    options: Options
    network: BinaryNetwork
    x: NDArray[np.int64]
    truth: list[int]
    indices: list[int]
    event: str
    wanted: str
    clean: int
    shared: dict[str, Any]
    lines: list[dict[str, Any]]
    store: Store
    monitor: Monitor
    coding: bool
    is_partial: bool = False
    proved_yield: dict[str, Any] | None = None  # until the sampled one is there

    @property
    def asked(self) -> tuple[BinaryNetwork, NDArray[np.int64], list[int]]:
        """The first arguments of every question."""
        return self.network, self.x, self.truth

    @property
    def effort(self) -> dict[str, Any]:
        """Options of the proofs."""
        o = self.options
        return {"tolerance": float(o.tolerance), "max_states": o.max_states, "jobs": o.jobs, "seconds": o.timeout}

    def answered(self, question: Mapping[str, Any], answer: dict[str, Any], text: str | None = None) -> None:
        """Print an answer, as JSON or for people, and remember its line."""
        from bnnverify.cli.accuracies import row
        from bnnverify.cli.lines import emit

        line = {**self.shared, "question": {**question, "keep": self.wanted, "event": self.event}, "answer": answer}
        self.lines.append(line)
        if self.options.as_json:
            emit(line)
        else:
            click.echo(row(line) if text is None else text)

    def bar(self, total: int, unit: str = "image") -> AbstractContextManager[Any]:
        """A progress bar on stderr that only a terminal sees, and only where it takes long."""
        from tqdm import tqdm

        off = True if self.options.is_quiet else None
        shape = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, ETA {remaining}, {rate_fmt}]"
        bar: AbstractContextManager[Any] = tqdm(
            total=total, desc="reliability", unit=unit, delay=2, leave=False, disable=off, bar_format=shape
        )
        return bar

    def stop_if_asked(self) -> None:
        """KeyboardInterrupt once Ctrl-C was pressed: what is answered is printed."""
        if self.monitor.stop:
            kept = "with --resume FILE the next run would go on from there"
            if self.options.resume is not None:
                kept = f"the same command goes on from {self.options.resume}"
            raise KeyboardInterrupt(f"the answers printed say how far they came; {kept}")


def open_session(options: Options, lines: list[dict[str, Any]]) -> tuple[Session, list[Point]]:
    """Network, images and fault models; refuses what cannot be answered."""
    import numpy as np

    from bnnverify.campaign import Store
    from bnnverify.cli.faultmodels import fault_points
    from bnnverify.cli.images import choose
    from bnnverify.cli.lines import envelope
    from bnnverify.cli.models import load
    from bnnverify.cli.questions import class_to_keep
    from bnnverify.engines.base import Monitor
    from bnnverify.errors import QueryError

    faults: dict[str, Any] = dict(options.faults)
    if options.energy is not None and not any(faults[name] for name in ("ber", "p01", "p10", "stuck_at")):
        faults["retries"] = 0  # those are for the write
    of_rates = fault_points(2**31, **{**faults, "only_block": None})
    if not (of_rates or options.target_accuracy is not None or options.about_cells):
        raise QueryError(
            "no error rate is named, expected --ber RATES, --p01 with --p10, --stuck-at P+,P- or --target-accuracy A "
            "(or --worst-case, --critical N, --coefficients K)."
        )
    network = load(options.model)
    points = fault_points(len(network.all_blocks) - network.input_coding, **faults)
    images = choose(network, default="all", **options.source)
    known = all(image.label is not None for image in images.images)
    wanted = options.keep or ("true" if known else "predicted")
    x = np.array([image.x for image in images.images], dtype=np.int64)
    own = network.evaluate_batch(x).tolist()
    truth = [class_to_keep(wanted, image, c) for image, c in zip(images.images, own, strict=True)]
    for label in set(truth):
        network.require_class(label)
    about = envelope("reliability", options.model, network)
    coding, (network, x) = network.input_coding, network.behind_coding(x)
    _require_served(options, network, points, x, truth)
    clean = sum(a == b for a, b in zip(own, truth, strict=True))
    indices = [image.index for image in images.images]
    shared = {
        **about,
        "data": dict(images.provenance),
        "images": {"indices": indices, "clean_correct": clean},
    }
    event = "change" if wanted == "predicted" else "error"
    arguments = (options, network, x, truth, indices, event, wanted, clean, shared, lines, Store(), Monitor(), coding)
    return Session(*arguments), points


def _require_served(
    options: Options, network: BinaryNetwork, points: list[Point], x: NDArray[np.int64], truth: list[int]
) -> None:
    """Refuses before any work what some question does not serve."""
    from bnnverify.engines.gpu import require_served
    from bnnverify.engines.montecarlo import require_readable
    from bnnverify.errors import QueryError
    from bnnverify.faults import BitFlip
    from bnnverify.reliability.everyrate import certified_range
    from bnnverify.reliability.exact import require_small
    from bnnverify.reliability.probability import FaultyNetwork

    blocks, target = len(network.all_blocks), options.target_accuracy
    if not -blocks <= options.map_block < blocks:
        raise QueryError(f"--map-block is {options.map_block}, expected 0 to {blocks - 1} (the output block).")
    if options.draws and not any(point.rate for point in points):
        raise QueryError("--figure has a logarithmic axis, expected a rate above 0.")
    for point in points:
        if not options.only_samples:
            FaultyNetwork(network, point.faults)
        if options.samples is not None:
            require_readable(network, point.faults)
        if options.device is not None:
            require_served(network, point.faults, options.device)
    if options.coefficients == "all":
        require_small(network)
    if target is not None and not points:
        FaultyNetwork(network, BitFlip(Fraction(0)))
    if options.every_rate and target is not None:
        certified_range(network, x[:1], truth[:1], target, seconds=1e-9)


def print_heading(session: Session, has_table: bool) -> None:
    """Model, data and event, for people."""
    from bnnverify.cli.accuracies import HEADER

    if session.options.as_json:
        return
    network, data = session.network, session.shared["data"]
    source = data.get("file") or f"{data['name']}, {data['split']} split"
    about = session.shared["model"]
    click.echo(f"{session.options.model}  {about['architecture']}  sha256 {about['identity'][:16]}  |  {source}")
    if session.coding:
        click.echo("the first block codes the inputs and has no cells; blocks are numbered from the one behind it")
    right = {"true": "", "predicted": "; right is the fault-free class"}
    share = f"accuracy without errors {session.clean / len(session.truth):.4%}"
    words = right.get(session.wanted, f"; right is class {session.wanted}")
    click.echo(f"{len(session.truth)} images, {network.n_cells:,} cells, {share}{words}")
    if has_table:
        click.echo(f"\n{HEADER}")
