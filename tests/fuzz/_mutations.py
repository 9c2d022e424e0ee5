"""Files changed as chance, a broken disk or a stranger might change them: always in the same way.

A file is changed either byte by byte, so that most readers stop at its checksums, or part by part,
with all checksums and lengths made right again, so that what lies behind them is reached.
"""

import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

from ._zips import DEFLATED, STORED, Member, members_of, put_together

Random = random.Random

_NUMBERS = [
    *(0, 1, -1, 2, 3, 7, 255, 256, 1000, 4096, 10**5, 2**20, 2**31 - 1, 2**31, 2**32, 2**53, 2**63),
    *(-(2**31), -(2**63), 10**30, 10**400, 0.5, 1.5, -0.0, 1e-300, 1e300, -1e300),
]
_WORDS = [
    *("", "x", "os:system", "builtins:exec", "targets.HostReward", "environments.Hypergrid"),
    *("networks.MLPConfig", "_experiment.Experiment", "../../etc/passwd", "\0", "\x1b[2J", "ß€"),
    *("\ud800", "a" * 300, "nan", "1e999", "float32", "O", "[" * 100, "<script>"),
]
_OTHERS = [None, True, False, [], {}, [[]], {"type": "x"}, {"float": "inf"}, {"float": "nan"}]
_TEXTS = [b"1e999", b"-1e999", b"NaN", b"-Infinity", b"9" * 5000, b"[" * 200 + b"]" * 200]
_SHAPES = [
    *("()", "(0,)", "(1,)", "(-1,)", "(2, 2)", "(1000000000000,)", "(0, 1000000000)", "(3.5,)"),
    *("(1,) * 9", "(9999999999999999999,)", "(65536, 65536)", "(1, 1, 1, 1)"),
]
_DTYPES = [
    *("'|O'", "'<f4'", "'>f4'", "'<f8'", "'<f2'", "'|b1'", "'|u1'", "'<i8'", "'<i4'", "'<U3'"),
    *("'|V4'", "[('a', '<f4')]", "'<M8[s]'", "'<c8'", "'<U99999999'", "eval('1')"),
]
_NAMES = [
    b"header.npy",
    b"../x.npy",
    b"x.txt",
    b"array_0.npy",
    b"array_9.npy",
    b"format_version.npy",
]


