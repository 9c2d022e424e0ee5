"""Rewards outside JAX, and what a function of the user's may do to a run: nothing."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact._config import to_json
from didact._experiment import traced_numbers
from didact._train import _ask, _tell, host_chunk
from didact.behaviours import MALA, Cycle, FromReplay, OnPolicy
from didact.environments import Hypergrid, PrependAppend
from didact.logging import read_metrics
from didact.metrics import empirical, exact
from didact.networks import MLPConfig
from didact.replay import ReplayConfig
from didact.run import RunError
from didact.targets import FromFunction, HostReward

from .._runs import arrays, checkpoint_files, record
from .._states import assert_same_bits

pytestmark = pytest.mark.usefixtures("without_report")

MODULE = '''
import os, pathlib, signal, time

FOLDER = pathlib.Path(__file__).parent


def score(x):
    """(1 + x0 + x1)/4; what else happens stands in the file "faults", by object."""
    faults = dict(line.split("=") for line in (FOLDER / "faults").read_text().split())
    scores = []
    for place in x.tolist():
        fault = faults.get(",".join(map(str, place)), faults.get("all"))
        if fault == "raise":
            raise ValueError("not this one")
        if fault == "hang":
            time.sleep(600)
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "stop":
            raise KeyboardInterrupt
        if fault == "short":
            return []
        special = {"nan": float("nan"), "negative": -0.5, "inf": float("inf")}
        scores.append(special.get(fault, (1 + sum(place)) / 4))
    with open(FOLDER / "scored", "a") as file:
        file.writelines(f"{place}\\n" for place in x.tolist())
    return scores


def letters(words):
    return [word.count("A") + 2 * word.count("C") for word in words]


def too_few(words):
    return []


def logarithms(x):
    return [-10.0 * sum(place) for place in x.tolist()]
'''

ENV = Hypergrid(2, 4)
EVERY = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(16, 2).astype(np.int32)
TRUE = (1 + EVERY.sum(axis=1)) / 4


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module above, imported from a folder of its own."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "host_reward_of_a_test.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("host_reward_of_a_test")
        patch.delitem(sys.modules, "host_reward_of_a_test")


@pytest.fixture(autouse=True)
def fresh(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test is a process of its own, as far as evaluators know."""
    made: dict[Any, Any] = {}
    monkeypatch.setattr("didact._host._evaluator._evaluators", made)
    faulty(module)
    (module.FOLDER / "scored").write_text("")
    yield
    for evaluator in made.values():
        evaluator.close()
    shutil.rmtree(module.FOLDER / "cache", ignore_errors=True)


def faulty(module: ModuleType, **faults: str) -> None:
    """What the function does to objects: x12="raise" is of (1, 2), every="nan" of all."""
    names = {name: "all" if name == "every" else ",".join(name[1:]) for name in faults}
    lines = [f"{names[name]}={fault}\n" for name, fault in faults.items()]
    (module.FOLDER / "faults").write_text("".join(lines))


def scored(module: ModuleType) -> list[str]:
    """The objects that the function has scored, in order."""
    return (module.FOLDER / "scored").read_text().splitlines()


def target_of(module: ModuleType, **options: Any) -> HostReward:
    """The same in most tests, whose programs are then compiled once."""
    return HostReward(module.score, **({"floor": 0.01, "cache": module.FOLDER / "cache"} | options))


def log_rewards(scores: np.ndarray, beta: float = 1.0, floor: float = 0.01) -> np.ndarray:
    return (beta * np.log(np.maximum(scores, floor))).astype(np.float32)


def small(target: didact.targets.Target, steps: int = 204) -> didact.Experiment:
    """A small experiment whose chunks hold two steps."""
    return didact.Experiment(
        ENV,
        target,
        behaviour=Cycle((OnPolicy(0.3), FromReplay(2))),
        replay=ReplayConfig(32, "reward"),
        network=MLPConfig(width=8, depth=1),
        batch_size=4,
        steps=steps,
        count_distinct=True,
    )


# ---- what log R is -----------------------------------------------------------------------------


def test_log_reward_is_that_of_the_scores(module: ModuleType) -> None:
    target = target_of(module, beta=2.5, floor=0.6)
    rewards = target.rewards(EVERY)
    np.testing.assert_array_equal(rewards.log_reward, log_rewards(TRUE, 2.5, 0.6))
    assert rewards.log_reward.dtype == np.float32
    assert not rewards.failures
    logs = HostReward(module.logarithms, returns="log_reward", floor=-35.0, beta=2.0, cache=False)
    wanted = 2.0 * np.maximum(-10.0 * EVERY.sum(axis=1), -35.0)
    np.testing.assert_array_equal(logs.rewards(EVERY).log_reward, wanted.astype(np.float32))


