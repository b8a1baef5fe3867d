"""Checks evidence of patch bounds (`bnnverify.deciding.patches`) by the definitions alone.

The evidence is plain values:

- ``query``: as `Query.to_json` writes it;
- ``unit``: a positive integer; multipliers and maxima count 1/unit of a score difference;
- ``order``: of how many bits of a patch together it is asked whether their signs can occur; 1 for none;
- ``partitions``: lists of patches, each ``{"outputs": [...], "bits": [...]}``: flat indices of outputs of the last
  hidden block, and of outputs of the block before;
- ``comparisons``: for ``score higher - score lower``, in units of `OutputBlock.integer_form`: ``partition`` (an index,
  or null), ``multipliers`` (a list per patch with an integer per bit, or null for zeros) and ``maxima`` (per patch).

What is checked: intervals over the region, recomputed, settle some outputs of each block; the bits are outputs that
they do not settle. An output is in one patch at most. For each bit the multipliers add up to 0 over the patches.
The greatest value of a patch, over all signs of its bits that can occur, of what its outputs add to the difference plus
the multipliers of the bits at +1, is at most its maximum. Signs of a patch's bits cannot occur if those of 2 to
``order`` of them cannot: each is a linear inequality of what the block reads, and the greatest value of the sum of
their left sides over the box of all that it may read is below the sum of what they need. (This is used where the block
does not pool.) So the difference is at most the sum of the maxima plus what the
outputs in no patch can add. The query is robust if that excludes the comparisons that would make an input adversarial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import DenseBlock
from bnnverify.checking.bounds import BlockBounds, block_bounds, input_bounds, is_conjunction, windows
from bnnverify.convolution import ConvBlock, HiddenBlock
from bnnverify.query import Query
from bnnverify.regions import RealBox

MOST_BITS = 20
"""Greatest number of bits of a patch that is enumerated."""

MOST_ORDER = 5
"""Greatest number of bits of which it is asked whether their signs can occur together."""


def check_patches(query: Query, evidence: Mapping[str, Any]) -> str:
    """Empty if the evidence proves that no input of the query's region is adversarial; else why it does not.

    Args:
        query: The question that the evidence is about.
        evidence: As above.
    """
    try:
        return _check(query, evidence)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return f"the evidence is malformed ({type(error).__name__}: {error})"


def _check(query: Query, evidence: Mapping[str, Any]) -> str:
    if evidence["query"] != query.to_json():
        return "the evidence is about another query"
    unit = evidence["unit"]
    if type(unit) is not int or unit < 1:
        return f"unit is {unit!r}, expected a positive integer"
    order = evidence["order"]
    if type(order) is not int or not 1 <= order <= MOST_ORDER:
        return f"order is {order!r}, expected an integer from 1 to {MOST_ORDER}"
    if len(query.network.blocks) < 2:
        return "the network has fewer than two hidden blocks, so there are no patches"
    bounds = block_bounds(query)
    claims = {(claim["higher"], claim["lower"]): claim for claim in evidence["comparisons"]}
    partitions = [_Partition(query, bounds, patches, order) for patches in evidence["partitions"]]
    comparisons, conjunctive = query.score_conditions()
    reasons = []
    for higher, lower, strict in comparisons:
        reason = f"nothing is claimed about score {higher} - score {lower}"
        if (higher, lower) in claims:
            reason = _kept(query, bounds[-1].after, partitions, claims[higher, lower], unit, strict)
        if reason and not conjunctive:
            return reason
        reasons.append(reason)
    return "" if not conjunctive or "" in reasons else "no comparison is excluded: " + "; ".join(reasons)


def _kept(
    query: Query,
    after: NDArray[np.int8],
    partitions: Sequence[_Partition],
    claim: Mapping[str, Any],
    unit: int,
    strict: bool,
) -> str:
    """Empty if the claim shows that its comparison cannot hold; else why not."""
    higher, lower = claim["higher"], claim["lower"]
    where = f"score {higher} - score {lower}"
    scales, biases = query.network.output.integer_form()
    rows = [row.tolist() for row in query.network.output.weights]
    coefficients = [scales[higher] * a - scales[lower] * b for a, b in zip(rows[higher], rows[lower], strict=True)]
    total, covered = unit * (biases[higher] - biases[lower]), set[int]()
    if claim["partition"] is not None:
        partition = partitions[claim["partition"]]
        problem = partition.problem or partition.refused(coefficients, unit, claim["multipliers"], claim["maxima"])
        if problem:
            return f"{where}: {problem}"
        total += sum(claim["maxima"])
        covered = partition.outputs
    for o, (coefficient, sign) in enumerate(zip(coefficients, after.tolist(), strict=True)):
        if o not in covered:
            total += unit * (coefficient * sign if sign else abs(coefficient))
    if total < 0 or (strict and total == 0):
        return ""
    return f"{where} is at most {total}/{unit}, which does not exclude it"


class _Partition:
    """Patches, and what their outputs are by the signs of their bits."""

    def __init__(
        self,
        query: Query,
        bounds: Sequence[BlockBounds],
        patches: Iterable[Mapping[str, Sequence[int]]],
        order: int,
    ) -> None:
        self.patches = [([int(o) for o in patch["outputs"]], [int(b) for b in patch["bits"]]) for patch in patches]
        listed = list(chain.from_iterable(outputs for outputs, _ in self.patches))
        self.outputs = set(listed)
        self.states: list[NDArray[np.int64]] = []
        self.possible: list[NDArray[np.bool_]] = []
        self.problem = ""
        if len(listed) != len(self.outputs):
            self.problem = "an output lies in two patches"
        elif not self.outputs <= set(np.flatnonzero(bounds[-1].after == 0).tolist()):
            self.problem = "a patch has an output that is settled or does not exist"
        open_bits = set(np.flatnonzero(bounds[-2].after == 0).tolist())
        block, members = query.network.blocks[-1], windows(query.network.blocks[-1])
        for outputs, bits in self.patches:
            if len(set(bits)) != len(bits) or not set(bits) <= open_bits:
                self.problem = "a patch has a bit twice, or one that is settled or does not exist"
            elif len(bits) > MOST_BITS:
                self.problem = f"a patch has {len(bits)} bits, expected at most {MOST_BITS}"
            if self.problem:
                return
            signs = 2 * (np.arange(1 << len(bits))[:, None] >> np.arange(len(bits)) & 1) - 1
            columns = [_state(block, o, members[o], bits, bounds[-1], signs) for o in outputs]
            self.possible.append(_possible(query, bounds, bits, order, signs))
            self.states.append(np.stack(columns, axis=1) if columns else np.zeros((len(signs), 0), dtype=np.int64))

    def refused(
        self,
        coefficients: Sequence[int],
        unit: int,
        multipliers: Sequence[Sequence[int]] | None,
        maxima: Sequence[int],
    ) -> str:
        """Why the maxima, in 1/unit, do not bound what the outputs add; empty if they do."""
        given = [[0] * len(bits) for _, bits in self.patches] if multipliers is None else multipliers
        if any(type(v) is not int for v in chain(maxima, *given)):
            return "multipliers and maxima are not all integers"
        shares: dict[int, int] = {}
        known = zip(self.patches, self.states, self.possible, given, maxima, strict=True)
        for (outputs, bits), states, possible, moved, most in known:
            for b, share in zip(bits, moved, strict=True):
                shares[b] = shares.get(b, 0) + share
            costs = [unit * coefficients[o] for o in outputs]
            kind: type = np.int64 if sum(map(abs, costs)) + sum(map(abs, moved)) < 2**62 else object
            row: NDArray[Any] = np.array(costs, dtype=kind)
            at_plus: NDArray[Any] = np.array(moved, dtype=kind)
            values = states.astype(kind) @ row + (states == 0).astype(kind) @ np.abs(row)
            plus = np.arange(len(states))[:, None] >> np.arange(len(bits)) & 1
            reached = (values + plus.astype(kind) @ at_plus)[possible]
            greatest = int(reached.max()) if reached.size else most
            if greatest > most:
                return f"the patch of outputs {outputs[:3]}... reaches {greatest}/{unit}, more than {most}/{unit}"
        unbalanced = next((b for b, total in shares.items() if total), None)
        return "" if unbalanced is None else f"the multipliers of bit {unbalanced} do not add up to 0"


def _state(
    block: HiddenBlock,
    output: int,
    neurons: Sequence[int],
    bits: Sequence[int],
    bounds: BlockBounds,
    signs: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The output under each row of `signs` of the bits: -1, +1, or 0 where that leaves it open."""
    states = []
    for neuron in neurons:
        weights = _weights(block, neuron)
        row = np.array([weights.get(b, 0) for b in bits], dtype=np.int64)
        reach, limit = int(np.abs(row).sum()), int(_threshold(block, neuron))
        sums = signs @ row
        least, most = sums + (int(bounds.low[neuron]) + reach), sums + (int(bounds.high[neuron]) - reach)
        states.append(np.where(least >= limit, 1, np.where(most < limit, -1, 0)))
    return np.asarray((np.min if is_conjunction(block, output) else np.max)(states, axis=0), dtype=np.int64)


