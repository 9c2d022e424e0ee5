"""What a behaviour is: where the next batch of trajectories comes from."""

import abc
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._sampler import Sampler, sample_backward
from .._types import Sample, Target, Trajectory
from ..replay import Draw, Replay, UniformDraw


class Chains(eqx.Module):
    """Where Markov chains over objects have come to.

    `log_reward` is -inf where a chain has not begun: it takes whatever it is offered.
    """

    x: Sample  # leading axis [B]
    log_reward: Float[Array, " B"]


class Agents(eqx.Module):
    """Whom a behaviour may ask: the target, the Student, and where there are, a Teacher, a buffer,
    with the rule by which its objects are drawn, and Markov chains.
    """

    target: Target
    student: Sampler
    teacher: Sampler | None
    replay: Replay | None
    draw: Draw = UniformDraw()
    chains: Chains | None = None


class Proposal(eqx.Module):
    """A batch of trajectories to learn from.

    `fresh`: its objects are new, not drawn from the buffer. `known`: `log_reward` holds their
    reward, which otherwise must be asked for. `by_student`: drawn by the Student's own policy.
    `weight` 0 leaves a trajectory out: where another behaviour's batches are larger, copies of the
    first that make this one as large. `collect`: its objects are put into the buffer, and what
    is learned from is a batch of the buffer. `log_ratio`: where chains may move to these objects,
    the log-probability of the way back minus that of the way there; -inf where they may not, None
    where there are no chains.
    """

    trajectory: Trajectory  # leading axis [B]
    log_reward: Float[Array, " B"]
    weight: Float[Array, " B"]
    fresh: Bool[Array, ""]
    known: Bool[Array, ""]
    by_student: Bool[Array, ""]
    collect: Bool[Array, ""]
    log_ratio: Float[Array, " B"] | None


Source = Literal["student", "teacher", "replay", "samples", "search", "uniform", "chains"]


class Turn(NamedTuple):
    """One step of a behaviour's schedule.

    `source`: who makes the batch; `reward_calls`: evaluations of log R, or of its gradient, for
    each of its objects; `on_policy`: whether it has the law of the Student's own trajectories;
    `collects`: whether it is to be collected into the buffer; `batches`: so many times the objects
    of a batch, which a turn of the buffer may have; `from_buffer`: whether its objects are drawn
    from the buffer, or come of such ones.
    """

    source: Source
    reward_calls: int = 1
    on_policy: bool = False
    collects: bool = False
    batches: int = 1
    from_buffer: bool = False

    @property
    def needs_buffer(self) -> bool:
        """Whether there is nothing to propose while the buffer is empty."""
        return self.from_buffer or self.source == "replay"


class Behaviour(eqx.Module):
    """Where the next batch of trajectories comes from."""

    @property
    @abc.abstractmethod
    def turns(self) -> tuple[Turn, ...]:
        """The repeating schedule, step by step."""

    @property
    def pattern(self) -> tuple[Source, ...]:
        """Who makes the batch at each step of the schedule."""
        return tuple(turn.source for turn in self.turns)

    @property
    def most_batches(self) -> int:
        """Batches of the largest turn: each proposal has so many times the trajectories of one."""
        return max(turn.batches for turn in self.turns)

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
        """Propose a batch for the gradient step of this number. `step` must not be batched by the
        `vmap` named `axis_name`.
        """


def at_rest(agents: Agents, batch_size: int) -> Float[Array, " B"] | None:
    """The `log_ratio` of a batch to which no chain may move."""
    return None if agents.chains is None else jnp.full(batch_size, -jnp.inf)


def require_single(name: str, inner: Behaviour, instead: str) -> None:
    """`ValueError` unless a behaviour makes a single batch, in the same way at every step."""
    if len(inner.turns) != 1 or inner.turns[0].collects:
        raise ValueError(f"{name} takes a single behaviour: {instead}.")
    if inner.most_batches != 1:
        raise ValueError(
            f"{name} takes a behaviour of one batch, got one of {inner.most_batches}: let its "
            "batches be 1."
        )


def widened(proposal: Proposal, size: int) -> Proposal:
    """A proposal of `size` trajectories: those after its own are copies of the first, of weight 0.

    So behaviours of different `batches` can take turns. Where states are made of integers a network
    computes equal ones once, so that copies cost little.
    """
    own = proposal.weight.shape[0]
    if own == size:
        return proposal
    wide = jax.tree.map(lambda leaf: with_copies(leaf, size) if leaf.ndim else leaf, proposal)
    return eqx.tree_at(lambda p: p.weight, wide, wide.weight.at[own:].set(0))


def with_copies(leaf: Array, size: int) -> Array:
    """An array of `size` rows: those after its own are copies of the first."""
    copies = jnp.broadcast_to(leaf[:1], (size - leaf.shape[0], *leaf.shape[1:]))
    return jnp.concatenate([leaf, copies])


def propose_forward(agents: Agents, trajectory: Trajectory, *, by_student: bool) -> Proposal:
    """A proposal of new trajectories, whose rewards must be asked for."""
    batch_size = trajectory.mask.shape[0]
    return Proposal(
        trajectory=trajectory,
        log_reward=jnp.zeros(batch_size),
        weight=jnp.ones(batch_size),
        fresh=jnp.asarray(True),
        known=jnp.asarray(False),
        by_student=jnp.asarray(by_student),
        collect=jnp.asarray(False),
        log_ratio=at_rest(agents, batch_size),
    )


def propose_backward(
    agents: Agents,
    key: PRNGKeyArray,
    x: Sample,
    *,
    log_reward: Float[Array, " B"],
    weight: Float[Array, " B"],
    fresh: bool,
    known: bool,
    axis_name: str | None,
    log_ratio: Float[Array, " B"] | None = None,
) -> Proposal:
    """A proposal of given objects, with trajectories from the Student's P_B."""
    if log_ratio is None:
        log_ratio = at_rest(agents, log_reward.shape[0])
    return Proposal(
        trajectory=sample_backward(agents.student, key, x, axis_name=axis_name),
        log_reward=log_reward,
        weight=weight,
        fresh=jnp.asarray(fresh),
        known=jnp.asarray(known),
        by_student=jnp.asarray(False),
        collect=jnp.asarray(False),
        log_ratio=log_ratio,
    )
