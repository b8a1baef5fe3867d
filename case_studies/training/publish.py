"""Copies networks of the study into models/, each with its card: `python case_studies/training/publish.py`.

The networks are those of seed 0, whatever their accuracy: nothing is chosen by the test images.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from records import Record, read
from runs import OUT

from bnnverify.formats import native
from bnnverify.training.export import card

MODELS = Path(__file__).resolve().parents[2] / "models"
PUBLISHED = {  # name of the row -> name of the network
    "mlp-100": "mnist-784-100-10",
    "tfc": "mnist-784-64-64-64-10",
    "ste": "mnist-784-256-256-10",
    "bop2nd": "mnist-784-256-256-10-bop2nd",
    "ss-ema": "mnist-784-256-256-10-ss-ema",
    "ss-count": "mnist-784-256-256-10-ss-count",
    "ss-mem": "mnist-784-256-256-10-ss-mem",
    "conv": "mnist-conv-ss-count",
}


def main() -> int:
    """Copies what is there; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.jsonl"))
    parser.add_argument("--networks", type=Path, default=OUT, metavar="DIR", help="where runs.py has put them")
    parser.add_argument("--out", type=Path, default=MODELS, metavar="DIR", help="where to copy them")
    arguments = parser.parse_args()
    firsts = {r["name"]: r for r in read(arguments.results).values() if r["seed"] == 0 and "failed" not in r}
    missing = 0
    for row, name in PUBLISHED.items():
        source = arguments.networks / firsts[row]["network"] if row in firsts else None
        if source is None or not source.exists():
            print(
                f"{name}: not there; run: python case_studies/training/runs.py --only {row} --seeds 1", file=sys.stderr
            )
            missing += 1
            continue
        publish(name, firsts[row], source, arguments.out)
        print(f"{name}: test accuracy {firsts[row]['accuracy']['test']:.2%}")
    return 1 if missing else 0


def publish(name: str, record: Record, source: Path, out: Path) -> None:
    """Writes network and card."""
    shutil.copyfile(source, out / f"{name}.npz")
    about = card(
        name,
        native.load(source),
        command=f"python case_studies/training/runs.py --only {record['name']} --seeds 1 --force",
        selection={"by": "last epoch, seed 0; settings by validation accuracy"},
        epochs=record["epochs"],
        seconds=record["seconds"],
    )
    text = json.dumps(about, indent=2) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
