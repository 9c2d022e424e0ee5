"""Archives of arrays (.npz) from anywhere, read without trust.

An archive says how many members it has, where they are, how long they are and what they unpack to,
and each array says how many numbers it holds. `Archive` compares all of that with the length of the
file, and with each other, before it takes memory for it, and what it then reads with the checksums:

- the directory ends where the file ends, and has at most `MAX_MEMBERS` members, which do not
  overlap; their names are those of arrays, each there once;
- what is stored as it is has the length that stands in the file; all that is compressed unpacks to
  at most `MAX_UNPACKED` bytes together, and each member to exactly what it says;
- an array is of booleans, real numbers or text, and its shape and dtype account for every byte of
  its member. Objects, which would have to be unpickled, and records are refused.

So memory is bounded by the length of the file and `MAX_UNPACKED`. Nothing of a file is executed:
the header of an array, which is written as Python, is matched and not evaluated.
"""

import dataclasses
import io
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

MAX_MEMBERS = 2**16
MAX_DIRECTORY = 2**24
"""Bytes of the directory."""
MAX_UNPACKED = 2**27
"""Bytes that all compressed members of an archive may unpack to together. What didact compresses is
small: pictures of at most 4 million cells, and tables of data sets."""
_MAX_RATIO = 1032  # of DEFLATE: more is a lie
_MAX_NAME, _MAX_DIMS, _MAX_HEADER = 1_000, 32, 4_096
_PIECE = 2**20

_END = struct.Struct("<4s4H2LH")
_END_64_PLACE = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_ALLOWED_FLAGS = 0x2 | 0x4 | 0x8 | 0x800  # strength of compression, sizes behind, UTF-8
_MAX_16, _MAX_32 = 2**16 - 1, 2**32 - 1

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '([<>|](?:b1|[iu][1248]|f[248]|U[1-9]\d{0,3}))', "
    r"'fortran_order': (True|False), 'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?,?)\), \} *\n"
)


