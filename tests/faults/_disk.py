"""A disk that fails at an operation of a given number, below runs that are trained in this process.

What a run does to its files goes through few calls, which are counted here. At the operation of the
number the process is killed (of a write half arrives, and nothing that comes later does) or the
disk is full or read-only from then on. `Disk.cut` brings the folder to what a power cut would have
left: what was not synced is lost, new names and renamings of files included.
"""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from didact import _files

NEVER = 10**9
_WRITING = ("open", "write", "mkdir")


class Killed(BaseException):
    """Stands for the end of the process."""


class Disk:
    """The disk below a folder.

    **Arguments:** `last`: the number of the operation that fails; `error`: with this number of an
    error, ENOSPC or EROFS; None for the end of the process; `after`: the operation that follows the
    first of this name is the last, whatever its number. Numbers differ between runs by a few, since
    checkpoints are written while training goes on.
    """

    def __init__(
        self,
        folder: Path,
        last: int = NEVER,
        error: int | None = None,
        *,
        after: str | None = None,
    ):
        self.operations: list[str] = []
        self._after = after
        self._folder, self._last, self._error = folder, last, error
        self._dead, self._turns = False, threading.Lock()
        self._paths: dict[int, Path] = {}
        # What a power cut leaves: the bytes of files, and the names in folders.
        self._content: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int | None]] = {}
        self._keep(folder.parent)
        for path in folder.rglob("*"):
            if path.is_file():
                self._content[path.stat().st_ino] = path.read_bytes()
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                self._keep(path)

    @property
    def failed(self) -> bool:
        """Whether the operation of that number was reached."""
        return self._dead

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count operations, and fail at the last of them; afterwards the disk is sound again."""
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            self._watch(patch)
            yield

    def cut(self) -> None:
        """Bring the folder to what a power cut leaves of it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._folder.name in self._names.get(self._folder.parent, ()):
            self._restore(self._folder)

    def step(self, what: str, path: Path) -> bool:
        """One more operation. Raises if it fails; says whether it is the first that does."""
        with self._turns:
            due = len(self.operations) + 1 >= self._last or self._after in self.operations
            first = not self._dead and due
            self._dead |= first
            self.operations.append(f"{what} {path.name}")
            if not self._dead or (self._error == errno.ENOSPC and what not in _WRITING):
                return False
            return first

    def fail(self, path: Path | None) -> None:
        """Raise what a failing operation raises, if the disk has failed."""
        if not self._dead:
            return
        if self._error is None:
            raise Killed
        raise OSError(self._error, os.strerror(self._error), *([] if path is None else [str(path)]))

    def _restore(self, folder: Path) -> None:
        folder.mkdir()
        for name, number in self._names.get(folder, {}).items():
            if number is None:
                self._restore(folder / name)
            else:
                (folder / name).write_bytes(self._content.get(number, b""))

    def _keep(self, folder: Path) -> None:
        """The names in a folder are on the disk from now on."""
        self._names[folder] = {
            entry.name: None if entry.is_dir() else entry.stat().st_ino
            for entry in folder.iterdir()
        }

    def _do(self, what: str, path: Path) -> None:
        _ = self.step(what, path)
        if what in _WRITING or self._error != errno.ENOSPC:
            self.fail(path)

    def _watch(self, patch: pytest.MonkeyPatch) -> None:
        opened = _files.open_to_write

        def open_to_write(path: Path, mode: str, buffering: int = -1) -> Any:
            self._do("open", path)
            file = opened(path, mode, buffering)
            self._paths[file.fileno()] = path
            return _File(file, path, self)

        def sync(number: int) -> None:
            path = self._paths[number]
            self._do("sync", path)
            self._content[os.fstat(number).st_ino] = path.read_bytes()

        def sync_names(path: Path) -> None:
            self._do("sync", path)
            self._keep(path)

        def watched(name: str) -> Any:
            plain = getattr(Path, name)

            def call(path: Path, *args: Any, **options: Any) -> Any:
                if path.is_relative_to(self._folder):
                    self._do(name, path)
                return plain(path, *args, **options)

            return call

        patch.setattr(_files, "open_to_write", open_to_write)
        patch.setattr(_files.os, "fsync", sync)
        patch.setattr(_files, "_sync_folder", sync_names)
        for name in ("replace", "unlink", "mkdir"):
            patch.setattr(Path, name, watched(name))


class _File:
    """A file whose last write is torn."""

    def __init__(self, file: BinaryIO, path: Path, disk: Disk):
        self._file, self._path, self._disk = file, path, disk

    def write(self, content: Any) -> int:
        if self._disk.step("write", self._path):
            content = memoryview(content).cast("B")
            _ = self._file.write(content[: len(content) // 2])
        self._disk.fail(None)
        return self._file.write(content)

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            _ = self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
