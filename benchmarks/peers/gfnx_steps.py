"""gfnx's training steps, for `compare.py`.

The wheel has no trainer. This loop uses its environments, `forward_rollout` and
`forward_trajectory_log_probs`, an Equinox MLP and Optax, and is as fast as we could make it: chunks
of steps are one compiled scan whose state is donated, states are drawn without gradients and all
scored in one network call, and P_B is uniform without a network.
"""

from typing import Any

import equinox as eqx
import gfnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _serve import Train, serve
from gfnx.base import BaseRewardModule
from gfnx.environment.sequence import (
    AutoregressiveSequenceEnvironment,
    FixedAutoregressiveSequenceEnvironment,
    FixedPrependAppendSequenceEnvironment,
)
from gfnx.utils import forward_rollout
from gfnx.utils.rollout import forward_trajectory_log_probs


class DeceptiveReward(BaseRewardModule):
    """The paper's reward on the grid, which the wheel lacks."""

    def init(self, rng_key, dummy_state):
        """No parameters."""
        return

    def log_reward(self, state, env_params):
        """log R, R0 = 1e-5, R1 = 0.1, R2 = 2."""
        far = jnp.abs(state.state / (env_params.side - 1) - 0.5)
        outside = jnp.prod(far > 0.25, axis=-1)
        band = jnp.prod((far > 0.3) & (far < 0.4), axis=-1)
        return jnp.log(1e-5 + 0.1 * (1 - outside) + 2.0 * band)

    def reward(self, state, env_params):
        """R."""
        return jnp.exp(self.log_reward(state, env_params))


class TableReward(BaseRewardModule):
    """log R from a table of all strings."""

    def __init__(self, table: np.ndarray, symbols: int, length: int):
        self._table, self._place = jnp.asarray(table), symbols ** np.arange(length)[::-1]

    def init(self, rng_key, dummy_state):
        """The table."""
        return self._table

    def log_reward(self, state, env_params):
        """log R; whatever for strings that are not finished."""
        number = jnp.sum(state.tokens * self._place, axis=-1)
        return env_params.reward_params.at[number].get(mode="clip")

    def reward(self, state, env_params):
        """R."""
        return jnp.exp(self.log_reward(state, env_params))


class Policy(eqx.Module):
    """The same network as the other libraries': two hidden layers on a one-hot code."""

    layers: list[eqx.nn.Linear]
    tokens: int | None = eqx.field(static=True)

    def __init__(self, inputs: int, width: int, outputs: int, tokens: int | None, key):
        keys = jax.random.split(key, 3)
        sizes = ((inputs, width), (width, width), (width, outputs))
        self.layers = [eqx.nn.Linear(n, m, key=k) for (n, m), k in zip(sizes, keys, strict=True)]
        self.tokens = tokens

    def __call__(self, observation):
        """Logits of one observation."""
        if self.tokens is not None:
            observation = jax.nn.one_hot(observation, self.tokens).reshape(-1)
        hidden = jax.nn.leaky_relu(self.layers[0](observation))
        return self.layers[2](jax.nn.leaky_relu(self.layers[1](hidden)))


def build(task: dict[str, Any]) -> Train:
    """Training of a task, a chunk of steps in one program."""
    env, inputs, tokens = _environment(task)
    params = env.init(jax.random.key(0))
    network = Policy(
        inputs, task["width"], env.action_space.n, tokens, jax.random.key(task["batch_size"])
    )
    weights, static = eqx.partition(network, eqx.is_array)
    model = {"network": weights, "log_z": jnp.zeros(())}
    rates = {"network": optax.adam(task["rate"]), "log_z": optax.adam(task["log_z_rate"])}
    optimiser = optax.chain(
        optax.clip_by_global_norm(task["max_norm"]),
        optax.transforms.partition(rates, {"network": "network", "log_z": "log_z"}),
    )
    actions_back = env.backward_action_space.n

    def logits(weights, observations):
        return jax.vmap(eqx.combine(weights, static))(observations)

    def policy(key, observations, weights):
        return logits(weights, observations), {}

    def loss_fn(model, trajectories, log_reward):
        flat = trajectories.obs.reshape(-1, trajectories.obs.shape[-1])
        forward = logits(model["network"], flat).reshape(*trajectories.pad.shape, -1)
        backward = jnp.zeros((*trajectories.pad.shape, actions_back))
        scored = trajectories.replace(info={"forward_logits": forward, "backward_logits": backward})
        log_pf, log_pb = forward_trajectory_log_probs(env, scored, params)
        return jnp.mean((model["log_z"] + log_pf - log_pb - log_reward) ** 2)

    def step(carry, key):
        model, state = carry
        trajectories, facts = forward_rollout(
            key, task["batch_size"], policy, model["network"], env, params
        )
        grads = jax.grad(loss_fn)(model, trajectories, facts["log_gfn_reward"])
        updates, state = optimiser.update(grads, state, model)
        return (optax.apply_updates(model, updates), state), jnp.sum(facts["trajectory_length"])

    @jax.jit
    def keys(key):
        following, own = jax.random.split(key)
        return following, jax.random.split(own, task["chunk"])

    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys), donate_argnums=0)
    carry, key = (model, optimiser.init(model)), jax.random.key(1)

    def train(steps: int) -> float:
        nonlocal carry, key
        total = 0.0
        for _ in range(steps // task["chunk"]):
            key, own = keys(key)
            carry, transitions = run(carry, own)
            total += float(jnp.sum(transitions))
        return total / steps

    return train


def _environment(task: dict[str, Any]) -> tuple[Any, int, int | None]:
    """The environment, and of the network the number of inputs and of tokens."""
    if task["kind"] == "grid":
        env = gfnx.HypergridEnvironment(DeceptiveReward(), dim=task["dim"], side=task["side"])
        return env, task["dim"] * task["side"], None
    symbols, length = task["symbols"], task["length"]
    both = task["both_ends"]
    kind = FixedPrependAppendSequenceEnvironment if both else FixedAutoregressiveSequenceEnvironment
    assert not issubclass(AutoregressiveSequenceEnvironment, kind)
    env = kind(
        TableReward(np.load(task["log_rewards"]), symbols, length),
        max_length=length,
        nchar=symbols,
        ntoken=symbols + 3,
        bos_token=symbols,
        eos_token=symbols + 1,
        pad_token=symbols + 2,
    )
    return env, (length + 1) * (symbols + 3), symbols + 3


if __name__ == "__main__":
    serve(build, ("gfnx", "jax", "equinox"))
