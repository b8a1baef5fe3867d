"""Checks a certificate: a folder with a claim about a network and a question, and the evidence for it.

`certificate.json` names the kind of evidence, the question (the network by its identity), and the sha256 of each other
file. What each kind means, and what is checked:

- ``counterexample``: the input lies in the region, and exact evaluation of the network says that it is adversarial.
- ``bounds``: interval bounds, computed again, exclude what would make an input adversarial; and are those claimed.
- ``patches``: bounds over patches, see `checking.patches`.
- ``clauses``: the clauses of the question, written again (`checking.clauses`), are those of the file, and each line of
  the proof follows from them by unit propagation (`checking.rup`).

Nothing here imports an engine, an encoding or a solver.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnverify.checking.bounds import block_bounds, is_proved, reaches
from bnnverify.checking.clauses import Clause, clauses_of
from bnnverify.checking.patches import check_patches
from bnnverify.checking.prooftext import parse_proof
from bnnverify.checking.rup import refutes
from bnnverify.errors import BnnVerifyError, FormatError, ModelError, QueryError
from bnnverify.network import BinaryNetwork
from bnnverify.query import Property, Query, Targeted, Ties, Untargeted
from bnnverify.reading import gunzipped, json_of, read_bytes
from bnnverify.regions import any_region_from_json
from bnnverify.results import Verdict
from bnnverify.scalars import integer

FORMAT, VERSION = "bnnverify certificate", 1
_MANIFEST_LIMIT = 2**26  # bytes
MANIFEST, NETWORK = "certificate.json", "network.npz"
CLAUSES, PROOF, POINT, PATCHES = "clauses.cnf.gz", "proof.drup.gz", "counterexample.json", "patches.json.gz"


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check. Its truth is whether the certificate holds.

    Attributes:
        holds: True if the claim is proved.
        verdict: What is claimed.
        query: The question, as JSON values.
        steps: What was checked, one sentence each.
        reason: Why the certificate does not hold; empty if it does.
    """

    holds: bool
    verdict: Verdict
    query: Mapping[str, Any]
    steps: tuple[str, ...]
    reason: str = ""

    def __bool__(self) -> bool:
        return self.holds


