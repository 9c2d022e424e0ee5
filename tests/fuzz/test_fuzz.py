"""Files changed by chance are read, or refused with a message that names them; nothing else.

Here a few hundred are, by every reader but the page of the report; `fuzz.py` takes any number.
"""

import collections
import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ._mutations import BY_PART, change
from ._readers import READERS, Reader, copy, original, read, read_changed

CHEAP = [reader for reader in READERS if not reader.name.startswith("page")]
EACH = 10


@pytest.mark.parametrize("reader", CHEAP, ids=lambda reader: reader.name)
def test_changed_files_are_read_or_refused(reader: Reader, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    _ = copy(reader, whole).write_bytes(original(reader))
    assert read(reader, whole)[0] == "read"
    for number in range(EACH):
        _ = read_changed(reader, 0, number, tmp_path / f"{number}")


@pytest.mark.slow
def test_many_changed_files() -> None:
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, script, "--number", "2000", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]


@pytest.mark.parametrize("ending", [*BY_PART, ".bin"])
def test_changes_are_the_same_each_time_and_many(ending: str) -> None:
    reader = next(reader for reader in READERS if reader.file.endswith(ending))
    content = original(reader)
    made = [change(content, ending, random.Random(seed)) for seed in range(40)]
    assert made == [change(content, ending, random.Random(seed)) for seed in range(40)]
    assert len({*made} - {content}) > 30


def test_what_lies_behind_the_checksums_is_reached(tmp_path: Path) -> None:
    """Some of the changed samplers are refused for what their configuration says."""
    reader = next(reader for reader in READERS if reader.name == "guided sampler")
    reasons = collections.Counter()
    for number in range(40):
        place = copy(reader, tmp_path / f"{number}")
        chance = random.Random(number)
        _ = place.write_bytes(BY_PART[".npz"](original(reader), chance))
        outcome, message = read(reader, tmp_path / f"{number}")
        reasons["configuration" if "configuration" in str(message) else outcome] += 1
    assert reasons["configuration"] > 2
    assert reasons["read"] > 2
    assert reasons["refused"] > 10


def _raises(error: Exception) -> Reader:
    def fail(folder: Path) -> object:
        raise error

    return dataclasses.replace(READERS[0], read=fail)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RecursionError(), ValueError("something is wrong"), ValueError("x" * 5_000)],
    ids=repr,
)
def test_other_errors_are_noticed(error: Exception, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, type(error))):
        _ = read(_raises(error), tmp_path)
    outcome, _ = read(_raises(ValueError(f"{READERS[0].file} is damaged")), tmp_path)
    assert outcome == "refused"
