"""The page of a run over strings, as a reader sees it."""

import base64
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from didact import chem
from didact.report import _strings_figures as figures
from didact.report import write
from didact.report._read import read
from didact.report._strings_verdict import POOR_GAP, furthest, judge, table

from ._strings import BLOCKS, LETTERS, LOG_REWARD, LOG_Z, STEPS, VALUES, write_strings_run
from .conftest import change_json
from .test_page import HOSTILE, outline

needs_rdkit = pytest.mark.skipif(not chem.available(), reason="RDKit is not installed")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A good run whose law is known."""
    return write_strings_run(tmp_path / "run")


def text_of(page: str) -> str:
    page = page.partition("</style>")[2] or page
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def titles(page: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def changed(run: Path, file: str, **changes: object) -> Path:
    change_json(run / file, **changes)
    return run


@pytest.mark.usefixtures("coarse")
def test_page_of_sequences(run: Path) -> None:
    page = write(run).read_text("utf-8")
    parsed = outline(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "svg"}
    assert all(len(a["alt"] or "") > 20 for a in parsed.all("img"))
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert all((a["href"] or "")[1:] in ids for a in parsed.all("a"))
    profiles = ["Target", "Student", "Student − target", "Teacher"]
    assert titles(page)[:4] == profiles
    assert titles(page).count("Teacher") == 4  # once, and in each of three frames
    text = text_of(page)
    for words in (
        "A word of 3 letters out of 4: ACGT. There are 64 of them.",
        "The Student holds 4 of 4 modes",
        "a string that is 10 % worse than another is to be drawn 1.5 times more rarely",
        "The best 12",
        "4 of the best 20 that are far from each other",
        "Their edit distance from each other is 2.100 on average.",
        "What finding them cost",
        "the dashed line",
    ):
        assert words in text
    assert "coordinate" not in text
    assert "molecule" not in text.lower()
    written = {p.relative_to(run / "figures").as_posix() for p in run.rglob("*.png")}
    wanted = ("target", "student", "difference", "teacher")
    assert written >= {f"profile-{name}.png" for name in wanted}
    assert written >= {"modes.png", "modes-distinct.png", "mean-value.png", "spearman.png"}
    assert f"frames/{STEPS:09d}-student.png" in written


@pytest.mark.usefixtures("undrawn")
def test_strings_stand_beside_what_is_known_of_them(run: Path) -> None:
    page = write(run).read_text("utf-8")
    rows = re.findall(r"<tr><td>(\d+)</td><th[^>]*>(.*?)</th>(.*?)</tr>", page)
    best = [
        (rank, text_of(string).replace(" ", ""), text_of(cells)) for rank, string, cells in rows
    ]
    assert best[0][:2] == ("1", "GTG")
    due = f"{LOG_REWARD.max() - LOG_Z:.2f}".replace("-", "−")
    # At the end the Student is the target, and so log P is what it should be.
    assert best[0][2] == f"1.100 {due} {due} yes"
    assert [rank for rank, *_ in best[12:]] == ["1", "4", "10", "16"]
    assert best[8][2].endswith("no")
    assert f'class="s{LETTERS.index("G")}">G' in rows[0][1]


@pytest.mark.usefixtures("undrawn")
def test_every_metric_has_target_and_meaning(run: Path) -> None:
    page = write(run).read_text("utf-8")
    shown = {metric.key for metric in table(read(run))}
    assert shown >= {"mean_value", "top_value", "top_distance", "spearman", "eubo", "distinct"}
    assert not shown & {"ess", "k_hat", "log_z_estimate"}
    for metric in table(read(run)):
        assert metric.perfect(read(run).final) not in ("", "–")
        assert page.count(f">{metric.name}</th>") == 1
    assert "not available" not in page


def drawings(page: str) -> list[str]:
    """Alternative texts of the molecules that are drawn."""
    return [
        str(a["alt"])
        for a in outline(page).all("img")
        if str(a["src"]).startswith("data:image/svg+xml;base64,")
    ]


@needs_rdkit
@pytest.mark.usefixtures("undrawn")
def test_molecules_are_drawn(tmp_path: Path) -> None:
    run = write_strings_run(tmp_path / "run", molecules=True)
    page = write(run).read_text("utf-8")
    drawn = drawings(page)
    assert len(drawn) == 12 + 4 + len(BLOCKS)
    assert drawn[-len(BLOCKS) :] == [f"Structure of {smiles}." for smiles in BLOCKS]
    for a in outline(page).all("img"):
        source = str(a["src"])
        if "svg" in source:
            svg = base64.b64decode(source.partition(",")[2]).decode()
            assert svg.startswith("<svg")
            # Carbon and its bonds have the colour of text, on light and on dark.
            assert ("currentColor" in svg) is (a["alt"] != "Structure of O.")
            assert not re.search("<script|<image|href", svg)
    text = text_of(page)
    assert "A molecule: a chain of 3 building blocks out of 4" in text
    assert "value 1.100 #1 · GTG · mode log P" in text
    assert "Tanimoto distance from each other is 0.700 on average (0 is the same" in text
    assert "didact[chem]" not in text
    assert (run / "figures" / "molecules" / "001.svg").is_file()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("assembled", [True, False])
def test_without_rdkit_there_are_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assembled: bool
) -> None:
    run = write_strings_run(tmp_path / "run", molecules=True)
    if not assembled:  # neither was it there when the run was evaluated
        best = json.loads((run / "found.json").read_text())["best"]
        change_json(run / "found.json", best=[{**entry, "smiles": None} for entry in best])
    monkeypatch.setattr(chem, "available", lambda: False)
    page = write(run).read_text("utf-8")
    assert drawings(page) == []
    assert "pip install &#x27;didact[chem]&#x27;" in page
    assert ("then evaluate the run" in page) is not assembled
    assert ("c1ccccc1N" if assembled else "c1ccccc1 – C#N – c1ccccc1") in page


@pytest.mark.usefixtures("undrawn")
def test_what_is_no_molecule_is_shown_as_text(tmp_path: Path) -> None:
    run = write_strings_run(tmp_path / "run", molecules=True)
    best = json.loads((run / "found.json").read_text())["best"]
    bad = ["C(", "<svg onload=alert(1)>", "C |$<script>$|", "N" * 401, "[Xx]"]
    for entry, text in zip(best, bad, strict=False):
        entry["smiles"] = text
    change_json(run / "found.json", best=best)
    page = write(run).read_text("utf-8")
    assert not set(drawings(page)) & {f"Structure of {text}." for text in bad}
    assert "&lt;svg onload=alert(1)&gt;" in page
    assert not {tag for tag, _ in outline(page).tags} & {"svg", "script"}


@pytest.mark.usefixtures("undrawn")
def test_verdict_by_samples_says_what_it_rests_on(tmp_path: Path) -> None:
    run = write_strings_run(tmp_path / "run", exact=False, quality=0.7, with_teacher=False)
    verdict = judge(read(run))
    assert verdict.grade == "partial"
    said = " ".join(verdict.remarks)
    law_gap = LOG_Z - json.loads((run / "evaluation.json").read_text())["elbo_low"][0]
    assert f"at most {100 * furthest(law_gap):.0f} % of the probability lies in the wrong" in said
    for words in (
        "In training the ELBO went from",
        "draws cannot say how many are held",
        "exact evaluation would need 36,012,943 states.",
    ):
        assert words in said
    page = write(run).read_text("utf-8")
    text = text_of(page)
    assert "Profiles: Student " in text
    assert "That of the target is not known" in text
    assert "Modes held" not in text
    assert "not available" not in text
    assert "Total variation" not in text
    assert "There are 34,012,224 of them" in text
    assert "Target" not in titles(page)


@pytest.mark.parametrize(
    ("changes", "grade"),
    [
        ({"elbo": [LOG_Z - 0.01], "elbo_low": [LOG_Z - 0.015]}, "good"),
        ({"elbo": [LOG_Z - 0.01], "elbo_low": [LOG_Z - 0.03]}, "partial"),
        ({"elbo": [LOG_Z - 0.6], "elbo_low": [LOG_Z - 0.61]}, "poor"),
        # Where the modes are known to be held or not, they count too.
        ({"elbo_low": [LOG_Z - 0.01], "modes_held": [4]}, "good"),
        ({"elbo_low": [LOG_Z - 0.01], "modes_held": [3]}, "partial"),
        ({"elbo_low": [LOG_Z - 0.01], "modes_held": [1]}, "poor"),
        ({"log_z_true": None}, "unknown"),
        ({"elbo": [None]}, "unknown"),
    ],
)
def test_grade_by_samples(tmp_path: Path, changes: dict[str, object], grade: str) -> None:
    run = write_strings_run(tmp_path / "run", exact=False)
    assert judge(read(changed(run, "evaluation.json", **changes))).grade == grade


def test_bound_of_the_law_holds() -> None:
    """Of laws that are as far apart as their divergence allows, and of others."""
    rng = np.random.default_rng(0)
    for concentration in (0.05, 1.0, 50.0):
        p, q = rng.dirichlet([concentration] * 12, 2) + 1e-12
        p, q = p / p.sum(), q / q.sum()
        divergence = float(q @ np.log(q / p))
        assert 0.5 * np.abs(p - q).sum() <= furthest(divergence)
    # A law on a share s of the target's probability: the divergence is -log s.
    for share in (0.1, 0.5, 0.99):
        assert 1 - share <= furthest(-np.log(share)) <= 1
    assert furthest(POOR_GAP) == pytest.approx(0.5)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("returns", ["score", "log_reward"])
def test_rewards_of_the_users_own(tmp_path: Path, returns: str) -> None:
    run = write_strings_run(tmp_path / "run", exact=False, own_reward=True, seeds=2)
    experiment = json.loads((run / "config.json").read_text())["experiment"]
    experiment["target"]["returns"] = returns
    text = text_of(write(changed(run, "config.json", experiment=experiment)).read_text("utf-8"))
    assert "Not settled by draws alone" in text
    assert "Nothing here could show that the Student leaves out a part of the target" in text
    assert "Z is not known." in text
    assert "ELBO, at most log Z" in text
    assert "should be" not in text.split("Profiles")[0].split("The best that it found")[1]
    score = VALUES.max() if returns == "score" else np.log(VALUES.max())
    assert f"# String Score log P 1 G T G {score:.4g}" in text.replace("1.100", "1.1")


def test_few_modes_by_weight_are_not_praised(run: Path) -> None:
    change_json(run / "evaluation.json", mode_mass_recall=[0.01], tv=[0.9])
    verdict = judge(read(run))
    assert verdict.grade == "poor"
    assert "Those that it holds have little weight" in " ".join(verdict.remarks)


@pytest.mark.parametrize(
    "damage", ["missing", "cut", "version", "none", "list", "large", "number", "nothing"]
)
def test_damaged_strings_are_noted(run: Path, damage: str) -> None:
    file = run / "found.json"
    content = json.loads(file.read_text())
    texts = {
        "cut": file.read_text()[:300],
        "version": json.dumps(content | {"format_version": 2}),
        "none": json.dumps(content | {"best": None}),
        "list": json.dumps(content | {"best": [["ACG"]]}),
        "large": file.read_text() + " " * 2**22,
        "number": "7",
        "nothing": json.dumps({"format_version": 1}),
    }
    if damage == "missing":
        file.unlink()
    else:
        _ = file.write_text(texts[damage])
    found = read(run)
    assert found.found is None
    wrong = "is missing" if damage == "missing" else "cannot be read"
    assert f"found.json {wrong}, so the best strings are not shown" in " ".join(found.notes)


@pytest.mark.usefixtures("undrawn")
def test_page_without_the_best(run: Path) -> None:
    (run / "found.json").unlink()
    page = write(run).read_text("utf-8")
    _ = outline(page)
    assert "found.json is missing" in page
    assert "The best that it found" not in page


@pytest.mark.usefixtures("undrawn")
def test_hostile_text_is_escaped(run: Path) -> None:
    summary = json.loads((run / "config.json").read_text())["summary"]
    hostile = dict.fromkeys(("title", "method", "task", "num_modes", "length"), HOSTILE)
    hostile |= {"alphabet": [HOSTILE, "$\\frac{$", "<b>", ""], "blocks": [HOSTILE] * 4}
    change_json(run / "config.json", summary=summary | hostile)
    entry = dict.fromkeys(("string", "smiles", "value", "log_prob", "log_reward", "mode"), HOSTILE)
    change_json(
        run / "found.json",
        best=[entry, {"string": 10**6 * "A", "value": 1e308}, {"string": None}],
        diverse=[HOSTILE, -1, 10**400, 2.7, 0, 0],
        distance=HOSTILE,
        mean_distance=HOSTILE,
        num_draws=[HOSTILE],
    )
    change_json(run / "evaluation.json", mean_value=HOSTILE, reason=HOSTILE, tv=None)
    page = write(run).read_text("utf-8")
    parsed = outline(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "svg", "link", "iframe", "object"}
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert len(page) < 2_000_000


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(("symbols", "length"), [(2, 1), (100, 3), (3, 60)])
def test_profiles_of_any_size(symbols: int, length: int) -> None:
    panel = np.random.default_rng(0).dirichlet([1.0] * symbols, length).T
    letters = [f"${i}" for i in range(symbols)]
    for figure in (
        figures.profile(panel, letters, 0.5),
        figures.difference(panel, panel[::-1], letters),
    ):
        figure.draw_without_rendering()
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels[0] == "$0"
        assert len(labels) <= 40


@pytest.mark.usefixtures("undrawn")
def test_pieces_that_do_not_fit_are_left_out(run: Path) -> None:
    """Of another alphabet, or of another length."""
    np.savez(run / "snapshots" / f"{STEPS:09d}.npz", student=np.ones((7, 2)))
    page = write(run).read_text("utf-8")
    assert "1 snapshot(s) cannot be read" in page
    assert "first seed, step 200." in page
