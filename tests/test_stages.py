"""Decisions in stages: the verdict of the definition, whatever settles it, and what an open answer says."""

import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings

from bnnverify.deciding import stages
from bnnverify.deciding import turns as engine_turns
from bnnverify.deciding.race import race
from bnnverify.deciding.stages import decide
from bnnverify.deciding.turns import in_turns
from bnnverify.engines.base import Clock, Limits, Monitor
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Ties, Untargeted
from bnnverify.regions import PixelBox, RealBox
from bnnverify.results import Decision, Run, Verdict, answer_from_json
from tests.oracle import adversarial_points, is_adversarial
from tests.strategies import conv_networks, networks, pixel_queries, queries


def agrees(query, points):
    answer = decide(query)
    assert answer.verdict is (Verdict.NOT_ROBUST if points else Verdict.ROBUST), answer.run
    if points:
        assert query.region.contains(answer.counterexample) and is_adversarial(query, answer.counterexample)
    names = [name for name, _ in answer.run.statistics["stages"]]
    assert names[0] == "bounds" and answer.run.reason == ""
    bound, margin = answer.run.statistics["best_bound"], answer.run.statistics["best_margin"]
    assert bound is None or margin is None or margin <= bound
    assert answer_from_json(answer.to_json()).run.statistics == answer.run.statistics


@settings(max_examples=40)
@given(queries(max_inputs=7))
def test_over_signs_the_verdict_is_that_of_the_definition(query):
    agrees(query, adversarial_points(query))


@settings(max_examples=40)
@given(pixel_queries(kind=lambda: networks(max_inputs=5), most=60))
def test_over_pixels_the_verdict_is_that_of_the_definition(query):
    agrees(query, [x for x in query.region.points() if is_adversarial(query, x)])


@settings(max_examples=40)
@given(pixel_queries(kind=lambda: conv_networks(max_inputs=6), most=60))
def test_convolutions_over_pixels_have_the_verdict_of_the_definition(query):
    agrees(query, [x for x in query.region.points() if is_adversarial(query, x)])


@settings(max_examples=40)
@given(pixel_queries(kind=lambda: networks(max_inputs=5), most=60))
def test_a_real_box_is_never_called_robust_against_its_integers(query):
    box = RealBox(tuple(map(Fraction, query.region.lower)), tuple(map(Fraction, query.region.upper)))
    answer = decide(replace(query, region=box))
    if any(is_adversarial(query, x) for x in query.region.points()):
        assert answer.verdict is Verdict.NOT_ROBUST
    else:
        assert answer.verdict in (Verdict.ROBUST, Verdict.UNKNOWN)


def between_the_integers():
    """Adversarial where both neurons fire: at no integers, but their bounds over reals do not show that."""
    rows = np.array([[1, 1, -1], [-1, -1, 1]])
    block = DenseBlock.create(rows, [1, 0])  # x + x' - y >= 1 and x + x' - y <= 0: never together
    output = OutputBlock.create([[1, 1], [-1, -1]], bias=[0, -1])
    return BinaryNetwork(InputDomain.integers([0] * 3, [2] * 3), (block,), output)


def test_a_proof_about_integers_says_nothing_about_the_reals_between():
    network = between_the_integers()
    box = ((0, 0, 0), (2, 2, 2))
    assert decide(Query(network, PixelBox(*box), Untargeted(0))).verdict is Verdict.ROBUST
    answer = decide(Query(network, RealBox(*box), Untargeted(0)))
    assert answer.verdict is Verdict.UNKNOWN
    assert "all integer inputs of the real box" in answer.run.reason


def never_both():
    """Robust, as neurons that exclude each other show, but not by bounds of one neuron at a time."""
    rows = np.array([[1, -1, 1, -1], [-1, 1, -1, 1]])
    output = OutputBlock.create([[-1, -1], [1, 1]], bias=[0, -1])
    return BinaryNetwork(InputDomain.integers([0] * 4, [9] * 4), (DenseBlock.create(rows, [1, 1]),), output)


