"""Every public callable takes what numpy gives, answers in plain Python, and refuses what only looks like a number."""

import enum
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import bnnverify as bnn
from bnnverify import devices
from bnnverify.devices import PRESETS, PulseMenu
from bnnverify.errors import BnnVerifyError
from bnnverify.formats.onnxwriter import save as save_onnx
from bnnverify.results import Run

WEIGHTS = [[1, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, -1]]
SCORES = [[1, 1, -1], [-1, 1, 1]]
X = [1, -1, 1, 1]
IMAGES = [[1, -1, 1, 1], [-1, -1, 1, 1], [1, 1, 1, -1]]
NET = bnn.BinaryNetwork(
    bnn.InputDomain.binary(4), (bnn.DenseBlock.create(WEIGHTS, [0, 0, 2]),), bnn.OutputBlock.create(SCORES)
)
PIXELS = bnn.BinaryNetwork(bnn.InputDomain.integers([0] * 4, [9] * 4), NET.blocks, NET.output)
LABEL = NET.evaluate(X)
LABELS = NET.evaluate_batch(IMAGES).tolist()
QUERY = bnn.Query(NET, bnn.HammingBall(X, 4), bnn.Untargeted(LABEL))
FLIPS = bnn.BitFlip("1/16")
NORM = {"gamma": [1, 1, 1], "beta": [0, 0, 0], "mean": [0, 0, 0], "variance": [1, 1, 1], "epsilon": 0.25}
FILTERS = [[[[1, -1], [1, 1]]], [[[-1, -1], [1, 1]]]]
CELL = PRESETS["mtj"]

WRONG = {
    "integer": (True, np.bool_(True), 1.5, 1.0, np.float64(1), "1"),
    "real": (True, np.bool_(False), float("nan"), float("inf"), "one"),
    "flag": (1, "yes", None),
    "vector": ("1", np.array(["1"] * 4), [True] * 4),
}


class Given:
    """Hands out arguments as one kind of number, at most one of them replaced by a wrong value.

    Attributes:
        seen: What was asked for so far: a key of `WRONG` for each argument.
    """

    def __init__(self, folder, integer=int, real=float, vector=list, flag=bool, wrong=None):
        self.folder, self.seen, self.wrong = folder, [], wrong
        self.integer, self.real = self._of("integer", integer), self._of("real", real)
        self.flag, self.vector = self._of("flag", flag), self._of("vector", vector)

    def _of(self, name, kind):
        def give(value):
            self.seen.append(name)
            if self.wrong is not None and self.wrong[0] == len(self.seen) - 1:
                return self.wrong[1]
            return kind(value)

        return give

    def limits(self):
        return bnn.Limits(seconds=self.real(1024), nodes=self.integer(10**2), threads=self.integer(1))


def signed(kind):
    return lambda values: np.array(values, dtype=kind)


# Reals are such that every kind holds them exactly.
PLAIN = {}
KINDS = {
    "int8": {"integer": np.int8, "real": np.float64, "vector": signed(np.int8), "flag": np.bool_},
    "int16": {"integer": np.int16, "real": np.float16, "vector": signed(np.int16), "flag": np.bool_},
    "int32": {"integer": np.int32, "real": np.float32, "vector": signed(np.int32), "flag": np.bool_},
    "int64": {"integer": np.int64, "real": np.float64, "vector": signed(np.int64), "flag": np.bool_},
    "uint8": {"integer": np.uint8, "real": np.float32, "vector": lambda v: tuple(signed(np.int8)(v)), "flag": np.bool_},
    "no dimensions": {"integer": np.array, "real": np.array, "vector": signed(np.int64), "flag": np.array},
}


def diagram(g):
    made = bnn.compile_diagram(NET, bnn.FixedIndexRegion(X, (0, 1, 2, 3)), order=g.vector([0, 1, 2, 3]))
    fixed = {0: g.integer(1)}
    return (
        made.count(fixed),
        made.nearest([g.integer(LABEL)]),
        made.sample([g.integer(LABEL)], g.integer(2), seed=g.integer(5)),
        made.class_of(g.vector(X)),
    )


