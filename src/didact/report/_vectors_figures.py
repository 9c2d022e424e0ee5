"""Figures of a run on a density over vectors: pure functions from arrays to figures.

As in `_figures`, no text of a user enters a figure. The target is grey or viridis, the Student
blue, the Teacher cividis, what is drawn backwards from the target orange.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import _figures as figures
from ._figures import BLUE, GREY, INK, ORANGE, PALE
from ._read import Floats

ENCLOSED = (0.5, 0.9, 0.99)
"""Shares of the target's probability that the contours enclose."""
MAX_MARGINALS = 8
_WEIGHT_BINS, _MARGINAL_BINS = 60, 50


def heat(panel: Floats, ends: Floats, colors: Colormap, axes: tuple[int, int]) -> Figure:
    """Heat map of probabilities in cells [cells, cells] between the `ends` [4]."""
    figure, ax = _square(axes)
    top = max(float(panel.max()), 1e-300)
    # The root shows small modes beside large ones, and does not blow up the noise of few draws.
    norm = PowerNorm(0.5, 0.0, top)
    image = ax.imshow(panel.T, origin="lower", cmap=colors, norm=norm, extent=_box(ends))
    ax.set_aspect("auto")
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.86, aspect=32, pad=0.02)
    bar.set_ticks([0, top / 4, top], labels=["0", "¼", "largest"])
    figures.tidy_bar(bar.ax, "probability")
    return figure


def draws(
    points: Floats, panel: Floats, ends: Floats, axes: tuple[int, int], *, color: str = BLUE
) -> Figure:
    """Draws [n, 2] on contours of the target, which has the probabilities `panel` in cells."""
    figure, ax = _square(axes)
    _contours(ax, panel, ends)
    ax.plot(
        *points.T, ".", color=color, markersize=3.2, alpha=0.45, markeredgewidth=0, rasterized=True
    )
    ax.set_xlim(*ends[:2])
    ax.set_ylim(*ends[2:])
    return figure


def points(points: Floats, axes: tuple[int, int]) -> Figure:
    """Draws [n, 2] alone."""
    figure, ax = _square(axes)
    ax.plot(
        *points.T, ".", color=BLUE, markersize=3.2, alpha=0.45, markeredgewidth=0, rasterized=True
    )
    return figure


def marginals(
    panels: Sequence[tuple[int, Floats, Floats, Floats | None]],
    *,
    weighted: bool,
    sampler: str = "Student",
) -> Figure:
    """Histograms of single coordinates: (coordinate, draws of the `sampler`, of the target, and the
    weights of the latter).
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(
        figsize=(2.75 * columns + 0.2, 2.1 * rows + 0.5), layout="constrained", facecolor="white"
    )
    for i, (coordinate, student, target, weight) in enumerate(panels):
        ax = figure.add_subplot(rows, columns, i + 1)
        figures.style(ax, f"coordinate {coordinate}", "")
        low, high = np.quantile(np.concatenate([target, student]), (0.002, 0.998))
        bins = np.linspace(low, max(high, low + 1e-9), _MARGINAL_BINS + 1)
        of_target = f"{sampler}, weighted" if weighted else "target"
        shown, _ = np.histogram(target, bins, weights=weight, density=True)
        ax.stairs(shown, bins, fill=True, color="#b9bec5", label=of_target)
        shown, _ = np.histogram(student, bins, density=True)
        ax.stairs(shown, bins, color=BLUE, lw=1.8, label=sampler)
        ax.set_yticks([])
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.spines[["top", "right", "left"]].set_visible(False)
    figures.legend(figure)
    return figure


def bounds(rows: Sequence[tuple[str, float, float, float, str, str]], true: float | None) -> Figure:
    """Estimates of log Z below one another: (name, value, low, high, colour, marker)."""
    figure = Figure(figsize=(5.4, 0.55 * len(rows) + 1.3), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    figures.style(ax, "nats", "")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(axis="x", color=PALE, lw=0.6)
    ax.set_axisbelow(True)
    for place, (_, value, low, high, color, marker) in enumerate(rows):
        ax.plot([low, high], [-place, -place], color=color, lw=3.5, alpha=0.45)
        ax.plot(value, -place, marker, color=color, markersize=9)
    if true is not None:
        ax.axvline(true, color=INK, lw=1.2, dashes=(6, 3), label="true log Z", zorder=1)
        figures.legend(figure)
    ax.set_yticks(-np.arange(len(rows)), labels=[row[0] for row in rows])
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def weights(forward: Floats, backward: Floats, log_z: float) -> Figure:
    """Histograms of log weights minus log Z; what lies further out is in the outermost bins."""
    figure, ax = figures.wide("log weight − log Z, in nats", "share of paths")
    shown = [("Student’s paths", forward, BLUE), ("paths to exact samples", backward, ORANGE)]
    shown = [(label, w[~np.isnan(w)] - log_z, color) for label, w, color in shown if w.size]
    finite = [w[np.isfinite(w)] for _, w, _ in shown]
    ends = [np.quantile(w, (0.01, 0.99)) for w in finite if w.size]
    low, high = min([-1.0, *(e[0] for e in ends)]), max([1.0, *(e[1] for e in ends)])
    bins = np.linspace(low, high, _WEIGHT_BINS + 1)
    for i, (label, w, color) in enumerate(shown):
        share = np.histogram(np.clip(w, low, high), bins)[0] / max(w.size, 1)
        ax.stairs(share, bins, color=color, fill=i == 0, alpha=0.45 if i == 0 else 1, label=label)
        if i == 0:
            ax.stairs(share, bins, color=color, lw=1.2)
    ax.axvline(0, color=INK, lw=1.2, dashes=(6, 3), label="perfect")
    ax.set_xlim(low, high)
    figures.legend(figure)
    return figure


def levels(panel: Floats) -> list[float]:
    """The heights whose contours enclose the shares `ENCLOSED` of all probability, rising."""
    ordered = np.sort(panel, axis=None)[::-1]
    total = np.cumsum(ordered)
    if total[-1] <= 0:
        return []
    places = [int(np.searchsorted(total, share * total[-1])) for share in ENCLOSED]
    heights = sorted({float(ordered[min(p, ordered.size - 1)]) for p in places})
    return [height for height in heights if height > 0]


def smoothed(panel: Floats, cells: float = 1.0) -> Floats:
    """A histogram [cells, cells] without the noise of its counts."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(panel, cells, mode="constant")


def _contours(ax: Axes, panel: Floats, ends: Floats) -> None:
    heights = levels(panel)
    if len(heights) == 0 or float(panel.max()) <= heights[0]:
        return
    x, y = (
        low + (high - low) * (np.arange(n) + 0.5) / n
        for n, low, high in zip(panel.shape, ends[0::2], ends[1::2], strict=True)
    )
    ax.contour(x, y, panel.T, levels=heights, colors=GREY, linewidths=0.9)


def _box(ends: Floats) -> tuple[float, float, float, float]:
    return float(ends[0]), float(ends[1]), float(ends[2]), float(ends[3])


def _square(axes: tuple[int, int]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.7, 3.9), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    figures.style(ax, f"coordinate {axes[0]}", f"coordinate {axes[1]}")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    return figure, ax
