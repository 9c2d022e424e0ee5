"""The mixtures of Gaussians that the literature compares samplers on."""

import functools
import itertools
import math
import operator

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from .._checks import require
from ._continuous import read_only, require_positive
from ._gaussian_mixture import Components, IsotropicMixture


class GMM25(IsotropicMixture):
    """25 Gaussians of variance 0.3 on a grid: means {-10, -5, 0, 5, 10}², equal weights.

    As in Sendera et al. (2024) and Kim et al. (2025).

    A sample x is a point of the plane, float [2].
    """

    def __init__(self):
        """Nothing can be chosen."""

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def components(self) -> Components:
        """Means row by row, standard deviations and weights, in float64."""
        means = np.asarray(list(itertools.product((-10.0, -5.0, 0.0, 5.0, 10.0), repeat=2)))
        return _alike(means, math.sqrt(0.3))


class GMM40(IsotropicMixture):
    """40 Gaussians at random places of [-40, 40]^dim (Midgley et al., "Flow annealed importance
    sampling bootstrap", ICLR 2023): standard deviation softplus(1) = 1.313, equal weights.

    The means are those of the published code, to the last bit of float32: there PyTorch 2 draws
    them from its CPU generator with seed 0. Other codes keep the means and set the standard
    deviation to 1: `GaussianMixture` makes that from `components().means`.

    **Arguments:** `dim` >= 1.

    A sample x is a point, float [dim].
    """

    dim: int = eqx.field(static=True)

    def __init__(self, dim: int = 2):
        self.dim = operator.index(dim)
        require("dim", self.dim, at_least=1)

    def components(self) -> Components:
        """Means, standard deviations and weights, in float64."""
        return _alike(_published_means(self.dim), math.log1p(math.e))


class EightGaussians(IsotropicMixture):
    """Eight Gaussians on a circle, equal weights, counted counter-clockwise from angle 0.

    The defaults are those of the toy data of FFJORD (Grathwohl et al., 2019), where 4 and 0.5
    are divided by 1.414.

    **Arguments:** `radius` > 0 of the circle; `scale` > 0: standard deviation of each.

    A sample x is a point of the plane, float [2].
    """

    radius: float = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(self, radius: float = 4 / math.sqrt(2), scale: float = 0.5 / math.sqrt(2)):
        self.radius = float(radius)
        self.scale = float(scale)
        require_positive("radius", self.radius)
        require_positive("scale", self.scale)

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def components(self) -> Components:
        """Means, standard deviations and weights, in float64."""
        angles = np.arange(8) * (math.pi / 4)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return _alike(self.radius * circle, self.scale)


def _alike(means: Float64[np.ndarray, "K dim"], scale: float) -> Components:
    number = len(means)
    return Components(means, np.full(number, float(scale)), np.full(number, 1 / number))


@functools.lru_cache(maxsize=64)
def _published_means(dim: int) -> Float64[np.ndarray, "40 dim"]:
    """`(torch.rand((40, dim)) - 0.5) * 2 * 40` after `torch.manual_seed(0)`, without PyTorch.

    Both libraries seed a Mersenne Twister alike; PyTorch takes the low 24 bits of each word.
    """
    words = np.random.RandomState(0).randint(0, 2**32, size=(40, dim), dtype=np.uint32)
    uniform = (words & np.uint32(2**24 - 1)) * 2.0**-24
    return read_only(((uniform - 0.5) * 80).astype(np.float32).astype(np.float64))
