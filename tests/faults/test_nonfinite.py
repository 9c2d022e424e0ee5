"""Rewards, losses and gradients that are not finite: said of what and where, or passed over."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact._train import TrainState
from didact._trouble import find_trouble
from didact.behaviours import Cycle, FromReplay, FromTeacher, OnPolicy
from didact.checkpoint import load_state
from didact.environments import Hypergrid
from didact.networks import MLPConfig
from didact.objectives import TB
from didact.replay import ReplayConfig
from didact.targets import FromFunction

from .._runs import checkpoint_files, record

pytestmark = pytest.mark.usefixtures("without_report")

SEEDS = (3, 8)
KEPT = didact.CheckpointPolicy(seconds=None)


def slope(x: jax.Array) -> jax.Array:
    """A log-reward that falls from 0 to -1.3."""
    return -0.1 * jnp.sum(x)


def hole(x: jax.Array) -> jax.Array:
    """The same, but for where it is not a number."""
    return jnp.where(jnp.sum(x) >= 11, jnp.nan, slope(x))


class Fragile(didact.objectives.Objective):
    """TB, with a loss or a gradient that is not finite below a log-reward."""

    below: float = -1.05
    of_gradient: bool = eqx.field(static=True, default=False)
    needs_flow = False
    learns_log_z = True
    pathwise = False

    def __call__(self, scored):
        output = TB()(scored)
        bad = scored.log_reward < self.below
        # The square root has an infinite slope at zero.
        zero = jnp.where(bad, 0 * scored.log_z, 1.0)
        broken = output.loss + jnp.sqrt(zero) if self.of_gradient else jnp.inf
        return eqx.tree_at(lambda o: o.loss, output, jnp.where(bad, broken, output.loss))


def setting(**changes: Any) -> didact.Experiment:
    """Its chunks are of two steps, and the far corner of the grid is reached at times."""
    parts = {
        "environment": Hypergrid(2, 8),
        "target": FromFunction(slope),
        "objective": Fragile(),
        "behaviour": Cycle((OnPolicy(0.2), FromReplay())),
        "replay": ReplayConfig(32, "reward"),
        "network": MLPConfig(width=4, depth=1),
        "batch_size": 4,
        "steps": 300,
    }
    return didact.Experiment(**(parts | changes))


@pytest.fixture(scope="module")
def fine() -> tuple[didact.Experiment, TrainState]:
    """A state in which everything is finite, with a Teacher."""
    experiment = setting(
        objective=TB(),
        behaviour=Cycle((OnPolicy(0.2), FromTeacher(0.2))),
        teacher_reward=didact.teacher.DoubleLog(),
        replay=None,
    )
    return experiment, didact.init(experiment, SEEDS)


@pytest.mark.parametrize("agent", ["Student", "Teacher"])
@pytest.mark.parametrize(
    ("term", "part", "value"),
    [
        ("parameters", lambda s: s.policy.layers[-1].bias, jnp.nan),
        ("log Z", lambda s: s.log_z, jnp.inf),
        ("log P_F", lambda s: s.policy.layers[0].weight, 3e38),
    ],
    ids=["parameters", "log-z", "log-pf"],
)
def test_what_is_not_finite_is_found(agent: str, term: str, part, value: float, fine) -> None:
    experiment, state = fine
    assert find_trouble(experiment, state, SEEDS) is None
    name = agent.lower()

    def where(s: TrainState) -> jax.Array:
        return part(getattr(s.seeds, name).sampler)

    broken = eqx.tree_at(where, state, where(state).at[1].set(value))
    found = find_trouble(experiment, broken, SEEDS)
    assert found is not None
    assert (found.seed, found.agent) == (8, agent)
    assert found.term == term
    assert not np.isfinite(found.value)
    assert (found.edge is not None) == (found.trajectory is not None) == (term == "log P_F")


@pytest.mark.slow
@pytest.mark.parametrize("preset", didact.presets.GRID_PRESETS)
def test_steps_of_every_method_can_be_taken_apart(preset: str) -> None:
    experiment = didact.presets.grid(preset, 2, 4, batch_size=4)
    state = didact.init(experiment, SEEDS)
    assert find_trouble(experiment, state, SEEDS) is None
    assert not np.any(didact.step(experiment, state)[0].seeds.trouble)
    broken = eqx.tree_at(lambda s: s.seeds.student.sampler.log_z, state, jnp.full(2, jnp.nan))
    found = find_trouble(experiment, broken, SEEDS)
    assert found is not None
    assert (found.seed, found.agent, found.term) == (SEEDS[0], "Student", "log Z")


# ---- a run says it, and keeps what was good --------------------------------------------------


def told(run: Path) -> dict[str, Any]:
    return json.loads((run / "nonfinite.json").read_text("utf-8"))


def ends_badly(experiment: didact.Experiment, out: Path, **options: Any) -> str:
    """What a run says of something that is not finite."""
    options = {"evaluations": 0, "num_draws": 2, "checkpoints": KEPT} | options
    with pytest.raises(FloatingPointError) as error:
        _ = didact.train(experiment, out, seeds=SEEDS, **options)
    return str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "agent", "term", "value"),
    [
        ({"objective": Fragile()}, "Student", "loss", "inf"),
        ({"objective": Fragile(of_gradient=True)}, "Student", "gradient", "nan"),
        ({"target": FromFunction(hole), "objective": TB()}, "target", "log R", "nan"),
    ],
    ids=["loss", "gradient", "reward"],
)
def test_a_run_says_what_was_not_finite_and_keeps_the_last_good_state(
    changes: dict[str, Any], agent: str, term: str, value: str, tmp_path: Path
) -> None:
    experiment, out = setting(**changes), tmp_path / "run"
    message = ends_badly(experiment, out)
    found = told(out)
    assert (found["agent"], found["term"], found["value"]) == (agent, term, value)
    x = found["x"]
    assert slope(jnp.asarray(x)) < -1.05
    where = f"the {agent}'s {term} of trajectory {found['trajectory']}, which ends in {x}, is"
    assert f"Of seed {found['seed']}, {where} {value} (more in {out}/nonfinite.json)" in message
    assert f"(step {found['step']})" in message
    # What is kept is the state before the chunk in which it happened, at the end of the record.
    (newest,) = checkpoint_files(out)
    step = int(newest.stem)
    assert step == record(out)[-1]["step"] == (found["step"] - 1) // 2 * 2 > 0
    state = didact.init(experiment, SEEDS)
    for _ in range(0, step, 2):
        state, _ = didact.train_chunk(experiment, state, 2, capacity=2)
    kept = load_state(out / "checkpoints", state)
    assert kept is not None
    assert eqx.tree_equal(*(eqx.filter(s.seeds, eqx.is_array) for s in (kept, state)))
    # The same again ends in the same, wherever it goes on from.
    assert ends_badly(experiment, out) == message
    assert told(out) == found


@pytest.mark.slow
def test_steps_are_passed_over_and_counted(tmp_path: Path) -> None:
    """From the start, or turned on where a run has ended."""
    careful = setting(skip_nonfinite=True)
    options: dict[str, Any] = {"evaluations": 0, "num_draws": 2, "checkpoints": KEPT}
    run = didact.train(careful, tmp_path / "run", seeds=SEEDS, **options)
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    counts = np.array([row["skipped"] for row in rows])
    assert np.all(np.diff(counts, axis=0) >= 0)
    assert np.all(counts[-1] > 0)
    assert np.all(counts[-1] < 300)
    assert run.verdict()["skipped"] == counts[-1].tolist()
    # Means are of the steps that were not passed over.
    assert any(None not in row["loss"] and any(row["skipped"]) for row in rows)
    seeds = run.state().seeds
    assert seeds.replay is not None
    for kept in (seeds.replay.log_reward, seeds.replay.priority, seeds.student.sampler.log_z):
        assert jnp.all(jnp.isfinite(kept))

    out = tmp_path / "turned-on"
    _ = ends_badly(setting(), out)
    before = record(out)
    run = didact.train(careful, out, seeds=SEEDS, **options)
    assert not (out / "nonfinite.json").exists()
    assert run.verdict()["finished"]
    assert min(run.verdict()["skipped"]) > 0
    assert record(out)[: len(before)] == before
    assert didact.Run.load(out, given={f"{__name__}:{t.__name__}": t for t in (slope, Fragile)})
    assert json.loads((out / "config.json").read_text("utf-8"))["experiment"]["skip_nonfinite"]
    with pytest.raises(didact.RunError, match="skip_nonfinite is True there, False here"):
        _ = didact.train(setting(), out, seeds=SEEDS, **options)


@pytest.mark.slow
def test_a_step_that_is_passed_over_changes_nothing_but_the_count() -> None:
    experiment = setting(skip_nonfinite=True, objective=Fragile(below=-0.65))
    state, passed_over = didact.init(experiment, SEEDS), 0
    for _ in range(12):
        after, info = didact.step(experiment, state)
        skipped = np.asarray(after.seeds.skipped - state.seeds.skipped)
        assert np.array_equal(info.skipped, after.seeds.skipped)
        for seed in range(len(SEEDS)):
            learned = [
                jax.tree.map(lambda leaf, i=seed: leaf[i], eqx.filter(s.seeds, eqx.is_array))
                for s in (state, after)
            ]
            same = eqx.tree_equal(learned[0].student, learned[1].student)
            assert bool(same) == bool(skipped[seed])
            if skipped[seed]:
                assert eqx.tree_equal(learned[0].replay, learned[1].replay)
        passed_over += int(skipped.sum())
        state = after
    assert 0 < passed_over < 24
    assert not np.any(state.seeds.trouble)


@pytest.mark.slow
def test_a_run_that_passes_over_everything_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("didact._loop._MOST_WASTED", 6)
    hopeless = setting(skip_nonfinite=True, objective=Fragile(below=1.0))
    message = ends_badly(hopeless, tmp_path / "run")
    assert "the last 6 steps were all skipped" in message
    assert "the Student's loss of trajectory 0" in message
    assert int(checkpoint_files(tmp_path / "run")[-1].stem) == 6


def test_programs_without_it_carry_nothing_of_it() -> None:
    plain, careful = (didact.init(setting(skip_nonfinite=skip), SEEDS) for skip in (False, True))
    assert plain.seeds.skipped is None
    assert careful.seeds.skipped is not None
    assert len(jax.tree.leaves(careful)) == len(jax.tree.leaves(plain)) + 1
