"""How the time and the memory of a training step grow with the sizes of what is trained.

    python benchmarks/growth.py run       # minutes, on an idle machine
    python benchmarks/growth.py table     # Markdown, from the kept results
    python benchmarks/growth.py figure    # docs/assets/growth.png

One size is changed at a time. Times are those of whole turns of the schedule, compilation left out,
the least of a few. Memory is what the compiled program holds: arguments, results and scratch. The
network is hardly trained, so trajectories are those of the beginning; `transitions` says how many
there were. What grows faster than they do is cost of the program's own.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

import didact
from bench import machine, time_chunk
from didact._apart import runs_apart
from didact._experiment import traced_numbers
from didact._train import _run_chunk
from didact.networks import MLPConfig
from didact.presets import DIFFUSION_TASKS, diffusion, grid
from didact.presets._grid import steps_to_wait

RESULTS = Path(__file__).parent / "results" / "growth.json"
FIGURE = Path(__file__).parents[1] / "docs" / "assets" / "growth.png"
REPEATS = 5


class Axis(NamedTuple):
    """A size, its values, and what is trained at each of them by how many seeds."""

    values: tuple[int, ...]
    make: Callable[[int], didact.Experiment]
    seeds: Callable[[int], int] = lambda _: 1
    steps: int = 24


def _wide(width: int) -> didact.Experiment:
    return replace(grid("tb", 4, 16), network=MLPConfig(width=width))


def _buffered(capacity: int, *, merged: bool = True) -> didact.Experiment:
    experiment = grid("tb-prt", 4, 32)
    assert experiment.replay is not None
    waits = steps_to_wait(capacity, experiment.batch_size) if merged else 1
    buffer = replace(experiment.replay, capacity=capacity, merge_every=waits)
    # With what is learned the lengths of trajectories would change: nothing is learned here.
    still = didact.OptimiserConfig(learning_rate=1e-12, log_z_learning_rate=1e-12)
    return replace(experiment, replay=buffer, optimiser=still)


def _diffusion(*, batch_size: int = 64, num_steps: int = 100) -> didact.Experiment:
    task = DIFFUSION_TASKS["25gmm"]
    return diffusion(
        *(task.target(), "tb"), sigma=task.sigma, batch_size=batch_size, num_steps=num_steps
    )


def _dimensions(dim: int) -> didact.Experiment:
    return diffusion(didact.targets.ManyWell(dim), "tb", batch_size=64, num_steps=50)


AXES = {
    "grid (4, 16): batch size": Axis(
        (16, 32, 64, 128, 256, 512), lambda n: grid("tb", 4, 16, batch_size=n)
    ),
    "grid, 2 dimensions: side": Axis((16, 32, 64, 128, 256), lambda n: grid("tb", 2, n)),
    "grid, side 8: dimensions": Axis((2, 3, 4, 6, 8), lambda n: grid("tb", n, 8)),
    "grid (4, 16): width": Axis((64, 128, 256, 512, 1024), _wide),
    "grid (4, 32): buffer": Axis((1_000, 10_000, 104_268, 1_000_000), _buffered, steps=192),
    "the same, each batch added at once": Axis(
        (1_000, 10_000, 104_268, 1_000_000), lambda n: _buffered(n, merged=False), steps=192
    ),
    "grid (4, 16): seeds": Axis((1, 2, 4, 8), lambda _: grid("tb", 4, 16), lambda n: n),
    "25GMM: batch size": Axis((16, 64, 256, 512), lambda n: _diffusion(batch_size=n)),
    "25GMM: steps of a trajectory": Axis((25, 50, 100, 200), lambda n: _diffusion(num_steps=n)),
    "25GMM, batch 16: seeds": Axis((1, 2, 4, 8), lambda _: _diffusion(batch_size=16), lambda n: n),
    "Manywell: dimensions": Axis((8, 32, 128), _dimensions),
}


def measure(axis: Axis, value: int) -> dict[str, Any]:
    """Milliseconds a step, transitions of a seed in it, MiB of the program."""
    experiment = axis.make(value)
    waits = 1 if experiment.replay is None else experiment.replay.merge_every
    whole = math.lcm(len(experiment.behaviour.turns), waits)
    steps = math.ceil(axis.steps / whole) * whole
    state = didact.init(experiment, range(axis.seeds(value)))
    if waits > 1:  # as it is most of the time: batches wait less at the beginning
        state = replace(state, step=jnp.asarray(16 * whole, jnp.int32))
    apart = runs_apart(state.num_seeds)  # a program for each
    arguments = (
        traced_numbers(experiment),
        state.alone(0) if apart else state,
        jnp.asarray(steps),
        steps,
    )
    held = cast(Any, _run_chunk).lower(*arguments).compile().compiled.memory_analysis()
    milliseconds, transitions = [], 0.0
    for _ in range(1 + REPEATS):
        seconds, state, info = time_chunk(experiment, state, steps, capacity=steps)
        milliseconds.append(1e3 * seconds / steps)
        transitions = float(jnp.mean(info.mean_length)) * experiment.batch_size
    return {
        "value": value,
        "milliseconds": min(milliseconds[1:]),
        "transitions": transitions,
        "mib": (held.argument_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes)
        * (state.num_seeds if apart else 1)
        / 2**20,
    }


def exponent(rows: list[dict[str, Any]], name: str) -> float:
    """Of the growth between the last two values: 1 is linear."""
    (low, high) = rows[-2:]
    return math.log(high[name] / low[name]) / math.log(high["value"] / low["value"])


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: the least and the largest size, and how the cost grows at the end."""
    lines = [
        "| what grows | from, to | ms a step | transitions | MiB | power of time | of memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        first, last = rows[0], rows[-1]
        lines.append(
            f"| {name} | {first['value']:,}, {last['value']:,} "
            f"| {first['milliseconds']:.2f}, {last['milliseconds']:.2f} "
            f"| {first['transitions']:,.0f}, {last['transitions']:,.0f} "
            f"| {first['mib']:.0f}, {last['mib']:.0f} "
            f"| {exponent(rows, 'milliseconds'):.2f} | {exponent(rows, 'mib'):.2f} |"
        )
    return "\n".join(lines)


def _short(value: int) -> str:
    return f"{value // 1000:,}k" if value >= 1000 else str(value)


def figure(results: dict[str, list[dict[str, Any]]]) -> None:
    """One panel a size, both axes logarithmic, with a line of slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter, NullLocator

    columns = 6
    shown, panels = plt.subplots(
        math.ceil(len(results) / columns), columns, figsize=(16, 5.4), squeeze=False
    )
    for axes, (name, rows) in zip(panels.flat, results.items(), strict=False):
        values = np.asarray([row["value"] for row in rows], float)
        times = np.asarray([row["milliseconds"] for row in rows])
        axes.loglog(values, times, "o-", color="#0b6e99", label="ms a step")
        axes.loglog(values, [row["mib"] for row in rows], "s--", color="#b5651d", label="MiB")
        axes.loglog(values, times[-1] * values / values[-1], ":", color="#888888", label="linear")
        axes.set_title(name, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_xticks(values, [_short(row["value"]) for row in rows])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    panels.flat[0].legend(frameon=False, fontsize=8)
    for axes in panels.flat[len(results) :]:
        axes.set_visible(False)
    shown.tight_layout()
    shown.savefig(FIGURE, dpi=110)


def main() -> None:
    """Measure, tabulate or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "table", "figure"])
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    options = parser.parse_args()
    kept = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    if options.action == "run":
        for name in options.axes:
            kept[name] = [measure(AXES[name], value) for value in AXES[name].values]
            kept = {each: kept[each] for each in AXES if each in kept}
            RESULTS.write_text(json.dumps({"machine": machine(), "results": kept}, indent=2) + "\n")
            print(table({name: kept[name]}).splitlines()[-1], flush=True)
            jax.clear_caches()
    if options.action == "figure":
        figure(kept)
    print(table(kept))


if __name__ == "__main__":
    main()
