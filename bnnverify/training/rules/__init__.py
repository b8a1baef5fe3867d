"""Update rules: one file each, behind the small Protocol of `base.py`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from bnnverify.errors import QueryError
from bnnverify.training.rules.accumulators import ACCUMULATORS, Average, BatchSum, Counter, Memoryless, Memristors
from bnnverify.training.rules.base import Probe, RuleState, UpdateRule
from bnnverify.training.rules.bop import Bop
from bnnverify.training.rules.bop2nd import Bop2ndOrder
from bnnverify.training.rules.hardware import Hardware
from bnnverify.training.rules.latent import SteSign
from bnnverify.training.rules.pbop import PBop
from bnnverify.training.rules.schedules import Schedule
from bnnverify.training.rules.soft_bound import SoftBound
from bnnverify.training.rules.stochastic_switching import StochasticSwitching, Variant
from bnnverify.training.rules.undo import Undo

__all__ = [
    "RULES",
    "Average",
    "BatchSum",
    "Bop",
    "Bop2ndOrder",
    "Counter",
    "Hardware",
    "Memoryless",
    "Memristors",
    "PBop",
    "Probe",
    "RuleState",
    "Schedule",
    "SoftBound",
    "SteSign",
    "StochasticSwitching",
    "Undo",
    "UpdateRule",
    "rule_named",
    "rule_options",
]

RULES: dict[str, Any] = {rule.name: rule for rule in (SteSign, Bop, Bop2ndOrder, PBop)}
RULES |= {name: Variant(name) for name in ACCUMULATORS} | {SoftBound.name: SoftBound}


def rule_named(name: str, **options: Any) -> UpdateRule:
    """The update rule called `name`, with `options` in place of its default hyper-parameters.

    Raises:
        QueryError: No rule has this name, or the rule has no such option.

    >>> rule_named("ste", learning_rate=0.02).learning_rate
    Schedule(start=0.02, end=0.02, kind='constant', power=1.0, steps=2)
    """
    if not isinstance(name, str) or name not in RULES:
        raise QueryError(f"there is no update rule {name!r}, expected one of: {', '.join(RULES)}.")
    known = option_names(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise QueryError(f"the rule {name} has no option {unknown[0]!r}, expected one of: {', '.join(known)}.")
    rule: UpdateRule = RULES[name](**options)
    return rule


def option_names(name: str) -> list[str]:
    """The options of the rule called `name`."""
    entry = RULES[name]
    return entry.option_names if isinstance(entry, Variant) else [f.name for f in fields(entry)]


def rule_options(rule: UpdateRule) -> dict[str, Any]:
    """The hyper-parameters of a rule as plain JSON values; `rule_named` gives the rule back."""
    if isinstance(rule, StochasticSwitching):
        return rule.options
    return {f.name: _plain(getattr(rule, f.name)) for f in fields(rule)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return str(value)
    return value.to_json() if hasattr(value, "to_json") else value
