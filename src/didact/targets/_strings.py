"""What the targets on strings share: the training reward of a value, and where the modes are."""

import abc
import dataclasses
import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Float64, Int, Int32, Integer

from .. import datasets
from .._blocks import Blocks
from .._types import Target
from ._continuous import constant, require_positive

LEAST_VALUE = 1e-3
"""Lower values count as this one."""


@dataclasses.dataclass(frozen=True)
class RewardLaw:
    r"""The training reward of a string whose value is v, in logarithms.

    $$R = \lfloor r\,(\max(v, 10^{-3}) / v_{\max})^\beta \rfloor$$

    with a floor that keeps the logarithm from falling without end, either added to the reward or
    a lower bound of it.

    **Arguments:** `beta`; `max_reward` r of the best value; `max_value` of v; `floor`, `adds`:
    whether it is added.
    """

    beta: float
    max_reward: float
    max_value: float
    floor: float
    adds: bool

    def __post_init__(self):
        require_positive("beta", self.beta)
        require_positive("max_reward", self.max_reward)

    def log_reward(self, value: Any, xp: ModuleType = jnp) -> Any:
        """log R of values, with `xp` (NumPy or its likeness) in the precision of the values."""
        share = xp.maximum(value, LEAST_VALUE) / self.max_value
        log_reward = self.beta * xp.log(share) + math.log(self.max_reward)
        combine = xp.logaddexp if self.adds else xp.maximum
        return combine(log_reward, math.log(self.floor))

    @property
    def log_scale(self) -> float:
        """Logarithm of what the power of the value is multiplied by: log r - beta log max v."""
        return math.log(self.max_reward) - self.beta * math.log(self.max_value)


class Facts(NamedTuple):
    """What follows from the values of all strings."""

    log_z: float
    expected_value: float


def facts_of(law: RewardLaw, values: Iterable[Float64[np.ndarray, "..."]]) -> Facts:
    """log Z and the expected value under R/Z, from the values of all strings in blocks."""
    # Relative to the largest reward, which is near r: nothing overflows.
    total = weighted = 0.0
    for block in values:
        weight = np.exp(law.log_reward(block, np) - math.log(law.max_reward))
        total += float(weight.sum())
        weighted += float(np.sum(weight * np.maximum(block, LEAST_VALUE)))
    return Facts(math.log(total) + math.log(law.max_reward), weighted / total)


class StringTarget(Target):
    """A target on strings of one length whose reward follows from a value of each.

    A string is the vector of its digits, int32 [length]; its number is that with these digits in
    base `num_symbols`, the first of them counting most.

    **Errors:** `ValueError` from every method for digits that no letter has. Inside a program of
    JAX's, where no error can be raised, the value of such a string and its log R are NaN, at which
    training stops, and it is no mode.
    """

    beta: eqx.AbstractVar[float]
    max_reward: eqx.AbstractVar[float]
    alphabet: eqx.AbstractVar[str]
    """The letter of each digit."""
    length: eqx.AbstractVar[int]
    """Letters of a string."""
    blocks: eqx.AbstractVar[Blocks | None]
    """What the letters stand for, where they are blocks of molecules."""
    law: eqx.AbstractVar[RewardLaw]
    expected_value: eqx.AbstractVar[float]
    """Expectation of max(v, 1e-3) under R/Z."""
    mode_numbers: eqx.AbstractVar[Int[Array, " modes"]]
    """Numbers of the strings that are modes, ascending."""

    @abc.abstractmethod
    def value(self, x: Integer[Array | np.ndarray, "*batch length"]) -> Float[Array, "*batch"]:
        """v of strings, given by their digits."""

    @property
    def num_symbols(self) -> int:
        """Letters of the alphabet."""
        return len(self.alphabet)

    @property
    def num_modes(self) -> int:
        """Number of strings that are modes; each is a mode of its own."""
        return self.mode_numbers.shape[0]

    def modes(self) -> Int32[np.ndarray, " num_modes"]:
        """Numbers of all modes, sorted."""
        return np.asarray(self.mode_numbers)

    @property
    def max_value(self) -> float:
        """The largest v."""
        return self.law.max_value

    @property
    def log_scale(self) -> float:
        """log R = log_scale + beta log v where the floor does not matter."""
        return self.law.log_scale

    def log_reward(self, x: Int[Array, " length"]) -> Float[Array, ""]:
        """log R of a string, in nats."""
        require_string(x, self.length)
        return self.law.log_reward(self.value(x))

    def mode_index(self, x: Int[Array, " length"]) -> Int[Array, ""]:
        """Number of the mode that x is, in the order of the strings; -1 if it is none."""
        require_string(x, self.length)
        require_digits(x, self.num_symbols)
        number = number_of(x, self.num_symbols)
        place = jnp.searchsorted(self.mode_numbers, number).astype(jnp.int32)
        place = jnp.minimum(place, self.num_modes - 1)
        found = (self.mode_numbers[place] == number) & are_digits(x, self.num_symbols)
        return jnp.where(found, place, -1)


