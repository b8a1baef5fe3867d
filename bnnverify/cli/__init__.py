"""The command line: one file per verb.

Answers go to stdout, progress and mistakes to stderr. Exit codes: 0 answered, whatever the verdict; 1 a verdict that
``--fail-on`` names; 2 bad input or usage; 3 UNKNOWN or a limit reached, with the partial result printed;
130 interrupted, with the partial result kept (143 by SIGTERM); 70 a bug in bnnverify; 141 the reader of stdout went
away.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import click

from bnnverify.errors import BnnVerifyError, BnnVerifyWarning, EngineError, ResourceLimitError
from bnnverify.reading import reason, shown

BAD_INPUT, LIMIT, BUG, INTERRUPTED, NO_READER, ENDED = 2, 3, 70, 130, 141, 143

COMPILING = "compiling loops, once after installation: up to half a minute, which no time limit counts"

# Verb -> the line in `bnnverify --help`; the file is imported when the verb is used.
VERBS = {
    "data": "Obtain the files of MNIST and Fashion-MNIST.",
    "train": "Train a binarized network and save it.",
    "import": "Read a model of another tool (ONNX, eevbnn, Keras, torch) as an exact network.",
    "export": "Write a network as ONNX.",
    "info": "What is in a network file.",
    "verify": "Is there an input nearby that changes the class?",
    "count": "How many inputs nearby change the class?",
    "distance": "How near is the nearest input that changes the class?",
    "certify": "How many images of a data set are robust?",
    "explain": "Which inputs force the class, whatever the others do?",
    "check": "Does a certificate prove what it claims?",
    "diagram": "The classes of all inputs nearby, in a file to ask again.",
    "reliability": "Accuracy of chips whose cells hold wrong bits.",
    "report": "One self-contained HTML page from results.",
}

# Verbs whose names are keywords, or nouns of a file: the file.
FILES = {"import": "importing", "export": "exporting"}

# Extra -> packages that only it brings.
EXTRAS = {
    "train": ("torch",),
    "data": ("sklearn",),
    "report": ("matplotlib", "jinja2"),
    "formats": ("onnx", "onnxruntime", "h5py", "google"),
    "cp": ("ortools",),
}

CANNOT_WRITE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EBADF)
DIGITS = 100_000  # of an integer as text; counts over many pixels have thousands, and Python's own limit is 4,300


class StoppedError(Exception):
    """Ctrl-C or a reader that went away, as the cause; click would handle these two in its own way."""


class Verbs(click.Group):
    """The verbs, each imported when it is asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise StoppedError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a session."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb, or None."""
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"bnnverify.cli.{FILES.get(name, name)}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


EXAMPLES = """\b
Examples:
  bnnverify train --data digits --hidden 32 -o digits.npz
  bnnverify verify digits.npz --data digits --index 0:20 --radius 2
  bnnverify count digits.npz --data digits --index 0:5 --radius 4
  bnnverify explain digits.npz --data digits --index 0 --radius 4 --show
  bnnverify reliability digits.npz --data digits --ber 1e-4:1e-1:log:8

Exit codes: 0 answered, whatever the verdict; 1 a verdict that --fail-on names; 2 bad input or usage; 3 unknown, or a
limit was reached (the partial result is printed); 130 interrupted (every answer printed is complete or says how far it
came; 143 where SIGTERM did it).
"""


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.version_option(package_name="bnnverify", prog_name="bnnverify")
def cli() -> None:
    """Exact answers about binarized neural networks.

    Answers go to stdout (--json: one JSON line each), progress and mistakes to stderr. bnnverify VERB --help explains a
    verb and has examples. MODEL is a .npz file, or a model folder of BNNQuanalyst.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; a user's mistake is one line on stderr.

    Args:
        arguments: Without the program name; default those of the process.
    """
    if sys.stderr is None:  # closed
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stdout is None:
        click.echo("bnnverify: stdout is closed, expected a place for the answers. Redirect it to a file.", err=True)
        return BAD_INPUT
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
    sys.set_int_max_str_digits(DIGITS)
    words = list(sys.argv[1:] if arguments is None else arguments)
    where = " ".join(["bnnverify", *(words[:1] if words[:1] and words[0] in VERBS else [])])
    from bnnverify import compilation
    from bnnverify.cli.interrupts import heeded_requests_to_end

    is_quiet = not {"-q", "--quiet"}.isdisjoint(words)
    compilation.notice = None if is_quiet else partial(click.echo, COMPILING, err=True)
    with heeded_requests_to_end() as requests, warnings.catch_warnings():
        warnings.showwarning = _show
        code = _run(words, where)
    return ENDED if code == INTERRUPTED and requests else code


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line; from where in the code it comes matters where it is none of ours."""
    own = issubclass(category, BnnVerifyWarning)
    click.echo(f"bnnverify: {message}" if own else f"{filename}:{lineno}: {category.__name__}: {message}", err=True)


def _run(words: list[str], where: str) -> int:
    try:
        result = cli.main(args=words, prog_name="bnnverify", standalone_mode=False, obj=words)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words:
            traceback.print_exc()
        code, message = complaint(error, where)
        with suppress(OSError):  # a full stderr
            if message:
                click.echo(message, err=True)
        return code


def complaint(error: BaseException, where: str) -> tuple[int, str]:
    """Exit code and the one line for stderr."""
    if isinstance(error, StoppedError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else where
        return BAD_INPUT, f"{where}: {_one_line(error.format_message())} See {where} --help."
    if isinstance(error, click.ClickException):
        return BAD_INPUT, f"{where}: {_one_line(error.format_message())}"
    if isinstance(error, EngineError):
        return BUG, f"{where}: {_one_line(str(error))}"
    if isinstance(error, ResourceLimitError):
        return LIMIT, f"{where}: {_one_line(str(error))}"
    if isinstance(error, BnnVerifyError):
        return BAD_INPUT, f"{where}: {_one_line(str(error))}"
    if isinstance(error, MemoryError):
        return LIMIT, f"{where}: out of memory. Take a smaller question, or --engine sat."
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return INTERRUPTED, f"{where}: interrupted; {str(error) or 'the answers printed so far are complete'}."
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return NO_READER, ""
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        what = shown(error.filename) if error.filename else "stdout"
        if not error.filename:
            _silence_stdout()
        return BAD_INPUT, f"{where}: {what} cannot be written ({reason(error)}), expected room for the answers."
    if isinstance(error, ImportError) and (extra := _extra_of(error.name or "")):
        return BAD_INPUT, f"{where}: needs {error.name}, not installed. Run: pip install 'bnnverify[{extra}]'"
    name = type(error).__name__
    return BUG, f"{where}: {name}: {_one_line(str(error))} This is a bug in bnnverify; --debug shows where."


def _silence_stdout() -> None:
    """What is still in the buffer goes nowhere: the interpreter flushes at exit."""
    with suppress(OSError, ValueError):  # a stand-in without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _extra_of(package: str) -> str | None:
    return next((extra for extra, packages in EXTRAS.items() if package.split(".")[0] in packages), None)
