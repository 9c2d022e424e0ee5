"""The page: a run and its pictures to one HTML document."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from . import _strings_page, _strings_verdict, _vectors_page, _vectors_verdict
from . import _verdict as verdict
from ._appendix import configuration, reproduce, shortened
from ._gallery import MAX_PAIRS
from ._html import Html, markup, tag
from ._metrics import metrics
from ._numbers import count, duration, mean, number, percent
from ._parts import (
    NO_MODES,
    about_holding,
    about_student,
    about_teacher,
    about_z,
    explanation,
    grid,
    samplers,
    stepper,
    training,
)
from ._pictures import Frame, Gallery, Picture
from ._read import Record, RunData, scalar, section, values

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def page(run: RunData, pictures: Gallery, frames: Sequence[Frame]) -> str:
    """The whole document; `frames` are those of `pictures` that it shows."""
    title = _title(run)
    of_kind = _chapters
    if run.over_vectors or run.over_strings:
        of_kind = (_vectors_page if run.over_vectors else _strings_page).chapters
    header = markup(_masthead(run, title), _verdict_box(run), _notes(run))
    chapters = (*of_kind(run, pictures, frames), *_appendix(run))
    return document(title, header, chapters, _footer(run))


def document(
    title: str, header: Html, chapters: Iterable[tuple[str, str, Html]], footer: str
) -> str:
    """A page of chapters (key, heading, body); those without a body are left out."""
    chapters = [chapter for chapter in chapters if chapter[2]]
    head = markup(
        Html('<meta charset="utf-8">'),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · didact"),
        tag("style", Html(Path(__file__).with_name("style.css").read_text("utf-8"))),
    )
    contents = tag(
        "nav",
        *(markup(tag("a", heading, href=f"#{key}"), " ") for key, heading, _ in chapters),
        aria_label="Contents",
    )
    body = markup(
        tag("header", header, contents),
        tag(
            "main",
            *(tag("section", tag("h2", name), body, id=key) for key, name, body in chapters),
        ),
        tag("footer", tag("p", footer)),
    )
    return "<!DOCTYPE html>\n" + tag("html", tag("head", head), tag("body", body), lang="en")


def _chapters(
    run: RunData, pictures: Gallery, frames: Sequence[Frame]
) -> Iterable[tuple[str, str, Html]]:
    yield "what", "What was trained", _explanation(run)
    table = metrics(run, verdict.table(run.final), verdict.rule(run))
    yield "verdict", "The verdict in numbers", table
    yield "densities", samplers(run), _densities(run, pictures.densities)
    yield "errors", "Where the Student is wrong", _errors(run, pictures.errors)
    yield "course", "How they changed in training", _stepper(run, frames)
    modes = verdict.num_modes(run)
    yield "modes", "Finding and holding" if modes else "Quality", _modes(run, pictures.modes)
    yield "training", "Training curves", training(run, pictures.training)


def _appendix(run: RunData) -> Iterable[tuple[str, str, Html]]:
    yield "reproduce", "Reproduce", reproduce(run)
    yield "configuration", "Configuration", configuration(run)


def _title(run: RunData) -> str:
    parts = [str(run.summary[k]) for k in ("task", "preset") if run.summary.get(k)]
    return shortened(str(run.summary.get("title") or " · ".join(parts) or run.path.name))


def _masthead(run: RunData, title: str) -> Html:
    each = " per seed" if run.num_seeds > 1 else ""
    facts = [
        ("Seeds", _seeds(run)),
        ("Gradient steps" + each, _steps(run)),
        ("Reward calls" + each, _reward_calls(run)),
        ("Training", _training_time(run)),
        ("Environment", run.summary.get("environment")),
        ("Target", run.summary.get("target")),
    ]
    items = (
        tag("div", tag("dt", name), tag("dd", shortened(str(value))))
        for name, value in facts
        if value not in (None, "")
    )
    return markup(
        tag("p", "didact · report of a training run", class_="kicker"),
        tag("h1", title),
        tag("dl", *items, class_="facts"),
    )


def _verdict_box(run: RunData) -> Html:
    judge = verdict.judge
    if run.over_vectors or run.over_strings:
        judge = (_vectors_verdict if run.over_vectors else _strings_verdict).judge
    judged = judge(run)
    remarks = tag("ul", *(tag("li", r) for r in judged.remarks)) if judged.remarks else Html()
    return tag(
        "div",
        tag("p", judged.label, class_="grade"),
        tag("p", judged.headline, class_="headline"),
        _found_and_held(run),
        remarks,
        class_=f"verdict {judged.grade}",
    )


def _found_and_held(run: RunData) -> Html:
    """Bars of the modes found and held, out of all modes, beside each other."""
    modes = verdict.num_modes(run)
    if not modes or (run.over_vectors and not _vectors_verdict.all_reachable(run)):
        return Html()
    last = ("Held by the trained Student", "modes_held", "held")
    if run.over_vectors:
        last = ("Among draws of the trained Student", "modes_reached", "held")
    rows = [
        ("Found in training, by any path", "modes_found", "found"),
        ("Found by the Student’s own paths", "modes_found_student", "found"),
        last,
    ]
    bars: list[Html] = []
    for name, key, kind in rows:
        found = mean(values(run.final, key))
        if found is not None:
            width = f"width:{min(100.0, max(0.0, 100 * found / modes)):.1f}%"
            bar = tag("span", tag("span", class_=f"fill {kind}", style=width), class_="bar")
            value = tag("b", f"{count(found)} of {number(modes)}")
            bars.append(tag("div", tag("span", name), bar, value))
    return tag("div", *bars, class_="bars") if bars else Html()


def _notes(run: RunData) -> Html:
    if not run.notes:
        return Html()
    return tag("ul", *(tag("li", note) for note in run.notes), class_="notes", role="note")


def _explanation(run: RunData) -> Html:
    lead = (
        "This run trained a sampler: a program that draws objects at random, each with a "
        + "probability proportional to its reward, and so shows all good objects and not "
        + "only the best one. The rewards are given; what is unknown is where they are high."
    )
    terms = (
        ("Target", _about_target(run)),
        ("Mode", _about_modes(run)),
        ("Student", about_student("an object")),
        ("Teacher", about_teacher(run)),
        ("Found and held", about_holding(run)),
    )
    return explanation(run, lead, terms)


def _about_target(run: RunData) -> str:
    text = (
        "The distribution to be sampled: the probability of an object is its reward divided by "
        + "Z, the sum of all rewards. "
    )
    if run.summary.get("task") == "grid":
        dim, side = scalar(run.summary, "dim"), scalar(run.summary, "side")
        ends = scalar(run.summary, "num_terminal_states")
        text += (
            f"Here an object is a cell of a {number(dim)}-dimensional grid of side "
            + f"{number(side)}; a path starts in the corner, adds 1 to one coordinate at a time, "
            + f"and stops. There are {number(ends)} cells to stop in. "
        )
    return text + about_z(run)


def _about_modes(run: RunData) -> str:
    modes, mass = verdict.num_modes(run), scalar(run.final, "mode_mass_target")
    mass = scalar(run.summary, "mode_mass") if mass is None else mass
    if not modes:
        return NO_MODES
    share = f" They carry {percent(mass)} of the probability." if mass is not None else ""
    deceptive = run.part("target").get("type") == "targets.DeceptiveGrid"
    if run.summary.get("task") == "grid" and deceptive:
        return (
            f"An object with a very high reward. There are {number(modes)}, in groups that lie "
            + "apart, with next to no reward in between: a sampler that has learned one group "
            + f"gets no hint of the others.{share}{_uneven(run)}"
        )
    return (
        "An object, or a group of them, that the target marks as one of those to be found, as a "
        + f"rule for its high reward. There are {number(modes)}.{share}"
    )


def _uneven(run: RunData) -> str:
    """A sentence where the published rounding makes groups of modes that differ in size."""
    side = scalar(run.summary, "side")
    if side is None or side < 2 or run.summary.get("convention") != "paper":
        return ""
    u = np.abs(np.arange(int(side)) / (side - 1) * 2 - 1)
    in_mode = (u > 0.6) & (u < 0.8)
    if (in_mode == in_mode[::-1]).all():
        return ""
    return (
        f" At side {number(side)} some cells lie exactly on the edge of a group; as in the "
        + "published code, rounding counts them on one side only, so the groups differ in size."
    )


def _densities(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    moment = _moment(run)
    text = f"How often each sampler ends in each cell, {moment}. "
    if _one_dimensional(run):
        return markup(tag("p", text), grid(pictures, "charts"))
    if run.marginal:
        text = (
            "The space has too many dimensions to draw, so each picture adds up the probability "
            + f"over all but two coordinates, {moment}. {_pairs_left_out(run)}"
        )
    text += "Target and Student share one colour scale: they should look the same."
    if run.void is not None:
        text += " Hatched cells are no objects: no path may end there."
    if run.has_teacher:
        text += (
            " The Teacher has its own scale and other colours; it is bright where it believes "
            + "the Student to be wrong."
        )
    per_pair = len(pictures) // min(len(run.pairs), MAX_PAIRS)
    # Without a Teacher two pairs stand in a row, so that no pair is torn apart.
    kind = "panels twos" if run.marginal and per_pair == 2 else "panels"
    return markup(tag("p", text), grid(pictures, kind))


def _pairs_left_out(run: RunData) -> str:
    """How many pairs of coordinates have no picture; empty if all have one."""
    dim, shown = scalar(run.summary, "dim"), min(len(run.pairs), MAX_PAIRS)
    pairs = max(len(run.pairs), int(dim * (dim - 1) / 2) if dim else 0)
    return (
        f"Shown are {shown} of the {number(pairs)} pairs of coordinates. " if shown < pairs else ""
    )


def _one_dimensional(run: RunData) -> bool:
    return run.target is not None and run.target.ndim == 2


def _moment(run: RunData) -> str:
    return f"first seed, step {run.snapshots[-1].step:,}"


def _errors(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    text = f"For the {_moment(run)}. Blue is too little, orange too much, white is right. "
    if run.marginal:
        held = mean(values(run.final, "modes_held"))
        counted = "" if held is None else ": the table above counts the modes one by one"
        text += (
            "These are marginals, so they show errors of whole groups of cells; a single missed "
            + f"mode can hide in them{counted}. {_pairs_left_out(run)}"
        )
    else:
        text += (
            "Weighed by probability, only errors that matter for samples have colour; relative "
            + "errors show every cell alike, those that hardly ever occur included."
        )
        modes = verdict.num_modes(run)
        cells = 0 if run.modes is None else int(run.modes.sum())
        if modes and cells == modes:
            text += " Modes that the Student does not hold are outlined in black."
        elif modes and cells:
            text += (
                f" The {number(modes)} modes have {number(cells)} cells; those that the Student "
                + "gives less than half of their probability are outlined in black."
            )
    if run.void is not None:
        text += " Hatched cells are no objects."
    return markup(tag("p", text), grid(pictures, "panels"))


def _stepper(run: RunData, frames: Sequence[Frame]) -> Html:
    text = "Choose a moment, in gradient steps; the arrow keys work too. "
    if not _one_dimensional(run):
        text += "Colours of target, Student and errors are as above. "
        if any(frame.teacher is not None for frame in run.snapshots):
            text += "The Teacher’s have one scale for all moments here, and another one above. "
        if run.void is not None:
            text += "Grey cells are no objects. "
    text += "First seed; the numbers are means over the seeds."
    if run.marginal:
        first, second = run.pairs[0]
        text += (
            f" Shown are coordinates {first} and {second} only, the others added up; the numbers "
            + "are of the whole space."
        )
    return stepper(text, frames)


def _modes(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    if not verdict.num_modes(run):
        text = "Shares of the target’s probability. Thin lines are seeds, thick lines their mean."
        return markup(tag("p", text), grid(pictures, "charts"))
    text = (
        "Modes visited at least once (found) can only grow. Modes held are what the Student "
        + "could sample at that moment: where this curve stays below, or falls, training has "
        + "seen what the Student has not kept. Thin lines are seeds, thick lines their mean."
    )
    return markup(tag("p", text), grid(pictures, "charts"))


def _seeds(run: RunData) -> str:
    seeds = run.config.get("seeds")
    listed = cast(list[object], seeds) if isinstance(seeds, list) else []
    return ", ".join(str(s) for s in listed)


def _steps(run: RunData) -> str | None:
    """How far the training has gone, and how far it was to go."""
    plan = scalar(run.summary, "steps")
    if run.step is None:
        return None if plan is None else f"{number(plan)} planned"
    return f"{number(run.step)} of {number(plan)}" if run.finished is False else number(run.step)


def _reward_calls(run: RunData) -> str | None:
    for record in _newest_first(run):
        known = mean(values(record, "reward_calls"))
        if known is not None:
            return number(known)
    return None


def _training_time(run: RunData) -> str | None:
    for record in _newest_first(run):
        if record is run.final:
            seconds = scalar(record, "training_seconds")
        else:  # a row holds the time of its own chunk
            chunks = [scalar(section(row, "time"), "seconds") for row in run.train]
            seconds = sum(chunk for chunk in chunks if chunk is not None)
        if seconds:
            return duration(seconds)
    return None


def _newest_first(run: RunData) -> list[Record]:
    """The final evaluation and the last row of the training; an evaluation may lag behind."""
    records = [run.final, *run.train[-1:]]
    return sorted(records, key=lambda r: scalar(r, "step") or 0.0, reverse=True)


def _footer(run: RunData) -> str:
    created = run.config.get("created")
    when = f", run started {shortened(str(created))}" if created else ""
    return (
        f"didact {shortened(str(run.config.get('didact_version', '')))}{when}. This page is one "
        + "file: it loads nothing and runs no script. Its figures are also in figures/."
    )
