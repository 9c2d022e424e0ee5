"""The training loop: one step is ask -> reward -> tell, a chunk of steps is one program.

Student and Teacher learn by the same `update`. Seeds are a `vmap` named "seed"; the number
of the step stays outside it, so that schedules remain branches. On a CPU, but for meshes and
transformations of the caller's, each seed has the program of a single one instead (`_apart`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from . import _apart
from . import _seen as seen_objects
from . import replay as replay_buffer
from ._experiment import Experiment, OptimiserConfig, traced_numbers
from ._rows import on_enough_rows
from ._sampler import (
    Layout,
    Sampler,
    layout,
    row_sizes,
    sample_backward,
    sample_forward,
    score,
    score_pathwise,
)
from ._seen import Seen
from ._sharding import num_shards, require_even
from ._types import EnumerableEnvironment, Objective, ObjectiveOutput, Target, Trajectory
from .behaviours import Agents, Chains, FromReplay, Proposal, widened
from .behaviours._behaviour import with_copies
from .networks import Ensemble, NetworkConfig
from .replay import Replay, UniformDraw
from .targets import HostReward, HostRewards

SEED_AXIS = "seed"
MAX_TRACKED_MODES = 2**22
NON_FINITE_REWARD, NON_FINITE_LOSS, NON_FINITE_TEACHER = 3, 2, 1
_LEARNING = 0x6C65726E  # "lern": apart from the keys of the batch
_EXPLORING = 0x6E657565  # "neue": apart from these


class Agent(eqx.Module):
    """A sampler and the state of its optimiser."""

    sampler: Sampler
    opt_state: PyTree


class SeedState(eqx.Module):
    """What one seed carries from step to step."""

    key: PRNGKeyArray
    student: Agent
    teacher: Agent | None
    replay: Replay | None
    modes_found: Bool[Array, " modes"] | None
    modes_found_student: Bool[Array, " modes"] | None
    seen: Seen | None
    threshold: Float[Array, ""] | None
    """Objects with log R below it are neither kept nor shown to the Teacher; None: all are."""
    trouble: Int[Array, ""]
    skipped: Int[Array, ""] | None
    """Steps that taught nothing, as something was not finite; None where such a step is an end."""
    novelty: PyTree | None
    """What the experiment's `novelty` has learned."""
    chains: Chains | None


class TrainState(eqx.Module):
    """The state of a run: `step` gradient steps done; `seeds` has a leading axis [S]."""

    step: Int[Array, ""]
    seeds: SeedState

    @property
    def num_seeds(self) -> int:
        """S."""
        return self.seeds.trouble.shape[0]

    def alone(self, index: int) -> "TrainState":
        """The state of one seed, by its position, as that of a run of it alone: a copy."""
        self._require(index)
        return TrainState(jnp.array(self.step), _apart.seed_of(self.seeds, index))

    def student(self, index: int = 0) -> Sampler:
        """The Student of one seed, by its position among the seeds."""
        return self._pick(self.seeds.student.sampler, index)

    def teacher(self, index: int = 0) -> Sampler | None:
        """The Teacher of one seed, by its position, where there is one."""
        return None if self.seeds.teacher is None else self._pick(self.seeds.teacher.sampler, index)

    def _require(self, index: int) -> None:
        if not 0 <= index < self.num_seeds:  # JAX would clamp
            raise IndexError(f"there are {self.num_seeds} seeds: no position {index} among them.")

    def _pick(self, tree: PyTree, index: int) -> PyTree:
        self._require(index)
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, tree)


