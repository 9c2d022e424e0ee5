"""The command line, called in this process, and one small run that many tests read."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import didact
from didact import report
from didact.cli import main

OPTIONS = (
    *("--preset", "teacher-per", "--dim", "2", "--side", "8", "--seeds", "2"),
    *("--steps", "205", "--batch-size", "4", "--draws", "512", "--evaluations", "3"),
)
"""Of the shared run. Chunks hold two steps; the evaluation at step 137 cuts one of them short."""

DIFFUSION = (
    *("--preset", "teacher", "--size", "cpu"),
    *("--steps", "12", "--batch-size", "8", "--num-steps", "4", "--width", "8"),
    *("--evaluations", "2", "--draws", "96"),
)
"""Of the shared run of a diffusion sampler on 25gmm. A chunk holds one step."""

_made: dict[str, Path] = {}


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str


def run_cli(*arguments: object) -> Result:
    """`didact` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int), "the command line must end with an exit code"
    return Result(code, out.getvalue(), err.getvalue())


def start_cli(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`didact` with these arguments, in a process of its own."""
    source = str(Path(didact.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "didact.cli", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def succeeds(*arguments: object) -> Result:
    """The result of a command that must succeed."""
    result = run_cli(*arguments)
    assert result.code == 0, result.err
    return result


def refused(*arguments: object) -> str:
    """The one line by which a command says what is wrong, after which it ends with code 2."""
    result = run_cli(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("didact: ")
    return result.err.strip()


def experiment() -> didact.Experiment:
    """The experiment of the shared run."""
    return didact.presets.grid("teacher-per", 2, 8, steps=205, batch_size=4)


def shared_run(factory: pytest.TempPathFactory) -> Path:
    """A finished run with a Teacher, a buffer and two seeds; for reading only."""
    return _shared(factory, "grid", OPTIONS)


def shared_diffusion_run(factory: pytest.TempPathFactory) -> Path:
    """A finished run of a diffusion sampler with a Teacher and a buffer; for reading only."""
    return _shared(factory, "25gmm", DIFFUSION)


def _shared(factory: pytest.TempPathFactory, task: str, options: tuple[str, ...]) -> Path:
    if task not in _made:
        path = factory.mktemp("shared") / "run"
        _ = succeeds("train", task, *options, "--out", path)
        _made[task] = path
    return _made[task]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def arrays(path: Path) -> dict[str, tuple[str, bytes]]:
    """Every array of a file, as its type and bytes."""
    with np.load(path, allow_pickle=False) as file:
        return {
            name: (f"{file[name].dtype}{file[name].shape}", file[name].tobytes()) for name in file
        }


def checkpoint_files(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("*.npz"))


def record(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's record, without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def same_results(run: Path, reference: Path) -> None:
    """Assert that two finished runs agree in every bit that does not depend on the clock."""
    assert record(run) == record(reference)
    newest, wanted = checkpoint_files(run)[-1], checkpoint_files(reference)[-1]
    assert newest.name == wanted.name
    assert arrays(newest) == arrays(wanted)
    for folder in ("samplers", "snapshots"):
        names = sorted(path.name for path in (reference / folder).glob("*"))
        assert sorted(path.name for path in (run / folder).glob("*")) == names
        for name in names:
            assert arrays(run / folder / name) == arrays(reference / folder / name), name
    for name in ("seen.bin", "failures.jsonl"):
        assert (run / name).exists() == (reference / name).exists()
        assert not (run / name).exists() or same_bytes(run / name, reference / name)
    verdicts = [json.loads((path / "evaluation.json").read_text()) for path in (run, reference)]
    for verdict in verdicts:
        del verdict["training_seconds"]
    assert verdicts[0] == verdicts[1]


def same_bytes(file: Path, other: Path) -> bool:
    """Whether two files hold the same."""
    return file.read_bytes() == other.read_bytes()


def empty_report(path: Path) -> Path:
    """Stands in for the writing of a report, which takes longer than a small run."""
    file = path / "report.html"
    _ = file.write_text("")
    return file


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave reports empty."""
    monkeypatch.setattr(report, "write", empty_report)
