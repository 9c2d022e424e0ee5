"""Figures of a report: pure functions from arrays to `matplotlib.figure.Figure`.

Nothing here touches pyplot or rcParams, and no text of a user enters a figure (matplotlib would
read `$` as mathematics). Colours: Okabe–Ito for lines, each with its own dashes and marker;
viridis and cividis for densities; blue–white–orange, centred at "right", for errors.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import (
    Colormap,
    LinearSegmentedColormap,
    ListedColormap,
    LogNorm,
    Normalize,
    to_rgba,
)
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from ._numbers import number
from ._read import Bools, Floats

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
INK, GREY, PALE = "#22262b", "#6b7280", "#d9dce0"
DENSITY, TEACHER = colormaps["viridis"], colormaps["cividis"]
ERROR = LinearSegmentedColormap.from_list(
    "blue_orange", ["#004a78", "#2b8fc7", "#a3d0ea", "#f7f7f7", "#f8c59d", "#e07a2c", "#9c4300"]
).with_extremes(bad=PALE)
RATIO_BOUND = 3.0
"""Relative errors are shown up to a factor of 2³ = 8 either way."""
DIFFERENCE_BOUND = 0.5
"""Differences are shown up to half of the target's largest probability."""
_MAX_PIXELS = 256
_MAX_LINES, _MAX_BARS = 20_000, 1_000
"""More outlines cannot be seen, and more hatched bars take too long."""
DPI = 170


@dataclass(frozen=True)
class Scale:
    """A logarithmic colour scale."""

    low: float
    high: float

    @staticmethod
    def of(arrays: Sequence[Floats], decades: float) -> "Scale":
        """From the smallest to the largest positive entry, at most `decades` of them."""
        positive = np.concatenate([a[a > 0].ravel() for a in arrays])
        if positive.size == 0:
            return Scale(0.1, 1.0)
        high = float(positive.max())
        low = max(float(positive.min()), high * 10.0**-decades)
        return Scale(min(low, high / 2), high)

    @property
    def norm(self) -> LogNorm:
        """The same scale for matplotlib."""
        return LogNorm(self.low, self.high, clip=True)


@dataclass(frozen=True)
class Line:
    """Curves of one quantity, one per seed: `x` [n], `y` [n, seeds]."""

    label: str
    x: Floats
    y: Floats
    color: str
    dash: str = "-"
    marker: str = ""


def density(
    panel: Floats,
    scale: Scale,
    colors: Colormap,
    axes: tuple[int, int],
    void: Bools | None = None,
) -> Figure:
    """Heat map of probabilities [side, side] (rows = first coordinate), logarithmic. Here and in
    the other maps no object lies in the cells of `void`, which are hatched.
    """
    figure, ax = _square(axes)
    shown = np.maximum(panel, scale.low)
    image = ax.imshow(shown.T, origin="lower", cmap=colors, norm=scale.norm)
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.86, aspect=32, pad=0.02)
    if scale.high < 100 * scale.low:
        ticks = _round_numbers(scale.low, scale.high)
        bar.set_ticks(ticks, labels=[number(t, digits=1) for t in ticks])
    tidy_bar(bar.ax, "probability (log scale)")
    _hatch(ax, void)
    return figure


def ratio(
    student: Floats,
    target: Floats,
    axes: tuple[int, int],
    marked: Bools | None,
    void: Bools | None = None,
) -> Figure:
    """Heat map of log₂(Student / target); cells of `marked` are outlined."""
    figure, ax = _square(axes)
    norm = Normalize(-RATIO_BOUND, RATIO_BOUND, clip=True)
    image = ax.imshow(log_ratio(student, target).T, origin="lower", cmap=ERROR, norm=norm)
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.86, aspect=32, pad=0.02)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["⅛", "¼", "½", "1", "2", "4", "8"])
    tidy_bar(bar.ax, "Student ÷ target")
    if marked is not None:
        _outline(ax, marked)
    _hatch(ax, void)
    return figure


def difference(
    student: Floats, target: Floats, axes: tuple[int, int], void: Bools | None = None
) -> Figure:
    """Heat map of Student − target, in units of the target's largest probability.

    The scale is the same in every report; at its blue end a mode is no longer held.
    """
    figure, ax = _square(axes)
    shown = (student - target) / max(float(target.max()), 1e-300)
    norm = Normalize(-DIFFERENCE_BOUND, DIFFERENCE_BOUND, clip=True)
    image = ax.imshow(shown.T, origin="lower", cmap=ERROR, norm=norm)
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.86, aspect=32, pad=0.02)
    bar.set_ticks([-0.5, -0.25, 0, 0.25, 0.5], labels=["−½", "−¼", "0", "+¼", "+½"])
    tidy_bar(bar.ax, "(Student − target) ÷ largest target probability")
    _hatch(ax, void)
    return figure


