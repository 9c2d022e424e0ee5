"""Environments with one planted fault each: the check that a user would call names the law."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.environments import (
    Brownian,
    Categorical,
    Diffusion,
    DiffusionState,
    Gaussian,
    Hypergrid,
    HypergridState,
    Kernel,
    PrependAppend,
    published_backward_kernel,
)
from didact.testing import ConformanceError, check_environment
from didact.testing._laws import Ledger
from didact.testing._sites import check_sites

# ---- masks and supports ----------------------------------------------------------------------


class MaskOffByOne(Hypergrid):
    """No move reaches the border."""

    def forward_kernel(self, state, params):
        below = jnp.append(state.position + 1 < self.side - 1, True)
        return Categorical(params, below & ~self.is_terminal(state))


class ParentsThatAreTerminal(Hypergrid):
    """P_B over all non-zero coordinates at the border, as published."""

    def backward_kernel(self, state, params):
        return published_backward_kernel(self, state, params)


class MissingParent(Hypergrid):
    """P_B forgets the last of several coordinates."""

    def backward_kernel(self, state, params):
        kernel = super().backward_kernel(state, params)
        other = kernel.mask.at[self.dim - 1].set(False)
        return Categorical(kernel.logits, jnp.where(jnp.any(other), other, kernel.mask))


class DuplicateChildren(PrependAppend):
    """Where prepending and appending make the same string, both are edges."""

    def forward_mask(self, state):
        return jnp.broadcast_to(state.length < self.length, (self.num_actions,))


class EndIsNoEnd(Hypergrid):
    """The border does not absorb: only a stop ends a walk."""

    def is_terminal(self, state):
        return state.stopped


class StartHasParents(Hypergrid):
    """`is_initial` never holds, so that a walk back steps out of the grid."""

    def is_initial(self, state):
        return jnp.asarray(False)


class WayBackToTheStart(Hypergrid):
    """A stop one step from the start leads to the start."""

    def step(self, state, action):
        lost = (action == self.dim) & (jnp.sum(state.position) == 1)
        after = super().step(state, action)
        return jax.tree.map(lambda a, b: jnp.where(lost, a, b), self.initial_state(), after)


# ---- steps, numbers, lengths -----------------------------------------------------------------


class StepBackTooFar(Hypergrid):
    """A step back takes two off coordinate 0."""

    def backward_step(self, state, action):
        after = super().backward_step(state, action)
        lower = jnp.where(action == 0, jnp.maximum(after.position[0] - 1, 0), after.position[0])
        return HypergridState(after.position.at[0].set(lower), after.stopped)


class DepthOff(Hypergrid):
    """A stop does not count."""

    def depth(self, state):
        return jnp.sum(state.position, dtype=jnp.int32)


class ShortHorizon(Hypergrid):
    """The longest walk has one edge more than `num_steps`."""

    @property
    def num_steps(self):
        return self.dim * (self.side - 2)


class LongestOfAll(Hypergrid):
    """`fewest_steps` is that of walks that do not stop early."""

    @property
    def fewest_steps(self):
        return 2


class StartsElsewhere(Hypergrid):
    """The first state looks like another one, and has the number 0."""

    def initial_state(self):
        return HypergridState(jnp.full((self.dim,), -1, jnp.int32), jnp.asarray(False))

    def is_initial(self, state):
        return jnp.all(state.position <= 0) & ~state.stopped

    def index_of(self, state):
        return super().index_of(HypergridState(jnp.maximum(state.position, 0), state.stopped))

    def depth(self, state):
        return super().depth(HypergridState(jnp.maximum(state.position, 0), state.stopped))

    def step(self, state, action):
        return super().step(HypergridState(jnp.maximum(state.position, 0), state.stopped), action)


class NumbersThatCollide(Hypergrid):
    """A stop has the number of the place where it is made."""

    def index_of(self, state):
        return super().index_of(HypergridState(state.position, jnp.asarray(False)))


class ObjectWithoutStop(Hypergrid):
    """The terminal state of an object is the place, walking."""

    def terminal_state(self, x):
        return HypergridState(jnp.asarray(x, jnp.int32), jnp.asarray(False))


# ---- values ----------------------------------------------------------------------------------


class WithMinusInfinity(Kernel):
    """A categorical whose masked logits are -inf."""

    logits: jax.Array

    def noise(self, key, shape=()):
        return jax.random.gumbel(key, (*shape, *self.logits.shape))

    def from_noise(self, noise):
        return jnp.argmax(self.logits + noise).astype(jnp.int32)

    def log_prob(self, action):
        return jax.nn.log_softmax(self.logits)[action]

    def explore(self, amount):
        return self

    def temper(self, temperature):
        return WithMinusInfinity(self.logits / temperature)


class MinusInfinity(Hypergrid):
    """At terminal states all logits are -inf, and log-probabilities NaN."""

    def forward_kernel(self, state, params):
        return WithMinusInfinity(jnp.where(self.is_terminal(state), -jnp.inf, params))


class NaNInAGradient(Hypergrid):
    """The logits pass through a square root of 0."""

    def forward_kernel(self, state, params):
        centred = params - params
        scale = jnp.sqrt(jnp.sum(centred**2))
        return Categorical(params + scale, super().forward_kernel(state, params).mask)


class Unnormalised(WithMinusInfinity):
    """log P is the logit."""

    def log_prob(self, action):
        return self.logits[action]


class PolicyWithoutNormaliser(Hypergrid):
    def forward_kernel(self, state, params):
        return Unnormalised(jnp.where(super().forward_kernel(state, params).mask, params, -1e9))


class DrawsFromAnother(WithMinusInfinity):
    """Draws are flatter than log P says."""

    def from_noise(self, noise):
        return jnp.argmax(self.logits / 2 + noise).astype(jnp.int32)


class PolicyThatDrawsAnother(Hypergrid):
    def forward_kernel(self, state, params):
        return DrawsFromAnother(jnp.where(super().forward_kernel(state, params).mask, params, -1e9))


class NaNFeatures(Hypergrid):
    """Features are divided by the depth, which is 0 at the start."""

    @property
    def feature_size(self):
        return self.dim

    def features(self, state):
        return state.position / self.depth(state)


class FeaturesBeyondTheVocabulary(PrependAppend):
    @property
    def feature_size(self):
        return self.length * self.num_symbols


# ---- forms -----------------------------------------------------------------------------------


class SizeThatIsTraced(Hypergrid):
    """`words` is no static field, and becomes an array in a training program."""

    words: int

    def __init__(self, dim, side):
        super().__init__(dim, side)
        self.words = dim * side

    @property
    def feature_size(self):
        return self.words


class LongPosition(Hypergrid):
    """A step makes the position longer."""

    def step(self, state, action):
        after = super().step(state, action)
        return HypergridState(jnp.append(after.position, 0), after.stopped)


class BranchOfPython(Hypergrid):
    def is_terminal(self, state):
        return jnp.asarray(True) if state.stopped else super().is_terminal(state)


class ShortFeatures(Hypergrid):
    def features(self, state):
        return state.position.astype(float)


class BooleanFeatures(Hypergrid):
    def features(self, state):
        return state.position > 0


class NoMoreParameters(Hypergrid):
    """One parameter too few for the edges."""

    @property
    def forward_size(self):
        return self.dim


class SeedsNumPy(Hypergrid):
    def __init__(self, dim, side):
        np.random.seed(0)  # noqa: NPY002
        super().__init__(dim, side)


class SeedsPython(Hypergrid):
    def __init__(self, dim, side):
        random.seed(0)
        super().__init__(dim, side)


GRID = (2, 3)


class MutatesTwice(Hypergrid):
    """Two values change."""

    def mutate(self, key, x):
        first, second = jax.random.split(key)
        return super().mutate(first, super().mutate(second, x))


class LeavesTheGrid(Hypergrid):
    """A second coordinate may reach the border, where there is no object."""

    def mutate(self, key, x):
        site_key, value_key = jax.random.split(key)
        site = jax.random.randint(site_key, (), 0, self.dim)
        return x.at[site].set(jax.random.randint(value_key, (), 0, self.side))


class NeverMutates(Hypergrid):
    """An object stays what it is."""

    def mutate(self, key, x):
        return x


class MutatesUpwards(Hypergrid):
    """One step up is more likely than one step down."""

    def mutate(self, key, x):
        up = jax.random.bernoulli(key, 0.7)
        return x.at[0].set(jnp.clip(x[0] + jnp.where(up, 1, -1), 0, self.side - 2))


SITE_FAULTS = [
    (MutatesTwice, "changes one value of an object"),
    (LeavesTheGrid, "gives an object"),
    (NeverMutates, "mutate changes something"),
    (MutatesUpwards, "as often as back"),
]


@pytest.mark.parametrize(("kind", "law"), SITE_FAULTS)
def test_a_planted_fault_of_sites_is_found(kind, law, key):
    """By the check of sites alone, which is the last of an environment's."""
    env = kind(2, 5)
    with pytest.raises(ConformanceError, match=law):
        check_sites(Ledger(env), env, key)


