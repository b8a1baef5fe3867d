"""The traffic-sign networks of VNN-COMP 2023 (larq, ONNX) with their 45 properties: verdict, stage and seconds of each.

The folder holds ``instances.csv`` with ``onnx/`` and ``vnnlib/`` beside it, gzipped or not. Each counterexample is
replayed on the exact network, and on the file itself with onnxruntime where that is installed. Seconds include reading
the property, not the network, which many rows share.

References:
    Postovan & Erascu, "Architecturing binarized neural networks for traffic sign recognition", ICANN 2023.

    python case_studies/benchmarks/traffic_signs.py FOLDER [--rows 0:45] [--timeout 60] [--jobs 1]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections import Counter
from pathlib import Path

import numpy as np

from bnnverify.cli.options import index_list
from bnnverify.engines.base import Limits
from bnnverify.formats import import_model, vnnlib
from bnnverify.results import Verdict
from bnnverify.robustness import decide


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="0:45")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    if not (arguments.folder / "instances.csv").is_file():
        print(f"{arguments.folder / 'instances.csv'} is not here: the benchmark is skipped.")
        return
    with (arguments.folder / "instances.csv").open() as file:
        rows = list(csv.reader(file))
    networks, counts = {}, Counter()
    print(
        f"{'row':>3} {'network':<44} {'property':<28} {'verdict':<10} {'seconds':>8} {'margin':>7} onnxruntime  stages"
    )
    for i in index_list(arguments.rows, len(rows), "row"):
        model, prop = (existing(arguments.folder / name) for name in rows[i][:2])
        start = time.perf_counter()
        specification = vnnlib.load(prop)
        read = time.perf_counter() - start
        if model not in networks:
            networks[model] = import_model(model, coding=specification.coding())
        imported = networks[model]
        start = time.perf_counter()
        (query,) = specification.queries(imported)
        answer = decide(query, limits=Limits(seconds=arguments.timeout), jobs=arguments.jobs)
        seconds = read + time.perf_counter() - start
        runtime = replayed_by_runtime(imported, model, query, answer)
        stages = ", ".join(f"{name} {spent:.2f}" for name, spent in answer.run.statistics["stages"])
        margin = answer.run.statistics["best_margin"]
        name = prop.name.removeprefix("model_").split(".vnnlib")[0].removesuffix(".00000")
        print(
            f"{i:>3} {imported.network.architecture:<44} {name:<28} {answer.verdict.value:<10} {seconds:8.2f} "
            f"{margin!s:>7} {runtime:<11}  {stages}  {answer.run.reason}",
            flush=True,
        )
        counts[answer.verdict.value] += 1
    print(dict(counts))


def existing(path: Path) -> Path:
    """The file, or its gzipped form."""
    return path if path.is_file() else path.with_name(path.name + ".gz")


def replayed_by_runtime(imported, model: Path, query, answer) -> str:
    """What onnxruntime says about the counterexample."""
    if answer.verdict is not Verdict.NOT_ROBUST:
        return "-"
    assert query.is_adversarial(answer.counterexample)
    try:
        import onnxruntime
    except ImportError:
        return "not here"
    data = gzip.decompress(model.read_bytes()) if model.suffix == ".gz" else model.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    fed = imported.fed(np.array(answer.counterexample)).reshape(imported.input_shape)
    scores = np.ravel(session.run(None, {imported.input_name: fed})[0])
    label = query.property.label
    rival = max(float(v) for k, v in enumerate(scores) if k != label)
    return "agrees" if rival >= float(scores[label]) else f"DIFFERS {rival - float(scores[label]):.2g}"


if __name__ == "__main__":
    main()
