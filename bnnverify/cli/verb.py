"""Verb: a command that refuses what it cannot honour before any work: options given twice, or that contradict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from bnnverify.errors import QueryError


@dataclass(frozen=True, slots=True)
class Needs:
    """An option or argument that says nothing without another one.

    Attributes:
        name: Of the parameter, as click knows it.
        others: At least one of these must be given with it.
        what: What the option is for, to end the message with.
    """

    name: str
    others: tuple[str, ...]
    what: str

    def complaint(self, given: Sequence[str], shown: dict[str, str]) -> str | None:
        """The sentence for these parameters; None if they are as they should be."""
        if self.name not in given or any(other in given for other in self.others):
            return None
        others = " or ".join(shown[other] for other in self.others)
        return f"{shown[self.name]} is given without {others}: {self.what}."


@dataclass(frozen=True, slots=True)
class Excludes:
    """An option or argument with which others cannot be honoured.

    Attributes:
        name: Of the parameter, as click knows it.
        others: None of these may be given with it.
        what: Why, or what to do instead, to end the message with.
    """

    name: str
    others: tuple[str, ...]
    what: str

    def complaint(self, given: Sequence[str], shown: dict[str, str]) -> str | None:
        """The sentence for these parameters; None if they are as they should be."""
        wrong = [other for other in self.others if other in given] if self.name in given else []
        if not wrong:
            return None
        return f"{shown[self.name]} and {shown[wrong[0]]} are both given, expected only one of them: {self.what}."


IMAGES = (
    Excludes("input_file", ("data", "data_dir", "split"), "the images are those of a data set or the rows of a file"),
)
"""Rules of the options that name images."""

KEEP_OR_TARGET = Excludes("keep", ("target",), "the class to keep or the class to reach")


class Verb(click.Command):
    """A click command whose options are checked together before it runs.

    Args:
        rules: What goes with what. Values that are given are meant: a default that is spelled out counts, too.
    """

    def __init__(self, *args: Any, rules: Sequence[Needs | Excludes] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.rules = tuple(rules)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses, and refuses an option that is given twice: only one of its values could count."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        seen = set[str]()
        for parameter in order:
            if not isinstance(parameter, click.Option) or parameter.multiple or parameter.name is None:
                continue
            if parameter.name in seen and not (parameter.is_flag and not parameter.secondary_opts):
                raise click.UsageError(f"{_shown(parameter)} is given twice, expected once.", ctx)
            seen.add(parameter.name)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command if its options go together.

        Raises:
            QueryError: They do not.
        """
        for message in self._complaints(ctx):
            raise QueryError(message)
        return super().invoke(ctx)

    def _complaints(self, ctx: click.Context) -> Iterator[str]:
        shown = {parameter.name: _shown(parameter) for parameter in self.params if parameter.name is not None}
        given = [name for name in shown if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        for rule in self.rules:
            if (message := rule.complaint(given, shown)) is not None:
                yield message


def _shown(parameter: click.Parameter) -> str:
    """As the command line has it: ``--index``, or the name of an argument."""
    if isinstance(parameter, click.Argument):
        return (parameter.metavar or parameter.name or "").strip("[]").upper()
    return next((text for text in parameter.opts if text.startswith("--")), parameter.opts[0])
