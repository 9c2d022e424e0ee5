"""`didact compare`: in what runs differ, and what came out."""

import json
from pathlib import Path

import pytest

from didact import bench
from didact.bench._compare import differing, flattened

from .._runs import refused, succeeds
from .conftest import MakeCells, train


@pytest.fixture
def runs(make_cells: MakeCells, tmp_path: Path) -> list[Path]:
    """Two run folders with the same seeds."""
    _ = train(make_cells("tb", "eps"), tmp_path / "out")
    return [tmp_path / "out" / "cells" / f"grid-2x8-{name}" for name in ("tb", "eps")]


def test_settings_that_differ_and_no_others(runs: list[Path]) -> None:
    found = bench.compare(runs)
    (table,) = found.chapters[0].tables
    assert table.head == ("setting", "A", "B")
    assert table.rows == (("preset", "tb", "eps"),)


def test_verdicts_and_paired_differences(runs: list[Path]) -> None:
    said = succeeds("compare", *runs).out
    assert f"A: {runs[0]}" in said
    assert "3.00 ± 0.58" in said
    assert "+1 [+1, +1]*" in said


@pytest.mark.usefixtures("undrawn")
def test_the_page(runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert succeeds("compare", *runs, "--out", page).out.endswith(f"Report: {page}\n")
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "+1 [+1, +1]*" in text


def test_seeds_that_are_not_shared_are_not_paired(
    runs: list[Path], make_cells: MakeCells, tmp_path: Path
) -> None:
    _ = train(make_cells("tb", seeds=1), tmp_path / "one")
    other = tmp_path / "one" / "cells" / "grid-2x8-tb"
    config = json.loads((other / "config.json").read_text())
    verdict = json.loads((other / "evaluation.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"seeds": [9]}))
    (other / "evaluation.json").write_text(json.dumps(verdict | {"seeds": [9]}))
    found = bench.compare([runs[0], other])
    assert [len(chapter.tables) for chapter in found.chapters[:2]] == [1, 1]
    assert ("seeds", "0, 1, 2", "9") in found.chapters[0].tables[0].rows


def test_an_unfinished_run_is_said_to_be(runs: list[Path]) -> None:
    file = runs[1] / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"finished": False, "step": 4}))
    result = succeeds("compare", *runs)
    assert "B is not at its end: its verdict is that of step 4." in result.err


def test_nested_settings_have_dotted_names() -> None:
    value = {"a": {"b": [1, 2.5], "c": None}, "d": [{"e": True}, "f"], "g": {}}
    assert flattened(value) == {"a.b": "1, 2.5", "a.c": "none", "d.0.e": "yes", "d.1": "f"}


def test_the_same_settings_say_so() -> None:
    config = {"seeds": [0], "experiment": {"steps": 3}}
    assert differing([config, config], "AB").rows == (("all settings", "the same", "the same"),)


def test_bad_input(runs: list[Path], tmp_path: Path) -> None:
    assert "name at least two run folders" in refused("compare")
    assert "name at least two run folders" in refused("compare", runs[0])
    assert "does not exist" in refused("compare", runs[0], tmp_path / "nowhere")
    assert "written as .html" in refused("compare", *runs, "--out", tmp_path / "page.txt")
    (runs[1] / "evaluation.json").unlink()
    assert "has not been evaluated yet" in refused("compare", *runs)
    (runs[1] / "config.json").write_text("{")
    assert "config.json cannot be used" in refused("compare", *runs)
