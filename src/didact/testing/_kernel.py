"""The laws of a kernel."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from .._types import Kernel, PathwiseKernel
from ._forms import difference, form_of, scalar_fault, show_form
from ._laws import Checked, Ledger, all_finite, fault_at, show_state, take
from ._process import unchanged
from ._quadrature import (
    TOO_STEEP,
    Below,
    Mass,
    choose_coordinate,
    mass_of,
    mass_of_line,
    proposals,
    share_below,
)
from ._statistics import ERROR_RATE, chi_square, fault_of_places, generator

FINITE = "log-probabilities and their gradients are finite"
NORMALISED = "log_prob is normalised"
DRAWS = "draws have the law that log_prob states"
NEUTRAL = "explore(0) and temper(1) change nothing"
TEMPERED = "temper(T) raises the distribution to the power 1/T"
EXPLORED = "explore(e) is the mixture of 1 - e of the kernel with e of explore(1)"
FROM_NOISE = "from_noise undoes to_noise"
TO_NOISE = "to_noise undoes from_noise"
_NODES = 128
_ROUNDING = 1e-4
_SHARE, _TEMPERATURE = 0.3, 2.0
_WIDER = 1.6


def check_kernel(
    kernel: Kernel, *, key: PRNGKeyArray | None = None, num_draws: int = 4096
) -> Checked:
    r"""Check the laws of a `didact.environments.Kernel`.

    - `noise` has the shape asked for, `sample` is `from_noise` of `noise`, and edges have one form.
    - $\sum_a P(a) = 1$, or $\int p(a)\,da = 1$ over the coordinates that vary; an edge that does
      not vary at all has log-probability 0.
    - Draws have the law that `log_prob` states: by Pearson's χ² where edges are integers, and
      where they are real numbers or arrays by their distribution function along a coordinate,
      given the others.
    - `explore` and `temper` give kernels with these laws; `explore(0)` and `temper(1)` change
      nothing. `temper(T)` is the power 1/T:
      $\log P_T(a) - \log P_T(b) = (\log P(a) - \log P(b))/T$. Where edges are integers `explore(e)`
      is a mixture, $P_e = (1 - e) P + e P_1$.
    - Log-probabilities and their gradients are finite; no parameter is infinite or NaN.
    - For a `didact.environments.PathwiseKernel`, `to_noise` and `from_noise` undo each other, each
      way round; where noise is normal, far from 0 too.

    **Arguments:** `key` of the draws (None: always the same ones); `num_draws`: how many. Each
    law of draws raises a false alarm with a chance of 1e-7. With 4,096 draws of a Gaussian a
    standard deviation that is wrong by 8 % is found, and a mean that is wrong by a tenth of it.

    **Errors:** `ConformanceError` for the first law that is broken.
    """
    key = jax.random.key(0) if key is None else key
    ledger = Ledger(kernel)
    ledger.must_be(Kernel, "environments")
    with unchanged(ledger, kernel):
        check_kernel_form(ledger, kernel)
        _check_parameters(ledger, kernel)
        check_law(ledger, kernel, key, num_draws)
        changed, edges, values = _changed(kernel, key)
        _check_neutral(ledger, edges, values)
        keys = jax.random.split(key, len(changed))
        for (after, one), change_key in zip(changed.items(), keys, strict=True):
            check_law(ledger, one, change_key, num_draws, after)
        _check_tempered(ledger, edges, values)
        _check_explored(ledger, edges, values)
        if isinstance(kernel, PathwiseKernel):
            _check_pathwise(ledger, kernel, key)
    return ledger.close(f"{4 * num_draws} draws")


def check_kernel_form(ledger: Ledger, kernel: Kernel) -> None:
    """What its methods return, from tracing them."""
    key = jax.random.key(0)
    one = form_of(ledger, "noise", lambda k: k.noise(key), kernel)
    many = form_of(ledger, "noise", lambda k: k.noise(key, (3, 2)), kernel)
    wanted = jax.tree.map(lambda f: jax.ShapeDtypeStruct((3, 2, *f.shape), f.dtype), one)
    law = "noise has the shape that is asked for"
    ledger.holds(law, difference("noise(key, (3, 2))", many, wanted, "3 x 2 of noise(key)"))
    edge = edge_form(ledger, kernel)
    ledger.holds("log_prob is one number", log_prob_fault(ledger, kernel, edge))
    for name in ("explore", "temper"):
        changed = form_of(ledger, name, lambda k, n=name: getattr(k, n)(jnp.asarray(0.5)), kernel)
        fault = None if isinstance(changed, Kernel) else f"{name} returns {show_form(changed)}."
        ledger.holds("explore and temper give kernels", fault)
        fault = difference(f"An edge after {name}", edge_form(ledger, changed), edge, "one before")
        ledger.holds("explore and temper keep the form of edges", fault)


def edge_form(ledger: Ledger, kernel: Kernel) -> Any:
    """Shapes and dtypes of an edge."""
    key = jax.random.key(0)
    sampled = form_of(ledger, "sample", lambda k: k.sample(key), kernel)
    mapped = form_of(ledger, "from_noise", lambda k: k.from_noise(k.noise(key)), kernel)
    ledger.holds(
        "sample is from_noise of noise",
        difference("An edge from sample", sampled, mapped, "one from from_noise"),
    )
    return mapped


def log_prob_fault(ledger: Ledger, kernel: Kernel, edge: Any) -> str | None:
    """Why log_prob does not give one number."""
    form = form_of(ledger, "log_prob", lambda k, a: k.log_prob(a), kernel, edge)
    return scalar_fault("log_prob", form, jnp.floating, "float")


def check_law(
    ledger: Ledger, kernel: Kernel, key: PRNGKeyArray, num_draws: int, after: str = ""
) -> None:
    """Whether draws of a kernel have the law that it states; `after` says what was done to it."""
    draws, value, gradient = _draw(kernel, key, num_draws)
    fault = fault_at(
        ~np.isfinite(np.asarray(value)),
        lambda i: f"log_prob of the edge {show_state(take(draws, i))}{after} is {value[i]}",
        "draws",
    )
    ledger.holds(FINITE, fault)
    fault = f"The gradient of log_prob with respect to its parameters{after} is not finite."
    ledger.holds(FINITE, None if all_finite(gradient) else fault)
    leaves = jax.tree.leaves(draws)
    if all(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in leaves):
        _check_discrete(ledger, draws, np.asarray(value, np.float64), after)
    elif len(leaves) == 1:
        check_continuous(ledger, kernel, draws, key, after)
    else:
        ledger.leave_out("the law of draws: edges are neither integers nor one real array")


class _LogProbs(eqx.Module):
    """A kernel and what its methods make of it, or log P of some edges by each of these."""

    plain: Any
    same: Any  # after what should change nothing, by what was done
    tempered: Any
    explored: Any
    uniform: Any  # after explore(1)


@eqx.filter_jit
def _changed(kernel: Kernel, key: PRNGKeyArray) -> tuple[dict[str, Kernel], Any, _LogProbs]:
    """What its methods make of a kernel, by what was done to it; and edges, the first half drawn
    from the kernel, the second from what explores all the time.
    """
    same = {
        "explore(0)": kernel.explore(jnp.asarray(0.0)),
        "temper(1)": kernel.temper(jnp.asarray(1.0)),
    }
    explored = kernel.explore(jnp.asarray(_SHARE))
    uniform = kernel.explore(jnp.asarray(1.0))
    tempered = kernel.temper(jnp.asarray(_TEMPERATURE))
    changed = {
        f" after explore({_SHARE:g})": explored,
        " after explore(1)": uniform,
        f" after temper({_TEMPERATURE:g})": tempered,
    }
    noise = kernel.noise(key, (64,))
    edges = jax.tree.map(
        lambda *ways: jnp.concatenate(ways),
        jax.vmap(kernel.from_noise)(noise),
        jax.vmap(uniform.from_noise)(noise),
    )
    kernels = _LogProbs(kernel, same, tempered, explored, uniform)
    values = jax.tree.map(
        lambda one: jax.vmap(one.log_prob)(edges),
        kernels,
        is_leaf=lambda part: isinstance(part, Kernel),
    )
    return changed, edges, values


@eqx.filter_jit
def _draw(kernel: Kernel, key: PRNGKeyArray, number: int) -> tuple[Any, Array, Any]:
    """Draws, half by `from_noise` and half by `sample`; log_prob of each, and the gradient of
    their mean with respect to the parameters.
    """
    noise_key, sample_key = jax.random.split(key)
    mapped = jax.vmap(kernel.from_noise)(kernel.noise(noise_key, (number // 2,)))
    sampled = jax.vmap(kernel.sample)(jax.random.split(sample_key, number // 2))
    draws = jax.tree.map(
        lambda a, b: jnp.stack([a, b], 1).reshape(-1, *a.shape[1:]), mapped, sampled
    )
    params, rest = eqx.partition(kernel, eqx.is_inexact_array)

    def values(params: Any) -> Array:
        return jax.vmap(eqx.combine(params, rest).log_prob)(draws)

    value, pull = jax.vjp(values, params)
    return draws, value, pull(jnp.full_like(value, 1 / len(value)))[0]


def _check_discrete(ledger: Ledger, draws: Any, log_prob: np.ndarray, after: str) -> None:
    rows = np.concatenate(
        [np.asarray(leaf).reshape(len(log_prob), -1) for leaf in jax.tree.leaves(draws)], axis=1
    )
    # The first half says what edges there are, the second is counted.
    half = len(rows) // 2
    edges, first = np.unique(rows[:half], axis=0, return_index=True)
    law = np.exp(log_prob[first])
    total = law.sum()
    fault = f"The probabilities of the edges that are drawn{after} sum to {total:.6g}."
    ledger.holds(NORMALISED, fault if total > 1 + 1e-4 else None)
    place = {tuple(edge): i for i, edge in enumerate(edges)}
    seen = [place.get(tuple(row), len(edges)) for row in rows[half:]]
    counts = np.bincount(seen, minlength=len(edges) + 1)
    # A sum of float32 numbers that rounds to 1 may leave out edges that are there.
    missing = max(1 - total, _ROUNDING)
    expected = len(seen) * missing
    # If probability is missing, edges beside those should have come.
    lost = expected > 150 and counts[-1] < 0.5 * expected
    fault = f"The probabilities of the edges that are drawn{after} sum to {total:.6g}, not to 1."
    ledger.holds(NORMALISED, fault if lost else None)
    if missing * len(seen) < 1 and counts[-1] == 0:
        counts, law = counts[:-1], law / total
    else:
        law = np.append(law, missing) / (total + missing)
    p = chi_square(counts, law) if len(law) > 1 else 1.0
    worst = int(np.argmax(np.abs(counts / len(seen) - law)))
    edge = edges[worst].tolist() if worst < len(edges) else "any other"
    fault = (
        f"The edge {edge}{after} has a share of {counts[worst] / len(seen):.4g} in {len(seen)} "
        f"draws, and the probability {law[worst]:.4g} by log_prob; p = {p:.1e}."
    )
    ledger.holds(DRAWS, fault if p < ERROR_RATE else None)


def check_continuous(
    ledger: Ledger, kernel: Kernel, draws: Any, key: PRNGKeyArray, after: str = ""
) -> None:
    """The same for edges that are real numbers or arrays."""
    (_, x), random = vector_density(kernel, draws), generator(key)
    uniform = jnp.asarray(random.uniform(size=len(x)), x.dtype)
    z = jnp.asarray(proposals(random, *x.shape), x.dtype)
    below, coordinate, mass, point = jax.tree.map(np.asarray, _integrate(kernel, draws, uniform, z))
    spread = np.ptp(np.asarray(x), axis=0) > 0
    if not spread.any():
        fault = f"All draws{after} are the same, and its log-probability is {point:.4g}, not 0."
        ledger.holds(NORMALISED, fault if abs(point) > 1e-5 else None)
        return
    check_mass(ledger, Mass(*mass), f"Its density{after}")
    if not below.is_known:
        ledger.leave_out(f"{DRAWS}: {TOO_STEEP}")
        return
    fault = fault_of_places(below.share, coordinate, np.asarray(x))
    what = f"The shares of its density{after} below the draws are not uniform: "
    ledger.holds(DRAWS, None if fault is None else what + fault + ".")


def check_mass(ledger: Ledger, mass: Mass, what: str) -> None:
    """Whether an integral is 1."""
    if not mass.is_judged:
        ledger.leave_out(f"{NORMALISED}: the integral is not known precisely enough")
        return
    fault = mass.fault(what)
    ledger.holds(NORMALISED, None if fault is None else fault + ".")


@eqx.filter_jit
def _integrate(kernel: Kernel, draws: Any, uniform: Array, z: Array) -> tuple[Any, ...]:
    """For each draw the share of the density below it along a coordinate, and which that is; the
    integral of the density; and the log-probability of the first draw.
    """
    log_density, x = vector_density(kernel, draws)
    span = jnp.max(x, axis=0) - jnp.min(x, axis=0)
    coordinate = jax.vmap(lambda u: choose_coordinate(span > 0, u))(uniform)

    def one(x: Array, coordinate: Array) -> Below:
        return share_below(log_density, x, coordinate, span[coordinate], _NODES)

    below = jax.vmap(one)(x, coordinate)
    if x.shape[1] > 1:
        return below, coordinate, mass_of(log_density, x, span > 0, z), log_density(x[0])
    return below, coordinate, mass_of_line(log_density, x), log_density(x[0])


def vector_density(kernel: Kernel, draws: Any) -> tuple[Callable[[Array], Array], Array]:
    """The log-density of edges that are one real array each, as vectors, and draws [n, dim]."""
    (x,), structure = jax.tree.flatten(draws)
    shape = x.shape[1:]

    def log_density(x: Array) -> Array:
        return kernel.log_prob(jax.tree.unflatten(structure, [x.reshape(shape)]))

    return log_density, x.reshape(len(x), -1)


def _check_parameters(ledger: Ledger, kernel: Kernel) -> None:
    for leaf in jax.tree.leaves(eqx.filter(kernel, eqx.is_inexact_array)):
        bad = np.flatnonzero(~np.isfinite(np.asarray(leaf)))
        if len(bad):
            fault = (
                f"Its parameters hold {np.ravel(leaf)[bad[0]]} at place {bad[0]}: give masked "
                "logits a large finite negative number."
            )
            ledger.breaks("its parameters are finite", fault)
    ledger.holds("its parameters are finite", None)


def _check_neutral(ledger: Ledger, edges: Any, values: _LogProbs) -> None:
    half = len(values.plain) // 2
    plain = np.asarray(values.plain)[:half]
    for name, value in values.same.items():
        off = np.abs(np.asarray(value)[:half] - plain)
        fault = fault_at(
            ~(off <= 1e-3 + 1e-4 * np.abs(plain)),
            lambda i, off=off, name=name: (
                f"{name} changes log_prob of {show_state(take(edges, i))} by {off[i]:.3g}"
            ),
            "draws",
        )
        ledger.holds(NEUTRAL, fault)


def _check_tempered(ledger: Ledger, edges: Any, values: _LogProbs) -> None:
    """Against the likeliest of the kernel's own draws, so that normalisers cancel."""
    half = len(values.plain) // 2
    plain, tempered = (np.asarray(v, np.float64)[:half] for v in (values.plain, values.tempered))
    top = int(np.argmax(plain))
    wanted, found = (plain - plain[top]) / _TEMPERATURE, tempered - tempered[top]
    fault = fault_at(
        ~(np.abs(found - wanted) <= 1e-3 + 1e-4 * np.abs(plain)),
        lambda i: (
            f"Of {show_state(take(edges, i))} and {show_state(take(edges, top))} log_prob differs "
            f"by {found[i]:.5g} after temper({_TEMPERATURE:g}), and {wanted[i]:.5g} is right"
        ),
        "draws",
    )
    ledger.holds(TEMPERED, fault)


