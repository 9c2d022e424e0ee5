"""Environments: the states a sampler walks through, and the edges between them."""

from .._kernels import Categorical as Categorical
from .._kernels import Gaussian as Gaussian
from .._types import EnumerableEnvironment as EnumerableEnvironment
from .._types import Environment as Environment
from .._types import Kernel as Kernel
from .._types import PathwiseKernel as PathwiseKernel
from .._types import SiteEnvironment as SiteEnvironment
from .._types import Trajectory as Trajectory
from ._diffusion import Brownian as Brownian
from ._diffusion import Diffusion as Diffusion
from ._diffusion import DiffusionFeatures as DiffusionFeatures
from ._diffusion import DiffusionState as DiffusionState
from ._diffusion import Process as Process
from ._diffusion import VariancePreserving as VariancePreserving
from ._hypergrid import Hypergrid as Hypergrid
from ._hypergrid import HypergridState as HypergridState
from ._hypergrid import published_backward_kernel as published_backward_kernel
from ._strings import Autoregressive as Autoregressive
from ._strings import PrependAppend as PrependAppend
from ._strings import Strings as Strings
from ._strings import StringState as StringState

__all__ = [
    "Autoregressive",
    "Brownian",
    "Categorical",
    "Diffusion",
    "DiffusionFeatures",
    "DiffusionState",
    "EnumerableEnvironment",
    "Environment",
    "Gaussian",
    "Hypergrid",
    "HypergridState",
    "Kernel",
    "PathwiseKernel",
    "PrependAppend",
    "Process",
    "SiteEnvironment",
    "StringState",
    "Strings",
    "Trajectory",
    "VariancePreserving",
    "published_backward_kernel",
]