class StepInfo(eqx.Module):
    """What one step reports. Losses are means over the batch; `log_z` is None where the objective
    does not train the sampler's scalar.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    log_z: Float[Array, ""] | None
    teacher_loss: Float[Array, ""] | None
    teacher_log_z: Float[Array, ""] | None
    modes_found: Int[Array, ""] | None
    modes_found_student: Int[Array, ""] | None
    distinct: Int[Array, ""] | None
    mean_length: Float[Array, ""]
    skipped: Int[Array, ""] | None
    """Steps skipped so far, where they are (`Experiment.skip_nonfinite`)."""


def init(experiment: Experiment, seeds: Sequence[int] = (0,)) -> TrainState:
    """The state before the first step, one replica a seed.

    **Errors:** `ValueError` where the mesh in use has more devices than share a batch evenly.
    """
    require_even(experiment.batch_size)
    numbers = traced_numbers(experiment)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    modes = experiment.target.num_modes if tracks_modes(experiment.target) else None
    return TrainState(jnp.asarray(0, jnp.int32), _init_seeds(numbers, keys, modes))


def step(experiment: Experiment, state: TrainState) -> tuple[TrainState, StepInfo]:
    """One gradient step of Student and Teacher. `StepInfo` has a leading axis [S].

    **Errors:** `FloatingPointError` at a reward, loss or gradient that is not finite, unless the
    experiment skips such a step; the state given stays as it was.
    """
    if not isinstance(experiment.target, HostReward):
        return _sound(_joined(_by_seed(_run_step, traced_numbers(experiment), state)))
    proposal, x = _apart.together(_by_seed(_propose, traced_numbers(experiment), state))
    log_reward, *_ = _on_host(experiment.target, proposal, x)
    return tell(experiment, state, proposal, jnp.asarray(log_reward))


def ask(experiment: Experiment, state: TrainState) -> Proposal:
    """The next batch, with a leading axis [S]. Its objects are
    `didact.objects(experiment, proposal)`; where it is not `known`, their log-reward is wanted.
    """
    return _apart.together(_by_seed(_ask_seeds, traced_numbers(experiment), state))


def tell(
    experiment: Experiment, state: TrainState, proposal: Proposal, log_reward: Float[Array, "S B"]
) -> tuple[TrainState, StepInfo]:
    """Learn from a proposal and the log-rewards of its `objects`. Where the proposal knows them, as
    those of replayed objects, its own are taken, whatever is given: `proposal.log_reward` will do.

    **Errors:** `ValueError` for rewards of another shape; `FloatingPointError` as in `step`.
    """
    log_reward = jnp.asarray(log_reward)
    own = experiment.batch_size
    wanted = (proposal.known.shape[0], own)
    if log_reward.shape not in (wanted, proposal.log_reward.shape):
        raise ValueError(
            f"log_reward must have shape {wanted}, seeds by objects, got {log_reward.shape}."
        )
    log_reward = log_reward[:, :own]  # of the rest nobody asks
    numbers = traced_numbers(experiment)
    return _sound(_joined(_by_seed(_tell_seeds, numbers, state, proposal, log_reward)))


def objects(experiment: Experiment, proposal: Proposal) -> PyTree:
    """The objects x that a proposal's trajectories end in, leading axes [S, B]: of one batch, after
    which a proposal that knows its rewards may have more, and another has copies.
    """
    return jax.vmap(functools.partial(_own_objects, experiment))(proposal)


def train_chunk(
    experiment: Experiment, state: TrainState, num_steps: int, *, capacity: int
) -> tuple[TrainState, StepInfo]:
    """Run up to `num_steps` <= `capacity` steps in one compiled program, or on a CPU in one for
    each seed, of which as many run at a time as there are cores.

    The state given is used up: by one program, which reuses its memory, or once all seeds have run,
    until when there are two of it. A program depends on `capacity`, not on `num_steps`. It stops
    early at a reward, loss or gradient that is not finite, which `TrainState.seeds.trouble` then
    names (`trouble_message`), unless the experiment skips such steps.

    **Returns:** the new state, and `StepInfo` with leading axes [S, capacity], in which as many
    columns are filled as steps were done.

    A target whose reward is computed outside JAX has two programs a step, and is asked for the
    rewards of all seeds between them.

    **Errors:** `ValueError` for `num_steps` above `capacity`, or for a reward function that cannot
    be used.
    """
    if num_steps > capacity:
        raise ValueError(f"num_steps {num_steps} is above capacity {capacity}.")
    if isinstance(experiment.target, HostReward):
        return host_chunk(experiment, state, num_steps, capacity=capacity)
    numbers = traced_numbers(experiment)
    results = _by_seed(functools.partial(_run_up_to, num_steps, capacity), numbers, state)
    if len(results) == 1:
        return results[0]
    ends = {int(part.step) for part, _ in results}
    if len(ends) > 1:  # where one has to stop, all do
        del results
        fewer = min(ends) - int(state.step)
        results = _by_seed(functools.partial(_run_up_to, fewer, capacity), numbers, state)
    _apart.use_up(state)
    return _joined(results)


def host_chunk(
    experiment: Experiment,
    state: TrainState,
    num_steps: int,
    *,
    capacity: int,
    observe: Callable[[int, Sequence[int], HostRewards], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[TrainState, StepInfo]:
    """`train_chunk` for a target whose reward is computed outside JAX.

    **Arguments:** `observe` is told what each step has asked for: the number of steps done with
    it, the positions of the seeds that asked, and their rewards, one seed after the other;
    `should_stop` is asked before each step: True ends the chunk early.
    """
    target, numbers = experiment.target, traced_numbers(experiment)
    assert isinstance(target, HostReward)
    done, rows = int(state.step), []
    apart = _apart.runs_apart(state.num_seeds, numbers, state)
    parts = [state.alone(i) for i in range(state.num_seeds)] if apart else [state]
    while len(rows) < num_steps and not should_stop():
        # In turn, as searches ask a function of the user that may know nothing of threads.
        asked = _apart.for_each(functools.partial(_propose, numbers), parts, in_turn=True)
        log_reward, positions, rewards = _on_host(target, *_apart.together(asked))
        proposals = [proposal for proposal, _ in asked]
        each = [jnp.asarray(part) for part in np.split(log_reward, len(parts))]
        told = _apart.for_each(functools.partial(_learn, numbers), parts, proposals, each)
        parts = [part for part, _ in told]
        rows.append(_apart.together([info for _, info in told]))
        if rewards is not None:
            observe(done + len(rows), positions, rewards)
        if any(np.any(part.seeds.trouble) for part in parts):
            break
    if not rows:  # the shapes of a step that was not made
        proposal = eqx.filter_eval_shape(_ask, numbers, state)
        log_reward = np.zeros((state.num_seeds, experiment.batch_size))
        rows = [eqx.filter_eval_shape(_tell, numbers, state, proposal, log_reward)[1]]
    else:
        if apart:
            _apart.use_up(state)
        state = _whole(parts)
    return state, jax.tree.map(lambda *leaves: _columns(leaves, capacity), *rows)


def _on_host(
    target: HostReward, proposal: Proposal, x: PyTree
) -> tuple[Float[np.ndarray, "S B"], list[int], HostRewards | None]:
    """Log-rewards of a proposal's objects where they are fresh, 0 elsewhere; the positions of the
    seeds where they are, and what was said of their objects, if there are any.
    """
    # Also where a search has asked already, and the proposal knows them: so that they are counted.
    fresh = np.asarray(proposal.fresh)
    seeds, size = jax.tree.leaves(x)[0].shape[:2]
    log_reward = np.zeros((seeds, size), proposal.log_reward.dtype)
    if not fresh.any():
        return log_reward, [], None
    x = jax.tree.map(lambda leaf: np.asarray(leaf)[fresh].reshape(-1, *leaf.shape[2:]), x)
    rewards = target.rewards(x)
    log_reward[fresh] = rewards.log_reward.reshape(-1, size)
    return log_reward, np.flatnonzero(fresh).tolist(), rewards


def _columns(leaves: Sequence[Array | jax.ShapeDtypeStruct], capacity: int) -> Array:
    columns = np.zeros((leaves[0].shape[0], capacity), leaves[0].dtype)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, jax.Array):
            columns[:, i] = leaf
    return jnp.asarray(columns)


def trouble_message(trouble: int) -> str:
    """What a number in `TrainState.seeds.trouble` means, and what to do; 0 is no trouble."""
    return {
        NON_FINITE_REWARD: "log_reward is not finite for an object the sampler drew: mend what "
        "gives NaN, and bound it from below where it is -inf",
        NON_FINITE_LOSS: "the Student's loss or its gradient is not finite: lower the learning "
        "rate or clip the gradient",
        NON_FINITE_TEACHER: "the Teacher's loss or its gradient is not finite: bound the "
        "Teacher's reward from below, lower its learning rate or clip its gradient",
    }[trouble]


def _sound(result: tuple[TrainState, StepInfo]) -> tuple[TrainState, StepInfo]:
    """The result of a step, unless something in it was not finite."""
    trouble = result[0].seeds.trouble
    # Under a transformation of the user's the flag cannot be read: they have it in the state.
    if not isinstance(trouble, Tracer) and (worst := int(jnp.max(trouble))):
        raise FloatingPointError(trouble_message(worst))
    return result


def update(
    agent: Agent,
    optimiser: OptimiserConfig,
    objective: Objective,
    trajectory: Trajectory,
    place: Layout,
    log_reward: Float[Array, " B"],
    weight: Float[Array, "*members B"],
    target: Target,
    learn_log_z: Bool[Array, ""] | None = None,
    novelty: Float[Array, "B T"] | None = None,
) -> tuple[Agent, ObjectiveOutput, Float[Array, ""], Float[Array, ""]]:
    """One gradient step towards `log_reward`: the one way in which anything here learns. A
    pathwise objective takes log R, and its gradient, from the `target` instead.

    **Arguments:** `weight`: of each trajectory, and where it has a leading axis, for each policy of
    an ensemble, all of which then learn; `learn_log_z`: False: this batch says nothing about log Z
    (None: every one does); `novelty`: how new the state is that each edge leads to.

    **Returns:** the agent, the objective's output before the step, mean loss, gradient norm.
    """
    params, rest = eqx.partition(agent.sampler, _trained(agent.sampler))
    (loss, output), grads = _loss_and_gradient(
        params, (rest, objective, target), trajectory, place, log_reward, weight, novelty
    )
    if learn_log_z is not None:
        grads = eqx.tree_at(lambda g: g.log_z, grads, jnp.where(learn_log_z, grads.log_z, 0))
    updates, opt_state = optimiser.build().update(grads, agent.opt_state, params)
    sampler = eqx.combine(eqx.apply_updates(params, updates), rest)
    return Agent(sampler, opt_state), output, loss, optax.tree.norm(grads)


def _loss_and_gradient(params, others, trajectory, place, log_reward, weight, novelty):
    """Loss, output and gradient, with the network run on about as many rows as there are
    distinct states: the program holds one branch a size.
    """
    dynamic, static = eqx.partition(others, eqx.is_array)
    rest, objective, _ = others
    sizes = row_sizes(rest.environment, trajectory.mask.shape[0])
    if objective.pathwise:
        sizes = sizes[-1:]  # rows play no part in it

    def of(rows, params, dynamic, trajectory, place, log_reward, weight, novelty):
        rest, objective, target = eqx.combine(dynamic, static)
        batch = (trajectory, place, log_reward, weight, novelty)
        return _loss_and_gradient_of(params, rest, objective, target, *batch, rows=rows)

    batch = (trajectory, place, log_reward, weight, novelty)
    return on_enough_rows(of, sizes, place.count, params, dynamic, *batch)


# Its own `jit`, though inside another: Student and Teacher then share one trace.
@eqx.filter_jit
def _loss_and_gradient_of(
    params, rest, objective, target, trajectory, place, log_reward, weight, novelty, rows: int
):
    def of_policy(sampler, weight):
        if objective.pathwise:
            scored = score_pathwise(
                sampler, trajectory, target.log_reward, weight, path_only=objective.path_only
            )
        else:
            scored = score(sampler, trajectory, log_reward, weight, place, rows)
        output = objective(replace(scored, novelty=novelty))
        total = jnp.maximum(jnp.sum(weight), jnp.finfo(weight.dtype).tiny)
        return jnp.sum(weight * output.loss) / total, output

    def loss_fn(params):
        sampler = eqx.combine(params, rest)
        if weight.ndim == 1:
            return of_policy(sampler, weight)
        # What members share depends on none of them, and is computed once.
        each = jax.vmap(lambda i, w: of_policy(_member(sampler, i), w))
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), each(jnp.arange(len(weight)), weight))

    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def _member(sampler: Sampler, index: Int[Array, ""]) -> Sampler:
    """The sampler of one policy of an ensemble."""
    assert isinstance(sampler.policy, Ensemble)
    return eqx.tree_at(lambda s: s.policy, sampler, sampler.policy.member(index))


@eqx.filter_jit
def _init_seeds(experiment: Experiment, keys: Key[Array, " S"], modes: int | None) -> SeedState:
    return jax.vmap(lambda key: _init_seed(experiment, key, modes))(keys)


def _init_seed(experiment: Experiment, key: PRNGKeyArray, modes: int | None) -> SeedState:
    student_key, teacher_key, run_key = jax.random.split(key, 3)
    teacher = None
    if experiment.teacher_reward is not None:
        teacher = _init_agent(
            experiment,
            experiment.teacher_network or experiment.network,
            experiment.teacher_optimiser or experiment.optimiser,
            experiment.teacher_objective or experiment.objective,
            teacher_key,
        )
    env = experiment.environment
    buffer = None
    if experiment.replay is not None:
        x_like = jax.eval_shape(lambda: env.sample_of(env.initial_state()))
        buffer = replay_buffer.empty(
            x_like,
            int(experiment.replay.capacity),
            unique=experiment.replay.unique,
            room_to_wait=experiment.room_to_wait,
        )
    unseen = None if modes is None else jnp.zeros(modes, bool)
    student = _init_agent(
        experiment, experiment.network, experiment.optimiser, experiment.objective, student_key
    )
    novelty_key, chain_key = jax.random.split(jax.random.fold_in(key, _EXPLORING))
    memory = None if experiment.novelty is None else experiment.novelty.init(env, key=novelty_key)
    chains = None
    if experiment.chains is not None:
        chains = experiment.chains.begin(env, chain_key, experiment.batch_size)
    threshold = None
    if experiment.initial_log_z is None or experiment.threshold_quantile is not None:
        trajectory, log_reward = _first_batch(experiment, student.sampler, run_key)
        if experiment.initial_log_z is None:
            student, teacher = _estimate_log_z(
                experiment, student, teacher, memory, trajectory, log_reward
            )
        if experiment.threshold_quantile is not None:
            threshold = jnp.quantile(log_reward, experiment.threshold_quantile)
    return SeedState(
        key=run_key,
        student=student,
        teacher=teacher,
        replay=buffer,
        modes_found=unseen,
        modes_found_student=unseen,
        seen=_nothing_seen(experiment),
        threshold=threshold,
        trouble=jnp.asarray(0, jnp.int32),
        skipped=jnp.asarray(0, jnp.int32) if experiment.skip_nonfinite else None,
        novelty=memory,
        chains=chains,
    )


def _first_batch(
    experiment: Experiment, untrained: Sampler, key: PRNGKeyArray
) -> tuple[Trajectory, Float[Array, " B"]]:
    """One batch of the untrained Student, by which thresholds and log Z are set, and its log R."""
    env = experiment.environment
    # The number of no step: training folds its own into the same key.
    key = jax.random.fold_in(key, 2**32 - 1)
    trajectory = sample_forward(untrained, key, experiment.batch_size)
    log_reward = jax.vmap(lambda end: experiment.target.log_reward(env.sample_of(end)))(
        trajectory.terminal
    )
    return trajectory, log_reward


def _estimate_log_z(
    experiment: Experiment,
    student: Agent,
    teacher: Agent | None,
    memory: PyTree | None,
    trajectory: Trajectory,
    log_reward: Float[Array, " B"],
) -> tuple[Agent, Agent | None]:
    """Both agents with the importance-sampled log Z of their rewards, from the Student's batch."""

    def begin(agent: Agent, log_weight: Float[Array, " B"]) -> Agent:
        log_z = jax.nn.logsumexp(log_weight) - jnp.log(len(log_weight))
        return eqx.tree_at(lambda a: a.sampler.log_z, agent, log_z)

    def evaluate() -> ObjectiveOutput:
        ones = jnp.ones_like(log_reward)
        return _evaluate(experiment, student.sampler, memory, trajectory, log_reward, ones)

    student = begin(student, evaluate().log_weight)
    if teacher is None or experiment.teacher_reward is None:
        return student, teacher
    output = evaluate()  # the Teacher's reward depends on the Student's log Z
    teacher_log_reward = experiment.teacher_reward(output, log_reward, trajectory.mask)
    return student, begin(teacher, output.log_weight - log_reward + teacher_log_reward)


