"""Targets: unnormalised densities, and what is known exactly about them."""

from .._types import ModalTarget as ModalTarget
from .._types import SamplableTarget as SamplableTarget
from .._types import Target as Target
from ._benchmark_mixtures import GMM25 as GMM25
from ._benchmark_mixtures import GMM40 as GMM40
from ._benchmark_mixtures import EightGaussians as EightGaussians
from ._checkerboard import Checkerboard as Checkerboard
from ._deceptive_grid import DeceptiveGrid as DeceptiveGrid
from ._from_function import FromFunction as FromFunction
from ._funnel import Funnel as Funnel
from ._gaussian_mixture import GaussianMixture as GaussianMixture
from ._host_reward import HostReward as HostReward
from ._host_reward import HostRewards as HostRewards
from ._log_gaussian_cox import LogGaussianCox as LogGaussianCox
from ._logistic_regression import LogisticRegression as LogisticRegression
from ._many_well import ManyWell as ManyWell
from ._qm9 import QM9 as QM9
from ._ring import Ring as Ring
from ._rna import L14RNA1 as L14RNA1
from ._rna import L14RNA2 as L14RNA2
from ._rna import L14RNA3 as L14RNA3
from ._seh import SEH as SEH
from ._strings import StringTarget as StringTarget
from ._tfbind8 import TFBind8 as TFBind8

__all__ = [
    "GMM25",
    "GMM40",
    "L14RNA1",
    "L14RNA2",
    "L14RNA3",
    "QM9",
    "SEH",
    "Checkerboard",
    "DeceptiveGrid",
    "EightGaussians",
    "FromFunction",
    "Funnel",
    "GaussianMixture",
    "HostReward",
    "LogGaussianCox",
    "LogisticRegression",
    "ManyWell",
    "ModalTarget",
    "Ring",
    "SamplableTarget",
    "StringTarget",
    "TFBind8",
    "Target",
]
