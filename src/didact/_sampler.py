"""The sampler: an environment, a policy network and log Z; and the three things done with it.

`sample_forward` and `sample_backward` draw trajectories without gradients, `score` then
evaluates all their edges in one network call, with gradients.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._sharding import by_shard, num_shards
from ._types import (
    Action,
    Environment,
    Identity,
    Kernel,
    Noise,
    PathwiseKernel,
    PolicyOutput,
    Sample,
    Scored,
    State,
    Target,
    Trajectory,
)
from .replay import fingerprint


class Sampler(eqx.Module):
    """A forward policy over an environment, with its estimate of log Z.

    **Arguments:** `environment`; `policy`: features -> `PolicyOutput`; `log_z`: a scalar,
    in nats; `backward_scoring`: None scores P_B as the environment has it, a function
    (environment, state, params) -> kernel replaces it in scores only (to reproduce a
    published divergence); `guide`: the target whose gradient of log R at each state the policy
    takes as a second argument (None: the policy takes the features alone).
    """

    environment: Environment
    policy: Callable[..., PolicyOutput]
    log_z: Float[Array, ""]
    backward_scoring: Callable[[Any, State, Array | None], Kernel] | None = eqx.field(
        static=True, default=None
    )
    guide: Target | None = None

    def output(self, state: State) -> PolicyOutput:
        """The network's output at one state."""
        features = self.environment.features(state)
        if self.guide is None:
            return self.policy(features)
        gradient = jax.grad(self.guide.log_reward)(self.environment.sample_of(state))
        return self.policy(features, gradient)

    def forward_kernel(self, state: State) -> Kernel:
        """P_F(. | state)."""
        return self.environment.forward_kernel(state, self.output(state).forward)

    def backward_kernel(self, state: State) -> Kernel:
        """P_B(. | state), from which backward trajectories are drawn."""
        # A fixed P_B ignores the network, and the compiler then drops the call.
        return self.environment.backward_kernel(state, self.output(state).backward)

    def log_flow(self, state: State) -> Float[Array, ""] | None:
        """log F(state), where the policy has a head for it."""
        head = self.output(state).log_flow
        return None if head is None else head + self.environment.log_reference(state)

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
    noise: Noise  # [T, B, ...]
    state: State  # [width, ...], the present
    states: State  # [T+1, B, ...]
    actions: Action  # [T, B, ...]


def sample_forward(
    sampler: Sampler,
    key: PRNGKeyArray,
    batch_size: int,
    *,
    adjust: Callable[[Kernel], Kernel] = Identity,
    axis_name: str | tuple[str, ...] | None = None,
) -> Trajectory:
    """Draw a batch of trajectories from P_F, without gradients.

    **Arguments:** `adjust` changes each kernel before it is sampled from (exploration);
    `axis_name`: the name of an enclosing `vmap` over samplers, or those of several.

    **Returns:** a `Trajectory` with leading axis [batch_size], padded at the end.

    The work follows the trajectories that still run: the loop stops with the last of them,
    and lanes are packed to half and a quarter of the batch as the others finish.
    """
    sampler = lax.stop_gradient(sampler)
    env = sampler.environment
    # Drawn for the whole batch, so that what is drawn does not depend on how it is split.
    noise = sampler.forward_kernel(env.initial_state()).noise(key, (env.num_steps, batch_size))

    def roll_out(sampler: Sampler, noise: Noise) -> Trajectory:
        return _forward(sampler, noise, adjust, axis_name)

    return by_shard(roll_out, sampler, noise, batch_axis=1)


