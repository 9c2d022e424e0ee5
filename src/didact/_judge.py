"""The verdict on a run: on the way, at its end, and what is kept of it in the folder."""

import contextlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float64

from . import _train
from ._diagnostics import diagnose
from ._experiment import Experiment
from ._files import in_short, read_object, write_whole
from ._folder import FORMAT_VERSION, RunError, run_errors, write_json
from ._found import as_csv, find
from ._sampler import Sampler
from ._snapshots import (
    DrawnProfiles,
    DrawnSnapshots,
    ExactSnapshots,
    exact_samples,
    is_vector,
    save_npz,
)
from ._train import TrainState
from ._types import EnumerableEnvironment, SamplableTarget, Target
from ._version import __version__
from .environments import Strings
from .logging import read_metrics, reward_calls
from .metrics import (
    draw_statistics,
    empirical,
    evaluate_by_samples,
    evaluate_exactly,
    exact,
    finite_or_none,
    mode_probabilities,
)
from .targets import HostReward, StringTarget

_FEW_DRAWS, _FEW_HOST_DRAWS = 2048, 256
_MAX_NUMBER = 1e300
Pictures = ExactSnapshots | DrawnSnapshots | DrawnProfiles


def read_record(path: Path) -> list[dict[str, Any]]:
    """The rows of a run, header included."""
    with run_errors():
        return list(read_metrics(path / "metrics.jsonl"))


def read_verdict(path: Path) -> dict[str, Any]:
    """The verdict that the last evaluation of a run wrote.

    **Errors:** `RunError` if there is none that can be read.
    """
    file = path / "evaluation.json"
    if not file.is_file():
        raise RunError(f"{path} has not been evaluated yet: run.evaluate() does it.")
    try:
        verdict = read_object(file)
        _check(verdict)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{file} is damaged ({in_short(error)}): run.evaluate() writes it anew."
        ) from error
    return verdict


def _check(verdict: Mapping[str, Any]) -> None:
    """`ValueError` unless an object is a verdict that can be shown: what is said of a seed is one
    number, or null.
    """
    if verdict.get("format_version") != FORMAT_VERSION:
        raise ValueError("it is of another format")
    seeds, reason = verdict.get("seeds"), verdict.get("reason", 0)
    if not (isinstance(seeds, list) and isinstance(verdict.get("exact"), bool)):
        raise ValueError("it is no verdict")
    if reason is not None and not (isinstance(reason, str) and reason.isprintable()):
        raise ValueError("its reason is no text")
    for name, value in verdict.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) and len(value) != len(seeds):
            raise ValueError(f"it does not say {name} of each seed")
        if name not in ("reason", "versions") and not all(map(_is_known, values)):
            raise ValueError(f"its {name} is no number")
    if not seeds or not {"step", "num_modes"} <= set(verdict) or verdict["step"] is None:
        raise ValueError("it lacks what a verdict says")


def _is_known(value: Any) -> bool:
    """Whether a value is a number that can be computed with, or null."""
    return value is None or (isinstance(value, int | float) and abs(value) < _MAX_NUMBER)


def pictures_of(path: Path, experiment: Experiment, seeds: Sequence[int]) -> Pictures | None:
    """What keeps pictures of the laws of a run; None where there is nothing to draw, or where that
    would ask for many rewards that are computed outside JAX.
    """
    env, target = experiment.environment, experiment.target
    folder = path / "snapshots"
    if isinstance(env, Strings) and exact.refusal(env, target) is not None:
        return DrawnProfiles(folder, env, seeds[0])
    if isinstance(target, HostReward):
        return None
    if isinstance(env, EnumerableEnvironment) and exact.refusal(env) is None:
        return ExactSnapshots(folder, env, target)
    if is_vector(env):
        untrained = _train.init(experiment, seeds[:1]).student()
        return DrawnSnapshots(folder, target, untrained, seeds[0])
    return None


