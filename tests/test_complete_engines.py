"""Native cardinality, CP-SAT and CaDiCaL: what they are given, and what they answer, against brute force."""

import io
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from click import Command, Option
from hypothesis import given, settings
from hypothesis import strategies as st
from pysat.solvers import Solver

from bnnverify.cardinality import compile_cells, compile_query, region_input
from bnnverify.cli.dumping import dump_options, dump_query
from bnnverify.encodings.atmost import to_native
from bnnverify.encodings.dumping import KINDS, write_instance
from bnnverify.encodings.linear import to_linear, values_of
from bnnverify.engines import engine_named
from bnnverify.engines.base import Limits, Monitor
from bnnverify.engines.cadical import CadicalEngine
from bnnverify.engines.cpsat import CpsatEngine, cp_model_of
from bnnverify.engines.minicard import SOLVERS, MinicardEngine
from bnnverify.errors import FormatError, QueryError, UnsupportedError
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import HammingBall, PixelBox, RealBox
from bnnverify.results import Verdict
from tests import oracle
from tests.strategies import conv_networks, queries
from tests.test_boxes import adversarial, box_queries

QUERIES = st.one_of(box_queries(), queries(max_inputs=6), queries(conv_networks, max_inputs=6, max_outputs=20))


def points(query):
    return adversarial(query) if isinstance(query.region, PixelBox) else oracle.adversarial_points(query)


def agrees(engine, query):
    expected = points(query)
    decision = engine.decide(query)
    assert decision.run.engine == engine.name and decision.run.reason == ""
    assert decision.verdict is (Verdict.NOT_ROBUST if expected else Verdict.ROBUST)
    if expected:
        assert decision.counterexample in expected
        assert decision.predicted == oracle.predicted(query.network, decision.counterexample)


@pytest.mark.parametrize("solver", SOLVERS)
def test_native_cardinality_gives_the_oracles_answer(solver):
    @settings(max_examples=80)
    @given(QUERIES)
    def check(query):
        agrees(MinicardEngine(solver), query)

    check()


def test_cp_sat_gives_the_oracles_answer():
    pytest.importorskip("ortools")

    @settings(max_examples=50)
    @given(QUERIES)
    def check(query):
        expected = points(query)
        decision = CpsatEngine().decide(query, limits=Limits(threads=1))
        assert decision.verdict is (Verdict.NOT_ROBUST if expected else Verdict.ROBUST)
        assert not expected or decision.counterexample in expected

    check()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_neuron_reified_by_repetition_is_right_on_all_assignments(solver, n):
    for signs in product((-1, 1), repeat=n):
        for threshold in range(-n, n + 1):
            blocks = (DenseBlock.create([signs], [threshold]),)
            net = BinaryNetwork(InputDomain.binary(n), blocks, OutputBlock.create([[1], [-1]]))
            query = Query(net, HammingBall((1,) * n, n), Untargeted(0))
            form = to_native(compile_query(query))
            with Solver(name=solver) as found:
                for clause in form.clauses:
                    found.add_clause(list(clause))
                for constraint in form.at_most:
                    found.add_atmost(list(constraint.literals), constraint.bound)
                for x in product((-1, 1), repeat=n):
                    fires = sum(w * v for w, v in zip(signs, x, strict=True)) >= threshold
                    if form.instance.formula.constraints:
                        assumed = [i if v == 1 else -i for i, v in enumerate(x, start=1)]
                        assert found.solve(assumptions=assumed) == (not fires)
                    else:
                        assert fires != form.instance.formula.conjunctive


def satisfies(form, values):
    def met(literal):
        return values[abs(literal) - 1] == (literal > 0)

    clauses = all(any(met(v) for v in clause) for clause in form.clauses)
    return clauses and all(sum(met(v) for v in c.literals) <= c.bound for c in form.at_most)


@settings(max_examples=60)
@given(st.one_of(box_queries(most_points=8), queries(max_inputs=3, max_width=3, max_blocks=2)))
def test_the_native_form_has_the_models_of_the_instance(query):
    instance = compile_query(query)
    form = to_native(instance)
    extra = form.n_variables - len(instance.variables)
    if extra > 6:
        return
    for inputs in product((False, True), repeat=instance.n_inputs):
        values = list(instance.values(inputs).values())
        extensions = product((False, True), repeat=extra)
        found = any(satisfies(form, [*values, *more]) for more in extensions)
        assert found == instance.is_model(inputs)


def test_scores_with_large_scales_are_written_as_clauses():
    blocks = (DenseBlock.create(np.eye(4, dtype=int) * 2 - 1, [0] * 4),)
    output = OutputBlock.create(
        [[1, -1, 1, -1], [1, 1, -1, -1], [-1, 1, 1, 1]], scale=[Fraction(100, 7), Fraction(1, 3), Fraction(-55, 9)]
    )
    net = BinaryNetwork(InputDomain.binary(4), blocks, output)
    for x in product((-1, 1), repeat=4):
        query = Query(net, HammingBall(x, 1), Untargeted(net.evaluate(x)))
        for engine in (MinicardEngine(), CpsatEngine()):
            agrees(engine, query)


