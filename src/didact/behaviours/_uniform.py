"""Batches drawn without a network."""

import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from .._sampler import Sampler, sample_forward
from .._types import Environment
from ..networks import UniformConfig
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_forward


class FromUniform(Behaviour):
    """Trajectories on which every edge that is allowed is as likely as any other: what exploration
    finds that has learned nothing. No network is run to draw them.
    """

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The uniform policy."""
        return (Turn("uniform"),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Roll out the uniform policy."""
        sampler = uniform_sampler(agents.student.environment)
        trajectory = sample_forward(sampler, key, batch_size, axis_name=axis_name)
        return propose_forward(agents, trajectory, by_student=False)


def uniform_sampler(environment: Environment) -> Sampler:
    """A sampler that takes each edge out of a state as likely as any other."""
    policy = UniformConfig().build_for(environment)
    return Sampler(environment, policy, jnp.zeros(()))