def certificate(g):
    query = bnn.Query(NET, bnn.HammingBall(g.vector(X), g.integer(4)), bnn.Untargeted(g.integer(LABEL)))
    folder = g.folder / "certificate"
    answer = bnn.write_certificate(query, folder, decision=bnn.decide(query))
    found = bnn.check_certificate(folder, NET, jobs=g.integer(1))
    assert found.holds, found.reason
    return answer, json.loads((folder / "certificate.json").read_text())["query"], found.verdict


def saved(g):
    network = bnn.BinaryNetwork(
        bnn.InputDomain.binary(g.integer(4)),
        (bnn.DenseBlock.create(WEIGHTS, g.vector([0, 0, 2])),),
        bnn.OutputBlock.create(SCORES),
    )
    bnn.save(network, g.folder / "saved.npz")
    return bnn.load(g.folder / "saved.npz")


def diagram_file(g):
    made = bnn.compile_diagram(NET, bnn.HammingBall(g.vector(X), g.integer(2)))
    bnn.save_diagram(made, g.folder / "diagram.dddmp")
    return made.identity, bnn.load_diagram(g.folder / "diagram.dddmp").identity


def imported(g):
    save_onnx(NET, g.folder / "net.onnx")
    return bnn.import_model(g.folder / "net.onnx").network


