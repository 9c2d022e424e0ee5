"""The laws of an environment whose states are numbered, over all of them or a part."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from .._types import SCORE_FLOOR, EnumerableEnvironment, Kernel, State
from ._kernel import DRAWS, FINITE, NORMALISED
from ._laws import Ledger, fault_at, show_state, take
from ._statistics import fault_of_uniforms, generator, places

_AT_ONCE = 2**18
IMPOSSIBLE = SCORE_FLOOR / 10
"""Below this a log-probability stands for an edge that is not there."""

NUMBERED = "states are numbered without gaps, and index_of is the inverse of state_at"
ENDS_LAST = "terminal states, and they alone, have the last numbers"
OBJECTS = "a terminal state and its object determine each other"
BACK = "a step back undoes a step"
FORTH = "a step undoes a step back"
FORWARD_TOO = "an edge that P_F allows is one that P_B allows"
BACKWARD_TOO = "an edge that P_B allows is one that P_F allows"
NO_EDGE_IN = "no edge leads into the initial state"
ONE_ACTION = "each edge has one action: no two lead from a state to the same one"
DEEPER = "an edge leads one deeper, from the initial state, which has depth 0"
LENGTHS = "trajectories have fewest_steps to num_steps edges"
REACHED = "every state is reached from the one initial state"
WORDS = "features are finite, and indices among them below feature_size"
ONE_STATE = "a number stands for one state: its features and kernels, however it was come to"
OWN_FEATURES = "two states with edges out of them have different features"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an environment says about states [N] and their edges [N, A]."""

    index: Any
    is_start: Any  # whether it has the number of initial_state()
    is_initial: Any
    is_terminal: Any
    depth: Any
    object_index: Any  # number of terminal_state(sample_of(state))
    features: Any
    log_reference: Any
    child: Any  # number of step(state, a)
    child_depth: Any
    child_is_initial: Any
    log_pb_of_child: Any
    there_and_back: Any  # number of backward_step(step(state, a), a)
    parent: Any  # number of backward_step(state, a)
    parent_is_terminal: Any
    log_pf_of_parent: Any
    back_and_there: Any
    log_pf: Any
    log_pb: Any
    log_pb_learned: Any
    alike: "_Alike"
    slopes: Any  # gradients of log_pf and log_pb_learned by the parameters, summed over actions
    drawn: Any  # an edge drawn from each of these three

    @property
    def forward_edges(self) -> Any:
        """Which actions P_F allows, where a state has edges out of it."""
        return (self.log_pf > IMPOSSIBLE) & ~self.is_terminal[:, None]

    @property
    def backward_edges(self) -> Any:
        """Which actions P_B allows, where a state has edges into it."""
        return (self.log_pb > IMPOSSIBLE) & ~self.is_initial[:, None]


class _Alike(eqx.Module):
    """What tells states apart but their numbers, as a few numbers [..., 4], of the states [N], of
    the initial one and of those that edges lead to [N, A]; `size` [N] of real features.
    """

    size: Any
    state: Any
    start: Any
    object_again: Any
    child: Any
    parent: Any
    there_and_back: Any
    back_and_there: Any


def facts(env: EnumerableEnvironment, key: PRNGKeyArray, numbers: Int[Any, " N"]) -> Facts:
    """Facts about the states with these numbers, for random parameters of P_F and a learned P_B."""
    random = generator(key)
    # Each state is looked at beside the four that each of its actions leads to.
    size = min(len(numbers), max(_AT_ONCE // (3 + 4 * env.num_actions), 1))
    forward, backward = (
        jnp.asarray(3 * random.standard_normal((len(numbers), width)), jnp.result_type(float))
        for width in (env.forward_size, env.backward_size)
    )
    parts = []
    for block, begin in enumerate(range(0, len(numbers), size)):
        rows = np.arange(begin, min(begin + size, len(numbers)))
        each = np.resize(rows, size)  # blocks of one size: one program
        here, block_key = jnp.asarray(numbers[each], jnp.int32), jax.random.fold_in(key, block)
        found = _facts(env, here, forward[each], backward[each], forward[0], block_key)
        count = len(rows)
        parts.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], found))
    return Facts(**jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))


