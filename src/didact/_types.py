"""The abstract nouns of didact and the records that pass between them.

Every noun is an `equinox.Module` written for one example; the two places where a
batch is unavoidable (an objective that reduces over it, a behaviour that proposes
it) say so in their shapes: `B` trajectories, `T` steps at most.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

State = PyTree
Features = PyTree
Action = PyTree
Sample = PyTree
Noise = PyTree
Identity: Callable[[Any], Any] = lambda value: value  # noqa: E731  (a named identity reads best)

SCORE_FLOOR = -1e9
"""Logit of a masked action: exp() of it is exactly 0 and its gradient is finite."""


class Kernel(eqx.Module):
    """A distribution over the edges at one state.

    Sampling is split in two so that a whole rollout draws its randomness at once:
    `noise` draws variates whose law does not depend on the parameters, `from_noise`
    maps one of them to an edge (for a continuous kernel, differentiably).
    """

    @abc.abstractmethod
    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Noise:
        """Draw `shape` independent variates that `from_noise` accepts."""

    @abc.abstractmethod
    def from_noise(self, noise: Noise) -> Action:
        """Map one variate to an edge distributed by this kernel."""

    @abc.abstractmethod
    def log_prob(self, action: Action) -> Float[Array, ""]:
        """Log-probability (or density, in nats) of an edge: -inf where a density is 0."""

    @abc.abstractmethod
    def explore(self, amount: Float[Array, ""] | float) -> "Kernel":
        """Mix with the kernel's own notion of uninformed noise, in proportion `amount`. Where edges
        are integers it is a mixture of distributions: (1 - amount) of this one, and `amount` of
        that which amount = 1 gives. A density may be widened in another way.
        """

    @abc.abstractmethod
    def temper(self, temperature: Float[Array, ""] | float) -> "Kernel":
        """Raise the distribution to the power 1/temperature."""

    def sample(self, key: PRNGKeyArray) -> Action:
        """Draw one edge."""
        return self.from_noise(self.noise(key))


class PathwiseKernel(Kernel):
    """A kernel whose edges are differentiable in its parameters at fixed noise."""

    @abc.abstractmethod
    def to_noise(self, action: Action) -> Noise:
        """The variate that `from_noise` maps to this edge."""


class PolicyOutput(eqx.Module):
    """What a policy network says about one state.

    `forward` and `backward` parameterise P_F and P_B (`backward` is None where P_B is
    fixed); `log_flow` is log F(s), None where no objective needs it.
    """

    forward: Float[Array, " forward"]
    backward: Float[Array, " backward"] | None
    log_flow: Float[Array, ""] | None


class Environment(eqx.Module):
    """States and the edges between them; knows neither rewards nor networks.

    Sizes decide shapes, so they are properties or static fields.

    An action *is* an edge: `backward_step(step(s, a), a) == s`. A state that is
    terminal has no edge out of it, the initial state none into it: P_F of the one and P_B of the
    other are never used, whatever they say.
    """

    num_steps: eqx.AbstractVar[int]
    """Longest trajectory, in edges."""
    fewest_steps: eqx.AbstractVar[int]
    """Shortest trajectory, in edges."""
    feature_size: eqx.AbstractVar[int]
    """Size of a real feature vector, or of the vocabulary of integer features."""
    forward_size: eqx.AbstractVar[int]
    """Number of parameters of `forward_kernel`."""
    backward_size: eqx.AbstractVar[int]
    """Number of parameters of a learned `backward_kernel`."""

    @abc.abstractmethod
    def initial_state(self) -> State:
        """The source s0."""

    @abc.abstractmethod
    def terminal_state(self, x: Sample) -> State:
        """The terminal state that stands for the object x."""

    @abc.abstractmethod
    def sample_of(self, state: State) -> Sample:
        """The object that a terminal state stands for: the inverse of `terminal_state`."""

    @abc.abstractmethod
    def is_initial(self, state: State) -> Bool[Array, ""]:
        """Whether no edge leads into the state."""

    @abc.abstractmethod
    def is_terminal(self, state: State) -> Bool[Array, ""]:
        """Whether no edge leads out of the state."""

    @abc.abstractmethod
    def step(self, state: State, action: Action) -> State:
        """Follow an edge forwards. Undefined on a terminal state."""

    @abc.abstractmethod
    def backward_step(self, state: State, action: Action) -> State:
        """Follow an edge backwards. Undefined on the initial state."""

    @abc.abstractmethod
    def features(self, state: State) -> Features:
        """What a network sees: a real vector, integers below `feature_size` that are looked up
        and summed (a multi-hot vector given by its indices), or a record that a network made
        for this environment knows.
        """

    @abc.abstractmethod
    def log_reference(self, state: State) -> Float[Array, ""]:
        """What a learned log F(s) is measured from: 0, or the log-density of the state under a
        reference process, which varies over many orders of magnitude where states are continuous.
        """

    @abc.abstractmethod
    def forward_kernel(self, state: State, params: Float[Array, " forward"]) -> Kernel:
        """P_F(. | state)."""

    @abc.abstractmethod
    def backward_kernel(self, state: State, params: Float[Array, " backward"] | None) -> Kernel:
        """P_B(. | state); the environment's fixed one where `params` is None."""


