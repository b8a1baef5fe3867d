"""A tolerable bit error rate in the strong sense: every rate up to it keeps the accuracy, not just the rate itself.

The accuracy need not fall monotonically with the rate, so two certified points prove nothing about the rates between.
Two ways to prove a whole range:

- small networks: the mean of the images' fault enumerators is a polynomial in p, exactly. In the Bernstein basis of a
  piece of [0, 1/2] its coefficients bound it there, and halving the piece makes the bounds converge: both sides of the
  first crossing are found, as close as one likes.
- one hidden block of any size: `boxes` bounds P(error) for all rates of a piece at once; pieces are laid side by side
  from 0 for as long as the bounds allow.

References:
    Lane & Riesenfeld, "Bounds on a polynomial", BIT 21, 1981, for the Bernstein coefficients as bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnverify.engines.base import Clock, Monitor
from bnnverify.engines.coding import about_cells
from bnnverify.errors import QueryError
from bnnverify.faults import rate
from bnnverify.network import BinaryNetwork
from bnnverify.reliability.boxes import RateBox
from bnnverify.reliability.exact import FaultEnumerator, fault_enumerator
from bnnverify.results import Run
from bnnverify.scalars import real

MAX_CELLS = 400  # of a network whose enumerators are computed unasked
MAX_WIDTH = 10  # of its hidden blocks
_CHUNK = 64
_FINEST = Fraction(1, 10**12)  # pieces of the polynomial are not cut below


@dataclass(frozen=True, slots=True)
class CertifiedRange:
    """Every bit error rate from 0 to `p_ok` keeps the expected accuracy at `target` or above: proved.

    Attributes:
        target: The accuracy asked for.
        p_ok: End of the proved range; None if the target is not even proved at 0.
        p_fail: A rate above `p_ok` at which the accuracy is proved to be below the target; None if the method finds
            none (the bounds of `boxes` prove only the good side; `tolerance_bracket` finds the other).
        pieces: The ranges that were bounded one by one, side by side from 0 to `p_ok`.
        run: Method (``polynomial`` or ``boxes``), time, and why the range ends.
    """

    target: Fraction
    p_ok: Fraction | None
    p_fail: Fraction | None
    pieces: tuple[tuple[Fraction, Fraction], ...]
    run: Run

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return {
            "type": "certified-range",
            "target": str(self.target),
            "p_ok": None if self.p_ok is None else str(self.p_ok),
            "p_fail": None if self.p_fail is None else str(self.p_fail),
            "pieces": [[str(a), str(b)] for a, b in self.pieces],
            "run": self.run.to_json(),
        }

    def __str__(self) -> str:
        if self.p_ok is None:
            return f"accuracy {_text_below(self.target, 12)} is not proved even without faults"
        target, end = _text_below(self.target, 12), _text_below(self.p_ok, 4)
        return f"accuracy at least {target} at every rate from 0 to {end} (proved)"


def _text_below(value: Fraction, digits: int) -> str:
    """Decimal text of so many digits, rounded down: what is proved up to `value` is proved up to it."""
    floor = Context(prec=digits, rounding=ROUND_FLOOR)
    return f"{floor.divide(Decimal(value.numerator), Decimal(value.denominator)).normalize():g}"


@about_cells
def certified_range(
    network: BinaryNetwork,
    images: ArrayLike,
    labels: Sequence[int],
    target: Any,
    *,
    highest: Any = "1/2",
    ratio: float = 1.05,
    method: str = "auto",
    seconds: float | None = None,
    monitor: Monitor | None = None,
    progress: Callable[[int], Any] | None = None,
) -> CertifiedRange:
    """The bit error rates from 0 on, without a gap, that are proved to keep the expected accuracy at `target`.

    Args:
        network: Dense. For ``polynomial`` hidden blocks of at most 16 neurons; for ``boxes`` at most one hidden block,
            binary inputs and one positive scale for all classes.
        images: Shape `(N, n)`, inputs of the domain.
        labels: Shape `(N,)`: the true labels, or the fault-free classes.
        target: Accuracy within [0, 1].
        highest: Where the range may end, at most 1/2.
        ratio: How close the end is approached: the next piece would be shorter than ``p_ok * (ratio - 1)``.
        method: ``polynomial``, ``boxes``, or ``auto``: the first for up to 400 cells in blocks of up to 10 neurons.
        seconds: Time limit, s; the range proved by then is the answer.
        monitor: Its `stop` does the same.
        progress: Called with 1 after every image that was bounded.

    Raises:
        QueryError: A bad argument.
        UnsupportedError: The network is not of the kind that the method serves.

    >>> from bnnverify.network import InputDomain, OutputBlock
    >>> net = BinaryNetwork(InputDomain.binary(1), (), OutputBlock.create([[1], [-1]]))
    >>> print(certified_range(net, [[1]], [0], "0.99"))  # both cells must flip: p^2 <= 0.01
    accuracy at least 0.99 at every rate from 0 to 0.09765 (proved)
    """
    goal, end = rate(target, "target accuracy"), rate(highest, "highest")
    ratio = real(ratio, "ratio")
    if not 0 < end <= Fraction(1, 2) or not ratio > 1:
        raise QueryError(f"the range ends at {end} with ratio {ratio}, expected 0 < highest <= 1/2 and 1 < ratio.")
    if method not in ("auto", "polynomial", "boxes"):
        raise QueryError(f"method is {method!r}, expected auto, polynomial or boxes.")
    points = network.require_images(images, labels)
    classes = np.array([network.require_class(label) for label in labels], dtype=np.int64)
    small = network.n_cells <= MAX_CELLS and all(block.n_outputs <= MAX_WIDTH for block in network.blocks)
    clock = Clock(seconds, monitor)
    notify = progress or (lambda count: None)
    if method == "polynomial" or (method == "auto" and small and not network.has_convolutions):
        return _by_polynomial(network, points, classes, goal, end, Fraction(ratio), clock, notify)
    return _by_boxes(network, points, classes, goal, end, Fraction(ratio), clock, notify)


def mean_enumerator(enumerators: Sequence[FaultEnumerator]) -> tuple[Fraction, ...]:
    """Bernstein coefficients on [0, 1] of the mean error: of all patterns of k flips, the share with the event."""
    n = enumerators[0].n_cells
    totals = [sum(e.counts[k] for e in enumerators) for k in range(n + 1)]
    return tuple(Fraction(total, comb(n, k) * len(enumerators)) for k, total in enumerate(totals))


def _by_polynomial(
    network: BinaryNetwork,
    points: NDArray[np.int64],
    labels: NDArray[np.int64],
    goal: Fraction,
    end: Fraction,
    ratio: Fraction,
    clock: Clock,
    notify: Callable[[int], Any],
) -> CertifiedRange:
    enumerators = []
    for x, label in zip(points, labels.tolist(), strict=True):
        if clock.is_over:
            return CertifiedRange(goal, None, None, (), Run("polynomial", clock.elapsed, clock.reason))
        enumerators.append(fault_enumerator(network, x, label))
        notify(1)
    allowed = 1 - goal
    whole = mean_enumerator(enumerators)
    if whole[0] > allowed:
        reason = "the target is not reached even without faults"
        return CertifiedRange(goal, None, Fraction(0), (), Run("polynomial", clock.elapsed, reason))
    pieces: list[tuple[Fraction, Fraction]] = []
    waiting = [(Fraction(0), end, _split(whole, end)[0])]
    reached, failing, reason = Fraction(0), None, ""
    while waiting:
        low, high, shape = waiting.pop()
        if clock.is_over:
            reason = clock.reason
            break
        if max(shape) <= allowed:
            pieces.append((low, high))
            reached = high
            continue
        if shape[-1] > allowed:
            failing = high
        if high - low <= max(low * (ratio - 1), _FINEST):
            reason = "the accuracy falls below the target just beyond" if failing else "the accuracy touches the target"
            break
        left, right = _split(shape, Fraction(1, 2))
        middle = (low + high) / 2
        waiting += [(middle, high, right), (low, middle, left)]
    return CertifiedRange(goal, reached, failing, tuple(pieces), Run("polynomial", clock.elapsed, reason))


def _split(shape: Sequence[Fraction], at: Fraction) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """Bernstein coefficients on the part of the piece below and above the share `at` of it (de Casteljau), exact."""
    from flint import fmpq

    share = fmpq(at.numerator, at.denominator)
    row = [fmpq(b.numerator, b.denominator) for b in shape]
    left, right = [row[0]], [row[-1]]
    while len(row) > 1:
        row = [(1 - share) * a + share * b for a, b in pairwise(row)]
        left.append(row[0])
        right.append(row[-1])
    return (
        tuple(Fraction(int(b.p), int(b.q)) for b in left),
        tuple(Fraction(int(b.p), int(b.q)) for b in reversed(right)),
    )


def _by_boxes(
    network: BinaryNetwork,
    points: NDArray[np.int64],
    labels: NDArray[np.int64],
    goal: Fraction,
    end: Fraction,
    ratio: Fraction,
    clock: Clock,
    notify: Callable[[int], Any],
) -> CertifiedRange:
    box = RateBox(network, points, labels)
    allowed = (1 - goal) * len(points)
    order = np.arange(len(points))

    def holds(low: Fraction, high: Fraction) -> bool:
        nonlocal order
        bounds, total = np.zeros(len(points)), Fraction(0)
        for at in range(0, len(order), _CHUNK):
            if clock.is_over:
                return False
            chunk = order[at : at + _CHUNK]
            found = box.error_bounds(low, high, chunk)
            bounds[chunk] = [float(b) for b in found]
            total += sum(found)
            notify(len(chunk))
            if total > allowed:
                order = np.argsort(-bounds, kind="stable")  # the worst first: the next refusal is quicker
                return False
        order = np.argsort(-bounds, kind="stable")
        return True

    if not holds(Fraction(0), Fraction(0)):
        reason = clock.reason if clock.is_over else "the target is not reached even without faults"
        return CertifiedRange(goal, None, None, (), Run("boxes", clock.elapsed, reason))
    pieces: list[tuple[Fraction, Fraction]] = []
    reached, step = Fraction(0), min(end, Fraction(1, 1000))
    while reached < end and not clock.is_over:
        high = min(_rounded(reached + step), end)
        if holds(reached, high):
            pieces.append((reached, high))
            reached, step = high, 2 * step
            continue
        step /= 2
        if step <= max(reached * (ratio - 1), _FINEST) or _rounded(reached + step) <= reached:
            break
    reason = ""
    if clock.is_over:
        reason = clock.reason
    elif reached < end:
        reason = "beyond, the first-order bounds do not prove the target"
    return CertifiedRange(goal, reached, None, tuple(pieces), Run("boxes", clock.elapsed, reason))


def _rounded(value: Fraction) -> Fraction:
    """Four significant digits, so that ends of pieces stay readable."""
    return Fraction(f"{float(value):.3e}")
