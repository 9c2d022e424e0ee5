"""The tables, the JSON and the page that a suite leaves."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from scipy import stats

from didact import bench, report
from didact.bench._results import problems

from .conftest import MakeCells, train


@pytest.fixture
def suite(make_cells: MakeCells, tmp_path: Path) -> tuple[list[bench.Outcome], Path]:
    """Three methods, of which one has failed."""
    out = tmp_path / "out"
    return train(make_cells("tb", "eps", "tb-per"), out), out


def test_tables_hold_means_errors_and_both_costs(
    suite: tuple[list[bench.Outcome], Path],
) -> None:
    kept = [outcome.kept for outcome in suite[0] if outcome.kept]
    (group,) = bench.groups(kept)
    table = bench.table(group, short=True)
    assert table.head[:7] == (
        *("method", "n", "reward calls", "steps", "training", "modes found"),
        "total variation",
    )
    # 2, 3, 4 modes: mean 3, standard error 1/√3.
    assert table.rows[0][:6] == ("tb", "3", "128", "8", "3 s", "3.00 ± 0.58")
    assert [row[0] for row in table.rows] == ["tb", "eps"]


def test_differences_are_paired_and_marked(suite: tuple[list[bench.Outcome], Path]) -> None:
    kept = [outcome.kept for outcome in suite[0] if outcome.kept]
    (group,) = bench.groups(kept)
    table = bench.differences(group, short=True)
    assert table is not None
    # Each seed finds one mode more; total variations differ by 0.01, 0.011, 0.012.
    half = stats.t.ppf(0.975, 2) * 0.001 / math.sqrt(3)
    assert table.rows == (
        (
            *("eps", "3", "+1 [+1, +1]*"),
            f"−0.0110 [−{0.011 + half:.4f}, −{0.011 - half:.4f}]*",
        ),
    )
    (turned,) = bench.groups(kept, "eps")
    table = bench.differences(turned, short=True)
    assert table is not None
    assert table.head[0] == "less eps"
    assert table.rows[0][:3] == ("tb", "3", "−1 [−1, −1]*")


def test_one_metric_of_methods_across_tasks(suite: tuple[list[bench.Outcome], Path]) -> None:
    kept = [outcome.kept for outcome in suite[0] if outcome.kept]
    larger = dataclasses.replace(kept[0], task="grid-2x16")
    groups = bench.groups([*kept, larger])
    table = bench.across(groups, "modes_found", ["eps", "tb"])
    assert table.head == ("modes found", "grid-2x8", "grid-2x16")
    assert table.rows == (
        ("eps", "4.00 ± 0.58", "–"),
        ("tb", "3.00 ± 0.58", "3.00 ± 0.58"),
    )
    apart = bench.across(groups, "modes_found", ["eps"], less="tb")
    assert apart.head[0] == "modes found, less tb"
    assert apart.rows == (("eps", "+1 [+1, +1]*", "–"),)
    assert bench.across(groups, "modes_found", ["tb"], less="nothing").rows == (("tb", "–", "–"),)


def test_markdown_is_as_wide_as_its_cells() -> None:
    table = report.Table(("a", "b|c"), (("long cell", "1"), ("x", "two\nlines")))
    assert table.markdown().splitlines() == [
        "| a         | b/c       |",
        "|-----------|-----------|",
        "| long cell | 1         |",
        "| x         | two lines |",
    ]


def test_the_json_has_every_value_by_seed(suite: tuple[list[bench.Outcome], Path]) -> None:
    outcomes, out = suite
    bench.write_json(out / "bench.json", {"tasks": ["grid-2x8"]}, outcomes, None)
    found = json.loads((out / "bench.json").read_text())
    assert found["format_version"] == 1
    assert [cell["state"] for cell in found["cells"]] == ["finished", "finished", "failed"]
    assert "the disk is full" in found["cells"][2]["error"]
    first = found["cells"][0]
    assert (first["gradient_steps"], first["reward_calls"]) == (8, 128)
    assert first["values"]["modes_found"] == [2, 3, 4]
    assert "modes_held" not in first["values"]  # null at every seed
    rows = {row["metric"]: row for row in found["differences"]}
    assert rows["modes_found"]["mean"] == 1
    assert rows["modes_found"]["baseline"] == "tb"
    assert rows["tv"]["low"] < rows["tv"]["mean"] < rows["tv"]["high"] < 0


@pytest.mark.usefixtures("undrawn")
def test_the_page_is_whole_and_loads_nothing(suite: tuple[list[bench.Outcome], Path]) -> None:
    outcomes, out = suite
    comparison = bench.comparison(outcomes, None, out, "didact bench x.toml")
    page = report.write_comparison(comparison, out / "bench.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", page)
    assert set(re.findall(r'src="([^,"]*)', page)) == {"data:image/png;base64"}
    assert "prefers-color-scheme: dark" in page
    for text in ("3.00 ± 0.58", "+1 [+1, +1]*", "reward calls", "gradient steps"):
        assert text in page
    assert "2 of 3 finished" in page
    assert "grid-2x8-tb-per failed: the disk is full: make room." in page
    assert page.count("<img") == 6  # two quantities against reward calls, steps and seconds
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


@pytest.mark.usefixtures("undrawn")
def test_what_a_user_wrote_is_shown_as_text(tmp_path: Path) -> None:
    hostile = '<script>alert("1")</script>$x'
    comparison = report.Comparison(
        title=hostile,
        kicker=hostile,
        lead=hostile,
        facts=((hostile, hostile),),
        warnings=(hostile,),
        chapters=(
            report.Chapter(
                "one",
                hostile,
                (hostile,),
                (report.Table((hostile,), ((hostile,),), hostile),),
                notes=(hostile,),
                commands=((hostile, hostile),),
            ),
        ),
    )
    page = report.write_comparison(comparison, tmp_path / "page.html").read_text()
    assert "<script" not in page
    # The title and the heading twice: in the head of the document, and in the contents.
    assert page.count("&lt;script&gt;") == 16


def test_a_page_is_a_html_file(tmp_path: Path) -> None:
    comparison = report.Comparison("a", "b", "c", ())
    with pytest.raises(ValueError, match=r"written as \.html, not '\.pdf'"):
        _ = report.write_comparison(comparison, tmp_path / "page.pdf")


def test_many_methods_have_different_lines() -> None:
    rows = tuple({"reward_calls": x, "tv": [0.1 * x]} for x in (1, 2))
    courses = tuple((f"m{i}", rows) for i in range(28))
    chart = report.Chart("n", "t", "y", "tv", courses)
    looks = {(line.color, line.dash) for line in chart.lines()}
    assert len(looks) == 28


def test_problems_are_a_line_each(suite: tuple[list[bench.Outcome], Path]) -> None:
    (line,) = problems(suite[0])
    assert line.startswith("grid-2x8-tb-per failed: ")
    assert "\n" not in line
