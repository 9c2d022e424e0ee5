"""Data of the tasks on strings and molecules: fetched from those who publish them, then checked.

The package holds none of them. `didact data fetch NAME` gets a data set, `didact data status` says
which are there.
"""

from .._blocks import Blocks as Blocks
from ._fetch import Status as Status
from ._fetch import blocks as blocks
from ._fetch import fetch as fetch
from ._fetch import load as load
from ._fetch import status as status
from ._store import DataError as DataError
from ._store import MissingData as MissingData
from ._store import data_dir as data_dir

__all__ = [
    "Blocks",
    "DataError",
    "MissingData",
    "Status",
    "blocks",
    "data_dir",
    "fetch",
    "load",
    "status",
]
