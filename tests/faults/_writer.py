"""Processes that write what a run writes, in the same order, and are killed while they do.

Run as a script: python _writer.py FOLDER KILLS. After each kill the folder is read, as a run that
goes on would read it. Says how often a checkpoint was there, as JSON; nothing is computed by JAX.
"""

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from didact._files import clean
from didact.checkpoint import _write, checkpoints, is_whole
from didact.logging import MetricsLog, RewardLedger, read_metrics, reward_calls


def content(step: int) -> dict[str, np.ndarray]:
    """What the checkpoint of a step holds."""
    return {f"a{i}": np.random.default_rng((step, i)).random(2000) for i in range(20)}


def write_on(folder: Path, step: int, go: Callable[[], None]) -> None:
    """Write rows, objects and checkpoints from a step on, for ever; `go` is called with each
    checkpoint.
    """
    clean(folder)
    log = MetricsLog(folder / "metrics.jsonl", step=step)
    ledger = RewardLedger(folder, (0,), step=step)
    while True:
        step += 1
        ledger.note(step, [0], [str(step)], [[step]], {0: "a failure"} if step % 5 == 0 else {})
        log.write({"kind": "train", "step": step, "time": {"seconds": 1.0}})
        if step % 3 == 0:
            ledger.sync()
            log.sync()
            _write(folder / f"{step:09d}.npz", content(step))
            for old in checkpoints(folder)[:-2]:
                old.unlink()
            go()


def live(folder: Path, step: int, seconds: float, *, at_once: bool) -> None:
    """Write until the kill, some seconds after the beginning or after the first checkpoint."""
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if at_once:
        timer.start()
    write_on(folder, step, lambda: timer.is_alive() or timer.start())


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, which must be whole, and all that it relies on there."""
    step = 0
    for file in checkpoints(folder):
        assert is_whole(file), file
        step = int(file.stem)
    if step:
        with np.load(folder / f"{step:09d}.npz") as read:
            assert all(np.array_equal(read[name], a) for name, a in content(step).items())
    rows = [row["step"] for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "train"]
    assert rows == list(range(1, len(rows) + 1))
    assert len(rows) >= step
    assert reward_calls(folder, (0,), step=step) == [step]
    return step


def main(folder: Path, kills: int) -> dict[str, int]:
    rng, reached = random.Random(0), []
    for number in range(kills):
        step = newest(folder)
        seconds = rng.uniform(0, 0.03)
        child = os.fork()
        if child == 0:
            live(folder, step, seconds, at_once=number % 2 == 0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        reached.append(newest(folder))
    left = len(list(folder.glob("*.partial")))
    return {"kills": kills, "steps": reached[-1], "moves": len(set(reached)), "left": left}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
