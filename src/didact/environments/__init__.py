"""Environments: the states a sampler walks through, and the edges between them."""

from ._hypergrid import Hypergrid as Hypergrid
from ._hypergrid import HypergridState as HypergridState
from ._hypergrid import published_backward_kernel as published_backward_kernel

__all__ = ["Hypergrid", "HypergridState", "published_backward_kernel"]
