"""The laws of a behaviour."""

import itertools
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .. import replay
from .._checks import require
from .._sampler import Sampler, sample_forward, score
from .._types import EnumerableEnvironment, Environment, Sample, Target, Trajectory
from ..behaviours import Agents, Behaviour, Chains, Proposal, Turn
from ..behaviours._behaviour import Source
from ..environments import Hypergrid
from ..networks import DiffusionMLPConfig, MLPConfig, NetworkConfig
from ..targets import DeceptiveGrid
from ._forms import compiles, show_form
from ._graph import graph
from ._laws import Checked, Ledger, fault_at, show, show_state, take
from ._process import unchanged
from ._statistics import ERROR_RATE, chi_square
from ._trajectories import check_trajectories

TURNS = "turns say who makes each batch"
SAYS = "a proposal says where it comes from, as its turn does"
KNOWN = "rewards that are known are log R of the objects"
HELD = "a batch of the buffer holds its objects, with their rewards"
EMPTY = "while the buffer is empty, its batches have weight 0"
COPIES = "after its own trajectories a proposal has copies of the first, of weight 0"
SAME = "the same key gives the same batch"
KEYS = "each key is used once: batches of different keys differ, and so do trajectories of one"
ALONE = "under vmap each seed gets what it would alone"
ON_POLICY = "a turn that is on_policy has the law of the Student's trajectories"
SCORES = "log-probabilities that are proposed are those of the Student as it is now"
_SAMPLES = 2048
_MOST_STATES = 4096
_MOST_TURNS = 8


def check_behaviour(
    behaviour: Behaviour,
    agents: Agents | None = None,
    *,
    key: PRNGKeyArray | None = None,
    batch_size: int = 32,
    first_step: int = 0,
) -> Checked:
    r"""Check the laws of a `didact.behaviours.Behaviour`.

    - `turns` name who makes the batches, and each proposal says the same of itself.
    - Its trajectories are as many as a batch has, or the multiple that its turn says. Where another
      turn has more it has as many: after its own come copies of the first, with weight 0.
    - Its trajectories are paths of the environment: from the initial state to a terminal one along
      allowed edges that `backward_step` undoes, padded at one end.
    - Where rewards are `known` they are log R of the objects. A batch of the buffer holds objects
      of it, with their rewards, and has weight 0 while the buffer is empty. Where a proposal
      carries `log_pf` or `log_pb`, they are those of the Student as it is now.
    - The same key gives the same batch. Different keys give different ones, at consecutive steps
      too, and the halves of a batch differ: no key is used twice.
    - Compiled and batched by `vmap`, each seed gets what it would alone.
    - A turn that is `on_policy` has the law of the Student's trajectories, and so have those that
      count: Pearson's χ² of 2,048 ends, each by its weight, where the environment has at most
      4,096 states that can be numbered.

    **Arguments:** `agents`: whom it may ask (None: `make_agents` on a grid of 7 × 7); `key` of the
    batches (None: always the same ones); `batch_size`: even; `first_step`: the first of the steps
    that are looked at, as many as there are turns, and at least three. A behaviour that changes as
    training goes on is to be checked where it has changed too. A false alarm has a chance below
    1e-7 for each law.

    **Errors:** `ConformanceError` for the first law that is broken; `ValueError` for an odd
    `batch_size`, or a negative `first_step`.
    """
    require("first_step", first_step, at_least=0)
    if batch_size < 2 or batch_size % 2:
        raise ValueError(f"batch_size must be even, got {batch_size}: halves are compared.")
    key = jax.random.key(0) if key is None else key
    ledger = Ledger(behaviour)
    ledger.must_be(Behaviour, "behaviours")
    if agents is None:
        grid, target = Hypergrid(2, 7), DeceptiveGrid(2, 7)
        agents = make_agents(grid, target, key=jax.random.fold_in(key, 1), batch_size=batch_size)
    with unchanged(ledger, behaviour):
        turns = _check_turns(ledger, behaviour)
        if len(turns) > _MOST_TURNS:
            ledger.leave_out(f"turns beyond {_MOST_TURNS} in a row")
        # At least three steps, to compare one with the next.
        steps = range(first_step, first_step + max(min(len(turns), _MOST_TURNS), 3))
        keys = jax.random.split(key, len(steps))
        with compiles(ledger, "the behaviour"):
            batches = [
                propose(behaviour, agents, key, jnp.asarray(step), batch_size)
                for step, key in zip(steps, keys, strict=True)
            ]
        _check_form(ledger, agents, batches[0], batch_size * behaviour.most_batches)
        made = [_turn_at(behaviour, step) for step in steps]
        for step, turn, batch in zip(steps, made, batches, strict=True):
            _check_copies(ledger, turn, batch, batch_size, f"At step {step}")
        batches = [_own(batch, turn, batch_size) for turn, batch in zip(made, batches, strict=True)]
        for step, turn, batch in zip(steps, made, batches, strict=True):
            _check_batch(ledger, agents, turn, batch, f"At step {step}")
        _check_keys(ledger, behaviour, agents, batches, keys, first_step, batch_size)
        for i, (step, turn) in enumerate(zip(steps, made[: len(turns)], strict=False)):
            pair = keys[jnp.asarray([i, i - 1])]
            _check_alone(ledger, behaviour, agents, batches[i], pair, step, batch_size)
            if turn.needs_buffer:
                _check_empty(ledger, behaviour, agents, keys[i], step, batch_size)
            if turn.on_policy:
                _check_on_policy(ledger, behaviour, agents, keys[i], step, batch_size)
    return ledger.close(
        f"{len(batches)} batches of {batch_size} trajectories, of the steps {steps[0]} to "
        f"{steps[-1]}"
    )


