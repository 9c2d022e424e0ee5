"""A command line that is killed in the midst of its work, and called again, until it ends.

Run as a script: python _lives.py KILLS SEED ARGUMENTS... Each life is a fork of this process, which
has imported everything and computed nothing. Half of the lives are killed at a random moment after
the first row of training, the other half within a random write, of which half of the bytes arrive.
Says how the lives ended, as JSON.
"""

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import didact.cli._train
import didact.run
from didact import _files, report
from didact.cli import main

MOST_LIVES, MOST_WRITES, MOST_SECONDS = 500, 1500, 0.3


class Torn:
    """A file of which a write may be the last that this process does."""

    def __init__(self, file: BinaryIO, life: "Life"):
        self._file, self._life = file, life

    def write(self, content: bytes) -> int:
        self._life.writes -= 1
        if self._life.writes == 0:
            self._file.write(memoryview(content).cast("B")[: len(content) // 2])
            self._file.flush()
            die()
        if b'"train"' in bytes(content[:40]):
            self._life.start()
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Life:
    """When a process is to be killed: within the write of a number, or after some seconds."""

    def __init__(self, rng: random.Random, *, by_write: bool):
        self.by_write = by_write
        self.writes = rng.randint(1, MOST_WRITES) if by_write else 0
        self.seconds = None if by_write else rng.uniform(0, MOST_SECONDS)

    def start(self) -> None:
        """Training has begun."""
        seconds, self.seconds = self.seconds, None
        if seconds is not None:
            timer = threading.Timer(seconds, die)
            timer.daemon = True
            timer.start()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(arguments: list[str], life: Life | None) -> None:
    """One process: it ends by itself, or is killed."""
    if life is not None:
        opened = _files.open_to_write

        def open_to_write(path: Path, mode: str, buffering: int = -1) -> Any:
            return Torn(opened(path, mode, buffering), life)

        _files.open_to_write = open_to_write
    report.write = lambda path: _ignore(path / "report.html")
    # Programs are read from the folder of compiled ones; half of one must not be written there.
    didact.cli._train.use_compilation_cache = lambda: None
    main(arguments)


def _ignore(file: Path) -> Path:
    _ = file.write_text("")
    return file


def lives(kills: int, seed: int, arguments: list[str]) -> dict[str, int]:
    """Kill so often, then let it end."""
    rng, ends = random.Random(seed), {"killed": 0, "ended": 0, "within a write": 0}
    for number in range(MOST_LIVES):
        mortal = ends["killed"] < kills
        life = Life(rng, by_write=number % 2 == 0) if mortal else None
        child = os.fork()
        if child == 0:
            try:
                live(arguments, life)
            except SystemExit as end:
                os._exit(int(end.code or 0))
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            ends["killed"] += 1
            ends["within a write"] += life is not None and life.by_write
            continue
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            raise SystemExit(f"life {number} ended with {code}")
        ends["ended"] += 1
        if life is None:
            return ends
    raise SystemExit("it never ended")


if __name__ == "__main__":
    found = lives(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    sys.stdout.write(json.dumps(found))
