"""The page of a fit: the verdict, the modes, the marginals and the weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from . import _vectors_figures as vectors
from ._html import Html, markup, tag
from ._numbers import duration, number, percent
from ._page import document
from ._parts import grid, metric_table
from ._pictures import Picture, picture
from ._read import Floats
from ._write import save

_MAX_PAIRS, _MAX_POINTS, _MAX_MODES = 6, 2_000, 30


@dataclasses.dataclass(frozen=True)
class FitData:
    """What the page shows of a fit.

    `draws` [n, numbers]: positions as rows of numbers, with `names`; `log_weights` [n]; `modes`:
    rows with `share`, `share_drawn`, `laplace_share`, `by_chains` and `numbers`, the position.
    """

    names: Sequence[str]
    draws: Floats
    log_weights: Floats
    log_z: float
    log_z_interval: tuple[float, float]
    log_z_by_seed: Sequence[float]
    elbo: float
    ess: float
    k_hat: float
    reliable: bool
    reason: str
    modes: Sequence[Mapping[str, object]]
    calls: int
    seconds: float


def write_fit(fit: FitData, path: Path) -> Path:
    """Write the self-contained page of a fit, which loads nothing and runs no script."""
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"a report is written as .html, not {path.suffix or path.name!r}.")
    title = f"A density of {number(len(fit.names))} numbers"
    chapters = [
        ("what", "What this is", _explanation()),
        ("numbers", "The answer in numbers", _numbers(fit)),
        ("modes", "Modes", _modes(fit)),
        ("draws", "Draws", _draws(fit)),
        ("weights", "Importance weights", _weights(fit)),
    ]
    header = markup(
        tag("p", "didact · report of a fit", class_="kicker"),
        tag("h1", title),
        tag(
            "div",
            tag("p", "Reliable" if fit.reliable else "Not reliable", class_="grade"),
            tag("p", fit.reason[0].upper() + fit.reason[1:], class_="headline"),
            class_=f"verdict {'good' if fit.reliable else 'bad'}",
        ),
    )
    footer = f"{number(fit.calls)} evaluations of the density in {duration(fit.seconds)}."
    save(path, document(title, header, [c for c in chapters if c[2]], footer).encode("utf-8"))
    return path


def _explanation() -> Html:
    return tag(
        "p",
        "Independent samplers were trained to draw points, each region as often as the density "
        + "says. No sampler is perfect, so every draw carries a weight: how often it should come, "
        + "divided by how often it does. Weighted draws give right averages as long as nothing is "
        + "missed. The verdict above says whether anything was seen to be wrong; it cannot rule "
        + "out a region that no draw and no Markov chain came near.",
        class_="lead",
    )


def _numbers(fit: FitData) -> Html:
    low, high = fit.log_z_interval
    seeds = ", ".join(f"{value:.3f}" for value in fit.log_z_by_seed)
    n = len(fit.log_weights)
    rows = [
        (
            "log Z",
            f"{fit.log_z:.4f}",
            f"The logarithm of the integral of the density; with 90 % confidence between {low:.4f} "
            + f"and {high:.4f}. Sampler by sampler: {seeds}.",
        ),
        ("ELBO", f"{fit.elbo:.4f}", "A lower bound of log Z, equal to it for a perfect sampler."),
        (
            "Effective draws",
            f"{number(round(fit.ess))} of {number(n)}",
            "As many perfect draws would give averages as precise.",
        ),
        (
            "Pareto k-hat",
            "–" if not np.isfinite(fit.k_hat) else f"{fit.k_hat:.2f}",
            "How heavy the tail of the weights is: above 0.7 a few draws decide the averages.",
        ),
    ]
    body = (
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", value, class_="own", data_label="Value"),
            tag("td", meaning, class_="meaning"),
        )
        for name, value, meaning in rows
    )
    return metric_table(("", "Value", "Meaning"), body)


def _modes(fit: FitData) -> Html:
    if not fit.modes:
        return Html()
    rows = []
    for i, row in enumerate(fit.modes[:_MAX_MODES]):
        at = ", ".join(f"{value:.3g}" for value in np.ravel(np.asarray(row["numbers"]))[:8])
        at += ", …" if len(fit.names) > 8 else ""
        laplace = float(np.asarray(row["laplace_share"]))
        rows.append(
            tag(
                "tr",
                tag("th", str(i + 1), scope="row"),
                tag("td", percent(float(np.asarray(row["share"]))), class_="own"),
                tag("td", percent(float(np.asarray(row["share_drawn"])))),
                tag("td", percent(laplace) if np.isfinite(laplace) else "–"),
                tag("td", at, class_="meaning"),
            )
        )
    more = len(fit.modes) - _MAX_MODES
    return markup(
        tag(
            "p",
            "Hills of the density, found by climbing from the draws and from the ends of Markov "
            + "chains. A hill whose share by its height and width is large while the draws have "
            + "little of it is one that the samplers miss.",
        ),
        metric_table(
            ("Mode", "Share by weights", "Share of draws", "By height and width", "Summit at"), rows
        ),
        tag("p", f"{number(more)} lesser ones are not shown.") if more > 0 else Html(),
    )


def _draws(fit: FitData) -> Html:
    weight = np.exp(fit.log_weights - fit.log_weights.max())
    weight = weight / weight.sum()
    columns = _chosen(fit.draws, weight)
    pictures: list[Picture] = []
    panels = [(i, fit.draws[:, i], fit.draws[:, i], weight) for i in columns]
    single = picture(
        "marginals",
        vectors.marginals(panels, weighted=True, sampler="draws"),
        "Single numbers: draws, and draws by weight",
        "Histograms of " + ", ".join(fit.names[i] for i in columns),
    )
    rng = np.random.default_rng(0)
    kept = fit.draws[rng.choice(len(weight), min(_MAX_POINTS, len(weight)), p=weight)]
    pairs = [(i, j) for a, i in enumerate(columns) for j in columns[a + 1 :]][:_MAX_PAIRS]
    for i, j in pairs:
        pictures.append(
            picture(
                f"pair-{i}-{j}",
                vectors.points(kept[:, [i, j]], (i, j)),
                f"{fit.names[i]} and {fit.names[j]}",
                f"Draws by weight: {fit.names[i]} against {fit.names[j]}",
            )
        )
    names = ", ".join(f"{i} is {fit.names[i]}" for i in columns)
    parts = [
        tag(
            "p",
            "Blue lines are draws of the samplers, grey areas the same draws by weight: where they "
            + f"differ, the weights had to correct. Of the coordinates, {names}.",
        ),
        grid([single], "single"),
    ]
    if pictures:
        parts += [tag("p", "Pairs, with points drawn by weight:"), grid(pictures, "panels")]
    return markup(*parts)


def _chosen(draws: Floats, weight: Floats) -> list[int]:
    """Up to eight coordinates: those that look least like a Gaussian by their quantiles."""
    count = draws.shape[1]
    if count <= vectors.MAX_MARGINALS:
        return list(range(count))
    mean = weight @ draws
    deviation = np.sqrt(weight @ (draws - mean) ** 2)
    scaled = (draws - mean) / np.maximum(deviation, 1e-300)
    # A Gaussian has third moment 0 and fourth moment 3; two modes have a lower fourth one.
    oddness = np.abs(weight @ scaled**3) + np.abs(weight @ scaled**4 - 3)
    return sorted(np.argsort(-oddness)[: vectors.MAX_MARGINALS].tolist())


def _weights(fit: FitData) -> Html:
    shown = picture(
        "weights",
        vectors.weights(fit.log_weights, np.zeros(0), fit.log_z),
        "Log weights of the draws",
        "Histogram of log weights minus log Z",
    )
    text = (
        "At 0 a draw comes as often as it should. A long tail to the right would mean that a few "
        + "draws stand for much that is drawn too rarely."
    )
    return markup(tag("p", text), grid([shown], "single"))
