"""An experiment: the composed object that says everything about a training run."""

from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ._checks import require
from ._config import require_types
from ._types import Environment, Kernel, Objective, Scored, State, Target, TeacherReward
from .behaviours import Behaviour, OnPolicy
from .networks import MLPConfig
from .objectives import TB
from .replay import ReplayConfig


class OptimiserConfig(eqx.Module):
    """Adam, with its own learning rate for log Z.

    **Arguments:** `learning_rate`; `log_z_learning_rate`; `max_norm`: clip the joint norm of
    all gradients of one model, log Z included (None: no clipping); `weight_decay`: L2 added
    to the gradient of the network (None: none); `decay_steps` and `final_fraction`: follow a
    cosine over so many updates down to that fraction of both rates (None: constant rates).
    """

    learning_rate: float = 1e-3
    log_z_learning_rate: float = 0.1
    max_norm: float | None = 1.0
    weight_decay: float | None = None
    decay_steps: int | None = None
    final_fraction: float = 0.0

    def __check_init__(self):
        # Rates of 0 freeze what they belong to.
        require("learning_rate", self.learning_rate, at_least=0)
        require("log_z_learning_rate", self.log_z_learning_rate, at_least=0)
        require("max_norm", self.max_norm, above=0)
        require("weight_decay", self.weight_decay, at_least=0)
        require("decay_steps", self.decay_steps, at_least=1)
        require("final_fraction", self.final_fraction, at_least=0, at_most=1)
        require_types(self)

    def build(self) -> optax.GradientTransformation:
        """The transformation, for a pytree with a `log_z` beside the network."""
        parts = []
        if self.max_norm is not None:
            parts.append(optax.clip_by_global_norm(self.max_norm))
        if self.weight_decay is not None:
            parts.append(optax.add_decayed_weights(self.weight_decay, mask=_is_network))
        parts.append(optax.scale_by_adam())
        groups: dict[Hashable, optax.GradientTransformation] = {
            "network": self._descend(self.learning_rate),
            "log_z": self._descend(self.log_z_learning_rate),
        }
        return optax.chain(*parts, optax.partition(groups, _group))

    def _descend(self, rate: Float[Array, ""] | float) -> optax.GradientTransformation:
        decay_steps = self.decay_steps
        if decay_steps is None:
            return optax.scale(-rate)

        def schedule(count: jax.typing.ArrayLike) -> Float[Array, ""]:
            progress = jnp.minimum(jnp.asarray(count) / decay_steps, 1)
            cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
            return -rate * (self.final_fraction + (1 - self.final_fraction) * cosine)

        return optax.scale_by_schedule(schedule)


class Experiment(eqx.Module):
    """Everything that a training run is made of: frozen, printable, saved as JSON.

    **Arguments:** `environment` and `target`; `behaviour`: the schedule of batches;
    `objective`: of the Student, and of the Teacher unless `teacher_objective` is given;
    `teacher_reward`: None trains no Teacher; `replay`: None keeps no buffer; `network`,
    `optimiser`, and the Teacher's where they differ; `batch_size` trajectories and `steps`
    gradient steps (of Student and Teacher each); `initial_log_z`; `backward_scoring` as in
    `didact.Sampler`.
    """

    environment: Environment
    target: Target
    behaviour: Behaviour = eqx.field(default_factory=OnPolicy)
    objective: Objective = eqx.field(default_factory=TB)
    teacher_objective: Objective | None = None
    teacher_reward: TeacherReward | None = None
    replay: ReplayConfig | None = None
    network: MLPConfig = MLPConfig()
    teacher_network: MLPConfig | None = None
    optimiser: OptimiserConfig = eqx.field(default_factory=OptimiserConfig)
    teacher_optimiser: OptimiserConfig | None = None
    batch_size: int = eqx.field(static=True, default=16)
    steps: int = 10_000
    initial_log_z: float = 0.0
    backward_scoring: Callable[[Any, State, Array | None], Kernel] | None = eqx.field(
        static=True, default=None
    )

    def __check_init__(self):
        require("batch_size", self.batch_size, at_least=1)
        require("steps", self.steps, at_least=1)
        require("steps", self.steps, at_most=2**31 - 1)
        require_types(self)
        for name in ("dim", "side"):
            here, there = (getattr(part, name, None) for part in (self.environment, self.target))
            if here is not None and there is not None and here != there:
                raise ValueError(
                    f"The environment has {name} {here}, the target {there}: give both the same."
                )
        self._check_shapes()
        sources = self.behaviour.pattern
        if "teacher" in sources and self.teacher_reward is None:
            raise ValueError("The schedule asks a Teacher: give the Experiment a teacher_reward.")
        if "replay" in sources and self.replay is None:
            raise ValueError("The schedule asks a buffer: give the Experiment a replay.")
        if sources[0] == "replay":
            raise ValueError("The schedule must not begin with replay: the buffer is empty then.")
        if self.replay is None:
            return
        if self.replay.capacity < self.batch_size:
            raise ValueError(
                f"The buffer must hold a batch: capacity {self.replay.capacity} is below "
                f"batch_size {self.batch_size}."
            )
        if self.replay.priority == "teacher" and self.teacher_reward is None:
            raise ValueError(
                "Priority 'teacher' is the Teacher's reward: give the Experiment a teacher_reward."
            )

    def _check_shapes(self) -> None:
        """Let objective and Teacher's reward object to each other now, not while compiling."""
        shape = (self.batch_size, self.environment.num_steps)

        def evaluate() -> None:
            edges, one = jnp.zeros(shape), jnp.zeros(shape[0])
            flow = jnp.zeros((shape[0], shape[1] + 1))
            scored = Scored(edges, edges, flow, jnp.zeros(()), one, edges > 0, one)
            output = self.objective(scored)
            if self.teacher_reward is not None:
                log_reward = self.teacher_reward(output, one, scored.mask)
                own = self.teacher_objective or self.objective
                _ = own(eqx.tree_at(lambda s: s.log_reward, scored, log_reward))

        jax.eval_shape(evaluate)

    def reward_calls(self, steps: int) -> int:
        """Number of rewards asked for in the first `steps` steps."""
        fresh = [source != "replay" for source in self.behaviour.pattern]
        rounds, rest = divmod(steps, len(fresh))
        return self.batch_size * (rounds * sum(fresh) + sum(fresh[:rest]))

    def student_batches(self, steps: int) -> int:
        """Number of batches that the Student itself drew in the first `steps` steps."""
        own = [source == "student" for source in self.behaviour.pattern]
        rounds, rest = divmod(steps, len(own))
        return rounds * sum(own) + sum(own[:rest])


def traced_numbers(experiment: Experiment) -> Experiment:
    """The same experiment with its plain numbers as arrays, so that a compiled program takes
    them as arguments and is not compiled again when one changes.
    """

    def convert(leaf: object) -> object:
        if isinstance(leaf, bool) or not isinstance(leaf, int | float):
            return leaf
        return jnp.asarray(leaf, jnp.int32 if isinstance(leaf, int) else jnp.result_type(float))

    return jax.tree.map(convert, experiment)


def _group(params: PyTree) -> PyTree:
    labels = jax.tree.map(lambda _: "network", params)
    return eqx.tree_at(lambda tree: tree.log_z, labels, "log_z")


def _is_network(params: PyTree) -> PyTree:
    return jax.tree.map(lambda label: label == "network", _group(params))