def check_certificate(
    folder: str | Path,
    network: BinaryNetwork,
    *,
    jobs: int = 1,
    look: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Checks a certificate about a network.

    Args:
        folder: The certificate.
        network: The network that the reader cares about, read from a file that the reader trusts.
        jobs: Threads for the lemmas of a proof.
        look: Called now and then with how much of a proof is checked, and of how much; raises to stop.

    Raises:
        FormatError: The folder is not a certificate, or a file of it cannot be read.
    """
    checker = _Checker(Path(folder), network, integer(jobs, "jobs", least=1), look)
    try:
        checker.check()
    except _RejectedError as rejected:
        return checker.outcome(str(rejected))
    return checker.outcome("")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The claim of a certificate, as it stands.

    Raises:
        FormatError: It is not one.
    """
    path = Path(folder) / MANIFEST
    what = "a certificate of bnnverify"
    data = json_of(read_bytes(path, what, limit=_MANIFEST_LIMIT), str(path), what)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FormatError(f"{path}: is not a certificate of bnnverify (no format {FORMAT!r}).")
    if data.get("version") != VERSION:
        raise FormatError(f"{path}: has version {data.get('version')!r}, expected {VERSION}. Use a newer bnnverify.")
    for key, kind in (("kind", str), ("verdict", str), ("query", dict), ("files", dict)):
        if not isinstance(data.get(key), kind):
            raise FormatError(f"{path}: has no {key}, expected one.")
    if data["kind"] not in _KINDS:
        raise FormatError(f"{path}: is of kind {data['kind']!r}, expected one of {', '.join(_KINDS)}.")
    if data["verdict"] not in (Verdict.ROBUST.value, Verdict.NOT_ROBUST.value):
        raise FormatError(f"{path}: claims {data['verdict']!r}, expected robust or not-robust.")
    return data


def query_of(data: Mapping[str, Any], network: BinaryNetwork) -> Query:
    """The question that `Query.to_json` wrote, about this network.

    Raises:
        QueryError: It is about another network, or does not fit.
    """
    if data["network"] != network.identity:
        raise QueryError(
            f"the certificate is about the network {str(data['network'])[:12]}, but this one is {network.identity[:12]}"
        )
    prop = data["property"]
    what: Property = Untargeted(prop["label"]) if prop["kind"] == "untargeted" else Targeted(prop["target"])
    return Query(network, any_region_from_json(data["region"]), what, Ties(data["ties"]))


class _RejectedError(Exception):
    """The certificate does not hold."""


class _Checker:
    """One check."""

    def __init__(self, folder: Path, network: BinaryNetwork, jobs: int, look: Callable[[int, int], None]) -> None:
        self.folder, self.network, self.jobs, self.look = folder, network, jobs, look
        self.manifest = read_manifest(folder)
        self.verdict = Verdict(self.manifest["verdict"])
        self.steps: list[str] = []

    def outcome(self, reason: str) -> Checked:
        return Checked(not reason, self.verdict, self.manifest["query"], tuple(self.steps), reason)

    def check(self) -> None:
        self.files = {name: self.content(name) for name in self.manifest["files"]}
        try:
            query = query_of(self.manifest["query"], self.network)
        except (BnnVerifyError, KeyError, TypeError, ValueError) as error:
            raise _RejectedError(_sentence(error)) from None
        if query.to_json() != self.manifest["query"]:
            raise _RejectedError("the question says more than what it is, or says it in another way")
        self.steps.append(f"the network is {self.network.identity[:12]}, {self.network.architecture}")
        self.steps.append(f"the question: {query.property}, {query.region}, ties {query.ties.value}")
        expected = Verdict.NOT_ROBUST if self.manifest["kind"] == "counterexample" else Verdict.ROBUST
        if self.verdict is not expected:
            raise _RejectedError(f"a {self.manifest['kind']} certificate proves {expected.value}, not the claim")
        _KINDS[self.manifest["kind"]](self, query)

    def content(self, name: str) -> bytes:
        """A file of the certificate, unpacked, after a look at its sum."""
        path = self.folder / name
        if Path(name).name != name:
            raise FormatError(f"{path}: leads out of the certificate.")
        data = read_bytes(path, "a file of the certificate")
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]:
            raise _RejectedError(f"{name} is not the file that the certificate was written with")
        if not name.endswith(".gz"):
            return data
        return gunzipped(data, str(path), "a file of the certificate")

    def part(self, name: str) -> bytes:
        if name not in self.files:
            raise _RejectedError(f"{name} is missing")
        return self.files[name]

    def values(self, data: bytes, name: str) -> Any:
        try:
            return json_of(data, name, "values")
        except FormatError as error:
            raise _RejectedError(_sentence(error)) from None

    def counterexample(self, query: Query) -> None:
        point = self.values(self.part(POINT), POINT)
        x = point.get("input") if isinstance(point, dict) else None
        if not isinstance(x, list) or not all(type(v) is int for v in x):
            raise _RejectedError(f"{POINT} holds no input of integers")
        if not query.region.contains(x):
            raise _RejectedError("the input does not lie in the region")
        try:
            scores = self.network.scores(x)
        except (ModelError, OverflowError) as error:  # a ball tells only which signs differ from its center
            raise _RejectedError(f"the input is none of the network: {_sentence(error)}") from None
        if not query.scores_adversarial(scores):
            raise _RejectedError(f"the input is not adversarial: its class is {self.network.evaluate(x)}")
        self.steps.append(f"the input lies in the region, and exact evaluation gives class {self.network.evaluate(x)}")

    def bounds(self, query: Query) -> None:
        found = reaches(query, block_bounds(query))
        if not is_proved(query, found):
            raise _RejectedError("interval bounds do not exclude an adversarial input")
        claimed = self.manifest.get("bounds")
        if claimed != [[r.winner, r.loser, str(r.most), r.needed] for r in found]:
            raise _RejectedError("the bounds that are claimed are not those that follow")
        gap = min((r.needed - r.most for r in found if r.is_excluded), default=0)
        self.steps.append(f"interval bounds exclude {_counted(len(found), 'comparison')}, the nearest by {gap}")

    def patches(self, query: Query) -> None:
        evidence = self.values(self.part(PATCHES), PATCHES)
        reason = check_patches(query, evidence) if isinstance(evidence, dict) else "there is none"
        if reason:
            raise _RejectedError(f"the bounds over patches do not hold: {reason}")
        self.steps.append("bounds over patches exclude every comparison that would make an input adversarial")

    def clauses(self, query: Query) -> None:
        written = clauses_of(query, lambda: self.look(0, 0))
        stored = read_dimacs(self.part(CLAUSES), str(self.folder / CLAUSES))
        if stored != written.clauses:
            raise _RejectedError(_difference(stored, written.clauses))
        self.steps.append(
            f"the {len(stored)} clauses are those of the network and the question, written again and compared"
        )
        proof = parse_proof(self.part(PROOF), str(self.folder / PROOF))
        refutation = refutes(stored, proof, jobs=self.jobs, look=self.look)
        if not refutation.holds:
            raise _RejectedError(f"the proof does not refute the clauses: {refutation.reason}")
        self.steps.append(
            f"{_counted(refutation.lemmas, 'lemma')} follow by unit propagation and end in a contradiction"
        )


_KINDS: dict[str, Callable[[_Checker, Query], None]] = {
    "counterexample": _Checker.counterexample,
    "bounds": _Checker.bounds,
    "patches": _Checker.patches,
    "clauses": _Checker.clauses,
}


def read_dimacs(data: bytes, where: str) -> list[Clause]:
    """The clauses of a DIMACS file.

    Raises:
        FormatError: It is not one.
    """
    clauses: list[Clause] = []
    expected = -1
    for number, line in enumerate(io.BytesIO(data), start=1):
        words = line.split()
        if not words or words[0] == b"c":
            continue
        try:
            if words[0] == b"p":
                expected = int(words[3])
                continue
            *literals, end = map(int, words)
        except (ValueError, IndexError):
            raise FormatError(f"{where}:{number}: found {line[:40]!r}, expected a clause.") from None
        if end != 0 or 0 in literals:
            raise FormatError(f"{where}:{number}: found {line[:40]!r}, expected one clause and a final 0.")
        clauses.append(tuple(literals))
    if len(clauses) != expected:
        raise FormatError(f"{where}: has {len(clauses)} clauses, but its header says {expected}.")
    return clauses


def _difference(stored: list[Clause], written: list[Clause]) -> str:
    for number, (one, other) in enumerate(zip(stored, written, strict=False), start=1):
        if one != other:
            return f"clause {number} of the file is {list(one)}, but the question has {list(other)} there"
    return f"the file has {len(stored)} clauses, but the question has {len(written)}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _sentence(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, BnnVerifyError) else f"the question is malformed ({error!r})"
