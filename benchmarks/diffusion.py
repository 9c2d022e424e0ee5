"""How near the kept diffusion samplers are to the best that their steps allow.

    python benchmarks/diffusion.py

The runs are those kept under benchmarks/results/diffusion. Beside each stands what the best sampler
with the same Gaussian steps would have (`didact.metrics.floor`).
"""

import functools
from pathlib import Path

import numpy as np

from didact._config import from_json
from didact.bench import Kept, read_all, train_words
from didact.environments import Diffusion, Process
from didact.metrics.floor import Floor, discretisation_floor
from didact.presets import DIFFUSION_TASKS

RESULTS = Path(__file__).parent / "results" / "diffusion"


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


def floor_of(kept: Kept) -> Floor | None:
    """The floor of a finished run."""
    environment = from_json(kept.experiment["environment"])
    assert isinstance(environment, Diffusion)
    times = environment.times or tuple(np.linspace(0, 1, environment.num_steps + 1).tolist())
    learned = environment.log_variance_range is not None
    return floor(train_words(kept.task)[0], environment.process, times, learned=learned)


def table() -> str:
    """A Markdown table: means over seeds, and the floor of each run."""
    rows = ["| task | preset | ELBO | its best | EUBO | its best |", "|---|---|---|---|---|---|"]
    for kept in read_all(RESULTS):
        log_z = DIFFUSION_TASKS[train_words(kept.task)[0]].target().log_z
        best = floor_of(kept)
        ends = ("–", "–")
        if best is not None and log_z is not None:
            ends = (f"{log_z + best.elbo:.6g}", f"{log_z + best.eubo:.6g}")
        means = [f"{np.mean(kept.verdict[name]):.6g}" for name in ("elbo", "eubo")]
        pairs = " | ".join(f"{mean} | {end}" for mean, end in zip(means, ends, strict=True))
        rows.append(f"| {kept.task} | {kept.method} | {pairs} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
