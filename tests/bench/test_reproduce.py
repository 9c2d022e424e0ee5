"""`didact reproduce`: its plans, its reference values, and tables from what is kept."""

import dataclasses
import json
import math
import re
import runpy
import shlex
import statistics
from pathlib import Path

import numpy as np
import pytest

from didact import bench, presets
from didact._config import to_json
from didact._reference import KINDS, Reference, notes, references
from didact.bench import PARTS, Kept
from didact.bench._kept import without_folder
from didact.bench._metrics import BY_KEY
from didact.bench._reproduce import agreement, estimate, part_of
from didact.cli._bench import cells_of
from didact.cli._parse import parse
from didact.cli._tasks import options_of
from didact.metrics.empirical import l1_floor
from didact.metrics.exact import truth
from didact.targets import DeceptiveGrid

from .._runs import refused, succeeds

KEPT = Path(__file__).parents[2] / "benchmarks" / "results"
WITHOUT_DATA = ("grid", "diffusion")


def kept(method: str = "tb", **verdict: object) -> Kept:
    """A kept run of the grid with three seeds."""
    known = {"seeds": [0, 1, 2], "step": 6_000, "reward_calls": [96_000] * 3, "exact": True}
    return Kept("grid-4x32", method, "", "", 16, known | verdict, ())


def reference(**changes: object) -> Reference:
    """A published value, 10 ± 3."""
    known = Reference("grid-4x32", "tb", "modes_found", 10.0, 3.0, "published", "", 96_000, None)
    return known._replace(**changes)


def test_every_reference_has_an_origin_a_kind_and_a_metric() -> None:
    found = references()
    assert len(found) > 100
    for value in found:
        assert value.kind in KINDS
        assert value.origin
        assert value.metric in BY_KEY or value.metric == "log_z"
        assert math.isfinite(value.value)
        assert part_of(value.task) in PARTS
    assert len({(r.task, r.method, r.metric, r.kind, r.origin) for r in found}) == len(found)
    assert all(notes(part) for part in PARTS)


@pytest.mark.parametrize(
    ("task", "method", "metric", "value", "kind"),
    [
        ("grid-4x32", "teacher", "modes_found", (246.6, 14.7), "quoted"),
        ("grid-2x256", "tb-prt", "modes_found", (2165.2, None), "quoted"),
        ("grid-4x16", "tb-prt", "mode_mass", (0.0373, None), "code"),
        ("25gmm", "tb", "elbo_gap", (1.176, None), "published"),
        ("25gmm", "teacher", "eubo", (0.115, 0.009), "quoted"),
        ("manywell-64", "Teacher + Langevin (370M calls)", "elbo", (281.56, None), "published"),
        ("tfbind8", "a perfect sampler", "log_z", (8.335001, None), "exact"),
    ],
)
def test_some_reference_values(
    task: str, method: str, metric: str, value: tuple[float, float | None], kind: str
) -> None:
    (found,) = (
        r for r in references(task) if (r.method, r.metric, r.kind) == (method, metric, kind)
    )
    assert (found.value, found.error) == value


def test_exact_values_of_grids_are_those_of_the_targets() -> None:
    from didact.targets import DeceptiveGrid

    for task, dim, side in (("grid-2x128", 2, 128), ("grid-4x16", 4, 16)):
        target = DeceptiveGrid(dim, side)
        known = {r.metric: r.value for r in references(task) if r.method == "a perfect sampler"}
        assert known["modes_held"] == target.num_modes
        assert known["log_z"] == pytest.approx(target.log_z, abs=1e-6)
        assert known["mode_mass"] == pytest.approx(target.mode_mass, abs=5e-4)
        law = truth(presets.grid("tb", dim, side).environment, target)
        floor = l1_floor(np.exp(law.log_p), 100_000)
        assert known["empirical_l1"] == pytest.approx(floor, rel=1e-3)


def test_exact_values_of_vectors_are_those_of_the_targets() -> None:
    tasks = ("25gmm", "manywell-32", "manywell-64", "manywell-128")
    for task in tasks:
        known = {r.metric: r.value for r in references(task) if r.method == "a perfect sampler"}
        assert known["log_z"] == pytest.approx(presets.DIFFUSION_TASKS[task].target().log_z)


def test_the_full_suites_have_methods_and_tasks_that_there_are() -> None:
    for part in PARTS:
        pairs = [pair for suite in bench.full(part) for pair in suite.pairs()]
        assert len(set(pairs)) == len(pairs)
        assert {part_of(task) for task, _ in pairs} == {part}


def test_the_quick_plan_is_a_part_of_the_full_one() -> None:
    for part in PARTS:
        few = {pair for suite in bench.quick(part) for pair in suite.pairs()}
        whole = {pair for suite in bench.full(part) for pair in suite.pairs()}
        assert few < whole


