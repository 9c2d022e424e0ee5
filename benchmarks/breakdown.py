"""Where the time of a training step goes on a CPU, by XLA's own trace of what it runs.

    python benchmarks/breakdown.py run       # a minute, on an idle machine
    python benchmarks/breakdown.py table     # Markdown, from the kept results

Kernels are told apart by where and what they are: those in the loop of the rollout; of the update,
products of matrices (with what the compiler fused into them) and the rest. Their times are summed
over the threads that run them, so that they may exceed the time of the step; what lies between
kernels is in none of them, and to trace them takes time too. Arithmetic is nominal, as in
`compare.py`.
"""

import argparse
import gzip
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax

import didact
from bench import machine, matmul_peak, time_chunk
from compare import TASKS, complete, operations

sys.path.append(str(Path(__file__).parent / "peers"))
from ours import experiment_of

RESULTS = Path(__file__).parent / "results" / "breakdown.json"
CHOSEN = ("grid (4, 16), batch 16", "grid (2, 128), batch 16", "TFBind8, batch 16", "QM9, batch 16")
STEPS = 100
PRODUCTS = ("dot", "ynn_fusion", "convolution")
_CONTAINERS = ("while", "cond", "call", "ThunkExecutor", "Slinky")


def events(folder: Path) -> list[dict[str, Any]]:
    """The spans that XLA's threads recorded."""
    (path,) = folder.rglob("*.trace.json.gz")
    with gzip.open(path) as file:
        recorded = json.load(file)["traceEvents"]
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in recorded
        if event.get("ph") == "M" and event["name"] == "thread_name"
    }
    return [
        event
        for event in recorded
        if event.get("ph") == "X"
        and threads.get((event["pid"], event["tid"]), "").startswith("tf_XLA")
    ]


def split(recorded: list[dict[str, Any]], steps: int) -> dict[str, float]:
    """Microseconds a step of each kind of kernel, all threads together."""
    times = defaultdict(list)
    for event in recorded:
        times[event["name"]].append(event["dur"])
    found = {"rollout": 0.0, "products": 0.0, "rest": 0.0}
    for name, each in times.items():
        if name.startswith(_CONTAINERS):
            continue
        # What runs several times a step is in the loop over the steps of a trajectory.
        inside = len(each) > 3 * steps
        kind = "rollout" if inside else "products" if name.startswith(PRODUCTS) else "rest"
        found[kind] += sum(each) / steps
    return found


def measure(name: str) -> dict[str, Any]:
    """Milliseconds of a step, alone and by kinds of kernels."""
    task = TASKS[name]
    with tempfile.TemporaryDirectory() as folder:
        experiment = experiment_of(complete(task, Path(folder)) | {"teacher": False})
    peak = matmul_peak()
    state, each = didact.init(experiment), []
    for _ in range(6):
        seconds, state, _ = time_chunk(experiment, state, STEPS, capacity=STEPS)
        each.append(1e3 * seconds / STEPS)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            traced, state, info = time_chunk(experiment, state, STEPS, capacity=STEPS)
        parts = split(events(Path(folder)), STEPS)
        transitions = float(info.mean_length.mean()) * experiment.batch_size
    return {
        "task": name,
        "milliseconds": min(each[1:]),
        "traced_milliseconds": 1e3 * traced / STEPS,
        "transitions": transitions,
        "floor_milliseconds": 1e3 * operations(task, transitions) / peak,
        "peak_gflops": peak / 1e9,
        **{f"{kind}_milliseconds": value / 1e3 for kind, value in parts.items()},
    }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: the step, its floor, and its kernels."""
    lines = [
        "| task | ms a step | floor | traced | rollout | products of the update | the rest |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ("", "floor_", "traced_", "rollout_", "products_", "rest_")
    for result in results:
        values = [result[f"{name}milliseconds"] for name in names]
        lines.append(f"| {result['task']} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(CHOSEN))
    options = parser.parse_args()
    if options.action == "run":
        results = [measure(name) for name in options.tasks]
        RESULTS.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    print(table(json.loads(RESULTS.read_text())["results"]))


if __name__ == "__main__":
    main()
