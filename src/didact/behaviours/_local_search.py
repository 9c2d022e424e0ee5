"""Batches improved by going back and forth along trajectories."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._sampler import Sampler
from .._types import Sample
from ._back_and_forth import Move, choose
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward, require_single

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
        require_single("LocalSearch", self.inner, "put it inside a Cycle instead")
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
            agents,
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
        kept = jax.tree.map(lambda a, b: choose(accept, a, b), new, x)
        return (kept, jnp.where(accept, new_reward, log_reward)), (new, new_reward)

    def _move(
        self, sampler: Sampler, key: PRNGKeyArray, x: Sample
    ) -> tuple[Sample, Float[Array, " C"]]:
        return Move(self.depth, self.random_depth)(sampler, key, x)
