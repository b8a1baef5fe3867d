"""The hardware in the loop: which pulse of a menu a cell gets, and what the cell does with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.devices import PRESETS, RESET, SET, PulseMenu, SwitchingCell, cell_from_json
from bnnverify.errors import QueryError
from bnnverify.training.randomness import uniform, uniforms
from bnnverify.training.rules.accumulators import Indices, Request, Signs
from bnnverify.training.rules.base import Randomness, is_number, plain_fields

ROUNDINGS = ("down", "random")


@dataclass(frozen=True, slots=True)
class Hardware:
    r"""Real cells and a pulse generator with finitely many pulses.

    A rule asks for a switching probability. The controller chooses a pulse by the menu's nominal probabilities, those
    of the median cell. The pulse then switches the cell with :math:`1 - \exp(-h f c)`, with h the hazard of the pulse
    in the direction of the switch, f the cell's own factor and c that of the cycle, lognormal with median 1.

    Attributes:
        cell: Law of the cells; brings the two spreads and the energies. Also the name of a preset.
        menu: Pulses; None for those of `PulseMenu.for_cell`, 16 from 10^-4 to 0.5. Also the options of `for_cell`, or
            the object with voltages and widths.
        rounding: ``down``: the strongest pulse with at most the probability asked for; below the weakest pulse that
            one, if at least half of its probability is asked for, else none. ``random``: one of the two neighbours
            (no pulse is a neighbour of the weakest), by a digital random number such that the mean is what is asked
            for; above the strongest pulse the strongest.
        knows_asymmetry: Whether the controller goes by the probabilities of each direction; if not, by those of SET.
        independent_directions: Whether a cell has a factor of its own for each direction.
        stuck_plus: Fraction of cells that hold +1 for ever, drawn by the seed.
        stuck_minus: Fraction of cells that hold -1 for ever.
        stuck_cells: Measured ones: triples (block from 0, flat index of the cell, -1 or +1); they outrank the drawn
            ones.

    >>> Hardware.of({"cell": "mtj", "menu": {"levels": 4, "lowest": 1e-3}}).nominal()[0].round(4).tolist()
    [0.001, 0.0079, 0.063, 0.5]
    """

    cell: SwitchingCell = field(default_factory=lambda: PRESETS["ftj"])
    menu: PulseMenu | None = None
    rounding: str = "down"
    knows_asymmetry: bool = True
    independent_directions: bool = False
    stuck_plus: float = 0.0
    stuck_minus: float = 0.0
    stuck_cells: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "cell", _cell(self.cell))
        object.__setattr__(self, "menu", _menu(self.menu, self.cell))

        def check(name: str, holds: bool, expected: str, value: Any = None) -> None:
            if not holds:
                got = getattr(self, name) if value is None else value
                raise QueryError(f"{name} of the hardware is {got!r}, expected {expected}.")

        check("rounding", self.rounding in ROUNDINGS, " or ".join(ROUNDINGS))
        check("knows_asymmetry", isinstance(self.knows_asymmetry, bool), "True or False")
        check("independent_directions", isinstance(self.independent_directions, bool), "True or False")
        for name in ("stuck_plus", "stuck_minus"):
            check(name, is_number(getattr(self, name)), "a number")
        check("stuck_plus", 0 <= self.stuck_plus < 1, "at least 0 and below 1")
        check("stuck_minus", 0 <= self.stuck_minus < 1, "at least 0 and below 1")
        total = self.stuck_plus + self.stuck_minus
        check("stuck_plus + stuck_minus", total < 1, "below 1", total)
        triples = _triples(self.stuck_cells)
        check("stuck_cells", triples is not None, "triples (block, index of the cell, -1 or +1)")
        object.__setattr__(self, "stuck_cells", triples)
        for direction in (SET, RESET):
            p = self.pulses.probabilities(self.cell, direction=direction)
            if not (p > 0).any():
                raise QueryError(
                    f"no pulse of the menu switches the cell in direction {direction:+d}, expected at least one."
                )

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """Hardware from itself, from its options, or from the name of a preset; None from None or False.

        Raises:
            QueryError: None of these.
        """
        if value is None or value is False:
            return None
        if isinstance(value, Hardware):
            return value  # type: ignore[return-value]
        if isinstance(value, str):
            return cls(cell=value)  # type: ignore[arg-type]
        if isinstance(value, Mapping):
            known = [f.name for f in fields(cls)]
            unknown = [name for name in value if name not in known]
            if unknown:
                raise QueryError(f"hardware has no option {unknown[0]!r}, expected one of: {', '.join(known)}.")
            return cls(**value)
        raise QueryError(f"hardware is {value!r:.80}, expected its options as an object, or: {', '.join(PRESETS)}.")

    @property
    def pulses(self) -> PulseMenu:
        """The menu."""
        return PulseMenu.for_cell(self.cell) if self.menu is None else self.menu

    def to_json(self) -> dict[str, Any]:
        """Plain values that `of` reads back."""
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        stuck = [list(triple) for triple in self.stuck_cells]
        menu = None if self.menu is None else self.menu.to_json()
        return {**rest, "cell": self.cell.to_json(), "menu": menu, "stuck_cells": stuck}

    def nominal(self) -> NDArray[np.float64]:
        """Probabilities that the controller goes by, of SET and RESET; shape `(2, pulses)`."""
        up = self.pulses.probabilities(self.cell, direction=SET)
        down = self.pulses.probabilities(self.cell, direction=RESET) if self.knows_asymmetry else up
        return np.stack([up, down])


def _cell(value: Any) -> SwitchingCell:
    if isinstance(value, str):
        if value not in PRESETS:
            raise QueryError(f"the cell is {value!r}, expected one of: {', '.join(PRESETS)}, or its parameters.")
        return PRESETS[value]
    cell = cell_from_json(value) if isinstance(value, Mapping) else value
    if not isinstance(cell, SwitchingCell):
        raise QueryError(f"the cell is {value!r:.80}, expected one of: {', '.join(PRESETS)}, or its parameters.")
    return cell


def _triples(value: Any) -> tuple[tuple[int, int, int], ...] | None:
    """Stuck cells as tuples; None if they are no triples (block, index, -1 or +1)."""
    try:
        triples = tuple((int(block), int(index), int(sign)) for block, index, sign in value)
        same = all(new == tuple(old) for new, old in zip(triples, value, strict=True))
    except (TypeError, ValueError, OverflowError):
        return None
    return triples if same and all(b >= 0 and i >= 0 and s in (-1, 1) for b, i, s in triples) else None


def _menu(value: Any, cell: SwitchingCell) -> PulseMenu | None:
    if value is None or isinstance(value, PulseMenu):
        return value
    if isinstance(value, Mapping):
        if "voltages" in value or "widths" in value:
            return PulseMenu.from_json(value)
        try:
            return PulseMenu.for_cell(cell, **value)
        except TypeError as error:
            raise QueryError(f"the menu cannot be made: {str(error).split('() ')[-1]}.") from None
    raise QueryError(f"the menu is {value!r:.80}, expected a PulseMenu or its options.")


class IdealCells:
    """One array of cells that switch with exactly the probability that is asked for, at no cost.

    Attributes:
        pulses: Pulses so far.
        switches: Switches so far, those that were taken back and the taking back included.
        worn: Switches of each cell, flat, int32.
    """

    def __init__(self, cells: Signs) -> None:
        self.pulses = self.switches = 0
        self.worn = np.zeros(cells.size, dtype=np.int32)

    def pulse(self, request: Request, cells: Signs, random: Randomness) -> Indices:
        """Applies the pulses; gives the indices of the cells that have switched."""
        pulses, indices = request.switched(cells, random.key())
        self.pulses += pulses
        self.flip(cells, indices)
        return indices

    def flip(self, cells: Signs, indices: Indices) -> None:
        """Switches these cells."""
        cells[indices] *= np.int8(-1)
        self.worn[indices] += 1
        self.switches += indices.size

    def energy(self) -> float | None:
        """Energy of all pulses so far, J; None where it has no meaning."""
        return None

    def state(self) -> dict[str, Any]:
        """All that changes, apart from the cells."""
        return {"pulses": self.pulses, "switches": self.switches, "worn": self.worn}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.pulses, self.switches, self.worn = int(state["pulses"]), int(state["switches"]), state["worn"]


class HardwareCells(IdealCells):
    """One array of cells of a `Hardware`; stuck cells hold their sign from the start.

    Attributes:
        level_pulses: Pulses so far of each direction (SET, RESET) and pulse of the menu, int64, shape `(2, pulses)`.
        level_switches: Switches so far, likewise.
        factors: Each cell's factor on the hazard, of SET and of RESET, float32, shape `(2, n)`; 0 where stuck.
    """

    def __init__(self, cells: Signs, hardware: Hardware, block: int, random: Randomness) -> None:
        super().__init__(cells)
        cell, menu, n = hardware.cell, hardware.pulses, cells.size
        self.level_pulses = np.zeros((2, len(menu)), dtype=np.int64)
        self.level_switches = np.zeros((2, len(menu)), dtype=np.int64)
        self._hazards = np.stack([menu.hazards(cell, direction=d) for d in (SET, RESET)])
        self._energies = np.stack([menu.energies(cell, direction=d) for d in (SET, RESET)])
        nominal = hardware.nominal()
        self._order = np.argsort(nominal, axis=1, kind="stable")
        self._nominal = np.take_along_axis(nominal, self._order, axis=1)
        self._cycle_sigma = float(cell.cycle_sigma)
        self._random_rounding = hardware.rounding == "random"
        generator = np.random.default_rng(int(random.key()))
        first = cell.hazard_factors(n, generator=generator)
        second = cell.hazard_factors(n, generator=generator) if hardware.independent_directions else first
        self.factors = np.stack([first, second]).astype(np.float32)
        self._stick(cells, hardware, block, random)

    def _stick(self, cells: Signs, hardware: Hardware, block: int, random: Randomness) -> None:
        u = uniforms(random.key(), cells.size)
        stuck = np.zeros(cells.size, dtype=np.int8)
        stuck[u < hardware.stuck_plus + hardware.stuck_minus] = -1
        stuck[u < hardware.stuck_plus] = 1
        for where, index, sign in hardware.stuck_cells:
            if where == block:
                if index >= cells.size:
                    raise QueryError(f"stuck_cells names cell {index} of block {block}, which has {cells.size} cells.")
                stuck[index] = sign
        held = stuck != 0
        cells[held] = stuck[held]
        self.factors[:, held] = 0

    def pulse(self, request: Request, cells: Signs, random: Randomness) -> Indices:
        """Applies the pulses; gives the indices of the cells that have switched."""
        return self._apply(*request.pulses(cells), cells, random)

    def take_back(self, cells: Signs, indices: Indices, tries: int, random: Randomness) -> Indices:
        """Pulses switched cells with the strongest pulse until they are back; gives those that never were."""
        left = indices
        for _ in range(tries):
            if not left.size:
                break
            done = self._apply(left, np.ones(left.size), cells, random)
            left = np.setdiff1d(left, done, assume_unique=True)
        return left

    def _apply(self, indices: Indices, wanted: NDArray[np.float64], cells: Signs, random: Randomness) -> Indices:
        keys = random.key(), random.key(), random.key()
        switched: Indices = _pulse(
            indices,
            wanted,
            cells,
            self._nominal,
            self._order,
            self._hazards,
            self.factors,
            self._cycle_sigma,
            self._random_rounding,
            *keys,
            self.level_pulses,
            self.level_switches,
        )
        self.pulses = int(self.level_pulses.sum())
        self.flip(cells, switched)
        return switched

    def energy(self) -> float | None:
        """Energy of all pulses so far, J: counts times the energy of one pulse."""
        return math.fsum((self.level_pulses * self._energies).ravel().tolist())

    def state(self) -> dict[str, Any]:
        """All that changes, apart from the cells, and the factors: a run goes on with the devices it began with."""
        levels = {"level_pulses": self.level_pulses, "level_switches": self.level_switches}
        return {**super().state(), **levels, "factors": self.factors}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        super().restore(state)
        self.level_pulses, self.level_switches = state["level_pulses"], state["level_switches"]
        self.factors = state["factors"]


@njit(nogil=True, error_model="numpy")
def _level(wanted: float, nominal: NDArray[np.float64], random_rounding: bool, u: float) -> int:
    """Position of the pulse in ascending nominal probabilities; -1 for none."""
    at = int(np.searchsorted(nominal, wanted, side="right")) - 1
    if random_rounding:
        if at == nominal.size - 1:
            return at
        below = nominal[at] if at >= 0 else 0.0
        return at + 1 if u * (nominal[at + 1] - below) < wanted - below else at
    if at < 0 and 2 * wanted >= nominal[0]:
        return 0
    return at


@njit(nogil=True, error_model="numpy")
def _pulse(
    indices: Indices,
    wanted: NDArray[np.float64],
    cells: Signs,
    nominal: NDArray[np.float64],
    order: NDArray[np.int64],
    hazards: NDArray[np.float64],
    factors: NDArray[np.float32],
    cycle_sigma: float,
    random_rounding: bool,
    key: np.uint64,
    rounding_key: np.uint64,
    cycle_key: np.uint64,
    level_pulses: NDArray[np.int64],
    level_switches: NDArray[np.int64],
) -> Indices:
    """Pulses the cells of these indices and counts; gives those that switch."""
    out = np.empty(indices.size, dtype=np.int32)
    count = 0
    for j in range(indices.size):
        i = indices[j]
        d = 0 if cells[i] < 0 else 1
        u = uniform(rounding_key, i) if random_rounding else 0.0
        position = _level(wanted[j], nominal[d], random_rounding, u)
        if position < 0:
            continue
        level = order[d, position]
        level_pulses[d, level] += 1
        hazard = 0.0 if factors[d, i] == 0 else hazards[d, level] * factors[d, i]
        if cycle_sigma > 0.0 and hazard > 0.0:
            radius = math.sqrt(-2.0 * math.log1p(-uniform(cycle_key, 2 * i)))
            hazard *= math.exp(cycle_sigma * radius * math.cos(2.0 * math.pi * uniform(cycle_key, 2 * i + 1)))
        u = uniform(key, i)
        if u < hazard and u < -math.expm1(-hazard):  # the first is cheap and follows from the second
            level_switches[d, level] += 1
            out[count] = i
            count += 1
    return out[:count].copy()