def _forward(
    sampler: Sampler,
    noise: Noise,
    adjust: Callable[[Kernel], Kernel],
    axis_name: str | tuple[str, ...] | None,
) -> Trajectory:
    """One trajectory for each lane of noise [T, B, ...]."""
    env = sampler.environment
    horizon, batch_size = jax.tree.leaves(noise)[0].shape[:2]

    def advance(state: State, noise: Noise) -> tuple[State, Action]:
        action = adjust(sampler.forward_kernel(state)).from_noise(noise)
        following = env.step(state, action)
        return _where(env.is_terminal(state), state, following), action

    start = env.initial_state()
    action_like = jax.eval_shape(advance, start, jax.tree.map(lambda leaf: leaf[0, 0], noise))[1]

    def body(width: int, carry: _Rollout) -> _Rollout:
        step_noise = jax.tree.map(lambda leaf: _row(leaf, carry.t)[:width], carry.noise)
        following, action = jax.vmap(advance)(carry.state, step_noise)
        running = jnp.sum(~jax.vmap(env.is_terminal)(following), dtype=jnp.int32)
        # One answer for all vmapped samplers keeps the loop a loop: no selects, no copies.
        running = running if axis_name is None else lax.pmax(running, axis_name)
        return _Rollout(
            t=carry.t + 1,
            running=running,
            owner=carry.owner,
            noise=carry.noise,
            state=following,
            states=_write_row(carry.states, following, carry.t + 1),
            actions=_write_row(carry.actions, action, carry.t),
        )

    carry = _Rollout(
        t=jnp.asarray(0, jnp.int32),
        running=jnp.asarray(batch_size, jnp.int32),
        owner=jnp.arange(batch_size, dtype=jnp.int32),
        noise=noise,
        state=_broadcast(start, (batch_size,)),
        states=_broadcast(start, (horizon + 1, batch_size)),
        actions=jax.tree.map(
            lambda leaf: jnp.zeros((horizon, batch_size, *leaf.shape), leaf.dtype), action_like
        ),
    )
    widths = _lane_widths(env, batch_size)
    for width, enough in zip(widths, (*widths[1:], 0), strict=True):
        carry = lax.while_loop(
            lambda c, enough=enough: (c.t < horizon) & (c.running > enough),
            lambda c, width=width: body(width, c),
            carry,
        )
        if enough:
            carry = _pack(env, carry, enough)
    return _unpack(env, carry)


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
    batch_size = jax.tree.leaves(x)[0].shape[0]
    noise = sampler.backward_kernel(env.initial_state()).noise(key, (env.num_steps, batch_size))

    def walk_back(sampler: Sampler, x: Sample, noise: Noise) -> Trajectory:
        return _backward(sampler, x, _swapped(noise), axis_name)

    return by_shard(walk_back, sampler, x, _swapped(noise))


def _backward(sampler: Sampler, x: Sample, noise: Noise, axis_name: str | None) -> Trajectory:
    """One trajectory to each object, by its lane of noise [T, B, ...]."""
    env = sampler.environment
    end = jax.vmap(env.terminal_state)(x)
    horizon, batch_size = jax.tree.leaves(noise)[0].shape[:2]

    def retreat(state: State, noise: Noise) -> tuple[State, Action]:
        action = sampler.backward_kernel(state).from_noise(noise)
        previous = env.backward_step(state, action)
        return _where(env.is_initial(state), state, previous), action

    start = env.initial_state()
    action_like = jax.eval_shape(retreat, start, jax.tree.map(lambda leaf: leaf[0, 0], noise))[1]

    def any_walking(state: State) -> Int[Array, ""]:
        walking = jnp.any(~jax.vmap(env.is_initial)(state)).astype(jnp.int32)
        return walking if axis_name is None else lax.pmax(walking, axis_name)

    def body(carry):
        t, _, state, length, states, actions = carry
        step_noise = jax.tree.map(lambda leaf: _row(leaf, t - 1), noise)
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
    return Trajectory(_swapped(states), _swapped(actions), mask)


class Layout(eqx.Module):
    """Which states of a batch a network must see: each distinct one once.

    `slot` [B, T+1] is the row of each state, `node` [B·(T+1)] the number b·(T+1)+t of the
    state in each row, `count` how many rows are in use. Where a batch is split over devices, each
    lays out its own part, and numbers and rows are its own.
    """

    slot: Int[Array, "B nodes"]
    node: Int[Array, " B*nodes"]
    count: Int[Array, " shards"]


