"""What the package shows to its users: docstrings, documented names, and clean files.

The public names are those in `didact.__all__`; for the modules among them, those in the module's
own `__all__`. The pages in docs/api list exactly these.
"""

import ast
import inspect
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import equinox as eqx
import pytest

import didact

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "didact"

# What no file of the repository may hold. Written so that this file passes its own test.
FORBIDDEN: dict[str, str] = {
    "an absolute path of one machine": r"(?<![\w.~/-])/(?:work|root|home|Users|opt)/",
    "a file address": r"file:[/]{2}",
    "a package index": r"pypi\.org/simple|pythonhosted\.org|(?:index-url|find-links)\b[ =]",
    "a password in an address": r":[/]{2}[^/\s:@]+:[^/\s@]+@",
    "a host of one network": r"[/]{2}(?:localhost|127\.|10\.|192\.168\.|[\w.-]+\.internal\b)",
    "an e-mail of one machine": r"\broot[@]|@(?:localhost\b|[\w-]+\.(?:local|internal|lan)\b)",
}


def public_modules() -> dict[str, ModuleType]:
    """The package and the modules in its `__all__`, by full name."""
    members = {f"didact.{name}": getattr(didact, name) for name in didact.__all__}
    return {"didact": didact} | {
        name: value for name, value in members.items() if isinstance(value, ModuleType)
    }


def public_objects() -> dict[str, object]:
    """Everything public that is no module, by full name; `__version__` and the like left out."""
    return {
        f"{module_name}.{name}": getattr(module, name)
        for module_name, module in public_modules().items()
        for name in module.__all__
        if not isinstance(getattr(module, name), ModuleType) and not name.startswith("__")
    }


def documented_names(folder: Path) -> list[str]:
    """The names in `::: name` lines of the Markdown pages below a folder."""
    pages = sorted(folder.rglob("*.md"))
    found = [re.findall(r"^::: +([\w.]+)", page.read_text("utf-8"), re.MULTILINE) for page in pages]
    return [name for names in found for name in names]


def listing_faults(objects: Mapping[str, object], listed: list[str]) -> list[str]:
    """Where a list of names differs from the public ones.

    An object that has several public names (`didact.X` and `didact.part.X`) is listed under one.
    """
    faults = [f"{name} is listed twice" for name in sorted(set(listed)) if listed.count(name) > 1]
    faults += [f"{name} is listed, but not public" for name in listed if name not in objects]
    groups: dict[int, list[str]] = {}
    for name, value in objects.items():
        groups.setdefault(id(value), []).append(name)
    for names in groups.values():
        count = len(set(names) & set(listed))
        if count != 1:
            faults.append(f"{' = '.join(names)} is public, and listed under {count} names")
    return faults


def has_docstring(value: object) -> bool:
    """Whether a public class or function has its own docstring; true for plain values."""
    if isinstance(value, type):
        doc = value.__dict__.get("__doc__") or ""
        # A dataclass without a docstring is given its signature instead.
        return bool(doc.strip()) and not doc.startswith(value.__name__ + "(")
    if not callable(value):
        return True
    doc = getattr(inspect.unwrap(value), "__doc__", None) or ""
    return bool(doc.strip())


def test_every_module_has_a_docstring() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert files
    assert not [file for file in files if not ast.get_docstring(ast.parse(file.read_text("utf-8")))]


def test_public_modules_export_what_they_say() -> None:
    for name, module in public_modules().items():
        assert len(set(module.__all__)) == len(module.__all__), name
        assert not [exported for exported in module.__all__ if not hasattr(module, exported)], name


def test_everything_public_has_a_docstring() -> None:
    assert not [name for name, value in public_objects().items() if not has_docstring(value)]


def test_the_api_pages_list_exactly_the_public_names() -> None:
    modules = public_modules()
    listed = [name for name in documented_names(ROOT / "docs" / "api") if name not in modules]
    faults = listing_faults(public_objects(), listed)
    assert not faults, "\n" + "\n".join(faults)


def test_no_file_names_a_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout to know which files belong to the repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    faults = []
    for file in files:
        data = file.read_bytes() if file.is_file() else b""
        if b"\0" not in data[:8192]:
            text = data.decode("utf-8", errors="replace")
            faults += [f"{file.relative_to(ROOT)} holds {what}" for what in forbidden(text)]
    assert not faults, "\n" + "\n".join(faults)


def forbidden(text: str) -> list[str]:
    """Which of the forbidden things a text holds."""
    return [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text)]


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (("see /wo", "rk/main"), "an absolute path of one machine"),
        (("'/ho", "me/ann/x'"), "an absolute path of one machine"),
        (("file:", "///srv"), "a file address"),
        (("https://pypi.", "org/simple"), "a package index"),
        (("--extra-index", "-url x"), "a package index"),
        (("https://ann:pw", "@example.org/"), "a password in an address"),
        (("http://local", "host:8080"), "a host of one network"),
        (("ro", "ot@box"), "an e-mail of one machine"),
        (("ann@box", ".local"), "an e-mail of one machine"),
    ],
)
def test_each_forbidden_thing_is_found(parts: tuple[str, str], what: str) -> None:
    assert what in forbidden("".join(parts))


def test_ordinary_text_is_not_forbidden() -> None:
    text = "https://example.org/home/x ~/work/x ../work/y runs/demo ann@example.org a @ b  # / c"
    assert forbidden(text) == []


def test_a_wrong_list_of_names_is_found() -> None:
    first, second = object(), object()
    objects = {"didact.a": first, "didact.part.a": first, "didact.b": second}
    assert listing_faults(objects, ["didact.part.a", "didact.b"]) == []
    assert any("didact.b is public" in fault for fault in listing_faults(objects, ["didact.a"]))
    assert listing_faults(objects, ["didact.a", "didact.part.a", "didact.b"])
    assert listing_faults(objects, ["didact.a", "didact.b", "didact.b"])
    assert listing_faults(objects, ["didact.a", "didact.b", "didact.c"])


def test_a_missing_docstring_is_found() -> None:
    class Bare(eqx.Module):
        size: int

    class Described(eqx.Module):
        """A size."""

        size: int

    assert not has_docstring(Bare)
    assert has_docstring(Described)
    assert not has_docstring(lambda: None)
    assert has_docstring(3.0)
