"""`didact.fit` on five densities that it was not tuned on, beside tempered SMC.

    python benchmarks/fit.py run                 # minutes; one line a density
    python benchmarks/fit.py smc                 # where BlackJAX is installed, in any environment
    python benchmarks/fit.py table

Tempered SMC (BlackJAX, Hamiltonian kernels) gets as many evaluations of the density or its
gradient as `fit` used, and the exact prior scale that fit had to find for itself.
"""

import argparse
import datetime
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

RESULTS = Path(__file__).parent / "results" / "fit"


@dataclass(frozen=True)
class Problem:
    """A density, log Z, the weights of its modes, and the mode of a position (-1: none)."""

    logdensity_fn: Callable[[Any], Any]
    dim: int
    log_z: float
    mode_weights: tuple[float, ...] = (1.0,)
    mode_of: Callable[[Any], Any] = lambda x: jnp.zeros((), jnp.int32)
    simplex: bool = False
    spread: float = 1.0
    """Standard deviation of the prior that SMC starts from."""


def banana() -> Problem:
    """Rosenbrock's: x1 ~ N(0, 3²), x2 | x1 ~ N(x1²/2, 1/2²)."""

    def logdensity(x):
        return -0.5 * (x[0] / 3) ** 2 - 2 * (x[1] - 0.5 * x[0] ** 2) ** 2

    return Problem(logdensity, 2, math.log(2 * math.pi * 3 * 0.5), spread=8.0)


_MOONS = ((-2.0, 0.3), (2.0, 0.7))


def two_moons() -> Problem:
    """Two narrow arcs of a ring, 0.05 wide, of weights 3 : 7."""

    def logdensity(x):
        radius = jnp.sqrt(jnp.sum(x**2) + 1e-12)
        arcs = [math.log(w) - 0.5 * ((x[0] - c) / 0.4) ** 2 for c, w in _MOONS]
        return -0.5 * ((radius - 2) / 0.05) ** 2 + logsumexp(jnp.stack(arcs))

    # In polar coordinates, on a grid fine enough for 10 digits.
    r = np.linspace(1.5, 2.5, 4001)
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    x = r[:, None] * np.cos(angle)
    arcs = sum(w * np.exp(-0.5 * ((x - c) / 0.4) ** 2) for c, w in _MOONS)
    density = r[:, None] * np.exp(-0.5 * ((r[:, None] - 2) / 0.05) ** 2) * arcs
    cell = (r[1] - r[0]) * (angle[1] - angle[0])
    left = float(density[x < 0].sum() / density.sum())
    return Problem(
        logdensity,
        2,
        math.log(float(density.sum()) * cell),
        (left, 1 - left),
        lambda x: (x[0] > 0).astype(jnp.int32),
        spread=2.0,
    )


def mixture() -> Problem:
    """Four unit Gaussians in 20 dimensions, about 14 apart, of weights 0.5, 0.3, 0.15, 0.05."""
    rng = np.random.default_rng(20)
    means = jnp.asarray(rng.uniform(-4, 4, (4, 20)), jnp.float32)
    weights = (0.5, 0.3, 0.15, 0.05)

    def parts(x):
        square = jnp.sum((x - means) ** 2, axis=1)
        return jnp.log(jnp.asarray(weights)) - 0.5 * square - 10 * math.log(2 * math.pi)

    return Problem(
        lambda x: logsumexp(parts(x)),
        20,
        0.0,
        weights,
        lambda x: jnp.argmax(parts(x)).astype(jnp.int32),
        spread=4.0,
    )


def logistic() -> Problem:
    """The posterior of a logistic regression: 8 coefficients, 60 observations, N(0, 5²) prior."""
    rng = np.random.default_rng(8)
    inputs = rng.standard_normal((60, 8))
    chance = 1 / (1 + np.exp(-inputs @ rng.standard_normal(8) * 1.5))
    sign = np.where(rng.uniform(size=60) < chance, 1.0, -1.0)
    design = jnp.asarray(inputs * sign[:, None], jnp.float32)

    def logdensity(beta):
        prior = -0.5 * jnp.sum((beta / 5) ** 2) - 8 * (math.log(5) + 0.5 * math.log(2 * math.pi))
        return prior + jnp.sum(jax.nn.log_sigmoid(design @ beta))

    return Problem(logdensity, 8, _by_importance(logdensity, 8), spread=5.0)


