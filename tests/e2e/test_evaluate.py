"""`didact evaluate`, `report`, `list`, `--version` and `--help`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import didact
from didact import presets, targets
from didact.cli._table import print_verdict

from .._runs import contents, run_cli, start_cli, succeeds

PROMISED = (
    *("tv", "kl", "log_z_error", "mode_mass_recall", "modes_held", "modes_found"),
    *("reward_calls", "gradient_steps"),
)


def refuse_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def test_json_is_one_object_alone_on_stdout(copy: Path, trained: Path) -> None:
    result = succeeds("evaluate", copy, "--json", "--draws", "512")
    assert result.err == ""
    assert result.out.count("\n") == 1
    verdict = json.loads(result.out, parse_constant=refuse_constant)
    assert all(len(verdict[name]) == 2 for name in PROMISED)
    assert verdict["exact"]
    assert verdict["reason"] is None
    assert verdict["gradient_steps"] == [205, 205]
    assert verdict["reward_calls"] == [4 * 103] * 2
    for name in ("tv", "mode_mass_recall"):
        assert all(0 <= value <= 1 for value in verdict[name])
    assert all(
        a >= b for a, b in zip(verdict["modes_found"], verdict["modes_found_student"], strict=True)
    )
    truth = targets.DeceptiveGrid(2, 8)
    errors = np.subtract(verdict["log_z"], truth.log_z)
    np.testing.assert_allclose(verdict["log_z_error"], errors, atol=1e-5)
    # The verdict is that of the end of training, written to the folder too.
    assert verdict == json.loads((trained / "evaluation.json").read_text("utf-8"))
    assert verdict == json.loads((copy / "evaluation.json").read_text("utf-8"))


def test_streams_and_control_codes_in_a_process_of_its_own(copy: Path) -> None:
    process = start_cli("evaluate", copy, "--json", "--draws", "64")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert json.loads(out)["num_draws"] == 64
    assert out.count("\n") == 1
    assert err == ""


def test_values_that_are_not_finite_are_null(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Student that never reaches a part of the target is infinitely far from it."""

    def statistics(*_: object, **__: object) -> dict[str, object]:
        return {
            "num_draws": 2,
            "num_scored": 2,
            "ess": float("nan"),
            "empirical_l1": np.float64("inf"),
        }

    monkeypatch.setattr("didact._judge.draw_statistics", statistics)
    verdict = json.loads(succeeds("evaluate", copy, "--json").out, parse_constant=refuse_constant)
    assert verdict["ess"] == [None, None]
    assert verdict["empirical_l1"] == [None, None]


@pytest.mark.parametrize("seeds", [1, 3, 8])
def test_table_shows_numbers_in_full(seeds: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of each seed, or of many seeds the lowest and the highest."""
    verdict = {
        "exact": True,
        "seeds": list(range(seeds)),
        "num_modes": 1936,
        "tv": [0.1234 + i / 1000 for i in range(seeds)],
        "kl": [None] * seeds,
        "modes_found": [1900 + i for i in range(seeds)],
        "log_z_error": [None] + [0.25] * (seeds - 1),
    }
    print_verdict(verdict)
    shown = capsys.readouterr().out
    for i in range(seeds) if seeds <= 3 else (0, seeds - 1):
        assert f"{0.1234 + i / 1000:.4f}" in shown
        assert f"{1900 + i:,}" in shown
    assert ("seed 2" in shown) == (seeds == 3)
    assert ("lowest" in shown) == (seeds == 8)
    assert "1,936 modes" in shown
    assert "KL" not in shown
    assert "…" not in shown


def test_table_says_how_far_the_run_has_come(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = {"exact": True, "seeds": [0], "num_modes": None, "tv": [0.5], "finished": False}
    print_verdict(verdict | {"step": 1140, "steps": 6000})
    assert "Verdict at step 1,140 of 6,000 (unfinished)" in capsys.readouterr().out


def test_table_has_perfect_values_and_no_mean_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = {
        "exact": True,
        "seeds": [0],
        "num_modes": 9,
        "mode_mass_target": 0.625,
        "mode_mass": [0.5],
        "empirical_l1": [0.25],
        "empirical_l1_floor": 0.125,
    }
    print_verdict(verdict)
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    assert ["share of draws in modes", "0.625", "0.5"] in rows
    assert ["empirical L1", "0.125", "0.25"] in rows
    assert "mean" not in shown
    assert "9 modes, with 62.5 % of its probability" in shown


def test_report_is_written_again(copy: Path) -> None:
    (copy / "report.html").unlink()
    others = contents(copy)
    result = succeeds("report", copy)
    assert result.out == f"Report: {copy / 'report.html'}\n"
    assert result.err == ""
    page = (copy / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "teacher-per" in page
    after = contents(copy)
    assert others.keys() == after.keys() - {"report.html"}


def test_list() -> None:
    shown = succeeds("list").out
    for name in (*presets.GRID_PRESETS, "Hypergrid", "DeceptiveGrid", "FromFunction"):
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name
    # Only what can be made: no abstract classes, no parts.
    for name in ("Environment", "Target", "Kernel", "Trajectory", "HypergridState"):
        assert not re.search(rf"^  {name} ", shown, re.MULTILINE), name


def test_version() -> None:
    assert succeeds("--version").out == f"didact {didact.__version__}\n"


def test_help() -> None:
    shown = succeeds("--help").out
    assert shown == succeeds("-h").out
    for command in ("train grid", "sample", "evaluate", "report", "list"):
        assert f"didact {command}" in shown
        page = succeeds(*command.split(), "--help").out
        assert f"usage: didact {command}" in page
        assert "\x1b" not in page
    options = succeeds("train", "grid", "--help").out
    for name in ("preset", "dim", "side", "seeds", "seed", "out", "steps", "epsilon", "resume"):
        assert f"--{name}" in options
    assert run_cli().code == 2
