"""The pictures a run gets, each with the words for readers who cannot see it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Colormap

from . import _figures as figures
from ._figures import Scale
from ._numbers import count, mean, number
from ._pictures import Frame, Gallery, Picture, at_step, course, courses, in_pair, picture
from ._read import Bools, Floats, RunData, Snapshot, scalar, values
from ._verdict import num_modes

MAX_PAIRS = 6
_TARGET_DECADES, _TEACHER_DECADES = 7.0, 4.0


def gallery(run: RunData) -> Gallery:
    """Draw everything the files of `run` allow."""
    densities: list[Picture] = []
    errors: list[Picture] = []
    frames: list[Frame] = []
    if run.target is not None and run.snapshots:
        scales = _Scales.of(run, run.target)
        last = run.snapshots[-1]
        if run.target.ndim == 2:
            densities.append(_density_lines(last, run.target, scales, "density"))
        else:
            densities.extend(_densities(run, last, run.target, scales.at(last)))
            errors.extend(_errors(run, last, run.target))
        frames.extend(_frame(run, s, run.target, scales) for s in run.snapshots)
    return Gallery(
        tuple(densities),
        tuple(errors),
        tuple(frames),
        tuple(mode_curves(run)),
        tuple(training_curves(run)),
    )


@dataclass(frozen=True)
class _Scales:
    """One colour scale for target and Student, one for the Teacher, fixed over the run."""

    target: Scale
    teacher: Scale

    @staticmethod
    def of(run: RunData, target: Floats) -> "_Scales":
        # An untrained Teacher stops at once: its peak would leave no colours for the rest.
        teachers = [s.teacher for s in run.snapshots if s.teacher is not None and s.step > 0]
        return _Scales(
            Scale.of([target], _TARGET_DECADES), Scale.of(teachers or [target], _TEACHER_DECADES)
        )

    def at(self, snapshot: Snapshot) -> "_Scales":
        """The Teacher's scale for one moment: it is not compared with another."""
        if snapshot.teacher is None:
            return self
        return _Scales(self.target, Scale.of([snapshot.teacher], _TEACHER_DECADES))


def _densities(run: RunData, last: Snapshot, target: Floats, scales: _Scales) -> Iterable[Picture]:
    for i, pair in enumerate(run.pairs[:MAX_PAIRS]):
        where = in_pair(run, pair)
        stem = f"-{pair[0]}-{pair[1]}" if run.marginal else ""
        panels = [("target", target[i]), ("student", last.student[i])]
        if last.teacher is not None:
            panels.append(("teacher", last.teacher[i]))
        for who, panel in panels:
            is_teacher = who == "teacher"
            scale = scales.teacher if is_teacher else scales.target
            colors = figures.TEACHER if is_teacher else figures.DENSITY
            alt = f"Heat map of the {who.capitalize()}’s probabilities{where}. " + _peak(panel)
            drawn = figures.density(panel, scale, colors, pair, _cells(run, i))
            yield picture(f"density-{who}{stem}", drawn, who.capitalize() + where, alt)


def _errors(run: RunData, last: Snapshot, target: Floats) -> Iterable[Picture]:
    missed = _missed(run, last)
    for i, pair in enumerate(run.pairs[:MAX_PAIRS]):
        where = in_pair(run, pair)
        stem = f"-{pair[0]}-{pair[1]}" if run.marginal else ""
        student, wanted = last.student[i], target[i]
        if not run.marginal:
            drawn = figures.difference(student, wanted, pair, _cells(run, i))
            moved = 0.5 * float(np.abs(student - wanted).sum())
            alt = f"Heat map of Student minus target; total variation of this seed {moved:.3f}."
            yield picture("error-difference", drawn, "Weighed by probability", alt)
        drawn = figures.ratio(student, wanted, pair, missed, _cells(run, i))
        title = "Relative" + where
        yield picture(f"error-ratio{stem}", drawn, title, _ratio_alt(student, wanted, where))
    if run.modes is not None and missed is not None and run.modes.any():
        lost, of_all = int(missed.sum()), int(run.modes.sum())
        drawn = figures.mode_map(run.modes, run.modes & ~missed, run.pairs[0], _cells(run, 0))
        result = f"{of_all - lost:,} held, {lost:,} missed"
        # A mode may have several cells, of which some are held and some missed.
        what = "modes" if num_modes(run) in (None, of_all) else "cells in modes"
        alt = f"Map of the {of_all:,} {what} of the first seed: {result}."
        yield picture("modes-held", drawn, f"{what.capitalize()}: {result}", alt)


def _cells(run: RunData, panel: int) -> Bools | None:
    """The cells of a panel in which no object lies."""
    void = run.void
    return None if void is None else void[panel]


def _missed(run: RunData, last: Snapshot) -> Bools | None:
    """Cells of modes with less than half of their probability under the first seed's Student."""
    if run.modes is None or run.target is None or not run.modes.any():
        return None
    return run.modes & (last.student[0] < 0.5 * run.target[0])