def _possible(
    query: Query, bounds: Sequence[BlockBounds], bits: Sequence[int], order: int, signs: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which rows of `signs` of the bits are not shown to be impossible by 2 to `order` of them."""
    possible = np.ones(len(signs), dtype=bool)
    block = query.network.blocks[-2]
    if order < 2 or len(bits) < 2 or (isinstance(block, ConvBlock) and block.pool != (1, 1)):
        return possible
    if len(bounds) > 2:
        before = bounds[-3].after.astype(np.int64)
        low, high = np.where(before == 0, -1, before), np.where(before == 0, 1, before)
    else:
        ends = input_bounds(query)
        if any(int(v) != v for v in chain(*ends)):
            return possible
        low, high = (np.array([int(v) for v in values], dtype=np.int64) for values in ends)
    is_real = len(bounds) == 2 and isinstance(query.region, RealBox)
    every = [_weights(block, b) for b in bits]  # the block does not pool: neurons are outputs
    seen = sorted(set(chain.from_iterable(every)))
    rows = np.array([[weights.get(x, 0) for x in seen] for weights in every], dtype=np.int64)
    extra = np.array([_padding(block, b) for b in bits], dtype=np.int64)
    limits = np.array([_threshold(block, b) for b in bits], dtype=np.int64)
    bottom, top = low[seen], high[seen]
    for size in range(2, min(order, len(bits)) + 1):
        choices = np.array(list(combinations(range(len(bits)), size)))
        for values in product((-1, 1), repeat=size):
            sides = np.array(values)
            total = np.einsum("s,csx->cx", sides, rows[choices])
            most = np.maximum(total, 0) @ top + np.minimum(total, 0) @ bottom + extra[choices] @ sides
            # +1 needs a sum of T, -1 one of at most T - 1; over reals above T - 1 and below T
            needs = np.where(sides == 1, limits[choices] - is_real, 1 - limits[choices] - is_real).sum(axis=1)
            for choice in choices[most <= needs if is_real else most < needs]:
                possible &= ~(signs[:, choice] == sides).all(axis=1)
    return possible


def _padding(block: HiddenBlock, neuron: int) -> int:
    """What padding adds to the sum of a neuron before pooling."""
    if isinstance(block, DenseBlock):
        return 0
    rows, columns = block.positions
    weights = block.weights[neuron // (rows * columns)]
    return block.pad_value * (int(weights.sum(dtype=np.int64)) - sum(_weights(block, neuron).values()))


def _threshold(block: HiddenBlock, neuron: int) -> int:
    """Threshold of a neuron before pooling."""
    if isinstance(block, DenseBlock):
        return int(block.thresholds[neuron])
    rows, columns = block.positions
    return int(block.thresholds[neuron // (rows * columns)])


def _weights(block: HiddenBlock, neuron: int) -> dict[int, int]:
    """Weight by flat input of a neuron before pooling; where there is none, it is 0."""
    if isinstance(block, DenseBlock):
        return dict(enumerate(block.weights[neuron].tolist()))
    (rows, columns), (_, height, width) = block.positions, block.input_shape
    f, i, j = neuron // (rows * columns), neuron // columns % rows, neuron % columns
    found = {}
    for channel, r, c in np.ndindex(block.weights.shape[1:]):
        y, x = i * block.stride[0] + r - block.padding[0], j * block.stride[1] + c - block.padding[1]
        if 0 <= y < height and 0 <= x < width:
            found[(channel * height + y) * width + x] = int(block.weights[f, channel, r, c])
    return found