def _evaluate(
    experiment: Experiment,
    student: Sampler,
    memory: PyTree | None,
    trajectory: Trajectory,
    log_reward: Float[Array, " B"],
    weight: Float[Array, " B"],
) -> ObjectiveOutput:
    """What the Student's objective says of a batch, and how new it is, with nothing learned."""
    novelty = _measure(experiment, memory, trajectory)
    scored = score(student, trajectory, log_reward, weight)
    return replace(experiment.objective(replace(scored, novelty=novelty)), novelty=novelty)


def _init_agent(
    experiment: Experiment,
    network: NetworkConfig,
    optimiser: OptimiserConfig,
    objective: Objective,
    key: PRNGKeyArray,
) -> Agent:
    policy = network.build(
        experiment.environment,
        flow_head=objective.needs_flow,
        backward_head=experiment.learn_backward,
        key=key,
    )
    log_z = experiment.initial_log_z  # None: estimated later
    sampler = Sampler(
        experiment.environment,
        policy,
        jnp.asarray(0 if log_z is None else log_z, jnp.result_type(float)),
        experiment.backward_scoring,
        experiment.target if network.guided else None,
    )
    return untrained_agent(sampler, optimiser)


def untrained_agent(sampler: Sampler, optimiser: OptimiserConfig) -> Agent:
    """A sampler at the start of its training: with an optimiser that has made no step."""
    return Agent(sampler, optimiser.build().init(eqx.filter(sampler, _trained(sampler))))


