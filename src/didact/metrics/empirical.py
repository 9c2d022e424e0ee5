"""What samples alone can say: bounds on log Z, weights, modes reached, the empirical L1."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, PRNGKeyArray
from scipy.special import gammaln

from .._sampler import (
    Layout,
    Sampler,
    layout,
    row_sizes,
    sample_backward,
    sample_forward,
    score,
)
from .._types import EnumerableEnvironment, SamplableTarget, Sample, Target, Trajectory
from ..targets import HostReward


class Draws(eqx.Module):
    """Terminal objects of forward trajectories, and their scores in nats.

    `log_reward + log_pb - log_pf` is the log importance weight: its exponential has mean Z.
    """

    x: Sample  # leading axis [n]
    log_reward: Float[Array | np.ndarray, " n"]
    log_pf: Float[Array | np.ndarray, " n"]
    log_pb: Float[Array | np.ndarray, " n"]

    @property
    def log_weight(self) -> Float[Array | np.ndarray, " n"]:
        """log R + log P_B - log P_F."""
        return self.log_reward + self.log_pb - self.log_pf


def draw(
    sampler: Sampler, target: Target, key: PRNGKeyArray, batch_size: int, count: int | None = None
) -> Draws:
    """One batch of independent draws from a sampler's policy; the first `count` of them, if given,
    so that no other is scored where the reward is computed outside JAX.
    """
    drawn = _draw(sampler, target, key, batch_size)
    if count is not None:
        drawn = jax.tree.map(lambda leaf: leaf[:count], drawn)
    return _with_host_rewards(target, drawn)


def draws(
    sampler: Sampler, target: Target, key: PRNGKeyArray, n: int, *, batch_size: int = 512
) -> Draws:
    """`n` independent draws, as NumPy arrays."""
    drawn = _in_batches(lambda key: _draw(sampler, target, key, batch_size), key, n, batch_size)
    return _with_host_rewards(target, drawn)


def objects(sampler: Sampler, key: PRNGKeyArray, n: int, *, batch_size: int = 512) -> Sample:
    """`n` independent objects without their scores, as NumPy arrays: half the work of `draws`."""
    return _in_batches(lambda key: _objects(sampler, key, batch_size), key, n, batch_size)


def backward_draws(
    sampler: Sampler, target: SamplableTarget, key: PRNGKeyArray, n: int, *, batch_size: int = 512
) -> Draws:
    """`n` exact samples of the target, as NumPy arrays, each with the scores of one trajectory
    from P_B.
    """
    return _in_batches(
        lambda key: _score_backward(sampler, target, key, batch_size, 1), key, n, batch_size
    )


def log_likelihoods(
    sampler: Sampler,
    target: SamplableTarget,
    key: PRNGKeyArray,
    n: int,
    *,
    paths: int = 10,
    batch_size: int = 512,
) -> Float[np.ndarray, " n"]:
    r"""log p_θ(x) of `n` exact samples of the target, by importance sampling from P_B.

    $$\log p_\theta(x) \approx \log\frac1K\sum_{k\le K}
    \frac{P_F(\tau_k)}{P_B(\tau_k\mid x)}$$

    with K = `paths`; biased low, less so with more paths.
    """
    drawn = _in_batches(
        lambda key: _score_backward(sampler, target, key, -(-batch_size // paths), paths),
        key,
        n * paths,
        -(-batch_size // paths) * paths,
    )
    ratio = np.reshape(np.asarray(drawn.log_pf - drawn.log_pb, np.float64), (n, paths))
    return np.logaddexp.reduce(ratio, axis=1) - math.log(paths)


def path_ratios(
    sampler: Sampler, x: Sample, key: PRNGKeyArray, *, paths: int = 64, batch_size: int = 512
) -> Float64[np.ndarray, "n paths"]:
    r"""P_F(τ)/P_B(τ | x) of trajectories τ from P_B to each of n given objects, `paths` to each.

    $$p_\theta(x) = \mathbb{E}_{\tau\sim P_B(\cdot\mid x)}
    \frac{P_F(\tau)}{P_B(\tau\mid x)}$$

    so that the mean of a row is an unbiased estimate of what the sampler gives to the object.

    **Arguments:** `x`: objects, with a leading axis [n], n may be 0.

    **Errors:** `ValueError` if `paths` is below 1.
    """
    if paths < 1:
        raise ValueError(f"paths must be at least 1, got {paths}.")
    x = jax.tree.map(np.asarray, x)
    total = paths * len(jax.tree.leaves(x)[0])
    log_ratio = np.empty(total)
    for i, start in enumerate(range(0, total, batch_size)):
        # The last batch is filled up: all have one shape, and one program.
        rows = np.minimum(np.arange(start, start + batch_size), total - 1) // paths
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], x)
        found = _log_ratio(sampler, part, jax.random.fold_in(key, i))
        log_ratio[start : start + batch_size] = found[: total - start]
    return np.exp(log_ratio).reshape(-1, paths)


def _in_batches(make, key: PRNGKeyArray, n: int, batch_size: int):
    """The first n rows of batches, each made from a key of its own, as NumPy arrays."""
    batches = [
        jax.tree.map(np.asarray, make(jax.random.fold_in(key, i)))
        for i in range(-(-n // batch_size))
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *batches)


@eqx.filter_jit
def mode_indices(target: Target, x: Sample) -> Int[Array, " n"]:
    """Mode of each object, -1 for none."""
    return jax.vmap(target.mode_index)(x)


@eqx.filter_jit
def terminal_numbers(env: EnumerableEnvironment, x: Sample) -> Int[Array, " n"]:
    """Number of each object among the terminal states."""
    return jax.vmap(lambda one: env.index_of(env.terminal_state(one)))(x) - env.num_internal


def l1(counts: Int[np.ndarray, " terminal"], p: Float64[np.ndarray, " terminal"]) -> float:
    """The published empirical L1: the *mean* over terminal states of |p̂ - p|."""
    return float(np.abs(counts / counts.sum() - p).mean())


def l1_floor(p: Float64[np.ndarray, " terminal"], n: int) -> float:
    r"""What a perfect sampler's n draws score on `l1`, on average.

    The mean absolute deviation of a binomial, in de Moivre's closed form:
    $E|X - np| = 2\,(m+1)\binom{n}{m+1} p^{m+1} (1-p)^{n-m}$, $m = \lfloor np \rfloor$.
    """
    inside = (p > 0) & (p < 1)
    q = p[inside]
    m = np.floor(n * q)
    log_choose = gammaln(n + 1) - gammaln(m + 2) - gammaln(n - m)
    log_mad = np.log(2 * (m + 1)) + log_choose + (m + 1) * np.log(q) + (n - m) * np.log1p(-q)
    return float(np.exp(log_mad).sum() / n / len(p))


def _draw(sampler: Sampler, target: Target, key: PRNGKeyArray, batch_size: int) -> Draws:
    """`draw`, without the rewards that are computed outside JAX."""
    trajectory, place = _roll_out(sampler, key, batch_size)
    return _score(sampler, target, trajectory, place, _enough_rows(sampler, place, batch_size))


def _enough_rows(sampler: Sampler, place: Layout, batch_size: int) -> int:
    """The network is run on about as many rows as there are states; a few sizes are compiled."""
    sizes = row_sizes(sampler.environment, batch_size)
    return next(size for size in sizes if size >= int(jnp.max(place.count)))


def _with_host_rewards(target: Target, drawn: Draws) -> Draws:
    """Rewards that are computed outside JAX, asked for outside of its programs."""
    if not isinstance(target, HostReward):
        return drawn
    return dataclasses.replace(drawn, log_reward=target.rewards(drawn.x).log_reward)


@eqx.filter_jit
def _objects(sampler: Sampler, key: PRNGKeyArray, batch_size: int) -> Sample:
    trajectory = sample_forward(sampler, key, batch_size)
    return jax.vmap(sampler.environment.sample_of)(trajectory.terminal)


@eqx.filter_jit
def _roll_out(sampler: Sampler, key: PRNGKeyArray, batch_size: int):
    trajectory = sample_forward(sampler, key, batch_size)
    return trajectory, layout(sampler, trajectory)


@eqx.filter_jit
def _score(
    sampler: Sampler, target: Target, trajectory: Trajectory, place: Layout, rows: int | None
) -> Draws:
    x = jax.vmap(sampler.environment.sample_of)(trajectory.terminal)
    if isinstance(target, HostReward):
        log_reward = jnp.zeros(len(trajectory.mask))
    else:
        log_reward = jax.vmap(target.log_reward)(x)
    return Draws(x, log_reward, *_path_scores(sampler, trajectory, log_reward, place, rows))


def _path_scores(
    sampler: Sampler,
    trajectory: Trajectory,
    log_reward: Float[Array, " n"],
    place: Layout,
    rows: int | None,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """log P_F and log P_B of whole trajectories."""
    # Weights have mean Z for a P_B that is a distribution, whatever training scores instead.
    sampler = dataclasses.replace(sampler, backward_scoring=None)
    scored = score(sampler, trajectory, log_reward, jnp.ones_like(log_reward), place, rows)
    return jnp.sum(scored.log_pf, 1), jnp.sum(scored.log_pb, 1)


@eqx.filter_jit
def _score_backward(
    sampler: Sampler, target: SamplableTarget, key: PRNGKeyArray, batch_size: int, paths: int
) -> Draws:
    draw_key, walk_key = jax.random.split(key)
    x = jax.vmap(target.sample)(jax.random.split(draw_key, batch_size))
    x = jax.tree.map(lambda leaf: jnp.repeat(leaf, paths, axis=0), x)
    trajectory = sample_backward(sampler, walk_key, x)
    return _score(sampler, target, trajectory, layout(sampler, trajectory), None)


def _log_ratio(sampler: Sampler, x: Sample, key: PRNGKeyArray) -> Float[np.ndarray, " n"]:
    trajectory, place = _walk_back(sampler, x, key)
    rows = _enough_rows(sampler, place, len(trajectory.mask))
    return np.asarray(_score_walks(sampler, trajectory, place, rows), np.float64)


@eqx.filter_jit
def _walk_back(sampler: Sampler, x: Sample, key: PRNGKeyArray):
    trajectory = sample_backward(sampler, key, x)
    return trajectory, layout(sampler, trajectory)


@eqx.filter_jit
def _score_walks(
    sampler: Sampler, trajectory: Trajectory, place: Layout, rows: int
) -> Float[Array, " n"]:
    no_reward = jnp.zeros(len(trajectory.mask))
    log_pf, log_pb = _path_scores(sampler, trajectory, no_reward, place, rows)
    return log_pf - log_pb


__all__ = [
    "Draws",
    "backward_draws",
    "draw",
    "draws",
    "l1",
    "l1_floor",
    "log_likelihoods",
    "mode_indices",
    "objects",
    "path_ratios",
    "terminal_numbers",
]
