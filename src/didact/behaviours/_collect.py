"""Batches that fill the buffer before they are learned from."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from ._behaviour import Agents, Behaviour, Proposal, Turn, require_single


class Collect(Behaviour):
    """Puts the objects of another behaviour into the buffer; the gradient step of this turn
    learns from a batch of the buffer, the new objects among it.

    The published diffusion experiments treat the Teacher's objects so.
    """

    inner: Behaviour

    def __check_init__(self):
        if len(self.inner.turns) == 1 and self.inner.turns[0].reward_calls == 0:
            raise ValueError("Collect would collect what the buffer holds: use FromReplay().")
        require_single("Collect", self.inner, "put it inside a Cycle instead")

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Who makes the objects that are collected."""
        return (self.inner.turns[0]._replace(on_policy=False, collects=True),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """The inner behaviour's proposal, marked."""
        if agents.replay is None:
            raise ValueError("Collect needs a buffer: give the Experiment a replay.")
        proposal = self.inner(agents, key, step, batch_size, axis_name=axis_name)
        return dataclasses.replace(proposal, collect=jnp.asarray(True))
