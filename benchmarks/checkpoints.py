"""What a checkpoint costs: a share of training time at the default interval; and going on from it.

    python benchmarks/checkpoints.py

*Held up* is how long training waits while the state is copied; *processor* is all that a checkpoint
takes of it, the thread that writes included, until the file is on the disk. On cores that training
keeps busy the second is the loss, and its share of the interval is stated. *Resume* is reading the
newest checkpoint, its checksums tested, until the state is on the device; compiling is not in it.
Buffers are stored in full, whatever they hold, so that an empty one costs as much as a full one.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

import didact
from bench import machine
from didact.checkpoint import CheckpointWriter, checkpoints, load_state
from didact.presets import diffusion, grid

RESULTS = Path(__file__).parent / "results" / "checkpoints.json"
REPEATS = 12
CASES: dict[str, tuple[Callable[[], didact.Experiment], int]] = {
    "grid (2, 64), teacher-per (make demo)": (lambda: grid("teacher-per", 2, 64), 1),
    "grid (4, 32), teacher-per": (lambda: grid("teacher-per", 4, 32), 1),
    "grid (4, 32), teacher-per, 8 seeds": (lambda: grid("teacher-per", 4, 32), 8),
    "25GMM, teacher, paper size": (lambda: diffusion(didact.targets.GMM25(), "teacher"), 1),
    "Manywell-128, didact": (lambda: diffusion(didact.targets.ManyWell(128), "didact"), 1),
    "Manywell-128, didact, 8 seeds": (lambda: diffusion(didact.targets.ManyWell(128), "didact"), 8),
}


def measure(make: Callable[[], didact.Experiment], seeds: int) -> dict[str, float]:
    """Medians over checkpoints of one state."""
    experiment, policy = make(), didact.CheckpointPolicy()
    assert policy.seconds is not None
    state = didact.init(experiment, range(seeds))
    like = eqx.filter_eval_shape(didact.init, experiment, tuple(range(seeds)))
    held, processor, resumed = [], [], []
    with tempfile.TemporaryDirectory() as name, CheckpointWriter(Path(name), policy, step=0) as out:
        for _ in range(REPEATS):
            began, spent = time.perf_counter(), time.process_time()
            out.save(state)
            held.append(time.perf_counter() - began)
            out.wait()
            processor.append(time.process_time() - spent)
            began = time.perf_counter()
            jax.block_until_ready(load_state(Path(name), like))
            resumed.append(time.perf_counter() - began)
        size = checkpoints(Path(name))[-1].stat().st_size
    cost = statistics.median(processor)
    return {
        "mib": size / 2**20,
        "held_up_milliseconds": 1e3 * statistics.median(held),
        "processor_milliseconds": 1e3 * cost,
        "share_of_interval": cost / policy.seconds,
        "resume_seconds": statistics.median(resumed),
    }


def main() -> None:
    """Measure, print a table, and write the results beside this file."""
    rows: list[dict[str, Any]] = []
    print("| run | MiB | held up ms | processor ms | share of training | resume s |")
    print("|---|---|---|---|---|---|")
    for name, (make, seeds) in CASES.items():
        row = measure(make, seeds)
        rows.append({"name": name} | row)
        print(
            f"| {name} | {row['mib']:.1f} | {row['held_up_milliseconds']:.0f} "
            f"| {row['processor_milliseconds']:.0f} | {row['share_of_interval']:.2%} "
            f"| {row['resume_seconds']:.2f} |",
            flush=True,
        )
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