CALLS = {
    "AsymmetricFlip": lambda g: bnn.AsymmetricFlip(g.real(0.25), g.real(0.125)),
    "BinaryNetwork": saved,
    "BitFlip": lambda g: bnn.BitFlip(g.real(0.25)),
    "ClassDiagram": diagram,
    "ConvBlock": lambda g: bnn.ConvBlock.create(
        FILTERS,
        g.vector([0, 1]),
        input_shape=(g.integer(1), g.integer(3), g.integer(3)),
        stride=g.integer(1),
        padding=g.integer(1),
        pad_value=g.integer(0),
        pool=g.integer(1),
    ),
    "DenseBlock": lambda g: bnn.DenseBlock.create(WEIGHTS, g.vector([0, 0, 2])),
    "FixedIndexRegion": lambda g: bnn.FixedIndexRegion(g.vector(X), g.vector([0, 2])),
    "HammingBall": lambda g: bnn.HammingBall(g.vector(X), g.integer(2), g.vector([0, 1, 2])),
    "InputDomain": lambda g: (
        bnn.InputDomain.binary(g.integer(4), shape=g.vector([2, 2])),
        bnn.InputDomain.integers(g.vector([0, 0]), g.vector([3, 3])),
    ),
    "Limits": lambda g: g.limits(),
    "OutputBlock": lambda g: bnn.OutputBlock.create(SCORES, scale=g.real(0.5), bias=[g.real(0.25), g.real(1)]),
    "PerBlock": lambda g: (
        bnn.PerBlock.only(bnn.BitFlip(g.real(0.25)), g.integer(1), of=g.integer(2)),
        bnn.PerBlock.only(FLIPS, g.vector([0, 1]), of=2),
    ),
    "PerCell": lambda g: bnn.PerCell((bnn.BitFlip(g.real(0.25)), bnn.BitFlip(0))),
    "PerRead": lambda g: bnn.PerRead(bnn.BitFlip(g.real(0.25)), bnn.BitFlip(0)),
    "PixelBox": lambda g: (
        bnn.PixelBox(g.vector([0, 1]), g.vector([2, 3])),
        bnn.PixelBox.linf(g.vector([4, 4]), g.integer(2)),
    ),
    "Query": lambda g: bnn.Query(
        NET, bnn.HammingBall(g.vector(X), g.integer(1)), bnn.Targeted(g.integer(1)), bnn.Ties.ROBUST
    ),
    "RealBox": lambda g: bnn.RealBox([g.real(0.25), g.real(1)], g.vector([2, 3])),
    "StuckAt": lambda g: bnn.StuckAt(g.real(0.25), g.real(0.125)),
    "Targeted": lambda g: bnn.Targeted(g.integer(1)),
    "Untargeted": lambda g: bnn.Untargeted(g.integer(1)),
    "accuracy_curve": lambda g: list(
        bnn.accuracy_curve(
            NET, IMAGES, g.vector(LABELS), [FLIPS], tolerance=g.real(0.125), max_states=g.integer(64), jobs=g.integer(1)
        )
    ),
    "adversarial_inputs": lambda g: bnn.adversarial_inputs(QUERY, g.vector([0, 1])),
    "bit_flip_distance": lambda g: bnn.bit_flip_distance(NET, g.vector(X), g.integer(LABEL), max_flips=g.integer(5)),
    "block_sensitivity": lambda g: bnn.block_sensitivity(NET, IMAGES, g.vector(LABELS), FLIPS, seconds=g.real(1024)),
    "certified_range": lambda g: bnn.certified_range(
        NET, IMAGES, g.vector(LABELS), g.real(0.5), highest=g.real(0.5), ratio=g.real(1.5), seconds=g.real(1024)
    ),
    "check_certificate": certificate,
    "check_explanation": lambda g: bnn.check_explanation(QUERY, g.vector([0, 1, 2, 3]), limits=g.limits()),
    "chip_yield": lambda g: bnn.chip_yield([bnn.Probability.exact(Fraction(1, 4))] * 3, g.real(0.5)),
    "compile_diagram": diagram,
    "count_adversarial": lambda g: bnn.count_adversarial(QUERY, engine="enumeration", limits=g.limits()),
    "counts_by_radius": lambda g: (
        bnn.counts_by_radius(NET, g.vector(X), g.integer(2), label=g.integer(LABEL), by_class=g.flag(True)),
        bnn.counts_by_radius(NET, X, 2, target=g.integer(0), free=g.vector([0, 1, 3])),
    ),
    "critical_cells": lambda g: bnn.critical_cells(NET, g.vector(IMAGES), g.vector(LABELS), limits=g.limits()),
    "decide": lambda g: bnn.decide(QUERY, limits=g.limits(), jobs=g.integer(1)),
    "error_probability": lambda g: bnn.error_probability(
        NET,
        g.vector(X),
        g.integer(LABEL),
        FLIPS,
        tolerance=g.real(0.125),
        max_states=g.integer(64),
        seconds=g.real(1024),
    ),
    "essential_features": lambda g: bnn.essential_features(QUERY, seed=g.integer(1), limits=g.limits()),
    "exact_error_probability": lambda g: bnn.exact_error_probability(NET, g.vector(X), g.integer(LABEL), FLIPS),
    "expected_accuracy": lambda g: bnn.expected_accuracy(
        NET,
        g.vector(IMAGES),
        g.vector(LABELS),
        FLIPS,
        tolerance=g.real(0.125),
        max_states=g.integer(64),
        jobs=g.integer(2),
        seconds=g.real(1024),
    ),
    "fault_coefficients": lambda g: bnn.fault_coefficients(NET, g.vector(X), g.integer(LABEL), order=g.integer(2)),
    "fault_enumerator": lambda g: bnn.fault_enumerator(NET, g.vector(X), g.integer(LABEL)),
    "fold_block": lambda g: bnn.fold_block(WEIGHTS, **NORM | {"epsilon": g.real(0.25), "gamma": [g.real(0.5)] * 3}),
    "fold_conv_block": lambda g: bnn.fold_conv_block(
        FILTERS,
        **{key: value[:2] if isinstance(value, list) else value for key, value in NORM.items()},
        input_shape=g.vector([1, 3, 3]),
        input_reach=g.integer(1),
        stride=g.integer(1),
        padding=g.integer(1),
        pool=g.integer(1),
    ),
    "import_model": imported,
    "in_series": lambda g: bnn.in_series(bnn.BitFlip(g.real(0.25)), bnn.StuckAt(g.real(0.125), 0)),
    "linf_distance": lambda g: bnn.linf_distance(
        PIXELS, g.vector([4, 5, 6, 1]), label=g.integer(0), max_radius=g.integer(3), jobs=g.integer(1)
    ),
    "load": saved,
    "load_dataset": lambda g: (bnn.load_dataset("digits").name,),
    "load_diagram": diagram_file,
    "log_grid": lambda g: bnn.log_grid(g.real(0.125), g.real(0.5), g.integer(3)),
    "lowest_write_energy": lambda g: bnn.lowest_write_energy(
        CELL,
        NET,
        IMAGES,
        g.vector(LABELS),
        g.real(0.5),
        menu=PulseMenu.for_cell(CELL, levels=g.integer(2), lowest=g.real(0.5), highest=0.9999, width=1e-8),
        most_retries=g.integer(1),
        read_energy=g.real(0.0),
        reference_rate=g.real(0.125),
        tolerance=g.real(0.125),
        max_states=g.integer(64),
        jobs=g.integer(1),
    ),
    "maximal_safe_distance": lambda g: bnn.maximal_safe_distance(
        NET,
        g.vector(X),
        tolerance=g.real(0.125),
        label=g.integer(LABEL),
        max_radius=g.integer(3),
        free=g.vector([0, 1, 2, 3]),
    ),
    "minimum_adversarial_distance": lambda g: bnn.minimum_adversarial_distance(
        NET, g.vector(X), label=g.integer(LABEL), max_radius=g.integer(4), jobs=g.integer(1)
    ),
    "misclassification_probability": lambda g: (
        bnn.misclassification_probability(
            NET, g.vector(X), g.real(0.125), label=g.integer(LABEL), width=g.real(0.0), max_flips=g.integer(2)
        ),
        bnn.misclassification_probability(NET, X, [g.real(0.25), 0, "1/8", g.real(0.5)], width=0),
    ),
    "prime_implicant": lambda g: (
        bnn.prime_implicant(QUERY, order="random", seed=g.integer(2), limits=g.limits()),
        bnn.prime_implicant(QUERY, order=g.vector([3, 2, 1, 0])),
    ),
    "quantized_box": lambda g: bnn.quantized_box([g.real(0.25), 0, 1], g.real(0.125), g.real(0.25), high=g.real(1)),
    "robust_to_flips": lambda g: bnn.robust_to_flips(NET, g.vector(X), g.integer(1), g.integer(LABEL)),
    "sample_adversarial": lambda g: bnn.sample_adversarial(
        QUERY, g.integer(3), seed=g.integer(7), replacement=g.flag(True), allow_none=g.flag(False)
    ),
    "sample_chips": lambda g: bnn.sample_chips(
        NET,
        g.vector(IMAGES),
        g.vector(LABELS),
        FLIPS,
        chips=g.integer(20),
        seed=g.integer(3),
        confidence=g.real(0.875),
        jobs=g.integer(1),
        seconds=g.real(1024),
    ),
    "sample_errors": lambda g: bnn.sample_errors(
        NET,
        g.vector(IMAGES),
        g.vector(LABELS),
        FLIPS,
        samples=g.integer(20),
        seed=g.integer(3),
        confidence=g.real(0.875),
        jobs=g.integer(1),
        seconds=g.real(1024),
    ),
    "save": saved,
    "save_diagram": diagram_file,
    "summarize": lambda g: bnn.summarize(saved(g)),
    "tolerance_bracket": lambda g: bnn.tolerance_bracket(
        NET,
        IMAGES,
        g.vector(LABELS),
        g.real(0.5),
        lowest=g.real(0.125),
        highest=g.real(0.5),
        ratio=g.real(1.5),
        tolerance=g.real(0.125),
        max_states=g.integer(64),
        jobs=g.integer(1),
    ),
    "whole_cube": lambda g: bnn.whole_cube(g.integer(4), g.vector(X)),
    "write_certificate": certificate,
    "write_verified": lambda g: bnn.write_verified(FLIPS, g.integer(2)),
}

