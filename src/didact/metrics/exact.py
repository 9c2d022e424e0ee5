r"""Exact evaluation by dynamic programming over all states of an enumerable environment.

The law of a sampler's terminal states follows from one pass over the states in order of
depth, on the device, in float64 whatever JAX's default:

$$P(s_0) = 1, \qquad P(s') = \sum_{s \to s'} P(s)\,P_F(s'\mid s).$$
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, PRNGKeyArray

from .._sampler import Sampler
from .._types import EnumerableEnvironment, Sample, Target
from ..environments import Strings, StringState
from ..targets import HostReward
from ..targets._strings import are_digits, require_digits

MAX_BYTES = 4 * 2**30
MAX_STATES = 2**22  # about two minutes on two cores
_BLOCK = 8192
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Graph:
    """The states of an environment in order of depth, and the edges between them.

    `order` [num_internal] lists the internal states by depth; `child` [num_internal, A] is
    the number of the state that each action leads to (of a forbidden one, anything);
    `log_pb` [num_internal, A] the fixed P_B of that edge; `starts`, `ends` cut `order` into
    blocks of at most `block` states of equal depth.
    """

    order: Int[np.ndarray, " states"]
    child: Int[Array, "states actions"]
    log_pb: Float[Array, "states actions"]
    starts: Int[np.ndarray, " blocks"]
    ends: Int[np.ndarray, " blocks"]
    block: int


@dataclasses.dataclass(frozen=True)
class Truth:
    """A target, enumerated: log-probability and mode of every terminal state, log Z in nats."""

    log_p: Float64[np.ndarray, " terminal"]
    mode: Int[np.ndarray, " terminal"]
    log_z: float


def _remember_last(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Keep the last four results of a function of modules: these may hold arrays, and then
    have no hash.
    """
    kept: collections.deque[tuple[Any, _T]] = collections.deque(maxlen=4)

    @functools.wraps(function)
    def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for known, result in kept:
            if bool(eqx.tree_equal(known, (args, kwargs))):
                return result
        result = function(*args, **kwargs)
        kept.append(((args, kwargs), result))
        return result

    return remembering


def num_states(env: EnumerableEnvironment) -> int:
    """Number of states, terminal ones included."""
    return env.num_internal + env.num_terminal_states


def required_bytes(env: EnumerableEnvironment) -> int:
    """Memory that exact evaluation needs, roughly: tables over edges and laws over states."""
    return env.num_internal * env.num_actions * 20 + num_states(env) * 60


