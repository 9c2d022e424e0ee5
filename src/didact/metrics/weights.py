r"""What importance weights say: bounds on log Z, log Z itself, and how far to trust it.

The log weight of a trajectory is $w = \log R + \log P_B - \log P_F$, in nats. Over forward
trajectories $e^w$ has mean Z; over backward ones from exact target samples the mean of w bounds
log Z from above. Everything is computed in float64, whatever the precision of the weights.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Array, Float, Float64
from scipy.special import ndtr, stdtrit

LogWeights = Float[Array | np.ndarray, " n"]
_LEAST_TAIL = 5
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate in nats, and its confidence interval from `low` to `high` at `level`.

    The interval need not be symmetric: `standard_error` alone does not give it back.
    """

    value: float
    low: float
    high: float
    standard_error: float
    level: float


def elbo(log_weight: LogWeights, level: float = 0.9) -> Estimate:
    """The evidence lower bound: the mean of w over forward trajectories, at most log Z.

    **Arguments:** `log_weight` [n], n > 1, of independent forward trajectories; `level` of the
    interval, which is Student's t. One w of -inf proves that the bound is -inf.

    **Errors:** `ValueError` for NaN or +inf, which no forward trajectory has; for n < 2; for a
    level outside (0, 1).
    """
    return _mean(_checked(log_weight, level, allowed=-math.inf), level)


def eubo(log_weight: LogWeights, level: float = 0.9) -> Estimate:
    """The evidence upper bound: the mean of w over trajectories that were drawn backwards from
    exact target samples, at least log Z.

    A mode that the sampler leaves out raises it, where `elbo` and `log_z` may not notice
    (Blessing et al., "Beyond ELBOs", ICML 2024).

    **Arguments:** as for `elbo`. One w of +inf, a trajectory that the sampler cannot take,
    proves that the bound is +inf.

    **Errors:** `ValueError` for NaN or -inf; for n < 2; for a level outside (0, 1).
    """
    return _mean(_checked(log_weight, level, allowed=math.inf), level)


def log_z(log_weight: LogWeights, level: float = 0.9) -> Estimate:
    r"""Importance-sampled log Z: $\log \frac1n \sum_i e^{w_i}$ over forward trajectories.

    Weights are skewed to the right, so a symmetric interval is too often too low. The lower end
    is Hall's, whose cubic transformation removes the skewness of the mean. The upper end is the
    higher one of Hall's and of the mean that the upper tail may have: a generalised Pareto law is
    fitted to the tail, as for `k_hat`, and the mean of the whole is averaged over Zhang and
    Stephens' quasi-posterior of it, with shapes above 0.95 set to 0.95. `standard_error` is the
    delta method's.

    **Arguments:** as for `elbo`; a w of -inf is a weight of 0. If all are, the value is -inf and
    nothing bounds Z from above.

    **Known limits:** in simulations with log-normal weights (standard deviation of w from 0.1 to
    2, n from 500 to 10,000) the 90 % interval held log Z in 85 to 94 % of the cases in which
    `k_hat` was below `k_threshold`. What was not drawn cannot be allowed for. Where one draw in
    1,000 has a weight of 100, and all others about 1, the interval held log Z in 94 % of all cases
    at n = 10,000, in 83 % at 2,000 and in 38 % at 500: most sets of 500 have none of these draws,
    and nothing in them, `k_hat` included, tells of it. `eubo` does.

    **Errors:** as for `elbo`.

    **References:** Hall, "On the removal of skewness by transformation", 1992; Zhang and
    Stephens, 2009; Vehtari et al., "Pareto smoothed importance sampling", 2024.
    """
    log_weight = _checked(log_weight, level, allowed=-math.inf)
    top = float(log_weight.max())
    if top == -math.inf:
        return Estimate(-math.inf, -math.inf, math.inf, math.inf, level)
    weight = np.exp(log_weight - top)
    n, mean, deviation = len(weight), float(weight.mean()), float(weight.std(ddof=1))
    low, high = _hall(weight, level)
    tail = _fit_tail(weight)
    if tail is not None:
        high = max(high, tail.mean_quantile(weight, (1 + level) / 2))
    return Estimate(
        value=top + math.log(mean),
        low=top + math.log(low) if low > 0 else -math.inf,
        high=top + math.log(high),
        standard_error=deviation / mean / math.sqrt(n),
        level=level,
    )


