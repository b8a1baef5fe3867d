"""The questions of ``bnnverify reliability``, one after the other: each answer is printed as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    from bnnverify.cli.cells import Report
    from bnnverify.cli.faultmodels import Point
    from bnnverify.engines.base import Monitor
    from bnnverify.network import BinaryNetwork


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks, checked; names as there, `least` for ``--yield``."""

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
    worst_case: bool
    flips: int | None
    critical: int | None
    cell_map: Path | None
    map_block: int
    coefficients: int | None
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
    is_partial: bool = False

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
            raise KeyboardInterrupt("the answers printed say how far they came")


def answer_all(options: Options, lines: list[dict[str, Any]], places: list[Fraction]) -> int:
    """Answer everything; the exit code.

    Args:
        options: What is asked.
        lines: Takes every line as it is answered.
        places: Takes the rate of every line of type accuracy, for a figure.
    """
    from bnnverify.campaign import Store
    from bnnverify.cli.workers import _Interrupts

    session, points = _session(options, lines)
    with _Interrupts() as interrupts, Store(options.resume) as store:
        session.monitor, session.store = interrupts.monitor, store
        _heading(session, bool(points))
        for point in points:
            for ask in (_proved, _sampled, _chips):
                places += [point.rate] * ask(session, point)
                session.stop_if_asked()
        for question in (_target, _cells):
            question(session)
    return 3 if session.is_partial else 0


def _session(options: Options, lines: list[dict[str, Any]]) -> tuple[Session, list[Point]]:
    """Network, images and fault models; refuses what cannot be answered."""
    import numpy as np

    from bnnverify.campaign import Store
    from bnnverify.cli.faultmodels import fault_points
    from bnnverify.cli.images import choose
    from bnnverify.cli.lines import envelope
    from bnnverify.cli.questions import class_to_keep
    from bnnverify.engines.base import Monitor
    from bnnverify.errors import QueryError
    from bnnverify.formats import load_network
    from bnnverify.reliability.probability import FaultyNetwork

    of_rates = fault_points(2**31, **{**options.faults, "only_block": None})
    if not (of_rates or options.target_accuracy is not None or options.about_cells):
        raise QueryError(
            "no error rate is named, expected --ber RATES, --p01 with --p10, --stuck-at P+,P- or --target-accuracy A "
            "(or --worst-case, --critical N, --coefficients K)."
        )
    for name, value in (("--samples", options.samples), ("--chips", options.chips), ("--yield", options.least)):
        if value is not None and not of_rates:
            raise QueryError(f"{name} needs an error rate, expected --ber RATES or another one.")
    network = load_network(options.model)
    points = fault_points(len(network.blocks) + 1, **options.faults)
    images = choose(network, default="all", **options.source)
    known = all(image.label is not None for image in images.images)
    wanted = options.keep or ("true" if known else "predicted")
    x = np.array([image.x for image in images.images], dtype=np.int64)
    own = network.evaluate_batch(x).tolist()
    truth = [class_to_keep(wanted, image, c) for image, c in zip(images.images, own, strict=True)]
    for label in set(truth):
        network.require_class(label)
    if not options.only_samples:
        for point in points:
            FaultyNetwork(network, point.faults)  # refuses what it does not serve
    clean = sum(a == b for a, b in zip(own, truth, strict=True))
    indices = [image.index for image in images.images]
    shared = {
        **envelope("reliability", options.model, network),
        "data": dict(images.provenance),
        "images": {"indices": indices, "clean_correct": clean},
    }
    event = "change" if wanted == "predicted" else "error"
    arguments = (options, network, x, truth, indices, event, wanted, clean, shared, lines, Store(), Monitor())
    return Session(*arguments), points


def _heading(session: Session, has_table: bool) -> None:
    """Model, data and event, for people."""
    from bnnverify.cli.accuracies import HEADER

    if session.options.as_json:
        return
    network, data = session.network, session.shared["data"]
    source = data.get("file") or f"{data['name']}, {data['split']} split"
    click.echo(f"{session.options.model}  {network.architecture}  sha256 {network.identity[:16]}  |  {source}")
    right = {"true": "", "predicted": "; right is the fault-free class"}
    share = f"accuracy without errors {session.clean / len(session.truth):.4%}"
    words = right.get(session.wanted, f"; right is class {session.wanted}")
    click.echo(f"{len(session.truth)} images, {network.n_cells:,} cells, {share}{words}\n")
    if has_table:
        click.echo(HEADER)


def _proved(session: Session, point: Point) -> int:
    """Certified accuracy, yield and sensitivity at one point; how many accuracies were answered."""
    options = session.options
    if options.only_samples:
        return 0
    from bnnverify import campaign
    from bnnverify.reliability.yields import chip_yield

    with session.bar(len(session.truth)) as bar:
        found = campaign.certified_accuracy(
            *session.asked,
            point.faults,
            store=session.store,
            event=session.event,
            indices=session.indices,
            monitor=session.monitor,
            progress=bar.update,
            **session.effort,
        )
    session.is_partial |= bool(found.run.reason)
    answer = {
        "type": "accuracy",
        **found.accuracy.to_json(),
        "images_within_tolerance": sum(p.width <= options.tolerance for p in found.per_image),
        **({"per_image": found.to_json()["per_image"]} if options.per_image else {}),
        "run": found.run.to_json(),
    }
    session.answered({**_about(point), "tolerance": float(options.tolerance)}, answer)
    if options.least is not None and options.chips is None:
        share = chip_yield(found.per_image, options.least)
        _yield(session, point, share.to_json(), None)
    elif options.least is not None:
        session.shared["proved_yield"] = chip_yield(found.per_image, options.least).to_json()
    if options.sensitivity and not session.monitor.stop:
        from bnnverify.reliability.sensitivity import block_sensitivity

        with session.bar(len(session.truth) * (len(session.network.blocks) + 2)) as bar:
            effect = block_sensitivity(*session.asked, point.faults, progress=bar.update, **session.effort)  # type: ignore[arg-type]
        session.is_partial |= bool(effect.run.reason)
        session.answered(_about(point), effect.to_json(), f"  {effect}")
    return 1


