"""Options that several verbs share, and what their text means."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from bnnverify.errors import QueryError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_RATE = re.compile(r"[0-9.]{1,40}([eE][+-]?[0-9]{1,3})?|[0-9]{1,40}/[0-9]{1,40}", re.ASCII)


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, listed in the help in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model_argument = click.argument("model", type=click.Path(path_type=Path))

output_options = together(
    click.option("--json", "as_json", is_flag=True, help="One self-contained JSON line per answer on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress bars."),
    click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."),
)


def index_option(default: str) -> Decorator:
    """``--index`` with the images that it means where it is not given."""
    rows = "" if default == "all" else "; all rows of --input"
    text = f"Images of the split, such as 7 or 0:20 or 1,5,8:12 or all, each once. Default: {default}{rows}."
    return click.option("--index", metavar="LIST", help=text)


_DATA_SETS = "digits, mnist or fashion-mnist"

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the files of mnist and fashion-mnist are. Default: BNNVERIFY_DATA, else ./data.",
)

data_options = together(
    click.option("--data", default="digits", show_default=True, metavar="NAME", help=f"Data set: {_DATA_SETS}."),
    data_dir_option,
)


def _image_options(default: str) -> Decorator:
    return together(
        click.option("--data", metavar="NAME", help=f"Take images of this data set: {_DATA_SETS}."),
        data_dir_option,
        click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True),
        index_option(default),
        click.option(
            "--input",
            "input_file",
            metavar="FILE",
            help="Take inputs from a .npy file or from text, one per row: 0/1 or -1/1, or pixels where the network "
            "takes integers.",
        ),
    )


image_options, all_image_options = _image_options("0"), _image_options("all")

_AUTO = "All give the same answer; auto picks by predicted cost, and changes when the guess was wrong."


def _engine_options(engines: list[str], text: str) -> Decorator:
    return together(
        click.option("--engine", type=click.Choice(engines), default="auto", show_default=True, help=text),
        click.option(
            "--timeout", type=float, metavar="SECONDS", help="Time for each question; then UNKNOWN or bounds."
        ),
        click.option(
            "--threads", type=int, metavar="N", help="Cores for each question. Default: all; with --jobs one."
        ),
        click.option("--jobs", type=int, default=1, show_default=True, help="Processes; each takes whole questions."),
    )


_COUNTING = ["auto", "enumeration", "propagation", "bdd", "sat"]
engine_options = _engine_options(_COUNTING, _AUTO)

deciding_engine_options = _engine_options(
    [*_COUNTING, "stages", "minicard", "cpsat", "cadical"],
    f"{_AUTO} The last four decide only: bounds, attack and complete engines in stages, or one complete engine.",
)

keep_option = click.option(
    "--keep",
    "--label",
    "keep",
    default="predicted",
    show_default=True,
    metavar="predicted|true|CLASS",
    help="The class that must not change: the network's own, the image's label, or a number.",
)

ties_option = click.option(
    "--ties",
    type=click.Choice(["lowest-index", "counterexample", "robust"]),
    default="lowest-index",
    show_default=True,
    help="What equal scores mean: the lowest class wins, a tie is adversarial, or a tie is not.",
)

_region_options = together(
    click.option(
        "--radius",
        "--hamming",
        "radius",
        type=int,
        metavar="R",
        help="All inputs that differ in at most R places; with --free, --hold or --fixed only where these let them.",
    ),
    click.option("--free", metavar="LIST|FILE", help="All inputs that differ only in these places, such as 0:32,40."),
    click.option("--hold", metavar="LIST|FILE", help="All inputs that agree in these places."),
    click.option(
        "--fixed",
        metavar="FILE",
        help="All inputs that differ only in the places that a fixed-set file of BNNQuanalyst lists: those vary.",
    ),
    click.option("--whole-cube", is_flag=True, help="All inputs there are."),
)


def region_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a region; the command gets `region`, the function from an input to the region around it."""

    @wraps(function)
    def command(
        *args: Any,
        radius: int | None,
        free: str | None,
        hold: str | None,
        fixed: str | None,
        whole_cube: bool,
        **options: Any,
    ) -> Any:
        from bnnverify.cli.regions import region_of

        around = partial(region_of, radius=radius, free=free, hold=hold, fixed=fixed, whole=whole_cube)
        return function(*args, region=around, **options)

    return _region_options(command)


