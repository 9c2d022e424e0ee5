"""Synthetic run folders of samplers of strings, learned by formula, with exact numbers."""

import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .conftest import write_json

Floats = NDArray[np.float64]
STEPS, EVERY, CALLS_PER_STEP, LENGTH, BETA, NUM_MODES = 400, 40, 16, 3, 4.0, 4
LETTERS = "ACGT"
BLOCKS = ("C", "O", "c1ccccc1", "C#N")
WORDS = ["".join(word) for word in itertools.product(LETTERS, repeat=LENGTH)]
VALUES = np.array([0.1 + 0.3 * word.count("A") + 0.05 * word.count("C") for word in WORDS])
VALUES[WORDS.index("GTG")] = 1.1
LOG_REWARD = BETA * np.log(VALUES)
LOG_Z = float(np.logaddexp.reduce(LOG_REWARD))
TARGET = np.exp(LOG_REWARD - LOG_Z)
MODES = np.argsort(-VALUES, kind="stable")[:NUM_MODES]


def student(progress: float) -> Floats:
    """Between the uniform law and the target."""
    law = np.exp(progress * LOG_REWARD)
    return law / law.sum()


def profile(law: Floats) -> NDArray[np.float32]:
    """Probability of each letter in each place."""
    where = np.array(
        [[word[place] == a for a in LETTERS] for place in range(LENGTH) for word in WORDS]
    ).reshape(LENGTH, len(WORDS), len(LETTERS))
    return np.einsum("pwa,w->ap", where, law).astype(np.float32)


def smiles(word: str) -> str:
    """Of the molecule whose blocks the letters are."""
    return {"G": "c1ccccc1"}.get(word[0], "C") + {"A": "C", "C": "O"}.get(word[1], "N")


def write_strings_run(
    path: Path,
    *,
    exact: bool = True,
    seeds: int = 1,
    quality: float = 1.0,
    with_teacher: bool = True,
    molecules: bool = False,
    own_reward: bool = False,
) -> Path:
    """Write a run folder; `exact`: whether the law is known, `molecules`: whether the letters are
    blocks, `own_reward`: whether a function of the user's scores the strings.
    """
    (path / "snapshots").mkdir(parents=True)
    modes = None if own_reward else NUM_MODES
    summary = {
        "task": "sequence" if own_reward else "words",
        "preset": "teacher-per",
        "title": "words, teacher-per",
        "method": "A Student trained by TB.",
        "environment": "PrependAppend",
        "target": "Words",
        "space": "strings",
        "alphabet": LETTERS,
        "length": LENGTH,
        "blocks": list(BLOCKS) if molecules else None,
        "grows_in_front": True,
        "num_terminal_states": len(WORDS) if exact else 34_012_224,
        "num_modes": modes,
        "log_z": None if own_reward else LOG_Z,
        "steps": STEPS,
        "batch_size": 16,
    }
    kind = "targets.HostReward" if own_reward else "targets.TFBind8"
    config = {
        "format_version": 1,
        "didact_version": "0.1.0",
        "created": "2026-03-01T12:00:00+00:00",
        "command": "didact train words",
        "seeds": list(range(seeds)),
        "summary": summary,
        "experiment": {"target": {"type": kind, "beta": BETA}},
    }
    write_json(path / "config.json", config)
    lines: list[dict[str, object]] = [{"kind": "header", "format_version": 1}]
    for step in range(0, STEPS + 1, EVERY):
        progress = quality * step / STEPS
        if step:
            lines.append(_train_row(step, progress, seeds, modes, with_teacher=with_teacher))
        if step % 200 == 0:
            row = {"kind": "evaluation", "step": step, "reward_calls": step * CALLS_PER_STEP}
            lines.append(row | _judge(progress, seeds, exact=exact, own_reward=own_reward))
            laws = {"student": profile(student(progress))}
            if with_teacher:
                laws["teacher"] = profile(student(1 - progress))
            where = path / "snapshots" / f"{step:09d}.npz"
            np.savez_compressed(where, step=np.asarray(step), **laws)
    text = "\n".join(map(json.dumps, lines)) + "\n"
    _ = (path / "metrics.jsonl").write_text(text, "utf-8")
    if exact:
        np.savez_compressed(path / "snapshots" / "target.npz", target=profile(TARGET))
    final = {
        "format_version": 1,
        "reason": None if exact else "exact evaluation would need 36,012,943 states.",
        "seeds": list(range(seeds)),
        "step": STEPS,
        "finished": True,
        "num_modes": modes,
        "num_draws": 10_000,
        "num_scored": 10_000,
        "modes_found": [modes] * seeds,
        "modes_found_student": [modes] * seeds,
        "distinct": [60] * seeds,
        "reward_calls": [STEPS * CALLS_PER_STEP] * seeds,
        "training_seconds": 20.0,
    }
    judged = _judge(quality, seeds, exact=exact, own_reward=own_reward)
    write_json(path / "evaluation.json", final | judged)
    write_json(path / "found.json", _found(quality, molecules=molecules, own_reward=own_reward))
    return path


