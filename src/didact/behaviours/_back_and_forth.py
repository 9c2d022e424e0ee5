"""Going back along a trajectory and forth again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._sampler import Sampler
from .._types import Noise, Sample, State


class Move(NamedTuple):
    r"""A way from objects to others: back by P_B along edges, and forth by P_F to the next end.

    `depth`: edges of the way back (less where the initial state comes first), or with
    `random_depth` at most so many, each number as likely. Where the way forth is longer than a way
    back may be, there is no return.
    """

    depth: int
    random_depth: bool

    def __call__(
        self, sampler: Sampler, key: PRNGKeyArray, x: Sample
    ) -> tuple[Sample, Float[Array, " C"]]:
        r"""New objects, and the log of P_B(τ'|x')P_F(τ)/(P_B(τ|x)P_F(τ')), τ and τ' being the parts
        of the paths to x and to the new x' that were walked.
        """
        env = sampler.environment
        back_key, forth_key, depth_key = jax.random.split(key, 3)
        chains = jax.tree.leaves(x)[0].shape[0]
        back = sampler.backward_kernel(env.initial_state()).noise(back_key, (chains, self.depth))
        forth = sampler.forward_kernel(env.initial_state()).noise(
            forth_key, (chains, env.num_steps)
        )
        depth = jnp.full(chains, self.depth)
        if self.random_depth:
            depth = jax.random.randint(depth_key, (chains,), 1, self.depth + 1)

        def one(x, depth, back, forth):
            middle = _walk_back(sampler, env.terminal_state(x), depth, back)
            end = _walk_forth(sampler, middle.state, forth)
            at_start = env.is_initial(middle.state)
            chance = self._log_chance(end.length, at_start)
            chance = chance - self._log_chance(middle.length, at_start)
            log_ratio = middle.log_pf - middle.log_pb + end.log_pb - end.log_pf
            return env.sample_of(end.state), log_ratio + chance

        return jax.vmap(one)(x, depth, back, forth)

    def _log_chance(self, length: Int[Array, ""], at_start: Bool[Array, ""]) -> Float[Array, ""]:
        """Log of the chance that a way back along `length` edges ends after them, whatever edges
        they are: it ends at the initial state or when its depth is reached.
        """
        left = self.depth - length + 1
        if self.random_depth:
            ways = jnp.where(at_start, left, 1) / self.depth
            possible = left >= 1
        else:
            ways = 1.0
            possible = jnp.where(at_start, left >= 1, left == 1)
        return jnp.log(jnp.where(possible, ways, 0.0))


class _Walk(NamedTuple):
    """Where a walk has come to, and the log-probabilities of its edges in both directions."""

    state: State
    length: Int[Array, ""]
    log_pf: Float[Array, ""]
    log_pb: Float[Array, ""]


def _walk_back(sampler: Sampler, state: State, depth: Int[Array, ""], noise: Noise) -> _Walk:
    env = sampler.environment

    def body(walk: _Walk, noise: Noise) -> tuple[_Walk, None]:
        going = ~env.is_initial(walk.state) & (walk.length < depth)
        kernel = sampler.backward_kernel(walk.state)
        action = kernel.from_noise(noise)
        parent = env.backward_step(walk.state, action)
        log_pf = sampler.forward_kernel(parent).log_prob(action)
        return _advance(walk, going, parent, log_pf, kernel.log_prob(action)), None

    return lax.scan(body, _start(state), noise)[0]


def _walk_forth(sampler: Sampler, state: State, noise: Noise) -> _Walk:
    env = sampler.environment

    def going(walk: _Walk) -> Bool[Array, ""]:
        return ~env.is_terminal(walk.state)

    def body(walk: _Walk) -> _Walk:
        kernel = sampler.forward_kernel(walk.state)
        action = kernel.from_noise(jax.tree.map(lambda leaf: leaf[walk.length], noise))
        child = env.step(walk.state, action)
        log_pb = sampler.backward_kernel(child).log_prob(action)
        return _advance(walk, jnp.asarray(True), child, kernel.log_prob(action), log_pb)

    return lax.while_loop(going, body, _start(state))


def _start(state: State) -> _Walk:
    return _Walk(state, jnp.asarray(0, jnp.int32), jnp.zeros(()), jnp.zeros(()))


def _advance(
    walk: _Walk,
    going: Bool[Array, ""],
    state: State,
    log_pf: Float[Array, ""],
    log_pb: Float[Array, ""],
) -> _Walk:
    return _Walk(
        jax.tree.map(lambda new, old: jnp.where(going, new, old), state, walk.state),
        walk.length + going.astype(jnp.int32),
        walk.log_pf + jnp.where(going, log_pf, 0),
        walk.log_pb + jnp.where(going, log_pb, 0),
    )


def choose(accept: Bool[Array, " C"], new: Array, old: Array) -> Array:
    """The new where it is accepted, the old elsewhere, for arrays [C, ...]."""
    return jnp.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old)
