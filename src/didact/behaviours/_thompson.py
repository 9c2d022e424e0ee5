"""Batches of which each trajectory follows one policy of an ensemble."""

import equinox as eqx
import jax
from jaxtyping import Array, Int, PRNGKeyArray

from .._sampler import sample_forward
from .._types import Trajectory
from ..networks import Ensemble
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_forward

_LANE_AXIS = "lane"


class Thompson(Behaviour):
    """Thompson sampling: for each trajectory a policy of the Student's ensemble is drawn, each as
    likely, and followed from its beginning to its end.

    The ensemble stands for what the policy might be, given the trajectories so far; drawing from it
    explores where its members disagree. They do because each learns from its own share of the
    trajectories: the experiment's `bootstrap`.

    Source: Rector-Brooks et al., "Thompson sampling for improved exploration in GFlowNets" (2023).
    Known divergence: whether a member learns from a trajectory is drawn anew when it is replayed.
    """

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The Student's policies."""
        return (Turn("student"),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Draw policies and roll each of them out."""
        student = agents.student
        policy = student.policy
        if not isinstance(policy, Ensemble):
            raise ValueError(
                "Thompson draws among the policies of an ensemble, which a "
                f"{type(policy).__name__} is not: give the Experiment a BootstrappedConfig."
            )
        draw_key, walk_key = jax.random.split(key)
        chosen = jax.random.randint(draw_key, (batch_size,), 0, policy.num_members)
        axes = (_LANE_AXIS,) if axis_name is None else (axis_name, _LANE_AXIS)

        def walk(index: Int[Array, ""], key: PRNGKeyArray) -> Trajectory:
            alone = eqx.tree_at(lambda s: s.policy, student, policy.member(index))
            trajectory = sample_forward(alone, key, 1, axis_name=axes)
            return jax.tree.map(lambda leaf: leaf[0], trajectory)

        keys = jax.random.split(walk_key, batch_size)
        trajectory = jax.vmap(walk, axis_name=_LANE_AXIS)(chosen, keys)
        return propose_forward(agents, trajectory, by_student=True)
