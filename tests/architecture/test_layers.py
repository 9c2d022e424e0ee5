"""The layers of the package, checked by reading its imports.

A file may import from the rows below its own and, inside its row, from names to its right. Read
row by row, the table is therefore one list in which every import points onwards. Files of one
package import each other freely. Imports inside functions and under `if TYPE_CHECKING` count.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# A name with a slash is a package, one without is a single file.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli/", "bench/", "_reference/", "_fit/", "presets/"),
    (
        *("testing/", "run", "samples", "_loop", "_trouble", "_record", "_judge", "_folder"),
        *("_probe", "_describe", "checkpoint", "_train", "_experiment", "logging", "report/"),
        *("_diagnostics", "_found", "_snapshots", "_density"),
    ),
    ("behaviours/", "metrics/"),
    (
        *(
            "_sampler",
            "environments/",
            "targets/",
            "novelty",
            "networks/",
            "replay",
            "_seen",
            "_rows",
            "_apart",
            "_sharding",
            "_host/",
            "datasets/",
        ),
        "chem",
    ),
    (
        *("objectives/", "teacher/", "_kernels", "_constraints", "_types", "_config", "_checks"),
        *("_files", "_json", "_archive", "_blocks"),
    ),
)

SOURCE = Path(__file__).parents[2] / "src" / "didact"
ENTRY_POINTS = ("__init__", "__main__")  # stand above the table: they may import everything
VERSION = "_version"  # stands below the table: everything may import it

_NAMES = [name for row in LAYERS for name in row]
_PLACE = {name.rstrip("/"): place for place, name in enumerate([*_NAMES, VERSION])}


def _owner(file: Path) -> str:
    """The name of the table that a file belongs to; `file` is relative to the package."""
    return file.parts[0].removesuffix(".py")


def _imports(root: Path, file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and imported names below the package, for each import from it; () is the package."""
    # Containing package of the file, as names below the root: `objectives/tb.py` is in objectives.
    here = file.parts[:-1]
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == root.name:
                    # Without `as`, the statement binds the package itself.
                    yield node.lineno, tuple(rest) if alias.asname else ()
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                module = here[: len(here) - node.level + 1] + module
            elif module[0] == root.name:
                module = module[1:]
            else:
                continue
            for alias in node.names:
                yield node.lineno, module or (() if alias.name == "*" else (alias.name,))


def _misplaced(root: Path, files: list[Path]) -> Iterator[str]:
    """One message for each top-level name that the table does not have, or has as another kind."""
    for name, is_package in sorted({(_owner(file), len(file.parts) > 1) for file in files}):
        if name in ENTRY_POINTS or (name == VERSION and not is_package):
            continue
        shown = f"{root.name}/{name}" + ("/" if is_package else ".py")
        if name not in _PLACE:
            yield f"{shown} has no layer: add it to the table LAYERS in {__file__}"
        elif (name + "/" if is_package else name) not in _NAMES:
            kind = "single file" if is_package else "package"
            yield f"{shown} should be a {kind}, as the table LAYERS has it"


def violations(root: Path) -> list[str]:
    """All breaches of the layers in the package at `root`, as messages with file and line."""
    files = sorted(file.relative_to(root) for file in root.rglob("*.py"))
    found = list(_misplaced(root, files))
    for file in files:
        owner = _owner(file)
        if owner in ENTRY_POINTS or owner not in _PLACE:
            continue
        for line, target in _imports(root, file):
            where = f"{root.name}/{file.as_posix()}:{line}"
            top = target[0] if target else None
            if top is None or top not in _PLACE:
                named = ".".join((root.name, *target))
                found.append(f"{where} imports {named}: name the module of the table it stands in")
            elif top != owner and _PLACE[top] <= _PLACE[owner]:
                found.append(f"{where}: {owner} may not import {top}, which is above or left of it")
    return found


def _write(root: Path, files: dict[str, str]) -> Path:
    package = root / "didact"
    for name, text in files.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return package


def test_the_package_keeps_to_its_layers() -> None:
    assert any(SOURCE.rglob("*.py"))
    assert not violations(SOURCE), "\n" + "\n".join(violations(SOURCE))


def test_no_name_stands_in_the_table_twice() -> None:
    assert len({name.rstrip("/") for name in _NAMES}) == len(_NAMES)


def test_allowed_imports_pass(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from didact import cli, objectives\nfrom .cli import main\n",
        "__main__.py": "from didact.cli import main\n",
        "_version.py": "__version__ = '0'\n",
        "cli/__init__.py": "import logging\nimport didact._fit as f\nfrom .. import _fit\n",
        "_fit/__init__.py": "def fit():\n    from didact._train import train\n",
        "_train.py": "from . import _experiment\nfrom .objectives import TB\n",
        "_experiment.py": "from ._types import Batch\n",
        "_types.py": "import jax\n",
        "objectives/__init__.py": "from .tb import TB\nfrom didact.objectives import tb\n",
        "objectives/tb.py": "from . import loss\nfrom .._types import Batch\n",
        "objectives/loss.py": "from didact.objectives.tb import TB\n",
    }
    assert violations(_write(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("replay.py", "from didact._train import train", "replay may not import _train"),
        ("replay.py", "from didact import _train", "replay may not import _train"),
        ("replay.py", "import didact._train as t", "replay may not import _train"),
        ("replay.py", "from . import _train", "replay may not import _train"),
        ("replay.py", "from ._train import train", "replay may not import _train"),
        ("replay.py", "from ._train import *", "replay may not import _train"),
        ("targets/grid.py", "from ..replay import x\nfrom .. import cli", "grid.py:2: targets may"),
        ("targets/a/b.py", "from ...metrics.tv import x", "targets may not import metrics"),
        ("_experiment.py", "from ._train import train", "_experiment may not import _train"),
        ("_types.py", "from . import _kernels", "_types may not import _kernels"),
        ("_types.py", "def f():\n    from . import _kernels", "_types.py:2: _types may"),
        ("_types.py", "if TYPE_CHECKING:\n    from . import _kernels", "_types.py:2: _types"),
        ("_version.py", "from . import _types", "_version may not import _types"),
        ("_train.py", "import didact", "_train.py:1 imports didact:"),
        ("_train.py", "import didact.replay", "_train.py:1 imports didact:"),
        ("_train.py", "from didact import *", "_train.py:1 imports didact:"),
        ("_train.py", "from didact import train", "_train.py:1 imports didact.train:"),
        ("_train.py", "from . import __main__", "_train.py:1 imports didact.__main__:"),
        ("_helpers.py", "", "didact/_helpers.py has no layer: add it to the table"),
        ("helpers/x.py", "", "didact/helpers/ has no layer: add it to the table"),
        ("objectives.py", "", "didact/objectives.py should be a package"),
        ("replay/x.py", "", "didact/replay/ should be a single file"),
    ],
)
def test_each_breach_is_found(tmp_path: Path, file: str, text: str, message: str) -> None:
    (found,) = violations(_write(tmp_path, {file: text}))
    assert message in found
