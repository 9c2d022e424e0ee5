"""`didact data`: the data of the tasks on strings and molecules."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ._parse import parse
from ._process import BadInput, note, one_line, show

_USAGE = """Data of the tasks on strings and molecules: qm9, seh, tfbind8.

  didact data fetch NAME   download a data set, check it, and convert it; NAME may be all
  didact data status       which data sets are there, and where; exit code 2 if one is damaged

They lie in the folder that DIDACT_DATA_DIR names, or else in the user's cache folder."""


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Download a data set, check it, and convert it to arrays. What is there is left as it is."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ""
    """qm9, seh, tfbind8 or all."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FOLDER")] = None
    """Take the published files from this folder instead of the network."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Which data sets are there, and where.

    That one is missing is no error; that one is damaged is, with exit code 2 and a line that says
    what to do.
    """


def data(arguments: list[str]) -> int:
    """`didact data`."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in ("-h", "--help"):
        show(_USAGE)
        return 0
    if command == "fetch":
        return _fetch(parse(Fetch, "data fetch", rest))
    if command == "status":
        return _status(parse(Status, "data status", rest))
    raise BadInput(f"didact data takes fetch NAME or status, got {command!r} (didact data --help).")


def _fetch(options: Fetch) -> int:
    from .. import datasets

    if not options.name:
        raise BadInput("name the data set: didact data fetch NAME; qm9, seh, tfbind8 or all.")
    if options.source is not None and not options.source.is_dir():
        raise BadInput(f"--from {options.source} is not a folder.")
    with one_line(ValueError, OSError):
        for found in datasets.fetch(options.name, source=options.source, on_progress=note):
            _show(found.name, found.state, found.folder)
    return 0


def _status(_: Status) -> int:
    from .. import datasets

    damaged = []
    for found in datasets.status():
        _show(found.name, found.state, found.folder)
        damaged += [found.reason] if found.state == "damaged" else []
    if damaged:
        raise BadInput("; ".join(damaged))
    return 0


def _show(name: str, state: str, folder: Path) -> None:
    show(f"{name:8} {state:8} {folder}")
