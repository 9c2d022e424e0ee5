"""The laws of an environment whose states cannot be numbered, along trajectories that are drawn."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from .._types import Action, Environment, Kernel, State
from ._enumeration import (
    BACK,
    BACKWARD_TOO,
    FORTH,
    FORWARD_TOO,
    IMPOSSIBLE,
    LENGTHS,
    NO_EDGE_IN,
    OBJECTS,
    REACHED,
    check_features,
    check_own_features,
)
from ._kernel import FINITE
from ._laws import Ledger, all_finite, fault_at, show_state, take
from ._path_kernels import check_path_kernels
from ._statistics import generator

ENDS = "a trajectory ends in a terminal state, and only there"
VOLUME = (
    "an edge keeps volume: the slope of step, in the directions in which states and edges differ, "
    "has determinant 1 or -1"
)
OBJECT_VOLUME = "sample_of keeps volume, as edges do"
REFERENCE = "P_B is the reference process backwards: p(s) P_F(s'|s) = p(s') P_B(s|s')"
_SLOPES, _DRAWN = 64, 64


class Edge(eqx.Module):
    """An edge on a trajectory, and what the environment says about it."""

    before: State
    action: Action
    after: State
    again: State  # the end that the edge was walked from, by its action from the other one
    real: Array  # False once the trajectory has ended
    log_pf: Any = None
    log_pb: Any = None
    slopes: Any = None  # gradients of log P_F and of a learned log P_B by their parameters
    reference: Any = None  # log p(s) + log P_F(s'|s) - log p(s') - log P_B(s|s'), parameters 0
    scale: Any = None  # the largest of these four
    log_reference: Any = None
    features: Any = None


class Walks(eqx.Module):
    """Trajectories [n], and the ways back from where they end."""

    forward: Edge  # [n, T]
    backward: Edge  # [n, T], from the end to the start
    end: State
    end_again: State  # terminal_state(sample_of(end))
    ends_terminal: Array
    begins_initial: Array
    length: Array
    early_end: Array  # whether a way back passes a terminal state
    returns: Array  # whether a way forth passes the initial state


@eqx.filter_jit
def walk(env: Environment, key: PRNGKeyArray, forward: Array, backward: Array) -> Walks:
    """Draw trajectories with these parameters of P_F [n, T, ...], and others back from their ends
    by P_B; `backward` are parameters of a learned one.
    """
    shape = forward.shape[:2]
    start = env.initial_state()
    noise_f = env.forward_kernel(start, forward[0, 0]).noise(key, shape)
    noise_b = env.backward_kernel(start, None).noise(jax.random.fold_in(key, 1), shape)

    def forth(state: State, inputs: Any) -> tuple[State, Any]:
        noise, params = inputs
        action = env.forward_kernel(state, params).from_noise(noise)
        after, real = env.step(state, action), ~env.is_terminal(state)
        edge = Edge(state, action, after, env.backward_step(after, action), real)
        return _where(real, after, state), (edge, env.is_initial(after) & real)

    def back(state: State, noise: Any) -> tuple[State, Any]:
        action = env.backward_kernel(state, None).from_noise(noise)
        before, real = env.backward_step(state, action), ~env.is_initial(state)
        edge = Edge(before, action, state, env.step(before, action), real)
        return _where(real, before, state), (edge, env.is_terminal(before) & real)

    def one(noise_f: Any, noise_b: Any, forward: Array) -> Walks:
        end, (forth_edges, returns) = jax.lax.scan(forth, start, (noise_f, forward))
        begin, (back_edges, early) = jax.lax.scan(back, end, noise_b)
        return Walks(
            forth_edges,
            back_edges,
            end,
            env.terminal_state(env.sample_of(end)),
            env.is_terminal(end),
            env.is_initial(begin),
            jnp.sum(forth_edges.real),
            jnp.any(early),
            jnp.any(returns),
        )

    found = jax.vmap(one)(noise_f, noise_b, forward)
    both = jax.tree.map(lambda *ways: jnp.stack(ways), found.forward, found.backward)
    along = jax.vmap(jax.vmap(lambda *edge: _describe(env, *edge)))
    both = jax.vmap(along, in_axes=(0, None, None))(both, forward, backward)
    ways = [jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1)]
    return eqx.tree_at(lambda f: (f.forward, f.backward), found, ways)


def _describe(env: Environment, edge: Edge, forward: Array, backward: Array) -> Edge:
    """What the environment says about an edge."""
    before, action, after = edge.before, edge.action, edge.after

    def log_pf(params: Array) -> Array:
        return env.forward_kernel(before, params).log_prob(action)

    def log_pb(params: Array | None) -> Array:
        return env.backward_kernel(after, params).log_prob(action)

    value, slope = jax.value_and_grad(log_pf)(forward)
    here, there = env.log_reference(before), env.log_reference(after)
    fixed, plain = log_pb(None), log_pf(0 * forward)
    return Edge(
        before,
        action,
        after,
        edge.again,
        edge.real,
        log_pf=value,
        log_pb=fixed,
        slopes=(slope, jax.grad(log_pb)(backward)),
        reference=here + plain - there - fixed,
        scale=jnp.max(jnp.abs(jnp.stack([here, plain, there, fixed]))),
        log_reference=there,
        features=env.features(after),
    )


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def check_walks(ledger: Ledger, env: Environment, key: PRNGKeyArray, number: int) -> None:
    """The laws of trajectories and of the edges along them."""
    walk_key, forth_key, back_key = jax.random.split(key, 3)
    random = generator(walk_key)
    forward, backward = (
        jnp.asarray(random.standard_normal((number, env.num_steps, size)), jnp.result_type(float))
        for size in (env.forward_size, env.backward_size)
    )
    found = jax.tree.map(np.asarray, walk(env, walk_key, forward, backward))
    _check_ways(ledger, env, found)
    _check_way(ledger, found.forward, forth=True)
    _check_way(ledger, found.backward, forth=False)
    edges = _flat(found.forward)
    name = _Named(edges)
    check_features(ledger, env.feature_size, edges.features, name, "states")
    _check_own_features(ledger, found.forward)
    if _size(edges).any():
        _check_reference(ledger, edges, name)
        _check_volume(ledger, env, edges, forward, name)
    edges = jax.tree.map(lambda leaf: leaf[edges.real], edges)
    check_path_kernels(ledger, env, "P_F", edges.before, forth_key)
    edges = _flat(found.backward)
    edges = jax.tree.map(lambda leaf: leaf[edges.real], edges)
    check_path_kernels(ledger, env, "P_B", edges.after, back_key)


def _flat(edges: Edge) -> Edge:
    """Edges [n, T] as [n·T]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), edges)


