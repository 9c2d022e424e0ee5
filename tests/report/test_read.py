"""Reading run folders that are whole, partial or broken."""

import json
from pathlib import Path

import numpy as np
import pytest

from didact.report import write
from didact.report._read import MAX_FRAMES, read, scalar, series, values

from .conftest import MakeRun, change_json


def test_whole_run(grid_run: Path) -> None:
    run = read(grid_run)
    assert run.notes == ()
    assert run.has_teacher
    assert run.num_seeds == 3
    assert not run.marginal
    assert len(run.train) == 60
    assert len(run.snapshots) == 12
    assert run.target is not None
    assert run.target.shape == (1, 16, 16)
    assert run.target.sum() == pytest.approx(1)
    x, y = series(run.train, "modes_found")
    assert (x.shape, y.shape) == ((60,), (60, 3))
    assert x[-1] == 96_000


def test_cells_without_objects(grid_run: Path, run_copy: Path) -> None:
    """By the rule of the grid; elsewhere where nothing ever has any probability."""
    corner = np.zeros((1, 16, 16), dtype=np.bool_)
    corner[0, -1, -1] = True
    np.testing.assert_array_equal(read(grid_run).void, corner)
    config = json.loads((run_copy / "config.json").read_text())
    config["experiment"]["environment"] = {"type": "environments.Hypergrid", "dim": 2, "side": 16}
    change_json(run_copy / "config.json", **config)
    path = run_copy / "snapshots" / "target.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["target"][0, 0] = 0  # so small that it has vanished
    np.savez(path, **arrays)
    np.testing.assert_array_equal(read(run_copy).void, corner)


