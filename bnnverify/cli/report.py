"""``bnnverify report``: one HTML page from result lines."""

from __future__ import annotations

from pathlib import Path

import click

from bnnverify.cli.outputs import require_outputs
from bnnverify.cli.verb import Verb

EXAMPLES = """\b
Examples:
  bnnverify report verdicts.jsonl accuracy.jsonl -o report.html
  bnnverify verify net.npz --data digits --index 0:9 --radius 3 --json | bnnverify report - -o report.html
"""


@click.command(cls=Verb, epilog=EXAMPLES)
@click.argument("results", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="report.html", show_default=True, metavar="FILE"
)
@click.option("--title", default="Exact answers about binarized networks", metavar="TEXT", help="Heading of the page.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print the path.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(results: tuple[str, ...], output: Path, title: str, quiet: bool) -> int:
    """One self-contained HTML page with figures and tables, from files of JSON lines (- is stdin).

    The lines are what the other verbs print with --json. The page needs nothing else: figures are inline, the data are
    embedded, and it prints well.
    """
    require_outputs({"--output": output}, inputs=[Path(name) for name in results if name != "-"])
    from bnnverify.report.html import write_report
    from bnnverify.report.lines import read_lines

    lines = [line for name in results for line in read_lines(name)]
    write_report(lines, output, title=title)
    if not quiet:
        click.echo(f"{output}  {output.stat().st_size / 1024:.0f} kB  {len(lines)} results")
    return 0