def _check_explored(ledger: Ledger, edges: Any, values: _LogProbs) -> None:
    if not all(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(edges)):
        return  # an uninformed density need not be a mixture
    law, uniform, found = (
        np.exp(np.asarray(value, np.float64))
        for value in (values.plain, values.uniform, values.explored)
    )
    wanted = (1 - _SHARE) * law + _SHARE * uniform
    fault = fault_at(
        ~(np.abs(found - wanted) <= 1e-6 + 1e-3 * wanted),
        lambda i: (
            f"After explore({_SHARE:g}) the edge {show_state(take(edges, i))} has the probability "
            f"{found[i]:.5g} by log_prob, and {wanted[i]:.5g} in the mixture"
        ),
        "draws",
    )
    ledger.holds(EXPLORED, fault)


class _Ways(eqx.Module):
    """Edges [n] of some noise, and what `to_noise` makes of these."""

    edges: Any
    noise_again: Any
    edges_again: Any
    slopes: Any  # of the edges and of noise_again, by the parameters
    by_noise: Any  # [n, numbers of an edge, numbers of noise]: the slope of from_noise


@eqx.filter_jit
def _there_and_back(kernel: PathwiseKernel, noise: Any) -> _Ways:
    edges = jax.vmap(kernel.from_noise)(noise)
    params, rest = eqx.partition(kernel, eqx.is_inexact_array)

    def again(params: Any) -> tuple[Any, Any]:
        kernel = eqx.combine(params, rest)
        return jax.vmap(kernel.from_noise)(noise), jax.vmap(kernel.to_noise)(edges)

    def by_noise(noise: Any) -> Array:
        flat, unravel = ravel_pytree(noise)
        return jax.jacfwd(lambda flat: ravel_pytree(kernel.from_noise(unravel(flat)))[0])(flat)

    both, pull = jax.vjp(again, params)
    slopes = pull(jax.tree.map(jnp.ones_like, both))
    return _Ways(
        edges, both[1], jax.vmap(kernel.from_noise)(both[1]), slopes, jax.vmap(by_noise)(noise)
    )


