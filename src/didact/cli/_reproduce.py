"""`didact reproduce`: the paper's tables, beside what others measured."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ._bench import cells_of, report_problems, require_folder, train_cells
from ._parse import words
from ._process import BadInput, note, one_line, show

if TYPE_CHECKING:
    from ..bench import Kept, Outcome


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Make the paper's tables: published values, those of the published code, and didact's.

    Trains what has not finished; the same command again goes on. Seeds are 0, 1, 2, ...
    """

    part: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PART")] = ""
    """grid, diffusion, biochem or all."""
    quick: bool = False
    """A few of the cells, some of them shortened, in under 15 minutes on two idle cores."""
    plan: bool = False
    """Show what would be trained, and about how long it takes, and train nothing."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FOLDER")] = None
    """Train nothing: take what is kept below this folder, as in OUT/results."""
    seeds: int | None = None
    """Replicas of each cell. Default: 3, with --quick 2."""
    workers: int = 1
    """Cells that are trained at the same time, each on an equal share of the cores."""
    out: Path | None = None
    """Folder of results. Default: runs/reproduce- and the part, with --quick also -quick."""


def reproduce(options: Reproduce) -> int:
    """`didact reproduce`."""
    from ..bench import PARTS

    if options.part not in (*PARTS, "all"):
        wrong = f"unknown part {options.part!r}" if options.part else "name the part"
        raise BadInput(f"{wrong}: didact reproduce {', '.join(PARTS)} or all.")
    for name in ("seeds", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name} must be at least 1, got {value}.")
    parts = [part for part in PARTS if options.part in (part, "all")]
    if options.source is not None:
        if options.quick or options.plan:
            raise BadInput("--from trains nothing: leave --quick and --plan out.")
        return _from_kept(options, parts)
    return _from_runs(options, parts)


def _from_kept(options: Reproduce, parts: Sequence[str]) -> int:
    from .. import bench

    assert options.source is not None
    with one_line(ValueError, OSError):
        cells = bench.in_order(bench.read_all(options.source), parts)
    if not cells:
        raise BadInput(f"{options.source} holds no kept runs of {', '.join(parts)}.")
    out = _out(options)
    require_folder(out)
    return _write(options, parts, cells, out, omitted=(), warnings=())


def _from_runs(options: Reproduce, parts: Sequence[str]) -> int:
    from .. import bench

    seeds = options.seeds or (bench.QUICK_SEEDS if options.quick else bench.SEEDS)
    make = bench.quick if options.quick else bench.full
    cells = cells_of([suite for part in parts for suite in make(part, seeds)])
    omitted = _omitted(parts, seeds) if options.quick else []
    planned, total = bench.plan(cells)
    if options.plan:
        show("\n".join((planned.markdown(), "", *omitted, total)))
        return 0
    note(f"{total} With --plan they are shown and not trained.")
    out = _out(options)

    def finish(outcomes: Sequence["Outcome"]) -> None:
        suite = {"parts": list(parts), "quick": options.quick, "seeds": seeds}
        bench.write_json(out / "bench.json", suite, outcomes, None)

    outcomes, code = train_cells(cells, out, options.workers, finish)
    finish(outcomes)
    if code:
        note(f"Stopped; everything is written. Go on with: {_command(options)}")
        return code
    kept = [outcome.kept for outcome in outcomes if outcome.kept is not None]
    _ = _write(
        options,
        parts,
        bench.in_order(kept, parts),
        out,
        omitted=omitted,
        warnings=bench.problems(outcomes),
    )
    return report_problems(outcomes)


def _write(
    options: Reproduce,
    parts: Sequence[str],
    cells: Sequence["Kept"],
    out: Path,
    *,
    omitted: Sequence[str],
    warnings: Sequence[str],
) -> int:
    """The tables on stdout and in Markdown, the values as JSON, and the page."""
    from .. import bench, report

    show("\n".join((bench.markdown(cells, parts, short=True), "", *omitted)))
    page = bench.page(cells, parts, omitted=omitted, warnings=warnings, command=_command(options))
    with one_line(OSError):
        bench.write_agreements(out / "reproduce.json", cells, parts)
        text = f"{bench.markdown(cells, parts)}\n\n{bench.remarks(parts)}\n"
        report.save(out / "reproduce.md", text.encode())
        show(f"Report: {report.write_comparison(page, out / 'reproduce.html')}")
    return 0


def _omitted(parts: Sequence[str], seeds: int) -> list[str]:
    from .. import bench

    return [f"{part}: {line}." for part in parts for line in bench.left_out(part, seeds)]


def _out(options: Reproduce) -> Path:
    quick = "-quick" if options.quick else ""
    return options.out or Path(f"runs/reproduce-{options.part}{quick}")


def _command(options: Reproduce) -> str:
    given = {"quick": True} if options.quick else {}
    given |= {} if options.source is None else {"from": options.source}
    given |= {} if options.seeds is None else {"seeds": options.seeds}
    given |= {} if options.out is None else {"out": options.out}
    return shlex.join(["didact", "reproduce", options.part, *words(given)])