@eqx.filter_jit
def _facts(
    env: EnumerableEnvironment,
    numbers: Array,
    forward: Array,
    backward: Array,
    shared: Array,
    key: PRNGKeyArray,
) -> dict[str, Any]:
    actions = jnp.arange(env.num_actions, dtype=jnp.int32)
    start = env.initial_state()
    noise_f = env.forward_kernel(start, forward[0]).noise(key, (len(numbers),))
    noise_b = env.backward_kernel(start, None).noise(key, (len(numbers),))

    def all_log_probs(kernel: Kernel) -> Array:
        return jax.vmap(kernel.log_prob)(actions)

    def policy(make: Callable[[Array], Kernel], params: Array, noise: Any) -> tuple[Any, ...]:
        """log P of every action, the gradient of their sum, and a draw."""
        value, pull = jax.vjp(lambda p: all_log_probs(make(p)), params)
        return value, pull(jnp.ones_like(value))[0], make(params).from_noise(noise)

    def about(
        number: Array, params_f: Array, params_b: Array, noise_f: Any, noise_b: Any
    ) -> dict[str, Any]:
        state = env.state_at(number)
        object_again = env.terminal_state(env.sample_of(state))
        # Each method is traced as seldom as can be: what is compiled is as large as its traces.
        child = jax.vmap(env.step, (None, 0))(state, actions)
        here = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(actions)), state)
        back = jax.vmap(jax.vmap(env.backward_step))(
            _stack(here, child), jnp.stack([actions, actions])
        )
        parent, again = _split(back)
        forth = jax.vmap(env.step)(parent, actions)
        every = _join([_one(state), _one(start), _one(object_again), child, parent, again, forth])
        index, depth, is_initial, is_terminal, features = jax.vmap(
            lambda s: (
                *(env.index_of(s), env.depth(s), env.is_initial(s), env.is_terminal(s)),
                env.features(s),
            )
        )(every)
        every_log_pf = jax.vmap(lambda s: all_log_probs(env.forward_kernel(s, shared)))(every)
        every_log_pb = jax.vmap(lambda s: all_log_probs(env.backward_kernel(s, None)))(every)
        words, values, size = jax.vmap(_mark)(features)
        law_f = jnp.where(is_terminal, 0, jax.vmap(_mark_law)(every_log_pf))
        law_b = jnp.where(is_initial, 0, jax.vmap(_mark_law)(every_log_pb))
        marks = jnp.stack([words, values, law_f, law_b], axis=1)
        first, count = 3, len(actions)

        def of(values: Array, which: int) -> Array:
            begin = first + which * count
            return values[begin : begin + count]

        log_pf, slope_f, drawn_f = policy(lambda p: env.forward_kernel(state, p), params_f, noise_f)
        learned, slope_b, drawn_l = policy(
            lambda p: env.backward_kernel(state, p), params_b, noise_b
        )
        return {
            "index": index[0],
            "is_start": index[1] == number,
            "is_initial": is_initial[0],
            "is_terminal": is_terminal[0],
            "depth": depth[0],
            "object_index": index[2],
            "features": jax.tree.map(lambda leaf: leaf[0], features),
            "log_reference": env.log_reference(state),
            "child": of(index, 0),
            "child_depth": of(depth, 0),
            "child_is_initial": of(is_initial, 0),
            "log_pb_of_child": jnp.diagonal(of(every_log_pb, 0)),
            "parent": of(index, 1),
            "parent_is_terminal": of(is_terminal, 1),
            "log_pf_of_parent": jnp.diagonal(of(every_log_pf, 1)),
            "there_and_back": of(index, 2),
            "back_and_there": of(index, 3),
            "log_pf": log_pf,
            "log_pb": every_log_pb[0],
            "log_pb_learned": learned,
            "alike": _Alike(
                size[0], marks[0], marks[1], marks[2], *(of(marks, i) for i in range(4))
            ),
            "slopes": (slope_f, slope_b),
            "drawn": (drawn_f, env.backward_kernel(state, None).from_noise(noise_b), drawn_l),
        }

    return jax.vmap(about)(numbers, forward, backward, noise_f, noise_b)


def _mark(features: Any) -> tuple[Array, Array, Array]:
    """Of features: a number of the integers, exact and the same in any order of one array, which is
    how they are looked up and summed; one of the real numbers; and the sum of their sizes.
    """
    words = jnp.zeros((), jnp.uint32)
    values = size = jnp.zeros(())
    for salt, leaf in enumerate(jax.tree.leaves(features), 1):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            flat = jnp.ravel(leaf)
            sign = np.random.default_rng(salt).choice([-1.0, 1.0], flat.size)
            values, size = values + jnp.sum(flat * sign), size + jnp.sum(jnp.abs(flat))
        else:
            word = jnp.ravel(leaf).astype(jnp.uint32) + np.uint32(salt)
            word = (word ^ (word >> 15)) * np.uint32(0x2C1B3C6D)
            word = (word ^ (word >> 12)) * np.uint32(0x297A2D39)
            words = words + jnp.sum(word ^ (word >> 15), dtype=jnp.uint32)
    return (words >> 8).astype(values.dtype), values, size  # 24 bits are exact in float32


