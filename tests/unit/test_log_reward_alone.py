"""No method is told more of a target than log R: not its modes, its log Z, nor samples of it.

Every preset is traced with a target of which all else raises. Counting modes is a measurement: it
is off where a target says that it has none. Maximum likelihood on exact samples is what its name
says, and is not among the methods here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._experiment import traced_numbers
from didact._train import _step_seeds, init, train_chunk
from didact._types import Target
from didact.networks import DiffusionMLPConfig, MLPConfig
from didact.presets import (
    DIFFUSION_PRESETS,
    DISCOVERY_PRESETS,
    GRID_PRESETS,
    diffusion,
    discovery,
    grid,
)
from didact.targets import FromFunction, GaussianMixture

ASKED: set[str] = set()


class Blind(Target):
    """log R of another target, and nothing else of it."""

    target: Target

    @property
    def log_z(self):
        return self._refuse("log_z")

    @property
    def num_modes(self):
        return None  # nothing to count

    def log_reward(self, x):
        ASKED.add("log_reward")
        return self.target.log_reward(x)

    def mode_index(self, x):
        return self._refuse("mode_index")

    def _refuse(self, name: str):
        raise AssertionError(f"training asked the target for {name}")


def of_grid(name: str):
    return grid(name, 2, 8, batch_size=8)


def of_strings(name: str):
    target = FromFunction(lambda x: jnp.sum(x) / 2.0)
    return discovery(target, name, num_symbols=3, length=4, batch_size=8, network=MLPConfig(8, 1))


def of_vectors(name: str):
    # Methods with gradients of log R, and buffers that need a batch.
    mixture = GaussianMixture(((1.0, 0.0), (-1.0, 2.0)), 0.7)
    network = DiffusionMLPConfig(width=8, harmonics=2)
    return diffusion(mixture, name, batch_size=4, steps=100, num_steps=3, network=network)


CASES = [
    *((of_grid, name) for name in GRID_PRESETS),
    *((of_strings, name) for name in DISCOVERY_PRESETS),
    *((of_vectors, name) for name in DIFFUSION_PRESETS if name != "mle"),
]
# Each kind of part once in the quick tests; they are the same in all presets.
QUICK = {
    *("gafn", "sagfn", "thompson", "tempering", "local-search"),
    *("teacher-per", "one-sided", "didact"),
}


def trace(experiment) -> None:
    """A training step as it is handed to the compiler, from the first state on."""
    numbers = traced_numbers(experiment)
    state = jax.eval_shape(lambda: init(experiment, [0]))
    eqx.filter_eval_shape(_step_seeds, numbers, state)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(
            *case,
            id=f"{case[0].__name__.removeprefix('of_')}-{case[1]}",
            marks=[pytest.mark.slow] * (case[0] is not of_grid or case[1] not in QUICK),
        )
        for case in CASES
    ],
)
def test_training_asks_for_log_reward_alone(make, name):
    ASKED.clear()
    experiment = make(name)
    trace(eqx.tree_at(lambda e: e.target, experiment, Blind(experiment.target)))
    assert {"log_reward"} == ASKED


@pytest.mark.slow
def test_counting_modes_changes_nothing_that_is_learned():
    """The default preset, with its target and with one that has no modes to count."""
    counted = of_grid("didact")
    blind = eqx.tree_at(lambda e: e.target, counted, Blind(counted.target))
    states = [train_chunk(each, init(each, [0]), 20, capacity=20)[0] for each in (counted, blind)]
    assert states[0].seeds.modes_found.any()
    assert states[1].seeds.modes_found is None
    parts = [jax.tree.leaves((s.seeds.student, s.seeds.teacher, s.seeds.replay)) for s in states]
    for one, other in zip(*parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_else_is_asked_would_be_seen():
    """With modes to count, the same target is asked which of them an object belongs to."""

    class Counted(Target):
        log_z: float | None = None

        @property
        def num_modes(self):
            return 3

        def log_reward(self, x):
            return -jnp.sum(x) / 2.0

        def mode_index(self, x):
            raise AssertionError("training asked the target for mode_index")

    experiment = eqx.tree_at(lambda e: e.target, of_grid("tb"), Counted())
    with pytest.raises(AssertionError, match="asked the target for mode_index"):
        trace(experiment)