def test_the_quick_plan_of_everything_takes_less_than_a_quarter_of_an_hour() -> None:
    cells = cells_of([suite for part in WITHOUT_DATA for suite in bench.quick(part)])
    estimates = [estimate(cell) for cell in cells]
    assert None not in estimates
    (strings,) = bench.quick("biochem")
    assert strings.scale is not None
    # The rounds of the paper's task, without its data: two gradient steps a round.
    steps = round(strings.scale * 4_000)
    for task, method in strings.pairs():
        cell = bench.Cell(task, method, (), tuple(range(strings.seeds)), steps, 32, 16 * steps)
        estimates.append(estimate(cell))
    assert sum(seconds for seconds in estimates if seconds is not None) < 15 * 60


def test_the_plan_is_shown_and_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = succeeds("reproduce", "grid", "--quick", "--plan").out
    assert list(tmp_path.iterdir()) == []
    rows = [line.split("|")[1:6] for line in said.splitlines() if line.startswith("| grid")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["grid-4x16", "tb-prt", "2", "12,000", "96,000"],
        ["grid-4x16", "teacher-per", "2", "12,000", "96,000"],
        ["grid-4x16", "didact", "2", "12,000", "96,000"],
    ]
    for text in (
        "tasks left out: grid-2x128",
        "methods left out: tb, eps",
        "2 seeds in place of 3",
    ):
        assert text in said
    assert "3 cells, about" in said


def test_a_value_with_an_error_is_judged_by_both_errors() -> None:
    ours = kept(modes_found=[12, 14, 16])
    found = agreement(reference(), ours)
    own = 2 / math.sqrt(3)
    assert found.apart == pytest.approx(4)
    assert found.tolerance == pytest.approx(2 * math.hypot(3, own))
    assert found.within is True
    assert agreement(reference(value=1.0), ours).within is False


def test_a_value_without_an_error_has_a_tenth() -> None:
    found = agreement(reference(value=100.0, error=None), kept(modes_found=[89, 89, 89]))
    assert found.tolerance == pytest.approx(10)
    assert found.within is False


def test_open_where_our_own_error_leaves_both_possible() -> None:
    near = reference(value=12.0, error=None)
    assert agreement(near, kept(modes_found=[9, 12, 15])).within is None
    assert agreement(near, kept(modes_found=[22, 25, 28])).within is False


def test_bounds_are_judged_by_their_distance_from_log_z() -> None:
    """A tenth of the bound would be mostly one of log Z."""
    known = kept(eubo=[171.0] * 3, elbo=[163.0] * 3, log_z_true=165.0, w2=[5.4] * 3, w2_floor=5.3)
    for metric, value, tolerance in (
        ("eubo", 166.0, 0.1),
        ("elbo", 163.1, 0.19),
        ("w2", 5.5, 0.02),
    ):
        found = agreement(reference(metric=metric, value=value, error=None), known)
        assert found.tolerance == pytest.approx(tolerance)
        assert found.within is (metric == "elbo")
    floor = agreement(reference(metric="w2_floor", value=5.36, error=None), known)
    assert (floor.tolerance, floor.within) == (None, None)


def test_what_is_not_judged() -> None:
    ours = kept(modes_found=[10, 10, 10])
    assert agreement(reference(kind="code"), ours).within is None
    assert agreement(reference(reward_calls=384_000), ours).other_budget
    assert agreement(reference(reward_calls=None, steps=25_000), ours).other_budget
    assert agreement(reference(), None).ours == "–"