def judge_on_the_way(
    experiment: Experiment, state: TrainState, pictures: Pictures | None
) -> dict[str, Any]:
    """The verdict on a state in the midst of training, as lists over seeds; of the first seed a
    picture is kept.
    """
    target = experiment.target
    exactly = exact.refusal(experiment.environment, target) is None
    few = _FEW_HOST_DRAWS if isinstance(target, HostReward) else _FEW_DRAWS
    verdicts, laws = [], {}
    for i in range(state.num_seeds):
        student, teacher = state.student(i), state.teacher(i)
        if not exactly:
            verdict = evaluate_by_samples(
                student, target, experiment.objective, n=few, distances=False, modes=False
            )
            if teacher is not None:
                verdict["teacher_mode_mass"] = _mode_mass(teacher, target)
        else:
            verdict, law = _judge_exactly(student, experiment)
            if i == 0:
                laws["student"] = law
            if teacher is not None:
                about, law = evaluate_exactly(teacher, target, experiment.objective)
                verdict["teacher_mode_mass"] = about["mode_mass"]
                if i == 0:
                    laws["teacher"] = law
        verdicts.append(verdict)
    if isinstance(pictures, ExactSnapshots):
        pictures.save(int(state.step), laws)
    elif pictures is not None:
        pictures.save(int(state.step), state.student(), state.teacher())
    return {"exact": exactly, **_over_seeds(verdicts)}


def judge(
    path: Path,
    experiment: Experiment,
    seeds: Sequence[int],
    state: TrainState,
    num_draws: int | None,
) -> dict[str, Any]:
    """The verdict on a state of a run, as lists over seeds: exact where the states can be
    enumerated, else by samples.

    **Arguments:** `num_draws` as in `didact.train`.
    """
    num_draws = _default_draws(experiment) if num_draws is None else num_draws
    step = int(state.step)
    rows = [row for row in read_record(path) if row["kind"] == "train"]
    seconds = sum(row["time"]["seconds"] for row in rows)
    reason = exact.refusal(experiment.environment, experiment.target)
    verdicts = []
    target, objective = experiment.target, experiment.objective
    for i, seed in enumerate(seeds):
        student = state.student(i)
        if reason is None:
            verdict, law = _judge_exactly(student, experiment)
            drawn = draw_statistics(student, target, seed=seed, n=num_draws, law=law)
            # Where both say something, what is exact counts, and has no error.
            verdict = drawn | verdict | {"elbo_standard_error": 0.0}
        else:
            verdict = evaluate_by_samples(student, target, objective, seed=seed, n=num_draws)
            verdict["missed_mass"] = None
        verdicts.append(verdict)
    shared = {
        "format_version": FORMAT_VERSION,
        "exact": reason is None,
        # Where states cannot be numbered at all, there is nothing to explain.
        "reason": reason if isinstance(experiment.environment, EnumerableEnvironment) else None,
        "seeds": list(seeds),
        "step": step,
        "steps": experiment.steps,
        "finished": step >= experiment.steps,
        "num_modes": target.num_modes,
        "mode_mass_target": getattr(target, "mode_mass", None),
        "num_draws": num_draws,
    }
    per_seed = _over_seeds(verdicts)
    for name in ("num_draws", "num_scored", "empirical_l1_floor", "log_z_true"):
        shared[name] = per_seed.pop(name, [None])[0]
    result = shared | _perfect_modes(experiment, num_draws) | per_seed
    result |= {
        "modes_found": _counts(state.seeds.modes_found, len(seeds)),
        "modes_found_student": _counts(state.seeds.modes_found_student, len(seeds)),
        "distinct": _distinct(state, len(seeds)),
        "reward_calls": _asked(path, experiment, seeds, step),
        "failures": next((row.get("failures") for row in rows[::-1] if row["step"] <= step), None),
        "skipped": None if state.seeds.skipped is None else state.seeds.skipped.tolist(),
        "gradient_steps": [step] * len(seeds),
        "training_seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            "didact": __version__,
            "jax": jax.__version__,
            "equinox": eqx.__version__,
            "numpy": np.__version__,
            "device": jax.devices()[0].device_kind,
        },
    }
    return finite_or_none(result)


