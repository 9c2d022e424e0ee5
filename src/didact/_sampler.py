"""The sampler: an environment, a policy network and log Z; and the three things done with it.

`sample_forward` and `sample_backward` draw trajectories without gradients, `score` then
evaluates all their edges in one network call, with gradients.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._types import (
    Action,
    Environment,
    Identity,
    Kernel,
    Noise,
    PolicyOutput,
    Sample,
    Scored,
    State,
    Trajectory,
)


class Sampler(eqx.Module):
    """A forward policy over an environment, with its estimate of log Z.

    **Arguments:** `environment`; `policy`: features -> `PolicyOutput`; `log_z`: a scalar,
    in nats; `backward_scoring`: None scores P_B as the environment has it, a function
    (environment, state, params) -> kernel replaces it in scores only (to reproduce a
    published divergence).
    """

    environment: Environment
    policy: Callable[[Array], PolicyOutput]
    log_z: Float[Array, ""]
    backward_scoring: Callable[[Environment, State, Array | None], Kernel] | None = eqx.field(
        static=True, default=None
    )

    def output(self, state: State) -> PolicyOutput:
        """The network's output at one state."""
        return self.policy(self.environment.features(state))

    def forward_kernel(self, state: State) -> Kernel:
        """P_F(. | state)."""
        return self.environment.forward_kernel(state, self.output(state).forward)

    def backward_kernel(self, state: State) -> Kernel:
        """P_B(. | state), from which backward trajectories are drawn."""
        # A fixed P_B ignores the network, and the compiler then drops the call.
        return self.environment.backward_kernel(state, self.output(state).backward)

    def log_flow(self, state: State) -> Float[Array, ""] | None:
        """log F(state), where the policy has a head for it."""
        return self.output(state).log_flow

    @property
    def learns_backward(self) -> bool:
        """Whether P_B comes from the network."""
        out = eqx.filter_eval_shape(lambda: self.output(self.environment.initial_state()))
        return out.backward is not None


class _Rollout(eqx.Module):
    """What the loop of `sample_forward` carries: one lane a trajectory, buffers over time."""

    t: Int[Array, ""]
    running: Int[Array, ""]
    owner: Int[Array, " B"]
    length: Int[Array, " B"]
    state: State
    states: State
    actions: Action


def sample_forward(
    sampler: Sampler,
    key: PRNGKeyArray,
    batch_size: int,
    *,
    adjust: Callable[[Kernel], Kernel] = Identity,
    axis_name: str | None = None,
) -> Trajectory:
    """Draw a batch of trajectories from P_F, without gradients.

    **Arguments:** `adjust` changes each kernel before it is sampled from (exploration);
    `axis_name`: the name of an enclosing `vmap` over samplers.

    **Returns:** a `Trajectory` with leading axis [batch_size], padded at the end.

    The work follows the trajectories that still run: the loop stops with the last of them,
    and lanes are packed to half and a quarter of the batch as the others finish.
    """
    sampler = lax.stop_gradient(sampler)
    env = sampler.environment
    horizon = env.num_steps

    def advance(state: State, noise: Noise) -> tuple[State, Action]:
        action = adjust(sampler.forward_kernel(state)).from_noise(noise)
        following = env.step(state, action)
        return _where(env.is_terminal(state), state, following), action

    start = env.initial_state()
    noise = sampler.forward_kernel(start).noise(key, (horizon, batch_size))
    action_like = jax.eval_shape(advance, start, jax.tree.map(lambda leaf: leaf[0, 0], noise))[1]

    def body(width: int, carry: _Rollout) -> _Rollout:
        lanes = jax.tree.map(lambda leaf: leaf[:width], carry.state)
        step_noise = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, carry.t, keepdims=False)[:width], noise
        )
        unfinished = ~jax.vmap(env.is_terminal)(lanes)
        following, action = jax.vmap(advance)(lanes, step_noise)
        running = jnp.sum(~jax.vmap(env.is_terminal)(following), dtype=jnp.int32)
        # One answer for all vmapped samplers keeps the loop a loop: no selects, no copies.
        running = running if axis_name is None else lax.pmax(running, axis_name)
        return _Rollout(
            t=carry.t + 1,
            running=running,
            owner=carry.owner,
            length=carry.length.at[:width].add(unfinished.astype(jnp.int32)),
            state=_write_lanes(carry.state, following),
            states=_write_row(carry.states, following, carry.t + 1),
            actions=_write_row(carry.actions, action, carry.t),
        )

    carry = _Rollout(
        t=jnp.asarray(0, jnp.int32),
        running=jnp.asarray(batch_size, jnp.int32),
        owner=jnp.arange(batch_size, dtype=jnp.int32),
        length=jnp.zeros(batch_size, jnp.int32),
        state=_broadcast(start, (batch_size,)),
        states=_broadcast(start, (horizon + 1, batch_size)),
        actions=jax.tree.map(
            lambda leaf: jnp.zeros((horizon, batch_size, *leaf.shape), leaf.dtype), action_like
        ),
    )
    widths = _lane_widths(batch_size)
    for width, enough in zip(widths, (*widths[1:], 0), strict=True):
        carry = lax.while_loop(
            lambda c, enough=enough: (c.t < horizon) & (c.running > enough),
            lambda c, width=width: body(width, c),
            carry,
        )
        if enough:
            carry = _pack(env, carry)
    return _unpack(carry, horizon)


