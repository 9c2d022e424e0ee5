"""`didact.train`, `didact.Run`, and samplers in files of their own."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact._config import to_json
from didact.environments import Hypergrid, PrependAppend, published_backward_kernel
from didact.logging import MetricsLog, ProgressBar, read_metrics
from didact.metrics import exact, finite_or_none
from didact.networks import MLPConfig
from didact.run import RunError, _check_seeds
from didact.targets import FromFunction

from .._runs import experiment, succeeds


def test_run_is_read_from_its_folder(trained: Path) -> None:
    run = didact.Run.load(trained)
    assert eqx.tree_equal(run.experiment, experiment())
    assert run.seeds == (0, 1)
    assert didact.Run.load(str(trained)).config == run.config
    state = run.state()
    assert int(state.step) == 205
    assert state.num_seeds == 2
    assert [row["kind"] for row in run.metrics()][:2] == ["header", "evaluation"]


def test_students_and_teachers_are_those_of_their_seeds(trained: Path) -> None:
    run = didact.Run.load(trained)
    final = json.loads((trained / "evaluation.json").read_text())
    for i, seed in enumerate(run.seeds):
        student = run.student(seed)
        law = exact.terminal_law(student.environment, exact.policy_table(student))
        truth = exact.truth(student.environment, run.experiment.target)
        assert exact.compare(law, truth)["tv"] == final["tv"][i]
        assert float(student.log_z) == pytest.approx(final["log_z"][i])
        teacher = run.teacher(seed)
        assert teacher is not None
        assert not eqx.tree_equal(teacher.policy, student.policy)
    assert eqx.tree_equal(run.student(), run.student(0))
    with pytest.raises(RunError, match=r"no seed 2: its seeds are \[0, 1\]"):
        _ = run.teacher(2)


def test_run_without_a_teacher(tmp_path: Path, without_report: None) -> None:
    run = didact.train(own_function(), tmp_path / "run", seeds=[5], evaluations=0, num_draws=16)
    assert run.teacher() is None
    assert run.seeds == (5,)
    assert run.evaluate(num_draws=16)["gradient_steps"] == [3]


def bowl(x: jax.Array) -> jax.Array:
    """A log-reward with its top at (3, 3)."""
    return -0.5 * jnp.sum((x - 3.0) ** 2)


def own_function() -> didact.Experiment:
    """A small experiment with a function of the user's own, and without a Teacher."""
    return didact.Experiment(
        Hypergrid(2, 6), FromFunction(bowl), network=MLPConfig(width=9), batch_size=4, steps=3
    )


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for seeds in ((), (1, 1), (-1,), (2**31,)):
        with pytest.raises(ValueError, match="seeds must"):
            _ = didact.train(experiment(), tmp_path / "run", seeds=seeds)
    with pytest.raises(ValueError, match=r"got 2: range\(2\) trains 2 replicas"):
        _ = _check_seeds(2)
    with pytest.raises(ValueError, match="evaluations must be >= 0, got -1"):
        _ = didact.train(experiment(), tmp_path / "run", evaluations=-1)
    with pytest.raises(ValueError, match="num_draws must be >= 2, got 1"):
        _ = didact.train(experiment(), tmp_path / "run", num_draws=1)
    assert not (tmp_path / "run").exists()


def test_function_of_the_user(tmp_path: Path, without_report: None) -> None:
    own = own_function()
    run = didact.train(own, tmp_path / "run", evaluations=1, num_draws=16)
    given = {f"{__name__}:bowl": bowl}
    with pytest.raises(RunError, match=r"config.json cannot be read .*Run\.load\(.*bowl': \.\.\."):
        _ = didact.Run.load(run.path)
    read = didact.Run.load(run.path, given=given)
    verdict = read.evaluate(num_draws=16)
    assert verdict["num_modes"] is None
    assert verdict["modes_found"] == [None]
    assert verdict["log_z_error"] is not None
    # The same call again goes on with the run, though its file names a function only.
    assert didact.train(own, run.path, evaluations=1, num_draws=16).seeds == (0,)