def _by_importance(logdensity, dim: int, n: int = 400_000) -> float:
    """log Z by importance sampling from a multivariate t around the mode: to about 0.002."""
    x = jnp.zeros(dim)
    for _ in range(50):
        step = jnp.linalg.solve(jax.hessian(logdensity)(x), jax.grad(logdensity)(x))
        x = x - step
    covariance = np.linalg.inv(-np.asarray(jax.hessian(logdensity)(x), np.float64))
    rng = np.random.default_rng(0)
    freedom = 5
    root = np.linalg.cholesky(covariance * 1.3)
    normal = rng.standard_normal((n, dim))
    radius = rng.chisquare(freedom, n) / freedom
    points = np.asarray(x, np.float64) + normal @ root.T / np.sqrt(radius)[:, None]
    square = np.sum(normal**2, axis=1) / radius
    log_q = (
        math.lgamma((freedom + dim) / 2)
        - math.lgamma(freedom / 2)
        - 0.5 * dim * math.log(freedom * math.pi)
        - float(np.log(np.diag(root)).sum())
        - 0.5 * (freedom + dim) * np.log1p(square / freedom)
    )
    value = np.asarray(jax.jit(jax.vmap(logdensity))(jnp.asarray(points, jnp.float32)), np.float64)
    return float(np.logaddexp.reduce(value - log_q) - math.log(n))


def dirichlet() -> Problem:
    """Dirichlet(2, 3, 1.5, 0.8) on the simplex."""
    alpha = np.asarray([2.0, 3.0, 1.5, 0.8])
    log_z = sum(math.lgamma(a) for a in alpha) - math.lgamma(float(alpha.sum()))

    def logdensity(p):
        return jnp.sum((jnp.asarray(alpha) - 1) * jnp.log(p))

    return Problem(logdensity, 4, log_z, simplex=True)


PROBLEMS = {
    "banana": banana,
    "two-moons": two_moons,
    "mixture-20": mixture,
    "logistic": logistic,
    "dirichlet": dirichlet,
}


def run(names: list[str], seed: int) -> None:
    """Fit each density, and keep what came out."""
    import didact

    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        problem = PROBLEMS[name]()
        given: dict[str, Any] = {"dim": problem.dim}
        if problem.simplex:
            given = {"template": jnp.zeros(problem.dim), "simplex": True}
        fit = didact.fit(problem.logdensity_fn, rng_key=jax.random.key(seed), **given)
        share = weighed(problem, fit.samples, fit.log_weights)
        row = {
            "problem": name,
            "method": "didact.fit",
            "seed": seed,
            "log_z_true": problem.log_z,
            "log_z": fit.log_z,
            "log_z_low": fit.log_z_interval[0],
            "log_z_high": fit.log_z_interval[1],
            "mode_weights_true": problem.mode_weights,
            "mode_weights": share,
            "ess": fit.ess,
            "k_hat": fit.k_hat,
            "reliable": fit.reliable,
            "reason": fit.reason,
            "calls": fit.calls,
            "seconds": fit.seconds,
        } | machine()
        keep(f"{name}-fit-{seed}", row)


def weighed(problem: Problem, x: Any, log_weight: Any) -> list[float]:
    """The share of the weight in each mode."""
    mode = np.asarray(jax.jit(jax.vmap(problem.mode_of))(x))
    weight = np.exp(log_weight - np.max(log_weight))
    return np.bincount(mode, weight / weight.sum(), len(problem.mode_weights)).tolist()


PARTICLES, MOVES, LEAPS = 1_000, 5, 10
"""Of tempered SMC: particles, moves of each at a temperature, leapfrog steps of a move."""


