"""`didact bench` as a user runs it: two methods with two seeds on a small grid."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from didact import bench
from didact.bench import Suite, _work

from .._runs import refused, run_cli, succeeds
from .conftest import FAKE, calls

OPTIONS = (
    *("--tasks", "grid-2x8", "--methods", "tb", "eps", "--seeds", "2", "--steps", "6"),
    *("--draws", "64", "--evaluations", "0"),
)
WITHOUT_REPORT = (sys.executable, str(Path(__file__).with_name("_train_without_report.py")))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("reports", [False, True])
def test_a_small_suite(reports: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not reports:
        monkeypatch.setattr(_work, "PROGRAM", WITHOUT_REPORT)
    out = tmp_path / "bench"
    result = succeeds("bench", *OPTIONS, "--out", out)
    assert "| tb " in result.out
    assert "| less tb |" in result.out
    assert result.out.endswith(f"Report: {out / 'bench.html'}\n")
    found = json.loads((out / "bench.json").read_text())
    assert [cell["state"] for cell in found["cells"]] == ["finished", "finished"]
    for cell in found["cells"]:
        assert cell["seeds"] == [0, 1]
        assert (cell["gradient_steps"], cell["reward_calls"]) == (6, 96)
        assert len(cell["values"]["tv"]) == 2
        folder = out / "cells" / f"grid-2x8-{cell['method']}"
        assert (folder / "evaluation.json").is_file()
        assert (out / "results" / f"{folder.name}.json").is_file()
    # Once more: nothing is trained, and everything is said again.
    again = succeeds("bench", *OPTIONS, "--out", out)
    assert again.out == result.out
    assert "2 of 2 cells have finished before." in again.err
    # Two runs that a suite made can be compared like any.
    runs = [out / "cells" / f"grid-2x8-{name}" for name in ("tb", "eps")]
    assert "behaviour" in succeeds("compare", *runs).out
    # Another number of seeds is another suite.
    assert "holds another run" in refused("bench", *OPTIONS, "--seeds", "3", "--out", out)


def test_a_suite_with_a_cell_that_fails_ends_with_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_work, "PROGRAM", (sys.executable, "-c", "raise SystemExit('no luck')"))
    out = tmp_path / "bench"
    result = run_cli("bench", *OPTIONS, "--out", out)
    assert result.code == 1
    assert "grid-2x8-tb failed: no luck (exit code 1, " in result.err
    assert "grid-2x8-eps failed: no luck (exit code 1, " in result.err
    states = [cell["state"] for cell in json.loads((out / "bench.json").read_text())["cells"]]
    assert states == ["failed", "failed"]
    assert (out / "bench.html").is_file()


def test_a_signal_stops_the_suite_with_everything_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_work, "PROGRAM", FAKE)
    out = tmp_path / "bench"
    command = ("bench", "--tasks", "grid-2x8", "--methods", "tb", "teacher", "eps", "--steps", "8")

    def stop() -> None:
        while not (out / "ready").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    result = run_cli(*command, "--out", out)
    thread.join()
    assert result.code == 128 + signal.SIGTERM
    assert "Go on with: didact bench --tasks grid-2x8 --methods tb teacher eps" in result.err
    states = [cell["state"] for cell in json.loads((out / "bench.json").read_text())["cells"]]
    assert states == ["finished", "unfinished", "unfinished"]
    (out / "go").write_text("")
    assert run_cli(*command, "--out", out).code == 0
    assert calls(out) == ["tb", "teacher", "teacher", "eps"]


@pytest.mark.usefixtures("undrawn")
def test_a_suite_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_work, "PROGRAM", FAKE)
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        "tasks = ['grid-2x8']\nmethods = ['eps', 'tb']\nscale = 0.5\nbaseline = 'tb'\n"
    )
    said = succeeds("bench", "mine.toml", "--steps", "8", "--seeds", "2").out
    assert "| less tb |" in said
    assert said.endswith("Report: runs/mine/bench.html\n")
    suite = json.loads(Path("runs/mine/bench.json").read_text())["suite"]
    assert (suite["steps"], suite["scale"], suite["seeds"]) == (8, None, 2)


@pytest.mark.usefixtures("undrawn")
def test_a_reproduction_is_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two(part: str, seeds: int) -> list[Suite]:
        assert part == "grid"
        return [Suite(tasks=("grid-2x8",), methods=("tb", "tb-per"), seeds=seeds, steps=8)]

    monkeypatch.setattr(_work, "PROGRAM", FAKE)
    monkeypatch.setattr(bench, "quick", two)
    out = tmp_path / "out"
    result = run_cli("reproduce", "grid", "--quick", "--out", out)
    assert result.code == 1  # as one of the two has failed
    assert "grid-2x8-tb-per failed: the disk is full" in result.err
    assert "2 cells, " in result.err
    assert "**grid-2x8**" in result.out
    assert "grid: 2 seeds in place of 3." in result.out
    page = (out / "reproduce.html").read_text()
    assert "grid-2x8-tb-per failed" in page
    assert "What is left out" in page
    names = {path.name for path in out.iterdir()}
    assert names >= {"cells", "results", "bench.json", "reproduce.json", "reproduce.md"}
