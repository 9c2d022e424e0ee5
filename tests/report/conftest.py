"""Synthetic run folders: a small deceptive grid and samplers that learn it by formula.

Every number in them is computed from the distributions, so that a page made from such a folder
reads like one of a real run.
"""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from didact.report import _figures, write

Floats = NDArray[np.float64]
MakeRun = Callable[..., Path]

STEPS, EVERY, CALLS_PER_STEP = 12_000, 200, 8
NUM_DRAWS = 100_000


@dataclass(frozen=True)
class Grid:
    """The deceptive grid, all states listed."""

    dim: int
    side: int

    @property
    def reward(self) -> Floats:
        """Rewards [side] * dim, 0 where no path can stop."""
        axis = np.abs(2 * np.arange(self.side) / (self.side - 1) - 1)
        u = np.stack(np.meshgrid(*[axis] * self.dim, indexing="ij"))
        outer, ring = (u > 0.2).all(0), ((u > 0.6) & (u < 0.8)).all(0)
        at_border = (np.indices(u.shape[1:]) == self.side - 1).sum(0)
        return np.where(at_border <= 1, 0.1 + 1e-5 - 0.1 * outer + 2.0 * ring, 0.0)

    @property
    def modes(self) -> NDArray[np.bool_]:
        """Cells of the highest reward."""
        return self.reward > 1


def student(grid: Grid, progress: float, strength: Floats) -> Floats:
    """A sampler that has learned a share `progress`; `strength` says how soon each mode comes."""
    reward = grid.reward
    reached = np.clip(3.0 * progress - 2.0 * strength, 0.0, 1.0)
    learned = np.where(grid.modes, reward * reached, reward)
    distance = np.indices(reward.shape).sum(0) / grid.side
    naive = np.where(reward > 0, np.exp(-1.5 * distance), 0.0)
    leak = 0.6 * (1 - progress) ** 2 + 0.02
    return (1 - leak) * learned / learned.sum() + leak * naive / naive.sum()


def teacher(grid: Grid, probability: Floats) -> Floats:
    """A Teacher that goes where the Student has too little."""
    target = grid.reward / grid.reward.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(target > 0, np.log(target) - np.log(probability), 0.0)
    wanted = np.log(1.001 + np.where(error > 0, 20.0, 1.0) * error**2) * (target > 0)
    return wanted / wanted.sum()


def judge(grid: Grid, probability: Floats) -> dict[str, float]:
    """Exact metrics of one Student."""
    target, modes = grid.reward / grid.reward.sum(), grid.modes
    p, q = target[target > 0], probability[target > 0]
    middle = (p + q) / 2
    entropy = (q * np.log(q / middle)).sum() + (p * np.log(p / middle)).sum()
    return {
        "tv": 0.5 * float(np.abs(p - q).sum()),
        "kl": float((p * np.log(p / q)).sum()),
        "jsd": 0.5 * float(entropy),
        "mode_mass_recall": float(np.minimum(probability, target)[modes].sum())
        / max(float(target[modes].sum()), 1e-300),
        "modes_held": int((probability[modes] >= 0.5 * target[modes]).sum()),
        "mode_mass": float(probability[modes].sum()),
        "elbo": float(np.log(grid.reward.sum()) - (q * np.log(q / p)).sum()),
    }


def panels(grid: Grid, probability: Floats) -> NDArray[np.float32]:
    """What a snapshot holds: the cells themselves, or pairwise marginals."""
    if grid.dim <= 2:
        return probability.astype(np.float32)
    pairs = itertools.combinations(range(grid.dim), 2)
    axes = set(range(grid.dim))
    return np.stack([probability.sum(tuple(axes - set(p))) for p in pairs]).astype(np.float32)


