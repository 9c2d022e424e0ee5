"""Train the cells of a suite, several at a time, each in a process of its own.

A folder of results holds `cells/NAME`, the run folder of a cell, `cells/NAME.log`, what its
process said, and `results/NAME.json`, what is kept of it once it has finished.
"""

import collections
import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .._files import make_folder, open_to_write
from .._folder import RunError, lock, read_config
from ._kept import Kept, keep, read_kept, without_folder

PROGRAM = (sys.executable, "-m", "didact.cli")
_POLL_SECONDS = 0.1
_STOPPED = (
    *(128 + signal.SIGINT, 128 + signal.SIGTERM),
    *(-signal.SIGINT, -signal.SIGTERM),  # before it could see to its end itself
)
_MAX_LINE = 500
_TAIL_BYTES = 2**14


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method on one task: one command, with all of its seeds.

    **Arguments:** `words` of the command after `didact`, without its folder; `seeds`, `steps`,
    `batch_size` and `reward_calls` of each seed as they follow from these.
    """

    task: str
    method: str
    words: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    batch_size: int
    reward_calls: int

    @property
    def name(self) -> str:
        """Of its folder and files."""
        return f"{self.task}-{self.method}"

    @property
    def command(self) -> str:
        """The command line, without its folder."""
        return shlex.join(["didact", *self.words])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a cell: what is kept of it, or the `error` that ended it; neither where it
    was stopped, or its turn did not come.
    """

    cell: Cell
    kept: Kept | None = None
    error: str | None = None

    @property
    def state(self) -> str:
        """Either "finished", "failed" or "unfinished"."""
        return "finished" if self.kept else "failed" if self.error else "unfinished"


@contextlib.contextmanager
def opened(out: Path, cells: Sequence[Cell]) -> Iterator[None]:
    """The folder of results, made where it is not there, for this process alone.

    **Errors:** `RunError` where it is something else, another process uses it, or it holds one of
    the cells made by another command.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} exists and is not a folder: choose another one with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / "cells").is_dir():
        raise RunError(f"{out} exists and holds no cells: choose another folder with --out.")
    for cell in cells:
        _refuse_another(out, cell)
    with lock(out):
        make_folder(out / "cells")
        yield


def work(
    cells: Sequence[Cell],
    out: Path,
    *,
    workers: int = 1,
    program: Sequence[str] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _: None,
    on_finish: Callable[[Sequence[Outcome]], None] = lambda _: None,
) -> list[Outcome]:
    """Train what has not finished yet; a cell that fails does not keep others from their turn.

    **Arguments:** `out`: an `opened` folder; `workers`: cells in training at a time, each on an
    equal share of the cores where there are enough and the system can keep processes to them, the
    last ones too; `program`: what runs `train ...` in the folder that `--out` names (None: this
    package); `should_stop` is asked all the time: True tells all processes to end in good order,
    with everything written; `tell` takes lines about the progress; `on_finish` all outcomes each
    time that a cell has ended.

    **Returns:** an outcome for each cell, in their order.
    """
    outcomes = {cell.name: Outcome(cell, kept=_finished(out, cell)) for cell in cells}
    waiting = collections.deque(cell for cell in cells if outcomes[cell.name].kept is None)
    if len(waiting) < len(cells):
        tell(f"{len(cells) - len(waiting)} of {len(cells)} cells have finished before.")
    running: dict[str, _Process] = {}
    # Of all cells, so that a suite that goes on gives each as many cores as before.
    free = _shares(min(workers, len(cells)))
    stopped = False
    try:
        while running or (waiting and not stopped):
            while waiting and free and not stopped:
                cell = waiting.popleft()
                running[cell.name] = _Process(
                    cell, out, program or PROGRAM, free.pop(0), alone=workers == 1
                )
                tell(f"{cell.name}: training ({len(waiting)} waiting) ...")
            time.sleep(_POLL_SECONDS)
            for process in [p for p in running.values() if p.has_ended()]:
                del running[process.cell.name]
                free.append(process.cores)
                outcome = process.outcome(out, stopped=stopped)
                outcomes[process.cell.name] = outcome
                tell(_in_words(outcome, process.seconds))
                on_finish(list(outcomes.values()))
            if not stopped and should_stop():
                stopped = True
                for process in running.values():
                    process.end()
    finally:
        for process in running.values():
            process.end()
            process.wait()
    return list(outcomes.values())


def _shares(workers: int) -> list[frozenset[int]]:
    """Equally many cores for each of several processes, which lose much time where they compete for
    them; empty where all may use all.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    size = len(cores) // workers if workers > 1 else 0
    return [frozenset(cores[i * size : (i + 1) * size]) for i in range(workers)]


