"""A worker process, and how the user's function is called, there or here.

A worker runs this file by its path, and the file imports nothing of didact: it starts as quickly
as Python does and holds what the user's module imports. Requests come in on standard input and
answers go out on standard output, each as two sizes, a JSON header and bytes; nothing is pickled.
What the user's code prints goes to standard error.
"""

import contextlib
import importlib
import json
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

_SIZES = struct.Struct("<QQ")
_LONGEST_REASON = 300

Message = tuple[dict[str, Any], bytes]
Stream = Any
"""A binary stream."""


def load(address: str) -> Callable[[Any], Any]:
    """The function with an address "module:name"; its module is imported."""
    module, _, name = address.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def call(function: Callable[[Any], Any], objects: Any) -> tuple[str, Any]:
    """What a function says of objects: ("scores", numbers); ("raised", why); or ("wrong", why)
    where it has returned what cannot be scores of these objects.
    """
    try:
        result = function(objects)
        if not hasattr(result, "__iter__"):
            return "wrong", f"returned one {type(result).__name__} for {len(objects)} objects"
        result = list(result)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's code may raise anything)
        return "raised", last_line(error)
    if len(result) != len(objects):
        return "wrong", f"returned {len(result)} scores for {len(objects)} objects"
    try:
        return "scores", [float(score) for score in result]
    except (TypeError, ValueError) as error:
        return "wrong", f"returned a score that is no number ({error})"


def last_line(error: BaseException) -> str:
    """The last line of a traceback."""
    lines = "".join(traceback.format_exception_only(error)).split("\n")
    return next(filter(None, map(str.strip, reversed(lines))), "")[:_LONGEST_REASON]


def write(stream: Stream, header: dict[str, Any], content: bytes = b"") -> None:
    """Send a message."""
    text = json.dumps(header).encode()
    stream.write(_SIZES.pack(len(text), len(content)) + text + content)
    stream.flush()


def read(stream: Stream) -> Message | None:
    """Receive a message; None where the stream ends, be it in the middle of one."""
    sizes = stream.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    text_size, content_size = _SIZES.unpack(sizes)
    text, content = stream.read(text_size), stream.read(content_size)
    if len(text) < text_size or len(content) < content_size:
        return None
    return json.loads(text), content


def pack(objects: Any) -> Message:
    """Objects, a list of strings or an array, as a message."""
    if isinstance(objects, list):
        return {"strings": objects}, b""
    return {"dtype": objects.dtype.str, "shape": list(objects.shape)}, objects.tobytes()


def unpack(message: Message) -> Any:
    """The inverse of `pack`."""
    header, content = message
    if "strings" in header:
        return header["strings"]
    import numpy as np  # a function of strings may do without

    # Of a bytearray, so that the user's function may write into it.
    return np.frombuffer(bytearray(content), header["dtype"]).reshape(header["shape"])


def main() -> None:
    """Answer requests until the process that asks is gone."""
    inbound, outbound = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # The process that asks decides when a worker ends. No SIG_IGN: programs that the user's
    # function starts would inherit it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbound, requests), daemon=True).start()
    setup, _ = requests.get()
    sys.path[:] = setup["path"]
    try:
        function = load(setup["function"])
    except (Exception, SystemExit) as error:  # noqa: BLE001  (importing runs the user's code)
        write(outbound, {"failed": last_line(error)})
        os._exit(1)
    write(outbound, {"ready": True})
    while True:
        kind, answer = call(function, unpack(requests.get()))
        write(outbound, {kind: answer})


def _listen(inbound: Stream, requests: "queue.SimpleQueue[Message]") -> None:
    """Take requests in while the function runs: when the other side dies, so does the worker,
    with the programs that its function has started.
    """
    while (message := read(inbound)) is not None:
        requests.put(message)
    with contextlib.suppress(AttributeError, OSError):  # no process groups on Windows
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
