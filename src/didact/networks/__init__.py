"""Policy networks, and the configurations that build them."""

from .._types import PolicyOutput as PolicyOutput
from ._bootstrapped import Bootstrapped as Bootstrapped
from ._bootstrapped import BootstrappedConfig as BootstrappedConfig
from ._diffusion_mlp import DiffusionMLP as DiffusionMLP
from ._diffusion_mlp import DiffusionMLPConfig as DiffusionMLPConfig
from ._mlp import MLP as MLP
from ._mlp import MLPConfig as MLPConfig
from ._network import Ensemble as Ensemble
from ._network import EnsembleConfig as EnsembleConfig
from ._network import Network as Network
from ._network import NetworkConfig as NetworkConfig
from ._ssr import SSR as SSR
from ._ssr import SSRConfig as SSRConfig
from ._uniform import Uniform as Uniform
from ._uniform import UniformConfig as UniformConfig

__all__ = [
    "MLP",
    "SSR",
    "Bootstrapped",
    "BootstrappedConfig",
    "DiffusionMLP",
    "DiffusionMLPConfig",
    "Ensemble",
    "EnsembleConfig",
    "MLPConfig",
    "Network",
    "NetworkConfig",
    "PolicyOutput",
    "SSRConfig",
    "Uniform",
    "UniformConfig",
]