@pytest.mark.usefixtures("undrawn")
def test_tables_from_what_the_repository_keeps(tmp_path: Path) -> None:
    out, cell = tmp_path / "out", ("grid-2x256", "teacher")
    (one,) = (k for k in bench.read_all(KEPT / "grid") if (k.task, k.method) == cell)
    found = one.verdict["modes_found"]
    error = statistics.stdev(found) / math.sqrt(len(found))
    ours = f"{statistics.mean(found):,.0f} ± {error:.0f}"
    said = succeeds("reproduce", "all", "--from", KEPT, "--out", out).out
    for text in ("**grid-4x16**", "**25gmm-paper**", "**tfbind8**", ours, "less tb-prt"):
        assert text in said
    markdown = (out / "reproduce.md").read_text()
    assert markdown.startswith("**grid-2x128**: 676 modes")
    for part in PARTS:
        assert all(f"- {note}\n" in markdown for note in notes(part))
    page = (out / "reproduce.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "divergences" in page
    rows = json.loads((out / "reproduce.json").read_text())["values"]
    (row,) = (r for r in rows if (r["task"], r["method"], r["metric"]) == (*cell, "modes_found"))
    assert row["within"] is True
    assert row["ours"] == found


def test_pages_show_what_the_repository_keeps() -> None:
    tables = runpy.run_path(str(KEPT.parent / "tables.py"))
    for name in tables["PAGES"]:
        page = (KEPT.parents[1] / name).read_text("utf-8")
        assert "<!-- BEGIN TABLES" in page
        assert tables["filled"](page) == page, "run python benchmarks/tables.py"


def test_kept_runs_are_those_of_the_presets_that_they_are_named_after() -> None:
    """A preset that has changed since leaves no row under its name."""
    for run in bench.read_all(KEPT / "grid"):
        size = re.fullmatch(r"grid-(\d+)x(\d+)", run.task)
        assert size is not None
        # One grid is not the paper's: its budget was given.
        steps = run.steps if run.task == "grid-6x16" else None
        now = presets.grid(run.method, int(size[1]), int(size[2]), steps=steps)
        assert to_json(now) == run.experiment, (run.task, run.method)
    parts = ("behaviour", "replay", "optimiser", "teacher_reward", "steps")
    strings = [run for run in bench.read_all(KEPT / "discovery") if "optimiser" in run.experiment]
    own = [run for run in strings if run.method in ("didact", "teacher-mutate-per")]
    assert {run.task for run in own} == set(presets.DISCOVERY_TASKS)
    for run in own:
        # In place of one that needs data; the method does not depend on it.
        target, known = DeceptiveGrid(8, 4), presets.DISCOVERY_TASKS[run.task]
        made = presets.discovery(
            *(target, run.method),
            num_symbols=4,
            length=8,
            rounds=known.rounds,
            epsilon=known.epsilon,
            depth=known.depth,
            steps=run.steps if run.task == "seh" else None,  # a part of the paper's
        )
        now = to_json(made)
        assert {part: now[part] for part in parts} == {part: run.experiment[part] for part in parts}


def test_kept_runs_of_vectors_are_those_of_their_commands_today() -> None:
    """But for some from before drifts had a bound, or batches waited for each other: the page of
    results names them.
    """
    earlier = set()
    for run in bench.read_all(KEPT / "diffusion"):
        _, _, name, *words = shlex.split(run.command)
        options = parse(options_of(name), f"train {name}", words)
        if to_json(options.experiment(name)) != run.experiment:
            earlier.add((run.task, run.method))
    assert earlier == {
        *(("25gmm-paper", "tb-per"), ("25gmm-paper", "teacher")),
        *(("manywell-32-paper", "didact"), ("manywell-32-paper", "teacher")),
        *(("manywell-32-cpu", method) for method in ("tb", "tb-per", "teacher")),
    }


def test_a_kept_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    (old,) = (k for k in bench.read_all(KEPT / "grid") if (k.task, k.method) == ("grid-4x16", "tb"))
    assert "--out" not in old.command
    old.write(tmp_path / "new.json")
    (new,) = bench.read_all(tmp_path)
    assert new == old


def test_of_two_runs_of_a_cell_the_later_one_counts(tmp_path: Path) -> None:
    for name, created in (("a", "2026-02-01T00:00:00+00:00"), ("b", "2026-01-01T00:00:00+00:00")):
        dataclasses.replace(kept(), created=created, command=name).write(tmp_path / f"{name}.json")
    (tmp_path / "c.json").write_text('{"machine": {}, "rows": []}')  # another kind of result
    (found,) = bench.read_all(tmp_path)
    assert found.command == "a"


def test_a_strange_file_is_named_or_shown(tmp_path: Path) -> None:
    """Whatever a kept file holds, it is refused by its name, or what is no number is left out."""
    strange = {
        "preset": "tb",
        "task": "grid-2x8",
        "verdict": {"seeds": [0, 1], "step": 3, "tv": ["x", 0.5], "num_modes": "many"},
        "curves": [{"step": "now", "tv": [None, "y"]}, {}],
    }
    (tmp_path / "x.json").write_text(json.dumps(strange))
    cells = bench.read_all(tmp_path)
    assert "0.500 (1 of 2)" in bench.markdown(cells, ["grid"])
    for verdict in ({"seeds": [[0]], "step": 3}, {"seeds": [0]}, {"seeds": [0], "step": "3"}):
        (tmp_path / "x.json").write_text(json.dumps(strange | {"verdict": verdict}))
        with pytest.raises(ValueError, match=r"x\.json holds a verdict without"):
            bench.read_all(tmp_path)
    (tmp_path / "x.json").write_text(json.dumps(strange | {"curves": [3]}))
    with pytest.raises(ValueError, match=r"x\.json holds curves that are none"):
        bench.read_all(tmp_path)


def test_a_command_without_its_folder() -> None:
    assert without_folder("didact train grid --out a/b --seeds 3") == "didact train grid --seeds 3"
    assert without_folder("didact train grid --out=a/b") == "didact train grid"
    assert without_folder("didact.train(...)") == "didact.train(...)"


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.json").write_text("[")
    assert "name the part" in refused("reproduce")
    assert "unknown part 'grids'" in refused("reproduce", "grids")
    assert "--seeds must be at least 1" in refused("reproduce", "grid", "--seeds", "0")
    assert "not a folder" in refused("reproduce", "grid", "--from", "nowhere")
    assert "holds no kept runs of grid" in refused("reproduce", "grid", "--from", "empty")
    assert "x.json cannot be read" in refused("reproduce", "grid", "--from", "bad")
    assert "leave --quick" in refused("reproduce", "grid", "--from", "empty", "--quick")
    message = refused("reproduce", "grid", "--from", KEPT, "--out", "file")
    assert "not a folder" in message
