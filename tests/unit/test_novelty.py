"""Novelty: what it measures, and how the training loop carries what it has learned."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from didact._experiment import Experiment
from didact._train import ask, init, objects, tell
from didact.behaviours import Cycle, FromReplay, FromTeacher, OnPolicy
from didact.checkpoint import CheckpointPolicy, CheckpointWriter, load_state
from didact.environments import Hypergrid
from didact.networks import MLPConfig
from didact.novelty import RND, Novelty
from didact.objectives import GAFN
from didact.replay import ReplayConfig
from didact.targets import DeceptiveGrid
from didact.teacher import DoubleLog, Sibling

ENV, TARGET = Hypergrid(2, 8), DeceptiveGrid(2, 8)
SMALL = RND(width=64, size=16)


class Visits(Novelty):
    """1/(1 + number of times that a state was seen)."""

    def init(self, environment, *, key):
        return jnp.zeros(environment.num_internal + environment.num_terminal_states)

    def __call__(self, memory, environment, state) -> Float[Array, ""]:
        return 1 / (1 + memory[environment.index_of(state)])

    def learn(self, memory, environment, state, weight):
        return memory.at[jax.vmap(environment.index_of)(state)].add(weight)


def setting(**parts) -> Experiment:
    common = {
        "environment": ENV,
        "target": TARGET,
        "novelty": Visits(),
        "network": MLPConfig(8, 1),
        "batch_size": 8,
    }
    return Experiment(**(common | parts))


def visited(proposal, seed: int) -> np.ndarray:
    """How often a proposal's trajectories visit each state, from first to last."""
    trajectory = jax.tree.map(lambda leaf: leaf[seed], proposal.trajectory)
    numbers = np.asarray(jax.vmap(jax.vmap(ENV.index_of))(trajectory.states))
    mask = np.asarray(trajectory.mask)
    count = np.zeros(ENV.num_internal + ENV.num_terminal_states)
    np.add.at(count, numbers[:, :-1][mask], 1)
    last = np.argmax(np.cumsum(mask, axis=1) == mask.sum(axis=1)[:, None], axis=1)
    np.add.at(count, numbers[np.arange(len(last)), last + 1], 1)
    return count


@pytest.mark.slow
def test_the_memory_holds_every_visit_of_every_batch_and_of_each_seed_its_own():
    """Whatever the padding, fresh or replayed, and though equal states are looked at once."""
    experiment = setting(behaviour=Cycle((OnPolicy(), FromReplay())), replay=ReplayConfig(16))
    state, counts = init(experiment, [3, 4]), np.zeros((2, 49 + 63))
    assert state.seeds.novelty.shape == counts.shape
    for _ in range(4):
        proposal = ask(experiment, state)
        rewards = jax.vmap(jax.vmap(TARGET.log_reward))(objects(experiment, proposal))
        state, _ = tell(experiment, state, proposal, rewards)
        counts += np.stack([visited(proposal, seed) for seed in range(2)])
        np.testing.assert_array_equal(state.seeds.novelty, counts)
    assert not np.array_equal(counts[0], counts[1])


@pytest.mark.slow
def test_a_teachers_reward_is_told_how_new_each_edge_was_before_the_batch():
    """The priority of what is kept is the Teacher's log-reward: here log(R + novelty) itself."""
    experiment = setting(
        teacher_reward=Sibling(),
        behaviour=Cycle((OnPolicy(), FromTeacher())),
        replay=ReplayConfig(64, "teacher"),
    )
    state = init(experiment, [0])
    for _ in range(3):
        before = np.asarray(state.seeds.novelty[0])
        proposal = ask(experiment, state)
        x = objects(experiment, proposal)
        rewards = jax.vmap(jax.vmap(TARGET.log_reward))(x)
        state, _ = tell(experiment, state, proposal, rewards)
        ends = jax.tree.map(lambda leaf: leaf[0], proposal.trajectory.terminal)
        number = np.asarray(jax.vmap(ENV.index_of)(ends))
        expected = np.log(np.exp(np.asarray(rewards[0])) + 1 / (1 + before[number]))
        buffer = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.seeds.replay)
        held = {tuple(buffer.x[i]): buffer.priority[i] for i in range(buffer.size)}
        for one, value in zip(np.asarray(x[0]), expected, strict=True):
            np.testing.assert_allclose(held[tuple(one)], value, atol=1e-5)


def test_what_is_learned_survives_in_checkpoints(tmp_path):
    experiment = setting(objective=GAFN(), novelty=SMALL)
    fresh = init(experiment, [0])
    moved = jax.tree.map(lambda leaf: leaf + 1 if eqx.is_array(leaf) else leaf, fresh.seeds.novelty)
    state = eqx.tree_at(lambda s: s.seeds.novelty, fresh, moved)
    with CheckpointWriter(tmp_path, CheckpointPolicy(), step=0) as writer:
        writer.save(state)
    again = load_state(tmp_path, fresh)
    assert eqx.tree_equal(again.seeds.novelty, moved)
    assert not eqx.tree_equal(fresh.seeds.novelty, moved)


def test_there_is_no_memory_where_nothing_asks_for_one():
    plain = setting(novelty=None, teacher_reward=DoubleLog())
    seeds = init(plain, [0]).seeds
    assert seeds.novelty is None
    assert seeds.chains is None


def test_those_that_ask_how_new_states_are_need_a_measure():
    for parts in ({"objective": GAFN()}, {"teacher_reward": Sibling()}):
        with pytest.raises(ValueError, match="how new states are: give the Experiment a novelty"):
            setting(novelty=None, **parts)
    with pytest.raises(ValueError, match="how new states are"):
        setting(novelty=None, teacher_reward=DoubleLog(), teacher_objective=GAFN())


# ---- random network distillation -------------------------------------------------------------


STATES = jax.vmap(ENV.state_at)(jnp.arange(ENV.num_internal))


@eqx.filter_jit
def distil(memory, weight, steps: int):
    """The memory after so many looks at all states, and how new each of them then is."""
    memory = jax.lax.fori_loop(0, steps, lambda _, m: SMALL.learn(m, ENV, STATES, weight), memory)
    return memory, jax.vmap(lambda state: SMALL(memory, ENV, state))(STATES)


def test_what_is_seen_becomes_known_and_the_rest_stays_new(key):
    """A part of the grid is looked at: its novelty falls, beyond it much less. A state of weight 0
    teaches nothing, and the random network never changes.
    """
    seen = np.asarray(STATES.position[:, 0] < 3)
    begun = SMALL.init(ENV, key=key)
    nothing, first = distil(begun, jnp.zeros(len(seen)), 3)
    assert eqx.tree_equal(nothing.predictor, begun.predictor)
    known, then = distil(begun, jnp.asarray(seen, jnp.float32), 400)
    share = np.asarray(then / first)
    assert np.all(np.asarray(first) > 0.05)
    assert share[seen].max() < 0.1
    assert share[~seen].min() > 2 * share[seen].max()
    assert eqx.tree_equal(known.target, begun.target)


def test_the_novelty_of_what_is_known_exactly_has_a_gradient(key):
    """Where both networks agree the slope of the norm is not a number, and must not be taken."""
    memory = SMALL.init(ENV, key=key)
    agreed = eqx.tree_at(lambda m: m.predictor, memory, memory.target)
    learned, novelty = distil(agreed, jnp.ones(ENV.num_internal), 1)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(learned))
    assert np.all(np.isfinite(novelty))


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="size must be >= 1"):
        RND(size=0)
    with pytest.raises(ValueError, match="learning_rate must be >= 0"):
        RND(learning_rate=-1.0)
