"""The paper's biochemical tasks: a picture of the kept runs, and the time of a round.

    python benchmarks/discovery.py figure tfbind8          # modes found over rounds
    python benchmarks/discovery.py time                    # rounds and rewards a second
    python benchmarks/discovery.py host                    # a reward outside JAX, with workers

The runs are those of `didact reproduce biochem`, kept under benchmarks/results/discovery.
"""

import argparse
import json
import math
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

import didact
from bench import machine, matmul_peak, time_steps
from didact.bench import read_all
from didact.presets import DISCOVERY_TASKS, discovery
from didact.targets import HostReward

RESULTS = Path(__file__).parent / "results" / "discovery"
PICTURES = Path(__file__).parents[1] / "docs" / "assets"
COLOURS = {
    "tb": "#6b7280",
    "tb-prt": "#56B4E9",
    "tb-per": "#0072B2",
    "search-prt": "#009E73",
    "teacher-prt": "#E69F00",
    "teacher-per": "#D55E00",
    "teacher-mutate-per": "#22262b",
    "didact": "#CC79A7",
}


def figure(task: str) -> Path:
    """Modes found over rounds and over different strings, mean over seeds, one line a preset."""
    from matplotlib.figure import Figure

    found = {kept.method: kept for kept in read_all(RESULTS) if kept.task == task}
    cells = [found[preset] for preset in COLOURS if preset in found]
    picture = Figure(figsize=(9, 4.2), layout="constrained")
    axes = picture.subplots(1, 2, sharey=True)
    for kept in cells:
        rows = [row for row in kept.curves if "distinct" in row]
        modes = np.array([row["modes_found"] for row in rows], float)
        calls = np.array([row["reward_calls"] for row in rows], float)
        different = np.array([row["distinct"] for row in rows], float).mean(1)
        colour = COLOURS[kept.method]
        for ax, x in zip(axes, (calls / (kept.batch_size or 1), different), strict=True):
            ax.plot(x, modes.mean(1), color=colour, label=kept.method)
            if modes.shape[1] > 1:
                error = modes.std(1, ddof=1) / math.sqrt(modes.shape[1])
                band = (modes.mean(1) - error, modes.mean(1) + error)
                ax.fill_between(x, *band, color=colour, alpha=0.2, linewidth=0)
    total = cells[0].verdict["num_modes"]
    for ax, label in zip(axes, ("rounds", "different strings asked for"), strict=True):
        ax.axhline(total, color="#22262b", linewidth=0.8, linestyle=":")
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"modes found, of {total:,}")
    labelled = axes[0].get_legend_handles_labels()
    picture.legend(*labelled, frameon=False, loc="outside lower center", ncols=4)
    picture.suptitle(task)
    path = PICTURES / f"{task}-modes.png"
    picture.savefig(path, dpi=120, metadata={"Software": None})
    return path


def of_strings(task: str, preset: str) -> didact.Experiment:
    """The paper's experiment on one of its tasks."""
    known = DISCOVERY_TASKS[task]
    return discovery(
        known.target(), preset, rounds=known.rounds, width=known.width, epsilon=known.epsilon
    )


def time_rounds(tasks: list[str], preset: str = "teacher-per") -> None:
    """Rounds a second of each task, with one seed and with four in one program, beside the share of
    the matrix-product peak; and strings a second of the rewards alone.
    """
    rows = []
    print(f"{'task':10}{'seeds':>6}{'rounds/s':>10}{'ms/update':>11}{'of peak':>9}{'reward/s':>12}")
    for task in tasks:
        known = DISCOVERY_TASKS[task]
        experiment = of_strings(task, preset)
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
                "machine": machine(),
            }
            rows.append(row)
            print(
                f"{task:10}{seeds:6}{row['rounds_per_second']:10.2f}{row['milliseconds']:11.1f}"
                f"{row['share_of_peak']:9.0%}{strings:12,.0f}",
                flush=True,
            )
    out = RESULTS.parent / "discovery-rounds.json"
    kept = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = [row for row in kept if row["task"] not in tasks] + rows
    out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(f"Written to {out.name}")


def time_host_rewards(rounds: int = 1_000) -> None:
    """Strings a second of ViennaRNA in Python, by the number of workers, and how many of the
    strings that a run asks for it has asked for before.
    """
    import vienna

    rows = []
    batches = np.random.default_rng(0).integers(0, 4, (4, 4_096, 14))
    for workers in (0, 1, 2):
        target = HostReward(score_fn=vienna.score, alphabet="UCGA", workers=workers, cache=False)
        seconds = []
        for batch in batches:  # the first one starts the workers
            began = time.perf_counter()
            target.rewards(batch)
            seconds.append(time.perf_counter() - began)
        target.close()
        rows.append({"workers": workers, "strings_per_second": 4_096 / min(seconds[1:])})
        print(f"workers {workers}: {rows[-1]['strings_per_second']:,.0f} strings/s", flush=True)
    # Equal targets share what they have counted.
    target = HostReward(
        score_fn=vienna.score, alphabet="UCGA", workers=2, cache=False, cache_key="run"
    )
    experiment = discovery(target, "teacher-per", num_symbols=4, length=14, rounds=rounds)
    state = didact.init(experiment)
    began = time.perf_counter()
    state, _ = didact.train_chunk(experiment, state, experiment.steps, capacity=experiment.steps)
    seconds, counters = time.perf_counter() - began, target.counters
    target.close()
    asked = counters.evaluations + counters.cache_hits
    run = {
        "preset": "teacher-per",
        "rounds": rounds,
        "seconds": seconds,
        "evaluations": counters.evaluations,
        "cache_hits": counters.cache_hits,
        "hit_rate": counters.cache_hits / asked,
    }
    print(f"{rounds} rounds in {seconds:.0f} s: {run['hit_rate']:.1%} of {asked:,} strings known")
    out = RESULTS.parent / "host-rewards.json"
    out.write_text(json.dumps({"machine": machine(), "rows": rows, "run": run}, indent=2) + "\n")
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
    """Draw or time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["figure", "time", "host"])
    parser.add_argument("task", nargs="?", choices=list(DISCOVERY_TASKS))
    options = parser.parse_args()
    if options.action == "time":
        time_rounds([options.task] if options.task else ["tfbind8", "qm9", "l14-rna1", "seh"])
        return
    if options.action == "host":
        time_host_rewards()
        return
    if options.task is None:
        parser.error("name the task of the figure")
    print(figure(options.task).name)


if __name__ == "__main__":
    main()
