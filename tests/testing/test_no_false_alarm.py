"""No check fails on a shipped class, whatever the key.

100 keys, each with its own parameters and draws: some 30,000 statistical tests, of which each is
wrong with a chance of 1e-7.
"""

import jax
import pytest

from didact.environments import Diffusion, Hypergrid
from didact.networks import BootstrappedConfig
from didact.objectives import Linex, Squared
from didact.targets import DeceptiveGrid, GaussianMixture
from didact.testing import (
    check_behaviour,
    check_environment,
    check_kernel,
    check_objective,
    check_target,
    make_agents,
)

from ..contract._instances import (
    BEHAVIOURS,
    CONTINUOUS_BEHAVIOURS,
    ENVIRONMENTS,
    KERNELS,
    OBJECTIVES,
    TARGETS,
)

pytestmark = pytest.mark.slow
KEYS = [jax.random.key(1000 + seed) for seed in range(100)]


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_environments(env):
    for key in KEYS:
        check_environment(env, key=key)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_kernels(kernel):
    for key in KEYS:
        check_kernel(kernel, key=key, num_draws=2048)


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name):
    target, env = TARGETS[name]
    for key in KEYS:
        check_target(target, env, key=key, num_draws=512)


@pytest.mark.parametrize("regression", [Squared(), Linex()], ids=["squared", "linex"])
@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_objectives(make, regression):
    for key in KEYS:
        check_objective(make(regression), key=key)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviours(name):
    grid, target, network = Hypergrid(2, 7), DeceptiveGrid(2, 7), None
    if name in CONTINUOUS_BEHAVIOURS:
        grid, target = Diffusion(2, 3), GaussianMixture(((1.0, 0.0), (-1.0, 2.0)), 0.7)
    if name == "thompson":
        network = BootstrappedConfig(width=8, depth=1, members=3, prior_scale=1.0)
    for key in KEYS:
        agents = make_agents(grid, target, network=network, key=key)
        check_behaviour(BEHAVIOURS[name], agents, key=key)
