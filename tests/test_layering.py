"""Imports point one way: to lower rooms, without cycles, and the heavy packages only where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

import bnnverify

PACKAGE = Path(bnnverify.__file__).parent

ROOMS = {
    0: "errors",
    1: "scalars reading files fields compilation domain blocks convolution network boxes regions rates permanent "
    "faults query results quantities",
    2: "blas confidence folding cardinality packing processes simd stages vectors kernels summary devices datasets",
    3: "encodings formats",
    4: "engines",
    5: "deciding robustness counting reliability explain certificates checking",
    6: "campaign certification",
    7: "report",
    8: "training",
    9: "cli __main__",
}
ROOM = {name: room for room, names in ROOMS.items() for name in names.split()}
TOP = 10  # bnnverify/__init__.py, the lazy public surface: nothing inside imports it

# Packages that cost a second or a gigabyte: the room or file where a file-level import is allowed.
TORCH_AT_FILE_LEVEL = ("training",)
TORCH_IN_FUNCTIONS = ("training", "formats", "engines.gpu")


def modules():
    """Dotted name below bnnverify -> path; the package itself is ''."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path, name, types_too=True):
    """(imported dotted name, at file level?) of every import of a file."""
    found = []

    def visit(node, at_file_level):
        if is_type_checking(node) and not types_too:
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_file_level) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["bnnverify", *filter(None, name.split("."))]
                inside = package if path.name == "__init__.py" else package[:-1]
                base = ".".join([*inside[: len(inside) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_module = full.removeprefix("bnnverify.") in MODULES and full.startswith("bnnverify.")
                found.append((full if is_module else base, at_file_level))
        inner = at_file_level and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def own(target):
    """The name below bnnverify, or None for another package."""
    if target == "bnnverify":
        return ""
    return target.removeprefix("bnnverify.") if target.startswith("bnnverify.") else None


def room(name):
    return ROOM[name.split(".")[0]] if name else TOP


@pytest.mark.parametrize("name", [m for m in MODULES if m])
def test_every_module_has_a_room_and_imports_only_lower_or_equal_ones(name):
    assert name.split(".")[0] in ROOM, f"bnnverify.{name} has no room: add it to the list and to the architecture page"
    for target, _ in imports(MODULES[name], name):
        inside = own(target)
        if inside is not None:
            assert room(inside) <= room(name), f"bnnverify.{name} imports {target}, which lies in a higher room"


def test_no_files_import_each_other_in_a_circle():
    graph = nx.DiGraph()
    for name, path in MODULES.items():
        for target, at_file_level in imports(path, name, types_too=False):
            inside = own(target)
            if at_file_level and inside is not None and inside != name:
                graph.add_edge(name, inside)
    cycle = next(nx.simple_cycles(graph), None)
    assert cycle is None, f"import cycle: {' -> '.join(cycle or [])}"


@pytest.mark.parametrize("name", MODULES)
def test_torch_stays_where_it_belongs(name):
    def within(rooms):
        return any(name == r or name.startswith(f"{r}.") for r in rooms)

    for target, at_file_level in imports(MODULES[name], name):
        if target.split(".")[0] == "torch":
            allowed = TORCH_AT_FILE_LEVEL if at_file_level else TORCH_IN_FUNCTIONS
            assert within(allowed), f"bnnverify.{name} imports torch {'at file level' if at_file_level else ''}"


def test_checking_trusts_no_engine():
    for name in MODULES:
        if name.split(".")[0] == "checking":
            for target, _ in imports(MODULES[name], name):
                inside = own(target)
                assert inside is None or inside.split(".")[0] == "checking" or room(inside) <= 1


def test_the_walk_sees_imports_of_every_style(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(
        "from __future__ import annotations\n"
        "import torch.nn as nn, json\n"
        "from bnnverify import network\n"
        "from . import errors\n"
        "from .engines.base import Limits\n"
        "if TYPE_CHECKING:\n    from bnnverify.query import Query\n"
        "def f():\n    from bnnverify.results import Run\n"
    )
    found = imports(path, "sample")
    assert ("torch.nn", True) in found and ("bnnverify.network", True) in found
    assert ("bnnverify.errors", True) in found and ("bnnverify.engines.base", True) in found
    assert ("bnnverify.query", True) in found and ("bnnverify.results", False) in found
    assert ("bnnverify.query", True) not in imports(path, "sample", types_too=False)


READS = {
    "open", "fdopen", "read_bytes", "read_text", "fromfile", "loadtxt", "genfromtxt", "decompress", "GzipFile",
    "ZipFile", "is_zipfile", "decompressobj", "memmap",
}  # fmt: skip
LOADS = {"json", "np", "numpy", "torch", "pickle", "tomllib", "yaml"}
WRITES = {"write_bytes", "write_text", "savez", "tofile", "dump", "NamedTemporaryFile", "mkstemp"}
GATES = ("reading", "files")
OF_ITS_OWN = {
    "compilation": "machine code that numba keeps",
    "datasets.digits": "a file of scikit-learn",
    "datasets.obtain": "what a package manager fetched, compared with pinned checksums",
    "formats.torchfiles": "torch reads the file that the gate opened",
    "formats.native": "an archive in memory, to write",
    "cli": "the null device",
}


def calls_of_files(tree):
    """`(line, name)` of calls that open, unpack or parse what a user gave, or write it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        owner = called.value.id if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) else ""
        if isinstance(called, ast.Attribute):
            plain = called.attr in READS | WRITES and owner != "reading"
            if plain or (called.attr in ("load", "loads") and owner in LOADS):
                yield node.lineno, called.attr
        elif isinstance(called, ast.Name) and called.id == "open":
            yield node.lineno, called.id


@pytest.mark.parametrize("name", [m for m in MODULES if m not in GATES and m not in OF_ITS_OWN])
def test_files_come_and_go_through_the_gate_only(name):
    found = list(calls_of_files(ast.parse(MODULES[name].read_text(encoding="utf-8"))))
    assert not found, f"bnnverify.{name} touches files itself, expected reading.py or files.py: {found}"


def test_the_gate_is_looked_for_in_every_style():
    text = "open(p); p.open(); os.open(p, 0); json.loads(t); np.load(p); p.read_text(); gzip.decompress(b); own.load(p)"
    assert [name for _, name in calls_of_files(ast.parse(text))] == [
        *("open", "open", "open", "loads", "load", "read_text", "decompress"),
    ]


LIGHT = """
import sys
import bnnverify
from bnnverify import BinaryNetwork, DenseBlock, HammingBall, InputDomain, OutputBlock, Query, Untargeted
from bnnverify import AsymmetricFlip, BitFlip, Count, Decision, Distance, FixedIndexRegion, Kind, Limits, PerBlock
from bnnverify import Probability, Provenance, StuckAt, Targeted, Ties, Verdict, fold_block, load, log_grid, save
from bnnverify import whole_cube
network = BinaryNetwork(InputDomain.binary(2), (), OutputBlock.create([[1, 1], [-1, 1]]))
Query(network, HammingBall((1, 1), 1), Untargeted(0)).identity
save(network, sys.argv[1])
assert load(sys.argv[1]) == network
heavy = {"torch", "numba", "dd", "pysat", "sklearn", "matplotlib", "networkx", "flint", "click", "jinja2"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


def test_the_light_surface_imports_nothing_heavy(tmp_path):
    code = [sys.executable, "-c", LIGHT, tmp_path / "net.npz"]
    assert subprocess.run(code, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_import_alone_does_not_even_import_numpy():
    code = "import sys, bnnverify; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", bnnverify.__all__)
def test_every_public_name_is_there(name):
    assert getattr(bnnverify, name) is getattr(bnnverify, name)
    assert name in dir(bnnverify)


def test_mypy_sees_the_same_names_that_are_imported_lazily():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if is_type_checking(node))
    declared = {
        alias.asname or alias.name: f"{node.module}:{alias.name}" for node in block.body for alias in node.names
    }
    lazily = {}
    for name, where in bnnverify._PUBLIC.items():
        module, _, there = where.partition(":")
        lazily[name] = f"bnnverify.{module}:{there or name}"
    assert declared == lazily
    assert sorted(bnnverify.__all__) == sorted(lazily)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'bnnverify' has no attribute 'nonsense'"):
        _ = bnnverify.nonsense
    assert bnnverify.__version__
