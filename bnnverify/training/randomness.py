"""All randomness of a training run: one seeded generator, and numbers that depend on a key and an index alone.

A kernel that draws one number per weight takes a key from the generator and computes the number of weight i from
the key and i. So the numbers do not depend on the order or the number of threads in which they are drawn.

References:
    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64), read at a position
    instead of one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bnnverify.compilation import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 1.0 / (1 << 53)


@njit(inline="always")
def mixed(key: Any, index: Any) -> Any:
    """Number `index` of the SplitMix64 stream that starts at `key`: uint64."""
    z = np.uint64(key) + (np.uint64(index) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@njit(inline="always")
def uniform(key: Any, index: Any) -> Any:
    """A uniform number in [0, 1) with 53 bits: an event of probability p happens iff it is below p."""
    return np.float64(mixed(key, index) >> np.uint64(11)) * _TO_UNIT


@njit(nogil=True)
def uniforms(key: Any, count: int) -> NDArray[np.float64]:
    """The first `count` numbers of a key, for what is not worth a kernel of its own."""
    out = np.empty(count)
    for i in range(count):
        out[i] = uniform(key, i)
    return out


@njit(nogil=True)
def flip_signs(signs: NDArray[np.int8], probability: float, key: Any) -> None:
    """Negates each entry of a flat int8 array, in place, with the given probability."""
    for i in range(signs.size):
        signs[i] = -signs[i] if uniform(key, i) < probability else signs[i]


@njit(nogil=True)
def moved(images: NDArray[Any], height: int, width: int, most: int, fill: int, key: Any) -> NDArray[Any]:
    """Images, each moved by a random number of pixels from -most to most in either direction, `fill` moving in.

    Args:
        images: Shape `(N, height * width)`.
        height: Rows.
        width: Columns.
        most: Largest move.
        fill: Value of the background.
        key: Of the moves; image i takes numbers 2i and 2i + 1.
    """
    out = np.full_like(images, fill)
    for i in range(images.shape[0]):
        down = int(uniform(key, 2 * i) * (2 * most + 1)) - most
        right = int(uniform(key, 2 * i + 1) * (2 * most + 1)) - most
        for row in range(max(0, down), min(height, height + down)):
            for column in range(max(0, right), min(width, width + right)):
                out[i, row * width + column] = images[i, (row - down) * width + column - right]
    return out


class Randomness:
    """The one source of randomness of a run.

    Attributes:
        generator: For what torch draws: initial weights, orders of the images.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def key(self) -> np.uint64:
        """A fresh key for `uniform` and the kernels built on it."""
        return np.uint64(int(torch.randint(0, 2**62, (), generator=self.generator)))

    def signs(self, shape: tuple[int, ...]) -> NDArray[np.int8]:
        """Random signs -1/+1, each with probability 1/2."""
        u = torch.rand(shape, generator=self.generator)
        return np.where(u.numpy() >= 0.5, 1, -1).astype(np.int8)
