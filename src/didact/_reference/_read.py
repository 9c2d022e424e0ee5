"""Reader of `values.toml`."""

import functools
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Literal, NamedTuple

Kind = Literal["published", "quoted", "code", "exact"]
KINDS: dict[str, str] = {
    "published": "in a published table",
    "quoted": "quoted from later texts, not seen in the original",
    "code": "the published code, run by us",
    "exact": "computed exactly",
}
"""What each kind of origin means."""
_FORMAT_VERSION = 1
_OF_A_GROUP = frozenset(("task", "origin", "rows", "reward_calls", "steps"))


class Reference(NamedTuple):
    """One number that is not didact's: `error` is its standard error, where it has one; `kind` and
    `origin` say where it is from; `reward_calls`, `steps`: the budget it was measured at, where
    that is known.
    """

    task: str
    method: str
    metric: str
    value: float
    error: float | None
    kind: Kind
    origin: str
    reward_calls: int | None
    steps: int | None


def references(task: str | None = None) -> tuple[Reference, ...]:
    """All reference values, or those of a task, in the order of the file."""
    return tuple(found for found in _all() if task in (None, found.task))


def notes(part: str) -> tuple[str, ...]:
    """In what the published experiments and these differ: "grid", "diffusion" or "biochem"."""
    return tuple(_data()["notes"].get(part, ()))


@functools.cache
def _all() -> tuple[Reference, ...]:
    data = _data()
    return tuple(found for group in data["group"] for found in _of_group(group, data["origins"]))


@functools.cache
def _data() -> Mapping[str, Any]:
    text = resources.files("didact._reference").joinpath("values.toml").read_text("utf-8")
    data = tomllib.loads(text)
    if data.get("format_version") != _FORMAT_VERSION:
        raise ValueError("values.toml is of another version than this package: install it anew.")
    return data


def _of_group(group: Mapping[str, Any], origins: Mapping[str, Any]) -> Iterator[Reference]:
    unknown = group.keys() - _OF_A_GROUP
    if unknown:
        raise ValueError(f"values.toml: a group of {group['task']} has {sorted(unknown)}.")
    origin = origins[group["origin"]]
    if origin["kind"] not in KINDS:
        raise ValueError(f"values.toml: {origin['kind']!r} is no kind of origin.")
    for row in group["rows"]:
        for metric, value in row.items():
            if metric == "method":
                continue
            number, error = value if isinstance(value, list) else (value, None)
            yield Reference(
                group["task"],
                row["method"],
                metric,
                float(number),
                None if error is None else float(error),
                origin["kind"],
                origin["text"],
                group.get("reward_calls"),
                group.get("steps"),
            )