class EnumerableEnvironment(Environment):
    """A discrete environment whose states can be numbered, for exact evaluation.

    Indices 0 … `num_internal`-1 are the states with edges out of them, the next
    `num_terminal_states` the terminal ones; actions are the integers below `num_actions`.
    """

    num_internal: eqx.AbstractVar[int]
    num_terminal_states: eqx.AbstractVar[int]
    num_actions: eqx.AbstractVar[int]

    @abc.abstractmethod
    def state_at(self, index: Int[Array, ""]) -> State:
        """The state with this number."""

    @abc.abstractmethod
    def index_of(self, state: State) -> Int[Array, ""]:
        """The number of a state: the inverse of `state_at`."""

    @abc.abstractmethod
    def depth(self, state: State) -> Int[Array, ""]:
        """Number of edges from the initial state; every path to a state has as many."""


class SiteEnvironment(Environment):
    """An environment whose objects are made of sites, the numbers that x consists of: each can take
    another value while the others stay.
    """

    @abc.abstractmethod
    def mutate(self, key: PRNGKeyArray, x: Sample) -> Sample:
        """The object with one site drawn anew: each site is as likely, and each other value with
        which it is an object. Where there is none, x itself. The way back is as likely.
        """


class Target(eqx.Module):
    """An unnormalised density R(x), and what is known exactly about it.

    Facts that are not known are None: they switch off what would be computed from them. They
    are properties or static fields. A target on real vectors also has `dim`, their length.
    """

    log_z: eqx.AbstractVar[float | None]
    """Logarithm of the sum or integral of R, in nats."""
    num_modes: eqx.AbstractVar[int | None]
    """Number of modes, where the target has a definition of them."""

    @abc.abstractmethod
    def log_reward(self, x: Sample) -> Float[Array, ""]:
        """log R(x), in nats."""

    @abc.abstractmethod
    def mode_index(self, x: Sample) -> Int[Array, ""]:
        """Number of the mode that x belongs to, below `num_modes`; -1 for none."""


