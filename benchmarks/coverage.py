"""How often the interval of `didact.fit` holds the true log Z, and how often its verdict is right.

    python benchmarks/coverage.py run --case gaussian --count 67
    python benchmarks/coverage.py table                    # from benchmarks/results/coverage

Small fits (`SMALL`), each with a key of its own, of densities whose log Z is known; the rows of a
case are kept in one file and added to by later runs. `cut` is the mixture with a twentieth of the
evaluations that the defaults would make, `out-of-reach` a mixture with a mode that no search from
where the others are comes to.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

import didact

RESULTS = Path(__file__).parent / "results" / "coverage"
SMALL = didact.FitConfig(num_steps=20, width=64, batch_size=64, round_steps=300, max_rounds=4)
# Of the default budget: all rounds of all samplers, each of whose batches costs a reward or more.
DEFAULTS = didact.FitConfig()
BUDGET = DEFAULTS.max_rounds * DEFAULTS.round_steps * DEFAULTS.batch_size * DEFAULTS.num_seeds


@dataclass(frozen=True)
class Case:
    """A normalised density, and how it is fitted; `expected`: what the verdict should be."""

    logdensity_fn: Callable[[Any], Any]
    dim: int
    expected: bool
    max_calls: int | None = None


def _gaussian(x):
    scales = jnp.asarray([0.5, 1.0, 3.0])
    z = (x - jnp.asarray([1.0, -2.0, 0.5])) / scales
    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(scales)) - 1.5 * math.log(2 * math.pi)


def _funnel(x):
    first = -0.5 * x[0] ** 2 - 0.5 * math.log(2 * math.pi)
    rest = -0.5 * jnp.exp(-x[0]) * x[1:] ** 2 - 0.5 * x[0] - 0.5 * math.log(2 * math.pi)
    return first + jnp.sum(rest)


def _mixture(means, weights):
    means, log_weights = jnp.asarray(means), jnp.log(jnp.asarray(weights))

    def logdensity(x):
        square = jnp.sum((x - means) ** 2, axis=1)
        return logsumexp(log_weights - 0.5 * square) - 0.5 * x.size * math.log(2 * math.pi)

    return logdensity


_FOUR = _mixture(((-5.0, -4.0), (5.0, -5.0), (-4.0, 5.0), (5.0, 5.0)), (0.4, 0.3, 0.2, 0.1))
_FAR = _mixture(((0.0, 0.0), (4.0, 4.0), (3000.0, -2000.0)), (0.4, 0.3, 0.3))
CASES = {
    "gaussian": Case(_gaussian, 3, True),
    "funnel-3": Case(_funnel, 3, True),
    "mixture-4": Case(_FOUR, 2, True),
    "cut": Case(_FOUR, 2, False, max_calls=BUDGET // 20),
    "out-of-reach": Case(_FAR, 2, False),
}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The fits of a case, in the order of their numbers."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted(rows, key=lambda row: row["number"])


def run(name: str, count: int, seconds: float, part: int, parts: int) -> None:
    """Fit until a case has so many rows or the time is over; every row is kept at once. Of
    several `parts`, which processes may do side by side, this is one.
    """
    case, path = CASES[name], RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {row["number"] for row in rows_of(path)}
    began = time.monotonic()
    for number in range(part, count, parts):
        if number in done:
            continue
        if time.monotonic() - began > seconds:
            break
        # A cut fit has the default configuration, of whose budget a part is left.
        config = DEFAULTS if case.max_calls is not None else SMALL
        fit = didact.fit(
            case.logdensity_fn,
            case.dim,
            rng_key=jax.random.key(number),
            config=config,
            max_calls=case.max_calls,
            max_seconds=None,
            num_samples=4_096,
        )
        low, high = fit.log_z_interval
        row = {
            "number": number,
            "reliable": fit.reliable,
            "reason": fit.reason,
            "log_z": fit.log_z,
            "low": low,
            "high": high,
            "k_hat": fit.k_hat,
            "ess": fit.ess,
            "calls": fit.calls,
            "seconds": round(fit.seconds, 1),
        }
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{name} {number}: {fit.reliable} {fit.log_z:+.3f} [{low:.3f}, {high:.3f}]", flush=True
        )


def table() -> str:
    """Markdown: how often fits are reliable, and the intervals of those that are hold log Z."""
    rows = [
        "| case | fits | reliable | wanted | interval holds log Z where reliable | mean s |",
        "|---|---|---|---|---|---|",
    ]
    wanted = {
        "gaussian": "≥ 80 %",
        "funnel-3": "≥ 80 %",
        "mixture-4": "≥ 60 %",
        "cut": "≤ 10 %",
        "out-of-reach": "≤ 10 %",
    }
    for name, case in CASES.items():
        path = RESULTS / f"{name}.jsonl"
        if not path.exists():
            continue
        fits = rows_of(path)
        trusted = [fit for fit in fits if fit["reliable"]]
        holds = sum(fit["low"] <= 0 <= fit["high"] for fit in trusted)
        covered = f"{holds} of {len(trusted)}" if trusted and case.expected else "–"
        seconds = sum(fit["seconds"] for fit in fits) / len(fits)
        rows.append(
            f"| {name} | {len(fits)} | {100 * len(trusted) / len(fits):.0f} % | {wanted[name]} | "
            f"{covered} | {seconds:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Run or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--case", choices=list(CASES), default="gaussian")
    parser.add_argument("--count", type=int, default=67)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--part", nargs=2, type=int, default=(0, 1), metavar=("INDEX", "OF"))
    options = parser.parse_args()
    part, parts = options.part
    if not 0 <= part < parts:
        parser.error("--part: INDEX counts from 0 and is below OF")
    if options.action == "run":
        run(options.case, options.count, options.seconds, part, parts)
    print(table())


if __name__ == "__main__":
    main()
