"""Update rules: one file each, behind the small Protocol of `base.py`."""

from __future__ import annotations

from typing import Any

from bnnverify.errors import QueryError
from bnnverify.training.rules.base import RuleState, UpdateRule
from bnnverify.training.rules.latent import SteSign
from bnnverify.training.rules.stochastic_switching import StochasticSwitching

__all__ = ["RULES", "RuleState", "SteSign", "StochasticSwitching", "UpdateRule", "rule_named"]

RULES: dict[str, type[SteSign] | type[StochasticSwitching]] = {
    rule.name: rule for rule in (SteSign, StochasticSwitching)
}


def rule_named(name: str, **options: Any) -> UpdateRule:
    """The update rule called `name`, with `options` in place of its default hyper-parameters.

    Raises:
        QueryError: No rule has this name, or the rule has no such option.

    >>> rule_named("ste", learning_rate=0.02)
    SteSign(learning_rate=0.02, decay=0.01, init=1.0, average=0.99)
    """
    if name not in RULES:
        raise QueryError(f"there is no update rule {name!r}, expected one of: {', '.join(RULES)}.")
    known = RULES[name].__dataclass_fields__
    unknown = [option for option in options if option not in known]
    if unknown:
        raise QueryError(f"the rule {name} has no option {unknown[0]!r}, expected one of: {', '.join(known)}.")
    return RULES[name](**options)
