"""The examples of the documentation run as they are printed, and in `make test` with fewer steps.

The blocks of a page are run in order, Python in one namespace and commands in process, in an empty
folder. A block that installs something is left out by a comment in the line before it:
`<!-- skip: reason -->`.
"""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from didact import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

LONG = (
    *("README.md", "benchmarks.md", "getting-started.md", "fit.md", "methods.md", "strings.md"),
)

PYTHON, COMMANDS = {"python"}, {"bash", "console"}
SHOWN = {"text", "json"}  # not run
FEWER = {
    r"\bsteps=[\d_]{3,}\b": "steps=40",
    r"--steps [\d_]{3,}\b": "--steps 40",
    r"--rounds [\d_]{3,}\b": "--rounds 4",
    r"\bnum_draws=[\d_]{3,}\b": "num_draws=200",
    r"^((?:\$ )?didact (?:train|evaluate) (?!.*--draws).*[^\\])$": r"\1 --draws 200",
    r"(didact sample .*-n )\d+\b": r"\g<1>200",
    # The sizes of a fit: samplers, steps of a path, units, batch, steps and number of rounds.
    r"(rng_key=jax\.random\.key\(0\))": r"\1, config=didact.FitConfig(2, 4, 8, 16, 10, 1)",
}
"""What takes long in the examples. Only how well a run ends depends on it."""
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>.*)$")
SKIP = re.compile(r"^<!-- skip: \S.* -->$")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the number of its first line in the page."""

    language: str
    text: str
    line: int
    skipped: bool = False


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a Markdown page."""
    found: list[Block] = []
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        indent, ticks = len(opening["indent"]), opening["ticks"]
        start = number + 1
        number = start
        while number < len(lines) and lines[number].strip() != ticks:
            number += 1
        if number == len(lines):
            raise ValueError(f"line {start}: a block that does not end")
        text = "\n".join(line[indent:] for line in lines[start:number])
        marker = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
        skipped = SKIP.match(marker.strip()) is not None
        found.append(Block(opening["info"].strip(), text, start + 1, skipped))
        number += 1
    return found


def shortened(block: Block) -> Block:
    """The block with fewer steps and draws."""
    text = block.text
    for pattern, fewer in FEWER.items():
        text = re.sub(pattern, fewer, text, flags=re.MULTILINE)
    return dataclasses.replace(block, text=text)


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a block, as words: its lines, or in a console those after `$`."""
    text = block.text.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def faults_of(block: Block) -> list[str]:
    """Why a block cannot be checked."""
    if block.language not in PYTHON | COMMANDS | SHOWN:
        return [f"unknown language {block.language!r}"]
    if block.skipped and block.language not in COMMANDS:
        return ["only commands can be skipped"]
    if block.language not in COMMANDS:
        return []
    commands = commands_of(block)
    if not commands:
        return ["a block of commands without one"]
    ours = [words for words in commands if words[0] == "didact"]
    if block.skipped:
        return [f"{shlex.join(words)} must not be skipped" for words in ours]
    faults = [f"{shlex.join(words)} is not run" for words in commands if words not in ours]
    for_a_shell = [words for words in ours if set("|<>&;") & set("".join(words))]
    return faults + [f"{shlex.join(words)} needs a shell" for words in for_a_shell]


def run_block(block: Block, namespace: dict[str, Any], name: str) -> None:
    """Run a block, so that errors name the line of the page."""
    if block.skipped:
        return
    if block.language in PYTHON:
        padding = "\n" * (block.line - 1)
        exec(compile(padding + block.text, name, "exec"), namespace)
    elif block.language in COMMANDS:
        for words in commands_of(block):
            with pytest.raises(SystemExit) as end:
                cli.main(words[1:])
            assert not end.value.code, f"{name}, below line {block.line - 1}: {shlex.join(words)}"


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def _jax_settings() -> Iterator[None]:
    """Undo what the command line, or an example, changes in JAX."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("length", ["short", pytest.param("as-printed", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "page",
    # These compile large programs, of which tests/unit/test_fit.py and tests/e2e have their like.
    [pytest.param(p, marks=[pytest.mark.slow] * (p.name in LONG)) for p in PAGES],
    ids=page_name,
)
@pytest.mark.usefixtures("_jax_settings")
def test_the_examples_of_a_page_run(
    page: Path,
    length: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    blocks = blocks_of(page.read_text("utf-8"))
    faults = [
        f"{page_name(page)}, line {block.line}: {fault}"
        for block in blocks
        for fault in faults_of(block)
    ]
    assert not faults, "\n" + "\n".join(faults)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if length == "short":
        request.getfixturevalue("undrawn")
        blocks = [shortened(block) for block in blocks]
    for block in blocks:
        run_block(block, namespace, page_name(page))


PAGE = """
Text.

<!-- skip: installs a package -->
```console
$ pip install .
Successfully installed
```

1. A list

    ```python
    if True:
        x = 1
    ```

```bash
didact list --all \\
  --really  # a comment
didact --version
```
"""


def test_blocks_are_found_with_their_lines() -> None:
    console, python, bash = blocks_of(PAGE)
    assert console == Block("console", "$ pip install .\nSuccessfully installed", 6, skipped=True)
    assert python == Block("python", "if True:\n    x = 1", 13)
    assert commands_of(console) == [["pip", "install", "."]]
    assert commands_of(bash) == [["didact", "list", "--all", "--really"], ["didact", "--version"]]
    assert not [fault for block in (console, python, bash) for fault in faults_of(block)]
    with pytest.raises(ValueError, match="does not end"):
        blocks_of("```python\nx = 1\n")


def test_a_short_block_has_fewer_steps_and_draws() -> None:
    printed = "$ didact train grid --steps 1000 --out a\n$ didact sample a -n 10000"
    short = "$ didact train grid --steps 40 --out a --draws 200\n$ didact sample a -n 200"
    assert shortened(Block("console", printed, 1)).text == short
    printed = "grid(steps=1_000, num_steps=100).train(num_draws=10_000)"
    short = "grid(steps=40, num_steps=100).train(num_draws=200)"
    assert shortened(Block("python", printed, 1)).text == short


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (Block("", "x = 1", 1), "unknown language ''"),
        (Block("pyhton", "x = 1", 1), "unknown language 'pyhton'"),
        (Block("python {.annotate}", "x = 1", 1), "unknown language"),
        (Block("python", "x = 1", 1, skipped=True), "only commands"),
        (Block("bash", "didact list", 1, skipped=True), "must not be skipped"),
        (Block("bash", "make demo", 1), "is not run"),
        (Block("bash", "didact list | head", 1), "needs a shell"),
        (Block("console", "didact list", 1), "without one"),
    ],
)
def test_a_block_that_cannot_be_checked_is_a_fault(block: Block, fault: str) -> None:
    assert any(fault in text for text in faults_of(block))


def test_a_block_that_fails_is_found() -> None:
    with pytest.raises(AssertionError):
        run_block(Block("python", "assert 1 + 1 == 3", 1), {}, "page")
    with pytest.raises(AssertionError, match=r"page, below line 6: didact nothing"):
        run_block(Block("bash", "didact nothing", 7), {}, "page")


def test_errors_name_the_line_of_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        run_block(Block("python", "x = 1\nx / 0", 40), {}, "page.md")
    assert error.traceback[-1].lineno == 40  # counted from 0
    assert str(error.traceback[-1].path).endswith("page.md")
