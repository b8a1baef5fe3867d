"""Measured cells: how often pulses switched, with exact bands, fitted to a law or interpolated."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from bnnverify.confidence import clopper_pearson
from bnnverify.devices.interpolated import InterpolatedSwitching
from bnnverify.devices.isotonic import isotonic_grid
from bnnverify.devices.switching import (
    RESET,
    SET,
    FieldAccelerated,
    FloatArray,
    NucleationLimited,
    SetReset,
    SwitchingCell,
    ThermallyActivated,
    checked,
    checked_direction,
)
from bnnverify.devices.tables import read_table
from bnnverify.errors import QueryError
from bnnverify.results import Probability
from bnnverify.scalars import integer

KINDS = ("thermally-activated", "field-accelerated", "nucleation-limited")

_MOST_STEPS = 100  # of Newton's method; regular data need about 10
_LARGEST_LN = 690.0  # of a hazard, either way: float64 holds its exponential
_DIRECTIONS = {"set": SET, "+1": SET, "1": SET, "reset": RESET, "-1": RESET}


@dataclass(frozen=True, slots=True)
class PulseCount:
    """One measured point: equal pulses on cells that had to switch.

    Attributes:
        voltage: Amplitude, V.
        width: s.
        switched: Pulses that switched the cell.
        trials: Pulses applied.
        direction: +1 for SET, -1 for RESET.
    """

    voltage: float
    width: float
    switched: int
    trials: int
    direction: int = SET

    def __post_init__(self) -> None:
        object.__setattr__(self, "voltage", float(checked(self.voltage, "voltage", " V")))
        object.__setattr__(self, "width", float(checked(self.width, "width", " s")))
        if not self.width:
            raise QueryError("width is 0 s, expected a number above 0.")
        object.__setattr__(self, "direction", checked_direction(self.direction))
        object.__setattr__(self, "switched", integer(self.switched, "switched"))
        object.__setattr__(self, "trials", integer(self.trials, "trials"))
        if not 0 <= self.switched <= self.trials or not self.trials:
            raise QueryError(
                f"{self.switched} switched of {self.trials} trials, expected 0 <= switched <= trials, at least 1 trial."
            )


@dataclass(frozen=True, slots=True)
class SwitchingFit:
    """A law fitted by maximum likelihood.

    Attributes:
        cell: The fitted law.
        deviance: Twice the log-likelihood ratio to a free probability for each point, without unit.
        degrees_of_freedom: Points minus fitted numbers; for large counts the deviance of a true law has about this
            mean.
        bands: Clopper-Pearson band of each point, which together hold with the asked confidence.
        inside: Whether the law lies inside the band of each point.
    """

    cell: SwitchingCell
    deviance: float
    degrees_of_freedom: int
    bands: tuple[Probability, ...] = field(repr=False)
    inside: tuple[bool, ...] = field(repr=False)

    @property
    def fits(self) -> bool:
        """True if the law lies inside all bands: the data do not refute it at their confidence."""
        return all(self.inside)


@dataclass(frozen=True, slots=True)
class MeasuredSwitching:
    """Counts of switched cells over pulses.

    Attributes:
        points: At least one.
        resistance: R in the energy of a SET pulse, ohm; None if not known (laws then keep their default).
        reset_resistance: R in the energy of a RESET pulse, ohm; None for `resistance`.

    >>> from bnnverify.devices.measured import PulseCount
    >>> measured = MeasuredSwitching(
    ...     tuple(PulseCount(v, 1e-7, hits, 1000) for v, hits in ((0.94, 48), (1.0, 295), (1.06, 921)))
    ... )
    >>> fit = measured.fit("field-accelerated")
    >>> fit.fits, round(fit.cell.voltage_scale, 3)
    (True, 0.03)
    """

    points: tuple[PulseCount, ...]
    resistance: float | None = None
    reset_resistance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self.points))
        if not self.points:
            raise QueryError("there are no measured pulses, expected at least one.")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        resistance: float | None = None,
        reset_resistance: float | None = None,
    ) -> MeasuredSwitching:
        """Counts from CSV with columns voltage_V,width_s,switched,trials and, if need be, direction (set or reset).

        Raises:
            FormatError: With path and line: a missing column, or a value that does not fit.
        """
        points = []
        for line in read_table(path, ("voltage_V", "width_s", "switched", "trials"), optional=("direction",)):
            direction = SET
            if "direction" in line.values:
                direction = line.read("direction", _direction, "set or reset")
            try:
                points.append(
                    PulseCount(
                        voltage=line.read("voltage_V", float, "an amplitude in V"),
                        width=line.read("width_s", float, "a width in s"),
                        switched=line.read("switched", int, "a whole number"),
                        trials=line.read("trials", int, "a whole number"),
                        direction=direction,
                    )
                )
            except QueryError as error:
                raise line.wrong(error) from None
        return cls(tuple(points), resistance, reset_resistance)

    @property
    def directions(self) -> tuple[int, ...]:
        """The measured directions, SET first."""
        return tuple(d for d in (SET, RESET) if any(point.direction == d for point in self.points))

    def bands(self, *, confidence: float = 0.99) -> tuple[Probability, ...]:
        """Clopper-Pearson band of each point, which cover all the truths together with at least `confidence`.

        Each has the level ``1 - (1 - confidence) / points`` (Bonferroni).
        """
        level = 1 - (1 - confidence) / len(self.points) if 0 < confidence < 1 else confidence
        return tuple(_band(p.switched, p.trials, level) for p in self.points)

    def inside(self, cell: SwitchingCell, *, confidence: float = 0.99) -> tuple[bool, ...]:
        """Whether the probability of `cell` lies inside the band of each point."""
        return self._within(cell, self.bands(confidence=confidence))

    def _within(self, cell: SwitchingCell, bands: tuple[Probability, ...]) -> tuple[bool, ...]:
        return tuple(
            band.lower <= Fraction(float(cell.probability(p.voltage, p.width, direction=p.direction))) <= band.upper
            for p, band in zip(self.points, bands, strict=True)
        )

    def fit(
        self, kind: str, *, attempt_time: float = 1e-9, beta: float | None = None, confidence: float = 0.99
    ) -> SwitchingFit:
        """The law of this kind under which the counts are likeliest.

        ln(hazard) is linear in the unknowns for all laws, so the likelihood is that of a binomial model with the
        complementary log-log link; it is concave and Newton's method finds its maximum. SET and RESET pulses are fitted
        each on their own; where only one direction was measured, the law answers for the other one alike. All cells
        are taken as equal: a spread between them shows up as points outside their bands.

        Args:
            kind: One of `KINDS`.
            attempt_time: tau0 of the thermally activated law, s, which pulses cannot tell from the barrier.
            beta: Exponent of the nucleation-limited law to keep fixed, without unit; None to fit it.
            confidence: That of all bands together.

        Raises:
            QueryError: Too few different pulses, counts without information (all or none switched), or a law that
                would fall with voltage or width.

        References:
            McCullagh & Nelder, Generalized Linear Models, 1989, Sec. 2.5 and 4.3.
        """
        if kind not in KINDS:
            raise QueryError(f"kind is {kind!r}, expected one of: {', '.join(KINDS)}.")
        if not 0 < attempt_time < math.inf or (beta is not None and not 0 < beta < math.inf):
            raise QueryError(f"attempt_time is {attempt_time!r} s and beta {beta!r}, expected numbers above 0.")
        laws, deviance, unknowns = {}, 0.0, 0
        for direction in self.directions:
            points = [point for point in self.points if point.direction == direction]
            design, offset = _design(points, kind, beta)
            coefficients, part = _binomial_fit(points, design, offset)
            laws[direction] = self._law(kind, coefficients, attempt_time, beta)
            deviance += part
            unknowns += design.shape[1]
        first = laws[self.directions[0]]
        cell = SetReset(laws[SET], laws[RESET]) if len(laws) == 2 else first
        bands = self.bands(confidence=confidence)
        return SwitchingFit(cell, deviance, len(self.points) - unknowns, bands, self._within(cell, bands))

    def _law(self, kind: str, b: FloatArray, attempt_time: float, beta: float | None) -> SwitchingCell:
        """The cell whose ln(hazard) has the coefficients `b` of `_design`."""
        ohms: dict[str, Any] = {} if self.resistance is None else {"resistance": self.resistance}
        if self.reset_resistance is not None:
            ohms["reset_resistance"] = self.reset_resistance
        slopes = b[1:]
        if not (slopes > 0).all():
            raise QueryError(
                f"the likeliest {kind} law does not rise with voltage and width ({slopes}), expected positive slopes. "
                "Measure over a wider range, or choose another law."
            )
        if kind == "nucleation-limited":
            exponent = float(b[-1]) if beta is None else beta
            return NucleationLimited(_time(-float(b[0]) / exponent), float(b[1]) / exponent, exponent, **ohms)
        if kind == "field-accelerated":
            return FieldAccelerated(_time(-float(b[0])), 1 / float(b[1]), **ohms)
        delta = -float(b[0]) - math.log(attempt_time)
        if delta <= 0:
            raise QueryError(
                f"the fitted time at 0 V is {_time(-float(b[0])):g} s, expected more than the attempt time of "
                f"{attempt_time:g} s. Give a shorter attempt_time."
            )
        return ThermallyActivated(attempt_time, delta, delta / float(b[1]), **ohms)

    def interpolated(self, *, scale: str = "probability") -> InterpolatedSwitching:
        """The table itself as a cell: monotone in V and t, refusing to extrapolate.

        The counts of equal pulses are added; the probabilities are the likeliest ones that rise with voltage and with
        width (isotonic regression on the grid). Where the measured frequencies rise already, they stay as they are.

        Args:
            scale: See `InterpolatedSwitching`.

        Raises:
            QueryError: A direction whose pulses are no full grid of voltages and widths.
        """
        voltages = tuple(sorted({p.voltage for p in self.points}))
        widths = tuple(sorted({p.width for p in self.points}))
        grids: dict[int, Any] = {SET: None, RESET: None}
        for direction in self.directions:
            hits, trials = np.zeros((2, len(voltages), len(widths)))
            for p in self.points:
                if p.direction == direction:
                    where = voltages.index(p.voltage), widths.index(p.width)
                    hits[where] += p.switched
                    trials[where] += p.trials
            if not trials.all():
                i, j = np.argwhere(trials == 0)[0]
                raise QueryError(
                    f"no {'SET' if direction == SET else 'RESET'} pulse of {voltages[i]:g} V and {widths[j]:g} s was "
                    "measured, expected a full grid of voltages and widths. Measure it, or fit a law."
                )
            grids[direction] = isotonic_grid(hits / trials, trials).tolist()
        return InterpolatedSwitching(
            voltages, widths, grids[SET], grids[RESET], self.resistance, self.reset_resistance, scale
        )


@lru_cache(maxsize=4096)
def _band(switched: int, trials: int, confidence: float) -> Probability:
    """The exact band, kept: several laws are fitted to the same counts, and a band takes 0.1 s."""
    return clopper_pearson(switched, trials, confidence=confidence)


def _time(ln_seconds: float) -> float:
    if not abs(ln_seconds) < _LARGEST_LN:
        raise QueryError(f"the likeliest law has a time of exp({ln_seconds:.4g}) s. Choose another law.")
    return math.exp(ln_seconds)


def _direction(text: str) -> int:
    if text.lower() not in _DIRECTIONS:
        raise ValueError
    return _DIRECTIONS[text.lower()]


def _design(points: Sequence[PulseCount], kind: str, beta: float | None) -> tuple[FloatArray, FloatArray]:
    """Columns and offset with ``ln(hazard) = columns @ unknowns + offset``; all but the first must rise."""
    volts, ln_width = np.array([p.voltage for p in points]), np.log([p.width for p in points])
    one = np.ones(len(points))
    if kind != "nucleation-limited":
        columns, offset = [one, volts], ln_width
    else:
        if (volts == 0).any():
            raise QueryError("a pulse of 0 V was measured, expected amplitudes above 0 for a nucleation-limited law.")
        columns, offset = [one, -1 / volts], 0 * one if beta is None else beta * ln_width
        if beta is None:
            columns.append(ln_width)
    design = np.stack(columns, axis=1)
    if np.linalg.matrix_rank(_standard(design)[0]) < design.shape[1]:
        raise QueryError(
            f"{len(points)} pulses cannot tell the {design.shape[1]} unknowns of a {kind} law apart. Measure at more "
            "voltages and widths."
        )
    return design, offset


def _standard(design: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The design with centred columns of unit spread, the centres and the spreads (the first column stays)."""
    centre, spread = design.mean(axis=0), design.std(axis=0)
    centre[0] = 0.0
    spread = np.where(spread > 1e-12 * np.abs(centre), spread, 1.0)
    return (design - centre) / spread, centre, spread


