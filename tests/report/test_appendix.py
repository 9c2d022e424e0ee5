"""What the end of the page says about making a run again."""

import ast
import html
import json
import re
from pathlib import Path

import pytest

from didact.report import write

from .conftest import change_json, write_json

pytestmark = pytest.mark.usefixtures("undrawn")


def commands(run: Path) -> dict[str, str]:
    """Line to what it does."""
    page = write(run).read_text("utf-8")
    found = re.findall(r"<dt><code>(.*?)</code></dt><dd>(.*?)</dd>", page, re.DOTALL)
    return {html.unescape(line): html.unescape(text) for line, text in found}


def name_in_target(run: Path, *addresses: str) -> None:
    """Make `run` one from Python whose configuration names `addresses`."""
    config = json.loads((run / "config.json").read_text("utf-8"))
    functions = [{"function": address} for address in addresses]
    config["experiment"]["target"] = {"type": "targets.FromFunction", "parts": functions}
    write_json(run / "config.json", config | {"command": "didact.train(...)"})


@pytest.mark.parametrize(("steps", "goes_on"), [(12_000, False), (48_000, True)])
@pytest.mark.parametrize("command", ["didact train grid --dim 2", "didact.train(...)"])
def test_same_command_never_trains_anew(
    run_copy: Path, steps: int, goes_on: bool, command: str
) -> None:
    summary = json.loads((run_copy / "config.json").read_text("utf-8"))["summary"]
    change_json(run_copy / "config.json", command=command, summary=summary | {"steps": steps})
    effect = commands(run_copy)[command]
    assert ("goes on with it" in effect) is goes_on
    assert ("trains nothing and overwrites nothing" in effect) is not goes_on


def test_run_of_didacts_own_parts_has_shell_commands(run_copy: Path) -> None:
    change_json(run_copy / "config.json", command="didact.train(...)")
    lines = list(commands(run_copy))
    assert [line.split()[:2] for line in lines[1:]] == [
        ["didact", word] for word in ("evaluate", "sample", "report")
    ]


def test_run_of_foreign_parts_has_python_lines(run_copy: Path) -> None:
    addresses = ["__main__:log_reward", "mine:Outer.f", "mine:make.<locals>.g", "mine:<lambda>"]
    name_in_target(run_copy, *addresses, "mine:Outer.f")
    call, load, *rest = commands(run_copy)
    assert call == "didact.train(...)"
    assert load == (
        'run = didact.Run.load("run", given={"__main__:log_reward": log_reward, '
        '"mine:Outer.f": Outer.f, "mine:make.<locals>.g": g, "mine:<lambda>": ...})'
    )
    assert rest == ["run.evaluate()", "run.sample(10_000)", "run.report()"]
    _ = ast.parse("\n".join([load, *rest]))


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("didact train grid --out runs/run", "runs/run"),
        ("didact train grid --out 'my runs/run'", "'my runs/run'"),
        ("didact train grid --out runs/moved", "run"),  # not what the folder is called now
        ("didact train grid", "run"),
        ("didact.train(...)", "run"),
    ],
)
def test_all_lines_are_for_one_folder(run_copy: Path, command: str, folder: str) -> None:
    """`run_copy` is called "run"."""
    change_json(run_copy / "config.json", command=command)
    first, *others = commands(run_copy)
    assert first == command
    assert [line.split(" -n")[0] for line in others] == [
        f"didact {word} {folder}" for word in ("evaluate", "sample", "report")
    ]


def test_hostile_addresses_are_escaped(run_copy: Path) -> None:
    name_in_target(run_copy, "x:<script>alert(1)</script>\"'\n}", "y:a); import os; (b")
    page = write(run_copy).read_text("utf-8")
    assert "<script" not in page
    load = list(commands(run_copy))[1]
    (given,) = [k.value for n in ast.walk(ast.parse(load)) for k in getattr(n, "keywords", [])]
    assert isinstance(given, ast.Dict)
    assert [ast.literal_eval(value) for value in given.values] == [..., ...]
