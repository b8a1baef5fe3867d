"""Processes that the package starts: none outlives its parent, and a signal to all of them keeps what is proved."""

import os
import signal
import subprocess
import sys

import pytest

from bnnverify.errors import ResourceLimitError
from bnnverify.processes import Apart

FOREVER = 60  # s: far more than anything here takes that is no hang
SIGNALS = [signal.SIGTERM, signal.SIGKILL]


def started(code):
    """A Python process whose pipes all its descendants share: reading them to the end waits for every one of these."""
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(process):
    """What was still said, once the process and all its descendants are gone."""
    try:
        return process.communicate(timeout=FOREVER)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("a process outlived its parent") from None


# A loop of bytecode lets the watching thread run; one in C does not, and the kernel must help.
needs_prctl = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
LOOPS = ["while True: pass", pytest.param("sum(range(10**18))", marks=needs_prctl)]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_apart_ends_with_its_parent(loop, number):
    inside = f"print('inside', flush=True)\n{loop}"
    process = started(f"from bnnverify.processes import Apart\nApart(exec, {inside!r}).received()")
    assert process.stdout.readline() == "inside\n"
    process.send_signal(number)
    assert ended(process) == ("", "")
    assert process.returncode == -number


def test_a_call_whose_parent_dies_while_it_starts_ends_too():
    process = started("import os; from bnnverify.processes import Apart; Apart(eval, '1'); os._exit(0)")
    ended(process)


RACE = """
import sys
from bnnverify.deciding.race import race
from bnnverify.engines.base import Clock, Limits
from bnnverify.network import BinaryNetwork, DenseBlock, InputDomain, OutputBlock
from bnnverify.query import Query, Untargeted
from bnnverify.regions import HammingBall
import numpy as np
rng = np.random.default_rng(1)
signs = lambda *shape: rng.choice([-1, 1], shape)
blocks = (DenseBlock.create(signs(60, 60), [0] * 60), DenseBlock.create(signs(60, 60), [0] * 60))
network = BinaryNetwork(InputDomain.binary(60), blocks, OutputBlock.create(signs(2, 60), bias=[40, 0]))
query = Query(network, HammingBall((1,) * 60, 30), Untargeted(0))
print("ready", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "call",
    [
        "race(query, ('minicard', 'sat'), limits=Limits(), clock=Clock(None), jobs=2)",
        "from bnnverify.engines import engine_named; engine_named('cadical').decide(query)",
    ],
)
def test_engines_in_processes_end_with_the_parent(call, number):
    process = started(RACE + call)
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)  # they are hard at work, or still starting: either must end
    process.send_signal(number)
    ended(process)


@pytest.mark.parametrize("arguments", [("1",), ("undefined",), ("__import__('os')._exit(3)",), ("2" * 10**6,)])
def test_a_call_apart_answers_or_says_that_it_could_not(arguments):
    with Apart(eval, *arguments) as call:
        if arguments == ("1",):
            assert call.received() == 1
        else:
            with pytest.raises(ResourceLimitError, match="its process ended by itself"):
                call.received()
    assert call.connection.closed


def test_the_end_of_the_with_statement_ends_the_call():
    with Apart(exec, "while True: pass") as call:
        assert not call.connection.poll(0.1)
    assert call.connection.closed
