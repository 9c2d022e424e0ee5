"""Parts of the kinds that users write, each with one mistake of a sort that is made in practice.

They were written before any check was run on them, by someone who knew what the checks promise and
not how they look.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from didact._sampler import Sampler
from didact._types import last_edges
from didact.behaviours import Agents, FromReplay, LocalSearch, OnPolicy, Proposal, Turn
from didact.environments import (
    Categorical,
    Diffusion,
    DiffusionState,
    Gaussian,
    Hypergrid,
    HypergridState,
    Kernel,
    PathwiseKernel,
    PrependAppend,
    StringState,
)
from didact.objectives import DB, TB, Objective, ObjectiveOutput, Scored, VarGrad, log_weight
from didact.targets import DeceptiveGrid, GaussianMixture, ManyWell, Ring, Target

# Environments.


class CornerMustMove(Hypergrid):
    """P_F forbids to stop at the farthest inner cell, where every move ends the walk."""

    def forward_kernel(
        self, state: HypergridState, params: Float[Array, " actions"]
    ) -> Categorical:
        walking = ~self.is_terminal(state)
        at_corner = jnp.all(state.position == self.side - 2)
        moves = jnp.broadcast_to(walking, (self.dim,))
        return Categorical(params, jnp.append(moves, walking & ~at_corner))


class TerminalParents(Hypergrid):
    """P_B is uniform over all non-zero coordinates on the border too, where all parents but one are
    terminal.
    """

    def backward_kernel(
        self, state: HypergridState, params: Float[Array, " actions"] | None
    ) -> Categorical:
        parents = jnp.append((state.position > 0) & ~state.stopped, state.stopped)
        return Categorical(jnp.zeros(self.num_actions) if params is None else params, parents)


class SharedFeatures(Hypergrid):
    """The blocks of the one-hot code are `dim` words apart, not `side`: cells share a code."""

    def features(self, state: HypergridState) -> Int[Array, " dim"]:
        return state.position + self.dim * jnp.arange(self.dim, dtype=jnp.int32)


class LateBridge(Diffusion):
    """The mean of the bridge of Brownian motion uses the number of steps after the next one."""

    def backward_kernel(
        self, state: DiffusionState, params: Float[Array, " backward"] | None
    ) -> Gaussian:
        bridge = super().backward_kernel(state, params)
        steps = state.index
        late = jnp.where(steps > 1, steps / (steps + 1), 1)
        return Gaussian(bridge.mean * late, bridge.std)


class EarlyReference(Diffusion):
    """The reference density of a state has the variance of the state before it."""

    def log_reference(self, state: DiffusionState) -> Float[Array, ""]:
        before = jnp.where(state.index > 0, jnp.maximum(state.index - 1, 1), 0)
        return super().log_reference(DiffusionState(state.position, before))


class LearnedTwins(PrependAppend):
    """A learned P_B allows both actions by which a constant string can have grown, though they are
    one edge.
    """

    def backward_kernel(
        self, state: StringState, params: Float[Array, " actions"] | None
    ) -> Categorical:
        if params is None:
            return super().backward_kernel(state, params)
        symbol = jnp.arange(self.num_symbols)
        prepended = symbol == state.symbols[0]
        appended = symbol == state.symbols[jnp.maximum(state.length - 1, 0)]
        return Categorical(params, jnp.concatenate([prepended, appended]) & (state.length > 0))


# Kernels.


class ThinExploration(Categorical):
    """Exploration is divided by the number of all actions, not of those allowed: its share is less
    than was asked for.
    """

    def explore(self, amount: Float[Array, ""] | float) -> "ThinExploration":
        uniform = self.mask / self.mask.shape[0]
        mixed = (1 - amount) * jax.nn.softmax(self.logits) + amount * uniform
        return ThinExploration(jnp.log(jnp.maximum(mixed, jnp.finfo(mixed.dtype).tiny)), self.mask)


class ClippedGaussian(Gaussian):
    """Draws are clipped at three standard deviations, and the density is not."""

    def from_noise(self, noise: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return self.mean + self.std * jnp.clip(noise, -3, 3)


class HotStd(Gaussian):
    """The temperature multiplies the standard deviation, not the variance."""

    def temper(self, temperature: Float[Array, ""] | float) -> "HotStd":
        return HotStd(self.mean, self.std * temperature)


class CoordinatewiseMixture(Kernel):
    """Draws take one component for all coordinates, the density mixes each coordinate apart."""

    log_weights: Float[Array, " K"]
    means: Float[Array, "K dim"]
    std: Float[Array, ""]

    def noise(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> tuple[Float[Array, " *shape"], Float[Array, "*shape dim"]]:
        which_key, step_key = jax.random.split(key)
        step = jax.random.normal(step_key, (*shape, self.means.shape[1]))
        return jax.random.uniform(which_key, shape), step

    def from_noise(
        self, noise: tuple[Float[Array, ""], Float[Array, " dim"]]
    ) -> Float[Array, " dim"]:
        uniform, step = noise
        cumulative = jnp.cumsum(jax.nn.softmax(self.log_weights))
        which = jnp.minimum(jnp.sum(cumulative <= uniform), self.means.shape[0] - 1)
        return self.means[which] + self.std * step

    def log_prob(self, action: Float[Array, " dim"]) -> Float[Array, ""]:
        log_weights = jax.nn.log_softmax(self.log_weights)
        parts = jax.scipy.stats.norm.logpdf(action, self.means, self.std)
        return jnp.sum(jax.nn.logsumexp(log_weights[:, None] + parts, axis=0))

    def explore(self, amount: Float[Array, ""] | float) -> "CoordinatewiseMixture":
        std = self.std / jnp.sqrt(1 - jnp.minimum(amount, 0.99))
        return CoordinatewiseMixture(self.log_weights, self.means, std)

    def temper(self, temperature: Float[Array, ""] | float) -> "CoordinatewiseMixture":
        # Exact where the components do not overlap.
        log_weights = self.log_weights / temperature
        return CoordinatewiseMixture(log_weights, self.means, self.std * jnp.sqrt(temperature))


class TransposedCovariance(PathwiseKernel):
    """Draws have the covariance L Lᵀ, the density has Lᵀ L."""

    mean: Float[Array, " dim"]
    factor: Float[Array, "dim dim"]

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, "*shape dim"]:
        return jax.random.normal(key, (*shape, *self.mean.shape))

    def from_noise(self, noise: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return self.mean + self.factor @ noise

    def to_noise(self, action: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return solve_triangular(self.factor, action - self.mean, lower=True)

    def log_prob(self, action: Float[Array, " dim"]) -> Float[Array, ""]:
        offset = action - self.mean
        square = offset @ jnp.linalg.inv(self.factor.T @ self.factor) @ offset
        log_volume = jnp.sum(jnp.log(jnp.diag(self.factor)))
        return -0.5 * (square + self.mean.shape[0] * math.log(2 * math.pi)) - log_volume

    def explore(self, amount: Float[Array, ""] | float) -> "TransposedCovariance":
        scale = 1 / jnp.sqrt(1 - jnp.minimum(amount, 0.99))
        return TransposedCovariance(self.mean, self.factor * scale)

    def temper(self, temperature: Float[Array, ""] | float) -> "TransposedCovariance":
        return TransposedCovariance(self.mean, self.factor * jnp.sqrt(temperature))


# Targets.


class TemperatureUpsideDown(Target):
    """log R is multiplied by the temperature, log Z is that of log R divided by it."""

    inner: DeceptiveGrid
    temperature: float = eqx.field(static=True)
    log_z: float = eqx.field(static=True)

    def __init__(self, inner: DeceptiveGrid, temperature: float):
        self.inner = inner
        self.temperature = temperature
        last = inner.side - 1
        cells = itertools.product(range(inner.side), repeat=inner.dim)
        ends = np.asarray([cell for cell in cells if cell.count(last) < 2], np.int32)
        log_reward = np.asarray(jax.vmap(inner.log_reward)(jnp.asarray(ends)), np.float64)
        self.log_z = float(np.logaddexp.reduce(log_reward / temperature))

    @property
    def num_modes(self) -> int:
        return self.inner.num_modes

    def log_reward(self, x: Int[Array, " dim"]) -> Float[Array, ""]:
        return self.inner.log_reward(x) * self.temperature

    def mode_index(self, x: Int[Array, " dim"]) -> Int[Array, ""]:
        return self.inner.mode_index(x)


class EqualDraws(GaussianMixture):
    """Samples come from all components equally often, whatever their weights."""

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        which_key, noise_key = jax.random.split(key)
        means, scales, weights = self.components()
        which = jax.random.randint(which_key, (), 0, len(weights))
        noise = jax.random.normal(noise_key, (self.dim,))
        return (
            jnp.asarray(means, noise.dtype)[which] + jnp.asarray(scales, noise.dtype)[which] * noise
        )


class RadialRing(Ring):
    """Samples are blurred along the radius alone, the density in both directions."""

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        angle_key, noise_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, maxval=2 * math.pi)
        distance = self.radius + self.scale * jax.random.normal(noise_key)
        return distance * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


class CollidingModes(DeceptiveGrid):
    """The number of a mode is the sum of its digits, which several modes share."""

    def mode_index(self, x: Int[Array, " dim"]) -> Int[Array, ""]:
        in_mode = self._tables()[1]
        rank = jnp.asarray(np.cumsum(in_mode) - 1, jnp.int32)
        return jnp.where(jnp.all(jnp.asarray(in_mode)[x]), jnp.sum(rank[x], dtype=jnp.int32), -1)


class ForgottenGaussian(ManyWell):
    """log Z leaves out the Gaussian beside each double well."""

    @property
    def log_z(self) -> float:
        return super().log_z - self.dim // 2 * 0.5 * math.log(2 * math.pi)


# Objectives.


class DBWithoutLastBackward(DB):
    """Takes log P_B of the last edge for 0, as if an end had but one parent."""

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        log_pb = jnp.where(last_edges(scored.mask), 0, scored.log_pb)
        output = super().__call__(dataclasses.replace(scored, log_pb=log_pb))
        return dataclasses.replace(output, log_weight=stop_gradient(log_weight(scored)))


class FrozenBackward(TB):
    """No gradient reaches P_B."""

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        return super().__call__(dataclasses.replace(scored, log_pb=stop_gradient(scored.log_pb)))


class PlainMeanVarGrad(VarGrad):
    """log Z is the mean over all trajectories of a batch, those of weight 0 among them."""

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        weight = log_weight(scored)
        residual = weight - stop_gradient(jnp.mean(weight))
        return ObjectiveOutput(self.regression(residual), *stop_gradient((residual, None, weight)))


class _Pairs(NamedTuple):
    """The pairs of states of each trajectory: how far apart, and what their balance lacks."""

    steps: Float[Array, "B T"]
    node: Bool[Array, "B nodes"]
    span: Int[Array, "B nodes nodes"]
    delta: Float[Array, "B nodes nodes"]


def _pairs(scored: Scored) -> _Pairs:
    flow = scored.log_flow
    assert flow is not None
    steps = flow[:, 1:] + scored.log_pb - flow[:, :-1] - scored.log_pf
    steps = jnp.where(scored.mask, steps, 0)
    potential = jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    position = jnp.pad(jnp.cumsum(scored.mask, axis=1), ((0, 0), (1, 0)))
    after, before = (jnp.pad(scored.mask, ((0, 0), pad)) for pad in ((0, 1), (1, 0)))
    span = position[:, None, :] - position[:, :, None]
    delta = potential[:, None, :] - potential[:, :, None]
    return _Pairs(steps, after | before, span, delta)


class SubTBWithoutEnd(Objective):
    """The pairs of states leave out the terminal one, so that the loss never sees the reward."""

    lamda: float = 0.9
    needs_flow: ClassVar[bool] = True
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        steps, node, span, delta = _pairs(scored)
        node = node & jnp.pad(scored.mask, ((0, 0), (0, 1)))
        pair = (span > 0) & node[:, :, None] & node[:, None, :]
        weight = jnp.where(pair, self.lamda**span, 0)
        total = jnp.maximum(jnp.sum(weight, axis=(1, 2)), jnp.finfo(steps.dtype).tiny)
        loss = jnp.sum(weight * jnp.square(delta), axis=(1, 2)) / total
        steps, log_w = stop_gradient((steps, log_weight(scored)))
        return ObjectiveOutput(loss, jnp.sum(steps, axis=-1), steps, log_w)


class SubTBOfLongest(Objective):
    """Every trajectory's weights are divided by what they sum to in the longest one."""

    lamda: float = 0.9
    needs_flow: ClassVar[bool] = True
    learns_log_z: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    def __call__(self, scored: Scored) -> ObjectiveOutput:
        steps, node, span, delta = _pairs(scored)
        pair = (span > 0) & node[:, :, None] & node[:, None, :]
        weight = jnp.where(pair, self.lamda**span, 0)
        horizon = steps.shape[1]
        total = sum((horizon + 1 - k) * self.lamda**k for k in range(1, horizon + 1))
        loss = jnp.sum(weight * jnp.square(delta), axis=(1, 2)) / total
        steps, log_w = stop_gradient((steps, log_weight(scored)))
        return ObjectiveOutput(loss, jnp.sum(steps, axis=-1), steps, log_w)


