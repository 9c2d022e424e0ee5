"""Presets: the experiments of the paper, one function a task."""

from ._grid import GRID_PRESETS as GRID_PRESETS
from ._grid import grid as grid

__all__ = ["GRID_PRESETS", "grid"]