def _check_pathwise(ledger: Ledger, kernel: PathwiseKernel, key: PRNGKeyArray) -> None:
    noise = _with_far_ones(kernel.noise(key, (64,)))
    found = jax.tree.map(np.asarray, _there_and_back(kernel, noise))
    rest = (found.edges, found.noise_again, found.slopes)
    fault = "from_noise or to_noise, or a gradient of theirs, is not finite."
    ledger.holds("edges can be differentiated at fixed noise", None if all_finite(rest) else fault)
    edges, again = _rows(found.edges), _rows(found.edges_again)
    off = np.abs(edges - again)
    fault = fault_at(
        ~np.all(off <= 1e-4 * np.abs(edges).max(axis=0), axis=1),
        lambda i: f"{show_state(take(found.edges, i))} comes back off by {off[i].max():.3g}",
        "edges",
    )
    ledger.holds(FROM_NOISE, fault)
    _check_noise_again(ledger, noise, found, edges)


def _with_far_ones(noise: Any) -> Any:
    """The same noise, and where it looks standard normal, as much that is wider: such variates
    are seldom large, and each number is one.
    """
    from scipy import stats

    rows = _rows(noise)
    if stats.kstest(rows.ravel(), "norm").pvalue < 1e-4:
        return noise
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, _WIDER * leaf]), noise)