def _mark_law(log_prob: Array) -> Array:
    """A number of the probabilities of all edges."""
    probability = jnp.where(log_prob > IMPOSSIBLE, jnp.exp(log_prob), 0)
    return jnp.sum(probability * jnp.sin(jnp.arange(1, len(log_prob) + 1)))


def _one(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)


def _join(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)


def _stack(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _split(tree: Any) -> tuple[Any, Any]:
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in (0, 1))
    return first, second


class States:
    """The states that are looked at, to be named in messages."""

    def __init__(self, env: EnumerableEnvironment, numbers: np.ndarray):
        self._env, self.numbers = env, numbers

    def __call__(self, row: int) -> str:
        """A state by its row."""
        return self.named(int(self.numbers[row]))

    def named(self, number: int) -> str:
        """A state by its number."""
        state: State = self._env.state_at(jnp.asarray(number, jnp.int32))
        return f"State {number}, {show_state(state)}"


def check_states(
    ledger: Ledger, env: EnumerableEnvironment, key: PRNGKeyArray, numbers: np.ndarray
) -> Facts:
    """The laws of single states and edges."""
    found, name = facts(env, key, numbers), States(env, numbers)
    _check_numbers(ledger, env, found, name)
    _check_values(ledger, env, found, name)
    _check_steps(ledger, found, name, env.num_internal + env.num_terminal_states)
    _check_alike(ledger, found, name)
    _check_supports(ledger, found, name)
    _check_policies(ledger, found, name)
    _check_draws(ledger, found, key)
    return found


def _check_numbers(ledger: Ledger, env: EnumerableEnvironment, found: Facts, name: States) -> None:
    ledger.holds(
        NUMBERED,
        fault_at(
            found.index != name.numbers,
            lambda i: f"{name(i)} has index_of {found.index[i]}",
            "states",
        ),
    )
    ledger.holds(
        ENDS_LAST,
        fault_at(
            found.is_terminal != (name.numbers >= env.num_internal),
            lambda i: (
                f"{name(i)}: is_terminal is {found.is_terminal[i]}, and num_internal is "
                f"{env.num_internal}"
            ),
            "states",
        ),
    )
    ledger.holds(
        OBJECTS,
        fault_at(
            found.is_terminal & (found.object_index != name.numbers),
            lambda i: (
                f"{name(i)}: terminal_state(sample_of(state)) has the number "
                f"{found.object_index[i]}"
            ),
            "states",
        ),
    )
    ledger.holds(
        NO_EDGE_IN,
        fault_at(
            found.forward_edges & found.child_is_initial,
            lambda i, a: f"{name(i)}: action {a} leads to the initial state",
            "edges",
        ),
    )
    wrong = found.is_initial & (found.depth != 0)
    ledger.holds(
        DEEPER, fault_at(wrong, lambda i: f"{name(i)} has depth {found.depth[i]}", "states")
    )


def _check_values(ledger: Ledger, env: EnumerableEnvironment, found: Facts, name: States) -> None:
    check_features(ledger, env.feature_size, found.features, name, "states")
    check_own_features(ledger, found.features, ~found.is_terminal, name)
    for what, values in (
        ("log P_F", found.log_pf),
        ("log P_B", found.log_pb),
        ("a learned log P_B", found.log_pb_learned),
    ):
        fault = fault_at(
            ~np.isfinite(values),
            lambda i, a, what=what, values=values: (
                f"{name(i)}: {what} of action {a} is {values[i, a]}; give masked logits a large "
                "finite negative number"
            ),
            "edges",
        )
        ledger.holds(FINITE, fault)
    for what, slope in zip(("P_F", "a learned P_B"), found.slopes, strict=True):
        fault = fault_at(
            ~np.all(np.isfinite(slope), axis=1),
            lambda i, what=what: f"{name(i)}: the gradient of log {what} is not finite",
            "states",
        )
        ledger.holds(FINITE, fault)
    fault = fault_at(
        ~np.isfinite(found.log_reference),
        lambda i: f"{name(i)} has log_reference {found.log_reference[i]}",
        "states",
    )
    ledger.holds("log_reference is finite", fault)


