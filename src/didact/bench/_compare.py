"""Runs beside one another: in what they differ, what came out, and how it went."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._folder import RunError, read_config
from ..report import Chapter, Comparison, Table
from ._kept import Kept, keep
from ._results import READING
from ._tables import Group, about, charts, differences, table

_MOST_RUNS = 26
_MOST_ROWS = 200
_ABSENT = "–"


def compare(folders: Sequence[Path]) -> Comparison:
    """What is to be said of two or more runs; the first is the one that others are compared with.

    **Errors:** `RunError` where a folder is no run or has no verdict, or there are too few or too
    many of them.
    """
    if not 2 <= len(folders) <= _MOST_RUNS:
        raise RunError(f"compare takes 2 to {_MOST_RUNS} run folders, got {len(folders)}.")
    runs = [keep(folder) for folder in folders]
    letters = tuple(string.ascii_uppercase[: len(runs)])
    group = Group(runs[0].task, tuple(runs), letters)
    apart = differences(group, short=False)
    tables = (table(group, short=False), *([] if apart is None else [apart]))
    configurations = [read_config(folder) for folder in folders]
    named = [(letter, str(folder)) for letter, folder in zip(letters, folders, strict=True)]
    same_task = len({run.task for run in runs}) == 1
    return Comparison(
        title=f"{len(runs)} runs side by side",
        kicker="didact · comparison of runs",
        lead=(
            "In what the runs differ, what the trained Students are like, and how they came "
            f"there. The others are compared with {letters[0]}, where they share seeds."
        ),
        facts=tuple(named),
        warnings=_warnings(runs, letters, same_task=same_task),
        chapters=(
            Chapter("differ", "What differs", tables=(differing(configurations, letters),)),
            Chapter("verdicts", "Verdicts", about(group) if same_task else (), tables),
            Chapter("courses", "On the way", charts=tuple(charts(group))),
            Chapter("reading", "How to read this", READING),
            Chapter(
                "commands",
                "Commands",
                commands=tuple(
                    (run.command, letter) for letter, run in zip(letters, runs, strict=True)
                ),
            ),
        ),
    )


def differing(configurations: Sequence[Mapping[str, Any]], letters: Sequence[str]) -> Table:
    """The settings in which configurations differ, one a row."""
    flat = [flattened(_settings(config)) for config in configurations]
    names = list(dict.fromkeys(name for each in flat for name in each))
    rows = []
    for name in names:
        found = [each.get(name, _ABSENT) for each in flat]
        if len(set(found)) > 1:
            rows.append((name, *found))
    if not rows:
        rows = [("all settings", *("the same" for _ in letters))]
    more = len(rows) - _MOST_ROWS
    if more > 0:
        rows = [*rows[:_MOST_ROWS], (f"and {more} more", *("…" for _ in letters))]
    return Table(("setting", *letters), tuple(rows))


def flattened(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text; a list of plain values is one setting."""
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        items = ((str(i), item) for i, item in enumerate(value))
    else:
        return {prefix: _text(value)}
    found: dict[str, str] = {}
    for name, item in items:
        found |= flattened(item, f"{prefix}.{name}" if prefix else str(name))
    return found


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration makes the run what it is."""
    summary = config.get("summary")
    options = summary.get("options") if isinstance(summary, Mapping) else None
    options = options if isinstance(options, Mapping) else {}
    of_the_end = {name: options[name] for name in ("evaluations", "draws") if name in options}
    said = {"preset": options["preset"]} if "preset" in options else {}
    versions = {"didact_version": config.get("didact_version")}
    return said | {"seeds": config["seeds"]} | of_the_end | config["experiment"] | versions


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)


def _warnings(runs: Sequence[Kept], letters: Sequence[str], *, same_task: bool) -> tuple[str, ...]:
    lines = [
        f"{letter} is not at its end: its verdict is that of step {run.steps:,}."
        for letter, run in zip(letters, runs, strict=True)
        if run.verdict.get("finished") is False
    ]
    if not same_task:
        lines.append("The runs are not of one task: their numbers do not measure the same.")
    return tuple(lines)
