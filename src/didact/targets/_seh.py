"""Binders of soluble epoxide hydrolase as strings of six blocks."""

import functools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64, Int, Integer, UInt32

from .. import datasets
from .._blocks import Blocks
from ..datasets import _trees
from ._continuous import constant
from ._strings import (
    LEAST_VALUE,
    Facts,
    RewardLaw,
    StringTarget,
    are_digits,
    facts_of,
    require_digits,
    require_strings,
)

_MAX_VALUE = 7.033253064721925
_BETA, _MAX_REWARD = 6.0, 10.0
_FACTS = Facts(log_z=17.552393997234994, expected_value=5.392749687957671)
"""Of all strings, for the values above; a test computes them again."""


class SEH(StringTarget):
    r"""Molecules of six blocks out of eighteen, valued by how well they should bind to soluble
    epoxide hydrolase.

    $$R(x) = \max\big(r\,(\max(v(x), 10^{-3}) / \max v)^\beta,\, 10^{-32}\big)$$

    v is the prediction of 100 boosted trees, for all 34,012,224 strings. Modes are 129 of the best
    0.01 per cent, whose molecules are pairwise more than 0.4 apart in Tanimoto distance.

    The published code trains on the same R but takes log Z and the expectation from the network
    that the trees were fitted to; here both belong to R.

    **Arguments:** `beta` > 0; `max_reward` r > 0. `log_z` and `expected_value` are known beforehand
    for the default of `beta`; for another one, asking for them takes the time of `table`.

    A sample x is the numbers of the blocks, int32 [6]; `didact.datasets.blocks("seh")` says what
    they are.

    **Errors:** `didact.datasets.MissingData` until `didact data fetch seh` has been run.

    References: Shen et al. (2023), "Towards understanding and improving GFlowNet training"; Kim et
    al. (2025), "Adaptive teachers for amortized samplers".
    """

    beta: float = eqx.field(static=True)
    max_reward: float = eqx.field(static=True)
    law: RewardLaw = eqx.field(static=True)
    words: UInt32[Array, "length symbols trees"]
    """For each letter at each place and each tree: the leaves it leaves possible, as bits."""
    leaf_values: Float[Array, "trees leaves"]
    baseline: Float[Array, ""]
    mode_numbers: Int[Array, " modes"]

    def __init__(self, beta: float = _BETA, max_reward: float = _MAX_REWARD):
        self.beta = float(beta)
        self.max_reward = float(max_reward)
        self.law = RewardLaw(self.beta, self.max_reward, _MAX_VALUE, 1e-32, adds=False)
        arrays = datasets.load("seh")
        num_trees = len(arrays["feature"])
        self.words = jnp.asarray(_trees.leaf_words(arrays["leaf_bits"], num_trees))
        self.leaf_values = constant(arrays["leaf_value"].reshape(num_trees, -1))
        self.baseline = constant(arrays["baseline"])
        self.mode_numbers = jnp.asarray(np.sort(arrays["modes"]))

    @property
    def alphabet(self) -> str:
        """The digit of each block."""
        return "0123456789abcdefgh"

    @property
    def blocks(self) -> Blocks:
        """What each digit stands for."""
        return datasets.blocks("seh")

    @property
    def length(self) -> int:
        """6."""
        return 6

    @property
    def log_z(self) -> float:
        """Logarithm of the sum of R over all strings, in nats."""
        return _facts(self.law).log_z

    @property
    def expected_value(self) -> float:
        """Expectation of max(v, 1e-3) under R/Z."""
        return _facts(self.law).expected_value

    def value(self, x: Integer[Array | np.ndarray, "*batch length"]) -> Float[Array, "*batch"]:
        """v of strings, given by the numbers of their blocks. In float32 to 1e-5."""
        require_strings(x, self.length)
        require_digits(x, self.num_symbols)
        words = self.words.at[jnp.arange(self.length), x].get(mode="clip")
        every = np.uint32(2**32 - 1)
        common = lax.reduce(words, every, lax.bitwise_and, (words.ndim - 2,))
        # One bit is left for each tree: the number of zeros below it is that of the leaf.
        leaf = lax.population_count(common - 1).astype(jnp.int32)
        trees = jnp.arange(leaf.shape[-1])
        found = self.leaf_values.at[trees, leaf].get(mode="promise_in_bounds")
        value = jnp.sum(found, axis=-1) + self.baseline
        return jnp.where(are_digits(x, self.num_symbols), value, jnp.nan)

    def table(self) -> Float64[np.ndarray, " states"]:
        """v of all strings in the order of their numbers, on the host, in float64.

        Exact up to rounding, about 1e-14. Takes about ten seconds on one core, and 0.7 GiB.
        """
        return _trees.table(datasets.load("seh"))


@functools.lru_cache(maxsize=16)
def _facts(law: RewardLaw) -> Facts:
    least = law.log_scale + law.beta * math.log(LEAST_VALUE)
    if law.beta == _BETA and least >= math.log(law.floor):  # where R is proportional to r
        log_ratio = math.log(law.max_reward / _MAX_REWARD)
        return Facts(_FACTS.log_z + log_ratio, _FACTS.expected_value)
    return facts_of(law, _trees.table_blocks(datasets.load("seh")))
