"""Synthetic run folders of diffusion samplers: mixtures of Gaussians, learned by formula."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .conftest import write_json

Floats = NDArray[np.float64]
STEPS, EVERY, CALLS_PER_STEP, CELLS, REACH = 400, 20, 32, 64, 8.0


def draws(rng: np.random.Generator, n: int, dim: int, quality: float) -> Floats:
    """Of a Student that has half of the mixture's modes for `quality` 0, and all for 1."""
    centres = rng.choice([-4.0, 4.0], (n, dim))
    missed = rng.random((n, dim)) > quality
    return np.where(missed, -4.0, centres) + rng.normal(0, 0.6, (n, dim))


def pictures(x: Floats, pairs: list[tuple[int, int]]) -> NDArray[np.float32]:
    """Histograms of draws, as snapshots hold them."""
    bins = np.linspace(-REACH, REACH, CELLS + 1)
    if x.shape[1] == 1:
        return (np.histogram(x[:, 0], bins)[0] / len(x)).astype(np.float32)
    panels = [np.histogram2d(x[:, i], x[:, j], bins)[0] / len(x) for i, j in pairs]
    return np.stack(panels).astype(np.float32) if x.shape[1] > 2 else panels[0].astype(np.float32)


def write_vectors_run(
    path: Path,
    *,
    dim: int = 2,
    seeds: int = 1,
    quality: float = 1.0,
    with_teacher: bool = True,
    sampled: bool = True,
) -> Path:
    """Write a run folder; `sampled`: whether the target can be sampled exactly."""
    rng = np.random.default_rng(dim + seeds)
    (path / "snapshots").mkdir(parents=True)
    modes = 2**dim if sampled else None
    summary = {
        "task": "hills",
        "preset": "teacher" if with_teacher else "tb",
        "title": "hills, teacher",
        "method": "A Student trained by TB.",
        "environment": f"Diffusion dim={dim}",
        "target": "Hills",
        "space": "vectors",
        "dim": dim,
        "num_steps": 100,
        "sigma": 2.0,
        "num_modes": modes,
        "log_z": 0.0 if sampled else None,
        "steps": STEPS,
        "batch_size": 32,
    }
    config = {
        "format_version": 1,
        "didact_version": "0.1.0",
        "created": "2026-03-01T12:00:00+00:00",
        "command": "didact train hills",
        "seeds": list(range(seeds)),
        "summary": summary,
        "experiment": {"objective": {"type": "objectives.TB"}},
    }
    write_json(path / "config.json", config)
    lines: list[dict[str, object]] = [{"kind": "header", "format_version": 1}]
    pairs = [(0, 1)] if dim == 2 else [(0, 2), (1, 3), (4, 5)][: max(0, dim // 2)]
    facts = {
        "format_version": np.asarray(1),
        "pairs": np.asarray(pairs, np.int32).reshape(-1, 2)[: 0 if dim == 1 else None],
        "extent": np.tile([-REACH, REACH], (max(len(pairs), 1), 1 if dim == 1 else 2)),
    }
    for step in range(0, STEPS + 1, EVERY):
        progress = quality * step / STEPS
        each = [1.0 - progress + 0.1 * i for i in range(seeds)]
        if step:
            lines.append(
                {
                    "kind": "train",
                    "step": step,
                    "reward_calls": step * CALLS_PER_STEP,
                    "loss": [30 * e + 0.1 for e in each],
                    "teacher_loss": each if with_teacher else None,
                    "log_z": [-e for e in each],
                    "modes_found": [modes] * seeds if modes else None,
                    "modes_found_student": [modes] * seeds if modes else None,
                    "time": {"seconds": 1.0, "steps_per_second": 20.0},
                }
            )
        if step % 100 == 0:
            judged = _judge(progress, seeds, modes, n=2048, sampled=sampled)
            row = {"kind": "evaluation", "step": step, "reward_calls": step * CALLS_PER_STEP}
            teacher_mass = [0.5] * seeds if with_teacher else None
            lines.append(row | {"exact": False, "teacher_mode_mass": teacher_mass} | judged)
            laws = {"student": pictures(draws(rng, 4096, dim, progress), pairs)}
            if with_teacher:
                laws["teacher"] = pictures(draws(rng, 4096, dim, 1 - progress), pairs)
            where = path / "snapshots" / f"{step:09d}.npz"
            np.savez_compressed(where, step=np.asarray(step), **laws, **facts)
    import json

    text = "\n".join(map(json.dumps, lines)) + "\n"
    _ = (path / "metrics.jsonl").write_text(text, "utf-8")
    target = pictures(draws(rng, 40_000, dim, 1.0), pairs)
    source = "density" if dim == 2 else "samples" if sampled else "weighted draws"
    extra = {"density": np.kron(target, np.ones((3, 3)) / 9)} if dim == 2 else {}
    np.savez_compressed(
        path / "snapshots" / "target.npz",
        target=target,
        source=np.asarray(source),
        **extra,
        **facts,
    )
    final = {
        "format_version": 1,
        "reason": None,
        "seeds": list(range(seeds)),
        "step": STEPS,
        "finished": True,
        "num_modes": modes,
        "log_z_true": summary["log_z"],
        "modes_reached_perfect": modes,
        "mode_mass_target": 1.0 if sampled else None,
        "modes_found": [modes] * seeds,
        "modes_found_student": [modes] * seeds,
        "reward_calls": [STEPS * CALLS_PER_STEP] * seeds,
        "training_seconds": 20.0,
    }
    judged = _judge(quality, seeds, modes, n=10_000, sampled=sampled)
    write_json(path / "evaluation.json", final | {"exact": False} | judged)
    _diagnostics(path, rng, dim, quality, sampled=sampled)
    return path


def _judge(
    progress: float, seeds: int, modes: int | None, *, n: int, sampled: bool
) -> dict[str, object]:
    below, above = 0.2 + 3 * (1 - progress), 0.3 + 9 * (1 - progress)
    one: dict[str, object] = {
        "tv": None,
        "elbo": -below,
        "elbo_low": -below - 0.1,
        "elbo_high": -below + 0.1,
        "log_z_estimate": -0.1,
        "log_z_low": -0.2,
        "log_z_high": 0.1,
        "log_z": -0.05,
        "ess": 0.01 + 0.6 * progress,
        "k_hat": 1 - 0.5 * progress,
        "modes_reached": None if modes is None else max(1, round(modes * progress)),
        "mode_mass": None if modes is None else 0.9,
    }
    if sampled:
        one |= {
            "log_z_error": -0.05,
            "eubo": above,
            "eubo_low": above - 0.1,
            "eubo_high": above + 0.1,
            "w2": 0.5 + 3 * (1 - progress),
            "w2_floor": 0.45,
            "w2_draws": 2500,
            "sliced_w2": 0.1,
            "mmd_squared": -1e-4,
            "log_likelihood": -5.0,
            "entropic_mode_coverage": progress,
        }
    result: dict[str, object] = {key: [value] * seeds for key, value in one.items()}
    return result | {"num_draws": n, "num_scored": n}


def _diagnostics(
    path: Path, rng: np.random.Generator, dim: int, quality: float, *, sampled: bool
) -> None:
    exact = {
        "target_x": draws(rng, 500, dim, 1.0).astype(np.float32),
        "backward_log_weight": rng.normal(0.3, 0.8, 1000).astype(np.float32),
    }
    np.savez_compressed(
        path / "diagnostics.npz",
        format_version=np.asarray(1),
        step=np.asarray(STEPS),
        seed=np.asarray(0),
        coordinates=np.arange(dim, dtype=np.int32),
        x=draws(rng, 500, dim, quality).astype(np.float32),
        log_weight=rng.normal(-0.2, 0.8, 1000).astype(np.float32),
        **(exact if sampled else {}),
    )
