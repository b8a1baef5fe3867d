"""The lowest write energy at which chips are proved to be accurate enough: from pulses to certified accuracy.

A weaker or shorter pulse costs less and fails more often. Of all pulses of a menu and numbers of retries, only those
matter that make fewer wrong cells than everything cheaper; along this frontier the search bisects for the cheapest
write whose certified expected accuracy reaches the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnnverify.devices.programming import Shares, Write
from bnnverify.devices.pulses import PulseMenu
from bnnverify.devices.switching import RESET, SET, SwitchingCell
from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.faults import FaultModel, in_series, rate
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.probability import DEFAULT_MAX_STATES, DEFAULT_TOLERANCE
from bnnverify.reliability.reach import Reach, TargetAccuracy
from bnnverify.results import Run
from bnnverify.scalars import integer


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way to write the weights of a network.

    Attributes:
        write: Pulses and retries.
        faults: Fault model of the chips: the write errors, and what comes after them.
        energy: Expected energy of writing one weight, J.
        wrong: Expected share of cells that were written wrong, exact for the rates of the write.
        reach: Whether the expected accuracy reaches the target; None if it was not asked.
    """

    write: Write
    faults: FaultModel
    energy: float
    wrong: Fraction
    reach: Reach | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line: V, s, J."""
        write = self.write
        return {
            "voltage": write.voltage,
            "width": write.width,
            "reset_voltage": write.voltage if write.reset_voltage is None else write.reset_voltage,
            "reset_width": write.width if write.reset_width is None else write.reset_width,
            "retries": write.retries,
            "faults": self.faults.to_json(),
            "energy": self.energy,
            "wrong": float(self.wrong),
            "reached": None if self.reach is None else self.reach.reached,
            "accuracy": None if self.reach is None else self.reach.accuracy.to_json(),
        }


@dataclass(frozen=True, slots=True)
class LowestEnergy:
    """The cheapest write that is proved to keep the expected accuracy at a target.

    Attributes:
        target: The accuracy asked for.
        best: The cheapest point of those tried that is proved to reach it; None if none is.
        reference: What writing without errors costs: the cheapest point of the menu whose share of wrong cells is at
            most `reference_rate`, or the one of fewest wrong cells if the menu has none.
        reference_rate: See there.
        points: The frontier, cheapest first; those that were tried carry their `reach`.
        run: Time, and why there is no answer.
    """

    target: Fraction
    best: OperatingPoint | None
    reference: OperatingPoint
    reference_rate: Fraction
    points: tuple[OperatingPoint, ...]
    run: Run

    @property
    def relative(self) -> float | None:
        """Energy of the best point over that of the reference; None without a best point."""
        return None if self.best is None else self.best.energy / self.reference.energy

    def __str__(self) -> str:
        if self.best is None:
            return f"no write is proved to reach the accuracy {float(self.target):.15g}: {self.run.reason}"
        write, best = self.best.write, self.best
        assert best.reach is not None and self.relative is not None
        retries = f"{write.retries} {'retry' if write.retries == 1 else 'retries'}"
        return (
            f"accuracy at least {float(self.target):.15g} at {best.energy:.4g} J a weight ({self.relative:.1%} of "
            f"writing with {float(self.reference.wrong):.2g} wrong cells): SET {write.voltage:g} V, {write.width:g} s, "
            f"{retries}, {float(best.wrong):.3g} of the cells wrong (proved for these rates)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "lowest-write-energy",
            "target": str(self.target),
            "best": None if self.best is None else self.best.to_json(),
            "relative": self.relative,
            "reference": self.reference.to_json(),
            "reference_rate": str(self.reference_rate),
            "points": [point.to_json() for point in self.points],
            "run": self.run.to_json(),
        }


def write_frontier(
    cell: SwitchingCell,
    network: BinaryNetwork,
    menu: PulseMenu,
    *,
    most_retries: int = 0,
    before: str | Shares = "reset",
    read_energy: float = 0.0,
    after: FaultModel | None = None,
) -> tuple[OperatingPoint, ...]:
    """The writes that leave fewer wrong cells than everything cheaper, cheapest first.

    Args:
        cell: The cells.
        network: Its stored signs decide how many cells need a SET.
        menu: Pulses to choose from, for SET and for RESET.
        most_retries: Retries allowed, after perfect reads.
        before: What the cells hold before, as in `devices.Write`.
        read_energy: Energy of one read, J.
        after: Faults that follow the write, such as retention: `in_series`.
    """
    most_retries = integer(most_retries, "most_retries", least=0)
    plus = sum(int(np.count_nonzero(block.stored > 0)) for block in network.all_blocks)
    share = Fraction(plus, network.n_cells)
    found = []
    for retries in range(most_retries + 1):
        sides = []
        for direction, weight in ((SET, share), (RESET, 1 - share)):
            options = []
            for voltage, width in zip(menu.voltages, menu.widths, strict=True):
                write = Write(cell, voltage, width, retries=retries, before=before, read_energy=read_energy)
                rates = write.faults()
                wrong = weight * (rates.p10 if direction == SET else rates.p01)
                energy = write.energy(plus_share=float(direction == SET)) * float(weight)
                options.append((energy, wrong, voltage, width))
            sides.append(_frontier(options))
        for up in sides[0]:
            for down in sides[1]:
                found.append((up[0] + down[0], up[1] + down[1], retries, up[2:], down[2:]))
    points = []
    for _, wrong, retries, up, down in _frontier(found):
        write = Write(cell, up[0], up[1], down[0], down[1], retries, before, read_energy)
        faults: FaultModel = write.faults() if after is None else in_series(write.faults(), after)
        points.append(OperatingPoint(write, faults, write.energy(plus_share=float(share)), wrong))
    return tuple(points)


def _frontier(options: list[Any]) -> list[Any]:
    """Of (energy, wrong, ...) those with fewer wrong cells than all that cost no more, cheapest first."""
    kept: list[Any] = []
    for option in sorted(options):
        if not kept or option[1] < kept[-1][1]:
            kept.append(option)
    return kept


@about_cells
def lowest_write_energy(
    cell: SwitchingCell,
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    target: Any,
    *,
    menu: PulseMenu,
    most_retries: int = 0,
    before: str | Shares = "reset",
    read_energy: float = 0.0,
    after: FaultModel | None = None,
    reference_rate: Any = "1e-9",
    exhaustive: bool = False,
    tolerance: float = DEFAULT_TOLERANCE,
    max_states: int = DEFAULT_MAX_STATES,
    jobs: int = 1,
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> LowestEnergy:
    """The cheapest write of a menu whose certified expected accuracy is at least `target`.

    Along `write_frontier`, by bisection: the point before the best one is refuted or undecided. The accuracy need not
    fall with the share of wrong cells, so a still cheaper point might reach the target by accident; `exhaustive` tries
    them all.

    Args:
        cell: The cells.
        network: As in `expected_accuracy`.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the true labels, or the fault-free classes.
        target: Accuracy within [0, 1].
        menu: Pulses to choose from, for SET and for RESET (`PulseMenu.grid`, `PulseMenu.for_cell`).
        most_retries: Retries allowed, after perfect reads; all numbers up to it are tried.
        before: What the cells hold before, as in `devices.Write`.
        read_energy: Energy of one read, J.
        after: Faults that follow the write, such as `Retention.faults(time)`, or `PerRead`.
        reference_rate: Share of wrong cells that counts as writing without errors.
        exhaustive: Try every point from the cheapest up.
        tolerance: As in `accuracy_reaches`.
        max_states: As in `accuracy_reaches`.
        jobs: Threads.
        seconds: Time limit, s.
        monitor: Its `stop` ends the search; what is proved by then is the answer.
        progress: Called with 1 after every image that was bounded.

    Raises:
        QueryError: A bad argument.

    >>> from bnnverify.devices import PRESETS
    >>> from bnnverify.network import InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(3), (), OutputBlock.create([[1, 1, 1], [-1, -1, -1]]))
    >>> menu = PulseMenu.for_cell(PRESETS["mtj"], levels=8, lowest=0.3, highest=0.999999999, width=1e-8)
    >>> found = lowest_write_energy(PRESETS["mtj"], net, [[1, 1, 1]], [0], "0.99", menu=menu, before="opposite")
    >>> found.best.reach.accuracy.lower >= Fraction(99, 100), found.relative < 0.95
    (True, True)
    """
    question = TargetAccuracy(network, images, labels, target, tolerance, max_states, jobs, progress)
    clean = rate(reference_rate, "reference_rate")
    clock = Clock(seconds, monitor)
    points = list(
        write_frontier(
            cell, network, menu, most_retries=most_retries, before=before, read_energy=read_energy, after=after
        )
    )

    def holds(i: int) -> bool:
        point = points[i]
        if point.reach is None:
            reach = question.reached(point.faults, clock=clock)
            points[i] = OperatingPoint(point.write, point.faults, point.energy, point.wrong, reach)
            return reach.reached is True
        return point.reach.reached is True

    last, best = len(points) - 1, None
    if exhaustive:
        best = next((i for i in range(len(points)) if not clock.is_over and holds(i)), None)
    elif holds(last):
        low, best = -1, last
        while best - low > 1 and not clock.is_over:
            middle = (low + best) // 2
            if holds(middle):
                best = middle
            else:
                low = middle
    reference = next((point for point in points if point.wrong <= clean), points[last])
    reason = ""
    if clock.is_over:
        reason = clock.reason
    elif best is None:
        reason = "no point of the menu is proved to reach the target; add stronger pulses or allow retries"
    chosen = None if best is None else points[best]
    return LowestEnergy(
        question.goal, chosen, reference, clean, tuple(points), Run("convolution", clock.elapsed, reason)
    )
