"""When checkpoints are written and which are kept; and runs that are made longer."""

import json
import threading
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pytest

import didact
from didact import checkpoint
from didact._loop import Schedule
from didact.checkpoint import CheckpointPolicy, CheckpointWriter, best_step, load_state
from didact.run import RunError

from .._runs import OPTIONS, arrays, checkpoint_files, experiment, record, refused, succeeds

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": -1.0}, "seconds must be >= 0"),
        ({"seconds": float("nan")}, "seconds must be >= 0"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"keep": 0}, "keep must be >= 1"),
        ({"keep_best": "beauty"}, "keep_best must be one of tv, .* got 'beauty'"),
    ],
    ids=str,
)
def test_policies_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = CheckpointPolicy(**settings)


@pytest.fixture(scope="module")
def state() -> didact.TrainState:
    """A state without a step."""
    small = didact.networks.MLPConfig(width=4, depth=1)
    return didact.init(
        didact.Experiment(experiment().environment, experiment().target, network=small)
    )


def at(state: didact.TrainState, step: int) -> didact.TrainState:
    return eqx.tree_at(lambda s: s.step, state, jax.numpy.asarray(step, jax.numpy.int32))


def steps_in(folder: Path) -> list[int]:
    return [int(file.stem) for file in checkpoint.checkpoints(folder)]


def test_the_newest_are_kept_and_the_best(state: didact.TrainState, tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, CheckpointPolicy(keep=3), step=0) as writer:
        for step in (2, 4, 6, 8, 10, 12):
            writer.save(at(state, step), best=4 if step < 12 else 10)
            writer.wait()
            if step == 10:
                assert steps_in(tmp_path) == [4, 6, 8, 10]
    assert steps_in(tmp_path) == [8, 10, 12]
    read = load_state(tmp_path, state, step=10)
    assert read is not None
    assert int(read.step) == 10
    assert load_state(tmp_path, state, step=9) is None


def test_when_a_checkpoint_is_due(state: didact.TrainState, tmp_path: Path) -> None:
    now = [100.0]
    policy = CheckpointPolicy(seconds=5.0, steps=10)
    with CheckpointWriter(tmp_path, policy, step=7, clock=lambda: now[0]) as writer:
        assert [writer.is_due(step) for step in (8, 9, 10, 11)] == [False, False, True, True]
        writer.save(at(state, 11))
        assert not writer.is_due(19)
        now[0] += 6
        assert writer.is_due(12)
        writer.save(at(state, 12))
        assert not writer.is_due(13)
        assert writer.is_due(20)
    never = CheckpointPolicy(seconds=None)
    with CheckpointWriter(tmp_path, never, step=0, clock=lambda: now.append(0.0) or 1e9) as writer:
        assert not writer.is_due(10**6)


