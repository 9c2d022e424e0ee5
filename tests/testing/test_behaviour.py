"""Behaviours with one planted fault each."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from didact import replay
from didact.behaviours import Behaviour, Proposal, Turn
from didact.environments import Autoregressive, StringState, Trajectory
from didact.targets import FromFunction
from didact.testing import ConformanceError, check_behaviour, make_agents

BATCH = 16
ENV = Autoregressive(4, 3)
TARGET = FromFunction(lambda x: 0.5 * jnp.sum(x) - 1.0)


@functools.cache
def agents():
    """On strings: trees have short programs."""
    return make_agents(ENV, TARGET, batch_size=BATCH)


def walk(x) -> Trajectory:
    """The only trajectory to each string."""
    place = jnp.arange(ENV.length + 1)

    def one(x):
        states = jax.vmap(lambda n: StringState(jnp.where(place[:-1] < n, x, 0), n))(place)
        return Trajectory(states, x, jnp.ones(ENV.length, bool))

    return jax.vmap(one)(jnp.asarray(x, jnp.int32))


class Strings(Behaviour):
    """Even strings, written from the abstract type alone; the mutants change one line."""

    @property
    def turns(self):
        return (Turn("search"),)

    def draw(self, key, step, batch_size):
        return jax.random.randint(key, (batch_size, ENV.length), 0, ENV.num_symbols)

    def propose(self, x, agents, **changes):
        log_reward = jax.vmap(agents.target.log_reward)(x)
        proposal = {
            "trajectory": walk(x),
            "log_reward": log_reward,
            "weight": jnp.ones(len(x)),
            "fresh": jnp.asarray(True),
            "known": jnp.asarray(True),
            "by_student": jnp.asarray(False),
            "collect": jnp.asarray(False),
            "log_ratio": jnp.full(len(x), -jnp.inf),
        }
        return Proposal(**(proposal | changes))

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        return self.propose(self.draw(key, step, batch_size), agents)


class ReusesTheKey(Strings):
    """Both halves of a batch are drawn with one key."""

    def draw(self, key, step, batch_size):
        half = super().draw(key, step, batch_size // 2)
        return jnp.concatenate([half, half])


class OneKeyForAll(Strings):
    """Every trajectory is drawn with the same key."""

    def draw(self, key, step, batch_size):
        return jnp.tile(super().draw(key, step, 1), (batch_size, 1))


class IgnoresTheKey(Strings):
    def draw(self, key, step, batch_size):
        return super().draw(jax.random.fold_in(jax.random.key(0), step), step, batch_size)


class FirstBatchTwice(Strings):
    """The batch of step 0 comes again at step 1."""

    def draw(self, key, step, batch_size):
        first = super().draw(jax.random.key(7), step, batch_size)
        return jnp.where(step < 2, first, super().draw(key, step, batch_size))


class Forgetful(Strings):
    """It draws anew each time: a counter outside decides."""

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        salt = jax.pure_callback(
            _count, jax.ShapeDtypeStruct((), jnp.int32), vmap_method="expand_dims"
        )
        return super().__call__(agents, jax.random.fold_in(key, salt), step, batch_size)


def _count(state=[0]):  # noqa: B006  (this is what the fault is)
    import numpy as np

    state[0] += 1
    return np.int32(state[0])


class StaleRewards(Strings):
    """Rewards are those of other objects."""

    def propose(self, x, agents, **changes):
        log_reward = jax.vmap(agents.target.log_reward)(jnp.roll(x, 1, axis=0))
        return super().propose(x, agents, log_reward=log_reward)


class WithScores(eqx.Module):
    """A proposal that carries log P_F."""

    trajectory: Trajectory
    log_reward: jax.Array
    weight: jax.Array
    fresh: jax.Array
    known: jax.Array
    by_student: jax.Array
    collect: jax.Array
    log_ratio: jax.Array
    log_pf: jax.Array


class StaleScores(Strings):
    """log P_F of a policy as it was: the uniform one."""

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        proposal = super().__call__(agents, key, step, batch_size)
        log_pf = jnp.full((batch_size, ENV.length), -jnp.log(ENV.num_symbols))
        fields = {f.name: getattr(proposal, f.name) for f in dataclasses.fields(proposal)}
        return WithScores(**fields, log_pf=log_pf)


class LosesTheEnd(Strings):
    """The mask is one edge short."""

    def propose(self, x, agents, **changes):
        trajectory = walk(x)
        mask = trajectory.mask.at[:, 1].set(False)
        return super().propose(
            x, agents, trajectory=eqx.tree_at(lambda t: t.mask, trajectory, mask)
        )


class WrongEdges(Strings):
    """The actions are those of another trajectory."""

    def propose(self, x, agents, **changes):
        trajectory = walk(x)
        actions = jnp.roll(trajectory.actions, 1, axis=0)
        return super().propose(
            x, agents, trajectory=eqx.tree_at(lambda t: t.actions, trajectory, actions)
        )


class SaysItIsTheStudent(Strings):
    def propose(self, x, agents, **changes):
        return super().propose(x, agents, by_student=jnp.asarray(True))


class CountsNoCalls(Strings):
    @property
    def turns(self):
        return (Turn("search", reward_calls=0),)


class UnknownSource(Strings):
    @property
    def turns(self):
        return (Turn("nobody"),)


class SaysItIsOnPolicy(Strings):
    """Even strings, said to have the law of the Student."""

    @property
    def turns(self):
        return (Turn("student", on_policy=True),)

    def propose(self, x, agents, **changes):
        return super().propose(x, agents, by_student=jnp.asarray(True), known=jnp.asarray(False))


class OtherUnderVmap(Strings):
    """Seeds are told apart by their place."""

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        return super().__call__(agents, key, step, batch_size)


class Buffer(Strings):
    """Objects of the buffer."""

    @property
    def turns(self):
        return (Turn("replay", reward_calls=0),)

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        x, log_reward, real = replay.sample(agents.replay, key, batch_size, agents.draw)
        return self.replayed(agents, x, log_reward, real)

    def replayed(self, agents, x, log_reward, real):
        weight = real.astype(log_reward.dtype)
        return self.propose(
            x, agents, log_reward=log_reward, weight=weight, fresh=jnp.asarray(False)
        )


class NotFromTheBuffer(Buffer):
    """Neighbours of the objects of the buffer."""

    def replayed(self, agents, x, log_reward, real):
        x = (x + 1) % ENV.num_symbols
        return super().replayed(agents, x, jax.vmap(agents.target.log_reward)(x), real)


class LearnsFromNothing(Buffer):
    """While the buffer is empty, its zeros are learned from."""

    def replayed(self, agents, x, log_reward, real):
        log_reward = jax.vmap(agents.target.log_reward)(x)
        return super().replayed(agents, x, log_reward, jnp.ones_like(real))


class Sizes(Strings):
    """In turn a batch, which is made as large as the next, and two batches of the buffer."""

    spare_weight: float = 0.0
    shift: int = 0

    @property
    def turns(self):
        return (Turn("search"), Turn("replay", reward_calls=0, batches=2))

    def __call__(self, agents, key, step, batch_size, *, axis_name=None):
        new, fresh = self.draw(key, step, batch_size), step % 2 == 0
        copies = jnp.tile((new[:1] + self.shift) % ENV.num_symbols, (batch_size, 1))
        old, _, real = replay.sample(agents.replay, key, 2 * batch_size, agents.draw)
        weight = jnp.repeat(jnp.asarray([1.0, self.spare_weight]), batch_size)
        return self.propose(
            jnp.where(fresh, jnp.concatenate([new, copies]), old),
            agents,
            weight=jnp.where(fresh, weight, real),
            fresh=fresh,
        )


class LearnsFromCopies(Sizes):
    """What only makes a batch larger is learned from."""

    spare_weight: float = 0.5


class OthersInPlaceOfCopies(Sizes):
    """What makes a batch larger are trajectories that nobody asked for."""

    shift: int = 1


class AsksForMore(Strings):
    """New objects for two batches, of which only one would get its rewards."""

    @property
    def turns(self):
        return (Turn("search", batches=2),)

    def draw(self, key, step, batch_size):
        return super().draw(key, step, 2 * batch_size)


KEYS = "each key is used once"
COPIES = "after its own trajectories a proposal has copies of the first, of weight 0"
PATHS = "trajectories are paths of the environment"


class LosesItsKeyLater(Strings):
    """From step 5 on the key is always the same."""

    def draw(self, key, step, batch_size):
        key = jax.random.wrap_key_data(
            jnp.where(step < 5, jax.random.key_data(key), jnp.zeros(2, jnp.uint32))
        )
        return super().draw(key, step, batch_size)


FAULTS = [
    (ReusesTheKey, KEYS),
    (OneKeyForAll, KEYS),
    (IgnoresTheKey, KEYS),
    (FirstBatchTwice, KEYS),
    (Forgetful, "the same key gives the same batch"),
    (StaleRewards, "rewards that are known are log R of the objects"),
    (StaleScores, "log-probabilities that are proposed are those of the Student as it is now"),
    (LosesTheEnd, PATHS),
    (WrongEdges, PATHS),
    (SaysItIsTheStudent, "a proposal says where it comes from, as its turn does"),
    (CountsNoCalls, "a proposal says where it comes from, as its turn does"),
    (UnknownSource, "turns say who makes each batch"),
    (SaysItIsOnPolicy, "a turn that is on_policy has the law of the Student's trajectories"),
    (OtherUnderVmap, "under vmap each seed gets what it would alone"),
    (NotFromTheBuffer, "a batch of the buffer holds its objects"),
    (AsksForMore, "turns say who makes each batch"),
    (LearnsFromCopies, COPIES),
    (OthersInPlaceOfCopies, COPIES),
    (LearnsFromNothing, "while the buffer is empty, its batches have weight 0"),
]


SLOW = (SaysItIsOnPolicy, OtherUnderVmap, WrongEdges, Forgetful, CountsNoCalls)
"""Each class is compiled anew, which takes about a second."""


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        pytest.param(*fault, id=fault[0].__name__, marks=[pytest.mark.slow] * (fault[0] in SLOW))
        for fault in FAULTS
    ],
)
def test_a_planted_fault_is_found(kind, law, key):
    with pytest.raises(ConformanceError) as error:
        check_behaviour(kind(), agents(), key=key, batch_size=BATCH)
    first, _ = str(error.value).splitlines()
    assert first.startswith(f"{kind.__name__}()")
    assert law in first


@pytest.mark.parametrize("kind", [Strings, Buffer, Sizes])
def test_what_has_no_fault_passes(kind, key):
    assert KEYS in " ".join(check_behaviour(kind(), agents(), key=key, batch_size=BATCH).laws)


def test_later_steps_can_be_looked_at(key):
    checked = check_behaviour(LosesItsKeyLater(), agents(), key=key, batch_size=BATCH)
    assert "of the steps 0 to 2" in checked.extent
    with pytest.raises(ConformanceError, match="At step 5 two keys give the same batch"):
        check_behaviour(LosesItsKeyLater(), agents(), key=key, batch_size=BATCH, first_step=5)


@pytest.mark.parametrize(
    ("sizes", "what"), [({"batch_size": 7}, "even"), ({"first_step": -1}, "0")]
)
def test_what_cannot_be_looked_at_is_refused(sizes, what, key):
    with pytest.raises(ValueError, match=what):
        check_behaviour(Strings(), agents(), key=key, **sizes)