def layout(sampler: Sampler, trajectory: Trajectory, *, ends: bool = False) -> Layout:
    """Lay out the states of a batch for `score`.

    **Arguments:** `ends`: terminal states get a row too, even where P_B is not learned.

    Padding gets no row. Trajectories share states, near their common start above all; equal
    states share a row where states are made of integers.
    """
    ends = ends or sampler.learns_backward
    return by_shard(lambda ends, trajectory: _layout(trajectory, ends), ends, trajectory)


def _layout(trajectory: Trajectory, ends: bool) -> Layout:
    mask = trajectory.mask
    batch_size, nodes = mask.shape[0], mask.shape[1] + 1
    size = batch_size * nodes
    wanted = jnp.pad(mask, ((0, 0), (0, 1)))
    if ends:
        wanted = wanted | jnp.pad(mask, ((0, 0), (1, 0)))
    wanted = wanted.reshape(size)
    flat = _flatten(trajectory.states, size)
    row = jnp.arange(size, dtype=jnp.int32)
    twin = row if _is_continuous(flat) else _twins(flat, wanted, row)
    first = wanted & (twin == row)
    rank = jnp.cumsum(first, dtype=jnp.int32) - 1
    node = jnp.zeros(size, jnp.int32).at[jnp.where(first, rank, size)].set(row, mode="drop")
    slot = jnp.where(wanted, rank[twin], 0).reshape(batch_size, nodes)
    return Layout(slot, node, jnp.sum(first, dtype=jnp.int32)[None])


def score(
    sampler: Sampler,
    trajectory: Trajectory,
    log_reward: Float[Array, " B"],
    weight: Float[Array, " B"],
    place: Layout | None = None,
    rows: int | None = None,
) -> Scored:
    """Evaluate every edge of a batch of trajectories in one network call.

    **Arguments:** `place`: the batch's `layout`, if it is there already; `rows`: an upper
    bound, known when compiling, of `place.count` (default: enough for any batch). The
    network runs on `rows` states. Where the batch is split, both are of each device.
    """
    place = layout(sampler, trajectory) if place is None else place

    def edges(sampler: Sampler, trajectory: Trajectory, log_reward: Array, place: Layout):
        return _score(sampler, trajectory, log_reward, place, rows)

    log_pf, log_pb, log_flow = by_shard(edges, sampler, trajectory, log_reward, place)
    mask, log_z = trajectory.mask, sampler.log_z
    return Scored(log_pf, log_pb, log_flow, log_z, log_reward, mask, weight)


