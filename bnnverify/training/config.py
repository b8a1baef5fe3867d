"""TrainingConfig: everything that determines a training run, apart from the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from bnnverify.errors import QueryError
from bnnverify.training.rules import RULES, SteSign, UpdateRule, rule_named

LOSSES = ("cross-entropy", "squared-hinge")


@dataclass(frozen=True, slots=True, repr=False)
class TrainingConfig:
    """How to train; the same config, data, machine and library versions give the same network.

    The defaults are those for `SteSign` on the digits; `for_rule` gives those for another rule.

    Attributes:
        hidden: Neurons of each hidden block; empty for a network of scores only.
        rule: Update rule of the binary weights.
        epochs: Passes over the training images.
        batch_size: Images per step; an incomplete last batch of an epoch is left out.
        learning_rate: Adam's step size for the real-valued parameters (batch norm, biases, output scale) at the
            start; it falls along half a cosine to a hundredth.
        batch_norm: Whether hidden blocks have batch norm. It is folded away at export.
        bias: Whether hidden blocks without batch norm learn a bias; with batch norm there is none.
        output_bias: Whether the scores learn a bias per class.
        loss: ``cross-entropy`` or ``squared-hinge``.
        noise: Probability with which each pixel of a training image is flipped, every time it is shown.
        seed: Of the one generator of all randomness.
    """

    hidden: tuple[int, ...] = (32,)
    rule: UpdateRule = field(default_factory=SteSign)
    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 0.01
    batch_norm: bool = False
    bias: bool = True
    output_bias: bool = True
    loss: str = "cross-entropy"
    noise: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            _require(_is_int(width) and width >= 1, "hidden", list(self.hidden), "positive integers")
        if isinstance(self.rule, str):
            raise QueryError(f"rule is the text {self.rule!r}, expected a rule. Use TrainingConfig.for_rule(name).")
        _require(_is_int(self.epochs) and self.epochs >= 1, "epochs", self.epochs, "a positive integer")
        _require(_is_int(self.batch_size) and self.batch_size >= 2, "batch_size", self.batch_size, "at least 2")
        _require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "above 0")
        _require(self.loss in LOSSES, "loss", repr(self.loss), f"one of: {', '.join(LOSSES)}")
        _require(0 <= self.noise < 0.5, "noise", self.noise, "a probability of at least 0 and below 1/2")
        _require(_is_int(self.seed) and 0 <= self.seed < 2**63, "seed", self.seed, "an integer from 0 to 2^63 - 1")

    @classmethod
    def for_rule(cls, name: str, *, options: Mapping[str, Any] | None = None, **changes: Any) -> TrainingConfig:
        """The config that suits the rule called `name`, with `changes` to it.

        Args:
            name: Short name of a rule, a key of `bnnverify.training.rules.RULES`.
            options: Hyper-parameters of the rule that differ from its defaults.
            **changes: Attributes of this class that differ from the rule's recipe.

        Raises:
            QueryError: An unknown rule, option or attribute, or a value out of range.

        >>> TrainingConfig.for_rule("ste", hidden=(20, 16), options={"decay": 0.1}, seed=3)
        TrainingConfig(hidden=(20, 16), rule=SteSign(decay=0.1), seed=3)
        """
        rule = rule_named(name, **(options or {}))
        known = [f.name for f in fields(cls)]
        for change in changes:
            _require(change in known and change != "rule", "the config", f"asked for {change!r}", ", ".join(known))
        return cls(rule=rule, **{**RULES[name].recipe, **changes})

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the config back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        options: dict[str, Any] = asdict(self.rule)  # type: ignore[call-overload]
        return {**values, "hidden": list(self.hidden), "rule": self.rule.name, "options": options}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The config that `as_json` wrote.

        Raises:
            QueryError: As `for_rule`.
        """
        rest = dict(values)
        return cls.for_rule(rest.pop("rule", SteSign.name), options=rest.pop("options", None), **rest)

    def __repr__(self) -> str:
        return _changes(self)


def _changes(value: Any) -> str:
    """A dataclass with only what differs from its defaults, and always its rule."""
    default = type(value)()
    parts = []
    for f in fields(value):
        now = getattr(value, f.name)
        if f.name == "rule":
            parts.append(f"rule={_changes(now)}")
        elif now != getattr(default, f.name):
            parts.append(f"{f.name}={now!r}")
    return f"{type(value).__name__}({', '.join(parts)})"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: bool, what: str, got: Any, expected: str) -> None:
    if not holds:
        raise QueryError(f"{what} is {got}, expected {expected}.")