def _frame(run: RunData, snapshot: Snapshot, target: Floats, scales: _Scales) -> Frame:
    stem, where = f"frames/{snapshot.step:09d}", in_pair(run, run.pairs[0])
    said = facts(run, snapshot.step)
    if target.ndim == 2:
        return Frame(
            snapshot.step, said, (_density_lines(snapshot, target, scales, f"{stem}-density"),)
        )
    student, void = snapshot.student[0], _cells(run, 0)

    def drawn_in(panel: Floats, scale: Scale, colors: Colormap) -> bytes:
        return figures.density_pixels(panel, scale, colors, void)

    parts = [
        ("target", "Target", drawn_in(target[0], scales.target, figures.DENSITY)),
        ("student", "Student", drawn_in(student, scales.target, figures.DENSITY)),
        ("ratio", "Student ÷ target", figures.ratio_pixels(student, target[0])),
    ]
    if snapshot.teacher is not None:
        drawn = drawn_in(snapshot.teacher[0], scales.teacher, figures.TEACHER)
        parts.append(("teacher", "Teacher", drawn))
    return Frame(
        snapshot.step,
        said,
        tuple(
            Picture(
                f"{stem}-{key}", data, title, f"{title}{where}, at step {snapshot.step:,}. {said}"
            )
            for key, title, data in parts
        ),
    )


def facts(run: RunData, step: int) -> str:
    """What the evaluation at `step` says, in words; empty if there was none."""
    evaluation = at_step(run.evaluations, step) or {}
    training = at_step(run.train, step) or {}
    calls = scalar(evaluation or training, "reward_calls")
    modes = num_modes(run)
    of_all = f" of {number(modes)}" if modes else ""
    parts: list[str] = []
    if calls is not None:
        parts.append(f"{number(calls)} reward calls")
    for record, key, text in (
        (training, "modes_found", "modes found"),
        (evaluation, "modes_held", "modes held"),
    ):
        amount = mean(values(record, key))
        if amount is not None:
            parts.append(f"{count(amount)}{of_all} {text}")
    distance = mean(values(evaluation, "tv"))
    if distance is not None:
        parts.append(f"total variation {number(distance, digits=2)}")
    return ", ".join(parts)


def mode_curves(run: RunData) -> Iterable[Picture]:
    """Modes found and held in the course of the training, and how good the whole law is."""
    modes = num_modes(run)
    lines = courses(
        (run.train, "modes_found", "found, by any path", figures.ORANGE, "-", ""),
        (run.train, "modes_found_student", "found by Student", figures.SKY, "--", ""),
        (run.evaluations, "modes_held", "held by Student", figures.BLUE, "-", "o"),
    )
    if lines:
        top = max(modes or 0.0, *(float(np.nanmax(line.y)) for line in lines))
        drawn = figures.curves(
            lines,
            "modes",
            bounds=(0.0, 1.06 * top or 1.0),
            reference=(modes, "all modes") if modes else None,
            whole=True,
        )
        held = any(line.label.startswith("held") for line in lines)
        title = "Modes found and modes held" if held else "Modes found"
        yield picture("modes", drawn, title, course(lines))
    lines = courses(
        (run.evaluations, "mode_mass_recall", "mode-mass recall", figures.BLUE, "-", "o"),
        (run.evaluations, "tv", "total variation", figures.VERMILION, "--", "s"),
        (run.evaluations, "missed_mass", "given less than half", figures.GREEN, ":", "D"),
    )
    if lines:
        drawn = figures.curves(lines, "share of probability", bounds=(0.0, 1.04))
        recall = any(line.label == "mode-mass recall" for line in lines)
        title = "Exact quality (recall → 1, the others → 0)" if recall else "Exact quality (→ 0)"
        yield picture("quality", drawn, title, course(lines))


def training_curves(run: RunData) -> Iterable[Picture]:
    """Losses and the learned log Z."""
    lines = courses(
        (run.train, "loss", "Student", figures.BLUE, "-", ""),
        (run.train, "teacher_loss", "Teacher", figures.VERMILION, "--", ""),
    )
    lines = [line for line in lines if (line.y > 0).any()]
    if lines:
        drawn = figures.curves(lines, "loss (log scale)", log=True, smooth=True)
        yield picture("loss", drawn, "Loss", course(lines))
    lines = courses((run.train, "log_z", "learned log Z", figures.BLUE, "-", ""))
    if lines:
        true = scalar(run.final, "log_z_true")
        true = scalar(run.summary, "log_z") if true is None else true
        reference = None if true is None else (true, f"true value {true:.3f}")
        drawn = figures.curves(lines, "log Z", reference=reference)
        yield picture("log-z", drawn, "Learned log Z", course(lines))


def _density_lines(snapshot: Snapshot, target: Floats, scales: _Scales, name: str) -> Picture:
    panels = [("Target", target[0]), ("Student", snapshot.student[0])]
    if snapshot.teacher is not None:
        panels.append(("Teacher", snapshot.teacher[0]))
    title = " and ".join(label for label, _ in panels)
    alt = f"Probabilities over coordinate 0 at step {snapshot.step:,}: {title}."
    return picture(name, figures.density_lines(panels, scales.target), title, alt)


def _peak(panel: Floats) -> str:
    place = [int(i) for i in np.unravel_index(int(np.argmax(panel)), panel.shape)]
    return f"The largest is {number(float(panel.max()))}, at {tuple(place)}."


def _ratio_alt(student: Floats, target: Floats, where: str) -> str:
    ratio = figures.log_ratio(student, target)
    mass = float(target[np.abs(ratio) <= 1].sum())
    return (
        f"Heat map of Student divided by target{where}. "
        + f"Cells with {100 * mass:.0f} % of the probability are right within a factor of 2."
    )
