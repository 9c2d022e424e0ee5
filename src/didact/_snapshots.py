"""Snapshots: the laws of Student and Teacher at moments of the training, as small pictures.

Where the laws are known exactly (`ExactSnapshots`) a picture is the law itself, else
(`DrawnSnapshots`, for real vectors) a histogram of draws. The picture of a law over strings is its
profile [num_symbols, length], the probability of each symbol in each place: that of the law, or
(`DrawnProfiles`) of draws. `target.npz` holds the target's picture, `STEP.npz` the Student's and
the Teacher's; `extent` says where those of draws look.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Shaped
from scipy.special import ndtr

from ._files import write_whole
from ._sampler import Sampler
from ._types import EnumerableEnvironment, Environment, SamplableTarget, Target
from .behaviours import run_mala
from .environments import Strings
from .metrics import empirical, exact

FORMAT_VERSION = 1
MAX_PAIRS = 6
CELLS = 64
NUM_DRAWS = 4096
_DENSITY_CELLS = 3 * CELLS
_NUM_CHAINS = 256
_CANDIDATES = 24
_BINS = 12
_SNAPSHOT = 0x736E6170
Points = Float[Array | np.ndarray, "n dim"]


def is_vector(env: Environment) -> bool:
    """Whether the objects are real vectors."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda: env.sample_of(env.initial_state())))
    return len(leaves) == 1 and leaves[0].ndim == 1 and jnp.issubdtype(leaves[0].dtype, jnp.inexact)


@eqx.filter_jit
def exact_samples(target: SamplableTarget, key: Array, n: int) -> Points:
    """`n` exact samples of a target."""
    return jax.vmap(target.sample)(jax.random.split(key, n))


class View(NamedTuple):
    """Where the pictures of a run look.

    `pairs` [k, 2] of coordinates, none in one dimension; `extent` [k, 4] is the lowest and the
    highest value of the first and of the second coordinate, [1, 2] in one dimension.
    """

    pairs: Int[np.ndarray, "k 2"]
    extent: Float64[np.ndarray, "k ends"]

    @staticmethod
    def of(points: Points) -> "View":
        """The pairs that matter among the coordinates of a law, from draws of it, and their
        0.1 to 99.9 % quantiles, widened by a tenth on each side.

        Of more than two coordinates these are the pairs whose joint law is least like a Gaussian
        (`interesting_pairs`).
        """
        points = np.asarray(points, np.float64)
        points = points[np.all(np.isfinite(points), axis=1)]
        low, high = np.quantile(points, (0.001, 0.999), axis=0)
        margin = 0.1 * np.maximum(high - low, 1e-6)
        ends = np.stack([low - margin, high + margin], axis=1)
        if points.shape[1] == 1:
            return View(np.zeros((0, 2), np.int64), ends)
        pairs = interesting_pairs(points)
        return View(pairs, ends[pairs].reshape(len(pairs), 4))

    def picture(
        self, x: Points, weight: Float64[np.ndarray, " n"] | None = None
    ) -> Float32[np.ndarray, "..."]:
        """Shares of draws [n, dim] in cells: [cells] in one dimension, [cells, cells] in two, with
        the first coordinate first, [k, cells, cells] in more. Draws outside are in no cell.
        """
        x = np.asarray(x, np.float64)
        share = np.full(len(x), 1 / len(x)) if weight is None else weight / weight.sum()
        if not len(self.pairs):
            return _histogram(x, self.extent[0], share)
        panels = [
            _histogram(x[:, pair], ends, share)
            for pair, ends in zip(self.pairs, self.extent, strict=True)
        ]
        return panels[0] if x.shape[1] == 2 else np.stack(panels)


