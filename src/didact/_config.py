"""Configurations as JSON, and back.

A configuration is written as its class and the arguments of its constructor, never as its
bytes: reading one calls constructors of didact's public classes, which check their arguments,
and nothing else.
"""

import dataclasses
import importlib
import inspect
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np


class ForeignName(ValueError):
    """A configuration names what is not didact's own, and it was not given."""


_HOMES = (
    "behaviours",
    "environments",
    "networks",
    "novelty",
    "objectives",
    "replay",
    "targets",
    "teacher",
    "_experiment",  # last: it imports names from the others
)


_MOST = {"depth": 256, "num_steps": 100_000, "dim": 2**18, "side": 2**20, "length": 2**12}
_MOST_OF = {
    "environments.Hypergrid": {"dim": 1_000},
    "targets.DeceptiveGrid": {"dim": 1_000},
    "targets.Checkerboard": {"squares": 2**11},
    "targets.LogGaussianCox": {"side": 64},
    "targets.LogisticRegression": {"dim": 2**12, "num_observations": 2**12},
}
"""Sizes that a configuration may say: beyond them tables and loops that follow from these few words
would take memory and time without end, before anything else of a file can be compared with them.
"""
_MOST_ELSEWHERE = 2**32
_MOST_PARTS = 1_000
"""Of a schedule, each of which is compared with the others."""


def to_json(value: Any) -> Any:
    """A configuration as JSON values. Objects become {"type": "home.Name", **arguments}.

    **Errors:** `ValueError` for what a configuration cannot hold, and for sizes that `from_json`
    would refuse.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no number for it
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return _parts([to_json(item) for item in value])
    if callable(value) and hasattr(value, "__qualname__"):  # a function, perhaps under `jit`
        return {"function": _address(value)}
    if not dataclasses.is_dataclass(value):
        raise ValueError(f"a configuration cannot hold a {type(value).__name__}: {value!r}.")
    arguments = inspect.signature(type(value)).parameters
    for name in arguments:
        if not hasattr(value, name):
            raise ValueError(
                f"a configuration cannot hold a {type(value).__name__}: its constructor takes "
                f"{name}, and it has no field of that name."
            )
    # How a thing is computed here is no part of what it is, and nothing for a stranger to decide.
    local = getattr(type(value), "execution", ())
    address = _address(type(value))
    given = {name: getattr(value, name) for name in arguments if name not in local}
    if ":" not in address:
        _require_sizes(address, given)
    return {"type": address} | {name: to_json(item) for name, item in given.items()}


def from_json(value: Any, given: Mapping[str, Any] | None = None) -> Any:
    """The inverse of `to_json`.

    **Arguments:** `given`: values for addresses that are not didact's own ("module:Name"),
    by address: a stranger's file can name such a thing but never have it imported.

    **Errors:** `ValueError` naming what cannot be read.
    """
    if isinstance(value, list):
        return tuple(from_json(item, given) for item in _parts(value))
    if not isinstance(value, dict):
        return value
    if set(value) == {"float"}:
        return float(value["float"])
    if set(value) == {"function"}:
        return _resolve(value["function"], given)
    if "type" not in value:
        raise ValueError("the configuration holds an object without a type.")
    arguments = {k: from_json(v, given) for k, v in value.items() if k != "type"}
    made = _resolve(value["type"], given)
    if not isinstance(made, type):
        return made
    try:
        if made.__module__.startswith(f"{__package__}."):
            _check(arguments, made)
            _require_sizes(value["type"], arguments)
        return made(**arguments)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the configuration of {value['type']} does not fit: {error}") from error


def renewed(value: Any) -> Any:
    """JSON of an older version as that of this one: arguments that it did not have yet get their
    defaults. What is not didact's own is not needed for it, and stays as it is; so does what
    cannot be read.
    """
    if isinstance(value, list):
        return [renewed(item) for item in value]
    if not isinstance(value, dict):
        return value
    if not foreign_names(value):
        try:
            return to_json(from_json(value))
        except (ValueError, RecursionError):
            return value
    parts = {name: renewed(item) for name, item in value.items()}
    try:
        made = _resolve(value.get("type"), None)
    except ValueError:
        return parts
    if not (isinstance(made, type) and dataclasses.is_dataclass(made)):
        return parts
    return {name: to_json(default) for name, default in _defaults(made).items()} | parts


def _defaults(made: type) -> dict[str, Any]:
    """Of the arguments of a class that a configuration says."""
    local = getattr(made, "execution", ())
    parameters = [p for p in inspect.signature(made).parameters.values() if p.name not in local]
    found = {p.name: p.default for p in parameters if p.default is not p.empty}
    for field in dataclasses.fields(made):
        if field.name in found and field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _check(arguments: Mapping[str, Any], made: type) -> None:
    """`TypeError` for an argument of another type than its field says."""
    hints = get_type_hints(made)
    local = getattr(made, "execution", ())
    for name, value in arguments.items():
        if name in local:
            raise TypeError(f"{name} is not for a configuration to say")
        if not _fits(value, hints.get(name, object)):
            raise TypeError(f"{name} cannot be {value!r}")


def _require_sizes(address: str, arguments: Mapping[str, Any]) -> None:
    """`ValueError` for a size that no configuration may say."""
    for name, value in arguments.items():
        most = _MOST_OF.get(address, {}).get(name, _MOST.get(name, _MOST_ELSEWHERE))
        if isinstance(value, int) and value > most:
            raise ValueError(f"{name} of {address} may be at most {most:,} in a configuration.")


def _parts(items: list[Any]) -> list[Any]:
    """A list, unless it has too many objects."""
    if len(items) > _MOST_PARTS and any(isinstance(item, dict) for item in items):
        raise ValueError(f"a configuration may list at most {_MOST_PARTS:,} objects.")
    return items


def foreign_names(configuration: Any) -> tuple[str, ...]:
    """Addresses in a configuration's JSON that are not part of didact, each once."""
    found: list[str] = []
    waiting = [configuration]  # a damaged file may nest deeper than functions can
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            names = (value.get("type"), value.get("function"))
            found += [name for name in names if isinstance(name, str) and ":" in name]
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)
    return tuple(dict.fromkeys(found))


