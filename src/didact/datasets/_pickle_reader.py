"""Pickles of data, read without being run.

A pickle is a program: the loader of the standard library calls whatever that program names. This
reader goes through the opcodes (`pickletools.genops`, which only decodes them) and builds numbers,
strings, lists, tuples, dicts, sets and NumPy arrays itself. Everything else that a pickle names is
refused by its name, but for classes that the caller lists: their objects become a `Record`, and
nothing of them is imported.

Every object costs the file at least a byte, and every byte of an array or a string stands in the
file, so memory is bounded by the length of the file.
"""

import dataclasses
import functools
import io
import math
import pickletools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

_Raw = bytes | bytearray


@dataclasses.dataclass(eq=False)
class Record:
    """What a pickle says of an object of a class that is not imported: its state."""

    module: str
    name: str
    state: Any = None


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name that may stand in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:100]


@dataclasses.dataclass(eq=False)
class _Pending:
    """An array or a dtype whose contents come with the next opcode, BUILD."""

    code: str | None
    """Of a dtype; None for an array."""
    places: list[int] = dataclasses.field(default_factory=list)
    """Where in the memo it stands."""


def read(data: bytes, records: Collection[tuple[str, str]] = ()) -> Any:
    """The value that a pickle of any protocol holds; its arrays cannot be written to.

    **Arguments:** `data`: the whole pickle; `records`: classes, as (module, name), whose objects
    become a `Record`.

    **Errors:** `ValueError` for a pickle that is damaged, or that names anything but NumPy's
    arrays, scalars and dtypes, Python's sets and bytes, and `records`.
    """
    machine = _Machine(len(data), {_Global(*names) for names in records})
    for name, argument in _opcodes(data):
        if name == "STOP":
            return machine.result()
        _ACTIONS[name](machine, argument)
    raise ValueError("the pickle does not end.")


_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}


def _opcodes(data: bytes) -> Iterator[tuple[str, Any]]:
    """Names and arguments of the opcodes; those that are refused are not even decoded."""
    stream = io.BytesIO(data)
    found = pickletools.genops(stream)
    while True:
        place = stream.tell()
        name = _NAMES.get(data[place : place + 1].decode("latin-1"))
        if name is not None and name not in _ACTIONS and name != "STOP":
            raise ValueError(f"the pickle holds {name}, which is refused.")
        if name == "GLOBAL":
            # pickletools would look for escapes, which names have not.
            end = data.find(b"\n", data.find(b"\n", place) + 1)
            if b"\\" in data[place:end]:
                raise ValueError("the pickle names something with a backslash, which is refused.")
        try:
            opcode, argument, _ = next(found)
        except ValueError as error:
            reason = " ".join(str(error).split())[:100]
            raise ValueError(f"the pickle is damaged: {reason}.") from error
        if opcode.name == "STOP" and stream.tell() != len(data):
            raise ValueError("the pickle goes on after its end.")
        yield opcode.name, argument