def test_pairs_above_two_dimensions(tmp_path: Path, make_run: MakeRun) -> None:
    run = read(make_run(tmp_path / "run", dim=3, side=8))
    assert run.pairs == ((0, 1), (0, 2), (1, 2))
    assert run.target is not None
    assert run.target.shape == (3, 8, 8)
    assert run.modes is None
    assert run.marginal


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "not a readable configuration"),
        ("[1]", "no JSON object"),
        ("\xff", "not a readable configuration"),
        ("{}", "format_version is None"),
        ('{"format_version": 2}', "use the version that wrote it"),
    ],
)
def test_bad_configuration_names_file_and_remedy(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        _ = path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=words) as error:
        _ = write(tmp_path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_broken_lines_are_counted(run_copy: Path) -> None:
    path = run_copy / "metrics.jsonl"
    lines = path.read_text().splitlines()
    deep = "[" * 100_000
    _ = path.write_text("\n".join(["garbage", deep, "[]", "", *lines, '{"kind": "tr']))
    run = read(run_copy)
    assert len(run.train) == 60
    assert run.notes == (
        "The last line of metrics.jsonl is cut off and was ignored.",
        "3 unreadable line(s) of metrics.jsonl were ignored.",
    )


def test_broken_arrays_are_noted(run_copy: Path) -> None:
    first, second = sorted((run_copy / "snapshots").glob("0*.npz"))[:2]
    _ = first.write_bytes(first.read_bytes()[:100])
    np.savez(second, student=np.ones((3, 3)), step=2000)
    run = read(run_copy)
    assert len(run.snapshots) == 10
    assert run.notes == ("2 snapshot(s) cannot be read and are left out.",)


def test_pickled_arrays_are_refused(run_copy: Path) -> None:
    path = run_copy / "snapshots" / "target.npz"
    np.savez(path, target=np.array([{}], dtype=object))
    run = read(run_copy)
    assert run.target is None
    assert "target.npz cannot be read" in run.notes[0]


def test_last_evaluation_stands_in_for_the_final_one(run_copy: Path) -> None:
    _ = (run_copy / "evaluation.json").write_text("{")
    run = read(run_copy)
    assert scalar(run.final, "step") == 12_000
    assert "the verdict is the last one of the training at step 12,000" in run.notes[0]


@pytest.mark.parametrize(
    ("evaluated", "judged", "reached", "notes"),
    [
        (12_000, 12_000, 12_000, []),
        (
            800,
            5000,
            5200,
            [
                (
                    "evaluation.json is of step 800: the verdict is the last one of the training "
                    "at step 5,000. `didact evaluate` on this folder makes a full one of the "
                    "newest checkpoint."
                ),
                "The verdict is of step 5,000, training has gone on to step 5,200.",
                "The training is unfinished: 5,200 of 12,000 steps.",
            ],
        ),
        (5200, 5200, 5200, ["The training is unfinished: 5,200 of 12,000 steps."]),
        (
            5000,
            5000,
            5200,
            [
                "The verdict is of step 5,000, training has gone on to step 5,200.",
                "The training is unfinished: 5,200 of 12,000 steps.",
            ],
        ),
    ],
)
def test_newer_verdict_is_taken(
    run_copy: Path, evaluated: int, judged: int, reached: int, notes: list[str]
) -> None:
    change_json(run_copy / "evaluation.json", step=evaluated, versions={"jax": "of the file"})
    path = run_copy / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [row for row in rows if row.get("step", 0) <= reached]
    _ = path.write_text("\n".join(map(json.dumps, kept)) + "\n")
    run = read(run_copy)
    assert scalar(run.final, "step") == judged
    assert ("versions" in run.final) is (judged == evaluated)
    assert run.step == reached
    assert run.finished is (reached == 12_000)
    assert list(run.notes) == notes
    (row,) = [r for r in run.train if r["step"] == judged]
    if judged != evaluated:
        assert run.final["modes_found"] == row["modes_found"]
        assert scalar(run.final, "num_modes") == scalar(run.summary, "num_modes")


def test_addresses_outside_didact_are_found(run_copy: Path) -> None:
    assert read(run_copy).foreign == ()
    change_json(
        run_copy / "config.json",
        experiment={
            "type": "_experiment.Experiment",
            "target": {"type": "targets.FromFunction", "f": {"function": "__main__:log_reward"}},
            "behaviour": {"behaviours": [{"type": "mine:Own", "x": {"type": "mine:Own"}}]},
            "note": "a: b",
        },
    )
    (run_copy / "evaluation.json").unlink()
    run = read(run_copy)
    assert run.foreign == ("__main__:log_reward", "mine:Own")
    assert "`run.evaluate()` in Python makes" in run.notes[0]


def test_many_snapshots_are_thinned(run_copy: Path) -> None:
    folder = run_copy / "snapshots"
    source = (folder / "000001000.npz").read_bytes()
    for step in range(100, 1000, 10):
        _ = (folder / f"{step:09d}.npz").write_bytes(source)
    steps = [s.step for s in read(run_copy).snapshots]
    assert len(steps) == MAX_FRAMES
    assert (steps[0], steps[-1]) == (100, 12_000)
    assert steps == sorted(steps)


def test_values_are_numbers_or_nan() -> None:
    record = json.loads('{"a": [1, null, "x", NaN, true, 1e999], "b": 3, "c": {}}')
    np.testing.assert_array_equal(values(record, "a"), [1, np.nan, np.nan, np.nan, 1, np.nan])
    np.testing.assert_array_equal(values(record, "b"), [3])
    assert np.isnan(values(record, "c")).all()
    assert np.isnan(values({"d": 10**400}, "d")).all()
    assert scalar(record, "missing") is None


def test_series_keep_their_rows_together() -> None:
    records = [
        {"reward_calls": 10, "a": [1, 2]},
        {"reward_calls": 20, "a": None},
        {"reward_calls": 30, "a": [None, None]},
        {"reward_calls": 40, "a": [3]},
        {"a": [5, 5]},
    ]
    x, y = series(records, "a")
    np.testing.assert_array_equal(x, [10, 40])
    np.testing.assert_array_equal(y, [[1, 2], [3, np.nan]])
