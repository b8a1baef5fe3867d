"""How many write errors may a memristor BNN have? Certified answers, figures, and the page README.md.

Every accuracy is asked once and kept in answers.jsonl; Ctrl-C loses nothing but the question at work, and the same
command goes on. `--again` asks anew, for instance with a better engine.

    python case_studies/write_errors/run.py [--images 1000] [--jobs 2] [--again]
    python case_studies/write_errors/run.py --quick                      (a minute, into out/write_errors)
    python case_studies/write_errors/run.py --data digits --out out/digits  (another trial; needs no files)
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import page
import pictures
from answers import Answers
from energy import PROGRAMMINGS
from questions import Asker, Effort, Subject
from settings import CLAIMED, INJECTED, MRAM_RATE, NETWORKS, PLAIN, RATES, RRAM_PLAIN_RATE, RRAM_RATE, SAMPLED

from bnnverify.datasets import load
from bnnverify.errors import BnnVerifyError, QueryError
from bnnverify.faults import BitFlip

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "README.md"
QUICK: dict[str, Any] = {
    "images": 20,
    "whole": 40,
    "chips": 100,
    "tolerance": 1e-2,
    "max_states": 64,
    "seconds": 0.5,
    "networks": [PLAIN, INJECTED],
    "out": Path("out/write_errors"),
}
BLOCK_RATE = Fraction(1, 100)


def ask(askers: Mapping[str, Asker]) -> None:
    """The questions in the order of their worth, so that an interrupted run has the first figure first."""
    for p in (MRAM_RATE, RRAM_PLAIN_RATE):
        for asker in askers.values():
            asker.many(p).proved(BitFlip(p))
    for p in (*CLAIMED, *RATES):
        for asker in askers.values():
            asker.proved(BitFlip(p))
    for p in SAMPLED:
        for asker in askers.values():
            asker.sampled(BitFlip(p))


def draw(askers: Mapping[str, Asker], folder: Path) -> None:
    """The figures."""
    bands = []
    for asker in askers.values():
        proved = {float(p): (float(a.lower), float(a.upper)) for p, a in asker.band() if p > 0}
        sampled = {}
        for p in SAMPLED:
            drawn = asker.sampled(BitFlip(p))
            mean = tuple(float(v) for v in (drawn.accuracy.estimate, drawn.accuracy.lower, drawn.accuracy.upper))
            sampled[float(p)] = pictures.Chips(*mean, float(drawn.low), float(drawn.high))
        bands.append(pictures.Band(page.title(asker), float(asker.subject.clean), proved, sampled))
    claims = {"RRAM": RRAM_PLAIN_RATE, "ST-MRAM": MRAM_RATE, "RRAM, trained": RRAM_RATE}
    pictures.write(pictures.accuracy(bands, {name: float(p) for name, p in claims.items()}), folder / "accuracy")

    lost: dict[str, dict[str, tuple[float, float]]] = {}
    for asker in askers.values():
        clean, count = asker.subject.clean, len(asker.subject.network.blocks) + 1
        names = [f"hidden block {b + 1} alone" if count > 2 else "hidden block alone" for b in range(count - 1)]
        answers = [asker.only(b, BLOCK_RATE) for b in range(count)] + [asker.proved(BitFlip(BLOCK_RATE))]
        places = zip([*names, "output block alone", "all blocks"], answers, strict=True)
        lost[page.title(asker)] = {name: (float(clean - a.upper), float(clean - a.lower)) for name, a in places}
    pictures.write(pictures.blocks(lost, float(BLOCK_RATE)), folder / "blocks")

    shown = askers.get(PLAIN, next(iter(askers.values())))
    loss = {
        float(p): (float(shown.subject.clean - a.upper), float(shown.subject.clean - a.lower)) for p, a in shown.band()
    }
    panels: dict[str, list[pictures.Cost]] = {}
    for programming in PROGRAMMINGS:
        joules = {float(p): programming.energy(p) for p in (*RATES, *CLAIMED)}
        panels.setdefault(programming.cell, []).append(pictures.Cost(programming.title, joules))
    figure = pictures.energy({f"{cell} cell": costs for cell, costs in panels.items()}, loss, page.title(shown))
    pictures.write(figure, folder / "energy")


def main(words: Sequence[str] | None = None) -> int:
    """Asks what is not yet answered, draws, writes the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=NETWORKS, default="mnist", help="default: mnist")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the image files are; default: data")
    parser.add_argument("--images", type=int, metavar="N", help="the first N test images; default: 1000")
    parser.add_argument("--whole", type=int, metavar="N", help="the same for rates up to 0.001; default: all")
    parser.add_argument("--networks", nargs="+", metavar="ROLE", help="these alone: norm, plain, switching, ...")
    parser.add_argument("--chips", type=int, metavar="N", help="chips drawn at random; default: 10000")
    parser.add_argument("--tolerance", type=float, metavar="W", help="for each image; default: by the rate")
    parser.add_argument("--max-states", type=int, metavar="N", help="most work for each image; default: by the rate")
    parser.add_argument("--seconds", type=float, metavar="S", help="limit for each proved accuracy; then wider")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="threads; default: 2")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the folder of this script")
    parser.add_argument("--again", action="store_true", help="ask anew what is answered")
    parser.add_argument("--quick", action="store_true", help="few images, little work: to see that it runs")
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
    def chosen(name: str, usual: Any) -> Any:
        given = getattr(arguments, name)
        return given if given is not None else QUICK[name] if arguments.quick else usual

    out = chosen("out", HERE)
    if arguments.data != "mnist" and out == HERE:
        out = Path("out") / f"write_errors-{arguments.data}"
    effort = Effort(
        tolerance=chosen("tolerance", None),
        max_states=chosen("max_states", None),
        seconds=chosen("seconds", None),
        chips=chosen("chips", 10_000),
        jobs=arguments.jobs,
    )
    dataset = load(arguments.data, directory=arguments.data_dir)
    answers = Answers(out / "answers.jsonl", again=arguments.again)
    askers, roles = {}, chosen("networks", [trained.role for trained in NETWORKS[arguments.data]])
    for trained in NETWORKS[arguments.data]:
        if trained.role in roles:
            subject = Subject.load(trained, dataset, chosen("images", 1000))
            whole = Subject.load(trained, dataset, chosen("whole", len(dataset.test.labels)))
            askers[trained.role] = Asker(subject, answers, effort, _tell, whole)
    if not askers:
        known = ", ".join(trained.role for trained in NETWORKS[arguments.data])
        raise QueryError(f"--networks names {', '.join(roles)}, expected some of: {known}.")
    next(iter(askers.values())).warm_up()
    ask(askers)
    write_page(askers, out)
    draw(askers, out / "figures")
    print(f"{out / 'README.md'} and {out / 'figures'} are written.")


def write_page(askers: Mapping[str, Asker], out: Path) -> None:
    """README.md with every section computed anew."""
    target = out / TEMPLATE.name
    if target != TEMPLATE:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TEMPLATE, target)
    text = target.read_text(encoding="utf-8")
    for marker, section in page.SECTIONS.items():
        text = page.between_markers(text, marker, section(askers))
    target.write_text(text, encoding="utf-8")


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
