"""The paper's biochemical tasks: runs the cells, collects, tabulates, draws.

    python benchmarks/discovery.py run --tasks tfbind8     # finished cells are kept
    python benchmarks/discovery.py table                   # from benchmarks/results/discovery
    python benchmarks/discovery.py figure tfbind8          # modes found over rounds
    python benchmarks/discovery.py time                    # rounds and rewards a second

A cell is one preset on one task with all its seeds in one program. All presets of a task ask for
as many rewards. Seeds are the same for all of them, but begin with different networks where there
is a Teacher; differences are paired by seed, with 90 % intervals from Student's t.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from scipy import stats

import didact
from bench import machine, matmul_peak, time_steps
from didact.presets import DISCOVERY_TASKS, discovery
from grid import finished, keep, number, spread

RESULTS = Path(__file__).parent / "results" / "discovery"
PICTURES = Path(__file__).parents[1] / "docs" / "assets"
PRESETS = ("tb", "tb-prt", "tb-per", "search-prt", "teacher-prt", "teacher-per")
CELLS: dict[str, tuple[int, tuple[str, ...]]] = {
    "tfbind8": (3, PRESETS),
    "qm9": (3, ("tb", "tb-prt", "tb-per", "teacher-per")),
    "l14-rna1": (1, ("tb-per", "teacher-per")),
    "seh": (1, ("tb-per", "teacher-per")),
}
COLUMNS = {
    "modes_found": "modes found",
    "modes_held": "modes held",
    "distinct": "different strings",
    "tv": "total variation",
    "spearman": "Spearman",
    "log_z_error": "log Z error",
    "elbo": "ELBO",
    "eubo": "EUBO",
    "mean_value": "mean value",
    "top_value": "best 100",
}
PAIRED = ("modes_found", "modes_held", "tv", "log_z_error")
COLOURS = {
    "tb": "#6b7280",
    "tb-prt": "#56B4E9",
    "tb-per": "#0072B2",
    "search-prt": "#009E73",
    "teacher-prt": "#E69F00",
    "teacher-per": "#D55E00",
}


def run(out: Path, tasks: list[str]) -> None:
    """Train every cell that has not finished yet, one after the other, and collect."""
    for task in tasks:
        seeds, presets = CELLS[task]
        for preset in presets:
            command = [sys.executable, "-m", "didact.cli", "train", task, "--preset", preset]
            command += [
                "--seeds",
                str(seeds),
                "--seed",
                "0",
                "--out",
                str(out / f"{task}-{preset}"),
            ]
            subprocess.run(command, check=True)
            collect(out)


def collect(out: Path) -> None:
    """Keep the verdicts of finished runs beside this file."""
    for folder, config, verdict in finished(out):
        summary = config["summary"]
        cell = {
            "command": config["command"],
            "task": summary["task"],
            "preset": summary["preset"],
            "batch_size": config["experiment"]["batch_size"],
            "created": config["created"],
            "verdict": verdict,
            "curves": curves(folder),
        }
        keep(RESULTS, folder.name, cell)


def curves(folder: Path) -> list[dict[str, Any]]:
    """What had been found by each of a hundred moments of the training."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "train"]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(100, len(rows))).round().astype(int))
    names = ("step", "reward_calls", "distinct", "modes_found")
    return [{name: rows[i][name] for name in names} for i in chosen]


def cells_of(task: str) -> dict[str, dict[str, Any]]:
    """The kept cells of a task by preset, in the order of the presets."""
    cells = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    here = {cell["preset"]: cell for cell in cells if cell["task"] == task}
    return {preset: here[preset] for preset in PRESETS if preset in here}


def table() -> str:
    """Markdown tables, two a task: mean ± standard error over seeds, and paired differences."""
    parts = []
    for task in CELLS:
        cells = cells_of(task)
        if not cells:
            continue
        verdict = next(iter(cells.values()))["verdict"]
        log_z, value = verdict["log_z_true"], verdict["expected_value"][0]
        parts.append(
            f"**{task}**: {verdict['num_modes']:,} modes; {verdict['reward_calls'][0]:,} rewards "
            f"asked for; log Z = {log_z:.3f}, expected value {value:.4f}.\n"
        )
        known = [name for name in COLUMNS if any(present(c, name) for c in cells.values())]
        parts.append("| preset | n | " + " | ".join(COLUMNS[name] for name in known) + " |")
        parts.append("|---|---|" + "---|" * len(known))
        for preset, cell in cells.items():
            verdict = cell["verdict"]
            row = " | ".join(spread(verdict.get(name)) for name in known)
            parts.append(f"| {preset} | {len(verdict['seeds'])} | {row} |")
        parts.append("")
        parts += differences(cells)
    return "\n".join(parts)


def present(cell: dict[str, Any], name: str) -> bool:
    """Whether a cell has numbers of a column."""
    values = cell["verdict"].get(name)
    return isinstance(values, list) and any(value is not None for value in values)