class Header(NamedTuple):
    """What an array says of itself."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool


@dataclasses.dataclass(frozen=True)
class _Member:
    """What the directory says of a member; `end`: where the next one begins."""

    raw_name: bytes
    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    end: int = 0


class Archive(Mapping[str, np.ndarray]):
    """The arrays of an .npz file by their names, each read when it is asked for.

    **Arguments:** `file`: opened for reading; it must stay open.

    **Errors:** `ValueError` from every method where something is wrong, saying what. Whoever knows
    what the file is for adds its name and what to do.
    """

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        self._members = {member.name: member for member in _members(file)}
        self._headers: dict[str, Header] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """An array, read and checked."""
        if name not in self._members:
            raise KeyError(f"it has no array {name}")
        header, contents = self._begin(name)
        array = np.empty(math.prod(header.shape), header.dtype)
        contents.fill(array.view(np.uint8).data)
        contents.finish()
        _check_values(name, array)
        if header.fortran_order:
            return array.reshape(header.shape[::-1]).T
        return array.reshape(header.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def header(self, name: str) -> Header:
        """Dtype and shape of an array, without reading it: they account for its bytes.

        **Errors:** `ValueError` also where there is none of that name.
        """
        if name not in self._members:
            raise ValueError(f"it has no array {name}")
        if name not in self._headers:
            self._headers[name], _ = self._begin(name)
        return self._headers[name]

    def check(self) -> None:
        """Read all there is: the checksums of all members must be right."""
        for member in self._members.values():
            _Contents(self._file, member).finish()

    def _begin(self, name: str) -> "tuple[Header, _Contents]":
        """The header of an array, and its member read up to there."""
        contents = _Contents(self._file, self._members[name])
        start = contents.take(len(_MAGIC) + 2)
        (length,) = struct.unpack("<H", start[len(_MAGIC) :])
        if not start.startswith(_MAGIC) or length > _MAX_HEADER:
            raise ValueError(f"its member {name} is no array of a known format")
        found = _HEADER.fullmatch(contents.take(length).decode("latin-1"))
        if found is None:
            raise ValueError(f"its array {name} is not one of numbers, booleans or text")
        dtype = np.dtype(found[1])
        shape = tuple(int(n) for n in found[3].replace(" ", "").split(",") if n)
        # Without its zeros too, as NumPy counts: a shape may be impossible and yet hold nothing.
        numbers = math.prod(n for n in shape if n)
        if len(shape) > _MAX_DIMS or numbers * dtype.itemsize > 2**62:
            raise ValueError(f"its array {name} has an impossible shape")
        if math.prod(shape) * dtype.itemsize != contents.left:
            raise ValueError(f"its array {name} does not hold as many numbers as it says")
        return Header(dtype, shape, found[2] == "True"), contents


class _Contents:
    """The bytes of a member, unpacked, from its beginning; never more of them than it says."""

    def __init__(self, file: io.BufferedIOBase, member: _Member):
        self._file, self._member = file, member
        self.left = member.size
        self._place = _start(file, member)
        self._packed_left = member.packed
        self._crc = 0
        unpacks = member.method == _DEFLATED
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if unpacks else None

    def take(self, count: int) -> bytes:
        """The next bytes."""
        found = bytearray(min(count, self.left))
        self.fill(memoryview(found))
        if len(found) < count:
            raise ValueError(f"its member {self._member.name} ends early")
        return bytes(found)

    def fill(self, view: memoryview) -> None:
        """Fill memory with the next bytes."""
        while len(view):
            view = view[self._next(view[:_PIECE]) :]

    def finish(self) -> None:
        """Read what is left: it must be what the member says, and its checksum right."""
        while self.left:
            _ = self._next(memoryview(bytearray(min(self.left, _PIECE))))
        while self._inflate is not None and not self._inflate.eof:
            # The mark of the end may stand behind what unpacks to the last byte.
            packed = self._packed()
            if self._unpack(packed, 1):
                raise ValueError(f"its member {self._member.name} unpacks to more than it says")
            if not packed:
                raise ValueError(f"its member {self._member.name} ends early")
        if self._packed_left or (self._inflate is not None and self._inflate.unused_data):
            raise ValueError(f"its member {self._member.name} holds more than it says")
        if self._crc != self._member.crc:
            raise ValueError(f"the checksum of its member {self._member.name} is wrong")

    def _next(self, view: memoryview) -> int:
        """Put next bytes into memory, at least one.

        **Returns:** how many.
        """
        piece = b""
        if self._inflate is None:
            piece = self._read(len(view))
        else:
            more = True
            while more and not piece and not self._inflate.eof:
                packed = self._packed()
                piece, more = self._unpack(packed, len(view)), bool(packed)
        if not piece:
            raise ValueError(f"its member {self._member.name} ends early")
        view[: len(piece)] = piece
        self.left -= len(piece)
        self._crc = zlib.crc32(piece, self._crc)
        return len(piece)

    def _packed(self) -> bytes:
        """Some of the compressed bytes that come next."""
        assert self._inflate is not None
        return self._inflate.unconsumed_tail or self._read(_PIECE)

    def _unpack(self, packed: bytes, most: int) -> bytes:
        assert self._inflate is not None
        try:
            return self._inflate.decompress(packed, most)
        except zlib.error as error:
            raise ValueError(f"its member {self._member.name} cannot be unpacked") from error

    def _read(self, most: int) -> bytes:
        self._file.seek(self._place)
        data = self._file.read(min(most, self._packed_left))
        self._place += len(data)
        self._packed_left -= len(data)
        return data


def _members(file: io.BufferedIOBase) -> list[_Member]:
    """The members of an archive, whose places do not overlap."""
    directory, size, count = _directory(file)
    data = _read_at(file, directory, size)
    found: list[_Member] = []
    place = 0
    for _ in range(count):
        member, place = _entry(data, place)
        found.append(member)
    if place != size:
        raise ValueError("its directory holds more than it says")
    if len({member.name for member in found}) < count:
        raise ValueError("it has two arrays of one name")
    if sum(member.size for member in found if member.method == _DEFLATED) > MAX_UNPACKED:
        raise ValueError(
            f"it would unpack to more than the {MAX_UNPACKED:,} bytes that are allowed"
        )
    found.sort(key=lambda member: member.offset)
    ends = [*(member.offset for member in found), directory][1:]
    placed = [dataclasses.replace(m, end=end) for m, end in zip(found, ends, strict=True)]
    for member in placed:
        if member.offset + _LOCAL.size + len(member.raw_name) + member.packed > member.end:
            raise ValueError(f"its member {member.name} overlaps with what follows it")
    return placed


def _directory(file: io.BufferedIOBase) -> tuple[int, int, int]:
    """Where the directory of an archive is, its length, and the number of its entries."""
    place = file.seek(0, os.SEEK_END) - _END.size
    if place < 0:
        raise ValueError("it is too short to be an archive")
    mark, *disks, count, size, offset, comment = _END.unpack(_read_at(file, place, _END.size))
    if mark != b"PK\5\6" or disks != [0, 0, count] or comment:
        raise ValueError("it does not end as an archive of arrays does")
    large = place - _END_64_PLACE.size
    if large >= 0 and _read_at(file, large, 4) == b"PK\6\7":
        place = large - _END_64.size
        if place < 0 or _END_64_PLACE.unpack(_read_at(file, large, _END_64_PLACE.size))[1:] != (
            *(0, place, 1),
        ):
            raise ValueError("it does not end as an archive of arrays does")
        mark, length, _, _, *disks, every, size_64, offset_64 = _END_64.unpack(
            _read_at(file, place, _END_64.size)
        )
        if mark != b"PK\6\6" or length != _END_64.size - 12 or disks != [0, 0, every]:
            raise ValueError("it does not end as an archive of arrays does")
        short = (count, _MAX_16, every), (size, _MAX_32, size_64), (offset, _MAX_32, offset_64)
        if any(value not in (most, long) for value, most, long in short):
            raise ValueError("it has two directories")
        count, size, offset = every, size_64, offset_64
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise ValueError(f"it has more than the {MAX_MEMBERS:,} members that are allowed")
    if offset + size != place or count * _ENTRY.size > size:
        raise ValueError("its directory is not where it should be")
    return offset, size, count


def _entry(data: bytes, place: int) -> tuple[_Member, int]:
    """The entry of the directory at a place, and where the next one is."""
    if place + _ENTRY.size > len(data):
        raise ValueError("its directory ends early")
    mark, _, _, flags, method, _, _, crc, packed, size, *rest = _ENTRY.unpack_from(data, place)
    name_size, extra_size, comment, disk, _, _, offset = rest
    place += _ENTRY.size
    end = place + name_size + extra_size
    if mark != b"PK\1\2" or comment or disk or end > len(data):
        raise ValueError("its directory is damaged")
    raw_name, extra = data[place : place + name_size], data[place + name_size : end]
    name = _array_name(raw_name)
    if flags & ~_ALLOWED_FLAGS or method not in (_STORED, _DEFLATED):
        raise ValueError(f"its member {name} is encrypted, or compressed in an unknown way")
    size, packed, offset = _large(extra, size, packed, offset)
    if (method == _STORED and packed != size) or size > _MAX_RATIO * packed:
        raise ValueError(f"its member {name} cannot be as long as it says")
    return _Member(raw_name, name, method, crc, packed, size, offset), end


def _array_name(raw: bytes) -> str:
    """The name of an array, from that of its member."""
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError("it has a member whose name is no text") from error
    stem = name.removesuffix(".npy")
    if stem in ("", name) or len(name) > _MAX_NAME or not name.isprintable() or {*"/\\"} & {*name}:
        raise ValueError(f"it has a member {name[:40]!r}, which is no name of an array")
    return stem


def _large(extra: bytes, *values: int) -> list[int]:
    """Numbers of a directory entry; those that need more than 32 bits stand in its extra fields."""
    missing = [i for i, value in enumerate(values) if value == _MAX_32]
    found = list(values)
    while missing and len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1 and 8 * len(missing) <= size <= len(extra) - 4:
            for i, value in zip(
                missing, struct.unpack_from(f"<{len(missing)}Q", extra, 4), strict=True
            ):
                found[i] = value
            return found
        extra = extra[4 + size :]
    if missing:
        raise ValueError("its directory lacks a length")
    return found


def _start(file: io.BufferedIOBase, member: _Member) -> int:
    """Where the contents of a member begin, behind what stands in front of them."""
    mark, _, flags, method, *_, name_size, extra_size = _LOCAL.unpack(
        _read_at(file, member.offset, _LOCAL.size)
    )
    place = member.offset + _LOCAL.size
    name = _read_at(file, place, name_size) if name_size == len(member.raw_name) else b""
    start = place + name_size + extra_size
    if (mark, method, name) != (b"PK\3\4", member.method, member.raw_name):
        raise ValueError(f"its member {member.name} is not where its directory says")
    if flags & ~_ALLOWED_FLAGS or start + member.packed > member.end:
        raise ValueError(f"its member {member.name} overlaps with what follows it")
    return start


def _read_at(file: io.BufferedIOBase, place: int, size: int) -> bytes:
    file.seek(place)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it ends early")
    return data


def _check_values(name: str, array: np.ndarray) -> None:
    """Bytes that stand for no value of their type are refused: what NumPy does then is open."""
    if array.dtype.kind == "b":
        right = np.all(array.view(np.uint8) <= 1)
    elif array.dtype.kind == "U":
        letters = array.view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        right = np.all((letters < 0x110000) & (letters >> 11 != 0x1B))  # no half of a pair
    else:
        return
    if not right:
        raise ValueError(f"its array {name} holds what is no {array.dtype.type.__name__}")