def keep_verdict(
    path: Path,
    experiment: Experiment,
    seeds: Sequence[int],
    state: TrainState,
    verdict: Mapping[str, Any],
) -> None:
    """Write `evaluation.json`; for draws that are real vectors `diagnostics.npz`, for strings
    `found.json` and `best.csv`; unless training has gone on and written later ones.
    """
    target, n = experiment.target, verdict["num_draws"]
    with contextlib.suppress(RunError, TypeError):
        if read_verdict(path).get("step", 0) > verdict["step"]:
            return
    pictures = pictures_of(path, experiment, seeds)
    if isinstance(pictures, DrawnSnapshots):
        found = diagnose(state.student(), target, pictures.view, seed=seeds[0], n=n)
        save_npz(path / "diagnostics.npz", step=np.asarray(verdict["step"]), **found)
    best = find(state.student(), target, seed=seeds[0], n=verdict["num_scored"])
    if best is not None:
        write_json(path / "found.json", best | {"step": verdict["step"]})
        with write_whole(path / "best.csv") as file:
            file.write(as_csv(best).encode())
    write_json(path / "evaluation.json", verdict)


def _judge_exactly(
    student: Sampler, experiment: Experiment
) -> tuple[dict[str, Any], Float64[np.ndarray, " terminal"]]:
    """The exact verdict with `missed_mass`, and the law: the share of the target's probability on
    objects to which the Student gives less than half of what they should have. It needs no modes.
    """
    env, target = experiment.environment, experiment.target
    verdict, law = evaluate_exactly(student, target, experiment.objective)
    assert isinstance(env, EnumerableEnvironment)
    p = np.exp(exact.truth(env, target).log_p)
    return verdict | {"missed_mass": float(p[law < 0.5 * p].sum())}, law


def _mode_mass(sampler: Sampler, target: Target) -> float | None:
    """Share of a sampler's draws that are in a mode, where the target has modes."""
    if target.num_modes is None:
        return None
    x = empirical.objects(sampler, jax.random.key(0), _FEW_DRAWS)
    return float(np.mean(np.asarray(empirical.mode_indices(target, x)) >= 0))


def _default_draws(experiment: Experiment) -> int:
    if isinstance(experiment.target, HostReward):
        return 2_000
    env = experiment.environment
    return 10_000 if is_vector(env) or isinstance(env, Strings) else 100_000


def _asked(path: Path, experiment: Experiment, seeds: Sequence[int], step: int) -> list[int]:
    """Rewards that training has asked for, per seed: as in the rows, from what the run wrote."""
    if not isinstance(experiment.target, HostReward):
        return [experiment.reward_calls(step)] * len(seeds)
    with run_errors():
        return reward_calls(path, seeds, step=step)


def _perfect_modes(experiment: Experiment, n: int) -> dict[str, Any]:
    """What n draws of a perfect sampler say of the modes: exactly, on average, where the objects
    can be listed, else by exact samples where the target has them.
    """
    env, target = experiment.environment, experiment.target
    if target.num_modes is None:
        return {}
    if isinstance(env, EnumerableEnvironment) and exact.refusal(env) is None:
        truth = exact.truth(env, target)
        on_mode = truth.mode >= 0
        mass = np.bincount(truth.mode[on_mode], np.exp(truth.log_p[on_mode]))
    elif isinstance(target, StringTarget):
        mass = mode_probabilities(target)[1]
    else:
        mass = None
    if mass is not None:
        return {
            "modes_reached_perfect": float(np.sum(1 - (1 - np.minimum(mass, 1)) ** n)),
            "mode_mass_target": float(mass.sum()),
        }
    if not isinstance(target, SamplableTarget):
        return {}
    x = exact_samples(target, jax.random.key(0), n)
    mode = np.asarray(empirical.mode_indices(target, x))
    return {
        "modes_reached_perfect": len(np.unique(mode[mode >= 0])),
        "mode_mass_target": float(np.mean(mode >= 0)),
    }


def _distinct(state: TrainState, num_seeds: int) -> list[int] | list[None]:
    seen = state.seeds.seen
    return [None] * num_seeds if seen is None else np.asarray(seen.count).tolist()


def _counts(found: Any, num_seeds: int) -> list[int] | list[None]:
    return [None] * num_seeds if found is None else np.asarray(found).sum(1).tolist()


def _over_seeds(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [verdict[name] for verdict in verdicts] for name in verdicts[0]}
