"""`didact compare`: runs side by side."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ._process import BadInput, note, one_line, show


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare runs: in what they differ, their verdicts with paired differences, their curves."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ()
    """Run folders, at least two; the others are compared with the first."""
    out: Path | None = None
    """Page to write, with curves too: an .html file."""


def compare(options: Compare) -> int:
    """`didact compare`."""
    if len(options.runs) < 2:
        raise BadInput("name at least two run folders: didact compare RUN RUN.")
    from .. import bench, report
    from ..run import RunError

    with one_line(RunError, ValueError, OSError):
        found = bench.compare(options.runs)
        page = None if options.out is None else report.write_comparison(found, options.out)
    for letter, folder in found.facts:
        show(f"{letter}: {folder}")
    for table in (table for chapter in found.chapters for table in chapter.tables):
        show(f"\n{table.markdown()}")
    for line in found.warnings:
        note(f"didact: {line}")
    if page is not None:
        show(f"\nReport: {page}")
    return 0