def _trained(sampler: Sampler) -> PyTree:
    """What learns, as a filter: network and log Z. An environment's own numbers do not."""
    nothing = jax.tree.map(lambda _: False, sampler)
    policy = jax.tree.map(eqx.is_inexact_array, sampler.policy)
    return eqx.tree_at(lambda s: (s.policy, s.log_z), nothing, (policy, True))


def tracks_modes(target: Target) -> bool:
    """Whether the modes visited are recorded: a bit each, so not for millions of them."""
    return target.num_modes is not None and 0 < target.num_modes <= MAX_TRACKED_MODES


def _agents(experiment: Experiment, state: SeedState) -> Agents:
    return Agents(
        experiment.target,
        state.student.sampler,
        None if state.teacher is None else state.teacher.sampler,
        state.replay,
        UniformDraw() if experiment.replay is None else experiment.replay.draw,
        state.chains,
    )


def _ask_seed(experiment, state: SeedState, number: Int[Array, ""], axis_name) -> Proposal:
    # Keys depend on the number of the step alone: a resumed run draws what it would have.
    key = jax.random.fold_in(state.key, number)
    behaviour, batch_size = experiment.behaviour, experiment.batch_size
    proposal = behaviour(_agents(experiment, state), key, number, batch_size, axis_name=axis_name)
    size, wanted = proposal.weight.shape[0], behaviour.most_batches * batch_size
    if size != wanted:
        raise ValueError(
            f"{type(behaviour).__name__} proposes {size} trajectories where its turns say {wanted}."
        )
    return proposal