def linear_holds(form, values):
    for row in form.inequalities:
        if row.guard is not None and values[abs(row.guard) - 1] != (row.guard > 0):
            continue
        if sum(c * values[v] for c, v in zip(row.coefficients, row.variables, strict=True)) < row.bound:
            return False
    return True


@settings(max_examples=60)
@given(st.one_of(box_queries(most_points=8), queries(max_inputs=3, max_width=3, max_blocks=1)))
def test_the_linear_form_has_the_models_of_the_instance(query):
    form = to_linear(compile_query(query))
    ranges = [range(v.lower, v.upper + 1) for v in form.variables]
    if np.prod([len(r) for r in ranges], dtype=float) > 3000:
        return
    found = set()
    for values in product(*ranges):
        if linear_holds(form, values):
            found.add(region_input(query.region, values_of(form, values[: form.n_inputs])))
    assert sorted(found) == sorted(points(query))


def opb_rows(text):
    """Parsed by the rules of the format: `* comment`, and `+1 x1 -2 x2 >= 3 ;`."""
    rows = []
    for line in text.splitlines():
        if not line.startswith("*"):
            words = line.split()
            assert words[-1] == ";" and words[-3] == ">="
            pairs = zip(words[:-3:2], words[1:-3:2], strict=True)
            rows.append(([(int(c), int(x.removeprefix("x"))) for c, x in pairs], int(words[-2])))
    return rows


@settings(max_examples=60)
@given(st.one_of(box_queries(most_points=8), queries(max_inputs=3, max_width=3, max_blocks=1)))
def test_an_opb_file_has_a_solution_for_each_adversarial_input_and_no_other(query):
    stream = io.StringIO()
    write_instance(compile_query(query), "opb", stream)
    rows, header = opb_rows(stream.getvalue()), stream.getvalue().splitlines()[0].split()
    count = int(header[2])
    assert header[:2] == ["*", "#variable="] and int(header[4]) == len(rows)
    if count > 12:
        return
    n_inputs, found = compile_query(query).n_inputs, set()
    for values in product((0, 1), repeat=count):
        if all(sum(c * values[x - 1] for c, x in terms) >= bound for terms, bound in rows):
            found.add(region_input(query.region, [bool(v) for v in values[:n_inputs]]))
    assert sorted(found) == sorted(points(query))


def test_equalities_of_cells_are_written_too():
    blocks = (DenseBlock.create([[1, -1], [1, 1]], [1, 0]),)
    net = BinaryNetwork(InputDomain.binary(2), blocks, OutputBlock.create([[1, 1], [-1, 1]]))
    instance = compile_cells(net, (1, 1), net.evaluate((1, 1)), max_flips=2)
    models = [v for v in product((False, True), repeat=instance.n_inputs) if instance.is_model(v)]
    form = to_linear(instance)
    ranges = [range(v.lower, v.upper + 1) for v in form.variables[instance.n_inputs :]]
    for inputs in product((0, 1), repeat=instance.n_inputs):
        found = any(linear_holds(form, [*inputs, *rest]) for rest in product(*ranges))
        assert found == (tuple(map(bool, inputs)) in models)
    stream = io.StringIO()
    write_instance(instance, "opb", stream)
    assert "is an equality" in stream.getvalue()
    native = to_native(instance)
    with Solver(name="minicard") as solver:
        for clause in native.clauses:
            solver.add_clause(list(clause))
        for constraint in native.at_most:
            solver.add_atmost(list(constraint.literals), constraint.bound)
        for inputs in product((False, True), repeat=instance.n_inputs):
            assumed = [i if v else -i for i, v in enumerate(inputs, start=1)]
            assert solver.solve(assumptions=assumed) == (inputs in models)


@settings(max_examples=30)
@given(QUERIES)
def test_the_text_of_a_cp_model_is_the_model_that_is_solved(query):
    cp_model = pytest.importorskip("ortools.sat.python.cp_model")
    instance = compile_query(query)
    stream = io.StringIO()
    write_instance(instance, "cp", stream)
    model = cp_model.CpModel()
    assert model.proto.parse_text_format(stream.getvalue())
    assert model.validate() == ""
    same = cp_model_of(to_linear(instance))
    assert [list(v.domain) for v in model.proto.variables] == [list(v.domain) for v in same.proto.variables]
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert (solver.solve(model) == cp_model.OPTIMAL) == bool(points(query))


