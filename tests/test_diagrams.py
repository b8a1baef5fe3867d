"""Class diagrams: the oracle's classes, canonical, kept in files that are checked, asked again without the network."""

import json
import math
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.cardinality import compile_network, score_formula
from bnnverify.encodings import layered
from bnnverify.encodings.bdd import BddEncoding
from bnnverify.encodings.classdiagram import compile_diagram
from bnnverify.encodings.diagram import Diagram
from bnnverify.encodings.layered import reduced, walk
from bnnverify.encodings.layers import machine
from bnnverify.errors import FormatError, QueryError, ResourceLimitError, UnsupportedError
from bnnverify.formats.dddmp import booleans_of
from bnnverify.formats.diagrams import load_diagram, save_diagram
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.regions import FixedIndexRegion, HammingBall, whole_cube
from tests import oracle
from tests.strategies import conv_networks, queries

QUERIES = st.one_of(queries(max_inputs=6, max_width=5), queries(conv_networks, max_inputs=6, max_outputs=16))


def network(n=6, seed=0, classes=3, hidden=(5, 4)):
    random_ = np.random.default_rng(seed)
    widths, blocks = (n, *hidden), []
    for inputs, outputs in pairwise(widths):
        weights, limits = random_.choice([-1, 1], (outputs, inputs)), random_.integers(-2, 3, outputs)
        blocks.append(DenseBlock.create(weights, limits))
    output = OutputBlock.create(random_.choice([-1, 1], (classes, widths[-1])), bias=list(range(classes)))
    return BinaryNetwork(InputDomain.binary(n), tuple(blocks), output)


CENTER = (1, -1, -1, 1, 1, -1)
SAMPLE = compile_diagram(network(), HammingBall(CENTER, 3))


def classes_of(query):
    return {x: oracle.predicted(query.network, x) for x in query.region.points()}


@given(QUERIES)
def test_a_diagram_knows_the_class_of_every_input_and_what_lies_outside(query):
    diagram, classes = compile_diagram(query.network, query.region), classes_of(query)
    assert diagram.diagram.fault() is None
    for x in product((-1, 1), repeat=query.network.n_inputs):
        assert diagram.class_of(x) == classes.get(x)


@given(QUERIES, st.data())
def test_counts_by_class_and_distance_are_the_oracles_whatever_else_is_fixed(query, data):
    diagram, n = compile_diagram(query.network, query.region), query.network.n_inputs
    fixed = data.draw(st.dictionaries(st.integers(0, n - 1), st.sampled_from([-1, 1])))
    kept = {x: k for x, k in classes_of(query).items() if all(x[i] == v for i, v in fixed.items())}
    counts = diagram.count_by_distance(fixed)
    for k, row in enumerate(counts):
        for d, count in enumerate(row):
            center = query.region.center
            assert count == sum(
                c == k and sum(a != b for a, b in zip(x, center, strict=True)) == d for x, c in kept.items()
            )
    assert diagram.count(fixed) == tuple(map(sum, counts)) and sum(diagram.count(fixed)) == len(kept)


@given(QUERIES)
def test_the_nearest_input_of_a_class_is_as_near_as_any(query):
    diagram, classes = compile_diagram(query.network, query.region), classes_of(query)
    for k in range(query.network.n_classes):
        distances = [
            sum(a != b for a, b in zip(x, query.region.center, strict=True)) for x, c in classes.items() if c == k
        ]
        found = diagram.nearest([k])
        if not distances:
            assert found is None
        else:
            assert classes[found] == k
            assert sum(a != b for a, b in zip(found, query.region.center, strict=True)) == min(distances)


@given(QUERIES, st.randoms(use_true_random=False))
def test_equal_functions_have_equal_diagrams_however_they_were_built(query, shuffle):
    order = list(query.region.free)
    shuffle.shuffle(order)
    first = compile_diagram(query.network, query.region, order=order)
    widest = query.network.unrolled().blocks
    if widest:  # hidden neurons in another order
        block, rest = widest[0], widest[1:]
        new = list(range(block.n_outputs))
        shuffle.shuffle(new)
        moved = DenseBlock.create(block.weights[new], block.thresholds[new], mask=block.weights[new] != 0)
        if rest:
            weights = rest[0].weights[:, new]
            rest = (DenseBlock.create(weights, rest[0].thresholds, mask=weights != 0), *rest[1:])
            output = query.network.output
        else:
            weights, old = query.network.output.weights[:, new], query.network.output
            output = OutputBlock.create(weights, scale=old.scale, bias=old.bias, mask=weights != 0)
        other = compile_diagram(BinaryNetwork(query.network.domain, (moved, *rest), output), query.region, order=order)
        assert replace(other, network=first.network).identity == first.identity


