"""Files that a stranger made on purpose: nothing that they name is run, and what they claim takes
neither memory nor time.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import didact
from didact._config import from_json, to_json
from didact._host._cache import Cache
from didact._json import MAX_DEPTH, parse
from didact.logging import read_metrics, reward_calls
from didact.report import _read
from didact.run import RunError

from ._readers import V1, given

MiB = 2**20


@pytest.fixture(autouse=True)
def cheap() -> Iterator[None]:
    """No test may take more than 64 MiB, or ten seconds of the processor."""
    _ = given()
    tracemalloc.start()
    began = time.process_time()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MiB
    assert time.process_time() - began < 10


def run_of(name: str, folder: Path, **changes: Any) -> Path:
    """A copy of a frozen run, with other values in its configuration, by their places."""
    out = folder / name
    shutil.copytree(V1 / name, out)
    config = json.loads((out / "config.json").read_text())
    for place, value in changes.items():
        *path, last = place.split("__")
        parent = config
        for key in path:
            parent = parent[int(key) if isinstance(parent, list) else key]
        parent[last] = value
    (out / "config.json").write_text(json.dumps(config))
    return out


def sampler_of(file: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a frozen sampler, with another header."""
    with np.load(file) as archive:
        arrays = dict(archive)
    header = json.loads(arrays.pop("header").tobytes())
    for place, value in changes.items():
        part, _, name = place.partition("__")
        header[part] = header[part] | {name: value} if name else value
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(folder / "sampler.npz", header=text, **arrays)
    return folder / "sampler.npz"


# ---- nothing is run -------------------------------------------------------------------------

MODULE = "open('ran', 'w').write('x')\n\n\ndef run(*_, **__):\n    open('ran', 'w').write('x')\n"
CALLS = ("stranger:run", "stranger.run", "os:system", "builtins.exec")

PROGRAM = """
import contextlib, io, sys
from pathlib import Path
from unittest import mock

seen = set()
HARMFUL = ("os.", "subprocess.", "pickle.", "socket.", "ctypes.", "shutil.", "ftplib.", "urllib.")
HARMLESS = ("os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.putenv")


class Spy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("stranger", "other"):
            seen.add(f"import of {name}")


def watch(event, arguments):
    if event.startswith(HARMFUL) and event not in HARMLESS:
        seen.add(event)
    if event in ("exec", "compile") and "stranger" in str(arguments):
        seen.add(event)


def attempt(work):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            work()
        except (ValueError, SystemExit):
            pass


import didact
from didact.cli import main
from didact.report import write

sys.path.insert(0, "")
folders = [Path(name) for name in sys.argv[1:]]
with mock.patch("matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(b"")):
    for at, folder in enumerate(folders):
        if at == 1:  # the first is as didact wrote it: by now what it needs has been imported
            sys.meta_path.insert(0, Spy())
            sys.addaudithook(watch)
        attempt(lambda: didact.Run.load(folder).state())
        attempt(lambda: didact.Run.load(folder).verdict())
        attempt(lambda: didact.Run.load(folder).metrics())
        for file in (*folder.glob("samplers/*"), *folder.glob("*.npz")):
            attempt(lambda: didact.load_sampler(file))
            attempt(lambda: didact.load_fit(file))
        if at < 2:
            attempt(lambda: write(folder))
        if at > 0:
            for command in ("evaluate", "sample", "report"):
                attempt(lambda: main([command, str(folder)]))
            attempt(lambda: main(["train", "grid", "--resume", "--out", str(folder)]))
print(sorted(seen), Path("ran").exists())
import stranger
print(sorted(seen), Path("ran").exists())
"""


def test_nothing_that_a_file_names_is_imported_or_run(tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text(MODULE)
    whole = run_of("grid", tmp_path / "whole")
    shutil.copy(V1 / "fit.npz", whole)
    folders = [whole]
    for i, call in enumerate(CALLS):
        named = {"function": call}
        out = run_of(
            "grid",
            tmp_path / f"{i}",
            experiment__backward_scoring=named,
            experiment__environment={"type": call, "command": "touch ran"},
            experiment__target={"type": "targets.FromFunction", "log_reward_fn": named},
            command=call,
        )
        place = sampler_of(V1 / "sampler.npz", out, environment={"type": call}, guide=named)
        place.rename(out / "samplers" / "other.npz")
        for name in ("metrics.jsonl", "evaluation.json"):
            text = (out / name).read_text()
            (out / name).write_text(text.replace('"kind": "train"', f'"kind": "{call}"'))
        folders.append(out)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, folders)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(didact.__file__).parents[1]), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    before, after = done.stdout.splitlines()
    assert before == "[] False"
    assert after == "['compile', 'exec', 'import of stranger'] True"  # it would have been seen
    assert (folders[1] / "report.html").is_file()


