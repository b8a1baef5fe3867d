"""The cases of the counting benchmark: a network, an input, a region, and what is published about the count.

A folder of BNNQuanalyst has `models/NAME/`, `inputs/instance_K_N.txt` (one input of N bits), files
`inputs/fixed*N_M.txt` that list the inputs that vary, and `results.jsonl`: one line for each measured Hamming ball.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bnnverify
from bnnverify.cli.images import choose
from bnnverify.cli.options import index_list_or_file
from bnnverify.regions import FixedIndexRegion, HammingBall, Region, whole_cube

MODELS = Path(__file__).resolve().parents[2] / "models"

# Networks of models/, the data set of their images, radii, and lists of inputs that vary.
OWN = (
    ("digits-64-32-10", "digits", (2, 3, 4, 5), ("0:16", "20:44")),
    ("digits-64-20-16-10", "digits", (2, 3, 4, 5), ("0:16", "20:44")),
    ("digits-64-100-10", "digits", (2, 3, 4), ("0:16",)),
    ("mnist-784-100-10", "mnist", (1, 2), ("300:316",)),
    ("mnist-784-256-256-10", "mnist", (1,), ("300:316",)),
)

# Beyond what the peer finished: parts of a model's name, instances, radii.
GOALS: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (
    ("1_blk_100_50_10", (0, 7), (5, 6)),
    ("2_blk_100_50_20_10", (0, 7), (5, 6)),
    ("1_blk_784_100_10", tuple(range(10)), (2, 3)),
    ("1_blk_64_10_10", (0,), (8, 10)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One count: the inputs of a region whose class is not the network's own class of the instance.

    Attributes:
        model: Path of the network.
        instance: Path of a file with one input, or a data set and an index of its test split: `digits 0`.
        radius: Of a Hamming ball; None for another region.
        free: List or file of the inputs that vary, with `radius` None; None for the whole cube.
        region_size: Published number of inputs, or None; likewise `adversarial` and `per_class`.
        peer_finished: Whether the peer finished it; None if nobody tried.
        peer_seconds: What the peer took, s.
    """

    model: str
    instance: str
    radius: int | None = None
    free: str | None = None
    region_size: int | None = None
    adversarial: int | None = None
    per_class: tuple[int, ...] | None = None
    peer_finished: bool | None = None
    peer_seconds: float | None = None

    @property
    def region(self) -> str:
        """The region in a word or two."""
        if self.radius is not None:
            return f"radius {self.radius}"
        if self.free is None:
            return "whole cube"
        is_file = self.free.endswith(".txt")
        return "free " + (re.sub(r"fixed.set.file.", "", Path(self.free).stem) if is_file else self.free)

    @property
    def name(self) -> str:
        """What `--rows` looks at: model, instance and region."""
        instance = Path(self.instance)
        return f"{Path(self.model).name} {instance.stem if instance.suffix else instance} {self.region}"

    def to_json(self) -> str:
        """One line of text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The case that `to_json` wrote."""
        data = json.loads(text)
        per_class = data.pop("per_class")
        return cls(**data, per_class=None if per_class is None else tuple(per_class))

    def query(self) -> bnnverify.Query:
        """The question, with everything read anew."""
        network = bnnverify.load(self.model)
        x = _input(network, self.instance)
        return bnnverify.Query(network, self._around(x), bnnverify.Untargeted(network.evaluate(x)))

    def _around(self, x: tuple[int, ...]) -> Region:
        if self.radius is not None:
            return HammingBall(x, self.radius)
        if self.free is not None:
            return FixedIndexRegion(x, tuple(index_list_or_file(self.free, len(x), "input")))
        return whole_cube(len(x))


def tiny(query: bnnverify.Query) -> bnnverify.Query:
    """The same question about a region of the same kind with few inputs."""
    region: Region = query.region
    if isinstance(region, HammingBall):
        region = HammingBall(region.center, min(region.radius, 2 if region.n <= 200 else 1), region.free)
    else:
        region = FixedIndexRegion(region.center, region.free[:10])
    return bnnverify.Query(query.network, region, query.property, query.ties)


def _input(network: bnnverify.BinaryNetwork, instance: str) -> tuple[int, ...]:
    name, _, index = instance.partition(" ")
    if name in ("digits", "mnist") and index:
        return choose(network, data=name, split="test", index=index, input_file=None).images[0].x
    return choose(network, data=None, split="test", index="0", input_file=instance).images[0].x


def own_cases() -> Iterator[Case]:
    """Cases over the networks of models/."""
    for name, data, radii, lists in OWN:
        model = str(MODELS / f"{name}.npz")
        for radius in radii:
            yield Case(model=model, instance=f"{data} 0", radius=radius)
        for free in lists:
            yield Case(model=model, instance=f"{data} 0", free=free)


def peer_cases(folder: Path) -> Iterator[Case]:
    """The rows of `results.jsonl`."""
    for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        yield Case(
            model=str(folder / "models" / row["model"]),
            instance=str(folder / "inputs" / f"{row['instance']}.txt"),
            radius=row["radius"],
            region_size=row["region_size"],
            adversarial=row["adversarial"],
            per_class=None if row["per_class"] is None else tuple(row["per_class"]),
            peer_finished=row["peer_finished"],
            peer_seconds=row["peer_seconds"],
        )


def goal_cases(folder: Path) -> Iterator[Case]:
    """Larger balls, the whole cube of 36 inputs, and every fixed-set file with every network that it fits."""
    models = sorted((folder / "models").iterdir())
    for part, instances, radii in GOALS:
        for model in (m for m in models if m.name.endswith(part)):
            for instance in instances:
                for radius in radii:
                    yield Case(model=str(model), instance=_instance(folder, instance, model), radius=radius)
    for model in models:
        n = _inputs_of(model)
        if n == 36:
            yield Case(model=str(model), instance=_instance(folder, 0, model))
        for file in sorted((folder / "inputs").glob("fixed*.txt")):
            meant = re.search(r"random_(\d+)_", file.name)
            fits = int(meant[1]) == n if meant else max(map(int, file.read_text().split())) < n
            if fits:
                yield Case(model=str(model), instance=_instance(folder, 0, model), free=str(file))


def _inputs_of(model: Path) -> int:
    """Inputs of a model: the first number after `blk` in the name of its folder."""
    found = re.search(r"blk_(\d+)", model.name)
    return int(found[1]) if found else 0


def _instance(folder: Path, number: int, model: Path) -> str:
    return str(folder / "inputs" / f"instance_{number}_{_inputs_of(model)}.txt")