class SamplableTarget(Target):
    """A target of which exact samples can be drawn."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray) -> Sample:
        """One exact sample: x with density R(x)/Z."""


class ModalTarget(Target):
    """A target whose modes are single objects, which can be listed."""

    @abc.abstractmethod
    def mode_samples(self) -> Sample:
        """The objects that are modes, in the order of their numbers: leading axis [num_modes]."""


class Trajectory(eqx.Module):
    """A path from the initial state to a terminal one, padded to a fixed length.

    Forward rollouts pad at the end (the terminal state repeats), backward rollouts at the
    front (the initial state repeats): `states[0]` is always initial, `states[-1]` always
    terminal. `mask[t]` says that the edge `actions[t]`, from `states[t]` to `states[t+1]`,
    is real. A batch has a leading axis [B] on every leaf.
    """

    states: State  # [T+1, ...]
    actions: Action  # [T, ...]
    mask: Bool[Array, "*batch T"]

    @property
    def terminal(self) -> State:
        """The last state of each trajectory."""
        axis = self.mask.ndim - 1
        return jax.tree.map(lambda leaf: leaf.take(-1, axis=axis), self.states)


def last_edges(mask: Bool[Array, "*batch T"]) -> Bool[Array, "*batch T"]:
    """The real edge of each trajectory that no real one follows."""
    count = jnp.cumsum(mask, axis=-1)
    return mask & (count == count[..., -1:])


class Scored(eqx.Module):
    """A batch of trajectories as an objective sees it."""

    log_pf: Float[Array, "B T"]
    log_pb: Float[Array, "B T"]
    log_flow: Float[Array, "B T+1"] | None
    """log F of every state; log R at terminal states."""
    log_z: Float[Array, ""]
    log_reward: Float[Array, " B"]
    mask: Bool[Array, "B T"]
    weight: Float[Array, " B"]
    """Of each trajectory in the mean loss, which training takes; 0 leaves it out. An objective
    needs it for means of its own alone."""
    novelty: Float[Array, "B T"] | None = None
    """How new the state is that each edge leads to; None where nothing measures it."""


class ObjectiveOutput(eqx.Module):
    """Loss and residuals of each trajectory of a batch.

    `residual` is delta = log R + log P_B - log Z - log P_F (detached), whatever the
    objective: positive where the sampler draws the trajectory too rarely.
    `step_residual` holds the residual of each edge where the objective has one, `log_weight` is
    log R + log P_B - log P_F (detached): its exponential has mean Z over the sampler's own
    trajectories. `novelty` is that of `Scored`, for a Teacher's reward: the training loop sets it.
    """

    loss: Float[Array, " B"]
    residual: Float[Array, " B"]
    step_residual: Float[Array, "B T"] | None
    log_weight: Float[Array, " B"]
    novelty: Float[Array, "B T"] | None = None


class Objective(eqx.Module):
    """A scored batch in, a loss and a detached residual per trajectory out."""

    needs_flow: eqx.AbstractClassVar[bool]
    """Whether the policy needs a head for log F(s)."""
    learns_log_z: eqx.AbstractClassVar[bool]
    """Whether the sampler's scalar `log_z` is trained by this objective."""
    pathwise: eqx.AbstractClassVar[bool]
    """Whether gradients must flow through the Student's own trajectories and log R. Such an
    objective has a static field `path_only`: whether the score's own gradient is left out.
    """
    needs_novelty: ClassVar[bool] = False
    """Whether it asks how new states are (`Scored.novelty`)."""

    @abc.abstractmethod
    def __call__(self, scored: Scored) -> ObjectiveOutput:
        """Evaluate the objective on a batch."""


class Regression(eqx.Module):
    """The function that an objective applies to its residual: non-negative, 0 only at 0."""

    @abc.abstractmethod
    def __call__(self, residual: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """Loss of each residual."""


class TeacherReward(eqx.Module):
    """The Student's residuals and log R in, the log of the Teacher's reward out.

    The Teacher is whatever second sampler a method has: its reward is what tells it from others.
    """

    needs_novelty: ClassVar[bool] = False
    """Whether it asks how new states are (`ObjectiveOutput.novelty`)."""
    title: ClassVar[str] = "an adaptive Teacher"
    """What the second sampler is called where a run describes itself."""

    @abc.abstractmethod
    def __call__(
        self,
        output: ObjectiveOutput,
        log_reward: Float[Array, " B"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]:
        """log R_T of each trajectory."""
