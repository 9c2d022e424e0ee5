"""Scores on disk: kept to the bit, shared by processes, never wrong; and of which function."""

import importlib
import logging
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import didact
from didact._host import HostError, is_importable, version_of
from didact._host._cache import Cache

SCORES = {f"word {i}": i / 7 for i in range(300)} | {b"\0digest": 0.0, "é": 5e-324, "": 1e308}


@pytest.fixture
def make_cache(tmp_path: Path) -> Iterator[Callable[..., Cache]]:
    """Caches in one folder."""
    made: list[Cache] = []

    def make(name: str = "scores.sqlite") -> Cache:
        made.append(Cache(tmp_path / "folder" / name, "mine"))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def bits(scores: dict[str | bytes, float]) -> dict[str | bytes, bytes]:
    return {key: struct.pack("<d", score) for key, score in scores.items()}


def test_scores_are_kept_to_the_bit(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    assert cache.get(SCORES) == {}
    assert bits(cache.put(SCORES)) == bits(SCORES)
    cache.close()
    for reading in (cache, make_cache()):
        assert bits(reading.get([*SCORES, "unknown", b"word 1"])) == bits(SCORES)
    assert [file.name for file in cache.file.parent.iterdir() if file.suffix == ".sqlite"] == [
        "scores.sqlite"
    ]


def test_the_first_score_stands(make_cache: Callable[..., Cache]) -> None:
    first, second = make_cache(), make_cache()
    assert first.put({"a": 1.0}) == {"a": 1.0}
    assert second.put({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 2.0}
    assert first.get(["a", "b"]) == {"a": 1.0, "b": 2.0}


def test_zero_has_no_sign(make_cache: Callable[..., Cache]) -> None:
    """SQLite would drop it, between the run that asks and the run that reads."""
    cache = make_cache()
    assert bits(cache.put({"a": -0.0})) == bits(cache.get(["a"])) == bits({"a": 0.0})


def test_a_file_that_could_not_be_opened_is_opened_anew(
    make_cache: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables and version are looked at the next time too: nothing is taken for damage."""
    cache = make_cache()
    with monkeypatch.context() as patch:
        patch.setattr("didact._host._cache._patiently", _busy)
        with pytest.raises(HostError, match="cannot be used"):
            cache.put({"a": 1.0})
    assert cache.put({"a": 1.0}) == {"a": 1.0}
    assert cache.file is not None
    assert not [file for file in cache.file.parent.iterdir() if "damaged" in file.name]


def _busy(_: object) -> None:
    raise OSError("the disk is busy")


def test_without_a_file_scores_are_kept_in_memory() -> None:
    cache = Cache(None)
    assert cache.put({"a": 1.0}) == {"a": 1.0}
    assert cache.get(["a", "b"]) == {"a": 1.0}
    cache.close()


def test_a_changed_byte_never_gives_a_wrong_score(
    make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    """Scores are those that were put; or they are gone, and the file is set aside."""
    cache = make_cache()
    cache.put(SCORES)
    cache.close()
    assert cache.file is not None
    whole = cache.file.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(0, 100, 5), *rng.integers(0, len(whole), 50).tolist()]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        cache.file.write_bytes(damaged)
        found = cache.get(SCORES)
        assert bits(found).items() <= bits(SCORES).items(), place
        assert bits(cache.put(SCORES)) == bits(SCORES), place
        cache.close()
    # Many of the bytes are not used; some of those that are must have been noticed.
    aside = [file for file in cache.file.parent.iterdir() if "damaged" in file.name]
    assert len(aside) == len(caplog.messages) > 20


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\7" * 90]
)
def test_what_is_no_cache_is_set_aside_as_it_is(
    content: bytes, make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache()
    assert cache.file is not None
    cache.file.parent.mkdir()
    for number in (1, 2):
        cache.file.write_bytes(content)
        assert cache.get(["a"]) == {}
        assert cache.put({"a": 1.0}) == {"a": 1.0}
        cache.close()
        aside = cache.file.with_name(f"scores.sqlite.damaged-{number}")
        assert aside.read_bytes() == content
        assert f"now called {aside.name}: its objects are scored anew" in caplog.messages[-1]


def test_a_file_of_another_version_is_set_aside(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    cache.put({"a": 1.0})
    cache.close()
    with sqlite3.connect(str(cache.file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert cache.get(["a"]) == {}


def test_a_cut_file_is_set_aside(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    cache.put(SCORES)
    cache.close()
    assert cache.file is not None
    os.truncate(cache.file, cache.file.stat().st_size // 2)
    assert bits(cache.get(SCORES)).items() <= bits(SCORES).items()
    assert bits(cache.put(SCORES)) == bits(SCORES)


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "scores.sqlite")
    with pytest.raises(HostError, match=r"cannot be used \(.*\): give another folder, or none"):
        cache.get(["a"])


PROCESS = """
import sys
from pathlib import Path
from didact._host._cache import Cache

cache, first = Cache(Path(sys.argv[1])), int(sys.argv[2])
sys.stdin.readline()
for start in range(0, 400, 20):
    words = [str(first + start + i) for i in range(20)]
    known = cache.get(words)
    kept = cache.put({word: float(word) for word in words if word not in known})
    assert known | kept == {word: float(word) for word in words}
"""


def test_processes_share_a_file(make_cache: Callable[..., Cache]) -> None:
    """Two make it at the same time and write into it, half of the objects in common."""
    cache = make_cache()
    environment = os.environ | {"PYTHONPATH": str(Path(didact.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS, str(cache.file), str(first)],
            env=environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in (0, 200)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("begin\n")
        process.stdin.flush()
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    words = [str(i) for i in range(601)]
    assert cache.get(words) == {str(i): float(i) for i in range(600)}


# ---- of which function -----------------------------------------------------------------------

REWARD = """
import helpers
from package.part import weight


def score(words):
    return [helpers.count(word) * weight for word in words]


def make():
    def score(words):
        return [1.0 for word in words]
    return score
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a reward function that imports what stands beside it."""
    (tmp_path / "package").mkdir()
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "helpers.py").write_text("def count(word):\n    return word.count('A')\n")
    (tmp_path / "other.py").write_text("nothing = None\n")
    (tmp_path / "package" / "__init__.py").write_text("from . import deep\n")
    (tmp_path / "package" / "deep.py").write_text("depth = 1\n")
    (tmp_path / "package" / "part.py").write_text("from .deep import depth\nweight = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("reward", "helpers", "package", "package.deep", "package.part"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def reward(project: Path) -> ModuleType:
    assert (project / "reward.py").exists()
    return importlib.import_module("reward")


def forget(project: Path) -> None:
    """As in a Python that starts anew."""
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(project)):
            del sys.modules[name]
    for folder in [*project.rglob("__pycache__")]:
        shutil.rmtree(folder)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("reward.py", "import helpers\n", "# a comment\nimport helpers\n\n", True),
        ("other.py", "None", "1", True),
        ("reward.py", "* weight", "* weight * 2", False),
        ("helpers.py", "'A'", "'C'", False),
        ("package/part.py", "1.0", "1.5", False),
        ("package/deep.py", "1", "2", False),
    ],
)
def test_the_version_is_of_the_program(
    file: str, old: str, new: str, same: bool, project: Path
) -> None:
    score = reward(project).score
    before = version_of(score, None)
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    forget(project)
    score = reward(project).score
    assert (version_of(score, None) == before) is same
    assert version_of(score, "1") == version_of(score, "1") != version_of(score, "2")


@pytest.mark.parametrize("file", ["reward.py", "helpers.py", "package/part.py"])
def test_a_file_edited_after_its_import_is_not_what_runs(
    file: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    score = reward(project).score
    assert version_of(score, None)
    with (project / file).open("a") as opened:
        opened.write("\nmore = 1\n")
    with pytest.raises(HostError, match=rf"{file} was edited after it was imported.*reload"):
        version_of(score, None)
    assert version_of(score, "mine")
    forget(project)
    assert version_of(reward(project).score, None)


def test_functions_of_one_module_have_versions_of_their_own(project: Path) -> None:
    module = reward(project)
    assert version_of(module.score, None) != version_of(module.make, None)
    assert version_of(module.score, "1") != version_of(module.make, "1")


def test_an_installed_package_is_looked_at_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else is installed beside it is none of its program."""
    place = project / "site-packages"
    (place / "installed").mkdir(parents=True)
    (place / "installed" / "__init__.py").write_text("import huge\nfrom .part import score\n")
    (place / "installed" / "part.py").write_text(
        "def score(words):\n    return [1.0] * len(words)\n"
    )
    (place / "huge.py").write_text("size = 1\n")
    monkeypatch.syspath_prepend(place)
    score = importlib.import_module("installed").score
    before = version_of(score, None)
    (place / "huge.py").write_text("size = 2\n")
    assert version_of(score, None) == before
    (place / "installed" / "part.py").write_text(
        "def score(words):\n    return [2.0] * len(words)\n"
    )
    forget(project)
    assert version_of(importlib.import_module("installed").score, None) != before


def test_a_function_without_a_name_of_its_own_needs_a_key(project: Path) -> None:
    module = reward(project)
    assert is_importable(module.score)
    for function in (module.make(), lambda words: words):
        assert not is_importable(function)
        with pytest.raises(HostError, match="give a cache_key, which names its version, or cache="):
            version_of(function, None)
        assert version_of(function, "mine")


def test_a_program_that_cannot_be_read_needs_a_key(project: Path) -> None:
    score = reward(project).score
    (project / "helpers.py").write_text("def broken(:\n")  # read before it is compared
    with pytest.raises(HostError, match=r"helpers.py cannot be read .* give a cache_key"):
        version_of(score, None)


def test_a_damaged_cache_is_reported_by_the_logger_of_the_package(
    make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache()
    assert cache.file is not None
    cache.file.parent.mkdir()
    cache.file.write_text("garbage" * 500)
    cache.get(["a"])
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("didact", logging.WARNING)
    ]