def interesting_pairs(points: Float64[np.ndarray, "n dim"]) -> Int[np.ndarray, "k 2"]:
    r"""Up to six pairs of coordinates whose joint law is least like a Gaussian.

    The measure is the divergence of the law of the pair, standardised, from a standard Gaussian,
    $\mathrm{KL}(p \,\Vert\, N(0, I))$ on a grid of 12 × 12 cells. So that not one coordinate takes
    all the places, it counts divided by 1 + the number of earlier pairs that have a coordinate of
    this one; of pairs within a quarter of the best the first is taken. Where there are more than 24
    coordinates, those that are on their own least like a Gaussian stand for all.
    """
    dim = points.shape[1]
    if dim == 2:
        return np.array([[0, 1]])
    own = np.array([_non_gaussianity(points[:, [i]]) for i in range(dim)])
    kept = np.sort(_first_best(own, min(dim, _CANDIDATES)))
    pairs = np.array(list(itertools.combinations(kept, 2)))
    score = np.array([_non_gaussianity(points[:, pair]) for pair in pairs])
    uses, chosen = np.zeros(dim, np.int64), []
    for _ in range(min(MAX_PAIRS, len(pairs))):
        worth = score / (1 + uses[pairs].sum(axis=1))
        worth[chosen] = -np.inf
        best = int(_first_best(worth, 1)[0])
        chosen.append(best)
        uses[pairs[best]] += 1
    return pairs[chosen]


class ExactSnapshots:
    """The laws of an environment whose terminal states are positions on a grid, or strings."""

    def __init__(self, folder: Path, env: EnumerableEnvironment, target: Target):
        self.folder, self.env, self.target = folder, env, target

    def save(self, step: int, laws: dict[str, np.ndarray]) -> None:
        """Keep the laws as pictures: of strings their profiles; the grid itself in up to 2
        dimensions, else its pairwise marginals.
        """
        if not laws:
            return
        x = exact.terminal_samples(self.env)
        if not isinstance(x, np.ndarray) or x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
            return
        self.folder.mkdir(exist_ok=True)
        if isinstance(self.env, Strings):
            num_symbols, facts = self.env.num_symbols, {}
            picture = functools.partial(profile, x, num_symbols)
        else:
            picture, facts = _on_grid(x)
        if not (self.folder / "target.npz").exists():
            truth = exact.truth(self.env, self.target)
            is_plane = facts and x.shape[1] <= 2
            extra = {"modes": picture(truth.mode >= 0) > 0} if is_plane else {}
            pictures = {"target": picture(np.exp(truth.log_p))}
            save_npz(self.folder / "target.npz", **pictures, **extra, **facts)
        pictures = {name: picture(law) for name, law in laws.items()}
        save_npz(self.folder / f"{step:09d}.npz", step=np.asarray(step), **pictures, **facts)


def profile(
    x: Int[np.ndarray, "n length"],
    num_symbols: int,
    weight: Shaped[np.ndarray, " n"] | None = None,
) -> Float32[np.ndarray, "symbols length"]:
    """Share of each symbol in each place of strings, by their weights, which sum to 1 (None: all
    alike).
    """
    weight = np.full(len(x), 1 / max(len(x), 1)) if weight is None else weight
    places = [np.bincount(x[:, place], weight, num_symbols) for place in range(x.shape[1])]
    return np.stack(places, axis=1).astype(np.float32)


def _on_grid(
    x: Int[np.ndarray, "n axes"],
) -> tuple[Callable[[np.ndarray], np.ndarray], dict[str, np.ndarray]]:
    """What makes the picture of a law over positions, and the pairs of coordinates in it."""
    x = x - x.min()
    side, dim = int(x.max()) + 1, x.shape[1]
    pairs = list(itertools.combinations(range(dim), 2))[:MAX_PAIRS]

    def picture(law: np.ndarray) -> np.ndarray:
        if dim == 1:
            return np.bincount(x[:, 0], law, side).astype(np.float32)
        tables = [np.bincount(x[:, i] * side + x[:, j], law, side**2) for i, j in pairs]
        tables = np.reshape(tables, (len(pairs), side, side)).astype(np.float32)
        return tables[0] if dim == 2 else tables

    return picture, {"pairs": np.asarray(pairs, np.int32).reshape(-1, 2)}


