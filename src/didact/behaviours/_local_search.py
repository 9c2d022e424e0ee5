"""Batches improved by going back and forth along trajectories."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._checks import require
from .._sampler import Sampler
from .._types import Noise, Sample, State
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward

_Objects = tuple[Sample, Float[Array, " C"]]
"""Of a batch of chains, and their log R."""


class LocalSearch(Behaviour):
    r"""Back-and-forth search (Kim et al., "Local search GFlowNets", ICLR 2024): the Student walks
    from an object back by P_B and forth again by P_F, to another object nearby.

    Of a batch of B, B/(1 + `rounds`) objects come from another behaviour; in each round every chain
    proposes an object x' for its present one x, and moves there by chance or if it is better. All
    objects proposed are the batch, whether or not a chain moved; their trajectories are drawn anew
    from P_B. With `greedy` a chain moves where R(x') > R(x); otherwise by Metropolis–Hastings, with

    $$\min\Big(1, \frac{R(x')\,P_B(\tau'\mid x')\,P_F(\tau)}
    {R(x)\,P_B(\tau\mid x)\,P_F(\tau')}\Big),$$

    $\tau$ and $\tau'$ being the parts of the paths to x and x' that were walked. The chains then
    leave R invariant. A way forth along more edges than the way back may have is refused.

    **Arguments:** `inner`: a single behaviour; `depth`: edges of the way back (less where the
    initial state comes first), or with `random_depth` at most so many, each number as likely;
    `rounds`; `greedy`. The batch must have a multiple of 1 + `rounds` trajectories.

    Known divergence: the published code accepts with probability r/(1 + r), r being the fraction
    above, and learns from the walked part of a path alone.
    """

    inner: Behaviour
    depth: int = eqx.field(static=True, default=3)
    rounds: int = eqx.field(static=True, default=7)
    greedy: bool = eqx.field(static=True, default=False)
    random_depth: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if len(self.inner.turns) != 1 or self.inner.turns[0].collects:
            raise ValueError("LocalSearch takes a single behaviour: put it inside a Cycle instead.")
        require("depth", self.depth, at_least=1)
        require("rounds", self.rounds, at_least=1)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The inner behaviour's, with one evaluation for each object."""
        turn = self.inner.turns[0]
        calls = max(turn.reward_calls, 1)
        return (turn._replace(source="search", reward_calls=calls, on_policy=False),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Search from the inner behaviour's objects, and walk back from all that was found."""
        chains, rest = divmod(batch_size, 1 + self.rounds)
        if rest:
            raise ValueError(
                f"LocalSearch with {self.rounds} rounds needs a batch size that is a multiple of "
                f"{1 + self.rounds}, got {batch_size}."
            )
        inner_key, chain_key, walk_key = jax.random.split(key, 3)
        begun = self.inner(agents, inner_key, step, chains, axis_name=axis_name)
        sampler = lax.stop_gradient(agents.student)
        env = sampler.environment
        log_reward_fn = jax.vmap(agents.target.log_reward)
        x = jax.vmap(env.sample_of)(begun.trajectory.terminal)
        log_reward = lax.cond(begun.known, lambda: begun.log_reward, lambda: log_reward_fn(x))

        keys = jax.random.split(chain_key, self.rounds)
        _, found = lax.scan(
            lambda here, key: self._round(sampler, log_reward_fn, here, key), (x, log_reward), keys
        )
        every_x, every_reward = jax.tree.map(
            lambda first, others: jnp.concatenate([first, others.reshape(-1, *first.shape[1:])]),
            (x, log_reward),
            found,
        )
        return propose_backward(
            agents.student,
            walk_key,
            every_x,
            log_reward=every_reward,
            weight=jnp.tile(begun.weight, 1 + self.rounds),
            fresh=True,
            known=True,
            axis_name=axis_name,
        )

    def _round(
        self,
        sampler: Sampler,
        log_reward_fn: Callable[[Sample], Float[Array, " C"]],
        here: _Objects,
        key: PRNGKeyArray,
    ) -> tuple[_Objects, _Objects]:
        """Where the chains are after one round, and what they have proposed in it."""
        x, log_reward = here
        move_key, accept_key = jax.random.split(key)
        new, log_ratio = self._move(sampler, move_key, x)
        new_reward = log_reward_fn(new)
        gain = new_reward - log_reward
        chance = jnp.exp(jnp.minimum(gain + log_ratio, 0))
        accept = jax.random.uniform(accept_key, gain.shape) < chance
        accept = gain > 0 if self.greedy else accept
        kept = jax.tree.map(lambda a, b: _choose(accept, a, b), new, x)
        return (kept, jnp.where(accept, new_reward, log_reward)), (new, new_reward)

    def _move(
        self, sampler: Sampler, key: PRNGKeyArray, x: Sample
    ) -> tuple[Sample, Float[Array, " C"]]:
        """New objects, and the log of P_B(τ'|x')P_F(τ)/(P_B(τ|x)P_F(τ'))."""
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


def _choose(accept: Bool[Array, " C"], new: Array, old: Array) -> Array:
    return jnp.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old)