def _reward_seed(experiment: Experiment, proposal: Proposal) -> Float[Array, " B"]:
    def ask() -> Float[Array, " B"]:
        x = _own_objects(experiment, proposal)
        return with_copies(jax.vmap(experiment.target.log_reward)(x), len(proposal.log_reward))

    return lax.cond(proposal.known, lambda: proposal.log_reward, ask)


def _own_objects(experiment: Experiment, proposal: Proposal) -> PyTree:
    """Those of one batch, which comes first."""
    own = jax.tree.map(lambda leaf: leaf[: experiment.batch_size], proposal.trajectory.terminal)
    return jax.vmap(experiment.environment.sample_of)(own)


def _rewarded(proposal: Proposal, log_reward: Float[Array, " own"]) -> Float[Array, " B"]:
    """The log-rewards of all trajectories of a proposal, given those of one batch."""
    every = with_copies(log_reward, len(proposal.log_reward))
    return jnp.where(proposal.known, proposal.log_reward, every)


def _tell_seed(
    experiment: Experiment,
    state: SeedState,
    number: Int[Array, ""],
    proposal: Proposal,
    log_reward: Float[Array, " B"],
    axis_name: str | None,
    learn: Callable[..., Any] = update,
) -> tuple[SeedState, StepInfo]:
    """One step of one seed from its batch on. `learn` may look at what `update` is given."""
    collect_key, redraw_key = _learning_keys(state, number)
    troubled_reward = ~jnp.all(jnp.isfinite(log_reward))
    found, found_student = _mark_modes(experiment, state, proposal)
    seen = _mark_seen(experiment, state, proposal)
    chains = _settle(experiment, state, number, proposal, log_reward)
    state, proposal, log_reward = _collect(
        experiment, state, proposal, log_reward, collect_key, axis_name
    )
    trajectory, weight = proposal.trajectory, proposal.weight
    place = layout(state.student.sampler, trajectory, ends=experiment.novelty is not None)
    novelty, memory = _observe(experiment, state.novelty, trajectory, place, weight)
    student, output, loss, grad_norm = learn(
        state.student,
        experiment.optimiser,
        experiment.objective,
        trajectory,
        place,
        log_reward,
        _shares(experiment, state, number, weight),
        experiment.target,
        learn_log_z=proposal.by_student if experiment.log_z_from_student else None,
        novelty=novelty,
    )
    output = replace(output, novelty=novelty)
    x = jax.vmap(experiment.environment.sample_of)(trajectory.terminal)
    teacher, teacher_loss, teacher_log_reward = state.teacher, None, None
    trouble = jnp.asarray(0, jnp.int32)
    if teacher is not None and experiment.teacher_reward is not None:
        teacher_log_reward = experiment.teacher_reward(output, log_reward, trajectory.mask)
        if experiment.redraw_for_teacher:
            trajectory = sample_backward(teacher.sampler, redraw_key, x, axis_name=axis_name)
            place = layout(teacher.sampler, trajectory)
            novelty = _measure(experiment, state.novelty, trajectory)
        teacher, _, teacher_loss, teacher_norm = learn(
            teacher,
            experiment.teacher_optimiser or experiment.optimiser,
            experiment.teacher_objective or experiment.objective,
            trajectory,
            place,
            teacher_log_reward,
            weight * _relevant(state, log_reward),
            experiment.target,
            novelty=novelty,
        )
        finite = jnp.isfinite(teacher_loss) & jnp.isfinite(teacher_norm)
        trouble = jnp.where(finite, trouble, NON_FINITE_TEACHER)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    trouble = jnp.where(finite, trouble, NON_FINITE_LOSS)
    trouble = jnp.where(troubled_reward, NON_FINITE_REWARD, trouble)
    skipped = state.skipped
    if skipped is not None:
        proposal = _of_no_weight(proposal, trouble > 0)
        student, teacher, memory, chains = _unless(
            trouble > 0,
            (student, teacher, memory, chains),
            (state.student, state.teacher, state.novelty, state.chains),
        )
        skipped, trouble = skipped + (trouble > 0), jnp.zeros_like(trouble)
    buffer = _remember(experiment, state, proposal, x, log_reward, output, teacher_log_reward)
    state = SeedState(
        key=state.key,
        student=student,
        teacher=teacher,
        replay=_merged(experiment, buffer, number),
        modes_found=found,
        modes_found_student=found_student,
        seen=seen,
        threshold=state.threshold,
        trouble=jnp.maximum(state.trouble, trouble),
        skipped=skipped,
        novelty=memory,
        chains=chains,
    )
    return state, StepInfo(
        loss=loss,
        grad_norm=grad_norm,
        log_z=student.sampler.log_z if experiment.objective.learns_log_z else None,
        teacher_loss=teacher_loss,
        teacher_log_z=_teacher_log_z(experiment, teacher),
        modes_found=None if found is None else jnp.sum(found),
        modes_found_student=None if found_student is None else jnp.sum(found_student),
        distinct=None if seen is None else seen.count,
        mean_length=_mean_length(proposal.trajectory.mask, weight),
        skipped=skipped,
    )


