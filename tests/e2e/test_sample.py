"""`didact sample`: what the files hold, and that the same key gives the same draws."""

import csv
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import didact
from didact import targets
from didact.samples import COLUMNS

from .._runs import arrays, succeeds

N = 2101
"""Of which one seed draws 1051, the other 1050: a batch each, not full."""


@pytest.fixture(scope="module")
def drawn(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of the shared run."""
    file = tmp_path_factory.mktemp("samples") / "samples.npz"
    result = succeeds("sample", trained, "-n", N, "--out", file)
    assert result.out == ""
    assert result.err == f"Wrote 2,101 samples to {file}\n"
    return file


def test_columns(drawn: Path) -> None:
    with np.load(drawn, allow_pickle=False) as file:
        assert tuple(file) == COLUMNS == ("x", "log_reward", "log_pf", "log_pb", "seed")
        assert (file["x"].dtype, file["x"].shape) == (np.int32, (N, 2))
        for name in ("log_reward", "log_pf", "log_pb"):
            assert (file[name].dtype, file[name].shape) == (np.float32, (N,))
        assert file["seed"].dtype == np.int32
        assert np.bincount(file["seed"]).tolist() == [1051, 1050]
        assert file["log_pf"].max() < 0
        assert file["log_pb"].max() <= 0
        target = targets.DeceptiveGrid(2, 8)
        np.testing.assert_array_equal(file["log_reward"], jax.vmap(target.log_reward)(file["x"]))


def test_importance_weights_average_to_z(trained: Path, drawn: Path) -> None:
    """E[R·P_B/P_F] = Z under either seed's Student: within five standard errors, a chance of
    6e-7 to fail for another key.
    """
    log_z = targets.DeceptiveGrid(2, 8).log_z
    with np.load(drawn, allow_pickle=False) as file:
        for seed in (0, 1):
            own = file["seed"] == seed
            log_weight = file["log_reward"] + file["log_pb"] - file["log_pf"]
            ratio = np.exp(log_weight[own].astype(np.float64) - log_z)
            error = ratio.std() / np.sqrt(own.sum())
            assert abs(ratio.mean() - 1) < 5 * error
            assert error < 0.25  # so that a wrong P_B or a forgotten edge would show


def test_csv_holds_the_same(trained: Path, drawn: Path, tmp_path: Path) -> None:
    _ = succeeds("sample", trained, "-n", N, "--out", tmp_path / "samples.csv")
    with (tmp_path / "samples.csv").open(newline="") as text:
        names, *rows = csv.reader(text)
    assert names == ["x0", "x1", "log_reward", "log_pf", "log_pb", "seed"]
    columns = dict(zip(names, np.asarray(rows, np.float64).T, strict=True))
    with np.load(drawn, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["x"][:, 0], columns["x0"])
        np.testing.assert_array_equal(file["x"][:, 1], columns["x1"])
        for name in ("log_reward", "log_pf", "log_pb", "seed"):
            np.testing.assert_array_equal(file[name], columns[name].astype(file[name].dtype))
    assert len(rows) == N


def test_same_key_same_draws(trained: Path, drawn: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.npz", tmp_path / "other.npz"
    _ = succeeds("sample", trained, "-n", N, "--out", again, "--key", 0)
    assert arrays(again) == arrays(drawn)
    _ = succeeds("sample", trained, "-n", N, "--out", other, "--key", 1)
    assert arrays(other)["x"] != arrays(drawn)["x"]


def test_one_seed(trained: Path, drawn: Path, tmp_path: Path) -> None:
    """The draws of one seed are the same, whether others are drawn beside it or not."""
    file = tmp_path / "samples.npz"
    _ = succeeds("sample", trained, "-n", 300, "--seed", 1, "--out", file)
    with np.load(file) as one, np.load(drawn) as both:
        assert one["seed"].tolist() == [1] * 300
        np.testing.assert_array_equal(one["x"], both["x"][1051:1351])
        assert not np.array_equal(one["x"], both["x"][:300])


def test_fewer_draws_than_seeds(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "samples.npz"
    _ = succeeds("sample", trained, "-n", 1, "--out", file)
    with np.load(file) as one:
        assert one["x"].shape == (1, 2)


def test_default_file_and_overwriting(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mit Leerzeichen ü"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "samples.npz").write_text("older")
    _ = succeeds("sample", trained, "-n", 10)
    assert [path.name for path in folder.iterdir()] == ["samples.npz"]
    with np.load("samples.npz") as file:
        assert len(file["x"]) == 10


def test_sampling_from_python_agrees(trained: Path) -> None:
    run = didact.Run.load(trained)
    drawn = run.sample(600, seed=1)
    assert drawn.x.shape == (600, 2)
    weights = np.exp(drawn.log_weight.astype(np.float64))
    z = np.exp(targets.DeceptiveGrid(2, 8).log_z)
    assert abs(weights.mean() - z) < 5 * weights.std() / np.sqrt(600)
    with pytest.raises(didact.run.RunError, match="no seed 5"):
        _ = run.sample(3, seed=5)


GROWTH = """
import resource, sys
from didact import Run
from didact.samples import write_samples
run = Run.load(sys.argv[1])
students = {0: run.student(0)}
for n in (50_000, 1_500_000):
    write_samples(sys.argv[2], students, run.experiment.target, n)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_draws(trained: Path, tmp_path: Path) -> None:
    """1,450,000 more draws are 35 MB more of arrays, of which the process may hold a few."""
    import os

    source = str(Path(didact.__file__).parents[1])
    for name in ("samples.npz", "samples.csv"):
        command = [sys.executable, "-c", GROWTH, str(trained), str(tmp_path / name)]
        environment = os.environ | {"PYTHONPATH": source}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        small, large = map(int, done.stdout.split())
        assert large - small < 12
