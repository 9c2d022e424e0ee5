"""DNA of eight bases that a transcription factor binds to."""

from typing import ClassVar

from ._strings import TableTarget


class TFBind8(TableTarget):
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

    data: ClassVar[str] = "tfbind8"
    paper: ClassVar[float] = 10.0
    floor: ClassVar[float] = 1e-20
    adds: ClassVar[bool] = False

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
