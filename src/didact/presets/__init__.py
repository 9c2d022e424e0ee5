"""Presets: the experiments of the paper and our own, one function a kind of task."""

from ._diffusion import DIFFUSION_PRESETS as DIFFUSION_PRESETS
from ._diffusion import DIFFUSION_TASKS as DIFFUSION_TASKS
from ._diffusion import SIZES as SIZES
from ._diffusion import Task as Task
from ._diffusion import diffusion as diffusion
from ._diffusion import own_network as own_network
from ._diffusion import shortening as shortening
from ._discovery import DISCOVERY_PRESETS as DISCOVERY_PRESETS
from ._discovery import DISCOVERY_TASKS as DISCOVERY_TASKS
from ._discovery import DiscoveryTask as DiscoveryTask
from ._discovery import discovery as discovery
from ._exploration import EXPLORATION_PRESETS as EXPLORATION_PRESETS
from ._grid import GRID_PRESETS as GRID_PRESETS
from ._grid import grid as grid

__all__ = [
    "DIFFUSION_PRESETS",
    "DIFFUSION_TASKS",
    "DISCOVERY_PRESETS",
    "DISCOVERY_TASKS",
    "EXPLORATION_PRESETS",
    "GRID_PRESETS",
    "SIZES",
    "DiscoveryTask",
    "Task",
    "diffusion",
    "discovery",
    "grid",
    "own_network",
    "shortening",
]
