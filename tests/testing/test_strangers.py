"""The checks find mistakes that were made without knowledge of how they look for them.

The parts of `_strangers` were written before any check was run on them. Here is the law by which
each of them is found now.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Key

from didact.behaviours import OnPolicy
from didact.environments import Diffusion, Hypergrid, Kernel
from didact.targets import DeceptiveGrid
from didact.testing import (
    ConformanceError,
    check_behaviour,
    check_environment,
    check_kernel,
    check_objective,
    check_target,
)

from . import _strangers as strangers

BACKWARD_ALLOWED = "an edge that P_B allows is one that P_F allows"
REFERENCE = "P_B is the reference process backwards: p(s) P_F(s'|s) = p(s') P_B(s|s')"
NORMALISED = "log_prob is normalised"
LAW_OF_DRAWS = "draws have the law that log_prob states"
LOG_Z = "log_z is the logarithm of the sum or integral of R"
LAW_OF_SAMPLES = "samples have the density R/Z"
EVERY_MODE = "every mode has an object"
NO_WEIGHT = "a trajectory of weight 0 does not count"
KNOWN = "rewards that are known are log R of the objects"
OWN_FEATURES = "two states with edges out of them have different features"
TEMPERED = "temper(T) raises the distribution to the power 1/T"
EXPLORED = "explore(e) is the mixture of 1 - e of the kernel with e of explore(1)"
NOISE_AGAIN = "to_noise undoes from_noise"
SIGN = "residual is log R + log P_B - log Z - log P_F: positive where a trajectory is too rare"
GRADIENT = (
    "away from the optimum the loss has a gradient, of log Z if it learns it, of log F too, and of "
    "log P_B if it depends on it"
)
PADDING = "padding does not count"
BESIDE = "where one edge or the reward is not that of the optimum, a trajectory has a loss"
ON_POLICY = "a turn that is on_policy has the law of the Student's trajectories"


def mixture() -> strangers.CoordinatewiseMixture:
    means = jnp.asarray([[-1.0, 0.0], [1.0, 1.5]])
    return strangers.CoordinatewiseMixture(
        jnp.log(jnp.asarray([0.6, 0.4])), means, jnp.asarray(0.5)
    )


def gaussian(kind: Callable[..., Kernel]) -> Kernel:
    return kind(jnp.asarray([0.7, -2.0]), jnp.asarray([0.4, 1.5]))


def masked() -> strangers.ThinExploration:
    mask = jnp.asarray([True, True, False, True])
    return strangers.ThinExploration(jnp.asarray([0.5, -1.0, 2.0, 0.0]), mask)


def correlated() -> strangers.TransposedCovariance:
    return strangers.TransposedCovariance(jnp.zeros(2), jnp.asarray([[1.0, 0.0], [0.5, 0.8]]))


def heated() -> strangers.TemperatureUpsideDown:
    return strangers.TemperatureUpsideDown(DeceptiveGrid(2, 8), 2.0)


GRID = partial(check_target, environment=Hypergrid(2, 8))
PLANE = partial(check_target, environment=Diffusion(2, 5))
SPACE_TRIANGLE = ((-2.0, *(0.0,) * 5), (2.0, *(0.0,) * 5), (0.0, 3.0, *(0.0,) * 4))
TRIANGLE = ((-2.0, 0.0), (2.0, 0.0), (0.0, 3.0))

FAST = [
    (GRID, heated, LOG_Z),
    (GRID, partial(strangers.CollidingModes, 2, 8), EVERY_MODE),
    (check_objective, strangers.PlainMeanVarGrad, NO_WEIGHT),
    (check_objective, strangers.FrozenBackward, GRADIENT),
    (check_objective, strangers.DBWithoutLastBackward, SIGN),
    (check_objective, strangers.SubTBWithoutEnd, BESIDE),
]
SLOW = [
    (check_environment, partial(strangers.CornerMustMove, 2, 5), BACKWARD_ALLOWED),
    (check_environment, partial(strangers.TerminalParents, 2, 5), BACKWARD_ALLOWED),
    (check_environment, partial(strangers.SharedFeatures, 2, 5), OWN_FEATURES),
    (check_environment, partial(strangers.LateBridge, 2, 5), REFERENCE),
    (check_environment, partial(strangers.EarlyReference, 2, 5), REFERENCE),
    (check_environment, partial(strangers.LearnedTwins, 2, 3), NORMALISED),
    (check_kernel, mixture, LAW_OF_DRAWS),
    (check_kernel, correlated, LAW_OF_DRAWS),
    (check_kernel, masked, EXPLORED),
    (check_kernel, partial(gaussian, strangers.ClippedGaussian), NOISE_AGAIN),
    (check_kernel, partial(gaussian, strangers.HotStd), TEMPERED),
    (
        PLANE,
        partial(strangers.EqualDraws, means=TRIANGLE, scale=0.5, weights=(0.5, 0.3, 0.2)),
        LAW_OF_SAMPLES,
    ),
    (
        check_target,
        partial(strangers.EqualDraws, means=SPACE_TRIANGLE, scale=0.5, weights=(0.5, 0.3, 0.2)),
        LAW_OF_SAMPLES,
    ),
    (check_target, partial(strangers.ForgottenGaussian, 8), LOG_Z),
    (PLANE, partial(strangers.RadialRing, radius=2.0, scale=1.0), LAW_OF_SAMPLES),
    (check_objective, strangers.SubTBOfLongest, PADDING),
    (check_behaviour, strangers.ShuffledReplay, KNOWN),
    (check_behaviour, strangers.OneKeyBootstrap, ON_POLICY),
    (check_behaviour, partial(strangers.TemperedOnPolicy, temperature=0.5), ON_POLICY),
    (check_behaviour, partial(strangers.StaleSearch, OnPolicy(), rounds=3), KNOWN),
]


def _name(case: tuple[Any, ...]) -> str:
    make = case[1]
    given = getattr(make, "args", ())[:1]  # of a function that makes several kinds
    kind = given[0] if given and isinstance(given[0], type) else getattr(make, "func", make)
    return kind.__name__


@pytest.mark.parametrize(
    ("check", "make", "law"),
    [pytest.param(*case, id=_name(case)) for case in FAST]
    + [pytest.param(*case, id=_name(case), marks=pytest.mark.slow) for case in SLOW],
)
def test_the_mistake_is_found(
    check: Callable[..., object], make: Callable[[], object], law: str, key: Key[Array, ""]
):
    with pytest.raises(ConformanceError, match=re.escape(f"breaks the law '{law}'")):
        check(make(), key=key)


@pytest.mark.slow
def test_states_may_look_the_same_where_that_is_meant(key):
    checked = check_environment(strangers.SharedFeatures(2, 5), key=key, shared_features=True)
    assert "whether two states have one set of features: they may" in checked.left_out
