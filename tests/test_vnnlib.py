"""VNN-LIB properties: what they mean, and where a malformed one is wrong."""

import gzip
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cli import main
from bnnverify.errors import FormatError, QueryError, UnsupportedError
from bnnverify.formats import onnxwriter
from bnnverify.formats.coding import InputCoding
from bnnverify.formats.imported import Imported
from bnnverify.formats.onnx import load as load_onnx
from bnnverify.formats.vnnlib import load
from bnnverify.formats.vnnlibtext import VnnlibText
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Targeted, Ties, Untargeted
from tests import oracle
from tests.onnxmodels import Model

BOX = """
(assert (>= X_0 1)) (assert (<= X_0 3.0))
(assert (>= X_1 -2e0))
(assert (<= X_1 0.5))
"""


def declared(n=2, m=3):
    names = [f"X_{i}" for i in range(n)] + [f"Y_{j}" for j in range(m)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def read(tmp_path, text):
    path = tmp_path / "p.vnnlib"
    path.write_text(text)
    return load(path)


def imported(n=2, m=3, lower=-5, upper=9, order=None, scale=1, offset=0):
    rng = np.random.default_rng(0)
    coding = InputCoding.integers(lower, upper, scale=scale, offset=offset)
    block = DenseBlock.create(rng.choice([-1, 1], (4, n)), [0, 1, -1, 2])
    output = OutputBlock.create(rng.choice([-1, 1], (m, 4)))
    network = BinaryNetwork(InputDomain.integers([lower] * n, [upper] * n), (block,), output)
    places = np.arange(n) if order is None else np.array(order)
    return Imported(network, coding, places, "x", (1, n), (), ())


def test_a_box_and_an_untargeted_property(tmp_path):
    text = f"; a comment (with parentheses\n{declared()}{BOX}(assert (or (and (>= Y_0 Y_1)) (and (>= Y_2 Y_1))))\n"
    specification = read(tmp_path, text)
    assert (specification.n_inputs, specification.n_outputs) == (2, 3)
    (query,) = specification.queries(imported())
    assert query.region.lower == (1, -2) and query.region.upper == (3, Fraction(1, 2))
    assert query.property == Untargeted(1) and query.ties is Ties.COUNTEREXAMPLE
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert load(path).cases == specification.cases


def test_one_output_above_all_others_is_a_target(tmp_path):
    text = declared() + BOX + "(assert (and (<= Y_0 Y_2) (<= Y_1 Y_2)))"
    (query,) = read(tmp_path, text).queries(imported())
    assert query.property == Targeted(2) and query.ties is Ties.COUNTEREXAMPLE


def test_strict_comparisons_spare_ties(tmp_path):
    (query,) = read(tmp_path, declared() + BOX + "(assert (or (> Y_0 Y_1) (< Y_1 Y_2)))").queries(imported())
    assert query.property == Untargeted(1) and query.ties is Ties.ROBUST


def test_separate_assertions_hold_together(tmp_path):
    text = declared() + BOX + "(assert (>= Y_0 Y_1))\n(assert (>= Y_0 Y_2))"
    (query,) = read(tmp_path, text).queries(imported())
    assert query.property == Targeted(0)


def test_some_rivals_only_make_a_question_of_these_classes(tmp_path):
    network = imported()
    (query,) = read(tmp_path, declared() + BOX + "(assert (>= Y_2 Y_1))").queries(network)
    assert query.network.n_classes == 2 and query.property == Untargeted(0)
    for x in itertools.product((1, 2, 3), (-2, -1, 0)):
        scores = network.network.scores(x)
        assert query.is_adversarial(x) == (scores[2] >= scores[1])


def test_several_boxes_are_several_questions(tmp_path):
    text = (
        declared()
        + """
    (assert (or
      (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (>= Y_0 Y_1))
      (and (>= X_0 4) (<= X_0 5) (>= X_1 0) (<= X_1 1) (>= Y_2 Y_1))
      (and (>= X_0 7) (<= X_0 6) (>= X_1 0) (<= X_1 1) (>= Y_2 Y_0))))"""
    )
    queries = read(tmp_path, text).queries(imported())
    assert [(q.region.lower[0], q.property) for q in queries] == [(0, Untargeted(1)), (4, Untargeted(0))]


def test_bounds_of_one_input_intersect(tmp_path):
    text = declared() + BOX + "(assert (<= X_0 2))(assert (>= X_1 -1))(assert (>= Y_0 Y_1))"
    (query,) = read(tmp_path, text).queries(imported())
    assert query.region.lower == (1, -1) and query.region.upper == (2, Fraction(1, 2))


def test_places_and_scales_of_the_file_are_those_of_the_network(tmp_path):
    text = declared() + BOX + "(assert (>= Y_0 Y_1))"
    (query,) = read(tmp_path, text).queries(imported(order=[1, 0], scale=Fraction(-1, 2), offset=1, lower=-9, upper=9))
    # x = (X - 1) / -(1/2), and input 0 of the network is X_1
    assert query.region.lower == (1, -4) and query.region.upper == (6, 0)


@st.composite
def conditions(draw):
    pairs = st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(lambda p: p[0] != p[1])
    shape = draw(st.sampled_from(["or", "target"]))
    if shape == "target":
        winner = draw(st.integers(0, 2))
        losers = draw(st.sets(st.integers(0, 2).filter(lambda k: k != winner), min_size=1))
        parts = [f"(>= Y_{winner} Y_{k})" for k in sorted(losers)]
        return f"(and {' '.join(parts)})", lambda s: all(s[winner] >= s[k] for k in losers)
    chosen = draw(st.lists(st.tuples(pairs, st.booleans()), min_size=1, max_size=4))
    parts = [f"({'>' if strict else '>='} Y_{a} Y_{b})" for (a, b), strict in chosen]
    return f"(or {' '.join(parts)})", lambda s: any(s[a] > s[b] if t else s[a] >= s[b] for (a, b), t in chosen)


@given(conditions(), st.integers(-3, 3), st.integers(-3, 3))
@settings(max_examples=60, deadline=None)
def test_the_questions_have_a_counterexample_exactly_where_the_text_has_one(pair, a, b):
    import tempfile
    from pathlib import Path

    text, holds = pair
    bounds = f"(assert (and (<= X_0 {a + 1}) (>= X_0 {a}) (<= X_1 {b + 1}) (>= X_1 (- {-b if b < 0 else b}))))"
    low = b if b < 0 else -b
    with tempfile.TemporaryDirectory() as folder:
        specification = read(Path(folder), declared() + bounds + f"(assert {text})")
    model = imported()
    queries = specification.queries(model)
    for x in itertools.product((a, a + 1), range(low, b + 2)):
        assert any(q.is_adversarial(x) for q in queries) == holds(oracle.scores(model.network, x))


@st.composite
def formulas(draw, depth=3):
    """A formula over X_0, X_1 and Y_0 to Y_2, and its meaning."""
    kind = draw(st.sampled_from(["x", "x", "y"] if depth == 0 else ["x", "y", "and", "or", "or"]))
    if kind == "x":
        i, c, up = draw(st.integers(0, 1)), draw(st.integers(-2, 2)), draw(st.booleans())
        number = str(c) if c >= 0 else f"(- {-c})"
        text = f"({'<=' if up else '>='} X_{i} {number})"
        return text, lambda x, y: x[i] <= c if up else x[i] >= c
    if kind == "y":
        a, b = draw(st.permutations(range(3)))[:2]
        return f"(>= Y_{a} Y_{b})", lambda x, y: y[a] >= y[b]
    parts = draw(st.lists(formulas(depth - 1), min_size=1, max_size=3))
    test = all if kind == "and" else any
    return f"({kind} {' '.join(text for text, _ in parts)})", lambda x, y: test(f(x, y) for _, f in parts)


@given(st.lists(formulas(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_cases_are_what_the_formulas_say(parts):
    around = "".join(f"(assert (and (>= X_{i} -2) (<= X_{i} 2)))" for i in range(2))
    text = declared() + around + "".join(f"(assert {text})\n" for text, _ in parts)
    n, m, cases = VnnlibText("p", text).cases()
    assert (n, m) == (2, 3)
    outputs = [(0, 0, 0), (0, 1, 2), (2, 1, 0), (1, 2, 1)]
    lower, upper = cases.hull() if cases.count else ((1, 1), (0, 0))
    for x in itertools.product(range(-3, 4), repeat=2):
        inside = [case for case in cases if all(a <= v <= b for a, v, b in zip(case.lower, x, case.upper, strict=True))]
        for y in outputs:
            expected = all(-2 <= v <= 2 for v in x) and all(f(x, y) for _, f in parts)
            assert cases.holds(x, y) == expected
            assert any(all(c.holds(y) for c in case.comparisons) for case in inside) == expected
        assert not inside or all(a <= v <= b for a, v, b in zip(lower, x, upper, strict=True))


def choices(n, gap=3):
    """Each input in [0, 1] or in [gap, gap + 1]: 2^n boxes."""
    options = "(assert (or (and (>= X_{0} 0) (<= X_{0} 1)) (and (>= X_{0} {1}) (<= X_{0} {2}))))\n"
    return declared(n) + "".join(options.format(i, gap, gap + 1) for i in range(n)) + "(assert (>= Y_1 Y_0))"


def test_a_product_of_choices_is_never_multiplied_out(tmp_path):
    specification = read(tmp_path, choices(300))
    assert specification.cases.count == 2**300
    assert specification.coding() == InputCoding.integers(0, 255)
    queries = iter(specification.queries(imported(300)))
    first = [next(queries).region for _ in range(3)]
    assert len({region.lower for region in first}) == 3
    assert read(tmp_path, choices(300, 1)).cases.count == 1  # intervals that meet are one


def test_equal_boxes_make_one_question_wherever_they_stand(tmp_path):
    box = "(>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1)"
    text = f"(assert (or (and {box} (>= Y_0 Y_1)) (and (>= X_0 3) (<= X_0 4) (>= X_1 0) (<= X_1 1) (>= Y_0 Y_1))"
    queries = read(tmp_path, f"{declared()}{text} (and {box} (>= Y_2 Y_1))))").queries(imported())
    assert [(q.region.lower[0], q.network.n_classes) for q in queries] == [(0, 3), (3, 2)]


@pytest.mark.parametrize(
    ("head", "last"), [("and ", ")"), ("or ", ")"), ("and ", "(<= X_0 4))"), ("or ", "(>= X_0 1))")]
)
def test_nesting_has_no_bound(tmp_path, head, last):
    deep = f"(assert {f'({head}' * 40_000}(>= X_0 1){last * 40_000})"
    specification = read(tmp_path, declared() + BOX + deep + "(assert (>= Y_0 Y_1))")
    (query,) = specification.queries(imported())
    assert query.region.lower == (1, -2)


def test_brackets_without_a_meaning_are_refused_at_any_depth(tmp_path):
    for text in ("(" * 100_000 + ")" * 100_000, "(assert " + "(" * 100_000 + ")" * 100_000 + ")", "(" * 100_000):
        with pytest.raises((FormatError, UnsupportedError), match=r"p\.vnnlib:6:\d+: "):
            read(tmp_path, declared() + text)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_ends_of_lines_are_read(tmp_path, end):
    text = f"; a comment\n{declared()}{BOX}(assert (>= Y_0 Y_1))\n"
    path = tmp_path / "p.vnnlib"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    assert list(load(path).cases) == list(read(tmp_path, text).cases)


@pytest.mark.parametrize("number", ["1e99999999", "-1e-99999999", "1" * 500, "0." + "1" * 500, "1e1000"])
def test_numbers_are_bounded_before_they_are_computed(tmp_path, number):
    with pytest.raises(UnsupportedError, match=r"p\.vnnlib:6:17: the number .* is not understood, expected up to 400"):
        read(tmp_path, f"{declared()}(assert (>= X_0 {number}))")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("(assert)", "4:1", r"'assert' has 0 formulas, expected 1"),
        ("(assert (>= X_0 1) (>= X_0 2))", "4:1", r"'assert' has 2 formulas"),
        ("(assert (>= Y_2 Y_0))", "4:13", r"Y_2 is not declared"),
        ("(assert (and 5 (>= X_0 1)))", "4:14", r"a formula is expected here"),
        ("(assert (>= X_0 (>= X_0 1)))", "4:17", r"a number, an X or a Y is expected here"),
        ("(assert (>= X_0 ()))", "4:17", r"a formula is expected here"),
        ("(assert (>= X_0 1)", "4:1", r"'\(' is never closed"),
        ("(assert (>= X_0 1)))", "4:20", r"'\)' closes nothing"),
        ("hello", "4:1", r"'hello' stands outside of parentheses"),
        ("(assert (>= X_9 1))", "4:13", r"X_9 is not declared"),
        ("(assert (>= X_0 1.2.3))", "4:17", r"'1\.2\.3' is no number, X or Y"),
        ("(assert (>= X_0))", "4:9", r"'>=' has 1 sides, expected 2"),
        ("(declare-const X_0 Real)", "4:1", r"X_0 is declared twice"),
        ("(assert 5)", "4:9", r"a formula is expected here"),
        ("(assert (or))", "4:9", r"'or' of nothing"),
    ],
)
def test_a_malformed_property_is_refused_with_its_place(tmp_path, text, place, message):
    with pytest.raises(FormatError, match=rf"p\.vnnlib:{place}: {message}") as caught:
        read(tmp_path, declared(1, 2) + text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("(assert (=> (>= X_0 1) (>= X_0 2)))", "4:9", "'=>' is not understood, expected and, or"),
        ("(assert (<= (+ Y_0 Y_1) 3))", "4:13", "arithmetic is not understood"),
        ("(assert (<= Y_0 3))", "4:9", "a comparison of number and Y is not understood"),
        ("(assert (<= X_0 Y_1))", "4:9", "a comparison of Y and X is not understood"),
        ("(assert (< X_0 3))", "4:9", "a strict bound of an input is not understood"),
        ("(declare-const Z Real)", "4:1", "a declaration is not understood"),
        ("(declare-const X_1 Int)", "4:1", "a declaration is not understood"),
        ("(define-fun f () Real 1)", "4:1", "the command 'define-fun' is not understood"),
        ("(assert (>= |X_0| 1))", "4:13", "a quoted name is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(tmp_path, text, place, message):
    with pytest.raises(UnsupportedError, match=rf"p\.vnnlib:{place}: {message}"):
        read(tmp_path, declared(1, 2) + text)


def test_a_box_with_an_open_side_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"p\.vnnlib: gives no upper bound for X_1"):
        read(tmp_path, declared() + "(assert (>= X_0 1))(assert (<= X_0 1))(assert (>= X_1 1))")
    with pytest.raises(FormatError, match=r"declares no X_0"):
        read(tmp_path, "(declare-const Y_0 Real)")


def test_comparisons_that_are_no_question_about_a_class_are_refused(tmp_path):
    specification = read(tmp_path, declared() + BOX + "(assert (and (>= Y_0 Y_1) (>= Y_2 Y_1)))")
    with pytest.raises(UnsupportedError, match=r"p\.vnnlib:10: a counterexample must fulfil 2 comparisons"):
        specification.queries(imported())
    with pytest.raises(UnsupportedError, match=r"every input of the box is a counterexample, since no outputs"):
        read(tmp_path, declared() + BOX).queries(imported())


def test_a_property_of_another_network_is_refused(tmp_path):
    specification = read(tmp_path, declared() + BOX + "(assert (>= Y_0 Y_1))")
    with pytest.raises(FormatError, match="declares 3 outputs, but the model has 4"):
        specification.queries(imported(m=4))
    with pytest.raises(QueryError, match=r"input 1 of the box goes from -2 to 1/2, but the network takes 0 to 9"):
        specification.queries(imported(lower=0))


def test_the_range_of_pixels_grows_where_a_box_needs_it(tmp_path):
    assert read(tmp_path, declared() + BOX).coding() == InputCoding.integers(-2, 255)
    text = declared(1) + "(assert (>= X_0 0.25))(assert (<= X_0 0.5))"
    with pytest.raises(UnsupportedError, match=r"inputs lie between 0 and 1, expected pixels.*--input-scale 1/255"):
        read(tmp_path, text).coding()


def test_real_inputs_of_a_model_with_a_plain_first_sign_are_refused_unless_its_zero_has_a_meaning(tmp_path):
    text = declared(1, 2) + "(assert (>= X_0 1))(assert (<= X_0 2))(assert (>= Y_0 Y_1))"
    specification = read(tmp_path, text)
    graph = Model([None, 1]).add("MatMul", [[1.0]]).add("Sub", 1.5).add("Sign").add("MatMul", [[1.0, -1.0]])
    path = graph.save(tmp_path / "m.onnx")  # x = 3/2 makes both outputs 0
    coding = InputCoding.integers(0, 3)
    model = load_onnx(path, coding=coding)
    assert model.open_zero and "plain Sign, which real inputs" in model.notes[-1]
    with pytest.raises(UnsupportedError, match=r"can make the first sign of the model 0.*zero_sign=1"):
        specification.queries(model)
    assert len(specification.queries(load_onnx(path, coding=coding, zero_sign=1))) == 1


def test_an_impossible_property_has_no_questions(tmp_path):
    text = declared() + BOX + "(assert (<= X_0 0))(assert (>= Y_0 Y_1))"
    assert read(tmp_path, text).queries(imported()) == ()


def test_a_property_of_a_file_that_export_wrote_is_about_the_inputs_it_states(tmp_path, capsys):
    block = DenseBlock.create([[1, 1], [1, -1]], [2, 0])
    network = BinaryNetwork(InputDomain.integers([0, 0], [1, 3]), (block,), OutputBlock.create([[1, 1], [-1, 1]]))
    model, question = str(tmp_path / "own.onnx"), str(tmp_path / "p.vnnlib")
    onnxwriter.save(network, model)
    text = declared(2, 2) + "(assert (and (>= X_0 0.25) (<= X_0 1) (>= X_1 0.5) (<= X_1 1.5) (>= Y_0 Y_1)))"
    (tmp_path / "p.vnnlib").write_text(text)
    assert main(["verify", model, question, "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["model"]["identity"] == network.identity and line["answer"]["verdict"] == "not-robust"
    assert line["answer"]["counterexample"] == [1, 1]
    assert main(["verify", model, question, "--input-scale", "1/255"]) == 2
    assert "own.onnx says its inputs itself (integers 0..3)" in capsys.readouterr().err
    assert main(["verify", model, question, "--input-shape", "1,3"]) == 2
    assert "has the shape (?, 2), but (1, 3) is given" in capsys.readouterr().err
    (tmp_path / "p.vnnlib").write_text(text.replace("(<= X_1 1.5)", "(<= X_1 3.5)"))
    assert main(["verify", model, question]) == 2
    assert "input 1 of the box goes from 1/2 to 7/2, but the network takes 0 to 3" in capsys.readouterr().err


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(FormatError, match=r"none\.vnnlib: cannot be read \(no such file or directory\)"):
        load(tmp_path / "none.vnnlib")
    (tmp_path / "binary.vnnlib").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="is no text in UTF-8"):
        load(tmp_path / "binary.vnnlib")