def refusal(env: object, target: Target | None = None) -> str | None:
    """Why an environment, or a target over it, cannot be evaluated exactly; None where it can."""
    if not isinstance(env, EnumerableEnvironment):
        return f"{type(env).__name__} has no numbered states."
    if isinstance(target, HostReward):
        return (
            f"exact evaluation would ask for the rewards of all {_count(env.num_terminal_states)} "
            "objects, which are computed outside JAX."
        )
    need = required_bytes(env)
    if num_states(env) <= MAX_STATES and need <= MAX_BYTES:
        return None
    memory = f"{need / 2**30:,.1f}" if need < 2**60 else _count(need // 2**30)
    return (
        f"exact evaluation would need {_count(num_states(env))} states and {memory} GiB; "
        f"up to {MAX_STATES:,} and {MAX_BYTES / 2**30:.0f} GiB are allowed."
    )


def _count(number: int) -> str:
    """A number for people: of long strings there are more than a float can say."""
    return f"{number:,}" if number < 10**12 else f"about 10^{math.log10(number):.0f}"


@_remember_last
def graph(env: EnumerableEnvironment) -> Graph:
    """The graph of an environment. Raises `ValueError` where that is too large."""
    reason = refusal(env)
    if reason is not None:
        raise ValueError(reason[0].upper() + reason[1:])
    depth, child, log_pb = _edges(env)
    depth = np.asarray(depth)
    order = np.argsort(depth, kind="stable").astype(np.int32)
    layers = np.flatnonzero(np.diff(depth[order], prepend=-1))
    sizes = np.diff(layers, append=len(order))
    # Blocks near the mean layer waste little on padding and little on launching.
    block = int(min(_BLOCK, 2 ** np.ceil(np.log2(max(sizes.mean(), 16)))))
    starts = np.concatenate(
        [np.arange(a, a + n, block) for a, n in zip(layers, sizes, strict=True)]
    )
    layer_ends = np.repeat(layers + sizes, -(-sizes // block))
    ends = np.minimum(starts + block, layer_ends)
    return Graph(order, child, log_pb, starts.astype(np.int32), ends.astype(np.int32), block)


@_remember_last
def truth(env: EnumerableEnvironment, target: Target) -> Truth:
    """Enumerate a target over an environment's terminal states."""
    log_reward, mode = (np.asarray(leaf) for leaf in _enumerate(env, target))
    log_reward = log_reward.astype(np.float64)
    if not np.all(np.isfinite(log_reward)):
        bad = as_lists(terminal_samples(env), int(np.argmin(np.isfinite(log_reward))))
        raise FloatingPointError(f"log_reward is not finite at x = {bad}: bound it from below.")
    log_z = float(np.logaddexp.reduce(log_reward))
    return Truth(log_reward - log_z, mode, log_z)


def terminal_samples(env: EnumerableEnvironment) -> Sample:
    """The object of every terminal state, in order of their numbers, as NumPy arrays."""
    return jax.tree.map(np.asarray, _terminal_samples(env))


def as_lists(x: Sample, row: int) -> Any:
    """One of many objects, its arrays as lists of numbers: for messages."""
    return jax.tree.map(lambda leaf: leaf[row].tolist(), x)


@eqx.filter_jit
def policy_table(sampler: Sampler) -> Float[Array, "states actions"]:
    """log P_F of every action at every internal state; about -1e9 for forbidden ones."""
    env = sampler.environment
    assert isinstance(env, EnumerableEnvironment)

    def row(index: Int[Array, ""]) -> Float[Array, " actions"]:
        kernel = sampler.forward_kernel(env.state_at(index))
        return jax.vmap(kernel.log_prob)(jnp.arange(env.num_actions, dtype=jnp.int32))

    # A network that scores each child of a state holds as many activations a state.
    rows = jnp.arange(env.num_internal, dtype=jnp.int32)
    return jax.lax.map(row, rows, batch_size=_BLOCK // 8)


def reach(
    env: EnumerableEnvironment, log_pf: Float[Array, "internal actions"]
) -> Float64[np.ndarray, " states"]:
    """Probability that a trajectory visits each state, under a policy table."""
    g = graph(env)
    with jax.enable_x64(True):
        law = _propagate(g.order, g.child, log_pf, g.starts, g.ends, num_states(env), g.block)
        return np.asarray(law)


def terminal_law(
    env: EnumerableEnvironment, log_pf: Float[Array, "internal actions"]
) -> Float64[np.ndarray, " terminal"]:
    """Probability of every terminal state under a policy table."""
    return reach(env, log_pf)[env.num_internal :]


def objects(
    env: EnumerableEnvironment, law: Float64[np.ndarray, " terminal"], key: PRNGKeyArray, n: int
) -> Sample:
    """`n` independent draws of a law over terminal states, as NumPy arrays. They are sorted by the
    number of the state: the first of them are no sample of the law.

    **Errors:** `ValueError` for a law that is none: of another length, with a value that is
    negative or not a number, or whose sum is not 1.
    """
    law = np.asarray(law, np.float64)
    # Policies in float32 make a law whose sum is 1 to six digits or so.
    if law.shape != (env.num_terminal_states,) or not np.all(law >= 0) or abs(law.sum() - 1) > 0.01:
        raise ValueError(
            f"law must have {env.num_terminal_states:,} probabilities that sum to 1, got "
            f"{law.size:,} values with the sum {law.sum():g}."
        )
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = np.repeat(np.arange(len(law)), generator.multinomial(n, law / law.sum()))
    return jax.tree.map(lambda leaf: leaf[rows], terminal_samples(env))


def string_log_prob(sampler: Sampler, x: Int[Array, "n length"]) -> Float[Array, " n"]:
    r"""log P_T of strings, exactly, without listing all of them: what leads to a string are its
    substrings, of which there are at most length·(length + 1)/2 + 1.

    $$P(s') = \sum_{s \to s'} P(s)\,P_F(s'\mid s)$$

    over the one or two substrings that are a symbol shorter. In the precision of the network.

    **Errors:** `ValueError` for an environment that is not `didact.environments.Strings`, and for
    numbers that no symbol has. Inside a program of JAX's, where no error can be raised, the
    log-probability of such a string is −∞: no sampler draws it.
    """
    env = sampler.environment
    if not isinstance(env, Strings):
        raise ValueError(f"{type(env).__name__} is no environment of strings.")
    require_digits(x, env.num_symbols)
    return _string_log_prob(sampler, x)


@eqx.filter_jit
def _string_log_prob(sampler: Sampler, x: Int[Array, "n length"]) -> Float[Array, " n"]:
    env = sampler.environment
    assert isinstance(env, Strings)
    length, append = env.length, env.num_actions - env.num_symbols
    # All substrings that are shorter, by how many symbols they have and then where they begin.
    sizes, starts = np.array([(n, i) for n in range(length) for i in range(length - n + 1)]).T

    def one(x: Int[Array, " length"]) -> Float[Array, ""]:
        def grown(n: Int[Array, ""], start: Int[Array, ""]):
            """log P_F of the substrings that are a symbol longer, in front and at the end."""
            kernel = sampler.forward_kernel(_substring(env, x, start, n))
            before, after = x[jnp.maximum(start - 1, 0)], x[jnp.minimum(start + n, length - 1)]
            return kernel.log_prob(before), kernel.log_prob(append + after)

        in_front, at_end = jax.vmap(grown)(jnp.asarray(sizes), jnp.asarray(starts))
        # log P of the substrings of n symbols, by where they begin; an empty one is the source.
        log_p = jnp.zeros(length + 1)
        for n in range(length):
            front, end = in_front[sizes == n][1:], at_end[sizes == n][:-1]
            following = log_p[:-1] + end
            if env.grows_in_front:
                following = jnp.logaddexp(following, log_p[1:] + front)
            log_p = following
        return jnp.where(are_digits(x, env.num_symbols), log_p[0], -jnp.inf)

    # Few strings at a time have many substrings, whose activations should fit a near cache.
    return jax.lax.map(one, jnp.asarray(x, jnp.int32), batch_size=8)


def _substring(
    env: Strings, x: Int[Array, " length"], start: Int[Array, ""], n: Int[Array, ""]
) -> StringState:
    place = jnp.arange(env.length)
    symbols = jnp.where(place < n, jnp.roll(x, -start), 0)
    return StringState(symbols, n.astype(jnp.int32))


def exact_flows(
    env: EnumerableEnvironment, target: Target
) -> tuple[Float64[np.ndarray, " states"], Float64[np.ndarray, "internal actions"]]:
    r"""The flows of the perfect sampler with the environment's fixed P_B.

    $$F(x) = R(x), \qquad F(s) = \sum_{s'} F(s')\,P_B(s\mid s'), \qquad
    P_F(s'\mid s) = F(s')\,P_B(s\mid s')/F(s)$$

    **Returns:** log F of every state (log Z at the initial one) and the table of log P_F.
    """
    g, t = graph(env), truth(env, target)
    with jax.enable_x64(True):
        start = jnp.concatenate([jnp.full(env.num_internal, -jnp.inf), jnp.asarray(t.log_p)])
        flow = _backpropagate(
            g.order, g.child, g.log_pb, g.starts[::-1], g.ends[::-1], start, g.block
        )
        log_pf = flow[g.child] + g.log_pb - flow[: env.num_internal, None]
        return np.asarray(flow) + t.log_z, np.asarray(log_pf)


def elbo(
    env: EnumerableEnvironment,
    target: Target,
    log_pf: Float[Array, "internal actions"],
    visits: Float64[np.ndarray, " states"],
) -> float:
    """The exact mean of log R + log P_B - log P_F over forward trajectories: at most log Z.

    `visits` is what `reach` gives for the same table.
    """
    t, split = truth(env, target), env.num_internal
    table = np.asarray(log_pf, np.float64)
    edge = visits[:split, None] * np.exp(table) * (np.asarray(graph(env).log_pb) - table)
    return float(np.sum(edge) + np.sum(visits[split:] * (t.log_p + t.log_z)))


def eubo(
    env: EnumerableEnvironment, target: Target, log_pf: Float[Array, "internal actions"]
) -> float:
    """The exact mean of log R + log P_B - log P_F over trajectories that P_B draws from exact
    samples of the target: at least log Z, and far above it where the sampler misses some.
    """
    edge, rest = _target_edges(env, target)
    return rest - float(np.sum(edge * np.asarray(log_pf, np.float64)))


@_remember_last
def _target_edges(
    env: EnumerableEnvironment, target: Target
) -> tuple[Float64[np.ndarray, "internal actions"], float]:
    """How often a trajectory from the target passes each edge, and the mean of log R + log P_B."""
    log_flow, log_pf = exact_flows(env, target)
    t = truth(env, target)
    edge = np.exp(log_flow[: env.num_internal, None] - t.log_z + log_pf)
    rest = (
        np.sum(edge * np.asarray(graph(env).log_pb)) + np.sum(np.exp(t.log_p) * t.log_p) + t.log_z
    )
    return edge, float(rest)


def spearman(p_model: Float64[np.ndarray, " terminal"], truth: Truth) -> float:
    """Spearman's rank correlation of log P_T(x) with log R(x) over all objects; NaN where one of
    them is constant.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (p_model, truth.log_p)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def compare(p_model: Float64[np.ndarray, " terminal"], truth: Truth) -> dict[str, float | None]:
    r"""Distances of a terminal law from the target.

    **Returns:** `tv` $= \frac12\sum|p_\theta - p|$; `kl` = KL(p ‖ p_θ) and `jsd`, in nats;
    `spearman`, the rank correlation of log P_T with log R;
    `mode_mass` of the law and, where the target has modes, `mode_mass_recall`
    $= \sum_\text{modes} \min(p_\theta, p)/\sum_\text{modes} p$ and `modes_held`, the number of
    modes with at least half of their mass.
    """
    p = np.exp(truth.log_p)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log(p_model)
        log_middle = np.log((p + p_model) / 2)
        kl = float(np.sum(p * (truth.log_p - log_q)))
        from_q = np.where(p_model > 0, p_model * (log_q - log_middle), 0.0)
    jsd = 0.5 * float(np.sum(p * (truth.log_p - log_middle)) + np.sum(from_q))
    result: dict[str, float | None] = {
        "tv": 0.5 * float(np.abs(p_model - p).sum()),
        "kl": kl,
        "jsd": jsd,
        "spearman": spearman(p_model, truth),
    }
    on_mode = truth.mode >= 0
    if not on_mode.any():
        return result | {"mode_mass": None, "mode_mass_recall": None, "modes_held": None}
    which = truth.mode[on_mode]
    want = np.bincount(which, p[on_mode])
    have = np.bincount(which, p_model[on_mode])
    return result | {"mode_mass": float(have.sum()), **held(have, want)}


def held(
    have: Float64[np.ndarray, " modes"], want: Float64[np.ndarray, " modes"]
) -> dict[str, float]:
    """Of the probability that modes have and should have: the `mode_mass_recall`, and `modes_held`,
    the number of modes with at least half of their mass.
    """
    return {
        "mode_mass_recall": float(np.minimum(have, want).sum() / want.sum()),
        "modes_held": int(np.sum((want > 0) & (have >= 0.5 * want))),
    }


@eqx.filter_jit
def _edges(env: EnumerableEnvironment):
    actions = jnp.arange(env.num_actions, dtype=jnp.int32)

    def row(index: Int[Array, ""]):
        state = env.state_at(index)
        children = jax.vmap(lambda a: env.step(state, a))(actions)
        log_pb = jax.vmap(lambda s, a: env.backward_kernel(s, None).log_prob(a))(children, actions)
        return env.depth(state), jax.vmap(env.index_of)(children), log_pb

    return jax.lax.map(row, jnp.arange(env.num_internal, dtype=jnp.int32), batch_size=_BLOCK)


@eqx.filter_jit
def _enumerate(env: EnumerableEnvironment, target: Target):
    def one(x: Sample):
        return target.log_reward(x), target.mode_index(x)

    return jax.lax.map(one, _terminal_samples(env), batch_size=_BLOCK)


@eqx.filter_jit
def _terminal_samples(env: EnumerableEnvironment) -> Sample:
    numbers = jnp.arange(env.num_internal, num_states(env), dtype=jnp.int32)
    return jax.lax.map(lambda i: env.sample_of(env.state_at(i)), numbers, batch_size=_BLOCK)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _propagate(order, child, log_pf, starts, ends, size: int, block: int):
    order = jnp.pad(order, (0, block))

    def body(i, law):
        rows = starts[i] + jnp.arange(block)
        state = jax.lax.dynamic_slice_in_dim(order, starts[i], block)
        mass = jnp.where(rows < ends[i], law[state], 0.0)
        flow = mass[:, None] * jnp.exp(log_pf[state].astype(jnp.float64))
        return law.at[child[state]].add(flow)

    # Number 0 is the first internal state by depth: the initial one.
    law = jnp.zeros(size, jnp.float64).at[order[0]].set(1.0)
    return jax.lax.fori_loop(0, starts.shape[0], body, law)


@functools.partial(jax.jit, static_argnums=(6,))
def _backpropagate(order, child, log_pb, starts, ends, log_flow, block: int):
    order = jnp.pad(order, (0, block))

    def body(i, log_flow):
        rows = starts[i] + jnp.arange(block)
        state = jax.lax.dynamic_slice_in_dim(order, starts[i], block)
        inflow = jax.nn.logsumexp(log_flow[child[state]] + log_pb[state], axis=1)
        place = jnp.where(rows < ends[i], state, log_flow.shape[0])
        return log_flow.at[place].set(inflow, mode="drop")

    return jax.lax.fori_loop(0, starts.shape[0], body, log_flow)


__all__ = [
    "Graph",
    "Truth",
    "compare",
    "elbo",
    "eubo",
    "exact_flows",
    "graph",
    "held",
    "num_states",
    "objects",
    "policy_table",
    "reach",
    "refusal",
    "required_bytes",
    "spearman",
    "string_log_prob",
    "terminal_law",
    "terminal_samples",
    "truth",
]