def make_agents(
    environment: Environment,
    target: Target,
    *,
    network: NetworkConfig | None = None,
    key: PRNGKeyArray | None = None,
    batch_size: int = 32,
) -> Agents:
    """Agents for `check_behaviour`: a Student and a Teacher with fresh networks, a buffer with
    objects of the Student, drawn uniformly, and chains at these objects.

    **Arguments:** `network` (None: a small MLP, or for `didact.environments.Diffusion` the network
    made for it); `key` (None: always the same ones); `batch_size`: the number of objects and
    chains.
    """
    key = jax.random.key(0) if key is None else key
    if network is None:
        form = jax.eval_shape(lambda: environment.features(environment.initial_state()))
        is_vector = isinstance(form, jax.ShapeDtypeStruct)
        network = MLPConfig(8, 1) if is_vector else DiffusionMLPConfig(8, 3, depth=1)
    return _make_agents(environment, target, network, key, batch_size)


@eqx.filter_jit
def _make_agents(
    env: Environment, target: Target, network: NetworkConfig, key: PRNGKeyArray, number: int
) -> Agents:
    def sampler(key: PRNGKeyArray) -> Sampler:
        policy = network.build(env, flow_head=False, backward_head=False, key=key)
        return Sampler(env, policy, jnp.zeros(()))

    student_key, teacher_key, draw_key = jax.random.split(key, 3)
    student = sampler(student_key)
    end = sample_forward(student, draw_key, number).terminal
    x = jax.vmap(env.sample_of)(end)
    log_reward = jax.vmap(target.log_reward)(x)
    like = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], x))
    buffer = replay.add(replay.empty(like, number), x, log_reward, log_reward)
    chains = Chains(x, jnp.full(number, -jnp.inf))
    return Agents(target, student, sampler(teacher_key), buffer, chains=chains)


