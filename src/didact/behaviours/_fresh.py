"""Batches drawn forward, by the Student or by the Teacher."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._sampler import Sampler, sample_forward
from .._types import Kernel, Trajectory
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_forward


class OnPolicy(Behaviour):
    """The Student's own trajectories, with exploration.

    **Arguments:** `epsilon` in [0, 1]: share of uniformly drawn actions, or of the variance where
    steps are Gaussian; `temperature` > 0: above 1 flattens the policy; `anneal_steps`: epsilon
    falls linearly to 0 over so many gradient steps (None: it stays). None of them enters the
    score of the trajectories.

    Source: Malkin et al., "Trajectory balance: improved credit assignment in GFlowNets", NeurIPS
    2022.
    """

    epsilon: Float[Array, ""] | float | None = None
    temperature: Float[Array, ""] | float | None = None
    anneal_steps: Int[Array, ""] | int | None = None

    def __check_init__(self):
        _check(self)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The Student."""
        explores = self.epsilon is not None or self.temperature is not None
        return (Turn("student", on_policy=not explores),)

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
        trajectory = _roll_out(agents.student, self, key, step, batch_size, axis_name)
        return propose_forward(agents, trajectory, by_student=True)


class FromTeacher(Behaviour):
    """The Teacher's trajectories, with exploration as in `OnPolicy`.

    Source: Kim et al., "Adaptive teachers for amortized samplers", ICLR 2025, Algorithm 1.
    """

    epsilon: Float[Array, ""] | float | None = None
    temperature: Float[Array, ""] | float | None = None
    anneal_steps: Int[Array, ""] | int | None = None

    def __check_init__(self):
        _check(self)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The Teacher."""
        return (Turn("teacher"),)

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
        trajectory = _roll_out(agents.teacher, self, key, step, batch_size, axis_name)
        return propose_forward(agents, trajectory, by_student=False)


def _roll_out(
    sampler: Sampler,
    exploration: OnPolicy | FromTeacher,
    key: PRNGKeyArray,
    step: Int[Array, ""],
    batch_size: int,
    axis_name: str | None,
) -> Trajectory:
    epsilon = exploration.epsilon
    if epsilon is not None and exploration.anneal_steps is not None:
        epsilon = epsilon * jnp.maximum(1 - step / exploration.anneal_steps, 0)

    def adjust(kernel: Kernel) -> Kernel:
        if exploration.temperature is not None:
            kernel = kernel.temper(exploration.temperature)
        return kernel if epsilon is None else kernel.explore(epsilon)

    return sample_forward(sampler, key, batch_size, adjust=adjust, axis_name=axis_name)


def _check(exploration: OnPolicy | FromTeacher) -> None:
    require("epsilon", exploration.epsilon, at_least=0, at_most=1)
    require("temperature", exploration.temperature, above=0)
    require("anneal_steps", exploration.anneal_steps, at_least=1)
    if exploration.anneal_steps is not None and exploration.epsilon is None:
        raise ValueError("anneal_steps is for epsilon: give an epsilon to begin with.")
