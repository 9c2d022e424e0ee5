"""Processes that are killed, kill -9, while they train through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import didact

from .._runs import same_results, succeeds

pytestmark = [
    pytest.mark.usefixtures("without_report"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each life is a fork"),
]

OPTIONS = (
    *("--preset", "teacher-per", "--dim", "2", "--side", "6", "--seeds", "2", "--steps", "3000"),
    *("--batch-size", "4", "--evaluations", "3", "--draws", "16", "--checkpoint-seconds", "0"),
)


def script(name: str, *arguments: object) -> dict[str, int]:
    """What a script beside this file says; compiled programs are read and not written."""
    source = str(Path(didact.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    once = {"PYTHONPATH": os.pathsep.join(paths)}
    once["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)],
        env=os.environ | once,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_run_writes_is_whole_whenever_it_is_killed(tmp_path: Path) -> None:
    """Each time the newest checkpoint is what was written, with all that it relies on."""
    found = script("_writer.py", tmp_path, 20)
    assert found["kills"] == 20
    assert found["moves"] >= 10  # every second time there were new checkpoints


@pytest.mark.slow
def test_a_run_that_is_killed_fifty_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    _ = succeeds("train", "grid", *OPTIONS, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    ends = script("_lives.py", 50, 0, "train", "grid", *OPTIONS, "--out", out)
    assert ends["killed"] == 50
    assert ends["within a write"] >= 15
    same_results(out, tmp_path / "whole")
    assert not list(out.rglob("*.partial"))