def _check_turns(ledger: Ledger, behaviour: Behaviour) -> tuple[Turn, ...]:
    turns = behaviour.turns
    right = isinstance(turns, tuple) and all(isinstance(turn, Turn) for turn in turns) and turns
    ledger.holds(TURNS, None if right else f"turns is {show(turns)}: it must be a tuple of Turns.")
    for step, turn in enumerate(turns):
        fault = f"The source of turn {step} is {turn.source!r}: choose one of {get_args(Source)}."
        ledger.holds(TURNS, None if turn.source in get_args(Source) else fault)
        fault = f"Turn {step} is on_policy, and its source is {turn.source!r}."
        ledger.holds(TURNS, fault if turn.on_policy and turn.source != "student" else None)
        fault = f"Turn {step} has objects for {turn.batches} batches, and is of {turn.source!r}."
        several = turn.source == "replay" and not turn.reward_calls
        right = turn.batches == 1 or (several and turn.batches > 1)
        ledger.holds(TURNS, None if right else fault)
    return turns


def _check_form(ledger: Ledger, agents: Agents, form: Any, batch_size: int) -> None:
    law = "it returns a Proposal, with one number a trajectory"
    names = [name for name in Proposal.__dataclass_fields__ if name != "log_ratio"]
    missing = [name for name in names if not hasattr(form, name)]
    ledger.holds(law, f"It returns {show_form(form)}." if missing else None)
    wanted = {"log_reward": ((batch_size,), jnp.floating), "weight": ((batch_size,), jnp.floating)}
    wanted |= dict.fromkeys(("fresh", "known", "by_student", "collect"), ((), jnp.bool_))
    for name, (shape, kind) in wanted.items():
        value = getattr(form, name)
        right = getattr(value, "shape", None) == shape and jnp.issubdtype(value.dtype, kind)
        fault = f"{name} is {show_form(value)}: it must be {kind.__name__}{list(shape)}."
        ledger.holds(law, None if right else fault)
    steps = agents.student.environment.num_steps
    mask = form.trajectory.mask
    fault = f"The mask is {show_form(mask)}: it must be bool{[batch_size, steps]}."
    ledger.holds(law, None if mask.shape == (batch_size, steps) else fault)


@eqx.filter_jit
def propose(
    behaviour: Behaviour, agents: Agents, key: PRNGKeyArray, step: Array, batch_size: int
) -> Any:
    """A batch, compiled."""
    return behaviour(agents, key, step, batch_size)


@eqx.filter_jit
def propose_all(
    behaviour: Behaviour, agents: tuple[Agents, Agents], keys: Array, step: Array, batch_size: int
) -> Any:
    """The batches of two seeds, compiled together."""
    parts = [eqx.partition(one, eqx.is_array) for one in agents]
    arrays = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(part[0] for part in parts))

    def one(arrays: Any, key: PRNGKeyArray) -> Any:
        mine = eqx.combine(arrays, parts[0][1])
        return behaviour(mine, key, step, batch_size, axis_name="seed")

    return jax.vmap(one, axis_name="seed")(arrays, keys)


def _own(batch: Any, turn: Turn, batch_size: int, axis: int = 0) -> Any:
    """A proposal without what makes it as large as another turn's."""
    own = (slice(None),) * axis + (slice(turn.batches * batch_size),)
    return jax.tree.map(lambda leaf: leaf[own] if leaf.ndim > axis else leaf, batch)


def _check_copies(ledger: Ledger, turn: Turn, batch: Any, batch_size: int, when: str) -> None:
    own = turn.batches * batch_size
    weight = np.asarray(batch.weight)[own:]
    fault = f"{when} trajectory {own} and later ones have weight, the turn being {turn}."
    ledger.holds(COPIES, fault if np.any(weight != 0) else None)
    parts = (batch.trajectory, batch.log_reward)
    same = all(
        np.array_equal(leaf[own:], np.broadcast_to(leaf[:1], leaf[own:].shape), equal_nan=True)
        for leaf in (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(parts))
    )
    fault = f"{when} trajectory {own} and later ones differ from the first, the turn being {turn}."
    ledger.holds(COPIES, None if same else fault)


def _turn_at(behaviour: Behaviour, step: int) -> Turn:
    return behaviour.turns[step % len(behaviour.turns)]


