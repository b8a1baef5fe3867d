"""Count the whole cube of a network by propagation, and say how long it took and how much memory.

For 64-10-10 (2^64 inputs) this is half an hour or more and wants some 16 GB; with less, layers are continued in parts.

    python case_studies/benchmarks/whole_cube.py MODEL [--memory 16e9] [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import time

import bnnverify
from bnnverify.engines.base import Limits, Monitor
from bnnverify.engines.propagation import PropagationEngine
from bnnverify.engines.warmup import prepare
from bnnverify.query import Query, Untargeted
from bnnverify.regions import whole_cube


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="network file or folder")
    parser.add_argument("--memory", type=float, default=8e9, help="bytes of the states (default 8e9)")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    network = bnnverify.load(options.model)
    monitor = Monitor(show=lambda low, high, size: print(f"settled {1 - (high - low) / size:.2%}", flush=True))
    query = Query(network, whole_cube(network.n_inputs), Untargeted(0))
    limits = Limits(memory_bytes=int(options.memory), threads=options.threads)
    prepare("propagation", query, limits)
    start = time.perf_counter()
    count = PropagationEngine().count(query, limits=limits, monitor=monitor)
    print(f"{network.architecture}: {count.region_size} inputs in {time.perf_counter() - start:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.1f} GB; {dict(count.run.statistics)}")
    for k, inputs in enumerate(count.per_class or ()):
        print(f"class {k}: {inputs}  ({inputs / count.region_size:.6%})")


if __name__ == "__main__":
    main()
