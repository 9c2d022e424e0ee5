"""What samples alone can say: bounds on log Z, weights, modes reached, the empirical L1."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, PRNGKeyArray
from scipy.special import gammaln

from .._sampler import Layout, Sampler, layout, row_sizes, sample_forward, score
from .._types import EnumerableEnvironment, Sample, Target, Trajectory


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


def draw(sampler: Sampler, target: Target, key: PRNGKeyArray, batch_size: int) -> Draws:
    """One batch of independent draws from a sampler's policy."""
    trajectory, place = _roll_out(sampler, key, batch_size)
    # The network is run on about as many rows as there are states; a few sizes are compiled.
    sizes = row_sizes(*trajectory.mask.shape)
    rows = next(size for size in sizes if size >= int(place.count))
    return _score(sampler, target, trajectory, place, rows)


def draws(
    sampler: Sampler, target: Target, key: PRNGKeyArray, n: int, *, batch_size: int = 512
) -> Draws:
    """`n` independent draws, as NumPy arrays."""
    batches = [
        jax.tree.map(np.asarray, draw(sampler, target, jax.random.fold_in(key, i), batch_size))
        for i in range(-(-n // batch_size))
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *batches)


def objects(sampler: Sampler, key: PRNGKeyArray, n: int, *, batch_size: int = 512) -> Sample:
    """`n` independent objects without their scores, as NumPy arrays: half the work of `draws`."""
    batches = [
        jax.tree.map(np.asarray, _objects(sampler, jax.random.fold_in(key, i), batch_size))
        for i in range(-(-n // batch_size))
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *batches)


def summary(drawn: Draws) -> dict[str, float]:
    """Estimates from log weights w: `elbo` = mean w and its standard error, `log_z_estimate`
    = log mean exp w (biased low), and `ess`, the effective share of the draws (0 to 1).
    """
    weight = np.asarray(drawn.log_weight, np.float64)
    n = len(weight)
    log_total = np.logaddexp.reduce(weight)
    return {
        "elbo": float(weight.mean()),
        "elbo_standard_error": float(weight.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
        "log_z_estimate": float(log_total - math.log(n)),
        "ess": float(np.exp(2 * log_total - np.logaddexp.reduce(2 * weight)) / n),
    }


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
    sampler: Sampler, target: Target, trajectory: Trajectory, place: Layout, rows: int
) -> Draws:
    x = jax.vmap(sampler.environment.sample_of)(trajectory.terminal)
    log_reward = jax.vmap(target.log_reward)(x)
    # Weights have mean Z for a P_B that is a distribution, whatever training scores instead.
    sampler = dataclasses.replace(sampler, backward_scoring=None)
    scored = score(sampler, trajectory, log_reward, jnp.ones_like(log_reward), place, rows)
    return Draws(x, log_reward, jnp.sum(scored.log_pf, 1), jnp.sum(scored.log_pb, 1))


__all__ = [
    "Draws",
    "draw",
    "draws",
    "l1",
    "l1_floor",
    "mode_indices",
    "objects",
    "summary",
    "terminal_numbers",
]
