"""`didact train sequence`: a reward of the user's own, from the command line to a table."""

import csv
import json
import math
from pathlib import Path

import pytest

from didact.cli._parse import parse, words
from didact.cli._tasks import Sequence

from .._runs import record, refused, run_cli, succeeds

REWARD = '''
"""A reward of strings, and some that go wrong."""


def score(strings):
    return [1.0 + s.count("B") for s in strings]


def too_few(strings):
    return [1.0] * (len(strings) - 1)


def brittle(strings):
    if "AAA" in strings:
        raise RuntimeError("no structure found")
    return score(strings)


no_function = 3
'''
SMALL = ("--rounds", "8", "--batch-size", "8", "--width", "8", "--draws", "64")
STRINGS = ("train", "sequence", "--alphabet", "AB", "--length", "3", "--evaluations", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_reward.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def train(name: str, *options: object) -> tuple[object, ...]:
    return (*STRINGS, *SMALL, "--reward", f"my_reward:{name}", *options)


def says(words: list[str], *arguments: object) -> None:
    line = refused(*arguments)
    for word in words:
        assert word in line


def test_from_a_function_to_a_table_of_strings(folder: Path) -> None:
    out = folder / "run"
    _ = succeeds(*train("score", "--beta", "2", "--out", out))
    verdict = json.loads((out / "evaluation.json").read_text())
    assert verdict["finished"]
    # Three rounds of at most 8 strings each.
    assert 1 <= verdict["reward_calls"][0] <= 8
    found = json.loads((out / "found.json").read_text())["best"]
    assert found[0]["log_reward"] >= found[-1]["log_reward"]

    says(["name it with --reward module:function"], "sample", out)
    # A function that its module has from elsewhere is that of the other module.
    (folder / "elsewhere.py").write_text("from my_reward import score\n")
    for own in ("my_reward:score", "elsewhere:score"):
        table = folder / "samples.csv"
        _ = succeeds("sample", out, "-n", 40, "--out", table, "--reward", own)
    with (folder / "samples.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 40
    probability = {}
    for row in rows:
        assert set(row["string"]) <= set("AB")
        assert len(row["string"]) == 3
        wanted = 2 * math.log(1 + row["string"].count("B"))
        assert float(row["log_reward"]) == pytest.approx(wanted, rel=1e-6)
        probability[row["string"]] = math.exp(float(row["log_prob"]))
    assert 0.5 < sum(probability.values()) < 1 + 1e-5

    # The same command again finds its work done, and another reward is not this run's.
    before = record(out)
    _ = succeeds(*train("score", "--beta", "2", "--out", out))
    assert record(out) == before
    says(["another run", "beta"], *train("score", "--beta", "3", "--out", out))

    # Which function it is must be said: a run folder may be a stranger's.
    resume = ("train", "sequence", "--resume", "--out", out)
    says(["--reward must be module:function"], *resume)
    _ = succeeds(*resume, "--reward", "my_reward:score")
    assert record(out) == before
    says(["another run", "beta"], *resume, "--reward", "my_reward:score", "--beta", "3")
    says(["another run", "reward"], *resume, "--reward", "my_reward:brittle")


def test_options_are_read_as_they_were_stored() -> None:
    given = ["--alphabet=-AC", "--length", "4", "--reward", "a:b", "--floor", "-2.5", "--no-cache"]
    options = parse(Sequence, "train sequence", given)
    assert (options.alphabet, options.floor, options.no_cache) == ("-AC", -2.5, True)
    assert parse(Sequence, "train sequence", words(options.stored())) == options


@pytest.mark.slow  # tests/faults has its like
def test_what_fails_is_set_aside_and_the_run_goes_on(folder: Path) -> None:
    out = folder / "run"
    _ = succeeds(*train("brittle", "--preset", "tb", "--rounds", "4", "--out", out))
    rows = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    failures = [row for row in rows if row["kind"] == "failure"]
    assert [row["x"] for row in failures] == ["AAA"]
    assert "no structure found" in failures[0]["reason"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("score", ["--alphabet", "ABA"], ["symbols of an alphabet must differ", "ABA"]),
        ("score", ["--alphabet", "A"], ["--alphabet must name the symbols"]),
        ("score", ["--length", "0"], ["--length must be at least 1, got 0"]),
        ("score", ["--timeout", "5"], ["workers >= 1"]),
        ("score", ["--beta", "0"], ["beta must be > 0, got 0"]),
        ("score", ["--preset", "nope"], ["unknown preset 'nope'", "search-prt"]),
        ("score", ["--preset", "search-prt", "--batch-size", "9"], ["a multiple of 8, got 9"]),
        ("score", ["--returns", "log_reward"], ["needs a floor"]),
        ("score", ["--reward", ".my_reward:score"], ["must be module:function, got '.my_reward"]),
        ("missing", [], ["my_reward has no function missing"]),
        ("no_function", [], ["my_reward has no function no_function"]),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else value,
)
def test_bad_input_is_one_line(
    folder: Path, name: str, options: list[str], words: list[str]
) -> None:
    says(words, *train(name, *options, "--out", folder / "run"))


def test_a_function_that_cannot_be_used_ends_the_run_with_one_line(folder: Path) -> None:
    result = run_cli(*train("too_few", "--out", folder / "run"))
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert "my_reward:too_few returned 7 scores for 8 objects" in line
    assert "one number for each object" in line


def test_a_task_without_its_data_names_the_command_that_fetches_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_DATA_DIR", str(folder / "nothing"))
    says(["didact data fetch tfbind8"], "train", "tfbind8", "--out", folder / "run")
