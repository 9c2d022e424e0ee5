"""Bad input: one line that says what is wrong and what to do, exit code 2, nothing lost."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact.environments import Hypergrid
from didact.targets import FromFunction

from .._runs import (
    OPTIONS,
    checkpoint_files,
    contents,
    record,
    refused,
    run_cli,
    succeeds,
)

TRAIN = ("train", "grid", "--side", "8", "--steps", "2", "--draws", "32")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "nope"], ["unknown preset 'nope'", "teacher-per"]),
        (["--side", "1"], ["side >= 2, got 1"]),
        (["--dim", "0"], ["dim >= 1, got 0"]),
        (["--dim", "-3"], ["dim >= 1, got -3"]),
        (["--epsilon", "1.5"], ["epsilon must lie in [0, 1], got 1.5"]),
        (["--epsilon", "-0.1"], ["epsilon must lie in [0, 1], got -0.1"]),
        (["--epsilon", "nan"], ["epsilon must lie in [0, 1], got nan"]),
        (["--temperature", "0"], ["temperature must be > 0, got 0"]),
        (["--batch-size", "0"], ["batch_size must be >= 1, got 0"]),
        (["--steps", "0"], ["steps must be >= 1, got 0"]),
        (["--steps", "3000000000"], ["steps must be <= 2147483647", "3000000000"]),
        (["--checkpoint-seconds", "inf"], ["--checkpoint-seconds must be", "finite"]),
        (["--checkpoint-seconds", "nan"], ["--checkpoint-seconds must be", "finite"]),
        (["--seeds", "0"], ["--seeds must be at least 1, got 0"]),
        (["--seed", "-1"], ["--seed must be at least 0, got -1"]),
        (["--seed", "9999999999"], ["--seed must be at most", "9999999999"]),
        (["--draws", "1"], ["--draws must be at least 2, got 1"]),
        (["--evaluations", "-1"], ["--evaluations must be at least 0"]),
        (["--convention", "foo"], ["'foo'", "--convention", "paper"]),
        (["--side", "eight"], ["--side", "'eight'"]),
        (["--dim", "2.5"], ["--dim takes a whole number, got '2.5'"]),
        (["--steps", "1e3"], ["--steps takes a whole number, got '1e3'"]),
        (["--epsilon", "x"], ["--epsilon takes a number, got 'x'"]),
        (["--sidee", "8"], ["--sidee", "did you mean --side?", "--help"]),
        (["--preset"], ["--preset", "--help"]),
    ],
    ids=" ".join,
)
def test_options_of_train(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    message = refused(*TRAIN, "--out", tmp_path / "run", *arguments)
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], ["unknown command 'frobnicate'", "train, data, sample"]),
        (["train"], ["unknown task ''", "didact train grid"]),
        (["train", "--nope"], ["unknown task '--nope'"]),
        (["train", "sphere"], ["unknown task 'sphere'", "didact train grid"]),
        (["sample"], ["name the run folder: didact sample RUN"]),
        (["evaluate"], ["name the run folder: didact evaluate RUN"]),
        (["report"], ["name the run folder: didact report RUN"]),
        (["list", "everything"], ["everything"]),
        (["evaluate", "a", "b"], ["b"]),
        (["evaluate", "nowhere", "--draws", "1"], ["--draws must be at least 2"]),
        (["sample", "nowhere", "--key", "-1"], ["--key must lie in"]),
        (["sample", "nowhere"], ["nowhere does not exist"]),
        (["evaluate", "nowhere", "--json"], ["nowhere does not exist"]),
        (["report", "nowhere"], ["nowhere does not exist"]),
        (["train", "grid", "--resume"], ["runs/grid-didact-2x128-s0 does not exist"]),
        (["train", "grid", "--resume", "--out", "nowhere"], ["nowhere does not exist"]),
        (["train", "grid", "--resume", "--out=nowhere"], ["nowhere does not exist"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_commands(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(*arguments)
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "0"], ["at least 1, got 0"]),
        (["-n", "-4"], ["at least 1, got -4"]),
        (["--out", "samples.txt"], [".npz or .csv", "'.txt'"]),
        (["--out", "samples"], [".npz or .csv", "'samples'"]),
        (["--out", "nowhere/samples.npz"], ["the folder nowhere does not exist"]),
        (["--out", "folder.npz"], ["folder.npz"]),
        (["--seed", "7"], ["no seed 7", "[0, 1]"]),
    ],
    ids=" ".join,
)
def test_options_of_sample(
    arguments: list[str],
    words: list[str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npz").mkdir()
    message = refused("sample", trained, "-n", "10", *arguments)
    assert all(word in message for word in words), message
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        (["--preset", "tb"], "preset is 'teacher-per' there, 'tb' here"),
        (["--side", "9"], "side is 8 there, 9 here"),
        (["--steps", "300"], "steps is 205 there, 300 here"),
        (["--seeds", "1"], "seeds is [0, 1] there, [0] here"),
        (["--seed", "3"], "seeds is [0, 1] there, [3, 4] here"),
        (["--convention", "exact"], "convention is 'paper' there, 'exact' here"),
        (["--epsilon", "0.5"], "epsilon is the default there, 0.5 here"),
        (["--published-backward"], "published_backward is the default there, True here"),
        (["--side", "9", "--epsilon", "0.5"], "side is 8 there, 9 here; epsilon is the default"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_folder_of_another_run(arguments: list[str], difference: str, copy: Path) -> None:
    before = contents(copy)
    for again in (OPTIONS, ("--resume",)):
        message = refused("train", "grid", *again, *arguments, "--out", copy)
        assert f"{copy} holds another run" in message
        assert difference in message
        assert "choose another folder" in message
    assert contents(copy) == before


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    assert "is not a run folder" in refused(*TRAIN, "--out", tmp_path)
    assert "is not a run folder" in refused(*TRAIN, "--out", tmp_path / "thesis.tex")
    assert "thesis.tex" in refused(*TRAIN, "--out", tmp_path / "thesis.tex" / "run")
    assert contents(tmp_path) == before


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert str(tmp_path) in refused(*TRAIN, "--out", tmp_path / "run")


def edited(**changes: object) -> Callable[[str], str]:
    """Change values of a configuration, by dotted name."""

    def edit(text: str) -> str:
        config = json.loads(text)
        for name, value in changes.items():
            *where, last = name.split("__")
            place = config
            for word in where:
                place = place[word]
            place[last] = value
        return json.dumps(config)

    return edit


DAMAGE: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut short": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "\x00\x01 not JSON",
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "nested too deeply": lambda text: "[" * 100_000,
    "nothing in it": lambda text: "{}",
    "no experiment": edited(experiment=None),
    "another type": edited(experiment={"type": "environments.Hypergrid", "dim": 2, "side": 8}),
    "unknown class": edited(experiment__environment={"type": "environments.Sphere"}),
    "private name": edited(experiment__environment={"type": "_experiment._group"}),
    "code": edited(experiment__environment={"type": "os:system", "command": "touch pwned"}),
    "dotted code": edited(experiment__environment={"type": "os.system", "command": "touch pwned"}),
    "code of a dependency": edited(
        experiment__environment={"type": "replay.jax.block_until_ready"}
    ),
    "function": edited(experiment__backward_scoring={"function": "builtins:exec"}),
    "no type": edited(experiment__environment={"dim": 2}),
    "text for a number": edited(experiment__steps="many"),
    "part of a number": edited(experiment__environment__dim=2.5),
    "too small a number": edited(experiment__environment__dim=0),
    "number for an object": edited(experiment__behaviour=3),
    "missing object": edited(experiment__objective=None),
    "unknown argument": edited(experiment__environment__colour="red"),
    "seeds of text": edited(seeds=["x"]),
    "no seeds": edited(seeds=[]),
    "seeds no list": edited(seeds=0),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_configuration(damage: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    config = copy / "config.json"
    config.write_text(DAMAGE[damage](config.read_text("utf-8")), "utf-8")
    before = contents(copy.parent)
    commands = [["sample", copy], ["evaluate", copy, "--json"]]
    foreign = damage in ("code", "function")  # the report only shows their names
    if not foreign:
        commands.append(["report", copy])
    for command in [*commands, ["train", "grid", "--resume", "--out", copy]]:
        message = refused(*command)
        assert str(config) in message, message
        assert ("given=" if foreign else "restore it") in message
    message = refused("train", "grid", *OPTIONS, "--out", copy)
    assert str(config) in message or "holds another run" in message
    assert contents(copy.parent) == before


def test_configuration_from_the_future(copy: Path) -> None:
    config = copy / "config.json"
    config.write_text(edited(format_version=2)(config.read_text("utf-8")), "utf-8")
    before = contents(copy)
    train = ["train", "grid", *OPTIONS, "--out", copy]
    for command in [["sample", copy], ["evaluate", copy], ["report", copy], train]:
        assert "has format version 2: update didact" in refused(*command)
    assert contents(copy) == before


def test_no_checkpoint_can_be_read(copy: Path) -> None:
    for file in checkpoint_files(copy):
        file.write_bytes(file.read_bytes()[:1000])
    (copy / "evaluation.json").unlink()
    before = contents(copy)
    for command in (
        ["sample", copy],
        ["evaluate", copy],
        ["train", "grid", *OPTIONS, "--out", copy],
    ):
        message = refused(*command)
        assert f"no checkpoint in {copy / 'checkpoints'} can be read" in message
        assert "into another folder" in message
    assert contents(copy) == before


def test_no_checkpoint_yet(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    for command in ("sample", "evaluate"):
        assert "holds no checkpoint yet" in refused(command, copy)


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("how", ["cut", "flip"])
def test_damaged_checkpoint_is_not_used(how: str, copy: Path, trained: Path) -> None:
    """A later, damaged checkpoint is passed over with a warning; the good one before it counts."""
    good = checkpoint_files(copy)[-1]
    bad = good.with_name("000000300.npz")
    content = bytearray(good.read_bytes())
    if how == "cut":
        bad.write_bytes(content[:-100])
    else:
        content[len(content) // 2] ^= 1
        bad.write_bytes(content)
    result = succeeds("evaluate", copy, "--json", "--draws", "512")
    assert result.err == f"didact: {bad} cannot be read: going on from {good.name}.\n"
    verdict = json.loads(result.out)
    assert verdict["step"] == 205
    assert verdict["tv"] == json.loads((trained / "evaluation.json").read_text())["tv"]


@pytest.mark.parametrize("content", [[{"a": 1}], 1, 2], ids=["pickle", "arrays", "version"])
def test_whole_checkpoint_of_something_else_is_refused(content: object, copy: Path) -> None:
    """Going back to an older one would hide that the newest belongs elsewhere."""
    kind = object if isinstance(content, list) else None
    other = checkpoint_files(copy)[-1].with_name("000000300.npz")
    np.savez(other, format_version=np.asarray(content, kind))
    (copy / "evaluation.json").unlink()
    before = contents(copy)
    for command in (["evaluate", copy], ["train", "grid", *OPTIONS, "--out", copy]):
        assert f"{other} does not fit this run" in refused(*command)
    assert contents(copy) == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("line", ["{nonsense", "[]", "{}", '{"kind": "train", "step": "three"}'])
def test_damaged_line_of_the_record(line: str, copy: Path) -> None:
    file = copy / "metrics.jsonl"
    rows = file.read_text("utf-8").splitlines()
    rows[10] = line
    file.write_text("\n".join(rows) + "\n", "utf-8")
    (copy / "evaluation.json").unlink()
    before = contents(copy)
    for command in (["evaluate", copy], ["train", "grid", *OPTIONS, "--out", copy]):
        assert f"{file} is damaged at line 11: remove that line" in refused(*command)
    assert contents(copy) == before
    _ = succeeds("report", copy)


def bad_reward(x: jnp.ndarray) -> jnp.ndarray:
    """Not a number far from the start."""
    return jnp.where(jnp.sum(x) > 3, jnp.nan, 0.0)


@pytest.mark.parametrize("evaluations", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_reward_that_is_not_finite(
    evaluations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the exact evaluation of the target, or by the training itself."""
    experiment = didact.Experiment(Hypergrid(2, 6), FromFunction(bad_reward), steps=30)
    run = tmp_path / "run"
    with pytest.raises(FloatingPointError, match=r"not finite.*bound"):
        _ = didact.train(experiment, run, evaluations=evaluations)
    kept = didact.Run.load(run, given={f"{__name__}:bad_reward": bad_reward})
    assert eqx.tree_equal(kept.experiment, experiment)
    assert record(run)[0]["kind"] == "header"
    monkeypatch.setattr(didact.presets, "grid", lambda *_, **__: experiment)
    options = ["--evaluations", evaluations, "--out", run]
    result = run_cli(*TRAIN, *options)
    assert (result.code, result.out) == (2, "")
    first, *_, last = result.err.splitlines()
    assert first == "compiling ..."
    assert last.startswith("didact: log_reward is not finite")
    if not evaluations:  # of the training, which tells of which object
        where = r"Of seed 0, the target's log R of trajectory \d+, which ends in \[\d, \d\], is nan"
        assert re.search(where, last)
        assert (run / "nonfinite.json").exists()


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    optimiser = didact.OptimiserConfig(learning_rate=1e38, max_norm=None)
    experiment = didact.presets.grid("tb", 1, 6, steps=30)
    experiment = eqx.tree_at(lambda e: e.optimiser, experiment, optimiser)
    wrong = r"loss or its gradient .* lower .* \(step \d+\)\. Of seed 0, the Student's "
    with pytest.raises(FloatingPointError, match=wrong):
        _ = didact.train(experiment, tmp_path / "run", evaluations=0)


def test_samples_are_not_half_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle leaves the file that was there, and nothing beside it."""
    out = tmp_path / "samples.npz"
    out.write_bytes(b"mine")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr(zipfile.ZipFile, "write", fail)
    assert "no space left" in refused("sample", trained, "-n", "100", "--out", out)
    assert contents(tmp_path) == {"samples.npz": b"mine"}


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def need(message: str) -> None:
        def command(_: list[str]) -> int:
            raise ImportError(message)

        monkeypatch.setattr("didact.cli._main.data", command)

    need("RNA targets need ViennaRNA: pip install 'didact[rna]'.")
    assert refused("data").endswith("RNA targets need ViennaRNA: pip install 'didact[rna]'.")
    need("cannot import name 'x' from 'y'")  # a fault of the program's is no bad input
    with pytest.raises(ImportError, match="cannot import name"):
        run_cli("data")
