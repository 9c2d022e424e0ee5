"""Everything in didact that reads a file, each with a folder of frozen files that it reads."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import pickle
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import didact
from didact._host import HostError
from didact._host._cache import Cache
from didact._judge import read_record, read_verdict
from didact.checkpoint import load_state
from didact.cli._table import print_verdict, say_reason
from didact.datasets import _store
from didact.datasets._pickle_reader import read as read_pickle
from didact.logging import MetricsLog, RewardLedger, reward_calls
from didact.report import _read, write
from didact.run import _shapes

from ._mutations import change

FIXTURES = Path(__file__).parents[1] / "fixtures"
V1 = FIXTURES / "v1"
SEEDS = {"grid": (0, 3), "vectors": (0,), "strings": (0, 1)}
ERRORS = (ValueError, HostError)
"""What a reader may raise; `HostError` for the cache of scores alone."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads one `file` of a `folder`, which otherwise is as it was written."""

    name: str
    folder: Path
    file: str
    read: Callable[[Path], object]
    named: bool = True
    """Whether an error names the file, or the folder that it is in."""


@functools.cache
def given() -> dict[str, Any]:
    """What the run of strings can only name."""
    spec = importlib.util.spec_from_file_location("rewards", FIXTURES / "rewards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rewards"] = module
    spec.loader.exec_module(module)
    return {"rewards:score": module.score}