def mode_map(modes: Bools, held: Bools, axes: tuple[int, int], void: Bools | None = None) -> Figure:
    """Which cells of modes are held (dark) and which are missed (purple, outlined)."""
    figure, ax = _square(axes)
    kinds = np.where(modes, np.where(held, 2, 1), 0)
    colors = ListedColormap(["#eceef0", PURPLE, "#3f4751"])
    image = ax.imshow(kinds.T, origin="lower", cmap=colors, vmin=-0.5, vmax=2.5)
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.86, aspect=32, pad=0.02)
    bar.set_ticks([0, 1, 2], labels=["no mode", "missed", "held"])
    tidy_bar(bar.ax, "modes of the target")
    _outline(ax, modes & ~held)
    _hatch(ax, void)
    return figure


def density_lines(
    panels: Sequence[tuple[str, Floats]],
    scale: Scale,
    ends: tuple[float, float] | None = None,
) -> Figure:
    """Probabilities over a one-dimensional space, one curve for each of `panels`; the cells lie
    between the `ends`, or are numbered.
    """
    figure, ax = wide("coordinate 0", "probability (log scale)")
    styles = ((INK, "-", 3.0), (BLUE, "--", 1.6), (VERMILION, ":", 1.8))
    for (label, panel), (color, dash, width) in zip(panels, styles, strict=False):
        cells, shown = np.arange(panel.size) + 0.5, np.maximum(panel, scale.low)
        low, high = (-0.5, panel.size - 0.5) if ends is None else ends
        cells = low + (high - low) * cells / panel.size
        ax.step(cells, shown, dash, where="mid", color=color, lw=width, label=label)
    ax.set_yscale("log")
    ax.set_ylim(scale.low / 1.5, scale.high * 3)
    legend(figure)
    return figure


def curves(
    lines: Sequence[Line],
    ylabel: str,
    *,
    log: bool = False,
    smooth: bool = False,
    bounds: tuple[float | None, float | None] = (None, None),
    reference: tuple[float, str] | None = None,
    whole: bool = False,
    against: str = "reward calls",
) -> Figure:
    """Quantities against reward calls: seeds as thin lines, their mean thick; `whole` ones are
    counts.

    With `smooth` the thin lines are the raw values and the thick ones running means (of the
    logarithm where `log`). `reference` draws a labelled horizontal line.
    """
    figure, ax = wide(against, ylabel)
    if log:
        ax.set_yscale("log")
    for line in lines:
        _curve(ax, line, log=log, smooth=smooth)
    if reference is not None:
        ax.axhline(reference[0], color=INK, lw=1.2, dashes=(6, 3), label=reference[1], zorder=1)
    ax.set_ylim(*bounds)
    if log:
        _label_decades(ax)
    elif whole:
        ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    legend(figure)
    return figure


def log_ratio(student: Floats, target: Floats) -> Floats:
    """log₂(Student / target), NaN where the target is 0, −∞ where only the Student is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(target > 0, np.log2(student) - np.log2(target), np.nan)


def density_pixels(
    panel: Floats, scale: Scale, colors: Colormap, void: Bools | None = None
) -> bytes:
    """A bare PNG of probabilities, one square of pixels for each cell; those of `void` are grey."""
    rgba = colors(scale.norm(np.maximum(_shrink(panel), scale.low)))
    if void is not None:
        rgba[_shrink(void.astype(np.float64)) == 1] = to_rgba(PALE)
    return _pixels(rgba)


def ratio_pixels(student: Floats, target: Floats) -> bytes:
    """A bare PNG of log₂(Student / target)."""
    shown = np.ma.masked_invalid(
        np.clip(log_ratio(_shrink(student), _shrink(target)), -RATIO_BOUND, RATIO_BOUND)
    )
    return _pixels(ERROR(Normalize(-RATIO_BOUND, RATIO_BOUND)(shown)))


def png(figure: Figure) -> bytes:
    """Draw `figure` into the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _square(axes: tuple[int, int]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.7, 4.2), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    style(ax, f"coordinate {axes[0]}", f"coordinate {axes[1]}")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure, ax


def wide(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A wide figure for curves."""
    figure = Figure(figsize=(5.4, 3.7), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    style(ax, xlabel, ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=PALE, lw=0.6)
    ax.set_axisbelow(True)
    return figure, ax


def style(ax: Axes, xlabel: str, ylabel: str) -> None:
    """Labels and frame of all figures."""
    ax.set_xlabel(xlabel, fontsize=10, color=INK)
    ax.set_ylabel(ylabel, fontsize=10, color=INK)
    ax.tick_params(labelsize=9, color=GREY, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set(color=GREY, linewidth=0.8)


def tidy_bar(ax: Axes, label: str) -> None:
    """Ticks and label of a colour bar."""
    ax.tick_params(labelsize=9, color=GREY, labelcolor=INK)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(label, fontsize=9.5, color=INK)


def legend(figure: Figure) -> None:
    """The curves' names, above the figure."""
    handles, _ = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=3 if len(handles) < 4 else 2,
            fontsize=9,
            frameon=False,
            handlelength=2.6,
            columnspacing=1.4,
        )