def test_an_open_answer_has_its_reason_the_best_bound_and_the_best_margin(monkeypatch):
    monkeypatch.setattr(stages._Course, "plan", lambda self: [("bounds", self.bounds), ("attack", self.quick)])
    answer = decide(Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0)))
    assert answer.verdict is Verdict.UNKNOWN and answer.counterexample is None
    assert answer.run.reason.startswith("attack: no counterexample met in")
    assert answer.run.statistics["best_margin"] < 0 <= answer.run.statistics["best_bound"]


def test_a_caller_can_stop_it_and_time_can_run_out():
    query = Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0))
    assert decide(query, monitor=Monitor(stop=True)).run.reason == "interrupted"
    late = decide(query, limits=Limits(seconds=1e-9))
    assert late.verdict is Verdict.UNKNOWN and late.run.reason == "time limit of 1e-09 s reached"


def test_engines_take_turns_until_one_is_done():
    query = Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0))
    answer = in_turns(query, {"propagation": 1.0, "minicard": 1.0}, limits=Limits(), clock=Clock(60))
    assert answer.verdict is Verdict.ROBUST and answer.run.engine == "minicard"


def test_engines_that_all_give_up_say_why():
    query = Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0))
    answer = in_turns(query, {"propagation": 1.0}, limits=Limits(), clock=Clock(60))
    assert answer.verdict is Verdict.UNKNOWN and answer.run.reason.startswith("propagation: ")


def test_an_engine_that_used_its_turn_gets_a_longer_one(monkeypatch):
    turns = []

    class Slow:
        def decide(self, query, *, limits):
            turns.append(limits.seconds)
            verdict = Verdict.UNKNOWN if len(turns) < 3 else Verdict.ROBUST
            time.sleep(limits.seconds)
            return Decision(verdict, Run("slow", reason="time limit"))

    monkeypatch.setattr(engine_turns, "engine_named", lambda name: Slow())
    query = Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0))
    assert in_turns(query, {"slow": 0.01}, limits=Limits(), clock=Clock(60)).verdict is Verdict.ROBUST
    assert turns == [0.01, 0.04, 0.16]


def test_a_race_of_processes_gives_a_verdict_and_the_reasons_of_those_that_gave_up():
    query = Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0))
    answer = race(query, ("propagation", "minicard"), limits=Limits(), clock=Clock(60), jobs=1)
    assert answer.verdict is Verdict.ROBUST and answer.run.engine == "minicard"


def test_a_race_ends_with_its_clock():
    query = Query(never_both(), PixelBox((0,) * 4, (9,) * 4), Untargeted(0))
    answer = race(query, ("minicard",), limits=Limits(), clock=Clock(1e-3), jobs=2)
    assert answer.verdict is Verdict.UNKNOWN and "time limit" in answer.run.reason


def test_the_best_bound_over_real_inputs_without_hidden_blocks_is_no_proof_where_there_is_none():
    # score 1 - score 0 is x0, up to 1/2: open, and every integer input is robust
    net = BinaryNetwork(InputDomain.integers([-1], [1]), (), OutputBlock.create([[1], [1]], scale=[0, 1]))
    query = Query(net, RealBox((Fraction(-1),), (Fraction(1, 2),)), Untargeted(0), Ties.ROBUST)
    decision = decide(query, limits=Limits(seconds=5))
    assert decision.verdict is Verdict.UNKNOWN and decision.run.statistics["best_bound"] == 0


def test_a_race_does_not_run_the_callers_script_again(tmp_path):
    script = tmp_path / "plain.py"
    lines = [
        "import bnnverify as bv",
        "from bnnverify.deciding.race import race",
        "from bnnverify.engines.base import Clock",
        "print('once')",
        "net = bv.BinaryNetwork(bv.InputDomain.binary(3), (), bv.OutputBlock.create([[1, 1, 1], [-1, -1, -1]]))",
        "query = bv.Query(net, bv.HammingBall((1, 1, 1), 1), bv.Untargeted(0))",
        "print(race(query, ['minicard'], limits=bv.Limits(), clock=Clock(60), jobs=1).verdict.value)",
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["once", "robust"], done.stderr