def _train_row(
    step: int, progress: float, seeds: int, modes: int | None, *, with_teacher: bool
) -> dict[str, object]:
    found = None if modes is None else min(modes, step // 50)
    return {
        "kind": "train",
        "step": step,
        "reward_calls": step * CALLS_PER_STEP,
        "loss": [3 * (1 - progress) + 0.1] * seeds,
        "teacher_loss": [1.0] * seeds if with_teacher else None,
        "log_z": [LOG_Z * progress] * seeds,
        "modes_found": [found] * seeds,
        "modes_found_student": [found] * seeds,
        "distinct": [min(64, step // 4)] * seeds,
        "time": {"seconds": 1.0, "steps_per_second": 20.0},
    }


def _judge(progress: float, seeds: int, *, exact: bool, own_reward: bool) -> dict[str, object]:
    law = student(progress)
    elbo = LOG_Z - float(law @ np.log(law / TARGET))
    one: dict[str, object] = {
        "log_z": LOG_Z * progress,
        "elbo": elbo,
        "elbo_low": elbo - 0.001,
        "elbo_high": elbo + 0.001,
        "elbo_standard_error": 0.0 if exact else 0.0006,
        "log_z_estimate": LOG_Z,
        "ess": 0.8,
        "k_hat": 0.2,
        "modes_reached": None if own_reward else NUM_MODES,
        "mode_mass": None if own_reward else float(law[MODES].sum()),
    }
    shared: dict[str, object] = {"exact": exact, "log_z_true": None if own_reward else LOG_Z}
    if not own_reward:
        one |= {"mean_value": float(law @ VALUES), "top_value": 0.9, "top_distance": 2.5}
        one |= {"expected_value": float(TARGET @ VALUES), "log_z_error": LOG_Z * (progress - 1)}
    if exact:
        held = law[MODES] >= 0.5 * TARGET[MODES]
        one |= {
            "tv": 0.5 * float(np.abs(law - TARGET).sum()),
            "kl": float(TARGET @ np.log(TARGET / law)),
            "missed_mass": float(TARGET[law < 0.5 * TARGET].sum()),
            "spearman": 0.9,
            "eubo": LOG_Z + float(TARGET @ np.log(TARGET / law)),
            "modes_held": int(held.sum()),
            "mode_mass_recall": 1.0,
        }
        shared["mode_mass_target"] = float(TARGET[MODES].sum())
    else:
        one |= dict.fromkeys(("tv", "kl", "jsd", "spearman", "modes_held", "mode_mass_recall"))
    return shared | {key: [value] * seeds for key, value in one.items()}


def _found(quality: float, *, molecules: bool, own_reward: bool) -> dict[str, object]:
    log_prob = np.log(student(quality))
    best = []
    for i in np.argsort(-LOG_REWARD, kind="stable")[:20].tolist():
        row = {
            "string": WORDS[i],
            "smiles": smiles(WORDS[i]),
            "value": float(VALUES[i]),
            "log_prob": float(log_prob[i]),
            "log_reward": float(LOG_REWARD[i]),
            "mode": bool(i in MODES),
        }
        without = ["value", "mode"] if own_reward else []
        without += [] if molecules else ["smiles"]
        best.append({key: value for key, value in row.items() if key not in without})
    return {
        "format_version": 1,
        "seed": 0,
        "num_draws": 10_000,
        "best": best,
        "diverse": [0, 3, 9, 15],
        "distance": "Tanimoto distance" if molecules else "edit distance",
        "mean_distance": 0.7 if molecules else 2.1,
        "step": STEPS,
    }
