"""Batches of exact samples of the target."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from .._types import SamplableTarget
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward


class FromSamples(Behaviour):
    """Exact samples of the target, with trajectories from the Student's P_B: for maximum
    likelihood, and to see how well a network could do.
    """

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The target."""
        return (Turn("samples"),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Draw objects and walk back from them."""
        if not isinstance(agents.target, SamplableTarget):
            raise ValueError(
                f"FromSamples needs a target with exact samples, which "
                f"{type(agents.target).__name__} has not."
            )
        draw_key, walk_key = jax.random.split(key)
        x = jax.vmap(agents.target.sample)(jax.random.split(draw_key, batch_size))
        ones = jnp.ones(batch_size)
        return propose_backward(
            agents,
            walk_key,
            x,
            log_reward=jnp.zeros_like(ones),
            weight=ones,
            fresh=True,
            known=False,
            axis_name=axis_name,
        )
