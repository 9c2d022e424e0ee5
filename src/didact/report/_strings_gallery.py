"""The pictures of a run over strings, each with words for who cannot see it."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from . import _figures as figures
from . import _strings_figures as drawn
from ._figures import BLUE, GREEN, ORANGE, SKY
from ._gallery import facts, mode_curves, training_curves
from ._numbers import mean, number, one, percent
from ._pictures import Frame, Gallery, Picture, at_step, course, courses, picture
from ._read import Floats, RunData, Snapshot, scalar, values
from ._strings_verdict import by_samples
from ._verdict import num_modes

NUM_SHOWN = 12
_SMILES = re.compile(r"[A-Za-z0-9@+\-\[\]()=#$:/\\.%*]{1,400}")
_LETTER = re.compile(r"[!-~]{1,6}")
_SVG_BYTES, _MAX_BLOCKS = 200_000, 64


def gallery(run: RunData) -> Gallery:
    """Draw everything the files of `run` allow."""
    profiles: list[Picture] = []
    frames: list[Frame] = []
    if run.snapshots:
        highest = _highest(run)
        profiles.extend(_profiles(run, run.snapshots[-1], highest, "profile"))
        frames.extend(_frame(run, snapshot, highest) for snapshot in run.snapshots)
    return Gallery(
        densities=tuple(profiles),
        errors=(),
        frames=tuple(frames),
        modes=tuple(_modes(run)),
        training=tuple(training_curves(run)),
        values=tuple(_values(run)),
        molecules=dict(_molecules(run)),
    )


def best(run: RunData) -> tuple[int, ...]:
    """Numbers of the best strings that are shown."""
    return () if run.found is None else tuple(range(min(NUM_SHOWN, len(run.found.best))))


def diverse(run: RunData) -> tuple[int, ...]:
    """Numbers of the diverse strings that are shown, the best first."""
    return () if run.found is None else tuple(sorted(run.found.diverse[:NUM_SHOWN]))


def _highest(run: RunData) -> float:
    """Where the colours of all profiles end: at the largest probability, rounded up."""
    # An untrained sampler may put all on one symbol: its peak would leave no colours for the rest.
    settled = [run.snapshots[-1].student, *([] if run.target is None else [run.target])]
    top = max(float(panel.max()) for panel in settled)
    # Of letters that are all as probable the colour is one of the middle.
    top = max(top, 2 / settled[0].shape[1])
    return float(np.clip(np.ceil(top * 20) / 20, 0.05, 1.0))


def _profiles(run: RunData, snapshot: Snapshot, highest: float, stem: str) -> Iterable[Picture]:
    """Target, Student, their difference and the Teacher, as far as they are known."""
    letters = _letters(run, snapshot.student.shape[1])
    step = f", at step {snapshot.step:,}"
    target = None if run.target is None else run.target[0]
    panels = [("target", target), ("student", snapshot.student[0])]
    if snapshot.teacher is not None:
        panels.append(("teacher", snapshot.teacher[0]))
    for who, panel in panels:
        if panel is not None:
            figure = drawn.profile(panel, letters, highest)
            alt = f"Profile of the {who.capitalize()}{step}. {_peaks(panel, letters)}"
            yield picture(f"{stem}-{who}", figure, who.capitalize(), alt)
        if who == "student" and target is not None:
            student = snapshot.student[0]
            figure = drawn.difference(student, target, letters)
            apart = float(np.abs(student - target).sum(axis=0).max()) / 2
            alt = (
                f"Profile of the Student minus that of the target{step}. In its worst place "
                + f"{percent(apart)} of the probability is on other symbols."
            )
            yield picture(f"{stem}-difference", figure, "Student − target", alt)


def _letters(run: RunData, count: int) -> Sequence[str]:
    """What stands at the rows of a profile: numbers where the letters cannot be written."""
    known = run.alphabet
    if len(known) == count and all(_LETTER.fullmatch(letter) for letter in known):
        return known
    return [str(i) for i in range(count)]


def _peaks(panel: Floats, letters: Sequence[str]) -> str:
    """The most probable symbol of each place, of the first twenty."""
    best = panel.argmax(axis=0)[:20]
    said = [f"{letters[i]} {100 * panel[i, place]:.0f} %" for place, i in enumerate(best)]
    return "Most probable, place by place: " + ", ".join(said) + "."


def _frame(run: RunData, snapshot: Snapshot, highest: float) -> Frame:
    stem = f"frames/{snapshot.step:09d}"
    pictures = tuple(_profiles(run, snapshot, highest, stem))
    return Frame(snapshot.step, _facts(run, snapshot.step), pictures)


def _facts(run: RunData, step: int) -> str:
    """What the evaluation at `step` says, in words; empty if there was none."""
    evaluation = at_step(run.evaluations, step) or {}
    parts = [facts(run, step)]
    keys = [("mean_value", "mean value")]
    if mean(values(evaluation, "tv")) is None:
        keys.append(("elbo", "ELBO"))
    for key, name in keys:
        amount = mean(values(evaluation, key))
        if amount is not None:
            parts.append(f"{name} {one(amount)}")
    return ", ".join(part for part in parts if part)


def _modes(run: RunData) -> Iterable[Picture]:
    curves = {curve.name: curve for curve in mode_curves(run)}
    if num_modes(run) and "modes" in curves:
        yield curves.pop("modes")
        yield from _cost(run)
    yield from (curve for name, curve in curves.items() if name != "modes")
    yield from _bound(run)
    shown = courses((run.evaluations, "spearman", "rank correlation", BLUE, "-", "o"))
    if shown:
        figure = figures.curves(shown, "rank correlation", reference=(1.0, "perfect"))
        title = "Probability and reward: rank correlation (→ 1)"
        yield picture("spearman", figure, title, course(shown))


def _bound(run: RunData) -> Iterable[Picture]:
    """The ELBO, where nothing is known more exactly."""
    shown = courses((run.evaluations, "elbo", "ELBO", BLUE, "-", "^"))
    if shown and by_samples(run):
        true = scalar(run.final, "log_z_true")
        reference = None if true is None else (true, f"log Z, {number(true, digits=5)}")
        figure = figures.curves(shown, "nats", reference=reference)
        yield picture("elbo", figure, "ELBO, at most log Z", course(shown))


def _cost(run: RunData) -> Iterable[Picture]:
    """Modes found against the number of different strings whose reward was asked for."""
    shown = courses(
        (run.train, "modes_found", "found, by any path", ORANGE, "-", ""),
        (run.train, "modes_found_student", "found by Student", SKY, "--", ""),
        by="distinct",
    )
    top = max((float(np.nanmax(line.y)) for line in shown), default=0.0)
    if top > 0:
        what, bounds = "different strings asked for", (0.0, 1.06 * top)
        figure = figures.curves(shown, "modes", bounds=bounds, whole=True, against=what)
        yield picture("modes-distinct", figure, "What finding them cost", course(shown, what))


def _values(run: RunData) -> Iterable[Picture]:
    shown = courses((run.evaluations, "mean_value", "of the Student’s draws", BLUE, "-", "o"))
    if shown:
        due = scalar(run.final, "expected_value")
        reference = None if due is None else (due, f"of exact samples, {number(due, digits=4)}")
        figure = figures.curves(shown, "mean value", reference=reference)
        yield picture("mean-value", figure, "Mean value of draws", course(shown))
    shown = courses((run.evaluations, "top_value", "best 100 of the draws", GREEN, "-", "s"))
    if shown:
        figure = figures.curves(shown, "mean value of the best")
        yield picture("top-value", figure, "Mean value of the best 100", course(shown))


def _molecules(run: RunData) -> Iterable[tuple[str, Picture]]:
    """The molecules of the best strings, and the blocks, by their SMILES: those that are drawn."""
    strings = () if run.found is None else run.found.best
    shown = sorted({*best(run), *diverse(run)}, reverse=True)
    wanted = {text: f"molecules/block-{i:03d}" for i, text in enumerate(run.blocks[:_MAX_BLOCKS])}
    # The first that has a molecule gives it its name.
    named = ((strings[i].smiles, f"molecules/{i + 1:03d}") for i in shown)
    wanted |= {smiles: name for smiles, name in named if smiles}
    if not wanted:
        return
    from .. import chem  # which imports JAX

    for smiles, name in wanted.items() if chem.available() else ():
        drawing = _drawing(smiles)
        if drawing is not None:
            yield smiles, Picture(name, drawing, "", f"Structure of {smiles}.", "svg")


def _drawing(smiles: str) -> bytes | None:
    """A molecule as SVG; None for a text of which RDKit makes none, which is then shown itself."""
    from .. import chem

    if not _SMILES.fullmatch(smiles):
        return None
    try:
        drawing = chem.draw([smiles]).encode("utf-8")
    except (ValueError, RuntimeError):
        return None
    return drawing if len(drawing) <= _SVG_BYTES else None
