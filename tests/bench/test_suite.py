"""What a suite takes, and how it refuses the rest: before anything starts, in one line."""

from pathlib import Path

import pytest

from didact import presets
from didact.bench import Suite, read_suite, train_words
from didact.bench._suite import methods_of

from .._runs import refused, succeeds

SMALL = ("--tasks", "grid-2x8", "--methods", "tb")


def test_every_method_is_a_cell_of_every_task() -> None:
    suite = Suite(tasks=("grid-2x8", "25gmm"), methods=("tb", "tb-per"))
    wanted = [(task, method) for task in suite.tasks for method in suite.methods]
    assert suite.pairs() == wanted


def test_a_method_of_one_task_alone() -> None:
    suite = Suite(tasks=("grid-2x8", "25gmm"), methods=("tb", "25gmm:teacher", "grid-2x8:eps"))
    assert suite.pairs() == [
        *(("grid-2x8", "tb"), ("grid-2x8", "eps")),
        *(("25gmm", "tb"), ("25gmm", "teacher")),
    ]


def test_options_go_to_the_tasks_that_they_name() -> None:
    options = ("batch-size=8", "25gmm.size=paper", "25gmm.langevin", "grid-2x8.epsilon=0.5")
    suite = Suite(tasks=("grid-2x8", "25gmm"), methods=("tb",), options=options)
    assert suite.options_of("grid-2x8") == ["--batch-size=8", "--epsilon=0.5"]
    assert suite.options_of("25gmm") == ["--batch-size=8", "--size=paper", "--langevin"]


def test_the_methods_are_those_of_the_presets() -> None:
    assert methods_of("grid-3x5") is presets.GRID_PRESETS
    assert all(methods_of(task) is presets.DIFFUSION_PRESETS for task in presets.DIFFUSION_TASKS)
    assert all(methods_of(task) is presets.DISCOVERY_PRESETS for task in presets.DISCOVERY_TASKS)


def test_names_of_grids() -> None:
    assert train_words("grid-4x16") == ["grid", "--dim", "4", "--side", "16"]
    for name in ("grid", "grid-4", "grid-0x8", "grid-2x", "grid-2x8x2", "gird-2x8", ""):
        with pytest.raises(ValueError, match="unknown task"):
            train_words(name)


def test_names_of_diffusion_tasks_with_their_size() -> None:
    for size in ("cpu", "paper"):
        task = f"manywell-32-{size}"
        assert train_words(task) == ["manywell-32", "--size", size]
        assert methods_of(task) is presets.DIFFUSION_PRESETS
    for name in ("tfbind8-cpu", "25gmm-large", "25gmm-", "grid-2x8-cpu", "25gmm-cpu-cpu"):
        with pytest.raises(ValueError, match="unknown task"):
            train_words(name)
    suite = Suite(tasks=("25gmm", "25gmm-cpu"), methods=("tb",), options=("25gmm.size=paper",))
    assert suite.options_of("25gmm-cpu") == []
    for option in ("size=paper", "25gmm-cpu.size=paper"):
        with pytest.raises(ValueError, match="25gmm-cpu has its size in its name"):
            Suite(tasks=("25gmm", "25gmm-cpu"), methods=("tb",), options=(option,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["name the tasks of the suite", "--tasks"]),
        (["--tasks", "grid-2x8"], ["name the methods of the suite"]),
        (["--tasks", "mars", "--methods", "tb"], ["unknown task 'mars'", "grid-DxH", "tfbind8"]),
        (
            ["--tasks", "grid-2x8", "25gmm", "--methods", "tb", "vargrad"],
            ["grid-2x8 has no method 'vargrad'", "teacher-per"],
        ),
        (["--tasks", "25gmm", "--methods", "teacher-prt"], ["25gmm has no", "teacher-mala"]),
        (["--tasks", "grid-2x8", "--methods", "tb", "tb"], ["methods must be different"]),
        ([*SMALL, "25gmm:tb"], ["'25gmm:tb' is of a task that the suite has not"]),
        ([*SMALL, "--baseline", "eps"], ["baseline 'eps' is none of the methods"]),
        ([*SMALL, "--seeds", "0"], ["seeds must be at least 1, got 0"]),
        ([*SMALL, "--workers", "0"], ["workers must be at least 1, got 0"]),
        ([*SMALL, "--steps", "0"], ["steps must be at least 1, got 0"]),
        ([*SMALL, "--scale", "-1"], ["scale must be above 0"]),
        ([*SMALL, "--scale", "nan"], ["scale must be above 0"]),
        ([*SMALL, "--steps", "5", "--scale", "0.5"], ["steps or scale, not both"]),
        ([*SMALL, "--draws", "1"], ["draws must be at least 2, got 1"]),
        ([*SMALL, "--options", "no such=1"], ["NAME=VALUE or TASK.NAME=VALUE"]),
        ([*SMALL, "--options", "seeds=4"], ["'seeds' is not for a suite"]),
        ([*SMALL, "--options", "25gmm.size=cpu"], ["of a task that the suite has not"]),
        ([*SMALL, "--options", "nope=4"], ["--nope", "didact train grid --help"]),
        ([*SMALL, "--options", "epsilon=7"], ["epsilon must lie in [0, 1], got 7"]),
        (["nowhere.toml"], ["nowhere.toml cannot be read"]),
        (["folder"], ["folder is no suite in TOML"]),
        (["--steps", "few"], ["--steps takes a whole number, got 'few'"]),
    ],
    ids=" ".join,
)
def test_bad_suites(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    message = refused("bench", *arguments)
    assert all(word in message for word in words), message
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks = [", ["no suite in TOML"]),
        ("task = ['grid-2x8']", ["unknown field 'task'", "tasks"]),
        ("tasks = 'grid-2x8'", ["tasks must be a list of strings"]),
        ("tasks = [1]", ["tasks must be a list of strings"]),
        ("seeds = 2.5", ["seeds must be a whole number, got 2.5"]),
        ("seeds = true", ["seeds must be a whole number"]),
        ("scale = 'half'", ["scale must be a number, got 'half'"]),
        ("out = 3", ["out must be a string"]),
        ("\xff\x00", ["no suite in TOML"]),
    ],
)
def test_bad_files(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(text.encode("latin-1"))
    message = refused("bench", path, "--out", tmp_path / "out")
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


def test_a_file_has_the_fields_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text("tasks = ['grid-2x8']\nmethods = ['tb', 'eps']\nscale = 1\nout = 'x'\n")
    given = read_suite(path)
    assert given.pop("out") == "x"
    suite = Suite(**given)
    assert suite == Suite(tasks=("grid-2x8",), methods=("tb", "eps"), scale=1.0)


def test_the_commands_are_listed() -> None:
    said = succeeds("--help").out
    assert all(f"  didact {name} " in said for name in ("bench", "compare", "reproduce"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_folder_that_is_something_else(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("a letter")
    else:
        out.mkdir()
        (out / "letter.txt").write_text("dear ...")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    message = refused("bench", *SMALL, "--steps", "2", "--out", out)
    assert "choose another" in message
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