# Behaviours.


class ShuffledReplay(FromReplay):
    """The objects of the buffer are shuffled after they are drawn, their rewards are not."""

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        proposal = super().__call__(agents, key, step, batch_size, axis_name=axis_name)
        order = jax.random.permutation(jax.random.fold_in(key, 1), batch_size)
        trajectory = jax.tree.map(lambda leaf: leaf[order], proposal.trajectory)
        return dataclasses.replace(proposal, trajectory=trajectory)


class OneKeyBootstrap(OnPolicy):
    """A coin for each trajectory says whether it counts, of the key that drew the trajectories:
    those that count have begun with low numbers.
    """

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        proposal = super().__call__(agents, key, step, batch_size, axis_name=axis_name)
        coin = jax.random.bernoulli(key, 0.5, (batch_size,))
        return dataclasses.replace(proposal, weight=coin.astype(proposal.weight.dtype))


class TemperedOnPolicy(OnPolicy):
    """Says that it is on-policy wherever epsilon is not set, though a temperature may be."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn("student", on_policy=self.epsilon is None),)


_Objects = tuple[Array, Float[Array, " C"]]


class StaleSearch(LocalSearch):
    """With the objects that are proposed come the rewards of those that the chains keep."""

    def _round(
        self,
        sampler: Sampler,
        log_reward_fn: Callable[[Array], Float[Array, " C"]],
        here: _Objects,
        key: PRNGKeyArray,
    ) -> tuple[_Objects, _Objects]:
        kept, (new, _) = super()._round(sampler, log_reward_fn, here, key)
        return kept, (new, kept[1])
