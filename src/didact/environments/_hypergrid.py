"""The hypergrid: walks from a corner of {0, ..., side-1}^dim, one coordinate up at a time."""

import operator

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._kernels import Categorical
from .._types import EnumerableEnvironment, SiteEnvironment
from ._sites import with_another_value


class HypergridState(eqx.Module):
    """A position, and whether the walk stopped there of its own accord."""

    position: Int[Array, " dim"]
    stopped: Bool[Array, ""]


class Hypergrid(EnumerableEnvironment, SiteEnvironment):
    """The hypergrid of Bengio et al. (2021), with the border rule of Kim et al. (2025).

    From position 0, action i < `dim` adds 1 to coordinate i and action `dim` stops. A move
    that brings a coordinate to `side`-1 ends the trajectory by itself, so a terminal
    position has at most one coordinate there: (side-1)^dim + dim·(side-1)^(dim-1) of them.
    P_B is uniform over the parents. A parent must not be terminal, so a position on the
    border has exactly one: the one below in the border coordinate.

    **Arguments:** `dim` >= 1; `side` >= 2, the number of values of a coordinate.

    A sample x is a position, int32 [dim].
    """

    dim: int = eqx.field(static=True)
    side: int = eqx.field(static=True)

    def __init__(self, dim: int, side: int):
        dim, side = operator.index(dim), operator.index(side)
        if dim < 1:
            raise ValueError(f"A hypergrid needs dim >= 1, got {dim}.")
        if side < 2:
            raise ValueError(f"A hypergrid needs side >= 2, got {side}.")
        self.dim = dim
        self.side = side

    @property
    def num_steps(self) -> int:
        """Longest trajectory: all coordinates to side-2, then one edge more."""
        return self.dim * (self.side - 2) + 1

    @property
    def fewest_steps(self) -> int:
        """Stopping at once, or a first step that reaches the border."""
        return 1

    @property
    def feature_size(self) -> int:
        """Length of the one-hot code of a position."""
        return self.dim * self.side

    @property
    def forward_size(self) -> int:
        """One logit an action."""
        return self.num_actions

    @property
    def backward_size(self) -> int:
        """One logit an action."""
        return self.num_actions

    @property
    def num_actions(self) -> int:
        """One a coordinate, and stop."""
        return self.dim + 1

    @property
    def num_internal(self) -> int:
        """Positions from which the walk goes on."""
        return (self.side - 1) ** self.dim

    @property
    def num_terminal_states(self) -> int:
        """Stops anywhere inside, and the border cells."""
        return self.num_internal + self.dim * self._face

    @property
    def _face(self) -> int:
        return (self.side - 1) ** (self.dim - 1)

    def initial_state(self) -> HypergridState:
        """Position 0, walking."""
        return HypergridState(jnp.zeros(self.dim, jnp.int32), jnp.asarray(False))

    def terminal_state(self, x: Int[Array, " dim"]) -> HypergridState:
        """Stopped at x, or at the border there."""
        x = jnp.asarray(x, jnp.int32)
        return HypergridState(x, ~self._on_border(x))

    def sample_of(self, state: HypergridState) -> Int[Array, " dim"]:
        """The position."""
        return state.position

    def is_initial(self, state: HypergridState) -> Bool[Array, ""]:
        """Whether the walk has not begun."""
        return jnp.all(state.position == 0) & ~state.stopped

    def is_terminal(self, state: HypergridState) -> Bool[Array, ""]:
        """Whether it stopped or reached the border."""
        return state.stopped | self._on_border(state.position)

    def step(self, state: HypergridState, action: Int[Array, ""]) -> HypergridState:
        """One coordinate up, or stop."""
        return HypergridState(state.position + self._unit(action), action == self.dim)

    def backward_step(self, state: HypergridState, action: Int[Array, ""]) -> HypergridState:
        """One coordinate down, or walk on from a stop."""
        return HypergridState(state.position - self._unit(action), jnp.asarray(False))

    def features(self, state: HypergridState) -> Int[Array, " dim"]:
        """Indices of the ones in the one-hot code of the position."""
        return state.position + self.side * jnp.arange(self.dim, dtype=jnp.int32)

    def log_reference(self, state: HypergridState) -> Float[Array, ""]:
        """0."""
        return jnp.zeros(())

    def forward_kernel(
        self, state: HypergridState, params: Float[Array, " actions"]
    ) -> Categorical:
        """Every action is allowed until the walk ends."""
        allowed = jnp.broadcast_to(~self.is_terminal(state), (self.num_actions,))
        return Categorical(params, allowed)

    def backward_kernel(
        self, state: HypergridState, params: Float[Array, " actions"] | None
    ) -> Categorical:
        """Uniform over the parents where `params` is None."""
        down = jnp.where(
            self._on_border(state.position),
            state.position == self.side - 1,
            state.position > 0,
        )
        parents = jnp.append(down & ~state.stopped, state.stopped)
        return Categorical(jnp.zeros(self.num_actions) if params is None else params, parents)

    def mutate(self, key: PRNGKeyArray, x: Int[Array, " dim"]) -> Int[Array, " dim"]:
        """The position with another value of one coordinate: no second one reaches the border."""
        x = jnp.asarray(x, jnp.int32)
        border = (x == self.side - 1).astype(jnp.int32)
        taken = jnp.sum(border) - border  # by another coordinate
        return with_another_value(key, x, self.side - jnp.minimum(taken, 1))

    def depth(self, state: HypergridState) -> Int[Array, ""]:
        """Sum of the coordinates, and 1 for a stop."""
        return jnp.sum(state.position, dtype=jnp.int32) + state.stopped

    def state_at(self, index: Int[Array, ""]) -> HypergridState:
        """Positions in mixed radix: walking, then stopped, then on the border face by face."""
        inner, face = self.num_internal, self._face
        border = index >= 2 * inner
        stopped = (index >= inner) & ~border
        offset = jnp.where(border, index - 2 * inner, index % inner)
        inside = self._digits(offset, self.dim)
        axis = offset // face
        others = self._digits(offset % face, self.dim - 1)
        column = jnp.arange(self.dim)
        # Put side-1 at `axis` and the other coordinates around it, in order.
        shifted = jnp.pad(others, (1, 0))
        around = jnp.where(column < axis, jnp.pad(others, (0, 1)), shifted)
        on_border = jnp.where(column == axis, self.side - 1, around)
        return HypergridState(jnp.where(border, on_border, inside), stopped)

    def index_of(self, state: HypergridState) -> Int[Array, ""]:
        """The inverse of `state_at`."""
        inner, face = self.num_internal, self._face
        at_border = state.position == self.side - 1
        border = jnp.any(at_border)
        axis = jnp.argmax(at_border)
        column = jnp.arange(self.dim - 1)
        others = state.position[column + (column >= axis)]
        on_border = 2 * inner + axis * face + self._number(others)
        inside = self._number(jnp.minimum(state.position, self.side - 2)) + inner * state.stopped
        return jnp.where(border, on_border, inside).astype(jnp.int32)

    def _on_border(self, position: Int[Array, " dim"]) -> Bool[Array, ""]:
        return jnp.any(position == self.side - 1)

    def _unit(self, action: Int[Array, ""]) -> Int[Array, " dim"]:
        return (jnp.arange(self.dim) == action).astype(jnp.int32)

    def _radix(self, size: int) -> Int[Array, " size"]:
        return jnp.asarray([(self.side - 1) ** k for k in reversed(range(size))], jnp.int32)

    def _digits(self, number: Int[Array, ""], size: int) -> Int[Array, " size"]:
        return (number // self._radix(size)) % (self.side - 1)

    def _number(self, digits: Int[Array, " size"]) -> Int[Array, ""]:
        return jnp.sum(digits * self._radix(digits.shape[0]), dtype=jnp.int32)


def published_backward_kernel(
    environment: Hypergrid, state: HypergridState, params: Float[Array, " actions"] | None
) -> Categorical:
    """P_B as the published grid experiments score it: uniform over all non-zero coordinates,
    also on the border, where all but one of these parents cannot be left.

    For scoring only, to reproduce the published fixed point R(x) / #non-zero coordinates at
    border cells (total variation 0.1245 from the target at dim 4, side 16). Do not sample
    from it.
    """
    walking = (state.position > 0) & ~state.stopped
    parents = jnp.append(walking, state.stopped)
    logits = jnp.zeros(environment.num_actions) if params is None else params
    return Categorical(logits, parents)