class DrawnProfiles:
    """Profiles of draws of laws over strings of which there are too many to list. The target's is
    not known then, and no reward is asked for.
    """

    def __init__(self, folder: Path, env: Strings, seed: int):
        self.folder, self.env = folder, env
        # As for `DrawnSnapshots`.
        self.key = jax.random.fold_in(jax.random.key(seed), _SNAPSHOT)

    def save(self, step: int, student: Sampler, teacher: Sampler | None) -> None:
        """Keep the Student's and the Teacher's profile."""
        self.folder.mkdir(exist_ok=True)
        samplers = {"student": student} | ({} if teacher is None else {"teacher": teacher})
        pictures = {
            name: profile(
                np.asarray(empirical.objects(sampler, self.key, NUM_DRAWS)), self.env.num_symbols
            )
            for name, sampler in samplers.items()
        }
        save_npz(self.folder / f"{step:09d}.npz", step=np.asarray(step), **pictures)


class DrawnSnapshots:
    """Histograms of draws of laws over real vectors.

    The target's picture is its density in the plane, a histogram of exact samples elsewhere, and
    one of weighted draws of the Student where no exact samples can be drawn (`source`).

    **Arguments:** `untrained`: a sampler whose draws tell where to look for a target of which no
    exact samples can be drawn.
    """

    def __init__(self, folder: Path, target: Target, untrained: Sampler, seed: int):
        self.folder, self.target, self.untrained = folder, target, untrained
        # Apart from the keys of training; the same at each step, so that only the law moves.
        self.key = jax.random.fold_in(jax.random.key(seed), _SNAPSHOT)

    @functools.cached_property
    def points(self) -> Points:
        """Exact samples of the target, or where chains end that are drawn to it from the
        untrained sampler's draws: not the target's law, but its region.
        """
        key, chain_key = jax.random.split(self.key)
        if isinstance(self.target, SamplableTarget):
            return exact_samples(self.target, key, NUM_DRAWS)
        start = jnp.asarray(empirical.objects(self.untrained, key, _NUM_CHAINS))
        return (
            _drawn_to(self.target, chain_key, start)
            if _has_gradient(self.target, start[0])
            else start
        )

    @functools.cached_property
    def view(self) -> View:
        """Where the pictures look."""
        return View.of(self.points)

    def save(self, step: int, student: Sampler, teacher: Sampler | None) -> None:
        """Keep the Student's and the Teacher's picture, and the target's."""
        self.folder.mkdir(exist_ok=True)
        pairs, extent = self.view
        facts = {"pairs": pairs.astype(np.int32), "extent": extent}
        draws, target = None, self.folder / "target.npz"
        if extent.size == 4:  # the plane
            if not target.exists():
                save_npz(target, **_plane(self.target, extent[0]), **facts)
        elif isinstance(self.target, SamplableTarget):
            if not target.exists():
                source = {"source": np.asarray("samples")}
                save_npz(target, target=self.view.picture(self.points), **source, **facts)
        else:  # the better the Student, the better the picture
            draws = empirical.draws(student, self.target, self.key, NUM_DRAWS)
            log_weight = np.asarray(draws.log_weight, np.float64)
            picture = self.view.picture(draws.x, np.exp(log_weight - log_weight.max()))
            save_npz(target, target=picture, source=np.asarray("weighted draws"), **facts)
        x = empirical.objects(student, self.key, NUM_DRAWS) if draws is None else draws.x
        pictures = {"student": self.view.picture(x)}
        if teacher is not None:
            x = empirical.objects(teacher, self.key, NUM_DRAWS)
            pictures["teacher"] = self.view.picture(x)
        save_npz(self.folder / f"{step:09d}.npz", step=np.asarray(step), **pictures, **facts)


