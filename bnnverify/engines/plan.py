"""A network in a region, laid out for the bit-sliced loops: what is settled there is gone, the rest is packed.

Margins are in units of flips: ``floor((w . x - threshold) / 2)``. A neuron fires iff its margin is at least 0, and one
flip of an input moves it by -1, 0 (masked) or +1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnverify.blocks import DenseBlock, OutputBlock
from bnnverify.engines.bitslice import TILES
from bnnverify.network import BinaryNetwork
from bnnverify.packing import Words, pack_signs
from bnnverify.query import Query, Targeted, Ties

MOST_FLIPS = 60  # margins and their bounds are int8


@dataclass(frozen=True, slots=True)
class Plan:
    """What the loops need to know of a query.

    Attributes:
        margins: Of the unsettled neurons of the first block at the centre, shape `(64 * words,)`, int8, padded with
            neurons that never fire.
        deltas: What a flip of each free input adds, shape `(free, 64 * words)`, int8.
        neurons: Unsettled neurons of the first block.
        net: Arrays of the later blocks; see `bitslice.leaf`.
        classes: The class at each place: places are classes in the order in which ties are broken.
        budget: Most flips in the region.
        is_masked: True if some free input is masked out for some neuron.
        widths: Neurons of every hidden block.
    """

    margins: NDArray[np.int8]
    deltas: NDArray[np.int8]
    neurons: int
    net: tuple[Any, ...]
    classes: tuple[int, ...]
    budget: int
    is_masked: bool
    widths: tuple[int, ...]

    @property
    def free(self) -> int:
        """Number of free inputs."""
        return len(self.deltas)


def is_plannable(network: BinaryNetwork) -> bool:
    """True for dense networks with a hidden block whose classes all have the same scale up to its sign."""
    if network.has_convolutions or not network.blocks or not network.domain.is_binary:
        return False
    scales, _ = network.output.integer_form()
    return len({abs(a) for a in scales}) == 1 and scales[0] != 0


def tie_order(query: Query) -> tuple[int, ...]:
    """Classes by who wins a tie, such that the query's property is a matter of the winner alone.

    With this order, an input is adversarial iff its winner is not the label (is the target).
    """
    classes = list(range(query.network.n_classes))
    if query.ties is Ties.LOWEST_INDEX:
        return tuple(classes)
    targeted = isinstance(query.property, Targeted)
    mine = query.property.target if isinstance(query.property, Targeted) else query.property.label
    classes.remove(mine)
    first = targeted == (query.ties is Ties.COUNTEREXAMPLE)  # the attacker's favour is the target's, not the label's
    return (mine, *classes) if first else (*classes, mine)


def make_plan(query: Query, order: tuple[int, ...]) -> Plan:
    """Lay out a plannable network for a region; `order` is who wins a tie."""
    network, region = query.network, query.sign_region
    blocks = network.dense_blocks("they are evaluated anew for every input.")
    center = np.array(region.center, dtype=np.int32)
    free = np.array(region.free, dtype=np.int64)
    budget = region.most_flips
    first = blocks[0]
    sums = first.weights.astype(np.int32) @ center
    margins = (sums - first.thresholds) // 2
    deltas = -(first.weights[:, free].astype(np.int32) * center[free])  # (neurons, free)
    down = np.minimum(np.count_nonzero(deltas < 0, axis=1), budget)
    up = np.minimum(np.count_nonzero(deltas > 0, axis=1), budget)
    fires, never = margins >= down, margins + up < 0
    unsettled = ~(fires | never)
    kept = np.flatnonzero(unsettled)
    known = np.where(fires, 1, 0) - np.where(never, 1, 0)  # +1, -1, 0: open
    words = max(1, -(-len(kept) // 64))
    padded = np.full(64 * words, -128, dtype=np.int8)
    padded[: len(kept)] = np.clip(margins[kept], -127, 127)
    moves = np.zeros((len(free), 64 * words), dtype=np.int8)
    moves[:, : len(kept)] = deltas[kept].T
    shape, arrays, later = [(words, len(kept), 0, 0, 0)], [], list(blocks[1:])
    needs, at, row = [], 0, 0
    selected, settled = kept, known
    for block in later:
        need, up_to = _open_needs(block, settled)
        state = np.where(need <= 0, 1, np.where(need > up_to, -1, 0))
        chosen = np.flatnonzero(state == 0)
        weights = block.weights[chosen][:, selected]
        arrays.append(weights)
        needs.append(need[chosen])
        shape.append((max(1, -(-len(chosen) // 64)), len(chosen), 0, at, row))
        at, row = at + len(chosen), row + len(chosen)
        selected, settled = chosen, state
    packed, offset = [], 0  # then the places of the packed blocks are known
    for i, weights in enumerate(arrays, start=1):
        w = _packed(weights, shape[i - 1][0])
        shape[i] = (*shape[i][:2], offset, *shape[i][3:])
        offset += w[0].size
        packed.append(w)
    output_mask = network.output.weights[:, selected] != 0
    mixed = bool((output_mask != output_mask[0]).any())
    classes, output_weights, offsets = _output(network.output, settled, selected, order)
    shape[0] = (*shape[0][:4], int(mixed))
    out = _packed(output_weights, shape[-1][0])
    empty = np.zeros(0, dtype=np.uint64)
    net = (
        np.array(shape, dtype=np.int64),
        np.concatenate([w for w, _ in packed]) if packed else empty,
        np.concatenate([p for _, p in packed]) if packed else empty,
        np.concatenate(needs).astype(np.int64) if needs else np.zeros(0, dtype=np.int64),
        *out,
        offsets,
    )
    is_masked = bool((moves[:, : len(kept)] == 0).any())
    return Plan(padded, moves, len(kept), net, classes, budget, is_masked, tuple(s[1] for s in shape))


def _packed(weights: NDArray[Any], words: int) -> tuple[Words, Words]:
    """Sign bits and presence bits, each row in `words` words, flat."""
    padded = np.zeros((len(weights), 64 * words), dtype=np.int8)
    padded[:, : weights.shape[1]] = weights
    return pack_signs(padded).ravel(), pack_signs(np.abs(padded)).ravel()


def _open_needs(block: DenseBlock, settled: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Agreeing open inputs that each neuron needs to fire, and how many open inputs it sees."""
    present = np.count_nonzero(block.weights, axis=1)
    need = -((-(block.thresholds + present)) // 2)  # agree >= ceil((threshold + present) / 2)
    agreeing = np.count_nonzero(block.weights * settled > 0, axis=1)
    return need - agreeing, np.count_nonzero(block.weights[:, settled == 0], axis=1)


def _output(
    output: OutputBlock, settled: NDArray[Any], selected: NDArray[Any], order: tuple[int, ...]
) -> tuple[tuple[int, ...], NDArray[Any], NDArray[np.int64]]:
    """Classes by place, their weights over the open neurons, and integer offsets: score = offset + agreeing."""
    scales, biases = output.integer_form()
    weights = output.weights.astype(np.int64) * np.array([1 if a > 0 else -1 for a in scales])[:, None]
    unit = 2 * abs(scales[0])
    # |scale| * w.h + bias = unit * agreeing - |scale| * present + bias, where the settled neurons agree or not for sure
    agreeing = np.count_nonzero(weights * settled > 0, axis=1).tolist()
    present = np.count_nonzero(weights, axis=1).tolist()
    exact = [unit * agreeing[k] - unit // 2 * present[k] + biases[k] for k in range(output.n_classes)]
    rank = {k: i for i, k in enumerate(order)}
    places = sorted(rank, key=lambda k: (-(exact[k] % unit), rank[k]))
    reach = 4 * output.n_inputs + 4  # a class further behind than this never wins: its place is kept, its distance cut
    top = max(e // unit for e in exact)
    offsets = [max(exact[k] // unit - top, -reach) for k in places]
    return tuple(places), weights[places][:, selected], np.array(offsets, dtype=np.int64)


def make_scratch(plan: Plan) -> tuple[Any, ...]:
    """Work space of one thread for `bitslice.leaf`."""
    classes, hidden = len(plan.classes), len(plan.widths)
    most = max(1, *plan.widths)
    width = -(-most // 64)
    wired = 1 + sum(a * b for a, b in zip(plan.widths, plan.widths[1:], strict=False))
    signs = 8 * TILES * (1 + sum(plan.widths[1:]))
    digits = 3 + (2 * most + 1 - int(plan.net[-1].min())).bit_length()  # unpruned, classes far behind count too
    words, whole = np.uint64, np.int64
    return (
        np.zeros((hidden, width), dtype=words),
        np.zeros((hidden, width), dtype=words),
        np.zeros(classes, dtype=whole),
        np.zeros((hidden, most), dtype=whole),
        np.zeros((hidden, 64 * width), dtype=whole),
        np.zeros(wired, dtype=whole),
        np.zeros((hidden, most, 3), dtype=whole),
        np.zeros(signs, dtype=words),
        np.zeros((classes, 2 * most), dtype=whole),
        np.zeros((classes, 5), dtype=whole),
        np.zeros(classes, dtype=whole),
        np.zeros(8 * max(TILES, classes + 1), dtype=words),
        np.zeros(8 * (24 + digits), dtype=words),
        np.zeros(width, dtype=words),
        np.zeros(width, dtype=words),
        np.zeros((classes + 1) * TILES * 8 * digits, dtype=words),
    )
