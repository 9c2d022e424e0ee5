"""Getting data sets, and loading them."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from .._blocks import Blocks
from . import _store
from ._download import Source, download, take
from ._registry import DATA_SETS, DataSet
from ._store import DataError, MissingData


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether a data set is there.

    - `name`: what `didact data fetch` knows it by;
    - `state`: "present" means intact, "damaged" that a file has been changed;
    - `folder`: where its files are, or would be;
    - `reason`: what is wrong, in one line; empty if present.
    """

    name: str
    state: Literal["present", "missing", "damaged"]
    folder: Path
    reason: str = ""


def fetch(
    name: str,
    *,
    source: Path | None = None,
    data_sets: Mapping[str, DataSet] = DATA_SETS,
    on_progress: Callable[[str], None] = lambda text: None,
) -> tuple[Status, ...]:
    """Get a data set: download what others publish, check it, and convert it to arrays.

    What is there and intact is left as it is. Downloaded files stay in the folder raw of the data
    folder; a download that was cut off goes on where it was. None of their content is executed.

    **Arguments:** `name`: "qm9", "seh", "tfbind8" or "all"; `source`: a folder that holds the
    published files, to take them from instead of the network; `data_sets`: others than those of
    the package; `on_progress` is told what is done.

    **Returns:** the state of each data set, all of them present.

    **Errors:** `ValueError` for an unknown name; `DataError` if a file cannot be had or is another
    one than was published; `OSError` if the data folder cannot be written to.
    """
    names = tuple(data_sets) if name == "all" else (name,)
    for one in names:
        data_set = _known(one, data_sets)
        if _status(one, data_set).state == "present":
            continue
        files = _files(data_set, source, on_progress)
        on_progress(f"{one}: converting into {_store.data_dir() / data_set.layout.folder}")
        content = data_set.convert(files)
        _store.write(data_set.layout, _store.data_dir(), content)
    return tuple(_status(one, data_sets[one]) for one in names)


def load(name: str) -> Mapping[str, np.ndarray]:
    """The arrays of a data set, after a check that every byte is as it was published.

    Strings are numbered by their digits, the first of which counts most.

    - "qm9": `rewards` [161051], in the order of the strings' numbers; `modes` [805], numbers of
      strings.
    - "tfbind8": `rewards` [65536]; `modes` [328], the best first.
    - "seh": trees as nodes [100, 61]: `feature` (-1 at a leaf; 18 p + k asks whether block k is at
      position p), `left` (no), `right` (yes), `value`, and `threshold`, `baseline`; as leaves:
      `leaf_bits` [3100, 6], bit k of which allows block k at a position, and `leaf_value` [3100];
      `modes` [129]; `top_0001` [3406], the best strings, of which the modes are some.

    **Errors:** `ValueError` for an unknown name; `MissingData` if the data have not been fetched,
    `DataError` if they are damaged, each with the command that helps.
    """
    return _store.read_arrays(_known(name).layout, _store.data_dir(), name)


def blocks(name: str) -> Blocks:
    """The building blocks of the molecules of a data set, "qm9" or "seh".

    **Errors:** those of `load`.
    """
    layout = _known(name).layout
    if layout.blocks is None:
        raise ValueError(f"{name} is not made of molecules: it has no blocks.")
    return _store.read_blocks(layout, _store.data_dir(), name)


def status() -> tuple[Status, ...]:
    """Which data sets are there, which are missing, which are damaged."""
    return tuple(_status(name, data_set) for name, data_set in DATA_SETS.items())


def _known(name: str, data_sets: Mapping[str, DataSet] = DATA_SETS) -> DataSet:
    if name not in data_sets:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(data_sets)} and all.")
    return data_sets[name]


def _status(name: str, data_set: DataSet) -> Status:
    layout, folder = data_set.layout, _store.data_dir()
    place = folder / layout.folder
    try:
        _store.read_arrays(layout, folder, name)
        if layout.blocks is not None:
            _store.read_blocks(layout, folder, name)
    except MissingData as error:
        return Status(name, "missing", place, str(error))
    except DataError as error:
        return Status(name, "damaged", place, str(error))
    return Status(name, "present", place)


def _files(
    data_set: DataSet, folder: Path | None, on_progress: Callable[[str], None]
) -> dict[str, bytes]:
    """The published files of a data set; without those that cannot be had and are not needed."""
    found: dict[str, bytes] = {}
    for file in data_set.sources:
        try:
            found[file.name] = _file(file, folder)
        except DataError as error:
            if file.needed:
                raise
            on_progress(f"Going on without {file.name}: {error}")
    return found


def _file(file: Source, folder: Path | None) -> bytes:
    return download(file, _store.data_dir() / "raw") if folder is None else take(file, folder)