@settings(max_examples=40)
@given(queries(max_inputs=6, max_width=5))
def test_its_boolean_diagrams_are_as_small_as_those_of_a_package(query):
    diagram = compile_diagram(query.network, query.region, order=query.region.free)
    instance = compile_network(query.network, query.region)
    encoding = BddEncoding(instance, package="dd.autoref")
    nodes = set()
    for k in range(query.network.n_classes):
        others = [(k, j, k > j) for j in range(query.network.n_classes) if j != k]
        found = encoding.formula(score_formula(query.network, instance, others, True))
        assert encoding.count(found) == diagram.count()[k]
        nodes.update(abs(int(u)) for u in reachable(found))
    assert len(booleans_of(diagram).levels) == len(nodes)


def reachable(root):
    found, stack = {}, [root]
    while stack:
        u = stack.pop()
        u = ~u if u.negated else u
        if int(u) not in found and u.var is not None:
            found[int(u)] = u
            stack += [u.low, u.high]
    return found.values()


def test_samples_have_the_class_and_are_uniform():
    wanted = [x for x in SAMPLE.region.points() if SAMPLE.class_of(x) in (0, 2)]
    drawn = Counter(SAMPLE.sample((0, 2), 200 * len(wanted), seed=1))
    assert set(drawn) == set(wanted) and len(wanted) > 5
    assert sum((drawn[x] - 200) ** 2 / 200 for x in wanted) < 2 * len(wanted)  # chi square, about 5 deviations
    assert SAMPLE.sample([1], 3, seed=7) == SAMPLE.sample([1], 3, seed=random.Random(7))


