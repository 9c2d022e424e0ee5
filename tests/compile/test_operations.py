"""What a training step costs, counted in its program: this does not depend on the machine.

Counted are the operations of matrix products, with every loop at its longest and every branch at
its dearest, so that work which was not there before shows, however fast the machine is.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest

from didact import presets, targets
from didact._experiment import Experiment
from didact._train import _step_seeds, init
from didact.networks import DiffusionMLPConfig, MLPConfig

WIDTH = 32


def grid(preset: str, batch_size: int = 16, side: int = 8) -> Experiment:
    made = presets.grid(preset, 2, side, batch_size=batch_size, steps=100)
    return replace(made, network=MLPConfig(WIDTH, 2))


def diffusion(preset: str, batch_size: int = 16, side: int = 8) -> Experiment:
    del side
    network = DiffusionMLPConfig(width=WIDTH, harmonics=WIDTH)
    return presets.diffusion(
        targets.GMM25(), preset, batch_size=batch_size, num_steps=10, network=network
    )


def program(experiment: Experiment, seeds: int = 1) -> jax.extend.core.Jaxpr:
    """The program of one step."""
    state = eqx.filter_eval_shape(init, experiment, range(seeds))
    return jax.make_jaxpr(lambda state: _step_seeds(experiment, state))(state).jaxpr


def inner(equation) -> Iterator[jax.extend.core.Jaxpr]:
    """Programs that an equation calls."""
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
        if is_program(value):
            yield getattr(value, "jaxpr", value)


def is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def operations(jaxpr, horizon: int) -> int:
    """Multiplications and additions of the matrix products in a program."""
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            length = int(np.prod([shape[axis] for axis in contracted]))
            total += 2 * length * equation.outvars[0].aval.size
            continue
        costs = [operations(called, horizon) for called in inner(equation)]
        if name == "while":  # a rollout: its stages share the horizon
            total += horizon * sum(costs)
        elif name == "scan":
            total += equation.params["length"] * sum(costs)
        elif name == "cond":
            total += max(costs)
        else:
            total += sum(costs)
    return total


def in_loops(jaxpr, *, inside: bool = False) -> Iterator[str]:
    """Names of the primitives in loops that run as long as trajectories do."""
    for equation in jaxpr.eqns:
        if inside:
            yield equation.primitive.name
        for called in inner(equation):
            yield from in_loops(called, inside=inside or equation.primitive.name == "while")


@functools.cache
def cost(make, preset: str, batch_size: int = 16, seeds: int = 1, side: int = 8) -> int:
    """Operations of one step."""
    experiment = make(preset, batch_size, side)
    return operations(program(experiment, seeds), experiment.environment.num_steps)


def test_a_step_of_trajectory_balance_costs_its_nominal_arithmetic() -> None:
    """A network call a state in the rollout, whose stages have all, a half and a quarter of the
    lanes, and three in training; the first layer's gradient is a product with a code.
    """
    experiment = grid("tb")
    horizon, batch, actions = experiment.environment.num_steps, experiment.batch_size, 3
    call = 2 * (WIDTH * WIDTH + WIDTH * actions)
    rollout = horizon * batch * 1.75 * call
    # The gradient needs none of the second product of the layer that looks its input up.
    training = (horizon + 1) * batch * (3 * call + 2 * experiment.environment.feature_size * WIDTH)
    assert rollout + training <= cost(grid, "tb") <= 1.01 * (rollout + training)


@pytest.mark.parametrize(
    ("make", "most"),
    # The dearest of the diffusion Teacher's steps also scores what it puts into the buffer.
    [(grid, 2.0), (diffusion, 2.6)],
)
def test_a_teacher_costs_about_two_samplers(make, most: float) -> None:
    assert 1 < cost(make, "teacher") / cost(make, "tb") <= most


def test_a_buffer_costs_no_product() -> None:
    assert cost(grid, "tb-per") == cost(grid, "tb")


def test_work_grows_with_the_batch_and_the_seeds() -> None:
    one = cost(grid, "teacher")
    assert cost(grid, "teacher", batch_size=32) <= 2 * one
    assert cost(grid, "teacher", seeds=3) == 3 * one


def test_work_grows_with_the_length_of_trajectories() -> None:
    growth = grid("tb", side=16).environment.num_steps / grid("tb").environment.num_steps
    assert cost(grid, "tb", side=16) / cost(grid, "tb") <= 1.1 * growth


@pytest.mark.parametrize("make", [grid, diffusion])
def test_rollouts_draw_nothing_and_sort_nothing_while_they_run(make) -> None:
    names = set(in_loops(program(make("tb"))))
    assert "dot_general" in names
    dear = {"random_bits", "random_split", "random_fold_in", "threefry2x32", "sort", "scatter"}
    assert not names & dear
    assert not {name for name in names if "callback" in name}