FAULTS = [
    (MaskOffByOne, GRID, "an edge that P_B allows is one that P_F allows"),
    (ParentsThatAreTerminal, GRID, "an edge that P_B allows is one that P_F allows"),
    (DuplicateChildren, (2, 2), "each edge has one action"),
    (DepthOff, GRID, "an edge leads one deeper"),
    (MinusInfinity, GRID, "log-probabilities and their gradients are finite"),
    (SizeThatIsTraced, GRID, "sizes are plain integers"),
    (LongPosition, GRID, "states have one form"),
    (BranchOfPython, GRID, "its methods can be compiled and batched"),
    (ShortFeatures, GRID, "real features are a vector of feature_size"),
    (StartsElsewhere, GRID, "a number stands for one state"),
    (BooleanFeatures, GRID, "features are numbers"),
    (NoMoreParameters, GRID, "its methods accept what they are to be given"),
    (SeedsNumPy, GRID, "nothing that belongs to the whole process changes"),
    (SeedsPython, GRID, "nothing that belongs to the whole process changes"),
]
MORE_FAULTS = [
    (ShortHorizon, GRID, "trajectories have fewest_steps to num_steps edges"),
    (EndIsNoEnd, GRID, "terminal states, and they alone, have the last numbers"),
    (StartHasParents, GRID, "a step undoes a step back"),
    (StepBackTooFar, GRID, "a step back undoes a step"),
    (NumbersThatCollide, GRID, "states are numbered without gaps"),
    (MissingParent, GRID, "an edge that P_F allows is one that P_B allows"),
    (WayBackToTheStart, GRID, "no edge leads into the initial state"),
    (LongestOfAll, GRID, "trajectories have fewest_steps to num_steps edges"),
    (ObjectWithoutStop, GRID, "a terminal state and its object determine each other"),
    (NaNInAGradient, GRID, "log-probabilities and their gradients are finite"),
    (PolicyWithoutNormaliser, GRID, "log_prob is normalised"),
    (PolicyThatDrawsAnother, (2, 24), "draws have the law that log_prob states"),
    (NaNFeatures, GRID, "features are finite"),
    (FeaturesBeyondTheVocabulary, (2, 2), "indices among them below feature_size"),
]
"""Each class is compiled anew, which takes a second or two."""


