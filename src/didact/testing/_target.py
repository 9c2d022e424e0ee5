"""The laws of a target."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._types import (
    EnumerableEnvironment,
    Environment,
    ModalTarget,
    SamplableTarget,
    Sample,
    Target,
)
from ._forms import form_of, numbers_as_arrays, scalar_fault
from ._laws import Checked, Ledger, fault_at, show, show_state, take
from ._process import unchanged
from ._quadrature import (
    TOO_STEEP,
    Below,
    Mass,
    cells_of,
    choose_coordinate,
    mass_of,
    proposals,
    share_below,
)
from ._regions import Region, Share, regions_of, share_of
from ._statistics import ERROR_RATE, chance_of_count, chi_square, fault_of_places, generator

FINITE = "log_reward is finite, and its gradient where it has one"
LOG_Z = "log_z is the logarithm of the sum or integral of R"
MODES = "mode_index is -1 or below num_modes"
ALL_MODES = "every mode has an object"
LISTED = "listed modes are those of mode_index, in its order"
SAMPLES = "samples have the density R/Z"
_BLOCK = 2**13
_NODES, _BINS, _POINTS = 512, 24, 2**12


def check_target(
    target: Target,
    environment: Environment | None = None,
    *,
    x: Sample | None = None,
    key: PRNGKeyArray | None = None,
    num_draws: int = 2048,
    max_states: int = 2**17,
    differentiable: bool = True,
) -> Checked:
    r"""Check the laws of a `didact.targets.Target`.

    - `log_reward` is one float, finite wherever it is looked at, and so is its gradient where
      objects are real.
    - `log_z` and `num_modes` are plain numbers or None; `mode_index` is -1 or below `num_modes`.
    - Over an `EnumerableEnvironment` of at most `max_states` terminal states: `log_z` is the
      logarithm of $\sum_x R(x)$, and every mode has an object.
    - The objects that a `ModalTarget` lists are its modes, in the order of their numbers, where
      there are at most `max_states` of them.
    - Samples of a `SamplableTarget` have the density R/Z: over an enumerable environment by
      Pearson's χ², and where x is a vector of real numbers by its distribution function along a
      coordinate given the others, which says nothing of the masses of parts that are far apart.
      In one or two dimensions the masses of cells are compared too, and `log_z` with the
      integral. In more, `log_z` is compared where the density is near enough to a Gaussian for
      an estimate by draws, and where it is known the numbers of samples in a few ellipsoids are,
      with the shares of R/Z there: these lie where samples are dense, and count where such a
      share can be estimated to 2 %.

    **Arguments:** `environment`: whose terminal objects are looked at; without one, exact samples
    are, or `x`, objects with a leading axis. `key` of draws (None: always the same ones);
    `num_draws`: samples; `differentiable`: False where log R has no gradient, though x is real.
    Each law of draws raises a false alarm with a chance of 1e-7. With 2,048 samples of a Gaussian a
    scale is found that is wrong by 20 % in one dimension, by 15 % in each of several, or by 25 % in
    one of two.

    **Errors:** `ConformanceError` for the first law that is broken; `ValueError` where it is not
    known what to evaluate the target at.
    """
    key = jax.random.key(0) if key is None else key
    ledger = Ledger(target)
    ledger.must_be(Target, "targets", otherwise=", or wrap a function: didact.targets.FromFunction")
    with unchanged(ledger, target):
        _check_facts(ledger, target)
        objects, everything = _objects(target, environment, x, key, num_draws, max_states)
        _check_forms(ledger, target, objects)
        log_reward, mode = _check_values(ledger, target, objects)
        if differentiable:
            _check_gradient(ledger, target, objects)
        if everything:
            _check_sum(ledger, target, log_reward, mode, objects)
        if isinstance(target, ModalTarget):
            _check_listed(ledger, target, max_states)
        if isinstance(target, SamplableTarget):
            law = log_reward if everything else None
            _check_samples(ledger, target, objects, law, key, num_draws)
        elif target.log_z is not None and not everything:
            ledger.leave_out("log_z: give an EnumerableEnvironment that is small enough")
    return ledger.close(f"{len(log_reward):,} objects")


def _objects(
    target: Target,
    env: Environment | None,
    x: Sample | None,
    key: PRNGKeyArray,
    num_draws: int,
    max_states: int,
) -> tuple[Sample, bool]:
    """Objects to look at, and whether these are all of them."""
    if x is not None:
        return x, False
    if env is None:
        if isinstance(target, SamplableTarget):
            return _sample(target, key, num_draws), False
        raise ValueError(
            f"check_target must know objects of {type(target).__name__}: give an environment, or "
            "objects x with a leading axis."
        )
    if isinstance(env, EnumerableEnvironment):
        everything = env.num_terminal_states <= max_states
        if everything:
            return _terminal_objects(env, jnp.arange(env.num_terminal_states)), True
    return _random_objects(env, key, num_draws), False


@eqx.filter_jit
def _sample(target: SamplableTarget, key: PRNGKeyArray, number: int) -> Sample:
    return jax.vmap(target.sample)(jax.random.split(key, number))


@eqx.filter_jit
def _terminal_objects(env: EnumerableEnvironment, numbers: Array) -> Sample:
    return jax.vmap(lambda i: env.sample_of(env.state_at(env.num_internal + i)))(numbers)


@eqx.filter_jit
def _random_objects(env: Environment, key: PRNGKeyArray, number: int) -> Sample:
    """Where trajectories end that follow random parameters."""
    params_key, noise_key = jax.random.split(key)
    shape = (env.num_steps, number)
    params = jax.random.normal(params_key, (*shape, env.forward_size))
    start = env.initial_state()
    noise = env.forward_kernel(start, params[0, 0]).noise(noise_key, shape)

    def step(state: Any, inputs: Any) -> tuple[Any, None]:
        noise, params = inputs
        after = env.step(state, env.forward_kernel(state, params).from_noise(noise))
        ended = env.is_terminal(state)
        return jax.tree.map(lambda a, b: jnp.where(ended, a, b), state, after), None

    def one(noise: Any, params: Array) -> Sample:
        return env.sample_of(jax.lax.scan(step, start, (noise, params))[0])

    return jax.vmap(one, in_axes=1)(noise, params)


def _check_facts(ledger: Ledger, target: Target) -> None:
    """Plain numbers, or None, in a compiled program too."""
    traced = numbers_as_arrays(target)
    facts = form_of(ledger, "log_z or num_modes", lambda t: (t.log_z, t.num_modes), traced)
    for name, value, kind in zip(("log_z", "num_modes"), facts, (float, int), strict=True):
        right = value is None or (isinstance(value, kind | np.number) and math.isfinite(value))
        fault = (
            f"{name} is {show(value)}: it must be a finite {kind.__name__} or None, a property or "
            "a field marked eqx.field(static=True)."
        )
        ledger.holds("log_z and num_modes are plain numbers or None", None if right else fault)


def _check_forms(ledger: Ledger, target: Target, x: Sample) -> None:
    traced = numbers_as_arrays(target)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    form = form_of(ledger, "log_reward", lambda t, x: t.log_reward(x), traced, one)
    fault = scalar_fault("log_reward", form, jnp.floating, "float")
    ledger.holds("log_reward is one float", fault)
    form = form_of(ledger, "mode_index", lambda t, x: t.mode_index(x), traced, one)
    fault = scalar_fault("mode_index", form, jnp.integer, "integer")
    ledger.holds("mode_index is one integer", fault)


@eqx.filter_jit
def _evaluate(target: Target, x: Sample) -> tuple[Array, Array]:
    def one(x: Sample) -> tuple[Array, Array]:
        return target.log_reward(x), target.mode_index(x)

    if len(jax.tree.leaves(x)[0]) <= _BLOCK:
        return jax.vmap(one)(x)
    return jax.lax.map(one, x, batch_size=_BLOCK)


def _check_values(ledger: Ledger, target: Target, x: Sample) -> tuple[np.ndarray, np.ndarray]:
    log_reward, mode = map(np.asarray, _evaluate(target, x))
    fault = fault_at(
        ~np.isfinite(log_reward),
        lambda i: f"log_reward is {log_reward[i]} at x = {show_state(take(x, i))}",
        "objects",
    )
    ledger.holds(FINITE, fault)
    most = 0 if target.num_modes is None else target.num_modes
    fault = fault_at(
        (mode < -1) | (mode >= most),
        lambda i: (
            f"mode_index is {mode[i]} at x = {show_state(take(x, i))}, and num_modes is "
            f"{target.num_modes}"
        ),
        "objects",
    )
    ledger.holds(MODES, fault)
    return log_reward, mode


@eqx.filter_jit
def _gradient(target: Target, x: Sample) -> Sample:
    return jax.vmap(jax.grad(target.log_reward))(x)


def _check_gradient(ledger: Ledger, target: Target, x: Sample) -> None:
    if not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(x)):
        return
    slope = _gradient(target, jax.tree.map(lambda leaf: leaf[:_BLOCK], x))
    for leaf in jax.tree.leaves(slope):
        flat = np.asarray(leaf).reshape(len(leaf), -1)
        fault = fault_at(
            ~np.all(np.isfinite(flat), axis=1),
            lambda i: (
                f"Its gradient is {show_state(take(slope, i))} at x = {show_state(take(x, i))}"
            ),
            "objects",
        )
        ledger.holds(FINITE, fault)


def _check_sum(
    ledger: Ledger, target: Target, log_reward: np.ndarray, mode: np.ndarray, x: Sample
) -> None:
    """What all objects together say."""
    if target.log_z is not None:
        log_z = np.logaddexp.reduce(log_reward.astype(np.float64))
        off = float(target.log_z - log_z)
        fault = f"log_z is {float(target.log_z):.7g}, the sum gives {log_z:.7g}: off by {off:.3g}."
        # Of the largest terms: what weighs nothing may be as far below as it likes.
        limit = 1e-4 + 1e-5 * max(abs(float(log_reward.max())), abs(log_z))
        ledger.holds(LOG_Z, fault if abs(off) > limit else None)
    if target.num_modes is not None and target.num_modes < 2**31:
        found = np.unique(mode[mode >= 0])
        fault = f"num_modes is {target.num_modes}, and the objects have {len(found)} modes."
        ledger.holds(ALL_MODES, fault if len(found) != target.num_modes else None)


def _check_listed(ledger: Ledger, target: ModalTarget, most: int) -> None:
    number = target.num_modes
    if number is None or number > most:
        ledger.leave_out(f"{LISTED}: there are more than {most:,}, or it is not known how many")
        return
    listed = target.mode_samples()
    found = np.asarray(jax.vmap(target.mode_index)(jax.tree.map(jnp.asarray, listed)))
    fault = None
    if len(found) != number:
        fault = f"mode_samples() has {len(found):,} objects, num_modes is {number:,}."
    elif (wrong := np.nonzero(found != np.arange(number))[0]).size:
        fault = f"object {wrong[0]} of mode_samples() has the mode_index {found[wrong[0]]}."
    ledger.holds(LISTED, fault)


def _check_samples(
    ledger: Ledger,
    target: SamplableTarget,
    objects: Sample,
    log_reward: np.ndarray | None,
    key: PRNGKeyArray,
    num_draws: int,
) -> None:
    sample_key, key = jax.random.split(key)
    draws = _sample(target, sample_key, num_draws)
    forms = [jax.tree.map(lambda leaf: leaf.shape[1:], part) for part in (draws, objects)]
    fault = (
        f"A sample has the shape {show(forms[0])}, an object of the environment {show(forms[1])}."
    )
    ledger.holds("samples are objects", fault if forms[0] != forms[1] else None)
    leaves = jax.tree.leaves(draws)
    if log_reward is not None:
        _check_counts(ledger, objects, draws, log_reward)
    elif len(leaves) == 1 and leaves[0].ndim == 2 and jnp.issubdtype(leaves[0].dtype, jnp.inexact):
        _check_vectors(ledger, target, leaves[0], jax.tree.structure(draws), key)
    else:
        ledger.leave_out(f"{SAMPLES}: objects are neither real vectors nor enumerated")


def _check_counts(ledger: Ledger, objects: Sample, draws: Sample, log_reward: np.ndarray) -> None:
    def rows(x: Sample) -> list[bytes]:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(x)]
        return [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))]

    place = {row: i for i, row in enumerate(rows(objects))}
    found = [place.get(row, -1) for row in rows(draws)]
    fault = fault_at(
        np.asarray(found) < 0,
        lambda i: f"{show_state(take(draws, i))} is no terminal object",
        "samples",
    )
    ledger.holds(SAMPLES, fault)
    law = np.exp(log_reward.astype(np.float64) - np.logaddexp.reduce(log_reward.astype(float)))
    counts = np.bincount(found, minlength=len(law))
    p = chi_square(counts, law)
    worst = int(np.argmax(np.abs(counts / counts.sum() - law)))
    fault = (
        f"x = {show_state(take(objects, worst))} came {counts[worst]} times in {counts.sum()} "
        f"samples, and R/Z is {law[worst]:.4g} there; p = {p:.1e}."
    )
    ledger.holds(SAMPLES, fault if p < ERROR_RATE else None)


def _log_density_of(target: Target, structure: Any) -> Callable[[Array], Array]:
    """log R of the vector that an object is."""
    return lambda x: target.log_reward(jax.tree.unflatten(structure, [x]))


@eqx.filter_jit
def _slices(target: Target, x: Array, structure: Any, uniform: Array) -> tuple[Below, Array]:
    """The share of the density below each sample along a coordinate of it, and which that is."""
    log_density = _log_density_of(target, structure)
    span = jnp.max(x, axis=0) - jnp.min(x, axis=0)

    def one(inputs: tuple[Array, Array]) -> Below:
        x, coordinate = inputs
        return share_below(log_density, x, coordinate, span[coordinate], _NODES)

    coordinate = jax.vmap(lambda u: choose_coordinate(span > 0, u))(uniform)
    return jax.lax.map(one, (x, coordinate), batch_size=32), coordinate


@eqx.filter_jit
def _log_rewards(target: Target, x: Array, structure: Any) -> Array:
    return jax.lax.map(_log_density_of(target, structure), x, batch_size=_BLOCK)


def _check_vectors(
    ledger: Ledger, target: SamplableTarget, x: Array, structure: Any, key: PRNGKeyArray
) -> None:
    random = generator(key)
    uniform = jnp.asarray(random.uniform(size=len(x)), x.dtype)
    below, coordinate = jax.tree.map(np.asarray, _slices(target, x, structure, uniform))
    if below.is_known:
        fault = fault_of_places(below.share, coordinate, np.asarray(x))
        what = "The shares of the density below the samples are not uniform: "
        ledger.holds(SAMPLES, None if fault is None else what + fault + ".")
    else:
        ledger.leave_out(f"{SAMPLES}, along coordinates: {TOO_STEEP}")
    if x.shape[1] <= 2:
        if _check_cells(ledger, target, np.asarray(x, np.float64), structure):
            return
        ledger.leave_out("masses of cells: the density is too narrow for them")
    elif target.log_z is not None:
        _check_mass(ledger, target, x, structure, random)
    _check_regions(ledger, target, x, structure, key)


def _check_cells(ledger: Ledger, target: Target, x: np.ndarray, structure: Any) -> bool:
    """In one or two dimensions: cells of a box that holds all samples. False where the density is
    too narrow for them.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    parts = 12 if x.shape[1] == 2 else 256
    cells = cells_of(lambda grid: _log_rewards(target, grid, structure), low, high, _BINS, parts)
    if not cells.is_resolved:
        return False
    if target.log_z is not None:
        off = float(target.log_z) - cells.log_mass
        fault = f"log_z is {float(target.log_z):.6g}, the integral of R gives {cells.log_mass:.6g}."
        ledger.holds(LOG_Z, fault if abs(off) > 0.01 else None)
    counts, _ = np.histogramdd(x, _BINS, list(zip(low, high, strict=True)))
    law = np.append(cells.share, max(1 - cells.share.sum(), 0))
    p = chi_square(np.append(counts.ravel(), 0), law / law.sum())
    worst = int(np.argmax(np.abs(counts.ravel() / len(x) - cells.share)))
    corner = low + np.array(np.unravel_index(worst, counts.shape)) * (high - low) / _BINS
    fault = (
        f"{int(counts.ravel()[worst])} of {len(x)} samples are in the cell at {corner.round(3)}, "
        f"and its share of the density is {cells.share[worst]:.4g}; p = {p:.1e}."
    )
    ledger.holds(SAMPLES, fault if p < ERROR_RATE else None)
    return True


