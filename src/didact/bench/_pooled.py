"""Runs of one cell with different seeds, as the one run that they could have been."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._kept import Kept, read_kept


def read_all(folder: Path) -> list[Kept]:
    """Every kept run below a folder, one of each task and method, in the order of their names: the
    latest, with the seeds of others that are like it.

    **Errors:** `ValueError` if the folder is none, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the one that kept results are in.")
    found: dict[tuple[str, str], list[Kept]] = {}
    for path in sorted(folder.rglob("*.json")):
        kept = read_kept(path)
        if kept is not None:
            found.setdefault((kept.task, kept.method), []).append(kept)
    return [pooled(runs) for runs in found.values()]


def pooled(runs: Sequence[Kept]) -> Kept:
    """The latest of a cell's runs, with those seeds of the others that it has not: of runs of the
    same experiment, as long, judged in the same way.

    **Arguments:** `runs`: at least one, all of the same task and method.

    A seed that several runs have counts as in the latest of them. Verdicts and curves have one
    value for each seed, in the order of the seeds; a quantity that one of the runs does not know
    has None there, and so has the time of all where they are of different devices. Curves are of
    the steps that all runs have kept.
    """
    *others, latest = sorted(runs, key=lambda run: run.created_at)
    source = {seed: (0, i) for i, seed in enumerate(latest.seeds)}
    taken = [latest]
    for run in reversed(others):
        new = {seed: (len(taken), i) for i, seed in enumerate(run.seeds) if seed not in source}
        if new and _alike(run, latest):
            source |= new
            taken.append(run)
    if len(taken) == 1:
        return latest
    places = [source[seed] for seed in sorted(source)]
    by_step = [{row.get("step"): row for row in run.curves} for run in taken]
    shared = sorted(set[Any].intersection(*(set(rows) - {None} for rows in by_step)))
    timed = len({_device(run) for run in taken}) == 1
    return dataclasses.replace(
        latest,
        command=" && ".join(run.command for run in sorted(taken, key=lambda run: run.seeds)),
        verdict=_joined([run.verdict for run in taken], places, timed=timed),
        curves=tuple(
            _joined([rows[step] for rows in by_step], places, timed=timed) for step in shared
        ),
    )


def _device(run: Kept) -> str | None:
    """That of training; of old files nobody knows."""
    versions = run.verdict.get("versions")
    return versions.get("device") if isinstance(versions, Mapping) else None


_SAME = ("step", "exact", "num_draws", "num_scored")


def _alike(run: Kept, other: Kept) -> bool:
    """Whether only the seeds differ. Files of old versions do not tell their experiment: of them
    nobody knows.
    """
    told = "network" in run.experiment and run.experiment == other.experiment
    return told and all(run.verdict.get(key) == other.verdict.get(key) for key in _SAME)


_SPENT = ("seconds", "training_seconds")


def _joined(
    rows: Sequence[Mapping[str, Any]], places: Sequence[tuple[int, int]], *, timed: bool
) -> dict[str, Any]:
    """Of each quantity one value a seed, whose places are row and number in it; what is one number
    for the whole run stays that of the first, and time is spent by all, if it can be added.
    """
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        if key in _SPENT:
            known = [value for value in values if isinstance(value, int | float)]
            joined[key] = sum(known) if timed and len(known) == len(rows) else None
        elif any(isinstance(value, list) for value in values):
            joined[key] = [_of_seed(values[row], i) for row, i in places]
        else:
            joined[key] = values[0]
    return joined


def _of_seed(value: Any, i: int) -> Any:
    if isinstance(value, list):
        return value[i] if i < len(value) else None
    return value