def require_types(configuration: Any) -> None:
    """`ValueError` for a field of another type than it says: what a constructor takes, a saved
    configuration must give back. Arrays and traced values pass.
    """
    for name, hint in get_type_hints(type(configuration)).items():
        value = getattr(configuration, name)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool | int | float | str | None) and not _fits(value, hint):
            raise ValueError(f"{name} cannot be {value!r}: it is of another type.")


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        each = get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(item, each) for item in value)
    if origin is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return origin is Any or not isinstance(origin, type) or isinstance(value, origin)


def _address(thing: Any) -> str:
    for home in _HOMES:
        module = importlib.import_module(f"{__package__}.{home}")
        if getattr(module, thing.__name__, None) is thing:
            return f"{home}.{thing.__name__}"
    return f"{thing.__module__}:{thing.__qualname__}"


def _resolve(address: Any, given: Mapping[str, Any] | None) -> Any:
    if not isinstance(address, str):
        raise ValueError(f"it names {address!r}, which is not part of didact.")
    if given is not None and address in given:
        return given[address]
    home, _, name = address.partition(".")
    if home in _HOMES and name.isidentifier() and not name.startswith("_"):
        module = importlib.import_module(f"{__package__}.{home}")
        found = getattr(module, name, None)
        if found is not None and str(getattr(found, "__module__", "")).startswith("didact."):
            return found
    if ":" in address:
        raise ForeignName(
            f"it names {address!r}, which is not part of didact: hand it over from Python, "
            f"given={{{address!r}: ...}}"
        )
    raise ValueError(f"it names {address!r}, which is not part of didact.")