def pixel_question(eps=2):
    rng = np.random.default_rng(1)
    blocks = (
        DenseBlock.create(rng.choice([-1, 1], (12, 10)), rng.integers(-4, 5, 12)),
        DenseBlock.create(rng.choice([-1, 1], (8, 12)), rng.integers(-2, 3, 8)),
    )
    net = BinaryNetwork(
        InputDomain.integers([0] * 10, [9] * 10), blocks, OutputBlock.create(rng.choice([-1, 1], (3, 8)))
    )
    x = tuple(rng.integers(0, 10, 10).tolist())
    return Query(net, PixelBox.linf(x, eps, net.domain), Untargeted(net.evaluate(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_the_same_text_each_time_and_map_their_variables(kind):
    first, second = io.StringIO(), io.StringIO()
    for stream in (first, second):
        write_instance(compile_query(pixel_question()), kind, stream)
    assert first.getvalue() == second.getvalue()
    comments = [line for line in first.getvalue().splitlines() if line.startswith(("c ", "* ", "# "))]
    assert any(" h0." in line for line in comments)
    assert any((" x1: " if kind == "cp" else " x1>=") in line for line in comments)
    assert kind != "opb" or any("score" in line for line in comments)


def test_an_unknown_format_is_refused():
    with pytest.raises(QueryError, match="the format is 'mps', expected one of cnf, opb, cp"):
        write_instance(compile_query(pixel_question()), "mps", io.StringIO())


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_that_the_region_settles_is_written_as_one_without_a_solution(kind):
    net = BinaryNetwork(
        InputDomain.integers([0], [9]), (DenseBlock.create([[1]], [9]),), OutputBlock.create([[1], [-1]])
    )
    stream = io.StringIO()
    write_instance(compile_query(Query(net, PixelBox((0,), (5,)), Untargeted(1))), kind, stream)
    text = stream.getvalue()
    if kind == "cnf":
        assert text.splitlines()[-1] == "0"
    elif kind == "opb":
        assert opb_rows(text)[-2:] == [([(1, 6)], 1), ([(-1, 6)], 0)]
    else:
        assert "vars: [] coeffs: [] domain: [1," in text


def test_the_options_write_what_they_name(tmp_path):
    @dump_options
    def nothing(**options):
        return options

    options = {p.name for p in Command("x", params=nothing.__click_params__).params if isinstance(p, Option)}
    assert options == {"dump_cnf", "dump_opb", "dump_cp"}
    query = pixel_question()
    assert dump_query(query, {"dump_cnf": None}) == []
    paths = {"dump_cnf": tmp_path / "q.cnf", "dump_opb": None, "dump_cp": tmp_path / "q.txt"}
    assert dump_query(query, paths) == [tmp_path / "q.cnf", tmp_path / "q.txt"]
    assert (tmp_path / "q.cnf").read_text().startswith("c written by bnnverify")
    with pytest.raises(FormatError, match=r"q.opb: cannot be written \(no such file"):
        dump_query(query, {"dump_opb": tmp_path / "gone" / "q.opb"})
    real = replace(query, region=RealBox(query.region.lower, query.region.upper))
    with pytest.raises(UnsupportedError, match="real box"):
        dump_query(real, paths)


@pytest.mark.parametrize("ties", list(Ties))
@pytest.mark.parametrize("encoding", ["totalizer", "diagram"])
def test_cadical_in_its_own_process_gives_the_oracles_answer(ties, encoding):
    query = replace(pixel_question(1), ties=ties)
    decision = CadicalEngine(encoding).decide(query)
    assert decision.verdict is MinicardEngine().decide(query).verdict
    assert decision.run.engine == "cadical" and decision.run.statistics["encoding"] == encoding


@pytest.mark.parametrize("name", ["minicard", "cpsat", "cadical"])
def test_engines_stop_for_limits_and_monitors_and_refuse_to_count(name):
    engine, query = engine_named(name), pixel_question(3)
    assert engine.name == name
    late = engine.decide(query, limits=Limits(seconds=1e-9))
    assert late.verdict is Verdict.UNKNOWN and late.run.reason == "time limit of 1e-09 s reached"
    stopped = engine.decide(query, monitor=Monitor(stop=True))
    assert stopped.verdict is Verdict.UNKNOWN and stopped.run.reason == "interrupted"
    with pytest.raises(UnsupportedError, match=f"{name} decides and does not count"):
        engine.count(query)
    real = replace(query, region=RealBox(query.region.lower, query.region.upper))
    with pytest.raises(UnsupportedError, match="the region is a real box"):
        engine.decide(real)


def test_unknown_solvers_and_encodings_are_refused():
    with pytest.raises(QueryError, match="solver is 'kissat', expected one of gluecard4, gluecard3, minicard"):
        MinicardEngine("kissat")
    with pytest.raises(QueryError, match="encoding is 'magic', expected one of diagram"):
        CadicalEngine("magic")
    with pytest.raises(QueryError, match="linearization is 3, expected 0, 1 or 2"):
        CpsatEngine(linearization=3)