def test_how_a_reward_is_called_is_not_for_a_file_to_say(tmp_path: Path) -> None:
    """Not how many processes there are, and not where files are written."""
    for name, value in {"cache": str(tmp_path / "x"), "workers": 64, "timeout": 1e9}.items():
        out = run_of("strings", tmp_path / name, **{f"experiment__target__{name}": value})
        with pytest.raises(RunError, match=rf"config\.json .*{name} is not for a configuration"):
            didact.Run.load(out, given=given())
    assert not (tmp_path / "x").exists()


# ---- sizes that are only claimed ------------------------------------------------------------

BILLION = 10**9
SAMPLERS: dict[str, dict[str, Any]] = {
    "deep": {"network__depth": BILLION},
    "deep enough": {"network__depth": 99},
    "wide": {"network__width": 2 * BILLION},
    "many sines": {"network__harmonics": BILLION},
    "many waves": {"network__waves": BILLION},
    "long": {"environment__num_steps": BILLION, "environment__times": None},
    "many coordinates": {"environment__dim": BILLION},
    "some coordinates": {"environment__dim": 2**18},
    "a large target": {"guide": {"type": "targets.GMM40", "dim": BILLION}},
    "another large target": {"guide": {"type": "targets.LogGaussianCox", "side": 10_000}},
    "a grid": {"environment": {"type": "environments.Hypergrid", "dim": 900, "side": 2**20}},
    "long strings": {
        "environment": {"type": "environments.PrependAppend", "num_symbols": 9, "length": BILLION}
    },
    "nested": {"environment": json.loads("[" * 200 + "]" * 200)},
    "a long text": {"environment": "x" * 9 * MiB},
    "not a number": {"network__gradient_clip": {"float": "nan"}},
}


@pytest.mark.parametrize("claim", SAMPLERS)
def test_a_sampler_that_claims_to_be_large(claim: str, tmp_path: Path) -> None:
    file = sampler_of(V1 / "sampler.npz", tmp_path, **SAMPLERS[claim])
    with pytest.raises(ValueError, match=r"sampler\.npz cannot be read .*: restore it") as error:
        didact.load_sampler(file)
    assert len(str(error.value)) < 600


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "deep": ("grid", {"experiment__network__depth": BILLION}),
    "wide": ("grid", {"experiment__network__width": BILLION}),
    "a large buffer": ("grid", {"experiment__replay__capacity": 2**31 - 1}),
    "large batches": ("grid", {"experiment__batch_size": 2**31 - 1}),
    "many objects": (
        "grid",
        {"experiment__environment__side": 10_000, "experiment__target__side": 10_000},
    ),
    "many seeds": ("grid", {"seeds": [*range(66_000)]}),
    "some seeds": ("grid", {"seeds": [*range(10_000)]}),
    "a seed too many": ("grid", {"seeds": [0, 3, 4]}),
    "a long schedule": (
        "grid",
        {
            "experiment__behaviour__behaviours": [
                {"type": "behaviours.OnPolicy", "epsilon": i / 2000} for i in range(2000)
            ]
        },
    ),
    "long": ("vectors", {"experiment__environment__num_steps": BILLION}),
    "many coordinates": (
        "vectors",
        {
            "experiment__environment__dim": BILLION,
            "experiment__target": {"type": "targets.GMM40", "dim": BILLION},
        },
    ),
    "a large field": (
        "vectors",
        {
            "experiment__environment__dim": 10**8,
            "experiment__target": {"type": "targets.LogGaussianCox", "side": 10_000},
        },
    ),
    "long strings": ("strings", {"experiment__environment__length": BILLION}),
    "many symbols": ("strings", {"experiment__environment__num_symbols": BILLION}),
}


