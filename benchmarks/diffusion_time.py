"""Times an update of the diffusion samplers, beside what its arithmetic alone would cost.

    python benchmarks/diffusion_time.py --size paper        # batch 500, T = 100, width 256

Whole turns of the schedule are timed in one program, compilation and the first of them left out.
The arithmetic counted is nominal: one network call a transition in a rollout, three (forward, and
twice that backward) a transition and agent in training; layers on time alone, which are evaluated
once for each of the T + 1 times, are not counted. The peak of memory is the whole process's.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import didact
from bench import machine, matmul_peak, memory_speed, time_steps
from didact.networks import DiffusionMLPConfig
from didact.presets import DIFFUSION_TASKS, SIZES, diffusion

PRESETS = ("tb", "tb-per", "teacher")
_BEYOND_CACHES = 2**28


def nominal(experiment: didact.Experiment) -> tuple[float, float]:
    """Operations of one update, and bytes of hidden layers that it moves; means over the schedule.

    What a layer gives is written and read once in a rollout, and five times in training: written,
    read, read again for the gradient, whose own is written and read. Each step of a rollout reads
    the weights too.
    """
    env, network = experiment.environment, experiment.network
    assert isinstance(network, DiffusionMLPConfig)
    dim, width = env.feature_size, network.width
    layers = 2 + network.depth
    forward = 2 * (dim * width + (layers - 1) * width**2 + width * env.forward_size)
    agents = 1 if experiment.teacher_reward is None else 2
    turns = experiment.behaviour.turns
    rollouts = sum(turn.source in ("student", "teacher") for turn in turns) / len(turns)
    # Objects that are collected are scored by the Student for their priority.
    rollouts += sum(turn.collects for turn in turns) / len(turns)
    transitions = experiment.batch_size * env.num_steps
    moved = transitions * 4 * layers * width * (2 * rollouts + 5 * agents)
    moved += rollouts * env.num_steps * 2 * forward  # 4 bytes for each weight, 2 operations
    return transitions * forward * (rollouts + 3 * agents), moved


def measure(task: str, preset: str, size: Literal["paper", "cpu"], rounds: int) -> dict[str, Any]:
    """Milliseconds an update: the mean over `rounds` rounds of the schedule."""
    place = DIFFUSION_TASKS[task]
    experiment = diffusion(place.target(), preset, sigma=place.sigma, size=size)
    turns = len(experiment.behaviour.turns)
    seconds, cold, _ = time_steps(experiment, [0], turns, rounds * turns)
    peak = matmul_peak()
    (count, moved), network = nominal(experiment), experiment.network
    assert isinstance(network, DiffusionMLPConfig)
    return {
        "task": task,
        "preset": preset,
        "batch_size": experiment.batch_size,
        "num_steps": experiment.environment.num_steps,
        "width": network.width,
        "milliseconds": 1e3 * seconds,
        "operations": count,
        "bytes": moved,
        "bytes_milliseconds": 1e3 * moved / memory_speed(_BEYOND_CACHES, repeats=10),
        "peak_gflops": peak / 1e9,
        "share_of_peak": count / peak / seconds,
        "first_chunk_seconds": cold,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure each preset in a process of its own, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="paper")
    parser.add_argument("--task", choices=sorted(DIFFUSION_TASKS), default="25gmm")
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help="print one preset's numbers as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.task, options.presets[0], options.size, options.rounds)))
        return
    rows = []
    print(
        f"{'preset':10}{'ms/update':>11}{'GFLOP':>8}{'peak GFLOP/s':>14}{'of peak':>9}"
        f"{'MB':>7}{'bytes ms':>10}{'MiB':>8}"
    )
    for preset in options.presets:
        command = [sys.executable, __file__, "--one", "--presets", preset]
        command += ["--size", options.size, "--task", options.task]
        command += ["--rounds", str(options.rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{preset:10}{row['milliseconds']:11.1f}{row['operations'] / 1e9:8.1f}"
            f"{row['peak_gflops']:14.0f}{row['share_of_peak']:9.0%}"
            f"{row['bytes'] / 1e6:7.0f}{row['bytes_milliseconds']:10.1f}"
            f"{row['peak_memory_mib']:8.0f}",
            flush=True,
        )
    out = Path(__file__).parent / "results" / f"diffusion-update-{options.size}.json"
    out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    print(f"Written to {out.name}")


if __name__ == "__main__":
    main()