def save_npz(path: Path, **arrays: Any) -> None:
    """Write arrays and a format version, whole or not at all."""
    with write_whole(path) as file:
        version = np.asarray(FORMAT_VERSION)
        np.savez_compressed(file, allow_pickle=False, format_version=version, **arrays)


def _histogram(
    x: Float64[np.ndarray, "n axes"],
    ends: Float64[np.ndarray, " ends"],
    weight: Float64[np.ndarray, " n"],
) -> Float32[np.ndarray, "..."]:
    axes = x.shape[1]
    low, high = ends[0::2], ends[1::2]
    cell = np.floor((x - low) / (high - low) * CELLS)
    inside = np.all((cell >= 0) & (cell < CELLS), axis=1)
    number = cell[inside].astype(np.int64) @ CELLS ** np.arange(axes)[::-1]
    counts = np.bincount(number, weight[inside], CELLS**axes)
    return counts.reshape((CELLS,) * axes).astype(np.float32)


def _non_gaussianity(points: Float64[np.ndarray, "n axes"]) -> float:
    """KL of standardised draws from a standard Gaussian, on cells."""
    n, axes = points.shape
    centred = points - points.mean(axis=0)
    covariance = np.atleast_2d(centred.T @ centred / n)
    covariance += 1e-12 * np.trace(covariance) * np.eye(axes) + 1e-300 * np.eye(axes)
    standard = np.linalg.solve(np.linalg.cholesky(covariance), centred.T).T
    edges = np.linspace(-3, 3, _BINS + 1)
    cell = np.clip(np.searchsorted(edges, standard) - 1, 0, _BINS - 1)
    counts = np.bincount(cell @ _BINS ** np.arange(axes), minlength=_BINS**axes)
    edges[[0, -1]] = -np.inf, np.inf
    one = np.diff(ndtr(edges))
    reference = one if axes == 1 else np.outer(one, one).ravel()
    p, seen = counts / n, counts > 0
    return float(np.sum(p[seen] * np.log(p[seen] / reference[seen])))


def _first_best(worth: Float64[np.ndarray, " n"], count: int) -> Int[np.ndarray, " count"]:
    """Numbers of the `count` best; those within a quarter of the best count alike, in order."""
    alike = np.flatnonzero(worth >= 0.75 * worth.max())
    rest = np.argsort(-worth, kind="stable")
    return np.concatenate([alike, rest[~np.isin(rest, alike)]])[:count]


def _has_gradient(target: Target, x: Float[Array, " dim"]) -> bool:
    """Whether JAX can differentiate log R; a function that runs on the host has no gradient."""
    try:
        jax.eval_shape(jax.grad(target.log_reward), x)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True


@eqx.filter_jit
def _drawn_to(target: Target, key: Array, start: Points) -> Points:
    settings = {"num_steps": 300, "burn_in": 200, "step_size": 0.01, "acceptance": 0.574}
    return run_mala(target, key, start, **settings)[0]


def _plane(target: Target, ends: Float64[np.ndarray, " 4"]) -> dict[str, np.ndarray]:
    """The density in the plane at the centres of cells, normalised on them; and its picture."""
    centres = (np.arange(_DENSITY_CELLS) + 0.5) / _DENSITY_CELLS
    first, second = (low + (high - low) * centres for low, high in (ends[:2], ends[2:]))
    x = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = np.asarray(_log_rewards(target, jnp.asarray(x, jnp.result_type(float))), np.float64)
    p = np.exp(log_p - log_p.max())
    density = (p / p.sum()).reshape(_DENSITY_CELLS, _DENSITY_CELLS)
    per_cell = _DENSITY_CELLS // CELLS
    blocks = density.reshape(CELLS, per_cell, CELLS, per_cell).sum(axis=(1, 3))
    return {
        "target": blocks.astype(np.float32),
        "density": density.astype(np.float32),
        "source": np.asarray("density"),
    }


@eqx.filter_jit
def _log_rewards(target: Target, x: Points) -> Float[Array, " n"]:
    return jax.lax.map(target.log_reward, x, batch_size=4096)
