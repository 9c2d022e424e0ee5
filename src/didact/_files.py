"""Reading and writing the files of a run: whole, or not at all.

Every file of a run is opened for writing by `open_to_write`, and every error of it names the file.
"""

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ._json import MAX_BYTES, MAX_RECORD_BYTES, MAX_RECORD_VALUES, most_values, parse

_ASIDE = ".partial"
_MAX_REASON = 300


def open_to_write(path: Path, mode: str, buffering: int = -1) -> BinaryIO:
    """Open a file in a binary mode that writes."""
    return path.open(mode, buffering)  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write in place of `path`.

    It is written aside, synced and renamed, and its folder is synced: whatever happens, a power
    cut included, `path` holds all of the old content or all of the new.

    **Errors:** `OSError` that names the file.
    """
    # With the number of the process: two may write the same file at the same time.
    aside = path.with_name(f".{path.name}.{os.getpid()}{_ASIDE}")
    try:
        with _naming(path), open_to_write(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    finally:
        # What cannot be removed now, as on a disk that has become read-only, `clean` removes.
        with contextlib.suppress(OSError):
            aside.unlink()


class AppendedFile:
    """A file that grows at its end: what is written survives the end of the process, and what is
    synced that of the machine. It must be there, made by `write_whole`.

    **Errors:** `OSError` that names the file.
    """

    def __init__(self, path: Path):
        self._path = path
        # Without a buffer: what could not be written is not tried again when the file is closed.
        self._file = open_to_write(path, "ab", buffering=0)

    def write(self, content: bytes) -> None:
        """Append bytes."""
        rest = memoryview(content)
        with _naming(self._path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        with _naming(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "AppendedFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there, such that they survive a power
    cut.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def clean(folder: Path) -> None:
    """Remove what processes that were killed have left half written, in a folder and below it."""
    for aside in folder.rglob(f"*{_ASIDE}"):
        aside.unlink(missing_ok=True)


def is_half_written(path: Path) -> bool:
    """Whether a file is what a process that was killed has left."""
    return path.suffix == _ASIDE


def open_to_read(path: Path) -> io.BufferedReader:
    """Open a file for reading. A pipe or a device, which a folder may hold too, has no end.

    **Errors:** `OSError`; `ValueError` for what is no file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")
    return path.open("rb")


def in_short(error: Exception) -> str:
    """What is wrong with a file, in a line that can be shown whatever the file holds."""
    text = " ".join(str(error).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: _MAX_REASON + 1])
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]} ..."


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    **Errors:** `OSError` if it cannot be read; `ValueError` if it holds something else.
    """
    with open_to_read(path) as file:
        value = parse(file.read(MAX_BYTES + 1))
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a record, one at a time.

    **Errors:** `OSError`; `ValueError` that names the file if there is more than any record has.
    """
    num_bytes = num_values = 0
    with open_to_read(path) as file:
        while line := file.readline(MAX_BYTES + 1):
            num_bytes, num_values = num_bytes + len(line), num_values + most_values(line)
            if len(line) > MAX_BYTES:
                raise ValueError(f"{path} has a line that no run writes: restore it from a copy.")
            if num_bytes > MAX_RECORD_BYTES or num_values > MAX_RECORD_VALUES:
                raise ValueError(f"{path} is longer than any run writes it: restore it.")
            yield line


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error of writing, which names no file by itself, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # has no such call, and orders its own writes
        return
    with _naming(path):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
                raise
        finally:
            os.close(folder)
