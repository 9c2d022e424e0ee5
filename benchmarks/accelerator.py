"""Times a training step of the paper's tasks on an accelerator, one seed and eight in one program.

    python benchmarks/accelerator.py                       # every row
    python benchmarks/accelerator.py --only grid-4x16 25gmm/teacher/1/-

Each row is a process of its own. All of them compile side by side, then each has the accelerator to
itself, in turns, and times three chunks of a fresh run. Matrix products are in the precision that
JAX takes by default, which on recent NVIDIA cards is TF32.
"""

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

import didact
from bench import TIMED as TIMED_ON_GRIDS
from bench import WARM_UP, machine, matmul_peak, time_chunk
from didact.presets import DIFFUSION_TASKS, diffusion, grid
from discovery import of_strings

RESULTS = Path(__file__).parent / "results"


class Row(NamedTuple):
    """What is timed; `batch_size` None: that of the preset."""

    task: str
    preset: str
    seeds: int = 1
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """On the command line."""
        return "/".join("-" if part is None else str(part) for part in self)


ROWS = [
    *(
        Row(f"grid-{size}", preset, seeds, 16)
        for size in ("4x16", "4x32", "2x128")
        for preset in ("tb", "teacher")
        for seeds in (1, 8)
    ),
    # That of the times in torchgfn's own benchmark.
    *(Row(f"grid-{size}", "tb", 1, 32) for size in ("4x16", "4x32")),
    *(Row("25gmm", preset) for preset in ("tb", "tb-per", "teacher")),
    Row("manywell-32", "teacher"),
    *(Row("tfbind8", "teacher-per", seeds) for seeds in (1, 4)),
    *(Row("qm9", "teacher-per", seeds) for seeds in (1, 4)),
]


def experiment_of(row: Row) -> didact.Experiment:
    """At the size of the paper."""
    if row.task.startswith("grid-"):
        dim, side = map(int, row.task.removeprefix("grid-").split("x"))
        assert row.batch_size is not None
        return grid(row.preset, dim, side, batch_size=row.batch_size)
    if row.task in DIFFUSION_TASKS:
        task = DIFFUSION_TASKS[row.task]
        return diffusion(task.target(), row.preset, sigma=task.sigma, size="paper")
    return of_strings(row.task, row.preset)


def one(row: Row) -> None:
    """Compile, say so, wait for a line, time: the protocol of a row's own process."""
    experiment = experiment_of(row)
    on_grid = row.task.startswith("grid-")
    turns = len(getattr(experiment.behaviour, "turns", (None,)))
    warm_up, steps = (WARM_UP, TIMED_ON_GRIDS) if on_grid else (turns, 4 * turns)
    began = time.perf_counter()
    state = didact.init(experiment, tuple(range(row.seeds)))
    state, info = didact.train_chunk(experiment, state, warm_up, capacity=steps)
    jax.block_until_ready(info.loss)
    cold = time.perf_counter() - began
    print("ready", flush=True)
    input()
    seconds = []
    for _ in range(3):
        spent, state, info = time_chunk(experiment, state, steps, capacity=steps)
        seconds.append(spent / steps)
    used = jax.devices()[0].memory_stats() or {}
    result = row._asdict() | {
        "batch_size": experiment.batch_size,
        "milliseconds": 1e3 * statistics.median(seconds),
        "milliseconds_all": [1e3 * s for s in seconds],
        "first_chunk_seconds": cold,
        "device_memory_mib": used.get("peak_bytes_in_use", 0) / 2**20,
    }
    print(json.dumps(result), flush=True)


def matmul_peaks() -> dict[str, float]:
    """TFLOP/s of a large product of float32 matrices, as it is by default and in full precision."""
    size = 2_048 if jax.default_backend() == "cpu" else 8_192
    return {name: matmul_peak(size, precision=name) / 1e12 for name in ("default", "highest")}


class _Process:
    """A row's process; what it prints arrives in a queue, so that waiting can have a limit."""

    def __init__(self, row: Row):
        # The rows share the memory of the accelerator.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.row = row
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--one", row.name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def line(self, seconds: float) -> str | None:
        """The next one; None where it has ended or the time is over."""
        try:
            return self.lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            return None

    def end(self) -> None:
        """And give back its memory on the accelerator."""
        self.process.kill()
        self.process.wait()

    def go(self) -> None:
        """Let it time."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def measure(rows: list[Row], seconds: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Compile all rows for at most so many seconds, then time those that are ready. Returns also
    the names of those that are left out.
    """
    end = time.monotonic() + seconds
    processes = [_Process(row) for row in rows]
    try:
        ready = [process for process in processes if process.line(end - time.monotonic())]
        left_out = [process for process in processes if process not in ready]
        for process in left_out:
            process.end()
        results = []
        print(f"{'row':32}{'ms/update':>11}{'compiled in s':>15}{'MiB':>8}", flush=True)
        for process in ready:
            process.go()
            line = process.line(60.0)
            process.end()
            if line is None:
                left_out.append(process)
                continue
            result = json.loads(line)
            results.append(result)
            print(
                f"{process.row.name:32}{result['milliseconds']:11.2f}"
                f"{result['first_chunk_seconds']:15.0f}{result['device_memory_mib']:8.0f}",
                flush=True,
            )
        names = [process.row.name for process in left_out]
        print(f"left out: {', '.join(names) or 'none'}")
        return results, names
    finally:
        for process in processes:
            process.end()


def main() -> None:
    """Measure, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=None, help="tasks, or rows by name")
    parser.add_argument("--seconds", type=float, default=600.0, help="to compile in")
    parser.add_argument("--out", type=Path, default=RESULTS / "accelerator.json")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        one(next(row for row in ROWS if row.name == options.one))
        return
    only = options.only
    rows = [row for row in ROWS if only is None or {row.task, row.name} & set(only)]
    results, left_out = measure(rows, options.seconds)
    here = machine() | {"tflops": matmul_peaks()}
    kept = {"machine": here, "rows": results, "left_out": left_out}
    options.out.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"Written to {options.out.name}; peaks {here['tflops']}")


if __name__ == "__main__":
    main()
