"""Figures of runs over strings: profiles, the probability of each symbol in each place."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._figures import ERROR, INK, style, tidy_bar
from ._read import Floats

SHADES = LinearSegmentedColormap.from_list(
    "white_blue", ["#ffffff", "#a3d0ea", "#2b8fc7", "#00395e"]
)
BOUND = 0.2
"""Differences of probabilities are shown up to this, in every report."""
_WIDTH, _ROW, _TALLEST = 3.7, 0.30, 6.5
_MOST_WRITTEN, _MOST_LETTERS = 14, 40


def profile(panel: Floats, letters: Sequence[str], highest: float) -> Figure:
    """Probabilities [num_symbols, length], from white at 0 to dark at `highest`."""
    written = np.where(panel >= 0.005, np.char.mod("%.0f", 100 * panel), "")
    norm = Normalize(0.0, 100 * highest)
    return _table(100 * panel, letters, SHADES, norm, written)


def difference(student: Floats, target: Floats, letters: Sequence[str]) -> Figure:
    """Student − target: blue where the Student has a symbol too rarely, orange too often."""
    apart = 100 * (student - target)
    written = np.where(np.abs(apart) >= 0.5, np.char.mod("%+.0f", apart), "")
    written = np.char.replace(written, "-", "−")
    return _table(apart, letters, ERROR, Normalize(-100 * BOUND, 100 * BOUND), written)


def _table(
    panel: Floats,
    letters: Sequence[str],
    colors: Colormap,
    norm: Normalize,
    written: np.ndarray,
) -> Figure:
    """Cells in the order in which strings are read: letters downwards, places to the right; with
    what is `written` in them, in per cent, or where there is no room a colour bar.
    """
    rows, columns = panel.shape
    room = columns <= _MOST_WRITTEN and rows <= _MOST_LETTERS
    left, right = 0.24 + 0.1 * max(map(len, letters)), 0.12
    above, below = (0.08 if room else 0.62), 0.46
    height = min(_ROW * max(rows, 3), _TALLEST)
    size = (_WIDTH, height + above + below)
    figure = Figure(figsize=size, facecolor="white")
    width = _WIDTH - left - right
    ax = figure.add_axes((left / size[0], below / size[1], width / size[0], height / size[1]))
    style(ax, "place in the string", "")
    image = ax.imshow(panel, cmap=colors, norm=norm, aspect="auto")
    # No text of a user is read as mathematics.
    every = -(-rows // _MOST_LETTERS)
    ax.set_yticks(range(0, rows, every), letters[::every], parse_math=False)
    every = -(-columns // _MOST_WRITTEN)
    ax.set_xticks(range(0, columns, every), [str(i + 1) for i in range(0, columns, every)])
    if room:
        for (i, j), text in np.ndenumerate(written):
            look = {"ha": "center", "va": "center_baseline", "fontsize": 8}
            ax.text(j, i, str(text), color=_ink_on(colors(norm(panel[i, j]))), **look)
    else:
        where = (left / size[0], 1 - 0.22 / size[1], width / size[0], 0.12 / size[1])
        bar = figure.colorbar(image, cax=figure.add_axes(where), orientation="horizontal")
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
        tidy_bar(bar.ax, "")
    return figure


def _ink_on(color: Sequence[float] | Floats) -> str:
    """White or ink, whichever has the greater contrast (WCAG 2) with a colour."""
    linear = np.asarray(color[:3]) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "white" if luminance < 0.22 else INK