def require_string(x: Int[Array, "..."], length: int) -> None:
    """`ValueError` unless x is one string: broadcasting would hide a wrong shape."""
    if jnp.shape(x) != (length,):
        raise ValueError(f"x must have shape ({length},), got {jnp.shape(x)}.")


def require_strings(x: Integer[Array | np.ndarray, "..."], length: int) -> None:
    """`ValueError` unless the last axis of x is that of strings."""
    if jnp.shape(x)[-1:] != (length,):
        raise ValueError(f"strings must have {length} digits, got an array of {jnp.shape(x)}.")


def require_digits(x: Integer[Array | np.ndarray, "..."], num_symbols: int) -> None:
    """`ValueError` for digits that no letter has. In a program of JAX's nobody can look at them:
    there `are_digits` tells.
    """
    if isinstance(x, Tracer):
        return
    digits = np.asarray(x)
    if digits.size and not (digits.min() >= 0 and digits.max() < num_symbols):
        raise ValueError(
            f"the digits of strings are 0 to {num_symbols - 1}, got {digits.min()} to "
            f"{digits.max()}."
        )


def are_digits(
    x: Integer[Array | np.ndarray, "*batch length"], num_symbols: int
) -> Bool[Array, "*batch"]:
    """Whether all digits of strings are those of letters."""
    return jnp.all((x >= 0) & (x < num_symbols), axis=-1)


def strings_of(
    numbers: Integer[np.ndarray, " n"], num_symbols: int, length: int
) -> Int32[np.ndarray, "n length"]:
    """The strings with given numbers: the inverse of `number_of`, on the host."""
    places = num_symbols ** np.arange(length, dtype=np.int64)[::-1]
    return (numbers.astype(np.int64)[:, None] // places % num_symbols).astype(np.int32)


def number_of(
    x: Integer[Array | np.ndarray, "*batch length"], num_symbols: int
) -> Int[Array, "*batch"]:
    """Numbers of strings, below 2^31."""
    places = num_symbols ** np.arange(x.shape[-1], dtype=np.int32)[::-1]
    return jnp.sum(jnp.asarray(x) * places, axis=-1, dtype=jnp.int32)


class TableTarget(StringTarget):
    """A target whose values are a table over all strings, from `didact.datasets`.

    **Arguments:** `beta` > 0; `max_reward` > 0 (None: the paper's).
    """

    data: eqx.AbstractClassVar[str]
    """The name of the data set."""
    paper: eqx.AbstractClassVar[float]
    """The paper's largest reward."""
    floor: eqx.AbstractClassVar[float]
    adds: eqx.AbstractClassVar[bool]
    """The floor of the reward, and whether it is added: see `RewardLaw`."""

    beta: float = eqx.field(static=True)
    max_reward: float = eqx.field(static=True)
    law: RewardLaw = eqx.field(static=True)
    log_z: float = eqx.field(static=True)
    expected_value: float = eqx.field(static=True)
    values: Float[Array, " states"]
    mode_numbers: Int[Array, " modes"]

    def __init__(self, beta: float = 20.0, max_reward: float | None = None):
        self.beta = float(beta)
        self.max_reward = float(self.paper if max_reward is None else max_reward)
        arrays = datasets.load(self.data)
        values = arrays["rewards"].astype(np.float64)
        most = float(values.max())
        self.law = RewardLaw(self.beta, self.max_reward, most, self.floor, self.adds)
        self.log_z, self.expected_value = facts_of(self.law, [values])
        self.values = constant(values)
        self.mode_numbers = jnp.asarray(np.sort(arrays["modes"]))

    def value(self, x: Integer[Array | np.ndarray, "*batch length"]) -> Float[Array, "*batch"]:
        """v of strings, given by their digits."""
        require_strings(x, self.length)
        require_digits(x, self.num_symbols)
        values = self.values.at[number_of(x, self.num_symbols)].get(mode="clip")
        return jnp.where(are_digits(x, self.num_symbols), values, jnp.nan)
