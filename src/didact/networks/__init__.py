"""Policy networks, and the configurations that build them."""

from .._types import PolicyOutput as PolicyOutput
from ._diffusion_mlp import DiffusionMLP as DiffusionMLP
from ._diffusion_mlp import DiffusionMLPConfig as DiffusionMLPConfig
from ._mlp import MLP as MLP
from ._mlp import MLPConfig as MLPConfig
from ._network import Network as Network
from ._network import NetworkConfig as NetworkConfig
from ._ssr import SSR as SSR
from ._ssr import SSRConfig as SSRConfig

__all__ = [
    "MLP",
    "SSR",
    "DiffusionMLP",
    "DiffusionMLPConfig",
    "MLPConfig",
    "Network",
    "NetworkConfig",
    "PolicyOutput",
    "SSRConfig",
]
