"""What a behaviour is: where the next batch of trajectories comes from."""

import abc
from typing import Literal

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._sampler import Sampler
from .._types import Trajectory
from ..replay import Replay


class Agents(eqx.Module):
    """Whom a behaviour may ask: the Student, and where there are, a Teacher and a buffer, with
    the `rank_offset` of `didact.replay.sample` (None: drawn uniformly).
    """

    student: Sampler
    teacher: Sampler | None
    replay: Replay | None
    rank_offset: Float[Array, ""] | float | None = None


class Proposal(eqx.Module):
    """A batch of trajectories to learn from.

    `fresh`: its objects are new, so their reward must be asked for; otherwise `log_reward`
    holds what the buffer remembers. `by_student`: drawn by the Student's own policy.
    `weight` 0 leaves a trajectory out.
    """

    trajectory: Trajectory  # leading axis [B]
    log_reward: Float[Array, " B"]
    weight: Float[Array, " B"]
    fresh: Bool[Array, ""]
    by_student: Bool[Array, ""]


Source = Literal["student", "teacher", "replay"]


class Behaviour(eqx.Module):
    """Where the next batch of trajectories comes from."""

    @property
    @abc.abstractmethod
    def pattern(self) -> tuple[Source, ...]:
        """Who makes the batch at each step of the repeating schedule."""

    @abc.abstractmethod
    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Propose a batch. `step` must not be batched by the `vmap` named `axis_name`."""