@pytest.mark.parametrize("claim", RUNS)
def test_a_run_that_claims_to_be_large(claim: str, tmp_path: Path) -> None:
    name, changes = RUNS[claim]
    out = run_of(name, tmp_path, **changes)
    with pytest.raises(RunError, match=name) as error:
        didact.Run.load(out, given=given()).state()
    assert len(str(error.value)) < 1_000


FITS: dict[str, dict[str, np.ndarray]] = {
    "no draws of large positions": {
        "samples_0": np.zeros((0, 2**30), np.float32),
        "log_weights": np.zeros(0),
        "lower_0": np.zeros((), np.float32),
        "upper_0": np.zeros((), np.float32),
    },
    "bounds of another shape": {"lower_1": np.zeros((), np.float32)},
    "modes of another shape": {"mode_0_0": np.zeros(3, np.float32)},
    "more weights than draws": {"log_weights": np.zeros(51)},
    "weights of another type": {"log_weights": np.zeros(50, np.float32)},
    "draws of another type": {"samples_0": np.zeros(50, np.float64)},
    "whole numbers": {"samples_0": np.zeros(50, np.int32)},
    "another place": {"location": np.zeros(3, np.float32)},
}


@pytest.mark.parametrize("claim", FITS)
def test_a_fit_whose_parts_do_not_fit(claim: str, tmp_path: Path) -> None:
    with np.load(V1 / "fit.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "fit.npz", **(arrays | FITS[claim]))
    with pytest.raises(ValueError, match=r"fit\.npz cannot be read as a fit \(its .*: restore it"):
        didact.load_fit(tmp_path / "fit.npz")


@pytest.mark.parametrize(
    "program",
    [
        "CREATE TRIGGER t AFTER INSERT ON scores BEGIN DELETE FROM scores; END",
        "CREATE VIEW v AS WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n FROM r) SELECT n FROM r",
        "DROP TABLE about",
        "ALTER TABLE scores ADD COLUMN other",
    ],
    ids=lambda program: program[:14],
)
def test_a_cache_of_scores_with_a_program_is_put_aside(program: str, tmp_path: Path) -> None:
    file = Path(shutil.copy(next((V1 / "cache").iterdir()), tmp_path))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(program)
        connection.commit()
    with contextlib.closing(Cache(file, "rewards:score")) as cache:
        assert cache.get(["AAAA"]) == {}
        assert cache.put({"AAAA": 3.0}) == {"AAAA": 3.0}
    assert file.with_name(f"{file.name}.damaged-1").is_file()


def test_what_can_be_written_can_be_read() -> None:
    """The same bounds hold for what is saved, before it is trained."""
    for large in (
        didact.networks.MLPConfig(depth=257),
        didact.environments.Hypergrid(1_001, 3),
        didact.targets.LogisticRegression(dim=2**12 + 1),
    ):
        with pytest.raises(ValueError, match="at most"):
            to_json(large)
    for allowed in (
        didact.networks.MLPConfig(depth=256),
        didact.environments.Hypergrid(1_000, 2**20),
        didact.environments.Diffusion(2**18, 100_000),
        didact.targets.LogGaussianCox(side=64),
    ):
        assert from_json(json.loads(json.dumps(to_json(allowed)))) == allowed


# ---- texts without end ----------------------------------------------------------------------


def endless(path: Path, size: int = 2**30) -> None:
    """A file of a GiB, in most of which nothing stands."""
    with path.open("r+b") as file:
        file.truncate(size)


READS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config.json": ("grid", didact.Run.load),
    "evaluation.json": ("grid", lambda out: didact.Run.load(out).verdict()),
    "metrics.jsonl": ("grid", lambda out: didact.Run.load(out).metrics()),
    "failures.jsonl": ("strings", lambda out: list(read_metrics(out / "failures.jsonl"))),
    "seen.bin": ("strings", lambda out: reward_calls(out, (0, 1), step=6)),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("how", ["endless", "pipe"])
def test_a_file_without_end(name: str, how: str, tmp_path: Path) -> None:
    run, read = READS[name]
    out = run_of(run, tmp_path)
    if how == "pipe":
        (out / name).unlink()
        os.mkfifo(out / name)
    else:
        endless(out / name, 2**34)
    with pytest.raises(ValueError, match=rf"{name}|is not a run folder|has not been evaluated"):
        read(out)


@pytest.mark.parametrize("how", ["endless", "pipe"])
def test_a_report_of_files_without_end(how: str, tmp_path: Path) -> None:
    out = run_of("vectors", tmp_path)
    files = ["evaluation.json", "metrics.jsonl", "diagnostics.npz"]
    for name in (*files, "snapshots/target.npz", "snapshots/000000006.npz"):
        if how == "pipe":
            (out / name).unlink()
            os.mkfifo(out / name)
        else:
            endless(out / name)
    data = _read.read(out)
    assert data.final == {} or data.final["kind"] == "evaluation"
    assert data.diagnostics is None
    assert data.target is None
    assert len(data.snapshots) == 2
    for word in ("evaluation.json", "metrics.jsonl", "diagnostics.npz", "target.npz", "snapshot"):
        assert any(word in note for note in data.notes), data.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 10**6, "nested too deeply"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested too deeply"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested too deeply"),
        (b"[" + b"[]," * 2_000_000 + b"1]", "values"),
        (b"[" + b"{}," * 2_000_000 + b"1]", "values"),
        (b'"' + b"x" * 2**23 + b'"', "bytes"),
        (b"1e999", "too large"),
        (b"[-1e999]", "too large"),
        (b"NaN", "no number"),
        (b'{"a": -Infinity}', "no number"),
        (b"9" * 4_301, "digits"),
        (b"-" + b"9" * 10**6, "digits"),
        (b"\xff", "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
    ids=range(17),
)
def test_json_that_didact_would_not_write(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_json_that_didact_writes() -> None:
    value = {"a": [1, -2.5, None, True, "ß", 10**4_299], "b": {"c": []}}
    assert parse(json.dumps(value).encode()) == value
    deep = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse(json.dumps(deep).encode()) == deep


def test_rows_that_no_run_writes(tmp_path: Path) -> None:
    header = '{"kind": "header", "format_version": 1}\n'
    good = '{"kind": "train", "step": 1, "time": {"seconds": 1.0}}\n'
    path = tmp_path / "metrics.jsonl"
    for row in (
        '{"kind": "train", "step": 1e999, "time": {"seconds": 1.0}}',
        '{"kind": "train", "step": NaN, "time": {"seconds": 1.0}}',
        '{"kind": "train", "step": true, "time": {"seconds": 1.0}}',
        '{"kind": "train", "step": -1, "time": {"seconds": 1.0}}',
        '{"kind": "train", "step": 1, "time": {"seconds": 1%s}}' % ("0" * 400),
        '{"kind": "train", "step": 1, "time": {"seconds": -1.0}}',
        '{"kind": "train", "step": 1, "time": {"seconds": 1.0}, "failures": "many"}',
        '{"kind": "train", "step": 1, "time": {"seconds": 1.0}, "reward_calls": [{}]}',
        "[" * 10_000,
    ):
        path.write_text(header + row + "\n" + good)
        with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged at line 2: remove"):
            list(read_metrics(path))
        path.write_text(header + good + row)
        assert len(list(read_metrics(path))) == 2  # a last line may be cut short
    path.write_text(header + good + good)
    assert len(list(read_metrics(path))) == 3


def test_a_verdict_that_cannot_be_shown(tmp_path: Path) -> None:
    out = run_of("grid", tmp_path)
    run = didact.Run.load(out)
    whole = json.loads((out / "evaluation.json").read_text())
    assert run.verdict() == whole
    for changes in (
        {"reason": 3},
        {"reason": "\x1b[2J"},
        {"exact": "yes"},
        {"seeds": []},
        {"seeds": 2},
        {"step": None},
        {"tv": [0.1]},
        {"tv": ["0.1", "0.2"]},
        {"tv": [[0.1], [0.2]]},
        {"kl": 10**400},
        {"elbo_low": []},
        {"num_modes": "many"},
        {"format_version": 2},
    ):
        (out / "evaluation.json").write_text(json.dumps(whole | changes))
        with pytest.raises(RunError, match=r"evaluation\.json is damaged .*run\.evaluate\(\)"):
            run.verdict()
    (out / "evaluation.json").write_text(json.dumps({"step": 12}))
    with pytest.raises(RunError, match="damaged"):
        run.verdict()
