"""What noise on the inputs does: every input flips by itself, each with its own probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.counting.listing import choices, with_flips
from bnnverify.counting.radii import CHEAP, Around, Search
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor
from bnnverify.engines.costs import seconds_to_count
from bnnverify.engines.portfolio import engine_for
from bnnverify.engines.propagation import weighted
from bnnverify.errors import QueryError
from bnnverify.faults import rate
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork
from bnnverify.quantities import NoiseError
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import FixedIndexRegion, sign_vector
from bnnverify.results import Kind, Probability, Run
from bnnverify.scalars import integer, plain

_LISTING = 3e-6  # s for each input that is listed
_LISTED = 1 << 20  # as many inputs are rather listed than counted: a second or so


def misclassification_probability(
    network: BinaryNetwork,
    x: Sequence[int],
    rates: Any,
    *,
    label: int | None = None,
    width: Fraction | float | str = Fraction(1, 10**6),
    max_flips: int | None = None,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> NoiseError:
    """Probability that the class is not `label` when every input bit flips independently.

    With one rate for all inputs, p, the adversarial inputs A_r at every distance r are counted: the probability is the
    sum of A_r p^r (1-p)^(n-r). With rates of their own, the inputs are propagated with their weights where that should
    be quickest, else listed by number of flips. In each case what is not counted yet has a known probability, so the
    answer is an interval that shrinks, and exact in the end. Only integers and Fractions are used.

    Args:
        network: A network with binary inputs.
        x: Shape `(n,)`, -1/+1: the input without noise.
        rates: Probability that an input flips: one for all, or one each, shape `(n,)`. Fractions, or numbers or text
            taken exactly as written, within [0, 1].
        label: The class to keep, such as the true one (the event is an error). Default the network's own class of x
            (the event is a change).
        width: The search ends once the interval is no wider than this. 0: only with the exact value.
        max_flips: Count no inputs with more flips than this; default all.
        engine: As in `count_adversarial`, for the counts with one rate. With rates of their own, ``propagation`` asks
            for just that.
        limits: Time for everything together; nodes, memory and threads for each count.
        monitor: Whom to tell what is proved so far, and who may stop the work.

    Returns:
        EXACT, or INTERVAL with two proved bounds in Fractions. `run.reason` says why if the width was not reached.

    Raises:
        QueryError: x, a rate, label, width, max_flips or engine is not valid.
    """
    kept = Around.of(network, x, 0, label=label, ties=Ties.LOWEST_INDEX).wanted
    assert isinstance(kept, Untargeted)
    engine_for(engine)  # refuses a wrong name even where no engine is asked
    noise, wanted = _Noise.of(sign_vector(x, "input"), rates), rate(width, "width")
    most = len(noise.free)
    if max_flips is not None:
        most = min(integer(max_flips, "max_flips", least=0), most)
    enough = noise.radius_for(wanted, most)
    if noise.is_uniform:
        around = Around.of(network, noise.center, None, label=kept.label, ties=Ties.LOWEST_INDEX, free=noise.free)
        found = _counted(noise, around, enough, most, engine, limits, monitor)
    elif max_flips is None and _is_propagated(noise, network, kept, enough, engine, limits):
        found = _propagated(noise, network, kept, limits, monitor)
    else:
        found = _listed(noise, network, kept.label, enough, most, limits, monitor)
    return found.answer(noise, kept.label, wanted)


@dataclass(frozen=True, slots=True)
class _Noise:
    """The noise as integers: free input i flips with probability ``flips[i] / unit``, the others never do.

    Attributes:
        center: The input where everything that surely flips has flipped.
        free: Inputs that may or may not flip.
        flips: Numerator of each of their rates.
        unit: Their common denominator.
    """

    center: tuple[int, ...]
    free: tuple[int, ...]
    flips: tuple[int, ...]
    unit: int

    @classmethod
    def of(cls, x: tuple[int, ...], rates: Any) -> _Noise:
        """The noise that the caller's rates mean."""
        if isinstance(plain(rates), (str, int, float, Fraction)):
            all_rates = [rate(rates, "rates")] * len(x)
        else:
            all_rates = [rate(value, f"rates[{i}]") for i, value in enumerate(rates)]
        if len(all_rates) != len(x):
            raise QueryError(f"rates has {len(all_rates)} entries, expected one, or one for each of {len(x)} inputs.")
        center = tuple(-v if p == 1 else v for v, p in zip(x, all_rates, strict=True))
        free = tuple(i for i, p in enumerate(all_rates) if 0 < p < 1)
        unit = lcm(*(all_rates[i].denominator for i in free))
        return cls(center, free, tuple(int(all_rates[i] * unit) for i in free), unit)

    @property
    def is_uniform(self) -> bool:
        """True if all free inputs have the same rate."""
        return len(set(self.flips)) <= 1

    @property
    def total(self) -> int:
        """What the weights of all inputs add up to."""
        return int(self.unit ** len(self.free))

    def masses(self) -> list[int]:
        """For each number of flips, the weight of all inputs with as many, in units of 1 / total."""
        if self.is_uniform and self.free:
            p, n = self.flips[0], len(self.free)
            return [comb(n, r) * p**r * (self.unit - p) ** (n - r) for r in range(n + 1)]
        masses = [1]
        for p in self.flips:
            kept, flipped = [m * (self.unit - p) for m in masses], [m * p for m in masses]
            masses = [a + b for a, b in zip([*kept, 0], [0, *flipped], strict=True)]
        return masses

    def radius_for(self, width: Fraction, most: int) -> int:
        """The least number of flips beyond which less than `width` of the probability lies, at most `most`."""
        left = self.total
        for radius, mass in enumerate(self.masses()):
            left -= mass
            if radius == most or left * width.denominator <= width.numerator * self.total:
                return radius
        return most