def _score(
    sampler: Sampler,
    trajectory: Trajectory,
    log_reward: Float[Array, " B"],
    place: Layout,
    rows: int | None,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"], Float[Array, "B nodes"] | None]:
    """log P_F, log P_B and log F of a batch's edges and states, for `score`."""
    env = sampler.environment
    mask, size = trajectory.mask, place.node.shape[0]
    node = place.node[: size if rows is None else rows]
    state = jax.tree.map(lambda leaf: leaf[node], _flatten(trajectory.states, size))
    output = jax.tree.map(lambda leaf: leaf[place.slot], jax.vmap(sampler.output)(state))
    source = jax.tree.map(lambda leaf: leaf[:, :-1], trajectory.states)
    target = jax.tree.map(lambda leaf: leaf[:, 1:], trajectory.states)
    forward = output.forward[:, :-1]
    backward = None if output.backward is None else output.backward[:, 1:]

    def log_pf(state: State, params: Array, action: Action) -> Float[Array, ""]:
        return env.forward_kernel(state, params).log_prob(action)

    def log_pb(state: State, params: Array | None, action: Action) -> Float[Array, ""]:
        if sampler.backward_scoring is None:
            return env.backward_kernel(state, params).log_prob(action)
        return sampler.backward_scoring(env, state, params).log_prob(action)

    log_flow = output.log_flow
    if log_flow is not None:
        terminal = _over_edges(env.is_terminal)(trajectory.states)
        log_flow = log_flow + _over_edges(env.log_reference)(trajectory.states)
        log_flow = jnp.where(terminal, log_reward[:, None], log_flow)
    return (
        jnp.where(mask, _over_edges(log_pf)(source, forward, trajectory.actions), 0),
        jnp.where(mask, _over_edges(log_pb)(target, backward, trajectory.actions), 0),
        log_flow,
    )


def score_pathwise(
    sampler: Sampler,
    trajectory: Trajectory,
    log_reward_fn: Callable[[Sample], Float[Array, ""]],
    weight: Float[Array, " B"],
    *,
    path_only: bool,
) -> Scored:
    """Evaluate a batch of the sampler's own trajectories, with gradients through them.

    Each is walked again with the noise that its edges stand for, so that edges, states and
    log R depend on the parameters. The forward kernels must be `PathwiseKernel`s.

    **Arguments:** `path_only`: no gradient of log P_F with respect to the parameters at a fixed
    path.
    """

    def walks(agents: tuple[Sampler, Callable[..., Array]], trajectory: Trajectory):
        return _walk_again(*agents, trajectory, path_only)

    log_reward, log_pf, log_pb = by_shard(walks, (sampler, log_reward_fn), trajectory)
    return Scored(log_pf, log_pb, None, sampler.log_z, log_reward, trajectory.mask, weight)


def _walk_again(
    sampler: Sampler,
    log_reward_fn: Callable[[Sample], Float[Array, ""]],
    trajectory: Trajectory,
    path_only: bool,
) -> tuple[Float[Array, " B"], Float[Array, "B T"], Float[Array, "B T"]]:
    """log R of where trajectories end, log P_F and log P_B of their edges, along their paths."""
    env = sampler.environment
    scorer = lax.stop_gradient(sampler) if path_only else sampler

    def edge(state: State, inputs: tuple[Action, Bool[Array, ""]]):
        recorded, real = inputs
        kernel = sampler.forward_kernel(state)
        assert isinstance(kernel, PathwiseKernel)
        action = kernel.from_noise(lax.stop_gradient(kernel.to_noise(recorded)))
        following = env.step(state, action)
        log_pf = scorer.forward_kernel(state).log_prob(action)
        log_pb = sampler.backward_kernel(following).log_prob(action)
        return _where(real, following, state), (
            jnp.where(real, log_pf, 0),
            jnp.where(real, log_pb, 0),
        )

    def walk(start: State, actions: Action, mask: Bool[Array, " T"]):
        end, (log_pf, log_pb) = lax.scan(edge, start, (actions, mask))
        return log_reward_fn(env.sample_of(end)), log_pf, log_pb

    start = jax.tree.map(lambda leaf: leaf[:, 0], trajectory.states)
    return jax.vmap(walk)(start, trajectory.actions, trajectory.mask)


def _is_continuous(states: State) -> bool:
    return any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(states))


def _over_edges(function: Callable[..., Array]) -> Callable[..., Array]:
    return jax.vmap(jax.vmap(function))


def _flatten(states: State, size: int) -> State:
    return jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), states)


def _twins(
    states: State, wanted: Bool[Array, " nodes"], row: Int[Array, " nodes"]
) -> Int[Array, " nodes"]:
    """For each wanted state the number of one equal to it, the same for all that are equal.

    A hash table without probing: a state that loses its place to a different one stands for
    itself, which costs a row and no more.
    """
    size = row.shape[0]
    length = 2 ** (2 * size - 1).bit_length()
    bucket = (jax.vmap(fingerprint)(states)[:, 0] % length).astype(jnp.int32)
    bucket = jnp.where(wanted, bucket, length)
    # The largest number wins, in whatever order a device writes.
    table = jnp.zeros(length, jnp.int32).at[bucket].max(row, mode="drop")
    candidate = table.at[bucket].get(mode="clip")
    equal = wanted
    for leaf in jax.tree.leaves(states):
        same = leaf[candidate] == leaf
        equal = equal & jnp.all(same, axis=tuple(range(1, same.ndim)))
    return jnp.where(equal, candidate, row)


