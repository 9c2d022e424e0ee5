"""The deceptive reward on the hypergrid."""

import math
import operator
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import ModalTarget

# In units of 1e-5, so that sums over the grid are exact integers.
_BASE, _VALLEY, _MODE, _UNIT = 10_001, -10_000, 200_000, 100_000
_MOST_LISTED = 1_000_000


class DeceptiveGrid(ModalTarget):
    r"""The deceptive grid of Kim et al. (2025): modes behind a valley of low reward.

    With $u_i = |2 s_i/(H-1) - 1|$,

    $$R(s) = 0.1 + 10^{-5} - 0.1\cdot 1[\text{all } u_i > 0.2]
    + 2\cdot 1[\text{all } 0.6 < u_i < 0.8].$$

    Terminal states are those of `didact.environments.Hypergrid`: at most one coordinate
    equals H-1.

    **Arguments:** `dim` >= 1; `side` = H >= 2; `convention`: "paper" compares as the
    published code does, in float64 with u computed as s/(H-1)*2-1 (at H = 16 and 256 a cell
    lies on 0.6 and rounding lets one side in); "exact" compares integers.

    `log_z`, `num_modes`, `num_terminal_states` and `mode_mass` come from counts of
    coordinates, so they hold for any dim and side.
    """

    dim: int = eqx.field(static=True)
    side: int = eqx.field(static=True)
    convention: Literal["paper", "exact"] = eqx.field(static=True)

    def __init__(self, dim: int, side: int, convention: Literal["paper", "exact"] = "paper"):
        # NumPy's integers would overflow where Python's do not.
        dim, side = operator.index(dim), operator.index(side)
        if dim < 1:
            raise ValueError(f"DeceptiveGrid needs dim >= 1, got {dim}.")
        if side < 2:
            raise ValueError(f"DeceptiveGrid needs side >= 2, got {side}.")
        if convention not in ("paper", "exact"):
            raise ValueError(f"convention must be 'paper' or 'exact', got {convention!r}.")
        self.dim = dim
        self.side = side
        self.convention = convention

    @property
    def num_terminal_states(self) -> int:
        """(H-1)^d + d (H-1)^(d-1)."""
        return self._terminal_count(self.side - 1, 1)

    @property
    def num_modes(self) -> int:
        """Number of terminal states with the mode bonus; each is a mode of its own."""
        _, in_mode = self._tables()
        return int(in_mode.sum()) ** self.dim

    @property
    def log_z(self) -> float:
        """Logarithm of the sum of R over the terminal states, in nats."""
        return math.log(self._total()) - math.log(_UNIT)

    @property
    def mode_mass(self) -> float:
        """Share of the target's mass that lies on modes."""
        return self.num_modes * (_BASE + _VALLEY + _MODE) / self._total()

    def log_reward(self, x: Int[Array, " dim"]) -> Float[Array, ""]:
        """log R(x), in nats."""
        in_valley, in_mode = self._membership(x)
        plateau, valley, mode = (
            math.log(value / _UNIT) for value in (_BASE, _BASE + _VALLEY, _BASE + _VALLEY + _MODE)
        )
        return jnp.where(in_mode, mode, jnp.where(in_valley, valley, plateau))

    def mode_index(self, x: Int[Array, " dim"]) -> Int[Array, ""]:
        """Number of the mode at x, -1 where there is none. From 2^31 modes on, which int32
        cannot number, several share a number.
        """
        _, in_mode = self._tables()
        rank = jnp.asarray(np.cumsum(in_mode) - 1, jnp.int32)
        radix = [int(in_mode.sum()) ** k % 2**31 for k in reversed(range(self.dim))]
        number = jnp.sum(rank[x] * jnp.asarray(radix, jnp.int32), dtype=jnp.int32) & (2**31 - 1)
        return jnp.where(self._membership(x)[1], number, -1)

    def mode_samples(self) -> Int[np.ndarray, "modes dim"]:
        """The terminal states with the mode bonus, [num_modes, dim].

        **Errors:** `ValueError` where there are more than a million.
        """
        if self.num_modes > _MOST_LISTED:
            raise ValueError(f"{self.num_modes:,} modes are too many to be listed.")
        (values,) = np.nonzero(self._tables()[1])
        axes = np.meshgrid(*[values] * self.dim, indexing="ij")
        return np.stack(axes, axis=-1).reshape(-1, self.dim).astype(np.int32)

    def _membership(self, x: Int[Array, " dim"]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        if jnp.shape(x) != (self.dim,):
            raise ValueError(f"x must have shape ({self.dim},), got {jnp.shape(x)}.")
        in_valley, in_mode = self._tables()
        return jnp.all(jnp.asarray(in_valley)[x]), jnp.all(jnp.asarray(in_mode)[x])

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each value of a coordinate has u > 0.2, and 0.6 < u < 0.8."""
        s, last = np.arange(self.side), self.side - 1
        if self.convention == "exact":
            tenfold = 10 * np.abs(2 * s - last)
            return tenfold > 2 * last, (6 * last < tenfold) & (tenfold < 8 * last)
        u = np.abs(s.astype(np.float64) / last * 2 - 1)
        return u > 0.2, (u > 0.6) & (u < 0.8)

    def _terminal_count(self, inside: int, at_border: int) -> int:
        """Terminal states whose coordinates lie in a set: `inside` of its values are below
        H-1, and `at_border` (0 or 1) says whether H-1 belongs to it.
        """
        return inside**self.dim + at_border * self.dim * inside ** (self.dim - 1)

    def _total(self) -> int:
        """Sum of R over the terminal states, in units of 1e-5: exact, of any size."""
        in_valley, in_mode = self._tables()
        valley = self._terminal_count(int(in_valley[:-1].sum()), int(in_valley[-1]))
        mode = self._terminal_count(int(in_mode[:-1].sum()), int(in_mode[-1]))
        return _BASE * self.num_terminal_states + _VALLEY * valley + _MODE * mode