@dataclass(frozen=True, slots=True)
class _Found:
    """What was counted: `weight` of adversarial inputs, and `unseen` of what may be either, in units of 1 / total."""

    weight: int
    unseen: int
    radius: int | None
    run: Run

    def answer(self, noise: _Noise, label: int, width: Fraction) -> NoiseError:
        """The result with its kind."""
        unseen = Fraction(self.unseen, noise.total)
        lower = Fraction(self.weight, noise.total)
        if unseen == 0:
            probability = Probability(Kind.EXACT, lower, lower)
        else:
            probability = Probability.interval(lower, lower + unseen)
        done = unseen <= width
        run = Run(self.run.engine, self.run.seconds, "" if done else self.run.reason, self.run.statistics)
        return NoiseError(probability, label, self.radius, unseen, run)


def _counted(
    noise: _Noise, around: Around, enough: int, most: int, engine: str, limits: Limits, monitor: Monitor | None
) -> _Found:
    """One rate: from the counts at each distance."""
    whole = Search(around.within(most), engine, limits, monitor)
    search = Search(around.within(enough), engine, limits, monitor)
    if whole.seconds(most) <= max(CHEAP, 2 * search.seconds(enough)):
        search = whole
    shells = list(search.run_all())
    p, n = (noise.flips[0] if noise.free else 0), len(noise.free)
    weight = sum(count * p**r * (noise.unit - p) ** (n - r) for r, count in enumerate(shells))
    run = search.run()
    reason = run.reason or f"inputs with more than {most} flips were not asked for"
    unseen = sum(noise.masses()[len(shells) :])
    return _Found(weight, unseen, len(shells) - 1, Run(run.engine, run.seconds, reason, run.statistics))


def _listed(
    noise: _Noise,
    network: BinaryNetwork,
    label: int,
    enough: int,
    most: int,
    limits: Limits,
    monitor: Monitor | None,
) -> _Found:
    """Rates of their own: every input with few flips, with its weight."""
    clock, packed, n = Clock(limits.seconds, monitor), PackedNetwork(network), len(noise.free)
    if sum(comb(n, r) for r in range(most + 1)) <= _LISTED:
        enough = most
    calm = prod(noise.unit - p for p in noise.flips)  # the weight of no flip at all
    weight, radius, seen = 0, -1, 0
    reason = f"inputs with more than {most} flips were not asked for"
    for r in range(enough + 1):
        shell = 0
        for flips in choices(n, r):
            if clock.is_over or (limits.nodes is not None and seen >= limits.nodes):
                stopped = clock.reason if clock.is_over else f"limit of {limits.nodes} inputs reached"
                return _by_flips(
                    noise, weight, radius, Run("listing", clock.elapsed, stopped, {"inputs_visited": seen})
                )
            shell += sum(
                _weights(noise, calm, flips[packed.classes(with_flips(noise.center, noise.free, flips)) != label])
            )
            seen += len(flips)
        weight, radius = weight + shell, r
    return _by_flips(noise, weight, radius, Run("listing", clock.elapsed, reason, {"inputs_visited": seen}))


def _by_flips(noise: _Noise, weight: int, radius: int, run: Run) -> _Found:
    return _Found(weight, sum(noise.masses()[radius + 1 :]), radius, run)


def _is_propagated(
    noise: _Noise, network: BinaryNetwork, kept: Untargeted, enough: int, engine: str, limits: Limits
) -> bool:
    """True if one pass over the whole cube should be quicker than listing the likely inputs."""
    if engine not in ("auto", "propagation"):
        return False
    query = Query(network, FixedIndexRegion(noise.center, noise.free), kept)
    guess = seconds_to_count(query, limits=limits).get("propagation")
    if limits.seconds is not None and (guess or 0) > limits.seconds and engine == "auto":
        return False  # listing has something to show at any time
    listed = sum(comb(len(noise.free), r) for r in range(enough + 1)) * _LISTING
    return guess is not None and (engine == "propagation" or guess < listed)


def _propagated(
    noise: _Noise, network: BinaryNetwork, kept: Untargeted, limits: Limits, monitor: Monitor | None
) -> _Found:
    """Rates of their own: the weights of all classes in one pass."""
    query = Query(network, FixedIndexRegion(noise.center, noise.free), kept)
    weights = [(noise.unit - p, p) for p in noise.flips]
    per_class, run = weighted(query, weights, limits=limits, monitor=monitor)
    adversarial = sum(per_class) - per_class[kept.label]
    unseen = noise.total - sum(per_class)
    return _Found(adversarial, unseen, None if unseen else len(noise.free), run)


def _weights(noise: _Noise, calm: int, flips: NDArray[np.int64]) -> Iterator[int]:
    """Weight of each pattern of flips: its divisions are exact, factor by factor."""
    for row in flips.tolist():
        yield calm // prod(noise.unit - noise.flips[i] for i in row) * prod(noise.flips[i] for i in row)
