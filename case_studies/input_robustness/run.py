"""Does the way of training change robustness to input noise? Certified answers, figures, and the page README.md.

Every answer is kept in answers.jsonl and asked once; an interrupted run goes on with the same command. Delete the file
to ask anew.

    python case_studies/input_robustness/run.py [--seconds 5]
    python case_studies/input_robustness/run.py --quick       (a minute or two, into out/input_robustness)
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import page
import pictures
from questions import SUBJECTS, Answers, Asker, ask

from bnnverify.datasets import load
from bnnverify.errors import BnnVerifyError, QueryError

HERE = Path(__file__).resolve().parent


def main(words: Sequence[str] | None = None) -> int:
    """Asks what is not yet answered, draws, writes the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="data set of the test images; default: mnist")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the image files are; default: data")
    parser.add_argument("--images", type=int, metavar="N", help="at most the first N test images")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each question; default: 5")
    parser.add_argument("--networks", nargs="+", metavar="FILE", help="ask these alone, and write no page")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the folder of this script")
    parser.add_argument("--quick", action="store_true", help="three images, half a second: to see that it runs")
    arguments = parser.parse_args(words)
    try:
        _study(arguments)
    except BnnVerifyError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run.py: interrupted; the same command goes on.", file=sys.stderr)
        return 130
    return 0


def _study(arguments: argparse.Namespace) -> None:
    quick = arguments.quick
    out = arguments.out or (Path("out/input_robustness") if quick else HERE)
    seconds, images = (0.5, 3) if quick else (arguments.seconds, arguments.images)
    chosen = [s for s in SUBJECTS if arguments.networks is None or s.file in arguments.networks]
    if not chosen:
        known = ", ".join(s.file for s in SUBJECTS)
        raise QueryError(f"--networks names {', '.join(arguments.networks)}, expected some of: {known}.")
    dataset = load(arguments.data, directory=arguments.data_dir)
    answers = Answers(out / "answers.jsonl")
    askers = [Asker(subject, dataset, answers, seconds, images) for subject in chosen]
    ask(askers)
    if arguments.networks is not None:
        return
    (out / "figures").mkdir(parents=True, exist_ok=True)
    pictures.write(pictures.curves(askers), out / "figures" / "robust_accuracy.png")
    pictures.write(pictures.examples(askers), out / "figures" / "counterexamples.png")
    target = out / "README.md"
    if target != HERE / "README.md":
        shutil.copyfile(HERE / "README.md", target)
    text = target.read_text("utf-8")
    for marker, section in page.SECTIONS.items():
        text = page.between_markers(text, marker, section(askers))
    target.write_text(text, encoding="utf-8")
    print(f"{target} and {out / 'figures'} are written.")


if __name__ == "__main__":
    sys.exit(main())
