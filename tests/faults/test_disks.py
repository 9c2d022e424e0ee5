"""A disk that is full or read-only, files that are damaged, clocks that jump: through the command
line, each is one line of error or none at all, and nothing that was written is lost.

Folders of another process are refused in `tests/e2e/test_train.py`, damaged configurations and
checkpoints in `tests/e2e/test_bad_input.py`, damaged samplers in `tests/run/test_run.py`; a reward
function that raises, hangs or dies is the subject of `test_host_rewards.py`.
"""

import ast
import errno
import itertools
import os
import shutil
import stat
from pathlib import Path

import pytest

import didact
from didact import report
from didact._files import make_folder

from .._runs import Result, checkpoint_files, empty_report, record, run_cli, same_results
from ._disk import Disk
from .test_crashes import EXPERIMENT

OPTIONS = ("--evaluations", "2", "--draws", "16", "--checkpoint-seconds", "1e6")
STEPS = 10

pytestmark = pytest.mark.usefixtures("without_report", "small")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`didact train grid` trains something small, whose programs other tests have compiled."""
    parts = {"steps": STEPS}
    experiment = didact.Experiment(**(vars(EXPERIMENT) | parts))
    monkeypatch.setattr(didact.presets, "grid", lambda *_, **__: experiment)


def train(out: Path, *options: object) -> Result:
    return run_cli("train", "grid", *OPTIONS, "--checkpoint-steps", "3", *options, "--out", out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that nothing happened to, and the operations on its files."""
    out = tmp_path_factory.mktemp("whole") / "run"
    disk = Disk(out)
    with pytest.MonkeyPatch.context() as patch, disk.watching():
        patch.setattr("didact.report.write", empty_report)
        small.__wrapped__(patch)
        assert train(out).code == 0
    return out, disk.operations


def one_line(result: Result) -> str:
    """The line by which a command says what is wrong; those before it say what was done."""
    assert (result.code, result.out) == (2, "")
    *others, last = result.err.splitlines()
    assert last.startswith("didact: ")
    assert all(line.endswith(" ...") for line in others)
    return last


WRITERS = ("run", "checkpoint", "logging", "_snapshots", "_diagnostics", "_found")
WRITERS += ("_loop", "_record", "_judge", "_folder", "_probe", "_describe", "_trouble")
BY_THEMSELVES = ("write_text", "write_bytes", "touch", "tofile", "savetxt")


