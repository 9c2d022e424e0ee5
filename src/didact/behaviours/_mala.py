"""Batches improved by the Metropolis-adjusted Langevin algorithm."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._types import Sample, Target
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward, require_single


class MALA(Behaviour):
    r"""Local search: the objects of another behaviour, each moved by a chain of Langevin steps
    (Roberts and Tweedie, 1996), with trajectories drawn anew from P_B.

    $$x' = x + \tfrac{h}{2}\nabla\log R(x) + \sqrt{h}\,\xi,$$

    accepted by Metropolis–Hastings, so that the chains leave R invariant. The chains of a batch
    run in parallel; for `burn_in` steps h follows the mean acceptance, towards `acceptance`.

    **Arguments:** `inner`: a single behaviour; `num_steps`, `burn_in` < num_steps;
    `step_size`: the first h, in squared units of x; `acceptance` in (0, 1), 0.574 being optimal
    in high dimensions. Objects must be real vectors, log R differentiable.
    """

    inner: Behaviour
    num_steps: int = eqx.field(static=True, default=200)
    burn_in: int = eqx.field(static=True, default=100)
    step_size: float = 0.01
    acceptance: float = 0.574

    def __check_init__(self):
        require_single("MALA", self.inner, "put it inside Collect or a Cycle")
        require("num_steps", self.num_steps, at_least=1)
        require("burn_in", self.burn_in, at_least=0)
        require("step_size", self.step_size, above=0)
        if self.burn_in >= self.num_steps:
            raise ValueError(
                f"burn_in must be below num_steps, got {self.burn_in} and {self.num_steps}."
            )
        if isinstance(self.acceptance, float) and not 0 < self.acceptance < 1:
            raise ValueError(f"acceptance must lie in (0, 1), got {self.acceptance}.")

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The inner behaviour's, with one evaluation to begin, one a step, one of the result."""
        turn = self.inner.turns[0]
        calls = turn.reward_calls + self.num_steps + 2
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
        """Move the inner behaviour's objects and walk back from them."""
        inner_key, chain_key, walk_key = jax.random.split(key, 3)
        proposal = self.inner(agents, inner_key, step, batch_size, axis_name=axis_name)
        x = jax.vmap(agents.student.environment.sample_of)(proposal.trajectory.terminal)
        x, _ = run_mala(
            agents.target,
            chain_key,
            x,
            num_steps=self.num_steps,
            burn_in=self.burn_in,
            step_size=self.step_size,
            acceptance=self.acceptance,
        )
        return propose_backward(
            agents,
            walk_key,
            x,
            log_reward=jnp.zeros(batch_size),
            weight=proposal.weight,
            fresh=True,
            known=False,
            axis_name=axis_name,
        )


def run_mala(
    target: Target,
    key: PRNGKeyArray,
    x: Sample,
    *,
    num_steps: int,
    burn_in: int,
    step_size: Float[Array, ""] | float,
    acceptance: Float[Array, ""] | float,
) -> tuple[Float[Array, "B dim"], Float[Array, ""]]:
    """Run one chain from each x [B, dim].

    **Returns:** where the chains end, and the step size that was found.
    """
    value_and_grad = jax.vmap(jax.value_and_grad(target.log_reward))

    def log_proposal(here, gradient, there, h):
        return -jnp.sum(jnp.square(there - here - 0.5 * h * gradient), axis=-1) / (2 * h)

    def body(carry, inputs):
        x, value, gradient, log_h = carry
        number, key = inputs
        h = jnp.exp(log_h)
        move_key, accept_key = jax.random.split(key)
        proposed = x + 0.5 * h * gradient + jnp.sqrt(h) * jax.random.normal(move_key, x.shape)
        new_value, new_gradient = value_and_grad(proposed)
        log_ratio = new_value - value
        log_ratio += log_proposal(proposed, new_gradient, x, h)
        log_ratio -= log_proposal(x, gradient, proposed, h)
        # A chain never moves to where log R or its gradient is not finite.
        chance = jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=-jnp.inf), 0))
        finite = jnp.isfinite(new_value) & jnp.all(jnp.isfinite(new_gradient), axis=-1)
        chance = jnp.where(finite, chance, 0)
        accept = jax.random.uniform(accept_key, chance.shape) < chance
        x, gradient = (
            jnp.where(accept[:, None], new, old)
            for new, old in ((proposed, x), (new_gradient, gradient))
        )
        value = jnp.where(accept, new_value, value)
        rate = jnp.where(number < burn_in, 2 / jnp.sqrt(1 + number), 0)
        log_h = log_h + rate * (jnp.mean(chance) - acceptance)
        return (x, value, gradient, log_h), None

    start = (x, *value_and_grad(x), jnp.log(jnp.asarray(step_size, x.dtype)))
    numbers = jnp.arange(num_steps)
    (x, _, _, log_h), _ = lax.scan(body, start, (numbers, jax.random.split(key, num_steps)))
    return x, jnp.exp(log_h)
