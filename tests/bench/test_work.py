"""Training the cells of a suite: what fails, what is stopped, and what is left as it is."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from didact.bench import Outcome
from didact.run import RunError

from .conftest import MakeCells, calls, train


def states(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_finished_cells_are_kept_and_left_as_they_are(
    make_cells: MakeCells, tmp_path: Path
) -> None:
    cells = make_cells("tb", "eps")
    first = train(cells, tmp_path)
    assert states(first) == ["finished", "finished"]
    results = sorted((tmp_path / "results").iterdir())
    assert [path.name for path in results] == ["grid-2x8-eps.json", "grid-2x8-tb.json"]
    before = [path.read_bytes() for path in results]
    again = train(cells, tmp_path)
    assert calls(tmp_path) == ["tb", "eps"]
    assert [path.read_bytes() for path in results] == before
    assert [o.kept and o.kept.verdict for o in again] == [o.kept and o.kept.verdict for o in first]


def test_what_is_kept_names_no_folder(make_cells: MakeCells, tmp_path: Path) -> None:
    (outcome,) = train(make_cells("tb"), tmp_path)
    assert outcome.kept is not None
    assert outcome.kept.command == outcome.cell.command
    assert str(tmp_path) not in (tmp_path / "results" / "grid-2x8-tb.json").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_fails_does_not_end_the_others(
    make_cells: MakeCells, tmp_path: Path, workers: int
) -> None:
    told: list[str] = []
    cells = make_cells("tb", "tb-per", "eps")
    outcomes = train(cells, tmp_path, workers=workers, tell=told.append)
    assert states(outcomes) == ["finished", "failed", "finished"]
    error = outcomes[1].error
    assert error is not None
    assert error.startswith("the disk is full: make room. (exit code 2, ")
    assert [line for line in told if "failed" in line and "the disk is full" in line]
    # It is tried again, and the others are not.
    _ = train(cells, tmp_path)
    assert sorted(calls(tmp_path)) == ["eps", "tb", "tb-per", "tb-per"]


def test_a_program_that_leaves_no_run_has_failed(make_cells: MakeCells, tmp_path: Path) -> None:
    from didact import bench

    cells = make_cells("tb")
    with bench.opened(tmp_path, cells):
        (outcome,) = bench.work(cells, tmp_path, program=("true",))
    assert outcome.error is not None
    assert "does not exist" in outcome.error


def test_a_stopped_suite_goes_on(make_cells: MakeCells, tmp_path: Path) -> None:
    """Stopped while the second cell is in training; the third has not begun."""
    cells = make_cells("tb", "teacher", "eps")
    outcomes = train(cells, tmp_path, should_stop=(tmp_path / "ready").exists)
    assert states(outcomes) == ["finished", "unfinished", "unfinished"]
    assert calls(tmp_path) == ["tb", "teacher"]
    (tmp_path / "go").write_text("")
    assert states(train(cells, tmp_path)) == ["finished"] * 3
    assert calls(tmp_path) == ["tb", "teacher", "teacher", "eps"]


def test_a_suite_killed_between_cells_goes_on(make_cells: MakeCells, tmp_path: Path) -> None:
    """An error at the worst time: a cell has just ended, another one is in training."""
    cells = make_cells("teacher", "tb", "eps")

    def die(outcomes: Sequence[Outcome]) -> None:
        if any(outcome.kept for outcome in outcomes):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _ = train(cells, tmp_path, workers=2, on_finish=die)
    assert (tmp_path / "results" / "grid-2x8-tb.json").is_file()
    (tmp_path / "go").write_text("")
    assert states(train(cells, tmp_path)) == ["finished"] * 3
    assert sorted(calls(tmp_path)) == ["eps", "tb", "teacher", "teacher"]


def test_a_run_that_ended_without_being_kept_is_kept(make_cells: MakeCells, tmp_path: Path) -> None:
    cells = make_cells("tb")
    _ = train(cells, tmp_path)
    path = tmp_path / "results" / "grid-2x8-tb.json"
    before = path.read_bytes()
    path.unlink()
    assert states(train(cells, tmp_path)) == ["finished"]
    assert calls(tmp_path) == ["tb"]
    assert path.read_bytes() == before


def test_another_budget_in_the_same_folder_is_refused(
    make_cells: MakeCells, tmp_path: Path
) -> None:
    _ = train(make_cells("tb"), tmp_path)
    with pytest.raises(RunError, match=r"holds another run .*--steps 8 there.*--steps 9 here"):
        _ = train(make_cells("tb", steps=9), tmp_path)
    assert calls(tmp_path) == ["tb"]


def test_another_process_with_the_same_folder_is_refused(
    make_cells: MakeCells, tmp_path: Path
) -> None:
    from didact import bench

    cells = make_cells("tb")
    with bench.opened(tmp_path, cells), pytest.raises(RunError, match="another process"):
        _ = train(cells, tmp_path)


def test_curves_hold_what_was_known_at_each_step(make_cells: MakeCells, tmp_path: Path) -> None:
    (outcome,) = train(make_cells("tb"), tmp_path)
    assert outcome.kept is not None
    curves = outcome.kept.curves
    assert [row["step"] for row in curves] == [0, 4, 8]
    assert [row["seconds"] for row in curves] == [0.0, 1.5, 3.0]
    assert "modes_found" not in curves[0]
    assert curves[2]["modes_found"] == [2, 3, 4]
    assert curves[2]["tv"] == [1 / 9, 1 / 10, 1 / 11]


def test_several_processes_share_an_accelerator(
    make_cells: MakeCells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from didact.bench import _work

    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    seen: list[dict[str, str]] = []
    popen = _work.subprocess.Popen

    def watch(*arguments: object, env: dict[str, str], **options: object) -> object:
        seen.append(env)
        return popen(*arguments, env=env, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(_work.subprocess, "Popen", watch)
    _ = train(make_cells("tb"), tmp_path / "one")
    _ = train(make_cells("tb"), tmp_path / "two", workers=2)
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    assert [env.get(name) for env in seen] == [os.environ.get(name), "false"]


needs_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the system cannot keep processes to cores, or there is one",
)


def cores(out: Path) -> list[frozenset[int]]:
    """Those of each call."""
    return [frozenset(json.loads(line)) for line in (out / "cores").read_text().splitlines()]


@needs_cores
def test_cells_at_the_same_time_have_cores_of_their_own(
    make_cells: MakeCells, tmp_path: Path
) -> None:
    """Each of three the same number, and two of them all that there are but for a remainder."""
    everywhere = os.sched_getaffinity(0)
    _ = train(make_cells("tb", "eps", "tb-prt"), tmp_path, workers=2)
    shares = cores(tmp_path)
    assert [len(share) for share in shares] == [len(everywhere) // 2] * 3
    assert len(frozenset.union(*shares)) == 2 * (len(everywhere) // 2)
    assert os.sched_getaffinity(0) == everywhere


@needs_cores
def test_a_suite_that_goes_on_gives_as_many_cores_as_before(
    make_cells: MakeCells, tmp_path: Path
) -> None:
    """One that is left of two keeps to its share; one that is the only one has all."""
    everywhere = os.sched_getaffinity(0)
    cells = make_cells("teacher", "eps")
    until = (tmp_path / "ready", tmp_path / "results" / "grid-2x8-eps.json")
    _ = train(cells, tmp_path, workers=2, should_stop=lambda: all(p.exists() for p in until))
    (tmp_path / "go").write_text("")
    _ = train(cells, tmp_path, workers=2)
    assert calls(tmp_path)[-1] == "teacher"
    assert {len(share) for share in cores(tmp_path)} == {len(everywhere) // 2}
    _ = train(make_cells("tb"), tmp_path / "one", workers=2)
    assert cores(tmp_path / "one") == [frozenset(everywhere)]


@pytest.mark.parametrize("lack", ["permission", "function", "cores"])
def test_where_processes_cannot_be_kept_to_cores_they_use_all(
    make_cells: MakeCells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("not in this container")

    if lack == "permission":
        monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    if lack == "function":
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    cells = make_cells("tb", "eps", "tb-prt")
    outcomes = train(cells, tmp_path, workers=1000 if lack == "cores" else 2)
    monkeypatch.undo()
    assert states(outcomes) == ["finished"] * 3
    if hasattr(os, "sched_getaffinity") and lack != "cores":
        assert set(cores(tmp_path)) == {frozenset(os.sched_getaffinity(0))}


def test_a_damaged_result_is_named(make_cells: MakeCells, tmp_path: Path) -> None:
    cells = make_cells("tb")
    _ = train(cells, tmp_path)
    path = tmp_path / "results" / "grid-2x8-tb.json"
    path.write_text(json.dumps({"preset": "tb", "verdict": {"seeds": 3}}))
    with pytest.raises(ValueError, match="without its seeds or steps"):
        _ = train(cells, tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"grid-2x8-tb\.json cannot be read"):
        _ = train(cells, tmp_path)
