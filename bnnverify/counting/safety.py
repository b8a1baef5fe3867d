"""How far around an input the share of adversarial inputs stays within a tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from bnnverify.counting.radii import CHEAP, Around, Search
from bnnverify.engines.base import UNLIMITED, Limits, Monitor
from bnnverify.faults import rate
from bnnverify.network import BinaryNetwork
from bnnverify.quantities import SafeDistance
from bnnverify.query import Ties, Untargeted
from bnnverify.results import Count, Distance, Kind, Run
from bnnverify.robustness import minimum_adversarial_distance


def maximal_safe_distance(
    network: BinaryNetwork,
    x: Sequence[int],
    *,
    tolerance: Fraction | float | str = 0,
    label: int | None = None,
    ties: Ties = Ties.LOWEST_INDEX,
    max_radius: int | None = None,
    free: Iterable[int] | None = None,
    engine: str = "auto",
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
) -> SafeDistance:
    """The largest r such that in every ball of radius 0 to r the share of adversarial inputs is at most `tolerance`.

    The share is not monotone in the radius, so every radius is looked at; a count ends as soon as its bounds show on
    which side of the tolerance it lies. For a tolerance of 0 this is the minimum adversarial distance less one.

    Args:
        network: A network with binary inputs.
        x: Shape `(n,)`, -1/+1.
        tolerance: Largest accepted share, within [0, 1]: a Fraction, or a number or text taken exactly as written.
        label: The class to keep; default the network's own class of x. If x itself has another class, the answer
            is -1 (unless the tolerance is 1).
        ties: What equal scores mean.
        max_radius: Largest radius to look at; default the number of inputs that may flip.
        free: Indices that may flip; default all.
        engine: As in `count_adversarial`; ``propagation`` only counts, and with a tolerance of 0 auto decides instead.
        limits: Time for everything together; nodes, memory and threads for each step.
        monitor: Whom to tell what is proved so far, and who may stop the work; a `KeyboardInterrupt` once `stop` is
            set stops it as well.

    Returns:
        EXACT if some radius was proved to exceed the tolerance, or none does up to the last one there is. Otherwise
        `lower` is proved, `upper` is None, and `run.reason` says why the search ended.

    Raises:
        QueryError: x, tolerance, label, max_radius, free or engine is not valid.

    References:
        Zhang et al., TOSEM 2023, "maximal safe Hamming distance"; there searched as if the share were monotone.
    """
    accepted = rate(tolerance, "tolerance")
    around = Around.of(network, x, max_radius, label=label, ties=ties, free=free)
    search = Search(around, engine, limits, monitor)
    if accepted == 0 and around.n == network.n_inputs:
        return _without_tolerance(search)
    walk = _Walk(search, accepted)
    try:
        return walk.answer()
    except KeyboardInterrupt:
        if monitor is None or not monitor.stop:
            raise
        search.reason = monitor.reason
        return SafeDistance(accepted, walk.safe, None, search.run())


def _without_tolerance(search: Search) -> SafeDistance:
    around = search.around
    nearest = _nearest(search, search.limits, "auto" if search.engine == "propagation" else search.engine)
    if nearest.upper is not None and nearest.lower == nearest.upper:
        violation = Fraction(1, around.query(nearest.upper).sign_region.size())
        return SafeDistance(Fraction(0), nearest.lower - 1, nearest.upper - 1, nearest.run, violation)
    return _all_safe_up_to(around, Fraction(0), nearest.lower - 1, nearest.run)


def _nearest(search: Search, limits: Limits, engine: str = "auto") -> Distance:
    around = search.around
    assert isinstance(around.wanted, Untargeted)
    return minimum_adversarial_distance(
        around.network,
        around.ball.center,
        label=around.wanted.label,
        ties=around.ties,
        max_radius=around.ball.radius,
        engine=engine,
        limits=limits,
        monitor=search.monitor,
    )


def _all_safe_up_to(around: Around, tolerance: Fraction, radius: int, run: Run) -> SafeDistance:
    if radius == around.n:
        return SafeDistance(tolerance, radius, radius, replace(run, reason=""))
    if radius == around.ball.radius:
        run = replace(run, reason=f"within the tolerance up to the last radius asked for, {radius}")
    return SafeDistance(tolerance, radius, None, run)


class _Walk:
    """Radius after radius, with several in one pass where they are cheap."""

    def __init__(self, search: Search, tolerance: Fraction) -> None:
        self.search, self.tolerance = search, tolerance
        self.safe = -1  # every radius up to this one is proved to be within the tolerance
        self.found = 0  # adversarial inputs within that radius, where they were counted
        self.has_looked_for_the_nearest = False

    def answer(self) -> SafeDistance:
        """The result."""
        around, search = self.search.around, self.search
        while self.safe < around.ball.radius:
            self._skip_robust_radii()
            radius = self.safe + 1
            if radius > around.ball.radius:
                break
            last = search.next_radius(radius)
            watch = (
                _Watch(search.monitor, self.tolerance, around.query(radius).sign_region.size())
                if last == radius
                else None
            )
            count = search.count(last, watch)
            density = self._violation(count, radius, last)
            if density is not None:
                return SafeDistance(self.tolerance, self.safe, self.safe, search.run(), density)
            if self.safe < radius:
                if last > radius and not search.clock.is_over:
                    search.step_one_by_one()
                    continue
                search.reason = search.clock.reason if search.clock.is_over else count.run.reason
                return SafeDistance(self.tolerance, self.safe, None, search.run())
        return _all_safe_up_to(around, self.tolerance, self.safe, search.run())

    def _violation(self, count: Count, radius: int, last: int) -> Fraction | None:
        """Moves `safe` on as far as the count of the ball of radius `last` allows; the density that is too high."""
        if count.kind is Kind.EXACT and count.per_radius is not None:
            found = sum(count.per_radius[:radius])
            for r in range(radius, last + 1):
                found += count.per_radius[r]
                density = Fraction(found, self.search.around.query(r).sign_region.size())
                if density > self.tolerance:
                    return density
                self.safe, self.found = r, found
        elif last == radius:
            if Fraction(count.lower, count.region_size) > self.tolerance:
                return Fraction(count.lower, count.region_size)
            if Fraction(count.upper, count.region_size) <= self.tolerance:
                self.safe, self.found = radius, max(self.found, count.lower)
        return None

    def _skip_robust_radii(self) -> None:
        """Before counting becomes expensive: radii without any adversarial input need no count."""
        around, search = self.search.around, self.search
        whole = around.n == around.network.n_inputs and isinstance(around.wanted, Untargeted)
        if self.found or self.has_looked_for_the_nearest or not whole or search.seconds(self.safe + 1) <= CHEAP:
            return
        self.has_looked_for_the_nearest = True
        rest = search.rest()
        worth = search.seconds(self.safe + 1)
        some = worth if rest.seconds is None else min(rest.seconds / 2, worth)
        nearest = _nearest(search, replace(rest, seconds=some))
        self.safe = max(self.safe, nearest.lower - 1)


class _Watch(Monitor):
    """The caller's monitor, which also stops a count whose bounds show on which side of the tolerance it lies."""

    def __init__(self, outer: Monitor | None, tolerance: Fraction, size: int) -> None:
        self._outer, self._size, self._decided = outer, size, False
        self._most = tolerance.numerator * size // tolerance.denominator  # adversarial inputs within the tolerance
        super().__init__(reason="the side of the tolerance is known", show=self._seen)

    @property
    def stop(self) -> bool:
        """Whether the count should end."""
        return self._decided or (self._outer is not None and self._outer.stop)

    @stop.setter
    def stop(self, value: bool) -> None:
        self._decided = value

    def _seen(self, lower: int, upper: int, size: int) -> None:
        if size == self._size:
            self._decided = self._decided or lower > self._most or upper <= self._most
        if self._outer is not None:
            self._outer.report(lower, upper, size)
