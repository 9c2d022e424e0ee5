"""A target whose reward is computed outside JAX."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import require
from .._host import (
    Counters,
    Evaluator,
    HostError,
    Settings,
    address_of,
    evaluator,
    is_importable,
    version_of,
)
from .._types import Sample, Target

_LOWEST_SCORE = 1e-6


class HostRewards(NamedTuple):
    """Log-rewards of a batch of objects.

    `objects`: as the function takes them; `keys`: equal for equal objects; `failures`: by position,
    why an object was set aside, whose log-reward is then that of the floor.
    """

    objects: list[str] | np.ndarray
    log_reward: Float[np.ndarray, " n"]
    keys: list[str | bytes]
    failures: dict[int, str]


class HostReward(Target):
    r"""A reward that a Python function computes outside JAX: slow, perhaps, or prone to fail.

    $$\log R(x) = \beta \log\max(\text{score}(x), \text{floor})$$

    Each object is scored once: scores are kept on disk, for the next run too. An object on which
    the function raises, hangs, dies or returns nothing finite is tried once more alone and then set
    aside, with the log-reward of the floor; training goes on, and the run lists it in
    `failures.jsonl`. Training asks for the rewards of a batch between two compiled programs, in
    one call for all seeds. `log_reward` itself can be used in any program of JAX's, and calls the
    host from there.

    ```python
    target = didact.targets.HostReward(reward.score, alphabet="ACGT", beta=3.0, workers=8)
    ```

    **Arguments:** `score_fn`: a list of strings, or without an alphabet an array [n, ...] of
    objects, -> n scores, finite and >= 0; `alphabet`: a symbol for each number in x, which is
    then int [length]; `beta` > 0: the inverse temperature; `floor`: the lowest score that counts,
    > 0 (None: 1e-6); `returns`: "log_reward" for a function of logarithms, for which
    $\log R(x) = \beta\max(\text{score}(x), \text{floor})$ and `floor` must be given; `log_z`: log
    of the sum of R, if you know it.

    How the function is called is no part of the target: `workers`: processes that call it, each
    with an interpreter of its own, 0 calls it here, where nothing guards against a function that
    hangs or ends the process; `timeout`: most seconds that a call by a worker may take (None: any
    number); `call_size`: most objects of a call; `cache`: the folder of the scores, True for the
    user's cache folder, False to keep them in memory. `cache_key` names the version of the
    function that scores belong to (None: they are of the program in its module and in those beside
    it that this one imports; what it reads from files or imports from elsewhere is not looked at).

    **Errors:** `ValueError` for arguments that cannot be; and on evaluation where what the
    function returns is not one number for each object, or where it has failed on everything for
    some time.
    """

    score_fn: Callable[[Any], Sequence[float]] = eqx.field(static=True)
    alphabet: str | tuple[str, ...] | None = eqx.field(static=True, default=None)
    beta: float = eqx.field(static=True, default=1.0)
    floor: float | None = eqx.field(static=True, default=None)
    returns: Literal["score", "log_reward"] = eqx.field(static=True, default="score")
    log_z: float | None = eqx.field(static=True, default=None)
    num_modes: None = eqx.field(static=True, init=False, default=None)
    workers: int = eqx.field(static=True, default=0)
    timeout: float | None = eqx.field(static=True, default=None)
    call_size: int = eqx.field(static=True, default=256)
    cache: str | bool = eqx.field(
        static=True, default=True, converter=lambda c: c if isinstance(c, bool) else os.fspath(c)
    )
    cache_key: str | None = eqx.field(static=True, default=None)

    execution: ClassVar[tuple[str, ...]] = ("workers", "timeout", "call_size", "cache")
    """Arguments that make no other target."""

    def __check_init__(self):
        if self.returns not in ("score", "log_reward"):
            raise ValueError(f"returns must be 'score' or 'log_reward', got {self.returns!r}.")
        require("beta", self.beta, above=0)
        require("workers", self.workers, at_least=0)
        require("timeout", self.timeout, above=0)
        require("call_size", self.call_size, at_least=1)
        if self.returns == "score":
            require("floor", self.floor, above=0)
        elif self.floor is None:
            raise ValueError(
                "a function of log-rewards needs a floor: the log-reward of objects that it fails "
                "on, and the lowest that counts."
            )
        for name in ("beta", "floor", "timeout"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}.")
        if self.alphabet is not None and (
            len(set(self.alphabet)) < len(self.alphabet) or "" in tuple(self.alphabet)
        ):
            raise ValueError(f"the symbols of an alphabet must differ, got {self.alphabet!r}.")
        self._check_calls()

    def _check_calls(self) -> None:
        try:
            hash(self.score_fn)
        except TypeError as error:
            raise ValueError("score_fn must be hashable: give a function of a module.") from error
        if self.timeout is not None and self.workers == 0:
            raise ValueError("only workers can be stopped at a timeout: give workers >= 1.")
        if self.workers and (
            self.score_fn.__module__ == "__main__" or not is_importable(self.score_fn)
        ):
            raise ValueError(
                f"workers must import {address_of(self.score_fn)} by its name: define it at the "
                "top of a module of its own, or use workers=0."
            )
        if self.cache is not False:
            version_of(self.score_fn, self.cache_key)

    @property
    def num_symbols(self) -> int | None:
        """Of the alphabet, where there is one."""
        return None if self.alphabet is None else len(self.alphabet)

    @property
    def version(self) -> str | None:
        """A digest of the program of `score_fn`, or of its `cache_key`; None if it is unknown."""
        return self._evaluator.version

    @property
    def counters(self) -> Counters:
        """What has been evaluated in this process, by all targets of these arguments."""
        return self._evaluator.counters

    @property
    def error(self) -> HostError | None:
        """Why the function could not be used, the last time that it could not."""
        return self._evaluator.error

    def rewards(self, x: Sample) -> HostRewards:
        """The log-rewards of a batch of objects [n, ...], as NumPy arrays.

        **Errors:** `ValueError` as above, or where an object is not what `score_fn` takes.
        """
        objects = self.decode(x)
        scores = self._evaluator(objects)
        lowest = _LOWEST_SCORE if self.floor is None else self.floor
        values = np.fmax(scores.values, lowest)  # of NaN and a number, the number
        log = np.log(values) if self.returns == "score" else values
        log_reward = (self.beta * log).astype(jnp.result_type(float))
        return HostRewards(objects, log_reward, scores.keys, scores.failures)

    def decode(self, x: Sample) -> list[str] | np.ndarray:
        """A batch of objects as `score_fn` takes them."""
        if not isinstance(x, jax.Array | np.ndarray):
            raise ValueError("a HostReward is of objects that are arrays: use didact.ask and tell.")
        x = np.asarray(x)
        if self.alphabet is None:
            return x
        symbols = np.asarray(
            self.alphabet if isinstance(self.alphabet, tuple) else [*self.alphabet]
        )
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
            raise ValueError(
                f"an alphabet is for objects that are numbers of symbols, int [length]; these are "
                f"{x.dtype} {list(x.shape[1:])}."
            )
        if x.size and not 0 <= x.min() <= x.max() < len(symbols):
            raise ValueError(
                f"an object holds numbers from {x.min()} to {x.max()}, and the alphabet has "
                f"{len(symbols)} symbols: give one for each number."
            )
        return ["".join(word) for word in symbols[x].tolist()]

    def close(self) -> None:
        """End the workers; they start again when they are needed."""
        self._evaluator.close()

    def log_reward(self, x: Sample) -> Float[Array, ""]:
        """log R(x), in nats. It has no gradient."""
        result = jax.ShapeDtypeStruct((), jnp.result_type(float))
        ask = _OnHost(self, jnp.ndim(x))

        @jax.custom_jvp
        def call(x: Array) -> Array:
            # Under `vmap` this is one call for the whole batch.
            return jax.pure_callback(ask, result, x, vmap_method="expand_dims")

        call.defjvp(_no_gradient)
        return call(x)

    def mode_index(self, x: Sample) -> Int[Array, ""]:
        """-1: no modes are defined."""
        return jnp.asarray(-1, jnp.int32)

    @property
    def _evaluator(self) -> Evaluator:
        return evaluator(
            Settings(
                **{field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
            )
        )


@dataclasses.dataclass(frozen=True)
class _OnHost:
    """The log-rewards of objects, with any number of leading axes. Only NumPy: a callback that
    makes JAX compute can wait for itself.
    """

    target: HostReward
    ndim: int

    def __call__(self, x: Array | np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        batch = x.shape[: x.ndim - self.ndim]
        flat = x.reshape(math.prod(batch), *x.shape[len(batch) :])
        return self.target.rewards(flat).log_reward.reshape(batch)


def _no_gradient(*_: object) -> NoReturn:
    raise ValueError(
        "the gradient of a HostReward was asked for, and a function outside JAX has none: use an "
        "objective, a behaviour and a network that do without, or didact.targets.FromFunction."
    )