def _mean_length(mask: Bool[Array, "B T"], weight: Float[Array, " B"]) -> Float[Array, ""]:
    """Of the trajectories that count, or of all, where none does."""
    counts = (weight > 0) | ~jnp.any(weight > 0)
    return jnp.mean(jnp.sum(mask, axis=1), where=counts)


def _learning_keys(state: SeedState, number: Int[Array, ""]) -> Key[Array, " 2"]:
    """Keys of what is drawn while a batch is learned from: of the buffer, and by the Teacher."""
    return jax.random.split(_step_key(state, number, _LEARNING))


def _exploring_keys(state: SeedState, number: Int[Array, ""]) -> Key[Array, " 2"]:
    """Keys of the moves of chains, and of who in an ensemble learns from what."""
    return jax.random.split(_step_key(state, number, _EXPLORING))


def _step_key(state: SeedState, number: Int[Array, ""], purpose: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(state.key, number), purpose)


def _settle(
    experiment: Experiment,
    state: SeedState,
    number: Int[Array, ""],
    proposal: Proposal,
    log_reward: Float[Array, " B"],
) -> Chains | None:
    """Where chains are once they know the rewards of what was proposed to them."""
    if state.chains is None or experiment.chains is None or proposal.log_ratio is None:
        return state.chains
    key, _ = _exploring_keys(state, number)
    x, own = _own_objects(experiment, proposal), slice(experiment.batch_size)
    return experiment.chains.settle(state.chains, key, x, log_reward[own], proposal.log_ratio[own])


def _shares(
    experiment: Experiment,
    state: SeedState,
    number: Int[Array, ""],
    weight: Float[Array, " B"],
) -> Float[Array, "*members B"]:
    """The weight of each trajectory, for each policy of an ensemble a share of them."""
    if experiment.bootstrap is None:
        return weight
    policy = state.student.sampler.policy
    assert isinstance(policy, Ensemble)
    _, key = _exploring_keys(state, number)
    shape = (policy.num_members, *weight.shape)
    return weight * jax.random.bernoulli(key, experiment.bootstrap, shape)


def _measure(
    experiment: Experiment, memory: PyTree | None, trajectory: Trajectory
) -> Float[Array, "B T"] | None:
    """How new the state is that each edge of a batch leads to."""
    novelty, env = experiment.novelty, experiment.environment
    if novelty is None:
        return None
    following = jax.tree.map(lambda leaf: leaf[:, 1:], trajectory.states)
    return jax.vmap(jax.vmap(lambda state: novelty(memory, env, state)))(following)


def _observe(
    experiment: Experiment,
    memory: PyTree | None,
    trajectory: Trajectory,
    place: Layout,
    weight: Float[Array, " B"],
) -> tuple[Float[Array, "B T"] | None, PyTree | None]:
    """`_measure`, and the memory once all states of the batch are known. As in an update, each
    distinct state is looked at once.
    """
    if experiment.novelty is None:
        return None, None
    measure, env = experiment.novelty, experiment.environment
    batch, nodes = place.slot.shape
    states = jax.tree.map(
        lambda leaf: leaf.reshape(batch * nodes, *leaf.shape[2:]), trajectory.states
    )
    real = trajectory.mask
    seen = jnp.pad(real, ((0, 0), (0, 1))) | jnp.pad(real, ((0, 0), (1, 0)))
    times = seen * weight[:, None]
    if num_shards() > 1:  # the layout numbers the states of each device apart: look at all of them
        learned = measure.learn(memory, env, states, times.reshape(batch * nodes))
        return _measure(experiment, memory, trajectory), learned
    dynamic, static = eqx.partition((measure, env), eqx.is_array)
    sizes = row_sizes(env, batch)
    if jax.default_backend() == "cpu":
        sizes = sizes[::-2][::-1]  # half of them are enough here

    def of(rows, dynamic, memory, states, place, times):
        novelty, env = eqx.combine(dynamic, static)
        node = place.node[:rows]
        state = jax.tree.map(lambda leaf: leaf[node], states)
        value = jax.vmap(lambda one: novelty(memory, env, one))(state)
        count = jnp.zeros(rows, times.dtype).at[place.slot].add(times)
        return value[place.slot][:, 1:], novelty.learn(memory, env, state, count)

    return on_enough_rows(of, sizes, place.count, dynamic, memory, states, place, times)


