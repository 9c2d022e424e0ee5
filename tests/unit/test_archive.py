"""Archives of arrays: read as NumPy reads them, and refused wherever they lie."""

import dataclasses
import io
import re
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as nps
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import didact
from didact._archive import MAX_UNPACKED, Archive

from ..fuzz._zips import DEFLATED, STORED, Member, array_file, plain, put_together

MiB = 2**20


def archive(*members: Member, **options: Any) -> Archive:
    return Archive(io.BytesIO(put_together(list(members), **options)))


def refusal(content: bytes) -> str:
    """What is wrong with an archive, found without memory for what it claims to hold."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r".") as error:
            _ = [*Archive(io.BytesIO(content)).values()]
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content) + 8 * MiB
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert len(message) < 200
    assert message.isprintable()
    return message


# ---- what NumPy writes ----------------------------------------------------------------------

DTYPES = st.one_of(
    nps.boolean_dtypes(),
    nps.integer_dtypes(endianness="?"),
    nps.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    nps.unicode_string_dtypes(endianness="?"),
)
ARRAYS = nps.arrays(DTYPES, nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1, max_size=30)


@given(st.dictionaries(NAMES.filter(str.isprintable), ARRAYS, max_size=4), st.booleans())
@settings(max_examples=60)
def test_arrays_come_back(arrays: dict[str, np.ndarray], compressed: bool) -> None:
    arrays.pop("file", None)  # the name of an argument
    arrays |= {f"{name} turned": np.asfortranarray(array) for name, array in arrays.items()}
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    found = Archive(file)
    found.check()
    assert set(found) == set(arrays)
    assert len(found) == len(arrays)
    for name, array in arrays.items():
        header, read = found.header(name), found[name]
        assert (header.dtype, header.shape) == (array.dtype, array.shape)
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()
        assert read.flags.writeable


class Pipe(io.BytesIO):
    """A file in which nobody can go back, so that lengths stand behind what is written."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("no way back")


def test_archives_written_in_one_go_and_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"a": np.arange(5), "b": np.zeros((3, 0))}
    pipe = Pipe()
    np.savez(pipe, **arrays)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)  # as if everything were beyond 4 GiB
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    large = io.BytesIO()
    np.savez(large, **arrays)
    assert b"PK\6\6" in large.getvalue()
    for content in (pipe.getvalue(), large.getvalue()):
        found = Archive(io.BytesIO(content))
        assert {name: found[name].tolist() for name in found} == {
            "a": [0, 1, 2, 3, 4],
            "b": [[]] * 3,
        }
    changed = large.getvalue().replace(b"PK\6\6", b"PK\6\5")
    assert refusal(changed) == "it does not end as an archive of arrays does"


def test_a_name_that_is_not_there() -> None:
    found = archive(plain("x"))
    assert "x" in found
    assert "y" not in found
    with pytest.raises(KeyError):
        found["y"]
    with pytest.raises(ValueError, match="it has no array y"):
        found.header("y")
    assert found.get("y") is None


# ---- archives that lie ----------------------------------------------------------------------


def squeezed(data: bytes) -> Member:
    return Member(b"x.npy", data, DEFLATED)


ZEROS = array_file("'|u1'", f"({MiB},)", bytes(MiB))
SQUEEZED = zlib.compress(ZEROS, wbits=-15)
PACKED = zlib.compress(plain().data, wbits=-15)
LARGE = array_file("'|u1'", f"({2**40},)", b"")

