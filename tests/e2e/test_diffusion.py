"""Diffusion samplers through the command line: train, resume, sample, evaluate, report."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import didact
from didact import presets, targets
from didact._describe import describe
from didact.cli._tasks import Diffusion
from didact.environments import Brownian
from didact.environments import Diffusion as DiffusionEnvironment
from didact.networks import DiffusionMLPConfig

from .._diffusion import OnTheHost
from .._runs import DIFFUSION, arrays, contents, record, refused, same_results, succeeds

JUDGED = (
    *("elbo", "elbo_low", "elbo_high", "eubo", "eubo_low", "eubo_high"),
    *("log_z", "log_z_error", "log_z_estimate", "log_z_low", "log_z_high"),
    *("ess", "w2", "w2_floor", "sliced_w2", "mmd_squared", "log_likelihood"),
    *("modes_reached", "mode_mass", "entropic_mode_coverage", "modes_found", "reward_calls"),
)


def test_folder_holds_everything_each_with_a_format_version(diffusion: Path) -> None:
    config = json.loads((diffusion / "config.json").read_text("utf-8"))
    assert config["command"].startswith("didact train 25gmm --preset teacher --size cpu")
    summary = config["summary"]
    assert (summary["task"], summary["preset"], summary["space"]) == ("25gmm", "teacher", "vectors")
    assert (summary["dim"], summary["num_steps"], summary["log_z"]) == (2, 4, 0.0)
    assert summary["sigma"] == presets.DIFFUSION_TASKS["25gmm"][1]
    archives = sorted(path.relative_to(diffusion).as_posix() for path in diffusion.rglob("*.npz"))
    assert archives == [
        "checkpoints/000000012.npz",
        "diagnostics.npz",
        "samplers/student-0.npz",
        *[f"snapshots/{step:09d}.npz" for step in (0, 6, 12)],
        "snapshots/target.npz",
    ]
    for name in ("diagnostics.npz", *archives[3:]):
        with np.load(diffusion / name, allow_pickle=False) as file:
            assert file["format_version"] == 1
    assert 10_000 < (diffusion / "report.html").stat().st_size < 10_000_000


def test_snapshots_are_histograms_on_one_extent(diffusion: Path) -> None:
    with np.load(diffusion / "snapshots" / "target.npz", allow_pickle=False) as file:
        target, extent = file["target"], file["extent"]
        assert (str(file["source"]), target.shape, extent.shape) == ("density", (64, 64), (1, 4))
        assert target.sum() == pytest.approx(1, abs=1e-5)
        # Beyond the outermost means, -10 and 10, by some of the scale 0.55.
        np.testing.assert_allclose(np.abs(extent), 13, atol=1.5)
    for step in (0, 6, 12):
        with np.load(diffusion / "snapshots" / f"{step:09d}.npz", allow_pickle=False) as file:
            assert file["step"] == step
            np.testing.assert_array_equal(file["extent"], extent)
            for who in ("student", "teacher"):
                assert 0.5 < file[who].sum() < 1.001


def test_diagnostics_hold_weights_and_draws(diffusion: Path) -> None:
    with np.load(diffusion / "diagnostics.npz", allow_pickle=False) as file:
        assert file["step"] == 12
        assert file["coordinates"].tolist() == [0, 1]
        for name in ("x", "target_x"):
            assert file[name].shape == (96, 2)
        for name in ("log_weight", "backward_log_weight"):
            assert file[name].shape == (96,)
            assert np.isfinite(file[name]).all()
        mode = jax.vmap(targets.GMM25().mode_index)(file["target_x"])
        assert np.mean(np.asarray(mode) >= 0) > 0.9


def test_record_has_losses_and_bounds(diffusion: Path) -> None:
    rows = record(diffusion)
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    assert [row["step"] for row in evaluations] == [0, 6, 12]
    for row in evaluations:
        assert not row["exact"]
        assert row["elbo"][0] < row["eubo"][0]
        assert 0 <= row["teacher_mode_mass"][0] <= 1


def test_same_command_again_changes_nothing(diffusion: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(diffusion, tmp_path / "run"))
    before = contents(copy)
    again = succeeds("train", "25gmm", *DIFFUSION, "--out", copy)
    assert again.err == f"{copy} is finished, with 12 steps: nothing was trained.\n"
    assert again.out.splitlines()[-1] == f"Report: {copy / 'report.html'}"
    assert succeeds("train", "25gmm", "--resume", "--out", copy).out == again.out
    assert contents(copy) == before


def after(chunks: int) -> Callable[[], bool]:
    """A wish to stop after so many chunks."""
    asked = iter(range(chunks))
    return lambda: next(asked, chunks - 1) == chunks - 1


@pytest.mark.usefixtures("without_report")
def test_resumed_run_is_identical(diffusion: Path, tmp_path: Path) -> None:
    """Stopped in Python after five steps, between two evaluations; the command line goes on."""
    experiment = didact.Run.load(diffusion).experiment
    out = tmp_path / "run"
    run = didact.train(experiment, out, evaluations=2, num_draws=96, should_stop=after(5))
    assert int(run.state().step) == 5
    assert not (out / "diagnostics.npz").exists()
    _ = succeeds("train", "25gmm", *DIFFUSION, "--out", out)
    same_results(out, diffusion)
    assert arrays(out / "diagnostics.npz") == arrays(diffusion / "diagnostics.npz")


def test_samples_hold_vectors(diffusion: Path, tmp_path: Path) -> None:
    for name in ("samples.npz", "samples.csv"):
        _ = succeeds("sample", diffusion, "-n", 70, "--out", tmp_path / name)
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as file:
        x, log_reward = file["x"], file["log_reward"]
        assert (x.dtype, x.shape) == (np.float32, (70, 2))
        wanted = jax.vmap(targets.GMM25().log_reward)(x)
        np.testing.assert_allclose(log_reward, wanted, rtol=1e-4)
    with (tmp_path / "samples.csv").open(newline="") as text:
        names, *rows = csv.reader(text)
    assert names == ["x0", "x1", "log_reward", "log_pf", "log_pb", "seed"]
    np.testing.assert_array_equal(np.asarray(rows, np.float64)[:, :2].astype(np.float32), x)


def test_verdict_as_json(diffusion: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(diffusion, tmp_path / "run"))
    result = succeeds("evaluate", copy, "--json", "--draws", 96)
    assert result.err == ""
    verdict = json.loads(result.out)
    # That of the end of training.
    assert verdict == json.loads((diffusion / "evaluation.json").read_text("utf-8"))
    assert (verdict["exact"], verdict["reason"], verdict["num_draws"]) == (False, None, 96)
    for name in JUDGED:
        assert np.isfinite(verdict[name]).all(), name
    for name in ("tv", "kl", "modes_held"):
        assert verdict[name] == [None]
    assert verdict["elbo"][0] < 0 < verdict["eubo"][0]
    assert verdict["mode_mass_target"] > 0.9
    assert 20 < verdict["modes_reached_perfect"] <= verdict["num_modes"] == 25


def test_table_names_what_is_known(diffusion: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(diffusion, tmp_path / "run"))
    shown = succeeds("evaluate", copy, "--draws", 96).out
    for words in ("ELBO, at most log Z", "EUBO, at least log Z", "Wasserstein-2", "90 % interval"):
        assert words in shown
    assert "total variation" not in shown
    assert "The target has 25 modes." in shown


def test_report_explains_the_run(diffusion: Path) -> None:
    page = (diffusion / "report.html").read_text("utf-8")
    assert "<script" not in page
    for words in (
        "25gmm, teacher",
        "Bounds on log Z, and weights",
        "the lines enclose",
        "bound it from above (EUBO)",
        "Modes found",
    ):
        assert words in page
    assert (diffusion / "figures" / "density-student.png").is_file()
    assert (diffusion / "figures" / "weights.png").is_file()


def test_options_make_the_experiment() -> None:
    options = Diffusion(
        preset="tb",
        size="paper",
        num_steps=7,
        sigma=2.0,
        log_variance_range=3.0,
        learn_backward=True,
        langevin=True,
        width=9,
    )
    made = options.experiment("ring")
    assert made.environment == DiffusionEnvironment(2, 7, Brownian(2.0), log_variance_range=3.0)
    assert isinstance(made.target, targets.Ring)
    assert made.network == DiffusionMLPConfig(width=9, langevin=True)
    assert made.learn_backward
    assert (made.batch_size, made.steps) == presets.SIZES["paper"]
    # The default is our own, with the σ that the task has for it.
    own = Diffusion().experiment("25gmm")
    assert own == Diffusion(preset="didact").experiment("25gmm")
    assert (own.batch_size, own.steps) == presets.SIZES["cpu"]
    assert own.environment.process == Brownian(presets.DIFFUSION_TASKS["25gmm"].own)
    paper = Diffusion(preset="tb").experiment("25gmm")
    assert paper.environment.process == Brownian(presets.DIFFUSION_TASKS["25gmm"].sigma)


@pytest.mark.parametrize("preset", sorted(presets.DIFFUSION_PRESETS))
def test_every_preset_is_described(preset: str) -> None:
    made = Diffusion(preset=preset).experiment("ring")
    facts = describe(made)
    assert ("Teacher" in facts["method"]) is (made.teacher_reward is not None)
    assert ("replay" in facts["method"]) is (made.replay is not None)
    assert facts["environment"] == "Diffusion dim=2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "nope"], ["unknown preset 'nope'", "teacher-mala"]),
        (["--size", "huge"], ["'huge'", "--size", "paper"]),
        (["--sigma", "0"], ["sigma must be > 0, got 0"]),
        (["--sigma", "-1"], ["sigma must be > 0, got -1"]),
        (["--sigma", "nan"], ["sigma must be > 0, got nan"]),
        (["--num-steps", "0"], ["num_steps must be >= 1, got 0"]),
        (["--batch-size", "0"], ["batch_size must be >= 1, got 0"]),
        (["--steps", "0"], ["steps must be >= 1, got 0"]),
        (["--width", "0"], ["width must be >= 1, got 0"]),
        (["--log-variance-range", "-1"], ["log_variance_range must be >= 0, got -1"]),
        (["--draws", "1"], ["--draws must be at least 2, got 1"]),
        (["--side", "8"], ["--side", "--help"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_bad_options(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    message = refused("train", "25gmm", "--out", tmp_path / "run", *arguments)
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_langevin_needs_a_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = presets.DIFFUSION_TASKS["ring"]._replace(target=OnTheHost)
    monkeypatch.setitem(presets.DIFFUSION_TASKS, "ring", task)
    message = refused("train", "ring", "--preset", "tb", "--langevin", "--out", tmp_path / "run")
    assert "langevin=True needs the gradient of log R, which OnTheHost has not" in message
    assert list(tmp_path.iterdir()) == []


def test_unknown_task_names_the_tasks() -> None:
    message = refused("train", "26gmm")
    for task in ("grid", *presets.DIFFUSION_TASKS):
        assert re.search(rf"\b{task}\b", message), task


def test_folder_of_another_task(diffusion: Path) -> None:
    before = contents(diffusion)
    for task in ("ring", "grid"):
        for options in ((), ("--resume",)):
            message = refused("train", task, *options, "--out", diffusion)
            assert f"task is '25gmm' there, '{task}' here" in message
            assert "choose another folder" in message
    message = refused("train", "25gmm", *DIFFUSION, "--sigma", "3", "--out", diffusion)
    assert "sigma is 2.23" in message
    assert contents(diffusion) == before


def test_list_and_help() -> None:
    shown = succeeds("list").out
    for name in (*presets.DIFFUSION_PRESETS, *presets.DIFFUSION_TASKS, "Diffusion", "ManyWell"):
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name
    page = succeeds("train", "25gmm", "--help").out
    assert "usage: didact train 25gmm" in page
    assert re.search(r"\(default:\s+cpu\)", page)
    for name in ("preset", "size", "sigma", "num-steps", "langevin", "learn-backward", "width"):
        assert f"--{name}" in page
