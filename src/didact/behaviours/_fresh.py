"""Batches drawn forward, by the Student or by the Teacher."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._sampler import Sampler, sample_forward
from .._types import Kernel
from ._behaviour import Agents, Behaviour, Proposal, Source


class OnPolicy(Behaviour):
    """The Student's own trajectories, with exploration.

    **Arguments:** `epsilon` in [0, 1]: share of uniformly drawn actions; `temperature` > 0:
    above 1 flattens the policy. Neither enters the score of the trajectories.
    """

    epsilon: Float[Array, ""] | float | None = None
    temperature: Float[Array, ""] | float | None = None

    def __check_init__(self):
        _check(self)

    @property
    def pattern(self) -> tuple[Source, ...]:
        """The Student."""
        return ("student",)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Roll out the Student."""
        return _roll_out(agents.student, self, key, batch_size, axis_name, by_student=True)


class FromTeacher(Behaviour):
    """The Teacher's trajectories, with exploration as in `OnPolicy`."""

    epsilon: Float[Array, ""] | float | None = None
    temperature: Float[Array, ""] | float | None = None

    def __check_init__(self):
        _check(self)

    @property
    def pattern(self) -> tuple[Source, ...]:
        """The Teacher."""
        return ("teacher",)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Roll out the Teacher."""
        if agents.teacher is None:
            raise ValueError("FromTeacher needs a Teacher: give the Experiment a teacher_reward.")
        return _roll_out(agents.teacher, self, key, batch_size, axis_name, by_student=False)


def _roll_out(
    sampler: Sampler,
    exploration: OnPolicy | FromTeacher,
    key: PRNGKeyArray,
    batch_size: int,
    axis_name: str | None,
    *,
    by_student: bool,
) -> Proposal:
    def adjust(kernel: Kernel) -> Kernel:
        if exploration.temperature is not None:
            kernel = kernel.temper(exploration.temperature)
        if exploration.epsilon is not None:
            kernel = kernel.explore(exploration.epsilon)
        return kernel

    return Proposal(
        trajectory=sample_forward(sampler, key, batch_size, adjust=adjust, axis_name=axis_name),
        log_reward=jnp.zeros(batch_size),
        weight=jnp.ones(batch_size),
        fresh=jnp.asarray(True),
        by_student=jnp.asarray(by_student),
    )


def _check(exploration: OnPolicy | FromTeacher) -> None:
    require("epsilon", exploration.epsilon, at_least=0, at_most=1)
    require("temperature", exploration.temperature, above=0)
