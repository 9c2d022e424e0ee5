"""The record of a run, `metrics.jsonl`, and the progress of its training.

The record is append-only JSON lines: a header with the format's version, then one object a
row, `kind` "train" or "evaluation". Values that depend on the clock, or on what a cache held
already, stand under `time`.
"""

import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ._files import AppendedFile, open_to_read, read_lines, write_whole
from ._json import parse
from .metrics import finite_or_none

FORMAT_VERSION = 1
_SEEN = b"didact seen 0001"
_SEEN_ROW = np.dtype([("step", "<u4"), ("seed", "<u4"), ("object", "<u8")])
_MAX_SEEN = 2**32
"""Bytes: 2^28 objects."""
_SECONDS_BETWEEN_LINES = 10.0
_log = logging.getLogger("didact")


class MetricsLog:
    """Appends rows to a metrics file; on opening, forgets what came after `step`, and before
    the first step everything. `rows` are those that were kept.
    """

    def __init__(self, path: Path, *, step: int):
        kept = [row for row in read_metrics(path) if step > 0 and row.get("step", 0) <= step]
        self.rows = kept or [{"kind": "header", "format_version": FORMAT_VERSION}]
        with write_whole(path) as file:
            file.writelines(_line(row) for row in self.rows)
        self._file = AppendedFile(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; what was written survives the end of the process."""
        self._file.write(_line(row))

    def sync(self) -> None:
        """Wait until the rows are on the disk: they then survive the end of the machine too."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a metrics file, none if it is missing. A last line cut short is left out.

    **Errors:** `ValueError` for a damaged line elsewhere, or a version from the future.
    """
    if not path.exists():
        return
    broken: Exception | None = None
    for number, line in enumerate(read_lines(path), start=1):
        if broken is not None:
            raise ValueError(
                f"{path} is damaged at line {number - 1}: remove that line and what follows it."
            ) from broken
        try:
            row = parse(line)
            version = row.get("format_version", FORMAT_VERSION)
            _check(row)
        except (ValueError, AttributeError, TypeError, KeyError, OverflowError) as error:
            broken = error
            continue
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} has format version {version}: update didact to read it.")
        yield row


class RewardLedger:
    """Which objects a run has asked the reward of, where the reward is computed outside JAX.

    `seen.bin` holds a row for each object that a seed has asked for, in the order of the steps;
    `failures.jsonl`, made with the first of them, those that were set aside, and why. On opening,
    what came after `step` is forgotten.

    **Arguments:** `seeds` of the run, whose positions `note` speaks of.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], *, step: int):
        self._folder, self._seeds = folder, tuple(seeds)
        rows = _read_seen(folder, step)
        if step > 0 and not len(rows):
            _log.warning("%s is missing: objects are counted from here on.", folder / "seen.bin")
        with write_whole(folder / "seen.bin") as file:
            file.write(_SEEN + rows.tobytes())
        self._seen = [set(rows["object"][rows["seed"] == seed].tolist()) for seed in seeds]
        self._failures: MetricsLog | None = None
        self._set_aside = [0] * len(self._seeds)
        if (folder / "failures.jsonl").exists():
            self._failures = MetricsLog(folder / "failures.jsonl", step=step)
            for row in read_metrics(folder / "failures.jsonl"):
                if row["kind"] == "failure" and row.get("seed") in self._seeds:
                    self._set_aside[self._seeds.index(row["seed"])] += 1
        # Last: nothing that is opened stays so where a file cannot be read.
        self._file = AppendedFile(folder / "seen.bin")

    @property
    def reward_calls(self) -> list[int]:
        """Number of different objects that each seed has asked for."""
        return [len(seen) for seen in self._seen]

    @property
    def failures(self) -> list[int]:
        """Number of those that were set aside."""
        return list(self._set_aside)

    def note(
        self,
        step: int,
        positions: Sequence[int],
        keys: Sequence[str | bytes],
        objects: Sequence[Any] | np.ndarray,
        failures: Mapping[int, str],
    ) -> None:
        """Add what the gradient step of a number has asked for.

        **Arguments:** `positions` of the seeds that asked; `keys` and `objects`, equal numbers for
        each of them, one seed after the other; `failures`: why an object was set aside, by its
        place among the objects.
        """
        size = len(keys) // max(1, len(positions))
        rows: list[tuple[int, int, int]] = []
        for i, key in enumerate(keys):
            position = positions[i // size]
            name = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
            number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
            if number in self._seen[position]:
                continue
            self._seen[position].add(number)
            rows.append((step, self._seeds[position], number))
            if i in failures:
                self._note_failure(step, position, objects[i], failures[i])
        self._file.write(np.array(rows, _SEEN_ROW).tobytes())

    def sync(self) -> None:
        """Wait until what was noted is on the disk: a checkpoint must not be ahead of it."""
        self._file.sync()
        if self._failures is not None:
            self._failures.sync()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._failures is not None:
            self._failures.close()

    def _note_failure(self, step: int, position: int, x: Any, reason: str) -> None:
        if self._failures is None:
            self._failures = MetricsLog(self._folder / "failures.jsonl", step=0)
        x = x if isinstance(x, str) else np.asarray(x).tolist()
        self._failures.write(
            {
                "kind": "failure",
                "step": step,
                "seed": self._seeds[position],
                "x": x,
                "reason": reason,
            }
        )
        self._set_aside[position] += 1


def reward_calls(folder: Path, seeds: Sequence[int], *, step: int) -> list[int]:
    """Number of different objects that each seed of a run has asked for up to a step, from what
    a `RewardLedger` has written.
    """
    rows = _read_seen(folder, step)
    return [len(np.unique(rows["object"][rows["seed"] == seed])) for seed in seeds]


def say(text: str) -> None:
    """A line on stderr, without colours and wrapping."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class ProgressBar:
    """What a run is doing, on stderr: a bar with loss, modes found, speed and time left; where that
    is no terminal, a line for each phase and every ten seconds one more.
    """

    def __init__(self, total: int, done: int, *, enabled: bool):
        self._console = Console(stderr=True)
        self._shown = enabled and self._console.is_terminal
        self._lines = enabled and not self._shown
        self._total, self._quality, self._loss = total, "", ""
        self._said_at = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._progress = Progress(
            TextColumn("{task.fields[phase]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._shown,
            transient=True,
        )
        self._task = self._progress.add_task(
            "train", total=total, completed=done, phase="", status=""
        )

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def phase(self, name: str) -> None:
        """Say what begins now, such as "compiling"."""
        self._progress.update(self._task, phase=name, status="")
        if self._lines:
            self._say(f"{name} ...")

    def update(self, row: Mapping[str, Any]) -> None:
        """Show a "train" row."""
        parts = [f"loss {_mean(row['loss']):.3g}"]
        if row["modes_found"] is not None:
            parts.append(f"modes {_mean(row['modes_found']):.0f}")
        if any(row.get("failures") or ()):
            parts.append(f"{sum(row['failures'])} objects set aside")
        speed = row["time"]["steps_per_second"]
        parts.append(f"{speed:.0f} steps/s" if speed >= 1 else f"{1 / speed:.0f} s/step")
        self._progress.update(
            self._task, completed=row["step"], phase="training", status="  ".join(parts)
        )
        self._loss = f"loss {_mean(row['loss']):.3g}"
        self._tell(row["step"])

    def advance(self, step: int) -> None:
        """Show that a step is done, where a chunk takes long."""
        self._progress.update(self._task, completed=step, phase="training")
        self._tell(step)

    def judged(self, row: Mapping[str, Any]) -> None:
        """Remember an "evaluation" row, of which the next line will tell."""
        for key, name in (("tv", "TV"), ("elbo", "ELBO")):
            values = row.get(key)
            if values and None not in values:
                self._quality = f"{name} {_mean(values):.3g} at step {row['step']:,}"
                return

    def _tell(self, step: int) -> None:
        """A line, if it is time for one."""
        now = time.monotonic()
        if self._first is None:  # what was before it has compiled: it says nothing of the speed
            self._first = step, now
        if self._lines and now - self._said_at >= _SECONDS_BETWEEN_LINES:
            known = [text for text in (self._quality or self._loss,) if text]
            done = ", ".join([f"step {step:,}/{self._total:,}", *known])
            self._say(done + self._time_left(step, now))

    def _time_left(self, step: int, now: float) -> str:
        assert self._first is not None
        done, since = step - self._first[0], now - self._first[1]
        if done <= 0 or step >= self._total:
            return ""
        seconds = since / done * (self._total - step)
        about = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        return f", about {about} left"

    def _say(self, text: str) -> None:
        self._said_at = time.monotonic()
        print(text, file=self._console.file, flush=True)  # without colours and wrapping


def _read_seen(folder: Path, step: int) -> np.ndarray:
    """The rows of `seen.bin` up to a step; none if it is missing. A last row cut short is left out.

    **Errors:** `ValueError` for a file of another kind or version.
    """
    path = folder / "seen.bin"
    if step <= 0 or not path.exists():
        return np.zeros(0, _SEEN_ROW)
    with open_to_read(path) as file:
        begins, size = file.read(len(_SEEN)) == _SEEN, path.stat().st_size
    if not begins or size > _MAX_SEEN:
        raise ValueError(f"{path} is damaged, or of another version of didact: remove it.")
    whole = (size - len(_SEEN)) // _SEEN_ROW.itemsize
    if not whole:
        return np.zeros(0, _SEEN_ROW)
    # Mapped, and not read: of the rows only those that are asked for take memory.
    rows = np.memmap(path, _SEEN_ROW, "r", len(_SEEN), whole)
    # Steps count from 1: what a power cut leaves at the end of a file may be zeros.
    return np.array(rows[(rows["step"] >= 1) & (rows["step"] <= step)])


def _check(row: Mapping[str, Any]) -> None:
    """An error if a row lacks what every reader relies on."""
    kind = row["kind"]
    if kind != "header" and (type(row["step"]) is not int or row["step"] < 0):
        raise TypeError("a row has no step")
    if kind == "train" and not float(row["time"]["seconds"] + 0.0) >= 0:
        raise TypeError("a row has no time")
    for name in ("reward_calls", "failures"):
        value = row.get(name)
        for count in value if isinstance(value, list) else [value]:
            if count is not None and type(count) is not int:
                raise TypeError(f"a row has {name} that are no numbers")


def _mean(values: Sequence[float | int | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else float("nan")


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(finite_or_none(dict(row)), allow_nan=False) + "\n").encode()


__all__ = ["MetricsLog", "ProgressBar", "RewardLedger", "read_metrics", "reward_calls", "say"]
