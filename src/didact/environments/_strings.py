"""Strings of a fixed length, built symbol by symbol."""

import abc
import operator

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._checks import require
from .._kernels import Categorical
from .._types import EnumerableEnvironment, SiteEnvironment
from ._sites import with_another_value


class StringState(eqx.Module):
    """The first `length` of `symbols` are there; those beyond are 0 and mean nothing."""

    symbols: Int[Array, " length"]
    length: Int[Array, ""]


class Strings(EnumerableEnvironment, SiteEnvironment):
    """What environments of strings share: their states and the numbers of these.

    The states are the strings of up to `length` symbols, the initial one is empty, those of
    `length` symbols are terminal. A sample x is int32 [length], numbers of symbols below
    `num_symbols`. In the numbering of states, shorter strings come first and those of one length
    in lexicographic order.
    """

    num_symbols: eqx.AbstractVar[int]
    length: eqx.AbstractVar[int]

    @property
    def grows_in_front(self) -> bool:
        """Whether the first `num_symbols` actions prepend a symbol. The last always append one."""
        return self.num_actions > self.num_symbols

    @property
    def num_steps(self) -> int:
        """One edge a symbol."""
        return self.length

    @property
    def fewest_steps(self) -> int:
        """One edge a symbol."""
        return self.length

    @property
    def feature_size(self) -> int:
        """A word for each symbol in each place, and one for a place that is empty."""
        return self.length * self.num_symbols + 1

    @property
    def forward_size(self) -> int:
        """One logit an action."""
        return self.num_actions

    @property
    def backward_size(self) -> int:
        """One logit an action."""
        return self.num_actions

    @property
    def num_internal(self) -> int:
        """The strings that are shorter than `length`."""
        return sum(self.num_symbols**n for n in range(self.length))

    @property
    def num_terminal_states(self) -> int:
        """All strings of `length` symbols."""
        return self.num_symbols**self.length

    def initial_state(self) -> StringState:
        """The empty string."""
        return StringState(jnp.zeros(self.length, jnp.int32), jnp.asarray(0, jnp.int32))

    def terminal_state(self, x: Int[Array, " length"]) -> StringState:
        """The string itself."""
        return StringState(jnp.asarray(x, jnp.int32), jnp.asarray(self.length, jnp.int32))

    def sample_of(self, state: StringState) -> Int[Array, " length"]:
        """The symbols."""
        return state.symbols

    def is_initial(self, state: StringState) -> Bool[Array, ""]:
        """Whether the string is empty."""
        return state.length == 0

    def is_terminal(self, state: StringState) -> Bool[Array, ""]:
        """Whether the string is complete."""
        return state.length == self.length

    def features(self, state: StringState) -> Int[Array, " length"]:
        """Indices of the ones in the one-hot code of the string; places that are still empty share
        the last.
        """
        place = jnp.arange(self.length, dtype=jnp.int32)
        word = state.symbols + self.num_symbols * place
        return jnp.where(place < state.length, word, self.length * self.num_symbols)

    def log_reference(self, state: StringState) -> Float[Array, ""]:
        """0."""
        return jnp.zeros(())

    def mutate(self, key: PRNGKeyArray, x: Int[Array, " length"]) -> Int[Array, " length"]:
        """The string with another symbol in one place."""
        x = jnp.asarray(x, jnp.int32)
        return with_another_value(key, x, jnp.full(self.length, self.num_symbols))

    def depth(self, state: StringState) -> Int[Array, ""]:
        """The length of the string."""
        return state.length

    def state_at(self, index: Int[Array, ""]) -> StringState:
        """The string with a number."""
        index = jnp.asarray(index, jnp.int32)
        first = jnp.asarray(self._first_numbers(), jnp.int32)
        length = jnp.sum(index >= first, dtype=jnp.int32) - 1
        # The digits of the number among strings of its length, least significant last.
        place = jnp.arange(self.length)
        power = jnp.asarray([self.num_symbols**k for k in range(self.length)], jnp.int32)
        exponent = length - 1 - place
        digit = (index - first[length]) // power[jnp.maximum(exponent, 0)] % self.num_symbols
        return StringState(jnp.where(exponent >= 0, digit, 0), length)

    def index_of(self, state: StringState) -> Int[Array, ""]:
        """The inverse of `state_at`."""
        first = jnp.asarray(self._first_numbers(), jnp.int32)
        power = jnp.asarray([self.num_symbols**k for k in range(self.length)], jnp.int32)
        exponent = state.length - 1 - jnp.arange(self.length)
        digit = jnp.where(exponent >= 0, state.symbols, 0)
        number = jnp.sum(digit * power[jnp.maximum(exponent, 0)], dtype=jnp.int32)
        return first[state.length] + number

    def _first_numbers(self) -> list[int]:
        """The number of the first string of each length."""
        starts = [sum(self.num_symbols**k for k in range(n)) for n in range(self.length + 1)]
        if starts[-1] + self.num_terminal_states > 2**31:
            raise ValueError(
                f"{self.num_symbols} symbols make too many strings of length {self.length} to be "
                "numbered: there are 2^31 numbers."
            )
        return starts

    @abc.abstractmethod
    def forward_mask(self, state: StringState) -> Bool[Array, " actions"]:
        """The actions that are edges out of a string, each child by one of them."""

    @abc.abstractmethod
    def backward_mask(self, state: StringState) -> Bool[Array, " actions"]:
        """The actions that are edges into a string, each parent by one of them."""

    def forward_kernel(self, state: StringState, params: Float[Array, " actions"]) -> Categorical:
        """Over the distinct children."""
        return Categorical(params, self.forward_mask(state))

    def backward_kernel(
        self, state: StringState, params: Float[Array, " actions"] | None
    ) -> Categorical:
        """Uniform over the distinct parents where `params` is None."""
        logits = jnp.zeros(self.num_actions) if params is None else params
        return Categorical(logits, self.backward_mask(state))


