"""Presets: the experiments of the paper, one function a task."""

from ._diffusion import DIFFUSION_PRESETS as DIFFUSION_PRESETS
from ._diffusion import DIFFUSION_TASKS as DIFFUSION_TASKS
from ._diffusion import OWN_NETWORK as OWN_NETWORK
from ._diffusion import SIZES as SIZES
from ._diffusion import Task as Task
from ._diffusion import diffusion as diffusion
from ._diffusion import shortening as shortening
from ._grid import GRID_PRESETS as GRID_PRESETS
from ._grid import grid as grid

__all__ = [
    "DIFFUSION_PRESETS",
    "DIFFUSION_TASKS",
    "GRID_PRESETS",
    "OWN_NETWORK",
    "SIZES",
    "Task",
    "diffusion",
    "grid",
    "shortening",
]