def check_features(ledger: Ledger, size: int, features: Any, name: Any, unit: str) -> None:
    """Features [N, ...]: finite, and where they are indices, within the vocabulary."""
    leaves = jax.tree.leaves(features)
    for leaf in leaves:
        flat = leaf.reshape(len(leaf), -1)
        bad = ~np.all(np.isfinite(flat), axis=1)
        if len(leaves) == 1 and jnp.issubdtype(leaf.dtype, jnp.integer):
            bad |= np.any((flat < 0) | (flat >= size), axis=1)
        fault = fault_at(
            bad,
            lambda i: f"{name(i)} has the features {show_state(take(features, i))}",
            unit,
        )
        ledger.holds(WORDS, fault)


def check_own_features(
    ledger: Ledger,
    features: Any,
    wanted: np.ndarray,
    name: Any,
    differ: Callable[[int, int], bool] = lambda i, j: True,
) -> None:
    """Whether no two of the `wanted` rows that `differ` share features: a policy could not tell
    them apart. Integers that are looked up and summed are the same in any order.
    """
    if ledger.shared_features:
        ledger.leave_out("whether two states have one set of features: they may")
        return
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(features)]
    rows = [leaf.reshape(len(leaf), -1) for leaf in leaves]
    if len(rows) == 1 and np.issubdtype(rows[0].dtype, np.integer):
        rows = [np.sort(rows[0], axis=1)]
    first: dict[bytes, int] = {}
    for i in np.flatnonzero(wanted).tolist():
        # Adding 0 makes one zero of the two that there are.
        other = first.setdefault(b"".join((leaf[i] + 0).tobytes() for leaf in rows), i)
        if other != i and differ(i, other):
            shared = show_state(take(features, i))
            ledger.breaks(OWN_FEATURES, f"{name(i)} has the features {shared} of {name(other)}.")
    ledger.holds(OWN_FEATURES, None)


def _check_steps(ledger: Ledger, found: Facts, name: States, count: int) -> None:
    here = name.numbers[:, None]
    outside = (found.child < 0) | (found.child >= count)
    ledger.holds(
        NUMBERED,
        fault_at(
            found.forward_edges & outside,
            lambda i, a: (
                f"{name(i)}: action {a} leads to a state with index_of {found.child[i, a]}, and "
                f"there are {count} states"
            ),
            "edges",
        ),
    )
    ledger.holds(
        BACK,
        fault_at(
            found.forward_edges & (found.there_and_back != here),
            lambda i, a: (
                f"{name(i)}: action {a} leads to state {found.child[i, a]}, and back to state "
                f"{found.there_and_back[i, a]}"
            ),
            "edges",
        ),
    )
    ledger.holds(
        FORTH,
        fault_at(
            found.backward_edges & (found.back_and_there != here),
            lambda i, a: (
                f"{name(i)}: action {a} leads back to state {found.parent[i, a]}, and forth to "
                f"state {found.back_and_there[i, a]}"
            ),
            "edges",
        ),
    )
    ledger.holds(
        DEEPER,
        fault_at(
            found.forward_edges & (found.child_depth != found.depth[:, None] + 1),
            lambda i, a: (
                f"{name(i)} has depth {found.depth[i]}, and action {a} leads to depth "
                f"{found.child_depth[i, a]}"
            ),
            "edges",
        ),
    )
    child = np.where(found.forward_edges, found.child, -1 - np.arange(found.child.shape[1]))
    order = np.sort(child, axis=1)
    twice = np.any(order[:, 1:] == order[:, :-1], axis=1)

    def both(i: int) -> str:
        values, counts = np.unique(child[i], return_counts=True)
        same = values[counts > 1][0]
        return (
            f"{name(i)}: actions {np.flatnonzero(child[i] == same).tolist()} lead to state {same}"
        )

    ledger.holds(ONE_ACTION, fault_at(twice, both, "states"))


def _check_alike(ledger: Ledger, found: Facts, name: States) -> None:
    """Whether states that edges lead to are those of their numbers, where these are looked at."""
    alike = found.alike
    ways = {
        "initial_state()": (alike.start, np.where(found.is_start, name.numbers, -1), None),
        "terminal_state(sample_of(state))": (
            *(alike.object_again, found.object_index),
            found.is_terminal,
        ),
        "step(state, {a})": (alike.child, found.child, found.forward_edges),
        "backward_step(step(state, {a}), {a})": (
            *(alike.there_and_back, found.there_and_back),
            found.forward_edges,
        ),
        "backward_step(state, {a})": (alike.parent, found.parent, found.backward_edges),
        "step(backward_step(state, {a}), {a})": (
            *(alike.back_and_there, found.back_and_there),
            found.backward_edges,
        ),
    }
    parts = ("features", "features", "P_F", "P_B")
    for way, (marks, number, real) in ways.items():
        row = np.minimum(np.searchsorted(name.numbers, number), len(name.numbers) - 1)
        known = name.numbers[row] == number
        off = np.abs(marks - alike.state[row])
        size = alike.size[row][..., None]
        limit = np.concatenate([0 * size, 1e-6 + 1e-5 * size, 0 * size + 1e-4, 0 * size + 1e-4], -1)
        bad = known[..., None] & ~(off <= limit)
        if real is not None:
            bad &= real[..., None]

        def describe(*at: int, way: str = way, number: np.ndarray = number) -> str:
            *where, part = at
            shown = way.format(a=where[-1])
            return (
                f"{name(where[0])}: {shown} has the number {number[tuple(where)]}, and other "
                f"{parts[part]} than state_at gives that number"
            )

        ledger.holds(ONE_STATE, fault_at(bad, describe, "comparisons"))


