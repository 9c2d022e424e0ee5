"""What is compared: tasks × methods × seeds at one budget, from options or from a file."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import in_short, open_to_read

_MAX_BYTES = 2**20
_GRID = re.compile(r"grid-([1-9]\d{0,3})x([1-9]\d{0,5})$")
_OPTION = re.compile(
    r"(?:(?P<task>[\w-]+)\.)?(?P<name>[a-z][a-z-]*)(?:=(?P<value>.*))?$", re.DOTALL
)
_TAKEN = frozenset(
    (
        *("preset", "dim", "side", "steps", "seeds", "seed", "evaluations", "draws"),
        *("out", "resume", "extend", "help"),
    )
)
"""Options of training that a suite sets itself, or that would make a run another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """Every method on every task, with the same seeds and budget.

    **Arguments:** `tasks`: "grid-DxH" for a grid of D dimensions of H, or a name of `didact list`,
    that of a diffusion task with its size behind it where both sizes are compared ("25gmm-cpu");
    `methods`: presets, "TASK:PRESET" for one of that task alone; `seeds`: so many, from `seed` on;
    `steps`: gradient steps of each, or `scale`: a share of each preset's own budget, which keeps
    reward calls equal (both None: all of it); `evaluations` on the way and `draws` of the final
    statistics as in `didact train`; `baseline`: the method that others are compared with (None:
    the first); `options` of training, "NAME=VALUE" or "TASK.NAME=VALUE" for one task; `workers`:
    cells that are trained at the same time.

    **Errors:** `ValueError` for what cannot be.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int = 3
    seed: int = 0
    steps: int | None = None
    scale: float | None = None
    evaluations: int = 12
    draws: int | None = None
    baseline: str | None = None
    options: tuple[str, ...] = ()
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("seed", 0), ("evaluations", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        for name in ("tasks", "methods"):
            listed = getattr(self, name)
            if not listed:
                raise ValueError(f"name the {name} of the suite: --{name}, or {name} in its file.")
            if len(set(listed)) != len(listed):
                raise ValueError(f"{name} must be different, got {', '.join(listed)}.")
        if self.steps is not None and self.scale is not None:
            raise ValueError("give steps or scale, not both.")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")
        if self.scale is not None and not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"scale must be above 0 and finite, got {self.scale}.")
        if self.draws is not None and self.draws < 2:
            raise ValueError(f"draws must be at least 2, got {self.draws}.")
        self._check_names()

    def _check_names(self) -> None:
        for method in self.methods:
            task, mark, _ = method.rpartition(":")
            if mark and task not in self.tasks:
                raise ValueError(f"method {method!r} is of a task that the suite has not.")
        for option in self.options:
            task, name, _ = _parsed(option)
            if task is not None and task not in self.tasks:
                raise ValueError(f"option {option!r} is of a task that the suite has not.")
            meant = self.tasks if task is None else (task,)
            told = [each for each in meant if name == "size" and sized(each)[1]]
            if told:
                raise ValueError(f"option {option!r}: {told[0]} has its size in its name.")
        named = {method.rpartition(":")[2] for method in self.methods}
        if self.baseline is not None and self.baseline not in named:
            raise ValueError(f"baseline {self.baseline!r} is none of the methods.")
        for task, method in self.pairs():
            refuse_unknown(task, method)

    def pairs(self) -> list[tuple[str, str]]:
        """Task and method of each cell, task by task."""
        return [
            (task, name)
            for task in self.tasks
            for name in dict.fromkeys(
                method.rpartition(":")[2]
                for method in self.methods
                if method.rpartition(":")[0] in ("", task)
            )
        ]

    def options_of(self, task: str) -> list[str]:
        """The words of a command line for the options of a task."""
        given = [_parsed(option) for option in self.options]
        return [
            f"--{name}" if value is None else f"--{name}={value}"
            for of, name, value in given
            if of in (None, task)
        ]


def train_words(task: str) -> list[str]:
    """How `didact train` names a task: the first word, and the size of a grid or of the budget.

    **Errors:** `ValueError` for an unknown task, naming those that there are.
    """
    size = _GRID.match(task)
    if size:
        return ["grid", "--dim", size[1], "--side", size[2]]
    from ..presets import DIFFUSION_TASKS, DISCOVERY_TASKS

    name, budget = sized(task)
    if name in DIFFUSION_TASKS or name in DISCOVERY_TASKS:
        return [name] if budget is None else [name, "--size", budget]
    known = ", ".join((*DIFFUSION_TASKS, *DISCOVERY_TASKS))
    raise ValueError(f"unknown task {task!r}; the tasks are grid-DxH (as in grid-4x16), {known}.")


def sized(task: str) -> tuple[str, str | None]:
    """A diffusion task that has its size in its name, without it, and the size; of any other task
    the name as it is, and None.
    """
    from ..presets import DIFFUSION_TASKS, SIZES

    name, _, size = task.rpartition("-")
    return (name, size) if name in DIFFUSION_TASKS and size in SIZES else (task, None)


def methods_of(task: str) -> Mapping[str, str]:
    """The methods of a task, each with a line that describes it.

    **Errors:** `ValueError` for an unknown task.
    """
    from .. import presets

    name = train_words(task)[0]
    if name == "grid":
        return presets.GRID_PRESETS
    of_vectors = name in presets.DIFFUSION_TASKS
    return presets.DIFFUSION_PRESETS if of_vectors else presets.DISCOVERY_PRESETS


def refuse_unknown(task: str, method: str) -> None:
    """`ValueError` where a task has no such method, naming those that it has."""
    known = methods_of(task)
    if method not in known:
        raise ValueError(f"{task} has no method {method!r}; it has {', '.join(known)}.")


def read_suite(path: Path) -> dict[str, Any]:
    """The fields of `Suite` that a TOML file gives, and `out`.

    **Errors:** `ValueError` that names the file where it cannot be read, or a field is unknown or
    of another type.
    """
    try:
        with open_to_read(path) as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("it is too long for a suite")
        given = tomllib.loads(text.decode())
    except OSError as error:
        raise ValueError(f"the suite {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no suite in TOML ({in_short(error)}): mend it.") from error
    fields = {field.name: field.type for field in dataclasses.fields(Suite)} | {"out": str | None}
    for name, value in given.items():
        if name not in fields:
            raise ValueError(
                f"{path} has an unknown field {name!r}; known are {', '.join(fields)}."
            )
        if not _fits(value, fields[name]):
            wanted = _IN_WORDS[fields[name]]
            raise ValueError(f"{path}: {name} must be {wanted}, got {ascii(value)[:80]}.")
    if "scale" in given:
        given["scale"] = float(given["scale"])
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}


_IN_WORDS: dict[Any, str] = {
    tuple[str, ...]: "a list of strings",
    int: "a whole number",
    int | None: "a whole number",
    float | None: "a number",
    str | None: "a string",
}


def _fits(value: Any, kind: Any) -> bool:
    if kind == tuple[str, ...]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return False
    if kind == float | None:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _parsed(option: str) -> tuple[str | None, str, str | None]:
    """Task, name and value of an option.

    **Errors:** `ValueError` for what is none, or what a suite sets itself.
    """
    parts = _OPTION.match(option)
    if parts is None:
        raise ValueError(f"options must be NAME=VALUE or TASK.NAME=VALUE, got {option!r}.")
    if parts["name"] in _TAKEN:
        raise ValueError(f"option {parts['name']!r} is not for a suite to give to its runs.")
    return parts["task"], parts["name"], parts["value"]