def _curve(ax: Axes, line: Line, *, log: bool, smooth: bool) -> None:
    y = np.where(line.y > 0, line.y, np.nan) if log else line.y
    ax.plot(line.x, y, color=line.color, lw=0.7, alpha=0.25 if smooth else 0.45)
    known = np.isfinite(y)
    total = np.where(known, y, 0.0).sum(axis=1)
    if smooth and log:
        total = np.where(known, np.log(np.where(known, y, 1.0)), 0.0).sum(axis=1)
    some = known.any(axis=1)
    center = total[some] / known.sum(axis=1)[some]
    if smooth:
        center = running_mean(center, max(1, center.size // 20))
        center = np.exp(center) if log else center
    ax.plot(
        line.x[some],
        center,
        line.dash,
        color=line.color,
        lw=2.2,
        marker=line.marker,
        markersize=5,
        markevery=max(1, center.size // 8),
        label=line.label,
    )


def running_mean(values: Floats, width: int) -> Floats:
    """Mean over a centred window of `width` entries, shorter at the ends."""
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones(values.size), window, "same")


def _label_decades(ax: Axes) -> None:
    """Label 1, 2 and 5 in each decade where the axis spans fewer than two decades."""
    low, high = ax.get_ylim()
    if high < 100 * low:
        ticks = _round_numbers(low, high)
        if len(ticks) < 2:  # between two of them
            ticks = [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
        ax.set_yticks(ticks, labels=[_thousands(t) for t in ticks])
    ax.yaxis.set_minor_formatter(NullFormatter())


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between `low` and `high`."""
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    numbers = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    return [n for n in numbers if low <= n <= high]


def _thousands(value: float, _: int | None = None) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def _outline(ax: Axes, mask: Bools) -> None:
    """Draw the border of the cells of `mask` (rows = horizontal coordinate), where there are few
    enough for lines to be seen.
    """
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]) - 0.5
    along = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]) - 0.5
    if len(across) + len(along) > _MAX_LINES:
        return
    lines = [np.stack([at, at + step], axis=1) for at, step in ((across, (0, 1)), (along, (1, 0)))]
    ax.add_collection(LineCollection(list(np.concatenate(lines)), colors="black", linewidths=0.9))


def _hatch(ax: Axes, void: Bools | None) -> None:
    """Hatch the cells of `void`, or where they are scattered make them grey, and say what that
    means.
    """
    if void is None or not void.any():
        return
    padded = np.pad(void, ((0, 0), (1, 1)))
    first = np.argwhere(padded[:, 1:] & ~padded[:, :-1])
    last = np.argwhere(padded[:, :-1] & ~padded[:, 1:]) - np.array([0, 1])
    look: dict[str, Any] = {"facecolor": PALE, "edgecolor": GREY, "linewidth": 0.0}
    if len(first) <= _MAX_BARS:  # cells one above the other are one bar
        look["hatch"] = "//////"
        across, along = np.array([0.5, -0.5]), np.array([-0.5, 0.5])
        corners = np.stack([first - 0.5, first + across, last + 0.5, last + along], axis=1)
        ax.add_collection(PolyCollection(list(corners), **look))
    else:
        cells = np.ma.masked_array(void, ~void)
        ax.imshow(cells.T, origin="lower", cmap=ListedColormap([PALE]))
    ax.figure.legend(
        handles=[Patch(label="no object", **look)],
        loc="outside upper right",
        fontsize=8.5,
        frameon=False,
        handlelength=1.2,
        handleheight=1.0,
        borderpad=0.1,
    )


def _shrink(panel: Floats) -> Floats:
    """Average blocks of cells so that no side has more than `_MAX_PIXELS` of them."""
    factor = -(-max(panel.shape) // _MAX_PIXELS)
    if factor == 1:
        return panel
    for axis, size in enumerate(panel.shape):
        starts = np.arange(0, size, factor)
        counts = np.diff(np.append(starts, size))
        sums = np.add.reduceat(panel, starts, axis=axis)
        panel = sums / np.expand_dims(counts, 1 - axis)
    return panel


def _pixels(rgba: Floats) -> bytes:
    """A PNG of colours [side, side, 4], first coordinate to the right, second upwards."""
    zoom = max(1, _MAX_PIXELS // max(rgba.shape[:2]))
    shown = np.round(rgba.transpose(1, 0, 2)[::-1] * 255).astype(np.uint8)
    buffer = io.BytesIO()
    imsave(buffer, shown.repeat(zoom, axis=0).repeat(zoom, axis=1), format="png")
    return buffer.getvalue()
