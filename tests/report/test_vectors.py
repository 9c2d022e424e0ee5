"""The page of a run on a density over vectors, as a reader sees it."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from didact.report import _vectors_figures as figures
from didact.report import write
from didact.report._read import read
from didact.report._vectors_verdict import METRICS, judge, table

from ._vectors import STEPS, write_vectors_run
from .conftest import change_json
from .test_page import HOSTILE, outline

pytestmark = pytest.mark.usefixtures("coarse")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A good run in the plane."""
    return write_vectors_run(tmp_path / "run")


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def titles(page: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def test_page_of_the_plane(run: Path) -> None:
    page = write(run).read_text("utf-8")
    parsed = outline(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "svg"}
    assert all(len(a["alt"] or "") > 20 for a in parsed.all("img"))
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert all((a["href"] or "")[1:] in ids for a in parsed.all("a"))
    assert titles(page)[:3] == ["Target", "Student", "Teacher"]
    assert "checked" in parsed.all("input")[-1]
    text = text_of(page)
    for words in (
        "Draws of the Student reach 4 of 4 modes",
        "log Z is bounded by −0.200 and 0.300",
        "Among draws of the trained Student",
        "the lines enclose 50\u00a0%, 90\u00a0% and 99\u00a0%",
        "k̂ measures",
        "1,000 weighted draws are worth",
        "Bounds closing in on log Z",
    ):
        assert words in text.replace("50 %, 90 % and 99 %", "50\u00a0%, 90\u00a0% and 99\u00a0%")
    assert "total variation" not in text
    assert "cell" not in text.split("Configuration")[0]
    written = {p.relative_to(run / "figures").as_posix() for p in run.rglob("*.png")}
    wanted = ("density-target", "density-student", "density-teacher", "marginals", "bounds")
    assert written >= {f"{name}.png" for name in (*wanted, "weights", "modes", "loss", "gaps")}
    assert f"frames/{STEPS:09d}-student.png" in written


def test_every_metric_has_target_and_meaning(run: Path) -> None:
    final = read(run).final
    page = write(run).read_text("utf-8")
    assert len(table(final)) > 12
    for metric in table(final):
        assert metric.perfect(final) not in ("", "–")
        assert page.count(f">{metric.name}</th>") == 1
    assert len({m.key for m in METRICS}) == len(METRICS)
    assert "[−0.300, −0.100]" in page  # of the ELBO


@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 1},
        {"dim": 6, "seeds": 2},
        {"dim": 6, "with_teacher": False, "sampled": False},
        {"dim": 1, "sampled": False, "quality": 0.0},
    ],
    ids=str,
)
def test_other_runs(tmp_path: Path, settings: dict[str, object]) -> None:
    page = write(write_vectors_run(tmp_path / "run", **settings)).read_text("utf-8")
    _ = outline(page)
    text = text_of(page)
    assert ("This run had none" in text) is not settings.get("with_teacher", True)
    assert "EUBO [" in text or "upper bound on log Z" in text
    if settings["dim"] == 6:
        assert "Shown are 3 of the 15 pairs of coordinates" in text
        assert "Student, coordinates 4 and 5" in titles(page)
    if settings.get("sampled") is False:
        assert "no upper bound on log Z" in text
        assert "made of weighted draws" in text


@pytest.mark.parametrize(
    ("changes", "grade", "words"),
    [
        ({}, "good", "can be trusted"),
        ({"modes_reached": [1]}, "poor", "finding is not holding"),
        ({"modes_reached": [3]}, "partial", "reach only 3"),
        ({"modes_reached": [3], "modes_found": [3]}, "partial", "never visited"),
        ({"eubo": [9.0]}, "poor", "leaves parts of the target out"),
        ({"eubo": [2.0]}, "partial", "leaves parts of the target out"),
        ({"k_hat": [0.9]}, "good", "cannot be trusted (k̂ = 0.90, not below 0.7)"),
        ({"k_hat": [None]}, "good", "are worth as much as 6,100 exact ones."),
        ({"w2": [3.0]}, "good", "3 away from exact samples"),
        # So many modes that no set of draws reaches them: they are not counted.
        ({"modes_reached": [900], "num_modes": 65_536, "modes_reached_perfect": 950}, "good", ""),
        (
            {"eubo": [None], "log_z_true": None, "num_modes": None, "modes_reached": [None]},
            "unknown",
            "no upper bound",
        ),
    ],
)
def test_verdict_is_honest(run: Path, changes: dict[str, object], grade: str, words: str) -> None:
    change_json(run / "evaluation.json", **changes)
    if "num_modes" in changes:
        summary = json.loads((run / "config.json").read_text())["summary"]
        change_json(run / "config.json", summary=summary | {"num_modes": changes["num_modes"]})
    verdict = judge(read(run))
    assert verdict.grade == grade
    assert words in " ".join(verdict.remarks)


