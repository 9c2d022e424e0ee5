"""The molecules of QM9 as strings of five blocks."""

from typing import ClassVar

from .. import datasets
from .._blocks import Blocks
from ._strings import TableTarget


class QM9(TableTarget):
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

    data: ClassVar[str] = "qm9"
    paper: ClassVar[float] = 100.0
    floor: ClassVar[float] = 1e-12
    adds: ClassVar[bool] = True

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
