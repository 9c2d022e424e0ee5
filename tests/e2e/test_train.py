"""`didact train grid`: what it leaves behind, and that doing it again changes nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from didact import presets

from .._runs import OPTIONS, contents, record, refused, run_cli, start_cli, succeeds

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters other than the ends of lines and tabs."""


def test_folder_holds_everything_each_with_a_format_version(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text("utf-8"))
    assert config["format_version"] == 1
    assert config["seeds"] == [0, 1]
    assert config["summary"]["preset"] == "teacher-per"
    assert config["command"].startswith("didact train grid --preset teacher-per --dim 2 --side 8")
    assert json.loads((trained / "evaluation.json").read_text("utf-8"))["format_version"] == 1
    assert record(trained)[0] == {"kind": "header", "format_version": 1}
    archives = sorted(path.relative_to(trained).as_posix() for path in trained.rglob("*.npz"))
    assert archives == [
        "checkpoints/000000205.npz",
        "samplers/student-0.npz",
        "samplers/student-1.npz",
        *[f"snapshots/{step:09d}.npz" for step in (0, 68, 137, 205)],
        "snapshots/target.npz",
    ]
    for name in archives:
        with np.load(trained / name, allow_pickle=False) as file:
            if "header" in file:
                assert json.loads(file["header"].tobytes())["format_version"] == 1
            else:
                assert file["format_version"] == 1
    assert 10_000 < (trained / "report.html").stat().st_size < 10_000_000
    assert not list(trained.rglob("*.partial"))


def test_record_covers_all_steps_without_gaps_or_doubles(trained: Path) -> None:
    rows = record(trained)
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == sorted({*range(2, 205, 2), 137, 205})
    assert [row["step"] for row in rows if row["kind"] == "evaluation"] == [0, 68, 137, 205]
    for row in rows[1:]:
        assert all(len(v) == 2 for v in row.values() if isinstance(v, list))
    final = [row for row in rows if row["kind"] == "train"][-1]
    # The schedule is Student, replay, Teacher, replay: half of the batches are new.
    assert final["reward_calls"] == 4 * 103
    assert final["student_batches"] == 52
    assert final["modes_found"][0] >= final["modes_found_student"][0]


def test_same_command_again_changes_nothing(copy: Path) -> None:
    before = contents(copy)
    again = succeeds("train", "grid", *OPTIONS, "--out", copy)
    assert again.err == f"{copy} is finished, with 205 steps: nothing was trained.\n"
    assert again.out.splitlines()[-1] == f"Report: {copy / 'report.html'}"
    assert succeeds("train", "grid", "--resume", "--out", copy).out == again.out
    assert contents(copy) == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("lost", ["evaluation.json", "report.html", "samplers/student-1.npz"])
def test_what_is_missing_is_made_again_without_training(copy: Path, lost: str) -> None:
    (copy / lost).unlink()
    before = contents(copy / "checkpoints")
    _ = succeeds("train", "grid", *OPTIONS, "--out", copy)
    assert (copy / lost).stat().st_size > 500
    assert contents(copy / "checkpoints") == before


# Of the others, the shared run trains one, and `tests/unit/test_log_reward_alone.py` traces all.
IN_FULL = ("teacher",)


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(name, marks=[] if name in IN_FULL else pytest.mark.slow)
        for name in sorted(presets.GRID_PRESETS)
    ],
)
def test_every_preset_trains(preset: str, tmp_path: Path) -> None:
    options = ["--preset", preset, "--dim", 1, "--side", 6, "--steps", 4, "--draws", 32]
    result = succeeds("train", "grid", *options, "--evaluations", 1, "--out", tmp_path / "run")
    assert result.out.splitlines()[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"
    verdict = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 <= verdict["tv"][0] <= 1


def test_streams_in_a_process_of_its_own(tmp_path: Path, trained: Path) -> None:
    """Nothing but the answer on stdout, nothing but the rest on stderr, no control codes."""
    folder = tmp_path / "grün und weiß"
    folder.mkdir()
    (folder / "run").symlink_to(trained)
    process = start_cli("train", "grid", *OPTIONS, "--out", "run", cwd=folder)
    out, err = process.communicate(timeout=300)
    said = "run is finished, with 205 steps: nothing was trained.\n"
    assert (process.returncode, err) == (0, said)
    assert out.splitlines()[-1] == "Report: run/report.html"
    assert not CONTROL.search(out)


@pytest.mark.usefixtures("without_report")
def test_resume_takes_the_options_of_the_run(copy: Path) -> None:
    _ = (copy / "evaluation.json").unlink()
    _ = succeeds("train", "grid", "--resume", f"--out={copy}")
    assert json.loads((copy / "evaluation.json").read_text())["num_draws"] == 512


@pytest.mark.usefixtures("without_report")
def test_grid_too_large_for_exact_evaluation(tmp_path: Path) -> None:
    # Two trajectories a batch: fewer programs for batches of many different lengths.
    options = ["--preset", "tb", "--dim", 6, "--side", 13, "--steps", 5, "--draws", 500]
    options += ["--batch-size", 2]
    run = tmp_path / "run"
    result = succeeds("train", "grid", *options, "--evaluations", 1, "--out", run)
    assert "Verdict (by samples)" in result.out
    assert re.search(r"would need [\d,]+ states and [\d.]+ GiB", result.err)
    result = succeeds("evaluate", run, "--json", "--draws", 500)
    assert re.search(r"would need [\d,]+ states and [\d.]+ GiB", result.err)
    verdict = json.loads(result.out)
    assert not verdict["exact"]
    for name in ("tv", "kl", "missed_mass"):
        assert verdict[name] == [None]
    # Of modes that can be listed, walks back tell what they are given.
    for name in ("modes_held", "mode_mass_recall"):
        (low,), (value,), (high,) = (verdict[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high
    assert 0 < verdict["mode_ess"][0] <= 1
    for name in ("log_z_error", "modes_found", "reward_calls", "gradient_steps", "elbo"):
        assert np.isfinite(verdict[name]).all()


def test_second_process_in_the_same_folder_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (copy / "config.json").open():
        import os

        other = os.open(copy, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        message = refused("train", "grid", *OPTIONS, "--out", copy)
        os.close(other)
    assert "another process is training" in message
    assert run_cli("train", "grid", *OPTIONS, "--out", copy).code == 0
