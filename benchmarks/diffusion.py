"""Diffusion samplers on the paper's tasks: runs the cells, collects, tabulates.

    python benchmarks/diffusion.py run --out runs/diffusion     # hours; finished cells are kept
    python benchmarks/diffusion.py table                        # from benchmarks/results/diffusion

A cell is one preset on one task at one size with all its seeds in one program. Beside each number
stands what the best sampler with the same Gaussian steps would have (`didact.metrics.floor`).
"""

import argparse
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from didact.environments import Diffusion, Process
from didact.metrics.floor import Floor, discretisation_floor
from didact.presets import DIFFUSION_TASKS
from grid import finished, keep, number, spread

RESULTS = Path(__file__).parent / "results" / "diffusion"
CELLS: list[tuple[str, str, tuple[str, ...]]] = [
    (task, preset, ("--seeds", "2", *(("--batch-size", "128") if preset == "didact" else ())))
    for task in ("25gmm", "manywell-32")
    for preset in ("didact", "teacher", "tb-per", "tb")
]
COLUMNS = {
    "elbo": "ELBO",
    "eubo": "EUBO",
    "log_z_estimate": "log Z, importance-sampled",
    "ess": "ESS",
    "k_hat": "k-hat",
    "w2": "W2",
    "modes_reached": "modes reached",
    "log_likelihood": "log-likelihood",
}


def run(out: Path) -> None:
    """Train every cell that has not finished yet, one after the other, and collect."""
    for task, preset, options in CELLS:
        folder = out / f"{task}-{preset}"
        command = [sys.executable, "-m", "didact.cli", "train", task, "--preset", preset, *options]
        subprocess.run([*command, "--out", str(folder)], check=True)
        collect(out)


def collect(out: Path) -> None:
    """Keep the verdicts of finished runs beside this file."""
    for folder, config, verdict in finished(out):
        summary = config["summary"]
        cell = {
            "command": config["command"],
            "task": summary["task"],
            "preset": summary["preset"],
            "environment": config["experiment"]["environment"],
            "steps": config["experiment"]["steps"],
            "batch_size": config["experiment"]["batch_size"],
            "created": config["created"],
            "verdict": verdict,
        }
        keep(RESULTS, folder.name, cell)


def mixture(x: np.ndarray) -> np.ndarray:
    """One coordinate of 25GMM, up to a constant."""
    return np.logaddexp.reduce([-((x - mean) ** 2) / 0.6 for mean in (-10, -5, 0, 5, 10)])


def well(x: np.ndarray) -> np.ndarray:
    """The first coordinate of a pair of Manywell, up to a constant."""
    return 0.5 * x + 6 * x**2 - x**4


def normal(x: np.ndarray) -> np.ndarray:
    """The second one."""
    return -0.5 * x**2


@functools.cache
def floor(task: str, process: Process, times: tuple[float, ...], *, learned: bool) -> Floor | None:
    """ELBO and EUBO, less log Z, of the best sampler with these steps; None if not known."""
    decay, variance = process.coefficients(np.asarray(times))

    def of(log_density, bound: float) -> Floor:
        bounds = (-bound, bound)
        return discretisation_floor(
            log_density, decay, variance, bounds=bounds, learned_variance=learned, points=1_600
        )

    if task == "25gmm":
        return 2 * of(mixture, 15.0)
    if task.startswith("manywell-"):
        return int(task.partition("-")[2]) // 2 * (of(well, 4.0) + of(normal, 8.0))
    return None


def floor_of(cell: dict[str, Any]) -> Floor | None:
    """The floor of a finished cell."""
    from didact._config import from_json

    environment = from_json(cell["environment"])
    assert isinstance(environment, Diffusion)
    times = environment.times or tuple(np.linspace(0, 1, environment.num_steps + 1).tolist())
    learned = environment.log_variance_range is not None
    return floor(cell["task"], environment.process, times, learned=learned)


def table() -> str:
    """Markdown tables, one a task: mean ± standard error over seeds, and the floor below."""
    cells = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    parts = []
    for task in dict.fromkeys(cell["task"] for cell in cells):
        target = DIFFUSION_TASKS[task].target()
        parts.append(f"**{task}**: log Z = {target.log_z:.4f}.\n")
        parts.append("| preset | batch × steps | n | " + " | ".join(COLUMNS.values()) + " |")
        parts.append("|---|---|---|" + "---|" * len(COLUMNS))
        for cell in cells:
            if cell["task"] != task:
                continue
            verdict = cell["verdict"]
            size = f"{cell['batch_size']} × {cell['steps']:,}"
            values = " | ".join(spread(verdict.get(name)) for name in COLUMNS)
            parts.append(f"| {cell['preset']} | {size} | {len(verdict['seeds'])} | {values} |")
            best = floor_of(cell)
            if best is not None and target.log_z is not None:
                ends = f"{number(target.log_z + best.elbo)} | {number(target.log_z + best.eubo)}"
                parts.append(f"| *its floor* | | | {ends} |" + " |" * (len(COLUMNS) - 2))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Run, collect or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "collect", "table"])
    parser.add_argument("--out", type=Path, default=Path("runs/diffusion"))
    options = parser.parse_args()
    if options.action == "run":
        run(options.out)
    elif options.action == "collect":
        collect(options.out)
    print(table())


if __name__ == "__main__":
    main()