def test_scores_in_memory_outlive_the_workers(module: ModuleType) -> None:
    target = target_of(module, cache=False)
    first = target.rewards(EVERY)
    target.close()
    np.testing.assert_array_equal(target.rewards(EVERY).log_reward, first.log_reward)
    assert len(scored(module)) == len(EVERY)


def test_strings_are_words_of_the_alphabet(module: ModuleType) -> None:
    x = np.array([[0, 1, 2], [1, 1, 0]], np.int32)
    target = HostReward(module.letters, alphabet="ACG", cache=False)
    assert target.rewards(x).objects == ["ACG", "CCA"]
    np.testing.assert_array_equal(target.rewards(x).log_reward, log_rewards(np.array([3, 5])))
    longer = HostReward(module.letters, alphabet=("A", "CC", "[G]"), cache=False)
    assert longer.decode(x) == ["ACC[G]", "CCCCA"]
    for wrong in (x + 1, x - 1):
        with pytest.raises(ValueError, match="the alphabet has 3 symbols: give one for each"):
            target.rewards(wrong)
    with pytest.raises(ValueError, match=r"these are float32 \[3\]"):
        target.rewards(x.astype(np.float32))


def test_programs_of_jax_can_ask(module: ModuleType) -> None:
    """In one call, and each object once."""
    target = target_of(module)
    wanted = log_rewards(TRUE)
    x = jnp.asarray(EVERY)
    np.testing.assert_array_equal(jax.jit(jax.vmap(target.log_reward))(x), wanted)
    assert len(scored(module)) == 16
    nested = jax.vmap(jax.vmap(target.log_reward))(x.reshape(2, 8, 2))
    np.testing.assert_array_equal(nested.ravel(), wanted)
    assert target.log_reward(x[5]) == wanted[5]
    np.testing.assert_array_equal(jax.lax.map(target.log_reward, x, batch_size=3), wanted)
    assert len(scored(module)) == 16


def test_there_is_no_gradient(module: ModuleType) -> None:
    target = target_of(module)
    for differentiate in (jax.grad, jax.value_and_grad):
        with pytest.raises(ValueError, match="a function outside JAX has none: use an objective"):
            differentiate(target.log_reward)(jnp.ones(2))
    setting = eqx.tree_at(lambda e: e.behaviour, small(target), MALA(OnPolicy(), 2, 1))
    with pytest.raises((ValueError, TypeError), match=r"gradient|real- or complex-valued"):
        didact.train_chunk(setting, didact.init(setting), 1, capacity=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta must be > 0"),
        ({"beta": float("inf")}, "beta must be finite"),
        ({"floor": 0.0}, "floor must be > 0"),
        ({"returns": "log_reward", "floor": None}, "needs a floor"),
        ({"alphabet": "ABA"}, "symbols of an alphabet must differ"),
        ({"alphabet": ("A", "")}, "symbols of an alphabet must differ"),
        ({"workers": -1}, "workers must be >= 0"),
        ({"timeout": 1.0}, "only workers can be stopped at a timeout"),
        ({"timeout": float("inf"), "workers": 1}, "timeout must be finite"),
        ({"call_size": 0}, "call_size must be >= 1"),
    ],
)
def test_arguments_that_cannot_be(
    options: dict[str, Any], message: str, module: ModuleType
) -> None:
    with pytest.raises(ValueError, match=message):
        target_of(module, **options)


def test_functions_that_cannot_be_named() -> None:
    with pytest.raises(ValueError, match=r"workers must import .*lambda.* define it at the top"):
        HostReward(lambda x: x, cache=False, workers=1)
    with pytest.raises(ValueError, match="give a cache_key, which names its version, or cache="):
        HostReward(lambda x: x)
    assert HostReward(lambda x: x, cache_key="mine").version


# ---- faults, object by object ------------------------------------------------------------------


