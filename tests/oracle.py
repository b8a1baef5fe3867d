"""The definition in plain loops: slow, obvious, and free of the code under test.

Imports only the dataclasses. Everything is Python integers and Fractions.
"""

from fractions import Fraction
from itertools import product

from bnnverify.network import BinaryNetwork, ConvBlock
from bnnverify.query import Query, Targeted, Ties, Untargeted


def rows_of(block):
    """The weights as a list of rows: one per neuron, or one per filter (its cells by channel, row, column)."""
    return [[int(w) for w in row.ravel()] for row in block.weights]


def convolved(block, x, rows=None):
    """Signs of a convolution block, flat; `rows` (see `rows_of`) replaces the filters."""
    rows = rows_of(block) if rows is None else rows
    channels, height, width = block.input_shape
    kernel_rows, kernel_columns = block.weights.shape[2:]
    places = []
    for size, pad, kernel, step in zip(
        (height, width), block.padding, (kernel_rows, kernel_columns), block.stride, strict=True
    ):
        places.append(list(range(-pad, size + pad - kernel + 1, step)))
    down, across = block.pool
    outputs = []
    for f, (row, threshold) in enumerate(zip(rows, block.thresholds.tolist(), strict=True)):
        for i in range(len(places[0]) // down):
            for j in range(len(places[1]) // across):
                window = []
                for top in places[0][i * down : (i + 1) * down]:
                    for left in places[1][j * across : (j + 1) * across]:
                        total, cell = 0, 0
                        for channel in range(channels):
                            for r in range(top, top + kernel_rows):
                                for c in range(left, left + kernel_columns):
                                    if 0 <= r < height and 0 <= c < width:
                                        total += row[cell] * x[(channel * height + r) * width + c]
                                    else:
                                        total += row[cell] * block.pad_value
                                    cell += 1
                        window.append(total >= threshold)
                fires = all(window) if block.conjunction[f] else any(window)
                outputs.append(1 if fires else -1)
    return outputs


def hidden_layers(network, x, weights=None):
    """Signs of every hidden block; `weights` (`rows_of` every block, output last) replaces the network's own."""
    layers, h = [], [int(v) for v in x]
    for b, block in enumerate(network.blocks):
        matrix = rows_of(block) if weights is None else weights[b]
        if isinstance(block, ConvBlock):
            h = convolved(block, h, matrix)
            layers.append(h)
            continue
        outputs = []
        for row, threshold in zip(matrix, block.thresholds.tolist(), strict=True):
            total = 0
            for w, v in zip(row, h, strict=True):
                total += w * v
            outputs.append(1 if total >= threshold else -1)
        layers.append(outputs)
        h = outputs
    return layers


def scores(network: BinaryNetwork, x, weights=None):
    """Exact scores."""
    layers = hidden_layers(network, x, weights)
    h = layers[-1] if layers else [int(v) for v in x]
    matrix = network.output.weights.tolist() if weights is None else weights[-1]
    result = []
    for row, scale, bias in zip(matrix, network.output.scale, network.output.bias, strict=True):
        total = 0
        for w, v in zip(row, h, strict=True):
            total += w * v
        result.append(Fraction(scale) * total + Fraction(bias))
    return result


def predicted(network, x, weights=None):
    """Class: the first index with the greatest score."""
    values = scores(network, x, weights)
    best = 0
    for k, value in enumerate(values):
        if value > values[best]:
            best = k
    return best


def is_adversarial(query: Query, x):
    """Whether x has the property, by the definition of each tie rule, written out."""
    values = scores(query.network, x)
    if isinstance(query.property, Untargeted):
        c = query.property.label
        rivals = [values[k] for k in range(len(values)) if k != c]
        if query.ties is Ties.LOWEST_INDEX:
            return predicted(query.network, x) != c
        if query.ties is Ties.COUNTEREXAMPLE:
            return any(v >= values[c] for v in rivals)
        return any(v > values[c] for v in rivals)
    assert isinstance(query.property, Targeted)
    t = query.property.target
    others = [values[k] for k in range(len(values)) if k != t]
    if query.ties is Ties.LOWEST_INDEX:
        return predicted(query.network, x) == t
    if query.ties is Ties.COUNTEREXAMPLE:
        return all(values[t] >= v for v in others)
    return all(values[t] > v for v in others)


def adversarial_points(query: Query):
    """Every adversarial input of the region, by walking over the whole cube."""
    return [
        x
        for x in product((-1, 1), repeat=query.network.n_inputs)
        if query.region.contains(x) and is_adversarial(query, x)
    ]


def per_class(query: Query):
    """Inputs of the region by class."""
    counts = [0] * query.network.n_classes
    for x in product((-1, 1), repeat=query.network.n_inputs):
        if query.region.contains(x):
            counts[predicted(query.network, x)] += 1
    return counts


def distance(query_at, n):
    """Least radius r with an adversarial point in `query_at(r)`, or None."""
    for radius in range(n + 1):
        if adversarial_points(query_at(radius)):
            return radius
    return None


def cells(network):
    """All cells as (block, row, column, probability-of-reading-wrong given CellRates)."""
    found = []
    for b, block in enumerate((*network.blocks, network.output)):
        for j, row in enumerate(rows_of(block)):
            for i, w in enumerate(row):
                if w:
                    stored = -w if b < len(network.blocks) and block.negated[j] else w
                    found.append((b, j, i, stored))
    return found


def flipped_weights(network, flips):
    """`rows_of` every block (output last) with the given cells (block, row, column) negated."""
    matrices = [rows_of(block) for block in (*network.blocks, network.output)]
    for b, j, i, _ in flips:
        matrices[b][j][i] = -matrices[b][j][i]
    return matrices


def error_probability(network, x, label, faults):
    """P(class != label) as an exact Fraction, over all 2^N flip patterns."""
    all_cells = cells(network)
    rates = [faults.rates(b).plus if stored == 1 else faults.rates(b).minus for b, _, _, stored in all_cells]
    total = Fraction(0)
    for pattern in product((False, True), repeat=len(all_cells)):
        weight = Fraction(1)
        for flipped, p in zip(pattern, rates, strict=True):
            weight *= p if flipped else 1 - p
        if weight:
            flips = [cell for cell, flipped in zip(all_cells, pattern, strict=True) if flipped]
            if predicted(network, x, flipped_weights(network, flips)) != label:
                total += weight
    return total


def fault_enumerator(network, x, label):
    """A_k: the number of patterns of exactly k flips after which the class is not `label`."""
    all_cells = cells(network)
    counts = [0] * (len(all_cells) + 1)
    for pattern in product((False, True), repeat=len(all_cells)):
        flips = [cell for cell, flipped in zip(all_cells, pattern, strict=True) if flipped]
        if predicted(network, x, flipped_weights(network, flips)) != label:
            counts[len(flips)] += 1
    return counts
