"""The chapters of the page of a run on a density over vectors."""

from collections.abc import Iterable, Sequence

import numpy as np

from . import _vectors_verdict as verdict
from ._html import Html, markup, tag
from ._numbers import MISSING, mean, mean_and_error, number, one, percent
from ._parts import (
    NO_MODES,
    about_teacher,
    explanation,
    grid,
    metric_row,
    metric_table,
    samplers,
    stepper,
    training,
)
from ._pictures import Frame, Gallery, Picture
from ._read import RunData, scalar, values
from ._vectors_figures import ENCLOSED
from ._verdict import num_modes

_FEW = 50
"""Effective draws below which weighted draws make no picture."""


def chapters(
    run: RunData, pictures: Gallery, frames: Sequence[Frame]
) -> Iterable[tuple[str, str, Html]]:
    """Key, heading and body of each."""
    yield "what", "What was trained", _explanation(run)
    yield "densities", samplers(run), _densities(run, pictures)
    yield "verdict", "The verdict in numbers", _metrics(run)
    yield "weights", "Bounds on log Z, and weights", _bounds(run, pictures.bounds)
    yield "course", "How they changed in training", _course(run, frames)
    yield "modes", "Finding and holding", _modes(run, pictures.modes)
    yield "training", "Training curves", training(run, pictures.training)


def _explanation(run: RunData) -> Html:
    lead = (
        "This run trained a sampler: a program that draws points at random, each region as "
        + "often as a given density says. The density can be evaluated at any point, but that "
        + "does not say where it is high: a sampler has to find that out."
    )
    terms = [
        ("Target", _about_target(run)),
        ("Mode", _about_modes(run)),
        ("Student", _about_student(run)),
        ("Teacher", about_teacher(run)),
        (
            "Log Z, ELBO, EUBO",
            "Z is the integral of the density that is given, and turns it into probabilities. "
            + "Paths of the Student bound log Z from below (ELBO), paths drawn backwards from "
            + "exact samples bound it from above (EUBO). For a perfect sampler both are log Z.",
        ),
        (
            "Weight of a path",
            "How often the path should be drawn, divided by how often the Student draws it. "
            + "Weighted draws give right averages even if the Student is not quite right, as long "
            + "as it misses nothing.",
        ),
    ]
    return explanation(run, lead, terms)


def _about_target(run: RunData) -> str:
    dim, log_z = scalar(run.summary, "dim"), scalar(run.summary, "log_z")
    text = "The density to be sampled"
    text += f", over vectors of {number(dim)} numbers. " if dim is not None else ". "
    if log_z is not None:
        text += f"Its integral is known: log Z = {number(log_z, digits=5)}. "
    else:
        text += "Its integral Z is not known. "
    if run.diagnostics is not None and run.diagnostics.target_x.size:
        text += "It can also be sampled exactly, which the training need not use and the test does."
    return text


def _about_modes(run: RunData) -> str:
    modes = num_modes(run)
    if not modes:
        return NO_MODES
    return (
        "A separate region in which the target has much of its probability. There are "
        + f"{number(modes)}: a sampler that has learned some gets no hint of the others."
    )


def _about_student(run: RunData) -> str:
    steps, sigma = scalar(run.summary, "num_steps"), scalar(run.summary, "sigma")
    text = (
        "The sampler that is wanted in the end. It starts at the origin and walks by random steps, "
        + "each pushed by a neural network; where the walk ends is the draw."
    )
    if steps is not None:
        text += f" Here a walk has {number(steps)} steps"
        text += (
            f" and, without the network, would spread to a scale of {number(sigma)}."
            if (sigma is not None)
            else "."
        )
    return text


def _densities(run: RunData, pictures: Gallery) -> Html:
    shown, single = pictures.densities, pictures.marginals
    if not shown and not single:
        return Html()
    parts: list[Html] = []
    if shown and run.pictured is not None:
        kind = "charts" if run.pictured.panels.ndim == 2 else "panels"
        if run.marginal and len(shown) == 2 * len(run.pairs):
            kind = "panels twos"  # two pairs stand in a row, so that none is torn apart
        parts = [tag("p", _about_densities(run)), grid(shown, kind)]
    if single:
        weighted = run.diagnostics is None or not run.diagnostics.target_x.size
        grey = "draws of the Student, weighted" if weighted else "exact samples of the target"
        text = f"Coordinates one by one: the blue line is the Student, the grey area {grey}."
        few = run.diagnostics is not None and len(run.diagnostics.coordinates) <= 2
        parts += [tag("p", text), grid(single, "film-1" if few else "single")]
    return markup(*parts)


def _about_densities(run: RunData) -> str:
    assert run.pictured is not None
    step = f"first seed, step {run.snapshots[-1].step:,}" if run.snapshots else "first seed"
    text = ""
    if run.marginal:
        dim, pairs = scalar(run.summary, "dim"), len(run.pairs)
        of = "" if dim is None else f" of the {number(dim * (dim - 1) / 2)}"
        text = (
            f"The space has too many dimensions to draw. Shown are {pairs}{of} pairs of "
            + "coordinates, the others summed over: those whose joint law is least like a "
            + "Gaussian, since there is most to get wrong. "
        )
    *shares, last = (percent(share).replace(" ", "\u00a0") for share in ENCLOSED)
    text += (
        f"The Student’s draws ({step}) are points; the lines enclose {', '.join(shares)} and "
        + f"{last} of the target’s probability. Points should fill the lines, "
        + "everywhere, and hardly leave them."
    )
    if run.pictured.source == "samples":
        text += " The target’s own picture is a smoothed histogram of exact samples."
    if run.pictured.source == "weighted draws":
        text += (
            " This target cannot be sampled exactly: its picture is made of weighted draws of the "
            + "Student, and lacks what the Student never draws."
        )
        share, draws = mean(values(run.final, "ess")), scalar(run.final, "num_scored")
        if share is not None and draws is not None and share * draws < _FEW:
            text += " As few draws carry nearly all the weight, it shows next to nothing."
    if run.has_teacher:
        text += (
            " The Teacher, in other colours, is bright where it believes the Student to be wrong; "
            + "it is not meant to look like the target."
        )
    return text