def smc(names: list[str], seed: int) -> None:
    """Tempered SMC with as many evaluations as fit used."""
    import blackjax

    for name in names:
        problem = PROBLEMS[name]()
        path = RESULTS / f"{name}-fit-{seed}.json"
        if not path.exists():
            raise SystemExit(f"SMC gets the budget of fit: run `fit.py run {name}` first.")
        # A move begins with an evaluation, and the weights take one.
        each = PARTICLES * (MOVES * LEAPS + 2)
        temperatures = max(2, json.loads(path.read_text())["calls"] // each)
        began = time.perf_counter()
        z, weights, log_z, acceptance = anneal(problem, jax.random.key(seed), temperatures)
        x = jax.vmap(stick)(z) if problem.simplex else z
        row = {
            "problem": name,
            "method": "tempered SMC",
            "seed": seed,
            "log_z_true": problem.log_z,
            "log_z": float(log_z),
            "mode_weights_true": problem.mode_weights,
            "mode_weights": weighed(problem, x, np.log(np.asarray(weights))),
            "ess": float(1 / np.sum(np.square(weights))),
            "acceptance": float(acceptance),
            "temperatures": temperatures,
            "calls": each * temperatures,
            "seconds": time.perf_counter() - began,
            "blackjax": blackjax.__version__,
        } | machine()
        keep(f"{name}-smc-{seed}", row)


def anneal(problem: Problem, key: Any, temperatures: int):
    """Particles, weights, log Z and mean acceptance of SMC from the prior to the density, with
    Hamiltonian moves whose step size follows their acceptance, and masses the particles' variance.
    """
    from blackjax.mcmc import hmc
    from blackjax.smc import extend_params, resampling, tempered

    dim = problem.dim - 1 if problem.simplex else problem.dim
    logdensity = on_stick(problem) if problem.simplex else problem.logdensity_fn
    scale = 2.0 if problem.simplex else problem.spread

    def log_prior(z):
        return jnp.sum(jax.scipy.stats.norm.logpdf(z, scale=scale))

    kernel = tempered.build_kernel(
        log_prior,
        lambda z: logdensity(z) - log_prior(z),
        hmc.build_kernel(),
        hmc.init,
        resampling.systematic,
    )

    def body(carry, inputs):
        state, log_step = carry
        key, temperature = inputs
        shared: Any = {
            "step_size": jnp.exp(log_step),
            "inverse_mass_matrix": jnp.var(state.particles, axis=0),
            "num_integration_steps": LEAPS,
        }
        state, info = kernel(key, state, MOVES, temperature, extend_params(shared))
        acceptance = jnp.mean(info.update_info.acceptance_rate)
        # The best acceptance in many dimensions is 0.65, and a little more is safe.
        return (state, log_step + acceptance - 0.75), (info.log_likelihood_increment, acceptance)

    @jax.jit
    def run_all(key, start):
        first = tempered.init(start)._replace(tempering_param=jnp.zeros(()))
        # Closer at first, where the likelihood changes most.
        ladder = jnp.linspace(0, 1, temperatures + 1)[1:] ** 3
        inputs = jax.random.split(key, temperatures), ladder
        (state, _), (log_z, acceptance) = jax.lax.scan(body, (first, jnp.log(0.2)), inputs)
        return state.particles, state.weights, jnp.sum(log_z), jnp.mean(acceptance)

    start_key, run_key = jax.random.split(key)
    return run_all(run_key, scale * jax.random.normal(start_key, (PARTICLES, dim)))


def stick(z):
    """Stick-breaking: K - 1 numbers to K weights."""
    k = z.shape[0]
    share = jax.nn.sigmoid(z - jnp.log(jnp.arange(k, 0, -1.0)))
    left = jnp.concatenate([jnp.ones(1), jnp.cumprod(1 - share)])
    return jnp.append(share, 1.0) * left


def on_stick(problem: Problem):
    """The density of the unconstrained numbers."""

    def logdensity(z):
        jacobian = jax.jacfwd(lambda z: stick(z)[:-1])(z)
        return problem.logdensity_fn(stick(z)) + jnp.linalg.slogdet(jacobian)[1]

    return logdensity


def machine() -> dict[str, Any]:
    """Where and when."""
    return {
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "processor": platform.machine(),
    }


def keep(name: str, row: dict[str, Any]) -> None:
    """Write a result, and show it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print({key: row[key] for key in row if key not in ("date", "jax", "processor")}, flush=True)


def table() -> str:
    """One row a density and method."""
    columns = ["density", "method", "seed", "log Z − true", "90 % interval", "mode weights", "true"]
    columns += ["reliable", "calls", "s"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for path in sorted(RESULTS.glob("*.json")):
        row = json.loads(path.read_text())
        true = row["log_z_true"]
        interval = "–"
        if "log_z_low" in row:
            interval = f"[{row['log_z_low'] - true:+.3f}, {row['log_z_high'] - true:+.3f}]"
        lines.append(
            f"| {row['problem']} | {row['method']} | {row['seed']} | {row['log_z'] - true:+.3f} | "
            f"{interval} | {shares(row['mode_weights'])} | {shares(row['mode_weights_true'])} | "
            f"{row.get('reliable', '–')} | {row['calls']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def shares(values: list[float]) -> str:
    """Weights, short."""
    return " ".join(f"{value:.3f}" for value in values)


def main() -> None:
    """Run, compare or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "smc", "table"])
    parser.add_argument("names", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.action == "table":
        print(table())
        return
    {"run": run, "smc": smc}[options.action](options.names or list(PROBLEMS), options.seed)


if __name__ == "__main__":
    main()