# Answers, which the package makes, and names through which no number comes in.
NO_NUMBERS = {
    "BnnVerifyError",
    "Count",
    "Decision",
    "Distance",
    "EssentialFeatures",
    "Explanation",
    "ExplanationCheck",
    "Kind",
    "Monitor",
    "NoiseError",
    "Probability",
    "Provenance",
    "RadiusCounts",
    "SafeDistance",
    "Samples",
    "Ties",
    "Verdict",
}


# Device models feed the fault models.
DEVICES = {
    "PulseCount": lambda g: devices.PulseCount(
        g.real(0.5), g.real(0.125), g.integer(3), g.integer(4), direction=g.integer(1)
    ),
    "PulseMenu": lambda g: (
        devices.PulseMenu(g.vector([1, 2]), [g.real(0.5), g.real(0.25)]).quantised(width_step=g.real(0.125)),
        devices.PulseMenu.for_cell(CELL, levels=g.integer(3), lowest=g.real(0.25), highest=g.real(0.5)),
    ),
    "Retention": lambda g: devices.Retention(64.0, 128.0).faults(g.real(2)),
    "ThermallyActivated": lambda g: devices.ThermallyActivated(
        tau0=g.real(0.125), delta=g.real(40), critical_voltage=g.real(0.5)
    ),
    "Write": lambda g: devices.Write(
        CELL, g.real(0.5), g.real(2**-10), retries=g.integer(1), before=(g.real(0.5), 0), read_energy=g.real(0.125)
    ),
    "read_disturb": lambda g: devices.read_disturb(
        CELL, g.real(0.25), g.real(2**-10), reads=g.integer(3), direction=g.integer(1)
    ),
    "write_error": lambda g: devices.write_error(
        CELL, g.real(0.5), g.real(2**-10), direction=g.integer(1), retries=g.integer(1)
    ),
}
EVERY_CALL = CALLS | DEVICES