def _check_ways(ledger: Ledger, env: Environment, found: Walks) -> None:
    def end(i: int) -> str:
        return f"A trajectory of {found.length[i]} edges ends in {show_state(take(found.end, i))}"

    unit = "trajectories"
    ledger.holds(ENDS, fault_at(~found.ends_terminal, lambda i: f"{end(i)}, not terminal", unit))
    short = found.length < env.fewest_steps
    fault = fault_at(short, lambda i: f"{end(i)}; fewest_steps is {env.fewest_steps}", unit)
    ledger.holds(LENGTHS, fault)
    different = _differs(found.end_again, found.end, 0.0)
    ledger.holds(
        OBJECTS,
        fault_at(
            different,
            lambda i: (
                f"{end(i)}; terminal_state(sample_of(state)) is "
                f"{show_state(take(found.end_again, i))}"
            ),
            unit,
        ),
    )
    fault = fault_at(found.returns, lambda i: f"{end(i)}, and passes the initial state", unit)
    ledger.holds(NO_EDGE_IN, fault)
    fault = fault_at(
        ~found.begins_initial,
        lambda i: f"The way back by P_B from {show_state(take(found.end, i))} does not reach it",
        unit,
    )
    ledger.holds(REACHED, fault)
    fault = fault_at(
        found.early_end,
        lambda i: (
            f"The way back by P_B from {show_state(take(found.end, i))} passes a terminal state"
        ),
        unit,
    )
    ledger.holds(ENDS, fault)