def row_sizes(env: Environment, batch_size: int) -> tuple[int, ...]:
    """Values of `rows` worth compiling for `score`.

    Each is a fifth above the one below, which wastes a tenth of the rows on average; nearly
    full batches are rare, so the last step is larger. On an accelerator each is twice the one
    below: it is bound by its launches rather than by rows, and compiles longer. One size is enough
    where no two states are equal and all trajectories are of one length. Where batches are split
    over devices, rows are of one device.
    """
    shards = num_shards()
    each = batch_size // shards if batch_size % shards == 0 else batch_size
    sizes = [each * (env.num_steps + 1)]
    if env.fewest_steps == env.num_steps and _is_continuous(jax.eval_shape(env.initial_state)):
        return tuple(sizes)
    on_cpu = jax.default_backend() == "cpu"
    ratio = 1.5 if on_cpu else 2.0
    while sizes[-1] > 256:
        sizes.append(-(-int(sizes[-1] / ratio) // 16) * 16)
        ratio = 1.2 if on_cpu else 2.0
    return tuple(reversed(sizes))


def _lane_widths(env: Environment, batch_size: int) -> tuple[int, ...]:
    """Widths of the stages of a rollout: one where all trajectories are of one length. Below 4
    lanes a step costs its overhead, not its arithmetic, so that is where packing ends.
    """
    if env.fewest_steps == env.num_steps:
        return (batch_size,)
    return tuple(w for w in (batch_size, batch_size // 2, batch_size // 4) if w >= 4) or (
        batch_size,
    )


def _pack(env: Environment, carry: _Rollout, width: int) -> _Rollout:
    """Move the lanes that still run to the front, and keep `width` of them going.

    Noise moves along: when lanes are packed depends on the other samplers of a `vmap`, and
    must not show in what is drawn.
    """
    # Lanes that an earlier packing left behind have all ended.
    ended = jax.vmap(env.is_terminal)(carry.state)
    ended = jnp.pad(ended, (0, carry.owner.shape[0] - ended.shape[0]), constant_values=True)
    order = jnp.argsort(ended, stable=True)
    noise, states, actions = jax.tree.map(
        lambda leaf: leaf[:, order], (carry.noise, carry.states, carry.actions)
    )
    state = jax.tree.map(lambda leaf: leaf[order[:width]], carry.state)
    return _Rollout(carry.t, carry.running, carry.owner[order], noise, state, states, actions)


def _unpack(env: Environment, carry: _Rollout) -> Trajectory:
    """Lanes back in order, ends repeated to the horizon."""
    order = jnp.argsort(carry.owner)
    states, actions = jax.tree.map(
        lambda leaf: leaf[order], _swapped((carry.states, carry.actions))
    )
    ended = jax.vmap(jax.vmap(env.is_terminal))(states)
    # Rows after the end may never have been written: the first terminal state is the end.
    length = jnp.argmax(ended, axis=1)[:, None]
    nodes = jnp.arange(ended.shape[1])
    lane = jnp.arange(ended.shape[0])[:, None]
    return Trajectory(
        states=jax.tree.map(lambda leaf: leaf[lane, jnp.minimum(nodes, length)], states),
        actions=actions,
        mask=nodes[:-1] < length,
    )


def _where(condition: Bool[Array, ""], yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _broadcast(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape + jnp.shape(leaf)), tree)


def _row(leaf: Array, t: Int[Array, ""]) -> Array:
    return lax.dynamic_index_in_dim(leaf, t, keepdims=False)


def _swapped(tree: PyTree) -> PyTree:
    """Time and batch, the first two axes, the other way round."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tree)


def _write_row(buffer: PyTree, rows: PyTree, t: Int[Array, ""] | int) -> PyTree:
    """Write [width, ...] at time t into the first lanes of [T, B, ...]."""
    return jax.tree.map(
        lambda b, r: lax.dynamic_update_slice_in_dim(b, r[None], t, axis=0), buffer, rows
    )