# ---- samplers -------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [didact.objectives.TB(), didact.objectives.SubTB()])
@pytest.mark.parametrize("scoring", [None, published_backward_kernel])
def test_sampler_is_read_as_it_was_written(objective, scoring, tmp_path: Path) -> None:
    small = didact.Experiment(
        Hypergrid(2, 5),
        didact.targets.DeceptiveGrid(2, 5),
        objective=objective,
        network=MLPConfig(width=9, depth=3),
        backward_scoring=scoring,
    )
    sampler = didact.init(small, (3,)).student()
    didact.save_sampler(tmp_path / "sampler.npz", sampler, seed=3, note="mine")
    read = didact.load_sampler(tmp_path / "sampler.npz")
    assert jax.tree.structure(read) == jax.tree.structure(sampler)
    for have, want in zip(jax.tree.leaves(read), jax.tree.leaves(sampler), strict=True):
        assert np.asarray(have).tobytes() == np.asarray(want).tobytes()
        assert np.asarray(have).dtype == np.asarray(want).dtype
    with np.load(tmp_path / "sampler.npz", allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
    assert (header["format_version"], header["seed"], header["note"]) == (1, 3, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["sampler.npz"]


def test_sampler_of_a_run_is_its_student(trained: Path) -> None:
    run = didact.Run.load(trained)
    for seed in run.seeds:
        assert eqx.tree_equal(
            didact.load_sampler(trained / "samplers" / f"student-{seed}.npz"), run.student(seed)
        )


def hill(x: jax.Array) -> jax.Array:
    """A reward of the user's own."""
    return -0.1 * jnp.sum((x - 2.0) ** 2)


@pytest.mark.usefixtures("undrawn")
def test_data_that_are_missing_are_no_damage_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = to_json(didact.Experiment(PrependAppend(4, 8), FromFunction(lambda x: 0.0)))
    setting["target"] = {"type": "targets.TFBind8", "beta": 20.0, "max_reward": 10.0}
    config = {"format_version": 1, "seeds": [0], "summary": {}, "experiment": setting}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DIDACT_DATA_DIR", str(tmp_path / "nothing"))
    with pytest.raises(RunError, match=r"tfbind8.npz is missing: didact data fetch tfbind8$"):
        didact.Run.load(tmp_path)


@pytest.mark.slow
def test_another_function_of_the_same_name_is_another_run(tmp_path: Path) -> None:
    own = didact.Experiment(
        Hypergrid(2, 5), FromFunction(hill), network=MLPConfig(width=9), batch_size=4, steps=4
    )
    run = didact.train(own, tmp_path / "run", evaluations=1, num_draws=64)
    assert run.verdict()["modes_found"] == [None]

    def other(x: jax.Array) -> jax.Array:
        return hill(x) + jnp.where(jnp.sum(x) == 0, 0.5, 0.0)

    other.__qualname__ = other.__name__ = "hill"
    edited = eqx.tree_at(lambda e: e.target, own, FromFunction(other))
    with pytest.raises(RunError, match=r"log R of \[.*\] is .* there, .* here"):
        _ = didact.train(edited, tmp_path / "run", evaluations=1, num_draws=64)
    again = didact.train(own, tmp_path / "run", evaluations=1, num_draws=64)
    assert again.verdict() == run.verdict()
    # The report needs no function.
    assert succeeds("report", tmp_path / "run").code == 0


def renamed(function: Callable[[jax.Array], jax.Array]) -> didact.Experiment:
    """An experiment whose function is called "hill", on a grid of 1,295 objects."""
    function.__qualname__ = function.__name__ = "hill"
    function.__module__ = __name__
    small = MLPConfig(width=4, depth=1)
    return didact.Experiment(
        Hypergrid(2, 36), FromFunction(function), network=small, batch_size=2, steps=1
    )


@pytest.mark.usefixtures("undrawn")
def test_reward_is_compared_on_every_object(tmp_path: Path) -> None:
    """A change at any object is seen, one that keeps log Z included; rounding is none."""
    path = tmp_path / "run"
    settings = {"evaluations": 0, "num_draws": 2}
    run = didact.train(renamed(hill), path, **settings)
    probe = run.config["probe"]
    unprobed = sorted(
        {(i, j) for i in range(35) for j in range(35)} - set(map(tuple, probe["x"][0]))
    )
    # Two neighbours, so that both are in one group.
    a, b = next((jnp.asarray(p), jnp.asarray((p[0], p[1] + 1))) for p in unprobed if p[1] < 34)

    def at(x: jax.Array, place: jax.Array) -> jax.Array:
        return jnp.all(x == place)

    def changed(x: jax.Array) -> jax.Array:
        return hill(x) + 0.5 * at(x, a)

    def swapped(x: jax.Array) -> jax.Array:
        return hill(jnp.where(at(x, a), b, jnp.where(at(x, b), a, x)))

    for function in (changed, swapped):
        with pytest.raises(RunError, match=r"holds another run \(log R .*there"):
            _ = didact.train(renamed(function), path, **settings)
    assert run.verdict() == didact.train(renamed(hill), path, **settings).verdict()
    rounded = renamed(lambda x: hill(x) * (1 + 1e-6 * jnp.sin(1.0 * x[0])))
    _ = didact.train(rounded, path, **settings)


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Also where its reward is a function, which its configuration only names."""
    settings = {"evaluations": 0, "num_draws": 2}
    run = didact.train(renamed(hill), tmp_path, **settings)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["experiment"]["skip_nonfinite"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert didact.train(renamed(hill), tmp_path, **settings).verdict() == run.verdict()


@pytest.mark.usefixtures("undrawn")
def test_infinite_reward_of_a_probed_object_stays_the_same(tmp_path: Path) -> None:
    """A file holds no infinite numbers, which must not make a run another one."""
    own = renamed(lambda x: jnp.where(x[0] == 34, -jnp.inf, 0.0))
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="not finite"):
            _ = didact.train(own, tmp_path / "run", evaluations=0, num_draws=2)


def test_all_differences_are_named(trained: Path) -> None:
    other = didact.presets.grid("tb", 2, 9, steps=300, batch_size=4)
    with pytest.raises(RunError) as error:
        _ = didact.train(other, trained, seeds=(3,))
    message = str(error.value)
    for words in (
        "seeds is [0, 1] there, [3] here",
        "side is 8 there, 9 here",
        "steps is 205 there, 300 here",
        "choose another folder",
    ):
        assert words in message
    assert "--out" not in message


class TwoWide(didact.targets.Target):
    """A flat target with two modes, of two cells and of one."""

    log_z: float | None = None
    num_modes: int | None = 2

    def log_reward(self, x: jax.Array) -> jax.Array:
        """Flat."""
        return jnp.zeros(())

    def mode_index(self, x: jax.Array) -> jax.Array:
        """(0, 0) and (0, 1) are the first, (3, 3) is the second."""
        first = (x[0] == 0) & (x[1] < 2)
        return jnp.where(first, 0, jnp.where(jnp.all(x == 3), 1, -1))


@pytest.mark.usefixtures("undrawn")
def test_modes_of_several_cells_have_their_exact_mass(tmp_path: Path) -> None:
    own = didact.Experiment(Hypergrid(2, 5), TwoWide(), network=MLPConfig(width=4), steps=1)
    verdict = didact.train(own, tmp_path / "run", evaluations=0, num_draws=30).verdict()
    n = Hypergrid(2, 5).num_terminal_states
    assert verdict["mode_mass_target"] == pytest.approx(3 / n)
    expected = sum(1 - (1 - cells / n) ** 30 for cells in (1, 2))
    assert verdict["modes_reached_perfect"] == pytest.approx(expected)


def test_missed_mass_is_that_of_objects_with_less_than_half(trained: Path) -> None:
    run = didact.Run.load(trained)
    verdict, env = run.verdict(), run.experiment.environment
    assert isinstance(env, Hypergrid)
    p = np.exp(exact.truth(env, run.experiment.target).log_p)
    for seed, missed, tv in zip(run.seeds, verdict["missed_mass"], verdict["tv"], strict=True):
        law = exact.terminal_law(env, exact.policy_table(run.student(seed)))
        assert missed == pytest.approx(p[2 * law < p].sum())
        assert 0 <= missed <= 2 * tv
    *_, last = (row for row in run.metrics() if row["kind"] == "evaluation")
    assert last["missed_mass"] == verdict["missed_mass"]


def test_draws_of_a_run_are_those_of_the_command(trained: Path, tmp_path: Path) -> None:
    drawn = didact.Run.load(trained).sample(70, seed=1, key=5)
    options = ["-n", "70", "--seed", "1", "--key", "5", "--out", tmp_path / "draws.npz"]
    _ = succeeds("sample", trained, *options)
    with np.load(tmp_path / "draws.npz") as file:
        np.testing.assert_array_equal(file["x"], drawn.x)
        np.testing.assert_array_equal(file["log_pf"], drawn.log_pf)


class OwnGrid(Hypergrid):
    """An environment of the user's own."""


def test_sampler_of_a_users_environment_is_read_with_what_is_given(tmp_path: Path) -> None:
    own = didact.Experiment(
        OwnGrid(2, 5), didact.targets.DeceptiveGrid(2, 5), network=MLPConfig(width=9)
    )
    sampler = didact.init(own, (3,)).student()
    didact.save_sampler(tmp_path / "own.npz", sampler)
    with pytest.raises(ValueError, match=r"OwnGrid.*given="):
        _ = didact.load_sampler(tmp_path / "own.npz")
    given = {f"{OwnGrid.__module__}:OwnGrid": OwnGrid}
    assert eqx.tree_equal(didact.load_sampler(tmp_path / "own.npz", given=given), sampler)


def test_verdict_is_what_the_last_evaluation_wrote(trained: Path, tmp_path: Path) -> None:
    run = didact.Run.load(trained)
    assert run.verdict() == json.loads((trained / "evaluation.json").read_text())
    assert run.verdict()["versions"]["device"] == jax.devices()[0].device_kind
    shutil.copy(trained / "config.json", tmp_path / "config.json")
    bare = didact.Run.load(tmp_path)
    with pytest.raises(RunError, match=r"run\.evaluate\(\)"):
        _ = bare.verdict()
    (tmp_path / "evaluation.json").write_text("[")
    with pytest.raises(RunError, match="damaged"):
        _ = bare.verdict()


@pytest.fixture
def sampler_file(tmp_path: Path) -> Path:
    """A small sampler in a file."""
    small = didact.Experiment(
        Hypergrid(1, 4), didact.targets.DeceptiveGrid(1, 4), network=MLPConfig(width=4, depth=1)
    )
    path = tmp_path / "sampler.npz"
    didact.save_sampler(path, didact.init(small).student())
    return path


def test_damaged_samplers_are_refused(sampler_file: Path) -> None:
    """Cut anywhere or with any one byte changed, a file is refused, or what was changed does
    not count and the sampler is the same.
    """
    content, whole = sampler_file.read_bytes(), didact.load_sampler(sampler_file)
    rng = np.random.default_rng(0)
    changed = [content[:n] for n in (0, 1, 100, len(content) // 2, len(content) - 1)]
    for place in rng.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        changed.append(bytes(damaged))
    refusals = []
    for damaged in changed:
        sampler_file.write_bytes(damaged)
        try:
            assert eqx.tree_equal(didact.load_sampler(sampler_file), whole)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > len(changed) / 2
    assert all(str(sampler_file) in refusal for refusal in refusals)


class Mischief:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def with_header(file: Path, **changes: object) -> None:
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive}
    header = json.loads(arrays.pop("header").tobytes()) | changes
    np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "run"},
        {"format_version": 2},
        {"environment": {"type": "os.system", "command": "mkdir mischief"}},
        {"environment": {"type": "os:mkdir", "path": "mischief"}},
        {"environment": {"type": "pathlib:Path.mkdir", "self": "mischief"}},
        {"backward_scoring": {"function": "os:mkdir"}},
        {"environment": "Hypergrid"},
        {"environment": {"type": "environments.Hypergrid", "dim": 1, "side": 5}},
        {"network": {"type": "environments.Hypergrid", "dim": 1, "side": 4}},
        {"network": None},
        {"network": {"type": "networks.MLPConfig", "width": "4"}},
        {"flow_head": True},
    ],
    ids=str,
)
def test_headers_that_do_not_fit_are_refused(
    changes: dict[str, object], sampler_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sampler_file.parent)
    with_header(sampler_file, **changes)
    with pytest.raises(ValueError, match=r"sampler\.npz"):
        _ = didact.load_sampler(sampler_file)
    assert [path.name for path in sampler_file.parent.iterdir()] == ["sampler.npz"]


