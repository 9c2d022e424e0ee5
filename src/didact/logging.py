"""The record of a run, `metrics.jsonl`, and the progress of its training.

The record is append-only JSON lines: a header with the format's version, then one object a
row, `kind` "train" or "evaluation". Values that depend on the clock stand under `time`.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ._files import write_whole
from .metrics import finite_or_none

FORMAT_VERSION = 1
_SECONDS_BETWEEN_LINES = 10.0


class MetricsLog:
    """Appends rows to a metrics file; on opening, forgets what came after `step`, and before
    the first step everything.
    """

    def __init__(self, path: Path, *, step: int):
        kept = [row for row in read_metrics(path) if step > 0 and row.get("step", 0) <= step]
        rows = kept or [{"kind": "header", "format_version": FORMAT_VERSION}]
        with write_whole(path) as file:
            file.writelines(_line(row).encode() for row in rows)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; what was written survives the end of the process."""
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a metrics file, none if it is missing. A last line cut short is left out.

    **Errors:** `ValueError` for a damaged line elsewhere, or a version from the future.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            version = row.get("format_version", FORMAT_VERSION)
            _check(row)
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
            if number == len(lines):
                return
            raise ValueError(
                f"{path} is damaged at line {number}: remove that line and what follows it."
            ) from error
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} has format version {version}: update didact to read it.")
        yield row


class ProgressBar:
    """What a run is doing, on stderr: a bar with loss, modes found, speed and time left; where that
    is no terminal, a line for each phase and every ten seconds one more.
    """

    def __init__(self, total: int, done: int, *, enabled: bool):
        self._console = Console(stderr=True)
        self._shown = enabled and self._console.is_terminal
        self._lines = enabled and not self._shown
        self._total, self._quality = total, ""
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
        parts.append(f"{row['time']['steps_per_second']:.0f} steps/s")
        self._progress.update(
            self._task, completed=row["step"], phase="training", status="  ".join(parts)
        )
        now = time.monotonic()
        if self._first is None:  # the first chunk compiles: it says nothing of the speed
            self._first = row["step"], now
        if self._lines and now - self._said_at >= _SECONDS_BETWEEN_LINES:
            quality = self._quality or f"loss {_mean(row['loss']):.3g}"
            left = self._time_left(row["step"], now)
            self._say(f"step {row['step']:,}/{self._total:,}, {quality}{left}")

    def judged(self, row: Mapping[str, Any]) -> None:
        """Remember an "evaluation" row, of which the next line will tell."""
        for key, name in (("tv", "TV"), ("elbo", "ELBO")):
            values = row.get(key)
            if values and None not in values:
                self._quality = f"{name} {_mean(values):.3g} at step {row['step']:,}"
                return

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


def _check(row: Mapping[str, Any]) -> None:
    """`KeyError` or `TypeError` if a row lacks what every reader relies on."""
    if row["kind"] != "header":
        _ = row["step"] + 0
    if row["kind"] == "train":
        _ = row["time"]["seconds"] + 0.0


def _mean(values: Sequence[float | int | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else float("nan")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_none(dict(row)), allow_nan=False) + "\n"


__all__ = ["MetricsLog", "ProgressBar", "read_metrics"]
