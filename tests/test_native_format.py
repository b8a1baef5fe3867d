"""The native file: what goes in comes out, and anything else is one clear sentence."""

import io
import json
import struct
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnverify.errors import BnnVerifyError, FormatError, ModelError
from bnnverify.files import write_whole
from bnnverify.formats import load_network
from bnnverify.formats.native import load, save, to_bytes
from bnnverify.network import BinaryNetwork, ConvBlock, DenseBlock, InputDomain, OutputBlock, Provenance
from tests.strategies import conv_networks, networks


def small_network(provenance=None):
    hidden = DenseBlock.create(
        [[1, -1, 1], [-1, -1, 0]], [1, -2], mask=np.array([[1, 1, 1], [1, 1, 0]]) == 1, negated=np.array([True, False])
    )
    output = OutputBlock.create([[1, 1], [-1, 1]], scale=[Fraction(1, 3), 0.1], bias=[0, -2])
    return BinaryNetwork(
        InputDomain.binary(3, (1, 3)), (hidden,), output, Provenance(provenance or {"made": "by hand"})
    )


def members(data):
    """Name -> raw bytes of the zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in parts.items():
            archive.writestr(name, raw)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def with_header(parts, change):
    header = json.loads(np.load(io.BytesIO(parts["header.npy"])).tobytes())
    change(header)
    return parts | {"header.npy": npy(np.frombuffer(json.dumps(header).encode(), dtype=np.uint8))}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.npz"


@given(st.one_of(networks(max_classes=5), conv_networks()))
@settings(max_examples=150, deadline=None)
def test_what_was_saved_is_loaded(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("native") / "net.npz"
    save(network, path)
    again = load_network(path)
    assert again == network
    assert again.identity == network.identity
    assert again.cells_identity == network.cells_identity
    assert list(again.canonical_bytes()) == list(network.canonical_bytes())
    assert to_bytes(again) == path.read_bytes() == to_bytes(network)


def test_scales_biases_flags_shape_and_provenance_survive(path):
    network = small_network({"seed": 3, "nested": {"a": [1, 2.5, None, "ä"]}})
    save(network, path)
    again = load(path)
    assert again.output.scale == (Fraction(1, 3), Fraction(0.1))
    assert again.output.bias == (0, -2)
    assert again.blocks[0].negated.tolist() == [True, False]
    assert again.blocks[0].weights.tolist() == [[1, -1, 1], [-1, -1, 0]]
    assert again.domain.shape == (1, 3)
    assert again.provenance == network.provenance


def test_an_integer_domain_is_loaded_with_its_bounds(path):
    network = BinaryNetwork(InputDomain.integers([-3, 0], [255, 7]), (), OutputBlock.create([[1, 1], [1, -1]]))
    save(network, path)
    again = load(path)
    assert again == network
    assert again.domain.lower.tolist() == [-3, 0] and again.domain.upper.tolist() == [255, 7]
    assert not again.domain.is_binary
    parts = members(to_bytes(network))
    assert np.load(io.BytesIO(parts["domain.upper.npy"])).tolist() == [255, 7]


def test_another_process_sees_the_same_identity_and_writes_the_same_bytes(path, tmp_path):
    network = small_network()
    save(network, path)
    code = (
        "import sys; from bnnverify.formats.native import load, save;"
        "n = load(sys.argv[1]); save(n, sys.argv[2]); print(n.identity)"
    )
    copy = tmp_path / "copy.npz"
    done = subprocess.run([sys.executable, "-c", code, path, copy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == network.identity
    assert copy.read_bytes() == path.read_bytes()


def test_numpy_opens_the_file_without_pickle(path):
    save(small_network(), path)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["blocks.0.weights"].dtype == np.int8
        assert arrays["blocks.0.thresholds"].tolist() == [1, -2]
        assert json.loads(arrays["header"].tobytes())["version"] == 1


def test_a_file_that_numpy_compressed_again_is_still_ours(path):
    parts = members(to_bytes(small_network()))
    write_members(path, parts, zipfile.ZIP_DEFLATED)
    assert load(path) == small_network()


def test_provenance_must_be_json(path):
    with pytest.raises(ModelError, match=r"the provenance is not plain JSON"):
        save(small_network({"x": {1, 2}}), path)
    with pytest.raises(ModelError, match=r"not plain JSON"):
        save(small_network({"x": float("nan")}), path)
    assert not path.exists()


# What is not a network file.


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    for read in (load, load_network):
        with pytest.raises(FormatError, match=r"none\.npz: cannot be read \(no such file or directory\)"):
            read(tmp_path / "none.npz")
    with pytest.raises(FormatError, match=r"is a directory, expected a regular file"):
        load(tmp_path)
    with pytest.raises(FormatError, match="holds nothing, expected a model folder of BNNQuanalyst"):
        load_network(tmp_path)


def test_an_unknown_kind_is_refused_with_what_is_supported(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x08\x07\x12\x04")
    with pytest.raises(FormatError, match=r"model\.bin: is of an unknown kind .*expected .*\.npz"):
        load_network(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and then nothing", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_archive_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"net.npz: (is not a readable archive|has no array 'header')"):
        load(path)


def test_every_truncation_is_noticed(path):
    whole = to_bytes(small_network())
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"is not a readable"):
            load(path)


@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_noticed_or_harmless(tmp_path_factory, position, value):
    network = small_network()
    whole = bytearray(to_bytes(network))
    whole[position % len(whole)] ^= value
    path = tmp_path_factory.mktemp("changed") / "net.npz"
    path.write_bytes(bytes(whole))
    try:
        assert load(path) == network  # a time stamp or an attribute of the zip
    except FormatError as error:
        assert str(error).startswith(str(path))


def test_a_foreign_npz_is_refused(path):
    np.savez(path, a=np.zeros(3))
    with pytest.raises(FormatError, match=r"has no array 'header' \(it holds a\.npy\), expected a network file"):
        load(path)


def test_an_object_array_is_not_unpickled(path):
    parts = members(to_bytes(small_network()))
    for name in ("header.npy", "output.weights.npy"):
        write_members(path, parts | {name: npy(np.array([[object]], dtype=object))})
        with pytest.raises(FormatError, match=f"array '{name[:-4]}': has dtype object"):
            load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(version=3), "has format version 3, expected at most 2. Read it with the bnnverify release"),
        (lambda h: h.update(format="other"), "names the format 'other', expected 'bnnverify network'"),
        (lambda h: h.pop("output"), "the header has no entry 'output'"),
        (lambda h: h.update(domain=[]), "the header does not describe a network"),
        (lambda h: h.update(blocks=7), "the header does not describe a network"),
        (lambda h: h["domain"].update(kind="reals"), "domain kind is 'reals', expected 'binary' or 'integers'"),
        (lambda h: h["domain"].update(shape=[2, 2]), r"image shape is \[2, 2\], expected 3 entries"),
        (lambda h: h["domain"].update(inputs=-1), "a size is -1, expected 1 to"),
        (lambda h: h["domain"].update(inputs=10**40), "a size is 1000000000.*, expected 1 to"),
        (lambda h: h["blocks"][0].update(kind="pool"), "block 0 is of kind 'pool', expected 'dense' or 'conv'"),
        (lambda h: h["blocks"][0].update(kind="conv"), "the header has no entry 'input'"),
        (
            lambda h: h["blocks"][0].update(outputs=2**28, inputs=2**28),
            "calls for .* bytes of arrays, expected at most",
        ),
        (lambda h: h["blocks"][0].update(outputs=3), r"'blocks.0.weights' .*shape \(2, 3\), expected \(3, 3\)"),
        (lambda h: h["blocks"].append(h["blocks"][0]), "has no array 'blocks.1.negated'"),
        (lambda h: h["output"].update(scale=["1/3"]), "output.scale has 1 entries, expected 2"),
        (lambda h: h["output"].update(scale=["1/3", "1e9/1"]), "a scale or bias is '1e9/1', expected text like"),
        (lambda h: h["output"].update(scale=["1/3", "1/0"]), "a scale or bias has denominator 0"),
        (lambda h: h["output"].update(bias=[0, 1]), "a scale or bias is 0, expected text like"),
        (lambda h: h["output"].update(bias=["1/1", "0/1"]), "identity of the arrays is sha256 .* The file was changed"),
        (lambda h: h.update(identity=None), "identity of the arrays is sha256"),
        (lambda h: h.update(provenance=3), "the provenance is not a JSON object"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(path, change, message):
    write_members(path, with_header(members(to_bytes(small_network())), change))
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def conv_network():
    block = ConvBlock.create(
        [[[[1, -1], [0, 1]]], [[[1, 1], [-1, 1]]]],
        [1, 0],
        input_shape=(1, 3, 4),
        stride=(1, 2),
        padding=(0, 1),
        pad_value=-1,
        pool=(2, 1),
        mask=np.array([[[[1, 1], [0, 1]]], [[[1, 1], [1, 1]]]]) == 1,
        negated=np.array([True, False]),
        conjunction=np.array([False, True]),
    )
    return BinaryNetwork(InputDomain.binary(12), (block,), OutputBlock.create([[1] * 6, [-1] * 6]))


def test_every_field_of_a_convolution_survives(path):
    save(conv_network(), path)
    before, after = conv_network().blocks[0], load(path).blocks[0]
    for name in ConvBlock.__dataclass_fields__:
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
        assert type(getattr(before, name)) is type(getattr(after, name)), name


def test_a_network_without_convolutions_is_still_written_as_version_1(path):
    for network, version in ((small_network(), 1), (conv_network(), 2)):
        save(network, path)
        with np.load(path, allow_pickle=False) as arrays:
            assert json.loads(arrays["header"].tobytes())["version"] == version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.update(stride=[1]), r"stride of block 0 is \[1\], expected 2 numbers"),
        (lambda b: b.update(padding=[0, -1]), "a size is -1, expected 0 to"),
        (lambda b: b.update(kernel=[2, 2.0]), "a size is 2.0, expected 1 to"),
        (lambda b: b.update(pad_value="0"), "pad_value of block 0 is '0', expected -1, 0 or 1"),
        (lambda b: b.update(pad_value=7), "blocks.0.pad_value is 7, expected 0"),
        (lambda b: b.update(input=[1, 2**20, 2**20]), "blocks.0.* takes 1099511627776 inputs, but the input gives 12"),
        (lambda b: b.update(pool=[9, 1]), "blocks.0 has pooling windows of 9x1 over 2x3 positions"),
        (lambda b: b.update(pool=[1, 2]), "takes 6 inputs, but .* gives 4|identity of the arrays"),
        (lambda b: b.update(pad_value=1), "identity of the arrays is sha256"),
    ],
)
def test_a_convolution_that_does_not_fit_is_refused(path, change, message):
    parts = with_header(members(to_bytes(conv_network())), lambda h: change(h["blocks"][0]))
    write_members(path, parts)
    with pytest.raises(FormatError, match=message):
        load(path)


def test_tampered_conjunctions_are_refused(path):
    parts = members(to_bytes(conv_network()))
    for values, message in (([0, 0], "identity of the arrays"), ([0, 3], "conjunction holds other values")):
        write_members(path, parts | {"blocks.0.conjunction.npy": npy(np.array(values, np.int8))})
        with pytest.raises(FormatError, match=message):
            load(path)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[1]", b"1" * 5000, b"[" * 100_000])
def test_a_header_that_is_no_json_object_is_refused(path, text):
    header = npy(np.frombuffer(text, dtype=np.uint8))
    write_members(path, members(to_bytes(small_network())) | {"header.npy": header})
    with pytest.raises(FormatError, match=r"the header:? (is not valid JSON|is no text|names the format)"):
        load(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("output.weights", np.array([[1, 1], [1, 1]], np.int8), "identity of the arrays is sha256"),
        ("output.weights", np.array([[1, 1], [-1, 5]], np.int8), r"output.weights\[1, 1\] is 5, expected -1 or \+1"),
        ("output.weights", np.array([[1, 1], [-1, 1]], np.int64), "has dtype int64, expected int8"),
        ("output.weights", np.array([[1, 1]], np.int8), r"has shape \(1, 2\), expected \(2, 2\)"),
        ("blocks.0.thresholds", np.array([1, -1]), "identity of the arrays is sha256"),
        ("blocks.0.thresholds", np.array([1.0, -2.0]), "has dtype float64, expected int64"),
        ("blocks.0.negated", np.array([0, 0], np.int8), "cells_identity of the arrays is sha256"),
        ("blocks.0.negated", np.array([7, 0], np.int8), "blocks.0.negated holds other values than 0 and 1"),
        ("header", np.zeros((2, 2), np.uint8), "expected one dimension"),
        ("extra", np.zeros(3), r"holds 'extra\.npy', expected only the arrays that its header names"),
    ],
)
def test_tampered_arrays_are_refused(path, name, array, message):
    write_members(path, members(to_bytes(small_network())) | {f"{name}.npy": npy(array)})
    with pytest.raises(FormatError, match=message):
        load(path)


def test_a_missing_array_is_named(path):
    parts = members(to_bytes(small_network()))
    del parts["blocks.0.thresholds.npy"]
    write_members(path, parts)
    with pytest.raises(FormatError, match=r"has no array 'blocks\.0\.thresholds'"):
        load(path)


def test_a_member_that_is_no_npy_is_refused(path):
    write_members(path, members(to_bytes(small_network())) | {"output.weights.npy": b"hello"})
    with pytest.raises(FormatError, match=r"'output.weights': is not a plain .npy array"):
        load(path)


def test_an_npy_that_promises_more_than_it_holds_is_refused(path):
    raw = npy(np.array([[1, 1], [-1, 1]], np.int8))[:-1]
    write_members(path, members(to_bytes(small_network())) | {"output.weights.npy": raw})
    with pytest.raises(FormatError, match=r"'output.weights': has 3 bytes of int8 data"):
        load(path)


def test_a_zip_bomb_is_refused_before_it_unfolds(path):
    parts = members(to_bytes(small_network()))
    bomb = parts | {"output.weights.npy": parts["output.weights.npy"] + b"\0" * 50_000_000}
    write_members(path, bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(FormatError, match=r"'output.weights' takes 50000.* bytes, expected at most"):
        load(path)


def test_a_bomb_that_lies_about_its_size_is_refused(path):
    parts = members(to_bytes(small_network()))
    honest = len(parts["output.weights.npy"])
    write_members(path, parts | {"output.weights.npy": b"\0" * 5_000_000}, zipfile.ZIP_DEFLATED)
    lying = path.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", honest))
    path.write_bytes(lying)
    with pytest.raises(FormatError):
        load(path)


def test_an_encrypted_member_is_refused(path):
    whole = bytearray(to_bytes(small_network()))
    central = whole.index(b"PK\x01\x02")
    whole[central + 8] |= 1
    whole[6] |= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(FormatError, match=r"'header.npy' is encrypted"):
        load(path)


# Writing.


@pytest.mark.parametrize("target", ["missing/net.npz", "file/net.npz", ".", "x" * 300])
def test_an_unwritable_path_is_one_sentence_and_leaves_nothing(tmp_path, target):
    (tmp_path / "file").write_text("here first")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FormatError, match=r"cannot be written .* Choose another path") as caught:
        save(small_network(), tmp_path / target)
    assert isinstance(caught.value, BnnVerifyError) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_writing_replaces_and_leaves_no_temporary_file(path):
    path.write_text("old")
    save(small_network(), path)
    assert load(path) == small_network()
    assert [p.name for p in path.parent.iterdir()] == ["net.npz"]


def test_a_failed_write_keeps_the_old_file(path, monkeypatch):
    path.write_bytes(b"old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FormatError, match=r"no space left on device"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["net.npz"]


def test_what_is_no_regular_file_is_written_to_directly():
    write_whole("/dev/null", b"gone")
    assert not Path("/dev/null").is_file()