def test_every_file_of_a_run_is_opened_in_one_place() -> None:
    """So that what the tests below do to that place is done to all of them."""
    source = Path(didact.__file__).parent
    found = []
    for file in [source / f"{name}.py" for name in WRITERS] + [*(source / "report").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            # The folder itself is opened to be locked.
            if called.split(".")[-1] in ("open", *BY_THEMSELVES) and called != "os.open":
                found.append(f"{file.name}:{node.lineno} {called}")
    assert not found


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ["No space left on device", "make room"]),
        (errno.EROFS, ["Read-only file system", "make the folder writable"]),
    ],
    ids=["full", "read-only"],
)
@pytest.mark.parametrize(
    "operation",
    [
        "mkdir run",
        "write .config.json",
        "write seen.bin",
        "write metrics.jsonl",
        "write .000000006.npz",
        "write .student-0.npz",
        "write .evaluation.json",
    ],
)
def test_a_disk_that_cannot_be_written(
    operation: str, number: int, words: list[str], whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    reference, operations = whole
    out, at = tmp_path / "run", [name.startswith(operation) for name in operations]
    # The second of its kind where there are several: something is written already.
    last = list(itertools.compress(range(1, len(at) + 1), at))[:2][-1]
    disk = Disk(out, last, number)
    with disk.watching():
        line = one_line(train(out))
    assert all(word in line for word in (*words, str(out), "goes on from its newest checkpoint"))
    kept = [file.stem for file in checkpoint_files(out)]
    assert len(kept) == (
        2 if operation.endswith(("student-0.npz", "evaluation.json")) else len(kept)
    )
    for file in checkpoint_files(out):
        assert didact.checkpoint.is_whole(file)
    assert train(out).code == 0
    same_results(out, reference)
    assert not list(out.rglob("*.partial"))


@pytest.fixture
def copy(whole: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def unfinish(run: Path) -> None:
    """Go back to the older of two checkpoints."""
    checkpoint_files(run)[-1].unlink()
    (run / "evaluation.json").unlink()


def test_a_finished_run_says_so(copy: Path, whole: tuple[Path, list[str]]) -> None:
    result = train(copy)
    assert result.code == 0
    said = result.err.splitlines()[0]
    assert said == f"{copy} is finished, with {STEPS} steps: nothing was trained."
    assert "Verdict" in result.out
    same_results(copy, whole[0])


def test_a_damaged_sampler_is_written_anew(copy: Path, whole: tuple[Path, list[str]]) -> None:
    file = copy / "samplers" / "student-0.npz"
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    for damaged in (bytes(flipped), content[:-50]):
        file.write_bytes(damaged)
        assert train(copy).code == 0
        assert file.read_bytes() == content
    same_results(copy, whole[0])


def test_rows_that_are_lost_are_said_to_be(copy: Path, whole: tuple[Path, list[str]]) -> None:
    """The record is cut before the checkpoint that training goes on from."""
    unfinish(copy)
    file = copy / "metrics.jsonl"
    step = int(checkpoint_files(copy)[-1].stem)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    result = train(copy)
    assert result.code == 0
    last = record(whole[0])[3]["step"]
    lost = f"didact: {file} ends at step {last}: its rows up to step {step}, where training goes on"
    assert lost in result.err
    assert record(copy)[-2:] == record(whole[0])[-2:]


def test_objects_that_are_lost_are_said_to_be(copy: Path) -> None:
    unfinish(copy)
    file = copy / "seen.bin"
    file.write_bytes(file.read_bytes()[:-40])
    result = train(copy)
    assert result.code == 0
    assert f"didact: {file} has lost some of its objects: they are counted again." in result.err


def test_what_was_half_written_is_removed(copy: Path, whole: tuple[Path, list[str]]) -> None:
    unfinish(copy)
    left = [copy / ".metrics.jsonl.1.partial", copy / "samplers" / ".student-0.npz.1.partial"]
    for file in left:
        file.write_bytes(b"half")
    assert train(copy).code == 0
    assert not any(file.exists() for file in left)
    same_results(copy, whole[0])


def test_a_damaged_checkpoint_is_put_aside(copy: Path, whole: tuple[Path, list[str]]) -> None:
    """Else it would count as the newest until training has come as far."""
    older, newest = checkpoint_files(copy)
    (copy / "evaluation.json").unlink()
    newest.write_bytes(newest.read_bytes()[:-100])
    result = train(copy)
    assert f"didact: {newest} cannot be read: going on from {older.name}." in result.err
    assert newest.with_suffix(".damaged").exists()
    same_results(copy, whole[0])


CLOCKS = {
    "jumps ahead": itertools.accumulate(itertools.cycle([0.01, 86_400.0])),
    "goes back": itertools.accumulate(itertools.cycle([5.0, -3_600.0])),
    "stands still": itertools.repeat(7.0),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that(
    clock: str, whole: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = CLOCKS[clock]
    monkeypatch.setattr("didact._loop.clock", lambda: next(times))
    assert train(tmp_path / "run").code == 0
    same_results(tmp_path / "run", whole[0])
    rows = didact.Run(tmp_path / "run", EXPERIMENT, (0,), {}).metrics()
    assert all(row["time"]["seconds"] > 0 for row in rows if row["kind"] == "train")


def test_checkpoints_are_written_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked four times a step here, and each time a second has passed."""
    seconds = itertools.count(0.0, 1.0)
    monkeypatch.setattr("didact._loop.clock", lambda: next(seconds))
    out = tmp_path / "run"
    disk = Disk(out)
    with disk.watching():
        assert run_cli("train", "grid", *OPTIONS[:4], "--checkpoint-seconds", "10", "--out", out)
    written = [name for name in disk.operations if name.startswith("open .0000")]
    assert 3 <= len(written) <= 5


def test_a_folder_that_cannot_be_synced_is_named(tmp_path, monkeypatch):
    """The disk of the other tests stands in for that call."""
    plain = os.fsync

    def fsync(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.ENOSPC, "no space left")
        plain(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no space left") as error:
        make_folder(tmp_path / "new")
    assert error.value.filename == str(tmp_path)


def test_a_report_of_an_earlier_stop_is_not_that_of_the_end(tmp_path, monkeypatch):
    """Killed after the verdict, before the page: the same command writes it."""
    experiment = didact.presets.grid()
    didact.train(experiment, out=tmp_path, evaluations=1, num_draws=16, should_stop=lambda: True)
    assert (tmp_path / "report.html").is_file()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            didact.train(experiment, out=tmp_path, evaluations=1, num_draws=16)
    assert not (tmp_path / "report.html").exists()
    didact.train(experiment, out=tmp_path, evaluations=1, num_draws=16)
    assert (tmp_path / "report.html").is_file()
