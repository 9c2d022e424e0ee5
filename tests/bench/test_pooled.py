"""Runs of one cell with different seeds count as one."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from didact import bench
from didact.bench import Kept


def run(seeds: list[int], day: int, **changes: Any) -> Kept:
    """A kept run whose total variation is its seed, and whose log Z error its seed squared."""
    tv: list[float | None] = [float(seed) for seed in seeds]
    verdict = {
        "seeds": seeds,
        "step": 8,
        "tv": tv,
        "log_z_error": [float(seed**2) for seed in seeds],
        "log_z_true": 1.5,
        "failures": None,
        "training_seconds": 2.0,
    }
    rows = tuple(
        {"step": step, "reward_calls": 16 * step, "tv": tv, "seconds": 1.0 * step}
        for step in (0, 4, 8)
    )
    made = Kept(
        task="grid-2x8",
        method="tb",
        command=f"didact train grid --seed {seeds[0]}",
        created=f"2026-01-{day:02}T00:00:00+00:00",
        batch_size=16,
        verdict=verdict,
        curves=rows,
        experiment={"network": {"width": 32}, "steps": 8},
    )
    return dataclasses.replace(made, **changes)


def read(folder: Path, *runs: Kept) -> list[Kept]:
    for i, kept in enumerate(runs):
        kept.write(folder / f"{i}.json")
    return bench.read_all(folder)


def test_more_seeds_are_one_run_in_the_order_of_seeds(tmp_path: Path) -> None:
    (all_of_it,) = read(tmp_path, run([3, 4], 2), run([0, 1, 2], 1), run([7, 5], 3))
    assert all_of_it.seeds == (0, 1, 2, 3, 4, 5, 7)
    assert all_of_it.verdict["tv"] == [0, 1, 2, 3, 4, 5, 7]
    assert all_of_it.verdict["log_z_error"] == [0, 1, 4, 9, 16, 25, 49]
    assert all_of_it.verdict["log_z_true"] == 1.5
    assert all_of_it.verdict["training_seconds"] == 6
    assert [row["step"] for row in all_of_it.curves] == [0, 4, 8]
    assert all_of_it.curves[1]["tv"] == [0, 1, 2, 3, 4, 5, 7]
    assert all_of_it.curves[1]["seconds"] == 12
    assert all_of_it.command.count("didact train") == 3


def test_what_one_run_does_not_know_is_none(tmp_path: Path) -> None:
    old, new = run([0, 1], 1), run([2], 2)
    verdict = {key: value for key, value in old.verdict.items() if key != "log_z_error"}
    verdict |= {"training_seconds": None, "k_hat": [0.1, 0.2]}
    old = dataclasses.replace(old, verdict=verdict, curves=old.curves[:2])
    (both,) = read(tmp_path, old, new)
    assert both.verdict["log_z_error"] == [None, None, 4]
    assert both.verdict["k_hat"] == [0.1, 0.2, None]
    assert both.verdict["training_seconds"] is None
    assert [row["step"] for row in both.curves] == [0, 4]


def test_a_seed_is_taken_from_the_latest_run(tmp_path: Path) -> None:
    first, again = run([0, 1, 2], 1), run([2, 3], 2)
    verdict = dict(again.verdict) | {"tv": [20.0, 30.0]}
    (kept,) = read(tmp_path, first, dataclasses.replace(again, verdict=verdict))
    assert kept.seeds == (0, 1, 2, 3)
    assert kept.verdict["tv"] == [0, 1, 20, 30]


def test_times_of_different_devices_are_not_added(tmp_path: Path) -> None:
    runs = [
        dataclasses.replace(
            one, verdict=dict(one.verdict) | {"versions": {"jax": "0.11", "device": device}}
        )
        for one, device in ((run([0], 1), "cpu"), (run([1], 2), "a GPU"), (run([2], 3), "a GPU"))
    ]
    (same,) = read(tmp_path, *runs[1:])
    assert same.verdict["training_seconds"] == 4
    (both,) = read(tmp_path, *runs)
    assert both.seeds == (0, 1, 2)
    assert both.verdict["training_seconds"] is None
    assert {row["seconds"] for row in both.curves} == {None}
    assert both.curves[1]["tv"] == [0, 1, 2]


def test_a_run_with_no_new_seed_adds_no_time(tmp_path: Path) -> None:
    (kept,) = read(tmp_path, run([0], 1), run([0, 1], 2))
    assert kept.verdict["training_seconds"] == 2
    assert kept.command.count("didact train") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"experiment": {"network": {"width": 64}, "steps": 8}},
        {"experiment": {"environment": {"dim": 2}}},
        {"verdict": dict(run([0], 1).verdict) | {"step": 9}},
        {"verdict": dict(run([0], 1).verdict) | {"num_draws": 500}},
        {"verdict": dict(run([0], 1).verdict) | {"exact": False}},
        {"method": "eps"},
    ],
    ids=["experiment", "old file", "budget", "draws", "exactness", "method"],
)
def test_other_runs_are_not_mixed_in(change: dict[str, Any], tmp_path: Path) -> None:
    other, latest = run([0], 1, **change), run([1], 2)
    found = read(tmp_path, other, latest)
    assert {kept.seeds for kept in found if kept.method == "tb"} == {(1,)}
