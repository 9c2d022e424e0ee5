"""What makes a reward function the same function: its address, and a version of it."""

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ._pool import HostError

_INSTALLED = ("site-packages", "dist-packages")


def address_of(function: Callable[..., Any]) -> str:
    """Where a function is, "module:name", as configurations name it."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}:{name}"


def is_importable(function: Callable[..., Any]) -> bool:
    """Whether the function is what its address says: no lambda and no function within another."""
    module, _, name = address_of(function).partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is function


def folder_of(function: Callable[..., Any]) -> Path | None:
    """The folder that the module of a function is imported from; None where there is no file."""
    file = _file_of(function)
    if file is None:
        return None
    depth = function.__module__.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


def version_of(function: Callable[..., Any], key: str | None) -> str:
    """A digest that changes when the function does: of the `key` where the user gives one, else of
    the program in its module and in all modules beside it that this one imports.

    Comments and the layout of the text do not matter.

    **Errors:** `HostError` where there is neither a key nor a program that can be read, or where a
    file was edited after it was imported, so that it is not what runs.
    """
    digest = hashlib.sha256(address_of(function).encode())
    if key is not None:
        digest.update(b"\0key\0" + key.encode())
        return digest.hexdigest()
    file, folder = _file_of(function), folder_of(function)
    if file is None or folder is None or not is_importable(function):
        raise HostError(
            f"the version of {address_of(function)} is unknown, as it is not defined at the top of "
            "a module with a file: give a cache_key, which names its version, or cache=False."
        )
    loaded = {getattr(module, "__file__", None): module for module in [*sys.modules.values()]}
    for name, program in sorted(_programs(file, folder, function)):
        module = loaded.get(str(folder / name))
        if module is not None and _was_edited(module):
            raise HostError(
                f"{folder / name} was edited after it was imported, so that the function is not "
                "what the file says: importlib.reload it, or start Python anew."
            )
        digest.update(f"\0{name}\0{program}".encode())
    return digest.hexdigest()


def _file_of(function: Callable[..., Any]) -> Path | None:
    name = getattr(sys.modules.get(function.__module__), "__file__", None)
    file = None if name is None else Path(name).absolute()
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


def _was_edited(module: ModuleType) -> bool:
    """Whether the file of a module has changed since Python compiled it, where that can be told:
    the compiled file holds the second and the size of its source (PEP 552).
    """
    try:
        compiled = Path(module.__cached__).read_bytes()[:16]
        source = Path(str(module.__file__)).stat()
    except (OSError, AttributeError, TypeError):  # not kept, or not in a file
        return False
    flags, second, size = (int.from_bytes(compiled[i : i + 4], "little") for i in (4, 8, 12))
    now = int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF
    return len(compiled) == 16 and flags == 0 and (second, size) != now


def _programs(file: Path, folder: Path, function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Name and program of a module, and of those that it imports from the same folder; where that
    is one of installed packages, from the same package.
    """
    own = (function.__module__.partition(".")[0], file.name)
    installed = any(part in _INSTALLED for part in folder.parts)
    waiting, known = [file], {file}
    while waiting:
        here = waiting.pop()
        try:
            tree = ast.parse(here.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            raise HostError(
                f"the version of {address_of(function)} is unknown, as {here} cannot be read "
                f"({error}): give a cache_key, which names its version."
            ) from error
        yield here.relative_to(folder).as_posix(), ast.unparse(tree)
        for found in _imported(tree, here, folder):
            if installed and found.relative_to(folder).parts[0] not in own:
                continue
            if found not in known and found.is_file():
                known.add(found)
                waiting.append(found)


def _imported(tree: ast.AST, file: Path, folder: Path) -> Iterator[Path]:
    """Where below a folder the modules may be that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names, base = [alias.name for alias in node.names], folder
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names]
            base = file.parents[node.level - 1] if node.level else folder
        else:
            continue
        for name in names:
            place = base
            for part in name.split("."):
                place = place / part
                yield from (place.with_name(f"{part}.py"), place / "__init__.py")
