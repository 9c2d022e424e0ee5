"""Reading and writing the files of a run: whole, or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write in place of `path`.

    It is written aside, synced and renamed: whatever happens, `path` holds all of the old
    content or all of the new.
    """
    # With the number of the process: two may write the same file at the same time.
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    **Errors:** `OSError` if it cannot be read; `ValueError` or `RecursionError` if it holds
    something else.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value