@pytest.mark.parametrize(
    ("kind", "arguments", "law"),
    [
        *(pytest.param(*fault, id=fault[0].__name__) for fault in FAULTS),
        *(
            pytest.param(*fault, id=fault[0].__name__, marks=pytest.mark.slow)
            for fault in MORE_FAULTS
        ),
    ],
)
def test_a_planted_fault_is_found(kind, arguments, law, key):
    with pytest.raises(ConformanceError) as error:
        check_environment(kind(*arguments), key=key)
    message = str(error.value)
    assert message.startswith(f"{kind.__name__}(")
    assert law in message.splitlines()[0]
    # Where and by how much, in a line.
    assert len(message.splitlines()) == 2


# ---- real numbers ----------------------------------------------------------------------------


class WideBridge(Diffusion):
    """The variance of a step in place of the bridge's."""

    def backward_kernel(self, state, params):
        kernel = super().backward_kernel(state, params)
        wide = jnp.full_like(kernel.std, self.process.sigma / self.num_steps**0.5)
        return Gaussian(kernel.mean, jnp.where(state.index <= 1, kernel.std, wide))


class ShortBridge(Diffusion):
    """The mean leads half of the way back that it should."""

    def backward_kernel(self, state, params):
        kernel = super().backward_kernel(state, params)
        mean = jnp.where(state.index <= 1, kernel.mean, 0.5 * kernel.mean)
        return Gaussian(mean, kernel.std)