def _check_way(ledger: Ledger, edges: Edge, *, forth: bool) -> None:
    """The laws of edges that were walked in one direction."""
    edges = _flat(edges)
    name = _Named(edges)
    origin = edges.before if forth else edges.after
    # Sums of real numbers lose their last digits.
    far = _differs(edges.again, origin, 8 * np.finfo(np.float32).eps * _size(edges))
    fault = fault_at(
        edges.real & far,
        lambda i: f"{name(i)}, and comes back to {show_state(take(edges.again, i))}",
        "edges",
    )
    ledger.holds(BACK if forth else FORTH, fault)
    for what, value in (("log P_F", edges.log_pf), ("log P_B", edges.log_pb)):
        fault = fault_at(
            ~np.isfinite(value),
            lambda i, what=what, value=value: f"{name(i)}: its {what} is {value[i]}",
            "edges",
        )
        ledger.holds(FINITE, fault)
    for what, slope in zip(("log P_F", "a learned log P_B"), edges.slopes, strict=True):
        fault = fault_at(
            ~np.all(np.isfinite(slope), axis=1),
            lambda i, what=what: f"{name(i)}: the gradient of {what} is not finite",
            "edges",
        )
        ledger.holds(FINITE, fault)
    what, other = ("log P_B", edges.log_pb) if forth else ("log P_F", edges.log_pf)
    fault = fault_at(
        edges.real & ~(other > IMPOSSIBLE),
        lambda i: f"{name(i)}: its {what} is {other[i]:.3g}",
        "edges",
    )
    ledger.holds(FORWARD_TOO if forth else BACKWARD_TOO, fault)


class _Named:
    """Edges by what they join."""

    def __init__(self, edges: Edge):
        self._edges = edges

    def __call__(self, i: int) -> str:
        before, action, after = (
            show_state(take(part, i))
            for part in (self._edges.before, self._edges.action, self._edges.after)
        )
        return f"The edge {action} leads from {before} to {after}"


def _check_own_features(ledger: Ledger, forward: Edge) -> None:
    """At the states that edges lead to, and others lead out of."""
    edges = _flat(forward)
    onwards = np.pad(forward.real[:, 1:], ((0, 0), (0, 1))).ravel()
    size = _size(edges)

    def differ(i: int, j: int) -> bool:
        one, other = (jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], edges.after) for k in (i, j))
        # The last digits of real numbers may be lost on the way to features.
        return bool(_differs(one, other, 1e-5 * size[i : i + 1])[0])

    def name(i: int) -> str:
        return f"State {show_state(take(edges.after, i))}"

    check_own_features(ledger, edges.features, onwards, name, differ)


def _check_reference(ledger: Ledger, edges: Edge, name: Callable[[int], str]) -> None:
    if np.all(edges.log_reference == edges.log_reference.flat[0]):
        ledger.leave_out("a reference process: log_reference is the same everywhere")
        return
    bad = edges.real & ~(np.abs(edges.reference) <= 2e-3 + 1e-4 * edges.scale)
    fault = fault_at(
        bad,
        lambda i: f"{name(i)}: the logarithms differ by {edges.reference[i]:.4g}",
        "edges",
    )
    ledger.holds(REFERENCE, fault)


class _Slope(eqx.Module):
    """How `step` depends on real numbers, as matrices, at an edge (s, a) that leads to s'."""

    by_state: Array  # [n, n]
    by_action: Array  # [n, k]
    sample: Array  # [m, n]: of sample_of at s'
    varied_forth: Array  # [k]: numbers of the edge that differ between draws from P_F at s
    varied_back: Array  # [k]: and from P_B at s'


def _check_volume(
    ledger: Ledger, env: Environment, edges: Edge, forward: Array, name: Callable[[int], str]
) -> None:
    """Follow the directions in which a state can differ along some trajectories, from the initial
    state, where there are none: densities of P_F and P_B are over the same numbers if the map
    (s, a) -> (s', what P_B draws of a) has slopes of determinant 1.
    """
    steps = forward.shape[1]
    walks = max(_SLOPES // steps, 2)
    some = jax.tree.map(lambda leaf: leaf[: walks * steps], edges)
    flat = forward.reshape(-1, forward.shape[2])[: walks * steps]
    try:
        slope = jax.tree.map(np.asarray, _slopes(env, some, flat))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].strip().rstrip(".")
        ledger.leave_out(f"that an edge keeps volume: step has no derivative ({reason})")
        return
    volume, of_object = np.ones((2, len(slope.by_state)))
    directions = none = np.zeros((slope.by_state.shape[1], 0))
    for i in range(len(volume)):
        if i % steps == 0:
            directions = none
        if edges.real[i]:
            volume[i], directions = _carry(directions, take(slope, i))
            if (i + 1) % steps == 0 or not edges.real[i + 1]:
                of_object[i] = _determinant(slope.sample[i] @ directions)
    fault = fault_at(
        ~(np.abs(volume - 1) <= 2e-3), lambda i: f"{name(i)}: it is {volume[i]:.4g}", "edges"
    )
    ledger.holds(VOLUME, fault)
    fault = fault_at(
        ~(np.abs(of_object - 1) <= 2e-3),
        lambda i: f"{name(i)}: its slope there has the determinant {of_object[i]:.4g}",
        "edges",
    )
    ledger.holds(OBJECT_VOLUME, fault)