def _unless(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """The new, or where the condition holds the old."""
    return jax.tree.map(lambda a, b: jnp.where(condition, b, a) if eqx.is_array(a) else a, new, old)


def _of_no_weight(proposal: Proposal, condition: Bool[Array, ""]) -> Proposal:
    """A proposal whose objects, where the condition holds, count for nothing."""
    weight = jnp.where(condition, 0, proposal.weight)
    return eqx.tree_at(lambda p: p.weight, proposal, weight)


def _teacher_log_z(experiment: Experiment, teacher: Agent | None) -> Float[Array, ""] | None:
    objective = experiment.teacher_objective or experiment.objective
    return teacher.sampler.log_z if teacher is not None and objective.learns_log_z else None


def _relevant(state: SeedState, log_reward: Float[Array, " B"]) -> Float[Array, " B"]:
    """1 where an object is worth keeping and showing to the Teacher, else 0."""
    if state.threshold is None:
        return jnp.ones_like(log_reward)
    return (log_reward > state.threshold).astype(log_reward.dtype)


def _collect(
    experiment: Experiment,
    state: SeedState,
    proposal: Proposal,
    log_reward: Float[Array, " B"],
    key: PRNGKeyArray,
    axis_name: str | None,
) -> tuple[SeedState, Proposal, Float[Array, " B"]]:
    """Put a proposal that is to be collected into the buffer, and propose a batch of it instead."""
    if not any(turn.collects for turn in experiment.behaviour.turns):
        return state, proposal, log_reward

    def collect():
        sampler = state.student.sampler
        output = _evaluate(
            *(experiment, sampler, state.novelty),
            *(proposal.trajectory, log_reward, proposal.weight),
        )
        priority = None
        if experiment.teacher_reward is not None:
            priority = experiment.teacher_reward(output, log_reward, proposal.trajectory.mask)
        x = jax.vmap(experiment.environment.sample_of)(proposal.trajectory.terminal)
        kept = proposal
        if state.skipped is not None:  # the step is skipped later, but this is kept at once
            found = (log_reward, output.log_weight, output.loss)
            found = found if priority is None else (*found, priority)
            finite = jnp.all(jnp.isfinite(jnp.stack(found)))
            kept = _of_no_weight(proposal, ~finite)
        buffer = _remember(experiment, state, kept, x, log_reward, output, priority)
        agents = _agents(experiment, eqx.tree_at(lambda s: s.replay, state, buffer))
        replayed = FromReplay()(
            agents, key, jnp.asarray(0), experiment.batch_size, axis_name=axis_name
        )
        replayed = widened(replayed, proposal.weight.shape[0])
        return buffer, replayed, replayed.log_reward

    buffer, proposal, log_reward = lax.cond(
        proposal.collect, collect, lambda: (state.replay, proposal, log_reward)
    )
    return eqx.tree_at(lambda s: s.replay, state, buffer), proposal, log_reward


def _nothing_seen(experiment: Experiment) -> Seen | None:
    env = experiment.environment
    if not experiment.count_distinct:
        return None
    assert isinstance(env, EnumerableEnvironment)
    return seen_objects.empty(env.num_terminal_states)


def _mark_seen(experiment: Experiment, state: SeedState, proposal: Proposal) -> Seen | None:
    """The objects asked for, with those of a proposal."""
    env = experiment.environment
    if state.seen is None:
        return None
    assert isinstance(env, EnumerableEnvironment)
    number = jax.vmap(env.index_of)(proposal.trajectory.terminal) - env.num_internal
    fresh = jnp.broadcast_to(proposal.fresh, number.shape)
    return seen_objects.add(state.seen, number, fresh)


def _mark_modes(experiment: Experiment, state: SeedState, proposal: Proposal):
    if state.modes_found is None or state.modes_found_student is None:
        return None, None
    x = jax.vmap(experiment.environment.sample_of)(proposal.trajectory.terminal)
    index = jax.vmap(experiment.target.mode_index)(x)
    nowhere = state.modes_found.shape[0]
    index = jnp.where((index >= 0) & proposal.fresh, index, nowhere)
    found = state.modes_found.at[index].set(True, mode="drop")
    own = jnp.where(proposal.by_student, index, nowhere)
    return found, state.modes_found_student.at[own].set(True, mode="drop")


def _remember(
    experiment: Experiment,
    state: SeedState,
    proposal: Proposal,
    x: PyTree,
    log_reward: Float[Array, " B"],
    output: ObjectiveOutput,
    teacher_log_reward: Float[Array, " B"] | None,
) -> Replay | None:
    config = experiment.replay
    if state.replay is None or config is None:
        return None
    delta = output.residual
    priority = {
        "none": jnp.zeros_like(log_reward),
        "reward": log_reward,
        "teacher": teacher_log_reward,
        "teacher-reward": None if teacher_log_reward is None else teacher_log_reward + log_reward,
        "loss": (1 + config.asymmetry * (delta > 0)) * jnp.square(delta),
        "weight": output.log_weight,
    }[config.priority]
    keep = (proposal.weight * _relevant(state, log_reward)) > 0
    if not config.keep_student:
        keep = keep & ~proposal.by_student

    batch = (x, log_reward, priority, keep)
    if not config.refresh:  # what is new is of one batch
        batch = jax.tree.map(lambda leaf: leaf[: experiment.batch_size], batch)
    waiting = state.replay.waiting
    if (0 if waiting is None else waiting.keep.shape[0]) != experiment.room_to_wait:
        raise ValueError(
            "The state's buffer is of an experiment with another merge_every or batch_size, or "
            "that refreshes more or less: begin with init(experiment)."
        )
    if waiting is None:
        put, held = replay_buffer.add, state.replay
    else:
        put, held = replay_buffer.wait, waiting
    held = lax.cond(
        proposal.fresh,
        lambda held: put(held, *batch),
        lambda held: put(held, *batch, renew_age=False) if config.refresh else held,
        held,
    )
    return held if isinstance(held, Replay) else replace(state.replay, waiting=held)


def _merged(experiment: Experiment, buffer: Replay | None, number: Int[Array, ""]) -> Replay | None:
    """The buffer at the end of a step: by its number, so that seeds in one program merge together
    or not at all.
    """
    if buffer is None or buffer.waiting is None or experiment.replay is None:
        return buffer
    due = experiment.replay.merges_at(number)
    return lax.cond(due, replay_buffer.merge, lambda buffer: buffer, buffer)


def _over_seeds(function, state: SeedState, *others):
    """`vmap` over seeds, or for a single one the plain function, which compiles to less."""
    if state.trouble.shape[0] > 1:
        return jax.vmap(lambda *args: function(*args, SEED_AXIS), axis_name=SEED_AXIS)(
            state, *others
        )
    single = jax.tree.map(lambda leaf: leaf[0], (state, *others))
    return jax.tree.map(lambda leaf: leaf[None], function(*single, None))


def _ask(experiment: Experiment, state: TrainState) -> Proposal:
    return _over_seeds(
        lambda seed, axis_name: _ask_seed(experiment, seed, state.step, axis_name), state.seeds
    )


def _tell(experiment, state: TrainState, proposal, log_reward):
    seeds, info = _over_seeds(
        lambda seed, proposal, log_reward, axis_name: _tell_seed(
            *(experiment, seed, state.step, proposal),
            *(_rewarded(proposal, log_reward), axis_name),
        ),
        state.seeds,
        proposal,
        log_reward,
    )
    return TrainState(state.step + 1, seeds), info


def _by_seed(program: Callable[..., PyTree], numbers: Experiment, state: TrainState, *others):
    """What a program makes of a state and of what else has a leading axis [S]: of all seeds, or on
    a CPU of each.
    """
    if not _apart.runs_apart(state.num_seeds, numbers, state, others):
        return [program(numbers, state, *others)]

    alone = functools.partial(_of_seed, program, numbers, state, others)
    in_turn = isinstance(numbers.target, HostReward)
    return _apart.for_each(alone, range(state.num_seeds), in_turn=in_turn)


def _of_seed(program: Callable[..., PyTree], numbers: Experiment, state: TrainState, others, i):
    return program(numbers, state.alone(i), *_apart.seed_of(others, i))


def _joined(results: Sequence[tuple[TrainState, StepInfo]]) -> tuple[TrainState, StepInfo]:
    parts, infos = zip(*results, strict=True)
    return _whole(parts), _apart.together(infos)


def _whole(parts: Sequence[TrainState]) -> TrainState:
    """Seeds that have made the same number of steps, as one state."""
    return TrainState(parts[0].step, _apart.together([part.seeds for part in parts]))


_ask_seeds = eqx.filter_jit(_ask)
_tell_seeds = eqx.filter_jit(_tell)
_learn = eqx.filter_jit(_tell, donate="all-except-first")


@eqx.filter_jit
def _propose(experiment: Experiment, state: TrainState) -> tuple[Proposal, PyTree]:
    proposal = _ask(experiment, state)
    return proposal, objects(experiment, proposal)


def _step_seed(experiment, state: SeedState, number, axis_name):
    proposal = _ask_seed(experiment, state, number, axis_name)
    log_reward = _reward_seed(experiment, proposal)
    return _tell_seed(experiment, state, number, proposal, log_reward, axis_name)


def _step_seeds(experiment: Experiment, state: TrainState) -> tuple[TrainState, StepInfo]:
    seeds, info = _over_seeds(
        lambda seed, axis_name: _step_seed(experiment, seed, state.step, axis_name), state.seeds
    )
    return TrainState(state.step + 1, seeds), info


_run_step = eqx.filter_jit(_step_seeds)


def _run_up_to(num_steps: int, capacity: int, numbers: Experiment, state: TrainState):
    return _run_chunk(numbers, state, jnp.asarray(num_steps), capacity)


@eqx.filter_jit(donate="all-except-first")
def _run_chunk(experiment: Experiment, state: TrainState, num_steps, capacity: int):
    def body(carry):
        i, state, infos = carry
        state, info = _step_seeds(experiment, state)
        infos = jax.tree.map(lambda all_, row: all_.at[:, i].set(row), infos, info)
        return i + 1, state, infos

    def running(carry):
        i, state, _ = carry
        return (i < num_steps) & jnp.all(state.seeds.trouble == 0)

    infos = jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0], capacity), leaf.dtype),
        eqx.filter_eval_shape(_step_seeds, experiment, state)[1],
    )
    _, state, infos = lax.while_loop(running, body, (jnp.asarray(0), state, infos))
    return state, infos