def _check(num_symbols: int, length: int) -> tuple[int, int]:
    num_symbols, length = operator.index(num_symbols), operator.index(length)
    require("num_symbols", num_symbols, at_least=1)
    require("length", length, at_least=1)
    return num_symbols, length


class PrependAppend(Strings):
    r"""Strings that grow at both ends (the prepend/append MDP of Shen et al., "Towards
    understanding and improving GFlowNet training", 2023).

    Action a < A prepends symbol a, action A + a appends it, with A = `num_symbols`. Edges join
    strings: where both actions make the same string, which is so for s = aa…a and the symbol a
    alone (the empty string included), the edge is that of appending. P_B is uniform over the
    distinct parents, of which there are two, without the first or without the last symbol, but
    one where these are equal.

    **Arguments:** `num_symbols`, `length` >= 1.
    """

    num_symbols: int = eqx.field(static=True)
    length: int = eqx.field(static=True)

    def __init__(self, num_symbols: int, length: int):
        self.num_symbols, self.length = _check(num_symbols, length)

    @property
    def num_actions(self) -> int:
        """Each symbol in front and at the end."""
        return 2 * self.num_symbols

    def step(self, state: StringState, action: Int[Array, ""]) -> StringState:
        """Put a symbol in front or at the end."""
        prepends, symbol = action < self.num_symbols, action % self.num_symbols
        place = jnp.arange(self.length)
        # Beyond the last symbol stands 0, so rolling the string brings 0 to the front.
        in_front = jnp.roll(state.symbols, 1).at[0].set(symbol)
        at_end = jnp.where(place == state.length, symbol, state.symbols)
        symbols = jnp.where(prepends, in_front, at_end)
        return StringState(symbols, state.length + 1)

    def backward_step(self, state: StringState, action: Int[Array, ""]) -> StringState:
        """Take the symbol away."""
        prepended = action < self.num_symbols
        place = jnp.arange(self.length)
        without_first = jnp.roll(state.symbols, -1).at[-1].set(0)
        without_last = jnp.where(place == state.length - 1, 0, state.symbols)
        return StringState(jnp.where(prepended, without_first, without_last), state.length - 1)

    def forward_mask(self, state: StringState) -> Bool[Array, " actions"]:
        """All appends, and the prepends that make another string."""
        symbol = jnp.arange(self.num_symbols)
        same = self._is_constant(state) & ((symbol == state.symbols[0]) | (state.length == 0))
        open_ended = state.length < self.length
        return jnp.concatenate([~same, jnp.ones_like(same)]) & open_ended

    def backward_mask(self, state: StringState) -> Bool[Array, " actions"]:
        """The last symbol was appended, or the first prepended if that is another edge."""
        symbol = jnp.arange(self.num_symbols)
        prepended = (symbol == state.symbols[0]) & ~self._is_constant(state)
        appended = symbol == state.symbols[jnp.maximum(state.length - 1, 0)]
        return jnp.concatenate([prepended, appended]) & (state.length > 0)

    def _is_constant(self, state: StringState) -> Bool[Array, ""]:
        """Whether all symbols of a string are the same; so it is for the empty one."""
        beyond = jnp.arange(self.length) >= state.length
        return jnp.all(beyond | (state.symbols == state.symbols[0]))


class Autoregressive(Strings):
    """Strings that grow at their end alone: a tree, each string with one parent, so that
    log P_B = 0 and P_F is an autoregressive model.

    Action a appends symbol a.

    **Arguments:** `num_symbols`, `length` >= 1.
    """

    num_symbols: int = eqx.field(static=True)
    length: int = eqx.field(static=True)

    def __init__(self, num_symbols: int, length: int):
        self.num_symbols, self.length = _check(num_symbols, length)

    @property
    def num_actions(self) -> int:
        """One a symbol."""
        return self.num_symbols

    def step(self, state: StringState, action: Int[Array, ""]) -> StringState:
        """Put a symbol at the end."""
        here = jnp.arange(self.length) == state.length
        return StringState(jnp.where(here, action, state.symbols), state.length + 1)

    def backward_step(self, state: StringState, action: Int[Array, ""]) -> StringState:
        """Take the last symbol away."""
        here = jnp.arange(self.length) == state.length - 1
        return StringState(jnp.where(here, 0, state.symbols), state.length - 1)

    def forward_mask(self, state: StringState) -> Bool[Array, " actions"]:
        """Every symbol, until the string is complete."""
        return jnp.broadcast_to(state.length < self.length, (self.num_actions,))

    def backward_mask(self, state: StringState) -> Bool[Array, " actions"]:
        """The last symbol."""
        last = state.symbols[jnp.maximum(state.length - 1, 0)]
        return (jnp.arange(self.num_symbols) == last) & (state.length > 0)
