"""``bnnverify certify``: robust accuracy over a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnverify.cli.options import (
    all_image_options,
    deciding_engine_options,
    model_argument,
    numbers,
    output_options,
    ties_option,
)
from bnnverify.cli.verb import IMAGES, Verb

if TYPE_CHECKING:
    from bnnverify.certification import Asked
    from bnnverify.cli.images import Image
    from bnnverify.engines.base import Limits, Monitor
    from bnnverify.network import BinaryNetwork
    from bnnverify.query import Ties
    from bnnverify.regions import AnyRegion
    from bnnverify.results import Decision

EXAMPLES = """\b
Examples:
  bnnverify certify net.npz --data digits --radius 0:5 --out verdicts.jsonl
  bnnverify certify eevbnn.npz --data mnist --index 0:40 --eps 0.1,0.2,0.3 --ties robust --timeout 60 --jobs 2
  bnnverify certify pixels.npz --data mnist --index 0:100 --linf 1,2,4,8 --save counterexamples/
"""


@click.command(cls=Verb, epilog=EXAMPLES, rules=IMAGES)
@model_argument
@all_image_options
@click.option("--radius", metavar="LIST", help="Hamming radii, such as 0:5 or 1,2,4.")
@click.option("--linf", metavar="LIST", help="Distances from every pixel in units of the inputs, such as 1,2,4.")
@click.option("--eps", metavar="LIST", help="Distances from every pixel where white is 1, such as 0.1,0.3 or 8/255.")
@click.option(
    "--keep",
    type=click.Choice(["true", "predicted"]),
    default="true",
    show_default=True,
    help="The class that must not change: the true one, so that misclassified images count as not robust, or the "
    "network's own.",
)
@ties_option
@deciding_engine_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append every verdict there at once (JSON lines), and ask nothing again that it answers.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save counterexamples as .npy, .png and VNN-COMP text (see `verify`), in a folder per image and size.",
)
@output_options
def command(model: Path, **options: Any) -> int:
    """How many images of a data set are robust, at several sizes of perturbation?

    Every verdict is exact: robust is proved, and not-robust comes with an input that was replayed on the exact network.
    Images that stay unknown within --timeout leave an interval of robust accuracy, and the exit code is 3. With --out a
    run can be stopped and started again, and several runs may share a file.
    """
    from bnnverify.certification import VerdictStore, robust_accuracies
    from bnnverify.cli import questions as q
    from bnnverify.cli.images import choose
    from bnnverify.cli.models import load
    from bnnverify.cli.outputs import require_outputs
    from bnnverify.engines.portfolio import require_engine
    from bnnverify.query import Query, Ties, Untargeted

    file = options["input_file"]
    require_outputs({"--out": options["out"]}, folders={"--save": options["save"]}, inputs=[model, file and Path(file)])
    network = load(model)
    source = {name: options[name] for name in ("data", "data_dir", "split", "index", "input_file")}
    images = choose(network, **source, default="all")
    sizes = _sizes(network, options["radius"], options["linf"], options["eps"])
    limits = q.limits_of(options["timeout"], options["threads"], options["jobs"])
    ties, found = Ties(options["ties"]), list[Any]()
    asked_of = []
    for image in images.images:
        label = q.class_to_keep(options["keep"], image, network.evaluate(image.x))
        around = [(size, region(image)) for size, region in sizes]
        for _, region in around:
            require_engine(options["engine"], Query(network, region, Untargeted(label), ties))
        asked_of.append((image, label, around))
    with VerdictStore(options["out"]) as store:
        run = _Run(model, network, images, asked_of, ties, options["engine"], limits, store, options)
        try:
            for asked in run.verdicts():
                found.append(asked)
        except KeyboardInterrupt:
            run.conclude(robust_accuracies(found))
            kept = "and kept; the same command goes on from here" if options["out"] else "; --out FILE would keep them"
            many = f"{len(found)} of {len(images.images) * len(sizes)} verdicts are counted"
            raise KeyboardInterrupt(f"{many} {kept}".replace(" ;", ";")) from None
        accuracies = robust_accuracies(found)
        run.conclude(accuracies)
    return 3 if any(accuracy.unknown for accuracy in accuracies) else 0


@dataclass(frozen=True, slots=True)
class LadderQuestion:
    """All sizes of one image; travels to a process."""

    label: int
    regions: Sequence[tuple[str, AnyRegion]]
    ties: Ties
    engine: str
    limits: Limits
    known: Mapping[str, Decision]

    @property
    def breaks(self) -> bool:
        """False: the stages look at the monitor."""
        return False

    def answer(self, network: BinaryNetwork, monitor: Monitor) -> list[tuple[str, Decision, bool]]:
        """Verdicts as `certification.certify_image` gives them."""
        from bnnverify.certification import certify_image

        return certify_image(
            network,
            self.label,
            self.regions,
            ties=self.ties,
            engine=self.engine,
            limits=self.limits,
            monitor=monitor,
            known=self.known,
        )


def _sizes(network: BinaryNetwork, radius: str | None, linf: str | None, eps: str | None) -> list[tuple[str, Any]]:
    """Sizes as text, with the function from an image to the region; the smallest first.

    Raises:
        QueryError: None or two kinds are named, or the kind does not fit the network.
    """
    from bnnverify.cli.options import index_list
    from bnnverify.datasets.quantized import box_around
    from bnnverify.errors import QueryError
    from bnnverify.regions import HammingBall, PixelBox

    named = [name for name, text in (("--radius", radius), ("--linf", linf), ("--eps", eps)) if text is not None]
    if len(named) != 1:
        raise QueryError("expected exactly one of --radius LIST, --linf LIST and --eps LIST.")
    if network.domain.is_binary != (radius is not None):
        kind, other = ("-1/+1 inputs", "--radius") if network.domain.is_binary else ("pixels", "--linf or --eps")
        raise QueryError(f"the network takes {kind}, expected {other}, but {named[0]} is given.")
    if radius is not None:
        radii = sorted(index_list(radius, network.n_inputs + 1, "radius"))
        return [(str(r), lambda image, r=r: HammingBall(image.x, r)) for r in radii]
    if linf is not None:
        reach = int((network.domain.upper - network.domain.lower).max())
        steps = sorted(index_list(linf, reach + 1, "linf distance"))
        return [(str(r), lambda image, r=r: PixelBox.linf(image.x, r, network.domain)) for r in steps]
    assert eps is not None

    def box(image: Image, number: Any) -> Any:
        if image.pixels is None:
            raise QueryError("--eps is about grey values of a data set, expected --data NAME; or --linf for --input.")
        return box_around(network, image.pixels, number, white=image.white)

    return [(_text(e), lambda image, e=e: box(image, e)) for e in sorted(numbers(eps, "--eps"))]


def _text(value: Fraction) -> str:
    """A short decimal where that is exact, else numerator and denominator."""
    decimal = f"{float(value):g}"
    return decimal if Fraction(decimal) == value else str(value)


class _Run:
    """One command: asks, keeps and prints."""

    def __init__(
        self,
        model: Path,
        network: BinaryNetwork,
        images: Any,
        asked_of: Sequence[tuple[Image, int, Sequence[tuple[str, AnyRegion]]]],
        ties: Ties,
        engine: str,
        limits: Limits,
        store: Any,
        options: Mapping[str, Any],
    ) -> None:
        from bnnverify.cli.importing import correspondence_of
        from bnnverify.cli.lines import envelope

        self.network, self.images, self.asked_of = network, images, asked_of
        self.ties, self.engine, self.limits, self.store = ties, engine, limits, store
        self.jobs, self.quiet, self.as_json = options["jobs"], options["quiet"], options["as_json"]
        self.save, self.keep = options["save"], options["keep"]
        self.imported = None if self.save is None else correspondence_of(model)
        self.kind = next(name for name in ("radius", "linf", "eps") if options[name] is not None)
        self.shared = envelope("certify", model, network)
        if not self.as_json:
            click.echo(f"{model}  {network.architecture}  sha256 {network.identity[:16]}  |  {images.description}")

    def verdicts(self) -> Any:
        """Every verdict as it comes."""
        from bnnverify.certification import Asked, known_verdicts
        from bnnverify.cli.workers import answers

        questions = [
            LadderQuestion(
                label,
                around,
                self.ties,
                self.engine,
                self.limits,
                known_verdicts(self.store, self.network, label, around, self.ties, self.limits),
            )
            for _, label, around in self.asked_of
        ]
        stream = answers(self.network, questions, jobs=self.jobs, bar=not self.quiet, verb="certify")
        for (image, _, _), question, found in zip(self.asked_of, questions, stream, strict=False):
            for (size, region), (identity, decision, is_new) in zip(question.regions, found, strict=False):
                asked = Asked(image.index, question.label, size, identity, decision, is_new)
                if is_new:
                    about = {"network": self.network.identity, "data": self.images.description}
                    self.store.add(asked, self.limits.seconds, about)
                self.save_input(asked, region)
                yield asked

    def save_input(self, asked: Asked, region: AnyRegion) -> None:
        """The counterexample as files, if there is one and they are wanted."""
        from bnnverify.certificates import save_counterexample
        from bnnverify.query import Query, Untargeted

        if self.save is not None and asked.decision.counterexample is not None:
            query = Query(self.network, region, Untargeted(asked.label), self.ties)
            folder = self.save / f"{asked.image}-{asked.size.replace('/', 'over')}"
            save_counterexample(query, asked.decision.counterexample, folder, self.imported)

    def conclude(self, accuracies: Any) -> None:
        """The table, or one JSON line per size."""
        from bnnverify.cli.lines import emit

        if self.as_json:
            for accuracy in accuracies:
                question = {"size": accuracy.size, "kind": self.kind, "keep": self.keep, "ties": self.ties.value}
                shared = {**self.shared, "data": dict(self.images.provenance), "question": question}
                emit({**shared, "answer": accuracy.to_json()})
            return
        click.echo(f"\n{self.kind:>10}  images  robust  not robust  unknown  robust accuracy")
        for one in accuracies:
            low, high = (float(v) for v in one.bounds)
            share = f"{low:.2%}" if low == high else f"{low:.2%} to {high:.2%}"
            click.echo(
                f"{one.size:>10}  {one.images:>6}  {one.robust:>6}  {one.not_robust:>10}  {one.unknown:>7}  {share}"
            )
        click.echo("\nVerdicts are exact: proved, or replayed on the exact network.")
