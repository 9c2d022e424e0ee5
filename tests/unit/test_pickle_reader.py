"""Pickles are read as what they hold, and nothing they name is run."""

import builtins
import collections
import os
import pickle
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from didact.datasets._pickle_reader import Record, read

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN: list[Any] = [
    *(None, True, False, 0, 255, -1, 65_536, 2**31, -(2**70), 10**400, 1.5, -0.0, float("inf")),
    *("", "aß€\n\\", "x" * 300, b"", b"\x00\xff", b"y" * 300),
    *([], [1, [2, []]], list(range(1_100)), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    *({}, {"a": [1], 2: None, (1, "b"): {}}, {i: str(i) for i in range(300)}),
    *(set(), {1, 2, "c"}, frozenset(), frozenset([3, 4])),
]
ARRAYS: list[Any] = [
    *(np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3).T, np.array(3), np.zeros((0, 3))),
    *(np.arange(10)[::2], np.arange(5, dtype=">i4"), np.array(["ab", "c"]), np.array([b"a"])),
    *(np.array([1 + 2j]), np.array([True, False]), np.arange(3, dtype=np.float16)),
    np.array([(1, 2.0, "x")], dtype=[("a", "i4"), ("b", ">f8"), ("c", "U3")]),
    np.zeros(2, np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [3], "itemsize": 8})),
    *(np.float32(2), np.int64(-3), np.bool_(True), np.str_("ab"), np.complex64(1j)),
]


class Runs:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Tree:
    """A class that the reader may be told to keep."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_come_back(protocol: int) -> None:
    for value in PLAIN:
        found = read(pickle.dumps(value, protocol))
        assert found == value
        assert type(found) is type(value)
        assert repr(found) == repr(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_scalars_come_back(protocol: int) -> None:
    found = read(pickle.dumps({"x": [ARRAYS, list(ARRAYS)]}, protocol))["x"]
    for array, value in zip(found[0] + found[1], ARRAYS + ARRAYS, strict=True):
        assert type(array) is type(value)
        assert array.dtype == value.dtype
        assert array.shape == value.shape
        assert array.tobytes() == value.tobytes()
        assert not array.size or not array.flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_shared_stays_shared(protocol: int) -> None:
    shared: list[Any] = [1]
    shared.append(shared)
    array = np.arange(3)
    first, second, third, fourth = read(pickle.dumps((shared, shared, array, array), protocol))
    assert first is second
    assert first[1] is first
    assert third is fourth


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Runs(os.system, "false"), "system"),
        (Runs(builtins.eval, "1"), "eval"),
        (Runs(builtins.getattr, "a", "b"), "getattr"),
        (Runs(np.load, "x"), "load"),
        (collections.OrderedDict(a=1), "OrderedDict"),
        (np.random.RandomState, "RandomState"),
        (Tree(), "(Tree|_reconstructor)"),
        (np.array([None]), "'O8'"),
        (np.array(["2020"], "M8[D]"), "'M8'"),
        (np.ma.masked_array([1], [True]), "_mareconstruct"),
        (memoryview, "memoryview"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_pickle_may_not_name_is_refused(value: Any, name: str) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(ValueError, match=f"{name}.*refused"):
            read(pickle.dumps([1, value], protocol))


def test_what_is_refused_is_not_run(tmp_path: Any) -> None:
    target = tmp_path / "made"
    with pytest.raises(ValueError, match="refused"):
        read(pickle.dumps(Runs(os.mkdir, str(target))))
    assert not target.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_of_listed_classes_are_records(protocol: int) -> None:
    tree = Tree()
    tree.nodes, tree.twin = np.arange(3), tree  # type: ignore[attr-defined]
    data = pickle.dumps([tree, tree], protocol)
    first, second = read(data, {(Tree.__module__, "Tree")})
    assert first is second
    assert isinstance(first, Record)
    assert (first.module, first.name) == (Tree.__module__, "Tree")
    np.testing.assert_array_equal(first.state["nodes"], [0, 1, 2])
    assert first.state["twin"] is first


def test_a_listed_class_cannot_be_called() -> None:
    data = pickle.dumps(Runs(Tree))
    with pytest.raises(ValueError, match=r"calls .*Tree, which is refused"):
        read(data, {(Tree.__module__, "Tree")})


SAMPLE = {
    "text": ["a", "β"],
    "numbers": (1, 2**40, 1.5, b"\x01"),
    "array": np.arange(4.0).reshape(2, 2),
    "record": np.zeros(2, [("a", "i2"), ("b", "f8")]),
    "scalar": np.float32(3),
    "set": {1, 2},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_truncated_pickle_is_an_error(protocol: int) -> None:
    data = pickle.dumps(SAMPLE, protocol)
    for size in range(0, len(data), 11):
        with pytest.raises(ValueError, match=r"."):
            read(data[:size])
    with pytest.raises(ValueError, match="after its end"):
        read(data + b".")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_changed_pickle_is_an_error_or_another_value(protocol: int) -> None:
    data = pickle.dumps(SAMPLE, protocol)
    random = np.random.default_rng(protocol)
    messages = []
    for _ in range(100):
        changed = bytearray(data)
        for place in random.integers(len(data), size=random.integers(1, 4)):
            changed[place] = random.integers(256)
        try:
            read(bytes(changed))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert max(map(len, messages)) < 300
    assert not [message for message in messages if "\n" in message]


def _op(code: bytes, form: str, number: int, rest: bytes = b"") -> bytes:
    return code + struct.pack(form, number) + rest


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"


def _array(code: bytes, shape: bytes, raw: bytes) -> bytes:
    dtype = b"cnumpy\ndtype\n(X" + struct.pack("<I", len(code)) + code + b"\x89\x88tR"
    dtype += b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return b"\x80\x03" + NDARRAY + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb."


def _counted(data: bytes) -> str:
    """The error of a pickle, which must not take more memory than a pickle of its size can need."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r".") as error:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 500 * len(data) + 100_000
    finally:
        tracemalloc.stop()
    return str(error.value)