def _about(point: Point) -> dict[str, Any]:
    return {"faults": point.faults.to_json(), "rates": point.text}


def _sampled(session: Session, point: Point) -> int:
    """Chips of their own for every image."""
    options = session.options
    if options.samples is None:
        return 0
    from bnnverify.engines.montecarlo import sample_errors

    with session.bar(options.samples, "chip") as bar:
        found = sample_errors(
            *session.asked,
            point.faults,
            samples=options.samples,
            seed=options.seed,
            confidence=options.confidence,
            seconds=options.timeout,
            jobs=options.jobs,
            monitor=session.monitor,
            progress=bar.update,
        )
    session.is_partial |= bool(found.run.reason)
    answer = {
        "type": "accuracy",
        **found.accuracy.to_json(),
        "method": "chips for each image",
        "chips": found.samples,
        "seed": options.seed,
        "run": found.run.to_json(),
    }
    session.answered(_about(point), answer)
    return 1


def _chips(session: Session, point: Point) -> int:
    """Whole chips, and the share of good ones."""
    options = session.options
    proved = session.shared.pop("proved_yield", None)
    if options.chips is None:
        return 0
    from bnnverify import campaign

    with session.bar(options.chips, "chip") as bar:
        found = campaign.sampled_chips(
            *session.asked,
            point.faults,
            store=session.store,
            event=session.event,
            chips=options.chips,
            seed=options.seed,
            confidence=options.confidence,
            jobs=options.jobs,
            device=options.device,
            seconds=options.timeout,
            monitor=session.monitor,
            progress=bar.update,
        )
    session.is_partial |= bool(found.run.reason)
    per_image = {"per_image": [e / found.chips for e in found.errors]} if options.per_image else {}
    answer = {
        "type": "accuracy",
        **found.accuracy.to_json(),
        "method": "whole chips",
        "chips": found.chips,
        "seed": options.seed,
        "correct": list(found.correct),
        **per_image,
        "run": found.run.to_json(),
    }
    session.answered(_about(point), answer)
    if options.least is not None:
        _yield(session, point, proved, found.yield_at(options.least).to_json())
    return 1


def _yield(session: Session, point: Point, proved: Any, sampled: Any) -> None:
    answer = {"type": "yield", "threshold": str(session.options.least), "proved": proved, "sampled": sampled}
    session.answered(_about(point), answer)


def _target(session: Session) -> None:
    """The tolerable error rate."""
    target = session.options.target_accuracy
    if target is None:
        return
    from bnnverify.reliability import tolerance_bracket

    with session.bar(0) as bar:
        bracket = tolerance_bracket(
            *session.asked, target, monitor=session.monitor, progress=bar.update, **session.effort
        )
    session.is_partial |= bool(bracket.run.statistics["timed_out"])
    session.answered({"target_accuracy": str(target)}, bracket.to_json())
    session.stop_if_asked()
    if session.options.every_rate:
        from bnnverify.reliability.everyrate import certified_range

        with session.bar(0) as bar:
            found = certified_range(
                *session.asked,
                target,
                seconds=session.options.timeout,
                monitor=session.monitor,
                progress=bar.update,
            )
        session.answered({"target_accuracy": str(target)}, found.to_json(), str(found))
        session.stop_if_asked()


def _cells(session: Session) -> None:
    """What single cells can do."""
    from bnnverify.cli import cells

    options, own = session.options, session.indices
    limits: dict[str, Any] = {"seconds": options.timeout, "monitor": session.monitor}
    more: dict[str, Any]
    if options.worst_case:
        more = {"indices": own, "flips": options.flips, "jobs": options.jobs}
        _report(session, {"flips": options.flips}, cells.worst_case_report, **more, **limits)
    if options.critical is not None:
        more = {"count": options.critical, "cell_map": options.cell_map, "map_block": options.map_block}
        _report(session, {"critical": options.critical}, cells.critical_report, **more, **limits)
    if options.coefficients is not None:
        at = [rate for rate in _plain_rates(options.faults["ber"]) if rate <= Fraction(1, 2)]
        order = options.coefficients
        _report(session, {"coefficients": order}, cells.coefficients_report, order=order, rates=at)


def _plain_rates(text: str | None) -> tuple[Fraction, ...]:
    from bnnverify.cli.options import rates

    return () if text is None else rates(text)


def _report(session: Session, question: dict[str, Any], ask: Callable[..., Report], **options: Any) -> None:
    with session.bar(len(session.truth)) as bar:
        report = ask(*session.asked, progress=bar.update, **options)
    session.is_partial |= report.is_partial
    session.answered(question, report.answer, "\n" + "\n".join(report.text))
    session.stop_if_asked()