@functools.cache
def shapes(run: str) -> Any:
    """Those of the state of a frozen run."""
    experiment = didact.Run.load(V1 / run, given=given()).experiment
    return _shapes(experiment, len(SEEDS[run]))


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Figures are put together and not drawn, which takes longest."""

    def savefig(_: object, file: Any, **__: object) -> None:
        file.write(b"\x89PNG\r\n\x1a\n")

    with mock.patch("matplotlib.figure.Figure.savefig", savefig):
        yield


def _sampler(file: str) -> Callable[[Path], object]:
    return lambda folder: didact.load_sampler(folder / file)


def _checkpoint(run: str) -> Callable[[Path], object]:
    return lambda folder: load_state(folder / "checkpoints", shapes(run))


def _config(folder: Path) -> object:
    return didact.Run.load(folder, given=given())


def _state(folder: Path) -> object:
    return didact.Run.load(folder, given=given()).state()


def _report(folder: Path) -> object:
    return _read.read(folder)


def _page(folder: Path) -> object:
    with undrawn():
        return write(folder)


def _verdict(folder: Path) -> object:
    verdict = read_verdict(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        say_reason(verdict)
        print_verdict(verdict)
    return verdict


def _record(folder: Path) -> object:
    rows = read_record(folder)
    with contextlib.closing(MetricsLog(folder / "metrics.jsonl", step=6)) as log:
        return rows, log.rows


def _ledger(folder: Path) -> object:
    found = reward_calls(folder, SEEDS["strings"], step=6)
    with contextlib.closing(RewardLedger(folder, SEEDS["strings"], step=6)) as ledger:
        return found, ledger.reward_calls, ledger.failures


NUMBERS = {
    "rewards": np.linspace(0, 1, 8, dtype=np.float32),
    "modes": np.asarray([6, 7], np.int32),
}
BLOCKS = didact.datasets.Blocks("01", ("C", "CO"), ((0, 0), (0, 1)), ("a", "b"))
LAYOUT = _store.Layout(
    "numbers",
    {"numbers.npz": {name: _store.ArraySpec.of(array) for name, array in NUMBERS.items()}},
    _store.blocks_sha256(BLOCKS),
)


def _data(folder: Path) -> object:
    arrays = _store.read_arrays(LAYOUT, folder, "numbers")
    return arrays, _store.read_blocks(LAYOUT, folder, "numbers")


SCORES = "rewards-score-a74498a496e106d0.sqlite"


def _scores(folder: Path) -> object:
    cache = Cache(folder / SCORES, "rewards:score")
    with contextlib.closing(cache):
        return cache.get(["AAAA", "GAGC", "CCAA"]), cache.put({"CCAA": 1.0})


def _pickle(folder: Path) -> object:
    return read_pickle((folder / "source.pkl").read_bytes(), {("collections", "Counter")})


READERS = (
    Reader("sampler of a grid", V1 / "grid/samplers", "student-0.npz", _sampler("student-0.npz")),
    Reader(
        "sampler of strings", V1 / "strings/samplers", "student-0.npz", _sampler("student-0.npz")
    ),
    Reader("guided sampler", V1, "sampler.npz", _sampler("sampler.npz")),
    Reader("fit", V1, "fit.npz", lambda folder: didact.load_fit(folder / "fit.npz")),
    *(
        Reader(f"checkpoint of {run}", V1 / run, f"checkpoints/{step:09d}.npz", _checkpoint(run))
        for run, step in (("grid", 12), ("vectors", 6), ("strings", 6))
    ),
    *(Reader(f"config of {run}", V1 / run, "config.json", _config) for run in SEEDS),
    *(Reader(f"state of {run}", V1 / run, "config.json", _state) for run in SEEDS),
    Reader("record", V1 / "grid", "metrics.jsonl", _record),
    Reader("verdict", V1 / "grid", "evaluation.json", _verdict),
    Reader("objects asked for", V1 / "strings", "seen.bin", _ledger),
    Reader("failures", V1 / "strings", "failures.jsonl", _ledger),
    *(
        Reader(f"report: {file} of {run}", V1 / run, file, _report)
        for run, file in (
            ("grid", "config.json"),
            ("grid", "metrics.jsonl"),
            ("grid", "evaluation.json"),
            ("grid", "snapshots/target.npz"),
            ("grid", "snapshots/000000006.npz"),
            ("vectors", "snapshots/target.npz"),
            ("vectors", "snapshots/000000006.npz"),
            ("vectors", "diagnostics.npz"),
            ("strings", "snapshots/000000006.npz"),
            ("strings", "found.json"),
        )
    ),
    *(
        Reader(f"page: {file} of {run}", V1 / run, file, _page)
        for run, file in (
            ("grid", "config.json"),
            ("grid", "metrics.jsonl"),
            ("grid", "evaluation.json"),
            ("grid", "snapshots/target.npz"),
            ("vectors", "config.json"),
            ("vectors", "snapshots/target.npz"),
            ("vectors", "diagnostics.npz"),
            ("strings", "config.json"),
            ("strings", "found.json"),
        )
    ),
    Reader("data set", V1 / "data", "numbers/numbers.npz", _data),
    Reader("blocks", V1 / "data", "numbers/blocks.json", _data),
    Reader("scores", V1 / "cache", SCORES, _scores),
    Reader("pickle", V1, "source.pkl", _pickle, named=False),
)


def original(reader: Reader) -> bytes:
    """The file of a reader, as it was written."""
    if reader.file != "source.pkl":
        return (reader.folder / reader.file).read_bytes()
    value = {"text": ["a", "β"], "numbers": (1, 2**40, 1.5, b"\x01"), "set": {1, 2}}
    arrays = {
        "array": np.arange(4.0).reshape(2, 2),
        "record": np.zeros(2, [("a", "i2"), ("b", "f8")]),
    }
    return pickle.dumps([value, arrays, np.float32(3)], protocol=2)


def copy(reader: Reader, folder: Path) -> Path:
    """A copy of a reader's folder, but for files that lie deeper than it looks; the place of its
    file.
    """
    place = folder / reader.file
    if reader.folder == V1:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(reader.folder, folder)
    return place


def read(reader: Reader, folder: Path) -> tuple[str, object]:
    """What came of reading: "read" and the value, "refused" and the message.

    **Errors:** whatever a reader must not raise; `AssertionError` for an error that names no file,
    or says too much.
    """
    try:
        return "read", reader.read(folder)
    except ERRORS as error:
        message = str(error)
        expected = isinstance(error, ValueError) or reader.name == "scores"
    place = folder / reader.file
    named = any(str(name) in message for name in (place, place.parent, reader.file))
    if not expected or not (named or not reader.named) or len(message) > 1_500:
        raise AssertionError(f"not a short message that names the file: {message[:2_000]}")
    return "refused", message


def read_changed(reader: Reader, seed: int, number: int, folder: Path) -> tuple[str, object]:
    """What comes of a changed file, in a new folder: see `read`."""
    chance = random.Random(f"{seed} {reader.name} {number}")
    place = copy(reader, folder)
    _ = place.write_bytes(change(original(reader), place.suffix, chance))
    return read(reader, folder)
