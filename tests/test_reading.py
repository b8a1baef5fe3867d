"""The gate: what is no honest file is refused by one sentence, before memory is taken for it."""

import gzip
import io
import json
import os
import tracemalloc
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify import reading
from bnnverify.errors import FormatError


def npy(header, data=b""):
    """A .npy file of version 1.0 with any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(compression=zipfile.ZIP_DEFLATED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def test_a_file_comes_in_as_it_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert reading.read_bytes(path, "text").startswith(b"\xef\xbb\xbfone")
    assert reading.read_text(path, "text") == "one\ntwo\nthree\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_only_regular_files_are_read_and_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a directory"), ("/dev/zero", "a character device")):
        with pytest.raises(FormatError, match=f"is {what}.*, expected a regular file .a network.. Check the path"):
            reading.read_bytes(path, "a network")


@pytest.mark.parametrize("name", ["missing", "a\0b", "half\ud800", "x" * 5000])
def test_a_name_that_is_none_is_one_sentence(name):
    with pytest.raises(FormatError, match=r"expected a network. Check the path") as caught:
        reading.read_bytes(name, "a network")
    str(caught.value).encode()


def test_a_size_is_bounded_before_memory_is_taken(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(FormatError, match=f"has {2**40} bytes, expected a network of at most {2**31}"):
        reading.read_bytes(path, "a network")


def test_a_small_file_takes_little_memory(tmp_path):
    (tmp_path / "file").write_bytes(gzip.compress(b"x" * 1000))
    tracemalloc.start()
    assert reading.read_unpacked(tmp_path / "file", "text") == b"x" * 1000
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_bombs_are_refused_early():
    zeros = bytes(reading.SMALL * 2)
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"become .* or more, expected text that grows at most 300 times"):
        reading.gunzipped(gzip.compress(zeros), "bomb.gz", "text")
    with pytest.raises(FormatError, match=r"become .* or more, expected arrays that grows at most 300 times"):
        reading.Archive(archive(a=zeros), "bomb.zip", "arrays")
    assert tracemalloc.get_traced_memory()[1] < 3 * reading.SMALL
    tracemalloc.stop()
    assert len(reading.gunzipped(gzip.compress(zeros[: reading.SMALL]), "zeros.gz", "text")) == reading.SMALL


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(1, 255))
def test_damaged_gzip_is_one_sentence(data, place, change):
    packed = bytearray(gzip.compress(data))
    packed[place % len(packed)] ^= change
    for damaged in (bytes(packed), bytes(packed[: place % len(packed)])):
        try:
            reading.gunzipped(damaged, "file.gz", "text")
        except FormatError as error:
            assert str(error).startswith("file.gz: ")


def test_gzip_in_several_parts_is_read_whole():
    assert reading.gunzipped(gzip.compress(b"one") + gzip.compress(b"two"), "file.gz", "text") == b"onetwo"


@given(st.integers(0, 400), st.integers(1, 255))
def test_damaged_archives_are_one_sentence(place, change):
    data = bytearray(archive(a=b"some bytes" * 9, b=b""))
    data[place % len(data)] ^= change
    try:
        with reading.Archive(bytes(data), "file.zip", "arrays") as found:
            for name in found.names:
                found.read(name)
    except FormatError as error:
        assert str(error).startswith("file.zip: ")


def test_members_that_are_packed_in_other_ways_are_refused():
    with pytest.raises(FormatError, match="member 'a' is encrypted or packed in an unknown way"):
        reading.Archive(archive(zipfile.ZIP_LZMA, a=b"xyz"), "file.zip", "arrays")


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "|i1", "|b1", "<f4", "<f2", "<u2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_in_as_numpy_wrote_them(dtype, shape, order):
    array = np.asarray(np.arange(int(np.prod(shape))).reshape(shape), dtype=dtype, order=order)
    stream = io.BytesIO()
    np.save(stream, array)
    found = reading.array_of(stream.getvalue(), "file.npy")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551616,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999999,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 7, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': 1, 'shape': 8}",
        "{'descr': '<f8'}",
        "((((((((((" * 500,
        "[" * 9000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)",
        "",
        "\0",
    ],
)
def test_headers_of_arrays_that_do_not_fit_are_one_sentence(header):
    with pytest.raises(FormatError, match=r"^file.npy: "):
        reading.array_of(npy(header, bytes(8)), "file.npy")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 101 + "]" * 101,
        "[" * 100_000,
        '{"a":' * 5000,
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        "1e999",
        "-1E99999999",
        '{"a": 1, "a": 2}',
        '"\\ud800"',
        '{"\\ud800": 1}',
        '"\\u0000"',
        '["a", ["\\udc00 "]]',
        "1" * 200_000,
        "",
        "{",
        "\ufeff\ufeff1",
    ],
)
def test_json_that_is_not_plain_is_one_sentence(text):
    with pytest.raises(FormatError, match=r"^file: "):
        reading.json_of(text.encode(), "file", "a line")


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
)


@given(VALUES)
def test_plain_json_is_read_as_python_reads_it(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), "\ufeff" + json.dumps(value)):
        assert reading.json_of(text.encode(), "file", "a line") == value


def test_brackets_in_strings_do_not_count():
    text = json.dumps(["[" * 1000 + '\\"' * 5 + "{" * 10])
    assert reading.parsed(text) == json.loads(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=5))
def test_numbers_are_read_exactly(value):
    assert reading.number(str(value)) == Fraction(value)


@pytest.mark.parametrize(
    "word",
    ["1e99999999", "1e-99999999", "1e4001", "1/0", "", ".", "e5", "1_0", "nan", "0x1", "--1", "1/-2", "1" * 9000, "½"],
)
def test_words_that_are_no_bounded_numbers_are_refused(word):
    with pytest.raises(ValueError, match=r"is no number|denominator 0|exponent beyond"):
        reading.number(word)


@pytest.mark.parametrize(
    ("word", "value"),
    [("+.5", Fraction(1, 2)), ("5.", Fraction(5)), (" -3/8 ", Fraction(-3, 8)), ("1E2", Fraction(100))],
)
def test_numbers_of_every_style(word, value):
    assert reading.number(word) == value


@pytest.mark.parametrize("data", [b"\xff\xfe1\x00", b"a\0b", b"\xed\xa0\x80"])
def test_what_is_no_text_is_one_sentence(data):
    with pytest.raises(FormatError, match=r"^file: .*expected a list"):
        reading.text_of(data, "file", "a list")