class _Machine:
    """The stack machine that a pickle is written for."""

    def __init__(self, size: int, records: set[_Global]):
        self.size = size
        self.records = records
        self.copied = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        value = self.pop()
        if self.stack or self.marks:
            raise ValueError("the pickle leaves more than one value.")
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return _finished(self._take())

    def items(self) -> list[Any]:
        """What stands above the last mark."""
        if not self.marks:
            raise ValueError("the pickle misses a mark.")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return [_finished(value) for value in found]

    def top(self, kind: type) -> Any:
        """The value on top of the stack, which stays there."""
        if len(self.stack) <= self._floor() or not isinstance(self.stack[-1], kind):
            raise ValueError(f"the pickle misses a {kind.__name__}.")
        return self.stack[-1]

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def put(self, place: int | None) -> None:
        value = self.top(object)
        place = len(self.memo) if place is None else place
        self.memo[place] = value
        if isinstance(value, _Pending):
            value.places.append(place)

    def get(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError(f"the pickle has nothing at place {place} of its memo.")
        self.push(_finished(self.memo[place]))

    def named(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("the pickle has a name that is no text.")
        found = _Global(module, name)
        if found not in _CALLS and found not in _CLASSES and found not in self.records:
            raise ValueError(f"the pickle names {found}, which is refused.")
        self.push(found)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not isinstance(function, _Global):
            raise ValueError("the pickle calls something that is no function.")
        if function not in _CALLS:
            raise ValueError(f"the pickle calls {function}, which is refused.")
        self.push(_CALLS[function](self, *_arity(function, arguments)))

    def new(self) -> None:
        arguments, cls = self.pop(), self.pop()
        if not isinstance(cls, _Global) or cls not in self.records or arguments != ():
            raise ValueError("the pickle makes an object in a way that is refused.")
        self.push(Record(cls.module, cls.name))

    def build(self) -> None:
        """Give the object on top of the stack its state."""
        state, target = self.pop(), self.top(object)
        if isinstance(target, Record) and target.state is None:
            target.state = state
            return
        if not isinstance(target, _Pending) or not isinstance(state, tuple):
            raise ValueError("the pickle gives a state to something that has none.")
        make = _array if target.code is None else functools.partial(_dtype, target.code, self.size)
        value = make(state)
        self.stack[-1] = value
        self.memo.update(dict.fromkeys(target.places, value))

    def copy(self, text: str) -> bytes:
        """Bytes that a pickle of an old protocol writes as a text."""
        self.copied += len(text)
        if self.copied > self.size:
            raise ValueError("the pickle holds more bytes than its file.")
        return text.encode("latin-1")

    def _take(self) -> Any:
        if len(self.stack) <= self._floor():
            raise ValueError("the pickle takes more from its stack than there is.")
        return self.stack.pop()

    def _floor(self) -> int:
        return self.marks[-1] if self.marks else 0


def _finished(value: Any) -> Any:
    if isinstance(value, _Pending):
        raise ValueError("the pickle uses an array before its contents.")
    return value


def _key(value: Any) -> Any:
    """A key of a dict or set. Deeply nested ones, whose hash would exhaust Python, are refused."""
    parts = value if isinstance(value, tuple) else (value,)
    if all(isinstance(part, str | bytes | int | float | np.number | None) for part in parts):
        return value
    raise ValueError(f"the pickle has a {type(value).__name__} as a key, which is refused.")


def _are(values: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether a value is a tuple of so many values of these types."""
    is_tuple = isinstance(values, tuple) and len(values) == len(kinds)
    return is_tuple and all(map(isinstance, values, kinds))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise ValueError("the pickle has a key without a value.")
    return {_key(k): v for k, v in zip(values[::2], values[1::2], strict=True)}


def _arity(function: _Global, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, if they are of the types that a function is called with."""
    if any(_are(arguments, kinds) for kinds in _ARGUMENTS[function.name]):
        return arguments
    raise ValueError(f"the pickle calls {function} in a way that is refused.")


def _empty_array(_: _Machine, cls: _Global, *__: Any) -> _Pending:
    if cls.name != "ndarray":
        raise ValueError(f"the pickle makes an array of {cls}, which is refused.")
    return _Pending(None)


def _scalar(_: _Machine, dtype: np.dtype[Any], raw: bytes) -> Any:
    return _view(raw, dtype, (), "C")[()]


def _set(_: _Machine, values: list[Any]) -> set[Any]:
    return {_key(value) for value in values}


def _frozenset(_: _Machine, values: list[Any]) -> frozenset[Any]:
    return frozenset(_key(value) for value in values)


def _encode(machine: _Machine, text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError("the pickle encodes a text in a way that is refused.")
    return machine.copy(text)


def _from_buffer(
    _: _Machine, raw: _Raw, dtype: np.dtype[Any], shape: tuple[Any, ...], order: str, *__: None
) -> np.ndarray:
    return _view(raw, dtype, shape, order)


def _array(state: tuple[Any, ...]) -> np.ndarray:
    """An array from what `ndarray.__reduce__` tells."""
    if not _are(state, (int, tuple, np.dtype, int, bytes)) or state[0] != 1:
        raise ValueError("the pickle has an array of an unknown format.")
    _, shape, dtype, fortran, raw = state
    return _view(raw, dtype, shape, "F" if fortran else "C")


def _view(raw: _Raw, dtype: np.dtype[Any], shape: tuple[Any, ...], order: str) -> np.ndarray:
    """The bytes of the pickle as an array: nothing is copied."""
    if len(shape) > 32 or not all(isinstance(n, int) and 0 <= n < 2**31 for n in shape):
        raise ValueError("the pickle has an array of an impossible shape.")
    if order not in ("C", "F") or dtype.itemsize * math.prod(shape) != len(raw):
        raise ValueError(
            f"the pickle has an array of {len(raw)} bytes, which do not fit its shape."
        )
    if not raw:
        return np.empty(shape, dtype)
    array = np.frombuffer(raw, dtype).reshape(shape, order=order)
    array.flags.writeable = False
    return array


_SIMPLE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,9}")
_RAW = re.compile(r"V\d{1,9}")


def _dtype(code: str, size: int, state: tuple[Any, ...]) -> np.dtype[Any]:
    """A dtype from what `dtype.__reduce__` tells; sizes are those of the code."""
    none = type(None)
    kinds = (int, str, none, (tuple, none), (dict, none), int, int, int)
    if not _are(state, kinds) or state[0] != 3 or state[1] not in ("<", ">", "=", "|"):
        raise ValueError(f"the pickle has a dtype {code!r} of an unknown format.")
    _, order, _, names, fields, *_ = state
    if not 0 < int(code[1:]) <= size:
        raise ValueError(f"the pickle has a dtype {code!r} of an impossible size.")
    if _SIMPLE.fullmatch(code) and names is None and fields is None:
        return np.dtype(code).newbyteorder(order)
    if _RAW.fullmatch(code) and names and fields is not None:
        return _structured(int(code[1:]), names, fields)
    raise ValueError(f"the pickle has a dtype {code!r} with fields that do not fit.")


def _structured(size: int, names: tuple[Any, ...], fields: dict[Any, Any]) -> np.dtype[Any]:
    if set(map(_key, names)) != set(fields) or not all(isinstance(n, str) and n for n in names):
        raise ValueError("the pickle has a dtype whose names are not those of its fields.")
    for field in fields.values():
        if not _are(field, (np.dtype, int)):
            raise ValueError("the pickle has a dtype with a field of an unknown format.")
        if not 0 <= field[1] <= size - field[0].itemsize:
            raise ValueError("the pickle has a dtype with a field outside of it.")
    formats, offsets = zip(*(fields[name] for name in names), strict=True)
    return np.dtype(
        {
            "names": list(names),
            "formats": list(formats),
            "offsets": list(offsets),
            "itemsize": size,
        }
    )


def _pending_dtype(_: _Machine, code: str, *__: Any) -> _Pending:
    if not _SIMPLE.fullmatch(code) and not _RAW.fullmatch(code):
        raise ValueError(f"the pickle has a dtype {code[:20]!r}, which is refused.")
    return _Pending(code)


_Call = Callable[..., Any]
_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_BUILTIN = ("builtins", "__builtin__")
_CLASSES = {_Global("numpy", "ndarray")}
_CALLS: dict[_Global, _Call] = {
    _Global("numpy", "dtype"): _pending_dtype,
    _Global("_codecs", "encode"): _encode,
    **{_Global(module, "_reconstruct"): _empty_array for module in _NUMPY[1:]},
    **{_Global(module, "scalar"): _scalar for module in _NUMPY[1:]},
    _Global("numpy.core.numeric", "_frombuffer"): _from_buffer,
    _Global("numpy._core.numeric", "_frombuffer"): _from_buffer,
    **{_Global(module, "set"): _set for module in _BUILTIN},
    **{_Global(module, "frozenset"): _frozenset for module in _BUILTIN},
    **{_Global(module, "bytes"): lambda _: b"" for module in _BUILTIN},
}
_BUFFER = (_Raw, np.dtype, tuple, str)
_ARGUMENTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "dtype": ((str, int, int),),
    "encode": ((str, str),),
    "_reconstruct": ((_Global, tuple, bytes),),
    "scalar": ((np.dtype, bytes),),
    "_frombuffer": (_BUFFER, (*_BUFFER, type(None))),
    "set": ((list,),),
    "frozenset": ((list,),),
    "bytes": ((),),
}


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _extend(machine: _Machine, _: Any) -> None:
    values = machine.items()
    machine.top(list).extend(values)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.top(dict)[_key(key)] = value


def _set_items(machine: _Machine, _: Any) -> None:
    values = machine.items()
    machine.top(dict).update(_pairs(values))


def _add_items(machine: _Machine, _: Any) -> None:
    values = machine.items()
    machine.top(set).update(map(_key, values))


def _tuple_of(size: int) -> "_Action":
    def action(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(values)))

    return action


def _protocol(_: _Machine, number: int) -> None:
    if number > 5:
        raise ValueError(f"the pickle is of protocol {number}, which is not known.")


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.named(module, name)


_Action = Callable[[_Machine, Any], object]
_ARGUMENT_IS_VALUE = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(_ARGUMENT_IS_VALUE, _Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "PROTO": _protocol,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.items(),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "LIST": lambda machine, _: machine.push(machine.items()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.items())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": lambda machine, _: machine.push(_pairs(machine.items())),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(_key, machine.items()))),
    "APPEND": _append,
    "APPENDS": _extend,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "ADDITEMS": _add_items,
    "GLOBAL": lambda machine, names: machine.named(*names.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.new(),
    "BUILD": lambda machine, _: machine.build(),
}
