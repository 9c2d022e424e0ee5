"""Targets: unnormalised densities, and what is known exactly about them."""

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
from ._log_gaussian_cox import LogGaussianCox as LogGaussianCox
from ._logistic_regression import LogisticRegression as LogisticRegression
from ._many_well import ManyWell as ManyWell
from ._ring import Ring as Ring

__all__ = [
    "GMM25",
    "GMM40",
    "Checkerboard",
    "DeceptiveGrid",
    "EightGaussians",
    "FromFunction",
    "Funnel",
    "GaussianMixture",
    "LogGaussianCox",
    "LogisticRegression",
    "ManyWell",
    "Ring",
    "SamplableTarget",
    "Target",
]
