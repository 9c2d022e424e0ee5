"""Policy networks, and the configurations that build them."""

from .._types import PolicyOutput as PolicyOutput
from ._mlp import MLP as MLP
from ._mlp import MLPConfig as MLPConfig

__all__ = ["MLP", "MLPConfig", "PolicyOutput"]
