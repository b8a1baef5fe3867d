"""What a weight remembers of its gradients before a cell is pulsed: nothing, sums, averages, counters, memristors.

An accumulator is a frozen dataclass of hyper-parameters; `block` gives its memory for one array of weights. In every
step the memory takes the gradient and answers with a request: which cells shall get a pulse, and with which
probability each of them shall switch. Cells are eligible where ``w * a > 0`` with a what is accumulated: there a flip
lowers the loss to first order. Memories never write a cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bnnverify.compilation import njit
from bnnverify.training.randomness import uniform
from bnnverify.training.rules.base import Randomness, known, plain_fields, require, require_numbers
from bnnverify.training.rules.schedules import Schedule, neat, read_schedules

LAWS = ("relative", "linear", "tanh", "poisson")
_LARGEST_POWER = 6.0  # float64 holds the sixth power of every float32
_CHUNK = 64

# What a run gets in all, whatever its number of steps; docs/training.md has the derivation, the values were measured.
_WITHOUT_MEMORY, _AVERAGED = 10.0, 8.0  # rate at the start times the switching events of the run
_SUMS = 400  # of the run
_MEMORIES = 20.0  # lengths of the average in the run
_WALKS = 17.0  # counts asked for, in units of what a random walk needs to the end of the counter
_MOST_COUNTING = 2.0  # increment; above about 2 nearly every step counts
_MOST = 0.1  # rate: the fraction of a block that may switch in one event
_DEVICE = 10.0  # rate at the start times the steps

Flat = NDArray[np.float32]
Signs = NDArray[np.int8]
Indices = NDArray[np.int32]


class Request(Protocol):
    """Pulses asked for, with their probabilities."""

    def switched(self, cells: Signs, key: np.uint64) -> tuple[int, Indices]:
        """Number of pulses, and the ascending indices of the cells that switch if all cells do as they are asked."""

    def pulses(self, cells: Signs) -> tuple[Indices, NDArray[np.float64]]:
        """Ascending indices of the cells to pulse, and the probability in [0, 1] with which each shall switch."""


class Memory(Protocol):
    """What one array of weights remembers."""

    def request(self, gradient: Flat, cells: Signs, progress: float, factor: float) -> Request | None:
        """Take a gradient in; None if no cell is to be pulsed in this step.

        Args:
            gradient: Flat, not to be kept or written.
            cells: Flat, not to be written.
            progress: Fraction of the training that is over.
            factor: Of the undo's back-off, multiplies the scheduled rate.
        """

    def succeeded(self, indices: Indices) -> None:
        """These cells have switched."""

    def state(self) -> dict[str, Any]:
        """All that changes."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""

    def statistics(self) -> dict[str, int]:
        """Totals beyond those of the cells themselves."""


class Accumulator(Protocol):
    """Hyper-parameters of a memory; the name is that of the rule with this accumulator."""

    name: ClassVar[str]

    def for_steps(self, steps: int) -> Self:
        """See `bnnverify.training.rules.base.UpdateRule`."""

    def block(self, cells: Signs, law: str, random: Randomness) -> Memory:
        """A memory for these flat cells."""


# the requests


class Drive:
    """Every eligible cell gets a pulse, its probability a function of ``scale * |a|^power``."""

    def __init__(self, values: Flat, scale: float, power: float, law: str) -> None:
        self._values, self._scale, self._power, self._law = values, scale, power, LAWS.index(law)

    def switched(self, cells: Signs, key: np.uint64) -> tuple[int, Indices]:
        """See `Request`."""
        found: tuple[int, Indices] = _switched(self._values, cells, self._scale, self._power, self._law, key)
        return found

    def pulses(self, cells: Signs) -> tuple[Indices, NDArray[np.float64]]:
        """See `Request`."""
        found: tuple[Indices, NDArray[np.float64]] = _requested(
            self._values, cells, self._scale, self._power, self._law
        )
        return found


