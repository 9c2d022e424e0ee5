"""A run that was stopped and goes on ends where one that was not stopped ends, bit by bit."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import didact

from .._runs import (
    OPTIONS,
    arrays,
    checkpoint_files,
    contents,
    experiment,
    record,
    refused,
    run_cli,
    same_results,
    start_cli,
    succeeds,
)

pytestmark = pytest.mark.usefixtures("without_report")

# One of them in `make test`: both take the same way through the program.
SIGNALS = [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]


def train(out: Path, **options: object) -> didact.Run:
    settings = {"seeds": (0, 1), "evaluations": 3, "num_draws": 512} | options
    return didact.train(experiment(), out, **settings)


def after(chunks: int) -> Callable[[], bool]:
    """A wish to stop after so many chunks."""
    asked = iter(range(chunks))
    return lambda: next(asked, chunks - 1) == chunks - 1


@pytest.mark.parametrize(
    ("chunks", "step"),
    [
        pytest.param([1], 2, marks=pytest.mark.slow, id="after-the-first"),
        pytest.param([34], 68, marks=pytest.mark.slow, id="at-an-evaluation"),
        pytest.param([69], 137, marks=pytest.mark.slow, id="at-an-evaluation-that-cuts-a-chunk"),
        pytest.param([70], 138, marks=pytest.mark.slow, id="after-a-short-chunk"),
        pytest.param([3, 20, 20], 86, id="three-times"),
    ],
)
def test_resumed_run_is_identical(
    chunks: list[int], step: int, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for count in chunks:
        run = train(out, should_stop=after(count))
        assert run.state().step < run.experiment.steps
        assert not (out / "evaluation.json").exists()
        assert not (out / "samplers").exists()
    assert checkpoint_files(out)[-1].stem == f"{step:09d}"
    assert record(out)[-1]["step"] == step
    assert train(out).verdict()["finished"]
    same_results(out, trained)


def test_killed_run_loses_only_what_came_after_the_checkpoint(
    trained: Path, tmp_path: Path
) -> None:
    """Stopped dead between two checkpoints, in the middle of a line and of a checkpoint."""
    out = tmp_path / "run"
    _ = train(out, should_stop=after(40), checkpoints=didact.CheckpointPolicy(seconds=0.0))
    older, newest = checkpoint_files(out)
    assert (older.stem, newest.stem) == ("000000078", "000000080")
    newest.rename(newest.with_name(newest.name + ".partial"))
    with (out / "metrics.jsonl").open("a") as file:
        _ = file.write('{"kind": "train", "step": 8')
    _ = train(out)
    same_results(out, trained)
    assert not list(out.rglob("*.partial"))


def test_killed_before_the_first_checkpoint(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _ = train(out, should_stop=after(3))
    checkpoint_files(out)[0].unlink()
    _ = train(out)
    same_results(out, trained)


def test_damaged_checkpoint_falls_back_to_the_one_before(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    _ = train(out, should_stop=after(40), checkpoints=didact.CheckpointPolicy(seconds=0.0))
    newest = checkpoint_files(out)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 3] ^= 4
    newest.write_bytes(content)
    _ = train(out)
    assert caplog.messages == [f"{newest} cannot be read: going on from 000000078.npz."]
    same_results(out, trained)


def test_files_lost_on_the_way_are_made_again(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _ = train(out, should_stop=after(40))
    for file in (out / "snapshots").iterdir():
        file.unlink()
    (out / "snapshots").rmdir()
    (out / "metrics.jsonl").unlink()
    _ = train(out)
    assert arrays(checkpoint_files(out)[-1]) == arrays(checkpoint_files(trained)[-1])
    assert sorted(path.name for path in (out / "snapshots").iterdir()) == [
        *("000000137.npz", "000000205.npz", "target.npz")
    ]
    assert record(out)[0]["kind"] == "header"


def test_stopped_run_can_be_used(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = (
        "--preset",
        "tb",
        "--dim",
        "1",
        "--side",
        "6",
        "--steps",
        "300",
        "--evaluations",
        "0",
    )
    run = didact.train(
        didact.presets.grid("tb", 1, 6, steps=300), out, evaluations=0, should_stop=after(2)
    )
    assert run.state().step < run.experiment.steps
    before = contents(out / "checkpoints")
    assert succeeds("sample", out, "-n", "5", "--out", tmp_path / "s.npz").code == 0
    assert '"finished": false' in succeeds("evaluate", out, "--json", "--draws", "64").out
    assert succeeds("report", out).code == 0
    assert contents(out / "checkpoints") == before
    assert "resume it from Python" in refused("train", "grid", "--resume", "--out", out)
    assert succeeds("train", "grid", *options, "--draws", "64", "--out", out).code == 0


@pytest.mark.parametrize(("number", "code"), SIGNALS, ids=["ctrl-c", "terminate"])
def test_signal_stops_after_the_chunk(
    number: signal.Signals, code: int, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "my run"
    process = start_cli("train", "grid", *OPTIONS, "--out", out)
    until = time.monotonic() + 300
    while not (out / "metrics.jsonl").exists() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    said, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert said == ""
    assert "Stopping after this chunk" in err
    assert f"Go on with: didact train grid --resume --out '{out}'" in err
    assert "Traceback" not in err
    assert checkpoint_files(out)
    assert run_cli("train", "grid", "--resume", "--out", out).code == 0
    same_results(out, trained)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), SIGNALS, ids=["ctrl-c", "terminate"])
def test_signal_while_sampling(
    number: signal.Signals, code: int, trained: Path, tmp_path: Path
) -> None:
    """Nothing half written stays, and no traceback is shown."""
    process = start_cli("sample", trained, "-n", "1000000000", "--out", tmp_path / "samples.csv")
    until = time.monotonic() + 300
    while not list(tmp_path.rglob("*.csv")) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
