"""Evidence on file: a folder that proves a verdict to whoever runs ``bnnverify check``, without trust in any engine.

`checking.certificate` says what is in a certificate and what is checked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bnnverify.checking import certificate as form
from bnnverify.checking.bounds import block_bounds, is_proved, reaches
from bnnverify.checking.clauses import Clauses, clauses_of
from bnnverify.checking.patches import check_patches
from bnnverify.deciding.patches import patch_bounds
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.engines.cadical import refute
from bnnverify.errors import EngineError, QueryError, ResourceLimitError
from bnnverify.files import write_folder
from bnnverify.formats.coding import decimal_text
from bnnverify.formats.imported import Imported
from bnnverify.formats.native import to_bytes
from bnnverify.formats.png import png_bytes
from bnnverify.query import Query
from bnnverify.regions import PixelBox, RealBox
from bnnverify.results import Decision, Run, Verdict

Folder = str | os.PathLike[str]

_PATCHES_SECONDS = 10.0  # for bounds over patches, at most


def require_empty(folder: str | os.PathLike[str]) -> Path:
    """The folder; QueryError now rather than after the work, if it holds files."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise QueryError(f"{path} holds files already, expected a new or empty folder for the certificate.")
    return path


def certify(
    query: Query,
    folder: Folder,
    *,
    decision: Decision | None = None,
    patches: Mapping[str, Any] | None = None,
    limits: Limits = UNLIMITED,
    monitor: Monitor | None = None,
    imported: Imported | None = None,
) -> Decision:
    """Decides the question, if need be, and writes a certificate of the verdict.

    The cheapest evidence that will do: the counterexample; interval bounds; bounds over patches, given or found; or a
    proof by CaDiCaL that the question's clauses have no solution. Over a real box the clauses admit more than the box
    holds, so a solution of theirs leaves the question open. CaDiCaL runs in a spawned process: a script needs its call
    under ``if __name__ == "__main__":``.

    Args:
        query: The question.
        folder: Where to write; made if need be, and must be empty.
        decision: A verdict that is known. NOT_ROBUST is written at once; ROBUST is proved again.
        patches: Evidence of bounds over patches, as `deciding.patches` gives it. Default: looked for.
        limits: Time for the proof.
        monitor: Who may stop the work.
        imported: How the network corresponds to a file of another tool, for the text of a counterexample.

    Returns:
        ROBUST or NOT_ROBUST, with `certificate` (the kind of evidence) among the statistics; UNKNOWN with the reason,
        and nothing written, if a limit was reached.

    Raises:
        QueryError: The folder holds files.
        EngineError: The decision's input is no counterexample, its verdict is wrong, or the patches prove nothing.
    """
    clock, path = Clock(limits.seconds, monitor), require_empty(folder)
    try:
        answer = _certified(query, path, decision, patches, clock)
    except ResourceLimitError as limit:
        return Decision(Verdict.UNKNOWN, Run("certificate", clock.elapsed, str(limit)))
    if answer.counterexample is not None:
        save_counterexample(query, answer.counterexample, path, imported)
    return replace(answer, run=replace(answer.run, seconds=clock.elapsed))


def _certified(
    query: Query, folder: Path, decision: Decision | None, patches: Mapping[str, Any] | None, clock: Clock
) -> Decision:
    if decision is not None and decision.counterexample is not None:
        return _counterexample(query, folder, decision.counterexample)
    found = reaches(query, block_bounds(query))
    if is_proved(query, found):
        bounds = [[r.winner, r.loser, str(r.most), r.needed] for r in found]
        return _robust(query, folder, "bounds", {}, {"bounds": bounds})
    if patches is None:
        patches = _patches(query, clock)
    if patches is not None:
        reason = check_patches(query, patches)
        if reason:
            raise EngineError(f"the bounds over patches do not hold: {reason}. This is a bug in whatever made them.")
        text = json.dumps(patches, separators=(",", ":")).encode()
        return _robust(query, folder, "patches", {form.PATCHES: text}, {})

    def check() -> None:
        if clock.is_over:
            raise ResourceLimitError(clock.reason)

    clauses = clauses_of(query, check)
    outcome = refute(clauses.clauses, clock, with_proof=True)
    if outcome.model is None:
        statistics = {"variables": clauses.n_variables, "clauses": len(clauses.clauses)}
        files = {form.CLAUSES: dimacs(clauses, query), form.PROOF: outcome.proof}
        return _robust(query, folder, "clauses", files, {}, statistics)
    if isinstance(query.region, RealBox):
        raise ResourceLimitError("no proof: with the first block's open neurons set free there is a solution")
    x, _ = replayed(query, _input_of(query, clauses, outcome.model), "cadical")
    if decision is not None and decision.verdict is Verdict.ROBUST:
        raise EngineError(
            f"engine {decision.run.engine} says robust, but an input of the region is adversarial. This is a bug in "
            "bnnverify; please report it with the network and the question."
        )
    return _counterexample(query, folder, x)


