"""Packed XNOR-popcount inference against matrix products, on the same networks and inputs.

Prints, for each network, the time per image of: the packed evaluation with and without packing the images, a numpy
float32 matmul, a numpy int64 matmul and a torch float32 matmul (all layers with thresholds), and the ratios to the
packed evaluation. A network with convolutions, in the manner of LeNet, is measured against torch's float32 conv2d and
the numpy evaluation instead. Every method must give the same classes, or the run fails. One thread everywhere; best of
several runs; compilation excluded.

    python case_studies/benchmarks/inference.py [--images 10000] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import bnnverify
from bnnverify.kernels import PackedNetwork
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock
from bnnverify.packing import pack_signs

WIDTHS = ((64, 32, 10), (784, 100, 10), (784, 256, 256, 10), (784, 1024, 1024, 1024, 10))


def random_network(widths: tuple[int, ...], seed: int = 0) -> BinaryNetwork:
    """Random signs and thresholds: speed does not depend on what they are."""
    rng = np.random.default_rng(seed)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-3, 4, m)) for n, m in pairwise(widths[:-1])
    )
    return BinaryNetwork(InputDomain.binary(widths[0]), blocks, OutputBlock.create(rng.choice([-1, 1], widths[:-3:-1])))


def lenet(seed: int = 0) -> BinaryNetwork:
    """1x28x28-16c5p2-mp2-32c5p2-mp2-64-10 with random signs and thresholds."""
    rng = np.random.default_rng(seed)

    def conv(filters: int, shape: tuple[int, int, int]) -> ConvBlock:
        weights = rng.choice([-1, 1], (filters, shape[0], 5, 5))
        return ConvBlock.create(weights, rng.integers(-5, 6, filters), input_shape=shape, padding=2, pool=2)

    first = conv(16, (1, 28, 28))
    second = conv(32, first.output_shape)
    dense = DenseBlock.create(rng.choice([-1, 1], (64, second.n_outputs)), rng.integers(-3, 4, 64))
    return BinaryNetwork(
        InputDomain.binary(784), (first, second, dense), OutputBlock.create(rng.choice([-1, 1], (10, 64)))
    )


def best_of(action: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """(least seconds, result of the last run) after one warm-up."""
    result, least = action(), float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        result = action()
        least = min(least, time.perf_counter() - start)
    return least, result


def conv_methods(network: BinaryNetwork, images: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Each way to classify the images with a network of convolutions and then dense blocks."""
    import torch

    torch.set_num_threads(1)
    functional, one = torch.nn.functional, torch.tensor(1.0)
    packed = PackedNetwork(network)
    weights = [torch.from_numpy(b.weights.astype(np.float32)) for b in network.all_blocks]
    limits = [torch.from_numpy(b.thresholds.astype(np.float32)) for b in network.blocks]

    def piece(h: torch.Tensor) -> torch.Tensor:
        for block, matrix, limit in zip(network.blocks, weights, limits, strict=False):
            if isinstance(block, ConvBlock):
                sums = functional.conv2d(h.reshape(-1, *block.input_shape), matrix, None, block.stride, block.padding)
                h = functional.max_pool2d(torch.where(sums >= limit[:, None, None], one, -one), block.pool)
            else:
                h = torch.where(h.flatten(1) @ matrix.T >= limit, one, -one)
        return (h.flatten(1) @ weights[-1].T).argmax(dim=1)

    def torch_float32() -> np.ndarray:
        floats = torch.from_numpy(images.astype(np.float32))
        return torch.cat([piece(part) for part in floats.split(256)]).numpy()  # 256 at a time stay in the cache

    return {
        "packed, with packing": lambda: packed.classes(images),
        "torch float32": torch_float32,
        "numpy float32": lambda: network.evaluate_batch(images),
    }


def methods(network: BinaryNetwork, images: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Each way to classify the images."""
    import torch

    torch.set_num_threads(1)
    packed, bits = PackedNetwork(network), pack_signs(images)
    matrices = [b.weights.T.astype(np.float32) for b in network.all_blocks]
    limits = [b.thresholds.astype(np.float32) for b in network.blocks]
    floats = images.astype(np.float32)

    def numpy_float32() -> np.ndarray:
        h = floats
        for matrix, limit in zip(matrices, limits, strict=False):
            h = np.where(h @ matrix >= limit, np.float32(1), np.float32(-1))
        return (h @ matrices[-1]).argmax(axis=1)

    tensors = [torch.from_numpy(m) for m in matrices]
    tensor_limits = [torch.from_numpy(t) for t in limits]
    tensor_images, one = torch.from_numpy(floats), torch.tensor(1.0)

    def torch_float32() -> np.ndarray:
        h = tensor_images
        for matrix, limit in zip(tensors, tensor_limits, strict=False):
            h = torch.where(h @ matrix >= limit, one, -one)
        return (h @ tensors[-1]).argmax(dim=1).numpy()

    return {
        "packed": lambda: packed.classes_of_packed(bits),
        "packed, with packing": lambda: packed.classes(images),
        "numpy float32": numpy_float32,
        "torch float32": torch_float32,
        "numpy int64": lambda: network.evaluate_batch(images),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="one JSON line per network and method")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"bnnverify {bnnverify.__version__}, {arguments.images} images, microseconds per image, one thread")
    networks = [random_network(widths) for widths in WIDTHS]
    for network in [*networks, lenet()]:
        signs = np.array([-1, 1], dtype=np.int8)
        images = np.random.default_rng(1).choice(signs, (arguments.images, network.n_inputs))
        ways = conv_methods(network, images) if network.has_convolutions else methods(network, images)
        rows, expected = {}, None
        for name, action in ways.items():
            seconds, classes = best_of(action, runs=1 if name == "numpy int64" else 5)
            if expected is None:
                expected = classes
            if not np.array_equal(classes, expected):
                raise SystemExit(f"{name} disagrees with the packed evaluation on {network.architecture}")
            rows[name] = seconds / arguments.images * 1e6
        for name, micros in rows.items():
            ratio = micros / next(iter(rows.values()))
            if arguments.json:
                print(json.dumps({"network": network.architecture, "method": name, "us": micros, "ratio": ratio}))
            else:
                print(f"{network.architecture:>38}  {name:<22}{micros:10.3f} us {ratio:8.1f} x")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
