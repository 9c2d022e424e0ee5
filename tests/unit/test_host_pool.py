"""Calls of a reward function: what it may return, and processes that call it.

The functions stand in modules that the tests write, as workers import them by their names.
"""

import contextlib
import importlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import didact
from didact._host import HostError, _worker
from didact._host._pool import Calls, Pool

MODULE = """
import os, pathlib, signal, subprocess, sys, time

FOLDER = pathlib.Path(__file__).parent


def length(words):
    with open(FOLDER / "calls", "a") as file:
        file.write(f"{len(words)}\\n")
    return [len(word) for word in words]


def total(x):
    x += 0.5  # its own copy
    return x.sum(axis=1)


def imported(words):
    return [float(name in sys.modules) for name in words]


def talkative(words):
    print("hello", flush=True)
    os.write(1, b"hello")
    return [len(sys.stdin.read()) for word in words]


def troubled(words):
    for word in words:
        if word == "raise":
            raise KeyError("no such word")
        if word == "exit":
            os._exit(7)
        if word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "hang":
            time.sleep(600)
    return [float(word) for word in words]


def patient(words):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (FOLDER / "processes").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module above, imported from a folder of its own."""
    (tmp_path / "functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "functions", raising=False)
    return importlib.import_module("functions")


@pytest.fixture
def make_pool(module: ModuleType) -> Iterator[Callable[..., Pool]]:
    """Pools that call a function of the module."""
    made: list[Pool] = []

    def make(name: str, workers: int, *, timeout: float | None = None, size: int = 100) -> Pool:
        function = getattr(module, name)
        calls = Calls(function, f"functions:{name}", None, workers, timeout, size, _fault)
        made.append(Pool(calls))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def _fault(score: float) -> str | None:
    return "returned nan" if np.isnan(score) else None


def results(pool: Pool, objects: object) -> list[float | str]:
    """One result for each object."""
    found: dict[int, float | str] = {}
    for start, part in pool.results(objects):
        found |= dict(enumerate(part, start))
    return [found[i] for i in range(len(found))]


def ends(pid: int) -> bool:
    """Whether a process is gone within some seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # Nobody may have asked yet how an orphan ended.
        with contextlib.suppress(FileNotFoundError):
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        time.sleep(0.02)
    return False


def raising(words: list[str]) -> list[float]:
    raise ValueError("first line\nlast line")


def leaving(words: list[str]) -> list[float]:
    sys.exit("over")


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (lambda words: [1, 2.5], "scores", [1.0, 2.5]),
        (lambda words: np.array([1, 2], np.float32), "scores", [1.0, 2.0]),
        (lambda words: (float(i) for i in range(2)), "scores", [0.0, 1.0]),
        (lambda words: [1.0], "wrong", "returned 1 scores for 2 objects"),
        (lambda words: 1.0, "wrong", "returned one float for 2 objects"),
        (lambda words: None, "wrong", "returned one NoneType for 2 objects"),
        (lambda words: [1.0, None], "wrong", "returned a score that is no number (.*NoneType.*)"),
        (lambda words: ["a", "b"], "wrong", "returned a score that is no number"),
        (raising, "raised", "last line"),
        (leaving, "raised", "SystemExit: over"),
        (lambda words: (1 // 0 for _ in words), "raised", "ZeroDivisionError: .*"),
    ],
)
def test_what_a_function_may_return(function, kind: str, said: object) -> None:
    found, answer = _worker.call(function, ["a", "b"])
    assert found == kind
    if isinstance(said, str):
        assert re.match(said, answer)
    else:
        assert answer == said


@pytest.mark.parametrize(
    "objects",
    [
        ["ACGT", "", "é\n\ud800", "\0"],
        [],
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([[np.nan, -0.0], [np.inf, 5e-324]]),
        np.zeros((0, 4), np.float32),
    ],
)
def test_a_message_comes_as_it_went(objects: object) -> None:
    stream = io.BytesIO()
    _worker.write(stream, *_worker.pack(objects))
    whole = stream.getvalue()
    message = _worker.read(io.BytesIO(whole))
    assert message is not None
    read = _worker.unpack(message)
    if isinstance(objects, list):
        assert read == objects
    else:
        assert (read.dtype, read.shape) == (objects.dtype, objects.shape)
        assert read.tobytes() == objects.tobytes()
    for length in (0, 5, 20, len(whole) - 1):
        assert _worker.read(io.BytesIO(whole[:length])) is None


@pytest.mark.parametrize("workers", [0, 3])
def test_results_are_in_order_however_many_call(workers: int, make_pool, tmp_path: Path) -> None:
    words = ["x" * n for n in (5, 0, 3, 9, 1, 7, 2)]
    assert results(make_pool("length", workers, size=2), words) == [5, 0, 3, 9, 1, 7, 2]
    assert sorted((tmp_path / "calls").read_text().split()) == ["1", "2", "2", "2"]


def test_workers_share_a_batch(make_pool, tmp_path: Path) -> None:
    results(make_pool("length", 2), ["x"] * 7)
    assert sorted((tmp_path / "calls").read_text().split()) == ["3", "4"]


def test_arrays_are_handed_over_as_copies(make_pool) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    before = x.copy()
    assert results(make_pool("total", 1), x) == (x + 0.5).sum(axis=1).tolist()
    np.testing.assert_array_equal(x, before)


def test_a_worker_imports_what_the_function_imports_and_nothing_else(make_pool) -> None:
    names = ["jax", "numpy", "didact", "functions"]
    assert results(make_pool("imported", 1), names) == [0.0, 0.0, 0.0, 1.0]


def test_what_a_function_prints_is_no_answer(make_pool, capfd: pytest.CaptureFixture) -> None:
    assert results(make_pool("talkative", 1), ["a", "b"]) == [0.0, 0.0]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("hello") == 2


def test_a_bad_object_costs_no_other_its_score(make_pool) -> None:
    words = ["0", "raise", "1", "exit", "hang", "2", "killed", "nan", "3"]
    pool = make_pool("troubled", 2, timeout=0.5)
    assert results(pool, words) == [
        *(0.0, "KeyError: 'no such word'", 1.0, "its process died (exit code 7)"),
        *("timed out after 0.5 s", 2.0, "its process died (SIGKILL)", "returned nan", 3.0),
    ]
    assert results(pool, ["4", "5"]) == [4.0, 5.0]  # and the workers are there again


def test_a_worker_that_died_meanwhile_costs_nothing(make_pool) -> None:
    pool = make_pool("troubled", 1)
    assert results(pool, ["1"]) == [1.0]
    process = pool._workers[0]._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert results(pool, ["2", "3"]) == [2.0, 3.0]


def test_the_programs_of_a_function_end_with_it(make_pool, tmp_path: Path) -> None:
    pool = make_pool("patient", 1, timeout=0.7)
    assert results(pool, ["a"]) == ["timed out after 0.7 s"]
    pids = [int(word) for word in (tmp_path / "processes").read_text().split()]
    assert len(pids) == 2
    assert all(ends(pid) for pid in pids)


def test_workers_end_with_the_process_that_asks(module: ModuleType, tmp_path: Path) -> None:
    """Also where it is killed in the middle of a call, and whatever the function has started."""
    program = (
        "import functions; from didact._host._pool import Calls, Pool; "
        "calls = Calls(functions.patient, 'functions:patient', None, 1, None, 9, lambda s: None); "
        "list(Pool(calls).results(['a']))"
    )
    paths = [str(tmp_path), str(Path(didact.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    asking = subprocess.Popen([sys.executable, "-c", program], env=environment)
    until = time.monotonic() + 60
    file = tmp_path / "processes"
    while not (file.exists() and " " in file.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    pids = [int(word) for word in file.read_text().split()]
    asking.kill()
    asking.wait()
    assert all(ends(pid) for pid in pids)


def test_leaving_early_does_not_wait_for_the_function(make_pool, tmp_path: Path) -> None:
    parts = make_pool("troubled", 2, size=1).results(["1", "hang", "hang"])
    assert next(parts) == (0, [1.0])
    began = time.monotonic()
    parts.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("workers", [0, 2])
def test_a_wrong_number_of_scores_is_an_error_and_not_a_failure(
    workers: int, make_pool, module: ModuleType
) -> None:
    source = Path(str(module.__file__))
    source.write_text(MODULE.replace("[len(word) for word in words]", "[1.0]"))
    importlib.reload(module)
    with pytest.raises(HostError, match=r"functions:length returned 1 scores for .* let it return"):
        results(make_pool("length", workers), ["a", "b", "c", "d"])


def test_a_module_that_a_worker_cannot_import(make_pool, module: ModuleType) -> None:
    pool = make_pool("length", 1)
    source = Path(str(module.__file__))
    source.write_text("import nowhere_to_be_found")
    with pytest.raises(HostError, match=r"cannot import .*functions:length .*ModuleNotFoundError"):
        results(pool, ["a"])
    source.write_text("import os; os._exit(5)")
    with pytest.raises(HostError, match=r"cannot import .*died \(exit code 5\)"):
        results(pool, ["a"])