LIES: dict[str, tuple[list[Member], str]] = {
    "a bomb": (
        [
            dataclasses.replace(squeezed(ZEROS), name=b"%d.npy" % i, packed=SQUEEZED)
            for i in range(MAX_UNPACKED // MiB)
        ],
        "would unpack to more than the 134,217,728 bytes",
    ),
    "more than it says": ([dataclasses.replace(squeezed(ZEROS), size=10_000)], "not hold as many"),
    "a long end": (
        [
            dataclasses.replace(
                squeezed(plain().data + bytes(MiB)),
                size=len(plain().data),
                crc=zlib.crc32(plain().data),
            )
        ],
        "unpacks to more than it says",
    ),
    "bytes behind the end": (
        [dataclasses.replace(squeezed(plain().data), packed=PACKED + b"more")],
        "holds more than it says",
    ),
    "no end": (
        [dataclasses.replace(squeezed(plain().data), packed=PACKED[:-9])],
        "ends early",
    ),
    "no compression": (
        [dataclasses.replace(squeezed(plain().data), packed=b"\xff" * 100)],
        "cannot be unpacked",
    ),
    "more than can be": ([dataclasses.replace(squeezed(ZEROS), size=2**31)], "as long as it says"),
    "another length": ([dataclasses.replace(plain(), size=5)], "cannot be as long as it says"),
    "overlapping": ([plain("a"), dataclasses.replace(plain("b"), offset=0)], "overlaps"),
    "inside another": (
        [Member(b"a.npy", put_together([plain("b")])), dataclasses.replace(plain("b"), offset=35)],
        "overlaps|not where its directory says",
    ),
    "beyond the end": ([dataclasses.replace(plain(), offset=10_000)], "overlaps"),
    "into the directory": (
        [dataclasses.replace(plain(), packed_size=500, size=500)],
        "overlaps with what follows",
    ),
    "two of one name": ([plain("a"), plain("a")], "two arrays of one name"),
    "another name": (
        [dataclasses.replace(plain(), local_name=b"y.npy")],
        "not where its directory",
    ),
    "a wrong checksum": (
        [dataclasses.replace(plain(), crc=1)],
        "checksum of its member x is wrong",
    ),
    "a wrong checksum, packed": (
        [dataclasses.replace(squeezed(plain().data), crc=1)],
        "checksum of its member x is wrong",
    ),
    "encrypted": ([dataclasses.replace(plain(), flags=1)], "is encrypted"),
    "another compression": ([dataclasses.replace(plain(), method=12)], "in an unknown way"),
    "a comment": ([dataclasses.replace(plain(), comment=b"hello")], "directory is damaged"),
    **{
        f"the name {name!r}": ([Member(name, plain().data)], "no name of an array|is no text")
        for name in (
            *(b"../x.npy", b"a/b.npy", b"/etc/x.npy", b"C:\\x.npy", b"x\0.npy", b"x\x1b[2J.npy"),
            *(b".npy", b"x.txt", b"x.npy/", b"", b"\xff.npy", b"x" * 2000 + b".npy"),
        )
    },
    **{
        f"dtype {descr}": ([Member(b"x.npy", array_file(descr, "(1,)", bytes(size)))], "not one of")
        for descr, size in {
            "'|O'": 8,
            "'|V4'": 4,
            "'<M8[s]'": 8,
            "'<c16'": 16,
            "'|S4'": 4,
            "[('a', '<i4')]": 4,
            "'<i4,<i4'": 8,
            "'<f3'": 3,
            "'i4'": 4,
            "__import__('os')": 4,
            "'<U0'": 0,
            "'<U99999999'": 4,
        }.items()
    },
    **{
        f"shape {shape}": ([Member(b"x.npy", array_file("'<f8'", shape, bytes(24)))], message)
        for shape, message in {
            "(-3,)": "not one of",
            "(3.0,)": "not one of",
            "3": "not one of",
            "(3*1,)": "not one of",
            "(9**9**9,)": "not one of",
            "(1_0,)": "not one of",
            "(4,)": "not hold as many",
            "(2,)": "not hold as many",
            "(1000000000000,)": "not hold as many",
            "(9999999999999999999,)": "impossible shape",
            "(0, 9999999999999999999)": "impossible shape",
            f"({', '.join(['1'] * 33)})": "not one of|impossible shape",
        }.items()
    },
    "another order": (
        [Member(b"x.npy", array_file("'<f8'", "(3,)", bytes(24), order="eval('1')"))],
        "not one of",
    ),
    "another version": (
        [Member(b"x.npy", array_file("'<f8'", "(3,)", bytes(24), version=b"\2\0"))],
        "of a known format",
    ),
    "no array": ([Member(b"x.npy", b"hello")], "ends early"),
    "a long header": (
        [Member(b"x.npy", b"\x93NUMPY\1\0" + struct.pack("<H", 60_000) + b" " * 60_000)],
        "of a known format",
    ),
    "more behind the array": ([Member(b"x.npy", plain().data + b"more")], "not hold as many"),
    "10^12 numbers": ([Member(b"x.npy", LARGE)], "not hold as many"),
    "10^12 numbers, packed": ([squeezed(LARGE)], "not hold as many"),
    "no truth value": ([Member(b"x.npy", array_file("'|b1'", "(2,)", b"\1\2"))], "no bool"),
    "no letter": ([Member(b"x.npy", array_file("'<U1'", "()", b"\0\0\x11\0"))], "no str"),
    "half a letter": ([Member(b"x.npy", array_file("'>U1'", "()", b"\0\0\xd8\0"))], "no str"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_archive_that_lies_is_refused(lie: str) -> None:
    members, message = LIES[lie]
    assert re.search(message, refusal(put_together(members)))


def test_the_archives_of_the_last_test_would_be_read_but_for_their_lies() -> None:
    for member in (plain(), squeezed(plain().data), squeezed(ZEROS)):
        found = archive(member)
        found.check()
        assert found["x"].size in (3, MiB)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 2}, "where it should be|ends early"),
        ({"count": 0}, "holds more than it says"),
        ({"count": 2**16 - 1}, "where it should be"),
        ({"comment": b"hello"}, "does not end as"),
    ],
    ids=str,
)
def test_a_directory_that_lies_is_refused(options: dict[str, Any], message: str) -> None:
    assert re.search(message, refusal(put_together([plain()], **options)))