def changed_bytes(content: bytes, chance: Random) -> bytes:
    """Bits flipped, parts cut, moved, repeated or overwritten."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not data:
            break
        at, to = chance.randrange(len(data)), chance.randrange(len(data))
        size = min(chance.choice((1, 2, 4, 8, 64, 1024)), len(data) - at)
        what = chance.randrange(7)
        if what <= 1:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 2:
            data[at] = chance.randrange(256)
        elif what == 3:
            del data[at:]
        elif what == 4:
            data[to:to] = data[at : at + size]
        elif what == 5:
            del data[at : at + size]
        else:
            data[at : at + size] = bytes([chance.choice((0, 255))]) * size
    return bytes(data)


def changed_json(content: bytes, chance: Random) -> bytes:
    """A value, a key or a number of a JSON text is another one."""
    try:
        tree = json.loads(content)
    except ValueError:
        return changed_bytes(content, chance)
    holder = [tree]
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        _change_node(holder, chance)
    mark, text = "\x02mark\x02", chance.choice(_TEXTS)
    if chance.random() < 0.15:
        parent, key = _place(holder, chance)
        parent[key] = mark
    return json.dumps(holder[0]).encode().replace(json.dumps(mark).encode(), text)


def _place(holder: list[Any], chance: Random) -> tuple[Any, Any]:
    """A place in a tree, each as likely: the object or list that it is in, and its name or number
    there. Most are those of numbers and texts.
    """
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [holder]
    while waiting:
        parent = waiting.pop()
        for key in [*parent] if isinstance(parent, dict) else range(len(parent)):
            places.append((parent, key))
            if isinstance(parent[key], dict | list):
                waiting.append(parent[key])
    return chance.choice(places)


def _change_node(holder: list[Any], chance: Random) -> None:
    parent, key = _place(holder, chance)
    value = parent[key]
    what = chance.randrange(8)
    if what == 0 and isinstance(parent, dict):
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[chance.choice(("type", "function", "kind", "step", "x"))] = value
    elif what == 2 and isinstance(value, list) and value:
        parent[key] = value * chance.choice((0, 2, 50))
    elif what == 3 and isinstance(value, int | float) and abs(value) < 1e18:
        parent[key] = chance.choice((value + 1, -value, value * 10**6, value + 0.5, value // 2))
    elif what == 4:
        parent[key] = [value] if chance.random() < 0.5 else {"a": value}
    elif what == 5:
        other, name = _place(holder, chance)
        parent[key] = json.loads(json.dumps(other[name]))
    else:
        parent[key] = chance.choice(chance.choice((_NUMBERS, _NUMBERS, _WORDS, _OTHERS)))
        # What is shared must not be changed twice.
        parent[key] = json.loads(json.dumps(parent[key]))


def changed_lines(content: bytes, chance: Random) -> bytes:
    """Lines of JSON: changed, cut, moved, repeated or left out."""
    lines = content.split(b"\n")
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    what = chance.randrange(6)
    if what <= 2:
        lines[at] = changed_json(lines[at], chance) if lines[at] else chance.choice(_TEXTS)
    elif what == 3:
        del lines[at]
    elif what == 4:
        lines.insert(to, lines[at])
    else:
        lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
    return b"\n".join(lines)


def changed_archive(content: bytes, chance: Random) -> bytes:
    """A member of an archive is another one, or the archive says something else of it; everything
    else, checksums too, is right.
    """
    members = members_of(content)
    for _ in range(chance.choice((1, 1, 2))):
        member = chance.choice(members)
        if chance.random() < 0.4:  # what most of the others depend on
            member = next((one for one in members if one.name == b"header.npy"), member)
        what = chance.randrange(12)
        if what <= 4:
            member.data = _changed_array(member.data, chance)
        elif what == 5:
            member.name = chance.choice((*_NAMES, chance.choice(members).name))
        elif what == 6 and len(members) > 1:
            members.remove(member)
        elif what == 7:
            other = chance.choice(members)
            member.data, other.data = other.data, member.data
        elif what == 8:
            member.method = STORED if member.method == DEFLATED else DEFLATED
        elif what == 9:
            member.flags = 1 << chance.randrange(16)
        else:
            _lie(member, chance)
    return put_together(members)


def _lie(member: Member, chance: Random) -> None:
    name = chance.choice(("size", "packed_size", "crc", "offset"))
    size = len(member.data)
    lies = (0, 1, size - 1, size + 1, 2 * size, 2**31, 2**32 - 1, chance.randrange(2**32))
    setattr(member, name, max(0, chance.choice(lies)))


def _changed_array(data: bytes, chance: Random) -> bytes:
    """A file of one array with another header or other contents; of text that is JSON, with other
    JSON, and the length that it has then.
    """
    if len(data) < 10:
        return data
    (length,) = struct.unpack("<H", data[8:10])
    header, body = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    if body.startswith(b"{") and chance.random() < 0.8:
        body = changed_json(body, chance)
        return _array(re.sub(r"\(\d+,\)", f"({len(body)},)", header), body)
    what = chance.randrange(5)
    if what == 0:
        header = re.sub(r"'shape': \(.*?\)", f"'shape': {chance.choice(_SHAPES)}", header)
    elif what == 1:
        header = re.sub(r"'descr': '.*?'", f"'descr': {chance.choice(_DTYPES)}", header)
    elif what == 2:
        header = header.replace("False", chance.choice(("True", "None", "exit()")))
    elif what == 3:
        header = changed_bytes(header.encode("latin-1"), chance).decode("latin-1")
    else:
        body = changed_bytes(body, chance)
    return _array(header, body)


def _array(header: str, body: bytes) -> bytes:
    text = header.rstrip().encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body


Change = Callable[[bytes, Random], bytes]
BY_PART: dict[str, Change] = {
    ".npz": changed_archive,
    ".json": changed_json,
    ".jsonl": changed_lines,
}
"""By the ending of a file; the others have no checksums."""


def change(content: bytes, ending: str, chance: Random) -> bytes:
    """A file that is changed: half of them byte by byte, half part by part."""
    by_part = BY_PART.get(ending, changed_bytes)
    return (by_part if chance.random() < 0.5 else changed_bytes)(content, chance)