def content(value, where="answer"):
    """The value without times; fails if anything of numpy is inside that is not declared to be an array."""
    if isinstance(value, enum.Enum | Path) or value is None:
        return value
    if isinstance(value, bnn.BinaryNetwork):
        assert type(value.domain.shape) is tuple and {type(size) for size in value.domain.shape} == {int}, where
        return value.identity
    if is_dataclass(value):
        found = []
        for field in fields(value):
            inner = getattr(value, field.name)
            if "Array" in str(field.type):
                found.append([array.tolist() for array in (inner if isinstance(inner, tuple) else [inner])])
            else:
                found.append(content(inner, f"{where}.{field.name}"))
        if isinstance(value, Run):
            return value.reason
        names = [field.name for field in fields(value)]
        return type(value).__name__, [item for name, item in zip(names, found, strict=True) if name != "seconds"]
    if isinstance(value, Mapping):
        return {content(key, where): content(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [content(item, f"{where}[{i}]") for i, item in enumerate(value)]
    assert type(value) in (int, float, bool, str, bytes, Fraction) or type(value).__module__.startswith("bnnverify"), (
        f"{where} is {value!r} of {type(value)}"
    )
    return value


def written(value):
    """Dumps what has `to_json`, alone or in a list."""
    for item in value if isinstance(value, tuple | list) else [value]:
        if hasattr(item, "to_json"):
            json.dumps(item.to_json())


def test_every_public_name_is_called_here():
    assert set(CALLS) | NO_NUMBERS == set(bnn.__all__) and not set(CALLS) & NO_NUMBERS


@pytest.mark.parametrize("name", EVERY_CALL)
def test_numbers_of_numpy_give_the_answer_of_plain_ones(name, tmp_path):
    folders = {kind: tmp_path / kind for kind in ("plain", *KINDS)}
    for folder in folders.values():
        folder.mkdir()
    expected = EVERY_CALL[name](Given(folders["plain"]))
    for kind, make in KINDS.items():
        answer = EVERY_CALL[name](Given(folders[kind], **make))
        written(answer)
        assert content(answer) == content(expected), kind


@pytest.mark.parametrize("name", EVERY_CALL)
def test_what_only_looks_like_a_number_is_refused(name, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    counted = Given(plain)
    EVERY_CALL[name](counted)
    for place, argument in enumerate(counted.seen):
        for i, wrong in enumerate(WRONG[argument]):
            folder = tmp_path / f"{place}-{i}"
            folder.mkdir()
            with pytest.raises(BnnVerifyError, match="expected"):
                EVERY_CALL[name](Given(folder, wrong=(place, wrong)))
