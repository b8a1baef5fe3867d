"""``bnnverify check``: does a certificate prove what it claims?"""

from __future__ import annotations

from pathlib import Path

import click

from bnnverify.cli.verb import Verb

EXAMPLES = """\b
Examples:
  bnnverify verify net.npz --data digits --index 3 --radius 2 --certificate proof/
  bnnverify check proof/
  bnnverify check proof/ net.npz      # about the network in this file, not the one in the folder
"""

REJECTED = 1


@click.command(cls=Verb, epilog=EXAMPLES)
@click.argument("certificate", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("model", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--jobs", type=click.IntRange(min=1), default=1, metavar="N", help="Threads for a proof. Default: 1.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line instead of text.")
def command(certificate: Path, model: Path | None, jobs: int, as_json: bool) -> int:
    """Does CERTIFICATE prove what it claims?

    The clauses or bounds are computed again from the network and the question, by code that shares nothing with the
    engines, and the proof is checked line by line. A counterexample is evaluated exactly. MODEL is the network that you
    care about; without it the one in the certificate's folder is taken. Exit codes: 0 it holds, 1 it does not, 2 it
    cannot be read.
    """
    import json

    from bnnverify.checking import certificate as checking
    from bnnverify.cli.models import load

    checking.read_manifest(certificate)
    path = certificate / checking.NETWORK if model is None else model
    with _progress() as look:
        checked = checking.check_certificate(certificate, load(path), jobs=jobs, look=look)
    if as_json:
        line = {
            "type": "check",
            "certificate": str(certificate),
            "holds": checked.holds,
            "verdict": checked.verdict.value,
            "query": dict(checked.query),
            "steps": list(checked.steps),
            "reason": checked.reason,
        }
        click.echo(json.dumps(line))
    else:
        for step in checked.steps:
            click.echo(f"checked: {step}.")
        if checked.holds:
            click.echo(f"The certificate holds: {checked.verdict.value}, for {path}.")
        else:
            click.echo(f"The certificate does not hold: {checked.reason}.")
    return 0 if checked.holds else REJECTED


class _progress:  # noqa: N801
    """A bar on stderr while a long proof is checked."""

    def __enter__(self) -> _progress:
        self.bar = None
        return self

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None and total:
            self.bar = tqdm(total=total, unit="line", delay=1.0, leave=False, disable=None)
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