def _another_seed(agents: Agents) -> Agents:
    """Agents of the same form: the Teacher is the Student, where the two are alike."""
    teacher = agents.teacher
    if jax.tree.structure(teacher) != jax.tree.structure(agents.student):
        return agents
    return eqx.tree_at(lambda a: (a.student, a.teacher), agents, (teacher, agents.student))


def _check_batch(ledger: Ledger, agents: Agents, turn: Turn, batch: Any, when: str) -> None:
    env = agents.student.environment
    check_trajectories(ledger, env, batch.trajectory, when)
    for name, wanted in (
        ("fresh", turn.source != "replay"),
        ("by_student", turn.source == "student"),
        ("collect", turn.collects),
    ):
        value = bool(getattr(batch, name))
        fault = f"{when} {name} is {value}, and the turn is {turn}."
        ledger.holds(SAYS, None if value == wanted else fault)
    fault = f"{when} reward_calls is {turn.reward_calls}, and fresh is {bool(batch.fresh)}."
    ledger.holds(SAYS, None if (turn.reward_calls > 0) == bool(batch.fresh) else fault)
    fault = f"{when} neither fresh nor known is True: nobody knows its rewards."
    ledger.holds(SAYS, None if bool(batch.fresh) or bool(batch.known) else fault)
    weight = np.asarray(batch.weight)
    fault = fault_at(
        ~(np.isfinite(weight) & (weight >= 0)),
        lambda b: f"{when} the weight of trajectory {b} is {weight[b]}",
        "trajectories",
    )
    ledger.holds("weights are finite, and at least 0", fault)
    x, wanted = _objects(agents, batch.trajectory)
    if bool(batch.known):
        found, wanted = np.asarray(batch.log_reward), np.asarray(wanted)
        fault = fault_at(
            ~(np.abs(found - wanted) <= 1e-4 * np.maximum(np.abs(wanted), 1)),
            lambda b: (
                f"{when} log_reward of {show_state(take(x, b))} is {found[b]:.6g}, and log R is "
                f"{wanted[b]:.6g}"
            ),
            "trajectories",
        )
        ledger.holds(KNOWN, fault)
    if turn.source == "replay" and agents.replay is not None:
        _check_held(ledger, agents.replay, x, batch, when)
    _check_scores(ledger, agents, batch, when)


@eqx.filter_jit
def _objects(agents: Agents, trajectory: Trajectory) -> tuple[Sample, Array]:
    """The objects of trajectories, and log R of each."""
    x = jax.vmap(agents.student.environment.sample_of)(trajectory.terminal)
    return x, jax.vmap(agents.target.log_reward)(x)


