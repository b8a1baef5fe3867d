"""A tiny network and its gradients in plain loops, float64, to follow update rules step by step; no product code."""

import math

import numpy as np

N, HIDDEN, CLASSES, IMAGES = 5, 4, 3, 6
SHAPES = ((HIDDEN, N), (CLASSES, HIDDEN))


class NoProbe:
    """For rules that have no business looking at the loss."""

    def on_batch(self):
        raise AssertionError("this rule has no business evaluating the loss")

    def on_holdout(self, size):
        raise AssertionError("this rule has no business evaluating the loss")


class Keys:
    """Stands in for `Randomness`: keys 1, 2, 3 and so on, from one seed."""

    def __init__(self, seed=0):
        self.next = seed * 1000

    def key(self):
        self.next += 1
        return np.uint64(self.next)


def uniform(key, index):
    """SplitMix64 in Python integers."""
    mask = 2**64 - 1
    z = (int(key) + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / 2**53


def random_signs(shape, seed):
    return np.where(np.random.RandomState(seed).rand(*shape) < 0.5, -1, 1).astype(np.int8)


def gradients(cells, images, labels):
    """Gradients of the mean cross-entropy with respect to the binary weights of 5-4-3, by the chain rule."""
    first, second = cells
    to_first, to_second = np.zeros(first.shape), np.zeros(second.shape)
    for x, label in zip(images, labels, strict=True):
        z = [sum(int(first[j, i]) * int(x[i]) for i in range(N)) / math.sqrt(N) for j in range(HIDDEN)]
        h = [1 if value >= 0 else -1 for value in z]
        s = [sum(int(second[k, j]) * h[j] for j in range(HIDDEN)) / math.sqrt(HIDDEN) for k in range(CLASSES)]
        total = sum(math.exp(value) for value in s)
        to_s = [(math.exp(s[k]) / total - (k == label)) / len(images) for k in range(CLASSES)]
        for k in range(CLASSES):
            for j in range(HIDDEN):
                to_second[k, j] += to_s[k] * h[j] / math.sqrt(HIDDEN)
        for j in range(HIDDEN):
            to_h = sum(to_s[k] * int(second[k, j]) for k in range(CLASSES)) / math.sqrt(HIDDEN)
            to_z = to_h if abs(z[j]) <= 1 else 0.0
            for i in range(N):
                to_first[j, i] += to_z * int(x[i]) / math.sqrt(N)
    return [to_first.astype(np.float32), to_second.astype(np.float32)]


def follow(rule, oracle, *, steps=40, seed=1):
    """Trains the tiny network by the rule; after every step the oracle must have the same cells, bit by bit.

    Args:
        rule: The package's rule.
        oracle: Function of the initial cells and of keys like the rule's, that gives an object with `cells`,
            `deployed()`, `numbers()` (the same keys as the rule's `state`) and `step(gradients, progress)`.
        steps: Number of steps.
        seed: Of weights and images.

    Returns:
        The number of cells that changed, over all steps.
    """
    start = [random_signs(shape, seed + i) for i, shape in enumerate(SHAPES)]
    images = random_signs((IMAGES, N), seed + 10)
    labels = np.random.RandomState(seed + 20).randint(CLASSES, size=IMAGES)
    state = rule.for_steps(10_000).start([c.copy() for c in start], random=Keys())
    expected = oracle([c.copy() for c in start], Keys())
    flips = 0
    for step in range(steps + 1):
        for ours, theirs in zip(state.cells, expected.cells, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"after {step} steps")
        for ours, theirs in zip(state.deployed(), expected.deployed(), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"deployed after {step} steps")
        for name, arrays in expected.numbers().items():
            for ours, theirs in zip(state.state()[name], arrays, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=f"{name} after {step} steps")
        if step == steps:
            break
        before = [c.copy() for c in state.cells]
        g = gradients(before, images, labels)
        state.step(g, step / steps, NoProbe())
        expected.step(g, step / steps)
        flips += sum(int((a != b).sum()) for a, b in zip(before, state.cells, strict=True))
    return flips


def each(arrays):
    """All positions: block, row, column and the flat position in the block."""
    for b, array in enumerate(arrays):
        rows, columns = array.shape
        for r in range(rows):
            for c in range(columns):
                yield b, r, c, r * columns + c


def zeros():
    return [np.zeros(shape) for shape in SHAPES]
