"""TrainingConfig: everything that determines a training run, apart from the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any

from bnnverify.errors import QueryError
from bnnverify.faults import AsymmetricFlip, BitFlip, FaultModel, PerBlock, StuckAt, fault_model_from_json
from bnnverify.training.architecture import PRESETS, Conv, Layer, hidden_layers
from bnnverify.training.faults import DRAWS
from bnnverify.training.losses import LOSSES
from bnnverify.training.rules import RULES, Schedule, SteSign, UpdateRule, rule_named, rule_options
from bnnverify.training.rules.base import is_number, plain_fields

INPUTS = ("binary", "pixels")
SELECTIONS = ("best", "final")


@dataclass(frozen=True, slots=True, repr=False)
class TrainingConfig:
    """How to train; the same config, data and library versions give the same network, at any number of threads.

    The defaults are those for `SteSign` on the digits; `for_rule` gives those for another rule. Hyper-parameters of
    the rule that are None are open: the training sets them by its number of steps, see `for_steps`.

    Attributes:
        hidden: Hidden blocks: neurons of a dense block, or `Conv`; empty for a network of scores only. Also text such
            as ``16c5p2,128`` or the name of a preset.
        rule: Update rule of the binary weights.
        epochs: Passes over the training images.
        batch_size: Images per step; an incomplete last batch of an epoch is left out.
        learning_rate: Adam's step size for the real-valued parameters (batch norm, biases, output scale) at the
            start; it falls along half a cosine to a hundredth.
        batch_norm: Whether hidden blocks have batch norm. It is folded away at export.
        bias: Whether hidden blocks without batch norm learn a bias; with batch norm there is none. Without either,
            all thresholds are zero (up to the shifts).
        output_bias: Whether the scores learn a bias per class.
        output_scale: Whether the scores learn their common scale. It changes no class, only the loss. The loss
            ``margin-hinge`` takes plain sums: there the scale is 1.
        input: What the first block reads: ``binary`` images, or ``pixels``, integers of 0 to 255 (16 for the digits).
        x_shift: Shift of every hidden sign and its gradient window, in units of what the sign is taken of.
        y_shift: Shift of the threshold inside the window, within (-1, 1).
        loss: ``cross-entropy``, ``squared-hinge`` or ``margin-hinge``.
        margin: b of the loss ``margin-hinge``, in units of the output sums.
        noise: Probability with which each binary input of a training image is flipped, every time it is shown.
            Pixels have none: for them `for_rule` takes 0 where nothing is given.
        move: Training images are moved by up to so many pixels in each direction, at random every time they are shown;
            background (-1, or pixel 0) moves in.
        adversarial: Every training image is changed against the network as it is, by one step along the gradient
            of the loss: each pixel moves by so much, or so many binary inputs flip. 0 leaves images as they are.
        faults: Fault model of the cells that training passes read, or None. Evaluations read the cells without
            faults.
        fault_draw: ``chip``: one draw of the faults for the whole run. ``step``: a new one for every pass.
        select: ``best``: the epoch with the highest validation accuracy is kept. ``final``: the last.
        train_on_validation: Whether the validation images are training images too; needs ``select="final"``.
        seed: Of the one generator of all randomness.
    """

    hidden: tuple[Layer, ...] = (32,)
    rule: UpdateRule = field(default_factory=SteSign)
    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 0.01
    batch_norm: bool = False
    bias: bool = True
    output_bias: bool = True
    output_scale: bool = True
    input: str = "binary"
    x_shift: float = 0.0
    y_shift: float = 0.0
    loss: str = "cross-entropy"
    margin: float = 128.0
    noise: float = 0.02
    move: int = 0
    adversarial: int = 0
    faults: FaultModel | None = None
    fault_draw: str = "step"
    select: str = "best"
    train_on_validation: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "hidden", hidden_layers(self.hidden))
        if isinstance(self.rule, str):
            raise QueryError(f"rule is the text {self.rule!r}, expected a rule. Use TrainingConfig.for_rule(name).")
        for name in ("learning_rate", "x_shift", "y_shift", "margin", "noise"):
            value = getattr(self, name)
            _require(is_number(value), name, f"{value!r:.80}", "a number")
        for name in ("batch_norm", "bias", "output_bias", "output_scale", "train_on_validation"):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, f"{value!r:.80}", "True or False")
        _require(_is_int(self.epochs) and self.epochs >= 1, "epochs", self.epochs, "a positive integer")
        _require(_is_int(self.batch_size) and self.batch_size >= 2, "batch_size", self.batch_size, "at least 2")
        _require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0")
        _require(self.input in INPUTS, "input", repr(self.input), f"one of: {', '.join(INPUTS)}")
        _require(math.isfinite(self.x_shift), "x_shift", self.x_shift, "a finite number")
        _require(-1 < self.y_shift < 1, "y_shift", self.y_shift, "above -1 and below 1")
        _require(self.loss in LOSSES, "loss", repr(self.loss), f"one of: {', '.join(LOSSES)}")
        _require(0 < self.margin < math.inf, "margin", self.margin, "above 0")
        _require(0 <= self.noise < 0.5, "noise", self.noise, "a probability of at least 0 and below 1/2")
        _require(self.noise == 0 or self.input == "binary", "noise", self.noise, "0 where the input is pixels")
        _require(_is_int(self.move) and 0 <= self.move <= 100, "move", self.move, "a number of pixels of 0 to 100")
        fine = _is_int(self.adversarial) and 0 <= self.adversarial <= 255
        _require(fine, "adversarial", self.adversarial, "a number of pixel steps or flips of 0 to 255")
        kinds = (BitFlip, AsymmetricFlip, StuckAt, PerBlock)
        known = self.faults is None or isinstance(self.faults, kinds)
        _require(known, "faults", repr(self.faults), "a fault model such as BitFlip('0.01')")
        blocks = len(self.hidden) + 1
        fitting = not isinstance(self.faults, PerBlock) or len(self.faults.models) == blocks
        _require(fitting, "faults", repr(self.faults), f"one model for each of the {blocks} blocks, output included")
        _require(self.fault_draw in DRAWS, "fault_draw", repr(self.fault_draw), f"one of: {', '.join(DRAWS)}")
        _require(self.select in SELECTIONS, "select", repr(self.select), f"one of: {', '.join(SELECTIONS)}")
        fair = not self.train_on_validation or self.select == "final"
        _require(fair, "select", repr(self.select), "'final' where the validation images are training images")
        first = self.hidden[0] if self.hidden else None
        padding = first.padding if isinstance(first, Conv) else 0
        _require(self.input != "pixels" or not padding, f"padding of {first}", padding, "0 where it reads pixels")
        _require(_is_int(self.seed) and 0 <= self.seed < 2**63, "seed", self.seed, "an integer from 0 to 2^63 - 1")

    @classmethod
    def for_rule(cls, name: str, *, options: Mapping[str, Any] | None = None, **changes: Any) -> TrainingConfig:
        """The config that suits the rule called `name`, with `changes` to it.

        Args:
            name: Short name of a rule, a key of `bnnverify.training.rules.RULES`.
            options: Hyper-parameters of the rule that differ from its defaults.
            **changes: Attributes of this class that differ from the rule's recipe. The name of a preset for `hidden`
                also brings its batch norm.

        Raises:
            QueryError: An unknown rule, option or attribute, or a value out of range.

        >>> TrainingConfig.for_rule("ste", hidden=(20, 16), options={"init": 0.1}, seed=3)
        TrainingConfig(hidden=(20, 16), rule=SteSign(init=0.1), seed=3)
        """
        _require(options is None or isinstance(options, Mapping), "options", f"{options!r:.80}", "an object of them")
        rule = rule_named(name, **(options or {}))
        known = [f.name for f in fields(cls)]
        for change in changes:
            _require(change in known and change != "rule", "the config", f"asked for {change!r}", ", ".join(known))
        hidden = changes.get("hidden")
        if isinstance(hidden, str) and hidden in PRESETS:
            changes.setdefault("batch_norm", PRESETS[hidden][1])
        if isinstance(changes.get("faults"), Mapping):
            changes["faults"] = fault_model_from_json(changes["faults"])
        if changes.get("input") == "pixels":
            changes.setdefault("noise", 0.0)
        return cls(rule=rule, **{**RULES[name].recipe, **changes})

    def for_steps(self, steps: int, inputs: int = 64) -> TrainingConfig:
        """The config with every open hyper-parameter of the rule set to what suits so many steps.

        Args:
            steps: Of the training.
            inputs: Weights of a neuron of the first block.
        """
        return replace(self, rule=self.rule.for_steps(steps, inputs))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the config back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        hidden = [layer if isinstance(layer, int) else str(layer) for layer in self.hidden]
        faults = None if self.faults is None else self.faults.to_json()
        names = {"rule": self.rule.name, "options": rule_options(self.rule)}
        return {**values, "hidden": hidden, "faults": faults, **names}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The config that `as_json` wrote.

        Raises:
            QueryError: As `for_rule`.
        """
        rest = dict(values)
        return cls.for_rule(rest.pop("rule", SteSign.name), options=rest.pop("options", None), **rest)

    def __repr__(self) -> str:
        return changed(self)


def changed(value: Any) -> str:
    """A dataclass with only what differs from its defaults, its parts likewise, and always its rule."""
    parts = []
    for f in fields(value):
        now = getattr(value, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if f.name == "rule" or now != default:
            parts.append(f"{f.name}={_shown(now)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def _shown(value: Any) -> str:
    if isinstance(value, Schedule):
        return str(value)
    ours = is_dataclass(value) and type(value).__module__.startswith("bnnverify.training.rules")
    return changed(value) if ours else repr(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: Any, what: str, got: Any, expected: str) -> None:
    if not holds:
        raise QueryError(f"{what} is {got}, expected {expected}.")