def _rows(tree: Any) -> np.ndarray:
    """The numbers of each entry of batched arrays [n], as [n, numbers]."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _check_noise_again(ledger: Ledger, noise: Any, found: _Ways, edges: np.ndarray) -> None:
    """Of the numbers of noise that edges depend on."""
    noise, again = _rows(noise), _rows(found.noise_again)
    moves = np.any(found.by_noise != 0, axis=(0, 1))
    if not moves.any():
        return
    # An edge is known to a few units in its last place, which this multiplies.
    slope = np.linalg.svd(found.by_noise[:, :, moves], compute_uv=False)
    slope = slope[:, -1] if found.by_noise.shape[1] >= moves.sum() else np.zeros(len(noise))
    usual = float(np.median(slope))
    if usual == 0:
        ledger.leave_out(f"{TO_NOISE}: several variates make the same edge")
        return
    slope = np.where(slope > 0, np.minimum(slope, usual), usual)
    rounding = 8 * np.finfo(edges.dtype).eps * np.abs(edges).max() / slope
    off = np.abs(again - noise)[:, moves].max(axis=1)
    fault = fault_at(
        ~(off <= 1e-3 * (1 + np.abs(noise).max(axis=1)) + rounding),
        lambda i: f"The noise {show_state(noise[i])} comes back as {show_state(again[i])}",
        "variates",
    )
    ledger.holds(TO_NOISE, fault)
