"""DNA of eight bases that a transcription factor binds to."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from .. import datasets
from ._continuous import constant
from ._strings import RewardLaw, StringTarget, facts_of, table_value


class TFBind8(StringTarget):
    r"""DNA of eight bases, valued by how strongly the factor SIX6 binds to it.

    $$R(x) = \max\big(r\,(\max(v(x), 10^{-3}) / \max v)^\beta,\, 10^{-20}\big)$$

    v is the measured E-score of all 65,536 strings, between 0 and 1. Modes are 328 strings, half a
    per cent: taken from the best downwards, without those next to one that is taken already.

    **Arguments:** `beta` > 0; `max_reward` r > 0.

    A sample x is a string of A, C, G, T as 0, 1, 2, 3, int32 [8].

    **Errors:** `didact.datasets.MissingData` until `didact data fetch tfbind8` has been run.

    References: Barrera et al. (2016), "Survey of variation in human transcription factors reveals
    prevalent DNA binding changes"; Sinai et al. (2020), "AdaLead"; Kim et al. (2025), "Adaptive
    teachers for amortized samplers".
    """

    beta: float = eqx.field(static=True)
    max_reward: float = eqx.field(static=True)
    law: RewardLaw = eqx.field(static=True)
    log_z: float = eqx.field(static=True)
    expected_value: float = eqx.field(static=True)
    values: Float[Array, " states"]
    mode_numbers: Int[Array, " modes"]

    def __init__(self, beta: float = 20.0, max_reward: float = 10.0):
        self.beta = float(beta)
        self.max_reward = float(max_reward)
        arrays = datasets.load("tfbind8")
        values = arrays["rewards"].astype(np.float64)
        self.law = RewardLaw(self.beta, self.max_reward, float(values.max()), 1e-20, adds=False)
        self.log_z, self.expected_value = facts_of(self.law, [values])
        self.values = constant(values)
        self.mode_numbers = jnp.asarray(np.sort(arrays["modes"]))

    @property
    def alphabet(self) -> str:
        """The base of each digit."""
        return "ACGT"

    @property
    def blocks(self) -> None:
        """Letters stand for themselves."""
        return None

    @property
    def length(self) -> int:
        """8."""
        return 8

    def value(self, x: Integer[Array | np.ndarray, "*batch length"]) -> Float[Array, "*batch"]:
        """v of strings, given by the numbers of their bases."""
        return table_value(self.values, x, self.num_symbols, self.length)