def _check_supports(ledger: Ledger, found: Facts, name: States) -> None:
    ledger.holds(
        FORWARD_TOO,
        fault_at(
            found.forward_edges & ~(found.log_pb_of_child > IMPOSSIBLE),
            lambda i, a: (
                f"{name(i)}: action {a} is allowed and leads to state {found.child[i, a]}, where "
                f"its log P_B is {found.log_pb_of_child[i, a]:.3g}"
            ),
            "edges",
        ),
    )

    def back(i: int, a: int) -> str:
        what = "which is terminal"
        if not found.parent_is_terminal[i, a]:
            what = f"where its log P_F is {found.log_pf_of_parent[i, a]:.3g}"
        return f"{name(i)}: P_B allows action {a}, back to state {found.parent[i, a]}, {what}"

    dead = found.parent_is_terminal | ~(found.log_pf_of_parent > IMPOSSIBLE)
    ledger.holds(BACKWARD_TOO, fault_at(found.backward_edges & dead, back, "edges"))


def _check_policies(ledger: Ledger, found: Facts, name: States) -> None:
    for what, values, edges, nowhere in (
        ("P_F", found.log_pf, found.forward_edges, found.is_terminal),
        ("P_B", found.log_pb, found.backward_edges, found.is_initial),
        ("a learned P_B", found.log_pb_learned, found.backward_edges, found.is_initial),
    ):
        probability = np.where(edges, np.exp(values.astype(np.float64)), 0)
        total = probability.sum(axis=1)
        fault = fault_at(
            ~nowhere & ~(np.abs(total - 1) <= 1e-4),
            lambda i, what=what, total=total: (
                f"{name(i)}: {what} sums to {total[i]:.6g} over its edges, not to 1"
            ),
            "states",
        )
        ledger.holds(NORMALISED, fault)


def _check_draws(ledger: Ledger, found: Facts, key: PRNGKeyArray) -> None:
    """One edge drawn at each state: its place in the distribution over actions is uniform."""
    random = generator(key)
    for what, values, drawn, nowhere in (
        ("P_F", found.log_pf, found.drawn[0], found.is_terminal),
        ("P_B", found.log_pb, found.drawn[1], found.is_initial),
        ("a learned P_B", found.log_pb_learned, found.drawn[2], found.is_initial),
    ):
        law = np.exp(values[~nowhere].astype(np.float64))
        fault = fault_of_uniforms(places(law, drawn[~nowhere], random))
        where = f"The places of {len(law)} draws of {what}, one a state, are not uniform: "
        ledger.holds(DRAWS, None if fault is None else where + fault + ".")


def check_graph(ledger: Ledger, env: EnumerableEnvironment, found: Facts) -> None:
    """The laws of all states together."""
    name = States(env, found.index)
    start = np.flatnonzero(found.is_initial)
    frontier = np.flatnonzero(found.is_start)
    fault = f"is_initial holds at the states {start[:5].tolist()}, initial_state is {frontier}."
    ledger.holds(REACHED, fault if start.tolist() != frontier.tolist() else None)
    reached = found.is_start.copy()
    fewest = depth = 0
    while len(frontier):
        ended = found.is_terminal[frontier]
        fewest = depth if ended.any() and not fewest else fewest
        row, action = np.nonzero(found.forward_edges[frontier])
        child = np.unique(found.child[frontier[row], action])
        frontier = child[~reached[child]]
        reached[frontier] = True
        depth += 1
    ledger.holds(REACHED, fault_at(~reached, lambda i: f"{name(i)} is not reached", "states"))
    longest = int(found.depth.max())
    fault = (
        f"They have {fewest} to {longest} edges, fewest_steps is {env.fewest_steps}, num_steps "
        f"is {env.num_steps}."
    )
    right = (fewest, longest) == (env.fewest_steps, env.num_steps)
    ledger.holds(LENGTHS, None if right else fault)
