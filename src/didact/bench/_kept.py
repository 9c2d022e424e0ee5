"""What is kept of a finished run: its command, its verdict and its curves, in one small file."""

import dataclasses
import datetime
import itertools
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import in_short, make_folder, read_object, write_whole
from .._folder import read_config
from .._judge import read_record, read_verdict
from ..metrics import finite_or_none

FORMAT_VERSION = 1
_MOST_POINTS = 100
_COURSES = frozenset(
    (
        *("modes_found", "modes_held", "mode_mass_recall", "tv", "log_z_error", "elbo", "eubo"),
        *("distinct", "spearman", "mean_value", "ess", "log_z_estimate", "modes_reached"),
    )
)
"""What is kept of the way, where a run has it."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """A finished run, as tables and curves need it.

    **Arguments:** `task` ("grid-4x16", "25gmm"), `method`; `command` that made it, without its
    folder; `created`; `batch_size`, None where an old file does not say; `verdict` as in
    `evaluation.json`, lists over seeds; `curves`: rows with `step`, `reward_calls`, often
    `seconds`, and what was known by then, lists over seeds; `experiment`: its configuration.
    """

    task: str
    method: str
    command: str
    created: str
    batch_size: int | None
    verdict: Mapping[str, Any]
    curves: tuple[Mapping[str, Any], ...]
    experiment: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were trained side by side."""
        return tuple(self.verdict["seeds"])

    @property
    def steps(self) -> int:
        """Gradient steps of each sampler and seed."""
        return int(self.verdict["step"])

    @property
    def reward_calls(self) -> float:
        """Rewards that training asked for, the mean over seeds."""
        calls = self.verdict.get("reward_calls")
        listed = calls if isinstance(calls, list) else [calls]
        known = [call for call in listed if isinstance(call, int | float)]
        return sum(known) / len(known) if known else float("nan")

    @property
    def created_at(self) -> datetime.datetime:
        """When the run began; of a file that does not say, long ago."""
        try:
            when = datetime.datetime.fromisoformat(self.created)
        except ValueError:
            return datetime.datetime.min.replace(tzinfo=datetime.UTC)
        return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        cell = {"format_version": FORMAT_VERSION, "task": self.task, "preset": self.method}
        cell |= {"command": self.command, "created": self.created, "batch_size": self.batch_size}
        cell |= {"experiment": self.experiment, "verdict": self.verdict, "curves": self.curves}
        text = json.dumps(finite_or_none(cell), indent=1, allow_nan=False)
        make_folder(path.parent)
        with write_whole(path) as file:
            file.write(f"{text}\n".encode())


def keep(folder: Path) -> Kept:
    """What is to be kept of a run folder.

    **Errors:** `RunError` if it is no run, or has no verdict yet.
    """
    config, verdict = read_config(folder), read_verdict(folder)
    summary = config.get("summary")
    summary = summary if isinstance(summary, dict) else {}
    experiment = config["experiment"]
    return Kept(
        task=_task_of(summary, folder.name),
        method=str(summary.get("preset") or folder.name),
        command=without_folder(str(config.get("command", ""))),
        created=str(config.get("created", "")),
        batch_size=experiment.get("batch_size"),
        verdict=verdict,
        curves=tuple(_curves(read_record(folder))),
        experiment=experiment,
    )


def read_kept(path: Path) -> Kept | None:
    """A kept file; None for a JSON object of another kind.

    **Errors:** `ValueError` that names a file which cannot be read.
    """
    try:
        cell = read_object(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({in_short(error)}): restore it.") from error
    verdict = cell.get("verdict")
    if not isinstance(verdict, dict) or "preset" not in cell:
        return None
    if cell.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(f"{path} is of a later version of didact: update it to read this file.")
    seeds, step = verdict.get("seeds"), verdict.get("step")
    numbered = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not numbered or not isinstance(step, int):
        raise ValueError(f"{path} holds a verdict without its seeds or steps: restore it.")
    curves = cell.get("curves", [])
    whole = isinstance(curves, list) and all(isinstance(row, dict) for row in curves)
    if not whole:
        raise ValueError(f"{path} holds curves that are none: restore it.")
    return Kept(
        task=str(cell.get("task") or path.stem),
        method=str(cell["preset"]),
        command=str(cell.get("command", "")),
        created=str(cell.get("created", "")),
        batch_size=cell.get("batch_size"),
        verdict=verdict,
        curves=tuple(curves),
        experiment=cell.get("experiment", {}),
    )


def without_folder(command: str) -> str:
    """A command line without its `--out`, which is a matter of the machine that ran it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    kept = [
        word
        for before, word in itertools.pairwise(["", *words])
        if "--out" not in (before, word) and not word.startswith("--out=")
    ]
    return command if len(kept) == len(words) else shlex.join(kept)


def _task_of(labels: Mapping[str, Any], name: str) -> str:
    task, dim, side = (labels.get(key) for key in ("task", "dim", "side"))
    if task in (None, "grid") and dim is not None and side is not None:
        return f"grid-{dim}x{side}"
    return str(task or name)


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A hundred moments of the training, and the evaluations, in the order of their steps."""
    trained = [row for row in rows if row.get("kind") == "train"]
    judged = [row for row in rows if row.get("kind") == "evaluation"]
    seconds = np.cumsum([row["time"]["seconds"] for row in trained]).tolist()
    even = np.linspace(0, len(trained) - 1, min(_MOST_POINTS, len(trained))).round().astype(int)
    wanted = {trained[i]["step"] for i in even} | {row["step"] for row in judged}
    points: dict[int, dict[str, Any]] = {}
    for row, spent in zip(trained, seconds, strict=True):
        if row["step"] in wanted:
            points[row["step"]] = _point(row) | {"seconds": spent}
    for row in judged:
        before = points.get(row["step"], {"seconds": 0.0} if row["step"] == 0 else {})
        points[row["step"]] = _point(row) | before
    yield from (points[step] for step in sorted(points))


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: row[key] for key in _COURSES & row.keys() if _has_numbers(row[key])}
    return {"step": row["step"], "reward_calls": row["reward_calls"]} | known


def _has_numbers(values: Any) -> bool:
    listed: Iterable[Any] = values if isinstance(values, list) else [values]
    return any(isinstance(value, int | float) for value in listed)