def test_each_fault_costs_its_object_only(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    faulty(
        module,
        x00="raise",
        x12="hang",
        x13="nan",
        x20="killed",
        x21="negative",
        x33="inf",
    )
    target = target_of(module, workers=2, timeout=0.5)
    rewards = target.rewards(EVERY)
    bad = {
        0: "ValueError: not this one",
        6: "timed out after 0.5 s",
        7: "returned nan",
        8: "its process died (SIGKILL)",
        9: "returned -0.5, and scores must be >= 0 (returns='log_reward' takes logs)",
        15: "returned inf",
    }
    assert rewards.failures == bad
    wanted = np.where(np.isin(range(16), list(bad)), 0.01, TRUE)
    np.testing.assert_array_equal(rewards.log_reward, log_rewards(wanted))
    assert (target.counters.evaluations, target.counters.failures) == (16, 6)
    assert len(caplog.messages) == 1  # the first tells, the run lists the others
    assert "is set aside with the lowest reward" in caplog.messages[0]
    # What was set aside is not asked for again, in this process.
    before = scored(module)
    again = target.rewards(EVERY[::-1])
    np.testing.assert_array_equal(again.log_reward, rewards.log_reward[::-1])
    assert again.failures == {15 - i: reason for i, reason in bad.items()}
    assert scored(module) == before


def test_each_object_is_scored_once(module: ModuleType) -> None:
    target = target_of(module)
    target.rewards(EVERY[[1, 1, 2, 1]])
    target.rewards(EVERY[[2, 3]])
    assert scored(module) == ["[0, 1]", "[0, 2]", "[0, 3]"]
    assert (target.counters.evaluations, target.counters.cache_hits) == (3, 1)


def test_the_next_process_scores_nothing_anew_but_failures(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(module, x03="raise")
    first = target_of(module)
    then = first.rewards(EVERY)
    first.close()
    assert len(scored(module)) == 15
    monkeypatch.setattr("didact._host._evaluator._evaluators", {})
    faulty(module)
    second = target_of(module)
    now = second.rewards(EVERY)
    second.close()
    assert scored(module)[15:] == ["[0, 3]"]
    assert then.keys == now.keys
    assert np.delete(then.log_reward, 3).tobytes() == np.delete(now.log_reward, 3).tobytes()
    assert (then.log_reward[3], now.log_reward[3]) == tuple(log_rewards(np.array([0, 1.0])))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_that_always_fails_is_an_error(workers: int, module: ModuleType) -> None:
    faulty(module, every="raise")
    target = target_of(module, workers=workers)
    x = np.arange(80, dtype=np.int32).reshape(40, 2)
    assert len(target.rewards(x[:9]).failures) == 9
    assert len(target.rewards(x[9:18]).failures) == 9
    with pytest.raises(ValueError, match=r"of the last 27 objects .*: ValueError: not this one"):
        target.rewards(x[18:27])
    # A single score, and it may go on.
    faulty(module, **{f"x{a}{a + 1}": "raise" for a in range(0, 8, 2)})
    target.rewards(x[27:])
    faulty(module, every="raise")
    assert target.rewards(x[:30]).failures.keys() == set(range(27))


# ---- training ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_is_that_of_a_reward_within_jax(module: ModuleType) -> None:
    """Bit by bit, whatever happened to the objects that were set aside; two seeds in one call."""
    faulty(module, x11="raise", x30="nan")
    host = small(target_of(module))
    scores = np.where(np.isin(range(16), [5, 12]), 0.01, TRUE)
    table = jnp.asarray(log_rewards(scores))
    within = small(FromFunction(lambda x: table[4 * x[0] + x[1]]))
    asked: list[tuple[int, list[int], int]] = []
    one, infos = host_chunk(
        host,
        didact.init(host, (3, 4)),
        8,
        capacity=10,
        observe=lambda step, seeds, rewards: asked.append((step, [*seeds], len(rewards.keys))),
    )
    other, wanted = didact.train_chunk(within, didact.init(within, (3, 4)), 8, capacity=10)
    assert_same_bits(one.seeds, other.seeds)
    assert_same_bits(infos, wanted)
    # Replayed batches ask for nothing.
    assert asked == [(step, [0, 1], 8) for step in (1, 3, 5, 7)]
    # A chunk of no steps leaves all as it is.
    same, empty = didact.train_chunk(host, one, 0, capacity=10)
    assert same is one
    assert jax.tree.structure(empty) == jax.tree.structure(infos)
    assert not np.any(empty.loss)


def test_its_programs_hold_no_host_callback(module: ModuleType) -> None:
    setting = small(target_of(module))
    numbers, state = traced_numbers(setting), didact.init(setting)
    proposal = eqx.filter_eval_shape(_ask, numbers, state)
    log_reward = jnp.zeros((1, setting.batch_size))
    programs = (
        eqx.filter_make_jaxpr(_ask)(numbers, state)[0],
        eqx.filter_make_jaxpr(_tell)(numbers, state, proposal, log_reward)[0],
    )
    assert not any("callback" in str(program) for program in programs)
    within = eqx.filter_make_jaxpr(setting.target.log_reward)(jnp.zeros(2, jnp.int32))[0]
    assert "callback" in str(within)  # else the above says nothing


def test_draws_are_scored_outside_of_programs(module: ModuleType) -> None:
    target = target_of(module)
    student = didact.init(small(target)).student()
    drawn = empirical.draws(student, target, jax.random.key(0), 9, batch_size=4)
    table = log_rewards(TRUE)
    np.testing.assert_array_equal(drawn.log_reward, table[4 * drawn.x[:, 0] + drawn.x[:, 1]])
    assert len(scored(module)) == len(np.unique(drawn.x, axis=0))
    within = FromFunction(lambda x: jnp.asarray(table)[4 * x[0] + x[1]])
    wanted = empirical.draws(student, within, jax.random.key(0), 9, batch_size=4)
    assert_same_bits(drawn, wanted)
    before = len(scored(module))
    few = empirical.draw(student, target, jax.random.key(1), 64, count=1)
    assert few.x.shape == (1, 2)
    assert len(scored(module)) <= before + 1
    assert "would ask for the rewards of all 15" in str(exact.refusal(ENV, target))
    assert exact.refusal(ENV, within) is None


# ---- runs --------------------------------------------------------------------------------------


def train(out: Path, experiment: didact.Experiment, **options: Any) -> didact.Run:
    settings = {"seeds": (0, 1), "evaluations": 2, "num_draws": 64} | options
    return didact.train(experiment, out, **settings)


def same_results(run: Path, reference: Path) -> None:
    """Two runs agree in every bit that does not depend on the clock or on the cache."""
    assert record(run) == record(reference)
    assert arrays(checkpoint_files(run)[-1]) == arrays(checkpoint_files(reference)[-1])
    for name in ("seen.bin", "failures.jsonl"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()
    verdicts = [json.loads((path / "evaluation.json").read_text()) for path in (run, reference)]
    for verdict in verdicts:
        del verdict["training_seconds"]
    assert verdicts[0] == verdicts[1]


def polls(count: int) -> Callable[[], bool]:
    """A wish to stop at the poll of this number."""
    numbers = iter(range(1, 10**9))
    return lambda: next(numbers) >= count


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what evaluators have seen in this one."""
    monkeypatch.setattr("didact._host._evaluator._evaluators", {})


@pytest.mark.slow
def test_a_run_says_what_it_cost_and_ends_the_same_however_it_was_stopped(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = small(target_of(module))
    faulty(module, x11="raise", x30="nan")
    whole = train(tmp_path / "whole", setting)
    rows = whole.metrics()
    assert [len(scored(module)), rows[-1]["failures"]] == [14, [2, 2]]  # of 15; it returns nan
    assert rows[-1]["reward_calls"] == whole.verdict()["reward_calls"] == [15, 15]
    # What the file counts is what the state counts, where that can number the objects.
    training = [row for row in rows if row["kind"] == "train"]
    assert all(row["reward_calls"] == row["distinct"] for row in training)
    assert sum(row["time"]["evaluations"] for row in training) <= 15
    header, *failures = read_metrics(whole.path / "failures.jsonl")
    assert header["format_version"] == 1
    assert sorted((row["seed"], *row["x"], row["reason"]) for row in failures) == [
        (seed, *x, reason)
        for seed in (0, 1)
        for x, reason in (((1, 1), "ValueError: not this one"), ((3, 0), "returned nan"))
    ]
    assert all(0 < row["step"] <= 204 for row in failures)

    # A second run asks for nothing that has a score. It is stopped within its first chunk, within
    # later ones and between two: what it then does again costs no evaluation either.
    (module.FOLDER / "scored").write_text("")
    for count in (2, 14, 150):
        another_process(monkeypatch)
        stopped = train(tmp_path / "stopped", setting, should_stop=polls(count))
        assert stopped.metrics()[-1]["step"] < 204
        assert not (stopped.path / "evaluation.json").exists()
    another_process(monkeypatch)
    train(tmp_path / "stopped", setting)
    same_results(tmp_path / "stopped", whole.path)
    assert set(scored(module)) == {"[3, 0]"}


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped dead in the middle of a step, and of a row of the objects that it had asked for."""
    setting, options = small(target_of(module), steps=40), {"evaluations": 0}
    faulty(module, x11="raise", x32="stop")
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "killed",
            setting,
            checkpoints=didact.CheckpointPolicy(seconds=0.0),
            **options,
        )
    assert 0 < int(checkpoint_files(tmp_path / "killed")[-1].stem) < 40
    with (tmp_path / "killed" / "seen.bin").open("ab") as file:
        file.write(b"half a row")
    faulty(module, x11="raise")
    for name in ("killed", "whole"):
        another_process(monkeypatch)
        train(tmp_path / name, setting, **options)
    same_results(tmp_path / "killed", tmp_path / "whole")


def test_only_what_is_trained_makes_another_run(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "run"
    run = train(out, small(target_of(module), steps=3), evaluations=0)
    for options in ({"workers": 1, "timeout": 9.0}, {"call_size": 7}, {"cache": False}):
        train(out, small(target_of(module, **options), steps=3), evaluations=0)
    for options, message in (
        ({"beta": 2.0}, r"target.beta is 1.0 there, 2.0 here"),
        ({"floor": 0.1}, r"target.floor is 0.01 there, 0.1 here"),
        ({"cache_key": "2"}, r"target.cache_key is None there, '2' here"),
    ):
        with pytest.raises(RunError, match=message):
            train(out, small(target_of(module, **options), steps=3), evaluations=0)
    with pytest.raises(RunError, match=r"Run\.load\(.*host_reward_of_a_test:score': \.\.\."):
        didact.Run.load(out)
    given = {"host_reward_of_a_test:score": module.score}
    # A folder says what is trained, and not how the function is called nor where scores are kept.
    loaded = didact.Run.load(out, given=given).experiment
    assert to_json(loaded) == to_json(run.experiment)
    assert isinstance(loaded.target, HostReward)
    assert (loaded.target.cache, loaded.target.workers) == (True, 0)
    assert str(tmp_path) not in (out / "config.json").read_text().replace(str(out), "")
    assert not caplog.messages
    file = Path(str(module.__file__))
    file.write_text(MODULE + "# a comment\n")
    another_process(monkeypatch)
    train(out, run.experiment, evaluations=0)
    file.write_text(MODULE.replace("/ 4", "/ 5"))
    another_process(monkeypatch)
    try:
        with pytest.raises(RunError, match=r"the program of its reward function, .* is another"):
            train(out, run.experiment, evaluations=0)
        _ = didact.Run.load(out, given=given)  # to be read, not to be trained
        assert "the program of its reward function" in caplog.messages[-1]
    finally:
        file.write_text(MODULE)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_an_evaluation_leaves_nothing_open(
    module: ModuleType, tmp_path: Path, in_memory: bool
) -> None:
    """But for scores in memory, which outlive the training. Nor does it score an object twice."""
    cache = False if in_memory else str(tmp_path / "scores")
    target = HostReward(module.letters, alphabet="ACG", cache=cache)
    setting = didact.Experiment(
        PrependAppend(3, 3), target, network=MLPConfig(width=8, depth=1), batch_size=4, steps=2
    )
    run = train(tmp_path / "run", setting, seeds=(0,), evaluations=0)
    _ = run.evaluate(num_draws=16)
    assert json.loads((run.path / "found.json").read_text())["best"]
    scores = target._evaluator._cache
    assert in_memory == (scores._connection is not None)
    (distinct,) = scores._do(lambda db: db.execute("SELECT COUNT(*) FROM scores").fetchone())
    assert target.counters.evaluations == distinct
    scores.close()


def test_errors_of_the_function_end_a_run_and_nothing_is_lost(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = small(target_of(module), steps=40)
    faulty(module, x32="short")
    options = {"evaluations": 0, "checkpoints": didact.CheckpointPolicy(seconds=0.0)}
    with pytest.raises(RunError, match=r":score returned \d scores for \d objects: let it return"):
        train(tmp_path / "run", setting, **options)
    assert int(checkpoint_files(tmp_path / "run")[-1].stem) > 0
    faulty(module)
    another_process(monkeypatch)
    assert train(tmp_path / "run", setting, **options).verdict()["finished"]
    assert len(scored(module)) == len(set(scored(module))) == 15


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_a_search_asks_from_within_its_program(
    wrong: bool, module: ModuleType, tmp_path: Path
) -> None:
    """Also its objects are counted; and where the function cannot be used, the run says so."""
    function = module.too_few if wrong else module.letters
    setting = didact.Experiment(
        PrependAppend(3, 2),
        HostReward(function, alphabet="ACG", cache=False),
        behaviour=didact.behaviours.LocalSearch(OnPolicy(), depth=1, rounds=1),
        network=MLPConfig(width=8, depth=1),
        batch_size=4,
        steps=8,
    )
    if wrong:
        with pytest.raises(RunError, match=r":too_few returned 0 scores for"):
            train(tmp_path / "run", setting, evaluations=0)
        return
    run = train(tmp_path / "run", setting, evaluations=0)
    assert 2 < run.metrics()[-1]["reward_calls"][0] <= 9
