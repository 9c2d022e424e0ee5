"""Archives put together byte by byte, so that each of their numbers can be a lie."""

import dataclasses
import io
import struct
import zipfile
import zlib

import numpy as np

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@dataclasses.dataclass
class Member:
    """A member of an archive: its contents, and what is said of them (None: the truth)."""

    name: bytes
    data: bytes
    method: int = STORED
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    flags: int = 0
    offset: int | None = None
    local_name: bytes | None = None
    comment: bytes = b""


def members_of(content: bytes) -> list[Member]:
    """The members of an archive that is in order."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [
            Member(info.filename.encode(), archive.read(info), info.compress_type)
            for info in archive.infolist()
        ]


def put_together(members: list[Member], *, count: int | None = None, comment: bytes = b"") -> bytes:
    """An archive; its checksums and lengths are right where a member does not say otherwise."""
    body, directory = b"", b""
    for member in members:
        packed = _pack(member) if member.packed is None else member.packed
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        size = len(member.data) if member.size is None else member.size
        packed_size = len(packed) if member.packed_size is None else member.packed_size
        offset = len(body) if member.offset is None else member.offset
        about = struct.pack(
            "<5H3L", 20, member.flags, member.method, 0, 33, crc, packed_size & 0xFFFFFFFF, size
        )
        name = member.name if member.local_name is None else member.local_name
        body += b"PK\3\4" + about + struct.pack("<2H", len(name), 0) + name + packed
        directory += b"PK\1\2" + struct.pack("<H", 20) + about
        directory += struct.pack("<5H2L", len(member.name), 0, len(member.comment), 0, 0, 0, offset)
        directory += member.name + member.comment
    count = len(members) if count is None else count
    end = struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(body), len(comment))
    return body + directory + b"PK\5\6" + end + comment


def _pack(member: Member) -> bytes:
    if member.method != DEFLATED:
        return member.data
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeeze.compress(member.data) + squeeze.flush()


def array_file(
    descr: str, shape: str, data: bytes, *, order: str = "False", version: bytes = b"\1\0"
) -> bytes:
    """A file of one array, whose header is text as given."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header = text.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


def plain(name: str = "x") -> Member:
    """A member that is in order: three numbers."""
    data = np.arange(3.0).tobytes()
    return Member(f"{name}.npy".encode(), array_file("'<f8'", "(3,)", data))