def index_list(text: str, size: int, what: str) -> list[int]:
    """The indices that ``7``, ``0:20``, ``0:20:2``, ``all`` or a comma list of these mean, in order, each once.

    Args:
        text: As on the command line; the end of a range is not part of it.
        size: Indices go from 0 to size - 1.
        what: What error messages call an index.

    Raises:
        QueryError: The text is no such list, or an index is out of range.

    >>> index_list("7,0:6:2", 10, "image")
    [7, 0, 2, 4]
    """
    found: dict[int, None] = {}
    for part in filter(None, re.split(r"[,\s]+", text.strip())):
        numbers = ["0", str(size)] if part == "all" else part.split(":")
        if not 1 <= len(numbers) <= 3 or not all(re.fullmatch(r"[0-9]{1,12}", n, re.ASCII) for n in numbers):
            raise QueryError(f"{what} list contains {part!r:.60}, expected numbers and ranges such as 7 or 0:20.")
        first, *rest = map(int, numbers)
        stop, step = (rest[0] if rest else first + 1), (rest[1] if len(rest) == 2 else 1)
        if step < 1 or stop <= first:
            raise QueryError(f"{what} range {part} is empty, expected start:stop or start:stop:step with start < stop.")
        if stop > size:
            raise QueryError(f"{what} {stop - 1} does not exist, expected 0 to {size - 1}.")
        found.update(dict.fromkeys(range(first, stop, step)))
    if not found:
        raise QueryError(f"the {what} list is empty, expected numbers and ranges such as 7 or 0:20.")
    return list(found)


def index_list_or_file(text: str, size: int, what: str) -> list[int]:
    """As `index_list`; if a file has this name, its text counts."""
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):
        is_file = False
    return index_file(text, size, what) if is_file else index_list(text, size, what)


def index_file(name: str, size: int, what: str) -> list[int]:
    """The indices that a text file lists, as in `index_list`.

    Raises:
        QueryError: The file cannot be read, is no such list, or an index is out of range.
    """
    from bnnverify.reading import read_text

    text = read_text(name, f"a list of {what} numbers")
    try:
        return index_list(text, size, what)
    except QueryError as error:
        raise QueryError(f"{name}: {error}") from None


def rates(text: str, what: str = "--ber") -> tuple[Fraction, ...]:
    """The rates that ``1e-3``, a comma list, or a grid ``1e-4:1e-1:log:8`` mean, exactly and in their order.

    Raises:
        QueryError: The text is no such list, or a rate lies outside [0, 1].

    >>> [str(p) for p in rates("1e-3,1/4")]
    ['1/1000', '1/4']
    >>> len(rates("1e-4:1e-1:log:8"))
    8
    """
    from bnnverify.faults import log_grid, rate

    found: list[Fraction] = []
    for part in filter(None, re.split(r"[,\s]+", text.strip())):
        words = part.split(":")
        is_grid = len(words) == 4 and words[2] == "log" and re.fullmatch(r"[0-9]{1,4}", words[3], re.ASCII)
        if len(words) != 1 and not is_grid:
            raise QueryError(f"{what} is {part!r:.60}, expected a rate such as 1e-3 or a grid such as 1e-4:1e-1:log:8.")
        for word in words[: 2 if is_grid else 1]:
            if not _RATE.fullmatch(word) and not word.startswith("-"):
                raise QueryError(f"{what} is {word!r:.60}, expected a probability such as 0.001, 1e-3 or 1/1000.")
            if word.startswith("-"):
                raise QueryError(f"{what} is {word:.60}, expected a probability within [0, 1].")
        found.extend(log_grid(words[0], words[1], int(words[3])) if is_grid else [rate(words[0], what)])
    if not found:
        raise QueryError(f"{what} is empty, expected a rate such as 1e-3 or a grid such as 1e-4:1e-1:log:8.")
    return tuple(found)


def one_rate(text: str, what: str) -> Fraction:
    """The one rate that a text means; see `rates`."""
    found = rates(text, what)
    if len(found) != 1:
        raise QueryError(f"{what} is {text!r:.60}, expected one number such as 0.001, 1e-3 or 1/1000.")
    return found[0]


def numbers(text: str, what: str) -> tuple[Fraction, ...]:
    """The numbers of a comma list such as ``0.1,0.3`` or ``8/255``, exactly, each once.

    Raises:
        QueryError: The text is no such list, or a number is negative.

    >>> [str(v) for v in numbers("0.1, 8/255", "--eps")]
    ['1/10', '8/255']
    """
    found = []
    for word in filter(None, re.split(r"[,\s]+", text.strip())):
        if not _RATE.fullmatch(word) or word.endswith("/0"):
            raise QueryError(f"{what} is {word!r:.60}, expected a number of at least 0 such as 0.1 or 8/255.")
        try:
            found.append(Fraction(word))
        except (ValueError, ZeroDivisionError):
            raise QueryError(f"{what} is {word!r:.60}, expected a number such as 0.1 or 8/255.") from None
    if not found:
        raise QueryError(f"{what} is empty, expected a number such as 0.1 or 8/255.")
    return tuple(dict.fromkeys(found))


def one_number(text: str, what: str) -> Fraction:
    """The one number that a text means; see `numbers`."""
    found = numbers(text, what)
    if len(found) != 1:
        raise QueryError(f"{what} is {text!r:.60}, expected one number such as 0.1 or 8/255.")
    return found[0]