class Contracts(Diffusion):
    """A step shrinks the position: P_F and P_B are densities of different things."""

    def step(self, state, action):
        return DiffusionState(0.9 * state.position + action, state.index + 1)

    def backward_step(self, state, action):
        position = jnp.where(state.index == 1, 0, (state.position - action) / 0.9)
        return DiffusionState(position, state.index - 1)

    def log_reference(self, state):
        return jnp.zeros(())


class NeverEnds(Diffusion):
    """The index is that of the step before."""

    def is_terminal(self, state):
        return state.index > self.num_steps


class ForgetsTheEdge(Diffusion):
    """A step back takes half of the increment away."""

    def backward_step(self, state, action):
        position = jnp.where(state.index == 1, 0, state.position - 0.5 * action)
        return DiffusionState(position, state.index - 1)


class WithoutNormaliser(Gaussian):
    """log N(a; μ, σ²) without the logarithm of σ."""

    def log_prob(self, action):
        return super().log_prob(action) + jnp.sum(jnp.log(self.std))


class DensityWithoutNormaliser(Diffusion):
    def forward_kernel(self, state, params):
        kernel = super().forward_kernel(state, params)
        return WithoutNormaliser(kernel.mean, kernel.std)

    def log_reference(self, state):
        return jnp.zeros(())


REAL_FAULTS = [
    (WideBridge, "P_B is the reference process backwards"),
]
MORE_REAL_FAULTS = [
    (ShortBridge, "P_B is the reference process backwards"),
    (Contracts, "an edge keeps volume"),
    (NeverEnds, "a trajectory ends in a terminal state"),
    (ForgetsTheEdge, "a step back undoes a step"),
    (DensityWithoutNormaliser, "log_prob is normalised"),
]


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        *(pytest.param(*fault, id=fault[0].__name__) for fault in REAL_FAULTS),
        *(
            pytest.param(*fault, id=fault[0].__name__, marks=pytest.mark.slow)
            for fault in MORE_REAL_FAULTS
        ),
    ],
)
def test_a_planted_fault_of_a_continuous_environment_is_found(kind, law, key):
    with pytest.raises(ConformanceError) as error:
        check_environment(kind(2, 3, Brownian(1.5)), key=key)
    assert law in str(error.value).splitlines()[0]
    assert len(str(error.value).splitlines()) == 2


def test_a_message_says_where_and_by_how_much(key):
    with pytest.raises(ConformanceError) as error:
        check_environment(DepthOff(2, 3), key=key)
    law, where = str(error.value).splitlines()
    assert law == (
        "DepthOff(dim=2, side=3) breaks the law 'an edge leads one deeper, from the initial state, "
        "which has depth 0':"
    )
    assert where == (
        "State 0, HypergridState(position=[0, 0], stopped=False) has depth 0, and action 2 leads "
        "to depth 0 (4 of 36 edges)."
    )


@pytest.mark.slow
def test_more_states_than_are_looked_at(key):
    """A part of them, and trajectories; or trajectories alone where they have no numbers."""
    some = check_environment(Hypergrid(4, 12), key=key, max_states=256, num_paths=16)
    assert some.extent.startswith("256 of ")
    assert any("too many" in reason for reason in some.left_out)
    none = check_environment(PrependAppend(20, 12), key=key, num_paths=16)
    assert any("2^31" in reason for reason in none.left_out)
    with pytest.raises(ConformanceError, match="an edge that P_B allows"):
        check_environment(ParentsThatAreTerminal(4, 12), key=key, max_states=256, num_paths=16)
