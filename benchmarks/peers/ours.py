"""didact's training steps, for `compare.py`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _serve import Train, serve

import didact
from didact import networks, presets, targets


def build(task: dict[str, Any]) -> Train:
    """Training of a task, a chunk of steps in one program."""
    experiment = experiment_of(task)
    capacity = task["chunk"]
    state = didact.init(experiment, (0,))

    def train(steps: int) -> float:
        nonlocal state
        state, info = didact.train_chunk(experiment, state, steps, capacity=capacity)
        jax.block_until_ready(state.step)
        return float(jnp.mean(info.mean_length[0, :steps])) * experiment.batch_size

    return train


def experiment_of(task: dict[str, Any]) -> didact.Experiment:
    """What is trained of a task."""
    return {"grid": _grid, "strings": _strings, "diffusion": _diffusion}[task["kind"]](task)


def _mlp(task: dict[str, Any]) -> networks.MLPConfig:
    return networks.MLPConfig(width=task["width"], depth=2)


def _grid(task: dict[str, Any]) -> didact.Experiment:
    experiment = presets.grid(
        "teacher" if task["teacher"] else "tb",
        task["dim"],
        task["side"],
        batch_size=task["batch_size"],
    )
    assert experiment.network == _mlp(task)
    return experiment


def _strings(task: dict[str, Any]) -> didact.Experiment:
    symbols, length = task["symbols"], task["length"]
    table = jnp.asarray(np.load(task["log_rewards"]))
    place = symbols ** jnp.arange(length)[::-1]
    # pyright takes the property of another field for an argument of the constructor
    target: Any = targets.FromFunction
    return presets.discovery(
        target(lambda x: table[jnp.sum(x * place)]),
        "teacher-per" if task["teacher"] else "tb",
        num_symbols=symbols,
        length=length,
        batch_size=task["batch_size"],
        grow="both" if task["both_ends"] else "end",
        network=_mlp(task),
    )


def _diffusion(task: dict[str, Any]) -> didact.Experiment:
    return presets.diffusion(
        targets.GMM25(),
        "teacher" if task["teacher"] else "tb",
        sigma=math.sqrt(5),
        batch_size=task["batch_size"],
        num_steps=task["num_steps"],
        network=networks.DiffusionMLPConfig(width=task["width"], harmonics=task["width"]),
    )


if __name__ == "__main__":
    serve(build, ("didact", "jax", "equinox"))