def ess(log_weight: LogWeights) -> float:
    r"""Effective number of draws, $(\sum_i e^{w_i})^2 / \sum_i e^{2 w_i}$: from 1 to n; 0 where
    every weight is 0.

    A large number does not show that all modes were drawn: see `eubo`.
    """
    weight = _relative(log_weight)
    square = float(np.sum(weight**2))
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0


def ess_share(log_weight: LogWeights) -> float:
    """`ess` divided by the number of draws: from 0 to 1."""
    return ess(log_weight) / len(log_weight)


def normalised(log_weight: LogWeights) -> Float64[np.ndarray, " n"]:
    """Weights that sum to 1; NaN where all are 0."""
    weight = _relative(log_weight)
    return weight / weight.sum()


def k_hat(log_weight: LogWeights) -> float:
    r"""Shape of the generalised Pareto law that fits the upper tail of the weights.

    Moments of order $1/k$ and above are infinite. `log_z` can be trusted below
    `k_threshold(n)`, at most 0.7. The fit is that of Pareto smoothed importance sampling: the
    largest $\min(n/5, 3\sqrt n)$ weights, Zhang and Stephens' estimate, and a prior worth ten
    draws at k = 0.5. Tied weights at the foot of the tail are left out of it.

    **Returns:** -inf where the tail is flat (constant weights, or many equal largest ones);
    NaN where fewer than five weights exceed the rest (as where n < 25), which is too few to tell.

    **Errors:** `ValueError` for NaN or +inf.

    **References:** Zhang and Stephens, "A new and efficient estimation method for the generalized
    Pareto distribution", 2009; Vehtari et al., "Pareto smoothed importance sampling", 2024.
    """
    weight = _relative(log_weight)
    if weight.max() - weight.min() <= _ROUNDING:
        return -math.inf
    if _tail_size(len(weight)) < _LEAST_TAIL:
        return math.nan
    tail = _fit_tail(weight)
    if tail is None:
        return -math.inf if not len(_excess(weight)[0]) else math.nan
    return tail.k_hat


def k_threshold(n: int) -> float:
    """The `k_hat` below which n draws are enough: min(1 - 1/log10(n), 0.7) (Vehtari et al.,
    2024).
    """
    return min(1 - 1 / math.log10(n), 0.7) if n > 1 else -math.inf


@dataclasses.dataclass(frozen=True)
class _Tail:
    """Zhang and Stephens' quasi-posterior of a generalised Pareto law over `cutoff`.

    Each of the [m] entries of `shape`, `scale` has probability `probability`.
    """

    cutoff: float
    size: int
    shape: Float64[np.ndarray, " m"]
    scale: Float64[np.ndarray, " m"]
    probability: Float64[np.ndarray, " m"]
    k_hat: float

    def mean_quantile(self, weight: Float64[np.ndarray, " n"], p: float) -> float:
        """Quantile of the mean of all weights, where the tail may have any of these laws.

        The mean given a law is normal: its variance is that of the body's mean, and of the
        number of draws in the tail.
        """
        n, share = len(weight), self.size / len(weight)
        body = np.sort(weight)[: n - self.size]
        tail_mean = self.cutoff + self.scale / (1 - np.minimum(self.shape, 0.95))
        mean = (1 - share) * body.mean() + share * tail_mean
        between = share * (1 - share) * (tail_mean - body.mean()) ** 2
        deviation = np.sqrt(((1 - share) * body.var() + between) / n)
        low, high = float((mean - 9 * deviation).min()), float((mean + 9 * deviation).max())
        for _ in range(60):
            middle = (low + high) / 2
            below = float(self.probability @ ndtr((middle - mean) / deviation))
            low, high = (middle, high) if below < p else (low, middle)
        return high


def _tail_size(n: int) -> int:
    return n // 5 if n <= 225 else math.floor(3 * math.sqrt(n))