def sample_backward(
    sampler: Sampler, key: PRNGKeyArray, x: Sample, *, axis_name: str | None = None
) -> Trajectory:
    """Draw one trajectory from P_B for each object, without gradients.

    **Arguments:** `x` with leading axis [B] on every leaf; `axis_name` as in
    `sample_forward`.

    **Returns:** a `Trajectory` with leading axis [B], padded at the front.
    """
    sampler = lax.stop_gradient(sampler)
    env = sampler.environment
    horizon = env.num_steps
    end = jax.vmap(env.terminal_state)(x)
    batch_size = jax.tree.leaves(end)[0].shape[0]

    def retreat(state: State, noise: Noise) -> tuple[State, Action]:
        action = sampler.backward_kernel(state).from_noise(noise)
        previous = env.backward_step(state, action)
        return _where(env.is_initial(state), state, previous), action

    start = env.initial_state()
    noise = sampler.backward_kernel(start).noise(key, (horizon, batch_size))
    action_like = jax.eval_shape(retreat, start, jax.tree.map(lambda leaf: leaf[0, 0], noise))[1]

    def any_walking(state: State) -> Int[Array, ""]:
        walking = jnp.any(~jax.vmap(env.is_initial)(state)).astype(jnp.int32)
        return walking if axis_name is None else lax.pmax(walking, axis_name)

    def body(carry):
        t, _, state, length, states, actions = carry
        step_noise = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, t - 1, keepdims=False), noise
        )
        moving = ~jax.vmap(env.is_initial)(state)
        previous, action = jax.vmap(retreat)(state, step_noise)
        return (
            t - 1,
            any_walking(previous),
            previous,
            length + moving.astype(jnp.int32),
            _write_row(states, previous, t - 1),
            _write_row(actions, action, t - 1),
        )

    states = _broadcast(start, (horizon + 1, batch_size))
    carry = (
        jnp.asarray(horizon, jnp.int32),
        any_walking(end),
        end,
        jnp.zeros(batch_size, jnp.int32),
        _write_row(states, end, horizon),
        jax.tree.map(
            lambda leaf: jnp.zeros((horizon, batch_size, *leaf.shape), leaf.dtype), action_like
        ),
    )
    *_, length, states, actions = lax.while_loop(lambda c: (c[0] > 0) & (c[1] > 0), body, carry)
    mask = jnp.arange(horizon) >= horizon - length[:, None]
    return Trajectory(_batch_first(states), _batch_first(actions), mask)