def test_pickles_are_refused_and_not_executed(sampler_file: Path) -> None:
    target = sampler_file.parent / "mischief"
    bomb = np.asarray([Mischief(target)], object)
    buffer = io.BytesIO()
    np.savez(buffer, header=bomb)
    only_array = io.BytesIO()
    np.save(only_array, bomb, allow_pickle=True)
    with np.load(sampler_file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive}
    inside = io.BytesIO()
    np.savez(inside, **(arrays | {"array_0": bomb}))
    plain = pickle.dumps(Mischief(target))
    for content in (buffer.getvalue(), only_array.getvalue(), inside.getvalue(), plain):
        sampler_file.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a sampler"):
            _ = didact.load_sampler(sampler_file)
        assert not target.exists()
    with pytest.raises(ValueError, match=r"nowhere\.npz"):
        _ = didact.load_sampler(sampler_file.with_name("nowhere.npz"))


# ---- the record -----------------------------------------------------------------------------


def row(step: int, kind: str = "train") -> dict[str, object]:
    return {"kind": kind, "step": step, "time": {"seconds": 0.5}}


def test_record_forgets_what_came_after_the_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, step=0)
    for step in (2, 4, 6):
        log.write(row(step))
    log.write(row(6, "evaluation"))
    log.close()
    MetricsLog(path, step=6).close()
    assert [r.get("step") for r in read_metrics(path)] == [None, 2, 4, 6, 6]
    log = MetricsLog(path, step=4)
    log.write(row(5))
    log.close()
    assert [r.get("step") for r in read_metrics(path)] == [None, 2, 4, 5]
    MetricsLog(path, step=0).close()
    assert list(read_metrics(path)) == [{"kind": "header", "format_version": 1}]


