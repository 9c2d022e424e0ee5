"""Targets: unnormalised densities, and what is known exactly about them."""

from .._types import Target as Target
from ._deceptive_grid import DeceptiveGrid as DeceptiveGrid
from ._from_function import FromFunction as FromFunction

__all__ = [
    "DeceptiveGrid",
    "FromFunction",
    "Target",
]
