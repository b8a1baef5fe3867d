"""Pulse menus: the finitely many pulses that a pulse generator offers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.devices.switching import SET, FloatArray, SwitchingCell, checked
from bnnverify.errors import QueryError
from bnnverify.scalars import integer, real

DEFAULT_WIDTH = 1e-7  # s, of the strongest pulse of `PulseMenu.for_cell` where neither voltage nor width is given


@dataclass(frozen=True, slots=True)
class PulseMenu:
    """The pulses to choose from, in any order.

    Attributes:
        voltages: Amplitude of each pulse, V, shape `(L,)`.
        widths: Width of each pulse, s, shape `(L,)`.

    >>> from bnnverify.devices.switching import NucleationLimited
    >>> cell = NucleationLimited(tau_inf=1e-10, activation_voltage=10.0)
    >>> menu = PulseMenu.for_cell(cell, levels=3, lowest=0.001, highest=0.1, voltage=1.5)
    >>> menu.probabilities(cell).round(6).tolist()
    [0.001, 0.01, 0.1]
    """

    voltages: tuple[float, ...]
    widths: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, unit in (("voltages", "V"), ("widths", "s")):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise QueryError(f"{name} is {values!r}, expected one number [{unit}] for each pulse.")
            array = checked(list(values), name, f" {unit}")
            if array.ndim != 1 or not array.size or not array.all():
                raise QueryError(f"{name} is {values!r:.80}, expected one number above 0 [{unit}] for each pulse.")
            object.__setattr__(self, name, tuple(array.tolist()))
        if len(self.voltages) != len(self.widths):
            raise QueryError(
                f"the menu has {len(self.voltages)} voltages and {len(self.widths)} widths, expected equal."
            )

    def __len__(self) -> int:
        return len(self.voltages)

    @classmethod
    def for_cell(
        cls,
        cell: SwitchingCell,
        *,
        levels: int = 16,
        lowest: float = 1e-4,
        highest: float = 0.5,
        voltage: float | None = None,
        width: float | None = None,
    ) -> Self:
        """Pulses whose SET probabilities (median cell) rise geometrically from `lowest` to `highest`.

        Args:
            cell: The cell to program.
            levels: Number of pulses; a single one has probability `highest`.
            lowest: Probability of the weakest pulse, within (0, highest].
            highest: Probability of the strongest pulse, below 1.
            voltage: Amplitude of all pulses, V; the width is programmed.
            width: Width of all pulses, s; the amplitude is programmed. With neither, all pulses last 100 ns: widths
                that reach from `lowest` to `highest` at one amplitude can span many orders of magnitude, down to what
                no generator makes.

        Raises:
            QueryError: Both voltage and width given, or a probability out of the cell's reach.
        """
        if voltage is not None and width is not None:
            raise QueryError("the menu got a voltage and a width, expected one of them: the other one is programmed.")
        levels = integer(levels, "levels", least=1)
        for name, value, unit in (
            ("lowest", lowest, ""),
            ("highest", highest, ""),
            ("voltage", voltage, " V"),
            ("width", width, " s"),
        ):
            if value is not None and checked(value, name, unit).ndim:
                raise QueryError(f"{name} is {value!r:.80}, expected a single number.")
        if lowest is None or highest is None or not 0 < lowest <= highest < 1:
            raise QueryError(f"the menu reaches from {lowest} to {highest}, expected 0 < lowest <= highest < 1.")
        wanted = np.geomspace(lowest, highest, levels) if levels > 1 else np.array([float(highest)])
        if voltage is None:
            width = DEFAULT_WIDTH if width is None else width
            return cls(tuple(cell.voltage_for(wanted, width).tolist()), (float(width),) * levels)
        return cls((float(voltage),) * levels, tuple(cell.width_for(wanted, voltage).tolist()))

    @classmethod
    def grid(cls, voltages: Iterable[float], widths: Iterable[float]) -> Self:
        """Every amplitude with every width, voltage by voltage.

        >>> PulseMenu.grid([0.4, 0.5], [1e-9, 2e-9]).voltages
        (0.4, 0.4, 0.5, 0.5)
        """
        times = tuple(widths)
        pulses = [(v, t) for v in voltages for t in times]
        return cls(tuple(v for v, _ in pulses), tuple(t for _, t in pulses))

    def quantised(self, *, width_step: float | None = None, voltage_step: float | None = None) -> Self:
        """The menu on the grid of a pulse generator: nearest multiples, at least one step; equal pulses merge.

        Args:
            width_step: Smallest time step, s; None leaves the widths.
            voltage_step: Smallest voltage step, V; None leaves the voltages.

        >>> PulseMenu((1.0, 1.0, 1.0), (1.2e-9, 1.4e-9, 2.6e-9)).quantised(width_step=1e-9)
        PulseMenu(voltages=(1.0, 1.0), widths=(1e-09, 3e-09))
        """
        volts = _on_grid(self.voltages, voltage_step, "voltage_step", "V")
        seconds = _on_grid(self.widths, width_step, "width_step", "s")
        pulses = dict.fromkeys(zip(volts, seconds, strict=True))
        return type(self)(tuple(v for v, _ in pulses), tuple(t for _, t in pulses))

    def probabilities(self, cell: SwitchingCell, *, direction: int = SET) -> FloatArray:
        """Probability that each pulse switches the median cell, shape `(L,)`."""
        return cell.probability(self.voltages, self.widths, direction=direction)

    def hazards(self, cell: SwitchingCell, *, direction: int = SET) -> FloatArray:
        """``-ln(1 - P)`` of each pulse on the median cell, without unit, shape `(L,)`."""
        return cell.hazard(self.voltages, self.widths, direction=direction)

    def energies(self, cell: SwitchingCell, *, direction: int = SET) -> FloatArray:
        """Energy of each pulse, J, shape `(L,)`."""
        return cell.energy(self.voltages, self.widths, direction=direction)

    def nearest(self, probability: ArrayLike, cell: SwitchingCell, *, direction: int = SET) -> NDArray[np.intp]:
        """Number of the pulse whose probability is nearest, the first of equally near ones; shape as `probability`."""
        wanted = np.asarray(checked(probability, "probability", "", below=math.nextafter(1, 2)))
        offered = self.probabilities(cell, direction=direction)
        nearest: NDArray[np.intp] = np.abs(wanted[..., None] - offered).argmin(axis=-1)
        return nearest

    def to_json(self) -> dict[str, Any]:
        """Plain values: V and s."""
        return {"voltages": list(self.voltages), "widths": list(self.widths)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The menu whose `to_json` gave `values`; QueryError if they are no menu."""
        if not isinstance(values, Mapping) or values.keys() != {"voltages", "widths"}:
            raise QueryError(f"the pulse menu is {values!r:.80}, expected an object with 'voltages' and 'widths'.")
        return cls(values["voltages"], values["widths"])


def _on_grid(values: tuple[float, ...], step: float | None, what: str, unit: str) -> tuple[float, ...]:
    """Nearest multiples of the decimal `step`, at least one, each rounded once."""
    if step is None:
        return values
    size = real(step, what)
    if not size > 0:
        raise QueryError(f"{what} is {step!r} {unit}, expected a number above 0.")
    exact = Fraction(repr(size))
    return tuple(float(exact * max(1, round(Fraction(value) / exact))) for value in values)