def test_the_pickles_of_the_next_test_would_be_read_but_for_their_sizes() -> None:
    raw = b"C\x10" + bytes(16)
    np.testing.assert_array_equal(read(_array(b"f8", b"K\x02\x85", raw)), [0, 0])


@pytest.mark.parametrize(
    "data",
    [
        _op(b"\x80\x04\x8e", "<Q", 2**40, b"abc."),
        _op(b"\x80\x04\x8d", "<Q", 2**62, b"abc."),
        _op(b"\x80\x02B", "<I", 2**32 - 1, b"abc."),
        _op(b"\x80\x02\x8b", "<i", 2**31 - 1, b"abc."),
        _array(b"f8", _op(b"J", "<i", 2**30) + b"\x85", b"C\x08" + bytes(8)),
        _array(b"f8", _op(b"J", "<i", 2**31 - 1) + _op(b"J", "<i", 0) + b"\x86", b"C\x01a"),
        _array(b"f8", b"(" + b"K\x02" * 1_000 + b"t", b"C\x08" + bytes(8)),
        _array(b"V999999999", b"K\x01\x85", b"C\x08" + bytes(8)),
        _array(b"U999999999", b"K\x01\x85", b"C\x08" + bytes(8)),
        _array(b"S99999999999999999", b"K\x01\x85", b"C\x08" + bytes(8)),
        b"\x80\x02X\x64\x00\x00\x00" + b"a" * 100 + b"q\x00(" + b"]" * 9 + b"t.",
    ],
    ids=range(11),
)
def test_sizes_are_bounded_by_the_file(data: bytes) -> None:
    assert len(_counted(data)) < 300


def test_a_text_is_not_copied_again_and_again() -> None:
    text = b"\x80\x02X\xe8\x03\x00\x00" + b"a" * 1_000 + b"q\x000"
    call = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    assert read(text + b"(" + call + b"t.") == (b"a" * 1_000,)
    message = _counted(text + b"(" + call * 1_000 + b"t.")
    assert message == "the pickle holds more bytes than its file."


def test_keys_are_not_nested() -> None:
    data = b"\x80\x02}" + b")" + b"\x85" * 1_000 + b"Ns."
    with pytest.raises(ValueError, match="tuple as a key"):
        read(data)
    with pytest.raises(ValueError, match="list as a key"):
        read(b"\x80\x02}]Ns.")
    with pytest.raises(ValueError, match="list as a key"):
        read(b"\x80\x04\x8f(]\x90.")


@pytest.mark.parametrize("code", [b"P", b"Q", b"\x82\x01", b"i", b"o", b"2", b"\x92", b"\x97"])
def test_other_opcodes_are_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="refused"):
        read(b"\x80\x05(N" + code + b"os\nsystem\n.")
