"""An experiment: the composed object that says everything about a training run."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from . import _seen as seen_objects
from ._checks import require
from ._config import require_types
from ._types import (
    EnumerableEnvironment,
    Environment,
    Kernel,
    Objective,
    PathwiseKernel,
    SamplableTarget,
    Scored,
    State,
    Target,
    TeacherReward,
)
from .behaviours import Behaviour, ChainsConfig, OnPolicy
from .networks import EnsembleConfig, MLPConfig, NetworkConfig
from .novelty import Novelty
from .objectives import TB
from .replay import ReplayConfig


class OptimiserConfig(eqx.Module):
    """Adam, with its own learning rate for log Z.

    **Arguments:** `learning_rate`; `log_z_learning_rate`; `max_norm`: clip the joint norm of
    all gradients of one model, log Z included (None: no clipping); `weight_decay`: L2 added
    to the gradient of the network (None: none); `decay_steps` and `final_fraction`: follow a
    cosine over so many updates down to that fraction of both rates (None: constant rates);
    `milestones`: numbers of updates at each of which both rates become a tenth; `least_log_z`:
    log Z is kept at or above it (None: it goes where it will).
    """

    learning_rate: float = 1e-3
    log_z_learning_rate: float = 0.1
    max_norm: float | None = 1.0
    weight_decay: float | None = None
    decay_steps: int | None = None
    final_fraction: float = 0.0
    milestones: tuple[int, ...] = ()
    least_log_z: float | None = None

    def __check_init__(self):
        # Rates of 0 freeze what they belong to.
        require("learning_rate", self.learning_rate, at_least=0)
        require("log_z_learning_rate", self.log_z_learning_rate, at_least=0)
        require("max_norm", self.max_norm, above=0)
        require("weight_decay", self.weight_decay, at_least=0)
        require("decay_steps", self.decay_steps, at_least=1)
        require("final_fraction", self.final_fraction, at_least=0, at_most=1)
        for milestone in self.milestones:
            require("milestones", milestone, at_least=1)
        require_types(self)

    def build(self) -> optax.GradientTransformation:
        """The transformation, for a pytree with a `log_z` beside the network."""
        parts = []
        if self.max_norm is not None:
            parts.append(optax.clip_by_global_norm(self.max_norm))
        if self.weight_decay is not None:
            parts.append(optax.add_decayed_weights(self.weight_decay, mask=_is_network))
        parts.append(optax.scale_by_adam())
        log_z = self._descend(self.log_z_learning_rate)
        if self.least_log_z is not None:
            log_z = optax.chain(log_z, _keep_above(self.least_log_z))
        groups: dict[Hashable, optax.GradientTransformation] = {
            "network": self._descend(self.learning_rate),
            "log_z": log_z,
        }
        return optax.chain(*parts, optax.partition(groups, _group))

    def _descend(self, rate: Float[Array, ""] | float) -> optax.GradientTransformation:
        if self.decay_steps is None and not self.milestones:
            return optax.scale(-rate)

        def schedule(count: jax.typing.ArrayLike) -> Float[Array, ""]:
            count = jnp.asarray(count)
            factor = jnp.ones(())
            if self.decay_steps is not None:
                progress = jnp.minimum(count / self.decay_steps, 1)
                cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
                factor = self.final_fraction + (1 - self.final_fraction) * cosine
            for milestone in self.milestones:
                factor = jnp.where(count >= milestone, 0.1 * factor, factor)
            return -rate * factor

        return optax.scale_by_schedule(schedule)


class Experiment(eqx.Module):
    """Everything that a training run is made of: frozen, printable, saved as JSON.

    **Arguments:** `environment` and `target`; `behaviour`: the schedule of batches;
    `objective`: of the Student, and of the Teacher unless `teacher_objective` is given;
    `teacher_reward`: None trains no Teacher; `replay`: None keeps no buffer; `network`,
    `optimiser`, and the Teacher's where they differ; `batch_size` trajectories and `steps`
    gradient steps (of Student and Teacher each); `initial_log_z`, with which Student and Teacher
    begin (None: each with an estimate from one batch of the untrained Student, by importance
    sampling: it is above log Z by more than c nats with a chance below exp(-c));
    `log_z_from_student`: the Student's log Z learns from its own batches alone, so that until they
    are as good as others it is below log Z, and others are made more likely; `backward_scoring` as
    in `didact.Sampler`; `learn_backward`: P_B has a head of the network; `threshold_quantile`:
    objects whose log R lies below this quantile of that one batch are neither kept in the buffer
    nor shown to the Teacher (None: all are); `redraw_for_teacher`: the Teacher learns from
    trajectories of its own P_B to the same objects; `count_distinct`: count the different objects
    whose rewards were asked for, where there are at most 2^28; `novelty`: measures how new states
    are, for an objective or a Teacher's reward that asks for it (None: nothing does); `bootstrap`:
    each policy of an ensemble learns from a trajectory with this chance, independently (None: the
    network is trained as one policy); `chains`: Markov chains for `didact.behaviours.FromChains`
    (None: there are none); `skip_nonfinite`: a step with a reward, loss or gradient that is not
    finite leaves parameters, optimisers, novelty and chains as they were, puts nothing of that into
    the buffer, and is counted (False: it ends the training).
    """

    environment: Environment
    target: Target
    behaviour: Behaviour = eqx.field(default_factory=OnPolicy)
    objective: Objective = eqx.field(default_factory=TB)
    teacher_objective: Objective | None = None
    teacher_reward: TeacherReward | None = None
    replay: ReplayConfig | None = None
    network: NetworkConfig = MLPConfig()
    teacher_network: NetworkConfig | None = None
    optimiser: OptimiserConfig = eqx.field(default_factory=OptimiserConfig)
    teacher_optimiser: OptimiserConfig | None = None
    batch_size: int = eqx.field(static=True, default=16)
    steps: int = 10_000
    initial_log_z: float | None = 0.0
    log_z_from_student: bool = eqx.field(static=True, default=False)
    backward_scoring: Callable[[Any, State, Array | None], Kernel] | None = eqx.field(
        static=True, default=None
    )
    learn_backward: bool = eqx.field(static=True, default=False)
    threshold_quantile: float | None = None
    redraw_for_teacher: bool = eqx.field(static=True, default=False)
    count_distinct: bool = eqx.field(static=True, default=False)
    skip_nonfinite: bool = eqx.field(static=True, default=False)
    novelty: Novelty | None = None
    bootstrap: float | None = None
    chains: ChainsConfig | None = None

    def __check_init__(self):
        require("batch_size", self.batch_size, at_least=1)
        require("steps", self.steps, at_least=1)
        require("steps", self.steps, at_most=2**31 - 1)
        require("threshold_quantile", self.threshold_quantile, at_least=0, at_most=1)
        require("bootstrap", self.bootstrap, above=0)
        require("bootstrap", self.bootstrap, at_most=1)
        require_types(self)
        for name in ("dim", "side", "num_symbols", "length"):
            here, there = (getattr(part, name, None) for part in (self.environment, self.target))
            if here is not None and there is not None and here != there:
                raise ValueError(
                    f"The environment has {name} {here}, the target {there}: give both the same."
                )
        if self.count_distinct:
            self._check_countable()
        self._check_shapes()
        self._check_schedule()
        self._check_exploration()
        self._check_pathwise()

    def _check_countable(self) -> None:
        env = self.environment
        if not isinstance(env, EnumerableEnvironment):
            raise ValueError(
                f"count_distinct numbers the objects, which {type(env).__name__} does not: leave "
                "it out."
            )
        jax.eval_shape(lambda: seen_objects.empty(env.num_terminal_states))

    def _check_schedule(self) -> None:
        turns = self.behaviour.turns
        sources = self.behaviour.pattern
        if "teacher" in sources and self.teacher_reward is None:
            raise ValueError("The schedule asks a Teacher: give the Experiment a teacher_reward.")
        if "samples" in sources and not isinstance(self.target, SamplableTarget):
            raise ValueError(
                "The schedule asks for exact samples, which a "
                f"{type(self.target).__name__} has not."
            )
        for turn in turns:
            require("batches", turn.batches, at_least=1)
            if turn.batches != 1 and (turn.source != "replay" or turn.reward_calls):
                raise ValueError(
                    "Only a turn of the buffer may have several batches: let those of "
                    f"{turn.source!r} be 1."
                )
        if self.replay is None:
            if any(turn.needs_buffer or turn.collects for turn in turns):
                raise ValueError("The schedule asks a buffer: give the Experiment a replay.")
            return
        if turns[0].needs_buffer:
            raise ValueError(
                "The schedule must not begin with objects of the buffer: it is empty then."
            )
        if self.replay.capacity < self._added:
            raise ValueError(
                f"The buffer must hold what a step adds to it or refreshes: capacity "
                f"{self.replay.capacity} is below {self._added}."
            )
        if self.replay.merge_every > 1 and any(turn.collects for turn in turns):
            raise ValueError(
                "A batch that is collected is drawn from at once and cannot wait: let merge_every "
                "be 1."
            )
        if self.room_to_wait > self.replay.capacity:
            raise ValueError(
                f"The buffer must hold the batches that wait to be merged: capacity "
                f"{self.replay.capacity} is below {self.room_to_wait}."
            )
        if self.replay.priority.startswith("teacher") and self.teacher_reward is None:
            raise ValueError(
                f"Priority {self.replay.priority!r} is the Teacher's reward: give the Experiment a "
                "teacher_reward."
            )

    def _check_exploration(self) -> None:
        asking = [self.objective, self.teacher_objective, self.teacher_reward]
        for part in asking:
            if part is not None and part.needs_novelty and self.novelty is None:
                raise ValueError(
                    f"{type(part).__name__} asks how new states are: give the Experiment a novelty."
                )
        if self.bootstrap is not None and not isinstance(self.network, EnsembleConfig):
            raise ValueError(
                "bootstrap is for the policies of an ensemble: give the Experiment a "
                "BootstrappedConfig as its network."
            )
        if self.chains is None:
            if "chains" in self.behaviour.pattern:
                raise ValueError("The schedule asks chains: give the Experiment a ChainsConfig.")
        elif self.batch_size % self.chains.levels:
            raise ValueError(
                f"A batch has one chain a trajectory: batch_size {self.batch_size} must be a "
                f"multiple of the {self.chains.levels} levels."
            )

    def _check_pathwise(self) -> None:
        """Pathwise gradients need paths of the Student's own law, and smooth ones."""
        if self.teacher_reward is not None and (self.teacher_objective or self.objective).pathwise:
            raise ValueError(
                "A Teacher cannot learn by a pathwise objective, its reward being known on given "
                "trajectories only: give the Experiment another teacher_objective."
            )
        if not self.objective.pathwise:
            return
        name = type(self.objective).__name__
        if not all(turn.on_policy for turn in self.behaviour.turns):
            raise ValueError(
                f"{name} learns from the Student's own trajectories without exploration: let the "
                "behaviour be OnPolicy()."
            )
        env = self.environment
        params = jnp.zeros(env.forward_size)
        if not isinstance(env.forward_kernel(env.initial_state(), params), PathwiseKernel):
            raise ValueError(
                f"{name} needs differentiable steps, which {type(env).__name__} has not: use "
                "another objective."
            )

    def _check_shapes(self) -> None:
        """Let objective and Teacher's reward object to each other now, not while compiling."""
        shape = (self.batch_size, self.environment.num_steps)

        def evaluate() -> None:
            edges, one = jnp.zeros(shape), jnp.zeros(shape[0])
            flow = jnp.zeros((shape[0], shape[1] + 1))
            novelty = None if self.novelty is None else edges
            scored = Scored(edges, edges, flow, jnp.zeros(()), one, edges > 0, one, novelty)
            output = replace(self.objective(scored), novelty=novelty)
            if self.teacher_reward is not None:
                log_reward = self.teacher_reward(output, one, scored.mask)
                own = self.teacher_objective or self.objective
                _ = own(eqx.tree_at(lambda s: s.log_reward, scored, log_reward))

        jax.eval_shape(evaluate)

    @property
    def room_to_wait(self) -> int:
        """Objects that may wait until the buffer merges them: those of so many steps."""
        if self.replay is None or self.replay.merge_every == 1:
            return 0
        return self.replay.merge_every * self._added

    @property
    def _added(self) -> int:
        """Objects that a step may put into the buffer: new ones of a batch, or all that it has
        drawn, where these are refreshed.
        """
        refreshes = self.replay is not None and self.replay.refresh
        return self.batch_size * (self.behaviour.most_batches if refreshes else 1)

    def reward_calls(self, steps: int) -> int:
        """Evaluations of log R, or of its gradient, in the first `steps` steps.

        A guided network costs one for each state of a proposal, copies among them.
        """
        each = [turn.reward_calls for turn in self.behaviour.turns]
        networks = (self.network, self.teacher_network or self.network)
        taught = self.teacher_reward is not None
        guided = networks[0].guided or (taught and networks[1].guided)
        states = self.behaviour.most_batches * self.environment.num_steps if guided else 0
        return self.batch_size * (_total(each, steps) + states * steps)

    def student_batches(self, steps: int) -> int:
        """Number of batches that the Student itself drew in the first `steps` steps."""
        return _total([source == "student" for source in self.behaviour.pattern], steps)


def _total(schedule: Sequence[int], steps: int) -> int:
    """The sum of a repeating schedule over its first `steps` entries."""
    rounds, rest = divmod(steps, len(schedule))
    return rounds * sum(schedule) + sum(schedule[:rest])


def traced_numbers(experiment: Experiment) -> Experiment:
    """The same experiment with its plain numbers as arrays, so that a compiled program takes
    them as arguments and is not compiled again when one changes.
    """
    return jax.tree.map(_as_array, experiment)


def _as_array(leaf: object) -> object:
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        return leaf
    return jnp.asarray(leaf, jnp.int32 if isinstance(leaf, int) else jnp.result_type(float))


def _keep_above(bound: Float[Array, ""] | float) -> optax.GradientTransformation:
    """Shorten updates so that parameters end at or above a bound."""

    def shorten(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(lambda u, p: jnp.maximum(p + u, bound) - p, updates, params)

    return optax.stateless(shorten)


def _group(params: PyTree) -> PyTree:
    labels = jax.tree.map(lambda _: "network", params)
    return eqx.tree_at(lambda tree: tree.log_z, labels, "log_z")


def _is_network(params: PyTree) -> PyTree:
    return jax.tree.map(lambda label: label == "network", _group(params))
