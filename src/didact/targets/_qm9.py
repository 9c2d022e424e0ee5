"""The molecules of QM9 as strings of five blocks."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from .. import datasets
from .._blocks import Blocks
from ._continuous import constant
from ._strings import RewardLaw, StringTarget, facts_of, table_value


class QM9(StringTarget):
    r"""Molecules of five blocks out of eleven, valued by a proxy of their HOMO-LUMO gap.

    $$R(x) = r\,(\max(v(x), 10^{-3}) / \max v)^\beta + 10^{-12}$$

    v is a table over all 161,051 strings. Modes are the best 805, half a per cent.

    **Arguments:** `beta` > 0; `max_reward` r > 0.

    A sample x is the numbers of the blocks, int32 [5]; `didact.datasets.blocks("qm9")` says what
    they are. A string and its mirror image may be the same molecule with two values, so the string
    is the object.

    **Errors:** `didact.datasets.MissingData` until `didact data fetch qm9` has been run.

    References: Shen et al. (2023), "Towards understanding and improving GFlowNet training"; Kim et
    al. (2025), "Adaptive teachers for amortized samplers".
    """

    beta: float = eqx.field(static=True)
    max_reward: float = eqx.field(static=True)
    law: RewardLaw = eqx.field(static=True)
    log_z: float = eqx.field(static=True)
    expected_value: float = eqx.field(static=True)
    values: Float[Array, " states"]
    mode_numbers: Int[Array, " modes"]

    def __init__(self, beta: float = 20.0, max_reward: float = 100.0):
        self.beta = float(beta)
        self.max_reward = float(max_reward)
        arrays = datasets.load("qm9")
        values = arrays["rewards"].astype(np.float64)
        self.law = RewardLaw(self.beta, self.max_reward, float(values.max()), 1e-12, adds=True)
        self.log_z, self.expected_value = facts_of(self.law, [values])
        self.values = constant(values)
        self.mode_numbers = jnp.asarray(np.sort(arrays["modes"]))

    @property
    def alphabet(self) -> str:
        """The digit of each block."""
        return "0123456789a"

    @property
    def blocks(self) -> Blocks:
        """What each digit stands for."""
        return datasets.blocks("qm9")

    @property
    def length(self) -> int:
        """5."""
        return 5

    def value(self, x: Integer[Array | np.ndarray, "*batch length"]) -> Float[Array, "*batch"]:
        """v of strings, given by the numbers of their blocks."""
        return table_value(self.values, x, self.num_symbols, self.length)
