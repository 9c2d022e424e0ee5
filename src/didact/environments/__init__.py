"""Environments: the states a sampler walks through, and the edges between them."""

from .._kernels import Categorical as Categorical
from .._types import EnumerableEnvironment as EnumerableEnvironment
from .._types import Environment as Environment
from .._types import Kernel as Kernel
from .._types import Trajectory as Trajectory
from ._hypergrid import Hypergrid as Hypergrid
from ._hypergrid import HypergridState as HypergridState
from ._hypergrid import published_backward_kernel as published_backward_kernel

__all__ = [
    "Categorical",
    "EnumerableEnvironment",
    "Environment",
    "Hypergrid",
    "HypergridState",
    "Kernel",
    "Trajectory",
    "published_backward_kernel",
]
