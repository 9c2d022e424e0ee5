"""The laws of trajectories that somebody else has drawn."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import Environment, Trajectory
from ._enumeration import IMPOSSIBLE
from ._laws import Ledger, fault_at, show_state, take

PATHS = "trajectories are paths of the environment, padded at one end"


class _Facts(eqx.Module):
    begins: Array  # [B]
    ends: Array
    follows: Array  # [B, T], how far a state is from where the edge before leads
    returns: Array
    size: Array
    still: Array
    allowed: Array


@eqx.filter_jit
def _facts(env: Environment, trajectory: Trajectory) -> _Facts:
    states = trajectory.states
    now, after = (
        jax.tree.map(lambda leaf: leaf[:, :-1], states),
        jax.tree.map(lambda leaf: leaf[:, 1:], states),
    )

    def edge(state: Any, action: Any, following: Any) -> tuple[Array, ...]:
        forward = env.forward_kernel(state, jnp.zeros(env.forward_size)).log_prob(action)
        backward = env.backward_kernel(following, None).log_prob(action)
        return (
            _distance(env.step(state, action), following),
            _distance(env.backward_step(following, action), state),
            _size((state, action, following)),
            _distance(state, following) == 0,
            (forward > IMPOSSIBLE) & (backward > IMPOSSIBLE) & ~env.is_terminal(state),
        )

    first = jax.tree.map(lambda leaf: leaf[:, 0], states)
    return _Facts(
        jax.vmap(env.is_initial)(first),
        jax.vmap(env.is_terminal)(trajectory.terminal),
        *jax.vmap(jax.vmap(edge))(now, trajectory.actions, after),
    )


def _distance(one: Any, other: Any) -> Array:
    """The largest difference of real numbers; infinite where integers differ."""
    total = jnp.zeros(())
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jnp.inexact):
            total = jnp.maximum(total, jnp.max(jnp.abs(a - b), initial=0))
        else:
            total = jnp.where(jnp.any(a != b), jnp.inf, total)
    return total


def _size(tree: Any) -> Array:
    real = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.max(jnp.stack([jnp.zeros(()), *(jnp.max(jnp.abs(leaf)) for leaf in real)]))


def check_trajectories(
    ledger: Ledger, env: Environment, trajectory: Trajectory, whose: str
) -> None:
    """Whether trajectories [B] lead from the initial state to terminal ones along allowed edges,
    forth and back; the padding is at one end, and there the state stays as it is.
    """
    found = jax.tree.map(np.asarray, _facts(env, trajectory))
    mask = np.asarray(trajectory.mask)

    def at(b: int, t: int) -> str:
        state, action, after = (
            show_state(part)
            for part in (
                take(trajectory.states, b, t),
                take(trajectory.actions, b, t),
                take(trajectory.states, b, t + 1),
            )
        )
        return f"{whose}, trajectory {b}, edge {t}: {action} from {state} to {after}"

    def of(b: int) -> str:
        return f"{whose}, trajectory {b}"

    unit = "trajectories"
    ledger.holds(PATHS, fault_at(~found.begins, lambda b: f"{of(b)} begins elsewhere", unit))
    fault = fault_at(~found.ends, lambda b: f"{of(b)} does not end in a terminal state", unit)
    ledger.holds(PATHS, fault)
    length, place = mask.sum(axis=1, keepdims=True), np.arange(mask.shape[1])
    at_end, at_front = (
        np.all(mask == real, axis=1) for real in (place < length, place >= mask.shape[1] - length)
    )
    fault = fault_at(
        ~np.logical_or(at_end, at_front),
        lambda b: f"{of(b)} has the mask {mask[b].astype(int).tolist()}",
        unit,
    )
    ledger.holds(PATHS, fault)
    tolerance = 8 * np.finfo(np.float32).eps * found.size
    for bad, what in (
        (mask & ~(found.follows <= tolerance), "is not where the action leads"),
        (mask & ~(found.returns <= tolerance), "is not undone by backward_step"),
        (mask & ~found.allowed, "is not allowed by P_F and P_B"),
        (~mask & ~found.still, "is padding, and the state changes"),
    ):
        ledger.holds(PATHS, fault_at(bad, lambda b, t, what=what: f"{at(b, t)}, {what}", "edges"))