@eqx.filter_jit
def _mass(target: Target, x: Array, structure: Any, log_z: Array, z: Array) -> Mass:
    log_density = _log_density_of(target, structure)
    return mass_of(lambda x: log_density(x) - log_z, x, jnp.ones(x.shape[1], bool), z)


def _check_mass(
    ledger: Ledger, target: Target, x: Array, structure: Any, random: np.random.Generator
) -> None:
    """In many dimensions: an estimate by draws, where it is precise."""
    assert target.log_z is not None
    z = jnp.asarray(proposals(random, 2**14, x.shape[1]), x.dtype)
    log_z = jnp.asarray(target.log_z, x.dtype)
    mass = jax.tree.map(np.asarray, _mass(target, x, structure, log_z, z))
    if not mass.is_judged:
        ledger.leave_out(f"{LOG_Z}: an estimate by draws is not precise enough")
        return
    fault = mass.fault("R/Z")
    ledger.holds(LOG_Z, None if fault is None else f"{fault}: log_z is {target.log_z:.6g}.")


def _check_regions(
    ledger: Ledger, target: SamplableTarget, x: Array, structure: Any, key: PRNGKeyArray
) -> None:
    """Whether as many samples are in each of some ellipsoids as R/Z says. These are chosen by
    other samples.
    """
    if target.log_z is None:
        ledger.leave_out("masses of regions: log_z is not known")
        return
    random = generator(jax.random.fold_in(key, 1))
    others = jax.tree.leaves(_sample(target, key, len(x)))[0]
    regions = regions_of(np.asarray(others, np.float64), random)
    known = _shares(target, others, structure, regions, random)
    if not known:
        ledger.leave_out("masses of regions: none can be estimated precisely enough")
        return
    points, total = np.asarray(x, np.float64), len(x)
    counts = [int(region.holds(points).sum()) for region, _ in known]
    limit = ERROR_RATE / len(regions)

    def chances(factor: float) -> list[float]:
        return [
            chance_of_count(count, total, factor * share.value, factor * share.error)
            for count, (_, share) in zip(counts, known, strict=True)
        ]

    p = chances(1.0)
    worst = int(np.argmin(p))
    if p[worst] >= limit:
        ledger.holds(SAMPLES, None)
        return
    factor = sum(counts) / total / sum(share.value for _, share in known)
    if factor > 0 and min(chances(factor)) >= 1e-3 / len(known):  # they are wrong together
        ledger.breaks(
            LOG_Z,
            f"log_z is {target.log_z:.6g}, and the samples in {len(known)} ellipsoids say "
            f"{target.log_z - math.log(factor):.6g}.",
        )
    region, share = known[worst]
    ledger.breaks(
        SAMPLES,
        f"{counts[worst]} of {total} samples are in an ellipsoid about "
        f"{show_state(region.middle)}, and its share of R/Z is {share.value:.4g}; p = "
        f"{p[worst]:.1e}.",
    )


def _shares(
    target: SamplableTarget,
    draws: Array,
    structure: Any,
    regions: list[Region],
    random: np.random.Generator,
) -> list[tuple[Region, Share]]:
    """The regions whose shares of R/Z can be estimated precisely."""
    assert target.log_z is not None
    own = [np.asarray(region.draw(random, _POINTS), draws.dtype) for region in regions]
    every = np.concatenate([np.asarray(draws), *own])
    values = np.asarray(_log_rewards(target, jnp.asarray(every), structure), np.float64)
    every, values = every.astype(np.float64), values - target.log_z
    known = []
    for k, region in enumerate(regions):
        weight = values - region.log_density(every)
        mine = len(draws) + k * _POINTS
        held = np.flatnonzero(region.holds(every[: len(draws)]))
        share = share_of(weight[mine : mine + _POINTS], weight[held])
        if share.is_precise:
            known.append((region, share))
    return known
