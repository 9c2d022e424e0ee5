"""Batches that Markov chains over objects propose to themselves."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._checks import require
from .._config import require_types
from .._sampler import sample_forward
from .._types import Environment, Sample, Target
from ._back_and_forth import Move, choose
from ._behaviour import Agents, Behaviour, Chains, Proposal, Turn, propose_backward
from ._uniform import uniform_sampler


class ChainsConfig(eqx.Module):
    r"""Markov chains over objects, as many as a batch has trajectories: Metropolis–Hastings
    (Hastings, 1970), or with `levels` > 1 parallel tempering (Geyer, 1991).

    Chain i is at level l = i mod `levels` and leaves $R^{1/T_l}$ invariant, the temperatures
    $T_l$ rising geometrically from 1 to `hottest`. After each move chains of neighbouring levels
    exchange their objects with probability

    $$\min\big(1, (R(x_{l+1})/R(x_l))^{1/T_l - 1/T_{l+1}}\big),$$

    every second pair at a time. That asks for no rewards.

    **Arguments:** `levels` >= 1, of which the batch size must be a multiple; `hottest` >= 1.
    """

    levels: int = eqx.field(static=True, default=1)
    hottest: float = 1.0

    def __check_init__(self):
        require("levels", self.levels, at_least=1)
        require("hottest", self.hottest, at_least=1)
        require_types(self)

    @property
    def temperatures(self) -> Float[Array, " levels"]:
        """T of each level."""
        share = jnp.arange(self.levels) / max(self.levels - 1, 1)
        return jnp.asarray(self.hottest, jnp.result_type(float)) ** share

    def begin(self, environment: Environment, key: PRNGKeyArray, num_chains: int) -> Chains:
        """Chains that have not begun, at the ends of uniform trajectories."""
        if num_chains % self.levels:
            raise ValueError(
                f"{num_chains} chains cannot be at {self.levels} levels: give a multiple of it."
            )
        end = sample_forward(uniform_sampler(environment), key, num_chains).terminal
        return Chains(jax.vmap(environment.sample_of)(end), jnp.full(num_chains, -jnp.inf))

    def settle(
        self,
        chains: Chains,
        key: PRNGKeyArray,
        x: Sample,
        log_reward: Float[Array, " B"],
        log_ratio: Float[Array, " B"],
    ) -> Chains:
        """Where the chains are once they know the rewards of the objects proposed to them."""
        accept_key, swap_key = jax.random.split(key)
        temperature = jnp.tile(self.temperatures, log_reward.shape[0] // self.levels)
        unbegun = jnp.isneginf(chains.log_reward)
        gain = jnp.where(unbegun, jnp.inf, (log_reward - chains.log_reward) / temperature)
        chance = jnp.exp(jnp.minimum(gain + log_ratio, 0))
        accept = (log_ratio > -jnp.inf) & (jax.random.uniform(accept_key, chance.shape) < chance)
        moved = Chains(
            jax.tree.map(lambda new, old: choose(accept, new, old), x, chains.x),
            jnp.where(accept, log_reward, chains.log_reward),
        )
        return moved if self.levels == 1 else self._exchange(moved, swap_key)

    def _exchange(self, chains: Chains, key: PRNGKeyArray) -> Chains:
        """Chains of which neighbours have exchanged objects."""
        parity_key, swap_key = jax.random.split(key)
        level = jnp.arange(self.levels)
        log_reward = chains.log_reward.reshape(-1, self.levels)
        coldness = 1 / self.temperatures
        gain = (coldness - jnp.roll(coldness, -1)) * (jnp.roll(log_reward, -1, axis=1) - log_reward)
        first = (level % 2 == jax.random.randint(parity_key, (), 0, 2)) & (level + 1 < self.levels)
        # Of chains that have not begun the gain is no number, and no number is below that.
        below: Bool[Array, "replicas levels"] = jax.random.uniform(
            swap_key, log_reward.shape
        ) < jnp.exp(jnp.minimum(gain, 0))
        swaps = (first & below).astype(jnp.int32)
        other = level + swaps - jnp.roll(swaps, 1, axis=1)
        place = (other + self.levels * jnp.arange(log_reward.shape[0])[:, None]).reshape(-1)
        return jax.tree.map(lambda leaf: leaf[place], chains)


class FromChains(Behaviour):
    """What Markov chains propose: from where each of them is, back along at most `depth` edges by
    P_B, each number as likely, and forth again to another object along edges that are as likely as
    each other. All objects proposed are the batch, whether or not their chains go there; their
    trajectories are drawn anew from P_B. No network is run for it.

    The chains are those of the experiment's `chains`. Once the rewards are known each goes to what
    it has proposed, or stays, by Metropolis–Hastings, so that it leaves R invariant. It begins at
    the first object proposed to it from which there is a way back.
    """

    depth: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        require("depth", self.depth, at_least=1)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The chains."""
        return (Turn("chains"),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Propose a move to each chain, and walk back from where it would lead."""
        if agents.chains is None:
            raise ValueError("FromChains needs chains: give the Experiment chains=ChainsConfig().")
        if agents.chains.log_reward.shape[0] != batch_size:
            raise ValueError(
                "FromChains proposes one object for each chain: it cannot be part of a behaviour "
                "that asks for fewer."
            )
        move_key, walk_key = jax.random.split(key)
        environment = agents.student.environment
        x, log_ratio = _propose(self.depth, environment, agents.chains, move_key)
        return propose_backward(
            agents,
            walk_key,
            x,
            log_reward=jnp.zeros(batch_size),
            weight=jnp.ones(batch_size),
            fresh=True,
            known=False,
            axis_name=axis_name,
            log_ratio=log_ratio,
        )


class ChainRun(eqx.Module):
    """What `run_chains` has done: n steps of B chains.

    `x` and `log_reward` [n, B/levels]: where the chains at temperature 1 are after each step;
    `proposed` [n, B]: all objects whose rewards were asked for, in this order.
    """

    x: Sample
    log_reward: Float[Array, "n cold"]
    proposed: Sample


def run_chains(
    environment: Environment,
    target: Target,
    key: PRNGKeyArray,
    *,
    num_chains: int,
    num_steps: int,
    depth: int = 8,
    config: ChainsConfig | None = None,
) -> ChainRun:
    """Sample a target by Markov chains alone: `num_chains`·`num_steps` rewards.

    **Arguments:** `depth` as in `FromChains`; `config`: its default is plain Metropolis–Hastings.
    """
    config = ChainsConfig() if config is None else config
    start_key, run_key = jax.random.split(key)

    def body(chains: Chains, key: PRNGKeyArray):
        move_key, settle_key = jax.random.split(key)
        x, log_ratio = _propose(depth, environment, chains, move_key)
        log_reward = jax.vmap(target.log_reward)(x)
        chains = config.settle(chains, settle_key, x, log_reward, log_ratio)
        cold = jax.tree.map(lambda leaf: leaf[:: config.levels], chains)
        return chains, (cold.x, cold.log_reward, x)

    keys = jax.random.split(run_key, num_steps)
    _, found = lax.scan(body, config.begin(environment, start_key, num_chains), keys)
    return ChainRun(*found)


def _propose(
    depth: int, environment: Environment, chains: Chains, key: PRNGKeyArray
) -> tuple[Sample, Float[Array, " B"]]:
    return Move(depth, random_depth=True)(uniform_sampler(environment), key, chains.x)