def _excess(weight: Float64[np.ndarray, " n"]) -> tuple[Float64[np.ndarray, " tail"], float]:
    """The weights of the upper tail, less their cutoff, in rising order; and the cutoff."""
    ordered = np.sort(weight)
    size = _tail_size(len(weight))
    cutoff = float(ordered[-size - 1])
    excess = ordered[len(ordered) - size :] - cutoff
    return excess[excess > _ROUNDING], cutoff


def _fit_tail(weight: Float64[np.ndarray, " n"]) -> _Tail | None:
    """Fits the upper tail of weights whose largest is 1; None where it has too few of them.

    In terms of b = -k/scale the likelihood of k has its maximum at the mean of log(1 - b excess),
    so that only b needs a grid.
    """
    if _tail_size(len(weight)) < _LEAST_TAIL:
        return None
    excess, cutoff = _excess(weight)
    n = len(excess)
    if n < _LEAST_TAIL:
        return None
    m = 30 + math.isqrt(n)
    b = (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * excess[int(n / 4 + 0.5) - 1])
    b += 1 / excess[-1]
    b[b == 0] = _ROUNDING / excess[-1]  # the exponential law, as a limit
    shape = np.log1p(-b[:, None] * excess).mean(1)
    log_likelihood = n * (np.log(-b / shape) - shape - 1)
    probability = np.exp(log_likelihood - log_likelihood.max())
    probability /= probability.sum()
    k = float(np.log1p(-float(probability @ b) * excess).mean())
    return _Tail(cutoff, n, shape, -shape / b, probability, (n * k + 10 * 0.5) / (n + 10))


def _hall(weight: Float64[np.ndarray, " n"], level: float) -> tuple[float, float]:
    """Hall's interval of a mean: t's, after a monotone cubic has removed the skewness."""
    n, mean, deviation = len(weight), float(weight.mean()), float(weight.std(ddof=1))
    t = float(stdtrit(n - 1, (1 + level) / 2)) / math.sqrt(n)
    if deviation <= _ROUNDING * mean:
        return mean, mean
    skewness = float(((weight - mean) ** 3).mean()) / float(weight.std()) ** 3

    def inverse(y: float) -> float:
        if abs(skewness) < 1e-6:
            return y
        return 3 / skewness * (math.cbrt(1 + skewness * (y - skewness / (6 * n))) - 1)

    return mean - deviation * inverse(t), mean - deviation * inverse(-t)


def _mean(log_weight: Float64[np.ndarray, " n"], level: float) -> Estimate:
    value = float(log_weight.mean())
    if math.isinf(value):
        return Estimate(value, value, value, 0.0, level)
    n = len(log_weight)
    error = float(log_weight.std(ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Estimate(value, value - half, value + half, error, level)


def _checked(log_weight: LogWeights, level: float, allowed: float) -> Float64[np.ndarray, " n"]:
    """Log weights in float64, none of them NaN or the infinity that is not `allowed`."""
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: give a number between 0 and 1, such as 0.9.")
    if len(log_weight) < 2:
        raise ValueError(f"{len(log_weight)} log weights: an interval needs two or more draws.")
    return _valid(log_weight, allowed)


def _valid(log_weight: LogWeights, allowed: float) -> Float64[np.ndarray, " n"]:
    log_weight = np.asarray(log_weight, np.float64)
    if len(log_weight) == 0:
        raise ValueError("There are no log weights: draw at least one trajectory.")
    bad = np.isnan(log_weight) | (log_weight == -allowed)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"Log weight {first} is {log_weight[first]}: the log reward or a log probability of "
            "that trajectory is not finite. Look for a sampler that has diverged, or for a reward "
            "that is not bounded."
        )
    return log_weight


def _relative(log_weight: LogWeights) -> Float64[np.ndarray, " n"]:
    """Weights divided by the largest; zeros where all are 0."""
    log_weight = _valid(log_weight, allowed=-math.inf)
    top = log_weight.max()
    return np.exp(log_weight - top) if top > -math.inf else np.zeros_like(log_weight)


__all__ = [
    "Estimate",
    "elbo",
    "ess",
    "ess_share",
    "eubo",
    "k_hat",
    "k_threshold",
    "log_z",
    "normalised",
]