def score(
    sampler: Sampler,
    trajectory: Trajectory,
    log_reward: Float[Array, " B"],
    weight: Float[Array, " B"],
    rows: int | None = None,
) -> Scored:
    """Evaluate every edge of a batch of trajectories in one network call.

    **Arguments:** `rows`: an upper bound, known when compiling, of the number of states the
    network must see (`num_rows`); the default covers any batch. Padding costs nothing below
    that bound: real states are packed together first.

    **Errors:** none at run time; with too small a `rows` the last edges would score 0, so
    callers take `rows` from `num_rows`.
    """
    env = sampler.environment
    batch_size, horizon = trajectory.mask.shape
    nodes = horizon + 1
    learned = sampler.learns_backward
    node, real = _packed_nodes(trajectory.mask, rows or batch_size * nodes, int(learned))
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(batch_size * nodes, *leaf.shape[2:]), trajectory.states
    )
    state = jax.tree.map(lambda leaf: leaf[node], flat)
    output = jax.vmap(sampler.output)(state)

    # The edge out of node t is actions[t], the edge into it actions[t-1].
    column = node % nodes
    edge = (node // nodes) * horizon + jnp.minimum(column, horizon - 1)
    actions = jax.tree.map(
        lambda leaf: leaf.reshape(batch_size * horizon, *leaf.shape[2:]), trajectory.actions
    )
    log_pf = jax.vmap(
        lambda s, p, a: env.forward_kernel(s, p).log_prob(a)
    )(state, output.forward, jax.tree.map(lambda leaf: leaf[edge], actions))
    log_pf = _spread(log_pf, node, real, batch_size, nodes)[:, :-1]

    if learned:
        into = jnp.where(column > 0, edge - (column < horizon), edge)
        log_pb = jax.vmap(lambda s, p, a: _scored_backward(sampler, s, p).log_prob(a))(
            state, output.backward, jax.tree.map(lambda leaf: leaf[into], actions)
        )
        log_pb = _spread(log_pb, node, real, batch_size, nodes)[:, 1:]
    else:
        following = jax.tree.map(lambda leaf: leaf[node + 1], flat)
        log_pb = jax.vmap(lambda s, a: _scored_backward(sampler, s, None).log_prob(a))(
            following, jax.tree.map(lambda leaf: leaf[edge], actions)
        )
        log_pb = _spread(log_pb, node, real, batch_size, nodes)[:, :-1]

    log_flow = None
    if output.log_flow is not None:
        log_flow = _spread(output.log_flow, node, real, batch_size, nodes)
        terminal = jax.vmap(jax.vmap(env.is_terminal))(trajectory.states)
        log_flow = jnp.where(terminal, log_reward[:, None], log_flow)
    return Scored(
        log_pf=jnp.where(trajectory.mask, log_pf, 0),
        log_pb=jnp.where(trajectory.mask, log_pb, 0),
        log_flow=log_flow,
        log_z=sampler.log_z,
        log_reward=log_reward,
        mask=trajectory.mask,
        weight=weight,
    )


def num_rows(sampler: Sampler, mask: Bool[Array, "B T"]) -> Int[Array, ""]:
    """Number of states that `score` has to evaluate."""
    extra = mask.shape[0] if sampler.learns_backward else 0
    return jnp.sum(mask, dtype=jnp.int32) + extra


def row_sizes(batch_size: int, horizon: int) -> tuple[int, ...]:
    """Sizes offered to `score`, each about a third above the one below."""
    sizes = [batch_size * (horizon + 1)]
    while sizes[-1] > 160:
        sizes.append(-(-int(sizes[-1] / 1.35) // 32) * 32)
    return tuple(reversed(sizes))


def _scored_backward(sampler: Sampler, state: State, params: Array | None) -> Kernel:
    if sampler.backward_scoring is None:
        return sampler.environment.backward_kernel(state, params)
    return sampler.backward_scoring(sampler.environment, state, params)


def _packed_nodes(
    mask: Bool[Array, "B T"], rows: int, extra: int
) -> tuple[Int[Array, " rows"], Bool[Array, " rows"]]:
    """Numbers b·(T+1)+t of the states at which real edges start (with `extra` = 1, also of
    the last state), packed to the front of `rows`; and which of the rows are real."""
    batch_size, horizon = mask.shape
    count = jnp.sum(mask, axis=1, dtype=jnp.int32) + extra
    # The mask of a trajectory is one run, so its first True and its length say all.
    first = jnp.argmax(mask, axis=1).astype(jnp.int32)
    ends = jnp.cumsum(count)
    row = jnp.arange(rows, dtype=jnp.int32)
    owner = jnp.sum(ends <= row[:, None], axis=1, dtype=jnp.int32)
    real = owner < batch_size
    owner = jnp.minimum(owner, batch_size - 1)
    column = first[owner] + row - (ends - count)[owner]
    return jnp.where(real, owner * (horizon + 1) + column, 0), real


def _spread(
    values: Float[Array, " rows"],
    node: Int[Array, " rows"],
    real: Bool[Array, " rows"],
    batch_size: int,
    nodes: int,
) -> Float[Array, "B nodes"]:
    """Put one value a row back at its place in the batch, 0 elsewhere."""
    place = jnp.where(real, node, batch_size * nodes)
    flat = jnp.zeros(batch_size * nodes, values.dtype)
    return flat.at[place].set(values, mode="drop").reshape(batch_size, nodes)


def _lane_widths(batch_size: int) -> tuple[int, ...]:
    """Widths of the stages of a rollout. Below 4 lanes a step costs its overhead, not its
    arithmetic, so that is where packing ends."""
    return tuple(w for w in (batch_size, batch_size // 2, batch_size // 4) if w >= 4) or (
        batch_size,
    )


def _pack(env: Environment, carry: _Rollout) -> _Rollout:
    """Move the lanes that still run to the front."""
    order = jnp.argsort(jax.vmap(env.is_terminal)(carry.state), stable=True)
    lanes = lambda leaf: leaf[order]  # noqa: E731
    columns = lambda leaf: leaf[:, order]  # noqa: E731
    return _Rollout(
        t=carry.t,
        running=carry.running,
        owner=lanes(carry.owner),
        length=lanes(carry.length),
        state=jax.tree.map(lanes, carry.state),
        states=jax.tree.map(columns, carry.states),
        actions=jax.tree.map(columns, carry.actions),
    )


def _unpack(carry: _Rollout, horizon: int) -> Trajectory:
    """Lanes back in order, ends repeated to the horizon."""
    order = jnp.argsort(carry.owner)
    length = carry.length[order]

    def finish(buffer: Array, final: Array) -> Array:
        rows = _batch_first(buffer)[order]
        running = jnp.arange(horizon + 1) <= length[:, None]
        running = running.reshape(running.shape + (1,) * (rows.ndim - 2))
        return jnp.where(running, rows, final[order][:, None])

    return Trajectory(
        states=jax.tree.map(finish, carry.states, carry.state),
        actions=jax.tree.map(lambda leaf: _batch_first(leaf)[order], carry.actions),
        mask=jnp.arange(horizon) < length[:, None],
    )


def _where(condition: Bool[Array, ""], yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _broadcast(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape + jnp.shape(leaf)), tree)


def _batch_first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tree)


def _write_row(buffer: PyTree, rows: PyTree, t: Int[Array, ""] | int) -> PyTree:
    """Write [width, ...] at time t into the first lanes of [T, B, ...]."""
    return jax.tree.map(
        lambda b, r: lax.dynamic_update_slice(b, r[None], (t,) + (0,) * (b.ndim - 1)), buffer, rows
    )


def _write_lanes(lanes: PyTree, front: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: a.at[: b.shape[0]].set(b), lanes, front)
