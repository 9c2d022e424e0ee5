"""Data sets on disk: where they lie, and whether they are what they should be."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .._archive import Archive
from .._blocks import Blocks
from .._files import open_to_read, read_object, write_whole


class DataError(ValueError):
    """Data are missing or damaged, or cannot be fetched. The message is one line with a remedy."""


class MissingData(DataError):
    """Data have not been fetched."""


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """What an array must be: its dtype (as `np.dtype.str`), its shape, and the SHA-256 of its
    bytes in C order.
    """

    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @staticmethod
    def of(array: np.ndarray) -> "ArraySpec":
        """That of an array."""
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return ArraySpec(array.dtype.str, array.shape, digest)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The files of a data set, in a folder of its own.

    `arrays`: by the name of the .npz file; `blocks`: SHA-256 of blocks.json, whatever its spaces
    are, or None if there is none.
    """

    folder: str
    arrays: Mapping[str, Mapping[str, ArraySpec]]
    blocks: str | None = None


Content = Mapping[str, Mapping[str, np.ndarray] | Blocks]
"""Of a data set, by the names of its files."""

BLOCKS = "blocks.json"


def data_dir() -> Path:
    """Folder of all data: DIDACT_DATA_DIR, or the user's folder for such things."""
    import pooch

    return Path(os.environ.get("DIDACT_DATA_DIR") or pooch.os_cache("didact"))


def read_arrays(layout: Layout, folder: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a data set, checked.

    **Arguments:** `folder`: that of all data; `name`: what `didact data fetch` knows it by.

    **Errors:** `MissingData`, or `DataError` if a file is damaged.
    """
    found: dict[str, np.ndarray] = {}
    for file, specs in layout.arrays.items():
        path = folder / layout.folder / file
        try:
            arrays = _read_npz(path, specs)
        except FileNotFoundError as error:
            raise _missing(path, name) from error
        except (OSError, ValueError) as error:
            raise _damaged(path, name) from error
        if any(ArraySpec.of(arrays[key]) != spec for key, spec in specs.items()):
            raise _damaged(path, name)
        found |= arrays
    return found


def read_blocks(layout: Layout, folder: Path, name: str) -> Blocks:
    """The blocks of a data set, checked: see `read_arrays`."""
    path = folder / layout.folder / BLOCKS
    try:
        blocks = Blocks.from_json(read_object(path))
    except FileNotFoundError as error:
        raise _missing(path, name) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, name) from error
    if blocks_sha256(blocks) != layout.blocks:
        raise _damaged(path, name)
    return blocks


def write(layout: Layout, folder: Path, content: Content) -> None:
    """Write a data set, each file whole or not at all.

    **Errors:** `DataError`, before anything is written, if it is not what it should be.
    """
    for file, part in content.items():
        if isinstance(part, Blocks):
            right = blocks_sha256(part) == layout.blocks
        else:
            right = {key: ArraySpec.of(array) for key, array in part.items()} == dict(
                layout.arrays[file]
            )
        if not right:
            raise DataError(
                f"the sources of {layout.folder}/{file} gave something else than they should: "
                "please report it, with the versions of didact and NumPy."
            )
    target = folder / layout.folder
    target.mkdir(parents=True, exist_ok=True)
    for file, part in content.items():
        with write_whole(target / file) as opened:
            if isinstance(part, Blocks):
                opened.write(f"{json.dumps(part.to_json(), indent=1)}\n".encode())
            else:
                np.savez_compressed(opened, allow_pickle=False, **part)


def blocks_sha256(blocks: Blocks) -> str:
    """Hash of what blocks say."""
    text = json.dumps(blocks.to_json(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_npz(path: Path, specs: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
    with open_to_read(path) as file:
        archive = Archive(file)
        for name, spec in specs.items():
            header = archive.header(name)
            if (header.dtype.str, header.shape) != (spec.dtype, spec.shape):
                raise ValueError(f"it has another array {name}")
        return {name: archive[name] for name in specs}


def _missing(path: Path, name: str) -> MissingData:
    return MissingData(f"{path} is missing: didact data fetch {name}")


def _damaged(path: Path, name: str) -> DataError:
    return DataError(f"{path} is damaged: didact data fetch {name}")