def differences(cells: dict[str, dict[str, Any]]) -> list[str]:
    """How far the Teacher with prioritised replay is ahead of each other preset, seed by seed."""
    base = cells.get("teacher-per")
    if base is None or len(base["verdict"]["seeds"]) < 2:
        return []
    rows = ["| teacher-per less … | " + " | ".join(COLUMNS[name] for name in PAIRED) + " |"]
    rows.append("|---|" + "---|" * len(PAIRED))
    for preset, cell in cells.items():
        if preset == "teacher-per" or cell["verdict"]["seeds"] != base["verdict"]["seeds"]:
            continue
        row = []
        for name in PAIRED:
            a, b = (np.asarray(c["verdict"][name], float) for c in (base, cell))
            mean, error = (a - b).mean(), stats.sem(a - b)
            half = stats.t.ppf(0.95, len(a) - 1) * error
            row.append(f"{number(mean)} [{number(mean - half)}, {number(mean + half)}]")
        rows.append(f"| {preset} | " + " | ".join(row) + " |")
    return [*rows, ""]


def figure(task: str) -> Path:
    """Modes found over rounds and over different strings, mean over seeds, one line a preset."""
    from matplotlib.figure import Figure

    cells = cells_of(task)
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    axes = picture.subplots(1, 2, sharey=True)
    for preset, cell in cells.items():
        modes = np.array([row["modes_found"] for row in cell["curves"]], float)
        calls = np.array([row["reward_calls"] for row in cell["curves"]], float)
        different = np.array([row["distinct"] for row in cell["curves"]], float).mean(1)
        for ax, x in zip(axes, (calls / cell["batch_size"], different), strict=True):
            ax.plot(x, modes.mean(1), color=COLOURS[preset], label=preset)
            if modes.shape[1] > 1:
                error = modes.std(1, ddof=1) / math.sqrt(modes.shape[1])
                band = (modes.mean(1) - error, modes.mean(1) + error)
                ax.fill_between(x, *band, color=COLOURS[preset], alpha=0.2, linewidth=0)
    total = next(iter(cells.values()))["verdict"]["num_modes"]
    for ax, label in zip(axes, ("rounds", "different strings asked for"), strict=True):
        ax.axhline(total, color="#22262b", linewidth=0.8, linestyle=":")
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"modes found, of {total:,}")
    axes[1].legend(frameon=False)
    picture.suptitle(task)
    path = PICTURES / f"{task}-modes.png"
    picture.savefig(path, dpi=120, metadata={"Software": None})
    return path


def time_rounds(tasks: list[str], preset: str = "teacher-per") -> None:
    """Rounds a second of each task, with one seed and with four in one program, beside the share of
    the matrix-product peak; and strings a second of the rewards alone.
    """
    rows = []
    print(f"{'task':10}{'seeds':>6}{'rounds/s':>10}{'ms/update':>11}{'of peak':>9}{'reward/s':>12}")
    for task in tasks:
        known = DISCOVERY_TASKS[task]
        target = known.target()
        experiment = discovery(
            target, preset, rounds=known.rounds, width=known.width, epsilon=known.epsilon
        )
        turns = len(experiment.behaviour.turns)
        strings = strings_per_second(experiment)
        for seeds in (1, 4):
            steps = turns * (2 if known.width > 512 else 20)
            seconds, _, _ = time_steps(experiment, range(seeds), turns, steps)
            peak = matmul_peak()
            row = {
                "task": task,
                "preset": preset,
                "seeds": seeds,
                "rounds_per_second": 0.5 / seconds,
                "milliseconds": 1e3 * seconds,
                "share_of_peak": seeds * operations(experiment, known.width) / peak / seconds,
                "rewards_per_second": strings,
            }
            rows.append(row)
            print(
                f"{task:10}{seeds:6}{row['rounds_per_second']:10.2f}{row['milliseconds']:11.1f}"
                f"{row['share_of_peak']:9.0%}{strings:12,.0f}",
                flush=True,
            )
    out = RESULTS.parent / "discovery-rounds.json"
    out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    print(f"Written to {out.name}")


def operations(experiment: didact.Experiment, width: int) -> float:
    """Nominal operations of an update, the mean over the schedule: each child of each string once
    in a rollout and three times, for both agents, in training, by one product [width, width].
    """
    env = experiment.environment
    turns = experiment.behaviour.turns
    rollouts = sum(turn.source != "replay" for turn in turns) / len(turns)
    agents = 1 if experiment.teacher_reward is None else 2
    each = 2 * width**2 * env.forward_size
    return experiment.batch_size * env.num_steps * each * (rollouts + 3 * agents)


def strings_per_second(experiment: didact.Experiment, n: int = 4096) -> float:
    """How fast the rewards of random strings are computed, in batches of 4,096."""
    env = experiment.environment
    symbols = env.feature_size // env.num_steps
    x = jax.random.randint(jax.random.key(0), (n, env.num_steps), 0, symbols)
    score = eqx.filter_jit(lambda target, x: jax.vmap(target.log_reward)(x))
    score(experiment.target, x).block_until_ready()
    began = time.perf_counter()
    for _ in range(5):
        score(experiment.target, x).block_until_ready()
    return 5 * n / (time.perf_counter() - began)


def main() -> None:
    """Run, collect, tabulate, draw or time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "collect", "table", "figure", "time"])
    parser.add_argument("task", nargs="?", choices=list(CELLS))
    parser.add_argument("--tasks", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--out", type=Path, default=Path("runs/discovery"))
    options = parser.parse_args()
    if options.action == "figure":
        if options.task is None:
            parser.error("name the task of the figure")
        print(figure(options.task).name)
        return
    if options.action == "time":
        time_rounds(options.tasks)
        return
    if options.action == "run":
        run(options.out, options.tasks)
    elif options.action == "collect":
        collect(options.out)
    print(table())


if __name__ == "__main__":
    main()
