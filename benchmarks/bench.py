"""Times a training iteration on the four grids, beside what its arithmetic alone would cost.

Run with `make bench`. Each line is one fresh training run: iterations 120 to 320 of it are timed
by the wall clock, evaluation left out. The arithmetic counted is nominal: one network call a
transition in the rollout and three (forward, and twice that backward) a transition and network in
training, whatever the program really does; the floor is that arithmetic at the matrix-product
peak that the same process measures just before. Beside it stands what the bytes alone would cost
that these calls have to read and write, at the speed of changing an array as large as all of them.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import didact

GRIDS = ((2, 128), (2, 256), (4, 16), (4, 32))
WIDTH = 256
WARM_UP, TIMED = 120, 200
# Iterations per second of the published code: one thread of an idle 2-core machine, batch 16,
# the same iterations of a fresh run.
PUBLISHED = {
    ("tb", 2, 128): 24.4,
    ("tb", 2, 256): 11.6,
    ("tb", 4, 16): 55.5,
    ("tb", 4, 32): 30.6,
    ("teacher", 2, 128): 12.4,
    ("teacher", 2, 256): 6.5,
    ("teacher", 4, 16): 39.6,
    ("teacher", 4, 32): 23.9,
}


def matmul_peak(size: int = 2048, repeats: int = 12, precision: str | None = None) -> float:
    """Floating-point operations per second of a large float32 matrix product: the best of some."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=precision))
    product(a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def memory_speed(size: float, repeats: int = 50) -> float:
    """Bytes per second, read and written, of the change of an array of so many bytes: the best."""
    a = jnp.ones(max(int(size) // 4, 1))
    change = jax.jit(lambda x: x * 1.0001, donate_argnums=0)
    a = change(a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        a = change(a).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * a.nbytes / min(seconds)


def time_chunk(
    experiment: didact.Experiment, state: didact.TrainState, steps: int, *, capacity: int
) -> tuple[float, didact.TrainState, didact.StepInfo]:
    """Seconds of a chunk of steps, and what it gives."""
    began = time.perf_counter()
    state, info = didact.train_chunk(experiment, state, steps, capacity=capacity)
    jax.block_until_ready(info.loss)
    return time.perf_counter() - began, state, info


def time_steps(
    experiment: didact.Experiment, seeds: Iterable[int], warm_up: int, steps: int
) -> tuple[float, float, didact.StepInfo]:
    """Seconds a step of a fresh run after `warm_up` of them, seconds of these, which compile, and
    what the timed steps report.
    """
    state = didact.init(experiment, tuple(seeds))
    cold, state, _ = time_chunk(experiment, state, warm_up, capacity=steps)
    seconds, _, info = time_chunk(experiment, state, steps, capacity=steps)
    return seconds / steps, cold, info


def machine() -> dict[str, Any]:
    """Where and with what numbers are taken."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def operations_per_transition(preset: str, dim: int) -> float:
    """Nominal operations of one transition: the embedding's sum is not counted."""
    forward = 2 * (WIDTH * WIDTH + WIDTH * (dim + 1))
    networks = 2 if preset.startswith("teacher") else 1
    return forward * (1 + 3 * networks)


def bytes_per_iteration(
    preset: str, dim: int, side: int, *, length: float, transitions: float
) -> tuple[float, float]:
    """Nominal bytes read and written in an iteration, and of these the different ones, in float32.

    A step of the rollout reads the weights of the Student's layers, for the whole batch; at least
    as many steps as the mean length are made. In training each network reads them twice and writes
    their gradient; it writes and reads the two layers of activations of each transition, forward
    and backward, five times in all. The embedding gives a row a coordinate, in the rollout and in
    training, and takes a gradient. The optimiser reads gradient, parameter and two moments and
    writes the latter three.
    """
    networks = 2 if preset.startswith("teacher") else 1
    layers = 4 * (WIDTH * WIDTH + WIDTH * (dim + 1))
    embedding = 4 * dim * side * WIDTH
    activations = 4 * 2 * WIDTH * transitions
    rows = 4 * dim * WIDTH * transitions
    rollout = length * layers + rows
    training = networks * (3 * layers + 5 * activations + 3 * rows + 7 * (layers + embedding))
    return rollout + training, networks * (4 * (layers + embedding) + activations)


def measure(preset: str, dim: int, side: int, seeds: int, repeats: int) -> dict[str, Any]:
    """Milliseconds an iteration: the median over fresh runs, and what they did."""
    experiment = didact.presets.grid(preset, dim, side)
    timings, transitions, cold = [], [], 0.0
    for repeat in range(repeats):
        first = seeds * repeat
        each, begun, info = time_steps(experiment, range(first, first + seeds), WARM_UP, TIMED)
        cold = cold or begun
        timings.append(each)
        transitions.append(float(jnp.mean(info.mean_length)) * experiment.batch_size)
    seconds = statistics.median(timings)
    operations = np.mean(transitions) * seeds * operations_per_transition(preset, dim)
    length = float(np.mean(transitions)) / experiment.batch_size
    moved, held = bytes_per_iteration(
        preset, dim, side, length=length, transitions=float(np.mean(transitions))
    )
    published = PUBLISHED.get((preset, dim, side))
    return {
        "preset": preset,
        "dim": dim,
        "side": side,
        "seeds": seeds,
        "milliseconds": 1e3 * seconds,
        "milliseconds_all": [1e3 * t for t in timings],
        "iterations_per_second": 1 / seconds,
        "transitions": float(np.mean(transitions)),
        "operations": float(operations),
        "bytes": seeds * moved,
        "bytes_milliseconds": 1e3 * seeds * moved / memory_speed(seeds * held),
        "first_chunk_seconds": cold,
        "times_published": None if published is None or seeds > 1 else 1 / seconds / published,
        "seeds_times_published": None if published is None else seeds / seconds / published,
    }


def main() -> None:
    """Measure, print a table, and write the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["tb", "teacher"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    peak = matmul_peak()
    here = machine() | {"peak_gflops": peak / 1e9}
    print(f"matrix-product peak {peak / 1e9:.0f} GFLOP/s on {here['cores']} cores, float32")
    print(
        f"{'preset':9}{'grid':>9}{'seeds':>6}{'ms/iter':>9}{'iter/s':>8}{'trans.':>8}"
        f"{'floor ms':>10}{'of peak':>9}{'MB':>7}{'bytes ms':>10}{'x published':>13}"
    )
    rows = []
    for preset in options.presets:
        for dim, side in GRIDS:
            for seeds in options.seeds:
                # The clock of a shared machine drifts: the peak is measured beside each line.
                peak = matmul_peak()
                row = measure(preset, dim, side, seeds, options.repeats)
                row["peak_gflops"] = peak / 1e9
                row["floor_milliseconds"] = 1e3 * row["operations"] / peak
                row["share_of_peak"] = row["floor_milliseconds"] / row["milliseconds"]
                ratio = row["times_published"] or row["seeds_times_published"]
                rows.append(row)
                print(
                    f"{preset:9}{f'({dim},{side})':>9}{seeds:6}{row['milliseconds']:9.2f}"
                    f"{row['iterations_per_second']:8.1f}{row['transitions']:8.0f}"
                    f"{row['floor_milliseconds']:10.2f}{row['share_of_peak']:9.0%}"
                    f"{row['bytes'] / 1e6:7.0f}{row['bytes_milliseconds']:10.2f}"
                    f"{'' if ratio is None else f'{ratio:.1f}':>13}",
                    flush=True,
                )
    out = options.out or Path(__file__).parent / "results" / "training-iteration.json"
    out.parent.mkdir(exist_ok=True, parents=True)
    out.write_text(json.dumps({"machine": here, "rows": rows}, indent=2) + "\n")
    print(f"Written to {out}")


if __name__ == "__main__":
    main()