def test_seeds_that_disagree_are_named(tmp_path: Path) -> None:
    run = write_vectors_run(tmp_path / "run", seeds=3)
    change_json(run / "evaluation.json", modes_reached=[4, 1, 4])
    assert "The seeds disagree: their draws reach from 1 to 4" in " ".join(judge(read(run)).remarks)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("evaluation.json", "evaluation.json is missing"),
        ("metrics.jsonl", "metrics.jsonl is missing"),
        ("snapshots", "There are no snapshots"),
        ("snapshots/target.npz", "What was trained"),
        ("diagnostics.npz", "Student"),
    ],
)
def test_missing_pieces_leave_a_page(run: Path, missing: str, words: str) -> None:
    _ = (run / missing).rename(run.parent / "gone")
    page = write(run).read_text("utf-8")
    _ = outline(page)
    assert words in page
    assert ("Log weights of" in page) is (missing != "diagnostics.npz")


@pytest.mark.parametrize("damage", ["cut", "version", "shape", "pickle", "extent"])
def test_damaged_arrays_are_noted(run: Path, damage: str) -> None:
    file = run / ("snapshots/target.npz" if damage == "extent" else "diagnostics.npz")
    with np.load(file) as archive:
        arrays = dict(archive)
    if damage == "cut":
        _ = file.write_bytes(file.read_bytes()[:200])
    else:
        changes = {
            "version": {"format_version": np.asarray(2)},
            "shape": {"x": np.zeros(7)},
            "pickle": {"x": np.array([{}], dtype=object)},
            "extent": {"extent": np.array([[0.0, np.nan, 0.0, 1.0]])},
        }
        np.savez(file, **(arrays | changes[damage]))
    page = write(run).read_text("utf-8")
    assert f"{file.name} cannot be read" in page
    _ = outline(page)


def test_values_that_are_not_finite_leave_a_page(run: Path) -> None:
    with np.load(run / "diagnostics.npz") as archive:
        arrays = dict(archive)
    arrays["x"][::2] = np.nan
    arrays["log_weight"][:100] = [np.nan, -np.inf] * 50
    arrays["backward_log_weight"][:3] = np.inf
    np.savez(run / "diagnostics.npz", **arrays)
    assert "Log weights of" in write(run).read_text("utf-8")


def test_hostile_text_is_escaped(run: Path) -> None:
    clean = {tag for tag, _ in outline(write(run).read_text("utf-8")).tags}
    summary = dict.fromkeys(("title", "method", "task", "num_modes", "dim", "sigma"), HOSTILE)
    change_json(run / "config.json", summary=summary | {"space": "vectors"})
    change_json(run / "evaluation.json", elbo=[HOSTILE], num_draws=HOSTILE, k_hat=HOSTILE)
    parsed = outline(write(run).read_text("utf-8"))
    assert {tag for tag, _ in parsed.tags} <= clean
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)


def test_writing_twice_gives_the_same_page(run: Path) -> None:
    assert write(run).read_bytes() == write(run).read_bytes()


def test_contours_enclose_their_shares() -> None:
    rng = np.random.default_rng(0)
    panel = rng.random((40, 40)) ** 3
    panel /= panel.sum()
    heights = figures.levels(panel)
    assert len(heights) == 3
    for height, share in zip(heights, sorted(figures.ENCLOSED, reverse=True), strict=True):
        assert panel[panel >= height].sum() == pytest.approx(share, abs=0.01)
    assert figures.levels(np.zeros((4, 4))) == []