def _metrics(run: RunData) -> Html:
    rows = verdict.table(run.final)
    if not rows:
        return tag("p", "There is no evaluation in this folder.")
    several = run.num_seeds > 1
    head = ("Metric", "Perfect sampler", "Student", *(["Per seed"] * several), "Meaning")
    spread = (
        f"Mean ± standard error over {run.num_seeds} seeds. "
        if several
        else "One seed: nothing here says how much another seed would differ. "
    )
    draws = scalar(run.final, "num_draws")
    many = "draws" if draws is None else f"{number(draws)} draws"
    text = (
        f"{spread}The numbers come from {many} of the Student and, where the target can be "
        + "sampled exactly, from as many exact samples; ranges in brackets hold the true value "
        + "in 90 % of cases."
    )
    table = metric_table(head, (_metric_row(m, run) for m in rows))
    return markup(tag("p", text), table, tag("p", verdict.rule(run), class_="small"))


def _metric_row(metric: verdict.Metric, run: RunData) -> Html:
    entries = values(run.final, metric.key)
    perfect = metric.perfect(run.final)
    if run.num_seeds > 1:
        own = mean_and_error(entries, signed=metric.signed)
        each = ", ".join(_write(metric, run, i) for i in range(entries.size))
        return metric_row(metric.name, perfect, own, each, metric.meaning)
    return metric_row(metric.name, perfect, _write(metric, run, 0), None, metric.meaning)


def _write(metric: verdict.Metric, run: RunData, seed: int) -> str:
    """The value of one seed, and its interval where there is one."""
    value = values(run.final, metric.key)[seed]
    if not np.isfinite(value):
        return MISSING
    text = one(float(value), signed=metric.signed)
    for low, high in (metric.interval,) if metric.interval else ():
        ends = [values(run.final, end) for end in (low, high)]
        if all(end.size > seed and np.isfinite(end[seed]) for end in ends):
            text += f" [{one(float(ends[0][seed]))}, {one(float(ends[1][seed]))}]"
    return text


def _bounds(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    upper = mean(values(run.final, "eubo"))
    between = verdict.gap(run)
    text = "Left: log Z lies " + ("above the ELBO" if upper is None else "between ELBO and EUBO")
    text += ", whatever the Student is like; bars are 90 % intervals. "
    if upper is not None and between is not None:
        text += f"Here the two are {one(between)} nats apart. "
    text += (
        "Right: the log weights of paths. A perfect sampler would have them all at log Z, on the "
        + "dashed line. A tail of blue to the left are draws that the target hardly wants. "
    )
    if upper is not None:
        text += (
            "A tail of orange to the right are samples of the target that the Student hardly "
            + "draws. "
        )
    text += "The outermost bars hold what lies further out: up to a hundredth of the paths."
    return markup(tag("p", text), grid(pictures, "charts"), tag("p", _trust(run)))


def _trust(run: RunData) -> str:
    """What tail and equality of the weights say, in plain words."""
    k, share = mean(values(run.final, "k_hat")), mean(values(run.final, "ess"))
    text = ""
    if k is not None:
        text = (
            "k̂ measures how slowly the blue weights end to the right. Here it is "
            + f"{number(k, digits=2)}, "
        )
        text += (
            f"below {verdict.GOOD_K_HAT:g}: averages over weighted draws can be trusted, as far as "
            + "the Student reaches. "
            if k < verdict.GOOD_K_HAT
            else f"not below {verdict.GOOD_K_HAT:g}: a few draws carry most of the weight, and "
            + "averages over weighted draws cannot be trusted. "
        )
    if share is not None:
        text += (
            f"The effective sample size is {percent(share)} of the draws: 1,000 weighted draws are "
            + f"worth {number(round(1000 * share))} exact ones. Both look at what was drawn: a "
            + "region that the Student never draws shows in the EUBO alone."
        )
    return text


def _course(run: RunData, frames: Sequence[Frame]) -> Html:
    text = (
        "Choose a moment, in gradient steps; the arrow keys work too. Student and Teacher are "
        + "histograms of some 4,000 draws each, slightly smoothed, so they are grainier than the "
        + "target. "
    )
    if run.pictured is not None and run.pictured.panels.ndim == 3:
        text += "Colours are on a logarithmic scale here"
        text += ", the Teacher’s on one of its own at each moment. " if run.has_teacher else ". "
    text += "First seed; the numbers are means over the seeds."
    if run.marginal:
        first, second = run.pairs[0]
        text += f" Shown are coordinates {first} and {second} only."
    return stepper(text, frames)


def _modes(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    text = "Modes visited at least once (found) can only grow: they say where training looked. "
    if verdict.all_reachable(run):
        text += (
            "Modes among draws are what the Student could sample at that moment: where this curve "
            + "stays below, or falls, training has seen what the Student has not kept."
        )
    return markup(tag("p", text), grid(pictures, "charts"))
