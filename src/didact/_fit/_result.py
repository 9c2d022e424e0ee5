"""What a fit returns: draws, weights, log Z, a verdict; and the sampler itself."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, PRNGKeyArray, PyTree

from .. import checkpoint
from .._constraints import Constraint, Position
from .._sampler import Sampler, sample_forward
from ..metrics import weights
from ._modes import Modes
from ._refine import Refined, refine
from ._standardised import Standardised
from ._verdict import Verdict

_BATCH = 2_048
_LARGEST = 700.0  # exp of more is no number


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """Weighted draws of a density, log Z with an interval, and how far they can be trusted.

    - `samples`: independent draws of the samplers, a pytree of positions with leading axis [n];
      `log_weights` [n]: their log importance weights log p + log P_B − log P_F, with which they
      stand for the density: the mean of exp is Z;
    - `log_z`, `log_z_interval` (90 %), `elbo` <= log Z, in nats; `ess`: the effective number of
      draws; `k_hat`: the Pareto shape of the weights' tail, above 0.7 too heavy;
    - `reliable` and the `reason`: what was checked, or what is wrong;
    - `modes`: a row for each hill found, by falling share of the weight; empty if training was cut
      off before they were looked for;
    - `calls`: evaluations of the density or its gradient; `seconds`;
    - `log_z_by_seed`: of each independent sampler.
    """

    samples: PyTree
    log_weights: Float64[np.ndarray, " n"]
    log_z: float
    log_z_interval: tuple[float, float]
    elbo: float
    ess: float
    k_hat: float
    reliable: bool
    reason: str
    modes: tuple[dict[str, Any], ...]
    calls: int
    seconds: float
    log_z_by_seed: tuple[float, ...]
    constraint: Constraint = dataclasses.field(repr=False)
    samplers: tuple[Sampler, ...] = dataclasses.field(repr=False)
    location: Float[Array, " dim"] = dataclasses.field(repr=False)
    scale: Float[Array, " dim"] = dataclasses.field(repr=False)

    @staticmethod
    def make(
        *,
        target: Standardised,
        samplers: tuple[Sampler, ...],
        x: Float[np.ndarray, "n dim"],
        log_weight: Float64[np.ndarray, " n"],
        verdict: Verdict,
        modes: Modes | None,
        calls: int,
        seconds: float,
    ) -> "Fit":
        """Put the parts together, in the user's own coordinates."""
        return Fit(
            samples=_positions(target.constraint, target.location, target.scale, jnp.asarray(x)),
            log_weights=log_weight,
            log_z=verdict.log_z.value,
            log_z_interval=(verdict.log_z.low, verdict.log_z.high),
            elbo=verdict.elbo.value,
            ess=weights.ess(log_weight),
            k_hat=verdict.k_hat,
            reliable=verdict.reliable,
            reason=verdict.reason,
            modes=() if modes is None else _mode_rows(target, modes),
            calls=calls,
            seconds=seconds,
            log_z_by_seed=tuple(one.value for one in verdict.by_seed),
            constraint=target.constraint,
            samplers=samplers,
            location=target.location,
            scale=target.scale,
        )

    def sample(self, key: PRNGKeyArray, n: int) -> PyTree:
        """`n` new draws of the samplers, without weights: positions with leading axis [n]. They do
        not need the density.
        """
        shares = [len(part) for part in np.array_split(np.arange(n), len(self.samplers))]
        x = [
            _draw(sampler, jax.random.fold_in(key, i), share)
            for i, (sampler, share) in enumerate(zip(self.samplers, shares, strict=True))
            if share
        ]
        return _positions(self.constraint, self.location, self.scale, jnp.concatenate(x))

    def resample(self, key: PRNGKeyArray, n: int) -> PyTree:
        """`n` of the draws, picked by their weights: for use where weights cannot be."""
        chance = jnp.asarray(weights.normalised(self.log_weights))
        picked = jax.random.choice(key, len(self.log_weights), (n,), p=chance)
        return jax.tree.map(lambda leaf: leaf[picked], self.samples)

    def refine(
        self,
        logdensity_fn: Callable[[Position], Array],
        rng_key: PRNGKeyArray,
        *,
        num_steps: int = 200,
        num_warmup: int = 200,
        num_chains: int = 64,
        kernel: str = "nuts",
    ) -> Refined:
        """Run Markov chains from draws picked by their weights. Needs the extra `didact[blackjax]`.

        The chains leave the density exactly as it is, whatever the sampler lacks: what is wrong
        within a hill is mended after some steps. What is wrong between hills that chains cannot
        cross stays wrong, `reliable` and `k_hat` tell of that.

        **Arguments:**

        - `logdensity_fn`: position -> log p up to a constant, as given to `didact.fit`;
        - `num_warmup` steps adapt the step size, and are dropped; `num_steps` are returned, for
          each of `num_chains` chains;
        - `kernel`: "nuts" (No-U-Turn trajectories) or "mala" (Langevin steps, each one call).

        **Returns:** samples with leading axes [chains, steps], and `acceptance` [chains], `r_hat`
        [n] of the unconstrained coordinates, `step_size`, `divergences`, `calls`.

        **Errors:** `ImportError` without BlackJAX; `ValueError` for another kernel, fewer than 4
        steps, 1 step of warm-up or 2 chains.
        """
        return refine(
            logdensity_fn,
            self.constraint,
            self.location,
            self.scale,
            self.samples,
            self.log_weights,
            rng_key,
            num_steps=num_steps,
            num_warmup=num_warmup,
            num_chains=num_chains,
            kernel=kernel,
        )

    def to_arviz(self) -> Any:
        """The draws as an ArviZ `DataTree`, one chain for each sampler: independent draws, to be
        weighted by `log_weight` in the sample statistics. Needs the extra `didact[arviz]`.

        Variables are named as in `modes` and reports, a leaf of nested positions by its path:
        `net.weights`. A slash, which a `DataTree` does not allow in names, becomes a dot.

        **Errors:** `ImportError` without arviz-base; `ValueError` if two leaves would have one
        name, or one would be named `chain` or `draw`.
        """
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise ImportError("to_arviz needs arviz-base: pip install 'didact[arviz]'.") from error
        chains = len(self.samplers)
        length = len(self.log_weights) // chains * chains

        def by_chain(leaf: Array | np.ndarray) -> np.ndarray:
            # Draws come from the samplers in turn.
            leaf = np.asarray(leaf)[:length]
            return leaf.reshape(-1, chains, *leaf.shape[1:]).swapaxes(0, 1)

        names = [leaf.name.replace("/", ".") for leaf in self.constraint.leaves]
        taken = [name for i, name in enumerate(names) if name in {"chain", "draw", *names[:i]}]
        if taken:
            raise ValueError(f"ArviZ cannot tell {taken[0]} from another: rename it in positions.")
        leaves = [by_chain(leaf) for leaf in jax.tree.leaves(self.samples)]
        # Of types that every file format of ArviZ takes.
        facts = {
            "inference_library": "didact",
            "draws": "independent, to be weighted by exp(log_weight)",
            "log_z": self.log_z,
            "log_z_low": self.log_z_interval[0],
            "log_z_high": self.log_z_interval[1],
            "reliable": str(self.reliable),
            "reason": self.reason,
        }
        return from_dict(
            {
                "posterior": dict(zip(names, leaves, strict=True)),
                "sample_stats": {"log_weight": by_chain(self.log_weights)},
            },
            attrs={"posterior": facts},
        )

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page: the verdict, the modes, the marginals, the weights."""
        from ..report import FitData, write_fit

        draws = [
            np.reshape(leaf, (len(self.log_weights), -1)) for leaf in jax.tree.leaves(self.samples)
        ]
        page = FitData(
            names=self.constraint.names(),
            draws=np.concatenate(draws, axis=1).astype(np.float64),
            log_weights=self.log_weights,
            log_z=self.log_z,
            log_z_interval=self.log_z_interval,
            log_z_by_seed=self.log_z_by_seed,
            elbo=self.elbo,
            ess=self.ess,
            k_hat=self.k_hat,
            reliable=self.reliable,
            reason=self.reason,
            modes=[row | {"numbers": _flat(row["position"])} for row in self.modes],
            calls=self.calls,
            seconds=self.seconds,
        )
        return write_fit(page, Path(path))

    def save(self, path: str | Path) -> Path:
        """Write samplers, draws and verdict to one .npz file, which `didact.load_fit` reads without
        the density.

        **Errors:** `ValueError` for positions made of other containers than dicts, lists and
        tuples, and for another ending than .npz.
        """
        return _save(self, Path(path))

    def __str__(self) -> str:
        low, high = self.log_z_interval
        lines = [
            "reliable" if self.reliable else "NOT reliable",
            self.reason,
            f"log Z  {self.log_z:.4f}   90 % interval [{low:.4f}, {high:.4f}]",
            f"ELBO   {self.elbo:.4f}   k-hat {self.k_hat:.2f}",
            f"ESS    {self.ess:,.0f} of {len(self.log_weights):,} draws",
            f"{self.calls:,} evaluations, {self.seconds:.0f} s",
        ]
        lines += [
            f"mode {i}: {100 * row['share']:5.1f} % of the weight"
            for i, row in enumerate(self.modes)
        ]
        return "\n".join(lines)


def load_fit(path: str | Path) -> Fit:
    """Read what `Fit.save` wrote. Executes nothing from the file, and needs no density.

    **Errors:** `ValueError` naming the file if it is not one or is damaged.
    """
    return _load(Path(path))


def _flat(position: PyTree) -> Float64[np.ndarray, " numbers"]:
    """The numbers of a position in a row."""
    leaves = [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(position)]
    return np.concatenate(leaves)


def _mode_rows(target: Standardised, modes: Modes) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "position": jax.tree.map(
                np.asarray, target.position(jnp.asarray(centre, target.location.dtype))
            ),
            "log_density": float(modes.log_density[k] + target.offset),
            "share": float(modes.share[k]),
            "share_drawn": float(modes.share_drawn[k]),
            "laplace_share": float(np.exp(min(modes.log_mass[k], _LARGEST))),
            "by_chains": bool(modes.by_chains[k]),
        }
        for k, centre in enumerate(modes.centre)
    )


@eqx.filter_jit
def _positions(constraint: Constraint, location, scale, x: Float[Array, "n dim"]) -> PyTree:
    return jax.vmap(lambda u: constraint.to_position(location + scale * u))(x)


def _draw(sampler: Sampler, key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
    batches = [_draw_batch(sampler, jax.random.fold_in(key, i)) for i in range(-(-n // _BATCH))]
    return jnp.concatenate(batches)[:n]


@eqx.filter_jit
def _draw_batch(sampler: Sampler, key: PRNGKeyArray) -> Float[Array, "B dim"]:
    trajectory = sample_forward(sampler, key, _BATCH)
    return jax.vmap(sampler.environment.sample_of)(trajectory.terminal)


_NUMBERS = ("log_z", "elbo", "ess", "k_hat")


def _save(fit: Fit, path: Path) -> Path:
    if path.suffix != ".npz":
        raise ValueError(f"a fit is saved as .npz, not {path.suffix or path.name!r}.")
    template, bounds, simplex = fit.constraint.arguments()
    parts = {"samples": fit.samples, "lower": bounds[0], "upper": bounds[1]}
    parts |= {f"mode_{k}": row["position"] for k, row in enumerate(fit.modes)}
    header = {name: float(getattr(fit, name)) for name in _NUMBERS} | {
        "reliable": fit.reliable,
        "reason": fit.reason,
        "calls": fit.calls,
        "seconds": fit.seconds,
        "log_z_interval": list(fit.log_z_interval),
        "log_z_by_seed": list(fit.log_z_by_seed),
        "modes": [{k: v for k, v in row.items() if k != "position"} for row in fit.modes],
        "template": _containers(template),
        "dtypes": [str(leaf.dtype) for leaf in jax.tree.leaves(template)],
        "simplex": jax.tree.leaves(simplex),
        "samplers": [checkpoint.describe_sampler(sampler) for sampler in fit.samplers],
    }
    arrays = {"log_weights": fit.log_weights}
    arrays |= {"location": np.asarray(fit.location), "scale": np.asarray(fit.scale)}
    for name, tree in parts.items():
        leaves = jax.tree.leaves(tree)
        arrays |= {f"{name}_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    for i, sampler in enumerate(fit.samplers):
        arrays |= checkpoint.sampler_arrays(sampler, f"sampler_{i}_")
    checkpoint.write_archive(path, "fit", _without_infinities(header), arrays)
    return path


def _load(path: Path) -> Fit:
    with checkpoint.read_archive(path, "fit") as (header, arrays):
        structure = jax.tree.structure(_rebuild(header["template"]))
        count = structure.num_leaves

        def tree(name: str) -> PyTree:
            return jax.tree.unflatten(structure, [arrays[f"{name}_{i}"] for i in range(count)])

        samples, lower, upper = tree("samples"), tree("lower"), tree("upper")
        positions = [tree(f"mode_{k}") for k in range(len(header["modes"]))]
        log_weights, dtypes = arrays["log_weights"], header["dtypes"]
        _require_positions(samples, log_weights, dtypes, [lower, upper, *positions])
        template = jax.tree.map(
            lambda leaf, dtype: jax.ShapeDtypeStruct(leaf.shape[1:], dtype),
            samples,
            jax.tree.unflatten(structure, dtypes),
        )
        simplex = jax.tree.unflatten(structure, header["simplex"])
        samplers = tuple(
            checkpoint.build_sampler(one, arrays, prefix=f"sampler_{i}_")
            for i, one in enumerate(header["samplers"])
        )
        constraint = Constraint(template, (lower, upper), simplex)
        places = [arrays.header(name).shape for name in ("location", "scale")]
        if not samplers or {*places, *map(_shape_of, samplers)} != {(constraint.size,)}:
            raise ValueError("its samplers do not fit its positions")
        modes = tuple(
            {"position": position}
            | {k: v if isinstance(v, bool) else float(v) for k, v in row.items()}
            for position, row in zip(positions, header["modes"], strict=True)
        )
        return Fit(
            samples=samples,
            log_weights=log_weights,
            log_z_interval=_pair(header["log_z_interval"]),
            log_z_by_seed=tuple(float(value) for value in header["log_z_by_seed"]),
            modes=modes,
            constraint=constraint,
            samplers=samplers,
            location=jnp.asarray(arrays["location"]),
            scale=jnp.asarray(arrays["scale"]),
            reliable=bool(header["reliable"]),
            reason=str(header["reason"]),
            calls=int(header["calls"]),
            seconds=float(header["seconds"]),
            **{name: float(header[name]) for name in _NUMBERS},
        )


def _require_positions(
    samples: PyTree, log_weights: np.ndarray, dtypes: list[str], others: list[PyTree]
) -> None:
    """`ValueError` unless there is a draw for each weight; `others` are single positions."""
    n, leaves = log_weights.size, jax.tree.leaves(samples)
    kind = log_weights.dtype == np.float64 and log_weights.shape == (n,)
    if not n or not kind or [str(leaf.dtype) for leaf in leaves] != dtypes:
        raise ValueError("its weights are none, or its draws are of another type")
    if any(leaf.shape[:1] != (n,) or leaf.dtype.kind != "f" for leaf in leaves):
        raise ValueError("its draws are not as many as their weights")
    shapes = [leaf.shape[1:] for leaf in leaves]
    if any([leaf.shape for leaf in jax.tree.leaves(other)] != shapes for other in others):
        raise ValueError("its bounds or modes do not fit its draws")


def _shape_of(sampler: Sampler) -> tuple[int, ...]:
    """The shape of what a sampler draws."""
    env = sampler.environment
    x = jax.eval_shape(lambda: env.sample_of(env.initial_state()))
    return x.shape if isinstance(x, jax.ShapeDtypeStruct) else ()


def _pair(values: list[float | str]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _without_infinities(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become words that float() reads."""
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _containers(tree: PyTree) -> Any:
    """The containers of a position as JSON: {"dict": …}, {"list": …}, {"tuple": …}, null a leaf."""
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _containers(item) for key, item in tree.items()}}
    for kind in (list, tuple):
        if type(tree) is kind:
            return {kind.__name__: [_containers(item) for item in tree]}
    if not hasattr(tree, "shape"):
        raise ValueError(
            f"positions in a {type(tree).__name__} cannot be saved: use dicts with names as keys, "
            "lists and tuples."
        )
    return None


def _rebuild(containers: Any) -> PyTree:
    """The inverse, with 0 for every leaf."""
    if containers is None:
        return 0
    ((kind, items),) = containers.items()
    if kind == "dict":
        return {key: _rebuild(item) for key, item in items.items()}
    return {"list": list, "tuple": tuple}[kind](_rebuild(item) for item in items)
