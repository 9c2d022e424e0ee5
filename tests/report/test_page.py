"""The page as a reader and a browser see it."""

import html
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from didact.report import _write, write
from didact.report._read import read
from didact.report._verdict import judge, table

from .conftest import MakeRun, change_json, write_json

HOSTILE = "<script>alert(1)</script>\"' onload='x' $\\frac{ \ud800 \x1b[31m"
VOID = {"br", "img", "input", "meta"}


class Outline(HTMLParser):
    """Collects tags and attributes, and fails if elements do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_page_loads_nothing_and_runs_nothing(grid_page: str) -> None:
    parsed = outline(grid_page)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    for _, attributes in parsed.tags:
        assert not any(key.startswith("on") for key in attributes)
        assert (attributes.get("src") or "data:image/png").startswith("data:image/png")
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\(", grid_page)
    (policy,) = [m for m in parsed.all("meta") if m.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'; img-src data:")


def test_every_link_label_and_picture_is_complete(grid_page: str) -> None:
    parsed = outline(grid_page)
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all((a["href"] or "")[1:] in ids for a in parsed.all("a"))
    assert all(a["for"] in ids for a in parsed.all("label"))
    assert all(len(a["alt"] or "") > 20 for a in parsed.all("img"))


def test_frames_step_without_javascript(grid_page: str) -> None:
    radios = outline(grid_page).all("input")
    assert len(radios) == 12
    assert {r["type"] for r in radios} == {"radio"}
    assert {r["name"] for r in radios} == {"frame"}
    assert ["checked" in r for r in radios] == [False] * 11 + [True]


def test_every_metric_has_target_and_meaning(grid_run: Path, grid_page: str) -> None:
    final = read(grid_run).final
    for metric in table(final):
        assert metric.perfect(final) not in ("", "–")
        assert len(metric.meaning) > 20
        assert grid_page.count(f">{metric.name}</th>") == 1


def test_verdict_says_held_and_found(grid_page: str) -> None:
    assert "The Student holds" in grid_page
    for name in ("Found in training, by any path", "Held by the trained Student"):
        assert name in grid_page


@pytest.mark.parametrize(
    ("changes", "grade", "words"),
    [
        ({}, "good", "holds on to what was found"),
        ({"modes_held": [0, 0, 0], "mode_mass": [0.0] * 3}, "poor", "finding is not holding"),
        ({"modes_held": [6, 6, 6]}, "partial", "holds only 6"),
        ({"modes_held": [9, 9, 9], "tv": [0.9] * 3}, "poor", "Training found"),
        ({"modes_found": [3, 3, 3], "modes_held": [3, 3, 3]}, "poor", "never visited"),
        ({"modes_found": [3, 3, 3]}, "good", "never shown"),
        ({"modes_held": [9, 0, 9]}, "partial", "seeds disagree: from 0 to 9"),
        ({"missed_mass": [0.2, 0.3, 0.4]}, "good", "30 % of the target’s probability is on"),
        ({"modes_held": [None] * 3, "tv": None}, "unknown", "says where training looked"),
    ],
)
def test_verdict_is_honest(
    run_copy: Path, changes: dict[str, object], grade: str, words: str
) -> None:
    few = {"num_modes": 9, "modes_found": [9, 9, 9], "modes_held": [9, 9, 9]}
    change_json(run_copy / "evaluation.json", **(few | changes))
    verdict = judge(read(run_copy))
    assert verdict.grade == grade
    assert words in " ".join(verdict.remarks)


def test_one_mode_more_or_less_is_no_disagreement(run_copy: Path) -> None:
    change_json(run_copy / "evaluation.json", num_modes=6, modes_held=[5, 4, 5])
    assert "disagree" not in " ".join(judge(read(run_copy)).remarks)


def without_modes(run: Path, **changes: object) -> Path:
    """Make `run` one of a target that names no modes."""
    config = json.loads((run / "config.json").read_text())
    config["summary"] |= {"num_modes": None, "mode_mass": None, "task": None}
    config["experiment"]["target"] = {"type": "targets.FromFunction"}
    write_json(run / "config.json", config)
    unknown = ("modes_held", "mode_mass_recall", "mode_mass", "modes_found", "modes_found_student")
    nothing = dict.fromkeys((*unknown, "modes_reached"), [None] * 3)
    change_json(run / "evaluation.json", num_modes=None, mode_mass_target=None, **nothing)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {key: [None] * 3 for key in unknown if key in row} for row in rows]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    target = run / "snapshots" / "target.npz"
    with np.load(target) as file:
        arrays = dict(file) | {"modes": np.zeros_like(file["modes"])}
    np.savez(target, **arrays)
    change_json(run / "evaluation.json", **changes)
    return run


@pytest.mark.parametrize(
    ("tv", "missed", "grade"),
    [
        (0.05, 0.01, "good"),
        (0.05, 0.06, "partial"),
        (0.2, 0.2, "partial"),
        (0.25, 0.5, "poor"),
        (0.31, 0.1, "poor"),
        (0.31, None, "poor"),
        (0.2, None, "partial"),
    ],
)
def test_what_is_missed_judges_where_there_are_no_modes(
    run_copy: Path, tv: float, missed: float | None, grade: str
) -> None:
    shares = {"tv": [tv] * 3, "missed_mass": [missed] * 3}
    verdict = judge(read(without_modes(run_copy, **shares)))
    assert verdict.grade == grade
    said = "gives less than half of what they should have" in " ".join(verdict.remarks)
    assert said is (missed is not None)


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_said_of_modes_where_there_are_none(run_copy: Path) -> None:
    run = without_modes(run_copy, missed_mass=[0.5] * 3)
    text = text_of(write(run).read_text("utf-8")).split("Reproduce With")[0]
    text = text.replace("num_modes", "")
    sentences = [s for s in re.split(r"[.;:] ", text) if re.search(r"\b[Mm]odes?\b", s)]
    assert "not available" not in text
    assert len(sentences) == 2, sentences  # and why that is so in the rule of the verdict
    assert "This target names no modes" in sentences[0]
    assert "names no modes that could be counted" in sentences[1]
    assert not (run / "figures" / "modes-held.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_cells_of_modes_are_not_called_modes(run_copy: Path, grid_page: str) -> None:
    assert re.search(r"<figcaption>Modes: \d+ held, \d+ missed</figcaption>", grid_page)
    change_json(run_copy / "evaluation.json", num_modes=2)
    page = write(run_copy).read_text("utf-8")
    assert re.search(r"<figcaption>Cells in modes: \d+ held, \d+ missed</figcaption>", page)
    assert re.search(r"The 2 modes have \d+ cells", page)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("with_teacher", [True, False])
def test_a_teacher_is_named_where_there_is_one(
    tmp_path: Path, make_run: MakeRun, with_teacher: bool
) -> None:
    run = make_run(tmp_path / "run", side=8, seeds=1, with_teacher=with_teacher)
    page = write(run).read_text("utf-8")
    assert (">Target, Student, Teacher</h2>" in page) is with_teacher
    assert (">Target and Student</h2>" in page) is not with_teacher
    assert ("have one scale for all moments here" in page) is with_teacher


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("side", "uneven"), [(16, True), (17, False), (64, False), (256, True)])
def test_groups_that_differ_in_size_are_explained(run_copy: Path, side: int, uneven: bool) -> None:
    config = json.loads((run_copy / "config.json").read_text())
    config["summary"]["side"] = side
    write_json(run_copy / "config.json", config)
    assert ("groups differ in size" in write(run_copy).read_text("utf-8")) is uneven


@pytest.mark.usefixtures("undrawn")
def test_reason_for_no_exact_verdict_is_shown(run_copy: Path) -> None:
    nothing = {"tv": None, "kl": None, "jsd": None, "modes_held": None}
    reason = "12 GB needed, 4 GB allowed"
    change_json(run_copy / "evaluation.json", exact=False, reason=reason, **nothing)
    page = write(run_copy).read_text("utf-8")
    assert f"No exact verdict: {reason}" in page
    assert "not available" in page


@pytest.mark.usefixtures("undrawn")
def test_modes_that_were_walked_to_do_not_say_that_the_target_is_near(run_copy: Path) -> None:
    modes = json.loads((run_copy / "evaluation.json").read_text())["num_modes"]
    held = [float(modes)] * 3
    nothing = {"tv": None, "kl": None, "jsd": None, "missed_mass": None}
    change_json(run_copy / "evaluation.json", exact=False, modes_held=held, **nothing)
    change_json(run_copy / "evaluation.json", modes_held_low=held, modes_held_high=held)
    page = write(run_copy).read_text("utf-8")
    assert "Close to the target" not in page
    assert "Of the mass that lies elsewhere it says nothing" in page
    assert f"The Student holds about {modes} of {modes} modes" in page


@pytest.mark.usefixtures("coarse")
def test_hostile_text_is_escaped(run_copy: Path, grid_page: str) -> None:
    change_json(
        run_copy / "config.json",
        command=HOSTILE,
        created=HOSTILE,
        seeds=[HOSTILE],
        summary={"title": HOSTILE, "method": HOSTILE, "task": HOSTILE, "num_modes": HOSTILE},
        experiment={HOSTILE: {HOSTILE: [HOSTILE]}, "plain": HOSTILE},
    )
    change_json(run_copy / "evaluation.json", reason=HOSTILE, exact=False, tv=[HOSTILE, 0.5])
    change_json(run_copy / "evaluation.json", versions={HOSTILE: HOSTILE}, num_draws=HOSTILE)
    lines = [{"kind": "train", "step": HOSTILE, "loss": [HOSTILE], "reward_calls": HOSTILE}]
    _ = (run_copy / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    parsed = outline(write(run_copy).read_text("utf-8"))
    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in outline(grid_page).tags}
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 4, "side": 8},
        {"dim": 1, "side": 32},
        {"side": 16, "with_teacher": False, "seeds": 1},
        {"side": 3, "quality": 0.0, "seeds": 2},
    ],
)
def test_other_runs(tmp_path: Path, make_run: MakeRun, settings: dict[str, object]) -> None:
    run = make_run(tmp_path / "run", **settings)
    page = write(run).read_text("utf-8")
    parsed = outline(page)
    titles = {str(a["alt"]).split(".")[0] for a in parsed.all("img")}
    assert any("Teacher" in t for t in titles) is settings.get("with_teacher", True)
    assert ("This run had none" in page) is not settings.get("with_teacher", True)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("missing", "word"),
    [
        ("evaluation.json", "evaluation.json is missing"),
        ("metrics.jsonl", "metrics.jsonl is missing"),
        ("snapshots", "There are no snapshots"),
        ("snapshots/target.npz", "What was trained"),
    ],
)
def test_missing_pieces_leave_a_page(run_copy: Path, missing: str, word: str) -> None:
    path = run_copy / missing
    _ = path.rename(run_copy.parent / "gone")
    assert word in write(run_copy).read_text("utf-8")


def test_only_a_configuration_leaves_a_page(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"format_version": 1})
    page = write(tmp_path).read_text("utf-8")
    _ = outline(page)
    assert "No exact verdict on this run yet" in page


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.mark.usefixtures("undrawn")
def test_masthead_is_of_the_training_not_of_an_older_evaluation(run_copy: Path) -> None:
    path = run_copy / "metrics.jsonl"
    rows = [line for line in path.read_text().splitlines() if '"step": 12000' not in line]
    _ = path.write_text("\n".join(rows) + "\n")
    change_json(run_copy / "evaluation.json", step=800, reward_calls=[6400] * 3)
    text = text_of(write(run_copy).read_text("utf-8"))
    assert "Gradient steps per seed 11,800 of 12,000 " in text
    assert "Reward calls per seed 94,400 " in text
    assert "Training 3 min " in text  # 59 rows of 200 / 60 s
    assert "The verdict is of step 11,000, training has gone on to step 11,800." in text
    assert "Held by the trained Student" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("exact", [True, False])
def test_exactness_is_promised_only_where_it_is_kept(run_copy: Path, exact: bool) -> None:
    change_json(run_copy / "evaluation.json", exact=exact)
    page = write(run_copy).read_text("utf-8")
    assert ("can be checked exactly" in page) is exact
    assert "Z is known" in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("task", "target", "apart"),
    [
        ("grid", "targets.DeceptiveGrid", True),
        (None, "targets.DeceptiveGrid", False),
        ("grid", "mine:DeceptiveGrid", False),
    ],
)
def test_groups_of_modes_are_those_of_the_deceptive_grid(
    run_copy: Path, task: str | None, target: str, apart: bool
) -> None:
    config = json.loads((run_copy / "config.json").read_text())
    config["summary"]["task"] = task
    config["experiment"]["target"]["type"] = target
    write_json(run_copy / "config.json", config)
    page = write(run_copy).read_text("utf-8")
    assert ("groups that lie apart" in page) is apart
    assert f"There are {config['summary']['num_modes']}" in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (("objectives.TB", "objectives.Squared"), "is the squared mismatch"),
        (("objectives.TB", "objectives.Huber"), "grows with the mismatch"),
        (("objectives.DB", "objectives.Squared"), "makes a path or a part of it and"),
        (("mine:Own", None), "makes a path or a part of it and"),
    ],
)
def test_loss_is_described_as_configured(
    run_copy: Path, objective: tuple[str, str | None], words: str
) -> None:
    config = json.loads((run_copy / "config.json").read_text())
    kind, regression = objective
    config["experiment"]["objective"] = {"type": kind, "regression": {"type": regression}}
    write_json(run_copy / "config.json", config)
    page = write(run_copy).read_text("utf-8")
    assert words in page
    assert ("squared mismatch" in page) is (regression == "objectives.Squared")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("with_teacher", [True, False])
def test_every_pair_of_coordinates_has_its_pictures(
    tmp_path: Path, make_run: MakeRun, with_teacher: bool
) -> None:
    run = make_run(tmp_path / "run", dim=4, side=6, seeds=1, with_teacher=with_teacher)
    page = write(run).read_text("utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    for pair in itertools.combinations(range(4), 2):
        where = ", coordinates {} and {}".format(*pair)
        shown = [c.removesuffix(where) for c in captions if c.endswith(where)]
        assert shown == ["Target", "Student", *["Teacher"] * with_teacher, "Relative"]
    assert "pairs of coordinates" not in page
    assert "Shown are coordinates 0 and 1 only" in page
    assert "Student, coordinates 0 and 1, at step 1,000." in page


@pytest.mark.usefixtures("undrawn")
def test_pairs_that_are_left_out_are_counted(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", dim=4, side=6, seeds=1)
    config = json.loads((run / "config.json").read_text())
    config["summary"]["dim"] = 5
    write_json(run / "config.json", config)
    assert write(run).read_text("utf-8").count("Shown are 6 of the 10 pairs of coordinates.") == 2


def verdict_rows(page: str) -> dict[str, str]:
    """Name to value of the table of the verdict."""
    cells = r'<th scope="row">([^<]*)</th><td[^>]*>[^<]*</td><td [^>]*>([^<]*)</td>'
    return dict(re.findall(cells, page))


@pytest.mark.usefixtures("undrawn")
def test_numbers_from_draws_have_their_rows_and_errors(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", side=12, seeds=1)
    draws = {"elbo": [1.5], "elbo_standard_error": [0.0123], "log_z_estimate": [1.75], "ess": [0.5]}
    change_json(run / "evaluation.json", **draws, exact=True)
    rows = verdict_rows(write(run).read_text("utf-8"))
    assert rows["ELBO"] == "1.500"
    assert not {"Log Z from weighted draws", "Effective sample size"} & rows.keys()
    change_json(run / "evaluation.json", exact=False)
    rows = verdict_rows(write(run).read_text("utf-8"))
    assert rows["ELBO"] == "1.500 ± 0.012"
    assert rows["Log Z from weighted draws"] == "1.750"
    assert rows["Effective sample size"] == "0.500"
    change_json(run / "evaluation.json", elbo_standard_error=None)
    assert verdict_rows(write(run).read_text("utf-8"))["ELBO"] == "1.500"


@pytest.mark.usefixtures("undrawn")
def test_each_seed_has_the_error_of_its_draws(run_copy: Path) -> None:
    change_json(
        run_copy / "evaluation.json",
        exact=False,
        elbo=[1.5, 1.75, None],
        elbo_standard_error=[0.0123, 0.25, None],
    )
    page = write(run_copy).read_text("utf-8")
    assert ">1.500 ± 0.012, 1.750 ± 0.25, –</td>" in page


def test_large_page_loses_frames_not_readers(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, grid_page: str
) -> None:
    limit = len(grid_page) - 20_000
    monkeypatch.setattr(_write, "MAX_BYTES", limit)
    page = write(run_copy).read_bytes()
    assert len(page) <= limit
    radios = outline(page.decode()).all("input")
    assert len(radios) == 6
    assert "checked" in radios[-1]


def test_large_noisy_run_fits(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", side=300, seeds=1, quality=0.4)
    assert write(run).stat().st_size <= 10_000_000


@pytest.mark.usefixtures("coarse")
def test_figures_are_written_and_nothing_is_left_over(run_copy: Path) -> None:
    assert write(run_copy) == run_copy / "report.html"
    written = {p.relative_to(run_copy / "figures").as_posix() for p in run_copy.rglob("*.png")}
    assert written >= {
        "density-target.png",
        "density-student.png",
        "density-teacher.png",
        "error-difference.png",
        "error-ratio.png",
        "modes-held.png",
        "modes.png",
        "quality.png",
        "loss.png",
        "log-z.png",
        "frames/000012000-student.png",
    }
    assert not list(run_copy.rglob(".*"))


@pytest.mark.usefixtures("coarse")
def test_writing_twice_gives_the_same_page(run_copy: Path) -> None:
    assert write(run_copy).read_bytes() == write(run_copy).read_bytes()


def test_neither_pyplot_nor_jax_nor_settings_are_touched(run_copy: Path) -> None:
    code = (
        "import sys, types, pathlib, matplotlib\n"
        "package = types.ModuleType('didact'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['didact'] = package\n"
        "before = dict(matplotlib.rcParams)\n"
        "from didact.report import write\n"
        "write(pathlib.Path(sys.argv[2]))\n"
        "assert dict(matplotlib.rcParams) == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'jax' not in sys.modules\n"
    )
    package = Path(_write.__file__).parents[1]
    _ = subprocess.run([sys.executable, "-c", code, package, run_copy], check=True, timeout=120)
