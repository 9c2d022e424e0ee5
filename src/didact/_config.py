"""Configurations as JSON, and back.

A configuration is written as its class and the arguments of its constructor, never as its
bytes: reading one calls constructors of didact's public classes, which check their arguments,
and nothing else.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any

_HOMES = (
    "behaviours",
    "environments",
    "networks",
    "objectives",
    "replay",
    "targets",
    "teacher",
    "_experiment",  # last: it imports names from the others
)


def to_json(value: Any) -> Any:
    """A configuration as JSON values. Objects become {"type": "home.Name", **arguments}."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, FunctionType):
        return {"function": _address(value)}
    if not dataclasses.is_dataclass(value):
        raise ValueError(f"a configuration cannot hold a {type(value).__name__}: {value!r}.")
    arguments = inspect.signature(type(value)).parameters
    return {"type": _address(type(value))} | {
        name: to_json(getattr(value, name)) for name in arguments
    }


def from_json(value: Any, given: Mapping[str, Any] | None = None) -> Any:
    """The inverse of `to_json`.

    **Arguments:** `given`: values for addresses that are not didact's own ("module:Name"),
    by address: a stranger's file can name such a thing but never have it imported.

    **Errors:** `ValueError` naming what cannot be read.
    """
    if isinstance(value, list):
        return tuple(from_json(item, given) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"function"}:
        return _resolve(value["function"], given)
    if "type" not in value:
        raise ValueError("the configuration holds an object without a type.")
    arguments = {k: from_json(v, given) for k, v in value.items() if k != "type"}
    made = _resolve(value["type"], given)
    if not isinstance(made, type):
        return made
    try:
        return made(**arguments)
    except TypeError as error:
        raise ValueError(f"the configuration of {value['type']} does not fit: {error}") from error


def _address(thing: Any) -> str:
    for home in _HOMES:
        module = importlib.import_module(f"{__package__}.{home}")
        if getattr(module, thing.__name__, None) is thing:
            return f"{home}.{thing.__name__}"
    return f"{thing.__module__}:{thing.__qualname__}"


def _resolve(address: Any, given: Mapping[str, Any] | None) -> Any:
    if given is not None and address in given:
        return given[address]
    home, _, name = str(address).partition(".")
    if home in _HOMES and name.isidentifier() and not name.startswith("_"):
        module = importlib.import_module(f"{__package__}.{home}")
        found = getattr(module, name, None)
        if found is not None and str(getattr(found, "__module__", "")).startswith("didact."):
            return found
    raise ValueError(f"the configuration names {address!r}, which is not part of didact.")