class Pending:
    """These cells get a pulse, all with one probability."""

    def __init__(self, indices: Indices, probability: float) -> None:
        self._indices, self._probability = indices, probability

    def switched(self, cells: Signs, key: np.uint64) -> tuple[int, Indices]:
        """See `Request`."""
        return self._indices.size, _chosen(self._indices, self._probability, key)

    def pulses(self, cells: Signs) -> tuple[Indices, NDArray[np.float64]]:
        """See `Request`."""
        return self._indices, np.full(self._indices.size, self._probability)


def _drive(values: Flat, rate: float, power: float, law: str) -> Drive | None:
    """The request of these values; None if no cell could switch."""
    scale = rate
    if law == "relative":
        total = _power_sum(values, power)
        scale = rate * (values.size / total) if total > 0 else 0.0
    return Drive(values, scale, power, law) if scale > 0 else None


class _Stateless:
    """What a memory without state of its own answers."""

    def succeeded(self, indices: Indices) -> None:
        """See `Memory`."""

    def state(self) -> dict[str, Any]:
        """See `Memory`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Memory`."""

    def statistics(self) -> dict[str, int]:
        """See `Memory`."""
        return {}


# the accumulators


@dataclass(frozen=True, slots=True)
class Memoryless:
    """The gradient of the mini-batch alone: ``a = g``.

    Attributes:
        rate: r or eta of the law, a schedule. None: 10 divided by the steps, falling hundredfold.
        power: k of the law.

    References:
        StochasticFlip and the discrete state transition of Deng et al., "GXNOR-Net", Neural Networks 2018, for two
        states.
    """

    rate: Schedule | None = None
    power: float = 1.0

    name: ClassVar[str] = "ss-none"

    def __post_init__(self) -> None:
        _check_drive(self)

    def for_steps(self, steps: int) -> Self:
        """See `Accumulator`: the switches are shared out over the steps."""
        return replace(self, rate=self.rate or Schedule.shared(_WITHOUT_MEMORY, steps, 100, _MOST))

    def block(self, cells: Signs, law: str, random: Randomness) -> Memory:
        """See `Accumulator`."""
        return _NoMemory(self, law)


class _NoMemory(_Stateless):
    def __init__(self, of: Memoryless, law: str) -> None:
        self._of, self._law, self._rate = of, law, known(of.rate, "rate", of.name)

    def request(self, gradient: Flat, cells: Signs, progress: float, factor: float) -> Request | None:
        return _drive(gradient, self._rate.at(progress) * factor, self._of.power, self._law)


