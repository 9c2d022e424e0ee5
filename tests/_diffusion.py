"""Diffusion samplers small enough to be known exactly, their walks at given noise, and a target
without a gradient.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from didact._sampler import Sampler
from didact._types import Target, Trajectory
from didact.environments import Diffusion
from didact.networks import DiffusionMLPConfig


def diffusion_sampler(
    env: Diffusion,
    key: Array | None = None,
    *,
    backward_head: bool = False,
    flow_head: bool = False,
    guide: Target | None = None,
    log_z: float = 0.0,
    sharpness: float = 1.0,
) -> Sampler:
    """A sampler with a network of width 8, whose last layer is 0 without a key, random with one."""
    config = DiffusionMLPConfig(width=8, harmonics=3, depth=1, langevin=guide is not None)
    policy = config.build(
        env,
        flow_head=flow_head,
        backward_head=backward_head,
        key=jax.random.key(0) if key is None else key,
    )
    if key is not None:
        weight, bias = policy.last.weight, policy.last.bias
        draw = jax.random.normal(jax.random.fold_in(key, 1), (weight.shape[0] + 1, bias.shape[0]))
        policy = eqx.tree_at(
            lambda p: (p.last.weight, p.last.bias),
            policy,
            (sharpness * draw[1:], sharpness * draw[0]),
        )
    return Sampler(env, policy, jnp.asarray(log_z, jnp.result_type(float)), guide=guide)


def walk_forward(sampler: Sampler, noise: Array) -> Trajectory:
    """The trajectories that P_F makes of noise [N, T, dim], edge by edge."""
    env = sampler.environment
    state = _repeated(env.initial_state(), noise.shape[0])
    states, actions = [state], []
    for t in range(env.num_steps):
        action = jax.vmap(lambda s, z: sampler.forward_kernel(s).from_noise(z))(state, noise[:, t])
        state = jax.vmap(env.step)(state, action)
        states.append(state)
        actions.append(action)
    return _trajectory(states, actions)


def walk_backward(sampler: Sampler, x: Array, noise: Array) -> Trajectory:
    """The trajectories to x [N, dim] that P_B makes of noise [N, T, dim], edge by edge."""
    env = sampler.environment
    state = jax.vmap(env.terminal_state)(x)
    states, actions = [state], []
    for t in reversed(range(env.num_steps)):
        action = jax.vmap(lambda s, z: sampler.backward_kernel(s).from_noise(z))(state, noise[:, t])
        state = jax.vmap(env.backward_step)(state, action)
        states.insert(0, state)
        actions.insert(0, action)
    return _trajectory(states, actions)


def _trajectory(states: list, actions: list) -> Trajectory:
    stack = lambda *leaves: jnp.stack(leaves, axis=1)  # noqa: E731
    mask = jnp.ones((actions[0].shape[0], len(actions)), bool)
    return Trajectory(jax.tree.map(stack, *states), jnp.stack(actions, axis=1), mask)


def _repeated(tree, number: int):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), tree)


class OnTheHost(Target):
    """A target whose log R JAX cannot differentiate."""

    dim = 2
    log_z = None
    num_modes = None

    def log_reward(self, x):
        shape = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(lambda x: -np.sum(x * x), shape, x)

    def mode_index(self, x):
        return jnp.asarray(-1)