def _rows(tree: Any) -> list[bytes]:
    """Each entry of batched arrays as bytes, to be compared."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))]


def _check_held(ledger: Ledger, buffer: replay.Replay, x: Sample, batch: Any, when: str) -> None:
    size = int(buffer.size)
    held = dict(zip(_rows(buffer.x)[:size], np.asarray(buffer.log_reward), strict=False))
    drawn = [held.get(row, np.nan) for row in _rows(x)]
    found = np.asarray(batch.log_reward)
    fault = fault_at(
        ~(np.abs(found - drawn) <= 1e-6 * np.maximum(np.abs(found), 1)),
        lambda b: (
            f"{when} {show_state(take(x, b))} has log_reward {found[b]:.6g}, and in the buffer "
            f"{drawn[b]:.6g} (nan: it is not there)"
        ),
        "trajectories",
    )
    ledger.holds(HELD, fault)


def _check_scores(ledger: Ledger, agents: Agents, batch: Any, when: str) -> None:
    """Of a proposal that carries more than it must."""
    for name in ("log_pf", "log_pb"):
        carried = getattr(batch, name, None)
        if carried is None:
            continue
        scored = _score(agents.student, batch.trajectory)
        fresh = np.asarray(getattr(scored, name))
        carried = np.asarray(carried)
        mask = np.asarray(scored.mask)
        off = np.where(mask, np.abs(carried - fresh), 0)
        fault = fault_at(
            ~(off <= 1e-3 * np.maximum(np.abs(fresh), 1)),
            lambda b, t, name=name, carried=carried, fresh=fresh: (
                f"{when} {name} of trajectory {b}, edge {t} is {carried[b, t]:.6g}, and the "
                f"Student gives {fresh[b, t]:.6g}: it is stale"
            ),
            "edges",
        )
        ledger.holds(SCORES, fault)


@eqx.filter_jit
def _score(student: Sampler, trajectory: Trajectory) -> Any:
    ones = jnp.ones(trajectory.mask.shape[0])
    return score(student, trajectory, ones, ones)


def _paths(trajectory: Trajectory) -> list[bytes]:
    """Each trajectory as bytes, padding aside."""
    mask = np.asarray(trajectory.mask)

    def real(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return np.where(mask.reshape(*mask.shape, *[1] * (leaf.ndim - 2)), leaf, 0)

    actions = jax.tree.map(real, trajectory.actions)
    return _rows((trajectory.states, actions, mask))


def _check_keys(
    ledger: Ledger,
    behaviour: Behaviour,
    agents: Agents,
    batches: list[Any],
    keys: Array,
    first_step: int,
    batch_size: int,
) -> None:
    number, turn = jnp.asarray(first_step), _turn_at(behaviour, first_step)

    def again_with(key: PRNGKeyArray) -> Any:
        return _own(propose(behaviour, agents, key, number, batch_size), turn, batch_size)

    again = again_with(keys[0])
    same = bool(eqx.tree_equal(again, batches[0]))
    ledger.holds(SAME, None if same else f"It gives two for one key at step {first_step}.")
    paths = [_paths(batch.trajectory) for batch in batches]
    other = again_with(keys[1])
    # Of eight different trajectories none comes again by chance, in this order.
    if len(set(paths[0])) < min(8, batch_size // 2):
        many = agents.replay is not None and int(agents.replay.size) >= 8
        fault = f"At step {first_step} all {batch_size} trajectories are the same."
        ledger.holds(KEYS, fault if many and len(set(paths[0])) == 1 else None)
        ledger.leave_out("the use of keys: there are too few different trajectories")
        return
    fault = f"At step {first_step} two keys give the same batch."
    ledger.holds(KEYS, fault if _paths(other.trajectory) == paths[0] else None)
    for step, (one, following) in enumerate(itertools.pairwise(paths), first_step):
        fault = f"Steps {step} and {step + 1} have the same batch, though their keys differ."
        ledger.holds(KEYS, fault if one == following else None)
    for step, path in enumerate(paths, first_step):
        half = len(path) // 2
        if len(set(path[:half])) >= min(8, half):
            fault = f"At step {step} the first half of the batch is the second half."
            ledger.holds(KEYS, fault if path[:half] == path[half : 2 * half] else None)


def _check_alone(
    ledger: Ledger,
    behaviour: Behaviour,
    agents: Agents,
    batch: Any,
    keys: Array,
    step: int,
    batch_size: int,
) -> None:
    """`batch` is that of the first of two keys."""
    number, second, turn = jnp.asarray(step), _another_seed(agents), _turn_at(behaviour, step)
    together = propose_all(behaviour, (agents, second), keys, number, batch_size)
    together = _own(together, turn, batch_size, axis=1)
    other = _own(propose(behaviour, second, keys[1], number, batch_size), turn, batch_size)
    size = turn.batches * batch_size
    for seed, alone in enumerate((batch, other)):
        mine = jax.tree.map(lambda leaf, seed=seed: leaf[seed], together)
        different = np.zeros(size, bool)
        for one, wanted in zip(_contents(mine), _contents(alone), strict=True):
            off = np.abs(one - wanted) > 1e-3 * np.maximum(np.abs(wanted), 1)
            different |= np.any(off.reshape(size, -1), axis=1)
        fault = fault_at(
            different,
            lambda b, seed=seed: f"At step {step} of seed {seed}, trajectory {b} is another",
            "trajectories",
        )
        # Products of batches add up in another order, which can turn one comparison.
        ledger.holds(ALONE, fault if different.sum() > size // 8 else None)


def _contents(batch: Any) -> list[np.ndarray]:
    parts = (batch.trajectory.states, batch.trajectory.mask, batch.weight, batch.log_reward)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(parts)]


def _check_empty(
    ledger: Ledger,
    behaviour: Behaviour,
    agents: Agents,
    key: PRNGKeyArray,
    step: int,
    batch_size: int,
) -> None:
    if agents.replay is None:
        return
    like = jax.tree.map(lambda leaf: leaf[0], agents.replay.x)
    empty = replay.empty(
        like, len(agents.replay.priority), unique=agents.replay.fingerprint is not None
    )
    nothing = eqx.tree_at(lambda a: a.replay, agents, empty)
    weight = propose(behaviour, nothing, key, jnp.asarray(step), batch_size).weight
    fault = f"At step {step} they are {np.unique(np.asarray(weight)).tolist()}."
    ledger.holds(EMPTY, fault if np.any(np.asarray(weight) != 0) else None)


@eqx.filter_jit
def _policy_table(student: Sampler) -> Array:
    env = student.environment
    assert isinstance(env, EnumerableEnvironment)

    def row(number: Array) -> Array:
        kernel = student.forward_kernel(env.state_at(number))
        return jax.vmap(kernel.log_prob)(jnp.arange(env.num_actions, dtype=jnp.int32))

    return jax.vmap(row)(jnp.arange(env.num_internal, dtype=jnp.int32))


@eqx.filter_jit
def _numbers(env: EnumerableEnvironment, trajectory: Trajectory) -> Array:
    return jax.vmap(jax.vmap(env.index_of))(trajectory.terminal) - env.num_internal


def _check_on_policy(
    ledger: Ledger,
    behaviour: Behaviour,
    agents: Agents,
    key: PRNGKeyArray,
    step: int,
    batch_size: int,
) -> None:
    student = agents.student
    env = student.environment
    if not isinstance(env, EnumerableEnvironment) or env.num_internal > _MOST_STATES:
        ledger.leave_out(f"{ON_POLICY}: the environment has no table")
        return
    law = graph(env).terminal_law(np.asarray(_policy_table(student), np.float64))
    keys = jax.random.split(key, 2 * -(-_SAMPLES // (2 * batch_size)))
    ends, weights = [], []
    for pair in keys.reshape(-1, 2):
        batch = propose_all(behaviour, (agents, agents), pair, jnp.asarray(step), batch_size)
        batch = _own(batch, _turn_at(behaviour, step), batch_size, axis=1)
        ends.append(np.asarray(_numbers(env, batch.trajectory)).ravel())
        weights.append(np.asarray(batch.weight, np.float64).ravel())
    _check_ends(ledger, np.concatenate(ends), np.concatenate(weights), law / law.sum())


def _check_ends(ledger: Ledger, ends: np.ndarray, weight: np.ndarray, law: np.ndarray) -> None:
    """Whether terminal states have this law, all of them and as they are weighted."""
    uniform = np.ones_like(weight)
    for each in (uniform,) if np.all(weight == weight[0]) else (uniform, weight):
        square = np.sum(each**2)
        if square == 0:
            ledger.leave_out(f"{ON_POLICY}: all weights are 0")
            return
        # If weights do not depend on ends, Pearson's statistic of these has its law: their
        # variance is that of counts. No cell may hang on a few large weights.
        unit = each.sum() / square
        counts = unit * np.bincount(ends, each, minlength=len(law))
        p = chi_square(counts, law, least_expected=20 * max(unit * each.max(), 1))
        worst = int(np.argmax(np.abs(counts / counts.sum() - law)))
        how = "" if each is uniform else ", weighted,"
        fault = (
            f"Terminal state {worst} came{how} {counts[worst]:.4g} times in {counts.sum():.4g}, "
            f"and the Student ends there with probability {law[worst]:.4g}; p = {p:.1e}."
        )
        ledger.holds(ON_POLICY, fault if p < ERROR_RATE / 2 else None)