@dataclass(frozen=True, slots=True)
class BatchSum:
    """The sum of the gradients of `batches` steps; one switching event after them, then the sum starts anew.

    Attributes:
        batches: Steps for one event. None: 400 events in the run, or one in every step.
        rate: r or eta of the law, a schedule. None: 10 divided by the events, falling hundredfold.
        power: k of the law.
    """

    batches: int | None = None
    rate: Schedule | None = None
    power: float = 1.0

    name: ClassVar[str] = "ss-batch"

    def __post_init__(self) -> None:
        _check_drive(self)
        fits = self.batches is None or (_whole(self.batches) and self.batches >= 1)
        require(self.name, "batches", f"{self.batches!r:.80}", fits, "a positive integer")

    def for_steps(self, steps: int) -> Self:
        """See `Accumulator`: `_SUMS` in the run, over which the switches are shared out."""
        batches = self.batches or max(1, round(steps / _SUMS))
        events = max(1, steps // batches)
        return replace(self, batches=batches, rate=self.rate or Schedule.shared(_WITHOUT_MEMORY, events, 100, _MOST))

    def block(self, cells: Signs, law: str, random: Randomness) -> Memory:
        """See `Accumulator`."""
        return _Sum(self, law, cells.size)


class _Sum(_Stateless):
    def __init__(self, of: BatchSum, law: str, n: int) -> None:
        self._of, self._law, self._rate = of, law, known(of.rate, "rate", of.name)
        self._batches = known(of.batches, "batches", of.name)
        self._sum = np.zeros(n, dtype=np.float32)
        self._summands = 0

    def request(self, gradient: Flat, cells: Signs, progress: float, factor: float) -> Request | None:
        if self._summands == self._batches:
            self._summands = 0
        if self._summands:
            self._sum += gradient
        else:
            self._sum[:] = gradient
        self._summands += 1
        if self._summands < self._batches:
            return None
        return _drive(self._sum, self._rate.at(progress) * factor, self._of.power, self._law)

    def state(self) -> dict[str, Any]:
        return {"sum": self._sum, "summands": self._summands}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["summands"] > self._batches:
            raise ValueError(f"summands is {state['summands']}, expected at most {self._batches}")
        self._sum, self._summands = state["sum"], int(state["summands"])


@dataclass(frozen=True, slots=True)
class Average:
    r"""An exponential moving average: :math:`m \leftarrow (1-\gamma)m + \gamma\,g`, ``a = m``.

    Attributes:
        gamma: Adaptivity; 1 is memoryless. None: 20 divided by the steps.
        rate: r or eta of the law, a schedule. None: 8 divided by the steps, falling to a sixteenth.
        power: k of the law; above 1 it favours weights with a strong and steady gradient.
        reset: Whether the average of a weight starts anew at 0 when its cell has switched.
    """

    gamma: float | None = None
    rate: Schedule | None = None
    power: float = 2.0
    reset: bool = False

    name: ClassVar[str] = "ss-ema"

    def __post_init__(self) -> None:
        _check_drive(self)
        if self.gamma is not None:
            require_numbers(self.name, self, "gamma")
            require(self.name, "gamma", self.gamma, 0 < self.gamma <= 1, "above 0 and at most 1")
        require(self.name, "reset", self.reset, isinstance(self.reset, bool), "True or False")

    def for_steps(self, steps: int) -> Self:
        """See `Accumulator`: the average forgets `_MEMORIES` times, the switches are shared out over the steps."""
        gamma = neat(min(1.0, _MEMORIES / steps)) if self.gamma is None else self.gamma
        return replace(self, gamma=gamma, rate=self.rate or Schedule.shared(_AVERAGED, steps, 16, _MOST))

    def block(self, cells: Signs, law: str, random: Randomness) -> Memory:
        """See `Accumulator`."""
        return _Average(self, law, cells.size)


class _Average(_Stateless):
    def __init__(self, of: Average, law: str, n: int) -> None:
        self._of, self._law, self._rate = of, law, known(of.rate, "rate", of.name)
        self._gamma = np.float32(known(of.gamma, "gamma", of.name))
        self._average = np.zeros(n, dtype=np.float32)

    def request(self, gradient: Flat, cells: Signs, progress: float, factor: float) -> Request | None:
        _average(gradient, self._average, self._gamma)
        return _drive(self._average, self._rate.at(progress) * factor, self._of.power, self._law)

    def succeeded(self, indices: Indices) -> None:
        if self._of.reset:
            self._average[indices] = 0

    def state(self) -> dict[str, Any]:
        return {"average": self._average}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._average = state["average"]


@dataclass(frozen=True, slots=True)
class Counter:
    r"""A saturating counter of few bits for each weight: no real number is stored.

    With the probability of the law at ``increment``, :math:`c \leftarrow \mathrm{clip}(c + \mathrm{sgn}(g), -c_{max},
    c_{max})`, :math:`c_{max} = 2^{bits-1} - 1`. A cell whose counter is saturated against it, ``w * c = c_max``, gets
    a pulse in every step until it switches; then its counter starts anew at 0. A switch that is undone leaves the
    counter at 0.

    Attributes:
        bits: Of a counter, 2 to 8. None: up to 6, as many as get an increment of at most 2.
        increment: r or eta of the law of counting, a schedule. None: 17 c_max^2 divided by the steps, falling to 1/40.
        pulse_probability: Probability that a pulse switches its cell.
    """

    bits: int | None = None
    increment: Schedule | None = None
    pulse_probability: float = 0.5

    name: ClassVar[str] = "ss-count"

    def __post_init__(self) -> None:
        plain_fields(self)
        read_schedules(self, "increment")
        fits = self.bits is None or (_whole(self.bits) and 2 <= self.bits <= 8)
        require(self.name, "bits", f"{self.bits!r:.80}", fits, "an integer from 2 to 8")
        require_numbers(self.name, self, "pulse_probability")
        fits = 0 < self.pulse_probability <= 1
        require(self.name, "pulse_probability", self.pulse_probability, fits, "above 0 and at most 1")

    @property
    def limit(self) -> int:
        """The largest count, c_max."""
        return _limit(known(self.bits, "bits", self.name))

    def for_steps(self, steps: int) -> Self:
        """See `Accumulator`: the counters have time to walk to their ends `_WALKS` times, in up to 6 bits."""
        bits = self.bits or max([2, *(b for b in range(3, 7) if _counts(b) <= _MOST_COUNTING * steps)])
        increment = self.increment or Schedule.shared(_counts(bits), steps, 40, _MOST_COUNTING)
        return replace(self, bits=bits, increment=increment)

    def block(self, cells: Signs, law: str, random: Randomness) -> Memory:
        """See `Accumulator`."""
        return _Counters(self, law, cells.size, random)


class _Counters(_Stateless):
    def __init__(self, of: Counter, law: str, n: int, random: Randomness) -> None:
        self._of, self._law, self._random = of, law, random
        self._increment, self._limit = known(of.increment, "increment", of.name), of.limit
        self._counts = np.zeros(n, dtype=np.int8)

    def request(self, gradient: Flat, cells: Signs, progress: float, factor: float) -> Request | None:
        scale = _scale(gradient, self._increment.at(progress) * factor, self._law)
        law, key = LAWS.index(self._law), self._random.key()
        pending = _count(gradient, cells, self._counts, self._limit, scale, law, key)
        return Pending(pending, self._of.pulse_probability) if pending.size else None

    def succeeded(self, indices: Indices) -> None:
        self._counts[indices] = 0

    def state(self) -> dict[str, Any]:
        return {"counts": self._counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        if np.abs(state["counts"].astype(np.int16)).max(initial=0) > self._limit:
            raise ValueError(f"a count is beyond {self._limit}")
        self._counts = state["counts"]


@dataclass(frozen=True, slots=True)
class Memristors:
    r"""Auxiliary binary memristors for each weight that switch stochastically: accumulation without digital memory.

    In every step each of the K devices of a weight that is not yet at :math:`-\mathrm{sgn}(g)` gets a pulse that
    switches it there with the probability of the law. The weight's cell gets a pulse in every step in which the sum
    of its devices, each -1 or +1, is against it by at least `threshold`. The devices start saturated towards their
    weight: devices that start half and half let all weights of a network switch together. They are ideal, whatever
    the `Hardware` of the weights' own cells.

    Attributes:
        count: K, odd, at most 31.
        rate: r or eta of the law of the devices, a schedule. None: 10 divided by the steps, falling tenfold.
        threshold: Smallest sum that reprograms a weight, odd, at most K.
        write_probability: Probability that a pulse switches the weight's cell.

    References:
        Accumulation in stochastic memristors is named as an outlook by Akesson, 2022; the form is ours.
    """

    count: int = 15
    rate: Schedule | None = None
    threshold: int = 3
    write_probability: float = 1.0

    name: ClassVar[str] = "ss-mem"

    def __post_init__(self) -> None:
        plain_fields(self)
        read_schedules(self, "rate")
        odd = _whole(self.count) and self.count % 2 == 1
        require(self.name, "count", self.count, odd and 1 <= self.count <= 31, "an odd integer from 1 to 31")
        odd = _whole(self.threshold) and self.threshold % 2 == 1
        fits = odd and 1 <= self.threshold <= self.count
        require(self.name, "threshold", self.threshold, fits, f"an odd integer from 1 to {self.count}")
        require_numbers(self.name, self, "write_probability")
        fits = 0 < self.write_probability <= 1
        require(self.name, "write_probability", self.write_probability, fits, "above 0 and at most 1")

    def for_steps(self, steps: int) -> Self:
        """See `Accumulator`: the switches of a device are shared out over the steps."""
        return replace(self, rate=self.rate or Schedule.shared(_DEVICE, steps, 10, _MOST))

    def block(self, cells: Signs, law: str, random: Randomness) -> Memory:
        """See `Accumulator`."""
        return _Devices(self, law, cells, random)


class _Devices(_Stateless):
    def __init__(self, of: Memristors, law: str, cells: Signs, random: Randomness) -> None:
        self._of, self._law, self._random = of, law, random
        self._rate = known(of.rate, "rate", of.name)
        self._bits = np.where(cells > 0, 2**of.count - 1, 0).astype(np.int32)
        self._pulses = self._switches = 0

    def request(self, gradient: Flat, cells: Signs, progress: float, factor: float) -> Request | None:
        of, law = self._of, LAWS.index(self._law)
        scale = _scale(gradient, self._rate.at(progress) * factor, self._law)
        keys = self._random.key(), self._random.key()
        pulses, switches, pending = _switch_devices(
            gradient, cells, self._bits, of.count, of.threshold, scale, law, *keys
        )
        self._pulses, self._switches = self._pulses + pulses, self._switches + switches
        return Pending(pending, of.write_probability) if pending.size else None

    def state(self) -> dict[str, Any]:
        return {"bits": self._bits, "pulses": self._pulses, "switches": self._switches}

    def restore(self, state: Mapping[str, Any]) -> None:
        if not ((state["bits"] >= 0) & (state["bits"] < 2**self._of.count)).all():
            raise ValueError(f"bits are not those of {self._of.count} memristors")
        self._bits = state["bits"]
        self._pulses, self._switches = int(state["pulses"]), int(state["switches"])

    def statistics(self) -> dict[str, int]:
        return {"auxiliary_pulses": self._pulses, "auxiliary_switches": self._switches}


ACCUMULATORS: dict[str, type[Any]] = {a.name: a for a in (Memoryless, BatchSum, Average, Counter, Memristors)}


def _limit(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def _counts(bits: int) -> float:
    """Increment at the start times the steps: a counter, a random walk where gradients are noise, reaches its ends."""
    return _WALKS * _limit(bits) ** 2


def _check_drive(of: Any) -> None:
    plain_fields(of)
    read_schedules(of, "rate")
    require_numbers(of.name, of, "power")
    fits = 0 < of.power <= _LARGEST_POWER
    require(of.name, "power", of.power, fits, f"above 0 and at most {_LARGEST_POWER:g}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _scale(gradient: Flat, rate: float, law: str) -> float:
    """What |g| is multiplied with in the law; 0 if the gradient is 0."""
    return mean_scale(gradient, rate) if law == "relative" else rate


def mean_scale(gradient: Flat, rate: float) -> float:
    """``rate / mean|g|``; 0 if the gradient is 0."""
    total = float(_power_sum(gradient, 1.0))
    return rate * (gradient.size / total) if total > 0 and math.isfinite(total) else 0.0


# kernels: serial; the random number of a weight depends on the key and its index alone


@njit(inline="always")
def _raised(x: Any, power: Any) -> Any:
    if power == 1.0:
        return x
    if power == 2.0:
        return x * x
    return x**power


@njit(inline="always")
def probability_of(law: Any, x: Any) -> Any:
    """Probability in [0, 1] of the law number `law` at x >= 0; never above x."""
    if law == 2:
        return math.tanh(x)
    if law == 3:
        return -math.expm1(-x)
    return min(x, 1.0)


@njit(nogil=True, error_model="numpy")
def _power_sum(values: Flat, power: float) -> float:
    """Sum of |value|^power in float64, always in the same order: eight sums of every eighth, then the rest."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = values.size - values.size % 8
    for i in range(0, whole, 8):
        s0 += _raised(abs(np.float64(values[i])), power)
        s1 += _raised(abs(np.float64(values[i + 1])), power)
        s2 += _raised(abs(np.float64(values[i + 2])), power)
        s3 += _raised(abs(np.float64(values[i + 3])), power)
        s4 += _raised(abs(np.float64(values[i + 4])), power)
        s5 += _raised(abs(np.float64(values[i + 5])), power)
        s6 += _raised(abs(np.float64(values[i + 6])), power)
        s7 += _raised(abs(np.float64(values[i + 7])), power)
    for i in range(whole, values.size):
        s0 += _raised(abs(np.float64(values[i])), power)
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@njit(nogil=True, error_model="numpy")
def _average(gradient: Flat, average: Flat, gamma: np.float32) -> None:
    keep = np.float32(1) - gamma
    for i in range(average.size):
        average[i] = keep * average[i] + gamma * gradient[i]


@njit(inline="always")
def _against(value: Any, cell: Any) -> Any:
    """|a| of an eligible weight, else 0."""
    return max(np.float64(value) * np.float64(cell), 0.0)


@njit(inline="always")
def _with_room(out: Any, used: Any) -> Any:
    """The list, twice as long if it has no room for a chunk."""
    if used + _CHUNK <= out.size:
        return out
    grown = np.empty(2 * out.size + _CHUNK, dtype=np.int32)
    grown[:used] = out[:used]
    return grown


@njit(nogil=True, error_model="numpy")
def _switched(values: Flat, cells: Signs, scale: float, power: float, law: int, key: np.uint64) -> tuple[int, Indices]:
    """Pulses and switching cells. A first look at a chunk (vectorized) tells whether any cell might switch there."""
    n, pulses, count = values.size, 0, 0
    out = np.empty(64, dtype=np.int32)
    for start in range(0, n, _CHUNK):
        end = min(start + _CHUNK, n)
        eligible, maybe = 0, 0
        if power == 2.0:
            for i in range(start, end):
                x = _against(values[i], cells[i])
                eligible += x > 0.0
                maybe += uniform(key, i) < scale * (x * x)
        elif power == 1.0:
            for i in range(start, end):
                x = _against(values[i], cells[i])
                eligible += x > 0.0
                maybe += uniform(key, i) < scale * x
        else:
            for i in range(start, end):
                x = _against(values[i], cells[i])
                eligible += x > 0.0
                maybe += uniform(key, i) < scale * x**power
        pulses += eligible
        if maybe:
            out = _with_room(out, count)
            for i in range(start, end):
                x = _against(values[i], cells[i])
                if x > 0.0 and uniform(key, i) < probability_of(law, scale * _raised(x, power)):
                    out[count] = i
                    count += 1
    return pulses, out[:count].copy()


@njit(nogil=True, error_model="numpy")
def _requested(values: Flat, cells: Signs, scale: float, power: float, law: int) -> tuple[Indices, NDArray[np.float64]]:
    """The eligible cells and their probabilities."""
    indices = np.empty(values.size, dtype=np.int32)
    probabilities = np.empty(values.size)
    count = 0
    for i in range(values.size):
        x = _against(values[i], cells[i])
        if x > 0.0:
            indices[count] = i
            probabilities[count] = probability_of(law, scale * _raised(x, power))
            count += 1
    return indices[:count].copy(), probabilities[:count].copy()


@njit(nogil=True)
def _chosen(indices: Indices, probability: float, key: np.uint64) -> Indices:
    """Those of the indices that an event of this probability happens to."""
    out = np.empty(indices.size, dtype=np.int32)
    count = 0
    for i in indices:
        if uniform(key, i) < probability:
            out[count] = i
            count += 1
    return out[:count].copy()


@njit(nogil=True, error_model="numpy")
def _count(
    gradient: Flat, cells: Signs, counts: NDArray[np.int8], limit: int, scale: float, law: int, key: np.uint64
) -> Indices:
    """Counts, and gives the cells whose counter is saturated against them. In short integers, which vectorize best."""
    top, bottom = np.int16(limit), np.int16(-limit)
    counted = np.empty(_CHUNK, dtype=np.int8)
    out = np.empty(_CHUNK, dtype=np.int32)
    found = 0
    for start in range(0, gradient.size, _CHUNK):
        g = gradient[start : start + _CHUNK]
        c = counts[start : start + _CHUNK]
        w = cells[start : start + _CHUNK]
        if law < 2:
            for j in range(g.size):
                counted[j] = uniform(key, start + j) < scale * abs(np.float64(g[j]))
        else:
            for j in range(g.size):
                counted[j] = uniform(key, start + j) < probability_of(law, scale * abs(np.float64(g[j])))
        saturated = np.uint8(0)
        for j in range(g.size):
            sign = np.int8(np.int8(g[j] > 0) - np.int8(g[j] < 0))
            moved = np.int16(np.int16(c[j]) + np.int16(sign * counted[j]))
            moved = top if moved > top else (bottom if moved < bottom else moved)
            c[j] = moved
            saturated |= np.uint8(np.int16(moved * w[j]) == top)
        if saturated:
            out = _with_room(out, found)
            for j in range(g.size):
                if c[j] * w[j] == top:
                    out[found] = start + j
                    found += 1
    return out[:found].copy()


@njit(inline="always")
def _ones(bits: Any) -> Any:
    """Number of ones of a nonnegative int32."""
    v = np.uint32(bits)
    v = v - ((v >> np.uint32(1)) & np.uint32(0x55555555))
    v = (v & np.uint32(0x33333333)) + ((v >> np.uint32(2)) & np.uint32(0x33333333))
    v = (v + (v >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return np.int64((v * np.uint32(0x01010101)) >> np.uint32(24)) & 0xFF


@njit(nogil=True, error_model="numpy")
def _switch_devices(
    gradient: Flat,
    cells: Signs,
    bits: NDArray[np.int32],
    devices: int,
    threshold: int,
    scale: float,
    law: int,
    key: np.uint64,
    further: np.uint64,
) -> tuple[int, int, Indices]:
    """Pulses the auxiliary devices; gives their pulses and switches, and the cells to reprogram.

    Which of the opposed devices of a weight switch is drawn by geometric gaps: the first gap comes from uniform
    number i of `key`, the next ones from numbers i * devices, i * devices + 1, ... of `further`. A weight none of
    whose devices switches, as nearly all, costs one number.
    """
    pulses = switches = found = 0
    all_devices, limit = np.int32(devices), np.int32(threshold)
    opposed = np.empty(_CHUNK, dtype=np.int32)
    flags = np.empty(_CHUNK, dtype=np.uint8)
    out = np.empty(_CHUNK, dtype=np.int32)
    for start in range(0, gradient.size, _CHUNK):
        g = gradient[start : start + _CHUNK]
        b = bits[start : start + _CHUNK]
        w = cells[start : start + _CHUNK]
        total, some = np.int32(0), np.uint8(0)
        for j in range(g.size):
            ones = np.int32(_ones(b[j]))
            against = ones if g[j] > 0 else (np.int32(all_devices - ones) if g[j] < 0 else np.int32(0))
            opposed[j] = against
            total += against
            flags[j] = np.uint8(np.int32(all_devices - 2 * ones) * np.int32(w[j]) >= limit)
        pulses += int(total)
        for j in range(g.size):
            x = scale * abs(np.float64(g[j]))
            flags[j] |= np.uint8(uniform(key, start + j) < opposed[j] * x)
            some |= flags[j]
        if not some:
            continue
        out = _with_room(out, found)
        for j in range(g.size):
            if not flags[j]:
                continue
            x, u, i = scale * abs(np.float64(g[j])), uniform(key, start + j), start + j
            if u < opposed[j] * x:
                changed = _device_switches(b[j], g[j] > 0, opposed[j], probability_of(law, x), u, devices, further, i)
                b[j] ^= changed
                switches += _ones(changed)
            if (devices - 2 * _ones(b[j])) * w[j] >= threshold:
                out[found] = i
                found += 1
    return pulses, switches, out[:found].copy()


@njit(nogil=True, error_model="numpy")
def _device_switches(
    bits: np.int32,
    down: bool,
    opposed: int,
    probability: float,
    first: float,
    devices: int,
    key: np.uint64,
    weight: int,
) -> np.int32:
    """The bits of the opposed devices that switch, each with the same probability."""
    stay = math.log1p(-probability) if probability < 1.0 else -np.inf
    u, position, draws = first, -1, 0
    switched = np.int32(0)
    while True:
        gap = math.log1p(-u) / stay if stay < 0.0 else np.inf
        if gap >= opposed - 1 - position:
            return switched
        position += 1 + int(gap)
        seen = -1
        for j in range(devices):
            if ((bits >> j) & 1 == 1) == down:
                seen += 1
                if seen == position:
                    switched |= np.int32(1) << np.int32(j)
        u = uniform(key, weight * devices + draws)
        draws += 1
