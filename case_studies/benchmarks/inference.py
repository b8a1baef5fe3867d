"""Packed XNOR-popcount inference against matrix products, on the same networks and inputs.

Prints, for each network, the time per image of: the packed evaluation with and without packing the images, a numpy
float32 matmul, a numpy int64 matmul and a torch float32 matmul (all layers with thresholds), and the ratios to the
packed evaluation. Every method must give the same classes, or the run fails. One thread everywhere; best of
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
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.packing import pack_signs

WIDTHS = ((64, 32, 10), (784, 100, 10), (784, 256, 256, 10), (784, 1024, 1024, 1024, 10))


def random_network(widths: tuple[int, ...], seed: int = 0) -> BinaryNetwork:
    """Random signs and thresholds: speed does not depend on what they are."""
    rng = np.random.default_rng(seed)
    blocks = tuple(
        DenseBlock.create(rng.choice([-1, 1], (m, n)), rng.integers(-3, 4, m)) for n, m in pairwise(widths[:-1])
    )
    return BinaryNetwork(InputDomain.binary(widths[0]), blocks, OutputBlock.create(rng.choice([-1, 1], widths[:-3:-1])))


def best_of(action: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """(least seconds, result of the last run) after one warm-up."""
    result, least = action(), float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        result = action()
        least = min(least, time.perf_counter() - start)
    return least, result


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
    for widths in WIDTHS:
        network = random_network(widths)
        images = np.random.default_rng(1).choice(np.array([-1, 1], dtype=np.int8), (arguments.images, widths[0]))
        rows, expected = {}, None
        for name, action in methods(network, images).items():
            seconds, classes = best_of(action, runs=1 if name == "numpy int64" else 5)
            if expected is None:
                expected = classes
            if not np.array_equal(classes, expected):
                raise SystemExit(f"{name} disagrees with the packed evaluation on {network.architecture}")
            rows[name] = seconds / arguments.images * 1e6
        for name, micros in rows.items():
            ratio = micros / rows["packed"]
            if arguments.json:
                print(json.dumps({"network": network.architecture, "method": name, "us": micros, "ratio": ratio}))
            else:
                print(f"{network.architecture:>24}  {name:<22}{micros:10.3f} us {ratio:8.1f} x")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
