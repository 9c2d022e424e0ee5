"""The pictures of a run on a density over vectors, each with words for who cannot see it."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from . import _figures as figures
from . import _vectors_figures as drawn
from ._figures import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, Line, Scale
from ._numbers import count, mean, number, one
from ._pictures import Frame, Gallery, Picture, at_step, course, courses, in_pair, picture
from ._read import Diagnostics, Floats, RunData, Snapshot, TargetPicture, scalar, values
from ._vectors_verdict import all_reachable
from ._verdict import num_modes

_Row: TypeAlias = tuple[str, float, float, float, str, str]
_MANY_MODES = 20.0


def gallery(run: RunData) -> Gallery:
    """Draw everything the files of `run` allow."""
    densities: list[Picture] = []
    frames: list[Frame] = []
    if run.pictured is not None and run.pictured.extent is not None and run.snapshots:
        last = run.snapshots[-1]
        if run.pictured.panels.ndim == 2:
            densities.append(_lines(run.pictured, run.pictured.extent[0], last, "density"))
        else:
            densities.extend(_densities(run, run.pictured, run.pictured.extent, last))
        frames.extend(_frame(run, run.pictured, s) for s in run.snapshots)
    return Gallery(
        densities=tuple(densities),
        errors=(),
        frames=tuple(frames),
        modes=tuple(_modes(run)),
        training=tuple(_training(run)),
        bounds=tuple(_bounds(run)),
        marginals=tuple(_marginals(run)),
    )


def _densities(
    run: RunData, pictured: TargetPicture, extent: Floats, last: Snapshot
) -> Iterable[Picture]:
    """Target, draws of the Student and the Teacher, for each pair of coordinates."""
    for i, (pair, ends) in enumerate(zip(pictured.pairs, extent, strict=True)):
        of, stem = in_pair(run, pair), f"-{pair[0]}-{pair[1]}" if run.marginal else ""
        fine = pictured.panels[i] if pictured.density is None else pictured.density
        contours = drawn.smoothed(pictured.panels[i]) if pictured.density is None else fine
        exact = pictured.source == "density"
        alt = f"Heat map of the target’s probabilities{of}. {_peak(fine, ends)}"
        yield picture(
            f"density-target{stem}",
            drawn.heat(fine if exact else contours, ends, figures.DENSITY, pair),
            "Target" + of,
            alt,
        )
        yield _student(run, last.student[i], contours, ends, pair, f"density-student{stem}")
        if last.teacher is not None:
            panel = drawn.smoothed(last.teacher[i])
            alt = f"Heat map of the Teacher’s probabilities{of}. {_peak(panel, ends)}"
            heat = drawn.heat(panel, ends, figures.TEACHER, pair)
            yield picture(f"density-teacher{stem}", heat, "Teacher" + of, alt)


def _student(
    run: RunData,
    panel: Floats,
    contours: Floats,
    ends: Floats,
    pair: tuple[int, int],
    name: str,
) -> Picture:
    """Draws of the Student on contours of the target; a heat map where there are no draws."""
    of, points = in_pair(run, pair), _points(run.diagnostics, pair)
    if not points.size:
        panel = drawn.smoothed(panel)
        alt = f"Heat map of the Student’s probabilities{of}. {_peak(panel, ends)}"
        return picture(name, drawn.heat(panel, ends, figures.DENSITY, pair), "Student" + of, alt)
    inside = np.all((points >= ends[0::2]) & (points <= ends[1::2]), axis=1)
    alt = (
        f"{len(points):,} draws of the Student{of}, as points on contours of the target; "
        + f"{100 * float(inside.mean()):.0f} % lie within the picture."
    )
    return picture(name, drawn.draws(points, contours, ends, pair), "Student" + of, alt)


def _points(diagnostics: Diagnostics | None, pair: tuple[int, int]) -> Floats:
    if diagnostics is None:
        return np.zeros((0, 2))
    columns = [diagnostics.column(c, diagnostics.x) for c in pair]
    if not all(column.size for column in columns):
        return np.zeros((0, 2))
    points = np.stack(columns, axis=1)
    return points[np.isfinite(points).all(axis=1)]


def _frame(run: RunData, pictured: TargetPicture, snapshot: Snapshot) -> Frame:
    stem, said = f"frames/{snapshot.step:09d}", _facts(run, snapshot.step)
    if pictured.panels.ndim == 2:
        assert pictured.extent is not None
        line = _lines(pictured, pictured.extent[0], snapshot, f"{stem}-density")
        return Frame(snapshot.step, said, (line,))
    of = in_pair(run, pictured.pairs[0])
    target = pictured.panels[0]
    if pictured.source != "density":
        target = drawn.smoothed(target)
    scale = Scale.of([target], 2.0)
    parts = [("target", "Target", target, scale, figures.DENSITY)]
    student = drawn.smoothed(snapshot.student[0])
    parts.append(("student", "Student", student, scale, figures.DENSITY))
    if snapshot.teacher is not None:
        teacher = drawn.smoothed(snapshot.teacher[0])
        parts.append(("teacher", "Teacher", teacher, Scale.of([teacher], 2.0), figures.TEACHER))
    return Frame(
        snapshot.step,
        said,
        tuple(
            Picture(
                f"{stem}-{key}",
                figures.density_pixels(panel, scale, colors),
                title,
                f"{title}{of}, at step {snapshot.step:,}. {said}",
            )
            for key, title, panel, scale, colors in parts
        ),
    )


def _facts(run: RunData, step: int) -> str:
    """What the evaluation at `step` says, in words; empty if there was none."""
    evaluation = at_step(run.evaluations, step) or {}
    training = at_step(run.train, step) or {}
    calls = scalar(evaluation or training, "reward_calls")
    parts = [] if calls is None else [f"{number(calls)} reward calls"]
    modes = num_modes(run)
    for record, key, text in (
        (training, "modes_found", "modes found"),
        (evaluation if all_reachable(run) else {}, "modes_reached", "drawn"),
    ):
        amount = mean(values(record, key))
        if amount is not None:
            parts.append(f"{count(amount)}{f' of {number(modes)}' if modes else ''} {text}")
    for key, name in (("elbo", "ELBO"), ("eubo", "EUBO")):
        amount = mean(values(evaluation, key))
        if amount is not None:
            parts.append(f"{name} {one(amount)}")
    return ", ".join(parts)


def _lines(pictured: TargetPicture, ends: Floats, snapshot: Snapshot, name: str) -> Picture:
    panels = [("Target", pictured.panels[0]), ("Student", snapshot.student[0])]
    if snapshot.teacher is not None:
        panels.append(("Teacher", snapshot.teacher[0]))
    scale = Scale.of([pictured.panels[0]], 3.0)
    figure = figures.density_lines(panels, scale, (float(ends[0]), float(ends[1])))
    title = " and ".join(label for label, _ in panels)
    alt = f"Probabilities over coordinate 0 at step {snapshot.step:,}: {title}."
    return picture(name, figure, title, alt)


def _marginals(run: RunData) -> Iterable[Picture]:
    kept = run.diagnostics
    if kept is None or not kept.x.size:
        return
    weighted = not kept.target_x.size
    weight = None
    if weighted:
        log_weight = np.nan_to_num(kept.log_weight[: len(kept.x)], nan=-np.inf)
        top = log_weight.max(initial=-np.inf)
        if log_weight.size != len(kept.x) or not np.isfinite(top):
            return
        weight = np.exp(log_weight - top)
    shown = list(dict.fromkeys(c for pair in run.pairs for c in pair if c in kept.coordinates))
    panels = []
    for coordinate in (shown or list(kept.coordinates))[: drawn.MAX_MARGINALS]:
        student = kept.column(coordinate, kept.x)
        target = student if weighted else kept.column(coordinate, kept.target_x)
        if np.isfinite(student).all() and np.isfinite(target).all() and target.size:
            panels.append((coordinate, student, target, weight))
    if panels:
        names = ", ".join(str(coordinate) for coordinate, *_ in panels)
        alt = (
            f"Histograms of single coordinates ({names}): draws of the Student as a blue line, "
            + ("weighted draws" if weighted else "exact samples of the target")
            + " as a grey area."
        )
        figure = drawn.marginals(panels, weighted=weighted)
        yield picture("marginals", figure, "Coordinates one by one", alt)


def _bounds(run: RunData) -> Iterable[Picture]:
    final = run.final
    true = scalar(final, "log_z_true")
    rows: list[_Row] = []
    for name, key, ends, color, marker in (
        ("EUBO", "eubo", ("eubo_low", "eubo_high"), ORANGE, "v"),
        ("weighted draws", "log_z_estimate", ("log_z_low", "log_z_high"), GREEN, "s"),
        ("learned log Z", "log_z", None, PURPLE, "D"),
        ("ELBO", "elbo", ("elbo_low", "elbo_high"), BLUE, "^"),
    ):
        value = mean(values(final, key))
        if value is not None:
            low, high = (scalar(final, end) for end in ends) if ends else (None, None)
            low, high = value if low is None else low, value if high is None else high
            rows.append((name, value, low, high, color, marker))
    if rows:
        said = "; ".join(f"{row[0]} {one(row[1])}" for row in rows)
        known = "" if true is None else f" True log Z: {one(true)}."
        alt = f"Estimates of log Z from top to bottom: {said}.{known}"
        yield picture("bounds", drawn.bounds(rows, true), "Bounds on log Z", alt)
    yield from _weights(run, true)


def _weights(run: RunData, true: float | None) -> Iterable[Picture]:
    kept = run.diagnostics
    if kept is None or not np.isfinite(kept.log_weight).any():
        return
    center = mean(values(run.final, "log_z_estimate")) if true is None else true
    if center is None:
        return
    near = float(np.mean(np.abs(kept.log_weight - center) <= 1))
    alt = f"Histogram of log weights; {100 * near:.0f} % lie within 1 nat of log Z."
    figure = drawn.weights(kept.log_weight, kept.backward_log_weight, center)
    yield picture("weights", figure, f"Log weights of {kept.log_weight.size:,} paths", alt)


def _modes(run: RunData) -> Iterable[Picture]:
    modes = num_modes(run)
    draws = scalar(run.evaluations[-1], "num_draws") if run.evaluations else None
    among = "among draws" if draws is None else f"among {number(draws)} draws"
    # A few draws cannot show many modes, whatever the Student is like.
    counted = run.evaluations if all_reachable(run) else ()
    shown = courses(
        (run.train, "modes_found", "found, by any path", ORANGE, "-", ""),
        (run.train, "modes_found_student", "found by Student", SKY, "--", ""),
        (counted, "modes_reached", among, BLUE, "-", "o"),
    )
    if not shown:
        return
    top = max(float(np.nanmax(line.y)) for line in shown)
    reference = None
    if modes and modes <= _MANY_MODES * max(top, 1.0):
        top, reference = max(top, modes), (modes, "all modes")
    bounds = (0.0, 1.06 * top or 1.0)
    figure = figures.curves(shown, "modes", bounds=bounds, reference=reference, whole=True)
    yield picture(
        "modes", figure, "Modes found" + (", and modes drawn" if counted else ""), course(shown)
    )


def _training(run: RunData) -> Iterable[Picture]:
    shown = courses(
        (run.train, "loss", "Student", BLUE, "-", ""),
        (run.train, "teacher_loss", "Teacher", VERMILION, "--", ""),
    )
    shown = [line for line in shown if (line.y > 0).any()]
    if shown:
        figure = figures.curves(shown, "loss (log scale)", log=True, smooth=True)
        yield picture("loss", figure, "Loss", course(shown))
    true = scalar(run.summary, "log_z")
    shown = courses((run.train, "log_z", "learned log Z", BLUE, "-", ""))
    if shown:
        reference = None if true is None else (true, f"true value {true:.3f}")
        figure = figures.curves(shown, "log Z", reference=reference)
        yield picture("log-z", figure, "Learned log Z", course(shown))
    yield from _closing(run, true)


def _closing(run: RunData, true: float | None) -> Iterable[Picture]:
    """How the bounds close in on log Z, or on each other where it is not known."""
    lower, upper = (
        courses(
            (run.evaluations, "elbo", "ELBO", BLUE, "-", "^"),
        ),
        courses((run.evaluations, "eubo", "EUBO", ORANGE, "--", "v")),
    )
    shown: list[Line] = []
    if true is not None:
        shown += [Line("log Z − ELBO", s.x, true - s.y, s.color, s.dash, s.marker) for s in lower]
        shown += [Line("EUBO − log Z", s.x, s.y - true, s.color, s.dash, s.marker) for s in upper]
    elif lower and upper and lower[0].y.shape == upper[0].y.shape:
        both = upper[0].y - lower[0].y
        shown.append(Line("EUBO − ELBO", lower[0].x, both, BLUE, "-", "o"))
    shown = [line for line in shown if (line.y > 0).any()]
    if shown:
        figure = figures.curves(shown, "nats (log scale)", log=True)
        yield picture("gaps", figure, "Bounds closing in on log Z", course(shown))
    elif lower:
        figure = figures.curves(lower, "nats")
        yield picture("gaps", figure, "ELBO, at most log Z", course(lower))


def _peak(panel: Floats, ends: Floats) -> str:
    place = np.unravel_index(int(np.argmax(panel)), panel.shape)
    at = [
        low + (high - low) * (int(i) + 0.5) / n
        for i, n, low, high in zip(place, panel.shape, ends[0::2], ends[1::2], strict=True)
    ]
    return f"The largest is near ({', '.join(number(v) for v in at)})."