def test_what_is_no_archive_is_refused() -> None:
    content = put_together([plain("a"), squeezed(plain().data)])
    for size in range(len(content)):
        _ = refusal(content[:size])
    for other in (b"", bytes(1_000), content + b"x", b"x" + content, plain().data):
        _ = refusal(other)


def test_every_changed_byte_is_found_or_does_not_matter() -> None:
    content = put_together([plain("a"), squeezed(plain().data)])
    refused = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x41
        try:
            found = Archive(io.BytesIO(bytes(changed)))
            arrays = [found[name] for name in found]
        except ValueError:
            refused += 1
        else:
            assert [array.tolist() for array in arrays] == [[0, 1, 2]] * 2
    assert refused > 0.8 * len(content)


def test_a_file_that_is_whole_is_told_from_a_damaged_one() -> None:
    """By the checksums alone: what its members hold does not matter."""
    archive(Member(b"x.npy", b"no array"), Member(b"y.npy", b"none either", DEFLATED)).check()
    with pytest.raises(ValueError, match="checksum of its member y is wrong"):
        archive(plain("x"), dataclasses.replace(plain("y"), crc=1)).check()


def test_a_file_is_named_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    _ = file.write_bytes(put_together([Member(b"header.npy", LARGE)]))
    for load in (didact.load_sampler, didact.load_fit):
        with pytest.raises(ValueError, match=r"mine\.npz cannot .* \(.*as many.*\): restore it"):
            load(file)


def test_large_members_are_read_piece_by_piece() -> None:
    data = np.random.default_rng(0).integers(0, 5, 3 * MiB, np.uint8)
    file = array_file("'|u1'", f"({3 * MiB},)", data.tobytes())
    for method in (STORED, DEFLATED):
        found = archive(Member(b"x.npy", file, method))
        np.testing.assert_array_equal(found["x"], data)
        found.check()