def test_training_goes_on_while_a_checkpoint_is_written(
    state: didact.TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state may be used up meanwhile: what is written is a copy."""
    may_write, write = threading.Event(), checkpoint._write

    def slowly(path: Path, content: Any) -> None:
        assert may_write.wait(60)
        write(path, content)

    monkeypatch.setattr(checkpoint, "_write", slowly)
    copies = jax.tree.map(lambda leaf: leaf + 0 if eqx.is_inexact_array(leaf) else leaf, state)
    with CheckpointWriter(tmp_path, CheckpointPolicy(), step=0) as writer:
        writer.save(at(copies, 3))
        for leaf in jax.tree.leaves(eqx.filter(copies, eqx.is_inexact_array)):
            leaf.delete()
        assert not writer.is_due(4)
        assert steps_in(tmp_path) == []
        may_write.set()
    read = load_state(tmp_path, state)
    assert read is not None
    assert eqx.tree_equal(*(eqx.filter(s.seeds, eqx.is_inexact_array) for s in (read, state)))


def test_what_is_relied_on_comes_first(state: didact.TrainState, tmp_path: Path) -> None:
    seen = []
    with CheckpointWriter(
        tmp_path, CheckpointPolicy(), step=0, before=lambda: seen.append(steps_in(tmp_path))
    ) as writer:
        writer.save(at(state, 1))
        writer.save(at(state, 2))
    assert seen == [[], [1]]


@pytest.mark.parametrize("call", ["save", "is_due", "wait", "end"])
def test_errors_of_the_writer_come_to_light(
    call: str, state: didact.TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "_write", fail)

    def write() -> None:
        with CheckpointWriter(tmp_path, CheckpointPolicy(), step=0) as writer:
            writer.save(at(state, 1))
            assert writer._pending is not None
            _ = writer._pending.exception()  # is over
            if call == "save":
                writer.save(at(state, 2))
            elif call == "is_due":
                _ = writer.is_due(2)
            elif call == "wait":
                writer.wait()
            assert call == "end"

    with pytest.raises(OSError, match="Input/output"):
        write()


def test_the_best_evaluation() -> None:
    def row(step: int, kind: str = "evaluation", **values: list[float | None]) -> dict[str, Any]:
        return {"kind": kind, "step": step, **values}

    rows = [
        row(0, tv=[0.0, 0.0], elbo=[9.0, 9.0]),  # of the untrained Student, without a checkpoint
        row(3, tv=[0.5, 0.3], elbo=[1.0, None]),
        row(4, "train", tv=[0.0, 0.0]),
        row(6, tv=[0.2, 0.4], elbo=[0.0, 1.0]),
        row(9, tv=[0.4, 0.2], elbo=[2.0, float("nan")]),
    ]
    assert best_step(rows, "tv") == 6
    assert best_step(rows, "elbo") == 6
    assert best_step(rows, "ess") is None


# ---- where chunks end ------------------------------------------------------------------------


def ends(schedule: Schedule, start: int = 0) -> list[int]:
    found = [start]
    while found[-1] < schedule.total:
        found.append(schedule.end_after(found[-1]))
    return found[1:]


@pytest.mark.parametrize("first", [1, 7, 205])
@pytest.mark.parametrize("evaluations", [0, 1, 3, 12, 300])
def test_a_longer_run_is_the_same_up_to_where_it_was_to_end(first: int, evaluations: int) -> None:
    short = Schedule((first,), evaluations)
    longer = Schedule((first, first + 50), evaluations)
    marks = {round(first * (i + 1) / evaluations) for i in range(evaluations)} - {0}
    assert {step for step in range(1, first + 1) if short.is_mark(step)} == marks
    assert ends(longer)[: len(ends(short))] == ends(short)
    assert ends(longer)[-1] == first + 50
    # Wherever it goes on from, chunks end where they would have.
    for at_row in ends(longer)[:-1][::5]:
        assert ends(longer, at_row) == [end for end in ends(longer) if end > at_row]
    assert max(b - a for a, b in zip([0, *ends(longer)], ends(longer), strict=False)) <= (
        short.capacity
    )


SETTINGS: dict[str, Any] = {"seeds": (0, 1), "evaluations": 3, "num_draws": 512}


def same_state(run: Path, reference: Path) -> None:
    assert record(run) == record(reference)
    assert arrays(checkpoint_files(run)[-1]) == arrays(checkpoint_files(reference)[-1])
    assert checkpoint_files(run)[-1].name == checkpoint_files(reference)[-1].name


@pytest.mark.slow
def test_a_finished_run_is_made_longer(copy: Path, trained: Path, tmp_path: Path) -> None:
    """By the command line; the same in one call from the start, and in Python."""
    _ = succeeds("train", "grid", "--resume", "--out", copy, "--extend", 260)
    assert record(copy)[: len(record(trained))] == record(trained)
    evaluated = [row["step"] for row in record(copy) if row["kind"] == "evaluation"]
    assert evaluated == [0, 68, 137, 205, 260]
    config = json.loads((copy / "config.json").read_text("utf-8"))
    assert config["lengths"] == [205, 260]
    assert config["experiment"]["steps"] == config["summary"]["steps"] == 260
    assert config["command"].endswith("--extend 260")
    run = didact.Run.load(copy)
    assert run.verdict()["step"] == run.experiment.steps == 260
    whole = didact.train(experiment(), tmp_path / "whole", extend=260, **SETTINGS)
    same_state(copy, whole.path)
    # The same again, in each way of saying it, finds it finished.
    before = run.verdict()
    for again in (("--resume",), (*OPTIONS, "--extend", 260)):
        assert "is finished, with 260 steps" in succeeds("train", "grid", *again, "--out", copy).err
    assert didact.train(run.experiment, copy, **SETTINGS).verdict() == before


def test_what_is_not_the_same_run_is_not_made_longer(copy: Path) -> None:
    for options, words in (
        (("--steps", 300), "steps is 205 there, 300 here): choose another folder, or make this"),
        (("--steps", 300, "--extend", 400), "steps is 205 there, 400 here"),
        (("--extend", 300, "--epsilon", 0.5), "epsilon is the default there, 0.5 here"),
        (("--extend", 204), "--extend must be at least the 205 steps"),
    ):
        assert words in refused("train", "grid", *OPTIONS, *options, "--out", copy)
    with pytest.raises(ValueError, match="extend must be at least the 205 steps"):
        _ = didact.train(experiment(), copy, extend=204, **SETTINGS)
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"lengths": [\n    205', '"lengths": [\n    206'))
    with pytest.raises(RunError, match="its lengths are not its numbers of steps"):
        _ = didact.train(experiment(), copy, **SETTINGS)


@pytest.mark.slow
def test_a_run_that_was_stopped_is_made_longer_twice(tmp_path: Path) -> None:
    """Whether or not it came to its first ends in between: they are ends of chunks all the same."""
    small = didact.presets.grid("tb", 1, 6, steps=9, batch_size=4)

    def train(name: str, length: int | None = None, *, chunks: int = 100) -> None:
        polls = iter(range(1, 200))
        run = didact.train(
            *(small, tmp_path / name),
            extend=length,
            evaluations=2,
            num_draws=16,
            should_stop=lambda: next(polls) >= chunks,
        )
        lengths = run.config["lengths"]
        assert lengths == [length for length in (9, 13, 20) if length <= lengths[-1]]
        assert lengths[-1] == (length or 9)

    train("stopped", chunks=2)
    train("stopped", 13, chunks=1)
    for name in ("stopped", "straight"):
        train(name, 13)
        train(name, 20)
    same_state(tmp_path / "stopped", tmp_path / "straight")
    evaluated = [r["step"] for r in record(tmp_path / "stopped") if r["kind"] == "evaluation"]
    assert evaluated == [0, 4, 9, 13, 14, 18, 20]


def test_the_best_checkpoint_of_a_run_is_kept(tmp_path: Path) -> None:
    small = didact.presets.grid("tb", 1, 6, steps=9, batch_size=4)
    policy = CheckpointPolicy(seconds=None, keep=1, keep_best="tv")
    run = didact.train(small, tmp_path / "run", evaluations=9, num_draws=16, checkpoints=policy)
    rows = [row for row in run.metrics() if row["kind"] == "evaluation" and row["step"] > 0]
    best = min(rows, key=lambda row: row["tv"][0])
    assert steps_in(run.path / "checkpoints") == sorted({best["step"], 9})
    assert int(run.state(best="tv").step) == best["step"]
    assert int(run.state().step) == 9
    with pytest.raises(RunError, match="no checkpoint at an evaluation with ess"):
        _ = run.state(best="ess")
    with pytest.raises(ValueError, match="keep_best goes by evaluations"):
        _ = didact.train(small, tmp_path / "other", evaluations=0, checkpoints=policy)
    unknown = CheckpointPolicy(keep_best="mean_value")
    with pytest.raises(RunError, match=r"have no mean_value here, they have .*tv"):
        _ = didact.train(small, tmp_path / "other", evaluations=1, checkpoints=unknown)