@contextlib.contextmanager
def _kept_to(cores: frozenset[int]) -> Iterator[None]:
    """What this thread starts here runs on these cores, if there are any and the system permits."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        with contextlib.suppress(OSError):  # in some containers
            os.sched_setaffinity(0, cores)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


class _Process:
    """A cell in training; what its process says goes to a file."""

    def __init__(
        self,
        cell: Cell,
        out: Path,
        program: Sequence[str],
        cores: frozenset[int],
        *,
        alone: bool,
    ):
        self.cell, self.cores = cell, cores
        self._folder = out / "cells" / cell.name
        self._log = out / "cells" / f"{cell.name}.log"
        self._began = time.monotonic()
        self.seconds = 0.0
        environment = dict(os.environ)
        if not alone:
            # Each process would take three quarters of an accelerator's memory.
            environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        with open_to_write(self._log, "wb") as log, _kept_to(cores):
            self._process = subprocess.Popen(
                [*program, *cell.words, f"--out={self._folder}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def has_ended(self) -> bool:
        """Whether the process is over."""
        self.seconds = time.monotonic() - self._began
        return self._process.poll() is not None

    def end(self) -> None:
        """Ask the process to end in good order."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end."""
        _ = self._process.wait()

    def outcome(self, out: Path, *, stopped: bool) -> Outcome:
        """What the process left; what is to be kept of it is written."""
        code = self._process.returncode
        if code != 0:
            if stopped and code in _STOPPED:
                return Outcome(self.cell)
            return Outcome(self.cell, error=self._last_line(code))
        try:
            kept = _as_named(keep(self._folder), self.cell)
        except (RunError, OSError) as error:
            return Outcome(self.cell, error=" ".join(str(error).split()))
        kept.write(out / "results" / f"{self.cell.name}.json")
        return Outcome(self.cell, kept=kept)

    def _last_line(self, code: int) -> str:
        """The last thing that the process said."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        last = said[-1].removeprefix("didact: ") if said else "it said nothing"
        shown = "".join(letter if letter.isprintable() else "?" for letter in last[:_MAX_LINE])
        return f"{shown} (exit code {code}, {self._log})"


def _as_named(kept: Kept, cell: Cell) -> Kept:
    """The same under the names that the suite has."""
    return dataclasses.replace(kept, task=cell.task, method=cell.method)


def _finished(out: Path, cell: Cell) -> Kept | None:
    """What is kept of a cell that has finished; of one whose result was not written yet, too."""
    path = out / "results" / f"{cell.name}.json"
    if path.is_file():
        kept = read_kept(path)
        return kept if kept and kept.command == cell.command and _is_whole(kept) else None
    try:
        kept = _as_named(keep(out / "cells" / cell.name), cell)
    except RunError:  # not there, or not at its end
        return None
    # A run that was stopped after its verdict lacks its report: its own command writes it.
    if not _is_whole(kept) or not (out / "cells" / cell.name / "report.html").is_file():
        return None
    kept.write(path)
    return kept


def _is_whole(kept: Kept) -> bool:
    return kept.verdict.get("finished") is True


def _refuse_another(out: Path, cell: Cell) -> None:
    """`RunError` where the folder of a cell holds a run of another command."""
    folder = out / "cells" / cell.name
    if not (folder / "config.json").is_file():
        return
    there = without_folder(str(read_config(folder).get("command", "")))
    if there != cell.command:
        raise RunError(
            f"{folder} holds another run ({there} there, {cell.command} here): choose another "
            "folder with --out, or remove it."
        )


def _in_words(outcome: Outcome, seconds: float) -> str:
    name = outcome.cell.name
    if outcome.error:
        return f"{name}: failed after {seconds:.0f} s: {outcome.error}"
    if outcome.kept is None:
        return f"{name}: stopped; the same suite goes on with it."
    return f"{name}: finished after {seconds:.0f} s."
