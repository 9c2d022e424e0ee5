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
    """The latest of a cell's runs, with the seeds of those others that trained as it did: the same
    method, size and budget, and no seed that is there already.

    **Arguments:** `runs`: at least one, all of the same task and method.

    Verdicts and curves have one value for each seed, in the order of the seeds; a quantity that one
    of the runs does not know has None there. Curves are of the steps that all runs have kept.
    """
    *others, latest = sorted(runs, key=lambda run: run.created_at)
    taken, seeds = [latest], set(latest.seeds)
    for run in reversed(others):
        if _alike(run, latest) and seeds.isdisjoint(run.seeds):
            taken.append(run)
            seeds |= set(run.seeds)
    if len(taken) == 1:
        return latest
    taken.sort(key=lambda run: run.seeds)
    order = sorted(range(len(seeds)), key=[seed for run in taken for seed in run.seeds].__getitem__)
    counts = [len(run.seeds) for run in taken]
    by_step = [{row["step"]: row for row in run.curves} for run in taken]
    shared = sorted(set.intersection(*(set(rows) for rows in by_step)))
    return dataclasses.replace(
        latest,
        command=" && ".join(run.command for run in taken),
        verdict=_joined([run.verdict for run in taken], counts, order),
        curves=tuple(_joined([rows[step] for rows in by_step], counts, order) for step in shared),
    )


def _alike(run: Kept, other: Kept) -> bool:
    """Whether only the seeds differ, as far as files tell: those of old versions have no
    experiment, and no batch size.
    """
    untold = any("network" not in each.experiment for each in (run, other))
    sizes = {run.batch_size, other.batch_size} - {None}
    return (
        run.steps == other.steps
        and len(sizes) < 2
        and (untold or run.experiment == other.experiment)
    )


_SPENT = ("seconds", "training_seconds")


def _joined(rows: Sequence[Mapping[str, Any]], counts: Sequence[int], order: Sequence[int]):
    """Of each quantity one value a seed; what is one number for the whole run stays that."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        known = [value for value in values if value is not None]
        if key in _SPENT:
            joined[key] = sum(known) if len(known) == len(values) else None
        elif any(isinstance(value, list) for value in known):
            each = [
                value if isinstance(value, list) else [value] * count
                for value, count in zip(values, counts, strict=True)
            ]
            flat = [item for part in each for item in part]
            joined[key] = [flat[i] for i in order]
        else:
            joined[key] = known[0] if known else None
    return joined