def _binomial_fit(points: Sequence[PulseCount], design: FloatArray, offset: FloatArray) -> tuple[FloatArray, float]:
    """Unknowns of greatest likelihood and the deviance, by Newton steps, halved where they overshoot."""
    hits, trials = np.array([float(p.switched) for p in points]), np.array([float(p.trials) for p in points])
    columns, centre, spread = _standard(design)
    guess = np.log(-np.log1p(-(hits + 0.5) / (trials + 1)))
    unknowns = np.linalg.lstsq(columns, guess - offset, rcond=None)[0]
    best = _log_likelihood(columns @ unknowns + offset, hits, trials)
    for _ in range(_MOST_STEPS):
        ln_h = np.clip(columns @ unknowns + offset, -_LARGEST_LN, _LARGEST_LN)
        h = np.exp(ln_h)
        p = -np.expm1(-h)
        slope = h / p  # d ln P / d ln h over 1 - P: 1 for small h
        score = columns.T @ ((hits - trials * p) * slope)
        curvature = trials * h - hits * slope * (1 - slope * np.exp(-h))
        information = (columns.T * np.maximum(curvature, 0.0)) @ columns
        try:
            step = np.linalg.solve(information, score)
        except np.linalg.LinAlgError:
            break
        slack = 1e-12 * (1e3 + abs(best))
        while not (now := _log_likelihood(columns @ (unknowns + step) + offset, hits, trials)) >= best - slack:
            step = step / 2
        unknowns, best = unknowns + step, max(best, now)
        if np.abs(step).max() < 1e-9 * (1 + np.abs(unknowns).max()):
            full = hits * np.log(np.where(hits > 0, hits / trials, 1.0))
            none = (trials - hits) * np.log(np.where(hits < trials, 1 - hits / trials, 1.0))
            slopes = unknowns / spread
            slopes[0] -= float((slopes * centre).sum())
            return slopes, max(0.0, 2 * float(full.sum() + none.sum() - best))
    raise QueryError(
        "the counts have no likeliest law: all pulses or none switched, at least on one side of some voltage or width. "
        "Measure where some do and some do not."
    )


def _log_likelihood(ln_hazard: FloatArray, hits: FloatArray, trials: FloatArray) -> float:
    """Binomial log-likelihood without its constant."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        h = np.exp(ln_hazard)
        switched = np.where(hits > 0, hits * np.log(-np.expm1(-h)), 0.0)
        stayed = np.where(hits < trials, (trials - hits) * h, 0.0)
    return float(switched.sum() - stayed.sum())
