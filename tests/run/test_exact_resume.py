"""A run that was stopped and goes on ends in the bits of one that was not, whatever is trained.

Every preset of every kind of space, and what no preset has; each with one seed and with several.
Parameters, optimisers, buffers, keys and counters are compared, and the record but for its times.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact import presets, targets
from didact.behaviours import MALA, Collect, Cycle, FromReplay, FromTeacher, LocalSearch, OnPolicy
from didact.environments import Autoregressive, Diffusion, Hypergrid, PrependAppend
from didact.networks import DiffusionMLPConfig, MLPConfig
from didact.replay import ReplayConfig, SplitDraw
from didact.targets import FromFunction, HostReward

from .._runs import arrays, checkpoint_files, record

pytestmark = pytest.mark.usefixtures("without_report")

MOST_STEPS = 24
SMALL = MLPConfig(width=4, depth=1)
SMALL_DIFFUSION = DiffusionMLPConfig(width=8)


def letters(x: jax.Array) -> jax.Array:
    """A log-reward of strings."""
    return jnp.sum(x == 1) - 0.5 * jnp.sum(x == 2)


def bowl(x: jax.Array) -> jax.Array:
    """A log-density with a gradient."""
    return -0.5 * jnp.sum((x - 1.0) ** 2)


def counted(words: list[str]) -> list[float]:
    """A score of strings, outside JAX."""
    return [1.0 + word.count("A") for word in words]


def summed(x: np.ndarray) -> list[float]:
    """A score of places, outside JAX."""
    return [1.0 + sum(place) for place in x.tolist()]


def short(experiment: didact.Experiment) -> didact.Experiment:
    """Twice around its schedule, if that is not long."""
    steps = min(max(2 * len(experiment.behaviour.pattern), 8), MOST_STEPS)
    return dataclasses.replace(experiment, steps=steps)


def of_grid(preset: str) -> didact.Experiment:
    experiment = presets.grid(preset, 2, 5, batch_size=8)
    network = experiment.network if preset == "thompson" else SMALL
    return dataclasses.replace(experiment, network=network)


def of_strings(preset: str, grow: Literal["both", "end"]) -> didact.Experiment:
    target = FromFunction(letters)
    of_size: dict[str, Any] = {"num_symbols": 3, "length": 3, "width": 8}
    return presets.discovery(target, preset, **of_size, batch_size=8, grow=grow, depth=1)


def of_vectors(preset: str) -> didact.Experiment:
    of_size: dict[str, Any] = {
        "batch_size": 8,
        "num_steps": 3,
        "steps": MOST_STEPS,
        "network": SMALL_DIFFUSION,
    }
    return presets.diffusion(targets.GMM25(), preset, sigma=2.0, size="cpu", **of_size)


def by_hand(**parts: Any) -> didact.Experiment:
    replay = ReplayConfig(32, "reward")
    settings = {"replay": replay, "network": SMALL, "batch_size": 8, "steps": 12}
    return didact.Experiment(**(settings | parts))


GRID = {"environment": Hypergrid(2, 5), "target": targets.DeceptiveGrid(2, 5)}
STRINGS = {"environment": PrependAppend(3, 3), "target": FromFunction(letters)}
ENDS = {"environment": Autoregressive(3, 3), "target": FromFunction(letters)}
VECTORS = {
    "environment": Diffusion(2, 3),
    "target": FromFunction(bowl),
    "network": SMALL_DIFFUSION,
}
SPACES = {"grid": GRID, "strings": STRINGS, "autoregressive": ENDS, "vectors": VECTORS}
TAUGHT = {"teacher_reward": didact.teacher.DoubleLog()}
REPLAYED = Cycle((OnPolicy(0.1), FromReplay()))

BEHAVIOURS = {
    "on-policy": {"behaviour": OnPolicy(0.1), "replay": None},
    "teacher": TAUGHT | {"behaviour": Cycle((OnPolicy(), FromTeacher())), "replay": None},
    "collected": TAUGHT | {"behaviour": Cycle((OnPolicy(), Collect(FromTeacher())))},
    "search": {"behaviour": Cycle((LocalSearch(OnPolicy(), depth=1, rounds=1), FromReplay()))},
    "uniform-replay": {
        "behaviour": REPLAYED,
        "replay": ReplayConfig(32, "none"),
    },
    "split-replay": {"behaviour": REPLAYED, "replay": ReplayConfig(32, "loss", split=SplitDraw())},
    "tempered-replay": {
        "behaviour": REPLAYED,
        "replay": ReplayConfig(32, "weight", target_ess=0.5),
    },
    "waiting": {
        "behaviour": REPLAYED,
        "replay": ReplayConfig(32, "loss", refresh=True, merge_every=3),
        "steps": 30,  # beyond those that merge at once; the stop after 28 is between merges
    },
    "careful": {"behaviour": REPLAYED, "skip_nonfinite": True},
}

MAKERS: dict[str, Callable[[], didact.Experiment]] = {}
for _preset in presets.GRID_PRESETS:
    MAKERS[f"grid-preset-{_preset}"] = lambda p=_preset: short(of_grid(p))
for _preset in presets.DISCOVERY_PRESETS:
    MAKERS[f"strings-preset-{_preset}"] = lambda p=_preset: short(of_strings(p, "both"))
for _preset in presets.DIFFUSION_PRESETS:
    MAKERS[f"vectors-preset-{_preset}"] = lambda p=_preset: short(of_vectors(p))
MAKERS["autoregressive-preset-teacher-per"] = lambda: short(of_strings("teacher-per", "end"))
for _space, _parts in SPACES.items():
    for _name, _others in BEHAVIOURS.items():
        MAKERS[f"{_space}-{_name}"] = lambda a=_parts, b=_others: by_hand(**(a | b))
MAKERS["vectors-mala"] = lambda: by_hand(
    **(VECTORS | TAUGHT),
    behaviour=Cycle((OnPolicy(), FromTeacher(), FromReplay(), Collect(MALA(FromReplay(), 3, 1)))),
)
MAKERS["grid-host"] = lambda: by_hand(
    environment=Hypergrid(2, 4), target=HostReward(summed, cache=False), behaviour=REPLAYED
)
MAKERS["strings-host"] = lambda: by_hand(
    environment=PrependAppend(3, 3),
    target=HostReward(counted, alphabet="ABC", cache=False),
    behaviour=Cycle((LocalSearch(OnPolicy(), depth=1, rounds=1), FromReplay())),
)

SEEDS = {"one-seed": (7,), "two-seeds": (7, 3)}
QUICK = ("strings-search", "one-seed")
"""In `make test`; grids and vectors are resumed in `tests/e2e`."""

CASES = [
    pytest.param(
        *(name, seeds),
        id=f"{name}-{seeds}",
        marks=() if (name, seeds) == QUICK else pytest.mark.slow,
    )
    for name in MAKERS
    for seeds in SEEDS
    # What is trained of several seeds is made of the same parts.
    if seeds == "two-seeds" or "preset" not in name
]


def train(experiment: didact.Experiment, out: Path, seeds: tuple[int, ...], chunks: int) -> None:
    """So many chunks, of a step each; no verdict at the end, which would take the longest."""
    asked = iter(range(1, 10**6))
    polls = getattr(experiment.target, "rewards", None) is not None

    def should_stop() -> bool:
        # Where rewards are computed outside JAX it is asked before each step too.
        return next(asked) >= (2 * chunks if polls else chunks)

    policy = didact.CheckpointPolicy(seconds=None, steps=3)
    _ = didact.train(
        experiment, out, seeds=seeds, evaluations=0, checkpoints=policy, should_stop=should_stop
    )


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Programs of one case serve no other: a hundred of them would fill the memory."""
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(("name", "seeds"), CASES)
def test_a_run_goes_on_as_if_it_had_not_stopped(name: str, seeds: str, tmp_path: Path) -> None:
    experiment, numbers = MAKERS[name](), SEEDS[seeds]
    steps = experiment.steps
    train(experiment, tmp_path / "whole", numbers, steps)
    for count in (2, 1, steps - 5, 2):
        train(experiment, tmp_path / "stopped", numbers, count)
    stopped, whole = (
        (record(path), *map(arrays, (checkpoint_files(path)[-1], *(path / "samplers").iterdir())))
        for path in (tmp_path / "stopped", tmp_path / "whole")
    )
    assert stopped == whole
    assert record(tmp_path / "whole")[-1]["step"] == steps
    assert len(list((tmp_path / "stopped" / "samplers").iterdir())) == len(numbers)