def _carry(directions: np.ndarray, slope: _Slope) -> tuple[float, np.ndarray]:
    """The determinant at an edge out of a state that may differ in these directions, columns of
    unit length; and those in which the next one may.
    """
    forth, back = np.flatnonzero(slope.varied_forth), np.flatnonzero(slope.varied_back)
    if not all_finite((slope.by_state, slope.by_action)):
        return math.nan, directions
    if directions.shape[0] == directions.shape[1] and np.array_equal(forth, back):
        return abs(float(np.linalg.det(slope.by_state))), directions
    moved = np.hstack([slope.by_state @ directions, slope.by_action[:, forth]]).astype(float)
    drawn = (forth == back[:, None]).astype(float)
    known = np.hstack([np.zeros((len(back), directions.shape[1])), drawn])
    basis, weight, _ = np.linalg.svd(moved, full_matrices=False)
    basis = basis[:, weight > 1e-4 * weight.max(initial=0)]
    if basis.shape[1] == len(basis):
        basis = np.eye(len(basis))
    return _determinant(np.vstack([moved, known])), basis


def _determinant(slope: np.ndarray) -> float:
    """By how much a map with this slope stretches what it is given: 0 where it loses a direction,
    NaN where it has no slope.
    """
    if not all_finite(slope):
        return math.nan
    if slope.shape[0] < slope.shape[1]:
        return 0.0
    return float(np.prod(np.linalg.svd(slope, compute_uv=False)))


@eqx.filter_jit
def _slopes(env: Environment, edges: Edge, forward: Array) -> _Slope:
    def slope(varied: Any, follow: Callable[[Any], Any]) -> Array:
        real, rest = eqx.partition(varied, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(real)

        def image(flat: Array) -> Array:
            after = follow(eqx.combine(unravel(flat), rest))
            return ravel_pytree(eqx.filter(after, eqx.is_inexact_array))[0]

        return jax.jacfwd(image)(flat)

    def parts(action: Action) -> tuple[Array, Array]:
        real, rest = eqx.partition(action, eqx.is_inexact_array)
        return ravel_pytree(real)[0], ravel_pytree(rest)[0]

    def varied(kernel: Kernel, action: Action) -> Array:
        """Among the draws that make the same choice, where an edge is a choice and numbers."""
        drawn = jax.vmap(kernel.from_noise)(kernel.noise(jax.random.key(0), (_DRAWN,)))
        numbers, choice = jax.vmap(parts)(drawn)
        same = jnp.all(choice == parts(action)[1], axis=1)
        return jnp.any(same[:, None] & (numbers != numbers[jnp.argmax(same)]), axis=0)

    def one(edge: Edge, params: Array) -> _Slope:
        before, action, after = edge.before, edge.action, edge.after
        return _Slope(
            slope(before, lambda s: env.step(s, action)),
            slope(action, lambda a: env.step(before, a)),
            slope(after, env.sample_of),
            varied(env.forward_kernel(before, params), action),
            varied(env.backward_kernel(after, None), action),
        )

    return jax.vmap(one)(edges, forward)


def _size(edges: Edge) -> np.ndarray:
    """The largest real number that each of some edges is about."""
    size = np.zeros(len(edges.real))
    for leaf in jax.tree.leaves((edges.before, edges.action, edges.after)):
        if np.issubdtype(leaf.dtype, np.inexact):
            flat = np.abs(leaf).reshape(len(size), -1)
            size = np.maximum(size, flat.max(axis=1, initial=0))
    return size


def _differs(found: Any, wanted: Any, tolerance: np.ndarray | float) -> np.ndarray:
    """Which states differ: integers at all, real numbers by more than a tolerance."""
    different: Any = False
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if np.issubdtype(one.dtype, np.inexact):
            off = np.abs(one - other).reshape(len(one), -1).max(axis=1, initial=0)
            different = different | ~(off <= tolerance)
        else:
            different = different | np.any((one != other).reshape(len(one), -1), axis=1)
    return different
