"""The questions of ``bnnverify reliability``, one after the other: each answer is printed as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bnnverify.cli.session import Options, Session, open_session, print_heading

if TYPE_CHECKING:
    from bnnverify.cli.cells import Report
    from bnnverify.cli.faultmodels import Point

_LEVELS = 24  # pulses of the menu for the write energy


def answer_all(options: Options, lines: list[dict[str, Any]], places: list[Fraction]) -> int:
    """Answer everything; the exit code.

    Args:
        options: What is asked.
        lines: Takes every line as it is answered.
        places: Takes the rate of every line of type accuracy, for a figure.
    """
    from bnnverify.campaign import Store
    from bnnverify.cli.interrupts import Interrupts

    session, points = open_session(options, lines)
    with Interrupts() as interrupts, Store(options.resume) as store:
        session.monitor, session.store = interrupts.monitor, store
        print_heading(session, bool(points))
        for point in points:
            for ask in (_proved, _sampled, _chips):
                places += [point.rate] * ask(session, point)
                session.stop_if_asked()
        for question in (_target, _energy, _cells):
            question(session)
    return 3 if session.is_partial else 0


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
        session.proved_yield = chip_yield(found.per_image, options.least).to_json()
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
    proved, session.proved_yield = session.proved_yield, None
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
    from bnnverify.cli.faultmodels import FLIPS_AT_A_RATE
    from bnnverify.reliability import tolerance_bracket

    question = {"target_accuracy": str(target), "faults": FLIPS_AT_A_RATE}
    with session.bar(0) as bar:
        bracket = tolerance_bracket(
            *session.asked, target, monitor=session.monitor, progress=bar.update, **session.effort
        )
    session.is_partial |= bool(bracket.run.statistics["timed_out"])
    session.answered(question, bracket.to_json())
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
        session.answered(question, found.to_json(), str(found))
        session.stop_if_asked()


def _energy(session: Session) -> None:
    """The cheapest write that keeps the target."""
    options = session.options
    if options.energy is None:
        return
    from bnnverify.devices import PRESETS, PulseMenu
    from bnnverify.reliability.energy import lowest_write_energy

    cell = PRESETS[options.energy]
    menu = PulseMenu.for_cell(cell, levels=_LEVELS, lowest=0.3, highest=1 - 1e-9)
    retries = int(options.faults["retries"])
    with session.bar(0) as bar:
        found = lowest_write_energy(
            cell,
            *session.asked,
            options.target_accuracy,
            menu=menu,
            most_retries=retries,
            monitor=session.monitor,
            progress=bar.update,
            **session.effort,
        )
    session.is_partial |= "time limit" in found.run.reason
    question = {
        "target_accuracy": str(options.target_accuracy),
        "faults": {"kind": "write-error"},
        "cell": options.energy,
        "most_retries": retries,
    }
    session.answered(question, found.to_json(), f"\n{options.energy}: {found}")
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
        at = list(dict.fromkeys(_plain_rates(options.faults["ber"])))
        order = None if options.coefficients == "all" else options.coefficients
        more = {"order": order, "rates": at}
        _report(session, {"coefficients": options.coefficients}, cells.coefficients_report, **more, **limits)


def _plain_rates(text: str | None) -> tuple[Fraction, ...]:
    from bnnverify.cli.options import rates

    return () if text is None else rates(text)


def _report(session: Session, question: dict[str, Any], ask: Callable[..., Report], **options: Any) -> None:
    from bnnverify.cli.faultmodels import FLIPPED_CELLS

    with session.bar(len(session.truth)) as bar:
        report = ask(*session.asked, progress=bar.update, **options)
    session.is_partial |= report.is_partial
    session.answered({**question, "faults": FLIPPED_CELLS}, report.answer, "\n" + "\n".join(report.text))
    session.stop_if_asked()
