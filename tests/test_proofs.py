"""The checker of proofs against brute force, and against proofs that were damaged on purpose."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysat.solvers import Cadical195, Solver

from bnnverify.checking.prooftext import parse_proof
from bnnverify.checking.rup import refutes
from bnnverify.errors import FormatError

LITERALS = st.integers(1, 5).flatmap(lambda v: st.sampled_from([v, -v]))
CLAUSES = st.lists(st.lists(LITERALS, max_size=4), max_size=20)


def is_satisfiable(clauses):
    for values in product((False, True), repeat=5):
        if all(any(values[abs(v) - 1] == (v > 0) for v in clause) for clause in clauses):
            return True
    return False


def contradicts(clauses, assumed):
    """Unit propagation in plain loops."""
    true = set(assumed)
    if any(-v in true for v in true):
        return True
    while True:
        forced = None
        for clause in clauses:
            if any(v in true for v in clause):
                continue
            rest = {v for v in clause if -v not in true}
            if not rest:
                return True
            if len(rest) == 1:
                forced = rest.pop()
        if forced is None:
            return False
        true.add(forced)


def accepted(clauses, lemmas):
    """Whether lemmas without deletions refute the clauses, in plain loops."""
    known = [list(clause) for clause in clauses]
    for lemma in lemmas:
        if contradicts(known, []):
            return True
        if not contradicts(known, [-v for v in lemma]):
            return False
        known.append(lemma)
    return contradicts(known, [])


def text(lines):
    return "".join(" ".join(map(str, [*line, 0])) + "\n" for line in lines).encode()


def cadical_proof(clauses):
    with Cadical195(bootstrap_with=clauses, with_proof=True) as solver:
        assert not solver.solve()
        return "".join(f"{line}\n" for line in solver.get_proof()).encode()


def pigeons(n):
    """n + 1 pigeons in n holes: no solution, and no short proof by propagation alone."""
    at = {(p, h): p * n + h + 1 for p in range(n + 1) for h in range(n)}
    clauses = [[at[p, h] for h in range(n)] for p in range(n + 1)]
    clauses += [[-at[p, h], -at[q, h]] for h in range(n) for p in range(n + 1) for q in range(p)]
    return clauses


@settings(max_examples=120)
@given(CLAUSES, st.lists(st.lists(LITERALS, max_size=3), max_size=6))
def test_lemmas_are_accepted_iff_they_follow_by_unit_propagation(clauses, lemmas):
    outcome = refutes(clauses, parse_proof(text(lemmas)))
    assert refutes(clauses, parse_proof(text(lemmas)), jobs=2) == outcome
    most = max((abs(v) for clause in clauses for v in clause), default=0)
    if any(abs(v) > most for lemma in lemmas for v in lemma):
        assert not outcome.holds or contradicts(clauses, [])
    else:
        assert outcome.holds == accepted(clauses, lemmas)
    assert not outcome.holds or not is_satisfiable(clauses)
    assert (outcome.reason == "") == outcome.holds


@settings(max_examples=120)
@given(CLAUSES, st.data())
def test_no_proof_with_deletions_refutes_what_has_a_solution(clauses, data):
    lines = []
    for _ in range(data.draw(st.integers(0, 8))):
        if clauses and data.draw(st.booleans()):
            lines.append(["d", *data.draw(st.permutations(data.draw(st.sampled_from(clauses))))])
        else:
            lines.append(data.draw(st.lists(LITERALS, max_size=3)))
    if refutes(clauses, parse_proof(text(lines))).holds:
        assert not is_satisfiable(clauses)


@settings(max_examples=60)
@given(st.lists(st.lists(LITERALS, min_size=1, max_size=3), min_size=15, max_size=30))
def test_a_solvers_proof_is_accepted(clauses):
    if not is_satisfiable(clauses):
        assert refutes(clauses, parse_proof(cadical_proof(clauses))).holds


def test_a_longer_proof_is_accepted_and_not_without_its_clauses():
    clauses = pigeons(6)
    proof = parse_proof(cadical_proof(clauses))
    outcome = refutes(clauses, proof)
    assert outcome.holds and 10 < outcome.lemmas <= proof.n_lemmas
    assert refutes(clauses, proof, jobs=3) == outcome
    for gone in (0, 5, len(clauses) - 1):
        rest = [clause for place, clause in enumerate(clauses) if place != gone]
        with Solver(name="glucose4", bootstrap_with=rest) as solver:
            assert solver.solve()
        assert not refutes(rest, proof).holds


def test_a_proof_that_is_cut_or_empty_proves_nothing():
    clauses = pigeons(5)
    lines = cadical_proof(clauses).splitlines(keepends=True)
    outcome = refutes(clauses, parse_proof(b"".join(lines[: len(lines) // 2])))
    assert not outcome.holds and outcome.reason == "the proof ends without a contradiction"
    assert not refutes(clauses, parse_proof(b"")).holds
    made_up = refutes(clauses, parse_proof(b"1 0\n0\n"))
    assert not made_up.holds and made_up.reason == "line 1 of the proof does not follow by unit propagation"


def test_deleted_clauses_no_longer_help():
    clauses = [[1, 2], [1, -2], [-1, 2], [-1, -2]]
    assert refutes(clauses, parse_proof(b"1 0\n")).holds
    assert not refutes(clauses, parse_proof(b"d 2 1 0\n1 0\n")).holds  # in another order of its literals
    assert not refutes(clauses, parse_proof(b"d 1 2 0\nd 1 2 0\n1 0\n")).holds
    assert refutes([[1, 2], *clauses], parse_proof(b"d 1 2 0\n1 0\n")).holds  # one of two copies


def test_what_propagates_to_a_contradiction_needs_no_proof():
    assert refutes([[1], [-1]], parse_proof(b"")).holds
    assert refutes([[]], parse_proof(b"")).holds
    assert not refutes([], parse_proof(b"0\n")).holds


def test_a_proof_may_not_name_new_variables():
    outcome = refutes([[1, 2]], parse_proof(b"999999999 0\n"))
    assert not outcome.holds and outcome.reason == "the proof names variable 999999999, but the clauses go to 2"


def test_progress_is_reported_and_may_stop_the_check():
    class StoppedError(Exception):
        pass

    def look(done, total):
        assert (done, total) == (0, 1)
        raise StoppedError

    with pytest.raises(StoppedError):
        refutes([[1, 2]], parse_proof(b"1 0\n"), look=look)


@pytest.mark.parametrize(
    "damaged, line",
    [(b"1 2 0\nx\n", 2), (b"1 2", 1), (b"1 - 0\n", 1), (b"d\n", 2), (b"1 d 0\n", 1), (b"d d 1 0\n", 1), (b"1" * 10, 1)],
)
def test_a_malformed_proof_names_the_line(damaged, line):
    with pytest.raises(FormatError, match=rf"proof:{line}: found .*expected literals, a final 0"):
        parse_proof(damaged)