def test_record_is_readable_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert list(read_metrics(path)) == []
    log = MetricsLog(path, step=0)
    log.write(row(2) | {"loss": [float("nan"), 1.0], "norm": np.float32("inf")})
    *_, last = read_metrics(path)
    assert (last["loss"], last["norm"]) == ([None, 1.0], None)
    with path.open("a") as file:
        _ = file.write('{"kind": "train", "st')
    assert [r["kind"] for r in read_metrics(path)] == ["header", "train"]
    log.close()


def test_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("didact.logging._SECONDS_BETWEEN_LINES", 0.0)
    shown = {"loss": [2.0, 4.0], "modes_found": None, "time": {"steps_per_second": 5.0}}
    for enabled in (True, False):
        with ProgressBar(4000, 0, enabled=enabled) as bar:
            bar.phase("compiling")
            bar.update(shown | {"step": 1000})
            bar.judged({"step": 1500, "tv": [0.25, 0.75]})
            bar.update(shown | {"step": 2000})
            bar.judged({"step": 3000, "tv": [None, None], "elbo": [-1.5]})
            bar.update(shown | {"step": 4000})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling ..."
    assert lines[1] == "step 1,000/4,000, loss 3"
    assert lines[2].startswith("step 2,000/4,000, TV 0.5 at step 1,500, about 0 s left")
    assert lines[3:] == ["step 4,000/4,000, ELBO -1.5 at step 3,000"]


def test_record_from_the_future(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "header", "format_version": 2}\n{"kind": "train"}\n')
    with pytest.raises(ValueError, match="format version 2: update didact"):
        _ = list(read_metrics(path))


def test_finite_or_none() -> None:
    value = {
        "a": [1, 2.5, float("nan"), float("-inf")],
        "b": (np.float32("nan"), np.float64(0.5), np.int64(3), np.bool_(True)),
        "c": {"d": None, "e": "nan", "f": True},
    }
    clean = finite_or_none(value)
    assert clean == {
        "a": [1, 2.5, None, None],
        "b": [None, 0.5, 3, True],
        "c": {"d": None, "e": "nan", "f": True},
    }
    assert json.loads(json.dumps(clean, allow_nan=False)) == clean
