"""``--dump-cnf``, ``--dump-opb`` and ``--dump-cp``: the question as a file for other solvers."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bnnverify.query import Query

Command = TypeVar("Command", bound=Callable[..., Any])

_WHAT = {
    "cnf": "as clauses (DIMACS)",
    "opb": "as pseudo-Boolean inequalities (OPB)",
    "cp": "as a CP-SAT model (text of OR-Tools' CpModelProto)",
}


def dump_options(command: Command) -> Command:
    """The options ``--dump-cnf``, ``--dump-opb`` and ``--dump-cp``; they arrive as `dump_cnf` and so on."""
    for kind, what in reversed(_WHAT.items()):
        command = click.option(
            f"--dump-{kind}",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help=f"Also write the question {what}, with a map of its variables in comments. One image only.",
        )(command)
    return command


def dump_query(query: Query, options: Mapping[str, Any]) -> list[Path]:
    """Writes the question to the files that the options name.

    Args:
        query: A question over signs or over a box of integers.
        options: With `dump_cnf`, `dump_opb` and `dump_cp`: a path or None.

    Returns:
        The files that were written.

    Raises:
        FormatError: A file cannot be written.
        UnsupportedError: The region is a real box.
    """
    wanted = [(kind, options[f"dump_{kind}"]) for kind in _WHAT if options.get(f"dump_{kind}") is not None]
    if not wanted:
        return []
    from bnnverify.cardinality import compile_query
    from bnnverify.encodings.dumping import write_instance
    from bnnverify.files import write_whole

    instance = compile_query(query)
    for kind, path in wanted:
        text = io.StringIO()
        write_instance(instance, kind, text)
        write_whole(path, text.getvalue().encode())
    return [Path(path) for _, path in wanted]