def test_counts_of_a_cube_that_no_word_holds_are_exact():
    n = 130  # one neuron, a majority: half of the odd cube
    block = DenseBlock.create(np.ones((1, n)), [0])
    majority = BinaryNetwork(InputDomain.binary(n), (block,), OutputBlock.create([[-1], [1]]))
    diagram = compile_diagram(majority, whole_cube(n))
    ties = math.comb(n, n // 2)
    assert diagram.count() == ((2**n - ties) // 2, (2**n + ties) // 2)
    far = diagram.count_by_distance({0: -1})
    assert [sum(column) for column in zip(*far, strict=True)] == [0] + [math.comb(n - 1, d) for d in range(n)]


def test_a_walk_in_small_pieces_gives_the_same_diagram(monkeypatch):
    monkeypatch.setattr(layered, "_CHUNK", 2)
    assert compile_diagram(network(), SAMPLE.region).identity == SAMPLE.identity


def test_a_walk_cut_short_leaves_open_only_what_it_has_not_read():
    reader = machine(network(10, 3), whole_cube(10))
    classes = reduced(walk(reader)).count()

    def stop_at(limit):
        def check(nodes, size):
            if nodes >= limit:
                raise ResourceLimitError("enough")

        return walk(reader, check)

    open_before = 2**10 + 1
    for limit in (1, 10, 40, 10**6):
        cut = stop_at(limit)
        counts = reduced(cut).count()
        *known, outside, unknown = (count for (count,) in counts)
        assert all(count <= whole for count, (whole,) in zip(known, classes, strict=False))
        assert sum(known) + unknown == 2**10 and outside == 0 and unknown <= open_before
        assert cut.reason == ("enough" if unknown else "")
        open_before = unknown


# --- files


@settings(max_examples=40)
@given(QUERIES, st.sampled_from(["json", "dddmp"]))
def test_a_diagram_comes_back_from_its_file(tmp_path_factory, query, suffix):
    diagram = compile_diagram(query.network, query.region)
    path = tmp_path_factory.mktemp("diagrams") / f"d.{suffix}"
    save_diagram(diagram, path)
    back = load_diagram(path)
    assert back.identity == diagram.identity and back.region == diagram.region and back.order == diagram.order
    assert back.network == query.network.identity and back.count() == diagram.count()


def test_another_parser_reads_the_dddmp_file(tmp_path):
    from dd import dddmp

    save_diagram(SAMPLE, tmp_path / "d.dddmp")
    manager = dddmp.load(str(tmp_path / "d.dddmp"))
    booleans = booleans_of(SAMPLE)
    assert manager.vars == {name: level for level, name in enumerate(SAMPLE.names)}
    assert len(manager) == len(booleans.levels) + 1
    # its roots are numbers of the file; nodes are numbered alike, for both go from the last level up
    for k, root in enumerate(booleans.roots):
        members = [x for x in product((-1, 1), repeat=6) if SAMPLE.class_of(x) == k]
        models = manager.pick_iter(root, care_vars=set(SAMPLE.names))
        found = [tuple(1 if model[f"x{i}"] else -1 for i in range(6)) for model in models]
        assert sorted(found) == sorted(members)


@pytest.fixture(params=["json", "dddmp"])
def path(request, tmp_path):
    save_diagram(SAMPLE, tmp_path / f"d.{request.param}")
    return tmp_path / f"d.{request.param}"


def test_no_damage_to_a_file_goes_unnoticed(path):
    whole = path.read_bytes()
    generator = random.Random(5)
    for _ in range(300):
        place, new = generator.randrange(len(whole)), generator.choice(b'0123456789-x.,[]{}" \n')
        kind = generator.randrange(3)
        if kind == 0:
            damaged = whole[:place]
        elif kind == 1:
            damaged = whole[:place] + bytes([new]) + whole[place + 1 :]
        else:
            damaged = whole[:place] + whole[place + generator.randrange(1, 9) :]
        path.write_bytes(damaged)
        try:
            found = load_diagram(path)
        except FormatError as error:
            assert str(error).startswith(str(path))
        else:  # a place that means nothing, such as the last line break
            assert found.identity == SAMPLE.identity and found.count() == SAMPLE.count()


def edited(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": "poem"}, "names the format 'poem', expected 'bnnverify class diagram'"),
        ({"version": 2}, "has version 2, expected 1. Read it with"),
        ({"network": "0" * 64}, "identity is sha256 .* was changed after it was written"),
        ({"region": {"kind": "torus"}}, "the region is not valid"),
        ({"order": [0, 1, 2]}, "order and inputs do not fit the region"),
        ({"classes": 1}, "classes is 1, expected 2 to 1048576"),
        ({"levels": [1.5]}, "levels is not a list of numbers"),
        ({"levels": [0]}, "there are 1 levels"),
        ({"root": 10**6}, "the root is 1000000, expected a number below"),
        ({"root": "1"}, "root is '1', expected a number"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named(tmp_path, changes, text):
    path = tmp_path / "d.json"
    save_diagram(SAMPLE, path)
    edited(path, **changes)
    with pytest.raises(FormatError, match=text):
        load_diagram(path)


def test_a_diagram_that_is_not_reduced_or_not_ordered_is_refused():
    def rows(levels, low, high, root):
        return Diagram(2, 2, *(np.array(part, dtype=np.int32) for part in (levels, low, high)), root).fault()

    assert rows([1, 0], [0, 1], [1, 2], 3) is None
    assert "equal children" in rows([1, 0], [0, 2], [1, 2], 3)
    assert "two nodes are equal" in rows([1, 1, 0], [0, 0, 2], [1, 1, 3], 4)
    assert "not ordered" in rows([1, 1], [0, 1], [1, 2], 3)
    assert "not sorted" in rows([0, 1], [0, 1], [1, 0], 3)
    assert "outside 0 to 1" in rows([2, 0], [0, 1], [1, 2], 3)
    assert "expected a smaller number" in rows([1, 0], [0, 3], [1, 2], 3)
    assert "has no parent" in rows([1, 0], [0, 1], [1, 0], 3)


def test_files_are_named_for_what_they_hold(tmp_path):
    with pytest.raises(FormatError, match=r"d.txt: has the suffix '.txt', expected .json or .dddmp"):
        save_diagram(SAMPLE, tmp_path / "d.txt")
    with pytest.raises(FormatError, match="cannot be read"):
        load_diagram(tmp_path / "none.json")
    (tmp_path / "plain.dddmp").write_text(".ver DDDMP-2.0\n.nodes\n.end\n")
    with pytest.raises(FormatError, match="has no comment lines '# bnnverify'"):
        load_diagram(tmp_path / "plain.dddmp")


def test_questions_that_make_no_sense_are_refused():
    for call, text in (
        (lambda: SAMPLE.class_of((1, 1)), "has 2 entries, expected 6"),
        (lambda: SAMPLE.count({9: 1}), "input 9 does not exist, expected 0 to 5"),
        (lambda: SAMPLE.count({0: 0}), "the value of input 0 is 0, expected -1 or"),
        (lambda: SAMPLE.nearest([3]), "class 3 does not exist, expected 0 to 2"),
        (lambda: SAMPLE.sample([]), "no input of the region has a class"),
        (lambda: compile_diagram(network(), SAMPLE.region, order=[0, 0]), "order has 2 entries"),
        (lambda: compile_diagram(network(), HammingBall((1,), 1)), "the region has 1 inputs"),
    ):
        with pytest.raises(QueryError, match=text):
            call()


def test_a_region_of_one_input_is_a_leaf(tmp_path):
    diagram = compile_diagram(network(), FixedIndexRegion(CENTER, ()))
    assert len(diagram.diagram) == 0 and sum(diagram.count()) == 1
    for name in ("one.json", "one.dddmp"):
        save_diagram(diagram, tmp_path / name)
        assert load_diagram(tmp_path / name).class_of(CENTER) == network().evaluate(CENTER)


def test_scales_too_far_apart_are_refused_and_the_engine_goes_another_way():
    from bnnverify.engines.bdd import BddEngine
    from bnnverify.query import Query, Untargeted

    wide = BinaryNetwork(
        InputDomain.binary(3), network(3).blocks, OutputBlock.create([[1, 1, 1, -1], [1, -1, 1, 1]], scale=[1, 2**60])
    )
    with pytest.raises(UnsupportedError, match="expected at most 1099511627776"):
        compile_diagram(wide, whole_cube(3))
    query = Query(wide, whole_cube(3), Untargeted(0))
    assert BddEngine().count(query).adversarial == len(oracle.adversarial_points(query))
