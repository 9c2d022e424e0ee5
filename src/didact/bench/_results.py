"""What a suite leaves: one JSON object, and one page."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._files import write_whole
from .._version import __version__
from ..metrics import finite_or_none
from ..report import Chapter, Comparison
from ..report._numbers import number
from ._metrics import METRICS, all_values
from ._statistics import LEVEL
from ._tables import Group, chapter, difference, groups
from ._work import Outcome

FORMAT_VERSION = 1

READING = (
    "Values are means ± standard errors over seeds, of the last state of training. Modes found "
    + "were visited by some batch of training; modes held get at least half of their probability "
    + "from the trained Student: only these show up in its samples.",
    "Differences are taken seed by seed, with intervals from Student’s t that hold the mean "
    + f"difference in {100 * LEVEL:.0f} of 100 repeated experiments; a star marks those that leave "
    + "out 0. With many columns and methods some do so by chance. Seeds are the same for all "
    + "methods; networks begin alike only where methods have the same parts.",
    "What training costs is said twice: reward calls, evaluations of the target or its gradient, "
    + "and gradient steps of each sampler. With a buffer, steps learn from objects that are "
    + "already paid for. Seconds of training include compilation.",
)
"""How to read tables of several methods."""


def write_json(
    path: Path, suite: Mapping[str, Any], outcomes: Sequence[Outcome], baseline: str | None
) -> None:
    """Write what is known of each cell: its costs, and every number of its verdict by seed."""
    kept = [outcome.kept for outcome in outcomes if outcome.kept is not None]
    value = {
        "format_version": FORMAT_VERSION,
        "didact_version": __version__,
        "suite": dict(suite),
        "cells": [_cell(outcome) for outcome in outcomes],
        "differences": [row for group in groups(kept, baseline) for row in _differences(group)],
    }
    text = json.dumps(finite_or_none(value), indent=1, allow_nan=False)
    with write_whole(path) as file:
        file.write(f"{text}\n".encode())


def _cell(outcome: Outcome) -> dict[str, Any]:
    cell, kept = outcome.cell, outcome.kept
    said = {
        "task": cell.task,
        "method": cell.method,
        "state": outcome.state,
        "error": outcome.error,
        "command": cell.command,
        "seeds": list(cell.seeds),
        "batch_size": cell.batch_size,
        "gradient_steps": cell.steps,
        "reward_calls": cell.reward_calls,
    }
    if kept is None:
        return said
    return said | {
        "reward_calls": kept.reward_calls,
        "training_seconds": kept.verdict.get("training_seconds"),
        "exact": kept.verdict.get("exact"),
        "num_modes": kept.verdict.get("num_modes"),
        "log_z_true": kept.verdict.get("log_z_true"),
        "values": all_values(kept),
    }


def _differences(group: Group) -> list[dict[str, Any]]:
    found = []
    for label, kept in group.others():
        for metric in METRICS:
            apart = difference(kept, group.base, metric)
            if apart is not None:
                found.append(
                    {
                        "task": group.task,
                        "method": label,
                        "baseline": group.labels[group.baseline],
                        "metric": metric.key,
                        "level": LEVEL,
                        **apart._asdict(),
                    }
                )
    return found


def comparison(
    outcomes: Sequence[Outcome], baseline: str | None, out: Path, command: str
) -> Comparison:
    """The page of a suite."""
    kept = [outcome.kept for outcome in outcomes if outcome.kept is not None]
    tasks = list(dict.fromkeys(outcome.cell.task for outcome in outcomes))
    methods = list(dict.fromkeys(outcome.cell.method for outcome in outcomes))
    of_each = (*map(chapter, groups(kept, baseline)),)
    one_method, one_task = len(methods) == 1, len(tasks) == 1
    return Comparison(
        title=f"{', '.join(methods)} on {', '.join(tasks)}",
        kicker="didact · comparison of methods",
        lead=(
            f"{number(len(methods))} method{'' if one_method else 's'} on {number(len(tasks))} "
            f"task{'' if one_task else 's'}, each with the same seeds. {READING[0]}"
        ),
        facts=(
            ("Cells", f"{len(kept)} of {len(outcomes)} finished"),
            ("Seeds of each", _seeds(outcomes)),
            ("didact", __version__),
        ),
        warnings=problems(outcomes),
        chapters=(*of_each, _how_to_read(), _how_to_repeat(outcomes, out, command)),
    )


def problems(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What is wrong with cells, a line each."""
    lines = []
    for outcome in outcomes:
        if outcome.error:
            lines.append(f"{outcome.cell.name} failed: {outcome.error}")
        elif outcome.kept is None:
            lines.append(f"{outcome.cell.name} has not finished.")
    return tuple(lines)


def _how_to_read() -> Chapter:
    return Chapter("reading", "How to read this", READING)


def _how_to_repeat(outcomes: Sequence[Outcome], out: Path, command: str) -> Chapter:
    lines = [(command, "made this page; once more, it trains only what has not finished")]
    lines += [(o.cell.command, f"{o.cell.name}, {o.state}") for o in outcomes]
    lines.append(
        (f"didact report {shlex.quote(str(out / 'cells'))}/NAME", "writes the page of one of them")
    )
    return Chapter("repeat", "Repeat", commands=tuple(lines))


def _seeds(outcomes: Sequence[Outcome]) -> str:
    listed = dict.fromkeys(outcome.cell.seeds for outcome in outcomes)
    return "; ".join(", ".join(map(str, seeds)) for seeds in listed)
