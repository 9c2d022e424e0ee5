"""A run survives the end of its process, and of its machine, at every moment.

In this process, on a disk that stops at an operation of a given number: see `_disk.py`. What kills
real processes is `test_kills.py`.
"""

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

import didact
from didact._record import Record
from didact.behaviours import Cycle, FromReplay, OnPolicy
from didact.environments import Hypergrid
from didact.logging import reward_calls
from didact.networks import MLPConfig
from didact.replay import ReplayConfig
from didact.targets import HostReward

from .._runs import checkpoint_files, empty_report, record, same_results
from ._disk import NEVER, Disk

pytestmark = pytest.mark.usefixtures("without_report")


def score(x: np.ndarray) -> list[float]:
    """One of the objects has none, and is set aside."""
    return [float("nan") if list(place) == [1, 1] else (1 + sum(place)) / 4 for place in x.tolist()]


EXPERIMENT = didact.Experiment(
    Hypergrid(2, 4),
    HostReward(score, floor=0.01, cache=False),
    behaviour=Cycle((OnPolicy(0.3), FromReplay())),
    replay=ReplayConfig(32, "reward"),
    network=MLPConfig(width=4, depth=1),
    batch_size=4,
)
"""Its rewards are computed outside JAX, so that a run has every kind of file."""


def train(out: Path, steps: int = 10) -> None:
    experiment = dataclasses.replace(EXPERIMENT, steps=steps)
    policy = didact.CheckpointPolicy(seconds=None, steps=3, keep_best="elbo")
    _ = didact.train(experiment, out, checkpoints=policy, evaluations=2, num_draws=16)


def same_run(run: Path, reference: Path) -> None:
    same_results(run, reference)
    # An older checkpoint may be left over: it was to go when the end came.
    kept, wanted = ({file.name for file in checkpoint_files(path)} for path in (run, reference))
    assert kept >= wanted
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*.damaged"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A run that nothing happened to, and the numbers of operations that each stand for some of the
    same kind in a row.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("didact.report.write", empty_report)
        out = tmp_path_factory.mktemp("whole") / "run"
        disk = Disk(out)
        with disk.watching():
            train(out)
    numbers, rows = itertools.count(1), itertools.groupby(disk.operations)
    middle = [[next(numbers) for _ in row] for _, row in rows]
    return out, [row[len(row) // 2] for row in middle]


def dies(out: Path, number: int = NEVER, *, after: str | None = None, power: bool) -> None:
    """Train, until the process is killed or the power is cut at the operation of a number, or at
    the one that follows the first of a name.
    """
    disk = Disk(out, number, after=after)
    with disk.watching():
        train(out)
    assert disk.failed
    if power:
        disk.cut()


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize(
    "every", [pytest.param(16, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_a_run_survives_its_end_at_every_operation(
    every: int, power: bool, whole: tuple[Path, list[int]], tmp_path: Path
) -> None:
    reference, numbers = whole
    out = tmp_path / "run"
    for number in numbers[every // 2 :: every]:
        dies(out, number, power=power)
        train(out)
        same_run(out, reference)
        shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
def test_a_run_survives_many_ends(power: bool, tmp_path: Path) -> None:
    """One run, ended at random fifty times and more."""
    rng, ends, out = np.random.default_rng(power), 0, tmp_path / "run"
    train(tmp_path / "whole", steps=60)
    for last in rng.integers(1, 400, size=1000).tolist():
        disk = Disk(out, last)
        with disk.watching():
            train(out, steps=60)
        if not disk.failed:
            break
        ends += 1
        if power:
            disk.cut()
    same_run(out, tmp_path / "whole")
    assert ends >= 50


@pytest.mark.parametrize("synced", [True, False])
def test_a_checkpoint_is_never_ahead_of_what_it_relies_on(
    synced: bool, whole: tuple[Path, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes when the first checkpoint has its name: rows and objects are there too, which
    they would not be, were they not synced before.
    """
    if not synced:
        monkeypatch.setattr(Record, "sync", lambda _: None)
    out = tmp_path / "run"
    dies(out, after="sync checkpoints", power=True)
    (newest,) = checkpoint_files(out)
    step = int(newest.stem)
    assert 0 < step < 10
    rows = [row for row in record(whole[0]) if row["kind"] == "train"]
    asked = next(row["reward_calls"] for row in rows if row["step"] == step)
    assert asked != [0]
    assert (record(out)[-1].get("step", 0) >= step) == synced
    assert (reward_calls(out, (0,), step=step) == asked) == synced