def write_json(path: Path, content: object) -> None:
    """Write one JSON file."""
    _ = path.write_text(json.dumps(content, indent=1), "utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Set entries of one JSON file."""
    write_json(path, json.loads(path.read_text("utf-8")) | changes)


def write_run(
    path: Path,
    *,
    dim: int = 2,
    side: int = 64,
    seeds: int = 3,
    with_teacher: bool = True,
    quality: float = 1.0,
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Write a run folder; `quality` is the share of the learning that is reached at the end."""
    grid = Grid(dim, side)
    rng = np.random.default_rng(dim * side + seeds)
    strengths = [_strength(grid, rng) for _ in range(seeds)]
    preset = "teacher-per" if with_teacher else "tb"
    (path / "snapshots").mkdir(parents=True)
    write_json(path / "config.json", _config(grid, seeds, preset, title, command))
    log_z = float(np.log(grid.reward.sum()))
    lines: list[object] = [{"kind": "header", "format_version": 1}]
    for step in range(EVERY, STEPS + 1, EVERY):
        progress = quality * (1 - (1 - step / STEPS) ** 1.6)
        lines.append(_train_line(grid, step, progress, seeds, with_teacher, log_z, rng))
        if step % 1000 == 0:
            students = [
                student(grid, progress * (1 - 0.02 * i), s) for i, s in enumerate(strengths)
            ]
            lines.append(_evaluation_line(grid, step, students, with_teacher, log_z, lines[-1]))
            _snapshot(path, grid, step, students[0], with_teacher)
    text = "\n".join(json.dumps(line) for line in lines)
    _ = (path / "metrics.jsonl").write_text(text + "\n", "utf-8")
    students = [student(grid, quality * (1 - 0.02 * i), s) for i, s in enumerate(strengths)]
    write_json(path / "evaluation.json", _final(grid, students, lines[-2], lines[-1], log_z))
    _target(path, grid)
    (path / "checkpoints").mkdir()
    _ = (path / "checkpoints" / "000012000.npz").write_bytes(bytes(200_000))
    return path


def _strength(grid: Grid, rng: np.random.Generator) -> Floats:
    """When each mode is learned: groups far from the start late, with some chance."""
    corner = (np.indices(grid.reward.shape) > grid.side / 2).mean(0)
    noise = rng.normal(0, 0.05, (2,) * grid.dim)
    halves = np.ix_(*[(np.arange(grid.side) > grid.side / 2).astype(int)] * grid.dim)
    return np.clip(0.55 * corner + noise[halves] + rng.normal(0, 0.06, corner.shape), 0, 0.99)


def _config(
    grid: Grid, seeds: int, preset: str, title: str | None, command: str | None
) -> dict[str, object]:
    mass = float(grid.reward[grid.modes].sum() / grid.reward.sum())
    method = (
        "Trajectory balance, with a Teacher that proposes paths on which the Student is wrong "
        "and a replay buffer prioritised by the Teacher’s reward."
        if preset != "tb"
        else "Trajectory balance on the Student’s own paths."
    )
    run = f"didact train grid --preset {preset} --dim {grid.dim} --side {grid.side}"
    return {
        "format_version": 1,
        "didact_version": "0.1.0",
        "created": "2026-03-01T12:00:00+00:00",
        "command": command or f"{run} --seeds {seeds} --out runs/example",
        "seeds": list(range(seeds)),
        "summary": {
            "task": "grid",
            "preset": preset,
            "dim": grid.dim,
            "side": grid.side,
            "convention": "paper",
            "title": title or f"Deceptive grid, d = {grid.dim}, H = {grid.side}, {preset}",
            "method": method,
            "environment": f"Hypergrid(dim={grid.dim}, side={grid.side})",
            "target": f"DeceptiveGrid(dim={grid.dim}, side={grid.side}, convention='paper')",
            "num_modes": int(grid.modes.sum()),
            "num_terminal_states": int((grid.reward > 0).sum()),
            "log_z": float(np.log(grid.reward.sum())),
            "mode_mass": mass,
            "steps": STEPS,
            "batch_size": 16,
        },
        "experiment": {
            "steps": STEPS,
            "batch_size": 16,
            "target": {"type": "targets.DeceptiveGrid", "dim": grid.dim, "side": grid.side},
            "objective": {"type": "objectives.TB", "regression": {"type": "objectives.Squared"}},
            "network": {"type": "networks.MLPConfig", "width": 256, "depth": 2},
            "teacher": None if preset == "tb" else {"reward": "log-log", "C": 19.0, "eta": 1e-3},
            "replay": {"capacity": 412, "priority": "teacher", "alpha": 0.01, "refresh": False},
        },
    }


def _found(grid: Grid, progress: float, seed: int) -> int:
    share = min(1.0, 2.2 * progress * (1 - 0.01 * seed))
    return int(grid.modes.sum() * share**1.2)


def _train_line(
    grid: Grid,
    step: int,
    progress: float,
    seeds: int,
    with_teacher: bool,
    log_z: float,
    rng: np.random.Generator,
) -> dict[str, object]:
    found = [_found(grid, progress, seed) for seed in range(seeds)]

    def noisy(level: float) -> list[float]:
        return (level * rng.lognormal(0, 0.5, seeds)).tolist()

    return {
        "kind": "train",
        "step": step,
        "reward_calls": step * CALLS_PER_STEP,
        "student_batches": step // 4,
        "loss": noisy(30 * float(np.exp(-5 * progress)) + 0.05),
        "teacher_loss": noisy(8 * float(np.exp(-2 * progress)) + 0.4) if with_teacher else None,
        "log_z": (log_z * (1 - np.exp(-5 * progress * rng.uniform(0.9, 1, seeds)))).tolist(),
        "teacher_log_z": noisy(4.0) if with_teacher else None,
        "modes_found": found,
        "modes_found_student": [int(0.8 * f) for f in found],
        "mean_length": noisy(grid.side),
        "grad_norm": noisy(0.5),
        "time": {"seconds": EVERY / 60, "steps_per_second": 60.0},
    }


def _evaluation_line(
    grid: Grid,
    step: int,
    students: list[Floats],
    with_teacher: bool,
    log_z: float,
    train: object,
) -> dict[str, object]:
    assert isinstance(train, dict)
    judged = [judge(grid, s) for s in students]
    line = {key: [j[key] for j in judged] for key in judged[0]}
    return {
        "kind": "evaluation",
        "step": step,
        "reward_calls": step * CALLS_PER_STEP,
        "exact": True,
        "log_z_error": [z - log_z for z in train["log_z"]],
        "teacher_mode_mass": [0.1] * len(students) if with_teacher else None,
        **line,
    }


def _final(
    grid: Grid, students: list[Floats], train: object, evaluation: object, log_z: float
) -> dict[str, object]:
    assert isinstance(train, dict)
    assert isinstance(evaluation, dict)
    count = len(students)
    judged = [judge(grid, s) for s in students]
    floor = float(np.sqrt(2 / (np.pi * NUM_DRAWS * (grid.reward > 0).sum())) / grid.side)
    return {
        "format_version": 1,
        "exact": True,
        "step": STEPS,
        "num_modes": int(grid.modes.sum()),
        **{key: [j[key] for j in judged] for key in judged[0]},
        "log_z": train["log_z"],
        "log_z_true": log_z,
        "log_z_error": evaluation["log_z_error"],
        "mode_mass_target": float(grid.reward[grid.modes].sum() / grid.reward.sum()),
        "modes_found": train["modes_found"],
        "modes_found_student": train["modes_found_student"],
        "modes_reached": [j["modes_held"] for j in judged],
        "empirical_l1": [floor * (1.2 + 0.02 * i) for i in range(count)],
        "empirical_l1_floor": floor,
        "num_draws": NUM_DRAWS,
        "elbo_standard_error": [0.0] * count,
        "log_z_estimate": [log_z] * count,
        "ess": [0.9] * count,
        "reward_calls": [STEPS * CALLS_PER_STEP] * count,
        "gradient_steps": [STEPS] * count,
        "training_seconds": 214.0,
        "versions": {"python": "3.11.9", "jax": "0.7.0", "numpy": "2.3.0"},
        "reason": None,
    }


def _pairs(grid: Grid) -> dict[str, NDArray[np.int64]]:
    if grid.dim <= 2:
        return {}
    return {"pairs": np.array(list(itertools.combinations(range(grid.dim), 2)))}


def _snapshot(path: Path, grid: Grid, step: int, probability: Floats, with_teacher: bool) -> None:
    arrays: dict[str, NDArray[np.float32]] = {"student": panels(grid, probability)}
    if with_teacher:
        arrays["teacher"] = panels(grid, teacher(grid, probability))
    np.savez_compressed(
        path / "snapshots" / f"{step:09d}.npz",
        allow_pickle=False,
        format_version=np.array(1),
        step=np.array(step),
        **arrays,
        **_pairs(grid),
    )


def _target(path: Path, grid: Grid) -> None:
    extra = {"modes": grid.modes} if grid.dim == 2 else {}
    np.savez_compressed(
        path / "snapshots" / "target.npz",
        allow_pickle=False,
        format_version=np.array(1),
        target=panels(grid, grid.reward / grid.reward.sum()),
        **extra,
        **_pairs(grid),
    )


@pytest.fixture(scope="session")
def grid_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run in two dimensions with a Teacher; tests copy it before they change it."""
    return write_run(tmp_path_factory.mktemp("runs") / "grid", side=16)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of few pixels, for tests to which it matters that they can be drawn."""
    monkeypatch.setattr(_figures, "DPI", 40)


@pytest.fixture
def run_copy(grid_run: Path, tmp_path: Path) -> Path:
    """A copy of `grid_run` to break."""
    return Path(shutil.copytree(grid_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """`write_run`, for tests that want other runs."""
    return write_run


@pytest.fixture(scope="session")
def grid_page(grid_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of `grid_run`."""
    copy = shutil.copytree(grid_run, tmp_path_factory.mktemp("copy") / "run")
    return write(Path(copy)).read_text("utf-8")
