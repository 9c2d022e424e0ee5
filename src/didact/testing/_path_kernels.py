"""The laws of the kernels of an environment, at states on trajectories."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._types import Environment, Kernel, State
from ._kernel import DRAWS, NORMALISED, check_mass, vector_density
from ._laws import Ledger, fault_at, show_state, take
from ._quadrature import (
    TOO_STEEP,
    Below,
    Mass,
    choose_coordinate,
    mass_of,
    mass_of_line,
    proposals,
    share_below,
)
from ._statistics import fault_of_uniforms, generator, places

_STATES, _DRAWS, _NODES, _SPREAD = 512, 32, 96, 1024


def check_path_kernels(
    ledger: Ledger, env: Environment, name: str, states: State, key: PRNGKeyArray
) -> None:
    """Whether P_F ("P_F") or P_B ("P_B") is normalised at states [n], and draws have its law."""
    random = generator(key)
    number = len(jax.tree.leaves(states)[0])
    order = random.permutation(number)[:_STATES]
    states = jax.tree.map(lambda leaf: leaf[order], states)
    size = env.forward_size if name == "P_F" else env.backward_size
    # The fixed P_B has no parameters; as many are drawn, for the shapes.
    params = jnp.asarray(random.standard_normal((len(order), size)), jnp.result_type(float))
    start = env.initial_state()
    edge = jax.eval_shape(lambda: _kernel_at(env, name, start, params[0]).sample(key))
    leaves = jax.tree.leaves(edge)
    if len(leaves) == 1 and leaves[0].shape == () and jnp.issubdtype(leaves[0].dtype, jnp.integer):
        _check_choices(ledger, env, name, states, params, key)
    elif len(leaves) == 1 and jnp.issubdtype(leaves[0].dtype, jnp.inexact):
        _check_densities(ledger, env, name, states, params, key)
    else:
        ledger.leave_out(f"the law of draws of {name}: edges are neither integers nor real arrays")


def _kernel_at(env: Environment, name: str, state: State, params: Array) -> Kernel:
    if name == "P_B":
        return env.backward_kernel(state, None)
    return env.forward_kernel(state, params)


def _noise(env: Environment, name: str, params: Array, key: PRNGKeyArray, *shape: int) -> Any:
    """Noise for edges of all states: its law does not depend on them."""
    return _kernel_at(env, name, env.initial_state(), params[0]).noise(key, (len(params), *shape))


@eqx.filter_jit
def _choices(
    env: Environment, name: str, states: State, params: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    def one(state: State, params: Array, noise: Any) -> tuple[Array, Array]:
        kernel = _kernel_at(env, name, state, params)
        actions = jnp.arange(params.shape[0], dtype=jnp.int32)
        return jax.vmap(kernel.log_prob)(actions), kernel.from_noise(noise)

    return jax.vmap(one)(states, params, _noise(env, name, params, key))


def _check_choices(
    ledger: Ledger, env: Environment, name: str, states: State, params: Array, key: PRNGKeyArray
) -> None:
    """Edges that are one integer, as many as there are parameters."""
    log_law, drawn = map(np.asarray, _choices(env, name, states, params, key))
    if drawn.max() >= log_law.shape[1]:
        ledger.leave_out(f"{NORMALISED}: {name} has more edges than parameters")
        return
    law = np.exp(log_law.astype(np.float64))
    total = law.sum(axis=1)
    fault = fault_at(
        ~(np.abs(total - 1) <= 1e-4),
        lambda i: f"At {show_state(take(states, i))} {name} sums to {total[i]:.6g}, not to 1",
        "states",
    )
    ledger.holds(NORMALISED, fault)
    _report_draws(ledger, name, places(law, drawn, generator(key)))


@eqx.filter_jit
def _densities(
    env: Environment,
    name: str,
    states: State,
    params: Array,
    uniform: Array,
    key: PRNGKeyArray,
) -> tuple[Below, Array, Array]:
    """For an edge drawn at each state the share of the density below it along a coordinate, how
    many coordinates vary, and its log-probability.
    """

    def one(state: State, params: Array, uniform: Array, noise: Any) -> tuple[Below, Array, Array]:
        kernel = _kernel_at(env, name, state, params)
        log_density, x = vector_density(kernel, jax.vmap(kernel.from_noise)(noise))
        span = jnp.max(x, axis=0) - jnp.min(x, axis=0)
        coordinate = choose_coordinate(span > 0, uniform)
        below = share_below(log_density, x[0], coordinate, span[coordinate], _NODES)
        return below, jnp.sum(span > 0), log_density(x[0])

    return jax.vmap(one)(states, params, uniform, _noise(env, name, params, key, _DRAWS))


@eqx.filter_jit
def _masses(
    env: Environment, name: str, states: State, params: Array, z: Array, key: PRNGKeyArray
) -> Mass:
    def one(state: State, params: Array, noise: Any) -> Mass:
        kernel = _kernel_at(env, name, state, params)
        log_density, x = vector_density(kernel, jax.vmap(kernel.from_noise)(noise))
        if x.shape[1] == 1:
            return mass_of_line(log_density, x)
        spread = jnp.max(x, axis=0) > jnp.min(x, axis=0)
        return mass_of(log_density, x, spread, z)

    return jax.vmap(one)(states, params, _noise(env, name, params, key, _SPREAD))


def _check_densities(
    ledger: Ledger, env: Environment, name: str, states: State, params: Array, key: PRNGKeyArray
) -> None:
    """Edges that are real arrays."""
    random = generator(key)
    uniform = jnp.asarray(random.uniform(size=len(params)), params.dtype)
    below, spread, value = jax.tree.map(
        np.asarray, _densities(env, name, states, params, uniform, key)
    )

    def at(i: int) -> str:
        return f"At {show_state(take(states, i))} {name}"

    fault = fault_at(
        (spread == 0) & ~(np.abs(value) <= 1e-5),
        lambda i: f"{at(i)} draws one edge alone, and its log-probability is {value[i]:.4g}, not 0",
        "states",
    )
    ledger.holds(NORMALISED, fault)
    vary = np.flatnonzero(spread > 0)
    if len(vary) == 0:
        return
    form = jax.eval_shape(_kernel_at(env, name, take(states, 0), params[0]).sample, key)
    dim = jax.tree.leaves(form)[0].size
    few = vary[: 64 if dim == 1 else 4]
    z = jnp.asarray(proposals(random, 4096, dim), params.dtype)
    some = jax.tree.map(lambda leaf: leaf[few], states)
    masses = jax.tree.map(np.asarray, _masses(env, name, some, params[few], z, key))
    for i, row in enumerate(few):
        check_mass(ledger, take(masses, i), at(int(row)))
    if Below(*(part[vary] for part in below)).is_known:
        _report_draws(ledger, name, below.share[vary])
    else:
        ledger.leave_out(f"{DRAWS}: {name}: {TOO_STEEP}")


def _report_draws(ledger: Ledger, name: str, u: np.ndarray) -> None:
    fault = fault_of_uniforms(u)
    what = f"The places of {len(u)} draws of {name}, one a state, are not uniform: "
    ledger.holds(DRAWS, None if fault is None else what + fault + ".")
