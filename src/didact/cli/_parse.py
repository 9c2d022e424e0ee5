"""Words of a command line to options, and options to words."""

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ._process import BadInput

Options = TypeVar("Options")


def parse(options: type[Options], command: str, arguments: list[str]) -> Options:
    """Parse the options of a command; tyro's boxed errors become one line.

    **Errors:** `BadInput` for what the command does not take.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                options,
                prog=f"didact {command}",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        message = _message(errors.getvalue(), command)
        raise BadInput(f"{message} (didact {command} --help shows the options)") from None


def words(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    found = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(option)
        elif str(value).startswith("-"):  # it would be read as an option
            found.append(f"{option}={value}")
        else:
            found += [option, str(value)]
    return found


def named_function(option: str, address: str) -> Callable[..., Any]:
    """The function that the user named as module:function. Importing it runs their module: they
    asked for it.

    **Errors:** `BadInput` where there is none.
    """
    module, _, name = address.partition(":")
    if not module or not name or module.startswith("."):
        raise BadInput(f"{option} must be module:function, got {address!r}.")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise BadInput(f"{option} {address}: {error}; run it where {module}.py is.") from error
    finally:
        with contextlib.suppress(ValueError):  # the module may have changed the path
            sys.path.remove(here)
    if not callable(found):
        raise BadInput(f"{option} {address}: {module} has no function {name}.")
    return found


_KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "int()": "a whole number",
    "float": "a number",
}
_NO_NUMBER = (
    re.compile(r"Error parsing (--\S+): .*\b(INT|FLOAT)\b.* from \['(.*)'\]\.?$"),
    re.compile(r"Error parsing (--\S+): invalid literal for (int\(\)) with base 10: '(.*)'$"),
    re.compile(r"Error parsing (--\S+): could not convert string to (float): '(.*)'$"),
)


def _message(text: str, command: str) -> str:
    """What is wrong, from tyro's page: a title, the message, and help, with rules between."""
    blocks = [
        " ".join(re.sub("[╭╮╰╯│]", " ", block).split()) for block in re.split("[-─]{4,}", text)
    ]
    message = (blocks[1:] or blocks)[0].split("Got errors:")[0].strip()
    meant = re.search(r"Perhaps you meant: (--\S+)", " ".join(blocks))
    if re.match(r"Missing from didact \S+: RUN\b", message):
        return f"name the run folder: didact {command} RUN"
    for pattern in _NO_NUMBER:
        if wrong := pattern.match(message):
            return f"{wrong[1]} takes {_KINDS[wrong[2]]}, got {wrong[3]!r}"
    return message + (f"; did you mean {meant[1]}?" if meant else "")