def _patches(query: Query, clock: Clock) -> dict[str, Any] | None:
    """Evidence of bounds over patches, if they are found within a tenth of the time and suffice."""
    share = _PATCHES_SECONDS if clock.remaining is None else min(_PATCHES_SECONDS, max(clock.remaining / 10, 1e-3))
    found = patch_bounds(query, limits=Limits(seconds=share))
    return found.evidence() if found.is_robust and len(query.network.blocks) > 1 else None


def _input_of(query: Query, clauses: Clauses, model: frozenset[int]) -> tuple[int, ...]:
    """The input of a solution."""
    region = query.region
    x = list(region.lower if isinstance(region, PixelBox) else region.center)  # type: ignore[union-attr]
    for variable, name in clauses.names.items():
        if name.startswith("x"):
            index, _, value = name[1:].partition(">=")
            if value and variable in model:
                x[int(index)] = max(x[int(index)], int(value))
            elif not value:
                x[int(index)] = 1 if variable in model else -1
    return tuple(int(v) for v in x)


def _robust(
    query: Query,
    folder: Path,
    kind: str,
    files: Mapping[str, bytes],
    more: Mapping[str, Any],
    statistics: Mapping[str, Any] | None = None,
) -> Decision:
    _write(query, folder, kind, Verdict.ROBUST, files, more)
    return Decision(Verdict.ROBUST, Run("certificate", 0.0, "", {"certificate": kind, **(statistics or {})}))


def _counterexample(query: Query, folder: Path, x: tuple[int, ...]) -> Decision:
    point, predicted = replayed(query, x, "certificate")
    scores = query.network.scores(point)
    values = {"input": list(point), "class": predicted, "scores": [str(v) for v in scores]}
    files = {form.POINT: json.dumps(values).encode()}
    _write(query, folder, "counterexample", Verdict.NOT_ROBUST, files, {})
    run = Run("certificate", 0.0, "", {"certificate": "counterexample"})
    return Decision(Verdict.NOT_ROBUST, run, point, predicted)


def _write(
    query: Query, folder: Path, kind: str, verdict: Verdict, files: Mapping[str, bytes], more: Mapping[str, Any]
) -> None:
    packed = {
        name: gzip.compress(data, compresslevel=6, mtime=0) if name.endswith(".gz") else data
        for name, data in files.items()
    }
    manifest = {
        "format": form.FORMAT,
        "version": form.VERSION,
        "kind": kind,
        "verdict": verdict.value,
        "query": query.to_json(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in packed.items()},
        **more,
    }
    last = {form.NETWORK: to_bytes(query.network), form.MANIFEST: (json.dumps(manifest) + "\n").encode()}
    write_folder(folder, {**packed, **last})


def dimacs(clauses: Clauses, query: Query) -> bytes:
    """The clauses in DIMACS format; comments name the variables that are inputs or neurons."""
    lines = [f"c bnnverify: {query.property}, {query.region}, ties {query.ties.value}"]
    lines += [f"c network sha256 {query.network.identity}"]
    lines += [f"c var {number} {name}" for number, name in clauses.names.items()]
    lines.append(f"p cnf {clauses.n_variables} {len(clauses.clauses)}")
    lines += [" ".join(map(str, (*clause, 0))) for clause in clauses.clauses]
    return ("\n".join(lines) + "\n").encode()


def save_counterexample(query: Query, x: tuple[int, ...], folder: Folder, imported: Imported | None = None) -> None:
    """Writes an input as `counterexample.npy`, `.png` (where it is an image) and `.txt` (as VNN-COMP has it).

    Args:
        query: The question that it answers.
        x: The input.
        folder: Where to; made if need be.
        imported: How the network corresponds to a file of another tool: see `vnncomp_text`.
    """
    array = io.BytesIO()
    np.save(array, np.array(x, dtype=np.int64))
    files = {"counterexample.npy": array.getvalue()}
    domain = query.network.domain
    if len(domain.shape) == 2 or (len(domain.shape) == 3 and domain.shape[0] in (1, 3)):
        files["counterexample.png"] = png_bytes(np.array(x), domain)
    write_folder(folder, {**files, "counterexample.txt": vnncomp_text(query, x, imported).encode("ascii")})


def vnncomp_text(query: Query, x: tuple[int, ...], imported: Imported | None = None) -> str:
    """The input and its exact scores as the Verification of Neural Networks Competition writes counterexamples.

    Args:
        query: The question that it answers.
        x: The input.
        imported: How the network corresponds to a file of another tool: X are in the order and units of that file, and
            Y are all its outputs. Default: the order, units and classes of the question's own network.
    """
    inputs = [str(v) for v in x] if imported is None else [decimal_text(v) for v in imported.exact(x)]
    network = query.network if imported is None else imported.network
    parts = [f"(X_{i} {v})" for i, v in enumerate(inputs)]
    parts += [f"(Y_{k} {float(v):.17g})" for k, v in enumerate(network.scores(x))]
    return "sat\n(" + "\n".join(parts) + ")\n"
